use std::collections::{BTreeMap, BTreeSet};

use airan_model::catalog::{Catalog, Kind};
use airan_model::time::{Clock, MINUTE};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;

use super::*;
use crate::metrics::AgentMetrics;
use crate::queue::{Portion, Queue};

const START: Micros = 1_795_514_400_000_000;
const DAY: Micros = 10 * MINUTE;

/// The lines of a day, second by second.
fn day(seed: u64) -> Vec<Vec<Line>> {
    let mut site = Site::new(seed, DAY, START, START);
    (0..DAY / SECOND).map(|second| site.step(START + second * SECOND)).collect()
}

fn text(day: Vec<Vec<Line>>) -> String {
    day.into_iter().flatten().map(Line::text).collect()
}

fn decoded(lines: &str) -> Vec<airan_decode::DecodedRows> {
    let catalog = Catalog::builtin().unwrap();
    let limits = Limits { samples_per_scrape: usize::MAX, ..Limits::DOCUMENTED };
    let context = Context { catalog: &catalog, limits: &limits, default_node: "nobody", now: START };
    let decoded = ndjson::decode(lines.as_bytes(), &context).unwrap();
    assert_eq!(decoded.refused, []);
    decoded.rows
}

#[test]
fn a_seed_and_a_time_say_everything() {
    let day = |seed| text(self::day(seed));
    assert!(day(1) == day(1), "the same seed says the same");
    assert!(day(1) != day(2), "another says something else");
}

/// Scenario: a whole day through the decoder of NDJSON.
/// Guarantees: every line is taken; every stream of the catalog has rows, and only nodes of the inventory have; no counter and no
/// bucket ever falls; every share is a share.
#[test]
fn a_day_is_what_a_site_could_send() {
    let catalog = Catalog::builtin().unwrap();
    let inventory = airan_model::inventory::Inventory::parse("demo", INVENTORY).unwrap();
    let rows = decoded(&text(day(1)));
    let streams: BTreeSet<&str> = rows.iter().map(|rows| &*rows.stream.name).collect();
    assert_eq!(streams, catalog.streams().map(|stream| &*stream.name).collect::<BTreeSet<_>>());
    for rows in &rows {
        let (stream, rows) = (&rows.stream, &rows.rows);
        let nodes = rows.column_by_name("node").unwrap().as_string::<i32>();
        assert!(nodes.iter().flatten().all(|node| inventory.place(node).is_some()));
        let names = |row: usize| {
            let entity = stream.entity.iter().filter_map(|entity| rows.column_by_name(&entity.name));
            let texts = entity.map(|column| column.as_string::<i32>());
            let texts = texts.map(|column| column.is_valid(row).then(|| column.value(row).to_owned()));
            (nodes.value(row).to_owned(), texts.collect::<Vec<_>>())
        };
        for column in &stream.columns {
            let Some(values) = rows.column_by_name(&column.name) else { continue };
            let Some(values) = values.as_primitive_opt::<Float64Type>() else { continue };
            let mut before = BTreeMap::new();
            for row in (0..rows.num_rows()).filter(|row| values.is_valid(*row)) {
                let value = values.value(row);
                assert!(value >= 0.0 || &*column.name == "offset_seconds", "{} is {value}", column.name);
                if column.unit.to_string() == "ratio" {
                    assert!(value <= 1.0, "{} is {value}", column.name);
                }
                if column.kind == Kind::Counter {
                    let last = before.insert(names(row), value).unwrap_or(0.0);
                    assert!(value >= last, "{} fell from {last} to {value}", column.name);
                }
            }
        }
    }
}

/// Scenario: the uplink of a server is away for a tenth of the day.
/// Guarantees: nothing of it is queued meanwhile; afterwards everything is, once, in the numbers its agent would have given.
#[test]
fn a_silent_node_comes_back_with_its_backlog() {
    let metrics = Arc::new(AgentMetrics::new().unwrap());
    let limit = Portion { rows: usize::MAX, bytes: usize::MAX };
    let shared = Arc::new(Shared {
        node: "nobody".to_owned(),
        catalog: Arc::new(Catalog::builtin().unwrap()),
        clock: Clock::fixed(START),
        queue: Arc::new(Queue::new(limit, Arc::clone(&metrics))),
        metrics,
        stamp: Stamp::new(BatchId(1)),
        accelerators_scraped: Default::default(),
    });
    let mut outlet = Outlet::new(Arc::clone(&shared));
    let mut site = Site::new(1, DAY, START, START);
    let (mut made, mut held) = (0, 0);
    for second in 0..DAY / SECOND {
        let at = START + second * SECOND;
        let lines = site.step(at);
        let silent = |node: &str| site.is_silent(node, at);
        made += lines.len();
        held = if silent(site::SERVERS[1]) {
            held + lines.iter().filter(|line| line.node == site::SERVERS[1]).count()
        } else {
            0
        };
        outlet.take(lines, silent);
        assert_eq!(shared.queue.rows() + held, made, "after {second} s");
    }
    assert_eq!(shared.queue.rows(), made, "the day ends with nothing held");
    let mut seen: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    while let Some(lease) = shared.queue.lease(limit) {
        let rows = lease.first(lease.len());
        let (batch, seq) = (rows.rows.column_by_name("batch").unwrap(), rows.rows.column_by_name("seq").unwrap());
        let sources = rows.rows.column_by_name("source").unwrap().as_string::<i32>().clone();
        assert!(sources.iter().all(|source| source == Some("demo")));
        for row in 0..rows.rows.num_rows() {
            let key = (batch.as_string::<i32>().value(row).to_owned(), rows.stream.name.to_string());
            seen.entry(key).or_default().push(seq.as_primitive::<arrow::datatypes::Int64Type>().value(row));
        }
    }
    for (of, mut numbers) in seen {
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..numbers.len() as i64), "{of:?} has gaps or twins");
    }
}
