//! One claimed shard: commits in order, each whole or not at all.
//!
//! A commit is four steps: Parquet files, state file, record, names (local disks: files get their place in the table).
//! Only the third decides (K1). Before it nothing counts; after it everything does, and what is left to do is idempotent
//! and done by the next commit or by whoever claims next.
//!
//! An attempt that fails leaves the writer able to try the same commit again under the same `n` and claim: files already
//! there with the same bytes are used, other bytes get another name, and once a record has been *offered* to the store,
//! exactly those bytes are offered again, so it does not matter which of the offers arrives (K2). A future that is dropped
//! half-way is such an attempt.

use std::time::Instant;

use airan_model::crash;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::commit::{Commit, CommitError, CommitSummary, TableRows};
use crate::encode::{self, Encoded, Part};
use crate::lake::Lake;
use crate::layout::{self, ClaimId, Shard};
use crate::place::Staged;
use crate::record::{self, HINT_EVERY, RECORD_VERSION, ReadError, Record, RecordFile, StateFile};
use crate::schema::SchemaError;
use crate::seal::Checksum;
use crate::store::{Created, Store, StoreError};

/// Parquet files (each of one date) in work at once. DESIGN allows 8 open date partitions; a backlog over more dates is
/// written as more files, one after the other, so memory is bounded by this many files and no row is left out.
const FILES_AT_ONCE: usize = 2;
/// Names tried for one file before the store is called unusable. Each retry that wrote other bytes takes one.
const NAMES: u32 = 64;

/// A claimed shard. Not `Clone`: one writer per claim.
#[derive(Debug)]
pub struct ShardWriter {
    lake: Lake,
    shard: Shard,
    claim: ClaimId,
    /// The newest record, written by this claim.
    newest: Record,
    /// A commit whose files are written and whose record may have been offered.
    offered: Option<Offer>,
    /// Staged files of `newest` that still need their place in the table.
    unnamed: Vec<Staged>,
    /// Objects that nobody needs after the next commit: staged files that have their place, states no record needs.
    /// They stay until then for readers that have just found them.
    spent: Vec<Path>,
    /// Once true, only a new claim helps.
    fenced: bool,
}

#[derive(Debug)]
struct Offer {
    fingerprint: Fingerprint,
    record: Record,
    bytes: Bytes,
}

/// What tells two commits apart.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint {
    next_offset: i64,
    state: Checksum,
    rows: Vec<(String, usize)>,
}

impl Fingerprint {
    fn of(commit: &Commit) -> Fingerprint {
        let rows = |table: &TableRows| table.batches.iter().map(|batch| batch.num_rows()).sum();
        Fingerprint {
            next_offset: commit.next_offset,
            state: Checksum::of(&commit.state),
            rows: commit.tables.iter().map(|table| (table.table.clone(), rows(table))).collect(),
        }
    }
}

impl ShardWriter {
    /// A writer for the claim that `newest` is.
    pub(crate) fn new(lake: Lake, newest: Record) -> ShardWriter {
        let (shard, claim) = (newest.shard(), newest.claim.clone());
        ShardWriter { lake, shard, claim, newest, offered: None, unnamed: Vec::new(), spent: Vec::new(), fenced: false }
    }

    /// Number of the newest record this writer made.
    pub fn n(&self) -> u64 {
        self.newest.n
    }

    /// Makes `commit` true, or nothing of it.
    ///
    /// Cancel-safe: a dropped call is an attempt with unknown outcome, and the next call resolves it.
    ///
    /// # Errors
    /// See [`CommitError`]: each variant says whether to hand in the same commit again, to claim again, or to stop.
    pub async fn commit(&mut self, commit: &Commit) -> Result<CommitSummary, CommitError> {
        let start = Instant::now();
        let done = self.attempt(commit).await;
        let metrics = self.lake.metrics();
        match &done {
            Ok(summary) => {
                metrics.commits.inc();
                metrics.files.inc_by(summary.files);
                metrics.rows.inc_by(summary.rows);
                metrics.bytes.inc_by(summary.bytes);
                metrics.commit_seconds.observe(start.elapsed().as_secs_f64());
            }
            Err(CommitError::Fenced { .. } | CommitError::Changed { .. }) => metrics.fenced.inc(),
            Err(_) => metrics.commit_failures.inc(),
        }
        done
    }

    async fn attempt(&mut self, commit: &Commit) -> Result<CommitSummary, CommitError> {
        if self.fenced {
            return Err(self.fenced_error());
        }
        self.sweep().await;
        self.give_places().await?;
        let fingerprint = Fingerprint::of(commit);
        if self.offered.as_ref().is_some_and(|offer| offer.fingerprint != fingerprint) {
            self.withdraw().await?;
        }
        let offer = match self.offered.take() {
            Some(offer) => offer,
            None => self.prepare(commit, fingerprint).await?,
        };
        self.offered = Some(offer);
        self.publish().await
    }

    /// Steps 1 and 2: files and state, create-only; nothing counts yet.
    async fn prepare(&self, commit: &Commit, fingerprint: Fingerprint) -> Result<Offer, CommitError> {
        let n = self.newest.n + 1;
        let mut parts = Vec::new();
        for (at, rows) in commit.tables.iter().enumerate() {
            let twice = commit.tables[..at].iter().any(|other| other.table == rows.table);
            parts.extend(self.parts_of(rows, twice).await?);
        }
        let mut files: Vec<RecordFile> = futures::stream::iter(parts.into_iter().map(|part| self.write_file(n, part)))
            .buffered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        files.sort_by(|a, b| (&a.table, &a.path).cmp(&(&b.table, &b.path)));
        crash::point("lake.commit.files");
        let state_name = |attempt| self.shard.state(n, &self.claim, attempt);
        let state = create_exact(self.store(), state_name, &commit.state).await?;
        crash::point("lake.commit.state");
        let mut newest_ts = self.newest.newest_ts.clone();
        for file in &files {
            let newest = newest_ts.entry(file.table.clone()).or_insert(file.max_ts);
            *newest = file.max_ts.max(*newest);
        }
        let record = Record {
            version: RECORD_VERSION,
            n,
            takes: false,
            at: self.lake.clock().now(),
            next_offset: Some(commit.next_offset),
            state: Some(StateFile {
                path: state.to_string(),
                bytes: commit.state.len() as u64,
                checksum: Checksum::of(&commit.state),
            }),
            files,
            newest_ts,
            // What was said before is on the safe side.
            needed_from: commit.needed_from.or(self.newest.needed_from),
            ..self.newest.clone()
        };
        Ok(Offer { fingerprint, bytes: record.to_bytes()?, record })
    }

    async fn parts_of(&self, rows: &TableRows, named_before: bool) -> Result<Vec<Part>, CommitError> {
        let refused = |source| CommitError::Schema { table: rows.table.clone(), source };
        if named_before {
            return Err(refused(SchemaError::Name { reason: "the table is named twice in one commit".to_owned() }));
        }
        if rows.batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Vec::new());
        }
        let schema = self.lake.schema_for(rows).await?;
        encode::parts(&schema, rows).map_err(refused)
    }

    async fn write_file(&self, n: u64, part: Part) -> Result<RecordFile, CommitError> {
        let (table, date) = (part.table.clone(), part.date);
        // On the caller's thread: a shard's threads are there for such work, and glibc keeps the heap of every thread that has
        // encoded (benches/, part `stage`: on threads of tokio's pool the peak was twice as high).
        let encoded = encode::encode(&part);
        drop(part);
        let Encoded { bytes, rows, min_ts, max_ts, checksum } =
            encoded.map_err(|error| CommitError::Encode { table: table.clone(), reason: error.to_string() })?;
        let place = |attempt| self.shard.file(&table, date, n, &self.claim, attempt);
        let staged = self.store().staged();
        let name = |attempt| if staged { self.shard.staged(&place(attempt)) } else { place(attempt) };
        let written = create_exact(self.store(), name, &bytes).await?;
        let path = if staged { self.shard.unstaged(&written).unwrap_or(written) } else { written };
        Ok(RecordFile { table, path: path.to_string(), rows, bytes: bytes.len() as u64, min_ts, max_ts, checksum })
    }

    /// Step 3, which decides: the record, with put-if-absent (K2).
    async fn publish(&mut self) -> Result<CommitSummary, CommitError> {
        let Some(Offer { record, bytes, .. }) = &self.offered else { return Err(self.fenced_error()) };
        let n = record.n;
        let put = self.lake.store().create(&self.shard.record(n), bytes.clone()).await;
        if matches!(put, Ok(Created::New)) {
            return Ok(self.succeeded().await);
        }
        // Taken, or unknown: the record itself tells.
        let found = record::read(self.lake.store(), &self.shard, n).await.map_err(as_store)?;
        match (found, put) {
            (Some((_, found)), _) if found == bytes => Ok(self.succeeded().await),
            (Some((found, _)), _) => Err(self.lost(found).await),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(_)) => Err(CommitError::Store(StoreError::new(
                "read",
                self.shard.record(n),
                object_store::Error::Generic { store: "lake", source: "it was taken and is not there".into() },
            ))),
        }
    }

    /// The caller has come with another commit than the one offered: had that one succeeded?
    async fn withdraw(&mut self) -> Result<(), CommitError> {
        let n = self.newest.n + 1;
        if let Some((found, _)) = record::read(self.store(), &self.shard, n).await.map_err(as_store)? {
            return Err(self.lost(found).await);
        }
        // It may still arrive: its files stay, and `publish` will meet it.
        self.offered = None;
        Ok(())
    }

    /// Record `n` is not what this writer wants it to be.
    async fn lost(&mut self, found: Record) -> CommitError {
        self.fenced = true;
        if found.claim == self.claim {
            return CommitError::Changed { n: found.n, next_offset: found.next_offset.unwrap_or_default() };
        }
        // Another claim's: no record will ever name what this claim wrote for `n`.
        if let Some(offer) = self.offered.take() {
            let files = offer.record.files.iter().map(|file| Path::from(file.path.as_str()));
            let files = files.map(|path| if self.store().staged() { self.shard.staged(&path) } else { path });
            let state = offer.record.state.iter().map(|state| Path::from(state.path.as_str()));
            self.spent = files.chain(state).collect();
            self.sweep().await;
        }
        self.fenced_error()
    }

    async fn succeeded(&mut self) -> CommitSummary {
        let Some(Offer { record, .. }) = self.offered.take() else { return CommitSummary::default() };
        crash::point("lake.commit.record");
        let before = std::mem::replace(&mut self.newest, record);
        let record = &self.newest;
        if let Some(state) = before.state.filter(|state| record.state.as_ref() != Some(state)) {
            self.spent.push(Path::from(state.path.as_str()));
        }
        if self.lake.store().staged() {
            let staged = |file: &RecordFile| {
                let place = Path::from(file.path.as_str());
                Staged { n: record.n, waits: self.shard.staged(&place), place }
            };
            self.unnamed = record.files.iter().map(staged).collect();
        }
        let summary = CommitSummary {
            n: record.n,
            files: record.files.len() as u64,
            rows: record.files.iter().map(|file| file.rows).sum(),
            bytes: record.files.iter().map(|file| file.bytes).sum(),
        };
        if let Err(error) = self.give_places().await {
            // The commit stands; readers find the files in staging until the next commit or claim gets them out.
            tracing::warn!(shard = %self.shard, n = summary.n, %error, "files are still in staging");
        }
        if summary.n.is_multiple_of(HINT_EVERY) {
            record::leave_hint(self.lake.store(), &self.shard, summary.n).await;
        }
        summary
    }

    /// Step 4 (local disks): each file of the newest record gets its place in the table.
    async fn give_places(&mut self) -> Result<(), StoreError> {
        while let Some(staged) = self.unnamed.last() {
            self.lake.give_place(&self.shard, staged).await?;
            crash::point("lake.commit.place");
            self.spent.extend(self.unnamed.pop().map(|staged| staged.waits));
        }
        Ok(())
    }

    /// Removes what is spent. Best effort: what stays is removed at the next claim.
    async fn sweep(&mut self) {
        for path in std::mem::take(&mut self.spent) {
            if let Err(error) = self.lake.store().remove(&path).await {
                tracing::debug!(%path, %error, "left for the next claim to remove");
            }
        }
    }

    fn store(&self) -> &Store {
        self.lake.store()
    }

    /// The first file of the newest record, as its owner knew it before it had its place.
    #[cfg(test)]
    pub(crate) fn staged_again(&self) -> (Shard, Staged) {
        let place = Path::from(self.newest.files[0].path.as_str());
        (self.shard.clone(), Staged { n: self.newest.n, waits: self.shard.staged(&place), place })
    }

    fn fenced_error(&self) -> CommitError {
        CommitError::Fenced { topic: self.shard.topic.clone(), partition: self.shard.partition, n: self.newest.n + 1 }
    }
}

/// Puts `bytes` under the first of the names that is free or holds the same bytes; returns that name.
async fn create_exact(store: &Store, name: impl Fn(u32) -> Path, bytes: &Bytes) -> Result<Path, StoreError> {
    for attempt in 0..NAMES {
        let path = name(attempt);
        let put = store.create(&path, bytes.clone()).await;
        if matches!(put, Ok(Created::New)) {
            return Ok(path);
        }
        match (store.read(&path).await?, put) {
            (Some(found), _) if found == bytes => return Ok(path),
            (Some(_), _) => continue,
            (None, Err(error)) => return Err(error),
            (None, Ok(_)) => continue,
        }
    }
    let source = object_store::Error::Generic { store: "lake", source: "every name holds other bytes".into() };
    Err(StoreError::new("create", name(NAMES), source))
}

fn as_store(error: ReadError) -> StoreError {
    match error {
        ReadError::Store(error) => error,
        other => {
            let source = object_store::Error::Generic { store: "lake", source: other.into() };
            StoreError::new("read", layout::COMMITS, source)
        }
    }
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> CommitError {
        CommitError::Store(as_store(error))
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
