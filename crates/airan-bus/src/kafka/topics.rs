//! Topics: made where they are missing, and checked where they are there.
//!
//! [`judge`] is pure: what a topic is against what we need, one line for each property that differs, fatal where messages would
//! be lost, misplaced or refused, a warning where only safety suffers.

use std::collections::BTreeMap;

/// Copies of each message, where there are brokers enough.
pub(super) const REPLICATION: i32 = 3;
/// How long a topic of telemetry keeps messages, where we make it: time to mend a processor over a long week-end.
const RETENTION_MS: i64 = 7 * 24 * 3_600_000;
/// How long records of what was refused are kept, where we make their topic: they are few, and asked for late.
const REJECTED_RETENTION_MS: i64 = 14 * 24 * 3_600_000;
/// Less than a day is a warning, for that is how long an outage may last unseen.
const RETENTION_LOW_MS: i64 = 24 * 3_600_000;

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub partitions: u32,
    /// Copies of the partition that has fewest.
    pub replication: i32,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
}

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Messages of rows and ticks.
    Telemetry {
        partitions: u32,
        /// Largest message.
        message_max: u32,
    },
    /// Records of what was refused. Nobody's numbers depend on it, so nothing about it is fatal.
    Rejected,
}

/// What is to be said about a topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The topic cannot be used as it is.
    pub fatal: Vec<String>,
    /// It can, and this should be changed.
    pub warnings: Vec<String>,
    /// It has other than this many partitions.
    pub partitions: Option<u32>,
}

impl Use {
    pub fn partitions(self) -> u32 {
        match self {
            Use::Telemetry { partitions, .. } => partitions,
            Use::Rejected => 1,
        }
    }

    /// The configuration of a new topic with `replication` copies.
    pub fn new_config(self, replication: i32) -> Vec<(&'static str, String)> {
        let retention = if self == Use::Rejected { REJECTED_RETENTION_MS } else { RETENTION_MS };
        let mut config = vec![
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.to_string()),
            ("min.insync.replicas", safe_insync(replication).to_string()),
        ];
        if let Use::Telemetry { message_max, .. } = self {
            config.push(("max.message.bytes", message_max.to_string()));
        }
        config
    }
}

/// Copies that must have a message before it is acknowledged: one broker may be away and none of the acknowledged be lost.
fn safe_insync(replication: i32) -> i32 {
    (replication - 1).clamp(1, 2)
}

/// Holds a topic against its use. `brokers` is how many there are.
pub(super) fn judge(found: &Found, used: Use, brokers: i32) -> Verdict {
    let mut verdict = Verdict::default();
    let text = |name: &str| found.config.get(name).map(String::as_str);
    let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());

    let wanted = REPLICATION.min(brokers);
    if found.replication < wanted {
        verdict.warnings.push(format!(
            "replication is {}, {wanted} is safe with {brokers} brokers: rows are lost with a disk (kafka-reassign-partitions)",
            found.replication
        ));
    }
    if let Some(insync) = number("min.insync.replicas") {
        let safe = i64::from(safe_insync(found.replication));
        if insync > i64::from(found.replication) {
            verdict.fatal.push(format!(
                "min.insync.replicas is {insync} with {} replicas: every message would be refused; set it to {safe}",
                found.replication
            ));
        } else if insync < safe {
            verdict.warnings.push(format!(
                "min.insync.replicas is {insync}, {safe} is safe: an acknowledged row may be on one broker alone"
            ));
        }
    }
    if let Some(kind) = text("message.timestamp.type").filter(|kind| *kind != "LogAppendTime") {
        verdict.fatal.push(format!(
            "message.timestamp.type is {kind}, LogAppendTime is needed: windows close by the broker's time, not by a sender's"
        ));
    }
    if let Some(policy) = text("cleanup.policy").filter(|policy| policy.contains("compact")) {
        verdict.fatal.push(format!("cleanup.policy is {policy}, delete is needed: compaction removes rows"));
    }
    if let Some(retention) = number("retention.ms").filter(|ms| (0..RETENTION_LOW_MS).contains(ms)) {
        verdict.warnings.push(format!(
            "retention.ms is {retention}: rows that no processor has read within {} minutes are lost; keep a day at least",
            retention / 60_000
        ));
    }
    if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
        verdict.warnings.push(format!(
            "retention.bytes is {bytes} for each partition: unread rows beyond it are lost, however new they are"
        ));
    }
    match used {
        Use::Telemetry { partitions, message_max } => {
            verdict.partitions = Some(found.partitions).filter(|count| *count != partitions);
            if let Some(max) = number("max.message.bytes").filter(|max| *max < i64::from(message_max)) {
                verdict.fatal.push(format!(
                    "max.message.bytes is {max}, messages may have {message_max}: raise it, or lower message.max.bytes in \
                     bus.properties and gateway.gather.message_bytes"
                ));
            }
        }
        Use::Rejected => {
            let fatal = std::mem::take(&mut verdict.fatal);
            verdict.warnings.extend(fatal);
        }
    }
    verdict
}

/// The topic of what was refused, named after the topic of telemetry, so that jurisdictions stay apart.
pub(crate) fn rejected_topic(topic: &str) -> String {
    match topic.strip_prefix("airan.telemetry") {
        Some(rest) => format!("airan.rejected{rest}"),
        None => format!("{topic}.rejected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TELEMETRY: Use = Use::Telemetry { partitions: 64, message_max: 1_000_000 };

    fn found(changes: &[(&str, &str)]) -> Found {
        let mut config: BTreeMap<String, String> =
            TELEMETRY.new_config(3).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        config.insert("retention.bytes".to_owned(), "-1".to_owned());
        config.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Found { partitions: 64, replication: 3, config }
    }

    #[test]
    fn a_topic_we_would_make_has_no_faults() {
        for (brokers, replication) in [(1, 1), (2, 2), (3, 3), (9, 3)] {
            let config = TELEMETRY.new_config(replication).into_iter().map(|(name, value)| (name.to_owned(), value));
            let found = Found { partitions: 64, replication, config: config.collect() };
            assert_eq!(judge(&found, TELEMETRY, brokers), Verdict::default(), "{brokers} brokers");
        }
    }

    /// Scenario: one property after the other is not as it should be.
    /// Guarantees: one line for it, fatal or a warning, that names the property and what is needed.
    #[test]
    fn each_property_is_judged_with_a_line() {
        for (name, value, is_fatal, word) in [
            ("min.insync.replicas", "4", true, "every message would be refused"),
            ("min.insync.replicas", "1", false, "2 is safe"),
            ("message.timestamp.type", "CreateTime", true, "LogAppendTime is needed"),
            ("cleanup.policy", "compact", true, "delete is needed"),
            ("cleanup.policy", "compact,delete", true, "delete is needed"),
            ("retention.ms", "3600000", false, "within 60 minutes"),
            ("retention.bytes", "1000000", false, "however new"),
            ("max.message.bytes", "999999", true, "1000000"),
        ] {
            let Verdict { fatal, warnings, partitions } = judge(&found(&[(name, value)]), TELEMETRY, 3);
            let (lines, others) = if is_fatal { (fatal, warnings) } else { (warnings, fatal) };
            assert_eq!((lines.len(), others.len(), partitions), (1, 0, None), "{name}={value}");
            assert!(lines[0].starts_with(name) && lines[0].contains(word), "{lines:?}");
        }
        for (name, value) in [("retention.ms", "-1"), ("max.message.bytes", "2000000"), ("min.insync.replicas", "3")] {
            assert_eq!(judge(&found(&[(name, value)]), TELEMETRY, 3), Verdict::default(), "{name}={value}");
        }
        let few = Found { partitions: 12, replication: 1, ..found(&[("min.insync.replicas", "1")]) };
        let verdict = judge(&few, TELEMETRY, 3);
        assert_eq!((verdict.partitions, verdict.fatal.len(), verdict.warnings.len()), (Some(12), 0, 1));
        assert!(verdict.warnings[0].starts_with("replication is 1, 3 is safe"));
        let rejected = judge(&found(&[("message.timestamp.type", "CreateTime")]), Use::Rejected, 3);
        assert_eq!((rejected.fatal.len(), rejected.warnings.len()), (0, 1));
    }

    #[test]
    fn what_was_refused_goes_beside_its_telemetry() {
        assert_eq!(rejected_topic("airan.telemetry"), "airan.rejected");
        assert_eq!(rejected_topic("airan.telemetry.de"), "airan.rejected.de");
        assert_eq!(rejected_topic("mine"), "mine.rejected");
    }
}
