//! What a reader sees: SQL over the lake, its own check, and the metrics, all through the binary under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ledger::Row;

/// How long the whole of a reader's command may take. They take tenths of a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A row of the raw table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Stored {
    /// As sent.
    #[serde(flatten)]
    pub row: Row,
    /// Added by the processor.
    pub rise: Option<f64>,
}

/// A row of the window table, of any revision.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct WindowRow {
    /// Start, microseconds.
    pub start: i64,
    /// Site.
    pub site: String,
    /// Node.
    pub node: String,
    /// Device.
    pub device: String,
    /// Revision.
    pub revision: i64,
    /// Rows.
    pub row_count: i64,
    /// Sum of an integer column.
    pub integer_sum: i64,
    /// Sum.
    pub float_sum: f64,
    /// Mean.
    pub float_avg: f64,
    /// Largest.
    pub float_max: f64,
    /// Smallest.
    pub float_min: f64,
    /// Rise of the counter.
    pub rise: Option<f64>,
}

/// A stream of an agent in the lake.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Numbered {
    /// Rows.
    pub n: i64,
    /// Different numbers.
    pub ids: i64,
    /// Smallest number.
    pub low: Option<i64>,
    /// Largest number.
    pub high: Option<i64>,
}

/// How far a shard is, as `airan lag` says it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Offsets {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The first offset that the bus still has; None where it does not answer.
    pub first_offset: Option<i64>,
    /// The offset after the last one that is in the lake; None where it was never claimed.
    pub committed_offset: Option<i64>,
}

/// What a foreign reader sees, as sorted texts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Foreign {
    /// Identities of raw rows, through Delta.
    pub delta_rows: Vec<String>,
    /// Identities of raw rows, through a glob; of a lake on a disk.
    pub files_rows: Option<Vec<String>>,
    /// Windows of all revisions, through Delta.
    pub delta_windows: Vec<String>,
    /// Windows of all revisions, through a glob; of a lake on a disk.
    pub files_windows: Option<Vec<String>>,
}

/// The lake of a site.
#[derive(Clone)]
pub struct Lake {
    binary: PathBuf,
    folder: PathBuf,
    reader: &'static str,
}

impl Lake {
    /// Of the site in `folder`, whose configuration `reader` knows where the lake is.
    pub fn new(binary: &Path, folder: &Path, reader: &'static str) -> Lake {
        Lake { binary: binary.to_owned(), folder: folder.to_owned(), reader }
    }

    /// All raw rows of the senders, under the names that a [`Row`] has for its columns.
    pub async fn stored(&self) -> Result<Vec<Stored>> {
        self.query(
            "SELECT model AS id, site, node, device, CAST(ts AS BIGINT) AS ts, utilization, power_watts AS power, \
             energy_joules AS energy, energy_joules_increase AS rise, throttle_reasons AS integer FROM accelerator",
        )
        .await
    }

    /// All results in the window table: but for the rows that stand for a window without any, which name no node.
    pub async fn windows(&self) -> Result<Vec<WindowRow>> {
        self.query(
            "SELECT CAST(window_start AS BIGINT) AS start, site, node, device, revision, row_count, integer_sum, float_sum, \
             float_avg, float_max, float_min, rise FROM crash_windows WHERE node IS NOT NULL",
        )
        .await
    }

    /// A stream of the agent.
    pub async fn numbered(&self, stream: &str, node: &str) -> Result<Numbered> {
        let sql = format!(
            "SELECT count(*) AS n, count(DISTINCT batch || ':' || seq) AS ids, min(seq) AS low, max(seq) AS high FROM {stream} WHERE node = '{node}'"
        );
        self.query(&sql).await?.pop().context("a count gives a row")
    }

    /// How far the shards are.
    pub async fn offsets(&self) -> Result<Vec<Offsets>> {
        let arguments = ["lag", "--config", self.reader, "--format", "json"];
        let text = self.run(arguments.map(str::to_owned).into()).await?;
        serde_json::from_str(&text).context("airan lag")
    }

    /// What `airan lake check` says; an error where it finds something wrong.
    pub async fn check(&self) -> Result<String> {
        self.run(vec!["lake".into(), "check".into(), "--config".into(), self.reader.into()]).await
    }

    /// Retention, which publishes every commit first.
    pub async fn publish(&self) -> Result<String> {
        self.run(vec!["lake".into(), "expire".into(), "--config".into(), self.reader.into()]).await
    }

    /// What deltalake and a glob see, by a Python that has deltalake; `bucket` is the lake's URL there and the endpoint.
    pub async fn foreign(&self, python: &Path, bucket: Option<(&str, &str)>) -> Result<Foreign> {
        let mut command = Command::new(python);
        command.args(["-c", include_str!("../delta_rows.py")]).current_dir(&self.folder);
        match bucket {
            Some((url, endpoint)) => command.args([url, endpoint]),
            None => command.arg("data/lake"),
        };
        let text = output("delta_rows.py", command).await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn query<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let arguments = ["query", "--config", self.reader, "--format", "json", sql];
        let text = self.run(arguments.map(str::to_owned).into()).await?;
        serde_json::from_str(&text).with_context(|| format!("airan query {sql}"))
    }

    async fn run(&self, arguments: Vec<String>) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(&arguments).current_dir(&self.folder);
        output(&format!("airan {}", arguments.join(" ")), command).await
    }
}

/// What a command prints; an error with what it said where it fails.
async fn output(what: &str, mut command: Command) -> Result<String> {
    let run = tokio::task::spawn_blocking(move || command.output());
    let out = tokio::time::timeout(PATIENCE, run).await.with_context(|| format!("{what} hangs"))???;
    if !out.status.success() {
        let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        bail!("{what}: {}", said.trim());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// One scrape of `/metrics`: series with their labels, and values.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<(String, f64)>);

impl Scrape {
    /// Scrapes the process that shows its metrics at `admin`; None where nobody answers.
    pub async fn of(admin: &str) -> Option<Scrape> {
        let text = reqwest::get(format!("http://{admin}/metrics")).await.ok()?.text().await.ok()?;
        Some(Scrape::read(&text))
    }

    /// Of the text format.
    pub fn read(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Scrape(samples.collect())
    }

    /// Adds another process's.
    pub fn add(&mut self, other: Scrape) {
        self.0.extend(other.0);
    }

    /// The sum of all series of `name` whose labels hold `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |series: &&(String, f64)| {
            series.0.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && series.0.contains(label)
        };
        // An empty sum of floats is -0.
        self.0.iter().filter(of).map(|(_, value)| value).sum::<f64>() + 0.0
    }

    /// The sums of `name` by the value of label `key`.
    pub fn by(&self, name: &str, key: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.0.iter().filter(|(series, _)| series.starts_with(&format!("{name}{{"))) {
            let found = series.split_once(&format!("{key}=\"")).and_then(|(_, rest)| rest.split('"').next());
            *sums.entry(found.unwrap_or_default().to_owned()).or_default() += value;
        }
        sums
    }
}

/// Waits until the process says at `admin` that it is ready, for `limit` at the most.
pub async fn ready(name: &str, admin: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut said = String::from("no answer");
    while start.elapsed() < limit {
        if let Ok(answer) = reqwest::get(format!("http://{admin}/readyz")).await {
            if answer.status().is_success() {
                return Ok(());
            }
            said = answer.text().await.unwrap_or_default();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{name} is not ready within {limit:?}: {}", said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: series of one metric, of a longer name, and without labels.
    #[test]
    fn series_are_summed_by_name_and_label() {
        let scrape = Scrape::read(
            "# HELP x\nx_total{outcome=\"stored\",partition=\"0\"} 3\nx_total{outcome=\"stored\",partition=\"1\"} 4\n\
             x_total{outcome=\"duplicate\",partition=\"1\"} 1\nx_total_more 9\nplain 2\n",
        );
        assert_eq!(scrape.sum("x_total", "outcome=\"stored\""), 7.0);
        assert_eq!(scrape.sum("x_total", ""), 8.0);
        assert_eq!(scrape.sum("plain", ""), 2.0);
        assert_eq!(scrape.sum("absent", ""), 0.0);
        assert_eq!(scrape.by("x_total", "partition"), BTreeMap::from([("0".to_owned(), 3.0), ("1".to_owned(), 5.0)]));
    }
}
