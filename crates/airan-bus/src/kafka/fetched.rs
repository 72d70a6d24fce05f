//! What librdkafka fetches for a consumer: from where, what is paused, and what has gone from the topic before it was read.
//!
//! librdkafka numbers what it is asked for a partition, and of two requests that overlap drops the one with the lower number for
//! good: paused while it begins to fetch, a partition is never fetched (its issue 2190), and resumed while a rebalance begins, it stays
//! paused (5591). So it is asked to pause only what has given a message since it was sought; the message with which a paused partition
//! begins is kept until it is resumed (`take`). After each rebalance all are told once more (`assure`).

use airan_model::message::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::{Contents, KafkaConsumer, at_its_place, received};
use super::notes::list_of;
use super::producer;
use crate::counts::Counters;
use crate::{ConsumeError, Event, Received};

/// A partition that librdkafka fetches.
pub(super) struct Reading {
    // The offset that comes next.
    pub(super) due: i64,
    // A message has come since it was sought.
    pub(super) has_begun: bool,
    pub(super) is_paused: bool,
    // librdkafka was asked to pause it.
    pub(super) is_asked: bool,
}

impl KafkaConsumer {
    /// The message, if it is the one that is due: what is left of an earlier place is dropped. What a paused partition begins with is
    /// kept.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Received> {
        let (partition, offset) = (message.partition(), message.offset());
        let reading = self.reading.get_mut(&partition)?;
        if offset < reading.due || self.revoked.contains(&partition) {
            return None;
        }
        reading.due = offset + 1;
        let is_first = !std::mem::replace(&mut reading.has_begun, true);
        let is_kept = is_first && reading.is_paused;
        Counters::add(&self.shared.counters.received, 1);
        let received = match self.contents {
            Contents::Ours => received(message),
            Contents::Others => at_its_place(message, |payload| Message::Foreign { reason: String::new(), payload }),
        };
        if !is_kept {
            return Some(received);
        }
        self.kept.insert(partition, received);
        self.ask(partition);
        None
    }

    /// A message that was kept, of a partition that goes on.
    pub(super) fn let_go(&mut self) -> Option<Event> {
        let is_paused = |partition: &i32| self.reading.get(partition).is_some_and(|reading| reading.is_paused);
        let partition = self.kept.keys().copied().find(|partition| !is_paused(partition))?;
        self.kept.remove(&partition).map(Event::Message)
    }

    /// After a rebalance, says again which partitions are paused: what was said while it began may have been lost.
    pub(super) fn assure(&mut self) {
        if !self.revoked.is_empty() || !std::mem::take(&mut self.inbox.notes().has_rebalanced) {
            return;
        }
        let (asked, others): (Vec<_>, Vec<_>) = self.reading.iter().partition(|(_, reading)| reading.is_asked);
        let others = others.into_iter().filter(|(_, reading)| reading.has_begun);
        self.pauses(asked.into_iter().map(|(partition, _)| *partition), true);
        self.pauses(others.map(|(partition, _)| *partition), false);
    }

    /// Asks librdkafka to pause partitions, or to let them go on.
    fn pauses(&self, partitions: impl Iterator<Item = i32>, is_paused: bool) {
        let Some(consumer) = &self.consumer else { return };
        let list = list_of(&self.shared.topic, partitions);
        if list.count() == 0 {
            return;
        }
        if let Err(error) = if is_paused { consumer.pause(&list) } else { consumer.resume(&list) } {
            let partitions: Vec<i32> = list.elements().iter().map(|of| of.partition()).collect();
            tracing::warn!(?partitions, is_paused, error = %producer::short(&error), "partitions could not be paused or resumed");
        }
    }

    /// Asks librdkafka, where it may be asked, for what is wanted of a partition.
    fn ask(&mut self, partition: i32) {
        let Some(reading) = self.reading.get_mut(&partition) else { return };
        let is_paused = reading.is_paused;
        if reading.has_begun && reading.is_asked != is_paused {
            reading.is_asked = is_paused;
            self.pauses([partition].into_iter(), is_paused);
        }
    }

    /// librdkafka does not say which partition it could not read on. Each is held against what the brokers have; one outside is
    /// told, the others are taken up again where they were.
    pub(super) async fn find_lost_range(&mut self) -> Result<Option<Event>, ConsumeError> {
        let is_read = |partition: &i32| !self.deferred.contains_key(partition) && !self.revoked.contains(partition);
        let reading = self.reading.iter().filter(|(partition, _)| is_read(partition));
        let place = |(partition, reading): (&i32, &Reading)| {
            let wanted = self.kept.get(partition).map_or(reading.due, |kept| kept.offset);
            (*partition, wanted, reading.is_paused)
        };
        let places: Vec<(i32, i64, bool)> = reading.map(place).collect();
        for (partition, wanted, is_paused) in places {
            let (first, next) = self.shared.offsets(partition).await?;
            if wanted < first || wanted > next {
                self.stop_reading([partition]);
                return Ok(Some(Event::OutOfRange { partition, wanted, first, next }));
            }
            self.read_from(partition, wanted, is_paused)?;
        }
        self.has_lost_range = false;
        Ok(None)
    }

    /// Those of the partitions that are fetched; they are not known as such any more.
    pub(super) fn forget(&mut self, partitions: impl IntoIterator<Item = i32>) -> Vec<i32> {
        let mut known = Vec::new();
        for partition in partitions {
            self.kept.remove(&partition);
            let Some(reading) = self.reading.remove(&partition) else { continue };
            if reading.is_asked {
                // A pause would outlive the assignment.
                self.pauses([partition].into_iter(), false);
            }
            known.push(partition);
        }
        known
    }

    /// Takes partitions out of what is fetched.
    pub(super) fn stop_reading(&mut self, partitions: impl IntoIterator<Item = i32>) {
        let known = self.forget(partitions);
        if known.is_empty() {
            return;
        }
        let Some(consumer) = &self.consumer else { return };
        let mut notes = self.inbox.notes();
        known.iter().for_each(|partition| {
            notes.fetched.remove(partition);
        });
        drop(notes);
        let list = list_of(&self.shared.topic, known.iter().copied());
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::warn!(partitions = ?known, error = %producer::short(&error), "partitions could not be put down");
        }
    }

    pub(super) fn read_from(&mut self, partition: i32, offset: i64, is_paused: bool) -> Result<(), ConsumeError> {
        if !self.revoked.is_empty() && self.reading.contains_key(&partition) {
            // Taking it out now would look to librdkafka like the answer to the revocation.
            self.deferred.insert(partition, offset);
            self.kept.remove(&partition);
            if let Some(reading) = self.reading.get_mut(&partition) {
                (reading.due, reading.is_paused) = (i64::MAX, is_paused);
            }
            return Ok(());
        }
        self.stop_reading([partition]);
        let unavailable = |error: KafkaError| ConsumeError::Unavailable { reason: producer::short(&error) };
        let consumer = self.consumer.as_ref().ok_or(ConsumeError::NotAssigned { partition })?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.shared.topic, partition, Offset::Offset(offset)).map_err(unavailable)?;
        consumer.incremental_assign(&list).map_err(unavailable)?;
        self.inbox.notes().fetched.insert(partition);
        self.reading.insert(partition, Reading { due: offset, has_begun: false, is_paused, is_asked: false });
        Ok(())
    }

    pub(super) fn want(&mut self, partition: i32, is_paused: bool) {
        if let Some(reading) = self.reading.get_mut(&partition) {
            reading.is_paused = is_paused;
            self.ask(partition);
        }
    }
}
