//! What the tests of the consumer share, over the mock cluster and over a broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use airan_model::message::{Message, Rows};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{Consumer, Event, Received};

/// How long anything may take before a test fails.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// How long a consumer is asked before the next one is.
pub(super) const TURN: Duration = Duration::from_millis(50);

/// Rows that can be told apart by `schema`.
pub(super) fn rows(number: u64, size: usize) -> Message {
    let payload = Bytes::from(vec![number as u8; size]);
    Message::Rows(Rows { stream: Arc::from("host"), schema: number, rows: 3, payload })
}

/// The next event of a kind; what is not wanted is passed over.
pub(super) async fn wanted<T>(consumer: &mut dyn Consumer, what: &str, mut of: impl FnMut(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = of(consumer.next(TURN).await.unwrap()) {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {WAIT:?}: {what}");
    }
}

/// The next message, from a consumer that is to lose nothing meanwhile.
pub(super) async fn message(consumer: &mut dyn Consumer) -> Received {
    wanted(consumer, "a message", |event| match event {
        Event::Message(received) => Some(received),
        Event::OutOfRange { .. } | Event::Revoked(_) => panic!("{event:?}"),
        _ => None,
    })
    .await
}

/// The next assignment, sorted.
pub(super) async fn assigned(consumer: &mut dyn Consumer) -> Vec<i32> {
    wanted(consumer, "an assignment", |event| match event {
        Event::Assigned(mut partitions) => {
            partitions.sort_unstable();
            Some(partitions)
        }
        _ => None,
    })
    .await
}

/// The next lost range: partition, wanted, first, next.
pub(super) async fn out_of_range(consumer: &mut dyn Consumer) -> (i32, i64, i64, i64) {
    wanted(consumer, "a lost range", |event| match event {
        Event::OutOfRange { partition, wanted, first, next } => Some((partition, wanted, first, next)),
        _ => None,
    })
    .await
}

/// Reads a topic of one partition from after `last` up to `until`, as a processor does: where membership is lost the partition is
/// given up, comes back, and is read on. Gives what was read by its offset.
pub(super) async fn read_until(consumer: &mut dyn Consumer, mut last: i64, until: i64) -> BTreeMap<i64, u64> {
    let mut read = BTreeMap::new();
    let deadline = Instant::now() + WAIT;
    while last < until {
        assert!(Instant::now() < deadline, "offset {until} does not come, the last was {last}");
        match consumer.next(TURN).await.unwrap() {
            Event::Message(received) => {
                assert!(received.offset > last, "{} after {last}", received.offset);
                last = received.offset;
                let Message::Rows(rows) = received.message else { panic!("rows") };
                read.insert(last, rows.schema);
            }
            Event::Revoked(partitions) => consumer.released(&partitions),
            Event::Assigned(partitions) => {
                partitions.into_iter().for_each(|partition| consumer.seek(partition, last + 1).unwrap());
            }
            Event::Idle | Event::Down { .. } => {}
            lost @ Event::OutOfRange { .. } => panic!("{lost:?}"),
        }
    }
    read
}
