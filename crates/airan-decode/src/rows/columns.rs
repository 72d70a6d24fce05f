//! Columns that are filled while a body is read, and how they become Arrow.
//!
//! Text goes straight into the buffers Arrow keeps, so that nothing is copied a second time. [`super::budget`] bounds how much
//! text there can be, far below what 32-bit offsets reach.

use std::sync::Arc;

use airan_model::schema;
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanBufferBuilder, MapArray, NullBufferBuilder, PrimitiveArray, StringArray,
    StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;

use crate::histogram::{Histogram, HistogramColumn};

/// Text, one value a row, in the order of the rows.
#[derive(Debug)]
pub(crate) struct Texts {
    text: String,
    // Of each row, its end in `text`.
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    has_some: bool,
}

impl Default for Texts {
    fn default() -> Self {
        Texts { text: String::new(), ends: vec![0], nulls: NullBufferBuilder::new(0), has_some: false }
    }
}

impl Texts {
    /// The next row's value.
    pub(crate) fn push(&mut self, value: Option<&str>) {
        match value {
            Some(value) => {
                self.text.push_str(value);
                self.nulls.append_non_null();
                self.has_some = true;
            }
            None => self.nulls.append_null(),
        }
        self.ends.push(self.text.len() as i32);
    }

    /// Rows so far.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// The value of a row there is.
    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        self.nulls.is_valid(row).then(|| &self.text[self.ends[row] as usize..self.ends[row + 1] as usize])
    }

    pub(crate) fn finish(mut self) -> Result<StringArray, ArrowError> {
        let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        StringArray::try_new(ends, Buffer::from_vec(self.text.into_bytes()), self.nulls.finish())
    }

    /// The column, unless no row has a value.
    pub(crate) fn finish_some(self) -> Result<Option<ArrayRef>, ArrowError> {
        if self.has_some { Ok(Some(Arc::new(self.finish()?))) } else { Ok(None) }
    }
}

/// Numbers, set row by row in any order.
#[derive(Debug)]
pub(crate) struct Numbers<P: ArrowPrimitiveType> {
    values: Vec<P::Native>,
    set: BooleanBufferBuilder,
}

impl<P: ArrowPrimitiveType> Default for Numbers<P> {
    fn default() -> Self {
        Numbers { values: Vec::new(), set: BooleanBufferBuilder::new(0) }
    }
}

impl<P: ArrowPrimitiveType> Numbers<P> {
    pub(crate) fn get(&self, row: usize) -> Option<P::Native> {
        (row < self.values.len() && self.set.get_bit(row)).then(|| self.values[row])
    }

    pub(crate) fn set(&mut self, row: usize, value: P::Native) {
        if row >= self.values.len() {
            self.values.resize(row + 1, P::Native::default());
            self.set.resize(row + 1);
        }
        self.values[row] = value;
        self.set.set_bit(row, true);
    }

    /// The column, `rows` long.
    pub(crate) fn finish(mut self, rows: usize) -> PrimitiveArray<P> {
        self.values.resize(rows, P::Native::default());
        self.set.resize(rows);
        let nulls = NullBuffer::new(self.set.finish());
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        PrimitiveArray::new(ScalarBuffer::from(self.values), nulls)
    }
}

/// Text, set row by row in any order.
#[derive(Debug, Default)]
pub(crate) struct ScatteredTexts {
    // By row: one more than its place in `texts`; 0 where there is none.
    of_row: Vec<u32>,
    texts: Texts,
}

impl ScatteredTexts {
    pub(crate) fn has(&self, row: usize) -> bool {
        self.of_row.get(row).is_some_and(|place| *place > 0)
    }

    pub(crate) fn set(&mut self, row: usize, value: &str) {
        if row >= self.of_row.len() {
            self.of_row.resize(row + 1, 0);
        }
        self.texts.push(Some(value));
        self.of_row[row] = self.texts.len() as u32;
    }

    /// The column, `rows` long.
    pub(crate) fn finish(mut self, rows: usize) -> Result<StringArray, ArrowError> {
        self.of_row.resize(rows, 0);
        if self.texts.len() == rows && self.of_row.iter().enumerate().all(|(row, place)| *place as usize == row + 1) {
            return self.texts.finish();
        }
        let mut in_order = Texts::default();
        for place in &self.of_row {
            in_order.push(place.checked_sub(1).and_then(|place| self.texts.get(place as usize)));
        }
        in_order.finish()
    }
}

/// A value column, set row by row in any order.
#[derive(Debug)]
pub(crate) enum Column {
    Float(Numbers<Float64Type>),
    Int(Numbers<Int64Type>),
    Text(ScatteredTexts),
    Histogram(HistogramColumn),
}

impl Column {
    /// Whether the row has a value.
    pub(crate) fn has(&self, row: usize) -> bool {
        match self {
            Column::Float(numbers) => numbers.get(row).is_some(),
            Column::Int(numbers) => numbers.get(row).is_some(),
            Column::Text(texts) => texts.has(row),
            Column::Histogram(histograms) => histograms.has(row),
        }
    }

    /// The column, `rows` long.
    pub(crate) fn finish(self, rows: usize) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Float(numbers) => Arc::new(numbers.finish(rows)),
            Column::Int(numbers) => Arc::new(numbers.finish(rows)),
            Column::Text(texts) => Arc::new(texts.finish(rows)?),
            Column::Histogram(histograms) => histograms.finish(rows)?,
        })
    }
}

/// A value that fits its column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    Float(f64),
    Int(i64),
    Text(&'v str),
    Histogram(&'v Histogram),
}

/// A column of attributes, in the order of the rows.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    keys: Texts,
    values: Texts,
    ends: Vec<i32>,
    nulls: Option<NullBufferBuilder>,
}

impl Attributes {
    /// One more entry of the row at hand. A row must not get one key twice: readers of maps refuse that.
    pub(crate) fn entry(&mut self, key: &str, value: Option<&str>) {
        self.keys.push(Some(key));
        self.values.push(value);
    }

    /// Ends the row at hand. Without an entry it is null.
    pub(crate) fn end_row(&mut self) {
        let end = self.keys.len() as i32;
        let has_entries = end > self.ends.last().copied().unwrap_or(0);
        self.nulls.get_or_insert_with(|| NullBufferBuilder::new(0)).append(has_entries);
        self.ends.push(end);
    }

    /// The column, unless no row has an entry.
    pub(crate) fn finish_some(self) -> Result<Option<ArrayRef>, ArrowError> {
        if self.keys.len() == 0 { Ok(None) } else { Ok(Some(Arc::new(self.finish()?))) }
    }

    fn finish(self) -> Result<MapArray, ArrowError> {
        let broken = || ArrowError::SchemaError("attributes are a map".to_owned());
        let DataType::Map(field, ordered) = schema::attributes_type() else { return Err(broken()) };
        let DataType::Struct(fields) = field.data_type().clone() else { return Err(broken()) };
        let entries =
            StructArray::try_new(fields, vec![Arc::new(self.keys.finish()?), Arc::new(self.values.finish()?)], None)?;
        let ends: Vec<i32> = std::iter::once(0).chain(self.ends).collect();
        let nulls = self.nulls.and_then(|mut nulls| nulls.finish());
        MapArray::try_new(field, OffsetBuffer::new(ScalarBuffer::from(ends)), entries, nulls, ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    #[test]
    fn columns_take_rows_in_any_order_and_are_padded() {
        let mut floats = Numbers::<Float64Type>::default();
        floats.set(2, 2.5);
        floats.set(0, 0.5);
        assert_eq!((floats.get(0), floats.get(1), floats.get(9)), (Some(0.5), None, None));
        assert_eq!(floats.finish(4).iter().collect::<Vec<_>>(), [Some(0.5), None, Some(2.5), None]);
        let mut texts = ScatteredTexts::default();
        texts.set(2, "c");
        texts.set(1, "");
        assert!(!texts.has(0) && texts.has(1) && !texts.has(3));
        assert_eq!(texts.finish(4).unwrap().iter().collect::<Vec<_>>(), [None, Some(""), Some("c"), None]);
        let mut dense = ScatteredTexts::default();
        dense.set(0, "a");
        dense.set(1, "b");
        assert_eq!(dense.finish(2).unwrap().iter().collect::<Vec<_>>(), [Some("a"), Some("b")]);
    }

    #[test]
    fn a_row_without_attributes_is_null() {
        let mut attributes = Attributes::default();
        attributes.end_row();
        attributes.entry("a", Some("1"));
        attributes.entry("b", None);
        attributes.end_row();
        let array = attributes.finish_some().unwrap().unwrap();
        assert_eq!(array.data_type(), &schema::attributes_type());
        assert!(array.is_null(0) && array.is_valid(1));
        assert_eq!(array.as_map().value(1).len(), 2);
        let mut none = Attributes::default();
        none.end_row();
        assert!(none.finish_some().unwrap().is_none());
    }

    #[test]
    fn texts_can_be_read_back_while_they_grow() {
        let mut texts = Texts::default();
        texts.push(None);
        texts.push(Some("é"));
        assert_eq!((texts.get(0), texts.get(1), texts.len()), (None, Some("é"), 2));
        assert!(texts.finish_some().unwrap().is_some());
    }
}
