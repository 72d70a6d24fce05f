//! Processes over a lake on a disk whose power fails: what they do, by the numbers of a seed, until it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use airan_model::time::{Clock, DAY, HOUR, Micros};
use object_store::path::Path;

use super::ledger::{Asked, Erasing, Ledger, NOTE, TABLES};
use crate::commit::CommitError;
use crate::delta::DeltaTable;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::durable::DurableLocal;
use crate::erase::Erasure;
use crate::lake::Lake;
use crate::power::{self, Place, Power};
use crate::requests::{Request, RequestReason};
use crate::settings::LakeSettings;
use crate::store::Store;
use crate::testing::{SECOND, TOPIC, commit, rows, settings};
use crate::writer::ShardWriter;

/// Rows of one commit.
const ROWS: i64 = 3;
/// Where syncs fail, one of so many does.
const SYNC_FAILS_ONE_IN: u64 = 25;
/// The clock of the first process: long after what the disk of this machine says of its files, so that vacuum finds them old.
const FIRST_DAY: Micros = 130 * 365 * DAY;
/// Steps until the power goes, at most.
const STEPS: u64 = 400;
/// Requests that are made, at most.
const REQUESTS: usize = 4;

/// A machine and what its lake has promised.
pub(super) struct Machine {
    _temp: tempfile::TempDir,
    folder: PathBuf,
    pub(super) power: Arc<Power>,
    dice: Dice,
    syncs_fail: bool,
    now: Micros,
    ledger: Ledger,
    /// How much of each thing was done and acknowledged.
    pub(super) done: Done,
}

/// Counts by what is counted.
pub(super) type Done = BTreeMap<&'static str, u64>;

/// What a process works with.
struct Process {
    lake: Lake,
    writer: ShardWriter,
    /// Its retention takes out files whose rows are all before this one.
    keep_from: i64,
}

impl Machine {
    pub(super) fn new(seed: u64, left_out: Option<Place>) -> Machine {
        let temp = power::folder();
        let root = temp.path().canonicalize().unwrap();
        let power = Power::over(&root, seed);
        if let Some(site) = left_out {
            power.leave_out(site);
        }
        let mut dice = Dice::of(!seed);
        let syncs_fail = dice.one_in(3);
        if syncs_fail {
            power.fail_syncs(SYNC_FAILS_ONE_IN);
        }
        let folder = root.join("data").join("lake");
        Machine {
            _temp: temp,
            folder,
            power,
            dice,
            syncs_fail,
            now: FIRST_DAY,
            ledger: Ledger::default(),
            done: Done::new(),
        }
    }

    /// Starts, uses and loses the lake a few times. The seed decides what happens; an error says which promise was broken.
    pub(super) async fn live(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            for _ in 0..self.dice.below(3) {
                self.die_within(STEPS);
                self.one_process().await?;
                self.power.revive();
            }
            self.die_within(STEPS);
            self.one_process().await?;
            self.power.restore().unwrap();
        }
        self.power.fail_syncs(0);
        self.syncs_fail = false;
        let process = self.claim().await?.ok_or("it cannot be claimed although there is power")?;
        self.look(&process.lake, false).await?;
        self.expire(&process).await?;
        self.look(&process.lake, true).await
    }

    fn die_within(&mut self, steps: u64) {
        let steps = self.dice.below(steps);
        self.power.cut_after(steps);
    }

    /// Whether nothing can be asked of what was answered.
    fn may_fail(&self) -> bool {
        self.power.is_out() || self.syncs_fail
    }

    /// `None` where the process died, or a sync failed.
    async fn claim(&mut self) -> Result<Option<Process>, String> {
        let disk = Disk { power: Some(Arc::clone(&self.power)) };
        let store = DurableLocal::open_on(disk, &self.folder);
        if self.power.is_out() {
            return Ok(None);
        }
        let store = match store {
            Ok(store) => Store::over(Arc::new(store), true),
            Err(_) if self.syncs_fail => return Ok(None),
            Err(error) => return Err(format!("it does not open: {error}")),
        };
        if self.dice.one_in(3) {
            self.now += DAY + HOUR;
        }
        let keep_from = self.dice.below(self.ledger.committed as u64 / 2 + 1) as i64;
        let raw_retention = Duration::from_micros((self.now - keep_from * SECOND) as u64).into();
        let settings = LakeSettings { raw_retention, ..settings(&self.folder) };
        let lake = Lake::over(store, settings, Clock::fixed(self.now)).unwrap();
        let claimed = lake.claim(TOPIC, 0, 1).await;
        if self.power.is_out() {
            return Ok(None);
        }
        let (writer, recovered) = match claimed {
            Ok(claimed) => claimed,
            Err(_) if self.syncs_fail => return Ok(None),
            Err(error) => return Err(format!("it cannot be claimed: {error}")),
        };
        let Ledger { committed, tried, n, .. } = &mut self.ledger;
        if writer.n() <= *n {
            return Err(format!("K1: record {n} was there, and {} was created", writer.n()));
        }
        *n = writer.n();
        let next_offset = recovered.map_or(0, |recovered| recovered.next_offset);
        if !(*committed..=*tried).contains(&next_offset) {
            return Err(format!(
                "K1: {committed} was committed and {tried} tried, the newest record says {next_offset}"
            ));
        }
        (*committed, *tried) = (next_offset, next_offset);
        Ok(Some(Process { lake, writer, keep_from }))
    }

    /// A process claims the shard, checks what was promised, and works until it dies or the machine does.
    async fn one_process(&mut self) -> Result<(), String> {
        let Some(mut process) = self.claim().await? else { return Ok(()) };
        self.look(&process.lake, false).await?;
        while !self.power.is_out() && !self.dice.one_in(25) {
            match self.dice.below(18) {
                0 | 1 => self.note(&process.lake).await,
                2..=4 => self.publish(&process.lake).await?,
                5 | 6 => self.compact(&process.lake).await?,
                7 => self.expire(&process).await?,
                8 | 9 => self.erase(&process.lake).await?,
                10 => self.ask(&process.lake).await?,
                11 => self.purge(&process.lake).await?,
                12 => self.checkpoint(&process.lake).await?,
                _ => self.commit(&mut process.writer).await?,
            }
        }
        Ok(())
    }

    async fn commit(&mut self, writer: &mut ShardWriter) -> Result<(), String> {
        let from = self.ledger.committed;
        let end = self.ledger.tried.max(from) + ROWS;
        self.ledger.tried = end;
        let next = commit(end, TABLES.map(|table| rows(table, from..end)).into());
        let mut tries = 0;
        let done = loop {
            let done = writer.commit(&next).await;
            tries += 1;
            if !matches!(done, Err(CommitError::Store(_))) || self.power.is_out() || tries > 20 {
                break done;
            }
        };
        match done {
            _ if self.power.is_out() => {}
            Ok(summary) => {
                (self.ledger.committed, self.ledger.n) = (end, summary.n);
                self.count("commits", 1);
            }
            Err(error) => return Err(format!("it cannot commit: {error}")),
        }
        Ok(())
    }

    async fn note(&mut self, lake: &Lake) {
        self.ledger.noted.1 += 1;
        let note = self.ledger.noted.1;
        let written = lake.store().overwrite(&Path::from(NOTE), note.to_string().into()).await;
        if written.is_ok() && !self.power.is_out() {
            self.ledger.noted.0 = note;
        }
    }

    async fn publish(&mut self, lake: &Lake) -> Result<(), String> {
        let published = lake.publish(self.now).await;
        self.count("published files", published.as_ref().map_or(0, |report| report.files));
        self.count("trimmed records", published.as_ref().map_or(0, |report| report.records));
        self.told("publish", published.map(|report| report.failures))
    }

    async fn compact(&mut self, lake: &Lake) -> Result<(), String> {
        let compacted = lake.compact(None, self.now, |_| {}).await;
        self.count("merges", compacted.as_ref().map_or(0, |report| report.merges));
        self.told("compact", compacted.map(|report| report.failures))
    }

    /// What it took out, and no more than it was to, stays out from then on.
    async fn expire(&mut self, process: &Process) -> Result<(), String> {
        self.ledger.expired = self.ledger.expired.max(process.keep_from);
        let expired = process.lake.expire(self.now, None).await;
        self.count("expired files", expired.as_ref().map_or(0, |report| report.files));
        self.count("vacuumed files", expired.as_ref().map_or(0, |report| report.vacuumed));
        self.count("orphans", expired.as_ref().map_or(0, |report| report.orphans));
        self.told("expire", expired.map(|report| report.failures))?;
        self.look(&process.lake, false).await
    }

    async fn purge(&mut self, lake: &Lake) -> Result<(), String> {
        let purged = lake.purge(self.now).await;
        self.count("purged files", *purged.as_ref().unwrap_or(&0));
        self.told("purge", purged.map(|_| Vec::new()))
    }

    /// An erasure is begun, or one that was cut off is gone on with; when all is done it is forgotten, now or later.
    async fn erase(&mut self, lake: &Lake) -> Result<(), String> {
        if self.ledger.committed == 0 {
            return Ok(());
        }
        let known = match lake.erasures().await {
            Ok(known) => known,
            Err(_) if self.may_fail() => return Ok(()),
            Err(error) => return Err(format!("erasures: {error}")),
        };
        let going_on = known.into_iter().find(|known| self.ledger.erasures.contains_key(&known.condition));
        let (mut erasure, erasing, is_known) = match going_on {
            Some(known) if self.dice.one_in(2) => {
                let erasing = self.ledger.erasures[&known.condition];
                (known, erasing, true)
            }
            _ => {
                let (site, below) = (self.dice.below(3) as i64, self.dice.below(self.ledger.committed as u64) as i64);
                let erasing = Erasing { site, below, is_finishing: false };
                let erasure = Erasure::begin(&erasing.condition(), &[], self.now);
                let erasing = *self.ledger.erasures.entry(erasing.condition()).or_insert(erasing);
                (erasure, erasing, false)
            }
        };
        match lake.erase(&mut erasure, self.now, |_| {}).await {
            _ if self.power.is_out() => return Ok(()),
            Ok(report) => {
                self.ledger.erased(erasing);
                self.count("erased rows", report.tables.iter().map(|table| table.rows).sum());
                self.count("erasures gone on with", is_known.into());
            }
            Err(_) if self.syncs_fail => return Ok(()),
            Err(error) => return Err(format!("it cannot erase: {error}")),
        }
        self.look(lake, false).await?;
        if self.dice.one_in(2) {
            if let Some(erasing) = self.ledger.erasures.get_mut(&erasing.condition()) {
                erasing.is_finishing = true;
            }
            let finished = lake.finish_erasure(&erasure).await;
            self.told("finish an erasure", finished.map(|()| Vec::new()))?;
        }
        Ok(())
    }

    /// A request is made, or one removed.
    async fn ask(&mut self, lake: &Lake) -> Result<(), String> {
        if self.ledger.requests.len() >= REQUESTS || self.dice.one_in(4) {
            let made = self.ledger.requests.values_mut().find(|asked| asked.is_made && !asked.is_removing);
            let Some(asked) = made else { return Ok(()) };
            asked.is_removing = true;
            let removed = lake.remove_request(&asked.request.id.clone()).await;
            return self.told("remove a request", removed.map(|()| Vec::new()));
        }
        let request = Request::new(RequestReason::Backfill, 0, SECOND, self.now);
        let asked = Asked { request: request.clone(), is_made: false, is_removing: false };
        self.ledger.requests.insert(request.id.clone(), asked);
        let done = lake.request(&request).await;
        if let (Ok(()), false, Some(asked)) = (&done, self.power.is_out(), self.ledger.requests.get_mut(&request.id)) {
            asked.is_made = true;
            self.count("requests", 1);
        }
        self.told("request", done.map(|()| Vec::new()))
    }

    /// A checkpoint of a table's log, and the log is cleared up.
    async fn checkpoint(&mut self, lake: &Lake) -> Result<(), String> {
        let table = TABLES[self.dice.below(2) as usize];
        let done = async {
            let delta = DeltaTable::load(lake, table).await.map_err(|error| error.to_string())?;
            match delta {
                Some(mut delta) => delta.checkpoint(self.now).await.map(|()| 1),
                None => Ok(0),
            }
        };
        let done = done.await;
        self.count("checkpoints", *done.as_ref().unwrap_or(&0));
        self.told("make a checkpoint", done.map(|_| Vec::new()))
    }

    fn count(&mut self, what: &'static str, more: u64) {
        if !self.power.is_out() {
            *self.done.entry(what).or_default() += more;
        }
    }

    /// An answer of the lake: nothing failed, unless the power is out or syncs fail.
    fn told(&self, what: &str, done: Result<Vec<(String, String)>, impl std::fmt::Display>) -> Result<(), String> {
        match done {
            _ if self.may_fail() => Ok(()),
            Ok(failures) if failures.is_empty() => Ok(()),
            Ok(failures) => Err(format!("it cannot {what}: {failures:?}")),
            Err(error) => Err(format!("it cannot {what}: {error}")),
        }
    }

    /// Everything that was promised is kept. Nothing goes wrong while somebody looks.
    async fn look(&mut self, lake: &Lake, is_settled: bool) -> Result<(), String> {
        if self.power.is_out() {
            return Ok(());
        }
        let left = self.power.hold();
        self.power.fail_syncs(0);
        let done = self.ledger.look(lake, is_settled).await;
        if let Some(left) = left {
            self.power.cut_after(left);
        }
        self.power.fail_syncs(if self.syncs_fail { SYNC_FAILS_ONE_IN } else { 0 });
        done
    }
}
