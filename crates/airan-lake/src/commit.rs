//! What a shard hands to the lake in one commit, and what it gets back.

use airan_model::time::Micros;
use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::schema::SchemaError;
use crate::store::StoreError;

/// Everything a shard wants to become true at once. Handed over by reference: after an error the caller still has it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The first offset of the partition that is *not* in this commit.
    pub next_offset: i64,
    /// Rows by table; a table named twice is written as two files. Tables without rows are skipped.
    pub tables: Vec<TableRows>,
    /// The shard state, opaque to the lake.
    pub state: Bytes,
    /// Raw rows from this time on may be needed to rebuild the shard's windows, so retention leaves them; `Micros::MAX` if none
    /// are. Absent: as the commit before said, or not known, and then retention leaves everything.
    pub needed_from: Option<Micros>,
}

/// Rows for one table.
#[derive(Clone, Debug)]
pub struct TableRows {
    /// Name of the table: lower-case letters, digits and `_`, first a letter.
    pub table: String,
    /// What the table holds; fixed when the table is first written.
    pub kind: TableKind,
    /// Rows in any order; batches may differ in columns (missing ones become null), not in a column's type.
    pub batches: Vec<RecordBatch>,
    /// Columns the rows are sorted by before the time column: `site`, then the entity. Missing ones are skipped.
    pub sort_by: Vec<String>,
    /// Event-time column, Timestamp(µs, UTC), never null: `ts` or `window_start`. Decides the date folder.
    pub time_column: &'static str,
    /// Columns that get a bloom filter: the entity's.
    pub bloom: Vec<String>,
}

/// What a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Rows as they came in.
    Raw,
    /// Results of windows. `keys` are the group columns: with `window_start` they name one result, of which the highest
    /// `revision` counts (the `<table>_latest` view).
    Windows {
        /// Group columns beside `window_start`.
        keys: Vec<String>,
    },
}

/// What a commit wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// Number of the commit record.
    pub n: u64,
    /// Parquet files written.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Why a commit did not happen. Each variant names the caller's next step.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Drop the uncommitted work and the metrics that go with it; if still assigned, claim again (K2).
    #[error("commit {n} of {topic}/{partition} belongs to another claim")]
    Fenced {
        /// Topic of the shard.
        topic: String,
        /// Partition of the shard.
        partition: i32,
        /// The record found taken.
        n: u64,
    },
    /// An earlier attempt, of which the outcome was unknown, had succeeded, and this commit is not the same one. Drop
    /// the uncommitted work and claim again.
    #[error("an earlier attempt at commit {n} had succeeded up to offset {next_offset}, and this is another commit")]
    Changed {
        /// The record that exists.
        n: u64,
        /// Its next offset.
        next_offset: i64,
    },
    /// Keep the commit, wait, and hand over *the same* commit again: nothing is lost and nothing will be doubled.
    #[error("the store did not take the commit")]
    Store(#[from] StoreError),
    /// Stop the shard: the rows do not fit the table. Retrying cannot help.
    #[error("table `{table}` does not take these rows")]
    Schema {
        /// The table.
        table: String,
        /// What does not fit.
        source: SchemaError,
    },
    /// Stop the shard: the rows could not be encoded. Retrying cannot help.
    #[error("rows of table `{table}` could not be written as parquet: {reason}")]
    Encode {
        /// The table.
        table: String,
        /// What went wrong.
        reason: String,
    },
}
