//! The log on a disk whose power fails, and what each of its syncs is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dice::{Dice, seeds};
use crate::power::{self, Place, Power, unnoticed};
use crate::{AppendError, Log, NewRecord, Options, Retention};

const OPTIONS: Options = Options { segment_bytes: 1024, next_at_least: 0 };

/// What whoever uses the log may rely on.
#[derive(Default)]
struct Promised {
    /// Records that were acknowledged or read.
    records: BTreeMap<u64, Vec<u8>>,
    /// What was offered for an offset and not acknowledged: each of these may turn up.
    offered: BTreeMap<u64, Vec<Vec<u8>>>,
    /// The first offset, since an expiry that was acknowledged.
    first: u64,
    /// Offsets below this were removed, or may have been.
    removed: u64,
    /// What the log read like when it was last opened, if nothing has changed since. Not where syncs fail: what was cut off after
    /// one may come back, unacknowledged as it was.
    read: Option<(BTreeMap<u64, Vec<u8>>, u64)>,
}

struct Machine {
    _temp: tempfile::TempDir,
    folder: PathBuf,
    power: Arc<Power>,
    dice: Dice,
    syncs_fail: bool,
    promised: Promised,
    restores: u64,
}

impl Machine {
    fn new(seed: u64, left_out: Option<Place>) -> Machine {
        let temp = power::folder();
        let power = Power::over(temp.path(), seed);
        if let Some(site) = left_out {
            power.leave_out(site);
        }
        let mut dice = Dice::of(!seed);
        let syncs_fail = dice.one_in(3);
        if syncs_fail {
            power.fail_syncs(20);
        }
        if dice.one_in(3) {
            power.fail_writes(10);
        }
        let folder = temp.path().join("data").join("log");
        Machine { _temp: temp, folder, power, dice, syncs_fail, promised: Promised::default(), restores: 0 }
    }

    /// Starts, uses and loses the log a few times. The seed decides what happens; an error says which promise was broken.
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..6 {
            // Processes die more often than machines.
            for _ in 0..self.dice.below(3) {
                // Not where syncs fail: dying before what was not synced is cut off leaves it for the next process to read, whose
                // kernel holds it for synced. Nothing an application does helps there.
                if !self.syncs_fail {
                    self.die_within(60);
                }
                self.one_process()?;
                self.power.revive();
            }
            self.die_within(60);
            self.one_process()?;
            self.restore();
        }
        self.power.fail_syncs(0);
        self.power.fail_writes(0);
        let log = self.open()?.ok_or("it does not open although there is power")?;
        self.check(&log)
    }

    fn die_within(&mut self, steps: u64) {
        let steps = self.dice.below(steps);
        self.power.cut_after(steps);
    }

    fn restore(&mut self) {
        self.power.restore().unwrap();
        self.restores += 1;
    }

    fn open(&mut self) -> Result<Option<Log>, String> {
        match Log::open_over(Arc::clone(&self.power) as _, &self.folder, OPTIONS) {
            // The machine went down within.
            _ if self.power.is_out() => Ok(None),
            Ok((log, _)) => Ok(Some(log)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                // A sync or a write that failed: the next start tries again.
                if cause.contains("the disk could not") {
                    Ok(None)
                } else {
                    Err(format!("it does not open: {error}: {cause}"))
                }
            }
        }
    }

    /// A process opens the log, checks what was promised, and works until it, or the machine, dies.
    fn one_process(&mut self) -> Result<(), String> {
        let Some(log) = self.open()? else { return Ok(()) };
        self.check(&log)?;
        while !self.power.is_out() && !self.dice.one_in(12) {
            self.promised.read = None;
            if self.dice.one_in(5) { self.expire(&log)? } else { self.append(&log)? }
        }
        Ok(())
    }

    fn append(&mut self, log: &Log) -> Result<(), String> {
        let bodies: Vec<Vec<u8>> = (0..1 + self.dice.below(4)).map(|_| self.body()).collect();
        let records: Vec<NewRecord<'_>> =
            bodies.iter().map(|payload| NewRecord { time: 7, head: b"h", payload }).collect();
        let next = log.next();
        let appended = log.append(&records);
        let wanted = || bodies.iter().map(|body| [b"h", &body[..]].concat());
        match appended {
            Ok(offsets) if !self.power.is_out() => {
                if let Some(offset) = offsets.clone().find(|offset| self.promised.records.contains_key(offset)) {
                    return Err(format!("L3: offset {offset} is given again"));
                }
                self.promised.records.extend(offsets.zip(wanted()));
            }
            Err(AppendError::NotWritten(_) | AppendError::DiskFull(_)) if !self.power.is_out() => {}
            // Unknown, or nobody was left to hear of it. A spent segment steps over offsets first, hence the few behind.
            _ => {
                for skipped in 0..=8 {
                    for (offset, body) in (next + skipped..).zip(wanted()) {
                        self.promised.offered.entry(offset).or_default().push(body);
                    }
                }
            }
        }
        Ok(())
    }

    fn body(&mut self) -> Vec<u8> {
        let length = self.dice.below(200) as usize;
        let start = self.dice.next().to_le_bytes();
        start.iter().copied().cycle().take(8 + length).collect()
    }

    fn expire(&mut self, log: &Log) -> Result<(), String> {
        let needed = self.dice.below(log.next() + 1).max(self.promised.removed);
        self.promised.removed = needed;
        let expired = log.expire(Retention { oldest: i64::MIN, max_bytes: self.dice.below(4096), needed });
        if expired.is_ok() && !self.power.is_out() {
            if log.first() > needed {
                return Err(format!("L4: the log begins at {}, {needed} was still needed", log.first()));
            }
            // Where nothing was left to remove, an earlier try may have removed it and failed to sync.
            if expired.is_ok_and(|expired| expired.segments > 0) {
                self.promised.first = log.first();
            }
        }
        Ok(())
    }

    fn check(&mut self, log: &Log) -> Result<(), String> {
        let promised = &mut self.promised;
        if log.first() < promised.first {
            return Err(format!("what was removed is back: {} was the first, {} is", promised.first, log.first()));
        }
        let (mut found, mut lost, mut at) = (BTreeMap::new(), 0, log.first());
        while at < log.next() {
            let batch = log.read(at, 500).map_err(|error| format!("cannot read {at}: {error}"))?;
            if batch.next <= at {
                return Err(format!("reading stands still at {at}"));
            }
            (at, lost) = (batch.next, lost + batch.lost);
            found.extend(batch.records.into_iter().map(|record| (record.offset, record.body.to_vec())));
        }
        for (offset, body) in promised.records.range(promised.removed..) {
            match found.get(offset) {
                None => return Err(format!("L1: record {offset} was acknowledged or read and is gone")),
                Some(other) if other != body => return Err(format!("L3: record {offset} is another now")),
                Some(_) => {}
            }
        }
        if let Some((offset, _)) = promised.records.last_key_value().filter(|(offset, _)| **offset >= log.next()) {
            return Err(format!("L3: {offset} was given, {} would be next", log.next()));
        }
        for (offset, body) in &found {
            let is_known = promised.records.get(offset).is_some_and(|known| known == body)
                || promised.offered.get(offset).is_some_and(|offered| offered.contains(body));
            if !is_known {
                return Err(format!("record {offset} was never written"));
            }
        }
        let read = (found.clone(), lost);
        if let Some(before) = promised.read.replace(read.clone()).filter(|before| !self.syncs_fail && *before != read) {
            let (records, lost) = (before.0.len(), before.1);
            return Err(format!("it read {records} records and {lost} lost, and now {} and {}", read.0.len(), read.1));
        }
        promised.records.extend(found);
        Ok(())
    }
}

fn life(seed: u64, left_out: Option<Place>) -> (Result<(), String>, BTreeSet<Place>, u64) {
    let mut machine = Machine::new(seed, left_out);
    let lived = catch_unwind(AssertUnwindSafe(|| machine.live())).unwrap_or_else(|_| Err("a panic".to_owned()));
    (lived, machine.power.sites(), machine.restores)
}

/// Scenario: processes append, expire and die; syncs fail; the power goes at any step, also while a log is opened and repaired,
/// and what was not synced is there, gone or torn.
/// Guarantees: L1, L3, L4. What was acknowledged or read is there, in its place; no offset is given twice; what was removed stays
/// away; only what was offered turns up. `AIRAN_SEED=n` replays one life.
#[test]
fn a_power_loss_costs_nothing_that_was_acknowledged() {
    let mut restores = 0;
    for seed in seeds(400) {
        let (lived, _, cuts) = life(seed, None);
        restores += cuts;
        assert_eq!(lived, Ok(()), "AIRAN_SEED={seed}");
    }
    println!("{restores} power losses");
}

/// Scenario: one sync after the other is left out, by the place in the code that asks for it.
/// Guarantees: each is needed: without it some promise breaks. So the test above can fail, and no sync is there for nothing.
#[test]
fn without_any_one_of_its_syncs_the_log_breaks_a_promise() {
    let sites: BTreeSet<Place> = (0..20).flat_map(|seed| life(seed, None).1).collect();
    let in_crate = |site: &Place| Path::new(site.0).ends_with("disk.rs") || !site.0.ends_with("_tests.rs");
    assert!(sites.len() >= 7 && sites.iter().all(in_crate), "{sites:?}");
    let unnoticed = unnoticed(sites, 2_000, |seed, place| life(seed, Some(place)).0.is_ok());
    assert!(unnoticed.is_empty(), "syncs that nothing depends on: {unnoticed:?}");
}
