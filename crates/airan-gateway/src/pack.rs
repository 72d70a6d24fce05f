//! From pieces of many requests to messages: one table per message, within the size a message may have.

use std::ops::Range;
use std::sync::Arc;

use airan_model::message::{MESSAGE_LIMITS, Rows};
use arrow::record_batch::RecordBatch;

use crate::layout::{Columns, Layout};

/// What no processor would take: it refuses to unpack more. A part of the limit is left for padding.
const READABLE_BYTES: usize = MESSAGE_LIMITS.bytes - (1 << 20);

/// Why some rows could not become a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum PackError {
    /// A single row is larger than a message may be.
    #[error("a row is larger than a message")]
    RowTooLarge,
    /// Arrow refused; with checked types it does not.
    #[error("rows cannot be encoded: {0}")]
    Encode(String),
}

/// A message, or why there is none, and the rows it is of: a range of all the rows that were packed, in their order.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Rows, counted through all pieces.
    pub rows: Range<usize>,
    /// The message.
    pub message: Result<Rows, PackError>,
}

/// Packs pieces, in their order, in as few messages as `message_max` bytes allow.
pub(crate) fn pack(layout: &Layout, pieces: &[&Columns], message_max: usize) -> Vec<Packed> {
    let mut packed = Vec::with_capacity(1);
    let rows = pieces.iter().map(|piece| piece.rows).sum();
    match layout.join(pieces) {
        Ok(table) => encode(&layout.stream.name, &table, 0, message_max, &mut packed),
        Err(error) => packed.push(Packed { rows: 0..rows, message: Err(PackError::Encode(error.to_string())) }),
    }
    packed
}

/// Encodes a table whose first row is row `start`, halving it until each message fits.
fn encode(stream: &Arc<str>, table: &RecordBatch, start: usize, message_max: usize, packed: &mut Vec<Packed>) {
    let rows = table.num_rows();
    let bytes: usize = table.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let is_readable = bytes <= READABLE_BYTES && rows <= MESSAGE_LIMITS.rows;
    let message = match Rows::encode(stream, table) {
        Ok(message) if message.payload.len() <= message_max && is_readable => Ok(message),
        Ok(_) if rows > 1 => {
            let half = rows / 2;
            encode(stream, &table.slice(0, half), start, message_max, packed);
            encode(stream, &table.slice(half, rows - half), start + half, message_max, packed);
            return;
        }
        Ok(_) => Err(PackError::RowTooLarge),
        Err(error) => Err(PackError::Encode(error.to_string())),
    };
    packed.push(Packed { rows: start..start + rows, message });
}
