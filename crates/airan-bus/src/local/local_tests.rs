use std::time::Duration;

use airan_model::message::Rows;
use airan_model::reject::Reason;
use airan_model::settings::{BytesSetting, DurationSetting};
use airan_model::time::{HOUR, ManualClock, SECOND};
use tempfile::TempDir;

use super::*;
use crate::{Event, Received};

const WAIT: Duration = Duration::from_secs(20);

fn settings(folder: &TempDir, partitions: u16) -> LocalSettings {
    LocalSettings {
        path: folder.path().join("log"),
        topic: "airan.telemetry".to_owned(),
        partitions,
        segment_bytes: BytesSetting::from(256 << 10),
        max_age: DurationSetting::from(Duration::from_secs(24 * 3600)),
        max_bytes: BytesSetting::from(64 << 20),
    }
}

fn open(folder: &TempDir) -> LocalBus {
    LocalBus::open(&settings(folder, 2), Clock::fixed(1_000)).unwrap()
}

fn rows(number: u64, size: usize) -> Message {
    let payload = Bytes::from(vec![number as u8; size]);
    Message::Rows(Rows { stream: Arc::from("host"), schema: number, rows: 1, payload })
}

/// The number a message was made with.
fn number(received: &Received) -> u64 {
    let Message::Rows(rows) = &received.message else { panic!("rows: {received:?}") };
    rows.schema
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Event {
    consumer.next(WAIT).await.unwrap()
}

async fn message(consumer: &mut Box<dyn Consumer>) -> Received {
    match next(consumer).await {
        Event::Message(received) => received,
        other => panic!("a message, not {other:?}"),
    }
}

/// A consumer that was told of its partitions.
async fn consumer(bus: &LocalBus) -> Box<dyn Consumer> {
    let mut consumer = bus.consumer().await.unwrap();
    let Event::Assigned(partitions) = next(&mut consumer).await else { panic!("assigned first") };
    assert_eq!(partitions, (0..bus.partitions()).collect::<Vec<_>>());
    consumer
}

/// Waits for something that another thread does.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + WAIT;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "not within {WAIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Scenario: messages to two partitions, read while some are still to come; then the bus is closed and opened again.
/// Guarantees: B2; offsets, order and append times stay over a restart, and nothing comes before it is sought (B3).
#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_order_also_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    let mut reader = consumer(&bus).await;
    for n in 0..20 {
        assert_eq!(bus.send(n as i32 % 2, rows(n, 10)).await.unwrap(), n as i64 / 2);
    }
    let idle = reader.next(Duration::from_millis(20)).await.unwrap();
    assert!(matches!(idle, Event::Idle), "{idle:?}");
    reader.seek(0, 3).unwrap();
    for offset in 3..10 {
        let received = message(&mut reader).await;
        assert_eq!((received.partition, received.offset, number(&received)), (0, offset, offset as u64 * 2));
        assert_eq!(received.append_time, 1_000);
    }
    let later = tokio::spawn(async move {
        let received = message(&mut reader).await;
        (number(&received), reader)
    });
    bus.send(0, rows(77, 10)).await.unwrap();
    let (late, reader) = later.await.unwrap();
    assert_eq!(late, 77);
    drop((reader, bus));

    let bus = open(&folder);
    assert_eq!((bus.offsets(0).await.unwrap(), bus.offsets(1).await.unwrap()), ((0, 11), (0, 10)));
    let mut reader = consumer(&bus).await;
    reader.seek(1, 0).unwrap();
    for offset in 0..10 {
        let received = message(&mut reader).await;
        assert_eq!((received.partition, received.offset, number(&received)), (1, offset, offset as u64 * 2 + 1));
    }
}

/// Scenario: many senders at once to one partition.
/// Guarantees: every message has an offset of its own, in the order in which one sender sent, and they share syncs.
#[tokio::test(flavor = "multi_thread")]
async fn senders_that_wait_together_share_a_sync() {
    const SENDERS: u64 = 64;
    let folder = TempDir::new().unwrap();
    let bus = Arc::new(open(&folder));
    let sends: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let bus = Arc::clone(&bus);
            tokio::spawn(async move {
                let mut offsets = Vec::new();
                for _ in 0..8 {
                    offsets.push(bus.send(0, rows(sender, 100)).await.unwrap());
                }
                assert!(offsets.is_sorted());
                offsets
            })
        })
        .collect();
    let mut offsets = Vec::new();
    for send in sends {
        offsets.extend(send.await.unwrap());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..SENDERS as i64 * 8).collect::<Vec<_>>());
    let counts = bus.counts();
    assert_eq!((counts.sent, counts.sent_bytes, counts.waiting), (SENDERS * 8, SENDERS * 800, 0));
    assert!(counts.syncs < counts.sent / 2, "{counts:?}");
}

/// Scenario: a clock that goes back while messages are sent, and a restart.
/// Guarantees: append times never go back.
#[tokio::test]
async fn append_times_never_go_back() {
    let folder = TempDir::new().unwrap();
    let (clock, hands): (Clock, ManualClock) = Clock::manual();
    let mut bus = LocalBus::open(&settings(&folder, 1), clock.clone()).unwrap();
    for (at, restart) in
        [(5 * SECOND, false), (9 * SECOND, false), (2 * SECOND, true), (3 * SECOND, false), (10 * SECOND, true)]
    {
        if restart {
            drop(bus);
            bus = LocalBus::open(&settings(&folder, 1), clock.clone()).unwrap();
        }
        hands.set(at);
        bus.send(0, Message::Tick).await.unwrap();
    }
    let mut reader = consumer(&bus).await;
    reader.seek(0, 0).unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(message(&mut reader).await.append_time / SECOND);
    }
    assert_eq!(times, [5, 9, 9, 9, 10]);
}

/// Scenario: senders fill the log while nothing is processed; then half is processed, and the bus is opened again.
/// Guarantees: a full log refuses and loses nothing; what was processed makes room, and stays known over a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_refuses_until_something_was_processed() {
    let folder = TempDir::new().unwrap();
    let small = LocalSettings { max_bytes: BytesSetting::from(2 << 20), ..settings(&folder, 1) };
    let bus = LocalBus::open(&small, Clock::fixed(0)).unwrap();
    let mut sent = 0;
    let refusal = loop {
        match bus.send(0, rows(sent, 50_000)).await {
            Ok(offset) => assert_eq!(offset, sent as i64),
            Err(error) => break error,
        }
        sent += 1;
        assert!(sent < 100, "the log has no end");
    };
    assert!(matches!(refusal, SendError::Full { .. }) && refusal.to_string().contains("bus.max_bytes"), "{refusal}");
    assert!(bus.ready().await.unwrap_err().contains("bus.max_bytes"));
    assert!(sent >= 30, "{sent} messages");
    assert_eq!((bus.offsets(0).await.unwrap(), bus.counts().full), ((0, sent as i64), 1));
    assert!(bus.counts().stored_bytes <= 2 << 20);

    let mut reader = consumer(&bus).await;
    let processed = sent as i64 / 2;
    reader.report(0, processed);
    let space = Arc::clone(&bus.inner.space);
    until("room", || space.trouble().is_none()).await;
    let (first, _) = bus.offsets(0).await.unwrap();
    assert!(first > 0 && first <= processed, "{first}");
    assert_eq!(bus.send(0, rows(sent, 50_000)).await.unwrap(), sent as i64);
    assert!(bus.ready().await.is_ok());
    reader.seek(0, 0).unwrap();
    let Event::OutOfRange { partition: 0, wanted: 0, first: told, next } = next(&mut reader).await else {
        panic!("gone")
    };
    assert_eq!((told, next), (first, sent as i64 + 1));
    reader.seek(0, processed).unwrap();
    assert_eq!(message(&mut reader).await.offset, processed);
    drop((reader, bus));

    let bus = LocalBus::open(&small, Clock::fixed(0)).unwrap();
    assert_eq!(bus.inner.partitions[0].store.committed(), processed as u64);
}

/// Scenario: a day goes by over processed messages and over ones that were not.
/// Guarantees: the old and processed go; nothing unprocessed does, however old.
#[tokio::test(flavor = "multi_thread")]
async fn age_removes_only_what_was_processed() {
    let folder = TempDir::new().unwrap();
    let (clock, hands) = Clock::manual();
    let bus = LocalBus::open(&settings(&folder, 2), clock).unwrap();
    for n in 0..10 {
        bus.send(0, rows(n, 100)).await.unwrap();
        bus.send(1, rows(n, 100)).await.unwrap();
    }
    hands.advance(25 * HOUR);
    let mut reader = consumer(&bus).await;
    reader.report(0, 10);
    let first = |partition: usize| bus.inner.partitions[partition].store.offsets().0;
    until("the old ones to go", || first(0) == 10).await;
    assert_eq!((first(1), bus.offsets(0).await.unwrap()), (0, (10, 10)));
    assert_eq!(bus.send(0, rows(0, 1)).await.unwrap(), 10);
}

/// Scenario: the folder is opened while it is open, and after; by another topic, with another count.
/// Guarantees: one process alone, told in a line; topic and partition count are fixed when the folder is made (B5).
#[tokio::test]
async fn a_folder_is_for_one_process_one_topic_and_one_partition_count() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    let refused = LocalBus::open(&settings(&folder, 2), Clock::fixed(0)).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }) && refused.to_string().contains("in use by another process"));
    drop(bus);
    let changed = LocalBus::open(&settings(&folder, 3), Clock::fixed(0)).err().unwrap();
    assert!(matches!(changed, OpenError::PartitionsChanged { found: 2, wanted: 3, .. }));
    assert!(changed.to_string().contains("set it back to 2"), "{changed}");
    let other = LocalSettings { topic: "other".to_owned(), ..settings(&folder, 2) };
    assert!(
        LocalBus::open(&other, Clock::fixed(0)).err().unwrap().to_string().contains("was made for `airan.telemetry`")
    );
    assert_eq!(LocalBus::open(&settings(&folder, 0), Clock::fixed(0)).unwrap().partitions(), 2);

    let about = folder.path().join("log/about");
    let of_now = std::fs::read_to_string(&about).unwrap();
    std::fs::write(&about, of_now.replace("version 1", "version 2")).unwrap();
    let later = LocalBus::open(&settings(&folder, 2), Clock::fixed(0)).err().unwrap();
    assert!(later.to_string().contains("it is of version 2, and this release reads version 1"), "{later}");
    std::fs::write(&about, of_now).unwrap();
    assert_eq!(open(&folder).partitions(), 2);

    std::fs::remove_file(about).unwrap();
    let lost = LocalBus::open(&settings(&folder, 2), Clock::fixed(0)).err().unwrap();
    assert!(matches!(lost, OpenError::Damaged { .. }), "{lost}");
}

/// Scenario: a paused partition beside one that is not, then resumed; and a second consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_goes_on_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    for n in 0..6 {
        bus.send(n as i32 % 2, rows(n, 10)).await.unwrap();
    }
    let mut reader = consumer(&bus).await;
    assert!(matches!(bus.consumer().await.err(), Some(ConsumeError::Taken)));
    reader.seek(0, 0).unwrap();
    assert_eq!(message(&mut reader).await.offset, 0);
    reader.pause(0);
    reader.seek(1, 0).unwrap();
    for offset in 0..3 {
        let received = message(&mut reader).await;
        assert_eq!((received.partition, received.offset), (1, offset));
    }
    assert!(matches!(reader.next(Duration::from_millis(20)).await.unwrap(), Event::Idle));
    reader.resume(0);
    assert_eq!(message(&mut reader).await.offset, 1);
    reader.seek(0, 7).unwrap();
    let event = next(&mut reader).await;
    assert!(matches!(event, Event::OutOfRange { partition: 0, wanted: 7, first: 0, next: 3 }), "{event:?}");
    assert!(matches!(reader.seek(2, 0), Err(ConsumeError::NoPartition { partition: 2, partitions: 2 })));
    reader.close().await;
    consumer(&bus).await;
}

/// Scenario: a byte of a stored message is changed on disk.
/// Guarantees: the message is left out and counted, the others come.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_damaged_on_disk_is_left_out_and_counted() {
    use std::os::unix::fs::FileExt;
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    for n in 0..3 {
        bus.send(0, rows(n, 1000)).await.unwrap();
    }
    let segment = folder.path().join("log/partition-0000/00000000000000000000.log");
    let file = std::fs::File::options().write(true).open(segment).unwrap();
    file.write_all_at(b"!", 1_700).unwrap();
    let mut reader = consumer(&bus).await;
    reader.seek(0, 0).unwrap();
    let offsets = [message(&mut reader).await.offset, message(&mut reader).await.offset];
    assert_eq!((offsets, bus.counts().damaged, bus.counts().received), ([0, 2], 1, 2));
}

/// Scenario: a message no log takes, a partition there is not, a record of something refused.
#[tokio::test]
async fn what_cannot_be_sent_is_told_and_what_was_refused_is_kept() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    let refused = bus.send(0, rows(0, airan_log::BODY_MAX)).await.unwrap_err();
    assert!(matches!(refused, SendError::TooLarge { .. }), "{refused}");
    assert!(matches!(bus.send(2, Message::Tick).await, Err(SendError::NoPartition { .. })));
    let rejected = Rejected {
        door: "ndjson".to_owned(),
        reason: Reason::Malformed,
        node: None,
        length: 3,
        sha256: "00".to_owned(),
        position: None,
        at: 0,
        rows: 1,
    };
    bus.send_rejected(rejected.clone()).await.unwrap();
    let kept = bus.inner.rejected.store.log.read(0, 1 << 20).unwrap().records;
    assert_eq!((kept.len(), &kept[0].body[..]), (1, &rejected.to_json()[..]));
    assert_eq!(bus.offsets(0).await.unwrap(), (0, 0));
}

/// Scenario: somebody looks at the log while the process that owns it is at work.
/// Guarantees: offsets, messages and what was refused are as the owner has them, and the owner is not disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_work_can_be_read_from_the_side() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    for n in 0..5 {
        bus.send(1, rows(n, 100)).await.unwrap();
    }
    let rejected = |length| Rejected {
        door: "bus".to_owned(),
        reason: Reason::Foreign,
        node: None,
        length,
        sha256: String::new(),
        position: Some("1/2".to_owned()),
        at: 0,
        rows: 0,
    };
    for length in 0..4 {
        bus.send_rejected(rejected(length)).await.unwrap();
    }
    let reader = crate::Reader::open(&crate::BusSettings::Local(settings(&folder, 2))).unwrap();
    assert_eq!((reader.topic(), reader.partitions()), ("airan.telemetry", 2));
    assert_eq!((reader.offsets(0).await.unwrap(), reader.offsets(1).await.unwrap()), ((0, 0), (0, 5)));
    assert!(matches!(reader.offsets(2).await, Err(ConsumeError::NoPartition { partition: 2, partitions: 2 })));
    let found = reader.message(1, 3).await.unwrap().unwrap();
    assert_eq!((found.partition, found.offset, number(&found)), (1, 3, 3));
    assert!(reader.message(1, 5).await.unwrap().is_none() && reader.message(0, -1).await.unwrap().is_none());
    let kept = reader.rejected(2).await.unwrap();
    assert_eq!(kept.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(Rejected::from_json(&kept[1].record), Some(rejected(3)));
    bus.send(1, rows(5, 1)).await.unwrap();
    assert_eq!(reader.offsets(1).await.unwrap(), (0, 6));
}

/// Scenario: a later release, whose messages are of another format, wrote to the log and was taken back.
/// Guarantees: what came before its messages is read; they themselves are neither read nor passed over nor taken for foreign: the
/// consumer ends, names the place, both formats and what to do; so does who looks from the side; all of it stays on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_later_release_ends_the_reading_and_stays() {
    let folder = TempDir::new().unwrap();
    let bus = open(&folder);
    for n in 0..2 {
        bus.send(0, rows(n, 10)).await.unwrap();
    }
    bus.send(1, rows(7, 10)).await.unwrap();
    let (mut head, payload) = frame::encode(rows(2, 10));
    head[0] += 1;
    bus.inner.partition(0).unwrap().send(head, payload).await.unwrap();
    bus.send(0, rows(3, 10)).await.unwrap();
    for _ in 0..2 {
        let mut reader = consumer(&bus).await;
        reader.seek(0, 0).unwrap();
        reader.seek(1, 0).unwrap();
        let mut read: Vec<u64> = Vec::new();
        for _ in 0..3 {
            read.push(number(&message(&mut reader).await));
        }
        read.sort_unstable();
        assert_eq!(read, [0, 1, 7]);
        for _ in 0..2 {
            let error = reader.next(WAIT).await.unwrap_err();
            assert!(matches!(error, ConsumeError::Fatal { .. }), "{error}");
            let text = error.to_string();
            for part in ["partition 0, offset 2", "format 2", "up to 1", "use the release that wrote it"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
    let aside = crate::Reader::open(&crate::BusSettings::Local(settings(&folder, 2))).unwrap();
    assert_eq!(number(&aside.message(0, 3).await.unwrap().unwrap()), 3);
    for error in [aside.message(0, 2).await.unwrap_err(), aside.messages(0, 0, 9).await.unwrap_err()] {
        assert!(error.to_string().contains("partition 0, offset 2"), "{error}");
    }
    assert_eq!((bus.offsets(0).await.unwrap(), bus.counts().damaged), ((0, 4), 0));
}
