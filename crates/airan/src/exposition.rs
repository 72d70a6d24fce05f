//! Reading what a process of ours shows at `/metrics`, for the tools that show it to people.
//!
//! Our own text only, as the `prometheus` crate writes it; what a stranger serves goes through `airan-decode`.

use std::collections::BTreeMap;

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label, empty where there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All samples, in their order. A line that is no sample is passed over.
pub fn read(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, BTreeMap::new(), value)
        }
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what comes after it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => match letters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, letter) => value.push(letter),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};

    use super::*;

    /// Scenario: what the crate writes, with every letter that is escaped; and lines that are no samples.
    /// Guarantees: names, labels and values come back as they were.
    #[test]
    fn what_is_written_is_read_back() {
        let registry = Registry::new();
        let gauges = IntGaugeVec::new(Opts::new("a_b", "help {x=\"y\"} 1"), &["p", "q"]).unwrap();
        registry.register(Box::new(gauges.clone())).unwrap();
        gauges.with_label_values(&["x\\\"},\n", ""]).set(-7);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let samples = read(&String::from_utf8(text).unwrap());
        assert_eq!(samples.len(), 1);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("a_b", -7.0));
        assert_eq!((samples[0].label("p"), samples[0].label("q"), samples[0].label("r")), ("x\\\"},\n", "", ""));
        assert_eq!(read("x 1.5 1700000000000\n\nfoo\nbar{a=\"b\nbaz{} NaNs\nq NaN\n").len(), 2);
    }
}
