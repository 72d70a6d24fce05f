//! Foreign bytes to typed rows: OTLP, Prometheus text, NDJSON, Arrow.
//!
//! Every decoder turns one body into rows of the catalog's streams and a [`Tally`] that says what became of each sample. Nothing
//! here does I/O or reads a clock, and no bytes can make it panic or grow without bound.

mod context;
mod histogram;
mod labels;
mod number;
mod refusals;
mod rows;

pub mod arrow_ipc;
pub mod ndjson;
pub mod otlp;
pub mod prometheus;

pub use context::{Context, DecodeError, Decoded, DecodedRows, Refused, Tally};
pub use prometheus::TextFormat;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod testing;
