//! The `lake` section of the configuration. Plain data; `config/defaults.yaml` holds the defaults.

use std::collections::BTreeMap;

use airan_model::settings::{BytesSetting, DurationSetting, Secret};
use serde::{Deserialize, Serialize};

/// Where the lake is and how long it keeps rows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LakeSettings {
    /// A local folder (made when missing), or `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub path: String,
    /// Options of the object store, passed through under object_store's own names (`aws_region`, `aws_endpoint`, …).
    pub options: BTreeMap<String, Secret>,
    /// Raw rows older than this (by event time) may go. Nothing that an open window still needs ever goes.
    pub raw_retention: DurationSetting,
    /// Rows of window tables older than this (by window start) may go.
    pub window_retention: DurationSetting,
    /// Above this many bytes of Parquet the oldest dates go first, raw tables before window tables. Absent: no bound.
    pub max_bytes: Option<BytesSetting>,
}
