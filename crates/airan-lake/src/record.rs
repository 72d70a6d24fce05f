//! Commit records: the only truth about progress (K1) and about which files count (S1).
//!
//! The records of a shard are numbered without gaps from 1. Record `n` is created with put-if-absent, so of several
//! writers exactly one makes it; a record is never changed. A claim is a record too: it repeats what stood before it
//! under a fresh claim id and names no files.
//!
//! Records whose files are published in Delta are *trimmed* (`trim.rs`): a mark `<n>.trimmed` says that those up to `n` may
//! be gone, and no reader looks at them. From there to the newest there is no gap. The newest record always stays.
//!
//! The newest record is found by one listing that starts at a hint (rewritten at each claim and every
//! [`HINT_EVERY`] commits), so an object store lists at most that many keys, however old the lake is. The hint is no
//! truth: where it is missing or wrong, everything is listed. (A local folder is always read whole, which for a million
//! names takes well under a second.)

use std::collections::BTreeMap;

use airan_model::time::Micros;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::layout::{self, ClaimId, Shard};
use crate::seal::{Checksum, Damaged, seal, unseal};
use crate::store::{Store, StoreError};

/// Version of the records this build writes, and the highest it reads. 1: before Delta; a release that knows only such
/// records would miss the rows of those that are trimmed.
pub(crate) const RECORD_VERSION: u32 = 2;
/// Commits between two rewritings of the hint.
pub(crate) const HINT_EVERY: u64 = 64;
/// Records read at once: enough to hide an object store's latency, few enough to stay polite.
const READS_AT_ONCE: usize = 32;
/// Shards whose records are read at once.
const SHARDS_AT_ONCE: usize = 8;
/// Listings of a shard's records before a gap is believed: a listing beside a writer or a trimming may show one.
const LISTINGS: u32 = 8;

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Wait and try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Restore the object from a copy; `airan lake check` lists all of them.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Upgrade: a newer release has written to this lake.
    #[error("{path} has version {version}; this release reads up to {known}")]
    Newer {
        /// The document.
        path: String,
        /// Its version.
        version: u32,
        /// The highest this release reads.
        known: u32,
    },
    /// Look again: the file has left the lake since it was found, and its rows are in another file, or out by retention.
    #[error("{path} has left the lake since it was found; look again")]
    Gone {
        /// The file.
        path: String,
    },
    /// The rows could not be decoded.
    #[error("cannot decode {path}: {reason}")]
    Decode {
        /// The file.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

/// One Parquet file as its record names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordFile {
    pub(crate) table: String,
    pub(crate) path: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the table's time column, in micros.
    pub(crate) min_ts: Micros,
    pub(crate) max_ts: Micros,
    pub(crate) checksum: Checksum,
}

/// The state file a record names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) checksum: Checksum,
}

/// One commit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) partitions: i32,
    pub(crate) n: u64,
    pub(crate) claim: ClaimId,
    /// True for a record that takes the shard over. Such a record fences the owner before it, and outlives trimming.
    #[serde(default)]
    pub(crate) takes: bool,
    /// Who made the claim, by the name its operator gave it; for people, never for decisions. Older records have none.
    #[serde(default)]
    pub(crate) owner: String,
    /// When it was written, by the writer's clock; for people, never for decisions.
    pub(crate) at: Micros,
    /// The first offset not contained; absent until the first commit.
    pub(crate) next_offset: Option<i64>,
    /// Absent until the first commit.
    pub(crate) state: Option<StateFile>,
    pub(crate) files: Vec<RecordFile>,
    /// Per table the newest time in any file of this shard up to this record. It only grows, so who looks for rows from
    /// some time on may stop at the first record below it.
    pub(crate) newest_ts: BTreeMap<String, Micros>,
    /// Raw rows from this time on may be needed to rebuild the shard's windows; absent where that is not known.
    #[serde(default)]
    pub(crate) needed_from: Option<Micros>,
}

impl Record {
    pub(crate) fn shard(&self) -> Shard {
        Shard { topic: self.topic.clone(), partition: self.partition }
    }

    pub(crate) fn to_bytes(&self) -> Result<Bytes, StoreError> {
        // A record is strings and integers; serde_json cannot fail on it.
        seal(self).map_err(|error| {
            let source = object_store::Error::Generic { store: "record", source: error.into() };
            StoreError::new("write", self.shard().record(self.n), source)
        })
    }

    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Record, ReadError> {
        unseal_up_to(path, bytes, RECORD_VERSION)
    }
}

/// A sealed document with a `version`, if this release knows that version.
pub(crate) fn unseal_up_to<T: DeserializeOwned>(path: &Path, bytes: &[u8], known: u32) -> Result<T, ReadError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = unseal(path, bytes)?;
    if version > known {
        return Err(ReadError::Newer { path: path.to_string(), version, known });
    }
    Ok(unseal(path, bytes)?)
}

/// Every shard that has a record, by topic and partition.
pub(crate) async fn shards(store: &Store) -> Result<Vec<Shard>, StoreError> {
    let mut shards = Vec::new();
    for topic in store.folders(&Path::from(layout::COMMITS)).await? {
        for partition in store.folders(&Path::from_iter([layout::COMMITS, &topic])).await? {
            if let Ok(partition) = partition.parse() {
                shards.push(Shard { topic: topic.clone(), partition });
            }
        }
    }
    shards.sort();
    Ok(shards)
}

/// Record `n` of a shard, with its exact bytes; `None` where there is none.
pub(crate) async fn read(store: &Store, shard: &Shard, n: u64) -> Result<Option<(Record, Bytes)>, ReadError> {
    let path = shard.record(n);
    match store.read(&path).await? {
        Some(bytes) => Ok(Some((Record::from_bytes(&path, &bytes)?, bytes))),
        None => Ok(None),
    }
}

/// The newest record of a shard; `None` before the first claim.
///
/// # Errors
/// Also if records are listed and gone each time one is read: that is no shard without a record.
pub(crate) async fn newest(store: &Store, shard: &Shard) -> Result<Option<Record>, ReadError> {
    let hint = store.read(&shard.hint()).await?;
    let mut hint: Option<u64> = hint.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
    let mut gone = 0;
    for _ in 0..LISTINGS {
        let mut listed = match hint.take() {
            Some(n) if n > 0 => store.list_after(&shard.records(), &shard.record(n - 1)).await?,
            _ => Vec::new(),
        };
        if listed.is_empty() {
            listed = store.list(&shard.records()).await?;
        }
        let newest = listed.iter().filter_map(|meta| layout::number(&meta.location, ".json")).max();
        let Some(n) = newest else { return Ok(None) };
        match read(store, shard, n).await? {
            Some((record, _)) => return Ok(Some(record)),
            // Trimmed since it was listed: there is a newer one.
            None => gone = n,
        }
    }
    let reason = "it is listed and cannot be read".to_owned();
    Err(Damaged { path: shard.record(gone).to_string(), reason }.into())
}

/// Remembers that `n` exists. Best effort.
pub(crate) async fn leave_hint(store: &Store, shard: &Shard, n: u64) {
    if let Err(error) = store.overwrite(&shard.hint(), n.to_string().into()).await {
        tracing::debug!(%shard, n, %error, "could not leave the hint of the newest record");
    }
}

/// What lies in a shard's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Records up to this one may be gone; 0 where none was trimmed.
    pub(crate) trimmed: u64,
    /// The numbers of the records after it, ascending, without gaps.
    pub(crate) numbers: Vec<u64>,
    /// The numbers of the records up to it that are still there: claims, and what a trimming that died has left.
    pub(crate) left: Vec<u64>,
    /// All marks.
    pub(crate) marks: Vec<u64>,
}

impl Listed {
    /// The number missing between two records, or between the mark and the first.
    pub(crate) fn gap(&self) -> Option<u64> {
        let expected = self.trimmed + 1..;
        self.numbers.iter().zip(expected).find(|(found, expected)| *found != expected).map(|(_, missing)| missing)
    }
}

/// What lies in a shard's folder, as one listing shows it.
pub(crate) async fn listed_once(store: &Store, shard: &Shard) -> Result<Listed, StoreError> {
    let found = store.list(&shard.records()).await?;
    let of = |suffix: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> = found.iter().filter_map(|meta| layout::number(&meta.location, suffix)).collect();
        numbers.sort_unstable();
        numbers
    };
    let (marks, mut numbers) = (of(".trimmed"), of(".json"));
    let trimmed = marks.last().copied().unwrap_or_default();
    let left = numbers.iter().copied().filter(|n| *n <= trimmed).collect();
    numbers.retain(|n| *n > trimmed);
    Ok(Listed { trimmed, numbers, left, marks })
}

/// What lies in a shard's folder.
///
/// # Errors
/// If a record is missing between others: its rows would be missing without a word.
pub(crate) async fn listed(store: &Store, shard: &Shard) -> Result<Listed, ReadError> {
    let mut missing = 0;
    for _ in 0..LISTINGS {
        let listed = listed_once(store, shard).await?;
        match listed.gap() {
            None => return Ok(listed),
            Some(n) => missing = n,
        }
    }
    let reason = "it is missing, and records after it are there".to_owned();
    Err(Damaged { path: shard.record(missing).to_string(), reason }.into())
}

/// The records of a shard that are not trimmed, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) shard: Shard,
    pub(crate) listed: Listed,
    pub(crate) records: Vec<Record>,
}

/// The records of a shard that are not trimmed. One that vanishes meanwhile was published, and is left out.
pub(crate) async fn run(store: &Store, shard: &Shard) -> Result<Run, ReadError> {
    let listed = listed(store, shard).await?;
    let reads = futures::stream::iter(listed.numbers.clone().into_iter().map(|n| read(store, shard, n).boxed()));
    let records = reads
        .buffered(READS_AT_ONCE)
        .try_filter_map(|found| async { Ok(found.map(|(record, _)| record)) })
        .try_collect()
        .await?;
    Ok(Run { shard: shard.clone(), listed, records })
}

/// The same of every shard.
pub(crate) async fn runs(store: &Store) -> Result<Vec<Run>, ReadError> {
    let shards = shards(store).await?;
    // Boxed, or the compiler cannot see that the futures of all of them can go to another thread.
    let reads = shards.into_iter().map(|shard| async move { run(store, &shard).await }.boxed());
    futures::stream::iter(reads).buffered(SHARDS_AT_ONCE).try_collect().await
}
