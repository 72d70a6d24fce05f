//! One file that is read to be written again: its bytes, and what its footer says of its rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::Keep;
use crate::schema::TableSchema;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its place.
    pub(crate) path: String,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    /// The columns its rows are sorted by, the time column last.
    pub(super) order: Vec<String>,
    /// Columns with a bloom filter.
    pub(super) bloom: BTreeSet<String>,
    /// Columns that have a value in some row.
    pub(super) filled: BTreeSet<String>,
}

impl Source {
    /// Reads the footer of `bytes`.
    pub(crate) fn open(path: &str, bytes: Bytes) -> Result<Source, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?;
        let footer = Arc::clone(metadata.metadata());
        Ok(Source {
            path: path.to_owned(),
            bytes,
            order: order(&footer),
            bloom: chunks(&footer).filter(|chunk| chunk.bloom_filter_offset().is_some()).map(root).collect(),
            filled: chunks(&footer).filter(|chunk| !is_empty(chunk)).map(root).collect(),
            metadata,
        })
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
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
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone());
        let known = self.metadata.schema();
        let roots: Vec<usize> = names.filter_map(|name| known.index_of(name).ok()).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder.with_projection(mask).with_batch_size(batch_rows).build()?;
        let narrow = TableSchema { columns: Arc::clone(schema), ..table.clone() };
        let (schema, keep) = (Arc::clone(schema), keep.cloned());
        let told = Arc::clone(&schema);
        let batches = reader.map(move |batch| {
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
        Ok(Box::pin(RecordBatchStreamAdapter::new(told, futures::stream::iter(batches))))
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
