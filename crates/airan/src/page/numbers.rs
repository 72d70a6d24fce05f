//! The metrics of this process, read as numbers.

use std::collections::{BTreeMap, HashMap};

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily, MetricType};

/// One reading of a registry. Counters and gauges only; a family that is not there has no series.
pub struct Numbers {
    families: HashMap<String, MetricFamily>,
}

impl Numbers {
    /// Reads it.
    pub fn read(registry: &Registry) -> Numbers {
        let families = registry.gather().into_iter().map(|family| (family.name().to_owned(), family));
        Numbers { families: families.collect() }
    }

    /// Whether any series has this name.
    pub fn has(&self, name: &str) -> bool {
        self.families.get(name).is_some_and(|family| !family.get_metric().is_empty())
    }

    fn series(&self, name: &str) -> impl Iterator<Item = (&Metric, f64)> {
        self.families.get(name).into_iter().flat_map(|family| {
            family.get_metric().iter().map(|metric| match family.get_field_type() {
                MetricType::COUNTER => (metric, metric.get_counter().get_value()),
                _ => (metric, metric.get_gauge().get_value()),
            })
        })
    }

    /// The sum over the series that have these labels; 0 where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Added to 0: the sum of no floats is -0.
        self.series(name).filter(|(metric, _)| fits(metric, labels)).fold(0.0, |all, (_, value)| all + value)
    }

    /// The largest value; none where there are no series.
    pub fn most(&self, name: &str) -> Option<f64> {
        self.series(name).map(|(_, value)| value).reduce(f64::max)
    }

    /// Sums by the values of a label.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        self.by_where(name, &[], label)
    }

    /// Sums by the values of a label, over the series that have these labels.
    pub fn by_where(&self, name: &str, labels: &[(&str, &str)], label: &str) -> BTreeMap<String, f64> {
        let mut folded: BTreeMap<String, f64> = BTreeMap::new();
        for (metric, value) in self.series(name).filter(|(metric, _)| fits(metric, labels)) {
            let key = label_of(metric, label).unwrap_or_default();
            match folded.get_mut(key) {
                Some(known) => *known += value,
                None => drop(folded.insert(key.to_owned(), value)),
            }
        }
        folded
    }
}

fn fits(metric: &Metric, labels: &[(&str, &str)]) -> bool {
    labels.iter().all(|(label, value)| label_of(metric, label) == Some(value))
}

fn label_of<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    metric.get_label().iter().find(|label| label.name() == name).map(|label| label.value())
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, IntGauge, Opts};

    use super::*;

    #[test]
    fn counters_and_gauges_are_summed_by_their_labels() {
        let registry = Registry::new();
        let rows = IntCounterVec::new(Opts::new("rows", "rows"), &["door", "outcome"]).unwrap();
        let open = IntGauge::new("open", "open").unwrap();
        registry.register(Box::new(rows.clone())).unwrap();
        registry.register(Box::new(open.clone())).unwrap();
        for (door, outcome, count) in [("a", "stored", 3), ("a", "refused", 1), ("b", "stored", 5)] {
            rows.with_label_values(&[door, outcome]).inc_by(count);
        }
        open.set(-2);
        let numbers = Numbers::read(&registry);
        assert_eq!(
            (numbers.sum("rows", &[]), numbers.sum("rows", &[("door", "a"), ("outcome", "stored")])),
            (9.0, 3.0)
        );
        assert_eq!(numbers.by("rows", "door"), BTreeMap::from([("a".to_owned(), 4.0), ("b".to_owned(), 5.0)]));
        assert_eq!(numbers.by_where("rows", &[("door", "b")], "outcome"), BTreeMap::from([("stored".to_owned(), 5.0)]));
        assert_eq!((numbers.most("open"), numbers.most("none"), numbers.sum("none", &[])), (Some(-2.0), None, 0.0));
        assert!(numbers.sum("none", &[]).is_sign_positive());
        assert!(numbers.has("open") && !numbers.has("none"));
    }
}
