//! Frames of a gNB: OCUDU's own, and one test for each trap in them.

use airan_model::limits::Limits;
use airan_model::reject::Reason;
use serde_json::{Value, json};

use crate::ndjson::decode;
use crate::samples_tests::folder;
use crate::testing::{check, context, has, one, refused, row, rows};
use crate::{Context, Decoded, Tally};

fn read(text: &str) -> Decoded {
    let decoded = decode(text.as_bytes(), &context()).unwrap();
    check(&decoded);
    decoded
}

/// A frame of one cell with these UEs.
fn cell(metrics: &Value, ues: &Value) -> String {
    json!({"cells": [{"cell_metrics": metrics, "ue_list": ues}], "timestamp": "2026-05-15T14:23:28.476"}).to_string()
}

/// A block of OCUDU's manual as JSON: without comments, places left out and commas before an end.
fn documented(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder()?.join("ran-gnb").join(name)).unwrap();
    let lines =
        text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| *line != "...");
    let mut text = lines.collect::<String>();
    for (with, without) in [(",}", "}"), (",]", "]")] {
        text = text.replace(with, without);
    }
    Some(text)
}

/// Scenario: three frames of a real gNB: what its process takes, its MAC, its scheduler with one cell and one UE.
/// Guarantees: every number meets the end that a reader of the file gives it: 12 fill columns of the cell, 16 have none, the delay of
/// no PRACH is none, and of the UE's 41 fields 35 go nowhere.
#[test]
fn the_frames_of_a_gnb() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("ran-gnb/ocudu_gnb_ws_frames_a.jsonl")).unwrap();
    let decoded = read(&text);
    let expected =
        Tally { samples: 29, sentinels: 1, columns: 12, sample_rows: 16, dropped_fields: 35, ..Tally::default() };
    assert_eq!(decoded.tally, expected);
    // 12 + 4 + 3 + 15 + 16 + 7 + 6 PRBs in ten slots; 11,312,392 and 169,600 bit/s; 143 us.
    assert_eq!(
        Value::Object(row(&decoded, "cell")),
        json!({
            "ts": "2026-05-15T14:23:28.476Z", "node": "sender", "cell": "1", "pci": 1, "dl_prbs_used": 6.3, "ul_prbs_used": 0.1,
            "dl_bytes_per_second": 1_414_049.0, "ul_bytes_per_second": 21_200.0, "connected_ues": 1.0,
            "dl_harq_ok_increase": 627.0, "dl_harq_nok_increase": 0.0, "ul_harq_ok_increase": 25.0, "ul_harq_nok_increase": 0.0,
            "slot_latency_max_seconds": 0.000_143,
            "slot_latency_seconds_increase": {
                "bounds": [5e-5, 1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 3.5e-4, 4e-4, 4.5e-4],
                "counts": [1662, 317, 21, 0, 0, 0, 0, 0, 0, 0], "count": 2000,
            },
        })
    );
    let power = one(&decoded, "sample", |row| row["name"] == "gnb.app_resource_usage.power_consumption_watts");
    has(&power, &json!({"ts": "2026-05-15T14:23:28.331Z", "value": 23.964622964622965, "attributes": null}));
    // 208 % of a core here, a share of one there: as sent.
    let cpu = |name: &str| one(&decoded, "sample", |row| row["name"] == name);
    let share = cpu("gnb.app_resource_usage.cpu_usage_percent")["value"].as_f64().unwrap();
    assert!((share - 208.732_914_924_621_58).abs() < 1e-9, "{share}");
    let mac = cpu("gnb.du.du_high.mac.dl.cpu_usage_percent");
    has(&mac, &json!({"value": 0.0070715, "attributes": {"pci": "1"}}));
}

/// Scenario: a cell with three UEs, one of them listed without its identities; events and bearers of UEs.
/// Guarantees: values of UEs come as sums over the cell, counters as rises; neither an identity nor any value of one UE is in any
/// row, and what was left out is counted.
#[test]
fn nothing_of_a_single_ue_is_kept() {
    let ues = json!([
        {"ue": 0, "rnti": 17921, "pci": 7, "dl_brate": 8000.0, "dl_nof_ok": 600, "dl_nof_nok": 6, "ta_ns": 297.02, "last_phr": -4},
        {"ue": 1, "rnti": 17922, "pci": 7, "dl_brate": 16000.0, "dl_nof_ok": 400, "dl_nof_nok": 4, "ta_ns": 511.5, "last_phr": 12},
        {"dl_brate": 8.0, "ta_ns": 44.25},
    ]);
    let events = json!({"cells": [{"cell_metrics": {"pci": 7}, "event_list": [{"event_type": "ue_create", "rnti": 17921, "slot": "50.5"}]}],
        "timestamp": "2026-05-15T14:23:29.476"});
    let bearer = json!({"rlc_metrics": {"du_id": 3, "ue_id": 5, "drb_id": 1, "tx": {"num_sdus": 9876, "num_sdu_bytes": 1234}},
        "timestamp": "2026-05-15T14:23:28.5"});
    let decoded = read(&format!("{}\n{events}\n{bearer}\n", cell(&json!({"pci": 7}), &ues)));
    let first = one(&decoded, "cell", |row| row.contains_key("connected_ues"));
    has(
        &first,
        &json!({
            "cell": "7", "connected_ues": 3.0, "dl_bytes_per_second": 3001.0, "dl_harq_ok_increase": 1000.0,
            "dl_harq_nok_increase": 10.0, "dl_harq_ok": null, "attributes": null,
        }),
    );
    assert!(rows(&decoded, "sample").is_empty());
    // 5 fields of two UEs, 1 of the third; an event; a bearer.
    assert_eq!(decoded.tally.dropped_fields, 5 * 2 + 1 + 3 + 5);
    let all = format!("{:?}", rows(&decoded, "cell"));
    for secret in ["17921", "17922", "297", "511", "9876", "ue_create", "rnti"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

/// Scenario: timestamps without a zone, with one, and none at all.
/// Guarantees: without a zone it is UTC; a frame without a time is refused alone, with its line.
#[test]
fn a_timestamp_without_a_zone_is_utc() {
    let frame = |time: &str| format!("{{\"app_resource_usage\":{{\"memory_usage_mb\":1}},\"timestamp\":{time}}}\n");
    let decoded =
        read(&format!("{}{}", frame("\"2026-05-15T14:23:28.331\""), frame("\"2026-05-15T14:23:28.331+02:00\"")));
    let times: Vec<Value> = rows(&decoded, "sample").iter().map(|row| row["ts"].clone()).collect();
    assert_eq!(times, ["2026-05-15T14:23:28.331Z", "2026-05-15T12:23:28.331Z"]);
    for time in ["\"noon\"", "7", "null"] {
        let decoded = read(&format!("{}{}", frame(time), frame("\"2026-05-15T14:23:28\"")));
        assert_eq!(refused(&decoded), [(Reason::BadTime, 1)], "{time}");
        assert!(decoded.refused[0].example.starts_with("line 1: `timestamp`"), "{}", decoded.refused[0].example);
        assert_eq!(decoded.tally.sample_rows, 1);
    }
}

/// Scenario: the delay of PRACHs where there were some; latency in other bins than documented, and in bins that are no counts.
/// Guarantees: a delay above 0 is a value; bins of unknown width are kept as they are, never as a histogram.
#[test]
fn what_is_not_as_documented_is_not_guessed_at() {
    let decoded = read(&cell(&json!({"pci": 1, "avg_prach_delay": 2.5, "latency_histogram": [3, 2, 1]}), &json!([])));
    let named = |name: &str| -> Vec<(Value, Value)> {
        let all = rows(&decoded, "sample").into_iter().filter(|row| row["name"] == name);
        all.map(|row| (row["attributes"].clone(), row["value"].clone())).collect()
    };
    assert_eq!(named("gnb.cells.cell_metrics.avg_prach_delay"), [(json!({"pci": "1"}), json!(2.5))]);
    let bin =
        |index: &str, value: f64| (json!({"pci": "1", "index": index, "airan.temporality": "delta"}), json!(value));
    let bins = [bin("0", 3.0), bin("1", 2.0), bin("2", 1.0)];
    assert_eq!(named("gnb.cells.cell_metrics.latency_histogram"), bins);
    assert!(!row(&decoded, "cell").contains_key("slot_latency_seconds_increase"));
    for bins in [json!([-1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), json!([0.5, 1, 0, 0, 0, 0, 0, 0, 0, 0])] {
        let decoded = read(&cell(&json!({"pci": 1, "latency_histogram": bins}), &json!([])));
        assert_eq!(refused(&decoded), [(Reason::Malformed, 1)]);
    }
}

/// Scenario: the blocks of OCUDU's manual, made JSON; the open fronthaul with 0 everywhere.
/// Guarantees: nothing in them is refused, each number has its end, and late packets and missed symbols are rises of the
/// fronthaul of their cell.
#[test]
fn the_frames_of_ocudus_manual() {
    for (name, columns, sample_rows, dropped) in [
        ("ocudu_doc_01_mac.json.txt", 0, 8, 0),
        ("ocudu_doc_02_sched.json.txt", 0, 2, 4),
        ("ocudu_doc_03_ofh.json.txt", 12, 33, 0),
        ("ocudu_doc_04_cucp.json.txt", 0, 4, 0),
        ("ocudu_doc_08_executor.json.txt", 0, 9, 0),
        ("ocudu_doc_09_app_usage.json.txt", 0, 3, 0),
    ] {
        let Some(text) = documented(name) else { return };
        let decoded = read(&text);
        let expected =
            Tally { samples: columns + sample_rows, columns, sample_rows, dropped_fields: dropped, ..Tally::default() };
        assert_eq!(decoded.tally, expected, "{name}");
    }
    let fronthaul = row(&read(&documented("ocudu_doc_03_ofh.json.txt").unwrap()), "fronthaul");
    has(
        &fronthaul,
        &json!({
            "ts": "2025-11-04T15:51:26.845Z", "cell": "0", "rx_on_time_packets_increase": 0.0, "rx_late_packets_increase": 0.0,
            "missed_ul_symbols_increase": 0.0, "late_dl_slots_increase": 0.0, "rx_on_time_packets": null,
        }),
    );
}

/// Scenario: a frame to which its forwarder added node and gNB, between rows of the same and of another stream.
/// Guarantees: rows of one stream come as one part, in the lines' words and the frame's.
#[test]
fn frames_and_rows_of_one_body() {
    let mut frame: Value = serde_json::from_str(&cell(&json!({"pci": 3, "max_latency": 50}), &json!([]))).unwrap();
    frame["node"] = json!("du-1");
    frame["gnb"] = json!("gnb-7");
    let decoded = read(&format!(
        "{{\"stream\":\"cell\",\"cell\":\"9\",\"dl_prbs_used\":5}}\n{frame}\n{{\"stream\":\"host\",\"load1\":1}}\n"
    ));
    let own = one(&decoded, "cell", |row| row["cell"] == "9");
    has(&own, &json!({"node": "sender", "dl_prbs_used": 5.0, "pci": null}));
    let of_frame = one(&decoded, "cell", |row| row["cell"] == "3");
    let expected = json!({"node": "du-1", "gnb": "gnb-7", "slot_latency_max_seconds": 5e-5, "connected_ues": 0.0, "attributes": null});
    has(&of_frame, &expected);
    assert_eq!(decoded.tally.samples, 5);
}

/// Scenario: lines that are neither rows nor frames.
/// Guarantees: refused as before; a mistyped `stream` makes no frame.
#[test]
fn not_everything_with_a_timestamp_is_a_frame() {
    for line in [
        "{\"timestamp\":\"2026-05-15T14:23:28\",\"steam\":\"cell\"}",
        "{\"cells\":[]}",
        "{\"stream\":\"nope\",\"cells\":[],\"timestamp\":\"2026-05-15T14:23:28\"}",
    ] {
        let decoded = read(line);
        assert_eq!((decoded.tally.samples, decoded.tally.refused), (1, 1), "{line}");
    }
}

/// Scenario: frames on and over each limit, with a good frame after them.
/// Guarantees: what is over is refused, by reason, and what stands beside it is taken.
#[test]
fn each_limit_of_a_frame_has_its_reason() {
    let frame = |value: Value| json!({"du_low": {"x": value, "y": 1}, "timestamp": "2026-05-15T14:23:28"}).to_string();
    let nested = |deep: usize| (0..deep).fold(json!(1), |inner, _| json!({"a": inner}));
    let limits = Limits { labels_per_sample: 3, label_bytes: 64, ..Limits::DOCUMENTED };
    let context = Context { limits: &limits, ..context() };
    for (value, over) in [
        (nested(14), None),
        (nested(15), Some(Reason::TooDeep)),
        (json!(vec![json!({}); 4096]), None),
        (json!(vec![json!({}); 4097]), Some(Reason::TooManySamples)),
        (json!({"a": "1", "b": "2", "c": "3", "v": 1}), None),
        (json!({"a": "1", "b": "2", "c": "3", "d": "4", "v": 1}), Some(Reason::TooManyLabels)),
        (json!({"a": "x".repeat(64), "v": 1}), None),
        (json!({"a": "x".repeat(65), "v": 1}), Some(Reason::LabelTooLong)),
        (json!({"x".repeat(51): 1}), None),
        (json!({"x".repeat(52): 1}), Some(Reason::LabelTooLong)),
        (Value::Object((0..1024).map(|key| (key.to_string(), Value::Null)).collect()), None),
        (Value::Object((0..1025).map(|key| (key.to_string(), Value::Null)).collect()), Some(Reason::TooManyLabels)),
    ] {
        let shown: String = value.to_string().chars().take(60).collect();
        let decoded = decode(frame(value).as_bytes(), &context).unwrap();
        check(&decoded);
        let expected: Vec<(Reason, u64)> = over.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(refused(&decoded), expected, "{shown}");
        assert!(rows(&decoded, "sample").iter().any(|row| row["name"] == "gnb.du_low.y"), "{shown}");
    }
}
