//! The catalog: which streams there are, what their columns mean, and where foreign metrics land in them.
//!
//! It is data (`config/catalog/*.yaml`), read once at start and refused as a whole, with file, line and column, where it
//! contradicts itself: see [`CatalogError`].

mod build;
mod conform;
mod error;
mod fields;
mod file;
mod stream;
mod unknown;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use conform::ConformError;
pub use error::{CatalogError, Problem};
pub use fields::{FieldClass, FieldClasses};
pub use stream::{Column, ColumnType, EntityColumn, Kind, Stream};
pub use unknown::{UNKNOWN_TEXT_MAX, with_unknown};

/// Label a decoder adds to every sample before it looks for a target: the metric's declared type.
///
/// One of `gauge`, `counter`, `histogram`, `summary`, `info`, `stateset`, `event`, `unknown`; OTLP's monotonic sums are `counter`, its
/// other sums `gauge`. It lets a mapping tell apart versions of an exporter that declare one name with different types, and it
/// is never stored.
pub const TYPE_LABEL: &str = "__type__";

/// In a target's values: every number that is not named.
pub const ANY_OTHER: &str = "*";

/// The JSON Schema of a file of the catalog, as draft 2020-12.
pub fn schema() -> schemars::Schema {
    file::schema()
}

/// The files of `config/catalog`, as built in.
const BUILTIN: &[(&str, &str)] = &[
    ("config/catalog/accelerator.yaml", include_str!("../../../../config/catalog/accelerator.yaml")),
    ("config/catalog/inference.yaml", include_str!("../../../../config/catalog/inference.yaml")),
    ("config/catalog/timing.yaml", include_str!("../../../../config/catalog/timing.yaml")),
    ("config/catalog/link.yaml", include_str!("../../../../config/catalog/link.yaml")),
    ("config/catalog/host.yaml", include_str!("../../../../config/catalog/host.yaml")),
    ("config/catalog/cell.yaml", include_str!("../../../../config/catalog/cell.yaml")),
    ("config/catalog/fronthaul.yaml", include_str!("../../../../config/catalog/fronthaul.yaml")),
    ("config/catalog/event.yaml", include_str!("../../../../config/catalog/event.yaml")),
    ("config/catalog/container.yaml", include_str!("../../../../config/catalog/container.yaml")),
    ("config/catalog/sample.yaml", include_str!("../../../../config/catalog/sample.yaml")),
    ("config/catalog/field_classes.yaml", include_str!("../../../../config/catalog/field_classes.yaml")),
    ("config/catalog/map_dcgm_exporter.yaml", include_str!("../../../../config/catalog/map_dcgm_exporter.yaml")),
    ("config/catalog/map_vllm.yaml", include_str!("../../../../config/catalog/map_vllm.yaml")),
    ("config/catalog/map_openshift_ptp.yaml", include_str!("../../../../config/catalog/map_openshift_ptp.yaml")),
    ("config/catalog/map_node_exporter.yaml", include_str!("../../../../config/catalog/map_node_exporter.yaml")),
    ("config/catalog/map_otel_hw.yaml", include_str!("../../../../config/catalog/map_otel_hw.yaml")),
    ("config/catalog/map_otel_system.yaml", include_str!("../../../../config/catalog/map_otel_system.yaml")),
    (
        "config/catalog/map_nvidia_gpu_exporter.yaml",
        include_str!("../../../../config/catalog/map_nvidia_gpu_exporter.yaml"),
    ),
    ("config/catalog/map_amd_exporter.yaml", include_str!("../../../../config/catalog/map_amd_exporter.yaml")),
    ("config/catalog/map_furiosa.yaml", include_str!("../../../../config/catalog/map_furiosa.yaml")),
    ("config/catalog/map_rebellions.yaml", include_str!("../../../../config/catalog/map_rebellions.yaml")),
    ("config/catalog/map_gaudi.yaml", include_str!("../../../../config/catalog/map_gaudi.yaml")),
    ("config/catalog/map_sambanova.yaml", include_str!("../../../../config/catalog/map_sambanova.yaml")),
    ("config/catalog/map_nim.yaml", include_str!("../../../../config/catalog/map_nim.yaml")),
    ("config/catalog/map_triton.yaml", include_str!("../../../../config/catalog/map_triton.yaml")),
    ("config/catalog/map_sglang.yaml", include_str!("../../../../config/catalog/map_sglang.yaml")),
    ("config/catalog/map_aerial.yaml", include_str!("../../../../config/catalog/map_aerial.yaml")),
    ("config/catalog/map_ocudu.yaml", include_str!("../../../../config/catalog/map_ocudu.yaml")),
    ("config/catalog/map_radio_names.yaml", include_str!("../../../../config/catalog/map_radio_names.yaml")),
    ("config/catalog/map_otel_events.yaml", include_str!("../../../../config/catalog/map_otel_events.yaml")),
    ("config/catalog/map_otel_gen_ai.yaml", include_str!("../../../../config/catalog/map_otel_gen_ai.yaml")),
    ("config/catalog/map_cadvisor.yaml", include_str!("../../../../config/catalog/map_cadvisor.yaml")),
];

/// Streams, mappings and field classes.
#[derive(Debug)]
pub struct Catalog {
    // In the order of the files, then of their names.
    streams: Vec<Arc<Stream>>,
    sources: Vec<Arc<MappingSource>>,
    metrics: HashMap<String, Arc<MetricMapping>, foldhash::fast::RandomState>,
    fields: FieldClasses,
}

/// How several foreign samples that land in one cell of one row become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The first fills the cell, a second goes to `sample`.
    Only,
    /// They are added.
    Sum,
    /// The largest stays.
    Max,
    /// The smallest stays.
    Min,
}

/// How one foreign metric name lands: on the first target whose conditions its labels meet, else in `sample`.
#[derive(Clone, Debug)]
pub struct MetricMapping {
    /// The foreign name, exactly: a sample's name, or the family's name for a histogram.
    pub name: String,
    /// Whose metric it is.
    pub source: Arc<MappingSource>,
    /// In the order to be tried.
    pub targets: Vec<Target>,
}

/// A column a foreign metric may land in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Index in [`Stream::columns`].
    pub column: usize,
    /// Labels (or [`TYPE_LABEL`]) and the values they must all have. These labels are then used up: they are not kept.
    pub when: Vec<(String, String)>,
    /// Labels the sample must not have.
    pub without: Vec<String>,
    /// Smallest foreign value that lands here, before scaling.
    pub at_least: Option<f64>,
    /// The foreign value, before scaling, must be below this.
    pub below: Option<f64>,
    /// Foreign value × scale = value in the column's unit. For a histogram: of bounds and sum.
    pub scale: f64,
    /// What a second sample for the same cell does.
    pub combine: Combine,
    /// Names for numbers, for a text column: the number as its shortest decimal text (`0`, `1`, `-1`) and the text to store.
    /// For an int column, other numbers for them. [`ANY_OTHER`] stands for all numbers not named; without it they go to
    /// `sample`.
    pub values: Option<HashMap<String, String>>,
}

impl Target {
    /// Whether the target wants numbers of this size, before scaling.
    pub fn takes(&self, value: f64) -> bool {
        self.at_least.is_none_or(|least| value >= least) && self.below.is_none_or(|most| value < most)
    }
}

/// What is common to all metrics of one exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingSource {
    /// `dcgm-exporter`, `vllm` …
    pub name: String,
    /// What it is, for `airan catalog`.
    pub meaning: String,
    /// Where entity columns come from. Those of a stream that are not named here stay null.
    pub entity: Vec<EntitySource>,
    /// Labels of which a sample must have one, else it goes to `sample`; empty: none is needed.
    pub needs_one_of: Vec<String>,
    /// Labels that name the node; the first present and not empty wins, else the sender's.
    pub node: Vec<String>,
    /// Labels kept as columns, where the target's stream has a column of that name that a label can fill
    /// ([`Column::takes_label`]).
    pub columns: Vec<(String, String)>,
    /// Labels not kept in the `attributes` of a row of a known stream. A row of `sample` keeps every label.
    pub ignore: Vec<String>,
    /// Numbers that mean "no value". Compared with the foreign value, before scaling.
    pub sentinels: Vec<f64>,
}

impl MappingSource {
    /// Whether a foreign value, before scaling, means "no value".
    pub fn is_sentinel(&self, value: f64) -> bool {
        self.sentinels.contains(&value)
    }
}

/// Where one entity column of one stream comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct EntitySource {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Index in [`Stream::entity`].
    pub column: usize,
    /// Labels that give the value; the first present and not empty wins. That label is used up: it is not kept.
    pub labels: Vec<String>,
    /// The value where no label gives one; null without it.
    pub constant: Option<String>,
    /// Values of these labels that say "nobody": they become null.
    pub absent: Vec<String>,
}

impl Catalog {
    /// The catalog that is compiled in: `config/catalog` of the source tree.
    pub fn builtin() -> Result<Catalog, CatalogError> {
        let files = BUILTIN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        build::build(files)
    }

    /// Every `*.yaml` of a folder, in the order of their names.
    pub fn load(dir: &Path) -> Result<Catalog, CatalogError> {
        build::build(file::read_dir(dir)?)
    }

    /// The streams, in the order of the files.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.streams.iter()
    }

    /// The stream of that name.
    pub fn stream(&self, name: &str) -> Option<&Arc<Stream>> {
        self.streams.iter().find(|stream| &*stream.name == name)
    }

    /// The exporters whose metrics are mapped.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<MappingSource>> {
        self.sources.iter()
    }

    /// How a foreign metric lands, by its name.
    pub fn metric(&self, foreign: &str) -> Option<&Arc<MetricMapping>> {
        self.metrics.get(foreign)
    }

    /// Every mapped metric, by name.
    pub fn metrics(&self) -> Vec<&Arc<MetricMapping>> {
        let mut all: Vec<_> = self.metrics.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What to do with a label or field, by its name: see [`FieldClasses`].
    pub fn field_class(&self, field: &str) -> FieldClass {
        self.fields.class_of(field)
    }
}
