//! The roles wired into a process.
//!
//! ```text
//! up         agent ──in process──▶ gateway ──local log──▶ processor ──▶ lake, /metrics
//!
//! agent      agent ──HTTP──▶
//! gateway            ──HTTP, gRPC──▶ gateway ──Kafka──▶
//! processor                                   ──Kafka──▶ processor ──▶ lake, /metrics
//! ```
//!
//! Each function below is a table of contents: what a process consists of, in the order in which it is made, which is also the
//! order of the path; but the doors come before the bus, so that senders are told to come again while it is waited for. Roles
//! are stopped in that order too, so that each hands on what it holds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use airan_agent::{Agent, Submit, Uplink, UplinkError};
use airan_bus::{Bus, BusSettings};
use airan_decode::DecodedRows;
use airan_gateway::{Door, Doors, Gateway, Intake, Refusal};
use airan_lake::Lake;
use airan_model::catalog::Catalog;
use airan_model::inventory::Inventory;
use airan_model::reject::Reason;
use airan_model::settings::Secret;
use airan_model::time::Clock;
use airan_processor::Processor;
use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::banner::{self, Shown};
use crate::bus_metrics::BusMetrics;
use crate::config::{Config, ConfigError};
use crate::page::{About, LakeView, PipelineView};
use crate::process::{Process, registered};
use crate::{demo, inventory, pipelines};

/// `airan up`: every role in one process. With the demo its agent makes up a site and collects nothing.
pub async fn up(config: Config, shown: Shown, choice: demo::Choice) -> Result<()> {
    demo::begin(&config, choice)?;
    let inventory = if choice.demo { Some(demo::inventory()?) } else { None };
    let catalog = load_catalog(&config)?;
    let mut process = start(&config, &["agent", "gateway", "processor"]).await?;
    let config = as_member(config, &process)?;
    let doors = open_doors(&config, &process).await?;
    let bus = open_bus(&config, &mut process).await?;
    let gateway = make_gateway(&config, &process, doors, &catalog, &bus, inventory)?;
    let processor = make_processor(&config, &mut process, &catalog, &bus).await?;
    let uplink = Uplink::InProcess(submit_to(gateway.intake(), config.node_name()?));
    let agent = make_agent(&config, &process, &catalog, uplink)?;
    let agent = if choice.demo { agent.simulating() } else { agent };
    banner::print(&config, &shown, process.admin_address, gateway.addresses())?;

    process.work("agent", config.agent.drain.get(), |stop| run_agent(agent, stop));
    process.work("gateway", config.gateway.drain.get(), |stop| run_gateway(gateway, stop));
    process.work("processor", processor_stop(&config), |stop| run_processor(processor, stop));
    process.run().await
}

/// The last commits, and leaving the group.
fn processor_stop(config: &Config) -> Duration {
    config.processor.stop_within.get().saturating_add(Processor::LEAVES_WITHIN)
}

/// `airan agent`: rows go to a gateway over HTTP.
pub async fn agent(config: Config) -> Result<()> {
    let url = config.agent.uplink.url.clone().ok_or_else(|| ConfigError {
        place: None,
        message: "agent.uplink.url is not set: write the gateway's address, as http://host:4318".to_owned(),
    })?;
    let catalog = load_catalog(&config)?;
    let mut process = start(&config, &["agent"]).await?;
    let agent = make_agent(&config, &process, &catalog, Uplink::Http { url })?;
    process.work("agent", config.agent.drain.get(), |stop| run_agent(agent, stop));
    process.run().await
}

/// `airan gateway`: rows from the doors go to Kafka.
pub async fn gateway(config: Config) -> Result<()> {
    needs_kafka(&config, "gateway")?;
    let catalog = load_catalog(&config)?;
    let mut process = start(&config, &["gateway"]).await?;
    let doors = open_doors(&config, &process).await?;
    let bus = open_bus(&config, &mut process).await?;
    let gateway = make_gateway(&config, &process, doors, &catalog, &bus, None)?;
    process.work("gateway", config.gateway.drain.get(), |stop| run_gateway(gateway, stop));
    process.run().await
}

/// `airan processor`: rows from Kafka become windows and Parquet.
pub async fn processor(config: Config) -> Result<()> {
    needs_kafka(&config, "processor")?;
    let catalog = load_catalog(&config)?;
    let mut process = start(&config, &["processor"]).await?;
    let config = as_member(config, &process)?;
    let bus = open_bus(&config, &mut process).await?;
    let processor = make_processor(&config, &mut process, &catalog, &bus).await?;
    process.work("processor", processor_stop(&config), |stop| run_processor(processor, stop));
    process.run().await
}

/// The process, which from here on can be asked how it is.
async fn start(config: &Config, roles: &[&'static str]) -> Result<Process> {
    let process = Process::start(config).await?;
    let bus = match config.bus {
        BusSettings::Kafka(_) => "kafka",
        BusSettings::Local(_) => "local",
    };
    process.admin.introduce(About { node: config.node_name()?, roles: roles.to_vec(), bus });
    Ok(process)
}

/// The configuration with this processor's name settled, for the lake's records and for the group of processors. A
/// `group.instance.id` among the bus's properties goes before it in the group.
fn as_member(mut config: Config, process: &Process) -> Result<Config> {
    let name = config.instance_name(process.admin_address.port())?;
    if let BusSettings::Kafka(settings) = &mut config.bus {
        settings.properties.entry("group.instance.id".to_owned()).or_insert_with(|| Secret::from(name.clone()));
    }
    config.processor.instance = Some(name);
    Ok(config)
}

/// The catalog of the configuration: a folder's, or the built-in one.
pub fn load_catalog(config: &Config) -> Result<Arc<Catalog>> {
    let folder = config.catalog.folder.as_deref();
    Ok(Arc::new(folder.map_or_else(Catalog::builtin, |folder: &Path| Catalog::load(folder))?))
}

/// The doors, which answer "come again" until there is a gateway behind them.
async fn open_doors(config: &Config, process: &Process) -> Result<Doors> {
    let doors = Doors::bind(config.gateway.clone()).await?;
    registered("gateway", doors.metrics().register(process.admin.registry()))?;
    Ok(doors)
}

async fn open_bus(config: &Config, process: &mut Process) -> Result<Arc<dyn Bus>> {
    process.admin.starting(Some("waiting for the bus"));
    let clock = process.clock.clone();
    let open = async { airan_bus::open(&config.bus, clock).await.context("cannot open the bus") };
    let bus = process.or_signal(open).await?;
    registered("bus", BusMetrics::register(process.admin.registry(), Arc::clone(&bus)))?;
    let ready = Arc::clone(&bus);
    process.admin.watch("bus", move || {
        let bus = Arc::clone(&ready);
        async move { bus.ready().await }
    });
    Ok(bus)
}

/// The gateway. `fixed` is an inventory in place of the configuration's.
fn make_gateway(
    config: &Config,
    process: &Process,
    doors: Doors,
    catalog: &Arc<Catalog>,
    bus: &Arc<dyn Bus>,
    fixed: Option<Inventory>,
) -> Result<Gateway> {
    let is_fixed = fixed.is_some();
    let (publish, inventory) = watch::channel(Arc::new(fixed.map_or_else(|| inventory::load(config), Ok)?));
    if !is_fixed {
        tokio::spawn(inventory::follow(config.clone(), publish, process.rest()));
    }
    let (bus, catalog, clock) = (Arc::clone(bus), Arc::clone(catalog), process.clock.clone());
    let gateway = doors.lead_to(bus, catalog, inventory, clock);
    process.admin.show_missing_of(gateway.intake());
    Ok(gateway)
}

async fn make_processor(
    config: &Config,
    process: &mut Process,
    catalog: &Arc<Catalog>,
    bus: &Arc<dyn Bus>,
) -> Result<Processor> {
    process.admin.starting(Some("opening the lake"));
    let pipelines = pipelines::load(config, catalog).await?;
    let clock = process.clock.clone();
    let open = async { Lake::open(&config.lake, clock).await.context("cannot open the lake (lake.path)") };
    let lake = process.or_signal(open).await?;
    lake.set_owner(&config.instance_name(process.admin_address.port())?);
    let registry = process.admin.registry();
    registered("lake", lake.metrics().register(registry))?;
    let shown = pipelines.iter().map(PipelineView::of).collect();
    process.admin.show_lake(LakeView::new(lake.clone(), shown, process.clock.clone()));
    let (bus, catalog, clock) = (Arc::clone(bus), Arc::clone(catalog), process.clock.clone());
    let processor = Processor::new(config.processor.clone(), bus, lake, catalog, pipelines, clock)?;
    registered("processor", processor.metrics().register(registry))?;
    registered("pipelines", processor.results().register(registry))?;
    let readiness = processor.readiness();
    process.admin.watch("processor", move || std::future::ready(readiness.check()));
    Ok(processor)
}

fn make_agent(config: &Config, process: &Process, catalog: &Arc<Catalog>, uplink: Uplink) -> Result<Agent> {
    let agent = assemble_agent(config, catalog, uplink, process.clock.clone())?;
    registered("agent", agent.metrics().register(process.admin.registry()))?;
    Ok(agent)
}

fn assemble_agent(config: &Config, catalog: &Arc<Catalog>, uplink: Uplink, clock: Clock) -> Result<Agent, ConfigError> {
    let agent = Agent::new(&config.node_name()?, config.agent.clone(), Arc::clone(catalog), uplink, clock);
    agent.map_err(|error| ConfigError { place: None, message: format!("agent: {error}") })
}

/// Checks what an agent would say of the configuration, without starting one: its node, targets, labels and uplink.
///
/// # Errors
/// What it would not start with.
pub fn check_agent(config: &Config, catalog: &Arc<Catalog>) -> Result<(), ConfigError> {
    let uplink = match &config.agent.uplink.url {
        Some(url) => Uplink::Http { url: url.clone() },
        None => Uplink::InProcess(Box::new(|_| Box::pin(std::future::ready(Ok(()))))),
    };
    assemble_agent(config, catalog, uplink, Clock::system()).map(drop)
}

async fn run_agent(agent: Agent, stop: tokio_util::sync::CancellationToken) -> Result<()> {
    agent.run(stop).await;
    Ok(())
}

async fn run_gateway(gateway: Gateway, stop: tokio_util::sync::CancellationToken) -> Result<()> {
    Ok(gateway.run(stop).await?)
}

async fn run_processor(processor: Processor, stop: tokio_util::sync::CancellationToken) -> Result<()> {
    Ok(processor.run(stop).await?)
}

/// The agent's way to the gateway of its own process.
fn submit_to(intake: Intake, node: String) -> Submit {
    Box::new(move |rows: DecodedRows| {
        let (intake, node) = (intake.clone(), node.clone());
        Box::pin(async move {
            match intake.submit(vec![rows], &node, Door::Agent).await {
                Ok(_ack) => Ok(()),
                Err(refusal) => Err(for_the_agent(&refusal)),
            }
        })
    })
}

/// A refusal in the words of the agent's next step.
fn for_the_agent(refusal: &Refusal) -> UplinkError {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Malformed {
            reason: Reason::UnknownStream | Reason::WrongType | Reason::UnsupportedFormat, ..
        }
        | Refusal::Unsupported { .. } => UplinkError::RefusedAll { reason },
        Refusal::Malformed { .. } | Refusal::TooLarge { .. } | Refusal::RowTooLarge { .. } => {
            UplinkError::Refused { reason }
        }
        Refusal::Slow => UplinkError::Slow { reason },
        Refusal::OverShare { retry_after }
        | Refusal::Busy { retry_after, .. }
        | Refusal::Unavailable { retry_after, .. }
        | Refusal::Unknown { retry_after, .. }
        | Refusal::Internal { retry_after, .. } => UplinkError::Retry { reason, after: Some(*retry_after) },
    }
}

/// The local log serves one process alone.
fn needs_kafka(config: &Config, role: &str) -> Result<(), ConfigError> {
    match config.bus {
        BusSettings::Kafka(_) => Ok(()),
        BusSettings::Local(_) => Err(ConfigError {
            place: None,
            message: format!(
                "bus.type is local, a log that one process alone can use: set `bus: {{type: kafka, brokers: …}}` for `airan {role}`, \
                 or run `airan up`"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{self, Mode};

    fn config_of(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.yaml");
        std::fs::write(&path, text).unwrap();
        config::load(Some(&path), Mode::Role, None).unwrap_or_else(|error| panic!("{error}")).config
    }

    /// Scenario: `airan gateway` while no broker is there, then a request at its door.
    /// Guarantees: the door is open and says "come again"; `/readyz` says what is waited for.
    #[tokio::test]
    async fn a_gateway_without_a_broker_says_come_again() {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (http, grpc, admin, broker) = (free(), free(), free(), free());
        let config = config_of(&format!(
            "gateway: {{http: '{http}', grpc: '{grpc}'}}\nadmin: {{listen: '{admin}'}}\n\
             bus: {{type: kafka, brokers: '{broker}'}}\nnode: edge-1\n"
        ));
        let running = tokio::spawn(gateway(config));
        let client = reqwest::Client::new();
        let post = || client.post(format!("http://{http}/v1/ndjson")).header("content-type", "application/x-ndjson");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let answer = loop {
            match post().body("{}\n").send().await {
                Ok(answer) => break answer,
                Err(error) => assert!(std::time::Instant::now() < deadline && !running.is_finished(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
        let ready = client.get(format!("http://{admin}/readyz")).send().await.unwrap();
        assert_eq!(ready.status().as_u16(), 503);
        assert!(ready.text().await.unwrap().contains("waiting for the bus"));
        let metrics = client.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(metrics.contains("airan_gateway_requests_total{door=\"ndjson\",status=\"503\"} 1"), "{metrics}");
        running.abort();
    }

    /// Scenario: settings with which an agent would not start, as `airan validate` finds them.
    /// Guarantees: each is a mistake of the configuration, in a line that names it and shows no password.
    #[test]
    fn what_an_agent_would_not_start_with_is_found_before() {
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let check = |targets: &str| {
            let config = config_of(&format!("node: edge-1\nagent: {{targets: {targets}}}\n"));
            check_agent(&config, &catalog).map_err(|error| error.to_string())
        };
        let target = "{name: a, url: 'http://a:1'}";
        assert_eq!(check(&format!("[{target}]")), Ok(()));
        for (targets, told) in [
            (format!("[{target}, {target}]"), "two targets are named `a`"),
            ("[{name: a, url: 'https://jo:hunter2@a:1'}]".to_owned(), "target `a` is no address"),
            ("[{name: a, url: 'http://a:1', labels: {imsi: x}}]".to_owned(), "names a subscriber"),
        ] {
            let line = check(&targets).unwrap_err();
            assert!(line.contains(told) && !line.contains("hunter2"), "{line}");
        }
    }
}
