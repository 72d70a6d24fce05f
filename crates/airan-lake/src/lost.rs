//! A Delta log that is gone, though files were published: by a hand that deleted it, or a store that lost it.
//!
//! From the table alone nobody can tell that from a table that never was published. What tells is a file that compaction or an erasure
//! made, for they take published files; and on a local disk a file whose record has been trimmed, for there a file gets its place
//! after its record, and trimming waits for the log. Not so in an object store: a writer that was fenced leaves files there, of a number
//! that another's record had. As long as the log is lost, nothing of the table may be deleted for being named by nothing, and no new
//! log may begin: the files would be lost with it.

use std::collections::{BTreeSet, HashMap};

use object_store::path::Path;

use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::{ReadError, Run};
use crate::seal::Damaged;
use crate::store::Store;

/// Of each partition, up to which number records have been trimmed, in the topic where most were.
#[derive(Debug)]
pub(crate) struct Trimmed {
    up_to: HashMap<i32, u64>,
    /// Whether a file that has its place has a record.
    is_staged: bool,
}

impl Trimmed {
    pub(crate) fn new(store: &Store) -> Trimmed {
        Trimmed { up_to: HashMap::new(), is_staged: store.staged() }
    }

    pub(crate) fn of(store: &Store, runs: &[Run]) -> Trimmed {
        let mut trimmed = Trimmed::new(store);
        runs.iter().for_each(|run| trimmed.add(&run.shard, run.listed.trimmed));
        trimmed
    }

    pub(crate) fn add(&mut self, shard: &Shard, n: u64) {
        let most = self.up_to.entry(shard.partition).or_default();
        *most = n.max(*most);
    }

    /// Whether only a Delta log can name the file at `place`.
    fn needs_log(&self, place: &Path) -> bool {
        let is_rewritten = place.filename().is_some_and(|name| name.starts_with(layout::REWRITTEN));
        let is_trimmed = || {
            let most = layout::partition_of(place).and_then(|partition| self.up_to.get(&partition));
            most.zip(layout::commit_number(place)).is_some_and(|(most, n)| n <= *most)
        };
        is_rewritten || (self.is_staged && is_trimmed())
    }

    /// The tables of `placed` that have no log, and a file that only a log can name.
    pub(crate) fn lost(&self, placed: &[Path], has_log: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let needs = placed.iter().filter(|place| layout::is_ours(place) && self.needs_log(place)).map(table_of);
        needs.filter(|table| !has_log(table)).map(str::to_owned).collect()
    }
}

/// The table in whose folder a file lies.
pub(crate) fn table_of(place: &Path) -> &str {
    place.as_ref().split('/').next().unwrap_or_default()
}

impl Lake {
    /// Refuses a table that has no Delta log and must have had one.
    pub(crate) async fn refuse_lost_log(&self, table: &str, trimmed: &Trimmed) -> Result<(), ReadError> {
        let listed = self.store().list(&Path::from(table)).await?;
        let placed: Vec<Path> = listed.into_iter().map(|meta| meta.location).filter(layout::is_place).collect();
        if trimmed.lost(&placed, |_| false).is_empty() {
            return Ok(());
        }
        let reason =
            "it is gone, and files of the table that only it can name are there: restore it from a copy of the lake";
        Err(Damaged { path: layout::delta_log(table).to_string(), reason: reason.to_owned() }.into())
    }
}
