//! Two small streams, rows of them, and the same query in one shot over all rows: what windows are held against.

use std::sync::Arc;

use airan_model::schema;
use airan_model::time::SECOND;
use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;

use crate::error::PlanError;
use crate::plan::PipelinePlan;
use crate::session::session_context;
use crate::windows::{ClosedWindow, Windows};

/// A row of `meter`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Microseconds.
    pub at: i64,
    pub site: u8,
    pub part: u8,
    pub level: Option<f64>,
    pub whole: Option<i64>,
}

/// A row of site 0, part 0.
pub(crate) fn row(at: i64, level: f64) -> Row {
    Row { at, site: 0, part: 0, level: Some(level), whole: Some(level as i64) }
}

pub(crate) fn meter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", schema::timestamp_type(), true),
        Field::new("site", DataType::Utf8, true),
        Field::new("part", DataType::Utf8, true),
        Field::new("unused", DataType::Utf8, true),
        Field::new("level", DataType::Float64, true),
        Field::new("whole", DataType::Int64, true),
        Field::new("spread_increase", schema::histogram_type(), true),
    ]))
}

pub(crate) fn other_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", schema::timestamp_type(), true),
        Field::new("site", DataType::Utf8, true),
        Field::new("size", DataType::Float64, true),
    ]))
}

pub(crate) fn schema_of(stream: &str) -> Option<SchemaRef> {
    match stream {
        "meter" => Some(meter_schema()),
        "other" => Some(other_schema()),
        _ => None,
    }
}

fn times(at: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Rows of `meter`. The histogram of a row has one observation, in the bucket its part says.
pub(crate) fn meters(rows: &[Row]) -> RecordBatch {
    let (mut bounds, mut counts) = (ListBuilder::new(Float64Builder::new()), ListBuilder::new(Int64Builder::new()));
    for row in rows {
        bounds.append_value([Some(1.0), Some(2.0)]);
        counts.append_value((0..3).map(|bucket| Some(i64::from(bucket == i64::from(row.part) % 3))));
    }
    let sums = Float64Array::from_iter_values(rows.iter().map(|row| f64::from(row.part)));
    let ones = Int64Array::from_iter_values(rows.iter().map(|_| 1));
    let parts: Vec<ArrayRef> =
        vec![Arc::new(bounds.finish()), Arc::new(counts.finish()), Arc::new(sums), Arc::new(ones)];
    let columns: Vec<ArrayRef> = vec![
        times(rows.iter().map(|row| row.at)),
        texts(rows.iter().map(|row| format!("s{}", row.site))),
        texts(rows.iter().map(|row| format!("p{}", row.part))),
        texts(rows.iter().map(|_| String::new())),
        Arc::new(rows.iter().map(|row| row.level).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.whole).collect::<Int64Array>()),
        Arc::new(StructArray::new(schema::histogram_fields(), parts, None)),
    ];
    RecordBatch::try_new(meter_schema(), columns).unwrap()
}

/// Rows of `other`: time, site, size.
pub(crate) fn others(rows: &[(i64, u8, f64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        times(rows.iter().map(|row| row.0)),
        texts(rows.iter().map(|row| format!("s{}", row.1))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(other_schema(), columns).unwrap()
}

pub(crate) async fn plan(sql: &str) -> Arc<PipelinePlan> {
    match try_plan(sql).await {
        Ok(plan) => plan,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

pub(crate) async fn try_plan(sql: &str) -> Result<Arc<PipelinePlan>, PlanError> {
    PipelinePlan::new("test", sql, &schema_of).await
}

pub(crate) async fn open(sql: &str) -> Windows {
    plan(sql).await.open(64 << 20)
}

/// SELECT of `values` of `meter` by site in windows of 10 s.
pub(crate) fn by_site(values: &str) -> String {
    format!(
        "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, {values} FROM meter
         GROUP BY tumble(ts, INTERVAL '10 seconds'), site"
    )
}

/// Rows of result tables as values, in an order of their own; columns in the order of `names`.
pub(crate) fn values(batches: &[RecordBatch], names: &[String]) -> Vec<Vec<ScalarValue>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let value = |name: &String| ScalarValue::try_from_array(batch.column_by_name(name).unwrap(), row).unwrap();
            rows.push(names.iter().map(value).collect::<Vec<_>>());
        }
    }
    rows.sort_by_key(|row| {
        row.iter()
            .filter(|value| !matches!(value, ScalarValue::Float64(_)))
            .map(|v| format!("{v} "))
            .collect::<String>()
    });
    rows
}

/// What the query gives over all rows at once, without windows of ours.
pub(crate) async fn one_shot(sql: &str, meter: &RecordBatch, other: &RecordBatch) -> (Vec<String>, Vec<RecordBatch>) {
    let context = session_context();
    context.register_batch("meter", meter.clone()).unwrap();
    context.register_batch("other", other.clone()).unwrap();
    let frame = context.sql(sql).await.unwrap();
    let names = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    (names, frame.collect().await.unwrap())
}

/// Whether two results say the same: floating numbers up to 1e-9 of their size.
pub(crate) fn assert_same(found: &[Vec<ScalarValue>], wanted: &[Vec<ScalarValue>], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: number of rows\nfound {found:?}\nwanted {wanted:?}");
    for (found, wanted) in found.iter().zip(wanted) {
        let is_same = found.iter().zip(wanted).all(|pair| match pair {
            (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
                a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9)
            }
            (ScalarValue::Int64(Some(a)), ScalarValue::UInt64(Some(b))) => u64::try_from(*a) == Ok(*b),
            (a, b) => a == b,
        });
        assert!(is_same, "{what}\nfound  {found:?}\nwanted {wanted:?}");
    }
}

/// Result rows of closed windows.
pub(crate) fn tables(closed: &[ClosedWindow]) -> Vec<RecordBatch> {
    closed.iter().map(|window| window.rows.clone()).collect()
}

/// A column of floating numbers of closed windows, in order.
pub(crate) fn floats(closed: &[ClosedWindow], name: &str) -> Vec<Option<f64>> {
    let column = |window: &ClosedWindow| {
        let column = arrow::compute::cast(window.rows.column_by_name(name).unwrap(), &DataType::Float64).unwrap();
        arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(&column).iter().collect::<Vec<_>>()
    };
    closed.iter().flat_map(column).collect()
}

/// Starts of closed windows in seconds.
pub(crate) fn starts(closed: &[ClosedWindow]) -> Vec<i64> {
    closed.iter().map(|window| window.start / SECOND).collect()
}
