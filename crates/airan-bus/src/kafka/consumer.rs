//! The consumer: messages and rebalances as events of one queue.
//!
//! librdkafka is told of a partition only when it is sought: [`Event::Assigned`] is answered with nothing, and
//! `seek` adds the partition with its offset to what is fetched. So nothing is fetched from a place nobody chose (B3), and
//! committed offsets are never read. A revocation is answered by `released`, when the shards have committed (B4); until then
//! librdkafka keeps the membership alive by itself, and fetches nothing, also not of the partitions that stay: the other shards
//! keep their state, and go on where they were a commit later.
//!
//! A static member that was cut off for longer than its session joins anew, and what it had asked before that may still reach the
//! coordinator afterwards, under the member's old id: offsets it reported are sent again and again. The coordinator takes that for
//! another process of the same name and fences, which librdkafka takes for fatal. Such a member is put away and another one joins in
//! its place, once all shards have let go (`shut_out`); where nobody was cut off, or it goes on, it is what it looks like.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use airan_model::message::Message;
use airan_model::time::Micros;
use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::config::{INSTANCE, explain};
use super::fetched::Reading;
use super::notes::{Inbox, Notes, list_of};
use super::probe::Probe;
use super::{PATIENCE, Shared, producer};
use crate::{ConsumeError, Consumer, Event, Received};

/// How long leaving the group may take. Whoever is not told in time waits for the session's timeout instead.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// For so long after it was lost, a membership may still be spoken for.
const AFTER_LOSS: Duration = Duration::from_secs(60);
/// How often a member that was shut out joins again within [`REJOINS_WITHIN`]. Two processes of one name would go on for ever.
pub(super) const REJOINS: usize = 2;
const REJOINS_WITHIN: Duration = Duration::from_secs(600);

/// Whose messages a topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Ours: headers say what a message is.
    Ours,
    /// Those of others: the payload is all there is, whatever headers say.
    Others,
}

/// A member of the consumer group.
pub(super) struct KafkaConsumer {
    pub(super) shared: Arc<Shared>,
    pub(super) contents: Contents,
    // Taken when it leaves.
    pub(super) consumer: Option<Arc<StreamConsumer<Notes>>>,
    pub(super) inbox: Arc<Inbox>,
    // What librdkafka fetches.
    pub(super) reading: BTreeMap<i32, Reading>,
    // Messages with which paused partitions have begun.
    pub(super) kept: BTreeMap<i32, Received>,
    pub(super) assigned: BTreeSet<i32>,
    // Revocations that wait for `released`, and seeks that wait for them.
    pub(super) revoked: BTreeSet<i32>,
    pub(super) deferred: BTreeMap<i32, i64>,
    // librdkafka could not read on somewhere, and it is not yet known where.
    pub(super) has_lost_range: bool,
    is_told_down: bool,
    // It was shut out, and joins again when nothing waits for `released`.
    joins_again: bool,
    // When it did so.
    rejoined: VecDeque<Instant>,
    pub(super) probe: Probe,
}

impl KafkaConsumer {
    /// Joins the group.
    pub fn join(shared: Arc<Shared>, contents: Contents) -> Result<KafkaConsumer, ConsumeError> {
        let inbox = Arc::<Inbox>::default();
        let consumer = KafkaConsumer::member(&shared, &inbox)?;
        Ok(KafkaConsumer {
            shared,
            contents,
            consumer: Some(Arc::new(consumer)),
            inbox,
            reading: BTreeMap::new(),
            kept: BTreeMap::new(),
            assigned: BTreeSet::new(),
            revoked: BTreeSet::new(),
            deferred: BTreeMap::new(),
            has_lost_range: false,
            is_told_down: false,
            joins_again: false,
            rejoined: VecDeque::new(),
            probe: Probe::default(),
        })
    }

    /// A client that joins the group, and notes what happens in `inbox`.
    fn member(shared: &Shared, inbox: &Arc<Inbox>) -> Result<StreamConsumer<Notes>, ConsumeError> {
        let notes = Notes { topic: shared.topic.clone(), inbox: Arc::clone(inbox), link: Arc::clone(&shared.link) };
        let fatal = |reason: String| ConsumeError::Fatal { reason };
        let consumer: StreamConsumer<Notes> =
            shared.config.consumer.create_with_context(notes).map_err(|error| fatal(explain(error).to_string()))?;
        consumer.subscribe(&[&shared.topic]).map_err(|error| fatal(producer::short(&error)))?;
        Ok(consumer)
    }

    /// Puts a member away that the group has fenced for what it had asked before it lost its membership. `None` where that cannot be
    /// why, or has happened too often. Otherwise all its partitions are revoked, and it joins again when they are released.
    fn shut_out(&mut self) -> Option<Event> {
        let was_lost = self.inbox.notes().lost.is_some_and(|at| at.elapsed() < AFTER_LOSS);
        self.rejoined.retain(|at| at.elapsed() < REJOINS_WITHIN);
        if !(was_lost || self.shared.link.was_away()) || self.rejoined.len() >= REJOINS {
            return None;
        }
        tracing::warn!(
            name = self.shared.config.consumer.get(INSTANCE).unwrap_or_default(),
            "the group has shut out this member, which was cut off: joining again"
        );
        self.rejoined.push_back(Instant::now());
        Some(self.put_away())
    }

    /// Puts the member away, which joins again when the partitions it had are released. Gives their revocation.
    pub(super) fn put_away(&mut self) -> Event {
        self.joins_again = true;
        self.probe = Probe::default();
        let old = std::mem::take(&mut self.inbox);
        old.notes().is_leaving = true;
        if let Some(consumer) = self.consumer.take() {
            // It has no membership that it could give up; its last words with the brokers may take a while.
            let _ = std::thread::Builder::new().name("airan-leave".to_owned()).spawn(move || drop(consumer));
        }
        self.reading.clear();
        self.kept.clear();
        self.deferred.clear();
        self.has_lost_range = false;
        let lost: Vec<i32> = std::mem::take(&mut self.assigned).into_iter().collect();
        self.revoked.extend(&lost);
        if lost.is_empty() { Event::Idle } else { Event::Revoked(lost) }
    }

    /// Joins again, if it is to and can.
    fn join_again(&mut self) -> Result<(), ConsumeError> {
        if self.joins_again && self.revoked.is_empty() {
            self.consumer = Some(Arc::new(KafkaConsumer::member(&self.shared, &self.inbox)?));
            self.joins_again = false;
        }
        Ok(())
    }

    /// An event that a callback noted.
    fn noted(&mut self) -> Option<Event> {
        let event = self.inbox.notes().events.pop_front()?;
        match &event {
            Event::Assigned(partitions) => self.assigned.extend(partitions),
            Event::Revoked(partitions) => {
                for partition in partitions {
                    self.assigned.remove(partition);
                    self.deferred.remove(partition);
                    self.kept.remove(partition);
                }
                self.revoked.extend(partitions);
            }
            _ => {}
        }
        Some(event)
    }

    /// The offsets that the group has reported, of those partitions for which it has.
    ///
    /// # Errors
    /// If the brokers do not answer.
    pub async fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, ConsumeError> {
        let unavailable = |reason: String| ConsumeError::Unavailable { reason };
        let consumer = self.consumer.clone().ok_or_else(|| unavailable("the consumer has left".to_owned()))?;
        let list = list_of(&self.shared.topic, partitions.iter().copied());
        let asking = tokio::task::spawn_blocking(move || consumer.committed_offsets(list, PATIENCE));
        let answer = asking.await.map_err(|error| unavailable(error.to_string()))?;
        let list = answer.map_err(|error| unavailable(producer::short(&error)))?;
        let mut committed = BTreeMap::new();
        for of in list.elements() {
            of.error().map_err(|error| unavailable(producer::short(&error)))?;
            if let Offset::Offset(offset) = of.offset() {
                committed.insert(of.partition(), offset);
            }
        }
        Ok(committed)
    }

    /// What an error of librdkafka means.
    fn heed(&mut self, consumer: &StreamConsumer<Notes>, error: &KafkaError) -> Result<Option<Event>, ConsumeError> {
        let reason = producer::short(error);
        if let Some((code, detail)) = consumer.client().fatal_error() {
            if code == RDKafkaErrorCode::FencedInstanceId
                && let Some(event) = self.shut_out()
            {
                return Ok(Some(event));
            }
            let reason = match code {
                RDKafkaErrorCode::FencedInstanceId => {
                    fenced(self.shared.config.consumer.get(INSTANCE).unwrap_or_default(), self.shared.link.was_away())
                }
                code => format!("{code}: {detail}"),
            };
            return Err(ConsumeError::Fatal { reason });
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.has_lost_range = true;
                Ok(None)
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::PollExceeded,
            ) => Ok(Some(Event::Down { reason })),
            // librdkafka comes back to it for ever: what it cannot read is not jumped over.
            Some(RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::NotImplemented) => {
                let reason = format!(
                    "a message is compressed in a way that this build does not read ({reason}): none, gzip, snappy, lz4 and zstd are read"
                );
                Ok(Some(Event::Down { reason }))
            }
            _ => {
                tracing::debug!(reason, "trouble while consuming: librdkafka tries again");
                Ok(None)
            }
        }
    }

    /// That the brokers are away, once for each time.
    fn down(&mut self) -> Option<Event> {
        let down = self.shared.link.down();
        let is_news = down.is_some() && !self.is_told_down;
        self.is_told_down = down.is_some();
        down.filter(|_| is_news).map(|reason| Event::Down { reason })
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        let deadline = Instant::now() + wait;
        self.join_again()?;
        if self.joins_again {
            // Shards have yet to let go of what it had.
            tokio::time::sleep_until(deadline).await;
            return Ok(Event::Idle);
        }
        let Some(consumer) = self.consumer.clone() else {
            return Err(ConsumeError::Fatal { reason: "the consumer has left".to_owned() });
        };
        let inbox = Arc::clone(&self.inbox);
        loop {
            if let Some(event) = self.noted().or_else(|| self.down()) {
                return Ok(event);
            }
            self.assure();
            if let Some(event) = self.let_go().or_else(|| self.look_for_brokers()) {
                return Ok(event);
            }
            if self.has_lost_range
                && let Some(event) = self.find_lost_range().await?
            {
                return Ok(event);
            }
            tokio::select! {
                biased;
                message = consumer.recv() => match message {
                    Ok(message) => {
                        if let Some(received) = self.take(&message) {
                            return Ok(Event::Message(received));
                        }
                    }
                    Err(error) => {
                        if let Some(event) = self.heed(&consumer, &error)? {
                            return Ok(event);
                        }
                    }
                },
                () = inbox.wake.notified() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(self.noted().unwrap_or(Event::Idle)),
            }
        }
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        if !self.assigned.contains(&partition) {
            return Err(ConsumeError::NotAssigned { partition });
        }
        self.read_from(partition, offset, false)
    }

    fn pause(&mut self, partition: i32) {
        self.want(partition, true);
    }

    fn resume(&mut self, partition: i32) {
        self.want(partition, false);
    }

    fn released(&mut self, partitions: &[i32]) {
        let known = self.forget(partitions.iter().copied());
        let mut notes = self.inbox.notes();
        for partition in partitions {
            self.revoked.remove(partition);
            notes.fetched.remove(partition);
        }
        drop(notes);
        let Some(consumer) = &self.consumer else { return };
        let list = list_of(&self.shared.topic, known);
        // Also when nothing of it was fetched: librdkafka waits for the answer.
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::warn!(?partitions, error = %producer::short(&error), "revoked partitions could not be given up");
        }
        if self.revoked.is_empty() {
            for (partition, offset) in std::mem::take(&mut self.deferred) {
                let is_paused = self.reading.get(&partition).is_some_and(|reading| reading.is_paused);
                if let Err(error) = self.read_from(partition, offset, is_paused) {
                    tracing::warn!(partition, offset, %error, "cannot go to the offset");
                }
            }
        }
    }

    fn report(&mut self, partition: i32, next_offset: i64) {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.shared.topic, partition, Offset::Offset(next_offset));
        // The group has given it to another, and what is said now would be held against the member that joins anew.
        let Some(consumer) = self.consumer.as_ref().filter(|_| !self.inbox.notes().is_lost) else { return };
        if let Err(error) = added.and_then(|()| consumer.commit(&list, CommitMode::Async)) {
            tracing::debug!(partition, next_offset, error = %producer::short(&error), "an offset could not be reported");
        }
    }

    async fn close(mut self: Box<Self>) {
        let Some(left) = self.leaving() else { return };
        if tokio::time::timeout(LEAVE_WITHIN, left).await.is_err() {
            tracing::warn!(
                "the group did not answer in time: it gives the partitions away after the session's timeout"
            );
        }
    }
}

/// Why the group has fenced the static member `name`: it knows a later one of that name. That can be this process itself. Cut off for longer
/// than its session it asks to join over and over, and where two of its requests arrive, the member that the first one made is fenced by the
/// second. librdkafka takes that for fatal, and no member comes back from it.
fn fenced(name: &str, was_away: bool) -> String {
    let another =
        "another process has joined it under this name (then give each processor a processor.instance of its own)";
    let itself = "this process was cut off from the brokers for longer than its session and has joined twice (then start it again: it goes \
                  on where it had committed)";
    let (likely, other) = if was_away { (itself, another) } else { (another, itself) };
    format!("the group has shut out `{name}`: either {likely}, or {other}")
}

/// A message with its place.
pub(super) fn received(message: &BorrowedMessage<'_>) -> Received {
    let headers = message.headers();
    let named = headers.into_iter().flat_map(|headers| headers.iter());
    let named = named.map(|header| (header.key, header.value.unwrap_or_default()));
    at_its_place(message, |payload| Message::from_headers(named, payload))
}

pub(super) fn at_its_place(message: &BorrowedMessage<'_>, meant: impl FnOnce(Bytes) -> Message) -> Received {
    let payload = message.payload().map(Bytes::copy_from_slice).unwrap_or_default();
    Received {
        partition: message.partition(),
        offset: message.offset(),
        append_time: message.timestamp().to_millis().map_or(0, |millis| Micros::from(millis) * 1_000),
        message: meant(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: a member that is fenced is told both causes and what to do about each, in one line, and first the one that what is
    /// known of the brokers speaks for.
    #[test]
    fn a_fenced_member_is_told_both_causes() {
        for (was_away, first) in [(true, "this process was cut off"), (false, "another process has joined")] {
            let told = fenced("p-1", was_away);
            assert!(told.contains("`p-1`: either ") && told.contains(&format!("either {first}")), "{told}");
            assert!(told.contains("start it again") && told.contains("processor.instance of its own"), "{told}");
            assert!(!told.contains('\n') && !told.contains("  "), "{told}");
        }
    }
}
