//! A topic over the logs of one machine with several consumers, of which a test decides who owns what, and who is told of it.
//!
//! Nothing keeps two consumers from owning one partition at the same time: that is what a consumer looks like that was frozen
//! or cut off while its partitions went to others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use airan_bus::{Bus, ConsumeError, Consumer, Event, Received, SendError, frame};
use airan_model::message::Message;
use airan_model::reject::Rejected;
use async_trait::async_trait;

use super::machine::Machine;

pub(crate) struct State {
    pub machine: Machine,
    members: BTreeMap<usize, Member>,
    /// The newest report of each partition, whoever made it.
    pub reported: BTreeMap<i32, i64>,
}

#[derive(Default)]
struct Member {
    assigned: BTreeSet<i32>,
    events: VecDeque<Event>,
    positions: BTreeMap<i32, i64>,
    paused: BTreeSet<i32>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Topic {
    state: Arc<Mutex<State>>,
}

impl Topic {
    pub(crate) fn on(machine: Machine) -> Topic {
        let state = State { machine, members: BTreeMap::new(), reported: BTreeMap::new() };
        Topic { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The bus as a process sees it.
    pub(crate) fn of(&self, process: usize) -> Arc<dyn Bus> {
        Arc::new(View { topic: self.clone(), process })
    }

    /// Retention removes what was reported as processed.
    pub(crate) fn expire(&self, partition: usize) {
        let mut state = self.lock();
        let needed = state.reported.get(&(partition as i32)).copied().unwrap_or_default();
        state.machine.expire(partition, needed);
    }

    /// A process has these partitions from now on; `is_told`: it hears of those it loses.
    pub(crate) fn assign(&self, process: usize, partitions: &BTreeSet<i32>, is_told: bool) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&process) else { return };
        let lost: Vec<i32> = member.assigned.difference(partitions).copied().collect();
        let new: Vec<i32> = partitions.difference(&member.assigned).copied().collect();
        if is_told && !lost.is_empty() {
            for partition in &lost {
                member.assigned.remove(partition);
                member.positions.remove(partition);
            }
            member.events.push_back(Event::Revoked(lost));
        }
        if !new.is_empty() {
            member.assigned.extend(&new);
            member.events.push_back(Event::Assigned(new));
        }
    }

    /// It is gone.
    pub(crate) fn leave(&self, process: usize) {
        self.lock().members.remove(&process);
    }
}

struct View {
    topic: Topic,
    process: usize,
}

#[async_trait]
impl Bus for View {
    fn topic(&self) -> &str {
        "simulated"
    }

    fn partitions(&self) -> i32 {
        self.topic.lock().machine.partitions() as i32
    }

    async fn send(&self, _: i32, _: Message) -> Result<i64, SendError> {
        unimplemented!("the processor sends no messages")
    }

    async fn send_rejected(&self, _: Rejected) -> Result<(), SendError> {
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        self.topic.lock().members.insert(self.process, Member::default());
        Ok(Box::new(View { topic: self.topic.clone(), process: self.process }))
    }

    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let state = self.topic.lock();
        let log = state.machine.log(partition as usize);
        let log = log.ok_or_else(|| ConsumeError::Unavailable { reason: "the machine is down".to_owned() })?;
        Ok((log.first() as i64, log.next() as i64))
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

impl State {
    fn next(&mut self, process: usize) -> Option<Event> {
        let member = self.members.get_mut(&process)?;
        if let Some(event) = member.events.pop_front() {
            return Some(event);
        }
        let Member { positions, paused, .. } = member;
        for (partition, position) in positions.iter_mut().filter(|(partition, _)| !paused.contains(partition)) {
            let (partition, from) = (*partition, *position);
            let Some(log) = self.machine.log(partition as usize) else { continue };
            let (first, next) = (log.first() as i64, log.next() as i64);
            if from < first || from > next {
                positions.remove(&partition);
                return Some(Event::OutOfRange { partition, wanted: from, first, next });
            }
            // One record at a time.
            let batch = log.read(from as u64, 1).unwrap();
            *position = batch.next as i64;
            if let Some(record) = batch.records.into_iter().next() {
                return Some(Event::Message(Received {
                    partition,
                    offset: record.offset as i64,
                    append_time: record.time,
                    message: frame::decode(&record.body).expect("a message of this release"),
                }));
            }
        }
        None
    }
}

#[async_trait]
impl Consumer for View {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        if let Some(event) = self.topic.lock().next(self.process) {
            return Ok(event);
        }
        tokio::time::sleep(wait).await;
        Ok(self.topic.lock().next(self.process).unwrap_or(Event::Idle))
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        let mut state = self.topic.lock();
        match state.members.get_mut(&self.process).filter(|member| member.assigned.contains(&partition)) {
            Some(member) => {
                member.positions.insert(partition, offset);
                member.paused.remove(&partition);
                Ok(())
            }
            None => Err(ConsumeError::NotAssigned { partition }),
        }
    }

    fn pause(&mut self, partition: i32) {
        if let Some(member) = self.topic.lock().members.get_mut(&self.process) {
            member.paused.insert(partition);
        }
    }

    fn resume(&mut self, partition: i32) {
        if let Some(member) = self.topic.lock().members.get_mut(&self.process) {
            member.paused.remove(&partition);
        }
    }

    fn released(&mut self, _: &[i32]) {}

    fn report(&mut self, partition: i32, next_offset: i64) {
        let mut state = self.topic.lock();
        let reported = state.reported.entry(partition).or_default();
        // A zombie's report is old.
        *reported = next_offset.max(*reported);
    }

    async fn close(self: Box<Self>) {
        self.topic.leave(self.process);
    }
}
