//! How a segment's header and its records look on disk. Pure: bytes in, bytes out.
//!
//! All numbers are little-endian.
//!
//! ```text
//! segment header (32 bytes)                record header (32 bytes), then the body
//!  0  8  magic "airanlog"                   0  4  marker
//!  8  1  format version                     4  4  length of the body
//!  9  3  zero                               8  8  offset
//! 12  8  first offset it may hold          16  8  append time, µs since 1970
//! 20  8  time of its first record          24  4  CRC-32 of the body
//! 28  4  CRC-32 of the above               28  4  CRC-32 of the record's position in the file and of bytes 4..28
//! ```
//!
//! The header has a checksum of its own, so a damaged body can be stepped over by its length. Where the header is damaged the
//! marker finds the next record; the position in its checksum keeps a copy of a record inside another's body from being taken
//! for one.

/// Bytes of a segment before its first record.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Bytes of a record before its body.
pub(crate) const RECORD_HEADER: usize = 32;

/// What a record takes up on disk beside its body, bytes.
pub const RECORD_OVERHEAD: usize = RECORD_HEADER;

/// Largest body, bytes. Far above what a bus gathers into one message; it bounds the memory that reading one record takes.
pub const BODY_MAX: usize = 64 << 20;

/// The format this release writes and the newest it reads.
pub(crate) const VERSION: u8 = 1;

/// Stands for a time that is not known.
pub(crate) const NO_TIME: i64 = i64::MIN;

const MAGIC: [u8; 8] = *b"airanlog";
/// Begins with a byte that is no ASCII and in no UTF-8 text, so that text payloads give few false candidates.
pub(crate) const MARKER: [u8; 4] = [0xf7, b'r', b'e', b'c'];

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub base: u64,
    pub first_time: i64,
}

/// What the first bytes of a segment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Ours(SegmentHeader),
    OfVersion(u8),
    Damaged,
}

impl SegmentHeader {
    pub fn encode(self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[12..20].copy_from_slice(&self.base.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first_time.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; SEGMENT_HEADER]) -> HeaderFound {
        if bytes[0..8] != MAGIC || crc32fast::hash(&bytes[..28]) != u32_at(bytes, 28) {
            return HeaderFound::Damaged;
        }
        match bytes[8] {
            VERSION => {
                HeaderFound::Ours(SegmentHeader { base: u64_at(bytes, 12), first_time: u64_at(bytes, 20) as i64 })
            }
            version => HeaderFound::OfVersion(version),
        }
    }
}

/// A record's header, its own checksum found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub length: usize,
    pub offset: u64,
    pub time: i64,
    pub body_sum: u32,
}

impl RecordHeader {
    /// The header at `position` in its file; None where there is none, or a damaged one.
    pub fn decode(bytes: &[u8], position: u64) -> Option<RecordHeader> {
        let bytes: &[u8; RECORD_HEADER] = bytes.get(..RECORD_HEADER)?.try_into().ok()?;
        let length = u32_at(bytes, 4) as usize;
        if bytes[0..4] != MARKER || length > BODY_MAX || header_sum(bytes, position) != u32_at(bytes, 28) {
            return None;
        }
        Some(RecordHeader {
            length,
            offset: u64_at(bytes, 8),
            time: u64_at(bytes, 16) as i64,
            body_sum: u32_at(bytes, 24),
        })
    }

    /// Bytes of the whole record.
    pub fn size(&self) -> usize {
        RECORD_HEADER + self.length
    }
}

/// Appends one record, which will stand at `position` in its file, to `out`. The body comes in two parts.
pub(crate) fn encode(out: &mut Vec<u8>, position: u64, offset: u64, time: i64, body: [&[u8]; 2]) {
    let mut sum = crc32fast::Hasher::new();
    body.iter().for_each(|part| sum.update(part));
    let length = (body[0].len() + body[1].len()) as u32;
    let mut header = [0; RECORD_HEADER];
    header[0..4].copy_from_slice(&MARKER);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&offset.to_le_bytes());
    header[16..24].copy_from_slice(&time.to_le_bytes());
    header[24..28].copy_from_slice(&sum.finalize().to_le_bytes());
    let sum = header_sum(&header, position);
    header[28..32].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&header);
    body.iter().for_each(|part| out.extend_from_slice(part));
}

fn header_sum(header: &[u8; RECORD_HEADER], position: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&position.to_le_bytes());
    sum.update(&header[4..28]);
    sum.finalize()
}

fn u32_at(bytes: &[u8; 32], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8; 32], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: headers written, then each of their bits flipped, one at a time.
    /// Guarantees: what was written comes back, and no flipped bit goes unnoticed.
    #[test]
    fn a_flipped_bit_in_a_header_is_noticed() {
        let segment = SegmentHeader { base: 77, first_time: -5 };
        let bytes = segment.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Ours(segment));
        let mut record = Vec::new();
        encode(&mut record, 4096, 9, -1, [b"head", b"payload"]);
        let header = RecordHeader::decode(&record, 4096).unwrap();
        assert_eq!((header.length, header.offset, header.time), (11, 9, -1));
        assert_eq!(header.body_sum, crc32fast::hash(b"headpayload"));
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), HeaderFound::Damaged, "segment, bit {bit}");
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, 4096), None, "record, bit {bit}");
        }
    }

    /// Scenario: a record's bytes at another place than the one they were written for, as inside another record's body.
    #[test]
    fn a_copy_of_a_record_elsewhere_is_no_record() {
        let mut record = Vec::new();
        encode(&mut record, 64, 1, 0, [b"", b"x"]);
        assert!(RecordHeader::decode(&record, 64).is_some());
        assert_eq!(RecordHeader::decode(&record, 96), None);
    }

    #[test]
    fn a_newer_format_is_told_from_a_damaged_one() {
        let mut bytes = SegmentHeader { base: 0, first_time: 0 }.encode();
        bytes[8] = VERSION + 1;
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::OfVersion(VERSION + 1));
    }
}
