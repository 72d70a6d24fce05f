//! The lake on a local disk whose power fails, and what each of the store's syncs is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;

use crate::commit::CommitError;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::durable::DurableLocal;
use crate::lake::Lake;
use crate::power::{self, Power};
use crate::store::Store;
use crate::testing::{TOPIC, clock, commit, ids, rows, settings};
use crate::writer::ShardWriter;

/// A place that asks for a sync.
type Site = (&'static str, u32, u32);

/// Rows of one commit.
const ROWS: i64 = 3;

/// A name that is overwritten.
const NOTE: &str = "_probe/note";
/// Where syncs fail, one of so many does.
const SYNC_FAILS_ONE_IN: u64 = 25;

struct Machine {
    _temp: tempfile::TempDir,
    folder: PathBuf,
    power: Arc<Power>,
    dice: Dice,
    syncs_fail: bool,
    /// The lake says at least this, because a commit said so, or a claim has read it.
    committed: i64,
    /// A commit up to here was tried.
    tried: i64,
    /// Number of a record that was acknowledged.
    n: u64,
    /// What was written over and over under one name: the newest acknowledged, and the newest tried.
    noted: (u64, u64),
}

impl Machine {
    fn new(seed: u64, left_out: Option<Site>) -> Machine {
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
        Machine { _temp: temp, folder, power, dice, syncs_fail, committed: 0, tried: 0, n: 0, noted: (0, 0) }
    }

    /// Starts, uses and loses the lake a few times. The seed decides what happens; an error says which promise was broken.
    async fn live(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            for _ in 0..self.dice.below(3) {
                self.die_within(80);
                self.one_process().await?;
                self.power.revive();
            }
            self.die_within(80);
            self.one_process().await?;
            self.power.restore().unwrap();
        }
        self.power.fail_syncs(0);
        self.syncs_fail = false;
        let (lake, _) = self.claim().await?.ok_or("it cannot be claimed although there is power")?;
        self.check(&lake).await
    }

    fn die_within(&mut self, steps: u64) {
        let steps = self.dice.below(steps);
        self.power.cut_after(steps);
    }

    /// `None` where the process died, or a sync failed.
    async fn claim(&mut self) -> Result<Option<(Lake, ShardWriter)>, String> {
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
        let lake = Lake::over(store, settings(&self.folder), clock()).unwrap();
        let claimed = lake.claim(TOPIC, 0, 1).await;
        if self.power.is_out() {
            return Ok(None);
        }
        let (writer, recovered) = match claimed {
            Ok(claimed) => claimed,
            Err(_) if self.syncs_fail => return Ok(None),
            Err(error) => return Err(format!("it cannot be claimed: {error}")),
        };
        if writer.n() <= self.n {
            return Err(format!("K1: record {} was there, and {} was created", self.n, writer.n()));
        }
        self.n = writer.n();
        let next_offset = recovered.map_or(0, |recovered| recovered.next_offset);
        if !(self.committed..=self.tried).contains(&next_offset) {
            let (committed, tried) = (self.committed, self.tried);
            return Err(format!(
                "K1: {committed} was committed and {tried} tried, the newest record says {next_offset}"
            ));
        }
        (self.committed, self.tried) = (next_offset, next_offset);
        Ok(Some((lake, writer)))
    }

    /// A process claims the shard, checks what was promised, and commits until it dies or the machine does.
    async fn one_process(&mut self) -> Result<(), String> {
        let Some((lake, mut writer)) = self.claim().await? else { return Ok(()) };
        self.check(&lake).await?;
        while !self.power.is_out() && !self.dice.one_in(8) {
            if self.dice.one_in(4) {
                self.note(&lake).await;
                continue;
            }
            if self.dice.one_in(3) {
                let published = lake.publish(lake.clock().now()).await;
                match published.map(|report| report.failures) {
                    _ if self.power.is_out() || self.syncs_fail => {}
                    Ok(failures) if failures.is_empty() => {}
                    Ok(failures) => return Err(format!("it cannot publish: {failures:?}")),
                    Err(error) => return Err(format!("it cannot publish: {error}")),
                }
                continue;
            }
            let end = self.tried.max(self.committed) + ROWS;
            self.tried = end;
            let next = commit(end, vec![rows("host", self.committed..end), rows("link", self.committed..end)]);
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
                Ok(summary) => (self.committed, self.n) = (end, summary.n),
                Err(error) => return Err(format!("it cannot commit: {error}")),
            }
        }
        Ok(())
    }

    async fn note(&mut self, lake: &Lake) {
        self.noted.1 += 1;
        let written = lake.store().overwrite(&Path::from(NOTE), self.noted.1.to_string().into()).await;
        if written.is_ok() && !self.power.is_out() {
            self.noted.0 = self.noted.1;
        }
    }

    /// Every row that was committed is there once, and all documents are sound.
    async fn check(&self, lake: &Lake) -> Result<(), String> {
        if self.committed == 0 || self.power.is_out() {
            return Ok(());
        }
        let left = self.power.hold();
        self.power.fail_syncs(0);
        let done = self.look(lake).await;
        if let Some(left) = left {
            self.power.cut_after(left);
        }
        self.power.fail_syncs(if self.syncs_fail { SYNC_FAILS_ONE_IN } else { 0 });
        done
    }

    async fn look(&self, lake: &Lake) -> Result<(), String> {
        let note = lake.store().read(&Path::from(NOTE)).await.map_err(|error| format!("the note: {error}"))?;
        let note = note.map_or(0, |note| std::str::from_utf8(&note).unwrap().parse().unwrap());
        if !(self.noted.0..=self.noted.1).contains(&note) {
            return Err(format!("{:?} was noted, and {note} is there", self.noted));
        }
        let report = lake.check().await.map_err(|error| format!("S1: {error}"))?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("S1: {problem}"));
        }
        let wanted: Vec<i64> = (0..self.committed).collect();
        for table in ["host", "link"] {
            let found = ids(lake, table).await;
            if found != wanted {
                let (found, wanted) = (found.len(), wanted.len());
                return Err(format!("S1: {found} of {wanted} rows of {table} are found"));
            }
        }
        Ok(())
    }
}

fn life(seed: u64, left_out: Option<Site>) -> (Result<(), String>, BTreeSet<Site>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut machine = Machine::new(seed, left_out);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(machine.live())));
    (lived.unwrap_or_else(|_| Err("a panic".to_owned())), machine.power.sites())
}

/// How many lives: `AIRAN_CASES` for a long run.
fn cases(otherwise: u64) -> u64 {
    std::env::var("AIRAN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(otherwise)
}

/// Scenario: processes claim a shard, commit to two tables, publish to Delta and die; syncs fail; the power goes at any step, and what was not
/// synced is there, gone or torn.
/// Guarantees: K1, S1. No acknowledged commit, and none that a claim has read, is undone; its files are whole; a record's number
/// is not given twice. `AIRAN_SEED=n` replays one life.
#[test]
fn a_power_loss_undoes_no_commit() {
    let seeds = match std::env::var("AIRAN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..cases(60),
    };
    for seed in seeds {
        assert_eq!(life(seed, None).0, Ok(()), "AIRAN_SEED={seed}");
    }
}

/// Scenario: one sync after the other is left out, by the place in the code that asks for it.
/// Guarantees: each is needed: without it some promise breaks. So the test above can fail, and no sync is there for nothing.
#[test]
fn without_any_one_of_its_syncs_the_lake_breaks_a_promise() {
    let sites: BTreeSet<Site> = (0..20).flat_map(|seed| life(seed, None).1).collect();
    assert!(sites.len() >= 5, "{sites:?}");
    let mut unnoticed: BTreeMap<String, u32> = BTreeMap::new();
    for (file, line, column) in sites {
        if (0..300).all(|seed| life(seed, Some((file, line, column))).0.is_ok()) {
            unnoticed.insert(format!("{file}:{line}"), column);
        }
    }
    assert!(unnoticed.is_empty(), "syncs that nothing depends on: {unnoticed:?}");
}
