//! Rows that came too late for a window: counted by who sent them, and remembered as windows to be restated.
//!
//! Both are bounded: nodes beyond [`NODES_MAX`] are counted together as `other`, windows beyond the setting only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use airan_model::time::Micros;

/// Nodes of one shard whose late rows are counted by name.
pub(crate) const NODES_MAX: usize = 1_000;

/// The name under which the rest is counted.
const OTHER: &str = "other";

/// Why a row was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LateReason {
    /// Its window had closed.
    Late,
    /// It was so old on arrival that it was no measure of its node's time: a backlog, or a slow clock.
    Backfill,
}

impl LateReason {
    pub fn as_str(self) -> &'static str {
        match self {
            LateReason::Late => "late",
            LateReason::Backfill => "backfill",
        }
    }

    pub fn of(name: &str) -> Option<LateReason> {
        [LateReason::Late, LateReason::Backfill].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// A window to be restated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dirty {
    pub pipeline: Arc<str>,
    pub site: Box<str>,
    pub start: Micros,
}

/// Late rows of one shard.
#[derive(Debug)]
pub(crate) struct Lates {
    rows: BTreeMap<(Arc<str>, Box<str>, LateReason), u64>,
    nodes: BTreeSet<Box<str>>,
    dirty: BTreeSet<Dirty>,
    dirty_max: usize,
    /// Windows that were not remembered because there were too many; a window may be counted more than once.
    pub dirty_dropped: u64,
}

impl Lates {
    pub fn new(dirty_max: usize) -> Lates {
        Lates { rows: BTreeMap::new(), nodes: BTreeSet::new(), dirty: BTreeSet::new(), dirty_max, dirty_dropped: 0 }
    }

    /// Counts `rows` late rows.
    pub fn count(&mut self, stream: &Arc<str>, node: &str, reason: LateReason, rows: u64) {
        let node = if self.nodes.contains(node) {
            node
        } else if self.nodes.len() < NODES_MAX {
            self.nodes.insert(node.into());
            node
        } else {
            OTHER
        };
        *self.rows.entry((Arc::clone(stream), node.into(), reason)).or_default() += rows;
    }

    /// Remembers a window to be restated.
    pub fn mark(&mut self, dirty: Dirty) {
        if self.dirty.len() < self.dirty_max || self.dirty.contains(&dirty) {
            self.dirty.insert(dirty);
        } else {
            self.dirty_dropped += 1;
        }
    }

    /// Late rows by stream, node and reason.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &str, LateReason, u64)> {
        self.rows.iter().map(|((stream, node, reason), rows)| (stream, &**node, *reason, *rows))
    }

    /// Windows to be restated.
    pub fn dirty(&self) -> &BTreeSet<Dirty> {
        &self.dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_windows_are_bounded_and_nothing_goes_uncounted() {
        let stream: Arc<str> = Arc::from("host");
        let mut lates = Lates::new(3);
        for node in 0..NODES_MAX + 5 {
            lates.count(&stream, &format!("n{node}"), LateReason::Late, 2);
        }
        lates.count(&stream, "n0", LateReason::Backfill, 1);
        assert_eq!(lates.rows().map(|row| row.3).sum::<u64>(), 2 * (NODES_MAX as u64 + 5) + 1);
        assert_eq!(lates.rows().find(|row| row.1 == "other").map(|row| row.3), Some(10));
        for start in [0, 1, 2, 0, 3, 1, 4] {
            lates.mark(Dirty { pipeline: Arc::from("p"), site: "s".into(), start });
        }
        assert_eq!((lates.dirty().len(), lates.dirty_dropped), (3, 2));
    }
}
