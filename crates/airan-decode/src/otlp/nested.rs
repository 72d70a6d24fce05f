//! Attribute values that are no plain text, as the text they are stored as.
//!
//! Numbers and booleans are written as in JSON, bytes in base64, lists and maps as JSON. Keys inside a map that name a subscriber
//! are left out, like labels of that name.

use std::fmt::Write;

use airan_model::reject::Reason;

use crate::labels::Classes;

/// Writes one nested value as JSON, within the limits on depth and length.
pub(super) struct Nested<'c, 'a> {
    text: String,
    classes: &'c mut Classes<'a>,
    deepest: usize,
    longest: usize,
    depth: usize,
    // Keys left out because they name a subscriber.
    dropped: u64,
}

impl<'c, 'a> Nested<'c, 'a> {
    pub(super) fn new(classes: &'c mut Classes<'a>, deepest: usize, longest: usize) -> Nested<'c, 'a> {
        Nested { text: String::new(), classes, deepest, longest, depth: 0, dropped: 0 }
    }

    /// Longest text.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The text, and how many keys were left out.
    pub(super) fn finish(self) -> (String, u64) {
        (self.text, self.dropped)
    }

    /// Goes into a list or map: `[` or `{`.
    pub(super) fn open(&mut self, bracket: char) -> Result<(), Reason> {
        self.depth += 1;
        if self.depth > self.deepest {
            return Err(Reason::TooDeep);
        }
        self.raw(bracket)
    }

    /// Ends it: `]` or `}`.
    pub(super) fn close(&mut self, bracket: char) -> Result<(), Reason> {
        self.depth -= 1;
        self.raw(bracket)
    }

    /// Begins an element; false where its key names a subscriber, so that it is left out.
    pub(super) fn key(&mut self, key: &str) -> Result<bool, Reason> {
        if self.classes.drops(key) {
            self.dropped += 1;
            return Ok(false);
        }
        self.element()?;
        self.string(key)?;
        self.raw(':')?;
        Ok(true)
    }

    /// Begins an element of a list.
    pub(super) fn element(&mut self) -> Result<(), Reason> {
        if self.text.ends_with(['[', '{']) { Ok(()) } else { self.raw(',') }
    }

    /// Text in quotes.
    pub(super) fn string(&mut self, text: &str) -> Result<(), Reason> {
        let room = self.longest.saturating_sub(self.text.len());
        if text.len() > room {
            return Err(Reason::LabelTooLong);
        }
        self.text.push_str(&serde_json::Value::from(text).to_string());
        self.check()
    }

    /// A number, `true`, `false` or `null`.
    pub(super) fn plain(&mut self, value: impl std::fmt::Display) -> Result<(), Reason> {
        let _ = write!(self.text, "{value}"); // writing to a String cannot fail
        self.check()
    }

    fn raw(&mut self, one: char) -> Result<(), Reason> {
        self.text.push(one);
        self.check()
    }

    fn check(&self) -> Result<(), Reason> {
        if self.text.len() > self.longest { Err(Reason::LabelTooLong) } else { Ok(()) }
    }
}

/// Bytes as text, in base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let at = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[at as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::catalog::Catalog;

    #[test]
    fn bytes_become_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn nested_values_are_json_without_subscribers() {
        let catalog = Catalog::builtin().unwrap();
        let mut classes = Classes::new(&catalog);
        let mut nested = Nested::new(&mut classes, 2, 100);
        nested.open('{').unwrap();
        assert!(!nested.key("imsi").unwrap());
        assert!(nested.key("a\"").unwrap());
        nested.open('[').unwrap();
        nested.element().unwrap();
        nested.plain(1).unwrap();
        nested.element().unwrap();
        nested.string("x").unwrap();
        assert_eq!(nested.open('['), Err(Reason::TooDeep));
        nested.depth -= 1;
        nested.close(']').unwrap();
        nested.close('}').unwrap();
        assert_eq!(nested.string(&"y".repeat(100)), Err(Reason::LabelTooLong));
        assert_eq!(nested.finish(), (r#"{"a\"":[1,"x"]}"#.to_owned(), 1));
    }
}
