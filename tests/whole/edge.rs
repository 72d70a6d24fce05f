//! An edge site of its own: a folder with configurations, free ports, and what a test does to it and asks of it.
//!
//! Two shapes, one interface: `airan up` on the local log, or gateway and processor as processes of their own over Kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::site::{Process, Scrape, free_port, query, run, until};

/// Streams whose raw tables must hold what the shards say they stored.
const RAW: [&str; 7] = ["accelerator", "inference", "timing", "link", "host", "event", "sample"];

/// Whatever this machine has must not mix with the rows a test counts.
const NO_ACCELERATORS: &str = "  accelerators: {source: off}\n";

/// A site under test.
pub struct Edge {
    name: String,
    folder: TempDir,
    http: u16,
    admins: Vec<u16>,
    targets: Vec<String>,
    /// Lines of the agent's section.
    collects: String,
    /// The configuration that knows the lake.
    reader: &'static str,
    /// Gateways started so far: their counters begin at zero, those of shards do not.
    gateways: AtomicUsize,
    // Of a group of processors.
    topic: String,
    partitions: usize,
    members: Mutex<BTreeMap<String, u16>>,
}

impl Edge {
    /// A site for `airan up`, on the local log. Commits each second, so that a test need not wait.
    pub fn new(name: &str) -> Edge {
        let edge = Edge {
            name: name.to_owned(),
            folder: TempDir::new().expect("a folder"),
            http: free_port(),
            admins: vec![free_port()],
            targets: Vec::new(),
            collects: NO_ACCELERATORS.to_owned(),
            reader: "up.yaml",
            gateways: AtomicUsize::new(0),
            topic: String::new(),
            partitions: 0,
            members: Mutex::default(),
        };
        edge.write_up();
        edge
    }

    /// A site whose gateway and processor meet on a topic of a Kafka broker.
    pub fn over_kafka(name: &str, broker: &str, topic: &str) -> Edge {
        let edge = Edge { admins: vec![free_port(), free_port()], reader: "processor.yaml", ..Edge::new(name) };
        let bus = format!("bus: {{type: kafka, brokers: \"{broker}\", topic: {topic}, partitions: 4}}\n");
        let admin = |index: usize| format!("admin: {{listen: \"127.0.0.1:{}\"}}\n", edge.admins[index]);
        edge.write("gateway.yaml", &format!("{bus}{}{}", admin(0), edge.doors()));
        edge.write("processor.yaml", &format!("{bus}{}{COMMITS}", admin(1)));
        edge
    }

    /// The same for several processors ([`Edge::member`]) in a group of their own; the gateway goes by `inventory.yaml`, which is to
    /// be written before it starts, and has `more` in its configuration.
    pub fn over_kafka_with(name: &str, broker: &str, topic: &str, partitions: usize, more: &str) -> Edge {
        let edge = Edge { topic: topic.to_owned(), partitions, ..Edge::over_kafka(name, broker, topic) };
        let bus = bus(broker, topic, partitions);
        let admin = |index: usize| format!("admin: {{listen: \"127.0.0.1:{}\"}}\n", edge.admins[index]);
        let inventory = "inventory: {file: inventory.yaml}\n";
        edge.write("gateway.yaml", &format!("{bus}{}{inventory}{}{more}", admin(0), edge.doors()));
        edge.write("processor.yaml", &format!("{bus}{}{COMMITS}", admin(1)));
        edge
    }

    /// Has the gateway read Kafka topics of others, as a list of `gateway.kafka_in`.
    pub fn reading(self, inputs: &str) -> Edge {
        for file in ["up.yaml", "gateway.yaml"] {
            if let Ok(text) = std::fs::read_to_string(self.dir().join(file)) {
                self.write(file, &text.replace("tick: 1s}", &format!("tick: 1s, kafka_in: {inputs}}}")));
            }
        }
        self
    }

    /// Starts the processor `name` of a group, which reaches the broker at `broker` and has `more` in its configuration. The port
    /// of its metrics comes with it; name and port stay the same when it is started again.
    pub fn member(&self, name: &str, broker: &str, more: &str) -> (Process, u16) {
        let file = format!("{name}.yaml");
        let mut ports = self.members.lock().expect("members");
        let admin = *ports.entry(name.to_owned()).or_insert_with(free_port);
        let text = format!(
            "{}admin: {{listen: \"127.0.0.1:{admin}\"}}\nprocessor: {{instance: {name}, publish_every: 2s, commit: {{interval: 1s, retry_max: 2s}}}}\n{more}",
            bus(broker, &self.topic, self.partitions)
        );
        self.write(&file, &text);
        (Process::start(name, self.dir(), &["processor", "--config", &file]), admin)
    }

    /// Where the gateway shows its metrics.
    pub fn gateway_admin(&self) -> u16 {
        self.admins[0]
    }

    /// Where the processor shows its metrics: in `airan up` where the gateway does.
    pub fn processor_admin(&self) -> u16 {
        self.admins[self.admins.len() - 1]
    }

    /// Runs a tool with the configuration that knows bus and lake; its output.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.run_as(self.reader, arguments)
    }

    /// Runs a tool with a configuration; its output.
    pub fn run_as(&self, config: &str, arguments: &[&str]) -> String {
        run(self.dir(), &[arguments, &["--config", config]].concat())
    }

    /// The same where it must fail; what it said.
    pub fn run_in_vain(&self, config: &str, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--config", config]].concat();
        let command =
            std::process::Command::new(super::site::binary()).args(&arguments).current_dir(self.dir()).output();
        let out = command.expect("airan runs");
        assert!(!out.status.success(), "{arguments:?} went well: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }

    /// Has the agent scrape `url` each second from the next start on.
    pub fn scrape_target(&mut self, name: &str, url: &str) {
        self.targets.push(format!("    - {{name: {name}, url: \"{url}\", interval: 1s, timeout: 1s}}\n"));
        self.write_up();
    }

    /// Has the agent read accelerators, with these settings, from the next start on.
    pub fn read_accelerators(&mut self, settings: &str) {
        self.collects = format!("  accelerators: {settings}\n");
        self.write_up();
    }

    fn write_up(&self) {
        let targets = self.targets.concat();
        let targets = if targets.is_empty() { " []\n".to_owned() } else { format!("\n{targets}") };
        let text = format!(
            "node: edge-under-test\nbus: {{partitions: 2}}\nadmin: {{listen: \"127.0.0.1:{}\"}}\n{}{COMMITS}\
             agent:\n  host: {{interval: 1s}}\n  links: {{interval: 1s}}\n  links_ignored: []\n{}  targets:{targets}",
            self.admins[0],
            self.doors(),
            self.collects,
        );
        self.write("up.yaml", &text);
    }

    fn doors(&self) -> String {
        format!("gateway: {{http: \"127.0.0.1:{}\", grpc: \"127.0.0.1:{}\", tick: 1s}}\n", self.http, free_port())
    }

    /// Adds sections to the configuration of `airan up`.
    pub fn add_to_up(&self, text: &str) {
        let path = self.folder.path().join("up.yaml");
        let known = std::fs::read_to_string(&path).expect("up.yaml");
        self.write("up.yaml", &format!("{known}{text}"));
    }

    /// Writes a file, and the folders it lies in.
    pub fn write_in(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder takes folders");
        self.write(file, text);
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("the folder takes a file");
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `airan up`.
    pub fn up(&self) -> Process {
        self.gateways.fetch_add(1, Ordering::Relaxed);
        Process::start(&self.name, self.dir(), &["up", "--config", "up.yaml"])
    }

    /// Starts `airan up` with a folder of programs before all others in its `PATH`.
    pub fn up_with(&self, programs: &Path) -> Process {
        self.gateways.fetch_add(1, Ordering::Relaxed);
        Process::start_with(&self.name, self.dir(), &["up", "--config", "up.yaml"], Some(programs))
    }

    /// Starts a tool with the configuration that knows bus and lake, and lets it run.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(arguments[0], self.dir(), &[arguments, &["--config", self.reader]].concat())
    }

    /// Starts `airan gateway`.
    pub fn gateway(&self) -> Process {
        self.gateways.fetch_add(1, Ordering::Relaxed);
        Process::start(&format!("{}-gateway", self.name), self.dir(), &["gateway", "--config", "gateway.yaml"])
    }

    /// Starts `airan agent` as node `name`, which sends to the gateway of this site. The port of its metrics comes with it.
    pub fn agent(&self, name: &str) -> (Process, u16) {
        let (admin, file) = (free_port(), format!("{name}.yaml"));
        let text = format!(
            "node: {name}\nadmin: {{listen: \"127.0.0.1:{admin}\"}}\nagent:\n  uplink: {{url: \"http://127.0.0.1:{}\"}}\n  \
             host: {{interval: 1s}}\n  links: {{interval: 1s}}\n  links_ignored: []\n{NO_ACCELERATORS}",
            self.http
        );
        self.write(&file, &text);
        (Process::start(name, self.dir(), &["agent", "--config", &file]), admin)
    }

    /// Starts `airan processor`.
    pub fn processor(&self) -> Process {
        Process::start(&format!("{}-processor", self.name), self.dir(), &["processor", "--config", "processor.yaml"])
    }

    /// Waits until every process of the site says that it is ready.
    pub async fn ready(&self) {
        for port in &self.admins {
            let url = format!("http://127.0.0.1:{port}/readyz");
            until(&format!("{} ready on port {port}", self.name), || async {
                reqwest::get(&url).await.ok().filter(|answer| answer.status().is_success()).map(|_| ())
            })
            .await;
        }
    }

    /// Posts a body: status and text of the answer; status 0 where there was no answer.
    pub async fn push(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        self.push_encoded(path, kind, None, body).await
    }

    /// Posts a body with a content encoding.
    pub async fn push_encoded(
        &self,
        path: &str,
        kind: &str,
        encoding: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.http);
        // Only the Arrow door looks at the stream.
        let request =
            reqwest::Client::new().post(url).header("content-type", kind).header("airan-stream", "accelerator");
        let mut request = request.body(body.into());
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        match request.send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    /// Where the first process of the site shows its metrics.
    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.admins[0])
    }

    /// A scrape of the first process of the site.
    pub async fn scrape(&self) -> Option<Scrape> {
        Scrape::of(&self.metrics_url()).await
    }

    /// The rows that a query over the lake gives.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        query(self.dir(), self.reader, sql)
    }

    /// The rows that a query over the lake gives; None where it fails, as while there is no lake yet.
    pub fn try_query(&self, sql: &str) -> Option<Vec<Value>> {
        let arguments = ["query", "--config", self.reader, "--format", "json", sql];
        let out = std::process::Command::new(super::site::binary())
            .args(arguments)
            .current_dir(self.dir())
            .output()
            .expect("airan runs");
        out.status.success().then(|| serde_json::from_slice(&out.stdout).expect("airan query prints JSON"))
    }

    /// Rows of a table.
    pub fn count(&self, table: &str) -> Option<i64> {
        self.try_query(&format!("SELECT count(*) AS n FROM {table}"))?[0]["n"].as_i64()
    }

    /// `airan lake check` finds nothing wrong.
    pub fn lake_is_sound(&self) {
        println!("{}", run(self.dir(), &["lake", "check", "--config", self.reader]));
    }

    /// The sums of the design: per door, per agent, per shard; the doors' against the shards', unless a gateway was killed and its
    /// counters with it; and the shards' against the rows that the lake gives.
    ///
    /// Counters move while they are read, so each sum is waited for; what is lost or doubled never comes out even. Where rows come
    /// faster than a busy machine answers a query, the lake's rows are in the end to lie between those stored before and after it.
    pub async fn sums_add_up(&self) {
        self.sums_of(&self.admins, 0).await;
    }

    /// The same over the processes that show their metrics at these ports, where `lost` rows went from the bus before they were
    /// read.
    pub async fn sums_of(&self, ports: &[u16], lost: i64) {
        let exact_until = Instant::now() + Duration::from_secs(45);
        let sums = || async {
            let mut all = Sums::default();
            for port in ports {
                all.add(&Scrape::of(&format!("http://127.0.0.1:{port}/metrics")).await?);
            }
            Some(all)
        };
        until(&format!("the sums of {}", self.name), || async {
            let all = sums().await?;
            let counts = RAW.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect::<Vec<_>>();
            let total = self.try_query(&format!("SELECT {} AS n", counts.join(" + ")))?[0]["n"].as_i64()?;
            let is_whole = self.gateways.load(Ordering::Relaxed) > 1 || all.layers_are_even(lost as f64);
            let most = if Instant::now() < exact_until { all.stored } else { sums().await?.stored };
            (all.are_even() && is_whole && (all.stored..=most).contains(&(total as f64)) && total > 0).then_some(())
        })
        .await;
    }
}

/// A bus in a group that no other test's processors are in.
fn bus(broker: &str, topic: &str, partitions: usize) -> String {
    format!(
        "bus:\n  type: kafka\n  brokers: \"{broker}\"\n  topic: {topic}\n  partitions: {partitions}\n  \
         properties: {{group.id: group.{topic}}}\n"
    )
}

/// Commits at once, and pipelines as they are shipped.
const COMMITS: &str = "processor: {commit: {interval: 1s}}\n";

/// The counters of a site's processes, added up. A role that a process does not have counts nothing.
#[derive(Debug, Default)]
struct Sums {
    received: f64,
    acknowledged: f64,
    refused: f64,
    unknown: f64,
    collected: f64,
    delivered: f64,
    queued: f64,
    dropped: f64,
    appended: f64,
    stored: f64,
    duplicate: f64,
    rejected: f64,
    pending: f64,
}

impl Sums {
    fn add(&mut self, scrape: &Scrape) {
        let of = |name: &str, outcome: &str| scrape.sum(name, &[&format!("outcome=\"{outcome}\"")]);
        for (sum, outcome) in [
            (&mut self.received, "received"),
            (&mut self.acknowledged, "acknowledged"),
            (&mut self.refused, "refused"),
            (&mut self.unknown, "unknown"),
        ] {
            *sum += of("airan_gateway_rows_total", outcome);
        }
        for (sum, outcome) in [
            (&mut self.appended, "appended"),
            (&mut self.stored, "stored"),
            (&mut self.duplicate, "duplicate"),
            (&mut self.rejected, "rejected"),
        ] {
            *sum += of("airan_processor_rows_total", outcome);
        }
        for (sum, name) in [
            (&mut self.collected, "airan_agent_collected_rows_total"),
            (&mut self.delivered, "airan_agent_acknowledged_rows_total"),
            (&mut self.queued, "airan_agent_queued_rows"),
            (&mut self.dropped, "airan_agent_dropped_rows_total"),
            (&mut self.pending, "airan_processor_pending_rows"),
        ] {
            *sum += scrape.sum(name, &[]);
        }
    }

    /// Each layer by itself.
    fn are_even(&self) -> bool {
        self.received == self.acknowledged + self.refused + self.unknown
            && self.collected == self.delivered + self.queued + self.dropped
            && self.appended == self.stored + self.duplicate + self.rejected + self.pending
    }

    /// What doors saw acknowledged is on the bus; what they do not know of may be.
    fn layers_are_even(&self, lost: f64) -> bool {
        (self.acknowledged..=self.acknowledged + self.unknown).contains(&(self.appended + lost))
    }
}
