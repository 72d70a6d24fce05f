//! Against Apache Kafka itself, where `AIRAN_KAFKA` names a broker: `tests/kafka.sh` starts one. Each test has topics of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use airan_model::reject::Reason;
use airan_model::settings::Secret;
use airan_model::time::Clock;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::sync::{Mutex, MutexGuard};

use super::testing::{TURN, WAIT, assigned, message, out_of_range, read_until, rows};
use super::*;
use crate::Event;

/// One test at a time: one of them restarts the broker.
static BROKER: Mutex<()> = Mutex::const_new(());

/// The broker, and the right to use it alone; None where there is none, said loudly.
async fn broker(test: &str) -> Option<(String, MutexGuard<'static, ()>)> {
    let Ok(address) = std::env::var("AIRAN_KAFKA") else {
        eprintln!("NOT TESTED: {test}: no AIRAN_KAFKA; tests/kafka.sh starts a broker and sets it");
        return None;
    };
    Some((address, BROKER.lock().await))
}

/// Settings for a topic nobody else has.
fn settings(brokers: &str, test: &str, partitions: u16) -> KafkaSettings {
    let name = format!("{test}.{}", Clock::system().now());
    let group = Secret::from(format!("airan.{name}"));
    let properties = BTreeMap::from([("group.id".to_owned(), group)]);
    KafkaSettings { brokers: brokers.to_owned(), topic: format!("airan.telemetry.{name}"), partitions, properties }
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

async fn make(brokers: &str, topic: &str, partitions: i32, config: &[(&str, &str)]) {
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in config {
        wanted = wanted.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(WAIT));
    let made = admin(brokers).create_topics([&wanted], &options).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Scenario: no topics; then the same settings again; then another partition count.
/// Guarantees: topics are made as they must be, found in order, and never changed (B5).
#[tokio::test(flavor = "multi_thread")]
async fn kafka_missing_topics_are_made_and_found_in_order() {
    let Some((brokers, _alone)) = broker("missing topics").await else { return };
    let settings = settings(&brokers, "made", 6);
    let bus = KafkaBus::open(&settings).await.unwrap();
    assert_eq!((bus.topic(), bus.partitions()), (&*settings.topic, 6));
    let described = admin(&brokers);
    for (topic, partitions) in [(settings.topic.clone(), 6), (topics::rejected_topic(&settings.topic), 1)] {
        let metadata = described.inner().fetch_metadata(Some(&topic), WAIT).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), partitions, "{topic}");
        let specifier = rdkafka::admin::ResourceSpecifier::Topic(&topic);
        let config = described.describe_configs([&specifier], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
        let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone()).unwrap();
        assert_eq!(value("message.timestamp.type"), "LogAppendTime", "{topic}");
        assert_eq!((value("cleanup.policy"), value("min.insync.replicas")), ("delete".to_owned(), "1".to_owned()));
    }
    drop(bus);
    KafkaBus::open(&settings).await.unwrap();
    let error = KafkaBus::open(&KafkaSettings { partitions: 7, ..settings }).await.err().unwrap();
    assert!(matches!(error, OpenError::PartitionsChanged { found: 6, wanted: 7, .. }), "{error}");
    assert!(error.to_string().contains("set it back to 6"), "{error}");
}

/// Scenario: topics that somebody made, each with one property as it must not be, or should not be.
/// Guarantees: what loses rows or their order is refused with a line that names the property; the rest works.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_each_property_of_a_topic_is_checked() {
    let Some((brokers, _alone)) = broker("properties of topics").await else { return };
    const GOOD: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];
    for (name, value, is_fatal) in [
        ("message.timestamp.type", "CreateTime", true),
        ("min.insync.replicas", "2", true),
        ("cleanup.policy", "compact", true),
        ("max.message.bytes", "100000", true),
        ("retention.ms", "3600000", false),
        ("retention.bytes", "100000000", false),
    ] {
        let settings = settings(&brokers, "checked", 1);
        let config: Vec<_> = GOOD.into_iter().filter(|(good, _)| *good != name).chain([(name, value)]).collect();
        make(&brokers, &settings.topic, 1, &config).await;
        match KafkaBus::open(&settings).await {
            Ok(bus) => {
                assert!(!is_fatal, "{name}={value} was taken");
                assert_eq!(bus.send(0, Message::Tick).await.unwrap(), 0, "{name}={value}");
            }
            Err(OpenError::Topic { topic, problems }) => {
                assert!(is_fatal && topic == settings.topic, "{name}={value}: {problems:?}");
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert!(problems[0].starts_with(name), "{problems:?}");
            }
            Err(error) => panic!("{name}={value}: {error}"),
        }
    }
}

/// Scenario: rows and a refusal go to Kafka and come back; a consumer reports how far it is.
/// Guarantees: headers, payload, offsets; append times are the broker's and do not go back; the report can be seen by lag tools.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_messages_come_back_with_the_brokers_time() {
    let Some((brokers, _alone)) = broker("messages").await else { return };
    let settings = settings(&brokers, "messages", 2);
    let bus = KafkaBus::open(&settings).await.unwrap();
    let before = Clock::system().now();
    for n in 0..50 {
        assert_eq!(bus.send(1, rows(n, 8)).await.unwrap(), n as i64);
    }
    let after = Clock::system().now();
    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await.len(), 2);
    consumer.seek(1, 10).unwrap();
    let mut last = before - 1_000;
    for offset in 10..50 {
        let received = message(&mut *consumer).await;
        assert_eq!((received.partition, received.offset), (1, offset));
        assert!(received.append_time >= last && received.append_time <= after, "{received:?}");
        last = received.append_time;
        let Message::Rows(rows) = received.message else { panic!("rows") };
        assert_eq!((rows.schema, &rows.payload[..]), (offset as u64, &[offset as u8; 8][..]));
    }
    consumer.report(1, 50);
    consumer.close().await;
    let watcher: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", settings.properties["group.id"].expose())
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&settings.topic, 1);
    let committed = watcher.committed_offsets(list, WAIT).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(50));

    let rejected = Rejected {
        door: "bus".to_owned(),
        reason: Reason::Foreign,
        node: Some("edge-1".to_owned()),
        length: 9,
        sha256: "ab".to_owned(),
        position: Some("0/7".to_owned()),
        at: 0,
        rows: 0,
    };
    bus.send_rejected(rejected.clone()).await.unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topics::rejected_topic(&settings.topic), 0, Offset::Beginning).unwrap();
    watcher.assign(&list).unwrap();
    let deadline = Instant::now() + WAIT;
    let kept = loop {
        assert!(Instant::now() < deadline, "no record of the refusal");
        if let Some(Ok(message)) = watcher.poll(Duration::from_millis(200)) {
            break message.payload().unwrap().to_vec();
        }
    };
    assert_eq!(kept, rejected.to_json());

    let reader = crate::Reader::open(&crate::BusSettings::Kafka(settings)).unwrap();
    assert_eq!((reader.offsets(0).await.unwrap(), reader.offsets(1).await.unwrap()), ((0, 0), (0, 50)));
    let found = reader.message(1, 7).await.unwrap().unwrap();
    let Message::Rows(rows) = found.message else { panic!("rows") };
    assert_eq!((found.offset, rows.schema), (7, 7));
    assert!(reader.message(1, 50).await.unwrap().is_none());
    let kept = reader.rejected(10).await.unwrap();
    assert_eq!(kept.iter().map(|record| Rejected::from_json(&record.record)).collect::<Vec<_>>(), [Some(rejected)]);
}

/// Scenario: two members with names of their own share a topic; one closes in order, then one is dropped.
/// Guarantees: a member that leaves tells the group, named or not, so its partitions move well before the session's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_a_named_member_that_leaves_is_not_waited_for() {
    let Some((brokers, _alone)) = broker("a named member that leaves").await else { return };
    let settings = settings(&brokers, "named", 4);
    let named = |name: &str| {
        let mut settings = settings.clone();
        settings.properties.insert("group.instance.id".to_owned(), Secret::from(name.to_owned()));
        // So long that nobody could take waiting for it for a slow machine.
        settings.properties.insert("session.timeout.ms".to_owned(), Secret::from("45000".to_owned()));
        settings
    };
    let (one, two) = (KafkaBus::open(&named("one")).await.unwrap(), KafkaBus::open(&named("two")).await.unwrap());
    let mut first = one.consumer().await.unwrap();
    assert_eq!(assigned(&mut *first).await.len(), 4);
    let mut second = two.consumer().await.unwrap();
    let mut owned = BTreeSet::new();
    let deadline = Instant::now() + WAIT;
    while owned.len() < 2 {
        assert!(Instant::now() < deadline, "the second member has {owned:?}");
        if let Event::Revoked(partitions) = first.next(TURN).await.unwrap() {
            first.released(&partitions);
        }
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
    }
    let begun = Instant::now();
    first.close().await;
    while owned.len() < 4 {
        assert!(Instant::now() < deadline, "the second member has {owned:?}");
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
    }
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(25), "{taken:?}: the group waited for the session's timeout");
    second.close().await;
}

/// Scenario: the start of a partition is deleted under a reader who wants it.
/// Guarantees: the lost range is named with its bounds; what is left can be read.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_a_deleted_range_is_named() {
    let Some((brokers, _alone)) = broker("a deleted range").await else { return };
    let settings = settings(&brokers, "deleted", 1);
    let bus = KafkaBus::open(&settings).await.unwrap();
    for n in 0..10 {
        bus.send(0, rows(n, 8)).await.unwrap();
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&settings.topic, 0, Offset::Offset(6)).unwrap();
    admin(&brokers).delete_records(&list, &AdminOptions::new()).await.unwrap();
    let mut consumer = bus.consumer().await.unwrap();
    assigned(&mut *consumer).await;
    consumer.seek(0, 2).unwrap();
    assert_eq!(out_of_range(&mut *consumer).await, (0, 2, 6, 10));
    consumer.seek(0, 6).unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 6);
    consumer.close().await;
}

/// Scenario: a second consumer joins; the first one is slow to let go.
/// Guarantees: B4 with Kafka's own coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_a_partition_moves_when_it_is_released() {
    let Some((brokers, _alone)) = broker("rebalance").await else { return };
    let bus = KafkaBus::open(&settings(&brokers, "moves", 4)).await.unwrap();
    let mut first = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *first).await.len(), 4);
    for partition in 0..4 {
        bus.send(partition, Message::Tick).await.unwrap();
        first.seek(partition, 0).unwrap();
        message(&mut *first).await;
    }
    let mut second = bus.consumer().await.unwrap();
    let (mut revoked, mut owned, mut turns) = (Vec::new(), Vec::new(), 0);
    let deadline = Instant::now() + WAIT;
    while owned.len() < 2 {
        assert!(Instant::now() < deadline, "revoked {revoked:?}, owned {owned:?}");
        if let Event::Revoked(partitions) = first.next(TURN).await.unwrap() {
            revoked = partitions;
        }
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            assert!(partitions.is_empty() || turns > 20, "{partitions:?} moved before they were released");
            owned.extend(partitions);
        }
        turns += usize::from(!revoked.is_empty());
        if turns == 20 {
            first.released(&revoked);
            turns += 1;
        }
    }
    revoked.sort_unstable();
    owned.sort_unstable();
    assert_eq!((owned.len(), &owned), (2, &revoked));
    second.seek(owned[0], 0).unwrap();
    assert_eq!(message(&mut *second).await.partition, owned[0]);
    tokio::join!(first.close(), second.close());
}

/// Scenario: the broker is stopped and started again under a producer and a consumer that stay.
/// Guarantees: no acknowledged message is missing, none comes twice, `ready` follows the broker, and opening waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_a_restarted_broker_is_waited_for() {
    let Some((brokers, _alone)) = broker("a restart").await else { return };
    let Ok(script) = std::env::var("AIRAN_KAFKA_SCRIPT") else {
        eprintln!("NOT TESTED: a restart: no AIRAN_KAFKA_SCRIPT; tests/kafka.sh sets it");
        return;
    };
    let run = |what: &str| assert!(Command::new(&script).arg(what).status().unwrap().success(), "{script} {what}");
    let settings = settings(&brokers, "restart", 1);
    let bus = KafkaBus::open(&settings).await.unwrap();
    let mut consumer = bus.consumer().await.unwrap();
    assigned(&mut *consumer).await;
    consumer.seek(0, 0).unwrap();
    bus.send(0, rows(0, 8)).await.unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 0);

    run("stop");
    let deadline = Instant::now() + WAIT;
    while bus.ready().await.is_ok() {
        assert!(Instant::now() < deadline, "it is ready without a broker");
        tokio::time::sleep(TURN).await;
    }
    let opening = tokio::spawn({
        let settings = settings.clone();
        async move { KafkaBus::open(&settings).await.map(|_bus| ()) }
    });
    let mut sent = 1;
    let refused = loop {
        match tokio::time::timeout(Duration::from_secs(5), bus.send(0, rows(sent, 8))).await {
            Ok(Ok(offset)) => panic!("offset {offset} without a broker"),
            Ok(Err(error)) if matches!(error, SendError::Unavailable { .. }) => break error,
            _ => sent += 1,
        }
        assert!(Instant::now() < deadline, "sends are not refused");
    };
    assert!(refused.to_string().contains("the bus is away"), "{refused}");

    run("start");
    let deadline = Instant::now() + WAIT;
    let acknowledged = 1_000;
    let offset = loop {
        assert!(Instant::now() < deadline, "nothing is taken after the start");
        match bus.send(0, rows(acknowledged, 8)).await {
            Ok(offset) => break offset,
            Err(_) => tokio::time::sleep(TURN).await,
        }
    };
    assert!(bus.ready().await.is_ok());
    opening.await.unwrap().unwrap();
    assert_eq!(read_until(&mut *consumer, 0, offset).await[&offset], acknowledged);
    consumer.close().await;
}

/// Scenario: a second process joins under the name of the first.
/// Guarantees: the first one is told, as fatal and in a line that names the setting; the partitions are the second's.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_a_name_belongs_to_one_member() {
    let Some((brokers, _alone)) = broker("a name that is taken").await else { return };
    let mut settings = settings(&brokers, "taken", 2);
    settings.properties.insert("group.instance.id".to_owned(), Secret::from("edge-1-4320".to_owned()));
    let (one, two) = (KafkaBus::open(&settings).await.unwrap(), KafkaBus::open(&settings).await.unwrap());
    let mut first = one.consumer().await.unwrap();
    assert_eq!(assigned(&mut *first).await, [0, 1]);
    let mut second = two.consumer().await.unwrap();
    let mut owned = BTreeSet::new();
    let deadline = Instant::now() + WAIT;
    let reason = loop {
        assert!(Instant::now() < deadline, "the first member is not told");
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
        match first.next(TURN).await {
            Err(ConsumeError::Fatal { reason }) => break reason,
            Ok(Event::Revoked(partitions)) => first.released(&partitions),
            _ => {}
        }
    };
    assert!(reason.contains("`edge-1-4320`") && reason.contains("processor.instance"), "{reason}");
    first.close().await;
    while owned.len() < 2 {
        assert!(Instant::now() < deadline, "the second member has {owned:?}");
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
    }
    second.close().await;
}
