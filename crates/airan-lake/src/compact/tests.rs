use std::collections::BTreeSet;
use std::path::Path as FsPath;

use airan_model::identity;
use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::faults::{Fault, FaultyStore, Op};
use crate::testing::{
    SECOND, TOPIC, assert_sound, claim, clock, commit, faulty_local, faulty_object, ids, local, noise, over, raw, rows,
    times, windows,
};
use crate::writer::ShardWriter;

/// Long after every row of the tests.
fn now() -> Micros {
    clock().now()
}

/// `commits` files of ten rows each, all of one day.
async fn small_files(writer: &mut ShardWriter, from: i64, commits: i64) {
    for at in from..from + commits {
        writer.commit(&commit(at + 1, vec![rows("host", at * 10..at * 10 + 10)])).await.unwrap();
    }
}

async fn compact(lake: &Lake) -> CompactReport {
    let report = lake.compact(None, now(), |_| {}).await.unwrap();
    assert!(report.failures.is_empty(), "{report:?}");
    report
}

async fn by_sql(context: &SessionContext, sql: &str) -> Vec<i64> {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn session(lake: &Lake) -> SessionContext {
    let context = SessionContext::new();
    lake.register(&context).await.unwrap();
    context
}

/// The `id`s of all rows of `host` that a glob over a local lake meets, sorted.
fn globbed(folder: &FsPath) -> Vec<i64> {
    let mut found = Vec::new();
    let dates = std::fs::read_dir(folder.join("host")).unwrap().map(|entry| entry.unwrap().path());
    for date in dates.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("date=")) {
        for file in std::fs::read_dir(date).unwrap().map(|entry| entry.unwrap().path()) {
            assert_eq!(file.extension().unwrap(), "parquet");
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap()).unwrap();
            for batch in reader.build().unwrap() {
                found.extend(batch.unwrap()["id"].as_primitive::<Int64Type>().values().iter().copied());
            }
        }
    }
    found.sort_unstable();
    found
}

/// Scenario: twenty commits; a query is registered; compaction; more commits; another compaction.
/// Guarantees: S1; rows are the same for SQL, the rebuild of windows and a glob, in one file; the query registered before
/// still reads what it saw; what is merged is not merged again for nothing.
#[tokio::test]
async fn small_files_become_one_and_no_reader_notices() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    let mut writer = claim(&lake).await;
    small_files(&mut writer, 0, 20).await;
    let all: Vec<i64> = (0..200).collect();
    let before = session(&lake).await;
    let planned = lake.plan_compaction(None, now()).await.unwrap();
    assert!(planned.is_empty(), "what is not published is not planned: {planned:?}");
    let report = compact(&lake).await;
    assert_eq!((report.merges, report.files_in, report.rows_in, report.rows_out), (1, 20, 200, 200));
    assert_eq!((lake.metrics().compactions.get(), lake.metrics().compacted_files.get()), (1, 20));
    let sql = "SELECT id FROM host ORDER BY id";
    assert_eq!(by_sql(&before, sql).await, all, "the snapshot of before");
    assert_eq!(by_sql(&session(&lake).await, sql).await, all);
    assert_eq!(ids(&lake, "host").await, all);
    assert_eq!(globbed(folder.path()), all);
    let files = lake.files("host").await.unwrap();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!((file.rows, file.partition, file.n, file.min_ts, file.max_ts), (200, None, None, 0, 199 * SECOND));
    assert_sound(&lake).await;
    assert_eq!(compact(&lake).await, CompactReport::default());

    small_files(&mut writer, 20, 20).await;
    compact(&lake).await;
    let all: Vec<i64> = (0..400).collect();
    assert_eq!((ids(&lake, "host").await, globbed(folder.path())), (all.clone(), all));
    assert_eq!(by_sql(&before, sql).await, (0..200).collect::<Vec<_>>(), "still the snapshot of before");
    assert_sound(&lake).await;
}

/// Scenario: every write of a compaction fails, before it is done or after, on a local disk and in an object store, of files that
/// commits made and of late ones beside a merged one; the process is then another one.
/// Guarantees: S1; at no step is a row lost or doubled, for no reader; the next pass finishes.
#[tokio::test]
async fn a_failing_store_at_any_step_loses_and_doubles_nothing() {
    let all: Vec<i64> = (0..50).collect();
    let is_either = [false, true].into_iter();
    let cases = is_either.clone().flat_map(|is_local| is_either.clone().map(move |is_late| (is_local, is_late)));
    for (op, part) in
        [(Op::Put, "compact-"), (Op::Put, "_delta_log"), (Op::Copy, "compact-"), (Op::Delete, "host/date")]
    {
        for fault in [Fault::Before, Fault::After] {
            for (is_local, is_late) in cases.clone() {
                let folder = tempfile::tempdir().unwrap();
                let (lake, store) = if is_local { faulty_local(folder.path()) } else { faulty_object() };
                let mut writer = claim(&lake).await;
                small_files(&mut writer, 0, 4).await;
                if is_late {
                    compact(&lake).await;
                }
                small_files(&mut writer, 4, 1).await;
                lake.publish(now()).await.unwrap();
                store.next(1, op, part, fault);
                let _ = lake.compact(None, now(), |_| {}).await;
                let is_met = store.heal() == 0;
                assert!(is_met || !is_local, "{op:?} {part} was not met");
                let case = format!("{op:?} {part} {fault:?} {is_local} {is_late}");
                assert_eq!(ids(&lake, "host").await, all, "{case}");
                let other = if is_local { local(folder.path()).await } else { over(&store) };
                assert_eq!(by_sql(&session(&other).await, "SELECT id FROM host ORDER BY id").await, all, "{case}");
                compact(&other).await;
                assert_eq!(other.files("host").await.unwrap().len(), 1, "{case}");
                other.publish(now()).await.unwrap();
                assert_eq!(ids(&other, "host").await, all, "{case}");
                if is_local {
                    assert_eq!(globbed(folder.path()), all, "{case}");
                }
            }
        }
    }
}

/// Scenario: a writer, a publisher and three compactions at once, each a process of its own, over one store.
/// Guarantees: S1; every row once at each moment somebody looks, and at the end; whoever is beaten gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_publishers_and_compactions_do_not_disturb_each_other() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    small_files(&mut writer, 0, 10).await;
    let write = async move {
        small_files(&mut writer, 10, 30).await;
        writer
    };
    let publish = {
        let lake = over(&store);
        async move {
            for _ in 0..20 {
                lake.publish(now()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    };
    let compactions: Vec<_> = (0..3)
        .map(|_| {
            let lake = over(&store);
            tokio::spawn(async move {
                for _ in 0..6 {
                    let report = lake.compact(None, now(), |_| {}).await.unwrap();
                    assert!(report.failures.is_empty(), "{report:?}");
                    let found = ids(&lake, "host").await;
                    assert!(found.len() >= 100 && found.iter().copied().eq(0..found.len() as i64), "{}", found.len());
                }
            })
        })
        .collect();
    let (writer, publish) = (tokio::spawn(write), tokio::spawn(publish));
    let _writer = writer.await.unwrap();
    publish.await.unwrap();
    for compaction in compactions {
        compaction.await.unwrap();
    }
    compact(&lake).await;
    assert_eq!(ids(&lake, "host").await, (0..400).collect::<Vec<_>>());
    assert_eq!(lake.files("host").await.unwrap().len(), 1);
    assert_sound(&lake).await;
}

/// Scenario: between the writing of the new file and its commit, retention takes one of the inputs out.
/// Guarantees: S1; the merge gives way and its file goes: rows that were taken out do not come back.
#[tokio::test]
async fn an_input_that_is_taken_out_meanwhile_does_not_come_back() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    small_files(&mut writer, 0, 4).await;
    lake.publish(now()).await.unwrap();
    let delta = DeltaTable::load(&lake, "host").await.unwrap().unwrap();
    let inputs: Vec<Live> = delta.files().cloned().collect();
    let schema = schema::load(lake.store(), "host").await.unwrap().unwrap();
    let mut other = DeltaTable::load(&over(&store), "host").await.unwrap().unwrap();
    let remove = vec![inputs[0].file.path.clone()];
    other.commit(Change { operation: "expire", remove, ..Change::default() }, now()).await.unwrap();
    let done = lake.replace("compact", "host", &schema, &inputs, &merge_rules(&schema, 256 << 20)).await;
    assert!(matches!(done, Err(ReplaceError::Beaten)), "{done:?}");
    assert_eq!(ids(&lake, "host").await.len(), 30);
    let listed = lake.store().list(&Path::from("host")).await.unwrap();
    assert!(listed.iter().all(|meta| !meta.location.as_ref().contains(layout::REWRITTEN)), "{listed:?}");
}

/// Scenario: rows of two partitions of one topic are merged into one file.
/// Guarantees: the rebuild of each partition's windows still finds its own rows and no other's.
#[tokio::test]
async fn each_partition_finds_its_rows_in_a_shared_file() {
    let (lake, _) = faulty_object();
    let mut sites: [Vec<String>; 2] = Default::default();
    for name in (0..40).map(|at| format!("site-{at}")) {
        sites[usize::try_from(identity::partition_of(&name, 2)).unwrap()].push(name);
    }
    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for (partition, sites) in (0..2).zip(&sites) {
        let mut writer = lake.claim(TOPIC, partition, 2).await.unwrap().0;
        for n in 0..3i64 {
            let ids: Vec<i64> = (0..sites.len() as i64).map(|at| i64::from(partition) * 1_000 + n * 100 + at).collect();
            expected[partition as usize].extend(ids.iter().copied());
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(sites));
            let at = times(&vec![n * SECOND; sites.len()]);
            let rows = raw("host", &[("ts", at), ("site", names), ("id", Arc::new(Int64Array::from(ids)))]);
            writer.commit(&commit(n + 1, vec![rows])).await.unwrap();
        }
    }
    assert_eq!(compact(&lake).await.files_in, 6);
    assert_eq!(lake.files("host").await.unwrap().len(), 1);
    for partition in 0..2 {
        let found: Vec<_> =
            lake.raw_rows(TOPIC, partition, "host", Micros::MIN).await.unwrap().try_collect().await.unwrap();
        let found: Vec<i64> =
            found.iter().flat_map(|batch| batch["id"].as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(found.len(), expected[partition as usize].len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected[partition as usize]);
    }
}

/// Scenario: a window table with restated results over several commits, one of them after the compaction.
/// Guarantees: the view of the newest revisions is the same before and after; older revisions beside newer ones are gone, and
/// that is a change of data, while the merging of raw rows is none.
#[tokio::test]
async fn compaction_of_windows_changes_no_newest_result() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    let revisions = [
        windows("w", &[(0, Some("a"), 1, 0), (60, Some("a"), 2, 0), (0, Some("b"), 3, 0)]),
        windows("w", &[(0, Some("a"), 4, 1)]),
        windows("w", &[(60, Some("a"), 5, 1), (60, Some("b"), 6, 0)]),
    ];
    for (at, rows) in (0..).zip(revisions) {
        let host = crate::testing::rows("host", at * 10..at * 10 + 10);
        writer.commit(&commit(at + 1, vec![rows, host])).await.unwrap();
    }
    let latest = "SELECT value FROM w_latest ORDER BY value";
    assert_eq!(by_sql(&session(&lake).await, latest).await, [3, 4, 5, 6]);
    let report = compact(&lake).await;
    assert_eq!((report.merges, report.rows_in, report.rows_out), (2, 36, 34));
    assert_eq!(by_sql(&session(&lake).await, latest).await, [3, 4, 5, 6]);
    assert_eq!(by_sql(&session(&lake).await, "SELECT value FROM w ORDER BY value").await, [3, 4, 5, 6]);
    writer.commit(&commit(9, vec![windows("w", &[(0, Some("b"), 7, 1)])])).await.unwrap();
    assert_eq!(by_sql(&session(&lake).await, latest).await, [4, 5, 6, 7]);
    for (table, changes) in [("w", true), ("host", false)] {
        let log = newest_commit(&store, table).await;
        assert!(log.contains("\"COMPACT\""), "{log}");
        assert_eq!(log.contains("\"dataChange\":true"), changes, "{table}: {log}");
    }
}

async fn newest_commit(store: &Arc<FaultyStore>, table: &str) -> String {
    let lake = over(store);
    let mut log = lake.store().list(&layout::delta_log(table)).await.unwrap();
    log.sort_by(|a, b| a.location.cmp(&b.location));
    let newest = log.last().unwrap().location.clone();
    String::from_utf8(lake.store().read(&newest).await.unwrap().unwrap().to_vec()).unwrap()
}

/// Scenario: one input is not what the Delta log says of it.
/// Guarantees: the damage is reported and stays where it is: no new file hides it.
#[tokio::test]
async fn a_damaged_input_is_not_compacted_away() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    let mut writer = claim(&lake).await;
    small_files(&mut writer, 0, 3).await;
    lake.publish(now()).await.unwrap();
    let victim = folder.path().join(&lake.files("host").await.unwrap()[1].path);
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let report = lake.compact(None, now(), |_| {}).await.unwrap();
    assert_eq!(report.merges, 0);
    let [(table, reason)] = &report.failures[..] else { panic!("{report:?}") };
    assert!(table == "host" && reason.contains("checksum"), "{reason}");
    assert_eq!(lake.files("host").await.unwrap().len(), 3);
}

/// Scenario: a merge is frozen between the writing of its file and its commit; a day passes, and vacuum runs; then it wakes
/// up: once with a clock that stood still with it, once with one that went on.
/// Guarantees: S1; its file is deleted, and it can never name it: its version is taken, or it finds itself too late.
#[tokio::test]
async fn a_merge_that_wakes_up_after_a_day_cannot_name_its_file() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    small_files(&mut writer, 0, 4).await;
    lake.publish(now()).await.unwrap();
    let mut frozen = DeltaTable::load(&lake, "host").await.unwrap().unwrap();
    let inputs: Vec<Live> = frozen.files().cloned().collect();
    let like = inputs[0].clone();
    let place = rewritten_place("host", like.date);
    lake.store().create(&place, "rows".into()).await.unwrap();
    let later = airan_model::time::Clock::system().now() + 25 * HOUR;
    let vacuumed = over(&store).vacuum(later, None).await.unwrap();
    assert_eq!(vacuumed.orphans, 1);
    assert_eq!(lake.store().size(&place).await.unwrap(), None);
    let (path, checksum) = (place, Checksum::of(b"rows"));
    let made = Rewritten { path, rows: 40, bytes: 4, min_ts: 0, max_ts: 1, checksum, span: None };
    let add = as_live("host", &like, 0, &made);
    let files: Vec<String> = inputs.iter().map(|live| live.file.path.clone()).collect();
    let change = Change { operation: "compact", add: vec![add.clone()], remove: files.clone(), ..Change::default() };
    let beaten = frozen.commit(change, now()).await;
    assert!(matches!(beaten, Err(DeltaError::Conflict { .. })), "{beaten:?}");
    let replaced = Replaced { files, rows_in: 40, bytes_in: 4, made: vec![made] };
    let begun = now() - GIVE_UP_AFTER - 1;
    let swap = Swap { operation: "compact", table: "host", replaced: &replaced, add: vec![add], begun };
    assert!(matches!(lake.swap(&swap).await, Err(ReplaceError::Beaten)));
    assert_eq!(ids(&lake, "host").await, (0..40).collect::<Vec<_>>());
    assert_sound(&lake).await;
}

/// A lake that makes files of at most `target` bytes, over `store`.
fn sized(store: &Arc<FaultyStore>, target: u64) -> Lake {
    let mut settings = crate::testing::settings(FsPath::new("memory"));
    settings.compaction.target_bytes = target.into();
    Lake::over(crate::store::Store::over(Arc::clone(store) as _, false), settings, clock()).unwrap()
}

/// `ROWS` rows of one instant, of eight sites, that no encoding makes much smaller.
fn noisy(ids: std::ops::Range<i64>, at: Micros) -> crate::commit::TableRows {
    let rows = (ids.end - ids.start) as usize;
    let site: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("site-{}", id % 8))));
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.map(noise)));
    raw("host", &[("ts", times(&vec![at; rows])), ("site", site), ("id", id)])
}

/// (site, ts) of the first and of the last row of each row group of each file of `host`, by their first rows; each row group is
/// sorted. And the `id`s of all rows, sorted.
async fn edges(lake: &Lake) -> (Vec<[(String, Micros); 2]>, Vec<i64>) {
    let (mut groups, mut ids) = (Vec::new(), Vec::new());
    for file in lake.files("host").await.unwrap() {
        let bytes = lake.store().read(&Path::from(file.path)).await.unwrap().unwrap();
        let count = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().metadata().num_row_groups();
        for group in 0..count {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().with_row_groups(vec![group]);
            let mut rows = Vec::new();
            for batch in reader.build().unwrap().map(Result::unwrap) {
                let (site, at) =
                    (batch["site"].as_string::<i32>(), batch["ts"].as_primitive::<TimestampMicrosecondType>());
                rows.extend((0..batch.num_rows()).map(|row| (site.value(row).to_owned(), at.value(row))));
                ids.extend(batch["id"].as_primitive::<Int64Type>().values());
            }
            assert!(rows.is_sorted(), "a row group of {}", file.table);
            groups.push([rows[0].clone(), rows[rows.len() - 1].clone()]);
        }
    }
    groups.sort();
    ids.sort_unstable();
    (groups, ids)
}

fn overlap(groups: &[[(String, Micros); 2]]) -> bool {
    groups.windows(2).any(|pair| pair[0][1] > pair[1][0])
}

/// Scenario: a hundred files of one hour that is over, more than a merge takes at once, each a hundredth of some targets; for each
/// target a lake that is told it.
/// Guarantees: the files made are as large as the setting says: none above it, all at least half of it, as many as the bytes ask for;
/// neither they nor their row groups overlap by (site, time); each row is in one.
#[tokio::test]
async fn the_files_made_are_of_the_size_that_is_set_and_do_not_overlap() {
    const FILES: i64 = 100;
    const ROWS: i64 = 1_000;
    for target in [128u64 << 10, 300 << 10, 2 << 20] {
        let lake = sized(&FaultyStore::in_memory(), target);
        let mut writer = claim(&lake).await;
        for at in 0..FILES {
            let rows = noisy(at * ROWS..(at + 1) * ROWS, at * SECOND);
            writer.commit(&commit(at + 1, vec![rows])).await.unwrap();
        }
        lake.publish(now()).await.unwrap();
        let before: u64 = lake.files("host").await.unwrap().iter().map(|file| file.bytes).sum();
        assert!((before / FILES as u64) < target / 4, "small files");
        assert!(overlap(&edges(&lake).await.0));
        let report = compact(&lake).await;
        assert_eq!((report.rows_in >= (FILES * ROWS) as u64, report.rows_in), (true, report.rows_out));
        let files = lake.files("host").await.unwrap();
        let sizes: Vec<u64> = files.iter().map(|file| file.bytes).collect();
        let count = files.len() as u64;
        let is_large = |bytes: &u64| (*bytes >= target / 2 || count == 1) && *bytes <= target;
        assert!(sizes.iter().all(is_large), "{sizes:?} of {target}");
        let after: u64 = sizes.iter().sum();
        assert!((after.div_ceil(target)..=after / (target / 2) + 1).contains(&count), "{sizes:?} of {target}");
        let (groups, ids) = edges(&lake).await;
        assert!(!overlap(&groups), "{groups:?}");
        let mut expected: Vec<i64> = (0..FILES * ROWS).map(noise).collect();
        expected.sort_unstable();
        assert!(ids == expected, "each row once");
        assert_sound(&lake).await;
        assert_eq!(compact(&lake).await, CompactReport::default());
    }
}

/// Scenario: an hour is merged into several files; then rows of it come late: few of one site, more of that site, many of all.
/// Guarantees: few stay in files of their own; where they are an eighth of the file they overlap, that one alone is written anew,
/// and in the end nothing overlaps; each row is in one file. All of it survives a checkpoint of the log.
#[tokio::test]
async fn late_rows_are_merged_into_what_they_overlap() {
    const FILES: i64 = 20;
    const ROWS: i64 = 10_000;
    let target = 512u64 << 10;
    let lake = sized(&FaultyStore::in_memory(), target);
    let mut writer = claim(&lake).await;
    for at in 0..FILES {
        let rows = noisy(at * ROWS..(at + 1) * ROWS, at * SECOND);
        writer.commit(&commit(at + 1, vec![rows])).await.unwrap();
    }
    compact(&lake).await;
    let merged: BTreeSet<String> = lake.files("host").await.unwrap().into_iter().map(|file| file.path).collect();
    assert!(merged.len() >= 3 && !overlap(&edges(&lake).await.0));
    let (mut next, mut n) = (FILES * ROWS, FILES);
    let mut expected: Vec<i64> = (0..next).map(noise).collect();
    // (rows, of one site alone)
    for (rows, is_one, stay) in [(1_000, true, merged.len()), (8_000, true, merged.len() - 1), (60_000, false, 0)] {
        for part in 0..2 {
            let ids: Vec<i64> = (next..next + rows / 2).collect();
            next += rows / 2;
            expected.extend(ids.iter().map(|id| noise(*id)));
            let site = |id: i64| format!("site-{}", if is_one { 0 } else { id % 8 });
            let site: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|id| site(*id))));
            let at = times(&ids.iter().map(|id| (id % FILES) * SECOND + part).collect::<Vec<_>>());
            let id: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| noise(*id))));
            let late = raw("host", &[("ts", at), ("site", site), ("id", id)]);
            n += 1;
            writer.commit(&commit(n, vec![late])).await.unwrap();
        }
        lake.publish(now()).await.unwrap();
        assert!(overlap(&edges(&lake).await.0), "late rows overlap");
        compact(&lake).await;
        let files = lake.files("host").await.unwrap();
        let stayed = files.iter().filter(|file| merged.contains(&file.path)).count();
        assert_eq!(stayed, stay, "after {rows} rows: {files:?}");
        let (groups, ids) = edges(&lake).await;
        assert_eq!(overlap(&groups), stay == merged.len(), "after {rows} rows");
        expected.sort_unstable();
        assert!(ids == expected, "each row once");
        assert_eq!(compact(&lake).await, CompactReport::default());
        assert_sound(&lake).await;
    }
    let sizes: Vec<u64> = lake.files("host").await.unwrap().iter().map(|file| file.bytes).collect();
    assert!(sizes.iter().all(|bytes| (target / 2..=target).contains(bytes)), "{sizes:?}");
}
