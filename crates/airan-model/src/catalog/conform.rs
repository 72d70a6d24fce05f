//! Rows as they arrive, with some columns and in any order, become rows with exactly a stream's columns.
//!
//! Works on columns only, never on rows: a missing column is a slice of one shared column of nulls. So the memory of a conformed
//! batch is what its slices cover (`get_slice_memory_size`), not the capacity of its buffers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};

use super::Stream;
use super::unknown::{UNKNOWN_TEXT_MAX, with_unknown};
use crate::schema;

/// Rows up to this many share one column of nulls per type; a bigger batch gets its own.
///
/// A message holds at most some thousand rows. One such column costs about 0.5 MiB as Float64, 3 MiB as a histogram.
const SHARED_NULL_ROWS: usize = 64 * 1024;

/// Why rows do not fit their stream. The rows are to be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConformError {
    /// A known column has another type.
    #[error("column `{column}` of stream `{stream}` is {found}, not {expected}")]
    Type {
        /// The stream.
        stream: String,
        /// The column.
        column: String,
        /// Its type in the catalog.
        expected: DataType,
        /// Its type in the rows.
        found: DataType,
    },
    /// A known column is stored in another unit.
    #[error("column `{column}` of stream `{stream}` is in {found}, not {expected}")]
    Unit {
        /// The stream.
        stream: String,
        /// The column.
        column: String,
        /// Its unit in the catalog.
        expected: String,
        /// Its unit in the store.
        found: String,
    },
    /// Columns the catalog does not know would become more text than may be.
    #[error("columns that the catalog does not know hold more than {UNKNOWN_TEXT_MAX} bytes as text, with `{column}`")]
    TooMuchUnknown {
        /// The column that was too much.
        column: String,
    },
    /// A column occurs twice.
    #[error("column `{column}` occurs twice")]
    Twice {
        /// The column.
        column: String,
    },
    /// Arrow refused the batch: a null in a column that says it has none.
    #[error("rows do not fit their schema: {0}")]
    Batch(String),
}

/// Columns of nulls, one per type, shared by all streams of a catalog.
#[derive(Debug, Default)]
pub(super) struct Nulls {
    by_type: Mutex<HashMap<DataType, ArrayRef>>,
}

impl Nulls {
    fn of(&self, ty: &DataType, rows: usize) -> ArrayRef {
        if rows > SHARED_NULL_ROWS {
            return new_null_array(ty, rows);
        }
        let mut by_type = self.by_type.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nulls) = by_type.get(ty) {
            return nulls.slice(0, rows);
        }
        let nulls = new_null_array(ty, SHARED_NULL_ROWS);
        let slice = nulls.slice(0, rows);
        by_type.insert(ty.clone(), nulls);
        slice
    }
}

impl Stream {
    /// The same rows with exactly this stream's columns, in the catalog's order.
    ///
    /// Missing columns are null. Columns the catalog does not know become `attributes` ([`with_unknown`]), in the order of their
    /// names. Fails if a known column has another type, a column occurs twice, or unknown ones hold too much.
    pub fn conform(&self, rows: &RecordBatch) -> Result<RecordBatch, ConformError> {
        let ours = self.schema();
        let theirs = rows.schema_ref();
        if Arc::ptr_eq(ours, theirs) {
            return Ok(rows.clone());
        }
        let mut placed: Vec<Option<&ArrayRef>> = vec![None; ours.fields().len()];
        let mut unknown: Vec<(&FieldRef, &ArrayRef)> = Vec::new();
        for (field, column) in theirs.fields().iter().zip(rows.columns()) {
            let Some(place) = self.place_of(field.name()) else {
                unknown.push((field, column));
                continue;
            };
            let expected = ours.field(place).data_type();
            if expected != column.data_type() {
                return Err(ConformError::Type {
                    stream: self.name.to_string(),
                    column: field.name().clone(),
                    expected: expected.clone(),
                    found: column.data_type().clone(),
                });
            }
            if placed[place].replace(column).is_some() {
                return Err(ConformError::Twice { column: field.name().clone() });
            }
        }
        unknown.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        if let Some(pair) = unknown.windows(2).find(|pair| pair[0].0.name() == pair[1].0.name()) {
            return Err(ConformError::Twice { column: pair[0].0.name().clone() });
        }

        let attributes = match (unknown.is_empty(), self.place_of(schema::ATTRIBUTES)) {
            (false, Some(place)) => {
                let unknown: Vec<(&str, &ArrayRef)> =
                    unknown.iter().map(|(field, of)| (field.name().as_str(), *of)).collect();
                Some((place, with_unknown(placed[place], &unknown, rows.num_rows(), |_| true)?))
            }
            _ => None,
        };
        if let Some((place, attributes)) = &attributes {
            placed[*place] = Some(attributes);
        }
        let mut columns = Vec::with_capacity(placed.len());
        for (field, column) in ours.fields().iter().zip(placed) {
            columns.push(match column {
                Some(column) => Arc::clone(column),
                None => self.nulls.of(field.data_type(), rows.num_rows()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(ours), columns, &options)
            .map_err(|error| ConformError::Batch(error.to_string()))
    }

    /// The same rows without the columns the catalog does not know.
    pub fn known_of(&self, rows: &RecordBatch) -> Result<RecordBatch, ConformError> {
        let fields = rows.schema_ref().fields().iter().enumerate();
        let known: Vec<usize> =
            fields.filter(|(_, field)| self.place_of(field.name()).is_some()).map(|(at, _)| at).collect();
        rows.project(&known).map_err(|error| ConformError::Batch(error.to_string()))
    }

    /// Whether rows stored under `stored` can stand beside this stream's: no known column may have changed its type or unit.
    ///
    /// Columns that only one of the two has are no fault: schemas grow.
    pub fn accepts(&self, stored: &Schema) -> Result<(), ConformError> {
        for before in stored.fields() {
            let Some(now) = self.place_of(before.name()).map(|place| self.schema().field(place)) else { continue };
            if now.data_type() != before.data_type() {
                return Err(ConformError::Type {
                    stream: self.name.to_string(),
                    column: before.name().clone(),
                    expected: now.data_type().clone(),
                    found: before.data_type().clone(),
                });
            }
            let unit = |field: &Field| field.metadata().get("unit").cloned();
            if let (Some(stored), Some(expected)) = (unit(before), unit(now))
                && stored != expected
            {
                let (stream, column) = (self.name.to_string(), before.name().clone());
                return Err(ConformError::Unit { stream, column, expected, found: stored });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use arrow::array::{Array, AsArray, Float64Array, Int64Array, StringArray};
    use proptest::prelude::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, a)| a).collect()).unwrap()
    }

    fn floats(n: usize) -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64)))
    }

    /// Scenario: three known columns out of order, two unknown ones.
    /// Guarantees: catalog order, nulls for the rest, unknown columns as attributes by name, values untouched.
    #[test]
    fn known_columns_are_ordered_and_unknown_ones_are_attributes() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("accelerator").unwrap();
        let node: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = batch(vec![
            ("zeta", floats(2)),
            ("utilization", floats(2)),
            ("node", Arc::clone(&node)),
            ("alpha", floats(2)),
            ("ts", new_null_array(&crate::schema::timestamp_type(), 2)),
        ]);
        let full = stream.conform(&rows).unwrap();
        assert_eq!(full.schema_ref(), stream.schema());
        let attributes = full.column_by_name("attributes").unwrap().as_map().value(1);
        assert_eq!(attributes.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["alpha", "zeta"]);
        assert_eq!(attributes.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1.0", "1.0"]);
        assert_eq!(full.column_by_name("node").unwrap(), &node);
        assert_eq!(full.column_by_name("utilization").unwrap(), &floats(2));
        assert_eq!(full.column_by_name("power_watts").unwrap().null_count(), 2);
        assert_eq!(stream.conform(&full).unwrap(), full);
    }

    #[test]
    fn a_known_column_of_another_type_is_refused() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("accelerator").unwrap();
        let wrong: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let error = stream.conform(&batch(vec![("utilization", wrong)])).unwrap_err();
        assert_eq!(error.to_string(), "column `utilization` of stream `accelerator` is Int64, not Float64");
        let twice = stream.conform(&batch(vec![
            ("node", new_null_array(&DataType::Utf8, 1)),
            ("node", new_null_array(&DataType::Utf8, 1)),
        ]));
        assert_eq!(twice, Err(ConformError::Twice { column: "node".into() }));
        let twice = stream.conform(&batch(vec![("what", floats(1)), ("what", floats(1))]));
        assert_eq!(twice, Err(ConformError::Twice { column: "what".into() }));
    }

    #[test]
    fn a_stored_column_of_another_type_or_unit_is_refused() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("accelerator").unwrap();
        assert_eq!(stream.accepts(stream.schema()), Ok(()));
        let stored = |ty: DataType, unit: &str| {
            let metadata = [("unit".to_owned(), unit.to_owned())].into_iter().collect();
            Schema::new(vec![
                Field::new("power_watts", ty, true).with_metadata(metadata),
                Field::new("gone", DataType::Int8, true),
            ])
        };
        assert_eq!(stream.accepts(&stored(DataType::Float64, "watts")), Ok(()));
        assert!(matches!(stream.accepts(&stored(DataType::Int64, "watts")), Err(ConformError::Type { .. })));
        assert!(matches!(stream.accepts(&stored(DataType::Float64, "joules")), Err(ConformError::Unit { .. })));
    }

    #[test]
    fn any_number_of_rows_conforms() {
        let catalog = Catalog::builtin().unwrap();
        for stream in catalog.streams() {
            for rows in [0, 1, SHARED_NULL_ROWS, SHARED_NULL_ROWS + 1] {
                let full = stream.conform(&batch(vec![("node", new_null_array(&DataType::Utf8, rows))])).unwrap();
                assert_eq!((full.num_rows(), full.schema()), (rows, Arc::clone(stream.schema())), "{}", stream.name);
            }
        }
    }

    /// Read once, not for each case.
    static CATALOG: std::sync::LazyLock<Catalog> = std::sync::LazyLock::new(|| Catalog::builtin().unwrap());

    proptest! {
        /// Any subset and order of a stream's columns conforms to the same schema, and conforming again changes nothing.
        #[test]
        fn conforming_twice_is_conforming_once(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(), keep in 0..20usize, rows in 0..50usize) {
            let stream = CATALOG.stream("inference").unwrap();
            let fields: Vec<&FieldRef> = order[..keep].iter().map(|&i| &stream.schema().fields()[i]).collect();
            let some = RecordBatch::try_new_with_options(
                Arc::new(Schema::new(fields.iter().map(|f| Arc::clone(f)).collect::<Vec<_>>())),
                fields.iter().map(|f| new_null_array(f.data_type(), rows)).collect(),
                &RecordBatchOptions::new().with_row_count(Some(rows)),
            ).unwrap();
            let full = stream.conform(&some).unwrap();
            prop_assert_eq!(full.schema_ref(), stream.schema());
            prop_assert_eq!(full.num_rows(), rows);
            prop_assert_eq!(stream.conform(&full).unwrap(), full);
        }
    }
}
