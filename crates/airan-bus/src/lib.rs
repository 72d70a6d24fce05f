//! The bus: Kafka, or the local log.
//!
//! ```text
//! gateway ── send ──▶ partition 0 … n-1 ── Event::Message ──▶ processor
//!         ── send_rejected ──▶ rejected                ◀── seek, report
//! ```
//!
//! Both buses carry the same messages at the same kind of offsets, so that what is right over one is right over the other:
//!
//! - **B1** `send` answers with an offset only when the message is durable, and with an error that says whether it may be there;
//! - **B2** messages of a partition come in the order of their offsets, each with the time at which the bus appended it;
//! - **B3** a consumer gets nothing of a partition before it has said from which offset ([`Consumer::seek`]);
//! - **B4** a partition that was revoked goes to no one else before [`Consumer::released`];
//! - **B5** the partition count of a topic never changes.
//!
//! [`open`] makes a bus from its settings. Which one it is, nobody above needs to know: [`Bus`] and [`Consumer`] are traits
//! because two implementations exist, in `local` and `kafka`. Beside the bus, [`Inlet`] reads Kafka topics that others write.

mod bus;
mod counts;
mod kafka;
mod local;
mod reader;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use airan_model::time::Clock;

pub use bus::{Bus, ConsumeError, Consumer, Event, Received, SendError};
pub use counts::Counts;
pub use kafka::{Arrival, Behind, Given, Inlet, TopicSettings, TopicStart};
pub use local::frame;
pub use reader::{REJECTED_MAX, Reader, RejectedRecord};
pub use settings::{BusSettings, KafkaSettings, LocalSettings, properties, properties_schema};

/// Why a bus could not be opened. None of these heals by itself; a broker that is away is waited for instead.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stop the other process, or give this one a folder of its own.
    #[error("the local log in {path} is in use by another process: one process alone can use it")]
    InUse {
        /// Folder of the log.
        path: PathBuf,
    },
    /// Look at the disk, or the rights on the folder.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Look at the folder of the partition.
    #[error("cannot open the log in {path}")]
    Log {
        /// Folder of the partition.
        path: PathBuf,
        /// Why.
        source: airan_log::OpenError,
    },
    /// Put back what the folder lacks, or move it away.
    #[error("{path} is no folder of a local log that this release can read: {reason}")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Set the count back, or move to another topic (B5).
    #[error(
        "topic `{topic}` has {found} partitions, bus.partitions says {wanted}; the count of a topic never changes: set it back \
         to {found}, or let the processors empty the topic and go on with a new bus.topic{also} (the lake keeps both)"
    )]
    PartitionsChanged {
        /// The topic.
        topic: String,
        /// As it is.
        found: u32,
        /// As the settings say.
        wanted: u32,
        /// What else has to be new.
        also: &'static str,
    },
    /// Change the settings.
    #[error("{0}")]
    Setting(String),
    /// Change the topic, or the settings; each line names a property.
    #[error("topic `{topic}` cannot be used: {}", .problems.join("; "))]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong, a line each.
        problems: Vec<String>,
    },
}

/// Opens the bus. Over Kafka this waits for the broker, with a log line whenever the reason changes, and makes or checks the
/// topics. It can be dropped at any time and called again.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(settings: &BusSettings, clock: Clock) -> Result<Arc<dyn Bus>, OpenError> {
    Ok(match settings {
        BusSettings::Local(settings) => {
            let settings = settings.clone();
            let opened = tokio::task::spawn_blocking(move || local::LocalBus::open(&settings, clock)).await;
            Arc::new(opened.map_err(|error| OpenError::Setting(error.to_string()))??)
        }
        BusSettings::Kafka(settings) => Arc::new(kafka::KafkaBus::open(settings).await?),
    })
}
