//! The inlet against librdkafka's own mock cluster, which knows groups and keeps offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use airan_model::message::Message;
use airan_model::settings::Secret;
use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::super::testing::WAIT;
use super::super::topics;
use super::*;
use crate::Bus as _;

const TOPIC: &str = "others.metrics";
const TURN: Duration = Duration::from_millis(100);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for topic in [TOPIC.to_owned(), topics::rejected_topic(TOPIC)] {
        cluster.create_topic(&topic, partitions, 1).unwrap();
    }
    cluster
}

fn short() -> BTreeMap<String, Secret> {
    // The mock lets the first member wait for 3 s, and later ones for a session less 1 s.
    let short = [("session.timeout.ms", "3600"), ("heartbeat.interval.ms", "200")];
    short.into_iter().map(|(name, value)| (name.to_owned(), Secret::from(value.to_owned()))).collect()
}

fn settings(cluster: &Cluster, start: TopicStart) -> TopicSettings {
    TopicSettings {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.to_owned(),
        group: "g".to_owned(),
        start,
        properties: short(),
    }
}

/// Others' producer: values without headers.
async fn write(cluster: &Cluster, partition: i32, values: std::ops::Range<u8>) {
    let settings = KafkaSettings {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.to_owned(),
        partitions: 8,
        properties: BTreeMap::new(),
    };
    let bus = KafkaBus::connect(&settings).unwrap();
    for value in values {
        let message = Message::Foreign { reason: String::new(), payload: Bytes::from(vec![value]) };
        bus.send(partition, message).await.unwrap();
    }
}

/// The next message; nothing may be lost meanwhile.
async fn given(inlet: &mut Inlet) -> Given {
    let deadline = Instant::now() + WAIT;
    loop {
        match inlet.next(TURN).await.unwrap() {
            Arrival::Message(given) => return given,
            Arrival::Idle | Arrival::Down { .. } => {}
            lost @ Arrival::Lost { .. } => panic!("{lost:?}"),
        }
        assert!(Instant::now() < deadline, "no message within {WAIT:?}");
    }
}

/// Nothing comes for a while.
async fn silence(inlet: &mut Inlet, turns: usize) {
    for _ in 0..turns {
        let arrival = inlet.next(TURN).await.unwrap();
        assert!(!matches!(arrival, Arrival::Message(_)), "{arrival:?}");
    }
}

/// Scenario: six messages, of which the second and the last two do not meet their end; the inlet is closed, or dropped as in a
/// crash after its report; a message whose headers are like ours is among them.
/// Guarantees: I1; the group goes on with the first that did not end, whatever ended after it, and values are as they were.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_an_offset_is_reported_when_all_before_it_have_ended() {
    for is_closed in [true, false] {
        let cluster = cluster(1);
        write(&cluster, 0, 0..6).await;
        let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
        let mut read = Vec::new();
        for value in 0..6 {
            let one = given(&mut inlet).await;
            assert_eq!((one.partition, one.offset, &one.payload[..]), (0, i64::from(value), &[value][..]));
            read.push(one);
        }
        for ended in [3, 0, 2] {
            inlet.done(&read[ended]);
        }
        if is_closed {
            inlet.close().await;
        } else {
            // Long enough for a report.
            silence(&mut inlet, 15).await;
            drop(inlet);
        }
        let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
        assert_eq!(given(&mut inlet).await.offset, 1, "closed: {is_closed}");
        inlet.close().await;
    }
}

/// Scenario: a group that begins with what comes next, and stops before anything has come; then messages are written.
/// Guarantees: the place where it began is kept, so nothing written while it was away is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_the_beginning_is_kept() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..3).await;
    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Latest)).unwrap();
    let deadline = Instant::now() + WAIT;
    while inlet.reading.is_empty() {
        silence(&mut inlet, 1).await;
        assert!(Instant::now() < deadline, "nothing is assigned");
    }
    inlet.close().await;
    write(&cluster, 0, 3..5).await;
    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Latest)).unwrap();
    assert_eq!(given(&mut inlet).await.offset, 3);
    inlet.close().await;
}

/// Scenario: held, written to, and resumed, on a partition that was read and one that comes while it is held.
/// Guarantees: nothing comes while it is held, and all of it afterwards, in order.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_held_inlet_gives_nothing_and_loses_nothing() {
    let cluster = cluster(1);
    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
    inlet.hold();
    write(&cluster, 0, 0..2).await;
    let deadline = Instant::now() + WAIT;
    while inlet.reading.is_empty() {
        silence(&mut inlet, 1).await;
        assert!(Instant::now() < deadline, "nothing is assigned");
    }
    silence(&mut inlet, 5).await;
    inlet.resume();
    assert_eq!((given(&mut inlet).await.offset, given(&mut inlet).await.offset), (0, 1));
    inlet.hold();
    write(&cluster, 0, 2..4).await;
    silence(&mut inlet, 5).await;
    inlet.resume();
    assert_eq!((given(&mut inlet).await.offset, given(&mut inlet).await.offset), (2, 3));
    inlet.close().await;
}

/// Scenario: six messages, read; two of them meet their end; while the inlet is held four more are written.
/// Guarantees: what counts as behind is from the first message that has not met its end to the partition's end, also where nothing
/// is fetched; of a partition that is not read nothing is told.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_how_far_it_is_behind_is_told_also_while_held() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..6).await;
    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
    assert_eq!(inlet.behind(), []);
    for number in 0..6 {
        let one = given(&mut inlet).await;
        if number < 2 {
            inlet.done(&one);
        }
    }
    inlet.hold();
    let is_behind = async |inlet: &mut Inlet, messages: u64| {
        let deadline = Instant::now() + WAIT;
        while inlet.behind() != [Behind { partition: 0, messages }] {
            silence(inlet, 1).await;
            assert!(Instant::now() < deadline, "{messages} wanted: {:?}", inlet.behind());
        }
    };
    is_behind(&mut inlet, 4).await;
    write(&cluster, 0, 6..10).await;
    is_behind(&mut inlet, 8).await;
    inlet.close().await;
}

/// Scenario: the group's offset is beyond what the topic holds, as after the topic was made anew.
/// Guarantees: I2; the range is told, and reading goes on with the first message that is there.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_lost_range_is_told_and_reading_goes_on() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..2).await;
    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
    given(&mut inlet).await;
    inlet.consumer.report(0, 7);
    inlet.reading.clear();
    inlet.close().await;

    let mut inlet = Inlet::open(&settings(&cluster, TopicStart::Earliest)).unwrap();
    let deadline = Instant::now() + WAIT;
    loop {
        match inlet.next(TURN).await.unwrap() {
            Arrival::Lost { partition: 0, wanted: 7, first: 0, next: 2 } => break,
            Arrival::Message(given) => panic!("{given:?}"),
            _ => assert!(Instant::now() < deadline, "the lost range is not told"),
        }
    }
    assert_eq!((given(&mut inlet).await.offset, given(&mut inlet).await.offset), (0, 1));
    inlet.close().await;
}

/// Scenario: properties that nobody may set.
/// Guarantees: refused in a line that names the property and what stands in its place.
#[test]
fn what_an_inlet_decides_itself_cannot_be_set() {
    let cluster = cluster(1);
    for (name, told) in [
        ("group.id", "properties: `group.id` cannot be set: `group` says it"),
        ("auto.offset.reset", "properties: `auto.offset.reset` cannot be set: a lost range is reported"),
        ("no.such", "properties: librdkafka knows no property `no.such`"),
    ] {
        let mut wrong = settings(&cluster, TopicStart::Earliest);
        wrong.properties.insert(name.to_owned(), Secret::from("hunter2".to_owned()));
        let line = wrong.check().unwrap_err().to_string();
        assert!(line.starts_with(told) && !line.contains("hunter2"), "{line}");
    }
    settings(&cluster, TopicStart::Earliest).check().unwrap();
}
