//! Arrow IPC: rows of one stream as an agent sends them.
//!
//! Lengths, counts and nesting are checked before arrow sees the bytes ([`airan_model::ipc`]); a known column of another type, or
//! a column twice, refuses the body. Columns the catalog does not know become attributes, for an agent may be newer than its
//! gateway ([`with_unknown`]); what names a subscriber is dropped here too, because not every sender is an agent.

use std::sync::Arc;

use airan_model::catalog::with_unknown;
use airan_model::ipc::{self, IpcLimits};
use airan_model::reject::Reason;
use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{Array, ArrayRef, AsArray, MapArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;

use crate::labels::Classes;
use crate::refusals::shown;
use crate::rows::SAMPLE;
use crate::rows::table::batch;
use crate::{Context, DecodeError, Decoded, DecodedRows, Tally};

/// Most rows of one body. An agent sends some ten thousand.
const ROWS_MAX: usize = 1 << 20;
/// Most columns of one body, with the children of nested ones. The widest stream has less than 200.
const COLUMNS_MAX: usize = 1024;
/// Most attributes of one row, above what a sample may have, since an agent adds some.
const ATTRIBUTES_MAX: usize = 256;

/// Reads one Arrow IPC stream that holds rows of `stream`.
///
/// # Errors
/// If there is no such stream, the bytes are no Arrow, they hold more than the limits allow, or a column has another type.
pub fn decode(body: &Bytes, stream: &str, context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let unknown = || DecodeError::whole(Reason::UnknownStream, format!("there is no stream {}", shown(stream)));
    let stream = context.catalog.stream(stream).ok_or_else(unknown)?;
    let limits = IpcLimits {
        bytes: context.limits.request_bytes,
        rows: ROWS_MAX,
        columns: COLUMNS_MAX,
        depth: context.limits.depth,
    };
    let rows = ipc::decode(body, &limits).map_err(|error| {
        let reason = match error {
            ipc::DecodeError::Malformed(_) => Reason::Malformed,
            ipc::DecodeError::Unsupported(_) => Reason::UnsupportedFormat,
            ipc::DecodeError::TooLarge(_) => Reason::TooLarge,
        };
        DecodeError::whole(reason, error.to_string())
    })?;
    if rows.num_rows() == 0 {
        return Ok(Decoded::default());
    }
    let count = rows.num_rows() as u64;
    let mut tally = Tally { samples: count, ..Tally::default() };
    let ends_in = if &*stream.name == SAMPLE { &mut tally.sample_rows } else { &mut tally.columns };
    *ends_in = count;

    let mut columns = Columns::default();
    let mut classes = Classes::new(context.catalog);
    let mut seen: Vec<&str> = Vec::with_capacity(rows.num_columns());
    let mut unknown: Vec<(&str, &ArrayRef)> = Vec::new();
    let mut attributes: Option<&ArrayRef> = None;
    let schema = rows.schema();
    for (field, array) in schema.fields().iter().zip(rows.columns()) {
        let name = field.name().as_str();
        let refuse = |reason, what: &str| DecodeError::whole(reason, format!("column {} {what}", shown(name)));
        if seen.contains(&name) {
            return Err(refuse(Reason::Malformed, "occurs twice"));
        }
        seen.push(name);
        let known = stream.place_of(name).map(|place| stream.schema().field(place));
        if let Some(wanted) = known.map(|known| known.data_type()).filter(|wanted| *wanted != array.data_type()) {
            let (stream, found) = (&stream.name, array.data_type());
            return Err(refuse(Reason::WrongType, &format!("of stream `{stream}` is {found} and must be {wanted}")));
        }
        if known.is_none() && classes.drops(name) {
            tally.dropped_fields += count - array.null_count() as u64;
        } else if array.null_count() < array.len() {
            if name == schema::ATTRIBUTES {
                // First of all: what follows compares the attributes of a row with each other.
                if has_too_many(array) {
                    return Err(refuse(Reason::TooManyLabels, &format!("has more than {ATTRIBUTES_MAX} in a row")));
                }
                attributes = Some(array);
            } else if known.is_none() {
                unknown.push((name, array));
            } else {
                columns.push(name, Some(Arc::clone(array)));
            }
        }
    }
    if unknown.is_empty() && attributes.is_none_or(|attributes| is_clean(attributes, &mut classes)) {
        columns.push(schema::ATTRIBUTES, attributes.map(Arc::clone));
    } else {
        let all = with_unknown(attributes, &unknown, rows.num_rows(), |name| {
            let drops = classes.drops(name);
            tally.dropped_fields += u64::from(drops);
            !drops
        });
        let all = all.map_err(|error| DecodeError::whole(Reason::TooLarge, error.to_string()))?;
        columns.push(schema::ATTRIBUTES, Some(all).filter(|all| all.null_count() < all.len()));
    }
    let longest = context.limits.label_bytes;
    for (field, array) in columns.fields.iter().zip(&columns.arrays) {
        let refuse =
            |reason, what: String| DecodeError::whole(reason, format!("column {} {what}", shown(field.name())));
        if has_too_many(array) {
            return Err(refuse(Reason::TooManyLabels, format!("has more than {ATTRIBUTES_MAX} in a row")));
        }
        if has_longer(array, longest) {
            return Err(refuse(Reason::LabelTooLong, format!("holds a text of more than {longest} bytes")));
        }
    }
    columns.complete(rows.num_rows(), context, &mut tally);
    let rows = batch(columns.fields, columns.arrays, rows.num_rows()).map_err(broken)?;
    Ok(Decoded { rows: vec![DecodedRows { stream: Arc::clone(stream), rows }], tally, refused: Vec::new() })
}

fn broken(error: ArrowError) -> DecodeError {
    DecodeError::whole(Reason::Malformed, error.to_string())
}

/// The columns that are kept.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn push(&mut self, name: &str, array: Option<ArrayRef>) {
        if let Some(array) = array {
            self.fields.push(Field::new(name, array.data_type().clone(), true));
            self.arrays.push(array);
        }
    }

    fn set(&mut self, name: &str, array: ArrayRef) {
        match self.fields.iter().position(|field| field.name() == name) {
            Some(at) => self.arrays[at] = array,
            None => self.push(name, Some(array)),
        }
    }

    fn get(&self, name: &str) -> Option<&ArrayRef> {
        self.fields.iter().position(|field| field.name() == name).map(|at| &self.arrays[at])
    }

    /// Gives rows without a time or node the body's.
    fn complete(&mut self, rows: usize, context: &Context<'_>, tally: &mut Tally) {
        let is_full = |array: Option<&ArrayRef>| array.is_some_and(|array| array.null_count() == 0);
        if !is_full(self.get(schema::TS)) {
            tally.no_time = true;
            let ts = self.get(schema::TS).and_then(|ts| ts.as_primitive_opt::<TimestampMicrosecondType>());
            let at = |row: usize| ts.filter(|ts| ts.is_valid(row)).map_or(context.now, |ts| ts.value(row));
            let filled: Vec<Micros> = (0..rows).map(at).collect();
            self.set(schema::TS, Arc::new(TimestampMicrosecondArray::from(filled).with_timezone("UTC")));
        }
        if !is_full(self.get(schema::NODE)) {
            let nodes = self.get(schema::NODE).and_then(|nodes| nodes.as_string_opt::<i32>());
            let at = |row: usize| {
                nodes.filter(|nodes| nodes.is_valid(row)).map_or(context.default_node, |nodes| nodes.value(row))
            };
            self.set(schema::NODE, Arc::new(StringArray::from_iter_values((0..rows).map(at))));
        }
    }
}

fn has_too_many(attributes: &ArrayRef) -> bool {
    attributes.as_map_opt().is_some_and(|map| (0..map.len()).any(|row| range(map, row).len() > ATTRIBUTES_MAX))
}

/// Whether a text, a key or a value has more than `most` bytes.
fn has_longer(array: &ArrayRef, most: usize) -> bool {
    let longer = |texts: &StringArray| {
        let ends = texts.value_offsets();
        ends.windows(2).enumerate().any(|(at, ends)| (ends[1] - ends[0]) as usize > most && texts.is_valid(at))
    };
    match (array.as_string_opt::<i32>(), array.as_map_opt()) {
        (Some(texts), _) => longer(texts),
        (_, Some(map)) => {
            let (keys, values) = (map.keys().as_string_opt::<i32>(), map.values().as_string_opt::<i32>());
            keys.is_some_and(longer) || values.is_some_and(longer)
        }
        _ => false,
    }
}

/// Whether no attribute names a subscriber, and no row has two of one name.
fn is_clean(attributes: &ArrayRef, classes: &mut Classes<'_>) -> bool {
    let Some(map) = attributes.as_map_opt() else { return true };
    let keys = map.keys().as_string::<i32>();
    (0..map.len()).filter(|row| map.is_valid(*row)).all(|row| {
        let entries = range(map, row);
        entries.clone().all(|at| {
            let key = keys.value(at);
            !classes.drops(key) && (entries.start..at).all(|before| keys.value(before) != key)
        })
    })
}

/// A row's entries.
fn range(map: &MapArray, row: usize) -> std::ops::Range<usize> {
    let ends = map.value_offsets();
    ends[row] as usize..ends[row + 1] as usize
}

#[cfg(test)]
#[path = "arrow_ipc_tests.rs"]
mod tests;
