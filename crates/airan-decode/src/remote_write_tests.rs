use airan_model::limits::Limits;
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::testing::{check, context, rows};

#[path = "../../../tests/remote_write_messages.rs"]
mod sent;

const NOW: i64 = 1_700_000_000_000;

fn labels(pairs: &[(&str, &str)]) -> Vec<sent::Label> {
    pairs.iter().map(|(name, value)| sent::Label { name: (*name).into(), value: (*value).into() }).collect()
}

fn series(pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> sent::TimeSeries {
    let samples =
        samples.iter().map(|(timestamp, value)| sent::Sample { value: *value, timestamp: *timestamp, start: 0 });
    sent::TimeSeries { labels: labels(pairs), samples: samples.collect(), ..Default::default() }
}

fn read(timeseries: Vec<sent::TimeSeries>) -> Decoded {
    let request = sent::WriteRequest { timeseries, metadata: Vec::new() };
    let decoded = decode(&request.encode_to_vec(), RemoteWrite::V1, &context()).unwrap();
    check(&decoded);
    decoded
}

/// Scenario: series with exemplars whose labels name a trace, in both versions.
/// Guarantees: exemplars are counted and leave nothing behind; the samples beside them are taken.
#[test]
fn exemplars_are_counted_and_left_out() {
    let mut with = series(&[("__name__", "x"), ("instance", "n:1")], &[(NOW, 1.0)]);
    let exemplar = sent::Exemplar { labels: labels(&[("trace_id", "4bf92f35"), ("imsi", "1")]), ..Default::default() };
    with.exemplars = vec![exemplar; 2];
    let first = read(vec![with]);
    let sample = sent::Sample { value: 1.0, timestamp: NOW, start: 0 };
    let request = sent::Request2 {
        symbols: ["", "__name__", "x", "instance", "n:1"].map(str::to_owned).to_vec(),
        timeseries: vec![sent::TimeSeries2 {
            labels: vec![1, 2, 3, 4],
            samples: vec![sample],
            exemplars: vec![sent::Exemplar2 { labels: vec![3, 4], ..Default::default() }; 2],
            ..Default::default()
        }],
    };
    let second = decode(&request.encode_to_vec(), RemoteWrite::V2, &context()).unwrap();
    assert_eq!((first.tally.exemplars, second.tally.exemplars), (2, 2));
    for decoded in [first, second] {
        check(&decoded);
        assert_eq!((decoded.tally.samples, decoded.tally.sample_rows), (1, 1));
        let text = format!("{:?}", rows(&decoded, "sample"));
        assert!(!text.contains("4bf92f35") && !text.contains("imsi"), "{text}");
    }
}

/// Scenario: a known metric of a GPU and an unknown one, each scraped twice.
/// Guarantees: a row an instant; percent becomes a ratio; the node is the host of `instance`; nothing but the name leaves the labels.
#[test]
fn samples_become_the_rows_that_text_gives() {
    let decoded = read(vec![
        series(
            &[("__name__", "DCGM_FI_DEV_GPU_UTIL"), ("gpu", "0"), ("instance", "gpu-7:9400"), ("job", "dcgm")],
            &[(NOW, 35.0), (NOW + 15_000, 70.0)],
        ),
        series(&[("__name__", "up"), ("instance", "[2001:db8::1]:9400"), ("job", "dcgm")], &[(NOW, 1.0)]),
    ]);
    let gpu = rows(&decoded, "accelerator");
    assert_eq!(gpu.len(), 2, "{gpu:?}");
    assert_eq!((&gpu[0]["node"], &gpu[0]["utilization"]), (&json!("gpu-7"), &json!(0.35)));
    assert_eq!(gpu[1]["utilization"], 0.7);
    let other = rows(&decoded, "sample");
    assert_eq!((&other[0]["node"], &other[0]["name"]), (&json!("2001:db8::1"), &json!("up")));
    assert_eq!((decoded.tally.samples, decoded.tally.columns, decoded.tally.sample_rows), (3, 2, 1));
}

/// Scenario: the special values a sender has: a stale marker, NaN, infinities.
/// Guarantees: a marker and NaN are "no value", counted; an infinity is kept.
#[test]
fn a_stale_marker_is_no_value() {
    let decoded = read(vec![series(
        &[("__name__", "x"), ("instance", "n")],
        &[(NOW, f64::from_bits(STALE)), (NOW + 1, f64::NAN), (NOW + 2, f64::INFINITY), (NOW + 3, 4.0)],
    )]);
    assert_eq!((decoded.tally.samples, decoded.tally.sentinels, decoded.tally.sample_rows), (4, 2, 2));
}

/// Scenario: series that break the specification between others that do not.
/// Guarantees: each is refused alone with its reason; the others are taken.
#[test]
fn bad_series_are_refused_alone() {
    let good = || series(&[("__name__", "good"), ("instance", "n")], &[(NOW, 1.0)]);
    let many: Vec<(String, String)> = (0..70).map(|at| (format!("l{at}"), "v".to_owned())).collect();
    let mut too_many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    too_many.push(("__name__", "x"));
    for (bad, reason) in [
        (series(&[("job", "j")], &[(NOW, 1.0), (NOW + 1, 2.0)]), "malformed: 2"),
        (series(&[("__name__", "x"), ("a", "1"), ("a", "2")], &[(NOW, 1.0)]), "malformed: 1"),
        (series(&[("__name__", "x"), ("", "1")], &[(NOW, 1.0)]), "malformed: 1"),
        (series(&[("__name__", "x"), ("__name__", "y")], &[(NOW, 1.0)]), "malformed: 1"),
        (series(&[("__name__", "x")], &[(i64::MAX, 1.0)]), "bad_time: 1"),
        (series(&too_many, &[(NOW, 1.0)]), "too_many_labels: 1"),
        (series(&[("__name__", &"x".repeat(3_000))], &[(NOW, 1.0)]), "label_too_long: 1"),
    ] {
        let decoded = read(vec![good(), bad, good()]);
        let told: Vec<String> =
            decoded.refused.iter().map(|refused| format!("{}: {}", refused.reason.as_str(), refused.count)).collect();
        assert_eq!(told, [reason]);
        assert_eq!(decoded.tally.sample_rows, 2, "{reason}");
    }
}

/// Scenario: a histogram the catalog knows, all its series in one message; then one whose `+Inf` is in another message.
/// Guarantees: the whole one is one histogram; of the other each series is a sample, none lost.
#[test]
fn a_whole_classic_histogram_is_one_and_a_part_of_one_is_samples() {
    let name = "vllm:time_to_first_token_seconds";
    let base = [("instance", "s:8000"), ("model_name", "m")];
    let with = |suffix: &str, extra: &[(&str, &str)], value: f64| {
        let full = format!("{name}{suffix}");
        let pairs = [&[("__name__", full.as_str())], &base[..], extra].concat();
        series(&pairs, &[(NOW, value)])
    };
    let parts = vec![
        with("_bucket", &[("le", "0.1")], 2.0),
        with("_sum", &[], 1.5),
        with("_bucket", &[("le", "+Inf")], 5.0),
        with("_count", &[], 5.0),
    ];
    let whole = read(parts.clone());
    let found = rows(&whole, "inference");
    assert_eq!(found.len(), 1, "{found:?}");
    let histogram = &found[0]["time_to_first_token_seconds"];
    assert_eq!((&histogram["bounds"], &histogram["counts"]), (&json!([0.1]), &json!([2, 3])));
    assert_eq!((whole.tally.samples, whole.tally.columns), (4, 4));
    let part = read(parts.into_iter().filter(|series| !series.labels.iter().any(|l| l.value == "+Inf")).collect());
    assert_eq!((part.tally.samples, part.tally.sample_rows), (3, 3));
    assert!(rows(&part, "inference").is_empty());
}

fn native() -> sent::Histogram {
    sent::Histogram {
        count: 12,
        sum: 18.4,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2,
        positive_spans: vec![sent::Span { offset: 0, length: 2 }, sent::Span { offset: 1, length: 2 }],
        positive_deltas: vec![1, 2, -2, 4],
        timestamp: NOW,
        ..Default::default()
    }
}

fn native_series(histogram: sent::Histogram) -> sent::TimeSeries {
    native_of("rpc_seconds", histogram)
}

fn native_of(name: &str, histogram: sent::Histogram) -> sent::TimeSeries {
    let labels = labels(&[("__name__", name), ("instance", "n:1"), ("model_name", "m")]);
    sent::TimeSeries { labels, histograms: vec![histogram], ..Default::default() }
}

/// Scenario: the example of the native histograms specification's layout: two spans with a gap, deltas, a zero bucket.
/// Guarantees: buckets get their bounds, and every event is in one.
#[test]
fn a_native_histogram_has_its_bounds_and_counts() {
    let decoded = read(vec![native_series(native())]);
    let rows = rows(&decoded, "sample");
    let histogram = &rows[0]["histogram"];
    // Base √2: bucket i ends at √2^i; filled are 0, 1, 3 and 4 with 1, 3, 1 and 5 events.
    let root = 2f64.sqrt();
    let bounds: Vec<f64> = histogram["bounds"].as_array().unwrap().iter().map(|b| b.as_f64().unwrap()).collect();
    let expected = [-0.001, 0.001, 1.0 / root, 1.0, root, 2.0, 2.0 * root, 4.0];
    assert_eq!(bounds.len(), expected.len(), "{bounds:?}");
    for (found, expected) in bounds.iter().zip(expected) {
        assert!((found - expected).abs() <= 4e-16 * expected.abs(), "{found} {expected}");
    }
    assert_eq!(histogram["counts"], json!([0, 2, 0, 1, 3, 0, 1, 5, 0]));
    assert_eq!((&histogram["count"], &histogram["sum"]), (&json!(12), &json!(18.4)));
    assert_eq!((decoded.tally.histograms, decoded.tally.samples), (1, 1));
}

/// Scenario: custom bounds; a stale histogram; histograms that contradict themselves.
#[test]
fn native_histograms_of_other_kinds() {
    let custom = sent::Histogram {
        schema: -53,
        zero_threshold: 0.0,
        zero_count: 0,
        custom: vec![0.5, 2.0],
        positive_spans: vec![sent::Span { offset: 1, length: 2 }],
        positive_deltas: vec![3, 1],
        count: 7,
        ..native()
    };
    let decoded = read(vec![native_series(custom.clone())]);
    let histogram = &rows(&decoded, "sample")[0]["histogram"];
    assert_eq!((&histogram["bounds"], &histogram["counts"]), (&json!([0.5, 2.0]), &json!([0, 3, 4])));

    // Of a metric with a column, both fill it.
    let known = "vllm:time_to_first_token_seconds";
    let later = sent::Histogram { timestamp: NOW + 1, ..native() };
    let decoded = read(vec![native_of(known, custom.clone()), native_of(known, later)]);
    assert_eq!((rows(&decoded, "inference").len(), rows(&decoded, "sample").len()), (2, 0));

    let stale = sent::Histogram { sum: f64::from_bits(STALE), ..Default::default() };
    let decoded = read(vec![native_series(stale)]);
    assert_eq!((decoded.tally.sentinels, decoded.tally.histograms), (1, 1));

    for bad in [
        sent::Histogram { count: 11, ..native() },
        sent::Histogram { positive_deltas: vec![1, 2], ..native() },
        sent::Histogram { positive_deltas: vec![1, -2, 2, 4], ..native() },
        sent::Histogram { schema: 40, ..native() },
        sent::Histogram { zero_threshold: f64::NAN, ..native() },
        sent::Histogram { count: u64::MAX, ..native() },
        sent::Histogram { positive_spans: vec![sent::Span { offset: i32::MAX, length: 4 }], ..native() },
        sent::Histogram { positive_spans: vec![sent::Span { offset: 0, length: u32::MAX }], ..native() },
        sent::Histogram { positive_spans: vec![sent::Span { offset: 5, length: 3 }], ..custom },
        sent::Histogram { positive_deltas: vec![], positive_counts: vec![1.0, 3.5, 0.5, 5.0], ..native() },
    ] {
        let decoded = read(vec![native_series(bad.clone()), native_series(native())]);
        assert_eq!((decoded.tally.refused, decoded.tally.sample_rows), (1, 1), "{bad:?}");
    }
}

/// Scenario: remote write 2.0 with symbols, type, start times in both places, a native histogram.
/// Guarantees: the same rows as 1.0 gives, with `start_ts` and the type.
#[test]
fn version_2_has_symbols_types_and_start_times() {
    let symbols = ["", "__name__", "jobs_total", "instance", "n:1", "rpc_seconds"].map(str::to_owned).to_vec();
    let sample = sent::Sample { value: 7.0, timestamp: NOW, start: NOW - 60_000 };
    let request = sent::Request2 {
        symbols,
        timeseries: vec![
            sent::TimeSeries2 {
                labels: vec![1, 2, 3, 4],
                samples: vec![sample, sent::Sample { start: 0, timestamp: NOW + 1, ..sample }],
                metadata: Some(sent::Metadata2 { kind: 1, ..Default::default() }),
                created: NOW - 90_000,
                ..Default::default()
            },
            sent::TimeSeries2 { labels: vec![1, 5, 3, 4], histograms: vec![native()], ..Default::default() },
            sent::TimeSeries2 { labels: vec![1, 99], samples: vec![sample], ..Default::default() },
            sent::TimeSeries2 { labels: vec![1, 2, 3], samples: vec![sample], ..Default::default() },
        ],
    };
    let decoded = decode(&request.encode_to_vec(), RemoteWrite::V2, &context()).unwrap();
    let rows = rows(&decoded, "sample");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!((&rows[0]["node"], &rows[0]["type"]), (&json!("n"), &json!("counter")));
    assert_eq!(
        (&rows[0]["start_ts"], &rows[1]["start_ts"]),
        (&json!("2023-11-14T22:12:20Z"), &json!("2023-11-14T22:11:50Z"))
    );
    assert_eq!((decoded.tally.refused, decoded.tally.histograms), (2, 1));
}

/// Scenario: 1.0 with metadata of each type, written before the series it is of, between them, and after the last.
/// Guarantees: the type reaches the series wherever the metadata stands; where there is none the type is unknown.
#[test]
fn metadata_of_version_1_may_stand_anywhere() {
    let kinds = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    let family = |kind: usize| format!("x{kind}");
    let described = |kinds: &[usize]| {
        let metadata = kinds.iter().map(|kind| sent::MetricMetadata { kind: *kind as i32, family: family(*kind) });
        sent::WriteRequest { metadata: metadata.collect(), ..Default::default() }.encode_to_vec()
    };
    let sampled = |kinds: &[usize]| {
        let timeseries =
            kinds.iter().map(|kind| series(&[("__name__", &family(*kind)), ("instance", "n:1")], &[(NOW, 1.0)]));
        sent::WriteRequest { timeseries: timeseries.collect(), ..Default::default() }.encode_to_vec()
    };
    // Fields of one message may come in any order, and messages that stand behind each other are one.
    let message =
        [described(&[1, 2]), sampled(&[0, 1, 2, 6]), described(&[6]), sampled(&[7]), described(&[7])].concat();
    let decoded = decode(&message, RemoteWrite::V1, &context()).unwrap();
    check(&decoded);
    let told: Vec<(String, String)> = rows(&decoded, "sample")
        .iter()
        .map(|row| {
            (
                row["name"].as_str().unwrap().to_owned(),
                row.get("type").and_then(|of| of.as_str()).unwrap_or("unknown").to_owned(),
            )
        })
        .collect();
    let wanted: Vec<(String, String)> =
        [0, 1, 2, 6, 7].iter().map(|kind| (family(*kind), kinds[*kind].to_owned())).collect();
    assert_eq!(told, wanted);
}

/// Scenario: every cut of a message, and bytes that are something else.
/// Guarantees: an error with its place, or what there was until then; no panic.
#[test]
fn cut_messages_are_refused_with_their_place() {
    let request =
        sent::WriteRequest { timeseries: vec![native_series(native())], metadata: Vec::new() }.encode_to_vec();
    for cut in 1..request.len() {
        let error = decode(&request[..cut], RemoteWrite::V1, &context()).unwrap_err();
        assert!(error.to_string().contains("not a remote write message"), "{error}");
        assert!(error.position.is_some());
    }
    assert!(decode(b"", RemoteWrite::V2, &context()).unwrap().rows.is_empty());
    let symbols: Vec<u8> = [0x22, 0].repeat(SYMBOLS_MAX + 1);
    assert!(symbols.len() < Limits::DOCUMENTED.request_bytes);
    let error = decode(&symbols, RemoteWrite::V2, &context()).unwrap_err();
    assert_eq!(error.reason, Reason::TooManySamples);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, second: bool) {
        let version = if second { RemoteWrite::V2 } else { RemoteWrite::V1 };
        let _ = decode(&bytes, version, &context());
    }
}
