//! Rows that wait for the gateway, in memory and bounded.
//!
//! When there is no room the oldest rows are dropped, and counted; rows that are being sent just now are not touched. A row
//! leaves by exactly one of acknowledgement and drop, so that collected = acknowledged + queued + dropped at every moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airan_decode::DecodedRows;
use airan_model::catalog::Stream;
use arrow::array::Array;
use arrow::compute::concat_batches;
use tokio::sync::Notify;

use crate::metrics::{AgentMetrics, Dropped};

/// Most one request takes of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    limit: Portion,
    metrics: Arc<AgentMetrics>,
    inner: Mutex<Inner>,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    // Oldest first.
    entries: VecDeque<Entry>,
    rows: usize,
    bytes: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    rows: DecodedRows,
    bytes: usize,
    since: Instant,
    // Being sent: neither dropped nor leased again.
    leased: bool,
}

impl Entry {
    fn count(&self) -> usize {
        self.rows.rows.num_rows()
    }
}

/// Rows being sent, all of one stream. They leave it from the front, by [`Queue::advance`]; what is left must go back by
/// [`Queue::release`].
#[derive(Debug)]
pub(crate) struct Lease {
    // The entries the rows are of, in their order.
    ids: VecDeque<u64>,
    rows: DecodedRows,
}

impl Lease {
    /// How many rows are left.
    pub(crate) fn len(&self) -> usize {
        self.rows.rows.num_rows()
    }

    /// The first `rows` of what is left.
    pub(crate) fn first(&self, rows: usize) -> DecodedRows {
        DecodedRows { stream: Arc::clone(&self.rows.stream), rows: self.rows.rows.slice(0, rows.min(self.len())) }
    }

    /// Their stream.
    pub(crate) fn stream(&self) -> &Stream {
        &self.rows.stream
    }

    /// What they take up.
    pub(crate) fn bytes(&self) -> usize {
        bytes_of(&self.rows)
    }
}

impl Queue {
    pub(crate) fn new(limit: Portion, metrics: Arc<AgentMetrics>) -> Queue {
        Queue { limit, metrics, inner: Mutex::new(Inner::default()), pushed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes rows collected by `from`, dropping the oldest if there is no room.
    pub(crate) fn push(&self, from: &str, rows: DecodedRows) {
        let count = rows.rows.num_rows();
        if count == 0 {
            return;
        }
        self.metrics.collected_rows.with_label_values(&[from]).inc_by(count as u64);
        let bytes = bytes_of(&rows);
        let mut inner = self.lock();
        let mut dropped = 0;
        while inner.rows + count > self.limit.rows || inner.bytes + bytes > self.limit.bytes {
            let Some(at) = inner.entries.iter().position(|entry| !entry.leased) else { break };
            dropped += inner.remove(at);
        }
        if inner.rows + count > self.limit.rows || inner.bytes + bytes > self.limit.bytes {
            dropped += count;
        } else {
            let id = inner.next_id;
            inner.next_id += 1;
            inner.rows += count;
            inner.bytes += bytes;
            inner.entries.push_back(Entry { id, rows, bytes, since: Instant::now(), leased: false });
        }
        self.count_dropped(Dropped::QueueFull, dropped);
        self.show(&inner);
        drop(inner);
        self.pushed.notify_one();
    }

    /// The oldest rows, with later ones of the same stream and columns, up to `most`. At least one entry, however big.
    pub(crate) fn lease(&self, most: Portion) -> Option<Lease> {
        let mut inner = self.lock();
        let first = inner.entries.iter().find(|entry| !entry.leased)?;
        let (stream, schema) = (Arc::clone(&first.rows.stream), first.rows.rows.schema());
        let (mut rows, mut bytes) = (0, 0);
        let (mut ids, mut batches) = (VecDeque::new(), Vec::new());
        for entry in inner.entries.iter_mut().filter(|entry| !entry.leased) {
            if entry.rows.stream.name != stream.name || entry.rows.rows.schema() != schema {
                continue;
            }
            if !ids.is_empty() && (rows + entry.count() > most.rows || bytes + entry.bytes > most.bytes) {
                break;
            }
            rows += entry.count();
            bytes += entry.bytes;
            entry.leased = true;
            ids.push_back(entry.id);
            batches.push(entry.rows.rows.clone());
        }
        drop(inner);
        match concat_batches(&schema, &batches) {
            Ok(rows) => Some(Lease { ids, rows: DecodedRows { stream, rows } }),
            Err(error) => {
                // Only if offsets overflow, which the limits rule out: then one entry at a time.
                tracing::warn!(%error, "batches cannot be joined, sending the first alone");
                self.set_free(&ids.split_off(1));
                Some(Lease { ids, rows: DecodedRows { stream, rows: batches.swap_remove(0) } })
            }
        }
    }

    /// The first `taken + refused` rows of the lease have met their end: the gateway has `taken` of them and will never take the
    /// others.
    pub(crate) fn advance(&self, lease: &mut Lease, taken: usize, refused: usize) {
        let ended = (taken + refused).min(lease.len());
        lease.rows.rows = lease.rows.rows.slice(ended, lease.len() - ended);
        let mut inner = self.lock();
        let mut left = ended;
        while left > 0
            && let Some(id) = lease.ids.front()
            && let Some(at) = inner.entries.iter().position(|entry| entry.id == *id)
        {
            let gone = inner.remove_rows(at, left);
            left -= gone.rows;
            if gone.whole {
                lease.ids.pop_front();
            }
        }
        // Rows that were dropped meanwhile, at shutdown, were counted then.
        let ended = ended - left;
        let taken = taken.min(ended);
        self.metrics.acknowledged_rows.inc_by(taken as u64);
        self.count_dropped(Dropped::Refused, ended - taken);
        self.show(&inner);
    }

    /// The rows that are left are to be sent again.
    pub(crate) fn release(&self, lease: Lease) {
        self.set_free(&lease.ids);
    }

    /// Drops rows that have waited longer than `age` at `now`.
    pub(crate) fn expire(&self, now: Instant, age: Duration) -> usize {
        let mut inner = self.lock();
        let mut count = 0;
        while let Some(first) = inner.entries.front()
            && !first.leased
            && now.saturating_duration_since(first.since) > age
        {
            count += inner.remove(0);
        }
        self.count_dropped(Dropped::Expired, count);
        self.show(&inner);
        count
    }

    /// Drops everything, also what is being sent.
    pub(crate) fn drop_all(&self, reason: Dropped) -> usize {
        let mut inner = self.lock();
        let mut count = 0;
        while !inner.entries.is_empty() {
            count += inner.remove(0);
        }
        self.count_dropped(reason, count);
        self.show(&inner);
        count
    }

    /// Rows that wait, also those being sent.
    pub(crate) fn rows(&self) -> usize {
        self.lock().rows
    }

    /// Resolves when rows may have been pushed since the last call. Cancel-safe.
    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    fn set_free(&self, ids: &VecDeque<u64>) {
        let mut inner = self.lock();
        inner.entries.iter_mut().filter(|entry| ids.contains(&entry.id)).for_each(|entry| entry.leased = false);
    }

    fn count_dropped(&self, reason: Dropped, rows: usize) {
        self.metrics.dropped(reason).inc_by(rows as u64);
    }

    fn show(&self, inner: &Inner) {
        self.metrics.queued_rows.set(inner.rows as i64);
        self.metrics.queued_bytes.set(inner.bytes as i64);
    }
}

/// What was taken out of an entry.
struct Gone {
    rows: usize,
    whole: bool,
}

impl Inner {
    /// Takes the first `most` rows out of one entry, and with its last row the entry itself.
    fn remove_rows(&mut self, at: usize, most: usize) -> Gone {
        let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.count() > most) else {
            return Gone { rows: self.remove(at), whole: true };
        };
        entry.rows.rows = entry.rows.rows.slice(most, entry.count() - most);
        let before = std::mem::replace(&mut entry.bytes, bytes_of(&entry.rows));
        self.bytes = self.bytes - before + entry.bytes;
        self.rows -= most;
        Gone { rows: most, whole: false }
    }

    /// Takes out one entry and says how many rows it had.
    fn remove(&mut self, at: usize) -> usize {
        let Some(entry) = self.entries.remove(at) else { return 0 };
        self.rows -= entry.count();
        self.bytes -= entry.bytes;
        entry.count()
    }
}

/// What the rows cover of their buffers.
fn bytes_of(rows: &DecodedRows) -> usize {
    let columns = rows.rows.columns().iter();
    columns
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Reading, to_rows};
    use airan_model::catalog::Catalog;

    fn rows(stream: &str, count: usize) -> DecodedRows {
        let catalog = Catalog::builtin().unwrap();
        to_rows(catalog.stream(stream).unwrap(), "node", 0, None, &vec![Reading::default(); count]).unwrap()
    }

    fn queue(rows: usize, bytes: usize) -> (Queue, Arc<AgentMetrics>) {
        let metrics = Arc::new(AgentMetrics::new().unwrap());
        (Queue::new(Portion { rows, bytes }, Arc::clone(&metrics)), metrics)
    }

    fn acknowledge(queue: &Queue, mut lease: Lease) {
        let rows = lease.len();
        queue.advance(&mut lease, rows, 0);
    }

    fn give_up(queue: &Queue, mut lease: Lease) {
        let rows = lease.len();
        queue.advance(&mut lease, 0, rows);
    }

    const ALL: Portion = Portion { rows: usize::MAX, bytes: usize::MAX };

    fn assert_sum(queue: &Queue, metrics: &AgentMetrics) {
        let collected = metrics.collected_rows.with_label_values(&["x"]).get();
        let dropped: u64 = Dropped::ALL.iter().map(|reason| metrics.dropped(*reason).get()).sum();
        assert_eq!(collected, metrics.acknowledged_rows.get() + queue.rows() as u64 + dropped);
        assert_eq!(metrics.queued_rows.get(), queue.rows() as i64);
    }

    /// Scenario: ten rows fit; twelve come in entries of four, three and five.
    /// Guarantees: the oldest entry goes, is counted, and the sum holds.
    #[test]
    fn the_oldest_rows_are_dropped_when_there_is_no_room() {
        let (queue, metrics) = queue(10, usize::MAX);
        for count in [4, 3, 5] {
            queue.push("x", rows("host", count));
            assert_sum(&queue, &metrics);
        }
        assert_eq!((queue.rows(), metrics.dropped(Dropped::QueueFull).get()), (8, 4));
        queue.push("x", rows("host", 11));
        assert_eq!((queue.rows(), metrics.dropped(Dropped::QueueFull).get()), (0, 23));
        assert_sum(&queue, &metrics);
        queue.push("x", rows("host", 0));
        assert_eq!(queue.rows(), 0);
    }

    #[test]
    fn bytes_are_limited_too() {
        let one = bytes_of(&rows("host", 10));
        let (queue, metrics) = queue(usize::MAX, 2 * one);
        for _ in 0..3 {
            queue.push("x", rows("host", 10));
        }
        assert_eq!((queue.rows(), metrics.queued_bytes.get()), (20, 2 * one as i64));
        assert_sum(&queue, &metrics);
    }

    /// Scenario: rows are being sent while others push them out.
    #[test]
    fn rows_being_sent_are_not_dropped() {
        let (queue, metrics) = queue(10, usize::MAX);
        queue.push("x", rows("host", 6));
        let lease = queue.lease(ALL).unwrap();
        queue.push("x", rows("host", 3));
        queue.push("x", rows("host", 4));
        assert_eq!((queue.rows(), metrics.dropped(Dropped::QueueFull).get()), (10, 3));
        queue.push("x", rows("host", 5));
        assert_eq!((queue.rows(), metrics.dropped(Dropped::QueueFull).get()), (6, 12));
        acknowledge(&queue, lease);
        assert_eq!((queue.rows(), metrics.acknowledged_rows.get()), (0, 6));
        assert_sum(&queue, &metrics);
    }

    #[test]
    fn a_lease_joins_entries_of_one_stream_up_to_its_portion() {
        let (queue, metrics) = queue(100, usize::MAX);
        for (stream, count) in [("host", 2), ("link", 3), ("host", 4), ("host", 5)] {
            queue.push("x", rows(stream, count));
        }
        let most = Portion { rows: 7, bytes: usize::MAX };
        let first = queue.lease(most).unwrap();
        assert_eq!((&*first.stream().name, first.len()), ("host", 6));
        let second = queue.lease(most).unwrap();
        assert_eq!((&*second.stream().name, second.len()), ("link", 3));
        queue.release(first);
        let again = queue.lease(Portion { rows: 1, bytes: 1 }).unwrap();
        assert_eq!(again.len(), 2);
        give_up(&queue, again);
        acknowledge(&queue, second);
        assert_eq!((metrics.dropped(Dropped::Refused).get(), metrics.acknowledged_rows.get()), (2, 3));
        assert_sum(&queue, &metrics);
        assert_eq!(queue.drop_all(Dropped::Shutdown), 9);
        assert!(queue.lease(ALL).is_none());
        assert_sum(&queue, &metrics);
    }

    /// Scenario: a lease over entries of three, two and four rows meets its end piece by piece, one of them within an entry; the
    /// rest goes back.
    /// Guarantees: the sum holds at every step, bytes are given back, and the next lease has exactly the rest.
    #[test]
    fn rows_leave_a_lease_from_the_front() {
        let (queue, metrics) = queue(100, usize::MAX);
        for count in [3, 2, 4] {
            queue.push("x", rows("host", count));
        }
        let all = metrics.queued_bytes.get();
        let mut lease = queue.lease(ALL).unwrap();
        queue.advance(&mut lease, 2, 0);
        assert_eq!((lease.len(), queue.rows(), metrics.acknowledged_rows.get()), (7, 7, 2));
        assert!(metrics.queued_bytes.get() < all);
        queue.advance(&mut lease, 1, 1);
        assert_eq!((lease.first(9).rows.num_rows(), metrics.dropped(Dropped::Refused).get()), (5, 1));
        assert_sum(&queue, &metrics);
        queue.push("x", rows("host", 1));
        queue.release(lease);
        let rest = queue.lease(ALL).unwrap();
        assert_eq!(rest.len(), 6);
        acknowledge(&queue, rest);
        assert_sum(&queue, &metrics);
        assert_eq!((queue.rows(), metrics.queued_bytes.get()), (0, 0));

        queue.push("x", rows("host", 4));
        let mut lease = queue.lease(ALL).unwrap();
        queue.advance(&mut lease, 1, 0);
        assert_eq!(queue.drop_all(Dropped::Shutdown), 3);
        queue.advance(&mut lease, 3, 0);
        assert_sum(&queue, &metrics);
    }

    #[test]
    fn rows_that_wait_too_long_expire() {
        let (queue, metrics) = queue(100, usize::MAX);
        queue.push("x", rows("host", 2));
        let between = Instant::now();
        while Instant::now() == between {}
        queue.push("x", rows("host", 3));
        let age = Duration::from_secs(10);
        assert_eq!(queue.expire(between, age), 0);
        let lease = queue.lease(Portion { rows: 2, bytes: usize::MAX }).unwrap();
        assert_eq!(queue.expire(between + 2 * age, age), 0, "what is being sent does not expire");
        queue.release(lease);
        assert_eq!(queue.expire(between + age, age), 2);
        assert_eq!((queue.rows(), metrics.dropped(Dropped::Expired).get()), (3, 2));
        assert_sum(&queue, &metrics);
    }
}
