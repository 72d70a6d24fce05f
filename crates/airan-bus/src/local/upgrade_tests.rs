//! A local log as release 1 wrote it, kept as files in `tests/fixtures/v1/bus`: real messages, each a frame with its headers and an
//! Arrow IPC stream, ticks between them, and the record of something refused.
//!
//! It was made by `cargo test --release -p airan -p airan-bus --lib -- --ignored write_the_bus_of_this_release`, which a release with
//! new formats runs with a new folder; the old folders stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airan_model::message::{Message, Rows};
use airan_model::reject::{Reason, Rejected};
use airan_model::schema::timestamp_type;
use airan_model::time::Clock;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, MapBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, Int64Type, Schema};

#[path = "../../../../tests/folder_copy.rs"]
mod folder_copy;

use folder_copy::copy;

use super::LocalBus;
use crate::{Bus, BusSettings, Event, LocalSettings, Reader, Received};

/// Messages of rows in partition 0, each followed by a tick.
const MESSAGES: i64 = 3;
/// Rows of one message.
const ROWS: i64 = 4;
/// When the first was appended, and the time of its first row: 2026-01-01T00:00:00Z.
const T0: i64 = 1_767_225_600_000_000;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/v1/bus")
}

fn settings(folder: &Path) -> LocalSettings {
    LocalSettings {
        path: folder.to_owned(),
        topic: "airan.telemetry".to_owned(),
        partitions: 2,
        segment_bytes: "256KiB".parse().unwrap(),
        max_age: "24h".parse().unwrap(),
        max_bytes: "64MiB".parse().unwrap(),
    }
}

/// Rows of message `number`, with a column of each type that streams have: time, text, whole number, number, yes or no, histogram,
/// labels; nulls among them.
fn batch(number: i64) -> RecordBatch {
    let ids: Vec<i64> = (number * ROWS..(number + 1) * ROWS).collect();
    let times =
        TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| T0 + id * 1_000_000)).with_timezone("UTC");
    let nodes = StringArray::from_iter(ids.iter().map(|id| (id % 3 != 0).then(|| format!("node-{}", id % 3))));
    let levels = Float64Array::from_iter(ids.iter().map(|id| (id % 4 != 1).then_some(*id as f64 / 4.0)));
    let bounds = ListArray::from_iter_primitive::<Float64Type, _, _>(ids.iter().map(|_| Some([Some(0.5), Some(1.0)])));
    let counts =
        ListArray::from_iter_primitive::<Int64Type, _, _>(ids.iter().map(|id| Some([Some(*id), Some(1), Some(0)])));
    let spread = StructArray::from(vec![
        (Arc::new(Field::new("bounds", bounds.data_type().clone(), true)), Arc::new(bounds) as ArrayRef),
        (Arc::new(Field::new("counts", counts.data_type().clone(), true)), Arc::new(counts) as ArrayRef),
    ]);
    let mut labels = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for id in &ids {
        labels.keys().append_value("rack");
        labels.values().append_value(format!("r{id}"));
        labels.append(true).unwrap();
    }
    let labels = labels.finish();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(times)),
        ("node", Arc::new(nodes)),
        ("seq", Arc::new(Int64Array::from(ids.clone()))),
        ("level", Arc::new(levels)),
        ("suspect", Arc::new(BooleanArray::from_iter(ids.iter().map(|id| Some(id % 2 == 0))))),
        ("spread", Arc::new(spread)),
        ("attributes", Arc::new(labels)),
    ];
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    assert_eq!(schema.field(0).data_type(), &timestamp_type());
    RecordBatch::try_new(schema, columns.iter().map(|(_, column)| Arc::clone(column)).collect()).unwrap()
}

fn rejected() -> Rejected {
    Rejected {
        door: "ndjson".to_owned(),
        reason: Reason::WrongType,
        node: Some("node-1".to_owned()),
        length: 17,
        sha256: "5f".repeat(32),
        position: Some("line 3".to_owned()),
        at: T0,
        rows: 1,
    }
}

async fn send_all(bus: &LocalBus, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let rows = Rows::encode(&Arc::from("meter"), &batch(number)).unwrap();
        bus.send(0, Message::Rows(rows)).await.unwrap();
        bus.send(0, Message::Tick).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "writes tests/fixtures/v1/bus"]
async fn write_the_bus_of_this_release() {
    let _ = fs::remove_dir_all(fixture());
    let bus = LocalBus::open(&settings(&fixture()), Clock::fixed(T0)).unwrap();
    send_all(&bus, 0..MESSAGES).await;
    bus.send_rejected(rejected()).await.unwrap();
}

/// What message `offset` of partition 0 has to be: rows and ticks take turns.
fn assert_is_that_of(received: &Received, offset: i64) {
    assert_eq!((received.partition, received.offset), (0, offset));
    match &received.message {
        Message::Tick => assert_eq!(offset % 2, 1),
        Message::Rows(rows) => {
            let wanted = batch(offset / 2);
            assert_eq!((&*rows.stream, rows.rows, offset % 2), ("meter", ROWS as u64, 0));
            assert_eq!(rows.schema, Rows::encode(&rows.stream, &wanted).unwrap().schema);
            assert_eq!(rows.decode().unwrap(), wanted);
        }
        Message::Foreign { reason, .. } => panic!("offset {offset}: {reason}"),
    }
}

/// Scenario: the local log of release 1, with messages of rows of each type, ticks, and something refused.
/// Guarantees: this release opens it, reads every message at its offset and append time with every value, also from the side, knows
/// what was refused, and appends behind it.
#[tokio::test(flavor = "multi_thread")]
async fn the_bus_of_release_1_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    copy(&fixture(), temp.path());
    let bus = LocalBus::open(&settings(temp.path()), Clock::fixed(T0 + 1)).unwrap();
    send_all(&bus, MESSAGES..MESSAGES + 1).await;
    let end = 2 * (MESSAGES + 1);
    assert_eq!((bus.offsets(0).await.unwrap(), bus.offsets(1).await.unwrap()), ((0, end), (0, 0)));
    let mut consumer = bus.consumer().await.unwrap();
    let wait = Duration::from_secs(20);
    assert!(matches!(consumer.next(wait).await.unwrap(), Event::Assigned(all) if all == [0, 1]));
    consumer.seek(0, 0).unwrap();
    for offset in 0..end {
        let Event::Message(received) = consumer.next(wait).await.unwrap() else { panic!("no message {offset}") };
        assert_is_that_of(&received, offset);
        assert_eq!(received.append_time, if offset < 2 * MESSAGES { T0 } else { T0 + 1 });
    }
    let aside = Reader::open(&BusSettings::Local(settings(temp.path()))).unwrap();
    for (offset, received) in (0..).zip(aside.messages(0, 0, 100).await.unwrap()) {
        assert_is_that_of(&received, offset);
    }
    let refused = aside.rejected(10).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(Rejected::from_json(&refused[0].record), Some(rejected()));
}
