//! Reading Kafka from the side: a consumer that is in no group and is told from where to where.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::consumer::received;
use super::{KafkaBus, producer, topics};
use crate::reader::{PATIENCE, RejectedRecord};
use crate::{ConsumeError, KafkaSettings, OpenError, Received};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// Reads topics without a group.
pub(crate) struct KafkaReader {
    bus: KafkaBus,
}

/// A stretch of a partition: offsets from `from` up to, not including, `until`.
struct Stretch {
    topic: String,
    partition: i32,
    from: i64,
    until: i64,
}

impl KafkaReader {
    pub fn open(settings: &KafkaSettings) -> Result<KafkaReader, OpenError> {
        Ok(KafkaReader { bus: KafkaBus::connect(settings)? })
    }

    pub fn topic(&self) -> &str {
        &self.bus.shared.topic
    }

    pub fn partitions(&self) -> i32 {
        self.bus.shared.partitions
    }

    pub async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        self.bus.shared.offsets(partition).await
    }

    pub async fn message(&self, partition: i32, offset: i64) -> Result<Option<Received>, ConsumeError> {
        let (first, next) = self.offsets(partition).await?;
        if offset < first || offset >= next {
            return Ok(None);
        }
        let stretch = Stretch { topic: self.topic().to_owned(), partition, from: offset, until: offset + 1 };
        let read = self.read(stretch).await?;
        Ok(read.into_iter().find(|received| received.offset == offset))
    }

    pub async fn messages(&self, partition: i32, from: i64, most: usize) -> Result<Vec<Received>, ConsumeError> {
        let (first, next) = self.offsets(partition).await?;
        let from = from.max(first);
        let until = next.min(from.saturating_add(i64::try_from(most).unwrap_or(i64::MAX)));
        self.read(Stretch { topic: self.topic().to_owned(), partition, from, until }).await
    }

    pub async fn rejected(&self, newest: usize) -> Result<Vec<RejectedRecord>, ConsumeError> {
        let topic = topics::rejected_topic(self.topic());
        let name = topic.clone();
        let asked = self.bus.shared.ask(move |producer, _| producer::watermarks(producer, &name, 0, PATIENCE));
        let (first, until) = asked.await.map_err(|reason| ConsumeError::Unavailable { reason })?;
        let from = first.max(until.saturating_sub(i64::try_from(newest).unwrap_or(i64::MAX)));
        let read = self.read(Stretch { topic, partition: 0, from, until }).await?;
        let record = |received: Received| RejectedRecord {
            offset: received.offset,
            append_time: received.append_time,
            record: received.message.into_payload(),
        };
        Ok(read.into_iter().map(record).collect())
    }

    async fn read(&self, stretch: Stretch) -> Result<Vec<Received>, ConsumeError> {
        let config = self.bus.shared.config.consumer.clone();
        let reading = tokio::task::spawn_blocking(move || stretch.read(&config));
        reading
            .await
            .map_err(|error| ConsumeError::Unavailable { reason: error.to_string() })?
            .map_err(|reason| ConsumeError::Unavailable { reason })
    }
}

impl Stretch {
    /// Every message of it that is there. Blocks; gives up when nothing has come for [`PATIENCE`].
    fn read(&self, config: &ClientConfig) -> Result<Vec<Received>, String> {
        let mut read = Vec::new();
        if self.from >= self.until {
            return Ok(read);
        }
        let mut config = config.clone();
        // The end of the partition is told, because offsets may be left out.
        config.remove(super::config::INSTANCE).set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().map_err(|error| producer::short(&error))?;
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(self.from);
        list.add_partition_offset(&self.topic, self.partition, offset).map_err(|error| producer::short(&error))?;
        consumer.assign(&list).map_err(|error| producer::short(&error))?;
        let mut heard = Instant::now();
        while heard.elapsed() < PATIENCE {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let received = received(&message);
                    let is_last = received.offset + 1 >= self.until;
                    if received.offset < self.until {
                        read.push(received);
                    }
                    if is_last {
                        return Ok(read);
                    }
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::PartitionEOF) => return Ok(read),
                    // Retention has taken what was to be read.
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => return Ok(read),
                    _ => {
                        tracing::debug!(error = %producer::short(&error), "trouble while reading: librdkafka tries again")
                    }
                },
            }
        }
        Err(format!("nothing came of topic `{}` for {PATIENCE:?}", self.topic))
    }
}
