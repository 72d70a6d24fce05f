//! Ticks: a message to every partition at a steady pace, so that time passes in a silent partition without any reader
//! looking at a clock (W3).

use std::sync::Arc;

use airan_bus::Bus;
use airan_model::message::Message;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::GatewayMetrics;

/// Ticks until stopped. A failure is logged when it begins and when it ends.
pub(crate) async fn run(
    bus: Arc<dyn Bus>,
    every: std::time::Duration,
    metrics: Arc<GatewayMetrics>,
    stop: CancellationToken,
) {
    let mut pace = tokio::time::interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pace.tick() => {}
        }
        let ticks = (0..bus.partitions()).map(|partition| {
            let bus = &bus;
            async move {
                match tokio::time::timeout(every, bus.send(partition, Message::Tick)).await {
                    Ok(Ok(_offset)) => Ok(()),
                    Ok(Err(error)) => Err((partition, error.to_string())),
                    Err(_) => Err((partition, "no acknowledgement before the next one".to_owned())),
                }
            }
        });
        let outcomes = tokio::select! {
            () = stop.cancelled() => return,
            outcomes = futures::future::join_all(ticks) => outcomes,
        };
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        metrics.ticks.with_label_values(&["written"]).inc_by((outcomes.len() - failed.len()) as u64);
        metrics.ticks.with_label_values(&["failed"]).inc_by(failed.len() as u64);
        match failed.first() {
            Some((partition, problem)) if !failing => {
                tracing::warn!(partition, problem, failed = failed.len(), "ticks fail; silent partitions stand still");
            }
            None if failing => tracing::info!("ticks are written again"),
            _ => {}
        }
        failing = !failed.is_empty();
    }
}
