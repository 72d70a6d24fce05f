//! One round of restatements: some windows of some pipelines and sites, from raw rows to result rows.
//!
//! Windows that lie side by side are one stretch, read once in slices of event time, so memory holds a slice and the state of
//! its open windows however long the stretch is. What a round may do is bounded by settings; what it does not get to stays
//! marked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use airan_lake::{Lake, QueryError, Request, RequestReason};
use airan_model::causes;
use airan_model::identity::partition_of;
use airan_model::time::{DAY, HOUR, MINUTE, Micros};
use airan_window::{Cut, Window, WindowError, Windows};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::completeness::{Gaps, Received, ratio, stamped};
use crate::marks::{Key, Why};
use crate::restate::emptied::{self, Emptied};
use crate::restate::history::{History, Newest, Revisions};
use crate::restate::order::EventOrder;
use crate::restate::requests::{Part, Reached, Requests, Rest, rest};
use crate::setup::{Pipeline, Setup};
use crate::spans::Spans;

/// Rows a slice should have: enough for the engine, few enough to be sorted in little memory; up to as many, columns that are not
/// read cost nothing (`Stream::conform` shares its nulls).
const SLICE_ROWS: usize = 65_536;
/// The first slice of a stretch, before it is known how many rows there are.
const FIRST_SLICE: Micros = MINUTE;
/// Sites read together: their rows lie in the same files.
const SITES_AT_ONCE: usize = 64;
/// A backfill that is still there after this much log time was left by whoever made it, as `--no-wait` does.
const KEPT: Micros = 30 * DAY;
/// Stretches of a request that a round comes to, with and without rows.
const STRETCHES: usize = 64;

/// Why windows could not be restated. Their marks stay, and they are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestateError {
    /// The lake could not be read.
    #[error("the lake could not be read")]
    Lake(#[from] QueryError),
    /// Rows could not be read.
    #[error("raw rows could not be read")]
    Read(#[from] DataFusionError),
    /// The pipeline refused, or met its limit.
    #[error("pipeline `{pipeline}`")]
    Windows { pipeline: String, source: WindowError },
    /// Rows could not be arranged.
    #[error("rows could not be arranged")]
    Arrow(#[from] ArrowError),
}

/// What a round may still do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Windows of one site.
    pub windows: u64,
    /// Raw rows read.
    pub rows: u64,
}

impl Budget {
    const UNBOUNDED: Budget = Budget { windows: u64::MAX, rows: u64::MAX };

    /// How many windows of each of `sites` sites that is; at least one, so that a round always gets on.
    fn windows_of_each(self, sites: usize) -> i64 {
        i64::try_from((self.windows / sites.max(1) as u64).max(1)).unwrap_or(i64::MAX)
    }
}

/// A round to be run.
pub(crate) struct Round {
    pub setup: Arc<Setup>,
    /// Marked windows, at work.
    pub marked: Vec<(Key, Spans)>,
    pub requests: Requests,
    /// Known gaps, by stream.
    pub gaps: Vec<Arc<Gaps>>,
    /// By pipeline the start of the oldest window that has not closed.
    pub closed: Vec<Micros>,
    /// No row can be of a later time.
    pub horizon: Micros,
    pub partition: i32,
    pub partitions: i32,
    pub budget: Budget,
    /// Before it raw rows may be gone: windows from then are left as they are.
    pub raw_from: Micros,
    /// Windows this round has restated, by pipeline and site: a second job must not state them again at the same revision.
    pub taken: BTreeMap<(usize, Box<str>), Spans>,
}

/// Windows that have been computed again.
#[derive(Debug)]
pub(crate) struct Restated {
    /// Index of the pipeline.
    pub pipeline: usize,
    /// What asked for them.
    pub asked: Asked,
    /// Result rows with revision and completeness.
    pub rows: Vec<RecordBatch>,
    /// Which windows, by site, also those without a result.
    pub done: BTreeMap<Box<str>, Spans>,
    /// Windows whose rises change with them.
    pub followers: BTreeMap<Box<str>, Spans>,
    pub windows: u64,
    pub rows_read: u64,
}

/// What asks for a restatement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Marks(Why),
    /// A request; up to where it is done with this.
    Request(Part, Reached),
}

/// What is done with windows beside computing them.
#[derive(Clone, Copy, Debug)]
struct After {
    /// Once it has come to this, windows are looked for whose rises change.
    follow_from: Option<Micros>,
    /// Windows left without a group are told of, so that what they were before is no longer the newest.
    tells_emptied: bool,
}

/// What a round did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub restated: Vec<Restated>,
    /// Parts of requests that are done without work.
    pub reached: Vec<(Part, Reached)>,
    /// Before it raw rows may be gone; None where that is not known.
    pub raw_from: Option<Micros>,
    /// Requests there are; None where they could not be listed.
    pub requests: Option<BTreeSet<Box<str>>>,
    /// What failed.
    pub failures: Vec<String>,
}

impl Round {
    /// Reads the lake as it is now, and runs over it.
    pub async fn over(mut self, lake: &Lake) -> Outcome {
        match lake.raw_from().await {
            Ok(raw_from) => self.raw_from = raw_from,
            Err(error) => return Outcome { failures: vec![causes(&error)], ..Outcome::default() },
        }
        let raw_from = Some(self.raw_from);
        let (partition, old) = (self.partition, self.horizon.saturating_sub(KEPT));
        let (asked, failure) = match lake.requests().await {
            Ok(asked) => (Some(asked), None),
            Err(error) => (None, Some(format!("requests cannot be listed: {}", causes(&error)))),
        };
        let there = asked.as_ref().map(|asked| asked.iter().map(|request| request.id.as_str().into()).collect());
        let asked = asked.unwrap_or_default();
        let mut outcome = Outcome::default();
        if self.is_needed(&asked) {
            outcome = match History::of(lake).await {
                Ok(history) => self.run(&history, &asked).await,
                Err(error) => Outcome { failures: vec![causes(&error)], ..Outcome::default() },
            };
        }
        (outcome.requests, outcome.raw_from) = (there, raw_from);
        // Nobody waits for it any more, and one owner is enough to clear up. An erasure is removed by whoever erases.
        let is_left = |request: &&Request| request.reason == RequestReason::Backfill && request.at < old;
        for request in asked.iter().filter(|_| partition == 0).filter(is_left) {
            if let Err(error) = lake.remove_request(&request.id).await {
                outcome.failures.push(causes(&error));
            }
        }
        outcome.failures.extend(failure);
        outcome
    }

    /// Whether there is anything to do.
    pub fn is_needed(&self, asked: &[Request]) -> bool {
        !self.marked.is_empty() || asked.iter().any(|request| self.is_unfinished(request))
    }

    fn is_unfinished(&self, request: &Request) -> bool {
        self.setup.pipelines.iter().filter(|of| request.names(&of.spec.name)).any(|of| {
            let part = Part { request: request.id.as_str().into(), pipeline: of.spec.name.as_str().into() };
            self.requests.reached(&part).is_none_or(|reached| !reached.is_done)
        })
    }

    /// Marked windows first, then requests, oldest first. What fails is told and holds up nothing else.
    pub async fn run(mut self, history: &History, asked: &[Request]) -> Outcome {
        let mut outcome = Outcome::default();
        for (pipeline, why, mut sites) in by_pipeline(&self.setup, std::mem::take(&mut self.marked)) {
            let whole_from = self.whole_from(pipeline);
            sites.values_mut().for_each(|spans| spans.remove_all(&Spans::of(Micros::MIN, whole_from)));
            sites.retain(|_, spans| !spans.is_empty());
            if self.is_spent() {
                return outcome;
            }
            let after = After { follow_from: (why == Why::Rows).then_some(Micros::MIN), tells_emptied: true };
            match self.restate(history, pipeline, Asked::Marks(why), sites, after).await {
                Ok(restated) => outcome.restated.push(restated),
                Err(error) => outcome.failures.push(causes(&error)),
            }
        }
        for request in asked {
            for pipeline in 0..self.setup.pipelines.len() {
                if let Err(error) = self.request(history, request, pipeline, &mut outcome).await {
                    outcome.failures.push(causes(&error));
                }
            }
        }
        outcome
    }

    /// The start of the first window of a pipeline whose raw rows are all there.
    fn whole_from(&self, pipeline: usize) -> Micros {
        if self.raw_from == Micros::MIN {
            return Micros::MIN;
        }
        self.setup.pipelines[pipeline].plan.cut().pane_of(self.raw_from.saturating_sub(1)).end
    }

    fn is_spent(&self) -> bool {
        self.budget.windows == 0 || self.budget.rows == 0
    }

    /// The next stretch of a request for one pipeline.
    async fn request(
        &mut self,
        history: &History,
        request: &Request,
        pipeline: usize,
        outcome: &mut Outcome,
    ) -> Result<(), RestateError> {
        let of = Arc::clone(&self.setup.pipelines[pipeline]);
        if !request.names(&of.spec.name) {
            return Ok(());
        }
        let part = Part { request: request.id.as_str().into(), pipeline: of.spec.name.as_str().into() };
        let cut = of.plan.cut();
        let asked = (cut.starts_of(request.from).0, cut.starts_of(request.to.saturating_sub(1)).1);
        let mut reached = self.requests.reached(&part);
        let is_elsewhere = |site: &String| partition_of(site, self.partitions) != self.partition;
        if !request.sites.is_empty() && request.sites.iter().all(is_elsewhere) {
            // No window of it is here, nor will be: there is none to wait for.
            let done = Reached { next: asked.1, is_done: true };
            outcome.reached.extend((reached != Some(done)).then_some((part, done)));
            return Ok(());
        }
        let first = asked.0.max(self.whole_from(pipeline));
        if reached.is_none_or(|reached| !reached.is_done && reached.next < first) {
            reached = Some(Reached { next: first, is_done: false });
        }
        // Longer stretches would cost more to find the sites of than to restate.
        let stretch = self.budget.windows_of_each(SITES_AT_ONCE).saturating_mul(cut.slide().micros());
        let mut is_news = true;
        for _ in 0..STRETCHES {
            if self.is_spent() {
                break;
            }
            let (from, to, end) = match rest(request, reached, self.closed[pipeline], asked) {
                Rest::Known => return Ok(()),
                Rest::Waits(next) => {
                    outcome.reached.push((part, Reached { next, is_done: false }));
                    return Ok(());
                }
                Rest::Done(next) => {
                    outcome.reached.push((part, Reached { next, is_done: true }));
                    return Ok(());
                }
                Rest::Work(from, to, end) => (from, to, end),
            };
            let (whole, to) = (to, to.min(from.saturating_add(stretch)));
            let rows = (from, to.saturating_add(cut.overlap()));
            let sites = self.sites_of(history, request, &of, rows).await?;
            if sites.values().all(|rows| *rows == 0) {
                // Years without a row of anybody are passed over at once.
                let next = self.next_with_rows(history, &of, from).await?.map_or(whole, |next| next.min(whole));
                let next = if sites.is_empty() { next.max(to) } else { next };
                if next > from {
                    // That this was the last stretch is for the next turn to say, which notes it.
                    (reached, is_news) = (Some(Reached { next, is_done: false }), true);
                    continue;
                }
            }
            let windows =
                self.budget.windows_of_each(sites.len()).min(self.windows_of_rows(sites.values().sum(), cut, from, to));
            let to = to.min(from.saturating_add(windows.saturating_mul(cut.slide().micros())));
            let sites = sites.into_keys().map(|site| (site, Spans::of(from, to))).collect();
            let asked = Asked::Request(part.clone(), Reached { next: to, is_done: to >= end });
            // Raw rows are as they were in a backfill; where some are gone, the rows after them get other rises.
            // And what an erasure leaves without a group it takes out itself.
            let erases = request.reason == RequestReason::Erase;
            let after = After { follow_from: erases.then_some(end), tells_emptied: !erases };
            outcome.restated.push(self.restate(history, pipeline, asked, sites, after).await?);
            (reached, is_news) = (Some(Reached { next: to, is_done: to >= end }), false);
        }
        if let Some(reached) = reached.filter(|_| is_news) {
            outcome.reached.push((part, reached));
        }
        Ok(())
    }

    /// How many windows from `from` on may be restated, by the rows between it and `to`; at least one.
    fn windows_of_rows(&self, rows: u64, cut: Cut, from: Micros, to: Micros) -> i64 {
        let windows = (to.saturating_sub(from) / cut.slide().micros()).max(1);
        let share = u128::from(self.budget.rows) * windows.unsigned_abs() as u128 / u128::from(rows.max(1));
        i64::try_from(share).unwrap_or(i64::MAX).max(1)
    }

    /// The start of the first window, from the one that begins at `from` on, that may have a row of anybody; `None` where no row comes
    /// after that.
    async fn next_with_rows(
        &self,
        history: &History,
        of: &Pipeline,
        from: Micros,
    ) -> Result<Option<Micros>, RestateError> {
        let mut first = None;
        for stream in of.plan.streams() {
            let next = history.next_time(stream, from).await?;
            first = first.into_iter().chain(next).min();
        }
        Ok(first.map(|first| of.plan.cut().starts_of(first).0.max(from)))
    }

    /// The request's sites that belong to this shard and may have rows in a span, with how many there are.
    async fn sites_of(
        &self,
        history: &History,
        request: &Request,
        of: &Pipeline,
        span: (Micros, Micros),
    ) -> Result<BTreeMap<Box<str>, u64>, RestateError> {
        let mut sites: BTreeMap<Box<str>, u64> = request.sites.iter().map(|site| (site.as_str().into(), 0)).collect();
        let is_named = !sites.is_empty();
        for stream in of.plan.streams() {
            for (site, rows) in history.rows_by_site(stream, &request.sites, span).await? {
                match sites.get_mut(&site) {
                    Some(found) => *found += rows,
                    None if is_named => {}
                    None => drop(sites.insert(site, rows)),
                }
            }
        }
        sites.retain(|site, _| partition_of(site, self.partitions) == self.partition);
        Ok(sites)
    }

    /// Restates the windows of `sites`, as many as the budget allows.
    ///
    /// What a request asks for is done whole: it is noted by how far it is, one time for all its sites, so a round that ended
    /// for some of them before the others would have to begin again, for ever.
    async fn restate(
        &mut self,
        history: &History,
        pipeline: usize,
        asked: Asked,
        sites: BTreeMap<Box<str>, Spans>,
        after: After,
    ) -> Result<Restated, RestateError> {
        let of = Arc::clone(&self.setup.pipelines[pipeline]);
        let (slide, is_marked) = (of.plan.cut().slide().micros(), matches!(asked, Asked::Marks(_)));
        let (mut left, mut done) = (BTreeMap::<Box<str>, Spans>::new(), BTreeMap::<Box<str>, Spans>::new());
        for (site, spans) in &sites {
            let mut rest = spans.clone();
            if let Some(taken) = self.taken.get(&(pipeline, site.clone())) {
                rest.remove_all(taken);
                done.insert(site.clone(), spans.both(taken));
            }
            if !rest.is_empty() {
                left.insert(site.clone(), rest);
            }
        }
        // Sites with the same stretch are read together. Others are not: what follows a site's stretch may lie in another's.
        let mut stretches = BTreeMap::<(Micros, Micros), Vec<&str>>::new();
        for (site, spans) in &left {
            spans.iter().for_each(|span| stretches.entry(span).or_default().push(site));
        }
        let parts: Vec<((Micros, Micros), &[&str])> = stretches
            .iter()
            .flat_map(|(span, sites)| sites.chunks(SITES_AT_ONCE).map(|sites| (*span, sites)))
            .collect();
        let (mut rows, mut followers) = (Vec::new(), BTreeMap::<Box<str>, Spans>::new());
        let (mut windows, mut rows_read) = (0, 0);
        for ((from, to), sites) in parts {
            let budget = if is_marked { self.budget } else { Budget::UNBOUNDED };
            let mut stretch = Stretch::new(self, history, &of, sites, (from, to)).await?;
            let reached = stretch.run(budget).await?;
            if after.tells_emptied {
                stretch.tell_emptied(reached)?;
            }
            if after.follow_from.is_some_and(|follow_from| reached >= follow_from) {
                stretch.follow(reached, self.horizon, &mut followers).await?;
            }
            self.budget.rows = self.budget.rows.saturating_sub(stretch.rows_read());
            rows_read += stretch.rows_read();
            rows.extend(stretch.results);
            let count = (reached.saturating_sub(from) / slide).max(0) as u64 * sites.len() as u64;
            windows += count;
            self.budget.windows = self.budget.windows.saturating_sub(count);
            sites.iter().for_each(|site| done.entry(Box::from(*site)).or_default().add(from, reached));
            if is_marked && (reached < to || self.is_spent()) {
                break;
            }
        }
        for (site, spans) in &done {
            self.taken.entry((pipeline, site.clone())).or_default().add_all(spans);
        }
        // What is restated here anyway, or still marked, needs no mark of its own.
        for (site, follow) in &mut followers {
            if let Some(spans) = sites.get(site) {
                follow.remove_all(spans);
            }
        }
        followers.retain(|_, follow| !follow.is_empty());
        Ok(Restated { pipeline, asked, rows, done, followers, windows, rows_read })
    }
}

/// Marked windows by pipeline and reason, with each site's stretches cut at the windows of the pipeline as it is now.
fn by_pipeline(setup: &Setup, marked: Vec<(Key, Spans)>) -> Vec<(usize, Why, BTreeMap<Box<str>, Spans>)> {
    let mut jobs: BTreeMap<(usize, Why), BTreeMap<Box<str>, Spans>> = BTreeMap::new();
    for (key, spans) in marked {
        let Some(pipeline) = setup.pipelines.iter().position(|of| *of.spec.name == *key.pipeline) else { continue };
        let slide = setup.pipelines[pipeline].plan.cut().slide();
        let whole = jobs.entry((pipeline, key.why)).or_default().entry(key.site).or_default();
        for (from, to) in spans.iter() {
            whole.add(slide.window_of(from).start, slide.window_of(to.saturating_sub(1)).end);
        }
    }
    jobs.into_iter().map(|((pipeline, why), sites)| (pipeline, why, sites)).collect()
}

/// Windows that begin one after the other, of sites whose rows are read together. The rows are read once, those of overlapping windows
/// up to the end of the last.
struct Stretch<'a> {
    of: &'a Pipeline,
    /// How many sites.
    sites: usize,
    /// Windows that begin in it.
    span: (Micros, Micros),
    streams: Vec<EventOrder<'a>>,
    windows: Windows,
    revisions: Revisions,
    /// Windows of a site with a result.
    filled: HashSet<(Box<str>, Micros)>,
    received: Received,
    gaps: Vec<Arc<Gaps>>,
    results: Vec<RecordBatch>,
}

impl<'a> Stretch<'a> {
    async fn new(
        round: &Round,
        history: &'a History,
        of: &'a Pipeline,
        sites: &[&'a str],
        span: (Micros, Micros),
    ) -> Result<Stretch<'a>, RestateError> {
        let (mut streams, mut gaps) = (Vec::new(), Vec::new());
        for stream in of.plan.streams() {
            let Some(index) = round.setup.stream(stream) else { continue };
            let needed = of.plan.columns_of(stream);
            let counters = &round.setup.settings.counters;
            let stream = &round.setup.streams[index].stream;
            streams.push(EventOrder::new(history, stream, &needed, sites.to_vec(), counters, span.0));
            gaps.push(Arc::clone(&round.gaps[index]));
        }
        let mut windows = of.plan.open(round.setup.settings.windows.state_bytes.size());
        // Windows that begin before the span would lack their first rows.
        windows.resume(span.0.saturating_add(of.plan.cut().overlap()));
        Ok(Stretch {
            of,
            sites: sites.len(),
            span,
            streams,
            windows,
            revisions: history.revisions(&of.spec.table, sites, span).await?,
            filled: HashSet::new(),
            received: Received::default(),
            gaps,
            results: Vec::new(),
        })
    }

    /// Computes the windows in order. Returns where it ended: at the end, or at a window's start once the budget is used up.
    async fn run(&mut self, budget: Budget) -> Result<Micros, RestateError> {
        let cut = self.of.plan.cut();
        let (slide, overlap) = (cut.slide().micros(), cut.overlap());
        let grain = slide.min(HOUR);
        let (mut at, to) = self.span;
        let most = budget.windows_of_each(self.sites).saturating_mul(slide);
        let to = to.min(at.saturating_add(most)).saturating_add(overlap);
        let one = at.saturating_add(cut.size());
        let mut grains = (FIRST_SLICE / grain).max(1);
        while at < to {
            let end = at.saturating_add(grains.saturating_mul(grain)).min(to);
            let rows = self.slice(at, end).await?;
            at = end;
            self.close(at).await?;
            if rows > SLICE_ROWS {
                grains = (grains / 2).max(1);
            } else if rows < SLICE_ROWS / 4 && grains.saturating_mul(grain) < DAY {
                grains *= 2;
            }
            if self.rows_read() >= budget.rows && at >= one && cut.pane_of(at).start == at {
                break;
            }
        }
        Ok(at.saturating_sub(overlap))
    }

    async fn slice(&mut self, from: Micros, to: Micros) -> Result<usize, RestateError> {
        let mut read = 0;
        for (index, stream) in self.of.plan.streams().iter().enumerate() {
            let Some(order) = self.streams.get_mut(index) else { continue };
            let Some(rows) = order.slice(from, to).await? else { continue };
            read += rows.num_rows();
            let start_of = |at: Micros| self.of.plan.cut().pane_of(at).start;
            self.received.count(&rows, None, start_of)?;
            let pushed = self.windows.push(stream, &rows).await;
            pushed.map_err(|source| RestateError::Windows { pipeline: self.of.spec.name.clone(), source })?;
        }
        Ok(read)
    }

    /// Closes the windows that end by `through`, and stamps their rows.
    async fn close(&mut self, through: Micros) -> Result<(), RestateError> {
        let closed = self.windows.close_through(through).await;
        let closed = closed.map_err(|source| RestateError::Windows { pipeline: self.of.spec.name.clone(), source })?;
        for window in closed {
            let span = Window { start: window.start, end: window.end };
            let rows = stamped(&window.rows, |site| {
                let key = (Box::from(site), window.start);
                let revision = self.revisions.get(&key).map_or(0, |newest| newest.revision + 1);
                self.filled.insert(key);
                let missing = self.gaps.iter().map(|gaps| gaps.within(site, span)).sum();
                (revision, ratio(self.received.within(span, site), missing))
            })?;
            self.results.push(rows);
        }
        self.received.forget_before(self.of.plan.cut().first_open(through));
        Ok(())
    }

    /// Adds a row for each window that begins before `end`, had groups, and has none any more: also for those that the pipeline
    /// cut otherwise before, whose rows are in the windows of now.
    fn tell_emptied(&mut self, end: Micros) -> Result<(), RestateError> {
        let cut = self.of.plan.cut();
        let end_of = |start: Micros, newest: &Newest| {
            if cut.pane_of(start).start == start { start.saturating_add(cut.size()) } else { newest.end }
        };
        let left = self
            .revisions
            .iter()
            .filter(|(key, newest)| key.1 < end && !newest.is_emptied && !self.filled.contains(*key));
        let mut left: Vec<Emptied<'_>> =
            left.map(|((site, start), newest)| (&**site, *start, end_of(*start, newest), newest)).collect();
        left.sort_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)));
        // Like results, a batch for each window.
        for of_window in left.chunk_by(|a, b| a.1 == b.1) {
            self.results.push(emptied::rows(of_window)?);
        }
        Ok(())
    }

    /// The windows of the rows that follow those before `end`.
    async fn follow(
        &mut self,
        end: Micros,
        horizon: Micros,
        followers: &mut BTreeMap<Box<str>, Spans>,
    ) -> Result<(), RestateError> {
        for order in &mut self.streams {
            for (site, at) in order.followers(end, horizon).await? {
                let spans = followers.entry(site).or_default();
                for at in at {
                    let (first, end) = self.of.plan.cut().starts_of(at);
                    spans.add(first, end);
                }
            }
        }
        Ok(())
    }

    fn rows_read(&self) -> u64 {
        self.streams.iter().map(|order| order.rows_read).sum()
    }
}
