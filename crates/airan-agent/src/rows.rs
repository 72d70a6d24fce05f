//! Readings of the agent's own collectors as rows of a stream.

use std::sync::Arc;

use airan_decode::DecodedRows;
use airan_model::catalog::{ColumnType, Stream};
use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

/// One row: values by column, in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// Entity columns.
    pub(crate) entity: Vec<(&'static str, String)>,
    /// Number columns, in base units.
    pub(crate) numbers: Vec<(&'static str, f64)>,
    /// Text columns.
    pub(crate) texts: Vec<(&'static str, String)>,
}

impl Reading {
    /// Adds a number.
    pub(crate) fn number(&mut self, column: &'static str, value: f64) {
        self.numbers.push((column, value));
    }

    /// Adds a number, if there is one.
    pub(crate) fn maybe(&mut self, column: &'static str, value: Option<f64>) {
        self.numbers.extend(value.map(|value| (column, value)));
    }
}

/// Rows of `stream`, all of one node, time and start. Columns the stream does not have (a catalog of the user's) are left out.
pub(crate) fn to_rows(
    stream: &Arc<Stream>,
    node: &str,
    ts: Micros,
    start_ts: Option<Micros>,
    readings: &[Reading],
) -> Result<DecodedRows, ArrowError> {
    let rows = readings.len();
    let time = |at: Option<Micros>| {
        let times: TimestampMicrosecondArray = std::iter::repeat_n(at, rows).collect();
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let nodes = StringArray::from_iter_values(std::iter::repeat_n(node, rows));
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![(schema::TS, time(Some(ts))), (schema::NODE, Arc::new(nodes)), (schema::START_TS, time(start_ts))];
    for entity in &stream.entity {
        let values = readings.iter().map(|reading| text_of(&reading.entity, &entity.name));
        columns.push((&entity.name, Arc::new(values.collect::<StringArray>())));
    }
    for column in &stream.columns {
        let numbers = || readings.iter().map(|reading| number_of(&reading.numbers, &column.name));
        let texts = || readings.iter().map(|reading| text_of(&reading.texts, &column.name));
        let array: ArrayRef = match column.ty {
            ColumnType::Float if numbers().any(|value| value.is_some()) => {
                Arc::new(numbers().collect::<Float64Array>())
            }
            ColumnType::Int if numbers().any(|value| value.is_some()) => {
                Arc::new(numbers().map(|value| value.map(|value| value as i64)).collect::<Int64Array>())
            }
            ColumnType::Text if texts().any(|value| value.is_some()) => Arc::new(texts().collect::<StringArray>()),
            _ => continue,
        };
        columns.push((&column.name, array));
    }
    columns.push((schema::ATTRIBUTES, new_null_array(&schema::attributes_type(), rows)));
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    Ok(DecodedRows { stream: Arc::clone(stream), rows })
}

fn text_of<'a>(values: &'a [(&'static str, String)], column: &str) -> Option<&'a str> {
    values.iter().find(|(name, _)| *name == column).map(|(_, value)| value.as_str())
}

fn number_of(values: &[(&'static str, f64)], column: &str) -> Option<f64> {
    values.iter().find(|(name, _)| *name == column).map(|(_, value)| *value)
}
