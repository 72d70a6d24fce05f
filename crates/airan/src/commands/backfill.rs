//! `airan backfill`: windows computed again from the raw rows of the lake.

use std::time::Duration;

use airan_bus::BusSettings;
use airan_lake::{Lake, Request, RequestReason};
use airan_model::crash;
use airan_model::settings::DurationSetting;
use airan_model::time::{Clock, Micros, format_rfc3339, parse_rfc3339};
use airan_processor::{RequestProgress, request_progress, restate_offline};
use anyhow::{Context, Result, anyhow, bail};
use tokio::time::Instant;

use crate::cli::Settings;
use crate::config::Config;
use crate::progress::{self, Progress};
use crate::{pipelines, wiring};

/// How often the shards are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A running processor looks for requests with each commit; two of them, and this.
const SLACK: Duration = Duration::from_secs(30);

/// Arguments of `airan backfill`.
#[derive(Debug, clap::Args)]
pub struct BackfillArgs {
    /// The pipeline; `all` for every one
    pipeline: String,
    /// First time, as 2026-01-01T00:00:00Z or 2026-01-01; the window that holds it is the first
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Micros,
    /// Time at which to end, not contained
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Micros,
    /// A site; may be given several times [default: all]
    #[arg(long, value_name = "SITE")]
    site: Vec<String>,
    /// Do the work here and now, where no processor is running
    #[arg(long, conflicts_with = "no_wait")]
    offline: bool,
    /// Leave the work to the running processors and return at once
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the processors; afterwards they go on by themselves
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    timeout: DurationSetting,
    #[command(flatten)]
    settings: Settings,
}

fn time(text: &str) -> Result<Micros, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    parse_rfc3339(&whole).ok_or_else(|| format!("`{text}` is no time: write 2026-01-01T00:00:00Z or 2026-01-01"))
}

/// Runs it.
pub async fn run(args: BackfillArgs) -> Result<()> {
    let config = args.settings.load()?.config;
    let catalog = wiring::load_catalog(&config)?;
    let known = pipelines::load(&config, &catalog).await?;
    let names: Vec<String> = known.iter().map(|pipeline| pipeline.spec.name.clone()).collect();
    let clock = Clock::system();
    let mut request = Request::new(RequestReason::Backfill, args.from, args.to, clock.now());
    request.sites = args.site;
    if args.pipeline != "all" {
        if !names.contains(&args.pipeline) {
            bail!("there is no pipeline `{}`; there are: {}", args.pipeline, names.join(", "));
        }
        request.pipelines = vec![args.pipeline];
    }
    let lake = Lake::open(&config.lake, clock).await.context("cannot open the lake (lake.path)")?;
    let topic = topic_of(&config).to_owned();
    let partitions = lake.partitions(&topic).await?;
    let partitions = partitions.ok_or_else(|| anyhow!("the lake has no rows of topic `{topic}` yet"))?;
    if args.offline {
        let work = restate_offline(&lake, &config.processor, &catalog, known, &topic, &request);
        let report = progress::during("computing windows", work).await?;
        println!(
            "{} windows of sites computed from {} raw rows, empty ones included, in {} commits of {} shards",
            report.windows, report.rows, report.commits, report.shards
        );
        return Ok(());
    }
    lake.request(&request).await?;
    crash::point("processor.backfill.requested");
    eprintln!("request {}: {} to {}", request.id, format_rfc3339(request.from), format_rfc3339(request.to));
    if args.no_wait {
        println!("{}", request.id);
        return Ok(());
    }
    let wait = Wait { lake: &lake, topic: &topic, partitions, request: &request, names: &names };
    wait.done(args.timeout.get(), config.processor.commit.interval.get()).await?;
    lake.remove_request(&request.id).await?;
    println!("done");
    Ok(())
}

/// The topic of the bus, as the lake knows it.
pub(super) fn topic_of(config: &Config) -> &str {
    match &config.bus {
        BusSettings::Local(local) => &local.topic,
        BusSettings::Kafka(kafka) => &kafka.topic,
    }
}

/// What is waited for.
pub(super) struct Wait<'a> {
    pub lake: &'a Lake,
    pub topic: &'a str,
    pub partitions: i32,
    pub request: &'a Request,
    pub names: &'a [String],
}

impl Wait<'_> {
    /// Waits until every shard is done, and tells of what changes.
    pub async fn done(&self, timeout: Duration, interval: Duration) -> Result<()> {
        let start = Instant::now();
        let (mut shown, mut warned) = (Vec::new(), false);
        let span = self.request.to.abs_diff(self.request.from);
        let mut bar: Option<Progress> = None;
        loop {
            let all = request_progress(self.lake, self.topic, self.partitions, self.request, self.names).await?;
            let bar = bar.get_or_insert_with(|| Progress::of("windows", span.saturating_mul(all.len() as u64)));
            bar.at(all.iter().map(|progress| self.done_of(progress)).sum());
            for progress in all.iter().filter(|progress| !shown.contains(*progress) && progress.next.is_some()) {
                bar.say(&line(progress));
            }
            if all.iter().all(|progress| progress.is_done) {
                return Ok(());
            }
            let is_begun = all.iter().any(|progress| progress.next.is_some());
            if !is_begun && !warned && start.elapsed() > interval * 2 + SLACK {
                warned = true;
                bar.say(
                    "no processor has picked the request up yet: is one running on this lake, and does it know the pipeline? \
                     With --offline the work is done here",
                );
            }
            if start.elapsed() > timeout {
                let left = all.iter().filter(|progress| !progress.is_done).count();
                let why = if is_begun { "are not done" } else { "have not begun" };
                bail!(
                    "{left} of {} parts {why} after {timeout:?}; request {} stays, and processors go on with it",
                    all.len(),
                    self.request.id
                );
            }
            shown = all;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Wait<'_> {
    /// How much of the request's span a part has done, in microseconds.
    fn done_of(&self, progress: &RequestProgress) -> u64 {
        let (from, to) = (self.request.from, self.request.to);
        match progress {
            RequestProgress { is_done: true, .. } => to.abs_diff(from),
            RequestProgress { next: Some(next), .. } => (*next).clamp(from, to).abs_diff(from),
            RequestProgress { next: None, .. } => 0,
        }
    }
}

fn line(progress: &RequestProgress) -> String {
    let RequestProgress { partition, pipeline, next, is_done } = progress;
    match (is_done, next) {
        (true, _) => format!("shard {partition}: {pipeline}: done"),
        (false, Some(next)) => {
            format!("shard {partition}: {pipeline}: windows before {} are done", format_rfc3339(*next))
        }
        (false, None) => format!("shard {partition}: {pipeline}: not begun"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_instants_or_days() {
        assert_eq!(time("2026-01-01"), time("2026-01-01T00:00:00Z"));
        assert_eq!(time("2026-01-01T01:00:00+01:00"), time("2026-01-01"));
        assert!(time("yesterday").unwrap_err().contains("is no time"));
    }
}
