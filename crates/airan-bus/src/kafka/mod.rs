//! The bus over Apache Kafka, through librdkafka.
//!
//! | file | owns |
//! | --- | --- |
//! | `config.rs` | settings → librdkafka's configuration |
//! | `topics.rs`, `admin.rs` | topics: what they must be like; making and asking |
//! | `producer.rs` | sending, and what each failure means |
//! | `consumer.rs` | events: messages, rebalances, lost ranges |
//! | `reader.rs` | reading from the side, in no group |
//! | `inlet.rs` | topics of others, in a group of ours |
//! | `link.rs` | whether the brokers are there |
//!
//! librdkafka's callbacks take notes and wake someone up; they decide nothing and never wait.

mod admin;
mod config;
mod consumer;
mod fetched;
mod inlet;
mod leave;
mod link;
mod notes;
mod probe;
mod producer;
mod reader;
mod topics;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use airan_model::message::Message;
use airan_model::reject::Rejected;
use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::admin::{Admin, Fault};
use self::config::Config;
pub(crate) use self::config::GROUP;
use self::consumer::{Contents, KafkaConsumer};
pub use self::inlet::{Arrival, Behind, Given, Inlet, TopicSettings, TopicStart};
use self::link::Link;
use self::producer::{Producer, Sending};
pub(crate) use self::reader::KafkaReader;
use self::topics::Use;
pub(crate) use self::topics::rejected_topic;
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
    // Ends with the bus.
    watch: Option<AbortHandle>,
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
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
        Ok(bus.watched())
    }

    /// A bus over topics that are in order, without asking the brokers for anything.
    fn connect(settings: &KafkaSettings) -> Result<KafkaBus, OpenError> {
        KafkaBus::configured(Config::of(settings)?, settings)
    }

    fn configured(config: Config, settings: &KafkaSettings) -> Result<KafkaBus, OpenError> {
        let link = Arc::<Link>::default();
        let sending = Sending::new(&config, Arc::clone(&link))?;
        let shared = Arc::new(Shared {
            config,
            topic: settings.topic.clone(),
            rejected_topic: topics::rejected_topic(&settings.topic),
            partitions: i32::from(settings.partitions),
            sending,
            link,
            counters: Counters::default(),
            ready: tokio::sync::Mutex::new(None),
        });
        Ok(KafkaBus { shared, watch: None })
    }

    /// Notices from now on when the brokers go away, and when they are back.
    fn watched(mut self) -> KafkaBus {
        let (link, asked) = (Arc::clone(&self.shared.link), Arc::downgrade(&self.shared));
        let watching = tokio::spawn(link::watch(link, move |anew| Shared::ask_if_any(asked.clone(), anew)));
        self.watch = Some(watching.abort_handle());
        self
    }
}

/// Different reasons for waiting that are said; brokers that fail in turns would fill a log otherwise.
const REASONS_SAID: usize = 8;

/// Tries until it works or cannot work. Says each new reason for waiting, and the end.
async fn until_there<F>(brokers: &str, mut attempt: impl FnMut() -> F) -> Result<(), OpenError>
where
    F: Future<Output = Result<(), Fault>>,
{
    let (mut wait, longest) = RETRY;
    let mut said = BTreeSet::new();
    loop {
        match attempt().await {
            Ok(()) => {
                if !said.is_empty() {
                    tracing::info!(brokers, "Kafka answers");
                }
                return Ok(());
            }
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Away(reason)) => {
                if said.len() < REASONS_SAID && !said.contains(&reason) {
                    tracing::warn!(brokers, reason, "waiting for Kafka");
                    said.insert(reason);
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

impl Shared {
    /// Asks the brokers something, on a thread that may wait for them.
    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Producer, &str) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (producer, topic) = (self.sending.producer(), self.topic.clone());
        tokio::task::spawn_blocking(move || what(&producer, &topic)).await.map_err(|error| error.to_string())?
    }

    /// Whether any broker answers, for as long as there is a bus; with `anew` a new producer asks, and stays in use.
    async fn ask_if_any(shared: Weak<Shared>, anew: bool) -> Option<Result<(), String>> {
        let shared = shared.upgrade()?;
        if anew {
            // It waits for what the old one held.
            let shared = Arc::clone(&shared);
            let _ = tokio::task::spawn_blocking(move || shared.sending.renew()).await;
        }
        let asked = shared.ask(|producer, topic| producer::reach(producer, topic, PATIENCE).map(|_leaders| ()));
        Some(asked.await)
    }

    /// First and next offset of a partition.
    async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let partitions = self.partitions;
        if !(0..partitions).contains(&partition) {
            return Err(ConsumeError::NoPartition { partition, partitions });
        }
        let asked = self.ask(move |producer, topic| producer::watermarks(producer, topic, partition, PATIENCE));
        asked.await.map_err(|reason| ConsumeError::Unavailable { reason })
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
        Ok(Box::new(KafkaConsumer::join(Arc::clone(&self.shared), Contents::Ours)?))
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
        let asked = self.shared.ask(|producer, topic| producer::reach(producer, topic, PATIENCE));
        asked.await.map_err(|reason| format!("Kafka is away: {reason}"))??;
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
