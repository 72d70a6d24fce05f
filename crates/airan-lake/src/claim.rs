//! Taking a shard over: the newest record, the next one as a claim, and what the owner before left half done.

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use airan_model::crash;
use airan_model::time::DAY;

use crate::lake::Lake;
use crate::layout::{self, ClaimId, Shard};
use crate::place::Staged;
use crate::record::{self, RECORD_VERSION, ReadError, Record, StateFile};
use crate::seal::{Checksum, Damaged, seal, unseal};
use crate::store::{Created, Store, StoreError};
use crate::writer::ShardWriter;

/// Times a claim gives way to a faster one before it says so.
const TRIES: u32 = 16;
/// Staged files whose number is still ahead are kept this long: their owner may be about to commit.
const ORPHAN_AGE: i64 = DAY;

/// What the newest record of a shard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Number of the claim's own record.
    pub n: u64,
    /// First offset of the partition that no record contains.
    pub next_offset: i64,
    /// The shard state handed to the commit that ended there.
    pub state: Bytes,
}

/// Why a shard could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Wait and claim again: the store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Wait and claim again: others claim the shard faster than this one can.
    #[error("shard {topic}/{partition} was claimed by others {TRIES} times in a row")]
    Contended {
        /// Topic of the shard.
        topic: String,
        /// Partition of the shard.
        partition: i32,
    },
    /// Stop: rows of one site would be split over shards that do not know of each other.
    #[error(
        "the lake was written with {recorded} partitions of topic `{topic}`, the bus has {found}; the count of a topic \
         never changes: set the bus back to {recorded}, or let the processors empty the topic and go on with a new \
         topic name of {found} partitions (the lake keeps both)"
    )]
    PartitionsChanged {
        /// The topic.
        topic: String,
        /// As the lake has it.
        recorded: i32,
        /// As the caller says.
        found: i32,
    },
    /// Stop: there is no such shard.
    #[error("no shard `{topic}`/{partition} of {partitions}")]
    NoShard {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The partition count.
        partitions: i32,
    },
    /// Stop: the lake is damaged or newer than this release.
    #[error(transparent)]
    Read(ReadError),
}

impl From<ReadError> for ClaimError {
    fn from(error: ReadError) -> ClaimError {
        match error {
            ReadError::Store(error) => ClaimError::Store(error),
            other => ClaimError::Read(other),
        }
    }
}

impl From<Damaged> for ClaimError {
    fn from(error: Damaged) -> ClaimError {
        ClaimError::Read(error.into())
    }
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Partitions {
    partitions: i32,
}

impl Lake {
    /// Makes the caller the owner of a shard and fences every owner before it (K2).
    ///
    /// Returns the writer, and what the last commit said; `None` where nothing was ever committed. Files of the last
    /// commit that still wait in staging get their place, files of dead claims go.
    ///
    /// Cancel-safe: a dropped claim may have taken effect, which the next claim simply supersedes.
    ///
    /// # Errors
    /// See [`ClaimError`]: each variant says whether to try again.
    pub async fn claim(
        &self,
        topic: &str,
        partition: i32,
        partitions: i32,
    ) -> Result<(ShardWriter, Option<Recovered>), ClaimError> {
        let shard = Shard { topic: topic.to_owned(), partition };
        if !layout::is_plain(topic) || !(0..partitions).contains(&partition) {
            return Err(ClaimError::NoShard { topic: shard.topic, partition, partitions });
        }
        fix_partitions(self.store(), topic, partitions).await?;
        let record = self.take(&shard, partitions).await?;
        crash::point("lake.claim.record");
        self.metrics().claims.inc();
        record::leave_hint(self.store(), &shard, record.n).await;
        self.settle_staging(&shard, &record).await?;
        crash::point("lake.claim.staging");
        remove_states(self.store(), &shard, &record).await;
        let recovered = match (record.next_offset, &record.state) {
            (Some(next_offset), Some(state)) => {
                Some(Recovered { n: record.n, next_offset, state: read_state(self.store(), state).await? })
            }
            _ => None,
        };
        tracing::info!(%shard, n = record.n, next_offset = record.next_offset, "claimed");
        Ok((ShardWriter::new(self.clone(), record), recovered))
    }

    /// Creates the record after the newest as a claim.
    async fn take(&self, shard: &Shard, partitions: i32) -> Result<Record, ClaimError> {
        for _ in 0..TRIES {
            let before = record::newest(self.store(), shard).await?;
            let claim = claim_after(before, shard, partitions, self.owner(), self.clock().now());
            let bytes = claim.to_bytes()?;
            let put = self.store().create(&shard.record(claim.n), bytes.clone()).await;
            if matches!(put, Ok(Created::New)) {
                return Ok(claim);
            }
            match (record::read(self.store(), shard, claim.n).await?, put) {
                (Some((_, found)), _) if found == bytes => return Ok(claim),
                (None, Err(error)) => return Err(error.into()),
                _ => {}
            }
        }
        Err(ClaimError::Contended { topic: shard.topic.clone(), partition: shard.partition })
    }

    /// Local disks: what a record names gets its place; what no record can name any more goes.
    async fn settle_staging(&self, shard: &Shard, newest: &Record) -> Result<(), ClaimError> {
        if !self.store().staged() {
            return Ok(());
        }
        let now = self.clock().now();
        let mut read: Option<Record> = None;
        let mut waiting = self.store().list(&shard.staging()).await?;
        waiting.sort_by_key(|meta| layout::commit_number(&meta.location));
        for meta in waiting {
            let (Some(n), Some(place)) = (layout::commit_number(&meta.location), shard.unstaged(&meta.location)) else {
                continue;
            };
            if read.as_ref().is_none_or(|record| record.n != n) {
                read = record::read(self.store(), shard, n).await?.map(|(record, _)| record);
            }
            let record = read.as_ref().filter(|record| record.n == n);
            let is_named = record.is_some_and(|record| record.files.iter().any(|file| file.path == place.as_ref()));
            if is_named {
                // Not named and below the newest: of a dead claim, or published since and then in its place already. One that is out
                // since then must not have it again, for no moment.
                if !self.is_out(shard, n, &place).await? {
                    self.give_place(shard, &Staged { n, waits: meta.location.clone(), place }).await?;
                }
            } else if n > newest.n && now.saturating_sub(meta.last_modified.timestamp_micros()) < ORPHAN_AGE {
                continue;
            } else {
                self.metrics().orphans.inc();
                tracing::debug!(path = %meta.location, "removing a file that no record names");
            }
            self.store().remove(&meta.location).await?;
        }
        Ok(())
    }
}

/// The record after `before`: the same content, a fresh claim id, no files.
fn claim_after(before: Option<Record>, shard: &Shard, partitions: i32, owner: &str, at: i64) -> Record {
    let base = before.unwrap_or_else(|| Record {
        version: RECORD_VERSION,
        topic: shard.topic.clone(),
        partition: shard.partition,
        partitions,
        n: 0,
        claim: ClaimId::fresh(),
        takes: true,
        owner: String::new(),
        at,
        next_offset: None,
        state: None,
        files: Vec::new(),
        newest_ts: std::collections::BTreeMap::new(),
        needed_from: None,
    });
    let (n, claim, owner) = (base.n + 1, ClaimId::fresh(), owner.to_owned());
    Record { version: RECORD_VERSION, n, claim, takes: true, owner, at, files: Vec::new(), ..base }
}

/// The partition count of a topic; `None` where none of its shards was ever claimed.
pub(crate) async fn partitions(store: &Store, topic: &str) -> Result<Option<i32>, ReadError> {
    let path = layout::partitions(topic);
    let Some(bytes) = store.read(&path).await? else { return Ok(None) };
    let Partitions { partitions } = unseal(&path, &bytes)?;
    Ok(Some(partitions))
}

/// The first claim of a topic fixes its partition count; every other compares.
async fn fix_partitions(store: &Store, topic: &str, found: i32) -> Result<(), ClaimError> {
    let path = layout::partitions(topic);
    let mut bytes = store.read(&path).await?;
    if bytes.is_none() {
        let offered = seal(&Partitions { partitions: found })
            .map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })?;
        let put = store.create(&path, offered).await;
        bytes = store.read(&path).await?;
        if bytes.is_none() {
            put?;
        }
    }
    let Some(bytes) = bytes else {
        return Err(Damaged { path: path.to_string(), reason: "it was created and is not there".to_owned() }.into());
    };
    let Partitions { partitions: recorded } = unseal(&path, &bytes)?;
    match recorded == found {
        true => Ok(()),
        false => Err(ClaimError::PartitionsChanged { topic: topic.to_owned(), recorded, found }),
    }
}

/// The state a record names, compared with what the record says of it.
pub(crate) async fn read_state(store: &Store, state: &StateFile) -> Result<Bytes, ReadError> {
    let damaged = |reason: &str| Damaged { path: state.path.clone(), reason: reason.to_owned() };
    match store.read(&Path::from(state.path.as_str())).await? {
        None => Err(damaged("it is not there").into()),
        Some(bytes) if Checksum::of(&bytes) != state.checksum => Err(damaged("its checksum is another").into()),
        Some(bytes) => Ok(bytes),
    }
}

/// Removes states that no claim can need: older than the newest record and not its own. Best effort.
async fn remove_states(store: &Store, shard: &Shard, newest: &Record) {
    let needed = newest.state.as_ref().map(|state| state.path.as_str());
    let Ok(listed) = store.list(&shard.states()).await else { return };
    for meta in listed {
        let is_old = layout::commit_number(&meta.location).is_some_and(|n| n <= newest.n);
        if is_old && needed != Some(meta.location.as_ref()) && store.remove(&meta.location).await.is_err() {
            return;
        }
    }
}
