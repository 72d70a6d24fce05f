//! Rows as one Arrow IPC stream: the payload of bus messages and of the agent's uplink.
//!
//! Reading never trusts the bytes. [`check`] looks at every length, count and compressed block before arrow's own reader sees
//! them, so that hostile bytes cost neither a panic nor memory beyond [`IpcLimits`]; arrow then validates offsets and UTF-8.

mod check;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, MessageHeader, MetadataVersion, reader, root_as_message};
use bytes::Bytes;

/// Buffers start at multiples of this, bytes. The smallest arrow allows, because most columns of a message are small.
const ALIGNMENT: usize = 8;

/// Limits on one decoded stream. All batches of it count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcLimits {
    /// Bytes of all buffers, decompressed.
    pub bytes: usize,
    /// Rows.
    pub rows: usize,
    /// Columns, with the children of nested ones.
    pub columns: usize,
    /// Nesting of types: 1 for a plain column.
    pub depth: usize,
}

/// Why bytes are no rows. The bytes are to be refused; sending them again will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They do not follow the format.
    #[error("malformed arrow ipc stream: {0}")]
    Malformed(String),
    /// They follow the format but use a part of it that is not read: dictionaries, unsigned numbers, views …
    #[error("unsupported arrow ipc stream: {0}")]
    Unsupported(String),
    /// They hold more than a limit allows.
    #[error("arrow ipc stream over its limit: {0}")]
    TooLarge(String),
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write rows as arrow ipc")]
pub struct EncodeError(#[from] arrow::error::ArrowError);

/// Writes one Arrow IPC stream with LZ4_FRAME buffers.
///
/// Columns without a value are left out, and so is all metadata: descriptions stay in the catalog.
pub fn encode(rows: &RecordBatch) -> Result<Bytes, EncodeError> {
    let sparse = without_empty_columns(rows)?;
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?
        .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &sparse.schema(), options)?;
    writer.write(&sparse)?;
    writer.finish()?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn without_empty_columns(rows: &RecordBatch) -> Result<RecordBatch, EncodeError> {
    let schema = rows.schema_ref();
    let full = schema.fields().iter().zip(rows.columns()).filter(|(_, column)| column.null_count() < column.len());
    let (fields, columns): (Vec<Field>, Vec<_>) = full
        .map(|(field, column)| (Field::new(field.name(), field.data_type().clone(), true), Arc::clone(column)))
        .unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// Reads one Arrow IPC stream; several batches become one.
///
/// Never panics, whatever the bytes are, and holds at most `limits.bytes` of decompressed data twice. Metadata is dropped and
/// every column is nullable. Without a batch the result has no rows.
pub fn decode(body: &Bytes, limits: &IpcLimits) -> Result<RecordBatch, DecodeError> {
    let read = catch_unwind(AssertUnwindSafe(|| read_stream(body, limits)));
    read.unwrap_or_else(|_| Err(DecodeError::Malformed("the reader gave up on it".to_owned())))
}

fn read_stream(body: &Bytes, limits: &IpcLimits) -> Result<RecordBatch, DecodeError> {
    let buffer = Buffer::from(body.clone());
    let dictionaries = HashMap::new();
    let mut budget = check::Budget::new(limits);
    let mut schema: Option<SchemaRef> = None;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut at = 0;
    while let Some(frame) = check::next_frame(body, at)? {
        let message = root_as_message(&body[frame.metadata.clone()])
            .map_err(|error| DecodeError::Malformed(format!("message header: {error}")))?;
        let content = check::content(&message, frame.metadata.end, body.len())?;
        at = content.end;
        match (message.header_type(), &schema) {
            (MessageHeader::Schema, None) => {
                let header =
                    message.header_as_schema().ok_or_else(|| check::malformed("no schema in schema message"))?;
                schema = Some(check::schema(&header, limits)?);
            }
            (MessageHeader::RecordBatch, Some(schema)) => {
                let header =
                    message.header_as_record_batch().ok_or_else(|| check::malformed("no batch in batch message"))?;
                check::batch(&header, schema, &body[content.clone()], &mut budget)?;
                let data = buffer.slice_with_length(content.start, content.len());
                let version = message.version();
                let batch = reader::read_record_batch(&data, header, Arc::clone(schema), &dictionaries, None, &version)
                    .map_err(|error| DecodeError::Malformed(error.to_string()))?;
                batches.push(batch);
            }
            (MessageHeader::DictionaryBatch, _) => {
                return Err(DecodeError::Unsupported("dictionary-encoded columns: send plain ones".to_owned()));
            }
            (other, _) => return Err(check::malformed(&format!("a message of type {} out of place", other.0))),
        }
    }
    let schema = schema.ok_or_else(|| check::malformed("no schema"))?;
    match batches.len() {
        0 => Ok(RecordBatch::new_empty(schema)),
        1 => batches.pop().ok_or_else(|| check::malformed("no batch")),
        _ => concat_batches(&schema, &batches).map_err(|error| DecodeError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
