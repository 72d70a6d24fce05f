//! Why a request was not acknowledged, in the words of the sender's next step.
//!
//! One type serves every door; how it looks in HTTP and gRPC is `doors::answer`'s business.

use std::time::Duration;

use airan_model::reject::Reason;

/// Why a request, or a part of it, was not acknowledged. Each variant names the sender's next step.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Mend the request: it will never be accepted as it is.
    #[error("{message}")]
    Malformed {
        /// Under what it is counted.
        reason: Reason,
        /// What is wrong, without content of the request.
        message: String,
        /// Where, when the decoder knows (line, byte offset).
        position: Option<String>,
    },
    /// Send less in one request.
    #[error("the request is over {limit} bytes, the limit after decompression")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Send fewer rows, or smaller ones: a single row does not fit in a message.
    #[error("a row takes more than the {limit} bytes of a message")]
    RowTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Use another content type or encoding.
    #[error("{message}")]
    Unsupported {
        /// What is accepted instead.
        message: String,
    },
    /// Slow down: this sender is over its share.
    #[error("this sender is over its share")]
    OverShare {
        /// When its next request is welcome.
        retry_after: Duration,
    },
    /// The body did not come in time; send it again.
    #[error("the body did not arrive within the request timeout")]
    Slow,
    /// Send again later: the gateway holds as much as it may.
    #[error("too many {what} under way")]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// Send again later: the bus did not take the rows, and holds none of them.
    #[error("the bus does not take rows: {message}")]
    Unavailable {
        /// What the bus says.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Send again: rows may or may not have been stored. Rows that were are known by their identity and dropped.
    #[error("the outcome is unknown: {message}")]
    Unknown {
        /// What the bus says.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// An invariant of ours is broken. Send again later.
    #[error("internal error: {message}")]
    Internal {
        /// What broke.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
}

impl Refusal {
    /// A request that its sender must mend.
    pub fn malformed(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal::Malformed { reason, message: message.into(), position: None }
    }

    /// The word under which it is counted and by which a sender can tell cases apart.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Malformed { reason, .. } => reason.as_str(),
            Refusal::TooLarge { .. } | Refusal::RowTooLarge { .. } => Reason::TooLarge.as_str(),
            Refusal::Unsupported { .. } => Reason::UnsupportedFormat.as_str(),
            Refusal::OverShare { .. } => Reason::OverShare.as_str(),
            Refusal::Slow => "timeout",
            Refusal::Busy { .. } => "busy",
            Refusal::Unavailable { .. } => Reason::Unavailable.as_str(),
            Refusal::Unknown { .. } => "unknown_outcome",
            Refusal::Internal { .. } => "internal",
        }
    }

    /// When a retry is welcome; `None` where the same request would fail again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::OverShare { retry_after }
            | Refusal::Busy { retry_after, .. }
            | Refusal::Unavailable { retry_after, .. }
            | Refusal::Unknown { retry_after, .. }
            | Refusal::Internal { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// How bad it is for a request whose parts met different ends: the answer is the worst one.
    ///
    /// An unknown outcome comes first, for then nothing may be promised; then what can be retried; then what cannot.
    pub(crate) fn gravity(&self) -> u8 {
        match self {
            Refusal::Unknown { .. } => 2,
            other if other.retry_after().is_some() => 1,
            _ => 0,
        }
    }
}
