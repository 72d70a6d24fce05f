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
    let mut point = |dice: &mut Dice| {
        let name = *points.get(turn % points.len().max(1))?;
        turn += 1;
        // Most points are passed several times in a life; those of a start are passed once for each shard.
        let pass = if dice.chance(60) { 1 } else { dice.between(2, 4) };
        Some(End::Point { name, pass, limit: POINT_LIMIT })
    };
    if !mode.has_kafka() {
        return vec![(0..kills).map(|_| draw(&mut dice, &mut point, (200, 2_500))).collect()];
    }
    // A gateway has no commit to be cut in two; every fourth end is one of its.
    let gateway = kills / 4;
    let mut lanes = vec![(0..gateway).map(|_| draw(&mut dice, &mut |_| None, (0, 2_000))).collect::<Lane>()];
    let share = (kills - gateway).div_ceil(processors.max(1));
    // Longer than the session timeout that the harness sets (6 s): the group takes the shards away from who stands still.
    lanes.extend((0..processors).map(|_| (0..share).map(|_| draw(&mut dice, &mut point, (7_000, 10_000))).collect()));
    lanes
}

fn draw(dice: &mut Dice, point: &mut impl FnMut(&mut Dice) -> Option<End>, freeze: (u64, u64)) -> End {
    match dice.between(0, 99) {
        0..35 => match point(dice) {
            Some(end) => end,
            None => End::Kill { after: dice.millis(30, 2_500) },
        },
        35..42 => End::Stop { after: dice.millis(100, 2_500) },
        42..47 => End::Freeze {
            after: dice.millis(300, 2_000),
            span: dice.millis(freeze.0, freeze.1),
            then: dice.millis(0, 1_500),
        },
        // Half of the kills hit the start: reading records, claiming, rebuilding windows.
        47..70 => End::Kill { after: dice.millis(20, 500) },
        _ => End::Kill { after: dice.millis(400, 3_000) },
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

    /// Scenario: three processors and a gateway over Kafka.
    /// Guarantees: a lane each; a gateway is never sent to a point, for it passes none.
    #[test]
    fn over_kafka_every_process_has_its_lane() {
        let lanes = lanes(Mode::Kafka, 3, 0, 7, 20);
        assert_eq!(lanes.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5]);
        assert!(!lanes[0].iter().any(|end| matches!(end, End::Point { .. })));
    }
}
