//! `airan up --demo`: what somebody without a site sees.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::whole::site::{Process, Scrape, binary, free_port, query, run, until};

/// Every stream of the catalog.
const STREAMS: [&str; 10] =
    ["accelerator", "cell", "container", "event", "fronthaul", "host", "inference", "link", "sample", "timing"];

/// The shipped pipelines; each has a table of its name.
fn pipelines() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines");
    let entries = std::fs::read_dir(folder).expect("the shipped pipelines").map(|entry| entry.expect("an entry"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
}

/// Scenario: `airan up --demo` in an empty folder, left alone; then `airan up` on the same folder.
/// Guarantees: it says that it simulates; every stream gets rows, every one of them of source `demo` and of the demo's site; MIG slices stand
/// beside their devices; every shipped pipeline gives windows; the sums add up; real rows are not let into its lake unasked.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_fills_every_stream_and_every_pipeline() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path();
    let (http, grpc, admin) = (free_port(), free_port(), free_port());
    let text = format!(
        "node: edge-under-test\nadmin: {{listen: \"127.0.0.1:{admin}\"}}\nprocessor: {{commit: {{interval: 1s}}}}\n\
         gateway: {{http: \"127.0.0.1:{http}\", grpc: \"127.0.0.1:{grpc}\", tick: 1s}}\n"
    );
    std::fs::write(dir.join("up.yaml"), text).expect("the folder takes a file");
    let process = Process::start("demo", dir, &["up", "--demo", "--data", "data", "--config", "up.yaml"]);
    until("the banner", || async { process.said().iter().any(|line| line.contains("SIMULATED")).then_some(()) }).await;

    let ask = |sql: &str| query(dir, "up.yaml", sql);
    until("rows of every stream", || async { STREAMS.iter().all(|stream| count(dir, stream) > Some(0)).then_some(()) })
        .await;
    for pipeline in pipelines() {
        until(&format!("windows of {pipeline}"), || async { (count(dir, &pipeline) > Some(0)).then_some(()) }).await;
    }
    for stream in STREAMS {
        let rows = ask(&format!("SELECT source, site, count(*) AS n FROM {stream} GROUP BY source, site"));
        assert_eq!(rows.len(), 1, "{stream}: {rows:?}");
        let of = (rows[0]["source"].as_str(), rows[0]["site"].as_str());
        assert_eq!(of, (Some("demo"), Some("demo-site")), "{stream}");
    }
    let of = |condition: &str| {
        let rows = ask(&format!(
            "SELECT count(DISTINCT device) AS devices, count(DISTINCT concat(device, slice)) AS slices FROM accelerator WHERE {condition}"
        ));
        (rows[0]["devices"].as_i64(), rows[0]["slices"].as_i64())
    };
    assert_eq!(of("slice IS NULL").0, Some(4));
    assert_eq!(of("slice IS NOT NULL"), (Some(3), Some(8)));
    until("the agent's sum", || async {
        let scrape = Scrape::of(&format!("http://127.0.0.1:{admin}/metrics")).await?;
        let of = |name: &str| scrape.sum(name, &[]);
        assert_eq!(of("airan_agent_dropped_rows_total"), 0.0);
        let ended = of("airan_agent_acknowledged_rows_total") + of("airan_agent_queued_rows");
        (of("airan_agent_collected_rows_total") == ended && ended > 0.0).then_some(())
    })
    .await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
    println!("{}", run(dir, &["lake", "check", "--config", "up.yaml"]));

    let again = std::process::Command::new(binary())
        .args(["up", "--data", "data", "--config", "up.yaml"])
        .current_dir(dir)
        .output();
    let again = again.expect("airan runs");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("begun by the demo") && said.contains("--mix"), "{said}");
}

/// Scenario: the demo, begun just before a server falls silent for two minutes; it comes back with its backlog.
/// Guarantees: windows close without it, and are computed again with it: the newest revision is above 0 and holds the server's rows,
/// the first does not; they are complete, and so is each restated window; no row is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_demos_backlog_has_its_windows_computed_again() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path();
    let (http, grpc, admin) = (free_port(), free_port(), free_port());
    // Silent from 72 % to 82 % of 20 minutes, that is from 14m24s to 16m24s.
    let text = format!(
        "node: edge-under-test\nadmin: {{listen: \"127.0.0.1:{admin}\"}}\nprocessor: {{commit: {{interval: 1s}}}}\n\
         gateway: {{http: \"127.0.0.1:{http}\", grpc: \"127.0.0.1:{grpc}\", tick: 1s}}\n\
         agent: {{demo: {{day: 20m, begin: 14m}}}}\n"
    );
    std::fs::write(dir.join("up.yaml"), text).expect("the folder takes a file");
    let process = Process::start("demo-backlog", dir, &["up", "--demo", "--data", "data", "--config", "up.yaml"]);
    let restated = "SELECT revision, completeness, CAST(date_part('epoch', window_start) AS DOUBLE) AS at FROM host_load \
                    WHERE node = 'demo-server-2' AND revision > 0 ORDER BY window_start";
    let begin = std::time::Instant::now();
    // Two minutes of silence and what is before it come on top of the wait for one condition.
    let rows = loop {
        let rows = try_query(dir, restated).filter(|rows| rows.len() >= 3);
        if let Some(rows) = rows {
            break rows;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "no window of the silence was computed again: {:?}",
            process.said()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(rows.iter().all(|row| row["completeness"].as_f64() == Some(1.0)), "{rows:?}");
    // The first may hold rows of before the silence; the second closed without the server, and the view of the newest has it.
    let at = rows[1]["at"].as_f64().expect("a time");
    let nodes = |table: &str, more: &str| {
        let sql =
            format!("SELECT node FROM {table} WHERE date_part('epoch', window_start) = {at} {more} ORDER BY node");
        let rows = query(dir, "up.yaml", &sql);
        rows.iter().map(|row| row["node"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nodes("host_load", "AND revision = 0"), ["demo-server-1"]);
    assert_eq!(nodes("host_load_latest", ""), ["demo-server-1", "demo-server-2"]);
    let (status, said) = process.stop(Duration::from_secs(40));
    assert!(status.success(), "{status}: {said:#?}");
    println!("{}", run(dir, &["lake", "check", "--config", "up.yaml"]));
}

/// What a query gives; None while there is no such table.
fn try_query(dir: &std::path::Path, sql: &str) -> Option<Vec<Value>> {
    let arguments = ["query", "--config", "up.yaml", "--format", "json", sql];
    let out = std::process::Command::new(binary()).args(arguments).current_dir(dir).output().expect("airan runs");
    out.status.success().then(|| serde_json::from_slice(&out.stdout).expect("airan query prints JSON"))
}

/// Rows of a table; None while there is no lake.
fn count(dir: &std::path::Path, table: &str) -> Option<i64> {
    try_query(dir, &format!("SELECT count(*) AS n FROM {table}"))?[0]["n"].as_i64()
}
