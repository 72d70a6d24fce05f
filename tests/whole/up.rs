//! `airan up`: what a newcomer sees in the first minute, and what survives a kill.

#[path = "demo.rs"]
mod demo;

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

/// Requests of the kill test, of [`ROWS`] rows each.
const REQUESTS: u32 = 120;
const ROWS: u32 = 20;

/// Scenario: a sender pushes request after request, each again under the same bytes until it is acknowledged, and some once more
/// afterwards. Meanwhile the process is killed with SIGKILL at moments that have nothing to do with the requests, and started anew.
/// Guarantees: promises 1 and 2: every acknowledged row is in the lake once, whatever the moment of the kill.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_are_stored_once_over_kills() {
    let edge = Edge::new("kills");
    let mut process = edge.up();
    edge.ready().await;
    let sender = async {
        let mut unanswered = 0_u32;
        for request in 0..REQUESTS {
            let body = rows(request);
            until("an acknowledgement", || async {
                let (status, text) = edge.push("/v1/ndjson", "application/x-ndjson", body.clone()).await;
                assert!(status == 200 || status == 0 || status >= 500, "{status} {text}");
                (status == 200).then_some(())
            })
            .await;
            // A sender that missed the answer.
            if request % 10 == 0 {
                unanswered += u32::from(edge.push("/v1/ndjson", "application/x-ndjson", body).await.0 == 200);
            }
        }
        unanswered
    };
    let killer = async {
        for millis in [170, 40, 310, 90, 230] {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            process.kill();
            process = edge.up();
            edge.ready().await;
        }
        process
    };
    let (again, process) = tokio::join!(sender, killer);
    let wanted = i64::from(REQUESTS * ROWS);
    until("every acknowledged row in the lake", || async { edge.count("accelerator").filter(|n| *n >= wanted) }).await;
    let rows = edge.query("SELECT count(*) AS n, count(DISTINCT device) AS ids FROM accelerator");
    assert_eq!((rows[0]["n"].as_i64(), rows[0]["ids"].as_i64()), (Some(wanted), Some(wanted)), "{again} sent again");
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
    edge.lake_is_sound();
}

/// Rows that no other request holds, each of a device of its own.
fn rows(request: u32) -> String {
    let now = now_micros();
    let line = |device: u32| {
        let row = json!({
            "stream": "accelerator", "ts": now + i64::from(device), "node": "pushed-1",
            "device": format!("GPU-{request}-{device}"), "utilization": 0.5,
        });
        format!("{row}\n")
    };
    (0..ROWS).map(line).collect()
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

/// Scenario: `airan up` is at work on its local log, a line is refused, and somebody looks on with the tools; then it is stopped
/// and looked at again.
/// Guarantees: `airan lag` shows every partition with its owner and last commit, and `airan rejected` what was refused, without
/// disturbing the process; nothing is skipped or replayed where there is nothing to, in one line that says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_at_work_can_be_looked_at() {
    let edge = Edge::new("looked-at");
    let process = edge.up();
    edge.ready().await;
    let (status, said) = edge.push("/v1/ndjson", "application/x-ndjson", rows(0)).await;
    assert_eq!(status, 200, "{said}");
    edge.push("/v1/ndjson", "application/x-ndjson", "no JSON\n").await;
    until("the rows in the lake", || async { (edge.count("accelerator")? == i64::from(ROWS)).then_some(()) }).await;
    let lag = || -> Vec<serde_json::Value> {
        serde_json::from_str(&edge.run(&["lag", "--format", "json"])).expect("airan lag prints JSON")
    };
    let port = edge.gateway_admin();
    let check = |shards: &[serde_json::Value]| {
        assert_eq!(shards.len(), 2);
        for shard in shards {
            assert_eq!(shard["owner"], json!(format!("edge-under-test-{port}")));
            assert_eq!((&shard["first_offset"], &shard["lost_offsets"]), (&json!(0), &json!(0)));
            let (committed, end) = (shard["committed_offset"].as_i64(), shard["end_offset"].as_i64());
            assert!(committed.is_some() && committed <= end && shard["commit"].as_i64().is_some(), "{shard}");
        }
    };
    let shards = lag();
    check(&shards);
    let stored = |shards: &[serde_json::Value]| -> i64 {
        shards.iter().map(|shard| shard["rows"]["stored"].as_i64().expect("a count")).sum()
    };
    assert!(stored(&shards) >= i64::from(ROWS));
    assert!(shards.iter().any(|shard| shard["load"]["hottest_site"].is_string()), "{shards:?}");
    assert!(edge.run(&["lag"]).starts_with("PARTITION  FIRST"));
    let listed =
        until("the refusal", || async { Some(edge.run(&["rejected", "list"])).filter(|l| l.contains("ndjson")) }).await;
    let id = listed.lines().find(|line| line.contains("ndjson")).and_then(|line| line.split_whitespace().next());
    let shown = edge.run(&["rejected", "show", id.expect("a number")]);
    assert!(shown.contains("its bytes are not kept"), "{shown}");
    let said = edge.run_in_vain("up.yaml", &["rejected", "replay", id.expect("a number")]);
    assert!(said.contains("its sender has to send it again"), "{said}");
    let said = edge.run_in_vain("up.yaml", &["shard", "skip", "airan.telemetry/0", "--yes"]);
    assert!(said.contains("nothing is lost"), "{said}");
    let said = edge.run(&["shard", "restart", "airan.telemetry/0"]);
    assert!(said.contains("takes it over again from offset"), "{said}");
    until("it is its owner again", || async { (lag()[0]["owner"] == format!("edge-under-test-{port}")).then_some(()) })
        .await;
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
    check(&lag());
    edge.lake_is_sound();
}
