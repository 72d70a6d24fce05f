use std::sync::Arc;
use std::time::Duration;

use airan_model::time::DAY;
use arrow::array::{ArrayRef, Int64Array};
use proptest::prelude::*;

use super::*;
use crate::commit::TableRows;
use crate::faults::{Fault, FaultyStore, Op};
use crate::layout::Shard;
use crate::record::{self, Record};
use crate::seal::seal;
use crate::settings::LakeSettings;
use crate::settle::HELD_FOR;
use crate::store::Store;
use crate::testing::{
    SECOND, TOPIC, assert_sound, claim, clock, commit, faulty_object, ids, raw, settings, times, windows,
};
use object_store::path::Path;

/// The same store under another retention.
fn keeping(store: &Arc<FaultyStore>, change: impl FnOnce(&mut LakeSettings)) -> Lake {
    let mut settings = settings(std::path::Path::new("memory"));
    change(&mut settings);
    Lake::over(Store::over(Arc::clone(store) as _, false), settings, clock()).unwrap()
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

/// One row per time, its `id` the time in seconds.
fn at(table: &str, at: &[Micros]) -> TableRows {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(at.iter().map(|at| at / SECOND)));
    raw(table, &[("ts", times(at)), ("id", id)])
}

/// Scenario: raw rows and windows of ten dates; raw rows are kept three days, windows eight.
/// Guarantees: what is older goes, by kind; records of which nothing is left go too; a second pass finds nothing; the shard
/// goes on.
#[tokio::test]
async fn rows_older_than_their_kinds_retention_go() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    for date in 0..10 {
        let window = windows("w", &[(date * 86_400, Some("a"), 1, 0)]);
        writer.commit(&commit(date + 1, vec![at("t", &[date * DAY, date * DAY + SECOND]), window])).await.unwrap();
    }
    let lake = keeping(&store, |settings| {
        settings.raw_retention = days(3).into();
        settings.window_retention = days(8).into();
    });
    let report = lake.expire(10 * DAY, None).await.unwrap();
    assert_eq!((report.files, report.rows, report.over_bytes), (9, 16, 0));
    let kept = |files: Vec<crate::files::FileEntry>| files.iter().map(|file| file.date).collect::<Vec<_>>();
    assert_eq!(kept(lake.files("t").await.unwrap()), [7, 8, 9]);
    assert_eq!(kept(lake.files("w").await.unwrap()), (2..10).collect::<Vec<_>>());
    assert_eq!(lake.metrics().expired_files.get(), 9);
    let bytes: u64 =
        [lake.files("t").await.unwrap(), lake.files("w").await.unwrap()].concat().iter().map(|f| f.bytes).sum();
    assert_eq!(report.kept_bytes, bytes);
    // All are published; the claim and the newest record stay.
    assert_eq!(report.records, 9);
    let again = lake.expire(10 * DAY, None).await.unwrap();
    assert_eq!(again, ExpireReport { kept_bytes: bytes, held_bytes: report.bytes, ..ExpireReport::default() });
    let later = lake.expire(10 * DAY + HELD_FOR, None).await.unwrap();
    assert_eq!((later.files, later.vacuumed, later.held_bytes), (2, 9, later.bytes));
    writer.commit(&commit(11, vec![at("t", &[10 * DAY])])).await.unwrap();
    assert_eq!(ids(&lake, "t").await.len(), 5);
    assert_sound(&lake).await;
}

/// Scenario: a lake above its bound in bytes, with an open window in the middle of its dates.
/// Guarantees: the oldest dates go first, raw rows before windows of the same date; raw rows that an open window needs stay
/// although the bound is then missed, which is told.
#[tokio::test]
async fn above_the_bound_the_oldest_go_and_open_windows_keep_their_rows() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    for date in 0..6 {
        let window = windows("w", &[(date * 86_400, Some("a"), 1, 0)]);
        writer.commit(&commit(date + 1, vec![at("t", &[date * DAY]), window])).await.unwrap();
    }
    let files = [lake.files("t").await.unwrap(), lake.files("w").await.unwrap()].concat();
    let all: u64 = files.iter().map(|file| file.bytes).sum();
    let first = lake.files("t").await.unwrap()[0].bytes;
    let dates = |files: Vec<crate::files::FileEntry>| files.iter().map(|file| file.date).collect::<Vec<_>>();

    let lake = keeping(&store, |settings| settings.max_bytes = Some((all - first).into()));
    let report = lake.expire(6 * DAY, Some(4 * DAY)).await.unwrap();
    assert_eq!((report.files, report.over_bytes), (1, 0));
    assert_eq!(dates(lake.files("t").await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(dates(lake.files("w").await.unwrap()), [0, 1, 2, 3, 4, 5]);

    let lake = keeping(&store, |settings| settings.max_bytes = Some(1u64.into()));
    let report = lake.expire(6 * DAY, Some(4 * DAY)).await.unwrap();
    assert_eq!(dates(lake.files("t").await.unwrap()), [4, 5], "needed from date 4 on");
    assert_eq!(
        dates(lake.files("w").await.unwrap()),
        [0, 1, 2, 3, 4, 5],
        "no window goes for a bound that cannot be kept"
    );
    assert_eq!(report.over_bytes, report.kept_bytes - 1);
    let report = lake.expire(6 * DAY, None).await.unwrap();
    assert_eq!((report.kept_bytes, dates(lake.files("t").await.unwrap())), (0, vec![]));
    assert_sound(&lake).await;
    let (_, recovered) = lake.claim(TOPIC, 0, 1).await.unwrap();
    assert_eq!(recovered.unwrap().next_offset, 6, "progress is no row");
}

/// Scenario: a pass fails before or after each of its steps.
/// Guarantees: S1; the files count until the Delta commit is there and not from then on; the next pass finishes.
#[tokio::test]
async fn a_pass_that_died_is_finished_by_the_next() {
    for (op, part) in [(Op::Put, "_delta_log/"), (Op::Get, "_delta_log/"), (Op::Get, "_schemas/")] {
        for fault in [Fault::Before, Fault::After] {
            let what = format!("{op:?} {part} {fault:?}");
            let (lake, store) = faulty_object();
            let mut writer = claim(&lake).await;
            for date in 0..4 {
                writer.commit(&commit(date + 1, vec![at("t", &[date * DAY])])).await.unwrap();
            }
            lake.publish(4 * DAY).await.unwrap();
            let lake = keeping(&store, |settings| settings.raw_retention = days(2).into());
            store.next(1, op, part, fault);
            let _ = lake.expire(4 * DAY, None).await;
            store.heal();
            let counted = lake.files("t").await.unwrap().len();
            assert!(counted == 4 || counted == 2, "{what}: {counted}");
            lake.expire(4 * DAY, None).await.unwrap();
            assert_eq!((lake.files("t").await.unwrap().len(), store_files(&lake).await), (2, 4), "{what}: held");
            store.next(1, Op::Delete, ".parquet", fault);
            assert!(lake.vacuum(4 * DAY + HELD_FOR, None).await.is_err(), "{what}");
            assert_eq!((lake.files("t").await.unwrap().len(), store_files(&lake).await), (2, 4), "{what}");
            lake.vacuum(4 * DAY + HELD_FOR, None).await.unwrap();
            assert_eq!((lake.files("t").await.unwrap().len(), store_files(&lake).await), (2, 2), "{what}");
            assert_sound(&lake).await;
        }
    }
}

async fn store_files(lake: &Lake) -> usize {
    let listed = lake.store().list(&Path::from("t")).await.unwrap();
    listed.iter().filter(|meta| meta.location.as_ref().ends_with(".parquet")).count()
}

/// Scenario: two processes apply the retention at the same time.
/// Guarantees: each file is taken out once, and what the stricter one keeps is what is left.
#[tokio::test]
async fn two_passes_take_each_file_out_once() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    for date in 0..4 {
        writer.commit(&commit(date + 1, vec![at("t", &[date * DAY])])).await.unwrap();
    }
    let passes = [1u64, 2].map(|keep| keeping(&store, |settings| settings.raw_retention = days(keep).into()));
    let (first, second) = tokio::join!(passes[0].expire(4 * DAY, None), passes[1].expire(4 * DAY, None));
    let (first, second) = (first.unwrap(), second.unwrap());
    let left = lake.files("t").await.unwrap().len() as u64;
    assert_eq!((first.files + second.files, left), (3, 1), "{first:?} {second:?}");
    assert_sound(&lake).await;
}

/// Scenario: an object store with files of an owner that died before its record, of one that is at work, and of strangers.
/// Guarantees: only what no record can name any more goes, and only after a day.
#[tokio::test]
async fn files_of_dead_writers_go_from_object_stores_after_a_day() {
    let (lake, store) = faulty_object();
    let mut dead = claim(&lake).await;
    store.next(1, Op::Put, "_commits/", Fault::Before);
    assert!(dead.commit(&commit(9, vec![at("t", &[9 * SECOND])])).await.is_err());
    let mut owner = claim(&lake).await;
    owner.commit(&commit(1, vec![at("t", &[SECOND])])).await.unwrap();
    // At work: its files are there, its record is not yet.
    store.next(1, Op::Put, "_commits/", Fault::Before);
    assert!(owner.commit(&commit(2, vec![at("t", &[2 * SECOND])])).await.is_err());
    lake.store().create(&Path::from("t/date=1970-01-01/notes.parquet"), "mine".into()).await.unwrap();
    assert_eq!((store_files(&lake).await, lake.check().await.unwrap().orphans), (4, 1));

    let listed = lake.store().list(&Path::from("t")).await.unwrap();
    let oldest: Micros = listed.iter().map(|meta| meta.last_modified.timestamp_micros()).min().unwrap();
    assert_eq!(lake.expire(oldest, None).await.unwrap().orphans, 0, "too young");
    assert_eq!(lake.expire(oldest + 2 * DAY, None).await.unwrap().orphans, 1);
    owner.commit(&commit(2, vec![at("t", &[2 * SECOND])])).await.unwrap();
    assert_eq!(ids(&lake, "t").await, [1, 2]);
    assert_eq!(store_files(&lake).await, 3);
    assert_sound(&lake).await;
}

/// Not a test: prints what records and Delta cost readers and publishers, over 5,000 records of eight files, a bit under a day of
/// one busy shard at 15 s. `cargo test --release -p airan -p airan-lake --lib records_speed -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints speeds"]
async fn records_speed() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    let tables: Vec<TableRows> = (0..8).map(|table| at(&format!("t{table}"), &[DAY])).collect();
    writer.commit(&commit(1, tables)).await.unwrap();
    let shard = Shard { topic: TOPIC.to_owned(), partition: 0 };
    let (record, _) = record::read(lake.store(), &shard, 2).await.unwrap().unwrap();
    for n in 3..5_000u64 {
        let mut copy = Record { n, ..record.clone() };
        for file in &mut copy.files {
            file.path = file.path.replace("00000000000000000002", &format!("{n:020}"));
        }
        lake.store().overwrite(&shard.record(n), seal(&copy).unwrap()).await.unwrap();
    }
    let fresh = || crate::testing::over(&store);
    let timed = |what: &'static str, start: std::time::Instant| println!("{what}: {:?}", start.elapsed());
    for round in 0..2 {
        let (reader, start) = (fresh(), std::time::Instant::now());
        let files = reader.files("t0").await.unwrap().len();
        timed(if round == 0 { "files, from records" } else { "files, from Delta" }, start);
        let start = std::time::Instant::now();
        reader.files("t0").await.unwrap();
        timed("the same again", start);
        let (publisher, start) = (fresh(), std::time::Instant::now());
        let report = publisher.publish(2 * DAY).await.unwrap();
        timed("publish", start);
        println!("{files} files of one table; {} published, {} records trimmed", report.files, report.records);
        let start = std::time::Instant::now();
        publisher.publish(2 * DAY).await.unwrap();
        timed("publish nothing", start);
        let mut delta = DeltaTable::load(&publisher, "t0").await.unwrap().unwrap();
        let start = std::time::Instant::now();
        delta.checkpoint(2 * DAY).await.unwrap();
        timed("checkpoint of one table", start);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Scenario: commits of rows of any times, in any order, of two shards; retention by age and bytes, open windows from any
    /// time on, passes in between.
    /// Guarantees: no raw row at or after the start of the oldest open window ever goes; what goes by age alone is past its
    /// age; the bound is met or what it is missed by is told; the lake stays sound.
    #[test]
    fn rows_that_open_windows_need_never_go(
        commits in prop::collection::vec((0..2i32, prop::collection::vec(0..12i64, 1..4)), 1..12),
        keep in 0..12u64, needed in prop::option::of(0..12i64), bound in prop::option::of(0..20_000u64), every in 1..5usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (lake, store) = faulty_object();
            let mut writers = [lake.claim(TOPIC, 0, 2).await.unwrap().0, lake.claim(TOPIC, 1, 2).await.unwrap().0];
            let lake = keeping(&store, |settings| {
                settings.raw_retention = days(keep).into();
                settings.max_bytes = bound.map(Into::into);
            });
            let now = 12 * DAY;
            let needed = needed.map(|half_days| half_days * DAY / 2);
            let mut all: Vec<Micros> = Vec::new();
            for (number, (shard, half_days)) in commits.into_iter().enumerate() {
                let rows: Vec<Micros> = half_days.iter().map(|half| half * DAY / 2 + SECOND).collect();
                writers[shard as usize].commit(&commit(number as i64, vec![at("t", &rows)])).await.unwrap();
                all.extend(rows);
                if number % every == 0 {
                    lake.expire(now, needed).await.unwrap();
                }
            }
            let report = lake.expire(now, needed).await.unwrap();
            let mut left = Vec::new();
            for partition in 0..2 {
                let batches: Vec<arrow::array::RecordBatch> = futures::TryStreamExt::try_collect(
                    lake.raw_rows(TOPIC, partition, "t", Micros::MIN).await.unwrap()).await.unwrap();
                for batch in batches {
                    let times = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(&batch["ts"]);
                    left.extend(times.values().iter().copied());
                }
            }
            let count = |times: &[Micros], which: &dyn Fn(Micros) -> bool| times.iter().filter(|at| which(**at)).count();
            if let Some(needed) = needed {
                assert_eq!(count(&left, &|at| at >= needed), count(&all, &|at| at >= needed), "needed rows went");
            }
            if bound.is_none() {
                let youngest = now - i64::try_from(keep).unwrap() * DAY;
                assert_eq!(count(&left, &|at| at >= youngest), count(&all, &|at| at >= youngest), "young rows went");
            }
            let files = lake.files("t").await.unwrap();
            let bytes: u64 = files.iter().map(|file| file.bytes).sum();
            assert_eq!(report.kept_bytes, bytes);
            assert_eq!(report.over_bytes, bytes.saturating_sub(bound.unwrap_or(u64::MAX)));
            if report.over_bytes > 0 {
                assert!(needed.is_some_and(|needed| files.iter().any(|file| file.max_ts >= needed)), "free files stayed");
            }
            lake.vacuum(now + HELD_FOR, None).await.unwrap();
            assert_eq!(store_files(&lake).await, files.len());
            assert_sound(&lake).await;
        });
    }
}
