//! What each shard says of itself: the ground of `/metrics` and `/readyz`.
//!
//! A shard puts up one report at a time, as a whole, so a scrape never sees half of a change: the sums add up at every moment.
//! When a shard goes, its report goes, and all its series with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use airan_model::time::Micros;
use tokio::time::Instant;

use crate::late::LateReason;
use crate::restate::shard::Work;
use crate::shard::Shard;
use crate::steps::Steps;
use crate::sums::Sums;

/// What a shard is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Being claimed and built up.
    Starting,
    /// Applying messages.
    Running,
    /// Cannot commit; tries again.
    Stuck(String),
    /// Will do nothing until somebody helps.
    Stopped(String),
}

/// One shard's report.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub status: Status,
    pub paused: bool,
    /// The partition's next offset on the bus, as last asked.
    pub end_offset: i64,
    pub progress: Option<Arc<Progress>>,
}

/// How far a shard is, and what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub sums: Sums,
    pub next_offset: i64,
    pub log_time: Micros,
    pub raw_bytes: usize,
    /// Streams that have one, by name.
    /// Of the streams that have a live node: another's goes with the log and says nothing of how far anybody is.
    pub watermarks: Vec<(Arc<str>, Micros)>,
    pub stages: Vec<StageProgress>,
    pub late: Vec<(Arc<str>, String, LateReason, u64)>,
    /// Stretches of windows to be restated, for their rows and rises, and for their completeness alone.
    pub dirty: (usize, usize),
    /// Log time of the oldest mark of the former.
    pub dirty_since: Option<Micros>,
    pub dirty_coarsened: u64,
    pub restated: Work,
    /// Requests, by pipeline, that are not done.
    pub requests: usize,
    pub batches: usize,
    pub batches_forgotten: u64,
    pub entities: usize,
    pub entities_forgotten: u64,
    pub untracked: u64,
    pub misshapen: u64,
    pub steps: Steps,
}

/// One pipeline in one shard.
#[derive(Clone, Debug)]
pub(crate) struct StageProgress {
    pub pipeline: String,
    pub open_windows: usize,
    pub state_bytes: usize,
    pub is_stopped: bool,
}

impl Progress {
    pub fn of(shard: &Shard) -> Progress {
        let streams = &shard.streams;
        let live = |name: &&Arc<str>| shard.time.is_live(name);
        let watermark = |name: &Arc<str>| Some((Arc::clone(name), shard.time.watermark(name)?));
        Progress {
            sums: shard.sums,
            next_offset: shard.next_offset,
            log_time: shard.log_time,
            raw_bytes: shard.raw_bytes(),
            watermarks: shard
                .setup
                .streams
                .iter()
                .map(|of| &of.stream.name)
                .filter(live)
                .filter_map(watermark)
                .collect(),
            stages: shard.stages.iter().map(StageProgress::of).collect(),
            late: shard.lates.rows().map(|late| (Arc::clone(late.0), late.1.to_owned(), late.2, late.3)).collect(),
            dirty: shard.marks.stretches(),
            dirty_since: shard.marks.oldest(),
            dirty_coarsened: shard.marks.coarsened,
            restated: shard.work,
            requests: shard.requests.running(),
            batches: streams.iter().map(|stream| stream.identities.batches()).sum(),
            batches_forgotten: streams.iter().map(|stream| stream.identities.forgotten_early).sum(),
            entities: streams.iter().map(|stream| stream.rises.entities.len()).sum(),
            entities_forgotten: streams.iter().map(|stream| stream.rises.entities.forgotten).sum(),
            untracked: streams.iter().map(|stream| stream.rises.entities.untracked).sum(),
            misshapen: streams.iter().map(|stream| stream.rises.misshapen).sum(),
            steps: shard.steps,
        }
    }
}

impl StageProgress {
    fn of(stage: &crate::stage::Stage) -> StageProgress {
        StageProgress {
            pipeline: stage.pipeline.spec.name.clone(),
            open_windows: stage.open_windows(),
            state_bytes: stage.state_bytes(),
            is_stopped: stage.stopped().is_some(),
        }
    }
}

/// The reports of all shards of a process, and whether the bus is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    inner: Arc<Mutex<Reports>>,
}

#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub shards: BTreeMap<i32, Report>,
    /// Why the bus is away, if it is.
    pub bus_down: Option<String>,
    /// Whether any partition was ever assigned.
    pub was_assigned: bool,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Reports> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a shard's report, which is made if need be.
    pub fn update(&self, partition: i32, change: impl FnOnce(&mut Report)) {
        let mut reports = self.lock();
        reports.was_assigned = true;
        let report = reports.shards.entry(partition).or_insert_with(|| Report {
            status: Status::Starting,
            paused: false,
            end_offset: 0,
            progress: None,
        });
        change(report);
    }

    /// Takes a shard's report down.
    pub fn remove(&self, partition: i32) {
        self.lock().shards.remove(&partition);
    }
}

/// Says whether a processor does its work. Cheap to clone, and outlives it.
#[derive(Clone, Debug)]
pub struct Readiness {
    pub(crate) board: Board,
    /// When it was asked for: about when the process began.
    pub(crate) since: Instant,
}

/// After so long without a partition, with the bus there, a process is a spare: there are more processes than partitions.
const SPARE_AFTER: Duration = Duration::from_secs(60);

impl Readiness {
    /// Whether every shard this process owns is up to its work. A spare, to which no partition fell, is ready after a minute, so
    /// that a rollout of more processes than partitions comes to its end.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn check(&self) -> Result<(), String> {
        let reports = self.board.lock();
        if let Some(reason) = &reports.bus_down {
            return Err(format!("the bus is away: {reason}"));
        }
        if !reports.was_assigned && self.since.elapsed() < SPARE_AFTER {
            return Err("no partition assigned yet".to_owned());
        }
        for (partition, report) in &reports.shards {
            match &report.status {
                Status::Running => {}
                Status::Starting => return Err(format!("shard {partition} is starting")),
                Status::Stuck(reason) => return Err(format!("shard {partition} cannot commit: {reason}")),
                Status::Stopped(reason) => return Err(format!("shard {partition} has stopped: {reason}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a process to which no partition falls; one that is assigned one; the bus goes away.
    /// Guarantees: the spare is ready after a minute, the other once its shard runs, none without a bus.
    #[tokio::test(start_paused = true)]
    async fn a_spare_process_is_ready_after_a_minute() {
        let readiness = Readiness { board: Board::default(), since: Instant::now() };
        assert_eq!(readiness.check(), Err("no partition assigned yet".to_owned()));
        tokio::time::advance(SPARE_AFTER).await;
        assert_eq!(readiness.check(), Ok(()));
        readiness.board.lock().bus_down = Some("no broker".to_owned());
        assert_eq!(readiness.check(), Err("the bus is away: no broker".to_owned()));
        readiness.board.lock().bus_down = None;
        readiness.board.update(3, |_| {});
        assert_eq!(readiness.check(), Err("shard 3 is starting".to_owned()));
        readiness.board.update(3, |report| report.status = Status::Running);
        assert_eq!(readiness.check(), Ok(()));
    }
}
