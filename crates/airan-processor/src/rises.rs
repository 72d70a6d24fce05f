//! What counters and histograms rose by since the row before.
//!
//! Rules (DESIGN section 3). State per (entity, column): last `ts`, value, start. A newer row gets the rise; where the source
//! began anew (its start changed, or the value fell) it gets the new value; on first sight null. A row at or before the last
//! `ts` gets null and counts as out of order: the next rise already covers it, so sums stay exact. A rise that came with the
//! row (delta sources) is kept as it is. `<c>_increase_seconds` is the span since the row before.
//!
//! Order is that of the log: message by message, and within a message by `ts` for each entity, rows of one `ts` in their
//! order. So rises do not depend on how the log was cut (**W3**). Only columns with a value in the message cost anything.

use std::sync::Arc;

use airan_model::catalog::{Column, ColumnType, Kind, Stream};
use airan_model::schema;
use airan_model::time::{Micros, SECOND};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBufferBuilder, Float64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{and, is_not_null, nullif};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::entities::{Entities, UNTRACKED};
use crate::histogram_rises::HistogramSlots;
use crate::settings::CounterSettings;

/// No row of it was seen.
pub(crate) const NEVER: Micros = Micros::MIN;
/// The source does not say when its counters began.
pub(crate) const NO_START: Micros = Micros::MIN;

/// The last values of one stream's counters in one shard.
#[derive(Debug)]
pub(crate) struct Rises {
    /// Who is remembered.
    pub entities: Entities,
    /// The stream's counters.
    pub counters: Vec<Tracked>,
    // Places of node and entity columns in the schema.
    key: Vec<usize>,
    // Per entity: the last message that had it, and its newest `ts` in there.
    touched: Vec<(u64, Micros)>,
    message: u64,
    /// Rows at or before the last `ts` of one of their counters; the shard takes it over.
    pub out_of_order: u64,
    /// Which rows of the last batch came after a later one of one of their counters; empty where none did. In the order of
    /// event time they would have had rises, and the rows that follow them others.
    pub overtaken: Vec<bool>,
    /// Whether the last batch had a value of any counter.
    pub has_values: bool,
    /// Histograms whose parts do not fit together: they got no rise.
    pub misshapen: u64,
}

/// One counter or histogram column and where its rise goes.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub name: String,
    place: usize,
    increase: usize,
    seconds: usize,
    pub slots: Slots,
}

/// Last values, by entity.
#[derive(Debug)]
pub(crate) enum Slots {
    Float(Vec<Slot<f64>>),
    Int(Vec<Slot<i64>>),
    Histogram(HistogramSlots),
}

/// The last value of one entity's counter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slot<T> {
    pub ts: Micros,
    pub start: Micros,
    pub value: T,
}

/// A number that counters are made of.
pub(crate) trait Counted: Copy + Default + PartialOrd {
    /// Whether it can be compared and subtracted: not for NaN and infinities.
    fn is_finite(self) -> bool;
    /// What it is more than `before`.
    fn since(self, before: Self) -> f64;
    /// As the increase of a counter that began at zero.
    fn whole(self) -> f64;
}

impl Counted for f64 {
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
    fn since(self, before: f64) -> f64 {
        self - before
    }
    fn whole(self) -> f64 {
        self
    }
}

impl Counted for i64 {
    fn is_finite(self) -> bool {
        true
    }
    fn since(self, before: i64) -> f64 {
        (i128::from(self) - i128::from(before)) as f64
    }
    fn whole(self) -> f64 {
        self as f64
    }
}

/// The rows of a message as the rises need them.
pub(crate) struct RowContext<'a> {
    /// Rows in the order in which they count; absent where that is their own.
    pub order: Option<Vec<u32>>,
    /// Entity by row, or [`UNTRACKED`].
    pub entity: Vec<u32>,
    pub ts: &'a TimestampMicrosecondArray,
    pub start: &'a TimestampMicrosecondArray,
    /// Slots that every column needs.
    pub slots: usize,
}

impl RowContext<'_> {
    /// Calls `with` for each row, in the order in which they count.
    pub fn each(&self, mut with: impl FnMut(usize)) {
        match &self.order {
            None => (0..self.entity.len()).for_each(with),
            Some(order) => order.iter().for_each(|row| with(*row as usize)),
        }
    }

    /// When the row's counters began.
    pub fn start(&self, row: usize) -> Micros {
        if self.start.is_valid(row) { self.start.value(row) } else { NO_START }
    }
}

impl Rises {
    pub fn new(stream: &Arc<Stream>, settings: &CounterSettings) -> Rises {
        let names = std::iter::once(schema::NODE).chain(stream.entity.iter().map(|column| column.name.as_str()));
        Rises {
            overtaken: Vec::new(),
            has_values: false,
            entities: Entities::new(settings),
            counters: stream.columns.iter().filter_map(|column| Tracked::new(stream, column)).collect(),
            key: names.filter_map(|name| stream.place_of(name)).collect(),
            touched: Vec::new(),
            message: 0,
            out_of_order: 0,
            misshapen: 0,
        }
    }

    /// The same rows with their rises. `rows` are conformed to the stream, with `ts` never null; `log_time` never goes back.
    pub fn add(&mut self, rows: RecordBatch, log_time: Micros) -> Result<RecordBatch, ArrowError> {
        self.add_seen(rows, Seen::At(log_time))
    }

    /// As [`Rises::add`], for rows that are sorted by event time and count as seen when they were measured. Older rows may be
    /// added afterwards: they fill in what is not known yet, and change nothing else.
    pub fn add_in_event_order(&mut self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        self.add_seen(rows, Seen::WhenMeasured)
    }

    fn add_seen(&mut self, rows: RecordBatch, seen: Seen) -> Result<RecordBatch, ArrowError> {
        self.overtaken.clear();
        self.has_values = false;
        let has_value = |tracked: &Tracked| rows.column(tracked.place).null_count() < rows.num_rows();
        if !self.counters.iter().any(has_value) {
            return Ok(rows);
        }
        self.has_values = true;
        let context = self.context(&rows, seen)?;
        let mut late = Late::new(rows.num_rows());
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        for tracked in self.counters.iter_mut().filter(|tracked| has_value(tracked)) {
            let (increase, seconds) = tracked.rise(&columns, &context, &mut late, &mut self.misshapen)?;
            columns[tracked.increase] = increase;
            columns[tracked.seconds] = seconds;
        }
        self.out_of_order += late.count();
        self.overtaken = late.overtaken(context.ts);
        RecordBatch::try_new(rows.schema(), columns)
    }

    /// The entity columns of `rows`.
    fn key_of<'a>(&self, rows: &'a RecordBatch) -> Vec<Option<&'a StringArray>> {
        let columns = self.key.iter().map(|place| rows.column(*place));
        columns.map(|column| column.as_string_opt::<i32>().filter(|texts| texts.null_count() < texts.len())).collect()
    }

    /// Calls `with` for each row and counter with a value: the row, its entity if known, the counter's index, and the time of
    /// the last value known of it.
    pub fn look_up(&self, rows: &RecordBatch, mut with: impl FnMut(usize, Option<u32>, usize, Option<Micros>)) {
        let has_value = |tracked: &&(usize, &Tracked)| rows.column(tracked.1.place).null_count() < rows.num_rows();
        let counters: Vec<(usize, &Tracked)> =
            self.counters.iter().enumerate().collect::<Vec<_>>().iter().filter(has_value).copied().collect();
        if counters.is_empty() {
            return;
        }
        let key = self.key_of(rows);
        for row in 0..rows.num_rows() {
            let entity = self.entities.get(&key, row);
            for (index, tracked) in counters.iter().filter(|(_, tracked)| rows.column(tracked.place).is_valid(row)) {
                with(row, entity, *index, entity.and_then(|entity| tracked.slots.last(entity as usize)));
            }
        }
    }

    /// The (entity, counter) whose last value is of `from` or later.
    pub fn seen_since(&self, from: Micros) -> Vec<(u32, usize)> {
        let mut seen = Vec::new();
        for entity in 0..self.entities.capacity() {
            let counters = self.counters.iter().enumerate();
            let is_since =
                |(_, tracked): &(usize, &Tracked)| tracked.slots.last(entity).is_some_and(|last| last >= from);
            seen.extend(counters.filter(is_since).map(|(index, _)| (entity as u32, index)));
        }
        seen
    }

    /// Rows of one source hold either cumulative values or rises of their own. The rises that were computed of the former are
    /// taken out of `rows`, so that they can be computed anew; those that came with their row stay. The two are told apart by
    /// the span: one that was computed has it beside its value.
    pub fn without_computed(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        for tracked in &self.counters {
            let (value, seconds) = (rows.column(tracked.place), rows.column(tracked.seconds));
            if value.null_count() == rows.num_rows() || seconds.null_count() == rows.num_rows() {
                continue;
            }
            let computed = and(&is_not_null(value)?, &is_not_null(seconds)?)?;
            if computed.true_count() > 0 {
                columns[tracked.increase] = nullif(rows.column(tracked.increase), &computed)?;
                columns[tracked.seconds] = nullif(seconds, &computed)?;
            }
        }
        RecordBatch::try_new(rows.schema(), columns)
    }

    /// Finds the entities of the rows and the order in which the rows count.
    fn context<'a>(&mut self, rows: &'a RecordBatch, seen: Seen) -> Result<RowContext<'a>, ArrowError> {
        let time = |name: &str| {
            let column =
                rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
            column.ok_or_else(|| ArrowError::SchemaError(format!("no times in column `{name}`")))
        };
        let (ts, start) = (time(schema::TS)?, time(schema::START_TS)?);
        let key = self.key_of(rows);
        self.message += 1;
        let mut entity = Vec::with_capacity(rows.num_rows());
        let (mut before, mut in_order) = (UNTRACKED, true);
        for row in 0..rows.num_rows() {
            let at = match seen {
                Seen::At(log_time) => log_time,
                Seen::WhenMeasured => ts.value(row),
            };
            let found = self.entities.find(&key, row, before, at);
            entity.push(found.entity);
            if found.entity == UNTRACKED {
                continue;
            }
            before = found.entity;
            let number = found.entity as usize;
            if number >= self.touched.len() {
                self.touched.resize(self.entities.capacity(), (0, NEVER));
            }
            if found.is_new {
                self.counters.iter_mut().for_each(|tracked| tracked.slots.clear(number));
            }
            let newest = &mut self.touched[number];
            in_order &= newest.0 != self.message || ts.value(row) >= newest.1;
            *newest = (self.message, ts.value(row));
        }
        let order = (!in_order).then(|| {
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.sort_by_key(|row| ts.value(*row as usize));
            order
        });
        Ok(RowContext { order, entity, ts, start, slots: self.entities.capacity() })
    }
}

impl Tracked {
    /// None for columns without rises.
    fn new(stream: &Stream, column: &Column) -> Option<Tracked> {
        let slots = match (column.kind, column.ty) {
            (Kind::Counter, ColumnType::Float) => Slots::Float(Vec::new()),
            (Kind::Counter, ColumnType::Int) => Slots::Int(Vec::new()),
            (Kind::Histogram, ColumnType::Histogram) => Slots::Histogram(HistogramSlots::default()),
            _ => return None,
        };
        let place = |suffix: &str| stream.place_of(&format!("{}{suffix}", column.name));
        Some(Tracked {
            name: column.name.clone(),
            place: place("")?,
            increase: place(schema::INCREASE)?,
            seconds: place(schema::INCREASE_SECONDS)?,
            slots,
        })
    }

    /// The column's rises and their spans.
    fn rise(
        &mut self,
        columns: &[ArrayRef],
        rows: &RowContext<'_>,
        late: &mut Late,
        misshapen: &mut u64,
    ) -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let (values, given) = (&columns[self.place], &columns[self.increase]);
        let seconds = Numbers::from(columns[self.seconds].as_primitive::<Float64Type>());
        let mut outcome = Outcome { late, seconds, misshapen };
        let increase: ArrayRef = match &mut self.slots {
            Slots::Float(slots) => {
                Arc::new(rise_numbers(slots, values.as_primitive::<Float64Type>(), given, rows, &mut outcome))
            }
            Slots::Int(slots) => {
                Arc::new(rise_numbers(slots, values.as_primitive::<Int64Type>(), given, rows, &mut outcome))
            }
            Slots::Histogram(slots) => {
                Arc::new(slots.rise(values.as_struct(), given.as_struct(), rows, &mut outcome)?)
            }
        };
        Ok((increase, Arc::new(outcome.seconds.finish())))
    }
}

/// When a row counts as seen, which decides how long its entity is remembered.
#[derive(Clone, Copy)]
enum Seen {
    At(Micros),
    WhenMeasured,
}

impl Slots {
    /// Time of the last value of an entity.
    fn last(&self, entity: usize) -> Option<Micros> {
        let ts = match self {
            Slots::Float(slots) => slots.get(entity)?.ts,
            Slots::Int(slots) => slots.get(entity)?.ts,
            Slots::Histogram(slots) => slots.get(entity)?.ts,
        };
        (ts != NEVER).then_some(ts)
    }

    /// Forgets what was remembered of an entity.
    fn clear(&mut self, entity: usize) {
        match self {
            Slots::Float(slots) => clear(slots, entity),
            Slots::Int(slots) => clear(slots, entity),
            Slots::Histogram(slots) => slots.clear(entity),
        }
    }
}

impl<T: Default> Slot<T> {
    pub(crate) fn empty() -> Slot<T> {
        Slot { ts: NEVER, start: NO_START, value: T::default() }
    }
}

fn clear<T: Default>(slots: &mut [Slot<T>], entity: usize) {
    if let Some(slot) = slots.get_mut(entity) {
        *slot = Slot::empty();
    }
}

/// The rises of a column of numbers.
fn rise_numbers<P>(
    slots: &mut Vec<Slot<P::Native>>,
    values: &PrimitiveArray<P>,
    given: &ArrayRef,
    rows: &RowContext<'_>,
    outcome: &mut Outcome<'_>,
) -> Float64Array
where
    P: ArrowPrimitiveType,
    P::Native: Counted,
{
    if slots.len() < rows.slots {
        slots.resize(rows.slots, Slot::empty());
    }
    let given = given.as_primitive::<Float64Type>();
    let is_any_given = given.null_count() < given.len();
    let is_full = values.null_count() == 0;
    let mut increase = Numbers::from(given);
    rows.each(|row| {
        let entity = rows.entity[row];
        if entity == UNTRACKED || (!is_full && values.is_null(row)) {
            return;
        }
        let value = values.value(row);
        if !value.is_finite() {
            return;
        }
        let (ts, start) = (rows.ts.value(row), rows.start(row));
        let slot = &mut slots[entity as usize];
        let is_given = is_any_given && given.is_valid(row);
        if slot.ts != NEVER && ts <= slot.ts {
            if !is_given {
                outcome.late.mark(row, slot.ts);
            }
            return;
        }
        if slot.ts != NEVER && !is_given {
            let is_reset = began_anew(slot.start, start) || value < slot.value;
            increase.set(row, if is_reset { value.whole() } else { value.since(slot.value) });
            outcome.seconds.set(row, span(slot.ts, ts));
        }
        *slot = Slot { ts, start: if start == NO_START { slot.start } else { start }, value };
    });
    increase.finish()
}

/// Whether a source that says when its counters began has begun again.
pub(crate) fn began_anew(before: Micros, now: Micros) -> bool {
    before != NO_START && now != NO_START && before != now
}

/// Seconds between two times.
pub(crate) fn span(from: Micros, to: Micros) -> f64 {
    (to as f64 - from as f64) / SECOND as f64
}

/// What a column's rises say beside themselves.
pub(crate) struct Outcome<'a> {
    /// Rows out of order.
    pub late: &'a mut Late,
    /// Spans of the rises.
    pub seconds: Numbers,
    /// Histograms without a shape.
    pub misshapen: &'a mut u64,
}

/// Rows that came out of order in one of their counters; each counts once.
#[derive(Debug)]
pub(crate) struct Late {
    rows: usize,
    /// By row the newest time that was there before it.
    behind: Vec<Micros>,
}

impl Late {
    fn new(rows: usize) -> Late {
        Late { rows, behind: Vec::new() }
    }

    /// The row is not after `last`.
    pub(crate) fn mark(&mut self, row: usize, last: Micros) {
        self.behind.resize(self.rows, NEVER);
        self.behind[row] = self.behind[row].max(last);
    }

    fn count(&self) -> u64 {
        self.behind.iter().filter(|behind| **behind != NEVER).count() as u64
    }

    /// Rows strictly before what was there: a second row of one instant has no rise in any order.
    fn overtaken(&self, ts: &TimestampMicrosecondArray) -> Vec<bool> {
        let is_before = |(row, behind): (usize, &Micros)| ts.value(row) < *behind;
        let overtaken: Vec<bool> = self.behind.iter().enumerate().map(is_before).collect();
        if overtaken.contains(&true) { overtaken } else { Vec::new() }
    }
}

/// A column of numbers in the making, null where nothing was set.
pub(crate) struct Numbers {
    values: Vec<f64>,
    valid: BooleanBufferBuilder,
}

impl Numbers {
    /// Starts from what the column holds.
    fn from(column: &Float64Array) -> Numbers {
        let mut valid = BooleanBufferBuilder::new(column.len());
        if column.null_count() == column.len() {
            valid.append_n(column.len(), false);
            return Numbers { values: vec![0.0; column.len()], valid };
        }
        match column.nulls() {
            Some(nulls) => valid.append_buffer(nulls.inner()),
            None => valid.append_n(column.len(), true),
        }
        Numbers { values: column.values().to_vec(), valid }
    }

    pub(crate) fn set(&mut self, row: usize, value: f64) {
        self.values[row] = value;
        self.valid.set_bit(row, true);
    }

    fn finish(mut self) -> Float64Array {
        let valid: BooleanBuffer = self.valid.finish();
        Float64Array::new(ScalarBuffer::from(self.values), Some(NullBuffer::new(valid)))
    }
}

#[cfg(test)]
#[path = "rises_tests.rs"]
mod tests;
