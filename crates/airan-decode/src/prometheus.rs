//! Prometheus text 0.0.4 and OpenMetrics 1.0.

use crate::{Context, DecodeError, Decoded};

/// Which text it is, as the endpoint's content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Text format 0.0.4, read as leniently as Prometheus does.
    Prometheus004,
    /// OpenMetrics 1.0, read strictly.
    OpenMetrics,
}

/// Reads one scrape.
pub fn decode(_text: &[u8], _format: TextFormat, _context: &Context<'_>) -> Result<Decoded, DecodeError> {
    todo!()
}
