//! What the gateway can be told: plain data, filled from the configuration.
//!
//! There are no defaults here: `config/defaults.yaml` holds every one of them and the binary lays the user's file over it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use airan_bus::{TopicSettings, TopicStart};
use airan_model::limits::Limits;
use airan_model::message::GATHER_BYTES_MAX;
use airan_model::settings::{BadSetting, BytesSetting, Checker, DurationSetting, Secret};
use airan_model::time::Plausibility;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `gateway` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the HTTP door: OTLP/HTTP, NDJSON and Arrow.
    pub http: SocketAddr,
    /// Address of the OTLP/gRPC door.
    pub grpc: SocketAddr,
    /// Lets the doors listen on other than loopback addresses, where anyone who reaches them can write.
    pub insecure: bool,
    /// Kafka topics that others write, to be read like one more door.
    pub kafka_in: Vec<KafkaInSettings>,
    /// What one request may hold.
    pub request: RequestSettings,
    /// What all requests together may hold.
    pub load: LoadSettings,
    /// What one sender may send.
    pub share: ShareSettings,
    /// How rows of many requests become one message.
    pub gather: GatherSettings,
    /// Which times of rows are not believed.
    pub implausible: ImplausibleSettings,
    /// Time between two ticks on each partition.
    pub tick: DurationSetting,
    /// How long a shutdown waits for requests under way.
    pub drain: DurationSetting,
}

/// A Kafka topic that others write.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaInSettings {
    /// Where to begin, as `host:port,host:port`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// What its messages are.
    pub format: KafkaFormat,
    /// The consumer group. Gateways of one group share the topic's partitions.
    pub group: String,
    /// Where a partition begins that the group has never read; without it with the oldest message.
    #[serde(default)]
    pub start: TopicStart,
    /// Properties of librdkafka, as they are. Never printed, for some are secrets.
    #[serde(default, deserialize_with = "airan_bus::properties")]
    #[schemars(schema_with = "airan_bus::properties_schema")]
    pub properties: BTreeMap<String, Secret>,
}

/// What the messages of a topic are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KafkaFormat {
    /// An `ExportMetricsServiceRequest` of OTLP in protobuf, as the OpenTelemetry Collector's Kafka exporter writes it.
    OtlpProto,
    /// One row a line, as `POST /v1/ndjson` takes it.
    Ndjson,
}

impl KafkaInSettings {
    /// The same in the words of the bus.
    pub fn topic(&self) -> TopicSettings {
        TopicSettings {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            start: self.start,
            properties: self.properties.clone(),
        }
    }
}

/// Limits on one request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestSettings {
    /// Size of a body, before and after decompression.
    pub bytes: BytesSetting,
    /// Samples (points) in it.
    pub samples: usize,
    /// Labels of one sample or point.
    pub labels: usize,
    /// Bytes of one label's name or value.
    pub label_bytes: BytesSetting,
    /// Nesting of values inside values.
    pub depth: usize,
    /// Time for a request, from its headers to the bus's acknowledgement of its rows.
    pub timeout: DurationSetting,
    /// Time for the next request's headers on an open connection.
    pub header_timeout: DurationSetting,
}

/// Limits on all requests together. Over them the doors answer 503.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// Open connections a door. Further ones wait in the listener's backlog.
    pub connections: usize,
    /// Requests under way.
    pub requests: usize,
    /// Bytes of bodies under way, after decompression.
    pub bytes: BytesSetting,
    /// What `Retry-After` says when the gateway or the bus is not able.
    pub retry_after: DurationSetting,
}

/// A token bucket for each sender. Over it the doors answer 429.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareSettings {
    /// Bytes a second, after decompression.
    pub bytes_per_second: BytesSetting,
    /// Bytes a sender may send at once after a pause.
    pub burst: BytesSetting,
}

/// How rows are gathered, per partition and stream.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatherSettings {
    /// Rows are sent when they reach this size in memory …
    pub bytes: BytesSetting,
    /// … or when the first of them has waited this long.
    pub linger: DurationSetting,
    /// A message is never larger than this. It must be under the topic's `max.message.bytes`.
    pub message_bytes: BytesSetting,
    /// Rows in memory that wait for the bus's acknowledgement. Over it the doors answer 503.
    pub waiting_bytes: BytesSetting,
    /// How long one message may wait for its acknowledgement before its outcome is unknown.
    pub ack_timeout: DurationSetting,
}

/// Which times of rows are not believed, and replaced by the time of reception.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImplausibleSettings {
    /// Further than this ahead of the time of reception.
    pub ahead: DurationSetting,
    /// Further than this behind it.
    pub behind: DurationSetting,
}

impl ImplausibleSettings {
    /// The same rule for admission.
    pub fn plausibility(&self) -> Plausibility {
        Plausibility { ahead: self.ahead.micros(), behind: self.behind.micros() }
    }
}

impl RequestSettings {
    /// The same limits in the words of the decoders.
    pub fn limits(&self) -> Limits {
        Limits {
            request_bytes: self.bytes.size(),
            labels_per_sample: self.labels,
            label_bytes: self.label_bytes.size(),
            samples_per_scrape: self.samples,
            depth: self.depth,
        }
    }
}

impl Settings {
    /// Refuses values with which the gateway could not work: a door on other than loopback without `insecure`, limits and
    /// timers of zero, a message size under the gathering size.
    pub fn check(&self) -> Result<(), BadSetting> {
        let mut check = Checker::new("gateway");
        for (key, address) in [("http", self.http), ("grpc", self.grpc)] {
            let is_safe = self.insecure || address.ip().to_canonical().is_loopback();
            let problem = format!(
                "{address} is not a loopback address and this door has no TLS: set `insecure: true` to accept rows from \
                 anyone who reaches it"
            );
            check.require(key, is_safe, &problem);
        }
        for (key, value) in [
            ("request.bytes", self.request.bytes.get()),
            ("request.samples", self.request.samples as u64),
            ("request.labels", self.request.labels as u64),
            ("request.label_bytes", self.request.label_bytes.get()),
            ("request.depth", self.request.depth as u64),
            ("load.connections", self.load.connections as u64),
            ("load.requests", self.load.requests as u64),
            ("load.bytes", self.load.bytes.get()),
            ("share.bytes_per_second", self.share.bytes_per_second.get()),
            ("share.burst", self.share.burst.get()),
            ("gather.bytes", self.gather.bytes.get()),
            ("gather.message_bytes", self.gather.message_bytes.get()),
            ("gather.waiting_bytes", self.gather.waiting_bytes.get()),
        ] {
            check.not_zero(key, value);
        }
        for (key, value) in [
            ("request.timeout", self.request.timeout),
            ("request.header_timeout", self.request.header_timeout),
            ("load.retry_after", self.load.retry_after),
            ("gather.ack_timeout", self.gather.ack_timeout),
            ("tick", self.tick),
            ("drain", self.drain),
        ] {
            check.timer(key, value);
        }
        let is_short = self.gather.linger.get() < self.request.timeout.get();
        check
            .span("implausible.ahead", self.implausible.ahead)
            .span("implausible.behind", self.implausible.behind)
            .require("gather.linger", is_short, "must be shorter than request.timeout")
            .require("load.bytes", self.load.bytes.get() >= self.request.bytes.get(), "must be at least request.bytes")
            .ordered(("gather.bytes", self.gather.bytes), ("gather.message_bytes", self.gather.message_bytes))
            .ordered(("gather.bytes", self.gather.bytes), ("gather.waiting_bytes", self.gather.waiting_bytes))
            .require(
                "gather.bytes",
                self.gather.bytes.get() <= GATHER_BYTES_MAX,
                &format!("must be at most {}", BytesSetting::from(GATHER_BYTES_MAX)),
            );
        let mut seen = BTreeSet::new();
        for (index, topic) in self.kafka_in.iter().enumerate() {
            let key = |name: &str| format!("kafka_in.{index}.{name}");
            check
                .require(&key("topic"), !topic.topic.trim().is_empty(), "must not be empty")
                .require(&key("group"), !topic.group.trim().is_empty(), "must not be empty")
                .require(&key("topic"), seen.insert((&topic.brokers, &topic.topic)), "stands in the list twice");
            if let Err(error) = topic.topic().check() {
                check.require(&format!("kafka_in.{index}"), false, &error.to_string());
            }
        }
        check.finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// Settings for tests: free ports, short waits, the limits of DESIGN section 11.
    pub(crate) fn settings() -> Settings {
        Settings {
            http: "127.0.0.1:0".parse().unwrap(),
            grpc: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            kafka_in: Vec::new(),
            request: RequestSettings {
                bytes: bytes(16 << 20),
                samples: 500_000,
                labels: 64,
                label_bytes: bytes(2048),
                depth: 32,
                timeout: millis(10_000),
                header_timeout: millis(5_000),
            },
            load: LoadSettings { connections: 256, requests: 256, bytes: bytes(64 << 20), retry_after: millis(2_000) },
            share: ShareSettings { bytes_per_second: bytes(1 << 30), burst: bytes(1 << 30) },
            gather: GatherSettings {
                bytes: bytes(256 << 10),
                linger: millis(5),
                message_bytes: bytes(900 << 10),
                waiting_bytes: bytes(64 << 20),
                ack_timeout: millis(5_000),
            },
            implausible: ImplausibleSettings { ahead: "5m".parse().unwrap(), behind: "40d".parse().unwrap() },
            tick: millis(60_000),
            drain: millis(5_000),
        }
    }

    pub(crate) fn bytes(n: u64) -> BytesSetting {
        BytesSetting::from(n)
    }

    pub(crate) fn millis(n: u64) -> DurationSetting {
        DurationSetting::from(Duration::from_millis(n))
    }

    /// Scenario: a door on all interfaces, without and with `insecure`.
    /// Guarantees: refused in one line that names the setting and the way out.
    #[test]
    fn a_door_beyond_loopback_needs_insecure() {
        let mut open = settings();
        open.grpc = "0.0.0.0:4317".parse().unwrap();
        let line = open.check().unwrap_err().to_string();
        assert!(line.contains("gateway.grpc") && line.contains("insecure: true"), "{line}");
        open.insecure = true;
        open.check().unwrap();
        open.insecure = false;
        open.grpc = "[::1]:4317".parse().unwrap();
        open.check().unwrap();
    }

    /// Scenario: one setting at a time that cannot work: zero, too long, too large, or at odds with another.
    /// Guarantees: each is refused by its full name.
    #[test]
    fn limits_that_cannot_work_are_refused() {
        settings().check().unwrap();
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 9] = [
            (|s| s.gather.waiting_bytes = bytes(0), "gateway.gather.waiting_bytes"),
            (|s| s.load.bytes = bytes(1), "gateway.load.bytes"),
            (|s| s.gather.linger = millis(20_000), "gateway.gather.linger"),
            (
                |s| s.gather.message_bytes = bytes(255 << 10),
                "gateway.gather.bytes: must not be over gateway.gather.message_bytes",
            ),
            (|s| (s.gather.bytes, s.gather.message_bytes) = (bytes(9 << 20), bytes(9 << 20)), "gateway.gather.bytes"),
            (|s| s.tick = millis(0), "gateway.tick"),
            (|s| s.drain = millis(25 * 3_600_000), "gateway.drain"),
            (|s| s.implausible.behind = millis(0), "gateway.implausible.behind"),
            (|s| s.request.samples = 0, "gateway.request.samples"),
        ];
        for (change, told) in cases {
            let mut wrong = settings();
            change(&mut wrong);
            let line = wrong.check().unwrap_err().to_string();
            assert!(line.starts_with(told), "{line} says {told}");
        }
    }

    /// Scenario: topics of others whose settings cannot be, one mistake at a time.
    /// Guarantees: each is refused by its place in the list and its name, without its value.
    #[test]
    fn a_topic_that_cannot_be_read_is_refused() {
        let topic = || KafkaInSettings {
            brokers: "localhost:9092".to_owned(),
            topic: "metrics".to_owned(),
            format: KafkaFormat::OtlpProto,
            group: "airan".to_owned(),
            start: TopicStart::Earliest,
            properties: BTreeMap::new(),
        };
        let refusal = |topics: Vec<KafkaInSettings>| {
            let wrong = Settings { kafka_in: topics, ..settings() };
            wrong.check().err().map(|bad| bad.to_string()).unwrap_or_default()
        };
        assert_eq!(refusal(vec![topic(), KafkaInSettings { topic: "more".to_owned(), ..topic() }]), "");
        assert_eq!(refusal(vec![topic(), topic()]), "gateway.kafka_in.1.topic: stands in the list twice");
        let no_group = KafkaInSettings { group: " ".to_owned(), ..topic() };
        assert_eq!(refusal(vec![no_group]), "gateway.kafka_in.0.group: must not be empty");
        let no_broker = KafkaInSettings { brokers: String::new(), ..topic() };
        assert!(refusal(vec![no_broker]).starts_with("gateway.kafka_in.0: brokers is empty"));
        let properties = BTreeMap::from([("sasl.pasword".to_owned(), Secret::from("hunter2".to_owned()))]);
        assert_eq!(
            refusal(vec![KafkaInSettings { properties, ..topic() }]),
            "gateway.kafka_in.0: properties: librdkafka knows no property `sasl.pasword`"
        );
    }

    /// Scenario: other spans of belief than the documented ones.
    /// Guarantees: they are what admission goes by.
    #[test]
    fn the_spans_of_belief_are_settings() {
        let spans = ImplausibleSettings { ahead: millis(1), behind: millis(2) };
        assert_eq!(spans.plausibility(), Plausibility { ahead: 1_000, behind: 2_000 });
        assert_eq!(settings().implausible.plausibility(), Plausibility::default());
    }
}
