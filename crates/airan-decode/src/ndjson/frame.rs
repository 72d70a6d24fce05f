//! Frames of a gNB: the JSON that OCUDU (before: srsRAN) sends over its WebSocket, one frame a line.
//!
//! ```json
//! {"cells": [{"cell_metrics": {"pci": 1, "max_latency": 143}, "ue_list": [{"rnti": 17921, "dl_brate": 11312392.0}]}],
//!  "timestamp": "2026-05-15T14:23:28.476"}
//! ```
//!
//! A frame is walked like a tree, and each number is a sample of a metric that is named after its place, with `gnb.` in front:
//! `gnb.cells.cell_metrics.max_latency`. The catalog says which of them has a column (`map_ocudu.yaml`); any other becomes a row of
//! `sample`. Texts, `pci` and identities are the labels of the numbers beside and below them.
//!
//! | in the frame | is |
//! | --- | --- |
//! | an object that names a subscriber (`rnti`, `ue`, `ue_id`) | never taken by itself: what the catalog knows of it is added up over the list it is in, the rest is dropped and counted |
//! | a list that the catalog knows | how many it holds; of numbers, their mean |
//! | a number whose column is a counter | the rise since the frame before, as OCUDU counts |
//! | a list of ten whose column is a histogram | counts per 50 µs, the last of all above |
//! | `timestamp` without a zone | UTC |

use std::borrow::Cow;
use std::fmt;

use airan_model::catalog::{ColumnType, Kind, MetricMapping};
use airan_model::reject::Reason;
use airan_model::time::{Micros, parse_rfc3339};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::row::{Keys, Refusal, text_of};
use crate::histogram::Histogram;
use crate::labels::{Label, words};
use crate::number::Number;
use crate::rows::{MetricKind, Point, Rows};
use crate::{Context, DecodeError, Decoded};

/// What one of these has in it, each a kind of frame.
const KINDS: [&str; 10] = [
    "cells",
    "du",
    "du_low",
    "ru",
    "rlc_metrics",
    "cu-up",
    "cu-cp",
    "app_resource_usage",
    "executor_metrics",
    "buffer_pool",
];
/// When the frame was made.
const TIMESTAMP: &str = "timestamp";
/// The list whose elements are subscribers, whatever their keys.
const SUBSCRIBERS: &str = ".ue_list";
/// Objects and lists that may lie in each other. OCUDU's go seven deep.
const DEEP_MAX: usize = 16;
/// Most elements of one list: more than there are cells of a DU or UEs of a cell.
const ELEMENTS_MAX: usize = 4096;
/// Bins of `latency_histogram`, and their width in microseconds (OCUDU, `lib/scheduler`).
const BINS: usize = 10;
const BIN_MICROS: usize = 50;

/// The frames of a body.
pub(super) struct Frames<'a> {
    context: Context<'a>,
    rows: Rows<'a>,
    // Of the number at hand.
    path: String,
    ts: Micros,
    line: usize,
}

/// What subscribers' values add up to, by metric.
type Sums = Vec<(String, f64)>;

impl<'a> Frames<'a> {
    pub(super) fn new(context: &Context<'a>) -> Frames<'a> {
        Frames { context: *context, rows: Rows::new(context), path: String::new(), ts: 0, line: 0 }
    }

    /// Whether a line is a frame.
    pub(super) fn is_one(keys: &Keys<'_>) -> bool {
        let has = |name: &str| keys.pairs.iter().any(|(key, _)| key == name);
        !has("stream") && has(TIMESTAMP) && KINDS.iter().any(|kind| has(kind))
    }

    /// Takes a frame.
    pub(super) fn take(&mut self, keys: Keys<'_>, line: usize) -> Result<(), Refusal> {
        let time = keys.pairs.iter().find(|(key, _)| key == TIMESTAMP).and_then(|(_, value)| text_of(value));
        let ts = time.and_then(|text| parse_rfc3339(&text).or_else(|| parse_rfc3339(&format!("{text}Z"))));
        let what = || (Reason::BadTime, format!("`{TIMESTAMP}` must be a time as in 2026-01-01T00:00:00.000"));
        self.ts = ts.ok_or_else(what)?;
        self.line = line;
        self.path.clear();
        self.path.push_str("gnb");
        self.object(keys, &[], 1);
        Ok(())
    }

    /// The rows of all frames.
    pub(super) fn finish(self) -> Result<Decoded, DecodeError> {
        self.rows.finish()
    }

    /// An object that names no subscriber; of a frame itself such a key is left out.
    fn object<'l>(&mut self, keys: Keys<'l>, outer: &[Label<'l>], deep: usize) {
        let labels = match self.labels(&keys, outer) {
            Ok(labels) => labels,
            Err(reason) => return self.refuse(reason, words(reason)),
        };
        for (key, value) in keys.pairs {
            if deep == 1 && key == TIMESTAMP {
                continue;
            }
            if self.rows.classes().drops(&key) {
                self.rows.dropped(1);
                continue;
            }
            let end = self.go_to(&key);
            // What its column does not want is told by the label.
            let is_told = is_number(value) && label(Cow::Borrowed(&key), value).is_some() && self.mapping().is_none();
            if !is_told {
                self.value(value, &labels, deep);
            }
            self.path.truncate(end);
        }
    }

    fn value<'l>(&mut self, value: &'l RawValue, labels: &[Label<'l>], deep: usize) {
        match value.get().as_bytes().first() {
            Some(b'{' | b'[') if deep >= DEEP_MAX => self.refuse(Reason::TooDeep, "nested too deep"),
            Some(b'{') => {
                let mut sums = Sums::new();
                self.element(value, labels, &mut sums, deep);
                self.put_sums(sums, labels);
            }
            Some(b'[') => self.list(value, labels, deep + 1),
            Some(b't') => self.number(Number::Int(1), labels),
            Some(b'f') => self.number(Number::Int(0), labels),
            // A text is a label, and null no value.
            _ => {
                if let Some(number) = Number::parse(value.get()).filter(|_| is_number(value)) {
                    self.number(number, labels);
                }
            }
        }
    }

    /// An object, of its own or in a list. What is taken of a subscriber is then in the sums.
    fn element<'l>(&mut self, value: &'l RawValue, labels: &[Label<'l>], sums: &mut Sums, deep: usize) {
        // The whole line was JSON.
        let Ok(keys) = serde_json::from_str::<Keys<'l>>(value.get()) else { return };
        if keys.has_more {
            return self.refuse(Reason::TooManyLabels, "too many keys in an object");
        }
        let classes = self.rows.classes();
        if self.path.ends_with(SUBSCRIBERS) || keys.pairs.iter().any(|(key, _)| classes.drops(key)) {
            self.subscriber(keys, sums, deep + 1);
        } else {
            self.object(keys, labels, deep + 1);
        }
    }

    /// Adds up what the catalog knows of a subscriber; the rest goes nowhere.
    fn subscriber(&mut self, keys: Keys<'_>, sums: &mut Sums, deep: usize) {
        for (key, value) in keys.pairs {
            let end = self.go_to(&key);
            let nested = value.get().starts_with('{') && deep < DEEP_MAX;
            let nested = nested.then(|| serde_json::from_str::<Keys<'_>>(value.get()).ok()).flatten();
            let number = Number::parse(value.get()).filter(|_| is_number(value) && self.mapping().is_some());
            match (nested, number) {
                (Some(keys), _) => self.subscriber(keys, sums, deep + 1),
                (None, Some(number)) => match sums.iter_mut().find(|(name, _)| *name == self.path) {
                    Some((_, sum)) => *sum += number.as_f64(),
                    None => sums.push((self.path.clone(), number.as_f64())),
                },
                (None, None) => self.rows.dropped(1),
            }
            self.path.truncate(end);
        }
    }

    fn put_sums(&mut self, sums: Sums, labels: &[Label<'_>]) {
        for (name, sum) in sums {
            let path = std::mem::replace(&mut self.path, name);
            self.number(Number::Float(sum), labels);
            self.path = path;
        }
    }

    fn list<'l>(&mut self, list: &'l RawValue, labels: &[Label<'l>], deep: usize) {
        let Ok(List { elements, has_more }) = serde_json::from_str::<List<'l>>(list.get()) else { return };
        if has_more {
            return self.refuse(Reason::TooManySamples, "a list with too many elements");
        }
        let are_numbers = !elements.is_empty() && elements.iter().all(|element| is_number(element));
        if are_numbers {
            return self.numbers(&elements, labels);
        }
        if self.mapping().is_some() {
            self.number(Number::Int(elements.len() as i64), labels);
        }
        let mut sums = Sums::new();
        for element in elements {
            if element.get().starts_with('{') && deep < DEEP_MAX {
                self.element(element, labels, &mut sums, deep);
            } else {
                self.value(element, labels, deep);
            }
        }
        self.put_sums(sums, labels);
    }

    /// A list of numbers only.
    fn numbers(&mut self, elements: &[&RawValue], labels: &[Label<'_>]) {
        let numbers = || elements.iter().filter_map(|element| Number::parse(element.get()));
        let targets = || self.mapping().into_iter().flat_map(|mapping| &mapping.targets);
        let is_histogram = targets().any(|of| of.stream.columns[of.column].ty == ColumnType::Histogram);
        if is_histogram && elements.len() == BINS {
            return self.histogram(numbers().map(Number::as_i64).collect(), labels);
        }
        // Bins of a width that nobody has told stay what they are.
        if self.mapping().is_some() && !is_histogram {
            let mean = numbers().map(Number::as_f64).sum::<f64>() / elements.len() as f64;
            return self.number(Number::Float(mean), labels);
        }
        for (index, number) in numbers().enumerate() {
            let index = Label { name: "index".into(), value: index.to_string().into() };
            let others = labels.iter().filter(|label| label.name != index.name).cloned();
            let labels: Vec<Label<'_>> = others.chain([index.clone()]).collect();
            self.number(number, &labels);
        }
    }

    fn histogram(&mut self, counts: Option<Vec<i64>>, labels: &[Label<'_>]) {
        let whole = counts.and_then(|counts| {
            let count = counts.iter().try_fold(0i64, |sum, count| sum.checked_add(*count))?;
            let bounds = (1..BINS).map(|bin| (bin * BIN_MICROS) as f64).collect();
            let histogram = Histogram { bounds, counts, sum: None, count };
            histogram.check().is_ok().then_some(histogram)
        });
        let Some(histogram) = whole else { return self.refuse(Reason::Malformed, "a histogram that is none") };
        let is_rise = self.begin();
        let point = self.point(labels, is_rise);
        self.rows.histogram(&point, &histogram, 1);
    }

    fn number(&mut self, number: Number<'_>, labels: &[Label<'_>]) {
        if self.path.len() > self.context.limits.label_bytes {
            return self.refuse(Reason::LabelTooLong, "the name is too long");
        }
        // OCUDU says 0.0 where there was no PRACH to be delayed.
        let is_none = self.path.ends_with(".avg_prach_delay") && number.as_f64() == 0.0;
        let number = if is_none { Number::Float(f64::NAN) } else { number };
        let is_rise = self.begin();
        let point = self.point(labels, is_rise);
        self.rows.number(&point, number);
    }

    /// A sample of the metric at hand follows; whether it is a rise.
    fn begin(&mut self) -> bool {
        let mapping = self.mapping();
        self.rows.metric_mapped(&self.path, MetricKind::Gauge, mapping);
        let targets = mapping.into_iter().flat_map(|mapping| &mapping.targets);
        let mut kinds = targets.map(|target| target.stream.columns[target.column].kind);
        kinds.any(|kind| matches!(kind, Kind::Counter | Kind::Histogram))
    }

    fn point<'s>(&self, labels: &'s [Label<'s>], is_rise: bool) -> Point<'s> {
        let node = labels.iter().find(|label| label.name == "node").map(|label| &*label.value);
        Point { labels, shared: &[], node, ts: Some(self.ts), start: None, is_delta: is_rise }
    }

    fn mapping(&self) -> Option<&'a MetricMapping> {
        self.context.catalog.metric(&self.path).map(|mapping| &**mapping)
    }

    /// Labels of an object's numbers: its own, and those of what it lies in.
    fn labels<'l>(&mut self, keys: &Keys<'l>, outer: &[Label<'l>]) -> Result<Vec<Label<'l>>, Reason> {
        let mut labels: Vec<Label<'l>> = Vec::new();
        for (key, value) in &keys.pairs {
            if key == "cell_metrics" && !keys.pairs.iter().any(|(key, _)| key == "pci") {
                // What lies beside them is of the same cell.
                let metrics = serde_json::from_str::<Keys<'l>>(value.get()).unwrap_or_default();
                let pci = metrics.pairs.into_iter().find(|(key, _)| key == "pci");
                labels.extend(pci.and_then(|(key, value)| label(key, value)));
            } else if key != TIMESTAMP && !self.rows.classes().drops(key) {
                labels.extend(label(key.clone(), value));
            }
        }
        let inherited = outer.iter().filter(|outer| labels.iter().all(|label| label.name != outer.name));
        let inherited: Vec<Label<'l>> = inherited.cloned().collect();
        labels.extend(inherited);
        let limits = self.context.limits;
        if labels.len() > limits.labels_per_sample {
            return Err(Reason::TooManyLabels);
        }
        let is_long = |label: &Label<'_>| label.name.len().max(label.value.len()) > limits.label_bytes;
        if labels.iter().any(is_long) { Err(Reason::LabelTooLong) } else { Ok(labels) }
    }

    fn refuse(&mut self, reason: Reason, what: &str) {
        let line = self.line;
        self.rows.refuse(reason, 1, || format!("line {line}: {what}"));
    }

    /// Where the path ended before.
    fn go_to(&mut self, key: &str) -> usize {
        let end = self.path.len();
        self.path.push('.');
        self.path.push_str(key);
        end
    }
}

/// The label that a key is: a text, or a number that says which one it is.
fn label<'l>(key: Cow<'l, str>, value: &'l RawValue) -> Option<Label<'l>> {
    let is_identity = key == "pci" || key == "id" || key.ends_with("_id");
    let value = match text_of(value) {
        Some(text) => text,
        None if is_identity && is_number(value) => Cow::Borrowed(value.get()),
        None => return None,
    };
    (!value.is_empty()).then_some(Label { name: key, value })
}

fn is_number(value: &RawValue) -> bool {
    value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// A list's elements as written.
#[derive(Debug, Default)]
struct List<'l> {
    elements: Vec<&'l RawValue>,
    // There are more than [`ELEMENTS_MAX`].
    has_more: bool,
}

impl<'de: 'l, 'l> Deserialize<'de> for List<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = List<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<'de>, A::Error> {
                let mut list = List::default();
                while let Some(element) = seq.next_element()? {
                    if list.elements.len() < ELEMENTS_MAX {
                        list.elements.push(element);
                    } else {
                        list.has_more = true;
                    }
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

#[cfg(test)]
#[path = "../frame_tests.rs"]
mod tests;
