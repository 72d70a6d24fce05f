//! Prometheus counters of a pipeline: sums over its committed windows, by label values.
//!
//! They are part of the shard state, so they survive a restart and count each window once. Beyond the series budget a counter
//! goes into one series of its metric with the label `overflow="true"`, so that sums over all series stay right.

use std::collections::BTreeMap;

use airan_window::ClosedWindow;
use airan_window::pipeline::{MetricSpec, MetricType, PipelineSpec};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

/// Values of a metric's labels, in the order of its declaration; empty where the column is null.
pub(crate) type LabelValues = Box<[Box<str>]>;

/// The counters of one pipeline in one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exported {
    /// Series by the metric's index in the declaration.
    pub series: BTreeMap<(usize, LabelValues), f64>,
    /// What did not get a series of its own, by metric.
    pub overflow: BTreeMap<usize, f64>,
    budget: usize,
}

impl Exported {
    pub fn new(spec: &PipelineSpec) -> Exported {
        Exported { budget: spec.series_budget, ..Exported::default() }
    }

    /// Adds the windows' values. A value of 0 begins a series: a counter that is first seen at its first rise would hide that rise
    /// from `rate` and `increase`.
    pub fn add(&mut self, spec: &PipelineSpec, windows: &[ClosedWindow]) {
        for (metric, declared) in spec.metrics.iter().enumerate().filter(|(_, m)| m.ty == MetricType::Counter) {
            for window in windows {
                let Some(values) = values_of(declared, &window.rows) else { continue };
                for (labels, value) in values.filter(|(_, value)| value.is_finite() && *value >= 0.0) {
                    self.add_one(metric, labels, value);
                }
            }
        }
    }

    fn add_one(&mut self, metric: usize, labels: LabelValues, value: f64) {
        let has_room = self.series.len() < self.budget;
        match self.series.entry((metric, labels)) {
            std::collections::btree_map::Entry::Occupied(mut series) => *series.get_mut() += value,
            std::collections::btree_map::Entry::Vacant(series) if has_room => {
                series.insert(value);
            }
            std::collections::btree_map::Entry::Vacant(_) if value > 0.0 => {
                *self.overflow.entry(metric).or_default() += value;
            }
            std::collections::btree_map::Entry::Vacant(_) => {}
        }
    }
}

/// Label values and value of each row of a window that has one; None where a column is missing.
pub(crate) fn values_of<'a>(
    metric: &MetricSpec,
    rows: &'a RecordBatch,
) -> Option<impl Iterator<Item = (LabelValues, f64)> + use<'a>> {
    let cells = cells_of(metric, rows)?;
    Some(cells.filter_map(|(labels, value)| Some((labels, value?))))
}

/// Label values and value, if any, of each row of a window; None where a column is missing.
pub(crate) fn cells_of<'a>(
    metric: &MetricSpec,
    rows: &'a RecordBatch,
) -> Option<impl Iterator<Item = (LabelValues, Option<f64>)> + use<'a>> {
    let as_type = |name: &str, ty: &DataType| -> Option<ArrayRef> { cast(rows.column_by_name(name)?, ty).ok() };
    let values = as_type(&metric.column, &DataType::Float64)?;
    let labels = metric.labels.iter().map(|name| as_type(name, &DataType::Utf8)).collect::<Option<Vec<_>>>()?;
    Some((0..rows.num_rows()).map(move |row| {
        let label = |column: &ArrayRef| -> Box<str> {
            let texts = column.as_string::<i32>();
            if texts.is_valid(row) { texts.value(row).into() } else { Box::default() }
        };
        let numbers = values.as_primitive::<Float64Type>();
        (labels.iter().map(label).collect(), numbers.is_valid(row).then(|| numbers.value(row)))
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray};

    use super::*;

    /// Scenario: a counter that reports no rise, one that has nothing to say, then a rise; one more series than the budget.
    /// Guarantees: a series begins at 0, so that its first rise shows; null begins none; what has no room shows where it rose.
    #[test]
    fn a_counter_begins_at_zero() {
        let text = "name: faults\ndescription: faults\ntable: faults\nlateness: 10s\nstaleness_windows: 3\nseries_budget: 2\n\
            metrics:\n  - {column: faults, name: airan_faults_total, type: counter, unit: count, help: faults, labels: [site]}\n";
        let spec = airan_window::pipeline::parse(text).unwrap();
        let window = |rows: &[(&str, Option<f64>)]| {
            let (site, faults): (Vec<&str>, Vec<Option<f64>>) = rows.iter().copied().unzip();
            let columns: [(&str, ArrayRef); 2] =
                [("site", Arc::new(StringArray::from(site))), ("faults", Arc::new(Float64Array::from(faults)))];
            ClosedWindow { start: 0, end: 1, rows: RecordBatch::try_from_iter(columns).unwrap() }
        };
        let mut exported = Exported::new(&spec);
        let of = |exported: &Exported| -> Vec<(String, f64)> {
            exported.series.iter().map(|((_, labels), value)| (labels[0].to_string(), *value)).collect()
        };
        exported.add(&spec, &[window(&[("a", Some(0.0)), ("b", None), ("c", Some(f64::NAN))])]);
        assert_eq!(of(&exported), [("a".to_owned(), 0.0)]);
        exported.add(&spec, &[window(&[("a", Some(2.0)), ("b", Some(0.0)), ("c", Some(0.0))])]);
        assert_eq!(of(&exported), [("a".to_owned(), 2.0), ("b".to_owned(), 0.0)]);
        assert!(exported.overflow.is_empty());
        exported.add(&spec, &[window(&[("c", Some(3.0))])]);
        assert_eq!(exported.overflow.values().copied().collect::<Vec<_>>(), [3.0]);
    }
}
