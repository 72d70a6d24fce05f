//! From a message to rows: decode, conform to the stream, check what every row must have.

use airan_model::catalog::{Catalog, Stream};
use airan_model::message::Rows;
use airan_model::reject::Reason;
use airan_model::schema;
use arrow::array::{Array, RecordBatch};

/// Columns no row may be without: they decide where it goes.
const NEEDED: [&str; 3] = [schema::TS, schema::SITE, schema::NODE];

/// Why a message is refused as a whole. It is counted and recorded, and the shard goes on.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    pub reason: Reason,
    pub detail: String,
}

/// Whether a processor with this catalog takes a message; otherwise why not, in a line.
///
/// # Errors
/// What it would refuse it for.
pub fn can_read(catalog: &Catalog, message: &Rows) -> Result<(), String> {
    let Some(stream) = catalog.stream(&message.stream) else {
        return Err(format!("no stream `{}` in this catalog", message.stream));
    };
    open(stream, message).map(drop).map_err(|refused| format!("{}: {}", refused.reason, refused.detail))
}

/// The rows of a message in the columns of their stream.
pub(crate) fn open(stream: &Stream, message: &Rows) -> Result<RecordBatch, Refused> {
    let refused = |reason: Reason, detail: String| Refused { reason, detail };
    let decoded = message.decode().map_err(|error| refused(Reason::Malformed, error.to_string()))?;
    let rows = stream.conform(&decoded).map_err(|error| refused(Reason::WrongType, error.to_string()))?;
    for name in NEEDED {
        if rows.column_by_name(name).is_none_or(|column| column.null_count() > 0) {
            let reason = if name == schema::TS { Reason::BadTime } else { Reason::Malformed };
            return Err(refused(reason, format!("rows without `{name}`")));
        }
    }
    Ok(rows)
}
