//! Arrow types and names of the columns every stream has.
//!
//! Types are those Delta knows: no unsigned integers, no dictionary or view types on the bus.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// Event time.
pub const TS: &str = "ts";
/// When the gateway received the row.
pub const RECEIVED_AT: &str = "received_at";
/// Region of the site, from the inventory.
pub const REGION: &str = "region";
/// Site of the node, from the inventory.
pub const SITE: &str = "site";
/// The emitter.
pub const NODE: &str = "node";
/// When the counters of the row began; null where the source does not say.
pub const START_TS: &str = "start_ts";
/// Quality of the node's clock: locked, holdover, freerun, unknown or implausible.
pub const CLOCK: &str = "clock";
/// Door and format the row came through, or what an agent says of its row: `otlp_http/json`, `scrape/prometheus`. It also tells
/// who made the row's identity: see [`crate::identity::is_gateway_source`].
pub const SOURCE: &str = "source";
/// Half of a row's identity: 32 hex characters.
pub const BATCH: &str = "batch";
/// Other half of a row's identity: number of the row within its batch and stream.
pub const SEQ: &str = "seq";
/// Labels without a column of their own.
pub const ATTRIBUTES: &str = "attributes";

/// Columns before the entity columns, in order.
pub const LEADING: [&str; 6] = [TS, RECEIVED_AT, REGION, SITE, NODE, START_TS];
/// Columns after the value columns, in order.
pub const TRAILING: [&str; 5] = [CLOCK, SOURCE, BATCH, SEQ, ATTRIBUTES];

/// Suffix of the rise of a counter or histogram since the row before.
pub const INCREASE: &str = "_increase";
/// Suffix of the seconds that rise took.
pub const INCREASE_SECONDS: &str = "_increase_seconds";

/// `Timestamp(Microsecond, "UTC")`.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

/// `Map<Utf8, Utf8>`: entries named `entries`, `keys` (never null), `values` (nullable), not sorted.
pub fn attributes_type() -> DataType {
    let entries =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

/// `Struct{bounds: List<Float64>, counts: List<Int64>, sum: Float64, count: Int64}`, all nullable.
///
/// `counts` are per bucket, not cumulative over the bounds; there is one more of them than bounds, and the last bucket reaches
/// to infinity.
pub fn histogram_type() -> DataType {
    DataType::Struct(histogram_fields())
}

/// The children of [`histogram_type`], in order: bounds, counts, sum, count.
pub fn histogram_fields() -> Fields {
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
    Fields::from(vec![
        Field::new("bounds", list(DataType::Float64), true),
        Field::new("counts", list(DataType::Int64), true),
        Field::new("sum", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
    ])
}

/// The type of one of the columns in [`LEADING`] or [`TRAILING`]; None for any other name.
pub fn envelope_type(name: &str) -> Option<DataType> {
    match name {
        TS | RECEIVED_AT | START_TS => Some(timestamp_type()),
        REGION | SITE | NODE | CLOCK | SOURCE | BATCH => Some(DataType::Utf8),
        SEQ => Some(DataType::Int64),
        ATTRIBUTES => Some(attributes_type()),
        _ => None,
    }
}
