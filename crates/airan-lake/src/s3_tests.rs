//! A lake in a bucket, against a server that speaks S3. `tests/s3.sh` starts one and sets the variables:
//!
//! - `AIRAN_S3`: its endpoint, as `http://127.0.0.1:5000`; it has a bucket `airan`. Without it these tests do nothing.
//! - `AIRAN_S3_DEAF`: an endpoint of the same bucket that ignores the condition of a put.

use airan_model::time::Micros;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use object_store::PutPayload;
use object_store::path::Path;

use crate::claim::ClaimError;
use crate::commit::CommitError;
use crate::lake::Lake;
use crate::settings::LakeSettings;
use crate::store::OpenLakeError;
use crate::testing::{SECOND, TOPIC, assert_sound, clock, commit, ids, ids_from, rows};

/// Settings for a fresh prefix of the bucket behind the endpoint in `variable`.
fn settings(variable: &str) -> Option<LakeSettings> {
    let Ok(endpoint) = std::env::var(variable) else {
        eprintln!("{variable} is not set: not tested");
        return None;
    };
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", "test"),
        ("aws_secret_access_key", "test"),
        ("aws_allow_http", "true"),
    ];
    let path = format!("s3://airan/lake-{:016x}", rand::random::<u64>());
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned().into())).into();
    Some(LakeSettings { path, options, ..crate::testing::settings(std::path::Path::new("")) })
}

/// The `id`s of table `t`, sorted.
async fn by_sql(lake: &Lake) -> Vec<i64> {
    let context = SessionContext::new();
    lake.register(&context).await.unwrap();
    let sql = "SELECT id FROM t WHERE site >= 's0' ORDER BY id";
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// Scenario: two owners of a shard of a lake in a bucket; commits, a fenced one, SQL, compaction, erasure, retention, a reopened handle.
/// Guarantees: K1, K2 and S1 hold where the bucket arbitrates; the fenced commit's files are gone.
#[tokio::test]
async fn s3_carries_a_lake() {
    let Some(mut settings) = settings("AIRAN_S3") else { return };
    let lake = Lake::open(&settings, clock()).await.unwrap();
    let (mut first, recovered) = lake.claim(TOPIC, 0, 2).await.unwrap();
    assert_eq!(recovered, None);
    first.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    first.commit(&commit(20, vec![rows("t", 10..20)])).await.unwrap();
    let (mut second, recovered) = lake.claim(TOPIC, 0, 2).await.unwrap();
    let recovered = recovered.unwrap();
    assert_eq!((recovered.next_offset, &recovered.state[..]), (20, b"state at 20".as_slice()));
    let fenced = first.commit(&commit(30, vec![rows("t", 90..99)])).await.unwrap_err();
    assert!(matches!(fenced, CommitError::Fenced { .. }), "{fenced}");
    second.commit(&commit(30, vec![rows("t", 86_400..86_410)])).await.unwrap();
    assert!(matches!(lake.claim(TOPIC, 0, 3).await, Err(ClaimError::PartitionsChanged { .. })));

    let reader = Lake::open_to_read(&settings, clock()).await.unwrap();
    let expected: Vec<i64> = (0..20).chain(86_400..86_410).collect();
    assert_eq!(ids(&reader, "t").await, expected);
    assert_eq!(ids_from(&reader, "t", 15 * SECOND).await, expected[15..]);
    assert_eq!(by_sql(&reader).await, expected);
    let report = reader.check().await.unwrap();
    assert_eq!((report.files, report.rows, report.orphans, report.problems), (3, 30, 0, vec![]));

    let published = lake.publish(SECOND).await.unwrap();
    assert_eq!((published.files, published.records, published.failures), (3, 2, vec![]));
    let mut delta = crate::delta::DeltaTable::load(&lake, "t").await.unwrap().unwrap();
    delta.checkpoint(SECOND).await.unwrap();
    lake.store().remove(&crate::layout::delta_commit("t", 0)).await.unwrap();
    let reader = Lake::open_to_read(&settings, clock()).await.unwrap();
    assert_eq!(ids(&reader, "t").await, expected, "from the checkpoint");
    let report = reader.check().await.unwrap();
    assert_eq!((report.published, report.deltas, report.problems), (3, 1, vec![]));
    let compacted = lake.compact(None, clock().now(), |_| {}).await.unwrap();
    assert_eq!((compacted.files_in, compacted.rows_out, compacted.failures), (2, 20, vec![]));
    assert_eq!(by_sql(&reader).await, expected);
    let mut erasure = lake.begin_erasure("id = 3", &[], clock().now()).await.unwrap();
    let erased = lake.erase(&mut erasure, clock().now(), |_| {}).await.unwrap();
    assert_eq!(erased.tables[0].rows, 1);
    lake.finish_erasure(&erasure).await.unwrap();
    assert_eq!(by_sql(&reader).await, expected.iter().copied().filter(|id| *id != 3).collect::<Vec<_>>());

    settings.raw_retention = std::time::Duration::from_secs(3600).into();
    let lake = Lake::open(&settings, clock()).await.unwrap();
    let report = lake.expire(86_400 * SECOND, None as Option<Micros>).await.unwrap();
    assert_eq!((report.files, report.rows), (1, 19));
    assert_eq!(ids(&lake, "t").await, expected[20..]);
    assert_sound(&lake).await;
}

/// Scenario: three uploads in parts: one of two parts is completed, and then aborted by somebody who had not heard of that; one is
/// aborted, twice; one is cut off. Vacuum looks a day later, twice.
/// Guarantees: the bucket says of an upload that is over that it is not there, so no note of one stays; what was cut off is
/// aborted, and is no object.
#[tokio::test]
async fn s3_forgets_uploads_that_were_cut_off() {
    let Some(settings) = settings("AIRAN_S3") else { return };
    let lake = Lake::open(&settings, clock()).await.unwrap();
    let path = |name: &str| Path::from(format!("t/{name}"));
    let begin = async |name: &str| {
        let mut upload = lake.store().upload(&path(name)).await.unwrap();
        upload.put_part(PutPayload::from(vec![1; 5 << 20])).await.unwrap();
        upload
    };
    let (mut whole, mut given_up, cut_off) = (begin("whole").await, begin("given-up").await, begin("cut-off").await);
    whole.put_part(PutPayload::from_static(b"end")).await.unwrap();
    whole.complete().await.unwrap();
    whole.abort().await.unwrap();
    given_up.abort().await.unwrap();
    given_up.abort().await.unwrap();
    drop(cut_off);
    let notes = lake.store().list(&Path::from("_uploads")).await.unwrap();
    let [note] = &notes[..] else { panic!("{notes:?}") };
    let a_day_later = note.last_modified.timestamp_micros() + airan_model::time::DAY;
    assert_eq!(lake.clear_uploads(a_day_later).await.unwrap(), 1);
    assert_eq!(lake.clear_uploads(a_day_later).await.unwrap(), 0);
    assert!(lake.store().list(&Path::from("_uploads")).await.unwrap().is_empty());
    assert_eq!(lake.store().size(&path("whole")).await.unwrap(), Some((5 << 20) + 3));
    for name in ["given-up", "cut-off"] {
        assert_eq!(lake.store().size(&path(name)).await.unwrap(), None, "{name}");
    }
}

/// Scenario: a store whose server ignores `If-None-Match`, as some compatible ones do.
/// Guarantees: K2's ground; it is refused when the lake is opened to write, with the reason.
#[tokio::test]
async fn s3_that_ignores_the_condition_is_refused() {
    let Some(settings) = settings("AIRAN_S3_DEAF") else { return };
    let refused = Lake::open(&settings, clock()).await.unwrap_err();
    assert!(matches!(refused, OpenLakeError::NoPutIfAbsent { .. }), "{refused}");
    assert!(refused.to_string().contains("If-None-Match"), "{refused}");
}
