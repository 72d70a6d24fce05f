//! The machine that holds the topic: a real log per partition (`airan-log`) on the disk whose power fails (`tests/power.rs`), and
//! the writer before it, which numbers nothing itself and appends what comes together with one sync.
//!
//! The power goes at any step that changes the disk, also while the logs are opened again. Then the machine comes up with what was
//! synced, and of the rest some, torn; or only the process was gone, and the next one starts on what the kernel holds. Syncs and
//! writes fail. Whoever sends is told as by the bus, and sends again what was not acknowledged.

use std::sync::Arc;

use airan_bus::{Received, frame};
use airan_log::{AppendError, Log, NewRecord, Options, Retention};
use airan_model::message::Message;
use tempfile::TempDir;

use super::storm::{Fault, Op, Point};
use crate::dice::Dice;
use crate::power::{self, Blow, Power};

/// Small, so that a run has many segments.
const SEGMENT_BYTES: u64 = 4 << 10;
/// Bytes of one partition's log that are kept beyond what is still needed.
const KEPT_BYTES: u64 = 8 << 10;
/// Steps on the disk within which the power goes, once it is to go.
const STEPS: u64 = 24;
/// Where syncs or writes fail, one of so many does.
const FAILS_ONE_IN: u64 = 25;

/// See the module.
pub(crate) struct Machine {
    folder: TempDir,
    power: Arc<Power>,
    dice: Dice,
    /// Then a process never dies alone. It would leave the next one what a failed sync was for, which the kernel holds for
    /// durable: nothing a log does helps there.
    syncs_fail: bool,
    /// One per partition; none while the machine is down.
    logs: Vec<Arc<Log>>,
    partitions: usize,
    last_times: Vec<i64>,
    /// Rows of all messages that were offered to the logs, acknowledged or not.
    pub offered: u64,
    /// What was done and what came of it, in order.
    pub told: Vec<String>,
    /// Times the power went.
    pub losses: u64,
    is_calm: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, partitions: usize) -> Machine {
        let folder = power::folder();
        let power = Power::over(folder.path(), seed);
        let mut dice = Dice::of(!seed);
        let syncs_fail = dice.one_in(3);
        if syncs_fail {
            power.fail_syncs(FAILS_ONE_IN);
        }
        if dice.one_in(2) {
            power.fail_writes(FAILS_ONE_IN);
        }
        let mut machine = Machine {
            folder,
            power,
            dice,
            syncs_fail,
            logs: Vec::new(),
            partitions,
            last_times: vec![i64::MIN; partitions],
            offered: 0,
            told: Vec::new(),
            losses: 0,
            is_calm: false,
        };
        machine.open();
        machine
    }

    pub(crate) fn partitions(&self) -> usize {
        self.partitions
    }

    /// The log of a partition; None while the machine is down.
    pub(crate) fn log(&self, partition: usize) -> Option<&Arc<Log>> {
        self.logs.get(partition).filter(|_| !self.is_down())
    }

    /// The power goes, or the process, within the next steps on the disk.
    pub(crate) fn doom(&mut self) {
        if !self.is_calm {
            let steps = self.dice.below(STEPS);
            self.power.cut_after(steps);
        }
    }

    /// From now on the disk does as it is told.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.power.hold();
        self.power.fail_syncs(0);
        self.power.fail_writes(0);
    }

    /// Whether it is gone: everything on it has stopped.
    pub(crate) fn is_down(&self) -> bool {
        self.power.is_out()
    }

    /// It comes up again, or only a new process: the logs are opened, and repaired.
    pub(crate) fn come_up(&mut self) {
        self.losses += 1;
        self.logs.clear();
        self.recover();
        self.open();
    }

    fn recover(&mut self) {
        if !self.syncs_fail && self.dice.one_in(3) {
            self.power.revive();
            self.told.push("another process".to_owned());
        } else {
            self.power.restore().unwrap();
            self.told.push("power is back".to_owned());
        }
    }

    fn open(&mut self) {
        let may_go = !self.is_calm && self.dice.one_in(3);
        if may_go {
            self.doom();
        }
        while self.logs.len() < self.partitions {
            let folder = self.folder.path().join("log").join(format!("partition-{:04}", self.logs.len()));
            let options = Options { segment_bytes: SEGMENT_BYTES, next_at_least: 0 };
            match Log::open_over(Arc::clone(&self.power) as _, &folder, options) {
                _ if self.power.is_out() => {
                    self.logs.clear();
                    self.recover();
                }
                Ok((log, repair)) => {
                    self.told.push(format!("{}: {} to {}, {repair:?}", self.logs.len(), log.first(), log.next()));
                    self.logs.push(Arc::new(log));
                }
                // A sync or a write failed: its next start tries again.
                Err(error) => {
                    let cause = airan_model::causes(&error);
                    assert!(cause.contains("the disk could not"), "{cause}");
                }
            }
        }
        self.power.hold();
    }

    /// Appends messages of a partition, all with one sync, at times that never go back. Whether that was acknowledged; if not, some
    /// of them may be there all the same.
    pub(crate) fn append(&mut self, partition: usize, messages: &[Received]) -> bool {
        let Some(log) = self.log(partition).map(Arc::clone) else { return false };
        if messages.is_empty() {
            return true;
        }
        self.offered += messages.iter().map(|received| rows(&received.message)).sum::<u64>();
        let last = &mut self.last_times[partition];
        let bodies: Vec<_> = messages
            .iter()
            .map(|received| {
                *last = received.append_time.max(*last);
                (*last, frame::encode(received.message.clone()))
            })
            .collect();
        let records: Vec<NewRecord<'_>> =
            bodies.iter().map(|(time, (head, payload))| NewRecord { time: *time, head, payload }).collect();
        let appended = log.append(&records);
        self.told.push(format!("{partition}: {} messages, {appended:?}", messages.len()));
        match appended {
            Ok(_) => true,
            Err(AppendError::TooLarge { bytes, .. }) => panic!("a message of {bytes} bytes"),
            Err(_) => false,
        }
    }

    /// Retention: what was processed and is over the bytes goes.
    pub(crate) fn expire(&mut self, partition: usize, needed: i64) {
        let Some(log) = self.log(partition).map(Arc::clone) else { return };
        let needed = u64::try_from(needed).unwrap_or_default();
        let expired = log.expire(Retention { oldest: i64::MIN, max_bytes: KEPT_BYTES, needed });
        self.told.push(format!("{partition}: expired {expired:?}, first {}", log.first()));
    }

    /// Where each partition ends.
    pub(crate) fn ends(&self) -> Vec<i64> {
        self.logs.iter().map(|log| log.next() as i64).collect()
    }

    /// The places at which it went wrong.
    pub(crate) fn points(&self) -> impl Iterator<Item = Point> {
        self.power.struck().into_iter().map(|(step, number, blow)| {
            let fault = match blow {
                Blow::GoneBefore => Fault::DeathBefore,
                Blow::GoneAfter => Fault::DeathAfter,
                Blow::Failed => Fault::Torn,
            };
            (Op::Disk, step, number, fault)
        })
    }
}

fn rows(message: &Message) -> u64 {
    match message {
        Message::Rows(rows) => rows.rows,
        _ => 0,
    }
}
