//! Against librdkafka's own mock cluster, which runs anywhere. It knows groups and offsets, but neither makes nor describes
//! topics: that is tested against a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use airan_model::settings::Secret;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::consumer::REJOINS;
use super::testing::{TURN, WAIT, assigned, message, out_of_range, read_until, rows, wanted};
use super::*;
use crate::Event;

const TOPIC: &str = "airan.telemetry";

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for topic in [TOPIC.to_owned(), topics::rejected_topic(TOPIC)] {
        cluster.create_topic(&topic, partitions, 1).unwrap();
    }
    cluster
}

fn bus(cluster: &Cluster, partitions: u16, properties: &[(&str, &str)]) -> KafkaBus {
    // The mock lets the first member wait for 3 s, and later ones for a session less 1 s.
    let short = [("session.timeout.ms", "3600"), ("heartbeat.interval.ms", "200")];
    let properties = short.iter().chain(properties);
    let properties = properties.map(|(name, value)| ((*name).to_owned(), Secret::from((*value).to_owned()))).collect();
    let settings =
        KafkaSettings { brokers: cluster.bootstrap_servers(), topic: TOPIC.to_owned(), partitions, properties };
    KafkaBus::connect(&settings).unwrap().watched()
}

/// Scenario: rows and a tick to two partitions, read back from the middle of one and the start of the other.
/// Guarantees: B2, B3; headers and payload come back, and nothing comes before it is sought.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_messages_come_back_from_where_they_are_sought() {
    let cluster = cluster(2);
    let bus = bus(&cluster, 2, &[]);
    for offset in 0..5 {
        assert_eq!(bus.send(0, rows(offset, 100)).await.unwrap(), offset as i64);
    }
    assert_eq!(bus.send(1, Message::Tick).await.unwrap(), 0);
    assert_eq!((bus.offsets(0).await.unwrap(), bus.offsets(1).await.unwrap()), ((0, 5), (0, 1)));
    assert!(bus.ready().await.is_ok());

    let mut consumer = bus.consumer().await.unwrap();
    assert!(matches!(consumer.seek(0, 0), Err(ConsumeError::NotAssigned { partition: 0 })));
    assert_eq!(assigned(&mut *consumer).await, [0, 1]);
    consumer.seek(0, 2).unwrap();
    for offset in 2..5 {
        let received = message(&mut *consumer).await;
        assert_eq!((received.partition, received.offset), (0, offset), "partition 1 was not sought");
        let Message::Rows(rows) = received.message else { panic!("rows") };
        assert_eq!((&*rows.stream, rows.schema, rows.rows, rows.payload.len()), ("host", offset as u64, 3, 100));
    }
    consumer.seek(1, 0).unwrap();
    let tick = message(&mut *consumer).await;
    assert!(matches!((tick.partition, tick.offset, &tick.message), (1, 0, Message::Tick)), "{tick:?}");

    consumer.seek(0, 4).unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 4, "sought again");
    consumer.pause(0);
    bus.send(0, rows(5, 1)).await.unwrap();
    bus.send(1, Message::Tick).await.unwrap();
    let other = message(&mut *consumer).await;
    assert_eq!((other.partition, other.offset), (1, 1), "partition 0 is paused");
    consumer.resume(0);
    assert_eq!(message(&mut *consumer).await.offset, 5);
    consumer.close().await;
    let counts = bus.counts();
    assert_eq!((counts.sent, counts.sent_bytes, counts.received, counts.waiting), (8, 501, 7, 0));
}

/// Scenario: partitions of a topic are sought over and over, paused at once and resumed a moment later, while offsets are reported
/// (librdkafka begins to fetch when they have been, so that it does so while it is asked to pause).
/// Guarantees: B2; nothing comes while they are paused, and each gives its messages, in order, once it is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_partition_paused_before_it_is_fetched_goes_on() {
    const PARTITIONS: i32 = 16;
    let cluster = cluster(PARTITIONS);
    let bus = bus(&cluster, PARTITIONS as u16, &[]);
    for partition in 0..PARTITIONS {
        for _ in 0..2 {
            bus.send(partition, Message::Tick).await.unwrap();
        }
    }
    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await.len(), PARTITIONS as usize);
    for round in 0..24 {
        for partition in 0..PARTITIONS {
            consumer.report(partition, 0);
            consumer.seek(partition, 0).unwrap();
            // Waits between nothing and as long as librdkafka takes to begin.
            std::thread::sleep(Duration::from_micros(50 * (round % 8)));
            consumer.pause(partition);
        }
        for _ in 0..round % 4 {
            let event = consumer.next(TURN).await.unwrap();
            assert!(matches!(event, Event::Idle), "round {round}: {event:?}");
        }
        (0..PARTITIONS).for_each(|partition| consumer.resume(partition));
        let mut next = vec![0; PARTITIONS as usize];
        while next.iter().any(|next| *next < 2) {
            let received = message(&mut *consumer).await;
            let next = &mut next[received.partition as usize];
            assert_eq!(received.offset, *next, "round {round}, partition {}", received.partition);
            *next += 1;
        }
    }
    consumer.close().await;
}

/// Scenario: a second consumer joins, is kept waiting, is let in; then the first one leaves.
/// Guarantees: B4; a partition is with one consumer at a time, and the ones that stay go on where they were.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_partition_moves_when_it_is_released_and_not_before() {
    let cluster = cluster(4);
    let bus = bus(&cluster, 4, &[]);
    let mut first = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *first).await, [0, 1, 2, 3]);
    for partition in 0..4 {
        bus.send(partition, Message::Tick).await.unwrap();
        first.seek(partition, 0).unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        seen.insert(message(&mut *first).await.partition);
    }

    let mut second = bus.consumer().await.unwrap();
    let deadline = Instant::now() + WAIT;
    let revoked = loop {
        assert!(Instant::now() < deadline, "nothing is revoked");
        if let Event::Revoked(partitions) = first.next(TURN).await.unwrap() {
            break partitions;
        }
        let early = second.next(TURN).await.unwrap();
        assert!(!matches!(&early, Event::Assigned(partitions) if !partitions.is_empty()), "{early:?}");
    };
    assert_eq!(revoked.len(), 2);
    let kept: Vec<i32> = (0..4).filter(|partition| !revoked.contains(partition)).collect();
    // The first one is still at work on what was revoked: the second gets nothing.
    bus.send(kept[0], Message::Tick).await.unwrap();
    for _ in 0..10 {
        let early = second.next(TURN).await.unwrap();
        assert!(!matches!(&early, Event::Assigned(partitions) if !partitions.is_empty()), "{early:?}");
    }
    first.report(revoked[0], 1);
    first.released(&revoked);
    let still = message(&mut *first).await;
    assert_eq!((still.partition, still.offset), (kept[0], 1), "what was kept goes on where it was");
    let mut owned = BTreeSet::new();
    let deadline = Instant::now() + WAIT;
    while owned.len() < 2 {
        assert!(Instant::now() < deadline, "the second consumer has {owned:?}");
        first.next(TURN).await.unwrap();
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
    }
    assert_eq!(owned, revoked.iter().copied().collect());
    second.seek(revoked[0], 0).unwrap();
    assert_eq!(message(&mut *second).await.partition, revoked[0]);
    assert!(matches!(first.seek(revoked[0], 0), Err(ConsumeError::NotAssigned { .. })));

    first.close().await;
    let rest = assigned(&mut *second).await;
    assert_eq!(rest, kept);
    second.close().await;
}

/// Scenario: a consumer with a revocation unanswered, and one that nobody closes, go away.
/// Guarantees: neither hangs, and the group goes on.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_consumer_can_leave_in_the_middle_of_a_rebalance() {
    let cluster = cluster(2);
    let bus = bus(&cluster, 2, &[]);
    let mut first = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *first).await, [0, 1]);
    first.seek(0, 0).unwrap();
    let mut second = bus.consumer().await.unwrap();
    let deadline = Instant::now() + WAIT;
    loop {
        assert!(Instant::now() < deadline, "nothing is revoked");
        if matches!(first.next(TURN).await.unwrap(), Event::Revoked(_)) {
            break;
        }
        second.next(TURN).await.unwrap();
    }
    tokio::time::timeout(WAIT, first.close()).await.expect("it leaves");
    let mut owned = BTreeSet::new();
    let deadline = Instant::now() + WAIT;
    while owned.len() < 2 {
        assert!(Instant::now() < deadline, "the second consumer has {owned:?}");
        if let Event::Assigned(partitions) = second.next(TURN).await.unwrap() {
            owned.extend(partitions);
        }
    }
    drop(second);
    let mut third = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *third).await, [0, 1]);
    third.close().await;
}

/// Scenario: offsets past the end of a partition and before its start, beside one that is fine.
/// Guarantees: the lost range is named, the partition is read no more until it is sought, the other one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_lost_range_is_named_and_the_others_go_on() {
    let cluster = cluster(2);
    let bus = bus(&cluster, 2, &[("compression.type", "none")]);
    // The mock keeps 5 MiB of a partition.
    for n in 0..12 {
        bus.send(0, rows(n, 900_000)).await.unwrap();
    }
    let (oldest, end) = bus.offsets(0).await.unwrap();
    assert!(oldest > 0 && end == 12, "{oldest} {end}");
    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await, [0, 1]);
    consumer.seek(1, 0).unwrap();
    consumer.seek(0, 0).unwrap();
    assert_eq!(out_of_range(&mut *consumer).await, (0, 0, oldest, 12));
    bus.send(1, Message::Tick).await.unwrap();
    assert_eq!(message(&mut *consumer).await.partition, 1);
    consumer.seek(0, 100).unwrap();
    assert_eq!(out_of_range(&mut *consumer).await, (0, 100, oldest, 12));
    consumer.seek(0, 11).unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 11);
    bus.send(0, rows(12, 1)).await.unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 12);
    consumer.close().await;
}

/// Scenario: a message over the limit, a partition there is not, and one just under the limit.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_what_is_too_large_is_told_and_the_rest_goes() {
    let cluster = cluster(1);
    let bus = bus(&cluster, 1, &[("message.max.bytes", "200000")]);
    let refused = bus.send(0, rows(0, 300_000)).await.unwrap_err();
    assert_eq!(refused, SendError::TooLarge { bytes: 300_000, limit: 200_000 });
    assert!(matches!(bus.send(1, Message::Tick).await, Err(SendError::NoPartition { partition: 1, partitions: 1 })));
    assert_eq!(bus.send(0, rows(0, 190_000)).await.unwrap(), 0);
    assert_eq!(bus.counts().too_large, 1);
}

/// Scenario: the producer is replaced while the broker is away and a message waits for it; the broker comes back.
/// Guarantees: whoever waits is told that the message may be there; the new producer sends.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_producer_is_replaced_under_those_who_wait() {
    let cluster = cluster(1);
    let bus = bus(&cluster, 1, &[("delivery.timeout.ms", "3000"), ("request.timeout.ms", "1000")]);
    bus.send(0, rows(0, 10)).await.unwrap();
    let before = bus.shared.sending.producer();
    cluster.broker_down(1).unwrap();
    let replace = async {
        tokio::time::sleep(TURN).await;
        let shared = std::sync::Arc::clone(&bus.shared);
        tokio::task::spawn_blocking(move || shared.sending.renew()).await.unwrap();
    };
    let (waited, ()) = tokio::join!(bus.shared.sending.send(TOPIC, 0, &[7; 10], &[]), replace);
    assert!(matches!(waited, Err(SendError::Unknown { .. })), "{waited:?}");
    assert!(!std::ptr::eq(before.client(), bus.shared.sending.producer().client()));
    cluster.broker_up(1).unwrap();
    let deadline = Instant::now() + WAIT;
    while bus.send(0, rows(1, 10)).await.is_err() {
        assert!(Instant::now() < deadline, "the new producer does not send");
        tokio::time::sleep(TURN).await;
    }
}

/// Scenario: a consumer whose client finds no broker, beside a producer that does.
/// Guarantees: its client is replaced, and it goes on looking; the producer is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_consumer_that_alone_finds_no_broker_is_replaced() {
    let cluster = cluster(1);
    let settings = KafkaSettings {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.to_owned(),
        partitions: 1,
        properties: BTreeMap::new(),
    };
    let mut config = Config::of(&settings).unwrap();
    // Nobody listens there.
    config.consumer.set("bootstrap.servers", "127.0.0.1:1");
    let bus = KafkaBus::configured(config, &settings).unwrap().watched();
    bus.send(0, rows(0, 10)).await.unwrap();
    let mut consumer = KafkaConsumer::join(Arc::clone(&bus.shared), Contents::Ours).unwrap();
    let first = consumer.consumer.as_ref().map(Arc::downgrade).unwrap();
    let deadline = Instant::now() + WAIT;
    while consumer.consumer.as_ref().is_some_and(|now| first.ptr_eq(&Arc::downgrade(now))) {
        assert!(Instant::now() < deadline, "it is not replaced");
        assert!(matches!(consumer.next(TURN).await, Ok(Event::Idle | Event::Down { .. })));
    }
    assert!(matches!(consumer.next(TURN).await, Ok(Event::Idle | Event::Down { .. })));
    bus.send(0, rows(1, 10)).await.unwrap();
    Box::new(consumer).close().await;
}

/// Scenario: the broker goes away under producer and consumer, and comes back.
/// Guarantees: sends end with an error that says whether the message may be there, `ready` says why not, the consumer tells
/// once, and everything goes on afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_broker_that_goes_away_is_told_and_waited_for() {
    let cluster = cluster(1);
    let bus = bus(&cluster, 1, &[("delivery.timeout.ms", "2000"), ("request.timeout.ms", "1000")]);
    bus.send(0, rows(0, 10)).await.unwrap();
    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await, [0]);
    consumer.seek(0, 0).unwrap();
    assert_eq!(message(&mut *consumer).await.offset, 0);

    cluster.broker_down(1).unwrap();
    let lost = bus.send(0, rows(1, 10)).await.unwrap_err();
    assert!(matches!(lost, SendError::Unknown { .. } | SendError::Unavailable { .. }), "{lost}");
    let reason = wanted(&mut *consumer, "that Kafka is away", |event| match event {
        Event::Down { reason } => Some(reason),
        _ => None,
    })
    .await;
    assert!(!reason.is_empty());
    assert!(bus.ready().await.unwrap_err().contains("Kafka is away"));
    let refused = bus.send(0, rows(1, 10)).await.unwrap_err();
    assert!(matches!(refused, SendError::Unavailable { .. }), "{refused}");

    cluster.broker_up(1).unwrap();
    let deadline = Instant::now() + WAIT;
    while bus.ready().await.is_err() {
        assert!(Instant::now() < deadline, "Kafka is not back");
        consumer.next(TURN).await.unwrap();
    }
    let sent = bus.send(0, rows(2, 10)).await.unwrap();
    assert_eq!(read_until(&mut *consumer, 0, sent).await[&sent], 2);
    consumer.close().await;
}

/// Scenario: the coordinator forgets a static member, which joins anew, and takes an offset that it reports for that of a process of
/// before; as often as it may, then once more. At last it does so to one that was never forgotten.
/// Guarantees: the member is put away and another one goes on in its place, which reads from where it is sent; what is reported
/// between the loss and the new membership is not sent; neither two processes of one name nor a coordinator that never relents make that
/// go on for ever, and the end is told with the name and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_a_member_that_was_lost_and_fenced_joins_again() {
    let cluster = cluster(2);
    let bus = bus(&cluster, 2, &[("group.instance.id", "p-1")]);
    bus.send(0, rows(0, 10)).await.unwrap();
    let fence = || {
        let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[fenced]);
    };
    let revoked = |event| if let Event::Revoked(partitions) = event { Some(partitions) } else { None };
    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await, [0, 1]);
    for round in 0..=REJOINS {
        cluster.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
        let lost = wanted(&mut *consumer, "the loss", revoked).await;
        assert_eq!(lost, [0, 1]);
        fence();
        // Were it sent, it would be fatal.
        consumer.report(0, 1);
        consumer.released(&lost);
        assert_eq!(assigned(&mut *consumer).await, [0, 1]);
        consumer.report(0, 1);
        if round == REJOINS {
            break;
        }
        let fenced = wanted(&mut *consumer, "the fence", revoked).await;
        assert_eq!(fenced, [0, 1]);
        assert!(matches!(consumer.seek(0, 0), Err(ConsumeError::NotAssigned { partition: 0 })));
        assert!(matches!(consumer.next(TURN).await, Ok(Event::Idle)), "the shards have not let go");
        consumer.released(&fenced);
        assert_eq!(assigned(&mut *consumer).await, [0, 1]);
        consumer.seek(0, 0).unwrap();
        assert_eq!(message(&mut *consumer).await.offset, 0);
    }
    assert!(told_to_end(&mut *consumer).await.contains("`p-1`"));
    consumer.close().await;

    let mut consumer = bus.consumer().await.unwrap();
    assert_eq!(assigned(&mut *consumer).await, [0, 1]);
    fence();
    consumer.report(0, 1);
    let told = told_to_end(&mut *consumer).await;
    assert!(told.contains("`p-1`") && told.contains("processor.instance"), "{told}");
    consumer.close().await;
}

/// Why the consumer cannot go on.
async fn told_to_end(consumer: &mut dyn Consumer) -> String {
    let deadline = Instant::now() + WAIT;
    loop {
        assert!(Instant::now() < deadline, "the consumer goes on");
        match consumer.next(TURN).await {
            Err(ConsumeError::Fatal { reason }) => break reason,
            event => assert!(!matches!(event, Ok(Event::Revoked(_))), "{event:?}"),
        }
    }
}

/// Scenario: opening where no broker is, dropped after a while.
/// Guarantees: it waits, and can be given up at any time.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_mock_opening_waits_for_a_broker_and_can_be_given_up() {
    let settings = KafkaSettings {
        // A port of the reserved range, where nothing listens.
        brokers: "127.0.0.1:1".to_owned(),
        topic: TOPIC.to_owned(),
        partitions: 1,
        properties: BTreeMap::new(),
    };
    let opening = tokio::time::timeout(Duration::from_millis(500), KafkaBus::open(&settings));
    assert!(opening.await.is_err(), "it waits");
}
