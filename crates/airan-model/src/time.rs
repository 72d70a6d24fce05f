//! Event time: microseconds since 1970 in UTC, and the one place where the wall clock is read.
//!
//! Everything else takes time as an argument, or a [`Clock`] where it must ask for "now"; a test passes its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};

/// An instant or a span in microseconds; instants count from 1970-01-01T00:00:00Z and may be negative.
pub type Micros = i64;

/// One second.
pub const SECOND: Micros = 1_000_000;
/// One minute.
pub const MINUTE: Micros = 60 * SECOND;
/// One hour.
pub const HOUR: Micros = 60 * MINUTE;
/// One day, without leap seconds.
pub const DAY: Micros = 24 * HOUR;

/// Reads the wall clock; a test passes its own.
#[derive(Clone, Debug)]
pub struct Clock(Reading);

#[derive(Clone, Debug)]
enum Reading {
    System,
    Fixed(Micros),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Clock {
        Clock(Reading::System)
    }

    /// A clock that stands still.
    pub fn fixed(at: Micros) -> Clock {
        Clock(Reading::Fixed(at))
    }

    /// A clock that starts at 0 and moves only when the test moves it.
    pub fn manual() -> (Clock, ManualClock) {
        let at = Arc::new(AtomicI64::new(0));
        (Clock(Reading::Manual(Arc::clone(&at))), ManualClock(at))
    }

    /// Microseconds since 1970, UTC.
    #[allow(clippy::disallowed_methods)] // the one place where the wall clock is read
    pub fn now(&self) -> Micros {
        match &self.0 {
            Reading::System => Utc::now().timestamp_micros(),
            Reading::Fixed(at) => *at,
            Reading::Manual(at) => at.load(Ordering::SeqCst),
        }
    }
}

/// The test's handle on a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Moves the clock to `at`, forwards or backwards.
    pub fn set(&self, at: Micros) {
        self.0.store(at, Ordering::SeqCst);
    }

    /// Moves the clock by `span`.
    pub fn advance(&self, span: Micros) {
        self.0.fetch_add(span, Ordering::SeqCst);
    }
}

/// Reads an RFC 3339 time with any offset; digits below a microsecond are cut off.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_micros())
}

/// Writes an RFC 3339 time in UTC with `Z`, with as many digits as it needs (none, 3 or 6).
///
/// Outside the years chrono can write (about ±262,000) the raw number of microseconds is written instead.
pub fn format_rfc3339(at: Micros) -> String {
    match DateTime::<Utc>::from_timestamp_micros(at) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => format!("{at}us"),
    }
}

/// How far a row's own time may lie from the time it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plausibility {
    /// Furthest ahead of reception, microseconds.
    pub ahead: Micros,
    /// Furthest behind reception, microseconds.
    pub behind: Micros,
}

impl Default for Plausibility {
    /// The documented defaults, for tests; a running gateway reads its own from the configuration: 5 minutes ahead, 40 days behind.
    fn default() -> Self {
        Plausibility { ahead: 5 * MINUTE, behind: 40 * DAY }
    }
}

impl Plausibility {
    /// Whether `ts` may be believed for a row received at `received_at`. Both ends are inside.
    pub fn check(&self, ts: Micros, received_at: Micros) -> bool {
        let lead = ts.saturating_sub(received_at);
        lead <= self.ahead && lead >= -self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: times with offset, with more digits than a microsecond, before 1970, and things that are no time.
    #[test]
    fn rfc3339_is_read_in_utc() {
        for (text, at) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2026-11-24T10:00:00.1234567Z", Some(1_795_514_400_123_456)),
            ("2026-11-24 10:00", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), at, "{text}");
        }
        assert_eq!(format_rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(format_rfc3339(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!(format_rfc3339(i64::MAX), format!("{}us", i64::MAX));
    }

    /// Scenario: times on, inside and outside both edges, and the ends of the number line.
    #[test]
    fn a_time_is_plausible_between_40_days_behind_and_5_minutes_ahead() {
        let rule = Plausibility::default();
        let now = 1_795_514_400_000_000;
        for (ts, plausible) in [
            (now, true),
            (now + 5 * MINUTE, true),
            (now + 5 * MINUTE + 1, false),
            (now - 40 * DAY, true),
            (now - 40 * DAY - 1, false),
            (0, false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(rule.check(ts, now), plausible, "{ts}");
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let (clock, hand) = Clock::manual();
        assert_eq!(clock.now(), 0);
        hand.set(5);
        hand.advance(2);
        assert_eq!(clock.clone().now(), 7);
    }
}
