//! Several processors of one group over Kafka, with a sender that keeps its own ledger: what a test does to them, and what must
//! hold whatever was done.
//!
//! The ledger is outside of everything under test: it holds each row that the gateway acknowledged, by what the row says of
//! itself. Afterwards the lake must hold exactly these rows, each once, and its closed windows must be what one query over them
//! says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use airan_model::identity::partition_of;
use serde_json::{Value, json};

use super::edge::Edge;
use super::site::{Process, Scrape, now_micros, until};

/// Partitions of the topic.
pub const PARTITIONS: usize = 6;
/// Sites, one node each, so that every partition has rows.
pub const SITES: usize = 18;
/// Devices of a node.
const DEVICES: usize = 2;
/// Rows of one body.
pub const BODY_ROWS: i64 = (SITES * DEVICES) as i64;
/// Wait between two bodies, each a second of event time. Rows run ahead of the clock by less than is believed.
const PACE: Duration = Duration::from_millis(500);
/// Lateness of the pipeline, and width of its windows, µs.
const LATENESS: i64 = 10_000_000;
const WIDTH: i64 = 10_000_000;

/// Processors of one group, their gateway, and the ledger.
pub struct Fleet {
    pub edge: Arc<Edge>,
    gateway: Option<Process>,
    members: BTreeMap<String, Member>,
    start: i64,
    sent: Arc<AtomicI64>,
}

struct Member {
    process: Process,
    admin: u16,
}

/// Sends until it is told to stop.
pub struct Sender {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Sender {
    /// Ends after the body under way.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the sender sends");
    }
}

impl Fleet {
    /// A gateway on a topic and a group of its own, and no processor yet.
    pub async fn new(name: &str, broker: &str) -> Fleet {
        Fleet::new_with(name, broker, "").await
    }

    /// The same with `more` in the gateway's configuration.
    pub async fn new_with(name: &str, broker: &str, more: &str) -> Fleet {
        let topic = format!("airan.telemetry.{name}{}", now_micros());
        let edge = Edge::over_kafka_with(name, broker, &topic, PARTITIONS, more);
        let sites = (0..SITES).map(|site| format!("      - {{name: site-{site}, nodes: [edge-{site}]}}\n"));
        let inventory =
            format!("regions:\n  - name: north\n    jurisdiction: de\n    sites:\n{}", sites.collect::<String>());
        edge.write("inventory.yaml", &inventory);
        let gateway = edge.gateway();
        let start = now_micros() / WIDTH * WIDTH;
        Fleet { edge: Arc::new(edge), gateway: Some(gateway), members: BTreeMap::new(), start, sent: Arc::default() }
    }

    /// Starts the processor `name`, which reaches the brokers at `broker`.
    pub fn join(&mut self, name: &str, broker: &str) {
        self.join_with(name, broker, "");
    }

    /// The same with `more` in its configuration.
    pub fn join_with(&mut self, name: &str, broker: &str, more: &str) {
        let (process, admin) = self.edge.member(name, broker, more);
        assert!(self.members.insert(name.to_owned(), Member { process, admin }).is_none(), "{name} runs already");
    }

    pub fn member(&mut self, name: &str) -> &mut Process {
        &mut self.members.get_mut(name).expect("a member").process
    }

    /// SIGKILL.
    pub fn kill(&mut self, name: &str) {
        self.members.remove(name).expect("a member").process.kill();
    }

    /// SIGTERM; how long it took to end.
    pub fn stop(&mut self, name: &str) -> Duration {
        let begun = Instant::now();
        let (status, said) = self.members.remove(name).expect("a member").process.stop(Duration::from_secs(40));
        assert!(status.success(), "{name}: {status}: {said:#?}");
        begun.elapsed()
    }

    /// Sends bodies from now on, each until it is acknowledged.
    pub fn send(&self) -> Sender {
        let (edge, start, sent) = (Arc::clone(&self.edge), self.start, Arc::clone(&self.sent));
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                let second = sent.load(Ordering::Relaxed);
                let body = body(start, second);
                until("an acknowledgement", || async {
                    let (status, text) = edge.push("/v1/ndjson", "application/x-ndjson", body.clone()).await;
                    assert!(status == 200 || status >= 500 || status == 0, "{status} {text}");
                    (status == 200).then_some(())
                })
                .await;
                sent.store(second + 1, Ordering::Relaxed);
                tokio::time::sleep(PACE).await;
            }
        });
        Sender { stop, task }
    }

    /// Bodies acknowledged so far.
    pub fn sent(&self) -> i64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `count` more bodies are acknowledged.
    pub async fn let_pass(&self, count: i64) {
        let wanted = self.sent() + count;
        until(&format!("{count} more bodies"), || async { (self.sent() >= wanted).then_some(()) }).await;
    }

    /// Ends the last sender once rows have passed the end of two windows: on a fast machine a scenario is over before that.
    pub async fn finish(&self, sender: Sender) {
        let seconds = (2 * WIDTH + LATENESS) / 1_000_000 + 2;
        until("two closed windows", || async { (self.sent() >= seconds).then_some(()) }).await;
        sender.stop().await;
    }

    /// The partitions that each of `names` says it is at work on.
    async fn shards(&self, names: &[&str]) -> Option<BTreeMap<String, BTreeSet<String>>> {
        let mut shards = BTreeMap::new();
        for name in names {
            let admin = self.members.get(*name).expect("a member").admin;
            let page = Scrape::of(&format!("http://127.0.0.1:{admin}/metrics")).await?;
            let of = page.series("airan_processor_next_offset").map(|(series, _)| series.to_owned()).collect();
            shards.insert((*name).to_owned(), of);
        }
        Some(shards)
    }

    /// Waits until `names` share all partitions among them, each has some, and is ready. Gives how long that took.
    pub async fn share(&self, names: &[&str]) -> Duration {
        let begun = Instant::now();
        until(&format!("{names:?} share all shards"), || async {
            let shards = self.shards(names).await?;
            let all: usize = shards.values().map(BTreeSet::len).sum();
            let distinct: BTreeSet<&String> = shards.values().flatten().collect();
            let has_each = shards.values().all(|of| !of.is_empty());
            for name in names {
                let admin = self.members.get(*name).expect("a member").admin;
                let ready = reqwest::get(format!("http://127.0.0.1:{admin}/readyz")).await.ok()?;
                if !ready.status().is_success() {
                    return None;
                }
            }
            (all == PARTITIONS && distinct.len() == PARTITIONS && has_each).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// Why `names` are not ready, in their own words; None while one of them does not answer.
    pub async fn not_ready(&self, names: &[&str]) -> Option<String> {
        let mut said = String::new();
        for name in names {
            let admin = self.members.get(*name).expect("a member").admin;
            said.push_str(&reqwest::get(format!("http://127.0.0.1:{admin}/readyz")).await.ok()?.text().await.ok()?);
        }
        Some(said)
    }

    /// The sum of a metric of a member.
    pub async fn metric(&self, name: &str, metric: &str) -> Option<f64> {
        let admin = self.members.get(name).expect("a member").admin;
        Some(Scrape::of(&format!("http://127.0.0.1:{admin}/metrics")).await?.sum(metric, &[]))
    }

    /// Waits until a commit of each shard that began after this call is in the lake, made by `names`.
    pub async fn commits(&self, names: &[&str]) {
        let before = self.lag();
        until(&format!("commits of all shards by {names:?}"), || async {
            let now = self.lag();
            let has_gone_on = now.iter().zip(&before).all(|(now, before)| {
                let is_newer = now["commit"].as_i64() > before["commit"].as_i64();
                is_newer && names.iter().any(|name| now["owner"] == **name)
            });
            (now.len() == PARTITIONS && has_gone_on).then_some(())
        })
        .await;
    }

    /// What `airan lag` says, a value for each partition.
    pub fn lag(&self) -> Vec<Value> {
        serde_json::from_str(&self.edge.run(&["lag", "--format", "json"])).expect("airan lag prints JSON")
    }

    /// Everything that must hold after the sender has stopped, while `names` run: the rows of the lake are those of the ledger less
    /// `lost` (site and second), each once; its closed windows are what one query over the rows says; the sums add up; and the lake
    /// is sound.
    pub async fn account(&self, names: &[&str], lost: &dyn Fn(usize, i64) -> bool) {
        let sent = self.sent();
        let expected: BTreeSet<(String, String, i64)> = (0..sent)
            .flat_map(|second| rows_of(self.start, second).filter(move |row| !lost(row.0, second)))
            .map(|row| (format!("edge-{}", row.0), row.1, row.2))
            .collect();
        let wanted = expected.len() as i64;
        until(&format!("{wanted} rows"), || async { (self.edge.count("accelerator")? >= wanted).then_some(()) }).await;
        let ledger = "SELECT node, device, CAST(arrow_cast(ts, 'Int64') AS BIGINT) AS ts FROM accelerator";
        let stored = self.edge.query(ledger);
        let distinct: BTreeSet<(String, String, i64)> = stored.iter().map(identity).collect();
        let missing: Vec<_> = expected.difference(&distinct).take(5).collect();
        let strange: Vec<_> = distinct.difference(&expected).take(5).collect();
        assert!(missing.is_empty() && strange.is_empty(), "missing {missing:?}, not acknowledged {strange:?}");
        assert_eq!(stored.len(), expected.len(), "rows are stored twice");
        let ids = "SELECT count(DISTINCT concat(node, ':', batch, ':', CAST(seq AS VARCHAR))) AS n FROM accelerator";
        assert_eq!(self.edge.query(ids)[0]["n"].as_i64(), Some(wanted), "identities");
        self.windows_are_right(sent).await;
        let mut ports = vec![self.edge.gateway_admin()];
        ports.extend(names.iter().map(|name| self.members.get(*name).expect("a member").admin));
        self.edge.sums_of(&ports, sent * BODY_ROWS - wanted).await;
        self.edge.lake_is_sound();
    }

    /// Every window whose end the rows have passed is closed, once, and says what a query over the raw rows says.
    async fn windows_are_right(&self, sent: i64) {
        let closed_by = self.start + (sent - 1) * 1_000_000 - LATENESS;
        let at = "CAST(arrow_cast(window_start, 'Int64') AS BIGINT)";
        let closed = format!(
            "SELECT site, device, {at} AS at, round(utilization_avg_ratio, 9) AS utilization, round(energy_joules, 6) AS energy \
             FROM accelerator_capacity_latest WHERE {at} + {WIDTH} <= {closed_by} ORDER BY site, device, at"
        );
        // The rise of a row is the difference to the row before it; the first row of a device has none.
        let batch = format!(
            "WITH rises AS (SELECT site, device, CAST(arrow_cast(ts, 'Int64') AS BIGINT) AS ts, utilization, \
               energy_joules - lag(energy_joules) OVER (PARTITION BY node, device ORDER BY ts) AS rise FROM accelerator) \
             SELECT site, device, ts / {WIDTH} * {WIDTH} AS at, round(avg(utilization), 9) AS utilization, \
               round(sum(rise), 6) AS energy \
             FROM rises WHERE ts / {WIDTH} * {WIDTH} + {WIDTH} <= {closed_by} \
             GROUP BY site, device, ts / {WIDTH} * {WIDTH} ORDER BY site, device, at"
        );
        let wanted = self.edge.query(&batch);
        assert!(!wanted.is_empty(), "no window can have closed");
        let got = until(&format!("{} closed windows", wanted.len()), || async {
            self.edge.try_query(&closed).filter(|got| got.len() >= wanted.len())
        })
        .await;
        for (got, wanted) in got.iter().zip(&wanted) {
            assert_eq!(got, wanted);
        }
        assert_eq!(got.len(), wanted.len(), "windows twice");
        println!("{} rows, {} closed windows are right", sent * BODY_ROWS, got.len());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.members.clear();
        drop(self.gateway.take());
    }
}

/// Whether the rows of a site go to a partition.
pub fn is_of(site: usize, partition: usize) -> bool {
    partition_of(&format!("site-{site}"), PARTITIONS as i32) == partition as i32
}

/// The rows of a second: number of the site, device, time.
fn rows_of(start: i64, second: i64) -> impl Iterator<Item = (usize, String, i64)> {
    let ts = start + second * 1_000_000;
    (0..SITES).flat_map(move |site| (0..DEVICES).map(move |device| (site, format!("GPU-{site}-{device}"), ts)))
}

fn identity(row: &Value) -> (String, String, i64) {
    let text = |name: &str| row[name].as_str().expect("a text").to_owned();
    (text("node"), text("device"), row["ts"].as_i64().expect("a time"))
}

/// One NDJSON body: a second of every device. Energy rises by a whole number that differs from second to second, so that a row
/// that is missing or double shows in the sum of its window.
fn body(start: i64, second: i64) -> String {
    rows_of(start, second)
        .map(|(site, device, ts)| {
            let energy = (0..=second).map(|second| 100 + second % 7).sum::<i64>();
            let row = json!({
                "stream": "accelerator", "ts": ts, "node": format!("edge-{site}"), "device": device,
                "utilization": f64::from((second as i32 * 7 + site as i32) % 10) / 10.0, "power_watts": 250.0,
                "energy_joules": energy as f64,
            });
            format!("{row}\n")
        })
        .collect()
}
