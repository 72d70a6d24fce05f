//! The settings of the binary itself; those of the roles are theirs.

use std::net::SocketAddr;
use std::path::PathBuf;

use airan_model::settings::{BadSetting, Checker, DurationSetting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `catalog` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogSection {
    /// A folder of catalog files; None: the built-in catalog.
    pub folder: Option<PathBuf>,
}

/// The `inventory` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InventorySection {
    /// The inventory file; None: only this node is known.
    pub file: Option<PathBuf>,
    /// Site of this node where there is no file.
    pub site: String,
    /// Jurisdiction of this node where there is no file.
    pub jurisdiction: String,
    /// How often the file is looked at.
    pub reload: DurationSetting,
}

/// The `pipelines` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelinesSection {
    /// A folder of pipelines; None: the built-in ones.
    pub folder: Option<PathBuf>,
}

/// The `admin` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// Address of the page, `/metrics` and their neighbours.
    pub listen: SocketAddr,
    /// Lets it listen on other than loopback addresses.
    pub insecure: bool,
    /// Names besides those of loopback that it answers to while it listens on loopback.
    pub hosts: Vec<String>,
}

impl AdminSection {
    /// Refuses an address that others reach, without `insecure`.
    pub fn check(&self) -> Result<(), BadSetting> {
        let is_safe = self.insecure || self.listen.ip().to_canonical().is_loopback();
        let problem = format!(
            "{} is not a loopback address: set `admin.insecure: true` to let anyone who reaches it read it",
            self.listen
        );
        Checker::new("admin").require("listen", is_safe, &problem).finish()
    }
}

/// The `log` section.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// A level, or levels by module.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
