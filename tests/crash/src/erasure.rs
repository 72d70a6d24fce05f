//! What is erased in a case, more and more of it, and what must be left in the end.

use std::collections::HashMap;

use crate::lake::{Stored, WindowRow};
use crate::ledger::{Fate, Row};
use crate::site::{ERASED, WIDTH, node};

/// The rows of one node before a time, which is the end of a window.
#[derive(Clone, Debug)]
pub struct Erasure {
    node: String,
    /// Not contained.
    before: i64,
}

impl Erasure {
    /// Of what is older than a window at `now`. One of a later moment contains it.
    pub fn at(now: i64) -> Erasure {
        Erasure { node: node(ERASED), before: (now - WIDTH).div_euclid(WIDTH) * WIDTH }
    }

    /// As `airan lake erase` takes it.
    pub fn condition(&self) -> String {
        format!("node = '{}' AND ts < to_timestamp_micros({})", self.node, self.before)
    }

    /// Whether all of this node is to be compared by [`Erasure::wrong`], and not by what was sent.
    pub fn is_about(&self, node: &str) -> bool {
        node == self.node
    }

    /// What is wrong with what is left: erased rows and windows are gone, all others are there, once.
    pub fn wrong(&self, ledger: &[(Row, Fate)], stored: &[Stored], windows: &[WindowRow]) -> Vec<String> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        let mut wrong = Vec::new();
        for row in stored.iter().map(|stored| &stored.row).filter(|row| row.node == self.node) {
            *counts.entry(&row.id).or_default() += 1;
            if row.ts < self.before {
                wrong.push(format!("row {} was erased and is there", row.id));
            }
        }
        wrong.extend(counts.iter().filter(|(_, n)| **n > 1).map(|(id, n)| format!("row {id} is there {n} times")));
        let kept = ledger
            .iter()
            .filter(|(row, fate)| row.node == self.node && row.ts >= self.before && *fate == Fate::Acknowledged);
        let lost = kept.filter(|(row, _)| !counts.contains_key(row.id.as_str()));
        wrong.extend(lost.map(|(row, _)| format!("row {} was not to be erased and is gone", row.id)));
        let stale = windows.iter().filter(|row| row.node == self.node && row.start < self.before);
        wrong.extend(stale.map(|row| format!("the window of {} at {} was made of erased rows", row.device, row.start)));
        wrong
    }

    /// How many rows an erasure can have taken: those that were acknowledged at least, and all that were sent at most.
    pub fn bounds(&self, ledger: &[(Row, Fate)]) -> (u64, u64) {
        let erased = ledger.iter().filter(|(row, _)| row.node == self.node && row.ts < self.before);
        let fates: Vec<Fate> = erased.map(|(_, fate)| *fate).collect();
        let known = fates.iter().filter(|fate| **fate == Fate::Acknowledged).count();
        (known as u64, fates.len() as u64)
    }
}
