//! The wire format of protocol buffers, read without copying (protobuf.dev, "Encoding").
//!
//! A message is read field by field as slices of the body. Nothing is allocated, so a body cannot become larger than it is:
//! an empty data point costs its sender two bytes and would cost a decoded message more than a hundred.

/// How many groups may lie in each other: one less than this, as many as prost lets messages.
const GROUPS_DEEP: usize = 101;

/// Bytes that are no protocol buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub what: &'static str,
    // Bytes from the fault to the end of the message it was found in, and where that end lies in memory.
    left: usize,
    end: usize,
}

impl Fault {
    /// Its offset in the body it was found in.
    pub(crate) fn offset(&self, body: &[u8]) -> usize {
        let end = self.end.saturating_sub(body.as_ptr() as usize);
        end.saturating_sub(self.left)
    }
}

/// A signed number as protobuf's `sint` types write it.
pub(crate) fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What is left of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'b>(&'b [u8]);

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(Message<'b>),
    /// A group, which no message of ours has: what it holds was skipped.
    Group,
}

/// A field: its number and value.
pub(crate) type Field<'b> = (u32, Value<'b>);

impl<'b> Message<'b> {
    /// A whole body.
    pub(crate) fn of(bytes: &'b [u8]) -> Message<'b> {
        Message(bytes)
    }

    /// The next field; None at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'b>>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let start = *self;
        let key = self.varint()?;
        let Ok(key) = u32::try_from(key) else { return start.fault("a field number is too large") };
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take::<8>()?)),
            2 => {
                let length = self.varint()?;
                let taken = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
                let Some((taken, rest)) = taken else { return start.fault("a field is longer than its message") };
                self.0 = rest;
                Value::Bytes(Message(taken))
            }
            5 => {
                self.take::<4>()?;
                Value::Fixed32
            }
            3 => {
                self.skip_group(key >> 3)?;
                Value::Group
            }
            _ => return start.fault("a wire type that is not in use"),
        };
        match key >> 3 {
            0 => start.fault("field number 0"),
            number => Ok(Some((number, value))),
        }
    }

    /// Skips what a group holds, up to and with the end of it.
    ///
    /// Groups are deprecated, but a parser has to get past those of fields it does not know, and other parsers do.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), Fault> {
        let mut open = [0; GROUPS_DEEP];
        open[1] = number;
        let mut depth = 1;
        while depth > 0 {
            let start = *self;
            let Ok(key) = u32::try_from(self.varint()?) else { return start.fault("a field number is too large") };
            let number = key >> 3;
            match key & 7 {
                _ if number == 0 => return start.fault("field number 0"),
                3 if depth + 1 == GROUPS_DEEP => return start.fault("groups are nested too deep"),
                3 => {
                    depth += 1;
                    open[depth] = number;
                }
                4 if open[depth] == number => depth -= 1,
                4 => return start.fault("a group ends that did not begin"),
                0 => self.varint().map(|_| ())?,
                1 => self.take::<8>().map(|_| ())?,
                2 => {
                    let length = self.varint()?;
                    let rest = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
                    let Some((_, rest)) = rest else { return start.fault("a field is longer than its message") };
                    self.0 = rest;
                }
                5 => self.take::<4>().map(|_| ())?,
                _ => return start.fault("a wire type that is not in use"),
            }
        }
        Ok(())
    }

    /// Calls `with` for each field.
    #[inline]
    pub(crate) fn each<E: From<Fault>>(mut self, mut with: impl FnMut(Field<'b>) -> Result<(), E>) -> Result<(), E> {
        while let Some(field) = self.next()? {
            with(field)?;
        }
        Ok(())
    }

    /// The bytes of a text field.
    pub(crate) fn text(self) -> Result<&'b str, Fault> {
        std::str::from_utf8(self.0).or_else(|_| self.fault("text that is no UTF-8"))
    }

    /// The bytes of a bytes field.
    pub(crate) fn bytes(self) -> &'b [u8] {
        self.0
    }

    /// Key and text of a `KeyValue` written the way most are: the key, then a value that is a text, each shorter than 128 bytes.
    ///
    /// None for any other: that is then read field by field. Most bytes of a request are such pairs.
    #[inline]
    pub(crate) fn plain_pair(self) -> Option<(Message<'b>, Message<'b>)> {
        let (&[0x0a, key], rest) = self.0.split_first_chunk()? else { return None };
        let (key, rest) = rest.split_at_checked(usize::from(key))?;
        let (&[0x12, outer, 0x0a, inner], text) = rest.split_first_chunk()? else { return None };
        // A length above 127 takes two bytes, which none of these lengths then adds up to.
        let adds_up = usize::from(inner) == text.len()
            && usize::from(outer) == text.len() + 2
            && outer < 0x80
            && key.len() < 0x80;
        adds_up.then_some((Message(key), Message(text)))
    }

    /// Fields 1 and 2 of a message that has these two in this order and no other, each shorter than 128 bytes: a label of
    /// remote write 1.0 as all senders write it.
    ///
    /// None for any other: that is then read field by field.
    #[inline]
    pub(crate) fn two_texts(self) -> Option<(Message<'b>, Message<'b>)> {
        let (&[0x0a, length], rest) = self.0.split_first_chunk()? else { return None };
        let (first, rest) = rest.split_at_checked(usize::from(length))?;
        let (&[0x12, length], second) = rest.split_first_chunk()? else { return None };
        // A length above 127 takes two bytes.
        let adds_up = usize::from(length) == second.len() && first.len() < 0x80 && length < 0x80;
        adds_up.then_some((Message(first), Message(second)))
    }

    /// Packed numbers of variable length.
    pub(crate) fn packed_varints<E: From<Fault>>(
        mut self,
        mut with: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.0.is_empty() {
            with(self.varint()?)?;
        }
        Ok(())
    }

    /// Packed fixed-length numbers.
    pub(crate) fn packed(self) -> Result<impl Iterator<Item = u64> + 'b, Fault> {
        let (numbers, rest) = self.0.as_chunks::<8>();
        match rest {
            [] => Ok(numbers.iter().map(|number| u64::from_le_bytes(*number))),
            _ => self.fault("packed numbers that end within one"),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Fault> {
        match self.0 {
            [first @ 0..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            let low = u64::from(byte & 0x7f);
            if index == 9 && low > 1 {
                return self.fault("a number of more than 64 bits");
            }
            value |= low << (7 * index);
            if *byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        self.fault(if self.0.len() < 10 { "the message ends within a number" } else { "a number of more than 64 bits" })
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some((taken, rest)) = self.0.split_first_chunk::<N>() else {
            return self.fault("the message ends within a number");
        };
        self.0 = rest;
        Ok(*taken)
    }

    #[cold]
    fn fault<T>(self, what: &'static str) -> Result<T, Fault> {
        let range = self.0.as_ptr_range();
        Err(Fault { what, left: self.0.len(), end: range.end as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u32>, Fault> {
        let mut numbers = Vec::new();
        Message::of(bytes).each::<Fault>(|(number, _)| {
            numbers.push(number);
            Ok(())
        })?;
        Ok(numbers)
    }

    /// Scenario: each wire type, then each way for bytes to be no message.
    #[test]
    fn fields_are_read_and_faults_have_their_place() {
        let good = b"\x08\x96\x01\x11\x00\x00\x00\x00\x00\x00\xf0\x3f\x1a\x02hi\x25\x01\x02\x03\x04";
        assert_eq!(read(good), Ok(vec![1, 2, 3, 4]));
        for (bytes, what, at) in [
            (&b"\x08"[..], "ends within a number", 1),
            (b"\x08\x80", "ends within a number", 1),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "more than 64 bits", 1),
            (b"\x11\x00", "ends within a number", 1),
            (b"\x1a\x03hi", "longer than its message", 0),
            (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01hi", "longer than its message", 0),
            (b"\x0c", "wire type", 0),
            (b"\x0e", "wire type", 0),
            (b"\x0b", "ends within a number", 1),
            (b"\x0b\x14", "ends that did not begin", 1),
            (b"\x0b\x13\x0c\x14", "ends that did not begin", 2),
            (b"\x0b\x12\x02h", "longer than its message", 1),
            (b"\x0b\x03", "field number 0", 1),
            (b"\x00\x01", "field number 0", 0),
            (b"\xff\xff\xff\xff\xff\x01\x00", "field number is too large", 0),
        ] {
            let fault = read(bytes).unwrap_err();
            assert!(fault.what.contains(what) && fault.offset(bytes) == at, "{bytes:?}: {fault:?}");
        }
    }

    /// Scenario: a group with a field of each wire type and a group within, between two fields; groups in groups at the limit.
    /// Guarantees: it is skipped whole, as other parsers do; nesting is bounded.
    #[test]
    fn groups_are_skipped() {
        let group = b"\x08\x01\x23\x10\x96\x01\x19\x00\x00\x00\x00\x00\x00\x00\x00\x22\x01x\x2d\x00\x00\x00\x00\x0b\x0c\x24\x18\x02";
        assert_eq!(read(group), Ok(vec![1, 4, 3]));
        let nested = |deep: usize| [vec![0x0b; deep], vec![0x0c; deep]].concat();
        assert_eq!(read(&nested(100)), Ok(vec![1]));
        assert_eq!(read(&nested(101)).unwrap_err().what, "groups are nested too deep");
    }

    #[test]
    fn a_nested_fault_counts_from_the_start_of_the_body() {
        let body = b"\x0a\x02\x08\x80";
        let Ok(Some((1, Value::Bytes(mut inner)))) = Message::of(body).next() else { panic!("no message") };
        assert_eq!(inner.next().unwrap_err().offset(body), 3);
    }

    /// Scenario: pairs as encoders write them, and pairs that only look like one: longer, in another order, with more behind.
    #[test]
    fn only_plain_pairs_are_taken_for_one() {
        let pair = |bytes: &'static [u8]| Message::of(bytes).plain_pair().map(|(key, text)| (key.0, text.0));
        assert_eq!(pair(b"\x0a\x01k\x12\x04\x0a\x02vv"), Some((&b"k"[..], &b"vv"[..])));
        assert_eq!(pair(b"\x0a\x00\x12\x02\x0a\x00"), Some((&b""[..], &b""[..])));
        for other in [
            &b""[..],
            b"\x0a\x01k",
            b"\x12\x04\x0a\x02vv\x0a\x01k",
            b"\x0a\x01k\x12\x02\x18\x05",
            b"\x0a\x01k\x12\x04\x0a\x02vv\x1a\x00",
            b"\x0a\x01k\x12\x06\x0a\x02vv\x0a\x00",
            b"\x0a\x01k\x12\x04\x0a\x02v",
        ] {
            assert_eq!(pair(other), None, "{other:?}");
        }
        let long = [&[0x0a, 1, b'k', 0x12, 0x82, 1, 0x0a, 0x80][..], &[b'v'; 200]].concat();
        assert!(Message::of(&long).plain_pair().is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_number_comes_back(value: u64) {
            let mut bytes = vec![8];
            prost::encoding::encode_varint(value, &mut bytes);
            let Ok(Some((1, Value::Varint(read)))) = Message::of(&bytes).next() else { panic!("no number") };
            proptest::prop_assert_eq!(read, value);
        }
    }
}
