//! What every fuzz target does with its bytes: decode them under the documented limits, and hold the result against what is
//! promised of every result.
//!
//! A panic here is a finding: a decoder that panics, sums that do not add up, rows that do not fit their stream.

use std::sync::LazyLock;

use airan_decode::{Context, DecodeError, Decoded};
use airan_model::catalog::Catalog;
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

fn check(decoded: &Decoded) {
    let tally = &decoded.tally;
    assert_eq!(tally.samples, tally.sentinels + tally.columns + tally.sample_rows + tally.refused, "{tally:?}");
    assert_eq!(tally.refused, decoded.refused.iter().map(|refused| refused.count).sum::<u64>());
    for rows in &decoded.rows {
        assert!(rows.rows.num_rows() > 0);
        // Arrow and NDJSON may bring columns of their own, which the catalog has yet to learn.
        let is_known = |name: &str| rows.stream.place_of(name).is_some();
        if rows.rows.schema().fields().iter().all(|field| is_known(field.name())) {
            rows.stream.conform(&rows.rows).expect("rows that fit their stream");
        }
    }
}
