//! `airan lag`: how far each shard is, by the bus's offsets and the lake's newest records. Works while processors are down.

use std::io::Write;

use airan_bus::Reader;
use airan_lake::{Head, Lake};
use airan_model::causes;
use airan_model::time::{Clock, Micros, SECOND, format_rfc3339};
use airan_processor::{LoadSummary, ShardSummary};
use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cli::{Printed, Settings};
use crate::output::{Format, Listing};
use crate::progress;

/// Partitions asked for at a time: enough to hide the store's latency.
const AT_ONCE: usize = 16;

/// Arguments of `airan lag`.
#[derive(Debug, clap::Args)]
pub struct LagArgs {
    /// This partition alone
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    printed: Printed,
}

/// What is known of a shard.
struct Shard {
    partition: i32,
    /// First and next offset on the bus.
    bus: Option<(i64, i64)>,
    head: Option<Head>,
    summary: Option<ShardSummary>,
    /// Why its newest record or state cannot be read.
    problem: Option<String>,
}

/// Prints a line for each partition; of one that cannot be read, why, and the others all the same.
pub async fn run(args: LagArgs) -> Result<()> {
    let config = args.settings.load()?.config;
    let clock = Clock::system();
    let reader = Reader::open(&config.bus).context("cannot look at the bus")?;
    let lake = Lake::open_to_read(&config.lake, clock.clone()).await.context("cannot open the lake (lake.path)")?;
    let partitions = match args.partition {
        Some(one) => {
            reader.offsets(one).await.context("cannot look at the bus")?;
            one..one + 1
        }
        None => 0..reader.partitions(),
    };
    let looks = futures::stream::iter(partitions.map(|partition| look(&reader, &lake, partition)));
    let shards = progress::during("looking at bus and lake", looks.buffered(AT_ONCE).collect::<Vec<_>>()).await;
    let mut out = std::io::stdout().lock();
    match args.printed.format {
        Format::Json => {
            let rows: Vec<Value> = shards.iter().map(|shard| shard.json(reader.topic(), clock.now())).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        }
        format => {
            let mut listing = Listing::new(&COLUMNS);
            shards.iter().for_each(|shard| listing.add(shard.line(clock.now())));
            listing.print(&mut out, format)?;
            if shards.iter().all(|shard| shard.head.is_none() && shard.problem.is_none()) {
                eprintln!("no shard of topic `{}` was ever claimed: has a processor run on this lake?", reader.topic());
            }
        }
    }
    if shards.iter().any(|shard| shard.bus.is_none()) {
        eprintln!("the bus does not answer: what it holds is not shown");
    }
    match shards.iter().filter(|shard| shard.problem.is_some()).count() {
        0 => Ok(()),
        unread => Err(anyhow!("{unread} of {} shards cannot be read: see above, and airan lake check", shards.len())),
    }
}

async fn look(reader: &Reader, lake: &Lake, partition: i32) -> Shard {
    let (bus, found) = futures::join!(reader.offsets(partition), lake.head_and_state(reader.topic(), partition));
    let mut shard = Shard { partition, bus: bus.ok(), head: None, summary: None, problem: None };
    let state = match found {
        Ok(found) => found.and_then(|(head, state)| {
            shard.head = Some(head);
            state
        }),
        Err(error) => {
            // Often it is the state alone.
            shard.head = lake.head(reader.topic(), partition).await.ok().flatten();
            shard.problem = Some(causes(&error));
            None
        }
    };
    match state.map(ShardSummary::read).transpose() {
        Ok(summary) => shard.summary = summary,
        Err(error) => shard.problem = Some(causes(&error)),
    }
    shard
}

const COLUMNS: [&str; 12] = [
    "partition",
    "first",
    "committed",
    "end",
    "behind",
    "seconds",
    "watermark",
    "commit",
    "age",
    "dirty",
    "owner",
    "load",
];

impl Shard {
    fn next_offset(&self) -> Option<i64> {
        self.head.as_ref()?.next_offset
    }

    /// Offsets between what is committed and the end of the partition.
    fn behind(&self) -> Option<i64> {
        let (first, end) = self.bus?;
        Some((end - self.next_offset().unwrap_or(first)).max(0))
    }

    /// Offsets that have gone unread.
    fn lost(&self) -> i64 {
        self.bus.zip(self.next_offset()).map_or(0, |((first, _), next)| (first - next).max(0))
    }

    /// Age of the newest committed message while there are others.
    fn seconds_behind(&self, now: Micros) -> Option<f64> {
        match self.behind()? {
            0 => Some(0.0),
            _ => Some(seconds(now, self.summary.as_ref()?.log_time?)),
        }
    }

    fn line(&self, now: Micros) -> [String; 12] {
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let short = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), span);
        let (head, summary) = (self.head.as_ref(), self.summary.as_ref());
        let watermark = summary.and_then(ShardSummary::slowest).map(|(_, at)| seconds(now, at));
        let mut load = summary.and_then(|summary| summary.load.as_ref()).map_or_else(String::new, load_text);
        if self.lost() > 0 {
            load = format!("STOPPED: {} offsets are gone from the bus; airan shard skip --help. {load}", self.lost());
        }
        if let Some(problem) = &self.problem {
            load = format!("CANNOT BE READ: {problem}");
        }
        [
            self.partition.to_string(),
            number(self.bus.map(|(first, _)| first)),
            number(self.next_offset()),
            number(self.bus.map(|(_, end)| end)),
            number(self.behind()),
            short(self.seconds_behind(now)),
            short(watermark),
            number(head.and_then(|head| head.commit).and_then(|n| i64::try_from(n).ok())),
            short(head.and_then(|head| head.committed_at).map(|at| seconds(now, at))),
            summary.map_or_else(|| "-".to_owned(), |summary| summary.dirty().to_string()),
            head.map(|head| head.owner.clone()).filter(|owner| !owner.is_empty()).unwrap_or_else(|| "-".to_owned()),
            load.trim_end().to_owned(),
        ]
    }

    fn json(&self, topic: &str, now: Micros) -> Value {
        let summary = self.summary.as_ref();
        let head = self.head.as_ref();
        let streams = summary.into_iter().flat_map(|summary| &summary.watermarks).map(|(stream, at)| {
            json!({"stream": stream, "watermark": format_rfc3339(*at), "delay_seconds": seconds(now, *at)})
        });
        let pipelines = summary.into_iter().flat_map(|summary| &summary.pipelines).map(|pipeline| {
            let closed = pipeline.closed_through.map(format_rfc3339);
            json!({"pipeline": pipeline.name, "closed_through": closed, "dirty_windows": pipeline.dirty})
        });
        let load = summary.and_then(|summary| summary.load.as_ref()).map(|load| {
            json!({
                "busy_ratio": load.busy_share(), "seconds": load.wall_seconds, "rows": load.rows,
                "hottest_site": load.hottest.as_ref().map(|(site, _)| site), "hottest_site_ratio": load.hottest_share(),
                "bound": load.is_bound(),
            })
        });
        json!({
            "topic": topic,
            "partition": self.partition,
            "first_offset": self.bus.map(|(first, _)| first),
            "end_offset": self.bus.map(|(_, end)| end),
            "committed_offset": self.next_offset(),
            "behind_offsets": self.behind(),
            "behind_seconds": self.seconds_behind(now),
            "lost_offsets": self.lost(),
            "skipped_offsets": summary.map(|summary| summary.skipped_offsets),
            "watermark": summary.and_then(ShardSummary::slowest).map(|(_, at)| format_rfc3339(at)),
            "watermark_delay_seconds": summary.and_then(ShardSummary::slowest).map(|(_, at)| seconds(now, at)),
            "record": head.map(|head| head.n),
            "commit": head.and_then(|head| head.commit),
            "commit_age_seconds": head.and_then(|head| head.committed_at).map(|at| seconds(now, at)),
            "owner": head.map(|head| &head.owner).filter(|owner| !owner.is_empty()),
            "dirty_windows": summary.map(ShardSummary::dirty),
            "rows": summary.map(|summary| json!({
                "appended": summary.appended, "stored": summary.stored, "duplicate": summary.duplicate,
                "rejected": summary.rejected,
            })),
            "streams": streams.collect::<Vec<_>>(),
            "pipelines": pipelines.collect::<Vec<_>>(),
            "load": load,
            "problem": self.problem,
        })
    }
}

/// What the shard is busy with, in words.
fn load_text(load: &LoadSummary) -> String {
    let busy = format!("shard busy {:.0} %", load.busy_share() * 100.0);
    match &load.hottest {
        Some((site, _)) => {
            let bound = if load.is_bound() { ", bound" } else { "" };
            format!("{site} is {:.0} % of the rows, {busy}{bound}", load.hottest_share() * 100.0)
        }
        None => busy,
    }
}

fn seconds(now: Micros, at: Micros) -> f64 {
    now.saturating_sub(at).max(0) as f64 / SECOND as f64
}

/// A span for people: `0s`, `12s`, `5m`, `3h`, `9d`.
fn span(seconds: f64) -> String {
    match seconds.round() as u64 {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7_200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(bus: Option<(i64, i64)>, next_offset: Option<i64>) -> Shard {
        let head = Head {
            topic: "t".to_owned(),
            partition: 3,
            partitions: 4,
            n: 9,
            commit: Some(8),
            at: 20 * SECOND,
            committed_at: Some(10 * SECOND),
            owner: "edge-1-4320".to_owned(),
            next_offset,
        };
        let summary = ShardSummary {
            log_time: Some(5 * SECOND),
            appended: 3,
            stored: 2,
            duplicate: 1,
            rejected: 0,
            skipped_offsets: 0,
            watermarks: vec![("host".to_owned(), 4 * SECOND), ("link".to_owned(), 3 * SECOND)],
            pipelines: Vec::new(),
            load: Some(LoadSummary {
                busy_seconds: 9.0,
                wall_seconds: 10.0,
                rows: 100,
                hottest: Some(("site-7".to_owned(), 73)),
            }),
        };
        Shard { partition: 3, bus, head: Some(head), summary: Some(summary), problem: None }
    }

    /// Scenario: a shard that is behind, one that is not, one whose messages have gone, and a bus that is away.
    /// Guarantees: the numbers are right, what is unknown is not given as a number, a loss says what to do, and a site that
    /// binds its partition is named.
    #[test]
    fn a_line_says_how_a_shard_stands() {
        let line = shard(Some((10, 50)), Some(40)).line(30 * SECOND);
        assert_eq!(
            line[..11],
            ["3", "10", "40", "50", "10", "25s", "27s", "8", "20s", "0", "edge-1-4320"].map(str::to_owned)
        );
        assert_eq!(line[11], "site-7 is 73 % of the rows, shard busy 90 %, bound");
        assert_eq!(shard(Some((10, 50)), Some(50)).line(30 * SECOND)[4..6], ["0", "0s"].map(str::to_owned));
        let lost = shard(Some((45, 50)), Some(40));
        assert!(lost.line(0)[11].starts_with("STOPPED: 5 offsets are gone"));
        assert_eq!(lost.json("t", 0)["lost_offsets"], 5);
        let away = shard(None, Some(40)).json("t", 30 * SECOND);
        assert!(away["behind_offsets"].is_null() && away["behind_seconds"].is_null());
        assert_eq!((&away["commit"], &away["load"]["bound"]), (&json!(8), &json!(true)));
        let unread = Shard {
            summary: None,
            problem: Some("the state is damaged".to_owned()),
            ..shard(Some((10, 50)), Some(40))
        };
        let line = unread.line(30 * SECOND);
        assert_eq!((&*line[4], &*line[5], &*line[11]), ("10", "-", "CANNOT BE READ: the state is damaged"));
        assert_eq!(unread.json("t", 0)["problem"], "the state is damaged");
    }

    #[test]
    fn spans_are_short() {
        let spans = [0.4, 119.0, 120.0, 7_199.0, 7_200.0, 172_800.0].map(span);
        assert_eq!(spans, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
