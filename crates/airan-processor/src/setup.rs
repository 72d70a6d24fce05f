//! What all shards of a processor share and nobody changes: streams, pipelines, settings.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::catalog::{Catalog, Stream};
use airan_model::time::{MINUTE, Micros, SECOND};
use airan_window::PipelinePlan;
use airan_window::pipeline::PipelineSpec;
use foldhash::fast::RandomState;

use crate::settings::Settings;

/// Beyond a stream's lateness, a row this much older than its append time says nothing about its node's time (DESIGN section 5).
const BACKFILL_AFTER: Micros = 2 * MINUTE;

/// Lateness of a stream that no pipeline reads.
const LATENESS: Micros = 10 * SECOND;

/// A pipeline, planned.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What its `pipeline.yaml` says.
    pub spec: PipelineSpec,
    /// Its query.
    pub plan: Arc<PipelinePlan>,
}

/// What all shards of a processor share.
#[derive(Debug)]
pub(crate) struct Setup {
    pub settings: Settings,
    pub streams: Vec<StreamSetup>,
    pub pipelines: Vec<Arc<Pipeline>>,
    by_name: HashMap<Arc<str>, usize, RandomState>,
}

/// A stream and who reads it.
#[derive(Debug)]
pub(crate) struct StreamSetup {
    pub stream: Arc<Stream>,
    /// Pipelines that read it, and which of their streams it is.
    pub readers: Vec<Reader>,
    /// A row this much older than its append time is backfill.
    pub backfill_after: Micros,
}

/// A pipeline as a reader of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// Index in [`Setup::pipelines`].
    pub pipeline: usize,
    /// Index in the plan's streams.
    pub input: usize,
}

impl Setup {
    pub fn new(settings: Settings, catalog: &Catalog, pipelines: Vec<Pipeline>) -> Setup {
        let pipelines: Vec<Arc<Pipeline>> = pipelines.into_iter().map(Arc::new).collect();
        let streams: Vec<StreamSetup> = catalog.streams().map(|stream| StreamSetup::new(stream, &pipelines)).collect();
        let by_name =
            streams.iter().enumerate().map(|(index, setup)| (Arc::clone(&setup.stream.name), index)).collect();
        Setup { settings, streams, pipelines, by_name }
    }

    /// The index of a stream.
    pub fn stream(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

impl StreamSetup {
    fn new(stream: &Arc<Stream>, pipelines: &[Arc<Pipeline>]) -> StreamSetup {
        let readers: Vec<Reader> = pipelines
            .iter()
            .enumerate()
            .filter_map(|(pipeline, read)| {
                let input = read.plan.streams().iter().position(|name| *name == stream.name)?;
                Some(Reader { pipeline, input })
            })
            .collect();
        let lateness = readers.iter().map(|reader| pipelines[reader.pipeline].spec.lateness.micros()).max();
        let backfill_after = lateness.unwrap_or(LATENESS).saturating_add(BACKFILL_AFTER);
        StreamSetup { stream: Arc::clone(stream), readers, backfill_after }
    }
}
