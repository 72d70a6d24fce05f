//! The processor: one consumer, a crew of shards, and the lake's maintenance.

use std::sync::Arc;
use std::time::Duration;

use airan_bus::{Bus, ConsumeError, Consumer, Event};
use airan_lake::Lake;
use airan_model::catalog::Catalog;
use airan_model::causes;
use airan_model::time::Clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Readiness};
use crate::crew::Crew;
use crate::maintenance::Maintenance;
use crate::metrics::ProcessorMetrics;
use crate::rejects::Rejects;
use crate::results::Results;
use crate::settings::Settings;
use crate::setup::{Pipeline, Setup};
use crate::threads::Threads;
use crate::worker::{Notice, Shared};

/// How long the consumer may wait for a message before workers are heard again.
const POLL: Duration = Duration::from_millis(50);
/// Wait after an error of the consumer.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Words of workers that may wait: each has one at a time, and says little.
const NOTICES: usize = 256;
/// How often the ends of the partitions are asked for, for the lag.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take that is only for show.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a stop may take beyond the workers' own time.
const STOP_SLACK: Duration = Duration::from_secs(1);
/// How long the consumer may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);

/// Why a processor could not be made or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A pipeline declares a metric that Prometheus would refuse. Change its `pipeline.yaml`.
    #[error("a metric of a pipeline is not valid")]
    Metric(#[from] prometheus::Error),
    /// No threads for the shards.
    #[error("no threads for the shards")]
    Threads(#[from] std::io::Error),
    /// The bus takes this process for gone, or holds messages of a later release. What was uncommitted was committed, or dropped where
    /// another owner has the shard by now (K2); started again once the cause is gone, it goes on.
    #[error("the bus gives this processor no more messages")]
    Expelled(#[source] ConsumeError),
}

/// A processor: make it, take its handles, run it.
pub struct Processor {
    setup: Arc<Setup>,
    bus: Arc<dyn Bus>,
    lake: Lake,
    clock: Clock,
    board: Board,
    metrics: Arc<ProcessorMetrics>,
    results: Arc<Results>,
}

impl Processor {
    /// Assembles a processor; nothing runs yet.
    ///
    /// # Errors
    /// If a pipeline declares a metric with an invalid name or label.
    pub fn new(
        settings: Settings,
        bus: Arc<dyn Bus>,
        lake: Lake,
        catalog: Arc<Catalog>,
        pipelines: Vec<Pipeline>,
        clock: Clock,
    ) -> Result<Processor, ProcessorError> {
        let setup = Arc::new(Setup::new(settings, &catalog, pipelines));
        let board = Board::default();
        let metrics = Arc::new(ProcessorMetrics::new(board.clone(), clock.clone())?);
        let results = Arc::new(Results::new(&setup, clock.clone())?);
        Ok(Processor { setup, bus, lake, clock, board, metrics, results })
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<ProcessorMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The results of its pipelines.
    pub fn results(&self) -> Arc<Results> {
        Arc::clone(&self.results)
    }

    /// What a stop may take beyond `stop_within`.
    pub const LEAVES_WITHIN: Duration = STOP_SLACK.saturating_add(LEAVE_WITHIN);

    /// Whether it does its work.
    pub fn readiness(&self) -> Readiness {
        Readiness { board: self.board.clone(), since: tokio::time::Instant::now() }
    }

    /// Runs until `shutdown`, then commits what it has and leaves, within `stop_within` and a little.
    ///
    /// Dropped before its end, it leaves like a killed process: nothing is lost, and what was not committed is read again.
    ///
    /// # Errors
    /// If it cannot begin, or the bus expels it; the bus, the lake and each shard may otherwise fail and come back.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ProcessorError> {
        let threads = Threads::start(self.setup.settings.threads)?;
        self.run_on(threads, shutdown).await
    }

    /// The same, with its tasks on the threads at hand.
    pub(crate) async fn run_on(self, threads: Threads, shutdown: CancellationToken) -> Result<(), ProcessorError> {
        let (notices, mut heard) = mpsc::channel(NOTICES);
        let shared = self.shared(notices);
        let mut crew = Crew::new(shared, threads.clone());
        threads.spawn(self.watch_lag(shutdown.clone()));
        threads.spawn(self.keep_the_lake(shutdown.clone()));
        let mut expelled = None;
        if let Some(mut consumer) = self.consumer(&shutdown).await {
            while !shutdown.is_cancelled() && expelled.is_none() {
                while let Ok(notice) = heard.try_recv() {
                    crew.notice(notice, &mut *consumer);
                }
                crew.resume(&mut *consumer);
                match consumer.next(POLL).await {
                    Ok(event) => self.heed(event, &mut crew, &mut *consumer),
                    Err(error @ ConsumeError::Fatal { .. }) => expelled = Some(error),
                    Err(error) => {
                        self.note_bus(Some(causes(&error)));
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
            }
            self.finish(crew, &mut heard, consumer).await;
        }
        expelled.map_or(Ok(()), |error| Err(ProcessorError::Expelled(error)))
    }

    fn shared(&self, notices: mpsc::Sender<Notice>) -> Shared {
        Shared {
            setup: Arc::clone(&self.setup),
            bus: Arc::clone(&self.bus),
            lake: self.lake.clone(),
            board: self.board.clone(),
            metrics: Arc::clone(&self.metrics),
            results: Arc::clone(&self.results),
            rejects: Rejects::new(Arc::clone(&self.bus), self.clock.clone(), Arc::clone(&self.metrics)),
            notices,
        }
    }

    /// A consumer, as soon as the bus gives one; None at shutdown.
    async fn consumer(&self, shutdown: &CancellationToken) -> Option<Box<dyn Consumer>> {
        while !shutdown.is_cancelled() {
            match self.bus.consumer().await {
                Ok(consumer) => return Some(consumer),
                Err(error) => self.note_bus(Some(causes(&error))),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(AFTER_ERROR) => {}
            }
        }
        None
    }

    /// What each event means for the crew.
    fn heed(&self, event: Event, crew: &mut Crew, consumer: &mut dyn Consumer) {
        if !matches!(event, Event::Down { .. } | Event::Idle) {
            self.note_bus(None);
        }
        match event {
            Event::Message(received) => crew.deliver(received, consumer),
            Event::Assigned(partitions) => {
                tracing::info!(?partitions, "assigned");
                crew.assign(&partitions);
            }
            Event::Revoked(partitions) => {
                tracing::info!(?partitions, "revoked");
                crew.revoke(partitions, consumer);
            }
            Event::OutOfRange { partition, wanted, first, next } => crew.out_of_range(partition, wanted, first, next),
            Event::Idle => {}
            Event::Down { reason } => self.note_bus(Some(reason)),
        }
    }

    /// Notes whether the bus is there, and says so when that changes.
    fn note_bus(&self, down: Option<String>) {
        let mut reports = self.board.lock();
        match (&reports.bus_down, &down) {
            (None, Some(reason)) => tracing::warn!(%reason, "the bus is away: trying again"),
            (Some(_), None) => tracing::info!("the bus is back"),
            _ => {}
        }
        reports.bus_down = down;
    }

    /// The last commits, then the consumer leaves.
    async fn finish(&self, mut crew: Crew, heard: &mut mpsc::Receiver<Notice>, mut consumer: Box<dyn Consumer>) {
        let deadline = Instant::now() + self.setup.settings.stop_within.get() + STOP_SLACK;
        crew.stop();
        while !crew.at_work().is_empty() {
            match tokio::time::timeout_at(deadline, heard.recv()).await {
                Ok(Some(notice)) => crew.notice(notice, &mut *consumer),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(partitions = ?crew.at_work(), "did not stop in time: their messages will be read again");
                    break;
                }
            }
        }
        if tokio::time::timeout(LEAVE_WITHIN, consumer.close()).await.is_err() {
            tracing::warn!("the consumer did not leave in time");
        }
    }

    /// Asks for the ends of the partitions now and then.
    fn watch_lag(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (bus, board) = (Arc::clone(&self.bus), self.board.clone());
        async move {
            while !shutdown.is_cancelled() {
                let partitions: Vec<i32> = board.lock().shards.keys().copied().collect();
                for partition in partitions {
                    if let Ok(Ok((_, next))) = tokio::time::timeout(PATIENCE, bus.offsets(partition)).await
                        && let Some(report) = board.lock().shards.get_mut(&partition)
                    {
                        report.end_offset = next;
                    }
                }
                tokio::time::sleep(LAG_EVERY).await;
            }
        }
    }

    /// Publishing and retention, while this process owns partition 0.
    fn keep_the_lake(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let maintenance = Maintenance {
            bus: Arc::clone(&self.bus),
            lake: self.lake.clone(),
            board: self.board.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            waits: None,
        };
        maintenance.run(self.setup.settings.clone(), shutdown)
    }
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
