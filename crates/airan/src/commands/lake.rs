//! `airan lake`: files, soundness, publishing, compaction, retention.

use std::io::IsTerminal;

use airan_lake::{Lake, PlannedMerge};
use airan_model::time::{Clock, DAY, Micros, format_rfc3339};
use anyhow::{Context, Result, bail};

use crate::cli::{Printed, Settings};
use crate::output::Listing;
use crate::progress::{self, Progress};
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
    /// Checks that records, Delta logs, files and shard states agree; reads every file whole
    ///
    /// Changes nothing. Each thing that is wrong is a line: the invariant, where, what, and the command that repairs it, or that
    /// none does and what to restore.
    Check {
        #[command(flatten)]
        settings: Settings,
    },
    /// Publishes what is committed to the tables' Delta logs, as a running processor does by itself
    ///
    /// Safe beside running processors. Commit records whose files are published are trimmed; the newest of each shard stays.
    Publish {
        #[command(flatten)]
        settings: Settings,
    },
    /// Makes few large files of many small ones, as a running processor does by itself (lake.compaction)
    ///
    /// Small files of a date become one, sorted by site, entity and time, once their hour is over. Of window tables only the
    /// newest revision of each result goes on. Safe beside running processors, queries and other compactions, and may be
    /// stopped at any moment. Readers at work keep the old files for a day.
    Compact {
        /// A stream, or a pipeline's table [default: all]
        table: Option<String>,
        /// Show what would be merged, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        printed: Printed,
    },
    /// Takes rows out of the lake, and what windows were made of them
    ///
    /// Rows of which the condition is true leave every raw table that has its columns; rows of which it is false or null stay.
    /// Then the windows that they were in are restated from what is left, by the running processors or with --offline, and
    /// results at older revisions go. The report says what went. Safe beside running processors and queries; a run that was cut
    /// off is finished by running the same again, or by --resume. Old files are deleted a day later, or at once with --purge.
    ///
    /// Not reached: rows on their way (agents' spools, Kafka or the local log, the rejected topic), names of entities in the
    /// states of shards, and what Prometheus has scraped. They go with the retention of those.
    Erase(super::erase::EraseArgs),
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
        LakeCommand::Publish { settings } => publish(&settings).await,
        LakeCommand::Compact { table, dry_run, settings, printed } => {
            compact(table.as_deref(), dry_run, &settings, &printed).await
        }
        LakeCommand::Erase(args) => super::erase::run(args).await,
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
    let listing = progress::during("reading the lake", async {
        match table {
            Some(table) => files_of(&lake, &table).await,
            None => tables(&lake).await,
        }
    });
    listing.await?.print(&mut std::io::stdout().lock(), printed.format)
}

async fn tables(lake: &Lake) -> Result<Listing> {
    let mut listing = Listing::new(&["table", "files", "rows", "bytes"]);
    for table in lake.tables().await? {
        let files = lake.files(&table).await?;
        let (rows, bytes) = files.iter().fold((0, 0), |sum, file| (sum.0 + file.rows, sum.1 + file.bytes));
        listing.add([table, files.len().to_string(), rows.to_string(), bytes.to_string()]);
    }
    Ok(listing)
}

async fn files_of(lake: &Lake, table: &str) -> Result<Listing> {
    let tables = lake.tables().await?;
    if !tables.iter().any(|known| known == table) {
        bail!("the lake has no table `{table}`; it has: {}", tables.join(", "));
    }
    let mut listing = Listing::new(&["path", "rows", "bytes", "from", "to", "partition", "record"]);
    for file in lake.files(table).await? {
        listing.add([
            file.path,
            file.rows.to_string(),
            file.bytes.to_string(),
            format_rfc3339(file.min_ts),
            format_rfc3339(file.max_ts),
            file.partition.map(|partition| partition.to_string()).unwrap_or_default(),
            file.n.map(|n| n.to_string()).unwrap_or_default(),
        ]);
    }
    Ok(listing)
}

async fn check(settings: &Settings) -> Result<()> {
    let (_, lake) = open(settings).await?;
    let report = progress::during("checking the lake", lake.check()).await?;
    println!(
        "{} shards, {} commit records, {} files of which {} are in {} Delta tables, {} rows, {} bytes, {} orphans",
        report.shards,
        report.records,
        report.files,
        report.published,
        report.deltas,
        report.rows,
        report.bytes,
        report.orphans
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

async fn publish(settings: &Settings) -> Result<()> {
    let config = settings.load()?.config;
    let clock = Clock::system();
    let lake = Lake::open(&config.lake, clock.clone()).await.context("cannot open the lake (lake.path)")?;
    let report = progress::during("publishing", lake.publish(clock.now())).await?;
    println!(
        "{} files with {} rows published in {} Delta commits, {} commit records trimmed",
        report.files, report.rows, report.commits, report.records
    );
    failed(&report.failures)
}

async fn compact(table: Option<&str>, dry_run: bool, settings: &Settings, printed: &Printed) -> Result<()> {
    let config = settings.load()?.config;
    let clock = Clock::system();
    let lake = match dry_run {
        true => Lake::open_to_read(&config.lake, clock.clone()).await,
        false => Lake::open(&config.lake, clock.clone()).await,
    };
    let lake = lake.context("cannot open the lake (lake.path)")?;
    let tables = lake.tables().await?;
    if let Some(table) = table
        && !tables.iter().any(|known| known == table)
    {
        bail!("the lake has no table `{table}`; it has: {}", tables.join(", "));
    }
    if dry_run {
        let mut listing = Listing::new(&["table", "date", "topic", "files", "rows", "bytes"]);
        for merge in progress::during("planning", lake.plan_compaction(table, clock.now())).await? {
            let date = format_rfc3339(Micros::from(merge.date) * DAY);
            let date = date.split('T').next().unwrap_or_default().to_owned();
            let numbers = [merge.files.len() as u64, merge.rows, merge.bytes].map(|number| number.to_string());
            let [files, rows, bytes] = numbers;
            listing.add([merge.table, date, merge.topic, files, rows, bytes]);
        }
        return listing.print(&mut std::io::stdout().lock(), printed.format);
    }
    // Planned beforehand only for somebody who looks on.
    let planned = match std::io::stderr().is_terminal() {
        true => progress::during("planning", lake.plan_compaction(table, clock.now())).await?,
        false => Vec::new(),
    };
    let bar = Progress::of("bytes merged", planned.iter().map(|merge| merge.bytes).sum());
    // Told of each merge as it begins: those before it are done.
    let mut begun = 0;
    let told = |merge: &PlannedMerge| {
        bar.say(&format!("{}: {} files, {} rows, {} bytes", merge.table, merge.files.len(), merge.rows, merge.bytes));
        bar.add(std::mem::replace(&mut begun, merge.bytes));
    };
    let report = lake.compact(table, clock.now(), told).await;
    drop(bar);
    let report = report?;
    println!(
        "{} files with {} rows and {} bytes became {} files with {} rows and {} bytes",
        report.files_in, report.rows_in, report.bytes_in, report.files_out, report.rows_out, report.bytes_out
    );
    if report.gave_way > 0 {
        println!("{} merges gave way to other changes of their files; the next run goes on", report.gave_way);
    }
    failed(&report.failures)
}

/// Says which tables failed and why.
fn failed(failures: &[(String, String)]) -> Result<()> {
    for (table, reason) in failures {
        eprintln!("table {table}: {reason}");
    }
    match failures.len() {
        0 => Ok(()),
        count => bail!("{count} tables failed, the others are done: run it again when the reason is gone"),
    }
}

async fn expire(settings: &Settings) -> Result<()> {
    let config = settings.load()?.config;
    let clock = Clock::system();
    let lake = Lake::open(&config.lake, clock.clone()).await.context("cannot open the lake (lake.path)")?;
    let work = async {
        let needed_from = needed_from(&config, &lake).await?;
        anyhow::Ok(lake.expire(clock.now(), needed_from).await?)
    };
    let report = progress::during("applying the retention", work).await?;
    println!(
        "{} files with {} rows and {} bytes taken out, {} bytes stay; {} bytes of files that are out are kept a day for \
         readers at work",
        report.files, report.rows, report.bytes, report.kept_bytes, report.held_bytes
    );
    failed(&report.failures)
}

/// The start of the oldest window that may be open: in each partition with raw rows, the start of its last closed window, of the
/// pipeline that is furthest behind. Without closed windows nothing may go.
async fn needed_from(config: &crate::config::Config, lake: &Lake) -> Result<Option<Micros>> {
    let catalog = wiring::load_catalog(config)?;
    let shards = lake.newest_times().await?;
    let is_raw = |table: &String| catalog.streams().any(|stream| stream.name.to_string() == *table);
    let with_rows: Vec<_> = shards.iter().filter(|(_, _, newest)| newest.keys().any(is_raw)).collect();
    let mut needed = None;
    for pipeline in pipelines::load(config, &catalog).await? {
        // A pipeline that never closed a window in a partition may have had no rows there, or not be through with them.
        let oldest = with_rows.iter().filter_map(|(_, _, newest)| newest.get(&pipeline.spec.table).copied()).min();
        needed = [needed, oldest].into_iter().flatten().min();
    }
    Ok(Some(needed.unwrap_or(Micros::MIN)))
}
