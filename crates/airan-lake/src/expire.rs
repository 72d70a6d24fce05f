//! Retention: what is too old, or too much, is taken out of the Delta logs.
//!
//! A pass publishes first, because only published files can be taken out. Then it chooses files, removes those of each
//! table with one Delta commit (`dataChange`), and vacuums. From the commit on no reader that looks anew counts the files;
//! readers at work may hold them for a day (`settle.rs`).

use std::collections::{BTreeMap, HashMap, HashSet};

use airan_model::causes;
use airan_model::crash;
use airan_model::time::Micros;

use crate::commit::TableKind;
use crate::delta::{Change, DeltaError, DeltaTable};
use crate::files::{Live, counted};
use crate::lake::Lake;
use crate::layout::Shard;
use crate::record::{self, ReadError};
use crate::schema;

/// Times a pass gives way to faster commits of others on one table before it leaves the table to the next pass.
const TRIES: u32 = 16;

/// What one pass of retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpireReport {
    /// Files taken out.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of the files that stay.
    pub kept_bytes: u64,
    /// Bytes above the bound that could not go, because open windows need them or because they could not be published.
    pub over_bytes: u64,
    /// Bytes of files that are out and are kept a day for readers at work.
    pub held_bytes: u64,
    /// Files deleted whose day was over.
    pub vacuumed: u64,
    /// Commit records trimmed.
    pub records: u64,
    /// Files of dead writers removed, of which nothing ever knew.
    pub orphans: u64,
    /// Tables of which nothing could be taken out, or that could not be published, with the reason.
    pub failures: Vec<(String, String)>,
}

/// What is to go, and what is known of the rest.
#[derive(Debug, Default)]
struct Choice {
    /// Places by table.
    out: BTreeMap<String, HashSet<String>>,
    kept_bytes: u64,
    over_bytes: u64,
}

impl Lake {
    /// From which time on raw rows may be needed to rebuild open windows of any of the `partitions` shards of a topic, as their
    /// last commits say; `Micros::MAX` if none are. What they say only grows, so an old word is on the safe side.
    ///
    /// The inner error says in words why that is not known: then nothing may go.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub async fn needed_from(&self, topic: &str, partitions: i32) -> Result<Result<Micros, String>, ReadError> {
        let mut least = Micros::MAX;
        for partition in 0..partitions {
            let shard = Shard { topic: topic.to_owned(), partition };
            let newest = record::newest(self.store(), &shard).await?;
            match newest.map(|record| record.needed_from) {
                None | Some(None) => return Ok(Err(format!("shard {shard} has not committed yet"))),
                Some(Some(from)) => least = least.min(from),
            }
        }
        Ok(Ok(least))
    }

    /// Takes out what is older than the retention of its kind of table (by the newest time in the file), and then, while
    /// the lake is above its bound, the oldest dates, raw tables first.
    ///
    /// `needed_from`: start of the oldest open window of any shard. No raw file with a row at or after it goes.
    ///
    /// The bound is on what lies there: on a local disk, files that are out and held for readers count, and go first.
    ///
    /// # Errors
    /// If the store does not answer; nothing is half-done, the next pass goes on.
    pub async fn expire(&self, now: Micros, needed_from: Option<Micros>) -> Result<ExpireReport, ReadError> {
        let published = self.publish(now).await?;
        let before = counted(self, None).await?;
        let kinds = self.kinds(&before.files).await?;
        let choice = self.choose(before.files, &kinds, now, needed_from);
        let mut report = ExpireReport {
            kept_bytes: choice.kept_bytes,
            over_bytes: choice.over_bytes,
            records: published.records,
            failures: published.failures,
            ..ExpireReport::default()
        };
        for (table, out) in choice.out {
            let is_raw = kinds.get(&table).is_none_or(|kind| *kind == TableKind::Raw);
            if let Err(error) = self.take_out(&table, is_raw, &out, now, &mut report).await {
                let reason = causes(&error);
                tracing::warn!(table, reason, "nothing taken out: trying again with the next pass");
                report.failures.push((table, reason));
            }
        }
        crash::point("lake.expire.delta");
        let spare = match (self.store().staged(), self.settings().max_bytes) {
            (true, Some(bound)) => Some(bound.get().saturating_sub(report.kept_bytes)),
            _ => None,
        };
        let settled = self.vacuum(now, spare).await?;
        report.held_bytes = settled.held_bytes;
        report.vacuumed = settled.vacuumed;
        report.orphans = settled.orphans;
        self.metrics().expired_files.inc_by(report.files);
        self.metrics().expired_bytes.inc_by(report.bytes);
        Ok(report)
    }

    async fn kinds(&self, live: &[Live]) -> Result<HashMap<String, TableKind>, ReadError> {
        let mut kinds = HashMap::new();
        for file in live {
            if !kinds.contains_key(&file.file.table) {
                let schema = schema::load(self.store(), &file.file.table).await?;
                kinds.insert(file.file.table.clone(), schema.map_or(TableKind::Raw, |schema| schema.kind));
            }
        }
        Ok(kinds)
    }

    /// The files to go.
    fn choose(
        &self,
        mut live: Vec<Live>,
        kinds: &HashMap<String, TableKind>,
        now: Micros,
        needed_from: Option<Micros>,
    ) -> Choice {
        let settings = self.settings();
        let is_raw = |live: &Live| kinds.get(&live.file.table).is_none_or(|kind| *kind == TableKind::Raw);
        let is_needed = |live: &Live| is_raw(live) && needed_from.is_some_and(|from| live.file.max_ts >= from);
        let is_old = |live: &Live| {
            let retention = if is_raw(live) { settings.raw_retention } else { settings.window_retention };
            live.file.max_ts < now.saturating_sub(retention.micros())
        };
        let can_go = |live: &Live| live.published && !is_needed(live);
        live.sort_by_key(|live| (live.date, !is_raw(live), live.at, live.origin));
        let (out, kept): (Vec<Live>, Vec<Live>) = live.into_iter().partition(|live| can_go(live) && is_old(live));
        let bound = settings.max_bytes.map_or(u64::MAX, |bytes| bytes.get());
        let mut choice = Choice { kept_bytes: kept.iter().map(|live| live.file.bytes).sum(), ..Choice::default() };
        // Where needed raw rows alone are over the bound, no window is given up for a bound that cannot be kept.
        let needed: u64 = kept.iter().filter(|live| is_raw(live) && !can_go(live)).map(|live| live.file.bytes).sum();
        let mut go = |live: &Live| {
            choice.out.entry(live.file.table.clone()).or_default().insert(live.file.path.clone());
        };
        out.iter().for_each(&mut go);
        let mut left = choice.kept_bytes;
        for live in &kept {
            if left <= bound {
                break;
            }
            if can_go(live) && (is_raw(live) || needed <= bound) {
                go(live);
                left -= live.file.bytes;
            }
        }
        choice.kept_bytes = left;
        choice.over_bytes = left.saturating_sub(bound);
        choice
    }

    /// Removes the files from the table's log, however often others are faster.
    async fn take_out(
        &self,
        table: &str,
        is_raw: bool,
        out: &HashSet<String>,
        now: Micros,
        report: &mut ExpireReport,
    ) -> Result<(), DeltaError> {
        for _ in 0..TRIES {
            let Some(mut delta) = DeltaTable::load(self, table).await? else { return Ok(()) };
            // What a compaction has rewritten meanwhile is under another name, and goes with the next pass.
            let gone: Vec<Live> = delta.files().filter(|live| out.contains(&live.file.path)).cloned().collect();
            if gone.is_empty() {
                return Ok(());
            }
            let remove = gone.iter().map(|live| live.file.path.clone()).collect();
            let change = Change { operation: "expire", remove, ..Change::default() };
            if is_raw {
                // First, so that nobody computes a window from what is left of it.
                let newest = gone.iter().map(|live| live.file.max_ts).max().unwrap_or(Micros::MIN);
                self.raise_raw_from(newest.saturating_add(1)).await?;
            }
            match delta.commit(change, now).await {
                Ok(_) => {
                    self.remember_delta(&delta);
                    report.files += gone.len() as u64;
                    report.rows += gone.iter().map(|live| live.file.rows).sum::<u64>();
                    report.bytes += gone.iter().map(|live| live.file.bytes).sum::<u64>();
                    return Ok(());
                }
                Err(DeltaError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "expire_tests.rs"]
mod tests;
