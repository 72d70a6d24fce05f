use std::sync::Arc;

use super::*;
use crate::encode;
use crate::faults::FaultyStore;
use crate::record::RecordFile;
use crate::seal::seal;
use crate::testing::{assert_sound, claim, commit, faulty_local, faulty_object, rows};

/// A sound lake of four records, 1 a claim, and one file each in the others.
async fn sound() -> (Lake, Arc<FaultyStore>, Shard) {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    for at in 0..3 {
        writer.commit(&commit((at + 1) * 10, vec![rows("t", at * 10..at * 10 + 10)])).await.unwrap();
    }
    assert_sound(&lake).await;
    (lake, store, Shard { topic: crate::testing::TOPIC.to_owned(), partition: 0 })
}

/// Replaces record `n` by what `change` makes of it, sealed as if a release had written it.
async fn forge(lake: &Lake, shard: &Shard, n: u64, change: impl FnOnce(&mut Record)) {
    let (mut record, _) = record::read(lake.store(), shard, n).await.unwrap().unwrap();
    change(&mut record);
    lake.store().overwrite(&shard.record(n), seal(&record).unwrap()).await.unwrap();
}

/// The only problem of the lake, as (invariant, path, what).
async fn problem(lake: &Lake) -> (&'static str, String, String) {
    let report = lake.check().await.unwrap();
    let [problem] = &report.problems[..] else { panic!("{:#?}", report.problems) };
    assert!(problem.to_string().ends_with(&problem.repair.to_string()), "{problem}");
    (problem.invariant, problem.path.clone(), problem.what.clone())
}

async fn file(lake: &Lake, at: usize) -> String {
    lake.files("t").await.unwrap()[at].path.clone()
}

/// Scenario: a sound lake.
/// Guarantees: the report counts what there is.
#[tokio::test]
async fn a_sound_lake_is_counted() {
    let (lake, ..) = sound().await;
    let report = lake.check().await.unwrap();
    let bytes = lake.files("t").await.unwrap().iter().map(|file| file.bytes).sum();
    let counts = CheckReport { shards: 1, records: 4, files: 3, rows: 30, bytes, ..CheckReport::default() };
    assert_eq!(report, counts);
    lake.publish(0).await.unwrap();
    let report = lake.check().await.unwrap();
    assert_eq!(report, CheckReport { records: 1, deltas: 1, published: 3, ..counts });
}

/// Scenario: a file is missing; one byte of a file is flipped; a file is cut.
/// Guarantees: S1; each is found and named, with the record that names it.
#[tokio::test]
async fn a_missing_or_changed_file_is_found() {
    for damage in ["missing", "flipped", "cut"] {
        let (lake, ..) = sound().await;
        let path = file(&lake, 1).await;
        let at = Path::from(path.as_str());
        let mut bytes = lake.store().read(&at).await.unwrap().unwrap().to_vec();
        let half = bytes.len() / 2;
        match damage {
            "missing" => lake.store().remove(&at).await.unwrap(),
            "flipped" => {
                bytes[half] ^= 1;
                lake.store().overwrite(&at, bytes.into()).await.unwrap();
            }
            _ => lake.store().overwrite(&at, bytes[..half].to_vec().into()).await.unwrap(),
        }
        let (invariant, found, what) = problem(&lake).await;
        assert_eq!((invariant, found), ("S1", path), "{damage}");
        assert!(what.contains(if damage == "missing" { "record 3" } else { "checksum" }), "{damage}: {what}");
        // A reader of rows is told too, and gets no rows in place of them.
        let error = futures::TryStreamExt::try_collect::<Vec<_>>(
            lake.raw_rows(crate::testing::TOPIC, 0, "t", i64::MIN).await.unwrap(),
        );
        assert!(matches!(error.await, Err(ReadError::Damaged(_))), "{damage}");
    }
}

/// Scenario: a file holds other rows than its record says, though size and checksum agree; or is no Parquet at all.
/// Guarantees: S1; found by opening it.
#[tokio::test]
async fn a_file_of_other_rows_is_found() {
    let (lake, _, shard) = sound().await;
    let path = file(&lake, 0).await;
    let other = rows("t", 0..7);
    let schema = schema::load(lake.store(), "t").await.unwrap().unwrap();
    let encoded = encode::encode(&encode::parts(&schema, &other).unwrap()[0]).unwrap();
    lake.store().overwrite(&Path::from(path.as_str()), encoded.bytes.clone()).await.unwrap();
    let says = |file: &mut RecordFile, bytes: &[u8]| {
        file.bytes = bytes.len() as u64;
        file.checksum = Checksum::of(bytes);
    };
    forge(&lake, &shard, 2, |record| says(&mut record.files[0], &encoded.bytes)).await;
    let (invariant, found, what) = problem(&lake).await;
    assert_eq!((invariant, found), ("S1", path.clone()));
    assert!(what.contains("7 rows") && what.contains("10"), "{what}");

    lake.store().overwrite(&Path::from(path.as_str()), "no parquet".into()).await.unwrap();
    forge(&lake, &shard, 2, |record| says(&mut record.files[0], b"no parquet")).await;
    assert_eq!(problem(&lake).await.0, "S1");
}

/// Scenario: a record is missing, unreadable, misplaced, or says what no record after its neighbour can say.
/// Guarantees: K1 and K2; each is found, with the record's path.
#[tokio::test]
async fn a_wrong_record_is_found() {
    let (lake, _, shard) = sound().await;
    lake.store().remove(&shard.record(3)).await.unwrap();
    let report = lake.check().await.unwrap();
    let gap = &report.problems[0];
    assert_eq!((gap.invariant, &gap.path), ("K1", &shard.record(4).to_string()));
    assert!(gap.what.contains("missing"), "{gap}");
    // Readers refuse to answer without it, and name it.
    let error = lake.files("t").await.unwrap_err();
    assert!(matches!(&error, ReadError::Damaged(damaged) if damaged.path == shard.record(3).to_string()), "{error}");
    // What it named has become a file that nobody names.
    assert_eq!((report.orphans, report.files), (1, 2));

    let (lake, _, shard) = sound().await;
    let mut bytes = lake.store().read(&shard.record(3)).await.unwrap().unwrap().to_vec();
    bytes[60] ^= 4;
    lake.store().overwrite(&shard.record(3), bytes.into()).await.unwrap();
    let report = lake.check().await.unwrap();
    assert_eq!((report.problems[0].invariant, &report.problems[0].path), ("K1", &shard.record(3).to_string()));
    // Readers refuse to answer without it, and name it.
    let error = lake.files("t").await.unwrap_err();
    assert!(matches!(&error, ReadError::Damaged(damaged) if damaged.path == shard.record(3).to_string()), "{error}");

    type Change = fn(&mut Record);
    let changes: [(&str, Change); 4] = [
        ("K1", |record| record.next_offset = Some(5)),
        ("K1", |record| record.partitions = 7),
        ("K2", |record| record.claim = layout::ClaimId::fresh()),
        ("K1", |record| record.state = None),
    ];
    for (invariant, change) in changes {
        let (lake, _, shard) = sound().await;
        forge(&lake, &shard, 4, change).await;
        let (found, path, what) = problem(&lake).await;
        assert_eq!((found, path), (invariant, shard.record(4).to_string()), "{what}");
    }

    let (lake, _, shard) = sound().await;
    let bytes = lake.store().read(&shard.record(3)).await.unwrap().unwrap();
    lake.store().overwrite(&shard.record(4), bytes).await.unwrap();
    let report = lake.check().await.unwrap();
    assert!(
        report.problems.iter().any(|p| p.path == shard.record(4).to_string() && p.what.contains("it says")),
        "{report:?}"
    );
    assert!(report.problems.iter().any(|p| p.what.contains("named twice")), "{report:?}");
}

/// Scenario: the state of the newest record is missing or another; an older record's state is gone.
/// Guarantees: K1; the first two are found, the third is how it should be.
#[tokio::test]
async fn a_wrong_state_is_found() {
    for damage in ["missing", "another"] {
        let (lake, _, shard) = sound().await;
        let (record, _) = record::read(lake.store(), &shard, 4).await.unwrap().unwrap();
        let state = Path::from(record.state.unwrap().path);
        match damage {
            "missing" => lake.store().remove(&state).await.unwrap(),
            _ => lake.store().overwrite(&state, "another".into()).await.unwrap(),
        }
        let (invariant, path, _) = problem(&lake).await;
        assert_eq!((invariant, path), ("K1", state.to_string()), "{damage}");
    }
}

/// Scenario: on a local disk a file of an old record still waits in staging; a schema is damaged.
/// Guarantees: S1; both are found, and publishing repairs the first, as the check says, or claiming.
#[tokio::test]
async fn a_file_left_in_staging_and_a_damaged_schema_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, _) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    for at in 0..2 {
        writer.commit(&commit(at + 1, vec![rows("t", at..at + 1)])).await.unwrap();
    }
    drop(writer);
    let place = file(&lake, 0).await;
    let shard = Shard { topic: crate::testing::TOPIC.to_owned(), partition: 0 };
    let waits = shard.staged(&Path::from(place.as_str()));
    std::fs::create_dir_all(folder.path().join(waits.as_ref()).parent().unwrap()).unwrap();
    std::fs::rename(folder.path().join(&place), folder.path().join(waits.as_ref())).unwrap();
    let (invariant, path, what) = problem(&lake).await;
    assert_eq!((invariant, path), ("S1", waits.to_string()));
    assert!(what.contains("staging"), "{what}");
    let copy = crate::testing::copy(folder.path());
    let other = crate::testing::local(copy.path()).await;
    assert_eq!(other.check().await.unwrap().problems[0].repair, PUBLISH);
    other.publish(0).await.unwrap();
    assert_sound(&other).await;
    claim(&lake).await;
    assert_sound(&lake).await;

    lake.store().overwrite(&layout::schema("t", 1), "no schema".into()).await.unwrap();
    let (invariant, path, _) = problem(&lake).await;
    assert_eq!((invariant, path), ("S1", layout::schemas("t").to_string()));
}

/// Scenario: a published table's Delta log is deleted; or one commit of it; or it is ahead of its shard.
/// Guarantees: S1 and K1; each is found and named, the first although no reader meets an error.
#[tokio::test]
async fn a_lost_or_wrong_delta_log_is_found() {
    let (lake, store, _) = sound().await;
    // The newest record, which is never trimmed, names no file of it.
    claim(&lake).await;
    lake.publish(0).await.unwrap();
    assert_sound(&lake).await;
    let log = layout::delta_log("t");
    let first = layout::delta_commit("t", 0);
    let bytes = lake.store().read(&first).await.unwrap().unwrap();
    lake.store().remove(&first).await.unwrap();
    let reader = crate::testing::over(&store);
    assert!(reader.files("t").await.unwrap().is_empty(), "nobody can tell from the table alone");
    let report = reader.check().await.unwrap();
    let found = report.problems.iter().find(|problem| problem.path == log.as_ref()).expect("the lost log is found");
    assert_eq!((found.invariant, found.repair), ("S1", LOG));

    lake.store().create(&layout::delta_commit("t", 1), bytes.clone()).await.unwrap();
    let (invariant, path, what) = problem(&reader).await;
    assert_eq!((invariant, path), ("S1", log.to_string()));
    assert!(what.contains("missing"), "{what}");

    let ahead = String::from_utf8(bytes.to_vec()).unwrap().replace(r#","version":4,"#, r#","version":9,"#);
    assert_ne!(ahead.as_bytes(), &bytes[..]);
    lake.store().remove(&layout::delta_commit("t", 1)).await.unwrap();
    lake.store().create(&first, ahead.into()).await.unwrap();
    let (invariant, path, what) = problem(&reader).await;
    assert_eq!((invariant, path), ("K1", log.to_string()));
    assert!(what.contains("record 9"), "{what}");
}

/// Scenario: the Delta log of a table is lost while records that are not trimmed name other files of it; then the processor commits on, and publishing and retention run, long after; then the log is restored.
/// Guarantees: the check names the log and tells nobody to delete what it named; no new log begins, and nothing of the table is deleted;
/// other tables go on; with the log every row is there again.
#[tokio::test]
async fn a_lost_log_costs_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, _) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    let mut add = async |at: i64| {
        let tables = ["t", "u"].map(|table| rows(table, at * 10..at * 10 + 10)).into();
        writer.commit(&commit((at + 1) * 10, tables)).await.unwrap();
    };
    for at in 0..3 {
        add(at).await;
    }
    lake.publish(0).await.unwrap();
    add(3).await;
    let first = layout::delta_commit("t", 0);
    let log = lake.store().read(&first).await.unwrap().unwrap();
    lake.store().remove(&first).await.unwrap();
    let other = || crate::testing::faulty_local(folder.path()).0;
    let lake = other();
    let problems = lake.check().await.unwrap().problems;
    let told: Vec<_> = problems.iter().map(|problem| (problem.path.clone(), problem.repair)).collect();
    assert_eq!(told, [(layout::delta_log("t").to_string(), LOG)]);
    let later = 200 * 365 * airan_model::time::DAY;
    for now in [0, later] {
        let report = lake.publish(now).await.unwrap();
        let [(table, reason)] = &report.failures[..] else { panic!("{report:?}") };
        assert!(table == "t" && reason.contains("restore it from a copy"), "{reason}");
        assert_eq!(lake.vacuum(now, None).await.unwrap().orphans, 0);
    }
    add(4).await;
    lake.store().create(&first, log).await.unwrap();
    let lake = other();
    lake.publish(0).await.unwrap();
    assert_sound(&lake).await;
    for table in ["t", "u"] {
        assert_eq!(crate::testing::ids(&lake, table).await, (0..50).collect::<Vec<_>>());
    }
}
