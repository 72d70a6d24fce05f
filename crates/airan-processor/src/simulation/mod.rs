//! The second half of the system in one thread and in simulated time: processors over one lake in a stormy object store.
//!
//! ```text
//!  load ──▶ topic ──▶ processors 0, 1, 2 ──▶ storm ──▶ one memory
//!             │ ▲          ▲  │ deaths         ▲
//!             │ └ director ┴──┘                └── errands: compact, expire, backfill, erase
//!             ▼   who owns what, who dies, who starts again
//!          machine: logs on a disk whose power fails
//! ```
//!
//! Everything follows from a seed: who owns which partition (also two at once, when the one before was not told), which
//! operation of the store fails and how, when a process is dropped, at whatever await it stands, and what tools are run on the
//! lake meanwhile; which sync or write of the log fails, and when its machine loses power, all processes with it. Senders send
//! again what was not acknowledged. Time is tokio's paused time, so a minute of waiting takes none. After the storm one processor
//! finishes the work, in every second run a node's rows are erased in a storm of its own, and then it is compared what was sent and
//! what is in the lake. In the end, a day later, retention clears up what was left half done: files that nothing names, and uploads that
//! were cut off.
//!
//! `AIRAN_SEED=n cargo test … simulation` replays one run, `AIRAN_CASES=n` makes a long one, `AIRAN_TRACE=1` prints each
//! operation and what is logged.

mod errand;
mod load;
mod machine;
mod storm;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use airan_lake::{Lake, Request, RequestReason};
use airan_model::catalog::Catalog;
use airan_model::time::{Clock, DAY, HOUR, ManualClock, Micros};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::errand::{Errand, Tools};
use self::load::{Load, RowKey, WindowKey, WindowValue, load};
use self::machine::Machine;
use self::storm::{Done, Op, Point, Storm};
use self::topic::Topic;
use crate::dice::Dice;
use crate::processor::{Processor, ProcessorError};
use crate::settings::Settings;
use crate::setup::Pipeline;
use crate::testing::{T0, catalog, lake_settings, meters, settings};
use crate::threads::Threads;

/// Deaths that may wait to be heard of: each process has at most one at a time.
const DEATHS: usize = 64;
/// Partitions of the topic.
const PARTITIONS: usize = 2;
/// Processes in a run, at most.
const PROCESSES: usize = 3;
/// So few that merged files come in several parts.
const PART_BYTES: usize = 2 << 10;
/// How long the last processor may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long an erasure is fought by the weather.
const ERASE_IN_STORM: Duration = Duration::from_secs(600);
/// The process that finishes the work.
const LAST: usize = PROCESSES;
/// The process of the tools.
const TOOL: usize = PROCESSES + 1;
/// The process that looks at the outcome.
const READER: usize = PROCESSES + 2;
/// Whose rows are erased, where any are.
const ERASED: &str = "n00";

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ProcessorError>>,
    metrics: Registry,
}

/// What a run was.
struct Run {
    outcome: Result<(), String>,
    points: BTreeSet<Point>,
    trace: Vec<Done>,
    /// What became of the logs.
    logs: Vec<String>,
    deaths: u64,
    power_losses: u64,
    errands: u64,
    /// Uploads with parts that were cut off, and files that nothing named: vacuum found them.
    cut_off: usize,
    orphans: u64,
}

struct Director {
    dice: Dice,
    catalog: Arc<Catalog>,
    settings: Settings,
    pipeline: Pipeline,
    topic: Topic,
    storm: Storm,
    clock: (Clock, ManualClock),
    running: BTreeMap<usize, Running>,
    errand: Option<JoinHandle<Result<(), String>>>,
    dying: mpsc::Receiver<usize>,
    deaths: u64,
    /// Errands that came to their end.
    errands: u64,
}

impl Director {
    async fn new(seed: u64) -> Director {
        let mut dice = Dice::of(seed);
        let (deaths, dying) = mpsc::channel(DEATHS);
        let storm = Storm::new(dice.next(), 3 + dice.below(20), deaths);
        let catalog = catalog();
        let mut settings = settings();
        settings.commit.interval = Duration::from_secs(1 + dice.below(5)).into();
        settings.commit.retry_max = Duration::from_secs(5).into();
        settings.publish_every = Duration::from_secs(2 + dice.below(8)).into();
        let pipeline = meters(&catalog).await;
        let machine = dice.next();
        let (clock, hand) = Clock::manual();
        // The hours of the rows are over for compaction.
        hand.set(T0 + 3 * HOUR);
        Director {
            dice,
            catalog,
            settings,
            pipeline,
            topic: Topic::on(Machine::new(machine, PARTITIONS)),
            storm,
            clock: (clock, hand),
            running: BTreeMap::new(),
            errand: None,
            dying,
            deaths: 0,
            errands: 0,
        }
    }

    fn lake(&self, process: usize) -> Lake {
        let mut settings = lake_settings();
        settings.compaction.every = "7s".parse().unwrap();
        settings.compaction.min_files = 2;
        Lake::in_object_store(self.storm.store(process), PART_BYTES, settings, self.clock.0.clone()).unwrap()
    }

    fn begin(&mut self, errand: Errand) {
        let tools = Tools {
            lake: self.lake(TOOL),
            clock: self.clock.0.clone(),
            topic: self.topic.of(TOOL),
            pipeline: self.pipeline.clone(),
            series: crate::series(&self.catalog),
        };
        self.errand = Some(tokio::spawn(tools.run(errand)));
    }

    /// How the errand ended; None while it is at work.
    async fn ended(&mut self) -> Option<Result<(), String>> {
        let task = self.errand.take_if(|task| task.is_finished())?;
        let outcome = task.await.map_err(|error| error.to_string()).flatten();
        self.errands += u64::from(outcome.is_ok());
        Some(outcome)
    }

    fn start(&mut self, process: usize) {
        let processor = Processor::new(
            self.settings.clone(),
            self.topic.of(process),
            self.lake(process),
            Arc::clone(&self.catalog),
            vec![self.pipeline.clone()],
            self.clock.0.clone(),
        )
        .unwrap();
        let metrics = Registry::new();
        processor.metrics().register(&metrics).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(processor.run_on(Threads::here(), stop.clone()));
        self.running.insert(process, Running { stop, task, metrics });
    }

    /// Drops a process wherever it stands.
    async fn kill(&mut self, process: usize) {
        if process == TOOL {
            let Some(errand) = self.errand.take() else { return };
            errand.abort();
            self.deaths += u64::from(errand.await.is_err());
            return;
        }
        let Some(running) = self.running.remove(&process) else { return };
        self.topic.leave(process);
        running.task.abort();
        let _ = running.task.await;
        self.deaths += 1;
    }

    /// The machine of the logs has lost its power, and everything stopped with it: it comes up again.
    async fn power_loss(&mut self) {
        for process in (0..=LAST).chain([TOOL]) {
            self.kill(process).await;
        }
        self.topic.lock().machine.come_up();
    }

    /// Time goes on; who dies of the storm is dropped.
    async fn pass(&mut self, span: Duration) {
        tokio::time::sleep(span).await;
        self.clock.1.advance(span.as_micros() as Micros);
        while let Ok(process) = self.dying.try_recv() {
            self.kill(process).await;
        }
    }

    /// Partitions go to some of those that run; not everybody is told what is no longer theirs.
    fn rebalance(&mut self) {
        let processes: Vec<usize> = self.running.keys().copied().collect();
        if processes.is_empty() {
            return;
        }
        let mut owned: BTreeMap<usize, BTreeSet<i32>> = processes.iter().map(|of| (*of, BTreeSet::new())).collect();
        for partition in 0..PARTITIONS as i32 {
            let owner = processes[self.dice.below(processes.len() as u64) as usize];
            owned.entry(owner).or_default().insert(partition);
        }
        for (process, partitions) in owned {
            let is_told = !self.dice.one_in(3);
            self.topic.assign(process, &partitions, is_told);
        }
    }

    /// The storm: messages come, processes start, die, stop and take each other's shards.
    async fn storm(&mut self, loads: &[Load]) {
        let mut sent = vec![0; loads.len()];
        let processes = 1 + self.dice.below(PROCESSES as u64) as usize;
        while sent.iter().zip(loads).any(|(sent, load)| *sent < load.messages.len()) {
            for (partition, load) in loads.iter().enumerate() {
                let some = self.dice.below(6) as usize;
                let end = load.messages.len().min(sent[partition] + some);
                if self.topic.lock().machine.append(partition, &load.messages[sent[partition]..end]) {
                    sent[partition] = end;
                }
            }
            if self.topic.lock().machine.is_down() {
                self.power_loss().await;
            }
            for process in 0..processes {
                if !self.running.contains_key(&process) && !self.dice.one_in(3) {
                    self.start(process);
                    // It has to ask for a consumer before anything can be assigned to it.
                    self.pass(Duration::from_millis(1)).await;
                    self.rebalance();
                }
            }
            match self.dice.below(12) {
                0 => {
                    let process = self.dice.below(processes as u64) as usize;
                    self.kill(process).await;
                }
                1 => {
                    let process = self.dice.below(processes as u64) as usize;
                    if let Some(running) = self.running.get(&process) {
                        running.stop.cancel();
                    }
                }
                2 | 3 => self.rebalance(),
                4 | 5 if self.errand.is_none() => {
                    let errand = Errand::in_storm(&mut self.dice);
                    self.begin(errand);
                }
                6 if self.dice.one_in(4) => self.kill(TOOL).await,
                7 => {
                    self.topic.lock().machine.doom();
                }
                8 | 9 => {
                    let partition = self.dice.below(PARTITIONS as u64) as usize;
                    self.topic.expire(partition);
                }
                _ => {}
            }
            self.ended().await;
            self.running.retain(|_, running| !running.task.is_finished());
            let span = Duration::from_millis(50 + self.dice.below(3_000));
            self.pass(span).await;
        }
    }

    /// One processor, all partitions, no storm but around an erasure: everything sent is committed, and what came late restated.
    async fn finish(&mut self, loads: &mut [Load]) -> Result<(), String> {
        self.storm.calm();
        if self.topic.lock().machine.is_down() {
            self.power_loss().await;
        }
        self.topic.lock().machine.calm();
        self.pass(Duration::from_secs(1)).await;
        self.take_over().await;
        self.pass(Duration::from_secs(3)).await;
        for process in (0..PROCESSES).chain([TOOL]) {
            self.kill(process).await;
        }
        // What it may have lost to their last claims it gets done once more.
        self.pass(Duration::from_secs(30)).await;
        self.settle(loads).await?;
        if self.dice.one_in(2) {
            self.erase().await?;
            loads[0].erase(ERASED);
            self.settle(loads).await?;
        }
        // The rest goes into the lake with the last commits.
        let running = self.running.remove(&LAST).ok_or("the last processor died")?;
        running.stop.cancel();
        running.task.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The last processor starts and takes everything from whoever is left; they are zombies for a while.
    async fn take_over(&mut self) {
        self.start(LAST);
        // It has to ask for a consumer before anything can be assigned to it.
        self.pass(Duration::from_millis(1)).await;
        self.topic.assign(LAST, &(0..PARTITIONS as i32).collect(), true);
    }

    /// Waits until everything that was sent is accounted for and nothing is marked.
    async fn settle(&mut self, loads: &[Load]) -> Result<(), String> {
        let all: u64 = loads.iter().map(|load| load.sent).sum();
        let unreadable: u64 = loads.iter().map(|load| load.unreadable).sum();
        let mut waited = Duration::ZERO;
        loop {
            let metrics = &self.running.get(&LAST).ok_or("the last processor died")?.metrics;
            let [appended, stored, duplicate, rejected] = sums(metrics);
            let pending = sum(metrics, "airan_processor_pending_rows", None);
            let marked = sum(metrics, "airan_processor_dirty_windows", None);
            // Ticks alone are not worth a commit before the processor stops.
            let (ends, offered) = {
                let machine = &self.topic.lock().machine;
                (machine.ends(), machine.offered)
            };
            let is_read = sum(metrics, "airan_processor_next_offset", None) == ends.iter().sum::<i64>() as u64;
            let is_settled = is_read && pending == 0 && marked == 0 && rejected >= unreadable;
            // What was sent again may be there as often as it was sent.
            if is_settled && (all..=offered).contains(&appended) && appended == stored + duplicate + rejected {
                return Ok(());
            }
            if waited > PATIENCE {
                let reported = self.topic.lock().reported.clone();
                return Err(format!(
                    "{all} rows sent, {offered} with those sent again; appended {appended}, stored {stored}, duplicate {duplicate}, \
                     rejected {rejected} of {unreadable} unreadable, pending {pending}, windows marked {marked}; reported {reported:?} of {ends:?}"
                ));
            }
            let span = Duration::from_secs(1);
            self.pass(span).await;
            waited += span;
        }
    }

    /// A node's rows and what was made of them go, while the weather kills the tool and the processor that does its restatement.
    /// Each is started again until it is done.
    async fn erase(&mut self) -> Result<(), String> {
        // Somebody had everything computed again, and results of that come while the rows go.
        let asked = Request::new(RequestReason::Backfill, T0, T0 + HOUR, self.clock.0.now());
        self.lake(TOOL).request(&asked).await.map_err(|error| error.to_string())?;
        let span = Duration::from_millis(self.dice.below(4_000));
        self.pass(span).await;
        let one_in = 5 + self.dice.below(40);
        self.storm.blow(one_in);
        let (mut waited, mut last) = (Duration::ZERO, String::new());
        let ticks = load::ticks(&self.catalog);
        while waited <= PATIENCE {
            if self.errand.is_none() {
                self.begin(Errand::Erase);
            }
            if !self.running.contains_key(&LAST) {
                self.take_over().await;
            }
            // Requests are looked for with commits, and time goes on by messages alone.
            if let Some(tick) = ticks.get(waited.as_secs() as usize / 10).filter(|_| waited.as_secs() % 10 == 0) {
                let machine = &mut self.topic.lock().machine;
                (0..PARTITIONS).for_each(|partition| {
                    machine.append(partition, std::slice::from_ref(tick));
                });
            }
            let span = Duration::from_secs(1);
            self.pass(span).await;
            waited += span;
            if waited == ERASE_IN_STORM {
                self.storm.calm();
            }
            match self.ended().await {
                Some(Ok(())) => {
                    self.storm.calm();
                    if !self.running.contains_key(&LAST) {
                        self.take_over().await;
                    }
                    return Ok(());
                }
                Some(Err(error)) => last = error,
                None => {}
            }
        }
        Err(format!("the erasure does not end; its last error: {last}"))
    }

    /// A day after the last write a pass of retention clears up what was left half done. How many uploads with parts there were, and
    /// how many files that nothing names.
    async fn clear_up(&mut self) -> Result<(usize, u64), String> {
        // What is done long after it has failed is done by now.
        self.pass(Duration::from_secs(90)).await;
        let cut_off = self.storm.cut_off();
        let lake = self.lake(READER);
        let report = lake.expire(self.storm.newest().await + 2 * DAY, None).await;
        let report = report.map_err(|error| airan_model::causes(&error))?;
        if report.files > 0 || !report.failures.is_empty() {
            return Err(format!("nothing is as old as that: {report:?}"));
        }
        let left = (self.storm.cut_off(), lake.check().await.map_err(|error| error.to_string())?.orphans);
        if left != (0, 0) {
            return Err(format!("{left:?} uploads and files are left behind for ever"));
        }
        Ok((cut_off, report.orphans))
    }

    /// Every row that was sent is in the lake once; every window is what its rows make it; documents and files are sound.
    async fn compare(&self, loads: &[Load]) -> Result<(), String> {
        let lake = self.lake(READER);
        let report = lake.check().await.map_err(|error| error.to_string())?;
        if let Some(problem) = report.problems.first() {
            return Err(problem.to_string());
        }
        let context = airan_window::session_context();
        lake.register(&context).await.map_err(|error| error.to_string())?;
        let query = async |sql: &str| -> Result<Vec<RecordBatch>, String> {
            let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
            frame.collect().await.map_err(|error| error.to_string())
        };
        let mut rows: BTreeMap<RowKey, i64> = BTreeMap::new();
        let sql = "SELECT CAST(node AS VARCHAR) AS node, seq, level FROM meter";
        for batch in query(sql).await? {
            let nodes = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            let seqs = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Int64).unwrap();
            for row in 0..batch.num_rows() {
                let key = (nodes.as_string::<i32>().value(row).to_owned(), seqs.as_primitive::<Int64Type>().value(row));
                let level = batch.column(2).as_primitive::<Float64Type>().value(row) as i64;
                if rows.insert(key.clone(), level).is_some() {
                    return Err(format!("row {key:?} is there twice"));
                }
            }
        }
        let wanted: BTreeMap<RowKey, i64> = loads.iter().flat_map(|load| load.rows.clone()).collect();
        differ("rows", &wanted, &rows)?;
        let mut windows: BTreeMap<WindowKey, WindowValue> = BTreeMap::new();
        let sql = "SELECT arrow_cast(window_start, 'Int64') AS start, CAST(site AS VARCHAR) AS site, CAST(node AS VARCHAR) AS node, \
                   CAST(readings AS BIGINT) AS readings, CAST(level_sum AS BIGINT) AS level_sum, \
                   CAST(level_max AS BIGINT) AS level_max FROM meters_latest";
        for batch in query(sql).await? {
            let text =
                |column: usize| arrow::compute::cast(batch.column(column), &arrow::datatypes::DataType::Utf8).unwrap();
            let int = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
            let (sites, nodes) = (text(1), text(2));
            for row in 0..batch.num_rows() {
                let key = (
                    (int(0).value(row) - T0) / 1_000_000,
                    sites.as_string::<i32>().value(row).to_owned(),
                    nodes.as_string::<i32>().value(row).to_owned(),
                );
                let value = (int(3).value(row), int(4).value(row), int(5).value(row));
                if windows.insert(key.clone(), value).is_some() {
                    return Err(format!("window {key:?} is there twice"));
                }
            }
        }
        let sql = "SELECT count(*) FROM (SELECT 1 FROM meters GROUP BY window_start, site, node, part, revision HAVING count(*) > 1)";
        let doubled: i64 =
            query(sql).await?.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)).sum();
        if doubled > 0 {
            return Err(format!("{doubled} revisions of a group are there twice"));
        }
        let wanted: BTreeMap<WindowKey, WindowValue> = loads.iter().flat_map(|load| load.windows.clone()).collect();
        differ("windows", &wanted, &windows)
    }
}

fn differ<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Result<(), String> {
    let wrong = wanted.iter().find(|(key, value)| found.get(key) != Some(value));
    if let Some((key, value)) = wrong {
        return Err(format!("{what}: {key:?} is {:?}, not {value:?}", found.get(key)));
    }
    match found.keys().find(|key| !wanted.contains_key(key)) {
        Some(key) => Err(format!("{what}: {key:?} was never sent")),
        None => Ok(()),
    }
}

/// appended, stored, duplicate, rejected.
fn sums(metrics: &Registry) -> [u64; 4] {
    ["appended", "stored", "duplicate", "rejected"].map(|of| sum(metrics, "airan_processor_rows_total", Some(of)))
}

fn sum(metrics: &Registry, name: &str, label: Option<&str>) -> u64 {
    let mut sum = 0.0;
    for family in metrics.gather().iter().filter(|family| family.name() == name) {
        for metric in family.get_metric() {
            let fits = label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label));
            sum += if fits { metric.get_counter().get_value() + metric.get_gauge().get_value() } else { 0.0 };
        }
    }
    sum as u64
}

/// With `AIRAN_TRACE`, what processors log goes to standard error.
fn show_logs() {
    if std::env::var_os("AIRAN_TRACE").is_some() {
        // The second run of a process has it already.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).try_init();
    }
}

/// One run, on a runtime of its own whose time stands still while anything is to do.
fn run(seed: u64) -> Run {
    show_logs();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut director = Director::new(seed).await;
        let mut loads: Vec<Load> =
            (0..PARTITIONS).map(|partition| load(&director.catalog, partition, &mut director.dice)).collect();
        director.storm(&loads).await;
        let (mut cut_off, mut orphans) = (0, 0);
        let outcome = async {
            director.finish(&mut loads).await?;
            director.compare(&loads).await?;
            (cut_off, orphans) = director.clear_up().await?;
            // Nothing that counts was taken for what was left behind.
            director.compare(&loads).await
        }
        .await;
        let (mut points, trace) = director.storm.points_and_trace();
        let machine = &mut director.topic.lock().machine;
        points.extend(machine.points());
        Run {
            outcome,
            points,
            trace,
            logs: std::mem::take(&mut machine.told),
            deaths: director.deaths,
            power_losses: machine.losses,
            errands: director.errands,
            cut_off,
            orphans,
        }
    })
}

/// Scenario: one to three processors over one lake, in whose store operations fail before or after they are done, are done long
/// after they failed, stall, break off or kill; partitions move, also without the old owner's knowledge; processes are dropped,
/// stopped and started; rows come minutes late, also their copies, and messages that nobody can read;
/// meanwhile the lake is published, compacted, vacuumed and asked to compute windows again; in every second run a node is erased. Syncs and writes of the local log fail, and the machine
/// loses power, after which all that was not acknowledged is sent again.
/// Guarantees: K1, K2, S1, W2, W3 and the sums. Every row that was sent is in the lake once, every window's newest revision is
/// what its rows make it, none of what was erased is left, appended = stored + duplicate + rejected, and the lake's documents
/// are sound. A day later no part of an upload and no file is left behind, and nothing that counts has gone with them.
#[test]
fn whatever_fails_each_row_and_window_is_in_the_lake_once() {
    let seeds = crate::dice::seeds(40);
    let (mut points, mut deaths, mut losses, mut errands) = (BTreeSet::new(), 0, 0, 0);
    let (mut cut_off, mut orphans, mut second_parts) = (0, 0, 0);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let run = run(seed);
        assert_eq!(run.outcome, Ok(()), "AIRAN_SEED={seed}");
        points.extend(run.points);
        deaths += run.deaths;
        losses += run.power_losses;
        errands += run.errands;
        cut_off += run.cut_off;
        second_parts += run.trace.iter().filter(|done| done.2 == Op::Part && done.3.ends_with("part-1")).count();
        orphans += run.orphans;
    }
    let of_logs = points.iter().filter(|point| point.0 == Op::Disk).count();
    let of_uploads = Op::UPLOAD.map(|op| points.iter().filter(|point| point.0 == op).count());
    println!(
        "{runs} runs, {} distinct fault points, {of_logs} of them on the logs' disk, {of_uploads:?} at the steps of uploads in parts \
         {:?}, {deaths} deaths, {losses} power losses, {errands} errands done, {cut_off} uploads and {orphans} files left behind \
         and cleared up",
        points.len(),
        Op::UPLOAD
    );
    assert!(runs < 40 || points.len() > 2_000, "{} distinct fault points", points.len());
    assert!(
        runs < 40 || (of_logs > 100 && losses > 40),
        "{of_logs} distinct fault points on the logs' disk, {losses} power losses"
    );
    assert!(
        runs < 40 || of_uploads.iter().all(|points| *points > 0),
        "{of_uploads:?} fault points at {:?}",
        Op::UPLOAD
    );
    assert!(runs < 40 || (cut_off > 0 && orphans > 0), "{cut_off} uploads and {orphans} files left behind");
    assert!(runs < 40 || second_parts > 0, "no upload had two parts");
}

/// Scenario: some seeds, each run twice.
/// Guarantees: the same operations at the same times with the same faults: a failure can be replayed from its seed.
#[test]
fn a_run_replays_exactly_from_its_seed() {
    for seed in 1_000..1_003 {
        let (one, two) = (run(seed), run(seed));
        let parting = one.trace.iter().zip(&two.trace).position(|(one, two)| one != two);
        if let Some(at) = parting {
            panic!("seed {seed}, operation {at}: {:?} and {:?}", one.trace[at], two.trace[at]);
        }
        assert_eq!((one.trace.len(), one.deaths), (two.trace.len(), two.deaths), "seed {seed}");
        assert_eq!(one.logs, two.logs, "seed {seed}");
    }
}
