//! What a bus counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::SendError;

/// What a bus has done since it was opened, and how it stands. Both buses fill what they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were acknowledged.
    pub sent: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Messages that were not sent because the bus was away.
    pub unavailable: u64,
    /// Messages that were not sent because the bus, or its queue, was full.
    pub full: u64,
    /// Messages that were over the bus's limit.
    pub too_large: u64,
    /// Messages of which it is not known whether the bus has them.
    pub unknown: u64,
    /// Messages on their way now: queued, or sent and not acknowledged.
    pub waiting: u64,
    /// Messages given to the consumer.
    pub received: u64,
    /// Records of the local log that were damaged on disk and left out.
    pub damaged: u64,
    /// Times the local log waited for its disk; one sync serves all messages that waited together.
    pub syncs: u64,
    /// Bytes the local log takes up now.
    pub stored_bytes: u64,
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub unavailable: AtomicU64,
    pub full: AtomicU64,
    pub too_large: AtomicU64,
    pub unknown: AtomicU64,
    pub waiting: AtomicU64,
    pub received: AtomicU64,
    pub damaged: AtomicU64,
    pub syncs: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts the end of a message of `bytes`.
    pub fn end<T>(&self, bytes: usize, outcome: &Result<T, SendError>) {
        let counter = match outcome {
            Ok(_) => {
                Counters::add(&self.sent_bytes, bytes as u64);
                &self.sent
            }
            Err(SendError::Unavailable { .. } | SendError::NoPartition { .. }) => &self.unavailable,
            Err(SendError::Full { .. }) => &self.full,
            Err(SendError::TooLarge { .. }) => &self.too_large,
            Err(SendError::Unknown { .. }) => &self.unknown,
        };
        Counters::add(counter, 1);
    }

    pub fn read(&self, stored_bytes: u64) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: of(&self.sent),
            sent_bytes: of(&self.sent_bytes),
            unavailable: of(&self.unavailable),
            full: of(&self.full),
            too_large: of(&self.too_large),
            unknown: of(&self.unknown),
            waiting: of(&self.waiting),
            received: of(&self.received),
            damaged: of(&self.damaged),
            syncs: of(&self.syncs),
            stored_bytes,
        }
    }
}

/// A message on its way, for as long as this lives.
pub(crate) struct Waiting<'a>(&'a Counters);

impl Waiting<'_> {
    pub fn new(counters: &Counters) -> Waiting<'_> {
        Counters::add(&counters.waiting, 1);
        Waiting(counters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
