//! Tests of the plan: which ends, whose and when.

use std::collections::BTreeSet;

use super::*;
use crate::results::Kills;

/// A plan of a mode, of which processes have died at `known`.
fn plan(mode: Mode, kills: usize, known: &Kills, seed: u64) -> Plan {
    let turns = Turns::of(&points(mode, Late::Restated), known, &mut Dice::new(seed, 5));
    Plan { kills, processors: 3, late: Late::Restated, turns, ..Plan::default() }
}

/// Scenario: cases of twelve kills on the local log, one after the other, each planned from what the ones before had died at.
/// Guarantees: one case replays from its seed and turns; every point of the processes has been asked for after a few cases; ends of
/// every kind are among them.
#[test]
fn every_point_gets_its_turn() {
    let first = plan(Mode::Local, 12, &Kills::default(), 7);
    assert_eq!(lanes(Mode::Local, &first, 7), lanes(Mode::Local, &first, 7));
    assert_ne!(lanes(Mode::Local, &first, 7), lanes(Mode::Local, &first, 8));
    let (mut known, mut ends) = (Kills::default(), Vec::new());
    for seed in 100..108 {
        let lane = lanes(Mode::Local, &plan(Mode::Local, 12, &known, seed), seed).concat();
        assert!(!matches!(lane[0], End::Point { .. }), "nothing is there yet: {:?}", lane[0]);
        for end in lane {
            if let End::Point { name, .. } = end {
                *known.points.entry(name.to_owned()).or_default() += 1;
            }
            ends.push(end);
        }
    }
    let asked: BTreeSet<&str> = known.points.keys().map(String::as_str).collect();
    let all: BTreeSet<&str> = POINTS.iter().copied().filter(|name| Mode::Local.passes(name)).collect();
    assert!(all.len() >= 6, "the build found {all:?}");
    assert_eq!(asked, all);
    assert!(ends.iter().any(|end| matches!(end, End::Stop { .. })));
    assert!(ends.iter().any(|end| matches!(end, End::Kill { .. })));
}

/// Guarantees: a point is somebody's matter in some mode, and on the local log everybody's are all.
#[test]
fn every_point_is_of_a_mode() {
    assert_eq!(points(Mode::Local, Late::Restated), POINTS);
    let over_kafka = points(Mode::KafkaS3, Late::Restated);
    assert!(over_kafka.contains(&"lake.compact.written") && !over_kafka.contains(&"log.open.cut"));
    assert!(!over_kafka.contains(&"lake.settle.taken"));
    assert!(!points(Mode::Local, Late::Counted).contains(&"lake.erase.noted"));
}

/// Guarantees: whoever adds a point says what lies there and what recovery does.
#[test]
fn every_point_stands_in_the_protocol() {
    let protocol = include_str!("../../../crates/airan-lake/PROTOCOL.md");
    let missing: Vec<&&str> = POINTS.iter().filter(|name| !protocol.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "not in crates/airan-lake/PROTOCOL.md: {missing:?}");
}

/// Scenario: three processors and a gateway over Kafka, in many cases.
/// Guarantees: a lane each; a gateway is never sent to a point, for it passes none; in every case a processor is frozen for longer
/// than its session lasts, awake for a while after it, and not in its first life; one alone need not be.
#[test]
fn over_kafka_every_process_has_its_lane_and_one_is_frozen() {
    for seed in 0..200 {
        let plan = plan(Mode::Kafka, 20, &Kills::default(), seed);
        let lanes = lanes(Mode::Kafka, &plan, seed);
        assert_eq!(lanes.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5]);
        assert!(!lanes[0].iter().any(|end| matches!(end, End::Point { .. })));
        let zombies = lanes[1..].iter().flatten().filter(|end| match end {
            End::Freeze { span, then, .. } => span.as_millis() > SESSION.into() && then.as_millis() >= 1_000,
            _ => false,
        });
        assert!(zombies.count() > 0, "seed {seed}: {lanes:?}");
    }
    let alone = |seed| Plan { processors: 1, ..plan(Mode::Kafka, 12, &Kills::default(), seed) };
    let is_frozen = |lane: &Lane| lane.iter().any(|end| matches!(end, End::Freeze { .. }));
    assert!((0..20).any(|seed| !is_frozen(&lanes(Mode::Kafka, &alone(seed), seed)[1])));
}

/// Scenario: gateways and two or three processors over Kafka, with wires that can be cut, in many cases.
/// Guarantees: in every case a processor is cut off for longer than its session lasts, and another or the same one frozen; gateways are cut off too; both ways of treating newcomers and both ends are drawn; a plan without cuts, as lines of
/// earlier releases have, gives the lanes it gave then.
#[test]
fn over_kafka_a_processor_is_cut_off_in_every_case() {
    let mut seen = BTreeSet::new();
    let mut gateways = 0;
    for seed in 0..200 {
        let without = Plan { processors: 2 + seed as usize % 2, ..plan(Mode::Kafka, 12, &Kills::default(), seed) };
        let plan = Plan { cuts: true, ..without.clone() };
        assert_eq!(lanes(Mode::Kafka, &plan, seed), lanes(Mode::Kafka, &plan, seed));
        let lanes_of = lanes(Mode::Kafka, &plan, seed);
        let mut cuts = 0;
        for end in lanes_of[1..].iter().flatten() {
            if let End::Cut { span, newcomer, then, is_stopped, .. } = end {
                assert!(span.as_millis() > SESSION.into() && then.as_millis() >= 1_000, "seed {seed}: {end:?}");
                seen.insert((*newcomer == Newcomer::Waits, *is_stopped));
                cuts += 1;
            }
        }
        assert!(cuts > 0, "seed {seed}: {lanes_of:?}");
        assert!(lanes_of[1..].iter().flatten().any(|end| matches!(end, End::Freeze { .. })), "seed {seed}");
        gateways += lanes_of[0].iter().filter(|end| matches!(end, End::Cut { .. })).count();
        let ends = lanes(Mode::Kafka, &without, seed).concat();
        assert!(!ends.iter().any(|end| matches!(end, End::Cut { .. })), "seed {seed}: {ends:?}");
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(gateways > 10, "{gateways} of 600 lives of gateways");
}

/// Guarantees: a broker is started again once in a case, killed in some and ended in order in others, before and after records are
/// deleted; nothing is done to it where the plan says nothing of it.
#[test]
fn a_broker_is_started_again_once() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let plan = Plan { restart: true, delete: true, ..Plan::default() };
        let strikes: Vec<Strike> = strikes(&plan, seed).into_iter().map(|(_, strike)| strike).collect();
        let at = strikes.iter().position(|strike| matches!(strike, Strike::Restart { .. })).unwrap();
        assert!(strikes.len() == 2 && strikes[1 - at] == Strike::Delete, "seed {seed}: {strikes:?}");
        if let Strike::Restart { is_killed, away } = strikes[at] {
            assert!(away <= Duration::from_millis(SESSION));
            seen.insert((at, is_killed));
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(strikes(&Plan::default(), 1).is_empty());
}
