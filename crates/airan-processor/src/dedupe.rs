//! Which rows have been here before.
//!
//! A row is known by (node, stream, batch, seq). The batch of an agent is a random id it keeps, with numbers that grow without
//! gaps; the batch of a foreign sender is a hash of its request and lives an hour. Both are sets of ranges; they differ only
//! in how long they are remembered. Rows mostly come in runs of one batch with consecutive numbers: a run costs one look-up.
//!
//! What is forgotten depends on append times alone, so two readers of one log drop the same rows (**W3**).

use std::hash::BuildHasher;
use std::sync::Arc;

use airan_model::identity::is_gateway_source;
use airan_model::time::{MINUTE, Micros};
use arrow::array::{Array, BooleanArray, BooleanBufferBuilder, Int64Array, StringArray};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::completeness::{Gap, Gaps};
use crate::ranges::{Range, Ranges};
use crate::settings::IdentitySettings;

/// Forgotten batches are swept out when the log's time passes a multiple of this.
const SWEEP: Micros = 5 * MINUTE;

/// What identifies the rows of a message.
pub(crate) struct IdentityColumns<'a> {
    pub node: &'a StringArray,
    pub batch: &'a StringArray,
    pub seq: &'a Int64Array,
    pub source: &'a StringArray,
    pub site: &'a StringArray,
    pub ts: &'a [Micros],
}

/// What became of the rows of a message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Admitted {
    /// Rows seen before.
    pub duplicates: u64,
    /// Rows without an identity: never known as duplicates.
    pub anonymous: u64,
    /// Which rows are new; absent where all are.
    pub new: Option<BooleanArray>,
}

/// One batch of one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub node: Box<str>,
    pub batch: Box<str>,
    /// Of its first row.
    pub site: Box<str>,
    /// Made by the gateway for one request.
    pub is_foreign: bool,
    /// Append time of the last message with a row of it.
    pub last_seen: Micros,
    pub seen: Ranges,
}

/// The identities of one stream in one shard.
#[derive(Debug)]
pub(crate) struct Identities {
    known: HashTable<Known>,
    hasher: RandomState,
    ranges: usize,
    next_sweep: Micros,
    foreign_memory: Micros,
    agent_memory: Micros,
    max_ranges: usize,
    /// Batches forgotten before their time because there were too many.
    pub forgotten_early: u64,
    /// What senders' own batches lack, as last asked for; absent where that may have changed.
    gaps: Option<Arc<Gaps>>,
    /// Sites and spans of time in which a gap began, or was filled in part; the shard takes them over.
    pub changed: Vec<(Box<str>, Micros, Micros)>,
}

impl Identities {
    pub fn new(settings: &IdentitySettings) -> Identities {
        Identities {
            known: HashTable::new(),
            hasher: RandomState::default(),
            ranges: 0,
            next_sweep: Micros::MIN,
            foreign_memory: settings.foreign_memory.micros(),
            agent_memory: settings.agent_memory.micros(),
            max_ranges: settings.ranges,
            forgotten_early: 0,
            gaps: None,
            changed: Vec::new(),
        }
    }

    /// Remembers the rows of a message and says which of them are new. `log_time` never goes back.
    pub fn admit(&mut self, rows: &IdentityColumns<'_>, log_time: Micros) -> Admitted {
        self.sweep(log_time);
        let count = rows.node.len();
        let has_all = rows.batch.null_count() == 0 && rows.seq.null_count() == 0;
        let mut admitted = Admitted::default();
        let mut new: Option<BooleanBufferBuilder> = None;
        let mut parts: Vec<(i64, i64)> = Vec::new();
        let mut row = 0;
        while row < count {
            if !has_all && (rows.batch.is_null(row) || rows.seq.is_null(row)) {
                admitted.anonymous += 1;
                if let Some(new) = &mut new {
                    new.append(true);
                }
                row += 1;
                continue;
            }
            let run = run_from(rows, row, has_all);
            let (first, last) = (rows.seq.value(row), rows.seq.value(row + run - 1));
            let bucket = self.bucket(rows, row, log_time);
            let Some(known) = self.known.get_bucket_mut(bucket) else { break };
            let before = known.seen.len();
            let mut fresh = 0;
            parts.clear();
            let run_of = Range { first, last, from: rows.ts[row], to: rows.ts[row + run - 1] };
            if !known.is_foreign
                && let Some((from, to)) = known.seen.gap_around(run_of)
            {
                self.changed.push((known.site.clone(), from, to));
            }
            known.seen.add(run_of, |a, b| {
                fresh += (b - a + 1) as usize;
                parts.push((a, b));
            });
            self.ranges = self.ranges + known.seen.len() - before;
            if !known.is_foreign && fresh > 0 && known.seen.len().max(before) > 1 {
                self.gaps = None;
            }
            if fresh < run && new.is_none() {
                let mut builder = BooleanBufferBuilder::new(count);
                builder.append_n(row, true);
                new = Some(builder);
            }
            if let Some(new) = &mut new {
                append_parts(new, first, last, &parts);
            }
            admitted.duplicates += (run - fresh) as u64;
            row += run;
        }
        self.bound(log_time);
        admitted.new = new.map(|mut new| BooleanArray::new(new.finish(), None));
        admitted
    }

    /// The place of a row's batch, made when it is new or had been forgotten.
    fn bucket(&mut self, rows: &IdentityColumns<'_>, row: usize, log_time: Micros) -> usize {
        let (node, batch) = (rows.node.value(row), rows.batch.value(row));
        let hash = self.hasher.hash_one((node, batch));
        let is_this = |known: &Known| *known.batch == *batch && *known.node == *node;
        if let Some(bucket) = self.known.find_bucket_index(hash, is_this) {
            if let Some(known) = self.known.get_bucket_mut(bucket) {
                let memory = if known.is_foreign { self.foreign_memory } else { self.agent_memory };
                if log_time.saturating_sub(known.last_seen) > memory {
                    self.gaps = None;
                    self.ranges -= known.seen.len();
                    known.seen = Ranges::default();
                }
                known.last_seen = log_time;
            }
            return bucket;
        }
        let is_foreign = rows.source.is_null(row) || is_gateway_source(rows.source.value(row));
        self.insert(Known {
            node: node.into(),
            batch: batch.into(),
            site: rows.site.value(row).into(),
            is_foreign,
            last_seen: log_time,
            seen: Ranges::default(),
        })
    }

    fn insert(&mut self, known: Known) -> usize {
        let hasher = self.hasher.clone();
        let hash_of = |known: &Known| hasher.hash_one((&*known.node, &*known.batch));
        self.ranges += known.seen.len();
        self.known.insert_unique(hash_of(&known), known, hash_of).bucket_index()
    }

    fn sweep(&mut self, log_time: Micros) {
        if log_time >= self.next_sweep {
            self.forget_idle(log_time);
        }
    }

    fn forget_idle(&mut self, log_time: Micros) {
        self.gaps = None;
        self.next_sweep = log_time.div_euclid(SWEEP).saturating_add(1).saturating_mul(SWEEP);
        let (foreign, agent) = (self.foreign_memory, self.agent_memory);
        let mut ranges = 0;
        self.known.retain(|known| {
            let memory = if known.is_foreign { foreign } else { agent };
            let is_kept = log_time.saturating_sub(known.last_seen) <= memory;
            ranges += if is_kept { known.seen.len() } else { 0 };
            is_kept
        });
        self.ranges = ranges;
    }

    /// Over the limit, forgets the batches idle longest until a tenth of it is free.
    fn bound(&mut self, log_time: Micros) {
        if self.ranges > self.max_ranges {
            self.forget_idle(log_time);
        }
        if self.ranges <= self.max_ranges {
            return;
        }
        let mut all: Vec<Known> = self.known.drain().collect();
        all.sort_by(|a, b| (b.last_seen, &b.node, &b.batch).cmp(&(a.last_seen, &a.node, &a.batch)));
        self.ranges = 0;
        let room = self.max_ranges - self.max_ranges / 10;
        for known in all {
            if self.ranges + known.seen.len() > room {
                self.forgotten_early += 1;
            } else {
                self.insert(known);
            }
        }
    }

    /// Rows that senders with numbers of their own have numbered and that have not come.
    pub fn gaps(&mut self) -> Arc<Gaps> {
        if let Some(gaps) = &self.gaps {
            return Arc::clone(gaps);
        }
        let mut gaps = Gaps::default();
        let mut holed: Vec<&Known> =
            self.known.iter().filter(|known| !known.is_foreign && known.seen.len() > 1).collect();
        // In an order of their own, so that sums do not depend on the places of a hash table (W3).
        holed.sort_by(|a, b| (&a.node, &a.batch).cmp(&(&b.node, &b.batch)));
        for known in holed {
            known.seen.gaps().for_each(|(rows, edges)| gaps.add(&known.site, Gap { edges, rows }));
        }
        let gaps = Arc::new(gaps);
        self.gaps = Some(Arc::clone(&gaps));
        gaps
    }

    /// Everything remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Takes back what [`Identities::iter`] gave before a restart.
    pub fn restore(&mut self, known: Known) {
        self.insert(known);
    }

    /// Batches remembered.
    pub fn batches(&self) -> usize {
        self.known.len()
    }
}

/// Rows from `row` on with its node and batch and with consecutive numbers.
fn run_from(rows: &IdentityColumns<'_>, row: usize, has_all: bool) -> usize {
    let (node, batch) = (rows.node.value(row), rows.batch.value(row));
    let mut next = rows.seq.value(row).checked_add(1);
    let mut end = row + 1;
    while let Some(seq) = next.filter(|_| end < rows.node.len()) {
        let is_missing = !has_all && (rows.batch.is_null(end) || rows.seq.is_null(end));
        if is_missing || rows.seq.value(end) != seq || rows.batch.value(end) != batch || rows.node.value(end) != node {
            break;
        }
        next = seq.checked_add(1);
        end += 1;
    }
    end - row
}

/// Marks which of `first..=last` are in `parts`.
fn append_parts(new: &mut BooleanBufferBuilder, first: i64, last: i64, parts: &[(i64, i64)]) {
    let mut at = first;
    for (from, to) in parts {
        new.append_n((from - at) as usize, false);
        new.append_n((to - from + 1) as usize, true);
        at = to + 1;
    }
    if at <= last {
        new.append_n((last - at + 1) as usize, false);
    }
}

#[cfg(test)]
#[path = "dedupe_tests.rs"]
mod tests;
