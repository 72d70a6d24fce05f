//! The processor role: one shard per partition of the bus, from messages to committed windows.

mod backfill;
mod board;
mod commit;
mod completeness;
mod crew;
mod dedupe;
mod entities;
mod exported;
mod golden;
mod golden_input;
mod histogram_rises;
mod late;
mod load;
mod maintenance;
mod marks;
mod metrics;
mod open;
mod processor;
mod ranges;
mod raw;
mod recover;
mod rejects;
mod replay;
mod restate;
mod results;
mod rises;
mod rises_state;
mod series;
mod settings;
mod setup;
mod shard;
mod sheet;
mod skip;
mod spans;
mod split;
mod stage;
mod state;
mod steps;
mod summary;
mod sums;
mod threads;
mod worker;

#[cfg(test)]
#[path = "../../../tests/dice.rs"]
mod dice;
#[cfg(test)]
#[path = "../../../tests/power.rs"]
mod power;
#[cfg(test)]
#[path = "../../../tests/power_log.rs"]
mod power_log;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_bus;
#[cfg(test)]
mod upgrade_tests;

pub use backfill::{OfflineError, OfflineReport, ProgressError, RequestProgress, request_progress, restate_offline};
pub use board::Readiness;
pub use golden::{GoldenError, GoldenReport, pipeline_test};
pub use golden_input::{InputError, read_messages};
pub use load::LoadSummary;
pub use metrics::ProcessorMetrics;
pub use open::can_read;
pub use processor::{Processor, ProcessorError};
pub use replay::{Cuts, ReplayError, Replayed, ReplayedWindow, replay};
pub use results::Results;
pub use series::series;
pub use settings::{CommitSettings, CounterSettings, IdentitySettings, RestateSettings, Settings, WindowSettings};
pub use setup::Pipeline;
pub use sheet::StateError;
pub use skip::{Loss, SkipError, find_loss, skip};
pub use summary::{PipelineSummary, ShardSummary};
