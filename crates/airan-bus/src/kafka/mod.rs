//! The bus over Apache Kafka, through librdkafka.
//!
//! | file | owns |
//! | --- | --- |
//! | `config.rs` | settings → librdkafka's configuration |
//! | `topics.rs`, `admin.rs` | topics: what they must be like; making and asking |
//! | `producer.rs` | sending, and what each failure means |
//! | `consumer.rs` | events: messages, rebalances, lost ranges |
//! | `link.rs` | whether the brokers are there |
//!
//! librdkafka's callbacks take notes and wake someone up; they decide nothing and never wait.

mod admin;
mod config;
mod consumer;
mod link;
mod producer;
mod topics;

use std::sync::{Arc, Weak};
use std::time::Duration;

use airan_model::message::Message;
use airan_model::reject::Rejected;
use async_trait::async_trait;
use tokio::time::Instant;

use self::admin::{Admin, Fault};
use self::config::Config;
use self::consumer::KafkaConsumer;
use self::link::Link;
use self::producer::Sending;
use self::topics::Use;
use crate::counts::{Counters, Waiting};
use crate::{Bus, ConsumeError, Consumer, Counts, KafkaSettings, OpenError, SendError};

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// First and longest wait between two attempts to open.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long an answer to "are you ready" is good for.
const READY_FOR: Duration = Duration::from_secs(2);

/// Kafka.
pub(crate) struct KafkaBus {
    shared: Arc<Shared>,
}

/// What the bus, its consumers and the watch over the brokers share.
struct Shared {
    config: Config,
    topic: String,
    rejected_topic: String,
    partitions: i32,
    sending: Sending,
    link: Arc<Link>,
    counters: Counters,
    // When the brokers last gave a good answer to `ready`; held while they are asked.
    ready: tokio::sync::Mutex<Option<Instant>>,
}

impl KafkaBus {
    /// Connects, waiting for the brokers as long as it takes, and makes or checks the topics.
    pub async fn open(settings: &KafkaSettings) -> Result<KafkaBus, OpenError> {
        let bus = KafkaBus::connect(settings)?;
        let shared = &bus.shared;
        let admin = Admin::new(&shared.config, shared.sending.producer(), Arc::clone(&shared.link))?;
        let telemetry =
            Use::Telemetry { partitions: settings.partitions.into(), message_max: shared.config.message_max };
        until_there(&settings.brokers, || admin.prepare(&shared.topic, telemetry)).await?;
        until_there(&settings.brokers, || admin.prepare(&shared.rejected_topic, Use::Rejected)).await?;
        tracing::info!(
            brokers = settings.brokers,
            topic = shared.topic,
            partitions = shared.partitions,
            "Kafka is there, the topics are in order"
        );
        Ok(bus)
    }

    /// A bus over topics that are in order, without asking the brokers for anything.
    fn connect(settings: &KafkaSettings) -> Result<KafkaBus, OpenError> {
        let config = Config::of(settings)?;
        let link = Arc::<Link>::default();
        let sending = Sending::new(&config, Arc::clone(&link))?;
        let shared = Arc::new(Shared {
            config,
            topic: settings.topic.clone(),
            rejected_topic: topics::rejected_topic(&settings.topic),
            partitions: i32::from(settings.partitions),
            sending,
            link: Arc::clone(&link),
            counters: Counters::default(),
            ready: tokio::sync::Mutex::new(None),
        });
        let asked = Arc::downgrade(&shared);
        tokio::spawn(link::watch(link, move || Shared::ask_if_any(asked.clone())));
        Ok(KafkaBus { shared })
    }
}

/// Tries until it works or cannot work. Says so when it begins to wait, when the reason changes, and at the end.
async fn until_there<F>(brokers: &str, mut attempt: impl FnMut() -> F) -> Result<(), OpenError>
where
    F: Future<Output = Result<(), Fault>>,
{
    let (mut wait, longest) = RETRY;
    let mut said: Option<String> = None;
    loop {
        match attempt().await {
            Ok(()) => {
                if said.is_some() {
                    tracing::info!(brokers, "Kafka answers");
                }
                return Ok(());
            }
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Away(reason)) => {
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(brokers, reason, "waiting for Kafka");
                    said = Some(reason);
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

impl Shared {
    /// Whether the brokers answer.
    async fn ask(&self) -> Result<(), String> {
        let (producer, topic) = (self.sending.producer(), self.topic.clone());
        let asking = tokio::task::spawn_blocking(move || producer::leaders(&producer, &topic, PATIENCE));
        asking.await.map_err(|error| error.to_string())?
    }

    /// The same, for as long as there is a bus.
    async fn ask_if_any(shared: Weak<Shared>) -> Option<Result<(), String>> {
        Some(shared.upgrade()?.ask().await)
    }

    /// First and next offset of a partition.
    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let partitions = self.partitions;
        if !(0..partitions).contains(&partition) {
            return Err(ConsumeError::NoPartition { partition, partitions });
        }
        let (producer, topic) = (self.sending.producer(), self.topic.clone());
        let asking = tokio::task::spawn_blocking(move || producer::watermarks(&producer, &topic, partition, PATIENCE));
        let answer = asking.await.map_err(|error| error.to_string()).and_then(|answer| answer);
        answer.map_err(|reason| ConsumeError::Unavailable { reason })
    }
}

#[async_trait]
impl Bus for KafkaBus {
    fn topic(&self) -> &str {
        &self.shared.topic
    }

    fn partitions(&self) -> i32 {
        self.shared.partitions
    }

    async fn send(&self, partition: i32, message: Message) -> Result<i64, SendError> {
        let Shared { topic, partitions, sending, link, counters, .. } = &*self.shared;
        let partitions = *partitions;
        if !(0..partitions).contains(&partition) {
            return Err(SendError::NoPartition { partition, partitions });
        }
        let _waiting = Waiting::new(counters);
        let outcome = match link.down() {
            // Known to be in vain, and the sender can be told so at once.
            Some(reason) => Err(SendError::Unavailable { reason }),
            None => sending.send(topic, partition, message.payload(), &message.headers()).await,
        };
        counters.end(message.payload().len(), &outcome);
        outcome
    }

    async fn send_rejected(&self, rejected: Rejected) -> Result<(), SendError> {
        let Shared { rejected_topic, sending, link, .. } = &*self.shared;
        if let Some(reason) = link.down() {
            return Err(SendError::Unavailable { reason });
        }
        sending.send(rejected_topic, 0, &rejected.to_json(), &[]).await.map(|_offset| ())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, ConsumeError> {
        Ok(Box::new(KafkaConsumer::join(Arc::clone(&self.shared))?))
    }

    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        self.shared.offsets(partition).await
    }

    async fn ready(&self) -> Result<(), String> {
        if let Some(reason) = self.shared.link.down() {
            return Err(format!("Kafka is away: {reason}"));
        }
        let mut ready = self.shared.ready.lock().await;
        if ready.is_some_and(|at| at.elapsed() < READY_FOR) {
            return Ok(());
        }
        *ready = None;
        self.shared.ask().await.map_err(|reason| format!("Kafka is away: {reason}"))?;
        *ready = Some(Instant::now());
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.shared.counters.read(0)
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
#[path = "mock_tests.rs"]
mod mock_tests;

#[cfg(test)]
#[path = "broker_tests.rs"]
mod broker_tests;
