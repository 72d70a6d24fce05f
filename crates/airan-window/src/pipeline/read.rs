//! From the text of a `pipeline.yaml` to a [`PipelineSpec`].

use airan_model::Place;
use airan_model::settings::DurationSetting;
use airan_model::unit::{self, Unit};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::error::{PipelineError, Problem};
use super::names::{check_label, check_metric, is_name};
use super::{MetricSpec, MetricType, PipelineSpec, Places};
use crate::error::nearest;

/// Ending of the view that shows the newest revision of a table.
const VIEW: &str = "_latest";

/// What is usual for keys that have no natural value, for who forgets one.
const USUAL: [(&str, &str); 3] = [("lateness", "10s"), ("staleness_windows", "3"), ("series_budget", "10000")];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SpecText {
    /// Of the pipeline: in logs and metrics.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    name: Spanned<String>,
    /// What it computes, by which formulae, and where those come from.
    #[schemars(with = "String", length(min = 1))]
    description: Spanned<String>,
    /// Of the results in the lake.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    table: Spanned<String>,
    /// How long a window waits for rows behind the newest; usual is 10s.
    lateness: DurationSetting,
    /// A gauge without news for so many windows disappears; usual is 3.
    #[schemars(with = "u32", range(min = 1))]
    staleness_windows: Spanned<u32>,
    /// Most series of all metrics together in one shard; usual is 10000.
    #[schemars(with = "u32", range(min = 1))]
    series_budget: Spanned<usize>,
    /// Columns of the results that become metrics of Prometheus.
    #[serde(default)]
    metrics: Vec<MetricText>,
}

/// A metric of Prometheus.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MetricText {
    /// Column of the results.
    #[schemars(with = "String")]
    column: Spanned<String>,
    /// As Prometheus names metrics: with the unit, and of counters `_total`, at the end.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    name: Spanned<String>,
    /// A gauge shows the newest closed window; a counter adds the windows up.
    r#type: MetricType,
    /// The base unit of the column.
    #[schemars(with = "Unit")]
    unit: Spanned<String>,
    /// What it says, for people.
    #[schemars(with = "String", length(min = 1))]
    help: Spanned<String>,
    /// Columns of the results that tell its series apart.
    #[schemars(with = "Vec<String>")]
    labels: Vec<Spanned<String>>,
}

/// The JSON Schema of a `pipeline.yaml`, for editors. What it takes may still be refused: a name that does not end in its unit, a column
/// that the SQL does not have.
pub(super) fn schema() -> Schema {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<SpecText>();
    schema.insert("title".to_owned(), "a pipeline of airan".into());
    schema
}

/// Reads a specification; `file` is how errors name it.
pub(super) fn spec(file: &str, text: &str) -> Result<PipelineSpec, PipelineError> {
    let text: SpecText = serde_saphyr::from_str(text).map_err(|error| mistake(file, &error))?;
    named(file, &text.name)?;
    named(file, &text.table)?;
    if text.table.value.ends_with(VIEW) {
        return Err(refuse(file, &text.table, Problem::ViewName(text.table.value.clone())));
    }
    said(file, &text.description, "description")?;
    if text.staleness_windows.value == 0 {
        return Err(refuse(file, &text.staleness_windows, Problem::Zero("staleness_windows")));
    }
    if text.series_budget.value == 0 {
        return Err(refuse(file, &text.series_budget, Problem::Zero("series_budget")));
    }
    let mut metrics: Vec<MetricSpec> = Vec::with_capacity(text.metrics.len());
    for metric in text.metrics {
        let metric = self::metric(file, metric)?;
        if let Some(first) = metrics.iter().find(|other| other.name == metric.name) {
            let problem = Problem::Duplicate { what: "metric", name: metric.name, first: first.place.clone() };
            return Err(PipelineError::Refused { place: metric.place, problem: Box::new(problem) });
        }
        metrics.push(metric);
    }
    Ok(PipelineSpec {
        places: Places { name: place(file, &text.name), table: place(file, &text.table) },
        name: text.name.value,
        description: text.description.value.trim_end().to_owned(),
        lateness: text.lateness,
        table: text.table.value,
        staleness_windows: text.staleness_windows.value,
        series_budget: text.series_budget.value,
        metrics,
    })
}

fn metric(file: &str, text: MetricText) -> Result<MetricSpec, PipelineError> {
    let unit = base_unit(&text.unit.value).map_err(|problem| refuse(file, &text.unit, problem))?;
    check_metric(&text.name.value, text.r#type, unit)
        .map_err(|reason| refuse(file, &text.name, Problem::Metric { name: text.name.value.clone(), reason }))?;
    said(file, &text.help, "help")?;
    for (at, label) in text.labels.iter().enumerate() {
        check_label(&label.value)
            .map_err(|reason| refuse(file, label, Problem::Label { name: label.value.clone(), reason }))?;
        if let Some(first) = text.labels[..at].iter().find(|other| other.value == label.value) {
            let (name, first) = (label.value.clone(), place(file, first));
            return Err(refuse(file, label, Problem::Duplicate { what: "label", name, first }));
        }
    }
    Ok(MetricSpec {
        place: place(file, &text.name),
        column_place: place(file, &text.column),
        label_places: text.labels.iter().map(|label| place(file, label)).collect(),
        column: text.column.value,
        name: text.name.value,
        ty: text.r#type,
        unit,
        help: text.help.value.trim().to_owned(),
        labels: text.labels.into_iter().map(|label| label.value).collect(),
    })
}

/// A base unit by name; results are in base units, since nothing converts them.
fn base_unit(name: &str) -> Result<Unit, Problem> {
    let base = || unit::conversion(name).map(|(unit, _)| unit.as_str().to_owned());
    let near = || nearest(name, Unit::ALL.into_iter().map(Unit::as_str));
    Unit::named(name).ok_or_else(|| Problem::Unit { name: name.to_owned(), near: base().or_else(near) })
}

fn named(file: &str, name: &Spanned<String>) -> Result<(), PipelineError> {
    if is_name(&name.value) { Ok(()) } else { Err(refuse(file, name, Problem::Name(name.value.clone()))) }
}

fn said(file: &str, text: &Spanned<String>, key: &'static str) -> Result<(), PipelineError> {
    if text.value.trim().is_empty() { Err(refuse(file, text, Problem::Empty(key))) } else { Ok(()) }
}

fn refuse<T>(file: &str, at: &Spanned<T>, problem: Problem) -> PipelineError {
    PipelineError::Refused { place: place(file, at), problem: Box::new(problem) }
}

fn place<T>(file: &str, at: &Spanned<T>) -> Place {
    located(file, at.referenced)
}

fn located(file: &str, at: Location) -> Place {
    Place { file: file.to_owned(), line: at.line(), column: at.column() }
}

/// What the YAML reader found wrong, in our words where it is something that happens often.
fn mistake(file: &str, error: &serde_saphyr::Error) -> PipelineError {
    use serde_saphyr::Error;
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let reason = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::SerdeMissingField { field, .. } => match USUAL.iter().find(|(key, _)| key == field) {
            Some((_, usual)) => format!("`{field}` is missing; usual is {usual}"),
            None => format!("`{field}` is missing"),
        },
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    PipelineError::Yaml { place: located(file, location), reason }
}

fn unknown(what: &str, wrong: &str, known: &[&'static str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("unknown {what} `{wrong}`; did you mean `{name}`?"),
        None => format!("unknown {what} `{wrong}`; known here: {}", known.join(", ")),
    }
}
