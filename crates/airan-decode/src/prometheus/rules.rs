//! What OpenMetrics 1.0 demands of the values, labels, order and timestamps within a metric family.
//!
//! The rules of shape are in [`families`](super::families); these need the samples themselves. Verdicts are those of the
//! OpenMetrics project's parser cases (`openmetrics-parser`), rules those of the specification, sections "Metric types" and
//! "Text format". A sample over a limit of ours takes part as far as its labels were kept.
//!
//! Memory: eight bytes for each group of a family (a label set without `le`, `quantile` or the state's own label), which is
//! what it takes to see that a group comes back. Two groups are taken for one with a chance of 2⁻⁶⁴.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use crate::labels::Label;
use crate::rows::MetricKind;

/// The rules' memory of the family at hand.
#[derive(Debug, Default)]
pub(super) struct Rules<'t> {
    hasher: RandomState,
    family: &'t str,
    kind: MetricKind,
    groups: HashSet<u64, RandomState>,
    group: Option<Group>,
}

/// The group at hand.
#[derive(Debug)]
struct Group {
    hash: u64,
    time: Option<f64>,
    buckets: Option<Buckets>,
}

/// One histogram, so far.
#[derive(Debug, Default)]
struct Buckets {
    last: Option<(f64, f64)>,
    count: Option<f64>,
    has_sum: bool,
    has_negative_bound: bool,
    has_negative_sum: bool,
    is_gauge: bool,
}

/// One sample as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'s, 't> {
    pub family: &'t str,
    pub kind: MetricKind,
    pub name: &'s str,
    pub labels: &'s [Label<'s>],
    pub value: f64,
    /// Seconds.
    pub time: Option<f64>,
}

type Verdict = Result<(), &'static str>;

impl<'t> Rules<'t> {
    /// Takes the next sample.
    ///
    /// # Errors
    /// With what is wrong: of this sample, or of the histogram that ended before it.
    pub(super) fn sample(&mut self, seen: &Seen<'_, 't>) -> Verdict {
        if seen.family != self.family || seen.kind != self.kind {
            self.end()?;
            self.groups.clear();
            (self.family, self.kind) = (seen.family, seen.kind);
        }
        let suffix = seen.name.strip_prefix(seen.family).unwrap_or_default();
        labels_fit(seen, suffix)?;
        value_fits(seen, suffix)?;
        self.enter(seen, suffix)?;
        let is_histogram = matches!(seen.kind, MetricKind::Histogram | MetricKind::GaugeHistogram);
        match &mut self.group {
            Some(group) if is_histogram => {
                let fresh = Buckets { is_gauge: seen.kind == MetricKind::GaugeHistogram, ..Buckets::default() };
                group.buckets.get_or_insert(fresh).take(seen, suffix)
            }
            _ => Ok(()),
        }
    }

    /// Ends the histogram at hand.
    ///
    /// # Errors
    /// If it is not whole.
    pub(super) fn end(&mut self) -> Verdict {
        self.group.take().and_then(|group| group.buckets).map_or(Ok(()), |buckets| buckets.end())
    }

    /// Groups stay together, and time goes on within one.
    fn enter(&mut self, seen: &Seen<'_, '_>, suffix: &str) -> Verdict {
        let hash = self.hash(seen, suffix);
        match &mut self.group {
            Some(group) if group.hash == hash => {
                let before = std::mem::replace(&mut group.time, seen.time);
                match (before, seen.time) {
                    (None, Some(_)) | (Some(_), None) => {
                        return Err("some samples of a group with a timestamp, some without");
                    }
                    (Some(before), Some(now)) if before > now && seen.kind != MetricKind::Info => {
                        return Err("a timestamp before the one of its group's last sample");
                    }
                    (Some(before), Some(now)) if before != now => {
                        return group.buckets.take().map_or(Ok(()), |buckets| buckets.end());
                    }
                    _ => {}
                }
            }
            _ => {
                self.end()?;
                if !self.groups.insert(hash) {
                    return Err("a group in two pieces");
                }
                self.group = Some(Group { hash, time: seen.time, buckets: None });
            }
        }
        Ok(())
    }

    /// Of the labels that make the group, in any order. All samples of an info family are one group.
    fn hash(&self, seen: &Seen<'_, '_>, suffix: &str) -> u64 {
        let apart = match (seen.kind, suffix) {
            (MetricKind::Info, _) => return 0,
            (MetricKind::Summary, "") => "quantile",
            (MetricKind::StateSet, _) => seen.family,
            (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => "le",
            _ => "",
        };
        let labels = seen.labels.iter().filter(|label| label.name != apart);
        labels.fold(1, |sum, label| {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(label.name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(label.value.as_bytes());
            sum.wrapping_add(hasher.finish())
        })
    }
}

/// The labels a type needs.
fn labels_fit(seen: &Seen<'_, '_>, suffix: &str) -> Verdict {
    let label = |name: &str| seen.labels.iter().find(|label| label.name == name).map(|label| &*label.value);
    match (seen.kind, suffix) {
        (MetricKind::StateSet, _) if label(seen.family).is_none() => Err("a state without the label of its name"),
        (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => match label("le").and_then(canonical) {
            Some(bound) if !bound.is_nan() => Ok(()),
            _ => Err("a bucket without a bound in `le`"),
        },
        (MetricKind::Summary, "") => match label("quantile").and_then(canonical) {
            Some(quantile) if (0.0..=1.0).contains(&quantile) => Ok(()),
            _ => Err("a summary's sample without a `quantile` from 0 to 1"),
        },
        _ => Ok(()),
    }
}

/// A number in a label. Infinity is written `+Inf` there and in no other way.
fn canonical(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number != f64::INFINITY || text == "+Inf").then_some(number)
}

/// The values a type may have.
fn value_fits(seen: &Seen<'_, '_>, suffix: &str) -> Verdict {
    let value = seen.value;
    let counts = match suffix {
        "_total" | "_sum" | "_count" | "_bucket" | "_gcount" => true,
        "_gsum" => false,
        _ => {
            return match seen.kind {
                MetricKind::Info if value != 1.0 => Err("an info sample that is not 1"),
                MetricKind::StateSet if value != 0.0 && value != 1.0 => Err("a state that is neither 0 nor 1"),
                MetricKind::Summary if suffix.is_empty() && value < 0.0 => Err("a quantile below 0"),
                _ => Ok(()),
            };
        }
    };
    if value.is_nan() {
        return Err("a count that is not a number");
    }
    if counts && value < 0.0 {
        return Err("a count or sum below 0");
    }
    if matches!(suffix, "_bucket" | "_count" | "_gcount") && value.fract() != 0.0 {
        return Err("a count of events that is no integer");
    }
    Ok(())
}

impl Buckets {
    fn take(&mut self, seen: &Seen<'_, '_>, suffix: &str) -> Verdict {
        match suffix {
            "_bucket" => {
                let le = seen.labels.iter().find(|label| label.name == "le").and_then(|label| canonical(&label.value));
                let Some(bound) = le else { return Ok(()) };
                self.has_negative_bound |= bound < 0.0;
                let before = self.last.replace((bound, seen.value));
                match before {
                    Some((last, _)) if bound <= last => Err("buckets out of order"),
                    Some((_, count)) if seen.value < count => Err("a bucket that counts less than the one before it"),
                    _ => Ok(()),
                }
            }
            "_count" | "_gcount" => {
                self.count = Some(seen.value);
                Ok(())
            }
            "_sum" | "_gsum" => {
                self.has_sum = true;
                self.has_negative_sum |= seen.value < 0.0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(self) -> Verdict {
        let Some((f64::INFINITY, total)) = self.last else { return Err("a histogram without its bucket `+Inf`") };
        match self.count {
            Some(count) if count != total => return Err("a histogram's count that is not that of its bucket `+Inf`"),
            Some(_) if !self.has_sum => return Err("a histogram with a count and no sum"),
            None if self.has_sum => return Err("a histogram with a sum and no count"),
            _ => {}
        }
        match (self.has_negative_bound, self.is_gauge) {
            (true, false) if self.has_sum => Err("a sum of a histogram with a bound below 0"),
            (false, true) if self.has_negative_sum => Err("a sum below 0 of buckets that are not"),
            _ => Ok(()),
        }
    }
}
