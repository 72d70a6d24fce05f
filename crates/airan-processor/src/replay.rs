//! A shard without a bus, a lake and a clock: messages in, closed windows out.
//!
//! It is the same code that runs in a processor, driven from a list. Commits and restarts happen where the caller says, and
//! may change nothing (**W3**): that is what golden and property tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use airan_bus::Received;
use airan_lake::{Request, TableKind};
use airan_model::catalog::Catalog;
use airan_model::time::Micros;
use arrow::array::{AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::commit::Begun;
use crate::restate::history::History;
use crate::settings::Settings;
use crate::setup::{Pipeline, Setup};
use crate::shard::Shard;
use crate::sheet::StateError;

/// Where a replay is interrupted, by number of messages applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Waiting rows go into their windows.
    pub batches: BTreeSet<usize>,
    /// Everything so far is committed.
    pub commits: BTreeSet<usize>,
    /// Everything so far is committed, then the shard is thrown away and built anew from its state and the raw rows.
    pub restarts: BTreeSet<usize>,
    /// Marked windows are restated after each commit; the outcome becomes part of the next, or is lost with the shard.
    pub restates: bool,
}

impl Cuts {
    /// A restart after each of so many messages.
    pub fn restart_everywhere(messages: usize) -> Cuts {
        Cuts { restarts: (0..=messages).collect(), ..Cuts::default() }
    }
}

/// A window a replay closed.
#[derive(Clone, Debug)]
pub struct ReplayedWindow {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Its first microsecond.
    pub start: Micros,
    /// The first microsecond after it.
    pub end: Micros,
    /// Its result rows, in the pipeline's output schema.
    pub rows: RecordBatch,
}

/// What a replay did.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Windows closed, pipeline by pipeline in the order in which they closed.
    pub windows: Vec<ReplayedWindow>,
    /// Windows restated, each with its revision, in the order in which they were committed.
    pub restated: Vec<ReplayedWindow>,
    /// Raw rows as they would be stored, by table.
    pub raw: Vec<(String, RecordBatch)>,
    /// Rows from messages.
    pub appended: u64,
    /// Rows known as duplicates.
    pub duplicate: u64,
    /// Rows of messages that could not be read.
    pub rejected: u64,
    /// Late or backfilled rows.
    pub late: u64,
    /// Why pipelines stopped, by name.
    pub stopped: Vec<(String, String)>,
}

/// Why a replay ended early: always a fault of ours.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The state could not be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
    /// Rows could not be arranged.
    #[error("rows could not be arranged")]
    Arrow(#[from] ArrowError),
    /// The tables could not be made readable for a restatement.
    #[error("tables could not be made readable")]
    Tables(#[from] datafusion::error::DataFusionError),
    /// A restatement failed.
    #[error("a restatement failed: {0}")]
    Restatement(String),
    /// The sums of the shard do not add up.
    #[error("the sums do not add up: {0}")]
    Sums(String),
}

/// Applies messages of one partition in order, and returns what came of them. At the end everything is committed; windows that
/// are still open then stay unseen.
///
/// # Errors
/// See [`ReplayError`]; no message can cause one.
pub async fn replay(
    settings: &Settings,
    catalog: &Catalog,
    pipelines: &[Pipeline],
    messages: &[Received],
    cuts: &Cuts,
) -> Result<Replayed, ReplayError> {
    replay_asked(settings, catalog, pipelines, messages, cuts, &[]).await
}

/// As [`replay`], with requests that are there from the beginning.
pub(crate) async fn replay_asked(
    settings: &Settings,
    catalog: &Catalog,
    pipelines: &[Pipeline],
    messages: &[Received],
    cuts: &Cuts,
    requests: &[Request],
) -> Result<Replayed, ReplayError> {
    let setup = Arc::new(Setup::new(settings.clone(), catalog, pipelines.to_vec()));
    let first = messages.first().map_or(0, |message| message.offset);
    let mut shard = Shard::new(&setup, first);
    let mut replayed = Replayed::default();
    let run = Run { cuts, requests };
    for (applied, message) in messages.iter().enumerate() {
        shard = run.interrupt(shard, applied, &mut replayed).await?;
        shard.apply(message.clone()).await?;
        if !shard.sums.add_up() {
            return Err(ReplayError::Sums(format!("{:?}", shard.sums)));
        }
    }
    shard = run.interrupt(shard, messages.len(), &mut replayed).await?;
    run.commit(&mut shard, &mut replayed).await?;
    let mut quiet = 0;
    while cuts.restates && quiet < QUIET_COMMITS {
        quiet = if shard.has_outcome() { 0 } else { quiet + 1 };
        run.commit(&mut shard, &mut replayed).await?;
    }
    replayed.end(&shard);
    Ok(replayed)
}

/// Commits without a restatement after which none is to come: more than a mark may wait.
pub(crate) const QUIET_COMMITS: usize = 8;

/// How a replay is interrupted.
struct Run<'a> {
    cuts: &'a Cuts,
    requests: &'a [Request],
}

impl Run<'_> {
    async fn interrupt(&self, mut shard: Shard, applied: usize, replayed: &mut Replayed) -> Result<Shard, ReplayError> {
        if self.cuts.batches.contains(&applied) {
            for stage in &mut shard.stages {
                stage.flush().await;
            }
        }
        if self.cuts.commits.contains(&applied) {
            self.commit(&mut shard, replayed).await?;
        }
        if !self.cuts.restarts.contains(&applied) {
            return Ok(shard);
        }
        let state = self.commit(&mut shard, replayed).await?;
        replayed.rebuilt(&shard.setup, shard.next_offset, state).await
    }

    /// Commits to `replayed` instead of a lake, and runs a round of restatements. Returns the state.
    async fn commit(&self, shard: &mut Shard, replayed: &mut Replayed) -> Result<Bytes, ReplayError> {
        let begun = shard.begin_commit()?;
        let state = begun.commit.state.clone();
        replayed.note(shard, begun);
        shard.finish_commit();
        if self.cuts.restates {
            self.restate(shard, replayed).await?;
        }
        Ok(state)
    }

    async fn restate(&self, shard: &mut Shard, replayed: &Replayed) -> Result<(), ReplayError> {
        let round = shard.begin_round(0, 1);
        if !round.is_needed(self.requests) {
            return Ok(());
        }
        let history = history(&shard.setup, [replayed])?;
        let outcome = round.run(&history, self.requests).await;
        if let Some(failure) = outcome.failures.first() {
            return Err(ReplayError::Restatement(failure.clone()));
        }
        shard.finish_round(outcome);
        Ok(())
    }
}

impl Replayed {
    /// What a commit has made true.
    pub(crate) fn note(&mut self, shard: &Shard, begun: Begun) {
        let mut tables: Vec<(String, Vec<RecordBatch>)> = Vec::new();
        for table in begun.commit.tables {
            match table.kind {
                TableKind::Raw => self.raw.extend(table.batches.into_iter().map(|rows| (table.table.clone(), rows))),
                TableKind::Windows { .. } => tables.push((table.table, table.batches)),
            }
        }
        for (stage, result) in shard.stages.iter().zip(begun.results) {
            let of = |start, end, rows| ReplayedWindow { pipeline: stage.pipeline.spec.name.clone(), start, end, rows };
            let closed = result.closed.len();
            self.windows.extend(result.closed.into_iter().map(|window| of(window.start, window.end, window.rows)));
            let written = tables.iter().find(|(table, _)| *table == stage.pipeline.spec.table);
            for rows in written.into_iter().flat_map(|(_, rows)| rows).skip(closed) {
                let bound = |index: usize| rows.column(index).as_primitive::<TimestampMicrosecondType>().value(0);
                self.restated.push(of(bound(0), bound(1), rows.clone()));
            }
        }
    }

    /// A shard built anew from the state of its last commit and the raw rows.
    pub(crate) async fn rebuilt(&self, setup: &Arc<Setup>, next: i64, state: Bytes) -> Result<Shard, ReplayError> {
        let mut anew = Shard::restore(setup, next, state)?;
        for (index, of) in setup.streams.iter().enumerate() {
            if anew.rebuild_from(index).is_none() {
                continue;
            }
            for (_, rows) in self.raw.iter().filter(|(table, _)| **table == *of.stream.name) {
                anew.rebuild(index, rows).await?;
            }
        }
        Ok(anew)
    }

    /// What the shard says of itself at its end.
    pub(crate) fn end(&mut self, shard: &Shard) {
        self.appended = shard.sums.appended;
        self.duplicate = shard.sums.duplicate;
        self.rejected = shard.sums.rejected;
        self.late = shard.lates.rows().map(|late| late.3).sum();
        let stopped =
            |stage: &crate::stage::Stage| Some((stage.pipeline.spec.name.clone(), stage.stopped()?.to_owned()));
        self.stopped = shard.stages.iter().filter_map(stopped).collect();
        self.windows.sort_by(|a, b| a.pipeline.cmp(&b.pipeline));
    }
}

/// What all of these shards have committed up to now, as a restatement reads it.
pub(crate) fn history<'a>(setup: &Setup, all: impl IntoIterator<Item = &'a Replayed>) -> Result<History, ReplayError> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let mut tables: BTreeMap<&str, Vec<RecordBatch>> = BTreeMap::new();
    for replayed in all {
        for (table, rows) in &replayed.raw {
            tables.entry(table).or_default().push(rows.clone());
        }
        for window in replayed.windows.iter().chain(&replayed.restated) {
            let of = setup.pipelines.iter().find(|of| of.spec.name == window.pipeline);
            tables.entry(of.map_or("", |of| &of.spec.table)).or_default().push(window.rows.clone());
        }
    }
    for (table, rows) in tables {
        let (schema, rows) = alike(rows)?;
        context.register_table(table, Arc::new(MemTable::try_new(schema, vec![rows])?))?;
    }
    Ok(History::over(context))
}

/// Rows of one table with the columns of all of them, as in the lake.
fn alike(rows: Vec<RecordBatch>) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let first = rows[0].schema();
    if rows.iter().all(|rows| rows.schema() == first) {
        return Ok((first, rows));
    }
    let schema = Arc::new(Schema::try_merge(rows.iter().map(|rows| rows.schema().as_ref().clone()))?);
    let alike = rows.into_iter().map(|rows| {
        let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => new_null_array(field.data_type(), rows.num_rows()),
        });
        // Null where a column is missing, whatever its own rows may be.
        RecordBatch::try_new(Arc::clone(&schema), columns.collect())
    });
    let alike = alike.collect::<Result<_, _>>()?;
    Ok((schema, alike))
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
