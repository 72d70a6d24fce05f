//! Compaction of a lake, and beside it a plain reading and writing of the same files.

use airan_lake::{Commit, FileEntry, Lake, LakeSettings, TableKind, TableRows};
use airan_model::time::Clock;
use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::fleet::FLEET;
use crate::report::{Meter, Part};
use crate::{settings, stage};

/// Files that are merged: an hour of commits a minute.
const FILES: usize = 60;

/// A lake with the fleet's rows in [`FILES`] published files.
async fn lake(seconds: usize) -> Result<(tempfile::TempDir, Lake, Vec<FileEntry>)> {
    let (_, fleet) = stage::fleet()?;
    let folder = tempfile::tempdir()?;
    let settings = LakeSettings { path: folder.path().display().to_string(), ..settings::defaults()?.lake };
    let lake = Lake::open(&settings, Clock::system()).await?;
    let (mut writer, _) = lake.claim("bench", 0, 1).await?;
    let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let each = seconds.div_ceil(FILES);
    for (at, from) in (1i64..).zip((0..seconds).step_by(each)) {
        let batches: Vec<RecordBatch> =
            (from..(from + each).min(seconds)).map(|second| fleet.instant(second)).collect();
        let rows = TableRows {
            table: "accelerator".to_owned(),
            kind: TableKind::Raw,
            batches,
            sort_by: columns(&["site", "node", "device"]),
            time_column: "ts",
            bloom: columns(&["site", "node", "device"]),
        };
        let commit = Commit { next_offset: at, tables: vec![rows], state: Default::default(), needed_from: None };
        writer.commit(&commit).await?;
    }
    lake.publish(Clock::system().now()).await?;
    let files = lake.files("accelerator").await?;
    Ok((folder, lake, files))
}

fn with_bytes(mut part: Part, files: &[FileEntry]) -> Part {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    part.extra.insert("MiB in".to_owned(), bytes as f64 / f64::from(1 << 20));
    part
}

/// The merge, with its Delta commit, on a local disk.
pub async fn compact(seconds: usize) -> Result<Part> {
    let (_folder, lake, files) = lake(seconds).await?;
    let meter = Meter::start();
    let report = lake.compact(None, Clock::system().now(), |_| {}).await?;
    let part = meter.stop(report.rows_in);
    ensure!(report.failures.is_empty() && report.rows_out == (seconds * FLEET) as u64, "{report:?}");
    ensure!(lake.files("accelerator").await?.len() < files.len(), "{report:?}");
    Ok(with_bytes(part, &files))
}

/// Every file read and its rows written again as they come, with zstd(1) and the plain writer's own defaults, in memory.
pub async fn copy(seconds: usize) -> Result<Part> {
    let (folder, _lake, files) = lake(seconds).await?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let meter = Meter::start();
    let mut rows = 0;
    let mut writer: Option<ArrowWriter<Vec<u8>>> = None;
    for file in &files {
        let opened = std::fs::File::open(folder.path().join(&file.path))?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(opened)?.with_batch_size(8_192).build()? {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if writer.is_none() {
                writer = Some(ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.clone()))?);
            }
            if let Some(writer) = &mut writer {
                writer.write(&batch)?;
            }
        }
    }
    let written = writer.map(ArrowWriter::into_inner).transpose()?;
    ensure!(written.is_some_and(|bytes| !bytes.is_empty()), "nothing written");
    Ok(with_bytes(meter.stop(rows), &files))
}
