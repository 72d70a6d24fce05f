//! What a shard state says, for those who look on: `airan lag` reads it while processors run, or while none does.

use std::collections::BTreeSet;

use airan_model::time::Micros;
use bytes::Bytes;

use crate::load::LoadSummary;
use crate::marks::Why;
use crate::sheet::{Sheets, StateError};

/// A shard as its last commit left it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSummary {
    /// Newest append time of its messages; None before the first.
    pub log_time: Option<Micros>,
    /// Rows that came from the bus.
    pub appended: u64,
    /// Rows in the lake.
    pub stored: u64,
    /// Rows that had been here before.
    pub duplicate: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Offsets whose loss was accepted.
    pub skipped_offsets: u64,
    /// How far the event time of each stream with nodes has come, before the pipelines' lateness.
    pub watermarks: Vec<(String, Micros)>,
    /// The pipelines.
    pub pipelines: Vec<PipelineSummary>,
    /// What it was busy with; None where a release wrote the state that did not measure it.
    pub load: Option<LoadSummary>,
}

/// One pipeline of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSummary {
    /// Its name.
    pub name: String,
    /// Windows that end by this time are closed; None before the first.
    pub closed_through: Option<Micros>,
    /// Windows of sites that wait for their restatement.
    pub dirty: u64,
}

impl ShardSummary {
    /// Reads a shard state.
    ///
    /// # Errors
    /// If a newer release wrote it, or it is damaged.
    pub fn read(state: Bytes) -> Result<ShardSummary, StateError> {
        let state = Sheets::read(state)?;
        let Some(shard) = state.table("shard") else {
            return Err(StateError::Damaged("no table `shard`".to_owned()));
        };
        let known = |at: &Micros| *at != Micros::MIN;
        // A stream of which no node is known has a watermark too, by append times: it says nothing of how far anybody is.
        let with_nodes: BTreeSet<&str> = state
            .table("clocks")
            .into_iter()
            .flat_map(|sheet| (0..sheet.rows()).filter_map(|row| sheet.text(row, "stream")))
            .collect();
        let watermarks = state
            .table("watermarks")
            .into_iter()
            .flat_map(|sheet| (0..sheet.rows()).map(move |row| (sheet, row)))
            .filter_map(|(sheet, row)| Some((sheet.text(row, "stream")?, sheet.int(row, "reached")?)))
            .filter(|(stream, _)| with_nodes.contains(stream))
            .map(|(stream, reached)| (stream.to_owned(), reached));
        let mut pipelines: Vec<PipelineSummary> = state
            .table("pipelines")
            .into_iter()
            .flat_map(|sheet| (0..sheet.rows()).map(move |row| (sheet, row)))
            .filter_map(|(sheet, row)| {
                let name = sheet.text(row, "pipeline")?.to_owned();
                let closed_through = sheet.int(row, "closed_through").filter(known);
                Some(PipelineSummary { name: name.clone(), closed_through, dirty: dirty_windows(&state, &name) })
            })
            .collect();
        // A pipeline that was taken away may have left windows behind.
        if let Some(dirty) = state.table("dirty") {
            for name in (0..dirty.rows()).filter_map(|row| dirty.text(row, "pipeline")) {
                if !pipelines.iter().any(|pipeline| pipeline.name == name) {
                    let dirty = dirty_windows(&state, name);
                    pipelines.push(PipelineSummary { name: name.to_owned(), closed_through: None, dirty });
                }
            }
        }
        Ok(ShardSummary {
            log_time: shard.int(0, "log_time").filter(known),
            appended: shard.count(0, "appended"),
            stored: shard.count(0, "stored"),
            duplicate: shard.count(0, "duplicate"),
            rejected: shard.count(0, "rejected"),
            skipped_offsets: shard.count(0, "skipped"),
            watermarks: watermarks.collect(),
            pipelines,
            load: state.table("load").and_then(LoadSummary::read),
        })
    }

    /// Windows of sites that wait for their restatement, all pipelines together.
    pub fn dirty(&self) -> u64 {
        self.pipelines.iter().map(|pipeline| pipeline.dirty).sum()
    }

    /// The stream whose event time is furthest behind.
    pub fn slowest(&self) -> Option<(&str, Micros)> {
        self.watermarks.iter().min_by_key(|(_, at)| *at).map(|(stream, at)| (stream.as_str(), *at))
    }
}

/// Windows of sites that a pipeline has to restate. A row of the table is one window, or a stretch of them where it has an end.
fn dirty_windows(state: &Sheets, pipeline: &str) -> u64 {
    let (Some(dirty), Some(pipelines)) = (state.table("dirty"), state.table("pipelines")) else { return 0 };
    let is_this = |row: &usize| pipelines.text(*row, "pipeline") == Some(pipeline);
    let width = (0..pipelines.rows()).find(is_this).and_then(|row| pipelines.int(row, "width")).unwrap_or(0);
    let windows = |row: usize| match (dirty.int(row, "start"), dirty.int(row, "end")) {
        (Some(start), Some(end)) if width > 0 => u64::try_from(end.saturating_sub(start) / width).unwrap_or(0).max(1),
        _ => 1,
    };
    // Windows of which only the completeness may change are no debt: they go with others.
    let is_due =
        |row: &usize| dirty.text(*row, "pipeline") == Some(pipeline) && Why::of(dirty.text(*row, "why")) != Why::Gaps;
    (0..dirty.rows()).filter(is_due).map(windows).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::setup::Setup;
    use crate::shard::Shard;
    use crate::testing::{T0, catalog, messages, meters, settings};

    /// Scenario: a shard stores rows of two sites, one of them late, and is summarised from the state of its commit.
    /// Guarantees: the summary says what the shard itself knows.
    #[tokio::test]
    async fn the_summary_is_what_the_shard_committed() {
        let catalog = catalog();
        let setup = Arc::new(Setup::new(settings(), &catalog, vec![meters(&catalog).await]));
        let mut shard = Shard::new(&setup, 0);
        let line = |site: &str, at: i64, append: i64| {
            format!(
                "{{\"stream\": \"meter\", \"node\": \"{site}\", \"site\": \"{site}\", \"part\": \"x\", \"ts\": \"@{at}\", \
                 \"append_time\": \"@{append}\", \"level\": 1}}\n"
            )
        };
        let lines: String = (0..60).map(|at| line("hot", at, at)).collect::<String>() + &line("cold", 1, 60);
        for message in messages(&catalog, &lines) {
            shard.apply(message).await.unwrap();
        }
        let begun = shard.begin_commit().unwrap();
        let summary = ShardSummary::read(begun.commit.state).unwrap();
        assert_eq!((summary.log_time, summary.appended, summary.stored), (Some(T0 + 60_000_000), 61, 61));
        assert_eq!(summary.slowest().map(|(stream, _)| stream), Some("meter"));
        assert_eq!(summary.pipelines[0].name, "meters");
        assert!(summary.pipelines[0].closed_through.is_some_and(|at| at > T0));
        assert_eq!((summary.dirty(), summary.pipelines[0].dirty), (1, 1));
        let load = summary.load.unwrap();
        assert_eq!((load.rows, load.hottest.clone()), (61, Some(("hot".to_owned(), 60))));
        assert!(load.busy_seconds > 0.0 && load.wall_seconds >= load.busy_seconds);
        assert!(ShardSummary::read(Bytes::from_static(b"no state")).is_err());
    }
}
