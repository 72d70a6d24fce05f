//! A table's columns as Delta's metadata.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Metadata, StructType, contains_timestampntz};
use serde_json::{Value, json};

use super::checkpoint::LOG_KEPT;
use crate::schema::{DATE, TableSchema};
use crate::settle::HELD_FOR;

/// The table's properties. `airan` is for whoever meets the table in a catalog.
fn configuration(checkpoint_interval: u64) -> HashMap<String, String> {
    let seconds = |span: Micros| format!("interval {} seconds", span / 1_000_000);
    [
        ("delta.checkpointInterval", checkpoint_interval.to_string()),
        ("delta.logRetentionDuration", seconds(LOG_KEPT)),
        ("delta.deletedFileRetentionDuration", seconds(HELD_FOR)),
        ("delta.enableExpiredLogCleanup", "true".to_owned()),
        ("airan.writer", "airan is the only writer of this table".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The columns of `schema` and `date`, in Delta's types; otherwise the reason why Delta has no such column.
pub(super) fn columns(schema: &TableSchema) -> Result<StructType, String> {
    let mut fields: Vec<Arc<Field>> = schema.columns.fields().iter().map(described).collect();
    fields.push(Arc::new(Field::new(DATE, DataType::Date32, true)));
    let columns: StructType =
        (&Schema::new(fields)).try_into_kernel().map_err(|error: ArrowError| error.to_string())?;
    // Only programs that know a further feature of Delta could read the table.
    match contains_timestampntz(columns.fields()) {
        true => Err("a time without a zone; give it the zone UTC".to_owned()),
        false => Ok(columns),
    }
}

/// A field with its meaning under the name other engines look for.
fn described(field: &Arc<Field>) -> Arc<Field> {
    let mut metadata = field.metadata().clone();
    if let Some(meaning) = metadata.get("meaning").cloned() {
        metadata.entry("comment".to_owned()).or_insert(meaning);
    }
    Arc::new(field.as_ref().clone().with_metadata(metadata))
}

/// The metadata action that is due: of a new table, or of one whose columns or properties are others than `now` says.
///
/// # Errors
/// The reason why Delta cannot have the columns.
pub(super) fn due(
    before: Option<&Value>,
    schema: &TableSchema,
    checkpoint_interval: u64,
    now: Micros,
) -> Result<Option<Metadata>, String> {
    let columns = columns(schema)?;
    // Through a value, so that the order of the members of a field's metadata makes no difference.
    let columns = serde_json::to_value(&columns).map_err(|error| error.to_string())?;
    let configuration = json!(configuration(checkpoint_interval));
    if let Some(before) = before {
        let text = before.get("schemaString").and_then(Value::as_str).unwrap_or_default();
        let same_columns = serde_json::from_str::<Value>(text).is_ok_and(|known| known == columns);
        if same_columns && before.get("configuration") == Some(&configuration) {
            return Ok(None);
        }
    }
    let id = before.and_then(|before| before.get("id")).and_then(Value::as_str).map_or_else(fresh_id, str::to_owned);
    let created = before.and_then(|before| before.get("createdTime")).and_then(Value::as_i64).unwrap_or(now / 1_000);
    let metadata = json!({
        "id": id,
        "name": null,
        "description": null,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": columns.to_string(),
        "partitionColumns": [DATE],
        "configuration": configuration,
        "createdTime": created,
    });
    serde_json::from_value(metadata).map(Some).map_err(|error| error.to_string())
}

/// A random UUID.
fn fresh_id() -> String {
    let random: u128 = rand::random();
    let text = format!("{random:032x}");
    format!("{}-{}-4{}-8{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}
