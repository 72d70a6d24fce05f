use airan_model::limits::Limits;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::Tally;
use crate::testing::{NOW, check, context, refused, row, rows};

const NANOS: u64 = NOW as u64 * 1_000;

fn text(of: &str) -> any_value::Value {
    any_value::Value::StringValue(of.to_owned())
}

fn pair(key: &str, of: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(of) }), ..Default::default() }
}

fn map(pairs: Vec<KeyValue>) -> any_value::Value {
    any_value::Value::KvlistValue(KeyValueList { values: pairs })
}

fn event(name: &str, severity: i32, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: NANOS,
        severity_number: severity,
        event_name: name.to_owned(),
        attributes,
        ..Default::default()
    }
}

fn request(resource: Vec<KeyValue>, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..Default::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..Default::default() }],
            ..Default::default()
        }],
    }
}

fn host() -> Vec<KeyValue> {
    vec![pair("host.name", text("edge-1"))]
}

/// Decodes the request in both encodings, which must give the same.
fn take(request: &ExportLogsServiceRequest) -> Decoded {
    let decoded = decode_logs_protobuf(&request.encode_to_vec(), &context()).unwrap();
    check(&decoded);
    let from_json = decode_logs_json(&serde_json::to_vec(request).unwrap(), &context()).unwrap();
    assert_eq!((from_json.tally, &from_json.refused), (decoded.tally, &decoded.refused));
    let of = |decoded: &Decoded| decoded.rows.iter().map(|rows| rows.rows.clone()).collect::<Vec<_>>();
    assert_eq!(of(&from_json), of(&decoded));
    decoded
}

/// Scenario: an event with everything the catalog has a column for, named by the field; attributes of resource and scope beside.
/// Guarantees: its columns, also those of numbers; what has no column is an attribute, but for the scope's, which say who logged.
#[test]
fn an_event_is_a_row_of_its_stream() {
    let attributes = vec![
        pair("hw.id", text("GPU-7")),
        pair("event.type", text("fault")),
        pair("event.code", any_value::Value::IntValue(79)),
        pair("event.sequence", text("4")),
        pair("event.value", any_value::Value::DoubleValue(91.5)),
        pair("event.id", text("f-1")),
        pair("event.message", text("GPU has fallen off the bus")),
        pair("error.type", text("pcie")),
        pair("event.old_state", text("up")),
        pair("event.new_state", text("lost")),
        pair("rack", text("r1")),
    ];
    let decoded = take(&request(host(), vec![event("gpu.lost", 21, attributes)]));
    assert_eq!(
        Value::Object(row(&decoded, "event")),
        json!({
            "ts": "2026-11-24T10:00:00Z", "node": "edge-1", "object": "GPU-7", "type": "fault", "name": "gpu.lost", "code": 79,
            "severity": "critical", "message": "GPU has fallen off the bus", "cause": "pcie", "old_state": "up",
            "new_state": "lost", "value": 91.5, "event_id": "f-1", "sequence": 4, "attributes": {"rack": "r1"},
        })
    );
    assert_eq!(decoded.tally, Tally { samples: 1, columns: 1, ..Tally::default() });
}

/// Scenario: records named by the attribute, by both, by an attribute that is no text, and by nothing; one of another kind between.
/// Guarantees: the field goes first; what has no name is refused alone, with its place, and the others are kept.
#[test]
fn what_has_no_event_name_is_refused_alone() {
    let named = |field: &str, attribute: any_value::Value| event(field, 9, vec![pair("event.name", attribute)]);
    let body = Some(AnyValue { value: Some(text("user 001010123456789 said hello")) });
    let log = LogRecord { body, ..event("", 9, vec![pair("k", text("v"))]) };
    let decoded = take(&request(
        host(),
        vec![
            named("", text("old")),
            log,
            named("new", text("old")),
            named("", any_value::Value::IntValue(4)),
            named("", text("")),
        ],
    ));
    let names: Vec<_> = rows(&decoded, "event").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["old", "new"]);
    assert_eq!(refused(&decoded), [(Reason::NotAnEvent, 3)]);
    assert!(decoded.refused[0].example.ends_with("(log record 2)"), "{}", decoded.refused[0].example);
    assert_eq!(decoded.tally, Tally { samples: 5, columns: 2, refused: 3, ..Tally::default() });
}

/// Scenario: the same event twice at one instant, of one node.
/// Guarantees: two rows: events are not merged as samples are. Without an object it is the node's.
#[test]
fn events_of_one_instant_are_rows_of_their_own() {
    let decoded =
        take(&request(host(), vec![event("door", 9, vec![]), event("door", 9, vec![]), event("window", 13, vec![])]));
    let found = rows(&decoded, "event");
    let told: Vec<_> =
        found.iter().map(|row| (row["name"].as_str().unwrap(), row["severity"].as_str().unwrap())).collect();
    assert_eq!(told, [("door", "normal"), ("door", "normal"), ("window", "warning")]);
    assert!(found.iter().all(|row| !row.contains_key("object")));
}

/// Scenario: every severity number there is, none, and numbers that are none.
#[test]
fn severities_have_our_words() {
    let records = (-1..26).map(|severity| event("e", severity, vec![])).collect();
    let decoded = take(&request(host(), records));
    let words: Vec<Option<String>> = rows(&decoded, "event")
        .iter()
        .map(|row| row.get("severity").map(|word| word.as_str().unwrap().to_owned()))
        .collect();
    let wanted =
        [(None, 2), (Some("normal"), 12), (Some("warning"), 4), (Some("major"), 4), (Some("critical"), 4), (None, 1)];
    let wanted: Vec<Option<String>> =
        wanted.iter().flat_map(|(word, count)| vec![word.map(str::to_owned); *count]).collect();
    assert_eq!(words, wanted);
}

/// Scenario: bodies of text, of bytes, of a list, and with fields: some that the catalog names, one nested, one of a subscriber.
/// Guarantees: nothing of a body is kept but fields the catalog names; a body that is left out is counted once.
#[test]
fn of_a_body_only_named_fields_are_kept() {
    let with =
        |body: any_value::Value| LogRecord { body: Some(AnyValue { value: Some(body) }), ..event("e", 9, vec![]) };
    let list = any_value::Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(text("SECRET")) }] });
    let fields = vec![
        pair("code", any_value::Value::IntValue(31)),
        pair("new_state", text("down")),
        pair("message", text("SECRET")),
        pair("object", map(vec![pair("code", text("SECRET"))])),
        pair("imsi", text("SECRET")),
    ];
    let all_named = map(vec![pair("code", text("32"))]);
    let bodies = vec![text("SECRET"), any_value::Value::BytesValue(b"SECRET".to_vec()), list, map(fields), all_named];
    let decoded = take(&request(host(), bodies.into_iter().map(with).collect()));
    let found = rows(&decoded, "event");
    assert_eq!((found[3]["code"].clone(), found[3]["new_state"].clone()), (json!(31), json!("down")));
    assert_eq!(found[4]["code"], 32);
    assert!(!format!("{found:?}").contains("SECRET") && !format!("{found:?}").contains("U0VDUkVU"), "{found:?}");
    assert_eq!((decoded.tally.bodies, decoded.tally.columns), (4, 5));
}

/// Scenario: subscribers in attributes of resource, scope and record, within a nested value, and what they wrote to a model.
/// Guarantees: dropped and counted; neither name nor value is in any row.
#[test]
fn subscribers_go_nowhere() {
    let secret = || text("SECRET-001010123456789");
    let attributes = vec![
        pair("enduser.id", secret()),
        pair("ue_id", secret()),
        pair("client.address", secret()),
        pair("user.full_name", secret()),
        pair("gen_ai.input.messages", secret()),
        pair("gen_ai.prompt.0.content", secret()),
        pair("detail", map(vec![pair("msisdn", secret()), pair("cell", text("c-1"))])),
        pair("gen_ai.prompt.name", text("summary")),
    ];
    let mut sent =
        request(vec![pair("host.name", text("edge-1")), pair("supi", secret())], vec![event("e", 9, attributes)]);
    sent.resource_logs[0].scope_logs[0].scope.as_mut().unwrap().attributes = vec![pair("imei", secret())];
    let record = &mut sent.resource_logs[0].scope_logs[0].log_records[0];
    (record.trace_id, record.span_id) = (vec![0x4b; 16], vec![0x4b; 8]);
    let decoded = take(&sent);
    let found = row(&decoded, "event");
    assert_eq!(found["attributes"], json!({"detail": "{\"cell\":\"c-1\"}", "gen_ai.prompt.name": "summary"}));
    assert!(!format!("{found:?}").contains("SECRET") && !format!("{found:?}").contains("4b4b"), "{found:?}");
    assert_eq!(decoded.tally.dropped_fields, 9);
}

/// Scenario: a record with the time it was observed only, and one without any.
#[test]
fn an_event_without_a_time_has_that_of_its_observation_or_of_reception() {
    let at = |time: u64, observed: u64| LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: observed,
        ..event("e", 9, vec![])
    };
    let decoded = take(&request(host(), vec![at(NANOS - 7_000_000_000, NANOS), at(0, NANOS - 1_000_000_000)]));
    let times: Vec<_> = rows(&decoded, "event").iter().map(|row| row["ts"].clone()).collect();
    assert_eq!(
        (times, decoded.tally.no_time),
        (vec![json!("2026-11-24T09:59:53Z"), json!("2026-11-24T09:59:59Z")], false)
    );
    let decoded = take(&request(host(), vec![at(0, 0)]));
    assert_eq!((row(&decoded, "event")["ts"].clone(), decoded.tally.no_time), (json!("2026-11-24T10:00:00Z"), true));
}

/// Scenario: too many attributes, one too long, one of each name twice, nesting too deep; and a stack trace, which is not read.
/// Guarantees: each is refused by its reason alone, with its place.
#[test]
fn limits_refuse_records_one_by_one() {
    let many = (0..Limits::DOCUMENTED.labels_per_sample).map(|at| pair(&format!("a{at}"), text("x"))).collect();
    let long = text(&"x".repeat(Limits::DOCUMENTED.label_bytes + 1));
    let deep = (0..Limits::DOCUMENTED.depth + 1).fold(text("x"), |inner, _| map(vec![pair("k", inner)]));
    let decoded = take(&request(
        host(),
        vec![
            event("many", 9, many),
            event("long", 9, vec![pair("a", long.clone())]),
            event("twice", 9, vec![pair("a", text("1")), pair("a", text("2"))]),
            event("deep", 9, vec![pair("a", deep)]),
            event(&"n".repeat(Limits::DOCUMENTED.label_bytes + 1), 9, vec![]),
            event("exception", 17, vec![pair("exception.stacktrace", long), pair("exception.type", text("OSError"))]),
        ],
    ));
    let wanted = [(Reason::TooManyLabels, 1), (Reason::LabelTooLong, 2), (Reason::Malformed, 1), (Reason::TooDeep, 1)];
    assert_eq!(refused(&decoded), wanted);
    assert_eq!(row(&decoded, "event")["cause"], "OSError");
}

/// Scenario: a catalog that maps no events.
/// Guarantees: they are refused by reason, not lost.
#[test]
fn a_catalog_without_the_mapping_refuses_events() {
    let folder = std::env::temp_dir().join(format!("airan-no-events-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let event_yaml = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/catalog/event.yaml");
    std::fs::copy(event_yaml, folder.join("event.yaml")).unwrap();
    let catalog = Catalog::load(&folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let context = Context { catalog: &catalog, ..context() };
    let body = request(host(), vec![event("e", 9, vec![])]).encode_to_vec();
    let decoded = decode_logs_protobuf(&body, &context).unwrap();
    assert_eq!((refused(&decoded), decoded.rows.len()), (vec![(Reason::UnknownStream, 1)], 0));
}

/// Scenario: bytes that are no request, at their outermost and within; the other signal's body.
/// Guarantees: an error with its place, in words that name the signal; a metrics body has no logs.
#[test]
fn what_is_no_request_is_told_with_its_place() {
    let error = decode_logs_protobuf(b"\x0a\x04\x12\x02\x12\x7f", &context()).unwrap_err();
    assert_eq!(error.to_string(), "not an OTLP logs request: a field is longer than its message at offset 4");
    let error = decode_logs_json(b"{\"resourceLogs\": [\n{\"scopeLogs\": 7", &context()).unwrap_err();
    assert!(error.to_string().starts_with("not an OTLP logs request: the JSON ends too early at line 2"), "{error}");
    let error =
        decode_logs_json(b"{\"resourceLogs\": [{\"scopeLogs\": [{\"logRecords\": [7]}]}]}", &context()).unwrap_err();
    assert!(error.to_string().contains("a field of another type than it must have at line 1, column"), "{error}");
    let decoded = decode_logs_json(b"{\"resourceMetrics\": []}", &context()).unwrap();
    assert_eq!(decoded.tally, Tally::default());
}

/// Scenario: the record of OpenTelemetry's own example, as it is and with an event name.
/// Guarantees: a log is refused, the same as an event is a row with its own attributes; those of its scope say who logged, and are not.
#[test]
fn opentelemetrys_example_is_taken_as_an_event() {
    let Some(folder) = crate::samples_tests::folder() else { return };
    let sent = std::fs::read_to_string(folder.join("prom-otlp/otlp_example_logs.json")).unwrap();
    let decoded = decode_logs_json(sent.as_bytes(), &context()).unwrap();
    check(&decoded);
    assert_eq!(refused(&decoded), [(Reason::NotAnEvent, 1)]);
    let sent = sent
        .replace("\"severityNumber\": 10,", "\"severityNumber\": \"SEVERITY_NUMBER_WARN\", \"eventName\": \"shown\",");
    let decoded = decode_logs_json(sent.as_bytes(), &context()).unwrap();
    check(&decoded);
    assert_eq!(
        Value::Object(row(&decoded, "event")),
        json!({
            "ts": "2018-12-13T14:51:00.300Z", "node": "sender", "object": "my.service", "name": "shown", "severity": "warning",
            "attributes": {"string.attribute": "some string", "boolean.attribute": "true", "int.attribute": "10",
                "double.attribute": "637.704", "array.attribute": "[\"many\",\"values\"]",
                "map.attribute": "{\"some.map.key\":\"some value\"}"},
        })
    );
    assert_eq!(decoded.tally.bodies, 1);
}
