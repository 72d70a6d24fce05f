//! The nodes that sent rows and that no inventory places: what `airan inventory missing` lists.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use airan_model::time::Micros;
use foldhash::fast::RandomState;

/// Nodes remembered by name. Beyond them rows are only counted.
pub(crate) const NODES_MAX: usize = 10_000;

/// A node without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingNode {
    /// Its name.
    pub node: String,
    /// Its rows since start.
    pub rows: u64,
    /// When the last of them came.
    pub last_seen: Micros,
}

/// The nodes without a place, bounded.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    nodes: Mutex<HashMap<Box<str>, (u64, Micros), RandomState>>,
}

impl Missing {
    /// Remembers rows of a node. False where it is one too many and was forgotten.
    pub fn note(&self, node: &str, rows: u64, at: Micros) -> bool {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, last_seen)) = nodes.get_mut(node) {
            *count += rows;
            *last_seen = at.max(*last_seen);
            return true;
        }
        if nodes.len() >= NODES_MAX {
            return false;
        }
        nodes.insert(node.into(), (rows, at));
        true
    }

    /// Drops the nodes that an inventory now places.
    pub fn retain(&self, mut missing: impl FnMut(&str) -> bool) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| missing(node));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All that are remembered, most rows first.
    pub fn list(&self) -> Vec<MissingNode> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let all = nodes.iter().map(|(node, (rows, last_seen))| MissingNode {
            node: node.to_string(),
            rows: *rows,
            last_seen: *last_seen,
        });
        let mut all: Vec<MissingNode> = all.collect();
        drop(nodes);
        all.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.node.cmp(&b.node)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: more unknown nodes than are remembered, then an inventory that places one of them.
    /// Guarantees: memory is bounded, what is forgotten is told, and a placed node leaves the list.
    #[test]
    fn unknown_nodes_are_remembered_up_to_a_limit() {
        let missing = Missing::default();
        assert!(missing.note("a", 3, 10));
        assert!(missing.note("a", 4, 5));
        for node in 1..NODES_MAX {
            assert!(missing.note(&format!("node-{node}"), 1, 1));
        }
        assert!(!missing.note("one-too-many", 1, 1));
        assert!(missing.note("a", 1, 11));
        assert_eq!(missing.list()[0], MissingNode { node: "a".into(), rows: 8, last_seen: 11 });
        missing.retain(|node| node != "a");
        assert_eq!(missing.len(), NODES_MAX - 1);
    }
}
