//! Files that other people's systems wrote, read in place.
//!
//! `AIRAN_SAMPLES` names their folder; without it they are looked for beside the checkout. Where there are none the tests say so,
//! and fail if `AIRAN_REQUIRE_SAMPLES` is set.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::testing::{check, context, has, one, refused, rows};
use crate::{Decoded, TextFormat, otlp, prometheus};

pub(crate) fn folder() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples");
    let folder = PathBuf::from(std::env::var("AIRAN_SAMPLES").unwrap_or_else(|_| default.to_owned()));
    if folder.join("SOURCES.md").is_file() {
        return Some(folder);
    }
    assert!(std::env::var_os("AIRAN_REQUIRE_SAMPLES").is_none(), "no samples at {}", folder.display());
    eprintln!("NOT TESTED: no samples at {}; set AIRAN_SAMPLES to their folder", folder.display());
    None
}

fn scrape(folder: &std::path::Path, file: &str) -> Decoded {
    let text = std::fs::read(folder.join(file)).unwrap();
    let format = if file.contains("_om_") || file.contains(".om.") {
        TextFormat::OpenMetrics
    } else {
        TextFormat::Prometheus004
    };
    prometheus::decode(&text, format, &context()).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn print(file: &str, decoded: &Decoded) {
    let tally = &decoded.tally;
    let streams: Vec<String> =
        decoded.rows.iter().map(|rows| format!("{} {}", rows.rows.num_rows(), rows.stream.name)).collect();
    println!(
        "{file}: {} samples = {} sentinels + {} in columns + {} in `sample` + {} refused; rows: {}",
        tally.samples,
        tally.sentinels,
        tally.columns,
        tally.sample_rows,
        tally.refused,
        streams.join(", ")
    );
}

/// Text files with how many samples they have, how many fill columns and how many say "no value", made by hand from the files.
/// `tests/text_counts.py` holds another parser to the first number.
const COUNTS: &str = include_str!("../fixtures/counts.tsv");

/// OTLP files with their points, the sum of the numbers among these, and the values in histograms, made by hand from the files.
/// `tests/text_counts.py` holds Python's JSON to the same.
const OTLP_COUNTS: &str = include_str!("../fixtures/otlp_counts.tsv");

/// Scenario: each text file of the samples and each fixture.
/// Guarantees: every line that is a sample is counted once: sentinel, columns, `sample` or refused, and lands where a reader of
/// the file says it must.
#[test]
fn text_files_add_up() {
    let samples = folder();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut counted = 0;
    for line in COUNTS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let numbers: Vec<u64> = fields[1..].iter().map(|number| number.parse().unwrap()).collect();
        let file = fields[0];
        let folder = if file.starts_with("fixtures/") { Some(fixtures) } else { samples.as_deref() };
        let Some(folder) = folder else { continue };
        let decoded = scrape(folder, file);
        print(file, &decoded);
        check(&decoded);
        let tally = &decoded.tally;
        assert_eq!([tally.samples, tally.columns, tally.sentinels], numbers[..], "{file}");
        assert_eq!(tally.refused, 0, "{file}");
        counted += 1;
    }
    assert!(counted >= 11, "{counted} files");
}

/// Scenario: each OTLP file of the samples; the logs are no metrics.
#[test]
fn otlp_files_add_up() {
    let Some(folder) = folder() else { return };
    for line in OTLP_COUNTS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let file = fields[0];
        let body = std::fs::read(folder.join(file)).unwrap();
        let decoded = otlp::decode_json(&body, &context()).unwrap_or_else(|error| panic!("{file}: {error}"));
        print(file, &decoded);
        check(&decoded);
        let points = count_points(&serde_json::from_slice(&body).unwrap());
        assert_eq!(decoded.tally.samples, points, "{file}");
        assert_eq!((refused(&decoded), decoded.tally.sample_rows), (vec![], points), "{file}");
        let samples = rows(&decoded, "sample");
        // 0 and not the -0 that a sum begins with.
        let numbers = samples.iter().filter_map(|row| row.get("value")?.as_f64()).fold(0.0, |sum, value| sum + value);
        let held: i64 = samples.iter().filter_map(|row| row.get("histogram")?["count"].as_i64()).sum();
        assert_eq!([points.to_string(), numbers.to_string(), held.to_string()], fields[1..], "{file}");
        if file.ends_with("otlp_example_metrics.json") {
            let exponential = one(&decoded, "sample", |row| row["name"] == "my.exponential.histogram");
            // By hand: scale 0, one zero, and two values in bucket 2, which is from 4 to 8.
            let bounds = [-f64::MIN_POSITIVE, 0.0, 4.0, 8.0];
            let expected = json!({"bounds": bounds, "counts": [0, 1, 0, 2, 0], "sum": 10.0, "count": 3});
            assert_eq!(exponential["histogram"], expected);
        }
    }
}

/// Elements of every list named `dataPoints`.
fn count_points(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.iter().map(count_points).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| match value {
                Value::Array(points) if key == "dataPoints" => points.len() as u64,
                other => count_points(other),
            })
            .sum(),
        _ => 0,
    }
}

/// Scenario: an A100 with one MIG slice, from NVIDIA's documentation.
/// Guarantees: slice and parent apart; MiB as bytes, mJ as joules, MHz as hertz.
#[test]
fn a_gpu_and_its_slice_as_nvidia_documents_them() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "accel-nvidia/dcgm_a100_mig_1g5gb.prom");
    let parent = one(&decoded, "accelerator", |row| !row.contains_key("slice"));
    for (column, value) in [
        ("node", json!("ub20-a100-k8s")),
        ("device", json!("GPU-34319582-d595-d1c7-d1d2-179bcfa61660")),
        ("sm_clock_hertz", json!(1.215e9)),
        ("energy_joules", json!(319_159.391)),
        ("memory_free_bytes", json!(35_690.0 * 1_048_576.0)),
        ("memory_used_bytes", json!(4_845.0 * 1_048_576.0)),
        ("power_watts", json!(409.692)),
        ("dram_active", json!(0.690789)),
        ("xid_last_code", json!(0)),
        ("device_index", json!("0")),
        ("attributes", json!({"device": "nvidia0"})),
    ] {
        assert_eq!(parent[column], value, "{column}");
    }
    let slice = one(&decoded, "accelerator", |row| row.contains_key("slice"));
    for (column, value) in [
        ("slice", json!("13")),
        ("slice_profile", json!("1g.5gb")),
        ("dram_active", json!(0.800339)),
        ("engine_active", json!(0.995687)),
    ] {
        assert_eq!(slice[column], value, "{column}");
    }
    assert!(slice.get("power_watts").is_none() && slice.get("utilization").is_none());
    let names: Vec<Value> = rows(&decoded, "sample").into_iter().map(|row| row["name"].clone()).collect();
    assert_eq!(
        names,
        ["DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES"]
    );
}

#[test]
fn a_sentinel_is_null_and_never_a_value() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "accel-nvidia/dcgm_readme_sample.prom");
    assert_eq!(decoded.tally.sentinels, 1);
    let gpu = one(&decoded, "accelerator", |_| true);
    assert_eq!((&gpu["sm_clock_hertz"], &gpu["memory_clock_hertz"]), (&json!(1.39e8), &json!(4.05e8)));
    assert!(gpu.get("memory_temperature_celsius").is_none());
}

/// Scenario: a real vLLM scrape with old and new names side by side.
/// Guarantees: per-bucket counts; `_perc` is a ratio; `iteration_tokens_total` is a histogram; of two names for one column the
/// first fills it.
#[test]
fn histograms_of_a_model_server() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "inference/vllm_metrics.prom");
    let server = one(&decoded, "inference", |_| true);
    assert_eq!(server["model"], "facebook/opt-125m");
    let first = &server["time_to_first_token_seconds"];
    assert_eq!(
        first["bounds"],
        json!([0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0])
    );
    assert_eq!(first["counts"], json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!((&first["sum"], &first["count"]), (&json!(0.31326723098754883), &json!(1)));
    assert_eq!(server["iteration_tokens"]["counts"], json!([19, 48, 1, 1, 2, 0]));
    assert_eq!((&server["generation_tokens"], &server["kv_cache_usage_ratio"]), (&json!(7.0), &json!(0.0)));
    assert_eq!((&server["engine_awake"], &server["requests_finished_length"]), (&json!(1), &json!(1.0)));
}

#[test]
fn nanoseconds_of_a_clock_become_seconds() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "timing-ptp/openshift_ptp_metrics.prom");
    let clock = one(&decoded, "timing", |row| row.get("reference") == Some(&json!("master")));
    for (column, value) in [
        ("node", json!("NODE_NAME")),
        ("process", json!("ptp4l")),
        ("interface", json!("ens2fx")),
        ("offset_seconds", json!(4e-9)),
        ("max_offset_seconds", json!(8e-9)),
        ("path_delay_seconds", json!(5.2e-7)),
        ("frequency_adjustment_ratio", json!(-1.5705e-5)),
    ] {
        assert_eq!(clock[column], value, "{column}");
    }
    let thresholds = one(&decoded, "timing", |row| row.get("profile") == Some(&json!("test-slave")));
    assert_eq!(thresholds["max_offset_threshold_seconds"], 1e-7);
    assert_eq!(thresholds["holdover_timeout_seconds"], 5.0);
    let role = one(&decoded, "timing", |row| row.get("interface_role").is_some());
    assert_eq!(role["interface_role"], "slave");
}

/// Scenario: an H100 under load, as nvidia_gpu_exporter reports it.
/// Guarantees: one row with the device's identity; ratios and base units as they are; counts and modes of the driver; nothing of
/// single processes in it.
#[test]
fn a_gpu_as_nvidia_smi_reports_it() {
    let Some(folder) = folder() else { return };
    let file = "accel-nvidia/linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01__load.metrics";
    let decoded = scrape(&folder, file);
    let gpu = one(&decoded, "accelerator", |_| true);
    has(
        &gpu,
        &json!({
            "device": "00000000-0000-0000-0000-000000000000", "slice": null, "present": 1, "model": "NVIDIA H100 80GB HBM3",
            "driver_version": "590.48.01", "pci_bus_id": "00000000:00:09.0", "device_index": "0",
            "utilization": 1.0, "memory_copy_utilization": 0.11, "decoder_utilization": 0.0,
            "memory_used_bytes": 20_780_679_168.0, "memory_free_bytes": 64_238_911_488.0, "memory_reserved_bytes": 502_267_904.0,
            "memory_total_bytes": 85_520_809_984.0,
            "power_watts": 631.95, "power_average_watts": 631.95, "power_instant_watts": 625.68, "power_limit_watts": 700.0,
            "power_limit_min_watts": 200.0, "sm_clock_hertz": 1.98e9, "memory_clock_hertz": 2.619e9, "video_clock_hertz": 1.545e9,
            "temperature_celsius": 59.0, "memory_temperature_celsius": 54.0, "temperature_margin_celsius": 26.0,
            "performance_state": 0, "pcie_link_generation": 5, "pcie_link_width": 16, "throttle_reasons": 0,
            "power_throttle_seconds": 0.0, "ecc_single_bit_errors": 0.0, "row_remap_failure": 0, "mig_mode": 0, "ecc_mode": 1,
            "compute_processes": 3.0, "energy_joules": null, "fan_ratio": null,
        }),
    );
    let processes =
        rows(&decoded, "sample").into_iter().filter(|row| row["name"] == "nvidia_smi_compute_app_used_memory_bytes");
    assert_eq!(processes.count(), 3);
}

/// Scenario: a consumer GPU without ECC, MIG and memory sensor; its exporter reads its model as the number 4080.
/// Guarantees: what `nvidia-smi` does not support has no sample and stays null; the model is the label, never that number.
#[test]
fn what_nvidia_smi_does_not_support_is_null() {
    let Some(folder) = folder() else { return };
    let file = "accel-nvidia/linux-x86_64__nvidia-geforce-rtx-4080-super__595.71.05__load.metrics";
    let decoded = scrape(&folder, file);
    let gpu = one(&decoded, "accelerator", |_| true);
    has(
        &gpu,
        &json!({
            "model": "NVIDIA GeForce RTX 4080 SUPER", "memory_temperature_celsius": null, "ecc_single_bit_errors": null,
            "mig_mode": null, "fan_ratio": 0.0, "utilization": 0.07, "encoder_utilization": 0.72, "encoder_sessions": 2.0,
            "encoder_frames_per_second": 184.0, "encoder_latency_seconds": 0.062844, "power_watts": 84.24,
        }),
    );
    assert_eq!(one(&decoded, "sample", |row| row["name"] == "nvidia_smi_name")["value"], 4080.0);
}

/// Scenario: the exporter's own small sample, of a version with labels in upper case and names since given up.
/// Guarantees: percent as ratio; MB are 10^6 bytes; two names of one power give one value.
#[test]
fn an_amd_gpu_by_its_older_names() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "accel-other/amd_metrics_mini.prom");
    let gpu = one(&decoded, "accelerator", |_| true);
    has(
        &gpu,
        &json!({
            "device": "6699c0a8-4200-4242-037f-f97e6cae0f09", "slice": null, "power_watts": 41.0, "utilization": 0.0,
            "memory_total_bytes": 68_702_000_000.0, "attributes": {"SERIAL_NUMBER": "692247001282"},
        }),
    );
}

/// Scenario: a Furiosa RNGD, its device metrics labelled `core="0-7"` and its core metrics `core="3"`; the file holds three scrapes,
/// so temperatures come thrice.
/// Guarantees: one row of the device and one of each core; percent, MHz and watts converted; what is there already goes to `sample`.
#[test]
fn a_furiosa_device_and_its_cores_are_told_apart() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "accel-other/furiosa_rngd_sample.prom");
    assert_eq!((rows(&decoded, "accelerator").len(), decoded.tally.sample_rows), (9, 4));
    let device = one(&decoded, "accelerator", |row| !row.contains_key("core"));
    has(
        &device,
        &json!({
            "node": "cntk002", "device": "09512C86-0702-4303-8F40-474746474A40", "model": "rngd", "device_index": "npu0",
            "healthy": 1, "temperature_celsius": 67.756, "board_temperature_celsius": 52.0, "power_watts": 50.0,
            "owner_pod": "furiosa", "driver_version": "2025.1.0+f09a8d8", "utilization": null,
        }),
    );
    let core = one(&decoded, "accelerator", |row| row.get("core") == Some(&json!("3")));
    has(
        &core,
        &json!({
            "sm_clock_hertz": 1.75e9, "core_cycles": 17_242_541_456.0, "core_busy_cycles": 5_686_392_711.0,
            "power_watts": null,
        }),
    );
    assert!((core["utilization"].as_f64().unwrap() - 0.9968363645361265).abs() < 1e-15);
}

/// Scenario: Triton's documentation, which prints a histogram's buckets without `_bucket` and a summary.
/// Guarantees: the lines stay whole in `sample`; no bucket is taken for a value; microseconds as seconds.
#[test]
fn buckets_without_their_suffix_are_never_taken_for_values() {
    let Some(folder) = folder() else { return };
    let decoded = scrape(&folder, "inference/triton_docs_sample.prom");
    let model = one(&decoded, "inference", |_| true);
    has(
        &model,
        &json!({
            "model": "my_model", "engine": "1", "requests_succeeded": 161.0, "queue_seconds": 0.01111,
            "time_to_first_token_seconds": null,
        }),
    );
    let buckets = rows(&decoded, "sample").into_iter().filter(|row| row["attributes"].get("le").is_some());
    assert_eq!(buckets.map(|row| row["value"].as_f64().unwrap()).collect::<Vec<_>>(), [8.0, 30.0, 36.0, 37.0, 37.0]);
}

/// Scenario: a scrape of client_golang whose histogram observed negative values: its sum is below 0. Prometheus takes it.
/// Guarantees: OpenMetrics is read by its own rules (its reference parser refuses the line too), with the place; as text 0.0.4
/// its samples are taken.
#[test]
fn a_negative_sum_is_refused_in_open_metrics_and_taken_in_text() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read(folder.join("prom-otlp/alltypes.5mfs.om.txt")).unwrap();
    let error = prometheus::decode(&text, TextFormat::OpenMetrics, &context()).unwrap_err();
    assert_eq!(error.to_string(), "a count or sum below 0 at line 33, column 1");
    // Exemplars are OpenMetrics' own.
    let lines = std::str::from_utf8(&text).unwrap().lines();
    let plain: String = lines.map(|line| format!("{}\n", line.split(" # {").next().unwrap())).collect();
    let decoded = prometheus::decode(plain.as_bytes(), TextFormat::Prometheus004, &context()).unwrap();
    check(&decoded);
    assert_eq!(decoded.tally.samples, 53);
}

/// Scenario: the 127 parser cases of the OpenMetrics project.
/// Guarantees: each gets the verdict its oracle gives.
#[test]
fn the_open_metrics_projects_own_cases_get_their_verdict() {
    let Some(folder) = folder() else { return };
    let mut cases = 0;
    for case in std::fs::read_dir(folder.join("prom-otlp/openmetrics-parser")).unwrap() {
        let case = case.unwrap().path();
        let test: Value = serde_json::from_slice(&std::fs::read(case.join("test.json")).unwrap()).unwrap();
        let text = std::fs::read(case.join("metrics")).unwrap();
        let read = prometheus::decode(&text, TextFormat::OpenMetrics, &context());
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match (test["shouldParse"].as_bool().unwrap(), read) {
            (true, read) => check(&read.unwrap_or_else(|error| panic!("{name}: {error}"))),
            (false, Ok(_)) => panic!("{name} was taken"),
            (false, Err(_)) => {}
        }
        cases += 1;
    }
    assert_eq!(cases, 127);
}
