//! Which files count (S1), exactly: those named by records, less those an expire record has taken out.

use std::collections::HashMap;

use airan_model::time::Micros;
use arrow::array::{BooleanArray, RecordBatch, Scalar, TimestampMicrosecondArray};
use arrow::compute::kernels::cmp::gt_eq;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};

use crate::expire::{self, Expired};
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::{self, ReadError, RecordFile};
use crate::schema::{self, TableSchema};
use crate::seal::{Checksum, Damaged};
use crate::store::{Store, StoreError};

/// Rows per batch when rows are read back.
const READ_BATCH: usize = 16_384;
/// Records read at once on the way back to the oldest open window.
const RECORDS_AT_ONCE: usize = 16;

/// Rows of one shard read back, batch by batch: memory holds one file at a time.
pub type RawRows = BoxStream<'static, Result<RecordBatch, ReadError>>;

/// One file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The table.
    pub table: String,
    /// Where it lies now, below the lake's root. On a local disk a file of the newest commit may still lie in `_staging`.
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
    /// Topic of the shard that wrote it.
    pub topic: String,
    /// Partition of the shard that wrote it.
    pub partition: i32,
    /// The record that names it.
    pub n: u64,
}

/// A file named by a record and not expired, where its record says.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) shard: Shard,
    pub(crate) n: u64,
    /// When its record was written.
    pub(crate) at: Micros,
    pub(crate) date: i32,
    pub(crate) file: RecordFile,
}

impl Lake {
    /// The files of `table` that count, oldest record first; none where there is no such table.
    ///
    /// Exact at the moment of the call: a row is in exactly one of them.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub async fn files(&self, table: &str) -> Result<Vec<FileEntry>, ReadError> {
        Ok(self.entries().await?.into_iter().filter(|entry| entry.table == table).collect())
    }

    /// Names of all tables that were ever written, sorted.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn tables(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.store().folders(&Path::from(layout::SCHEMAS)).await?)
    }

    /// The files of all tables that count.
    pub(crate) async fn entries(&self) -> Result<Vec<FileEntry>, ReadError> {
        let live = live(self.store()).await?;
        let place = Places::find(self.store()).await?;
        let mut entries = Vec::with_capacity(live.len());
        for Live { shard, n, date, file, .. } in live {
            let path = place.of(self.store(), &file.path).await?;
            entries.push(FileEntry {
                path,
                date,
                n,
                table: file.table,
                rows: file.rows,
                bytes: file.bytes,
                min_ts: file.min_ts,
                max_ts: file.max_ts,
                checksum: file.checksum,
                topic: shard.topic,
                partition: shard.partition,
            });
        }
        Ok(entries)
    }

    /// The committed rows of one shard and table whose time is at or after `from`: what open windows are rebuilt from.
    ///
    /// Reads records from the newest back, only as far as one can hold such a row, and of those only files that do.
    /// Batches have the table's whole schema (without `date`), in the order the rows were committed, sorted within a
    /// commit. Empty where there is no such table. The rows of an expired file are gone.
    ///
    /// # Errors
    /// If records cannot be read; the stream's items, if a file cannot.
    pub async fn raw_rows(&self, topic: &str, partition: i32, table: &str, from: Micros) -> Result<RawRows, ReadError> {
        let shard = Shard { topic: topic.to_owned(), partition };
        let (Some(schema), Some(newest)) =
            (schema::load(self.store(), table).await?, record::newest(self.store(), &shard).await?)
        else {
            return Ok(futures::stream::empty().boxed());
        };
        let mut files = since(self.store(), &shard, newest.n, table, from).await?;
        let expired = expire::newest(self.store()).await?;
        files.retain(|live| !expired.contains(live));
        let place = Places::find(self.store()).await?;
        let mut found = Vec::with_capacity(files.len());
        for live in files {
            found.push((Path::from(place.of(self.store(), &live.file.path).await?), live));
        }
        let store = self.store().clone();
        let batches = futures::stream::iter(found).then(move |(path, live)| {
            let (store, schema) = (store.clone(), schema.clone());
            async move { read_file(&store, &path, &live, schema, from).await }
        });
        Ok(batches.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten().boxed())
    }
}

/// Every file named by a record and not expired, oldest first within its shard.
pub(crate) async fn live(store: &Store) -> Result<Vec<Live>, ReadError> {
    let mut live = Vec::new();
    for shard in record::shards(store).await? {
        for record in record::all(store, &shard).await? {
            live.extend(named(&shard, record));
        }
    }
    // After the records: a file that is deleted meanwhile is then known to be.
    let expired = expire::newest(store).await?;
    live.retain(|file| !expired.contains(file));
    Ok(live)
}

/// The files a record names.
pub(crate) fn named(shard: &Shard, record: record::Record) -> impl Iterator<Item = Live> {
    let (n, at) = (record.n, record.at);
    record.files.into_iter().map(move |file| {
        let date = layout::date_in(&file.path).unwrap_or_else(|| layout::date_of(file.min_ts));
        Live { shard: shard.clone(), n, at, date, file }
    })
}

/// The files of `table` in records up to `newest` that hold a time at or after `from`, oldest record first.
async fn since(store: &Store, shard: &Shard, newest: u64, table: &str, from: Micros) -> Result<Vec<Live>, ReadError> {
    let mut back =
        futures::stream::iter((1..=newest).rev().map(|n| record::read(store, shard, n))).buffered(RECORDS_AT_ONCE);
    let mut found = Vec::new();
    while let Some((record, _)) = back.try_next().await?.flatten() {
        if record.newest_ts.get(table).is_none_or(|at| *at < from) {
            break;
        }
        found.extend(named(shard, record).filter(|live| live.file.table == table && live.file.max_ts >= from));
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

    /// Where the file that its record calls `path` lies now.
    pub(crate) async fn of(&self, store: &Store, path: &str) -> Result<String, StoreError> {
        match self.0.get(path) {
            Some(waits) if store.size(&Path::from(path)).await?.is_none() => Ok(waits.to_string()),
            _ => Ok(path.to_owned()),
        }
    }
}

/// The bytes of a file that counted when it was found at `path`. It may have got its place since then; `None` if retention
/// has taken it out.
///
/// # Errors
/// If it is nowhere although it counts.
pub(crate) async fn read_live(store: &Store, path: &Path, live: &Live) -> Result<Option<Bytes>, ReadError> {
    for path in [Some(path), layout::place_of(path).as_ref()].into_iter().flatten() {
        if let Some(bytes) = store.read(path).await? {
            return Ok(Some(bytes));
        }
    }
    if expire::newest(store).await?.contains(live) {
        return Ok(None);
    }
    let reason = format!("record {} of {} names it and it is not there", live.n, live.shard);
    Err(Damaged { path: path.to_string(), reason }.into())
}

async fn read_file(
    store: &Store,
    path: &Path,
    live: &Live,
    schema: TableSchema,
    from: Micros,
) -> Result<Vec<RecordBatch>, ReadError> {
    let Some(bytes) = read_live(store, path, live).await? else { return Ok(Vec::new()) };
    if Checksum::of(&bytes) != live.file.checksum {
        return Err(Damaged { path: path.to_string(), reason: "its checksum is not its record's".to_owned() }.into());
    }
    let from = (live.file.min_ts < from).then_some(from);
    let decoded = tokio::task::spawn_blocking(move || decode(bytes, &schema, from)).await;
    let decoded = decoded.map_err(|error| error.to_string()).and_then(|decoded| decoded.map_err(|e| e.to_string()));
    decoded.map_err(|reason| ReadError::Decode { path: path.to_string(), reason })
}

/// Rows of one file in the table's schema; with `from`, only those at or after it.
fn decode(
    bytes: Bytes,
    schema: &TableSchema,
    from: Option<Micros>,
) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error + Send + Sync>> {
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(READ_BATCH);
    if let Some(from) = from {
        let mask = ProjectionMask::columns(reader.parquet_schema(), [schema.time_column.as_str()]);
        let least = Scalar::new(TimestampMicrosecondArray::from(vec![from]).with_timezone("UTC"));
        let is_since = move |rows: RecordBatch| -> Result<BooleanArray, arrow::error::ArrowError> {
            gt_eq(rows.column(0), &least)
        };
        reader = reader.with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, is_since))]));
    }
    let mut batches = Vec::new();
    for batch in reader.build()? {
        let columns = schema.conform(&batch?)?;
        batches.push(RecordBatch::try_new(schema.columns.clone(), columns)?);
    }
    Ok(batches)
}

impl Expired {
    /// Whether `live` has been taken out.
    pub(crate) fn contains(&self, live: &Live) -> bool {
        self.through(&live.file.table, live.date, &live.shard).is_some_and(|n| live.n <= n)
    }
}
