//! What every fuzz target does with its bytes: decode them under the documented limits, and hold the result against what is
//! promised of every result.
//!
//! A panic here is a finding: a decoder that panics, sums that do not add up, rows that do not fit their stream.

use std::collections::HashSet;
use std::sync::LazyLock;

use airan_decode::accelerators::{OutputError, Reading};
use airan_decode::{Context, DecodeError, Decoded};
use airan_model::catalog::{Catalog, ColumnType};
use airan_model::limits::Limits;

/// 2026-11-24T10:00:00Z.
const NOW: i64 = 1_795_514_400_000_000;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().expect("the catalog is good"));

/// Decodes and checks.
pub fn run(decode: impl FnOnce(&Context<'_>) -> Result<Decoded, DecodeError>) {
    let context = Context { catalog: &CATALOG, limits: &Limits::DOCUMENTED, default_node: "sender", now: NOW };
    match decode(&context) {
        Ok(decoded) => check(&decoded),
        // A refusal is told to the sender: it must have words.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Reads what a vendor's program printed, which is text by then, and checks.
pub fn run_printed(body: &[u8], read: impl FnOnce(&str) -> Result<Reading, OutputError>) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    match read(text) {
        Ok(reading) => check_reading(&reading),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Every column is one of the stream, of its type, once in its row; every number is one.
fn check_reading(reading: &Reading) {
    let stream = CATALOG.stream("accelerator").expect("the stream is there");
    let ty = |name: &str| stream.column(name).map(|column| column.ty);
    assert!(reading.unread.len() <= 8 && reading.devices() <= reading.entries.len());
    for entry in &reading.entries {
        let mut names = HashSet::new();
        for (name, value) in &entry.numbers {
            assert!(value.is_finite(), "{name}: {value}");
            assert!(matches!(ty(name), Some(ColumnType::Float | ColumnType::Int)) && names.insert(*name), "{name}");
        }
        for (name, _) in &entry.texts {
            assert!(matches!(ty(name), Some(ColumnType::Text)) && names.insert(*name), "{name}");
        }
    }
}

fn check(decoded: &Decoded) {
    let tally = &decoded.tally;
    assert_eq!(tally.samples, tally.sentinels + tally.columns + tally.sample_rows + tally.refused, "{tally:?}");
    assert_eq!(tally.refused, decoded.refused.iter().map(|refused| refused.count).sum::<u64>());
    for rows in &decoded.rows {
        assert!(rows.rows.num_rows() > 0);
        for field in rows.rows.schema().fields() {
            assert!(
                rows.stream.place_of(field.name()).is_some(),
                "{} is no column of {}",
                field.name(),
                rows.stream.name
            );
        }
        rows.stream.conform(&rows.rows).expect("rows that fit their stream");
    }
}
