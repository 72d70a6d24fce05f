//! One test for each trap of the exporters: units that differ between releases, labels that say two things, numbers that mean "none".
//!
//! Inputs are this crate's `fixtures`, made from documented names, or stand in the test.

use airan_model::catalog::Kind;
use serde_json::{Value, json};

use crate::testing::{catalog, check, context, fixture, has, one, row, rows};
use crate::{Decoded, TextFormat, otlp, prometheus};

fn text(text: &[u8]) -> Decoded {
    let decoded = prometheus::decode(text, TextFormat::Prometheus004, &context()).unwrap();
    check(&decoded);
    decoded
}

fn exporter(name: &str) -> Decoded {
    text(&fixture(name))
}

fn device(decoded: &Decoded, device: &str) -> serde_json::Map<String, Value> {
    one(decoded, "accelerator", |row| {
        row["device"] == device && !row.contains_key("slice") && !row.contains_key("core")
    })
}

/// Names and values of what went to `sample`.
fn left(decoded: &Decoded) -> Vec<(String, f64)> {
    let named = |row: &serde_json::Map<String, Value>| {
        (row["name"].as_str().unwrap().to_owned(), row["value"].as_f64().unwrap())
    };
    rows(decoded, "sample").iter().map(named).collect()
}

/// Scenario: each of DCGM's blanks: int64 blank, not found, not supported, no permission, and the four of fp64.
#[test]
fn each_of_dcgms_blanks_is_null() {
    for blank in [
        "9223372036854775792",
        "9223372036854775793",
        "9223372036854775794",
        "9223372036854775795",
        "140737488355328",
        "140737488355329",
        "140737488355330",
        "140737488355331",
    ] {
        let line = format!("DCGM_FI_DEV_MEMORY_TEMP{{gpu=\"0\",UUID=\"GPU-1\"}} {blank}\n");
        let decoded = text(line.as_bytes());
        assert_eq!((decoded.tally.sentinels, decoded.rows.len()), (1, 0), "{blank}");
    }
}

/// Guarantees: an XID is a code and no count: its column has no rise to add up, the counts of other exporters have.
#[test]
fn the_last_xid_is_a_state_and_no_count() {
    let accelerator = catalog().stream("accelerator").unwrap();
    assert_eq!(accelerator.column("xid_last_code").unwrap().kind, Kind::State);
    assert!(accelerator.place_of("xid_last_code_increase").is_none());
    assert!(accelerator.place_of("xid_errors_increase").is_some());
}

/// Guarantees: every counter of an accelerator, energy among them, has a rise, so a driver's reload is a reset and never a loss.
#[test]
fn energy_is_a_counter_whatever_its_exporter_declares() {
    for name in [
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "amd_gpu_energy_consumed",
        "habanalabs_energy",
        "nvidia_smi_energy_joules_total",
    ] {
        let target = &catalog().metric(name).unwrap().targets[0];
        assert_eq!(target.stream.columns[target.column].kind, Kind::Counter, "{name}");
        assert!(target.stream.place_of("energy_joules_increase").is_some());
    }
}

/// Scenario: a GPU with MIG through nvidia_gpu_exporter: the parent, two GPU instances, two compute instances in one of them.
/// Guarantees: parent and slices are rows of their own; a GPU instance's memory counts once; XIDs are added, their codes kept.
#[test]
fn mig_through_nvml_keeps_parent_and_slices_apart() {
    let decoded = exporter("nvidia_gpu_exporter_mig.prom");
    let parent = device(&decoded, "GPU-a");
    has(
        &parent,
        &json!({"memory_used_bytes": 2e10, "energy_joules": 319_159.391, "xid_errors": 5.0, "slice_profile": null, "sm_active": null}),
    );
    let slice = |id: &str| one(&decoded, "accelerator", |row| row.get("slice") == Some(&json!(id)));
    has(
        &slice("1"),
        &json!({"device": "GPU-a", "slice_uuid": "MIG-1", "slice_profile": "1g.10gb", "memory_used_bytes": 5e9, "sm_active": 0.75}),
    );
    has(&slice("2"), &json!({"slice_uuid": "MIG-2", "memory_used_bytes": 1.4e10, "sm_active": null}));
    assert_eq!(rows(&decoded, "accelerator").len(), 3);
    let last = one(&decoded, "sample", |row| row["name"] == "nvidia_smi_xid_last_timestamp_seconds");
    assert_eq!(last["attributes"]["xid"], "79");
    let third = one(&decoded, "sample", |row| row["name"] == "nvidia_smi_mig_info");
    assert_eq!(third["attributes"]["mig_uuid"], "MIG-3");
}

/// Scenario: AMD's names with the prefix of its example configuration; partition 0 (or `NA`) has the sensors of the whole GPU.
/// Guarantees: microjoules, MB and percent converted; power under two names once; the highest of eight clocks; partition 0 is the
/// device, others are slices.
#[test]
fn amds_units_prefix_and_partitions() {
    let decoded = exporter("amd.prom");
    let gpu = device(&decoded, "ccff74a1-0000-1000-80e0-c6d49f5b0d86");
    has(
        &gpu,
        &json!({
            "node": "edge-a", "model": "AMD Instinct MI300X OAM", "vendor": "AMD", "owner_pod": "llm-0", "device_index": "2",
            "utilization": 0.35, "power_watts": 748.0, "energy_joules": 2.5e6, "memory_used_bytes": 283e6,
            "memory_total_bytes": 196_592e6, "temperature_celsius": 76.0, "sm_clock_hertz": 2.1e9, "memory_clock_hertz": 1.3e9,
            "corrected_errors": 4.0, "healthy": 1,
        }),
    );
    let partition = one(&decoded, "accelerator", |row| row.get("slice") == Some(&json!("1")));
    has(&partition, &json!({"utilization": 0.7, "power_watts": null, "slice_profile": "cpx"}));
    let names: Vec<String> = left(&decoded).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["amd_gpu_nodes_total", "amd_gpu_ecc_correct_umc"]);
}

/// Scenario: one name for power in microwatts, in watts, and at the edge between them.
#[test]
fn furiosas_power_is_watts_or_microwatts_by_its_size() {
    let decoded = exporter("furiosa.prom");
    for (id, watts) in [("09512C86", 4.795), ("09512C87", 50.0), ("09512C88", 9999.0)] {
        assert_eq!(device(&decoded, id)["power_watts"], watts, "{id}");
    }
    assert_eq!(device(&decoded, "09512C87")["pci_bus_id"], "0000:c8:00.0", "the label as the README misspells it");
    let at = |power: &str| text(format!("furiosa_npu_hw_power{{device=\"npu0\",label=\"rms\"}} {power}\n").as_bytes());
    assert_eq!(row(&at("10000"), "accelerator")["power_watts"], 0.01);
    assert_eq!(row(&at("-1"), "accelerator")["power_watts"], -1.0);
}

/// Scenario: counters of one core, whose names lack `_total`.
#[test]
fn furiosas_counters_without_total_are_counters() {
    let core = one(&exporter("furiosa.prom"), "accelerator", |row| row.get("core") == Some(&json!("3")));
    has(&core, &json!({"utilization": 0.125, "core_cycles": 1.7e10, "core_busy_cycles": 5e9}));
    for column in ["core_cycles_increase", "core_busy_cycles_increase"] {
        assert!(catalog().stream("accelerator").unwrap().place_of(column).is_some(), "{column}");
    }
}

/// Scenario: names with colon and capitals; DRAM in GiB (older) and in bytes (newer); HEALTH 0 is healthy, anything else is not.
#[test]
fn rebellions_memory_and_health_mean_what_they_say() {
    let decoded = exporter("rebellions.prom");
    has(
        &device(&decoded, "u-0"),
        &json!({
            "node": "edge-r", "model": "RBLN-CA22", "device_index": "rbln0", "owner_container": "llm", "utilization": 0.8,
            "temperature_celsius": 39.0, "power_watts": 57.2, "memory_used_bytes": 1.5 * 1_073_741_824.0,
            "memory_total_bytes": 15.7 * 1_073_741_824.0, "healthy": 1,
        }),
    );
    has(
        &device(&decoded, "u-1"),
        &json!({"memory_used_bytes": 0.0, "memory_total_bytes": 17_179_869_184.0, "healthy": 0, "owner_pod": null}),
    );
}

#[test]
fn gaudis_milliwatts_and_millijoules() {
    let decoded = exporter("gaudi.prom");
    has(
        &device(&decoded, "01P0-HL2080A0-15"),
        &json!({
            "utilization": 0.87, "power_watts": 412.5, "energy_joules": 7200.0, "memory_used_bytes": 805_306_368.0,
            "sm_clock_hertz": 1.65e9, "temperature_celsius": 41.0, "board_temperature_celsius": 33.0, "owner_pod": "llm-1",
        }),
    );
}

/// Scenario: tiles of two RDUs, two of them with a number that is no percentage.
/// Guarantees: such a number is in no column and not lost; errors are a counter, whose rise is what matters.
#[test]
fn sambanovas_sentinels_are_in_no_column() {
    let decoded = exporter("sambanova.prom");
    let tile = |rdu: &str, tile: &str| {
        one(&decoded, "accelerator", |row| {
            row.get("slice") == Some(&json!(rdu)) && row.get("core") == Some(&json!(tile))
        })
    };
    has(&tile("0", "0"), &json!({"node": "edge-s", "device": "0", "idle_ratio": 0.25, "argument_load_ratio": 0.03}));
    has(&tile("1", "0"), &json!({"idle_ratio": 1.0}));
    assert_eq!(
        left(&decoded),
        [("sambanova_tile_idle_percent".to_owned(), -1.0), ("sambanova_tile_idle_percent".to_owned(), 4_294_967_295.0)]
    );
    assert!(catalog().stream("accelerator").unwrap().place_of("errors_increase").is_some());
}

/// Scenario: NIM's names, which have no prefix, beside the same names of other programs.
/// Guarantees: only samples that name a model are NIM's; `_perc` is a ratio; an exponent of three digits is read.
#[test]
fn nims_names_without_a_prefix_are_its_own_only_with_a_model() {
    let decoded = exporter("nim.prom");
    let server = row(&decoded, "inference");
    has(
        &server,
        &json!({
            "server": "nim-0", "model": "meta/llama3-8b-instruct", "requests_running": 3.0, "requests_waiting": 2.0,
            "requests_max": 256.0, "kv_cache_usage_ratio": 0.34, "prompt_tokens": 1.2e6, "requests_finished_stop": 40.0,
            "requests_finished_length": 2.0,
            "time_to_first_token_seconds": {"bounds": [0.05, 0.5], "counts": [10, 31, 1], "sum": 8.5, "count": 42},
        }),
    );
    assert_eq!(left(&decoded), [("num_requests_waiting".to_owned(), 7.0), ("prompt_tokens_total".to_owned(), 9.0)]);
}

/// Scenario: two versions of one model, failures by reason, a histogram in milliseconds and a summary.
/// Guarantees: versions are rows of their own; reasons are added; bounds and sum in seconds; neither a quantile nor energy since Triton's own
/// start is in a column.
#[test]
fn tritons_microseconds_milliseconds_and_versions() {
    let decoded = exporter("triton.prom");
    let version = |version: &str| one(&decoded, "inference", |row| row["engine"] == version);
    has(
        &version("1"),
        &json!({
            "model": "resnet", "requests_succeeded": 161.0, "requests_failed": 5.0, "inferences": 644.0, "executions": 161.0,
            "queue_seconds": 0.01111,
            "time_to_first_token_seconds": {"bounds": [0.1, 0.5], "counts": [8, 22, 7], "sum": 10.771, "count": 37},
        }),
    );
    has(&version("2"), &json!({"requests_succeeded": 12.0, "requests_failed": null}));
    has(&device(&decoded, "GPU-7"), &json!({"utilization": 0.42, "energy_joules": null}));
    assert_eq!(
        left(&decoded),
        [
            ("nv_inference_queue_summary_us".to_owned(), 101.0),
            ("nv_energy_consumption".to_owned(), 5321.5),
            ("nv_cpu_utilization".to_owned(), 0.1)
        ]
    );
}

#[test]
fn sglangs_names_with_a_colon() {
    let decoded = exporter("sglang.prom");
    has(
        &row(&decoded, "inference"),
        &json!({
            "model": "llama", "requests_running": 5.0, "requests_waiting": 1.0, "kv_cache_usage_ratio": 0.28,
            "prefix_cache_hit_ratio": 0.5, "generation_tokens": 7.5e6,
            "e2e_request_latency_seconds": {"bounds": [1.0, 10.0], "counts": [4, 4, 2], "sum": 20.0, "count": 10},
        }),
    );
}

/// Scenario: one server with and one without `engine`, with buckets of two versions.
/// Guarantees: rows of their own, each histogram with its own bounds: nothing merges them here.
#[test]
fn servers_with_other_buckets_keep_their_own() {
    let histogram = |labels: &str, bound: &str| {
        let name = "vllm:time_to_first_token_seconds";
        format!(
            "{name}_bucket{{{labels},le=\"{bound}\"}} 1\n{name}_bucket{{{labels},le=\"+Inf\"}} 2\n{name}_count{{{labels}}} 2\n{name}_sum{{{labels}}} 3\n"
        )
    };
    let both = histogram("model_name=\"m\",engine=\"0\"", "0.1") + &histogram("model_name=\"m\"", "640.0");
    let decoded = text(both.as_bytes());
    let told: Vec<(Option<Value>, Value)> = rows(&decoded, "inference")
        .into_iter()
        .map(|row| (row.get("engine").cloned(), row["time_to_first_token_seconds"]["bounds"].clone()))
        .collect();
    assert_eq!(told, [(Some(json!("0")), json!([0.1])), (None, json!([640.0]))]);
}

/// Scenario: a histogram whose buckets fall, and one whose count is not that of +Inf.
/// Guarantees: it is not put together; each of its lines is kept as it came.
#[test]
fn a_histogram_that_contradicts_itself_is_in_no_column() {
    let name = "vllm:e2e_request_latency_seconds";
    for (bucket, count) in [(5, 3), (2, 4)] {
        let lines = format!(
            "{name}_bucket{{model_name=\"m\",le=\"1\"}} {bucket}\n{name}_bucket{{model_name=\"m\",le=\"+Inf\"}} 3\n{name}_count{{model_name=\"m\"}} {count}\n"
        );
        let decoded = text(lines.as_bytes());
        assert!(rows(&decoded, "inference").is_empty());
        assert_eq!(decoded.tally.sample_rows, 3);
    }
}

/// Scenario: OTLP durations by the conventions for generative AI: requests that succeeded and requests that failed.
/// Guarantees: seconds stay seconds; token usage by direction; series with `error.type` do not take turns in one column.
#[test]
fn gen_ai_durations_are_histograms_in_seconds() {
    let decoded = otlp::decode_json(&fixture("otel_gen_ai.json"), &context()).unwrap();
    check(&decoded);
    has(
        &row(&decoded, "inference"),
        &json!({
            "ts": "2026-11-24T09:59:50Z", "start_ts": "2026-11-24T09:53:20Z", "node": "edge-o", "server": "10.0.0.7",
            "model": "llama", "engine": "chat",
            "time_to_first_token_seconds": {"bounds": [0.001, 0.1, 1.0], "counts": [0, 3, 1, 0], "sum": 0.5, "count": 4},
            "e2e_request_latency_seconds": {"bounds": [1.0, 10.0], "counts": [1, 3, 0], "sum": 8.0, "count": 4},
            "request_prompt_tokens": {"bounds": [64.0, 256.0], "counts": [1, 3, 0], "sum": 640.0, "count": 4},
            "request_generation_tokens": {"bounds": [64.0, 256.0], "counts": [0, 1, 3], "sum": 1000.0, "count": 4},
        }),
    );
    let failed = row(&decoded, "sample");
    assert_eq!(
        (&failed["name"], &failed["attributes"]["error.type"]),
        (&json!("gen_ai.server.request.duration"), &json!("timeout"))
    );
}

/// Scenario: OpenTelemetry's hardware names; energy of a fan beside that of the GPU.
/// Guarantees: a ratio is not divided by 100; only what is a GPU's is an accelerator's.
#[test]
fn otel_hardware_ratios_are_ratios_already() {
    let decoded = otlp::decode_json(&fixture("otel_hw.json"), &context()).unwrap();
    check(&decoded);
    has(
        &row(&decoded, "accelerator"),
        &json!({
            "node": "edge-h", "device": "GPU-h", "vendor": "NVIDIA", "utilization": 0.85, "encoder_utilization": 0.1,
            "memory_used_bytes": 2_147_483_648.0, "energy_joules": 12_345.5, "corrected_errors": 3.0,
        }),
    );
    assert_eq!(left(&decoded), [("hw.energy".to_owned(), 777.0)]);
}

/// Scenario: NVIDIA Aerial's metrics of a cell, its fronthaul, a radio unit and a network card.
/// Guarantees: both prefixes; names that go on after `_total`; microseconds and nanoseconds as seconds; channels and directions in
/// their columns; messages added over their types.
#[test]
fn aerials_cell_and_fronthaul() {
    let decoded = exporter("aerial.prom");
    let cell = |name: &str| one(&decoded, "cell", |row| row["cell"] == name);
    has(
        &cell("0"),
        &json!({
            "dl_slots": 1.5e6, "ul_slots": 4e5, "dl_bytes": 9e9, "ul_transport_blocks": 2e5, "ul_transport_block_crc_errors": 1800.0,
            "pusch_lost_prbs": 5.0, "srs_lost_prbs": 6.0, "prach_lost_prbs": null, "fapi_rx_messages": 140.0,
            "prach_processing_seconds": {"bounds": [0.00025, 0.0005], "counts": [0, 0, 1], "sum": 0.0006, "count": 1},
            "pucch_processing_seconds": null, "attributes": null,
        }),
    );
    let pdsch = &cell("0")["pdsch_processing_seconds"];
    assert_eq!(
        (&pdsch["bounds"], &pdsch["counts"], &pdsch["sum"]),
        (&json!([0.00025, 0.0005]), &json!([400, 598, 2]), &json!(0.305))
    );
    has(&cell("1"), &json!({"dl_slots": 1_499_998.0, "ul_slots": null}));

    let fronthaul = |column: &str, name: &str| one(&decoded, "fronthaul", |row| row.get(column) == Some(&json!(name)));
    has(
        &fronthaul("cell", "0"),
        &json!({"rx_on_time_packets": 999_800.0, "rx_late_packets": 150.0, "rx_late_srs_packets": 7.0, "rx_early_packets": null}),
    );
    has(&fronthaul("ru", "1"), &json!({"cplane_tx_bytes": 123_456.0, "cell": null}));
    has(&fronthaul("nic", "0000:cc:00.1"), &json!({"nic_rx_dropped_packets": 3.0, "tx_clock_jitter_seconds": 4.2e-8}));
    assert_eq!(decoded.tally.sample_rows, 0);
}

/// Scenario: cells and fronthaul over OTLP, by the names of TS 28.552 and by those of the columns; and in Prometheus text. One value is of no
/// cell, and one counts a period.
/// Guarantees: percent becomes a ratio, a cumulative sum a counter, a delta its rise, a histogram a histogram; what names no cell or has
/// no start stays in `sample`.
#[test]
fn cells_and_fronthaul_of_senders_without_an_exporter() {
    let at = |value: Value, more: Value| {
        let mut point = json!({"startTimeUnixNano": "1795514000000000000", "timeUnixNano": "1795514390000000000", "attributes": [
            {"key": "cell", "value": {"stringValue": "7"}}, {"key": "gnb", "value": {"stringValue": "g1"}}]});
        for part in [value, more] {
            point.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        point
    };
    let gauge = |name: &str, value: f64| json!({"name": name, "gauge": {"dataPoints": [at(json!({"asDouble": value}), json!({}))]}});
    let sum = |name: &str, temporality: u8, value: f64| {
        let points = [at(json!({"asDouble": value}), json!({}))];
        json!({"name": name, "sum": {"isMonotonic": true, "aggregationTemporality": temporality, "dataPoints": points}})
    };
    let no_cell = json!({"name": "RRU.PrbTotDl", "gauge": {"dataPoints": [at(json!({"asDouble": 1.0}), json!({"attributes": []}))]}});
    let latency = at(
        json!({"count": "3", "sum": 3e-4, "explicitBounds": [1e-4, 5e-4], "bucketCounts": ["2", "1", "0"]}),
        json!({}),
    );
    let body = json!({"resourceMetrics": [{
    "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "du-1"}}]},
    "scopeMetrics": [{"metrics": [
        gauge("RRU.PrbTotDl", 75.0), gauge("RRU.PrbUsedUl", 32.0), gauge("RRC.ConnMean", 4.5), no_cell, sum("RRC.ConnEstabAtt", 1, 9.0),
        sum("cell.dl_bytes", 2, 8e9), sum("cell.late_slots", 1, 2.0), gauge("cell.numerology", 1.0),
        {"name": "cell.slot_latency_seconds", "histogram": {"aggregationTemporality": 2, "dataPoints": [latency]}},
        sum("fronthaul.rx_late_packets", 2, 12.0), gauge("fronthaul.rx_latest_seconds", 2e-5),
    ]}]}]});
    let decoded = otlp::decode_json(&serde_json::to_vec(&body).unwrap(), &context()).unwrap();
    check(&decoded);
    has(
        &row(&decoded, "cell"),
        &json!({"node": "du-1", "gnb": "g1", "cell": "7", "dl_prb_utilization": 0.75, "ul_prbs_used": 32.0, "connected_ues": 4.5,
            "dl_bytes": 8e9, "late_slots": null, "late_slots_increase": 2.0, "late_slots_increase_seconds": 390.0, "numerology": 1,
            "slot_latency_seconds": {"bounds": [1e-4, 5e-4], "counts": [2, 1, 0], "sum": 3e-4, "count": 3}}),
    );
    has(&row(&decoded, "fronthaul"), &json!({"cell": "7", "rx_late_packets": 12.0, "rx_latest_seconds": 2e-5}));
    let others: Vec<Value> = rows(&decoded, "sample").into_iter().map(|row| row["name"].clone()).collect();
    assert_eq!(others, [json!("RRU.PrbTotDl"), json!("RRC.ConnEstabAtt")]);

    let decoded = text(
        b"# TYPE cell_dl_prb_utilization gauge\ncell_dl_prb_utilization{cell=\"7\",hostname=\"du-1\"} 0.5\n\
          # TYPE cell_late_slots_total counter\ncell_late_slots_total{cell=\"7\",hostname=\"du-1\"} 3\n\
          # TYPE fronthaul_rx_early_packets_total counter\nfronthaul_rx_early_packets_total{ru=\"r1\",hostname=\"du-1\"} 4\n",
    );
    has(&row(&decoded, "cell"), &json!({"node": "du-1", "dl_prb_utilization": 0.5, "late_slots": 3.0}));
    has(&row(&decoded, "fronthaul"), &json!({"ru": "r1", "cell": null, "rx_early_packets": 4.0}));
}

/// Scenario: cAdvisor's tree: the root, a pod, its containers, one CPU of a container; limits that are none.
/// Guarantees: pod and container are rows of their own; the root and single CPUs are in no column, so nothing counts twice;
/// interfaces are added; a limit of 0 is none.
#[test]
fn cadvisors_tree_counts_nothing_twice() {
    let decoded = exporter("cadvisor.prom");
    let container =
        |name: Option<&str>| one(&decoded, "container", |row| row.get("container").and_then(Value::as_str) == name);
    has(
        &container(None),
        &json!({"namespace": "ai", "pod": "llm-0", "cpu_seconds": 120.5, "network_rx_bytes": 1500.0}),
    );
    has(
        &container(Some("llm")),
        &json!({"ts": "2026-11-24T09:59:50Z", "cpu_seconds": 120.25, "memory_working_set_bytes": 33_554_432.0, "memory_limit_bytes": null, "image": "llm:1", "attributes": null}),
    );
    has(&container(Some("web")), &json!({"memory_limit_bytes": 67_108_864.0}));
    has(&row(&decoded, "host"), &json!({"cpus": 16.0, "memory_total_bytes": 1.35e11, "attributes": null}));
    let values: Vec<f64> = left(&decoded).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [90_000.5, 60.25, 0.0]);
}

/// Scenario: a host through node_exporter: two CPUs, two disks, two file systems, two sensors, an interface, the kernel's clock.
/// Guarantees: CPUs and disks are added, the hottest sensor is kept, only the root file system is the host's.
#[test]
fn node_exporters_parts_become_one_host() {
    let decoded = exporter("node_exporter.prom");
    has(
        &row(&decoded, "host"),
        &json!({
            "cpu_user_seconds": 300.5, "cpu_idle_seconds": 9000.0, "disk_read_bytes": 3072.0, "hottest_celsius": 71.0,
            "root_filesystem_size_bytes": 1e11, "memory_total_bytes": 1.35e11, "load1": 0.5, "attributes": null,
        }),
    );
    has(&row(&decoded, "link"), &json!({"interface": "eth0", "rx_bytes": 12_345.0, "up": 1}));
    has(&row(&decoded, "timing"), &json!({"process": "kernel", "offset_seconds": -2e-6, "clock_state": "locked"}));
    assert_eq!(
        left(&decoded),
        [("node_cpu_seconds_total".to_owned(), 7.0), ("node_filesystem_size_bytes".to_owned(), 5e8)]
    );
}
