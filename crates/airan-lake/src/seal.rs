//! Checksums, and JSON documents that carry their own.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// CRC-32 (IEEE) of some bytes, written `crc32:xxxxxxxx`; other algorithms may join under other names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checksum(String);

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum::from_crc32(crc32fast::hash(bytes))
    }

    /// From a CRC-32 that was summed up piece by piece.
    pub(crate) fn from_crc32(sum: u32) -> Checksum {
        Checksum(format!("crc32:{sum:08x}"))
    }

    /// As it was written; compared, never computed with.
    pub(crate) fn from_text(text: &str) -> Checksum {
        Checksum(text.to_owned())
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document of the lake is not what was written. Nothing repairs it; restore it from a copy.
#[derive(Debug, thiserror::Error)]
#[error("{path} is damaged: {reason}")]
pub struct Damaged {
    /// Where it lies.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

#[derive(Serialize)]
struct Sealing<'a> {
    checksum: Checksum,
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Sealed<'a> {
    checksum: Checksum,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// `{"checksum": …, "body": …}` and a line end. The same value gives the same bytes.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Bytes, serde_json::Error> {
    let body = serde_json::value::to_raw_value(value)?;
    let mut text = serde_json::to_vec(&Sealing { checksum: Checksum::of(body.get().as_bytes()), body: &body })?;
    text.push(b'\n');
    Ok(text.into())
}

/// Reads what `seal` wrote.
pub(crate) fn unseal<T: DeserializeOwned>(path: &impl ToString, bytes: &[u8]) -> Result<T, Damaged> {
    let damaged = |reason: String| Damaged { path: path.to_string(), reason };
    let sealed: Sealed<'_> = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let found = Checksum::of(sealed.body.get().as_bytes());
    if found != sealed.checksum {
        return Err(damaged(format!("its checksum is {found}, not {}", sealed.checksum)));
    }
    serde_json::from_str(sealed.body.get()).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Scenario: any map is sealed; then any one bit of the document is flipped.
        /// Guarantees: the untouched one is read back; the flipped one is refused or, where the flip changed only
        /// white space or the case of the checksum's digits, says the same.
        #[test]
        fn a_flipped_bit_is_found(value: std::collections::BTreeMap<String, i64>, at: prop::sample::Index, bit in 0..8u8) {
            type Map = std::collections::BTreeMap<String, i64>;
            let bytes = seal(&value).unwrap();
            prop_assert_eq!(&unseal::<Map>(&"x", &bytes).unwrap(), &value);
            let mut flipped = bytes.to_vec();
            let place = at.index(flipped.len());
            flipped[place] ^= 1 << bit;
            if let Ok(read) = unseal::<Map>(&"x", &flipped) {
                prop_assert_eq!(read, value);
            }
        }
    }
}
