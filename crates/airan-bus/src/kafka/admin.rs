//! Asking the cluster for topics, and making them. What the answers mean is in `topics.rs`.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;

use super::config::{Config, explain};
use super::link::{Link, LinkContext};
use super::producer::Producer;
use super::topics::{Found, REPLICATION, Use, judge};
use crate::OpenError;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why topics are not ready.
#[derive(Debug)]
pub(super) enum Fault {
    /// Ask again.
    Away(String),
    /// Asking again does not help.
    Final(OpenError),
}

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Fault {
        Fault::Away(error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()))
    }
}

/// The cluster, as far as topics are concerned. For opening only: nobody reads what its client logs.
pub(super) struct Admin {
    client: AdminClient<LinkContext>,
    // Asks for metadata: its client tells the link what goes wrong.
    producer: Producer,
    link: Arc<Link>,
}

impl Admin {
    pub fn new(config: &Config, producer: Producer, link: Arc<Link>) -> Result<Admin, OpenError> {
        let context = LinkContext(Arc::clone(&link));
        let client = config.producer.create_with_context(context).map_err(explain)?;
        Ok(Admin { client, producer, link })
    }

    /// Makes or checks a topic. Says what should be changed, and fails if it must be.
    pub async fn prepare(&self, topic: &str, used: Use) -> Result<(), Fault> {
        let (brokers, mut found) = self.find(topic).await?;
        if found.is_none() {
            let replication = REPLICATION.min(brokers);
            self.create(topic, used, replication).await?;
            // Brokers tell each other of a new topic: until all know it, it looks like a missing one.
            found = self.find(topic).await?.1;
        }
        let Some((partitions, replication)) = found else {
            return Err(Fault::Away(format!("topic `{topic}` is not there yet")));
        };
        let config = self.config(topic).await?;
        let verdict = judge(&Found { partitions, replication, config }, used, brokers);
        for warning in &verdict.warnings {
            tracing::warn!(topic, "{warning}");
        }
        let topic = topic.to_owned();
        if let Some(found) = verdict.partitions {
            let wanted = used.partitions();
            return Err(Fault::Final(OpenError::PartitionsChanged { topic, found, wanted, also: "" }));
        }
        if !verdict.fatal.is_empty() {
            return Err(Fault::Final(OpenError::Topic { topic, problems: verdict.fatal }));
        }
        Ok(())
    }

    /// How many brokers there are, and partitions and copies of the topic if it exists. All topics are asked for, because asking
    /// for one by name may make it.
    async fn find(&self, topic: &str) -> Result<(i32, Option<(u32, i32)>), Fault> {
        let (producer, name) = (self.producer.clone(), topic.to_owned());
        let asking = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(None, PATIENCE)?;
            let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
            let found = metadata.topics().iter().find(|topic| topic.name() == name).map(shape);
            Ok::<_, KafkaError>((brokers, found.transpose()))
        });
        let answer = asking.await.map_err(|error| Fault::Away(error.to_string()))?;
        let (brokers, found) = answer.map_err(|error| {
            // What a broker itself said is more telling than a time-out.
            self.link.last().map_or_else(|| Fault::from(error), Fault::Away)
        })?;
        Ok((brokers, found.map_err(|reason| Fault::Away(format!("topic `{topic}`: {reason}")))?))
    }

    async fn create(&self, topic: &str, used: Use, replication: i32) -> Result<(), Fault> {
        let config = used.new_config(replication);
        let partitions = used.partitions();
        let mut wanted = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(replication));
        for (name, value) in &config {
            wanted = wanted.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let mut results = self.client.create_topics([&wanted], &options).await?;
        match results.pop() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::InvalidPartitions
                | RDKafkaErrorCode::InvalidConfig),
            ))) => {
                let settings: Vec<String> = config.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let problem = format!(
                    "it does not exist and cannot be made by us ({code}); let an administrator make it, with {partitions} \
                     partitions and {}",
                    settings.join(", ")
                );
                Err(Fault::Final(OpenError::Topic { topic: topic.to_owned(), problems: vec![problem] }))
            }
            Some(Err((_, code))) => Err(Fault::Away(format!("topic `{topic}` cannot be made: {code}"))),
            _ => {
                tracing::info!(topic, partitions, replication, "topic made");
                Ok(())
            }
        }
    }

    async fn config(&self, topic: &str) -> Result<std::collections::BTreeMap<String, String>, Fault> {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let mut answers = self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await?;
        match answers.pop() {
            Some(Ok(resource)) => {
                let entries = resource.entries.into_iter();
                Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                tracing::warn!(topic, "we may not read the topic's configuration: it is not checked");
                Ok(Default::default())
            }
            Some(Err(code)) => Err(Fault::Away(format!("configuration of topic `{topic}`: {code}"))),
            None => Err(Fault::Away(format!("no configuration of topic `{topic}`"))),
        }
    }
}

/// Partitions and fewest copies; an error while a partition has no leader.
fn shape(topic: &MetadataTopic) -> Result<(u32, i32), String> {
    if let Some(error) = topic.error() {
        return Err(RDKafkaErrorCode::from(error).to_string());
    }
    let partitions = topic.partitions();
    if let Some(without) = partitions.iter().find(|partition| partition.leader() < 0) {
        return Err(format!("partition {} has no leader", without.id()));
    }
    let copies = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    Ok((partitions.len() as u32, copies as i32))
}
