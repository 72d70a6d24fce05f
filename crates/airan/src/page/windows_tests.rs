use std::sync::Arc;

use airan_model::time::SECOND;
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

use super::*;

/// A row of a window table: site, start in seconds, device, revision, value.
type Row<'a> = (&'a str, i64, Option<&'a str>, i64, Option<f64>);

fn shown() -> PipelineView {
    let column = Column { name: "power_watts".to_owned(), unit: "watts", help: String::new(), is_added: false };
    let gone = Column { name: "not_yet_ratio".to_owned(), ..column.clone() };
    PipelineView {
        name: "load".to_owned(),
        about: String::new(),
        width_seconds: 10.0,
        keys: vec!["device".to_owned()],
        columns: vec![column, gone],
        table: "load".to_owned(),
    }
}

/// A session with these rows as a window table and its view.
fn context(rows: &[Row]) -> SessionContext {
    let times = rows.iter().map(|(_, start, ..)| start * SECOND).collect::<Vec<_>>();
    let columns: [(&str, ArrayRef, bool); 7] = [
        (START, Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")), false),
        (REGION, Arc::new(StringArray::from(vec!["north"; rows.len()])), true),
        (SITE, Arc::new(rows.iter().map(|(site, ..)| Some(*site)).collect::<StringArray>()), true),
        ("device", Arc::new(rows.iter().map(|(_, _, device, ..)| *device).collect::<StringArray>()), true),
        (REVISION, Arc::new(Int64Array::from_iter_values(rows.iter().map(|(.., revision, _)| *revision))), false),
        (COMPLETENESS, Arc::new(Float64Array::from(vec![None::<f64>; rows.len()])), true),
        ("power_watts", Arc::new(rows.iter().map(|(.., value)| *value).collect::<Float64Array>()), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let context = SessionContext::new();
    context.register_batch("load", batch.clone()).unwrap();
    context.register_batch("load_latest", batch).unwrap();
    context
}

/// Scenario: two devices of a site and one of another; a window without a value, one that was restated, one before `from`, a
/// device without a name, NaN; a site whose name is SQL.
/// Guarantees: a site's windows and no others, oldest first by device; revisions are told; what is absent is null, never 0.
#[tokio::test]
async fn the_windows_of_a_site_are_told_by_entity() {
    let hostile = "a' OR '1'='1";
    let context = context(&[
        ("a", 30, Some("g0"), 1, Some(3.0)),
        ("a", 10, Some("g0"), 0, Some(1.0)),
        ("a", 20, Some("g0"), 0, None),
        ("a", 20, None, 0, Some(f64::NAN)),
        ("a", 0, Some("g0"), 0, Some(9.0)),
        ("b", 20, Some("g0"), 0, Some(7.0)),
        (hostile, 20, Some("g0"), 0, Some(8.0)),
    ]);
    let told = of_site(&context, &shown(), "a", 5 * SECOND, 60 * SECOND).await.unwrap();
    assert_eq!((told.from, told.to, told.is_cut), (5_000, 60_000, false));
    assert_eq!(told.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["power_watts"]);
    let region = || Some("north".to_owned());
    let unnamed = Series {
        region: region(),
        entity: vec![None],
        start: vec![20_000],
        revision: vec![0],
        completeness: vec![None],
        values: vec![vec![None]],
    };
    let g0 = Series {
        region: region(),
        entity: vec![Some("g0".to_owned())],
        start: vec![10_000, 20_000, 30_000],
        revision: vec![0, 0, 1],
        completeness: vec![None; 3],
        values: vec![vec![Some(1.0), None, Some(3.0)]],
    };
    assert_eq!(told.series, [unnamed, g0]);
    let told = of_site(&context, &shown(), hostile, 0, 60 * SECOND).await.unwrap();
    assert_eq!(told.series.iter().map(|one| one.values[0].clone()).collect::<Vec<_>>(), [[Some(8.0)]]);

    let told = sites(&context, &[shown()], 5 * SECOND).await.unwrap();
    let names: Vec<(&str, i64, bool)> =
        told.sites.iter().map(|site| (site.site.as_str(), site.newest, site.pipelines["load"].is_restated)).collect();
    assert_eq!(names, [("a", 30_000, true), (hostile, 20_000, false), ("b", 20_000, false)]);
    let other = PipelineView { table: "never_written".to_owned(), ..shown() };
    assert!(of_site(&context, &other, "a", 0, 0).await.unwrap().series.is_empty());
    assert!(sites(&context, &[other], 0).await.unwrap().sites.is_empty());
}

/// Scenario: one row more than are told, in windows of two rows; then all in one window.
/// Guarantees: the newest are told, no window in part, and the answer says from when on; it is never longer than the limit.
#[tokio::test]
async fn more_rows_than_are_told_leave_the_oldest_windows_off() {
    let rows: Vec<Row> =
        (0..=ROWS_MAX as i64).map(|row| ("a", row / 2, Some(["x", "y"][(row % 2) as usize]), 0, None)).collect();
    let told = of_site(&context(&rows), &shown(), "a", 0, 0).await.unwrap();
    assert_eq!((told.is_cut, told.from), (true, 1_000));
    assert_eq!(told.series.iter().map(|one| one.start.len()).sum::<usize>(), ROWS_MAX - 1);
    assert_eq!(told.series[0].start[0], 1_000);
    let exact = &rows[..ROWS_MAX];
    assert!(!of_site(&context(exact), &shown(), "a", 0, 0).await.unwrap().is_cut);

    let names: Vec<String> = (0..ROWS_MAX + 5).map(|name| name.to_string()).collect();
    let rows: Vec<Row> = names.iter().map(|name| ("a", 0, Some(name.as_str()), 0, Some(1.0))).collect();
    let told = of_site(&context(&rows), &shown(), "a", 0, 0).await.unwrap();
    assert_eq!((told.is_cut, told.series.len()), (true, ROWS_MAX));
}

/// Scenario: more sites than are told.
#[tokio::test]
async fn more_sites_than_are_told_are_cut() {
    let names: Vec<String> = (0..SITES_MAX + 1).map(|name| format!("{name:05}")).collect();
    let rows: Vec<Row> = names.iter().map(|name| (name.as_str(), 0, None, 0, None)).collect();
    let told = sites(&context(&rows), &[shown()], 0).await.unwrap();
    assert_eq!((told.is_cut, told.sites.len()), (true, SITES_MAX));
    let told = sites(&context(&rows[1..]), &[shown()], 0).await.unwrap();
    assert_eq!((told.is_cut, told.sites.len()), (false, SITES_MAX));
}
