//! Rows and lakes for this crate's tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use airan_model::time::{Clock, Micros};
use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, ListArray, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use futures::TryStreamExt;

use crate::commit::{Commit, TableKind, TableRows};
use crate::durable::DurableLocal;
use crate::faults::FaultyStore;
use crate::lake::Lake;
use crate::settings::{CompactionSettings, LakeSettings};
use crate::store::Store;
use crate::writer::ShardWriter;

/// The topic of all tests.
pub(crate) const TOPIC: &str = "telemetry";
/// One second.
pub(crate) const SECOND: Micros = 1_000_000;

/// A number that looks random and is the same for the same `id` (SplitMix64's mixing): no encoding makes it smaller.
pub(crate) fn noise(id: i64) -> i64 {
    let mixed = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as i64
}

/// A time column, UTC.
pub(crate) fn times(at: &[Micros]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(at.to_vec()).with_timezone("UTC"))
}

/// One batch of a raw table, sorted by `site`; no batch where there are no columns.
pub(crate) fn raw(table: &str, columns: &[(&str, ArrayRef)]) -> TableRows {
    let batches = match columns {
        [] => Vec::new(),
        columns => vec![RecordBatch::try_from_iter(columns.iter().cloned()).unwrap()],
    };
    TableRows {
        table: table.to_owned(),
        kind: TableKind::Raw,
        batches,
        sort_by: vec!["site".to_owned()],
        time_column: "ts",
        bloom: vec!["site".to_owned()],
    }
}

/// Rows of a raw table, told apart by `id`: row `id` is of second `id` after 1970.
pub(crate) fn rows(table: &str, ids: Range<i64>) -> TableRows {
    let at: Vec<Micros> = ids.clone().map(|id| id * SECOND).collect();
    let sites: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("s{}", id % 3))));
    raw(table, &[("ts", times(&at)), ("site", sites), ("id", Arc::new(Int64Array::from_iter_values(ids)))])
}

/// Rows of a raw table as [`rows`] makes them, with `attributes` (null in each third row) and a `histogram`.
pub(crate) fn nested_rows(table: &str, ids: Range<i64>) -> TableRows {
    let names = MapFieldNames { entry: "entries".to_owned(), key: "keys".to_owned(), value: "values".to_owned() };
    let mut attributes = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for id in ids.clone() {
        if id % 3 > 0 {
            attributes.keys().append_value("k");
            attributes.values().append_value(format!("v{id}"));
        }
        attributes.append(id % 3 > 0).unwrap();
    }
    let DataType::Struct(fields) = airan_model::schema::histogram_type() else { panic!("a histogram is a struct") };
    let bounds = ListArray::from_iter_primitive::<Float64Type, _, _>(ids.clone().map(|id| Some([Some(id as f64)])));
    let counts = ListArray::from_iter_primitive::<Int64Type, _, _>(ids.clone().map(|id| Some([Some(id), Some(1)])));
    let sum = Float64Array::from_iter_values(ids.clone().map(|id| id as f64 / 2.0));
    let count = Int64Array::from_iter_values(ids.clone().map(|id| id + 1));
    let histogram =
        StructArray::new(fields, vec![Arc::new(bounds), Arc::new(counts), Arc::new(sum), Arc::new(count)], None);
    let plain = rows(table, ids);
    let batch = &plain.batches[0];
    let columns: [(&str, ArrayRef); 5] = [
        ("ts", Arc::clone(&batch["ts"])),
        ("site", Arc::clone(&batch["site"])),
        ("id", Arc::clone(&batch["id"])),
        ("attributes", Arc::new(attributes.finish())),
        ("histogram", Arc::new(histogram)),
    ];
    raw(table, &columns)
}

/// A result of a window table as (window start in seconds, site, value, revision).
pub(crate) type WindowRow<'a> = (i64, Option<&'a str>, i64, i32);

/// Rows of a window table with the key `site`.
pub(crate) fn windows(table: &str, rows: &[WindowRow<'_>]) -> TableRows {
    let at: Vec<Micros> = rows.iter().map(|row| row.0 * SECOND).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("window_start", times(&at)),
        ("site", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1)))),
        ("value", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("revision", Arc::new(arrow::array::Int32Array::from_iter_values(rows.iter().map(|row| row.3)))),
    ];
    TableRows {
        kind: TableKind::Windows { keys: vec!["site".to_owned()] },
        time_column: "window_start",
        ..raw(table, &columns)
    }
}

/// A commit whose state tells its offset.
pub(crate) fn commit(next_offset: i64, tables: Vec<TableRows>) -> Commit {
    Commit { next_offset, tables, state: format!("state at {next_offset}").into(), needed_from: None }
}

/// Compaction as a processor does it.
pub(crate) fn compaction() -> CompactionSettings {
    CompactionSettings {
        on: true,
        every: Duration::from_secs(600).into(),
        target_bytes: "256MiB".parse().unwrap(),
        min_files: 8,
    }
}

/// A lake that keeps everything for ever.
pub(crate) fn settings(path: &FsPath) -> LakeSettings {
    LakeSettings {
        path: path.to_str().unwrap().to_owned(),
        options: BTreeMap::new(),
        raw_retention: Duration::from_secs(100 * 365 * 86_400).into(),
        window_retention: Duration::from_secs(100 * 365 * 86_400).into(),
        max_bytes: None,
        checkpoint_interval: 100,
        compaction: compaction(),
    }
}

/// The clock of all tests stands still; nothing decides by it.
pub(crate) fn clock() -> Clock {
    Clock::fixed(1_000_000 * SECOND)
}

/// A lake in a local folder, opened as a processor does.
pub(crate) async fn local(folder: &FsPath) -> Lake {
    Lake::open(&settings(folder), clock()).await.unwrap()
}

/// The same, over a disk that fails on demand.
pub(crate) fn faulty_local(folder: &FsPath) -> (Lake, Arc<FaultyStore>) {
    let store = FaultyStore::over(Arc::new(DurableLocal::open(folder).unwrap()));
    (Lake::over(Store::over(Arc::clone(&store) as _, true), settings(folder), clock()).unwrap(), store)
}

/// A lake in an object store in memory that fails on demand.
pub(crate) fn faulty_object() -> (Lake, Arc<FaultyStore>) {
    let store = FaultyStore::in_memory();
    (over(&store), store)
}

/// Another process's handle of the lake in `store`.
pub(crate) fn over(store: &Arc<FaultyStore>) -> Lake {
    Lake::over(Store::over(Arc::clone(store) as _, false), settings(FsPath::new("memory")), clock()).unwrap()
}

/// Claims partition 0 of 1.
pub(crate) async fn claim(lake: &Lake) -> ShardWriter {
    lake.claim(TOPIC, 0, 1).await.unwrap().0
}

/// The `id`s of all committed rows of `table` in partition 0 at or after `from`, sorted.
pub(crate) async fn ids_from(lake: &Lake, table: &str, from: Micros) -> Vec<i64> {
    let batches: Vec<RecordBatch> = lake.raw_rows(TOPIC, 0, table, from).await.unwrap().try_collect().await.unwrap();
    let ids = |batch: &RecordBatch| batch["id"].as_primitive::<Int64Type>().values().to_vec();
    let mut ids: Vec<i64> = batches.iter().flat_map(ids).collect();
    ids.sort_unstable();
    ids
}

/// The `id`s of all committed rows of `table` in partition 0, sorted.
pub(crate) async fn ids(lake: &Lake, table: &str) -> Vec<i64> {
    ids_from(lake, table, Micros::MIN).await
}

/// The lake is sound; otherwise what is wrong.
pub(crate) async fn assert_sound(lake: &Lake) {
    let report = lake.check().await.unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

/// The folder as it is now, once more.
pub(crate) fn copy(folder: &FsPath) -> tempfile::TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy_to(folder, copied.path());
    copied
}

fn copy_to(from: &FsPath, to: &FsPath) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_to(&path, &to),
            false => std::fs::copy(&path, &to).map(|_| ()).unwrap(),
        }
    }
}
