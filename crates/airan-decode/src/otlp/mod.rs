//! OTLP, protobuf and JSON (opentelemetry.io, "OTLP specification", `metrics.proto` and `logs.proto`): metrics, and of logs the
//! events ([`logs`]).
//!
//! All kinds of metrics are taken; points that contradict themselves are refused one by one. Exemplars are counted
//! and left out, for they name traces and may name subscribers; a histogram's `min` and `max` are not read.
//! Both encodings are read as a stream, point by point: a request is never held in memory a second time.
//!
//! | a point of | lands as |
//! | --- | --- |
//! | gauge, or sum that is not monotonic | gauge |
//! | monotonic sum, cumulative | counter, `start_ts` from the point |
//! | monotonic sum, delta | the counter's `_increase` and `_increase_seconds` |
//! | sum that is not monotonic, delta | `sample`: it is a change, and no column holds changes of gauges |
//! | histogram | histogram column, or its `_increase` |
//! | exponential histogram | the same, with the bounds of its scale |
//! | summary | `name{quantile="…"}`, `name_sum`, `name_count`, each a sample |

mod json;
mod json_fields;
mod logs;
mod nested;
mod points;
mod protobuf;

use std::borrow::Cow;

use airan_model::limits::Limits;
use airan_model::reject::Reason;
use airan_model::time::Micros;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use crate::histogram::Histogram;
use crate::labels::{Label, LabelBuffer, words};
use crate::number::Number;
use crate::refusals::shown;
use crate::rows::{MetricKind, Point, Rows};
use crate::{Context, DecodeError, Decoded};
use logs::Events;
pub use logs::{decode_logs_json, decode_logs_protobuf};

/// Attributes of a resource that name its node, the first there is.
const NODE: [&str; 3] = ["host.name", "k8s.node.name", "host.id"];
/// `DataPointFlags`: the point says that there is no value.
const NO_RECORDED_VALUE: u64 = 1;
/// Labels of `sample` rows that say which instrumentation scope they came from.
const SCOPE_NAME: &str = "otel.scope.name";
const SCOPE_VERSION: &str = "otel.scope.version";

/// Reads an `ExportMetricsServiceRequest` in protobuf.
///
/// # Errors
/// If the bytes are no such message. What is wrong with single points is in [`Decoded::refused`].
pub fn decode_protobuf(body: &[u8], context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let mut sink = Sink::new(context);
    protobuf::read(body, &mut sink)?;
    sink.rows.finish()
}

/// Reads an `ExportMetricsServiceRequest` in OTLP's JSON.
///
/// # Errors
/// If the text is no such message, with line and column.
pub fn decode_json(body: &[u8], context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let mut sink = Sink::new(context);
    json::read(body, &mut sink)?;
    sink.rows.finish()
}

/// Reads a request that is decoded already, by way of its bytes: a door that has these calls [`decode_protobuf`].
///
/// # Errors
/// None for a request that holds what its types say.
pub fn decode_request(request: &ExportMetricsServiceRequest, context: &Context<'_>) -> Result<Decoded, DecodeError> {
    decode_protobuf(&request.encode_to_vec(), context)
}

/// `AggregationTemporality`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Temporality {
    #[default]
    Unspecified,
    Delta,
    Cumulative,
}

impl Temporality {
    fn from_number(number: i64) -> Temporality {
        match number {
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            _ => Temporality::Unspecified,
        }
    }
}

/// What a metric's points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Gauge,
    Sum { temporality: Temporality, is_monotonic: bool },
    Histogram { temporality: Temporality },
    Summary,
}

/// A point's times and flags.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    start: u64,
    time: u64,
    flags: u64,
}

/// Takes a request's points, from either encoding, in order: resource, scope, metric, the attributes of a point, the point; of logs a
/// record's attributes, then the record.
struct Sink<'a, 'b> {
    rows: Rows<'a>,
    limits: Limits,
    // Labels of the resource, then of the scope.
    shared: Vec<Label<'b>>,
    of_resource: usize,
    // Why samples with these shared labels are refused.
    resource_fault: Option<Reason>,
    shared_fault: Option<Reason>,
    // The resource's label that names the node.
    node: Option<usize>,
    // Attributes of what is being read: a resource, a scope or a point.
    labels: LabelBuffer<'b>,
    name: Cow<'b, str>,
    is_delta: bool,
    metric_fault: Option<(Reason, &'static str)>,
    // For the histogram at hand.
    histogram: Histogram,
    events: Events<'a>,
}

impl<'a, 'b> Sink<'a, 'b> {
    fn new(context: &Context<'a>) -> Sink<'a, 'b> {
        Sink {
            rows: Rows::new(context),
            limits: *context.limits,
            shared: Vec::new(),
            of_resource: 0,
            resource_fault: None,
            shared_fault: None,
            node: None,
            labels: LabelBuffer::new(context.limits, 0),
            name: Cow::Borrowed(""),
            is_delta: false,
            metric_fault: None,
            histogram: Histogram::default(),
            events: Events::new(context.catalog),
        }
    }

    /// The attributes read next are a resource's.
    fn begin_resource(&mut self) {
        self.shared.clear();
        self.labels = LabelBuffer::new(&self.limits, 0);
    }

    fn end_resource(&mut self) {
        let read = self.labels.take();
        self.resource_fault = read.as_ref().err().copied();
        self.shared = read.unwrap_or_default();
        self.of_resource = self.shared.len();
        self.node = NODE.iter().find_map(|name| self.shared.iter().position(|label| label.name == *name));
        self.end_scope_of(Vec::new(), None);
    }

    /// The attributes read next are a scope's.
    fn begin_scope(&mut self) {
        self.shared.truncate(self.of_resource);
        self.labels = LabelBuffer::new(&self.limits, self.of_resource);
    }

    fn end_scope(&mut self, name: Cow<'b, str>, version: Cow<'b, str>) {
        self.labels.push(Cow::Borrowed(SCOPE_NAME), name);
        self.labels.push(Cow::Borrowed(SCOPE_VERSION), version);
        match self.labels.take() {
            Ok(labels) => self.end_scope_of(labels, None),
            Err(reason) => self.end_scope_of(Vec::new(), Some(reason)),
        }
    }

    fn end_scope_of(&mut self, labels: Vec<Label<'b>>, fault: Option<Reason>) {
        let scope = labels.len();
        self.shared.extend(labels);
        self.shared_fault = self.resource_fault.or(fault);
        self.labels = LabelBuffer::new(&self.limits, self.shared.len());
        self.rows.share(scope);
    }

    /// The points that follow are of this metric.
    fn metric(&mut self, name: Cow<'b, str>, shape: Shape) {
        let kind = match shape {
            Shape::Gauge | Shape::Sum { is_monotonic: false, .. } => MetricKind::Gauge,
            Shape::Sum { is_monotonic: true, .. } => MetricKind::Counter,
            Shape::Histogram { .. } => MetricKind::Histogram,
            Shape::Summary => MetricKind::Summary,
        };
        let temporality = match shape {
            Shape::Gauge
            | Shape::Summary
            | Shape::Sum { temporality: Temporality::Unspecified, is_monotonic: false } => Temporality::Cumulative,
            Shape::Sum { temporality, .. } | Shape::Histogram { temporality } => temporality,
        };
        self.is_delta = temporality == Temporality::Delta;
        self.metric_fault = if name.is_empty() {
            Some((Reason::Malformed, "a metric without a name"))
        } else if name.len() > self.limits.label_bytes {
            Some((Reason::LabelTooLong, "the name is too long"))
        } else if temporality == Temporality::Unspecified {
            Some((Reason::Malformed, "no aggregation temporality"))
        } else {
            None
        };
        self.rows.metric(&name, kind);
        self.name = name;
    }

    /// A point of the metric, whose attributes have been read.
    fn number(&mut self, times: Times, value: Option<Number<'_>>) {
        let is_empty = times.flags & NO_RECORDED_VALUE != 0;
        match (self.fault(), value) {
            (Some((reason, what)), _) => self.refuse(reason, what),
            (None, None) if !is_empty => self.refuse(Reason::Malformed, "a point without a value"),
            (None, value) => {
                let point = point(&self.labels, &self.shared, self.node, self.is_delta, times);
                match value.filter(|_| !is_empty) {
                    Some(value) => self.rows.number(&point, value),
                    None => self.rows.sentinel(&point),
                }
            }
        }
    }

    /// A histogram point, whose attributes have been read and whose bounds and counts are in `self.histogram`.
    fn histogram(&mut self, times: Times, count: u64, sum: Option<f64>) {
        if let Some((reason, what)) = self.fault() {
            return self.refuse(reason, what);
        }
        if times.flags & NO_RECORDED_VALUE != 0 {
            let point = point(&self.labels, &self.shared, self.node, self.is_delta, times);
            return self.rows.sentinel(&point);
        }
        let histogram = &mut self.histogram;
        histogram.sum = sum.filter(|sum| sum.is_finite());
        // The largest count is no number of events: its check fails.
        histogram.count = i64::try_from(count).unwrap_or(-1);
        if histogram.counts.is_empty() && histogram.bounds.is_empty() {
            histogram.counts.push(histogram.count);
        }
        if let Err(what) = histogram.check() {
            return self.refuse(Reason::Malformed, what);
        }
        let point = point(&self.labels, &self.shared, self.node, self.is_delta, times);
        self.rows.histogram(&point, &self.histogram, 1);
    }

    /// Why the point whose attributes have been read is refused.
    fn fault(&self) -> Option<(Reason, &'static str)> {
        let of_labels = || self.labels.get().err().or(self.shared_fault).map(|reason| (reason, words(reason)));
        self.metric_fault.or_else(of_labels)
    }

    fn refuse(&mut self, reason: Reason, what: &'static str) {
        let (point, name) = (self.rows.count() + 1, &self.name);
        self.rows.refuse(reason, 1, || format!("{what}: {} (point {point})", shown(name)));
    }
}

/// A point without its value. Its parts are given apart, because the rows that take it are lent at the same time.
fn point<'s>(
    labels: &'s LabelBuffer<'s>,
    shared: &'s [Label<'s>],
    node: Option<usize>,
    is_delta: bool,
    times: Times,
) -> Point<'s> {
    Point {
        labels: labels.kept(),
        shared,
        node: node.map(|at| &*shared[at].value),
        ts: micros(times.time),
        start: micros(times.start),
        is_delta,
    }
}

/// Nanoseconds since 1970, 0 for none.
fn micros(nanos: u64) -> Option<Micros> {
    (nanos > 0).then_some((nanos / 1_000) as Micros)
}

#[cfg(test)]
#[path = "../otlp_tests.rs"]
mod tests;
