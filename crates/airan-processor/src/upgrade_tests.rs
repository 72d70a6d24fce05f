//! A lake as release 1 wrote it, kept as files in `tests/fixtures/v1/lake`: each later release proves with it that it goes on where
//! that one stopped.
//!
//! It was made by `cargo test --release -p airan -p airan-processor --lib -- --ignored write_the_lake_of_this_release`, which a
//! release with new formats runs with a new folder; the old folders stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airan_bus::Received;
use airan_lake::{Lake, LakeSettings};
use airan_model::message::Message;
use airan_model::time::{Clock, Micros};
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::processor::Processor;
use crate::testing::{T0, catalog, lake_settings, messages, meters, settings};
use crate::testing_bus::MemoryBus;

/// Rows that the fixture's lake has: one a second.
const ROWS: i64 = 30;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/v1/lake")
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

async fn lake(folder: &Path) -> Lake {
    let settings = LakeSettings { path: folder.display().to_string(), ..lake_settings() };
    Lake::open(&settings, Clock::fixed(T0 + 60_000_000)).await.unwrap()
}

/// A processor works over the folder until everything on the bus is committed, then stops.
async fn process(folder: &Path, bus: &MemoryBus, end: i64) {
    let catalog = catalog();
    let pipelines = vec![meters(&catalog).await];
    let clock = Clock::fixed(T0 + 60_000_000);
    let processor =
        Processor::new(settings(), Arc::new(bus.clone()), lake(folder).await, catalog, pipelines, clock).unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(processor.run(stop.clone()));
    let is_done = || bus.lock().reported.get(&0) == Some(&end);
    for _ in 0..2_000 {
        if is_done() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_done(), "not committed up to {end} within 20 s: {:?}", bus.lock().reported);
    stop.cancel();
    run.await.unwrap().unwrap();
}

/// Makes the fixture: three processors, one after the other, the last of which died before its files had their place.
#[tokio::test]
#[ignore = "writes tests/fixtures/v1/lake"]
async fn write_the_lake_of_this_release() {
    let folder = fixture();
    let _ = fs::remove_dir_all(&folder);
    let bus = MemoryBus::new(1);
    for third in 0..3 {
        bus.append(0, rows(third * ROWS / 3..(third + 1) * ROWS / 3));
        process(&folder, &bus, (third + 1) * ROWS / 3).await;
    }
    let files = lake(&folder).await.files("meter").await.unwrap();
    let newest = &files.last().unwrap().path;
    let staged = folder.join("_staging/memory/0").join(format!("{newest}.staged"));
    // The writer that stopped left both names, as one that dies after giving the place does; one that dies before has the first only.
    assert!(staged.exists(), "{}", staged.display());
    fs::remove_file(folder.join(newest)).unwrap();
    let _ = fs::remove_dir(folder.join("_tmp"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Scenario: the lake of release 1, with a file still in staging, and a log that has gone on.
/// Guarantees: this release claims the shard, builds up its open windows, goes on at the same offset, and every row and window is
/// there once, as if one release had written all of them.
#[tokio::test]
async fn the_lake_of_release_1_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (temp.path().join("old"), temp.path().join("new"));
    copy(&fixture(), &old);
    let end = 2 * ROWS + 1;
    let bus = || {
        let bus = MemoryBus::new(1);
        bus.append(0, rows(0..2 * ROWS));
        bus.append_message(0, T0 + 3_600_000_000, Message::Tick);
        bus
    };
    process(&old, &bus(), end).await;
    process(&new, &bus(), end).await;
    let (old, new) = (lake(&old).await, lake(&new).await);
    let wanted: Vec<f64> = (0..2 * ROWS).map(|second| second as f64).collect();
    assert_eq!(levels(&old).await, wanted);
    assert_eq!(levels(&new).await, wanted);
    assert_eq!(windows(&old).await, windows(&new).await);
    assert_eq!(windows(&old).await.len() as i64, 2 * ROWS / 10);
    let report = old.check().await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems.first().map(ToString::to_string));
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
