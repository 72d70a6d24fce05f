//! Requests to restate windows, seen from outside: how far the shards are, and doing their work where no processor runs.

use std::sync::Arc;
use std::time::Duration;

use airan_lake::{ClaimError, CommitError, Lake, QueryError, ReadError, Request, ShardWriter, StoreError};
use airan_model::catalog::Catalog;
use airan_model::time::Micros;

use crate::commit::Begun;
use crate::recover::read_requests;
use crate::restate::history::History;
use crate::restate::requests::{Part, Reached};
use crate::settings::Settings;
use crate::setup::{Pipeline, Setup};
use crate::shard::Shard;
use crate::sheet::{Sheets, StateError};

/// Times a commit is tried when the store does not take it.
const TRIES: u32 = 5;

/// How far one shard is with one pipeline of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestProgress {
    /// The shard.
    pub partition: i32,
    /// The pipeline.
    pub pipeline: String,
    /// Windows that begin before it are done; None where the shard has not begun.
    pub next: Option<Micros>,
    /// Nothing is left to do there.
    pub is_done: bool,
}

/// Why progress is not known.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// As [`ReadError`] says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As [`StateError`] says.
    #[error(transparent)]
    State(#[from] StateError),
}

/// How far the shards of a topic are with `request`, for each of `pipelines` that it names, by what their newest commits say.
/// Shards that never committed have no rows, and nothing to do.
///
/// # Errors
/// See [`ProgressError`].
pub async fn request_progress(
    lake: &Lake,
    topic: &str,
    partitions: i32,
    request: &Request,
    pipelines: &[String],
) -> Result<Vec<RequestProgress>, ProgressError> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        let Some((_, Some(state))) = lake.head_and_state(topic, partition).await? else { continue };
        let state = Sheets::read(state)?;
        let requests = state.table("requests").map(read_requests).unwrap_or_default();
        for pipeline in pipelines.iter().filter(|pipeline| request.names(pipeline)) {
            let part = Part { request: request.id.as_str().into(), pipeline: pipeline.as_str().into() };
            let reached = requests.reached(&part);
            all.push(RequestProgress {
                partition,
                pipeline: pipeline.clone(),
                next: reached.map(|reached| reached.next),
                is_done: reached.is_some_and(|reached| reached.is_done),
            });
        }
    }
    Ok(all)
}

/// What was done without a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfflineReport {
    /// Shards that have rows.
    pub shards: u64,
    /// Commits made.
    pub commits: u64,
    /// Windows of a site restated.
    pub windows: u64,
    /// Raw rows read.
    pub rows: u64,
    /// Pipelines and partitions with windows that a processor has yet to close.
    pub waits: Vec<(i32, String)>,
}

/// Why a request could not be worked off.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Stop the processor of this shard, or let it do the work: without `--offline`.
    #[error("shard {partition} was taken back by a running processor; what was committed before stands")]
    Fenced {
        /// The shard.
        partition: i32,
    },
    /// As [`ClaimError`] says.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// As [`CommitError`] says.
    #[error(transparent)]
    Commit(CommitError),
    /// As [`QueryError`] says.
    #[error(transparent)]
    Lake(#[from] QueryError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// How far retention has come cannot be told, as [`ReadError`] says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As [`StateError`] says.
    #[error(transparent)]
    State(#[from] StateError),
    /// The raw rows could not be read, or a pipeline stopped on them.
    #[error("windows could not be restated: {0}")]
    Failed(String),
}

/// Works `request` off where no processor runs: claims each shard in turn (K2), restates, commits. May be repeated after any
/// error: what is done is in the shards' states.
///
/// # Errors
/// See [`OfflineError`].
pub async fn restate_offline(
    lake: &Lake,
    settings: &Settings,
    catalog: &Catalog,
    pipelines: Vec<Pipeline>,
    topic: &str,
    request: &Request,
) -> Result<OfflineReport, OfflineError> {
    let setup = Arc::new(Setup::new(settings.clone(), catalog, pipelines));
    let mut report = OfflineReport::default();
    let Some(partitions) = lake.partitions(topic).await? else { return Ok(report) };
    for partition in 0..partitions {
        let seen = lake.head_and_state(topic, partition).await.map_err(QueryError::Read)?;
        if !matches!(seen, Some((_, Some(_)))) {
            // Never committed, so it has no rows.
            continue;
        }
        let (mut writer, recovered) = lake.claim(topic, partition, partitions).await?;
        let Some(recovered) = recovered else { continue };
        report.shards += 1;
        let mut shard = Shard::restore(&setup, recovered.next_offset, recovered.state)?;
        loop {
            let mut round = shard.begin_round(partition, partitions);
            round.raw_from = lake.raw_from().await?;
            // Marks are a processor's matter.
            round.marked.clear();
            shard.marks.give_back();
            if !round.is_needed(std::slice::from_ref(request)) {
                break;
            }
            let outcome = round.run(&History::of(lake).await?, std::slice::from_ref(request)).await;
            if let Some(failure) = outcome.failures.first() {
                return Err(OfflineError::Failed(failure.clone()));
            }
            shard.finish_round(outcome);
            if !shard.has_outcome() {
                break;
            }
            let begun = shard.begin_commit()?;
            commit(&mut writer, &begun, partition, settings.commit.retry_min.get()).await?;
            shard.finish_commit();
            report.commits += 1;
        }
        report.windows += shard.work.windows;
        report.rows += shard.work.rows;
        let waiting = |(part, reached): (&Part, Reached)| {
            (*part.request == *request.id && !reached.is_done).then(|| (partition, part.pipeline.to_string()))
        };
        report.waits.extend(shard.requests.iter().filter_map(waiting));
    }
    Ok(report)
}

async fn commit(
    writer: &mut ShardWriter,
    begun: &Begun,
    partition: i32,
    mut wait: Duration,
) -> Result<(), OfflineError> {
    for attempt in 1.. {
        match writer.commit(&begun.commit).await {
            Ok(_) => break,
            Err(CommitError::Fenced { .. } | CommitError::Changed { .. }) => {
                return Err(OfflineError::Fenced { partition });
            }
            Err(CommitError::Store(_)) if attempt < TRIES => tokio::time::sleep(wait).await,
            Err(error) => return Err(OfflineError::Commit(error)),
        }
        wait *= 2;
    }
    Ok(())
}
