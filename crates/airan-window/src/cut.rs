//! How a pipeline cuts event time into windows: side by side (tumbling), or each overlapping the next (hopping).
//!
//! ```text
//! panes      |  0  |  1  |  2  |  3  |  4  |     one slide wide: each time is in exactly one
//! windows    [-----------------)                 each is the same number of panes; a tumbling one is one pane
//!                  [-----------------)
//!                        [-----------------)
//! ```
//!
//! A row becomes state of its pane, once; a window is made of the state of its panes. A window is named by its start, and the
//! starts are a slide apart, so a stretch of starts (`[from, to)`, whole slides) stands for windows wherever they are counted or marked:
//! those that begin in it. Nothing here reads a clock.
//!
//! Keeps **W1**: panes tile time. A time is in one pane, and in as many windows as a window has panes.

use std::fmt;

use airan_model::time::Micros;

use crate::width::{WidthError, Window, WindowWidth};

/// Most panes of a window: an hour in steps of 10 s, 6 h in minutes. Each window that closes merges the state of all of its panes.
pub(crate) const PANES_MAX: i64 = 360;

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    slide: WindowWidth,
    // A multiple of the slide, at most PANES_MAX of it.
    size: Micros,
}

impl Cut {
    /// Windows side by side.
    pub fn tumbling(width: WindowWidth) -> Cut {
        Cut { slide: width, size: width.micros() }
    }

    /// Windows of `size` microseconds, one beginning at each `slide`.
    ///
    /// # Errors
    /// If the size is no multiple of the slide, or of more than 360 of it.
    pub fn hopping(slide: WindowWidth, size: Micros) -> Result<Cut, WidthError> {
        let step = slide.micros();
        if size <= 0 || size % step != 0 {
            return Err(WidthError::NotSlides { slide, size });
        }
        if size / step > PANES_MAX {
            return Err(WidthError::TooManyPanes { slide, size, panes: size / step });
        }
        Ok(Cut { slide, size })
    }

    /// From the start of a window to that of the next; the width of a pane.
    pub fn slide(self) -> WindowWidth {
        self.slide
    }

    /// From a window's start to its end, in microseconds.
    pub fn size(self) -> Micros {
        self.size
    }

    /// How many panes a window has; 1 where windows tumble.
    pub fn panes(self) -> i64 {
        self.size / self.slide.micros()
    }

    /// What a window reaches over its first pane.
    pub fn overlap(self) -> Micros {
        self.size - self.slide.micros()
    }

    /// The pane that holds `at`.
    pub fn pane_of(self, at: Micros) -> Window {
        self.slide.window_of(at)
    }

    /// The window that begins at `start`.
    pub fn starting_at(self, start: Micros) -> Window {
        Window { start, end: start.saturating_add(self.size) }
    }

    /// The last window that holds `at`: once it has closed, no open one does.
    pub fn last_of(self, at: Micros) -> Window {
        self.starting_at(self.pane_of(at).start)
    }

    /// Starts of the windows that hold `at`: from the first up to, but without, the second.
    pub fn starts_of(self, at: Micros) -> (Micros, Micros) {
        let pane = self.pane_of(at);
        (pane.start.saturating_sub(self.overlap()), pane.end)
    }

    /// Start of the oldest window that is open while every one that ends by `closed_through` has closed. Rows before it are in
    /// closed windows only.
    pub fn first_open(self, closed_through: Micros) -> Micros {
        self.slide.window_of(closed_through).start.saturating_sub(self.overlap())
    }

    /// Rows before it are in a window that has closed, while every one that ends by `closed_through` has.
    pub fn late_before(self, closed_through: Micros) -> Micros {
        self.slide.window_of(closed_through).start
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.panes() {
            1 => self.slide.fmt(f),
            panes => write!(f, "{panes} x {}", self.slide),
        }
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::{DAY, MINUTE, SECOND};
    use proptest::prelude::*;

    use super::*;

    fn cut(slide: Micros, panes: i64) -> Cut {
        Cut::hopping(WindowWidth::from_micros(slide).unwrap(), slide * panes).unwrap()
    }

    /// Scenario: five minutes, each minute.
    /// Guarantees: a row is in the five windows that begin within the four minutes before its own and in it; the edges are the earlier
    /// window's end and the later one's beginning.
    #[test]
    fn a_row_is_in_every_window_that_reaches_over_it() {
        let cut = cut(MINUTE, 5);
        assert_eq!(cut.starts_of(7 * MINUTE + 1), (3 * MINUTE, 8 * MINUTE));
        assert_eq!(cut.starts_of(-1), (-5 * MINUTE, 0));
        assert_eq!(cut.last_of(7 * MINUTE), Window { start: 7 * MINUTE, end: 12 * MINUTE });
        assert_eq!((cut.first_open(12 * MINUTE), cut.late_before(12 * MINUTE)), (8 * MINUTE, 12 * MINUTE));
        assert_eq!((cut.first_open(13 * MINUTE - 1), cut.late_before(13 * MINUTE - 1)), (8 * MINUTE, 12 * MINUTE));
        assert_eq!((cut.to_string(), Cut::tumbling(cut.slide()).to_string()), ("5 x 1m".to_owned(), "1m".to_owned()));
    }

    #[test]
    fn a_size_is_a_bounded_number_of_slides() {
        let slide = WindowWidth::from_micros(10 * SECOND).unwrap();
        for (size, is_good) in
            [(10, true), (60, true), (3_600, true), (0, false), (-10, false), (15, false), (3_610, false)]
        {
            assert_eq!(Cut::hopping(slide, size * SECOND).is_ok(), is_good, "{size} s");
        }
        let said = Cut::hopping(slide, 15 * SECOND).unwrap_err().to_string();
        assert!(said.contains("15s is not a multiple of its slide, 10s"), "{said}");
        let said = Cut::hopping(slide, DAY).unwrap_err().to_string();
        assert!(said.contains("8640 panes") && said.contains("360"), "{said}");
    }

    proptest! {
        /// Guarantees: the windows that are said to hold a time do, and no other does; a window is open exactly from
        /// [`Cut::first_open`] on; a row before [`Cut::late_before`] is in a closed one, others are not.
        #[test]
        fn what_holds_a_time_and_what_is_open_agree(
            panes in 1i64..12, at in -100_000i64..100_000, closed in -100_000i64..100_000,
        ) {
            let cut = cut(10 * SECOND, panes);
            let (at, closed) = (at * SECOND / 7, closed * SECOND / 7);
            let (first, end) = cut.starts_of(at);
            prop_assert_eq!((end - first) / (10 * SECOND), panes);
            for start in (first - 20 * SECOND..end + 20 * SECOND).step_by(10_000_000) {
                let window = cut.starting_at(start);
                prop_assert_eq!(window.contains(at), (first..end).contains(&start));
                prop_assert_eq!(window.is_closed_by(closed), start < cut.first_open(closed));
            }
            prop_assert_eq!(at < cut.late_before(closed), cut.starting_at(first).is_closed_by(closed));
            prop_assert_eq!(cut.last_of(at).is_closed_by(closed), at < cut.first_open(closed));
        }
    }
}
