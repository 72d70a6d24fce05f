use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram as OtlpHistogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
    exemplar, exponential_histogram_data_point, metric, number_data_point, summary_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::json;

use super::*;
use crate::Tally;
use crate::testing::{NOW, check, context, refused, row, rows};

const NANOS: u64 = NOW as u64 * 1_000;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn value(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(text.to_owned()))
}

fn pair(key: &str, of: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value(of)), ..Default::default() }
}

fn point(device: &str, of: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![attribute("hw.id", device)],
        time_unix_nano: NANOS,
        value: Some(of),
        ..Default::default()
    }
}

fn double(device: &str, value: f64) -> NumberDataPoint {
    point(device, number_data_point::Value::AsDouble(value))
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric { name: name.to_owned(), data: Some(metric::Data::Gauge(Gauge { data_points })), ..Default::default() }
}

fn sum(name: &str, aggregation_temporality: i32, is_monotonic: bool, data_points: Vec<NumberDataPoint>) -> Metric {
    let sum = Sum { data_points, aggregation_temporality, is_monotonic };
    Metric { name: name.to_owned(), data: Some(metric::Data::Sum(sum)), ..Default::default() }
}

fn histogram(name: &str, aggregation_temporality: i32, data_points: Vec<HistogramDataPoint>) -> Metric {
    let data = metric::Data::Histogram(OtlpHistogram { data_points, aggregation_temporality });
    Metric { name: name.to_owned(), data: Some(data), ..Default::default() }
}

fn request(resource: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// Decodes the request in both encodings, which must give the same.
fn take(request: &ExportMetricsServiceRequest) -> Decoded {
    let decoded = decode_request(request, &context()).unwrap();
    check(&decoded);
    let from_json = decode_json(&serde_json::to_vec(request).unwrap(), &context()).unwrap();
    assert_eq!(from_json.tally, decoded.tally);
    assert_eq!(from_json.refused, decoded.refused);
    let of = |decoded: &Decoded| decoded.rows.iter().map(|rows| rows.rows.clone()).collect::<Vec<_>>();
    assert_eq!(of(&from_json), of(&decoded));
    decoded
}

/// Scenario: exemplars of a number, a histogram and an exponential histogram, which name a trace and a subscriber; both encodings.
/// Guarantees: each is counted and leaves nothing behind; the points they belong to are taken.
#[test]
fn exemplars_are_counted_and_left_out() {
    let exemplars = |count: usize| {
        let of = Exemplar {
            filtered_attributes: vec![attribute("imsi", "001010123456789")],
            time_unix_nano: NANOS,
            trace_id: vec![0x4b; 16],
            value: Some(exemplar::Value::AsDouble(7.25)),
            ..Default::default()
        };
        vec![of; count]
    };
    let explicit = HistogramDataPoint {
        time_unix_nano: NANOS,
        count: 1,
        sum: Some(0.5),
        bucket_counts: vec![1, 0],
        explicit_bounds: vec![1.0],
        exemplars: exemplars(2),
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: NANOS,
        count: 1,
        sum: Some(0.5),
        zero_count: 1,
        exemplars: exemplars(4),
        ..Default::default()
    };
    let exponential = ExponentialHistogram { data_points: vec![exponential], aggregation_temporality: CUMULATIVE };
    let decoded = take(&request(
        vec![attribute("host.name", "edge-1")],
        vec![
            gauge("hw.gpu.utilization", vec![NumberDataPoint { exemplars: exemplars(1), ..double("G", 0.25) }]),
            histogram("latency", CUMULATIVE, vec![explicit]),
            Metric {
                name: "spread".to_owned(),
                data: Some(metric::Data::ExponentialHistogram(exponential)),
                ..Default::default()
            },
        ],
    ));
    assert_eq!((decoded.tally.exemplars, decoded.tally.samples, decoded.tally.refused), (7, 3, 0));
    assert_eq!(row(&decoded, "accelerator")["utilization"], 0.25);
    let text = format!("{:?}{:?}", rows(&decoded, "accelerator"), rows(&decoded, "sample"));
    for left_out in ["imsi", "001010123456789", "4b4b4b", "7.25"] {
        assert!(!text.contains(left_out), "{text}");
    }
}

/// Scenario: a gauge and a counter of one device, with labels of the resource.
/// Guarantees: one row; node and attributes from the resource; start from the counter.
#[test]
fn points_of_one_device_become_one_row() {
    let energy = NumberDataPoint { start_time_unix_nano: NANOS - 5_000_000_000, ..double("G", 12.5) };
    let mut energy_point = energy;
    energy_point.attributes.push(attribute("hw.type", "gpu"));
    let decoded = take(&request(
        vec![attribute("host.name", "edge-1"), attribute("service.name", "agent")],
        vec![
            gauge("hw.gpu.utilization", vec![double("G", 0.25), double("H", 0.5)]),
            sum("hw.energy", CUMULATIVE, true, vec![energy_point]),
        ],
    ));
    let rows = rows(&decoded, "accelerator");
    assert_eq!(
        serde_json::Value::Object(rows[0].clone()),
        json!({
            "ts": "2026-11-24T10:00:00Z", "node": "edge-1", "start_ts": "2026-11-24T09:59:55Z", "device": "G",
            "utilization": 0.25, "energy_joules": 12.5, "attributes": {"service.name": "agent"},
        })
    );
    assert_eq!((rows.len(), &rows[1]["device"], rows[1].get("start_ts")), (2, &json!("H"), None));
    assert_eq!(decoded.tally, Tally { samples: 3, columns: 3, ..Tally::default() });
}

/// Scenario: delta sums and histograms of known and unknown metrics; a delta that is not monotonic.
/// Guarantees: known ones fill the increase and its seconds; what no column holds says that it is a delta.
#[test]
fn deltas_fill_increases() {
    let mut rise = NumberDataPoint { start_time_unix_nano: NANOS - 1_500_000_000, ..double("G", 12.5) };
    rise.attributes.push(attribute("hw.type", "gpu"));
    let tokens = HistogramDataPoint {
        start_time_unix_nano: NANOS - 2_000_000_000,
        time_unix_nano: NANOS,
        count: 3,
        sum: Some(0.75),
        explicit_bounds: vec![0.5],
        bucket_counts: vec![2, 1],
        ..Default::default()
    };
    let decoded = take(&request(
        vec![],
        vec![
            sum("hw.energy", DELTA, true, vec![rise.clone()]),
            histogram("vllm:time_to_first_token_seconds", DELTA, vec![tokens]),
            sum("other", DELTA, true, vec![double("G", 2.0)]),
            sum("hw.gpu.memory.usage", DELTA, false, vec![double("G", -7.0)]),
        ],
    ));
    let energy = row(&decoded, "accelerator");
    assert_eq!(
        (&energy["energy_joules_increase"], &energy["energy_joules_increase_seconds"]),
        (&json!(12.5), &json!(1.5))
    );
    assert!(energy.get("energy_joules").is_none() && energy.get("start_ts").is_none());
    let tokens = row(&decoded, "inference");
    let expected = json!({"bounds": [0.5], "counts": [2, 1], "sum": 0.75, "count": 3});
    assert_eq!(tokens["time_to_first_token_seconds_increase"], expected);
    assert_eq!(tokens["time_to_first_token_seconds_increase_seconds"], 2.0);
    for sample in rows(&decoded, "sample") {
        assert_eq!(sample["attributes"]["airan.temporality"], "delta", "{sample:?}");
    }
    assert_eq!((decoded.tally.columns, decoded.tally.sample_rows), (2, 2));
}

/// Scenario: integers of every size, states, infinities, NaN, points without a value, and points that say they have none.
#[test]
fn values_keep_their_digits_or_say_nothing() {
    let int = |value| point("G", number_data_point::Value::AsInt(value));
    let empty = NumberDataPoint { value: None, ..double("G", 0.0) };
    let no_value = NumberDataPoint { flags: 1, ..empty.clone() };
    // No JSON: the library writes infinities and NaN as null.
    let request = request(
        vec![],
        vec![
            gauge("a", vec![int((1 << 53) + 1), int(-7), double("G", f64::NEG_INFINITY), double("G", f64::NAN)]),
            gauge("b", vec![empty, no_value]),
            sum("system.network.io", CUMULATIVE, true, vec![]),
        ],
    );
    let decoded = decode_request(&request, &context()).unwrap();
    check(&decoded);
    let samples = rows(&decoded, "sample");
    let told: Vec<_> = samples.iter().map(|row| (row.get("value").cloned(), row.get("text").cloned())).collect();
    assert_eq!(told, [(None, Some(json!("9007199254740993"))), (Some(json!(-7.0)), None), (None, Some(json!("-Inf")))]);
    assert_eq!((decoded.tally.samples, decoded.tally.sentinels), (6, 2));
    assert_eq!(refused(&decoded), [(Reason::Malformed, 1)]);
}

/// Scenario: histograms of a known metric, an unknown one, without buckets, and broken in each way.
#[test]
fn histograms_are_checked() {
    let point = |bounds: &[f64], counts: &[u64], count| HistogramDataPoint {
        time_unix_nano: NANOS,
        count,
        sum: Some(f64::INFINITY),
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..Default::default()
    };
    let decoded = take(&request(
        vec![],
        vec![
            histogram("vllm:time_to_first_token_seconds", CUMULATIVE, vec![point(&[1.0], &[2, 1], 3)]),
            histogram("unknown", CUMULATIVE, vec![point(&[], &[], 4)]),
            histogram(
                "broken",
                CUMULATIVE,
                vec![
                    point(&[1.0], &[2, 1], 4),
                    point(&[1.0], &[3], 3),
                    point(&[2.0, 1.0], &[1, 1, 1], 3),
                    point(&[], &[], u64::MAX),
                    point(&[], &[u64::MAX], 1),
                ],
            ),
        ],
    ));
    let known = json!({"bounds": [1.0], "counts": [2, 1], "count": 3});
    assert_eq!(row(&decoded, "inference")["time_to_first_token_seconds"], known);
    let sample = row(&decoded, "sample");
    assert_eq!(
        (&sample["histogram"], &sample["type"]),
        (&json!({"bounds": [], "counts": [4], "count": 4}), &json!("histogram"))
    );
    assert_eq!(refused(&decoded), [(Reason::Malformed, 5)]);
}

/// Scenario: a sum that does not say its temporality, and a metric without a name.
/// Guarantees: refused point by point, with count, reason and name; the rest is kept.
#[test]
fn what_is_not_taken_is_refused_point_by_point() {
    let decoded = take(&request(
        vec![],
        vec![
            gauge("hw.gpu.utilization", vec![double("G", 0.5)]),
            sum("untold", 0, true, vec![double("G", 1.0)]),
            gauge("", vec![double("G", 1.0)]),
        ],
    ));
    assert_eq!(refused(&decoded), [(Reason::Malformed, 2)]);
    assert_eq!(decoded.refused[0].example, "no aggregation temporality: `untold` (point 2)");
    assert_eq!(row(&decoded, "accelerator")["utilization"], 0.5);
}

fn exponential(scale: i32, positive: (i32, &[u64]), zero: u64, count: u64) -> ExponentialHistogramDataPoint {
    let (offset, counts) = positive;
    ExponentialHistogramDataPoint {
        time_unix_nano: NANOS,
        scale,
        zero_count: zero,
        count,
        sum: Some(7.5),
        positive: Some(exponential_histogram_data_point::Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

/// Scenario: exponential histograms: of scale 0, of a known metric in deltas, without any value, and some that contradict themselves.
/// Guarantees: of known metrics both kinds fill columns; bounds are the powers of the base, empty buckets are not written, the contradictions are refused one by one.
#[test]
fn exponential_histograms_have_the_bounds_of_their_scale() {
    let of = |name: &str, aggregation_temporality, data_points| {
        let data = ExponentialHistogram { data_points, aggregation_temporality };
        Metric { name: name.to_owned(), data: Some(metric::Data::ExponentialHistogram(data)), ..Default::default() }
    };
    let empty = ExponentialHistogramDataPoint { time_unix_nano: NANOS, flags: 1, ..Default::default() };
    let decoded = take(&request(
        vec![],
        vec![
            of("a", CUMULATIVE, vec![exponential(0, (-1, &[2, 0, 3]), 1, 6), empty]),
            of("vllm:time_to_first_token_seconds", DELTA, vec![exponential(1, (0, &[4]), 0, 4)]),
            of("vllm:time_per_output_token_seconds", CUMULATIVE, vec![exponential(1, (0, &[4]), 0, 4)]),
            of(
                "b",
                CUMULATIVE,
                vec![
                    exponential(0, (0, &[1]), 0, 2),
                    exponential(0, (0, &[u64::MAX]), 0, 1),
                    exponential(40, (0, &[1]), 0, 1),
                    exponential(0, (i32::MAX, &[1]), 0, 1),
                    exponential(0, (i32::MIN, &[1]), 0, 1),
                ],
            ),
        ],
    ));
    let tiny = f64::MIN_POSITIVE;
    let bounds =
        json!({"bounds": [-tiny, 0.0, 0.5, 1.0, 2.0, 4.0], "counts": [0, 1, 0, 2, 0, 3, 0], "sum": 7.5, "count": 6});
    assert_eq!(row(&decoded, "sample")["histogram"], bounds);
    let known = row(&decoded, "inference");
    assert_eq!(known["time_per_output_token_seconds"]["counts"], json!([0, 4, 0]));
    let rise = &known["time_to_first_token_seconds_increase"];
    assert_eq!((&rise["bounds"], &rise["counts"]), (&json!([1.0, std::f64::consts::SQRT_2]), &json!([0, 4, 0])));
    assert_eq!((decoded.tally.sentinels, refused(&decoded)), (1, vec![(Reason::Malformed, 5)]));
}

/// Scenario: a summary with two quantiles, one that says nothing, and one that names its quantile in an attribute too.
/// Guarantees: the lines Prometheus text has for it, each counted.
#[test]
fn a_summary_becomes_its_lines() {
    let quantile = |quantile, value| summary_data_point::ValueAtQuantile { quantile, value };
    let whole = SummaryDataPoint {
        time_unix_nano: NANOS,
        count: 10,
        sum: 2.5,
        quantile_values: vec![quantile(0.5, 0.2), quantile(0.99, 0.9)],
        attributes: vec![attribute("code", "200")],
        ..Default::default()
    };
    let nothing = SummaryDataPoint { flags: 1, ..whole.clone() };
    let twice = SummaryDataPoint { attributes: vec![attribute("quantile", "1")], ..whole.clone() };
    let data = metric::Data::Summary(Summary { data_points: vec![whole, nothing, twice] });
    let decoded = take(&request(vec![], vec![Metric { name: "rpc".into(), data: Some(data), ..Default::default() }]));
    let told: Vec<String> = rows(&decoded, "sample")
        .iter()
        .map(|row| format!("{} {} {} {}", row["name"], row["value"], row["type"], row["attributes"]))
        .map(|text| text.replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "rpc_sum 2.5 summary {code:200}",
            "rpc_count 10.0 summary {code:200}",
            "rpc 0.2 summary {code:200,quantile:0.5}",
            "rpc 0.9 summary {code:200,quantile:0.99}",
        ]
    );
    assert_eq!((decoded.tally.samples, decoded.tally.sentinels, decoded.tally.refused), (6, 1, 1));
}

/// Scenario: attributes of each type, also nested, also with a subscriber inside.
#[test]
fn attribute_values_become_text() {
    use any_value::Value::{
        ArrayValue as List, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
    };
    let list =
        List(ArrayValue { values: vec![value(IntValue(1)), value(StringValue("x\"".into())), value(BoolValue(true))] });
    let map = KvlistValue(KeyValueList {
        values: vec![pair("imsi", StringValue("001".into())), pair("k", DoubleValue(0.5)), pair("l", list.clone())],
    });
    let mut of = double("G", 1.0);
    of.attributes = vec![
        pair("bool", BoolValue(false)),
        pair("int", IntValue(-3)),
        pair("double", DoubleValue(2.5)),
        pair("bytes", BytesValue(b"fo".to_vec())),
        pair("list", list),
        pair("map", map),
        attribute("empty", ""),
        attribute("ue_id", "7"),
        KeyValue { key: "none".into(), ..Default::default() },
    ];
    let decoded = take(&request(vec![], vec![gauge("a", vec![of])]));
    assert_eq!(
        row(&decoded, "sample")["attributes"],
        json!({
            "bool": "false", "int": "-3", "double": "2.5", "bytes": "Zm8=", "list": "[1,\"x\\\"\",true]",
            "map": "{\"k\":0.5,\"l\":[1,\"x\\\"\",true]}",
        })
    );
    assert_eq!(decoded.tally.dropped_fields, 2);
}

/// Scenario: points over the limits on labels, their length and their depth; a resource over the limit.
#[test]
fn limits_refuse_points_one_by_one() {
    use any_value::Value::ArrayValue as List;
    let deep = (0..40).fold(any_value::Value::IntValue(1), |inner, _| List(ArrayValue { values: vec![value(inner)] }));
    let with = |attributes: Vec<KeyValue>| NumberDataPoint { attributes, ..double("G", 1.0) };
    let many: Vec<KeyValue> = (0..10_000).map(|n| attribute(&format!("label_{n}"), "x")).collect();
    let long = vec![attribute("a", &"x".repeat(3_000))];
    let twice = vec![attribute("a", "1"), attribute("a", "2")];
    let points = vec![with(many.clone()), with(long), with(vec![pair("d", deep)]), with(twice), double("G", 1.0)];
    let mut request = request(vec![], vec![gauge("hw.gpu.utilization", points)]);
    let mut second = request.resource_metrics[0].clone();
    second.resource = Some(Resource { attributes: many, ..Default::default() });
    second.scope_metrics[0].metrics = vec![gauge("hw.gpu.utilization", vec![double("G", 1.0), double("H", 1.0)])];
    request.resource_metrics.push(second);
    let decoded = take(&request);
    assert_eq!(
        refused(&decoded),
        [(Reason::TooManyLabels, 3), (Reason::LabelTooLong, 1), (Reason::TooDeep, 1), (Reason::Malformed, 1)]
    );
    assert_eq!(rows(&decoded, "accelerator").len(), 1);
}

/// Scenario: a point that overrides a label of its resource; a scope with a name.
#[test]
fn a_points_own_label_wins_and_scopes_are_told_in_samples_only() {
    let mut of = double("G", 1.0);
    of.attributes.push(attribute("zone", "point"));
    let mut request = request(
        vec![attribute("zone", "resource"), attribute("host.id", "h-1")],
        vec![gauge("hw.gpu.utilization", vec![of.clone()]), gauge("other", vec![of])],
    );
    request.resource_metrics[0].scope_metrics[0].scope =
        Some(InstrumentationScope { name: "meter".into(), version: "1".into(), ..Default::default() });
    let decoded = take(&request);
    let known = row(&decoded, "accelerator");
    assert_eq!((&known["node"], &known["attributes"]), (&json!("h-1"), &json!({"zone": "point"})));
    assert_eq!(
        row(&decoded, "sample")["attributes"],
        json!({"hw.id": "G", "zone": "point", "host.id": "h-1", "otel.scope.name": "meter", "otel.scope.version": "1"})
    );
}

/// Scenario: JSON as other senders write it: enums by name, numbers for strings and strings for numbers, null, unknown fields,
/// NaN as text, members in any order.
#[test]
fn json_is_read_as_the_protobuf_mapping_allows() {
    let text = json!({"unknown": [1], "resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"sum": {"dataPoints": [{"asInt": 5, "timeUnixNano": NANOS, "startTimeUnixNano": 0, "attributes": null, "x": {}},
                                {"asInt": "6", "timeUnixNano": NANOS.to_string(), "flags": "1"},
                                {"asDouble": "NaN", "timeUnixNano": null, "exemplars": [{"asDouble": 1}]},
                                {"asDouble": "1.5", "startTimeUnixNano": null}],
                 "isMonotonic": true, "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE"}, "name": "c\u{e9}\n"},
        {"name": "nothing"}, {"name": "empty", "gauge": {}}]}],
        "resource": {"attributes": [{"value": {"stringValue": "edge-1", "later": 1}, "key": "host.name"}, {"key": "k", "value": {}}]}}, {}]});
    let decoded = decode_json(text.to_string().as_bytes(), &context()).unwrap();
    check(&decoded);
    assert_eq!((decoded.tally.samples, decoded.tally.sentinels, decoded.tally.no_time), (4, 2, true));
    let samples = rows(&decoded, "sample");
    assert_eq!(
        (&samples[0]["value"], &samples[0]["node"], samples[0].get("start_ts")),
        (&json!(5.0), &json!("edge-1"), None)
    );
    assert_eq!((&samples[1]["value"], &samples[1]["name"]), (&json!(1.5), &json!("c\u{e9}\n")));
    assert!(decode_json(b"{}", &context()).unwrap().rows.is_empty());
}

#[test]
fn bytes_that_are_no_request_are_refused_with_their_place() {
    for (body, message) in [
        (&b"\xff\xff\xff"[..], "offset 0"),
        (b"\x0a\x05\x12\x03\x12\x01", "offset 0"),
        (b"\x0a\x06\x12\x04\x12\x02\x0a\x05", "offset 6"),
    ] {
        let error = decode_protobuf(body, &context()).unwrap_err();
        assert_eq!(error.reason, Reason::Malformed);
        assert!(error.message.ends_with(message), "{error}");
    }
    for (body, place) in [
        ("{", "line 1, column 1"),
        ("{\"resourceMetrics\": [\n", "line 2, column"),
        ("{\"resourceMetrics\": 5}", "line 1"),
        ("{\"resourceMetrics\":\n [{\"scopeMetrics\": [{\"metrics\":\n [{\"name\": 7}]}]}]}", "line 3"),
        ("\u{1}", "line 1, column 1"),
    ] {
        let error = decode_json(body.as_bytes(), &context()).unwrap_err();
        assert_eq!(error.reason, Reason::Malformed);
        assert!(error.position.as_ref().unwrap().starts_with(place), "{body:?}: {error}");
    }
    assert!(decode_json(b"\xff", &context()).is_err());
    let secret = decode_json(b"{\"resourceMetrics\": \"imsi 001\"}", &context()).unwrap_err();
    assert!(!secret.message.contains("001"));
}

/// Scenario: 16 MiB of data points of two bytes each, and of points that repeat a large resource.
/// Guarantees: a request cannot make rows out of proportion; what does not fit is refused and counted.
#[test]
fn a_request_cannot_swell() {
    let empty = [0x0a, 0x00].repeat(1 << 20);
    let nest = |number: u8, inner: &[u8]| {
        let mut outer = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend_from_slice(inner);
        outer
    };
    let metrics = |points: &[u8]| nest(2, &[nest(1, b"m"), nest(5, points)].concat());
    let body = nest(1, &nest(2, &metrics(&empty)));
    let decoded = decode_protobuf(&body, &context()).unwrap();
    check(&decoded);
    assert_eq!(refused(&decoded), [(Reason::Malformed, 1 << 20)]);

    // Eleven bytes a point, 100 KiB of labels for each of them.
    let point = nest(1, &[0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    let labels: Vec<u8> =
        (0..50).flat_map(|n| nest(1, &attribute(&format!("label_{n}"), &"x".repeat(2_000)).encode_to_vec())).collect();
    let body = nest(1, &[nest(1, &labels), nest(2, &metrics(&point.repeat(10_000)))].concat());
    let decoded = decode_protobuf(&body, &context()).unwrap();
    check(&decoded);
    assert_eq!(decoded.tally.samples, 10_000);
    let size: usize = decoded.rows.iter().map(|rows| rows.rows.get_array_memory_size()).sum();
    assert!(size < 80 << 20, "{size}");
    assert_eq!(refused(&decoded)[0].0, Reason::TooManySamples);
}
