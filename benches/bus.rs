//! A bus in memory: messages that are there from the start for a processor, acknowledgement at once for a gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use airan_bus::{Bus, ConsumeError, Consumer, Event, Received, SendError};
use airan_model::message::{Message, Rows};
use airan_model::reject::Rejected;
use airan_model::time::{Micros, SECOND};
use async_trait::async_trait;

use crate::fleet::START;

/// One partition of messages, the n-th appended at second n.
#[derive(Clone, Default)]
pub struct BenchBus {
    messages: Arc<Vec<Rows>>,
    committed: Arc<AtomicI64>,
    acknowledged: Arc<AtomicU64>,
}

impl BenchBus {
    /// Messages to be consumed.
    pub fn of(messages: Vec<Rows>) -> BenchBus {
        BenchBus { messages: Arc::new(messages), ..BenchBus::default() }
    }

    /// Everything before it is committed.
    pub fn committed(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
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
        1
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
        Ok(Box::new(BenchConsumer { bus: self.clone(), position: None, is_assigned: false, is_paused: false }))
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
    position: Option<usize>,
    is_assigned: bool,
    is_paused: bool,
}

#[async_trait]
impl Consumer for BenchConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        if !self.is_assigned {
            self.is_assigned = true;
            return Ok(Event::Assigned(vec![0]));
        }
        let next = self.position.filter(|_| !self.is_paused);
        if let Some((at, rows)) = next.and_then(|at| Some((at, self.bus.messages.get(at)?))) {
            self.position = Some(at + 1);
            let append_time = START + at as Micros * SECOND + SECOND / 20;
            let message = Message::Rows(rows.clone());
            return Ok(Event::Message(Received { partition: 0, offset: at as i64, append_time, message }));
        }
        tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        Ok(Event::Idle)
    }

    fn seek(&mut self, _: i32, offset: i64) -> Result<(), ConsumeError> {
        self.position = usize::try_from(offset).ok();
        Ok(())
    }

    fn pause(&mut self, _: i32) {
        self.is_paused = true;
    }

    fn resume(&mut self, _: i32) {
        self.is_paused = false;
    }

    fn released(&mut self, _: &[i32]) {}

    fn report(&mut self, _: i32, next_offset: i64) {
        self.bus.committed.store(next_offset, Ordering::Release);
    }

    async fn close(self: Box<Self>) {}
}
