//! Who a row is, and which partition its site belongs to.

use sha2::{Digest, Sha256};

/// Half of a row's identity: random for an agent's spool, a hash of the body for a foreign sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u128);

impl BatchId {
    /// From 16 random bytes.
    pub fn random_from(bytes: [u8; 16]) -> BatchId {
        BatchId(u128::from_be_bytes(bytes))
    }

    /// 32 lower-case hex characters, as in column `batch`.
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads what [`BatchId::to_hex`] writes.
    pub fn from_hex(text: &str) -> Option<BatchId> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex { u128::from_str_radix(text, 16).ok().map(BatchId) } else { None }
    }

    /// The identity of a body: the first 128 bits of SHA-256 over sender, door and decompressed body.
    ///
    /// A retry sends the same bytes and so gets the same identity. Lengths go in front of the parts, so that no two triples
    /// give the same input.
    pub fn of_body(sender: &str, door: &str, body: &[u8]) -> BatchId {
        let mut hash = Sha256::new();
        for part in [sender.as_bytes(), door.as_bytes(), body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut first = [0u8; 16];
        first.copy_from_slice(&digest[..16]);
        BatchId::random_from(first)
    }
}

/// How `source` begins where a gateway made the identity of the row: the door it came through.
///
/// Such a batch belongs to one request and is worth remembering only as long as that request may be repeated. Every other batch
/// was made by its sender, which numbers rows in it for as long as it runs.
const GATEWAY_SOURCES: [&str; 7] =
    ["otlp_grpc/", "otlp_http/", "ndjson/", "arrow/", "remote_write/", "agent/", "kafka/"];

/// Whether a row of this `source` has its identity from a gateway and not from its sender.
pub fn is_gateway_source(source: &str) -> bool {
    GATEWAY_SOURCES.iter().any(|door| source.starts_with(door))
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
        hex
    })
}

/// murmur2 exactly as Kafka's Java client computes it (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut h = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * place);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of everything about a site: `toPositive(murmur2(site)) % partitions`, as the Java client's default.
///
/// `partitions` below 1 counts as 1.
pub fn partition_of(site: &str, partitions: i32) -> i32 {
    let positive = (murmur2(site.as_bytes()) & 0x7fff_ffff) as i32;
    positive % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the vectors of Kafka's own `UtilsTest.testMurmur2`.
    /// Guarantees: a Java producer keyed by site would pick the same partition.
    #[test]
    fn murmur2_is_the_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for site in ["", "site-a", "21", "unassigned", "北京"] {
            for partitions in [1, 2, 64, 1000] {
                assert!((0..partitions).contains(&partition_of(site, partitions)));
            }
            assert_eq!(partition_of(site, 0), 0);
        }
        // toPositive(-973932308) = 1173551340
        assert_eq!(partition_of("21", 64), 1_173_551_340 % 64);
    }

    #[test]
    fn a_bodys_identity_depends_on_sender_door_and_body() {
        let id = BatchId::of_body("edge-1", "otlp", b"body");
        assert_eq!(id, BatchId::of_body("edge-1", "otlp", b"body"));
        for other in [
            BatchId::of_body("edge-2", "otlp", b"body"),
            BatchId::of_body("edge-1", "ndjson", b"body"),
            BatchId::of_body("edge-1", "otlp", b"bodi"),
            BatchId::of_body("edge-1o", "tlp", b"body"),
        ] {
            assert_ne!(id, other);
        }
        assert_eq!(BatchId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(BatchId(1).to_hex(), "00000000000000000000000000000001");
        assert_eq!(BatchId::from_hex("+0000000000000000000000000000001"), None);
    }
}
