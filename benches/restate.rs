//! Restatement: every window of the stored fleet computed again from the raw rows of a lake on disk, and committed.

use std::sync::Arc;

use airan_lake::{Lake, LakeSettings, Request, RequestReason};
use airan_model::time::{Clock, SECOND};
use airan_processor::{Processor, restate_offline};
use anyhow::{Result, ensure};
use tokio_util::sync::CancellationToken;

use crate::bus::BenchBus;
use crate::fleet::{FLEET, SITES, START};
use crate::report::{Meter, Part};
use crate::settings;
use crate::stage::{fleet, messages, pipeline};

/// Rows read a CPU-second; windows of a site in `extra`.
pub async fn all_windows(seconds: usize) -> Result<Part> {
    let (catalog, fleet) = fleet()?;
    let folder = tempfile::tempdir()?;
    let settings = LakeSettings {
        path: folder.path().display().to_string(),
        raw_retention: "3650d".parse()?,
        window_retention: "3650d".parse()?,
        ..settings::defaults()?.lake
    };
    let lake = Lake::open(&settings, Clock::system()).await?;
    let pipelines = vec![pipeline(&catalog, "10 seconds").await?];
    let processor = settings::defaults()?.processor;
    store(&lake, &catalog, &fleet, &pipelines, seconds).await?;

    let end = START + seconds as i64 * SECOND;
    let request = Request::new(RequestReason::Backfill, START, end, 0);
    let meter = Meter::start();
    let report = restate_offline(&lake, &processor, &catalog, pipelines, "bench", &request).await?;
    let mut part = meter.stop(report.rows);
    ensure!(report.windows >= ((seconds / 10).saturating_sub(3) * SITES) as u64, "{report:?}");
    ensure!(report.rows >= ((seconds.saturating_sub(30)) * FLEET) as u64, "{report:?}");
    part.extra.insert("windows of a site a CPU-second".to_owned(), report.windows as f64 / part.cpu.max(1e-9));
    part.extra.insert("windows of a site a second".to_owned(), report.windows as f64 / part.wall.max(1e-9));
    part.extra.insert("commits".to_owned(), report.commits as f64);
    Ok(part)
}

/// Lets a processor store the fleet's rows.
async fn store(
    lake: &Lake,
    catalog: &Arc<airan_model::catalog::Catalog>,
    fleet: &crate::fleet::Fleet,
    pipelines: &[airan_processor::Pipeline],
    seconds: usize,
) -> Result<()> {
    let messages = messages(fleet, seconds);
    let last = messages.len() as i64;
    let bus = BenchBus::of(messages);
    let settings = settings::defaults()?.processor;
    let (shared, stop) = (Arc::new(bus.clone()), CancellationToken::new());
    let clock = Clock::system();
    let processor = Processor::new(settings, shared, lake.clone(), Arc::clone(catalog), pipelines.to_vec(), clock)?;
    let registry = prometheus::Registry::new();
    processor.metrics().register(&registry)?;
    let run = tokio::spawn(processor.run(stop.clone()));
    let applied = || crate::stage::values(&registry, "airan_processor_next_offset").values().sum::<f64>();
    while applied() < last as f64 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stop.cancel();
    run.await??;
    ensure!(bus.committed() == last, "committed {} of {last}", bus.committed());
    Ok(())
}
