use std::sync::atomic::AtomicI64;

use airan_model::identity::BatchId;
use airan_model::inventory::Inventory;
use airan_model::time::Plausibility;
use arrow::array::{ArrayRef, Float64Array, StringArray};

use super::*;
use crate::admit::{Admission, admit};
use crate::settings::tests::{bytes, millis, settings};
use crate::testing::{MemoryBus, Mood, NOW, accelerator, catalog, inventory, table, until};

struct Fixture {
    bus: Arc<MemoryBus>,
    gatherer: Gatherer,
    metrics: Arc<GatewayMetrics>,
    next: AtomicI64,
}

fn fixture(partitions: i32, adjust: impl FnOnce(&mut GatherSettings)) -> Fixture {
    let bus = MemoryBus::new(partitions);
    let metrics = Arc::new(GatewayMetrics::new().unwrap());
    let mut gather = settings().gather;
    adjust(&mut gather);
    let streams = catalog().streams().count();
    let as_bus: Arc<dyn Bus> = Arc::clone(&bus) as Arc<dyn Bus>;
    let gatherer = Gatherer::new(as_bus, streams, gather, Duration::from_secs(2), Arc::clone(&metrics));
    Fixture { bus, gatherer, metrics, next: AtomicI64::new(0) }
}

impl Fixture {
    fn parts(&self, decoded: &[airan_decode::DecodedRows], inventory: &Inventory) -> Vec<Part> {
        let catalog = catalog();
        let admission = Admission {
            layouts: &Layout::of_catalog(&catalog),
            inventory,
            before: None,
            partitions: self.bus.partitions(),
            plausibility: Plausibility::default(),
            received_at: NOW,
            source: "test/rows",
            sender: "me",
            batch: BatchId(self.next.fetch_add(1, Ordering::SeqCst) as u128),
        };
        admit(decoded, &admission).unwrap().parts
    }

    fn offer(&self, nodes: &[&str]) -> Result<Pending, Refusal> {
        let parts = self.parts(&[accelerator(&catalog(), nodes)], &inventory());
        self.gatherer.offer(Door::Ndjson, parts)
    }

    /// received, acknowledged, refused, unknown
    fn sums(&self) -> [u64; 4] {
        let rows = self.metrics.rows(Door::Ndjson);
        let sums = [rows.received.get(), rows.acknowledged.get(), rows.refused.get(), rows.unknown.get()];
        assert_eq!(sums[0], sums[1] + sums[2] + sums[3], "received = acknowledged + refused + unknown");
        assert_eq!(self.metrics.waiting_bytes.get(), 0, "nothing waits when all is settled");
        sums
    }
}

/// Scenario: twenty requests within one linger.
/// Guarantees: they travel in one message, and each is acknowledged.
#[tokio::test]
async fn requests_within_a_linger_share_a_message() {
    let fixture = fixture(1, |gather| gather.linger = millis(100));
    let pending: Vec<Pending> = (0..20).map(|_| fixture.offer(&["a1", "a2"]).unwrap()).collect();
    for pending in pending {
        pending.settled().await.unwrap();
    }
    let messages = fixture.bus.rows();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].2.num_rows(), 40);
    assert_eq!(fixture.sums(), [40, 40, 0, 0]);
}

/// Scenario: one small request, and a linger that is far longer than the test; then enough bytes for a message.
/// Guarantees: bytes end the wait as well as time does.
#[tokio::test]
async fn enough_bytes_do_not_wait_for_the_linger() {
    let fixture = fixture(1, |gather| {
        gather.linger = millis(600_000);
        gather.bytes = bytes(4_000);
    });
    let started = Instant::now();
    let pending: Vec<Pending> = (0..10).map(|_| fixture.offer(&["a1"; 10]).unwrap()).collect();
    until("messages", || !fixture.bus.rows().is_empty()).await;
    assert!(started.elapsed() < Duration::from_secs(60));
    fixture.gatherer.close(Instant::now() + Duration::from_secs(5)).await;
    for pending in pending {
        pending.settled().await.unwrap();
    }
    assert_eq!(fixture.sums(), [100, 100, 0, 0]);
}

/// Scenario: a request over three sites on three partitions, one of which is held up.
/// Guarantees: the request is answered only after the last acknowledgement.
#[tokio::test]
async fn a_request_over_partitions_waits_for_all_of_them() {
    let fixture = fixture(64, |_| {});
    let held = airan_model::identity::partition_of("site-b", 64);
    fixture.bus.set_by_partition(move |partition| if partition == held { Mood::Holds } else { Mood::Takes });
    let pending = fixture.offer(&["a1", "b1", "c1"]).unwrap();
    let settled = tokio::spawn(pending.settled());
    until("the free partitions", || fixture.bus.rows().len() == 2).await;
    until("the held send", || fixture.bus.sends.load(Ordering::SeqCst) == 3).await;
    assert!(!settled.is_finished());
    fixture.bus.release();
    settled.await.unwrap().unwrap();
    assert_eq!(fixture.sums(), [3, 3, 0, 0]);
}

/// Scenario: one partition of a request refuses, or loses the answer; then all of them do.
/// Guarantees: the request fails with the worst of it, and each row is counted under its own end.
#[tokio::test]
async fn each_row_is_counted_under_its_own_end() {
    let fixture = fixture(64, |_| {});
    let (b, c) = (airan_model::identity::partition_of("site-b", 64), airan_model::identity::partition_of("site-c", 64));
    fixture.bus.set_by_partition(move |partition| match partition {
        p if p == b => Mood::Unavailable,
        p if p == c => Mood::Unknown,
        _ => Mood::Takes,
    });
    let refusal = fixture.offer(&["a1", "a2", "b1", "c1"]).unwrap().settled().await.unwrap_err();
    assert_eq!(refusal.reason(), "unknown_outcome");
    assert_eq!(fixture.sums(), [4, 2, 1, 1]);
    for (mood, reason) in
        [(Mood::Full, "unavailable"), (Mood::TooLarge, "too_large"), (Mood::Unavailable, "unavailable")]
    {
        fixture.bus.set(mood);
        let refusal = fixture.offer(&["a1"]).unwrap().settled().await.unwrap_err();
        assert_eq!(refusal.reason(), reason, "{mood:?}");
    }
    assert_eq!(fixture.sums(), [7, 2, 4, 1]);
}

/// Scenario: a bus that never answers.
/// Guarantees: after the deadline the outcome is unknown, and says so.
#[tokio::test]
async fn an_acknowledgement_has_a_deadline() {
    let fixture = fixture(1, |gather| gather.ack_timeout = millis(50));
    fixture.bus.set(Mood::Holds);
    let refusal = fixture.offer(&["a1"]).unwrap().settled().await.unwrap_err();
    assert_eq!(refusal.reason(), "unknown_outcome");
    assert_eq!(fixture.sums(), [1, 0, 0, 1]);
}

/// Scenario: more rows than may wait, while the bus holds; then room again.
/// Guarantees: over the bound a request is refused whole and at once, and nothing of it reaches the bus.
#[tokio::test]
async fn what_waits_is_bounded() {
    let fixture = fixture(1, |gather| {
        gather.waiting_bytes = bytes(3_000);
        gather.linger = millis(1);
    });
    fixture.bus.set(Mood::Holds);
    let first = fixture.offer(&["a1"; 12]).unwrap();
    until("the held send", || fixture.bus.sends.load(Ordering::SeqCst) == 1).await;
    let refusal = fixture.offer(&["a2"; 12]).unwrap_err();
    assert_eq!(refusal, Refusal::Busy { what: "rows", retry_after: Duration::from_secs(2) });
    fixture.bus.release();
    first.settled().await.unwrap();
    fixture.bus.set(Mood::Takes);
    let huge = fixture.offer(&["a1"; 500]).unwrap();
    huge.settled().await.expect("a request larger than the bound is taken when nothing else waits");
    assert_eq!(fixture.sums(), [524, 512, 12, 0]);
    assert_eq!(fixture.bus.row_count(), 512);
}

/// Scenario: requests with different columns.
/// Guarantees: one message with all columns, nulls where a request had none.
#[tokio::test]
async fn column_sets_are_joined() {
    let fixture = fixture(1, |gather| gather.linger = millis(50));
    let catalog = catalog();
    let with = |name: &'static str, array: ArrayRef| {
        let ts = arrow::array::TimestampMicrosecondArray::from(vec![NOW]).with_timezone("UTC");
        let node: ArrayRef = Arc::new(StringArray::from(vec!["a1"]));
        fixture.parts(
            &[table(&catalog, "accelerator", vec![("ts", Arc::new(ts)), ("node", node), (name, array)])],
            &inventory(),
        )
    };
    let offers = [
        with("utilization", Arc::new(Float64Array::from(vec![0.5]))),
        with("power_watts", Arc::new(Float64Array::from(vec![70.0]))),
        with("model", Arc::new(StringArray::from(vec!["x"]))),
    ];
    let pending: Vec<Pending> =
        offers.into_iter().map(|parts| fixture.gatherer.offer(Door::Ndjson, parts).unwrap()).collect();
    for pending in pending {
        pending.settled().await.unwrap();
    }
    let messages = fixture.bus.rows();
    assert_eq!(messages.iter().map(|(_, _, rows)| rows.num_rows()).collect::<Vec<_>>(), [3]);
    let rows = &messages[0].2;
    for column in ["utilization", "power_watts", "model"] {
        let column = rows.column_by_name(column).unwrap();
        assert_eq!((column.null_count(), column.len()), (2, 3));
    }
    assert_eq!(fixture.sums(), [3, 3, 0, 0]);
}

/// Scenario: a request far larger than a message may be, and a single row that is.
/// Guarantees: no message is over the limit, no row is lost or doubled, and the row that cannot fit is refused for good.
#[tokio::test]
async fn messages_stay_under_their_limit() {
    let fixture = fixture(1, |gather| {
        gather.bytes = bytes(200_000);
        gather.message_bytes = bytes(8_000);
    });
    let catalog = catalog();
    let noise = |seed: u64| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + (state >> 33) as u8 % 90)
        };
        (0..100).map(|_| next()).collect::<String>()
    };
    let rows = |texts: Vec<String>| {
        let ts = arrow::array::TimestampMicrosecondArray::from(vec![NOW; texts.len()]).with_timezone("UTC");
        let node: ArrayRef = Arc::new(StringArray::from(vec!["a1"; texts.len()]));
        let device: ArrayRef = Arc::new(StringArray::from(texts));
        fixture.parts(
            &[table(&catalog, "accelerator", vec![("ts", Arc::new(ts)), ("node", node), ("device", device)])],
            &inventory(),
        )
    };
    let many: Vec<String> = (0..1_000).map(noise).collect();
    fixture.gatherer.offer(Door::Ndjson, rows(many.clone())).unwrap().settled().await.unwrap();
    let mut seqs: Vec<i64> = Vec::new();
    for (_, message) in fixture.bus.taken.lock().unwrap().iter() {
        let Message::Rows(message) = message else { panic!() };
        assert!(message.payload.len() <= 8_000);
        let rows = message.decode().unwrap();
        let seq = rows.column_by_name("seq").unwrap();
        seqs.extend(arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(seq).values());
    }
    assert_eq!(seqs, (0..1_000).collect::<Vec<_>>(), "in order, each once");
    let long: String = (0..200).map(noise).collect();
    let refusal = fixture.gatherer.offer(Door::Ndjson, rows(vec![long])).unwrap().settled().await.unwrap_err();
    assert_eq!(refusal, Refusal::RowTooLarge { limit: 8_000 });
    assert_eq!(fixture.sums(), [1_001, 1_000, 1, 0]);
}

/// Scenario: rows are queued and their request goes away; the gateway closes; more rows come.
/// Guarantees: queued rows reach the bus and are counted; after closing rows are refused, counted too.
#[tokio::test]
async fn closing_sends_what_is_queued_and_takes_no_more() {
    let fixture = fixture(1, |gather| gather.linger = millis(9_000));
    drop(fixture.offer(&["a1", "a1"]).unwrap());
    fixture.gatherer.close(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(fixture.bus.row_count(), 2);
    assert_eq!(fixture.offer(&["a1"]).unwrap().settled().await.unwrap_err().reason(), "unavailable");
    assert_eq!(fixture.sums(), [3, 2, 1, 0]);
}

/// Scenario: a request without rows.
/// Guarantees: acknowledged at once; there is nothing to wait for.
#[tokio::test]
async fn nothing_is_acknowledged_at_once() {
    let fixture = fixture(1, |_| {});
    fixture.gatherer.offer(Door::Ndjson, Vec::new()).unwrap().settled().await.unwrap();
    assert_eq!(fixture.sums(), [0; 4]);
}

/// Scenario: one row of more text than a processor unpacks, that packs very well.
/// Guarantees: its sender is told; no message goes out that no processor would take.
#[tokio::test]
async fn a_row_that_no_processor_would_unpack_is_refused() {
    let fixture = fixture(1, |_| {});
    let long = "x".repeat(airan_model::message::MESSAGE_LIMITS.bytes);
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let rows = table(&catalog(), "accelerator", vec![("node", text("a1")), ("model", text(&long))]);
    let pending = fixture.gatherer.offer(Door::Ndjson, fixture.parts(&[rows], &inventory())).unwrap();
    assert!(matches!(pending.settled().await, Err(Refusal::RowTooLarge { .. })));
    assert!(fixture.bus.rows().is_empty());
    assert_eq!(fixture.sums(), [1, 0, 1, 0]);
}
