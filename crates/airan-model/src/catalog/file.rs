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

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::CatalogError;
use crate::settings::DurationSetting;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) streams: Vec<StreamText>,
    #[serde(default)]
    pub(super) sources: Vec<SourceText>,
    #[serde(default)]
    pub(super) drop_fields: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamText {
    pub(super) name: Spanned<String>,
    pub(super) meaning: Option<String>,
    pub(super) period: Option<DurationSetting>,
    #[serde(default)]
    pub(super) entity: Vec<EntityText>,
    #[serde(default)]
    pub(super) columns: Vec<ColumnText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntityText {
    pub(super) name: Spanned<String>,
    pub(super) meaning: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnText {
    pub(super) name: Spanned<String>,
    pub(super) kind: KindText,
    pub(super) unit: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) ty: Option<TypeText>,
    pub(super) meaning: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KindText {
    Gauge,
    Counter,
    Histogram,
    State,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TypeText {
    Float,
    Int,
    Text,
    Histogram,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceText {
    pub(super) name: Spanned<String>,
    pub(super) meaning: String,
    #[serde(default)]
    pub(super) entity: Vec<FromText>,
    #[serde(default)]
    pub(super) also_prefixed: Vec<String>,
    #[serde(default)]
    pub(super) needs_one_of: Vec<String>,
    #[serde(default)]
    pub(super) node: Vec<String>,
    #[serde(default)]
    pub(super) columns: Vec<LabelText>,
    #[serde(default)]
    pub(super) ignore: Vec<String>,
    #[serde(default)]
    pub(super) sentinels: Vec<f64>,
    #[serde(default)]
    pub(super) metrics: Vec<MetricText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FromText {
    pub(super) column: Spanned<String>,
    #[serde(default)]
    pub(super) from: Vec<String>,
    pub(super) constant: Option<String>,
    #[serde(default)]
    pub(super) absent: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelText {
    pub(super) label: String,
    pub(super) to: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricText {
    pub(super) name: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) unit: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) when: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) without: BTreeSet<String>,
    pub(super) at_least: Option<f64>,
    pub(super) below: Option<f64>,
    pub(super) combine: Option<CombineText>,
    pub(super) values: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CombineText {
    Sum,
    Max,
    Min,
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
