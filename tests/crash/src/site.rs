//! The site under test: its folder, configurations, ports and processes.
//!
//! Everything is short, so that a case of a dozen kills takes seconds: commits each 700 ms, windows of 2 s, lateness 1 s, small
//! segments, retention and upkeep of the lake each few seconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::broker::Wire;
use crate::plan::{Plan, SESSION};
use crate::strikes::Broker;
use crate::victim::Victim;

/// Sites that send; their rows fall on several partitions.
pub const SITES: usize = 6;
/// The site whose rows are erased while they come, and once more in the end.
pub const ERASED: usize = 5;
/// Partitions of the topic.
const PARTITIONS: usize = 3;
/// The agent's node.
pub const AGENT: &str = "agent-1";
/// Width of the windows, microseconds.
pub const WIDTH: i64 = 2_000_000;
/// How long a window waits, microseconds.
pub const LATENESS: i64 = 1_000_000;

/// What the victims are, and where the lake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// `airan up`: gateway, processor and local log in one process, lake on the disk
    Local,
    /// `airan up` with its lake in a bucket
    S3,
    /// `airan gateway` and several `airan processor` over Apache Kafka, lake on the disk
    Kafka,
    /// The same with the lake in a bucket
    KafkaS3,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Local, Mode::S3, Mode::Kafka, Mode::KafkaS3];

    /// Whether roles are processes of their own.
    pub fn has_kafka(self) -> bool {
        matches!(self, Mode::Kafka | Mode::KafkaS3)
    }

    /// Whether the lake is in a bucket.
    pub fn has_bucket(self) -> bool {
        matches!(self, Mode::S3 | Mode::KafkaS3)
    }

    /// Whether anything of this mode can come to a crash point.
    pub fn has(self, point: &str) -> bool {
        // Files get their place by a second name on local disks only; there is a log only without Kafka.
        let of_a_disk = ["lake.commit.place", "lake.publish.held", "lake.settle.taken"];
        !(self.has_bucket() && of_a_disk.contains(&point) || self.has_kafka() && point.starts_with("log."))
    }

    /// Whether the victims of this mode can. What is of a tool is the errands' matter, and so is the deletion of what was taken out: by
    /// itself that is done a day later.
    pub fn passes(self, point: &str) -> bool {
        let of_tools = ["lake.erase", "lake.vacuum", "processor.backfill"];
        self.has(point) && !of_tools.iter().any(|family| point.starts_with(family))
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Local => "local",
            Mode::S3 => "s3",
            Mode::Kafka => "kafka",
            Mode::KafkaS3 => "kafka-s3",
        }
    }
}

/// What the harness is given to work with.
#[derive(Clone, Debug)]
pub struct Given {
    /// The binary under test.
    pub airan: PathBuf,
    /// What the victims are.
    pub mode: Mode,
    /// Kafka, as `host:port`.
    pub kafka: Option<String>,
    /// An S3 endpoint with a bucket `airan`.
    pub s3: Option<String>,
    /// Processors over Kafka.
    pub processors: usize,
    /// Ways to Kafka that can be cut, one for each process that has none of its own.
    pub wires: Vec<Arc<Wire>>,
    /// What starts Kafka again.
    pub broker: Option<Broker>,
}

impl Given {
    /// The same for one case: with what its plan needs, and nothing that it does not use.
    ///
    /// # Errors
    /// If what it needs is not given.
    pub fn of(&self, plan: &Plan) -> Result<Given> {
        if plan.cuts && self.wires.len() <= plan.processors {
            let victims = plan.processors + 1;
            bail!("the plan cuts {victims} processes off from the broker: give a --wire TARGET:PORT for each");
        }
        if plan.restart && self.broker.is_none() {
            bail!("the plan starts the broker again: give --kafka-script PATH");
        }
        Ok(Given {
            processors: plan.processors,
            wires: if plan.cuts { self.wires.clone() } else { Vec::new() },
            broker: self.broker.clone().filter(|_| plan.restart),
            ..self.clone()
        })
    }
}

/// A site.
pub struct Site {
    /// The HTTP door.
    pub http: String,
    /// The configuration that knows the lake.
    pub reader: &'static str,
    /// What is killed. The first has the doors.
    pub victims: Vec<Victim>,
    /// Sends beside the senders, and is not killed.
    pub agent: Victim,
}

/// The node of a site's sender.
pub fn node(site: usize) -> String {
    format!("node-{site}")
}

/// The name of a site.
pub fn site(number: usize) -> String {
    format!("site-{number}")
}

impl Site {
    /// Lays out the folder. Nothing runs yet.
    pub fn new(given: &Given, folder: &Path, name: &str, case: u64) -> Result<Site> {
        std::fs::create_dir_all(folder.join("pipelines/crash"))?;
        let write =
            |file: &str, text: &str| std::fs::write(folder.join(file), text).context("cannot write a case's folder");
        write("inventory.yaml", &inventory())?;
        write("pipelines/crash/pipeline.yaml", PIPELINE)?;
        write("pipelines/crash/query.sql", QUERY)?;
        let address = address(case);
        let (http, grpc) = (format!("{address}:4318"), format!("{address}:4317"));
        let lake = lake(given, name)?;
        let gateway = format!(
            "gateway: {{http: \"{http}\", grpc: \"{grpc}\", tick: 1s, request: {{timeout: 4s}}, \
             gather: {{ack_timeout: 3s}}, load: {{retry_after: 1s}}}}\n"
        );
        let shared = "inventory: {file: inventory.yaml}\npipelines: {folder: pipelines}\n";
        // One admin port for each process of the case.
        let admin_of = |process: usize| format!("{address}:{}", 4320 + process);
        let admin = |process: usize| format!("admin: {{listen: \"{}\"}}\n", admin_of(process));
        let victim = |role: &str, name: &str, file: &str, process: usize| {
            Victim::new(name, &admin_of(process), &given.airan, folder, &[role, "--config", file])
        };
        let (reader, victims) = if given.mode.has_kafka() {
            let broker = given.kafka.as_deref().context("this mode needs --kafka HOST:PORT")?;
            let bus = |broker: &str| {
                format!(
                    "bus: {{type: kafka, brokers: \"{broker}\", topic: \"airan.{name}\", partitions: {PARTITIONS}, \
                     properties: {{group.id: \"{name}\", session.timeout.ms: {SESSION}, heartbeat.interval.ms: 1500}}}}\n"
                )
            };
            // Each through a wire of its own. A case before this one may have ended while it was cut.
            given.wires.iter().for_each(|wire| wire.mend());
            let wire = |process: usize| given.wires.get(process).cloned();
            let bus_of = |process| bus(&wire(process).map_or_else(|| broker.to_owned(), |wire| wire.address()));
            write("gateway.yaml", &format!("node: gateway-1\n{}{}{gateway}{shared}", bus_of(0), admin(0)))?;
            let mut victims = vec![victim("gateway", "gateway", "gateway.yaml", 0).through(wire(0))];
            for number in 1..=given.processors {
                let (file, name) = (format!("processor-{number}.yaml"), format!("processor-{number}"));
                let (bus, admin) = (bus_of(number), admin(number));
                write(&file, &format!("node: {name}\n{bus}{admin}{lake}{PROCESSOR}{shared}"))?;
                victims.push(victim("processor", &name, &file, number).through(wire(number)));
            }
            // Tools have a way that nobody cuts.
            write("reader.yaml", &format!("node: reader\n{}{lake}{shared}", bus(broker)))?;
            ("reader.yaml", victims)
        } else {
            let bus = format!("bus: {{path: data/log, partitions: {PARTITIONS}, segment_bytes: 64KiB, max_age: 5s}}\n");
            let quiet = "agent: {host: {enabled: false}, links: {enabled: false}}\n";
            let text = format!("node: up-1\n{bus}{}{lake}{gateway}{PROCESSOR}{quiet}{shared}", admin(0));
            write("up.yaml", &text)?;
            ("up.yaml", vec![victim("up", "up", "up.yaml", 0)])
        };
        let own = given.processors + 1;
        write(
            "agent.yaml",
            &format!(
                "node: {AGENT}\n{}agent:\n  uplink: {{url: \"http://{http}\", timeout: 6s, backoff_min: 100ms, backoff_max: 500ms}}\n  \
                 host: {{interval: 1s}}\n  links: {{interval: 1s}}\n  links_ignored: []\n  drain: 20s\n",
                admin(own)
            ),
        )?;
        let agent = victim("agent", "agent", "agent.yaml", own);
        Ok(Site { http, reader, victims, agent })
    }
}

fn lake(given: &Given, name: &str) -> Result<String> {
    if !given.mode.has_bucket() {
        return Ok(format!("lake: {{path: data/lake{LAKE}}}\n"));
    }
    let Some(endpoint) = &given.s3 else { bail!("this mode needs --s3 URL") };
    Ok(format!(
        "lake: {{path: \"{}\", options: {{aws_endpoint: \"{endpoint}\", aws_region: us-east-1, \
         aws_access_key_id: test, aws_secret_access_key: test, aws_allow_http: \"true\"}}{LAKE}}}\n",
        in_bucket(name)
    ))
}

/// Where the lake of this name is in the bucket.
pub fn in_bucket(name: &str) -> String {
    format!("s3://airan/{name}")
}

fn inventory() -> String {
    let sites = (0..SITES).map(|number| format!("      - {{name: {}, nodes: [{}]}}\n", site(number), node(number)));
    format!(
        "regions:\n  - name: crash\n    jurisdiction: de\n    sites:\n{}      - {{name: far, nodes: [{AGENT}]}}\n",
        sites.collect::<String>()
    )
}

/// An address that no other harness and no other program on this machine uses, so that nobody takes a port while its victim is away:
/// the loopback network has sixteen million of them.
fn address(case: u64) -> String {
    let process = std::process::id();
    format!("127.{}.{}.{}", 1 + (process >> 8) % 250, process & 0xFF, 1 + case % 250)
}

/// Beside the lake's path. The elected processor leaves the errands something to compact.
const LAKE: &str = ", checkpoint_interval: 3, compaction: {every: 4s, min_files: 2}";

const PROCESSOR: &str = "processor: {commit: {interval: 700ms, retry_min: 100ms, retry_max: 1s}, publish_every: 1s, retention_every: 3s, stop_within: 15s}\n";

const PIPELINE: &str = "\
name: crash
description: what the crash harness computes by itself too
table: crash_windows
lateness: 1s
staleness_windows: 3
series_budget: 1000
";

/// One integer sum, a count, and what floats can be: sum, mean, extremes, rises of a counter.
const QUERY: &str = "\
SELECT
    tumble(ts, INTERVAL '2 seconds') AS window_start,
    region,
    site,
    node,
    device,
    count(model) AS row_count,
    sum(throttle_reasons) AS integer_sum,
    sum(utilization) AS float_sum,
    avg(utilization) AS float_avg,
    max(power_watts) AS float_max,
    min(power_watts) AS float_min,
    sum(energy_joules_increase) AS rise
FROM accelerator
GROUP BY tumble(ts, INTERVAL '2 seconds'), region, site, node, device
";
