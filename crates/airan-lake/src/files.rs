//! Which files count (S1), exactly: those the Delta log of their table names, and those of records above its `txn`.
//!
//! Order matters: the records first, then the Delta log. A record that was trimmed before they were listed had its files
//! published before, so the log read afterwards has them; a record published in between is in both, and its `txn` says so.

use std::collections::{BTreeMap, HashMap};

use airan_model::identity;
use airan_model::time::Micros;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, Scalar, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::gt_eq;
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use tokio::sync::mpsc;

use crate::claim;
use crate::delta::DeltaTable;
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::{self, ReadError, RecordFile, Run};
use crate::schema::{self, TableSchema};
use crate::seal::{Checksum, Damaged};
use crate::span::Span;
use crate::store::{Store, StoreError};

/// Rows per batch when rows are read back.
const READ_BATCH: usize = 16_384;
/// Batches decoded ahead of who takes them.
const BATCHES_AHEAD: usize = 4;
/// Records read at once on the way back to the oldest open window.
const RECORDS_AT_ONCE: usize = 16;
/// Delta logs read at once.
const TABLES_AT_ONCE: usize = 8;
/// The column by which a row's partition is known.
const SITE: &str = "site";

/// Rows of one shard read back, batch by batch: memory holds one file as it is stored, and a few batches of it.
pub type RawRows = BoxStream<'static, Result<RecordBatch, ReadError>>;

/// One file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The table.
    pub table: String,
    /// Where it lies now, below the lake's root. On a local disk that is the name Delta has for a published file (which
    /// outlives the file's removal by a day), and for one of the newest commit it may be in `_staging`.
    pub path: String,
    /// Days since 1970 of its `date=` folder.
    pub date: i32,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Smallest value of the table's time column, micros.
    pub min_ts: Micros,
    /// Largest value of the table's time column, micros.
    pub max_ts: Micros,
    /// Of its bytes.
    pub checksum: Checksum,
    /// Topic of the shards whose rows it holds.
    pub topic: String,
    /// Partition of the shard that wrote it; absent where it holds rows of several.
    pub partition: Option<i32>,
    /// The record that named it first; absent where it holds rows of several.
    pub n: Option<u64>,
}

/// The one record that a file's rows came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) partition: i32,
    pub(crate) n: u64,
}

/// A file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) topic: String,
    /// Absent where a rewriting made it of several.
    pub(crate) origin: Option<Origin>,
    /// When its record was written, or when it was rewritten.
    pub(crate) at: Micros,
    pub(crate) date: i32,
    /// Whether the Delta log names it; otherwise a record does.
    pub(crate) published: bool,
    /// Its first and last row, where that is known: of what a rewriting made.
    pub(crate) span: Option<Span>,
    /// `path` is its place.
    pub(crate) file: RecordFile,
}

impl Live {
    /// The shard whose rows these are; `None` where they are of several.
    pub(crate) fn shard(&self) -> Option<Shard> {
        let partition = self.origin?.partition;
        Some(Shard { topic: self.topic.clone(), partition })
    }

    /// Where it is read: on a local disk a published file has a name that stays a day after it was taken out.
    pub(crate) fn stored(&self, store: &Store) -> Path {
        let place = Path::from(self.file.path.as_str());
        match self.published && store.staged() {
            true => layout::held(&place).unwrap_or(place),
            false => place,
        }
    }
}

/// Everything that counts, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) runs: Vec<Run>,
    /// Of each table that was asked for and ever published.
    pub(crate) deltas: BTreeMap<String, DeltaTable>,
    /// Published files by table and place, then those of records, oldest first within their shard.
    pub(crate) files: Vec<Live>,
}

impl Lake {
    /// The files of `table` that count; none where there is no such table.
    ///
    /// Exact at the moment of the call: a row is in exactly one of them.
    ///
    /// # Errors
    /// If the records or the Delta log cannot be read.
    pub async fn files(&self, table: &str) -> Result<Vec<FileEntry>, ReadError> {
        self.entries_of(counted(self, Some(table)).await?.files).await
    }

    /// Names of all tables that were ever written, sorted.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn tables(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.store().folders(&Path::from(layout::SCHEMAS)).await?)
    }

    /// Per shard (topic, partition) the newest time of each table it ever wrote to.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub async fn newest_times(&self) -> Result<Vec<(String, i32, BTreeMap<String, Micros>)>, ReadError> {
        let mut newest = Vec::new();
        for shard in record::shards(self.store()).await? {
            if let Some(record) = record::newest(self.store(), &shard).await? {
                newest.push((shard.topic, shard.partition, record.newest_ts));
            }
        }
        Ok(newest)
    }

    /// The files of all tables that count.
    pub(crate) async fn entries(&self) -> Result<Vec<FileEntry>, ReadError> {
        self.entries_of(counted(self, None).await?.files).await
    }

    async fn entries_of(&self, live: Vec<Live>) -> Result<Vec<FileEntry>, ReadError> {
        let places = Places::find(self.store()).await?;
        let mut entries = Vec::with_capacity(live.len());
        for live in live {
            let path = places.of(self.store(), &live).await?.to_string();
            entries.push(FileEntry {
                path,
                date: live.date,
                partition: live.origin.map(|origin| origin.partition),
                n: live.origin.map(|origin| origin.n),
                topic: live.topic,
                table: live.file.table,
                rows: live.file.rows,
                bytes: live.file.bytes,
                min_ts: live.file.min_ts,
                max_ts: live.file.max_ts,
                checksum: live.file.checksum,
            });
        }
        Ok(entries)
    }

    /// The committed rows of one shard and table whose time is at or after `from`: what open windows are rebuilt from.
    ///
    /// Reads records from the newest back, only as far as one can hold such a row, and of those and of the published files
    /// only files that do. Of a file that was made of several shards' files only the rows whose site is of this partition.
    /// Batches have the table's whole schema (without `date`), sorted within a file, files in no order. Empty where there is
    /// no such table. The rows of an expired file are gone.
    ///
    /// # Errors
    /// If records cannot be read; the stream's items, if a file cannot.
    pub async fn raw_rows(&self, topic: &str, partition: i32, table: &str, from: Micros) -> Result<RawRows, ReadError> {
        let shard = Shard { topic: topic.to_owned(), partition };
        let Some(schema) = schema::load(self.store(), table).await? else {
            return Ok(futures::stream::empty().boxed());
        };
        let mut files = since(self.store(), &shard, table, from).await?;
        // After the records.
        if let Some(delta) = DeltaTable::load(self, table).await? {
            let txn = delta.txn(&shard).unwrap_or_default();
            files.retain(|live| live.origin.is_none_or(|origin| origin.n > txn));
            let is_wanted = |live: &&Live| {
                live.topic == topic
                    && live.origin.is_none_or(|origin| origin.partition == partition)
                    && live.file.max_ts >= from
            };
            files.extend(delta.files().filter(is_wanted).cloned());
        }
        let of = match files.iter().any(|live| live.origin.is_none()) {
            true => claim::partitions(self.store(), topic).await?.map(|partitions| (partition, partitions)),
            false => None,
        };
        let places = Places::find(self.store()).await?;
        let mut found = Vec::with_capacity(files.len());
        for live in files {
            found.push((places.of(self.store(), &live).await?, live));
        }
        let lake = self.clone();
        let batches = futures::stream::iter(found).then(move |(path, live)| {
            let (lake, schema) = (lake.clone(), schema.clone());
            async move { read_file(&lake, &path, &live, schema, from, of).await }.boxed()
        });
        Ok(batches.try_flatten().boxed())
    }
}

/// Everything that counts, of one table or of all.
pub(crate) async fn counted(lake: &Lake, only: Option<&str>) -> Result<Counted, ReadError> {
    let runs = record::runs(lake.store()).await?;
    let tables = match only {
        Some(table) => vec![table.to_owned()],
        None => lake.tables().await?,
    };
    let deltas = load_all(lake, &tables).await?;
    let mut files: Vec<Live> = deltas.values().flat_map(DeltaTable::files).cloned().collect();
    for run in &runs {
        let unpublished =
            run.records.iter().flat_map(named).filter(|live| only.is_none_or(|only| only == live.file.table));
        files.extend(unpublished.filter(|live| is_above(&deltas, live)));
    }
    Ok(Counted { runs, deltas, files })
}

/// The Delta logs of `tables` that have one.
pub(crate) async fn load_all(lake: &Lake, tables: &[String]) -> Result<BTreeMap<String, DeltaTable>, ReadError> {
    let loads = tables.iter().cloned().map(|table| async move { DeltaTable::load(lake, &table).await }.boxed());
    let loaded: Vec<Option<DeltaTable>> = futures::stream::iter(loads).buffered(TABLES_AT_ONCE).try_collect().await?;
    Ok(loaded.into_iter().flatten().map(|delta| (delta.name().to_owned(), delta)).collect())
}

/// Whether a record's file is not published yet, as `deltas` have it.
pub(crate) fn is_above(deltas: &BTreeMap<String, DeltaTable>, live: &Live) -> bool {
    let (Some(delta), Some(shard), Some(origin)) = (deltas.get(&live.file.table), live.shard(), live.origin) else {
        return true;
    };
    delta.txn(&shard).is_none_or(|txn| origin.n > txn)
}

/// The files a record names.
pub(crate) fn named(record: &record::Record) -> impl Iterator<Item = Live> {
    let origin = Origin { partition: record.partition, n: record.n };
    record.files.iter().map(move |file| Live {
        topic: record.topic.clone(),
        origin: Some(origin),
        at: record.at,
        date: layout::date_in(&file.path).unwrap_or_else(|| layout::date_of(file.min_ts)),
        published: false,
        span: None,
        file: file.clone(),
    })
}

/// The files of `table` in records that hold a time at or after `from`, oldest record first.
async fn since(store: &Store, shard: &Shard, table: &str, from: Micros) -> Result<Vec<Live>, ReadError> {
    let numbers = record::listed(store, shard).await?.numbers;
    let mut back = futures::stream::iter(numbers.into_iter().rev().map(|n| record::read(store, shard, n)))
        .buffered(RECORDS_AT_ONCE);
    let mut found = Vec::new();
    while let Some(read) = back.try_next().await? {
        // One that vanished was published, and so were all before it.
        let Some((record, _)) = read else { break };
        if record.newest_ts.get(table).is_none_or(|at| *at < from) {
            break;
        }
        found.extend(named(&record).filter(|live| live.file.table == table && live.file.max_ts >= from));
    }
    found.reverse();
    Ok(found)
}

/// Where files wait that are still in staging, by the place they will have.
pub(crate) struct Places(HashMap<String, Path>);

impl Places {
    /// Looked up *after* the records were read: what is not in staging then is in its place.
    pub(crate) async fn find(store: &Store) -> Result<Places, StoreError> {
        if !store.staged() {
            return Ok(Places(HashMap::new()));
        }
        let listed = store.list(&Path::from(layout::STAGING)).await?;
        let waiting = listed.into_iter().map(|meta| meta.location);
        Ok(Places(waiting.filter_map(|waits| Some((layout::place_of(&waits)?.to_string(), waits))).collect()))
    }

    /// Where the file that will have its place at `path` waits.
    pub(crate) fn waiting(&self, path: &str) -> Option<&Path> {
        self.0.get(path)
    }

    /// Where a file lies now.
    pub(crate) async fn of(&self, store: &Store, live: &Live) -> Result<Path, StoreError> {
        let stored = live.stored(store);
        match self.0.get(&live.file.path) {
            Some(waits) if !live.published && store.size(&stored).await?.is_none() => Ok(waits.clone()),
            _ => Ok(stored),
        }
    }
}

/// The bytes of a file that counted when it was found at `path`. It may have got its place, or its held name, since then.
///
/// # Errors
/// `Gone` if it no longer counts; `Damaged` if it is nowhere although it counts.
pub(crate) async fn read_live(lake: &Lake, path: &Path, live: &Live) -> Result<Bytes, ReadError> {
    for path in layout::names_of(path) {
        if let Some(bytes) = lake.store().read(&path).await? {
            return Ok(bytes);
        }
    }
    Err(missing(lake, path, live).await?)
}

/// As [`read_live`], but the bytes stay where they are: the name they were met at, their number and their checksum.
///
/// # Errors
/// As those of [`read_live`].
pub(crate) async fn sum_live(lake: &Lake, path: &Path, live: &Live) -> Result<(Path, u64, Checksum), ReadError> {
    for path in layout::names_of(path) {
        if let Some((bytes, checksum)) = lake.store().sum(&path).await? {
            return Ok((path, bytes, checksum));
        }
    }
    Err(missing(lake, path, live).await?)
}

/// Why a file that counted has none of its names.
async fn missing(lake: &Lake, path: &Path, live: &Live) -> Result<ReadError, ReadError> {
    let now = counted(lake, Some(&live.file.table)).await?;
    if !now.files.iter().any(|known| known.file.path == live.file.path) {
        return Ok(ReadError::Gone { path: path.to_string() });
    }
    let who = match live.origin {
        Some(origin) => format!("record {} of {}/{}", origin.n, live.topic, origin.partition),
        None => format!("the Delta log of {}", live.file.table),
    };
    Ok(Damaged { path: path.to_string(), reason: format!("{who} names it and it is not there") }.into())
}

async fn read_file(
    lake: &Lake,
    path: &Path,
    live: &Live,
    schema: TableSchema,
    from: Micros,
    of: Option<(i32, i32)>,
) -> Result<RawRows, ReadError> {
    let bytes = read_live(lake, path, live).await?;
    if Checksum::of(&bytes) != live.file.checksum {
        return Err(Damaged { path: path.to_string(), reason: "its checksum is not its record's".to_owned() }.into());
    }
    let from = (live.file.min_ts < from).then_some(from);
    let of = of.filter(|_| live.origin.is_none());
    let (batches, decoded) = mpsc::channel(BATCHES_AHEAD);
    let decoding = tokio::task::spawn_blocking(move || decode(bytes, &schema, from, of, &batches));
    let path = path.to_string();
    let next = move |(mut decoded, decoding): (mpsc::Receiver<RecordBatch>, Option<Decoding>)| {
        let path = path.clone();
        async move {
            if let Some(batch) = decoded.recv().await {
                return Some((Ok(batch), (decoded, decoding)));
            }
            // No more batches: because there are none, or because decoding failed.
            let done = decoding?.await.map_err(|error| error.to_string());
            let reason = done.and_then(|done| done.map_err(|error| error.to_string())).err()?;
            Some((Err(ReadError::Decode { path, reason }), (decoded, None)))
        }
    };
    Ok(futures::stream::unfold((decoded, Some(decoding)), next).boxed())
}

type Decoding = tokio::task::JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>;

/// Sends the rows of one file, until nobody takes them any more, in the table's schema; with `from`, only those at or after it; with `of`, only those of that partition
/// of so many.
fn decode(
    bytes: Bytes,
    schema: &TableSchema,
    from: Option<Micros>,
    of: Option<(i32, i32)>,
    to: &mpsc::Sender<RecordBatch>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(READ_BATCH);
    if let Some(from) = from {
        let mask = ProjectionMask::columns(reader.parquet_schema(), [schema.time_column.as_str()]);
        let least = Scalar::new(TimestampMicrosecondArray::from(vec![from]).with_timezone("UTC"));
        let is_since = move |rows: RecordBatch| -> Result<BooleanArray, arrow::error::ArrowError> {
            gt_eq(rows.column(0), &least)
        };
        reader = reader.with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, is_since))]));
    }
    for batch in reader.build()? {
        let columns = schema.conform(&batch?)?;
        let batch = RecordBatch::try_new(schema.columns.clone(), columns)?;
        let batch = match of {
            Some((partition, partitions)) => filter_record_batch(&batch, &is_of(&batch, partition, partitions)?)?,
            None => batch,
        };
        if batch.num_rows() > 0 && to.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

/// Of each row, whether its site is of `partition`, as the gateway computes it.
fn is_of(batch: &RecordBatch, partition: i32, partitions: i32) -> Result<BooleanArray, arrow::error::ArrowError> {
    let Some(sites) = batch.column_by_name(SITE) else {
        return Err(arrow::error::ArrowError::SchemaError("rows of several shards without a site".to_owned()));
    };
    let sites = arrow::compute::cast(sites, &DataType::Utf8)?;
    let sites = sites.as_string::<i32>();
    let of = |at: usize| identity::partition_of(if sites.is_null(at) { "" } else { sites.value(at) }, partitions);
    // Rows are sorted by site: most rows have that of the row before.
    let mut last: Option<(usize, bool)> = None;
    let mut chosen = Vec::with_capacity(sites.len());
    for at in 0..sites.len() {
        let same = last.filter(|(before, _)| {
            sites.is_null(*before) == sites.is_null(at) && sites.value(*before) == sites.value(at)
        });
        let is_of = same.map_or_else(|| of(at) == partition, |(_, is_of)| is_of);
        last = Some((at, is_of));
        chosen.push(is_of);
    }
    Ok(BooleanArray::from(chosen))
}
