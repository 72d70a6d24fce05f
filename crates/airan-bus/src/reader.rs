//! A look at a bus by somebody who takes no part in it: no group is joined, no lock taken, nothing written.
//!
//! For the tools of the command line, which also work while processors are down and, with the local log, while `airan up` runs.

use std::time::Duration;

use airan_model::time::Micros;
use bytes::Bytes;

use crate::kafka::KafkaReader;
use crate::local::LocalReader;
use crate::{BusSettings, ConsumeError, OpenError, Received};

/// How long a question to the bus may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The most records of refused things that one call gives: some 40 MB of them.
pub const REJECTED_MAX: usize = 100_000;

/// Reads a bus from the side.
pub struct Reader(Kind);

enum Kind {
    Local(LocalReader),
    Kafka(KafkaReader),
}

/// A record from the topic of what was refused, as it lies there: JSON where one of ours wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its offset, which names it.
    pub offset: i64,
    /// When the bus appended it.
    pub append_time: Micros,
    /// The record.
    pub record: Bytes,
}

impl Reader {
    /// Looks for the bus of these settings. Kafka is not asked yet.
    ///
    /// # Errors
    /// If the settings cannot be, or there is no local log in their folder.
    pub fn open(settings: &BusSettings) -> Result<Reader, OpenError> {
        Ok(Reader(match settings {
            BusSettings::Local(settings) => Kind::Local(LocalReader::open(settings)?),
            BusSettings::Kafka(settings) => Kind::Kafka(KafkaReader::open(settings)?),
        }))
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        match &self.0 {
            Kind::Local(reader) => reader.topic(),
            Kind::Kafka(reader) => reader.topic(),
        }
    }

    /// Number of its partitions, from 0 on.
    pub fn partitions(&self) -> i32 {
        match &self.0 {
            Kind::Local(reader) => reader.partitions(),
            Kind::Kafka(reader) => reader.partitions(),
        }
    }

    /// The first offset a partition still holds, and the one its next message will get.
    ///
    /// # Errors
    /// If the bus does not answer, or has no such partition.
    pub async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        match &self.0 {
            Kind::Local(reader) => reader.offsets(partition).await,
            Kind::Kafka(reader) => reader.offsets(partition).await,
        }
    }

    /// The message at an offset; None where the bus has it no more, or not yet.
    ///
    /// # Errors
    /// If the bus does not answer, or has no such partition.
    pub async fn message(&self, partition: i32, offset: i64) -> Result<Option<Received>, ConsumeError> {
        match &self.0 {
            Kind::Local(reader) => reader.message(partition, offset).await,
            Kind::Kafka(reader) => reader.message(partition, offset).await,
        }
    }

    /// Messages from an offset on, in their order, at most `most` of them; fewer where the bus has no more yet or has taken them out.
    ///
    /// # Errors
    /// If the bus does not answer, or has no such partition.
    pub async fn messages(&self, partition: i32, from: i64, most: usize) -> Result<Vec<Received>, ConsumeError> {
        match &self.0 {
            Kind::Local(reader) => reader.messages(partition, from, most).await,
            Kind::Kafka(reader) => reader.messages(partition, from, most).await,
        }
    }

    /// The newest records of what was refused, oldest first, at most `newest` and [`REJECTED_MAX`] of them.
    ///
    /// # Errors
    /// If the bus does not answer.
    pub async fn rejected(&self, newest: usize) -> Result<Vec<RejectedRecord>, ConsumeError> {
        let newest = newest.min(REJECTED_MAX);
        match &self.0 {
            Kind::Local(reader) => reader.rejected(newest).await,
            Kind::Kafka(reader) => reader.rejected(newest).await,
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("topic", &self.topic()).finish_non_exhaustive()
    }
}
