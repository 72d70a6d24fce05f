use std::sync::Arc;

use airan_model::time::DAY;
use arrow::array::AsArray;
use proptest::prelude::*;

use super::*;
use crate::faults::{Fault, FaultyStore, Op};
use crate::testing::{
    SECOND, TOPIC, assert_sound, claim, commit, faulty_local, faulty_object, ids, ids_from, over, raw, rows, times,
};

/// The lake on a local disk, or in an object store.
fn lake(staged: bool, folder: &std::path::Path) -> (Lake, Arc<FaultyStore>) {
    if staged { faulty_local(folder) } else { faulty_object() }
}

/// The numbers of the records that are there.
async fn numbers(lake: &Lake) -> (u64, Vec<u64>) {
    let shard = Shard { topic: TOPIC.to_owned(), partition: 0 };
    let listed = record::listed(lake.store(), &shard).await.unwrap();
    (listed.trimmed, [listed.left, listed.numbers].concat())
}

/// Scenario: commits, a pass, more commits, a pass; on a local disk and in an object store.
/// Guarantees: S1; every row is read once before, between and after; records that are published go, the claim and the newest
/// stay; a claim goes on where the last commit ended, and open windows are rebuilt from published rows.
#[tokio::test]
async fn rows_are_read_once_before_and_after_publishing() {
    for staged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, _) = lake(staged, folder.path());
        let mut writer = claim(&lake).await;
        writer.commit(&commit(10, vec![rows("t", 0..10), rows("u", 0..5)])).await.unwrap();
        writer.commit(&commit(20, vec![rows("t", 10..20)])).await.unwrap();
        let report = lake.publish(SECOND).await.unwrap();
        let expected = PublishReport { commits: 2, files: 3, rows: 25, records: 1, failures: vec![] };
        assert_eq!(report, expected, "staged {staged}");
        assert_eq!(numbers(&lake).await, (2, vec![1, 3]), "the claim and the newest stay");
        assert_eq!(ids(&lake, "t").await, (0..20).collect::<Vec<_>>(), "staged {staged}");
        assert_eq!(lake.files("u").await.unwrap().len(), 1);
        assert_sound(&lake).await;

        writer.commit(&commit(30, vec![rows("t", 20..30)])).await.unwrap();
        assert_eq!(ids(&lake, "t").await, (0..30).collect::<Vec<_>>(), "published and not");
        assert_eq!(ids_from(&lake, "t", 15 * SECOND).await, (15..30).collect::<Vec<_>>());
        let again = lake.publish(SECOND).await.unwrap();
        assert_eq!((again.commits, again.files, again.records), (1, 1, 1));
        let nothing = lake.publish(SECOND).await.unwrap();
        assert_eq!(nothing, PublishReport::default());
        let (mut writer, recovered) = lake.claim(TOPIC, 0, 1).await.unwrap();
        assert_eq!((recovered.unwrap().next_offset, writer.n()), (30, 5));
        writer.commit(&commit(40, vec![rows("t", 30..40)])).await.unwrap();
        lake.publish(SECOND).await.unwrap();
        assert_eq!(ids(&lake, "t").await, (0..40).collect::<Vec<_>>());
        assert_eq!(numbers(&lake).await, (5, vec![1, 5, 6]), "both claims and the newest");
        let report = lake.check().await.unwrap();
        assert_eq!((report.files, report.published, report.deltas, report.problems), (5, 5, 2, vec![]));
    }
}

/// Scenario: each step of a pass fails before or after it is done; then a pass without faults.
/// Guarantees: S1; at every moment each row is read once, and in the end everything is published and the lake sound.
#[tokio::test]
async fn a_pass_that_fails_at_any_step_loses_and_doubles_nothing() {
    for staged in [true, false] {
        for (op, part) in [
            (Op::Put, "_delta_log/"),
            (Op::Copy, "_held/"),
            (Op::Copy, "t/date="),
            (Op::Put, ".trimmed"),
            (Op::Delete, "_commits/"),
            (Op::Get, "_delta_log/"),
            (Op::Get, "_commits/"),
        ] {
            for fault in [Fault::Before, Fault::After] {
                let what = format!("staged {staged}, {op:?} {part} {fault:?}");
                let folder = tempfile::tempdir().unwrap();
                let (lake, store) = lake(staged, folder.path());
                let mut writer = claim(&lake).await;
                for at in 0..3 {
                    writer.commit(&commit((at + 1) * 10, vec![rows("t", at * 10..at * 10 + 10)])).await.unwrap();
                    lake.publish(SECOND).await.unwrap();
                }
                writer.commit(&commit(40, vec![rows("t", 30..40), rows("u", 0..3)])).await.unwrap();
                writer.commit(&commit(50, vec![rows("t", 40..50)])).await.unwrap();
                store.next(1, op, part, fault);
                let _ = lake.publish(SECOND).await;
                store.heal();
                assert_eq!(ids(&lake, "t").await, (0..50).collect::<Vec<_>>(), "{what}");
                assert_eq!(ids(&lake, "u").await, [0, 1, 2], "{what}");
                lake.publish(SECOND).await.unwrap();
                let files = lake.files("t").await.unwrap();
                assert_eq!(files.len(), 5, "{what}");
                let report = lake.check().await.unwrap();
                assert_eq!((report.published, report.problems), (6, vec![]), "{what}");
                assert_eq!(numbers(&lake).await, (5, vec![1, 6]), "{what}");
            }
        }
    }
}

/// Scenario: an owner is frozen after its commit; another takes the shard over, commits and publishes, and every record that
/// may go is trimmed; then the first wakes up and commits.
/// Guarantees: K2; it is fenced, because the claim that took its shard outlives trimming. When the owner had offered a record
/// that was taken and trimmed since, offering it again changes nothing that is read.
#[tokio::test]
async fn an_owner_from_before_the_trimming_is_fenced() {
    for staged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, store) = lake(staged, folder.path());
        let mut first = claim(&lake).await;
        first.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
        store.next(1, Op::Put, "_commits/telemetry/0/00000000000000000003", Fault::After);
        store.next(1, Op::Get, "_commits/telemetry/0/00000000000000000003", Fault::Before);
        let wanted = commit(20, vec![rows("t", 10..20)]);
        assert!(first.commit(&wanted).await.is_err(), "done, and not known");
        let mut second = claim(&lake).await;
        for at in 2..5 {
            second.commit(&commit((at + 1) * 10, vec![rows("t", at * 10..at * 10 + 10)])).await.unwrap();
            lake.publish(SECOND).await.unwrap();
        }
        assert_eq!(numbers(&lake).await, (6, vec![1, 4, 7]));
        let again = first.commit(&wanted).await;
        let fenced = match again {
            Ok(_) => first.commit(&commit(30, vec![rows("t", 90..99)])).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(fenced, crate::commit::CommitError::Fenced { .. }), "{fenced}");
        lake.publish(SECOND).await.unwrap();
        assert_eq!(ids(&lake, "t").await, (0..50).collect::<Vec<_>>());
        assert_eq!(numbers(&lake).await, (6, vec![1, 4, 7]), "what it put below the mark is gone");
        assert_sound(&lake).await;
    }
}

/// Scenario: two publishers, each of which any operation may stop before or after; they take turns at random steps. A third
/// has loaded the tables before all of it, and commits what it saw.
/// Guarantees: S1; each file is in the log once, each row is read once.
#[tokio::test]
async fn publishers_beside_each_other_are_harmless() {
    let (lake, store) = faulty_object();
    let others = [over(&store), over(&store)];
    let mut writer = claim(&lake).await;
    writer.commit(&commit(1, vec![rows("t", 0..1)])).await.unwrap();
    let zombie = over(&store);
    let mut seen = DeltaTable::load_or_new(&zombie, "t").await.unwrap();
    let stale: Vec<Live> = crate::files::counted(&zombie, Some("t")).await.unwrap().files;
    for round in 1..20i64 {
        writer.commit(&commit(round + 1, vec![rows("t", round..round + 1)])).await.unwrap();
        let at = ["_delta_log/", "_commits/", ".trimmed", "_last"][round as usize % 4];
        store.next(
            1,
            [Op::Put, Op::Get, Op::Delete][round as usize % 3],
            at,
            [Fault::Before, Fault::After][round as usize % 2],
        );
        let (first, second) = tokio::join!(others[0].publish(SECOND), others[1].publish(SECOND));
        let _ = (first, second);
        store.heal();
        let change = Change { operation: "publish", add: stale.clone(), txns: newest(&stale), ..Change::default() };
        assert!(seen.commit(change, SECOND).await.is_err() || round == 0, "a version was made twice");
        assert_eq!(ids(&lake, "t").await, (0..=round).collect::<Vec<_>>(), "round {round}");
    }
    lake.publish(SECOND).await.unwrap();
    assert_eq!(lake.files("t").await.unwrap().len(), 20);
    assert_sound(&lake).await;
}

/// Scenario: files of two shards, published, are rewritten as one under another name, as a compaction does; the shards' owners
/// look for their rows, from any time on.
/// Guarantees: each gets exactly the rows of its own sites; SQL and the list of files have every row once; the old names are
/// gone from globs at once, and a reader that has them reads on.
#[tokio::test]
async fn a_rewritten_file_gives_each_shard_its_own_rows() {
    for staged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, _) = lake(staged, folder.path());
        let mut expected = [Vec::new(), Vec::new()];
        for partition in 0..2 {
            let mut writer = lake.claim(TOPIC, partition, 2).await.unwrap().0;
            let all = rows("t", 0..60);
            let sites: Vec<String> = (0..60).map(|id| format!("site-{}", id % 7)).collect();
            let here: arrow::array::BooleanArray =
                sites.iter().map(|site| Some(airan_model::identity::partition_of(site, 2) == partition)).collect();
            let columns = [
                ("ts", Arc::clone(&all.batches[0]["ts"])),
                ("site", Arc::new(arrow::array::StringArray::from(sites)) as arrow::array::ArrayRef),
                ("id", Arc::clone(&all.batches[0]["id"])),
            ];
            let mut mine = raw("t", &columns);
            mine.batches[0] = arrow::compute::filter_record_batch(&mine.batches[0], &here).unwrap();
            let ids = mine.batches[0]["id"].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
            expected[usize::try_from(partition).unwrap()] = ids;
            writer.commit(&commit(1, vec![mine])).await.unwrap();
        }
        assert!(expected.iter().all(|ids| !ids.is_empty()));
        lake.publish(SECOND).await.unwrap();
        let before = lake.raw_rows(TOPIC, 0, "t", Micros::MIN).await.unwrap();

        let schema = crate::schema::load(lake.store(), "t").await.unwrap().unwrap();
        let mut together = raw("t", &[]);
        for partition in 0..2 {
            let batches: Vec<_> =
                futures::TryStreamExt::try_collect(lake.raw_rows(TOPIC, partition, "t", Micros::MIN).await.unwrap())
                    .await
                    .unwrap();
            together.batches.extend::<Vec<arrow::array::RecordBatch>>(batches);
        }
        let encoded = crate::encode::encode(&crate::encode::parts(&schema, &together).unwrap()[0]).unwrap();
        let mut delta = DeltaTable::load(&lake, "t").await.unwrap().unwrap();
        let old: Vec<Live> = delta.files().cloned().collect();
        let mut new = old[0].clone();
        new.origin = None;
        new.file.path = "t/date=1970-01-01/compact-0123.parquet".to_owned();
        (new.file.rows, new.file.bytes) = (encoded.rows, encoded.bytes.len() as u64);
        (new.file.min_ts, new.file.max_ts) = (encoded.min_ts, encoded.max_ts);
        new.file.checksum = encoded.checksum.clone();
        lake.store().create(&new.stored(lake.store()), encoded.bytes).await.unwrap();
        let remove = old.iter().map(|live| live.file.path.clone()).collect();
        let change = Change { operation: "compact", add: vec![new], remove, rearranges: true, ..Change::default() };
        delta.commit(change, SECOND).await.unwrap();
        lake.settle().await.unwrap();

        for (partition, ids) in expected.iter().enumerate() {
            for from in [Micros::MIN, 30 * SECOND] {
                let rows = lake.raw_rows(TOPIC, partition as i32, "t", from).await.unwrap();
                let batches: Vec<arrow::array::RecordBatch> = futures::TryStreamExt::try_collect(rows).await.unwrap();
                let found = batches
                    .iter()
                    .flat_map(|batch| batch["id"].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec());
                let mut found: Vec<i64> = found.collect();
                found.sort_unstable();
                let wanted: Vec<i64> = ids.iter().copied().filter(|id| id * SECOND >= from).collect();
                assert_eq!(found, wanted, "staged {staged}, partition {partition} from {from}");
            }
        }
        let files = lake.files("t").await.unwrap();
        assert_eq!((files.len(), files[0].rows, files[0].partition), (1, 60, None));
        let batches: Vec<arrow::array::RecordBatch> = futures::TryStreamExt::try_collect(before).await.unwrap();
        assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), expected[0].len());
        assert_sound(&lake).await;
    }
}

/// Scenario: on a local disk the bound is exceeded by files that are out and held for readers, then by files that count.
/// Guarantees: held ones go first, although their day is not over, and nothing that counts goes for their sake.
#[tokio::test]
async fn held_files_give_way_to_the_bound_first() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, store) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    for date in 0..4i64 {
        let at: Vec<Micros> = (0..50).map(|row| date * DAY + row * SECOND).collect();
        let id: arrow::array::ArrayRef =
            Arc::new(arrow::array::Int64Array::from_iter_values(date * 50..date * 50 + 50));
        writer.commit(&commit(date + 1, vec![raw("t", &[("ts", times(&at)), ("id", id)])])).await.unwrap();
    }
    let bytes = lake.files("t").await.unwrap()[0].bytes;
    let keeping = |bound: u64, days: u64| {
        let mut settings = crate::testing::settings(folder.path());
        settings.max_bytes = Some(bound.into());
        settings.raw_retention = std::time::Duration::from_secs(days * 86_400).into();
        let store = crate::store::Store::over(Arc::clone(&store) as _, true);
        Lake::over(store, settings, crate::testing::clock()).unwrap()
    };
    let report = keeping(100 * bytes, 2).expire(4 * DAY, None).await.unwrap();
    assert_eq!((report.files, report.held_bytes > 0, report.vacuumed), (2, true, 0), "{report:?}");
    let report = keeping(report.kept_bytes, 2).expire(4 * DAY, None).await.unwrap();
    assert_eq!((report.files, report.held_bytes, report.vacuumed), (0, 0, 2), "{report:?}");
    assert_eq!(lake.files("t").await.unwrap().len(), 2);
    // Too little for both that count: the older goes, and its bytes too.
    let report = keeping(report.kept_bytes - 1, 2).expire(4 * DAY, None).await.unwrap();
    assert_eq!((report.files, report.held_bytes, report.vacuumed, report.over_bytes), (1, 0, 1, 0), "{report:?}");
    assert_eq!(ids(&lake, "t").await, (150..200).collect::<Vec<_>>());
    assert_sound(&lake).await;
}

/// Scenario: a hundred and more versions.
/// Guarantees: a checkpoint is made, and a process that knows nothing reads from it.
#[tokio::test]
async fn a_log_gets_checkpoints() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    for at in 0..105 {
        writer.commit(&commit(at + 1, vec![rows("t", at..at + 1)])).await.unwrap();
        lake.publish(SECOND).await.unwrap();
    }
    let checkpoint = lake.store().size(&layout::delta_checkpoint("t", 100)).await.unwrap();
    assert!(checkpoint.is_some());
    for version in 0..=100 {
        lake.store().remove(&layout::delta_commit("t", version)).await.unwrap();
    }
    assert_eq!(ids(&over(&store), "t").await, (0..105).collect::<Vec<_>>());
    assert_sound(&over(&store)).await;
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The owner commits rows of one date, and tries again while the store fails.
    Commit { date: i64, rows: i64 },
    /// One pass, which may fail.
    Publish,
    /// The same by another process, which may know older versions.
    PublishElsewhere,
    /// Dates before this one go, however often the store fails.
    Expire { before: i64 },
    /// Another takes the shard.
    Claim,
    /// The next operation of this kind fails.
    Fail { op: Op, fault: Fault, part: &'static str },
}

fn act() -> impl Strategy<Value = Act> {
    let fail = (
        prop::sample::select(vec![Op::Put, Op::Put, Op::Copy, Op::Get, Op::Delete]),
        prop::sample::select(vec![Fault::Before, Fault::After]),
        prop::sample::select(vec!["", "_delta_log/", "_commits/", "_held/"]),
    );
    prop_oneof![
        5 => (0..6i64, 0..4i64).prop_map(|(date, rows)| Act::Commit { date, rows }),
        4 => Just(Act::Publish),
        2 => Just(Act::PublishElsewhere),
        1 => (0..6i64).prop_map(|before| Act::Expire { before }),
        1 => Just(Act::Claim),
        4 => fail.prop_map(|(op, fault, part)| Act::Fail { op, fault, part }),
    ]
}

/// Does it until the store lets it.
async fn at_last<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(mut work: impl FnMut() -> F) -> T {
    let mut last = None;
    for _ in 0..50 {
        match work().await {
            Ok(done) => return done,
            Err(error) => last = Some(error),
        }
    }
    panic!("more failures than were asked for: {last:?}");
}

/// The `id`s of all rows that count, sorted; read however often the store fails.
async fn counted_ids(lake: &Lake) -> Vec<i64> {
    let read = || async {
        let rows = lake.raw_rows(TOPIC, 0, "t", Micros::MIN).await?;
        futures::TryStreamExt::try_collect::<Vec<arrow::array::RecordBatch>>(rows).await
    };
    let mut ids = Vec::new();
    for batch in at_last(read).await {
        ids.extend_from_slice(batch["id"].as_primitive::<arrow::datatypes::Int64Type>().values());
    }
    ids.sort_unstable();
    ids
}

/// Plays `acts` against a model: the rows by date.
async fn play(lake: Lake, other: Lake, store: Arc<FaultyStore>, acts: Vec<Act>) {
    let mut writer = at_last(|| lake.claim(TOPIC, 0, 1)).await.0;
    let mut model: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let (mut next, mut offset) = (0, 0);
    for act in acts {
        match act {
            Act::Commit { date, rows: count } => {
                let ids: Vec<i64> = (next..next + count).collect();
                let at: Vec<Micros> = ids.iter().map(|id| date * DAY + id * SECOND).collect();
                let id: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(ids.clone()));
                offset += 1;
                let wanted = commit(offset, vec![raw("t", &[("ts", times(&at)), ("id", id)])]);
                let mut tries = 0;
                while let Err(error) = writer.commit(&wanted).await {
                    assert!(tries < 50, "{error}");
                    tries += 1;
                }
                model.entry(date).or_default().extend(ids);
                next += count;
            }
            Act::Publish => drop(lake.publish(10 * DAY).await),
            Act::PublishElsewhere => drop(other.publish(10 * DAY).await),
            Act::Expire { before } => {
                let now = 100 * 365 * DAY + before * DAY;
                at_last(|| async {
                    let report = lake.expire(now, None).await.map_err(|error| error.to_string())?;
                    match report.failures.as_slice() {
                        [] => Ok(()),
                        failures => Err(format!("{failures:?}")),
                    }
                })
                .await;
                model.retain(|date, _| *date >= before);
            }
            Act::Claim => writer = at_last(|| lake.claim(TOPIC, 0, 1)).await.0,
            Act::Fail { op, fault, part } => store.next(1, op, part, fault),
        }
        let mut expected: Vec<i64> = model.values().flatten().copied().collect();
        expected.sort_unstable();
        assert_eq!(counted_ids(&lake).await, expected, "after {act:?}");
    }
    store.heal();
    let mut expected: Vec<i64> = model.values().flatten().copied().collect();
    expected.sort_unstable();
    assert_eq!(counted_ids(&other).await, expected);
    at_last(|| lake.claim(TOPIC, 0, 1)).await;
    // A process that knows nothing makes all names right.
    let report = lake.expire(10 * DAY, None).await.unwrap();
    assert_eq!(report.failures, vec![]);
    assert_eq!(counted_ids(&lake).await, expected);
    assert_sound(&lake).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Scenario: commits, claims, passes of publishing by two processes, and retention, while any operation of the store fails
    /// before or after it is done; on an object store and on a local disk.
    /// Guarantees: S1, K1; after every step exactly the rows that were committed and not expired are read, each once; in the end
    /// the lake is sound, with every name where it belongs.
    #[test]
    fn exactly_the_rows_of_a_model_are_read(acts in prop::collection::vec(act(), 1..24), staged: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (lake, store) = lake(staged, folder.path());
        let other = if staged { over_disk(&store, folder.path()) } else { over(&store) };
        runtime.block_on(play(lake, other, store, acts));
    }
}

/// Another process's handle of the lake on the same disk.
fn over_disk(store: &Arc<FaultyStore>, folder: &std::path::Path) -> Lake {
    let store = crate::store::Store::over(Arc::clone(store) as _, true);
    Lake::over(store, crate::testing::settings(folder), crate::testing::clock()).unwrap()
}

/// What `/metrics` says of a table: its files and their bytes.
fn exported(registry: &prometheus::Registry, table: &str) -> (u64, u64) {
    let of = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let is_of = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == table;
        let metric = family.get_metric().iter().find(is_of).unwrap_or_else(|| panic!("no {name} of {table}"));
        assert_eq!((metric.get_label().len(), metric.get_label()[0].name()), (1, "table"));
        metric.get_gauge().get_value() as u64
    };
    (of("airan_lake_table_files"), of("airan_lake_table_bytes"))
}

/// What there is of a table.
async fn there(lake: &Lake, table: &str) -> (u64, u64) {
    let files = lake.files(table).await.unwrap();
    (files.len() as u64, files.iter().map(|file| file.bytes).sum())
}

/// Scenario: commits to two tables of which one cannot be published, then can; compaction; retention that takes everything of one table
/// out; each with a pass of publishing after it.
/// Guarantees: the exported numbers of files and bytes of each table are those of the files that count, published or not, whatever became
/// of them.
#[tokio::test]
async fn files_and_bytes_of_each_table_are_exported() {
    let (lake, store) = faulty_object();
    let registry = prometheus::Registry::new();
    lake.metrics().register(&registry).unwrap();
    let mut writer = claim(&lake).await;
    for at in 0..4i64 {
        let mut tables = vec![rows("t", at * 10..at * 10 + 10)];
        tables.extend((at < 2).then(|| rows("u", at..at + 1)));
        writer.commit(&commit(at + 1, tables)).await.unwrap();
    }
    store.next(1, Op::Put, "u/_delta_log", Fault::Before);
    let report = lake.publish(crate::testing::clock().now()).await.unwrap();
    assert_eq!((report.failures.len(), report.files), (1, 4));
    let is_exported = async |files: [u64; 2]| {
        for (table, files) in ["t", "u"].into_iter().zip(files) {
            let wanted = there(&lake, table).await;
            assert_eq!((wanted.0, exported(&registry, table)), (files, wanted), "{table}");
        }
    };
    is_exported([4, 2]).await;
    let now = crate::testing::clock().now();
    lake.publish(now).await.unwrap();
    is_exported([4, 2]).await;
    let compacted = lake.compact(Some("t"), now, |_| {}).await.unwrap();
    assert_eq!((compacted.merges, compacted.files_in), (1, 4));
    lake.publish(now).await.unwrap();
    is_exported([1, 2]).await;
    let delta = DeltaTable::load(&lake, "u").await.unwrap().unwrap();
    let remove = delta.files().map(|live| live.file.path.clone()).collect();
    let mut delta = delta;
    delta.commit(Change { operation: "expire", remove, ..Change::default() }, now).await.unwrap();
    lake.publish(now).await.unwrap();
    is_exported([1, 0]).await;
}
