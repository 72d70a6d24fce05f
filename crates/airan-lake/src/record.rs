//! Commit records: the only truth about progress (K1) and about which files count (S1).
//!
//! The records of a shard are numbered without gaps from 1. Record `n` is created with put-if-absent, so of several
//! writers exactly one makes it; a record is never changed. A claim is a record too: it repeats what stood before it
//! under a fresh claim id and names no files.
//!
//! The newest record is found by one listing that starts at a hint (rewritten at each claim and every
//! [`HINT_EVERY`] commits), so an object store lists at most that many keys, however old the lake is. The hint is no
//! truth: where it is missing or wrong, everything is listed. (A local folder is always read whole, which for a million
//! names takes well under a second.)

use std::collections::BTreeMap;

use airan_model::time::Micros;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::layout::{self, ClaimId, Shard};
use crate::seal::{Checksum, Damaged, seal, unseal};
use crate::store::{Store, StoreError};

/// Version of the records this build writes, and the highest it reads.
pub(crate) const RECORD_VERSION: u32 = 1;
/// Commits between two rewritings of the hint.
pub(crate) const HINT_EVERY: u64 = 64;
/// Records read at once: enough to hide an object store's latency, few enough to stay polite.
const READS_AT_ONCE: usize = 32;

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
    #[error("{path} has version {version}; this release reads up to {RECORD_VERSION}")]
    Newer {
        /// The record.
        path: String,
        /// Its version.
        version: u32,
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
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = unseal(path, bytes)?;
        if version > RECORD_VERSION {
            return Err(ReadError::Newer { path: path.to_string(), version });
        }
        Ok(unseal(path, bytes)?)
    }
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
pub(crate) async fn newest(store: &Store, shard: &Shard) -> Result<Option<Record>, ReadError> {
    let hint = store.read(&shard.hint()).await?;
    let hint: Option<u64> = hint.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
    let mut listed = match hint {
        Some(n) if n > 0 => store.list_after(&shard.records(), &shard.record(n - 1)).await?,
        _ => Vec::new(),
    };
    if listed.is_empty() {
        listed = store.list(&shard.records()).await?;
    }
    let newest = listed.iter().filter_map(|meta| layout::number(&meta.location, ".json")).max();
    match newest {
        Some(n) => Ok(read(store, shard, n).await?.map(|(record, _)| record)),
        None => Ok(None),
    }
}

/// Remembers that `n` exists. Best effort.
pub(crate) async fn leave_hint(store: &Store, shard: &Shard, n: u64) {
    if let Err(error) = store.overwrite(&shard.hint(), n.to_string().into()).await {
        tracing::debug!(%shard, n, %error, "could not leave the hint of the newest record");
    }
}

/// The numbers of a shard's records, ascending.
pub(crate) async fn numbers(store: &Store, shard: &Shard) -> Result<Vec<u64>, StoreError> {
    let listed = store.list(&shard.records()).await?;
    let mut numbers: Vec<u64> = listed.iter().filter_map(|meta| layout::number(&meta.location, ".json")).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Every record of a shard, ascending. One that vanishes meanwhile was trimmed, with nothing live in it.
pub(crate) async fn all(store: &Store, shard: &Shard) -> Result<Vec<Record>, ReadError> {
    let numbers = numbers(store, shard).await?;
    let reads = futures::stream::iter(numbers.into_iter().map(|n| read(store, shard, n)));
    reads
        .buffered(READS_AT_ONCE)
        .try_filter_map(|found| async { Ok(found.map(|(record, _)| record)) })
        .try_collect()
        .await
}
