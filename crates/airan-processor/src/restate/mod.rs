//! Restatement: closed windows computed again from the raw rows of the lake, in the order of event time.
//!
//! ```text
//!  after a commit                              beside the messages                       the next commit
//!  due marks ─┐                                                                         ┌─▶ rows at revision + 1
//!  requests ──┴─▶ Round ──▶ history ──▶ event order ──▶ Windows (as live) ──▶ Restated ──┼─▶ marks taken away
//!                           raw rows    rises anew      close                           └─▶ windows that follow marked
//! ```
//!
//! A round reads what was committed when it began, and nothing else. That is right because a mark becomes due only once the row
//! that made it is committed, and a mark made while the round runs stays (see `marks`). Its result becomes true with the
//! shard's next commit or not at all (**W2**): a crash, a fence or a failing store before it leave marks and revisions alone.
//! The round is a task of its own, so it holds up no message and no live window; if it fails its marks are due again.
//!
//! The windows are computed by the plan that computes live ones. Rises are computed anew, in event time, from the cumulative
//! values: with the last row before the window, and with resets, by the same rules as live. So a node that was away ends with
//! the windows of one that never was. Raw rows are never rewritten: their `_increase` and `_increase_seconds` columns stay as
//! they were computed in the order of arrival, null for a row that came out of order.

pub(crate) mod emptied;
pub(crate) mod history;
pub(crate) mod order;
pub(crate) mod requests;
pub(crate) mod round;
pub(crate) mod shard;

#[cfg(test)]
pub(crate) mod interleaving;
#[cfg(test)]
#[path = "restate_tests.rs"]
mod tests;
