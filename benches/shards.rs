//! The shard's protocol: what commits cost by their interval, what a restart costs by the rows of open windows, and what a second
//! shard on a second core brings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use airan_lake::Lake;
use airan_model::time::Clock;
use airan_processor::{Processor, ProcessorMetrics};
use anyhow::{Context, Result, ensure};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::BenchBus;
use crate::fleet::FLEET;
use crate::report::{Meter, Part};
use crate::settings;
use crate::stage;

/// A window longer than any run: all of its rows are in it.
const LONG: &str = "1 day";
/// The stage's own.
const SHORT: &str = "10 seconds";

/// A processor at work on a bus.
struct Work {
    bus: BenchBus,
    lake: Lake,
    metrics: Arc<ProcessorMetrics>,
    stop: CancellationToken,
    run: JoinHandle<Result<(), airan_processor::ProcessorError>>,
}

impl Work {
    async fn start(
        bus: BenchBus,
        lake: Lake,
        window: &str,
        threads: usize,
        interval: Option<Duration>,
    ) -> Result<Work> {
        let (catalog, _) = stage::fleet()?;
        let mut settings = settings::defaults()?.processor;
        settings.threads = threads;
        if let Some(interval) = interval {
            settings.commit.interval = interval.into();
            // Only time decides when a commit is due.
            settings.commit.bytes = "1TiB".parse()?;
        }
        let pipeline = stage::pipeline(&catalog, window).await?;
        let shared = Arc::new(bus.clone());
        let clock = Clock::system();
        let processor = Processor::new(settings, shared, lake.clone(), catalog, vec![pipeline], clock)?;
        let (metrics, stop) = (processor.metrics(), CancellationToken::new());
        let run = tokio::spawn(processor.run(stop.clone()));
        Ok(Work { bus, lake, metrics, stop, run })
    }

    /// Every message is applied; then the last commit. Returns when the former was so.
    async fn finish(self, messages: usize, partitions: usize) -> Result<Lake> {
        let registry = prometheus::Registry::new();
        self.metrics.register(&registry)?;
        let all = (messages * partitions) as f64;
        while stage::values(&registry, "airan_processor_next_offset").values().sum::<f64>() < all {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.cancel();
        self.run.await??;
        ensure!(self.bus.committed() == messages as i64, "committed {} of {messages}", self.bus.committed());
        Ok(self.lake)
    }
}

async fn lake(folder: &tempfile::TempDir) -> Result<Lake> {
    Ok(Lake::open(&stage::lake_settings(folder.path())?, Clock::system()).await?)
}

/// How long rows come while commits are measured: two of the longest intervals, and some.
const COMMITS_OVER: Duration = Duration::from_secs(130);

/// The whole stage with a commit each `interval` seconds, while rows come as fast as their number asks for within
/// [`COMMITS_OVER`]. `extra`: commits and their files.
pub async fn commits(seconds: usize, interval: u64) -> Result<Part> {
    let messages = stage::messages(&stage::fleet()?.1, seconds);
    let folder = tempfile::tempdir()?;
    let bus = BenchBus::over(messages, COMMITS_OVER);
    let lake = lake(&folder).await?;
    let meter = Meter::start();
    let work = Work::start(bus, lake, SHORT, 1, Some(Duration::from_secs(interval))).await?;
    let lake = work.finish(seconds, 1).await?;
    let mut part = meter.stop((seconds * FLEET) as u64);
    let files = lake.files("accelerator").await?;
    part.extra.insert("raw files".to_owned(), files.len() as f64);
    part.extra.insert("MiB".to_owned(), files.iter().map(|file| file.bytes).sum::<u64>() as f64 / f64::from(1 << 20));
    Ok(part)
}

/// A restart that has to rebuild one open window from all rows: from the start of the process's work to the first message it
/// could take. Beside it the same files merely decoded.
pub async fn recovery(seconds: usize) -> Result<Part> {
    let messages = stage::messages(&stage::fleet()?.1, seconds);
    let folder = tempfile::tempdir()?;
    let bus = BenchBus::of(messages);
    Work::start(bus.clone(), lake(&folder).await?, LONG, 1, None).await?.finish(seconds, 1).await?;

    let start = Instant::now();
    let mut read = 0;
    let plain = lake(&folder).await?;
    for file in plain.files("accelerator").await? {
        let path = folder.path().join(&file.path);
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(16_384).build()? {
            read += batch?.num_rows();
        }
    }
    let plain = start.elapsed().as_secs_f64();
    ensure!(read == seconds * FLEET, "{read} rows read");

    let meter = Meter::start();
    let work = Work::start(bus, lake(&folder).await?, LONG, 1, None).await?;
    let registry = prometheus::Registry::new();
    work.metrics.register(&registry)?;
    let is_ready = || stage::values(&registry, "airan_processor_next_offset").values().sum::<f64>() >= seconds as f64;
    while !is_ready() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut part = meter.stop((seconds * FLEET) as u64);
    let rebuilt = stage::values(&registry, "airan_processor_rebuilt_rows_total").values().sum::<f64>();
    ensure!(rebuilt as usize == seconds * FLEET, "{rebuilt} rows rebuilt");
    work.stop.cancel();
    work.run.await??;
    part.extra = BTreeMap::from([("plain read, s".to_owned(), plain)]);
    Ok(part)
}

/// So many shards, each with a thread and all the rows.
pub async fn shards(seconds: usize, shards: usize) -> Result<Part> {
    let messages = stage::messages(&stage::fleet()?.1, seconds);
    let folder = tempfile::tempdir()?;
    let bus = BenchBus::of_partitions(messages, shards);
    let lake = lake(&folder).await?;
    let meter = Meter::start();
    Work::start(bus, lake, SHORT, shards, None).await?.finish(seconds, shards).await?;
    Ok(meter.stop((seconds * FLEET * shards) as u64))
}
