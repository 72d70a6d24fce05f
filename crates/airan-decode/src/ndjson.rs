//! NDJSON: one row a line, as people and scripts write it.
//!
//! ```json
//! {"stream": "accelerator", "ts": "2026-01-01T00:00:00Z", "node": "edge-1", "device": "GPU-a", "utilization": 0.25}
//! ```
//!
//! | key | value |
//! | --- | --- |
//! | `stream` | a stream of the catalog; required |
//! | `ts`, `start_ts` | RFC 3339 text, or microseconds since 1970; without `ts` the row's time is that of reception |
//! | `node` | text; without it the sender |
//! | an entity or value column, or its `_increase` | text, number, or `{"bounds": [], "counts": [], "sum": 0, "count": 0}` |
//! | `attributes` | an object of texts, numbers and booleans |
//! | `clock`, `batch`, `seq` | as an agent sends them |
//! | `received_at`, `region`, `site`, `source` | taken and not used: the gateway's word counts |
//!
//! `null` is no value. A key that names a subscriber is dropped; any other that is no column refuses its line, so that a mistyped
//! column is not lost without a word. Every line stands for itself: what is wrong with one costs no other.
//!
//! A line without `stream` may be a frame of a gNB instead: see [`frame`].

mod frame;
mod row;
mod sheet;

use std::sync::Arc;

use airan_model::catalog::Stream;
use airan_model::reject::Reason;
use arrow::array::{Array as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;

use crate::labels::Classes;
use crate::refusals::Refusals;
use crate::rows::{Budget, SAMPLE};
use crate::{Context, DecodeError, Decoded, Tally};
use frame::Frames;
use row::{Keys, Row};
use sheet::Sheet;

/// Reads lines of JSON objects. A bad line is refused alone, with its number, counted from 1.
///
/// # Errors
/// None today: a body of nothing but bad lines is a [`Decoded`] without rows.
pub fn decode(body: &[u8], context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let mut classes = Classes::new(context.catalog);
    let mut sheets: Vec<Sheet> = Vec::new();
    let mut tally = Tally::default();
    let mut refusals = Refusals::default();
    let mut budget = Budget::default();
    let mut frames = Frames::new(context);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let full = || Err((Reason::TooManySamples, "no room left".to_owned()));
        let read = if budget.is_spent() { full() } else { Keys::read(line) };
        let read = read.and_then(|keys| match Frames::is_one(&keys) {
            true => frames.take(keys, number).map(|()| None),
            false => Row::of(keys, context, &mut classes).map(Some),
        });
        match read {
            // Its numbers are counted one by one.
            Ok(None) => continue,
            Ok(Some(row)) => {
                tally.dropped_fields += row.dropped;
                tally.no_time |= !row.has_time();
                let ends_in = if &*row.stream.name == SAMPLE { &mut tally.sample_rows } else { &mut tally.columns };
                *ends_in += 1;
                let at = match sheets.iter().position(|sheet| sheet.is_of(row.stream)) {
                    Some(at) => at,
                    None => {
                        sheets.push(Sheet::new(row.stream));
                        sheets.len() - 1
                    }
                };
                sheets[at].add(row, context, &mut budget);
            }
            Err((reason, what)) => {
                tally.refused += 1;
                refusals.add(reason, 1, || format!("line {number}: {what}"));
            }
        }
        tally.samples += 1;
    }
    let broken = |error: ArrowError| DecodeError::whole(Reason::Malformed, error.to_string());
    let mut rows = sheets.into_iter().map(Sheet::finish).collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let of_frames = frames.finish()?;
    for more in of_frames.rows {
        match rows.iter_mut().find(|part| Arc::ptr_eq(&part.stream, &more.stream)) {
            Some(part) => part.rows = both(&part.stream, &part.rows, &more.rows).map_err(broken)?,
            None => rows.push(more),
        }
    }
    rows.sort_by_key(|part| context.catalog.streams().position(|stream| Arc::ptr_eq(stream, &part.stream)));
    tally.add(&of_frames.tally);
    for refused in of_frames.refused {
        refusals.add(refused.reason, refused.count, || refused.example);
    }
    Ok(Decoded { rows, tally, refused: refusals.into_inner() })
}

/// Rows of lines and of frames, of one stream.
fn both(stream: &Stream, lines: &RecordBatch, frames: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let conform = |rows| stream.conform(rows).map_err(|error| ArrowError::SchemaError(error.to_string()));
    let all = concat_batches(stream.schema(), &[conform(lines)?, conform(frames)?])?;
    let has_value = |column: &usize| all.column(*column).null_count() < all.num_rows();
    all.project(&(0..all.num_columns()).filter(has_value).collect::<Vec<_>>())
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;
