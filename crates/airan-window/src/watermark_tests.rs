//! The watermark against a slow plain reading of its rule.

use std::collections::BTreeMap;

use airan_model::time::SECOND;
use proptest::prelude::*;

use super::*;

/// A message: its append time, and rows as (stream, node, time).
type Logged = (Micros, Vec<(usize, u8, Micros)>);

const STREAMS: [(&str, Micros); 2] = [("fast", 10 * SECOND), ("slow", 40 * SECOND)];
/// max(60 s, 3 periods) of each.
const IDLE: [Micros; 2] = [60 * SECOND, 120 * SECOND];

fn fresh() -> PartitionTime {
    PartitionTime::new(STREAMS.map(|(name, period)| (Arc::from(name), period)))
}

fn apply(time: &mut PartitionTime, (append, rows): &Logged) {
    time.observe_message(*append);
    for (stream, node, newest) in rows {
        time.observe_rows(STREAMS[*stream].0, &format!("n{node}"), *newest, *append);
    }
}

fn marks(time: &PartitionTime) -> [Option<Micros>; 2] {
    STREAMS.map(|(name, _)| time.watermark(name))
}

/// What the shard state keeps of it, and what comes back from that.
fn restarted(time: &PartitionTime, log_time: Micros) -> PartitionTime {
    let mut anew = fresh();
    anew.observe_message(log_time);
    for clock in time.rows() {
        anew.observe_rows(&clock.stream, &clock.node, clock.newest, clock.seen);
    }
    for (stream, reached) in time.reached() {
        anew.restore_reached(stream, reached);
    }
    anew
}

/// The rule, read plainly: every node remembered for ever, the least over live ones looked up at the end of each message.
#[derive(Default)]
struct Plain {
    nodes: BTreeMap<(usize, u8), (Micros, Micros)>,
    marks: [Option<Micros>; 2],
}

impl Plain {
    fn apply(&mut self, (append, rows): &Logged) -> [Option<Micros>; 2] {
        for (stream, node, newest) in rows {
            let clock = self.nodes.entry((*stream, *node)).or_insert((*newest, *append));
            *clock = (clock.0.max(*newest), *append);
        }
        for (stream, idle) in IDLE.iter().enumerate() {
            let live = self.nodes.iter().filter(|((of, _), (_, seen))| *of == stream && append - seen <= *idle);
            let now = live.map(|(_, (newest, _))| *newest).min().unwrap_or(append - 60 * SECOND);
            self.marks[stream] = Some(self.marks[stream].map_or(now, |before| before.max(now)));
        }
        self.marks
    }
}

/// Logs with nodes that fall silent and come back, run behind and ahead; times near each other, so that they meet at edges.
fn logs() -> impl Strategy<Value = Vec<Logged>> {
    let lead = prop_oneof![4 => -20..2i64, 1 => -150..300i64];
    let row = (0..2usize, 0..6u8, lead);
    let message = (prop_oneof![6 => 0..8i64, 1 => 30..130i64], proptest::collection::vec(row, 0..4));
    proptest::collection::vec(message, 1..60).prop_map(|messages| {
        let mut append = 0;
        let logged = messages.into_iter().map(|(later, rows)| {
            append += later * SECOND;
            let rows = rows.into_iter().map(|(stream, node, lead)| (stream, node, append + lead * SECOND));
            (append, rows.collect())
        });
        logged.collect()
    })
}

#[test]
fn before_the_first_message_there_is_no_watermark() {
    let mut time = fresh();
    assert_eq!(marks(&time), [None, None]);
    time.observe_message(0);
    assert_eq!(marks(&time), [Some(-60 * SECOND); 2]);
    assert_eq!(time.watermark("unheard of"), None);
    time.observe_rows("unheard of", "a", 0, 0);
    assert_eq!(time.rows(), []);
}

/// Scenario: one node runs 30 s behind the other; then it falls silent, and is idle one microsecond after 60 s.
#[test]
fn the_slowest_live_node_holds_the_watermark_until_it_is_idle() {
    let mut time = fresh();
    apply(&mut time, &(100 * SECOND, vec![(0, 1, 99 * SECOND), (0, 2, 70 * SECOND)]));
    assert_eq!(time.watermark("fast"), Some(70 * SECOND));
    apply(&mut time, &(160 * SECOND, vec![(0, 1, 159 * SECOND)]));
    assert_eq!(time.watermark("fast"), Some(70 * SECOND), "60 s without a message is not idle yet");
    apply(&mut time, &(160 * SECOND + 1, vec![]));
    assert_eq!(time.watermark("fast"), Some(159 * SECOND));
}

/// Scenario: the same silence in a stream whose sources report each 40 s.
#[test]
fn a_node_of_a_slow_stream_is_live_for_three_periods() {
    let mut time = fresh();
    apply(&mut time, &(100 * SECOND, vec![(1, 1, 99 * SECOND), (1, 2, 70 * SECOND)]));
    apply(&mut time, &(220 * SECOND, vec![(1, 1, 219 * SECOND)]));
    assert_eq!(time.watermark("slow"), Some(70 * SECOND));
    apply(&mut time, &(220 * SECOND + 1, vec![]));
    assert_eq!(time.watermark("slow"), Some(219 * SECOND));
}

/// Scenario: all nodes fall silent; ticks go on.
#[test]
fn without_live_nodes_time_passes_with_the_log() {
    let mut time = fresh();
    let are_live = |time: &PartitionTime| ["fast", "slow", "unknown"].map(|stream| time.is_live(stream));
    assert_eq!(are_live(&time), [false, false, false]);
    apply(&mut time, &(100 * SECOND, vec![(0, 1, 99 * SECOND)]));
    apply(&mut time, &(150 * SECOND, vec![]));
    assert_eq!((time.watermark("fast"), are_live(&time)), (Some(99 * SECOND), [true, false, false]));
    apply(&mut time, &(161 * SECOND, vec![]));
    assert_eq!((time.watermark("fast"), are_live(&time)), (Some(101 * SECOND), [false, false, false]));
    apply(&mut time, &(1_000 * SECOND, vec![]));
    assert_eq!(time.watermark("fast"), Some(940 * SECOND));
}

/// Scenario: a node would be idle by the very message that brings its next rows.
#[test]
fn a_messages_own_rows_count_before_anybody_goes_idle_by_it() {
    let mut time = fresh();
    apply(&mut time, &(100 * SECOND, vec![(0, 1, 99 * SECOND), (0, 2, 90 * SECOND)]));
    apply(&mut time, &(170 * SECOND, vec![(0, 1, 169 * SECOND), (0, 2, 120 * SECOND)]));
    assert_eq!(time.watermark("fast"), Some(120 * SECOND));
}

/// Scenario: after a restart a node comes back with rows older than what was reached before, and another goes on.
/// Guarantees: the other stream's or node's progress alone does not decide: what was reached is kept.
#[test]
fn what_was_reached_outlives_a_restart() {
    let mut time = fresh();
    apply(&mut time, &(100 * SECOND, vec![(0, 1, 99 * SECOND)]));
    apply(&mut time, &(101 * SECOND, vec![(0, 2, 60 * SECOND)]));
    assert_eq!(time.watermark("fast"), Some(99 * SECOND));
    assert_eq!(restarted(&time, 101 * SECOND).watermark("fast"), Some(99 * SECOND));
}

/// Scenario: 100,000 nodes send one message each, a second apart.
/// Guarantees: memory follows the nodes that are live, not all that ever were.
#[test]
fn nodes_that_no_longer_matter_are_forgotten() {
    let mut time = fresh();
    for number in 0..100_000i64 {
        let at = number * SECOND;
        time.observe_message(at);
        time.observe_rows("fast", &number.to_string(), at, at);
        assert!(time.nodes() <= 4 * 64, "{} nodes after {number} messages", time.nodes());
    }
    assert_eq!(time.watermark("fast"), Some((100_000 - 1 - 60) * SECOND));
}

/// Scenario: many nodes, all of them live, one slower than the rest.
#[test]
fn live_nodes_are_never_forgotten() {
    let mut time = fresh();
    time.observe_message(0);
    time.observe_rows("fast", "slowest", -5 * SECOND, 0);
    for number in 0..1_000 {
        time.observe_rows("fast", &number.to_string(), 0, 0);
    }
    time.observe_message(60 * SECOND);
    time.observe_rows("fast", "one more", 60 * SECOND, 60 * SECOND);
    assert_eq!((time.nodes(), time.watermark("fast")), (1_002, Some(-5 * SECOND)));
}

proptest! {
    /// Guarantees: the rule, to the letter, however often anyone asks in between; and never back.
    #[test]
    fn the_watermark_is_that_of_the_plain_rule(log in logs()) {
        let (mut time, mut plain) = (fresh(), Plain::default());
        let mut before = [None; 2];
        for message in &log {
            apply(&mut time, message);
            let now = marks(&time);
            prop_assert_eq!(now, plain.apply(message));
            prop_assert_eq!(now, marks(&time), "asking changes nothing");
            prop_assert!(now.iter().zip(&before).all(|(now, before)| now >= before));
            before = now;
        }
    }

    /// Guarantees: the order of rows in a message, and their cut into runs, change nothing.
    #[test]
    fn a_message_is_the_unit(log in logs(), swap in any::<bool>()) {
        let (mut time, mut cut) = (fresh(), fresh());
        for message in &log {
            apply(&mut time, message);
            let mut rows: Vec<_> = message.1.iter().flat_map(|row| [(row.0, row.1, row.2 - SECOND), *row]).collect();
            if swap {
                rows.reverse();
            }
            apply(&mut cut, &(message.0, rows));
            prop_assert_eq!(marks(&cut), marks(&time));
        }
    }

    /// Guarantees: a restart at any point, any number of times, changes no watermark afterwards.
    #[test]
    fn a_restart_changes_nothing(log in logs(), restarts in proptest::collection::btree_set(0..60usize, 0..8)) {
        let (mut time, mut cut) = (fresh(), fresh());
        for (number, message) in log.iter().enumerate() {
            apply(&mut time, message);
            apply(&mut cut, message);
            if restarts.contains(&number) {
                cut = restarted(&cut, message.0);
            }
            prop_assert_eq!(marks(&cut), marks(&time), "after message {}", number);
        }
    }

    /// Guarantees: forgetting, at any moment, changes no watermark afterwards.
    #[test]
    fn forgetting_changes_nothing(log in logs(), often in proptest::collection::btree_set(0..60usize, 0..60)) {
        let (mut time, mut forgetful) = (fresh(), fresh());
        for (number, message) in log.iter().enumerate() {
            time.observe_message(message.0);
            forgetful.observe_message(message.0);
            if often.contains(&number) {
                let log_time = forgetful.log_time;
                forgetful.streams.iter_mut().for_each(|stream| stream.forget(log_time));
            }
            for (stream, node, newest) in &message.1 {
                time.observe_rows(STREAMS[*stream].0, &format!("n{node}"), *newest, message.0);
                forgetful.observe_rows(STREAMS[*stream].0, &format!("n{node}"), *newest, message.0);
            }
            prop_assert_eq!(marks(&forgetful), marks(&time), "after message {}", number);
        }
    }
}
