//! The wire format of protocol buffers, read without copying (protobuf.dev, "Encoding").
//!
//! A message is read field by field as slices of the body. Nothing is allocated, so a body cannot become larger than it is:
//! an empty data point costs its sender two bytes and would cost a decoded message more than a hundred.

/// Bytes that are no protocol buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fault {
    pub what: &'static str,
    /// Offset in the body.
    pub at: usize,
}

/// One message's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'b> {
    bytes: &'b [u8],
    at: usize,
    // Offset of `bytes` in the body.
    base: usize,
}

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(Message<'b>),
}

/// A field: its number and value.
pub(super) type Field<'b> = (u32, Value<'b>);

impl<'b> Message<'b> {
    /// A whole body.
    pub(super) fn of(bytes: &'b [u8]) -> Message<'b> {
        Message { bytes, at: 0, base: 0 }
    }

    /// The next field; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field<'b>>, Fault> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.base + self.at;
        let key = self.varint()?;
        let fault = |what| Fault { what, at: start };
        let key = u32::try_from(key).map_err(|_| fault("a field number is too large"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take::<8>()?)),
            2 => {
                let length = self.varint()?;
                let at = self.at;
                let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len() - at);
                let length = length.ok_or(fault("a field is longer than its message"))?;
                self.at += length;
                Value::Bytes(Message { bytes: &self.bytes[at..self.at], at: 0, base: self.base + at })
            }
            5 => {
                self.take::<4>()?;
                Value::Fixed32
            }
            _ => return Err(fault("a wire type that OTLP does not use")),
        };
        match key >> 3 {
            0 => Err(fault("field number 0")),
            number => Ok(Some((number, value))),
        }
    }

    /// Calls `with` for each field.
    pub(super) fn each<E: From<Fault>>(mut self, mut with: impl FnMut(Field<'b>) -> Result<(), E>) -> Result<(), E> {
        while let Some(field) = self.next()? {
            with(field)?;
        }
        Ok(())
    }

    /// The bytes of a text field.
    pub(super) fn text(self) -> Result<&'b str, Fault> {
        std::str::from_utf8(self.bytes).map_err(|_| Fault { what: "text that is no UTF-8", at: self.base })
    }

    /// The bytes of a bytes field.
    pub(super) fn bytes(self) -> &'b [u8] {
        self.bytes
    }

    /// Packed fixed-length numbers.
    pub(super) fn packed(self) -> Result<impl Iterator<Item = u64> + 'b, Fault> {
        let (numbers, rest) = self.bytes.as_chunks::<8>();
        match rest {
            [] => Ok(numbers.iter().map(|number| u64::from_le_bytes(*number))),
            _ => Err(Fault { what: "packed numbers that end within one", at: self.base }),
        }
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        let fault = |what| Fault { what, at: self.base + start };
        let rest = &self.bytes[start..];
        if let Some(&first @ 0..0x80) = rest.first() {
            self.at += 1;
            return Ok(u64::from(first));
        }
        let mut value = 0u64;
        for (index, byte) in rest.iter().take(10).enumerate() {
            let low = u64::from(byte & 0x7f);
            if index == 9 && low > 1 {
                return Err(fault("a number of more than 64 bits"));
            }
            value |= low << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(fault(if rest.len() < 10 { "the message ends within a number" } else { "a number of more than 64 bits" }))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.bytes[self.at..].first_chunk::<N>().copied();
        let taken = taken.ok_or(Fault { what: "the message ends within a number", at: self.base + self.at })?;
        self.at += N;
        Ok(taken)
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
            (b"\x0b", "wire type", 0),
            (b"\x00\x01", "field number 0", 0),
            (b"\xff\xff\xff\xff\xff\x01\x00", "field number is too large", 0),
        ] {
            let fault = read(bytes).unwrap_err();
            assert!(fault.what.contains(what) && fault.at == at, "{bytes:?}: {fault:?}");
        }
    }

    #[test]
    fn a_nested_fault_counts_from_the_start_of_the_body() {
        let mut outer = Message::of(b"\x0a\x02\x08\x80");
        let Ok(Some((1, Value::Bytes(mut inner)))) = outer.next() else { panic!("no message") };
        assert_eq!(inner.next().unwrap_err().at, 3);
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
