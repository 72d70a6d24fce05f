//! Looking at rows by their time: which are late for whom, and what they say about their nodes' clocks.

use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::dedupe::IdentityColumns;
use crate::late::{Dirty, LateReason, Lates};
use crate::setup::StreamSetup;
use crate::stage::Stage;

/// The split of some rows for one pipeline.
pub(crate) struct Split {
    /// Rows of open windows; absent where all are.
    pub on_time: Option<BooleanArray>,
}

/// Splits conformed rows for each pipeline that reads their stream, in the order of the readers. Late rows are counted once,
/// however many pipelines they are late for, and backfill whether late or not; every closed window they belong to is marked.
pub(crate) fn late_rows(
    of: &StreamSetup,
    rows: &RecordBatch,
    stages: &[Stage],
    log_time: Micros,
    lates: &mut Lates,
) -> Result<Vec<Split>, ArrowError> {
    let ts = times(rows)?;
    let oldest = ts.iter().copied().min().unwrap_or(Micros::MAX);
    let backfill_before = log_time.saturating_sub(of.backfill_after);
    let newest_cutoff = of.readers.iter().map(|reader| stages[reader.pipeline].cutoff()).max().unwrap_or(Micros::MIN);
    if oldest >= newest_cutoff.max(backfill_before) {
        return Ok(of.readers.iter().map(|_| Split { on_time: None }).collect());
    }
    count(of, rows, ts, newest_cutoff, backfill_before, lates)?;
    let sites = texts(rows, schema::SITE)?;
    let split = |stage: &Stage, lates: &mut Lates| {
        let cutoff = stage.cutoff();
        if oldest >= cutoff {
            return Split { on_time: None };
        }
        let mut last: Option<(Micros, &str)> = None;
        for (row, at) in ts.iter().enumerate().filter(|(_, at)| **at < cutoff) {
            let window = (stage.start_of(*at), sites.value(row));
            if last != Some(window) {
                let pipeline = stage.pipeline.spec.name.as_str().into();
                lates.mark(Dirty { pipeline, site: window.1.into(), start: window.0 });
                last = Some(window);
            }
        }
        Split { on_time: Some(ts.iter().map(|at| Some(*at >= cutoff)).collect()) }
    };
    Ok(of.readers.iter().map(|reader| split(&stages[reader.pipeline], lates)).collect())
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
