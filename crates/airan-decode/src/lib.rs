//! Foreign bytes to typed rows: OTLP metrics and events, Prometheus text and remote write, NDJSON, Arrow.
//!
//! Every decoder turns one body into rows of the catalog's streams and a [`Tally`] that says what became of each sample. Nothing
//! here does I/O or reads a clock, and no bytes can make it panic or grow without bound.
//!
//! ```text
//!  otlp (protobuf, JSON)    ─┐
//!  prometheus, remote_write ─┴─▶ rows: plan (labels) ─▶ table (wide rows) or sample ─▶ Decoded
//!  ndjson, arrow_ipc        ─────────────────────────────────────────────────────────▶ Decoded
//!  accelerators (nvidia-smi, rocm-smi) ──────────────────────────────▶ Reading, of the agent
//! ```
//!
//! # Memory
//!
//! The body's size is the door's to limit. Decoders read it as a stream of borrowed slices and keep no tree of it: protobuf and
//! JSON point by point, text and NDJSON line by line. What they keep is bounded apart from the body: the rows by a budget of 32 MiB
//! of text and 4 Mi cells; a histogram's lines by 48 bytes each, as many as a scrape may have samples; an NDJSON line's keys by
//! 1,024, and a list in a gNB's frame by 4,096; Arrow by the body's own limit after decompression, checked before anything is
//! allocated. Together that is below 200 MiB for the worst body there can be, and about the size of the body for an honest one.

mod classic;
mod context;
mod exponential;
mod histogram;
mod labels;
mod number;
mod refusals;
mod rows;
mod wire;

pub mod accelerators;
pub mod arrow_ipc;
pub mod ndjson;
pub mod otlp;
pub mod prometheus;
pub mod remote_write;

pub use context::{Context, DecodeError, Decoded, DecodedRows, Refused, Tally};
pub use prometheus::TextFormat;
pub use remote_write::RemoteWrite;

#[cfg(test)]
mod coverage_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod mappings_tests;
#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod traps_tests;
