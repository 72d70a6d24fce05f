//! Mistakes people make in a pipeline's folder, and what they are told.

use airan_model::catalog::Catalog;
use arrow::datatypes::{DataType, Field, Schema};

use super::*;

const SPEC_TEXT: &str = "name: link_use
description: Use of each network interface
table: link_use
lateness: 10s
staleness_windows: 3
series_budget: 10000
metrics:
  - column: receive_bytes
    name: airan_link_receive_bytes_total
    type: counter
    unit: bytes
    help: Bytes received
    labels: [site, interface]
";

fn mistake(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The text with one line replaced.
fn with(line: &str, other: &str) -> String {
    assert!(SPEC_TEXT.contains(line), "{line}");
    SPEC_TEXT.replacen(line, other, 1)
}

#[test]
fn a_specification_is_read() {
    let spec = parse(SPEC_TEXT).unwrap();
    assert_eq!((spec.name.as_str(), spec.table.as_str()), ("link_use", "link_use"));
    assert_eq!((spec.lateness.micros(), spec.staleness_windows, spec.series_budget), (10_000_000, 3, 10_000));
    let metric = &spec.metrics[0];
    assert_eq!((metric.column.as_str(), metric.ty, metric.unit), ("receive_bytes", MetricType::Counter, Unit::Bytes));
    assert_eq!(metric.labels, ["site", "interface"]);
    let without = SPEC_TEXT.split("metrics:").next().unwrap();
    assert_eq!(parse(without).unwrap().metrics, []);
}

/// Scenario: one mistake each.
/// Guarantees: line and column of the mistake, and what was probably meant.
#[test]
fn a_mistake_is_told_with_its_place_and_what_was_meant() {
    for (text, told) in [
        (with("table: link_use", "tabel: link_use"), "pipeline.yaml:3:1: unknown key `tabel`; did you mean `table`?"),
        (with("    help:", "    halp:"), "pipeline.yaml:12:5: unknown key `halp`; did you mean `help`?"),
        (with("type: counter", "type: count"), "pipeline.yaml:10:11: unknown value `count`; did you mean `counter`?"),
        (with("lateness: 10s\n", ""), "`lateness` is missing; usual is 10s"),
        (with("series_budget: 10000\n", ""), "`series_budget` is missing; usual is 10000"),
        (with("    unit: bytes\n", ""), "`unit` is missing"),
        (with("name: link_use", "name: Link-Use"), "pipeline.yaml:1:7: `Link-Use` is no name"),
        (with("table: link_use", "table: link_latest"), "pipeline.yaml:3:8: `link_latest` ends in `_latest`"),
        (
            with("staleness_windows: 3", "staleness_windows: 0"),
            "pipeline.yaml:5:20: `staleness_windows` must be at least 1",
        ),
        (with("series_budget: 10000", "series_budget: 0"), "pipeline.yaml:6:16: `series_budget` must be at least 1"),
        (with("lateness: 10s", "lateness: soon"), "pipeline.yaml:4:11: `soon` is no duration"),
        (with("unit: bytes", "unit: byte"), "pipeline.yaml:11:11: `byte` is no base unit; did you mean `bytes`?"),
        (with("unit: bytes", "unit: milliseconds"), "`milliseconds` is no base unit; did you mean `seconds`?"),
        (with("help: Bytes received", "help: ''"), "pipeline.yaml:12:11: `help` is empty"),
        (
            with("description: Use of each network interface", "description: ' '"),
            "pipeline.yaml:2:14: `description` is empty",
        ),
        (
            with("bytes_total", "bytes"),
            "pipeline.yaml:9:11: metric `airan_link_receive_bytes` is a counter: it must end in `_total`",
        ),
        (with("[site, interface]", "[site, le]"), "pipeline.yaml:13:20: label `le` belongs to histograms"),
        (
            with("[site, interface]", "[site, site]"),
            "pipeline.yaml:13:20: label `site` stands already at pipeline.yaml:13:14",
        ),
        (with("name: link_use", "name: [a"), "pipeline.yaml:"),
    ] {
        let said = mistake(&text);
        assert!(said.contains(told), "`{said}` does not say `{told}`");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn one_metric_stands_in_a_specification_once() {
    let (_, metric) = SPEC_TEXT.split_once("metrics:\n").unwrap();
    let said = mistake(&format!("{SPEC_TEXT}{metric}"));
    assert_eq!(
        said,
        "pipeline.yaml:15:11: metric `airan_link_receive_bytes_total` stands already at pipeline.yaml:9:11"
    );
}

/// Scenario: a query that does not have what the specification names, or has it in a type that cannot be shown.
#[test]
fn columns_and_labels_are_checked_against_the_results() {
    let catalog = Catalog::builtin().unwrap();
    let results = |columns: &[(&str, DataType)]| {
        Schema::new(columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect::<Vec<_>>())
    };
    let good = [("site", DataType::Utf8), ("interface", DataType::Utf8), ("receive_bytes", DataType::Float64)];
    let spec = parse(SPEC_TEXT).unwrap();
    let width = crate::WindowWidth::from_micros(10_000_000).unwrap();
    let tumbling = crate::Cut::tumbling(width);
    spec.check(&results(&good), tumbling, &catalog).unwrap();
    let hopping = crate::Cut::hopping(width, 60_000_000).unwrap();
    let overlaps = spec.check(&results(&good), hopping, &catalog).unwrap_err().to_string();
    assert!(
        overlaps.starts_with("pipeline.yaml:9:11: metric `airan_link_receive_bytes_total` is a counter, but"),
        "{overlaps}"
    );
    let said = |spec: &PipelineSpec, columns: &[(&str, DataType)]| {
        spec.check(&results(columns), tumbling, &catalog).unwrap_err().to_string()
    };
    let renamed = [good[0].clone(), good[1].clone(), ("received_bytes", DataType::Float64)];
    assert_eq!(
        said(&spec, &renamed),
        "pipeline.yaml:8:13: the query has no column `receive_bytes`; did you mean `received_bytes`?"
    );
    let text = [good[0].clone(), good[1].clone(), ("receive_bytes", DataType::Utf8)];
    assert_eq!(said(&spec, &text), "pipeline.yaml:8:13: column `receive_bytes` is Utf8, a number is needed");
    let float = [good[0].clone(), ("interface", DataType::Float64), good[2].clone()];
    assert_eq!(
        said(&spec, &float),
        "pipeline.yaml:13:20: column `interface` is Float64, text or a whole number is needed"
    );
    let stream = parse(&with("table: link_use", "table: link")).unwrap();
    assert!(said(&stream, &good).contains("pipeline.yaml:3:8: `link` is the table of a stream"));
    let subscriber = parse(&with("[site, interface]", "[site, imsi]")).unwrap();
    let with_imsi = [good[0].clone(), ("imsi", DataType::Utf8), good[2].clone()];
    assert!(said(&subscriber, &with_imsi).contains("label `imsi` names a subscriber"));
}

/// A folder with pipelines, given by folder and texts.
fn folder(pipelines: &[(&str, Option<&str>, Option<&str>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, spec, sql) in pipelines {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        if let Some(spec) = spec {
            std::fs::write(path.join(SPEC), spec).unwrap();
        }
        if let Some(sql) = sql {
            std::fs::write(path.join(SQL), sql).unwrap();
        }
    }
    dir
}

#[test]
fn pipelines_are_read_in_the_order_of_their_folders() {
    let other = with("name: link_use", "name: other").replace("table: link_use", "table: other");
    let other = other.replace("airan_link_receive", "airan_other_receive");
    let dir = folder(&[
        ("b", Some(SPEC_TEXT), Some("SELECT 1")),
        ("a", Some(&other), Some("SELECT 2")),
        ("notes", None, None),
    ]);
    let found = load(dir.path()).unwrap();
    let told: Vec<_> = found.iter().map(|folder| (folder.spec.name.as_str(), folder.sql.as_str())).collect();
    assert_eq!(told, [("other", "SELECT 2"), ("link_use", "SELECT 1")]);
    assert_eq!(found[0].path, dir.path().join("a"));
}

/// Scenario: folders copied and left half changed, or half there.
#[test]
fn pipelines_that_would_overwrite_each_other_or_are_incomplete_are_refused() {
    let sql = Some("SELECT 1");
    let renamed = with("name: link_use", "name: other");
    let moved = renamed.replace("table: link_use", "table: other");
    for (second, told) in [
        (SPEC_TEXT, "pipeline `link_use` stands already at "),
        (&renamed, "table `link_use` stands already at "),
        (&moved, "metric `airan_link_receive_bytes_total` stands already at "),
    ] {
        let dir = folder(&[("a", Some(SPEC_TEXT), sql), ("b", Some(second), sql)]);
        let said = load(dir.path()).unwrap_err().to_string();
        let (place, first) = (dir.path().join("b").join(SPEC), dir.path().join("a").join(SPEC));
        assert!(said.starts_with(&place.display().to_string()) && said.contains(told), "{said}");
        assert!(said.contains(&first.display().to_string()), "{said}");
    }
    let no_spec = folder(&[("a", None, sql)]);
    assert!(matches!(load(no_spec.path()), Err(PipelineError::Read { path, .. }) if path.ends_with("a/pipeline.yaml")));
    let no_sql = folder(&[("a", Some(SPEC_TEXT), None)]);
    assert!(matches!(load(no_sql.path()), Err(PipelineError::Read { path, .. }) if path.ends_with("a/query.sql")));
    let empty_sql = folder(&[("a", Some(SPEC_TEXT), Some(" \n"))]);
    assert!(matches!(load(empty_sql.path()), Err(PipelineError::NoQuery { .. })));
    assert!(matches!(load(folder(&[]).path()), Err(PipelineError::NoPipelines { .. })));
    assert!(matches!(load(Path::new("/no/such/folder")), Err(PipelineError::Read { .. })));
}

/// Guarantees: what is built in is what stands in `pipelines/`, all of it.
#[test]
fn the_shipped_pipelines_are_built_in() {
    let shipped = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines")).unwrap();
    let builtin = builtin().unwrap();
    let names = |folders: &[PipelineFolder]| folders.iter().map(|folder| folder.spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&builtin), names(&shipped));
    assert!(builtin.iter().zip(&shipped).all(|(built, shipped)| built.sql == shipped.sql));
    for (folder, (name, ..)) in builtin.iter().zip(BUILTIN) {
        assert_eq!((folder.spec.name.as_str(), folder.spec.table.as_str()), (*name, *name), "named as their folder");
        assert!(folder.spec.metrics.iter().all(|metric| metric.labels.contains(&"site".to_owned())), "{name}");
    }
}

/// Guarantees: each shipped query can be planned, and has the columns and labels its metrics name.
#[tokio::test]
async fn the_shipped_pipelines_fit_their_queries() {
    let catalog = Catalog::builtin().unwrap();
    for folder in builtin().unwrap() {
        let schema_of = |stream: &str| catalog.stream(stream).map(|stream| std::sync::Arc::clone(stream.schema()));
        let plan = crate::PipelinePlan::new(&folder.spec.name, &folder.sql, &schema_of).await;
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", folder.spec.name));
        folder.spec.check(plan.output_schema(), plan.cut(), &catalog).unwrap();
    }
}
