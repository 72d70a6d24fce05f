//! The agent's part of the configuration. Every default stands in `config/defaults.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use airan_model::settings::{BytesSetting, DurationSetting};
use serde::{Deserialize, Serialize};

/// The agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// This host's own CPU, memory, disks and file systems.
    pub host: CollectorSettings,
    /// This host's own network interfaces.
    pub links: CollectorSettings,
    /// Interfaces not to collect: names, or beginnings of names that end in `*`.
    pub links_ignored: Vec<String>,
    /// Where the kernel's process file system is mounted: `/proc`, or elsewhere in a container.
    pub proc_path: PathBuf,
    /// Where the kernel's device file system is mounted: `/sys`, or elsewhere in a container.
    pub sys_path: PathBuf,
    /// What holds for every target.
    pub scrape: ScrapeSettings,
    /// Prometheus text endpoints to scrape.
    pub targets: Vec<TargetSettings>,
    /// Rows that wait for the gateway.
    pub queue: QueueSettings,
    /// The way to the gateway.
    pub uplink: UplinkSettings,
    /// How long the agent may take to send what is queued when it is told to stop.
    pub drain: DurationSetting,
}

/// One of the agent's own collectors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// How often.
    pub interval: DurationSetting,
}

/// What holds for every target that does not say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrapeSettings {
    /// How often.
    pub interval: DurationSetting,
    /// From the connection to the last byte.
    pub timeout: DurationSetting,
    /// Most bytes of an answer, decompressed.
    pub body: BytesSetting,
    /// Most samples of an answer; a scrape with more is refused as a whole.
    pub samples: usize,
}

/// A Prometheus text endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// Its name in metrics, logs and rows; stands once in the list.
    pub name: String,
    /// Where it is: `http://host:port/metrics`.
    pub url: String,
    /// How often, if not as all.
    pub interval: Option<DurationSetting>,
    /// From the connection to the last byte, if not as all.
    pub timeout: Option<DurationSetting>,
    /// The node all its rows are about; without it the node its labels name, or else the agent's own.
    pub node: Option<String>,
    /// Labels for all its rows. One that is named as an entity or text column fills it where it is null; others become
    /// attributes. What the endpoint says itself wins.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Limits of the queue. The oldest rows are dropped first, and counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Most rows.
    pub rows: usize,
    /// Most bytes, as Arrow.
    pub bytes: BytesSetting,
}

/// The way to the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSettings {
    /// The gateway's HTTP door: `http://host:4318`. Not needed in `airan up`.
    pub url: Option<String>,
    /// How long one request may take.
    pub timeout: DurationSetting,
    /// The first wait after a failure; it doubles with each further one.
    pub backoff_min: DurationSetting,
    /// The longest wait after a failure, unless the gateway asks for a longer one.
    pub backoff_max: DurationSetting,
    /// Rows older than this are given up.
    pub give_up_after: DurationSetting,
    /// Most rows of one request.
    pub request_rows: usize,
    /// Most bytes of one request, as Arrow before compression.
    pub request_bytes: BytesSetting,
}

impl Settings {
    /// The documented defaults, for tests; a running agent reads its own from the configuration.
    #[cfg(test)]
    pub(crate) fn documented() -> Settings {
        let yaml = "
host: {enabled: true, interval: 10s}
links: {enabled: true, interval: 10s}
links_ignored: [lo, 'veth*', 'cali*']
proc_path: /proc
sys_path: /sys
scrape: {interval: 15s, timeout: 10s, body: 16MiB, samples: 50000}
targets: []
queue: {rows: 200000, bytes: 64MiB}
uplink: {timeout: 30s, backoff_min: 500ms, backoff_max: 30s, give_up_after: 24h, request_rows: 20000, request_bytes: 4MiB}
drain: 5s
";
        serde_saphyr::from_str(yaml).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused() {
        let settings = Settings::documented();
        assert_eq!(settings.uplink.url, None);
        let target: TargetSettings =
            serde_saphyr::from_str("name: dcgm\nurl: http://a:9400/metrics\nlabels: {rack: r1}\n").unwrap();
        assert_eq!(target.labels["rack"], "r1");
        for wrong in ["name: a\nurl: b\nintervall: 3s\n", "name: a\n", "name: a\nurl: b\ninterval: 3\n"] {
            assert!(serde_saphyr::from_str::<TargetSettings>(wrong).is_err(), "{wrong}");
        }
    }
}
