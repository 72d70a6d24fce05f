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

/// Rows of a table; None while there is no lake.
fn count(dir: &std::path::Path, table: &str) -> Option<i64> {
    let sql = format!("SELECT count(*) AS n FROM {table}");
    let arguments = ["query", "--config", "up.yaml", "--format", "json", &sql];
    let out = std::process::Command::new(binary()).args(arguments).current_dir(dir).output().expect("airan runs");
    let rows: Vec<Value> =
        out.status.success().then(|| serde_json::from_slice(&out.stdout).expect("airan query prints JSON"))?;
    rows[0]["n"].as_i64()
}
