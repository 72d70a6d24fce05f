//! What a check found, and what repairs it.

use std::fmt::{self, Display, Formatter};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Shards.
    pub shards: u64,
    /// Commit records that are not trimmed.
    pub records: u64,
    /// Tables with a Delta log.
    pub deltas: u64,
    /// Files that count.
    pub files: u64,
    /// Of them, those that Delta names.
    pub published: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Parquet files in object-store tables that nothing names: left by crashes, or taken out less than a day ago. Harmless
    /// to every exact reader.
    pub orphans: u64,
    /// What is wrong; empty in a sound lake.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `K1`, `K2` or `S1`.
    pub invariant: &'static str,
    /// Where.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub repair: Repair,
}

/// What repairs a lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// This command, with the configuration that the check had.
    Command {
        /// As it is typed.
        command: &'static str,
        /// What it does about it.
        why: &'static str,
    },
    /// No command: what is lost is in no other file of the lake.
    ByHand(&'static str),
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.invariant, self.path, self.what, self.repair)
    }
}

impl Display for Repair {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Repair::Command { command, why } => write!(f, "run `{command}`: {why}"),
            Repair::ByHand(what) => write!(f, "no command repairs it: {what}"),
        }
    }
}

/// A file or a document that is lost.
pub(super) const RESTORE: Repair =
    Repair::ByHand("restore it from a copy of the lake; its rows are read again only if the bus still holds them");
/// What no crash leaves.
pub(super) const NEVER: Repair =
    Repair::ByHand("stop the shard and restore the records from a copy of the lake; no release writes this");
/// A file that nothing names, beside records that are damaged or missing.
pub(super) const RECORDS_FIRST: Repair =
    Repair::ByHand("a record that is damaged or missing may name it: restore the records first, and check again");
/// A table's Delta log that is lost.
pub(super) const LOG: Repair = Repair::ByHand(
    "restore the table's `_delta_log` folder from a copy of the lake; until then its published rows cannot be read",
);
/// How far retention has come cannot be told.
pub(super) const NOTE: Repair = Repair::ByHand(
    "restore it from a copy of the lake; where there is none, give it a name that is the time, in microseconds, of the oldest raw row that is \
     whole: until then no window is computed again and nothing expires",
);
/// A file whose writer died before it had its place.
pub(super) const PUBLISH: Repair = Repair::Command {
    command: "airan lake publish",
    why: "it gives files the place that a processor which died did not (so does the next start of that processor)",
};
/// Names of files that a pass which died did not come to.
pub(super) const PASS: Repair = Repair::Command {
    command: "airan lake expire",
    why: "it gives and takes the names that a publisher, a compaction or a retention which died did not come to",
};

impl CheckReport {
    pub(super) fn add(&mut self, invariant: &'static str, path: impl ToString, what: impl ToString, repair: Repair) {
        self.problems.push(Problem { invariant, path: path.to_string(), what: what.to_string(), repair });
    }
}
