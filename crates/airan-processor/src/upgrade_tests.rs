//! Lakes as earlier code wrote them, kept as files in `tests/fixtures/<version>/lake`: each release proves with them that it reads every
//! kind of file, and goes on where they stop. `v2` has what `v1` has, and a Delta checkpoint, an erasure of version 2 with its request
//! worked off and the windows noted.
//!
//! It was made by `cargo test --release -p airan -p airan-processor --lib -- --ignored write_the_lake_of_this_release`, which a
//! release with new formats runs with a new folder; the old folders stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airan_bus::Received;
use airan_lake::{Affected, Erasure, Lake, LakeSettings, Request, RequestReason};
use airan_model::message::Message;
use airan_model::time::{Clock, Micros};
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

#[path = "../../../tests/folder_copy.rs"]
mod folder_copy;

use folder_copy::copy;

use crate::processor::Processor;
use crate::sheet::Sheets;
use crate::testing::{T0, catalog, lake_settings, messages, meters, settings};
use crate::testing_bus::MemoryBus;

/// Rows in the end: one a second.
const ROWS: i64 = 60;
/// Messages, of a row each, of the fixture's first processor, its first two, and all three.
const STEPS: [i64; 3] = [20, 40, 50];
/// What an erasure that release 1 had begun takes out: the row of second 3.
const ERASED: &str = "level = 3";

/// All there are, the one that this release writes last.
const VERSIONS: [&str; 2] = ["v1", "v2"];

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(version).join("lake")
}

/// One row of node `a` at each of these seconds; the last second is followed by nothing, so the last windows stay open.
fn rows(seconds: std::ops::Range<i64>) -> Vec<Received> {
    let line = |second: i64| {
        format!(
            "{{\"stream\": \"meter\", \"node\": \"a\", \"site\": \"s\", \"part\": \"x\", \"ts\": \"@{second}\", \"level\": {second}, \
             \"total\": {second}, \"batch\": \"{:032x}\", \"seq\": {second}}}\n",
            7
        )
    };
    messages(&catalog(), &seconds.map(line).collect::<String>())
}

/// All messages, in the order of the log: those of seconds 10 to 19 come when their window and the one after it have closed.
fn log() -> Vec<Received> {
    let late = rows(10..20).into_iter().map(|late| Received { append_time: second(52), ..late });
    rows(0..10).into_iter().chain(rows(20..50)).chain(late).chain(rows(50..60)).collect()
}

fn second(second: i64) -> Micros {
    T0 + second * 1_000_000
}

/// What somebody asked release 1 for, and it did.
fn request() -> Request {
    let mut request = Request::new(RequestReason::Backfill, second(20), second(25), T0);
    request.id = "old".to_owned();
    request.pipelines = vec!["meters".to_owned()];
    request
}

async fn lake(folder: &Path) -> Lake {
    let settings = LakeSettings { path: folder.display().to_string(), checkpoint_interval: 1, ..lake_settings() };
    Lake::open(&settings, Clock::fixed(second(60))).await.unwrap()
}

/// A processor works over the folder until everything on the bus is committed and `is_done`, then stops.
async fn process(folder: &Path, bus: &MemoryBus, end: i64, is_done: impl AsyncFn(&Lake) -> bool) {
    let catalog = catalog();
    let pipelines = vec![meters(&catalog).await];
    let clock = Clock::fixed(second(60));
    let of = lake(folder).await;
    let processor = Processor::new(settings(), Arc::new(bus.clone()), of.clone(), catalog, pipelines, clock).unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(processor.run(stop.clone()));
    let mut ended = false;
    for _ in 0..2_000 {
        let reported = bus.lock().reported.get(&0).copied();
        ended = reported == Some(end) && is_done(&of).await;
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ended, "not committed up to {end} within 20 s: {:?}", bus.lock().reported);
    stop.cancel();
    run.await.unwrap().unwrap();
}

/// Makes the fixture: three processors, one after the other. The second works off a request; then everything is published, records
/// are trimmed and an erasure is begun and comes to where it has noted windows; the third takes late rows, restates, and dies before its
/// last files had their place.
#[tokio::test]
#[ignore = "writes tests/fixtures/v2/lake"]
async fn write_the_lake_of_this_release() {
    let folder = fixture(VERSIONS[VERSIONS.len() - 1]);
    let _ = fs::remove_dir_all(&folder);
    let (bus, mut log) = (MemoryBus::new(1), log().into_iter());
    let mut next = |count: i64| log.by_ref().take(count as usize).collect::<Vec<_>>();
    bus.append(0, next(STEPS[0]));
    process(&folder, &bus, STEPS[0], async |_: &Lake| true).await;
    lake(&folder).await.request(&request()).await.unwrap();
    bus.append(0, next(STEPS[1] - STEPS[0]));
    process(&folder, &bus, STEPS[1], async |lake: &Lake| is_worked_off(lake).await).await;

    let old = lake(&folder).await;
    assert!(old.publish(second(60)).await.unwrap().records > 0);
    let mut erasure = old.begin_erasure(ERASED, &[], second(60)).await.unwrap();
    old.erase(&mut erasure, second(60), |_| {}).await.unwrap();
    let [settle, _] = erasure.requests(&["meters".to_owned()]).unwrap();
    old.request(&settle).await.unwrap();
    let (catalog, pipelines) = (catalog(), vec![meters(&catalog()).await]);
    crate::restate_offline(&old, &settings(), &catalog, pipelines, "memory", &settle).await.unwrap();
    let affected = erasure.affected_by(&["meter".to_owned()]);
    assert!(old.note_windows(&erasure, "meters", &affected, second(60)).await.unwrap() > 0);
    // A checkpoint is made when a publication finds one due.
    old.publish(second(60)).await.unwrap();

    bus.append(0, next(STEPS[2] - STEPS[1]));
    let is_restated = async |lake: &Lake| windows(lake).await.iter().any(|window| window.0 == 10);
    process(&folder, &bus, STEPS[2], is_restated).await;
    let last = lake(&folder).await;
    let files = [last.files("meter").await.unwrap(), last.files("meters").await.unwrap()].concat();
    let newest = files.iter().max_by_key(|file| file.n).unwrap();
    let staged = folder.join("_staging/memory/0").join(format!("{}.staged", newest.path));
    // The writer that stopped left both names, as one that dies after giving the place does; one that dies before has the first only.
    assert!(staged.exists(), "{}", staged.display());
    fs::remove_file(folder.join(&newest.path)).unwrap();
    let _ = fs::remove_dir(folder.join("_tmp"));
}

async fn is_worked_off(lake: &Lake) -> bool {
    let progress = crate::request_progress(lake, "memory", 1, &request(), &["meters".to_owned()]).await.unwrap();
    progress.len() == 1 && progress[0].is_done
}

/// The names of all files below `folder`, from `root` on.
fn names(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => names(root, &path, found),
            false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
        }
    }
}

/// Scenario: the lakes as they lie there.
/// Guarantees: it holds each kind of file that release wrote, so each is read by the tests; its shard state has every table, and this
/// release reads out of them what happened.
#[tokio::test]
async fn the_lakes_of_before_say_what_they_said() {
    for version in VERSIONS {
        says_what_it_said(version).await;
    }
}

async fn says_what_it_said(version: &str) {
    let (mut found, is_first) = (Vec::new(), version == VERSIONS[0]);
    names(&fixture(version), &fixture(version), &mut found);
    let kinds = [
        ("_commits/", ".json"),
        ("_commits/", ".trimmed"),
        ("_commits/", "partitions.json"),
        ("_state/", ".state"),
        ("_schemas/", ".arrow"),
        ("_staging/", ".parquet.staged"),
        ("_erasures/", "/000000.json"),
        ("_requests/", "old.json"),
        ("meter/_delta_log/", ".json"),
        ("meter/_held/date=2026-01-01/0-", ""),
        ("meter/_held/date=2026-01-01/compact-", ""),
        ("meter/date=2026-01-01/0-", ".parquet"),
        ("meters/_delta_log/", ".json"),
    ];
    let since_v2 = [
        ("meters/_delta_log/", ".checkpoint.parquet"),
        ("meters/_delta_log/", "_last_checkpoint"),
        ("_erasures/", ".windows"),
        ("_requests/", "-settle.json"),
    ];
    for (from, to) in kinds.into_iter().chain(since_v2.into_iter().filter(|_| !is_first)) {
        assert!(found.iter().any(|name| name.starts_with(from) && name.ends_with(to)), "no {from}…{to} in {found:#?}");
    }
    let temp = tempfile::tempdir().unwrap();
    copy(&fixture(version), temp.path());
    let lake = lake(temp.path()).await;
    let mut wanted: Vec<f64> = (0..50).map(f64::from).collect();
    wanted.retain(|level| *level != 3.0);
    assert_eq!(levels(&lake).await, wanted);
    let requests = lake.requests().await.unwrap();
    let settles = |of: &&Request| of.reason == RequestReason::Erase && of.id.ends_with("-settle");
    assert!(requests.contains(&request()), "{requests:?}");
    assert_eq!((requests.len(), requests.iter().filter(settles).count()), if is_first { (1, 0) } else { (2, 1) });
    let erasures = lake.erasures().await.unwrap();
    let [Erasure { condition, tables, affected, .. }] = &erasures[..] else { panic!("{erasures:?}") };
    assert_eq!((condition.as_str(), tables.len()), (ERASED, 0));
    assert_eq!(affected["meter"], Affected::from([("s".to_owned(), vec![(second(3), second(3) + 1)])]));
    assert!(is_worked_off(&lake).await);

    let (_, state) = lake.head_and_state("memory", 0).await.unwrap().unwrap();
    let state = Sheets::read(state.unwrap()).unwrap();
    let sheet = |name: &str| state.table(name).unwrap_or_else(|| panic!("no table {name}"));
    for name in ["identities", "rises/meter", "clocks", "watermarks", "pipelines", "exported", "load"] {
        assert!(sheet(name).rows() > 0, "{name}");
    }
    assert_eq!((sheet("shard").count(0, "appended"), sheet("shard").count(0, "stored")), (50, 50));
    let late = sheet("late");
    let texts = ["stream", "node", "reason"].map(|column| late.text(0, column));
    assert_eq!((late.rows(), texts, late.count(0, "rows")), (1, [Some("meter"), Some("a"), Some("late")], 10));
    let requests = sheet("requests");
    let noted = (0..requests.rows()).map(|row| (requests.text(row, "request"), requests.int(row, "next")));
    let noted: Vec<_> = noted.collect();
    assert!(
        noted.contains(&(Some("old"), Some(second(30)))) && noted.len() == if is_first { 1 } else { 2 },
        "{noted:?}"
    );
    let dirty = sheet("dirty");
    let mark = |row: usize| {
        let texts = ["pipeline", "site", "why"].map(|column| dirty.text(row, column).unwrap());
        (texts, dirty.int(row, "start").unwrap(), dirty.int(row, "end").unwrap(), dirty.int(row, "since").unwrap())
    };
    let mut marks: Vec<_> = (0..dirty.rows()).map(mark).collect();
    marks.sort_unstable();
    let wanted = |why, at| (["meters", "s", why], second(at), second(at + 10), second(52));
    assert_eq!(marks, [wanted("gaps", 0), wanted("gaps", 20), wanted("rises", 20)]);
}

/// Scenario: the lakes of before, each with a file still in staging, rows that came late, an erasure that was cut off, and a log that has
/// gone on.
/// Guarantees: this release claims the shard, builds up its open windows, goes on at the same offset, restates what is marked, and
/// finishes the erasure; every row and window is there once, as if one release had done all of it.
#[tokio::test]
async fn the_lakes_of_before_go_on() {
    for version in VERSIONS {
        goes_on(version).await;
    }
}

async fn goes_on(version: &str) {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (temp.path().join("old"), temp.path().join("new"));
    copy(&fixture(version), &old);
    let end = ROWS + 1;
    let bus = || {
        let bus = MemoryBus::new(1);
        bus.append(0, log());
        bus.append_message(0, T0 + 3_600_000_000, Message::Tick);
        bus
    };
    // But for the first window, which may be restated before the erasure or after it.
    let wanted: Vec<_> = (1..ROWS / 10).map(|at| (10 * at, 10, (100 * at + 45) as f64, 10.0)).collect();
    let is_restated = async |lake: &Lake| windows(lake).await.get(1..) == Some(&wanted[..]);
    process(&old, &bus(), end, &is_restated).await;
    process(&new, &bus(), end, &is_restated).await;
    let (old, new) = (lake(&old).await, lake(&new).await);
    old.remove_request("old").await.unwrap();
    let begun = old.erasures().await.unwrap().remove(0);
    finish(&old, begun).await;
    let begun = new.begin_erasure(ERASED, &[], second(60)).await.unwrap();
    finish(&new, begun).await;

    let left: Vec<f64> = (0..ROWS).filter(|second| *second != 3).map(|second| second as f64).collect();
    assert_eq!(levels(&old).await, left);
    assert_eq!(levels(&new).await, left);
    let (old_windows, new_windows) = (windows(&old).await, windows(&new).await);
    assert_eq!(old_windows, new_windows);
    assert_eq!((old_windows[0], &old_windows[1..]), ((0, 9, 42.0, 9.0), &wanted[..]));
    for request in old.requests().await.unwrap() {
        assert!(request.id.ends_with("-settle"), "{request:?}");
        old.remove_request(&request.id).await.unwrap();
    }
    assert!(old.erasures().await.unwrap().is_empty());
    let report = old.check().await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems.first().map(ToString::to_string));

    // Files of both releases, in which the children of maps and lists have other names, in one answer and then in one file.
    assert_eq!(nested_columns(&old).await, [59, 59]);
    let report = old.compact(None, second(200_000), |_| {}).await.unwrap();
    assert!(report.failures.is_empty() && report.merges > 0, "{report:?}");
    assert_eq!(nested_columns(&old).await, [59, 59]);
    assert_eq!((levels(&old).await, windows(&old).await), (left, old_windows));
}

/// Rows, and those of them without an attribute and without a distribution: all of the fixture's.
async fn nested_columns(lake: &Lake) -> [i64; 2] {
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let sql = "SELECT count(*), count(*) FILTER (WHERE attributes IS NULL AND spread IS NULL) FROM meter";
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    [0, 1].map(|column| batches[0].column(column).as_primitive::<Int64Type>().value(0))
}

/// An erasure from wherever it is to its end, without a processor.
async fn finish(lake: &Lake, mut erasure: Erasure) {
    lake.erase(&mut erasure, second(60), |_| {}).await.unwrap();
    let affected = erasure.affected_by(&["meter".to_owned()]);
    let catalog = catalog();
    let [settle, again] = erasure.requests(&["meters".to_owned()]).unwrap();
    for request in [settle, again] {
        let pipelines = vec![meters(&catalog).await];
        let done = crate::restate_offline(lake, &settings(), &catalog, pipelines, "memory", &request).await.unwrap();
        assert!(done.waits.is_empty(), "{done:?}");
        assert!(lake.note_windows(&erasure, "meters", &affected, second(60)).await.unwrap() > 0);
    }
    lake.erase_windows(&erasure, "meters", &affected, second(60)).await.unwrap();
    lake.finish_erasure(&erasure).await.unwrap();
}

async fn levels(lake: &Lake) -> Vec<f64> {
    let mut rows = lake.raw_rows("memory", 0, "meter", Micros::MIN).await.unwrap();
    let mut levels: Vec<f64> = Vec::new();
    while let Some(batch) = rows.next().await {
        levels.extend(batch.unwrap()["level"].as_primitive::<Float64Type>().values());
    }
    levels.sort_by(f64::total_cmp);
    levels
}

/// Start in seconds, readings, their sum, the rise of the counter.
async fn windows(lake: &Lake) -> Vec<(i64, i64, f64, f64)> {
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let sql = "SELECT arrow_cast(window_start, 'Int64') AS start, CAST(readings AS BIGINT) AS readings, \
               CAST(level_sum AS DOUBLE) AS level_sum, CAST(total AS DOUBLE) AS total FROM meters_latest ORDER BY 1";
    let mut windows = Vec::new();
    for batch in context.sql(sql).await.unwrap().collect().await.unwrap() {
        let int = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let float = |column: usize| batch.column(column).as_primitive::<Float64Type>().clone();
        let row = |row: usize| {
            ((int(0).value(row) - T0) / 1_000_000, int(1).value(row), float(2).value(row), float(3).value(row))
        };
        windows.extend((0..batch.num_rows()).map(row));
    }
    windows
}
