//! The two questions to the lake: which sites have windows, and which windows a site has.
//!
//! What the reader names goes into the plan as a value, never into a text that is parsed.

use std::collections::{BTreeMap, HashMap};

use airan_model::schema::{REGION, SITE};
use airan_model::time::Micros;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext, ident, lit};
use serde::Serialize;

use super::pipeline_view::{Column, PipelineView};

/// Most rows of one answer; older ones are left off.
const ROWS_MAX: usize = 20_000;
/// Most sites of one answer.
const SITES_MAX: usize = 1_000;

const START: &str = "window_start";
const REVISION: &str = "revision";
const COMPLETENESS: &str = "completeness";

/// Who has windows.
#[derive(Debug, Serialize)]
pub(super) struct Sites {
    /// Windows that began from here on, in milliseconds since 1970.
    from: i64,
    pub sites: Vec<Site>,
    /// Whether there are more than are told.
    is_cut: bool,
    /// What can be asked for, by name.
    pipelines: Vec<PipelineView>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Site {
    pub site: String,
    pub region: String,
    /// Start of its newest window, in milliseconds since 1970.
    newest: i64,
    /// Pipelines that have windows of it, by name.
    pipelines: BTreeMap<String, Newest>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Newest {
    /// Start of the newest window, in milliseconds since 1970.
    start: i64,
    /// Whether a window was computed again.
    is_restated: bool,
}

/// The windows of one site and pipeline.
#[derive(Debug, Serialize)]
pub(super) struct Windows {
    site: String,
    pipeline: String,
    width_seconds: f64,
    /// Windows that began from here on are told: milliseconds since 1970.
    from: i64,
    /// When it was read.
    to: i64,
    /// Whether there are older ones since what was asked for, left off because there are too many.
    is_cut: bool,
    keys: Vec<String>,
    columns: Vec<Column>,
    series: Vec<Series>,
}

/// What one entity has: arrays of the same length, oldest first.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Series {
    region: Option<String>,
    /// Values of the keys.
    entity: Vec<Option<String>>,
    /// Milliseconds since 1970.
    start: Vec<i64>,
    /// 0 as it closed; more where it was computed again.
    revision: Vec<i64>,
    completeness: Vec<Option<f64>>,
    /// An array a column.
    values: Vec<Vec<Option<f64>>>,
}

/// Sites with windows that began at `from` or later.
///
/// # Errors
/// If the lake cannot be read, or the answer takes too much memory.
pub(super) async fn sites(context: &SessionContext, pipelines: &[PipelineView], from: Micros) -> Result<Sites> {
    let mut found: BTreeMap<(String, String), Site> = BTreeMap::new();
    for shown in pipelines {
        if !context.table_exist(shown.table.as_str())? {
            continue;
        }
        let newest = vec![max(ident(START)).alias(START), max(ident(REVISION)).alias(REVISION)];
        let rows = context.table(shown.table.as_str()).await?.filter(since(from))?;
        let rows = rows.aggregate(vec![ident(SITE), ident(REGION)], newest)?;
        let rows = rows.sort(vec![ident(SITE).sort(true, true)])?.limit(0, Some(SITES_MAX + 1))?;
        for batch in rows.collect().await? {
            let (site, region) = (texts(&batch, SITE)?, texts(&batch, REGION)?);
            let (start, revision) = (times(&batch)?, whole(&batch, REVISION)?);
            for row in 0..batch.num_rows() {
                let name = (site[row].clone().unwrap_or_default(), region[row].clone().unwrap_or_default());
                let entry = found.entry(name.clone()).or_insert_with(|| Site {
                    site: name.0,
                    region: name.1,
                    newest: i64::MIN,
                    pipelines: BTreeMap::new(),
                });
                entry.newest = entry.newest.max(start[row]);
                let newest = Newest { start: start[row], is_restated: revision[row] > 0 };
                entry.pipelines.insert(shown.name.clone(), newest);
            }
        }
    }
    let is_cut = found.len() > SITES_MAX;
    let sites = found.into_values().take(SITES_MAX).collect();
    Ok(Sites { from: from / 1_000, sites, is_cut, pipelines: pipelines.to_vec() })
}

/// The newest revision of each window of `site` that began at `from` or later.
///
/// # Errors
/// If the lake cannot be read, or the answer takes too much memory.
pub(super) async fn of_site(
    context: &SessionContext,
    shown: &PipelineView,
    site: &str,
    from: Micros,
    to: Micros,
) -> Result<Windows> {
    let view = format!("{}_latest", shown.table);
    let mut windows = Windows {
        site: site.to_owned(),
        pipeline: shown.name.clone(),
        width_seconds: shown.width_seconds,
        from: from / 1_000,
        to: to / 1_000,
        is_cut: false,
        keys: shown.keys.clone(),
        columns: Vec::new(),
        series: Vec::new(),
    };
    if !context.table_exist(view.as_str())? {
        return Ok(windows);
    }
    let table = context.table(view.as_str()).await?;
    // A pipeline that was changed may have columns that no row has yet.
    let has = |name: &String| table.schema().has_column_with_unqualified_name(name);
    windows.keys.retain(has);
    windows.columns = shown.columns.iter().filter(|column| has(&column.name)).cloned().collect();
    let rows = newest_first(table, &windows, site, from)?.collect().await?;
    let Some(first) = rows.first() else { return Ok(windows) };
    let (rows, cut) = cut(concat_batches(&first.schema(), &rows)?)?;
    if let Some(oldest) = cut {
        (windows.is_cut, windows.from) = (true, oldest);
    }
    windows.series = series(&rows, &windows.keys, &windows.columns)?;
    Ok(windows)
}

/// One row more than are told, so that it shows whether there are more.
fn newest_first(table: DataFrame, windows: &Windows, site: &str, from: Micros) -> Result<DataFrame> {
    let fixed = [START, REVISION, COMPLETENESS, REGION].into_iter();
    let names = fixed.chain(windows.keys.iter().map(String::as_str));
    let names = names.chain(windows.columns.iter().map(|column| column.name.as_str()));
    let order = std::iter::once(ident(START).sort(false, false));
    let order = order.chain(windows.keys.iter().map(|key| ident(key.as_str()).sort(true, true)));
    table
        .filter(ident(SITE).eq(lit(site)).and(since(from)))?
        .select(names.map(ident).collect::<Vec<Expr>>())?
        .sort(order.collect())?
        .limit(0, Some(ROWS_MAX + 1))
}

fn since(from: Micros) -> Expr {
    ident(START).gt_eq(lit(ScalarValue::TimestampMicrosecond(Some(from), Some("UTC".into()))))
}

/// At most [`ROWS_MAX`] rows, newest first, and where some are left off the start of the oldest window that is whole. A single
/// window of more rows is cut as well.
fn cut(rows: RecordBatch) -> Result<(RecordBatch, Option<i64>)> {
    if rows.num_rows() <= ROWS_MAX {
        return Ok((rows, None));
    }
    let start = times(&rows)?;
    let broken = start[ROWS_MAX];
    let keep = match start.iter().position(|at| *at == broken) {
        Some(0) | None => ROWS_MAX,
        Some(keep) => keep,
    };
    Ok((rows.slice(0, keep), start.get(keep - 1).copied()))
}

/// Rows, newest first, by who they are of; oldest first within.
fn series(rows: &RecordBatch, keys: &[String], columns: &[Column]) -> Result<Vec<Series>> {
    let (start, revision) = (times(rows)?, whole(rows, REVISION)?);
    let (completeness, region) = (numbers(rows, COMPLETENESS)?, texts(rows, REGION)?);
    let keys = keys.iter().map(|key| texts(rows, key)).collect::<Result<Vec<_>>>()?;
    let values = columns.iter().map(|column| numbers(rows, &column.name)).collect::<Result<Vec<_>>>()?;
    let mut places: HashMap<(Option<String>, Vec<Option<String>>), usize> = HashMap::new();
    let mut found: Vec<Series> = Vec::new();
    for row in (0..rows.num_rows()).rev() {
        let entity: Vec<Option<String>> = keys.iter().map(|key| key[row].clone()).collect();
        let place = *places.entry((region[row].clone(), entity.clone())).or_insert_with(|| {
            let values = vec![Vec::new(); columns.len()];
            found.push(Series { region: region[row].clone(), entity, values, ..Series::default() });
            found.len() - 1
        });
        let one = &mut found[place];
        one.start.push(start[row]);
        one.revision.push(revision[row]);
        one.completeness.push(completeness[row]);
        one.values.iter_mut().zip(&values).for_each(|(into, column)| into.push(column[row]));
    }
    found.sort_by(|a, b| a.entity.cmp(&b.entity).then_with(|| a.region.cmp(&b.region)));
    Ok(found)
}

/// Starts of windows, in milliseconds since 1970.
fn times(rows: &RecordBatch) -> Result<Vec<i64>> {
    let column = named(rows, START)?;
    let column = column.as_primitive_opt::<TimestampMicrosecondType>();
    let column = column.ok_or_else(|| wrong(START))?;
    Ok(column.values().iter().map(|at| at.div_euclid(1_000)).collect())
}

fn whole(rows: &RecordBatch, name: &str) -> Result<Vec<i64>> {
    let column = cast(named(rows, name)?, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
}

/// What is no number (NaN, ±∞) counts as absent: JSON has none of them.
fn numbers(rows: &RecordBatch, name: &str) -> Result<Vec<Option<f64>>> {
    let column = cast(named(rows, name)?, &DataType::Float64)?;
    Ok(column.as_primitive::<Float64Type>().iter().map(|value| value.filter(|value| value.is_finite())).collect())
}

fn texts(rows: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let column = named(rows, name)?;
    let options = FormatOptions::new();
    let text = ArrayFormatter::try_new(column, &options)?;
    Ok((0..column.len()).map(|row| column.is_valid(row).then(|| text.value(row).to_string())).collect())
}

fn named<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| wrong(name))
}

fn wrong(name: &str) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::Execution(format!("the lake's column `{name}` is not what it should be"))
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
