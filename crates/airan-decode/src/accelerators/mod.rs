//! What the programs of accelerators' vendors print about the devices of their host: `nvidia-smi` (XML, CSV) and `rocm-smi` (JSON).
//!
//! Pure readers of a whole output, which the agent has bounded already. What they find is a [`Reading`]: columns of stream
//! `accelerator` in base units. Values in words nobody knows are told, never guessed; who owns a device is the agent's to find out.

mod reading;
pub mod rocm;
pub mod smi_csv;
pub mod smi_xml;
mod value;

pub use reading::{Entry, Process, Reading, Xid};

/// Why an output cannot be read: the program's format, the place, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(pub(crate) String);
