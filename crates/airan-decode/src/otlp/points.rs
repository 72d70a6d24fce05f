//! Points with more than a number: exponential histograms and summaries, from either encoding.
//!
//! An exponential histogram keeps its scale in its bounds: see [`exponential`](crate::exponential). One of deltas lands where any
//! histogram does; a cumulative one is a row of `sample`, because its bounds change as it fills. A summary becomes the lines
//! that Prometheus text has for it: `name{quantile="…"}`, `name_sum` and `name_count`, each a sample; its count and sum are
//! cumulative (`metrics.proto`, `SummaryDataPoint`).

use airan_model::reject::Reason;

use super::{NO_RECORDED_VALUE, Sink, Times, point};
use crate::exponential::Exponential;
use crate::labels::Label;
use crate::number::Number;
use crate::rows::MetricKind;

/// The label of a summary's line that says which quantile it is.
const QUANTILE: &str = "quantile";

/// An `ExponentialHistogramDataPoint` without attributes and times.
#[derive(Debug, Default)]
pub(super) struct ExponentialPoint {
    pub count: u64,
    pub sum: Option<f64>,
    pub scale: i64,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Buckets,
    pub negative: Buckets,
}

/// Buckets above or below zero.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub offset: i64,
    /// (index from `offset`, count), of those that hold something.
    filled: Vec<(i64, i64)>,
    next: i64,
}

impl Buckets {
    pub(super) fn push(&mut self, count: u64) {
        if count > 0 {
            // A count above i64 is none: the histogram's check refuses what is negative.
            self.filled.push((self.next, i64::try_from(count).unwrap_or(-1)));
        }
        self.next += 1;
    }

    fn shifted(&self) -> Result<Vec<(i64, i64)>, &'static str> {
        let shift = |(index, count): &(i64, i64)| index.checked_add(self.offset).map(|index| (index, *count));
        self.filled.iter().map(shift).collect::<Option<_>>().ok_or("a bucket's index is out of range")
    }
}

/// A `SummaryDataPoint` without attributes and times.
#[derive(Debug, Default)]
pub(super) struct SummaryPoint {
    pub count: u64,
    pub sum: f64,
    /// (quantile, value)
    pub quantiles: Vec<(f64, f64)>,
}

impl<'b> Sink<'_, 'b> {
    /// An exponential histogram point, whose attributes have been read.
    pub(super) fn exponential(&mut self, times: Times, parts: &ExponentialPoint) {
        let counted = |count: u64| i64::try_from(count).map_err(|_| "a count is no number of events");
        let whole = || {
            let made = Exponential {
                scale: i32::try_from(parts.scale).map_err(|_| "a scale out of range")?,
                zero_threshold: parts.zero_threshold,
                zero_count: counted(parts.zero_count)?,
                negative: &parts.negative.shifted()?,
                positive: &parts.positive.shifted()?,
                count: counted(parts.count)?,
                sum: parts.sum.filter(|sum| sum.is_finite()),
            };
            let made = made.with_bounds()?;
            made.check().map(|()| made)
        };
        if let Some((reason, what)) = self.fault() {
            return self.refuse(reason, what);
        }
        if times.flags & NO_RECORDED_VALUE != 0 {
            let point = point(&self.labels, &self.shared, self.node, self.is_delta, times);
            return self.rows.sentinel(&point);
        }
        match whole() {
            Err(what) => self.refuse(Reason::Malformed, what),
            Ok(histogram) => {
                let point = point(&self.labels, &self.shared, self.node, self.is_delta, times);
                self.rows.histogram(&point, &histogram, 1);
            }
        }
    }

    /// A summary point, whose attributes have been read.
    pub(super) fn summary(&mut self, times: Times, parts: &SummaryPoint) {
        if let Some((reason, what)) = self.fault() {
            return self.refuse(reason, what);
        }
        let name = self.name.clone();
        let mut labels: Vec<Label<'b>> = self.labels.kept().to_vec();
        let at = point(&self.labels, &self.shared, self.node, false, times);
        if times.flags & NO_RECORDED_VALUE != 0 {
            return self.rows.sentinel(&at);
        }
        if labels.iter().any(|label| label.name == QUANTILE) && !parts.quantiles.is_empty() {
            return self.refuse(Reason::Malformed, "a summary with an attribute `quantile` of its own");
        }
        for (suffix, number) in [
            ("_sum", Number::Float(parts.sum)),
            ("_count", i64::try_from(parts.count).map_or(Number::Float(parts.count as f64), Number::Int)),
        ] {
            self.rows.metric(&format!("{name}{suffix}"), MetricKind::Summary);
            self.rows.number(&at, number);
        }
        self.rows.metric(&name, MetricKind::Summary);
        for (quantile, value) in &parts.quantiles {
            labels.push(Label { name: QUANTILE.into(), value: quantile.to_string().into() });
            self.rows.number(&crate::rows::Point { labels: &labels, ..at }, Number::Float(*value));
            labels.pop();
        }
    }
}
