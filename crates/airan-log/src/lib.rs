//! The durable segment log on disk.
//!
//! A [`Log`] is one folder of segment files. [`Log::append`] returns when its records are on disk: one `fdatasync` for all the
//! records of a call. [`Log::read`] gives records from an offset on, [`Log::expire`] removes old segments, and opening repairs
//! what a crash or a bad disk left behind. Offsets are given once and never again.
//!
//! ```text
//! folder/00000000000000000000.log   segment: header, then records       (sealed)
//! folder/00000000000000001234.log   named by the first offset it may hold (active: the last one)
//! ```
//!
//! Invariants that code and tests cite:
//!
//! - **L1** a record is readable only when it is on disk, and on disk before `append` returns. What a process that died left
//!   behind is synced before it is read;
//! - **L2** a damaged byte costs at most the record it lies in, the loss is counted, and the offsets of all others stay;
//! - **L3** an offset that was ever acknowledged is never given to another record;
//! - **L4** a segment is removed only when every offset in it is below the one the caller still needs.
//!
//! A power loss costs at most what no `append` had acknowledged: `tests/power.rs` is the disk that shows it.
//!
//! Calls block on the disk, so async callers give the log a thread. Payloads are opaque. No clock is read: a record's append time
//! is an argument. One process at a time may hold a log open; the caller sees to that.

// `tests/power_log.rs` is included by other crates too, and says `airan_log` here as there.
#[cfg(test)]
extern crate self as airan_log;

mod device;
#[cfg(test)]
#[path = "../../../tests/dice.rs"]
mod dice;
mod disk;
mod error;
mod log;
mod open;
mod peek;
#[cfg(test)]
#[path = "../../../tests/power.rs"]
mod power;
#[cfg(test)]
#[path = "../../../tests/power_log.rs"]
mod power_log;
#[cfg(test)]
mod power_tests;
mod record;
mod scan;
mod segment;
#[cfg(test)]
mod upgrade_tests;

pub use device::{Device, Site};
pub use disk::create_folder;
pub use error::{AppendError, OpenError, ReadError};
pub use log::{Batch, Expired, Log, NewRecord, Options, Record, Retention};
pub use open::Repair;
pub use peek::Peek;
pub use record::{BODY_MAX, RECORD_OVERHEAD};
