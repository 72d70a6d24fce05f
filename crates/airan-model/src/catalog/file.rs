//! The catalog's files as they are written: plain data with the place of everything that can be wrong.
//!
//! ```yaml
//! streams:
//!   - name: accelerator
//!     meaning: one device, slice or core at one instant
//!     period: 15s
//!     entity:
//!       - {name: device, meaning: the device's own identity}
//!     columns:
//!       - {name: utilization, kind: gauge, unit: ratio, meaning: share of time the device was busy}
//! sources:
//!   - name: dcgm-exporter
//!     meaning: NVIDIA's exporter
//!     node: [Hostname]
//!     entity:
//!       - {column: accelerator.device, from: [UUID, gpu]}
//!     columns:
//!       - {label: modelName, to: model}
//!     sentinels: [9223372036854775794]
//!     metrics:
//!       - {name: DCGM_FI_DEV_GPU_UTIL, to: accelerator.utilization, unit: percent}
//!       - {name: DCGM_FI_PROF_PCIE_TX_BYTES, to: accelerator.pcie_tx_bytes, unit: bytes, when: {__type__: counter}}
//! drop_fields: [imsi, ue_id]
//! ```
//!
//! A stream may stand in several files: the first describes it, others add columns.
//!
//! A metric may stand in several lines; a sample lands on the first whose conditions it meets, else in `sample`. Conditions are
//! labels it must have (`when`), labels it must not have (`without`), and its value before scaling (`at_least`, `below`), for
//! exporters whose releases send one name in two units. A source may want one of some labels of every sample (`needs_one_of`),
//! where its names are so common that others use them too, and know each of its names with a prefix as well (`also_prefixed`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::CatalogError;
use crate::settings::DurationSetting;
use crate::unit::{AnyUnit, Unit};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Typed tables: streams that are described here, or that get more columns here.
    #[serde(default)]
    pub(super) streams: Vec<StreamText>,
    /// Programs whose metrics fill streams.
    #[serde(default)]
    pub(super) sources: Vec<SourceText>,
    /// Names of fields that identify a subscriber: dropped at the first hop. `ue_id` matches `UE-ID` and `ueId` too; with `=` in front
    /// only the whole name.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) drop_fields: Vec<Spanned<String>>,
}

/// A typed table with one row for each entity and instant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamText {
    /// Name of the stream and its table. A name that another file describes gets these columns too.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: Spanned<String>,
    /// What a row is, for people.
    pub(super) meaning: Option<String>,
    /// How often a source usually reports: a node silent for three of them counts as idle.
    pub(super) period: Option<DurationSetting>,
    /// What a row is about, beside its node.
    #[serde(default)]
    pub(super) entity: Vec<EntityText>,
    /// What a row says.
    #[serde(default)]
    pub(super) columns: Vec<ColumnText>,
}

/// A part of a row's identity.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EntityText {
    /// Name of the column.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: Spanned<String>,
    /// What it identifies, for people.
    pub(super) meaning: String,
}

/// A column of a stream. Columns are only ever added.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnText {
    /// Name of the column.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: Spanned<String>,
    /// How its values behave in time. A counter gets `_increase` and `_increase_seconds` beside it.
    pub(super) kind: KindText,
    /// The base unit of its values; of text and codes `none`.
    #[schemars(with = "Unit")]
    pub(super) unit: Spanned<String>,
    /// Type of its values, where it is not the usual one of its kind: a state is text, or with `int` a code.
    #[serde(rename = "type")]
    pub(super) ty: Option<TypeText>,
    /// What it says, for people; goes into the field's metadata.
    pub(super) meaning: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum KindText {
    Gauge,
    Counter,
    Histogram,
    State,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TypeText {
    Float,
    Int,
    Text,
    Histogram,
}

/// A program that is scraped or sends, and where its metrics land.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceText {
    /// Its name, in `airan catalog`.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// What it is, for people.
    pub(super) meaning: String,
    /// Which labels make the rows' entities.
    #[serde(default)]
    pub(super) entity: Vec<FromText>,
    /// Every name is known with each of these in front as well.
    #[serde(default)]
    pub(super) also_prefixed: Vec<String>,
    /// A sample with none of these labels is not of this source.
    #[serde(default)]
    pub(super) needs_one_of: Vec<String>,
    /// Labels that name the node, the first there is; else it is the sender's own name.
    #[serde(default)]
    pub(super) node: Vec<String>,
    /// Labels that fill columns: text, or a number without a unit.
    #[serde(default)]
    pub(super) columns: Vec<LabelText>,
    /// Labels of what is added up: not kept in a row's attributes.
    #[serde(default)]
    pub(super) ignore: Vec<String>,
    /// Numbers that say "no value".
    #[serde(default)]
    pub(super) sentinels: Vec<f64>,
    /// Its metrics. A sample takes the first line whose conditions it meets, else it becomes a row of `sample`.
    #[serde(default)]
    pub(super) metrics: Vec<MetricText>,
}

/// What an entity column is made of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FromText {
    /// `stream.column`.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*\\.[a-z][a-z0-9_]*$"))]
    pub(super) column: Spanned<String>,
    /// Labels, the first there is.
    #[serde(default)]
    pub(super) from: Vec<String>,
    /// A value that is always the same.
    pub(super) constant: Option<String>,
    /// Values of the label that say "none".
    #[serde(default)]
    pub(super) absent: Vec<String>,
}

/// A label that fills a column.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelText {
    /// The label.
    pub(super) label: String,
    /// The column, of whichever stream of this source has it.
    #[schemars(with = "String")]
    pub(super) to: Spanned<String>,
}

/// A foreign metric, or the samples of it that meet the conditions.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricText {
    /// The sample's exact name; of a histogram without `_bucket`, `_sum`, `_count`.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// `stream.column`.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*\\.[a-z][a-z0-9_]*$"))]
    pub(super) to: Spanned<String>,
    /// What the source sends; converted to the column's base unit. Without it, the column's.
    #[schemars(with = "Option<AnyUnit>")]
    pub(super) unit: Option<Spanned<String>>,
    /// Labels that must have these values; `__type__` is the declared type.
    #[serde(default)]
    pub(super) when: BTreeMap<String, String>,
    /// Labels that must not be there.
    #[serde(default)]
    pub(super) without: BTreeSet<String>,
    /// Lowest value as sent, for names whose unit changed between releases.
    pub(super) at_least: Option<f64>,
    /// The value as sent must be below this.
    pub(super) below: Option<f64>,
    /// What becomes of several samples of one cell; without it the first fills it and others go to `sample`.
    pub(super) combine: Option<CombineText>,
    /// Words for numbers of a state, or of an int column numbers for numbers; `"*"` is any other.
    pub(super) values: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CombineText {
    Sum,
    Max,
    Min,
}

/// The JSON Schema of a file of the catalog, for editors. What it takes the catalog may still refuse: a column that no stream has, a unit
/// that does not convert.
pub(super) fn schema() -> Schema {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "a file of airan's catalog".into());
    schema
}

/// Name and text of every `*.yaml` in a folder, in the order of the names.
pub(super) fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, CatalogError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| CatalogError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail(dir))? {
        let path = entry.map_err(fail(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(fail(path))?;
        Ok((path.display().to_string(), text))
    };
    paths.iter().map(read).collect()
}
