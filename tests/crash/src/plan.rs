//! What is done to the victims of one case: pure, and the same for the same seed and case.
//!
//! Every victim has a lane: a list of lives. A life begins with a start and ends as its [`End`] says; after the last one the
//! victim is started once more and left alone. Named crash points take turns over the cases (`turns.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compare::Late;
use crate::dice::Dice;
use crate::errands;
use crate::site::Mode;
use crate::turns::{Round, Turns};

/// Named points between the steps of the protocols, found in the sources when this program was built.
pub const POINTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/points.rs"));

/// How long a life may take to come to its point. A commit, a publication and a claim come several times within it.
const POINT_LIMIT: Duration = Duration::from_secs(8);

/// Of a hundred ends so many are at points; and so many while there are points where nothing of the mode has died yet.
const AT_POINTS: (u64, u64) = (35, 65);

/// How long lives of a kind of victim are.
struct Pace {
    /// Milliseconds from the start to an end at work.
    at_work: (u64, u64),
    /// Milliseconds that it stands still when frozen.
    frozen: (u64, u64),
    /// Milliseconds from its awakening to its end.
    awake: (u64, u64),
    /// How long it may take to come to its point.
    point: Duration,
}

/// A process alone with its log.
const ALONE: Pace = Pace { at_work: (400, 3_000), frozen: (200, 2_500), awake: (0, 2_500), point: POINT_LIMIT };

/// The session timeout of a member, milliseconds.
pub const SESSION: u64 = 6_000;

/// A member of a consumer group, which has no shards before the group has got over the last death: the session timeout. Frozen for
/// longer than that it loses them, and wakes as a zombie.
const MEMBER: Pace = Pace {
    at_work: (3_000, 10_000),
    frozen: (SESSION + 1_000, SESSION + 4_000),
    awake: (1_000, 4_000),
    point: Duration::from_secs(16),
};

/// How a life ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// SIGKILL so long after the start, whatever the victim does at that moment.
    Kill {
        /// From the start.
        after: Duration,
    },
    /// It dies by itself at the `pass`th pass of a named point; by SIGKILL if it has not come there within `limit`.
    Point {
        /// The point.
        name: &'static str,
        /// Which pass is fatal.
        pass: u64,
        /// When to stop waiting for it.
        limit: Duration,
    },
    /// SIGTERM, and a graceful end with success.
    Stop {
        /// From the start.
        after: Duration,
    },
    /// SIGSTOP, SIGCONT after `span`, and SIGKILL some time later.
    Freeze {
        /// From the start.
        after: Duration,
        /// How long it stands still.
        span: Duration,
        /// From SIGCONT to SIGKILL.
        then: Duration,
    },
}

/// The lives of one victim after the other.
pub type Lane = Vec<End>;

/// What a case is made of, beside its mode and seed. It stands in the case's line of the results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Ends of processes.
    pub kills: usize,
    /// Processors over Kafka.
    pub processors: usize,
    /// What becomes of late rows.
    pub late: Late,
    /// Which points it goes for.
    pub turns: Turns,
}

/// The points that processes or tools of a mode come to.
pub fn points(mode: Mode, late: Late) -> Vec<&'static str> {
    let is_met = |name: &&str| mode.has(name) && (mode.passes(name) || errands::come_to(name, late));
    POINTS.iter().copied().filter(is_met).collect()
}

/// One lane for each victim of the mode, with about `plan.kills` ends in all.
///
/// Victim 0 is what the senders talk to: `airan up`, or the gateway. Of several processors at least one is frozen past its session.
pub fn lanes(mode: Mode, plan: &Plan, seed: u64) -> Vec<Lane> {
    let mut dice = Dice::new(seed, 1);
    // Tools come to some of them as well; the others are these processes' alone.
    let mut round = plan.turns.round(|name| mode.passes(name), |name| !errands::come_to(name, plan.late));
    if !mode.has_kafka() {
        return vec![lane(plan.kills, &mut dice, &ALONE, Some(&mut round))];
    }
    // A gateway has no commit to be cut in two; every fourth end is one of its.
    let gateway = plan.kills / 4;
    let share = (plan.kills - gateway).div_ceil(plan.processors.max(1));
    let mut lanes = vec![lane(gateway, &mut dice, &ALONE, None)];
    lanes.extend((0..plan.processors).map(|_| lane(share, &mut dice, &MEMBER, Some(&mut round))));
    let is_frozen = lanes[1..].iter().flatten().any(|end| matches!(end, End::Freeze { .. }));
    if plan.processors > 1 && share > 0 && !is_frozen {
        let of = dice.between(1, plan.processors as u64) as usize;
        let life = dice.between(u64::from(share > 1), share as u64 - 1) as usize;
        lanes[of][life] = freeze(&mut dice, &MEMBER);
    }
    lanes
}

fn lane(lives: usize, dice: &mut Dice, pace: &Pace, mut round: Option<&mut Round>) -> Lane {
    let mut lane = Lane::new();
    for life in 0..lives {
        // The first life makes what most points need: a log, a topic, a lake.
        let round = round.as_deref_mut().filter(|_| life > 0);
        lane.push(draw(dice, pace, round));
    }
    lane
}

fn draw(dice: &mut Dice, pace: &Pace, round: Option<&mut Round>) -> End {
    let at_points = round.as_ref().map_or(0, |round| if round.has_never() { AT_POINTS.1 } else { AT_POINTS.0 });
    if dice.chance(at_points)
        && let Some((name, pass)) = round.and_then(|round| round.take(4, dice))
    {
        return End::Point { name, pass, limit: pace.point };
    }
    match dice.between(0, 64) {
        0..7 => End::Stop { after: dice.millis(100, pace.at_work.1) },
        7..12 => freeze(dice, pace),
        // Many kills hit the start: reading records, claiming, rebuilding windows.
        12..35 => End::Kill { after: dice.millis(20, 500) },
        _ => End::Kill { after: dice.millis(pace.at_work.0, pace.at_work.1) },
    }
}

fn freeze(dice: &mut Dice, pace: &Pace) -> End {
    let mut millis = |(from, to): (u64, u64)| dice.millis(from, to);
    End::Freeze { after: millis(pace.at_work), span: millis(pace.frozen), then: millis(pace.awake) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::results::Kills;

    /// A plan of a mode, of which processes have died at `known`.
    fn plan(mode: Mode, kills: usize, known: &Kills, seed: u64) -> Plan {
        let turns = Turns::of(&points(mode, Late::Restated), known, &mut Dice::new(seed, 5));
        Plan { kills, processors: 3, late: Late::Restated, turns }
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
}
