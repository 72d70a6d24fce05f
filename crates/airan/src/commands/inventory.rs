//! `airan inventory missing`: nodes that send rows and that no inventory places.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use airan_model::inventory::{Inventory, UNASSIGNED};
use airan_model::schema::{NODE, SITE, TS};
use anyhow::{Context, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::query::{select, tables};
use crate::admin::Missing;
use crate::cli::{Printed, Settings};
use crate::config::Config;
use crate::output::{Format, Listing};

/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Subcommands of `airan inventory`.
#[derive(Debug, clap::Subcommand)]
pub enum InventoryCommand {
    /// Lists the nodes that send rows and have no site: asks the running gateway, or else the lake
    Missing {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        printed: Printed,
    },
}

/// Runs one.
pub async fn run(command: InventoryCommand) -> Result<()> {
    let InventoryCommand::Missing { settings, printed } = command;
    let config = settings.load()?.config;
    let (from, missing) = match ask_gateway(&config).await {
        Some(missing) => ("the gateway, since its start", missing),
        None => ("the lake; no gateway answers at admin.listen", ask_lake(&config).await?),
    };
    let mut listing = Listing::new(&["node", "rows", "last_seen"]);
    for node in missing {
        listing.add([node.node, node.rows.to_string(), node.last_seen]);
    }
    let mut out = std::io::stdout().lock();
    if printed.format == Format::Table && listing.is_empty() {
        return Ok(writeln!(out, "every node has a site (asked: {from})")?);
    }
    listing.print(&mut out, printed.format)?;
    eprintln!("asked: {from}");
    Ok(())
}

async fn ask_gateway(config: &Config) -> Option<Vec<Missing>> {
    let url = format!("http://{}/inventory/missing", config.admin.listen);
    let client = reqwest::Client::builder().timeout(PATIENCE).build().ok()?;
    let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

async fn ask_lake(config: &Config) -> Result<Vec<Missing>> {
    let context = tables(config).await?;
    let catalog = crate::wiring::load_catalog(config)?;
    let inventory = crate::inventory::load(config)?;
    let mut nodes: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for stream in catalog.streams() {
        let sql = format!(
            "SELECT {NODE}, count(*) AS rows, arrow_cast(max({TS}), 'Int64') AS last FROM {} WHERE {SITE} = '{UNASSIGNED}' GROUP BY {NODE}",
            stream.name
        );
        let (_, batches) = select(&context, &sql).await.with_context(|| format!("table {}", stream.name))?;
        for batch in &batches {
            add(&mut nodes, batch);
        }
    }
    Ok(still_missing(nodes, &inventory))
}

/// The nodes that the inventory does not place now, most rows first. Their old rows stay without a site.
fn still_missing(nodes: BTreeMap<String, (u64, String)>, inventory: &Inventory) -> Vec<Missing> {
    let unplaced = nodes.into_iter().filter(|(node, _)| inventory.place(node).is_none());
    let mut missing: Vec<Missing> =
        unplaced.map(|(node, (rows, last_seen))| Missing { node, rows, last_seen }).collect();
    missing.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.node.cmp(&b.node)));
    missing
}

fn add(nodes: &mut BTreeMap<String, (u64, String)>, batch: &RecordBatch) {
    let text = arrow::util::display::array_value_to_string;
    let (Some(counts), Some(lasts)) =
        (batch.column(1).as_primitive_opt::<Int64Type>(), batch.column(2).as_primitive_opt::<Int64Type>())
    else {
        return;
    };
    for row in 0..batch.num_rows() {
        let name = text(batch.column(0), row).unwrap_or_default();
        let entry = nodes.entry(name).or_default();
        entry.0 += u64::try_from(counts.value(row)).unwrap_or_default();
        entry.1 = airan_model::time::format_rfc3339(lasts.value(row)).max(std::mem::take(&mut entry.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the lake holds rows without a site of two nodes, of which one has been placed since.
    /// Guarantees: only the other is listed.
    #[test]
    fn a_node_that_has_been_placed_since_is_not_missing() {
        let rows = |rows| (rows, "2026-11-24T10:00:00Z".to_owned());
        let nodes = BTreeMap::from([("a".to_owned(), rows(3)), ("b".to_owned(), rows(1)), ("c".to_owned(), rows(2))]);
        let inventory = Inventory::single("a", "north", "site-a", "eu");
        let missing = still_missing(nodes, &inventory);
        assert_eq!(missing.iter().map(|of| (of.node.as_str(), of.rows)).collect::<Vec<_>>(), [("c", 2), ("b", 1)]);
    }
}
