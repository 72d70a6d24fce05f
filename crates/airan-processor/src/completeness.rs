//! How much of a site's window has come: rows received ÷ (received + known gaps).
//!
//! Senders that number their rows themselves (agents) make what is missing visible: a hole in the numbers between two rows
//! that came. Such a gap of `m` rows lies between the times of the rows at its two edges and is spread evenly over them: the
//! window `w` misses `m · |[t₁, t₂) ∩ w| ÷ (t₂ − t₁)` rows of it; where both edges have one time, all of it is in the window
//! that holds it. Only rows of such senders count as received, since of the others nobody knows what is missing; a window
//! without either has no completeness (null).
//!
//! Live windows and restatements use these functions and the gaps of the shard's identities, so a gap that has been filled
//! shows in the next revision of its window.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use airan_model::identity::is_gateway_source;
use airan_model::schema;
use airan_model::time::Micros;
use airan_window::Window;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use foldhash::fast::RandomState;

use crate::split::times;

/// Column of window tables: 0 as a window first closed, one more with each restatement.
pub(crate) const REVISION: &str = "revision";
/// Column of window tables.
pub(crate) const COMPLETENESS: &str = "completeness";

/// Rows that were numbered and have not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Times of the rows at its edges, in either order.
    pub edges: (Micros, Micros),
    pub rows: u64,
}

/// Known gaps of one stream, by site.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gaps {
    by_site: HashMap<Box<str>, Vec<Gap>, RandomState>,
}

impl Gaps {
    pub fn add(&mut self, site: &str, gap: Gap) {
        self.by_site.entry(site.into()).or_default().push(gap);
    }

    /// Rows missing in a window of a site.
    pub fn within(&self, site: &str, window: Window) -> f64 {
        let gaps = self.by_site.get(site).map_or(&[][..], Vec::as_slice);
        gaps.iter().map(|gap| gap.within(window)).sum()
    }
}

impl Gap {
    fn within(&self, window: Window) -> f64 {
        let (from, to) = (self.edges.0.min(self.edges.1), self.edges.0.max(self.edges.1));
        if from == to {
            return if window.contains(from) { self.rows as f64 } else { 0.0 };
        }
        let shared = to.min(window.end).saturating_sub(from.max(window.start)).max(0);
        self.rows as f64 * shared as f64 / to.saturating_sub(from) as f64
    }
}

/// Rows of numbered senders by pane and site, of panes that are in a window that has not closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    by_pane: BTreeMap<Micros, HashMap<Box<str>, u64, RandomState>>,
}

impl Received {
    /// Counts the rows of numbered senders among those that `taken` says, all where it is absent.
    pub fn count(
        &mut self,
        rows: &RecordBatch,
        taken: Option<&BooleanArray>,
        start_of: impl Fn(Micros) -> Micros,
    ) -> Result<(), ArrowError> {
        let ts = times(rows)?;
        let text = |name: &str| -> Result<&StringArray, ArrowError> {
            let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or_else(|| ArrowError::SchemaError(format!("rows without a proper column `{name}`")))
        };
        let (sites, sources, batches) = (text(schema::SITE)?, text(schema::SOURCE)?, text(schema::BATCH)?);
        let seq = rows.column_by_name(schema::SEQ).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let Some(seq) = seq else { return Err(ArrowError::SchemaError("rows without `seq`".to_owned())) };
        if sources.null_count() == sources.len() || seq.null_count() == seq.len() {
            return Ok(());
        }
        let (mut source, mut is_numbered) = ("", false);
        let mut run: Option<(Micros, &str, u64)> = None;
        for (row, ts) in ts.iter().enumerate() {
            if taken.is_some_and(|taken| !taken.value(row)) || sources.is_null(row) {
                continue;
            }
            if sources.value(row) != source {
                source = sources.value(row);
                is_numbered = !is_gateway_source(source);
            }
            if !is_numbered || seq.is_null(row) || batches.is_null(row) {
                continue;
            }
            let (start, site) = (start_of(*ts), sites.value(row));
            match &mut run {
                Some((of, same, rows)) if *of == start && *same == site => *rows += 1,
                _ => {
                    if let Some((start, site, rows)) = run.replace((start, site, 1)) {
                        self.add(start, site, rows);
                    }
                }
            }
        }
        if let Some((start, site, rows)) = run {
            self.add(start, site, rows);
        }
        Ok(())
    }

    fn add(&mut self, start: Micros, site: &str, rows: u64) {
        let sites = self.by_pane.entry(start).or_default();
        match sites.get_mut(site) {
            Some(count) => *count += rows,
            None => drop(sites.insert(site.into(), rows)),
        }
    }

    /// Rows counted of a site in a window: in the panes that begin in it.
    pub fn within(&self, window: Window, site: &str) -> u64 {
        self.by_pane.range(window.start..window.end).filter_map(|(_, sites)| sites.get(site)).sum()
    }

    /// Forgets panes that begin before `start`.
    pub fn forget_before(&mut self, start: Micros) {
        self.by_pane = self.by_pane.split_off(&start);
    }
}

/// The completeness of a window of a site, of which so many rows have come and so many are known to be missing.
pub(crate) fn ratio(received: u64, missing: f64) -> Option<f64> {
    let all = received as f64 + missing;
    (all > 0.0).then(|| received as f64 / all)
}

/// The same result rows with their revision and completeness, by site.
pub(crate) fn stamped(
    rows: &RecordBatch,
    mut of_site: impl FnMut(&str) -> (i64, Option<f64>),
) -> Result<RecordBatch, ArrowError> {
    let missing = |name: &str| ArrowError::SchemaError(format!("result rows without a proper column `{name}`"));
    let sites = rows.column_by_name(schema::SITE).and_then(|column| column.as_string_opt::<i32>());
    let sites = sites.ok_or_else(|| missing(schema::SITE))?;
    let mut last: Option<(&str, (i64, Option<f64>))> = None;
    let mut stamps = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let site = if sites.is_null(row) { "" } else { sites.value(row) };
        let stamp = match last {
            Some((of, stamp)) if of == site => stamp,
            _ => of_site(site),
        };
        last = Some((site, stamp));
        stamps.push(stamp);
    }
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    let place = |name: &str| rows.schema_ref().index_of(name).map_err(|_| missing(name));
    columns[place(REVISION)?] = Arc::new(stamps.iter().map(|stamp| Some(stamp.0)).collect::<Int64Array>());
    columns[place(COMPLETENESS)?] = Arc::new(stamps.iter().map(|stamp| stamp.1).collect::<Float64Array>());
    RecordBatch::try_new(rows.schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_is_spread_evenly_between_the_times_at_its_edges() {
        let mut gaps = Gaps::default();
        gaps.add("s", Gap { edges: (5, 45), rows: 8 });
        gaps.add("s", Gap { edges: (12, 12), rows: 3 });
        gaps.add("t", Gap { edges: (30, 10), rows: 4 });
        let within =
            |site: &str| [0, 10, 20, 30, 40, 50].map(|start| gaps.within(site, Window { start, end: start + 10 }));
        assert_eq!(within("s"), [1.0, 5.0, 2.0, 2.0, 1.0, 0.0]);
        assert_eq!(within("t"), [0.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(within("u"), [0.0; 6]);
        assert_eq!(
            (ratio(9, 1.0), ratio(5, 0.0), ratio(0, 2.0), ratio(0, 0.0)),
            (Some(0.9), Some(1.0), Some(0.0), None)
        );
    }

    proptest! {
        /// Guarantees: however windows cut a gap, its rows are all there, and none twice.
        #[test]
        fn the_windows_of_a_gap_hold_all_of_it(from in -100i64..100, length in 0i64..300, rows in 0u64..1000, width in 1i64..50) {
            let gap = Gap { edges: (from, from + length), rows };
            let first = from.div_euclid(width) * width;
            let windows = (0..).map(|n| first + n * width).take_while(|start| *start <= from + length);
            let sum: f64 = windows.map(|start| gap.within(Window { start, end: start + width })).sum();
            prop_assert!((sum - rows as f64).abs() < 1e-6, "{} of {}", sum, rows);
        }
    }
}
