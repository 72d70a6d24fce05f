//! `airan lake erase`: rows leave the lake, and so does what windows were made of them.

use std::collections::BTreeMap;

use airan_lake::{EraseReport, Erasure, Lake, Request};
use airan_model::settings::DurationSetting;
use airan_model::time::{Clock, format_rfc3339};
use airan_processor::{Pipeline, restate_offline};
use anyhow::{Context, Result, anyhow, bail};

use super::backfill::{Wait, topic_of};
use crate::cli::Settings;
use crate::config::Config;
use crate::progress::{self, Progress};
use crate::{pipelines, wiring};

/// What erasing rows of the lake does not reach.
const BEYOND: &str = "not reached: rows still in agents' spools, in Kafka or the local log, and in the rejected topic (they go \
                      with the retention of those, and rows that have not been committed yet come into the lake afterwards: run \
                      the same again), names of entities in the states of shards (until their counters are forgotten), and what \
                      Prometheus has scraped";

/// Arguments of `airan lake erase`.
#[derive(Debug, clap::Args)]
pub struct EraseArgs {
    /// Rows of which this SQL condition over the columns of a raw row is true, as `node = 'n7' AND ts < '2026-01-01T00:00:00Z'`
    #[arg(long = "where", value_name = "CONDITION", required_unless_present = "resume")]
    condition: Option<String>,
    /// A raw table; may be given several times [default: every one that has the columns of the condition]
    #[arg(long, value_name = "TABLE", requires = "condition")]
    table: Vec<String>,
    /// Finish what earlier runs have begun
    #[arg(long, conflicts_with = "condition")]
    resume: bool,
    /// Show what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete the old files at once instead of after a day: queries at work that read them fail
    #[arg(long)]
    purge: bool,
    /// Restate the windows here and now, where no processor is running
    #[arg(long)]
    offline: bool,
    /// How long to wait for the processors to restate windows; they go on afterwards, and so does the next run
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    timeout: DurationSetting,
    #[command(flatten)]
    settings: Settings,
}

/// Runs it.
pub async fn run(args: EraseArgs) -> Result<()> {
    let config = args.settings.load()?.config;
    let clock = Clock::system();
    let lake = match args.dry_run {
        true => Lake::open_to_read(&config.lake, clock.clone()).await,
        false => Lake::open(&config.lake, clock.clone()).await,
    };
    let lake = lake.context("cannot open the lake (lake.path)")?;
    let catalog = wiring::load_catalog(&config)?;
    let known = pipelines::load(&config, &catalog).await?;
    let unfinished = lake.erasures().await?;
    let mut erasures = match &args.condition {
        Some(condition) => vec![lake.begin_erasure(condition, &args.table, clock.now()).await?],
        None => unfinished.clone(),
    };
    for other in unfinished.iter().filter(|other| erasures.iter().all(|erasure| erasure.id != other.id)) {
        eprintln!("an erasure of {} is not finished: --resume finishes it", format_rfc3339(other.at));
    }
    for erasure in &mut erasures {
        if args.dry_run {
            let report = progress::during("looking for rows", lake.plan_erasure(erasure)).await?;
            show(&report, "would go");
            for table in &report.tables {
                for pipeline in readers(&known, std::slice::from_ref(&table.table)) {
                    println!("windows of {} made of these rows would be restated", pipeline.spec.table);
                }
            }
            continue;
        }
        let work = Work { lake: &lake, config: &config, clock: &clock, known: &known, args: &args };
        work.erase(erasure, &catalog).await?;
    }
    if erasures.is_empty() {
        println!("there is nothing to finish");
    }
    if args.purge && !args.dry_run {
        eprintln!("deleting the old files: queries at work that read them fail, and are to be run again");
        println!("{} old files deleted", progress::during("deleting", lake.purge(clock.now())).await?);
    }
    println!("{BEYOND}");
    Ok(())
}

/// Pipelines that read one of `tables`.
fn readers<'a>(known: &'a [Pipeline], tables: &'a [String]) -> impl Iterator<Item = &'a Pipeline> {
    known.iter().filter(|pipeline| pipeline.plan.streams().iter().any(|stream| tables.iter().any(|t| **t == **stream)))
}

struct Work<'a> {
    lake: &'a Lake,
    config: &'a Config,
    clock: &'a Clock,
    known: &'a [Pipeline],
    args: &'a EraseArgs,
}

impl Work<'_> {
    async fn erase(&self, erasure: &mut Erasure, catalog: &airan_model::catalog::Catalog) -> Result<()> {
        let lake = self.lake;
        let bar = Progress::running("taking rows out");
        let report = lake.erase(erasure, self.clock.now(), |line| bar.say(line)).await;
        drop(bar);
        let report = report?;
        show(&report, "went");
        let affected_tables: Vec<String> = erasure.affected.keys().cloned().collect();
        let read: Vec<&Pipeline> = readers(self.known, &affected_tables).collect();
        let names: Vec<String> = read.iter().map(|pipeline| pipeline.spec.name.clone()).collect();
        let (series, idle) = (airan_processor::series(catalog), self.config.processor.counters.idle.micros());
        lake.note_followers(erasure, &series, idle, self.clock.now()).await?;
        while let Some([settle, restate]) = erasure.requests(&names) {
            self.restate(&settle, catalog).await?;
            // Rows that follow may have come meanwhile: their windows belong to it, too.
            if lake.note_followers(erasure, &series, idle, self.clock.now()).await? {
                continue;
            }
            let mut windows = BTreeMap::new();
            for pipeline in &read {
                let streams: Vec<String> = pipeline.plan.streams().iter().map(|stream| stream.to_string()).collect();
                let affected = erasure.affected_by(&streams);
                let noting = lake.note_windows(erasure, &pipeline.spec.table, &affected, self.clock.now());
                let count = progress::during("looking for windows", noting).await?;
                eprintln!("{}: {count} windows of sites to be restated", pipeline.spec.table);
                windows.insert(&pipeline.spec.table, affected);
            }
            self.restate(&restate, catalog).await?;
            for (table, affected) in windows {
                let erasing = lake.erase_windows(erasure, table, &affected, self.clock.now());
                let done = progress::during("taking windows out", erasing).await?;
                if let Some((first, last)) = done.span {
                    println!(
                        "{table}: {} windows of sites restated, {} left without rows, {} rows of older revisions taken out, \
                         windows from {} to {}",
                        done.restated,
                        done.emptied,
                        done.rows,
                        format_rfc3339(first),
                        format_rfc3339(last)
                    );
                }
            }
            break;
        }
        for id in erasure.request_ids() {
            lake.remove_request(&id).await?;
        }
        lake.finish_erasure(erasure).await?;
        Ok(())
    }

    /// Has the windows restated, by the processors or here.
    async fn restate(&self, request: &Request, catalog: &airan_model::catalog::Catalog) -> Result<()> {
        let topic = topic_of(self.config);
        if self.args.offline {
            let pipelines = pipelines::load(self.config, catalog).await?;
            let work = restate_offline(self.lake, &self.config.processor, catalog, pipelines, topic, request);
            let done = progress::during("restating windows", work).await?;
            if !done.waits.is_empty() {
                bail!(
                    "{} parts have windows that are still open and hold erased rows: run a processor until they are closed, then \
                     the same again",
                    done.waits.len()
                );
            }
            return Ok(());
        }
        let partitions = self.lake.partitions(topic).await?;
        let partitions = partitions.ok_or_else(|| anyhow!("the lake has no rows of topic `{topic}` yet"))?;
        self.lake.request(request).await?;
        let wait = Wait { lake: self.lake, topic, partitions, request, names: &request.pipelines };
        let waited = wait.done(self.args.timeout.get(), self.config.processor.commit.interval.get()).await;
        waited.context("rows are erased; windows made of them are not yet: run the same again")
    }
}

fn show(report: &EraseReport, verb: &str) {
    for table in &report.tables {
        let span = table.span.map(|(first, last)| format!(", {} to {}", format_rfc3339(first), format_rfc3339(last)));
        println!(
            "{}: {} rows in {} files {verb}, of {} sites{}",
            table.table,
            table.rows,
            table.files,
            table.sites.len(),
            span.unwrap_or_default()
        );
    }
    if report.tables.is_empty() {
        println!("no row {verb}");
    }
    for (table, column) in &report.skipped {
        println!("{table}: left alone, it has no column `{column}`");
    }
}
