//! Widths: how event time is cut into pieces side by side.
//!
//! All arithmetic of window bounds is here. A width divides a day, and windows start at whole multiples of it since
//! 1970-01-01T00:00:00Z, so every process cuts time at the same marks, whenever it started, and each day has the same ones.
//! Nothing here reads a clock.
//!
//! Keeps **W1**: windows tile time, also before 1970. A time is in exactly one window, and the edge belongs to the later one.

use std::fmt;

use airan_model::settings::DurationSetting;
use airan_model::time::{DAY, Micros, format_rfc3339};

/// Microseconds of a millisecond, the finest step of a width.
const MILLISECOND: Micros = 1_000;

/// Width of a window: whole milliseconds that divide a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowWidth {
    // Positive, a multiple of MILLISECOND, divides DAY. Set only by `from_micros`.
    micros: Micros,
}

/// Why a span is no width of windows. Choose another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WidthError {
    /// Zero or less.
    #[error("a window must be longer than nothing")]
    NotPositive,
    /// Less than a millisecond, or with a part of one.
    #[error("a window of {0} us is not whole milliseconds")]
    NotMillis(Micros),
    /// Longer than a day, or a day is not a multiple of it, so windows would start at other marks each day.
    #[error("a window of {} does not divide a day: 1s, 5s, 10s, 15s, 30s, 1m, 5m, 15m, 1h and 1d do", written(*.0))]
    NotOfADay(Micros),
    /// A hopping window that is not made of whole slides.
    #[error("a window of {} is not a multiple of its slide, {slide}", written(*.size))]
    NotSlides {
        /// From one start to the next.
        slide: WindowWidth,
        /// The window's own length, in microseconds.
        size: Micros,
    },
    /// Each window that closes merges all of its panes.
    #[error("a window of {} has {panes} panes of {slide}: {} is the most; choose a longer slide", written(*.size), crate::cut::PANES_MAX)]
    TooManyPanes {
        /// From one start to the next.
        slide: WindowWidth,
        /// The window's own length, in microseconds.
        size: Micros,
        /// How many slides that is.
        panes: i64,
    },
}

/// A span as people write it.
fn written(micros: Micros) -> DurationSetting {
    DurationSetting::from(std::time::Duration::from_micros(micros.unsigned_abs()))
}

/// A span of event time: from `start` up to, but without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first microsecond.
    pub start: Micros,
    /// The first microsecond after it.
    pub end: Micros,
}

impl WindowWidth {
    /// A width of so many microseconds.
    ///
    /// # Errors
    /// If it is not positive, not whole milliseconds, or does not divide a day.
    pub fn from_micros(micros: Micros) -> Result<WindowWidth, WidthError> {
        if micros <= 0 {
            return Err(WidthError::NotPositive);
        }
        if micros % MILLISECOND != 0 {
            return Err(WidthError::NotMillis(micros));
        }
        if DAY % micros != 0 {
            return Err(WidthError::NotOfADay(micros));
        }
        Ok(WindowWidth { micros })
    }

    /// In microseconds.
    pub fn micros(self) -> Micros {
        self.micros
    }

    /// The window that holds `at`.
    ///
    /// Within a width of the ends of the number line, 290,000 years away, the window is cut short there instead of wrapping.
    pub fn window_of(self, at: Micros) -> Window {
        let number = at.div_euclid(self.micros);
        Window { start: number.saturating_mul(self.micros), end: (number + 1).saturating_mul(self.micros) }
    }
}

impl fmt::Display for WindowWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(self.micros).fmt(f)
    }
}

impl Window {
    /// Whether `at` lies in it.
    pub fn contains(self, at: Micros) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether no row on time can still fall in it once the watermark stands there: a window ends before its `end`, so a
    /// watermark on the edge closes it.
    pub fn is_closed_by(self, watermark: Micros) -> bool {
        self.end <= watermark
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", format_rfc3339(self.start), format_rfc3339(self.end))
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::{HOUR, MINUTE, SECOND};
    use proptest::prelude::*;

    use super::*;

    fn seconds(count: i64) -> WindowWidth {
        WindowWidth::from_micros(count * SECOND).unwrap()
    }

    /// Any width there is: its number of milliseconds divides those of a day.
    fn widths() -> impl Strategy<Value = WindowWidth> {
        let day = DAY / MILLISECOND;
        let divisors: Vec<i64> = (1..=day).take_while(|d| d * d <= day).filter(|d| day % d == 0).collect();
        let both: Vec<i64> = divisors.iter().flat_map(|d| [*d, day / d]).collect();
        proptest::sample::select(both).prop_map(|millis| WindowWidth::from_micros(millis * MILLISECOND).unwrap())
    }

    /// Scenario: rows just before, on and after an edge, around 1970 too.
    /// Guarantees: W1; the edge belongs to the later window, and negative time does not round up.
    #[test]
    fn a_row_on_the_edge_belongs_to_the_later_window() {
        for (at, start) in [
            (10 * SECOND - 1, 0),
            (10 * SECOND, 10 * SECOND),
            (0, 0),
            (-1, -10 * SECOND),
            (-10 * SECOND, -10 * SECOND),
            (-10 * SECOND - 1, -20 * SECOND),
        ] {
            let window = seconds(10).window_of(at);
            assert_eq!((window.start, window.end), (start, start + 10 * SECOND), "row at {at} us");
        }
    }

    #[test]
    fn a_watermark_on_the_edge_closes_the_window_before_it() {
        let window = seconds(10).window_of(0);
        assert!(!window.is_closed_by(10 * SECOND - 1));
        assert!(window.is_closed_by(10 * SECOND));
    }

    #[test]
    fn a_width_is_whole_milliseconds_and_divides_a_day() {
        for micros in [MILLISECOND, 250 * MILLISECOND, SECOND, 10 * SECOND, 7 * MINUTE + 30 * SECOND, HOUR, DAY] {
            assert_eq!(WindowWidth::from_micros(micros).map(WindowWidth::micros), Ok(micros));
        }
        for (micros, error) in [
            (0, WidthError::NotPositive),
            (-SECOND, WidthError::NotPositive),
            (1, WidthError::NotMillis(1)),
            (SECOND + 1, WidthError::NotMillis(SECOND + 1)),
            (7 * SECOND, WidthError::NotOfADay(7 * SECOND)),
            (2 * DAY, WidthError::NotOfADay(2 * DAY)),
        ] {
            assert_eq!(WindowWidth::from_micros(micros), Err(error), "{micros}");
        }
        let error = WidthError::NotOfADay(7 * SECOND).to_string();
        assert!(error.starts_with("a window of 7s does not divide a day"), "{error}");
    }

    #[test]
    fn a_width_and_a_window_are_written_as_people_write_them() {
        assert_eq!(seconds(90 * 60).to_string(), "90m");
        assert_eq!(seconds(10).window_of(-1).to_string(), "1969-12-31T23:59:50Z..1970-01-01T00:00:00Z");
    }

    proptest! {
        /// Guarantees: W1: a time is in the window it is said to be in, and neighbours touch without overlap.
        #[test]
        fn windows_tile_time(width in widths(), at in -1_000_000 * DAY..1_000_000 * DAY) {
            let window = width.window_of(at);
            prop_assert!(window.contains(at));
            prop_assert_eq!(window.end - window.start, width.micros());
            prop_assert_eq!(width.window_of(window.start), window);
            prop_assert_eq!(width.window_of(window.end - 1), window);
            prop_assert_eq!(width.window_of(window.end).start, window.end);
            prop_assert_eq!(width.window_of(window.start - 1).end, window.start);
        }

        /// Guarantees: each day has the same marks, its own beginning among them.
        #[test]
        fn marks_are_the_same_every_day(width in widths(), at in -1_000_000 * DAY..1_000_000 * DAY) {
            prop_assert_eq!(width.window_of(at + DAY).start, width.window_of(at).start + DAY);
            let midnight = at.div_euclid(DAY) * DAY;
            prop_assert_eq!(width.window_of(midnight).start, midnight);
        }

        /// Guarantees: no time of the whole number line wraps around.
        #[test]
        fn the_ends_of_time_do_not_wrap(width in widths(), back in 0..DAY) {
            let (first, last) = (width.window_of(i64::MIN + back), width.window_of(i64::MAX - 1 - back));
            prop_assert!(first.contains(i64::MIN + back) && last.contains(i64::MAX - 1 - back));
            prop_assert_eq!(width.window_of(first.end).start, first.end);
            prop_assert_eq!(width.window_of(last.start - 1).end, last.start);
        }
    }
}
