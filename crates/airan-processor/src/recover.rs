//! A shard from what the lake says of it: the state of the last commit, and open windows from raw rows.
//!
//! A pipeline the state does not know, or knows with another window width, begins at its watermark: the window that holds it
//! is its first, built like any other from the raw rows in the lake. Its earlier windows are a matter of a backfill.

use std::sync::Arc;

use airan_model::time::Micros;
use airan_window::watermark::PartitionTime;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use bytes::Bytes;

use crate::dedupe::{Identities, Known};
use crate::late::{LateReason, Lates};
use crate::load::Load;
use crate::marks::{Key, Marks, Why};
use crate::ranges::{Range, Ranges};
use crate::raw::RawRows;
use crate::restate::requests::{Part, Reached, Requests};
use crate::restate::shard::Work;
use crate::rises::Rises;
use crate::rises_state;
use crate::setup::Setup;
use crate::shard::{Shard, StreamShard, watermark_of};
use crate::sheet::{Sheet, Sheets, StateError};
use crate::split::times;
use crate::stage::Stage;
use crate::steps::Steps;
use crate::sums::Sums;

impl Shard {
    /// A shard of which nothing was ever committed.
    pub fn new(setup: &Arc<Setup>, next_offset: i64) -> Shard {
        let settings = &setup.settings;
        let streams = setup.streams.iter().map(|of| StreamShard {
            identities: Identities::new(&settings.identities),
            rises: Rises::new(&of.stream, &settings.counters),
            raw: RawRows::default(),
        });
        let periods =
            setup.streams.iter().map(|of| (Arc::clone(&of.stream.name), of.stream.period.as_micros() as Micros));
        let state_bytes = settings.windows.state_bytes.size();
        Shard {
            next_offset,
            log_time: Micros::MIN,
            sums: Sums::default(),
            streams: streams.collect(),
            time: PartitionTime::new(periods),
            stages: setup.pipelines.iter().map(|pipeline| Stage::new(pipeline, state_bytes)).collect(),
            lates: Lates::default(),
            marks: Marks::new(settings.windows.dirty),
            requests: Requests::default(),
            outcome: None,
            raw_from: Micros::MIN,
            work: Work::default(),
            steps: Steps::default(),
            load: Load::start(),
            is_touched: false,
            touched_at: Micros::MIN,
            committed_at: Micros::MIN,
            setup: Arc::clone(setup),
        }
    }

    /// A shard as its last commit left it, but for its open windows: they come with [`Shard::rebuild`].
    pub fn restore(setup: &Arc<Setup>, next_offset: i64, state: Bytes) -> Result<Shard, StateError> {
        let state = Sheets::read(state)?;
        let mut shard = Shard::new(setup, next_offset);
        let Some(of_shard) = state.table("shard") else {
            return Err(StateError::Damaged("no table `shard`".to_owned()));
        };
        shard.read_sums(of_shard);
        if let Some(identities) = state.table("identities") {
            shard.read_identities(identities);
        }
        for (of, stream) in setup.streams.iter().zip(&mut shard.streams) {
            rises_state::read(&of.stream, &mut stream.rises, &state);
            stream.rises.entities.resume(shard.log_time);
        }
        if let Some(clocks) = state.table("clocks") {
            shard.read_clocks(clocks);
        }
        if let Some(watermarks) = state.table("watermarks") {
            shard.read_watermarks(watermarks);
        }
        shard.read_pipelines(state.table("pipelines"));
        if let Some(exported) = state.table("exported") {
            shard.read_exported(exported);
        }
        if let Some(late) = state.table("late") {
            shard.read_late(late);
        }
        if let Some(dirty) = state.table("dirty") {
            shard.read_marks(dirty);
        }
        if let Some(requests) = state.table("requests") {
            shard.requests = read_requests(requests);
        }
        Ok(shard)
    }

    /// Where the raw rows of a stream are needed from, to build its open windows; None where no pipeline reads it.
    pub fn rebuild_from(&self, stream: usize) -> Option<Micros> {
        self.setup.streams[stream].readers.iter().map(|reader| self.stages[reader.pipeline].first_open()).min()
    }

    /// Puts raw rows that were committed before into their open windows.
    pub async fn rebuild(&mut self, stream: usize, rows: &RecordBatch) -> Result<(), ArrowError> {
        let setup = Arc::clone(&self.setup);
        let of = &setup.streams[stream];
        // A table may still have columns that the catalog had once.
        let known = of.stream.known_of(rows).and_then(|known| of.stream.conform(&known));
        let rows = known.map_err(|error| ArrowError::SchemaError(error.to_string()))?;
        let ts = times(&rows)?;
        for reader in &of.readers {
            let stage = &mut self.stages[reader.pipeline];
            let first_open = stage.first_open();
            let open = ts.iter().map(|at| Some(*at >= first_open)).collect::<arrow::array::BooleanArray>();
            match open.true_count() {
                0 => continue,
                all if all == rows.num_rows() => {
                    stage.count(&rows, None)?;
                    stage.take(reader.input, rows.clone());
                }
                _ => {
                    stage.count(&rows, Some(&open))?;
                    stage.take(reader.input, filter_record_batch(&rows, &open)?);
                }
            }
            stage.settle(None).await;
        }
        Ok(())
    }

    fn read_sums(&mut self, sheet: &Sheet) {
        self.log_time = sheet.int(0, "log_time").unwrap_or(Micros::MIN);
        (self.touched_at, self.committed_at) = (self.log_time, self.log_time);
        if self.log_time != Micros::MIN {
            self.time.observe_message(self.log_time);
        }
        self.sums = Sums {
            appended: sheet.count(0, "appended"),
            stored: sheet.count(0, "stored"),
            duplicate: sheet.count(0, "duplicate"),
            rejected: sheet.count(0, "rejected"),
            pending: 0,
            anonymous: sheet.count(0, "anonymous"),
            foreign: sheet.count(0, "foreign"),
            out_of_order: sheet.count(0, "out_of_order"),
            skipped: sheet.count(0, "skipped"),
        };
    }

    fn read_identities(&mut self, sheet: &Sheet) {
        let is_foreign = sheet.column("foreign").and_then(|column| column.as_boolean_opt());
        let mut current: Option<(usize, Known)> = None;
        for row in 0..sheet.rows() {
            let (Some(stream), Some(node), Some(batch)) =
                (sheet.text(row, "stream"), sheet.text(row, "node"), sheet.text(row, "batch"))
            else {
                continue;
            };
            let Some(stream) = self.setup.stream(stream) else { continue };
            let is_same = current
                .as_ref()
                .is_some_and(|(of, known)| *of == stream && *known.node == *node && *known.batch == *batch);
            if !is_same {
                let known = Known {
                    node: node.into(),
                    batch: batch.into(),
                    site: sheet.text(row, "site").unwrap_or_default().into(),
                    is_foreign: is_foreign.is_some_and(|column| column.is_valid(row) && column.value(row)),
                    last_seen: sheet.int(row, "last_seen").unwrap_or(Micros::MIN),
                    seen: Ranges::default(),
                };
                if let Some((of, done)) = current.replace((stream, known)) {
                    self.streams[of].identities.restore(done);
                }
            }
            if let (Some((_, known)), Some(first), Some(last)) =
                (&mut current, sheet.int(row, "first"), sheet.int(row, "last"))
            {
                // Without times a gap has no place: far before every window.
                let at = |name: &str| sheet.int(row, name).unwrap_or(Micros::MIN);
                let run = Range { first, last: last.max(first), from: at("first_ts"), to: at("last_ts") };
                known.seen.add(run, |_, _| {});
            }
        }
        if let Some((of, done)) = current {
            self.streams[of].identities.restore(done);
        }
    }

    fn read_clocks(&mut self, sheet: &Sheet) {
        for row in 0..sheet.rows() {
            let (stream, node) = (sheet.text(row, "stream"), sheet.text(row, "node"));
            let (newest, seen) = (sheet.int(row, "newest"), sheet.int(row, "seen"));
            if let (Some(stream), Some(node), Some(newest), Some(seen)) = (stream, node, newest, seen) {
                self.time.observe_rows(stream, node, newest, seen);
            }
        }
    }

    fn read_watermarks(&mut self, sheet: &Sheet) {
        for row in 0..sheet.rows() {
            if let (Some(stream), Some(reached)) = (sheet.text(row, "stream"), sheet.int(row, "reached")) {
                self.time.restore_reached(stream, reached);
            }
        }
    }

    /// Pipelines go on where they were; those without a place in the state begin at their watermark.
    fn read_pipelines(&mut self, sheet: Option<&Sheet>) {
        for stage in &mut self.stages {
            let (name, cut) = (&stage.pipeline.spec.name, stage.cut());
            let place = sheet.and_then(|sheet| {
                // A state of before there were windows that overlap has no sizes.
                let is_this = |row: &usize| {
                    let width = sheet.int(*row, "width");
                    let is_same =
                        width == Some(cut.slide().micros()) && sheet.int(*row, "size").or(width) == Some(cut.size());
                    sheet.text(*row, "pipeline") == Some(name) && is_same
                };
                sheet.int((0..sheet.rows()).find(is_this)?, "closed_through")
            });
            if let Some(closed_through) = place {
                stage.resume(closed_through);
            } else if let Some(watermark) = watermark_of(stage, &self.time) {
                tracing::info!(pipeline = %name, "new to this shard: begins at the watermark");
                stage.resume(watermark);
            }
        }
    }

    fn read_exported(&mut self, sheet: &Sheet) {
        for row in 0..sheet.rows() {
            let (Some(pipeline), Some(metric), Some(value)) =
                (sheet.text(row, "pipeline"), sheet.text(row, "metric"), sheet.float(row, "value"))
            else {
                continue;
            };
            let stage = self.stages.iter_mut().find(|stage| stage.pipeline.spec.name == pipeline);
            let Some(stage) = stage else { continue };
            let spec = &stage.pipeline.spec;
            let Some(index) = spec.metrics.iter().position(|declared| declared.name == metric) else { continue };
            match sheet.text(row, "labels") {
                None => *stage.exported.overflow.entry(index).or_default() += value,
                Some(labels) => {
                    let Ok(labels) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(labels) else {
                        continue;
                    };
                    let values =
                        spec.metrics[index].labels.iter().map(|name| labels.get(name)?.as_str().map(Into::into));
                    let Some(values) = values.collect::<Option<Vec<_>>>() else { continue };
                    if values.len() == labels.len() {
                        stage.exported.series.insert((index, values.into()), value);
                    }
                }
            }
        }
    }

    /// A state of an earlier release names single windows by their start.
    fn read_marks(&mut self, sheet: &Sheet) {
        for row in 0..sheet.rows() {
            let (pipeline, site, start) =
                (sheet.text(row, "pipeline"), sheet.text(row, "site"), sheet.int(row, "start"));
            let (Some(pipeline), Some(site), Some(start)) = (pipeline, site, start) else { continue };
            let stage = self.stages.iter().find(|stage| stage.pipeline.spec.name == pipeline);
            let width = stage.map_or(1, |stage| stage.cut().slide().micros());
            let end = sheet.int(row, "end").unwrap_or(start.saturating_add(width));
            let why = Why::of(sheet.text(row, "why"));
            let key = Key { pipeline: pipeline.into(), why, site: site.into() };
            let since = sheet.int(row, "since").unwrap_or(self.log_time);
            let touched = sheet.int(row, "touched").unwrap_or(self.log_time);
            self.marks.restore(key, (start, end), since, touched);
        }
    }

    fn read_late(&mut self, sheet: &Sheet) {
        for row in 0..sheet.rows() {
            let reason = sheet.text(row, "reason").and_then(LateReason::of);
            if let (Some(stream), Some(node), Some(reason)) =
                (sheet.text(row, "stream"), sheet.text(row, "node"), reason)
            {
                self.lates.count(&stream.into(), node, reason, sheet.count(row, "rows"));
            }
        }
    }
}

/// How far each request is, as the state says.
pub(crate) fn read_requests(sheet: &Sheet) -> Requests {
    let mut requests = Requests::default();
    let is_done = sheet.column("done").and_then(|column| column.as_boolean_opt());
    for row in 0..sheet.rows() {
        let (request, pipeline, next) =
            (sheet.text(row, "request"), sheet.text(row, "pipeline"), sheet.int(row, "next"));
        if let (Some(request), Some(pipeline), Some(next)) = (request, pipeline, next) {
            let is_done = is_done.is_some_and(|column| column.is_valid(row) && column.value(row));
            requests.set(Part { request: request.into(), pipeline: pipeline.into() }, Reached { next, is_done });
        }
    }
    requests
}
