//! The agent as a whole: what is collected, and where it goes. See the picture in the crate's documentation.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use airan_decode::DecodedRows;
use airan_model::catalog::{Catalog, FieldClass};
use airan_model::identity::BatchId;
use airan_model::limits::Limits;
use airan_model::settings::BadSetting;
use airan_model::time::{Clock, Micros};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::collect::{Collector, Kernel};
use crate::demo;
use crate::metrics::AgentMetrics;
use crate::queue::{Portion, Queue};
use crate::rows::to_rows;
use crate::scrape::{self, Additions, Schedule, Target};
use crate::settings::{AcceleratorSource, CollectorSettings, Settings, TargetSettings};
use crate::stamp::Stamp;
use crate::uplink::{Line, Sender, Uplink};

/// Most characters of the agent's own name: those of a host name (RFC 1035).
const NODE_MAX: usize = 253;

/// A time before all others, from which differences do not overflow.
const NEVER: Micros = Micros::MIN / 2;

/// Why an agent cannot start. The settings are to be changed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Two targets of one name.
    #[error("two targets are named `{0}`")]
    TwoTargets(String),
    /// A setting that cannot work.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// A URL that is none, or not of the kind that can be used. It is not printed, for it may hold a password.
    #[error("the url of {of} is no address that can be used: write http://host:port (TLS is not built in)")]
    Url {
        /// Which setting it is of.
        of: String,
    },
    /// A label that names a subscriber.
    #[error("label `{label}` of target `{target}` names a subscriber: it may not be added to rows")]
    Subscriber {
        /// The target.
        target: String,
        /// The label.
        label: String,
    },
    /// A stream that the catalog lacks but a collector fills.
    #[error("the catalog has no stream `{0}`, which this agent's own collector fills: switch the collector off")]
    NoStream(&'static str),
    /// A node without a name, or with one that cannot stand in an HTTP header.
    #[error("`{0}` cannot name the agent's node: write 1 to {NODE_MAX} visible ASCII characters")]
    Node(String),
    /// The HTTP client cannot be made.
    #[error("cannot make an http client")]
    Client(#[from] reqwest::Error),
    /// The metrics cannot be made.
    #[error("cannot make metrics")]
    Metrics(#[from] prometheus::Error),
}

/// What every part of the agent uses.
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<AgentMetrics>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) stamp: Stamp,
    /// When a scraped target last reported accelerators, or never.
    pub(crate) accelerators_scraped: AtomicI64,
}

impl Shared {
    /// Sleeps until `at`. A clock that is set back meanwhile does not make it longer.
    pub(crate) async fn until(&self, at: Micros) {
        let wait = u64::try_from(at.saturating_sub(self.clock.now())).unwrap_or(0);
        tokio::time::sleep(Duration::from_micros(wait)).await;
    }

    /// Gives rows their identity and queues them.
    pub(crate) fn enqueue(&self, from: &str, source: &str, rows: DecodedRows) {
        match self.stamp.stamp(rows, source) {
            Ok(rows) => self.queue.push(from, rows),
            Err(error) => tracing::error!(%error, from, "collected rows are no rows: these are lost"),
        }
    }
}

/// Collects, and sends to a gateway.
pub struct Agent {
    settings: Settings,
    shared: Arc<Shared>,
    targets: Vec<Target>,
    client: reqwest::Client,
    line: Line,
    is_simulating: bool,
}

impl Agent {
    /// Makes an agent for `node`, the name its own rows carry and it introduces itself with. Nothing runs before [`Agent::run`].
    pub fn new(
        node: &str,
        settings: Settings,
        catalog: Arc<Catalog>,
        uplink: Uplink,
        clock: Clock,
    ) -> Result<Agent, AgentError> {
        if !(1..=NODE_MAX).contains(&node.len()) || !node.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AgentError::Node(node.to_owned()));
        }
        for (collector, own) in [(Collector::Host, &settings.host), (Collector::Link, &settings.links)] {
            if own.enabled && catalog.stream(collector.stream()).is_none() {
                return Err(AgentError::NoStream(collector.stream()));
            }
        }
        let explicit = !matches!(settings.accelerators.source, AcceleratorSource::Auto | AcceleratorSource::Off);
        if explicit && catalog.stream("accelerator").is_none() {
            return Err(AgentError::NoStream("accelerator"));
        }
        settings.check()?;
        let metrics = Arc::new(AgentMetrics::new()?);
        let limit = Portion { rows: settings.queue.rows, bytes: settings.queue.bytes.size() };
        let targets = targets(&settings, &catalog)?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("airan-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()?;
        let line = match uplink {
            Uplink::InProcess(submit) => Line::InProcess(submit),
            Uplink::Http { url } => {
                let endpoint = url.endpoint("/v1/arrow");
                let endpoint = endpoint.ok_or_else(|| AgentError::Url { of: "the gateway".to_owned() })?;
                Line::Http { client: client.clone(), endpoint, sender: node.to_owned() }
            }
        };
        let shared = Shared {
            node: node.to_owned(),
            catalog,
            clock,
            queue: Arc::new(Queue::new(limit, Arc::clone(&metrics))),
            metrics,
            stamp: Stamp::new(BatchId::random_from(rand::random())),
            accelerators_scraped: AtomicI64::new(NEVER),
        };
        Ok(Agent { settings, shared: Arc::new(shared), targets, client, line, is_simulating: false })
    }

    /// In place of all that the settings tell it to collect, rows of a made-up site: see [`crate::demo`].
    pub fn simulating(self) -> Agent {
        Agent { is_simulating: true, ..self }
    }

    /// The agent's metrics; the caller registers them.
    pub fn metrics(&self) -> Arc<AgentMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Runs until `stop`, then sends what is queued, for at most the `drain` setting. What is left then is dropped and counted.
    pub async fn run(self, stop: CancellationToken) {
        let Agent { settings, shared, targets, client, line, is_simulating } = self;
        let finish = CancellationToken::new();
        let sender = Sender {
            line,
            queue: Arc::clone(&shared.queue),
            settings: settings.uplink.clone(),
            metrics: Arc::clone(&shared.metrics),
        };
        let sending = tokio::spawn(sender.run(finish.clone(), settings.drain.get()));

        let mut collecting = JoinSet::new();
        if is_simulating {
            collecting.spawn(demo::run(settings.demo.clone(), Arc::clone(&shared), stop.clone()));
        } else {
            start_collecting(&mut collecting, &settings, targets, &client, &shared, &stop);
        }
        stop.cancelled().await;
        while let Some(ended) = collecting.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a collector broke");
            }
        }
        finish.cancel();
        if let Err(error) = sending.await {
            tracing::error!(%error, "the uplink broke");
        }
    }
}

/// Sets to work whatever the settings tell the agent to collect.
fn start_collecting(
    collecting: &mut JoinSet<()>,
    settings: &Settings,
    targets: Vec<Target>,
    client: &reqwest::Client,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) {
    let kernel = Kernel {
        proc_path: settings.proc_path.clone(),
        sys_path: settings.sys_path.clone(),
        links_ignored: settings.links_ignored.clone(),
    };
    for (collector, own) in [(Collector::Host, &settings.host), (Collector::Link, &settings.links)] {
        if own.enabled {
            collecting.spawn(collect(collector, own.clone(), kernel.clone(), Arc::clone(shared), stop.clone()));
        }
    }
    #[cfg(target_os = "linux")]
    if settings.accelerators.source != AcceleratorSource::Off
        && shared.catalog.stream(crate::accelerators::STREAM).is_some()
    {
        let (own, proc_path) = (settings.accelerators.clone(), settings.proc_path.clone());
        let scraped_once = targets.iter().map(|target| target.schedule.interval() + target.timeout).max();
        let patience = scraped_once.unwrap_or_default();
        collecting.spawn(crate::accelerators::run(own, proc_path, patience, Arc::clone(shared), stop.clone()));
    }
    for target in targets {
        collecting.spawn(scrape::run(target, client.clone(), Arc::clone(shared), stop.clone()));
    }
}

/// Runs one of the agent's own collectors at every mark of its schedule until `stop`.
async fn collect(
    collector: Collector,
    settings: CollectorSettings,
    kernel: Kernel,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let name = collector.stream();
    let schedule = Schedule::new(&format!("{}/{name}", shared.node), settings.interval.micros());
    let mut worked: Option<bool> = None;
    loop {
        tokio::select! {
            () = shared.until(schedule.next(shared.clock.now())) => {}
            () = stop.cancelled() => return,
        }
        let kernel = kernel.clone();
        let collected = tokio::task::spawn_blocking(move || collector.collect(&kernel)).await;
        let now = shared.clock.now();
        let rows = match collected {
            Ok(Ok(collection)) => match shared.catalog.stream(name) {
                Some(stream) => to_rows(stream, &shared.node, now, collection.start_ts, &collection.readings)
                    .map_err(|error| error.to_string()),
                None => Err(format!("the catalog has no stream {name}")),
            },
            Ok(Err(error)) => Err(crate::uplink::plain(&error)),
            Err(error) => Err(error.to_string()),
        };
        let works = rows.is_ok();
        let outcome = if works { "success" } else { "failure" };
        shared.metrics.collections.with_label_values(&[name, outcome]).inc();
        match rows {
            Ok(rows) => {
                if worked == Some(false) {
                    tracing::info!(collector = name, "collecting works again");
                }
                shared.enqueue(name, &format!("procfs/{name}"), rows);
            }
            Err(reason) if worked != Some(false) => {
                tracing::warn!(collector = name, reason, "collecting from this host fails");
            }
            Err(_) => {}
        }
        worked = Some(works);
    }
}

fn targets(settings: &Settings, catalog: &Catalog) -> Result<Vec<Target>, AgentError> {
    let mut names = HashSet::new();
    let mut targets = Vec::new();
    for target in &settings.targets {
        if !names.insert(target.name.as_str()) {
            return Err(AgentError::TwoTargets(target.name.clone()));
        }
        targets.push(ready(target, settings, catalog)?);
    }
    Ok(targets)
}

fn ready(target: &TargetSettings, settings: &Settings, catalog: &Catalog) -> Result<Target, AgentError> {
    let no_address = || AgentError::Url { of: format!("target `{}`", target.name) };
    let endpoint = target.url.endpoint("").ok_or_else(no_address)?;
    let subscriber = target.labels.keys().find(|label| catalog.field_class(label) == FieldClass::Drop);
    if let Some(label) = subscriber {
        return Err(AgentError::Subscriber { target: target.name.clone(), label: label.clone() });
    }
    let all = &settings.scrape;
    let interval = target.interval.unwrap_or(all.interval);
    Ok(Target {
        schedule: Schedule::new(&format!("{}/{}", target.name, endpoint.shown), interval.micros()),
        timeout: target.timeout.unwrap_or(all.timeout).get().min(interval.get()),
        limits: Limits {
            request_bytes: all.body.size(),
            samples_per_scrape: all.samples,
            labels_per_sample: all.labels,
            label_bytes: all.label_bytes.size(),
            // Text has no values inside values.
            ..Limits::DOCUMENTED
        },
        additions: Additions { target: target.name.clone(), node: target.node.clone(), labels: target.labels.clone() },
        endpoint,
    })
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
