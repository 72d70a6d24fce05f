//! The files that one sorted run becomes: each begun with its first row, and ended where it has its share.
//!
//! How large a run will be is estimated from what its rows have taken so far. Looked at first when a file has half of what it
//! may have: what is in it and what is expected to come is then shared out among as few files as can hold it, so the last one
//! is about as large as the others, and none is smaller than half of the most.

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{max, min};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::errors::ParquetError;

use super::sink::Sink;
use super::{RewriteError, Rewritten, Rules, Source};
use crate::encode::{EncodeError, described, properties};
use crate::schema::TableSchema;
use crate::span::{Edge, Span};
use crate::store::{Store, StoreError};

/// Looks at its size while a file grows to the most it may have.
const LOOKS: u64 = 32;
/// Most rows between two looks.
const MOST_ROWS: u64 = 8_192;

/// Why writing failed.
#[derive(Debug)]
enum Failed {
    Store(StoreError),
    Encode(EncodeError),
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

/// What the store said; anything else as it is. The writer wraps some errors of its sink once more.
fn of_store(error: ParquetError) -> Result<object_store::Error, ParquetError> {
    match error {
        ParquetError::External(error) => match error.downcast::<ParquetError>() {
            Ok(error) => of_store(*error),
            Err(error) => error.downcast().map(|error| *error).map_err(ParquetError::External),
        },
        error => Err(error),
    }
}

/// See the module.
pub(super) struct Output<'a> {
    store: &'a Store,
    name: &'a (dyn Fn() -> Path + Send + Sync),
    table: &'a str,
    schema: &'a TableSchema,
    described: SchemaRef,
    /// The columns it is sorted by, without that of the time.
    keys: Vec<String>,
    bloom: BTreeSet<&'a str>,
    group_rows: usize,
    file_bytes: u64,
    /// Rows of all files at most.
    expected_rows: u64,
    /// Rows between two looks at a file's size.
    step: usize,
    file: Option<File>,
    made: Vec<Rewritten>,
}

/// The file at work.
struct File {
    path: Path,
    writer: AsyncArrowWriter<Sink>,
    rows: u64,
    span: Option<(Micros, Micros)>,
    first: Option<Edge>,
    last: Option<Edge>,
    /// Its size at the next look.
    look: u64,
    /// Where it ends.
    end: Option<u64>,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        store: &'a Store,
        name: &'a (dyn Fn() -> Path + Send + Sync),
        (table, schema): (&'a str, &'a TableSchema),
        sources: &'a [Source],
        order: &'a [String],
        rules: &Rules,
    ) -> Output<'a> {
        let expected_rows: usize = sources.iter().map(Source::rows).sum();
        let bytes: u64 = sources.iter().map(Source::size).sum();
        let each = (bytes / (expected_rows as u64).max(1)).max(1);
        let step = (rules.file_bytes / LOOKS / each).clamp(1, MOST_ROWS);
        Output {
            store,
            name,
            table,
            schema,
            described: described(&schema.columns, expected_rows),
            keys: order.iter().filter(|name| **name != schema.time_column).cloned().collect(),
            bloom: sources.iter().flat_map(|source| &source.bloom).map(String::as_str).collect(),
            group_rows: rules.group_rows,
            file_bytes: rules.file_bytes,
            expected_rows: expected_rows as u64,
            step: usize::try_from(step).unwrap_or(1),
            file: None,
            made: Vec::new(),
        }
    }

    /// Takes the next rows.
    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<(), RewriteError> {
        for from in (0..batch.num_rows()).step_by(self.step) {
            let rows = batch.slice(from, self.step.min(batch.num_rows() - from));
            let done = self.write_rows(&rows).await;
            done.map_err(|failed| self.told(failed))?;
            if self.is_full() {
                self.finish().await?;
            }
        }
        Ok(())
    }

    /// Ends the file at work, if there is one.
    pub(super) async fn finish(&mut self) -> Result<(), RewriteError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let done = file.writer.finish().await;
        done.map_err(|error| self.told(error.into()))?;
        if let Some(file) = self.file.take() {
            let (bytes, checksum) = file.writer.into_inner().written();
            let (min_ts, max_ts) = file.span.unwrap_or_default();
            let edges = file.first.zip(file.last);
            let span = edges.map(|(first, last)| Span { by: self.keys.clone(), first, last });
            self.made.push(Rewritten { path: file.path, rows: file.rows, bytes, min_ts, max_ts, checksum, span });
        }
        Ok(())
    }

    /// The files, in the order of their rows.
    pub(super) fn made(self) -> Vec<Rewritten> {
        self.made
    }

    /// Takes back what was written, as far as the store answers.
    pub(super) async fn abort(self) {
        if let Some(file) = self.file {
            file.writer.into_inner().abort().await;
        }
        for made in self.made {
            if let Err(error) = self.store.remove(&made.path).await {
                tracing::debug!(%error, "a file that nothing names stays until vacuum finds it");
            }
        }
    }

    fn told(&self, failed: Failed) -> RewriteError {
        let path = || self.file.as_ref().map(|file| file.path.to_string()).unwrap_or_default();
        let rows = |reason: String| RewriteError::Rows { table: self.table.to_owned(), reason };
        match failed {
            Failed::Store(error) => RewriteError::Store(error),
            Failed::Encode(EncodeError::Parquet(error)) => match of_store(error) {
                Ok(error) => RewriteError::Store(StoreError::new("write", path(), error)),
                Err(error) => rows(error.to_string()),
            },
            Failed::Encode(error) => rows(error.to_string()),
        }
    }

    async fn begin(&mut self) -> Result<File, Failed> {
        let bloom: Vec<&str> = self.bloom.iter().copied().collect();
        // A filter is made for as many values as a row group has rows, and folded to what it really got.
        let most = self.group_rows.min(usize::try_from(self.expected_rows).unwrap_or(usize::MAX));
        let time_column = &self.schema.time_column;
        let properties = properties(&self.described, &self.keys, time_column, &bloom, most, self.group_rows)?;
        let path = (self.name)();
        let sink = Sink::create(self.store, &path).await.map_err(Failed::Store)?;
        let writer = AsyncArrowWriter::try_new(sink, Arc::clone(&self.described), Some(properties))?;
        Ok(File { path, writer, rows: 0, span: None, first: None, last: None, look: self.file_bytes / 2, end: None })
    }

    async fn write_rows(&mut self, batch: &RecordBatch) -> Result<(), Failed> {
        let rows = batch.num_rows();
        let whole = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
            batch.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows))
        };
        let columns: Vec<ArrayRef> = self.described.fields().iter().map(whole).collect();
        let times = batch.column_by_name(&self.schema.time_column);
        let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let batch = RecordBatch::try_new(Arc::clone(&self.described), columns)?;
        if self.file.is_none() {
            self.file = Some(self.begin().await?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.writer.write(&batch).await?;
        let edge = |row: usize| Edge::of(&batch, &self.keys, &self.schema.time_column, row);
        if file.rows == 0 {
            file.first = edge(0);
        }
        file.last = edge(rows - 1);
        file.rows += rows as u64;
        if let Some((first, last)) = times.and_then(|times| Some((min(times)?, max(times)?))) {
            let (low, high) = file.span.unwrap_or((first, last));
            file.span = Some((first.min(low), last.max(high)));
        }
        Ok(())
    }

    /// Whether the file at work has its share.
    fn is_full(&mut self) -> bool {
        let Some(file) = &mut self.file else { return false };
        let here = (file.writer.bytes_written() + file.writer.in_progress_size()) as u64;
        if file.end.is_none() && here >= file.look {
            let (rows, bytes) =
                self.made.iter().fold((file.rows, here), |(r, b), made| (r + made.rows, b + made.bytes));
            let left = u128::from(self.expected_rows.saturating_sub(rows));
            let rest = u64::try_from(u128::from(bytes) * left / u128::from(rows.max(1))).unwrap_or(u64::MAX);
            let whole = here.saturating_add(rest);
            let files = whole.div_ceil(self.file_bytes);
            // Less than that is not worth a file, and may be the error of the estimate.
            if files > 1 && rest >= self.file_bytes / 4 {
                file.end = Some(whole / files);
            } else {
                file.look = here + self.file_bytes / 4;
            }
        }
        file.end.is_some_and(|end| here >= end)
    }
}
