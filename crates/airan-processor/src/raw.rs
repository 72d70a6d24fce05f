//! Rows that wait for the next commit, as they will be stored.

use arrow::array::{Array, RecordBatch};

/// Rows of one stream since the last commit.
#[derive(Debug, Default)]
pub(crate) struct RawRows {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl RawRows {
    pub fn push(&mut self, rows: RecordBatch) {
        self.bytes += bytes_of(&rows);
        self.batches.push(rows);
    }

    /// What is held in memory for them; columns of nulls are shared and cost nothing.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands them over to a commit.
    pub fn take(&mut self) -> Vec<RecordBatch> {
        self.bytes = 0;
        std::mem::take(&mut self.batches)
    }
}

fn bytes_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter().filter(|column| column.null_count() < column.len());
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}
