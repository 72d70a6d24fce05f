//! Rows of one table and one date into the bytes of one Parquet file.
//!
//! Choices, and why (numbers: `speed` below, 2 M rows of 12 filled and 40 empty columns):
//! - zstd(1), row groups of at most 1 Mi rows and 32 MiB, pages of 8,192 rows; sorted by (entity, time), so that equal labels lie together.
//! - Text is dictionary-encoded. Floats are not (measurements hardly repeat), and are written byte-split, which zstd
//!   compresses better than plain. Integers and times are delta-packed.
//! - Statistics per column chunk; per page only for the columns one prunes by (time and keys).
//! - Bloom filters on the entity's columns, sized by the number of entities in the file.
//! - Children of lists and maps have the names that the Parquet format gives them (`list.element`, `key_value.key`, `.value`), not
//!   those they have in Arrow's types here: DuckDB's `delta_scan` (1.4.4) looks for them by name, and "Map keys can not be NULL"
//!   is its answer to others. Whoever reads files casts to the table's types ([`TableSchema::conform`]), so both names may meet.
//! - Units stand in each field's metadata and, for readers that know no Arrow schema, in the file's key `airan.units`.
//!   Descriptions, which are longer than the rows of a small file, only from [`DESCRIBED_ROWS`] rows on.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_model::time::Micros;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat, filter_record_batch, max, min, take};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, SchemaDescriptor};

use crate::commit::TableRows;
use crate::layout::date_of;
use crate::schema::{SchemaError, TableSchema};
use crate::seal::Checksum;

/// Most rows in a row group (DESIGN: 1 Mi).
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 20;
/// Most bytes in a row group, as they are stored: of wide rows fewer than [`ROW_GROUP_ROWS`], for a writer keeps a row group in
/// memory until it is complete.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows of a page of a column: a merge has one of each column of each of its files decoded at once.
pub(crate) const PAGE_ROWS: usize = 8_192;
/// From this many rows on a file carries its columns' descriptions.
const DESCRIBED_ROWS: usize = 1 << 14;
/// Share of absent values a bloom filter lets through.
const BLOOM_ERROR: f64 = 0.01;

/// The rows of one table and one date, not yet in order.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) table: String,
    pub(crate) date: i32,
    time_column: String,
    columns: SchemaRef,
    /// Each with exactly `columns`.
    batches: Vec<RecordBatch>,
    sort_by: Vec<String>,
    bloom: Vec<String>,
}

/// One Parquet file, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) rows: u64,
    pub(crate) min_ts: Micros,
    pub(crate) max_ts: Micros,
    pub(crate) checksum: Checksum,
}

/// Why rows could not be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// Cuts rows by the date of their time column; every row is in exactly one part.
///
/// # Errors
/// If a row has no time, or a value does not fit its column.
pub(crate) fn parts(schema: &TableSchema, rows: &TableRows) -> Result<Vec<Part>, SchemaError> {
    let mut by_date: BTreeMap<i32, Vec<RecordBatch>> = BTreeMap::new();
    let told = |error: ArrowError| SchemaError::Value { column: schema.time_column.clone(), reason: error.to_string() };
    for batch in rows.batches.iter().filter(|batch| batch.num_rows() > 0) {
        let batch = RecordBatch::try_new(Arc::clone(&schema.columns), schema.conform(batch)?).map_err(told)?;
        let times = time_of(&batch, &schema.time_column)?;
        let (first, last) = (min(times).map(date_of), max(times).map(date_of));
        if let (Some(date), true) = (first, first == last) {
            by_date.entry(date).or_default().push(batch);
            continue;
        }
        let dates: Vec<i32> = times.values().iter().map(|at| date_of(*at)).collect();
        let mut distinct = dates.clone();
        distinct.sort_unstable();
        distinct.dedup();
        for date in distinct {
            let chosen: BooleanArray = dates.iter().map(|d| Some(*d == date)).collect();
            by_date.entry(date).or_default().push(filter_record_batch(&batch, &chosen).map_err(told)?);
        }
    }
    let part = |(date, batches)| Part {
        table: rows.table.clone(),
        date,
        time_column: schema.time_column.clone(),
        columns: Arc::clone(&schema.columns),
        batches,
        sort_by: rows.sort_by.clone(),
        bloom: rows.bloom.clone(),
    };
    Ok(by_date.into_iter().map(part).collect())
}

fn time_of<'a>(
    batch: &'a RecordBatch,
    column: &str,
) -> Result<&'a arrow::array::PrimitiveArray<TimestampMicrosecondType>, SchemaError> {
    let wrong = |reason: &str| SchemaError::Time { column: column.to_owned(), reason: reason.to_owned() };
    let times = batch.column_by_name(column).ok_or_else(|| wrong("is missing"))?;
    if times.null_count() > 0 {
        return Err(wrong("is null in some rows"));
    }
    times.as_primitive_opt().ok_or_else(|| wrong("is no timestamp in microseconds"))
}

/// Sorts and encodes one part. CPU-bound: run it where blocking is allowed. Equal parts give equal bytes.
pub(crate) fn encode(part: &Part) -> Result<Encoded, EncodeError> {
    let mut columns = gather(part)?;
    let rows = columns.first().map_or(0, |column| column.len());
    let at = |name: &str| part.columns.index_of(name);
    let times = Arc::clone(&columns[at(&part.time_column)?]);
    let is_filled = |name: &&String| at(name).is_ok_and(|at| columns[at].null_count() < rows);
    let keys: Vec<ArrayRef> =
        part.sort_by.iter().filter(is_filled).filter_map(|name| Some(Arc::clone(&columns[at(name).ok()?]))).collect();
    let bloom: Vec<&String> = part.bloom.iter().filter(is_filled).collect();
    let order = crate::order::order(&keys, &times)?;
    if let Some(indices) = &order.indices {
        for column in columns.iter_mut().filter(|column| column.null_count() < rows) {
            *column = take(column, indices, None)?;
        }
    }
    let schema = described(&part.columns, rows);
    let bloom: Vec<&str> = bloom.into_iter().map(String::as_str).collect();
    let entities = order.groups.unwrap_or(rows);
    let properties = properties(&schema, &part.sort_by, &part.time_column, &bloom, entities, ROW_GROUP_ROWS)?;
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    writer.write(&batch)?;
    let bytes = Bytes::from(writer.into_inner()?);
    let values = times.as_primitive::<TimestampMicrosecondType>();
    Ok(Encoded {
        rows: rows as u64,
        min_ts: min(values).unwrap_or_default(),
        max_ts: max(values).unwrap_or_default(),
        checksum: Checksum::of(&bytes),
        bytes,
    })
}

/// One array per column. Columns without a value anywhere are made anew, which costs next to nothing.
fn gather(part: &Part) -> Result<Vec<ArrayRef>, ArrowError> {
    let rows = part.batches.iter().map(RecordBatch::num_rows).sum();
    let one = |at: usize| {
        let arrays: Vec<&dyn Array> = part.batches.iter().map(|batch| batch.column(at).as_ref()).collect();
        match arrays.as_slice() {
            [_] => Ok(Arc::clone(part.batches[0].column(at))),
            _ if arrays.iter().all(|array| array.null_count() == array.len()) => {
                Ok(new_null_array(part.columns.field(at).data_type(), rows))
            }
            _ => concat(&arrays),
        }
    };
    (0..part.columns.fields().len()).map(one).collect()
}

/// The schema as it stands in the file.
pub(crate) fn described(columns: &SchemaRef, rows: usize) -> SchemaRef {
    if rows >= DESCRIBED_ROWS {
        return Arc::clone(columns);
    }
    let brief = |field: &Arc<arrow::datatypes::Field>| {
        let unit = field.metadata().get("unit").map(|unit| ("unit".to_owned(), unit.clone()));
        field.as_ref().clone().with_metadata(unit.into_iter().collect())
    };
    Arc::new(Schema::new(columns.fields().iter().map(brief).collect::<Vec<_>>()))
}

/// How a file is written. `entities`: the most distinct values of a bloom filter's column.
pub(crate) fn properties(
    schema: &Schema,
    sort_by: &[String],
    time_column: &str,
    bloom: &[&str],
    entities: usize,
    group_rows: usize,
) -> Result<WriterProperties, EncodeError> {
    let leaves = ArrowSchemaConverter::new().with_coerce_types(true).convert(schema)?;
    let mut builder = WriterProperties::builder()
        .set_coerce_types(true)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(group_rows))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_enabled(true)
        .set_created_by(concat!("airan ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("airan.units".to_owned(), units(schema))]))
        .set_sorting_columns(Some(sorting(&leaves, sort_by, time_column)));
    for leaf in leaves.columns() {
        let encoding = match leaf.physical_type() {
            // Bounds of histograms repeat row by row: they keep the dictionary.
            Type::DOUBLE | Type::FLOAT if leaf.max_rep_level() == 0 => Encoding::BYTE_STREAM_SPLIT,
            Type::INT32 | Type::INT64 => Encoding::DELTA_BINARY_PACKED,
            _ => continue,
        };
        let path = leaf.path();
        builder =
            builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path.clone(), encoding);
    }
    for name in sort_by.iter().map(String::as_str).chain([time_column]) {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
    }
    for name in bloom {
        let path = ColumnPath::from(*name);
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), BLOOM_ERROR)
            .set_column_bloom_filter_max_ndv(path, entities.max(1) as u64);
    }
    Ok(builder.build())
}

/// `{"column":"unit",…}` of the columns that have one.
fn units(schema: &Schema) -> String {
    let unit =
        |field: &Arc<arrow::datatypes::Field>| Some((field.name().clone(), field.metadata().get("unit")?.clone()));
    let units: BTreeMap<String, String> = schema.fields().iter().filter_map(unit).collect();
    serde_json::to_string(&units).unwrap_or_default()
}

fn sorting(leaves: &SchemaDescriptor, sort_by: &[String], time_column: &str) -> Vec<SortingColumn> {
    let place = |name: &str| leaves.columns().iter().position(|leaf| leaf.path().parts() == [name]);
    let order = |place: usize| SortingColumn { column_idx: place as i32, descending: false, nulls_first: true };
    sort_by.iter().map(String::as_str).chain([time_column]).filter_map(place).map(order).collect()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod format;

#[cfg(test)]
mod tests {
    use airan_model::time::DAY;
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{raw, times};

    fn read(bytes: &Bytes) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
        let schema = Arc::clone(reader.schema());
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        arrow::compute::concat_batches(&schema, &batches).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Scenario: rows of any three dates, also before 1970, in several batches.
        /// Guarantees: each row is in exactly one file, in its date's, in order; counts and times are those of the rows.
        #[test]
        fn every_row_is_in_the_file_of_its_date(
            rows in prop::collection::vec((0..3u8, -DAY..2 * DAY), 1..60), cut in any::<prop::sample::Index>()
        ) {
            let batch = |rows: &[(u8, i64)]| {
                let sites: ArrayRef = Arc::new(rows.iter().map(|row| Some(format!("s{}", row.0))).collect::<StringArray>());
                raw("t", &[("ts", times(&rows.iter().map(|row| row.1).collect::<Vec<_>>())), ("site", sites)])
            };
            let cut = cut.index(rows.len());
            let mut table = batch(&rows[..cut]);
            table.batches.extend(batch(&rows[cut..]).batches);
            let schema = TableSchema::first(&table).unwrap();
            let mut found = Vec::new();
            for part in parts(&schema, &table).unwrap() {
                let encoded = encode(&part).unwrap();
                prop_assert_eq!(&encode(&part).unwrap().bytes, &encoded.bytes);
                let back = read(&encoded.bytes);
                let at = back.column(0).as_primitive::<TimestampMicrosecondType>();
                let site = back.column(1).as_string::<i32>();
                let here: Vec<(String, i64)> =
                    (0..back.num_rows()).map(|row| (site.value(row).to_owned(), at.value(row))).collect();
                prop_assert!(here.is_sorted() && here.iter().all(|row| date_of(row.1) == part.date));
                prop_assert_eq!(encoded.rows as usize, here.len());
                prop_assert_eq!(Some(encoded.min_ts), min(at));
                prop_assert_eq!(Some(encoded.max_ts), max(at));
                found.extend(here);
            }
            let mut expected: Vec<(String, i64)> = rows.iter().map(|row| (format!("s{}", row.0), row.1)).collect();
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }

    /// Scenario: a row without a time.
    /// Guarantees: refused; it would have no date.
    #[test]
    fn a_row_without_a_time_is_refused() {
        let at = arrow::array::TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC");
        let rows = raw("t", &[("ts", Arc::new(at))]);
        let schema = TableSchema::first(&rows).unwrap();
        assert!(matches!(parts(&schema, &rows), Err(SchemaError::Time { .. })));
    }

    /// A cycle of `devices`, `rows` in all: 12 filled columns and 40 empty ones.
    fn telemetry(rows: usize, devices: usize, empty: usize) -> TableRows {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let text = |make: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new((0..rows).map(|row| Some(make(row))).collect::<StringArray>())
        };
        columns
            .push(("ts".into(), times(&(0..rows).map(|row| (row / devices) as i64 * 1_000_000).collect::<Vec<_>>())));
        columns.push(("site".into(), text(&|row| format!("site-{:03}", row % devices / 16))));
        columns.push(("node".into(), text(&|row| format!("node-{:04}", row % devices / 8))));
        columns.push(("device".into(), text(&|row| format!("GPU-{:08x}", row % devices))));
        columns
            .push(("seq".into(), Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (row / devices) as i64)))));
        for value in 0..7 {
            let values = (0..rows).map(|row| {
                let noise = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17 + value) >> 54;
                noise as f64 / 10.0 + f64::from(value) * 100.0
            });
            columns.push((format!("value_{value}"), Arc::new(Float64Array::from_iter_values(values))));
        }
        for at in 0..empty {
            let ty = if at % 4 == 0 { DataType::Utf8 } else { DataType::Float64 };
            columns.push((format!("empty_{at}"), new_null_array(&ty, rows)));
        }
        let fields: Vec<Field> =
            columns.iter().map(|(name, values)| Field::new(name, values.data_type().clone(), true)).collect();
        let whole = RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns.into_iter().map(|(_, values)| values).collect(),
        );
        let whole = whole.unwrap();
        let batches = (0..rows).step_by(4096).map(|at| whole.slice(at, 4096.min(rows - at))).collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        TableRows {
            batches,
            sort_by: names(&["site", "node", "device"]),
            bloom: names(&["node", "device"]),
            ..raw("t", &[])
        }
    }

    /// Not a test: prints rows per second of each step, one core. `cargo test --release -p airan-lake speed -- --ignored --nocapture`
    #[test]
    #[ignore = "prints speeds"]
    fn speed() {
        for (rows, empty) in [(2_000_000, 40), (2_000_000, 0), (300, 40), (5, 40)] {
            let table = telemetry(rows, 1600.min(rows), empty);
            let schema = TableSchema::first(&table).unwrap();
            for _ in 0..3 {
                let start = std::time::Instant::now();
                let parts = parts(&schema, &table).unwrap();
                let cut = start.elapsed();
                let columns = gather(&parts[0]).unwrap();
                let gathered = start.elapsed();
                let order = crate::order::order(&columns[1..4], &columns[0]).unwrap();
                let ordered = start.elapsed();
                let start = std::time::Instant::now();
                let encoded = encode(&parts[0]).unwrap();
                let whole = start.elapsed();
                println!(
                    "{rows} rows, {empty} empty: cut {cut:?}, gather {:?}, order {:?} ({:?} groups), all {whole:?} = {:.2} M rows/s, {} bytes",
                    gathered - cut,
                    ordered - gathered,
                    order.groups,
                    rows as f64 / (cut + whole).as_secs_f64() / 1e6,
                    encoded.bytes.len()
                );
            }
        }
    }
}
