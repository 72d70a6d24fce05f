use super::*;
use crate::golden::to_rows;
use crate::testing::{self, T0, catalog, joined, messages, meters, pipeline, settings};
use airan_bus::Received;
use airan_model::message::{Message, Rows};
use airan_model::time::{DAY, HOUR, MINUTE, SECOND};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

/// One line of input.
#[derive(Clone, Debug)]
enum Line {
    /// node, part, stream, behind the log's time in seconds, seconds since the line before, value, repeated later
    Row(usize, usize, bool, i64, i64, u8, bool),
    Tick(i64),
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let behind = prop_oneof![6 => 0i64..8, 2 => 8i64..40, 1 => 100i64..400];
    let row = (0usize..3, 0usize..2, any::<bool>(), behind, 0i64..5, 0u8..20, prop::bool::weighted(0.2)).prop_map(
        |(node, part, meter, behind, pause, value, again)| Line::Row(node, part, meter, behind, pause, value, again),
    );
    prop::collection::vec(prop_oneof![8 => row, 1 => (0i64..90).prop_map(Line::Tick)], 1..40)
}

fn to_text(lines: &[Line]) -> String {
    let (mut text, mut repeated, mut at) = (String::new(), Vec::new(), 100);
    for (number, line) in lines.iter().enumerate() {
        match *line {
            Line::Tick(pause) => {
                at += pause;
                text.push_str(&format!("{{\"tick\": \"@{at}\"}}\n"));
            }
            Line::Row(node, part, is_meter, behind, pause, value, again) => {
                at += pause;
                let values = if is_meter {
                    json!({"stream": "meter", "part": part.to_string(), "total": value, "whole": value, "level": value})
                } else {
                    json!({"stream": "other", "size": value})
                };
                let mut row = values.as_object().unwrap().clone();
                let ts = format!("@{}", at - behind);
                let envelope = json!({"ts": ts, "append_time": format!("@{at}"), "node": format!("n{node}"), "site": format!("s{}", node / 2),
                    "batch": "000000000000000000000000000000ff", "seq": number});
                row.extend(envelope.as_object().unwrap().clone());
                text.push_str(&format!("{}\n", serde_json::Value::from(row.clone())));
                if again {
                    repeated.push(row);
                }
            }
        }
        if number % 7 == 6 {
            for mut row in repeated.drain(..) {
                row.insert("append_time".to_owned(), format!("@{at}").into());
                text.push_str(&format!("{}\n", serde_json::Value::from(row)));
            }
        }
    }
    text + &format!("{{\"tick\": \"@{}\"}}\n{{\"tick\": \"@{}\"}}\n", at + 200, at + 400)
}

/// A replay without interruptions.
fn straight() -> Run<'static> {
    static CUTS: Cuts =
        Cuts { batches: BTreeSet::new(), commits: BTreeSet::new(), restarts: BTreeSet::new(), restates: false };
    Run { cuts: &CUTS, requests: &[] }
}

/// Windows as text, rows in an order of their own.
fn shown(replayed: &Replayed) -> Vec<String> {
    let mut shown = Vec::new();
    for window in &replayed.windows {
        let mut rows: Vec<String> =
            to_rows(&window.rows).unwrap().into_iter().map(|row| json!(row).to_string()).collect();
        rows.sort();
        shown.push(format!("{} {}..{} {rows:?}", window.pipeline, window.start - T0, window.end - T0));
    }
    shown
}

fn raw_rows(replayed: &Replayed) -> usize {
    replayed.raw.iter().map(|(_, rows)| rows.num_rows()).sum()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Scenario: a log of two streams, three nodes, two sites: rows on time, late and backfilled, repeated rows, ticks; cut into
    /// batches, committed and restarted anywhere.
    /// Guarantees: W3, the same windows with the same rows and the same raw rows; the sums add up after each message.
    #[test]
    fn no_cut_and_no_restart_changes_a_window(
        lines in lines(),
        batches in prop::collection::btree_set(0usize..50, 0..10),
        commits in prop::collection::btree_set(0usize..50, 0..10),
        restarts in prop::collection::btree_set(0usize..50, 0..10),
    ) {
        let catalog = catalog();
        runtime().block_on(async {
            let pipelines = [meters(&catalog).await, joined(&catalog).await];
            let messages = messages(&catalog, &to_text(&lines));
            let run = async |cuts: Cuts| replay(&settings(), &catalog, &pipelines, &messages, &cuts).await.unwrap();
            let straight = run(Cuts::default()).await;
            let everywhere = Cuts::restart_everywhere(messages.len());
            for cuts in [Cuts { batches, commits, restarts, restates: false }, everywhere] {
                let cut = run(cuts).await;
                prop_assert_eq!(shown(&straight), shown(&cut));
                prop_assert_eq!(raw_rows(&straight), raw_rows(&cut));
                prop_assert_eq!(
                    (straight.appended, straight.duplicate, straight.rejected, straight.late),
                    (cut.appended, cut.duplicate, cut.rejected, cut.late)
                );
            }
            prop_assert_eq!(straight.appended, raw_rows(&straight) as u64 + straight.duplicate);
            Ok(())
        })?;
    }
}

/// Scenario: two nodes; the slow one holds the window open; a row comes after it closed; a node that is five minutes behind.
/// Guarantees: windows close when the slowest live node has passed them and the lateness; the late row is stored, counted and
/// marked, and is in no window; backfill neither holds nor moves time.
#[tokio::test]
async fn windows_wait_for_the_slowest_live_node_and_late_rows_are_stored_and_marked() {
    let catalog = catalog();
    let pipelines = [meters(&catalog).await];
    let text = r#"
{"stream": "meter", "node": "a", "site": "s", "part": "x", "ts": "@1", "append_time": "@2", "level": 1}
{"stream": "meter", "node": "b", "site": "s", "part": "x", "ts": "@2", "append_time": "@3", "level": 2}
{"stream": "meter", "node": "a", "site": "s", "part": "x", "ts": "@21", "append_time": "@22", "level": 4}
{"stream": "meter", "node": "c", "site": "s", "part": "x", "ts": "@-300", "append_time": "@23", "level": 8}
{"stream": "meter", "node": "b", "site": "s", "part": "x", "ts": "@9", "append_time": "@24", "level": 16}
{"stream": "meter", "node": "b", "site": "s", "part": "x", "ts": "@20", "append_time": "@25", "level": 32}
{"stream": "meter", "node": "a", "site": "s", "part": "x", "ts": "@8", "append_time": "@26", "level": 64}"#;
    let all = messages(&catalog, text);
    for (count, windows) in [(5, 0), (6, 1), (7, 1)] {
        let replayed = replay(&settings(), &catalog, &pipelines, &all[..count], &Cuts::default()).await.unwrap();
        assert_eq!(replayed.windows.len(), windows, "after {count} messages");
    }
    let setup = Arc::new(Setup::new(settings(), &catalog, pipelines.to_vec()));
    let mut shard = Shard::new(&setup, 0);
    for message in all {
        assert!(shard.apply(message).await.unwrap().is_none());
    }
    let mut replayed = Replayed::default();
    let state = straight().commit(&mut shard, &mut replayed).await.unwrap();
    let rows = to_rows(&replayed.windows[0].rows).unwrap();
    let sums: Vec<f64> = rows.iter().map(|row| row["level_sum"].as_f64().unwrap()).collect();
    assert_eq!((sums.iter().sum::<f64>(), sums.len(), raw_rows(&replayed)), (19.0, 2, 7));
    for shard in [&shard, &Shard::restore(&setup, 7, state).unwrap()] {
        let late: Vec<_> = shard.lates.rows().map(|(_, node, reason, rows)| (node, reason.as_str(), rows)).collect();
        assert_eq!(late, [("a", "late", 1), ("c", "backfill", 1)]);
        let spans = |(key, _, spans): (&crate::marks::Key, (Micros, Micros), crate::spans::Spans)| {
            (key.site.to_string(), spans.iter().map(|(from, to)| (from - T0, to - T0)).collect::<Vec<_>>())
        };
        let marked: Vec<_> = shard.marks.iter().map(spans).collect();
        assert_eq!(marked, [("s".to_owned(), vec![(-300 * SECOND, -290 * SECOND), (0, 10 * SECOND)])]);
        assert_eq!((shard.sums.appended, shard.sums.stored, shard.sums.pending), (7, 7, 0));
    }
}

/// Scenario: time of one stream has come to 95 s when a second node begins at 40 s; then the other stream, which had held the
/// pipeline back, goes on.
/// Guarantees: W3: how far a stream had come outlives a restart, though none of its live nodes says so any more.
#[tokio::test]
async fn a_restart_does_not_pull_time_back() {
    let catalog = catalog();
    let pipelines = [joined(&catalog).await];
    let text = r#"
{"stream": "meter", "node": "a", "site": "s", "part": "x", "ts": "@95", "append_time": "@100", "total": 1}
{"stream": "other", "node": "a", "site": "s", "ts": "@31", "append_time": "@101", "size": 1}
{"stream": "meter", "node": "b", "site": "s", "part": "x", "ts": "@40", "append_time": "@102", "total": 1}
{"stream": "other", "node": "a", "site": "s", "ts": "@90", "append_time": "@103", "size": 1}"#;
    let messages = messages(&catalog, text);
    for cuts in [Cuts::default(), Cuts::restart_everywhere(messages.len())] {
        let replayed = replay(&settings(), &catalog, &pipelines, &messages, &cuts).await.unwrap();
        let starts: Vec<i64> = replayed.windows.iter().map(|window| (window.start - T0) / SECOND).collect();
        assert_eq!(starts, [20, 40], "{cuts:?}");
    }
}

/// Scenario: the same rows again before and after a restart, from a foreign sender and from an agent, within an hour and later.
/// Guarantees: duplicates are dropped before anything sees them, and counted; a foreign batch is known for an hour.
#[tokio::test]
async fn duplicates_are_dropped_across_restarts() {
    let catalog = catalog();
    let pipelines = [meters(&catalog).await];
    let row = |source: &str, at: i64| {
        format!("{{\"stream\": \"meter\", \"node\": \"a\", \"site\": \"s\", \"part\": \"{source}\", \"ts\": \"@1\", \"append_time\": \"@{at}\", \"level\": 1,
            \"source\": \"{source}\", \"batch\": \"{:032x}\", \"seq\": 0}}\n", source.len()).replace("\n ", " ")
    };
    let text = [
        row("otlp_http/json", 2),
        row("procfs/host", 2),
        row("otlp_http/json", 3),
        row("procfs/host", 3),
        row("otlp_http/json", 4000),
        row("procfs/host", 4000),
    ];
    let messages = messages(&catalog, &text.concat());
    for cuts in [Cuts::default(), Cuts::restart_everywhere(messages.len())] {
        let replayed = replay(&settings(), &catalog, &pipelines, &messages, &cuts).await.unwrap();
        assert_eq!((replayed.appended, replayed.duplicate, raw_rows(&replayed)), (6, 3, 3));
    }
}

/// Scenario: messages that are not ours, damaged, of an unknown stream, of a wrong type, without times, with an absurd header.
/// Guarantees: each is refused with its reason, the sums add up, and the next good message is applied.
#[tokio::test]
async fn no_message_takes_the_shard_down() {
    let catalog = catalog();
    let setup = Arc::new(Setup::new(settings(), &catalog, vec![meters(&catalog).await]));
    let good = messages(&catalog, r#"{"stream": "meter", "node": "a", "site": "s", "ts": "@1", "level": 1}"#);
    let Message::Rows(rows) = &good[0].message else { panic!("rows") };
    let column = |name: &str, column: arrow::array::ArrayRef| {
        let batch = RecordBatch::try_from_iter_with_nullable([(name, column, true)]).unwrap();
        Message::Rows(Rows::encode(&Arc::from("meter"), &batch).unwrap())
    };
    let numbers: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
    let bad = [
        (Message::Foreign { reason: "no header".to_owned(), payload: Bytes::from_static(b"hello") }, "foreign", 0),
        (Message::Rows(Rows { rows: u64::MAX, ..rows.clone() }), "foreign", 0),
        (Message::Rows(Rows { payload: Bytes::from_static(b"damaged"), rows: 7, ..rows.clone() }), "malformed", 7),
        (Message::Rows(Rows { rows: 2, ..rows.clone() }), "malformed", 2),
        (Message::Rows(Rows { stream: Arc::from("nothing"), ..rows.clone() }), "unknown_stream", 1),
        (column("level", Arc::clone(&numbers)), "wrong_type", 1),
        (column("unknown", numbers), "bad_time", 1),
    ];
    let mut shard = Shard::new(&setup, 0);
    let mut rejected = 0;
    for (offset, (message, reason, rows)) in bad.into_iter().enumerate() {
        let received = Received { partition: 0, offset: offset as i64, append_time: T0, message };
        let refusal = shard.apply(received).await.unwrap().unwrap();
        assert_eq!((refusal.refused.reason.as_str(), refusal.rows), (reason, rows), "{}", refusal.refused.detail);
        rejected += rows;
        assert!(shard.sums.add_up() && shard.sums.rejected == rejected, "{:?}", shard.sums);
    }
    let received = Received { offset: 7, ..good[0].clone() };
    assert!(shard.apply(received).await.unwrap().is_none());
    assert_eq!((shard.sums.pending, shard.sums.foreign, shard.next_offset), (1, 2, 8));
}

/// Scenario: a pipeline meets its state limit.
/// Guarantees: it stops and says so, the other goes on, all rows are stored; a restart with room gives the windows it had not
/// closed.
#[tokio::test]
async fn a_pipeline_over_its_limit_stops_and_the_rest_goes_on() {
    let catalog = catalog();
    let mut settings = settings();
    settings.windows.state_bytes = "1B".parse().unwrap();
    let pipelines = [meters(&catalog).await];
    let text: String = (0..4)
        .map(|n| format!("{{\"stream\": \"meter\", \"node\": \"a\", \"site\": \"s\", \"part\": \"x\", \"ts\": \"@{n}0\", \"level\": 1}}\n"))
        .collect();
    let messages = messages(&catalog, &text);
    let replayed = replay(&settings, &catalog, &pipelines, &messages, &Cuts::default()).await.unwrap();
    assert_eq!((replayed.windows.len(), replayed.stopped.len(), raw_rows(&replayed)), (0, 1, 4));

    let setup = Arc::new(Setup::new(settings, &catalog, pipelines.to_vec()));
    let mut shard = Shard::new(&setup, 0);
    for message in messages {
        shard.apply(message).await.unwrap();
    }
    let mut replayed = Replayed::default();
    let state = straight().commit(&mut shard, &mut replayed).await.unwrap();
    let roomy = Arc::new(Setup::new(testing::settings(), &catalog, pipelines.to_vec()));
    let mut anew = Shard::restore(&roomy, 4, state).unwrap();
    for (_, rows) in &replayed.raw {
        anew.rebuild(roomy.stream("meter").unwrap(), rows).await.unwrap();
    }
    anew.apply(Received { partition: 0, offset: 4, append_time: T0 + HOUR, message: Message::Tick }).await.unwrap();
    let mut windows = Replayed::default();
    straight().commit(&mut anew, &mut windows).await.unwrap();
    assert_eq!(windows.windows.len(), 4);
}

/// Scenario: a restart with a pipeline the state does not know, and one whose windows have another width.
/// Guarantees: both begin with the window that holds their watermark, with all of its rows; nothing before it.
#[tokio::test]
async fn a_new_pipeline_begins_at_the_watermark() {
    let catalog = catalog();
    let text: String = (0..10)
        .map(|n| format!("{{\"stream\": \"meter\", \"node\": \"a\", \"site\": \"s\", \"part\": \"x\", \"ts\": \"@{}\", \"level\": 1}}\n", n * 4))
        .collect();
    let messages = messages(&catalog, &text);
    let setup = Arc::new(Setup::new(settings(), &catalog, vec![meters(&catalog).await]));
    let mut shard = Shard::new(&setup, 0);
    for message in messages {
        shard.apply(message).await.unwrap();
    }
    let mut replayed = Replayed::default();
    let state = straight().commit(&mut shard, &mut replayed).await.unwrap();
    assert_eq!(replayed.windows.iter().map(|window| window.start - T0).collect::<Vec<_>>(), [0, 10 * SECOND]);

    let sql = "SELECT tumble(ts, INTERVAL '15 seconds') AS window_start, site, count(level) AS readings FROM meter
        GROUP BY tumble(ts, INTERVAL '15 seconds'), site";
    let changed = pipeline(&catalog, "meters", sql, " []").await;
    let setup = Arc::new(Setup::new(settings(), &catalog, vec![changed, joined(&catalog).await]));
    let mut anew = Shard::restore(&setup, 10, state).unwrap();
    for (_, rows) in &replayed.raw {
        anew.rebuild(setup.stream("meter").unwrap(), rows).await.unwrap();
    }
    anew.apply(Received {
        partition: 0,
        offset: 10,
        append_time: T0 + 2 * MINUTE + 10 * SECOND,
        message: Message::Tick,
    })
    .await
    .unwrap();
    let mut windows = Replayed::default();
    straight().commit(&mut anew, &mut windows).await.unwrap();
    let of: Vec<(&str, i64, f64)> = windows
        .windows
        .iter()
        .map(|w| {
            (
                w.pipeline.as_str(),
                (w.start - T0) / SECOND,
                to_rows(&w.rows).unwrap()[0].get("readings").map_or(0.0, |r| r.as_f64().unwrap()),
            )
        })
        .collect();
    // The last row is at 36 s, less the lateness 26 s. `joined` waits for `other` as well, which is never live: 37 - 60 - 10 s.
    assert_eq!(of, [("meters", 15, 4.0), ("meters", 30, 2.0), ("joined", 0, 0.0), ("joined", 20, 0.0)]);
}

/// Scenario: counters of results over commits and restarts, with more series than the budget.
/// Guarantees: each window counts once; what has no room goes into the overflow series; all of it survives a restart.
#[tokio::test]
async fn exported_counters_count_each_window_once_and_survive() {
    let catalog = catalog();
    let pipelines = [meters(&catalog).await];
    let mut text = String::new();
    for second in (0..40).step_by(5) {
        for node in 0..5 {
            text.push_str(&format!(
                "{{\"stream\": \"meter\", \"node\": \"n{node}\", \"site\": \"s\", \"part\": \"x\", \"ts\": \"@{second}\", \"append_time\": \"@{second}\", \"total\": {second}}}\n"
            ));
        }
    }
    text.push_str("{\"tick\": \"@200\"}\n{\"tick\": \"@400\"}\n");
    let messages = messages(&catalog, &text);
    let setup = Arc::new(Setup::new(settings(), &catalog, pipelines.to_vec()));
    let mut shard = Shard::new(&setup, 0);
    let mut replayed = Replayed::default();
    let cuts = Cuts::restart_everywhere(messages.len());
    for (applied, message) in messages.into_iter().enumerate() {
        shard = Run { cuts: &cuts, requests: &[] }.interrupt(shard, applied, &mut replayed).await.unwrap();
        shard.apply(message).await.unwrap();
    }
    straight().commit(&mut shard, &mut replayed).await.unwrap();
    let exported = &shard.stages[0].exported;
    assert_eq!(exported.series.values().copied().collect::<Vec<_>>(), [35.0; 3]);
    assert_eq!(exported.overflow.values().copied().collect::<Vec<_>>(), [70.0]);
}

#[tokio::test]
async fn a_state_of_a_later_release_is_refused_and_marks_are_bounded_and_kept() {
    let catalog = catalog();
    let setup = Arc::new(Setup::new(settings(), &catalog, vec![meters(&catalog).await]));
    let mut shard = Shard::new(&setup, 0);
    let first = messages(&catalog, r#"{"stream": "meter", "node": "a", "site": "s", "ts": "@0", "level": 1}"#);
    shard.apply(first[0].clone()).await.unwrap();
    for day in 0..2 {
        let lines: String = (0..700).map(|n| {
            let ts = -day * 86_400 - n * 20;
            format!("{{\"stream\": \"meter\", \"node\": \"b\", \"site\": \"s\", \"ts\": \"@{ts}\", \"append_time\": \"@{}\", \"level\": 1, \"batch\": \"{day:032x}\", \"seq\": {n}}}\n", 1000 + day)
        }).collect();
        for message in messages(&catalog, &lines) {
            shard.apply(Received { offset: shard.next_offset, append_time: T0 + DAY, ..message }).await.unwrap();
        }
    }
    // Every second window of two stretches of time: more than the 1,000 that may stay apart.
    assert!(shard.marks.stretches().0 <= 1_000 && shard.marks.coarsened > 0);
    let (_, _, marked) = shard.marks.iter().next().unwrap();
    assert!((1..700).all(|n| marked.contains(T0 - n * 20 * SECOND) && marked.contains(T0 - DAY - n * 20 * SECOND)));
    let state = straight().commit(&mut shard, &mut Replayed::default()).await.unwrap();
    assert!(Shard::restore(&setup, 3, state.clone()).is_ok());
    let mut newer = state.to_vec();
    newer[8] += 1;
    assert!(matches!(Shard::restore(&setup, 3, newer.into()), Err(StateError::Newer { .. })));
}
