//! What the bus counts, as metrics of this process. The bus crate keeps plain numbers; they are read at each scrape.

use std::sync::Arc;

use airan_bus::{Bus, Counts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// `airan_bus_*`, read from the bus at each scrape.
pub struct BusMetrics {
    bus: Arc<dyn Bus>,
    desc: Vec<Desc>,
}

/// The metrics of one reading.
struct Reading {
    messages: IntCounterVec,
    sent_bytes: IntCounter,
    received: IntCounter,
    damaged: IntCounter,
    syncs: IntCounter,
    waiting: IntGauge,
    stored_bytes: IntGauge,
}

impl BusMetrics {
    /// Registers the metrics of a bus.
    pub fn register(registry: &Registry, bus: Arc<dyn Bus>) -> Result<(), prometheus::Error> {
        let desc = Reading::new(&Counts::default())?.parts().iter().flat_map(|part| part.desc()).cloned().collect();
        registry.register(Box::new(BusMetrics { bus, desc }))
    }
}

impl Reading {
    fn new(counts: &Counts) -> Result<Reading, prometheus::Error> {
        let counter = |name: &str, help: &str, value: u64| {
            let counter = IntCounter::new(format!("airan_bus_{name}"), help)?;
            counter.inc_by(value);
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, value: u64| {
            let gauge = IntGauge::new(format!("airan_bus_{name}"), help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            Ok::<_, prometheus::Error>(gauge)
        };
        let messages = IntCounterVec::new(
            Opts::new(
                "airan_bus_messages_total",
                "Messages handed to the bus, by outcome: acknowledged, unavailable, full, too_large or unknown.",
            ),
            &["outcome"],
        )?;
        for (outcome, count) in [
            ("acknowledged", counts.sent),
            ("unavailable", counts.unavailable),
            ("full", counts.full),
            ("too_large", counts.too_large),
            ("unknown", counts.unknown),
        ] {
            messages.with_label_values(&[outcome]).inc_by(count);
        }
        Ok(Reading {
            messages,
            sent_bytes: counter("sent_bytes_total", "Bytes of acknowledged messages.", counts.sent_bytes)?,
            received: counter("received_messages_total", "Messages given to the consumer.", counts.received)?,
            damaged: counter(
                "damaged_records_total",
                "Records of the local log that were damaged on disk and left out.",
                counts.damaged,
            )?,
            syncs: counter("syncs_total", "Times the local log waited for its disk.", counts.syncs)?,
            waiting: gauge("waiting_messages", "Messages sent and not yet acknowledged.", counts.waiting)?,
            stored_bytes: gauge("stored_bytes", "Bytes the local log takes up.", counts.stored_bytes)?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.messages,
            &self.sent_bytes,
            &self.received,
            &self.damaged,
            &self.syncs,
            &self.waiting,
            &self.stored_bytes,
        ]
    }
}

impl Collector for BusMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The names were good when they were registered.
        let reading = Reading::new(&self.bus.counts());
        reading.map_or_else(|_| Vec::new(), |reading| reading.parts().iter().flat_map(|part| part.collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use airan_model::message::Message;
    use airan_model::time::Clock;

    use super::*;
    use crate::config::{self, Mode};

    /// Scenario: messages through a local log.
    /// Guarantees: each count of the bus is exported, and moves.
    #[tokio::test]
    async fn the_bus_counts_are_exported() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::load(None, Mode::Up, Some(folder.path())).map_err(|e| e.to_string()).unwrap().config;
        let bus = airan_bus::open(&config.bus, Clock::system()).await.unwrap();
        let registry = Registry::new();
        BusMetrics::register(&registry, Arc::clone(&bus)).unwrap();
        let sent = || {
            let families = registry.gather();
            let messages = families.iter().find(|family| family.name() == "airan_bus_messages_total").unwrap();
            let is_acknowledged = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == "acknowledged";
            let metric = messages.get_metric().iter().find(is_acknowledged).unwrap();
            (
                metric.get_counter().get_value(),
                families.len(),
                families.iter().all(|f| f.name().starts_with("airan_bus_")),
            )
        };
        assert_eq!(sent(), (0.0, 7, true));
        for _ in 0..3 {
            bus.send(0, Message::Tick).await.unwrap();
        }
        assert_eq!(sent(), (3.0, 7, true));
    }
}
