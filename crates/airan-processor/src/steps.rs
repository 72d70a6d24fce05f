//! Where a shard's time goes: seconds spent by step, for whoever looks for a bottleneck. Nothing else depends on it.

use std::time::{Duration, Instant};

/// A step of the map in `shard.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Payload to rows in the stream's columns.
    Decode,
    /// Identities compared with those seen.
    Duplicates,
    /// Rises of counters and histograms.
    Rises,
    /// Late rows set apart, nodes' clocks noted.
    Late,
    /// Rows into windows, windows closed.
    Windows,
    /// Parquet, state and record of a commit.
    Commit,
}

impl Step {
    /// Every step, in the order of the path.
    pub const ALL: [Step; 6] = [Step::Decode, Step::Duplicates, Step::Rises, Step::Late, Step::Windows, Step::Commit];

    /// Its name in the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Decode => "decode",
            Step::Duplicates => "duplicates",
            Step::Rises => "rises",
            Step::Late => "late",
            Step::Windows => "windows",
            Step::Commit => "commit",
        }
    }
}

/// Time spent by step since the shard was taken over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    spent: [Duration; Step::ALL.len()],
}

impl Steps {
    /// Time spent on all steps.
    pub fn total(&self) -> Duration {
        self.spent.iter().sum()
    }

    /// Seconds spent on each step.
    pub fn seconds(&self) -> impl Iterator<Item = (Step, f64)> {
        Step::ALL.into_iter().map(|step| (step, self.spent[step as usize].as_secs_f64()))
    }
}

/// A watch that says at the end of each step how long it took.
#[derive(Debug)]
pub(crate) struct Watch {
    since: Instant,
}

impl Watch {
    /// The first step begins.
    pub fn start() -> Watch {
        Watch { since: Instant::now() }
    }

    /// A step has ended, the next begins.
    pub fn end(&mut self, steps: &mut Steps, step: Step) {
        let now = Instant::now();
        steps.spent[step as usize] += now - self.since;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_gets_the_time_since_the_step_before() {
        let mut steps = Steps::default();
        let mut watch = Watch { since: Instant::now() - Duration::from_secs(5) };
        watch.end(&mut steps, Step::Rises);
        watch.end(&mut steps, Step::Commit);
        let spent: Vec<f64> = steps.seconds().map(|(_, seconds)| seconds).collect();
        assert!(spent[Step::Rises as usize] >= 5.0 && spent[Step::Commit as usize] < 5.0, "{spent:?}");
        assert!(spent[Step::Decode as usize] == 0.0);
    }
}
