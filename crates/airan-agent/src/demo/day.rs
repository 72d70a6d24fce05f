//! The bad day: how load goes up and down, what goes wrong, and when. A day is short, so that its end is seen.

use std::time::Duration;

use airan_model::time::Micros;

/// Something that goes wrong once a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A cell is full.
    Saturation,
    /// An accelerator is too hot.
    Throttling,
    /// A clock has lost its reference and drifts.
    Holdover,
    /// A node's uplink is away.
    Silence,
}

/// When each trouble begins and ends, as shares of the day, and what is seen of it.
const TROUBLES: [(Trouble, f64, f64, &str); 4] = [
    (Trouble::Saturation, 0.10, 0.20, "cell demo-cell-3 is full: PRB utilisation, slot latency and late slots rise"),
    (Trouble::Throttling, 0.30, 0.40, "GPU demo-gpu-2 throttles: its clock falls, time to first token rises"),
    (
        Trouble::Holdover,
        0.50,
        0.62,
        "the PTP clock of demo-server-2 is in holdover: it drifts, fronthaul packets come late",
    ),
    (Trouble::Silence, 0.72, 0.82, "demo-server-2 sends nothing, then its backlog: windows are computed again"),
];

/// One trouble of the day, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// From the beginning of a day.
    pub begins: Duration,
    /// From the beginning of a day.
    pub ends: Duration,
    /// What is seen.
    pub what: &'static str,
}

/// What goes wrong in a day of this length, in the order of time.
pub fn incidents(day: Duration) -> Vec<Incident> {
    let of = |(_, begins, ends, what): (Trouble, f64, f64, &'static str)| Incident {
        begins: day.mul_f64(begins),
        ends: day.mul_f64(ends),
        what,
    };
    TROUBLES.into_iter().map(of).collect()
}

/// A day that comes again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    // Positive.
    length: Micros,
    start: Micros,
}

impl Day {
    pub fn new(length: Micros, start: Micros) -> Day {
        Day { length: length.max(1), start }
    }

    /// Which share of its day is over at a time.
    pub fn phase(self, at: Micros) -> f64 {
        (at - self.start).rem_euclid(self.length) as f64 / self.length as f64
    }

    /// How far a trouble is, 0 as it begins and below 1; None while there is none.
    pub fn trouble(self, trouble: Trouble, at: Micros) -> Option<f64> {
        let phase = self.phase(at);
        let (_, begins, ends, _) = TROUBLES.into_iter().find(|(of, ..)| *of == trouble)?;
        (begins..ends).contains(&phase).then(|| (phase - begins) / (ends - begins))
    }

    /// Demand, 0.25 at night to 0.75 at noon.
    pub fn demand(self, at: Micros) -> f64 {
        0.25 + 0.5 * (std::f64::consts::PI * self.phase(at)).sin().powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::time::{MINUTE, SECOND};

    /// Scenario: a day of 30 minutes, and the second one after it.
    /// Guarantees: each trouble begins and ends when [`incidents`] says, one at a time.
    #[test]
    fn troubles_come_when_they_are_announced() {
        let day = Day::new(30 * MINUTE, 5);
        let told = incidents(Duration::from_secs(1_800));
        for second in 0..3_600 {
            let at = 5 + second * SECOND;
            let within = u64::try_from(second).unwrap() % 1_800;
            for (incident, (trouble, ..)) in told.iter().zip(TROUBLES) {
                let is_told = (incident.begins..incident.ends).contains(&Duration::from_secs(within));
                assert_eq!(day.trouble(trouble, at).is_some(), is_told, "{trouble:?} at {second} s");
            }
            let at_once = TROUBLES.iter().filter(|(trouble, ..)| day.trouble(*trouble, at).is_some()).count();
            assert!(at_once <= 1);
            assert!((0.25..=0.75).contains(&day.demand(at)));
        }
        assert_eq!(told[0].begins, Duration::from_secs(180));
    }
}
