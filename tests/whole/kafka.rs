//! The path over Apache Kafka, with the roles apart, against the same rows over the local log.
//!
//! Runs where `AIRAN_KAFKA` names a broker and `AIRAN_KAFKA_SCRIPT` the script that restarts it: `tests/kafka.sh` does both.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::edge::Edge;
use super::site::{Scrape, now_micros, until};

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

async fn pages_tell_of_their_own_role(kafka: &Edge) {
    let (gateway, processor) = (kafka.gateway_admin(), kafka.processor_admin());
    for port in [gateway, processor] {
        let (status, kind, text) = page(port, "/").await;
        assert!(status == 200 && kind.starts_with("text/html") && text.contains("<html"), "{status} {kind}");
    }
    let of_gateway = page_of(gateway, "/api/overview").await;
    assert!(of_gateway["gateway"].is_object() && of_gateway["processor"].is_null(), "{of_gateway}");
    let of_processor = page_of(processor, "/api/overview").await;
    assert!(of_processor["gateway"].is_null() && of_processor["processor"].is_object(), "{of_processor}");
    for path in ["/api/sites", "/api/windows?site=unassigned&pipeline=accelerator_capacity"] {
        let (status, _, text) = page(gateway, path).await;
        assert!(status == 404 && text.contains("lake"), "{path}: {status} {text}");
    }
    let sites = page_of(processor, "/api/sites").await;
    assert!(sites.to_string().contains("\"unassigned\""), "{sites}");
    let windows = page_of(processor, "/api/windows?site=unassigned&pipeline=accelerator_capacity").await;
    assert!(windows.to_string().contains("GPU-0-0"), "{windows}");
}

async fn answer(edge: &Edge, start: i64) -> Vec<Value> {
    let sql = answer_of(start);
    until("closed windows", || async { edge.try_query(&sql).filter(|rows| rows.len() >= CLOSED) }).await
}

/// What a process answers at its admin port: status, kind and text.
async fn page(port: u16, path: &str) -> (u16, String, String) {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.expect("an answer");
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    (answer.status().as_u16(), kind.unwrap_or_default(), answer.text().await.expect("text"))
}

async fn page_of(port: u16, path: &str) -> Value {
    let (status, kind, text) = page(port, path).await;
    assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Taps the topic until three rows of one node have come out of those that are pushed meanwhile.
async fn tap_sees_what_passes(kafka: &Edge) {
    let tap =
        kafka.start(&["tap", "link", "--site", "unassigned", "--node", "edge-1", "--count", "3", "--timeout", "60s"]);
    let mut pushed = 0;
    let lines = until("three rows of edge-1", || {
        pushed += 1;
        let row = |node: &str| json!({"stream": "link", "node": node, "interface": format!("eth{pushed}"), "rx_bytes": pushed});
        let body = format!("{}\n{}\n", row("edge-1"), row("edge-2"));
        let tap = &tap;
        async move {
            push_until_acknowledged(kafka, &body).await;
            let said = tap.said();
            (said.len() >= 3).then_some(said)
        }
    })
    .await;
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows {
        assert_eq!((&row["node"], &row["site"]), (&"edge-1".into(), &"unassigned".into()), "{row}");
        assert_eq!(format!("eth{}", row["rx_bytes"]).trim_end_matches(".0"), row["interface"], "{row}");
    }
    let mut tap = tap;
    until("the end of the tap", || std::future::ready((!tap.runs()).then_some(()))).await;
}

/// Scenario: gateway and processor are processes of their own over Apache Kafka; the broker is restarted in the middle and
/// the processor killed once. A tap looks on before that, and the pages of both are asked at the end. The same rows then go through
/// `airan up` on the local log.
/// Guarantees: every acknowledged row is stored once, the sums add up, and the closed windows are those of the local log. The tap
/// shows the wanted rows and no others, and moves no shard. Each page tells of its own role: the gateway's has no lake and says so,
/// the processor's has the windows.
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
    let claims = || async {
        let scrape = Scrape::of(&format!("http://127.0.0.1:{}/metrics", kafka.processor_admin())).await?;
        let claims = scrape.sum("airan_lake_claims_total", &[]);
        (claims >= 4.0).then_some((claims, scrape.sum("airan_lake_fenced_total", &[])))
    };
    let before = until("a claim of each shard", claims).await;
    tap_sees_what_passes(&kafka).await;
    assert_eq!(until("claims", claims).await, before, "a tap is no owner");
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
    pages_tell_of_their_own_role(&kafka).await;
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
