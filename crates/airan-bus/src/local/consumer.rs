//! The one consumer of a local log: it owns every partition, and reads each in chunks on a thread of the runtime.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use airan_log::{Batch, ReadError};
use async_trait::async_trait;
use tokio::time::Instant;

use super::{Inner, frame};
use crate::counts::Counters;
use crate::{ConsumeError, Consumer, Event, Received};

/// Bytes of one partition that are read ahead.
const AHEAD_BYTES: usize = 512 << 10;

/// Reads every partition.
pub(super) struct LocalConsumer {
    inner: Arc<Inner>,
    is_greeted: bool,
    spots: BTreeMap<i32, Spot>,
    // The partition whose message went out last: the next one is another's, if another has one.
    last: i32,
    // A message that this release cannot read: when what was read before it has gone out, this consumer ends.
    newer: Option<ConsumeError>,
}

/// Where a partition is read.
struct Spot {
    next: i64,
    is_paused: bool,
    ahead: VecDeque<Received>,
}

impl LocalConsumer {
    pub fn new(inner: Arc<Inner>) -> LocalConsumer {
        LocalConsumer { inner, is_greeted: false, spots: BTreeMap::new(), last: -1, newer: None }
    }

    /// A message that was read already, from each partition in turn.
    fn ahead(&mut self) -> Option<Received> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut turn = self.spots.range(after).chain(self.spots.range(..=self.last));
        let (partition, _) = turn.find(|(_, spot)| !spot.is_paused && !spot.ahead.is_empty())?;
        self.last = *partition;
        let received = self.spots.get_mut(&self.last)?.ahead.pop_front();
        Counters::add(&self.inner.counters.received, received.is_some().into());
        received
    }

    /// Reads on where there is something to read; true if anything came of it.
    async fn read(&mut self) -> Result<Result<bool, Event>, ConsumeError> {
        let mut has_read = false;
        let wanted: Vec<(i32, i64)> = self
            .spots
            .iter()
            .filter(|(_, spot)| !spot.is_paused && spot.ahead.is_empty())
            .map(|(partition, spot)| (*partition, spot.next))
            .collect();
        for (partition, from) in wanted {
            let Some(of) = self.inner.partition(partition) else { continue };
            let (first, next) = of.store.offsets();
            if from == next {
                continue;
            }
            if from < first || from > next {
                self.spots.remove(&partition);
                return Ok(Err(Event::OutOfRange { partition, wanted: from, first, next }));
            }
            let store = Arc::clone(&of.store);
            let reading = tokio::task::spawn_blocking(move || store.log.read(from as u64, AHEAD_BYTES)).await;
            match reading.map_err(|error| ConsumeError::Unavailable { reason: error.to_string() })? {
                Ok(batch) => {
                    self.take(partition, from, batch);
                    has_read = true;
                }
                // Removed between the look at the offsets and the read: the next look tells.
                Err(ReadError::OutOfRange { .. }) => has_read = true,
                Err(error @ ReadError::Io { .. }) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                    return Err(ConsumeError::Unavailable { reason: format!("{error}{cause}") });
                }
            }
        }
        Ok(Ok(has_read))
    }

    fn take(&mut self, partition: i32, from: i64, batch: Batch) {
        if batch.lost > 0 {
            tracing::error!(
                partition,
                from,
                until = batch.next,
                lost = batch.lost,
                "messages damaged on disk are left out"
            );
            Counters::add(&self.inner.counters.damaged, batch.lost);
        }
        if let Some(spot) = self.spots.get_mut(&partition) {
            spot.next = batch.next as i64;
            for record in batch.records {
                match frame::decode(&record.body) {
                    Ok(message) => spot.ahead.push_back(Received {
                        partition,
                        offset: record.offset as i64,
                        append_time: record.time,
                        message,
                    }),
                    Err(newer) => {
                        spot.next = record.offset as i64;
                        self.newer = Some(newer.at(partition, record.offset));
                        return;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Event, ConsumeError> {
        if !self.is_greeted {
            self.is_greeted = true;
            return Ok(Event::Assigned((0..self.inner.count()).collect()));
        }
        let deadline = Instant::now() + wait;
        loop {
            if let Some(received) = self.ahead() {
                return Ok(Event::Message(received));
            }
            if let Some(newer) = &self.newer {
                return Err(newer.clone());
            }
            match self.read().await? {
                Ok(true) => continue,
                Ok(false) => {}
                Err(event) => return Ok(event),
            }
            // A notification that came since the last look is kept for this wait.
            if tokio::time::timeout_at(deadline, self.inner.arrivals.notified()).await.is_err() {
                return Ok(Event::Idle);
            }
        }
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<(), ConsumeError> {
        let partitions = self.inner.count();
        if self.inner.partition(partition).is_none() {
            return Err(ConsumeError::NoPartition { partition, partitions });
        }
        self.spots.insert(partition, Spot { next: offset, is_paused: false, ahead: VecDeque::new() });
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        if let Some(spot) = self.spots.get_mut(&partition) {
            spot.is_paused = true;
        }
    }

    fn resume(&mut self, partition: i32) {
        if let Some(spot) = self.spots.get_mut(&partition) {
            spot.is_paused = false;
        }
    }

    fn released(&mut self, _partitions: &[i32]) {
        // Nothing is ever revoked: there is nobody else.
    }

    fn report(&mut self, partition: i32, next_offset: i64) {
        if let (Some(of), Ok(next_offset)) = (self.inner.partition(partition), next_offset.try_into()) {
            of.report(next_offset);
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        self.inner.has_consumer.store(false, Ordering::SeqCst);
    }
}
