//! One segment file: its header, how much of it may be read, and where in it records are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use airan_model::crash;

use crate::disk::Disk;
use crate::record::{HeaderFound, NO_TIME, SEGMENT_HEADER, SegmentHeader};
use crate::scan::Scan;

/// Bytes between two entries of a segment's index. A read scans at most this much before its first record; the index of a
/// segment of 64 MiB stays at 16 KiB.
const INDEX_EVERY: u64 = 64 << 10;

/// A segment. Readers hold it while it is being appended to, and even while it is being removed.
pub(crate) struct Segment {
    pub path: PathBuf,
    pub base: u64,
    /// Append time of its first record, or [`NO_TIME`].
    pub first_time: i64,
    pub file: File,
    // Bytes that are on disk; nothing after them is read (L1).
    durable: AtomicU64,
    // Append time of its newest record, where this process knows it.
    last_time: AtomicI64,
    index: Mutex<Index>,
}

/// Where records begin.
#[derive(Default)]
struct Index {
    // Some (offset, position) pairs, ascending in both.
    entries: Vec<(u64, u64)>,
    // Where the last read ended: a reader that follows the end of the log scans nothing twice.
    resume: (u64, u64),
}

impl Segment {
    /// Creates an empty segment, on disk before this returns.
    pub fn create(disk: &Disk, folder: &Path, base: u64, first_time: i64) -> io::Result<Segment> {
        let path = folder.join(file_name(base));
        if path.exists() {
            // Left over from a creation that failed: `base` was never given to a record.
            disk.remove(&path)?;
        }
        let file = disk.create(&path)?;
        crash::point("log.roll.created");
        let written = disk
            .write(&file, &SegmentHeader { base, first_time }.encode(), 0)
            .and_then(|()| disk.sync_data(&file))
            .and_then(|()| disk.sync_folder(folder));
        crash::point("log.roll.synced");
        if let Err(error) = written {
            // Nothing was acknowledged from it yet; a leftover is found and dropped at the next start.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(Segment::new(path, base, first_time, file, SEGMENT_HEADER as u64))
    }

    pub fn new(path: PathBuf, base: u64, first_time: i64, file: File, durable: u64) -> Segment {
        let (durable, last_time) = (AtomicU64::new(durable), AtomicI64::new(NO_TIME));
        Segment { path, base, first_time, file, durable, last_time, index: Mutex::default() }
    }

    /// Reads the header of the file at hand; too short a file counts as damaged.
    pub fn read_header(file: &File) -> io::Result<HeaderFound> {
        let mut bytes = [0; SEGMENT_HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(SegmentHeader::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(HeaderFound::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Bytes that may be read.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Lets readers see the file up to `end`, which must be on disk.
    pub fn publish(&self, end: u64) {
        self.durable.store(end, Ordering::Release);
    }

    /// Append time of its newest record; None where it has none or this process has not seen it.
    pub fn last_time(&self) -> Option<i64> {
        Some(self.last_time.load(Ordering::Relaxed)).filter(|time| *time != NO_TIME)
    }

    pub fn note_last_time(&self, time: i64) {
        self.last_time.fetch_max(time, Ordering::Relaxed);
    }

    /// Remembers where a record begins, if that is far enough from the last one remembered.
    pub fn note(&self, offset: u64, position: u64) {
        let entries = &mut self.index().entries;
        if entries.last().is_none_or(|(last, at)| offset > *last && position >= at + INDEX_EVERY) {
            entries.push((offset, position));
        }
    }

    /// Remembers where the record at `offset`, or whatever comes before it, begins.
    pub fn note_resume(&self, offset: u64, position: u64) {
        self.index().resume = (offset, position);
    }

    /// Scans from a record at or before `offset`.
    pub fn scan(&self, offset: u64, chunk: usize) -> Scan<'_> {
        let index = self.index();
        let after = index.entries.partition_point(|(known, _)| *known <= offset);
        let position = match index.resume {
            (known, position) if known == offset && position > 0 => position,
            _ => after.checked_sub(1).map_or(SEGMENT_HEADER as u64, |entry| index.entries[entry].1),
        };
        Scan::new(&self.file, position, self.durable(), chunk)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the segment that begins with `base`.
pub(crate) fn file_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The first offset of the segment of that name; None where the name is no segment's.
pub(crate) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
