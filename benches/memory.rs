//! Memory of an open window: it grows with groups, not with rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_window::PipelinePlan;
use anyhow::{Context, Result};

use crate::fleet::FLEET;
use crate::report::{Meter, Part};
use crate::stage;

/// Far above what is measured.
const LIMIT: usize = 1 << 40;

/// State of one window of a day, after a tenth of the rows, after all of them, and with half the groups.
pub async fn open_window(seconds: usize) -> Result<Part> {
    let (catalog, fleet) = stage::fleet()?;
    let stream = Arc::clone(catalog.stream("accelerator").context("stream accelerator")?);
    let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
    let sql = |by: &str| {
        format!(
            "SELECT tumble(ts, INTERVAL '1 hour') AS window_start, site, node, {by}, avg(utilization) AS u, max(power_watts) AS p, \
             approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY temperature_celsius) AS t FROM accelerator \
             GROUP BY tumble(ts, INTERVAL '1 hour'), site, node, {by}"
        )
    };
    let by_device = PipelinePlan::new("memory", &sql("device"), &schema_of).await?;
    let by_node = PipelinePlan::new("memory", &sql("region"), &schema_of).await?;
    let (mut devices, mut nodes) = (by_device.open(LIMIT), by_node.open(LIMIT));
    let meter = Meter::start();
    let mut extra = BTreeMap::new();
    for second in 0..seconds {
        let rows = stream.conform(&fleet.instant(second))?;
        devices.push(&by_device.streams()[0], &rows).await?;
        nodes.push(&by_node.streams()[0], &rows).await?;
        if [seconds / 10, seconds].contains(&(second + 1)) {
            let rows = (second + 1) * FLEET;
            extra.insert(format!("{FLEET} groups, {rows:>8} rows"), devices.state_bytes() as f64);
            extra.insert(format!(" {} groups, {rows:>8} rows", FLEET / 8), nodes.state_bytes() as f64);
        }
    }
    let mut part = meter.stop((seconds * FLEET) as u64);
    part.extra = extra;
    Ok(part)
}
