//! The stage: each of its parts alone, as plainly as the libraries allow, and the whole with everything that is its duty.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_lake::{Lake, LakeSettings};
use airan_model::catalog::Catalog;
use airan_model::message::Rows;
use airan_model::time::Clock;
use airan_processor::{Pipeline, Processor};
use airan_window::PipelinePlan;
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::bus::BenchBus;
use crate::fleet::{FLEET, Fleet, GAUGES};
use crate::report::{Meter, Part};
use crate::settings;

/// Rows in a Parquet file of the plain encoder: about what one commit of 64 MiB holds.
const FILE_ROWS: usize = 300_000;

/// The catalog and the fleet of its accelerator stream.
pub fn fleet() -> Result<(Arc<Catalog>, Fleet)> {
    let catalog = Arc::new(Catalog::builtin()?);
    let fleet = Fleet::new(catalog.stream("accelerator").context("stream accelerator")?);
    Ok((catalog, fleet))
}

/// The fleet's rows as bus messages, one a second.
pub fn messages(fleet: &Fleet, seconds: usize) -> Vec<Rows> {
    (0..seconds).map(|second| fleet.message(second)).collect()
}

fn batches(fleet: &Fleet, seconds: usize) -> Vec<RecordBatch> {
    (0..seconds).map(|second| fleet.instant(second)).collect()
}

/// Aggregates of every gauge, over windows that `window` cuts.
fn query(window: &str, counter: &str) -> String {
    let averages: Vec<String> = GAUGES.iter().map(|name| format!("avg({name}) AS {name}_avg")).collect();
    format!(
        "SELECT {window} AS window_start, region, site, node, device, {}, max(utilization) AS utilization_max, \
         sum({counter}) AS energy FROM accelerator GROUP BY {window}, region, site, node, device",
        averages.join(", ")
    )
}

/// Arrow IPC with LZ4 to rows.
pub fn decode(seconds: usize) -> Result<Part> {
    let messages = messages(&fleet()?.1, seconds);
    let meter = Meter::start();
    let mut rows = 0;
    for message in &messages {
        rows += message.decode()?.num_rows() as u64;
    }
    Ok(meter.stop(rows))
}

/// One GROUP BY of DataFusion over all rows in memory.
pub async fn group_by(seconds: usize) -> Result<Part> {
    let batches = batches(&fleet()?.1, seconds);
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(batches[0].schema(), vec![batches])?;
    context.register_table("accelerator", Arc::new(table))?;
    let sql = query("date_bin(INTERVAL '10 seconds', ts)", "energy_joules");
    let meter = Meter::start();
    let groups: usize = context.sql(&sql).await?.collect().await?.iter().map(RecordBatch::num_rows).sum();
    ensure!(groups == seconds.div_ceil(10) * FLEET, "{groups} groups");
    Ok(meter.stop((seconds * FLEET) as u64))
}

/// Parquet with zstd(1), as the plain writer does it: rows as they come, its own defaults.
pub fn parquet(seconds: usize) -> Result<Part> {
    let batches = batches(&fleet()?.1, seconds);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let meter = Meter::start();
    let mut bytes = 0;
    for file in batches.chunks(FILE_ROWS / FLEET) {
        let mut writer = ArrowWriter::try_new(Vec::new(), file[0].schema(), Some(properties.clone()))?;
        for batch in file {
            writer.write(batch)?;
        }
        bytes += writer.into_inner()?.len();
    }
    ensure!(bytes > 0, "nothing written");
    Ok(meter.stop((seconds * FLEET) as u64))
}

/// A processor from bus messages to a lake on disk: duplicates and rises on, raw rows and windows in Parquet, commits and fsync.
pub async fn whole(seconds: usize) -> Result<Part> {
    let (catalog, fleet) = fleet()?;
    let messages = messages(&fleet, seconds);
    let last = messages.len() as i64;
    let bus = BenchBus::of(messages);
    let folder = tempfile::tempdir()?;
    let lake = Lake::open(&lake_settings(folder.path())?, Clock::system()).await?;
    let pipeline = pipeline(&catalog, "10 seconds").await?;
    let defaults = settings::defaults()?;
    let (shared, stop) = (Arc::new(bus.clone()), CancellationToken::new());
    let processor = Processor::new(defaults.processor, shared, lake.clone(), catalog, vec![pipeline], Clock::system())?;
    let registry = prometheus::Registry::new();
    processor.metrics().register(&registry)?;
    let meter = Meter::start();
    let run = tokio::spawn(processor.run(stop.clone()));
    while values(&registry, "airan_processor_next_offset").values().sum::<f64>() < last as f64 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let steps = values(&registry, "airan_processor_step_seconds_total");
    stop.cancel();
    run.await??;
    ensure!(bus.committed() == last, "committed {} of {last}", bus.committed());
    let mut part = meter.stop((seconds * FLEET) as u64);
    let stored: u64 = lake.files("accelerator").await?.iter().map(|file| file.rows).sum();
    ensure!(stored == part.count, "{stored} rows stored");
    let windows: u64 = lake.files("bench").await?.iter().map(|file| file.rows).sum();
    ensure!(windows >= ((seconds / 10).saturating_sub(3) * FLEET) as u64, "{windows} window rows");
    part.extra = steps;
    Ok(part)
}

/// The series of a family by their last label's value.
pub fn values(registry: &Registry, name: &str) -> BTreeMap<String, f64> {
    let families = registry.gather();
    let family = families.iter().filter(|family| family.name() == name);
    let series = family.flat_map(|family| family.get_metric());
    series
        .map(|series| {
            let label = series.get_label().last().map_or_else(String::new, |label| label.value().to_owned());
            let value = series.get_counter().get_value() + series.get_gauge().get_value();
            (label, value)
        })
        .collect()
}

/// A lake that keeps everything for ten years.
pub fn lake_settings(folder: &std::path::Path) -> Result<LakeSettings> {
    Ok(LakeSettings {
        path: folder.display().to_string(),
        options: Default::default(),
        raw_retention: "3650d".parse()?,
        window_retention: "3650d".parse()?,
        max_bytes: None,
        checkpoint_interval: 100,
        compaction: airan_lake::CompactionSettings {
            on: true,
            every: "10m".parse()?,
            target_bytes: "256MiB".parse()?,
            min_files: 8,
        },
    })
}

/// The benchmark's pipeline, with windows of that width.
pub async fn pipeline(catalog: &Catalog, window: &str) -> Result<Pipeline> {
    let sql = query(&format!("tumble(ts, INTERVAL '{window}')"), "energy_joules_increase");
    let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
    let plan = PipelinePlan::new("bench", &sql, &schema_of).await?;
    let text = "name: bench\ndescription: a benchmark\nlateness: 10s\ntable: bench\nstaleness_windows: 3\n\
                series_budget: 10000\nmetrics: []\n";
    Ok(Pipeline { spec: airan_window::pipeline::parse(text)?, plan })
}
