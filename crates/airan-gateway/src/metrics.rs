//! What the gateway counts. The binary owns the registry.
//!
//! Of the sums in DESIGN section 10 this holds: per door, received = acknowledged + refused + unknown, counted in rows as the
//! door knows them (wide rows after decoding, plus points or lines refused on their own) and complete whenever no request is
//! under way.

use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::Door;

/// Nodes with an implausible clock that get a label of their own; the rest share `other`.
const NODES_MAX: usize = 1_000;

/// Rows of one door, by their end.
#[derive(Clone, Debug)]
pub struct DoorRows {
    /// Decoded, or refused on their own.
    pub received: IntCounter,
    /// Held by the bus.
    pub acknowledged: IntCounter,
    /// Not held by the bus, and the sender was told so.
    pub refused: IntCounter,
    /// Perhaps held by the bus; the sender was told to send them again.
    pub unknown: IntCounter,
}

/// The gateway's metrics.
#[derive(Debug)]
pub struct GatewayMetrics {
    rows: Vec<DoorRows>,
    /// `airan_gateway_rows_total{door, outcome}`: rows by door; outcome is received, which is all of them, or how they ended:
    /// acknowledged, refused or unknown.
    pub rows_total: IntCounterVec,
    /// `airan_gateway_requests_total{door, status}`: answers by door and HTTP status (gRPC status for `otlp_grpc`).
    pub requests: IntCounterVec,
    /// `airan_gateway_received_bytes_total{door}`: bodies as sent.
    pub wire_bytes: IntCounterVec,
    /// `airan_gateway_decompressed_bytes_total{door}`: bodies after decompression.
    pub body_bytes: IntCounterVec,
    /// `airan_gateway_samples_total{door, landed}`: samples by where they landed: in columns of known streams, as rows of
    /// `sample`, as a sentinel (a value that says that there is none) or refused on their own. A sample is a point or log record of
    /// OTLP, a line of NDJSON, a row of Arrow.
    pub samples: IntCounterVec,
    /// `airan_gateway_in_flight_requests`: requests under way.
    pub in_flight_requests: IntGauge,
    /// `airan_gateway_in_flight_bytes`: bodies under way.
    pub in_flight_bytes: IntGauge,
    /// `airan_gateway_connections{listener}`: open connections; `http` carries several doors, `grpc` one.
    pub connections: IntGaugeVec,
    /// `airan_gateway_gather_waiting_bytes`: rows in memory that wait for the bus.
    pub waiting_bytes: IntGauge,
    /// `airan_gateway_messages_total{outcome}`: messages handed to the bus; outcome is acknowledged, refused or unknown.
    pub messages: IntCounterVec,
    /// `airan_gateway_message_bytes_total`: payloads handed to the bus.
    pub message_bytes: IntCounter,
    /// `airan_gateway_rejected_total{door, reason}`: malformed requests, and points or lines refused on their own.
    pub rejected: IntCounterVec,
    /// `airan_gateway_rejected_unrecorded_total`: rejections that could not be written to the rejected topic.
    pub rejected_unrecorded: IntCounter,
    /// `airan_gateway_implausible_rows_total{node}`: rows whose time was replaced by the time they were received.
    pub implausible: IntCounterVec,
    implausible_nodes: Mutex<Vec<Box<str>>>,
    /// `airan_gateway_dropped_fields_total{door}`: fields that name a subscriber, dropped.
    pub dropped_fields: IntCounterVec,
    /// `airan_gateway_dropped_exemplars_total{door}`: exemplars left out by rule: they name traces and may name subscribers.
    pub dropped_exemplars: IntCounterVec,
    /// `airan_gateway_dropped_bodies_total{door}`: bodies of events left out by rule, whole or but for the fields that the catalog
    /// names.
    pub dropped_bodies: IntCounterVec,
    /// `airan_gateway_unassigned_rows_total`: rows of nodes the inventory does not know.
    pub unassigned_rows: IntCounter,
    /// `airan_gateway_unassigned_nodes`: nodes the inventory does not know, as remembered.
    pub unassigned_nodes: IntGauge,
    /// `airan_gateway_unassigned_forgotten_total`: rows of unknown nodes beyond what is remembered by name.
    pub unassigned_forgotten: IntCounter,
    /// `airan_gateway_ack_seconds`: from a whole request to the bus's acknowledgement of all its rows.
    pub ack_seconds: Histogram,
    /// `airan_gateway_ticks_total{outcome}`: ticks written or failed.
    pub ticks: IntCounterVec,
    /// `airan_gateway_kafka_messages_total{topic, outcome}`: messages of others' topics by their end: acknowledged, or refused for
    /// good; and `retried`, once for each attempt that the bus did not take.
    pub kafka_messages: IntCounterVec,
    /// `airan_gateway_kafka_lost_messages_total{topic}`: messages that went from a topic before they were read.
    pub kafka_lost: IntCounterVec,
    /// `airan_gateway_kafka_lag_messages{topic, partition}`: messages of others' topics that have not met their end, up to the
    /// partition's end as it was within the last seconds; of partitions that this gateway reads. Where producers use transactions
    /// their marks are counted too.
    pub kafka_lag: IntGaugeVec,
    /// `airan_gateway_kafka_paused{topic}`: 1 while a topic is not read because rows are not taken.
    pub kafka_paused: IntGaugeVec,
}

impl GatewayMetrics {
    /// Fresh metrics, not registered anywhere. Errs only if a name is not a metric name.
    pub fn new() -> Result<GatewayMetrics, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounter::new(format!("airan_gateway_{name}"), help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("airan_gateway_{name}"), help), labels)
        };
        let gauge = |name: &str, help: &str| IntGauge::new(format!("airan_gateway_{name}"), help);
        let rows_total = counters(
            "rows_total",
            "Rows by door and outcome. received is all of them, and the sum of acknowledged, refused and unknown: a sum over \
             every outcome counts each row twice.",
            &["door", "outcome"],
        )?;
        let rows = Door::ALL
            .iter()
            .map(|door| {
                let of = |outcome: &str| rows_total.with_label_values(&[door.as_str(), outcome]);
                DoorRows {
                    received: of("received"),
                    acknowledged: of("acknowledged"),
                    refused: of("refused"),
                    unknown: of("unknown"),
                }
            })
            .collect();
        Ok(GatewayMetrics {
            rows,
            rows_total,
            requests: counters("requests_total", "Answers by door and status.", &["door", "status"])?,
            wire_bytes: counters("received_bytes_total", "Bytes of bodies as sent.", &["door"])?,
            body_bytes: counters("decompressed_bytes_total", "Bytes of bodies after decompression.", &["door"])?,
            samples: counters(
                "samples_total",
                "Points, lines or rows read at the doors, by where they landed: columns, sample, sentinel or refused.",
                &["door", "landed"],
            )?,
            in_flight_requests: gauge("in_flight_requests", "Requests under way.")?,
            in_flight_bytes: gauge("in_flight_bytes", "Bytes of bodies under way, after decompression.")?,
            connections: IntGaugeVec::new(
                Opts::new("airan_gateway_connections", "Open connections by listener."),
                &["listener"],
            )?,
            waiting_bytes: gauge("gather_waiting_bytes", "Bytes of rows that wait for the bus's acknowledgement.")?,
            messages: counters("messages_total", "Messages handed to the bus, by outcome.", &["outcome"])?,
            message_bytes: counter("message_bytes_total", "Bytes of messages handed to the bus.")?,
            rejected: counters(
                "rejected_total",
                "Malformed requests, and points or lines refused on their own, by door and reason.",
                &["door", "reason"],
            )?,
            rejected_unrecorded: counter(
                "rejected_unrecorded_total",
                "Rejections that could not be written to the rejected topic.",
            )?,
            implausible: counters(
                "implausible_rows_total",
                "Rows whose time was replaced by the time of reception, by node.",
                &["node"],
            )?,
            implausible_nodes: Mutex::new(Vec::new()),
            dropped_fields: counters(
                "dropped_fields_total",
                "Fields naming a subscriber that were dropped.",
                &["door"],
            )?,
            dropped_exemplars: counters(
                "dropped_exemplars_total",
                "Exemplars left out: they name traces and may name subscribers.",
                &["door"],
            )?,
            dropped_bodies: counters(
                "dropped_bodies_total",
                "Bodies of events left out, whole or but for the fields that the catalog names.",
                &["door"],
            )?,
            unassigned_rows: counter("unassigned_rows_total", "Rows of nodes that the inventory does not know.")?,
            unassigned_nodes: gauge("unassigned_nodes", "Nodes that the inventory does not know.")?,
            unassigned_forgotten: counter(
                "unassigned_forgotten_total",
                "Rows of nodes that the inventory does not know, beyond those remembered by name.",
            )?,
            ack_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "airan_gateway_ack_seconds",
                    "Seconds from a whole request to the bus's acknowledgement of all its rows.",
                )
                .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            )?,
            ticks: counters("ticks_total", "Ticks by outcome: written or failed.", &["outcome"])?,
            kafka_messages: counters(
                "kafka_messages_total",
                "Messages of others' Kafka topics by outcome: acknowledged, refused, or retried for each attempt in vain.",
                &["topic", "outcome"],
            )?,
            kafka_lost: counters(
                "kafka_lost_messages_total",
                "Messages that went from others' Kafka topics before they were read.",
                &["topic"],
            )?,
            kafka_lag: IntGaugeVec::new(
                Opts::new(
                    "airan_gateway_kafka_lag_messages",
                    "Messages of others' Kafka topics that are in a partition and have not met their end.",
                ),
                &["topic", "partition"],
            )?,
            kafka_paused: IntGaugeVec::new(
                Opts::new(
                    "airan_gateway_kafka_paused",
                    "1 while a Kafka topic of others is not read because its rows are not taken.",
                ),
                &["topic"],
            )?,
        })
    }

    /// Adds every metric to a registry. Errs if one of the names is taken.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 26] = [
            Box::new(self.rows_total.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.wire_bytes.clone()),
            Box::new(self.body_bytes.clone()),
            Box::new(self.samples.clone()),
            Box::new(self.in_flight_requests.clone()),
            Box::new(self.in_flight_bytes.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.waiting_bytes.clone()),
            Box::new(self.messages.clone()),
            Box::new(self.message_bytes.clone()),
            Box::new(self.rejected.clone()),
            Box::new(self.rejected_unrecorded.clone()),
            Box::new(self.implausible.clone()),
            Box::new(self.dropped_fields.clone()),
            Box::new(self.dropped_exemplars.clone()),
            Box::new(self.dropped_bodies.clone()),
            Box::new(self.unassigned_rows.clone()),
            Box::new(self.unassigned_nodes.clone()),
            Box::new(self.unassigned_forgotten.clone()),
            Box::new(self.ack_seconds.clone()),
            Box::new(self.ticks.clone()),
            Box::new(self.kafka_messages.clone()),
            Box::new(self.kafka_lost.clone()),
            Box::new(self.kafka_lag.clone()),
            Box::new(self.kafka_paused.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }

    /// The rows of one door.
    pub fn rows(&self, door: Door) -> &DoorRows {
        &self.rows[door as usize]
    }

    /// Counts rows of `node` whose time was replaced. The label's values are bounded.
    pub fn count_implausible(&self, node: &str, rows: u64) {
        let mut known = self.implausible_nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let label = match known.binary_search_by(|have| have.as_ref().cmp(node)) {
            Ok(_) => node,
            Err(place) if known.len() < NODES_MAX => {
                known.insert(place, node.into());
                node
            }
            Err(_) => "other",
        };
        self.implausible.with_label_values(&[label]).inc_by(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every metric is registered, and a second gateway in the same registry.
    /// Guarantees: names are valid and taken once.
    #[test]
    fn metrics_register_once() {
        let registry = Registry::new();
        let metrics = GatewayMetrics::new().unwrap();
        metrics.register(&registry).unwrap();
        metrics.rows(Door::Ndjson).received.inc();
        assert!(registry.gather().iter().any(|family| family.name() == "airan_gateway_rows_total"));
        assert!(GatewayMetrics::new().unwrap().register(&registry).is_err());
    }

    /// Scenario: more nodes with a wrong clock than there are labels.
    /// Guarantees: the label's values stay bounded and no row goes uncounted.
    #[test]
    fn the_nodes_with_a_wrong_clock_are_bounded() {
        let metrics = GatewayMetrics::new().unwrap();
        for node in 0..NODES_MAX + 50 {
            metrics.count_implausible(&format!("node-{node}"), 2);
        }
        assert_eq!(metrics.implausible.with_label_values(&["other"]).get(), 100);
        assert_eq!(metrics.implausible.with_label_values(&["node-0"]).get(), 2);
    }
}
