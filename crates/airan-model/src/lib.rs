//! What airan knows about telemetry before a byte of it arrives: streams and their columns, where foreign metrics land, who
//! belongs to which site, how a row is identified, and what travels on the bus.
//!
//! Pure but for reading its own configuration files: no network, no threads, and no clock other than [`time::Clock`], which
//! callers pass around.

pub mod catalog;
pub mod crash;
pub mod identity;
pub mod inventory;
pub mod ipc;
pub mod limits;
pub mod message;
pub mod reject;
pub mod schema;
pub mod settings;
pub mod time;
pub mod unit;

mod causes;
mod yaml;

pub use causes::causes;
pub use yaml::Place;
