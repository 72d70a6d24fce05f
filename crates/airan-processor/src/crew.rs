//! The workers of a process, one per partition it owns, and what the consumer has to be told on their behalf.
//!
//! Rebalance is an event in the same queue as messages: a revoked shard is told to stop and the partitions are given up when
//! its last commit is done, while the others go on.

use airan_model::causes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use airan_bus::{Consumer, Received};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::board::Status;
use crate::threads::Threads;
use crate::worker::{End, MESSAGE_OVERHEAD, Notice, Shared, What, Worker, size_of};

/// Messages a consumer may still hand over after its partition was paused.
const AFTER_PAUSE: usize = 4_096;
/// Wait before a shard that was fenced is claimed again: its new owner, if there is one, shall get to work first.
const AFTER_FENCE: Duration = Duration::from_secs(1);

/// The workers.
pub(crate) struct Crew {
    shared: Shared,
    threads: Threads,
    slots: BTreeMap<i32, Slot>,
    // Revocations that wait for their workers.
    releasing: Vec<Release>,
    // Shards that have stopped and are still assigned.
    stopped: BTreeMap<i32, Stopped>,
    epochs: u64,
    // The process stops: no shard begins any more.
    is_stopping: bool,
}

/// A shard that has stopped, and the look-out for somebody's having helped it.
struct Stopped {
    epoch: u64,
    lookout: AbortHandle,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.lookout.abort();
    }
}

struct Slot {
    epoch: u64,
    inbox: mpsc::Sender<Received>,
    queued: Arc<AtomicUsize>,
    stop: CancellationToken,
    is_sought: bool,
    is_paused: bool,
    then: Then,
}

/// What comes after a worker that was told to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    Again,
    Stay(String),
}

struct Release {
    partitions: Vec<i32>,
    waiting: BTreeSet<i32>,
}

impl Crew {
    pub fn new(shared: Shared, threads: Threads) -> Crew {
        Crew {
            shared,
            threads,
            slots: BTreeMap::new(),
            releasing: Vec::new(),
            stopped: BTreeMap::new(),
            epochs: 0,
            is_stopping: false,
        }
    }

    /// Starts workers for newly assigned partitions.
    pub fn assign(&mut self, partitions: &[i32]) {
        for partition in partitions {
            match self.slots.get_mut(partition) {
                Some(slot) => slot.then = Then::Again,
                None => self.start(*partition, Duration::ZERO),
            }
        }
    }

    fn start(&mut self, partition: i32, delay: Duration) {
        self.stopped.remove(&partition);
        self.epochs += 1;
        let epoch = self.epochs;
        let limit = self.shared.setup.settings.commit.queue_bytes.size();
        let (inbox, receiver) = mpsc::channel(limit / MESSAGE_OVERHEAD + AFTER_PAUSE);
        let (queued, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let worker = Worker {
            shared: self.shared.clone(),
            partition,
            epoch,
            inbox: receiver,
            queued: Arc::clone(&queued),
            stop: stop.clone(),
            delay,
        };
        self.shared.board.update(partition, |report| {
            report.status = Status::Starting;
            report.paused = false;
            report.progress = None;
        });
        let notices = self.shared.notices.clone();
        let running = self.threads.spawn(worker.run());
        self.threads.spawn(async move {
            if running.await.is_err() {
                let what = What::Ended(End::Stopped("its worker panicked".to_owned()));
                let _ = notices.send(Notice { partition, epoch, what }).await;
            }
        });
        let slot = Slot { epoch, inbox, queued, stop, is_sought: false, is_paused: false, then: Then::Nothing };
        self.slots.insert(partition, slot);
    }

    /// Tells the workers of revoked partitions to stop; they are given up when the last of them has.
    pub fn revoke(&mut self, partitions: Vec<i32>, consumer: &mut dyn Consumer) {
        let mut waiting = BTreeSet::new();
        for partition in &partitions {
            self.stopped.remove(partition);
            match self.slots.get_mut(partition) {
                Some(slot) => {
                    slot.then = Then::Nothing;
                    slot.stop.cancel();
                    waiting.insert(*partition);
                }
                None => self.shared.board.remove(*partition),
            }
        }
        self.releasing.push(Release { partitions, waiting });
        self.release(consumer);
    }

    /// Hands a message to its worker, and pauses the partition when the worker has enough.
    pub fn deliver(&mut self, received: Received, consumer: &mut dyn Consumer) {
        let partition = received.partition;
        let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.is_sought) else { return };
        let size = size_of(&received);
        let queued = slot.queued.fetch_add(size, Ordering::Relaxed) + size;
        if slot.inbox.try_send(received).is_err() && !slot.stop.is_cancelled() {
            // Either the worker is about to say that it has ended, or the consumer does not pause: start over, losing nothing.
            slot.is_sought = false;
            slot.then = Then::Again;
            slot.stop.cancel();
            return;
        }
        if !slot.is_paused && queued > self.shared.setup.settings.commit.queue_bytes.size() {
            slot.is_paused = true;
            consumer.pause(partition);
            self.shared.board.update(partition, |report| report.paused = true);
        }
    }

    /// Lets paused partitions go on whose workers have caught up by half.
    pub fn resume(&mut self, consumer: &mut dyn Consumer) {
        let enough = self.shared.setup.settings.commit.queue_bytes.size() / 2;
        for (partition, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_paused) {
            if slot.queued.load(Ordering::Relaxed) <= enough {
                slot.is_paused = false;
                consumer.resume(*partition);
                self.shared.board.update(*partition, |report| report.paused = false);
            }
        }
    }

    /// The log no longer holds what the shard needs: it stops, and the loss is named.
    pub fn out_of_range(&mut self, partition: i32, wanted: i64, first: i64, next: i64) {
        let lost = if wanted < first {
            format!("offsets {wanted} to {} are no longer on the bus", first - 1)
        } else {
            format!(
                "offset {wanted} is not on the bus yet: it ends at {next}, so it is not the log this shard was reading"
            )
        };
        tracing::error!(topic = self.shared.bus.topic(), partition, wanted, first, next, "shard stopped: {lost}");
        match self.slots.get_mut(&partition) {
            Some(slot) => {
                slot.is_sought = false;
                slot.then = Then::Stay(lost);
                slot.stop.cancel();
            }
            None => self.stay(partition, lost),
        }
    }

    /// A shard does nothing more until somebody helps. Whoever does, makes a record of it in the lake (`airan shard`), and then it
    /// starts again.
    fn stay(&mut self, partition: i32, reason: String) {
        self.shared.board.update(partition, |report| report.status = Status::Stopped(reason));
        self.epochs += 1;
        let (epoch, shared) = (self.epochs, self.shared.clone());
        let lookout = self.threads.spawn(async move {
            until_helped(&shared, partition).await;
            let _ = shared.notices.send(Notice { partition, epoch, what: What::Helped }).await;
        });
        self.stopped.insert(partition, Stopped { epoch, lookout: lookout.abort_handle() });
    }

    /// Does what a worker asks for.
    pub fn notice(&mut self, notice: Notice, consumer: &mut dyn Consumer) {
        let Notice { partition, epoch, what } = notice;
        if self.stopped.get(&partition).is_some_and(|stopped| stopped.epoch == epoch) {
            tracing::info!(partition, "somebody has claimed the stopped shard: starting it again");
            self.start(partition, Duration::ZERO);
            return;
        }
        let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.epoch == epoch) else { return };
        match what {
            What::Seek(offset) => match consumer.seek(partition, offset) {
                Ok(()) => slot.is_sought = !slot.stop.is_cancelled(),
                // Revoked while the worker was getting ready: it is on its way out, and must not come back, or it would fence the
                // new owner again and again.
                Err(_) if slot.stop.is_cancelled() => {}
                Err(error) => {
                    tracing::warn!(partition, offset, error = %causes(&error), "cannot go to the offset: starting over");
                    slot.then = Then::Again;
                    slot.stop.cancel();
                }
            },
            What::Report(next_offset) => consumer.report(partition, next_offset),
            What::Helped => {}
            What::Ended(end) => {
                let then = slot.then.clone();
                self.slots.remove(&partition);
                self.ended(partition, end, then);
                self.release(consumer);
            }
        }
    }

    fn ended(&mut self, partition: i32, end: End, then: Then) {
        let is_revoked = self.releasing.iter().any(|release| release.waiting.contains(&partition));
        self.releasing.iter_mut().for_each(|release| {
            release.waiting.remove(&partition);
        });
        match (end, then) {
            // Claimed once more, a shard would only be taken from its new owner.
            (End::Released | End::Fenced, _) if self.is_stopping => self.shared.board.remove(partition),
            (End::Released | End::Fenced, Then::Again) => self.start(partition, AFTER_FENCE),
            (End::Fenced, Then::Nothing) if !is_revoked => self.start(partition, AFTER_FENCE),
            (_, Then::Stay(reason)) => self.stay(partition, reason),
            (End::Stopped(reason), _) if !is_revoked => {
                tracing::error!(partition, %reason, "shard stopped; others go on");
                self.stay(partition, reason);
            }
            _ => self.shared.board.remove(partition),
        }
    }

    /// Gives up revoked partitions whose workers are all gone.
    fn release(&mut self, consumer: &mut dyn Consumer) {
        self.releasing.retain(|release| {
            if release.waiting.is_empty() {
                consumer.released(&release.partitions);
            }
            !release.waiting.is_empty()
        });
    }

    /// Tells all workers to stop.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.stopped.clear();
        for slot in self.slots.values_mut() {
            if slot.then == Then::Again {
                slot.then = Then::Nothing;
            }
            slot.stop.cancel();
        }
    }

    /// Partitions whose workers have not ended.
    pub fn at_work(&self) -> Vec<i32> {
        self.slots.keys().copied().collect()
    }
}

/// Looks now and then whether the shard's newest record is another than it was; a lake that does not answer is asked again.
async fn until_helped(shared: &Shared, partition: i32) {
    let every = shared.setup.settings.commit.retry_max.get();
    let mut known = None;
    loop {
        match shared.lake.head(shared.bus.topic(), partition).await {
            Ok(head) => {
                let n = head.map_or(0, |head| head.n);
                if *known.get_or_insert(n) != n {
                    return;
                }
            }
            Err(error) => tracing::debug!(partition, error = %causes(&error), "cannot look after the stopped shard"),
        }
        tokio::time::sleep(every).await;
    }
}
