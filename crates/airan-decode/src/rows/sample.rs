//! Rows of `sample`: one for each sample that has no column of its own.

use std::sync::Arc;

use airan_model::catalog::{Column as ColumnOf, Stream};
use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Float64Type};
use arrow::error::ArrowError;

use super::columns::{Attributes, Numbers, Texts};
use super::table::batch;
use crate::DecodedRows;
use crate::histogram::{Histogram, HistogramColumn};
use crate::number::Number;

/// The stream's name.
pub(crate) const SAMPLE: &str = "sample";

/// Rows so far.
#[derive(Debug, Default)]
pub(crate) struct SampleRows {
    ts: Vec<Micros>,
    start: Vec<Option<Micros>>,
    node: Texts,
    name: Texts,
    value: Numbers<Float64Type>,
    text: Texts,
    histogram: HistogramColumn,
    has_histogram: bool,
    kind: Texts,
    attributes: Attributes,
    // For numbers as text.
    scratch: String,
}

/// What a sample row says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SampleValue<'v> {
    Number(Number<'v>),
    Histogram(&'v Histogram),
}

impl SampleRows {
    /// Adds a row; its attributes follow, up to [`SampleRows::end`].
    pub(crate) fn begin(
        &mut self,
        node: &str,
        ts: Micros,
        start: Option<Micros>,
        name: &str,
        kind: Option<&str>,
        value: SampleValue<'_>,
    ) {
        let row = self.ts.len();
        self.ts.push(ts);
        self.start.push(start);
        self.node.push(Some(node));
        self.name.push(Some(name));
        self.kind.push(kind);
        let mut is_text = false;
        match value {
            SampleValue::Number(number) if number.beyond_float(&mut self.scratch) => is_text = true,
            SampleValue::Number(number) => self.value.set(row, number.as_f64()),
            SampleValue::Histogram(histogram) => {
                self.has_histogram = true;
                self.histogram.set(row, histogram);
            }
        }
        self.text.push(is_text.then_some(&self.scratch));
    }

    /// One attribute of the row at hand.
    pub(crate) fn attribute(&mut self, name: &str, value: &str) {
        self.attributes.entry(name, Some(value));
    }

    /// Ends the row at hand.
    pub(crate) fn end(&mut self) {
        self.attributes.end_row();
    }

    /// The rows, unless there are none. Columns the stream lacks (a catalog of the user's own) are left out.
    pub(crate) fn finish(self, stream: &Arc<Stream>) -> Result<Option<DecodedRows>, ArrowError> {
        let rows = self.ts.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let mut add = |name: &str, array: Option<ArrayRef>, of: Option<&ColumnOf>| {
            let Some(array) = array else { return };
            let fits = of.is_none_or(|column| column.ty.data_type() == *array.data_type());
            if fits && stream.place_of(name).is_some() {
                fields.push(Field::new(name, array.data_type().clone(), true));
                arrays.push(array);
            }
        };
        let ts = TimestampMicrosecondArray::from(self.ts).with_timezone("UTC");
        add(schema::TS, Some(Arc::new(ts)), None);
        add(schema::NODE, self.node.finish_some()?, None);
        if self.start.iter().any(Option::is_some) {
            let start = TimestampMicrosecondArray::from(self.start).with_timezone("UTC");
            add(schema::START_TS, Some(Arc::new(start)), None);
        }
        add("name", self.name.finish_some()?, stream.column("name"));
        let values = self.value.finish(rows);
        let has_values = arrow::array::Array::null_count(&values) < rows;
        add("value", has_values.then(|| Arc::new(values) as ArrayRef), stream.column("value"));
        add("text", self.text.finish_some()?, stream.column("text"));
        if self.has_histogram {
            add("histogram", Some(self.histogram.finish(rows)?), stream.column("histogram"));
        }
        add("type", self.kind.finish_some()?, stream.column("type"));
        add(schema::ATTRIBUTES, self.attributes.finish_some()?, None);
        Ok(Some(DecodedRows { rows: batch(fields, arrays, rows)?, stream: Arc::clone(stream) }))
    }
}
