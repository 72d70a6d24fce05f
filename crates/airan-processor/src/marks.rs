//! Windows to be restated, by pipeline and site.
//!
//! ```text
//! mark ─▶ fresh ──commit──▶ waiting ──a commit without a new mark──▶ due ──round──▶ at work ──commit──▶ gone
//!           ▲                  └─ at most PATIENCE commits ─────────▶                  └─ failed ─▶ due
//!           └── a mark made meanwhile is a mark of its own
//! ```
//!
//! A mark is made by a row that waits for its commit, and taken away by the commit that carries a restatement of its window
//! from *committed* rows only. A round reads what was committed when it began: the rows of every mark it works on, because a
//! mark becomes due only after its row was committed. What is marked while the round runs is fresh and stays. So no row can be
//! forgotten between the two (**W2**).
//!
//! Marks are stretches of time, and never dropped: beyond the limit neighbouring stretches are joined, so more windows are
//! restated than need be.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_model::time::{MINUTE, Micros};

use crate::spans::Spans;

/// Commits for which a window that keeps getting late rows waits before it is restated anyway. A backlog passes a window in
/// one or two commits; a node that trickles late rows for ever should still see its windows move.
const PATIENCE: usize = 4;

/// Log time without a new gap after which windows are restated for their completeness alone.
const GAP_REST: Micros = 10 * MINUTE;

/// Why a window is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Why {
    /// A row of it came late, or out of the order of event time; the rises of the rows that follow may change with it.
    Rows,
    /// Rows after it have no other rises: it is marked because of a row before it, or for rows without counters. It marks no
    /// further window.
    Rises,
    /// A gap in a sender's numbers began over it, or was filled: only its completeness changes. What fills the gap mostly comes
    /// right after, so it waits for [`GAP_REST`], and goes with a restatement that takes place anyway.
    Gaps,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Rows => "rows",
            Why::Rises => "rises",
            Why::Gaps => "gaps",
        }
    }

    /// Of a state; one without the column was written when there were only rows.
    pub fn of(name: Option<&str>) -> Why {
        match name {
            Some("rises") => Why::Rises,
            Some("gaps") => Why::Gaps,
            _ => Why::Rows,
        }
    }
}

/// Whose windows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub pipeline: Arc<str>,
    pub why: Why,
    pub site: Box<str>,
}

/// The marks of one key.
#[derive(Clone, Debug, Default)]
struct Mark {
    /// Log time of the first of them.
    since: Micros,
    /// … and of the last.
    touched: Micros,
    /// Made since the last commit.
    fresh: Spans,
    /// Committed, by the number of commits they have waited.
    waiting: [Spans; PATIENCE],
    /// For the next round.
    due: Spans,
    /// In the round under way.
    at_work: Spans,
}

impl Mark {
    fn all(&self) -> Spans {
        let mut all = self.due.clone();
        for part in [&self.fresh, &self.at_work].into_iter().chain(&self.waiting) {
            all.add_all(part);
        }
        all
    }

    fn len(&self) -> usize {
        self.fresh.len() + self.due.len() + self.at_work.len() + self.waiting.iter().map(Spans::len).sum::<usize>()
    }

    fn coarsen(&mut self, most: usize) {
        for part in [&mut self.fresh, &mut self.due].into_iter().chain(&mut self.waiting) {
            part.coarsen(most);
        }
    }
}

/// All marks of one shard.
#[derive(Debug)]
pub(crate) struct Marks {
    by: BTreeMap<Key, Mark>,
    stretches: usize,
    most: usize,
    /// Where the next round begins to look, so that a pipeline or site that fails holds up no other.
    next: Option<Key>,
    /// Times stretches were joined because there were too many.
    pub coarsened: u64,
}

impl Marks {
    /// At most `most` stretches, and one for each part of each key.
    pub fn new(most: usize) -> Marks {
        Marks { by: BTreeMap::new(), stretches: 0, most, next: None, coarsened: 0 }
    }

    /// Marks the windows in `[from, to)`.
    pub fn mark(&mut self, key: Key, from: Micros, to: Micros, log_time: Micros) {
        let mark = self.by.entry(key).or_insert_with(|| Mark { since: log_time, ..Mark::default() });
        mark.touched = log_time;
        let before = mark.fresh.len();
        mark.fresh.add(from, to);
        self.stretches = (self.stretches + mark.fresh.len()).saturating_sub(before);
        if self.stretches > self.most {
            self.coarsen();
        }
    }

    /// Takes back what a state held: its rows were committed before, so it is due.
    pub fn restore(&mut self, key: Key, (from, to): (Micros, Micros), since: Micros, touched: Micros) {
        let mark = self.by.entry(key).or_insert_with(|| Mark { since, ..Mark::default() });
        mark.since = mark.since.min(since);
        mark.touched = mark.touched.max(touched);
        mark.due.add(from, to);
        self.count();
    }

    /// Joins stretches until there is room for a tenth more.
    fn coarsen(&mut self) {
        let keys = self.by.len().max(1);
        let mut most = (self.most / keys).max(2);
        loop {
            self.by.values_mut().for_each(|mark| mark.coarsen(most));
            self.count();
            if most <= 1 || self.stretches <= self.most - self.most / 10 {
                break;
            }
            most /= 2;
        }
        self.coarsened += 1;
    }

    fn count(&mut self) {
        self.stretches = self.by.values().map(Mark::len).sum();
    }

    /// A commit has happened, or would say nothing new: marks move on by one.
    pub fn settle(&mut self) {
        for mark in self.by.values_mut() {
            let fresh = std::mem::take(&mut mark.fresh);
            let waiting = std::mem::take(&mut mark.waiting);
            mark.waiting[0] = fresh.clone();
            for (waited, spans) in waiting.into_iter().enumerate() {
                let noisy = spans.both(&fresh);
                let mut quiet = spans;
                quiet.remove_all(&noisy);
                mark.due.add_all(&quiet);
                if waited + 1 < PATIENCE {
                    mark.waiting[0].remove_all(&noisy);
                    mark.waiting[waited + 1].add_all(&noisy);
                } else {
                    // It gets no rest: restated now for the rows it has, and once more for the new ones.
                    mark.due.add_all(&noisy);
                }
            }
        }
        self.count();
    }

    /// Windows for a round: for each key its due stretches before `closed(pipeline)`, the start of the oldest window that has
    /// not closed in the last commit. `room` says which of them it gets. They are at work until [`Marks::done`] or
    /// [`Marks::give_back`].
    pub fn take(
        &mut self,
        log_time: Micros,
        closed: impl Fn(&str) -> Micros,
        mut room: impl FnMut(&Key, &Spans) -> Spans,
    ) -> Vec<(Key, Spans)> {
        let start = self.next.take();
        let after: Vec<Key> = match &start {
            Some(start) => self.by.range(start..).chain(self.by.range(..start)).map(|(key, _)| key.clone()).collect(),
            None => self.by.keys().cloned().collect(),
        };
        let mut taken = Vec::new();
        for key in after {
            let Some(mark) = self.by.get_mut(&key) else { continue };
            let ready = mark.due.before(closed(&key.pipeline));
            let rests = key.why == Why::Gaps && log_time.saturating_sub(mark.touched) < GAP_REST;
            if ready.is_empty() || rests {
                continue;
            }
            let given = room(&key, &ready);
            if given.is_empty() {
                self.next.get_or_insert(key);
                continue;
            }
            mark.due.remove_all(&given);
            mark.at_work.add_all(&given);
            taken.push((key, given));
        }
        for (key, given) in taken.iter().filter(|(key, _)| key.why != Why::Gaps) {
            // A restatement says of each window how complete it is.
            if let Some(gaps) = self.by.get_mut(&Key { why: Why::Gaps, ..key.clone() }) {
                let along = gaps.due.both(given);
                gaps.due.remove_all(&along);
                gaps.at_work.add_all(&along);
            }
        }
        self.count();
        taken
    }

    /// The commit that carries the restatement of these windows has been made up.
    pub fn done(&mut self, key: &Key, spans: &Spans) {
        for key in [key, &Key { why: Why::Gaps, ..key.clone() }] {
            if let Some(mark) = self.by.get_mut(key) {
                mark.at_work.remove_all(spans);
            }
        }
        self.tidy();
    }

    /// Every stretch of a key, in whatever state.
    pub fn of(&self, key: &Key) -> Spans {
        self.by.get(key).map(Mark::all).unwrap_or_default()
    }

    /// How many pipelines, reasons and sites have marks.
    pub fn keys(&self) -> usize {
        self.by.len()
    }

    /// Drops what is due before `at`, and says how many windows that was.
    pub fn drop_before(&mut self, at: Micros, width: impl Fn(&str) -> Micros) -> u64 {
        let mut dropped = 0;
        for (key, mark) in &mut self.by {
            let old = mark.due.before(at);
            if !old.is_empty() {
                dropped += (old.total() / width(&key.pipeline).max(1)).max(1) as u64;
                mark.due.remove_all(&old);
            }
        }
        if dropped > 0 {
            self.tidy();
        }
        dropped
    }

    /// What is at work and was not done goes back.
    pub fn give_back(&mut self) {
        for mark in self.by.values_mut() {
            let back = std::mem::take(&mut mark.at_work);
            mark.due.add_all(&back);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.by.retain(|_, mark| mark.len() > 0);
        self.count();
    }

    /// Every mark, for the state: key, log times of its first and last mark, all its stretches.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, (Micros, Micros), Spans)> {
        self.by.iter().map(|(key, mark)| (key, (mark.since, mark.touched), mark.all()))
    }

    /// Whether there is anything to be restated.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// How many stretches there are: of windows whose rows or rises change, and of those whose completeness does.
    pub fn stretches(&self) -> (usize, usize) {
        let gaps = self.by.iter().filter(|(key, _)| key.why == Why::Gaps).map(|(_, mark)| mark.len()).sum();
        (self.stretches - gaps, gaps)
    }

    /// Log time of the oldest mark of a window whose rows or rises change.
    pub fn oldest(&self) -> Option<Micros> {
        self.by.iter().filter(|(key, _)| key.why != Why::Gaps).map(|(_, mark)| mark.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(site: &str) -> Key {
        Key { pipeline: Arc::from("p"), why: Why::Rows, site: site.into() }
    }

    fn all(marks: &Marks) -> Vec<(String, Vec<(i64, i64)>)> {
        marks.iter().map(|(key, _, spans)| (key.site.to_string(), spans.iter().collect())).collect()
    }

    fn take(marks: &mut Marks, closed: i64) -> Vec<(i64, i64)> {
        let taken = marks.take(0, |_| closed, |_, ready| ready.clone());
        taken.iter().flat_map(|(_, spans)| spans.iter().collect::<Vec<_>>()).collect()
    }

    /// Scenario: a window is marked, marked again in the next commit, then left alone; another is not closed yet.
    /// Guarantees: a mark is never due before its row is committed; it waits for a commit without news; an open window waits.
    #[test]
    fn a_mark_is_due_after_a_quiet_commit_and_when_its_window_has_closed() {
        let mut marks = Marks::new(100);
        marks.mark(key("a"), 0, 10, 1);
        marks.mark(key("a"), 50, 60, 1);
        assert_eq!(take(&mut marks, 50), []);
        marks.settle();
        assert_eq!(take(&mut marks, 50), []);
        marks.mark(key("a"), 0, 10, 2);
        marks.settle();
        assert_eq!(take(&mut marks, 50), [], "it got another row");
        marks.settle();
        assert_eq!(take(&mut marks, 50), [(0, 10)]);
        assert_eq!(all(&marks), [("a".to_owned(), vec![(0, 10), (50, 60)])], "at work it is still in the state");
        marks.done(&key("a"), &Spans::of(0, 10));
        assert_eq!(all(&marks), [("a".to_owned(), vec![(50, 60)])]);
        assert_eq!(take(&mut marks, 60), [(50, 60)]);
        marks.done(&key("a"), &Spans::of(50, 60));
        assert!(marks.is_empty() && marks.stretches() == (0, 0));
    }

    /// Scenario: a window that gets a late row in every commit.
    /// Guarantees: it is restated after PATIENCE commits, and the rows that came since keep it marked.
    #[test]
    fn a_window_without_rest_is_restated_in_the_end_and_stays_marked() {
        let mut marks = Marks::new(100);
        for _ in 0..PATIENCE {
            marks.mark(key("a"), 0, 10, 0);
            marks.settle();
            assert_eq!(take(&mut marks, 99), []);
        }
        marks.mark(key("a"), 0, 10, 0);
        marks.settle();
        assert_eq!(take(&mut marks, 99), [(0, 10)]);
        marks.done(&key("a"), &Spans::of(0, 10));
        assert_eq!(all(&marks), [("a".to_owned(), vec![(0, 10)])]);
    }

    /// Scenario: a mark is made while its window is at work, and the round fails or succeeds.
    /// Guarantees: W2's ground: success takes only what was at work, failure gives it back.
    #[test]
    fn what_is_marked_during_a_round_outlives_it() {
        for fails in [false, true] {
            let mut marks = Marks::new(100);
            marks.restore(key("a"), (0, 20), 0, 0);
            assert_eq!(take(&mut marks, 99), [(0, 20)]);
            marks.mark(key("a"), 10, 20, 5);
            if fails {
                marks.give_back();
                assert_eq!(take(&mut marks, 99), [(0, 20)]);
            } else {
                marks.done(&key("a"), &Spans::of(0, 20));
            }
            marks.settle();
            marks.settle();
            let left = take(&mut marks, 99);
            assert_eq!(left, [(10, 20)], "fails: {fails}");
        }
    }

    /// Scenario: far more single windows than the limit, at several sites.
    /// Guarantees: the number of stretches stays bounded, and every marked window is still marked.
    #[test]
    fn too_many_marks_become_coarser_and_none_is_dropped() {
        let mut marks = Marks::new(50);
        for at in 0..400 {
            marks.mark(key(["a", "b", "c"][at as usize % 3]), at * 100, at * 100 + 10, 0);
            assert!(marks.stretches().0 <= 50);
        }
        assert!(marks.coarsened > 0);
        let of: BTreeMap<String, Spans> = marks.iter().map(|(key, _, spans)| (key.site.to_string(), spans)).collect();
        assert!((0..400).all(|at| of[["a", "b", "c"][at as usize % 3]].contains(at * 100 + 9)));
    }

    /// Scenario: windows marked for a gap, some of them for late rows as well.
    /// Guarantees: those with late rows are restated at once and leave both marks; the others wait until no gap has changed for
    /// a while.
    #[test]
    fn windows_marked_for_gaps_wait_unless_they_are_restated_anyway() {
        let mut marks = Marks::new(100);
        let gaps = Key { why: Why::Gaps, ..key("a") };
        marks.mark(gaps.clone(), 0, 40, 0);
        marks.mark(key("a"), 10, 20, 0);
        marks.settle();
        marks.settle();
        assert_eq!(take(&mut marks, 99), [(10, 20)]);
        marks.done(&key("a"), &Spans::of(10, 20));
        let left = marks.of(&gaps);
        assert_eq!(left.iter().collect::<Vec<_>>(), [(0, 10), (20, 40)]);
        assert_eq!(take(&mut marks, 99), []);
        assert_eq!(marks.take(GAP_REST, |_| 99, |_, ready| ready.clone()), [(gaps, left)]);
    }

    /// Scenario: a round has room for one site only.
    /// Guarantees: the next one begins with the site that was left out.
    #[test]
    fn a_site_that_was_left_out_is_first_in_the_next_round() {
        let mut marks = Marks::new(50);
        for site in ["a", "b"] {
            marks.restore(key(site), (0, 10), 0, 0);
        }
        let one = |marks: &mut Marks| {
            let mut room = 1;
            let taken = marks.take(
                0,
                |_| 99,
                |_, ready| {
                    room -= 1;
                    if room >= 0 { ready.clone() } else { Spans::default() }
                },
            );
            marks.give_back();
            taken[0].0.site.to_string()
        };
        assert_eq!([one(&mut marks), one(&mut marks), one(&mut marks)], ["a", "b", "a"]);
    }
}
