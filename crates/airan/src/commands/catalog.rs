//! `airan catalog`: what the streams are, and what maps to them.

use std::collections::BTreeMap;
use std::io::Write;

use airan_model::catalog::{Catalog, Stream};
use anyhow::{Result, bail};

use crate::cli::{Printed, Settings};
use crate::output::{Format, Listing};
use crate::{config, wiring};

/// Arguments of `airan catalog`.
#[derive(Debug, clap::Args)]
pub struct CatalogArgs {
    /// A stream; without it all are listed
    stream: Option<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    printed: Printed,
}

/// Runs it.
pub fn run(args: &CatalogArgs) -> Result<()> {
    let catalog = wiring::load_catalog(&args.settings.load()?.config)?;
    let mut out = std::io::stdout().lock();
    match &args.stream {
        None => streams(&catalog).print(&mut out, args.printed.format),
        Some(name) => {
            let Some(stream) = catalog.stream(name) else {
                let known: Vec<&str> = catalog.streams().map(|stream| &*stream.name).collect();
                bail!("{}", config::unknown("stream", name, &known));
            };
            if args.printed.format == Format::Table {
                writeln!(out, "{}: {}\n", stream.name, stream.meaning)?;
            }
            columns(&catalog, stream).print(&mut out, args.printed.format)
        }
    }
}

fn streams(catalog: &Catalog) -> Listing {
    let mut listing = Listing::new(&["stream", "entity", "columns", "period", "meaning"]);
    for stream in catalog.streams() {
        let entity: Vec<&str> = stream.entity.iter().map(|column| column.name.as_str()).collect();
        let period = airan_model::settings::DurationSetting::from(stream.period);
        listing.add([
            stream.name.to_string(),
            entity.join(", "),
            stream.columns.len().to_string(),
            period.to_string(),
            stream.meaning.clone(),
        ]);
    }
    listing
}

fn columns(catalog: &Catalog, stream: &Stream) -> Listing {
    let mut foreign: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for metric in catalog.metrics() {
        for target in metric.targets.iter().filter(|target| target.stream.name == stream.name) {
            let when: Vec<String> = target.when.iter().map(|(label, value)| format!("{label}={value}")).collect();
            let when = if when.is_empty() { String::new() } else { format!("{{{}}}", when.join(",")) };
            let scale = if target.scale == 1.0 { String::new() } else { format!(" × {}", target.scale) };
            let name = format!("{}{when}{scale}", metric.name);
            let names = foreign.entry(target.column).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut listing = Listing::new(&["column", "kind", "type", "unit", "meaning", "from"]);
    for column in &stream.entity {
        let from = entity_labels(catalog, stream, &column.name);
        let word = |text: &str| text.to_owned();
        listing.add([column.name.clone(), word("entity"), word("text"), word("none"), column.meaning.clone(), from]);
    }
    for (index, column) in stream.columns.iter().enumerate() {
        listing.add([
            column.name.clone(),
            column.kind.as_str().to_owned(),
            column.ty.as_str().to_owned(),
            column.unit.to_string(),
            column.meaning.clone(),
            foreign.remove(&index).unwrap_or_default().join(", "),
        ]);
    }
    listing
}

/// The labels that fill an entity column.
fn entity_labels(catalog: &Catalog, stream: &Stream, column: &str) -> String {
    let mut labels = Vec::new();
    let sources = catalog.sources().flat_map(|source| &source.entity);
    for entity in sources.filter(|of| of.stream == stream.name && stream.entity_index(column) == Some(of.column)) {
        labels.extend(entity.labels.iter().filter(|label| !labels.contains(label)).collect::<Vec<_>>());
    }
    labels.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
