//! Traps of accelerators and model servers that need no file to be shown; and the list of all of them, each with its test.

use std::path::Path;

use serde_json::json;

use crate::testing::{check, context, has, one, row, rows};
use crate::{Decoded, TextFormat, prometheus};

fn text(text: &[u8]) -> Decoded {
    let decoded = prometheus::decode(text, TextFormat::Prometheus004, &context()).unwrap();
    check(&decoded);
    decoded
}

/// Scenario: every line of `fixtures/traps.tsv`: what is surprising, the file of the test that shows it, the test.
/// Guarantees: each of them exists under that name; of a pipeline, its expected rows.
#[test]
fn every_trap_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = include_str!("../fixtures/traps.tsv");
    let mut traps = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let [trap, file, test] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("not three fields: {line}") };
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{trap}: {}: {error}", path.display()));
        let is_there = text.contains(&format!("fn {test}(")) || file.ends_with(".ndjson") && text.contains(test);
        assert!(is_there, "{trap}: no test {test} in {file}");
        traps += 1;
    }
    assert!(traps >= 40, "{traps}");
}

/// Scenario: one value of each unit that DCGM has, whose names say none of them.
/// Guarantees: percent, MiB, mJ, MHz and ns are converted; what is a ratio already, watts and degrees are as they came.
#[test]
fn dcgms_units_stand_in_no_name() {
    for (name, sent, column, value) in [
        ("DCGM_FI_DEV_GPU_UTIL", "40", "utilization", 0.4),
        ("DCGM_FI_DEV_ENC_UTIL", "7", "encoder_utilization", 0.07),
        ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "0.4", "engine_active", 0.4),
        ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "0.001", "tensor_active", 0.001),
        ("DCGM_FI_DEV_FB_FREE", "2", "memory_free_bytes", 2_097_152.0),
        ("DCGM_FI_DEV_FB_RESERVED", "1", "memory_reserved_bytes", 1_048_576.0),
        ("DCGM_FI_DEV_POWER_USAGE", "67.5", "power_watts", 67.5),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "2500", "energy_joules", 2.5),
        ("DCGM_FI_DEV_GPU_TEMP", "41", "temperature_celsius", 41.0),
        ("DCGM_FI_DEV_SM_CLOCK", "1980", "sm_clock_hertz", 1.98e9),
        ("DCGM_FI_DEV_POWER_VIOLATION", "1500000000", "power_throttle_seconds", 1.5),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "3", "pcie_replays", 3.0),
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "1", "remapped_rows_uncorrectable", 1.0),
    ] {
        let decoded = text(format!("{name}{{gpu=\"0\",UUID=\"GPU-1\"}} {sent}\n").as_bytes());
        let read = row(&decoded, "accelerator")[column].as_f64().unwrap();
        assert!((read - value).abs() <= value * 1e-12, "{name}: {read}");
    }
}

/// Scenario: a GPU that is cut by MIG, each of its slices with its parent's UUID, and the GPU's own samples under the same names.
/// Guarantees: whoever adds up whole devices, or slices, has each once; only the sum over both rows would count twice.
#[test]
fn dcgms_slices_carry_their_parents_uuid_and_count_once() {
    let decoded = text(
        b"DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-1\"} 12\n\
          DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-1\",GPU_I_ID=\"1\",GPU_I_PROFILE=\"1g.5gb\"} 4\n\
          DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-1\",GPU_I_ID=\"2\",GPU_I_PROFILE=\"1g.5gb\"} 8\n",
    );
    let rows = rows(&decoded, "accelerator");
    assert!(rows.iter().all(|row| row["device"] == "GPU-1"));
    let sum = |slices: bool| -> f64 {
        let of = rows.iter().filter(|row| row.contains_key("slice") == slices);
        of.map(|row| row["memory_used_bytes"].as_f64().unwrap() / 1_048_576.0).sum()
    };
    assert_eq!((sum(false), sum(true), rows.len()), (12.0, 12.0, 3));
}

/// Scenario: AMD's partition as its exporter writes it where there is none, `NA` or `0`, and one that is a slice.
#[test]
fn amds_partition_na_is_the_device() {
    for (partition, slice) in [("NA", None), ("0", None), ("3", Some(json!("3")))] {
        let line = format!("gpu_gfx_activity{{gpu_uuid=\"u\",gpu_partition_id=\"{partition}\"}} 35\n");
        let row = row(&text(line.as_bytes()), "accelerator");
        assert_eq!((row.get("slice").cloned(), &row["utilization"]), (slice, &json!(0.35)), "{partition}");
    }
}

/// Scenario: exponents of one, two and three digits, with and without sign, as programs in Go, Python and C write them.
#[test]
fn exponents_of_any_length_are_read() {
    for (sent, value) in
        [("1e9", 1e9), ("1e+09", 1e9), ("1.25E+009", 1.25e9), ("5e-05", 5e-5), ("5e-005", 5e-5), ("2.5e+000", 2.5)]
    {
        let line = format!("vllm:prompt_tokens_total{{model_name=\"m\"}} {sent}\n");
        assert_eq!(row(&text(line.as_bytes()), "inference")["prompt_tokens"], value, "{sent}");
    }
}

/// Scenario: a vLLM of old and one of new names.
/// Guarantees: both fill the same columns; `_perc` is a ratio from 0 to 1 under either name.
#[test]
fn vllms_old_and_new_names_fill_the_same_columns() {
    for (cache, token) in [
        ("vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"),
        ("vllm:kv_cache_usage_perc", "vllm:request_time_per_output_token_seconds"),
    ] {
        let lines = format!(
            "{cache}{{model_name=\"m\"}} 0.93\n{token}_bucket{{model_name=\"m\",le=\"0.1\"}} 3\n\
             {token}_bucket{{model_name=\"m\",le=\"+Inf\"}} 4\n{token}_count{{model_name=\"m\"}} 4\n{token}_sum{{model_name=\"m\"}} 0.5\n"
        );
        has(
            &row(&text(lines.as_bytes()), "inference"),
            &json!({
                "kv_cache_usage_ratio": 0.93,
                "time_per_output_token_seconds": {"bounds": [0.1], "counts": [3, 1], "sum": 0.5, "count": 4},
            }),
        );
    }
}

/// Scenario: two NIMs of one model, whose names are the same and tell nothing of the program.
/// Guarantees: the pod tells them apart, and the job that scraped them is kept.
#[test]
fn nims_that_share_names_are_told_apart_by_pod() {
    let decoded = text(
        b"num_requests_running{model_name=\"m\",pod=\"nim-0\",job=\"a\"} 3\n\
          num_requests_running{model_name=\"m\",pod=\"nim-1\",job=\"b\"} 5\n",
    );
    for (pod, job, running) in [("nim-0", "a", 3.0), ("nim-1", "b", 5.0)] {
        let server = one(&decoded, "inference", |row| row["server"] == pod);
        has(&server, &json!({"requests_running": running, "attributes": {"job": job}}));
    }
}

/// Scenario: `vllm:iteration_tokens_total`, a histogram whose name ends as a counter's does.
#[test]
fn a_histogram_may_end_in_total() {
    let name = "vllm:iteration_tokens_total";
    let lines = format!(
        "# TYPE {name} histogram\n{name}_bucket{{model_name=\"m\",le=\"8\"}} 5\n{name}_bucket{{model_name=\"m\",le=\"+Inf\"}} 6\n\
         {name}_count{{model_name=\"m\"}} 6\n{name}_sum{{model_name=\"m\"}} 40\n"
    );
    has(
        &row(&text(lines.as_bytes()), "inference"),
        &json!({"iteration_tokens": {"bounds": [8.0], "counts": [5, 1], "sum": 40.0, "count": 6}}),
    );
}
