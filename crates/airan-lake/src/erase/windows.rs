//! The windows that were made of erased rows: what they were before the restatement, and what of it goes after.
//!
//! A restatement appends results at a higher revision, and none where no row is left. So the newest revision of each affected
//! (site, window) is written down before it is asked for; afterwards, a window with a newer one keeps only that, and a window
//! without keeps nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::{Expr, ExprFunctionExt, lit};
use serde::{Deserialize, Serialize};

use super::{Affected, EraseError, Erasure, ROUNDS, SITE, failed};
use crate::compact::merge_rules;
use crate::delta::DeltaTable;
use crate::files::Live;
use crate::lake::Lake;
use crate::record::ReadError;
use crate::rewrite::{Keep, Rules};
use crate::schema::{self, TableSchema};
use crate::seal::{Damaged, seal, unseal};
use crate::sql::{EMPTIED, FILE};
use crate::store::Created;

const REVISION: &str = "revision";
/// End of a window, not contained.
const END: &str = "window_end";

/// What became of the affected windows of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedWindows {
    /// The table.
    pub table: String,
    /// Windows of a site with results at a newer revision.
    pub restated: u64,
    /// Windows of a site without: no row of theirs is left.
    pub emptied: u64,
    /// Rows of older revisions taken out.
    pub rows: u64,
    /// First and last start of them; absent where there is none.
    pub span: Option<(Micros, Micros)>,
}

/// One affected window and its newest revision before the restatement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before(String, Micros, i64);

/// By site and window start.
type Revisions = BTreeMap<String, HashMap<Micros, i64>>;

/// Rows that lie together: (file, site, start, end, revision, count).
struct Lying {
    file: usize,
    site: String,
    start: Micros,
    end: Micros,
    revision: i64,
    rows: u64,
    /// They say that no group is left.
    is_emptied: bool,
}

impl Lake {
    /// Writes down the newest revisions of those windows of `table` that rows of `affected` may have been in. To be done after
    /// the first of [`Erasure::requests`] and before the second. Doing it again changes nothing.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub async fn note_windows(
        &self,
        erasure: &Erasure,
        table: &str,
        affected: &Affected,
        now: Micros,
    ) -> Result<u64, EraseError> {
        let path = erasure.windows(table);
        if let Some(bytes) = self.store().read(&path).await.map_err(ReadError::from)? {
            let known: Vec<Before> = unseal(&path, &bytes).map_err(ReadError::from)?;
            return Ok(known.len() as u64);
        }
        self.publish(now).await?;
        let (_, lying) = self.lying(table, affected).await?;
        let mut newest: BTreeMap<(String, Micros), i64> = BTreeMap::new();
        for rows in lying {
            let known = newest.entry((rows.site, rows.start)).or_insert(i64::MIN);
            *known = rows.revision.max(*known);
        }
        let before: Vec<Before> = newest.into_iter().map(|((site, at), revision)| Before(site, at, revision)).collect();
        let bytes = seal(&before)
            .map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })
            .map_err(ReadError::from)?;
        match self.store().create(&path, bytes).await {
            Ok(Created::New | Created::Taken) => {}
            Err(error) if self.store().read(&path).await.map_err(ReadError::from)?.is_none() => {
                return Err(ReadError::from(error).into());
            }
            Err(_) => {}
        }
        airan_model::crash::point("lake.erase.windows_noted");
        Ok(before.len() as u64)
    }

    /// Takes older results of the windows that [`Lake::note_windows`] wrote down out of `table`. To be done when the restatement
    /// is done. Doing it again goes on.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub async fn erase_windows(
        &self,
        erasure: &Erasure,
        table: &str,
        affected: &Affected,
        now: Micros,
    ) -> Result<ErasedWindows, EraseError> {
        let path = erasure.windows(table);
        let mut report = ErasedWindows { table: table.to_owned(), ..ErasedWindows::default() };
        let Some(bytes) = self.store().read(&path).await.map_err(ReadError::from)? else { return Ok(report) };
        let before: Vec<Before> = unseal(&path, &bytes).map_err(ReadError::from)?;
        let Some(schema) = schema::load(self.store(), table).await? else { return Ok(report) };
        report.span = before.iter().map(|window| window.1).min().zip(before.iter().map(|window| window.1).max());
        let published = self.publish(now).await?;
        if let Some((table, reason)) = published.failures.into_iter().find(|(failed, _)| failed == table) {
            return Err(EraseError::Unpublished { table, reason });
        }
        for round in 0..ROUNDS {
            let (files, lying) = self.lying(table, affected).await?;
            let least = least_revisions(&before, &lying);
            if round == 0 {
                let newer: HashSet<(&str, Micros)> = lying
                    .iter()
                    .filter(|rows| is_newer(&before, rows) && !rows.is_emptied)
                    .map(|rows| (rows.site.as_str(), rows.start))
                    .collect();
                report.restated = newer.len() as u64;
                report.emptied = before.len() as u64 - report.restated;
            }
            let is_old = |rows: &&Lying| {
                least.get(&rows.site).and_then(|of| of.get(&rows.start)).is_some_and(|least| rows.revision < *least)
            };
            let mut with_old: Vec<usize> = lying.iter().filter(is_old).map(|rows| rows.file).collect();
            with_old.sort_unstable();
            with_old.dedup();
            if with_old.is_empty() {
                self.settle().await?;
                return Ok(report);
            }
            let keep =
                newer(&schema, least).map_err(|reason| EraseError::Failed { table: table.to_owned(), reason })?;
            let target_bytes = self.compaction().target_bytes.get();
            let rules = Rules { keep: Some(keep), newest_only: false, ..merge_rules(&schema, target_bytes) };
            let chosen = with_old.iter().filter_map(|at| files.get(*at)).collect();
            for replaced in self.replace_all(table, &schema, chosen, &rules).await? {
                report.rows += replaced.rows_in - replaced.rows_out();
            }
        }
        Err(EraseError::Busy(table.to_owned()))
    }

    /// The published files of a window table, and what lies in them of windows that overlap `affected`.
    async fn lying(&self, table: &str, affected: &Affected) -> Result<(Vec<Live>, Vec<Lying>), EraseError> {
        let Some(schema) = schema::load(self.store(), table).await? else { return Ok(Default::default()) };
        let Some(delta) = DeltaTable::load(self, table).await? else { return Ok(Default::default()) };
        let files: Vec<Live> = delta.files().cloned().collect();
        let last = affected.values().flatten().map(|span| span.1).max();
        let Some(last) = last else { return Ok((files, Vec::new())) };
        let column = |name: &str| Expr::Column(datafusion::common::Column::from_name(name));
        let has_end = schema.columns.index_of(END).is_ok();
        let end = column(if has_end { END } else { &schema.time_column });
        let sites = affected.keys().map(|site| lit(site.as_str())).collect();
        let before = lit(datafusion::common::ScalarValue::TimestampMicrosecond(Some(last), Some("UTC".into())));
        let filter = column(SITE).in_list(sites, false).and(column(&schema.time_column).lt(before));
        let by = vec![column(FILE), column(SITE), column(&schema.time_column), column(REVISION)];
        let mut what = vec![max(end).alias("__end"), count(lit(1)).alias("__rows")];
        if schema.columns.index_of(EMPTIED).is_ok() {
            what.push(
                count(lit(1))
                    .filter(column(EMPTIED).is_true())
                    .build()
                    .map_err(|error| failed(table, &error))?
                    .alias("__emptied"),
            );
        }
        let batches = self.ask(&schema, table, &files, filter, by, what).await?;
        let mut lying = Vec::new();
        for batch in &batches {
            lying.extend(read(batch).map_err(|error| failed(table, &error.into()))?);
        }
        // A window without an end of its own is taken for an instant.
        let overlaps = |rows: &Lying| {
            let end = rows.end.max(rows.start + 1);
            affected.get(&rows.site).is_some_and(|of| of.iter().any(|span| rows.start < span.1 && end > span.0))
        };
        lying.retain(overlaps);
        Ok((files, lying))
    }
}

/// Rows of (file, site, start, revision, end, count), and where there are any, of those that say that no group is left.
fn read(batch: &RecordBatch) -> Result<Vec<Lying>, arrow::error::ArrowError> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let whole = |at: usize| cast(batch.column(at), &DataType::Int64);
    let (file, revision, rows) = (whole(0)?, whole(3)?, whole(5)?);
    let [file, revision, rows] = [&file, &revision, &rows].map(|values| values.as_primitive::<Int64Type>());
    let (start, end) = (cast(batch.column(2), &micros)?, cast(batch.column(4), &micros)?);
    let [start, end] = [&start, &end].map(|values| values.as_primitive::<TimestampMicrosecondType>());
    let site = cast(batch.column(1), &DataType::Utf8)?;
    let site = site.as_string::<i32>();
    let emptied = if batch.num_columns() > 6 { Some(whole(6)?) } else { None };
    let emptied = emptied.as_ref().map(|emptied| emptied.as_primitive::<Int64Type>());
    let one = |at: usize| Lying {
        file: usize::try_from(file.value(at)).unwrap_or_default(),
        site: site.value(at).to_owned(),
        start: start.value(at),
        end: end.value(at),
        revision: if revision.is_null(at) { i64::MIN } else { revision.value(at) },
        rows: u64::try_from(rows.value(at)).unwrap_or_default(),
        is_emptied: emptied.is_some_and(|emptied| emptied.value(at) > 0),
    };
    Ok((0..batch.num_rows()).map(one).filter(|lying| lying.rows > 0).collect())
}

/// Whether rows came with the restatement; `before` is sorted.
fn is_newer(before: &[Before], rows: &Lying) -> bool {
    let known = before.binary_search_by(|window| (window.0.as_str(), window.1).cmp(&(rows.site.as_str(), rows.start)));
    known.is_ok_and(|at| rows.revision > before[at].2)
}

/// Of each window the least revision that stays; none does where the newest says that no group is left.
fn least_revisions(before: &[Before], lying: &[Lying]) -> Revisions {
    let mut newest: HashMap<(&str, Micros), i64> = HashMap::new();
    let mut ordered: Vec<&Lying> = lying.iter().collect();
    ordered.sort_by_key(|rows| rows.revision);
    for rows in ordered {
        newest.insert((&rows.site, rows.start), if rows.is_emptied { i64::MAX } else { rows.revision });
    }
    let mut least = Revisions::new();
    for Before(site, start, revision) in before {
        let now = newest.get(&(site.as_str(), *start)).copied().unwrap_or(i64::MIN);
        least.entry(site.clone()).or_default().insert(*start, now.max(revision.saturating_add(1)));
    }
    least
}

/// Keeps rows whose revision is at least what `least` says of their window.
fn newer(schema: &TableSchema, least: Revisions) -> Result<Keep, String> {
    let field = |name: &str| schema.columns.field_with_name(name).cloned().map_err(|error| error.to_string());
    let columns = Schema::new(vec![field(SITE)?, field(&schema.time_column)?, field(REVISION)?]);
    let test = move |batch: &RecordBatch| {
        let site = cast(batch.column(0), &DataType::Utf8)?;
        let site = site.as_string::<i32>();
        let start = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let revision = cast(batch.column(2), &DataType::Int64)?;
        let revision = revision.as_primitive::<Int64Type>();
        let stays = |at: usize| {
            let known = if site.is_null(at) { None } else { least.get(site.value(at)) };
            let least = known.and_then(|of| of.get(&start.value(at)));
            Some(least.is_none_or(|least| revision.is_valid(at) && revision.value(at) >= *least))
        };
        Ok((0..batch.num_rows()).map(stays).collect::<BooleanArray>())
    };
    Ok(Keep::new(Arc::new(columns), test))
}
