//! `airan lake`: files, soundness, retention.

use airan_lake::Lake;
use airan_model::time::{Clock, Micros, format_rfc3339};
use anyhow::{Context, Result, bail};

use crate::cli::{Printed, Settings};
use crate::output::Listing;
use crate::{pipelines, wiring};

/// Subcommands of `airan lake`.
#[derive(Debug, clap::Subcommand)]
pub enum LakeCommand {
    /// Lists the files of a table that count: exactly those that a reader should read
    Files {
        /// A stream, or a pipeline's table; without it the tables are listed
        table: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        printed: Printed,
    },
    /// Checks that records, files and shard states agree; reads every file whole
    Check {
        #[command(flatten)]
        settings: Settings,
    },
    /// Applies the retention of the configuration, as a running processor does by itself
    ///
    /// Raw rows from which open windows might have to be rebuilt stay: those of each partition after its last closed window.
    Expire {
        #[command(flatten)]
        settings: Settings,
    },
}

/// Runs one.
pub async fn run(command: LakeCommand) -> Result<()> {
    match command {
        LakeCommand::Files { table, settings, printed } => files(table, &settings, &printed).await,
        LakeCommand::Check { settings } => check(&settings).await,
        LakeCommand::Expire { settings } => expire(&settings).await,
    }
}

async fn open(settings: &Settings) -> Result<(crate::config::Config, Lake)> {
    let config = settings.load()?.config;
    let lake = Lake::open_to_read(&config.lake, Clock::system()).await.context("cannot open the lake (lake.path)")?;
    Ok((config, lake))
}

async fn files(table: Option<String>, settings: &Settings, printed: &Printed) -> Result<()> {
    let (_, lake) = open(settings).await?;
    let tables = lake.tables().await?;
    let mut out = std::io::stdout().lock();
    let Some(table) = table else {
        let mut listing = Listing::new(&["table", "files", "rows", "bytes"]);
        for table in tables {
            let files = lake.files(&table).await?;
            let (rows, bytes) = files.iter().fold((0, 0), |sum, file| (sum.0 + file.rows, sum.1 + file.bytes));
            listing.add([table, files.len().to_string(), rows.to_string(), bytes.to_string()]);
        }
        return listing.print(&mut out, printed.format);
    };
    if !tables.contains(&table) {
        bail!("the lake has no table `{table}`; it has: {}", tables.join(", "));
    }
    let mut listing = Listing::new(&["path", "rows", "bytes", "from", "to", "partition", "record"]);
    for file in lake.files(&table).await? {
        listing.add([
            file.path,
            file.rows.to_string(),
            file.bytes.to_string(),
            format_rfc3339(file.min_ts),
            format_rfc3339(file.max_ts),
            file.partition.to_string(),
            file.n.to_string(),
        ]);
    }
    listing.print(&mut out, printed.format)
}

async fn check(settings: &Settings) -> Result<()> {
    let (_, lake) = open(settings).await?;
    let report = lake.check().await?;
    println!(
        "{} shards, {} commit records, {} files, {} rows, {} bytes, {} orphans",
        report.shards, report.records, report.files, report.rows, report.bytes, report.orphans
    );
    for problem in &report.problems {
        println!("{problem}");
    }
    match report.problems.len() {
        0 => println!("the lake is sound"),
        count => bail!("the lake has {count} problems"),
    }
    Ok(())
}

async fn expire(settings: &Settings) -> Result<()> {
    let config = settings.load()?.config;
    let clock = Clock::system();
    let lake = Lake::open(&config.lake, clock.clone()).await.context("cannot open the lake (lake.path)")?;
    let needed_from = needed_from(&config, &lake).await?;
    let report = lake.expire(clock.now(), needed_from).await?;
    if report.gave_way {
        bail!("another process applies the retention at this moment; nothing was done");
    }
    println!(
        "{} files with {} rows and {} bytes taken out, {} bytes stay",
        report.files, report.rows, report.bytes, report.kept_bytes
    );
    Ok(())
}

/// The start of the oldest window that may be open: in each partition with raw rows, the start of its last closed window, of the
/// pipeline that is furthest behind. Without closed windows nothing may go.
async fn needed_from(config: &crate::config::Config, lake: &Lake) -> Result<Option<Micros>> {
    let catalog = wiring::load_catalog(config)?;
    let tables = lake.tables().await?;
    let mut partitions = std::collections::BTreeSet::new();
    for stream in catalog.streams().filter(|stream| tables.contains(&stream.name.to_string())) {
        partitions.extend(lake.files(&stream.name).await?.into_iter().map(|file| file.partition));
    }
    let mut needed = None;
    for pipeline in pipelines::load(config, &catalog).await? {
        let mut closed = std::collections::BTreeMap::new();
        if tables.contains(&pipeline.spec.table) {
            for file in lake.files(&pipeline.spec.table).await? {
                let newest = closed.entry(file.partition).or_insert(file.max_ts);
                *newest = file.max_ts.max(*newest);
            }
        }
        // A pipeline that never closed a window in a partition may have had no rows there, or not be through with them.
        let oldest = partitions.iter().filter_map(|partition| closed.get(partition).copied()).min();
        needed = [needed, oldest].into_iter().flatten().min();
    }
    Ok(Some(needed.unwrap_or(Micros::MIN)))
}
