//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::config::{self, Loaded, Mode};
use crate::output::Format;
use crate::{logging, wiring};

/// Telemetry pipeline for AI-RAN edge sites: accelerators, radio, timing, inference and hosts, in event-time windows, as
/// Parquet and Prometheus metrics.
#[derive(Debug, Parser)]
#[command(name = "airan", version, about, propagate_version = true, max_term_width = 120)]
#[command(
    after_help = "Every setting and its default: config/defaults.yaml. Exit codes: 0 done, 1 failed, 2 command line or configuration to be mended."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs gateway, processor and agent in one process, with a log and a lake on the local disk
    ///
    /// Collects this machine's host and interface telemetry, takes what is pushed to its doors, and scrapes the targets of the
    /// configuration. Ctrl-C drains and exits; the next start goes on where this one stopped.
    Up(UpArgs),
    /// Runs the agent: collects and scrapes on the edge, sends to a gateway
    Agent(RoleArgs),
    /// Runs the gateway: takes rows at its doors, hands them to Kafka
    Gateway(RoleArgs),
    /// Runs the processor: windows and Parquet from Kafka
    Processor(RoleArgs),
    /// Runs SQL over the lake
    ///
    /// Tables are the streams (raw rows), the pipelines' windows, and `<table>_latest` with the newest revision of each window.
    Query(commands::query::QueryArgs),
    /// Lists the lake's files, checks it, applies its retention
    #[command(subcommand)]
    Lake(commands::lake::LakeCommand),
    /// Shows how far each shard is: offsets and seconds behind, watermark, last commit, owner, load
    ///
    /// Reads the bus's offsets and the lake's newest records only, so it works while processors are down, and on the local log
    /// while `airan up` runs. All but the bus's own offsets is as of a shard's last commit: processor.commit.interval ago, and up
    /// to ten minutes where nothing but ticks came.
    Lag(commands::lag::LagArgs),
    /// Shows what a running process does: sources, doors, shards and streams with their rates and lags, renewed each second
    ///
    /// Reads the metrics at its admin port. rows_per_second is over the last second; behind_seconds of a shard is the age of the
    /// newest message it has applied while others wait, of a stream how far its event time is behind the clock: in the shard that is
    /// nearest to it, since one to which nobody sends the stream says a minute more than its log's time.
    Top(commands::top::TopArgs),
    /// Prints rows of a stream as they come onto the bus, a JSON object a line
    ///
    /// Reads the bus from the side: no consumer group is joined and no lock taken, so no shard is disturbed. Begins with what comes
    /// after the start; null columns are left out.
    Tap(commands::tap::TapArgs),
    /// Helps a shard that has stopped: accepts lost messages, or starts it again
    #[command(subcommand)]
    Shard(commands::shard::ShardCommand),
    /// Shows what was refused, and sends again what can be read now
    #[command(subcommand)]
    Rejected(commands::rejected::RejectedCommand),
    /// Computes windows again from the raw rows of the lake
    ///
    /// For a pipeline that is new or was corrected, and for windows that are missing. The windows get the next revision (0 where
    /// there were none), which `<table>_latest` shows. The owners of the shards do the work beside their messages; gauges and
    /// counters on /metrics stay as they are.
    Backfill(commands::backfill::BackfillArgs),
    /// Lists streams, columns, units, and the foreign metrics that map to them
    Catalog(commands::catalog::CatalogArgs),
    /// Tells about the inventory of nodes and sites
    #[command(subcommand)]
    Inventory(commands::inventory::InventoryCommand),
    /// Runs the tests of pipelines: each folder's input against its expected rows
    Test(commands::test::TestArgs),
    /// Checks configuration, catalog, inventory and pipelines without running anything
    Validate(commands::validate::ValidateArgs),
    /// Prints a JSON Schema, with which editors complete and check configuration, pipelines and catalog
    ///
    /// Into a file, and as the first line of what it describes: `# yaml-language-server: $schema=airan.schema.json`.
    Schema(commands::schema::SchemaArgs),
    /// Prints the completion script of a shell
    ///
    /// For bash: `source <(airan completion bash)` in ~/.bashrc. For zsh: into a file `_airan` in a folder of $fpath. For fish:
    /// into ~/.config/fish/completions/airan.fish.
    Completion(commands::completion::CompletionArgs),
    /// Writes the manual pages of all commands into a folder
    Man(commands::man::ManArgs),
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Folder for log and lake [default: ./data, with --demo ./data/demo]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file with what differs from config/defaults.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Simulates a site in place of collecting anything: two servers, four GPUs, six cells, and one bad day
    ///
    /// All numbers are made up; the rows carry source = 'demo'. How long the day lasts is `agent.demo.day`, how
    /// much of it is over at the start `agent.demo.begin`.
    #[arg(long)]
    demo: bool,
    /// Lets simulated and real rows into one lake
    #[arg(long)]
    mix: bool,
}

#[derive(Debug, Args)]
struct RoleArgs {
    /// Configuration file with what differs from config/defaults.yaml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Where a tool finds its settings.
#[derive(Debug, Args)]
pub struct Settings {
    /// Configuration file with what differs from config/defaults.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that `airan up` keeps log and lake in [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// How a tool prints.
#[derive(Debug, Args)]
pub struct Printed {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

impl Settings {
    /// Reads them.
    pub fn load(&self) -> Result<Loaded> {
        Ok(config::load(self.config.as_deref(), Mode::Role, self.data.as_deref())?)
    }
}

impl Cli {
    /// Does what the command line asks for.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Up(UpArgs { data, config, demo, mix }) => {
                let data = data.or_else(|| demo.then(|| crate::demo::DATA.into()));
                let loaded = config::load(config.as_deref(), Mode::Up, data.as_deref())?;
                logging::start(&loaded.config.log)?;
                let choice = crate::demo::Choice { demo, mix };
                block_on(wiring::up(loaded.config, crate::banner::Shown { data, config, demo }, choice))
            }
            Command::Agent(args) => block_on(wiring::agent(args.load()?)),
            Command::Gateway(args) => block_on(wiring::gateway(args.load()?)),
            Command::Processor(args) => block_on(wiring::processor(args.load()?)),
            Command::Query(args) => block_on(commands::query::run(args)),
            Command::Lake(command) => block_on(commands::lake::run(command)),
            Command::Lag(args) => block_on(commands::lag::run(args)),
            Command::Top(args) => block_on(commands::top::run(args)),
            Command::Tap(args) => block_on(commands::tap::run(args)),
            Command::Shard(command) => block_on(commands::shard::run(command)),
            Command::Rejected(command) => block_on(commands::rejected::run(command)),
            Command::Backfill(args) => block_on(commands::backfill::run(args)),
            Command::Catalog(args) => commands::catalog::run(&args),
            Command::Inventory(command) => block_on(commands::inventory::run(command)),
            Command::Test(args) => block_on(commands::test::run(args)),
            Command::Validate(args) => block_on(commands::validate::run(args)),
            Command::Schema(args) => commands::schema::run(&args),
            Command::Completion(args) => commands::completion::run(&args, Cli::command()),
            Command::Man(args) => commands::man::run(&args, Cli::command()),
        }
    }
}

impl RoleArgs {
    fn load(&self) -> Result<config::Config> {
        let loaded = config::load(Some(&self.config), Mode::Role, None)?;
        logging::start(&loaded.config.log)?;
        Ok(loaded.config)
    }
}

/// Calls to the system that hang may still be under way when the work is done; they keep the process this long.
const HANGING_CALLS: Duration = Duration::from_secs(2);

fn block_on<F: Future<Output = Result<()>>>(work: F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("airan").build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(HANGING_CALLS);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Scenario: a role without its configuration, and the formats.
    /// Guarantees: refused before anything starts.
    #[test]
    fn roles_need_a_configuration() {
        for role in ["agent", "gateway", "processor"] {
            assert!(Cli::try_parse_from(["airan", role]).is_err(), "{role}");
            assert!(Cli::try_parse_from(["airan", role, "--config", "x.yaml"]).is_ok(), "{role}");
        }
        assert!(Cli::try_parse_from(["airan", "query", "SELECT 1", "--format", "csv"]).is_ok());
        assert!(Cli::try_parse_from(["airan", "query", "SELECT 1", "--format", "xml"]).is_err());
        assert!(Cli::try_parse_from(["airan"]).is_err());
    }
}
