use std::sync::Arc;

use super::*;
use crate::faults::{Fault, FaultyStore, Op};
use crate::files::Origin;
use crate::record::RecordFile;
use crate::seal::Checksum;
use crate::testing::{SECOND, TOPIC, claim, commit, faulty_local, faulty_object, over, rows};

/// A file that need not lie anywhere: commits do not look.
fn file(partition: i32, n: u64) -> Live {
    let shard = Shard { topic: TOPIC.to_owned(), partition };
    let path = shard.file("t", 20_000, n, &layout::ClaimId::fresh(), 0).to_string();
    Live {
        topic: TOPIC.to_owned(),
        origin: Some(Origin { partition, n }),
        at: 7 * SECOND,
        date: 20_000,
        published: true,
        span: None,
        file: RecordFile {
            table: "t".to_owned(),
            path,
            rows: 10,
            bytes: 1_000,
            min_ts: 20_000 * 86_400 * SECOND + 123_456,
            max_ts: 20_000 * 86_400 * SECOND + 9 * SECOND,
            checksum: Checksum::of(b"x"),
        },
    }
}

fn shard(partition: i32) -> Shard {
    Shard { topic: TOPIC.to_owned(), partition }
}

fn adding(files: &[Live], txns: &[(Shard, u64)]) -> Change {
    Change { operation: "publish", add: files.to_vec(), txns: txns.to_vec(), ..Change::default() }
}

/// A lake that has the table `t`.
async fn with_table() -> (Lake, Arc<FaultyStore>) {
    let (lake, store) = faulty_object();
    claim(&lake).await.commit(&commit(1, vec![rows("t", 0..1)])).await.unwrap();
    (lake, store)
}

fn sorted<'a>(files: impl Iterator<Item = &'a Live>) -> Vec<Live> {
    let mut files: Vec<Live> = files.cloned().collect();
    files.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    files
}

/// Scenario: files of two shards and a rewritten one are added, some removed; read back by another process, from commits and
/// then from a checkpoint.
/// Guarantees: everything a record said of a file, each `txn` and each tombstone is read back, whichever way.
#[tokio::test]
async fn what_is_committed_is_read_back() {
    for staged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, store) = if staged { faulty_local(folder.path()) } else { faulty_object() };
        claim(&lake).await.commit(&commit(1, vec![rows("t", 0..1)])).await.unwrap();
        assert!(DeltaTable::load(&lake, "t").await.unwrap().is_none());
        let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
        let (a, b, mut c) = (file(0, 1), file(1, 5), file(0, 2));
        c.origin = None;
        let first = adding(&[a.clone(), b.clone()], &[(shard(0), 1), (shard(1), 5)]);
        assert_eq!(table.commit(first, SECOND).await.unwrap(), 0);
        let second = Change {
            operation: "compact",
            add: vec![c.clone()],
            remove: vec![a.file.path.clone(), "t/date=2024-10-04/never.parquet".to_owned()],
            rearranges: true,
            ..Change::default()
        };
        assert_eq!(table.commit(second, 2 * SECOND).await.unwrap(), 1);
        let tombstone = Tombstone { path: a.file.path.clone(), bytes: 1_000, at: 2 * SECOND };
        let other = || async {
            match staged {
                true => DeltaTable::read(&lake, "t").await.unwrap().unwrap(),
                false => DeltaTable::load(&over(&store), "t").await.unwrap().unwrap(),
            }
        };
        for with_checkpoint in [false, true] {
            let what = format!("staged {staged}, checkpoint {with_checkpoint}");
            if with_checkpoint {
                table.checkpoint(3 * SECOND).await.unwrap();
                for version in 0..2 {
                    lake.store().remove(&layout::delta_commit("t", version)).await.unwrap();
                }
            }
            let read = other().await;
            assert_eq!(sorted(read.files()), sorted([b.clone(), c.clone()].iter()), "{what}");
            assert_eq!(
                (read.txn(&shard(0)), read.txn(&shard(1)), read.txn(&shard(2))),
                (Some(1), Some(5), None),
                "{what}"
            );
            assert_eq!(read.version(), Some(1), "{what}");
            if !with_checkpoint {
                // By the wall clock, which the checkpoint goes by, this tombstone is fifty years old.
                assert_eq!(read.tombstones().collect::<Vec<_>>(), [&tombstone], "{what}");
                assert_eq!(read.removed_at(&a.file.path), Some(2 * SECOND), "{what}");
            }
            assert_eq!(sorted(read.files()), sorted(table.files()), "{what}");
        }
        // The log goes on from the checkpoint.
        assert_eq!(table.commit(adding(&[file(0, 3)], &[(shard(0), 3)]), SECOND).await.unwrap(), 2);
        assert_eq!(sorted(other().await.files()), sorted(table.files()));
        assert_eq!(other().await.txn(&shard(1)), Some(5));
    }
}

/// Scenario: deltalake itself opens the table.
/// Guarantees: it sees the same files, rows and times, and the columns with their units.
#[tokio::test]
async fn deltalake_reads_the_same() {
    let (lake, _) = with_table().await;
    let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    let (a, b) = (file(0, 1), file(1, 5));
    table.commit(adding(&[a.clone(), b.clone()], &[(shard(0), 1)]), SECOND).await.unwrap();
    table.commit(Change { operation: "expire", remove: vec![b.file.path], ..Change::default() }, SECOND).await.unwrap();
    let mut theirs = deltalake::DeltaTable::new(table.log_store().unwrap());
    theirs.load().await.unwrap();
    let state = theirs.snapshot().unwrap();
    let files: Vec<_> = state.log_data().iter().map(|view| (view.path().to_string(), view.num_records())).collect();
    assert_eq!(files, [(delta_path("t", false, &a.file.path), Some(10))]);
    let names: Vec<String> = state.schema().fields().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["ts", "site", "id", "date"]);
    assert_eq!(state.metadata().partition_columns(), &["date".to_owned()]);
    let log = theirs.log_store();
    let txn = state.transaction_version(log.as_ref(), actions::app_of(&shard(0))).await.unwrap();
    assert_eq!(txn, Some(1));
}

/// Scenario: two processes have loaded the same version, and both commit.
/// Guarantees: one makes the version, the other is told so and has changed nothing; after loading it makes the next one.
#[tokio::test]
async fn a_version_is_made_once() {
    let (lake, store) = with_table().await;
    let other = over(&store);
    let mut here = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    let mut there = DeltaTable::load_or_new(&other, "t").await.unwrap();
    for round in 0..3 {
        here.commit(adding(&[file(0, round + 1)], &[(shard(0), round + 1)]), SECOND).await.unwrap();
        let late = there.commit(adding(&[file(1, round + 1)], &[]), SECOND).await.unwrap_err();
        assert!(matches!(late, DeltaError::Conflict { version, .. } if version == 2 * round), "{late}");
        there = DeltaTable::load_or_new(&other, "t").await.unwrap();
        assert_eq!(there.txn(&shard(0)), Some(round + 1));
        there.commit(adding(&[file(1, round + 1)], &[]), SECOND).await.unwrap();
        here = DeltaTable::load_or_new(&lake, "t").await.unwrap();
        assert_eq!(here.files().count() as u64, 2 * round + 2);
    }
}

/// Scenario: the put of a version fails before or after it is done.
/// Guarantees: done and told otherwise is a success; not done is `Store`, and the same commit can be tried again.
#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_reading() {
    let (lake, store) = with_table().await;
    let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    store.next(1, Op::Put, "_delta_log/", Fault::After);
    assert_eq!(table.commit(adding(&[file(0, 1)], &[]), SECOND).await.unwrap(), 0);
    store.next(1, Op::Put, "_delta_log/", Fault::Before);
    let failed = table.commit(adding(&[file(0, 2)], &[]), SECOND).await.unwrap_err();
    assert!(matches!(failed, DeltaError::Store(_)), "{failed}");
    assert_eq!((table.version(), table.files().count()), (Some(0), 1));
    assert_eq!(table.commit(adding(&[file(0, 2)], &[]), SECOND).await.unwrap(), 1);
    // The put is done, and the reading that would tell fails: the table says so when it is loaded.
    store.next(1, Op::Put, "_delta_log/", Fault::After);
    store.next(1, Op::Get, "_delta_log/", Fault::Before);
    let unknown = table.commit(adding(&[file(0, 3)], &[(shard(0), 3)]), SECOND).await.unwrap_err();
    assert!(matches!(unknown, DeltaError::Store(_)), "{unknown}");
    assert_eq!(store.heal(), 0);
    let loaded = DeltaTable::load(&lake, "t").await.unwrap().unwrap();
    assert_eq!((loaded.version(), loaded.txn(&shard(0))), (Some(2), Some(3)));
}

/// Scenario: somebody with a version whose successors were cleared up long ago commits; a commit in the middle is missing.
/// Guarantees: the late commit is in nobody's state; the gap is an error that names the log, not an older state.
#[tokio::test]
async fn a_commit_into_the_past_counts_for_nobody() {
    let (lake, store) = with_table().await;
    let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    table.commit(adding(&[file(0, 1)], &[]), SECOND).await.unwrap();
    let mut late = table.clone();
    for n in 2..5 {
        table.commit(adding(&[file(0, n)], &[]), SECOND).await.unwrap();
    }
    table.checkpoint(SECOND).await.unwrap();
    for version in 0..3 {
        lake.store().remove(&layout::delta_commit("t", version)).await.unwrap();
    }
    table.commit(adding(&[file(0, 5)], &[]), SECOND).await.unwrap();
    let lost = file(9, 9);
    // It believes that it made version 1.
    assert_eq!(late.commit(adding(std::slice::from_ref(&lost), &[(shard(9), 9)]), SECOND).await.unwrap(), 1);
    let fresh = over(&store);
    let knows_the_past = over(&store);
    late.listed_at -= LOG_KEPT;
    knows_the_past.remember_delta(&late);
    for lake in [&lake, &fresh, &knows_the_past] {
        let read = DeltaTable::load(lake, "t").await.unwrap().unwrap();
        assert_eq!((read.version(), read.files().count(), read.txn(&shard(9))), (Some(4), 5, None));
    }
    lake.store().remove(&layout::delta_checkpoint("t", 3)).await.unwrap();
    let broken = DeltaTable::read(&lake, "t").await.unwrap_err();
    assert!(matches!(&broken, ReadError::Damaged(damaged) if damaged.path == "t/_delta_log"), "{broken}");
}

/// Scenario: columns are added between two commits, and by a process that has not seen them.
/// Guarantees: the metadata grows in the commit that follows, keeps the table's id, and never shrinks.
#[tokio::test]
async fn metadata_follows_the_schema() {
    let (lake, _) = with_table().await;
    let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    table.commit(adding(&[file(0, 1)], &[]), SECOND).await.unwrap();
    let columns = |table: &DeltaTable| {
        let metadata = table.state.metadata.clone().unwrap();
        let schema: serde_json::Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
        let names = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned());
        (metadata["id"].as_str().unwrap().to_owned(), names.collect::<Vec<_>>())
    };
    let (id, first) = columns(&table);
    assert_eq!(first, ["ts", "site", "id", "date"]);
    let mut wider = rows("t", 1..2);
    let batch = wider.batches.remove(0);
    let (mut fields, mut arrays): (Vec<_>, Vec<_>) =
        (batch.schema().fields().iter().cloned().collect(), batch.columns().to_vec());
    fields.push(Arc::new(
        arrow::datatypes::Field::new("power", arrow::datatypes::DataType::UInt32, true).with_metadata(
            [("unit".to_owned(), "W".to_owned()), ("meaning".to_owned(), "board power".to_owned())].into(),
        ),
    ));
    arrays.push(Arc::new(arrow::array::UInt32Array::from(vec![7])));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    wider.batches.push(arrow::array::RecordBatch::try_new(schema, arrays).unwrap());
    claim(&lake).await.commit(&commit(2, vec![wider])).await.unwrap();
    table.commit(adding(&[file(0, 2)], &[]), SECOND).await.unwrap();
    assert_eq!(columns(&table), (id.clone(), ["ts", "site", "id", "power", "date"].map(str::to_owned).to_vec()));
    let text = table.state.metadata.clone().unwrap()["schemaString"].as_str().unwrap().to_owned();
    assert!(text.contains(r#""unit":"W""#) && text.contains(r#""comment":"board power""#), "{text}");
    let before = lake.store().read(&layout::delta_commit("t", 1)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&before).contains("metaData"));
    table.commit(adding(&[file(0, 3)], &[]), SECOND).await.unwrap();
    let same = lake.store().read(&layout::delta_commit("t", 2)).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&same).contains("metaData"), "no metadata without a change");
}

/// Scenario: a lake whose settings ask for a checkpoint each three commits; intervals at and beyond what may be asked for.
/// Guarantees: checkpoints come at that interval, and Delta's metadata says so; what makes no sense is refused by name.
#[tokio::test]
async fn checkpoints_come_as_often_as_the_settings_say() {
    let (_, store) = with_table().await;
    let mut settings = crate::testing::settings(std::path::Path::new("memory"));
    settings.checkpoint_interval = 3;
    let lake = Lake::over(crate::store::Store::over(store, false), settings.clone(), crate::testing::clock()).unwrap();
    let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
    let mut made = Vec::new();
    for n in 0..8 {
        let version = table.commit(adding(&[file(0, n)], &[]), SECOND).await.unwrap();
        if table.tidy(SECOND).await.unwrap() {
            made.push(version);
        }
    }
    assert_eq!(made, [3, 6]);
    let metadata = table.state.metadata.clone().unwrap();
    assert_eq!(metadata["configuration"]["delta.checkpointInterval"], "3");
    for (interval, fits) in [(1, false), (2, true), (10_000, true), (10_001, false)] {
        settings.checkpoint_interval = interval;
        let said = settings.check().map_err(|error| error.to_string());
        assert_eq!(said.is_ok(), fits, "{said:?}");
        assert!(fits || said.unwrap_err().contains("checkpoint_interval"));
    }
}

/// Scenario: another program adds a file, or raises the protocol.
/// Guarantees: it is refused by name; its rows are neither counted nor lost without a word.
#[tokio::test]
async fn what_another_program_wrote_is_refused() {
    for (action, said) in [
        (
            r#"{"add":{"path":"date=2026-01-01/x.parquet","partitionValues":{"date":"2026-01-01"},"size":1,"modificationTime":1,"dataChange":true}}"#,
            "another program",
        ),
        (
            r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#,
            "protocol",
        ),
    ] {
        let (lake, _) = with_table().await;
        let mut table = DeltaTable::load_or_new(&lake, "t").await.unwrap();
        table.commit(adding(&[file(0, 1)], &[]), SECOND).await.unwrap();
        lake.store().create(&layout::delta_commit("t", 1), action.into()).await.unwrap();
        let refused = DeltaTable::load(&lake, "t").await.unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
    }
}
