//! Bytes nobody should send: random ones, and good bodies with bytes changed, cut, repeated.
//!
//! Guarantees: no decoder panics, and whatever it makes of them adds up and fits its streams.

use std::sync::Arc;

use airan_model::ipc;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::testing::{check, context};
use crate::{Decoded, RemoteWrite, TextFormat, arrow_ipc, ndjson, otlp, prometheus, remote_write};

const TEXT: &str = "# HELP a b\n# TYPE vllm:request_queue_time_seconds histogram\n\
    vllm:request_queue_time_seconds_bucket{model_name=\"a\",le=\"0.5\"} 1\n\
    vllm:request_queue_time_seconds_bucket{model_name=\"a\",le=\"+Inf\"} 2\n\
    vllm:request_queue_time_seconds_sum{model_name=\"a\"} 1.5\nvllm:request_queue_time_seconds_count{model_name=\"a\"} 2\n\
    # TYPE node_load1 gauge\nnode_load1 1 1700000000\n# TYPE c counter\nc_total{x=\"\\n\\\"y\"} 18446744073709551615 # {t=\"1\"} 1 1\n# EOF\n";

const JSON: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"n"}},
    {"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}]}}}]},
    "scopeMetrics":[{"scope":{"name":"s"},"metrics":[
    {"name":"hw.gpu.utilization","gauge":{"dataPoints":[{"attributes":[{"key":"hw.id","value":{"stringValue":"g"}}],"timeUnixNano":"1700000000000000000","asDouble":0.5}]}},
    {"name":"hw.energy","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":"2000000","asInt":"9223372036854775807"}]}},
    {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[1]}]}},
    {"name":"s","summary":{"dataPoints":[{}]}}]}]}]}"#;

const LINES: &str = "{\"stream\":\"inference\",\"ts\":\"2026-01-01T00:00:00Z\",\"node\":\"n\",\"model\":\"m\",\"attributes\":{\"a\":\"b\"},\
    \"time_to_first_token_seconds\":{\"bounds\":[0.1],\"counts\":[1,2],\"sum\":0.5,\"count\":3},\"generation_tokens\":7}\n\
    {\"stream\":\"sample\",\"name\":\"m\",\"value\":1.5}\n\
    {\"cells\":[{\"cell_metrics\":{\"pci\":1,\"latency_histogram\":[1,2,3,0,0,0,0,0,0,0],\"pdsch_prbs_used_per_tdd_slot_idx\":[1,2]},\
    \"ue_list\":[{\"rnti\":1,\"dl_brate\":8}]}],\"timestamp\":\"2026-05-15T14:23:28.476\"}\n";

fn protobuf() -> Vec<u8> {
    let json: ExportMetricsServiceRequest = serde_json::from_str(JSON).unwrap();
    json.encode_to_vec()
}

fn arrow() -> Vec<u8> {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("node", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("utilization", Arc::new(Float64Array::from(vec![0.25, 0.5]))),
    ];
    ipc::encode(&RecordBatch::try_from_iter(columns).unwrap()).unwrap().to_vec()
}

/// Every decoder on the same bytes; the number that read them.
fn every_decoder(body: &[u8]) -> usize {
    let context = context();
    let bytes = Bytes::copy_from_slice(body);
    let read = [
        otlp::decode_protobuf(body, &context),
        otlp::decode_json(body, &context),
        prometheus::decode(body, TextFormat::Prometheus004, &context),
        prometheus::decode(body, TextFormat::OpenMetrics, &context),
        remote_write::decode(body, RemoteWrite::V1, &context),
        remote_write::decode(body, RemoteWrite::V2, &context),
        ndjson::decode(body, &context),
        arrow_ipc::decode(&bytes, "accelerator", &context),
    ];
    read.iter().flatten().inspect(|decoded: &&Decoded| sums(decoded)).count()
}

/// The sums, and for what is not Arrow (which may bring columns of its own) all that holds for every result.
fn sums(decoded: &Decoded) {
    let known = |rows: &crate::DecodedRows| {
        rows.rows.schema().fields().iter().all(|field| rows.stream.place_of(field.name()).is_some())
    };
    if decoded.rows.iter().all(known) {
        check(decoded);
    }
}

/// One change to a body.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(a, b)| Change::Repeat(a, b)),
        1 => (at(), at()).prop_map(|(a, b)| Change::Remove(a, b)),
        2 => (at(), prop::collection::vec(prop::sample::select(&b"{}[]\",:#\\ \n\t0e-.\x00\xff\x0a\x12\x80"[..]), 1..4))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

fn changed(mut body: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if body.is_empty() {
            break;
        }
        let range = |a: &prop::sample::Index, b: &prop::sample::Index, length| {
            let (a, b) = (a.index(length), b.index(length));
            a.min(b)..a.max(b)
        };
        match change {
            Change::Set(at, byte) => {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            Change::Cut(at) => body.truncate(at.index(body.len())),
            Change::Repeat(a, b) => {
                let piece = body[range(a, b, body.len())].to_vec();
                let at = b.index(body.len());
                body.splice(at..at, piece);
            }
            Change::Remove(a, b) => {
                body.drain(range(a, b, body.len()));
            }
            Change::Insert(at, bytes) => {
                let at = at.index(body.len());
                body.splice(at..at, bytes.iter().copied());
            }
        }
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_harm_no_decoder(body in prop::collection::vec(any::<u8>(), 0..200)) {
        every_decoder(&body);
    }

    #[test]
    fn changed_bodies_harm_no_decoder(which in 0..5usize, changes in prop::collection::vec(change(), 0..6)) {
        let body = match which {
            0 => protobuf(),
            1 => JSON.into(),
            2 => TEXT.into(),
            3 => LINES.into(),
            _ => arrow(),
        };
        let read = every_decoder(&changed(body, &changes));
        prop_assert!(read > 0 || !changes.is_empty(), "an unchanged body is read");
    }

    /// What a protobuf library takes for a request, we do; we take more, because text we do not read need not be UTF-8.
    #[test]
    fn what_prost_reads_is_read(changes in prop::collection::vec(change(), 0..6)) {
        let body = changed(protobuf(), &changes);
        if let Ok(request) = ExportMetricsServiceRequest::decode(&body[..]) {
            let decoded = otlp::decode_protobuf(&body, &context());
            prop_assert!(decoded.is_ok(), "{decoded:?}");
            let again = otlp::decode_request(&request, &context());
            prop_assert_eq!(again.map(|decoded| decoded.tally.samples), decoded.map(|decoded| decoded.tally.samples));
        }
    }

    /// Numbers and their sum over any samples of one metric: none is lost and none counted twice.
    #[test]
    fn every_sample_meets_one_end(values in prop::collection::vec((0..3u8, prop_oneof![
        any::<f64>().prop_map(|value| value.to_string()), any::<i64>().prop_map(|value| value.to_string()),
        Just("9223372036854775794".to_owned()), Just("NaN".to_owned()), Just("+Inf".to_owned()),
    ]), 0..30)) {
        let text: String = values.iter().map(|(device, value)| format!("DCGM_FI_DEV_GPU_UTIL{{UUID=\"{device}\"}} {value}\n")).collect();
        let decoded = prometheus::decode(text.as_bytes(), TextFormat::Prometheus004, &context()).unwrap();
        check(&decoded);
        prop_assert_eq!(decoded.tally.samples, values.len() as u64);
    }
}

/// Scenario: texts built to make a reader recurse, loop or collect: nesting, labels, lines, lists of nothing.
/// Guarantees: each ends in seconds, refused or read.
#[test]
fn bombs_are_harmless() {
    let deep = |open: &str, times: usize| open.repeat(times).into_bytes();
    let mut nested = Vec::new();
    for _ in 0..20_000 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.append(&mut nested);
        nested = outer;
    }
    let attribute = format!("{{\"key\":\"a\",\"value\":{}", "{\"arrayValue\":{\"values\":[".repeat(50_000));
    let labels: String = (0..50_000).map(|n| format!("l{n}=\"v\",")).collect();
    for body in [
        deep("[", 1 << 20),
        deep("{\"a\":", 200_000),
        deep("{\"resourceMetrics\":[", 100_000),
        nested,
        format!("{{\"resourceMetrics\":[{{\"resource\":{{\"attributes\":[{attribute}").into_bytes(),
        format!("a{{{labels}}} 1\n").into_bytes(),
        deep("a 1\n", 200_000),
        deep("{}\n", 1 << 20),
        deep("{\"stream\":\"host\"}\n", 100_000),
        format!("a{{b=\"{}\"}} 1\n", "\\".repeat(1 << 20)).into_bytes(),
    ] {
        every_decoder(&body);
    }
}
