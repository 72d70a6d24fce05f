//! What the agent says about itself.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Bounds of the scrape duration, seconds: the default timeout is 10.
const SCRAPE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// Metrics of one agent. The sum of rows: collected = acknowledged + queued + dropped.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// Rows collected, by where they come from: `host`, `link`, `accelerator` or a target's name.
    pub collected_rows: IntCounterVec,
    /// Rows the gateway has acknowledged.
    pub acknowledged_rows: IntCounter,
    /// Rows dropped, by reason: `queue_full`, `expired`, `refused`, `shutdown`.
    pub dropped_rows: IntCounterVec,
    /// Rows that wait.
    pub queued_rows: IntGauge,
    /// Bytes that wait, as Arrow.
    pub queued_bytes: IntGauge,
    /// Runs of the agent's own collectors, by collector and outcome: `success` or `failure`.
    pub collections: IntCounterVec,
    /// 1 for what accelerators are read from: `nvml`, `nvidia-smi`, `rocm-smi`, `scraped` (a target reports them) or `none`.
    pub accelerator_source: IntGaugeVec,
    /// Accelerators at the last look, slices not counted.
    pub accelerator_devices: IntGauge,
    /// How long looks at the accelerators took that succeeded.
    pub accelerator_seconds: Histogram,
    /// Fields of accelerators whose text could not be read.
    pub accelerator_unread: IntCounter,
    /// XID errors that were not told as rows, because too many came between two looks.
    pub accelerator_events_dropped: IntCounter,
    /// Scrapes, by target and outcome: `success` or what went wrong.
    pub scrapes: IntCounterVec,
    /// 1 where the last scrape of a target succeeded.
    pub target_up: IntGaugeVec,
    /// How long scrapes took, by target.
    pub scrape_seconds: HistogramVec,
    /// Samples scraped, by target and where they landed: `columns`, `sample`, `sentinel` or `refused`.
    pub scraped_samples: IntCounterVec,
    /// Labels dropped because they name a subscriber, by target.
    pub dropped_fields: IntCounterVec,
    /// Exemplars left out by rule, by target: they name traces and may name subscribers.
    pub dropped_exemplars: IntCounterVec,
    /// Requests to the gateway, by outcome: `acknowledged`, `retry` or `refused`.
    pub uplink_requests: IntCounterVec,
    /// 1 where the last request to the gateway was answered.
    pub uplink_up: IntGauge,
}

/// Why rows were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The queue was full.
    QueueFull,
    /// They waited longer than the settings allow.
    Expired,
    /// The gateway will never take them.
    Refused,
    /// The agent was told to stop and could not send them in time.
    Shutdown,
}

impl Dropped {
    pub(crate) const ALL: [Dropped; 4] = [Dropped::QueueFull, Dropped::Expired, Dropped::Refused, Dropped::Shutdown];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Dropped::QueueFull => "queue_full",
            Dropped::Expired => "expired",
            Dropped::Refused => "refused",
            Dropped::Shutdown => "shutdown",
        }
    }
}

impl AgentMetrics {
    /// All at zero. Fails only if a name were no metric name.
    pub fn new() -> Result<AgentMetrics, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = HistogramOpts::new("airan_agent_scrape_duration_seconds", "How long scrapes took.")
            .buckets(SCRAPE_SECONDS.to_vec());
        let metrics = AgentMetrics {
            collected_rows: counters(
                "airan_agent_collected_rows_total",
                "Rows collected, by where they come from.",
                &["from"],
            )?,
            acknowledged_rows: IntCounter::new(
                "airan_agent_acknowledged_rows_total",
                "Rows the gateway has acknowledged.",
            )?,
            dropped_rows: counters("airan_agent_dropped_rows_total", "Rows dropped, by reason.", &["reason"])?,
            queued_rows: IntGauge::new("airan_agent_queued_rows", "Rows that wait for the gateway.")?,
            queued_bytes: IntGauge::new("airan_agent_queued_bytes", "Bytes that wait for the gateway.")?,
            collections: counters(
                "airan_agent_collections_total",
                "Runs of the agent's own collectors, by outcome.",
                &["collector", "outcome"],
            )?,
            accelerator_source: IntGaugeVec::new(
                Opts::new(
                    "airan_agent_accelerator_source",
                    "1 for what accelerators are read from: nvml, nvidia-smi, rocm-smi, scraped or none.",
                ),
                &["source"],
            )?,
            accelerator_devices: IntGauge::new(
                "airan_agent_accelerator_devices",
                "Accelerators at the last look, slices not counted.",
            )?,
            accelerator_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "airan_agent_accelerator_read_duration_seconds",
                    "How long looks at the accelerators took that succeeded.",
                )
                .buckets(SCRAPE_SECONDS.to_vec()),
            )?,
            accelerator_unread: IntCounter::new(
                "airan_agent_accelerator_unread_fields_total",
                "Fields of accelerators whose text could not be read.",
            )?,
            accelerator_events_dropped: IntCounter::new(
                "airan_agent_accelerator_dropped_events_total",
                "XID errors that were not told as rows, because too many came between two looks.",
            )?,
            scrapes: counters("airan_agent_scrapes_total", "Scrapes, by outcome.", &["target", "outcome"])?,
            target_up: IntGaugeVec::new(
                Opts::new("airan_agent_target_up", "1 where the last scrape of a target succeeded."),
                &["target"],
            )?,
            scrape_seconds: HistogramVec::new(seconds, &["target"])?,
            scraped_samples: counters(
                "airan_agent_scraped_samples_total",
                "Samples scraped, by where they landed: columns, sample, sentinel or refused.",
                &["target", "landed"],
            )?,
            dropped_fields: counters(
                "airan_agent_dropped_fields_total",
                "Labels dropped because they name a subscriber.",
                &["target"],
            )?,
            dropped_exemplars: counters(
                "airan_agent_dropped_exemplars_total",
                "Exemplars left out: they name traces and may name subscribers.",
                &["target"],
            )?,
            uplink_requests: counters(
                "airan_agent_uplink_requests_total",
                "Requests to the gateway, by outcome.",
                &["outcome"],
            )?,
            uplink_up: IntGauge::new("airan_agent_uplink_up", "1 where the last request to the gateway was answered.")?,
        };
        for reason in Dropped::ALL {
            metrics.dropped(reason).inc_by(0);
        }
        Ok(metrics)
    }

    /// Registers all of them.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.collected_rows.clone()))?;
        registry.register(Box::new(self.acknowledged_rows.clone()))?;
        registry.register(Box::new(self.dropped_rows.clone()))?;
        registry.register(Box::new(self.queued_rows.clone()))?;
        registry.register(Box::new(self.queued_bytes.clone()))?;
        registry.register(Box::new(self.collections.clone()))?;
        registry.register(Box::new(self.accelerator_source.clone()))?;
        registry.register(Box::new(self.accelerator_devices.clone()))?;
        registry.register(Box::new(self.accelerator_seconds.clone()))?;
        registry.register(Box::new(self.accelerator_unread.clone()))?;
        registry.register(Box::new(self.accelerator_events_dropped.clone()))?;
        registry.register(Box::new(self.scrapes.clone()))?;
        registry.register(Box::new(self.target_up.clone()))?;
        registry.register(Box::new(self.scrape_seconds.clone()))?;
        registry.register(Box::new(self.scraped_samples.clone()))?;
        registry.register(Box::new(self.dropped_fields.clone()))?;
        registry.register(Box::new(self.dropped_exemplars.clone()))?;
        registry.register(Box::new(self.uplink_requests.clone()))?;
        registry.register(Box::new(self.uplink_up.clone()))
    }

    pub(crate) fn dropped(&self, reason: Dropped) -> IntCounter {
        self.dropped_rows.with_label_values(&[reason.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_registered_once() {
        let registry = Registry::new();
        let metrics = AgentMetrics::new().unwrap();
        metrics.register(&registry).unwrap();
        assert!(metrics.register(&registry).is_err());
        assert!(registry.gather().iter().all(|family| family.name().starts_with("airan_agent_")));
    }
}
