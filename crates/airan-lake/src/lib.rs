//! The lake: the only writer of Parquet, and the place where progress is decided.
//!
//! ```text
//!  shard ──Commit──▶ writer ──▶ encode (order, schema) ──▶ files ──▶ state ──▶ record n ──▶ names
//!    ▲                                                  (create-only)      (put-if-absent)  (local disk:
//!    └──Recovered── claim: newest record, next one as a claim, state, rows of open windows   out of _staging)
//!
//!                                                                  │
//!                                     publish: one Delta commit per table, then records are trimmed
//!                                                                  ▼
//!  readers ──▶ files: Delta state + records above its txn ──▶ SQL tables, rebuild, check, expire
//!                                                                  │
//!                                     settle: names and bytes of what no longer counts go
//! ```
//!
//! It keeps three invariants, cited by name in code and tests:
//!
//! - **K1** Commit records are the only truth about progress: offsets, state and files of a shard are what its newest
//!   record says, whatever else lies in the store.
//! - **K2** Record `n` of a shard is created by exactly one claim. Whoever finds `n` taken reads it: its own bytes mean
//!   that it had succeeded, another's that it is fenced. An unknown outcome is resolved by reading, never by guessing.
//! - **S1** A Parquet file counts only if the Delta log of its table names it, or a commit record above the table's `txn`.
//!
//! What lies where: the text at the top of `layout.rs`. The protocol, step by step, with what a crash at each leaves
//! behind: `PROTOCOL.md` in this crate's folder.

mod check;
mod claim;
mod commit;
mod compact;
mod delta;
#[cfg(test)]
#[path = "../../../tests/dice.rs"]
mod dice;
mod disk;
mod durable;
mod encode;
mod erase;
mod expire;
#[cfg(test)]
mod faults;
mod files;
mod head;
mod kept;
mod lake;
mod layout;
mod lost;
mod metrics;
mod order;
mod place;
#[cfg(test)]
#[path = "../../../tests/power.rs"]
mod power;
#[cfg(test)]
mod power_tests;
mod publish;
mod record;
mod requests;
mod rewrite;
#[cfg(test)]
mod s3_tests;
mod schema;
mod seal;
mod settings;
mod settle;
mod snapshot;
mod span;
mod sql;
mod store;
#[cfg(test)]
mod testing;
mod trim;
mod uploads;
mod writer;

pub use check::{CheckReport, Problem, Repair};
pub use claim::{ClaimError, Recovered};
pub use commit::{Commit, CommitError, CommitSummary, TableKind, TableRows};
pub use compact::{CompactReport, PlannedMerge};
pub use erase::{Affected, EraseError, EraseReport, ErasedTable, ErasedWindows, Erasure, Series, SeriesOf};
pub use expire::ExpireReport;
pub use files::{FileEntry, RawRows};
pub use head::Head;
pub use lake::Lake;
pub use metrics::LakeMetrics;
pub use publish::PublishReport;
pub use record::ReadError;
pub use requests::{Request, RequestError, RequestReason};
pub use schema::SchemaError;
pub use seal::{Checksum, Damaged};
pub use settings::{CompactionSettings, LakeSettings};
pub use sql::{QueryError, Registered};
pub use store::{OpenLakeError, StoreError};
pub use writer::ShardWriter;
