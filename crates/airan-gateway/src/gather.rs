//! Gathering: rows of many requests for one partition and stream become one message, and each request learns its outcome.
//!
//! A queue for each (partition, stream), and a worker that empties it when it holds enough or its first rows have waited for
//! the linger. What waits, from being offered to the bus's acknowledgement, is bounded in bytes over all queues. The worker
//! counts the outcome of each row, also when the request that brought it has gone away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use airan_bus::{Bus, SendError};
use airan_model::message::{Message, Rows};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::admit::Part;
use crate::layout::{Columns, Layout};
use crate::metrics::GatewayMetrics;
use crate::pack::{PackError, pack};
use crate::settings::GatherSettings;
use crate::{Door, Refusal};

/// Messages of one partition and stream that may wait for their acknowledgement at once. More than a few would only reorder
/// and add memory: the bus groups what it syncs.
const SENDING_MAX: usize = 4;

/// All queues.
pub(crate) struct Gatherer {
    shared: Arc<Shared>,
    // By partition × stream; a queue and its worker start with their first rows.
    queues: Vec<OnceLock<Arc<Queue>>>,
    streams: usize,
    workers: TaskTracker,
}

struct Shared {
    bus: Arc<dyn Bus>,
    settings: GatherSettings,
    retry_after: Duration,
    waiting: AtomicUsize,
    metrics: Arc<GatewayMetrics>,
}

/// Rows that wait for one partition and stream.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Notify,
}

#[derive(Default)]
struct QueueState {
    pieces: VecDeque<Piece>,
    bytes: usize,
    closed: bool,
}

/// Rows of one request.
struct Piece {
    rows: Columns,
    bytes: usize,
    since: Instant,
    door: Door,
    request: Arc<Request>,
}

/// Collects the outcomes of a request's pieces. When the last of them is gone without a word, the receiver sees a closed
/// channel and reports an unknown outcome.
struct Request {
    state: Mutex<RequestState>,
}

struct RequestState {
    left: usize,
    worst: Option<Refusal>,
    done: Option<oneshot::Sender<Result<(), Refusal>>>,
}

/// A request whose rows were all queued.
#[derive(Debug)]
pub(crate) struct Pending {
    done: oneshot::Receiver<Result<(), Refusal>>,
    retry_after: Duration,
}

/// How one message ended.
#[derive(Clone)]
enum Outcome {
    Acknowledged,
    Refused(Refusal),
    Unknown(Refusal),
}

impl Gatherer {
    /// No queue is open yet. `streams` is the number of streams in the catalog.
    pub fn new(
        bus: Arc<dyn Bus>,
        streams: usize,
        settings: GatherSettings,
        retry_after: Duration,
        metrics: Arc<GatewayMetrics>,
    ) -> Gatherer {
        let partitions = usize::try_from(bus.partitions()).unwrap_or(0);
        let queues = std::iter::repeat_with(OnceLock::new).take(partitions * streams).collect();
        let shared = Shared { bus, settings, retry_after, waiting: AtomicUsize::new(0), metrics };
        Gatherer { shared: Arc::new(shared), queues, streams, workers: TaskTracker::new() }
    }

    /// Queues all rows of a request, or none of them. Counts them as received. Must be called inside a tokio runtime.
    pub fn offer(&self, door: Door, parts: Vec<Part>) -> Result<Pending, Refusal> {
        let shared = &self.shared;
        let rows: usize = parts.iter().map(|part| part.rows.rows).sum();
        let counts = shared.metrics.rows(door);
        counts.received.inc_by(rows as u64);

        let target = shared.settings.bytes.size();
        let mut pieces = Vec::with_capacity(parts.len());
        let mut bytes = 0;
        for part in parts {
            let size = part.rows.bytes();
            bytes += size;
            cut(part, size, target, &mut pieces);
        }
        // A request larger than all that may wait is still taken when nothing else waits, or it would never be.
        let max = shared.settings.waiting_bytes.size();
        let fits = |have: usize| (have == 0 || have.saturating_add(bytes) <= max).then(|| have + bytes);
        if shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            counts.refused.inc_by(rows as u64);
            return Err(Refusal::Busy { what: "rows", retry_after: shared.retry_after });
        }
        shared.metrics.waiting_bytes.add(bytes as i64);

        let (tell, done) = oneshot::channel();
        let request =
            Arc::new(Request { state: Mutex::new(RequestState { left: pieces.len(), worst: None, done: Some(tell) }) });
        if pieces.is_empty() {
            request.finish();
        }
        let since = Instant::now();
        for (part, bytes) in pieces {
            let queue = self.queue(part.partition, &part.layout);
            let piece = Piece { rows: part.rows, bytes, since, door, request: Arc::clone(&request) };
            if let Err(piece) = queue.push(piece, target) {
                let message = "the gateway is shutting down".to_owned();
                let refusal = Refusal::Unavailable { message, retry_after: shared.retry_after };
                shared.settle(&[piece], &[(0..usize::MAX, Outcome::Refused(refusal))]);
            }
        }
        Ok(Pending { done, retry_after: shared.retry_after })
    }

    /// Takes no more rows, sends what is queued at once, and waits for the bus, until `deadline`.
    pub async fn close(&self, deadline: Instant) {
        self.workers.close();
        self.queues.iter().filter_map(OnceLock::get).for_each(|queue| queue.close());
        if tokio::time::timeout_at(deadline, self.workers.wait()).await.is_err() {
            tracing::error!(
                bytes = self.shared.waiting.load(Ordering::Relaxed),
                "rows still waited for the bus when the gateway stopped; their senders were told that the outcome is unknown"
            );
        }
    }

    fn queue(&self, partition: i32, layout: &Arc<Layout>) -> Arc<Queue> {
        let place = usize::try_from(partition).unwrap_or(0) * self.streams + layout.number;
        let start = || {
            let queue = Arc::new(Queue::default());
            let worker = work(Arc::clone(&self.shared), Arc::clone(&queue), Arc::clone(layout), partition);
            self.workers.spawn(worker);
            queue
        };
        let queue = self.queues[place].get_or_init(start);
        if self.workers.is_closed() {
            // `close` may have gone over the queues before this one was there.
            queue.close();
        }
        Arc::clone(queue)
    }
}

impl Pending {
    /// Resolves when each row of the request has met its end. The worst end is the answer.
    pub async fn settled(self) -> Result<(), Refusal> {
        let lost = || Refusal::Unknown { message: "the gateway stopped".to_owned(), retry_after: self.retry_after };
        self.done.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Cuts a part in pieces of about `target` bytes, so that one large request neither delays others for long nor makes a
/// message that must be cut after it was encoded.
fn cut(part: Part, bytes: usize, target: usize, pieces: &mut Vec<(Part, usize)>) {
    let count = bytes.div_ceil(target.max(1)).clamp(1, part.rows.rows.max(1));
    if count == 1 {
        return pieces.push((part, bytes));
    }
    let step = part.rows.rows.div_ceil(count);
    for offset in (0..part.rows.rows).step_by(step) {
        let rows = part.rows.slice(offset, step.min(part.rows.rows - offset));
        // Shares of the whole: they add up to it, as the reservation demands.
        let share = |rows: usize| (bytes as u128 * rows as u128 / part.rows.rows as u128) as usize;
        let size = share(offset + rows.rows) - share(offset);
        pieces.push((Part { partition: part.partition, layout: Arc::clone(&part.layout), rows }, size));
    }
}

/// Empties a queue until it is closed and empty and all its messages have ended.
async fn work(shared: Arc<Shared>, queue: Arc<Queue>, layout: Arc<Layout>, partition: i32) {
    let mut sending = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = sending.next(), if !sending.is_empty() => {}
            pieces = queue.gathered(&shared.settings), if sending.len() < SENDING_MAX => match pieces {
                Some(pieces) => sending.push(shared.deliver(&layout, partition, pieces)),
                None => break,
            },
        }
    }
    while sending.next().await.is_some() {}
}

impl Shared {
    /// Packs and sends pieces and tells their requests. Messages are handed to the bus in order.
    async fn deliver(&self, layout: &Layout, partition: i32, pieces: Vec<Piece>) {
        let tables: Vec<&Columns> = pieces.iter().map(|piece| &piece.rows).collect();
        let message_max = self.settings.message_bytes.size();
        let sends = pack(layout, &tables, message_max).into_iter().map(|packed| async move {
            let outcome = match packed.message {
                Ok(message) => self.send(partition, message).await,
                Err(PackError::RowTooLarge) => Outcome::Refused(Refusal::RowTooLarge { limit: message_max as u64 }),
                Err(PackError::Encode(message)) => {
                    Outcome::Refused(Refusal::Internal { message, retry_after: self.retry_after })
                }
            };
            (packed.rows, outcome)
        });
        let outcomes = futures::future::join_all(sends).await;
        self.settle(&pieces, &outcomes);
    }

    async fn send(&self, partition: i32, message: Rows) -> Outcome {
        self.metrics.message_bytes.inc_by(message.payload.len() as u64);
        let send = self.bus.send(partition, Message::Rows(message));
        let outcome = match tokio::time::timeout(self.settings.ack_timeout.get(), send).await {
            Ok(Ok(_offset)) => Outcome::Acknowledged,
            Ok(Err(error)) => self.failed(&error),
            Err(_) => Outcome::Unknown(Refusal::Unknown {
                message: format!("no acknowledgement within {}", self.settings.ack_timeout),
                retry_after: self.retry_after,
            }),
        };
        let word = match &outcome {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        self.metrics.messages.with_label_values(&[word]).inc();
        outcome
    }

    fn failed(&self, error: &SendError) -> Outcome {
        let (message, retry_after) = (error.to_string(), self.retry_after);
        match error {
            SendError::Unknown { .. } => Outcome::Unknown(Refusal::Unknown { message, retry_after }),
            SendError::TooLarge { .. } => {
                Outcome::Refused(Refusal::RowTooLarge { limit: self.settings.message_bytes.get() })
            }
            _ => Outcome::Refused(Refusal::Unavailable { message, retry_after }),
        }
    }

    /// Counts each row by the outcome of the message it was in, frees the pieces' bytes, tells their requests. `outcomes`
    /// covers the pieces' rows in order.
    fn settle(&self, pieces: &[Piece], outcomes: &[(std::ops::Range<usize>, Outcome)]) {
        let mut start = 0;
        for piece in pieces {
            let end = start + piece.rows.rows;
            let counts = self.metrics.rows(piece.door);
            let mut worst: Option<&Refusal> = None;
            for (rows, outcome) in outcomes.iter().filter(|(rows, _)| rows.start < end && rows.end > start) {
                let shared_rows = (rows.end.min(end) - rows.start.max(start)) as u64;
                let refusal = match outcome {
                    Outcome::Acknowledged => {
                        counts.acknowledged.inc_by(shared_rows);
                        continue;
                    }
                    Outcome::Refused(refusal) => {
                        counts.refused.inc_by(shared_rows);
                        refusal
                    }
                    Outcome::Unknown(refusal) => {
                        counts.unknown.inc_by(shared_rows);
                        refusal
                    }
                };
                worst = worst.filter(|worst| worst.gravity() >= refusal.gravity()).or(Some(refusal));
            }
            self.waiting.fetch_sub(piece.bytes, Ordering::Relaxed);
            self.metrics.waiting_bytes.sub(piece.bytes as i64);
            piece.request.settle(worst);
            start = end;
        }
    }
}

impl Request {
    fn settle(&self, refusal: Option<&Refusal>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = refusal
            && state.worst.as_ref().is_none_or(|worst| worst.gravity() < refusal.gravity())
        {
            state.worst = Some(refusal.clone());
        }
        state.left = state.left.saturating_sub(1);
        let over = state.left == 0;
        drop(state);
        if over {
            self.finish();
        }
    }

    fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = state.worst.take().map_or(Ok(()), Err);
        if let Some(done) = state.done.take() {
            // The request may have gone away: its rows are counted all the same.
            let _ = done.send(result);
        }
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Hands the piece back when the queue is closed. Wakes the worker only where it has something to do or to wait for.
    fn push(&self, piece: Piece, target: usize) -> Result<(), Piece> {
        let mut state = self.lock();
        if state.closed {
            return Err(piece);
        }
        let before = state.bytes;
        let was_empty = state.pieces.is_empty();
        state.bytes += piece.bytes;
        let is_enough = before < target && state.bytes >= target;
        state.pieces.push_back(piece);
        drop(state);
        if was_empty || is_enough {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The next pieces to send: about `bytes` of them, or what there is after `linger`. None when closed and empty. Nothing is
    /// lost when the future is dropped.
    async fn gathered(&self, settings: &GatherSettings) -> Option<Vec<Piece>> {
        let target = settings.bytes.size();
        loop {
            // `notify_one` leaves a permit behind, so a wake between the check and the wait is not lost.
            let due = {
                let mut state = self.lock();
                match state.pieces.front() {
                    None if state.closed => return None,
                    None => None,
                    Some(first) => {
                        let due = first.since + settings.linger.get();
                        if state.closed || state.bytes >= target || Instant::now() >= due {
                            return Some(state.take(target));
                        }
                        Some(due)
                    }
                }
            };
            match due {
                None => self.wake.notified().await,
                Some(due) => {
                    // Either the time is up or there is more: look again.
                    let _ = tokio::time::timeout_at(due, self.wake.notified()).await;
                }
            }
        }
    }
}

impl QueueState {
    fn take(&mut self, target: usize) -> Vec<Piece> {
        let (mut count, mut bytes) = (0, 0);
        for piece in &self.pieces {
            count += 1;
            bytes += piece.bytes;
            if bytes >= target {
                break;
            }
        }
        self.bytes -= bytes;
        self.pieces.drain(..count).collect()
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
