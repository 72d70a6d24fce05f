//! What goes into every decoder and what comes out of it.

use std::sync::Arc;

use airan_model::catalog::{Catalog, Stream};
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use airan_model::time::Micros;
use arrow::array::RecordBatch;

/// What a decoder has to know besides the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Streams, mappings and field classes.
    pub catalog: &'a Catalog,
    /// Limits on what a stranger may send.
    pub limits: &'a Limits,
    /// The node of rows that name none.
    pub default_node: &'a str,
    /// The time of samples without one.
    pub now: Micros,
}

/// Rows of one stream as decoded.
///
/// Columns: `ts`, `node`, and where any row has one `start_ts`, entity columns, value columns (of delta sources also
/// `<c>_increase` and `<c>_increase_seconds`) and `attributes`. Rows from an agent or from NDJSON may carry more of the
/// envelope. Columns without any value are left out.
#[derive(Clone, Debug)]
pub struct DecodedRows {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its rows.
    pub rows: RecordBatch,
}

/// What a body held.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Rows by stream, each stream at most once, none empty.
    pub rows: Vec<DecodedRows>,
    /// What became of the samples.
    pub tally: Tally,
    /// What was refused sample by sample, by reason.
    pub refused: Vec<Refused>,
}

/// What became of a body's samples: `samples = sentinels + columns + sample_rows + refused`.
///
/// A sample is a line of text, an OTLP data point or log record, a sample or native histogram of remote write, a line of NDJSON, a number of a gNB's
/// frame or a row of Arrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples there were.
    pub samples: u64,
    /// Samples that say "no value": sentinels of the mapping, NaN, OTLP's "no recorded value". They become null.
    pub sentinels: u64,
    /// Samples that filled columns of known streams. Each of a histogram's lines counts.
    pub columns: u64,
    /// Samples that became rows of `sample`. Each of a histogram's lines counts.
    pub sample_rows: u64,
    /// Labels dropped because they name a subscriber, once a sample.
    pub dropped_fields: u64,
    /// Exemplars left out by rule, for their labels name traces and may name subscribers.
    pub exemplars: u64,
    /// Events whose body was left out by rule, whole or but for the fields that the catalog names.
    pub bodies: u64,
    /// Samples refused: see [`Decoded::refused`].
    pub refused: u64,
    /// Of the samples, native histograms of remote write that were not refused: its answers count them apart.
    pub histograms: u64,
    /// Some rows had no time of their own and got [`Context::now`].
    pub no_time: bool,
}

impl Tally {
    /// Adds what became of other samples of the same body.
    pub(crate) fn add(&mut self, other: &Tally) {
        let Tally {
            samples,
            sentinels,
            columns,
            sample_rows,
            dropped_fields,
            exemplars,
            bodies,
            refused,
            histograms,
            no_time,
        } = *other;
        self.samples += samples;
        self.sentinels += sentinels;
        self.columns += columns;
        self.sample_rows += sample_rows;
        self.dropped_fields += dropped_fields;
        self.exemplars += exemplars;
        self.bodies += bodies;
        self.refused += refused;
        self.histograms += histograms;
        self.no_time |= no_time;
    }
}

/// Samples refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first of them: what and where. Never holds a label's value.
    pub example: String,
}

/// Why a whole body was refused. Sending it again will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The cause, for counters.
    pub reason: Reason,
    /// The cause and its place in words. Never holds a label's value.
    pub message: String,
    /// The place: `line 3, column 7`, `point 12`, an offset.
    pub position: Option<String>,
}
