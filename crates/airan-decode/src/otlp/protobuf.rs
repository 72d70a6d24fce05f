//! A request's bytes, read message by message.
//!
//! Fields may come in any order and singular messages in several pieces, so what a message needs first (a resource's attributes,
//! a metric's name, a sum's temporality) is looked up before its points are read. Field numbers are those of `metrics.proto`.

use std::borrow::Cow;

use airan_model::reject::Reason;

use super::nested::{Nested, base64};
use super::points::{Buckets, ExponentialPoint, SummaryPoint};
use super::{Shape, Sink, Temporality, Times};
use crate::DecodeError;
use crate::number::Number;
use crate::wire::{Fault, Message, Value, zigzag};

/// Reads what one scope has of: a metric, a log record.
pub(super) type Item<'a, 'b> = fn(Message<'b>, &mut Sink<'a, 'b>) -> Result<(), Fault>;

/// Reads an `ExportMetricsServiceRequest`.
pub(super) fn read<'b>(body: &'b [u8], sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
    walk(body, sink, "metrics", metric)
}

/// Reads a request of either signal: its resources and scopes have the same fields.
pub(super) fn walk<'a, 'b>(
    body: &'b [u8],
    sink: &mut Sink<'a, 'b>,
    signal: &str,
    item: Item<'a, 'b>,
) -> Result<(), DecodeError> {
    let read = Message::of(body).each(|field| match field {
        (1, Value::Bytes(message)) => of_resource(message, sink, item),
        _ => Ok(()),
    });
    read.map_err(|fault: Fault| {
        let what = format_args!("not an OTLP {signal} request: {}", fault.what);
        DecodeError::at(Reason::Malformed, what, format!("offset {}", fault.offset(body)))
    })
}

/// `ResourceMetrics`, `ResourceLogs`.
fn of_resource<'a, 'b>(message: Message<'b>, sink: &mut Sink<'a, 'b>, item: Item<'a, 'b>) -> Result<(), Fault> {
    sink.begin_resource();
    message.each(|field| match field {
        (1, Value::Bytes(resource)) => attributes(resource, 1, sink),
        _ => Ok(()),
    })?;
    sink.end_resource();
    message.each(|field| match field {
        (2, Value::Bytes(scope)) => of_scope(scope, sink, item),
        _ => Ok(()),
    })
}

/// `ScopeMetrics`, `ScopeLogs`.
fn of_scope<'a, 'b>(message: Message<'b>, sink: &mut Sink<'a, 'b>, item: Item<'a, 'b>) -> Result<(), Fault> {
    sink.begin_scope();
    let (mut name, mut version) = ("", "");
    message.each::<Fault>(|field| match field {
        (1, Value::Bytes(scope)) => {
            scope.each::<Fault>(|field| {
                match field {
                    (1, Value::Bytes(text)) => name = text.text()?,
                    (2, Value::Bytes(text)) => version = text.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            attributes(scope, 3, sink)
        }
        _ => Ok(()),
    })?;
    sink.end_scope(Cow::Borrowed(name), Cow::Borrowed(version));
    message.each(|field| match field {
        (2, Value::Bytes(one)) => item(one, sink),
        _ => Ok(()),
    })
}

fn metric<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    let (mut name, mut kind) = ("", None);
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Bytes(text)) => name = text.text()?,
            // Of several kinds the last counts, as for any `oneof`.
            (number @ (5 | 7 | 9 | 10 | 11), Value::Bytes(_)) => kind = Some(number),
            _ => {}
        }
        Ok(())
    })?;
    message.each(|field| match field {
        (number, Value::Bytes(data)) if Some(number) == kind => match number {
            5 => numbers(data, name, Shape::Gauge, sink),
            7 => {
                let (temporality, is_monotonic) = sum(data)?;
                numbers(data, name, Shape::Sum { temporality, is_monotonic }, sink)
            }
            9 => histograms(data, name, sink),
            10 => exponentials(data, name, sink),
            _ => {
                sink.metric(Cow::Borrowed(name), Shape::Summary);
                data.each(|field| match field {
                    (1, Value::Bytes(point)) => summary(point, sink),
                    _ => Ok(()),
                })
            }
        },
        _ => Ok(()),
    })
}

/// A sum's temporality and whether it is monotonic; of a histogram, only the former means anything.
fn sum(message: Message<'_>) -> Result<(Temporality, bool), Fault> {
    let (mut temporality, mut is_monotonic) = (Temporality::Unspecified, false);
    message.each::<Fault>(|field| {
        match field {
            (2, Value::Varint(number)) => temporality = Temporality::from_number(number as i64),
            (3, Value::Varint(flag)) => is_monotonic = flag != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok((temporality, is_monotonic))
}

fn numbers<'b>(message: Message<'b>, name: &'b str, shape: Shape, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.metric(Cow::Borrowed(name), shape);
    message.each(|field| match field {
        (1, Value::Bytes(point)) => number(point, sink),
        _ => Ok(()),
    })
}

/// `NumberDataPoint`.
fn number<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.labels.clear();
    let mut times = Times::default();
    let mut value = None;
    message.each::<Fault>(|field| {
        match field {
            (2, Value::Fixed64(nanos)) => times.start = nanos,
            (3, Value::Fixed64(nanos)) => times.time = nanos,
            (4, Value::Fixed64(bits)) => value = Some(Number::Float(f64::from_bits(bits))),
            (5, Value::Bytes(_exemplar)) => sink.rows.exemplar(),
            (6, Value::Fixed64(bits)) => value = Some(Number::Int(bits as i64)),
            (7, Value::Bytes(pair)) => attribute(pair, sink)?,
            (8, Value::Varint(flags)) => times.flags = flags,
            _ => {}
        }
        Ok(())
    })?;
    sink.number(times, value);
    Ok(())
}

fn histograms<'b>(message: Message<'b>, name: &'b str, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    let (temporality, _) = sum(message)?;
    sink.metric(Cow::Borrowed(name), Shape::Histogram { temporality });
    message.each(|field| match field {
        (1, Value::Bytes(point)) => histogram(point, sink),
        _ => Ok(()),
    })
}

/// `HistogramDataPoint`.
fn histogram<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.labels.clear();
    sink.histogram.bounds.clear();
    sink.histogram.counts.clear();
    let mut times = Times::default();
    let (mut count, mut sum) = (0, None);
    // A count above i64 is none: the histogram's check refuses what is negative.
    let counted = |count: u64| i64::try_from(count).unwrap_or(-1);
    message.each::<Fault>(|field| {
        match field {
            (2, Value::Fixed64(nanos)) => times.start = nanos,
            (3, Value::Fixed64(nanos)) => times.time = nanos,
            (4, Value::Fixed64(number)) => count = number,
            (5, Value::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
            (6, Value::Fixed64(number)) => sink.histogram.counts.push(counted(number)),
            (6, Value::Bytes(packed)) => sink.histogram.counts.extend(packed.packed()?.map(counted)),
            (7, Value::Fixed64(bits)) => sink.histogram.bounds.push(f64::from_bits(bits)),
            (7, Value::Bytes(packed)) => sink.histogram.bounds.extend(packed.packed()?.map(f64::from_bits)),
            (8, Value::Bytes(_exemplar)) => sink.rows.exemplar(),
            (9, Value::Bytes(pair)) => attribute(pair, sink)?,
            (10, Value::Varint(flags)) => times.flags = flags,
            _ => {}
        }
        Ok(())
    })?;
    sink.histogram(times, count, sum);
    Ok(())
}

fn exponentials<'b>(message: Message<'b>, name: &'b str, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    let (temporality, _) = sum(message)?;
    sink.metric(Cow::Borrowed(name), Shape::Histogram { temporality });
    message.each(|field| match field {
        (1, Value::Bytes(point)) => exponential(point, sink),
        _ => Ok(()),
    })
}

/// `ExponentialHistogramDataPoint`.
fn exponential<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.labels.clear();
    let mut times = Times::default();
    let mut parts = ExponentialPoint::default();
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Bytes(pair)) => attribute(pair, sink)?,
            (2, Value::Fixed64(nanos)) => times.start = nanos,
            (3, Value::Fixed64(nanos)) => times.time = nanos,
            (4, Value::Fixed64(number)) => parts.count = number,
            (5, Value::Fixed64(bits)) => parts.sum = Some(f64::from_bits(bits)),
            (6, Value::Varint(number)) => parts.scale = zigzag(number),
            (7, Value::Fixed64(number)) => parts.zero_count = number,
            (8, Value::Bytes(buckets)) => buckets_of(buckets, &mut parts.positive)?,
            (9, Value::Bytes(buckets)) => buckets_of(buckets, &mut parts.negative)?,
            (10, Value::Varint(flags)) => times.flags = flags,
            (11, Value::Bytes(_exemplar)) => sink.rows.exemplar(),
            (14, Value::Fixed64(bits)) => parts.zero_threshold = f64::from_bits(bits),
            _ => {}
        }
        Ok(())
    })?;
    sink.exponential(times, &parts);
    Ok(())
}

fn buckets_of(message: Message<'_>, buckets: &mut Buckets) -> Result<(), Fault> {
    message.each(|field| {
        match field {
            (1, Value::Varint(number)) => buckets.offset = zigzag(number),
            (2, Value::Varint(count)) => buckets.push(count),
            (2, Value::Bytes(counts)) => counts.packed_varints::<Fault>(|count| {
                buckets.push(count);
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })
}

/// `SummaryDataPoint`.
fn summary<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.labels.clear();
    let mut times = Times::default();
    let mut parts = SummaryPoint::default();
    message.each::<Fault>(|field| {
        match field {
            (2, Value::Fixed64(nanos)) => times.start = nanos,
            (3, Value::Fixed64(nanos)) => times.time = nanos,
            (4, Value::Fixed64(number)) => parts.count = number,
            (5, Value::Fixed64(bits)) => parts.sum = f64::from_bits(bits),
            (6, Value::Bytes(message)) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                message.each::<Fault>(|field| {
                    match field {
                        (1, Value::Fixed64(bits)) => quantile = f64::from_bits(bits),
                        (2, Value::Fixed64(bits)) => value = f64::from_bits(bits),
                        _ => {}
                    }
                    Ok(())
                })?;
                parts.quantiles.push((quantile, value));
            }
            (7, Value::Bytes(pair)) => attribute(pair, sink)?,
            (8, Value::Varint(flags)) => times.flags = flags,
            _ => {}
        }
        Ok(())
    })?;
    sink.summary(times, &parts);
    Ok(())
}

/// The `KeyValue`s in field `number` of a message.
fn attributes<'b>(message: Message<'b>, number: u32, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    message.each(|field| match field {
        (found, Value::Bytes(pair)) if found == number => attribute(pair, sink),
        _ => Ok(()),
    })
}

fn attribute<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    if let Some((key, text)) = message.plain_pair() {
        sink.labels.push(Cow::Borrowed(key.text()?), Cow::Borrowed(text.text()?));
        return Ok(());
    }
    match pair(message)? {
        (key, Some(value)) => label(Cow::Borrowed(key), value, sink),
        (_, None) => Ok(()),
    }
}

/// A label with an `AnyValue` for its value.
pub(super) fn label<'b>(key: Cow<'b, str>, value: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    match any_value(value)? {
        AnyValue::Text(text) => sink.labels.push(key, Cow::Borrowed(text)),
        AnyValue::Nothing => {}
        AnyValue::Bool(value) => sink.labels.push(key, Cow::Borrowed(if value { "true" } else { "false" })),
        AnyValue::Int(value) => sink.labels.push(key, Cow::Owned(value.to_string())),
        AnyValue::Double(value) => sink.labels.push(key, Cow::Owned(value.to_string())),
        AnyValue::Bytes(bytes) if bytes.len() > sink.limits.label_bytes => sink.labels.fault(Reason::LabelTooLong),
        AnyValue::Bytes(bytes) => sink.labels.push(key, Cow::Owned(base64(bytes))),
        list_or_map => {
            let (deepest, longest) = (sink.limits.depth, sink.limits.label_bytes);
            let mut nested = Nested::new(sink.rows.classes(), deepest, longest);
            let written = nest(list_or_map, &mut nested);
            let (text, dropped) = nested.finish();
            sink.rows.dropped(dropped);
            match written {
                Ok(()) => sink.labels.push(key, Cow::Owned(text)),
                Err(Trouble::Sample(reason)) => sink.labels.fault(reason),
                Err(Trouble::Body(fault)) => return Err(fault),
            }
        }
    }
    Ok(())
}

/// Key and value of a `KeyValue`.
pub(super) fn pair(message: Message<'_>) -> Result<(&str, Option<Message<'_>>), Fault> {
    let (mut key, mut value) = ("", None);
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Bytes(text)) => key = text.text()?,
            (2, Value::Bytes(message)) => value = Some(message),
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

/// An `AnyValue`.
pub(super) enum AnyValue<'b> {
    Nothing,
    Text(&'b str),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(Message<'b>),
    Map(Message<'b>),
    Bytes(&'b [u8]),
}

pub(super) fn any_value(message: Message<'_>) -> Result<AnyValue<'_>, Fault> {
    let mut value = AnyValue::Nothing;
    message.each::<Fault>(|field| {
        value = match field {
            (1, Value::Bytes(text)) => AnyValue::Text(text.text()?),
            (2, Value::Varint(flag)) => AnyValue::Bool(flag != 0),
            (3, Value::Varint(bits)) => AnyValue::Int(bits as i64),
            (4, Value::Fixed64(bits)) => AnyValue::Double(f64::from_bits(bits)),
            (5, Value::Bytes(list)) => AnyValue::List(list),
            (6, Value::Bytes(map)) => AnyValue::Map(map),
            (7, Value::Bytes(bytes)) => AnyValue::Bytes(bytes.bytes()),
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(value)
}

/// Why a nested value ends early.
enum Trouble {
    /// The sample is refused.
    Sample(Reason),
    /// The body is.
    Body(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Body(fault)
    }
}

impl From<Reason> for Trouble {
    fn from(reason: Reason) -> Trouble {
        Trouble::Sample(reason)
    }
}

/// Writes a value as JSON. As deep as `nested` allows, so that no sender chooses how far this recurses.
fn nest(value: AnyValue<'_>, nested: &mut Nested<'_, '_>) -> Result<(), Trouble> {
    match value {
        AnyValue::Nothing => nested.plain("null")?,
        AnyValue::Text(text) => nested.string(text)?,
        AnyValue::Bool(value) => nested.plain(value)?,
        AnyValue::Int(value) => nested.plain(value)?,
        AnyValue::Double(value) if value.is_finite() => nested.plain(value)?,
        AnyValue::Double(value) => nested.string(&value.to_string())?,
        AnyValue::Bytes(bytes) => nested.string(&base64(&bytes[..bytes.len().min(nested.longest() + 1)]))?,
        AnyValue::List(list) => {
            nested.open('[')?;
            list.each::<Trouble>(|field| {
                if let (1, Value::Bytes(value)) = field {
                    nested.element()?;
                    nest(any_value(value)?, nested)?;
                }
                Ok(())
            })?;
            nested.close(']')?;
        }
        AnyValue::Map(map) => {
            nested.open('{')?;
            map.each::<Trouble>(|field| {
                if let (1, Value::Bytes(message)) = field {
                    let (key, value) = pair(message)?;
                    if nested.key(key)? {
                        nest(value.map_or(Ok(AnyValue::Nothing), any_value)?, nested)?;
                    }
                }
                Ok(())
            })?;
            nested.close('}')?;
        }
    }
    Ok(())
}
