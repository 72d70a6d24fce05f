//! SQL over the lake: one table per table, over exactly the files that count (S1: the Delta state and the records above it),
//! and `<table>_latest` views.
//!
//! `register` takes one snapshot: every query of the session, and every table within a query, sees the lake as of that
//! moment. Files are chosen by what their records say (date, times) before any is opened; inside, DataFusion prunes by the
//! Parquet statistics and bloom filters.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics, TableReference};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema as ScanSchema;
use datafusion::datasource::view::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::functions_window::expr_fn::rank;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, lit,
};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;

use crate::commit::TableKind;
use crate::files::{FileEntry, Live};
use crate::lake::Lake;
use crate::record::ReadError;
use crate::schema::{self, DATE, TableSchema};
use crate::snapshot::SnapshotStore;

/// What a view's name adds to its window table's.
pub(crate) const LATEST: &str = "_latest";
/// Column whose windows are restated together.
const SITE: &str = "site";
/// Of the results of one site and window, the one with the highest value counts.
const REVISION: &str = "revision";
/// True in the one row that stands for a window of a site without a group.
pub(crate) const EMPTIED: &str = "emptied";
/// The place of a row among the revisions of its result; only inside the view.
const PLACE: &str = "__airan_place";

/// Why the lake's tables could not be made readable by SQL.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// As [`ReadError`] says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Use another session: this one cannot take the table.
    #[error("cannot register table `{table}`")]
    Session {
        /// The table or view.
        table: String,
        /// What DataFusion says.
        source: DataFusionError,
    },
}

/// What was registered: between which times the files of each table lie.
#[derive(Clone, Debug, Default)]
pub struct Registered {
    spans: HashMap<String, Vec<(Micros, Micros)>>,
}

impl Registered {
    /// The first time at or after `from` at which `table` may have a row, by what is written down of its files; `None` where it has
    /// none any more.
    pub fn next_time(&self, table: &str, from: Micros) -> Option<Micros> {
        let ends_later = self.spans.get(table).into_iter().flatten().filter(|span| span.1 >= from);
        ends_later.map(|span| span.0.max(from)).min()
    }
}

impl Lake {
    /// Adds every table that was ever written to `context`, as it is now, and a `<table>_latest` view per window table:
    /// of each (site, `window_start`) the rows of the newest revision, unless that says that no group is left.
    ///
    /// Registering again in the same context replaces the snapshot. A table has all columns it ever had, and `date`.
    ///
    /// A query sees its snapshot however much is committed, published, compacted or expired meanwhile: files that are taken out
    /// are held for a day. A file that is gone after that is an error that says so, never a missing row: register and run it
    /// again.
    ///
    /// # Errors
    /// If the records cannot be read, or `context` holds something else under one of the names.
    pub async fn register(&self, context: &SessionContext) -> Result<Registered, QueryError> {
        let mut files: HashMap<String, Vec<FileEntry>> = HashMap::new();
        let mut registered = Registered::default();
        for entry in self.entries().await? {
            registered.spans.entry(entry.table.clone()).or_default().push((entry.min_ts, entry.max_ts));
            files.entry(entry.table.clone()).or_default().push(entry);
        }
        let url = self.register_store(context)?;
        for name in self.tables().await? {
            let Some(schema) = schema::load(self.store(), &name).await.map_err(QueryError::Read)? else { continue };
            let told = |source| QueryError::Session { table: name.clone(), source };
            let kind = schema.kind.clone();
            let entries = files.remove(&name).unwrap_or_default();
            let table = Arc::new(LakeTable::new(schema, entries, url.clone()));
            if let TableKind::Windows { keys } = kind {
                let view = latest(&name, &keys, &table).map_err(told)?;
                replace(context, &format!("{name}{LATEST}"), Arc::new(ViewTable::new(view, None))).map_err(told)?;
            }
            replace(context, &name, table).map_err(told)?;
        }
        Ok(registered)
    }

    /// Makes this lake's store known to the session under a name of its own, so that one session can hold several lakes.
    fn register_store(&self, context: &SessionContext) -> Result<ObjectStoreUrl, QueryError> {
        let url = ObjectStoreUrl::parse(format!("airan-lake://{:032x}/", rand::random::<u128>()))
            .map_err(|source| QueryError::Session { table: "*".to_owned(), source })?;
        context.register_object_store(url.as_ref(), Arc::new(SnapshotStore::new(self.store())));
        Ok(url)
    }
}

fn replace(context: &SessionContext, name: &str, table: Arc<dyn TableProvider>) -> Result<(), DataFusionError> {
    context.deregister_table(TableReference::bare(name))?;
    context.register_table(TableReference::bare(name), table).map(drop)
}

/// The newest revision of each (site, time, date): a restatement says everything of a window of a site, so that a group it no
/// longer has is gone. Where there is no site, of each (keys, time, date). The date follows from the time; it is there so that
/// a filter on either reaches the files.
fn latest(name: &str, keys: &[String], table: &Arc<LakeTable>) -> Result<LogicalPlan, DataFusionError> {
    let schema = table.schema();
    let scan =
        || LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(Arc::clone(table) as _), None);
    if schema.field_with_name(REVISION).is_err() {
        return scan()?.build();
    }
    let site = keys.iter().filter(|key| *key == SITE).map(String::as_str).collect::<Vec<_>>();
    let whose = if site.is_empty() { keys.iter().map(String::as_str).collect() } else { site };
    let same: Vec<Expr> = whose.into_iter().chain([table.schema.time_column.as_str(), DATE]).map(column).collect();
    let newest_first = column(REVISION).sort(false, false);
    let place = rank().partition_by(same).order_by(vec![newest_first]).build()?.alias(PLACE);
    let all: Vec<Expr> = schema.fields().iter().map(|field| column(field.name())).collect();
    let newest = scan()?.window([place])?.filter(column(PLACE).eq(lit(1u64)))?;
    let newest = match schema.field_with_name(EMPTIED) {
        Ok(_) => newest.filter(column(EMPTIED).is_not_true())?,
        Err(_) => newest,
    };
    newest.project(all)?.build()
}

/// A column by its exact name.
fn column(name: &str) -> Expr {
    Expr::Column(datafusion::common::Column::from_name(name))
}

/// Column of a table read by [`by_file`]: the place of a row's file in the list that was given.
pub(crate) const FILE: &str = "__airan_file";

/// `files` of one table, whose rows tell their file in the column [`FILE`].
pub(crate) fn by_file(
    lake: &Lake,
    context: &SessionContext,
    schema: TableSchema,
    files: &[Live],
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let url = lake.register_store(context)?;
    let fields = [Field::new(DATE, DataType::Date32, false), Field::new(FILE, DataType::Int64, false)];
    let scan = ScanSchema::builder(Arc::clone(&schema.columns))
        .with_table_partition_cols(fields.into_iter().map(Arc::new).collect::<Vec<_>>())
        .build();
    let numbered = (0i64..).zip(files).map(|(at, live)| {
        let entry = FileEntry {
            table: live.file.table.clone(),
            path: live.stored(lake.store()).to_string(),
            date: live.date,
            rows: live.file.rows,
            bytes: live.file.bytes,
            min_ts: live.file.min_ts,
            max_ts: live.file.max_ts,
            checksum: live.file.checksum.clone(),
            topic: live.topic.clone(),
            partition: None,
            n: None,
        };
        partitioned(&schema, entry, Some(at))
    });
    let files = numbered.collect();
    Ok(Arc::new(LakeTable { schema, scan, files, url }))
}

/// One table of the snapshot.
#[derive(Debug)]
struct LakeTable {
    schema: TableSchema,
    scan: ScanSchema,
    files: Vec<PartitionedFile>,
    url: ObjectStoreUrl,
}

impl LakeTable {
    fn new(schema: TableSchema, entries: Vec<FileEntry>, url: ObjectStoreUrl) -> LakeTable {
        let date = Arc::new(Field::new(DATE, DataType::Date32, false));
        let scan = ScanSchema::builder(Arc::clone(&schema.columns)).with_table_partition_cols(vec![date]).build();
        let files = entries.into_iter().map(|entry| partitioned(&schema, entry, None)).collect();
        LakeTable { schema, scan, files, url }
    }

    /// The files that can hold a row for which all of `filters` are true.
    fn chosen(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>, DataFusionError> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(self.files.clone()) };
        let whole = self.scan.table_schema();
        let columns = DFSchema::try_from(Arc::clone(whole))?;
        let predicate = state.create_physical_expr(filter, &columns)?;
        let pruning = PruningPredicateBuilder::new().with_file_schema(Arc::clone(whole)).try_build(predicate);
        // What cannot be decided by counts and ranges is decided by the rows.
        let Ok(pruning) = pruning else { return Ok(self.files.clone()) };
        let facts = self.files.iter().filter_map(|file| file.statistics.clone()).collect();
        let keep = pruning.prune(&PrunableStatistics::new(facts, Arc::clone(whole)))?;
        Ok(self.files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect())
    }
}

/// A file with what its record says of it: exact counts, the range of its times, its date, and its number where it has one.
fn partitioned(schema: &TableSchema, entry: FileEntry, number: Option<i64>) -> PartitionedFile {
    let mut facts = Statistics::new_unknown(&schema.columns)
        .with_num_rows(usize::try_from(entry.rows).map_or(Precision::Absent, Precision::Exact));
    if let Ok(at) = schema.columns.index_of(&schema.time_column) {
        let exact = |at: Micros| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())));
        facts.column_statistics[at] = ColumnStatistics::new_unknown()
            .with_min_value(exact(entry.min_ts))
            .with_max_value(exact(entry.max_ts))
            .with_null_count(Precision::Exact(0));
    }
    let values =
        [ScalarValue::Date32(Some(entry.date))].into_iter().chain(number.map(|at| ScalarValue::Int64(Some(at))));
    PartitionedFile::new(entry.path, entry.bytes)
        .with_partition_values(values.collect::<Vec<_>>())
        .with_statistics(Arc::new(facts))
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.scan.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let files = self.chosen(state, filters)?;
        let whole = self.scan.table_schema();
        if files.is_empty() {
            let projected = datafusion::common::project_schema(whole, projection)?;
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        let facts = files.iter().filter_map(|file| file.statistics.as_deref());
        let facts = Statistics::try_merge_iter(facts, whole)?;
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let source = ParquetSource::new(self.scan.clone()).with_table_parquet_options(options);
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(FileGroup::new(files).split_files(state.config().target_partitions()))
            .with_statistics(facts)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
