//! Sets of instants as stretches of time: a backlog of days is one stretch, however many windows it covers.

use airan_model::time::Micros;

/// A set of instants, as stretches `[from, to)` in order that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    spans: Vec<(Micros, Micros)>,
}

impl Spans {
    /// The instants from `from` up to, but without, `to`.
    pub fn of(from: Micros, to: Micros) -> Spans {
        let mut spans = Spans::default();
        spans.add(from, to);
        spans
    }

    /// Adds a stretch; empty where `from` is not before `to`.
    pub fn add(&mut self, from: Micros, to: Micros) {
        if from >= to {
            return;
        }
        let first = self.spans.partition_point(|span| span.1 < from);
        let past = first + self.spans[first..].partition_point(|span| span.0 <= to);
        let merged =
            self.spans[first..past].iter().fold((from, to), |all, span| (all.0.min(span.0), all.1.max(span.1)));
        self.spans.splice(first..past, [merged]);
    }

    /// Adds every instant of `other`.
    pub fn add_all(&mut self, other: &Spans) {
        other.iter().for_each(|(from, to)| self.add(from, to));
    }

    /// Takes every instant of `other` out.
    pub fn remove_all(&mut self, other: &Spans) {
        if other.is_empty() || self.is_empty() {
            return;
        }
        let mut left = Vec::with_capacity(self.spans.len());
        let mut taken = other.spans.iter().copied().peekable();
        for (mut from, to) in self.spans.iter().copied() {
            while taken.next_if(|span| span.1 <= from).is_some() {}
            while let Some(span) = taken.peek().filter(|span| span.0 < to) {
                if from < span.0 {
                    left.push((from, span.0));
                }
                from = from.max(span.1);
                if span.1 > to {
                    break;
                }
                taken.next();
            }
            if from < to {
                left.push((from, to));
            }
        }
        self.spans = left;
    }

    /// The instants that are in both.
    pub fn both(&self, other: &Spans) -> Spans {
        let mut rest = self.clone();
        rest.remove_all(other);
        let mut both = self.clone();
        both.remove_all(&rest);
        both
    }

    /// The instants before `end`.
    pub fn before(&self, end: Micros) -> Spans {
        let cut = self.iter().map(|(from, to)| (from, to.min(end))).filter(|(from, to)| from < to);
        Spans { spans: cut.collect() }
    }

    /// The first instants, `total` of them.
    pub fn first(&self, total: Micros) -> Spans {
        let (mut first, mut left) = (Spans::default(), total);
        for (from, to) in self.iter() {
            if left <= 0 {
                break;
            }
            let end = to.min(from.saturating_add(left));
            left = left.saturating_sub(end.saturating_sub(from));
            first.add(from, end);
        }
        first
    }

    /// Whether `at` is in it.
    #[cfg(test)]
    pub fn contains(&self, at: Micros) -> bool {
        let next = self.spans.partition_point(|span| span.1 <= at);
        self.spans.get(next).is_some_and(|span| span.0 <= at)
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many stretches.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The stretches, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Micros, Micros)> + '_ {
        self.spans.iter().copied()
    }

    /// The length of all stretches together.
    pub fn total(&self) -> Micros {
        self.iter().fold(0, |sum, (from, to)| sum.saturating_add(to.saturating_sub(from)))
    }

    /// Joins neighbours, the nearest first, until there are at most `most` stretches; what lies between them is then in it.
    pub fn coarsen(&mut self, most: usize) {
        let most = most.max(1);
        if self.spans.len() <= most {
            return;
        }
        let mut gaps: Vec<Micros> = self.spans.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
        let joins = self.spans.len() - most;
        let (_, widest, _) = gaps.select_nth_unstable(joins - 1);
        let widest = *widest;
        let mut coarse: Vec<(Micros, Micros)> = Vec::with_capacity(most);
        for (from, to) in self.spans.drain(..) {
            match coarse.last_mut() {
                Some(last) if from - last.1 <= widest => last.1 = to,
                _ => coarse.push((from, to)),
            }
        }
        self.spans = coarse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(spans: &Spans) -> BTreeSet<i64> {
        spans.iter().flat_map(|(from, to)| from..to).collect()
    }

    fn stretches() -> impl Strategy<Value = Vec<(i64, i64)>> {
        prop::collection::vec((-30i64..30, 0i64..8).prop_map(|(from, length)| (from, from + length)), 0..12)
    }

    fn spans(stretches: &[(i64, i64)]) -> Spans {
        let mut spans = Spans::default();
        stretches.iter().for_each(|(from, to)| spans.add(*from, *to));
        spans
    }

    proptest! {
        /// Scenario: stretches in any order, empty, touching, overlapping and apart.
        /// Guarantees: adding, taking out, cutting and asking say what sets of instants would; stretches stay in order and apart.
        #[test]
        fn spans_are_sets(a in stretches(), b in stretches(), end in -30i64..30) {
            let (left, right) = (spans(&a), spans(&b));
            let apart = |spans: &Spans| {
                let all: Vec<_> = spans.iter().collect();
                all.iter().all(|span| span.0 < span.1) && all.windows(2).all(|pair| pair[0].1 < pair[1].0)
            };
            let (x, y) = (set(&left), set(&right));
            prop_assert_eq!(&x, &a.iter().flat_map(|(from, to)| *from..*to).collect::<BTreeSet<_>>());
            let mut sum = left.clone();
            sum.add_all(&right);
            prop_assert_eq!(set(&sum), &x | &y);
            let mut rest = left.clone();
            rest.remove_all(&right);
            prop_assert_eq!(set(&rest), &x - &y);
            prop_assert_eq!(set(&left.both(&right)), &x & &y);
            prop_assert_eq!(set(&left.before(end)), x.iter().copied().filter(|at| *at < end).collect::<BTreeSet<_>>());
            prop_assert_eq!(left.total(), x.len() as i64);
            prop_assert_eq!(set(&left.first(end)), x.iter().copied().take(end.max(0) as usize).collect::<BTreeSet<_>>());
            prop_assert!((-35..35).all(|at| left.contains(at) == x.contains(&at)));
            prop_assert!(apart(&left) && apart(&sum) && apart(&rest) && apart(&left.both(&right)));
        }

        /// Guarantees: coarser stretches are at most as many as asked for and hold everything the fine ones did.
        #[test]
        fn coarser_spans_lose_nothing(a in stretches(), most in 1usize..5) {
            let fine = spans(&a);
            let mut coarse = fine.clone();
            coarse.coarsen(most);
            prop_assert!(coarse.len() <= most && set(&coarse).is_superset(&set(&fine)));
            prop_assert!(fine.len() > most || coarse == fine);
        }
    }
}
