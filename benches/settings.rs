//! Settings of the benchmarked roles: the documented defaults, with what a benchmark has to change.

use airan_gateway::Settings as Gateway;
use airan_lake::LakeSettings;
use airan_processor::Settings as Processor;
use anyhow::{Context, Result};
use serde::Deserialize;

/// The roles' parts of the defaults.
#[derive(Debug, Deserialize)]
pub struct Defaults {
    /// Doors.
    pub gateway: Gateway,
    /// Shards.
    pub processor: Processor,
    /// The lake.
    pub lake: LakeSettings,
}

/// As documented, on one thread.
pub fn defaults() -> Result<Defaults> {
    let text = include_str!("../config/defaults.yaml");
    let first = text.split("\n---\n").next().unwrap_or(text);
    let mut defaults: Defaults = serde_saphyr::from_str(first).context("config/defaults.yaml")?;
    defaults.processor.threads = 1;
    Ok(defaults)
}
