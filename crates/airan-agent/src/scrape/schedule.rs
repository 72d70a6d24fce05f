//! When to scrape: at fixed marks of the wall clock, shifted per target by a share of the interval that its name decides.
//!
//! So targets do not all come at once, two agents do not meet at one endpoint by chance for long, and a restart does not move
//! the marks.

use std::time::Duration;

use airan_model::identity::murmur2;
use airan_model::time::Micros;

/// Marks of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    // Invariant: interval > 0, 0 <= shift < interval.
    interval: Micros,
    shift: Micros,
}

impl Schedule {
    /// `who` decides the shift. An interval below a millisecond counts as one.
    pub(crate) fn new(who: &str, interval: Micros) -> Schedule {
        let interval = interval.max(1_000);
        let shift = (i128::from(murmur2(who.as_bytes())) * i128::from(interval)) >> 32;
        Schedule { interval, shift: shift as Micros }
    }

    /// How far marks are from each other.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_micros(self.interval.unsigned_abs())
    }

    /// The first mark after `now`.
    pub(crate) fn next(self, now: Micros) -> Micros {
        let past = (now - self.shift).rem_euclid(self.interval);
        now - past + self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::time::SECOND;

    #[test]
    fn marks_are_one_interval_apart_and_always_ahead() {
        for who in ["a", "dcgm", "node-17/host", ""] {
            let schedule = Schedule::new(who, 15 * SECOND);
            for now in [-1, 0, 1, 1_795_514_400_123_456] {
                let next = schedule.next(now);
                assert!(next > now && next - now <= 15 * SECOND, "{who} {now}");
                assert_eq!(schedule.next(next), next + 15 * SECOND);
                assert_eq!(schedule, Schedule::new(who, 15 * SECOND));
            }
        }
    }

    #[test]
    fn targets_are_spread_over_the_interval() {
        let mut tenths = [0; 10];
        for n in 0..1000 {
            let schedule = Schedule::new(&format!("target-{n}"), 10 * SECOND);
            tenths[(schedule.shift / SECOND) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }
}
