//! The way to the gateway: one request at a time, retried until it is acknowledged, refused or too old.
//!
//! A request carries rows of one stream. A retry carries the same rows with the same identity, so an answer that was lost costs
//! nothing but the repetition.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use airan_decode::DecodedRows;
use airan_model::ipc;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tokio_util::sync::CancellationToken;

use crate::metrics::{AgentMetrics, Dropped};
use crate::queue::{Portion, Queue};
use crate::settings::UplinkSettings;

/// The longest wait a gateway can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Characters of a gateway's refusal that are logged, of its first piece.
const REFUSAL_CHARS: usize = 200;

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
        url: String,
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
    /// Never send them again: the fault is theirs.
    #[error("{reason}")]
    Refused {
        /// Why, for the log.
        reason: String,
    },
}

/// An uplink that is ready to send.
pub(crate) enum Line {
    Http { client: reqwest::Client, url: reqwest::Url, sender: String },
    InProcess(Submit),
}

impl Line {
    async fn send(&self, rows: DecodedRows) -> Result<(), UplinkError> {
        match self {
            Line::InProcess(submit) => submit(rows).await,
            Line::Http { client, url, sender } => {
                let body =
                    ipc::encode(&rows.rows).map_err(|error| UplinkError::Refused { reason: error.to_string() })?;
                let request = client
                    .post(url.clone())
                    .header(CONTENT_TYPE, "application/vnd.apache.arrow.stream")
                    .header("airan-stream", &*rows.stream.name)
                    .header("airan-sender", sender)
                    .body(body);
                let mut answer = request.send().await.map_err(|error| retry(&plain(&error), None))?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                let after = retry_after(answer.headers());
                let start = answer.chunk().await.ok().flatten().unwrap_or_default();
                let text: String = String::from_utf8_lossy(&start).chars().take(REFUSAL_CHARS).collect();
                let reason = format!("the gateway answered {status}: {}", text.trim());
                match status.as_u16() {
                    // The rows themselves are at fault. Anything else is the gateway's, or the way's to it.
                    400 | 413 | 415 | 422 => Err(UplinkError::Refused { reason }),
                    _ => Err(retry(&reason, after)),
                }
            }
        }
    }
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
        let most = Portion { rows: self.settings.request_rows, bytes: self.settings.request_bytes.size() };
        let mut failures = 0u32;
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
            let sending = tokio::time::timeout(self.settings.timeout.get(), self.line.send(lease.rows.clone()));
            let outcome = sending.await.unwrap_or_else(|_| Err(retry("the gateway did not answer in time", None)));
            let (name, answered) = match &outcome {
                Ok(()) => ("acknowledged", true),
                Err(UplinkError::Refused { .. }) => ("refused", true),
                Err(UplinkError::Retry { .. }) => ("retry", false),
            };
            self.metrics.uplink_requests.with_label_values(&[name]).inc();
            self.metrics.uplink_up.set(i64::from(answered));
            match outcome {
                Ok(()) => {
                    self.queue.acknowledge(lease);
                    if failures > 0 {
                        tracing::info!(failures, waiting = self.queue.rows(), "the gateway is back");
                    }
                    failures = 0;
                }
                Err(UplinkError::Refused { reason }) => {
                    let stream = Arc::clone(&lease.rows.stream.name);
                    let rows = self.queue.give_up(lease, Dropped::Refused);
                    tracing::error!(rows, %stream, reason, "the gateway refused rows: these are lost");
                    failures = 0;
                }
                Err(UplinkError::Retry { reason, after }) => {
                    self.queue.release(lease);
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
