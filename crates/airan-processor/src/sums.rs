//! The sums of a shard (DESIGN section 10), in rows: appended = stored + duplicate + rejected + pending.
//!
//! `appended` and `rejected` are counted from message headers, so that a message nobody can read is still counted. All but
//! `pending` are part of the shard state and survive a restart; `pending` is what the next commit turns into `stored`.

/// Rows of one shard, since it first began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Came from the bus.
    pub appended: u64,
    /// Are in the lake.
    pub stored: u64,
    /// Had been here before.
    pub duplicate: u64,
    /// Could not be read.
    pub rejected: u64,
    /// Wait for the next commit.
    pub pending: u64,
    /// Had no identity, so that a duplicate could not be told.
    pub anonymous: u64,
    /// Messages that are not ours; they have no rows that could be counted.
    pub foreign: u64,
    /// Were at or before the last time of one of their counters; among the stored.
    pub out_of_order: u64,
    /// Offsets, not rows: what had gone from the bus unread, and was given up by `airan shard skip`.
    pub skipped: u64,
}

impl Sums {
    /// Whether they add up.
    pub fn add_up(&self) -> bool {
        self.appended == self.stored + self.duplicate + self.rejected + self.pending
    }

    /// As they are once everything pending is stored.
    pub fn committed(&self) -> Sums {
        Sums { stored: self.stored + self.pending, pending: 0, ..*self }
    }
}
