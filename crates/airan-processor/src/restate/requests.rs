//! How far a shard is with the requests it has seen: the next window of each pipeline, and whether that is all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use airan_lake::{Request, RequestReason};
use airan_model::time::Micros;

/// A request's part for one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub request: Box<str>,
    pub pipeline: Arc<str>,
}

/// How far a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Windows that begin before it are done.
    pub next: Micros,
    /// Nothing is left to do.
    pub is_done: bool,
}

/// The requests of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    parts: BTreeMap<Part, Reached>,
}

impl Requests {
    pub fn reached(&self, part: &Part) -> Option<Reached> {
        self.parts.get(part).copied()
    }

    pub fn set(&mut self, part: Part, reached: Reached) {
        self.parts.insert(part, reached);
    }

    /// Forgets requests that are there no more.
    pub fn retain(&mut self, there: &BTreeSet<Box<str>>) {
        self.parts.retain(|part, _| there.contains(&part.request));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Part, Reached)> {
        self.parts.iter().map(|(part, reached)| (part, *reached))
    }

    /// Parts with something left to do.
    pub fn running(&self) -> usize {
        self.parts.values().filter(|reached| !reached.is_done).count()
    }
}

/// What is left of a request for one pipeline, of which windows that begin before `closed` have closed; the request is for those that
/// begin in `[first, end)`.
pub(crate) fn rest(
    request: &Request,
    reached: Option<Reached>,
    closed: Micros,
    (first, end): (Micros, Micros),
) -> Rest {
    let next = reached.map_or(first, |reached| reached.next);
    // Windows that close later are computed live by the pipeline as it is now. But an open one may hold rows that have been
    // erased since: it is waited for.
    let is_done = next >= end || (request.reason == RequestReason::Backfill && next >= closed);
    match next < closed.min(end) {
        _ if reached.is_some_and(|reached| reached.is_done) => Rest::Known,
        true => Rest::Work(next, closed.min(end), end),
        false if is_done => Rest::Done(next),
        false => Rest::Waits(next),
    }
}

/// See [`rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Done, and noted as that.
    Known,
    /// Done.
    Done(Micros),
    /// Windows from the first up to the second time can be restated now; the third is where the request ends.
    Work(Micros, Micros, Micros),
    /// Windows from there on are not closed yet.
    Waits(Micros),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a backfill and an erasure of [5, 95) in windows of 10, before, while and after windows have closed.
    /// Guarantees: whole windows; a backfill ends where live windows go on, an erasure waits for them to close.
    #[test]
    fn a_backfill_ends_at_the_open_windows_and_an_erasure_waits_for_them() {
        let backfill = Request::new(RequestReason::Backfill, 5, 95, 0);
        let erase = Request::new(RequestReason::Erase, 5, 95, 0);
        let left = |request: &Request, next: Option<i64>, closed: i64| {
            let reached = next.map(|next| Reached { next, is_done: false });
            rest(request, reached, closed, (0, 100))
        };
        for request in [&backfill, &erase] {
            assert_eq!(left(request, None, 1000), Rest::Work(0, 100, 100));
            assert_eq!(left(request, None, 40), Rest::Work(0, 40, 100));
            assert_eq!(left(request, Some(40), 50), Rest::Work(40, 50, 100));
            assert_eq!(left(request, Some(100), 1000), Rest::Done(100));
            let known = Reached { next: 100, is_done: true };
            assert_eq!(rest(request, Some(known), 1000, (0, 100)), Rest::Known);
        }
        assert_eq!(left(&backfill, Some(40), 40), Rest::Done(40));
        assert_eq!(left(&erase, Some(40), 40), Rest::Waits(40));
        assert_eq!(left(&backfill, None, Micros::MIN), Rest::Done(0));
    }
}
