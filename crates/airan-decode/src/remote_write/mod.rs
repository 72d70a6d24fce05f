//! Prometheus remote write 1.0 and 2.0 (prometheus.io/docs/specs/prw), the message inside the compression.
//!
//! | in the message | lands as |
//! | --- | --- |
//! | a sample | as a line of text would: a column the catalog knows, else `sample` |
//! | `_bucket`, `_sum`, `_count` of a histogram the catalog knows | one histogram, if all its series are in this message; else samples |
//! | a native histogram, with exponential or custom bounds | a histogram column, else `sample` |
//! | a stale marker | "no value", counted as a sentinel: the series has ended |
//! | created (start) timestamp (2.0) | `start_ts` |
//! | metadata | the metric's type; in 1.0 only where it comes in the same message |
//! | exemplars | left out and counted: they name traces and may name subscribers |
//!
//! The node is the host in the label `instance`, unless the metric's mapping names another label. Series that break the
//! specification (no name, a label twice, references to no symbol) are refused alone; the rest is taken. Samples may come in any
//! order: what that means for windows is the processor's business.

mod native;
mod series;

use std::collections::HashMap;

use airan_model::catalog::MetricMapping;
use airan_model::reject::Reason;
use airan_model::time::Micros;
use foldhash::fast::RandomState;

use crate::classic::{self, Groups, Part, Piece};
use crate::labels::{Label, LabelBuffer, words};
use crate::number::Number;
use crate::refusals::shown;
use crate::rows::{MetricKind, Point, Rows};
use crate::wire::{Fault, Message, Value};
use crate::{Context, DecodeError, Decoded};
use series::{Head, Reader};

/// The value of a stale marker (prometheus, `model/value`): one of the NaNs.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// Symbols a 2.0 message may have: each takes 16 bytes here and may take two there.
const SYMBOLS_MAX: usize = 1 << 20;
/// The label that names what was scraped.
const INSTANCE: &str = "instance";

/// Which message it is, as the content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteWrite {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Reads one message.
///
/// # Errors
/// If the bytes are no such message. What is wrong with single series and samples is in [`Decoded::refused`].
pub fn decode(body: &[u8], version: RemoteWrite, context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let message = Message::of(body);
    let told = |fault: Fault| {
        let what = format_args!("not a remote write message: {}", fault.what);
        DecodeError::at(Reason::Malformed, what, format!("offset {}", fault.offset(body)))
    };
    let (symbols, kinds) = match version {
        RemoteWrite::V1 => (Vec::new(), metadata(message).map_err(told)?),
        RemoteWrite::V2 => (symbols(message).map_err(told)?, HashMap::default()),
    };
    if symbols.len() > SYMBOLS_MAX {
        return Err(DecodeError::whole(Reason::TooManySamples, format!("more than {SYMBOLS_MAX} symbols")));
    }
    let mut sink = Sink {
        reader: Reader { version, symbols, limits: context.limits, kept: Vec::new() },
        kinds,
        rows: Rows::new(context),
        labels: LabelBuffer::new(context.limits, 0),
        groups: Groups::default(),
        context: *context,
        metric: None,
        histograms: 0,
    };
    let field = match version {
        RemoteWrite::V1 => 1,
        RemoteWrite::V2 => 5,
    };
    let read = message.each::<Fault>(|found| match found {
        (number, Value::Bytes(series)) if number == field => sink.series(series),
        _ => Ok(()),
    });
    read.map_err(told)?;
    sink.put_histograms_together();
    let mut decoded = sink.rows.finish()?;
    decoded.tally.histograms = sink.histograms;
    Ok(decoded)
}

type Kinds<'b> = HashMap<&'b str, MetricKind, RandomState>;

/// Types by family, of a 1.0 message.
fn metadata(message: Message<'_>) -> Result<Kinds<'_>, Fault> {
    let mut kinds = Kinds::default();
    message.each::<Fault>(|found| {
        let (3, Value::Bytes(metadata)) = found else { return Ok(()) };
        let (mut kind, mut family) = (MetricKind::Unknown, "");
        metadata.each::<Fault>(|field| {
            match field {
                (1, Value::Varint(number)) => kind = kind_of(number),
                (2, Value::Bytes(name)) => family = name.text()?,
                _ => {}
            }
            Ok(())
        })?;
        kinds.insert(family, kind);
        Ok(())
    })?;
    Ok(kinds)
}

/// The symbols of a 2.0 message, up to one too many.
fn symbols(message: Message<'_>) -> Result<Vec<&str>, Fault> {
    let mut symbols = Vec::new();
    message.each::<Fault>(|field| {
        if let (4, Value::Bytes(symbol)) = field
            && symbols.len() <= SYMBOLS_MAX
        {
            symbols.push(symbol.text()?);
        }
        Ok(())
    })?;
    Ok(symbols)
}

/// `MetricType`, the same numbers in both versions.
fn kind_of(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

/// One message while it is read.
struct Sink<'a, 'b> {
    reader: Reader<'b>,
    kinds: Kinds<'b>,
    rows: Rows<'a>,
    labels: LabelBuffer<'b>,
    groups: Groups<'b, 'a>,
    context: Context<'a>,
    metric: Option<Metric<'b, 'a>>,
    histograms: u64,
}

/// The metric of the last series: the next one is mostly of the same.
#[derive(Clone, Copy)]
struct Metric<'b, 'a> {
    name: &'b str,
    // The type that the series itself says.
    told: MetricKind,
    route: Option<Route<'a>>,
}

/// What a series is of which histogram; its family's name is the first so many bytes.
type Route<'a> = (Part, usize, &'a MetricMapping);

impl<'a, 'b> Sink<'a, 'b>
where
    'b: 'a,
{
    fn series(&mut self, message: Message<'b>) -> Result<(), Fault> {
        let head = self.reader.head(message, &mut self.labels)?;
        let fault = self.fault(&head);
        let name = head.name;
        let route = self.metric(&head);
        let at = self.reader.kept.len();
        if route.is_some() {
            self.reader.kept.push(message);
        }
        message.each::<Fault>(|field| {
            match field {
                (2, Value::Bytes(sample)) => {
                    let sample = series::sample(sample)?;
                    match fault {
                        Some((reason, what)) => refuse(&mut self.rows, reason, what, name),
                        None => self.sample(&head, &sample, route, at),
                    }
                }
                (number, Value::Bytes(native)) if number == self.reader.histograms_field() => {
                    let native = native::read(native)?;
                    match fault {
                        Some((reason, what)) => refuse(&mut self.rows, reason, what, name),
                        None => self.native(&head, native),
                    }
                }
                (number, Value::Bytes(_exemplar)) if number == self.reader.exemplars_field() => self.rows.exemplar(),
                _ => {}
            }
            Ok(())
        })
    }

    /// Samples of the series' metric follow.
    fn metric(&mut self, head: &Head<'b>) -> Option<Route<'a>> {
        if let Some(last) = self.metric
            && last.name == head.name
            && last.told == head.kind
        {
            return last.route;
        }
        let (catalog, kind) = (self.context.catalog, self.kind(head));
        let mapping = catalog.metric(head.name).map(|mapping| &**mapping);
        let route = if mapping.is_some() { None } else { classic::part_of(catalog, head.name, kind) };
        self.rows.metric_mapped(head.name, kind, mapping);
        self.metric = Some(Metric { name: head.name, told: head.kind, route });
        route
    }

    /// Why all samples of the series are refused.
    fn fault(&self, head: &Head<'b>) -> Option<(Reason, &'static str)> {
        let of_labels = || self.labels.get().err().map(|reason| (reason, words(reason)));
        if let Some(what) = head.fault {
            Some((Reason::Malformed, what))
        } else if head.name.is_empty() {
            Some((Reason::Malformed, "a series without a name"))
        } else if head.name.len() > self.context.limits.label_bytes {
            Some((Reason::LabelTooLong, "the name is too long"))
        } else {
            of_labels()
        }
    }

    fn kind(&self, head: &Head<'b>) -> MetricKind {
        if head.kind != MetricKind::Unknown {
            return head.kind;
        }
        let families = ["", "_bucket", "_sum", "_count", "_total"].into_iter();
        let mut known = families.filter_map(|suffix| self.kinds.get(head.name.strip_suffix(suffix)?));
        known.next().copied().unwrap_or_default()
    }

    fn sample(&mut self, head: &Head<'b>, sample: &series::Sample, route: Option<Route<'a>>, at: usize) {
        let Some(ts) = micros(sample.time) else {
            return refuse(&mut self.rows, Reason::BadTime, "a timestamp that is no time", head.name);
        };
        let number = Number::Float(sample.value);
        if let (Some((part, family, mapping)), false) = (route, sample.value.is_nan()) {
            let piece = Piece { at, part, number };
            let (family, labels) = (&head.name[..family], self.labels.kept());
            if self.groups.add(family, mapping, Some(ts), labels, piece, &self.reader) {
                return;
            }
        }
        let start = micros(if sample.start != 0 { sample.start } else { head.start }).filter(|start| *start != 0);
        self.rows.number(&point(self.labels.kept(), ts, start), number);
    }

    fn native(&mut self, head: &Head<'b>, sample: native::NativeSample) {
        let Some(ts) = micros(sample.time) else {
            return refuse(&mut self.rows, Reason::BadTime, "a timestamp that is no time", head.name);
        };
        let start = micros(if sample.start != 0 { sample.start } else { head.start }).filter(|start| *start != 0);
        let point = point(self.labels.kept(), ts, start);
        match sample.histogram {
            None => self.rows.sentinel(&point),
            Some(Ok(histogram)) => self.rows.histogram(&point, &histogram, 1),
            Some(Err(what)) => return refuse(&mut self.rows, Reason::Malformed, what, head.name),
        }
        self.histograms += 1;
    }

    /// Histograms whose series were all read.
    fn put_histograms_together(&mut self) {
        for group in std::mem::take(&mut self.groups).into_inner() {
            let whole = classic::assemble(&group, &self.reader);
            let landed = whole.is_some_and(|(labels, histogram)| {
                self.rows.metric_mapped(group.family, MetricKind::Histogram, Some(group.mapping));
                let point = point(&labels, group.ts.unwrap_or_default(), None);
                self.rows.histogram_column(&point, &histogram, group.pieces.len() as u64)
            });
            if !landed {
                self.as_samples(&group);
            }
        }
    }

    /// The series of a histogram that has no column, each for itself.
    fn as_samples(&mut self, group: &classic::Group<'b, 'a>) {
        for piece in &group.pieces {
            if let Ok(head) = self.reader.kept(piece.at, &mut self.labels) {
                self.rows.metric_mapped(head.name, MetricKind::Histogram, None);
                let point = point(self.labels.kept(), group.ts.unwrap_or_default(), None);
                self.rows.number(&point, piece.number);
            }
        }
    }
}

fn refuse(rows: &mut Rows<'_>, reason: Reason, what: &'static str, name: &str) {
    let sample = rows.count() + 1;
    rows.refuse(reason, 1, || format!("{what}: {} (sample {sample})", shown(name)));
}

fn point<'s>(labels: &'s [Label<'s>], ts: Micros, start: Option<Micros>) -> Point<'s> {
    let instance = labels.iter().find(|label| label.name == INSTANCE);
    Point { labels, shared: &[], node: instance.map(|label| host(&label.value)), ts: Some(ts), start, is_delta: false }
}

/// The host of `host:port`, `[v6]:port` or a plain name.
fn host(instance: &str) -> &str {
    if let Some(rest) = instance.strip_prefix('[') {
        return rest.split_once(']').map_or(instance, |(host, _)| host);
    }
    match instance.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host
        }
        _ => instance,
    }
}

/// Milliseconds since 1970 as micros; None where that is no i64.
fn micros(millis: i64) -> Option<Micros> {
    millis.checked_mul(1_000)
}

#[cfg(test)]
#[path = "../remote_write_tests.rs"]
mod tests;
