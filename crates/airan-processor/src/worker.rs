//! The life of a shard: claim, state, open windows, then messages and commits, until it is revoked, fenced or broken.
//!
//! A worker is a task of its own, so a slow shard, or one whose store is away, holds up no other. It talks to the consumer's
//! loop through bounded channels. While it commits it applies nothing: messages wait in its queue, and the loop pauses the
//! partition when that is full.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use airan_bus::{Bus, Received};
use airan_lake::{ClaimError, CommitError, Lake, ReadError, Recovered, ShardWriter};
use airan_model::causes;
use airan_model::crash;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Progress, Status};
use crate::metrics::ProcessorMetrics;
use crate::rejects::Rejects;
use crate::restate::round::Outcome;
use crate::results::Results;
use crate::setup::Setup;
use crate::shard::Shard;
use crate::steps::{Step, Watch};

/// A report is put up at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A shard that has seen nothing but ticks commits this seldom: each commit leaves a record that readers of the lake have to read,
/// and ticks are quickly read again.
const QUIET: Duration = Duration::from_secs(600);

/// A round of restatements that takes longer is given up: a store that hangs must not keep it for ever.
const ROUND_MOST: Duration = Duration::from_secs(600);

/// What a message counts for beside its payload, bytes.
pub(crate) const MESSAGE_OVERHEAD: usize = 256;

/// What a worker tells the consumer's loop.
#[derive(Debug)]
pub(crate) struct Notice {
    pub partition: i32,
    /// Which of the partition's workers, one after the other.
    pub epoch: u64,
    pub what: What,
}

/// What a worker tells.
#[derive(Debug)]
pub(crate) enum What {
    /// Ready for messages from this offset on.
    Seek(i64),
    /// Everything before this offset is committed.
    Report(i64),
    /// The worker is gone.
    Ended(End),
    /// Not of a worker: the shard had stopped, and somebody has claimed it since.
    Helped,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it was told. Whatever it could not commit will be read again.
    Released,
    /// Another owner has, or had, the shard: its work is dropped (K2).
    Fenced,
    /// It cannot go on, and trying again would not help.
    Stopped(String),
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub setup: Arc<Setup>,
    pub bus: Arc<dyn Bus>,
    pub lake: Lake,
    pub board: Board,
    pub metrics: Arc<ProcessorMetrics>,
    pub results: Arc<Results>,
    pub rejects: Rejects,
    pub notices: mpsc::Sender<Notice>,
}

/// One shard's worker.
pub(crate) struct Worker {
    pub shared: Shared,
    pub partition: i32,
    pub epoch: u64,
    pub inbox: mpsc::Receiver<Received>,
    /// Bytes in the inbox.
    pub queued: Arc<AtomicUsize>,
    pub stop: CancellationToken,
    /// Wait before the claim.
    pub delay: Duration,
}

impl Worker {
    /// Works until the end, and says how it ended.
    pub async fn run(mut self) {
        let end = match AssertUnwindSafe(self.work()).catch_unwind().await {
            Ok(Ok(())) => End::Released,
            Ok(Err(end)) => end,
            Err(_) => End::Stopped(
                "a fault in airan itself: its message is on stderr; nothing uncommitted was kept".to_owned(),
            ),
        };
        self.shared.results.withdraw(self.partition);
        self.tell(What::Ended(end)).await;
    }

    /// claim → state → open windows → messages and commits → last commit.
    async fn work(&mut self) -> Result<(), End> {
        let (mut writer, mut shard, is_new) = self.take_over().await?;
        if is_new {
            // From here on the lake knows where this shard begins: what goes from the log before it is read is named as lost.
            self.commit(&mut writer, &mut shard).await?;
        }
        self.tell(What::Seek(shard.next_offset)).await;
        self.report(&shard, Status::Running);
        let every = self.shared.setup.settings.commit.interval.get();
        let mut committed = shard.next_offset;
        let (mut next_commit, mut quiet_until) = (Instant::now() + every, Instant::now() + QUIET);
        let mut rounds = JoinSet::new();
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let enough = self.shared.setup.settings.commit.bytes.size();
        loop {
            let is_due = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(next_commit) => true,
                _ = report.tick() => {
                    self.report(&shard, Status::Running);
                    false
                }
                Some(ended) = rounds.join_next(), if !rounds.is_empty() => {
                    self.end_round(&mut shard, ended);
                    false
                }
                received = self.inbox.recv() => match received {
                    Some(received) => {
                        self.apply(&mut shard, received).await?;
                        shard.raw_bytes() >= enough
                    }
                    None => break,
                },
            };
            if is_due {
                let is_news = shard.next_offset > committed || shard.has_outcome();
                let is_worth_it = shard.has_work() || Instant::now() >= quiet_until;
                if is_news && is_worth_it {
                    self.commit(&mut writer, &mut shard).await?;
                    committed = shard.next_offset;
                    quiet_until = Instant::now() + QUIET;
                } else if shard.is_committed() {
                    shard.marks.settle();
                }
                if shard.is_committed() && rounds.is_empty() && !shard.has_outcome() {
                    self.begin_round(&mut shard, &mut rounds);
                }
                next_commit = Instant::now() + every;
            }
        }
        if shard.next_offset > committed {
            self.commit(&mut writer, &mut shard).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, shard: &mut Shard, received: Received) -> Result<(), End> {
        let size = size_of(&received);
        if received.offset >= shard.next_offset {
            let applied = shard.apply(received).await;
            let refusal = applied.map_err(|error| End::Stopped(format!("rows could not be arranged: {error}")))?;
            if let Some(refusal) = refusal {
                self.shared.metrics.rejected.with_label_values(&[refusal.refused.reason.as_str()]).inc();
                self.shared.rejects.record(self.partition, refusal);
            }
        }
        self.queued.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    }

    /// Commits, and tries again for as long as the store is away and the shard is not to stop.
    async fn commit(&mut self, writer: &mut ShardWriter, shard: &mut Shard) -> Result<(), End> {
        let mut watch = Watch::start();
        let begun = shard.begin_commit().map_err(|error| End::Stopped(causes(&error)))?;
        let timer = self.shared.metrics.commit_seconds.start_timer();
        let retry = &self.shared.setup.settings.commit;
        let mut wait = retry.retry_min.get();
        loop {
            let Some(result) = self.until_stopped(writer.commit(&begun.commit)).await else {
                tracing::warn!(
                    partition = self.partition,
                    "stopped before the last commit was done: its messages will be read again"
                );
                return Err(End::Released);
            };
            match result {
                Ok(summary) => {
                    tracing::debug!(
                        partition = self.partition,
                        n = summary.n,
                        rows = summary.rows,
                        bytes = summary.bytes,
                        "committed"
                    );
                    break;
                }
                Err(error @ (CommitError::Fenced { .. } | CommitError::Changed { .. })) => {
                    tracing::warn!(partition = self.partition, %error, "uncommitted work dropped");
                    self.shared.metrics.fenced.inc();
                    timer.stop_and_discard();
                    return Err(End::Fenced);
                }
                Err(CommitError::Store(error)) => {
                    let reason = causes(&error);
                    tracing::warn!(partition = self.partition, %reason, ?wait, "commit failed: trying again");
                    self.shared.metrics.commit_failures.inc();
                    self.shared.board.update(self.partition, |report| report.status = Status::Stuck(reason));
                }
                Err(error) => {
                    timer.stop_and_discard();
                    return Err(End::Stopped(causes(&error)));
                }
            }
            if self.until_stopped(tokio::time::sleep(wait)).await.is_none() {
                return Err(End::Released);
            }
            wait = (wait * 2).min(retry.retry_max.get());
        }
        timer.observe_duration();
        shard.finish_commit();
        watch.end(&mut shard.steps, Step::Commit);
        self.shared.results.publish(self.partition, begun.results);
        self.report(shard, Status::Running);
        self.tell(What::Report(shard.next_offset)).await;
        Ok(())
    }

    /// Restates marked windows beside the messages. Dropped with the worker: then nothing of it has happened.
    fn begin_round(&self, shard: &mut Shard, rounds: &mut JoinSet<Result<Outcome, Elapsed>>) {
        let (lake, partitions) = (self.shared.lake.clone(), self.shared.bus.partitions());
        let round = shard.begin_round(self.partition, partitions);
        rounds.spawn(async move { tokio::time::timeout(ROUND_MOST, round.over(&lake)).await });
    }

    /// What a round has computed becomes part of the next commit. One that failed delays restatement, and nothing else.
    fn end_round(&self, shard: &mut Shard, ended: Result<Result<Outcome, Elapsed>, JoinError>) {
        crash::point("processor.restate.computed");
        let reason = match ended {
            Ok(Ok(outcome)) => {
                for reason in &outcome.failures {
                    tracing::warn!(partition = self.partition, %reason, "windows could not be restated: trying again");
                }
                return shard.finish_round(outcome);
            }
            Ok(Err(_)) => format!("it took more than {} s", ROUND_MOST.as_secs()),
            Err(error) => error.to_string(),
        };
        tracing::warn!(partition = self.partition, %reason, "windows could not be restated: trying again");
        shard.drop_round();
    }

    /// Claims the shard and builds it from what the lake has, however long the lake or the bus is away.
    ///
    /// The last of the three says that nothing of it was ever committed.
    async fn take_over(&mut self) -> Result<(ShardWriter, Shard, bool), End> {
        self.wait(self.delay).await?;
        let timer = self.shared.metrics.start_seconds.start_timer();
        let retry = self.shared.setup.settings.commit.clone();
        let mut wait = retry.retry_min.get();
        loop {
            let fault = match self.try_take_over().await {
                Ok(done) => {
                    timer.observe_duration();
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            match fault {
                Fault::Retry(reason) => {
                    tracing::warn!(partition = self.partition, %reason, ?wait, "shard cannot start yet: trying again");
                    self.shared.board.update(self.partition, |report| report.status = Status::Stuck(reason));
                }
                Fault::Stop(reason) => return Err(End::Stopped(reason)),
            }
            self.wait(wait).await?;
            wait = (wait * 2).min(retry.retry_max.get());
        }
    }

    async fn try_take_over(&self) -> Result<(ShardWriter, Shard, bool), Fault> {
        let Shared { bus, lake, setup, .. } = &self.shared;
        let (writer, recovered) = lake.claim(bus.topic(), self.partition, bus.partitions()).await?;
        let is_new = recovered.is_none();
        let shard = match recovered {
            None => {
                let (first, _) = bus.offsets(self.partition).await.map_err(|error| Fault::Retry(causes(&error)))?;
                Shard::new(setup, first)
            }
            Some(recovered) => self.recover(recovered).await?,
        };
        tracing::info!(partition = self.partition, offset = shard.next_offset, "shard starts");
        Ok((writer, shard, is_new))
    }

    /// The state of the last commit, and open windows from raw rows.
    async fn recover(&self, recovered: Recovered) -> Result<Shard, Fault> {
        let Shared { bus, lake, setup, metrics, .. } = &self.shared;
        let Recovered { next_offset, state, .. } = recovered;
        let mut shard = Shard::restore(setup, next_offset, state).map_err(|error| Fault::Stop(causes(&error)))?;
        for (index, of) in setup.streams.iter().enumerate() {
            let Some(from) = shard.rebuild_from(index) else { continue };
            let mut rows = lake.raw_rows(bus.topic(), self.partition, &of.stream.name, from).await?;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                metrics.rebuilt_rows.inc_by(batch.num_rows() as u64);
                shard.rebuild(index, &batch).await.map_err(|error| Fault::Stop(causes(&error)))?;
            }
        }
        Ok(shard)
    }

    /// Sleeps, unless the worker is to stop.
    async fn wait(&self, span: Duration) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Released),
            () = tokio::time::sleep(span) => Ok(()),
        }
    }

    /// Runs `work` to its end, or until the worker has had its time to stop: then None, and the work is dropped.
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let deadline = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.shared.setup.settings.stop_within.get()).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = deadline => None,
        }
    }

    fn report(&self, shard: &Shard, status: Status) {
        let progress = Arc::new(Progress::of(shard));
        self.shared.board.update(self.partition, |report| {
            report.status = status;
            report.progress = Some(progress);
        });
    }

    async fn tell(&self, what: What) {
        // The loop outlives its workers; should it be gone, there is nobody left to tell.
        let _ = self.shared.notices.send(Notice { partition: self.partition, epoch: self.epoch, what }).await;
    }
}

/// Why a shard cannot start.
enum Fault {
    Retry(String),
    Stop(String),
}

impl From<ClaimError> for Fault {
    fn from(error: ClaimError) -> Fault {
        match error {
            ClaimError::Store(_) | ClaimError::Contended { .. } => Fault::Retry(causes(&error)),
            _ => Fault::Stop(causes(&error)),
        }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Fault {
        match error {
            ReadError::Store(_) | ReadError::Gone { .. } => Fault::Retry(causes(&error)),
            _ => Fault::Stop(causes(&error)),
        }
    }
}

/// What a message takes up while it waits.
pub(crate) fn size_of(received: &Received) -> usize {
    received.message.payload().len() + MESSAGE_OVERHEAD
}
