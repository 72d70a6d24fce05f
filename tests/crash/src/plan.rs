//! What is done to the victims of one case: pure, and the same for the same seed and case.
//!
//! Every victim has a lane: a list of lives. A life begins with a start and ends as its [`End`] says; after the last one the
//! victim is started once more and left alone. Named crash points take turns over the cases (`turns.rs`). What is done to the broker
//! meanwhile is a list of its own, of [`Strike`]s.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::Newcomer;
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
    /// Milliseconds that it is cut off from the broker.
    cut: (u64, u64),
    /// Milliseconds from its awakening, or from when it has the broker again, to its end.
    awake: (u64, u64),
    /// How long it may take to come to its point.
    point: Duration,
}

/// A process alone with its log, or a gateway: cut off for less and for longer than it waits for an acknowledgement, and than a request
/// waits for it.
const ALONE: Pace =
    Pace { at_work: (400, 3_000), frozen: (200, 2_500), cut: (1_000, 6_000), awake: (0, 2_500), point: POINT_LIMIT };

/// The session timeout of a member, milliseconds.
pub const SESSION: u64 = 6_000;

/// A member of a consumer group, which has no shards before the group has got over the last death: the session timeout. Frozen for
/// longer than that it loses them, and wakes as a zombie; cut off for longer it works on for a while and does not know.
const MEMBER: Pace = Pace {
    at_work: (3_000, 10_000),
    frozen: (SESSION + 1_000, SESSION + 4_000),
    cut: (SESSION + 1_000, SESSION + 4_000),
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
    /// Its way to the broker is cut, mended after `span`, and it ends some time later.
    Cut {
        /// From the start.
        after: Duration,
        /// How long nothing comes through.
        span: Duration,
        /// What becomes of the connections it makes meanwhile.
        newcomer: Newcomer,
        /// From the mending to its end.
        then: Duration,
        /// By SIGTERM, or else by SIGKILL.
        is_stopped: bool,
    },
}

/// What is done to the broker, whoever of the victims lives or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Strike {
    /// It is ended and started again with its data.
    Restart {
        /// By SIGKILL, or else in order.
        is_killed: bool,
        /// From its end to its start.
        away: Duration,
    },
    /// What all shards have committed is deleted from the topic.
    Delete,
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
    /// Whether victims are cut off from the broker. Lines of earlier releases say nothing of it, nor of what follows.
    #[serde(default)]
    pub cuts: bool,
    /// Whether the broker is started again.
    #[serde(default)]
    pub restart: bool,
    /// Whether committed records are deleted.
    #[serde(default)]
    pub delete: bool,
}

/// The points that processes or tools of a mode come to.
pub fn points(mode: Mode, late: Late) -> Vec<&'static str> {
    let is_met = |name: &&str| mode.has(name) && (mode.passes(name) || errands::come_to(name, late));
    POINTS.iter().copied().filter(is_met).collect()
}

/// One lane for each victim of the mode, with about `plan.kills` ends in all.
///
/// Victim 0 is what the senders talk to: `airan up`, or the gateway. Of several processors at least one is frozen past its session, and
/// where there are cuts one is cut off for longer than that.
pub fn lanes(mode: Mode, plan: &Plan, seed: u64) -> Vec<Lane> {
    let mut dice = Dice::new(seed, 1);
    // Tools come to some of them as well; the others are these processes' alone.
    let mut round = plan.turns.round(|name| mode.passes(name), |name| !errands::come_to(name, plan.late));
    if !mode.has_kafka() {
        return vec![lane(plan.kills, &mut dice, &ALONE, Some(&mut round), false)];
    }
    // A gateway has no commit to be cut in two; every fourth end is one of its.
    let gateway = plan.kills / 4;
    let share = (plan.kills - gateway).div_ceil(plan.processors.max(1));
    let mut lanes = vec![lane(gateway, &mut dice, &ALONE, None, plan.cuts)];
    lanes.extend((0..plan.processors).map(|_| lane(share, &mut dice, &MEMBER, Some(&mut round), plan.cuts)));
    let is_freeze = |end: &End| matches!(end, End::Freeze { .. });
    let is_frozen = lanes[1..].iter().flatten().any(is_freeze);
    if plan.processors > 1 && share > 0 && !is_frozen {
        let of = dice.between(1, plan.processors as u64) as usize;
        let life = dice.between(u64::from(share > 1), share as u64 - 1) as usize;
        lanes[of][life] = freeze(&mut dice, &MEMBER);
    }
    let is_cut = lanes[1..].iter().flatten().any(|end| matches!(end, End::Cut { .. }));
    if plan.cuts && plan.processors > 1 && !is_cut {
        // Both take long: where it can be, in lanes that go on at the same time.
        let mut able: Vec<usize> = (1..lanes.len()).filter(|of| !lanes[*of].iter().any(is_freeze)).collect();
        if able.is_empty() {
            able = (1..lanes.len()).collect();
        }
        let of = able[dice.between(0, able.len() as u64 - 1) as usize];
        let lives = usize::from(share > 1)..share;
        let lives: Vec<usize> = lives.filter(|life| !is_freeze(&lanes[of][*life])).collect();
        if !lives.is_empty() {
            let life = lives[dice.between(0, lives.len() as u64 - 1) as usize];
            lanes[of][life] = cut(&mut dice, &MEMBER);
        }
    }
    lanes
}

/// What is done to the broker in a case, each so long after the one before has been done.
pub fn strikes(plan: &Plan, seed: u64) -> Vec<(Duration, Strike)> {
    let mut dice = Dice::new(seed, 6);
    let mut strikes = Vec::new();
    if plan.delete {
        strikes.push(Strike::Delete);
    }
    if plan.restart {
        let restart = Strike::Restart { is_killed: dice.chance(50), away: dice.millis(0, SESSION) };
        strikes.insert(dice.between(0, strikes.len() as u64) as usize, restart);
    }
    strikes.into_iter().map(|strike| (dice.millis(2_000, 10_000), strike)).collect()
}

fn lane(lives: usize, dice: &mut Dice, pace: &Pace, mut round: Option<&mut Round>, cuts: bool) -> Lane {
    let mut lane = Lane::new();
    for life in 0..lives {
        // The first life makes what most points need: a log, a topic, a lake.
        let round = round.as_deref_mut().filter(|_| life > 0);
        lane.push(draw(dice, pace, round, cuts));
    }
    lane
}

fn draw(dice: &mut Dice, pace: &Pace, round: Option<&mut Round>, cuts: bool) -> End {
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
        35..40 if cuts => cut(dice, pace),
        _ => End::Kill { after: dice.millis(pace.at_work.0, pace.at_work.1) },
    }
}

fn freeze(dice: &mut Dice, pace: &Pace) -> End {
    let mut millis = |(from, to): (u64, u64)| dice.millis(from, to);
    End::Freeze { after: millis(pace.at_work), span: millis(pace.frozen), then: millis(pace.awake) }
}

fn cut(dice: &mut Dice, pace: &Pace) -> End {
    let newcomer = if dice.chance(50) { Newcomer::Waits } else { Newcomer::IsTurnedAway };
    let is_stopped = dice.chance(30);
    let mut millis = |(from, to): (u64, u64)| dice.millis(from, to);
    End::Cut { after: millis(pace.at_work), span: millis(pace.cut), newcomer, then: millis(pace.awake), is_stopped }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
