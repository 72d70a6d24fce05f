//! Opening a folder of segments, and repairing the last one.
//!
//! Only the last segment is read through: the others were closed, and what is damaged in them is met by whoever reads it. Where
//! the last one ends in bytes that are no whole record, they are cut off and one offset is stepped over: were they an acknowledged
//! record with a flipped byte, its offset must not come back with other contents (L3).

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use airan_model::crash;

use crate::OpenError;
use crate::disk::Disk;
use crate::record::{HeaderFound, NO_TIME, SEGMENT_HEADER, VERSION};
use crate::scan::Item;
use crate::segment::{Segment, base_of};

/// Bytes read at a time while the last segment is read through.
const CHUNK: usize = 1 << 20;

/// What opening had to repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Bytes cut off the end of the last segment.
    pub cut_bytes: u64,
    /// Damaged places in what is left of the last segment. Reading from before them counts the records they cost.
    pub damaged: u64,
    /// Offsets stepped over, so that none is given twice.
    pub skipped_offsets: u64,
}

/// An opened folder.
pub(crate) struct Opened {
    pub segments: Vec<Arc<Segment>>,
    pub next: u64,
    pub last_time: Option<i64>,
    pub repair: Repair,
}

/// What reading through a segment told.
struct Read {
    next: u64,
    last_time: Option<i64>,
    /// Where its last whole record ends.
    end: u64,
    damaged: u64,
}

pub(crate) fn open(disk: &Disk, folder: &Path, next_at_least: u64) -> Result<Opened, OpenError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { doing, path, source }
    };
    disk.create_folder(folder).map_err(failed("create", folder))?;
    let mut segments = Vec::new();
    for (base, path) in segment_files(folder).map_err(failed("list", folder))? {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("open", &path))?.len();
        let first_time = match Segment::read_header(&file).map_err(failed("read", &path))? {
            HeaderFound::Ours(header) if header.base == base => header.first_time,
            HeaderFound::OfVersion(found) => return Err(OpenError::Version { path, found, known: VERSION }),
            HeaderFound::Ours(_) | HeaderFound::Damaged => {
                if length >= SEGMENT_HEADER as u64 {
                    tracing::warn!(path = %path.display(), "header of a log segment is damaged; its records are read");
                }
                NO_TIME
            }
        };
        segments.push(Arc::new(Segment::new(path, base, first_time, file, length)));
    }
    // A segment without a whole header was being created when the process or the machine went down: nothing was in it.
    while let Some(last) = segments.last().filter(|segment| segment.durable() < SEGMENT_HEADER as u64) {
        disk.remove(&last.path).map_err(failed("remove", &last.path))?;
        segments.pop();
    }
    let mut repair = Repair::default();
    let mut next = 0;
    if let Some(last) = segments.last() {
        let read = read_through(last).map_err(failed("read", &last.path))?;
        (next, repair.damaged) = (read.next, read.damaged);
        let torn = last.durable() - read.end;
        if torn > 0 {
            disk.cut(&last.file, read.end).map_err(failed("repair", &last.path))?;
            crash::point("log.open.cut");
            last.publish(read.end);
            repair.cut_bytes = torn;
            next += 1;
        }
        // What a process wrote that died before its sync is there for readers from now on, so it must stay (L1), and so must its
        // name, before anything is appended to it.
        disk.sync_data(&last.file).map_err(failed("sync", &last.path))?;
        disk.sync_folder(folder).map_err(failed("sync", folder))?;
        repair.skipped_offsets = next.max(next_at_least) - read.next;
    }
    next = next.max(next_at_least);
    let last_time = last_time(&segments).map_err(failed("read", folder))?;
    if segments.is_empty() || repair.skipped_offsets > 0 {
        // Stepped over by beginning a segment: its name keeps the gap.
        let time = last_time.unwrap_or(NO_TIME);
        let segment = Segment::create(disk, folder, next, time).map_err(failed("begin a segment in", folder))?;
        segments.push(Arc::new(segment));
    }
    if repair != Repair::default() {
        let Repair { cut_bytes, damaged, skipped_offsets } = repair;
        tracing::warn!(
            folder = %folder.display(),
            cut_bytes,
            damaged,
            skipped_offsets,
            "log was not closed in order, or its disk is at fault: repaired"
        );
    }
    Ok(Opened { segments, next, last_time, repair })
}

/// The segments of a folder, in the order of their offsets.
pub(crate) fn segment_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(base) = entry.file_name().to_str().and_then(base_of) {
            files.push((base, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

fn read_through(segment: &Segment) -> io::Result<Read> {
    let mut read = Read { next: segment.base, last_time: None, end: SEGMENT_HEADER as u64, damaged: 0 };
    let mut scan = segment.scan(segment.base, CHUNK);
    while let Some(item) = scan.next()? {
        match item {
            Item::Record { offset, time, position, end, .. } => {
                segment.note(offset, position);
                segment.note_last_time(time);
                read = Read { next: offset + 1, last_time: Some(time), end, ..read };
            }
            Item::BadBody { offset, time, end } => {
                segment.note_last_time(time);
                let damaged = read.damaged + 1;
                read = Read { next: offset + 1, last_time: Some(time), end, damaged };
            }
            Item::Damage => read.damaged += 1,
            Item::Tail => {}
        }
    }
    Ok(read)
}

/// Append time of the newest record there is.
fn last_time(segments: &[Arc<Segment>]) -> io::Result<Option<i64>> {
    for (back, segment) in segments.iter().rev().enumerate() {
        // The last one was read through just now.
        let time = match back {
            0 => segment.last_time(),
            _ => read_through(segment)?.last_time,
        };
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}
