//! Rows that follow erased ones: what a counter rose by until there was computed from a row that is gone.
//!
//! The window of such a row is none of those that the erased rows were in, and its results tell something of them all the same. So
//! of each series the first row after each span of erased ones is looked up, and its windows are restated and cleared of older
//! revisions like the others. Of a series that did not lose a row that is too much, and does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_model::time::{HOUR, Micros};
use arrow::array::{AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprFunctionExt, ScalarUDF, Signature, Volatility, lit};

use super::{Affected, EraseError, Erasure, Found, SITE, failed, wider};
use crate::delta::DeltaTable;
use crate::files::Live;
use crate::lake::Lake;
use crate::schema;

/// The counters of one raw table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesOf {
    /// Columns that tell one series from another: the node and the entity.
    pub named_by: Vec<String>,
    /// Columns that count.
    pub counters: Vec<String>,
}

/// By raw table; those that are not in it have no counters.
pub type Series = BTreeMap<String, SeriesOf>;

impl Lake {
    /// Writes down where the rows lie that follow those that `erasure` has taken, of each series, as far on as `idle`, for which
    /// counters are remembered. To be done when [`Lake::erase`] has, and again after the first of [`Erasure::requests`], for rows
    /// that came meanwhile. True if there is something new, and the requests with it are others than before.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub async fn note_followers(
        &self,
        erasure: &mut Erasure,
        series: &Series,
        idle: Micros,
        now: Micros,
    ) -> Result<bool, EraseError> {
        let published = self.publish(now).await?;
        let mut is_new = false;
        for (table, erased) in erasure.affected.clone() {
            if let Some((table, reason)) = published.failures.iter().find(|(failed, _)| *failed == table).cloned() {
                return Err(EraseError::Unpublished { table, reason });
            }
            let Some(of_table) = series.get(&table) else { continue };
            let found = self.followers(&table, &erased, of_table, idle).await?;
            is_new |= erasure.note_followers(self, &table, &found).await?;
        }
        Ok(is_new)
    }

    /// Of each site the spans of time, at most one an hour, that hold the first value of each counter after each span of `erased`.
    async fn followers(
        &self,
        table: &str,
        erased: &Affected,
        series: &SeriesOf,
        idle: Micros,
    ) -> Result<Affected, EraseError> {
        let Some(schema) = schema::load(self.store(), table).await? else { return Ok(Affected::new()) };
        let Some(delta) = DeltaTable::load(self, table).await? else { return Ok(Affected::new()) };
        let ends = || erased.values().flatten().map(|span| span.1);
        let (Some(first), Some(last)) = (ends().min(), ends().max()) else { return Ok(Affected::new()) };
        let last = last.saturating_add(idle);
        let files: Vec<Live> =
            delta.files().filter(|live| live.file.max_ts >= first && live.file.min_ts < last).cloned().collect();
        let column = |name: &str| Expr::Column(datafusion::common::Column::from_name(name));
        let time = column(&schema.time_column);
        let at = |at: Micros| lit(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())));
        let span = span_before(erased, idle).call(vec![column(SITE), time.clone()]);
        let sites = erased.keys().map(|site| lit(site.as_str())).collect();
        let filter = (column(SITE).in_list(sites, false))
            .and(time.clone().gt_eq(at(first)))
            .and(time.clone().lt(at(last)))
            .and(span.clone().is_not_null());
        let is_there = |name: &&String| schema.columns.index_of(name).is_ok();
        let named = series.named_by.iter().filter(is_there).filter(|name| *name != SITE);
        let by: Vec<Expr> =
            [column(SITE), span.alias("__span")].into_iter().chain(named.map(|name| column(name))).collect();
        let firsts = series.counters.iter().filter(is_there).map(|name| {
            let first = min(time.clone()).filter(column(name).is_not_null()).build()?;
            Ok(first.alias(format!("__first_{name}")))
        });
        let firsts: Vec<Expr> = firsts.collect::<Result<_, _>>().map_err(|error| failed(table, &error))?;
        if firsts.is_empty() {
            return Ok(Affected::new());
        }
        let first_at = by.len();
        let batches = self.ask(&schema, table, &files, filter, by, firsts).await?;
        let mut found = Found::default();
        for batch in &batches {
            let told = |error: arrow::error::ArrowError| failed(table, &error.into());
            let sites = cast(batch.column(0), &DataType::Utf8).map_err(told)?;
            let sites = sites.as_string::<i32>();
            for times in &batch.columns()[first_at..] {
                let times = cast(times, &micros()).map_err(told)?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                for (site, at) in sites.iter().zip(times.iter()).filter_map(|(site, at)| site.zip(at)) {
                    let hour = (site.to_owned(), at.div_euclid(HOUR) * HOUR);
                    let known = found.hours.get(&hour).copied();
                    found.hours.extend(wider(known, Some((at, at))).map(|span| (hour, span)));
                }
            }
        }
        Ok(found.affected())
    }
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A function of (site, time): the place among its site's spans of the last one that ends by then, no longer ago than `idle`; null
/// where there is none.
fn span_before(erased: &Affected, idle: Micros) -> ScalarUDF {
    let ends: BTreeMap<String, Vec<Micros>> =
        erased.iter().map(|(site, spans)| (site.clone(), spans.iter().map(|span| span.1).collect())).collect();
    let find = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let (sites, times) = (cast(&arrays[0], &DataType::Utf8)?, cast(&arrays[1], &micros())?);
        let (sites, times) = (sites.as_string::<i32>(), times.as_primitive::<TimestampMicrosecondType>());
        let place = |site: &str, at: Micros| {
            let ends = ends.get(site)?;
            let last = ends.partition_point(|end| *end <= at).checked_sub(1)?;
            (at.saturating_sub(ends[last]) < idle).then(|| i64::try_from(last).unwrap_or(i64::MAX))
        };
        let places = sites.iter().zip(times.iter()).map(|(site, at)| place(site?, at?));
        Ok(ColumnarValue::Array(Arc::new(places.collect::<Int64Array>())))
    };
    let takes = Signature::any(2, Volatility::Immutable);
    SimpleScalarUDF::new_with_signature("airan_span_before", takes, DataType::Int64, Arc::new(find)).into()
}
