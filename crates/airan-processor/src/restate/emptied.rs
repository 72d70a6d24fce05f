//! Windows that a restatement leaves without a group.
//!
//! A restatement says everything of a window of a site, by appending it at revision + 1. Where it finds no group, because the
//! pipeline was corrected or a late row changed what its `HAVING` says, there is nothing to append, and what was said before would stay the
//! newest. So one row is appended that says just that: its place, its revision, and `emptied`. The `<table>_latest` view leaves it
//! out, and with it everything older. An erasure asks for no such row: it takes the windows out itself.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use crate::completeness::REVISION;
use crate::restate::history::Newest;

/// Column of window tables, there once it is needed: true in the one row that stands for a window of a site without a group.
pub(crate) const EMPTIED: &str = "emptied";

/// A window of a site without a group: site, start, end, and what was the newest of it.
pub(crate) type Emptied<'a> = (&'a str, Micros, Micros, &'a Newest);

/// The rows that say so.
pub(crate) fn rows(windows: &[Emptied<'_>]) -> Result<RecordBatch, ArrowError> {
    let meaning = "true: a restatement left no group of this site and window, and this row stands for that";
    let told = HashMap::from([("meaning".to_owned(), meaning.to_owned())]);
    let fields = vec![
        Field::new("window_start", schema::timestamp_type(), false),
        Field::new("window_end", schema::timestamp_type(), false),
        Field::new(schema::SITE, DataType::Utf8, true),
        Field::new(schema::REGION, DataType::Utf8, true),
        Field::new(REVISION, DataType::Int64, false),
        Field::new(EMPTIED, DataType::Boolean, true).with_metadata(told),
    ];
    let times = |of: fn(&Emptied<'_>) -> Micros| -> ArrayRef {
        let times = windows.iter().map(of).collect::<Vec<_>>();
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone(Arc::<str>::from("UTC")))
    };
    let columns: Vec<ArrayRef> = vec![
        times(|window| window.1),
        times(|window| window.2),
        Arc::new(windows.iter().map(|window| Some(window.0)).collect::<StringArray>()),
        Arc::new(windows.iter().map(|window| window.3.region.as_deref()).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(windows.iter().map(|window| window.3.revision + 1))),
        Arc::new(BooleanArray::from(vec![true; windows.len()])),
    ];
    // Where the table has no region the column is null in all of them, and is left out.
    let has_region = columns[3].null_count() < windows.len();
    let keep: Vec<usize> = (0..columns.len()).filter(|at| *at != 3 || has_region).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?.project(&keep)
}
