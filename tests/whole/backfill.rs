//! `airan backfill`, beside a running `airan up` and without one: a pipeline that is new, one that was corrected.

use std::time::Duration;

use serde_json::{Value, json};

use super::edge::Edge;
use super::site::{now_micros, until};

/// Rows pushed, two seconds apart, before those that close their windows.
const ROWS: i64 = 30;
const SECOND: i64 = 1_000_000;

/// A pipeline over accelerators in windows of 10 s: readings, and power times `factor`.
fn pipeline(edge: &Edge, name: &str, factor: i64) {
    let sql = format!(
        "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, node, count(power_watts) AS readings,
         {factor} * sum(power_watts) AS draw FROM accelerator GROUP BY tumble(ts, INTERVAL '10 seconds'), site, node"
    );
    let about = format!(
        "name: {name}\ndescription: a test\ntable: {name}\nlateness: 1s\nstaleness_windows: 3\nseries_budget: 100\nmetrics: []\n"
    );
    edge.write_in(&format!("own/{name}/pipeline.yaml"), &about);
    edge.write_in(&format!("own/{name}/query.sql"), &sql);
}

/// The windows of a table in its newest revisions, and those revisions.
fn windows(edge: &Edge, table: &str) -> Option<(Vec<Value>, Vec<i64>)> {
    let sql = format!(
        "SELECT CAST(window_start AS VARCHAR) AS at, node, readings, draw, revision FROM {table}_latest ORDER BY at, node"
    );
    let mut rows = edge.try_query(&sql)?;
    let taken = |row: &mut Value| row.as_object_mut().and_then(|row| row.remove("revision")).and_then(|n| n.as_i64());
    let revisions = rows.iter_mut().map(|row| taken(row).expect("a revision")).collect();
    Some((rows, revisions))
}

/// What the raw rows before `end` say that the windows must be.
fn wanted(edge: &Edge, factor: i64, end: i64) -> Vec<Value> {
    edge.query(&format!(
        "SELECT CAST(date_bin(INTERVAL '10 seconds', ts) AS VARCHAR) AS at, node, count(power_watts) AS readings,
         {factor} * sum(power_watts) AS draw FROM accelerator WHERE ts < to_timestamp_micros({end})
         GROUP BY date_bin(INTERVAL '10 seconds', ts), node ORDER BY at, node"
    ))
}

/// Scenario: `airan up` with one pipeline of the user's own; then a second one is added, and the first is corrected. Both are
/// computed over the rows of before: by the running processor, and by the command alone. Last, mistakes.
/// Guarantees: the windows of a new pipeline are what its rows make them, at revision 0; a corrected one's are replaced at the next
/// revision, the same way with and without a processor; nothing else changes; the lake is sound. A mistake is one line that names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_or_corrected_pipeline_is_computed_over_the_rows_of_before() {
    let edge = Edge::new("backfill");
    edge.add_to_up("pipelines: {folder: own}\n");
    pipeline(&edge, "before", 1);
    let process = edge.up();
    edge.ready().await;
    // On the edge of a window, so that all are whole.
    let start = (now_micros() - 2 * ROWS * SECOND).div_euclid(10 * SECOND) * 10 * SECOND;
    let end = start + 2 * ROWS * SECOND;
    let line = |at: i64| {
        let row = json!({"stream": "accelerator", "ts": at, "node": "n1", "device": "GPU-0", "power_watts": (at / SECOND) % 97});
        format!("{row}\n")
    };
    let body: String = (0..ROWS).map(|n| line(start + 2 * n * SECOND)).collect();
    assert_eq!(edge.push("/v1/ndjson", "application/x-ndjson", body).await.0, 200);
    // Time goes on, and the windows close.
    until("windows as they closed", || async {
        edge.push("/v1/ndjson", "application/x-ndjson", line(now_micros())).await;
        let (rows, _) = windows(&edge, "before")?;
        (rows.len() as i64 >= 2 * ROWS / 10).then_some(())
    })
    .await;
    let of_before = |table: &str, factor: i64, revision: i64| {
        let (rows, revisions) = windows(&edge, table).expect("windows");
        let wanted = wanted(&edge, factor, end);
        let of = rows.len().min(wanted.len());
        assert_eq!(rows[..of], wanted, "{table} at revision {revision}");
        assert!(revisions[..of].iter().all(|found| *found == revision), "{table}: {revisions:?}, not {revision}");
    };
    of_before("before", 1, 0);
    let (status, said) = process.stop(Duration::from_secs(30));
    assert!(status.success(), "{status}: {said:#?}");

    pipeline(&edge, "before", 10);
    pipeline(&edge, "after", 3);
    let process = edge.up();
    edge.ready().await;
    let (from, to) = (start.to_string(), end.to_string());
    let times = |at: &str| {
        let sql = format!("SELECT to_char(to_timestamp_micros({at}), '%Y-%m-%dT%H:%M:%SZ') AS at");
        edge.query(&sql)[0]["at"].as_str().expect("a time").to_owned()
    };
    let (from, to) = (times(&from), times(&to));
    let said = edge.run(&["backfill", "after", "--from", &from, "--to", &to, "--timeout", "120s"]);
    assert!(said.contains("done"), "{said}");
    of_before("after", 3, 0);
    of_before("before", 1, 0);
    edge.run(&["backfill", "before", "--from", &from, "--to", &to, "--timeout", "120s"]);
    of_before("before", 10, 1);
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(30));
    assert!(status.success(), "{status}: {said:#?}");

    pipeline(&edge, "before", 100);
    let said = edge.run(&["backfill", "all", "--from", &from, "--to", &to, "--offline"]);
    assert!(said.contains("windows of sites computed"), "{said}");
    of_before("before", 100, 2);
    of_before("after", 3, 1);
    edge.lake_is_sound();

    let said = edge.run_in_vain("up.yaml", &["backfill", "nothing", "--from", &from, "--to", &to]);
    assert!(said.contains("there is no pipeline `nothing`; there are: after, before"), "{said}");
    let said = edge.run_in_vain("up.yaml", &["backfill", "after", "--from", &to, "--to", &from, "--no-wait"]);
    assert!(said.contains("its time ends before it begins"), "{said}");
}
