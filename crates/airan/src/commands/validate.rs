//! `airan validate`: everything that is read at start, without starting.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::config::{self, Mode};
use crate::{inventory, pipelines, wiring};

/// Arguments of `airan validate`.
#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Configuration file with what differs from config/defaults.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With the defaults of `airan up`
    #[arg(long)]
    up: bool,
    /// Prints the settings in force; secrets as ***, what came out of ${…} as written
    #[arg(long)]
    print: bool,
}

/// Runs it.
pub async fn run(args: ValidateArgs) -> Result<()> {
    let mode = if args.up { Mode::Up } else { Mode::Role };
    let loaded = config::load(args.config.as_deref(), mode, None)?;
    let config = &loaded.config;
    crate::logging::check(&config.log)?;
    let catalog = wiring::load_catalog(config)?;
    wiring::check_agent(config, &catalog)?;
    let inventory = inventory::load(config)?;
    let pipelines = pipelines::load(config, &catalog).await?;
    let mut out = std::io::stdout().lock();
    if args.print {
        return Ok(write!(out, "{}", loaded.show()?)?);
    }
    let file = args.config.as_ref().map_or("defaults".to_owned(), |path| path.display().to_string());
    writeln!(out, "configuration  {file}, node {}", config.node_name()?)?;
    let (streams, metrics) = (catalog.streams().count(), catalog.metrics().len());
    writeln!(out, "catalog        {streams} streams, {metrics} foreign metrics mapped")?;
    writeln!(out, "inventory      {} nodes at {} sites", inventory.nodes(), inventory.sites())?;
    let names: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.spec.name.as_str()).collect();
    writeln!(out, "pipelines      {}", names.join(", "))?;
    Ok(writeln!(out, "valid")?)
}
