//! Erasure: rows of which a condition is true leave the raw tables, and what windows were made of them leaves the window tables.
//!
//! ```text
//!  publish ─▶ find rows ─▶ note what goes (_erasures/<id>/) ─▶ rewrite their files without them, Delta commit ─┐
//!                 ▲──────────────────────── until none is found ───────────────────────────────────────────────┘
//!          ─▶ note the rows that follow
//!          ─▶ request a restatement, wait ─▶ note the newest revisions of the windows
//!          ─▶ request a restatement, wait ─▶ rows of older revisions go ─▶ forget the erasure
//! ```
//!
//! The first restatement is there for what was under way: windows that were open, and results that a shard had computed from
//! the rows and not committed yet. Were the revisions noted before it, such a result would look like one of afterwards.
//!
//! A run that was cut off anywhere is gone on with by the next one: what it had set out to do is written down before it is
//! done, and each step first looks what is left. The files taken out go with vacuum a day later, or at once.
//!
//! The rows are those that are committed when the erasure begins, and those that come while it runs. It does not reach rows on
//! their way: in spools, the log or Kafka, and the rejected topic. They go with the retention of those.

mod condition;
mod followers;
mod journal;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use airan_model::causes;
use airan_model::crash;
use airan_model::time::Micros;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::functions::expr_fn::date_trunc;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::SessionContext;

use self::condition::{Condition, ConditionError};
pub use self::followers::{Series, SeriesOf};
use self::journal::join;
pub use self::journal::{Affected, Erasure};
pub use self::windows::ErasedWindows;
use crate::commit::TableKind;
use crate::compact::{MOST_INPUTS, ReplaceError, Replaced, merge_rules};
use crate::delta::DeltaTable;
use crate::files::Live;
use crate::lake::Lake;
use crate::record::ReadError;
use crate::rewrite::{RewriteError, Rules};
use crate::schema::{self, TableSchema};
use crate::sql::{FILE, QueryError, by_file};

/// Times files of a table are looked through, because others change them or add rows, before that is left to another run.
const ROUNDS: u32 = 32;
/// The column by which windows are found.
const SITE: &str = "site";

/// Why rows were not erased, or not all.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Correct the condition or the names of tables.
    #[error("{0}")]
    Wrong(String),
    /// Mend the table's publishing first: rows that are not published cannot be taken out.
    #[error("table `{table}` is not published: {reason}")]
    Unpublished {
        /// The table.
        table: String,
        /// Why.
        reason: String,
    },
    /// Run the same again: others change the table all the time.
    #[error("others change table `{0}` faster than its rows can be erased")]
    Busy(String),
    /// As [`ReadError`] says; then run the same again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Run the same again when the reason is gone.
    #[error("table `{table}`: {reason}")]
    Failed {
        /// The table.
        table: String,
        /// Why.
        reason: String,
    },
}

/// What goes, or went, of one raw table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedTable {
    /// The table.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Files they were in.
    pub files: u64,
    /// Sites they were of.
    pub sites: BTreeSet<String>,
    /// Their oldest and newest time; absent where there was no row.
    pub span: Option<(Micros, Micros)>,
}

/// What an erasure of raw rows did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EraseReport {
    /// Tables with such rows.
    pub tables: Vec<ErasedTable>,
    /// Tables that were left alone, and the column they lack.
    pub skipped: Vec<(String, String)>,
}

/// Rows of which the condition is true.
#[derive(Debug, Default)]
struct Found {
    /// Rows by the number of their file.
    files: BTreeMap<usize, u64>,
    /// First and last time by site and hour.
    hours: BTreeMap<(String, Micros), (Micros, Micros)>,
    span: Option<(Micros, Micros)>,
}

/// One raw table that the condition can be asked of.
struct Target {
    table: String,
    schema: TableSchema,
    condition: Condition,
}

impl Lake {
    /// The unfinished erasure of this condition and these tables, or a new one. Nothing is written.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn begin_erasure(&self, condition: &str, tables: &[String], now: Micros) -> Result<Erasure, ReadError> {
        let known = self.erasures().await?;
        let same = known.into_iter().find(|known| known.condition == condition && known.tables == tables);
        Ok(same.unwrap_or_else(|| Erasure::begin(condition, tables, now)))
    }

    /// What [`Lake::erase`] would take out of the published files now. Changes nothing.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub async fn plan_erasure(&self, erasure: &Erasure) -> Result<EraseReport, EraseError> {
        let (targets, skipped) = self.targets(erasure).await?;
        let mut report = EraseReport { skipped, ..EraseReport::default() };
        for target in targets {
            let Some(delta) = DeltaTable::load(self, &target.table).await? else { continue };
            let files: Vec<Live> = delta.files().cloned().collect();
            let found = self.find(&target, &files).await?;
            if !found.files.is_empty() {
                let (rows, files) = (found.files.values().sum(), found.files.len() as u64);
                report.tables.push(told(&target.table, rows, files, &found));
            }
        }
        Ok(report)
    }

    /// Publishes, then takes the rows of which the condition of `erasure` is true out of the raw tables. `progress` is told
    /// what was done.
    ///
    /// Safe beside writers, publishers, compactions, retention and readers. Cancel-safe: run the same erasure again.
    ///
    /// # Errors
    /// See [`EraseError`]; what was taken out until then is out.
    pub async fn erase(
        &self,
        erasure: &mut Erasure,
        now: Micros,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<EraseReport, EraseError> {
        let (targets, skipped) = self.targets(erasure).await?;
        let published = self.publish(now).await?;
        for (table, reason) in published.failures {
            if targets.iter().any(|target| target.table == table) {
                return Err(EraseError::Unpublished { table, reason });
            }
        }
        let mut report = EraseReport { skipped, ..EraseReport::default() };
        for target in &targets {
            let erased = self.erase_table(target, erasure, &mut progress).await?;
            report.tables.extend((erased.rows > 0).then_some(erased));
        }
        self.settle().await?;
        crash::point("lake.erase.links");
        Ok(report)
    }

    /// Deletes the files that were taken out of any table at once, instead of a day after. Readers at work that have found
    /// them must begin again.
    ///
    /// # Errors
    /// If the store does not answer; do it again.
    pub async fn purge(&self, now: Micros) -> Result<u64, ReadError> {
        Ok(self.vacuum(now, Some(0)).await?.vacuumed)
    }

    async fn erase_table(
        &self,
        target: &Target,
        erasure: &mut Erasure,
        progress: &mut (impl FnMut(&str) + Send),
    ) -> Result<ErasedTable, EraseError> {
        let table = &target.table;
        let mut erased = ErasedTable { table: table.clone(), ..ErasedTable::default() };
        let keep = target.condition.keep().map_err(|error| failed(table, &error))?;
        for _ in 0..ROUNDS {
            let Some(delta) = DeltaTable::load(self, table).await? else { return Ok(erased) };
            let files: Vec<Live> = delta.files().cloned().collect();
            let found = self.find(target, &files).await?;
            if found.files.is_empty() {
                return Ok(erased);
            }
            erasure.note(self, table, &found.affected()).await?;
            crash::point("lake.erase.noted");
            let rows: u64 = found.files.values().sum();
            progress(&format!("{table}: {rows} rows in {} of {} files", found.files.len(), files.len()));
            let target_bytes = self.compaction().target_bytes.get();
            let rules =
                Rules { keep: Some(keep.clone()), newest_only: false, ..merge_rules(&target.schema, target_bytes) };
            let chosen = found.files.keys().filter_map(|at| files.get(*at)).collect();
            let done = self.replace_all(table, &target.schema, chosen, &rules).await?;
            let of_round = told(table, 0, 0, &found);
            erased.sites.extend(of_round.sites);
            erased.span = wider(erased.span, of_round.span);
            for replaced in done {
                erased.rows += replaced.rows_in - replaced.rows_out();
                erased.files += replaced.files.len() as u64;
            }
        }
        Err(EraseError::Busy(table.clone()))
    }

    /// Rewrites `files`, those of one date and topic together as far as a merge may be large. What others changed meanwhile is
    /// left for another look.
    async fn replace_all(
        &self,
        table: &str,
        schema: &TableSchema,
        mut files: Vec<&Live>,
        rules: &Rules,
    ) -> Result<Vec<Replaced>, EraseError> {
        files.sort_by(|a, b| (a.date, &a.topic, &a.file.path).cmp(&(b.date, &b.topic, &b.file.path)));
        let target = self.compaction().target_bytes.get();
        let mut groups: Vec<(u64, Vec<Live>)> = Vec::new();
        for live in files {
            let fits = |(bytes, group): &&mut (u64, Vec<Live>)| {
                group.iter().all(|other| (other.date, &other.topic) == (live.date, &live.topic))
                    && *bytes + live.file.bytes <= target
                    && group.len() < MOST_INPUTS
            };
            match groups.last_mut().filter(fits) {
                Some((bytes, group)) => {
                    *bytes += live.file.bytes;
                    group.push(live.clone());
                }
                None => groups.push((live.file.bytes, vec![live.clone()])),
            }
        }
        let mut done = Vec::new();
        for (_, group) in groups {
            match self.replace("erase", table, schema, &group, rules).await {
                Ok(replaced) => done.extend(replaced),
                Err(ReplaceError::Beaten) => {}
                Err(ReplaceError::Read(error)) => return Err(error.into()),
                Err(ReplaceError::Rewrite(RewriteError::Store(error))) => return Err(ReadError::from(error).into()),
                Err(error) => return Err(EraseError::Failed { table: table.to_owned(), reason: causes(&error) }),
            }
        }
        Ok(done)
    }

    /// The raw tables that are meant, and those that lack a column of the condition.
    async fn targets(&self, erasure: &Erasure) -> Result<(Vec<Target>, Vec<(String, String)>), EraseError> {
        let known = self.tables().await?;
        if let Some(unknown) = erasure.tables.iter().find(|table| !known.contains(table)) {
            return Err(EraseError::Wrong(format!("the lake has no table `{unknown}`")));
        }
        let (mut targets, mut skipped) = (Vec::new(), Vec::new());
        for table in known {
            let is_named = erasure.tables.contains(&table);
            if !is_named && !erasure.tables.is_empty() {
                continue;
            }
            let Some(schema) = schema::load(self.store(), &table).await? else { continue };
            if schema.kind != TableKind::Raw {
                if is_named {
                    let why = format!("`{table}` holds windows: erase the raw rows that they were made of");
                    return Err(EraseError::Wrong(why));
                }
                continue;
            }
            match Condition::of(&erasure.condition, &schema) {
                Ok(condition) => targets.push(Target { table, schema, condition }),
                Err(ConditionError::NoColumn(column)) => skipped.push((table, column)),
                Err(ConditionError::Wrong(reason)) => {
                    return Err(EraseError::Wrong(format!(
                        "the condition cannot be asked of table `{table}`: {reason}"
                    )));
                }
            }
        }
        if targets.is_empty() && skipped.is_empty() {
            return Err(EraseError::Wrong("the lake has no raw table yet".to_owned()));
        }
        if targets.is_empty() {
            let columns: BTreeSet<&str> = skipped.iter().map(|(_, column)| column.as_str()).collect();
            let columns = columns.into_iter().collect::<Vec<_>>().join("`, `");
            return Err(EraseError::Wrong(format!("no table has the columns of the condition (`{columns}`)")));
        }
        Ok((targets, skipped))
    }

    /// Rows of `files` of which the condition is true. Files, row groups and pages that cannot hold one are not read.
    async fn find(&self, target: &Target, files: &[Live]) -> Result<Found, EraseError> {
        let schema = &target.schema;
        let column = |name: &str| Expr::Column(datafusion::common::Column::from_name(name));
        let time = column(&schema.time_column);
        let site = match schema.columns.index_of(SITE) {
            Ok(_) => column(SITE),
            Err(_) => lit(ScalarValue::Utf8(None)),
        };
        let by = vec![column(FILE), site.alias("__site"), date_trunc(lit("hour"), time.clone()).alias("__hour")];
        let what = vec![count(lit(1)).alias("__rows"), min(time.clone()).alias("__from"), max(time).alias("__to")];
        let batches = self.ask(schema, &target.table, files, target.condition.expr.clone(), by, what).await?;
        let mut found = Found::default();
        for batch in &batches {
            found.add(batch).map_err(|error| failed(&target.table, &error.into()))?;
        }
        Ok(found)
    }

    /// Groups of the rows of `files` that `filter` lets through.
    async fn ask(
        &self,
        schema: &TableSchema,
        table: &str,
        files: &[Live],
        filter: Expr,
        by: Vec<Expr>,
        what: Vec<Expr>,
    ) -> Result<Vec<RecordBatch>, EraseError> {
        let context = SessionContext::new();
        let rows = by_file(self, &context, schema.clone(), files).map_err(|error| match error {
            QueryError::Read(error) => EraseError::Read(error),
            error => EraseError::Failed { table: table.to_owned(), reason: causes(&error) },
        })?;
        let asked = async { context.read_table(rows)?.filter(filter)?.aggregate(by, what)?.collect().await };
        asked.await.map_err(|error| failed(table, &error))
    }
}

impl Found {
    /// Rows of (file, site, hour, count, first, last).
    fn add(&mut self, batch: &RecordBatch) -> Result<(), arrow::error::ArrowError> {
        let micros =
            |at: usize| cast(batch.column(at), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        let files = cast(batch.column(0), &DataType::Int64)?;
        let sites = cast(batch.column(1), &DataType::Utf8)?;
        let (hours, first, last) = (micros(2)?, micros(4)?, micros(5)?);
        let rows = cast(batch.column(3), &DataType::Int64)?;
        let (files, rows) = (files.as_primitive::<Int64Type>(), rows.as_primitive::<Int64Type>());
        let sites = sites.as_string::<i32>();
        let [hours, first, last] = [&hours, &first, &last].map(|at| at.as_primitive::<TimestampMicrosecondType>());
        for at in 0..batch.num_rows() {
            let site = if sites.is_null(at) { "" } else { sites.value(at) };
            let of_group = Some((first.value(at), last.value(at)));
            let hour = self.hours.entry((site.to_owned(), hours.value(at))).or_insert((Micros::MAX, Micros::MIN));
            *hour = wider(Some(*hour), of_group).unwrap_or(*hour);
            self.span = wider(self.span, of_group);
            *self.files.entry(usize::try_from(files.value(at)).unwrap_or_default()).or_default() +=
                u64::try_from(rows.value(at)).unwrap_or_default();
        }
        Ok(())
    }

    /// Of each site the spans of time that hold such a row, at most one an hour.
    fn affected(&self) -> Affected {
        let mut affected = Affected::new();
        for ((site, _), (first, last)) in &self.hours {
            let span = Affected::from([(site.clone(), vec![(*first, last.saturating_add(1))])]);
            join(&mut affected, &span);
        }
        affected
    }
}

fn told(table: &str, rows: u64, files: u64, found: &Found) -> ErasedTable {
    ErasedTable {
        table: table.to_owned(),
        rows,
        files,
        sites: found.hours.keys().map(|(site, _)| site.clone()).collect(),
        span: found.span,
    }
}

fn wider(a: Option<(Micros, Micros)>, b: Option<(Micros, Micros)>) -> Option<(Micros, Micros)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

fn failed(table: &str, error: &DataFusionError) -> EraseError {
    let reason = error.strip_backtrace().lines().next().unwrap_or_default().to_owned();
    EraseError::Failed { table: table.to_owned(), reason }
}
