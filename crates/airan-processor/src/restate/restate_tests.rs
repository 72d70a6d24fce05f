use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex};

use airan_bus::Received;
use airan_lake::{Request, RequestReason};
use airan_model::catalog::Catalog;
use airan_model::identity::partition_of;
use airan_model::time::{DAY, Micros, SECOND, format_rfc3339, parse_rfc3339};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::golden::{Row, compare, to_rows};
use crate::golden_input::read_messages;
use crate::replay::{Cuts, Replayed, replay_asked};
use crate::restate::interleaving::{Seen, Shards, Turn};
use crate::settings::Settings;
use crate::setup::{Pipeline, Setup};
use crate::testing::{self, T0, joined, meters};

/// Cases of a property: `AIRAN_CASES`, else a number that fits a run of all tests.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("AIRAN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs a property over cases that each follow from a seed: as many as [`cases`] says, from a seed on that is drawn.
/// `AIRAN_SEED=n` replays one, or with `AIRAN_CASES` begins there.
fn for_each_seed<S: Strategy>(default: u32, any: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) -> u32 {
    let given = std::env::var("AIRAN_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let ProptestConfig { cases, .. } = cases(if given.is_some() { 1 } else { default });
    let first = given.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    println!("{cases} cases from AIRAN_SEED={first} on");
    for seed in first..first + u64::from(cases) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let one = ProptestConfig { cases: 1, ..self::cases(1) };
        TestRunner::new_with_rng(one, rng)
            .run(any, &property)
            .unwrap_or_else(|error| panic!("AIRAN_SEED={seed} replays it: {error}"));
    }
    cases
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

/// Rows by pipeline, start of the window and site.
type Latest = BTreeMap<(String, i64, String), Vec<Row>>;

/// The newest revision of each window and site. Revisions are counted from 0 without gaps, and each is there once.
fn latest<'a>(replayed: impl IntoIterator<Item = &'a Replayed>) -> Latest {
    let mut all: BTreeMap<(String, i64, String), BTreeMap<i64, Vec<Row>>> = BTreeMap::new();
    for window in replayed.into_iter().flat_map(|replayed| replayed.windows.iter().chain(&replayed.restated)) {
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
fn differences<'a>(
    pipelines: &[Pipeline],
    wanted: impl IntoIterator<Item = &'a Replayed>,
    found: impl IntoIterator<Item = &'a Replayed>,
) -> Vec<String> {
    let (wanted, found) = (latest(wanted), latest(found));
    let different = |pipeline: &Pipeline| different(pipeline, &wanted, &rows_of(&found, pipeline));
    pipelines.iter().flat_map(different).collect()
}

fn rows_of(all: &Latest, pipeline: &Pipeline) -> Vec<Row> {
    all.iter().filter(|(key, _)| key.0 == pipeline.spec.name).flat_map(|(_, rows)| rows.clone()).collect()
}

fn different(pipeline: &Pipeline, wanted: &Latest, found: &[Row]) -> Vec<String> {
    let of = compare(&rows_of(wanted, pipeline), found, &pipeline.plan.group_columns());
    of.into_iter().map(|difference| format!("{}: {difference}", pipeline.spec.name)).collect()
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
    let replayed = replay_asked(&settings(budget), catalog, pipelines, &messages, cuts, asked).await.unwrap();
    assert!(replayed.stopped.is_empty(), "{:?}", replayed.stopped);
    replayed
}

/// Counters are remembered for less than the longest delay, and a round may do little.
fn settings((windows, rows): (u64, u64)) -> Settings {
    let mut settings = testing::settings();
    settings.counters.idle = "2h".parse().unwrap();
    (settings.restate.windows, settings.restate.rows) = (windows, rows);
    settings
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
    (prop_oneof![1 => 1u64..8, 2 => Just(20_000)], prop_oneof![1 => 1u64..40, 2 => Just(2_000_000)])
}

/// Who does what. Of a stored lake everything is read anew each time, so that is the rarer case.
fn turns() -> impl Strategy<Value = Vec<(u8, Turn)>> {
    let turn = prop_oneof![
        8 => (1u8..6).prop_map(Turn::Apply),
        1 => Just(Turn::Flush),
        4 => Just(Turn::Commit),
        3 => Just(Turn::Look),
        3 => Just(Turn::End),
        2 => Just(Turn::Die),
        1 => Just(Turn::Publish),
        2 => Just(Turn::Compact),
    ];
    prop::collection::vec((0u8..6, turn), 0..80)
}

/// Sites of nodes: on two partitions the first is apart from the others, on three each has one of its own.
const SITES: [&str; 4] = ["s0", "s0", "s1", "s3"];

/// node, part, kind of row, pause, value, delay
type Line = (usize, usize, u8, i64, u8, Micros);

fn lines() -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec((0..SITES.len(), 0usize..2, 0u8..4, 1i64..14, 0u8..20, delays()), 1..50)
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
            "site": SITES[node], "batch": format!("{:032x}", node + 1), "seq": *number});
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

/// One of many ways by which rows come into a lake.
#[derive(Clone, Debug)]
struct Way {
    lines: Vec<Line>,
    /// Which pipelines run.
    pipelines: Vec<usize>,
    partitions: i32,
    turns: Vec<(u8, Turn)>,
    /// Before which turn everything is asked for.
    asked: Option<(usize, (bool, i64, i64))>,
    budget: (u64, u64),
    /// Over a lake of files.
    is_stored: bool,
}

fn ways() -> impl Strategy<Value = Way> {
    let asked = prop::option::of((0usize..80, (any::<bool>(), 0i64..300, 10i64..500)));
    let is_stored = prop_oneof![9 => Just(false), 1 => Just(true)];
    let pipelines = prop::sample::subsequence(vec![0, 1, 2, 3], 1..=4);
    (lines(), pipelines, 1i32..4, turns(), asked, budgets(), is_stored).prop_map(
        |(lines, pipelines, partitions, turns, asked, budget, is_stored)| Way {
            lines,
            pipelines,
            partitions,
            turns,
            asked,
            budget,
            is_stored,
        },
    )
}

/// Scenario: rows of four nodes at three sites, each on its way for no time, seconds, minutes or days; counters with resets; on
/// one to three partitions of one lake, whose shards take turns in a drawn order: messages cut into batches, commits, rounds of
/// restatements which read and end between those of the others and are lost with their shard, deaths after which a shard reads
/// on from its last commit; a few windows or rows, or all, in one round; sometimes a request for everything on the way. One
/// lake in ten is one of files, published and compacted in between.
/// Guarantees: promise 3 and W2: the newest revision of every window, its completeness included, is that of a run in which
/// every row came at once; revisions are counted without gaps, and no row is lost. What the `_latest` views of the lake say is
/// that too, and its documents and files are sound.
#[test]
fn however_late_rows_are_windows_end_as_if_they_had_come_at_once() {
    let (runtime, catalog) = (runtime(), testing::catalog());
    let all = runtime.block_on(small_pipelines(&catalog));
    let seen = Mutex::new(Seen::default());
    let property = |way: Way| {
        let sent = sent(&way.lines);
        let pipelines: Vec<Pipeline> = way.pipelines.iter().map(|at| all[*at].clone()).collect();
        runtime.block_on(async {
            let wanted = [in_order(&catalog, &pipelines, &sent).await];
            let mut shards = go(&catalog, &pipelines, &sent, &way).await;
            let found = shards.finish().await;
            let differences = differences(&pipelines, &wanted, found.iter().copied());
            prop_assert!(differences.is_empty(), "{:#?}", differences);
            let rows: usize = found.iter().flat_map(|found| &found.raw).map(|(_, rows)| rows.num_rows()).sum();
            prop_assert_eq!(rows, sent.len());
            prop_assert!(found.iter().all(|found| found.stopped.is_empty()));
            if way.is_stored {
                let wrong = wrong_in_files(&shards, &pipelines, &latest(&wanted), sent.len()).await;
                prop_assert!(wrong.is_empty(), "in the files: {:#?}", wrong);
            }
            seen.lock().unwrap().add(shards.seen);
            Ok(())
        })
    };
    let cases = for_each_seed(200, &ways(), property);
    let seen = seen.into_inner().unwrap();
    println!("{seen:?}");
    assert!(cases < 200 || (seen.crossed > 200 && seen.lost > 3 && seen.merges > 3), "{seen:?}");
}

/// The turns that were drawn.
async fn go(catalog: &Catalog, pipelines: &[Pipeline], sent: &[Sent], way: &Way) -> Shards {
    let setup = Arc::new(Setup::new(settings(way.budget), catalog, pipelines.to_vec()));
    let messages = (0..way.partitions).map(|partition| {
        let is_here = |sent: &&Sent| partition_of(sent.row["site"].as_str().unwrap(), way.partitions) == partition;
        let here: Vec<Sent> = sent.iter().filter(is_here).cloned().collect();
        arriving(catalog, &here)
    });
    let mut shards = Shards::over(&setup, messages.collect(), way.is_stored).await;
    for (at, (who, turn)) in way.turns.iter().enumerate() {
        if let Some((_, of)) = way.asked.filter(|(before, _)| *before == at) {
            shards.ask(of_everything(of)).await;
        }
        shards.turn(*who, *turn).await;
    }
    if let Some((_, of)) = way.asked.filter(|_| shards.asked.is_empty()) {
        shards.ask(of_everything(of)).await;
    }
    shards
}

/// What readers of the lake would see that is not so.
async fn wrong_in_files(shards: &Shards, pipelines: &[Pipeline], wanted: &Latest, sent: usize) -> Vec<String> {
    let mut wrong = shards.problems().await;
    for pipeline in pipelines {
        let mut found = shards.stored(&format!("{}_latest", pipeline.spec.table)).await.unwrap();
        for row in &mut found {
            row.retain(|column, _| !["revision", "emptied", "date"].contains(&column.as_str()));
        }
        wrong.extend(different(pipeline, wanted, &found));
    }
    let rows = shards.stored("meter").await.unwrap().len() + shards.stored("other").await.unwrap().len();
    wrong.extend((rows != sent).then(|| format!("{rows} rows, {sent} were sent")));
    wrong
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
        let differences = differences(&pipelines, [&whole], [&found]);
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
