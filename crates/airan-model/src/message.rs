//! skeleton
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

pub use crate::ipc::{DecodeError, EncodeError};

/// What travels on the bus.
#[derive(Clone, Debug)]
pub enum Message {
    /// Rows of one stream.
    Rows(Rows),
    /// Time passes.
    Tick,
    /// Not ours or damaged: counted and rejected, never fatal.
    Foreign {
        /// What is wrong.
        reason: String,
        /// The payload as it came.
        payload: Bytes,
    },
}

/// Rows of one stream, encoded.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Fingerprint of the payload's schema.
    pub schema: u64,
    /// How many rows.
    pub rows: u64,
    /// One Arrow IPC stream, LZ4 buffers.
    pub payload: Bytes,
}

impl Rows {
    /// Encodes.
    pub fn encode(_stream: &Arc<str>, _batch: &RecordBatch) -> Result<Rows, EncodeError> { todo!() }
    /// Decodes.
    pub fn decode(&self) -> Result<RecordBatch, DecodeError> { todo!() }
}

impl Message {
    /// Headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> { todo!() }
    /// From headers.
    pub fn from_headers<'a>(_headers: impl Iterator<Item = (&'a str, &'a [u8])>, _payload: Bytes) -> Message { todo!() }
}
