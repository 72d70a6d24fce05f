//! One case: senders and victims at work together, then peace, then the comparison.
//!
//! ```text
//! senders ──bodies──▶ victims, killed along their lanes, and strikes at the broker     ledger: sent, acknowledged
//! last start of every victim ▶ ready ▶ senders' last bodies ▶ agent's sum, agent stops ▶ rows that close the windows
//! everything processed ▶ erasure ▶ sums ▶ graceful stop ▶ lake check ▶ ledger against lake
//! ```
//!
//! Every wait has a deadline; passing one is a failure like any other and is written to the results.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::{join_all, try_join_all};

use crate::compare::{Late, Verdict, compare};
use crate::dice::Dice;
use crate::erasure::Erasure;
use crate::errands;
use crate::lake::{Foreign, Lake, Stored, WindowRow, ready};
use crate::ledger::Ledger;
use crate::plan::{self, Lane, Plan};
use crate::results::{CaseResult, Kills};
use crate::sender::{PAST, Sender, now_micros};
use crate::site::{self, AGENT, Given, LATENESS, SITES, Site, WIDTH};
use crate::strikes;
use crate::sums::{self, AGENT_STREAMS, scrape};
use crate::victim::{Victim, complaints};

/// From the last start to being ready, claims and all. Promised are 30 s; the machine may be building beside us.
const READY: Duration = Duration::from_secs(90);
/// From the last row to everything being processed, late windows restated.
const PROCESSED: Duration = Duration::from_secs(120);
/// How often the lake is asked whether it has everything.
const ASK: Duration = Duration::from_millis(300);
/// Of a long list of failures, so many are written down.
const SHOWN: usize = 5;

/// What a case is to be.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it works with.
    pub given: Given,
    /// What is done.
    pub plan: Plan,
    /// A Python with deltalake, to read the lake as others do.
    pub python: Option<PathBuf>,
    /// Seed of the run.
    pub seed: u64,
    /// Its number in the run.
    pub number: u64,
    /// Its folder, made anew.
    pub folder: PathBuf,
}

impl Case {
    /// Runs it. Whatever goes wrong is in the result.
    pub async fn run(&self) -> CaseResult {
        let start = Instant::now();
        let mut result = CaseResult {
            mode: self.given.mode,
            seed: self.seed,
            case: self.number,
            plan: self.plan.clone(),
            kills: Kills::default(),
            acknowledged: 0,
            unknown: 0,
            agent_rows: 0,
            lost: 0,
            doubled: 0,
            windows: 0,
            windows_wrong: 0,
            late: 0,
            seconds: 0.0,
            failures: Vec::new(),
            folder: None,
        };
        if let Err(error) = self.play(&mut result).await {
            result.failures.push(format!("{error:#}"));
        }
        result.seconds = start.elapsed().as_secs_f64();
        if !result.failures.is_empty() {
            result.folder = Some(self.folder.display().to_string());
        }
        result
    }

    /// The seed of this case alone.
    fn own_seed(&self) -> u64 {
        Dice::new(self.seed, self.number + 1).draw()
    }

    async fn play(&self, result: &mut CaseResult) -> Result<()> {
        let seed = self.own_seed();
        // A case that is run again must not meet the topic and the bucket of the time before.
        let process = std::process::id();
        let name = format!("crash-{}-{:x}-{}-{process:x}", self.given.mode.name(), self.seed, self.number);
        let mut site = Site::new(&self.given, &self.folder, &name, self.number)?;
        let lake = Lake::new(&self.given.airan, &self.folder, site.reader);
        let ledger = Arc::new(Ledger::new(&self.folder)?);
        let done = Arc::new(AtomicBool::new(false));
        let sites = if self.plan.late == Late::Restated { SITES } else { PAST };
        let senders = (0..sites)
            .map(|number| Sender::new(number, &site.http, Arc::clone(&ledger), seed, Arc::clone(&done)))
            .collect::<Result<Vec<_>>>()?;
        let lanes = plan::lanes(self.given.mode, &self.plan, seed);
        if let Some(broker) = &self.given.broker {
            // The case before may have ended while it was away.
            broker.start().await?;
        }
        site.agent.start(None)?;

        let place = errands::Place {
            binary: &self.given.airan,
            folder: &self.folder,
            reader: site.reader,
            mode: self.given.mode,
            plan: &self.plan,
            seed,
        };
        let mut tools = Kills::default();
        let errands = errands::run(place, &done, &mut tools);
        let strikes = plan::strikes(&self.plan, seed);
        let strikes = strikes::run(&strikes, self.given.kafka.as_deref(), self.given.broker.as_ref(), &lake);
        let work = together(senders, &mut site.victims, &lanes, strikes, &done, &mut result.kills);
        let ended = futures::future::try_join(work, async { errands.await.context("an errand") }).await;
        result.kills.add(&tools);
        let (mut senders, ()) = ended?;
        let erasure = (self.plan.late == Late::Restated).then(|| Erasure::at(now_micros()));

        let collected = sums::agent(&site.agent.admin).await?;
        site.agent.stop().await?;

        senders.retain(Sender::is_live);
        let newest = senders.iter().map(Sender::newest).chain([now_micros()]).max().unwrap_or_default();
        let closed_until = (newest.div_euclid(WIDTH) + 2) * WIDTH;
        // The first of the two is the row after those that are erased, so its rise changes with them: were it the last of its node, the
        // erasure would wait for its window until that node counts as away, a minute later.
        for at in [closed_until - WIDTH, closed_until + LATENESS] {
            for sender in &mut senders {
                sender.close(at).await?;
            }
        }
        let at_peace = self.until_processed(&site.victims, &lake, &ledger, erasure.as_ref(), closed_until).await;
        if let Some(erasure) = erasure.as_ref().filter(|_| at_peace.is_ok()) {
            errands::erase(place, erasure, &mut result.kills).await?;
        }
        if at_peace.is_ok() {
            result.failures.extend(sums::hold(&site.victims, &lake, &ledger, erasure.as_ref()).await?);
        }
        let late = scrape(&site.victims).await.by("airan_processor_late_rows_total", "node");
        let stops = join_all(site.victims.iter_mut().map(Victim::stop)).await;
        result.failures.extend(stops.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
        for victim in &site.victims {
            result.kills.expelled += victim.told("membership was lost");
            result.failures.extend(complaints(&victim.log()));
        }

        for checked in [lake.check().await, lake.publish().await, lake.check().await] {
            result.failures.extend(checked.err().map(|error| format!("{error:#}")));
        }
        let (stored, windows) = (lake.stored().await?, lake.windows().await?);
        if let Some(python) = &self.python {
            let bucket = site::in_bucket(&name);
            let bucket = self.given.s3.as_deref().filter(|_| self.given.mode.has_bucket()).map(|of| (&*bucket, of));
            let foreign = lake.foreign(python, bucket).await?;
            result.failures.extend(differences(&stored, windows.len(), &foreign));
        }
        let verdict = compare_but(erasure.as_ref(), &ledger, &stored, &windows, closed_until, self.plan.late);
        if let Some(erasure) = erasure.as_ref().filter(|_| at_peace.is_ok()) {
            let wrong = erasure.wrong(&ledger.rows(), &stored, &windows);
            result.failures.extend(wrong.into_iter().take(SHOWN));
        }
        if self.plan.late == Late::Counted {
            let told: std::collections::BTreeMap<String, u64> =
                late.into_iter().filter(|(_, rows)| *rows > 0.0).map(|(node, rows)| (node, rows as u64)).collect();
            let senders: std::collections::BTreeMap<String, u64> =
                told.into_iter().filter(|(node, _)| node.starts_with("node-")).collect();
            if senders != verdict.late {
                result.failures.push(format!("late rows: windows lack {:?}, counted are {senders:?}", verdict.late));
            }
        }
        self.write_down(&verdict, result);
        if let Err(error) = self.agent_rows(&lake, collected, result).await {
            result.failures.push(format!("{error:#}"));
        }
        // Why it took so long is told by what is missing, above.
        at_peace
    }

    /// Waits until the lake holds what it must hold.
    async fn until_processed(
        &self,
        victims: &[Victim],
        lake: &Lake,
        ledger: &Ledger,
        erasure: Option<&Erasure>,
        closed_until: i64,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let scrape = scrape(victims).await;
            let open: f64 = ["airan_processor_pending_rows", "airan_processor_lag_offsets"]
                .map(|name| scrape.sum(name, ""))
                .iter()
                .sum();
            let dirty = scrape.sum("airan_processor_dirty_windows", "");
            // Marks of open windows may stay: the row after a late one can be the one that closes its node's windows.
            if open == 0.0 {
                // Tables may not be there yet.
                if let (Ok(stored), Ok(windows)) = (lake.stored().await, lake.windows().await) {
                    let verdict = compare_but(erasure, ledger, &stored, &windows, closed_until, self.plan.late);
                    let is_late = self.plan.late == Late::Restated && !verdict.late.is_empty();
                    if verdict.lost.is_empty() && verdict.windows_wrong.is_empty() && !is_late {
                        return Ok(());
                    }
                    if !verdict.doubled.is_empty() {
                        bail!("rows are doubled");
                    }
                }
            }
            if start.elapsed() > PROCESSED {
                bail!(
                    "not processed within {PROCESSED:?} of the last row: {open} pending or behind, {dirty} dirty windows"
                );
            }
            tokio::time::sleep(ASK).await;
        }
    }

    fn write_down(&self, verdict: &Verdict, result: &mut CaseResult) {
        result.acknowledged = verdict.acknowledged;
        result.unknown = verdict.unknown;
        result.lost += verdict.lost.len() as u64;
        result.doubled += verdict.doubled.len() as u64;
        result.windows = verdict.windows;
        result.windows_wrong = verdict.windows_wrong.len() as u64;
        result.late = verdict.late.values().sum();
        for (what, list) in [
            ("lost", &verdict.lost),
            ("doubled", &verdict.doubled),
            ("window", &verdict.windows_wrong),
            ("wrong", &verdict.wrong),
        ] {
            if !list.is_empty() {
                let shown: Vec<&str> = list.iter().take(SHOWN).map(String::as_str).collect();
                result.failures.push(format!("{what} ({}): {}", list.len(), shown.join("; ")));
            }
        }
    }

    /// The agent was not killed: every row it collected is in the lake, once, without a gap in their numbers.
    async fn agent_rows(&self, lake: &Lake, collected: f64, result: &mut CaseResult) -> Result<()> {
        for stream in AGENT_STREAMS {
            let of = lake.numbered(stream, AGENT).await?;
            let span = of.high.unwrap_or(-1) + 1;
            if of.n != of.ids || of.n != span || of.low.unwrap_or(0) != 0 {
                result.lost += span.saturating_sub(of.ids).max(0) as u64;
                result.doubled += (of.n - of.ids).max(0) as u64;
                result.failures.push(format!("the agent's rows in {stream}: {of:?}"));
            }
            result.agent_rows += of.n as u64;
        }
        if (result.agent_rows as f64) < collected {
            result.failures.push(format!("the agent collected {collected} rows, the lake has {}", result.agent_rows));
        }
        Ok(())
    }
}

/// Ledger against lake, but for a node whose rows are being erased.
fn compare_but(
    erasure: Option<&Erasure>,
    ledger: &Ledger,
    stored: &[Stored],
    windows: &[WindowRow],
    closed_until: i64,
    late: Late,
) -> Verdict {
    let is_compared = |node: &str| !erasure.is_some_and(|erasure| erasure.is_about(node));
    let ledger: Vec<_> = ledger.rows().into_iter().filter(|(row, _)| is_compared(&row.node)).collect();
    let stored: Vec<_> = stored.iter().filter(|stored| is_compared(&stored.row.node)).cloned().collect();
    let windows: Vec<_> = windows.iter().filter(|row| is_compared(&row.node)).cloned().collect();
    compare(&ledger, &stored, &windows, closed_until, late)
}

/// Senders and victims at work at the same time, until every victim has had its lives and is ready once more, all strikes are done, and
/// every sender has its acknowledgements.
async fn together(
    senders: Vec<Sender>,
    victims: &mut [Victim],
    lanes: &[Lane],
    strikes: impl Future<Output = (Kills, Result<()>)>,
    done: &AtomicBool,
    kills: &mut Kills,
) -> Result<Vec<Sender>> {
    let storm = async {
        let lives = join_all(victims.iter_mut().zip(lanes).map(|(victim, lane)| live(victim, lane)));
        let (mut lived, struck) = futures::future::join(lives, strikes).await;
        lived.push(struck);
        lived.iter().for_each(|(of, _)| kills.add(of));
        lived.into_iter().try_for_each(|(_, end)| end)?;
        for victim in victims.iter() {
            ready(&victim.name, &victim.admin, READY).await?;
        }
        done.store(true, Ordering::Relaxed);
        Ok::<_, anyhow::Error>(())
    };
    let sending = async { try_join_all(senders.into_iter().map(Sender::run)).await.context("a sender") };
    // A sender ends before the storm only with an error, which ends the case.
    let ((), senders) = futures::future::try_join(storm, sending).await?;
    Ok(senders)
}

/// Where foreign readers see other rows than `airan query` does.
fn differences(stored: &[Stored], windows: usize, foreign: &Foreign) -> Vec<String> {
    let mut ours: Vec<&str> = stored.iter().map(|stored| stored.row.id.as_str()).collect();
    ours.sort_unstable();
    let mut wrong = Vec::new();
    let by_both = |delta, files: Option<_>| {
        [("Delta", Some(delta)), ("a glob", files)].into_iter().filter_map(|(how, rows)| Some((how, rows?)))
    };
    for (how, rows) in by_both(&foreign.delta_rows, foreign.files_rows.as_ref()) {
        if *rows != ours {
            wrong.push(format!("{how} gives {} raw rows, airan query {}, or others", rows.len(), ours.len()));
        }
    }
    for (how, rows) in by_both(&foreign.delta_windows, foreign.files_windows.as_ref()) {
        if rows.len() != windows || rows.windows(2).any(|pair| pair[0] == pair[1]) {
            wrong.push(format!("{how} gives {} windows, airan query {windows}, or one twice", rows.len()));
        }
    }
    wrong
}

/// The lives of one victim, and its last start.
async fn live(victim: &mut Victim, lane: &Lane) -> (Kills, Result<()>) {
    let mut kills = Kills::default();
    for end in lane {
        if let Err(error) = victim.live(end, &mut kills).await {
            return (kills, Err(error));
        }
    }
    let started = victim.start(None);
    (kills, started)
}

/// Removes a case's folder.
pub fn tidy(folder: &Path) {
    // A folder that stays is in nobody's way: the next run of the case makes it anew.
    let _ = std::fs::remove_dir_all(folder);
}
