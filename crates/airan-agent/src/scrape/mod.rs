//! Scraping one Prometheus text endpoint on its own schedule.

mod fetch;
mod labels;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use airan_decode::{Context, Decoded, prometheus};
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use tokio_util::sync::CancellationToken;

use crate::address::Endpoint;
use crate::agent::Shared;
pub(crate) use fetch::ScrapeError;
pub(crate) use labels::Additions;
pub(crate) use schedule::Schedule;

/// A target that is ready to be scraped.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) schedule: Schedule,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) additions: Additions,
}

impl Target {
    fn name(&self) -> &str {
        &self.additions.target
    }
}

/// Scrapes a target at every mark of its schedule until `stop`. A scrape that takes longer than the interval costs the marks it
/// runs over.
pub(crate) async fn run(target: Target, client: reqwest::Client, shared: Arc<Shared>, stop: CancellationToken) {
    let mut was_up: Option<bool> = None;
    loop {
        tokio::select! {
            () = shared.until(target.schedule.next(shared.clock.now())) => {}
            () = stop.cancelled() => return,
        }
        let outcome = tokio::select! {
            outcome = scrape(&target, &client, &shared) => outcome,
            () = stop.cancelled() => return,
        };
        let name = target.name();
        let (outcome_name, is_up) =
            outcome.as_ref().map_or_else(|error| (error.outcome(), false), |_| ("success", true));
        shared.metrics.scrapes.with_label_values(&[name, outcome_name]).inc();
        shared.metrics.target_up.with_label_values(&[name]).set(i64::from(is_up));
        match outcome {
            Err(error) if was_up != Some(false) => {
                tracing::warn!(target_name = name, url = target.endpoint.shown, reason = %error, "scraping fails");
            }
            Ok(samples) if was_up != Some(true) => {
                tracing::info!(target_name = name, url = target.endpoint.shown, samples, "scraping works");
            }
            _ => {}
        }
        was_up = Some(is_up);
    }
}

/// One scrape; gives the number of samples. All of it is queued, or nothing.
async fn scrape(target: &Target, client: &reqwest::Client, shared: &Arc<Shared>) -> Result<u64, ScrapeError> {
    let now = shared.clock.now();
    let timer = shared.metrics.scrape_seconds.with_label_values(&[target.name()]).start_timer();
    let fetched = fetch::fetch(client, &target.endpoint, target.timeout, target.limits.request_bytes).await;
    timer.observe_duration();
    let (text, format) = fetched?;

    let limits = target.limits;
    let (context_of, node) = (Arc::clone(shared), target.additions.node.clone());
    let decode = move || {
        let node = node.as_deref().unwrap_or(&context_of.node);
        let context = Context { catalog: &context_of.catalog, limits: &limits, default_node: node, now };
        prometheus::decode(&text, format, &context).map_err(|error| match error.reason {
            Reason::TooManySamples => ScrapeError::TooManySamples(limits.samples_per_scrape),
            _ => ScrapeError::Malformed(error.to_string()),
        })
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    let decoded = decoded.map_err(|error| ScrapeError::Malformed(error.to_string()))??;
    count(target, shared, &decoded);
    let samples = decoded.tally.samples;
    let source = match format {
        airan_decode::TextFormat::OpenMetrics => "scrape/openmetrics",
        airan_decode::TextFormat::Prometheus004 => "scrape/prometheus",
    };
    for rows in decoded.rows {
        if &*rows.stream.name == "accelerator" {
            shared.accelerators_scraped.store(now, Ordering::Relaxed);
        }
        let rows = target.additions.add_to(rows).map_err(|error| ScrapeError::Malformed(error.to_string()))?;
        shared.enqueue(target.name(), source, rows);
    }
    Ok(samples)
}

fn count(target: &Target, shared: &Shared, decoded: &Decoded) {
    let tally = &decoded.tally;
    for (landed, samples) in [
        ("columns", tally.columns),
        ("sample", tally.sample_rows),
        ("sentinel", tally.sentinels),
        ("refused", tally.refused),
    ] {
        shared.metrics.scraped_samples.with_label_values(&[target.name(), landed]).inc_by(samples);
    }
    shared.metrics.dropped_fields.with_label_values(&[target.name()]).inc_by(tally.dropped_fields);
    shared.metrics.dropped_exemplars.with_label_values(&[target.name()]).inc_by(tally.exemplars);
}
