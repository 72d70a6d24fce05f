//! Rows that came too late for a window, counted by who sent them; which windows they mark stands in `marks`.
//!
//! Bounded: nodes beyond [`NODES_MAX`] are counted together as `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// Late rows of one shard.
#[derive(Debug, Default)]
pub(crate) struct Lates {
    rows: BTreeMap<(Arc<str>, Box<str>, LateReason), u64>,
    nodes: BTreeSet<Box<str>>,
}

impl Lates {
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

    /// Late rows by stream, node and reason.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &str, LateReason, u64)> {
        self.rows.iter().map(|((stream, node, reason), rows)| (stream, &**node, *reason, *rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_bounded_and_nothing_goes_uncounted() {
        let stream: Arc<str> = Arc::from("host");
        let mut lates = Lates::default();
        for node in 0..NODES_MAX + 5 {
            lates.count(&stream, &format!("n{node}"), LateReason::Late, 2);
        }
        lates.count(&stream, "n0", LateReason::Backfill, 1);
        assert_eq!(lates.rows().map(|row| row.3).sum::<u64>(), 2 * (NODES_MAX as u64 + 5) + 1);
        assert_eq!(lates.rows().find(|row| row.1 == "other").map(|row| row.3), Some(10));
    }
}
