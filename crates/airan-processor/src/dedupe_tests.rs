use super::*;
use airan_model::time::{DAY, HOUR};
use proptest::prelude::*;
use std::collections::HashSet;

fn settings(ranges: usize) -> IdentitySettings {
    IdentitySettings { foreign_memory: "1h".parse().unwrap(), agent_memory: "40d".parse().unwrap(), ranges }
}

type Row<'a> = (&'a str, Option<&'a str>, Option<i64>);

fn admit(identities: &mut Identities, source: Option<&str>, rows: &[Row<'_>], at: Micros) -> (Vec<bool>, u64) {
    let node: StringArray = rows.iter().map(|row| Some(row.0)).collect();
    let batch: StringArray = rows.iter().map(|row| row.1).collect();
    let seq: Int64Array = rows.iter().map(|row| row.2).collect();
    let source: StringArray = rows.iter().map(|_| source).collect();
    let site: StringArray = rows.iter().map(|_| Some("s")).collect();
    let ts: Vec<Micros> = rows.iter().map(|row| row.2.unwrap_or(0)).collect();
    let columns = IdentityColumns { node: &node, batch: &batch, seq: &seq, source: &source, site: &site, ts: &ts };
    let admitted = identities.admit(&columns, at);
    let new = admitted.new.map_or(vec![true; rows.len()], |new| new.iter().map(|new| new.unwrap()).collect());
    assert_eq!(new.iter().filter(|new| !**new).count() as u64, admitted.duplicates);
    (new, admitted.anonymous)
}

#[test]
fn the_same_row_is_new_once_and_a_row_without_identity_always() {
    let mut identities = Identities::new(&settings(1000));
    let rows =
        [("a", Some("x"), Some(0)), ("a", Some("x"), Some(1)), ("b", Some("x"), Some(1)), ("a", Some("y"), Some(1))];
    assert_eq!(admit(&mut identities, None, &rows, 0), (vec![true; 4], 0));
    let again = [("a", Some("x"), Some(1)), ("a", Some("x"), Some(2)), ("a", None, Some(2)), ("a", Some("x"), Some(0))];
    assert_eq!(admit(&mut identities, None, &again, 0), (vec![false, true, true, false], 1));
    let twice = [("c", Some("x"), Some(5)), ("c", Some("x"), Some(5)), ("c", Some("x"), None), ("c", Some("x"), None)];
    assert_eq!(admit(&mut identities, None, &twice, 0), (vec![true, false, true, true], 2));
}

/// Scenario: a batch that a gateway made, at any door, and one that its sender made come again within and after an hour.
/// Guarantees: the gateway's is forgotten after an hour of log time, the sender's is not.
#[test]
fn foreign_batches_live_an_hour_and_agents_long() {
    for (source, kept) in [
        (Some("otlp_http/protobuf"), false),
        (Some("arrow/ipc"), false),
        (Some("arrow/scrape/prometheus"), false),
        (Some("agent/rows"), false),
        (None, false),
        (Some("arrow+id/ipc"), true),
        (Some("ndjson+id/json"), true),
        (Some("scrape/prometheus"), true),
        (Some("procfs/host"), true),
    ] {
        let mut identities = Identities::new(&settings(1000));
        let row = [("a", Some("x"), Some(7))];
        assert_eq!(admit(&mut identities, source, &row, 0).0, [true], "{source:?}");
        assert_eq!(admit(&mut identities, source, &row, HOUR).0, [false], "{source:?}");
        assert_eq!(admit(&mut identities, source, &row, 2 * HOUR + 1).0, [!kept], "{source:?}");
        admit(&mut identities, source, &[("b", Some("z"), Some(0))], 20 * DAY);
        assert_eq!(identities.batches(), if kept { 2 } else { 1 }, "{source:?}");
        assert_eq!(identities.ranges, identities.batches());
        admit(&mut identities, source, &[("b", Some("z"), Some(0))], 90 * DAY);
        assert_eq!(identities.batches(), 1, "{source:?}");
    }
}

#[test]
fn over_the_limit_the_batches_idle_longest_go_and_are_counted() {
    let mut identities = Identities::new(&settings(10));
    for batch in 0..11 {
        let name = format!("{batch:032x}");
        admit(&mut identities, None, &[("a", Some(&name), Some(0))], batch);
    }
    assert_eq!((identities.forgotten_early, identities.batches(), identities.ranges), (2, 9, 9));
    let name = format!("{:032x}", 10);
    assert_eq!(admit(&mut identities, None, &[("a", Some(&name), Some(0))], 11).0, [false]);
    let name = format!("{:032x}", 0);
    assert_eq!(admit(&mut identities, None, &[("a", Some(&name), Some(0))], 11).0, [true]);
}

proptest! {
    /// Scenario: messages of runs of a few nodes and batches with repetitions, and a restart between any two.
    /// Guarantees: each identity is new exactly once, whatever the cut into messages.
    #[test]
    fn each_row_is_new_once(messages in prop::collection::vec(prop::collection::vec((0usize..2, 0usize..3, 0i64..20, 1i64..6), 1..5), 1..12)) {
        const NODES: [&str; 2] = ["a", "b"];
        const BATCHES: [&str; 3] = ["x", "y", "z"];
        let mut identities = Identities::new(&settings(100_000));
        let mut set = HashSet::new();
        for message in messages {
            let rows: Vec<Row<'_>> = message
                .iter()
                .flat_map(|(node, batch, first, length)| {
                    (*first..first + length).map(|seq| (NODES[*node], Some(BATCHES[*batch]), Some(seq)))
                })
                .collect();
            let expected: Vec<bool> = rows.iter().map(|row| set.insert(*row)).collect();
            prop_assert_eq!(admit(&mut identities, None, &rows, 0).0, expected);
            let mut restarted = Identities::new(&settings(100_000));
            identities.iter().cloned().for_each(|known| restarted.restore(known));
            prop_assert_eq!(restarted.ranges, identities.ranges);
            identities = restarted;
        }
    }
}
