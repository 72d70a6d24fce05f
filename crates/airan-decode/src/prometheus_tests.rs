use airan_model::limits::Limits;
use serde_json::json;

use super::*;
use crate::testing::{NOW, check, context, refused, row, rows};

fn text(text: &str) -> Decoded {
    let decoded = decode(text.as_bytes(), TextFormat::Prometheus004, &context()).unwrap();
    check(&decoded);
    decoded
}

fn open(text: &str) -> Result<Decoded, DecodeError> {
    let decoded = decode(text.as_bytes(), TextFormat::OpenMetrics, &context());
    decoded.iter().for_each(check);
    decoded
}

/// Scenario: samples of one GPU and one instant, with labels of each sort.
/// Guarantees: one row; units converted; the sentinel null; labels where the mapping says, the rest attributes.
#[test]
fn samples_of_one_device_become_one_row() {
    let decoded = text(
        "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
         DCGM_FI_DEV_GPU_UTIL{gpu=\"3\",UUID=\"GPU-1\",device=\"nvidia3\",modelName=\"H100\",Hostname=\"edge-7\"} 35\n\
         DCGM_FI_DEV_FB_USED{gpu=\"3\",UUID=\"GPU-1\",device=\"nvidia3\",modelName=\"H100\",Hostname=\"edge-7\"} 4845\n\
         DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu=\"3\",UUID=\"GPU-1\",Hostname=\"edge-7\",zone=\"z\"} 319159391\n\
         DCGM_FI_DEV_XID_ERRORS{gpu=\"3\",UUID=\"GPU-1\",Hostname=\"edge-7\"} 79\n\
         DCGM_FI_DEV_MEMORY_TEMP{gpu=\"3\",UUID=\"GPU-1\",Hostname=\"edge-7\"} 9223372036854775794\n\
         DCGM_FI_PROF_SM_ACTIVE{gpu=\"3\",UUID=\"GPU-1\",Hostname=\"edge-7\"} NaN\n",
    );
    let row = row(&decoded, "accelerator");
    assert_eq!(
        serde_json::Value::Object(row),
        json!({
            "ts": "2026-11-24T10:00:00Z", "node": "edge-7", "device": "GPU-1", "device_index": "3", "model": "H100",
            "utilization": 0.35, "memory_used_bytes": 4845.0 * 1048576.0, "energy_joules": 319_159.391, "xid_last_code": 79,
            "attributes": {"device": "nvidia3", "zone": "z"},
        })
    );
    let tally = decoded.tally;
    assert_eq!((tally.samples, tally.sentinels, tally.columns, tally.no_time), (6, 2, 4, true));
}

/// Scenario: the parent and two slices of one GPU.
/// Guarantees: three rows, told apart by `slice`.
#[test]
fn slices_are_told_apart_from_their_parent() {
    let decoded = text(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=\"G\",gpu=\"0\"} 0.5\n\
         DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=\"G\",gpu=\"0\",GPU_I_ID=\"1\",GPU_I_PROFILE=\"1g.5gb\"} 0.25\n\
         DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=\"G\",gpu=\"0\",GPU_I_ID=\"2\",GPU_I_PROFILE=\"1g.5gb\"} 0.75\n",
    );
    let rows = rows(&decoded, "accelerator");
    let told: Vec<_> = rows.iter().map(|row| (row.get("slice").cloned(), row["engine_active"].clone())).collect();
    assert_eq!(told, [(None, json!(0.5)), (Some(json!("1")), json!(0.25)), (Some(json!("2")), json!(0.75))]);
}

/// Scenario: a counter or a gauge of one name, by its declared type; and without one.
#[test]
fn the_declared_type_chooses_the_column() {
    let of = |declared: &str| text(&format!("{declared}DCGM_FI_PROF_PCIE_TX_BYTES{{UUID=\"G\"}} 100\n"));
    assert_eq!(row(&of("# TYPE DCGM_FI_PROF_PCIE_TX_BYTES gauge\n"), "accelerator")["pcie_tx_bytes_per_second"], 100.0);
    assert_eq!(row(&of("# TYPE DCGM_FI_PROF_PCIE_TX_BYTES counter\n"), "accelerator")["pcie_tx_bytes"], 100.0);
    let sample = row(&of(""), "sample");
    assert_eq!(
        (&sample["name"], &sample["value"], sample.get("type")),
        (&json!("DCGM_FI_PROF_PCIE_TX_BYTES"), &json!(100.0), None)
    );
}

/// Scenario: CPU times of two CPUs, a state with a name and one without, a metric nobody knows, an integer beyond a float.
#[test]
fn sums_states_and_unknown_metrics() {
    let decoded = text(
        "# TYPE node_cpu_seconds_total counter\n\
         node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 1.5\n\
         node_cpu_seconds_total{cpu=\"1\",mode=\"user\"} 2.25\n\
         node_cpu_seconds_total{cpu=\"1\",mode=\"guest\"} 9\n\
         openshift_ptp_clock_state{process=\"ptp4l\",iface=\"ens1\",from=\"master\",node=\"n1\"} 1\n\
         openshift_ptp_clock_state{process=\"ptp4l\",iface=\"ens2\",from=\"master\",node=\"n1\"} 7\n\
         # TYPE big counter\n\
         big 18446744073709551615\n\
         inf +Inf\n",
    );
    let host = row(&decoded, "host");
    assert_eq!((&host["cpu_user_seconds"], host.get("attributes")), (&json!(3.75), None));
    let timing = row(&decoded, "timing");
    assert_eq!(
        (&timing["clock_state"], &timing["reference"], &timing["node"]),
        (&json!("locked"), &json!("master"), &json!("n1"))
    );
    let samples = rows(&decoded, "sample");
    let told: Vec<_> = samples
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row.get("value").cloned(), row.get("text").cloned()))
        .collect();
    assert_eq!(
        told,
        [
            ("node_cpu_seconds_total", Some(json!(9.0)), None),
            ("openshift_ptp_clock_state", Some(json!(7.0)), None),
            ("big", None, Some(json!("18446744073709551615"))),
            ("inf", None, Some(json!("+Inf"))),
        ]
    );
    assert_eq!((&samples[1]["node"], &samples[1]["attributes"]["iface"]), (&json!("n1"), &json!("ens2")));
    assert_eq!((&samples[2]["type"], &samples[2]["node"]), (&json!("counter"), &json!("sender")));
}

/// Scenario: a second sample for a filled cell; a link without the label that tells links apart.
#[test]
fn what_cannot_fill_a_cell_is_a_sample() {
    let decoded =
        text("node_load1 1\nnode_load1{other=\"x\"} 2\nnode_network_up 1\nnode_network_up{device=\"eth0\"} 1\n");
    assert_eq!(row(&decoded, "host")["load1"], 1.0);
    assert_eq!(row(&decoded, "link")["interface"], "eth0");
    assert_eq!(rows(&decoded, "sample").len(), 2);
}

/// Scenario: a histogram whose lines are in any order and mixed with another's, with counts up to each bound.
/// Guarantees: one histogram a label set with counts per bucket; each line counted once.
#[test]
fn a_histogram_is_put_together_from_its_lines() {
    let decoded = text(
        "# TYPE vllm:time_to_first_token_seconds histogram\n\
         vllm:time_to_first_token_seconds_sum{model_name=\"a\"} 6.5\n\
         vllm:time_to_first_token_seconds_bucket{model_name=\"a\",le=\"+Inf\"} 10\n\
         vllm:time_to_first_token_seconds_bucket{le=\"0.5\",model_name=\"b\"} 1\n\
         vllm:time_to_first_token_seconds_bucket{model_name=\"a\",le=\"0.25\"} 7\n\
         vllm:num_requests_running{model_name=\"a\"} 3\n\
         vllm:time_to_first_token_seconds_bucket{le=\"+Inf\",model_name=\"b\"} 1.0\n\
         vllm:time_to_first_token_seconds_bucket{model_name=\"a\",le=\"0.1\"} 4.0\n\
         vllm:time_to_first_token_seconds_count{model_name=\"a\"} 10\n",
    );
    assert_eq!((decoded.tally.samples, decoded.tally.columns, decoded.tally.sample_rows), (8, 8, 0));
    let rows = rows(&decoded, "inference");
    assert_eq!(rows.len(), 2);
    let of = |model: &str| rows.iter().find(|row| row["model"] == model).unwrap();
    let histogram = json!({"bounds": [0.1, 0.25], "counts": [4, 3, 3], "sum": 6.5, "count": 10});
    assert_eq!((&of("a")["time_to_first_token_seconds"], &of("a")["requests_running"]), (&histogram, &json!(3.0)));
    assert_eq!(of("b")["time_to_first_token_seconds"], json!({"bounds": [0.5], "counts": [1, 0], "count": 1}));
}

/// Scenario: each way in which a histogram can contradict itself.
/// Guarantees: it is not put together; every line is a sample.
#[test]
fn a_histogram_that_contradicts_itself_stays_lines() {
    let bucket = |le: &str, count: &str| format!("vllm:request_queue_time_seconds_bucket{{le=\"{le}\"}} {count}\n");
    let count = |count: &str| format!("vllm:request_queue_time_seconds_count {count}\n");
    for (what, lines) in [
        ("no +Inf", bucket("1", "5") + &count("5")),
        ("falling", bucket("1", "5") + &bucket("+Inf", "4")),
        ("another count", bucket("1", "5") + &bucket("+Inf", "6") + &count("7")),
        ("a bound twice", bucket("1", "5") + &bucket("1.0", "5") + &bucket("+Inf", "6")),
        ("two counts", bucket("+Inf", "6") + &count("6") + &count("6")),
        ("half an event", bucket("1", "0.5") + &bucket("+Inf", "1")),
        ("a bound that is no number", bucket("x", "1") + &bucket("+Inf", "1")),
        ("no buckets", count("5")),
    ] {
        let decoded = text(&lines);
        let lines = lines.lines().count() as u64;
        assert_eq!((decoded.tally.sample_rows, decoded.tally.columns), (lines, 0), "{what}");
        assert!(rows(&decoded, "sample").iter().all(|row| row["type"] == "histogram"), "{what}");
    }
    let unknown = text("# TYPE other histogram\nother_bucket{le=\"+Inf\"} 1\nother_sum 1\nother_count 1\n");
    assert_eq!(unknown.tally.sample_rows, 3);
}

/// Scenario: labels that name a subscriber, on a known and an unknown metric.
/// Guarantees: neither name nor value is anywhere in the rows; each is counted.
#[test]
fn subscribers_are_dropped_and_counted() {
    let decoded = text(
        "node_load1{imsi=\"001010123456789\",rack=\"r\"} 1\nother{UE_ID=\"7\",rnti=\"17921\",x=\"y\"} 1\n\
         vllm:request_queue_time_seconds_bucket{le=\"+Inf\",user_id=\"bob\"} 1\n\
         vllm:request_queue_time_seconds_count{user_id=\"bob\"} 1\n",
    );
    assert_eq!(decoded.tally.dropped_fields, 5);
    let all: String =
        ["host", "sample", "inference"].iter().map(|stream| format!("{:?}", rows(&decoded, stream))).collect();
    for secret in ["imsi", "001010123456789", "UE_ID", "17921", "bob"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(all.contains("\"r\"") && all.contains("\"y\""));
}

#[test]
fn timestamps_are_milliseconds_in_text_and_seconds_in_open_metrics() {
    let decoded = text("node_load1 1 1700000000123\n");
    assert_eq!(row(&decoded, "host")["ts"], "2023-11-14T22:13:20.123Z");
    assert!(!decoded.tally.no_time);
    let decoded = open("# TYPE node_load1 gauge\nnode_load1 1 1700000000.123456\n# EOF\n").unwrap();
    assert_eq!(row(&decoded, "host")["ts"], "2023-11-14T22:13:20.123456Z");
    let decoded = text(&format!("node_load1 1 {}\nnode_load5 1\nnode_load15 1 99999999999999999999\n", i64::MAX));
    assert_eq!(refused(&decoded), [(Reason::BadTime, 2)]);
    let decoded = open("node_load1 1 1e300\n# EOF\n").unwrap();
    assert_eq!(refused(&decoded), [(Reason::BadTime, 1)]);
}

/// Scenario: samples over each limit among good ones.
/// Guarantees: refused by reason, alone; the name is told, no value is; too many samples refuse the scrape.
#[test]
fn limits_refuse_samples_one_by_one() {
    let limits = Limits { labels_per_sample: 2, label_bytes: 8, samples_per_scrape: 5, ..Limits::DOCUMENTED };
    let context = Context { limits: &limits, ..context() };
    let text = "a{b=\"1\",c=\"2\"} 1\na{b=\"1\",c=\"2\",d=\"3\"} 1\na{b=\"secret-value\"} 1\nb{c=\"1\",c=\"2\"} 1\nnode_load1 2\n";
    let decoded = decode(text.as_bytes(), TextFormat::Prometheus004, &context).unwrap();
    check(&decoded);
    assert_eq!(refused(&decoded), [(Reason::TooManyLabels, 1), (Reason::LabelTooLong, 1), (Reason::Malformed, 1)]);
    assert!(decoded.refused[0].example.contains("`a`") && decoded.refused[0].example.contains("sample 2"));
    assert!(decoded.refused.iter().all(|refused| !refused.example.contains("secret")));
    let error = decode("a 1\n".repeat(6).as_bytes(), TextFormat::Prometheus004, &context).unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::TooManySamples, "more than 5 samples"));
}

#[test]
fn a_bad_line_refuses_the_scrape_with_its_place() {
    let error = |text: &[u8]| decode(text, TextFormat::Prometheus004, &context()).unwrap_err();
    for (text, message) in [
        (&b"a 1\nb{x=\"\xc3\xa9\"} y\n"[..], "a value that is no number at line 2, column 1"),
        (b"a 1\nb{x=y} 1\n", "a value in double quotes is expected at line 2, column 5"),
        (b"# TYPE a meh\n", "a type nobody knows at line 1, column 1"),
        (b"a 1\n\xff 1\n", "text that is no UTF-8 at line 2, column 1"),
        (b"a 1e999\n", "a value that is no number at line 1, column 1"),
        (b"a 0x1p3\n", "a value that is no number at line 1, column 1"),
    ] {
        let error = error(text);
        assert_eq!((error.reason, error.message.as_str()), (Reason::Malformed, message));
        assert!(message.ends_with(&error.position.unwrap()));
    }
}

/// Scenario: OpenMetrics with its own names: a counter that text has without `_total`, a histogram, an exemplar, `_created`.
#[test]
fn open_metrics_is_read() {
    let decoded = open(
        "# HELP openshift_ptp_process_restart_count text \\n # more\n\
         # TYPE openshift_ptp_process_restart_count counter\n\
         openshift_ptp_process_restart_count_total{process=\"ptp4l\"} 3 # {trace_id=\"x\"} 1 1.5\n\
         openshift_ptp_process_restart_count_created{process=\"ptp4l\"} 1.7e9\n\
         # TYPE vllm:inter_token_latency_seconds histogram\n\
         # UNIT vllm:inter_token_latency_seconds seconds\n\
         vllm:inter_token_latency_seconds_bucket{le=\"0.5\"} 1\n\
         vllm:inter_token_latency_seconds_bucket{le=\"+Inf\"} 2\n\
         vllm:inter_token_latency_seconds_sum 1.5\n\
         vllm:inter_token_latency_seconds_count 2\n\
         # EOF\n",
    )
    .unwrap();
    assert_eq!(row(&decoded, "timing")["process_restarts"], 3.0);
    assert_eq!(decoded.tally.exemplars, 1);
    let histogram = json!({"bounds": [0.5], "counts": [1, 1], "sum": 1.5, "count": 2});
    assert_eq!(row(&decoded, "inference")["inter_token_latency_seconds"], histogram);
    assert_eq!(row(&decoded, "sample")["name"], "openshift_ptp_process_restart_count_created");
    assert_eq!(row(&decoded, "timing")["ts"], airan_model::time::format_rfc3339(NOW));
}

#[test]
fn open_metrics_must_end_as_it_says() {
    for (text, what) in [
        ("a 1\n", "must end with `# EOF`"),
        ("", "must end with `# EOF`"),
        ("a 1\n# EOF\nb 1\n", "text after `# EOF`"),
        ("a 1\n\n# EOF\n", "name is expected"),
        ("# TYPE a gauge\na 1\nb 1\na 2\n# EOF\n", "two pieces"),
        ("# TYPE a gauge\na 1\n# HELP a x\n# EOF\n", "after its samples"),
        ("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", "given twice"),
        ("# UNIT a s\n# EOF\n", "not the end of its metric's name"),
        ("# TYPE a gauge\na_total 1\n# TYPE a_total gauge\n# EOF\n", "after its samples"),
        ("# TYPE a gauge\na 1 # {} 1\n# EOF\n", "may have none"),
    ] {
        let error = open(text).map(|_| ()).unwrap_err();
        assert!(error.message.contains(what), "{text:?}: {error}");
    }
    assert!(open("# EOF").is_ok() && open("# EOF\n").is_ok());
}
