//! Event-time windows planned and run with DataFusion: the only planner of windows.
//!
//! ```text
//! query.sql ─▶ syntax ─▶ split ─▶ plan: for each stream a source, and the rest of the query
//!              refusals   lowest windowed aggregates
//!
//! rows ─▶ waiting ─▶ Partial ─▶ state batches by window ─▶ (PartialReduce when they grow)
//!                                       │ the watermark passes the end
//!                                       ▼
//!                                     Final ─▶ rest of the query ─▶ ClosedWindow
//! ```
//!
//! [`PipelinePlan`] is made once and shared; [`Windows`] is one partition's open windows and belongs to one task. Nothing here
//! reads a clock, touches a disk or a network: time is an argument, so a test is a list of calls and the answers they must give.
//!
//! - **W1**: panes tile time, also before 1970 ([`WindowWidth`]); a tumbling window is one pane, a hopping one several ([`Cut`]).
//! - **W3**: what a window says is a function of its rows alone, not of how they were cut into pushes. (Sums of floating numbers
//!   may differ in their last digits, and sketches, `approx_percentile_cont` among them, within their error.)

mod arguments;
mod cut;
mod engine;
mod error;
mod histogram;
mod hop;
mod lineage;
mod output;
mod plan;
mod session;
mod source;
mod split;
mod state;
mod syntax;
mod trace;
mod tumble;
mod width;
mod windows;

pub mod pipeline;
pub mod watermark;

#[cfg(test)]
mod testing;

pub use cut::Cut;
pub use error::{PlanError, Refusal, SqlPlace, WindowError};
pub use plan::PipelinePlan;
pub use session::session_context;
pub use width::{WidthError, Window, WindowWidth};
pub use windows::{ClosedWindow, Windows};
