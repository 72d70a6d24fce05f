//! `histogram_merge(h)`: the observations of all rows of a group in one histogram.
//!
//! The state of a group is itself a histogram, and merging two states is the same operation as adding a row. It is associative
//! and commutative (but for the last digits of the sum), so neither the cut of rows into batches nor the folding of states
//! changes what comes out (**W3**). Counts are exact whole numbers, and stop at the largest i64.
//!
//! A row whose parts do not fit together (a count missing or below 0, bounds that do not ascend) is left out like a null. Where
//! the sum of one row is missing, that of the group is.

use std::sync::Arc;

use airan_model::schema;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use super::column::{Histogram, Histograms, are_bounds, histograms};
use super::{MERGE, coerced, is_cumulative};

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Merge {
    signature: Signature,
}

impl Merge {
    pub fn new() -> Merge {
        Merge { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Merge {
    fn name(&self) -> &str {
        MERGE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [ty] => Ok(vec![coerced(MERGE, ty)?]),
            _ => plan_err!("{MERGE} takes one histogram"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(schema::histogram_type())
    }

    fn return_field(&self, args: &[FieldRef]) -> Result<FieldRef> {
        if let Some(field) = args.first().filter(|field| is_cumulative(field)) {
            let (name, increase) = (field.name(), schema::INCREASE);
            return plan_err!(
                "`{name}` counts from its server's start, and merging its rows would count each observation many times: \
                 write {MERGE}({name}{increase})"
            );
        }
        Ok(Arc::new(Field::new(MERGE, schema::histogram_type(), true)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_distinct(args.is_distinct)?;
        Ok(Box::new(One::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        not_distinct(args.is_distinct)?;
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "merged"), schema::histogram_type(), true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        not_distinct(args.is_distinct)?;
        Ok(Box::new(Groups::default()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

fn not_distinct(is_distinct: bool) -> Result<()> {
    if is_distinct { plan_err!("{MERGE} adds up observations: DISTINCT has no meaning there") } else { Ok(()) }
}

/// The merged histograms of all groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// None where no row of the group has a histogram.
    cells: Vec<Option<Cell>>,
    /// Bounds as they were last needed: groups mostly have the same, and share them.
    shared: Option<Arc<[f64]>>,
    /// Bytes behind `cells`, bounds that are shared counted once.
    heap: usize,
}

#[derive(Debug)]
struct Cell {
    bounds: Arc<[f64]>,
    counts: Vec<i64>,
    sum: Option<f64>,
    count: i64,
}

impl Groups {
    fn add(&mut self, group: usize, row: &Histogram<'_>) {
        let Some(cell) = self.cells.get_mut(group) else { return };
        if let Some(cell) = cell {
            if *cell.bounds == *row.bounds {
                cell.add(row.counts, row.sum, row.count);
            } else if are_bounds(row.bounds) {
                let before = cell.bytes();
                cell.reconcile(row);
                self.heap = self.heap.saturating_sub(before) + cell.bytes();
            }
            return;
        }
        let bounds = match &self.shared {
            Some(shared) if **shared == *row.bounds => Arc::clone(shared),
            _ if !are_bounds(row.bounds) => return,
            _ => {
                let bounds: Arc<[f64]> = row.bounds.into();
                self.heap += size_of_val(row.bounds);
                Arc::clone(self.shared.insert(bounds))
            }
        };
        let made = Cell { bounds, counts: row.counts.to_vec(), sum: row.sum, count: row.count };
        self.heap += size_of_val(row.counts);
        *cell = Some(made);
    }

    /// Adds rows, each to its group; `is_taken` says which count.
    fn add_all(&mut self, values: &[ArrayRef], groups: &[usize], is_taken: impl Fn(usize) -> bool) -> Result<()> {
        let [column] = values else {
            return Err(exec_datafusion_err!("{MERGE} takes one column, got {}", values.len()));
        };
        let rows = Histograms::of(column)?;
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| is_taken(*row)) {
            if let Some(histogram) = rows.get(row) {
                self.add(*group, &histogram);
            }
        }
        Ok(())
    }

    fn grow(&mut self, groups: usize) {
        if self.cells.len() < groups {
            self.cells.resize_with(groups, || None);
        }
    }

    /// The first groups, or all, which are then gone from here.
    fn emit(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let emitted = emit_to.take_needed(&mut self.cells);
        self.shared = None;
        self.heap = self.cells.iter().flatten().map(Cell::bytes).sum();
        column_of(&emitted)
    }
}

fn column_of(cells: &[Option<Cell>]) -> Result<ArrayRef> {
    histograms(cells.iter().map(|cell| cell.as_ref().map(Cell::as_histogram)))
}

impl Cell {
    fn as_histogram(&self) -> Histogram<'_> {
        Histogram { bounds: &self.bounds, counts: &self.counts, sum: self.sum, count: self.count }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.bounds) + size_of_val(self.counts.as_slice())
    }

    fn add(&mut self, counts: &[i64], sum: Option<f64>, count: i64) {
        for (into, count) in self.counts.iter_mut().zip(counts) {
            *into = into.saturating_add(*count);
        }
        self.add_totals(sum, count);
    }

    fn add_totals(&mut self, sum: Option<f64>, count: i64) {
        self.sum = self.sum.zip(sum).map(|(a, b)| a + b);
        self.count = self.count.saturating_add(count);
    }

    /// Adds a histogram with other bounds.
    fn reconcile(&mut self, row: &Histogram<'_>) {
        match (is_empty(&self.counts), is_empty(row.counts)) {
            (false, true) => {}
            (true, false) => {
                self.bounds = row.bounds.into();
                self.counts = row.counts.to_vec();
            }
            _ => {
                let whole = cutting_nothing(&self.as_histogram(), row);
                if *whole != *self.bounds {
                    let mut counts = vec![0; whole.len() + 1];
                    rebucket(&self.bounds, &self.counts, &whole, &mut counts);
                    (self.bounds, self.counts) = (whole.into(), counts);
                }
                rebucket(row.bounds, row.counts, &self.bounds, &mut self.counts);
            }
        }
        self.add_totals(row.sum, row.count);
    }
}

fn is_empty(counts: &[i64]) -> bool {
    counts.iter().all(|count| *count == 0)
}

/// The bounds of either that lie inside no bucket of the other which holds something, ascending.
fn cutting_nothing(a: &Histogram<'_>, b: &Histogram<'_>) -> Vec<f64> {
    let (mut at_a, mut at_b) = (0, 0);
    let mut kept = Vec::with_capacity(a.bounds.len().max(b.bounds.len()));
    loop {
        let (next_a, next_b) = (a.bounds.get(at_a).copied(), b.bounds.get(at_b).copied());
        let bound = match (next_a, next_b) {
            (None, None) => return kept,
            (Some(a), Some(b)) => a.min(b),
            (Some(bound), None) | (None, Some(bound)) => bound,
        };
        let (is_a, is_b) = (next_a == Some(bound), next_b == Some(bound));
        // The bucket behind the bounds so far is the one that holds the bound.
        if (is_a || a.counts[at_a] == 0) && (is_b || b.counts[at_b] == 0) {
            kept.push(bound);
        }
        at_a += usize::from(is_a);
        at_b += usize::from(is_b);
    }
}

/// Adds counts of buckets to those of coarser buckets, each of which holds whole buckets of theirs, but for empty ones.
fn rebucket(bounds: &[f64], counts: &[i64], coarser: &[f64], into: &mut [i64]) {
    let mut at = 0;
    for (index, count) in counts.iter().enumerate() {
        // The bucket behind the last bound reaches to infinity, in both.
        let bound = bounds.get(index).copied().unwrap_or(f64::INFINITY);
        while at < coarser.len() && coarser[at] < bound {
            at += 1;
        }
        into[at] = into[at].saturating_add(*count);
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        match filter {
            None => self.add_all(values, groups, |_| true),
            Some(filter) => self.add_all(values, groups, |row| filter.is_valid(row) && filter.value(row)),
        }
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        self.add_all(values, groups, |_| true)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.emit(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.emit(emit_to)?])
    }

    /// A row is the state of a group of its own.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(filter) = filter else { return Ok(values.to_vec()) };
        let taken = NullBuffer::from_iter((0..filter.len()).map(|row| filter.is_valid(row) && filter.value(row)));
        let masked = |column: &ArrayRef| -> Result<ArrayRef> {
            let column = column.as_struct_opt().ok_or_else(|| exec_datafusion_err!("not a column of histograms"))?;
            let (fields, columns, nulls) = column.clone().into_parts();
            let nulls = NullBuffer::union(nulls.as_ref(), Some(&taken));
            Ok(Arc::new(StructArray::try_new(fields, columns, nulls)?))
        };
        values.iter().map(masked).collect()
    }

    fn size(&self) -> usize {
        self.cells.capacity() * size_of::<Option<Cell>>() + self.heap
    }
}

/// The merged histogram of a query without groups.
#[derive(Debug)]
pub(super) struct One(Groups);

impl Default for One {
    fn default() -> One {
        One(Groups { cells: vec![None], ..Groups::default() })
    }
}

impl One {
    fn value(&self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&column_of(&self.0.cells)?, 0)
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.0.add_all(values, &vec![0; rows], |_| true)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.value()
    }

    fn size(&self) -> usize {
        size_of::<One>() + GroupsAccumulator::size(&self.0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
