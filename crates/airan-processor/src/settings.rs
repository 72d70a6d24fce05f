//! The `processor` section of the configuration. Plain data; `config/defaults.yaml` holds the defaults.

use airan_model::settings::{BadSetting, BytesSetting, Checker, DurationSetting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a processor works. Spans called "of log time" are measured by append times of messages, not by a clock.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its name among the processors of its group, which no other may have; None: made of the node's name and the admin port.
    pub instance: Option<String>,
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
    /// How often the processor that owns partition 0 publishes commits to Delta.
    pub publish_every: DurationSetting,
    /// How much is restated at a time.
    pub restate: RestateSettings,
    /// How often the lake's retention is applied; it never takes a row that an open window still needs.
    pub retention_every: DurationSetting,
    /// How long the last commit of a shard may take when it is revoked or the process stops.
    pub stop_within: DurationSetting,
}

/// When work is committed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CounterSettings {
    /// Log time without a row after which an entity's last values are forgotten, counted; its next row has no rise.
    pub idle: DurationSetting,
    /// Most entities remembered for one stream of a shard; rows of further ones get no rises, counted.
    pub entities: usize,
}

/// Limits on windows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// Most bytes of open windows of one pipeline in one shard; over it that pipeline stops, the shard goes on.
    pub state_bytes: BytesSetting,
    /// Most stretches of windows marked for restatement in one shard; beyond it neighbouring ones are joined, so more windows
    /// are restated than need be.
    pub dirty: usize,
}

/// How much is restated at a time: what a shard computes again between two commits, beside its messages. More means that a
/// backlog is through sooner, and that its windows are larger files and take more memory until they are committed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestateSettings {
    /// Windows of a site.
    pub windows: u64,
    /// Raw rows read for them.
    pub rows: u64,
}

impl Settings {
    /// Refuses values with which a processor could not work: timers and limits of zero, a shortest wait over the longest.
    pub fn check(&self) -> Result<(), BadSetting> {
        let has_name = self.instance.as_ref().is_none_or(|name| !name.trim().is_empty());
        Checker::new("processor")
            .require(
                "instance",
                has_name,
                "must not be empty: leave it out for a name made of the node's and the admin port",
            )
            .timer("commit.interval", self.commit.interval)
            .not_zero("commit.bytes", self.commit.bytes.get())
            .not_zero("commit.queue_bytes", self.commit.queue_bytes.get())
            .timer("commit.retry_min", self.commit.retry_min)
            .timer("commit.retry_max", self.commit.retry_max)
            .ordered(("commit.retry_min", self.commit.retry_min), ("commit.retry_max", self.commit.retry_max))
            .span("identities.foreign_memory", self.identities.foreign_memory)
            .span("identities.agent_memory", self.identities.agent_memory)
            .not_zero("identities.ranges", self.identities.ranges as u64)
            .span("counters.idle", self.counters.idle)
            .not_zero("counters.entities", self.counters.entities as u64)
            .not_zero("windows.state_bytes", self.windows.state_bytes.get())
            .not_zero("windows.dirty", self.windows.dirty as u64)
            .timer("publish_every", self.publish_every)
            .not_zero("restate.windows", self.restate.windows)
            .not_zero("restate.rows", self.restate.rows)
            .timer("retention_every", self.retention_every)
            .timer("stop_within", self.stop_within)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Settings {
        let json = serde_json::json!({
            "instance": null,
            "threads": 0,
            "commit": {"interval": "60s", "bytes": "64MiB", "queue_bytes": "16MiB", "retry_min": "500ms", "retry_max": "30s"},
            "identities": {"foreign_memory": "1h", "agent_memory": "40d", "ranges": 1_000_000},
            "counters": {"idle": "24h", "entities": 1_000_000},
            "windows": {"state_bytes": "256MiB", "dirty": 100_000},
            "publish_every": "60s",
            "restate": {"windows": 20_000, "rows": 2_000_000},
            "retention_every": "10m",
            "stop_within": "20s",
        });
        serde_json::from_value(json).unwrap()
    }

    /// Scenario: one setting at a time that cannot work.
    /// Guarantees: each is refused by its full name; a memory of 40 days is no timer and passes.
    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        good().check().unwrap();
        let zero: DurationSetting = "0s".parse().unwrap();
        type Change = Box<dyn Fn(&mut Settings)>;
        let cases: Vec<(Change, &str)> = vec![
            (Box::new(move |s| s.commit.interval = zero), "processor.commit.interval"),
            (Box::new(|s| s.commit.interval = "25h".parse().unwrap()), "processor.commit.interval"),
            (Box::new(|s| s.instance = Some(" ".to_owned())), "processor.instance"),
            (Box::new(|s| s.commit.bytes = 0.into()), "processor.commit.bytes"),
            (Box::new(|s| s.commit.queue_bytes = 0.into()), "processor.commit.queue_bytes"),
            (Box::new(|s| s.commit.retry_min = "31s".parse().unwrap()), "processor.commit.retry_min: must not be over"),
            (Box::new(move |s| s.identities.agent_memory = zero), "processor.identities.agent_memory"),
            (Box::new(|s| s.identities.ranges = 0), "processor.identities.ranges"),
            (Box::new(|s| s.counters.entities = 0), "processor.counters.entities"),
            (Box::new(|s| s.windows.state_bytes = 0.into()), "processor.windows.state_bytes"),
            (Box::new(move |s| s.publish_every = zero), "processor.publish_every"),
            (Box::new(|s| s.restate.windows = 0), "processor.restate.windows"),
            (Box::new(|s| s.restate.rows = 0), "processor.restate.rows"),
            (Box::new(move |s| s.retention_every = zero), "processor.retention_every"),
            (Box::new(move |s| s.stop_within = zero), "processor.stop_within"),
        ];
        for (change, told) in cases {
            let mut wrong = good();
            change(&mut wrong);
            let line = wrong.check().unwrap_err().to_string();
            assert!(line.starts_with(told), "{line} says {told}");
        }
    }
}
