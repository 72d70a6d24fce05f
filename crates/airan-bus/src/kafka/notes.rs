//! What librdkafka says to a consumer outside its messages: rebalances, errors and logs, noted for the task that reads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::{self, Link};
use super::producer;
use crate::Event;

/// What the callbacks noted.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) notes: Mutex<Noted>,
    pub(super) wake: Notify,
}

#[derive(Default)]
pub(super) struct Noted {
    pub(super) events: VecDeque<Event>,
    // Whether the brokers are there is to be found out (`probe.rs`).
    pub(super) has_doubt: bool,
    // There was a rebalance, and `assure` has not been called since.
    pub(super) has_rebalanced: bool,
    // Partitions that librdkafka fetches, for the last unassignment when the consumer leaves.
    pub(super) fetched: BTreeSet<i32>,
    pub(super) is_leaving: bool,
    // When the membership was lost; until it has partitions again nothing is reported for it.
    pub(super) lost: Option<Instant>,
    pub(super) is_lost: bool,
    // While leaving: librdkafka has asked for all partitions, and was answered.
    pub(super) is_let_go: bool,
}

impl Inbox {
    pub(super) fn notes(&self) -> MutexGuard<'_, Noted> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka's callbacks.
pub(super) struct Notes {
    pub(super) topic: String,
    pub(super) inbox: Arc<Inbox>,
    pub(super) link: Arc<Link>,
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        link::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.inbox.notes().has_doubt = true;
        }
        self.link.note(code, reason);
    }
}

impl ConsumerContext for Notes {
    /// Runs inside a poll of this consumer, on its own task.
    fn rebalance(&self, consumer: &BaseConsumer<Notes>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements_for_topic(&self.topic).iter().map(|of| of.partition()).collect();
        let mut notes = self.inbox.notes();
        let is_assignment = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        // What asks for nothing is answered at once, and nobody is told.
        let is_empty = partitions.is_empty();
        let answer = match (is_assignment, notes.is_leaving) {
            // Accepted as they are; what is fetched of them is decided by `seek`.
            (true, _) => consumer.incremental_assign(&TopicPartitionList::new()),
            (false, true) => {
                notes.is_let_go = true;
                let fetched = std::mem::take(&mut notes.fetched);
                consumer.incremental_unassign(&list_of(&self.topic, fetched))
            }
            (false, false) if is_empty => consumer.incremental_unassign(&TopicPartitionList::new()),
            (false, false) => Ok(()),
        };
        if let Err(error) = answer {
            tracing::warn!(?partitions, error = %producer::short(&error), "a rebalance could not be answered");
        }
        let lost = !is_assignment && consumer.assignment_lost();
        if lost {
            tracing::warn!(?partitions, "membership was lost: the group gave the partitions away");
        }
        // One that was lost by being fenced says nothing of the time before.
        if lost && consumer.client().fatal_error().is_none() {
            notes.lost = Some(Instant::now());
        }
        notes.is_lost = lost || (notes.is_lost && !is_assignment);
        notes.has_rebalanced = true;
        notes.has_doubt |= lost;
        if !notes.is_leaving && !is_empty {
            notes.events.push_back(match is_assignment {
                true => Event::Assigned(partitions),
                false => Event::Revoked(partitions),
            });
        }
        drop(notes);
        self.inbox.wake.notify_one();
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Only those who watch the lag read it, and the next report repeats it.
            tracing::debug!(error = %producer::short(&error), "an offset could not be reported");
        }
    }
}

/// Partitions of a topic, without offsets.
pub(super) fn list_of(topic: &str, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}
