//! The last values of counters as a table of the shard state: one row per entity, three columns per counter.

use airan_model::catalog::Stream;
use airan_model::schema;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use std::sync::Arc;

use crate::histogram_rises::{HistogramBuilder, HistogramColumn, LastHistogram};
use crate::rises::{NEVER, NO_START, Rises, Slot, Slots};
use crate::sheet::{Sheet, SheetWriter, StateError};
use crate::state::ints;

/// Name of the table of a stream.
fn table_name(stream: &Stream) -> String {
    format!("rises/{}", stream.name)
}

/// Column of an entity's value; `entity/` keeps it apart from counters' columns.
fn key_name(name: &str) -> String {
    format!("entity/{name}")
}

pub(crate) fn write(stream: &Stream, rises: &Rises, state: &mut SheetWriter) -> Result<(), StateError> {
    let entities: Vec<(u32, Vec<Option<&str>>, i64)> = rises.entities.iter().collect();
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (place, name) in key_columns(stream).enumerate() {
        let values: StringArray = entities.iter().map(|(_, values, _)| values.get(place).copied().flatten()).collect();
        columns.push((key_name(name), Arc::new(values)));
    }
    columns.push(("last_seen".to_owned(), ints(entities.iter().map(|entity| entity.2))));
    let numbers: Vec<usize> = entities.iter().map(|entity| entity.0 as usize).collect();
    for counter in &rises.counters {
        let [ts, start, value] = slot_columns(&counter.slots, &numbers)?;
        columns.push((format!("{}/ts", counter.name), ts));
        columns.push((format!("{}/start", counter.name), start));
        columns.push((format!("{}/value", counter.name), value));
    }
    state.table(&table_name(stream), columns.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))).collect())
}

/// Node and entity columns, in the order of the key.
fn key_columns(stream: &Stream) -> impl Iterator<Item = &str> {
    std::iter::once(schema::NODE).chain(stream.entity.iter().map(|column| column.name.as_str()))
}

fn slot_columns(slots: &Slots, entities: &[usize]) -> Result<[ArrayRef; 3], StateError> {
    Ok(match slots {
        Slots::Float(slots) => {
            let values: Float64Array = known(slots, entities).map(|slot| slot.map(|slot| slot.value)).collect();
            [times(slots, entities, |slot| slot.ts), times(slots, entities, |slot| slot.start), Arc::new(values)]
        }
        Slots::Int(slots) => {
            let values: Int64Array = known(slots, entities).map(|slot| slot.map(|slot| slot.value)).collect();
            [times(slots, entities, |slot| slot.ts), times(slots, entities, |slot| slot.start), Arc::new(values)]
        }
        Slots::Histogram(slots) => {
            let (mut ts, mut start, mut value) = (Vec::new(), Vec::new(), HistogramBuilder::default());
            for last in entities.iter().map(|entity| slots.get(*entity)) {
                ts.push(last.map(|last| last.ts));
                start.push(last.map(|last| last.start).filter(|start| *start != NO_START));
                match last {
                    Some(LastHistogram { value: v, .. }) => value.append(&v.bounds, &v.counts, v.sum, v.count),
                    None => value.append_null(),
                }
            }
            [Arc::new(Int64Array::from(ts)), Arc::new(Int64Array::from(start)), Arc::new(value.finish()?)]
        }
    })
}

/// Slots of the entities, None where nothing was seen.
fn known<'a, T>(slots: &'a [Slot<T>], entities: &'a [usize]) -> impl Iterator<Item = Option<&'a Slot<T>>> {
    entities.iter().map(|entity| slots.get(*entity).filter(|slot| slot.ts != NEVER))
}

fn times<T>(slots: &[Slot<T>], entities: &[usize], of: impl Fn(&Slot<T>) -> i64) -> ArrayRef {
    let times = known(slots, entities).map(|slot| slot.map(&of).filter(|at| *at != NO_START));
    Arc::new(times.collect::<Int64Array>())
}

/// Takes back what [`write`] wrote. A counter the catalog no longer has, or has with another type, is left out: its next row
/// is a first sight.
pub(crate) fn read(stream: &Stream, rises: &mut Rises, state: &crate::sheet::Sheets) {
    let Some(sheet) = state.table(&table_name(stream)) else { return };
    let names: Vec<String> = key_columns(stream).map(key_name).collect();
    let mut entities = Vec::with_capacity(sheet.rows());
    for row in 0..sheet.rows() {
        let key: Vec<Option<&str>> = names.iter().map(|name| sheet.text(row, name)).collect();
        let found = rises.entities.restore(&key, sheet.int(row, "last_seen").unwrap_or(NEVER));
        entities.push(found.entity as usize);
    }
    let capacity = rises.entities.capacity();
    for counter in &mut rises.counters {
        let columns =
            [format!("{}/ts", counter.name), format!("{}/start", counter.name), format!("{}/value", counter.name)];
        match &mut counter.slots {
            Slots::Float(slots) => read_numbers(slots, capacity, sheet, &entities, &columns, Sheet::float),
            Slots::Int(slots) => read_numbers(slots, capacity, sheet, &entities, &columns, Sheet::int),
            Slots::Histogram(slots) => {
                let Some(values) = sheet.column(&columns[2]).and_then(|column| column.as_struct_opt()) else {
                    continue;
                };
                if *values.data_type() != schema::histogram_type() {
                    continue;
                }
                let values = HistogramColumn::of(values);
                for (row, entity) in entities.iter().enumerate().filter(|(_, entity)| **entity < capacity) {
                    if let (Some(ts), Some(value)) = (sheet.int(row, &columns[0]), values.value(row)) {
                        let start = sheet.int(row, &columns[1]).unwrap_or(NO_START);
                        slots.set(*entity, LastHistogram { ts, start, value });
                    }
                }
            }
        }
    }
}

fn read_numbers<T: Copy + Default>(
    slots: &mut Vec<Slot<T>>,
    capacity: usize,
    sheet: &Sheet,
    entities: &[usize],
    [ts, start, value]: &[String; 3],
    number: impl Fn(&Sheet, usize, &str) -> Option<T>,
) {
    slots.clear();
    slots.resize(capacity, Slot::empty());
    for (row, entity) in entities.iter().enumerate().filter(|(_, entity)| **entity < capacity) {
        if let (Some(ts), Some(value)) = (sheet.int(row, ts), number(sheet, row, value)) {
            slots[*entity] = Slot { ts, start: sheet.int(row, start).unwrap_or(NO_START), value };
        }
    }
}
