//! The `lake` section of the configuration. Plain data; `config/defaults.yaml` holds the defaults.

use std::collections::BTreeMap;

use airan_model::settings::{BadSetting, BytesSetting, Checker, DurationSetting, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the lake is and how long it keeps rows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeSettings {
    /// A local folder (made when missing), or `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub path: String,
    /// Options of the object store, passed through under object_store's own names (`aws_region`, `aws_endpoint`, …).
    pub options: BTreeMap<String, Secret>,
    /// Raw rows older than this (by event time) may go. Nothing that an open window still needs ever goes.
    pub raw_retention: DurationSetting,
    /// Rows of window tables older than this (by window start) may go.
    pub window_retention: DurationSetting,
    /// Above this many bytes of Parquet the oldest dates go first, raw tables before window tables. Absent: no bound.
    pub max_bytes: Option<BytesSetting>,
    /// Commits of a table's Delta log between checkpoints (Delta's `delta.checkpointInterval`, 2 to 10000). A reader of the log reads
    /// the newest checkpoint, which names every file, and the commits after it.
    pub checkpoint_interval: u64,
    /// How small files become large ones.
    pub compaction: CompactionSettings,
}

/// How small files become large ones.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompactionSettings {
    /// Whether the elected processor compacts by itself.
    pub on: bool,
    /// Time between its passes.
    pub every: DurationSetting,
    /// Bytes of a file that is made, at most; files of half of it are large enough. A merge takes up to sixteen times as many, and its
    /// memory does not grow with them.
    pub target_bytes: BytesSetting,
    /// Fewest small files of a day, while it is not over, that are worth a merge.
    pub min_files: usize,
}

impl LakeSettings {
    /// Refuses values with which a lake could not be kept.
    ///
    /// # Errors
    /// Names the first that is wrong.
    pub fn check(&self) -> Result<(), BadSetting> {
        let compaction = &self.compaction;
        let target = compaction.target_bytes.get();
        let interval = self.checkpoint_interval;
        Checker::new("lake")
            .require("checkpoint_interval", (2..=10_000).contains(&interval), "must be 2 to 10000")
            .timer("compaction.every", compaction.every)
            .require("compaction.target_bytes", (128 << 20..=512 << 20).contains(&target), "must be 128MiB to 512MiB")
            .require("compaction.min_files", (2..=64).contains(&compaction.min_files), "must be 2 to 64")
            .finish()
    }
}
