//! What one processor does for the whole lake: publishing, retention and compaction.
//!
//! It is elected without a vote: the one that owns partition 0. While it is revoked, fenced or starting, nothing is done; when
//! that happens in the middle of a pass, the pass is dropped, which it may be at any moment. Should two processors believe that
//! they are elected, neither harms the other (the lake's `PROTOCOL.md`).
//!
//! A task of its own, beside the shards: it holds up none of them, and each pass has a deadline.

use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_lake::Lake;
use airan_model::causes;
use airan_model::time::{Clock, Micros};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Status};
use crate::metrics::ProcessorMetrics;
use crate::settings::Settings;

/// The partition whose owner is elected.
const ELECTED_BY: i32 = 0;
/// How soon a loss of that partition is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pass of publishing: a pass after hours of absence writes one Delta commit for some ten thousand files of a table.
const PUBLISH_WITHIN: Duration = Duration::from_secs(300);
/// Longest pass of compaction. What it has merged by then stands, and the next pass goes on.
const COMPACT_WITHIN: Duration = Duration::from_secs(3600);
/// Longest pass of retention, which looks at every file of the lake.
const RETENTION_WITHIN: Duration = Duration::from_secs(1800);

fn every(span: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + span, span);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The elected processor's work.
#[derive(Clone)]
pub(crate) struct Maintenance {
    pub bus: Arc<dyn Bus>,
    pub lake: Lake,
    pub board: Board,
    pub clock: Clock,
    pub metrics: Arc<ProcessorMetrics>,
    /// Whether the last attempt at retention had to wait, so that it is said once.
    pub waits: Option<String>,
}

impl Maintenance {
    /// Works until shutdown. Compaction takes minutes where publishing takes seconds, so they run side by side.
    pub async fn run(mut self, settings: Settings, shutdown: CancellationToken) {
        let compaction = self.clone().run_compaction(shutdown.clone());
        tokio::join!(self.run_publishing(settings, shutdown), compaction);
    }

    async fn run_compaction(self, shutdown: CancellationToken) {
        let settings = self.lake.compaction().clone();
        if !settings.on {
            return;
        }
        let mut compaction = every(settings.every.get());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = compaction.tick() => self.compact(&shutdown).await,
            }
        }
    }

    async fn compact(&self, shutdown: &CancellationToken) {
        let work = self.lake.compact(None, self.clock.now(), |_| {});
        match self.while_elected(COMPACT_WITHIN, shutdown, work).await {
            Some(Ok(report)) if report.merges > 0 => {
                tracing::debug!(files = report.files_in, bytes = report.bytes_in, merges = report.merges, "compacted");
            }
            Some(Err(error)) => {
                self.lake.metrics().compact_failures.inc();
                tracing::warn!(error = %causes(&error), "compaction failed: trying again later");
            }
            _ => {}
        }
    }

    async fn run_publishing(&mut self, settings: Settings, shutdown: CancellationToken) {
        let mut publish = every(settings.publish_every.get());
        let mut retention = every(settings.retention_every.get());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = retention.tick() => self.retain(&shutdown).await,
                _ = publish.tick() => self.publish(&shutdown).await,
            }
        }
    }

    /// Whether this processor owns partition 0, and has claimed its shard.
    fn is_elected(&self) -> bool {
        let reports = self.board.lock();
        reports.shards.get(&ELECTED_BY).is_some_and(|report| report.status != Status::Starting)
    }

    /// Runs `work` for as long as this processor is elected and the deadline is ahead; otherwise None, and the work is dropped.
    async fn while_elected<T>(
        &self,
        within: Duration,
        shutdown: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        if !self.is_elected() {
            return None;
        }
        let lost = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if !self.is_elected() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            done = tokio::time::timeout(within, work) => {
                if done.is_err() {
                    tracing::warn!(?within, "the lake's maintenance took too long: it goes on with the next pass");
                }
                done.ok()
            }
            () = lost => None,
        }
    }

    async fn publish(&self, shutdown: &CancellationToken) {
        if !self.is_elected() {
            return self.lake.metrics().withdraw();
        }
        let work = self.lake.publish(self.clock.now());
        match self.while_elected(PUBLISH_WITHIN, shutdown, work).await {
            Some(Ok(report)) if report.commits > 0 => {
                tracing::debug!(tables = report.commits, files = report.files, trimmed = report.records, "published");
            }
            Some(Err(error)) => {
                self.metrics.publish_failures.inc();
                tracing::warn!(error = %causes(&error), "publishing failed: trying again later");
            }
            _ => {}
        }
    }

    async fn retain(&mut self, shutdown: &CancellationToken) {
        if !self.is_elected() {
            return;
        }
        let needed_from = match self.lake.needed_from(self.bus.topic(), self.bus.partitions()).await {
            Ok(Ok(needed_from)) => Some(needed_from).filter(|from| *from != Micros::MAX),
            Ok(Err(reason)) => {
                self.metrics.retention_skipped.inc();
                if self.waits.replace(reason.clone()).as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "retention waits, the lake only grows: every shard must have committed");
                }
                return;
            }
            Err(error) => return self.failed(&causes(&error)),
        };
        self.waits = None;
        let work = self.lake.expire(self.clock.now(), needed_from);
        match self.while_elected(RETENTION_WITHIN, shutdown, work).await {
            Some(Ok(report)) => {
                if report.over_bytes > 0 && self.metrics.over_bytes.get() == 0 {
                    tracing::warn!(
                        bytes = report.over_bytes,
                        "the lake is over lake.max_bytes, and all of the rest is needed by open windows"
                    );
                }
                self.metrics.over_bytes.set(i64::try_from(report.over_bytes).unwrap_or(i64::MAX));
            }
            Some(Err(error)) => self.failed(&causes(&error)),
            None => {}
        }
    }

    fn failed(&self, reason: &str) {
        self.metrics.retention_failures.inc();
        tracing::warn!(error = reason, "retention failed: trying again later");
    }
}

#[cfg(test)]
#[path = "maintenance_tests.rs"]
mod tests;
