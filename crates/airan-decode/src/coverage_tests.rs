//! Whether the catalog knows what its vendors' own lists name, and holds together.

use std::path::Path;

use airan_model::catalog::{Catalog, ColumnType, Kind};

use crate::samples_tests::folder;
use crate::testing::catalog;

fn list(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Scenario: the names, types and help texts NVIDIA Aerial registers.
/// Guarantees: each has columns of its type.
#[test]
fn every_name_aerial_registers_has_a_column() {
    let Some(folder) = folder() else { return };
    let list = list(&folder, "refs/aerial_metric_names.tsv");
    for line in list.lines().skip(1) {
        let (name, rest) = line.split_once('\t').unwrap();
        let mapping = catalog().metric(name).unwrap_or_else(|| panic!("{name} has no column"));
        for target in &mapping.targets {
            let column = &target.stream.columns[target.column];
            assert_eq!(column.ty == ColumnType::Histogram, rest.starts_with("histogram"), "{name}");
            assert_eq!(column.kind == Kind::Counter, rest.starts_with("counter"), "{name}");
        }
    }
    assert_eq!(list.lines().count(), 43);
}

/// Scenario: the counters dcgm-exporter collects by default and those its list offers as comments.
/// Guarantees: each field of a device has a column, but for NVLink's bandwidth, whose unit is not documented, and for counts of
/// the exporter's own windows (DCGM_EXP_).
#[test]
fn every_counter_of_dcgm_exporters_list_has_a_column() {
    let Some(folder) = folder() else { return };
    let list = list(&folder, "accel-nvidia/default-counters.csv");
    let mut left = Vec::new();
    let mut fields = 0;
    for line in list.lines() {
        let parts: Vec<&str> = line.trim_start_matches(['#', ' ']).split(',').map(str::trim).collect();
        let [name, "gauge" | "counter", ..] = parts[..] else { continue };
        if name.starts_with("DCGM_FI_") {
            fields += 1;
            left.extend(catalog().metric(name).is_none().then_some(name));
        }
    }
    assert_eq!(left, ["DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_DEV_NVLINK_BANDWIDTH_L0"]);
    assert!(fields > 40, "{fields}");
}

/// Scenario: OpenTelemetry's conventions for GPUs.
#[test]
fn every_metric_of_opentelemetrys_gpus_has_a_column() {
    let Some(folder) = folder() else { return };
    let list = list(&folder, "refs/semantic-conventions_gpu-metrics.yaml");
    let metrics = list.lines().filter_map(|line| line.trim().strip_prefix("- name: "));
    let refined =
        list.lines().filter_map(|line| line.trim().strip_prefix("ref: ")).filter(|name| name.starts_with("hw."));
    let names: Vec<&str> = metrics.chain(refined).collect();
    for name in &names {
        assert!(catalog().metric(name).is_some(), "{name} has no column");
    }
    assert_eq!(names.len(), 7);
}

/// Scenario: names whose unit depends on the size of the value.
/// Guarantees: every value has one unit: no gap and no overlap.
#[test]
fn where_the_unit_depends_on_the_value_each_value_has_one() {
    let catalog = Catalog::builtin().unwrap();
    let mut names = Vec::new();
    for metric in catalog.metrics() {
        let parted: Vec<_> = metric.targets.iter().filter(|t| t.below.is_some() != t.at_least.is_some()).collect();
        for edge in parted.iter().filter_map(|target| target.below) {
            for value in [f64::MIN, edge - 1.0, edge, f64::MAX] {
                assert_eq!(parted.iter().filter(|target| target.takes(value)).count(), 1, "{} {value}", metric.name);
            }
            names.push(metric.name.clone());
        }
    }
    assert_eq!(names, ["RBLN_DEVICE_STATUS:DRAM_TOTAL", "RBLN_DEVICE_STATUS:DRAM_USED", "furiosa_npu_hw_power"]);
}
