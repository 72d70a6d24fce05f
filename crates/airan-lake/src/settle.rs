//! Names and bytes after the Delta log has changed: what no longer counts loses its name, then its bytes.
//!
//! On an **object store** a file has one name. When it leaves the Delta state, readers at work may still want it, so it is
//! deleted a day later ([`HELD_FOR`]).
//!
//! On a **local disk** a published file has two, both hard links to the same bytes:
//!
//! - its *place* `<table>/date=…/<name>.parquet`, which a glob over `*.parquet` meets. It is unlinked as soon as the file
//!   leaves the Delta state, so a glob is exact;
//! - its *held* name `<table>/_held/date=…/<name>`, which Delta and our readers use. It is unlinked a day later.
//!
//! A pass lists the names first, then reads the records, then loads the Delta log. A file that was listed and is neither in
//! a record nor in the log then no longer counts, and never will: a place is given after the record exists, a record goes
//! after its files are in the log, and nothing returns to a log it has left. Passes are idempotent, and any number may run.

use std::collections::{BTreeMap, HashMap, HashSet};

use airan_model::crash;
use airan_model::time::{DAY, Micros};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::delta::{Change, DeltaError, DeltaTable};
use crate::files::{Counted, Live, counted};
use crate::lake::Lake;
use crate::layout;
use crate::record::{ReadError, Run};
use crate::store::Store;

/// How long the bytes of a file stay after it was taken out, for readers that found it before. Also how old a file must be
/// that nothing names: its writer may be about to commit it.
pub(crate) const HELD_FOR: Micros = DAY;

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Places, or held names, given to files that count.
    pub(crate) given: u64,
    /// Places taken from files that do not.
    pub(crate) taken: u64,
    /// Files deleted that had been taken out.
    pub(crate) vacuumed: u64,
    /// Bytes of them.
    pub(crate) vacuumed_bytes: u64,
    /// Files deleted that nothing ever named.
    pub(crate) orphans: u64,
    /// Bytes of files that are taken out and still there.
    pub(crate) held_bytes: u64,
}

/// The objects of one table.
#[derive(Debug, Default)]
struct Names {
    /// At a place.
    placed: Vec<ObjectMeta>,
    /// At a held name.
    held: Vec<ObjectMeta>,
}

impl Names {
    async fn of(store: &Store, table: &str) -> Result<Names, ReadError> {
        let mut names = Names::default();
        for meta in store.list(&Path::from(table)).await? {
            if layout::place_of_held(&meta.location).is_some() {
                names.held.push(meta);
            } else if layout::is_place(&meta.location) && layout::is_ours(&meta.location) {
                names.placed.push(meta);
            }
        }
        Ok(names)
    }
}

impl Lake {
    /// Local disks: makes places be those of the files that count, in tables of which files were taken out since this process
    /// last did, or which it has never looked at.
    pub(crate) async fn settle(&self) -> Result<Settled, ReadError> {
        let mut settled = Settled::default();
        if !self.store().staged() {
            return Ok(settled);
        }
        let mut due = Vec::new();
        for table in self.tables().await? {
            let removal = DeltaTable::load(self, &table).await?.and_then(|delta| delta.last_removal());
            if self.settled_at(&table).is_none_or(|known| known < removal) {
                due.push((table, removal));
            }
        }
        if due.is_empty() {
            return Ok(settled);
        }
        let tables: Vec<String> = due.iter().map(|(table, _)| table.clone()).collect();
        let (names, counted) = self.names_then_counted(&tables).await?;
        self.settle_places(&names, &counted, &mut settled).await?;
        for (table, removal) in due {
            self.remember_settled(&table, removal);
        }
        Ok(settled)
    }

    /// `settle`, and deletes what was taken out a day ago, and what nothing names and nothing will.
    ///
    /// With `spare`, files that were taken out go at once, oldest first, until at most that many bytes of them are left:
    /// a full disk is worse than a reader that has to begin again.
    pub(crate) async fn vacuum(&self, now: Micros, spare: Option<u64>) -> Result<Settled, ReadError> {
        let mut settled = Settled::default();
        if self.store().staged() {
            // Before the names are listed: nobody gives a place to what is not in staging any more.
            self.clear_staging().await?;
        }
        self.clear_uploads(now).await?;
        let (names, counted) = self.names_then_counted(&self.tables().await?).await?;
        if self.store().staged() {
            self.settle_places(&names, &counted, &mut settled).await?;
        }
        let named = named_places(&counted);
        let numbers = settled_numbers(&counted.runs);
        let mut held: Vec<(Micros, &ObjectMeta)> = Vec::new();
        let mut unnamed: BTreeMap<String, Vec<(Path, &ObjectMeta)>> = BTreeMap::new();
        for (table, names) in &names {
            let delta = counted.deltas.get(table);
            let objects = if self.store().staged() { &names.held } else { &names.placed };
            for meta in objects {
                let place = layout::place_of_held(&meta.location).unwrap_or_else(|| meta.location.clone());
                if named.contains(place.as_ref()) {
                    continue;
                }
                match delta.and_then(|delta| delta.removed_at(place.as_ref())) {
                    Some(at) if now.saturating_sub(at) < HELD_FOR => held.push((at, meta)),
                    Some(_) => self.delete(meta, true, &mut settled).await?,
                    None if !is_forgotten(&place, meta, &numbers, now) => {}
                    None if is_rewritten(&place) => unnamed.entry(table.clone()).or_default().push((place, meta)),
                    None => self.delete(meta, false, &mut settled).await?,
                }
            }
        }
        for (table, files) in unnamed {
            self.delete_rewritten(&table, &files, now, &mut settled).await?;
        }
        held.sort_by_key(|(at, _)| *at);
        settled.held_bytes = held.iter().map(|(_, meta)| meta.size).sum();
        for (_, meta) in held {
            if spare.is_none_or(|spare| settled.held_bytes <= spare) {
                break;
            }
            tracing::warn!(path = %meta.location, "deleted before its day is over, for lake.max_bytes: a reader that has it must begin again");
            self.delete(meta, true, &mut settled).await?;
            settled.held_bytes -= meta.size;
        }
        self.metrics().orphans.inc_by(settled.orphans);
        Ok(settled)
    }

    /// Deletes files of rewritings that nothing names. Their writer may be frozen just before its Delta commit. So the table gets
    /// a version first: that commit is then beaten, and who loads the table afterwards is too late for its file by its own
    /// clock (`compact::GIVE_UP_AFTER`).
    async fn delete_rewritten(
        &self,
        table: &str,
        files: &[(Path, &ObjectMeta)],
        now: Micros,
        settled: &mut Settled,
    ) -> Result<(), ReadError> {
        if let Some(mut delta) = DeltaTable::load(self, table).await? {
            match delta.commit(Change { operation: "vacuum", ..Change::default() }, now).await {
                Ok(_) | Err(DeltaError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(table, %error, "files of a rewriting that was cut off stay until the next pass");
                    return Ok(());
                }
            }
        }
        let delta = DeltaTable::load(self, table).await?;
        for (place, meta) in files {
            if delta.as_ref().is_none_or(|delta| delta.file(place.as_ref()).is_none()) {
                self.delete(meta, false, settled).await?;
            }
        }
        Ok(())
    }

    /// In this order. Tables without a Delta log are left out: nothing of theirs was ever taken out, and where the log is lost, what it
    /// named must stay (`lost.rs`).
    async fn names_then_counted(&self, tables: &[String]) -> Result<(BTreeMap<String, Names>, Counted), ReadError> {
        let mut names = BTreeMap::new();
        for table in tables {
            let of = Names::of(self.store(), table).await?;
            names.insert(table.clone(), of);
        }
        let counted = counted(self, None).await?;
        names.retain(|table, _| counted.deltas.contains_key(table));
        Ok((names, counted))
    }

    async fn settle_places(
        &self,
        names: &BTreeMap<String, Names>,
        counted: &Counted,
        settled: &mut Settled,
    ) -> Result<(), ReadError> {
        let named = named_places(counted);
        let placed: HashSet<&str> =
            names.values().flat_map(|names| &names.placed).map(|meta| meta.location.as_ref()).collect();
        for path in placed.iter().filter(|path| !named.contains(**path)) {
            self.store().remove(&Path::from(*path)).await?;
            settled.taken += 1;
            crash::point("lake.settle.taken");
        }
        let held: HashSet<&str> =
            names.values().flat_map(|names| &names.held).map(|meta| meta.location.as_ref()).collect();
        let published = |live: &&Live| live.published && names.contains_key(&live.file.table);
        for live in counted.files.iter().filter(published) {
            let (place, stored) = (Path::from(live.file.path.as_str()), live.stored(self.store()));
            // Either name leads to the bytes, and makes up for the other.
            let (from, to) = match (placed.contains(place.as_ref()), held.contains(stored.as_ref())) {
                (true, true) => continue,
                (false, _) => (&stored, &place),
                (true, false) => (&place, &stored),
            };
            // What was published after the names were listed has both.
            if self.store().size(to).await?.is_none() && self.store().size(from).await?.is_some() {
                self.store().link(from, to).await?;
                settled.given += 1;
            }
        }
        Ok(())
    }

    async fn delete(&self, meta: &ObjectMeta, was_out: bool, settled: &mut Settled) -> Result<(), ReadError> {
        self.store().remove(&meta.location).await?;
        crash::point("lake.vacuum.deleted");
        if was_out {
            settled.vacuumed += 1;
            settled.vacuumed_bytes += meta.size;
        } else {
            tracing::debug!(path = %meta.location, "removed a file that nothing names");
            settled.orphans += 1;
        }
        Ok(())
    }
}

/// The places of all files that count, also of those whose record was published a moment ago.
fn named_places(counted: &Counted) -> HashSet<&str> {
    counted.files.iter().map(|live| live.file.path.as_str()).collect()
}

/// Of each partition, the newest record number that all topics have reached: a file's name has its partition and not its
/// topic.
fn settled_numbers(runs: &[Run]) -> HashMap<i32, u64> {
    let mut settled: HashMap<i32, u64> = HashMap::new();
    for run in runs {
        let newest = run.records.last().map_or(0, |record| record.n);
        let least = settled.entry(run.shard.partition).or_insert(newest);
        *least = newest.min(*least);
    }
    settled
}

/// Whether a file that nothing names is never going to be named: it is a day old, and where it is a commit's file its shard
/// has a record of its number or a later one. Record numbers are taken once (K2), so no commit at work, however long its
/// store was away, will name it. The log may have forgotten that it was taken out.
fn is_forgotten(place: &Path, meta: &ObjectMeta, numbers: &HashMap<i32, u64>, now: Micros) -> bool {
    let is_old = now.saturating_sub(meta.last_modified.timestamp_micros()) >= HELD_FOR;
    let is_settled = match (layout::partition_of(place), layout::commit_number(place)) {
        (Some(partition), Some(n)) => numbers.get(&partition).is_some_and(|newest| n <= *newest),
        _ => is_rewritten(place),
    };
    is_old && is_settled
}

fn is_rewritten(place: &Path) -> bool {
    place.filename().is_some_and(|name| name.starts_with(layout::REWRITTEN))
}
