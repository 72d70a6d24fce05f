//! Records of what was refused, on their way to the bus's rejected topic.
//!
//! Best effort and bounded: a refusal is always counted, but its record never holds up a door. A record that could not be
//! written is counted too.

use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_model::reject::{Reason, Rejected};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Door;
use crate::metrics::GatewayMetrics;

/// Records that may wait to be written.
const WAITING_MAX: usize = 1_024;

/// How long one record may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes records; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Rejects {
    queue: mpsc::Sender<Rejected>,
    metrics: Arc<GatewayMetrics>,
}

/// Writes the records. Runs until stopped, then writes what waits.
pub(crate) struct RejectWriter {
    queue: mpsc::Receiver<Rejected>,
    bus: Arc<dyn Bus>,
    metrics: Arc<GatewayMetrics>,
}

/// The two ends of a fresh queue of records.
pub(crate) fn channel(bus: Arc<dyn Bus>, metrics: Arc<GatewayMetrics>) -> (Rejects, RejectWriter) {
    let (send, receive) = mpsc::channel(WAITING_MAX);
    (Rejects { queue: send, metrics: Arc::clone(&metrics) }, RejectWriter { queue: receive, bus, metrics })
}

impl Rejects {
    /// Counts `count` things refused for `reason`.
    pub fn count(&self, door: Door, reason: Reason, count: u64) {
        self.metrics.rejected.with_label_values(&[door.as_str(), reason.as_str()]).inc_by(count);
    }

    /// Queues a record.
    pub fn record(&self, rejected: Rejected) {
        if self.queue.try_send(rejected).is_err() {
            self.metrics.rejected_unrecorded.inc();
        }
    }
}

impl RejectWriter {
    /// Writes records one after the other.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let rejected = tokio::select! {
                biased;
                rejected = self.queue.recv() => rejected,
                () = stop.cancelled() => None,
            };
            let Some(rejected) = rejected else { return };
            let problem = match tokio::time::timeout(WRITE_TIMEOUT, self.bus.send_rejected(rejected)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no acknowledgement within {WRITE_TIMEOUT:?}")),
            };
            if let Some(problem) = &problem {
                self.metrics.rejected_unrecorded.inc();
                if !failing {
                    tracing::warn!(problem, "rejections cannot be recorded; they are still counted");
                }
            } else if failing {
                tracing::info!("rejections are recorded again");
            }
            failing = problem.is_some();
        }
    }
}
