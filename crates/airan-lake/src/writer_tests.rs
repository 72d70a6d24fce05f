use object_store::path::Path;
use proptest::prelude::*;

use super::*;
use crate::claim::ClaimError;
use crate::commit::CommitError;
use crate::faults::{Fault, FaultyStore, Op};
use crate::seal::seal;
use crate::testing::{
    SECOND, TOPIC, assert_sound, claim, commit, faulty_local, faulty_object, ids, ids_from, local, over, raw, rows,
    times,
};

/// Scenario: a shard is claimed, committed to, and claimed again; then with another partition count.
/// Guarantees: K1; the next owner gets the offset and the state of the last commit, and rows are read back by time. A
/// changed count is refused, naming both.
#[tokio::test]
async fn a_claim_goes_on_where_the_last_commit_ended() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    let (mut writer, recovered) = lake.claim(TOPIC, 0, 4).await.unwrap();
    assert_eq!(recovered, None);
    for at in 0..5 {
        let summary = writer.commit(&commit((at + 1) * 10, vec![rows("t", at * 10..at * 10 + 10)])).await.unwrap();
        assert_eq!((summary.n, summary.files, summary.rows), (writer.n(), 1, 10));
    }
    drop(writer);
    let (mut writer, recovered) = lake.claim(TOPIC, 0, 4).await.unwrap();
    let recovered = recovered.unwrap();
    assert_eq!((recovered.next_offset, &recovered.state[..]), (50, b"state at 50".as_slice()));
    assert_eq!(recovered.n, writer.n());
    assert_eq!(ids(&lake, "t").await, (0..50).collect::<Vec<_>>());
    assert_eq!(ids_from(&lake, "t", 37 * SECOND).await, (37..50).collect::<Vec<_>>());
    assert!(ids_from(&lake, "t", 50 * SECOND).await.is_empty());
    assert!(ids(&lake, "another").await.is_empty());

    // Nothing but an offset.
    let summary = writer.commit(&commit(51, vec![rows("t", 0..0)])).await.unwrap();
    assert_eq!((summary.files, summary.rows), (0, 0));
    let changed = lake.claim(TOPIC, 0, 5).await.unwrap_err();
    assert!(matches!(changed, ClaimError::PartitionsChanged { recorded: 4, found: 5, .. }), "{changed}");
    assert!(matches!(lake.claim(TOPIC, 4, 4).await, Err(ClaimError::NoShard { .. })));
    assert_sound(&lake).await;
    assert_eq!((lake.metrics().claims.get(), lake.metrics().commits.get(), lake.metrics().rows.get()), (2, 6, 50));
}

/// Scenario: rows of the present, then a backlog of the past, in one date and in another; then a claim and an empty commit.
/// Guarantees: whoever asks for rows from some time on gets them, whatever was committed after them.
#[tokio::test]
async fn rows_from_before_a_backlog_are_found() {
    let (lake, _) = faulty_object();
    let mut writer = claim(&lake).await;
    writer.commit(&commit(1, vec![rows("t", 100_000..100_010), rows("u", 0..1)])).await.unwrap();
    writer.commit(&commit(2, vec![rows("t", 90_000..90_010)])).await.unwrap();
    writer.commit(&commit(3, vec![rows("t", 0..10)])).await.unwrap();
    claim(&lake).await.commit(&commit(4, vec![])).await.unwrap();
    assert_eq!(ids_from(&lake, "t", 100_005 * SECOND).await, (100_005..100_010).collect::<Vec<_>>());
    assert_eq!(
        ids_from(&lake, "t", 90_005 * SECOND).await,
        (90_005..90_010).chain(100_000..100_010).collect::<Vec<_>>()
    );
    assert_eq!(ids(&lake, "t").await.len(), 30);
}

/// Scenario: two owners of one shard; the first has not noticed the second.
/// Guarantees: K2; the first's commit is fenced, for ever, and leaves nothing behind; the second's stands.
#[tokio::test]
async fn an_earlier_claims_commit_is_fenced() {
    for staged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, _) = if staged { faulty_local(folder.path()) } else { faulty_object() };
        let mut first = claim(&lake).await;
        first.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
        let mut second = claim(&lake).await;
        for _ in 0..2 {
            let lost = first.commit(&commit(20, vec![rows("t", 100..110)])).await.unwrap_err();
            assert!(matches!(lost, CommitError::Fenced { partition: 0, .. }), "{lost}");
        }
        second.commit(&commit(20, vec![rows("t", 10..20)])).await.unwrap();
        assert_eq!(ids(&lake, "t").await, (0..20).collect::<Vec<_>>());
        assert_eq!(lake.metrics().fenced.get(), 2);
        let report = lake.check().await.unwrap();
        assert_eq!((report.orphans, report.problems), (0, vec![]), "staged {staged}");
    }
}

/// Scenario: each step of a commit fails before or after it is done, and the same commit is handed in again.
/// Guarantees: K2; an unknown outcome is resolved by reading: the rows are there once, whatever had happened.
#[tokio::test]
async fn the_same_commit_again_is_the_same_commit() {
    for staged in [true, false] {
        for step in ["_schemas/", ".parquet", "_state/", "_commits/"] {
            for fault in [Fault::Before, Fault::After] {
                let what = format!("staged {staged}, {step}, {fault:?}");
                let folder = tempfile::tempdir().unwrap();
                let (lake, store) = if staged { faulty_local(folder.path()) } else { faulty_object() };
                let mut writer = claim(&lake).await;
                let wanted = commit(10, vec![rows("t", 0..10), rows("u", 0..5)]);
                store.next(1, Op::Put, step, fault);
                let mut tries = 1;
                let summary = loop {
                    match writer.commit(&wanted).await {
                        Ok(summary) => break summary,
                        Err(CommitError::Store(_)) if tries < 3 => tries += 1,
                        Err(other) => panic!("{what}: {other}"),
                    }
                };
                assert_eq!(store.heal(), 0, "{what}: the fault was met");
                assert_eq!((summary.n, summary.rows), (2, 15), "{what}");
                // What was done needs no second try: reading finds it.
                assert_eq!(tries, if fault == Fault::After { 1 } else { 2 }, "{what}");
                assert_eq!(ids(&lake, "t").await, (0..10).collect::<Vec<_>>(), "{what}");
                assert_sound(&lake).await;
            }
        }
    }
}

/// A store in which the next record is created, though the writer is told otherwise and cannot look.
fn hide_the_record(store: &FaultyStore) {
    store.next(1, Op::Put, "_commits/", Fault::After);
    store.next(1, Op::Get, "_commits/", Fault::Before);
}

/// Scenario: a commit's record arrives, the writer cannot know, and hands in the same commit again; or another one.
/// Guarantees: K2; the same is the success it had been; another is refused as `Changed`, and the next claim finds the first.
#[tokio::test]
async fn another_commit_after_an_unknown_outcome_is_refused_if_the_first_stands() {
    let (lake, store) = faulty_object();
    let mut writer = claim(&lake).await;
    hide_the_record(&store);
    let first = commit(10, vec![rows("t", 0..10)]);
    assert!(matches!(writer.commit(&first).await, Err(CommitError::Store(_))));
    assert_eq!(writer.commit(&first).await.unwrap().n, 2);

    hide_the_record(&store);
    assert!(matches!(writer.commit(&commit(20, vec![rows("t", 10..20)])).await, Err(CommitError::Store(_))));
    let changed = writer.commit(&commit(25, vec![rows("t", 10..25)])).await.unwrap_err();
    assert!(matches!(changed, CommitError::Changed { n: 3, next_offset: 20 }), "{changed}");
    assert!(matches!(writer.commit(&commit(25, vec![])).await, Err(CommitError::Fenced { .. })));
    let (_, recovered) = lake.claim(TOPIC, 0, 1).await.unwrap();
    assert_eq!(recovered.unwrap().next_offset, 20);
    assert_eq!(ids(&lake, "t").await, (0..20).collect::<Vec<_>>());
    assert_sound(&lake).await;
}

/// Scenario: a commit's record does not arrive, the writer cannot know, and hands in a longer commit instead.
/// Guarantees: K2; the longer one stands, and nothing of the first is read.
#[tokio::test]
async fn another_commit_after_an_unknown_outcome_stands_if_the_first_does_not() {
    for staged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (lake, store) = if staged { faulty_local(folder.path()) } else { faulty_object() };
        let mut writer = claim(&lake).await;
        store.next(1, Op::Put, "_commits/", Fault::Before);
        store.next(1, Op::Get, "_commits/", Fault::Before);
        assert!(matches!(writer.commit(&commit(10, vec![rows("t", 0..10)])).await, Err(CommitError::Store(_))));
        writer.commit(&commit(25, vec![rows("t", 0..25)])).await.unwrap();
        assert_eq!(ids(&lake, "t").await, (0..25).collect::<Vec<_>>());
        claim(&lake).await;
        assert_sound(&lake).await;
    }
}

/// The Parquet files in the tables' folders and those in staging, by what lies on the disk.
fn on_disk(folder: &std::path::Path) -> (usize, usize) {
    let mut found = (0, 0);
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => open.push(path),
                Some("parquet") => found.0 += 1,
                Some("staged") => found.1 += 1,
                _ => {}
            }
        }
    }
    found
}

/// Scenario: on a local disk a process dies after its files and before their record.
/// Guarantees: S1; no glob over the tables ever meets the files, the next claim removes them, and its own commit of the
/// same rows stands alone.
#[tokio::test]
async fn files_of_a_crash_before_the_record_are_removed_by_the_next_claim() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, store) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    store.next(1, Op::Put, "_commits/", Fault::Before);
    assert!(writer.commit(&commit(10, vec![rows("t", 0..10), rows("u", 0..10)])).await.is_err());
    drop(writer);
    assert_eq!(on_disk(folder.path()), (0, 2));
    assert!(lake.files("t").await.unwrap().is_empty());
    let (mut writer, recovered) = lake.claim(TOPIC, 0, 1).await.unwrap();
    assert_eq!(recovered, None);
    assert_eq!((on_disk(folder.path()), lake.metrics().orphans.get()), ((0, 0), 2));
    writer.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    assert_eq!(ids(&lake, "t").await, (0..10).collect::<Vec<_>>());
    assert_sound(&lake).await;
}

/// Scenario: on a local disk a process dies after the record, with none or some of the files in their place.
/// Guarantees: K1; the commit stands and is read at once; the next claim, or the same writer's next commit, puts every
/// file in its place and empties staging.
#[tokio::test]
async fn a_crash_after_the_record_is_finished_by_who_comes_next() {
    for unnamed in [1, 2] {
        for same_writer in [false, true] {
            let what = format!("{unnamed} files unnamed, same writer {same_writer}");
            let folder = tempfile::tempdir().unwrap();
            let (lake, store) = faulty_local(folder.path());
            let mut writer = claim(&lake).await;
            store.next(1, Op::Copy, if unnamed == 2 { "" } else { "t/" }, Fault::Before);
            writer.commit(&commit(10, vec![rows("t", 0..10), rows("u", 0..10)])).await.unwrap();
            assert_eq!(on_disk(folder.path()), (2 - unnamed, 2), "{what}");
            let places: Vec<String> = lake.files("t").await.unwrap().into_iter().map(|file| file.path).collect();
            assert!(places[0].starts_with("_staging/"), "{places:?}");
            assert_eq!(ids(&lake, "t").await, (0..10).collect::<Vec<_>>(), "{what}");

            if !same_writer {
                writer = claim(&lake).await;
                assert_eq!(on_disk(folder.path()), (2, 0), "{what}");
            }
            writer.commit(&commit(20, vec![rows("t", 10..20)])).await.unwrap();
            claim(&lake).await;
            assert_eq!(on_disk(folder.path()), (3, 0), "{what}");
            assert_eq!(ids(&lake, "t").await, (0..20).collect::<Vec<_>>(), "{what}");
            assert_eq!(lake.metrics().orphans.get(), 0, "{what}");
            assert_sound(&lake).await;
        }
    }
}

/// Scenario: a naming is done and the caller is told that it failed.
/// Guarantees: the commit goes on as if it had been told the truth.
#[tokio::test]
async fn a_name_that_was_given_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, store) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    store.next(1, Op::Copy, "t/", Fault::After);
    writer.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    writer.commit(&commit(20, vec![])).await.unwrap();
    assert_eq!((store.heal(), on_disk(folder.path())), (0, (1, 0)));
}

/// Scenario: two processes add different columns to one table; then one changes a column's type, then its time.
/// Guarantees: the table has all columns; the change is refused by name, nothing of that commit is stored, and the writer
/// goes on.
#[tokio::test]
async fn a_tables_columns_grow_and_never_change() {
    let (lake, store) = faulty_object();
    let other = over(&store);
    let mut here = lake.claim(TOPIC, 0, 2).await.unwrap().0;
    let mut there = other.claim(TOPIC, 1, 2).await.unwrap().0;
    let with = |column: &str, values: arrow::array::ArrayRef| raw("t", &[("ts", times(&[1])), (column, values)]);
    let number = || -> arrow::array::ArrayRef { std::sync::Arc::new(arrow::array::Int64Array::from(vec![7])) };
    let text = || -> arrow::array::ArrayRef { std::sync::Arc::new(arrow::array::StringArray::from(vec!["x"])) };
    here.commit(&commit(1, vec![with("a", number())])).await.unwrap();
    there.commit(&commit(1, vec![with("b", number())])).await.unwrap();
    // `here` still remembers the first version only.
    here.commit(&commit(2, vec![with("c", text())])).await.unwrap();
    there.commit(&commit(2, vec![with("a", number())])).await.unwrap();
    let schema = crate::schema::load(lake.store(), "t").await.unwrap().unwrap();
    let names: Vec<&str> = schema.columns.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!((schema.version, names), (3, vec!["ts", "a", "b", "c"]));

    let refused = there.commit(&commit(3, vec![with("c", number())])).await.unwrap_err();
    assert!(
        matches!(&refused, CommitError::Schema { table, source: SchemaError::Type { column, .. } } if table == "t" && column == "c"),
        "{refused}"
    );
    for name in ["_t", "t_latest", "a/b", ""] {
        let refused = there.commit(&commit(3, vec![rows(name, 0..1)])).await.unwrap_err();
        assert!(matches!(refused, CommitError::Schema { source: SchemaError::Name { .. }, .. }), "{name}: {refused}");
    }
    let twice = there.commit(&commit(3, vec![rows("v", 0..1), rows("v", 1..2)])).await.unwrap_err();
    assert!(matches!(twice, CommitError::Schema { source: SchemaError::Name { .. }, .. }), "{twice}");
    there.commit(&commit(3, vec![with("c", text())])).await.unwrap();
    assert_eq!(lake.files("t").await.unwrap().iter().map(|file| file.rows).sum::<u64>(), 5);
    assert_sound(&lake).await;
}

/// Scenario: the newest record, or the state it names, is damaged, or written by a later release.
/// Guarantees: K1; a claim says which object it is and takes nothing over.
#[tokio::test]
async fn a_claim_names_the_object_that_is_damaged() {
    for damage in ["record", "state", "no state", "newer"] {
        let (lake, _) = faulty_object();
        let mut writer = claim(&lake).await;
        writer.commit(&commit(10, vec![])).await.unwrap();
        let path = writer.shard.record(2);
        let (record, bytes) = record::read(lake.store(), &writer.shard, 2).await.unwrap().unwrap();
        let state = Path::from(record.state.as_ref().unwrap().path.as_str());
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 1;
        let named = match damage {
            "record" => {
                lake.store().overwrite(&path, flipped.into()).await.unwrap();
                path
            }
            "state" => {
                lake.store().overwrite(&state, "another".into()).await.unwrap();
                state
            }
            "no state" => {
                lake.store().remove(&state).await.unwrap();
                state
            }
            _ => {
                let newer = seal(&Record { version: RECORD_VERSION + 1, ..record }).unwrap();
                lake.store().overwrite(&path, newer).await.unwrap();
                path
            }
        };
        let error = lake.claim(TOPIC, 0, 1).await.unwrap_err();
        assert!(matches!(error, ClaimError::Read(_)), "{damage}: {error}");
        assert!(error.to_string().contains(named.as_ref()), "{damage}: {error}");
    }
}

/// Scenario: a commit of rows of ten dates, as a node brings them that was away.
/// Guarantees: one file per date, no row left out.
#[tokio::test]
async fn a_backlog_over_many_dates_is_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    let mut writer = claim(&lake).await;
    let at: Vec<i64> = (0..1000).map(|row| (row * 7919 % 1000) * DAY_HUNDREDTH).collect();
    let id = std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(0..1000));
    let summary = writer.commit(&commit(1, vec![raw("t", &[("ts", times(&at)), ("id", id)])])).await.unwrap();
    assert_eq!((summary.files, summary.rows), (10, 1000));
    assert_eq!(ids(&lake, "t").await, (0..1000).collect::<Vec<_>>());
    let dates: Vec<i32> = lake.files("t").await.unwrap().iter().map(|file| file.date).collect();
    assert_eq!(dates, (0..10).collect::<Vec<_>>());
}

const DAY_HUNDREDTH: i64 = airan_model::time::DAY / 100;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The owner commits the next rows, handing the same commit in again while the store fails.
    Commit { rows: i64 },
    /// The owner tries once and dies.
    Die { rows: i64 },
    /// An owner that was fenced and does not know tries once.
    Zombie { rows: i64 },
    /// Another takes the shard.
    Claim,
    /// The next operation of this kind fails.
    Fail { op: Op, fault: Fault, times: u32 },
}

fn act() -> impl Strategy<Value = Act> {
    let fail = (
        prop::sample::select(vec![Op::Put, Op::Put, Op::Put, Op::Copy, Op::Get, Op::Delete]),
        prop::sample::select(vec![Fault::Before, Fault::After]),
        1..3u32,
    );
    prop_oneof![
        4 => (0..5i64).prop_map(|rows| Act::Commit { rows }),
        1 => (0..5i64).prop_map(|rows| Act::Die { rows }),
        1 => (1..5i64).prop_map(|rows| Act::Zombie { rows }),
        1 => Just(Act::Claim),
        4 => fail.prop_map(|(op, fault, times)| Act::Fail { op, fault, times }),
    ]
}

/// Claims however often the store fails.
async fn claim_at_last(lake: &Lake) -> (ShardWriter, i64) {
    for _ in 0..50 {
        match lake.claim(TOPIC, 0, 1).await {
            Ok((writer, recovered)) => return (writer, recovered.map_or(0, |recovered| recovered.next_offset)),
            Err(ClaimError::Store(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("more failures than were asked for");
}

/// Plays `acts`; offset and `id` of a row are the same, so the answer is known: all ids below the last offset, once.
async fn play(lake: Lake, store: std::sync::Arc<FaultyStore>, acts: Vec<Act>) {
    let (mut owner, mut next) = claim_at_last(&lake).await;
    let mut zombie: Option<(ShardWriter, i64)> = None;
    let mut acknowledged = 0;
    for act in acts {
        match act {
            Act::Fail { op, fault, times } => store.next(times, op, "", fault),
            Act::Claim => {
                let taken = claim_at_last(&lake).await;
                zombie = Some((std::mem::replace(&mut owner, taken.0), next));
                next = taken.1;
            }
            Act::Commit { rows: count } => {
                let wanted = commit(next + count, vec![rows("t", next..next + count)]);
                let mut tries = 0;
                while let Err(error) = owner.commit(&wanted).await {
                    assert!(matches!(error, CommitError::Store(_)) && tries < 50, "{error}");
                    tries += 1;
                }
                next += count;
                acknowledged = next;
            }
            Act::Die { rows: count } => {
                let _ = owner.commit(&commit(next + count, vec![rows("t", next..next + count)])).await;
                (owner, next) = claim_at_last(&lake).await;
            }
            Act::Zombie { rows: count } => {
                if let Some((writer, from)) = &mut zombie {
                    let done = writer.commit(&commit(*from + count, vec![rows("t", *from..*from + count)])).await;
                    assert!(done.is_err(), "a fenced owner's commit was taken");
                }
            }
        }
        assert!(next >= acknowledged, "an acknowledged commit is gone");
    }
    store.heal();
    let (_, next) = claim_at_last(&lake).await;
    assert!(next >= acknowledged, "an acknowledged commit is gone");
    assert_eq!(ids(&lake, "t").await, (0..next).collect::<Vec<_>>());
    assert_sound(&lake).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Scenario: owners commit, die, are replaced and come back from the dead, while any operation of the store fails before
    /// or after it is done; on an object store and on a local disk.
    /// Guarantees: K1 and K2; every row below the last offset is in the lake once, none above it, nothing that was
    /// acknowledged is gone, and the lake is sound.
    #[test]
    fn every_row_is_in_the_lake_once_whatever_fails(acts in prop::collection::vec(act(), 1..24), staged: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (lake, store) = if staged { faulty_local(folder.path()) } else { faulty_object() };
        runtime.block_on(play(lake, store, acts));
    }
}
