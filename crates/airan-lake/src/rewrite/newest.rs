//! Of the revisions of one result that come together, only the newest goes on.
//!
//! Rows come sorted, so that all rows of one result (keys and `window_start`) lie in one run of equal sort columns. Dropping
//! an older revision beside a newer one is safe whatever other files hold: the newest revision of all stays the newest of
//! all, which is what the `_latest` view shows. Rows of equal revision all stay.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::commit::TableKind;
use crate::schema::TableSchema;

/// Of the results of one group and window, the one with the highest value counts.
const REVISION: &str = "revision";

/// See the module.
pub(super) struct Newest {
    /// Columns by which rows are sorted.
    order: Vec<usize>,
    /// Columns that name a result.
    result: Vec<usize>,
    revision: usize,
    runs: RowConverter,
    results: RowConverter,
    /// The last run so far, which may go on in the next batch.
    held: Option<RecordBatch>,
    /// Rows dropped.
    pub(super) dropped: u64,
}

impl Newest {
    /// For batches of `schema`, sorted by `order`; `None` where the table has no revisions, or its order tells nothing of its
    /// results.
    pub(super) fn of(table: &TableSchema, schema: &SchemaRef, order: &[String]) -> Result<Option<Newest>, ArrowError> {
        let TableKind::Windows { keys } = &table.kind else { return Ok(None) };
        let is_of_result = |name: &String| keys.contains(name) || *name == table.time_column;
        if schema.index_of(REVISION).is_err() || !order.iter().all(is_of_result) {
            return Ok(None);
        }
        let place = |name: &String| schema.index_of(name);
        let order: Vec<usize> = order.iter().map(place).collect::<Result<_, _>>()?;
        let names = keys.iter().chain([&table.time_column]);
        let result: Vec<usize> = names.filter_map(|name| place(name).ok()).collect();
        let converter = |columns: &[usize]| {
            RowConverter::new(columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect())
        };
        let (runs, results) = (converter(&order)?, converter(&result)?);
        Ok(Some(Newest {
            order,
            result,
            revision: place(&REVISION.to_owned())?,
            runs,
            results,
            held: None,
            dropped: 0,
        }))
    }

    /// Takes the next batch, and gives what is complete.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let batch = match self.held.take() {
            Some(held) => concat_batches(&batch.schema(), [&held, &batch])?,
            None => batch,
        };
        let cut = self.start_of_last_run(&batch)?;
        self.held = Some(batch.slice(cut, batch.num_rows() - cut));
        self.without_older(batch.slice(0, cut))
    }

    /// Gives the rest.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.held.take().map(|held| self.without_older(held)).transpose()
    }

    fn columns(batch: &RecordBatch, places: &[usize]) -> Vec<ArrayRef> {
        places.iter().map(|at| Arc::clone(batch.column(*at))).collect()
    }

    fn start_of_last_run(&self, batch: &RecordBatch) -> Result<usize, ArrowError> {
        let rows = self.runs.convert_columns(&Self::columns(batch, &self.order))?;
        let Some(last) = rows.num_rows().checked_sub(1) else { return Ok(0) };
        Ok((0..last).rev().find(|at| rows.row(*at) != rows.row(last)).map_or(0, |at| at + 1))
    }

    fn without_older(&mut self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let revisions = cast(batch.column(self.revision), &DataType::Int64)?;
        let revisions = revisions.as_primitive::<Int64Type>();
        // No revision is older than any.
        let revision = |at: usize| if revisions.is_null(at) { i64::MIN } else { revisions.value(at) };
        let rows = self.results.convert_columns(&Self::columns(&batch, &self.result))?;
        let mut newest: HashMap<OwnedRow, i64> = HashMap::new();
        for at in 0..batch.num_rows() {
            let known = newest.entry(rows.row(at).owned()).or_insert(i64::MIN);
            *known = revision(at).max(*known);
        }
        if newest.len() == batch.num_rows() {
            return Ok(batch);
        }
        let stays: BooleanArray =
            (0..batch.num_rows()).map(|at| Some(newest[&rows.row(at).owned()] == revision(at))).collect();
        let kept = filter_record_batch(&batch, &stays)?;
        self.dropped += (batch.num_rows() - kept.num_rows()) as u64;
        Ok(kept)
    }
}
