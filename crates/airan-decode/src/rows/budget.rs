//! How much one body may make of itself.
//!
//! Rows are wider than what they come from: a label of a resource is repeated in each row, and a column of a stream costs its
//! width in every row, also where it is null. So a small body could become rows of any size. Two sums bound it; samples that
//! come when one is spent are refused.

/// Most bytes of text in the rows of one body: names, labels, attributes.
const TEXT_MAX: usize = 32 << 20;
/// Most cells of all tables of one body: rows × columns that have a value in any of them. About nine bytes each.
const CELLS_MAX: usize = 4 << 20;

/// What is left of the two sums.
///
/// Checked before each sample and paid after it, so that what one sample takes (64 labels of 2 KiB, a column's worth of cells)
/// may go beyond.
#[derive(Debug)]
pub(crate) struct Budget {
    text: usize,
    cells: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { text: TEXT_MAX, cells: CELLS_MAX }
    }
}

impl Budget {
    /// Whether one of the two is used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.text == 0 || self.cells == 0
    }

    /// Pays for text.
    pub(crate) fn text(&mut self, bytes: usize) {
        self.text = self.text.saturating_sub(bytes);
    }

    /// Pays for cells.
    pub(crate) fn cells(&mut self, cells: usize) {
        self.cells = self.cells.saturating_sub(cells);
    }
}
