//! NDJSON: one row of a stream a line.

use crate::{Context, DecodeError, Decoded};

/// Reads rows, one JSON object a line. A bad line is refused on its own; the rest is kept.
pub fn decode(_body: &[u8], _context: &Context<'_>) -> Result<Decoded, DecodeError> {
    todo!()
}
