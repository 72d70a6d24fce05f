use std::sync::Arc;

use airan_model::time::DAY;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use proptest::prelude::*;

use super::*;
use crate::commit::TableRows;
use crate::encode;
use crate::faults::{Fault, FaultyStore, Op};
use crate::testing::{SECOND, nested_rows, noise, raw, times, windows};

const OUT: &str = "host/date=1970-01-01/compact-x.parquet";

fn store() -> Store {
    Store::over(Arc::new(InMemory::new()), false)
}

fn rules() -> Rules {
    let pool = Arc::new(GreedyMemoryPool::new(64 << 20));
    Rules { keep: None, newest_only: false, group_rows: 1 << 20, file_bytes: 1 << 30, pool }
}

/// A rewriting to one file.
async fn rewrite(
    store: &Store,
    path: &Path,
    table: (&str, &TableSchema),
    sources: &[Source],
    rules: &Rules,
) -> Result<Option<Rewritten>, RewriteError> {
    let made = super::rewrite(store, &|| path.clone(), table, sources, rules).await?;
    assert!(made.len() < 2, "{made:?}");
    Ok(made.into_iter().next())
}

/// The schema that all of `tables` together give.
fn schema_of(tables: &[TableRows]) -> TableSchema {
    let first = TableSchema::first(&tables[0]).unwrap();
    tables[1..].iter().fold(first, |schema, rows| schema.with(rows).unwrap())
}

/// Each as the file that a commit makes of it, with the columns known by then.
fn sources(tables: &[TableRows]) -> Vec<Source> {
    let file = |at: usize| {
        let schema = schema_of(&tables[..=at]);
        let parts = encode::parts(&schema, &tables[at]).unwrap();
        let [part] = &parts[..] else { panic!("{} dates", parts.len()) };
        Source::open(&format!("file {at}"), encode::encode(part).unwrap().bytes).unwrap()
    };
    (0..tables.len()).map(file).collect()
}

async fn written(store: &Store) -> Bytes {
    store.read(&Path::from(OUT)).await.unwrap().unwrap()
}

fn read(bytes: &Bytes) -> (RecordBatch, Arc<ParquetMetaData>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let (schema, metadata) = (Arc::clone(reader.schema()), Arc::clone(reader.metadata()));
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    (arrow::compute::concat_batches(&schema, &batches).unwrap(), metadata)
}

/// A row as (site, device, ts, id).
type Row = (String, Option<String>, Micros, i64);

fn table(rows: &[Row], with_device: bool) -> TableRows {
    let site: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)));
    let device: ArrayRef = Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>());
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)));
    let at = times(&rows.iter().map(|row| row.2).collect::<Vec<_>>());
    let mut columns = vec![("ts", at), ("site", site), ("id", id)];
    if with_device {
        columns.push(("device", device));
    }
    let names = || vec!["site".to_owned(), "device".to_owned()];
    TableRows { sort_by: names(), bloom: names(), ..raw("host", &columns) }
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let (site, id) = (batch["site"].as_string::<i32>(), batch["id"].as_primitive::<Int64Type>());
    let at = batch["ts"].as_primitive::<TimestampMicrosecondType>();
    let device = |row: usize| {
        let device = batch.column_by_name("device")?.as_string::<i32>();
        device.is_valid(row).then(|| device.value(row).to_owned())
    };
    (0..batch.num_rows()).map(|row| (site.value(row).to_owned(), device(row), at.value(row), id.value(row))).collect()
}

/// What lies between the least and the greatest value of a text column in each row group.
fn text_ranges(footer: &ParquetMetaData, column: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let range = |group: &parquet::file::metadata::RowGroupMetaData| {
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column).unwrap();
        match chunk.statistics().unwrap() {
            Statistics::ByteArray(values) => {
                (values.min_opt().unwrap().data().to_vec(), values.max_opt().unwrap().data().to_vec())
            }
            other => panic!("{other:?}"),
        }
    };
    footer.row_groups().iter().map(range).collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Scenario: any rows in any number of files, the first of which do not know the device yet; row groups of any size.
    /// Guarantees: the new file has each row once, in order (site, device, time), in the newest columns; its counts, times and
    /// checksum are true; row groups are full and follow each other, as their statistics say.
    #[test]
    fn a_new_file_has_every_row_in_order(
        files in prop::collection::vec(
            prop::collection::vec((0..3u8, prop::option::of(0..3u8), 0..20i64), 1..40), 1..9),
        without_device in 0..3usize,
        group_rows in 1..50usize
    ) {
        let mut id = 0;
        let mut row = |with_device: bool, (site, device, at): (u8, Option<u8>, i64)| {
            id += 1;
            let device = device.filter(|_| with_device).map(|device| format!("d{device}"));
            (format!("s{site}"), device, at * SECOND, id)
        };
        let files: Vec<Vec<Row>> = files
            .into_iter()
            .enumerate()
            .map(|(at, rows)| rows.into_iter().map(|each| row(at >= without_device, each)).collect())
            .collect();
        let tables: Vec<TableRows> =
            files.iter().enumerate().map(|(at, rows)| table(rows, at >= without_device)).collect();
        let (schema, store) = (schema_of(&tables), store());
        let rules = Rules { group_rows, ..rules() };
        let sets = alike(sources(&tables));
        prop_assert_eq!(sets.len(), 1, "files that lack a column are sorted like the others");
        let made = run(rewrite(&store, &Path::from(OUT), ("host", &schema), &sets[0], &rules)).unwrap().unwrap();
        let bytes = run(written(&store));
        let (batch, footer) = read(&bytes);
        let names = |columns: &SchemaRef| columns.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&batch.schema()), names(&schema.columns));
        let found = rows_of(&batch);
        let mut expected: Vec<Row> = files.concat();
        prop_assert!(found.is_sorted_by_key(|row| (row.0.clone(), row.1.clone(), row.2)));
        prop_assert_eq!(
            (made.rows, made.min_ts, made.max_ts),
            (
                expected.len() as u64,
                expected.iter().map(|row| row.2).min().unwrap(),
                expected.iter().map(|row| row.2).max().unwrap()
            )
        );
        prop_assert_eq!((made.bytes, &made.checksum), (bytes.len() as u64, &Checksum::of(&bytes)));
        let mut sorted = found.clone();
        sorted.sort_by_key(|row| row.3);
        expected.sort_by_key(|row| row.3);
        prop_assert_eq!(sorted, expected);
        prop_assert!(footer.row_groups().iter().rev().skip(1).all(|group| group.num_rows() == group_rows as i64));
        let ranges = text_ranges(&footer, "site");
        prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
    }
}

/// Scenario: a million rows in eight files, of many sites, merged with little memory, and with next to none.
/// Guarantees: memory is bounded by what merging is allowed, far below the rows; where that is not enough the answer is an
/// error, and nothing is left in the store. Row groups do not overlap, sorted, described and filtered as a commit's are.
#[tokio::test]
async fn merging_keeps_to_its_memory_and_its_row_groups_do_not_overlap() {
    let file = |file: i64| -> Vec<Row> {
        let row = |row: i64| {
            let device = row % 500;
            (format!("site-{:02}", device / 10), Some(format!("{device:04}")), (file * 250 + row / 500) * SECOND, row)
        };
        (0..125_000).map(row).collect()
    };
    let tables: Vec<TableRows> = (0..8).map(|at| table(&file(at), true)).collect();
    let (schema, store) = (schema_of(&tables), store());
    let decoded: usize = tables.iter().flat_map(|table| &table.batches).map(RecordBatch::get_array_memory_size).sum();
    let pool = 16 << 20;
    assert!(decoded > 2 * pool, "{decoded}");
    let sources = sources(&tables);
    let with = |pool| Rules { group_rows: 50_000, pool: Arc::new(GreedyMemoryPool::new(pool)), ..rules() };
    let (path, of) = (Path::from(OUT), ("host", &schema));
    let refused = rewrite(&store, &path, of, &sources, &with(1 << 10)).await.unwrap_err();
    assert!(matches!(refused, RewriteError::Rows { .. }), "{refused}");
    assert!(store.list(&Path::from("host")).await.unwrap().is_empty());

    let made = rewrite(&store, &path, of, &sources, &with(pool)).await.unwrap().unwrap();
    assert_eq!(made.rows, 1_000_000);
    let (_, footer) = read(&written(&store).await);
    assert_eq!(footer.num_row_groups(), 20);
    let (sites, devices) = (text_ranges(&footer, "site"), text_ranges(&footer, "device"));
    assert!(sites.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    // Devices are numbered through the sites, so their order alone tells that of both.
    assert!(devices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{devices:?}");
    for group in footer.row_groups() {
        let sorted: Vec<i32> = group.sorting_columns().unwrap().iter().map(|column| column.column_idx).collect();
        assert_eq!(sorted, [1, 3, 0], "site, device, ts");
        let filtered: Vec<bool> = group.columns().iter().map(|c| c.bloom_filter_offset().is_some()).collect();
        assert_eq!(filtered, [false, true, false, true]);
    }
}

/// Scenario: a store that fails when a part is to be sent, then when a file is to be completed.
/// Guarantees: that is an error to try again after, no file is there, and the upload was given up (the fault that waits for that
/// was met).
#[tokio::test]
async fn a_file_that_could_not_be_completed_is_not_there() {
    let tables = [table(&[("a".into(), None, 0, 1)], false), table(&[("a".into(), None, 1, 2)], false)];
    for op in [Op::Part, Op::Put] {
        let faulty = FaultyStore::in_memory();
        let store = Store::over(Arc::clone(&faulty) as _, false);
        faulty.next(1, op, "compact-x", Fault::Before);
        faulty.next(1, Op::Abort, "compact-x", Fault::Before);
        let done = rewrite(&store, &Path::from(OUT), ("host", &schema_of(&tables)), &sources(&tables), &rules()).await;
        assert!(matches!(done, Err(RewriteError::Store(_))), "{op:?}: {done:?}");
        assert!(store.list(&Path::from("host")).await.unwrap().is_empty(), "{op:?}");
        assert_eq!(faulty.heal(), 0, "{op:?}: it was not given up");
    }
}

/// Scenario: results of two sites in several revisions over three files, one revision twice; region is a key and not sorted by.
/// Guarantees: of each result exactly the rows of its newest revision stay; a raw table with such a column loses nothing.
#[tokio::test]
async fn of_each_result_the_newest_revision_stays() {
    let tables = [
        windows("w", &[(0, Some("a"), 1, 0), (60, Some("a"), 2, 0), (0, Some("b"), 3, 0), (0, None, 4, 0)]),
        windows("w", &[(0, Some("a"), 5, 1), (0, Some("b"), 6, 1)]),
        windows("w", &[(0, Some("b"), 7, 3), (0, Some("b"), 8, 2), (60, Some("b"), 9, 0), (0, None, 10, 0)]),
    ];
    let newest = Rules { newest_only: true, ..rules() };
    for (tables, expected) in [
        (tables.clone().to_vec(), vec![2, 4, 5, 7, 9, 10]),
        (
            tables.iter().map(|rows| TableRows { kind: crate::commit::TableKind::Raw, ..rows.clone() }).collect(),
            (1..=10).collect(),
        ),
    ] {
        let (schema, store) = (schema_of(&tables), store());
        let made = rewrite(&store, &Path::from(OUT), ("w", &schema), &sources(&tables), &newest).await.unwrap();
        let (batch, _) = read(&written(&store).await);
        let mut values = batch["value"].as_primitive::<Int64Type>().values().to_vec();
        values.sort_unstable();
        assert_eq!((values, made.unwrap().rows as usize), (expected.clone(), expected.len()));
    }
}

/// Scenario: one file has its maps' and lists' children by their names in Arrow, as files once had, the other by those of Parquet.
/// Guarantees: both are merged, every value as it was, and the new file has the names of Parquet.
#[tokio::test]
async fn files_with_other_names_of_nested_columns_are_merged() {
    let tables = [nested_rows("host", 0..10), nested_rows("host", 10..20)];
    let (schema, store) = (schema_of(&tables), store());
    let mut sources = sources(&tables);
    let sorted = |name: &str| SortingColumn {
        column_idx: schema.columns.index_of(name).unwrap() as i32,
        descending: false,
        nulls_first: true,
    };
    let properties = WriterProperties::builder().set_sorting_columns(Some(vec![sorted("site"), sorted("ts")])).build();
    let batch = &read(sources[0].bytes()).0;
    let columns = schema.conform(batch).unwrap();
    let batch = RecordBatch::try_new(Arc::clone(&schema.columns), columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema.columns), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    sources[0] = Source::open("once", writer.into_inner().unwrap().into()).unwrap();
    let leaf = |bytes: &Bytes| read(bytes).1.row_group(0).column(3).column_path().string();
    assert_eq!(leaf(sources[0].bytes()), "attributes.entries.keys");

    let sets = alike(sources);
    assert_eq!(sets.len(), 1);
    rewrite(&store, &Path::from(OUT), ("host", &schema), &sets[0], &rules()).await.unwrap().unwrap();
    let bytes = written(&store).await;
    assert_eq!(leaf(&bytes), "attributes.key_value.key");
    let found = schema.conform(&read(&bytes).0).unwrap();
    let whole = &nested_rows("host", 0..20).batches[0];
    let by_site: UInt32Array = (0..3).flat_map(|site| (site..20).step_by(3)).collect();
    let wanted = take_record_batch(whole, &by_site).unwrap();
    assert_eq!(found, wanted.columns());
}

/// Scenario: only some rows stay, then none; the test looks at a column that no file has.
/// Guarantees: exactly those that stay are in the new file; where none does there is none.
#[tokio::test]
async fn rows_that_do_not_stay_are_left_out() {
    let rows = |ids: std::ops::Range<i64>| -> Vec<Row> { ids.map(|id| ("a".into(), None, id * SECOND, id)).collect() };
    let tables = [table(&rows(0..10), true), table(&rows(10..20), true)];
    let (schema, store) = (schema_of(&tables), store());
    let columns = || {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("device", DataType::Utf8, true)]))
    };
    let below = |bound: i64| {
        let test = move |batch: &RecordBatch| {
            let device = batch.column(1).as_string::<i32>();
            let ids = batch.column(0).as_primitive::<Int64Type>();
            Ok((0..ids.len()).map(|at| Some(device.is_null(at) && ids.value(at) < bound)).collect::<BooleanArray>())
        };
        Rules { keep: Some(Keep::new(columns(), test)), ..rules() }
    };
    let (path, of) = (Path::from(OUT), ("host", &schema));
    assert_eq!(rewrite(&store, &path, of, &sources(&tables), &below(0)).await.unwrap(), None);
    assert!(store.list(&Path::from("host")).await.unwrap().is_empty());
    let made = rewrite(&store, &path, of, &sources(&tables), &below(13)).await.unwrap().unwrap();
    assert_eq!((made.rows, made.min_ts, made.max_ts), (13, 0, 12 * SECOND));
    let ids: Vec<i64> = rows_of(&read(&written(&store).await).0).iter().map(|row| row.3).collect();
    assert_eq!(ids, (0..13).collect::<Vec<_>>());
    assert!(made.max_ts < DAY);
}

/// The same sources, each read piece by piece from `store`.
async fn stored(store: &Store, sources: &[Source]) -> Vec<Source> {
    let mut found = Vec::new();
    for source in sources {
        let path = Path::from(format!("in/{}", source.path));
        store.create(&path, source.bytes().clone()).await.unwrap();
        let stored = Stored { store: store.clone(), path, bytes: source.bytes().len() as u64 };
        found.push(Source::open_stored(&source.path, stored).await.unwrap().unwrap());
    }
    found
}

/// Scenario: rows in five files, each of several slices and row groups, are read whole or piece by piece, and written to files of a
/// third of their bytes at most, of a half, of all.
/// Guarantees: as many files as can hold them, none below half of the most, the last included; they follow each other in the order
/// of the rows and have each row once; what is read piece by piece gives the very same bytes.
#[tokio::test]
async fn a_run_is_cut_into_files_that_follow_each_other() {
    const ROWS: i64 = 50_000;
    let file = |file: i64| -> Vec<Row> {
        let row = |row: i64| {
            let id = noise(file * ROWS + row);
            (format!("site-{:02}", row % 40), Some(format!("{:03}", row % 200)), (file + row / 200 * 5) * SECOND, id)
        };
        (0..ROWS).map(row).collect()
    };
    let rows: Vec<Vec<Row>> = (0..5).map(file).collect();
    let tables: Vec<TableRows> = rows.iter().map(|rows| table(rows, true)).collect();
    let schema = schema_of(&tables);
    let held = sources(&tables);
    let whole: u64 = held.iter().map(Source::size).sum();
    let mut expected: Vec<Row> = rows.concat();
    expected.sort();
    for (most, files) in [(whole / 3 + whole / 50, 3), (whole / 2 + whole / 50, 2), (whole + whole / 50, 1)] {
        let mut written = Vec::new();
        for is_stored in [false, true] {
            let store = store();
            let sources = if is_stored { stored(&store, &held).await } else { held.clone() };
            let rules = Rules { file_bytes: most, group_rows: 30_000, ..rules() };
            let count = std::sync::atomic::AtomicUsize::new(0);
            let name = || Path::from(format!("out/{}", count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
            let made = super::rewrite(&store, &name, ("host", &schema), &sources, &rules).await.unwrap();
            assert_eq!(made.len(), files, "{made:?}");
            let (mut all, mut bytes_of) = (Vec::new(), Vec::new());
            for (at, made) in made.iter().enumerate() {
                assert_eq!(made.path.as_ref(), format!("out/{at}"));
                assert!(made.bytes <= most && (made.bytes >= most / 2 || files == 1), "{} of {most}", made.bytes);
                let bytes = store.read(&made.path).await.unwrap().unwrap();
                let here = rows_of(&read(&bytes).0);
                assert_eq!((made.bytes, &made.checksum), (bytes.len() as u64, &Checksum::of(&bytes)));
                let span = (here.iter().map(|row| row.2).min().unwrap(), here.iter().map(|row| row.2).max().unwrap());
                assert_eq!((made.rows, made.min_ts, made.max_ts), (here.len() as u64, span.0, span.1));
                all.extend(here);
                bytes_of.push(bytes);
            }
            assert!(all.is_sorted_by_key(|row| (row.0.clone(), row.1.clone(), row.2)));
            all.sort();
            assert!(all == expected, "each row once");
            written.push(bytes_of);
        }
        assert!(written[0] == written[1], "the same files");
    }
}

/// Scenario: a store that fails when a slice is read, and when the second file is completed.
/// Guarantees: both are errors to try again after, told as the store's, and no new file stays.
#[tokio::test]
async fn a_store_that_fails_on_the_way_leaves_no_file() {
    let rows = |from: i64| -> Vec<Row> {
        (from..from + 30_000).map(|at| (format!("s{}", at % 7), None, at * SECOND, noise(at))).collect()
    };
    let tables = [table(&rows(0), false), table(&rows(30_000), false)];
    let (schema, held) = (schema_of(&tables), sources(&tables));
    for (op, part) in [(Op::Get, "in/file 1"), (Op::Put, "out/1")] {
        let faulty = FaultyStore::in_memory();
        let store = Store::over(Arc::clone(&faulty) as _, false);
        let sources = stored(&store, &held).await;
        faulty.next(1, op, part, Fault::Before);
        let count = std::sync::atomic::AtomicUsize::new(0);
        let name = || Path::from(format!("out/{}", count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        let rules = Rules { file_bytes: 200_000, ..rules() };
        let done = super::rewrite(&store, &name, ("host", &schema), &sources, &rules).await;
        assert!(matches!(done, Err(RewriteError::Store(_))), "{part}: {done:?}");
        assert_eq!(faulty.heal(), 0, "{part} was met");
        assert!(store.list(&Path::from("out")).await.unwrap().is_empty(), "{part}");
    }
}
