//! A look at a log that another process may hold open: nothing is written, locked or repaired.
//!
//! What the writer is about to sync may already be seen, and segments may go while they are read; so this is for people who look,
//! never for who has to be right.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::log::{Batch, Record};
use crate::open::segment_files;
use crate::record::SEGMENT_HEADER;
use crate::scan::{Item, Scan};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// The folder of a log as it was at one moment.
#[derive(Debug)]
pub struct Peek {
    segments: Vec<Part>,
    next: u64,
}

#[derive(Debug)]
struct Part {
    base: u64,
    file: File,
    length: u64,
}

impl Peek {
    /// Looks at the log in `folder`. Blocks; reads the newest segment through.
    ///
    /// # Errors
    /// If the folder or a file cannot be read.
    pub fn at(folder: &Path) -> io::Result<Peek> {
        let mut segments = Vec::new();
        for (base, path) in segment_files(folder)? {
            match File::open(&path) {
                Ok(file) => segments.push(Part { base, length: file.metadata()?.len(), file }),
                // Retention has taken it since the listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut next = 0;
        if let Some(last) = segments.last() {
            next = last.base;
            let mut scan = last.scan();
            while let Some(item) = scan.next()? {
                if let Item::Record { offset, .. } | Item::BadBody { offset, .. } = item {
                    next = offset + 1;
                }
            }
        }
        Ok(Peek { segments, next })
    }

    /// The first offset that may still be there.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.base)
    }

    /// The offset the next record will get.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whole records from `from` on, no more once `max_bytes` of bodies are reached; an offset before the first one reads from
    /// there. Blocks; a record is found by reading its segment from the beginning.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn read(&self, from: u64, max_bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch { next: from.max(self.first()), ..Batch::default() };
        let first = self.segments.partition_point(|segment| segment.base <= batch.next).saturating_sub(1);
        let mut taken = 0;
        for segment in &self.segments[first..] {
            let mut scan = segment.scan();
            while let Some(item) = scan.next()? {
                match item {
                    Item::Record { offset, time, body, .. } if offset >= batch.next => {
                        if taken >= max_bytes {
                            return Ok(batch);
                        }
                        taken += body.len();
                        batch.lost += offset - batch.next;
                        batch.next = offset + 1;
                        batch.records.push(Record { offset, time, body });
                    }
                    _ => {}
                }
            }
        }
        Ok(batch)
    }
}

impl Part {
    fn scan(&self) -> Scan<'_> {
        Scan::new(&self.file, SEGMENT_HEADER as u64, self.length, CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Log, NewRecord, Options, Retention};

    fn append(log: &Log, bodies: std::ops::Range<u64>) {
        for number in bodies {
            let payload = number.to_string();
            log.append(&[NewRecord { time: number as i64, head: b"n", payload: payload.as_bytes() }]).unwrap();
        }
    }

    /// Scenario: a log of several segments is looked at while it is open, appended to, and relieved of its oldest segments.
    /// Guarantees: offsets and records are the log's own, reading ends at the bytes asked for and goes on from there, and the
    /// files are not changed.
    #[test]
    fn a_log_that_is_open_elsewhere_is_seen_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(folder.path(), Options { segment_bytes: 200, next_at_least: 0 }).unwrap();
        assert_eq!((Peek::at(folder.path()).unwrap().first(), Peek::at(folder.path()).unwrap().next()), (0, 0));
        append(&log, 0..20);
        let peek = Peek::at(folder.path()).unwrap();
        assert_eq!((peek.first(), peek.next()), (log.first(), 20));
        let (mut from, mut read) = (0, Vec::new());
        while from < peek.next() {
            let batch = peek.read(from, 5).unwrap();
            assert!(!batch.records.is_empty() && batch.records.len() < 20 && batch.lost == 0);
            from = batch.next;
            read.extend(batch.records);
        }
        assert_eq!(read, log.read(0, usize::MAX).unwrap().records.into_iter().chain(rest(&log)).collect::<Vec<_>>());
        log.expire(Retention { oldest: 10, max_bytes: u64::MAX, needed: 20 }).unwrap();
        let peek = Peek::at(folder.path()).unwrap();
        assert!(peek.first() > 0);
        assert_eq!((peek.first(), peek.next()), (log.first(), log.next()));
        assert_eq!(peek.read(0, 1).unwrap().records[0].offset, log.first());
    }

    /// What follows the first read of a log, which ends with its segment.
    fn rest(log: &Log) -> Vec<Record> {
        let mut from = log.read(0, usize::MAX).unwrap().next;
        let mut records = Vec::new();
        while from < log.next() {
            let batch = log.read(from, usize::MAX).unwrap();
            from = batch.next;
            records.extend(batch.records);
        }
        records
    }
}
