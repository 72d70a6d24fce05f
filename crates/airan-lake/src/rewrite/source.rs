//! One file that is read to be written again: its bytes, or where they lie, and what its footer says of its rows.
//!
//! Of a file whose bytes are not held a slice is read at a time, about [`SLICE_BYTES`]: the pages of some rows and their
//! dictionaries, as the offset index of the file tells. A slice ends where pages do, so each page is read once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

use super::Keep;
use crate::encode::PAGE_ROWS;
use crate::schema::TableSchema;
use crate::store::{Store, StoreError};

/// Bytes of one slice, where rows are not so wide that a page of each column takes more.
const SLICE_BYTES: u64 = 1 << 20;
/// Most pages of a column in a slice.
const SLICE_PAGES: u64 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its place.
    pub(crate) path: String,
    content: Content,
    metadata: ArrowReaderMetadata,
    /// The columns its rows are sorted by, the time column last.
    pub(super) order: Vec<String>,
    /// Columns with a bloom filter.
    pub(super) bloom: BTreeSet<String>,
    /// Columns that have a value in some row.
    pub(super) filled: BTreeSet<String>,
}

#[derive(Clone, Debug)]
enum Content {
    Held(Bytes),
    Stored(Stored),
}

/// A file that stays in the store and is read piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) store: Store,
    /// Where it lies.
    pub(crate) path: Path,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Source {
    /// Reads the footer of `bytes`, and keeps them.
    pub(crate) fn open(path: &str, bytes: Bytes) -> Result<Source, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?;
        Ok(Source::new(path, Content::Held(bytes), metadata))
    }

    /// Reads the footer of a file and its offset index. `None`: it has no such index, so that pages cannot be found.
    pub(crate) async fn open_stored(path: &str, mut stored: Stored) -> Result<Option<Source>, ParquetError> {
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load_async(&mut stored, options).await?;
        let is_indexed = metadata.metadata().offset_index().is_some();
        Ok(is_indexed.then(|| Source::new(path, Content::Stored(stored), metadata)))
    }

    fn new(path: &str, content: Content, metadata: ArrowReaderMetadata) -> Source {
        let footer = Arc::clone(metadata.metadata());
        Source {
            path: path.to_owned(),
            content,
            order: order(&footer),
            bloom: chunks(&footer).filter(|chunk| chunk.bloom_filter_offset().is_some()).map(root).collect(),
            filled: chunks(&footer).filter(|chunk| !is_empty(chunk)).map(root).collect(),
            metadata,
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &Bytes {
        let Content::Held(bytes) = &self.content else { panic!("{} is not held", self.path) };
        bytes
    }

    pub(super) fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// Size of the file.
    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::Held(bytes) => bytes.len() as u64,
            Content::Stored(stored) => stored.bytes,
        }
    }

    /// Whether rows sorted as this file's are also sorted by `order`: columns of `order` that it does not have are all null.
    pub(super) fn follows(&self, order: &[String]) -> bool {
        let has = |name: &&String| self.filled.contains(*name);
        order.iter().filter(has).eq(self.order.iter().filter(has))
    }

    /// The rows that `keep` keeps, in order, with exactly the columns of `schema`.
    pub(super) fn rows_as(
        &self,
        schema: &SchemaRef,
        table: &TableSchema,
        keep: Option<&Keep>,
        batch_rows: usize,
    ) -> Result<SendableRecordBatchStream, ParquetError> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let known = self.metadata.schema();
        let roots: Vec<usize> = names.filter_map(|name| known.index_of(name).ok()).collect();
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let narrow = TableSchema { columns: Arc::clone(schema), ..table.clone() };
        let (schema, keep) = (Arc::clone(schema), keep.cloned());
        let told = Arc::clone(&schema);
        let batches = self.batches(mask, batch_rows)?.map(move |batch| {
            let columns = narrow.conform(&batch?).map_err(|error| DataFusionError::External(error.into()))?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            match &keep {
                None => Ok(batch),
                Some(keep) => {
                    let stays = keep.of(&batch).map_err(|error| DataFusionError::External(error.into()))?;
                    Ok(filter_record_batch(&batch, &stays)?)
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(told, batches)))
    }

    fn batches(
        &self,
        mask: ProjectionMask,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch, DataFusionError>>, ParquetError> {
        let metadata = self.metadata.clone();
        match &self.content {
            Content::Held(bytes) => {
                let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata);
                let reader = reader.with_projection(mask).with_batch_size(batch_rows).build()?;
                Ok(futures::stream::iter(reader.map(|batch| batch.map_err(DataFusionError::from))).boxed())
            }
            Content::Stored(stored) => {
                let stored = stored.clone();
                let one = move |(group, skipped, rows): (usize, usize, usize)| {
                    let only = vec![RowSelector::skip(skipped), RowSelector::select(rows)];
                    ParquetRecordBatchStreamBuilder::new_with_metadata(stored.clone(), metadata.clone())
                        .with_projection(mask.clone())
                        .with_batch_size(batch_rows)
                        .with_row_groups(vec![group])
                        .with_row_selection(RowSelection::from(only))
                        .build()
                };
                Ok(futures::stream::iter(self.slices()).map(one).try_flatten().map_err(as_read).boxed())
            }
        }
    }

    /// The file's rows in slices, as (row group, rows before them in it, rows).
    fn slices(&self) -> Vec<(usize, usize, usize)> {
        let page_bytes = self.size() * PAGE_ROWS as u64 / (self.rows() as u64).max(1);
        let pages = (SLICE_BYTES / page_bytes.max(1)).clamp(1, SLICE_PAGES);
        let most = PAGE_ROWS * usize::try_from(pages).unwrap_or(1);
        let groups = self.metadata.metadata().row_groups().iter().enumerate();
        let of_group = |(at, group): (usize, &RowGroupMetaData)| {
            let rows = usize::try_from(group.num_rows()).unwrap_or_default();
            (0..rows).step_by(most).map(move |from| (at, from, most.min(rows - from)))
        };
        groups.flat_map(of_group).collect()
    }
}

/// What the store said comes out again as it went in.
fn as_read(error: ParquetError) -> DataFusionError {
    match error {
        ParquetError::External(error) => DataFusionError::External(error),
        error => error.into(),
    }
}

impl AsyncFileReader for Stored {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { Ok(self.get_byte_ranges(vec![range]).await?.pop().unwrap_or_default()) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let read = self.store.ranges(&self.path, ranges).await;
            read.map_err(|error: StoreError| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let policy = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::offset_index_policy);
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new().with_offset_index_policy(policy);
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

fn chunks(footer: &ParquetMetaData) -> impl Iterator<Item = &ColumnChunkMetaData> {
    footer.row_groups().iter().flat_map(|group| group.columns())
}

/// The table's column that a chunk is of, or of which it is a part.
fn root(chunk: &ColumnChunkMetaData) -> String {
    chunk.column_path().parts().first().cloned().unwrap_or_default()
}

/// Whether a chunk is known to hold no value.
fn is_empty(chunk: &ColumnChunkMetaData) -> bool {
    let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
    nulls.is_some_and(|nulls| i64::try_from(nulls).is_ok_and(|nulls| nulls == chunk.num_values()))
}

fn order(footer: &ParquetMetaData) -> Vec<String> {
    let columns = footer.file_metadata().schema_descr();
    let sorted_by = footer.row_groups().first().and_then(|group| group.sorting_columns());
    let name = |at: i32| columns.columns().get(usize::try_from(at).ok()?)?.path().parts().first().cloned();
    sorted_by.into_iter().flatten().filter_map(|column| name(column.column_idx)).collect()
}
