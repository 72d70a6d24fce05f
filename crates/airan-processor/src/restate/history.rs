//! What the lake holds, as restatements read it: a snapshot in a session of the engine.
//!
//! A session over [`airan_lake::Lake::register`] is exactly what was committed at that moment. Tests bring one over tables in
//! memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use airan_lake::{Lake, QueryError, Registered};
use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::common::{Column, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, ExprFunctionExt, lit};
use datafusion::prelude::{SessionConfig, SessionContext};
use foldhash::fast::RandomState;

use crate::completeness::REVISION;
use crate::restate::emptied::EMPTIED;

/// Columns of window tables.
const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";

/// What is newest of a window of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub revision: i64,
    /// It says that no group is left.
    pub is_emptied: bool,
    /// The latest end of a window that ever began there.
    pub end: Micros,
    pub region: Option<Box<str>>,
}

/// By site and window start.
pub(crate) type Revisions = HashMap<(Box<str>, Micros), Newest, RandomState>;

/// A snapshot.
#[derive(Clone)]
pub(crate) struct History {
    context: SessionContext,
    /// Absent over tables in memory.
    files: Option<Registered>,
}

impl History {
    /// The lake as it is now.
    pub async fn of(lake: &Lake) -> Result<History, QueryError> {
        // One thread: a round runs beside the shard's messages and those of the other shards.
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let files = Some(lake.register(&context).await?);
        Ok(History { context, files })
    }

    /// Over the tables of `context`.
    pub fn over(context: SessionContext) -> History {
        History { context, files: None }
    }

    /// Rows of a table with a time in `[from, to)` of these sites; of `nodes` only, where given. Of `columns` those that the
    /// table has. In no order.
    pub async fn rows(
        &self,
        table: &str,
        columns: &[String],
        sites: &[&str],
        nodes: Option<&BTreeSet<Box<str>>>,
        (from, to): (Micros, Micros),
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let Some(frame) = self.table(table).await? else { return Ok(Vec::new()) };
        let present = |name: &&String| frame.schema().has_column_with_unqualified_name(name);
        let taken: Vec<Expr> = columns.iter().filter(present).map(|name| column(name)).collect();
        let mut filter = between(schema::TS, from, to).and(any_of(schema::SITE, sites.iter().copied()));
        if let Some(nodes) = nodes {
            filter = filter.and(any_of(schema::NODE, nodes.iter().map(|node| &**node)));
        }
        frame.filter(filter)?.select(taken)?.collect().await
    }

    /// The newest revision of each window of these sites that begins in `[from, to)`.
    pub async fn revisions(
        &self,
        table: &str,
        sites: &[&str],
        (from, to): (Micros, Micros),
    ) -> Result<Revisions, DataFusionError> {
        let mut found = Revisions::default();
        let Some(frame) = self.table(table).await? else { return Ok(found) };
        let filter = between(WINDOW_START, from, to).and(any_of(schema::SITE, sites.iter().copied()));
        let has = |name: &str| frame.schema().has_column_with_unqualified_name(name);
        let region = if has(schema::REGION) { column(schema::REGION) } else { lit(ScalarValue::Utf8(None)) };
        let mut what = vec![
            max(column(REVISION)).alias(REVISION),
            max(region).alias(schema::REGION),
            max(column(WINDOW_END)).alias(WINDOW_END),
        ];
        // There once a window was left without a group.
        if has(EMPTIED) {
            what.push(max(column(REVISION)).filter(column(EMPTIED).is_true()).build()?.alias(EMPTIED));
        }
        let newest = frame.filter(filter)?.aggregate(vec![column(schema::SITE), column(WINDOW_START)], what)?;
        for batch in newest.collect().await? {
            let (site, start, revision) =
                (text(&batch, 0)?, batch.column(1).as_primitive::<TimestampMicrosecondType>(), as_ints(&batch, 2)?);
            let (site, revision) = (site.as_string::<i32>(), revision.as_primitive::<Int64Type>());
            let (region, end) = (text(&batch, 3)?, batch.column(4).as_primitive::<TimestampMicrosecondType>());
            let emptied = if batch.num_columns() > 5 { Some(as_ints(&batch, 5)?) } else { None };
            let emptied = emptied.as_ref().map(|emptied| emptied.as_primitive::<Int64Type>());
            for row in (0..batch.num_rows()).filter(|row| site.is_valid(*row)) {
                let newest = if revision.is_valid(row) { revision.value(row) } else { 0 };
                let region = region.as_string::<i32>();
                let newest = Newest {
                    revision: newest,
                    is_emptied: emptied.is_some_and(|of| of.is_valid(row) && of.value(row) == newest),
                    end: end.value(row),
                    region: region.is_valid(row).then(|| region.value(row).into()),
                };
                found.insert((site.value(row).into(), start.value(row)), newest);
            }
        }
        Ok(found)
    }

    /// The first time at or after `from` at which a table may have rows. Of a lake it is what the records say of its files, and
    /// nothing is read for it.
    pub async fn next_time(&self, table: &str, from: Micros) -> Result<Option<Micros>, DataFusionError> {
        if let Some(files) = &self.files {
            return Ok(files.next_time(table, from));
        }
        let Some(frame) = self.table(table).await? else { return Ok(None) };
        let first = frame
            .filter(column(schema::TS).gt_eq(time(from)))?
            .aggregate(Vec::new(), vec![min(column(schema::TS)).alias(schema::TS)])?;
        let first = first.collect().await?;
        let times = first.iter().filter(|batch| batch.column(0).null_count() < batch.num_rows());
        Ok(times.map(|batch| batch.column(0).as_primitive::<TimestampMicrosecondType>().value(0)).min())
    }

    /// How many rows of a table each site has in `[from, to)`; of `sites` only, where there are any.
    pub async fn rows_by_site(
        &self,
        table: &str,
        sites: &[String],
        span: (Micros, Micros),
    ) -> Result<BTreeMap<Box<str>, u64>, DataFusionError> {
        let mut found = BTreeMap::new();
        let Some(frame) = self.table(table).await? else { return Ok(found) };
        let mut filter = between(schema::TS, span.0, span.1);
        if !sites.is_empty() {
            filter = filter.and(any_of(schema::SITE, sites.iter().map(String::as_str)));
        }
        let counted = frame.filter(filter)?.aggregate(vec![column(schema::SITE)], vec![count(column(schema::TS))])?;
        for batch in counted.collect().await? {
            let (site, rows) = (text(&batch, 0)?, as_ints(&batch, 1)?);
            let rows = rows.as_primitive::<Int64Type>();
            for (row, site) in site.as_string::<i32>().iter().enumerate() {
                if let Some(site) = site {
                    found.insert(site.into(), rows.value(row).unsigned_abs());
                }
            }
        }
        Ok(found)
    }

    async fn table(&self, name: &str) -> Result<Option<DataFrame>, DataFusionError> {
        let name = datafusion::common::TableReference::bare(name);
        Ok(if self.context.table_exist(name.clone())? { Some(self.context.table(name).await?) } else { None })
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn time(at: Micros) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())))
}

fn between(name: &str, from: Micros, to: Micros) -> Expr {
    column(name).gt_eq(time(from)).and(column(name).lt(time(to)))
}

/// One of `values`, and between the first and the last: that is what a long list prunes files and pages by.
fn any_of<'a>(name: &str, values: impl Iterator<Item = &'a str> + Clone) -> Expr {
    let list = column(name).in_list(values.clone().map(lit).collect(), false);
    match (values.clone().min(), values.max()) {
        (Some(first), Some(last)) => column(name).gt_eq(lit(first)).and(column(name).lt_eq(lit(last))).and(list),
        _ => list,
    }
}

fn text(batch: &RecordBatch, index: usize) -> Result<arrow::array::ArrayRef, DataFusionError> {
    Ok(cast(batch.column(index), &DataType::Utf8)?)
}

fn as_ints(batch: &RecordBatch, index: usize) -> Result<arrow::array::ArrayRef, DataFusionError> {
    Ok(cast(batch.column(index), &DataType::Int64)?)
}
