//! Open windows of one pipeline in one partition: rows in, closed windows out.
//!
//! Rows wait until there are enough of them for a run of the engine, then become state of their pane's groups: a pane is as wide as
//! windows begin apart, and where windows tumble it is the window (see `cut.rs`). A window closes when the caller says that the
//! watermark has passed its end; which window that is, and what its rows say, does not depend on how they were cut into pushes
//! (**W3**), and every time has exactly one pane (**W1**). A pane is folded when the first of its windows closes, and goes with the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_model::schema;
use airan_model::time::Micros;
use arrow::array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};

use crate::error::WindowError;
use crate::plan::PipelinePlan;
use crate::source::Source;
use crate::state::{GroupState, by_window, bytes_of};
use crate::width::Window;

/// Rows of one source that wait at most before they become state. A run costs about as much as aggregating some hundred rows,
/// and makes a state row for each group: the more rows at once, the less of both.
const RUN_ROWS: usize = 32_768;

/// Batches with fewer rows on average are joined before a run, because each costs the aggregate as much as about 200 rows.
const SMALL_BATCH_ROWS: usize = 1_024;

/// What a pane costs besides the state of its groups: its place in the map. It counts, because rows that the query drops open
/// panes too.
const WINDOW_BYTES: usize = 64;

/// A window that has closed, with its result.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// Its first microsecond.
    pub start: Micros,
    /// The first microsecond after it.
    pub end: Micros,
    /// Its result rows, at least one, in the plan's output schema.
    pub rows: RecordBatch,
}

/// Open windows of one pipeline in one partition.
///
/// Its futures must run to their end: one that is dropped half-way may have taken rows out and not put their state back.
#[derive(Debug)]
pub struct Windows {
    plan: Arc<PipelinePlan>,
    limit: usize,
    /// Rows that wait, by source.
    waiting: Vec<Waiting>,
    /// State by the pane's start; by source within. No pane is before `first_open`.
    open: BTreeMap<Micros, Vec<GroupState>>,
    /// Bytes of all state in `open`.
    bytes: usize,
    /// Windows that end by then have closed.
    closed_through: Micros,
    /// Start of the oldest window that may still close.
    first_open: Micros,
}

/// Rows of one source that wait for a run.
#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// Where the needed columns were in the batch before, most likely also in the next.
    places: Option<(SchemaRef, Vec<usize>)>,
}

impl Windows {
    pub(crate) fn new(plan: Arc<PipelinePlan>, limit: usize) -> Windows {
        let waiting = plan.sources.iter().map(|_| Waiting::default()).collect();
        Windows {
            plan,
            limit,
            waiting,
            open: BTreeMap::new(),
            bytes: 0,
            closed_through: Micros::MIN,
            first_open: Micros::MIN,
        }
    }

    /// As if every window that ends by then had closed: none of them will. To be called before the first row.
    pub fn resume(&mut self, closed_through: Micros) {
        self.closed_through = closed_through;
        self.first_open = self.plan.cut().first_open(closed_through);
    }

    /// Takes rows of a stream, in the stream's columns, each of them of a window that is open.
    ///
    /// # Errors
    /// See [`WindowError`]; the windows are then to be dropped.
    pub async fn push(&mut self, stream: &str, rows: &RecordBatch) -> Result<(), WindowError> {
        let plan = Arc::clone(&self.plan);
        let Some(index) = plan.streams().iter().position(|name| **name == *stream) else {
            return Err(WindowError::NoSuchStream(stream.to_owned()));
        };
        self.note_windows(stream, rows)?;
        for (number, source) in plan.sources.iter().enumerate().filter(|(_, source)| source.stream == index) {
            self.waiting[number].add(source, stream, rows)?;
            if self.waiting[number].rows >= RUN_ROWS {
                self.absorb(number).await?;
            }
        }
        self.stay_within_limit().await
    }

    /// Closes every window that ends by `watermark`, oldest first. A window whose rows the query drops (WHERE, HAVING) closes
    /// without a result and is left out.
    ///
    /// # Errors
    /// See [`WindowError`]; the windows are then to be dropped.
    pub async fn close_through(&mut self, watermark: Micros) -> Result<Vec<ClosedWindow>, WindowError> {
        self.closed_through = self.closed_through.max(watermark);
        let mut closed = Vec::new();
        if self.next_to_close(watermark).is_some() {
            for number in 0..self.waiting.len() {
                self.absorb(number).await?;
            }
        }
        while let Some(window) = self.next_to_close(watermark) {
            let states = self.take_states(window).await?;
            self.first_open = window.start.saturating_add(self.plan.cut().slide().micros());
            closed.extend(self.finish(window, states).await?);
        }
        self.first_open = self.first_open.max(self.plan.cut().first_open(self.closed_through));
        Ok(closed)
    }

    /// Windows that have rows and are not closed, oldest first.
    pub fn open_windows(&self) -> Vec<Window> {
        let (cut, mut next, mut found) = (self.plan.cut(), self.first_open, Vec::new());
        for pane in self.open.keys() {
            let (first, end) = cut.starts_of(*pane);
            next = next.max(first);
            while next < end {
                found.push(cut.starting_at(next));
                next = next.saturating_add(cut.slide().micros());
            }
        }
        found
    }

    /// Memory of open windows, rows that wait included.
    pub fn state_bytes(&self) -> usize {
        let window = WINDOW_BYTES + self.plan.sources.len() * size_of::<GroupState>();
        self.bytes + self.open.len() * window + self.waiting.iter().map(|waiting| waiting.bytes).sum::<usize>()
    }

    fn next_to_close(&self, watermark: Micros) -> Option<Window> {
        let (pane, _) = self.open.first_key_value()?;
        let cut = self.plan.cut();
        let start = self.first_open.max(cut.starts_of(*pane).0);
        Some(cut.starting_at(start)).filter(|window| window.is_closed_by(watermark))
    }

    /// The state of a window's panes, all of it under the window's start. Its first pane is in no later window, and goes.
    async fn take_states(&mut self, window: Window) -> Result<Vec<GroupState>, WindowError> {
        let plan = Arc::clone(&self.plan);
        if plan.cut().panes() == 1 {
            return Ok(self.remove(window.start));
        }
        // The last pane: no other window has needed it yet.
        let last = window.end.saturating_sub(plan.cut().slide().micros());
        for number in 0..plan.sources.len() {
            if self.open.get(&last).is_some_and(|states| states[number].is_foldable()) {
                self.fold(last, number).await?;
            }
        }
        let mut whole = no_state(plan.sources.len());
        for states in self.open.range(window.start..window.end).map(|(_, states)| states) {
            for ((state, into), source) in states.iter().zip(&mut whole).zip(&plan.sources) {
                for batch in state.batches() {
                    into.add(moved_to(window.start, batch, source.window)?);
                }
            }
        }
        self.remove(window.start);
        Ok(whole)
    }

    fn remove(&mut self, pane: Micros) -> Vec<GroupState> {
        let states = self.open.remove(&pane).unwrap_or_default();
        self.bytes -= states.iter().map(GroupState::bytes).sum::<usize>();
        states
    }

    /// Opens the panes of `rows`.
    fn note_windows(&mut self, stream: &str, rows: &RecordBatch) -> Result<(), WindowError> {
        let column = rows.column_by_name(schema::TS);
        let Some(times) = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>()) else {
            return Err(WindowError::WrongColumn { stream: stream.to_owned(), column: schema::TS.to_owned() });
        };
        if times.null_count() > 0 {
            return Err(WindowError::NoEventTime(stream.to_owned()));
        }
        let cut = self.plan.cut();
        let mut pane = Window { start: 0, end: 0 };
        for at in times.values() {
            if pane.contains(*at) {
                continue;
            }
            pane = cut.pane_of(*at);
            if cut.last_of(*at).is_closed_by(self.closed_through) {
                return Err(WindowError::Closed { at: *at, closed_through: self.closed_through });
            }
            let sources = self.plan.sources.len();
            self.open.entry(pane.start).or_insert_with(|| no_state(sources));
        }
        Ok(())
    }

    /// Turns the waiting rows of a source into state of their panes.
    async fn absorb(&mut self, number: usize) -> Result<(), WindowError> {
        let batches = self.waiting[number].take()?;
        if batches.is_empty() {
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let source = &plan.sources[number];
        let mut grown = Vec::new();
        for state in plan.engine.run(&source.partial, vec![batches]).await? {
            for (start, state) in by_window(state, source.window)? {
                let states = self.open.entry(start).or_insert_with(|| no_state(plan.sources.len()));
                let before = states[number].bytes();
                states[number].add(state);
                self.bytes += states[number].bytes() - before;
                if states[number].has_grown() {
                    grown.push(start);
                }
            }
        }
        for start in grown {
            self.fold(start, number).await?;
        }
        Ok(())
    }

    /// Merges what it can of a source's state in a pane.
    async fn fold(&mut self, start: Micros, number: usize) -> Result<(), WindowError> {
        let plan = Arc::clone(&self.plan);
        let Some(states) = self.open.get_mut(&start) else { return Ok(()) };
        let state = &mut states[number];
        self.bytes -= state.bytes();
        let folded = plan.engine.run(&plan.sources[number].fold, vec![state.take()]).await?;
        state.put_folded(folded);
        self.bytes += state.bytes();
        Ok(())
    }

    async fn stay_within_limit(&mut self) -> Result<(), WindowError> {
        if self.state_bytes() <= self.limit {
            return Ok(());
        }
        for number in 0..self.waiting.len() {
            self.absorb(number).await?;
            let foldable = self.open.iter().filter(|(_, states)| states[number].is_foldable());
            for start in foldable.map(|(start, _)| *start).collect::<Vec<_>>() {
                self.fold(start, number).await?;
            }
        }
        match self.state_bytes() {
            held if held > self.limit => Err(WindowError::StateLimit { held, limit: self.limit }),
            _ => Ok(()),
        }
    }

    /// The result of a window: the last step of each source, then the rest of the query.
    async fn finish(&self, window: Window, states: Vec<GroupState>) -> Result<Option<ClosedWindow>, WindowError> {
        if states.iter().all(GroupState::is_empty) {
            return Ok(None);
        }
        let plan = &self.plan;
        let mut results = Vec::with_capacity(states.len());
        for (source, mut state) in plan.sources.iter().zip(states) {
            let merged = match state.is_empty() {
                true => Vec::new(),
                false => plan.engine.run(&source.finish, vec![state.take()]).await?,
            };
            let named = merged
                .into_iter()
                .map(|rows| RecordBatch::try_new(Arc::clone(&source.closed), rows.columns().to_vec()));
            results.push(named.collect::<Result<Vec<_>, _>>()?);
        }
        let result = plan.engine.run(&plan.rest, results).await?;
        let rows = plan.output.rows(window, &result)?;
        tracing::debug!(
            pipeline = plan.name(),
            %window,
            rows = rows.as_ref().map_or(0, RecordBatch::num_rows),
            "window closed"
        );
        Ok(rows.map(|rows| ClosedWindow { start: window.start, end: window.end, rows }))
    }
}

/// State of a pane as state of the window that begins at `start`. `window` is the column that says so.
fn moved_to(start: Micros, state: &RecordBatch, window: usize) -> Result<RecordBatch, WindowError> {
    let mut columns = state.columns().to_vec();
    let starts = TimestampMicrosecondArray::from_value(start, state.num_rows()).with_timezone("UTC");
    columns[window] = Arc::new(starts);
    Ok(RecordBatch::try_new(state.schema(), columns)?)
}

fn no_state(sources: usize) -> Vec<GroupState> {
    std::iter::repeat_with(GroupState::default).take(sources).collect()
}

impl Waiting {
    /// Takes the columns the source needs.
    fn add(&mut self, source: &Source, stream: &str, rows: &RecordBatch) -> Result<(), WindowError> {
        let is_known = self.places.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, rows.schema_ref()));
        if !is_known {
            let places = places(source, stream, rows)?;
            self.places = Some((rows.schema(), places));
        }
        let places = self.places.iter().flat_map(|(_, places)| places);
        let columns = places.map(|place| Arc::clone(rows.column(*place))).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let taken = RecordBatch::try_new_with_options(Arc::clone(&source.input), columns, &options)?;
        self.rows += taken.num_rows();
        self.bytes += bytes_of(&taken);
        self.batches.push(taken);
        Ok(())
    }

    /// The batches for a run.
    fn take(&mut self) -> Result<Vec<RecordBatch>, WindowError> {
        let batches = std::mem::take(&mut self.batches);
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if batches.len() > 1 && rows < batches.len() * SMALL_BATCH_ROWS {
            return Ok(vec![concat_batches(batches[0].schema_ref(), &batches)?]);
        }
        Ok(batches)
    }
}

/// Where the columns a source needs are in a batch of its stream.
fn places(source: &Source, stream: &str, rows: &RecordBatch) -> Result<Vec<usize>, WindowError> {
    let place = |field: &arrow::datatypes::FieldRef| {
        let found = rows.schema_ref().column_with_name(field.name());
        found.filter(|(_, given)| given.data_type() == field.data_type()).map(|(place, _)| place)
    };
    let wrong = |field: &arrow::datatypes::FieldRef| WindowError::WrongColumn {
        stream: stream.to_owned(),
        column: field.name().clone(),
    };
    source.input.fields().iter().map(|field| place(field).ok_or_else(|| wrong(field))).collect()
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
