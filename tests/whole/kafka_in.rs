//! Topics that others write, read as a door of the gateway: from Apache Kafka, over kills of the gateway and an absence of its bus.
//!
//! Runs where `tests/kafka.sh` has started a broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use airan_bus::{Bus, BusSettings, KafkaSettings};
use airan_model::message::Message;
use airan_model::settings::Secret;
use airan_model::time::Clock;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::edge::Edge;
use super::kafka::BROKER;
use super::site::{now_micros, until};
use crate::broker::{Newcomer, Wire};

/// Partitions of the topics.
const PARTITIONS: u16 = 3;
/// Messages of a topic, each with [`ROWS`] rows.
const MESSAGES: i64 = 300;
const ROWS: i64 = 4;

/// Somebody else's producer: values without headers, in a topic that it makes.
#[derive(Clone)]
struct Others {
    topic: String,
    bus: Arc<dyn Bus>,
}

impl Others {
    async fn new(broker: &str, name: &str) -> Others {
        Others::writing(broker, name, &[]).await
    }

    /// The same with properties of librdkafka's.
    async fn writing(broker: &str, name: &str, properties: &[(&str, &str)]) -> Others {
        let topic = format!("others.{name}.{}", now_micros());
        let settings = KafkaSettings {
            brokers: broker.to_owned(),
            topic: topic.clone(),
            partitions: PARTITIONS,
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Secret::from((*value).to_owned())))
                .collect(),
        };
        let bus = airan_bus::open(&BusSettings::Kafka(settings), Clock::system()).await.expect("the topic is made");
        Others { topic, bus }
    }

    async fn write(&self, partition: i32, value: impl Into<Bytes>) -> i64 {
        let message = Message::Foreign { reason: String::new(), payload: value.into() };
        self.bus.send(partition, message).await.expect("the broker takes it")
    }

    /// How the gateway is told to read it.
    fn input(&self, broker: &str, format: &str) -> String {
        format!("{{brokers: \"{broker}\", topic: {}, format: {format}, group: airan-test}}", self.topic)
    }
}

/// The rows of message `number`, each a device of its own, as text of lines.
fn lines(start: i64, number: i64) -> String {
    let row = |row: i64| {
        json!({
            "stream": "accelerator", "ts": start + number * 1_000, "node": "edge-lines", "device": format!("GPU-{row}"),
            "utilization": 0.5, "power_watts": number,
        })
    };
    (0..ROWS).map(|at| format!("{}\n", row(at))).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

/// The same rows as the Collector's exporter writes them.
fn otlp(start: i64, number: i64) -> Vec<u8> {
    let point = |row: i64| NumberDataPoint {
        attributes: vec![attribute("hw.id", &format!("GPU-{row}"))],
        time_unix_nano: (start + number * 1_000) as u64 * 1_000,
        value: Some(number_data_point::Value::AsDouble(0.5)),
        ..Default::default()
    };
    let metric = Metric {
        name: "hw.gpu.utilization".to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: (0..ROWS).map(point).collect() })),
        ..Default::default()
    };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = Resource { attributes: vec![attribute("host.name", "edge-otlp")], ..Default::default() };
    let all = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec()
}

/// Rows, different identities, different instants and devices of a node.
fn stored(edge: &Edge, node: &str) -> Option<[i64; 3]> {
    let sql = format!(
        "SELECT count(*) AS n, count(DISTINCT batch || ':' || seq) AS ids, count(DISTINCT concat(device, CAST(ts AS VARCHAR))) AS \
         places FROM accelerator WHERE node = '{node}'"
    );
    let rows = edge.try_query(&sql)?;
    Some([rows[0]["n"].as_i64()?, rows[0]["ids"].as_i64()?, rows[0]["places"].as_i64()?])
}

/// Scenario: two topics of others on Apache Kafka, OTLP and lines, written while `airan up` reads them, is killed twice in the
/// middle and started again; among the messages are the same bytes twice and some that nobody can read.
/// Guarantees: every row is in the lake, once; two messages of the same bytes are two; what cannot be read is counted and recorded
/// with topic, partition and offset, and stops nothing; the sums add up; offsets are reported, so a last start reads nothing
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_in_every_message_is_stored_once_over_kills() {
    let Ok(broker) = std::env::var("AIRAN_KAFKA") else {
        eprintln!("NOT TESTED: no AIRAN_KAFKA; tests/kafka.sh starts a broker and sets it");
        return;
    };
    let _alone = BROKER.lock().await;
    let (text, metrics) = (Others::new(&broker, "lines").await, Others::new(&broker, "otlp").await);
    let inputs = format!("[{}, {}]", text.input(&broker, "ndjson"), metrics.input(&broker, "otlp_proto"));
    let edge = Edge::new("kafka-in").reading(&inputs);
    let start = now_micros();
    let mut up = edge.up();
    edge.ready().await;
    let (mut unreadable, mut sent) = (Vec::new(), 0);
    for number in 0..MESSAGES {
        let partition = (number % i64::from(PARTITIONS)) as i32;
        text.write(partition, lines(start, number)).await;
        metrics.write(partition, otlp(start, number)).await;
        sent += ROWS;
        if number % 100 == 50 {
            let offset = text.write(partition, "neither row nor JSON").await;
            unreadable.push(format!("{}/{partition}/{offset}", text.topic));
            let offset = metrics.write(partition, vec![0xff; 40]).await;
            unreadable.push(format!("{}/{partition}/{offset}", metrics.topic));
        }
        if number % 100 == 70 {
            // What has come is not all committed, and not all reported.
            up.kill();
            up = edge.up();
        }
    }
    text.write(0, lines(start, 0)).await;
    let twice = sent + ROWS;
    until("all rows in the lake", || async {
        let (text, metrics) = (stored(&edge, "edge-lines")?, stored(&edge, "edge-otlp")?);
        (text[0] >= twice && metrics[0] >= sent).then_some(())
    })
    .await;
    let sources = edge.query("SELECT DISTINCT source FROM accelerator ORDER BY source");
    let sources: Vec<_> = sources.iter().map(|row| row["source"].as_str().unwrap_or_default()).collect();
    assert_eq!(sources, ["kafka/ndjson", "kafka/otlp_proto"]);
    edge.sums_add_up().await;

    let listed = edge.run(&["rejected", "list", "--format", "json"]);
    for place in &unreadable {
        assert!(listed.contains(place), "{place} is not in {listed}");
    }

    // Stopped in order, all is reported: the next one reads nothing again.
    let (status, said) = up.stop(Duration::from_secs(40));
    assert!(status.success(), "{status}: {said:#?}");
    let up = edge.up();
    edge.ready().await;
    text.write(1, lines(start, MESSAGES)).await;
    let last = twice + ROWS;
    until("the last message", || async { (stored(&edge, "edge-lines")?[0] >= last).then_some(()) }).await;
    let scrape = edge.scrape().await.expect("metrics");
    let received = scrape.sum("airan_gateway_rows_total", &["door=\"kafka\"", "outcome=\"received\""]);
    assert_eq!(received, ROWS as f64, "only the last message was read");
    assert_eq!(stored(&edge, "edge-lines"), Some([last, last, last - ROWS]), "each row once, the same bytes twice");
    assert_eq!(stored(&edge, "edge-otlp"), Some([sent, sent, sent]), "each row once");
    edge.sums_add_up().await;
    drop(up);
    edge.lake_is_sound();
}

/// The codecs of the batches in a partition of the broker's log, as its header has them (Kafka's record format 2): 1 is gzip,
/// 2 snappy, 3 lz4, 4 zstd.
fn codecs(broker_dir: &Path, topic: &str, partition: i32) -> Vec<u8> {
    let log = broker_dir.join(format!("logs/{topic}-{partition}/00000000000000000000.log"));
    let bytes = std::fs::read(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let (mut codecs, mut rest) = (Vec::new(), &bytes[..]);
    // The base offset, the length of what follows, the leader's epoch, the format, a checksum, the attributes.
    while let Some(header) = rest.get(..23) {
        assert_eq!(header[16], 2, "the format of a batch");
        codecs.push(header[22] & 7);
        let length = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
        rest = &rest[12 + length as usize..];
    }
    codecs
}

/// Scenario: topics of others on Apache Kafka, one for each way of Kafka's to compress, written in batches of many messages.
/// Guarantees: the broker holds compressed batches, and each row of each is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_in_takes_every_compression() {
    let (Ok(broker), Ok(broker_dir)) = (std::env::var("AIRAN_KAFKA"), std::env::var("AIRAN_KAFKA_DIR")) else {
        eprintln!("NOT TESTED: no AIRAN_KAFKA and AIRAN_KAFKA_DIR; tests/kafka.sh starts a broker and sets them");
        return;
    };
    let _alone = BROKER.lock().await;
    const BATCHED: i64 = 60;
    let start = now_micros();
    let (mut topics, mut inputs) = (Vec::new(), Vec::new());
    for (at, (codec, number)) in (0..).zip([("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)]) {
        // What comes within a moment goes into one batch.
        let topic = Others::writing(&broker, codec, &[("compression.type", codec), ("linger.ms", "20")]).await;
        let mut writing = JoinSet::new();
        for message in 0..BATCHED {
            let topic = topic.clone();
            let lines = lines(start, at * BATCHED + message);
            writing.spawn(async move { topic.write((message % 3) as i32, lines).await });
        }
        writing.join_all().await;
        for partition in 0..i32::from(PARTITIONS) {
            let found = codecs(Path::new(&broker_dir), &topic.topic, partition);
            assert!(
                !found.is_empty() && found.len() < 20 && found.iter().all(|of| *of == number),
                "{codec}: {found:?}"
            );
        }
        inputs.push(topic.input(&broker, "ndjson"));
        topics.push(topic);
    }
    let edge = Edge::new("kafka-in-compressed").reading(&format!("[{}]", inputs.join(", ")));
    let up = edge.up();
    edge.ready().await;
    let all = topics.len() as i64 * BATCHED * ROWS;
    until("all rows in the lake", || async { (stored(&edge, "edge-lines")?[0] >= all).then_some(()) }).await;
    edge.sums_add_up().await;
    assert_eq!(stored(&edge, "edge-lines"), Some([all; 3]), "each row once");
    drop(up);
    edge.lake_is_sound();
}

/// Scenario: gateway and processor over Apache Kafka; the gateway is cut off from its bus and not from the topic of others, to which
/// is written meanwhile; then the way is mended.
/// Guarantees: reading stops while rows are not taken and says so, goes on by itself, and each row is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_in_is_paused_while_the_bus_takes_nothing() {
    let (Ok(broker), Ok(ports)) = (std::env::var("AIRAN_KAFKA"), std::env::var("AIRAN_KAFKA_WIRE")) else {
        eprintln!("NOT TESTED: no AIRAN_KAFKA and AIRAN_KAFKA_WIRE; tests/kafka.sh starts a broker and sets them");
        return;
    };
    let _alone = BROKER.lock().await;
    let wire = Wire::of(&ports).expect("a wire");
    let text = Others::new(&broker, "paused").await;
    let topic = format!("airan.telemetry.paused{}", now_micros());
    let edge = Edge::over_kafka("kafka-in-paused", &wire.address(), &topic)
        .reading(&format!("[{}]", text.input(&broker, "ndjson")));
    let start = now_micros();
    let (gateway, processor) = (edge.gateway(), edge.processor());
    edge.ready().await;
    for number in 0..10 {
        text.write((number % 3) as i32, lines(start, number)).await;
    }
    until("the first rows", || async { (stored(&edge, "edge-lines")?[0] == 10 * ROWS).then_some(()) }).await;
    wire.cut(Newcomer::Waits);
    for number in 10..200 {
        text.write((number % 3) as i32, lines(start, number)).await;
    }
    let paused = || async { Some(edge.scrape().await?.sum("airan_gateway_kafka_paused", &[])) };
    until("a pause", || async { (paused().await? == 1.0).then_some(()) }).await;
    // Nothing of what was written since the cut can have met its end. A longer absence would cost the processor its membership.
    let behind = || async { Some(edge.scrape().await?.sum("airan_gateway_kafka_lag_messages", &[&text.topic])) };
    until("a lag of all that was written since", || async { (behind().await? == 190.0).then_some(()) }).await;
    wire.mend();
    until("all rows in the lake", || async { (stored(&edge, "edge-lines")?[0] >= 200 * ROWS).then_some(()) }).await;
    until("the end of the pause", || async { (paused().await? == 0.0).then_some(()) }).await;
    until("no lag", || async { (behind().await? == 0.0).then_some(()) }).await;
    let scrape = edge.scrape().await.expect("metrics");
    let partitions =
        scrape.series("airan_gateway_kafka_lag_messages").filter(|(series, _)| series.contains(&text.topic));
    assert_eq!(partitions.count(), usize::from(PARTITIONS), "a lag for each partition");
    edge.sums_add_up().await;
    assert_eq!(stored(&edge, "edge-lines"), Some([200 * ROWS; 3]), "each row once");
    for process in [gateway, processor] {
        let (status, said) = process.stop(Duration::from_secs(40));
        assert!(status.success(), "{status}: {said:#?}");
    }
}
