//! The columns of each table: only added, never changed.
//!
//! A table's schema is kept in the lake as numbered versions, each created with put-if-absent, so shards that add columns
//! at the same time end with one list. A version is an Arrow IPC stream without batches: types and field metadata
//! (`unit`, `kind`, `meaning`) exactly, the table's own facts in the schema's metadata. A version written for a commit
//! that then fails is harmless: its columns are nullable.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use object_store::path::Path;

use crate::commit::{TableKind, TableRows};
use crate::layout;
use crate::record::ReadError;
use crate::seal::Damaged;
use crate::store::{Created, Store};

/// The partition column every table has beside its own.
pub(crate) const DATE: &str = "date";
const KIND: &str = "airan.kind";
const KEYS: &str = "airan.keys";
const TIME: &str = "airan.time_column";
const UNIT: &str = "unit";

/// Why rows do not fit their table. Each is settled by a new column or table name, never by changing what is written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SchemaError {
    /// Give the column another name.
    #[error("column `{column}` holds {recorded} and cannot become {found}; a new type needs a new column")]
    Type {
        /// The column.
        column: String,
        /// Its type in the lake.
        recorded: String,
        /// The type of the rows.
        found: String,
    },
    /// Give the column another name.
    #[error("column `{column}` is in `{recorded}` and cannot become `{found}`; a new unit needs a new column")]
    Unit {
        /// The column.
        column: String,
        /// Its unit in the lake.
        recorded: String,
        /// The unit of the rows.
        found: String,
    },
    /// Give the table another name.
    #[error("the table is {recorded} and cannot become {found}; use a new table")]
    Kind {
        /// Kind, keys and time column in the lake.
        recorded: String,
        /// The same of the rows.
        found: String,
    },
    /// Every row needs a time.
    #[error("time column `{column}` {reason}")]
    Time {
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Use letters, digits, `_`, `-` and `.`, and name each table once in a commit.
    #[error("bad name: {reason}")]
    Name {
        /// What is wrong.
        reason: String,
    },
    /// A value of the rows does not fit the column's type (an unsigned integer above the signed range).
    #[error("column `{column}`: {reason}")]
    Value {
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
}

/// A table's schema as of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableSchema {
    /// 0 before the first version is written.
    pub(crate) version: u64,
    pub(crate) kind: TableKind,
    pub(crate) time_column: String,
    /// All columns but `date`, each nullable, in the order they first came.
    pub(crate) columns: SchemaRef,
}

impl TableSchema {
    fn to_bytes(&self) -> Result<Bytes, arrow::error::ArrowError> {
        let keys = match &self.kind {
            TableKind::Raw => None,
            TableKind::Windows { keys } => Some(keys.join("\n")),
        };
        let mut metadata = HashMap::from([(TIME.to_owned(), self.time_column.clone())]);
        metadata.insert(KIND.to_owned(), if keys.is_some() { "windows" } else { "raw" }.to_owned());
        metadata.extend(keys.map(|keys| (KEYS.to_owned(), keys)));
        let schema = Schema::new_with_metadata(self.columns.fields().clone(), metadata);
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        writer.finish()?;
        Ok(writer.into_inner()?.into())
    }

    fn from_bytes(path: &Path, version: u64, bytes: &Bytes) -> Result<TableSchema, Damaged> {
        let damaged = |reason: String| Damaged { path: path.to_string(), reason };
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| damaged(error.to_string()))?;
        let schema = reader.schema();
        let fact = |name: &str| schema.metadata().get(name).cloned();
        let kind = match fact(KIND).as_deref() {
            Some("raw") => TableKind::Raw,
            Some("windows") => {
                let keys = fact(KEYS).unwrap_or_default();
                TableKind::Windows { keys: keys.lines().map(str::to_owned).collect() }
            }
            other => return Err(damaged(format!("kind of table {other:?}"))),
        };
        let time_column = fact(TIME).ok_or_else(|| damaged("no time column".to_owned()))?;
        Ok(TableSchema { version, kind, time_column, columns: Arc::new(Schema::new(schema.fields().clone())) })
    }

    fn describe(&self) -> String {
        match &self.kind {
            TableKind::Raw => format!("raw by `{}`", self.time_column),
            TableKind::Windows { keys } => format!("windows by `{}` and {}", self.time_column, keys.join(", ")),
        }
    }

    /// This schema with what `rows` add; the same version where they add nothing.
    pub(crate) fn with(&self, rows: &TableRows) -> Result<TableSchema, SchemaError> {
        let offered = TableSchema {
            version: 0,
            kind: rows.kind.clone(),
            time_column: rows.time_column.to_owned(),
            columns: Arc::new(Schema::empty()),
        };
        if (&self.kind, &self.time_column) != (&offered.kind, &offered.time_column) {
            return Err(SchemaError::Kind { recorded: self.describe(), found: offered.describe() });
        }
        let mut fields: Vec<Arc<Field>> = self.columns.fields().iter().cloned().collect();
        let mut places: HashMap<String, usize> =
            fields.iter().enumerate().map(|(at, field)| (field.name().clone(), at)).collect();
        let mut seen: Vec<SchemaRef> = Vec::new();
        for batch in &rows.batches {
            let schema = batch.schema();
            if seen.iter().any(|known| Arc::ptr_eq(known, &schema)) {
                continue;
            }
            for field in schema.fields() {
                match places.get(field.name()) {
                    Some(&at) => agree(&fields[at], field)?,
                    None => {
                        places.insert(field.name().clone(), fields.len());
                        fields.push(Arc::new(lake_field(field)?));
                    }
                }
            }
            seen.push(schema);
        }
        let columns = Arc::new(Schema::new(fields));
        check_time(&columns, &self.time_column)?;
        Ok(TableSchema { columns, ..self.clone() })
    }

    /// The schema of a table that is not in the lake yet, from its first rows.
    pub(crate) fn first(rows: &TableRows) -> Result<TableSchema, SchemaError> {
        let empty = TableSchema {
            version: 0,
            kind: rows.kind.clone(),
            time_column: rows.time_column.to_owned(),
            columns: Arc::new(Schema::empty()),
        };
        empty.with(rows)
    }

    /// `batch` with exactly this schema's columns: missing ones null, types made the lake's.
    pub(crate) fn conform(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, SchemaError> {
        let one = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => {
                let strict = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(column, field.data_type(), &strict)
                    .map_err(|error| SchemaError::Value { column: field.name().clone(), reason: error.to_string() })
            }
        };
        self.columns.fields().iter().map(one).collect()
    }
}

/// The type a column has in the lake: those Delta has, so no unsigned integers, one kind of text, one kind of time.
fn lake_type(found: &DataType) -> DataType {
    match found {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, value) => lake_type(value),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        // A time without a zone is UTC, as everything here is. Finer than a microsecond Delta does not have.
        DataType::Timestamp(_, _) => airan_model::schema::timestamp_type(),
        other => other.clone(),
    }
}

fn lake_field(field: &Field) -> Result<Field, SchemaError> {
    let column = field.name().clone();
    if column == DATE {
        return Err(SchemaError::Name { reason: format!("`{DATE}` is the partition column") });
    }
    if field.data_type() == &DataType::Null {
        return Err(SchemaError::Value { column, reason: "it has no type, only nulls; cast it".to_owned() });
    }
    Ok(Field::new(column, lake_type(field.data_type()), true).with_metadata(field.metadata().clone()))
}

fn agree(recorded: &Field, found: &Field) -> Result<(), SchemaError> {
    let column = || recorded.name().clone();
    if recorded.data_type() != found.data_type() && recorded.data_type() != &lake_type(found.data_type()) {
        let (recorded, found) = (recorded.data_type().to_string(), found.data_type().to_string());
        return Err(SchemaError::Type { column: column(), recorded, found });
    }
    match (recorded.metadata().get(UNIT), found.metadata().get(UNIT)) {
        (Some(recorded), Some(found)) if recorded != found => {
            Err(SchemaError::Unit { column: column(), recorded: recorded.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

fn check_time(columns: &Schema, name: &str) -> Result<(), SchemaError> {
    let wrong = |reason: String| Err(SchemaError::Time { column: name.to_owned(), reason });
    match columns.field_with_name(name).map(Field::data_type) {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(zone))) if zone.as_ref() == "UTC" => Ok(()),
        Ok(other) => wrong(format!("is {other}, not a timestamp in microseconds UTC")),
        Err(_) => wrong("is missing".to_owned()),
    }
}

/// The newest schema of a table; `None` where the table was never written.
pub(crate) async fn load(store: &Store, table: &str) -> Result<Option<TableSchema>, ReadError> {
    let listed = store.list(&layout::schemas(table)).await?;
    let newest = listed.iter().filter_map(|meta| layout::number(&meta.location, ".arrow")).max();
    let Some(version) = newest else { return Ok(None) };
    let path = layout::schema(table, version);
    let Some(bytes) = store.read(&path).await? else { return Ok(None) };
    Ok(Some(TableSchema::from_bytes(&path, version, &bytes)?))
}

/// Writes `schema` as the version after its own. `false`: another shard was faster; load and merge again.
pub(crate) async fn store_next(store: &Store, table: &str, schema: &mut TableSchema) -> Result<bool, ReadError> {
    let path = layout::schema(table, schema.version + 1);
    let bytes = schema.to_bytes().map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })?;
    let created = match store.create(&path, bytes.clone()).await {
        Ok(Created::New) => true,
        // Taken or unknown: it is ours if it says the same.
        Ok(Created::Taken) => store.read(&path).await?.is_some_and(|found| found == bytes),
        Err(error) => match store.read(&path).await? {
            Some(found) => found == bytes,
            None => return Err(error.into()),
        },
    };
    schema.version += u64::from(created);
    Ok(created)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray, UInt64Array};

    use super::*;
    use crate::testing::{raw, times};

    /// Scenario: a second commit adds a column, changes a type, a unit, the kind, or leaves the time out.
    /// Guarantees: columns are added after the known ones; every change is refused by name.
    #[test]
    fn columns_are_added_and_never_changed() {
        let ts = ("ts", times(&[1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let number: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let known = TableSchema::first(&raw("t", &[ts.clone(), ("site", text.clone())])).unwrap();
        let wider = known.with(&raw("t", &[ts.clone(), ("power", number.clone())])).unwrap();
        let names: Vec<_> = wider.columns.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["ts", "site", "power"]);
        let changed = wider.with(&raw("t", &[ts.clone(), ("power", text.clone())])).unwrap_err();
        assert!(matches!(changed, SchemaError::Type { ref column, .. } if column == "power"), "{changed}");
        let mut windows = raw("t", std::slice::from_ref(&ts));
        windows.kind = TableKind::Windows { keys: vec!["site".to_owned()] };
        assert!(matches!(wider.with(&windows), Err(SchemaError::Kind { .. })));
        assert!(matches!(TableSchema::first(&raw("t", &[("site", text.clone())])), Err(SchemaError::Time { .. })));
        assert!(matches!(
            TableSchema::first(&raw("t", &[ts.clone(), ("date", text.clone())])),
            Err(SchemaError::Name { .. })
        ));
        let bytes = wider.to_bytes().unwrap();
        assert_eq!(TableSchema::from_bytes(&Path::from("x"), 0, &bytes).unwrap(), wider);
    }

    /// Scenario: the same column in watts, then in kilowatts.
    /// Guarantees: a changed unit is refused.
    #[test]
    fn a_changed_unit_is_refused() {
        let with_unit = |unit: &str| {
            let metadata = HashMap::from([("unit".to_owned(), unit.to_owned())]);
            let fields = vec![
                Field::new("ts", airan_model::schema::timestamp_type(), false),
                Field::new("power", DataType::Float64, true).with_metadata(metadata),
            ];
            let columns: Vec<ArrayRef> = vec![times(&[1]), Arc::new(Float64Array::from(vec![1.0]))];
            let mut rows = raw("t", &[]);
            rows.batches = vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()];
            rows
        };
        let known = TableSchema::first(&with_unit("W")).unwrap();
        assert!(known.with(&with_unit("W")).is_ok());
        assert!(matches!(known.with(&with_unit("kW")), Err(SchemaError::Unit { .. })));
    }

    /// Scenario: times without a zone, in another, and in nanoseconds.
    /// Guarantees: all are microseconds UTC in the lake, the same instants.
    #[test]
    fn times_become_microseconds_utc() {
        use arrow::array::{AsArray, TimestampNanosecondArray};
        let found: [ArrayRef; 3] = [
            Arc::new(TimestampNanosecondArray::from(vec![1_500])),
            Arc::new(TimestampNanosecondArray::from(vec![1_500]).with_timezone("+02:00")),
            Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![1])),
        ];
        for at in found {
            let rows = raw("t", &[("ts", times(&[1])), ("seen", at)]);
            let schema = TableSchema::first(&rows).unwrap();
            assert_eq!(schema.columns.field(1).data_type(), &airan_model::schema::timestamp_type());
            let columns = schema.conform(&rows.batches[0]).unwrap();
            let seen = columns[1].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            assert_eq!(seen.value(0), 1);
        }
    }

    /// Scenario: an unsigned count within and above the signed range, a dictionary.
    /// Guarantees: stored as Int64 and Utf8; what does not fit is refused, never wrapped.
    #[test]
    fn types_become_those_of_the_lake() {
        let rows = |count: u64| {
            let count: ArrayRef = Arc::new(UInt64Array::from(vec![count]));
            raw("t", &[("ts", times(&[1])), ("count", count)])
        };
        let schema = TableSchema::first(&rows(7)).unwrap();
        assert_eq!(schema.columns.field(1).data_type(), &DataType::Int64);
        assert!(schema.conform(&rows(7).batches[0]).is_ok());
        assert!(matches!(schema.conform(&rows(u64::MAX).batches[0]), Err(SchemaError::Value { .. })));
    }
}
