//! The bus as a log on the local disk, for one process.
//!
//! ```text
//! send ──▶ queue ──▶ writer thread: append, one sync for all that waited ──▶ log ──▶ consumer
//!                                  ▲ committed offset, retention ◀── report ◀──┘
//! ```
//!
//! A folder holds one log per partition and one for what was refused (`airan-log`), the `about` file with topic and partition
//! count (B5), and a lock that keeps a second process out. Whatever is not yet reported as processed is never removed: when the
//! log is full of it, `send` answers [`SendError::Full`].

mod consumer;
mod files;
pub mod frame;
mod partition;
mod reader;
mod space;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use airan_model::message::Message;
use airan_model::reject::Rejected;
use airan_model::time::Clock;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use self::consumer::LocalConsumer;
use self::files::{About, Lock};
use self::partition::{Partition, Store};
pub(crate) use self::reader::LocalReader;
use self::space::Space;
use crate::counts::Counters;
use crate::{Bus, ConsumeError, Consumer, Counts, LocalSettings, OpenError, SendError};

/// The share of the whole log that records of refused things may take: one in this many bytes.
const REJECTED_SHARE: u64 = 32;
/// Segments that each partition has at least when the log is full, so that the oldest can go while the newest is written.
const SEGMENTS_EACH: u64 = 4;
/// The smallest segment worth a file.
const SEGMENT_MIN: u64 = 64 << 10;

/// Folder of what was refused.
const REJECTED: &str = "rejected";

/// Folder of a partition.
fn folder_of(partition: i32) -> String {
    format!("partition-{partition:04}")
}

/// The local log.
pub(crate) struct LocalBus {
    inner: Arc<Inner>,
}

/// What the bus and its consumer share. Writers end, and the lock is let go, with the last of them.
struct Inner {
    topic: String,
    partitions: Vec<Partition>,
    rejected: Partition,
    counters: Arc<Counters>,
    space: Arc<Space>,
    // Wakes the one consumer when a message was appended.
    arrivals: Arc<Notify>,
    has_consumer: AtomicBool,
    // Dropped after the partitions, whose writers use the folder.
    _lock: Lock,
}

impl LocalBus {
    /// Opens the log in a folder, or makes one. Blocks on the disk.
    pub fn open(settings: &LocalSettings, clock: Clock) -> Result<LocalBus, OpenError> {
        let lock = Lock::take(&settings.path)?;
        let about = About::open(&settings.path, &settings.topic, settings.partitions)?;
        let count = u64::from(about.partitions) + 1;
        let max_bytes = settings.max_bytes.get();
        let segment_bytes = settings.segment_bytes.get().min(max_bytes / count / SEGMENTS_EACH).max(SEGMENT_MIN);
        let open = |folder: PathBuf| Store::open(folder, segment_bytes).map(Arc::new);
        let folders = (0..about.partitions).map(|number| settings.path.join(folder_of(number.into())));
        let stores: Vec<Arc<Store>> = folders.map(open).collect::<Result<_, _>>()?;
        let rejected = open(settings.path.join(REJECTED))?;

        let space = Space::new(stores.clone(), Arc::clone(&rejected), max_bytes, settings.max_age.micros(), clock);
        let (space, counters) = (Arc::new(space), Arc::<Counters>::default());
        let arrivals = Arc::new(Notify::new());
        let start = |name: String, store: Arc<Store>| {
            Partition::start(name, store, Arc::clone(&space), Arc::clone(&counters), Arc::clone(&arrivals))
                .map_err(|source| OpenError::Io { doing: "start a thread for", path: settings.path.clone(), source })
        };
        let rejected = start("airan-rejected".to_owned(), rejected)?;
        let partitions =
            stores.into_iter().enumerate().map(|(number, store)| start(format!("airan-log-{number}"), store));
        let partitions: Vec<Partition> = partitions.collect::<Result<_, _>>()?;
        tracing::info!(
            path = %settings.path.display(),
            topic = about.topic,
            partitions = about.partitions,
            bytes = space.used(),
            "local log opened"
        );
        let has_consumer = AtomicBool::new(false);
        let inner =
            Inner { topic: about.topic, partitions, rejected, counters, space, arrivals, has_consumer, _lock: lock };
        Ok(LocalBus { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn partition(&self, partition: i32) -> Option<&Partition> {
        usize::try_from(partition).ok().and_then(|number| self.partitions.get(number))
    }

    fn count(&self) -> i32 {
        self.partitions.len() as i32
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn topic(&self) -> &str {
        &self.inner.topic
    }

    fn partitions(&self) -> i32 {
        self.inner.count()
    }

    async fn send(&self, partition: i32, message: Message) -> Result<i64, SendError> {
        let partitions = self.inner.count();
        let target = self.inner.partition(partition).ok_or(SendError::NoPartition { partition, partitions })?;
        let (head, payload) = frame::encode(message);
        let bytes = payload.len();
        let outcome = target.send(head, payload).await;
        self.inner.counters.end(bytes, &outcome);
        outcome
    }

    async fn send_rejected(&self, rejected: Rejected) -> Result<(), SendError> {
        let payload = Bytes::from(rejected.to_json());
        self.inner.rejected.send(Vec::new(), payload).await.map(|_offset| ())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        if self.inner.has_consumer.swap(true, Ordering::SeqCst) {
            return Err(ConsumeError::Taken);
        }
        Ok(Box::new(LocalConsumer::new(Arc::clone(&self.inner))))
    }

    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let partitions = self.inner.count();
        let of = self.inner.partition(partition).ok_or(ConsumeError::NoPartition { partition, partitions })?;
        Ok(of.store.offsets())
    }

    async fn ready(&self) -> Result<(), String> {
        self.inner.space.trouble().map_or(Ok(()), Err)
    }

    fn counts(&self) -> Counts {
        self.inner.counters.read(self.inner.space.used())
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
#[cfg(test)]
mod upgrade_tests;
