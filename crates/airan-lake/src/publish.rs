//! Publishing: folding commit records into the Delta logs of their tables.
//!
//! A pass reads the records that are not trimmed, and per table makes one Delta commit of all files above the table's
//! `txn`, with the new `txn` of each shard in it. Then the records may be trimmed (`trim.rs`).
//!
//! Any number of publishers may be at work, in any state of mind: a commit takes the next version or nothing, and before
//! each attempt the table is loaded and what its `txn` holds is left out. So a file is added once, whoever does it (S1).

use std::collections::BTreeMap;

use airan_model::causes;
use airan_model::crash;
use airan_model::time::Micros;
use object_store::path::Path;

use crate::delta::{Change, DeltaError, DeltaTable};
use crate::files::{Live, Places, is_above, load_all, named};
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::lost::Trimmed;
use crate::place::give_place;
use crate::record::{self, ReadError, Run};
use crate::seal::Damaged;

/// Times a pass gives way to faster commits of others on one table before it leaves the table to the next pass.
const TRIES: u32 = 16;
/// Files in one Delta commit, beyond which the next records wait for another: a line of some 600 bytes each, read back by
/// every reader until the next checkpoint.
const FILES_AT_ONCE: usize = 10_000;

/// What one pass of publishing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishReport {
    /// Delta commits made.
    pub commits: u64,
    /// Files published.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Commit records trimmed.
    pub records: u64,
    /// Tables that could not be published, with the reason. Their records stay, and the next pass tries again.
    pub failures: Vec<(String, String)>,
}

impl Lake {
    /// Publishes every record to Delta, and trims those that nobody needs any more.
    ///
    /// Safe beside writers, readers, and other publishers, compactions and erasures. Cancel-safe: what was done stands, and
    /// the next pass goes on.
    ///
    /// # Errors
    /// If the records cannot be read. A table that fails is in the report and holds up no other.
    pub async fn publish(&self, now: Micros) -> Result<PublishReport, ReadError> {
        let runs = record::runs(self.store()).await?;
        let trimmed = Trimmed::of(self.store(), &runs);
        let mut report = PublishReport::default();
        for (table, files) in by_table(&runs) {
            if let Err(error) = self.publish_table(&table, files, &trimmed, now, &mut report).await {
                self.metrics().publish_failures.inc();
                let reason = causes(&error);
                tracing::warn!(table, reason, "not published: trying again with the next pass");
                report.failures.push((table, reason));
            }
        }
        report.records = self.trim(&runs, now).await?;
        self.settle().await?;
        self.note_published(&runs, now).await?;
        Ok(report)
    }

    async fn publish_table(
        &self,
        table: &str,
        mut files: Vec<Live>,
        trimmed: &Trimmed,
        now: Micros,
        report: &mut PublishReport,
    ) -> Result<(), DeltaError> {
        for _ in 0..TRIES {
            let mut delta = DeltaTable::load_or_new(self, table).await?;
            files.retain(|live| match (live.shard(), live.origin) {
                (Some(shard), Some(origin)) => delta.txn(&shard).is_none_or(|txn| origin.n > txn),
                _ => false,
            });
            if files.is_empty() {
                return Ok(());
            }
            if delta.version().is_none() {
                self.refuse_lost_log(table, trimmed).await?;
            }
            let part = whole_records(&files);
            self.hold(&part).await?;
            crash::point("lake.publish.held");
            let change = Change { operation: "publish", txns: newest(&part), add: part, ..Change::default() };
            let (count, rows) = (change.add.len() as u64, change.add.iter().map(|live| live.file.rows).sum::<u64>());
            match delta.commit(change, now).await {
                Ok(version) => {
                    crash::point("lake.publish.delta");
                    tracing::debug!(table, version, files = count, "published");
                    self.metrics().published_files.inc_by(count);
                    report.commits += 1;
                    report.files += count;
                    report.rows += rows;
                    if let Err(reason) = delta.tidy(now).await {
                        tracing::warn!(table, reason, "no checkpoint: readers read more commits until there is one");
                    }
                    self.remember_delta(&delta);
                }
                Err(DeltaError::Conflict { version, .. }) => {
                    tracing::debug!(table, version, "another was faster: looking again");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Local disks: every file has its place and its held name before Delta names it.
    async fn hold(&self, files: &[Live]) -> Result<(), DeltaError> {
        let store = self.store();
        if !store.staged() {
            return Ok(());
        }
        let places = Places::find(store).await?;
        for live in files {
            let place = Path::from(live.file.path.as_str());
            let Some(held) = layout::held(&place) else { continue };
            if let Some(waits) = places.waiting(&live.file.path) {
                // Its writer may have given it its place, and taken it out of staging, since we looked.
                let _ = give_place(store, waits, &place).await;
            }
            let linked = store.link(&place, &held).await;
            if let Err(error) = linked
                && store.size(&held).await?.is_none()
            {
                return Err(match store.size(&place).await? {
                    Some(_) => error.into(),
                    None => DeltaError::Read(missing(live)),
                });
            }
        }
        Ok(())
    }

    /// Gauges: what there is, and how far publishing is behind.
    async fn note_published(&self, runs: &[Run], now: Micros) -> Result<(), ReadError> {
        let tables = self.tables().await?;
        let deltas = load_all(self, &tables).await?;
        let waiting: Vec<Live> =
            runs.iter().flat_map(|run| &run.records).flat_map(named).filter(|live| is_above(&deltas, live)).collect();
        let oldest = waiting.iter().map(|live| live.at).min();
        let metrics = self.metrics();
        metrics.publish_lag_seconds.set(oldest.map_or(0, |oldest| now.saturating_sub(oldest) / 1_000_000));
        for table in &tables {
            let published = deltas.get(table).into_iter().flat_map(DeltaTable::files);
            let files = published.chain(waiting.iter().filter(|live| live.file.table == *table));
            let (count, bytes) = files.fold((0, 0), |(count, bytes), live| (count + 1, bytes + live.file.bytes));
            let version = deltas.get(table).and_then(DeltaTable::version);
            let gauges = [
                (&metrics.table_files, Some(count)),
                (&metrics.table_bytes, Some(bytes)),
                (&metrics.delta_version, version),
            ];
            for (gauge, value) in gauges {
                if let Some(value) = value {
                    gauge.with_label_values(&[table]).set(i64::try_from(value).unwrap_or(i64::MAX));
                }
            }
        }
        Ok(())
    }
}

fn missing(live: &Live) -> ReadError {
    Damaged { path: live.file.path.clone(), reason: "a record names it and it is not there".to_owned() }.into()
}

/// The files of records by table, of each shard oldest first.
fn by_table(runs: &[Run]) -> BTreeMap<String, Vec<Live>> {
    let mut tables: BTreeMap<String, Vec<Live>> = BTreeMap::new();
    for live in runs.iter().flat_map(|run| &run.records).flat_map(named) {
        tables.entry(live.file.table.clone()).or_default().push(live);
    }
    tables
}

/// The first files, of whole records only.
fn whole_records(files: &[Live]) -> Vec<Live> {
    let mut part: Vec<Live> = Vec::new();
    for record in files.chunk_by(|a, b| (&a.topic, a.origin) == (&b.topic, b.origin)) {
        if !part.is_empty() && part.len() + record.len() > FILES_AT_ONCE {
            break;
        }
        part.extend_from_slice(record);
    }
    part
}

/// The last record of each shard among `files`.
fn newest(files: &[Live]) -> Vec<(Shard, u64)> {
    let mut newest: BTreeMap<Shard, u64> = BTreeMap::new();
    for (shard, origin) in files.iter().filter_map(|live| Some((live.shard()?, live.origin?))) {
        let n = newest.entry(shard).or_default();
        *n = origin.n.max(*n);
    }
    newest.into_iter().collect()
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
