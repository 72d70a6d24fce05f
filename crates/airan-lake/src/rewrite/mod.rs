//! Rewriting: published files of one table and date into one sorted run, with some rows left out.
//!
//! ```text
//!  file ─▶ Source ─▶ rows kept ─┐
//!  file ─▶ Source ─▶ rows kept ─┼─▶ merge by (site, entity…, time) ─▶ newest revision ─▶ encode ─▶ Sink ─▶ store
//!  file ─▶ Source ─▶ rows kept ─┘
//! ```
//!
//! Every file is sorted already (`encode.rs`), so rows are merged as they are decoded. The output is one sorted run, cut into
//! files of about equal size (`output.rs`), so neither its files nor their row groups overlap in that order. They are written
//! as a commit's files are, with the table's newest columns.
//!
//! **Memory** is bounded by the number of inputs and columns, whatever number of rows and bytes: small inputs as they lie in
//! the store, as many as the caller holds, of the others a slice (`source.rs`); of each input one batch and one page per column
//! decoded; the row group at work encoded (32 MiB) and the one before it on its way to the store. Checksums of all inputs are
//! proved before anything replaces them. Columns without a value in any input are not decoded and not merged.
//! `tests/compact_size.sh` prints what a merge of several hundred MiB takes.
//!
//! Nothing here says what counts (S1): the caller commits the new file to the Delta log in place of the old ones.

mod newest;
mod output;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use futures::TryStreamExt;
use object_store::path::Path;

use self::newest::Newest;
use self::output::Output;
pub(crate) use self::source::{Source, Stored};
use crate::schema::TableSchema;
use crate::seal::Checksum;
use crate::span::Span;
use crate::store::{Store, StoreError};

/// Values of all inputs that are decoded at once, shared out among them.
const VALUES_AT_ONCE: usize = 1 << 22;
/// Rows of one batch: fewer cost more per row, more do not pay.
const BATCH_ROWS: std::ops::RangeInclusive<usize> = 512..=8_192;

/// Why files could not be rewritten. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// Try again later.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Leave the files as they are: they cannot be decoded, merged or encoded.
    #[error("cannot rewrite files of `{table}`: {reason}")]
    Rows { table: String, reason: String },
}

/// Which rows stay, by some of their columns.
#[derive(Clone)]
pub(crate) struct Keep {
    columns: SchemaRef,
    test: Arc<KeepTest>,
}

type KeepTest = dyn Fn(&RecordBatch) -> Result<BooleanArray, DataFusionError> + Send + Sync;

impl Keep {
    /// `test` is given batches of exactly these columns, and says of each row whether it stays; null is no.
    pub(crate) fn new(
        columns: SchemaRef,
        test: impl Fn(&RecordBatch) -> Result<BooleanArray, DataFusionError> + Send + Sync + 'static,
    ) -> Keep {
        Keep { columns, test: Arc::new(test) }
    }

    fn of(&self, batch: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let places: Vec<usize> = self
            .columns
            .fields()
            .iter()
            .map(|field| batch.schema().index_of(field.name()))
            .collect::<Result<_, _>>()?;
        (self.test)(&batch.project(&places)?)
    }
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// What is done on the way.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// All rows stay where there is none.
    pub(crate) keep: Option<Keep>,
    /// Whether older revisions of a window's result go where a newer one is among the inputs.
    pub(crate) newest_only: bool,
    /// Most rows in a row group.
    pub(crate) group_rows: usize,
    /// Bytes of a new file at most, about; where there are several, each has at least about half of it.
    pub(crate) file_bytes: u64,
    /// What merging accounts its memory to.
    pub(crate) pool: Arc<dyn MemoryPool>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Where it lies.
    pub(crate) path: Path,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) min_ts: Micros,
    pub(crate) max_ts: Micros,
    pub(crate) checksum: Checksum,
    /// Its first and last row; absent where they are not by text and time.
    pub(crate) span: Option<Span>,
}

/// Cuts `sources` into sets whose rows are sorted alike: nearly always one.
pub(crate) fn alike(mut sources: Vec<Source>) -> Vec<Vec<Source>> {
    let mut sets: Vec<Vec<Source>> = Vec::new();
    sources.sort_by_key(|source| std::cmp::Reverse(source.order.len()));
    for source in sources {
        match sets.iter_mut().find(|set| source.follows(&set[0].order)) {
            Some(set) => set.push(source),
            None => sets.push(vec![source]),
        }
    }
    sets
}

/// Writes the rows of `sources`, which are sorted alike, to new files, in their order; `name` gives each its path. Empty: no
/// row is left, and nothing was written.
///
/// Takes one core. After an error, or dropped before its end, there may be files that nothing names.
pub(crate) async fn rewrite(
    store: &Store,
    name: &(dyn Fn() -> Path + Send + Sync),
    table: (&str, &TableSchema),
    sources: &[Source],
    rules: &Rules,
) -> Result<Vec<Rewritten>, RewriteError> {
    let (table, schema) = table;
    let rows = |error: DataFusionError| told(table, error);
    let Some(order) = sources.first().map(|source| source.order.clone()) else { return Ok(Vec::new()) };
    let narrow = columns_of(schema, sources, rules);
    let mut merged = merge(&narrow, schema, sources, &order, rules).map_err(rows)?;
    let mut newest = match rules.newest_only {
        true => Newest::of(schema, &narrow, &order).map_err(|error| rows(error.into()))?,
        false => None,
    };
    let mut output = Output::new(store, name, (table, schema), sources, &order, rules);
    let done = async {
        while let Some(batch) = merged.try_next().await.map_err(rows)? {
            let batch = match &mut newest {
                Some(newest) => newest.push(batch).map_err(|error| rows(error.into()))?,
                None => batch,
            };
            output.write(batch).await?;
            // Others on this thread get their turn.
            tokio::task::yield_now().await;
        }
        let rest = newest.as_mut().map(Newest::finish).transpose().map_err(|error| rows(error.into()))?;
        if let Some(rest) = rest.flatten() {
            output.write(rest).await?;
        }
        output.finish().await
    };
    match done.await {
        Ok(()) => Ok(output.made()),
        Err(error) => {
            output.abort().await;
            Err(error)
        }
    }
}

/// A store that did not answer is no fault of the rows.
fn told(table: &str, error: DataFusionError) -> RewriteError {
    let rows = |reason: String| RewriteError::Rows { table: table.to_owned(), reason };
    match error {
        DataFusionError::External(error) => match error.downcast() {
            Ok(error) => RewriteError::Store(*error),
            Err(error) => rows(error.to_string()),
        },
        error => rows(error.to_string()),
    }
}

/// The columns that are decoded and merged: those with a value, and those that something is decided by.
fn columns_of(schema: &TableSchema, sources: &[Source], rules: &Rules) -> SchemaRef {
    let mut names: BTreeSet<&str> = BTreeSet::from([schema.time_column.as_str()]);
    for source in sources {
        names.extend(source.filled.iter().chain(&source.order).map(String::as_str));
    }
    if let Some(keep) = &rules.keep {
        names.extend(keep.columns.fields().iter().map(|field| field.name().as_str()));
    }
    let fields = schema.columns.fields().iter().filter(|field| names.contains(field.name().as_str()));
    // Names and types only: what a column means is not merged with every batch.
    let plain = fields.map(|field| field.as_ref().clone().with_metadata(std::collections::HashMap::new()));
    Arc::new(Schema::new(plain.collect::<Vec<_>>()))
}

fn merge(
    narrow: &SchemaRef,
    schema: &TableSchema,
    sources: &[Source],
    order: &[String],
    rules: &Rules,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let columns = sources.len().max(1) * narrow.fields().len().max(1);
    let batch_rows = (VALUES_AT_ONCE / columns).clamp(*BATCH_ROWS.start(), *BATCH_ROWS.end());
    let mut streams = Vec::with_capacity(sources.len());
    for source in sources {
        streams.push(source.rows_as(narrow, schema, rules.keep.as_ref(), batch_rows)?);
    }
    if streams.len() == 1 {
        return Ok(streams.remove(0));
    }
    let options = SortOptions { descending: false, nulls_first: true };
    let by = |name: &String| {
        let column = Column::new(name, narrow.index_of(name)?);
        Ok::<_, ArrowError>(PhysicalSortExpr::new(Arc::new(column), options))
    };
    let by: Vec<PhysicalSortExpr> = order.iter().map(by).collect::<Result<_, _>>()?;
    let by = LexOrdering::new(by).ok_or_else(|| DataFusionError::Internal("a file without an order".to_owned()))?;
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(narrow))
        .with_expressions(&by)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(*BATCH_ROWS.end())
        .with_reservation(MemoryConsumer::new("rewrite").register(&rules.pool))
        .build()
}
