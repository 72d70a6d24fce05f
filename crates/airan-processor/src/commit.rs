//! From a shard's work to one commit of the lake.
//!
//! Raw rows, closed and restated windows and the state that goes with them become true together or not at all. Nothing is applied between
//! [`Shard::begin_commit`] and [`Shard::finish_commit`], so a commit that has to be repeated is the same one each time.

use airan_lake::{Commit, TableKind, TableRows};
use airan_model::catalog::Stream;
use airan_model::schema;
use airan_model::time::Micros;
use airan_window::ClosedWindow;
use arrow::array::RecordBatch;

use crate::exported::Exported;
use crate::setup::Pipeline;
use crate::shard::Shard;
use crate::sheet::StateError;
use crate::state;

/// Column of window tables that says when a window begins.
const WINDOW_START: &str = "window_start";

/// A commit under way.
pub(crate) struct Begun {
    pub commit: Commit,
    /// What Prometheus may show once it is committed, by pipeline.
    pub results: Vec<PipelineResult>,
}

/// One pipeline's part of a commit.
pub(crate) struct PipelineResult {
    pub closed: Vec<ClosedWindow>,
    pub closed_through: Micros,
    pub exported: Exported,
    /// The pipeline has stopped: its gauges would stand still.
    pub is_stopped: bool,
}

impl Shard {
    /// Takes the work since the last commit. It must then be committed, or the shard dropped.
    pub fn begin_commit(&mut self) -> Result<Begun, StateError> {
        let mut tables = Vec::new();
        for (of, stream) in self.setup.streams.iter().zip(&mut self.streams) {
            let batches = stream.raw.take();
            if !batches.is_empty() {
                tables.push(raw_table(&of.stream, batches));
            }
        }
        let mut restated = self.take_outcome();
        let mut results = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let closed = std::mem::take(&mut stage.closed);
            stage.exported.add(&stage.pipeline.spec, &closed);
            let mut rows: Vec<RecordBatch> = closed.iter().map(|window| window.rows.clone()).collect();
            rows.extend(restated.remove(&index).into_iter().flatten());
            if !rows.is_empty() {
                tables.push(window_table(&stage.pipeline, rows));
            }
            results.push(PipelineResult {
                closed,
                closed_through: stage.closed_through(),
                exported: stage.exported.clone(),
                is_stopped: stage.stopped().is_some(),
            });
        }
        let commit = Commit {
            next_offset: self.next_offset,
            tables,
            state: state::write(self)?,
            needed_from: Some(self.needed_from()),
        };
        Ok(Begun { commit, results })
    }

    /// The commit has happened.
    pub fn finish_commit(&mut self) {
        self.sums = self.sums.committed();
        (self.is_touched, self.committed_at) = (false, self.log_time);
        self.load.turn(&self.steps);
        self.marks.settle();
    }
}

fn raw_table(stream: &Stream, batches: Vec<RecordBatch>) -> TableRows {
    let entity: Vec<String> = stream.entity.iter().map(|column| column.name.clone()).collect();
    let place = [schema::SITE, schema::NODE].map(str::to_owned);
    TableRows {
        table: stream.name.to_string(),
        kind: TableKind::Raw,
        batches,
        sort_by: place.iter().chain(&entity).cloned().collect(),
        time_column: schema::TS,
        bloom: place.into_iter().chain(entity).collect(),
    }
}

fn window_table(pipeline: &Pipeline, batches: Vec<RecordBatch>) -> TableRows {
    let keys = pipeline.plan.group_columns();
    let site = keys.iter().filter(|key| *key == schema::SITE);
    let rest = keys.iter().filter(|key| *key != schema::SITE && *key != schema::REGION);
    TableRows {
        table: pipeline.spec.table.clone(),
        batches,
        sort_by: site.chain(rest.clone()).cloned().collect(),
        time_column: WINDOW_START,
        bloom: rest.cloned().collect(),
        kind: TableKind::Windows { keys },
    }
}
