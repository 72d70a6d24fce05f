//! What a bus and its consumer promise.

use std::time::Duration;

use airan_model::message::Message;
use airan_model::reject::Rejected;
use airan_model::time::Micros;
use async_trait::async_trait;

use crate::Counts;

/// A topic of a fixed number of partitions, and one for what was refused.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Name of the topic.
    fn topic(&self) -> &str;

    /// Number of its partitions, from 0 on.
    fn partitions(&self) -> i32;

    /// Sends a message and gives its offset, once it is durable (B1). Messages of one caller to one partition keep their order
    /// while the calls are made one after the other, answered or not. If the future is dropped the message may be sent all the
    /// same.
    async fn send(&self, partition: i32, message: Message) -> Result<i64, SendError>;

    /// Records something refused, once that is durable.
    async fn send_rejected(&self, rejected: Rejected) -> Result<(), SendError>;

    /// A consumer of the partitions that fall to this process. It gets [`Event::Assigned`] first.
    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError>;

    /// The first offset a partition still holds, and the one its next message will get.
    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError>;

    /// Whether messages can be sent now; otherwise why not, in a line.
    async fn ready(&self) -> Result<(), String>;

    /// What it has done since it was opened.
    fn counts(&self) -> Counts {
        Counts::default()
    }
}

/// Reads partitions. Used by one task; its methods do not block it.
#[async_trait]
pub trait Consumer: Send {
    /// The next event, or [`Event::Idle`] after `wait`. Dropping the future loses nothing.
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError>;

    /// Reads an assigned partition from `offset` on (B3); also when it is being read already, or was paused.
    ///
    /// # Errors
    /// If the partition is not assigned, or was revoked.
    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError>;

    /// Gives no more messages of a partition until it is resumed. A few may still come.
    fn pause(&mut self, partition: i32);

    /// Goes on with a paused partition where it stopped.
    fn resume(&mut self, partition: i32);

    /// Gives up partitions that were revoked, all of one [`Event::Revoked`]: their new owner can begin (B4).
    fn released(&mut self, partitions: &[i32]);

    /// Reports that everything before `next_offset` was processed. For those who watch the lag, and for the local log's
    /// retention; nothing is read from it.
    fn report(&mut self, partition: i32, next_offset: i64);

    /// Leaves; partitions go to others at once.
    async fn close(self: Box<Self>);
}

/// What a consumer is told, in one queue.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message.
    Message(Received),
    /// These partitions are this consumer's now. It says from where to read each of them with [`Consumer::seek`].
    Assigned(Vec<i32>),
    /// These partitions go to another consumer as soon as [`Consumer::released`] is called.
    Revoked(Vec<i32>),
    /// The offset to read from is not in the partition; it is no longer read until the next seek.
    OutOfRange {
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// The first offset the partition holds.
        first: i64,
        /// The offset its next message will get.
        next: i64,
    },
    /// The wait is over.
    Idle,
    /// The bus is away. It is tried again; the next message tells that it is back.
    Down {
        /// Why, in a line.
        reason: String,
    },
}

/// A message with its place.
#[derive(Clone, Debug)]
pub struct Received {
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the bus appended it. Kafka tells milliseconds.
    pub append_time: Micros,
    /// The message.
    pub message: Message,
}

/// Why a message was not sent. Each variant names the caller's next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Send it again later: it is not on the bus.
    #[error("the bus is away: {reason}")]
    Unavailable {
        /// Why, in a line.
        reason: String,
    },
    /// Send it again when there is room: it is not on the bus.
    #[error("the bus is full: {reason}")]
    Full {
        /// What is full.
        reason: String,
    },
    /// Make it smaller: it will never be taken.
    #[error("a message of {bytes} bytes is over the bus's limit of {limit}")]
    TooLarge {
        /// Size of the message.
        bytes: u64,
        /// Largest size.
        limit: u64,
    },
    /// Say that the outcome is unknown, or send it again where a duplicate is recognised: it may be on the bus.
    #[error("the bus did not say what became of the message: {reason}")]
    Unknown {
        /// Why, in a line.
        reason: String,
    },
    /// Ask for a partition that exists.
    #[error("no partition {partition}: the topic has {partitions}")]
    NoPartition {
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
}

/// Why a partition could not be read. Each variant names the caller's next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// Try again later.
    #[error("the bus is away: {reason}")]
    Unavailable {
        /// Why, in a line.
        reason: String,
    },
    /// Close the other consumer of this process first.
    #[error("the local log has one consumer at a time, and there is one")]
    Taken,
    /// Wait for the partition to be assigned.
    #[error("partition {partition} is not assigned to this consumer")]
    NotAssigned {
        /// The partition asked for.
        partition: i32,
    },
    /// Ask for a partition that exists.
    #[error("no partition {partition}: the topic has {partitions}")]
    NoPartition {
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
    /// Close this consumer; a new one may work once the cause is gone.
    #[error("the consumer cannot go on: {reason}")]
    Fatal {
        /// Why, in a line.
        reason: String,
    },
}
