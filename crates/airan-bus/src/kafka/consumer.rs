//! The consumer: messages and rebalances as events of one queue.
//!
//! librdkafka is told of a partition only when it is sought: [`Event::Assigned`] is answered with nothing, and
//! `seek` adds the partition with its offset to what is fetched. So nothing is fetched from a place nobody chose (B3), and
//! committed offsets are never read. A revocation is answered by `released`, when the shards have committed (B4); until then
//! librdkafka keeps the membership alive by itself, and fetches nothing, also not of the partitions that stay: the other shards
//! keep their state, and go on where they were a commit later.
//!
//! A member with a `group.instance.id` is static: killed and started again within the session's timeout it gets its partitions
//! back without a rebalance. librdkafka lets such a member close without a word, so that its partitions would lie idle until
//! the timeout; one that closes in order therefore unsubscribes first, which does tell the group (`leave`).
//!
//! A static member that was cut off for longer than its session joins anew, and what it had asked before that may still reach the
//! coordinator afterwards, under the member's old id: offsets it reported are sent again and again. The coordinator takes that for
//! another process of the same name and fences, which librdkafka takes for fatal. Such a member is put away and another one joins in
//! its place, once all shards have let go (`shut_out`); where nobody was cut off, or it goes on, it is what it looks like.
//!
//! librdkafka numbers what it is asked for a partition, and of two requests that overlap drops the one with the lower number for
//! good: paused while it begins to fetch, a partition is never fetched (its issue 2190), and resumed while a rebalance begins, it stays
//! paused (5591). So it is asked to pause only what has given a message since it was sought; the message with which a paused partition
//! begins is kept until it is resumed (`take`). After each rebalance all are told once more (`assure`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use airan_model::message::Message;
use airan_model::time::Micros;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::{INSTANCE, explain};
use super::link::{self, Link};
use super::{PATIENCE, Shared, producer};
use crate::counts::Counters;
use crate::{ConsumeError, Consumer, Event, Received};

/// How long leaving the group may take. Whoever is not told in time waits for the session's timeout instead.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// How long a static member waits to be asked for its partitions before it closes.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(3);
/// From the answer to that question until the coordinator has heard of it: one request, sent when fetching has stopped. librdkafka
/// does not say when that was; a machine with ten times the work it has cores for needed more than half a second.
const UNTIL_TOLD: Duration = Duration::from_millis(1_500);
/// For so long after it was lost, a membership may still be spoken for.
const AFTER_LOSS: Duration = Duration::from_secs(60);
/// How often a member that was shut out joins again within [`REJOINS_WITHIN`]. Two processes of one name would go on for ever.
pub(super) const REJOINS: usize = 2;
const REJOINS_WITHIN: Duration = Duration::from_secs(600);
/// How often a leaving member looks for librdkafka's questions.
const LOOK_EVERY: Duration = Duration::from_millis(10);

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
    shared: Arc<Shared>,
    contents: Contents,
    // Taken when it leaves.
    consumer: Option<Arc<StreamConsumer<Notes>>>,
    inbox: Arc<Inbox>,
    // What librdkafka fetches.
    reading: BTreeMap<i32, Reading>,
    // Messages with which paused partitions have begun.
    kept: BTreeMap<i32, Received>,
    assigned: BTreeSet<i32>,
    // Revocations that wait for `released`, and seeks that wait for them.
    revoked: BTreeSet<i32>,
    deferred: BTreeMap<i32, i64>,
    // librdkafka could not read on somewhere, and it is not yet known where.
    has_lost_range: bool,
    is_told_down: bool,
    // It was shut out, and joins again when nothing waits for `released`.
    joins_again: bool,
    // When it did so.
    rejoined: VecDeque<Instant>,
}

/// A partition that librdkafka fetches.
struct Reading {
    // The offset that comes next.
    due: i64,
    // A message has come since it was sought.
    has_begun: bool,
    is_paused: bool,
    // librdkafka was asked to pause it.
    is_asked: bool,
}

/// What the callbacks noted.
#[derive(Default)]
struct Inbox {
    notes: Mutex<Noted>,
    wake: Notify,
}

#[derive(Default)]
struct Noted {
    events: VecDeque<Event>,
    // There was a rebalance, and `assure` has not been called since.
    has_rebalanced: bool,
    // Partitions that librdkafka fetches, for the last unassignment when the consumer leaves.
    fetched: BTreeSet<i32>,
    is_leaving: bool,
    // When the membership was lost; until it has partitions again nothing is reported for it.
    lost: Option<Instant>,
    is_lost: bool,
    // While leaving: librdkafka has asked for all partitions, and was answered.
    is_let_go: bool,
}

impl Inbox {
    fn notes(&self) -> MutexGuard<'_, Noted> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a member stands when it leaves.
struct Leaver {
    topic: String,
    has_revoked: bool,
    has_partitions: bool,
    is_static: bool,
}

/// librdkafka's callbacks.
struct Notes {
    topic: String,
    inbox: Arc<Inbox>,
    link: Arc<Link>,
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        link::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.link.note(error.rdkafka_error_code(), reason);
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

fn list_of(topic: &str, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    list
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
        self.joins_again = true;
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
        Some(if lost.is_empty() { Event::Idle } else { Event::Revoked(lost) })
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

    /// The message, if it is the one that is due: what is left of an earlier place is dropped. What a paused partition begins with is
    /// kept.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Received> {
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
    fn let_go(&mut self) -> Option<Event> {
        let is_paused = |partition: &i32| self.reading.get(partition).is_some_and(|reading| reading.is_paused);
        let partition = self.kept.keys().copied().find(|partition| !is_paused(partition))?;
        self.kept.remove(&partition).map(Event::Message)
    }

    /// After a rebalance, says again which partitions are paused: what was said while it began may have been lost.
    fn assure(&mut self) {
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

    /// librdkafka does not say which partition it could not read on. Each is held against what the brokers have; one outside is
    /// told, the others are taken up again where they were.
    async fn find_lost_range(&mut self) -> Result<Option<Event>, ConsumeError> {
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
    fn forget(&mut self, partitions: impl IntoIterator<Item = i32>) -> Vec<i32> {
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
    fn stop_reading(&mut self, partitions: impl IntoIterator<Item = i32>) {
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

    fn read_from(&mut self, partition: i32, offset: i64, is_paused: bool) -> Result<(), ConsumeError> {
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

    fn want(&mut self, partition: i32, is_paused: bool) {
        if let Some(reading) = self.reading.get_mut(&partition) {
            reading.is_paused = is_paused;
            self.ask(partition);
        }
    }

    /// Answers what is still to be answered and leaves. Blocks until the group knows, or cannot be told.
    fn leave(consumer: Arc<StreamConsumer<Notes>>, inbox: &Inbox, leaver: &Leaver) {
        let mut notes = inbox.notes();
        notes.is_leaving = true;
        let has_unseen = notes.events.drain(..).any(|event| matches!(event, Event::Revoked(_)));
        if leaver.has_revoked || has_unseen {
            let fetched = std::mem::take(&mut notes.fetched);
            let _ = consumer.incremental_unassign(&list_of(&leaver.topic, fetched));
        }
        drop(notes);
        if leaver.is_static {
            KafkaConsumer::tell(&consumer, inbox, leaver.has_partitions);
        }
        drop(consumer);
    }

    /// Has a static member say that it leaves. Blocks for a moment.
    fn tell(consumer: &StreamConsumer<Notes>, inbox: &Inbox, has_partitions: bool) {
        consumer.unsubscribe();
        let begun = std::time::Instant::now();
        let mut let_go = (!has_partitions).then_some(begun);
        while begun.elapsed() < GIVE_UP_WITHIN && let_go.is_none_or(|at| at.elapsed() < UNTIL_TOLD) {
            // The question comes with a poll, and is answered in it; messages that come too will be read by the next owner.
            drop(consumer.recv().now_or_never());
            if let_go.is_none() && inbox.notes().is_let_go {
                let_go = Some(std::time::Instant::now());
            }
            std::thread::sleep(LOOK_EVERY);
        }
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
            if let Some(event) = self.let_go() {
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

impl KafkaConsumer {
    /// Leaves on a thread of its own, because that waits for the brokers, however long they are away. Resolves when it is done;
    /// None where it has left before.
    fn leaving(&mut self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let consumer = self.consumer.take()?;
        let inbox = Arc::clone(&self.inbox);
        let leaver = Leaver {
            topic: self.shared.topic.clone(),
            has_revoked: !self.revoked.is_empty(),
            has_partitions: !self.assigned.is_empty(),
            is_static: self.shared.config.consumer.get(INSTANCE).is_some_and(|name| !name.is_empty()),
        };
        let (done, left) = tokio::sync::oneshot::channel();
        let leaving = move || {
            KafkaConsumer::leave(consumer, &inbox, &leaver);
            let _ = done.send(());
        };
        let _ = std::thread::Builder::new().name("airan-leave".to_owned()).spawn(leaving);
        Some(left)
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        let _ = self.leaving();
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

fn at_its_place(message: &BorrowedMessage<'_>, meant: impl FnOnce(Bytes) -> Message) -> Received {
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
