use super::*;

const STREAM: &str = "streams:
  - name: accelerator
    meaning: a device
    period: 15s
    entity:
      - {name: device, meaning: which}
    columns:
      - {name: utilization, kind: gauge, unit: ratio, meaning: busy}
      - {name: energy_joules, kind: counter, unit: joules, meaning: energy}
      - {name: clock_state, kind: state, unit: none, meaning: state}
      - {name: errors, kind: counter, unit: count, meaning: errors}
";

fn built(files: &[(&str, &str)]) -> Result<Catalog, CatalogError> {
    build(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

fn refused(mapping: &str) -> String {
    match built(&[("s.yaml", STREAM), ("m.yaml", mapping)]) {
        Ok(_) => format!("accepted: {mapping}"),
        Err(error) => error.to_string(),
    }
}

/// A mapping file with these metrics, the first of which stands in line 5.
fn metrics(lines: &[&str]) -> String {
    let metrics: String = lines.iter().map(|line| format!("      - {line}\n")).collect();
    format!("sources:\n  - name: x\n    meaning: x\n    metrics:\n{metrics}")
}

/// Scenario: one file for each thing that is refused about mappings.
/// Guarantees: the error names file, line and column of the word that is wrong.
#[test]
fn a_wrong_mapping_is_refused_with_its_place() {
    for (lines, expected) in [
        (
            &["{name: a, to: acelerator.utilization, unit: ratio}"][..],
            "m.yaml:5:23: no stream `acelerator`, did you mean `accelerator`?",
        ),
        (
            &["{name: a, to: accelerator.utilisation, unit: ratio}"],
            "m.yaml:5:23: no column `utilisation` in accelerator, did you mean `utilization`?",
        ),
        (
            &["{name: a, to: utilization, unit: ratio}"],
            "m.yaml:5:23: `utilization` is no target: write `stream.column`",
        ),
        (
            &["{name: a, to: accelerator.utilization, unit: percents}"],
            "m.yaml:5:54: no conversion for unit `percents`, did you mean `percent`?",
        ),
        (
            &["{name: a, to: accelerator.utilization, unit: watts}"],
            "m.yaml:5:54: no conversion from watts to the column's ratio",
        ),
        (
            &["{name: a, to: accelerator.utilization}"],
            "m.yaml:5:16: the unit of `a` is missing: its column is in ratio",
        ),
        (
            &[
                "{name: a, to: accelerator.utilization, unit: ratio}",
                "{name: b, to: accelerator.utilization, unit: percent}",
            ],
            "m.yaml:6:16: `b` fills the column that `a` at m.yaml:5:16 fills already: give `when` or `combine`",
        ),
        (
            &[
                "{name: a, to: accelerator.utilization, unit: ratio}",
                "{name: a, to: accelerator.energy_joules, unit: joules}",
            ],
            "m.yaml:6:16: metric `a` stands already at m.yaml:5:16",
        ),
        (
            &[
                "{name: a, to: accelerator.utilization, unit: ratio}",
                "{name: a, to: accelerator.energy_joules, unit: joules, when: {k: v}}",
            ],
            "m.yaml:6:16: `a` never comes here: its target at m.yaml:5:16 has no `when`",
        ),
        (
            &["{name: a, to: accelerator.clock_state}"],
            "m.yaml:5:16: a text column needs `values`; an int column may have whole numbers as `values`, others none",
        ),
        (
            &["{name: a, to: accelerator.utilization, unit: ratio, values: {'0': idle}}"],
            "m.yaml:5:16: a text column needs `values`; an int column may have whole numbers as `values`, others none",
        ),
        (
            &["{name: a, to: accelerator.errors, at_least: 5, below: 5}"],
            "m.yaml:5:16: no value lands here: `at_least` must be below `below`, and neither goes with a histogram",
        ),
        (
            &["{name: a, to: accelerator.errors, below: 5}", "{name: a, to: accelerator.errors, below: 5}"],
            "m.yaml:6:16: metric `a` stands already at m.yaml:5:16",
        ),
    ] {
        assert_eq!(refused(&metrics(lines)), expected);
    }
    for (text, expected) in [
        (
            "sources:\n  - {name: x, meaning: x}\n  - {name: x, meaning: x}\n",
            "m.yaml:3:12: source `x` stands already at m.yaml:2:12",
        ),
        (
            "sources:\n  - name: x\n    meaning: x\n    entity:\n      - {column: accelerator.divice, from: [a]}\n",
            "m.yaml:5:18: no column `divice` in accelerator, did you mean `device`?",
        ),
        (
            "sources:\n  - name: x\n    meaning: x\n    columns:\n      - {label: a, to: utilization}\n",
            "m.yaml:5:24: no column `utilization` in the columns that a label can fill, of any stream",
        ),
        ("drop_fields: [imsi, '--']\n", "m.yaml:1:21: `--` names no field"),
        ("drop_fields: [imsi, imsi]\n", "m.yaml:1:21: field `imsi` stands already at m.yaml:1:15"),
    ] {
        assert_eq!(refused(text), expected);
    }
    let two_sources = format!(
        "{}{}",
        metrics(&["{name: a, to: accelerator.errors}"]),
        "  - name: y\n    meaning: y\n    metrics:\n      - {name: a, to: accelerator.errors, when: {k: v}}\n"
    );
    assert_eq!(refused(&two_sources), "m.yaml:9:16: metric `a` stands already at m.yaml:5:16");
}

/// Scenario: one file for each thing that is refused about streams.
#[test]
fn a_wrong_stream_is_refused_with_its_place() {
    let columns = |lines: &str| format!("streams:\n  - name: accelerator\n    columns:\n{lines}");
    for (text, expected) in [
        (
            columns(
                "      - {name: power, kind: gauge, unit: watts, meaning: x}\n      - {name: power, kind: gauge, unit: watts, meaning: x}\n",
            ),
            "m.yaml:5:16: column `power` stands already at m.yaml:4:16",
        ),
        (
            columns("      - {name: utilization, kind: gauge, type: int, unit: ratio, meaning: x}\n"),
            "m.yaml:4:16: column `accelerator.utilization` is a gauge of type float in ratio at s.yaml:8:16 and a gauge of type int in ratio here: a column's type never changes, add a new one",
        ),
        (
            columns("      - {name: energy_joules_increase, kind: gauge, unit: joules, meaning: x}\n"),
            "m.yaml:4:16: column `energy_joules_increase` stands already at s.yaml:9:16",
        ),
        (
            columns("      - {name: ts, kind: gauge, unit: none, meaning: x}\n"),
            "m.yaml:4:16: `ts` is the name of a column that every stream has or that another column adds",
        ),
        (
            columns("      - {name: Power, kind: gauge, unit: watts, meaning: x}\n"),
            "m.yaml:4:16: `Power` is no name: write lower-case letters, digits and `_`, beginning with a letter",
        ),
        (
            columns("      - {name: power, kind: gauge, unit: milliwatts, meaning: x}\n"),
            "m.yaml:4:42: columns are kept in base units: write `watts` instead of `milliwatts`",
        ),
        (
            columns("      - {name: power, kind: gauge, unit: watt, meaning: x}\n"),
            "m.yaml:4:42: no conversion for unit `watt`, did you mean `watts`?",
        ),
        (
            columns("      - {name: power, kind: histogram, type: float, unit: watts, meaning: x}\n"),
            "m.yaml:4:16: a histogram cannot be of type float",
        ),
        ("streams:\n  - name: other\n".to_owned(), "m.yaml:2:11: stream `other` needs `meaning` and `period`"),
        (
            "streams:\n  - {name: accelerator, period: 3s}\n".to_owned(),
            "m.yaml:2:12: stream `accelerator` is described already: here it may only get `columns`",
        ),
    ] {
        assert_eq!(refused(&text), expected);
    }
}

/// Scenario: what the YAML reader itself refuses.
#[test]
fn a_file_that_is_no_catalog_is_refused_with_its_place() {
    for (text, place, word) in [
        ("streems: []\n", "m.yaml:1:1: ", "streems"),
        ("sources:\n  - name: x\n    meaning: x\n    metrics:\n      - {name: a, two: b}\n", "m.yaml:5:", "two"),
        ("streams:\n  - {name: a, meaning: a, period: 10 parsecs}\n", "m.yaml:2:", "parsecs"),
        ("streams: [\n", "m.yaml:", ""),
    ] {
        let error = refused(text);
        assert!(error.starts_with(place) && error.contains(word) && !error.contains('\n'), "{error}");
    }
    assert!(matches!(Catalog::load(std::path::Path::new("/nowhere")), Err(CatalogError::Read { .. })));
}

/// Scenario: a second file adds a column; several targets by label; a sum of several metrics; names for numbers.
#[test]
fn what_is_right_is_built() {
    let more = "streams:\n  - name: accelerator\n    columns:\n      - {name: fan_ratio, kind: gauge, unit: ratio, meaning: x}\n";
    let mapping = metrics(&[
        "{name: fan, to: accelerator.fan_ratio, unit: percent, when: {kind: relative}}",
        "{name: fan, to: accelerator.utilization, unit: ratio}",
        "{name: e1, to: accelerator.errors, combine: sum}",
        "{name: e2, to: accelerator.errors, combine: sum}",
        "{name: s, to: accelerator.clock_state, values: {'0': freerun, '1': locked}}",
    ]);
    let catalog = built(&[("s.yaml", STREAM), ("m.yaml", &mapping), ("z.yaml", more)]).unwrap();
    let fan = catalog.metric("fan").unwrap();
    assert_eq!(fan.targets.len(), 2);
    assert_eq!(
        (fan.targets[0].scale, fan.targets[0].when.clone()),
        (0.01, vec![("kind".to_owned(), "relative".to_owned())])
    );
    assert_eq!(fan.targets[0].stream.columns[fan.targets[0].column].name, "fan_ratio");
    assert_eq!(catalog.metric("e2").unwrap().targets[0].combine, Combine::Sum);
    assert_eq!(catalog.metric("s").unwrap().targets[0].values.as_ref().unwrap()["1"], "locked");
    assert!(catalog.metric("nobody").is_none());
    let names: Vec<String> =
        catalog.stream("accelerator").unwrap().schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names[5..10], ["start_ts", "device", "utilization", "energy_joules", "energy_joules_increase"]);
}

/// The catalog in the source tree is the one compiled in.
#[test]
fn the_shipped_folder_and_the_compiled_catalog_are_the_same() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/catalog");
    let (loaded, builtin) = (Catalog::load(&folder).unwrap(), Catalog::builtin().unwrap());
    let mut streams: Vec<_> = loaded.streams().map(|s| (Arc::clone(&s.name), Arc::clone(s.schema()))).collect();
    let mut compiled: Vec<_> = builtin.streams().map(|s| (Arc::clone(&s.name), Arc::clone(s.schema()))).collect();
    streams.sort_by(|a, b| a.0.cmp(&b.0));
    compiled.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(streams, compiled);
    let names = |c: &Catalog| c.metrics().iter().map(|m| (m.name.clone(), m.targets.len())).collect::<Vec<_>>();
    assert_eq!(names(&loaded), names(&builtin));
}

/// Scenario: one name in two units by the size of its value, one that must not have a label, and both with a prefix as well.
/// Guarantees: each is a target of its own; the last, without conditions, takes the rest; the prefixed name is like the plain one.
#[test]
fn targets_are_told_apart_by_value_by_absent_labels_and_by_prefix() {
    let mapping = "sources:
  - name: x
    meaning: x
    also_prefixed: [p_]
    needs_one_of: [uuid]
    metrics:
      - {name: a, to: accelerator.energy_joules, unit: joules, below: 1000}
      - {name: a, to: accelerator.energy_joules, unit: microjoules, at_least: 1000}
      - {name: b, to: accelerator.errors, without: [core]}
      - {name: b, to: accelerator.utilization, unit: ratio}
";
    let catalog = built(&[("s.yaml", STREAM), ("m.yaml", mapping)]).unwrap();
    for name in ["a", "p_a"] {
        let targets = &catalog.metric(name).unwrap().targets;
        let scales = |value: f64| targets.iter().filter(|t| t.takes(value)).map(|t| t.scale).collect::<Vec<_>>();
        assert_eq!(scales(999.0), [1.0], "{name}");
        assert_eq!(scales(1000.0), [1e-6], "{name}");
    }
    let b = catalog.metric("p_b").unwrap();
    let without: Vec<&[String]> = b.targets.iter().map(|target| target.without.as_slice()).collect();
    assert_eq!(without, [&["core".to_owned()][..], &[]]);
    assert_eq!(b.source.needs_one_of, ["uuid"]);
}
