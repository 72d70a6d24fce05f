//! The way to the gateway: one request at a time, retried until it is acknowledged, refused or too old.
//!
//! A request carries rows of one stream. A retry carries the same rows with the same identity, so an answer that was lost costs
//! nothing but the repetition. Where the gateway refuses many rows at once, the halves are sent, so that a row it cannot take
//! costs only itself and a limit of the gateway's costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use airan_decode::DecodedRows;
use airan_model::ipc;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::Address;
use crate::address::Endpoint;
use crate::metrics::{AgentMetrics, Dropped};
use crate::queue::{Lease, Portion, Queue};
use crate::settings::UplinkSettings;

/// The longest wait a gateway can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Characters of a gateway's refusal that are logged.
const REFUSAL_CHARS: usize = 200;

/// Bytes of an answer that are read. A gateway's have less.
const ANSWER_MAX: usize = 64 << 10;

/// Refusals in a row, without a row taken in between, after which the rest of a request is taken to be as bad as its start.
/// Halving 20,000 rows down to a bad one takes 15; without a bound, as many all bad would take 40,000 requests.
const REFUSALS_MAX: usize = 512;

/// Bytes of a request that is not made smaller on a slow link.
const NARROWEST: usize = 16 << 10;

/// What an in-process uplink returns.
pub type Submitted = Pin<Box<dyn Future<Output = Result<(), UplinkError>> + Send>>;

/// Hands rows to a gateway of this process. Resolves once they are acknowledged; when dropped, the outcome is unknown and the
/// same rows come again.
pub type Submit = Box<dyn Fn(DecodedRows) -> Submitted + Send + Sync>;

/// Where rows go.
pub enum Uplink {
    /// A gateway's HTTP door: `http://host:4318`.
    Http {
        /// Its address, without a path.
        url: Address,
    },
    /// A gateway of this process.
    InProcess(Submit),
}

/// Why rows were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// Send them again, after so long if the gateway says so.
    #[error("{reason}")]
    Retry {
        /// Why, for the log.
        reason: String,
        /// How long to wait at least.
        after: Option<Duration>,
    },
    /// It took too long: send them again, fewer at a time.
    #[error("{reason}")]
    Slow {
        /// Why, for the log.
        reason: String,
    },
    /// The fault is in one of the rows, or there are too many: send fewer at a time. One row alone is never to be sent again.
    #[error("{reason}")]
    Refused {
        /// Why, for the log.
        reason: String,
    },
    /// Never send them again: the fault is of all of them, as where the gateway does not know their stream.
    #[error("{reason}")]
    RefusedAll {
        /// Why, for the log.
        reason: String,
    },
}

/// An uplink that is ready to send.
pub(crate) enum Line {
    Http { client: reqwest::Client, endpoint: Endpoint, sender: String },
    InProcess(Submit),
}

/// What a gateway answers to rows that it took, or that it refused.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Rows that the bus holds; absent in a refusal.
    rows: Option<u64>,
    /// The word for a refusal.
    reason: Option<String>,
}

impl Line {
    /// Sends rows and says how many of them were taken.
    async fn send(&self, rows: DecodedRows) -> Result<usize, UplinkError> {
        let count = rows.rows.num_rows();
        match self {
            Line::InProcess(submit) => submit(rows).await.map(|()| count),
            Line::Http { client, endpoint, sender } => {
                let body =
                    ipc::encode(&rows.rows).map_err(|error| UplinkError::RefusedAll { reason: error.to_string() })?;
                let request = endpoint
                    .authorized(client.post(endpoint.url.clone()))
                    .header(CONTENT_TYPE, "application/vnd.apache.arrow.stream")
                    .header("airan-stream", &*rows.stream.name)
                    .header("airan-sender", sender)
                    .body(body);
                let broken = |error: reqwest::Error| match error.is_timeout() && !error.is_connect() {
                    true => UplinkError::Slow { reason: plain(&error.without_url()) },
                    false => retry(&plain(&error.without_url()), None),
                };
                let mut answer = request.send().await.map_err(broken)?;
                let (status, after) = (answer.status(), retry_after(answer.headers()));
                let mut text = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(broken)? {
                    text.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - text.len())]);
                    if text.len() == ANSWER_MAX {
                        break;
                    }
                }
                let said: Option<Answer> = serde_json::from_slice(&text).ok();
                if status.is_success() {
                    // Whatever else answers 200, such as a captive portal, has not taken the rows.
                    let rows = said.and_then(|said| said.rows).and_then(|rows| usize::try_from(rows).ok());
                    let no_gateway = || retry(&format!("what answered {status} is no gateway"), None);
                    return rows.map(|rows| rows.min(count)).ok_or_else(no_gateway);
                }
                let words: String = String::from_utf8_lossy(&text).chars().take(REFUSAL_CHARS).collect();
                let reason = format!("the gateway answered {status}: {}", words.trim());
                let word = said.and_then(|said| said.reason).unwrap_or_default();
                Err(match (status.as_u16(), word.as_str()) {
                    (400, "unknown_stream" | "wrong_type" | "unsupported_format") => UplinkError::RefusedAll { reason },
                    // The rows themselves are at fault. Anything else is the gateway's, or the way's to it.
                    (400 | 413, _) => UplinkError::Refused { reason },
                    (415 | 422, _) => UplinkError::RefusedAll { reason },
                    (503, "timeout") => UplinkError::Slow { reason },
                    _ => retry(&reason, after),
                })
            }
        }
    }
}

/// `total` rows in pieces of `at_once`, at least one; the first comes last.
fn in_pieces(total: usize, at_once: usize) -> Vec<usize> {
    let at_once = at_once.clamp(1, total.max(1));
    let rest = total % at_once;
    let mut pieces = if rest > 0 { vec![rest] } else { Vec::new() };
    pieces.resize(pieces.len() + total / at_once, at_once);
    pieces
}

fn retry(reason: &str, after: Option<Duration>) -> UplinkError {
    UplinkError::Retry { reason: reason.to_owned(), after }
}

/// An error with its causes on one line.
pub(crate) fn plain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// `Retry-After` in seconds; the form with a date is not used by our gateway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Sends what is queued.
pub(crate) struct Sender {
    pub(crate) line: Line,
    pub(crate) queue: Arc<Queue>,
    pub(crate) settings: UplinkSettings,
    pub(crate) metrics: Arc<AgentMetrics>,
}

/// How the sending of a lease ended.
enum Delivered {
    /// All its rows have met their end.
    Whole,
    /// All its rows were taken, but only piece by piece, the largest with this share of them.
    InPieces { share: f64 },
    /// The rest of its rows is to be sent again; fewer at a time, where it took too long.
    Later { reason: String, after: Option<Duration>, is_slow: bool },
}

impl Sender {
    /// Runs until `finish` is cancelled and the queue is empty, or `drain` has passed since. What is left then is dropped.
    pub(crate) async fn run(self, finish: CancellationToken, drain: Duration) {
        let overdue = async {
            finish.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            () = self.pump(&finish) => {}
            () = overdue => {}
        }
        let left = self.queue.drop_all(Dropped::Shutdown);
        if left > 0 {
            tracing::error!(rows = left, "stopped before the gateway took all rows: these are lost");
        }
    }

    async fn pump(&self, finish: &CancellationToken) {
        let mut most = Portion { rows: self.settings.request_rows, bytes: self.settings.request_bytes.size() };
        let mut failures = 0u32;
        // What a slow link lets through in time; grows again with what arrives.
        let mut narrow = most.bytes;
        // It has been told that requests are too slow, and none of full size has passed since.
        let mut is_slow_told = false;
        loop {
            let expired = self.queue.expire(Instant::now(), self.settings.give_up_after.get());
            if expired > 0 {
                tracing::error!(rows = expired, "rows waited too long for the gateway: these are lost");
            }
            let Some(lease) = self.queue.lease(most) else {
                if finish.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = self.queue.pushed() => {}
                    () = finish.cancelled() => {}
                }
                continue;
            };
            let bytes = lease.bytes();
            match self.deliver(lease, narrow, &mut failures).await {
                Delivered::Whole => {
                    let full = self.settings.request_bytes.size();
                    if is_slow_told && narrow == full {
                        tracing::info!(bytes = full, "requests of full size arrive in time again");
                        is_slow_told = false;
                    }
                    narrow = narrow.saturating_mul(2).min(full);
                }
                // Not below a row's size, however small the gateway's limit: a lease is at least what was pushed together.
                Delivered::InPieces { share } => {
                    let fits = (bytes as f64 * share) as usize;
                    if fits < most.bytes {
                        most.bytes = fits;
                        tracing::warn!(
                            bytes = fits,
                            "requests are over the gateway's limit: sending smaller ones (see agent.uplink.request_bytes)"
                        );
                    }
                }
                Delivered::Later { reason, after, is_slow } => {
                    if is_slow {
                        narrow = (narrow.min(bytes) / 2).max(NARROWEST.min(bytes));
                        if is_slow_told {
                            tracing::debug!(reason, bytes = narrow, "a request took too long: sending smaller ones");
                        } else {
                            tracing::warn!(reason, bytes = narrow, "requests take too long: sending smaller ones");
                            is_slow_told = true;
                        }
                    }
                    if failures == 0 {
                        tracing::warn!(reason, waiting = self.queue.rows(), "the gateway is away, holding rows");
                    }
                    let wait = self.backoff(failures, rand::random()).max(after.unwrap_or_default());
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Sends the rows of a lease, halving what is refused until it is taken or a row alone. Rows leave the lease, from its front
    /// on, as soon as their end is known, so that a retry carries only the rest.
    async fn deliver(&self, mut lease: Lease, narrow: usize, failures: &mut u32) -> Delivered {
        let total = lease.len();
        // Sizes of the pieces still to be sent, the next one last.
        let at_once = (total as u128 * narrow as u128 / lease.bytes().max(1) as u128) as usize;
        let mut pieces = in_pieces(total, at_once);
        let (mut refusals, mut largest, mut taken_rows) = (0, 0, 0);
        let mut is_over = false;
        let mut why = String::new();
        let ended = loop {
            let Some(rows) = pieces.pop() else { break None };
            let outcome = self.attempt(lease.first(rows)).await;
            if *failures > 0 && !matches!(outcome, Err(UplinkError::Retry { .. } | UplinkError::Slow { .. })) {
                tracing::info!(failures = *failures, waiting = self.queue.rows(), "the gateway is back");
                *failures = 0;
            }
            match outcome {
                Ok(taken) => {
                    if taken < rows {
                        why = "the gateway took a request but for some rows".to_owned();
                    }
                    self.queue.advance(&mut lease, taken, rows - taken);
                    (refusals, largest, taken_rows) = (0, largest.max(rows), taken_rows + taken);
                }
                Err(UplinkError::Retry { reason, after }) => {
                    break Some(Delivered::Later { reason, after, is_slow: false });
                }
                Err(UplinkError::Slow { reason }) => {
                    break Some(Delivered::Later { reason, after: None, is_slow: true });
                }
                Err(UplinkError::Refused { .. }) if rows > 1 && refusals < REFUSALS_MAX => {
                    refusals += 1;
                    is_over = true;
                    pieces.push(rows - rows / 2);
                    pieces.push(rows / 2);
                }
                Err(UplinkError::Refused { reason } | UplinkError::RefusedAll { reason }) => {
                    refusals += 1;
                    why = reason;
                    let lost = if refusals > REFUSALS_MAX { lease.len() } else { rows };
                    self.queue.advance(&mut lease, 0, lost);
                    if lease.len() == 0 {
                        break None;
                    }
                }
            }
        };
        let lost = total - lease.len() - taken_rows;
        if lost > 0 {
            let stream = Arc::clone(&lease.stream().name);
            tracing::error!(rows = lost, %stream, reason = why, "the gateway refused rows: these are lost");
        }
        self.queue.release(lease);
        match ended {
            Some(later) => later,
            None if taken_rows == total && is_over && largest < total => {
                Delivered::InPieces { share: largest as f64 / total as f64 }
            }
            None => Delivered::Whole,
        }
    }

    /// One request.
    async fn attempt(&self, rows: DecodedRows) -> Result<usize, UplinkError> {
        let sending = tokio::time::timeout(self.settings.timeout.get(), self.line.send(rows));
        let outcome = sending.await.unwrap_or_else(|_| Err(retry("the gateway did not answer in time", None)));
        let (name, answered) = match &outcome {
            Ok(_) => ("acknowledged", true),
            Err(UplinkError::Refused { .. } | UplinkError::RefusedAll { .. }) => ("refused", true),
            Err(UplinkError::Retry { .. } | UplinkError::Slow { .. }) => ("retry", false),
        };
        self.metrics.uplink_requests.with_label_values(&[name]).inc();
        self.metrics.uplink_up.set(i64::from(answered));
        outcome
    }

    /// Half to all of min × 2^failures, at most max; `chance` is between 0 and 1.
    fn backoff(&self, failures: u32, chance: f64) -> Duration {
        let doubled =
            self.settings.backoff_min.get().saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
        doubled.min(self.settings.backoff_max.get()).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
