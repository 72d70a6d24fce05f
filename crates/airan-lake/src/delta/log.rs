//! Reading a Delta log: the newest checkpoint and the commits after it.
//!
//! Reads are repeated where the log moves under them: a commit that was cleared up between the listing and the reading is
//! in a newer checkpoint. Of checkpoints only those in one classic file are read, which is what this crate makes.

use std::sync::Arc;

use bytes::Bytes;
use deltalake::kernel::Action;
use deltalake::logstore::get_actions;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::State;
use crate::layout;
use crate::record::ReadError;
use crate::seal::Damaged;
use crate::store::Store;

/// Commits read at once: a log has up to two checkpoints' worth of them.
const READS_AT_ONCE: usize = 16;
/// Times the log may move under one reading.
const TRIES: u32 = 8;

/// What lies in the log.
#[derive(Debug, Default)]
struct Listing {
    commits: Vec<u64>,
    checkpoint: Option<u64>,
}

impl Listing {
    async fn of(store: &Store, table: &str) -> Result<Listing, ReadError> {
        let folder = layout::delta_log(table);
        let hint = store.read(&folder.clone().join("_last_checkpoint")).await?;
        let hint =
            hint.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()?.get("version")?.as_u64());
        let mut listed = match hint {
            Some(version) => store.list_after(&folder, &layout::delta_commit(table, version)).await?,
            None => Vec::new(),
        };
        let has_checkpoint = |listed: &[object_store::ObjectMeta]| {
            listed.iter().any(|meta| layout::number(&meta.location, ".checkpoint.parquet").is_some())
        };
        if !has_checkpoint(&listed) {
            listed = store.list(&folder).await?;
        }
        let numbers = |suffix: &str| -> Vec<u64> {
            listed.iter().filter_map(|meta| layout::number(&meta.location, suffix)).collect()
        };
        let checkpoint = numbers(".checkpoint.parquet").into_iter().max();
        let mut commits = numbers(".json");
        commits.retain(|version| checkpoint.is_none_or(|checkpoint| *version > checkpoint));
        commits.sort_unstable();
        Ok(Listing { commits, checkpoint })
    }

    /// Whether the commits are all there are after the checkpoint.
    fn is_whole(&self) -> bool {
        let first = self.checkpoint.map_or(0, |checkpoint| checkpoint + 1);
        self.commits.iter().zip(first..).all(|(found, expected)| *found == expected)
    }
}

/// The newest state of `table`; of version `None` where it has no log.
pub(super) async fn read(store: &Store, table: &str) -> Result<State, ReadError> {
    let mut missing = String::new();
    for _ in 0..TRIES {
        let listing = Listing::of(store, table).await?;
        if !listing.is_whole() {
            missing = format!("a commit after {:?} is missing among {:?}", listing.checkpoint, brief(&listing.commits));
            continue;
        }
        match read_listed(store, table, &listing).await? {
            Some(state) => return Ok(state),
            None => missing = "a file of it vanished while it was read".to_owned(),
        }
    }
    Err(Damaged { path: layout::delta_log(table).to_string(), reason: missing }.into())
}

/// `known` and the commits after it; `None` where they do not follow, and everything must be read.
///
/// `is_fresh`: the log was listed a short while ago, so where the next version is not there, none is.
pub(super) async fn newer(
    store: &Store,
    table: &str,
    known: &Arc<State>,
    is_fresh: bool,
) -> Result<Option<Arc<State>>, ReadError> {
    let (Some(version), true) = (known.version, is_fresh) else { return Ok(None) };
    let mut state: Option<State> = None;
    for next in version + 1.. {
        let path = layout::delta_commit(table, next);
        let Some(bytes) = store.read(&path).await? else { break };
        let state = state.get_or_insert_with(|| State::clone(known));
        state.apply(table, store.staged(), next, commit_actions(&path, next, &bytes)?)?;
    }
    Ok(Some(state.map_or_else(|| Arc::clone(known), Arc::new)))
}

fn brief(commits: &[u64]) -> (Option<&u64>, Option<&u64>) {
    (commits.first(), commits.last())
}

/// `None` where a listed file is gone.
async fn read_listed(store: &Store, table: &str, listing: &Listing) -> Result<Option<State>, ReadError> {
    let mut state = State { checkpoint: listing.checkpoint, ..State::default() };
    if let Some(version) = listing.checkpoint {
        let path = layout::delta_checkpoint(table, version);
        let Some(bytes) = store.read(&path).await? else { return Ok(None) };
        let decoded = tokio::task::spawn_blocking(move || checkpoint_actions(bytes)).await;
        let decoded = decoded.map_err(|error| error.to_string()).and_then(|actions| actions);
        let actions = decoded.map_err(|reason| Damaged { path: path.to_string(), reason })?;
        state.apply(table, store.staged(), version, actions)?;
    }
    let is_read = read_commits(store, table, &listing.commits, &mut state).await?;
    Ok(is_read.then_some(state))
}

/// Applies `commits`, which follow `state`; `false` where one is gone.
async fn read_commits(store: &Store, table: &str, commits: &[u64], state: &mut State) -> Result<bool, ReadError> {
    let reads = commits.iter().copied().map(|version| {
        let path = layout::delta_commit(table, version);
        async move { Ok::<_, ReadError>((version, store.read(&path).await?, path)) }.boxed()
    });
    let mut commits = futures::stream::iter(reads).buffered(READS_AT_ONCE);
    while let Some((version, bytes, path)) = commits.try_next().await? {
        let Some(bytes) = bytes else { return Ok(false) };
        state.apply(table, store.staged(), version, commit_actions(&path, version, &bytes)?)?;
    }
    Ok(true)
}

/// The actions of one commit file.
pub(super) fn commit_actions(path: &Path, version: u64, bytes: &Bytes) -> Result<Vec<Action>, ReadError> {
    let actions = get_actions(version, bytes);
    Ok(actions.map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })?)
}

/// The actions of a checkpoint: each row is one, in the column of its kind.
fn checkpoint_actions(bytes: Bytes) -> Result<Vec<Action>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| error.to_string())?;
    let reader = reader.build().map_err(|error| error.to_string())?;
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    for batch in reader {
        lines.write(&batch.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    lines.finish().map_err(|error| error.to_string())?;
    let text: Vec<u8> = lines.into_inner();
    let mut actions = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| line.len() > 2) {
        let mut row: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(line).map_err(|error| error.to_string())?;
        // Kinds that this release does not know (a checkpoint's own metadata) say nothing about files.
        row.retain(|kind, _| matches!(kind.as_str(), "add" | "remove" | "txn" | "metaData" | "protocol"));
        if !row.is_empty() {
            let action = serde_json::from_value(serde_json::Value::Object(row));
            actions.push(action.map_err(|error| error.to_string())?);
        }
    }
    Ok(actions)
}
