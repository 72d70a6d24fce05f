//! Sets of row numbers as ranges.
//!
//! A batch without gaps is one range however many rows it has, and asking for a run of numbers costs the same as asking for one.

/// Most ranges of one batch. A sender whose numbers have more gaps than this loses the lowest half of them: rows that far
/// back would then be stored again, not lost.
pub(crate) const MAX_RANGES: usize = 65_536;

/// Numbers seen, as sorted ranges with inclusive ends that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<(i64, i64)>,
}

impl Ranges {
    /// Adds `first..=last` and calls `new` with each part of it that was not in, in order. `first <= last`.
    pub fn add(&mut self, first: i64, last: i64, mut new: impl FnMut(i64, i64)) {
        if let Some(top) = self.ranges.last_mut() {
            if first > top.1 {
                new(first, last);
                if first == top.1 + 1 {
                    top.1 = last;
                } else {
                    self.push(first, last);
                }
                return;
            }
            if first >= top.0 && last <= top.1 {
                return;
            }
        } else {
            new(first, last);
            self.ranges.push((first, last));
            return;
        }
        self.insert(first, last, new);
    }

    /// The general case: ranges that touch `first..=last` become one with it.
    fn insert(&mut self, first: i64, last: i64, mut new: impl FnMut(i64, i64)) {
        let from = self.ranges.partition_point(|range| range.1 < first.saturating_sub(1));
        let mut merged = (first, last);
        let mut unseen = Some(first);
        let mut to = from;
        while let Some(range) = self.ranges.get(to).filter(|range| range.0 <= last.saturating_add(1)) {
            if let Some(at) = unseen.filter(|at| *at < range.0) {
                new(at, last.min(range.0 - 1));
            }
            unseen = unseen.max(range.1.checked_add(1)).filter(|_| range.1 < i64::MAX);
            merged = (merged.0.min(range.0), merged.1.max(range.1));
            to += 1;
        }
        if let Some(at) = unseen.filter(|at| *at <= last) {
            new(at, last);
        }
        self.ranges.splice(from..to, [merged]);
        self.bound();
    }

    fn push(&mut self, first: i64, last: i64) {
        self.ranges.push((first, last));
        self.bound();
    }

    fn bound(&mut self) {
        if self.ranges.len() > MAX_RANGES {
            self.ranges.drain(..MAX_RANGES / 2);
        }
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.ranges.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn added(ranges: &mut Ranges, first: i64, last: i64) -> Vec<i64> {
        let mut new = Vec::new();
        ranges.add(first, last, |a, b| new.extend(a..=b));
        new
    }

    #[test]
    fn a_gapless_batch_is_one_range_and_the_ends_of_the_number_line_are_safe() {
        let mut ranges = Ranges::default();
        for message in 0..100 {
            assert_eq!(added(&mut ranges, message * 8, message * 8 + 7).len(), 8);
        }
        assert_eq!(ranges.len(), 1);
        assert!(added(&mut ranges, 5, 700).is_empty());
        let mut seen = Vec::new();
        for (first, last) in
            [(i64::MAX - 1, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN + 1), (i64::MAX - 2, i64::MAX)]
        {
            ranges.add(first, last, |a, b| seen.push((a, b)));
        }
        assert_eq!(seen, [(i64::MAX - 1, i64::MAX), (i64::MIN, i64::MIN + 1), (i64::MAX - 2, i64::MAX - 2)]);
    }

    #[test]
    fn a_batch_of_gaps_stays_bounded() {
        let mut ranges = Ranges::default();
        for number in 0..(MAX_RANGES as i64 + 10) {
            added(&mut ranges, number * 2, number * 2);
        }
        assert!(ranges.len() <= MAX_RANGES);
        assert!(added(&mut ranges, MAX_RANGES as i64 * 2, MAX_RANGES as i64 * 2).is_empty());
    }

    proptest! {
        /// Scenario: runs of numbers in any order, overlapping, touching and apart.
        /// Guarantees: each number is new exactly once, and the ranges stay sorted, apart and complete.
        #[test]
        fn ranges_are_a_set(runs in prop::collection::vec((0i64..60, 0i64..12), 1..40)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (first, length) in runs {
                let expected: Vec<i64> = (first..=first + length).filter(|n| set.insert(*n)).collect();
                prop_assert_eq!(added(&mut ranges, first, first + length), expected);
                let all: Vec<(i64, i64)> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(all.iter().flat_map(|(a, b)| *a..=*b).collect::<BTreeSet<_>>(), set.clone());
            }
        }
    }
}
