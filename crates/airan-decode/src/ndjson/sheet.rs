//! The rows of one stream, each as its line had it: lines are not merged.

use std::sync::Arc;

use airan_model::catalog::Stream;
use airan_model::schema;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::row::{Row, Value};
use crate::histogram::HistogramColumn;
use crate::rows::Budget;
use crate::rows::columns::{Attributes, Column, Numbers, Texts};
use crate::rows::table::{batch, times};
use crate::{Context, DecodedRows};

/// Rows so far.
#[derive(Debug)]
pub(super) struct Sheet {
    stream: Arc<Stream>,
    rows: usize,
    node: Texts,
    // By column of the stream's schema, but for the node and attributes.
    slots: Vec<Option<Slot>>,
    attributes: Attributes,
}

#[derive(Debug)]
enum Slot {
    Values(Column),
    Times(Numbers<TimestampMicrosecondType>),
}

impl Sheet {
    pub(super) fn new(stream: &Arc<Stream>) -> Sheet {
        Sheet {
            stream: Arc::clone(stream),
            rows: 0,
            node: Texts::default(),
            slots: stream.schema().fields().iter().map(|_| None).collect(),
            attributes: Attributes::default(),
        }
    }

    /// Whether it has the rows of that stream.
    pub(super) fn is_of(&self, stream: &Arc<Stream>) -> bool {
        Arc::ptr_eq(&self.stream, stream)
    }

    /// Adds a row of its stream.
    pub(super) fn add(&mut self, row: Row<'_, '_>, context: &Context<'_>, budget: &mut Budget) {
        let at = self.rows;
        self.rows += 1;
        let [ts, node] = [schema::TS, schema::NODE].map(|name| self.stream.place_of(name));
        if let Some(ts) = ts.filter(|_| !row.has_time()) {
            self.set(at, ts, Value::Time(context.now), budget);
        }
        let mut named = None;
        for (place, value) in row.values {
            match value {
                Value::Text(text) if Some(place) == node => named = Some(text),
                value => self.set(at, place, value, budget),
            }
        }
        let name = named.as_deref().unwrap_or(context.default_node);
        budget.text(name.len());
        self.node.push(Some(name));
        for (name, value) in &row.attributes {
            budget.text(name.len() + value.len() + 8);
            self.attributes.entry(name, Some(value));
        }
        self.attributes.end_row();
        // Every column there is so far gets a cell, null or not.
        budget.cells(2 + self.slots.iter().flatten().count());
    }

    fn set(&mut self, row: usize, place: usize, value: Value<'_>, budget: &mut Budget) {
        let ty = self.stream.schema().field(place).data_type();
        let rows = self.rows;
        let slot = self.slots[place].get_or_insert_with(|| {
            budget.cells(rows);
            match ty {
                DataType::Timestamp(..) => Slot::Times(Numbers::default()),
                DataType::Utf8 => Slot::Values(Column::Text(Default::default())),
                DataType::Float64 => Slot::Values(Column::Float(Numbers::default())),
                DataType::Int64 => Slot::Values(Column::Int(Numbers::default())),
                _ => Slot::Values(Column::Histogram(HistogramColumn::default())),
            }
        });
        match (slot, value) {
            (Slot::Times(times), Value::Time(value)) => times.set(row, value),
            (Slot::Values(Column::Float(numbers)), Value::Float(value)) => numbers.set(row, value),
            (Slot::Values(Column::Int(numbers)), Value::Int(value)) => numbers.set(row, value),
            (Slot::Values(Column::Text(texts)), Value::Text(value)) => {
                budget.text(value.len());
                texts.set(row, &value);
            }
            (Slot::Values(Column::Histogram(histograms)), Value::Histogram(value)) => {
                budget.cells(2 * value.bounds.len() + 4);
                histograms.set(row, &value);
            }
            // The row was fitted to the same schema.
            _ => {}
        }
    }

    /// The rows, in the catalog's order of columns.
    pub(super) fn finish(self) -> Result<DecodedRows, ArrowError> {
        let rows = self.rows;
        let (mut node, mut attributes) = (Some(self.node), Some(self.attributes));
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (field, slot) in self.stream.schema().fields().iter().zip(self.slots) {
            let array = match (field.name().as_str(), slot) {
                (schema::NODE, _) => node.take().map(Texts::finish_some).transpose()?.flatten(),
                (schema::ATTRIBUTES, _) => attributes.take().map(Attributes::finish_some).transpose()?.flatten(),
                (_, Some(Slot::Times(numbers))) => Some(times(numbers, rows)),
                (_, Some(Slot::Values(column))) => Some(column.finish(rows)?),
                (_, None) => None,
            };
            if let Some(array) = array {
                fields.push(Field::new(field.name(), array.data_type().clone(), true));
                arrays.push(array);
            }
        }
        Ok(DecodedRows { rows: batch(fields, arrays, rows)?, stream: self.stream })
    }
}
