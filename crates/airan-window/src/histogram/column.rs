//! A column of histograms taken apart, and put together.

use std::sync::Arc;

use airan_model::schema;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, exec_datafusion_err};

/// A column of type [`schema::histogram_type`].
pub(super) struct Histograms<'a> {
    nulls: Option<&'a NullBuffer>,
    bounds: Lists<'a, Float64Type>,
    counts: Lists<'a, Int64Type>,
    sum: &'a Float64Array,
    count: &'a Int64Array,
}

/// One histogram: one more count than bounds, no count below 0. Whether the bounds ascend is for [`are_bounds`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Histogram<'a> {
    pub bounds: &'a [f64],
    pub counts: &'a [i64],
    /// None where the source does not say.
    pub sum: Option<f64>,
    /// As the source says, else the sum of the counts.
    pub count: i64,
}

struct Lists<'a, P: ArrowPrimitiveType> {
    lists: &'a ListArray,
    items: &'a arrow::array::PrimitiveArray<P>,
}

impl<'a> Histograms<'a> {
    /// # Errors
    /// If the column is of another type, which a plan does not let happen.
    pub fn of(column: &'a ArrayRef) -> Result<Histograms<'a>> {
        let parts = column.as_struct_opt().filter(|parts| parts.num_columns() == 4).and_then(|parts| {
            Some(Histograms {
                nulls: parts.nulls(),
                bounds: Lists::of(parts.column(0))?,
                counts: Lists::of(parts.column(1))?,
                sum: parts.column(2).as_primitive_opt()?,
                count: parts.column(3).as_primitive_opt()?,
            })
        });
        parts.ok_or_else(|| exec_datafusion_err!("not a column of histograms: {}", column.data_type()))
    }

    /// The histogram of a row; None where there is none, or its parts do not fit together.
    pub fn get(&self, row: usize) -> Option<Histogram<'a>> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let (bounds, counts) = (self.bounds.get(row)?, self.counts.get(row)?);
        if counts.len() != bounds.len() + 1 || counts.iter().any(|count| *count < 0) {
            return None;
        }
        let sum = self.sum.is_valid(row).then(|| self.sum.value(row));
        let count = if self.count.is_valid(row) { self.count.value(row) } else { total(counts) };
        Some(Histogram { bounds, counts, sum, count })
    }
}

impl<'a, P: ArrowPrimitiveType> Lists<'a, P> {
    fn of(column: &'a ArrayRef) -> Option<Lists<'a, P>> {
        let lists = column.as_list_opt::<i32>()?;
        Some(Lists { lists, items: lists.values().as_primitive_opt()? })
    }

    /// The items of a row; None where the list or one of its items is null.
    fn get(&self, row: usize) -> Option<&'a [P::Native]> {
        if self.lists.is_null(row) {
            return None;
        }
        let offsets = self.lists.value_offsets();
        let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
        let is_full = self.items.null_count() == 0 || (from..to).all(|at| self.items.is_valid(at));
        is_full.then(|| &self.items.values()[from..to])
    }
}

/// Whether bounds ascend and are finite.
pub(super) fn are_bounds(bounds: &[f64]) -> bool {
    bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|a, b| a < b)
}

/// Observations in all buckets.
pub(super) fn total(counts: &[i64]) -> i64 {
    counts.iter().fold(0, |sum: i64, count| sum.saturating_add(*count))
}

/// A column of type [`schema::histogram_type`] from its rows.
pub(super) fn histograms<'a>(rows: impl ExactSizeIterator<Item = Option<Histogram<'a>>>) -> Result<ArrayRef> {
    let mut valid = Vec::with_capacity(rows.len());
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    let (mut bound_lengths, mut count_lengths) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    let (mut sums, mut totals) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        valid.push(row.is_some());
        bounds.extend_from_slice(row.map_or(&[], |row| row.bounds));
        counts.extend_from_slice(row.map_or(&[], |row| row.counts));
        bound_lengths.push(row.map_or(0, |row| row.bounds.len()));
        count_lengths.push(row.map_or(0, |row| row.counts.len()));
        sums.push(row.and_then(|row| row.sum));
        totals.push(row.map(|row| row.count));
    }
    let fields = schema::histogram_fields();
    let list = |index: usize, lengths: Vec<usize>, items: ArrayRef| -> Result<ArrayRef> {
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(item_of(&fields[index])?, offsets, items, None)?))
    };
    let columns: Vec<ArrayRef> = vec![
        list(0, bound_lengths, Arc::new(Float64Array::from(bounds)))?,
        list(1, count_lengths, Arc::new(Int64Array::from(counts)))?,
        Arc::new(Float64Array::from(sums)),
        Arc::new(Int64Array::from(totals)),
    ];
    Ok(Arc::new(StructArray::try_new(fields, columns, Some(NullBuffer::from(valid)))?))
}

fn item_of(list: &FieldRef) -> Result<FieldRef> {
    match list.data_type() {
        DataType::List(item) => Ok(Arc::clone(item)),
        other => Err(exec_datafusion_err!("{} of a histogram is {other}", list.name())),
    }
}
