use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use object_store::path::Path;

use super::*;
use crate::commit::TableRows;
use crate::faults::{Fault, FaultyStore, Op};
use crate::testing::{
    SECOND, WindowRow, assert_sound, claim, clock, commit, faulty_local, faulty_object, ids, local, over, raw, rows,
    times, windows,
};

/// Rows of sites 0 and 1 below this, of three in a cycle.
const GONE: &str = "site = 's1' AND id < 50";

fn now() -> Micros {
    clock().now()
}

fn left(ids: Range<i64>) -> Vec<i64> {
    ids.filter(|id| !(id % 3 == 1 && *id < 50)).collect()
}

/// A table without `id`.
fn link() -> TableRows {
    let site: ArrayRef = Arc::new(StringArray::from(vec!["s1", "s1"]));
    raw("link", &[("ts", times(&[0, 1])), ("site", site)])
}

/// The same with the end of each window, a minute after its start.
fn minutes(results: &[WindowRow<'_>]) -> TableRows {
    let ends: Vec<Micros> = results.iter().map(|row| (row.0 + 60) * SECOND).collect();
    let mut rows = windows("w", results);
    let batch = &rows.batches[0];
    let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let columns = names.into_iter().zip(batch.columns().to_vec()).chain([("window_end".to_owned(), times(&ends))]);
    rows.batches = vec![RecordBatch::try_from_iter(columns).unwrap()];
    rows
}

/// The same, saying that no group is left.
fn emptied(results: &[WindowRow<'_>]) -> RecordBatch {
    let batch = minutes(results).batches.remove(0);
    let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let says_so: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true; results.len()]));
    let columns = names.into_iter().zip(batch.columns().to_vec()).chain([("emptied".to_owned(), says_so)]);
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn ten_commits(lake: &Lake) {
    let mut writer = claim(lake).await;
    for at in 0..10 {
        let mut tables = vec![rows("host", at * 10..at * 10 + 10)];
        if at == 0 {
            tables.push(link());
        }
        writer.commit(&commit(at + 1, tables)).await.unwrap();
    }
}

/// An erasure of raw rows from its beginning.
async fn erase(lake: &Lake, condition: &str) -> Result<(Erasure, EraseReport), EraseError> {
    let mut erasure = lake.begin_erasure(condition, &[], now()).await?;
    let report = lake.erase(&mut erasure, now(), |_| {}).await?;
    Ok((erasure, report))
}

async fn by_sql(lake: &Lake, sql: &str) -> Vec<i64> {
    let context = SessionContext::new();
    lake.register(&context).await.unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// Every Parquet byte that Delta, its held names, or a glob can still lead to, below `folder`.
fn parquet_files(folder: &FsPath) -> usize {
    let mut open = vec![folder.join("host")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.path().to_str().unwrap().to_owned();
            match entry.file_type().unwrap().is_dir() {
                true if !name.contains("_delta_log") => open.push(entry.path()),
                true => {}
                false => files += 1,
            }
        }
    }
    files
}

/// Scenario: rows of one site and some ids are erased; a query was registered before; another table lacks a column; then the
/// same again, and a vacuum that spares nothing.
/// Guarantees: exactly the rows of which the condition is true are gone, from SQL, the rebuild of windows and a glob; the report
/// says what went; what was skipped is said; a plan says the same before and changes nothing; a repetition finds nothing; readers
/// at work keep their snapshot until the old files are purged.
#[tokio::test]
async fn rows_of_which_the_condition_is_true_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    ten_commits(&lake).await;
    lake.publish(now()).await.unwrap();
    let before = SessionContext::new();
    lake.register(&before).await.unwrap();
    let planned = lake.plan_erasure(&lake.begin_erasure(GONE, &[], now()).await.unwrap()).await.unwrap();
    assert_eq!(ids(&lake, "host").await, (0..100).collect::<Vec<_>>());
    let (erasure, report) = erase(&lake, GONE).await.unwrap();
    assert_eq!(planned, report);
    assert_eq!(report.skipped, [("link".to_owned(), "id".to_owned())]);
    let [host] = &report.tables[..] else { panic!("{report:?}") };
    assert_eq!((host.rows, host.files, host.span), (17, 5, Some((SECOND, 49 * SECOND))));
    assert_eq!(host.sites, BTreeSet::from(["s1".to_owned()]));
    assert_eq!(erasure.affected["host"], Affected::from([("s1".to_owned(), vec![(SECOND, 49 * SECOND + 1)])]));
    assert_eq!(ids(&lake, "host").await, left(0..100));
    assert_eq!(by_sql(&lake, "SELECT id FROM host ORDER BY id").await, left(0..100));
    assert_sound(&lake).await;
    let counted = before.sql("SELECT count(*) FROM host WHERE id >= 0").await.unwrap().collect().await.unwrap();
    assert_eq!(counted[0].column(0).as_primitive::<Int64Type>().values(), &[100], "the snapshot of before");
    let (_, again) = erase(&lake, GONE).await.unwrap();
    assert!(again.tables.is_empty(), "{again:?}");
    lake.finish_erasure(&erasure).await.unwrap();
    assert!(lake.erasures().await.unwrap().is_empty());
    lake.purge(now()).await.unwrap();
    // One place and one held name each: five files untouched, one of what is left of the other five.
    assert_eq!(parquet_files(folder.path()), 2 * 6);
    assert_eq!(ids(&lake, "host").await, left(0..100));
    assert_sound(&lake).await;
}

/// Scenario: conditions that cannot be asked, tables that are not there or hold windows.
/// Guarantees: each is refused in words, and nothing is written.
#[tokio::test]
async fn what_cannot_be_erased_is_refused() {
    let (lake, _) = faulty_object();
    let mut writer = claim(&lake).await;
    let empty = lake.begin_erasure("id = 1", &[], 0).await.unwrap();
    assert!(lake.plan_erasure(&empty).await.unwrap_err().to_string().contains("no raw table yet"));
    writer.commit(&commit(1, vec![rows("host", 0..9), windows("w", &[(0, Some("s0"), 1, 0)])])).await.unwrap();
    for (condition, table, words) in [
        ("site = ", None, "cannot be asked"),
        ("random() < 0.5 AND id = 1", None, "same answer"),
        ("subscriber = 'x'", None, "no table has the columns"),
        ("site = 's1'", Some("hots"), "no table `hots`"),
        ("site = 's1'", Some("w"), "holds windows"),
    ] {
        let tables: Vec<String> = table.map(str::to_owned).into_iter().collect();
        let mut erasure = lake.begin_erasure(condition, &tables, now()).await.unwrap();
        let refused = lake.erase(&mut erasure, now(), |_| {}).await.unwrap_err();
        assert!(matches!(&refused, EraseError::Wrong(why) if why.contains(words)), "{refused}");
    }
    assert!(lake.erasures().await.unwrap().is_empty());
    assert_eq!(ids(&lake, "host").await.len(), 9);
}

/// Scenario: every write of an erasure fails, before it is done or after, on a local disk and in an object store; the same is
/// then run by another process.
/// Guarantees: S1; at no step is another row lost, or one doubled; what was set out is not forgotten (the windows of rows that
/// are gone are still known); the second run finishes.
#[tokio::test]
async fn an_erasure_that_was_cut_off_anywhere_is_finished_by_the_next() {
    let all: Vec<i64> = (0..100).collect();
    for (op, part) in
        [(Op::Put, "_erasures"), (Op::Put, "compact-"), (Op::Put, "_delta_log"), (Op::Delete, "host/date")]
    {
        for fault in [Fault::Before, Fault::After] {
            for is_local in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let (lake, store) = if is_local { faulty_local(folder.path()) } else { faulty_object() };
                ten_commits(&lake).await;
                lake.publish(now()).await.unwrap();
                store.next(1, op, part, fault);
                let first = erase(&lake, GONE).await;
                let is_met = store.heal() == 0;
                let case = format!("{op:?} {part} {fault:?} {is_local}: {first:?}");
                assert!(is_met || !is_local, "not met: {case}");
                let found = ids(&lake, "host").await;
                assert!(found == all || found == left(0..100), "{found:?}: {case}");
                let other = if is_local { local(folder.path()).await } else { over(&store) };
                if found != all {
                    assert_eq!(other.erasures().await.unwrap().len(), 1, "{case}");
                }
                let (erasure, _) = erase(&other, GONE).await.unwrap();
                assert_eq!(ids(&other, "host").await, left(0..100), "{case}");
                assert_eq!(
                    erasure.affected["host"],
                    Affected::from([("s1".to_owned(), vec![(SECOND, 49 * SECOND + 1)])]),
                    "{case}"
                );
                assert_eq!(other.erasures().await.unwrap(), std::slice::from_ref(&erasure), "{case}");
                other.finish_erasure(&erasure).await.unwrap();
                if is_local {
                    assert_sound(&other).await;
                }
            }
        }
    }
}

/// Scenario: a window of each kind: restated to fewer groups, left without rows, of another site, of another hour, one that a late
/// row restates once more, and one of which somebody else's restatement says that it is left without a group; the taking out fails at its commit the first time.
/// Guarantees: of affected windows only results of the restatement stay, none where there is none; all others stay as they are;
/// the newest results that readers see are those of the restatement; a second run goes on.
#[tokio::test]
async fn results_made_of_erased_rows_go_with_their_restatement() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    let hour = 3_600;
    let old = [
        (0, Some("s1"), 1, 0),
        (60, Some("s1"), 2, 0),
        (120, Some("s1"), 3, 2),
        (0, Some("s0"), 4, 0),
        (hour, Some("s1"), 5, 0),
        (180, Some("s1"), 6, 0),
    ];
    writer.commit(&commit(1, vec![rows("host", 0..200), minutes(&old)])).await.unwrap();
    let (erasure, _) = erase(&lake, "site = 's1'").await.unwrap();
    let affected = erasure.affected_by(&["host".to_owned()]);
    assert_eq!(lake.note_windows(&erasure, "w", &affected, now()).await.unwrap(), 4);
    // The restatement: nothing for the second, one revision more for the first, two more for the third.
    let new = [(0, Some("s1"), 10, 1), (120, Some("s1"), 30, 3)];
    writer.commit(&commit(2, vec![minutes(&new)])).await.unwrap();
    let mut last = minutes(&[(120, Some("s1"), 31, 4)]);
    last.batches.push(emptied(&[(180, Some("s1"), 60, 1)]));
    writer.commit(&commit(3, vec![last])).await.unwrap();
    assert_eq!(lake.note_windows(&erasure, "w", &affected, now()).await.unwrap(), 4, "what was noted stays");
    lake.publish(now()).await.unwrap();
    store.next(1, Op::Put, "w/_delta_log", Fault::Before);
    let other = over(&store);
    let cut = other.erase_windows(&erasure, "w", &affected, now()).await;
    let done = lake.erase_windows(&erasure, "w", &affected, now()).await.unwrap();
    assert_eq!((done.restated, done.emptied, done.span), (2, 2, Some((0, 180 * SECOND))), "{cut:?}");
    let stays = "SELECT value FROM w ORDER BY value";
    assert_eq!(by_sql(&lake, stays).await, [4, 5, 10, 31]);
    assert_eq!(by_sql(&lake, "SELECT value FROM w_latest ORDER BY value").await, [4, 5, 10, 31]);
    assert_eq!(lake.erase_windows(&erasure, "w", &affected, now()).await.unwrap().rows, 0);
}

/// Scenario: a writer adds rows of the same site, and publishers, compactions and two erasures run, each a process of its own.
/// Guarantees: S1; rows the condition is not true of are there once at the end, those it is true of are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_compactions_and_erasures_do_not_disturb_each_other() {
    let (lake, store) = faulty_object();
    ten_commits(&lake).await;
    let handle = |store: &Arc<FaultyStore>| over(store);
    let write = {
        let lake = handle(&store);
        async move {
            let mut writer = claim(&lake).await;
            for at in 10..30 {
                writer.commit(&commit(at + 1, vec![rows("host", at * 10..at * 10 + 10)])).await.unwrap();
            }
        }
    };
    let mut tasks = vec![tokio::spawn(write)];
    for _ in 0..2 {
        let lake = handle(&store);
        tasks.push(tokio::spawn(async move {
            for _ in 0..6 {
                lake.publish(now()).await.unwrap();
                lake.compact(None, now(), |_| {}).await.unwrap();
            }
        }));
        let lake = handle(&store);
        tasks.push(tokio::spawn(async move {
            let mut erasure = Erasure::begin(GONE, &[], now());
            lake.erase(&mut erasure, now(), |_| {}).await.unwrap();
            lake.finish_erasure(&erasure).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (erasure, _) = erase(&lake, GONE).await.unwrap();
    lake.finish_erasure(&erasure).await.unwrap();
    assert_eq!(ids(&lake, "host").await, left(0..300));
    assert!(lake.store().list(&Path::from("_erasures")).await.unwrap().is_empty());
    assert_sound(&lake).await;
}
