//! Compaction: many small published files become few large ones.
//!
//! ```text
//!  Delta state ──plan──▶ merges ──▶ rewrite (new files, create-only) ──▶ Delta commit: remove …, add … ──▶ names settled
//! ```
//!
//! Only the Delta commit decides (S1). Before it the new files are such that nothing names, and are cleared up after a day;
//! after it readers that look anew find the new files, and readers at work have the old ones for a day. The commit takes the
//! next version of the table or nothing. Whoever is beaten to it loads the table again: while all inputs still count it tries
//! again, otherwise somebody else (retention, an erasure, another compaction) has taken one, and the new files are given up.
//!
//! A merge that took too long gives up as well ([`GIVE_UP_AFTER`]): after a day vacuum deletes files that nothing names,
//! and a process that was frozen in between must not name one then.

mod overlap;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use airan_model::causes;
use airan_model::crash;
use airan_model::time::{HOUR, Micros};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use object_store::path::Path;

pub(crate) use self::plan::MOST_INPUTS;
pub use self::plan::PlannedMerge;
use self::plan::{PlanRules, plan};
use crate::commit::TableKind;
use crate::delta::{Change, DeltaError, DeltaTable};
use crate::encode::ROW_GROUP_ROWS;
use crate::files::{Live, read_live, sum_live};
use crate::lake::Lake;
use crate::layout;
use crate::record::{ReadError, RecordFile};
use crate::rewrite::{RewriteError, Rewritten, Rules, Source, Stored, alike, rewrite};
use crate::schema::{self, TableSchema};
use crate::seal::{Checksum, Damaged};

/// From the beginning of a merge to its commit. Vacuum waits a day before it deletes a file that nothing names; half of that
/// allows for clocks that differ, and no merge of a few GiB takes as long.
pub(crate) const GIVE_UP_AFTER: Micros = 12 * HOUR;
/// Times a merge gives way to faster commits of others before it is left to the next pass.
const TRIES: u32 = 16;
/// Merges of one table in one pass beyond which the rest waits: every round of merging makes files fewer, so only a lake that
/// was never compacted comes near.
const ROUNDS: usize = 16;
/// What merging may account for beside the bytes of its inputs: sort keys and one batch of each.
pub(crate) const MERGE_MEMORY: usize = 512 << 20;
/// Bytes of inputs that a merge holds in memory: many small files are read once and whole. Others are read piece by piece.
/// (In this crate's tests next to nothing, so that their files are read in both ways.)
const HELD_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 64 << 20 };

/// What one pass of compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Merges done.
    pub merges: u64,
    /// Files made.
    pub files_out: u64,
    /// Files that are in them.
    pub files_in: u64,
    /// Bytes of those.
    pub bytes_in: u64,
    /// Bytes of the files made.
    pub bytes_out: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written: less than were read where older revisions of windows went.
    pub rows_out: u64,
    /// Merges given up because a file of theirs was taken out meanwhile.
    pub gave_way: u64,
    /// Tables in which something failed, with the reason. What was done stands, and the next pass tries again.
    pub failures: Vec<(String, String)>,
}

/// Why a set of files was not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceError {
    /// Plan anew: a file has been taken out meanwhile, or this took too long.
    #[error("files of the table have changed meanwhile")]
    Beaten,
    /// As [`ReadError`] says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As [`RewriteError`] says.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// As [`DeltaError`] says.
    #[error(transparent)]
    Delta(#[from] DeltaError),
}

/// What replacing did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replaced {
    /// Places of the files taken out.
    pub(crate) files: Vec<String>,
    pub(crate) rows_in: u64,
    pub(crate) bytes_in: u64,
    /// In the order of their rows; none where no row was left.
    pub(crate) made: Vec<Rewritten>,
}

impl Replaced {
    /// Rows of the files made.
    pub(crate) fn rows_out(&self) -> u64 {
        self.made.iter().map(|made| made.rows).sum()
    }

    /// Bytes of the files made.
    fn bytes_out(&self) -> u64 {
        self.made.iter().map(|made| made.bytes).sum()
    }
}

impl Lake {
    /// The merges that are due now, of one table or of all. Of files that are published.
    ///
    /// # Errors
    /// If the Delta logs cannot be read.
    pub async fn plan_compaction(&self, only: Option<&str>, now: Micros) -> Result<Vec<PlannedMerge>, ReadError> {
        let mut merges = Vec::new();
        for table in self.tables().await? {
            if only.is_none_or(|only| only == table)
                && let Some(delta) = DeltaTable::load(self, &table).await?
            {
                merges.extend(plan(delta.files(), &self.plan_rules(now)));
            }
        }
        Ok(merges)
    }

    /// Publishes, then merges what is due, of one table or of all, one merge after the other; `told` is called before each.
    ///
    /// Safe beside writers, readers, publishers, retention, erasure and other compactions. Cancel-safe: what was done stands.
    /// Takes one core, and memory as the top of `rewrite/mod.rs` says.
    ///
    /// # Errors
    /// If records or Delta logs cannot be read. What fails in one table is in the report and holds up no other.
    pub async fn compact(
        &self,
        only: Option<&str>,
        now: Micros,
        mut told: impl FnMut(&PlannedMerge) + Send,
    ) -> Result<CompactReport, ReadError> {
        self.publish(now).await?;
        let mut report = CompactReport::default();
        for table in self.tables().await? {
            if only.is_some_and(|only| only != table) {
                continue;
            }
            if let Err(error) = self.compact_table(&table, now, &mut told, &mut report).await {
                self.metrics().compact_failures.inc();
                let reason = causes(&error);
                tracing::warn!(table, reason, "not compacted: trying again with the next pass");
                report.failures.push((table, reason));
            }
        }
        if report.merges > 0 {
            self.settle().await?;
            crash::point("lake.compact.links");
        }
        Ok(report)
    }

    async fn compact_table(
        &self,
        table: &str,
        now: Micros,
        told: &mut (impl FnMut(&PlannedMerge) + Send),
        report: &mut CompactReport,
    ) -> Result<(), ReplaceError> {
        for _ in 0..ROUNDS {
            let Some(delta) = DeltaTable::load(self, table).await? else { return Ok(()) };
            let merges = plan(delta.files(), &self.plan_rules(now));
            let Some(schema) = schema::load(self.store(), table).await? else { return Ok(()) };
            if merges.is_empty() {
                return Ok(());
            }
            let rules = merge_rules(&schema, self.settings().compaction.target_bytes.get());
            for merge in merges {
                told(&merge);
                let inputs: Vec<Live> = merge.files.iter().filter_map(|path| delta.file(path).cloned()).collect();
                let start = Instant::now();
                match self.replace("compact", table, &schema, &inputs, &rules).await {
                    Ok(sets) => {
                        let seconds = start.elapsed().as_secs_f64();
                        sets.iter().for_each(|replaced| self.note_merged(replaced, seconds, report));
                        if sets.is_empty() {
                            // Their rows are not sorted alike, two by two: they stay as they are.
                            return Ok(());
                        }
                    }
                    Err(ReplaceError::Beaten) => report.gave_way += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn note_merged(&self, replaced: &Replaced, seconds: f64, report: &mut CompactReport) {
        let files = replaced.files.len() as u64;
        report.merges += 1;
        report.files_in += files;
        report.bytes_in += replaced.bytes_in;
        report.rows_in += replaced.rows_in;
        report.files_out += replaced.made.len() as u64;
        report.bytes_out += replaced.bytes_out();
        report.rows_out += replaced.rows_out();
        let metrics = self.metrics();
        metrics.compactions.inc();
        metrics.compacted_files.inc_by(files);
        metrics.compacted_bytes.inc_by(replaced.bytes_in);
        metrics.compacted_bytes_out.inc_by(replaced.bytes_out());
        metrics.compact_seconds.observe(seconds);
    }

    fn plan_rules(&self, now: Micros) -> PlanRules {
        let settings = &self.settings().compaction;
        PlanRules { now, target_bytes: settings.target_bytes.get(), min_files: settings.min_files }
    }

    /// Replaces `inputs`, published files of one date and topic of `table`, by files with the rows that `rules` keep: each set
    /// that is sorted alike by one sorted run. A set of one file of which every row would stay is left alone.
    pub(crate) async fn replace(
        &self,
        operation: &'static str,
        table: &str,
        schema: &TableSchema,
        inputs: &[Live],
        rules: &Rules,
    ) -> Result<Vec<Replaced>, ReplaceError> {
        let is_erasure = operation == "erase";
        let begun = self.clock().now();
        let mut sources = Vec::with_capacity(inputs.len());
        let mut held = 0u64;
        for live in inputs {
            let is_held = held.saturating_add(live.file.bytes) <= HELD_BYTES;
            held += if is_held { live.file.bytes } else { 0 };
            sources.push(self.source(live, is_held).await?);
        }
        let mut done = Vec::new();
        for set in alike(sources) {
            if set.len() == 1 && rules.keep.is_none() {
                continue;
            }
            let of_set: Vec<&Live> =
                inputs.iter().filter(|live| set.iter().any(|source| source.path == live.file.path)).collect();
            let Some(first) = of_set.first() else { continue };
            let staged = self.store().staged();
            let name = || {
                let place = rewritten_place(table, first.date);
                if staged { layout::held(&place).unwrap_or(place) } else { place }
            };
            let made = rewrite(self.store(), &name, (table, schema), &set, rules).await?;
            drop(set);
            match is_erasure {
                true => crash::point("lake.erase.written"),
                false => crash::point("lake.compact.written"),
            }
            let replaced = Replaced {
                files: of_set.iter().map(|live| live.file.path.clone()).collect(),
                rows_in: of_set.iter().map(|live| live.file.rows).sum(),
                bytes_in: of_set.iter().map(|live| live.file.bytes).sum(),
                made,
            };
            let now = self.clock().now();
            let add = replaced.made.iter().map(|made| as_live(table, first, now, made)).collect();
            self.swap(&Swap { operation, table, replaced: &replaced, add, begun }).await?;
            match is_erasure {
                true => crash::point("lake.erase.delta"),
                false => crash::point("lake.compact.delta"),
            }
            done.push(replaced);
        }
        Ok(done)
    }

    /// One input, whose bytes are those that count; they are kept in memory if `is_held`.
    async fn source(&self, live: &Live, is_held: bool) -> Result<Source, ReplaceError> {
        let path = live.stored(self.store());
        let gone = |error| match error {
            ReadError::Gone { .. } => ReplaceError::Beaten,
            error => error.into(),
        };
        let damaged = |reason: String| ReadError::from(Damaged { path: path.to_string(), reason });
        let differs = || damaged("its checksum is not what the Delta log says".to_owned());
        if !is_held {
            let (path, bytes, checksum) = sum_live(self, &path, live).await.map_err(gone)?;
            if checksum != live.file.checksum {
                return Err(differs().into());
            }
            let stored = Stored { store: self.store().clone(), path, bytes };
            let opened = Source::open_stored(&live.file.path, stored).await;
            if let Some(source) = opened.map_err(|error| damaged(error.to_string()))? {
                return Ok(source);
            }
        }
        let bytes = read_live(self, &path, live).await.map_err(gone)?;
        if Checksum::of(&bytes) != live.file.checksum {
            return Err(differs().into());
        }
        Ok(Source::open(&live.file.path, bytes).map_err(|error| damaged(error.to_string()))?)
    }

    /// The Delta commit, while every input still counts.
    async fn swap(&self, swap: &Swap<'_>) -> Result<(), ReplaceError> {
        let Swap { operation, table, replaced, add, begun } = swap;
        let rearranges = !add.is_empty() && replaced.rows_out() == replaced.rows_in;
        // Where an attempt's outcome is unknown it may still come true, and then names the files.
        let mut is_unknown = false;
        for _ in 0..TRIES {
            let Some(mut delta) = DeltaTable::load(self, table).await? else { return Err(ReplaceError::Beaten) };
            if add.iter().any(|add| delta.file(&add.file.path).is_some()) {
                return Ok(());
            }
            let count = replaced.files.iter().filter(|place| delta.file(place).is_some()).count();
            if add.is_empty() && count == 0 {
                // Nothing was to come in their place: who took them out makes no difference.
                return Ok(());
            }
            let is_late = self.clock().now().saturating_sub(*begun) > GIVE_UP_AFTER;
            if count < replaced.files.len() || is_late {
                for made in replaced.made.iter().filter(|_| !is_unknown) {
                    self.store().remove(&made.path).await.map_err(ReadError::from)?;
                }
                return Err(ReplaceError::Beaten);
            }
            let change =
                Change { operation, add: add.clone(), remove: replaced.files.clone(), rearranges, ..Change::default() };
            // The old files' day begins with this.
            match delta.commit(change, self.clock().now()).await {
                Ok(version) => {
                    tracing::debug!(table, version, files = replaced.files.len(), operation, "files replaced");
                    self.remember_delta(&delta);
                    return Ok(());
                }
                Err(DeltaError::Conflict { .. }) => {}
                Err(DeltaError::Store(error)) if !is_unknown => {
                    tracing::debug!(table, %error, "outcome unknown: looking");
                    is_unknown = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReplaceError::Beaten)
    }
}

/// New files that are to take the place of others.
struct Swap<'a> {
    operation: &'static str,
    table: &'a str,
    replaced: &'a Replaced,
    /// The files made; none where no row was left.
    add: Vec<Live>,
    begun: Micros,
}

/// How compaction rewrites a table.
pub(crate) fn merge_rules(schema: &TableSchema, target_bytes: u64) -> Rules {
    Rules {
        keep: None,
        newest_only: matches!(schema.kind, TableKind::Windows { .. }),
        group_rows: ROW_GROUP_ROWS,
        file_bytes: target_bytes,
        pool: Arc::new(GreedyMemoryPool::new(MERGE_MEMORY)),
    }
}

/// A name that nobody else can think of.
fn rewritten_place(table: &str, date: i32) -> Path {
    let name = format!("{}{:032x}.parquet", layout::REWRITTEN, rand::random::<u128>());
    Path::from_iter([table.to_owned(), format!("date={}", layout::date_text(date)), name])
}

fn as_live(table: &str, like: &Live, at: Micros, made: &Rewritten) -> Live {
    let place = layout::place_of_held(&made.path).unwrap_or_else(|| made.path.clone());
    Live {
        topic: like.topic.clone(),
        origin: None,
        at,
        date: like.date,
        published: true,
        span: made.span.clone(),
        file: RecordFile {
            table: table.to_owned(),
            path: place.to_string(),
            rows: made.rows,
            bytes: made.bytes,
            min_ts: made.min_ts,
            max_ts: made.max_ts,
            checksum: made.checksum.clone(),
        },
    }
}
