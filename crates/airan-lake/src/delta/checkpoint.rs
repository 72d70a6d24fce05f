//! Checkpoints, made by deltalake, and the clearing up of old log files.
//!
//! Neither decides anything: a checkpoint says again what the commits up to its version say, and a log file goes only when a
//! checkpoint stands in for it. Both may fail, be done twice, or be done by somebody who is late.
//!
//! Of checkpoints, which hold every file, only the newest few stay; commits, which are small, stay a day.

use std::sync::Arc;

use airan_model::time::{DAY, Micros};
use deltalake::checkpoints::create_checkpoint;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectMeta;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use super::DeltaTable;
use crate::layout;
use crate::settle::HELD_FOR;
use crate::store::StoreError;

/// How long commits are kept that a checkpoint stands in for. Who has read a version needs those after it; files that were
/// taken out are gone after a day, so nobody can look back further.
pub(crate) const LOG_KEPT: Micros = DAY;
/// Checkpoints that stay: a reader may have found one just before the next was made.
const CHECKPOINTS_KEPT: usize = 3;

impl DeltaTable {
    /// Makes a checkpoint and clears up the log where that is due. Says whether it did.
    ///
    /// # Errors
    /// In words; nothing is lost, and the next commit tries again.
    pub(crate) async fn tidy(&mut self, now: Micros) -> Result<bool, String> {
        let Some(version) = self.state.version else { return Ok(false) };
        if version < self.state.checkpoint.unwrap_or_default() + self.checkpoint_interval {
            return Ok(false);
        }
        self.checkpoint(now).await?;
        Ok(true)
    }

    /// A checkpoint of this version, whether one is due or not.
    pub(crate) async fn checkpoint(&mut self, now: Micros) -> Result<(), String> {
        let Some(version) = self.state.version else { return Ok(()) };
        let log = self.log_store()?;
        let mut table = deltalake::DeltaTable::new(Arc::clone(&log));
        table.load_version(version).await.map_err(|error| error.to_string())?;
        create_checkpoint(&table, None).await.map_err(|error| error.to_string())?;
        Arc::make_mut(&mut self.state).checkpoint = Some(version);
        airan_model::crash::point("lake.delta.checkpoint");
        let cleared = self.clear_log(now).await.map_err(|error| error.to_string())?;
        tracing::debug!(table = self.name(), version, cleared, "checkpoint");
        // As a checkpoint does.
        let state = Arc::make_mut(&mut self.state);
        state.removed.retain(|_, tombstone| now.saturating_sub(tombstone.at) < HELD_FOR);
        Ok(())
    }

    /// Deletes checkpoints but the newest ones, and old commits that all of those stand in for. Returns how many files.
    async fn clear_log(&self, now: Micros) -> Result<u64, StoreError> {
        let listed = self.store.list(&layout::delta_log(&self.table)).await?;
        let number = |meta: &ObjectMeta, suffix: &str| layout::number(&meta.location, suffix);
        let mut checkpoints: Vec<u64> = listed.iter().filter_map(|meta| number(meta, ".checkpoint.parquet")).collect();
        checkpoints.sort_unstable_by(|a, b| b.cmp(a));
        let Some(oldest) = checkpoints.iter().take(CHECKPOINTS_KEPT).next_back().copied() else { return Ok(0) };
        let mut cleared = 0;
        for meta in &listed {
            let is_old = now.saturating_sub(meta.last_modified.timestamp_micros()) >= LOG_KEPT;
            let goes = number(meta, ".checkpoint.parquet").is_some_and(|version| version < oldest)
                || (is_old && number(meta, ".json").is_some_and(|version| version < oldest));
            if goes {
                self.store.remove(&meta.location).await?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// The table for deltalake, in this lake's own store. The URL's scheme says only that listings come in order.
    pub(super) fn log_store(&self) -> Result<LogStoreRef, String> {
        let url = format!("memory:///{}/", self.table);
        let url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let table = Arc::new(PrefixStore::new(self.store.object(), Path::from(self.table.as_str())));
        Ok(default_logstore(table, self.store.object(), &url, &StorageConfig::default()))
    }
}
