//! A message as the body of a record of the local log: its headers, then its payload.
//!
//! ```text
//! 1 version   1 number of headers   then for each header:  1 length  name  2 length  value      then the payload
//! ```

use airan_model::message::Message;
use bytes::{Buf, Bytes};

const VERSION: u8 = 1;

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
pub fn decode(body: &Bytes) -> Message {
    match split(body.clone()) {
        Some((headers, payload)) => {
            let names = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, &value[..])));
            Message::from_headers(names, payload)
        }
        None => Message::Foreign { reason: "no message of a local log".to_owned(), payload: body.clone() },
    }
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
        let Message::Rows(back) = decode(&body(Message::Rows(rows))) else { panic!("rows") };
        assert_eq!((&*back.stream, back.schema, back.rows, &back.payload[..]), ("host", 0xfeed, 12, &b"arrow"[..]));
        assert!(matches!(decode(&body(Message::Tick)), Message::Tick));
        let foreign = Message::Foreign { reason: "r".to_owned(), payload: Bytes::from_static(b"x") };
        let Message::Foreign { payload, .. } = decode(&body(foreign)) else { panic!("foreign") };
        assert_eq!(&payload[..], b"x");
    }

    proptest! {
        /// Scenario: any bytes, and ours cut at any place.
        #[test]
        fn other_bytes_are_foreign_and_never_fatal(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..60) {
            decode(&Bytes::from(bytes));
            let whole = body(Message::Tick);
            let part = whole.slice(..cut.min(whole.len() - 1));
            let is_foreign = matches!(decode(&part), Message::Foreign { .. });
            prop_assert!(is_foreign);
        }
    }
}
