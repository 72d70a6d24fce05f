//! What is done to the victims of one case: pure, and the same for the same seed and case.
//!
//! Every victim has a lane: a list of lives. A life begins with a start and ends as its [`End`] says; after the last one the
//! victim is started once more and left alone. Named crash points take turns over the cases, so each of them gets its share
//! whatever the seed.

use std::time::Duration;

use crate::dice::Dice;
use crate::site::Mode;

/// Named points between the steps of the protocols, found in the sources when this program was built.
pub const POINTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/points.rs"));

/// How long a life may take to come to its point. A commit, a publication and a claim come several times within it.
const POINT_LIMIT: Duration = Duration::from_secs(8);

/// How long lives of a kind of victim are.
struct Pace {
    /// Milliseconds from the start to an end at work.
    at_work: (u64, u64),
    /// Milliseconds that it stands still when frozen.
    frozen: (u64, u64),
    /// How long it may take to come to its point.
    point: Duration,
}

/// A process alone with its log.
const ALONE: Pace = Pace { at_work: (400, 3_000), frozen: (200, 2_500), point: POINT_LIMIT };

/// A member of a consumer group, which has no shards before the group has got over the last death: the session timeout, which the
/// harness sets to 6 s. Frozen for longer than that it loses them, and wakes as a zombie.
const MEMBER: Pace = Pace { at_work: (3_000, 10_000), frozen: (7_000, 10_000), point: Duration::from_secs(16) };

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

/// One lane for each victim of the mode, with about `kills` ends in all.
///
/// Victim 0 is what the senders talk to: `airan up`, or the gateway.
pub fn lanes(mode: Mode, processors: usize, case: u64, seed: u64, kills: usize) -> Vec<Lane> {
    let mut dice = Dice::new(seed, 1);
    let points: Vec<&'static str> = POINTS.iter().copied().filter(|name| mode.passes(name)).collect();
    let mut turn = case as usize * kills.div_ceil(3);
    let mut point = |dice: &mut Dice, pace: &Pace| {
        let name = *points.get(turn % points.len().max(1))?;
        turn += 1;
        // Most points are passed several times in a life; those of a start are passed once for each shard.
        let pass = if dice.chance(60) { 1 } else { dice.between(2, 4) };
        Some(End::Point { name, pass, limit: pace.point })
    };
    if !mode.has_kafka() {
        return vec![(0..kills).map(|_| draw(&mut dice, &ALONE, &mut point)).collect()];
    }
    // A gateway has no commit to be cut in two; every fourth end is one of its.
    let gateway = kills / 4;
    let mut lanes = vec![(0..gateway).map(|_| draw(&mut dice, &ALONE, &mut |_, _| None)).collect::<Lane>()];
    let share = (kills - gateway).div_ceil(processors.max(1));
    lanes.extend((0..processors).map(|_| (0..share).map(|_| draw(&mut dice, &MEMBER, &mut point)).collect()));
    lanes
}

fn draw(dice: &mut Dice, pace: &Pace, point: &mut impl FnMut(&mut Dice, &Pace) -> Option<End>) -> End {
    let millis = |dice: &mut Dice, (from, to): (u64, u64)| dice.millis(from, to);
    match dice.between(0, 99) {
        0..35 => match point(dice, pace) {
            Some(end) => end,
            None => End::Kill { after: millis(dice, pace.at_work) },
        },
        35..42 => End::Stop { after: millis(dice, (100, pace.at_work.1)) },
        42..47 => End::Freeze {
            after: millis(dice, pace.at_work),
            span: millis(dice, pace.frozen),
            then: dice.millis(0, 2_500),
        },
        // Many kills hit the start: reading records, claiming, rebuilding windows.
        47..70 => End::Kill { after: dice.millis(20, 500) },
        _ => End::Kill { after: millis(dice, pace.at_work) },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Scenario: the cases of a run of a few hundred kills on the local log.
    /// Guarantees: one case replays from its seed; every point of the mode is asked for; kills of every kind are among them.
    #[test]
    fn every_point_gets_its_turn() {
        assert_eq!(lanes(Mode::Local, 1, 3, 7, 12), lanes(Mode::Local, 1, 3, 7, 12));
        assert_ne!(lanes(Mode::Local, 1, 3, 7, 12), lanes(Mode::Local, 1, 3, 8, 12));
        let ends: Vec<End> = (0..60).flat_map(|case| lanes(Mode::Local, 1, case, 100 + case, 12).concat()).collect();
        let asked: BTreeSet<&str> =
            ends.iter().filter_map(|end| if let End::Point { name, .. } = end { Some(*name) } else { None }).collect();
        let all: BTreeSet<&str> = POINTS.iter().copied().filter(|name| Mode::Local.passes(name)).collect();
        assert!(all.len() >= 6, "the build found {all:?}");
        assert_eq!(asked, all);
        assert!(ends.iter().any(|end| matches!(end, End::Stop { .. })));
        assert!(ends.iter().any(|end| matches!(end, End::Freeze { .. })));
    }

    /// Guarantees: whoever adds a point says what lies there and what recovery does.
    #[test]
    fn every_point_stands_in_the_protocol() {
        let protocol = include_str!("../../../crates/airan-lake/PROTOCOL.md");
        let missing: Vec<&&str> = POINTS.iter().filter(|name| !protocol.contains(&format!("| `{name}` |"))).collect();
        assert!(missing.is_empty(), "not in crates/airan-lake/PROTOCOL.md: {missing:?}");
    }

    /// Scenario: three processors and a gateway over Kafka.
    /// Guarantees: a lane each; a gateway is never sent to a point, for it passes none.
    #[test]
    fn over_kafka_every_process_has_its_lane() {
        let lanes = lanes(Mode::Kafka, 3, 0, 7, 20);
        assert_eq!(lanes.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5]);
        assert!(!lanes[0].iter().any(|end| matches!(end, End::Point { .. })));
    }
}
