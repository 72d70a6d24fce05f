//! The simulated site, second by second: who there is, and how one thing drives another.
//!
//! Demand drives the cells; the cells drive the slices on which their layer 1 runs and their fronthaul; requests drive the model
//! server and its GPU. Counters only ever grow.

use airan_model::time::{Micros, SECOND};

use super::compute::Compute;
use super::day::{Day, Trouble};
use super::line::{Line, Moment};
use super::platform::Platform;
use super::radio::Radio;

/// The two servers.
pub(super) const SERVERS: [&str; 2] = ["demo-server-1", "demo-server-2"];
/// The switch between them, the radio units and the world.
pub(super) const SWITCH: &str = "demo-switch-1";
/// All nodes.
pub(super) const NODES: [&str; 3] = [SERVERS[0], SERVERS[1], SWITCH];
/// The node that falls silent, and whose clock loses its reference.
pub(super) const TROUBLED: usize = 1;

/// Share of the day after which a GPU is cut anew.
const RECUT: f64 = 0.25;

/// The site.
pub(super) struct Site {
    day: Day,
    start: Micros,
    radio: Radio,
    compute: Compute,
    platform: Platform,
}

/// What drives everything in one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive {
    /// Time.
    pub moment: Moment,
    /// 0.25 at night, 0.75 at noon.
    pub demand: f64,
    /// How far each trouble is; None while there is none.
    pub saturation: Option<f64>,
    /// An accelerator is too hot.
    pub throttling: Option<f64>,
    /// A clock drifts.
    pub holdover: Option<f64>,
    /// The time of day at which a GPU is cut anew has passed.
    pub is_recut: bool,
}

impl Drive {
    /// Whether something that reports each `period` seconds reports now.
    pub fn is_due(self, period: i64) -> bool {
        self.moment.second % period == 0
    }
}

impl Site {
    /// A site that begins at `start`, in a day of `day` that began at `dawn`.
    pub fn new(seed: u64, day: Micros, dawn: Micros, start: Micros) -> Site {
        Site {
            day: Day::new(day, dawn),
            start,
            radio: Radio::new(seed),
            compute: Compute::new(seed),
            platform: Platform::new(seed),
        }
    }

    /// The rows of the second that begins at `at`. Seconds are to be asked for in order.
    pub fn step(&mut self, at: Micros) -> Vec<Line> {
        let trouble = |trouble| self.day.trouble(trouble, at);
        let drive = Drive {
            moment: Moment { at, start: self.start, second: (at - self.start) / SECOND },
            demand: self.day.demand(at),
            saturation: trouble(Trouble::Saturation),
            throttling: trouble(Trouble::Throttling),
            holdover: trouble(Trouble::Holdover),
            is_recut: self.day.phase(at) >= RECUT,
        };
        let mut lines = Vec::new();
        let offset = self.platform.step(drive, &mut lines);
        let radio = self.radio.step(drive, offset, &mut lines);
        self.compute.step(drive, radio, &mut lines);
        lines
    }

    /// Whether a node's uplink is away.
    pub fn is_silent(&self, node: &str, at: Micros) -> bool {
        node == SERVERS[TROUBLED] && self.day.trouble(Trouble::Silence, at).is_some()
    }
}
