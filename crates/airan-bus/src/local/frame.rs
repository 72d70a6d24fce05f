//! A message as the body of a record of the local log: its headers, then its payload.
//!
//! ```text
//! 1 version   1 number of headers   then for each header:  1 length  name  2 length  value      then the payload
//! ```
//!
//! Only gateways of ours write to a local log, and each record has its own checksum. So a higher version is a message of a later
//! release, as after a release was taken back: whoever took it for foreign would refuse rows that were acknowledged.

use airan_model::message::Message;
use bytes::{Buf, Bytes};

use crate::ConsumeError;

/// Version of the frames this release writes, and the highest it reads.
const VERSION: u8 = 1;

/// A message of a later release. Nothing after it may be read before it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has a message of format {version}, this release reads up to {VERSION}: use the release that wrote it, or a later one"
)]
pub struct Newer {
    version: u8,
}

impl Newer {
    /// As told to whoever reads `partition`, and met it at `offset`.
    pub fn at(self, partition: i32, offset: u64) -> ConsumeError {
        ConsumeError::Fatal { reason: format!("partition {partition}, offset {offset}: {self}") }
    }
}

/// The two parts of the body.
pub fn encode(message: Message) -> (Vec<u8>, Bytes) {
    let headers = message.headers();
    let mut head = Vec::with_capacity(128);
    head.extend([VERSION, headers.len() as u8]);
    for (name, value) in &headers {
        // The names are ours and short; a stream's name is short too, and a longer one is cut and then unknown.
        let value = &value.as_bytes()[..value.len().min(usize::from(u16::MAX))];
        head.push(name.len() as u8);
        head.extend(name.as_bytes());
        head.extend((value.len() as u16).to_be_bytes());
        head.extend(value);
    }
    let payload = match message {
        Message::Rows(rows) => rows.payload,
        Message::Tick => Bytes::new(),
        Message::Foreign { payload, .. } => payload,
    };
    (head, payload)
}

/// The message of a body; foreign where it is not one of ours.
///
/// # Errors
/// If it is of a later release.
pub fn decode(body: &Bytes) -> Result<Message, Newer> {
    if let Some(version) = body.first().copied().filter(|version| *version > VERSION) {
        return Err(Newer { version });
    }
    Ok(match split(body.clone()) {
        Some((headers, payload)) => {
            let names = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, &value[..])));
            Message::from_headers(names, payload)
        }
        None => Message::Foreign { reason: "no message of a local log".to_owned(), payload: body.clone() },
    })
}

type Headers = Vec<(Bytes, Bytes)>;

fn split(mut body: Bytes) -> Option<(Headers, Bytes)> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let count = body.try_get_u8().ok()?;
    let mut headers = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = body.try_get_u8().ok()?;
        let name = take(&mut body, length.into())?;
        let length = body.try_get_u16().ok()?;
        headers.push((name, take(&mut body, length.into())?));
    }
    Some((headers, body))
}

fn take(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use airan_model::message::Rows;
    use proptest::prelude::*;

    use super::*;

    fn body(message: Message) -> Bytes {
        let (mut head, payload) = encode(message);
        head.extend_from_slice(&payload);
        Bytes::from(head)
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let rows = Rows { stream: Arc::from("host"), schema: 0xfeed, rows: 12, payload: Bytes::from_static(b"arrow") };
        let Message::Rows(back) = decode(&body(Message::Rows(rows))).unwrap() else { panic!("rows") };
        assert_eq!((&*back.stream, back.schema, back.rows, &back.payload[..]), ("host", 0xfeed, 12, &b"arrow"[..]));
        assert!(matches!(decode(&body(Message::Tick)), Ok(Message::Tick)));
        let foreign = Message::Foreign { reason: "r".to_owned(), payload: Bytes::from_static(b"x") };
        let Message::Foreign { payload, .. } = decode(&body(foreign)).unwrap() else { panic!("foreign") };
        assert_eq!(&payload[..], b"x");
    }

    proptest! {
        /// Scenario: any bytes, and ours cut at any place.
        /// Guarantees: no panic; ours are foreign when cut; what begins with a higher version is a later release's, nothing else is.
        #[test]
        fn other_bytes_are_foreign_and_never_fatal(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..60) {
            let is_newer = bytes.first().is_some_and(|version| *version > VERSION);
            prop_assert_eq!(decode(&Bytes::from(bytes)).is_err(), is_newer);
            let whole = body(Message::Tick);
            let part = whole.slice(..cut.min(whole.len() - 1));
            let is_foreign = matches!(decode(&part), Ok(Message::Foreign { .. }));
            prop_assert!(is_foreign);
        }
    }
}
