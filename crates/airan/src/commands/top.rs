//! `airan top`: what a running process does, as a table that is renewed each second.
//!
//! Reads `/metrics` and `/readyz` of its admin port and nothing else: it shows one process, and what that process counts.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep_until};

use crate::cli::{Printed, Settings};
use crate::exposition::{self, Sample};
use crate::output::{Format, Listing};

/// How often the table is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;

/// Puts the cursor in the upper left corner and clears from there.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Arguments of `airan top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Admin port of the process [default: admin.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print one table, with rates over one second, and end; so too where stdout is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    printed: Printed,
}

/// Runs it until Ctrl-C, or once.
pub async fn run(args: TopArgs) -> Result<()> {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", args.settings.load()?.config.admin.listen),
    };
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let once = args.once || !std::io::stdout().is_terminal();
    let mut before = Look::at(&client, &url).await?;
    loop {
        sleep_until(before.at + EVERY).await;
        let now = match Look::at(&client, &url).await {
            Ok(now) => now,
            Err(error) if once => return Err(error),
            Err(error) => {
                println!("{CLEAR}{error:#}");
                before.at = Instant::now();
                std::io::stdout().flush()?;
                continue;
            }
        };
        let table = table(&before, &now);
        let mut out = std::io::stdout().lock();
        if !once {
            write!(out, "{CLEAR}")?;
        }
        if args.printed.format == Format::Table {
            writeln!(out, "airan at {url}: {}\n", now.health)?;
        }
        table.print(&mut out, args.printed.format)?;
        out.flush()?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

/// One look at a process.
struct Look {
    at: Instant,
    health: String,
    samples: Vec<Sample>,
}

impl Look {
    async fn at(client: &reqwest::Client, url: &str) -> Result<Look> {
        let no_answer = || format!("no airan answers at {url}: is one running, and is its admin.listen this address?");
        let answer = client.get(format!("{url}/metrics")).send().await.with_context(no_answer)?;
        let mut answer = answer.error_for_status().with_context(no_answer)?;
        let at = Instant::now();
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.with_context(no_answer)? {
            if text.len() + part.len() > ANSWER_MAX {
                bail!("{url}/metrics has more than {ANSWER_MAX} bytes");
            }
            text.extend_from_slice(&part);
        }
        let samples = exposition::read(&String::from_utf8_lossy(&text));
        if !samples.iter().any(|sample| sample.name.starts_with("airan_")) {
            bail!("{url}/metrics shows no metric of airan's: this is the port of another program");
        }
        let health = match client.get(format!("{url}/readyz")).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default().trim().replace('\n', "; "),
            Err(_) => "does not say whether it is ready".to_owned(),
        };
        Ok(Look { at, health, samples })
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

const COLUMNS: [&str; 6] = ["part", "name", "rows", "rows_per_second", "behind_seconds", "state"];

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    rows: Option<f64>,
    per_second: Option<f64>,
    behind: Option<f64>,
    state: Vec<String>,
}

/// Parts of the path in its order, and in each the names in theirs.
fn table(before: &Look, now: &Look) -> Listing {
    let mut listing = Listing::new(&COLUMNS);
    for ((part, name), line) in lines(&before.samples, now, now.at.duration_since(before.at)) {
        let number = |value: Option<f64>, digits: usize| value.map(|v| format!("{v:.digits$}")).unwrap_or_default();
        listing.add([
            PARTS[part].to_owned(),
            name,
            number(line.rows, 0),
            number(line.per_second, 1),
            number(line.behind, 1),
            line.state.join(", "),
        ]);
    }
    listing
}

const PARTS: [&str; 5] = ["source", "agent", "door", "shard", "stream"];
const SOURCE: usize = 0;
const AGENT: usize = 1;
const DOOR: usize = 2;
const SHARD: usize = 3;
const STREAM: usize = 4;

type Lines = BTreeMap<(usize, String), Line>;

fn lines(before: &[Sample], now: &Look, span: Duration) -> Lines {
    let mut lines = Lines::new();
    let rate = |sample: &Sample| {
        let old = before.iter().find(|old| old.name == sample.name && old.labels == sample.labels);
        // A counter that has fallen began anew.
        let rise = sample.value - old.map_or(0.0, |old| old.value);
        let rise = if rise < 0.0 { sample.value } else { rise };
        (span > Duration::ZERO).then(|| rise / span.as_secs_f64())
    };
    let count = |line: &mut Line, sample: &Sample| {
        line.rows = Some(sample.value);
        line.per_second = rate(sample);
    };
    for sample in now.of("airan_agent_collected_rows_total") {
        count(lines.entry((SOURCE, sample.label("from").to_owned())).or_default(), sample);
    }
    for sample in now.of("airan_agent_target_up") {
        let line = lines.entry((SOURCE, sample.label("target").to_owned())).or_default();
        line.state.push(if sample.value == 1.0 { "up" } else { "down" }.to_owned());
    }
    for sample in now.of("airan_agent_accelerator_source").filter(|sample| sample.value == 1.0) {
        lines.entry((SOURCE, "accelerator".to_owned())).or_default().state.push(sample.label("source").to_owned());
    }
    for sample in now.of("airan_agent_acknowledged_rows_total") {
        count(lines.entry((AGENT, "uplink".to_owned())).or_default(), sample);
    }
    for sample in now.of("airan_agent_queued_rows") {
        lines.entry((AGENT, "uplink".to_owned())).or_default().state.push(format!("{} rows wait", sample.value));
    }
    for sample in now.of("airan_agent_dropped_rows_total").filter(|sample| sample.value > 0.0) {
        let line = lines.entry((AGENT, "uplink".to_owned())).or_default();
        line.state.push(format!("{} dropped: {}", sample.value, sample.label("reason")));
    }
    // Doors nobody has used yet are left out.
    let used = |sample: &Sample| sample.value > 0.0;
    for sample in now.of("airan_gateway_rows_total").filter(|sample| used(sample)) {
        let line = lines.entry((DOOR, sample.label("door").to_owned())).or_default();
        match sample.label("outcome") {
            "acknowledged" => count(line, sample),
            outcome @ ("refused" | "unknown") => line.state.push(format!("{} {outcome}", sample.value)),
            _ => {}
        }
    }
    let shard = |sample: &Sample| (SHARD, sample.label("partition").to_owned());
    for sample in now.of("airan_processor_rows_total") {
        let line = lines.entry(shard(sample)).or_default();
        match sample.label("outcome") {
            "stored" => count(line, sample),
            outcome @ ("duplicate" | "rejected") if used(sample) => {
                line.state.push(format!("{} {outcome}", sample.value));
            }
            _ => {}
        }
    }
    for sample in now.of("airan_processor_lag_seconds") {
        lines.entry(shard(sample)).or_default().behind = Some(sample.value);
    }
    for sample in now.of("airan_processor_lag_offsets").filter(|sample| used(sample)) {
        lines.entry(shard(sample)).or_default().state.push(format!("{} messages wait", sample.value));
    }
    for sample in now.of("airan_processor_shard_up").filter(|sample| !used(sample)) {
        lines.entry(shard(sample)).or_default().state.push("not up".to_owned());
    }
    let mut most_behind: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
    for sample in now.of("airan_processor_watermark_delay_seconds") {
        // Of shards that differ the least counts, and the most is said beside it.
        let most = most_behind.entry(sample.label("stream")).or_insert((sample.value, sample.label("partition")));
        if sample.value > most.0 {
            *most = (sample.value, sample.label("partition"));
        }
        let line = lines.entry((STREAM, sample.label("stream").to_owned())).or_default();
        line.behind = Some(line.behind.unwrap_or(f64::MAX).min(sample.value));
    }
    for (stream, (most, partition)) in most_behind {
        let line = lines.entry((STREAM, stream.to_owned())).or_default();
        if line.behind.is_some_and(|least| most > least) {
            line.state.push(format!("{most:.1} in shard {partition}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "airan_agent_collected_rows_total{from=\"host\"} 10\n\
        airan_processor_rows_total{partition=\"0\",outcome=\"stored\"} 100\n";
    const NOW: &str = "airan_agent_collected_rows_total{from=\"host\"} 14\n\
        airan_agent_collected_rows_total{from=\"dcgm\"} 6\n\
        airan_agent_target_up{target=\"dcgm\"} 0\n\
        airan_agent_dropped_rows_total{reason=\"expired\"} 3\n\
        airan_gateway_rows_total{door=\"ndjson\",outcome=\"acknowledged\"} 0\n\
        airan_gateway_rows_total{door=\"agent\",outcome=\"acknowledged\"} 20\n\
        airan_gateway_rows_total{door=\"agent\",outcome=\"refused\"} 2\n\
        airan_processor_rows_total{partition=\"0\",outcome=\"stored\"} 40\n\
        airan_processor_lag_seconds{partition=\"0\"} 2.5\n\
        airan_processor_lag_offsets{partition=\"0\"} 7\n\
        airan_processor_watermark_delay_seconds{partition=\"0\",stream=\"host\"} 11\n\
        airan_processor_watermark_delay_seconds{partition=\"1\",stream=\"host\"} 62\n";

    /// Scenario: two looks two seconds apart: a target that is down, a door in use and one that is not, a counter that began anew.
    /// Guarantees: rates by real time, no negative one; of a stream the least and the most behind are told.
    #[test]
    fn two_looks_give_rates_and_lags() {
        let now = Look { at: Instant::now(), health: String::new(), samples: exposition::read(NOW) };
        let lines = lines(&exposition::read(BEFORE), &now, Duration::from_secs(2));
        let line = |part: usize, name: &str| lines[&(part, name.to_owned())].clone();
        assert_eq!((line(SOURCE, "host").rows, line(SOURCE, "host").per_second), (Some(14.0), Some(2.0)));
        assert_eq!((line(SOURCE, "dcgm").per_second, line(SOURCE, "dcgm").state), (Some(3.0), vec!["down".to_owned()]));
        assert_eq!(line(AGENT, "uplink").state, ["3 dropped: expired"]);
        assert_eq!((line(DOOR, "agent").rows, line(DOOR, "agent").state), (Some(20.0), vec!["2 refused".to_owned()]));
        assert!(!lines.contains_key(&(DOOR, "ndjson".to_owned())));
        let shard = line(SHARD, "0");
        assert_eq!(
            (shard.per_second, shard.behind, shard.state),
            (Some(20.0), Some(2.5), vec!["7 messages wait".to_owned()])
        );
        assert_eq!(
            (line(STREAM, "host").behind, line(STREAM, "host").state),
            (Some(11.0), vec!["62.0 in shard 1".to_owned()])
        );
    }
}
