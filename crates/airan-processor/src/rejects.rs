//! The record of messages that were refused, for the rejected topic.
//!
//! Written beside the work, never in its way: at most [`IN_FLIGHT`] records wait for the bus, each for at most
//! [`PATIENCE`]; further ones are only counted.

use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_model::identity::sha256_hex;
use airan_model::reject::Rejected;
use airan_model::time::Clock;
use tokio::sync::Semaphore;

use crate::metrics::ProcessorMetrics;
use crate::shard::Refusal;

/// Records that may wait for the bus: enough for a burst, little enough to be forgotten about.
const IN_FLIGHT: usize = 64;
/// How long a record may wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes records of refused messages.
#[derive(Clone)]
pub(crate) struct Rejects {
    bus: Arc<dyn Bus>,
    clock: Clock,
    metrics: Arc<ProcessorMetrics>,
    places: Arc<Semaphore>,
}

impl Rejects {
    pub fn new(bus: Arc<dyn Bus>, clock: Clock, metrics: Arc<ProcessorMetrics>) -> Rejects {
        Rejects { bus, clock, metrics, places: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Records a refused message. Says what it was, never what was in it.
    pub fn record(&self, partition: i32, refusal: Refusal) {
        let Refusal { offset, rows, payload, refused } = refusal;
        tracing::debug!(partition, offset, reason = %refused.reason, detail = refused.detail, "message refused");
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.rejected_unrecorded.inc();
            return;
        };
        let rejected = Rejected {
            door: "bus".to_owned(),
            reason: refused.reason,
            node: None,
            length: payload.len() as u64,
            sha256: sha256_hex(&payload),
            position: Some(format!("{partition}/{offset}")),
            at: self.clock.now(),
            rows,
        };
        let (bus, metrics) = (Arc::clone(&self.bus), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let sent = tokio::time::timeout(PATIENCE, bus.send_rejected(rejected)).await;
            if !matches!(sent, Ok(Ok(()))) {
                metrics.rejected_unrecorded.inc();
            }
            drop(place);
        });
    }
}
