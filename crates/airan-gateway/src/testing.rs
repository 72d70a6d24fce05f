//! A bus in memory, whose answers a test chooses, and rows to put on it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use airan_bus::{Bus, ConsumeError, Consumer, SendError};
use airan_decode::DecodedRows;
use airan_model::catalog::Catalog;
use airan_model::inventory::Inventory;
use airan_model::message::Message;
use airan_model::reject::Rejected;
use airan_model::time::Micros;
use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tokio::sync::Notify;

/// 2026-11-24T10:00:00Z.
pub(crate) const NOW: Micros = 1_795_514_400_000_000;

/// What the bus does with the next messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Unavailable,
    Full,
    Unknown,
    TooLarge,
    /// Answers only after `MemoryBus::release`.
    Holds,
}

/// Keeps what it takes.
pub(crate) struct MemoryBus {
    partitions: i32,
    mood: Mutex<Box<dyn Fn(i32) -> Mood + Send>>,
    pub taken: Mutex<Vec<(i32, Message)>>,
    pub rejected: Mutex<Vec<Rejected>>,
    /// Messages with rows that it was given, taken or not.
    pub sends: AtomicUsize,
    released: Notify,
}

impl MemoryBus {
    pub fn new(partitions: i32) -> Arc<MemoryBus> {
        Arc::new(MemoryBus {
            partitions,
            mood: Mutex::new(Box::new(|_| Mood::Takes)),
            taken: Mutex::default(),
            rejected: Mutex::default(),
            sends: AtomicUsize::new(0),
            released: Notify::new(),
        })
    }

    /// From now on, on every partition.
    pub fn set(&self, mood: Mood) {
        self.set_by_partition(move |_| mood);
    }

    pub fn set_by_partition(&self, mood: impl Fn(i32) -> Mood + Send + 'static) {
        *self.mood.lock().unwrap() = Box::new(mood);
    }

    /// Lets go of all messages held now.
    pub fn release(&self) {
        self.released.notify_waiters();
    }

    /// Messages with rows, decoded, by partition and stream.
    pub fn rows(&self) -> Vec<(i32, String, RecordBatch)> {
        let taken = self.taken.lock().unwrap();
        let rows = |(partition, message): &(i32, Message)| match message {
            Message::Rows(rows) => Some((*partition, rows.stream.to_string(), rows.decode().unwrap())),
            _ => None,
        };
        taken.iter().filter_map(rows).collect()
    }

    pub fn row_count(&self) -> usize {
        self.rows().iter().map(|(_, _, rows)| rows.num_rows()).sum()
    }

    pub fn ticks(&self) -> Vec<i32> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(_, message)| matches!(message, Message::Tick)).map(|(partition, _)| *partition).collect()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn topic(&self) -> &str {
        "memory"
    }

    fn partitions(&self) -> i32 {
        self.partitions
    }

    async fn send(&self, partition: i32, message: Message) -> Result<i64, SendError> {
        if matches!(message, Message::Rows(_)) {
            self.sends.fetch_add(1, Ordering::SeqCst);
        }
        let mood = (self.mood.lock().unwrap())(partition);
        match mood {
            Mood::Takes => {}
            Mood::Holds => self.released.notified().await,
            Mood::Unavailable => return Err(unavailable()),
            Mood::Full => return Err(full()),
            Mood::Unknown => return Err(unknown()),
            Mood::TooLarge => return Err(too_large()),
        }
        let mut taken = self.taken.lock().unwrap();
        taken.push((partition, message));
        Ok(taken.len() as i64 - 1)
    }

    async fn send_rejected(&self, rejected: Rejected) -> Result<(), SendError> {
        if (self.mood.lock().unwrap())(-1) == Mood::Unavailable {
            return Err(unavailable());
        }
        self.rejected.lock().unwrap().push(rejected);
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        unimplemented!("the gateway does not consume")
    }

    async fn offsets(&self, _partition: i32) -> Result<(i64, i64), ConsumeError> {
        unimplemented!("the gateway does not consume")
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) fn unavailable() -> SendError {
    SendError::Unavailable { reason: "no broker".to_owned() }
}

pub(crate) fn full() -> SendError {
    SendError::Full { reason: "the log has no room".to_owned() }
}

pub(crate) fn unknown() -> SendError {
    SendError::Unknown { reason: "no answer in time".to_owned() }
}

pub(crate) fn too_large() -> SendError {
    SendError::TooLarge { bytes: 2, limit: 1 }
}

pub(crate) fn catalog() -> Arc<Catalog> {
    Arc::new(Catalog::builtin().unwrap())
}

/// Three sites of two regions: nodes `a1`, `a2` at site-a, `b1` at site-b, `c1` at site-c.
pub(crate) fn inventory() -> Arc<Inventory> {
    let text = "regions:\n- name: north\n  jurisdiction: eu\n  sites:\n  - {name: site-a, nodes: [a1, a2]}\n  \
                - {name: site-b, nodes: [b1]}\n- name: south\n  jurisdiction: eu\n  sites:\n  - {name: site-c, nodes: [c1]}\n";
    Arc::new(Inventory::parse("test", text).unwrap())
}

/// Rows of `accelerator`, one for each node, all at `NOW`, device `gpu-<row>`.
pub(crate) fn accelerator(catalog: &Catalog, nodes: &[&str]) -> DecodedRows {
    accelerator_at(catalog, &nodes.iter().map(|node| (*node, NOW)).collect::<Vec<_>>())
}

pub(crate) fn accelerator_at(catalog: &Catalog, rows: &[(&str, Micros)]) -> DecodedRows {
    let ts: TimestampMicrosecondArray = rows.iter().map(|(_, ts)| Some(*ts)).collect();
    let node: StringArray = rows.iter().map(|(node, _)| Some(*node)).collect();
    let device: StringArray = (0..rows.len()).map(|row| Some(format!("gpu-{row}"))).collect();
    let utilization: Float64Array = (0..rows.len()).map(|row| Some(row as f64 / 100.0)).collect();
    table(
        catalog,
        "accelerator",
        vec![
            ("ts", Arc::new(ts.with_timezone("UTC"))),
            ("node", Arc::new(node)),
            ("device", Arc::new(device)),
            ("utilization", Arc::new(utilization)),
        ],
    )
}

pub(crate) fn table(catalog: &Catalog, stream: &str, columns: Vec<(&str, ArrayRef)>) -> DecodedRows {
    DecodedRows {
        stream: Arc::clone(catalog.stream(stream).unwrap()),
        rows: RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap(),
    }
}

/// Waits until something is so, or fails after five seconds.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about within 5 s");
}
