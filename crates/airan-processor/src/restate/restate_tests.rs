use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use airan_bus::Received;
use airan_lake::{Request, RequestReason};
use airan_model::catalog::Catalog;
use airan_model::identity::partition_of;
use airan_model::time::{DAY, Micros, SECOND, format_rfc3339, parse_rfc3339};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::golden::{Row, compare, to_rows};
use crate::golden_input::read_messages;
use crate::replay::{Cuts, Replayed, replay_asked};
use crate::setup::Pipeline;
use crate::testing::{self, T0, joined, meters};

/// Cases of a property: `AIRAN_CASES`, else a number that fits a run of all tests.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("AIRAN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A row with its time and how long it is on its way.
#[derive(Clone, Debug)]
struct Sent {
    ts: Micros,
    delay: Micros,
    row: Row,
}

/// Messages of these rows in the order in which they arrive, then ticks until every window has closed.
fn arriving(catalog: &Catalog, sent: &[Sent]) -> Vec<Received> {
    let mut order: Vec<&Sent> = sent.iter().collect();
    order.sort_by_key(|sent| sent.ts + sent.delay);
    let mut text = String::new();
    for sent in &order {
        let mut row = sent.row.clone();
        row.insert("append_time".to_owned(), format_rfc3339(sent.ts + sent.delay + SECOND).into());
        text.push_str(&format!("{}\n", Value::Object(row)));
    }
    let end = order.last().map_or(T0, |sent| sent.ts + sent.delay);
    for after in [200 * SECOND, 400 * SECOND, DAY] {
        text.push_str(&format!("{{\"tick\": \"{}\"}}\n", format_rfc3339(end + after)));
    }
    read_messages(&text, catalog).unwrap()
}

/// The newest revision of each window and site. Revisions are counted from 0 without gaps, and each is there once.
fn latest(replayed: &[Replayed]) -> BTreeMap<(String, i64, String), Vec<Row>> {
    let mut all: BTreeMap<(String, i64, String), BTreeMap<i64, Vec<Row>>> = BTreeMap::new();
    for window in replayed.iter().flat_map(|replayed| replayed.windows.iter().chain(&replayed.restated)) {
        let mut by_site: BTreeMap<(String, i64), Vec<Row>> = BTreeMap::new();
        for mut row in to_rows(&window.rows).unwrap() {
            let site = row["site"].as_str().unwrap().to_owned();
            let revision = row.remove("revision").unwrap().as_i64().unwrap();
            // A row that stands for no group at all.
            let is_emptied = row.get("emptied").is_some_and(|emptied| *emptied == Value::Bool(true));
            let of_revision = by_site.entry((site, revision)).or_default();
            of_revision.extend((!is_emptied).then_some(row));
        }
        for ((site, revision), rows) in by_site {
            let revisions = all.entry((window.pipeline.clone(), window.start, site)).or_default();
            assert_eq!(revision, revisions.len() as i64, "{} {} {revisions:?}", window.pipeline, window.start - T0);
            revisions.insert(revision, rows);
        }
    }
    all.into_iter().map(|(key, mut revisions)| (key, revisions.pop_last().unwrap().1)).collect()
}

/// What differs between the newest windows of two runs.
fn differences(pipelines: &[Pipeline], wanted: &[Replayed], found: &[Replayed]) -> Vec<String> {
    let (wanted, found) = (latest(wanted), latest(found));
    let mut differences = Vec::new();
    for pipeline in pipelines {
        let name = &pipeline.spec.name;
        let rows = |all: &BTreeMap<(String, i64, String), Vec<Row>>| -> Vec<Row> {
            all.iter().filter(|(key, _)| key.0 == *name).flat_map(|(_, rows)| rows.clone()).collect()
        };
        let of = compare(&rows(&wanted), &rows(&found), &pipeline.plan.group_columns());
        differences.extend(of.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    differences
}

async fn run(catalog: &Catalog, pipelines: &[Pipeline], sent: &[Sent], cuts: &Cuts, asked: &[Request]) -> Replayed {
    run_within((20_000, 2_000_000), catalog, pipelines, sent, cuts, asked).await
}

/// With so many windows and rows between two commits.
async fn run_within(
    budget: (u64, u64),
    catalog: &Catalog,
    pipelines: &[Pipeline],
    sent: &[Sent],
    cuts: &Cuts,
    asked: &[Request],
) -> Replayed {
    let messages = arriving(catalog, sent);
    // Shorter than the longest delay, and few looks back.
    let mut settings = testing::settings();
    settings.counters.idle = "2h".parse().unwrap();
    (settings.restate.windows, settings.restate.rows) = budget;
    let replayed = replay_asked(&settings, catalog, pipelines, &messages, cuts, asked).await.unwrap();
    assert!(replayed.stopped.is_empty(), "{:?}", replayed.stopped);
    replayed
}

/// The same rows as if each had come at once: no row is late, and nothing is restated.
async fn in_order(catalog: &Catalog, pipelines: &[Pipeline], sent: &[Sent]) -> Replayed {
    let sent: Vec<Sent> = sent.iter().map(|sent| Sent { delay: 0, ..sent.clone() }).collect();
    let cuts = Cuts { restates: true, commits: BTreeSet::from([3, 17, 40]), ..Cuts::default() };
    let replayed = run(catalog, pipelines, &sent, &cuts, &[]).await;
    assert_eq!((replayed.late, replayed.restated.len()), (0, 0));
    replayed
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let places = || prop::collection::btree_set(0usize..60, 0..8);
    (places(), places(), prop::collection::btree_set(0usize..60, 0..4)).prop_map(|(batches, commits, restarts)| Cuts {
        batches,
        commits,
        restarts,
        restates: true,
    })
}

/// How long rows are on their way: mostly no time, sometimes past a window, past the lateness, or past the memory of counters.
fn delays() -> impl Strategy<Value = Micros> {
    prop_oneof![6 => Just(0), 2 => 1i64..40, 1 => 100i64..1_000, 1 => Just(2 * 86_400)]
        .prop_map(|seconds| seconds * SECOND)
}

/// Windows and rows between two commits.
fn budgets() -> impl Strategy<Value = (u64, u64)> {
    (prop_oneof![1u64..8, Just(20_000)], prop_oneof![1u64..40, Just(2_000_000)])
}

/// node, part, kind of row, pause, value, delay
type Line = (usize, usize, u8, i64, u8, Micros);

fn lines() -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec((0usize..3, 0usize..2, 0u8..4, 1i64..14, 0u8..20, delays()), 1..50)
}

/// Rows of `meter` and `other`: counters that rise, fall and are sometimes absent; gauges; histograms; rises of their own.
fn sent(lines: &[Line]) -> Vec<Sent> {
    let (mut at, mut numbers) = (100, BTreeMap::<(usize, &str), i64>::new());
    let mut sent = Vec::new();
    for (node, part, kind, pause, value, delay) in lines.iter().copied() {
        at += pause;
        let stream = if kind == 3 { "other" } else { "meter" };
        let number = numbers.entry((node, stream)).or_default();
        let mut row = json!({"stream": stream, "ts": format_rfc3339(T0 + at * SECOND), "node": format!("n{node}"),
            "site": format!("s{}", node / 2), "batch": format!("{:032x}", node + 1), "seq": *number});
        let more = match kind {
            0 => json!({"part": part.to_string(), "total": value, "whole": value / 2, "level": value}),
            1 => json!({"part": part.to_string(), "total": value, "spread":
                {"bounds": [1.0], "counts": [value, value / 3], "sum": f64::from(value), "count": value + value / 3}}),
            2 => json!({"part": part.to_string(), "level": value, "whole_increase": value}),
            _ => json!({"size": value}),
        };
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        *number += 1;
        sent.push(Sent { ts: T0 + at * SECOND, delay, row: row.as_object().unwrap().clone() });
    }
    sent
}

async fn small_pipelines(catalog: &Catalog) -> Vec<Pipeline> {
    let sql = "SELECT tumble(ts, INTERVAL '30 seconds') AS window_start, site, node,
        histogram_count(histogram_merge(spread_increase)) AS observations, sum(spread_increase_seconds) AS seconds
        FROM meter GROUP BY tumble(ts, INTERVAL '30 seconds'), site, node";
    let hop = "hop(ts, INTERVAL '20 seconds', INTERVAL '60 seconds')";
    let hops = format!(
        "SELECT {hop} AS window_start, site, part, sum(total_increase) AS total, sum(total_increase_seconds) AS seconds,
        avg(level) AS level, count(level) AS levels FROM meter GROUP BY {hop}, site, part"
    );
    vec![
        meters(catalog).await,
        joined(catalog).await,
        testing::pipeline(catalog, "spreads", sql, " []").await,
        testing::pipeline(catalog, "hops", &hops, " []").await,
    ]
}

/// Scenario: rows of three nodes at two sites, each on its way for no time, seconds, minutes or days; counters with resets; on
/// one or two partitions; cut into batches, committed and restarted anywhere, so that restatements are also lost between
/// computing and committing; a few windows or rows, or all, in one round; sometimes with a request for everything.
/// Guarantees: promise 3 and W2: the newest revision of every window, its completeness included, is that of a run in which
/// every row came at once; revisions are counted without gaps, and no row is lost.
#[test]
fn however_late_rows_are_windows_end_as_if_they_had_come_at_once() {
    let (runtime, catalog) = (runtime(), testing::catalog());
    let pipelines = runtime.block_on(small_pipelines(&catalog));
    let request = prop::option::of((any::<bool>(), 0i64..300, 10i64..500));
    let any_run = (lines(), cuts(), 1i32..3, request, budgets());
    type AnyRun = (Vec<Line>, Cuts, i32, Option<(bool, i64, i64)>, (u64, u64));
    let property = |(lines, cuts, partitions, request, budget): AnyRun| {
        let sent = sent(&lines);
        runtime.block_on(async {
            let wanted = [in_order(&catalog, &pipelines, &sent).await];
            let asked: Vec<Request> = request.iter().map(|of| of_everything(*of)).collect();
            let mut found = Vec::new();
            for partition in 0..partitions {
                let is_here = |sent: &&Sent| partition_of(sent.row["site"].as_str().unwrap(), partitions) == partition;
                let here: Vec<Sent> = sent.iter().filter(is_here).cloned().collect();
                // In a replay every site is of partition 0 of 1.
                found.push(run_within(budget, &catalog, &pipelines, &here, &cuts, &asked).await);
            }
            let differences = differences(&pipelines, &wanted, &found);
            prop_assert!(differences.is_empty(), "{:#?}", differences);
            let rows: usize = found.iter().flat_map(|found| &found.raw).map(|(_, rows)| rows.num_rows()).sum();
            prop_assert_eq!(rows, sent.len());
            Ok(())
        })
    };
    TestRunner::new(cases(200)).run(&any_run, property).unwrap_or_else(|error| panic!("{error}"));
}

/// Scenario: a backfill of 150 sites, more than are read together, with fewer windows and rows in one round than they have.
/// Guarantees: it comes to its end, and each window is restated once.
#[tokio::test]
async fn a_backfill_of_many_sites_gets_on_however_little_a_round_may_do() {
    let catalog = testing::catalog();
    let pipelines = [meters(&catalog).await];
    let row = |site: usize, at: i64| {
        let ts = T0 + at * SECOND;
        let row = json!({"stream": "meter", "ts": format_rfc3339(ts), "node": format!("n{site}"), "part": "0",
            "site": format!("s{site:03}"), "batch": format!("{:032x}", site + 1), "seq": at, "level": 1.0});
        Sent { ts, delay: 0, row: row.as_object().unwrap().clone() }
    };
    // The rows of one site lie closer than those of the others.
    let sent: Vec<Sent> = (0..150)
        .flat_map(|site| (100..220).step_by(if site == 149 { 1 } else { 15 }).map(move |at| row(site, at)))
        .collect();
    let cuts = Cuts { restates: true, ..Cuts::default() };
    let whole = in_order(&catalog, &pipelines, &sent).await;
    for budget in [(200, 2_000_000), (20_000, 150), (1, 1)] {
        let asked = [of_everything((false, 0, 1_000))];
        let found = run_within(budget, &catalog, &pipelines, &sent, &cuts, &asked).await;
        let differences = differences(&pipelines, std::slice::from_ref(&whole), std::slice::from_ref(&found));
        assert!(differences.is_empty(), "{budget:?}: {differences:#?}");
        let rows =
            |windows: &[crate::replay::ReplayedWindow]| windows.iter().map(|of| of.rows.num_rows()).sum::<usize>();
        assert_eq!(rows(&found.restated), rows(&found.windows), "{budget:?}");
        assert!(rows(&found.restated) >= 150 * 3, "{budget:?}");
    }
}

fn of_everything((erases, from, length): (bool, i64, i64)) -> Request {
    let reason = if erases { RequestReason::Erase } else { RequestReason::Backfill };
    Request::new(reason, T0 + from * SECOND, T0 + (from + length) * SECOND, 0)
}

/// The rows of a shipped pipeline's own test, in event order, numbered by node.
fn shipped(folder: &Path) -> Vec<Sent> {
    let text = std::fs::read_to_string(folder.join("input.ndjson")).unwrap();
    let mut rows: Vec<Row> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    rows.retain(|row| !row.contains_key("tick"));
    let time = |row: &Row| parse_rfc3339(row["ts"].as_str().unwrap()).unwrap();
    rows.sort_by_key(time);
    let mut numbers = BTreeMap::<(String, String), i64>::new();
    let mut sent = Vec::new();
    for mut row in rows {
        let (node, stream) = (row["node"].as_str().unwrap().to_owned(), row["stream"].as_str().unwrap().to_owned());
        let batch = node.bytes().fold(7u128, |hash, byte| hash.wrapping_mul(31).wrapping_add(u128::from(byte)));
        let number = numbers.entry((node, stream)).or_default();
        row.insert("batch".to_owned(), format!("{batch:032x}").into());
        row.insert("seq".to_owned(), (*number).into());
        *number += 1;
        sent.push(Sent { ts: time(&row), delay: 0, row });
    }
    sent
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A shipped pipeline, the rows of its test, and its windows where all of them came at once.
struct Shipped {
    pipelines: [Pipeline; 1],
    sent: Vec<Sent>,
    wanted: [Replayed; 1],
}

async fn all_shipped() -> (Catalog, Vec<Shipped>) {
    let catalog = Catalog::load(&root().join("config/catalog")).unwrap();
    let mut all = Vec::new();
    for folder in airan_window::pipeline::load(&root().join("pipelines")).unwrap() {
        let name = folder.spec.name.clone();
        let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
        let plan = airan_window::PipelinePlan::new(&name, &folder.sql, &schema_of).await.unwrap();
        let pipelines = [Pipeline { spec: folder.spec, plan }];
        let sent = shipped(&root().join("pipelines").join(&name));
        let wanted = [in_order(&catalog, &pipelines, &sent).await];
        assert!(!wanted[0].windows.is_empty(), "{name}");
        all.push(Shipped { pipelines, sent, wanted });
    }
    (catalog, all)
}

/// What differs once `change` has delayed the rows of each shipped pipeline's test.
async fn shipped_differences(
    catalog: &Catalog,
    all: &[Shipped],
    cuts: &Cuts,
    change: impl Fn(&mut [Sent]),
) -> Vec<String> {
    let mut found = Vec::new();
    for Shipped { pipelines, sent, wanted } in all {
        let mut delayed = sent.clone();
        change(&mut delayed);
        let away = [run(catalog, pipelines, &delayed, cuts, &[]).await];
        found.extend(differences(pipelines, wanted, &away));
    }
    found
}

/// Scenario: in the input of every shipped pipeline one node is away from some row on, and returns after two days: its last
/// rows come first, as they are measured, then its backlog.
/// Guarantees: promise 3: its windows are those of a node that never was away: integers equal, floating sums to 1e-9.
#[tokio::test]
async fn a_node_that_was_away_for_days_ends_with_the_windows_of_one_that_never_was() {
    let cuts = Cuts { restates: true, commits: (0..200).step_by(5).collect(), ..Cuts::default() };
    let (catalog, all) = all_shipped().await;
    for number in 0..3 {
        let differences = shipped_differences(&catalog, &all, &cuts, |sent| {
            let nodes: BTreeSet<String> =
                sent.iter().map(|sent| sent.row["node"].as_str().unwrap().to_owned()).collect();
            let Some(node) = nodes.into_iter().nth(number) else { return };
            let of: Vec<usize> = (0..sent.len()).filter(|row| sent[*row].row["node"] == node).collect();
            let (from, live) = (of.len() / 4, of.len() - of.len() / 4);
            of[from..live].iter().for_each(|row| sent[*row].delay = 2 * DAY);
        })
        .await;
        assert!(differences.is_empty(), "node {number}: {differences:#?}");
    }
}

/// Scenario: any rows of the shipped pipelines' inputs are delayed by any time, with commits and restarts anywhere.
/// Guarantees: as above.
#[test]
fn shipped_pipelines_do_not_tell_late_rows_from_prompt_ones() {
    let runtime = runtime();
    let (catalog, all) = runtime.block_on(all_shipped());
    let property = |(delays, cuts): (Vec<Micros>, Cuts)| {
        let differences = runtime.block_on(shipped_differences(&catalog, &all, &cuts, |sent| {
            sent.iter_mut().zip(&delays).for_each(|(sent, delay)| sent.delay = *delay);
        }));
        prop_assert!(differences.is_empty(), "{:#?}", differences);
        Ok(())
    };
    // Each case is six runs with a hundred rows.
    let config = cases(200);
    let few = ProptestConfig { cases: (config.cases / 50).max(1), ..config };
    let any_run = (prop::collection::vec(delays(), 140), cuts());
    TestRunner::new(few).run(&any_run, property).unwrap_or_else(|error| panic!("{error}"));
}
