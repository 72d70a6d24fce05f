//! Rewriting: published files of one table and date into one file, in order, with some rows left out.
//!
//! ```text
//!  file ─▶ Source ─▶ rows kept ─┐
//!  file ─▶ Source ─▶ rows kept ─┼─▶ merge by (site, entity…, time) ─▶ newest revision ─▶ encode ─▶ Sink ─▶ store
//!  file ─▶ Source ─▶ rows kept ─┘
//! ```
//!
//! Every file is sorted already (`encode.rs`), so rows are merged as they are decoded. The output is one sorted run, and so
//! its row groups do not overlap in that order. It is written as a commit's files are, with the table's newest columns.
//!
//! **Memory**: the inputs' bytes as they lie in the store (their checksums are proved before anything replaces them), one
//! batch and one page per column of each input decoded, the row group at work encoded, and a few parts on their way to
//! the store. So it is bounded by the bytes and the number of inputs, which the caller bounds, whatever number of rows: 60
//! inputs of 33,000 rows and 19 columns took 400 MiB (benches/, part `compact`), most of it pages.
//! Columns without a value in any input are not decoded and not merged.
//!
//! Nothing here says what counts (S1): the caller commits the new file to the Delta log in place of the old ones.

mod newest;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{SortOptions, max, min};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
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
use parquet::arrow::AsyncArrowWriter;
use parquet::errors::ParquetError;

use self::newest::Newest;
use self::sink::Sink;
pub(crate) use self::source::Source;
use crate::encode::{EncodeError, described, properties};
use crate::schema::TableSchema;
use crate::seal::Checksum;
use crate::store::{Store, StoreError};

/// Rows of all inputs that are decoded at once, shared out among them.
const ROWS_AT_ONCE: usize = 1 << 18;
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
    /// What merging accounts its memory to.
    pub(crate) pool: Arc<dyn MemoryPool>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) min_ts: Micros,
    pub(crate) max_ts: Micros,
    pub(crate) checksum: Checksum,
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

/// Writes the rows of `sources`, which are sorted alike, to `path`. `None`: no row is left, and nothing was written.
///
/// Takes one core. Dropped before its end it leaves nothing at `path`; where the end of the writing was not confirmed there may
/// be a file that nothing names.
pub(crate) async fn rewrite(
    store: &Store,
    path: &Path,
    table: (&str, &TableSchema),
    sources: &[Source],
    rules: &Rules,
) -> Result<Option<Rewritten>, RewriteError> {
    let (name, schema) = table;
    let rows = |reason: String| RewriteError::Rows { table: name.to_owned(), reason };
    let Some(order) = sources.first().map(|source| source.order.clone()) else { return Ok(None) };
    let narrow = columns_of(schema, sources, rules);
    let mut merged = merge(&narrow, schema, sources, &order, rules).map_err(|error| rows(error.to_string()))?;
    let mut newest = match rules.newest_only {
        true => Newest::of(schema, &narrow, &order).map_err(|error| rows(error.to_string()))?,
        false => None,
    };
    let mut output = Output::new(store, path, schema, sources, &order, rules);
    let done = async {
        while let Some(batch) = merged.try_next().await.map_err(|error| rows(error.to_string()))? {
            let batch = match &mut newest {
                Some(newest) => newest.push(batch).map_err(|error| rows(error.to_string()))?,
                None => batch,
            };
            output.write(batch).await.map_err(|failed| failed.told(name, path))?;
            // Others on this thread get their turn.
            tokio::task::yield_now().await;
        }
        let rest = newest.as_mut().map(Newest::finish).transpose().map_err(|error| rows(error.to_string()))?;
        if let Some(rest) = rest.flatten() {
            output.write(rest).await.map_err(|failed| failed.told(name, path))?;
        }
        Ok(())
    };
    match done.await {
        Ok(()) => output.finish().await.map_err(|failed| failed.told(name, path)),
        Err(error) => {
            output.abort().await;
            Err(error)
        }
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
    let batch_rows = (ROWS_AT_ONCE / sources.len().max(1)).clamp(*BATCH_ROWS.start(), *BATCH_ROWS.end());
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

/// Why writing failed.
enum Failed {
    Store(StoreError),
    Encode(EncodeError),
}

impl Failed {
    fn told(self, table: &str, path: &Path) -> RewriteError {
        match self {
            Failed::Store(error) => RewriteError::Store(error),
            Failed::Encode(EncodeError::Parquet(ParquetError::External(error))) => match error.downcast() {
                Ok(error) => RewriteError::Store(StoreError::new("write", path, *error)),
                Err(error) => RewriteError::Rows { table: table.to_owned(), reason: error.to_string() },
            },
            Failed::Encode(error) => RewriteError::Rows { table: table.to_owned(), reason: error.to_string() },
        }
    }
}

impl From<EncodeError> for Failed {
    fn from(error: EncodeError) -> Failed {
        Failed::Encode(error)
    }
}

impl From<ArrowError> for Failed {
    fn from(error: ArrowError) -> Failed {
        Failed::Encode(error.into())
    }
}

impl From<ParquetError> for Failed {
    fn from(error: ParquetError) -> Failed {
        Failed::Encode(error.into())
    }
}

/// The file being written; nothing before its first row.
struct Output<'a> {
    store: &'a Store,
    path: &'a Path,
    schema: &'a TableSchema,
    described: SchemaRef,
    order: &'a [String],
    bloom: BTreeSet<&'a str>,
    group_rows: usize,
    expected_rows: usize,
    writer: Option<AsyncArrowWriter<Sink>>,
    rows: u64,
    span: Option<(Micros, Micros)>,
}

impl<'a> Output<'a> {
    fn new(
        store: &'a Store,
        path: &'a Path,
        schema: &'a TableSchema,
        sources: &'a [Source],
        order: &'a [String],
        rules: &Rules,
    ) -> Output<'a> {
        let expected_rows = sources.iter().map(Source::rows).sum();
        Output {
            store,
            path,
            schema,
            described: described(&schema.columns, expected_rows),
            order,
            bloom: sources.iter().flat_map(|source| &source.bloom).map(String::as_str).collect(),
            group_rows: rules.group_rows,
            expected_rows,
            writer: None,
            rows: 0,
            span: None,
        }
    }

    async fn begin(&mut self) -> Result<AsyncArrowWriter<Sink>, Failed> {
        let keys: Vec<String> = self.order.iter().filter(|name| **name != self.schema.time_column).cloned().collect();
        let bloom: Vec<&str> = self.bloom.iter().copied().collect();
        // A filter is made for as many values as a row group has rows, and folded to what it really got.
        let most = self.group_rows.min(self.expected_rows);
        let time_column = &self.schema.time_column;
        let properties = properties(&self.described, &keys, time_column, &bloom, most, self.group_rows)?;
        let sink = Sink::create(self.store, self.path).await.map_err(Failed::Store)?;
        Ok(AsyncArrowWriter::try_new(sink, Arc::clone(&self.described), Some(properties))?)
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<(), Failed> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let rows = batch.num_rows();
        let whole = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
            batch.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows))
        };
        let columns: Vec<ArrayRef> = self.described.fields().iter().map(whole).collect();
        let times = batch.column_by_name(&self.schema.time_column);
        let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        if let Some((first, last)) = times.and_then(|times| Some((min(times)?, max(times)?))) {
            let (low, high) = self.span.unwrap_or((first, last));
            self.span = Some((first.min(low), last.max(high)));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.described), columns)?;
        if self.writer.is_none() {
            self.writer = Some(self.begin().await?);
        }
        if let Some(writer) = &mut self.writer {
            writer.write(&batch).await?;
        }
        self.rows += rows as u64;
        Ok(())
    }

    async fn finish(mut self) -> Result<Option<Rewritten>, Failed> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        writer.finish().await?;
        let (bytes, checksum) = writer.into_inner().written();
        let (min_ts, max_ts) = self.span.unwrap_or_default();
        Ok(Some(Rewritten { rows: self.rows, bytes, min_ts, max_ts, checksum }))
    }

    async fn abort(mut self) {
        if let Some(writer) = self.writer.take() {
            writer.into_inner().abort().await;
        }
    }
}
