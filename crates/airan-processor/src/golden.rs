//! A pipeline's own test: `input.ndjson` through the shard, its result against `expected.ndjson`.
//!
//! The input runs straight, and again with a commit and a restart between any two messages; both must give the expected rows
//! (**W3**). Floating numbers may differ by 1e-9 of their size, because sums depend on the order of their terms. Where a result
//! is an approximation, `{"from": a, "to": b}` in place of a number asks for any between the two. A key that an expected row does
//! not have must be null in the result, or be one of [`OPTIONAL`].

use std::fmt::{self, Display};
use std::path::Path;

use airan_model::catalog::Catalog;
use airan_model::time::parse_rfc3339;
use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use serde_json::{Map, Value};

use crate::golden_input::{InputError, read_messages};
use crate::replay::{Cuts, ReplayError, replay};
use crate::settings::Settings;
use crate::setup::Pipeline;

/// Columns every window table has, compared only where the expected row names them.
const OPTIONAL: [&str; 3] = ["window_end", "revision", "completeness"];

/// How far two floating numbers may be apart, relative to the larger.
const TOLERANCE: f64 = 1e-9;

/// Differences that are written out; the rest are counted.
const SHOWN: usize = 20;

pub(crate) type Row = Map<String, Value>;

/// How a pipeline's test went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GoldenReport {
    /// Expected rows.
    pub rows: usize,
    /// What differs, a line each; empty where the test passed.
    pub differences: Vec<String>,
}

impl GoldenReport {
    /// Whether everything was as expected.
    pub fn is_ok(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Display for GoldenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            return write!(f, "{} rows as expected", self.rows);
        }
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(f, "{difference}")?;
        }
        match self.differences.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "… and {more} more differences"),
        }
    }
}

/// Why a pipeline's test could not be run.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line of the input is wrong.
    #[error("input.ndjson")]
    Input(#[from] InputError),
    /// A line of the expected rows is wrong.
    #[error("expected.ndjson, line {line}")]
    Expected {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The shard failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The result cannot be written as JSON.
    #[error("the result cannot be written as JSON")]
    Write(#[from] arrow::error::ArrowError),
    /// The pipeline stopped on its input.
    #[error("the pipeline stopped: {0}")]
    Stopped(String),
}

/// Runs the test in a pipeline's folder.
///
/// # Errors
/// Where the test could not be run at all; a result that differs is no error.
pub async fn pipeline_test(
    settings: &Settings,
    catalog: &Catalog,
    pipeline: &Pipeline,
    folder: &Path,
) -> Result<GoldenReport, GoldenError> {
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).map_err(|source| GoldenError::File { file: file.display().to_string(), source })
    };
    let messages = read_messages(&read("input.ndjson")?, catalog)?;
    let expected = read_expected(&read("expected.ndjson")?)?;
    let pipelines = std::slice::from_ref(pipeline);
    let mut report = GoldenReport { rows: expected.len(), differences: Vec::new() };
    for (how, cuts) in [("", Cuts::default()), ("cut and resumed: ", Cuts::restart_everywhere(messages.len()))] {
        let replayed = replay(settings, catalog, pipelines, &messages, &cuts).await?;
        if let Some((_, reason)) = replayed.stopped.into_iter().next() {
            return Err(GoldenError::Stopped(reason));
        }
        let mut found = Vec::new();
        for window in &replayed.windows {
            found.extend(to_rows(&window.rows)?);
        }
        let differences = compare(&expected, &found, &pipeline.plan.group_columns());
        report.differences.extend(differences.into_iter().map(|difference| format!("{how}{difference}")));
        if !report.is_ok() {
            break;
        }
    }
    Ok(report)
}

fn read_expected(text: &str) -> Result<Vec<Row>, GoldenError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|source| GoldenError::Expected { line: index + 1, source })
        })
        .collect()
}

/// Result rows as JSON objects, nulls left out.
pub(crate) fn to_rows(rows: &RecordBatch) -> Result<Vec<Row>, arrow::error::ArrowError> {
    let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    let text = writer.into_inner();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| arrow::error::ArrowError::JsonError(error.to_string()))
        })
        .collect()
}

/// What differs between expected and found rows. Rows are matched by window and group, not by their order.
pub(crate) fn compare(expected: &[Row], found: &[Row], keys: &[String]) -> Vec<String> {
    let key = |row: &Row| -> Vec<String> {
        let start =
            row.get("window_start").map(|start| start.as_str().and_then(parse_rfc3339).map_or(i64::MIN, |at| at));
        let start = format!("{:020}", start.unwrap_or(i64::MIN));
        std::iter::once(start)
            .chain(keys.iter().map(|name| row.get(name).map_or("null".to_owned(), Value::to_string)))
            .collect()
    };
    let sorted = |rows: &[Row]| {
        let mut rows: Vec<(Vec<String>, Row)> = rows.iter().map(|row| (key(row), row.clone())).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let (expected, found) = (sorted(expected), sorted(found));
    let mut differences = Vec::new();
    let (mut left, mut right) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return differences,
            (Some((_, row)), None) => {
                differences.push(format!("missing row {}", Value::Object(row.clone())));
                left.next();
            }
            (None, Some((_, row))) => {
                differences.push(format!("unexpected row {}", Value::Object(row.clone())));
                right.next();
            }
            (Some((a, row)), Some((b, other))) => match a.cmp(b) {
                std::cmp::Ordering::Less => {
                    differences.push(format!("missing row {}", Value::Object(row.clone())));
                    left.next();
                }
                std::cmp::Ordering::Greater => {
                    differences.push(format!("unexpected row {}", Value::Object(other.clone())));
                    right.next();
                }
                std::cmp::Ordering::Equal => {
                    compare_row(row, other, keys, &mut differences);
                    left.next();
                    right.next();
                }
            },
        }
    }
}

fn compare_row(expected: &Row, found: &Row, keys: &[String], differences: &mut Vec<String>) {
    let place = || {
        let names = std::iter::once("window_start").chain(keys.iter().map(String::as_str));
        let named =
            names.filter_map(|name| Some(format!("{name}={}", expected.get(name).filter(|value| !value.is_null())?)));
        named.collect::<Vec<_>>().join(" ")
    };
    let mut names: Vec<&String> = expected.keys().collect();
    names.extend(found.keys().filter(|name| !expected.contains_key(*name) && !OPTIONAL.contains(&name.as_str())));
    for name in names {
        let (wanted, got) = (expected.get(name).unwrap_or(&Value::Null), found.get(name).unwrap_or(&Value::Null));
        if !is_same(wanted, got) {
            differences.push(format!("{}: {name} is {got}, expected {wanted}", place()));
        }
    }
}

fn is_same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
            _ => a == b,
        },
        (Value::String(a), Value::String(b)) if a != b => {
            parse_rfc3339(a).is_some() && parse_rfc3339(a) == parse_rfc3339(b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(range), Value::Number(b)) => {
            let end = |name: &str| range.get(name).and_then(Value::as_f64);
            matches!((end("from"), b.as_f64(), end("to")), (Some(from), Some(b), Some(to)) if from <= b && b <= to)
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| is_same(value, other)))
        }
        _ => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn rows_are_matched_by_window_and_group_and_numbers_may_differ_in_the_last_digits() {
        let expected = rows(
            "{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"a\",\"x\":0.3,\"y\":null}\n{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"b\",\"x\":1}",
        );
        let found = rows(
            "{\"window_start\":\"2026-01-01T00:00:00.000Z\",\"site\":\"b\",\"x\":1.0,\"revision\":0}\n{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"a\",\"x\":0.30000000000000004}",
        );
        assert_eq!(compare(&expected, &found, &["site".to_owned()]), Vec::<String>::new());
    }

    #[test]
    fn a_range_stands_for_a_number_inside_it() {
        let range = serde_json::json!({"from": 1.0, "to": 2});
        for (found, is_inside) in
            [("1.0", true), ("1.5", true), ("2.0", true), ("2.1", false), ("0", false), ("null", false)]
        {
            assert_eq!(is_same(&range, &serde_json::from_str(found).unwrap()), is_inside, "{found}");
        }
        assert!(!is_same(&serde_json::json!({"from": 1.0}), &serde_json::json!(1.0)));
    }

    #[test]
    fn each_kind_of_difference_has_its_line() {
        let expected = rows(
            "{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"a\",\"x\":1,\"z\":null}\n{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"b\"}",
        );
        let found = rows(
            "{\"window_start\":\"2026-01-01T00:00:00Z\",\"site\":\"a\",\"x\":2,\"y\":3,\"z\":4}\n{\"window_start\":\"2026-01-01T00:00:10Z\",\"site\":\"a\"}",
        );
        let differences = compare(&expected, &found, &["site".to_owned()]);
        assert_eq!(differences.len(), 5, "{differences:#?}");
        assert!(differences.iter().any(|d| d.ends_with("x is 2, expected 1")));
        assert!(differences.iter().any(|d| d.starts_with("missing row") && d.contains("\"b\"")));
        let report = GoldenReport { rows: 2, differences };
        assert!(!report.is_ok() && report.to_string().contains("unexpected row"));
    }

    /// Scenario: every folder of `pipelines/`, straight, and with a restart between any two messages.
    /// Guarantees: the rows of the second implementation that wrote `expected.ndjson`, none missing and none besides.
    #[tokio::test]
    async fn the_shipped_pipelines_give_what_their_folders_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let catalog = Catalog::load(&root.join("config/catalog")).unwrap();
        let folders = airan_window::pipeline::load(&root.join("pipelines")).unwrap();
        assert!(folders.len() >= 6);
        for folder in folders {
            let name = folder.spec.name.clone();
            let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
            let plan = airan_window::PipelinePlan::new(&name, &folder.sql, &schema_of).await.unwrap();
            let pipeline = Pipeline { spec: folder.spec, plan };
            let folder = root.join("pipelines").join(&name);
            let report = pipeline_test(&crate::testing::settings(), &catalog, &pipeline, &folder).await.unwrap();
            assert!(report.is_ok() && report.rows > 0, "{name}: {report}");
        }
    }
}
