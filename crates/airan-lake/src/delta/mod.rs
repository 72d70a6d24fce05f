//! Delta, the projection of the commit records: one Delta table per lake table, in the table's own folder.
//!
//! ```text
//!  records above txn ──publish──▶ commit v+1: add …, txn per partition, metadata when columns were added
//!  compaction, erasure, expire ──▶ commit v+1: remove …, add …
//!                                     │ put-if-absent of `_delta_log/<v+1>.json`: exactly one writer makes a version
//!  readers ◀── State: files, txns, tombstones ◀── checkpoint + commits after it
//! ```
//!
//! A table's Delta log says which files of it are *published*. Together with the records above `txn` that is everything
//! that counts (S1). A commit is made against one version and takes the next one or nothing: there is no merging and no
//! retrying here. Who is told [`DeltaError::Conflict`] loads again, looks what has changed and decides anew; who is told
//! [`DeltaError::Store`] does not know what happened and does the same. So two publishers, or a publisher and a
//! compaction, or somebody who wakes up after an hour, cannot double or lose a file.
//!
//! The success of a commit is never the ground for deleting something: whoever deletes loads the table first.
//!
//! Paths: everywhere in this crate a file is called by its *place*, `<table>/date=…/<name>.parquet`, as its record says.
//! In the Delta log of an object store that is the path; on a local disk Delta has a second name for the file, `held`
//! (see `held.rs`).

mod actions;
mod checkpoint;
mod commit;
mod log;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use airan_model::time::Micros;
use deltalake::kernel::Action;
use object_store::path::Path;

use self::checkpoint::LOG_KEPT;
pub(crate) use self::commit::{Change, DeltaError};
use crate::files::Live;
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::ReadError;
use crate::seal::Damaged;
use crate::store::Store;

/// How long a log that was listed is followed by asking for its next version alone. Far shorter than commits are kept
/// ([`LOG_KEPT`]), so that a process which was frozen does not take a version for the newest because the next was cleared up.
const LOOK_FOR: Micros = LOG_KEPT / 8;

/// A file that was taken out of a table, while its tombstone is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// Its place.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// When it was taken out, by the clock of who did it.
    pub(crate) at: Micros,
}

/// A table as of one version of its Delta log.
#[derive(Clone, Debug)]
pub(crate) struct DeltaTable {
    store: Store,
    table: String,
    state: Arc<State>,
    /// When its log was last listed, by the lake's clock.
    listed_at: Micros,
    /// Commits between checkpoints.
    checkpoint_interval: u64,
}

/// What the log says up to a version.
#[derive(Clone, Debug, Default)]
struct State {
    /// Absent before the first commit.
    version: Option<u64>,
    /// The checkpoint that the state was read from, or that was made since.
    checkpoint: Option<u64>,
    files: BTreeMap<String, Live>,
    removed: HashMap<String, Tombstone>,
    txns: HashMap<String, u64>,
    /// The metadata action in force, as JSON.
    metadata: Option<serde_json::Value>,
    /// The last version known to have taken a file out.
    removal: Option<u64>,
}

impl DeltaTable {
    /// The newest version of `table`; `None` where nothing of it was ever published.
    ///
    /// # Errors
    /// If the store does not answer, or the log is not one that airan wrote.
    pub(crate) async fn load(lake: &Lake, table: &str) -> Result<Option<DeltaTable>, ReadError> {
        let loaded = DeltaTable::load_or_new(lake, table).await?;
        Ok(loaded.state.version.is_some().then_some(loaded))
    }

    /// As `load`, or a table whose first commit makes version 0.
    ///
    /// What this process has read before is not read again.
    pub(crate) async fn load_or_new(lake: &Lake, table: &str) -> Result<DeltaTable, ReadError> {
        let (known, now) = (lake.known_delta(table), lake.clock().now());
        let newer = match &known {
            Some(known) => {
                let is_fresh = (0..LOOK_FOR).contains(&now.saturating_sub(known.listed_at));
                log::newer(lake.store(), table, &known.state, is_fresh).await?.map(|state| (state, known.listed_at))
            }
            None => None,
        };
        let (state, listed_at) = match newer {
            Some(newer) => newer,
            None => (Arc::new(log::read(lake.store(), table).await?), now),
        };
        let (store, checkpoint_interval) = (lake.store().clone(), lake.settings().checkpoint_interval);
        let loaded = DeltaTable { store, table: table.to_owned(), state, listed_at, checkpoint_interval };
        lake.remember_delta(&loaded);
        Ok(loaded)
    }

    /// As `load`, from what lies in the store alone.
    pub(crate) async fn read(lake: &Lake, table: &str) -> Result<Option<DeltaTable>, ReadError> {
        let state = Arc::new(log::read(lake.store(), table).await?);
        let (store, checkpoint_interval) = (lake.store().clone(), lake.settings().checkpoint_interval);
        let read = DeltaTable { store, table: table.to_owned(), state, listed_at: Micros::MIN, checkpoint_interval };
        Ok(read.state.version.is_some().then_some(read))
    }

    /// The table's name.
    pub(crate) fn name(&self) -> &str {
        &self.table
    }

    /// `None` before the first commit.
    pub(crate) fn version(&self) -> Option<u64> {
        self.state.version
    }

    /// The last version that took a file out, as far as this process knows.
    pub(crate) fn last_removal(&self) -> Option<u64> {
        self.state.removal
    }

    /// Every published file, by its place.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Live> {
        self.state.files.values()
    }

    /// The published file of this place.
    pub(crate) fn file(&self, place: &str) -> Option<&Live> {
        self.state.files.get(place)
    }

    /// The last record of `shard` whose files of this table are published; those before it are too.
    pub(crate) fn txn(&self, shard: &Shard) -> Option<u64> {
        self.state.txns.get(&actions::app_of(shard)).copied()
    }

    /// All of them.
    pub(crate) fn txns(&self) -> impl Iterator<Item = (Shard, u64)> {
        self.state.txns.iter().filter_map(|(app, n)| Some((actions::shard_of(app)?, *n)))
    }

    /// Files that were taken out, newest state of knowledge: a checkpoint forgets those older than a day.
    #[cfg(test)]
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.state.removed.values()
    }

    /// When the file at `place` was taken out; `None` if it is live, never was, or that is long ago.
    pub(crate) fn removed_at(&self, place: &str) -> Option<Micros> {
        self.state.removed.get(place).map(|tombstone| tombstone.at)
    }
}

impl State {
    /// Applies the actions of `version`, which follows the state's own.
    fn apply(&mut self, table: &str, staged: bool, version: u64, actions: Vec<Action>) -> Result<(), ReadError> {
        let damaged = |reason: String| {
            ReadError::from(Damaged { path: layout::delta_commit(table, version).to_string(), reason })
        };
        for action in actions {
            match action {
                Action::Add(add) => {
                    let live = actions::live(table, staged, &add).map_err(damaged)?;
                    self.removed.remove(&live.file.path);
                    self.files.insert(live.file.path.clone(), live);
                }
                Action::Remove(remove) => {
                    let tombstone = actions::tombstone(table, staged, &remove);
                    self.files.remove(&tombstone.path);
                    self.removed.insert(tombstone.path.clone(), tombstone);
                    self.removal = Some(version);
                }
                Action::Txn(txn) => {
                    let n = u64::try_from(txn.version).map_err(|error| damaged(error.to_string()))?;
                    self.txns.insert(txn.app_id, n);
                }
                Action::Metadata(metadata) => {
                    let metadata = serde_json::to_value(metadata).map_err(|error| damaged(error.to_string()))?;
                    self.metadata = Some(metadata);
                }
                Action::Protocol(protocol) => {
                    actions::check_protocol(&protocol).map_err(damaged)?;
                }
                Action::Cdc(_) | Action::CommitInfo(_) | Action::DomainMetadata(_) => {}
            }
        }
        self.version = Some(version);
        Ok(())
    }
}

/// The Delta path of a place: below the table's folder, and on a local disk the held name.
pub(crate) fn delta_path(table: &str, staged: bool, place: &str) -> String {
    let named = match staged {
        true => layout::held(&Path::from(place)).map(|held| held.to_string()),
        false => None,
    };
    let path = named.as_deref().unwrap_or(place);
    path.strip_prefix(table).and_then(|path| path.strip_prefix('/')).unwrap_or(path).to_owned()
}

/// The place that a Delta path of `table` is of.
fn place_of(table: &str, staged: bool, path: &str) -> String {
    let path = format!("{table}/{path}");
    match staged {
        true => layout::place_of_held(&Path::from(path.as_str())).map_or(path, |place| place.to_string()),
        false => path,
    }
}
