use super::*;
use std::path::{Path, PathBuf};

use airan_lake::LakeSettings;
use airan_model::message::Message;
use airan_model::time::{DAY, HOUR, Micros};
use bytes::Bytes;
use futures::StreamExt;
use prometheus::Registry;
use tokio::task::JoinHandle;

use crate::testing::{T0, catalog, lake_settings, messages, meters, pipeline, settings};
use crate::testing_bus::MemoryBus;

/// A processor over a bus in memory and a lake in a folder of its own.
struct Site {
    bus: MemoryBus,
    folder: tempfile::TempDir,
    catalog: Arc<Catalog>,
    settings: Settings,
    clock: Clock,
}

struct Running {
    metrics: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
    done: JoinHandle<Result<(), ProcessorError>>,
}

impl Site {
    fn new(partitions: i32) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(T0 + 60_000_000);
        Site { bus: MemoryBus::new(partitions), folder, catalog: catalog(), settings: settings(), clock }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    async fn lake(&self) -> Lake {
        let settings = LakeSettings {
            path: self.path().display().to_string(),
            raw_retention: "7d".parse().unwrap(),
            window_retention: "400d".parse().unwrap(),
            ..lake_settings()
        };
        Lake::open(&settings, self.clock.clone()).await.unwrap()
    }

    async fn start(&self, lake: &Lake) -> Running {
        self.start_with(lake, vec![meters(&self.catalog).await]).await
    }

    async fn start_with(&self, lake: &Lake, pipelines: Vec<Pipeline>) -> Running {
        let bus = Arc::new(self.bus.clone());
        let processor = Processor::new(
            self.settings.clone(),
            bus,
            lake.clone(),
            Arc::clone(&self.catalog),
            pipelines,
            self.clock.clone(),
        )
        .unwrap();
        let metrics = Registry::new();
        processor.metrics().register(&metrics).unwrap();
        processor.results().register(&metrics).unwrap();
        let (readiness, shutdown) = (processor.readiness(), CancellationToken::new());
        let done = tokio::spawn(processor.run(shutdown.clone()));
        Running { metrics, readiness, shutdown, done }
    }

    /// One row of node `a` at each of these seconds, numbered by them.
    fn rows(&self, seconds: impl IntoIterator<Item = i64>) -> Vec<airan_bus::Received> {
        let line = |second: i64| {
            format!(
                "{{\"stream\": \"meter\", \"node\": \"a\", \"site\": \"s\", \"part\": \"x\", \"ts\": \"@{second}\", \"level\": {second}, \
                 \"total\": {second}, \"batch\": \"{:032x}\", \"seq\": {second}}}\n",
                7
            )
        };
        messages(&self.catalog, &seconds.into_iter().map(line).collect::<String>())
    }
}

impl Running {
    fn series(&self) -> Vec<(String, Vec<(String, String)>, f64)> {
        let mut series = Vec::new();
        for family in self.metrics.gather() {
            for metric in family.get_metric() {
                let labels =
                    metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
                let value = match family.get_field_type() {
                    prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
                    prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
                    _ => continue,
                };
                series.push((family.name().to_owned(), labels, value));
            }
        }
        series
    }

    /// The sum of the series of a metric with that label value; None where there is none.
    fn value(&self, name: &str, label: Option<&str>) -> Option<f64> {
        let of: Vec<f64> = self
            .series()
            .into_iter()
            .filter(|(of, labels, _)| {
                of == name && label.is_none_or(|label| labels.iter().any(|(_, value)| value == label))
            })
            .map(|series| series.2)
            .collect();
        (!of.is_empty()).then(|| of.iter().sum())
    }

    fn rows(&self, outcome: &str) -> u64 {
        self.value("airan_processor_rows_total", Some(outcome)).unwrap_or(0.0) as u64
    }

    /// appended, stored, duplicate, rejected of a scrape, and whether they add up with what is pending.
    fn sums(&self) -> ([u64; 4], bool) {
        let sums = ["appended", "stored", "duplicate", "rejected"].map(|outcome| self.rows(outcome));
        let pending = self.value("airan_processor_pending_rows", None).unwrap_or(0.0) as u64;
        (sums, sums[0] == sums[1] + sums[2] + sums[3] + pending)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.done).await.expect("stops in time").unwrap().unwrap();
    }

    /// As a kill: nothing is finished.
    async fn kill(self) {
        self.done.abort();
        let _ = self.done.await;
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about within 60 s");
}

/// `level` of every raw row of a partition, sorted.
async fn stored(lake: &Lake, partition: i32) -> Vec<f64> {
    stored_or_none(lake, partition).await.unwrap()
}

/// The same; None where its files cannot be read.
async fn stored_or_none(lake: &Lake, partition: i32) -> Option<Vec<f64>> {
    let mut rows = lake.raw_rows("memory", partition, "meter", Micros::MIN).await.ok()?;
    let mut levels = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        let column = batch.column_by_name("level").unwrap();
        levels.extend(
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(column).values().iter().copied(),
        );
    }
    levels.sort_by(f64::total_cmp);
    Some(levels)
}

fn levels(seconds: std::ops::Range<i64>) -> Vec<f64> {
    seconds.map(|second| second as f64).collect()
}

/// What the windows of `meters` say: start in seconds, readings.
async fn windows(lake: &Lake) -> Vec<(i64, i64)> {
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let sql = "SELECT CAST(arrow_cast(window_start, 'Int64') AS BIGINT) AS start, CAST(readings AS BIGINT) AS readings FROM meters ORDER BY 1, 2";
    let mut found = Vec::new();
    for batch in context.sql(sql).await.unwrap().collect().await.unwrap() {
        let column = |index: usize| {
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(index)).clone()
        };
        let (start, readings) = (column(0), column(1));
        found.extend((0..batch.num_rows()).map(|row| ((start.value(row) - T0) / 1_000_000, readings.value(row))));
    }
    found
}

/// Scenario: two partitions with rows, ticks, a duplicate, a foreign message and one of an unknown stream.
/// Guarantees: rows and windows are in the lake once, results and sums on the metrics page, rejects recorded with their place,
/// progress reported; after the stop nothing is left behind.
#[tokio::test]
async fn messages_become_rows_windows_and_metrics() {
    let site = Site::new(2);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..30));
    site.bus.append(0, site.rows(29..30));
    site.bus.append(1, site.rows(0..3));
    site.bus.append_message(
        1,
        T0 + 4_000_000,
        Message::Foreign { reason: "no header".into(), payload: Bytes::from_static(b"x") },
    );
    let Message::Rows(mut unknown) = site.rows(3..4)[0].message.clone() else { panic!("rows") };
    unknown.stream = Arc::from("unknown");
    site.bus.append_message(1, T0 + 4_000_000, Message::Rows(unknown));
    let running = site.start(&lake).await;
    assert!(running.readiness.check().is_err());
    until("all is stored", || running.rows("stored") == 33).await;
    assert_eq!(running.sums(), ([35, 33, 1, 1], true));
    assert_eq!(running.readiness.check(), Ok(()));
    until("the gauge is shown", || running.value("airan_meter_level_max", None) == Some(9.0)).await;
    assert_eq!(running.value("airan_meter_total", None), Some(9.0));
    assert_eq!(running.value("airan_processor_foreign_messages_total", None), Some(1.0));
    until("rejects are recorded", || site.bus.lock().rejected.len() == 2).await;
    let mut positions: Vec<_> =
        site.bus.lock().rejected.iter().map(|rejected| rejected.position.clone().unwrap()).collect();
    // Records are written beside the work, each on its own.
    positions.sort();
    assert_eq!(positions, ["1/3", "1/4"]);
    until("progress is reported", || site.bus.lock().reported == [(0, 31), (1, 5)].into()).await;
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..30));
    assert_eq!(stored(&lake, 1).await, levels(0..3));
    assert_eq!(windows(&lake).await, [(0, 10)]);
}

/// Scenario: the processor is killed and started again after every few messages, and sees rows again that it has stored.
/// Guarantees: every row once, every window once with all of its rows; the counters go on where they were.
#[tokio::test]
async fn killed_and_started_again_it_stores_each_row_and_window_once() {
    let site = Site::new(1);
    for round in 0..6 {
        let lake = site.lake().await;
        site.bus.append(0, site.rows(round * 10..round * 10 + 10));
        site.bus.append(0, site.rows(round * 10..round * 10 + 3));
        let running = site.start(&lake).await;
        let all = ((round + 1) * 10) as u64;
        until("some of it is stored", || running.rows("stored") >= all - 5).await;
        if round % 2 == 0 {
            running.kill().await;
        } else {
            until("all of it is stored", || running.rows("stored") == all).await;
            assert!(running.sums().1);
            running.stop().await;
        }
    }
    let lake = site.lake().await;
    site.bus.append_message(0, T0 + HOUR, Message::Tick);
    let running = site.start(&lake).await;
    until("the last windows are committed", || running.value("airan_meter_total", None) == Some(59.0)).await;
    assert_eq!(running.sums(), ([78, 60, 18, 0], true));
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..60));
    assert_eq!(windows(&lake).await, (0..6).map(|window| (window * 10, 10)).collect::<Vec<_>>());
}

/// Scenario: the store goes away and comes back.
/// Guarantees: the shard says so and is not ready, holds what it has and pauses its partition when that is much; afterwards every
/// row is stored once.
#[tokio::test]
async fn a_store_that_goes_away_pauses_and_loses_nothing() {
    let mut site = Site::new(1);
    site.settings.commit.queue_bytes = "4KiB".parse().unwrap();
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    let away = site.folder.path().join("away");
    break_store(&site.path(), &away);
    site.bus.append(0, site.rows(5..6));
    until("it is not ready", || running.readiness.check().is_err()).await;
    site.bus.append(0, site.rows(6..50));
    until("the partition is paused", || site.bus.lock().was_paused).await;
    until("it says so", || running.value("airan_processor_paused", None) == Some(1.0)).await;
    mend_store(&site.path(), &away);
    until("all is stored", || running.rows("stored") == 50).await;
    until("it is ready", || running.readiness.check().is_ok()).await;
    assert!(running.sums().1);
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..50));
}

/// Scenario: a processor is told to stop while the store is away.
/// Guarantees: it stops within its own time and says nothing false: what it could not commit is read again by the next one, once.
#[tokio::test]
async fn a_stop_while_the_store_is_away_is_in_time_and_loses_nothing() {
    let mut site = Site::new(1);
    site.settings.stop_within = "2s".parse().unwrap();
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    let away = site.folder.path().join("away");
    break_store(&site.path(), &away);
    site.bus.append(0, site.rows(5..20));
    until("it is not ready", || running.readiness.check().is_err()).await;
    running.shutdown.cancel();
    let within = Duration::from_secs(2) + Processor::LEAVES_WITHIN;
    let ended = tokio::time::timeout(within, running.done).await.expect("stops in its own time");
    ended.unwrap().unwrap();
    mend_store(&site.path(), &away);
    assert_eq!(stored(&lake, 0).await, levels(0..5));
    let again = site.start(&lake).await;
    until("the rest is stored", || again.rows("stored") == 20).await;
    again.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..20));
}

/// The lake's folder is a file for a while.
fn break_store(path: &Path, away: &Path) {
    std::fs::rename(path, away).unwrap();
    std::fs::write(path, b"not a folder").unwrap();
}

fn mend_store(path: &Path, away: &Path) {
    std::fs::remove_file(path).unwrap();
    std::fs::rename(away, path).unwrap();
}

/// Scenario: somebody else claims the shard while it has uncommitted work.
/// Guarantees: K2, the work and its metrics are dropped; still assigned, it claims the shard again and stores each row once.
#[tokio::test]
async fn a_fenced_shard_drops_its_work_and_starts_over() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    let (_other, recovered) = lake.claim("memory", 0, 1).await.unwrap();
    assert_eq!(recovered.unwrap().next_offset, 5);
    site.bus.append(0, site.rows(5..20));
    until("it was fenced", || running.value("airan_processor_fenced_total", None) == Some(1.0)).await;
    until("all is stored", || running.rows("stored") == 20).await;
    assert_eq!(running.sums(), ([20, 20, 0, 0], true));
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..20));
}

/// Scenario: one partition is revoked and comes back; then the log of the other loses what was not read yet.
/// Guarantees: a revoked shard commits, its series vanish, the partition is given up; out of range stops that shard alone, by name.
#[tokio::test]
async fn shards_come_and_go_and_a_lost_range_stops_only_its_own() {
    let site = Site::new(2);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..30));
    site.bus.append(1, site.rows(0..5));
    let running = site.start(&lake).await;
    until("all is stored", || running.rows("stored") == 35).await;
    until("the gauge is shown", || running.value("airan_meter_level_max", None).is_some()).await;
    site.bus.event(Event::Revoked(vec![0]));
    until("it is given up", || site.bus.lock().released == [0]).await;
    assert_eq!(running.value("airan_meter_level_max", None), None);
    assert_eq!(running.value("airan_processor_rows_total", Some("0")), None);
    assert_eq!(running.rows("stored"), 5);
    site.bus.append(0, site.rows(30..40));
    site.bus.event(Event::Assigned(vec![0]));
    until("it goes on", || running.rows("stored") == 45).await;

    site.bus.event(Event::Revoked(vec![1]));
    until("it is given up", || site.bus.lock().released == [0, 1]).await;
    site.bus.append(1, site.rows(5..10));
    site.bus.lock().first.insert(1, 8);
    site.bus.event(Event::Assigned(vec![1]));
    until("the loss is named", || {
        running
            .readiness
            .check()
            .is_err_and(|reason| reason.contains("shard 1 has stopped: offsets 5 to 7 are no longer on the bus"))
    })
    .await;
    site.bus.append(0, site.rows(40..50));
    // The stopped shard still says what it stored, so the sums over all shards stay right.
    until("the other goes on", || running.rows("stored") == 55).await;
    assert!(running.sums().1);
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..50));
    assert_eq!(stored(&lake, 1).await, levels(0..5));
}

/// Scenario: a gauge's entity falls silent while the log goes on.
/// Guarantees: the gauge shows the newest closed window, then disappears; the counter stays.
#[tokio::test]
async fn a_gauge_disappears_when_its_entity_is_silent() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..21));
    let running = site.start(&lake).await;
    until("the first window is shown", || running.value("airan_meter_level_max", None) == Some(9.0)).await;
    site.bus.append(0, site.rows(21..31));
    until("the second window is shown", || running.value("airan_meter_level_max", None) == Some(19.0)).await;
    site.bus.append_message(0, T0 + 120_000_000, Message::Tick);
    until("the third window is shown", || running.value("airan_meter_total", None) == Some(30.0)).await;
    assert_eq!(running.value("airan_meter_level_max", None), Some(30.0));
    site.bus.append_message(0, T0 + 140_000_000, Message::Tick);
    until("the gauge is gone", || running.value("airan_meter_level_max", None).is_none()).await;
    assert_eq!(running.value("airan_meter_total", None), Some(30.0));
    running.stop().await;
}

/// Scenario: a shard sees a row, then a tick each minute for an hour, and commits whenever that is worth it.
/// Guarantees: what follows from the row is committed; afterwards ticks alone are not worth a record of the lake.
#[tokio::test]
async fn ticks_alone_are_soon_not_worth_a_commit() {
    let catalog = catalog();
    let setup = Arc::new(Setup::new(settings(), &catalog, vec![meters(&catalog).await]));
    let mut shard = crate::shard::Shard::new(&setup, 0);
    let line =
        r#"{"stream": "meter", "node": "a", "site": "s", "part": "x", "ts": "@1", "append_time": "@2", "level": 1}"#;
    let row = messages(&catalog, line).remove(0);
    let (mut commits, mut windows) = (Vec::new(), 0);
    for minute in 0..60 {
        let tick = airan_bus::Received {
            offset: minute,
            append_time: T0 + minute * 60_000_000,
            message: Message::Tick,
            ..row.clone()
        };
        shard.apply(if minute == 0 { row.clone() } else { tick }).await.unwrap();
        if shard.has_work() {
            windows += shard.begin_commit().unwrap().results.iter().map(|result| result.closed.len()).sum::<usize>();
            shard.finish_commit();
            commits.push(minute);
        }
    }
    assert_eq!(windows, 1);
    assert!(commits.starts_with(&[0, 1, 2]) && commits.len() < 10, "{commits:?}");
}

/// A partition is revoked, and given back when its log has lost what was not read.
async fn lose(site: &Site, partition: i32, first: i64) {
    let released = site.bus.lock().released.len();
    site.bus.event(Event::Revoked(vec![partition]));
    until("it is given up", || site.bus.lock().released.len() > released).await;
    site.bus.lock().first.insert(partition, first);
    site.bus.event(Event::Assigned(vec![partition]));
}

/// Scenario: a shard's log has lost what was not read; the loss is accepted while the processor runs.
/// Guarantees: nothing can be skipped where nothing is lost; the stopped shard starts again by itself at the first offset there
/// is; what was stored stays, the given-up offsets are counted, the sums add up and the lake is sound (K1).
#[tokio::test]
async fn an_accepted_loss_lets_a_stopped_shard_go_on() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    let n = lake.head("memory", 0).await.unwrap().unwrap().n;
    let refused = crate::skip(&lake, "memory", 0, 1, (0, 5)).await.unwrap_err();
    assert!(matches!(refused, crate::SkipError::NothingLost { wanted: 5, .. }), "{refused}");
    assert_eq!(lake.head("memory", 0).await.unwrap().unwrap().n, n, "a refusal leaves nothing behind");
    let ahead = crate::skip(&lake, "memory", 0, 1, (0, 3)).await.unwrap_err();
    assert!(matches!(ahead, crate::SkipError::Ahead { wanted: 5, next: 3 }), "{ahead}");
    site.bus.append(0, site.rows(5..10));
    until("all is stored", || running.rows("stored") == 10).await;
    lose(&site, 0, 13).await;
    site.bus.append(0, site.rows(10..15));
    until("the loss is named", || {
        running.readiness.check().is_err_and(|reason| reason.contains("offsets 10 to 12 are no longer on the bus"))
    })
    .await;
    let loss = loop {
        match crate::skip(&lake, "memory", 0, 1, (13, 15)).await {
            Ok((loss, _)) => break loss,
            // The shard was about to commit its last.
            Err(crate::SkipError::Commit(airan_lake::CommitError::Fenced { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((loss.from, loss.until, loss.offsets()), (10, 13, 3));
    until("it goes on", || running.rows("stored") == 12).await;
    assert_eq!(running.value("airan_processor_skipped_offsets_total", None), Some(3.0));
    assert!(running.sums().1);
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..10).into_iter().chain(levels(13..15)).collect::<Vec<_>>());
    assert_eq!(lake.check().await.unwrap().problems, []);
    let (_, state) = lake.head_and_state("memory", 0).await.unwrap().unwrap();
    let summary = crate::ShardSummary::read(state.unwrap()).unwrap();
    assert_eq!((summary.stored, summary.skipped_offsets), (12, 3));
}

/// Scenario: a shard has stopped, the cause is mended, and somebody claims the shard.
/// Guarantees: it starts again in the process that owns it, and each row is stored once.
#[tokio::test]
async fn a_stopped_shard_starts_again_when_somebody_claims_it() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    lose(&site, 0, 8).await;
    site.bus.append(0, site.rows(5..10));
    until("it has stopped", || running.readiness.check().is_err_and(|reason| reason.contains("has stopped"))).await;
    site.bus.lock().first.insert(0, 0);
    for _ in 0..30 {
        assert!(running.readiness.check().is_err() && running.rows("stored") == 5, "nobody has helped it yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lake.claim("memory", 0, 1).await.unwrap();
    until("it goes on", || running.rows("stored") == 10).await;
    assert_eq!(running.readiness.check(), Ok(()));
    running.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..10));
}

/// Scenario: the bus takes the process for another's and will have it no more.
/// Guarantees: the processor ends with that reason, instead of asking for ever; what it had is stored once.
#[tokio::test]
async fn an_expelled_processor_ends_with_the_reason() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 5).await;
    site.bus.append(0, site.rows(5..8));
    site.bus.lock().fatal = Some("another process has joined under its name".to_owned());
    let ended = tokio::time::timeout(Duration::from_secs(60), running.done).await.expect("it ends").unwrap();
    let reason = causes(&ended.unwrap_err());
    assert!(reason.contains("another process has joined"), "{reason}");
    site.bus.lock().fatal = None;
    let again = site.start(&lake).await;
    until("all is stored", || again.rows("stored") == 8).await;
    assert_eq!(again.sums(), ([8, 8, 0, 0], true));
    again.stop().await;
    assert_eq!(stored(&lake, 0).await, levels(0..8));
}

/// Scenario: the store takes nothing of one shard's for a while, and that shard gets more messages than it may hold.
/// Guarantees: its partition alone is paused and it alone is said to be stuck; the other shard goes on committing all along;
/// afterwards every row is stored once.
#[tokio::test]
async fn a_shard_whose_store_fails_holds_up_no_other() {
    let mut site = Site::new(2);
    site.settings.commit.queue_bytes = "4KiB".parse().unwrap();
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..5));
    site.bus.append(1, site.rows(0..5));
    let running = site.start(&lake).await;
    until("the first rows are stored", || running.rows("stored") == 10).await;
    let (records, away) = (site.path().join("_commits/memory/0"), site.folder.path().join("away"));
    break_store(&records, &away);
    site.bus.append(0, site.rows(5..50));
    until("the one shard is stuck", || {
        running.readiness.check().is_err_and(|reason| reason.contains("shard 0 cannot commit"))
    })
    .await;
    // What came before may have been taken up by then; now it takes up nothing.
    site.bus.append(0, site.rows(50..95));
    until("its partition is paused", || site.bus.lock().paused == [0].into()).await;
    for round in 1..4 {
        site.bus.append(1, site.rows(round * 5..round * 5 + 5));
        until("the other goes on", || running.rows("stored") == 10 + round as u64 * 5).await;
    }
    assert!(running.readiness.check().is_err() && site.bus.lock().paused == [0].into());
    mend_store(&records, &away);
    until("all is stored", || running.rows("stored") == 115).await;
    until("it is ready", || running.readiness.check().is_ok()).await;
    assert!(running.sums().1);
    running.stop().await;
    assert_eq!((stored(&lake, 0).await, stored(&lake, 1).await), (levels(0..95), levels(0..20)));
}

/// Scenario: one shard's rows cost a pipeline tens of milliseconds each; the other's cost nothing.
/// Guarantees: the other shard stores and commits all of its rows, again and again, while the slow one is at work on its own.
#[tokio::test]
async fn a_shard_that_is_slow_to_compute_holds_up_no_other() {
    let site = Site::new(2);
    let lake = site.lake().await;
    // Levenshtein's table of 4,000 by 4,000 for each row.
    let sql = "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site,
        max(levenshtein(repeat(node, 4000), repeat(site, 4000))) AS distance
        FROM other GROUP BY tumble(ts, INTERVAL '10 seconds'), site";
    let slow = pipeline(&site.catalog, "slow", sql, " []").await;
    let line = |second: i64| {
        format!(
            "{{\"stream\": \"other\", \"node\": \"a\", \"site\": \"s\", \"ts\": \"@{second}\", \"size\": 1, \
             \"batch\": \"{:032x}\", \"seq\": {second}}}\n",
            8
        )
    };
    const HEAVY: i64 = 2_000;
    site.bus.append(0, messages(&site.catalog, &(0..HEAVY).map(line).collect::<String>()));
    let running = site.start_with(&lake, vec![meters(&site.catalog).await, slow]).await;
    let offset = |partition: &str| running.value("airan_processor_next_offset", Some(partition)).unwrap_or(0.0);
    until("the slow shard is at work", || offset("0") > 0.0).await;
    for round in 0..10 {
        site.bus.append(1, site.rows(round * 5..round * 5 + 5));
        let mut count = 0;
        for _ in 0..1_000 {
            // Before the first commit there is no such table.
            count = stored_or_none(&lake, 1).await.map_or(0, |levels| levels.len());
            if count == (round as usize + 1) * 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(count, (round as usize + 1) * 5, "rows of the quick shard in round {round}");
    }
    assert!(offset("0") < HEAVY as f64, "the slow shard was through first: it is not slow enough for this test");
    running.kill().await;
}

/// The newest revision of each window of `meters`: start in seconds, readings, rise of `total`, revision.
async fn latest(lake: &Lake) -> Vec<(i64, i64, i64, i64)> {
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let sql = "SELECT CAST(arrow_cast(window_start, 'Int64') AS BIGINT), CAST(readings AS BIGINT),
        CAST(coalesce(total, -1) AS BIGINT), CAST(revision AS BIGINT) FROM meters_latest ORDER BY 1";
    let mut found = Vec::new();
    // Before the first window there is no such table.
    let Ok(frame) = context.sql(sql).await else { return found };
    for batch in frame.collect().await.unwrap() {
        let column = |index: usize| {
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(index)).clone()
        };
        let (start, readings, total, revision) = (column(0), column(1), column(2), column(3));
        found.extend((0..batch.num_rows()).map(|row| {
            ((start.value(row) - T0) / 1_000_000, readings.value(row), total.value(row), revision.value(row))
        }));
    }
    found
}

/// Rows of a window table with a completeness below 1, or none.
async fn incomplete(lake: &Lake, table: &str) -> i64 {
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let sql = format!("SELECT count(*) FROM {table} WHERE completeness IS NULL OR completeness < 1.0");
    let counted = context.sql(&sql).await.unwrap().collect().await.unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(counted[0].column(0)).value(0)
}

/// Waits until the newest windows of `meters` are these.
async fn until_latest(lake: &Lake, wanted: &[(i64, i64, i64, i64)]) {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        found = latest(lake).await;
        if found == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the newest windows are {found:?}, not {wanted:?}");
}

#[path = "late_rows_tests.rs"]
mod late_rows;

#[path = "erasure_tests.rs"]
mod erasure;
