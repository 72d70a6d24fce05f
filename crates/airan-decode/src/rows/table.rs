//! Wide rows of one stream, found by who they are about and when: (node, entity, instant).
//!
//! Samples of one key share a row. Counters that began at different times do not, because a row has one `start_ts`: they get
//! further rows of the same key, with disjoint columns, as DESIGN section 3 allows. A cell is filled once in all rows of a key,
//! unless the mapping says how several samples become one.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use airan_model::catalog::{ColumnType, Combine, Stream};
use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::budget::Budget;
use super::columns::{Attributes, Column, Numbers, Texts, Value};
use crate::DecodedRows;
use crate::histogram::HistogramColumn;
use crate::number::Number;

/// Most rows of one key: counters of one process begin together, so there are one or two.
const ROWS_PER_KEY: usize = 8;
/// Most attributes of one row. Only a hostile sender's samples bring more to one row; these are left out.
const ATTRIBUTES_PER_ROW: u32 = 256;
/// No further row.
const NONE: u32 = u32::MAX;

/// Who a row is about, and when. `entity` gives the values of the stream's entity columns.
pub(crate) struct Key<'k, E> {
    pub node: &'k str,
    pub ts: Micros,
    pub entity: E,
}

/// Where a sample goes within its key's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    /// Index in the stream's columns.
    pub column: usize,
    /// Into the column's `_increase` instead of the column itself.
    pub is_increase: bool,
}

/// One row without its values.
#[derive(Debug)]
struct Head {
    hash: u64,
    ts: Micros,
    start: Option<Micros>,
    // The next row of the same key.
    next: u32,
}

/// The rows of one stream.
#[derive(Debug)]
pub(crate) struct Table {
    stream: Arc<Stream>,
    hasher: RandomState,
    // The first row of each key.
    first: HashTable<u32>,
    heads: Vec<Head>,
    node: Texts,
    entity: Vec<Texts>,
    // Of column c: its values at 2c, its increases at 2c + 1.
    cells: Vec<Option<Column>>,
    // Seconds that increases took, by column.
    seconds: Vec<Option<Numbers<Float64Type>>>,
    attributes: RowAttributes,
    // Columns in `cells` that have a value.
    width: usize,
}

impl Table {
    pub(crate) fn new(stream: &Arc<Stream>) -> Table {
        Table {
            stream: Arc::clone(stream),
            hasher: RandomState::default(),
            first: HashTable::new(),
            heads: Vec::new(),
            node: Texts::default(),
            entity: stream.entity.iter().map(|_| Texts::default()).collect(),
            cells: (0..stream.columns.len() * 2).map(|_| None).collect(),
            seconds: stream.columns.iter().map(|_| None).collect(),
            attributes: RowAttributes::default(),
            width: 0,
        }
    }

    /// Whether it has the rows of that stream.
    pub(crate) fn is_of(&self, stream: &Arc<Stream>) -> bool {
        Arc::ptr_eq(&self.stream, stream)
    }

    /// Puts a value into its cell, in the first row of the key that takes it, and gives the row. None where a sample has been
    /// there already and the two do not become one. `start` is when a counter began.
    pub(crate) fn put<'k, E: Fn(usize) -> Option<&'k str>>(
        &mut self,
        key: &Key<'k, E>,
        cell: Cell,
        value: Value<'_>,
        combine: Combine,
        start: Option<Micros>,
        budget: &mut Budget,
    ) -> Option<usize> {
        let hash = self.hash(key);
        let first = match self.first.find(hash, |row| self.is(*row as usize, hash, key)) {
            Some(row) => *row as usize,
            None => {
                let row = self.add_row(hash, key, start, budget);
                let heads = &self.heads;
                self.first.insert_unique(hash, row as u32, |row| heads[*row as usize].hash);
                self.set(row, cell, value, budget);
                return Some(row);
            }
        };
        let (mut fits, mut last, mut rows) = (None, first, 0);
        let mut at = first as u32;
        while at != NONE {
            let row = at as usize;
            if self.has(row, cell) {
                return self.combine(row, cell, value, combine).then_some(row);
            }
            let head = &self.heads[row];
            if fits.is_none() && (start.is_none() || head.start.is_none() || head.start == start) {
                fits = Some(row);
            }
            (last, rows, at) = (row, rows + 1, head.next);
        }
        let row = match fits {
            Some(row) => {
                let head = &mut self.heads[row];
                head.start = head.start.or(start);
                row
            }
            None if rows >= ROWS_PER_KEY => return None,
            None => {
                let row = self.add_row(hash, key, start, budget);
                self.heads[last].next = row as u32;
                row
            }
        };
        self.set(row, cell, value, budget);
        Some(row)
    }

    /// Adds a row that stands for itself, also where there is one of its key; nothing is put into it but by its number.
    pub(crate) fn add<'k, E: Fn(usize) -> Option<&'k str>>(&mut self, key: &Key<'k, E>, budget: &mut Budget) -> usize {
        self.add_row(self.hash(key), key, None, budget)
    }

    /// Sets an empty cell of a row that was added.
    pub(crate) fn put_value(&mut self, row: usize, column: usize, value: Value<'_>, budget: &mut Budget) {
        self.set(row, Cell { column, is_increase: false }, value, budget);
    }

    /// The seconds an increase took.
    pub(crate) fn put_seconds(&mut self, row: usize, column: usize, seconds: f64) {
        self.seconds[column].get_or_insert_default().set(row, seconds);
    }

    /// Fills a text column from a label, where the row has no value yet.
    pub(crate) fn put_text(&mut self, row: usize, column: usize, text: &str, budget: &mut Budget) {
        let cell = Cell { column, is_increase: false };
        if !self.has(row, cell) {
            budget.text(text.len());
            self.set(row, cell, Value::Text(text), budget);
        }
    }

    /// Fills a column of numbers from a label, where the row has no value yet; false where the text is no number of the column.
    pub(crate) fn put_number(&mut self, row: usize, column: usize, text: &str, budget: &mut Budget) -> bool {
        let number = Number::parse(text);
        let value = match self.stream.columns[column].ty {
            ColumnType::Int => number.and_then(Number::as_i64).map(Value::Int),
            _ => number.map(Number::as_f64).filter(|value| value.is_finite()).map(Value::Float),
        };
        let cell = Cell { column, is_increase: false };
        match value {
            Some(value) if !self.has(row, cell) => self.set(row, cell, value, budget),
            Some(_) => {}
            None => return false,
        }
        true
    }

    /// Keeps a label without a column. The first value of a name stays.
    pub(crate) fn put_attribute(&mut self, row: usize, name: &str, value: &str, budget: &mut Budget) {
        self.attributes.put(row, name, value, budget);
    }

    /// The rows, unless there are none.
    pub(crate) fn finish(self) -> Result<Option<DecodedRows>, ArrowError> {
        let rows = self.heads.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let mut add = |name: &str, array: ArrayRef| {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        };
        let ts = TimestampMicrosecondArray::from_iter_values(self.heads.iter().map(|head| head.ts));
        add(schema::TS, Arc::new(ts.with_timezone("UTC")));
        add(schema::NODE, Arc::new(self.node.finish()?));
        if self.heads.iter().any(|head| head.start.is_some()) {
            let starts: TimestampMicrosecondArray = self.heads.iter().map(|head| head.start).collect();
            add(schema::START_TS, Arc::new(starts.with_timezone("UTC")));
        }
        for (column, texts) in self.stream.entity.iter().zip(self.entity) {
            if let Some(array) = texts.finish_some()? {
                add(&column.name, array);
            }
        }
        let mut seconds = self.seconds.into_iter();
        let mut cells = self.cells.into_iter();
        for column in &self.stream.columns {
            if let Some(values) = cells.next().flatten() {
                add(&column.name, values.finish(rows)?);
            }
            if let Some(increases) = cells.next().flatten() {
                add(&format!("{}{}", column.name, schema::INCREASE), increases.finish(rows)?);
            }
            if let Some(seconds) = seconds.next().flatten() {
                add(&format!("{}{}", column.name, schema::INCREASE_SECONDS), Arc::new(seconds.finish(rows)));
            }
        }
        if let Some(attributes) = self.attributes.finish(rows)? {
            add(schema::ATTRIBUTES, attributes);
        }
        Ok(Some(DecodedRows { rows: batch(fields, arrays, rows)?, stream: self.stream }))
    }

    fn hash<'k, E: Fn(usize) -> Option<&'k str>>(&self, key: &Key<'k, E>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_i64(key.ts);
        hasher.write(key.node.as_bytes());
        for column in 0..self.entity.len() {
            match (key.entity)(column) {
                Some(value) => hasher.write(value.as_bytes()),
                None => hasher.write_u8(0),
            }
        }
        hasher.finish()
    }

    fn is<'k, E: Fn(usize) -> Option<&'k str>>(&self, row: usize, hash: u64, key: &Key<'k, E>) -> bool {
        let head = &self.heads[row];
        head.hash == hash
            && head.ts == key.ts
            && self.node.get(row) == Some(key.node)
            && self.entity.iter().enumerate().all(|(column, texts)| texts.get(row) == (key.entity)(column))
    }

    fn add_row<'k, E: Fn(usize) -> Option<&'k str>>(
        &mut self,
        hash: u64,
        key: &Key<'k, E>,
        start: Option<Micros>,
        budget: &mut Budget,
    ) -> usize {
        self.heads.push(Head { hash, ts: key.ts, start, next: NONE });
        self.node.push(Some(key.node));
        let mut text = key.node.len();
        for (column, texts) in self.entity.iter_mut().enumerate() {
            let value = (key.entity)(column);
            text += value.map_or(0, str::len);
            texts.push(value);
        }
        budget.text(text);
        // The head and the ends of node and entity texts take as much as some cells.
        budget.cells(self.width + 4 + self.entity.len());
        self.heads.len() - 1
    }

    fn place(cell: Cell) -> usize {
        2 * cell.column + usize::from(cell.is_increase)
    }

    fn has(&self, row: usize, cell: Cell) -> bool {
        self.cells[Table::place(cell)].as_ref().is_some_and(|column| column.has(row))
    }

    /// Sets an empty cell. A value of another type than the column's is left out; callers have fitted it.
    fn set(&mut self, row: usize, cell: Cell, value: Value<'_>, budget: &mut Budget) {
        let ty = self.stream.columns[cell.column].ty;
        let place = Table::place(cell);
        let (rows, width) = (self.heads.len(), &mut self.width);
        let column = self.cells[place].get_or_insert_with(|| {
            budget.cells(rows);
            *width += 1;
            match (ty, cell.is_increase) {
                (ColumnType::Histogram, _) => Column::Histogram(HistogramColumn::default()),
                (_, true) | (ColumnType::Float, _) => Column::Float(Numbers::default()),
                (ColumnType::Int, _) => Column::Int(Numbers::default()),
                (ColumnType::Text, _) => Column::Text(Default::default()),
            }
        });
        match (column, value) {
            (Column::Float(numbers), Value::Float(value)) => numbers.set(row, value),
            (Column::Int(numbers), Value::Int(value)) => numbers.set(row, value),
            (Column::Text(texts), Value::Text(value)) => texts.set(row, value),
            (Column::Histogram(histograms), Value::Histogram(value)) => {
                budget.cells(2 * value.bounds.len() + 4);
                histograms.set(row, value);
            }
            _ => {}
        }
    }

    /// Makes one of a filled cell's value and another; false where that cannot be.
    fn combine(&mut self, row: usize, cell: Cell, value: Value<'_>, combine: Combine) -> bool {
        match (&mut self.cells[Table::place(cell)], value) {
            (Some(Column::Float(numbers)), Value::Float(value)) => {
                let Some(before) = numbers.get(row) else { return false };
                let both = match combine {
                    Combine::Only => return false,
                    Combine::Sum => before + value,
                    Combine::Max => before.max(value),
                    Combine::Min => before.min(value),
                };
                both.is_finite() && {
                    numbers.set(row, both);
                    true
                }
            }
            (Some(Column::Int(numbers)), Value::Int(value)) => {
                let Some(before) = numbers.get(row) else { return false };
                let both = match combine {
                    Combine::Only => None,
                    Combine::Sum => before.checked_add(value),
                    Combine::Max => Some(before.max(value)),
                    Combine::Min => Some(before.min(value)),
                };
                both.map(|both| numbers.set(row, both)).is_some()
            }
            _ => false,
        }
    }
}

/// One batch; all columns may be null.
pub(crate) fn batch(fields: Vec<Field>, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
}

/// A column of times with some missing.
pub(crate) fn times(numbers: Numbers<TimestampMicrosecondType>, rows: usize) -> ArrayRef {
    let times = numbers.finish(rows).with_timezone("UTC");
    debug_assert!(matches!(arrow::array::Array::data_type(&times), DataType::Timestamp(..)));
    Arc::new(times)
}

/// Attributes of rows that get more of them while samples come.
#[derive(Debug, Default)]
struct RowAttributes {
    text: String,
    entries: Vec<Entry>,
    // By row: its first and last entry, and how many it has.
    ends: Vec<(u32, u32, u32)>,
}

/// Name and value one after the other in the text.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name: u32,
    value: u32,
    // The row's next entry.
    next: u32,
}

impl RowAttributes {
    fn put(&mut self, row: usize, name: &str, value: &str, budget: &mut Budget) {
        if row >= self.ends.len() {
            self.ends.resize(row + 1, (NONE, NONE, 0));
        }
        let (first, last, count) = self.ends[row];
        let mut at = first;
        while at != NONE {
            let entry = self.entries[at as usize];
            if self.name(entry) == name {
                return;
            }
            at = entry.next;
        }
        if count >= ATTRIBUTES_PER_ROW {
            return;
        }
        let new = self.entries.len() as u32;
        let start = self.text.len() as u32;
        self.text.push_str(name);
        self.text.push_str(value);
        self.entries.push(Entry { at: start, name: name.len() as u32, value: value.len() as u32, next: NONE });
        match self.entries.get_mut(last as usize) {
            Some(last) => last.next = new,
            None => self.ends[row].0 = new,
        }
        (self.ends[row].1, self.ends[row].2) = (new, count + 1);
        // The entry itself, and its two ends in the finished column.
        budget.text(name.len() + value.len() + size_of::<Entry>());
    }

    fn name(&self, entry: Entry) -> &str {
        &self.text[entry.at as usize..(entry.at + entry.name) as usize]
    }

    fn finish(self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        let mut column = Attributes::default();
        for row in 0..rows {
            let mut at = self.ends.get(row).map_or(NONE, |ends| ends.0);
            while at != NONE {
                let entry = self.entries[at as usize];
                let value = (entry.at + entry.name) as usize;
                column.entry(self.name(entry), Some(&self.text[value..value + entry.value as usize]));
                at = entry.next;
            }
            column.end_row();
        }
        column.finish_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::catalog::Catalog;
    use arrow::array::{Array, AsArray};

    struct Put {
        table: Table,
        budget: Budget,
    }

    impl Put {
        fn new() -> Put {
            let catalog = Catalog::builtin().unwrap();
            Put { table: Table::new(catalog.stream("accelerator").unwrap()), budget: Budget::default() }
        }

        fn put(
            &mut self,
            device: &str,
            column: &str,
            value: f64,
            combine: Combine,
            start: Option<i64>,
        ) -> Option<usize> {
            let column = self.table.stream.column_index(column).unwrap();
            let key = Key { node: "n", ts: 7, entity: |column| (column == 0).then_some(device) };
            let cell = Cell { column, is_increase: false };
            self.table.put(&key, cell, Value::Float(value), combine, start, &mut self.budget)
        }

        fn floats(self, column: &str) -> Vec<Option<f64>> {
            let rows = self.table.finish().unwrap().unwrap().rows;
            rows.column_by_name(column).unwrap().as_primitive::<Float64Type>().iter().collect()
        }
    }

    #[test]
    fn samples_of_one_key_share_a_row_and_a_cell_is_filled_once() {
        let mut rows = Put::new();
        assert_eq!(rows.put("a", "utilization", 0.5, Combine::Only, None), Some(0));
        assert_eq!(rows.put("b", "utilization", 0.25, Combine::Only, None), Some(1));
        assert_eq!(rows.put("a", "power_watts", 300.0, Combine::Only, None), Some(0));
        assert_eq!(rows.put("a", "utilization", 0.75, Combine::Only, None), None);
        assert_eq!(rows.floats("utilization"), [Some(0.5), Some(0.25)]);
    }

    #[test]
    fn combined_cells_add_up_or_keep_an_extreme() {
        for (combine, expected) in [(Combine::Sum, 6.0), (Combine::Max, 3.0), (Combine::Min, 1.0)] {
            let mut rows = Put::new();
            for value in [2.0, 3.0, 1.0] {
                assert_eq!(rows.put("a", "power_watts", value, combine, None), Some(0));
            }
            assert_eq!(rows.floats("power_watts"), [Some(expected)]);
        }
        let mut rows = Put::new();
        rows.put("a", "power_watts", f64::MAX, Combine::Sum, None);
        assert_eq!(rows.put("a", "power_watts", f64::MAX, Combine::Sum, None), None, "no infinity is stored");
    }

    /// Scenario: two counters of one device that began at different times, a gauge, and the first counter again.
    /// Guarantees: one start a row; a cell is filled once in all rows of its key.
    #[test]
    fn counters_that_began_apart_get_rows_of_their_own() {
        let mut rows = Put::new();
        assert_eq!(rows.put("a", "utilization", 0.5, Combine::Only, None), Some(0));
        assert_eq!(rows.put("a", "energy_joules", 1.0, Combine::Only, Some(10)), Some(0));
        assert_eq!(rows.put("a", "pcie_replays", 2.0, Combine::Only, Some(20)), Some(1));
        assert_eq!(rows.put("a", "nvlink_replays", 3.0, Combine::Only, Some(20)), Some(1));
        assert_eq!(rows.put("a", "energy_joules", 4.0, Combine::Only, Some(20)), None);
        let rows = rows.table.finish().unwrap().unwrap().rows;
        let starts = rows.column_by_name("start_ts").unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(starts.values(), &[10, 20]);
        assert!(rows.column_by_name("energy_joules").unwrap().is_null(1));
    }

    #[test]
    fn the_rows_of_one_key_are_bounded() {
        let mut rows = Put::new();
        let names: Vec<String> = rows.table.stream.columns.iter().map(|column| column.name.clone()).collect();
        let floats = names.iter().filter(|name| rows.table.stream.column(name).unwrap().ty == ColumnType::Float);
        let landed = floats
            .zip(0..20)
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|(name, start)| rows.put("a", name, 1.0, Combine::Only, Some(*start)).is_some())
            .count();
        assert_eq!(landed, ROWS_PER_KEY);
    }

    #[test]
    fn the_first_value_of_an_attribute_stays() {
        let mut attributes = RowAttributes::default();
        let mut budget = Budget::default();
        for (row, name, value) in [(1, "a", "1"), (0, "b", "2"), (1, "a", "3"), (1, "c", "4")] {
            attributes.put(row, name, value, &mut budget);
        }
        let array = attributes.finish(3).unwrap().unwrap();
        let map = array.as_map();
        assert_eq!((map.value_length(0), map.value_length(1), map.is_null(2)), (1, 2, true));
        let values = map.values().as_string::<i32>();
        assert_eq!(values.iter().flatten().collect::<Vec<_>>(), ["2", "1", "4"]);
    }
}
