//! One row of the simulated site, as a line of NDJSON.

use airan_model::time::Micros;
use serde_json::{Map, Value, json};

/// A row on its way.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Whose it is.
    pub node: &'static str,
    row: Map<String, Value>,
}

/// The same of all rows of a node in one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Event time.
    pub at: Micros,
    /// When counters began.
    pub start: Micros,
    /// The second, for noise.
    pub second: i64,
}

impl Line {
    /// A row without values.
    pub fn new(stream: &str, node: &'static str, moment: Moment) -> Line {
        let mut row = Map::new();
        row.insert("stream".to_owned(), json!(stream));
        row.insert("ts".to_owned(), json!(moment.at));
        row.insert("start_ts".to_owned(), json!(moment.start));
        row.insert("node".to_owned(), json!(node));
        Line { node, row }
    }

    /// With a text.
    pub fn word(self, column: &str, value: &str) -> Line {
        self.with(column, json!(value))
    }

    /// With a number. One that is none is left out.
    pub fn number(self, column: &str, value: f64) -> Line {
        if value.is_finite() { self.with(column, json!(value)) } else { self }
    }

    /// With a whole number, as counters of things and states are.
    pub fn whole(self, column: &str, value: f64) -> Line {
        self.with(column, json!(value.floor() as i64))
    }

    /// With a cumulative histogram.
    pub fn histogram(self, column: &str, tally: &Tally) -> Line {
        let counts: Vec<i64> = tally.counts.iter().map(|count| *count as i64).collect();
        let count: i64 = counts.iter().sum();
        self.with(column, json!({"bounds": tally.bounds, "counts": counts, "sum": tally.sum, "count": count}))
    }

    fn with(mut self, column: &str, value: Value) -> Line {
        self.row.insert(column.to_owned(), value);
        self
    }

    /// The line, with its end.
    pub fn text(self) -> String {
        format!("{}\n", Value::Object(self.row))
    }
}

/// A histogram since the start.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    bounds: &'static [f64],
    // One more than bounds; with fractions, so that rare things happen now and then.
    counts: Vec<f64>,
    sum: f64,
}

impl Tally {
    pub fn new(bounds: &'static [f64]) -> Tally {
        Tally { bounds, counts: vec![0.0; bounds.len() + 1], sum: 0.0 }
    }

    /// Adds `count` observations spread log-logistically: half are below `median`, and the larger `shape` (over 1), the closer to
    /// it. Gives how many of them are above the last bound.
    pub fn add(&mut self, count: f64, median: f64, shape: f64) -> f64 {
        let below = |bound: f64| 1.0 / (1.0 + (bound / median).powf(-shape));
        let mut before = 0.0;
        for (slot, bound) in self.counts.iter_mut().zip(self.bounds) {
            let through = below(*bound);
            *slot += count * (through - before);
            before = through;
        }
        let above = count * (1.0 - before);
        if let Some(last) = self.counts.last_mut() {
            *last += above;
        }
        let angle = std::f64::consts::PI / shape;
        self.sum += count * median * angle / angle.sin();
        above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: ten times a thousand observations around 0.2.
    /// Guarantees: none is lost, half are below the median, no bucket ever falls.
    #[test]
    fn a_tally_holds_what_was_added() {
        let mut tally = Tally::new(&[0.1, 0.2, 0.4]);
        let mut before = tally.counts.clone();
        for _ in 0..10 {
            tally.add(1_000.0, 0.2, 4.0);
            assert!(tally.counts.iter().zip(&before).all(|(now, then)| now >= then));
            before.clone_from(&tally.counts);
        }
        assert!((tally.counts.iter().sum::<f64>() - 10_000.0).abs() < 1e-6, "{tally:?}");
        assert!((tally.counts[0] + tally.counts[1] - 5_000.0).abs() < 1e-6, "{tally:?}");
        // The mean of a log-logistic distribution with shape 4 is its median times (pi/4)/sin(pi/4).
        assert!((tally.sum / 10_000.0 - 0.2 * 1.110_72).abs() < 1e-5, "{tally:?}");
    }
}
