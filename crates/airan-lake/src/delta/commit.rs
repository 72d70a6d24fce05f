//! One commit to a Delta log: the next version, or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::time::Micros;
use bytes::Bytes;
use deltalake::kernel::{Action, CommitInfo, Protocol};
use serde_json::{Value, json};

use super::{DeltaTable, actions, log, schema};
use crate::files::Live;
use crate::layout::{self, Shard};
use crate::record::ReadError;
use crate::schema::load;
use crate::seal::Damaged;
use crate::store::{Created, StoreError};

/// What a commit changes, all at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// What is done, for people: `publish`, `compact`, `erase`, `expire`.
    pub(crate) operation: &'static str,
    /// Files that count from now on. They are in the store, and on a local disk have their held names.
    pub(crate) add: Vec<Live>,
    /// Places of published files that no longer count.
    pub(crate) remove: Vec<String>,
    /// Per shard the last record whose files of this table are in the table with this commit.
    pub(crate) txns: Vec<(Shard, u64)>,
    /// True if the rows of `add` are those of `remove`: engines that follow changes then see none.
    pub(crate) rearranges: bool,
}

/// Why a commit did not happen. After each but `Column` the next step begins with loading the table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeltaError {
    /// Load again, see whether the files to be removed still count and whether the `txn` says that the work is done, and
    /// try again.
    #[error("version {version} of the Delta log of `{table}` was made by another")]
    Conflict { table: String, version: u64 },
    /// Wait; then as after `Conflict`: the commit may have happened, or may happen yet.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lake is damaged or newer than this release.
    #[error(transparent)]
    Read(ReadError),
    /// Leave the table unpublished: Delta has no such column. Its records stay, and every reader of airan's own reads it.
    #[error("table `{table}` has a column that Delta cannot have: {reason}")]
    Column { table: String, reason: String },
}

impl From<ReadError> for DeltaError {
    fn from(error: ReadError) -> DeltaError {
        match error {
            ReadError::Store(error) => DeltaError::Store(error),
            other => DeltaError::Read(other),
        }
    }
}

impl DeltaTable {
    /// Makes the version after this one, with columns as of now; then `self` is that version.
    ///
    /// Files to be removed that are no longer in this version are left out: somebody else has removed them.
    ///
    /// Cancel-safe: a dropped call is a commit with unknown outcome.
    ///
    /// # Errors
    /// See [`DeltaError`]; `self` is then as it was.
    pub(crate) async fn commit(&mut self, change: Change, now: Micros) -> Result<u64, DeltaError> {
        let version = self.state.version.map_or(0, |version| version + 1);
        let path = layout::delta_commit(&self.table, version);
        let actions = self.actions(&change, now).await?;
        let bytes = to_bytes(&actions)
            .map_err(|error| ReadError::from(Damaged { path: path.to_string(), reason: error.to_string() }))?;
        let put = self.store.create(&path, bytes.clone()).await;
        if !matches!(put, Ok(Created::New)) {
            // Taken, or unknown: the version itself tells.
            match (self.store.read(&path).await?, put) {
                (Some(found), _) if found == bytes => {}
                (None, Err(error)) => return Err(error.into()),
                _ => return Err(DeltaError::Conflict { table: self.table.clone(), version }),
            }
        }
        let actions = log::commit_actions(&path, version, &bytes)?;
        let staged = self.store.staged();
        Arc::make_mut(&mut self.state).apply(&self.table, staged, version, actions)?;
        Ok(version)
    }

    async fn actions(&self, change: &Change, now: Micros) -> Result<Vec<Action>, DeltaError> {
        let staged = self.store.staged();
        // After the state, so that the columns are at least those of its metadata.
        let columns = load(&self.store, &self.table).await?.ok_or_else(|| {
            let path = layout::schemas(&self.table).to_string();
            ReadError::from(Damaged { path, reason: "the table has files and no schema".to_owned() })
        })?;
        let refused = |reason| DeltaError::Column { table: self.table.clone(), reason };
        let metadata = schema::due(self.state.metadata.as_ref(), &columns, self.checkpoint_interval, now);
        let metadata = metadata.map_err(refused)?;
        let mut actions = vec![Action::CommitInfo(info(change, self.state.version, now))];
        if self.state.version.is_none() {
            actions.push(Action::Protocol(first_protocol().map_err(|error| refused(error.to_string()))?));
        }
        actions.extend(metadata.map(Action::Metadata));
        let data_change = !change.rearranges;
        for place in &change.remove {
            if let Some(live) = self.state.files.get(place) {
                actions.push(Action::Remove(actions::remove(&self.table, staged, live, data_change, now)));
            }
        }
        for live in &change.add {
            actions.push(Action::Add(actions::add(&self.table, staged, &columns.time_column, live, data_change)));
        }
        actions.extend(change.txns.iter().map(|(shard, n)| Action::Txn(actions::txn(shard, *n, now))));
        Ok(actions)
    }
}

/// Reader version 1 and writer version 2: what every program that knows Delta can read.
fn first_protocol() -> Result<Protocol, serde_json::Error> {
    serde_json::from_value(json!({"minReaderVersion": 1, "minWriterVersion": 2}))
}

fn info(change: &Change, before: Option<u64>, now: Micros) -> CommitInfo {
    let sum = |count: usize| Value::from(count);
    // The commit id tells this commit from another with the same content.
    let info: HashMap<String, Value> = HashMap::from([
        ("airan.commit".to_owned(), Value::from(format!("{:032x}", rand::random::<u128>()))),
        ("clientVersion".to_owned(), Value::from(concat!("airan.", env!("CARGO_PKG_VERSION")))),
    ]);
    CommitInfo {
        timestamp: Some(now / 1_000),
        operation: Some(change.operation.to_uppercase()),
        operation_parameters: Some(HashMap::from([
            ("filesAdded".to_owned(), sum(change.add.len())),
            ("filesRemoved".to_owned(), sum(change.remove.len())),
        ])),
        read_version: before,
        is_blind_append: Some(change.remove.is_empty()),
        engine_info: Some(concat!("airan/", env!("CARGO_PKG_VERSION")).to_owned()),
        info,
        ..CommitInfo::default()
    }
}

/// One action a line.
fn to_bytes(actions: &[Action]) -> Result<Bytes, serde_json::Error> {
    let mut text = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut text, action)?;
        text.push(b'\n');
    }
    Ok(text.into())
}
