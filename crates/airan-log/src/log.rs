//! Appending, reading and expiring.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use airan_model::crash;
use bytes::Bytes;

use crate::device::Device;
use crate::disk::Disk;
use crate::open::{self, Opened, Repair};
use crate::record::{self, BODY_MAX, RECORD_OVERHEAD, SEGMENT_HEADER};
use crate::scan::Item;
use crate::segment::Segment;
use crate::{AppendError, OpenError, ReadError};

/// Bytes read from disk at a time: enough for sequential speed, little to hold on to for a small record.
const CHUNK_MAX: usize = 1 << 20;
/// Below this the calls would cost more than the copying.
const CHUNK_MIN: usize = 64 << 10;
/// A buffer for appending that grew over this is given back.
const BUFFER_KEPT: usize = 8 << 20;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment is closed when it has grown to this, bytes.
    pub segment_bytes: u64,
    /// The next offset is at least this: what a reader is known to have read is never given again (L3), whatever became of the
    /// files. 0 where nothing is known.
    pub next_at_least: u64,
}

/// A record to append. Its body is `head` followed by `payload`.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Append time, µs since 1970; should not be below that of the record before.
    pub time: i64,
    /// First part of the body.
    pub head: &'a [u8],
    /// Second part of the body.
    pub payload: &'a [u8],
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// Its append time, µs since 1970.
    pub time: i64,
    /// Its body; a slice of the chunk that was read.
    pub body: Bytes,
}

/// What one read gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whole records, ascending in offset.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: u64,
    /// Records between the offset asked for and `next` that are damaged and were left out.
    pub lost: u64,
}

/// When segments may go.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Oldest append time to keep, µs since 1970.
    pub oldest: i64,
    /// Most bytes to keep.
    pub max_bytes: u64,
    /// First offset that is still needed: nothing at or after it goes (L4).
    pub needed: u64,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Segments removed.
    pub segments: u64,
    /// Bytes removed.
    pub bytes: u64,
}

/// A log. Shared by reference: one append at a time, reads beside it.
pub struct Log {
    folder: PathBuf,
    options: Options,
    disk: Disk,
    tail: Mutex<Tail>,
    // Never empty; the last one is appended to.
    segments: RwLock<Vec<Arc<Segment>>>,
    // The offset after the newest record on disk.
    next: AtomicU64,
    bytes: AtomicU64,
}

struct Tail {
    active: Arc<Segment>,
    next: u64,
    last_time: Option<i64>,
    buffer: Vec<u8>,
    // The active segment is not to be appended to any more: what stands after its durable part is not known.
    is_spent: bool,
}

impl Log {
    /// Opens the log in a folder, or begins one, and repairs what needs it: the end of the last segment that is no whole record
    /// is cut off.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or a segment is of a newer format.
    pub fn open(folder: &Path, options: Options) -> Result<(Log, Repair), OpenError> {
        Log::open_on(Disk::default(), folder, options)
    }

    /// As [`Log::open`], with every change to the file system made by `device`: for tests that take the power away.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_over(device: Arc<dyn Device>, folder: &Path, options: Options) -> Result<(Log, Repair), OpenError> {
        Log::open_on(Disk::over(device), folder, options)
    }

    pub(crate) fn open_on(disk: Disk, folder: &Path, options: Options) -> Result<(Log, Repair), OpenError> {
        let Opened { segments, next, last_time, repair } = open::open(&disk, folder, options.next_at_least)?;
        let bytes = segments.iter().map(|segment| segment.durable()).sum();
        let active = segments.last().map(Arc::clone).ok_or_else(|| OpenError::Io {
            doing: "begin a log in",
            path: folder.to_owned(),
            source: io::Error::other("no segment"),
        })?;
        let log = Log {
            folder: folder.to_owned(),
            options,
            disk,
            tail: Mutex::new(Tail { active, next, last_time, buffer: Vec::new(), is_spent: false }),
            segments: RwLock::new(segments),
            next: AtomicU64::new(next),
            bytes: AtomicU64::new(bytes),
        };
        Ok((log, repair))
    }

    /// The first offset that may still be there.
    pub fn first(&self) -> u64 {
        self.segments().first().map_or(0, |segment| segment.base)
    }

    /// The offset the next record will get.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Append time of the newest record, µs since 1970; None where there is none.
    pub fn last_time(&self) -> Option<i64> {
        self.tail().last_time
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Appends records, all or none, and gives their offsets. On disk when this returns (L1), with one sync for all of them.
    ///
    /// # Errors
    /// See [`AppendError`]: whether nothing was appended or the outcome is unknown. The log can be used on after each of them.
    pub fn append(&self, records: &[NewRecord<'_>]) -> Result<Range<u64>, AppendError> {
        let size = |record: &NewRecord<'_>| record.head.len() + record.payload.len();
        if let Some(bytes) = records.iter().map(size).find(|bytes| *bytes > BODY_MAX) {
            return Err(AppendError::TooLarge { bytes, limit: BODY_MAX });
        }
        let mut tail = self.tail();
        let Some(first) = records.first() else { return Ok(tail.next..tail.next) };
        let total: usize = records.iter().map(|record| RECORD_OVERHEAD + size(record)).sum();
        let held = tail.active.durable();
        if tail.is_spent || (held > SEGMENT_HEADER as u64 && held + total as u64 > self.options.segment_bytes) {
            self.roll(&mut tail, first.time).map_err(not_written)?;
        }
        self.write(&mut tail, records)
    }

    fn write(&self, tail: &mut Tail, records: &[NewRecord<'_>]) -> Result<Range<u64>, AppendError> {
        let start = tail.active.durable();
        let mut buffer = std::mem::take(&mut tail.buffer);
        buffer.clear();
        let mut positions = Vec::with_capacity(records.len());
        for (offset, record) in (tail.next..).zip(records) {
            let position = start + buffer.len() as u64;
            positions.push((offset, position));
            record::encode(&mut buffer, position, offset, record.time, [record.head, record.payload]);
        }
        let end = start + buffer.len() as u64;
        let offsets = tail.next..tail.next + records.len() as u64;
        let written = self.disk.write(&tail.active.file, &buffer, start);
        if buffer.capacity() <= BUFFER_KEPT {
            tail.buffer = buffer;
        }
        if let Err(error) = written {
            // Some of it may be there: it is out when that is on disk, for the cut alone could be undone by a power loss.
            let cut = self.disk.cut(&tail.active.file, start);
            return Err(match cut.and_then(|()| self.disk.sync_data(&tail.active.file)) {
                Ok(()) => not_written(error),
                Err(_) => self.give_up(tail, offsets.end, error),
            });
        }
        crash::point("log.append.written");
        if let Err(error) = self.disk.sync_data(&tail.active.file) {
            // After a failed sync the kernel may hold the bytes for clean: neither kept nor cut can be relied on.
            let _ = self.disk.cut(&tail.active.file, start);
            return Err(self.give_up(tail, offsets.end, error));
        }
        crash::point("log.append.synced");
        positions.into_iter().for_each(|(offset, position)| tail.active.note(offset, position));
        if let Some(time) = records.iter().map(|record| record.time).max() {
            tail.active.note_last_time(time);
            tail.last_time = tail.last_time.max(Some(time));
        }
        tail.active.publish(end);
        tail.next = offsets.end;
        self.next.store(offsets.end, Ordering::Release);
        self.bytes.fetch_add(end - start, Ordering::Relaxed);
        Ok(offsets)
    }

    /// Leaves the active segment alone from now on and never gives the offsets again that it may hold (L3).
    fn give_up(&self, tail: &mut Tail, next: u64, error: io::Error) -> AppendError {
        tail.is_spent = true;
        tail.next = next;
        AppendError::Unknown(error)
    }

    /// Begins a new segment. Where that fails the one before is left alone all the same: after a power loss the name of the new
    /// one may be there, and what the one before holds from that offset on would be hidden by it.
    fn roll(&self, tail: &mut Tail, first_time: i64) -> io::Result<()> {
        tail.is_spent = true;
        let segment = Arc::new(Segment::create(&self.disk, &self.folder, tail.next, first_time)?);
        self.bytes.fetch_add(segment.durable(), Ordering::Relaxed);
        tail.active = Arc::clone(&segment);
        tail.is_spent = false;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
        // Offsets that were given up are stepped over.
        self.next.store(tail.next, Ordering::Release);
        Ok(())
    }

    /// Reads whole records from `from` on: at least one where there is one, and no more once `max_bytes` of bodies are reached.
    ///
    /// # Errors
    /// If `from` is not in the log, or the disk fails.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Batch, ReadError> {
        let (first, next) = (self.first(), self.next());
        if from < first || from > next {
            return Err(ReadError::OutOfRange { wanted: from, first, next });
        }
        let mut batch = Batch { next: from, ..Batch::default() };
        if from == next {
            return Ok(batch);
        }
        let segments: Vec<Arc<Segment>> = {
            let all = self.segments();
            let after = all.partition_point(|segment| segment.base <= from);
            all[after.saturating_sub(1)..].to_vec()
        };
        for (index, segment) in segments.iter().enumerate() {
            let following = segments.get(index + 1).map(|segment| segment.base);
            let io = |source| ReadError::Io { path: segment.path.clone(), source };
            let is_enough = read_segment(segment, following, max_bytes, &mut batch).map_err(io)?;
            if is_enough || !batch.records.is_empty() {
                break;
            }
        }
        Ok(batch)
    }

    /// Removes the oldest segments that are too old or too many, up to the offset that is still needed.
    ///
    /// # Errors
    /// If the disk fails; what could be removed is gone, and trying again later is safe.
    pub fn expire(&self, retention: Retention) -> io::Result<Expired> {
        let mut tail = self.tail();
        self.roll_to_expire(&mut tail, &retention)?;
        let mut expired = Expired::default();
        loop {
            let pair = {
                let segments = self.segments();
                segments.first().zip(segments.get(1)).map(|(one, two)| (Arc::clone(one), Arc::clone(two)))
            };
            let Some((oldest, following)) = pair else { break };
            let newest = oldest.last_time().or(Some(following.first_time));
            let is_old = newest.is_some_and(|time| time != record::NO_TIME && time < retention.oldest);
            let is_over = self.bytes() > retention.max_bytes;
            if following.base > retention.needed || !(is_old || is_over) {
                break;
            }
            self.disk.remove(&oldest.path)?;
            crash::point("log.expire.removed");
            self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(0);
            let bytes = oldest.durable();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            expired.segments += 1;
            expired.bytes += bytes;
        }
        if expired.segments > 0 {
            self.disk.sync_folder(&self.folder)?;
        }
        Ok(expired)
    }

    /// Closes the active segment where all of it may go, so that a quiet log ages and a full one empties.
    fn roll_to_expire(&self, tail: &mut Tail, retention: &Retention) -> io::Result<()> {
        let held = tail.active.durable();
        let is_old = tail.active.last_time().is_some_and(|time| time < retention.oldest);
        // Would the log be over its bytes with nothing but this segment?
        let is_over = held > retention.max_bytes;
        if held > SEGMENT_HEADER as u64 && tail.next <= retention.needed && (is_old || is_over) {
            let time = tail.last_time.unwrap_or(record::NO_TIME);
            self.roll(tail, time)?;
        }
        Ok(())
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a segment's records from `batch.next` on; true when the batch has enough.
fn read_segment(segment: &Segment, following: Option<u64>, max_bytes: usize, batch: &mut Batch) -> io::Result<bool> {
    let mut taken: usize = batch.records.iter().map(|record| record.body.len()).sum();
    let mut scan = segment.scan(batch.next, max_bytes.clamp(CHUNK_MIN, CHUNK_MAX));
    let mut is_damaged = false;
    while let Some(item) = scan.next()? {
        match item {
            Item::Record { offset, time, body, position, end } => {
                segment.note(offset, position);
                segment.note_last_time(time);
                if offset < batch.next {
                    is_damaged = false;
                    continue;
                }
                if is_damaged {
                    batch.lost += offset - batch.next;
                }
                is_damaged = false;
                taken += body.len();
                batch.records.push(Record { offset, time, body });
                batch.next = offset + 1;
                segment.note_resume(batch.next, end);
                if taken >= max_bytes {
                    return Ok(true);
                }
            }
            Item::BadBody { offset, .. } => {
                if offset >= batch.next {
                    batch.lost += 1 + if is_damaged { offset - batch.next } else { 0 };
                    batch.next = offset + 1;
                }
                is_damaged = false;
            }
            Item::Damage | Item::Tail => is_damaged = true,
        }
    }
    // In a closed segment the next one's name tells where it ended.
    if let Some(following) = following.filter(|following| *following > batch.next) {
        if is_damaged {
            batch.lost += following - batch.next;
        }
        batch.next = following;
    }
    Ok(false)
}

fn not_written(error: io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull(error),
        _ => AppendError::NotWritten(error),
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("folder", &self.folder).field("next", &self.next()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
