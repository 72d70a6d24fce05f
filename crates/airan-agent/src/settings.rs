//! The agent's part of the configuration. Every default stands in `config/defaults.yaml`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use airan_model::settings::{BadSetting, BytesSetting, Checker, DurationSetting};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::Address;

/// The agent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// This host's own CPU, memory, disks and file systems.
    pub host: CollectorSettings,
    /// This host's own network interfaces.
    pub links: CollectorSettings,
    /// This host's own accelerators, without an exporter.
    pub accelerators: AcceleratorSettings,
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
    /// The simulated site of `airan up --demo`.
    pub demo: DemoSettings,
}

/// The simulated site.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemoSettings {
    /// How long its bad day lasts before it begins again: 1 minute to 6 hours. A tenth of it a node is silent and its rows are
    /// held in memory.
    pub day: DurationSetting,
    /// How much of its first day is over when the demo starts: less than a day.
    pub begin: DurationSetting,
    /// Another seed, other numbers.
    pub seed: u64,
}

/// Shortest and longest day of the simulated site.
const DEMO_DAY: std::ops::RangeInclusive<u64> = 60..=6 * 3_600;

/// One of the agent's own collectors.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectorSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// How often.
    pub interval: DurationSetting,
}

/// How this host's accelerators are read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceleratorSettings {
    /// Who is asked: NVML, nvidia-smi or rocm-smi, whichever has a device first (`auto`); one of them alone; or nobody (`off`).
    pub source: AcceleratorSource,
    /// How often.
    pub interval: DurationSetting,
}

/// Who is asked about accelerators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorSource {
    /// NVML, nvidia-smi or rocm-smi: the first that has a device. Quiet while a scraped target reports accelerators.
    Auto,
    /// NVIDIA's library, libnvidia-ml.
    Nvml,
    /// NVIDIA's program, by its XML or CSV.
    NvidiaSmi,
    /// AMD's program, by its JSON.
    RocmSmi,
    /// Nobody.
    Off,
}

impl AcceleratorSource {
    const NAMES: [(&str, AcceleratorSource); 5] = [
        ("auto", AcceleratorSource::Auto),
        ("nvml", AcceleratorSource::Nvml),
        ("nvidia-smi", AcceleratorSource::NvidiaSmi),
        ("rocm-smi", AcceleratorSource::RocmSmi),
        ("off", AcceleratorSource::Off),
    ];
}

impl<'de> Deserialize<'de> for AcceleratorSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AcceleratorSource, D::Error> {
        deserializer.deserialize_any(SourceName)
    }
}

/// A name of a source. To YAML 1.1 `off` is a truth value.
struct SourceName;

impl Visitor<'_> for SourceName {
    type Value = AcceleratorSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, nvml, nvidia-smi, rocm-smi or off")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<AcceleratorSource, E> {
        let known = AcceleratorSource::NAMES.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, source)| source).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<AcceleratorSource, E> {
        match on {
            false => Ok(AcceleratorSource::Off),
            true => Err(E::invalid_value(de::Unexpected::Bool(on), &self)),
        }
    }
}

impl JsonSchema for AcceleratorSource {
    fn schema_name() -> Cow<'static, str> {
        "AcceleratorSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["auto", "nvml", "nvidia-smi", "rocm-smi", "off", false]})
    }
}

/// What holds for every target that does not say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// Most labels of one sample.
    pub labels: usize,
    /// Most bytes of one label's name or value.
    pub label_bytes: BytesSetting,
}

/// A Prometheus text endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// Its name in metrics, logs and rows; stands once in the list.
    pub name: String,
    /// Where it is: `http://host:port/metrics`. A user and password in it are sent as basic authentication.
    pub url: Address,
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Most rows.
    pub rows: usize,
    /// Most bytes, as Arrow.
    pub bytes: BytesSetting,
}

/// The way to the gateway.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkSettings {
    /// The gateway's HTTP door: `http://host:4318`. Not needed in `airan up`.
    pub url: Option<Address>,
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
    /// Refuses values with which an agent could not work: timers and limits of zero, a shortest wait over the longest.
    pub fn check(&self) -> Result<(), BadSetting> {
        let mut check = Checker::new("agent");
        check
            .timer("host.interval", self.host.interval)
            .timer("links.interval", self.links.interval)
            .timer("accelerators.interval", self.accelerators.interval)
            .timer("scrape.interval", self.scrape.interval)
            .timer("scrape.timeout", self.scrape.timeout)
            .not_zero("scrape.body", self.scrape.body.get())
            .not_zero("scrape.samples", self.scrape.samples as u64)
            .not_zero("scrape.labels", self.scrape.labels as u64)
            .not_zero("scrape.label_bytes", self.scrape.label_bytes.get());
        for (number, target) in self.targets.iter().enumerate() {
            let of = |key: &str| format!("targets.{number}.{key}");
            check
                .require(&of("name"), !target.name.trim().is_empty(), "must not be empty")
                .timer(&of("interval"), target.interval.unwrap_or(self.scrape.interval))
                .timer(&of("timeout"), target.timeout.unwrap_or(self.scrape.timeout));
        }
        check
            .not_zero("queue.rows", self.queue.rows as u64)
            .not_zero("queue.bytes", self.queue.bytes.get())
            .timer("uplink.timeout", self.uplink.timeout)
            .timer("uplink.backoff_min", self.uplink.backoff_min)
            .timer("uplink.backoff_max", self.uplink.backoff_max)
            .ordered(("uplink.backoff_min", self.uplink.backoff_min), ("uplink.backoff_max", self.uplink.backoff_max))
            .span("uplink.give_up_after", self.uplink.give_up_after)
            .not_zero("uplink.request_rows", self.uplink.request_rows as u64)
            .not_zero("uplink.request_bytes", self.uplink.request_bytes.get())
            .timer("drain", self.drain)
            .require("demo.day", DEMO_DAY.contains(&self.demo.day.get().as_secs()), "must be 1m to 6h")
            .require("demo.begin", self.demo.begin.get() < self.demo.day.get(), "must be less than demo.day")
            .finish()
    }

    /// The documented defaults, for tests; a running agent reads its own from the configuration.
    #[cfg(test)]
    pub(crate) fn documented() -> Settings {
        let yaml = "
host: {enabled: true, interval: 10s}
links: {enabled: true, interval: 10s}
accelerators: {source: auto, interval: 10s}
links_ignored: [lo, 'veth*', 'cali*']
proc_path: /proc
sys_path: /sys
scrape: {interval: 15s, timeout: 10s, body: 16MiB, samples: 50000, labels: 64, label_bytes: 2KiB}
targets: []
queue: {rows: 200000, bytes: 64MiB}
uplink: {timeout: 30s, backoff_min: 500ms, backoff_max: 30s, give_up_after: 24h, request_rows: 20000, request_bytes: 4MiB}
drain: 5s
demo: {day: 30m, begin: 0s, seed: 1}
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
        assert!(settings.uplink.url.is_none());
        let target: TargetSettings =
            serde_saphyr::from_str("name: dcgm\nurl: http://a:9400/metrics\nlabels: {rack: r1}\n").unwrap();
        assert_eq!(target.labels["rack"], "r1");
        for wrong in ["name: a\nurl: b\nintervall: 3s\n", "name: a\n", "name: a\nurl: b\ninterval: 3\n"] {
            assert!(serde_saphyr::from_str::<TargetSettings>(wrong).is_err(), "{wrong}");
        }
    }

    /// Scenario: every name of a source, `off` as YAML 1.1 reads it, and names that are none.
    #[test]
    fn sources_of_accelerators_go_by_name() {
        for (name, source) in AcceleratorSource::NAMES {
            let read: AcceleratorSettings =
                serde_saphyr::from_str(&format!("{{source: {name}, interval: 1s}}")).unwrap();
            assert_eq!(read.source, source, "{name}");
            assert_eq!(serde_json::to_value(source).unwrap(), name);
        }
        for wrong in ["cuda", "true", "3"] {
            let read = serde_saphyr::from_str::<AcceleratorSettings>(&format!("{{source: {wrong}, interval: 1s}}"));
            assert!(read.unwrap_err().to_string().contains("nvidia-smi"), "{wrong}");
        }
    }

    /// Scenario: one setting at a time that cannot work.
    /// Guarantees: each is refused by its full name.
    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let good = || {
            let mut settings = Settings::documented();
            settings.targets = vec![serde_saphyr::from_str("name: a\nurl: http://a:1/\ninterval: 3s\n").unwrap()];
            settings
        };
        good().check().unwrap();
        let zero = DurationSetting::from(std::time::Duration::ZERO);
        type Change = Box<dyn Fn(&mut Settings)>;
        let cases: Vec<(Change, &str)> = vec![
            (Box::new(move |s| s.host.interval = zero), "agent.host.interval"),
            (Box::new(move |s| s.links.interval = zero), "agent.links.interval"),
            (Box::new(move |s| s.accelerators.interval = zero), "agent.accelerators.interval"),
            (Box::new(move |s| s.scrape.interval = zero), "agent.scrape.interval"),
            (Box::new(|s| s.scrape.body = 0.into()), "agent.scrape.body"),
            (Box::new(|s| s.scrape.labels = 0), "agent.scrape.labels"),
            (Box::new(move |s| s.targets[0].interval = Some(zero)), "agent.targets.0.interval"),
            (Box::new(|s| s.targets[0].name.clear()), "agent.targets.0.name"),
            (Box::new(|s| s.queue.rows = 0), "agent.queue.rows"),
            (Box::new(|s| s.uplink.backoff_min = "31s".parse().unwrap()), "agent.uplink.backoff_min: must not be over"),
            (Box::new(move |s| s.uplink.give_up_after = zero), "agent.uplink.give_up_after"),
            (Box::new(|s| s.uplink.request_rows = 0), "agent.uplink.request_rows"),
            (Box::new(move |s| s.drain = zero), "agent.drain"),
            (Box::new(|s| s.demo.day = "59s".parse().unwrap()), "agent.demo.day"),
            (Box::new(|s| s.demo.day = "7h".parse().unwrap()), "agent.demo.day"),
            (Box::new(|s| s.demo.begin = "30m".parse().unwrap()), "agent.demo.begin"),
        ];
        for (change, told) in cases {
            let mut wrong = good();
            change(&mut wrong);
            let line = wrong.check().unwrap_err().to_string();
            assert!(line.starts_with(told), "{line} says {told}");
        }
    }

    /// Scenario: settings printed, as `airan validate --print` and logs do.
    #[test]
    fn passwords_in_addresses_are_not_printed() {
        let mut settings = Settings::documented();
        settings.targets = vec![serde_saphyr::from_str("name: a\nurl: http://jo:hunter2@a:1/m?k=hunter3\n").unwrap()];
        settings.uplink.url = Some("http://jo:hunter2@gateway:4318".into());
        let printed = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(!printed.contains("hunter") && printed.contains("http://***@a:1/m?***"), "{printed}");
    }
}
