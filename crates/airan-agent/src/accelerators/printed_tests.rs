//! What vendors' tools really printed, against tables made by hand from those files; and outputs that are none.

use std::path::Path;

use airan_decode::accelerators::OutputError;

use super::testing::{assert_conform, assert_none, assert_numbers, sample, text};
use super::*;

/// The lines of one section of a capture: between its second line of `#` and the next.
fn section(capture: &str, title: &str) -> String {
    let lines = capture.lines().skip_while(|line| !line.contains(title)).skip(3);
    lines.take_while(|line| !line.starts_with("####")).map(|line| format!("{line}\n")).collect()
}

/// Scenario: `nvidia-smi -q -x` of a Tesla T4, driver 515.
#[test]
fn xml_of_a_tesla_t4() {
    let Some(xml) = sample("accel-nvidia/nvidia-smi_tesla-t4.xml") else { return };
    let reading = smi_xml::read(&xml).unwrap();
    assert_conform(&reading);
    assert_eq!((reading.entries.len(), reading.devices()), (1, 1));
    let gpu = &reading.entries[0];
    assert_eq!(gpu.device, "GPU-d37e67a5-91dd-3774-a5cb-99096249601a");
    assert_numbers(
        gpu,
        &[
            ("utilization", 0.0),
            ("memory_copy_utilization", 0.0),
            ("memory_total_bytes", 16_106_127_360.0),
            ("memory_reserved_bytes", 406_847_488.0),
            ("memory_used_bytes", 1_082_130_432.0),
            ("memory_free_bytes", 14_616_100_864.0),
            ("power_watts", 26.78),
            ("power_limit_watts", 70.0),
            ("power_limit_min_watts", 60.0),
            ("temperature_celsius", 40.0),
            ("sm_clock_hertz", 585e6),
            ("memory_clock_hertz", 5e9),
            ("video_clock_hertz", 810e6),
            ("sm_clock_max_hertz", 1_590e6),
            ("performance_state", 0.0),
            ("throttle_reasons", 0.0),
            ("pcie_link_generation", 3.0),
            ("pcie_link_width", 8.0),
            ("pcie_link_width_max", 16.0),
            ("pcie_tx_bytes_per_second", 0.0),
            ("ecc_single_bit_errors", 0.0),
            ("retired_pages_double_bit", 0.0),
            ("ecc_mode", 1.0),
            ("persistence_mode", 0.0),
            ("compute_mode", 0.0),
            ("compute_processes", 1.0),
            ("present", 1.0),
        ],
    );
    assert_none(
        gpu,
        &[
            "fan_ratio",
            "memory_temperature_celsius",
            "mig_mode",
            "remapped_rows_correctable",
            "power_instant_watts",
            "jpeg_utilization",
        ],
    );
    assert_eq!(text(gpu, "model"), Some("Tesla T4"));
    assert_eq!(text(gpu, "driver_version"), Some("515.105.01"));
    assert_eq!(text(gpu, "firmware_version"), Some("90.04.84.00.06"));
    assert_eq!(text(gpu, "pci_bus_id"), Some("00000000:00:1E.0"));
    let processes: Vec<_> = gpu.processes.iter().map(|p| (p.pid, p.memory_bytes.unwrap() >> 20, p.compute)).collect();
    assert_eq!(processes, [(675, 22, false), (5762, 1005, true)]);
    let rows = super::rows::accelerators(reading.entries.clone(), Path::new("/nowhere"));
    assert!(rows[0].texts.contains(&("owner_command", "python".to_owned())), "it holds most of the memory");
}

/// Scenario: `nvidia-smi -q -x` of an A100 with four MIG slices, driver 535.
/// Guarantees: slices and parent are told apart, and the memory of the slices is their own.
#[test]
fn xml_of_an_a100_with_mig() {
    let Some(xml) = sample("accel-nvidia/nvidia-smi_a100-sxm4-v12.xml") else { return };
    let reading = smi_xml::read(&xml).unwrap();
    assert_conform(&reading);
    let slices: Vec<_> = reading.entries.iter().map(|entry| entry.slice.as_deref()).collect();
    assert_eq!(slices, [None, Some("3"), Some("4"), Some("5"), Some("6")]);
    assert_eq!(reading.devices(), 1);
    assert!(reading.entries.iter().all(|entry| entry.device == "GPU-513536b6-7d19-9063-b049-1e69664bb298"));
    let gpu = &reading.entries[0];
    assert_numbers(
        gpu,
        &[
            ("mig_mode", 1.0),
            ("memory_used_bytes", 52_428_800.0),
            ("power_watts", 67.03),
            ("power_limit_watts", 500.0),
            ("power_limit_set_watts", 500.0),
            ("temperature_celsius", 27.0),
            ("memory_temperature_celsius", 44.0),
            ("pcie_tx_bytes_per_second", 4e6),
            ("pcie_rx_bytes_per_second", 0.0),
            ("sm_clock_hertz", 1_275e6),
            ("throttle_reasons", 0.0),
            ("ecc_double_bit_errors_lifetime", 0.0),
        ],
    );
    assert_none(gpu, &["utilization", "fan_ratio", "compute_processes", "slice_uuid", "retired_pages_single_bit"]);
    for slice in &reading.entries[1..] {
        assert_numbers(
            slice,
            &[
                ("memory_total_bytes", 20_937_965_568.0),
                ("memory_used_bytes", 12_582_912.0),
                ("memory_free_bytes", 20_924_334_080.0),
                ("ecc_double_bit_errors", 0.0),
                ("compute_processes", 0.0),
            ],
        );
        assert_none(slice, &["power_watts", "utilization", "owner_command"]);
    }
}

/// Scenario: `nvidia-smi -q -x` of an RTX 3080, driver 595: names of 2026, much that is deprecated or not there.
#[test]
fn xml_of_an_rtx_3080() {
    let Some(xml) = sample("accel-nvidia/nvidia-smi_rtx-3080-v13.xml") else { return };
    let reading = smi_xml::read(&xml).unwrap();
    assert_conform(&reading);
    let gpu = &reading.entries[0];
    assert_numbers(
        gpu,
        &[
            ("utilization", 0.65),
            ("memory_copy_utilization", 0.09),
            ("optical_flow_utilization", 0.0),
            ("memory_used_bytes", 9_630_121_984.0),
            ("memory_free_bytes", 692_060_160.0),
            ("power_watts", 139.62),
            ("power_average_watts", 139.62),
            ("power_instant_watts", 142.33),
            ("power_limit_watts", 320.0),
            ("power_limit_max_watts", 336.0),
            ("temperature_celsius", 27.0),
            ("fan_ratio", 0.0),
            ("performance_state", 2.0),
            ("pcie_tx_bytes_per_second", 1_066_699e3),
            ("pcie_rx_bytes_per_second", 14_742_333e3),
            ("memory_clock_hertz", 9_251e6),
            ("power_throttle_seconds", 0.0),
            ("hardware_thermal_throttle_seconds", 0.0),
            ("recovery_action", 0.0),
            ("compute_processes", 0.0),
        ],
    );
    assert_none(
        gpu,
        &["ecc_mode", "ecc_single_bit_errors", "ecc_double_bit_errors", "mig_mode", "temperature_margin_celsius"],
    );
    assert_eq!(text(gpu, "driver_version"), Some("595.58.03"));
}

/// Scenario: `nvidia-smi --query-gpu` with all 212 fields of driver 590 on an H100, idle and loaded.
#[test]
fn csv_of_an_h100() {
    let Some(capture) = sample("accel-nvidia/linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01.txt") else { return };
    for (state, expected) in [
        (
            "idle",
            [
                ("utilization", 0.0),
                ("memory_used_bytes", 0.0),
                ("power_watts", 69.85),
                ("power_instant_watts", 69.62),
                ("temperature_celsius", 41.0),
                ("temperature_margin_celsius", 46.0),
                ("sm_clock_hertz", 345e6),
                ("throttle_reasons", 1.0),
            ],
        ),
        (
            "load",
            [
                ("utilization", 1.0),
                ("memory_used_bytes", 20_780_679_168.0),
                ("power_watts", 631.95),
                ("power_instant_watts", 625.68),
                ("temperature_celsius", 59.0),
                ("temperature_margin_celsius", 26.0),
                ("sm_clock_hertz", 1_980e6),
                ("throttle_reasons", 0.0),
            ],
        ),
    ] {
        let reading = smi_csv::read(&section(&capture, &format!("# {state} :: query-gpu (csv"))).unwrap();
        assert_conform(&reading);
        assert_eq!(reading.entries.len(), 1, "{state}");
        let gpu = &reading.entries[0];
        assert_numbers(gpu, &expected);
        assert_numbers(
            gpu,
            &[
                ("memory_total_bytes", 85_520_809_984.0),
                ("memory_reserved_bytes", 502_267_904.0),
                ("memory_temperature_celsius", if state == "idle" { 48.0 } else { 54.0 }),
                ("power_limit_watts", 700.0),
                ("power_limit_set_watts", 700.0),
                ("power_limit_min_watts", 200.0),
                ("memory_clock_hertz", 2_619e6),
                ("pcie_link_generation", 5.0),
                ("pcie_link_width", 16.0),
                ("ecc_mode", 1.0),
                ("ecc_double_bit_errors_lifetime", 0.0),
                ("row_remap_failure", 0.0),
                ("recovery_action", 0.0),
                ("mig_mode", 0.0),
                ("performance_state", 0.0),
                ("thermal_throttle_seconds", 0.0),
            ],
        );
        assert_none(gpu, &["fan_ratio", "retired_pages_single_bit"]);
        assert_eq!(gpu.device, "GPU-00000000-0000-0000-0000-000000000000");
        assert_eq!(text(gpu, "model"), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(text(gpu, "firmware_version"), Some("96.00.A5.00.01"));
    }
    // The driver of 2026 still knows every field that is asked for.
    let known = section(&capture, "capabilities :: help-query-gpu");
    for field in smi_csv::QUERY.trim_start_matches("--query-gpu=").split(',') {
        assert!(known.contains(&format!("\"{field}\"")), "{field}");
    }
}

/// What each file has, made by hand from it: devices, slices, processes, bytes of memory. `tests/text_counts.py` holds Python's parsers
/// of XML and JSON to the same.
const PRINTED_COUNTS: &str = include_str!("../../fixtures/printed_counts.tsv");

/// Scenario: each output of `nvidia-smi -q -x` and `rocm-smi --json` of the samples.
/// Guarantees: no device, slice or process is overlooked or read twice.
#[test]
fn printed_files_add_up() {
    for line in PRINTED_COUNTS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let file = fields[0];
        let Some(printed) = sample(file) else { return };
        let reading = if file.ends_with(".xml") { smi_xml::read(&printed) } else { rocm::read(&printed) }.unwrap();
        let entries = &reading.entries;
        let memory = |is_slice: bool| {
            let of = entries.iter().filter(|entry| entry.slice.is_some() == is_slice).flat_map(|entry| &entry.numbers);
            of.filter(|(column, _)| *column == "memory_total_bytes").fold(0.0, |sum, (_, bytes)| sum + bytes)
        };
        let (devices, processes) =
            (reading.devices(), entries.iter().map(|entry| entry.processes.len()).sum::<usize>());
        let counted = [devices, entries.len() - devices, processes].map(|count| count.to_string());
        assert_eq!(counted, fields[1..4], "{file}");
        assert_eq!([memory(false), memory(true)].map(|bytes| bytes.to_string()), fields[4..], "{file}");
    }
}

/// Scenario: `rocm-smi --json` of an RX 6700 XT (ROCm 6.1), a Vega 10 (ROCm 3) and six MI100 (ROCm 5.7).
#[test]
fn json_of_rocm_smi() {
    let Some(json) = sample("accel-other/rocm-smi_rx6700xt_rocm612.json") else { return };
    let reading = rocm::read(&json).unwrap();
    assert_conform(&reading);
    let gpu = &reading.entries[0];
    assert_eq!((reading.entries.len(), gpu.device.as_str()), (1, "0000:07:00.0"), "neither unique id nor serial");
    assert_numbers(
        gpu,
        &[
            ("utilization", 0.0),
            ("memory_copy_utilization", 0.0),
            ("memory_utilization", 0.12),
            ("memory_total_bytes", 12_868_124_672.0),
            ("memory_used_bytes", 1_572_745_216.0),
            ("memory_free_bytes", 11_295_379_456.0),
            ("power_watts", 6.0),
            ("power_limit_watts", 211.0),
            ("temperature_celsius", 47.0),
            ("memory_temperature_celsius", 46.0),
            ("sm_clock_hertz", 0.0),
            ("memory_clock_hertz", 96e6),
            ("pcie_replays", 0.0),
        ],
    );
    assert_none(gpu, &["fan_ratio"]);
    assert_eq!(text(gpu, "model"), Some("Navi 22 [Radeon RX 6700/6700 XT / 6800M]"));
    assert_eq!(text(gpu, "driver_version"), Some("6.3.6"));

    let reading = rocm::read(&sample("accel-other/rocm-smi_vega-10-XT.json").unwrap()).unwrap();
    assert_conform(&reading);
    let gpu = &reading.entries[0];
    assert_eq!(gpu.device, "0x2150e7d042a1124");
    assert_numbers(
        gpu,
        &[
            ("fan_ratio", 0.13),
            ("sm_clock_hertz", 1_269e6),
            ("power_watts", 15.0),
            ("memory_temperature_celsius", 92.0),
        ],
    );

    let reading = rocm::read(&sample("accel-other/rocm-smi_mi100_rocm571.json").unwrap()).unwrap();
    assert_conform(&reading);
    let devices: Vec<_> = reading.entries.iter().map(|entry| entry.device.as_str()).collect();
    assert_eq!(devices[..2], ["0000:1E:00.0", "0000:22:00.0"], "a serial number of zeros is none");
    assert_numbers(
        &reading.entries[1],
        &[("power_watts", 37.0), ("temperature_celsius", 33.0), ("sm_clock_hertz", 3e8)],
    );
}

/// Scenario: outputs cut short, empty, of something else, nested too deep, with fields that are no values.
/// Guarantees: an error that says what is wrong, or a report of the field; never a panic, never a made-up number.
#[test]
fn outputs_that_are_none_are_refused_with_the_reason() {
    let failed = |reading: Result<Reading, OutputError>| match reading.map_err(SourceError::from) {
        Err(SourceError::Failed(why)) => why,
        other => panic!("{other:?}"),
    };
    let deep = format!("<nvidia_smi_log>{}", "<gpu>".repeat(1_000));
    for (xml, why) in [
        ("", "ends early"),
        ("NVIDIA-SMI has failed", "ends early"),
        ("<html></html>", "no nvidia_smi_log"),
        ("<nvidia_smi_log><gpu id='1'>", "ends early"),
        ("<nvidia_smi_log><gpu></nvidia_smi_log>", "byte"),
        (&deep, "too deep"),
    ] {
        let said = failed(smi_xml::read(xml));
        assert!(said.contains(why), "{xml:.60}: {said}");
    }
    for (csv, why) in [
        ("", "no header"),
        ("Field \"nvlinks\" is not a valid field to query.\n", "no header"),
        ("uuid, name\nGPU-1\n", "line 2: 1 fields under 2 names"),
        ("uuid\nGPU-1, x\n", "line 2: 2 fields under 1 names"),
    ] {
        let said = failed(smi_csv::read(csv));
        assert!(said.contains(why), "{csv}: {said}");
    }
    for (json, why) in
        [("", "no object"), ("WARNING: nothing", "no object"), ("{\"card0\": ", "line 1"), ("{]", "line 1")]
    {
        let said = failed(rocm::read(json));
        assert!(said.contains(why), "{json}: {said}");
    }
    let odd = smi_csv::read("uuid, memory.used [MiB], power.draw [W]\nGPU-1, many MiB, 12 V\n").unwrap();
    assert_eq!(odd.unread, ["memory.used=many MiB", "power.draw=12 V"]);
    assert_none(&odd.entries[0], &["memory_used_bytes", "power_watts"]);
    let none = rocm::read("{\"system\": {\"Driver version\": \"6\"}, \"cardboard\": 3}").unwrap();
    assert!(matches!(devices(Ok(none)), Err(SourceError::Absent(_))));
}
