//! A bus in memory, whose rebalances, losses and outages a test decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use airan_bus::{Bus, ConsumeError, Consumer, Event, Received, SendError};
use airan_model::message::Message;
use airan_model::reject::Rejected;
use airan_model::time::Micros;
use async_trait::async_trait;

/// A topic in memory; one consumer at a time.
#[derive(Clone)]
pub(crate) struct MemoryBus {
    partitions: i32,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    log: BTreeMap<i32, Vec<Received>>,
    pub first: BTreeMap<i32, i64>,
    pub rejected: Vec<Rejected>,
    pub reported: BTreeMap<i32, i64>,
    pub released: Vec<i32>,
    pub paused: BTreeSet<i32>,
    pub was_paused: bool,
    /// The consumer can go on no more, for this reason.
    pub fatal: Option<String>,
    events: VecDeque<Event>,
    positions: BTreeMap<i32, i64>,
}

impl MemoryBus {
    pub fn new(partitions: i32) -> MemoryBus {
        MemoryBus { partitions, state: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Appends messages to a partition, keeping their append times.
    pub fn append(&self, partition: i32, messages: impl IntoIterator<Item = Received>) {
        let mut state = self.lock();
        let log = state.log.entry(partition).or_default();
        for message in messages {
            log.push(Received { partition, offset: log.len() as i64, ..message });
        }
    }

    pub fn append_message(&self, partition: i32, append_time: Micros, message: Message) {
        self.append(partition, [Received { partition, offset: 0, append_time, message }]);
    }

    /// The consumer sees this next.
    pub fn event(&self, event: Event) {
        let mut state = self.lock();
        if let Event::Revoked(partitions) = &event {
            partitions.iter().for_each(|partition| {
                state.positions.remove(partition);
            });
        }
        state.events.push_back(event);
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

    async fn send(&self, _: i32, _: Message) -> Result<i64, SendError> {
        unimplemented!("the processor sends no messages")
    }

    async fn send_rejected(&self, rejected: Rejected) -> Result<(), SendError> {
        self.lock().rejected.push(rejected);
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        self.lock().positions.clear();
        self.event(Event::Assigned((0..self.partitions).collect()));
        Ok(Box::new(MemoryConsumer { bus: self.clone() }))
    }

    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let state = self.lock();
        let next = state.log.get(&partition).map_or(0, Vec::len) as i64;
        Ok((state.first.get(&partition).copied().unwrap_or(0), next))
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

struct MemoryConsumer {
    bus: MemoryBus,
}

impl State {
    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let State { positions, log, first, paused, .. } = self;
        for (partition, position) in positions.iter_mut().filter(|(partition, _)| !paused.contains(partition)) {
            let first = first.get(partition).copied().unwrap_or(0);
            let next = log.get(partition).map_or(0, Vec::len) as i64;
            if *position < first || *position > next {
                let (partition, wanted) = (*partition, *position);
                positions.remove(&partition);
                return Some(Event::OutOfRange { partition, wanted, first, next });
            }
            if let Some(received) = log.get(partition).and_then(|log| log.get(*position as usize)) {
                *position += 1;
                return Some(Event::Message(received.clone()));
            }
        }
        None
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        if let Some(reason) = self.bus.lock().fatal.clone() {
            return Err(ConsumeError::Fatal { reason });
        }
        if let Some(event) = self.bus.lock().next() {
            return Ok(event);
        }
        tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        Ok(self.bus.lock().next().unwrap_or(Event::Idle))
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        self.bus.lock().positions.insert(partition, offset);
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        let mut state = self.bus.lock();
        state.was_paused = true;
        state.paused.insert(partition);
    }

    fn resume(&mut self, partition: i32) {
        self.bus.lock().paused.remove(&partition);
    }

    fn released(&mut self, partitions: &[i32]) {
        self.bus.lock().released.extend(partitions);
    }

    fn report(&mut self, partition: i32, next_offset: i64) {
        self.bus.lock().reported.insert(partition, next_offset);
    }

    async fn close(self: Box<Self>) {}
}
