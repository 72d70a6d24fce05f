//! A shard's side of restatements: what a round gets to do, and how its outcome becomes part of a commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_model::time::{HOUR, Micros};
use arrow::array::RecordBatch;

use crate::marks::{Key, Why};
use crate::restate::round::{Asked, Budget, Outcome, Round};
use crate::shard::Shard;
use crate::spans::Spans;

/// Rows may be ahead of the log's time by what admission lets through, 5 min, and by clocks that disagree.
const AHEAD: Micros = HOUR;

/// What restatements have done since the shard was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Windows of a site.
    pub windows: u64,
    /// Raw rows read for them.
    pub rows: u64,
    /// Rounds, or parts of one, that failed.
    pub failures: u64,
    /// Marked windows given up because their raw rows are no longer kept: their last revision stays.
    pub given_up: u64,
}

impl Shard {
    /// What a round may work on: windows that had closed by the last commit. Only while nothing waits for a commit.
    pub fn begin_round(&mut self, partition: i32, partitions: i32) -> Round {
        let setup = Arc::clone(&self.setup);
        self.give_up_before(self.raw_from);
        let closed: Vec<Micros> = self.stages.iter().map(|stage| stage.first_open()).collect();
        let place = |pipeline: &str| setup.pipelines.iter().position(|of| of.spec.name == pipeline);
        let settings = &setup.settings.restate;
        let share = (settings.windows / self.marks.keys().max(1) as u64).max(1);
        let closed_of = |pipeline: &str| place(pipeline).map_or(Micros::MIN, |index| closed[index]);
        let room = |key: &Key, ready: &Spans| {
            let width = place(&key.pipeline).map_or(1, |index| setup.pipelines[index].plan.cut().slide().micros());
            ready.first(i64::try_from(share).unwrap_or(i64::MAX).saturating_mul(width))
        };
        Round {
            marked: self.marks.take(self.log_time, closed_of, room),
            requests: self.requests.clone(),
            gaps: self.streams.iter_mut().map(|stream| stream.identities.gaps()).collect(),
            horizon: self.log_time.saturating_add(AHEAD),
            budget: Budget { windows: settings.windows, rows: settings.rows },
            raw_from: self.raw_from,
            taken: BTreeMap::new(),
            closed,
            partition,
            partitions,
            setup,
        }
    }

    /// Windows of which retention may have taken raw rows out would lose what they say.
    fn give_up_before(&mut self, at: Micros) {
        self.work.given_up += self.marks.drop_before(at, |pipeline| {
            let of = self.setup.pipelines.iter().find(|of| of.spec.name == pipeline);
            of.map_or(1, |of| of.plan.cut().slide().micros())
        });
    }

    /// A round has ended. Its outcome becomes true with the next commit; one without any is over at once.
    pub fn finish_round(&mut self, mut outcome: Outcome) {
        self.work.failures += outcome.failures.len() as u64;
        self.raw_from = outcome.raw_from.map_or(self.raw_from, |raw_from| raw_from.max(self.raw_from));
        if let Some(there) = outcome.requests.take() {
            self.requests.retain(&there);
        }
        // What a request says of itself without work may wait for whatever commit comes next, unless it is news.
        outcome.reached.retain(|(part, reached)| self.requests.reached(part) != Some(*reached));
        if outcome.restated.is_empty() && outcome.reached.is_empty() {
            self.marks.give_back();
        } else {
            self.outcome = Some(outcome);
        }
    }

    /// A round failed as a whole.
    pub fn drop_round(&mut self) {
        self.work.failures += 1;
        self.marks.give_back();
    }

    /// Whether a round has ended and waits for the next commit.
    pub fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    /// Takes the outcome of a round into the commit at hand: result rows by pipeline; marks and progress in the state.
    pub(crate) fn take_outcome(&mut self) -> BTreeMap<usize, Vec<RecordBatch>> {
        let mut rows: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        let Some(outcome) = self.outcome.take() else { return rows };
        let log_time = self.log_time;
        for restated in outcome.restated {
            let pipeline: Arc<str> = self.setup.pipelines[restated.pipeline].spec.name.as_str().into();
            let key = |why: Why, site: Box<str>| Key { pipeline: Arc::clone(&pipeline), why, site };
            match restated.asked {
                Asked::Marks(why) => {
                    for (site, spans) in restated.done {
                        self.marks.done(&key(why, site), &spans);
                    }
                }
                Asked::Request(part, reached) => self.requests.set(part, reached),
            }
            for (site, mut follow) in restated.followers {
                follow.remove_all(&self.marks.of(&key(Why::Rows, site.clone())));
                for (from, to) in follow.iter() {
                    self.marks.mark(key(Why::Rises, site.clone()), from, to, log_time);
                }
            }
            self.work.windows += restated.windows;
            self.work.rows += restated.rows_read;
            rows.entry(restated.pipeline).or_default().extend(restated.rows);
        }
        for (part, reached) in outcome.reached {
            self.requests.set(part, reached);
        }
        self.marks.give_back();
        rows
    }
}
