//! A shard without a bus, a lake and a clock: messages in, closed windows out.
//!
//! It is the same code that runs in a processor, driven from a list. Commits and restarts happen where the caller says, and
//! may change nothing (**W3**): that is what golden and property tests ask of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_bus::Received;
use airan_lake::TableKind;
use airan_model::catalog::Catalog;
use airan_model::time::Micros;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;

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
    let setup = Arc::new(Setup::new(settings.clone(), catalog, pipelines.to_vec()));
    let first = messages.first().map_or(0, |message| message.offset);
    let mut shard = Shard::new(&setup, first);
    let mut replayed = Replayed::default();
    for (applied, message) in messages.iter().enumerate() {
        shard = interrupt(shard, applied, cuts, &mut replayed).await?;
        shard.apply(message.clone()).await?;
        if !shard.sums.add_up() {
            return Err(ReplayError::Sums(format!("{:?}", shard.sums)));
        }
    }
    shard = interrupt(shard, messages.len(), cuts, &mut replayed).await?;
    commit(&mut shard, &mut replayed)?;
    replayed.appended = shard.sums.appended;
    replayed.duplicate = shard.sums.duplicate;
    replayed.rejected = shard.sums.rejected;
    replayed.late = shard.lates.rows().map(|late| late.3).sum();
    let stopped = |stage: &crate::stage::Stage| Some((stage.pipeline.spec.name.clone(), stage.stopped()?.to_owned()));
    replayed.stopped = shard.stages.iter().filter_map(stopped).collect();
    replayed.windows.sort_by(|a, b| a.pipeline.cmp(&b.pipeline));
    Ok(replayed)
}

async fn interrupt(
    mut shard: Shard,
    applied: usize,
    cuts: &Cuts,
    replayed: &mut Replayed,
) -> Result<Shard, ReplayError> {
    if cuts.batches.contains(&applied) {
        for stage in &mut shard.stages {
            stage.flush().await;
        }
    }
    if cuts.commits.contains(&applied) {
        commit(&mut shard, replayed)?;
    }
    if !cuts.restarts.contains(&applied) {
        return Ok(shard);
    }
    let state = commit(&mut shard, replayed)?;
    let mut anew = Shard::restore(&shard.setup, shard.next_offset, state)?;
    for (index, of) in shard.setup.streams.iter().enumerate() {
        if anew.rebuild_from(index).is_none() {
            continue;
        }
        for (_, rows) in replayed.raw.iter().filter(|(table, _)| **table == *of.stream.name) {
            anew.rebuild(index, rows).await?;
        }
    }
    Ok(anew)
}

/// Commits to `replayed` instead of a lake. Returns the state.
fn commit(shard: &mut Shard, replayed: &mut Replayed) -> Result<bytes::Bytes, ReplayError> {
    let begun = shard.begin_commit()?;
    for table in begun.commit.tables.into_iter().filter(|table| table.kind == TableKind::Raw) {
        replayed.raw.extend(table.batches.into_iter().map(|rows| (table.table.clone(), rows)));
    }
    for (stage, result) in shard.stages.iter().zip(begun.results) {
        replayed.windows.extend(result.closed.into_iter().map(|window| ReplayedWindow {
            pipeline: stage.pipeline.spec.name.clone(),
            start: window.start,
            end: window.end,
            rows: window.rows,
        }));
    }
    shard.finish_commit();
    Ok(begun.commit.state)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
