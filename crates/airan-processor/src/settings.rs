//! The `processor` section of the configuration. Plain data; `config/defaults.yaml` holds the defaults.

use airan_model::settings::{BytesSetting, DurationSetting};
use serde::{Deserialize, Serialize};

/// How a processor works. Spans called "of log time" are measured by append times of messages, not by a clock.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Threads that shards share; 0 means one for each core.
    pub threads: usize,
    /// When work is committed.
    pub commit: CommitSettings,
    /// How duplicates are recognised.
    pub identities: IdentitySettings,
    /// How long the last values of counters are remembered.
    pub counters: CounterSettings,
    /// Limits on windows.
    pub windows: WindowSettings,
    /// How often the lake's retention is applied; it never takes a row that an open window still needs.
    pub retention_every: DurationSetting,
    /// How long the last commit of a shard may take when it is revoked or the process stops.
    pub stop_within: DurationSetting,
}

/// When work is committed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CommitSettings {
    /// A shard with something to commit commits this long after its last commit.
    pub interval: DurationSetting,
    /// … or as soon as the rows it holds reach this size in memory.
    pub bytes: BytesSetting,
    /// Messages waiting for a shard beyond this size pause its partition.
    pub queue_bytes: BytesSetting,
    /// Wait before the first repetition of a commit that the store did not take; it doubles up to `retry_max`.
    pub retry_min: DurationSetting,
    /// Longest wait between repetitions.
    pub retry_max: DurationSetting,
}

/// How duplicates are recognised: which (node, stream, batch, seq) are remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySettings {
    /// Log time after which the batch of a foreign sender (a hash of its request) is forgotten.
    pub foreign_memory: DurationSetting,
    /// Log time without rows after which the batch of an agent is forgotten.
    pub agent_memory: DurationSetting,
    /// Most ranges of numbers remembered for one stream of a shard; beyond it the batches idle longest are forgotten, counted.
    pub ranges: usize,
}

/// How long the last values of counters are remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CounterSettings {
    /// Log time without a row after which an entity's last values are forgotten, counted; its next row has no rise.
    pub idle: DurationSetting,
    /// Most entities remembered for one stream of a shard; rows of further ones get no rises, counted.
    pub entities: usize,
}

/// Limits on windows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// Most bytes of open windows of one pipeline in one shard; over it that pipeline stops, the shard goes on.
    pub state_bytes: BytesSetting,
    /// Most (pipeline, site, window) marked for restatement in one shard; further ones are only counted.
    pub dirty: usize,
}
