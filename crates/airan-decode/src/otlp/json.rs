//! A request in OTLP's JSON: protobuf's JSON mapping with lowerCamelCase names.
//!
//! 64-bit integers come as strings or numbers, enums as numbers or names, doubles also as `"NaN"` and `"Infinity"`; `null` is a
//! field that is not there, and fields nobody knows are skipped. Lists are read element by element from the text they stand in,
//! so that a short text cannot become a large tree.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use airan_model::reject::Reason;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use super::json_fields::{
    AnyValue, Double, ExponentialHistogramPoint, HistogramPoint, KeyValue, List, Metric, NumberPoint, QuantileValue,
    Request, Resource, ResourceMetrics, Scope, ScopeMetrics, SummaryDataPoint, Unsigned,
};
use super::nested::Nested;
use super::points::{ExponentialPoint, SummaryPoint};
use super::{Shape, Sink, Times};
use crate::DecodeError;
use crate::number::Number;

/// Reads an `ExportMetricsServiceRequest`.
pub(super) fn read<'b>(body: &'b [u8], sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
    let (reader, request) = Reader::of::<Request<'b>>(body, "metrics")?;
    reader.each(request.resource_metrics, |one| reader.resource_metrics(one, sink))
}

/// Line and column of an offset.
fn place(body: &[u8], offset: usize) -> String {
    let before = &body[..offset.min(body.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("line {line}, column {column}")
}

/// A body while it is read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'b> {
    text: &'b str,
    // For messages: `metrics` or `logs`.
    signal: &'static str,
}

impl<'b> Reader<'b> {
    /// The reader of a body, and its outermost message.
    pub(super) fn of<T: Deserialize<'b>>(body: &'b [u8], signal: &'static str) -> Result<(Reader<'b>, T), DecodeError> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let place = place(body, error.valid_up_to());
            DecodeError::at(Reason::Malformed, "text that is no UTF-8", place)
        })?;
        let reader = Reader { text, signal };
        let request = serde_json::from_str(text).map_err(|error| reader.fault(&error, text))?;
        Ok((reader, request))
    }

    /// An error in a part of the body, with its place in the whole. serde's own words may repeat what was sent, so they are not
    /// used.
    fn fault(self, error: &serde_json::Error, part: &str) -> DecodeError {
        let lines = part.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len);
        let within = lines.sum::<usize>() + error.column().saturating_sub(1);
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let what = match error.classify() {
            serde_json::error::Category::Eof => "the JSON ends too early",
            serde_json::error::Category::Data => "a field of another type than it must have",
            _ => "no JSON",
        };
        let what = format_args!("not an OTLP {} request: {what}", self.signal);
        DecodeError::at(Reason::Malformed, what, place(self.text.as_bytes(), start + within))
    }

    /// Reads a list element by element.
    pub(super) fn each<T: Deserialize<'b>>(
        self,
        list: List<'b>,
        mut with: impl FnMut(T) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let Some(list) = list else { return Ok(()) };
        let mut inner = None;
        let visitor =
            Elements { with: |element| with(element).map_err(|error| inner = Some(error)).is_ok(), of: PhantomData };
        let read = serde_json::Deserializer::from_str(list.get()).deserialize_any(visitor);
        match (inner, read) {
            (Some(error), _) => Err(error),
            (None, read) => read.map_err(|error| self.fault(&error, list.get())),
        }
    }

    fn resource_metrics(self, message: ResourceMetrics<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        self.resource(message.resource, sink)?;
        self.each(message.scope_metrics, |one| self.scope_metrics(one, sink))
    }

    fn scope_metrics(self, message: ScopeMetrics<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        self.scope(message.scope, sink)?;
        self.each(message.metrics, |metric| self.metric(metric, sink))
    }

    pub(super) fn resource(self, resource: Option<Resource<'b>>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.begin_resource();
        self.attributes(resource.and_then(|resource| resource.attributes), sink)?;
        sink.end_resource();
        Ok(())
    }

    pub(super) fn scope(self, scope: Option<Scope<'b>>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.begin_scope();
        let scope = scope.unwrap_or_default();
        self.attributes(scope.attributes, sink)?;
        sink.end_scope(scope.name.0, scope.version.0);
        Ok(())
    }

    fn metric(self, message: Metric<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        let name = message.name.0;
        if let Some(data) = message.gauge {
            sink.metric(name, Shape::Gauge);
            self.each(data.data_points, |point| self.number(point, sink))
        } else if let Some(data) = message.sum {
            let temporality = data.aggregation_temporality.0;
            sink.metric(name, Shape::Sum { temporality, is_monotonic: data.is_monotonic.unwrap_or(false) });
            self.each(data.data_points, |point| self.number(point, sink))
        } else if let Some(data) = message.histogram {
            sink.metric(name, Shape::Histogram { temporality: data.aggregation_temporality.0 });
            self.each(data.data_points, |point| self.histogram(point, sink))
        } else if let Some(data) = message.exponential_histogram {
            sink.metric(name, Shape::Histogram { temporality: data.aggregation_temporality.0 });
            self.each(data.data_points, |point| self.exponential(point, sink))
        } else if let Some(data) = message.summary {
            sink.metric(name, Shape::Summary);
            self.each(data.data_points, |point| self.summary(point, sink))
        } else {
            Ok(())
        }
    }

    fn number(self, point: NumberPoint<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.labels.clear();
        self.attributes(point.attributes, sink)?;
        self.exemplars(point.exemplars, sink)?;
        let value = point.as_double.map(|value| Number::Float(value.0));
        let value = value.or(point.as_int.map(|value| Number::Int(value.0)));
        let times = Times { start: point.start_time_unix_nano.0, time: point.time_unix_nano.0, flags: point.flags.0 };
        sink.number(times, value);
        Ok(())
    }

    fn histogram(self, point: HistogramPoint<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.labels.clear();
        self.attributes(point.attributes, sink)?;
        self.exemplars(point.exemplars, sink)?;
        sink.histogram.counts.clear();
        sink.histogram.bounds.clear();
        self.each(point.bucket_counts, |count: Unsigned| {
            sink.histogram.counts.push(i64::try_from(count.0).unwrap_or(-1));
            Ok(())
        })?;
        self.each(point.explicit_bounds, |bound: Double| {
            sink.histogram.bounds.push(bound.0);
            Ok(())
        })?;
        let times = Times { start: point.start_time_unix_nano.0, time: point.time_unix_nano.0, flags: point.flags.0 };
        sink.histogram(times, point.count.0, point.sum.map(|sum| sum.0));
        Ok(())
    }

    fn exponential(self, point: ExponentialHistogramPoint<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.labels.clear();
        self.attributes(point.attributes, sink)?;
        self.exemplars(point.exemplars, sink)?;
        let mut parts = ExponentialPoint {
            count: point.count.0,
            sum: point.sum.map(|sum| sum.0),
            scale: point.scale.map_or(0, |scale| scale.0),
            zero_count: point.zero_count.0,
            zero_threshold: point.zero_threshold.map_or(0.0, |threshold| threshold.0),
            ..ExponentialPoint::default()
        };
        for (sent, buckets) in [(point.positive, &mut parts.positive), (point.negative, &mut parts.negative)] {
            let Some(sent) = sent else { continue };
            buckets.offset = sent.offset.map_or(0, |offset| offset.0);
            self.each(sent.bucket_counts, |count: Unsigned| {
                buckets.push(count.0);
                Ok(())
            })?;
        }
        let times = Times { start: point.start_time_unix_nano.0, time: point.time_unix_nano.0, flags: point.flags.0 };
        sink.exponential(times, &parts);
        Ok(())
    }

    fn summary(self, point: SummaryDataPoint<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        sink.labels.clear();
        self.attributes(point.attributes, sink)?;
        let sum = point.sum.map_or(0.0, |sum| sum.0);
        let mut parts = SummaryPoint { count: point.count.0, sum, ..SummaryPoint::default() };
        self.each(point.quantile_values, |one: QuantileValue| {
            let value = |double: Option<Double>| double.map_or(0.0, |double| double.0);
            parts.quantiles.push((value(one.quantile), value(one.value)));
            Ok(())
        })?;
        let times = Times { start: point.start_time_unix_nano.0, time: point.time_unix_nano.0, flags: point.flags.0 };
        sink.summary(times, &parts);
        Ok(())
    }

    fn exemplars(self, list: List<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        self.each(list, |_: IgnoredAny| {
            sink.rows.exemplar();
            Ok(())
        })
    }

    fn attributes(self, list: List<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        self.each(list, |pair: KeyValue<'b>| self.attribute(pair, sink))
    }

    fn attribute(self, pair: KeyValue<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
        match pair.value {
            Some(value) => self.label(pair.key.0, value, sink),
            None => Ok(()),
        }
    }

    /// A label with an `AnyValue` for its value.
    pub(super) fn label(
        self,
        key: Cow<'b, str>,
        value: AnyValue<'b>,
        sink: &mut Sink<'_, 'b>,
    ) -> Result<(), DecodeError> {
        if value.array_value.is_some() || value.kvlist_value.is_some() {
            let (deepest, longest) = (sink.limits.depth, sink.limits.label_bytes);
            let mut nested = Nested::new(sink.rows.classes(), deepest, longest);
            let mut refused = None;
            self.nest(value, &mut nested, &mut refused)?;
            let (text, dropped) = nested.finish();
            sink.rows.dropped(dropped);
            match refused {
                None => sink.labels.push(key, Cow::Owned(text)),
                Some(reason) => sink.labels.fault(reason),
            }
        } else if let Some(text) = value.string_value.or(value.bytes_value) {
            sink.labels.push(key, text.0);
        } else if let Some(flag) = value.bool_value {
            sink.labels.push(key, Cow::Borrowed(if flag { "true" } else { "false" }));
        } else if let Some(number) = value.int_value {
            sink.labels.push(key, Cow::Owned(number.0.to_string()));
        } else if let Some(number) = value.double_value {
            sink.labels.push(key, Cow::Owned(number.0.to_string()));
        }
        Ok(())
    }

    /// Writes a nested value; what the sample is refused for goes to `refused`, and ends the writing.
    fn nest(
        self,
        value: AnyValue<'b>,
        nested: &mut Nested<'_, '_>,
        refused: &mut Option<Reason>,
    ) -> Result<(), DecodeError> {
        if refused.is_some() {
            return Ok(());
        }
        let mut check = |written: Result<(), Reason>| {
            if let Err(reason) = written {
                refused.get_or_insert(reason);
            }
        };
        if let Some(text) = value.string_value.or(value.bytes_value) {
            check(nested.string(&text.0));
        } else if let Some(flag) = value.bool_value {
            check(nested.plain(flag));
        } else if let Some(number) = value.int_value {
            check(nested.plain(number.0));
        } else if let Some(number) = value.double_value {
            check(match number.0 {
                number if number.is_finite() => nested.plain(number),
                number => nested.string(&number.to_string()),
            });
        } else if let Some(list) = value.array_value {
            check(nested.open('['));
            if refused.is_none() {
                self.each(list.values, |value: AnyValue<'b>| {
                    if refused.is_none() {
                        match nested.element() {
                            Ok(()) => self.nest(value, nested, refused)?,
                            Err(reason) => *refused = Some(reason),
                        }
                    }
                    Ok(())
                })?;
                *refused = refused.or(nested.close(']').err());
            }
        } else if let Some(map) = value.kvlist_value {
            check(nested.open('{'));
            if refused.is_none() {
                self.each(map.values, |pair: KeyValue<'b>| {
                    if refused.is_none() {
                        match nested.key(&pair.key.0) {
                            Ok(true) => self.nest(pair.value.unwrap_or_default(), nested, refused)?,
                            Ok(false) => {}
                            Err(reason) => *refused = Some(reason),
                        }
                    }
                    Ok(())
                })?;
                *refused = refused.or(nested.close('}').err());
            }
        } else {
            check(nested.plain("null"));
        }
        Ok(())
    }
}

/// Hands out a list's elements; `with` says whether to go on.
struct Elements<T, F> {
    with: F,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> bool> Visitor<'de> for Elements<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            if !(self.with)(element) {
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
