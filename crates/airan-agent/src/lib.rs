//! The agent: collects telemetry where it arises and sends it to a gateway.
//!
//! ```text
//!  collect/host, collect/link ─┐
//!  accelerators              ──┤
//!                              ├─▶ stamp ─▶ queue ─▶ uplink ─▶ gateway (HTTP) or this process (`airan up`)
//!  scrape (one per target)   ──┘
//! ```
//!
//! Every row gets its identity when it is collected: the agent's random batch and a number that counts the rows of its stream
//! without gaps. So sending it twice is harmless, and rows that had to be dropped show as a gap. The queue is bounded; while
//! the gateway is away the oldest rows go first, and are counted.
//!
//! With [`Agent::simulating`] none of this machine's rows are collected but those of a made-up site ([`demo`]).
//!
//! At every moment, and after [`Agent::run`]: collected = acknowledged + queued + dropped (by reason).

#[cfg(target_os = "linux")]
mod accelerators;
mod address;
mod agent;
mod collect;
pub mod demo;
mod metrics;
mod queue;
mod rows;
mod scrape;
mod settings;
mod stamp;
#[cfg(test)]
mod told;
mod uplink;

pub use address::Address;
pub use agent::{Agent, AgentError};
pub use metrics::AgentMetrics;
pub use settings::{
    AcceleratorSettings, AcceleratorSource, CollectorSettings, DemoSettings, QueueSettings, ScrapeSettings, Settings,
    TargetSettings, UplinkSettings,
};
pub use uplink::{Submit, Uplink, UplinkError};
