//! The state of one source in one pane, or in one window: batches of accumulator state, in the order in which their rows came.
//!
//! Never live accumulators: taking the state of one consumes it. Batches pile up until folding them pays, so memory follows the
//! number of groups, not of rows. Groups may occur in several batches, and several times in one: the last step merges them.

use airan_model::time::Micros;
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// State rows of one window that are worth a fold, if they have doubled since the last one.
const FOLD_ROWS: usize = 32_768;

/// State bytes of one window that are worth a fold, if they have doubled since the last one: sets of distinct values,
/// histograms and sketches are large.
const FOLD_BYTES: usize = 4 << 20;

/// What an array costs besides its values: its header, its buffers' headers, its place in the batch.
const ARRAY_BYTES: usize = 160;

/// State of one source in one window.
#[derive(Debug, Default)]
pub(crate) struct GroupState {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    folded_rows: usize,
    folded_bytes: usize,
}

impl GroupState {
    /// Adds state.
    pub fn add(&mut self, state: RecordBatch) {
        self.rows += state.num_rows();
        self.bytes += bytes_of(&state);
        self.batches.push(state);
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows of state: at least one for each group.
    #[cfg(test)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What it consists of.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Whether there is no state at all.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether folding it would make up for its cost.
    pub fn has_grown(&self) -> bool {
        self.batches.len() > 1
            && (self.rows >= FOLD_ROWS.max(2 * self.folded_rows) || self.bytes >= FOLD_BYTES.max(2 * self.folded_bytes))
    }

    /// Whether folding it could make it smaller at all.
    pub fn is_foldable(&self) -> bool {
        self.batches.len() > 1
    }

    /// Its batches, for a fold or for the last step. They must come back, folded, with [`GroupState::put_folded`].
    pub fn take(&mut self) -> Vec<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        std::mem::take(&mut self.batches)
    }

    /// What a fold made of it.
    pub fn put_folded(&mut self, batches: Vec<RecordBatch>) {
        batches.into_iter().for_each(|batch| self.add(batch));
        (self.folded_rows, self.folded_bytes) = (self.rows, self.bytes);
    }
}

/// Memory of a batch; buffers that several slices share are counted by what each uses of them.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()) + ARRAY_BYTES
        })
        .sum()
}

/// State batches by window, from one over several. `window` is the column with the window's start.
pub(crate) fn by_window(state: RecordBatch, window: usize) -> Result<Vec<(Micros, RecordBatch)>, ArrowError> {
    let Some(starts) = state.column(window).as_primitive_opt::<TimestampMicrosecondType>() else {
        let ty = state.column(window).data_type();
        return Err(ArrowError::SchemaError(format!("the window's start is {ty}, not a timestamp in microseconds")));
    };
    let Some(first) = starts.values().first().copied() else { return Ok(Vec::new()) };
    if starts.values().iter().all(|start| *start == first) {
        return Ok(vec![(first, state)]);
    }
    let mut rows: HashMap<Micros, Vec<u32>, RandomState> = HashMap::default();
    for (row, start) in (0u32..).zip(starts.values()) {
        rows.entry(*start).or_default().push(row);
    }
    let mut split: Vec<(Micros, Vec<u32>)> = rows.into_iter().collect();
    split.sort_unstable_by_key(|(start, _)| *start);
    split.into_iter().map(|(start, rows)| Ok((start, take_record_batch(&state, &UInt32Array::from(rows))?))).collect()
}
