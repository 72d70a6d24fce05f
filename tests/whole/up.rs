//! `airan up`: what a newcomer sees in the first minute, and what survives a kill.

use std::time::Duration;

use serde_json::json;

use super::edge::Edge;
use super::site::{Scrape, now_micros, until};

/// Scenario: README's first command, left alone; then the `curl` line that it prints, run by a shell as printed.
/// Guarantees: this machine's host and links reach windows, metrics and the lake within the deadline; the pushed row is
/// stored; the sums add up; SIGTERM ends the process in seconds with success.
#[tokio::test(flavor = "multi_thread")]
async fn up_shows_this_machine_and_takes_a_pushed_row() {
    let edge = Edge::new("up");
    let process = edge.up();
    edge.ready().await;
    until("host and link results on /metrics", || async {
        let scrape = edge.scrape().await?;
        (scrape.series("airan_host_cpu_utilization_ratio").count() > 0
            && scrape.series("airan_link_receive_bytes_per_second").count() > 0)
            .then_some(())
    })
    .await;

    let curl = process.said().into_iter().find(|l| l.contains("curl ")).expect("up prints a curl line");
    let curl = &curl[curl.find("curl ").expect("curl")..];
    let out = std::process::Command::new("sh").args(["-c", curl]).output().expect("sh");
    assert!(out.status.success(), "{curl}: {}", String::from_utf8_lossy(&out.stderr));

    let query =
        process.said().into_iter().find(|l| l.contains("airan") && l.contains(" query ")).expect("a query line");
    assert!(query.contains("SELECT"), "{query}");

    until("raw rows of host in the lake", || async { edge.count("host").filter(|n| *n > 0) }).await;
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}

/// Scenario: rows are pushed while the process is killed with SIGKILL again and again; what was acknowledged is noted, and
/// what was not is pushed again under the same bytes.
/// Guarantees: promises 1 and 2: every acknowledged row is in the lake once, whatever the moment of the kill.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_are_stored_once_over_kills() {
    let edge = Edge::new("kills");
    let mut acknowledged = 0_u32;
    for round in 0..4_u32 {
        let process = edge.up();
        edge.ready().await;
        for request in 0..10_u32 {
            let body = rows(round, request);
            let sent = edge.push("/v1/ndjson", "application/x-ndjson", body.clone()).await;
            assert_eq!(sent.0, 200, "{}", sent.1);
            // The same bytes again: a sender that missed the answer.
            let again = edge.push("/v1/ndjson", "application/x-ndjson", body).await;
            assert_eq!(again.0, 200, "{}", again.1);
            acknowledged += 20;
            tokio::time::sleep(Duration::from_millis(u64::from(37 * round))).await;
        }
        process.kill();
    }
    let process = edge.up();
    edge.ready().await;
    until("every acknowledged row in the lake", || async {
        edge.count("accelerator").filter(|n| *n >= i64::from(acknowledged))
    })
    .await;
    let rows = edge.query("SELECT count(*) AS n, count(DISTINCT batch || ':' || seq) AS ids FROM accelerator");
    assert_eq!(
        (rows[0]["n"].as_i64(), rows[0]["ids"].as_i64()),
        (Some(acknowledged.into()), Some(acknowledged.into()))
    );
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
    edge.lake_is_sound();
}

/// Twenty rows that no other request holds.
fn rows(round: u32, request: u32) -> String {
    let now = now_micros();
    let line = |device: u32| {
        let row = json!({
            "stream": "accelerator", "ts": now + i64::from(device), "node": "pushed-1",
            "device": format!("GPU-{round}-{request}-{device}"), "utilization": 0.5,
        });
        format!("{row}\n")
    };
    (0..20).map(line).collect()
}

/// Scenario: a second `airan up` over the data of a running one.
/// Guarantees: refused in one line; the first goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let edge = Edge::new("second");
    let mut first = edge.up();
    edge.ready().await;
    let mut second = edge.up();
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    while second.runs() {
        assert!(std::time::Instant::now() < limit, "the second process still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!second.said().is_empty(), "it says why");
    assert!(first.runs());
    assert!(Scrape::of(&edge.metrics_url()).await.is_some());
}
