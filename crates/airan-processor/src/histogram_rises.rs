//! What cumulative histograms rose by, bucket by bucket.
//!
//! The rules are those of counters. A histogram began anew where its start changed, one of its buckets fell, or a bucket that held
//! something is cut by one of the new bounds; then the rise is the new value. Other bounds alone are no new beginning: an
//! exponential histogram gets buckets as it fills, and coarser ones as it widens, and what it held lies whole in one of them. The
//! rise has the bounds of its own row. A histogram whose parts do not fit together
//! (a bucket missing, a null among them) has no rise and is not remembered.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Float64Type, Int64Type};
use arrow::error::ArrowError;

use crate::entities::UNTRACKED;
use crate::rises::{NO_START, Outcome, RowContext, began_anew, span};

/// The last histograms of one column, by entity.
#[derive(Debug, Default)]
pub(crate) struct HistogramSlots {
    slots: Vec<Option<Box<LastHistogram>>>,
}

/// The last histogram of one entity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastHistogram {
    pub ts: Micros,
    pub start: Micros,
    pub value: HistogramValue,
}

/// A histogram outside of Arrow: one more count than bounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HistogramValue {
    pub bounds: Vec<f64>,
    pub counts: Vec<i64>,
    pub sum: Option<f64>,
    pub count: Option<i64>,
}

/// A column of histograms taken apart.
pub(crate) struct HistogramColumn<'a> {
    column: &'a StructArray,
    bounds: &'a ListArray,
    counts: &'a ListArray,
    sum: &'a Float64Array,
    count: &'a Int64Array,
}

/// Where a row's rise stands.
enum Risen {
    /// These counts, with the row's own bounds.
    Here { counts: Range<usize>, sum: Option<f64>, count: Option<i64> },
    /// It came with the row.
    Given,
    /// There is none.
    Null,
}

impl<'a> HistogramColumn<'a> {
    pub fn of(column: &'a StructArray) -> HistogramColumn<'a> {
        HistogramColumn {
            column,
            bounds: column.column(0).as_list(),
            counts: column.column(1).as_list(),
            sum: column.column(2).as_primitive(),
            count: column.column(3).as_primitive(),
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row)
    }

    /// Bounds and counts of a row; None where they do not fit together.
    fn shape(&self, row: usize) -> Option<(&[f64], &[i64])> {
        if self.bounds.is_null(row) || self.counts.is_null(row) {
            return None;
        }
        let bounds = numbers::<Float64Type>(self.bounds, row)?;
        let counts = numbers::<Int64Type>(self.counts, row)?;
        (counts.len() == bounds.len() + 1).then_some((bounds, counts))
    }

    fn sum(&self, row: usize) -> Option<f64> {
        self.sum.is_valid(row).then(|| self.sum.value(row))
    }

    fn count(&self, row: usize) -> Option<i64> {
        self.count.is_valid(row).then(|| self.count.value(row))
    }

    /// The histogram of a row; None where it is null or misshapen.
    pub fn value(&self, row: usize) -> Option<HistogramValue> {
        let (bounds, counts) = self.shape(row).filter(|_| !self.is_null(row))?;
        Some(HistogramValue {
            bounds: bounds.to_vec(),
            counts: counts.to_vec(),
            sum: self.sum(row),
            count: self.count(row),
        })
    }
}

/// The items of one list; None where one of them is null.
fn numbers<P: arrow::datatypes::ArrowPrimitiveType>(list: &ListArray, row: usize) -> Option<&[P::Native]> {
    let items = list.values().as_primitive::<P>();
    let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
    let is_full = items.null_count() == 0 || (from..to).all(|at| items.is_valid(at));
    is_full.then(|| &items.values()[from..to])
}

impl HistogramSlots {
    pub fn clear(&mut self, entity: usize) {
        if let Some(slot) = self.slots.get_mut(entity) {
            *slot = None;
        }
    }

    /// What is remembered of an entity.
    pub fn get(&self, entity: usize) -> Option<&LastHistogram> {
        self.slots.get(entity)?.as_deref()
    }

    /// Takes back what was remembered before a restart.
    pub fn set(&mut self, entity: usize, last: LastHistogram) {
        if self.slots.len() <= entity {
            self.slots.resize(entity + 1, None);
        }
        self.slots[entity] = Some(Box::new(last));
    }

    /// The rises of a column, with the spans in `outcome`.
    pub(crate) fn rise(
        &mut self,
        values: &StructArray,
        given: &StructArray,
        rows: &RowContext<'_>,
        outcome: &mut Outcome<'_>,
    ) -> Result<StructArray, ArrowError> {
        if self.slots.len() < rows.slots {
            self.slots.resize(rows.slots, None);
        }
        let values = HistogramColumn::of(values);
        let is_given = |row: usize| given.is_valid(row);
        let mut counts: Vec<i64> = Vec::new();
        let mut risen: Vec<Risen> =
            (0..rows.entity.len()).map(|row| if is_given(row) { Risen::Given } else { Risen::Null }).collect();
        rows.each(|row| {
            let entity = rows.entity[row];
            if entity == UNTRACKED || values.is_null(row) {
                return;
            }
            let Some((bounds, now)) = values.shape(row) else {
                *outcome.misshapen += 1;
                return;
            };
            let (ts, start) = (rows.ts.value(row), rows.start(row));
            let slot = &mut self.slots[entity as usize];
            if let Some(last) = slot {
                if ts <= last.ts {
                    if !is_given(row) {
                        outcome.late.mark(row, last.ts);
                    }
                    return;
                }
                if !is_given(row) {
                    let from = counts.len();
                    let rise = last.value.rise(bounds, now, began_anew(last.start, start), &mut counts);
                    let (sum, count) = match rise {
                        Rise::Anew => (values.sum(row), values.count(row)),
                        Rise::Since => (
                            values.sum(row).zip(last.value.sum).map(|(now, before)| now - before),
                            values.count(row).zip(last.value.count).map(|(now, before)| now.saturating_sub(before)),
                        ),
                    };
                    risen[row] = Risen::Here { counts: from..counts.len(), sum, count };
                    outcome.seconds.set(row, span(last.ts, ts));
                }
                last.remember(ts, start, bounds, now, values.sum(row), values.count(row));
            } else {
                let value = HistogramValue {
                    bounds: bounds.to_vec(),
                    counts: now.to_vec(),
                    sum: values.sum(row),
                    count: values.count(row),
                };
                *slot = Some(Box::new(LastHistogram { ts, start, value }));
            }
        });
        build(&values, &HistogramColumn::of(given), &risen, &counts)
    }
}

enum Rise {
    Since,
    Anew,
}

impl HistogramValue {
    /// Appends the rise of the buckets to `to`.
    fn rise(&self, bounds: &[f64], now: &[i64], began_anew: bool, to: &mut Vec<i64>) -> Rise {
        let before = match () {
            () if began_anew => None,
            () if self.bounds == bounds => Some(Cow::Borrowed(&self.counts)),
            () => self.over(bounds).map(Cow::Owned),
        };
        let has_fallen = |before: &[i64]| now.iter().zip(before).any(|(now, before)| now < before);
        match before.filter(|before| !has_fallen(before)) {
            Some(before) => {
                to.extend(now.iter().zip(&*before).map(|(now, before)| now.saturating_sub(*before)));
                Rise::Since
            }
            None => {
                to.extend_from_slice(now);
                Rise::Anew
            }
        }
    }

    /// The counts in buckets of other bounds; None where a bound cuts a bucket that holds something.
    fn over(&self, bounds: &[f64]) -> Option<Vec<i64>> {
        let mut over = vec![0i64; bounds.len() + 1];
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count != 0) {
            let lower = index.checked_sub(1).map_or(f64::NEG_INFINITY, |below| self.bounds[below]);
            let upper = self.bounds.get(index).copied().unwrap_or(f64::INFINITY);
            let at = bounds.partition_point(|bound| *bound <= lower);
            if bounds.get(at).is_some_and(|bound| *bound < upper) {
                return None;
            }
            over[at] = over[at].saturating_add(*count);
        }
        Some(over)
    }
}

impl LastHistogram {
    fn remember(
        &mut self,
        ts: Micros,
        start: Micros,
        bounds: &[f64],
        counts: &[i64],
        sum: Option<f64>,
        count: Option<i64>,
    ) {
        self.ts = ts;
        if start != NO_START {
            self.start = start;
        }
        if self.value.bounds != bounds {
            self.value.bounds = bounds.to_vec();
        }
        self.value.counts.clear();
        self.value.counts.extend_from_slice(counts);
        (self.value.sum, self.value.count) = (sum, count);
    }
}

/// The column of rises.
fn build(
    values: &HistogramColumn<'_>,
    given: &HistogramColumn<'_>,
    risen: &[Risen],
    counts: &[i64],
) -> Result<StructArray, ArrowError> {
    let mut columns = HistogramBuilder::default();
    for (row, risen) in risen.iter().enumerate() {
        match risen {
            Risen::Null => columns.append_null(),
            Risen::Here { counts: range, sum, count } => {
                let bounds = values.shape(row).map_or(&[][..], |shape| shape.0);
                columns.append(bounds, &counts[range.clone()], *sum, *count);
            }
            Risen::Given => match given.shape(row) {
                Some((bounds, counts)) => columns.append(bounds, counts, given.sum(row), given.count(row)),
                None => columns.append_null(),
            },
        }
    }
    columns.finish()
}

/// Writes histograms as Arrow.
#[derive(Debug, Default)]
pub(crate) struct HistogramBuilder {
    bounds: Vec<f64>,
    bounds_of: Vec<usize>,
    counts: Vec<i64>,
    counts_of: Vec<usize>,
    sum: Vec<Option<f64>>,
    count: Vec<Option<i64>>,
    valid: Vec<bool>,
}

impl HistogramBuilder {
    pub fn append(&mut self, bounds: &[f64], counts: &[i64], sum: Option<f64>, count: Option<i64>) {
        self.bounds.extend_from_slice(bounds);
        self.bounds_of.push(bounds.len());
        self.counts.extend_from_slice(counts);
        self.counts_of.push(counts.len());
        self.sum.push(sum);
        self.count.push(count);
        self.valid.push(true);
    }

    pub fn append_null(&mut self) {
        self.append(&[], &[], None, None);
        if let Some(last) = self.valid.last_mut() {
            *last = false;
        }
    }

    /// A column of [`schema::histogram_type`].
    pub fn finish(self) -> Result<StructArray, ArrowError> {
        let list = |items: ArrayRef, lengths: Vec<usize>, nulls: &NullBuffer| {
            let field = Arc::new(Field::new("item", items.data_type().clone(), true));
            ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), items, Some(nulls.clone()))
        };
        let nulls = NullBuffer::from(self.valid);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(list(Arc::new(Float64Array::new(ScalarBuffer::from(self.bounds), None)), self.bounds_of, &nulls)?),
            Arc::new(list(Arc::new(Int64Array::new(ScalarBuffer::from(self.counts), None)), self.counts_of, &nulls)?),
            Arc::new(Float64Array::from(self.sum)),
            Arc::new(Int64Array::from(self.count)),
        ];
        StructArray::try_new(schema::histogram_fields(), columns, Some(nulls))
    }
}
