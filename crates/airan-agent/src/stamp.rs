//! The identity of the agent's rows: its random batch, and a number per stream without gaps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use airan_decode::DecodedRows;
use airan_model::identity::BatchId;
use airan_model::schema;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

/// Gives rows their identity, once, when they are collected.
#[derive(Debug)]
pub(crate) struct Stamp {
    batch: String,
    // The next number of each stream.
    next: Mutex<HashMap<Arc<str>, i64>>,
}

impl Stamp {
    pub(crate) fn new(batch: BatchId) -> Stamp {
        Stamp { batch: batch.to_hex(), next: Mutex::new(HashMap::new()) }
    }

    /// The same rows with columns `source`, `batch` and `seq`; the first two are one value in all rows.
    pub(crate) fn stamp(&self, decoded: DecodedRows, source: &str) -> Result<DecodedRows, ArrowError> {
        let DecodedRows { stream, rows } = decoded;
        let count = rows.num_rows();
        let first = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let next = next.entry(Arc::clone(&stream.name)).or_insert(0);
            let first = *next;
            *next += count as i64;
            first
        };
        let same = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count))) as ArrayRef;
        let own = [
            (schema::SOURCE, same(source)),
            (schema::BATCH, same(&self.batch)),
            (schema::SEQ, Arc::new(Int64Array::from_iter_values(first..first + count as i64)) as ArrayRef),
        ];
        let theirs = rows.schema();
        let kept = theirs
            .fields()
            .iter()
            .zip(rows.columns())
            .filter(|(field, _)| own.iter().all(|(name, _)| name != field.name()));
        let (mut fields, mut columns): (Vec<_>, Vec<_>) =
            kept.map(|(field, column)| (Arc::clone(field), Arc::clone(column))).unzip();
        for (name, column) in own {
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        }
        Ok(DecodedRows { stream, rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Reading, to_rows};
    use airan_model::catalog::Catalog;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    #[test]
    fn numbers_of_a_stream_have_no_gaps_and_no_twins() {
        let catalog = Catalog::builtin().unwrap();
        let stamp = Stamp::new(BatchId(7));
        let mut seen: HashMap<&str, Vec<i64>> = HashMap::new();
        for (name, count) in [("host", 1), ("link", 3), ("host", 2), ("link", 0), ("host", 1)] {
            let rows = to_rows(catalog.stream(name).unwrap(), "n", 0, None, &vec![Reading::default(); count]).unwrap();
            let stamped = stamp.stamp(rows, "procfs").unwrap();
            stamped.stream.conform(&stamped.rows).unwrap();
            let numbers = stamped.rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
            seen.entry(name).or_default().extend(numbers.values());
            let batch = stamped.rows.column_by_name("batch").unwrap().as_string::<i32>();
            assert!(batch.iter().all(|batch| batch == Some("00000000000000000000000000000007")));
            let again = stamp.stamp(stamped, "procfs").unwrap();
            assert_eq!(again.rows.schema().fields().iter().filter(|field| field.name() == "seq").count(), 1);
            seen.entry(name)
                .or_default()
                .extend(again.rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values());
        }
        assert_eq!(seen["host"], (0..8).collect::<Vec<_>>());
        assert_eq!(seen["link"], (0..6).collect::<Vec<_>>());
    }
}
