//! What a pipeline's folder says: `pipeline.yaml` and `query.sql`.
//!
//! `pipeline.yaml` holds what the SQL cannot say: how late rows may be, the table of the results, and which of their columns
//! become Prometheus metrics. The width of the windows stands in the SQL alone, where `tumble` needs it: what is said once
//! cannot contradict itself. Every key is written out, so there is no default to look up:
//!
//! ```yaml
//! name: link_use                # of the pipeline: in logs and metrics
//! description: Use of each network interface
//! table: link_use               # of the results in the lake
//! lateness: 10s                 # how long a window waits for rows behind the newest
//! staleness_windows: 3          # a gauge without news for so many windows disappears
//! series_budget: 10000          # most series of all metrics together in one shard
//! metrics:                      # may be left out
//!   - column: receive_bytes     # of the results
//!     name: airan_link_receive_bytes_total
//!     type: counter             # or gauge
//!     unit: bytes
//!     help: Bytes received
//!     labels: [site, node, interface]
//! ```
//!
//! A mistake is an error with file, line and column. What can be told only with the plan and the catalog at hand (columns,
//! labels, the table's name) is told by [`PipelineSpec::check`].

mod check;
mod error;
mod names;
mod read;

use std::path::{Path, PathBuf};

use airan_model::Place;
use airan_model::settings::DurationSetting;
use airan_model::unit::Unit;

pub use error::{PipelineError, Problem};

/// The JSON Schema of a `pipeline.yaml`, as draft 2020-12.
pub fn schema() -> schemars::Schema {
    read::schema()
}

/// What makes a folder a pipeline.
const SPEC: &str = "pipeline.yaml";
const SQL: &str = "query.sql";

/// The folders of `pipelines/`, as built in: name, `pipeline.yaml`, `query.sql`.
const BUILTIN: &[(&str, &str, &str)] = &[
    (
        "accelerator_capacity",
        include_str!("../../../pipelines/accelerator_capacity/pipeline.yaml"),
        include_str!("../../../pipelines/accelerator_capacity/query.sql"),
    ),
    (
        "cell_capacity",
        include_str!("../../../pipelines/cell_capacity/pipeline.yaml"),
        include_str!("../../../pipelines/cell_capacity/query.sql"),
    ),
    (
        "fronthaul_deadlines",
        include_str!("../../../pipelines/fronthaul_deadlines/pipeline.yaml"),
        include_str!("../../../pipelines/fronthaul_deadlines/query.sql"),
    ),
    (
        "host_load",
        include_str!("../../../pipelines/host_load/pipeline.yaml"),
        include_str!("../../../pipelines/host_load/query.sql"),
    ),
    (
        "inference_latency",
        include_str!("../../../pipelines/inference_latency/pipeline.yaml"),
        include_str!("../../../pipelines/inference_latency/query.sql"),
    ),
    (
        "link_use",
        include_str!("../../../pipelines/link_use/pipeline.yaml"),
        include_str!("../../../pipelines/link_use/query.sql"),
    ),
    (
        "mig_capacity",
        include_str!("../../../pipelines/mig_capacity/pipeline.yaml"),
        include_str!("../../../pipelines/mig_capacity/query.sql"),
    ),
    (
        "site_capacity",
        include_str!("../../../pipelines/site_capacity/pipeline.yaml"),
        include_str!("../../../pipelines/site_capacity/query.sql"),
    ),
    (
        "slot_budget",
        include_str!("../../../pipelines/slot_budget/pipeline.yaml"),
        include_str!("../../../pipelines/slot_budget/query.sql"),
    ),
    (
        "timing_health",
        include_str!("../../../pipelines/timing_health/pipeline.yaml"),
        include_str!("../../../pipelines/timing_health/query.sql"),
    ),
];

/// What a `pipeline.yaml` says.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineSpec {
    /// Its name: lower-case letters, digits and `_`.
    pub name: String,
    /// What its results are, for people.
    pub description: String,
    /// How far the watermark stays behind the newest rows: rows that come no later than this find their window open.
    pub lateness: DurationSetting,
    /// Table of the results in the lake, and of the view `<table>_latest`.
    pub table: String,
    /// A gauge whose entity was in none of so many windows disappears; at least 1.
    pub staleness_windows: u32,
    /// Most series of all its metrics together in one shard; at least 1.
    pub series_budget: usize,
    /// Result columns that become Prometheus metrics.
    pub metrics: Vec<MetricSpec>,
    // Where its table and name stand, for errors.
    places: Places,
}

/// A result column as a Prometheus metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    /// The column: a number in each row, or null where the row has nothing to say.
    pub column: String,
    /// Name of the metric, with its unit as suffix, as Prometheus wants it.
    pub name: String,
    /// Gauge or counter.
    pub ty: MetricType,
    /// What it is measured in.
    pub unit: Unit,
    /// Its help text.
    pub help: String,
    /// Result columns that become labels. No two rows of a window may agree in all of them.
    pub labels: Vec<String>,
    // Where column and labels stand, for errors.
    place: Place,
    column_place: Place,
    label_places: Vec<Place>,
}

/// Type of a Prometheus metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// The value of the newest closed window.
    Gauge,
    /// The sum over all closed windows; the column holds what each window adds.
    Counter,
}

#[derive(Clone, Debug, PartialEq)]
struct Places {
    name: Place,
    table: Place,
}

/// A pipeline as it stands in its folder; its query is not planned yet.
#[derive(Clone, Debug)]
pub struct PipelineFolder {
    /// What `pipeline.yaml` says.
    pub spec: PipelineSpec,
    /// The text of `query.sql`.
    pub sql: String,
    /// Where it was read from; for the built-in ones their place in the source tree.
    pub path: PathBuf,
}

/// Reads the text of a `pipeline.yaml`.
///
/// # Errors
/// The first mistake, with its line and column.
pub fn parse(text: &str) -> Result<PipelineSpec, PipelineError> {
    read::spec(SPEC, text)
}

/// The pipelines that are built in, by name.
///
/// # Errors
/// None in practice: a test reads them.
pub fn builtin() -> Result<Vec<PipelineFolder>, PipelineError> {
    let folder = |(name, spec, sql): &(&str, &str, &str)| {
        let path = Path::new("pipelines").join(name);
        let spec = read::spec(&path.join(SPEC).display().to_string(), spec)?;
        Ok(PipelineFolder { spec, sql: (*sql).to_owned(), path })
    };
    let folders = BUILTIN.iter().map(folder).collect::<Result<Vec<_>, _>>()?;
    check::among_each_other(&folders)?;
    Ok(folders)
}

/// Reads the pipelines in a folder, each in a folder of its own, in the order of their paths.
///
/// # Errors
/// If the folder cannot be read or holds none; the first mistake; two pipelines with one name, table or metric.
pub fn load(folder: &Path) -> Result<Vec<PipelineFolder>, PipelineError> {
    let unreadable = |source| PipelineError::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // With one of the two files only it is a pipeline by mistake, and `load_one` says what is missing.
        if path.join(SPEC).is_file() || path.join(SQL).is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(PipelineError::NoPipelines { folder: folder.to_owned() });
    }
    paths.sort();
    let folders = paths.iter().map(|path| load_one(path)).collect::<Result<Vec<_>, _>>()?;
    check::among_each_other(&folders)?;
    Ok(folders)
}

/// Reads the pipeline of one folder.
///
/// # Errors
/// If one of its files cannot be read; the first mistake.
pub fn load_one(folder: &Path) -> Result<PipelineFolder, PipelineError> {
    let text_of = |name: &str| {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).map_err(|source| PipelineError::Read { path: path.clone(), source });
        text.map(|text| (path, text))
    };
    let (path, text) = text_of(SPEC)?;
    let spec = read::spec(&path.display().to_string(), &text)?;
    let (path, sql) = text_of(SQL)?;
    if sql.trim().is_empty() {
        return Err(PipelineError::NoQuery { path });
    }
    Ok(PipelineFolder { spec, sql, path: folder.to_owned() })
}

#[cfg(test)]
#[path = "pipeline/tests.rs"]
mod tests;
