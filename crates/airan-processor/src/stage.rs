//! One pipeline in one shard: rows wait, go into windows, windows close.
//!
//! Rows on time are collected until there are enough of them to be worth a run of the engine, or until a window is about to
//! close: a batch is no unit of meaning, so which rows went in together changes no result (**W3**). A pipeline that meets its
//! limit, or whose query fails, stops where it is: its closed windows stay as committed, its open ones are built again from
//! raw rows when the process starts anew. The shard goes on.

use std::sync::Arc;

use airan_model::causes;
use airan_model::time::Micros;
use airan_window::{ClosedWindow, Cut, Window, Windows};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::error::ArrowError;

use crate::completeness::{Gaps, Received, ratio, stamped};
use crate::exported::Exported;
use crate::setup::Pipeline;

/// Waiting rows that are worth a run of the engine. Each run costs about as much as aggregating some hundred rows.
const ENOUGH_ROWS: usize = 16_384;

/// No window has closed yet.
pub(crate) const NOTHING_CLOSED: Micros = Micros::MIN;

/// One pipeline in one shard.
pub(crate) struct Stage {
    pub pipeline: Arc<Pipeline>,
    run: Run,
    /// Every window that ends by then has closed.
    closed_through: Micros,
    /// Rows before it are in a window that has closed; where windows overlap, perhaps also in open ones.
    late_before: Micros,
    /// Start of the oldest window that has not closed: rows before it are in closed windows only.
    first_open: Micros,
    /// Rows that wait, by the plan's streams.
    waiting: Vec<Vec<RecordBatch>>,
    waiting_rows: usize,
    /// Windows closed since the last commit.
    pub closed: Vec<ClosedWindow>,
    /// Rows of numbered senders in open windows.
    received: Received,
    /// Prometheus counters of the pipeline.
    pub exported: Exported,
}

enum Run {
    Open(Windows),
    Stopped(String),
}

impl Stage {
    pub fn new(pipeline: &Arc<Pipeline>, state_bytes: usize) -> Stage {
        Stage {
            run: Run::Open(pipeline.plan.open(state_bytes)),
            closed_through: NOTHING_CLOSED,
            late_before: NOTHING_CLOSED,
            first_open: NOTHING_CLOSED,
            waiting: vec![Vec::new(); pipeline.plan.streams().len()],
            waiting_rows: 0,
            closed: Vec::new(),
            received: Received::default(),
            exported: Exported::new(&pipeline.spec),
            pipeline: Arc::clone(pipeline),
        }
    }

    /// Goes on where a committed state ended. Only before the first row.
    pub fn resume(&mut self, closed_through: Micros) {
        self.reach(closed_through);
        if let Run::Open(windows) = &mut self.run {
            windows.resume(closed_through);
        }
    }

    fn reach(&mut self, closed_through: Micros) {
        self.closed_through = closed_through;
        if closed_through != NOTHING_CLOSED {
            let cut = self.cut();
            (self.late_before, self.first_open) = (cut.late_before(closed_through), cut.first_open(closed_through));
        }
    }

    /// How the pipeline cuts time.
    pub fn cut(&self) -> Cut {
        self.pipeline.plan.cut()
    }

    /// Every window that ends by then has closed; [`NOTHING_CLOSED`] before the first.
    pub fn closed_through(&self) -> Micros {
        self.closed_through
    }

    /// Rows before it are late: a window of theirs has closed.
    pub fn late_before(&self) -> Micros {
        self.late_before
    }

    /// Start of the oldest window that has not closed. Rows from there on are taken.
    pub fn first_open(&self) -> Micros {
        self.first_open
    }

    /// Why the pipeline has stopped, if it has.
    pub fn stopped(&self) -> Option<&str> {
        match &self.run {
            Run::Open(_) => None,
            Run::Stopped(reason) => Some(reason),
        }
    }

    /// Takes rows of open windows.
    pub fn take(&mut self, input: usize, rows: RecordBatch) {
        if matches!(self.run, Run::Open(_)) {
            self.waiting_rows += rows.num_rows();
            self.waiting[input].push(rows);
        }
    }

    /// Counts rows of open windows, those that `on_time` says, all where it is absent.
    pub fn count(&mut self, rows: &RecordBatch, on_time: Option<&BooleanArray>) -> Result<(), ArrowError> {
        let cut = self.cut();
        self.received.count(rows, on_time, |at| cut.pane_of(at).start)
    }

    /// Says of the windows that have closed, but for the first `before` of them, how complete they are.
    pub fn complete(&mut self, before: usize, gaps: &[Arc<Gaps>]) -> Result<(), ArrowError> {
        for window in &mut self.closed[before..] {
            let span = Window { start: window.start, end: window.end };
            window.rows = stamped(&window.rows, |site| {
                let missing = gaps.iter().map(|gaps| gaps.within(site, span)).sum();
                (0, ratio(self.received.within(span, site), missing))
            })?;
        }
        self.received.forget_before(self.first_open);
        Ok(())
    }

    /// Runs the engine if enough rows wait, and closes the windows that end by `watermark`. A watermark that went back is
    /// as good as none.
    pub async fn settle(&mut self, watermark: Option<Micros>) {
        let through = watermark.filter(|watermark| *watermark > self.closed_through);
        let closes = through.is_some_and(|through| self.cut().late_before(through) > self.late_before);
        if self.waiting_rows >= ENOUGH_ROWS || closes {
            self.flush().await;
        }
        let Run::Open(windows) = &mut self.run else { return };
        if let Some(through) = through {
            if closes {
                match windows.close_through(through).await {
                    Ok(closed) => self.closed.extend(closed),
                    Err(error) => return self.stop(&error),
                }
            }
            self.reach(through);
        }
    }

    /// Puts all waiting rows into their windows.
    pub async fn flush(&mut self) {
        self.waiting_rows = 0;
        for input in 0..self.waiting.len() {
            let waiting = std::mem::take(&mut self.waiting[input]);
            let Run::Open(windows) = &mut self.run else { return };
            let stream = &self.pipeline.plan.streams()[input];
            for rows in waiting {
                if let Err(error) = windows.push(stream, &rows).await {
                    return self.stop(&error);
                }
            }
        }
    }

    fn stop(&mut self, error: &dyn std::error::Error) {
        let reason = causes(error);
        tracing::error!(pipeline = %self.pipeline.spec.name, %reason, "pipeline stopped; raw rows go on being stored");
        self.run = Run::Stopped(reason);
        self.waiting.iter_mut().for_each(Vec::clear);
        self.waiting_rows = 0;
    }

    /// Windows that hold rows, without those whose rows still wait.
    pub fn open_windows(&self) -> usize {
        match &self.run {
            Run::Open(windows) => windows.open_windows().len(),
            Run::Stopped(_) => 0,
        }
    }

    /// Bytes of open windows.
    pub fn state_bytes(&self) -> usize {
        match &self.run {
            Run::Open(windows) => windows.state_bytes(),
            Run::Stopped(_) => 0,
        }
    }
}
