use airan_model::time::DAY;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use datafusion::datasource::physical_plan::FileScanConfig;
use futures::TryStreamExt;

use super::*;
use crate::commit::TableRows;
use crate::faults::{Fault, Op};
use crate::testing::{
    SECOND, TOPIC, WindowRow, assert_sound, claim, commit, faulty_local, faulty_object, local, nested_rows, raw, rows,
    times, windows,
};

async fn session(lake: &Lake) -> SessionContext {
    let context = SessionContext::new();
    lake.register(&context).await.unwrap();
    context
}

async fn query(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

/// The values of a query's only column, an integer.
async fn integers(context: &SessionContext, sql: &str) -> Vec<i64> {
    let batches = query(context, sql).await;
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// How many files the plan of `sql` opens.
async fn files_read(context: &SessionContext, sql: &str) -> usize {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let mut open = vec![plan];
    let mut files = 0;
    while let Some(plan) = open.pop() {
        let source = plan.downcast_ref::<DataSourceExec>().and_then(|exec| exec.data_source().downcast_ref());
        if let Some(config) = source {
            let config: &FileScanConfig = config;
            files += config.file_groups.iter().map(FileGroup::len).sum::<usize>();
        }
        open.extend(plan.children().into_iter().cloned());
    }
    files
}

/// Rows 0..30 of one table, ten a date and file.
async fn three_dates(lake: &Lake) {
    let mut writer = claim(lake).await;
    for date in 0..3 {
        let at: Vec<Micros> = (0..10).map(|row| date * DAY + row * SECOND).collect();
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(date * 10..date * 10 + 10));
        let rows = raw("t", &[("ts", times(&at)), ("id", id)]);
        writer.commit(&commit(date + 1, vec![rows])).await.unwrap();
    }
}

/// Scenario: rows with a map and a histogram, whose children have other names in the file than in the table's types.
/// Guarantees: SQL and whoever rebuilds windows have every value, in the table's types; so do filters on an attribute.
#[tokio::test]
async fn nested_values_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    let rows = nested_rows("t", 0..9);
    claim(&lake).await.commit(&commit(1, vec![rows.clone()])).await.unwrap();
    let context = session(&lake).await;
    let found = query(&context, "SELECT ts, site, id, attributes, histogram FROM t ORDER BY id").await;
    let [found] = &found[..] else { panic!("{} batches", found.len()) };
    assert_eq!(found.columns(), rows.batches[0].columns());
    let sql = "SELECT histogram['count'] FROM t WHERE attributes['k'] = 'v5' OR histogram['counts'][1] = 6 ORDER BY id";
    assert_eq!(integers(&context, sql).await, [6, 7]);
    let raw: Vec<RecordBatch> = lake.raw_rows(TOPIC, 0, "t", 0).await.unwrap().try_collect().await.unwrap();
    let raw = arrow::compute::concat_batches(&raw[0].schema(), &raw).unwrap();
    let by_site: UInt32Array = (0..3).flat_map(|site| (site..9).step_by(3)).collect();
    let wanted = take_record_batch(&rows.batches[0], &by_site).unwrap();
    assert_eq!(raw.columns(), wanted.columns());
}

/// Scenario: a file lies in a table's folder that no record names: a copy, as of a restored backup or a torn run.
/// Guarantees: S1; SQL, the list of files and raw rows do not see it, and `check` says that it is there.
#[tokio::test]
async fn a_file_that_no_record_names_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    three_dates(&lake).await;
    let known = &lake.files("t").await.unwrap()[0];
    let stray = known.path.replace("0-0000", "7-0000");
    assert_ne!(stray, known.path);
    std::fs::copy(folder.path().join(&known.path), folder.path().join(&stray)).unwrap();
    let context = session(&lake).await;
    assert_eq!(integers(&context, "SELECT id FROM t ORDER BY id").await, (0..30).collect::<Vec<_>>());
    assert_eq!(integers(&context, "SELECT count(*) FROM t").await, [30]);
    assert_eq!(lake.files("t").await.unwrap().len(), 3);
    let report = lake.check().await.unwrap();
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!((problem.invariant, &problem.path), ("S1", &stray));
}

/// Scenario: queries with conditions on date and time over files of three dates, directly and through a view.
/// Guarantees: only files that can hold an answer are opened; the answers are the same as without choosing.
#[tokio::test]
async fn only_files_that_can_answer_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    three_dates(&lake).await;
    let context = session(&lake).await;
    for (condition, files, ids) in [
        ("true", 3, 0..30),
        ("date = '1970-01-02'", 1, 10..20),
        ("date >= '1970-01-02'", 2, 10..30),
        ("date = '1999-01-01'", 0, 0..0),
        ("ts < TIMESTAMP '1970-01-01T00:00:05Z'", 1, 0..5),
        ("ts >= TIMESTAMP '1970-01-02T00:00:05Z' AND ts < TIMESTAMP '1970-01-03T00:00:00Z'", 1, 15..20),
        ("ts > TIMESTAMP '1970-01-03T00:00:09Z'", 0, 0..0),
        ("id = 25", 3, 25..26),
    ] {
        let sql = format!("SELECT id FROM t WHERE {condition} ORDER BY id");
        assert_eq!(integers(&context, &sql).await, ids.collect::<Vec<_>>(), "{condition}");
        assert_eq!(files_read(&context, &sql).await, files, "{condition}");
    }
    assert_eq!(integers(&context, "SELECT id FROM t LIMIT 3").await.len(), 3);
    let kinds = query(&context, "SELECT date, ts FROM t WHERE id = 0").await;
    let types: Vec<String> = kinds[0].schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Date32", "Timestamp(µs, \"UTC\")"]);
}

/// Scenario: results of windows of two shards, some restated, once or twice, one with a null key.
/// Guarantees: the view has each (keys, window start) once, with its newest revision; a condition on the time reaches the
/// files through it; the table itself keeps all revisions.
#[tokio::test]
async fn the_view_has_the_newest_revision_of_each_result() {
    let (lake, _) = faulty_object();
    let mut here = lake.claim(TOPIC, 0, 2).await.unwrap().0;
    let mut there = lake.claim(TOPIC, 1, 2).await.unwrap().0;
    let day: i64 = 86_400;
    let first: &[WindowRow<'_>] =
        &[(0, Some("a"), 1, 0), (0, None, 2, 0), (10, Some("a"), 3, 0), (day, Some("a"), 4, 0)];
    let restated: &[WindowRow<'_>] = &[(10, Some("a"), 31, 1), (0, None, 21, 1), (10, Some("a"), 32, 2)];
    here.commit(&commit(1, vec![windows("w", first)])).await.unwrap();
    there.commit(&commit(1, vec![windows("w", &[(0, Some("b"), 5, 0)])])).await.unwrap();
    here.commit(&commit(2, vec![windows("w", restated)])).await.unwrap();
    let context = session(&lake).await;
    assert_eq!(integers(&context, "SELECT value FROM w_latest ORDER BY value").await, [1, 4, 5, 21, 32]);
    assert_eq!(integers(&context, "SELECT count(*) FROM w").await, [8]);
    assert_eq!(integers(&context, "SELECT value FROM w_latest WHERE site IS NULL").await, [21]);
    let sql = "SELECT value FROM w_latest WHERE window_start >= TIMESTAMP '1970-01-02T00:00:00Z'";
    assert_eq!((integers(&context, sql).await, files_read(&context, sql).await), (vec![4], 1));
    let sql = "SELECT value FROM w_latest WHERE date = '1970-01-02'";
    assert_eq!((integers(&context, sql).await, files_read(&context, sql).await), (vec![4], 1));
    // What is asked of the table is asked of the view: the same columns.
    let columns = |sql: &'static str| {
        let context = context.clone();
        async move { context.sql(sql).await.unwrap().schema().field_names() }
    };
    let unqualified = |names: Vec<String>| -> Vec<String> {
        names.iter().map(|name| name.rsplit('.').next().unwrap_or_default().to_owned()).collect()
    };
    let all = unqualified(columns("SELECT * FROM w").await);
    assert_eq!(unqualified(columns("SELECT * FROM w_latest").await), all);
    assert_eq!(all, ["window_start", "site", "value", "revision", "date"]);
}

/// Scenario: a window of a site with two groups is restated, and then has only one.
/// Guarantees: the view shows what the newest revision of the site's window says, and no group of an older one.
#[tokio::test]
async fn a_group_that_a_restatement_no_longer_has_is_gone_from_the_view() {
    let (lake, _) = faulty_object();
    let mut writer = claim(&lake).await;
    let of = |site: &str, groups: &[(&str, i64)], revision: i32| {
        let start: ArrayRef = times(&vec![0; groups.len()]);
        let mut table = raw(
            "w",
            &[
                ("window_start", start),
                ("site", Arc::new(StringArray::from_iter_values(groups.iter().map(|_| site)))),
                ("part", Arc::new(StringArray::from_iter_values(groups.iter().map(|group| group.0)))),
                ("value", Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| group.1)))),
                ("revision", Arc::new(arrow::array::Int32Array::from_iter_values(groups.iter().map(|_| revision)))),
            ],
        );
        table.kind = TableKind::Windows { keys: vec!["site".to_owned(), "part".to_owned()] };
        table.time_column = "window_start";
        table
    };
    writer.commit(&commit(1, vec![of("a", &[("x", 1), ("y", 2)], 0)])).await.unwrap();
    writer.commit(&commit(2, vec![of("b", &[("x", 3), ("y", 4)], 0)])).await.unwrap();
    writer.commit(&commit(3, vec![of("a", &[("x", 11)], 1)])).await.unwrap();
    let context = session(&lake).await;
    assert_eq!(integers(&context, "SELECT value FROM w_latest ORDER BY value").await, [3, 4, 11]);
}

/// Scenario: a commit comes while a session is open; then the session registers again. A table that never had a row yet.
/// Guarantees: a session sees one moment; registering again shows the next.
#[tokio::test]
async fn a_session_sees_one_moment() {
    let (lake, _) = faulty_object();
    assert!(lake.tables().await.unwrap().is_empty());
    let mut writer = claim(&lake).await;
    writer.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    let context = session(&lake).await;
    writer.commit(&commit(20, vec![rows("t", 10..20), rows("u", 0..1)])).await.unwrap();
    assert_eq!(integers(&context, "SELECT count(*) FROM t").await, [10]);
    assert_eq!(integers(&context, "SELECT count(id) FROM t").await, [10]);
    assert!(context.sql("SELECT * FROM u").await.is_err());
    lake.register(&context).await.unwrap();
    assert_eq!(integers(&context, "SELECT count(id) FROM t").await, [20]);
    assert_eq!(integers(&context, "SELECT count(id) FROM u").await, [1]);
    assert_eq!(lake.tables().await.unwrap(), ["t", "u"]);
}

/// Scenario: a column, plain or a struct, is in the second file only.
/// Guarantees: it is null in the rows of the first; nothing else changes.
#[tokio::test]
async fn rows_from_before_a_column_have_null_in_it() {
    let (lake, _) = faulty_object();
    let mut writer = claim(&lake).await;
    writer.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    let power: ArrayRef = Arc::new(Int64Array::from_iter_values(10..20));
    let histogram: ArrayRef =
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("count", DataType::Int64, true)), Arc::clone(&power))]));
    let mut wider = rows("t", 10..20);
    let batch = &wider.batches[0];
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), Arc::clone(c)));
    let columns: Vec<(String, ArrayRef)> =
        columns.chain([("power".to_owned(), power), ("delay".to_owned(), histogram)]).collect();
    wider = TableRows { batches: vec![RecordBatch::try_from_iter(columns).unwrap()], ..wider };
    writer.commit(&commit(20, vec![wider])).await.unwrap();
    let context = session(&lake).await;
    assert_eq!(integers(&context, "SELECT sum(power) FROM t").await, [145]);
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE power IS NULL AND delay IS NULL").await, [10]);
    assert_eq!(integers(&context, "SELECT sum(delay['count']) FROM t").await, [145]);
    let kept = query(&context, "SELECT * FROM t WHERE id < 10").await;
    assert_eq!(kept.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    assert!(kept.iter().all(|batch| batch["power"].null_count() == batch.num_rows()));
}

/// Scenario: a session finds a file in staging; before it reads, the file gets its place and staging is swept.
/// Guarantees: the query reads it in its place.
#[tokio::test]
async fn a_file_that_moves_under_a_query_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, store) = faulty_local(folder.path());
    let mut writer = claim(&lake).await;
    store.next(1, Op::Copy, "t/", Fault::Before);
    writer.commit(&commit(10, vec![rows("t", 0..10)])).await.unwrap();
    let context = session(&lake).await;
    let waiting = lake.raw_rows(TOPIC, 0, "t", Micros::MIN).await.unwrap();
    assert!(lake.files("t").await.unwrap()[0].path.starts_with("_staging/"));
    claim(&lake).await;
    assert!(!lake.files("t").await.unwrap()[0].path.starts_with("_staging/"));
    assert_eq!(integers(&context, "SELECT id FROM t ORDER BY id").await, (0..10).collect::<Vec<_>>());
    let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(waiting).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
}

/// Scenario: files are published, then taken out, between the moment a session, and a reader of raw rows, has found them and
/// reads them; a day later they are deleted.
/// Guarantees: within the day the query and the reader see their snapshot; after it they fail and say what to do, instead of
/// missing rows; a session that registers anew sees what counts.
#[tokio::test]
async fn what_is_taken_out_under_a_query_is_held_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let lake = local(folder.path()).await;
    three_dates(&lake).await;
    let (early, raw) = (session(&lake).await, lake.raw_rows(TOPIC, 0, "t", Micros::MIN).await.unwrap());
    lake.publish(0).await.unwrap();
    let (context, later) = (session(&lake).await, lake.raw_rows(TOPIC, 0, "t", Micros::MIN).await.unwrap());
    let now = 100 * 365 * DAY + DAY + 1;
    let report = lake.expire(now, None).await.unwrap();
    assert_eq!((report.files, report.rows), (1, 10));
    for context in [&early, &context] {
        assert_eq!(integers(context, "SELECT id FROM t ORDER BY id").await, (0..30).collect::<Vec<_>>());
    }
    let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(raw).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 30);
    assert_eq!(integers(&session(&lake).await, "SELECT id FROM t ORDER BY id").await, (10..30).collect::<Vec<_>>());
    assert_sound(&lake).await;

    lake.vacuum(now + DAY, None).await.unwrap();
    let failed = context.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(failed.to_string().contains("run it again"), "{failed}");
    let gone = futures::TryStreamExt::try_collect::<Vec<RecordBatch>>(later).await.unwrap_err();
    assert!(matches!(gone, crate::record::ReadError::Gone { .. }), "{gone}");
    lake.register(&context).await.unwrap();
    assert_eq!(integers(&context, "SELECT id FROM t ORDER BY id").await, (10..30).collect::<Vec<_>>());
}
