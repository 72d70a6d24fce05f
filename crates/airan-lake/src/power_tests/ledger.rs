//! What a lake whose power fails has promised so far, and whether it keeps that.
//!
//! A promise is made by an answer (a commit, an erasure, a request that was acknowledged) or by a look: what somebody has found
//! stays as it was found, for others act on it.

use std::collections::{BTreeMap, BTreeSet};

use airan_model::time::Micros;
use object_store::path::Path;

use crate::check::{Problem, Repair};
use crate::lake::Lake;
use crate::requests::Request;
use crate::testing::{SECOND, ids};

/// The tables, which hold the same rows.
pub(super) const TABLES: [&str; 2] = ["host", "link"];
/// A name that is overwritten.
pub(super) const NOTE: &str = "_probe/note";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The lake says at least this, because a commit said so, or a claim has read it.
    pub(super) committed: i64,
    /// A commit up to here was tried.
    pub(super) tried: i64,
    /// Number of a record that was acknowledged.
    pub(super) n: u64,
    /// What was written over and over under one name: the newest acknowledged, and the newest tried.
    pub(super) noted: (u64, u64),
    /// Retention may have taken out rows before this one.
    pub(super) expired: i64,
    /// By its condition, each erasure that was begun.
    pub(super) erasures: BTreeMap<String, Erasing>,
    pub(super) requests: BTreeMap<String, Asked>,
    /// Rows of each table that were found gone, or of which it was said.
    pub(super) gone: BTreeMap<&'static str, BTreeSet<i64>>,
}

/// An erasure of rows `id < below` of one site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Erasing {
    pub(super) site: i64,
    pub(super) below: i64,
    /// It may have been forgotten: everything was done.
    pub(super) is_finishing: bool,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    /// It was made: somebody was told, or has found it.
    pub(super) is_made: bool,
    /// It may have been removed.
    pub(super) is_removing: bool,
}

impl Erasing {
    pub(super) fn takes(&self, id: i64) -> bool {
        id < self.below && id % 3 == self.site
    }

    pub(super) fn condition(&self) -> String {
        format!("site = 's{}' AND id < {}", self.site, self.below)
    }
}

impl Ledger {
    /// An erasure has said that it is done.
    pub(super) fn erased(&mut self, erasing: Erasing) {
        for table in TABLES {
            self.gone.entry(table).or_default().extend((0..erasing.below).filter(|id| erasing.takes(*id)));
        }
    }

    /// Whether the lake keeps what was promised; what is found is promised from now on. `is_settled`: no process has died since
    /// the last pass of retention, so a glob is exact as well.
    pub(super) async fn look(&mut self, lake: &Lake, is_settled: bool) -> Result<(), String> {
        self.look_at_note(lake).await?;
        self.look_at_requests(lake).await?;
        if self.committed == 0 {
            return Ok(());
        }
        let report = lake.check().await.map_err(|error| format!("S1: {error}"))?;
        let is_of_a_pass = |repair: Repair| matches!(repair, Repair::Command { command: "airan lake expire", .. });
        let is_wrong = |problem: &&Problem| is_settled || !is_of_a_pass(problem.repair);
        if let Some(problem) = report.problems.iter().find(is_wrong) {
            return Err(format!("S1: {problem}"));
        }
        for table in TABLES {
            self.look_at_rows(lake, table).await?;
        }
        Ok(())
    }

    async fn look_at_note(&self, lake: &Lake) -> Result<(), String> {
        let note = lake.store().read(&Path::from(NOTE)).await.map_err(|error| format!("the note: {error}"))?;
        let note = note.map_or(0, |note| std::str::from_utf8(&note).unwrap().parse().unwrap());
        match (self.noted.0..=self.noted.1).contains(&note) {
            true => Ok(()),
            false => Err(format!("{:?} was noted, and {note} is there", self.noted)),
        }
    }

    async fn look_at_requests(&mut self, lake: &Lake) -> Result<(), String> {
        let found = lake.requests().await.map_err(|error| format!("requests: {error}"))?;
        let mut missing: BTreeSet<String> =
            self.requests.values().filter(|a| a.is_made && !a.is_removing).map(|a| a.request.id.clone()).collect();
        for request in found {
            missing.remove(&request.id);
            match self.requests.get_mut(&request.id) {
                Some(asked) if asked.request == request => asked.is_made = true,
                _ => return Err(format!("nobody made the request {request:?}")),
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(id) => Err(format!("request {id} was made, and is not there")),
        }
    }

    /// Every row is there once, but those that an erasure or retention took; those had written down beforehand what they take.
    async fn look_at_rows(&mut self, lake: &Lake, table: &'static str) -> Result<(), String> {
        let found = ids(lake, table).await;
        let gone = self.gone.entry(table).or_default();
        if !found.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(format!("S1: rows of {table} are there twice: {found:?}"));
        }
        let found: BTreeSet<i64> = found.into_iter().collect();
        if let Some(id) = found.iter().find(|id| gone.contains(id) || !(0..self.committed).contains(id)) {
            return Err(format!("S1: row {id} of {table} is there again, or was never committed"));
        }
        let erasures = lake.erasures().await.map_err(|error| format!("erasures: {error}"))?;
        let raw_from = lake.raw_from().await.map_err(|error| format!("raw_from: {error}"))?;
        for id in (0..self.committed).filter(|id| !found.contains(id)) {
            let at: Micros = id * SECOND;
            let covers = |(condition, erasing): (&String, &Erasing)| {
                let is_noted = || {
                    let known = erasures.iter().filter(|known| known.condition == *condition);
                    let spans = known.filter_map(|known| known.affected.get(table)?.get(&format!("s{}", erasing.site)));
                    spans.flatten().any(|(from, to)| (*from..*to).contains(&at))
                };
                erasing.takes(id) && (erasing.is_finishing || is_noted())
            };
            let is_erased = self.erasures.iter().any(covers);
            let is_expired = id < self.expired && at < raw_from;
            if !is_erased && !is_expired {
                return Err(format!("S1: row {id} of {table} is gone, and nothing says that it was to go"));
            }
            gone.insert(id);
        }
        Ok(())
    }
}
