//! Exponential histograms (OTLP) and native histograms (Prometheus) as bounds and counts, exactly.
//!
//! With scale `s` the bounds are the powers of 2^(2^-s) (opentelemetry.io, "Metrics data model", ExponentialHistogram). Only
//! buckets that hold something are written, each with its two bounds; what lies between them is one empty bucket. Two
//! histograms of one scale therefore merge exactly over the union of their bounds: a bound of one never splits a bucket of the
//! other that holds something. The zero bucket of threshold 0 is given the width that no other bucket can lie in.
//!
//! A bound is computed with products and square roots alone, which IEEE 754 rounds the same everywhere, so every process writes
//! the same bits for it.

use crate::histogram::Histogram;

/// Scales there are: OTLP allows any, Prometheus −4 to 8; beyond these, one bucket holds all floats or less than one.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

const BEYOND: &str = "a bucket beyond the numbers a float holds, or over the one before it";

/// Buckets one histogram may fill. SDKs keep 160, Prometheus a few hundred.
const BUCKETS_MAX: usize = 4_096;

/// 2^(index × 2^-scale). Infinity beyond what a float holds, 0 below.
pub(crate) fn bound(scale: i32, index: i64) -> f64 {
    if scale <= 0 {
        return power_of_two(index.saturating_mul(1 << (-scale).min(40)));
    }
    let (whole, rest) = (index >> scale, index & ((1 << scale) - 1));
    let (mut product, mut root) = (1.0, 2.0f64);
    for bit in (0..scale).rev() {
        root = root.sqrt();
        if rest >> bit & 1 == 1 {
            product *= root;
        }
    }
    product * power_of_two(whole)
}

fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..1024 => f64::from_bits(((exponent + 1023) as u64) << 52),
        // Below the smallest normal number there are no equal bounds any more.
        _ => 0.0,
    }
}

/// An exponential histogram, put together bucket by bucket.
///
/// `negative` and `positive` give (index, count) with rising index; bucket `index` holds absolute values above
/// `bound(index)` up to `bound(index + 1)`, as in OTLP. In Prometheus `index` is one higher.
#[derive(Debug)]
pub(crate) struct Exponential<'c> {
    pub scale: i32,
    /// Values of at most this magnitude are in the zero bucket.
    pub zero_threshold: f64,
    pub zero_count: i64,
    pub negative: &'c [(i64, i64)],
    pub positive: &'c [(i64, i64)],
    pub count: i64,
    pub sum: Option<f64>,
}

impl Exponential<'_> {
    /// The same with bounds. The counts of the buckets are not compared with `count` yet: see [`Histogram::check`].
    ///
    /// # Errors
    /// If it cannot be written with finite bounds.
    pub(crate) fn with_bounds(&self) -> Result<Histogram, &'static str> {
        if !SCALES.contains(&self.scale) {
            return Err("a scale out of range");
        }
        if self.negative.len() + self.positive.len() > BUCKETS_MAX {
            return Err("too many buckets");
        }
        if !(0.0..f64::INFINITY).contains(&self.zero_threshold) {
            return Err("a zero threshold that is none");
        }
        let mut made = Sparse::default();
        let ends = |index: i64| {
            let ends = (bound(self.scale, index), bound(self.scale, index.saturating_add(1)));
            if ends.0 < ends.1 { Ok(ends) } else { Err(BEYOND) }
        };
        for (index, count) in self.negative.iter().rev() {
            let (inner, outer) = ends(*index)?;
            made.add(-outer, -inner, *count)?;
        }
        let zero = if self.zero_threshold == 0.0 { f64::MIN_POSITIVE } else { self.zero_threshold };
        made.add(-zero, self.zero_threshold, self.zero_count)?;
        for (index, count) in self.positive {
            let (inner, outer) = ends(*index)?;
            made.add(inner, outer, *count)?;
        }
        made.counts.push(made.beyond);
        Ok(Histogram { bounds: made.bounds, counts: made.counts, sum: self.sum, count: self.count })
    }
}

/// Buckets so far, from the lowest on.
#[derive(Debug, Default)]
struct Sparse {
    bounds: Vec<f64>,
    counts: Vec<i64>,
    /// Of values above every finite bound.
    beyond: i64,
}

impl Sparse {
    fn add(&mut self, lower: f64, upper: f64, count: i64) -> Result<(), &'static str> {
        if count == 0 {
            return Ok(());
        }
        let last = self.bounds.last().copied();
        if last.is_some_and(|last| upper <= last) {
            return Err(BEYOND);
        }
        if lower < upper && lower.is_finite() && last.is_none_or(|last| lower > last) {
            self.bounds.push(lower);
            self.counts.push(0);
        }
        if upper == f64::INFINITY {
            self.beyond += count;
        } else {
            self.bounds.push(upper);
            self.counts.push(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(
        negative: &[(i64, i64)],
        zero: (f64, i64),
        positive: &[(i64, i64)],
    ) -> Result<Histogram, &'static str> {
        let total = |part: &[(i64, i64)]| part.iter().map(|(_, count)| count).sum::<i64>();
        let count = total(negative) + zero.1 + total(positive);
        let made = Exponential {
            scale: 0,
            zero_threshold: zero.0,
            zero_count: zero.1,
            negative,
            positive,
            count,
            sum: Some(1.0),
        };
        let histogram = made.with_bounds()?;
        histogram.check().map(|()| histogram)
    }

    /// Scenario: bounds of scales from one bucket for all numbers to a million for each factor of two.
    /// Guarantees: they are the powers of 2^(2^-scale) to a few units in the last place, exact where those are powers of two.
    #[test]
    fn bounds_are_powers_of_the_base() {
        assert_eq!((bound(0, 3), bound(0, -2), bound(-1, 2), bound(-10, 1)), (8.0, 0.25, 16.0, f64::INFINITY));
        assert_eq!((bound(3, 8), bound(3, -8), bound(20, 1 << 20)), (2.0, 0.5, 2.0));
        assert_eq!((bound(0, 1024), bound(0, -1100)), (f64::INFINITY, 0.0));
        for (scale, index) in [(1, 1), (2, 3), (3, -5), (8, 1_000), (20, 123_456)] {
            let expected = (index as f64 / f64::from(1 << scale)).exp2();
            let found = bound(scale, index);
            assert!((found / expected - 1.0).abs() < 2e-15, "{scale} {index}: {found} {expected}");
        }
    }

    #[test]
    fn only_filled_buckets_are_written_with_both_their_bounds() {
        let made = histogram(&[(0, 2), (2, 1)], (0.0, 4), &[(0, 5), (1, 6), (4, 7)]).unwrap();
        assert_eq!(made.bounds, [-8.0, -4.0, -2.0, -1.0, -f64::MIN_POSITIVE, 0.0, 1.0, 2.0, 4.0, 16.0, 32.0]);
        assert_eq!(made.counts, [0, 1, 0, 2, 0, 4, 0, 5, 6, 0, 7, 0]);
        let wide_zero = histogram(&[], (1.5, 3), &[(0, 1)]).unwrap();
        assert_eq!((wide_zero.bounds, wide_zero.counts), (vec![-1.5, 1.5, 2.0], vec![0, 3, 1, 0]));
        let empty = histogram(&[], (0.0, 0), &[]).unwrap();
        assert_eq!((empty.bounds, empty.counts), (vec![], vec![0]));
    }

    #[test]
    fn the_highest_bucket_reaches_to_infinity_and_none_lies_beyond() {
        let made = histogram(&[], (0.0, 0), &[(1023, 3)]).unwrap();
        assert_eq!((made.bounds, made.counts), (vec![bound(0, 1023)], vec![0, 3]));
        for (negative, zero, positive) in [
            (vec![], (0.0, 0), vec![(1024, 1)]),
            (vec![], (0.0, 0), vec![(-1200, 1)]),
            (vec![], (f64::NAN, 0), vec![]),
            (vec![], (-1.0, 0), vec![]),
            (vec![], (4.0, 1), vec![(0, 1)]),
        ] {
            assert!(histogram(&negative, zero, &positive).is_err(), "{negative:?} {zero:?} {positive:?}");
        }
    }
}
