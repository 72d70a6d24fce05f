use airan_model::limits::Limits;
use serde_json::json;

use super::*;
use crate::testing::{check, context, refused, row, rows};

fn read(text: &str) -> Decoded {
    let decoded = decode(text.as_bytes(), &context()).unwrap();
    check(&decoded);
    decoded
}

/// Scenario: a line with every kind of value, as a pipeline's golden input has it.
#[test]
fn a_line_is_a_row() {
    let line = json!({
        "stream": "inference", "ts": "2026-11-24T11:00:00.5+01:00", "site": "madrid-01", "region": "eu-south", "node": "edge-1",
        "server": "vllm-0", "model": "llama", "engine": null, "start_ts": 1_795_514_000_000_000_i64,
        "time_to_first_token_seconds": {"bounds": [0.1, 0.25], "counts": [4, 8, 1], "sum": 6.5, "count": 13},
        "generation_tokens": 1500, "kv_cache_usage_ratio": 0.25, "engine_awake": 1.0, "generation_tokens_increase": 3,
        "attributes": {"rack": "r1", "slot": 7, "spare": false, "none": null},
        "batch": "0000000000000000000000000000000a", "seq": 4, "clock": "locked", "source": "mine",
    });
    let decoded = read(&format!("\n{line}\r\n  \n"));
    assert_eq!(
        serde_json::Value::Object(row(&decoded, "inference")),
        json!({
            "ts": "2026-11-24T10:00:00.500Z", "node": "edge-1", "start_ts": "2026-11-24T09:53:20Z", "server": "vllm-0", "model": "llama",
            "time_to_first_token_seconds": {"bounds": [0.1, 0.25], "counts": [4, 8, 1], "sum": 6.5, "count": 13},
            "generation_tokens": 1500.0, "generation_tokens_increase": 3.0, "kv_cache_usage_ratio": 0.25, "engine_awake": 1,
            "attributes": {"rack": "r1", "slot": "7", "spare": "false"},
            "batch": "0000000000000000000000000000000a", "seq": 4, "clock": "locked",
        })
    );
    assert_eq!(decoded.tally, Tally { samples: 1, columns: 1, ..Tally::default() });
}

/// Scenario: a fault and its end, as a network function's collector posts them line by line.
/// Guarantees: rows of the stream of events, each with its own time, in the columns of the catalog.
#[test]
fn events_are_rows_of_their_own_stream() {
    let event = |ts: &str, severity: &str, state: &str| {
        json!({
            "stream": "event", "ts": ts, "node": "du-7", "object": "NRCellDU=3", "type": "fault", "name": "synchronizationLoss",
            "code": 17, "severity": severity, "priority": "high", "message": "no PTP reference", "cause": "lossOfRealTimeRef",
            "new_state": state, "event_id": "f-1", "sequence": 2, "started_seconds": 1_795_514_000.5, "reporter": "ems-1",
        })
    };
    let (begun, over) =
        (event("2026-11-24T10:00:00Z", "critical", "raised"), event("2026-11-24T10:07:00Z", "cleared", "cleared"));
    let decoded = read(&format!("{begun}\n{over}\n"));
    let found = rows(&decoded, "event");
    for (row, mut sent) in found.iter().zip([begun, over]) {
        sent.as_object_mut().unwrap().remove("stream");
        assert_eq!(serde_json::Value::Object(row.clone()), sent);
    }
    assert_eq!((found.len(), decoded.tally), (2, Tally { samples: 2, columns: 2, ..Tally::default() }));
}

/// Scenario: a body with a line for each way to be wrong, among good ones.
/// Guarantees: each is refused alone, by reason, with its number and the column's name; no value is repeated.
#[test]
fn bad_lines_are_refused_alone() {
    let line = |rest: &str| format!("{{\"stream\":\"accelerator\",\"device\":\"g\"{rest}}}");
    let cases = [
        ("not json".to_owned(), Reason::Malformed, "not JSON"),
        ("[1]".to_owned(), Reason::Malformed, "not a JSON object"),
        ("{\"node\":\"n\"}".to_owned(), Reason::Malformed, "no `stream`"),
        ("{\"stream\":7}".to_owned(), Reason::Malformed, "no `stream`"),
        ("{\"stream\":\"nope\"}".to_owned(), Reason::UnknownStream, "no stream `nope`"),
        (line(",\"ts\":\"yesterday\""), Reason::BadTime, "`ts`"),
        (line(",\"ts\":1.5"), Reason::BadTime, "`ts`"),
        (line(",\"utilization\":\"secret\""), Reason::WrongType, "`utilization` must be a number"),
        (line(",\"utilization\":true"), Reason::WrongType, "`utilization` must be a number"),
        (line(",\"utilization\":1e999"), Reason::WrongType, "`utilization` must be a number"),
        (line(",\"xid_last_code\":1.5"), Reason::WrongType, "`xid_last_code` must be an integer"),
        (line(",\"model\":7"), Reason::WrongType, "`model` must be text"),
        (line(",\"utilisation\":0.5"), Reason::WrongType, "has no column `utilisation`"),
        (line(",\"power_watts\":1,\"power_watts\":2"), Reason::Malformed, "`power_watts` occurs twice"),
        (line(",\"batch\":\"xyz\""), Reason::WrongType, "32 hex digits"),
        (line(",\"seq\":-1"), Reason::WrongType, "`seq` must be 0 or more"),
        (line(",\"attributes\":{\"a\":[1]}"), Reason::WrongType, "`attributes` must be"),
        (line(",\"attributes\":[]"), Reason::WrongType, "`attributes` must be"),
        (line(&format!(",\"model\":\"{}\"", "x".repeat(3_000))), Reason::LabelTooLong, "`model` is too long"),
    ];
    for (bad, reason, words) in &cases {
        let decoded = read(&format!("{}\n{bad}\n{}", line(",\"utilization\":0.5"), line(",\"utilization\":1")));
        assert_eq!(refused(&decoded), [(*reason, 1)], "{bad}");
        let example = &decoded.refused[0].example;
        assert!(example.starts_with("line 2: ") && example.contains(words), "{bad}: {example}");
        assert!(!example.contains("secret") && !example.contains("yesterday"));
        assert_eq!(rows(&decoded, "accelerator").len(), 2);
    }
    let histogram = |value: &str| format!("{{\"stream\":\"inference\",\"iteration_tokens\":{value}}}");
    for value in [
        "5",
        "{}",
        "{\"bounds\":[1],\"counts\":[1],\"sum\":1,\"count\":1}",
        "{\"bounds\":[],\"counts\":[1],\"count\":1,\"x\":1}",
    ] {
        assert_eq!(refused(&read(&histogram(value))), [(Reason::WrongType, 1)], "{value}");
    }
    assert_eq!(refused(&decode(b"{\"stream\":\"host\xff\"}", &context()).unwrap()), [(Reason::Malformed, 1)]);
}

#[test]
fn a_row_without_time_or_node_gets_the_bodys() {
    let decoded = read("{\"stream\":\"host\",\"load1\":1}\n{\"stream\":\"host\",\"load1\":2,\"node\":\"\",\"ts\":0}\n");
    let rows = rows(&decoded, "host");
    let told: Vec<_> = rows.iter().map(|row| (row["ts"].as_str().unwrap(), row["node"].as_str().unwrap())).collect();
    assert_eq!(told, [("2026-11-24T10:00:00Z", "sender"), ("1970-01-01T00:00:00Z", "sender")]);
    assert!(decoded.tally.no_time);
}

#[test]
fn subscribers_are_dropped_and_counted() {
    let decoded =
        read("{\"stream\":\"host\",\"load1\":1,\"imsi\":\"001\",\"attributes\":{\"ue-id\":\"7\",\"a\":\"b\"}}\n");
    assert_eq!(decoded.tally.dropped_fields, 2);
    assert_eq!(row(&decoded, "host")["attributes"], json!({"a": "b"}));
}

#[test]
fn rows_of_sample_are_counted_as_such_and_streams_do_not_mix() {
    let decoded = read(
        "{\"stream\":\"sample\",\"name\":\"m\",\"value\":1.5}\n{\"stream\":\"host\"}\n{\"stream\":\"sample\",\"text\":\"x\"}\n",
    );
    assert_eq!((decoded.tally.sample_rows, decoded.tally.columns), (2, 1));
    let streams: Vec<&str> = decoded.rows.iter().map(|rows| &*rows.stream.name).collect();
    assert_eq!(streams, ["host", "sample"]);
}

#[test]
fn limits_hold() {
    let limits = Limits { labels_per_sample: 2, label_bytes: 4, ..Limits::DOCUMENTED };
    let context = Context { limits: &limits, ..context() };
    let with = |attributes: serde_json::Value| {
        let line = json!({"stream": "host", "attributes": attributes}).to_string();
        refused(&decode(line.as_bytes(), &context).unwrap())
    };
    assert_eq!(with(json!({"a": "1", "b": "2"})), []);
    assert_eq!(with(json!({"a": "1", "b": "2", "c": "3"})), [(Reason::TooManyLabels, 1)]);
    assert_eq!(with(json!({"a": "12345"})), [(Reason::LabelTooLong, 1)]);
    let many: serde_json::Map<String, serde_json::Value> =
        (0..10_000).map(|n| (format!("label_{n}"), json!("x"))).collect();
    assert_eq!(with(json!(many)), [(Reason::TooManyLabels, 1)]);
    let line = format!("{{\"stream\":\"host\"{}}}", ",\"load1\":null".repeat(2_000));
    assert_eq!(refused(&decode(line.as_bytes(), &context).unwrap()), [(Reason::TooManyLabels, 1)]);
}

/// Every line of the shipped pipelines' inputs that is a row is taken by the door, but for keys of the test alone.
#[test]
fn the_pipelines_own_inputs_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut lines = 0;
    for pipeline in std::fs::read_dir(folder).unwrap() {
        let Ok(text) = std::fs::read_to_string(pipeline.unwrap().path().join("input.ndjson")) else { continue };
        for line in text.lines().filter(|line| !line.contains("\"tick\"")) {
            let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            row.remove("append_time");
            let decoded = read(&serde_json::Value::Object(row).to_string());
            assert_eq!(decoded.tally.columns, 1, "{line}: {:?}", decoded.refused);
            lines += 1;
        }
    }
    assert!(lines > 100);
}
