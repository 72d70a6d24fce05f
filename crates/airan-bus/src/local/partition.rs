//! One partition: its log, its queue, and the thread that writes.
//!
//! Sends that wait while the disk syncs are written together and share the next sync (group commit). The writer alone decides
//! append times, which never go back (B2).

use airan_model::causes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use airan_log::{AppendError, BODY_MAX, Log, NewRecord, Options, RECORD_OVERHEAD};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::files::Committed;
use super::space::Space;
use crate::counts::{Counters, Waiting};
use crate::{OpenError, SendError};

/// Messages that may wait for one partition's writer. Enough to keep it busy while it syncs; beyond it senders wait, and what
/// they hold is bounded by the gateway.
const QUEUE_MAX: usize = 256;
/// Bytes written with one sync. More would make the first of them wait for no gain.
const BATCH_BYTES: usize = 8 << 20;

/// A partition's log, and how far it was processed.
#[derive(Debug)]
pub(super) struct Store {
    pub folder: PathBuf,
    pub log: Log,
    file: Committed,
    // As reported by the consumer, and as it is on disk. What is on disk decides what may go.
    reported: AtomicU64,
    committed: AtomicU64,
}

impl Store {
    pub fn open(folder: PathBuf, segment_bytes: u64) -> Result<Store, OpenError> {
        let file = Committed::of(&folder);
        let committed = file.read();
        let opened = Log::open(&folder, Options { segment_bytes, next_at_least: committed });
        let (log, _repair) = opened.map_err(|source| OpenError::Log { path: folder.clone(), source })?;
        let (reported, committed) = (AtomicU64::new(committed), AtomicU64::new(committed));
        Ok(Store { folder, log, file, reported, committed })
    }

    /// First and next offset.
    pub fn offsets(&self) -> (i64, i64) {
        (self.log.first() as i64, self.log.next() as i64)
    }

    /// Everything before this was processed, and that is on disk.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Makes the newest report durable; true if there was a newer one.
    fn commit(&self) -> bool {
        let reported = self.reported.load(Ordering::Acquire).min(self.log.next());
        if reported <= self.committed() {
            return false;
        }
        match self.file.write(reported) {
            Ok(()) => self.committed.store(reported, Ordering::Release),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "processed offset cannot be written: more is kept");
            }
        }
        true
    }
}

enum Job {
    Append {
        head: Vec<u8>,
        payload: Bytes,
        answer: oneshot::Sender<Result<i64, SendError>>,
    },
    /// There is a new report.
    Look,
}

/// A partition at work. Dropping it ends its writer, after what is queued.
pub(super) struct Partition {
    pub store: Arc<Store>,
    counters: Arc<Counters>,
    // Both are taken when it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Partition {
    pub fn start(
        name: String,
        store: Arc<Store>,
        space: Arc<Space>,
        counters: Arc<Counters>,
        arrivals: Arc<Notify>,
    ) -> io::Result<Partition> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let last_time = store.log.last_time().unwrap_or(i64::MIN);
        let writer = Writer { store: Arc::clone(&store), space, counters: Arc::clone(&counters), arrivals, last_time };
        let writer = std::thread::Builder::new().name(name).spawn(move || writer.run(queue))?;
        Ok(Partition { store, counters, jobs: Some(jobs), writer: Some(writer) })
    }

    /// Queues a message, waiting for a place, and waits for the disk.
    pub async fn send(&self, head: Vec<u8>, payload: Bytes) -> Result<i64, SendError> {
        let (bytes, limit) = ((head.len() + payload.len()) as u64, BODY_MAX as u64);
        if bytes > limit {
            return Err(SendError::TooLarge { bytes, limit });
        }
        let _waiting = Waiting::new(&self.counters);
        let gone = || SendError::Unavailable { reason: "the log's writer has ended".to_owned() };
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job::Append { head, payload, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(SendError::Unknown { reason: "the log's writer ended".to_owned() }))
    }

    /// Takes a report; the writer makes it durable.
    pub fn report(&self, next_offset: u64) {
        self.store.reported.fetch_max(next_offset, Ordering::AcqRel);
        if let Some(jobs) = &self.jobs {
            // A writer whose queue is full looks all the same when it has written.
            let _ = jobs.try_send(Job::Look);
        }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(folder = %self.store.folder.display(), "the log's writer panicked");
        }
    }
}

struct Writer {
    store: Arc<Store>,
    space: Arc<Space>,
    counters: Arc<Counters>,
    arrivals: Arc<Notify>,
    last_time: i64,
}

type Waiter = (Vec<u8>, Bytes, oneshot::Sender<Result<i64, SendError>>);

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch: Vec<Waiter> = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let (mut next, mut bytes) = (Some(first), 0);
            while let Some(job) = next {
                if let Job::Append { head, payload, answer } = job {
                    bytes += RECORD_OVERHEAD + head.len() + payload.len();
                    batch.push((head, payload, answer));
                }
                next = if bytes < BATCH_BYTES { queue.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.write(&mut batch, bytes as u64);
            }
            let has_changed = self.store.commit();
            self.space.look(has_changed);
        }
    }

    fn write(&mut self, batch: &mut Vec<Waiter>, bytes: u64) {
        let outcome = self.append(batch, bytes);
        if outcome.is_ok() {
            self.arrivals.notify_one();
        }
        let (first, failure) = match outcome {
            Ok(first) => (first, None),
            Err(error) => (0, Some(error)),
        };
        for (offset, (.., answer)) in (first..).zip(batch.drain(..)) {
            // The sender may have gone away; the message is there all the same.
            let _ = answer.send(failure.clone().map_or(Ok(offset as i64), Err));
        }
    }

    /// Appends a batch with one sync, and gives the first offset.
    fn append(&mut self, batch: &[Waiter], bytes: u64) -> Result<u64, SendError> {
        let promise = self.space.promise(bytes).map_err(|reason| SendError::Full { reason })?;
        let time = self.space.clock.now().max(self.last_time);
        let records: Vec<NewRecord<'_>> =
            batch.iter().map(|(head, payload, _)| NewRecord { time, head, payload }).collect();
        let appended = self.store.log.append(&records);
        drop(promise);
        Counters::add(&self.counters.syncs, 1);
        match appended {
            Ok(offsets) => {
                self.last_time = time;
                self.space.note_disk(None);
                Ok(offsets.start)
            }
            Err(error) => {
                let reason = causes(&error);
                if !matches!(error, AppendError::TooLarge { .. }) {
                    self.space.note_disk(Some(reason.clone()));
                }
                Err(match error {
                    AppendError::TooLarge { bytes, limit } => {
                        SendError::TooLarge { bytes: bytes as u64, limit: limit as u64 }
                    }
                    AppendError::DiskFull(_) => SendError::Full { reason },
                    AppendError::NotWritten(_) => SendError::Unavailable { reason },
                    AppendError::Unknown(_) => SendError::Unknown { reason },
                })
            }
        }
    }
}
