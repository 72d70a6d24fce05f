//! The record of something refused, as it goes to the `airan.rejected` topic.
//!
//! It says what was refused and why, never what it held: payloads may carry subscriber data.

use serde::{Deserialize, Serialize};

use crate::time::{Micros, format_rfc3339, parse_rfc3339};

/// Why something was refused. Also the value of the `reason` label of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The bytes do not follow their format.
    Malformed,
    /// Compressed data is cut off or damaged.
    BadCompression,
    /// A content type or encoding no door reads.
    UnsupportedFormat,
    /// Bigger than a limit allows, after decompression.
    TooLarge,
    /// A sample has more labels than allowed.
    TooManyLabels,
    /// A label is longer than allowed.
    LabelTooLong,
    /// More samples than one scrape or request may hold.
    TooManySamples,
    /// Values nested deeper than allowed.
    TooDeep,
    /// No stream of that name.
    UnknownStream,
    /// A value that does not fit its column.
    WrongType,
    /// A kind of metric that is not supported.
    UnsupportedMetric,
    /// A log record without an event name: no row is made of it.
    NotAnEvent,
    /// No usable time.
    BadTime,
    /// The sender is over its share.
    OverShare,
    /// The sender may not speak for that node.
    NotAllowed,
    /// A message on the topic that is not ours, or is damaged.
    Foreign,
    /// The bus could not take it.
    Unavailable,
}

impl Reason {
    /// Every reason, for counters that start at zero.
    pub const ALL: [Reason; 17] = [
        Reason::Malformed,
        Reason::BadCompression,
        Reason::UnsupportedFormat,
        Reason::TooLarge,
        Reason::TooManyLabels,
        Reason::LabelTooLong,
        Reason::TooManySamples,
        Reason::TooDeep,
        Reason::UnknownStream,
        Reason::WrongType,
        Reason::UnsupportedMetric,
        Reason::NotAnEvent,
        Reason::BadTime,
        Reason::OverShare,
        Reason::NotAllowed,
        Reason::Foreign,
        Reason::Unavailable,
    ];

    /// The name in metrics, messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::BadCompression => "bad_compression",
            Reason::UnsupportedFormat => "unsupported_format",
            Reason::TooLarge => "too_large",
            Reason::TooManyLabels => "too_many_labels",
            Reason::LabelTooLong => "label_too_long",
            Reason::TooManySamples => "too_many_samples",
            Reason::TooDeep => "too_deep",
            Reason::UnknownStream => "unknown_stream",
            Reason::WrongType => "wrong_type",
            Reason::UnsupportedMetric => "unsupported_metric",
            Reason::NotAnEvent => "not_an_event",
            Reason::BadTime => "bad_time",
            Reason::OverShare => "over_share",
            Reason::NotAllowed => "not_allowed",
            Reason::Foreign => "foreign",
            Reason::Unavailable => "unavailable",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where it came in: `otlp_http`, `ndjson`, `bus` …
    pub door: String,
    /// Why.
    pub reason: Reason,
    /// Who sent it, where that is known.
    pub node: Option<String>,
    /// Bytes of what was refused.
    pub length: u64,
    /// SHA-256 of what was refused, hex.
    pub sha256: String,
    /// Where in it the fault lies: a line, an index, an offset.
    pub position: Option<String>,
    /// When it was refused.
    pub at: Micros,
    /// Rows refused with it; 0 where they cannot be counted.
    pub rows: u64,
}

/// A record as it is written.
#[derive(Deserialize)]
struct Written {
    door: String,
    reason: Reason,
    node: Option<String>,
    length: u64,
    sha256: String,
    position: Option<String>,
    at: String,
    rows: u64,
}

impl Rejected {
    /// Reads what [`Rejected::to_json`] writes; None where it is something else.
    pub fn from_json(json: &[u8]) -> Option<Rejected> {
        let Written { door, reason, node, length, sha256, position, at, rows } = serde_json::from_slice(json).ok()?;
        Some(Rejected { door, reason, node, length, sha256, position, at: parse_rfc3339(&at)?, rows })
    }

    /// One JSON object, without line end.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!({
            "door": self.door, "reason": self.reason.as_str(), "node": self.node, "length": self.length,
            "sha256": self.sha256, "position": self.position, "at": format_rfc3339(self.at), "rows": self.rows,
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_one_json_object_and_reasons_have_one_name() {
        let rejected = Rejected {
            door: "ndjson".into(),
            reason: Reason::UnknownStream,
            node: None,
            length: 12,
            sha256: crate::identity::sha256_hex(b"x"),
            position: Some("line 3".into()),
            at: 0,
            rows: 1,
        };
        let read: serde_json::Value = serde_json::from_slice(&rejected.to_json()).unwrap();
        assert_eq!(read["reason"], "unknown_stream");
        assert_eq!(read["at"], "1970-01-01T00:00:00Z");
        assert!(read["node"].is_null());
        assert_eq!(Rejected::from_json(&rejected.to_json()), Some(rejected));
        assert_eq!((Rejected::from_json(b"{}"), Rejected::from_json(b"not JSON")), (None, None));
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
