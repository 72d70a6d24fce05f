//! Going through the records of a segment, around whatever is damaged (L2).
//!
//! [`Scan`] reads a file in chunks and gives whole records and damaged stretches, in file order, covering every byte. A damaged
//! stretch ends where the next record with a right header begins, or at the end of what may be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::record::{MARKER, RECORD_HEADER, RecordHeader};

/// What stands at a position of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A whole record.
    Record { offset: u64, time: i64, body: Bytes, position: u64, end: u64 },
    /// A record whose header is right and whose body is not: its offset is known.
    BadBody { offset: u64, time: i64, end: u64 },
    /// Bytes that are no record, followed by a record.
    Damage,
    /// Bytes up to the end of the file that are no whole record.
    Tail,
}

/// Reads a segment from a position on.
pub(crate) struct Scan<'a> {
    file: &'a File,
    chunk: usize,
    // What was read: `buffer` begins at `start` in the file, and `position` is where the next item begins.
    buffer: Bytes,
    start: u64,
    position: u64,
    end: u64,
}

impl Scan<'_> {
    /// Scans `file` from `position` to `end`, reading about `chunk` bytes at a time.
    pub fn new(file: &File, position: u64, end: u64, chunk: usize) -> Scan<'_> {
        Scan { file, chunk: chunk.max(RECORD_HEADER), buffer: Bytes::new(), start: position, position, end }
    }

    /// The next item; None at the end.
    pub fn next(&mut self) -> io::Result<Option<Item>> {
        if self.position >= self.end {
            return Ok(None);
        }
        if !self.fill(RECORD_HEADER)? {
            return Ok(Some(self.tail()));
        }
        let Some(header) = RecordHeader::decode(self.rest(), self.position) else {
            return self.resync().map(Some);
        };
        if !self.fill(header.size())? {
            return Ok(Some(self.tail()));
        }
        let at = (self.position - self.start) as usize;
        let body = self.buffer.slice(at + RECORD_HEADER..at + header.size());
        let position = self.position;
        self.position += header.size() as u64;
        let end = self.position;
        let RecordHeader { offset, time, .. } = header;
        Ok(Some(match crc32fast::hash(&body) == header.body_sum {
            true => Item::Record { offset, time, body, position, end },
            false => Item::BadBody { offset, time, end },
        }))
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[(self.position - self.start) as usize..]
    }

    fn tail(&mut self) -> Item {
        self.position = self.end;
        Item::Tail
    }

    /// Goes to the next right header after the position.
    fn resync(&mut self) -> io::Result<Item> {
        self.position += 1;
        while self.fill(RECORD_HEADER)? {
            let rest = self.rest();
            // The last few bytes may begin a header that goes on in the next chunk.
            let searched = rest.len() - (RECORD_HEADER - 1);
            let candidates = rest[..searched + MARKER.len() - 1].windows(MARKER.len()).enumerate();
            let found = candidates.filter(|(_, window)| **window == MARKER).map(|(at, _)| at).find(|at| {
                let position = self.position + *at as u64;
                RecordHeader::decode(&rest[*at..], position)
                    .is_some_and(|header| position + header.size() as u64 <= self.end)
            });
            match found {
                Some(at) => {
                    self.position += at as u64;
                    return Ok(Item::Damage);
                }
                None => self.position += searched as u64,
            }
        }
        Ok(self.tail())
    }

    /// Sees to it that `wanted` bytes from the position on are in the buffer; false if the file ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.rest().len() >= wanted {
            return Ok(true);
        }
        let left = self.end.saturating_sub(self.position);
        if left < wanted as u64 {
            return Ok(false);
        }
        // Bodies that were handed out keep the old buffer; a new one is read from the position on.
        let size = (self.chunk.max(wanted) as u64).min(left) as usize;
        let mut buffer = vec![0; size];
        self.file.read_exact_at(&mut buffer, self.position)?;
        (self.buffer, self.start) = (Bytes::from(buffer), self.position);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::encode;

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn offsets(bytes: &[u8], chunk: usize) -> (Vec<u64>, usize) {
        let file = file_of(bytes);
        let mut scan = Scan::new(&file, 0, bytes.len() as u64, chunk);
        let (mut offsets, mut damaged) = (Vec::new(), 0);
        while let Some(item) = scan.next().unwrap() {
            match item {
                Item::Record { offset, .. } => offsets.push(offset),
                _ => damaged += 1,
            }
        }
        (offsets, damaged)
    }

    /// Scenario: five records, one of which holds a copy of another, and every byte flipped, one at a time, read in chunks of
    /// several sizes.
    /// Guarantees: L2; the copy is never taken for a record.
    #[test]
    fn a_flipped_byte_costs_its_own_record_only() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for offset in 0..5u64 {
            let copy = bytes.clone();
            let body: &[u8] = if offset == 3 { &copy } else { b"payload" };
            let position = bytes.len() as u64;
            encode(&mut bytes, position, offset, 0, [b"h", body]);
            ends.push(bytes.len());
        }
        for chunk in [32, 57, 1 << 16] {
            assert_eq!(offsets(&bytes, chunk), (vec![0, 1, 2, 3, 4], 0));
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x40;
                let hit = ends.iter().position(|end| at < *end).unwrap() as u64;
                let left: Vec<u64> = (0..5).filter(|offset| *offset != hit).collect();
                assert_eq!(offsets(&flipped, chunk), (left, 1), "byte {at}, chunk {chunk}");
            }
        }
    }
}
