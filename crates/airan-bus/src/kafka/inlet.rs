//! Topics of others: their messages in a group of ours, and offsets that are reported when a message has met its end.
//!
//! - **I1** An offset is reported only when every message before it that was given has been [`Inlet::done`]: after a crash the
//!   messages from there on come again, so each comes at least once, and one that comes again has its old place.
//! - **I2** Where messages have gone from the topic unread, reading goes on after them and the range is told.
//!
//! A partition without a reported offset begins where the settings say, and that place is reported at once, so that a crash
//! before the first message has met its end does not move it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use airan_model::settings::Secret;
use airan_model::time::Micros;
use bytes::Bytes;
use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::Config;
use super::consumer::{Contents, KafkaConsumer};
use super::{KafkaBus, Shared};
use crate::{ConsumeError, Consumer as _, Event, KafkaSettings, OpenError};

/// How often offsets are reported. What is read again after a crash is at most what came in this time and what was under way.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How often the ends of the partitions are asked for. librdkafka learns them with what it fetches, so of a partition that is held
/// it knows none that are new.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A topic that others write.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Where to begin, as `host:port,host:port`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The consumer group. Members of one group share the partitions.
    pub group: String,
    /// Where a partition begins that the group has never read.
    pub start: TopicStart,
    /// Properties of librdkafka, as they are.
    pub properties: BTreeMap<String, Secret>,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TopicStart {
    /// With the oldest message that is there.
    #[default]
    Earliest,
    /// With the next one.
    Latest,
}

/// A message of others, with its place.
#[derive(Clone, Debug)]
pub struct Given {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
    /// When it was written, by the broker or its producer. Kafka tells milliseconds.
    pub written_at: Micros,
    /// Its value; empty where it has none.
    pub payload: Bytes,
    // Of which assignment it is: a partition that went away and came back is read again from its reported offset.
    assignment: u64,
}

/// What an inlet is told.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A message.
    Message(Given),
    /// Messages have gone from the topic before they were read (I2): those from `wanted` up to, not including, `first`; or, where
    /// `wanted` is beyond `next`, the topic is not the one it was.
    Lost {
        /// The partition.
        partition: i32,
        /// The offset that was due.
        wanted: i64,
        /// The first offset the partition holds, where reading goes on.
        first: i64,
        /// The offset its next message will get.
        next: i64,
    },
    /// The brokers or the topic are away. They are tried again.
    Down {
        /// Why, in a line.
        reason: String,
    },
    /// The wait is over.
    Idle,
}

/// How far a partition is behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The partition.
    pub partition: i32,
    /// Offsets from the first message that has not met its end to the end of the partition, as last seen. Where producers use
    /// transactions their marks are offsets too, and some of them count here for good.
    pub messages: u64,
}

/// Reads a topic of others. Used by one task.
pub struct Inlet {
    shared: Arc<Shared>,
    // Ends with the inlet; watches the brokers.
    _bus: KafkaBus,
    start: TopicStart,
    consumer: Box<KafkaConsumer>,
    reading: BTreeMap<i32, Reading>,
    // Assigned, and not yet sought.
    unsought: BTreeSet<i32>,
    assignments: u64,
    is_held: bool,
    reported_at: Instant,
    ends: Ends,
}

/// Where the partitions end, as the brokers last said.
#[derive(Default)]
struct Ends {
    known: BTreeMap<i32, i64>,
    // A task of its own: brokers that do not answer hold up nothing.
    asking: Option<JoinHandle<Vec<(i32, i64)>>>,
    asked_at: Option<Instant>,
}

/// How far a partition has been read.
struct Reading {
    assignment: u64,
    // Messages that were given, by offset, and whether they have met their end.
    open: BTreeMap<i64, bool>,
    // Everything before it has met its end.
    next: i64,
    reported: Option<i64>,
}

impl Reading {
    fn end(&mut self, offset: i64) {
        if let Some(is_done) = self.open.get_mut(&offset) {
            *is_done = true;
        }
        while let Some(first) = self.open.first_entry().filter(|first| *first.get()) {
            self.next = first.remove_entry().0 + 1;
        }
    }
}

impl TopicSettings {
    /// Refuses what librdkafka would, without asking a broker.
    ///
    /// # Errors
    /// One line that names the property, and no value.
    pub fn check(&self) -> Result<(), OpenError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<Config, OpenError> {
        if self.properties.contains_key("group.id") {
            let line = "properties: `group.id` cannot be set: `group` says it";
            return Err(OpenError::Setting(line.to_owned()));
        }
        Config::under("", &self.as_bus())
    }

    fn as_bus(&self) -> KafkaSettings {
        let mut properties = self.properties.clone();
        properties.insert("group.id".to_owned(), Secret::from(self.group.clone()));
        // How many partitions there are is for the brokers to say.
        KafkaSettings { brokers: self.brokers.clone(), topic: self.topic.clone(), partitions: u16::MAX, properties }
    }
}

impl Inlet {
    /// Joins the group. The brokers need not be there yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Only where the settings cannot be.
    pub fn open(settings: &TopicSettings) -> Result<Inlet, OpenError> {
        let bus = KafkaBus::configured(settings.config()?, &settings.as_bus())?.watched();
        let shared = Arc::clone(&bus.shared);
        let consumer = KafkaConsumer::join(Arc::clone(&shared), Contents::Others)
            .map_err(|error| OpenError::Setting(error.to_string()))?;
        Ok(Inlet {
            shared,
            _bus: bus,
            start: settings.start,
            consumer: Box::new(consumer),
            reading: BTreeMap::new(),
            unsought: BTreeSet::new(),
            assignments: 0,
            is_held: false,
            reported_at: Instant::now(),
            ends: Ends::default(),
        })
    }

    /// The next message or news, or [`Arrival::Idle`] after `wait`. Reports offsets on the way, so it is to be called again and
    /// again. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If this inlet cannot go on: close it and open another.
    pub async fn next(&mut self, wait: Duration) -> Result<Arrival, ConsumeError> {
        let deadline = Instant::now() + wait;
        loop {
            if self.reported_at.elapsed() >= REPORT_EVERY {
                self.report();
            }
            self.look_for_ends();
            if !self.unsought.is_empty()
                && let Err(error) = self.seek().await
            {
                // The next call tries again; not in a hurry.
                tokio::time::sleep_until(deadline).await;
                return Ok(Arrival::Down { reason: error.to_string() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.next(left).await? {
                Event::Message(received) => {
                    let Some(reading) = self.reading.get_mut(&received.partition) else { continue };
                    reading.open.insert(received.offset, false);
                    return Ok(Arrival::Message(Given {
                        partition: received.partition,
                        offset: received.offset,
                        written_at: received.append_time,
                        assignment: reading.assignment,
                        payload: received.message.into_payload(),
                    }));
                }
                Event::Assigned(partitions) => self.unsought.extend(partitions),
                Event::Revoked(partitions) => {
                    self.report();
                    for partition in &partitions {
                        self.reading.remove(partition);
                        self.unsought.remove(partition);
                        self.ends.known.remove(partition);
                    }
                    self.consumer.released(&partitions);
                }
                Event::OutOfRange { partition, wanted, first, next } => {
                    self.read_from(partition, first)?;
                    return Ok(Arrival::Lost { partition, wanted, first, next });
                }
                Event::Down { reason } => return Ok(Arrival::Down { reason }),
                Event::Idle => return Ok(Arrival::Idle),
            }
        }
    }

    /// Says that a message has met its end (I1).
    pub fn done(&mut self, given: &Given) {
        let reading = self.reading.get_mut(&given.partition);
        if let Some(reading) = reading.filter(|reading| reading.assignment == given.assignment) {
            reading.end(given.offset);
        }
    }

    /// How far the partitions are behind that are read and whose end is known.
    pub fn behind(&self) -> Vec<Behind> {
        let of = |(partition, reading): (&i32, &Reading)| {
            let end = *self.ends.known.get(partition)?;
            let messages = u64::try_from(end.saturating_sub(reading.next)).unwrap_or(0);
            Some(Behind { partition: *partition, messages })
        };
        self.reading.iter().filter_map(of).collect()
    }

    /// Takes no more messages until [`Inlet::resume`]; a few may still come. `next` is to be called all the same, or the group
    /// takes the partitions away.
    pub fn hold(&mut self) {
        self.is_held = true;
        self.reading.keys().for_each(|partition| self.consumer.pause(*partition));
    }

    /// Goes on after [`Inlet::hold`].
    pub fn resume(&mut self) {
        self.is_held = false;
        self.reading.keys().for_each(|partition| self.consumer.resume(*partition));
    }

    /// Reports what has met its end, and leaves the group.
    pub async fn close(mut self) {
        self.report();
        self.consumer.close().await;
    }

    /// Begins with partitions that were assigned: where the group was, or else where the settings say.
    async fn seek(&mut self) -> Result<(), ConsumeError> {
        let partitions: Vec<i32> = self.unsought.iter().copied().collect();
        let committed = self.consumer.committed(&partitions).await?;
        for partition in partitions {
            let offset = match committed.get(&partition) {
                Some(offset) => *offset,
                None => {
                    let (first, next) = self.shared.offsets(partition).await?;
                    let offset = if self.start == TopicStart::Latest { next } else { first };
                    self.consumer.report(partition, offset);
                    offset
                }
            };
            self.unsought.remove(&partition);
            match self.read_from(partition, offset) {
                // It went away meanwhile, which the next event says.
                Ok(()) | Err(ConsumeError::NotAssigned { .. }) => {}
                Err(error) => {
                    self.unsought.insert(partition);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn read_from(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        self.consumer.seek(partition, offset)?;
        self.assignments += 1;
        let reading =
            Reading { assignment: self.assignments, open: BTreeMap::new(), next: offset, reported: Some(offset) };
        self.reading.insert(partition, reading);
        if self.is_held {
            self.consumer.pause(partition);
        }
        Ok(())
    }

    /// Takes in what was asked for, and asks again when it is time.
    fn look_for_ends(&mut self) {
        let ends = &mut self.ends;
        if let Some(asking) = ends.asking.take_if(|asking| asking.is_finished()) {
            let found = asking.now_or_never().and_then(Result::ok).unwrap_or_default();
            ends.known.extend(found.into_iter().filter(|(partition, _)| self.reading.contains_key(partition)));
        }
        let is_due = ends.asked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if !is_due || ends.asking.is_some() || self.reading.is_empty() {
            return;
        }
        ends.asked_at = Some(Instant::now());
        let (shared, partitions) = (Arc::clone(&self.shared), self.reading.keys().copied().collect::<Vec<_>>());
        ends.asking = Some(tokio::spawn(async move {
            let mut found = Vec::with_capacity(partitions.len());
            for partition in partitions {
                // What one does not tell in time the others would not either.
                let Ok((_, end)) = shared.offsets(partition).await else { break };
                found.push((partition, end));
            }
            found
        }));
    }

    fn report(&mut self) {
        self.reported_at = Instant::now();
        for (partition, reading) in &mut self.reading {
            if reading.reported != Some(reading.next) {
                reading.reported = Some(reading.next);
                self.consumer.report(*partition, reading.next);
            }
        }
    }
}

#[cfg(test)]
#[path = "inlet_tests.rs"]
mod tests;
