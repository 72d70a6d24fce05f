//! The lake's public face.
use airan_model::time::{Clock, Micros};
use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;

use crate::commit::{Commit, CommitError, CommitSummary};
use crate::metrics::LakeMetrics;
use crate::record::ReadError;
use crate::seal::Checksum;
use crate::settings::LakeSettings;
use crate::store::{OpenLakeError, StoreError};

/// A lake. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lake {}
/// What the newest record of a shard says, at a claim.
#[derive(Clone, Debug)]
pub struct Recovered { /// The record.
 pub n: u64, /// First offset to read.
 pub next_offset: i64, /// The shard state.
 pub state: Bytes }
/// Why a shard could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError { /// Retry.
 #[error(transparent)] Store(#[from] StoreError) }
/// A file that counts.
#[derive(Clone, Debug)]
pub struct FileEntry { /// Path.
 pub path: String, /// Rows.
 pub rows: u64, /// Bytes.
 pub bytes: u64, /// Micros.
 pub min_ts: Micros, /// Micros.
 pub max_ts: Micros, /// Checksum.
 pub checksum: Checksum, /// Partition.
 pub partition: i32, /// Record.
 pub n: u64 }
/// Rows read back for open windows.
pub type RawRows = BoxStream<'static, Result<RecordBatch, ReadError>>;
/// Why a table could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError { /// Retry.
 #[error(transparent)] Read(#[from] ReadError) }
/// Check.
#[derive(Clone, Debug)]
pub struct CheckReport {}
/// Expire.
#[derive(Clone, Debug)]
pub struct ExpireReport {}
/// A claimed shard.
#[derive(Debug)]
pub struct ShardWriter {}
#[allow(clippy::todo, unused_variables, missing_docs)]
impl Lake {
    pub async fn open(settings: &LakeSettings, clock: Clock) -> Result<Lake, OpenLakeError> { todo!() }
    pub async fn open_to_read(settings: &LakeSettings, clock: Clock) -> Result<Lake, OpenLakeError> { todo!() }
    pub fn metrics(&self) -> &LakeMetrics { todo!() }
    pub async fn claim(&self, topic: &str, partition: i32, partitions: i32) -> Result<(ShardWriter, Option<Recovered>), ClaimError> { todo!() }
    pub async fn files(&self, table: &str) -> Result<Vec<FileEntry>, ReadError> { todo!() }
    pub async fn tables(&self) -> Result<Vec<String>, ReadError> { todo!() }
    pub async fn raw_rows(&self, topic: &str, partition: i32, table: &str, from: Micros) -> Result<RawRows, ReadError> { todo!() }
    pub async fn register(&self, context: &SessionContext) -> Result<(), QueryError> { todo!() }
    pub async fn check(&self) -> Result<CheckReport, ReadError> { todo!() }
    /// `needed_from`: the start of the oldest open window; no raw row at or after it goes.
    pub async fn expire(&self, now: Micros, needed_from: Option<Micros>) -> Result<ExpireReport, ReadError> { todo!() }
}
#[allow(clippy::todo, unused_variables, missing_docs)]
impl ShardWriter {
    pub async fn commit(&mut self, commit: &Commit) -> Result<CommitSummary, CommitError> { todo!() }
}
