//! What stands in the files, read back with the parquet crate.

use std::collections::HashMap;

use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use parquet::basic::{LogicalType, TimeUnit};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};

use super::*;
use crate::commit::TableKind;
use crate::testing::{nested_rows, times};

/// Rows of 20 devices of two sites, shuffled; `power` has a unit and a description.
fn accelerators(rows: i64) -> TableRows {
    let shuffled: Vec<i64> = (0..rows).map(|row| row * 7919 % rows).collect();
    let text = |make: &dyn Fn(i64) -> String| StringArray::from_iter_values(shuffled.iter().map(|row| make(*row)));
    let facts = [("unit", "W"), ("meaning", "board power")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let fields = vec![
        Field::new("ts", airan_model::schema::timestamp_type(), false),
        Field::new("site", DataType::Utf8, false),
        Field::new("device", DataType::Utf8, true),
        Field::new("count", DataType::Int64, true),
        Field::new("power", DataType::Float64, true).with_metadata(HashMap::from(facts)),
    ];
    let columns: Vec<ArrayRef> = vec![
        times(&shuffled.iter().map(|row| row * 1_000_000).collect::<Vec<_>>()),
        Arc::new(text(&|row| format!("site-{}", row % 2))),
        Arc::new(text(&|row| format!("GPU-{:04}", row % 20))),
        Arc::new(Int64Array::from(shuffled.clone())),
        Arc::new(Float64Array::from_iter_values(shuffled.iter().map(|row| *row as f64 * 0.25))),
    ];
    TableRows {
        table: "accelerator".to_owned(),
        kind: TableKind::Raw,
        batches: vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()],
        sort_by: vec!["site".to_owned(), "device".to_owned(), "not there".to_owned()],
        time_column: "ts",
        bloom: vec!["device".to_owned()],
    }
}

fn written(rows: &TableRows) -> Bytes {
    let schema = TableSchema::first(rows).unwrap();
    let parts = parts(&schema, rows).unwrap();
    assert_eq!(parts.len(), 1, "one date");
    encode(&parts[0]).unwrap().bytes
}

fn open(bytes: Bytes) -> SerializedFileReader<Bytes> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).with_page_index().build();
    SerializedFileReader::new_with_options(bytes, options).unwrap()
}

fn place(metadata: &ParquetMetaData, column: &str) -> usize {
    let columns = metadata.file_metadata().schema_descr().columns();
    columns.iter().position(|leaf| leaf.path().string() == column).unwrap()
}

/// Scenario: a file of shuffled rows is read by the parquet crate.
/// Guarantees: times are microseconds adjusted to UTC; every column is zstd; rows are sorted by site, device, time, and the
/// file says so; chunks have min and max; labels are dictionary-encoded.
#[test]
fn a_file_says_what_it_holds() {
    let reader = open(written(&accelerators(1000)));
    let metadata = reader.metadata();
    let ts = place(metadata, "ts");
    let kind = metadata.file_metadata().schema_descr().column(ts).logical_type_ref().cloned();
    assert!(
        matches!(&kind, Some(LogicalType::Timestamp(kind)) if kind.is_adjusted_to_u_t_c && kind.unit == TimeUnit::MICROS),
        "{kind:?}"
    );
    let group = metadata.row_group(0);
    for column in group.columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)), "{}", column.column_path());
        assert!(column.statistics().is_some_and(|facts| facts.min_bytes_opt().is_some()), "{}", column.column_path());
    }
    let sorted: Vec<i32> = group.sorting_columns().unwrap().iter().map(|column| column.column_idx).collect();
    assert_eq!(sorted, ["site", "device", "ts"].map(|name| place(metadata, name) as i32));
    let encodings = |name: &str| group.column(place(metadata, name)).encodings().collect::<Vec<_>>();
    assert!(encodings("device").contains(&Encoding::RLE_DICTIONARY), "{:?}", encodings("device"));
    assert!(encodings("power").contains(&Encoding::BYTE_STREAM_SPLIT), "{:?}", encodings("power"));
    assert!(metadata.column_index().is_some_and(|index| !index[0].is_empty()), "pages of the time have bounds");
    let created = metadata.file_metadata().created_by().unwrap_or_default();
    assert!(created.starts_with("airan "), "{created}");
}

/// Scenario: the bloom filter of the entity's column is asked for devices that are there and for 1,000 that are not.
/// Guarantees: every device there is found; nearly all others are excluded; other columns carry none.
#[test]
fn bloom_filters_know_the_devices() {
    let reader = open(written(&accelerators(1000)));
    let device = place(reader.metadata(), "device");
    let group = reader.get_row_group(0).unwrap();
    let filter = group.get_column_bloom_filter(device).unwrap();
    for there in 0..20 {
        assert!(filter.check(&format!("GPU-{there:04}").as_str()), "GPU-{there:04}");
    }
    let wrong = (20..1020).filter(|absent| filter.check(&format!("GPU-{absent:04}").as_str())).count();
    assert!(wrong < 50, "{wrong} of 1000 let through");
    assert!(group.get_column_bloom_filter(place(reader.metadata(), "power")).is_none());
}

/// Scenario: a small file and a large one of a column with unit and description.
/// Guarantees: the unit stands in the field and in `airan.units` of both, for readers with and without Arrow's schema; the
/// description only where it is not longer than the rows.
#[test]
fn units_and_descriptions_travel_with_the_file() {
    for (rows, described) in [(100, false), (DESCRIBED_ROWS as i64, true)] {
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(written(&accelerators(rows)));
        let reader = reader.unwrap();
        let field = reader.schema().field_with_name("power").unwrap();
        assert_eq!(field.metadata().get("unit").map(String::as_str), Some("W"));
        assert_eq!(field.metadata().contains_key("meaning"), described, "{rows} rows");
        let facts = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let units = facts.iter().find(|fact| fact.key == "airan.units").and_then(|fact| fact.value.as_deref());
        assert_eq!(units, Some("{\"power\":\"W\"}"));
    }
}

/// Scenario: a file with a map and a histogram.
/// Guarantees: the children of lists and maps have the names of the Parquet format, by which DuckDB's `delta_scan` looks for them;
/// their encodings are those of their types.
#[test]
fn children_of_lists_and_maps_have_the_names_of_the_format() {
    let reader = open(written(&nested_rows("t", 0..9)));
    let group = reader.metadata().row_group(0);
    let leaves: Vec<String> = group.columns().iter().map(|column| column.column_path().string()).collect();
    let wanted = [
        "ts",
        "site",
        "id",
        "attributes.key_value.key",
        "attributes.key_value.value",
        "histogram.bounds.list.element",
        "histogram.counts.list.element",
        "histogram.sum",
        "histogram.count",
    ];
    assert_eq!(leaves, wanted);
    let encodings = group.column(6).encodings().collect::<Vec<_>>();
    assert!(encodings.contains(&Encoding::DELTA_BINARY_PACKED), "{encodings:?}");
}

/// Scenario: more rows than one row group may hold.
/// Guarantees: two groups, the first full.
#[test]
fn row_groups_are_bounded() {
    let at: Vec<i64> = (0..ROW_GROUP_ROWS as i64 + 1).collect();
    let reader = open(written(&crate::testing::raw("t", &[("ts", times(&at))])));
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [ROW_GROUP_ROWS as i64, 1]);
}
