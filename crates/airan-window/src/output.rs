//! The columns of a pipeline's result, and what every window table has besides: `window_start` and `window_end`, `revision`,
//! `completeness`.

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_model::schema;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::DFSchema;

use crate::error::Refusal;
use crate::lineage::Lineage;
use crate::width::Window;

/// Start of the window, Timestamp(µs, UTC).
const WINDOW_START: &str = "window_start";
/// End of the window, Timestamp(µs, UTC).
const WINDOW_END: &str = "window_end";
/// 0 for a window as it first closed; each restatement adds 1.
const REVISION: &str = "revision";
/// Rows received ÷ (received + known gaps); null where senders do not number their rows.
const COMPLETENESS: &str = "completeness";
/// Only where a restatement has left a window without a group.
const EMPTIED: &str = "emptied";

/// The columns of the result: the window, what the query gives, `revision`, `completeness`.
#[derive(Debug)]
pub(crate) struct Output {
    pub schema: SchemaRef,
    /// Names of the columns that are group columns.
    pub keys: Vec<String>,
    /// Columns of the query's result that stand between the window and `revision`.
    taken: Vec<usize>,
}

impl Output {
    /// For a query whose result has these columns.
    pub fn new(columns: &DFSchema, lineages: &[Lineage]) -> Result<Output, Refusal> {
        let time = |name: &str| Field::new(name, schema::timestamp_type(), false);
        let mut fields = vec![time(WINDOW_START), time(WINDOW_END)];
        let (mut keys, mut taken, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, (field, lineage)) in columns.fields().iter().zip(lineages).enumerate() {
            let name = field.name();
            let all_reserved = [WINDOW_END, REVISION, COMPLETENESS, EMPTIED];
            if let Some(reserved) = all_reserved.into_iter().find(|reserved| name == reserved) {
                return Err(Refusal::Reserved(reserved));
            }
            if !is_name(name) {
                return Err(Refusal::Unnamed(name.clone()));
            }
            if !names.insert(name.clone()) {
                return Err(Refusal::TwiceNamed(name.clone()));
            }
            if name == WINDOW_START {
                match lineage {
                    Lineage::Window => continue,
                    _ => return Err(Refusal::NotTheWindow),
                }
            }
            if matches!(lineage, Lineage::Site | Lineage::Key) {
                keys.push(name.clone());
            }
            taken.push(index);
            let ty = stored_type(field.data_type());
            fields.push(Field::new(name, ty, true).with_metadata(field.metadata().clone()));
        }
        if !lineages
            .iter()
            .zip(columns.fields())
            .any(|(of, field)| *of == Lineage::Site && field.name() == schema::SITE)
        {
            return Err(Refusal::NoSiteInResult);
        }
        fields.push(Field::new(REVISION, DataType::Int64, false));
        fields.push(Field::new(COMPLETENESS, DataType::Float64, true));
        Ok(Output { schema: Arc::new(Schema::new(fields)), keys, taken })
    }

    /// The result rows of a window; None if it has none.
    pub fn rows(&self, window: Window, batches: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if count == 0 {
            return Ok(None);
        }
        let time = |at: i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(at, count).with_timezone(Arc::<str>::from("UTC")))
        };
        let mut columns = vec![time(window.start), time(window.end)];
        for (index, field) in self.taken.iter().zip(self.schema.fields().iter().skip(columns.len())) {
            let parts: Vec<&dyn arrow::array::Array> =
                batches.iter().map(|batch| batch.column(*index).as_ref()).collect();
            let whole = match parts.as_slice() {
                [_] => Arc::clone(batches[0].column(*index)),
                parts => concat(parts)?,
            };
            columns.push(if whole.data_type() == field.data_type() { whole } else { cast(&whole, field.data_type())? });
        }
        columns.push(Arc::new(Int64Array::from_value(0, count)));
        columns.push(new_null_array(&DataType::Float64, count));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map(Some)
    }
}

/// Lower-case letters, digits and `_`, first a letter: what Parquet, Delta and Prometheus labels all take unquoted.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The type of a column in the lake, which has no unsigned integers, no views and one kind of timestamp.
fn stored_type(ty: &DataType) -> DataType {
    match ty {
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Timestamp(_, _) => schema::timestamp_type(),
        DataType::Dictionary(_, values) => stored_type(values),
        DataType::Null => DataType::Float64,
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_need_no_quotes() {
        for (name, is_good) in [("p99_seconds", true), ("avg(x.y)", false), ("Site", false), ("9x", false), ("", false)]
        {
            assert_eq!(is_name(name), is_good, "{name}");
        }
    }

    #[test]
    fn a_window_without_rows_has_no_result() {
        let fields =
            Schema::new(vec![Field::new("site", DataType::Utf8, true), Field::new("n", DataType::UInt64, true)]);
        let columns = DFSchema::try_from(fields).unwrap();
        let output = Output::new(&columns, &[Lineage::Site, Lineage::Value]).unwrap();
        assert_eq!(output.rows(Window { start: 0, end: 1 }, &[]).unwrap(), None);
        assert_eq!(output.schema.field_with_name("n").unwrap().data_type(), &DataType::Int64);
        assert_eq!(output.keys, ["site"]);
    }
}
