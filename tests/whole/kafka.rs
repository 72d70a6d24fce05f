//! The path over Apache Kafka, with the roles apart, against the same rows over the local log.
//!
//! Runs where `AIRAN_KAFKA` names a broker and `AIRAN_KAFKA_SCRIPT` the script that restarts it: `tests/kafka.sh` does both.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::edge::Edge;
use super::site::{now_micros, until};

/// One test at a time has the broker: each restarts it, or measures how long something takes.
pub static BROKER: Mutex<()> = Mutex::const_new(());

/// The last second that rows are sent for. With a lateness of 10 s it closes every window that ends by second 50.
const SECONDS: i64 = 60;
/// Rows of the windows that both runs must have closed: five windows of six devices.
const CLOSED: usize = 5 * 6;

/// The closed windows, at their distance from the run's start.
fn answer_of(start: i64) -> String {
    format!(
        "SELECT site, node, device, CAST(date_part('epoch', window_start) AS DOUBLE) - {} AS at, \
         round(utilization_avg_ratio, 9) AS utilization, round(energy_joules, 6) AS energy \
         FROM accelerator_capacity_latest ORDER BY site, node, device, window_start",
        start / 1_000_000
    )
}

/// The start of a run: a mark of the windows near now. Rows then lie a minute ahead at the most, which is plausible.
fn start_now() -> i64 {
    now_micros() / 10_000_000 * 10_000_000
}

/// The rows of second `second` since `start`, as one NDJSON body.
fn body(start: i64, second: i64) -> String {
    let mut text = String::new();
    for node in 0..3 {
        for device in 0..2 {
            let row = json!({
                "stream": "accelerator", "ts": start + second * 1_000_000, "node": format!("edge-{node}"),
                "device": format!("GPU-{node}-{device}"), "utilization": f64::from((second as i32 * 7 + node * 3 + device) % 10) / 10.0,
                "power_watts": 250.0, "energy_joules": (second * 250 + i64::from(device)) as f64,
            });
            text.push_str(&format!("{row}\n"));
        }
    }
    text
}

/// Pushes until the gateway acknowledges: while the broker is away it answers 503, and a lost answer is the same bytes again.
async fn push_until_acknowledged(edge: &Edge, body: &str) {
    until("an acknowledgement", || async {
        let (status, text) = edge.push("/v1/ndjson", "application/x-ndjson", body.to_string()).await;
        assert!(status == 200 || status >= 500 || status == 0, "{status} {text}");
        (status == 200).then_some(())
    })
    .await;
}

async fn answer(edge: &Edge, start: i64) -> Vec<Value> {
    let sql = answer_of(start);
    until("closed windows", || async { edge.try_query(&sql).filter(|rows| rows.len() >= CLOSED) }).await
}

/// Scenario: gateway and processor are processes of their own over Apache Kafka; the broker is restarted in the middle and
/// the processor killed once. The same rows then go through `airan up` on the local log.
/// Guarantees: every acknowledged row is stored once, the sums add up, and the closed windows are those of the local log.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_gives_the_answer_of_the_local_log() {
    let (Ok(broker), Ok(script)) = (std::env::var("AIRAN_KAFKA"), std::env::var("AIRAN_KAFKA_SCRIPT")) else {
        eprintln!("NOT TESTED: no AIRAN_KAFKA and AIRAN_KAFKA_SCRIPT; tests/kafka.sh starts a broker and sets them");
        return;
    };
    let _alone = BROKER.lock().await;
    let topic = format!("airan.telemetry.test{}", now_micros());
    let kafka = Edge::over_kafka("kafka", &broker, &topic);
    let gateway = kafka.gateway();
    let mut processor = kafka.processor();
    kafka.ready().await;
    let start = start_now();
    for second in 0..=SECONDS {
        if second == 20 {
            let status = Command::new(&script).arg("restart").status().expect("the script runs");
            assert!(status.success(), "the broker restarts");
        }
        if second == 40 {
            processor.kill();
            processor = kafka.processor();
        }
        push_until_acknowledged(&kafka, &body(start, second)).await;
    }
    let over_kafka = answer(&kafka, start).await;
    let stored = kafka.query("SELECT count(*) AS n, count(DISTINCT batch || ':' || seq) AS ids FROM accelerator");
    let sent = (SECONDS + 1) * 6;
    assert_eq!((stored[0]["n"].as_i64(), stored[0]["ids"].as_i64()), (Some(sent), Some(sent)));
    kafka.sums_add_up().await;
    for process in [gateway, processor] {
        let (status, said) = process.stop(Duration::from_secs(40));
        assert!(status.success(), "{status}: {said:#?}");
    }
    kafka.lake_is_sound();

    let local = Edge::new("kafka-local");
    let up = local.up();
    local.ready().await;
    let start = start_now();
    for second in 0..=SECONDS {
        push_until_acknowledged(&local, &body(start, second)).await;
    }
    let over_log = answer(&local, start).await;
    local.sums_add_up().await;
    drop(up);
    assert_eq!((over_kafka.len(), over_log.len()), (CLOSED, CLOSED));
    assert_eq!(over_kafka, over_log, "Kafka and the local log give one answer");
}
