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

mod row;
mod sheet;

use airan_model::reject::Reason;

use crate::labels::Classes;
use crate::refusals::Refusals;
use crate::rows::{Budget, SAMPLE};
use crate::{Context, DecodeError, Decoded, Tally};
use row::Row;
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
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        tally.samples += 1;
        let full = || Err((Reason::TooManySamples, "no room left".to_owned()));
        let read = if budget.is_spent() { full() } else { Row::read(line, context, &mut classes) };
        match read {
            Ok(row) => {
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
    }
    let place = |sheet: &Sheet| context.catalog.streams().position(|stream| sheet.is_of(stream));
    sheets.sort_by_key(place);
    let rows = sheets.into_iter().map(Sheet::finish).collect::<Result<_, _>>();
    let rows = rows.map_err(|error| DecodeError::whole(Reason::Malformed, error.to_string()))?;
    Ok(Decoded { rows, tally, refused: refusals.into_inner() })
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;
