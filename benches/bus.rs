//! A bus in memory: messages that are there from the start for a processor, acknowledgement at once for a gateway.
//!
//! With several partitions each of them holds the same messages: shards share nothing, so none notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use airan_bus::{Bus, ConsumeError, Consumer, Event, Received, SendError};
use airan_model::message::{Message, Rows};
use airan_model::reject::Rejected;
use airan_model::time::{Micros, SECOND};
use async_trait::async_trait;

use crate::fleet::START;

/// Messages, the n-th appended at second n.
#[derive(Clone, Default)]
pub struct BenchBus {
    messages: Arc<Vec<Rows>>,
    // By partition.
    committed: Arc<Vec<AtomicI64>>,
    acknowledged: Arc<AtomicU64>,
    // Over what time the messages come, all of them; None: they are there.
    over: Option<Duration>,
}

impl BenchBus {
    /// Messages to be consumed from one partition.
    pub fn of(messages: Vec<Rows>) -> BenchBus {
        BenchBus::of_partitions(messages, 1)
    }

    /// The same messages from each of several partitions.
    pub fn of_partitions(messages: Vec<Rows>, partitions: usize) -> BenchBus {
        let committed = (0..partitions).map(|_| AtomicI64::new(0)).collect();
        BenchBus { messages: Arc::new(messages), committed: Arc::new(committed), ..BenchBus::default() }
    }

    /// Messages that come to the one partition one after the other, all within `over`.
    pub fn over(messages: Vec<Rows>, over: Duration) -> BenchBus {
        BenchBus { over: Some(over), ..BenchBus::of(messages) }
    }

    /// Everything before it is committed, in every partition.
    pub fn committed(&self) -> i64 {
        self.committed.iter().map(|offset| offset.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// Rows acknowledged to senders.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
}

#[async_trait]
impl Bus for BenchBus {
    fn topic(&self) -> &str {
        "bench"
    }

    fn partitions(&self) -> i32 {
        self.committed.len().max(1) as i32
    }

    async fn send(&self, _: i32, message: Message) -> Result<i64, SendError> {
        if let Message::Rows(rows) = message {
            self.acknowledged.fetch_add(rows.rows, Ordering::AcqRel);
        }
        Ok(0)
    }

    async fn send_rejected(&self, _: Rejected) -> Result<(), SendError> {
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        Ok(Box::new(BenchConsumer {
            bus: self.clone(),
            spots: BTreeMap::new(),
            last: -1,
            is_assigned: false,
            start: Instant::now(),
        }))
    }

    async fn offsets(&self, _: i32) -> Result<(i64, i64), ConsumeError> {
        Ok((0, self.messages.len() as i64))
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

struct BenchConsumer {
    bus: BenchBus,
    spots: BTreeMap<i32, Spot>,
    // The partition of the message before: the next one is another's, if there is one.
    last: i32,
    is_assigned: bool,
    start: Instant,
}

struct Spot {
    next: usize,
    is_paused: bool,
}

#[async_trait]
impl Consumer for BenchConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        if !self.is_assigned {
            self.is_assigned = true;
            return Ok(Event::Assigned((0..self.bus.partitions()).collect()));
        }
        let messages = Arc::clone(&self.bus.messages);
        let come = match self.bus.over {
            Some(over) => (self.start.elapsed().as_secs_f64() / over.as_secs_f64() * messages.len() as f64) as usize,
            None => messages.len(),
        };
        let has_next = |spot: &Spot| !spot.is_paused && spot.next < come.min(messages.len());
        let after = self.spots.range(self.last + 1..).chain(self.spots.range(..=self.last));
        let turn = after.filter(|(_, spot)| has_next(spot)).map(|(partition, _)| *partition).next();
        if let Some((partition, spot)) = turn.and_then(|of| Some((of, self.spots.get_mut(&of)?))) {
            let at = spot.next;
            (spot.next, self.last) = (at + 1, partition);
            let append_time = START + at as Micros * SECOND + SECOND / 20;
            let message = Message::Rows(messages[at].clone());
            return Ok(Event::Message(Received { partition, offset: at as i64, append_time, message }));
        }
        tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        Ok(Event::Idle)
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        self.spots.insert(partition, Spot { next: offset as usize, is_paused: false });
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        if let Some(spot) = self.spots.get_mut(&partition) {
            spot.is_paused = true;
        }
    }

    fn resume(&mut self, partition: i32) {
        if let Some(spot) = self.spots.get_mut(&partition) {
            spot.is_paused = false;
        }
    }

    fn released(&mut self, _: &[i32]) {}

    fn report(&mut self, partition: i32, next_offset: i64) {
        if let Some(committed) = self.bus.committed.get(partition as usize) {
            committed.store(next_offset, Ordering::Release);
        }
    }

    async fn close(self: Box<Self>) {}
}
