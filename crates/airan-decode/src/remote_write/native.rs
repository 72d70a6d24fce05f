//! Prometheus' native histograms, both of remote write 1.0 and 2.0 (`types.proto`): one message, the same field numbers.
//!
//! Integer histograms are taken, exponential (schemas −4 to 8) and with custom bounds (schema −53). Float histograms come from
//! recording rules; one whose counts are all integers is taken, any other is no count of events and refused.

use crate::exponential::Exponential;
use crate::histogram::Histogram;
use crate::wire::{Fault, Message, Value, zigzag};

/// Schema of histograms with custom bounds.
const CUSTOM: i64 = -53;

/// A sample of a native histogram.
#[derive(Debug)]
pub(super) struct NativeSample {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Since when it counts, milliseconds since 1970; 0 where that is not said.
    pub start: i64,
    /// None for a stale marker: the series has ended.
    pub histogram: Option<Result<Histogram, &'static str>>,
}

/// What the message says, before it is judged.
#[derive(Default)]
struct Parts {
    count: Count,
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    zero_count: Count,
    negative: Side,
    positive: Side,
    custom: Vec<f64>,
}

/// A number of events; None where it is no integer below 2^63.
#[derive(Clone, Copy)]
struct Count(Option<i64>);

impl Default for Count {
    fn default() -> Count {
        Count(Some(0))
    }
}

impl Count {
    fn of_int(count: u64) -> Count {
        Count(i64::try_from(count).ok())
    }

    fn of_float(count: f64) -> Count {
        let is_count = (0.0..2f64.powi(63)).contains(&count) && count.fract() == 0.0;
        Count(is_count.then_some(count as i64))
    }
}

/// Buckets above or below zero.
#[derive(Default)]
struct Side {
    // (offset from the end of the span before, length)
    spans: Vec<(i64, u64)>,
    counts: Vec<Count>,
    // Deltas of integer histograms add up.
    last: i64,
}

/// Reads one sample.
pub(super) fn read(message: Message<'_>) -> Result<NativeSample, Fault> {
    let mut parts = Parts::default();
    let (mut time, mut start) = (0, 0);
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Varint(count)) => parts.count = Count::of_int(count),
            (2, Value::Fixed64(bits)) => parts.count = Count::of_float(f64::from_bits(bits)),
            (3, Value::Fixed64(bits)) => parts.sum = f64::from_bits(bits),
            (4, Value::Varint(schema)) => parts.schema = zigzag(schema),
            (5, Value::Fixed64(bits)) => parts.zero_threshold = f64::from_bits(bits),
            (6, Value::Varint(count)) => parts.zero_count = Count::of_int(count),
            (7, Value::Fixed64(bits)) => parts.zero_count = Count::of_float(f64::from_bits(bits)),
            (8, Value::Bytes(span)) => parts.negative.span(span)?,
            (9, deltas) => parts.negative.deltas(deltas)?,
            (10, counts) => parts.negative.floats(counts)?,
            (11, Value::Bytes(span)) => parts.positive.span(span)?,
            (12, deltas) => parts.positive.deltas(deltas)?,
            (13, counts) => parts.positive.floats(counts)?,
            (15, Value::Varint(millis)) => time = millis as i64,
            (16, Value::Bytes(bounds)) => parts.custom.extend(bounds.packed()?.map(f64::from_bits)),
            (16, Value::Fixed64(bits)) => parts.custom.push(f64::from_bits(bits)),
            (17, Value::Varint(millis)) => start = millis as i64,
            _ => {}
        }
        Ok(())
    })?;
    let is_stale = parts.sum.to_bits() == super::STALE;
    Ok(NativeSample { time, start, histogram: (!is_stale).then(|| parts.histogram()) })
}

impl Parts {
    fn histogram(self) -> Result<Histogram, &'static str> {
        let count = |count: Count| count.0.ok_or("a native histogram whose counts are no integers");
        let (total, zero) = (count(self.count)?, count(self.zero_count)?);
        let sum = Some(self.sum).filter(|sum| sum.is_finite());
        let (negative, positive) = (self.negative.buckets()?, self.positive.buckets()?);
        let made = if self.schema == CUSTOM {
            let mut counts = vec![0; self.custom.len() + 1];
            for (index, count) in positive {
                let slot = usize::try_from(index).ok().and_then(|index| counts.get_mut(index));
                *slot.ok_or("a bucket beyond the custom bounds")? = count;
            }
            Histogram { bounds: self.custom, counts, sum, count: total }
        } else {
            let scale = i32::try_from(self.schema).map_err(|_| "a schema nobody knows")?;
            // Prometheus' bucket `i` ends at the i-th power of the base, OTLP's begins there.
            let shifted = |buckets: Vec<(i64, i64)>| -> Vec<(i64, i64)> {
                buckets.into_iter().map(|(index, count)| (index - 1, count)).collect()
            };
            let (negative, positive) = (shifted(negative), shifted(positive));
            Exponential {
                scale,
                zero_threshold: self.zero_threshold,
                zero_count: zero,
                negative: &negative,
                positive: &positive,
                count: total,
                sum,
            }
            .with_bounds()?
        };
        made.check().map(|()| made)
    }
}

impl Side {
    fn span(&mut self, span: Message<'_>) -> Result<(), Fault> {
        let (mut offset, mut length) = (0, 0);
        span.each::<Fault>(|field| {
            match field {
                (1, Value::Varint(number)) => offset = zigzag(number),
                (2, Value::Varint(number)) => length = number,
                _ => {}
            }
            Ok(())
        })?;
        self.spans.push((offset, length));
        Ok(())
    }

    fn deltas(&mut self, value: Value<'_>) -> Result<(), Fault> {
        let mut add = |delta: u64| {
            self.last = self.last.wrapping_add(zigzag(delta));
            self.counts.push(Count(Some(self.last).filter(|count| *count >= 0)));
            Ok(())
        };
        match value {
            Value::Varint(delta) => add(delta),
            Value::Bytes(deltas) => deltas.packed_varints(add),
            _ => Ok(()),
        }
    }

    fn floats(&mut self, value: Value<'_>) -> Result<(), Fault> {
        match value {
            Value::Fixed64(bits) => self.counts.push(Count::of_float(f64::from_bits(bits))),
            Value::Bytes(counts) => self.counts.extend(counts.packed()?.map(f64::from_bits).map(Count::of_float)),
            _ => {}
        }
        Ok(())
    }

    /// (index, count), index rising.
    fn buckets(self) -> Result<Vec<(i64, i64)>, &'static str> {
        const MISMATCH: &str = "a native histogram whose spans do not fit its counts";
        let length = self.spans.iter().try_fold(0u64, |sum, (_, length)| sum.checked_add(*length));
        if length != Some(self.counts.len() as u64) {
            return Err(MISMATCH);
        }
        let (mut buckets, mut counts, mut index) =
            (Vec::with_capacity(self.counts.len()), self.counts.into_iter(), 0i64);
        for (at, (offset, length)) in self.spans.into_iter().enumerate() {
            if at > 0 && offset < 0 {
                return Err(MISMATCH);
            }
            index = index.checked_add(offset).ok_or(MISMATCH)?;
            for count in counts.by_ref().take(usize::try_from(length).map_err(|_| MISMATCH)?) {
                let count = count.0.ok_or("a native histogram whose counts are no integers")?;
                buckets.push((index, count));
                index = index.checked_add(1).ok_or(MISMATCH)?;
            }
        }
        Ok(buckets)
    }
}
