//! The tools of repair beside `airan up`: a lake that came from an older backup than its log, and rows that a release could not read.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::edge::Edge;
use super::folder_copy::copy;
use super::site::{newer_catalog, now_micros, until};

const NDJSON: &str = "application/x-ndjson";
/// How long a graceful stop may take on a busy machine.
const STOP: Duration = Duration::from_secs(25);

/// What `airan lag` says of each shard.
fn lag(edge: &Edge) -> Vec<Value> {
    serde_json::from_str(&edge.run(&["lag", "--format", "json"])).expect("airan lag prints JSON")
}

/// What `/readyz` says.
async fn readiness(edge: &Edge) -> Option<String> {
    reqwest::get(format!("http://127.0.0.1:{}/readyz", edge.processor_admin())).await.ok()?.text().await.ok()
}

/// Segments of the partitions, each from the oldest on.
fn segments(edge: &Edge) -> Vec<Vec<PathBuf>> {
    let of = |partition: usize| {
        let folder = edge.dir().join(format!("data/log/partition-{partition:04}"));
        let paths = fs::read_dir(folder).expect("a partition").map(|entry| entry.expect("an entry").path());
        let mut logs: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs
    };
    (0..2).map(of).collect()
}

/// Rows of events, of about half a KiB each that does not compress.
fn bulk(request: u64) -> String {
    let mut state = request;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let digits = format!("{:016x}", state ^ (state >> 29));
        // Letters alone: long numbers could be a subscriber's.
        digits.chars().map(|digit| char::from(b'a' + digit.to_digit(16).expect("hex") as u8)).collect::<String>()
    };
    let row = |words: String| json!({"stream": "event", "ts": now_micros(), "node": "bulk-1", "type": "notification", "message": words});
    (0..40).map(|_| format!("{}\n", row((0..32).map(|_| word()).collect()))).collect()
}

/// Scenario: the lake of a stopped site is replaced by an older backup, and its log has meanwhile lost the oldest segments of one
/// partition; the site starts again.
/// Guarantees: that shard stops, the other goes on; readiness and `airan lag` name the loss; nothing is skipped unasked; once it is
/// accepted the shard goes on in the running process, the loss stays told, and the lake is sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_older_than_its_log_stops_its_shard_until_the_loss_is_accepted() {
    let edge = Edge::new("backup");
    let text = fs::read_to_string(edge.dir().join("up.yaml")).expect("up.yaml");
    edge.write("up.yaml", &text.replace("bus: {partitions: 2}", "bus: {partitions: 2, segment_bytes: 64KiB}"));
    let process = edge.up();
    edge.ready().await;
    until("both shards have committed", || async {
        lag(&edge).iter().all(|shard| shard["committed_offset"].as_i64().is_some_and(|n| n > 0)).then_some(())
    })
    .await;
    assert!(process.stop(STOP).0.success());
    let (lake, backup) = (edge.dir().join("data/lake"), edge.dir().join("backup"));
    copy(&lake, &backup);

    let process = edge.up();
    edge.ready().await;
    for request in 0..20 {
        let (status, said) = edge.push("/v1/ndjson", NDJSON, bulk(request)).await;
        assert_eq!(status, 200, "{said}");
    }
    until("the rows in the lake", || async { (edge.count("event")? == 20 * 40).then_some(()) }).await;
    assert!(process.stop(STOP).0.success());
    let logs = segments(&edge);
    let lost = if logs[0].len() > logs[1].len() { 0 } else { 1 };
    assert!(logs[lost].len() >= 3, "too few segments: {logs:?}");
    logs[lost][..logs[lost].len() - 1].iter().for_each(|path| fs::remove_file(path).expect("removed"));
    fs::remove_dir_all(&lake).expect("removed");
    copy(&backup, &lake);

    let mut process = edge.up();
    let shard = format!("shard {lost} has stopped: offsets ");
    let stopped =
        until("the loss is named", || async { readiness(&edge).await.filter(|said| said.contains(&shard)) }).await;
    assert!(stopped.contains("are no longer on the bus"), "{stopped}");
    let before = lag(&edge);
    let gone = before[lost]["lost_offsets"].as_i64().expect("a count");
    assert!(gone > 0, "{before:?}");
    until("the other goes on", || async {
        (lag(&edge)[1 - lost]["commit"].as_i64() > before[1 - lost]["commit"].as_i64()).then_some(())
    })
    .await;
    let place = format!("airan.telemetry/{lost}");
    let said = edge.run_in_vain("up.yaml", &["shard", "skip", &place]);
    assert!(said.contains(&format!("{gone} messages")) && said.contains("nothing was changed"), "{said}");
    assert_eq!(lag(&edge)[lost]["lost_offsets"], json!(gone));
    let said = edge.run(&["shard", "skip", &place, "--yes"]);
    assert!(said.contains("the shard goes on at offset"), "{said}");
    until("it goes on", || async {
        let now = lag(&edge);
        let is_past = now[lost]["commit"].as_i64() > before[lost]["commit"].as_i64().map(|commit| commit + 2);
        (is_past && now[lost]["lost_offsets"] == json!(0)).then_some(())
    })
    .await;
    assert_eq!(lag(&edge)[lost]["skipped_offsets"], json!(gone));
    let (status, said) = edge.push("/v1/ndjson", NDJSON, bulk(100)).await;
    assert_eq!(status, 200, "{said}");
    let after = format!("SELECT count(*) AS n FROM event WHERE message LIKE '{}%'", first_word(&bulk(100)));
    until("new rows of it in the lake", || async { (edge.try_query(&after)?[0]["n"] == json!(1)).then_some(()) }).await;
    assert!(process.runs());
    let (status, said) = process.stop(STOP);
    assert!(status.success(), "{status}: {said:#?}");
    edge.lake_is_sound();
}

/// The beginning of the first row's message.
fn first_word(body: &str) -> String {
    let row: Value = serde_json::from_str(body.lines().next().expect("a row")).expect("JSON");
    row["message"].as_str().expect("text")[..32].to_owned()
}

/// Scenario: rows of a stream that only a newer release knows are acknowledged, and the process dies before they are committed; the
/// older release is started over the same data, then the newer one again, and what was refused is replayed, twice.
/// Guarantees: the refusal is listed with its reason and shown with its message; it cannot be replayed to a catalog that refuses it again,
/// nor while `airan up` has the log; afterwards each row is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_refused_is_replayed_by_a_newer_one() {
    let edge = Edge::new("rolled-back");
    let older = fs::read_to_string(edge.dir().join("up.yaml")).expect("up.yaml");
    let newer = newer_catalog();
    let catalog = format!("catalog: {{folder: \"{}\"}}\n", newer.path().display());
    edge.write("newer.yaml", &format!("{older}{catalog}"));
    // Nothing is committed before it dies.
    edge.write("up.yaml", &format!("{}{catalog}", older.replace("interval: 1s}}", "interval: 1h}}")));
    let process = edge.up();
    edge.ready().await;
    let row = |n: i64| json!({"stream": "meter", "node": "edge-3", "ts": now_micros(), "reading": n});
    let (status, said) =
        edge.push("/v1/ndjson", NDJSON, (0..7).map(|n| format!("{}\n", row(n))).collect::<String>()).await;
    assert_eq!(status, 200, "{said}");
    process.kill();

    edge.write("up.yaml", &older);
    let process = edge.up();
    let listed = || -> Vec<Value> {
        serde_json::from_str(&edge.run(&["rejected", "list", "--format", "json"]))
            .expect("airan rejected list prints JSON")
    };
    let refused = || listed().into_iter().find(|entry| entry["door"] == "bus");
    let entry = until("the processor's refusal", || async { refused() }).await;
    assert_eq!(
        (&entry["reason"], &entry["rows"], &entry["replayed"]),
        (&json!("unknown_stream"), &json!("7"), &json!(""))
    );
    let id = entry["id"].as_str().expect("a number");
    let shown = edge.run(&["rejected", "show", id]);
    assert!(shown.contains("message.headers.airan-stream: meter") && shown.contains("no stream `meter`"), "{shown}");
    let said = edge.run_in_vain("up.yaml", &["rejected", "replay", id]);
    assert!(said.contains("no stream `meter` in this catalog"), "{said}");
    let replay = ["rejected", "replay", "--reason", "unknown_stream"];
    let said = edge.run_in_vain("newer.yaml", &replay);
    assert!(said.contains("is `airan up` running?"), "{said}");
    until("what it refused is committed", || async { lag(&edge).iter().all(is_caught_up).then_some(()) }).await;
    assert!(process.stop(STOP).0.success());

    let said = edge.run_as("newer.yaml", &replay);
    assert!(said.contains("1 messages with 7 rows sent again"), "{said}");
    let said = edge.run_in_vain("newer.yaml", &replay);
    assert!(said.contains("1 not sent: sent again before"), "{said}");
    edge.write("up.yaml", &format!("{older}{catalog}"));
    let process = edge.up();
    edge.ready().await;
    until("the rows are stored", || async { (edge.count("meter")? == 7).then_some(()) }).await;
    assert_eq!(refused().expect("it is listed")["replayed"], json!("yes"));
    assert!(process.stop(STOP).0.success());
    assert_eq!(edge.count("meter"), Some(7));
    edge.lake_is_sound();
}

/// A shard that has committed a little of what came after the start.
fn is_caught_up(shard: &Value) -> bool {
    shard["committed_offset"].as_i64().is_some_and(|n| n > 1)
}
