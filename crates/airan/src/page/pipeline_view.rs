//! A pipeline as the page shows it: its table, what names a series in it, and its columns with units.

use airan_model::schema::{REGION, SITE};
use airan_model::unit::Unit;
use airan_processor::Pipeline;
use airan_window::pipeline::MetricType;
use arrow::datatypes::DataType;
use serde::Serialize;

/// Of every window table, besides what its query gives.
const EVERY: [&str; 4] = ["window_start", "window_end", "revision", "completeness"];

/// A pipeline whose windows can be looked at.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineView {
    /// Its name.
    pub name: String,
    /// First sentence of its description.
    pub about: String,
    /// Seconds from one window to the next.
    pub width_seconds: f64,
    /// Columns that name a series within a site.
    pub keys: Vec<String>,
    /// Columns that are numbers.
    pub columns: Vec<Column>,
    /// Its table in the lake.
    #[serde(skip)]
    pub table: String,
}

/// A column of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name in the lake.
    pub name: String,
    /// A base unit: of its metric, else as its name ends; `none` where neither tells.
    pub unit: &'static str,
    /// What it says, where a metric of the pipeline does.
    pub help: String,
    /// Whether the value is what the window adds to a sum.
    pub is_added: bool,
}

impl PipelineView {
    /// Of a planned pipeline.
    pub fn of(pipeline: &Pipeline) -> PipelineView {
        let spec = &pipeline.spec;
        let all_keys = pipeline.plan.group_columns();
        let is_value = |name: &str, ty: &DataType| {
            ty.is_numeric() && !EVERY.contains(&name) && !all_keys.iter().any(|key| key == name)
        };
        let column = |name: &str| {
            let metric = spec.metrics.iter().find(|metric| metric.column == name);
            Column {
                name: name.to_owned(),
                unit: metric.map_or_else(|| unit_of(name), |metric| metric.unit).as_str(),
                help: metric.map(|metric| metric.help.clone()).unwrap_or_default(),
                is_added: metric.is_some_and(|metric| metric.ty == MetricType::Counter),
            }
        };
        let fields = pipeline.plan.output_schema().fields();
        let values = fields.iter().filter(|field| is_value(field.name(), field.data_type()));
        PipelineView {
            name: spec.name.clone(),
            about: sentence(&spec.description),
            width_seconds: pipeline.plan.cut().slide().micros() as f64 / 1_000_000.0,
            columns: values.map(|field| column(field.name())).collect(),
            keys: all_keys.into_iter().filter(|key| key != SITE && key != REGION).collect(),
            table: spec.table.clone(),
        }
    }
}

/// The unit that a column's name ends in.
fn unit_of(name: &str) -> Unit {
    let ends = |unit: &Unit| {
        let suffix = unit.as_str();
        !matches!(unit, Unit::Count | Unit::None)
            && name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    };
    // `bytes_per_second` ends in `per_second` too: the longest says most.
    Unit::ALL.into_iter().filter(ends).max_by_key(|unit| unit.as_str().len()).unwrap_or(Unit::None)
}

/// The first sentence of a description that may run over lines.
fn sentence(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use airan_model::catalog::Catalog;

    use super::*;
    use crate::config::{self, Mode};
    use crate::pipelines;

    #[test]
    fn a_column_without_a_metric_has_the_unit_of_its_name() {
        for (name, unit) in [
            ("receive_bytes_per_second", Unit::BytesPerSecond),
            ("tokens_per_second", Unit::PerSecond),
            ("p99_seconds", Unit::Seconds),
            ("seconds", Unit::Seconds),
            ("milliseconds", Unit::None),
            ("discount", Unit::None),
            ("requests_count", Unit::None),
        ] {
            assert_eq!(unit_of(name), unit, "{name}");
        }
    }

    /// Guarantees: each built-in pipeline is shown with a sentence, columns, and no key among them.
    #[tokio::test]
    async fn every_built_in_pipeline_can_be_shown() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::load(None, Mode::Up, Some(folder.path())).map_err(|e| e.to_string()).unwrap().config;
        let planned = pipelines::load(&config, &Catalog::builtin().unwrap()).await.unwrap();
        let shown: Vec<PipelineView> = planned.iter().map(PipelineView::of).collect();
        for one in &shown {
            assert!(!one.about.is_empty() && !one.about.contains('\n') && one.about.len() < 200, "{one:?}");
            assert!(!one.columns.is_empty() && one.width_seconds >= 1.0, "{one:?}");
            let is_key = |name: &String| one.keys.contains(name) || name == SITE || name == REGION;
            assert!(!one.columns.iter().any(|column| is_key(&column.name)), "{one:?}");
            assert!(one.columns.iter().all(|column| !EVERY.contains(&column.name.as_str())), "{one:?}");
        }
        let accelerators = shown.iter().find(|one| one.name == "accelerator_capacity").unwrap();
        assert_eq!(accelerators.keys, ["node", "device", "slice"]);
        let energy = accelerators.columns.iter().find(|column| column.name == "energy_joules").unwrap();
        assert_eq!((energy.unit, energy.is_added, accelerators.width_seconds), ("joules", true, 10.0));
    }
}
