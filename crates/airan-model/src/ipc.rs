//! skeleton
use arrow::array::RecordBatch;
use bytes::Bytes;

/// Limits on a decoded Arrow IPC stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcLimits {
    /// Bytes of all buffers together, decompressed.
    pub bytes: usize,
    /// Rows of all batches together.
    pub rows: usize,
    /// Columns, nested ones counted.
    pub columns: usize,
    /// Nesting of types.
    pub depth: usize,
}
/// Why bytes are no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError { /// x
#[error("{0}")] Malformed(String), /// x
#[error("{0}")] TooLarge(String) }
/// Why rows could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub String);
/// One Arrow IPC stream with LZ4_FRAME buffers; columns without a value are left out, and so is all metadata.
pub fn encode(_rows: &RecordBatch) -> Result<Bytes, EncodeError> { todo!() }
/// Reads one Arrow IPC stream; never panics, whatever the bytes are; batches are joined to one.
pub fn decode(_body: &Bytes, _limits: &IpcLimits) -> Result<RecordBatch, DecodeError> { todo!() }
