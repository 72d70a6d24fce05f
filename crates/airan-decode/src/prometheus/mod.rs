//! Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! A line that does not follow its format refuses the whole scrape, as in Prometheus: what follows it could be anything. A sample
//! over a limit is refused alone. Histograms of metrics the catalog knows are put together again: see [`classic`]. Exemplars
//! are checked, counted and not kept: they name traces and may name subscribers.

mod families;
mod rules;
mod text;

use std::borrow::Cow;
use std::collections::HashMap;

use airan_model::catalog::MetricMapping;
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use airan_model::time::{Micros, SECOND};
use foldhash::fast::RandomState;

use crate::classic::{self, Groups, Lines, Part, Piece};
use crate::labels::{Label, LabelBuffer, words};
use crate::number::Number;
use crate::refusals::shown;
use crate::rows::{MetricKind, Point, Rows};
use crate::{Context, DecodeError, Decoded};
use families::Families;
use rules::{Rules, Seen};
use text::{Cursor, Fault, Line};

/// Which text it is, as the endpoint's content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Text format 0.0.4, read as leniently as Prometheus does.
    Prometheus004,
    /// OpenMetrics 1.0, read strictly.
    OpenMetrics,
}

/// Reads one scrape.
///
/// # Errors
/// At the first line that does not follow the format, with line and column, and beyond
/// [`samples_per_scrape`](airan_model::limits::Limits::samples_per_scrape).
pub fn decode(text: &[u8], format: TextFormat, context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return Err(at(text, Fault { what: "text that is no UTF-8", at: error.valid_up_to() })),
    };
    let mut scrape = Scrape {
        text,
        format,
        rows: Rows::new(context),
        labels: LabelBuffer::new(context.limits, 0),
        name: String::new(),
        kind: MetricKind::Unknown,
        route: Route::Plain,
        groups: Groups::default(),
        lines: 0,
        context: *context,
    };
    let read = match format {
        TextFormat::Prometheus004 => scrape.lenient(),
        TextFormat::OpenMetrics => scrape.strict(),
    };
    read.map_err(|stop| match stop {
        Stop::Fault(fault) => at(text.as_bytes(), fault),
        Stop::TooMany => {
            let most = context.limits.samples_per_scrape;
            DecodeError::whole(Reason::TooManySamples, format!("more than {most} samples"))
        }
    })?;
    scrape.put_histograms_together();
    scrape.rows.finish()
}

/// The fault with its line and column.
fn at(text: &[u8], fault: Fault) -> DecodeError {
    let before = &text[..fault.at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    DecodeError::at(Reason::Malformed, fault.what, format!("line {line}, column {column}"))
}

/// Why reading ends early.
enum Stop {
    Fault(Fault),
    TooMany,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// What a sample's name makes of it.
#[derive(Clone, Copy)]
enum Route<'a> {
    /// A sample like any other.
    Plain,
    /// A part of a histogram with a column; the family's name is the first so many bytes.
    Histogram(Part, usize, &'a MetricMapping),
}

/// One scrape while it is read.
struct Scrape<'t, 'a> {
    text: &'t str,
    format: TextFormat,
    rows: Rows<'a>,
    labels: LabelBuffer<'t>,
    // The last sample's name and type, and what they make of it.
    name: String,
    kind: MetricKind,
    route: Route<'a>,
    groups: Groups<'t, 'a>,
    lines: usize,
    context: Context<'a>,
}

impl<'t, 'a> Scrape<'t, 'a> {
    fn lenient(&mut self) -> Result<(), Stop> {
        let mut kinds: HashMap<&'t str, MetricKind, RandomState> = HashMap::default();
        let mut cursor = Cursor::new(self.text, 0);
        while !cursor.is_at_end() {
            let line = cursor.rest().trim_start_matches([' ', '\t']);
            if line.starts_with('\n') || line.is_empty() {
                cursor.blanks();
                cursor.eat(b'\n');
            } else if line.starts_with('#') {
                comment(&mut cursor, &mut kinds)?;
            } else {
                let line = cursor.sample(self.format, &mut self.labels)?;
                if self.name != *line.name {
                    let kind = kind_of(&line.name, &kinds);
                    self.sample_of(&line.name, kind, None);
                }
                let time = match line.time.map(str::parse::<i64>) {
                    None => Ok(None),
                    Some(Ok(millis)) => millis.checked_mul(1_000).map(Some).ok_or(()),
                    Some(Err(_)) => Err(()),
                };
                self.take(&line, time)?;
            }
        }
        Ok(())
    }

    fn strict(&mut self) -> Result<(), Stop> {
        let (mut families, mut rules) = (Families::default(), Rules::default());
        let mut cursor = Cursor::new(self.text, 0);
        while !cursor.is_at_end() {
            if cursor.peek() == Some(b'#') {
                if families.comment(&mut cursor)? {
                    let ended = rules.end().and_then(|()| families.end());
                    return Ok(ended.map_err(|what| Fault { what, at: cursor.at })?);
                }
                continue;
            }
            let line = cursor.sample(self.format, &mut self.labels)?;
            let (family, kind) = families.sample(&line)?;
            if self.name != *line.name || self.kind != kind {
                self.sample_of(&line.name, kind, Some(family));
            }
            let fault = |what| Fault { what, at: line.start };
            let seconds = match line.time.map(str::parse::<f64>) {
                None => None,
                Some(Ok(seconds)) if seconds.is_finite() => Some(seconds),
                Some(_) => return Err(fault("a timestamp that is no time").into()),
            };
            let value = number(line.value).ok_or(fault("a value that is no number"))?.as_f64();
            let labels = self.labels.kept();
            rules.sample(&Seen { family, kind, name: &line.name, labels, value, time: seconds }).map_err(fault)?;
            let time = match seconds.map(|seconds| seconds * SECOND as f64) {
                None => Ok(None),
                // As exact as a float of seconds is: below a microsecond today.
                Some(micros) if micros.abs() < i64::MAX as f64 => Ok(Some(micros.round() as Micros)),
                Some(_) => Err(()),
            };
            self.take(&line, time)?;
        }
        Err(Fault { what: "the text must end with `# EOF`", at: self.text.len() }.into())
    }

    /// Samples of this name follow. `family` is the name the metric was declared with, if that is known.
    fn sample_of(&mut self, name: &str, kind: MetricKind, family: Option<&str>) {
        self.name.clear();
        self.name.push_str(name);
        self.kind = kind;
        let catalog = self.context.catalog;
        let exact = catalog.metric(name);
        self.route = match exact {
            Some(_) => Route::Plain,
            None => classic::part_of(catalog, name, kind)
                .map_or(Route::Plain, |(part, family, mapping)| Route::Histogram(part, family, mapping)),
        };
        // OpenMetrics adds `_total` to counters that other text, and so the catalog, has without.
        let by_family = || {
            family
                .filter(|_| kind == MetricKind::Counter)
                .and_then(|family| if name.ends_with("_total") { catalog.metric(family) } else { None })
        };
        let mapping = exact.or_else(by_family).map(|mapping| &**mapping);
        self.rows.metric_mapped(name, kind, mapping);
    }

    /// Takes a sample whose labels are in the buffer.
    fn take(&mut self, line: &Line<'t>, time: Result<Option<Micros>, ()>) -> Result<(), Stop> {
        self.lines += 1;
        if self.lines > self.context.limits.samples_per_scrape {
            return Err(Stop::TooMany);
        }
        let Some(number) = number(line.value) else {
            return Err(Fault { what: "a value that is no number", at: line.start }.into());
        };
        if line.exemplar.is_some() {
            self.rows.exemplar();
        }
        let (name, count) = (&self.name, self.lines);
        let Ok(ts) = time else {
            self.rows.refuse(Reason::BadTime, 1, || format!("the time of {} (sample {count})", shown(name)));
            return Ok(());
        };
        let labels = match self.labels.get() {
            Ok(labels) => labels,
            Err(reason) => {
                self.rows.refuse(reason, 1, || format!("{}: {} (sample {count})", words(reason), shown(name)));
                return Ok(());
            }
        };
        if let (Route::Histogram(part, family, mapping), Cow::Borrowed(name)) = (self.route, &line.name) {
            let piece = Piece { at: line.start, part, number };
            let lines = TextLines { text: self.text, format: self.format, limits: self.context.limits };
            if self.groups.add(&name[..family], mapping, ts, labels, piece, &lines) {
                return Ok(());
            }
        }
        self.rows.number(&point(labels, ts), number);
        Ok(())
    }

    /// Histograms whose lines were all read.
    fn put_histograms_together(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        for group in groups.into_inner() {
            let lines = TextLines { text: self.text, format: self.format, limits: self.context.limits };
            let whole = classic::assemble(&group, &lines);
            let landed = whole.is_some_and(|(labels, histogram)| {
                self.rows.metric_mapped(group.family, MetricKind::Histogram, Some(group.mapping));
                self.rows.histogram_column(&point(&labels, group.ts), &histogram, group.pieces.len() as u64)
            });
            if !landed {
                self.as_samples(&group);
            }
        }
    }

    /// The lines of a histogram that has no column, each for itself.
    fn as_samples(&mut self, group: &classic::Group<'t, 'a>) {
        for piece in &group.pieces {
            let read = Cursor::new(self.text, piece.at).sample(self.format, &mut self.labels);
            if let (Ok(line), Ok(labels)) = (read, self.labels.get()) {
                self.rows.metric_mapped(&line.name, MetricKind::Histogram, None);
                self.rows.number(&point(labels, group.ts), piece.number);
            }
        }
    }
}

/// Lines of a scrape, to be read again.
struct TextLines<'t, 'l> {
    text: &'t str,
    format: TextFormat,
    limits: &'l Limits,
}

impl<'t> Lines<'t> for TextLines<'t, '_> {
    fn labels_at(&self, at: usize) -> Option<Vec<Label<'t>>> {
        let mut labels = LabelBuffer::new(self.limits, 0);
        Cursor::new(self.text, at).sample(self.format, &mut labels).ok()?;
        labels.take().ok()
    }
}

/// A point of text: labels are all it has.
fn point<'s>(labels: &'s [Label<'s>], ts: Option<Micros>) -> Point<'s> {
    Point { labels, shared: &[], node: None, ts, start: None, is_delta: false }
}

/// A value. A number beyond what a float holds is no number: `1e999` is not written for infinity.
fn number(text: &str) -> Option<Number<'_>> {
    let number = Number::parse(text)?;
    let overflows = number.as_f64().is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit());
    (!overflows).then_some(number)
}

/// A line that starts with `#`: a type, or nothing of interest.
fn comment<'t>(cursor: &mut Cursor<'t>, kinds: &mut HashMap<&'t str, MetricKind, RandomState>) -> Result<(), Fault> {
    let line = *cursor;
    let text = cursor.take(|byte| byte != b'\n');
    cursor.eat(b'\n');
    let Some(rest) = text.trim_start_matches([' ', '\t']).strip_prefix("# ") else { return Ok(()) };
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    if words.next() == Some("TYPE") {
        let (Some(name), Some(kind)) = (words.next(), words.next()) else {
            return line.fault("a type without a name, or a name without a type");
        };
        let Some(kind) = families::lenient_kind(kind) else { return line.fault("a type nobody knows") };
        kinds.insert(name.trim_matches('"'), kind);
    }
    Ok(())
}

/// The type of a sample's metric.
fn kind_of(name: &str, kinds: &HashMap<&str, MetricKind, RandomState>) -> MetricKind {
    if let Some(kind) = kinds.get(name) {
        return *kind;
    }
    let of_suffix = |suffix: &str| name.strip_suffix(suffix).and_then(|family| kinds.get(family)).copied();
    let found = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| Some((*suffix, of_suffix(suffix)?)));
    match found {
        Some((_, MetricKind::Histogram)) => MetricKind::Histogram,
        Some(("_sum" | "_count", MetricKind::Summary)) => MetricKind::Summary,
        _ => MetricKind::Unknown,
    }
}

#[cfg(test)]
#[path = "../prometheus_tests.rs"]
mod tests;
