//! Configuration: `config/defaults.yaml` holds every default, a user's file is laid over it.
//!
//! ```text
//! defaults.yaml ─▶ tree ─┬─ overlays (`airan up`, Kafka) ─┬─ user's file ─▶ tree ─▶ settings
//!                        └────────── substitute ${…} ─────┘
//! ```
//!
//! The role crates' settings have no defaults of their own and refuse unknown keys; `read.rs` turns that into errors with
//! file, line, column and "did you mean", and `check.rs` does the same for values that cannot work. Nothing here is global: a [`Config`] is read once and passed around.

mod check;
mod read;
mod schema;
mod sections;
mod show;
mod substitute;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::path::Path;

use airan_bus::BusSettings;
use airan_lake::LakeSettings;
use airan_model::Place;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

pub(crate) use read::unknown;
pub use schema::schema;
pub use sections::{AdminSection, CatalogSection, InventorySection, LogFormat, LogSection, PipelinesSection};
use substitute::{PROCESS, Sources};
use tree::{Node, Value};

/// Every default: the file `config/defaults.yaml`, as built in.
const DEFAULTS: &str = include_str!("../../../../config/defaults.yaml");
/// How errors name it.
const DEFAULTS_FILE: &str = "config/defaults.yaml";

/// All settings of a process.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// This machine's name in rows; None: its host name.
    pub node: Option<String>,
    /// Region of this machine's rows where no inventory places them.
    pub region: String,
    /// What carries rows from gateway to processor.
    pub bus: BusSettings,
    /// Where Parquet goes.
    pub lake: LakeSettings,
    /// The doors.
    pub gateway: airan_gateway::Settings,
    /// Windows and commits.
    pub processor: airan_processor::Settings,
    /// Collectors and scraping.
    pub agent: airan_agent::Settings,
    /// Streams and mappings.
    pub catalog: CatalogSection,
    /// Sites.
    pub inventory: InventorySection,
    /// Queries.
    pub pipelines: PipelinesSection,
    /// Metrics and health.
    pub admin: AdminSection,
    /// Log lines.
    pub log: LogSection,
}

/// The sections as the tree holds them. The bus is read by its type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    node: Option<String>,
    region: String,
    #[serde(rename = "bus")]
    _bus: IgnoredAny,
    lake: LakeSettings,
    gateway: airan_gateway::Settings,
    processor: airan_processor::Settings,
    agent: airan_agent::Settings,
    catalog: CatalogSection,
    inventory: InventorySection,
    pipelines: PipelinesSection,
    admin: AdminSection,
    log: LogSection,
}

/// A mistake in a configuration file, with its place where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File, line and column.
    pub place: Option<Place>,
    /// What is wrong and what to do.
    pub message: String,
}

impl ConfigError {
    fn at(place: Place, message: impl Into<String>) -> ConfigError {
        ConfigError { place: Some(place), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Which defaults hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A role of its own, or a tool.
    Role,
    /// `airan up`.
    Up,
}

/// Settings, and the tree they came from.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    tree: Node,
}

impl Loaded {
    /// The settings in force as YAML, in the order of the defaults; secrets and all that came out of `${…}` stay hidden.
    pub fn show(&self) -> Result<String, ConfigError> {
        show::show(&self.config, &self.tree)
    }
}

/// Reads the defaults and, over them, a user's file. `data` is the folder that `--data` names: it goes before both.
///
/// # Errors
/// The first mistake, with its place.
pub fn load(file: Option<&Path>, mode: Mode, data: Option<&Path>) -> Result<Loaded, ConfigError> {
    let user = match file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
                place: None,
                message: format!("cannot read the configuration {}: {error}", path.display()),
            })?;
            Some((path.display().to_string(), text))
        }
    };
    let user = user.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    load_text(user, mode, data, &PROCESS)
}

fn load_text(
    user: Option<(&str, &str)>,
    mode: Mode,
    data: Option<&Path>,
    sources: &Sources<'_>,
) -> Result<Loaded, ConfigError> {
    let mut defaults = Defaults::read(sources)?;
    let user = user.map(|(name, text)| Node::read(name, text, 0, sources)).transpose()?;
    let mut tree = defaults.base;
    if mode == Mode::Up {
        tree.overlay(defaults.up);
    }
    if bus_type(user.as_ref())? == Some("kafka")
        && let Some(bus) = defaults.kafka.take("bus")
    {
        tree.put("bus", bus);
    }
    if let Some(user) = user {
        if !matches!(user.value, Value::Map(_) | Value::Null) {
            return Err(ConfigError::at(user.place, "a map of sections is wanted here, as in config/defaults.yaml"));
        }
        tree.overlay(user);
    }
    if let Some(data) = data {
        put_data(&mut tree, data);
    }
    let config = typed(&tree)?;
    check::check(&config, &tree)?;
    Ok(Loaded { config, tree })
}

/// The documents of the defaults.
struct Defaults {
    base: Node,
    up: Node,
    kafka: Node,
}

impl Defaults {
    fn read(sources: &Sources<'_>) -> Result<Defaults, ConfigError> {
        let mut line = 0;
        let mut documents = Vec::new();
        for text in DEFAULTS.split("\n---\n") {
            documents.push(Node::read(DEFAULTS_FILE, text, line, sources)?);
            line += text.lines().count() as u64 + 1;
        }
        let mut under = |name: &str| {
            let is_it = |document: &Node| matches!(document.get("when"), Some(Node { value: Value::Text(when), .. }) if when == name);
            let index = documents.iter().position(is_it);
            let mut document = index.map(|index| documents.remove(index)).ok_or_else(|| ConfigError {
                place: None,
                message: format!("{DEFAULTS_FILE} has no document for `when: {name}`"),
            })?;
            document.take("when");
            Ok(document)
        };
        let (up, kafka) = (under("up")?, under("kafka")?);
        Ok(Defaults { base: documents.swap_remove(0), up, kafka })
    }
}

/// The bus that a user's file asks for.
fn bus_type(user: Option<&Node>) -> Result<Option<&'static str>, ConfigError> {
    let Some(node) = user.and_then(|user| user.get("bus")).and_then(|bus| bus.get("type")) else { return Ok(None) };
    match &node.value {
        Value::Text(name) if name == "kafka" => Ok(Some("kafka")),
        Value::Text(name) if name == "local" => Ok(Some("local")),
        Value::Text(name) => Err(ConfigError::at(node.place.clone(), read::unknown("bus", name, &["local", "kafka"]))),
        _ => Err(ConfigError::at(node.place.clone(), "`local` or `kafka` is wanted here")),
    }
}

/// Moves log and lake under one folder.
fn put_data(tree: &mut Node, data: &Path) {
    let place = Place { file: "--data".to_owned(), line: 0, column: 0 };
    let is_local = matches!(tree.get("bus").and_then(|bus| bus.get("type")), Some(Node { value: Value::Text(kind), .. }) if kind == "local");
    let sections = [("bus", "log", is_local), ("lake", "lake", true)];
    for (section, folder, _) in sections.into_iter().filter(|(.., applies)| *applies) {
        let path = Value::Text(data.join(folder).display().to_string());
        let Value::Map(entries) = &mut tree.value else { return };
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == section) {
            entry.node.put("path", Node { place: place.clone(), value: path, written: None });
        }
    }
}

fn typed(tree: &Node) -> Result<Config, ConfigError> {
    let sections: Sections = read::read(tree)?;
    let bus = tree.get("bus").ok_or_else(|| ConfigError::at(tree.place.clone(), "`bus` is missing"))?;
    Ok(Config {
        node: sections.node,
        region: sections.region,
        bus: bus_settings(bus)?,
        lake: sections.lake,
        gateway: sections.gateway,
        processor: sections.processor,
        agent: sections.agent,
        catalog: sections.catalog,
        inventory: sections.inventory,
        pipelines: sections.pipelines,
        admin: sections.admin,
        log: sections.log,
    })
}

/// Reads the bus by its type: serde's own tagged enums lose the places of what they hold.
fn bus_settings(bus: &Node) -> Result<BusSettings, ConfigError> {
    let mut settings = bus.clone();
    let Some(kind) = settings.take("type") else {
        return Err(ConfigError::at(
            bus.place.clone(),
            "`type: local` or `type: kafka` and its settings are wanted here",
        ));
    };
    match &kind.value {
        Value::Text(name) if name == "kafka" => Ok(BusSettings::Kafka(read::read(&settings)?)),
        _ => Ok(BusSettings::Local(read::read(&settings)?)),
    }
}

impl Config {
    /// The name of this machine in its rows.
    ///
    /// # Errors
    /// If none is configured and the system has no host name.
    pub fn node_name(&self) -> Result<String, ConfigError> {
        let configured = self.node.clone().filter(|name| !name.trim().is_empty());
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        configured
            .or_else(host)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| ConfigError { place: None, message: "this machine has no host name: set `node`".to_owned() })
    }

    /// The name of this processor among those of its group. `admin` is the port its admin server has, which no other process of
    /// this machine has, and which is the same after a restart.
    ///
    /// # Errors
    /// As [`Config::node_name`].
    pub fn instance_name(&self, admin: u16) -> Result<String, ConfigError> {
        match &self.processor.instance {
            Some(name) => Ok(name.trim().to_owned()),
            None => Ok(format!("{}-{admin}", self.node_name()?)),
        }
    }
}
