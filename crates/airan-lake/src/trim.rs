//! Trimming: records whose files are all published may go; the newest of a shard never does.
//!
//! 1. A mark `<n>.trimmed` is created: from then on no reader looks at records up to `n`.
//! 2. They are deleted, oldest first, but for claims. A crash in between is finished by the next pass.
//!
//! What may be trimmed is decided by Delta logs loaded after the records: never by a commit's having succeeded.
//!
//! **Claims stay** for [`CLAIM_KEPT`], because they fence (K2). An owner that was frozen wakes up and offers the record after
//! its own newest. Whoever took the shard from it had to create that very record, as a claim. Were it gone, the offer would
//! be accepted. Records of an owner's own may go: an owner offers such a number again only when it does not know whether it
//! had succeeded, and then with the same bytes.

use std::collections::BTreeMap;

use airan_model::crash;
use airan_model::time::{DAY, Micros};
use bytes::Bytes;

use crate::delta::DeltaTable;
use crate::files::{is_above, load_all, named};
use crate::lake::Lake;
use crate::record::{self, ReadError, Run};

/// How long a claim stays. A process that was frozen for longer has lost its connections, its group and its machine.
pub(crate) const CLAIM_KEPT: Micros = 30 * DAY;

impl Lake {
    /// Trims the records of `runs` as far as they are published by now. Returns how many went.
    pub(crate) async fn trim(&self, runs: &[Run], now: Micros) -> Result<u64, ReadError> {
        let mut tables: Vec<String> =
            runs.iter().flat_map(|run| &run.records).flat_map(|r| &r.files).map(|file| file.table.clone()).collect();
        tables.sort_unstable();
        tables.dedup();
        // After the records.
        let deltas = load_all(self, &tables).await?;
        let mut trimmed = 0;
        for run in runs {
            trimmed += self.trim_run(run, &deltas, now).await?;
        }
        self.metrics().trimmed_records.inc_by(trimmed);
        Ok(trimmed)
    }

    async fn trim_run(&self, run: &Run, deltas: &BTreeMap<String, DeltaTable>, now: Micros) -> Result<u64, ReadError> {
        let is_published = |record: &&record::Record| named(record).all(|live| !is_above(deltas, &live));
        let older = &run.records[..run.records.len().saturating_sub(1)];
        let goes: Vec<_> = older.iter().take_while(is_published).collect();
        let mark = goes.last().map(|record| record.n);
        if let Some(n) = mark {
            self.store().create(&run.shard.trimmed(n), Bytes::new()).await?;
            crash::point("lake.trim.mark");
        }
        let mut trimmed = 0;
        for record in goes {
            if self.keeps(run, record, now) {
                continue;
            }
            self.store().remove(&run.shard.record(record.n)).await?;
            trimmed += 1;
            crash::point("lake.trim.record");
        }
        trimmed += self.trim_left(run, now).await?;
        for old in run.listed.marks.iter().filter(|old| **old < mark.unwrap_or(run.listed.trimmed)) {
            self.store().remove(&run.shard.trimmed(*old)).await?;
        }
        Ok(trimmed)
    }

    /// Whether a record below the mark stays.
    fn keeps(&self, run: &Run, record: &record::Record, now: Micros) -> bool {
        let keeps = record.takes && now.saturating_sub(record.at) < CLAIM_KEPT;
        if keeps {
            self.remember_claim(&run.shard, record.n, record.at);
        }
        keeps
    }

    /// Records below the mark: claims that have become old, and what a trimming that died has left.
    async fn trim_left(&self, run: &Run, now: Micros) -> Result<u64, ReadError> {
        let mut trimmed = 0;
        for n in &run.listed.left {
            // A claim is read once in a process's life.
            match self.known_claim(&run.shard, *n) {
                Some(at) if now.saturating_sub(at) < CLAIM_KEPT => continue,
                Some(_) => {}
                None => match record::read(self.store(), &run.shard, *n).await? {
                    Some((record, _)) if self.keeps(run, &record, now) => continue,
                    Some(_) => {}
                    None => continue,
                },
            }
            self.store().remove(&run.shard.record(*n)).await?;
            trimmed += 1;
        }
        Ok(trimmed)
    }
}
