//! Whose turn it is: which named points a case goes for, by how often processes of its mode have died there so far.
//!
//! The count is that of the results file, so long runs come to every point whatever their seeds. What a case was given stands in its
//! line of that file: with the seed it determines the case, which can be run again (`--again`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::plan::POINTS;
use crate::results::Kills;

/// A death weighs so much, a point that was asked for and not come to 1: what is hard to come to is asked for more often, and does not
/// keep the others from their turns.
const DEATH: u64 = 3;

/// The points of a mode in the order of their turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Where nothing has died yet.
    pub never: Vec<String>,
    /// The others, those with the fewest deaths first.
    pub others: Vec<String>,
}

impl Turns {
    /// Of `points`, after `kills`. Among equals chance decides.
    pub fn of(points: &[&str], kills: &Kills, dice: &mut Dice) -> Turns {
        let count = |of: &BTreeMap<String, u64>, name: &str| of.get(name).copied().unwrap_or_default();
        let weight = |name: &str| DEATH * count(&kills.points, name) + count(&kills.unreached, name);
        let mut sorted: Vec<(u64, u64, &str)> = points.iter().map(|name| (weight(name), dice.draw(), *name)).collect();
        sorted.sort_unstable();
        let (never, others): (Vec<_>, Vec<_>) =
            sorted.into_iter().partition(|(_, _, name)| count(&kills.points, name) == 0);
        let names = |of: Vec<(u64, u64, &str)>| of.into_iter().map(|(_, _, name)| name.to_owned()).collect();
        Turns { never: names(never), others: names(others) }
    }

    /// The turns of those that somebody `can` come to, and among those where nothing has died yet of the ones it comes to `best`
    /// before all others.
    pub fn round(&self, can: impl Fn(&str) -> bool, best: impl Fn(&str) -> bool) -> Round {
        let known = |names: &[String]| -> Vec<&'static str> {
            let of = |name: &String| POINTS.iter().copied().find(|point| *point == name.as_str() && can(point));
            names.iter().filter_map(of).collect()
        };
        let mut points = known(&self.never);
        points.sort_by_key(|point| !best(point));
        let never = points.len();
        points.extend(known(&self.others));
        Round { points, never, taken: 0 }
    }
}

/// Turns of one kind of process, which begin again after the last.
#[derive(Clone, Debug)]
pub struct Round {
    points: Vec<&'static str>,
    /// So many of them, at the beginning, where nothing has died yet.
    never: usize,
    taken: usize,
}

impl Round {
    /// Whether the next turn is that of a point where nothing has died yet.
    pub fn has_never(&self) -> bool {
        self.taken < self.never
    }

    /// The next point, and which pass of it is to be fatal: the first where nothing has died yet.
    pub fn take(&mut self, most: u64, dice: &mut Dice) -> Option<(&'static str, u64)> {
        let name = *self.points.get(self.taken % self.points.len().max(1))?;
        // Most points are passed several times in a life; those of a start are passed once for each shard.
        let pass = if self.has_never() || dice.chance(60) { 1 } else { dice.between(2, most) };
        self.taken += 1;
        Some((name, pass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: [&str; 4] = ["lake.trim.mark", "lake.trim.record", "lake.commit.files", "log.open.cut"];

    fn kills(points: &[(&str, u64)], unreached: &[(&str, u64)]) -> Kills {
        let of = |list: &[(&str, u64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Kills { points: of(points), unreached: of(unreached), ..Kills::default() }
    }

    /// Scenario: a file in which one point was died at often, one twice, one was asked for in vain, and one is not mentioned.
    /// Guarantees: the two without a death come first, the one that was never asked for before the other, and at their first pass;
    /// then the one with fewer deaths; then the round begins again.
    #[test]
    fn the_turn_is_that_of_the_point_with_the_fewest_deaths() {
        let known = kills(&[("lake.trim.mark", 9), ("lake.commit.files", 2)], &[("log.open.cut", 1)]);
        for seed in 0..20 {
            let mut dice = Dice::new(seed, 9);
            let turns = Turns::of(&MODE, &known, &mut dice);
            assert_eq!(turns.never, ["lake.trim.record", "log.open.cut"]);
            assert_eq!(turns.others, ["lake.commit.files", "lake.trim.mark"]);
            let mut round = turns.round(|_| true, |_| false);
            let taken: Vec<_> = (0..5).filter_map(|_| round.take(4, &mut dice)).collect();
            let names: Vec<&str> = taken.iter().map(|(name, _)| *name).collect();
            let all = ["lake.trim.record", "log.open.cut", "lake.commit.files", "lake.trim.mark", "lake.trim.record"];
            assert_eq!(names, all);
            assert_eq!((taken[0].1, taken[1].1), (1, 1));
            assert!(!round.has_never());
        }
    }

    /// Guarantees: where nothing has died chance decides, and the same for the same seed; a process takes only turns of points it can
    /// come to, its best ones first; a point that is in no source any more is passed over.
    #[test]
    fn turns_are_those_of_the_process_that_asks() {
        let of = |seed| Turns::of(&MODE, &Kills::default(), &mut Dice::new(seed, 9));
        assert_eq!(of(1), of(1));
        assert!((0..20).any(|seed| of(seed) != of(1)));
        let mut turns = of(1);
        turns.never.push("lake.gone".to_owned());
        let mut round = turns.round(|point| point != "log.open.cut", |point| point == "lake.trim.record");
        let mut dice = Dice::new(1, 2);
        let names: Vec<&str> = (0..3).filter_map(|_| round.take(4, &mut dice)).map(|(name, _)| name).collect();
        assert_eq!(names[0], "lake.trim.record");
        assert!(!names.contains(&"log.open.cut"), "{names:?}");
        assert_eq!(Turns::default().round(|_| true, |_| false).take(4, &mut dice), None);
    }
}
