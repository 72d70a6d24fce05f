//! Sending messages, and what each way of failing means for the sender.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::config::{Config, explain};
use super::link::{Link, LinkContext};
use crate::{OpenError, SendError};

/// librdkafka's producer.
pub(super) type Producer = FutureProducer<LinkContext>;

/// The producer in use.
pub(super) struct Sending {
    config: Config,
    link: Arc<Link>,
    // Replaced when librdkafka says that it can no longer keep its promise of neither repeating nor reordering, and when it has
    // not found the brokers for long.
    producer: RwLock<Producer>,
}

impl Sending {
    pub fn new(config: &Config, link: Arc<Link>) -> Result<Sending, OpenError> {
        let producer = config.producer.create_with_context(LinkContext(Arc::clone(&link))).map_err(explain)?;
        Ok(Sending { config: config.clone(), link, producer: RwLock::new(producer) })
    }

    /// A handle on the producer in use.
    pub fn producer(&self) -> Producer {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends one message and waits for its acknowledgement.
    pub async fn send(
        &self,
        topic: &str,
        partition: i32,
        payload: &[u8],
        headers: &[(&'static str, String)],
    ) -> Result<i64, SendError> {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value.as_bytes()) });
        }
        let record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(topic).partition(partition).payload(payload).headers(owned);
        let producer = self.producer();
        let failed = |error: &KafkaError| {
            let failure = failure(error, payload.len(), self.config.message_max);
            self.renew_if_broken(&producer);
            failure
        };
        let delivery = producer.send_result(record).map_err(|(error, _record)| failed(&error))?;
        match delivery.await {
            Ok(Ok(delivered)) => Ok(delivered.offset),
            Ok(Err((error, _message))) => Err(failed(&error)),
            Err(_canceled) => Err(SendError::Unknown { reason: "the producer was closed".to_owned() }),
        }
    }

    /// Puts a new producer in the place of one that does not find the brokers. Messages of the old one end as unknown. Blocks.
    pub fn renew(&self) {
        match self.config.producer.create_with_context(LinkContext(Arc::clone(&self.link))) {
            Ok(fresh) => {
                tracing::debug!("the producer does not find the brokers and is replaced");
                let old = std::mem::replace(&mut *self.producer.write().unwrap_or_else(PoisonError::into_inner), fresh);
                drop(old);
            }
            Err(error) => tracing::warn!(error = %explain(error), "the producer cannot be replaced"),
        }
    }

    /// Puts a new producer in the place of one that met a fatal error. Messages of the old one end as unknown.
    fn renew_if_broken(&self, broken: &Producer) {
        let Some((code, reason)) = broken.client().fatal_error() else { return };
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if producer.client().fatal_error().is_none() {
            return;
        }
        match self.config.producer.create_with_context(LinkContext(Arc::clone(&self.link))) {
            Ok(fresh) => {
                tracing::warn!(%code, reason, "the producer lost its place and was replaced; what it held is unknown");
                *producer = fresh;
            }
            Err(error) => {
                tracing::error!(error = %explain(error), reason, "the producer is broken and cannot be replaced")
            }
        }
    }
}

/// What a failure tells about the message.
fn failure(error: &KafkaError, bytes: usize, limit: u32) -> SendError {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
    match code {
        Some(RDKafkaErrorCode::QueueFull) => SendError::Full { reason: "the producer's queue is full".to_owned() },
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            SendError::TooLarge { bytes: bytes as u64, limit: limit.into() }
        }
        // Refused before or instead of being written; every other answer leaves it open.
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::State,
        ) => SendError::Unavailable { reason },
        _ => SendError::Unknown { reason },
    }
}

/// Asks the brokers for a topic: an outer error if none answers, an inner one if not every partition can be written. Blocks.
pub(super) fn reach(producer: &Producer, topic: &str, patience: Duration) -> Result<Result<(), String>, String> {
    let metadata = producer.client().fetch_metadata(Some(topic), patience).map_err(|error| short(&error))?;
    let Some(found) = metadata.topics().first() else { return Ok(Err(format!("no topic `{topic}`"))) };
    if let Some(error) = found.error() {
        return Ok(Err(format!("topic `{topic}`: {}", RDKafkaErrorCode::from(error))));
    }
    let without = found.partitions().iter().filter(|partition| partition.leader() < 0).count();
    Ok(match without {
        0 => Ok(()),
        without => Err(format!("{without} partitions of topic `{topic}` have no leader")),
    })
}

/// First and next offset of a partition. Blocks.
pub(super) fn watermarks(
    producer: &Producer,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<(i64, i64), String> {
    producer.client().fetch_watermarks(topic, partition, patience).map_err(|error| short(&error))
}

/// librdkafka's words for an error.
pub(super) fn short(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the ways in which librdkafka ends a message.
    /// Guarantees: B1; only what surely was not written is told as not written.
    #[test]
    fn only_what_surely_was_not_written_is_told_so() {
        let told = |code| failure(&KafkaError::MessageProduction(code), 7, 5);
        assert!(matches!(told(RDKafkaErrorCode::QueueFull), SendError::Full { .. }));
        assert_eq!(told(RDKafkaErrorCode::MessageSizeTooLarge), SendError::TooLarge { bytes: 7, limit: 5 });
        for code in [RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::TopicAuthorizationFailed] {
            assert!(matches!(told(code), SendError::Unavailable { .. }), "{code}");
        }
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::PurgeInflight,
        ] {
            assert!(matches!(told(code), SendError::Unknown { .. }), "{code}");
        }
    }
}
