//! Histograms: per-bucket counts with their bounds, and how they become Arrow.

use std::sync::Arc;

use airan_model::schema;
use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::number::Scale;

/// One histogram.
///
/// `counts` has one more entry than `bounds`: the last bucket reaches to infinity. Each bucket holds values above the bound
/// before it and up to its own, as in Prometheus (`le`) and OTLP.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    pub bounds: Vec<f64>,
    pub counts: Vec<i64>,
    /// None where it is not known, not a number or infinite.
    pub sum: Option<f64>,
    pub count: i64,
}

impl Histogram {
    /// Whether it keeps its own rules; the error says which it breaks.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.counts.len() != self.bounds.len() + 1 {
            return Err("the number of counts is not the number of bounds and one");
        }
        if self.bounds.iter().any(|bound| !bound.is_finite()) {
            return Err("a bound is no finite number");
        }
        if self.bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("bounds do not rise");
        }
        if self.counts.iter().any(|count| *count < 0) {
            return Err("a count is negative");
        }
        let sum = self.counts.iter().try_fold(0i64, |sum, count| sum.checked_add(*count));
        if sum != Some(self.count) {
            return Err("the counts of its buckets do not add up to its count");
        }
        Ok(())
    }

    /// In another unit: bounds and sum.
    pub(crate) fn scale(&mut self, scale: Scale) {
        if scale != Scale::One {
            self.bounds.iter_mut().for_each(|bound| *bound = scale.apply(*bound));
            self.sum = self.sum.map(|sum| scale.apply(sum));
        }
    }
}

/// A column of histograms, filled row by row in any order.
#[derive(Debug, Default)]
pub(crate) struct HistogramColumn {
    // Index in the parts below by row; EMPTY where there is none.
    of_row: Vec<u32>,
    bounds: Vec<f64>,
    counts: Vec<i64>,
    // By histogram: end in `bounds`; the counts end at that and one for each histogram.
    ends: Vec<usize>,
    sums: Vec<Option<f64>>,
    totals: Vec<i64>,
}

const EMPTY: u32 = u32::MAX;

impl HistogramColumn {
    /// Whether the row has one.
    pub(crate) fn has(&self, row: usize) -> bool {
        self.of_row.get(row).is_some_and(|at| *at != EMPTY)
    }

    /// Sets a row that has none. The histogram must have passed its check.
    pub(crate) fn set(&mut self, row: usize, histogram: &Histogram) {
        if self.of_row.len() <= row {
            self.of_row.resize(row + 1, EMPTY);
        }
        self.of_row[row] = self.ends.len() as u32;
        self.bounds.extend_from_slice(&histogram.bounds);
        self.counts.extend_from_slice(&histogram.counts);
        self.ends.push(self.bounds.len());
        self.sums.push(histogram.sum);
        self.totals.push(histogram.count);
    }

    /// The column, `rows` long.
    pub(crate) fn finish(mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.of_row.resize(rows, EMPTY);
        let mut bounds = Vec::with_capacity(self.bounds.len());
        let mut counts = Vec::with_capacity(self.counts.len());
        let (mut bound_ends, mut count_ends) = (vec![0i32], vec![0i32]);
        let mut sums = Vec::with_capacity(rows);
        let mut totals = Vec::with_capacity(rows);
        for at in &self.of_row {
            if *at != EMPTY {
                let at = *at as usize;
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
                let end = self.ends[at];
                bounds.extend_from_slice(&self.bounds[start..end]);
                counts.extend_from_slice(&self.counts[start + at..end + at + 1]);
                sums.push(self.sums[at]);
                totals.push(Some(self.totals[at]));
            } else {
                sums.push(None);
                totals.push(None);
            }
            bound_ends.push(i32::try_from(bounds.len()).map_err(|_| too_long())?);
            count_ends.push(i32::try_from(counts.len()).map_err(|_| too_long())?);
        }
        let valid: Vec<bool> = self.of_row.iter().map(|at| *at != EMPTY).collect();
        let nulls = NullBuffer::from(valid);
        let fields = schema::histogram_fields();
        let list = |of: usize, ends: Vec<i32>, values: ArrayRef| -> Result<ArrayRef, ArrowError> {
            let DataType::List(item) = fields[of].data_type() else { return Err(too_long()) };
            let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, Some(nulls.clone()))?))
        };
        let bounds = list(0, bound_ends, Arc::new(Float64Array::from(bounds)))?;
        let counts = list(1, count_ends, Arc::new(Int64Array::from(counts)))?;
        let columns: Vec<ArrayRef> =
            vec![bounds, counts, Arc::new(Float64Array::from(sums)), Arc::new(Int64Array::from(totals))];
        Ok(Arc::new(StructArray::try_new(fields, columns, Some(nulls))?))
    }
}

fn too_long() -> ArrowError {
    ArrowError::OffsetOverflowError(i32::MAX as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type};

    fn histogram(bounds: &[f64], counts: &[i64], count: i64) -> Histogram {
        Histogram { bounds: bounds.to_vec(), counts: counts.to_vec(), sum: Some(1.0), count }
    }

    #[test]
    fn broken_histograms_are_told_apart() {
        assert_eq!(histogram(&[1.0, 2.0], &[1, 2, 3], 6).check(), Ok(()));
        assert_eq!(histogram(&[], &[4], 4).check(), Ok(()));
        for (bounds, counts, count, fault) in [
            (&[1.0][..], &[1][..], 1, "number of counts"),
            (&[f64::NAN], &[1, 0], 1, "finite"),
            (&[f64::INFINITY], &[1, 0], 1, "finite"),
            (&[2.0, 1.0], &[0, 0, 1], 1, "rise"),
            (&[1.0, 1.0], &[0, 0, 1], 1, "rise"),
            (&[1.0], &[-1, 2], 1, "negative"),
            (&[1.0], &[1, 2], 4, "add up"),
            (&[1.0], &[i64::MAX, i64::MAX], -2, "add up"),
        ] {
            assert!(histogram(bounds, counts, count).check().unwrap_err().contains(fault), "{fault}");
        }
    }

    /// Scenario: rows filled out of order, with gaps.
    #[test]
    fn a_column_takes_rows_in_any_order() {
        let mut column = HistogramColumn::default();
        column.set(2, &histogram(&[0.5], &[1, 2], 3));
        column.set(0, &histogram(&[], &[7], 7));
        assert!(column.has(0) && !column.has(1) && column.has(2) && !column.has(3));
        let array = column.finish(4).unwrap();
        assert_eq!(array.data_type(), &schema::histogram_type());
        let parts = array.as_struct();
        let lists: Vec<_> = [0, 2]
            .map(|row| {
                let bounds = parts.column(0).as_list::<i32>().value(row);
                let counts = parts.column(1).as_list::<i32>().value(row);
                (
                    bounds.as_primitive::<Float64Type>().values().to_vec(),
                    counts.as_primitive::<Int64Type>().values().to_vec(),
                )
            })
            .to_vec();
        assert_eq!(lists, [(vec![], vec![7]), (vec![0.5], vec![1, 2])]);
        assert_eq!((0..4).map(|row| parts.is_valid(row)).collect::<Vec<_>>(), [true, false, true, false]);
    }

    #[test]
    fn a_scaled_histogram_keeps_its_counts() {
        let mut scaled = histogram(&[250.0, 500.0], &[1, 2, 3], 6);
        scaled.scale(Scale::new(1e-6));
        assert_eq!(scaled.bounds, [0.00025, 0.0005]);
        assert_eq!((scaled.counts, scaled.sum), (vec![1, 2, 3], Some(1e-6)));
    }
}
