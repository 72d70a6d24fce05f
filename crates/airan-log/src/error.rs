//! What may go wrong with a log, by what the caller does next.

use std::io;
use std::path::PathBuf;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Look at the disk or the rights on the folder.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Open it with the release that wrote it, or a newer one.
    #[error("{path} is of format version {found}, this release reads version {known}")]
    Version {
        /// The segment.
        path: PathBuf,
        /// As the segment says.
        found: u8,
        /// The newest this release knows.
        known: u8,
    },
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Split the record or refuse it. Nothing of the call was appended.
    #[error("a record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of the record.
        bytes: usize,
        /// Largest possible size.
        limit: usize,
    },
    /// Free some disk, then append again. Nothing of the call was appended.
    #[error("the disk is full")]
    DiskFull(#[source] io::Error),
    /// Append again later. Nothing of the call was appended.
    #[error("cannot write to the log")]
    NotWritten(#[source] io::Error),
    /// The records may turn up after the next start, or not: say so to whoever sent them. The log goes on.
    #[error("the outcome of a write to the log is unknown")]
    Unknown(#[source] io::Error),
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Decide what to do about the missing offsets, then read from within the range.
    #[error("offset {wanted} is not in the log, which holds {first} to {next}")]
    OutOfRange {
        /// The offset asked for.
        wanted: u64,
        /// The first offset the log may still hold.
        first: u64,
        /// The offset the next record will get.
        next: u64,
    },
    /// Look at the disk; reading again may work.
    #[error("cannot read {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
