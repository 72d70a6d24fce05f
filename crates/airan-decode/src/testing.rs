//! What the decoders' tests share: the built-in catalog, and rows in a form that is easy to compare.

use std::sync::{Arc, LazyLock};

use airan_model::catalog::Catalog;
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use airan_model::time::{Micros, format_rfc3339};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::{Map, Value};

use crate::{Context, Decoded};

/// 2026-11-24T10:00:00Z.
pub(crate) const NOW: Micros = 1_795_514_400_000_000;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());

pub(crate) fn catalog() -> &'static Catalog {
    &CATALOG
}

pub(crate) fn context() -> Context<'static> {
    Context { catalog: catalog(), limits: &Limits::DOCUMENTED, default_node: "sender", now: NOW }
}

/// Rows of a stream as JSON objects, without nulls.
pub(crate) fn rows(decoded: &Decoded, stream: &str) -> Vec<Map<String, Value>> {
    let Some(rows) = decoded.rows.iter().find(|rows| &*rows.stream.name == stream) else { return Vec::new() };
    // Times as text: arrow writes "UTC" only with a feature this crate does not ask for.
    let schema = rows.rows.schema();
    let columns = schema.fields().iter().zip(rows.rows.columns()).map(|(field, column)| {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let text = |times: &TimestampMicrosecondArray| -> ArrayRef {
            Arc::new(times.iter().map(|at| at.map(format_rfc3339)).collect::<StringArray>())
        };
        (field.name().clone(), times.map_or_else(|| Arc::clone(column), text), true)
    });
    let columns: Vec<(String, ArrayRef, bool)> = columns.collect();
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write(&RecordBatch::try_from_iter_with_nullable(columns).unwrap()).unwrap();
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

/// The one row of a stream.
pub(crate) fn row(decoded: &Decoded, stream: &str) -> Map<String, Value> {
    let rows = rows(decoded, stream);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().unwrap()
}

/// The one row of a stream that is as wanted.
pub(crate) fn one(decoded: &Decoded, stream: &str, is: impl Fn(&Map<String, Value>) -> bool) -> Map<String, Value> {
    let mut found: Vec<_> = rows(decoded, stream).into_iter().filter(|row| is(row)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// That a row has these values, and nothing in the columns given as null.
pub(crate) fn has(row: &Map<String, Value>, values: &Value) {
    for (column, value) in values.as_object().unwrap() {
        assert_eq!(row.get(column).unwrap_or(&Value::Null), value, "{column} of {row:?}");
    }
}

/// A file of this crate's `fixtures`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Counts by reason, in the order they occurred.
pub(crate) fn refused(decoded: &Decoded) -> Vec<(Reason, u64)> {
    decoded.refused.iter().map(|refused| (refused.reason, refused.count)).collect()
}

/// What holds for every result: the sums, and rows that fit their streams.
pub(crate) fn check(decoded: &Decoded) {
    let tally = &decoded.tally;
    assert_eq!(tally.samples, tally.sentinels + tally.columns + tally.sample_rows + tally.refused, "{tally:?}");
    assert_eq!(tally.refused, decoded.refused.iter().map(|refused| refused.count).sum::<u64>());
    let mut names: Vec<&str> = decoded.rows.iter().map(|rows| &*rows.stream.name).collect();
    names.dedup();
    assert_eq!(names.len(), decoded.rows.len(), "each stream once");
    for rows in &decoded.rows {
        assert!(rows.rows.num_rows() > 0);
        let full = rows.stream.conform(&rows.rows).unwrap();
        assert_eq!(full.column_by_name("ts").unwrap().null_count(), 0);
        assert_eq!(full.column_by_name("node").unwrap().null_count(), 0);
        for (field, column) in rows.rows.schema().fields().iter().zip(rows.rows.columns()) {
            assert!(column.null_count() < column.len(), "{} has no value", field.name());
            assert!(rows.stream.place_of(field.name()).is_some(), "{}", field.name());
        }
    }
    let sample = decoded.rows.iter().find(|rows| &*rows.stream.name == "sample");
    assert_eq!(sample.map_or(0, |rows| rows.rows.num_rows()) as u64, tally.sample_rows);
}
