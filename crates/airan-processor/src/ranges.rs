//! Sets of row numbers as ranges.
//!
//! Each range keeps the times of the rows at its ends, so what lies between two ranges has a place in time.
//!
//! A batch without gaps is one range however many rows it has, and asking for a run of numbers costs the same as asking for one.

use airan_model::time::Micros;

/// Most ranges of one batch. A sender whose numbers have more gaps than this loses the lowest half of them: rows that far
/// back would then be stored again, not lost.
pub(crate) const MAX_RANGES: usize = 65_536;

/// A run of numbers with the times of the rows at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub first: i64,
    pub last: i64,
    /// Time of the row numbered `first`.
    pub from: Micros,
    /// Time of the row numbered `last`.
    pub to: Micros,
}

/// Numbers seen, as sorted ranges with inclusive ends that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<Range>,
}

impl Range {
    /// The range over both, with the times of its own ends.
    fn with(self, other: Range) -> Range {
        let (low, high) =
            (if self.first <= other.first { self } else { other }, if self.last >= other.last { self } else { other });
        Range { first: low.first, from: low.from, last: high.last, to: high.to }
    }
}

impl Ranges {
    /// Adds a run and calls `new` with each part of it that was not in, in order. `first <= last`.
    pub fn add(&mut self, run: Range, mut new: impl FnMut(i64, i64)) {
        let Range { first, last, .. } = run;
        if let Some(top) = self.ranges.last_mut() {
            if first > top.last {
                new(first, last);
                if first == top.last + 1 {
                    (top.last, top.to) = (last, run.to);
                } else {
                    self.push(run);
                }
                return;
            }
            if first >= top.first && last <= top.last {
                return;
            }
        } else {
            new(first, last);
            self.ranges.push(run);
            return;
        }
        self.insert(run, new);
    }

    /// The general case: ranges that touch `first..=last` become one with it.
    fn insert(&mut self, run: Range, mut new: impl FnMut(i64, i64)) {
        let Range { first, last, .. } = run;
        let from = self.ranges.partition_point(|range| range.last < first.saturating_sub(1));
        let mut merged = run;
        let mut unseen = Some(first);
        let mut to = from;
        while let Some(range) = self.ranges.get(to).filter(|range| range.first <= last.saturating_add(1)) {
            if let Some(at) = unseen.filter(|at| *at < range.first) {
                new(at, last.min(range.first - 1));
            }
            unseen = unseen.max(range.last.checked_add(1)).filter(|_| range.last < i64::MAX);
            merged = range.with(merged);
            to += 1;
        }
        if let Some(at) = unseen.filter(|at| *at <= last) {
            new(at, last);
        }
        self.ranges.splice(from..to, [merged]);
        self.bound();
    }

    fn push(&mut self, run: Range) {
        self.ranges.push(run);
        self.bound();
    }

    fn bound(&mut self) {
        if self.ranges.len() > MAX_RANGES {
            self.ranges.drain(..MAX_RANGES / 2);
        }
    }

    /// Where a gap was or is, if adding `run` would make one, or fill one in part: the times at its edges. None where `run`
    /// goes on where the newest range ends, or is in already.
    pub fn gap_around(&self, run: Range) -> Option<(Micros, Micros)> {
        let top = self.ranges.last()?;
        if run.first == top.last.saturating_add(1) || (run.first >= top.first && run.last <= top.last) {
            return None;
        }
        let next = self.ranges.partition_point(|range| range.last < run.first);
        let before = next.checked_sub(1).map_or(run.from, |place| self.ranges[place].to);
        let after = self.ranges[next..].iter().find(|range| range.first > run.last).map_or(run.to, |range| range.from);
        Some((before.min(after), before.max(after)))
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().copied()
    }

    /// What lies between the ranges: how many numbers, and the times at the two edges.
    pub fn gaps(&self) -> impl Iterator<Item = (u64, (Micros, Micros))> + '_ {
        self.ranges.windows(2).map(|pair| {
            let missing = i128::from(pair[1].first) - i128::from(pair[0].last) - 1;
            (u64::try_from(missing).unwrap_or(u64::MAX), (pair[0].to, pair[1].from))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Row `n` is of the time `10 n`.
    fn run(first: i64, last: i64) -> Range {
        Range { first, last, from: first.wrapping_mul(10), to: last.wrapping_mul(10) }
    }

    fn added(ranges: &mut Ranges, first: i64, last: i64) -> Vec<i64> {
        let mut new = Vec::new();
        ranges.add(run(first, last), |a, b| new.extend(a..=b));
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
            ranges.add(run(first, last), |a, b| seen.push((a, b)));
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
                prop_assert!(ranges.iter().all(|range| range == run(range.first, range.last)), "times stay with their rows");
                let all: Vec<(i64, i64)> = ranges.iter().map(|range| (range.first, range.last)).collect();
                let holes: u64 = all.windows(2).map(|pair| (pair[1].0 - pair[0].1 - 1) as u64).sum();
                prop_assert_eq!(ranges.gaps().map(|gap| gap.0).sum::<u64>(), holes);
                prop_assert!(all.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(all.iter().flat_map(|(a, b)| *a..=*b).collect::<BTreeSet<_>>(), set.clone());
            }
        }
    }
}
