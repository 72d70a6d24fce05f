//! Looking at rows by their time: which are late for whom, and what they say about their nodes' clocks.

use std::sync::Arc;

use airan_model::schema;
use airan_model::time::Micros;
use airan_window::Window;
use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::dedupe::IdentityColumns;
use crate::late::{LateReason, Lates};
use crate::marks::{Key, Marks, Why};
use crate::setup::StreamSetup;
use crate::stage::Stage;

/// The split of some rows for one pipeline.
pub(crate) struct Split {
    /// Rows of windows that are open, for others perhaps late; absent where all are.
    pub on_time: Option<BooleanArray>,
}

/// Splits conformed rows for each pipeline that reads their stream, in the order of the readers. Late rows are counted once,
/// however many pipelines they are late for, and backfill whether late or not; every closed window they belong to is marked,
/// for the reason `why`.
pub(crate) fn late_rows(
    of: &StreamSetup,
    rows: &RecordBatch,
    stages: &[Stage],
    log_time: Micros,
    (lates, marks, why): (&mut Lates, &mut Marks, Why),
) -> Result<Vec<Split>, ArrowError> {
    let ts = times(rows)?;
    let oldest = ts.iter().copied().min().unwrap_or(Micros::MAX);
    let backfill_before = log_time.saturating_sub(of.backfill_after);
    let late_before = of.readers.iter().map(|reader| stages[reader.pipeline].late_before());
    let late_before = late_before.max().unwrap_or(Micros::MIN);
    if oldest >= late_before.max(backfill_before) {
        return Ok(of.readers.iter().map(|_| Split { on_time: None }).collect());
    }
    count(of, rows, ts, late_before, backfill_before, lates)?;
    let sites = texts(rows, schema::SITE)?;
    let split = |stage: &Stage, marks: &mut Marks| {
        let (late_before, first_open) = (stage.late_before(), stage.first_open());
        if oldest < late_before {
            mark(stage, ts, sites, (|row| ts[row] < late_before, first_open), why, log_time, marks);
        }
        // A row that is late for one window may be in time for the next that holds it.
        let is_taken = |at: &Micros| Some(*at >= first_open);
        Split { on_time: (oldest < first_open).then(|| ts.iter().map(is_taken).collect()) }
    };
    Ok(of.readers.iter().map(|reader| split(&stages[reader.pipeline], marks)).collect())
}

/// Marks the windows of rows that came out of the order of event time: the rises of the rows after them were computed without
/// them, or their own without the rows before.
pub(crate) fn mark_out_of_order(
    of: &StreamSetup,
    rows: &RecordBatch,
    out: &[bool],
    stages: &[Stage],
    log_time: Micros,
    marks: &mut Marks,
) -> Result<(), ArrowError> {
    let (ts, sites) = (times(rows)?, texts(rows, schema::SITE)?);
    for reader in &of.readers {
        mark(&stages[reader.pipeline], ts, sites, (|row| out[row], Micros::MAX), Why::Rows, log_time, marks);
    }
    Ok(())
}

/// Marks the windows that hold rows for which `is_marked`, if they begin before `before`.
fn mark(
    stage: &Stage,
    ts: &[Micros],
    sites: &StringArray,
    (is_marked, before): (impl Fn(usize) -> bool, Micros),
    why: Why,
    log_time: Micros,
    marks: &mut Marks,
) {
    let pipeline: Arc<str> = stage.pipeline.spec.name.as_str().into();
    let mut last: Option<(Window, &str)> = None;
    for row in (0..ts.len()).filter(|row| is_marked(*row)) {
        let site = sites.value(row);
        if last.is_some_and(|(pane, of)| of == site && pane.contains(ts[row])) {
            continue;
        }
        let (first, end) = stage.cut().starts_of(ts[row]);
        if first < end.min(before) {
            let key = Key { pipeline: Arc::clone(&pipeline), why, site: site.into() };
            marks.mark(key, first, end.min(before), log_time);
        }
        last = Some((stage.cut().pane_of(ts[row]), site));
    }
}

/// Counts rows that are late for somebody, or backfill.
fn count(
    of: &StreamSetup,
    rows: &RecordBatch,
    ts: &[Micros],
    cutoff: Micros,
    backfill_before: Micros,
    lates: &mut Lates,
) -> Result<(), ArrowError> {
    let nodes = texts(rows, schema::NODE)?;
    let mut run: Option<(&str, LateReason, u64)> = None;
    for (row, at) in ts.iter().enumerate().filter(|(_, at)| **at < cutoff.max(backfill_before)) {
        let reason = if *at < backfill_before { LateReason::Backfill } else { LateReason::Late };
        match &mut run {
            Some((node, of_run, rows)) if *node == nodes.value(row) && *of_run == reason => *rows += 1,
            _ => {
                if let Some((node, reason, rows)) = run.replace((nodes.value(row), reason, 1)) {
                    lates.count(&of.stream.name, node, reason, rows);
                }
            }
        }
    }
    if let Some((node, reason, rows)) = run {
        lates.count(&of.stream.name, node, reason, rows);
    }
    Ok(())
}

/// Calls `with` for the newest time of each run of rows of one node, leaving out rows before `oldest`.
pub(crate) fn newest_by_node(rows: &RecordBatch, oldest: Micros, mut with: impl FnMut(&str, Micros)) {
    let (Ok(ts), Ok(nodes)) = (times(rows), texts(rows, schema::NODE)) else { return };
    let mut run: Option<(&str, Micros)> = None;
    for (row, at) in ts.iter().enumerate().filter(|(_, at)| **at >= oldest) {
        let node = nodes.value(row);
        match &mut run {
            Some((of_run, newest)) if *of_run == node => *newest = (*newest).max(*at),
            _ => {
                if let Some((node, newest)) = run.replace((node, *at)) {
                    with(node, newest);
                }
            }
        }
    }
    if let Some((node, newest)) = run {
        with(node, newest);
    }
}

/// The columns that identify conformed rows.
pub(crate) fn identity_columns(rows: &RecordBatch) -> Result<IdentityColumns<'_>, ArrowError> {
    Ok(IdentityColumns {
        node: texts(rows, schema::NODE)?,
        batch: texts(rows, schema::BATCH)?,
        seq: ints(rows, schema::SEQ)?,
        source: texts(rows, schema::SOURCE)?,
        site: texts(rows, schema::SITE)?,
        ts: times(rows)?,
    })
}

/// The times of conformed rows, never null.
pub(crate) fn times(rows: &RecordBatch) -> Result<&[Micros], ArrowError> {
    let column =
        rows.column_by_name(schema::TS).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.map(|column| &column.values()[..]).ok_or_else(|| missing(schema::TS))
}

fn texts<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ArrowError> {
    rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| missing(name))
}

fn ints<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, ArrowError> {
    rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("conformed rows without a proper column `{name}`"))
}
