//! Prometheus remote write from outside: what the specification (prometheus.io/docs/specs/prw/remote_write_spec and
//! remote_write_spec_2_0) asks of a receiver, case by case.

use super::*;

#[path = "compliance.rs"]
mod compliance;

#[path = "../../../../../tests/remote_write_messages.rs"]
mod messages;

use messages::{Exemplar2, Histogram, Label, Request2, Sample, TimeSeries, TimeSeries2, WriteRequest};

const V1: [(&str, &str); 3] =
    [("content-type", PROTOBUF), ("content-encoding", "snappy"), ("x-prometheus-remote-write-version", "0.1.0")];
const V2: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

fn snappy(message: &impl Message) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).unwrap()
}

fn series(labels: &[(&str, &str)], values: &[f64]) -> TimeSeries {
    let labels = labels.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() }).collect();
    let samples =
        values.iter().zip(0..).map(|(value, at)| Sample { value: *value, timestamp: NOW / 1_000 + at, start: 0 });
    TimeSeries { labels, samples: samples.collect(), ..Default::default() }
}

fn request(timeseries: Vec<TimeSeries>) -> WriteRequest {
    WriteRequest { timeseries, metadata: Vec::new() }
}

fn up(values: &[f64]) -> TimeSeries {
    series(&[("__name__", "up"), ("instance", "gpu-1:9400"), ("job", "dcgm")], values)
}

/// samples, histograms, exemplars
fn written(response: &Response) -> [String; 3] {
    ["samples", "histograms", "exemplars"].map(|what| {
        let header = format!("x-prometheus-remote-write-{what}-written");
        response.headers()[&header].to_str().unwrap().to_owned()
    })
}

/// Scenario: 1.0 as Prometheus sends it, then the same bytes again, then in zstd.
/// Guarantees: 204 with the counts; the rows are on the bus, a repetition under the same identity.
#[tokio::test]
async fn version_1_is_stored_and_a_retry_has_the_same_identity() {
    let site = site(|_| {}).await;
    let message = request(vec![up(&[1.0, 0.0]), series(&[("__name__", "x"), ("instance", "n")], &[f64::INFINITY])]);
    let body = snappy(&message);
    for _ in 0..2 {
        let response = site.post("/api/v1/write", &V1, body.clone()).await;
        assert_eq!(response.status(), 204);
        assert_eq!(written(&response), ["3", "0", "0"]);
        assert!(response.bytes().await.unwrap().is_empty());
    }
    let zstd = zstd::encode_all(&message.encode_to_vec()[..], 1).unwrap();
    let headers =
        [("content-type", "application/x-protobuf;proto=prometheus.WriteRequest"), ("content-encoding", "zstd")];
    assert_eq!(site.post("/api/v1/write", &headers, zstd).await.status(), 204);
    let identities: Vec<String> = site
        .bus
        .rows()
        .iter()
        .flat_map(|(_, _, rows)| {
            let batch = rows.column_by_name("batch").unwrap().as_string::<i32>().clone();
            let seq = rows.column_by_name("seq").unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            (0..rows.num_rows()).map(move |row| format!("{} {}", batch.value(row), seq.value(row)))
        })
        .collect();
    assert_eq!(identities.len(), 9);
    assert_eq!(std::collections::BTreeSet::from_iter(identities).len(), 3, "one identity a row");
    assert_eq!(site.sums(Door::RemoteWrite), [9, 9, 0, 0]);
    site.stop().await;
}

/// Scenario: 2.0 with a native histogram and exemplars.
/// Guarantees: 204; each kind is counted in its header; exemplars are not written, and the answer says so.
#[tokio::test]
async fn version_2_says_what_was_written() {
    let site = site(|_| {}).await;
    let sample = Sample { value: 1.0, timestamp: NOW / 1_000, start: 0 };
    let histogram = Histogram { count: 3, zero_count: 3, timestamp: NOW / 1_000, ..Default::default() };
    let message = Request2 {
        symbols: ["", "__name__", "up", "instance", "n:1"].map(str::to_owned).to_vec(),
        timeseries: vec![TimeSeries2 {
            labels: vec![1, 2, 3, 4],
            samples: vec![sample],
            histograms: vec![histogram],
            exemplars: vec![Exemplar2::default()],
            ..Default::default()
        }],
    };
    let response = site.post("/api/v1/write", &V2, snappy(&message)).await;
    assert_eq!((response.status().as_u16(), written(&response)), (204, ["1", "1", "0"].map(str::to_owned)));
    assert_eq!(site.sums(Door::RemoteWrite), [2, 2, 0, 0]);
    assert_eq!(site.metrics.dropped_exemplars.with_label_values(&["remote_write"]).get(), 1);
    site.stop().await;
}

/// Scenario: a request of which one series has no name and one has a label twice.
/// Guarantees: the rest is written; 400, which no sender repeats, says why and how many were written.
#[tokio::test]
async fn a_partial_write_is_a_400_with_counts() {
    let site = site(|_| {}).await;
    let twice = series(&[("__name__", "x"), ("a", "1"), ("a", "1")], &[1.0]);
    let message = request(vec![up(&[1.0]), series(&[("job", "j")], &[1.0, 2.0]), twice]);
    let response = site.post("/api/v1/write", &V1, snappy(&message)).await;
    assert_eq!((response.status().as_u16(), written(&response)), (400, ["1", "0", "0"].map(str::to_owned)));
    let text = response.text().await.unwrap();
    assert!(text.contains("malformed: 3") && text.contains("a series without a name"), "{text}");
    assert_eq!(site.sums(Door::RemoteWrite), [4, 1, 3, 0]);
    site.stop().await;
}

/// Scenario: bodies and headers that are no remote write.
/// Guarantees: 400, 413 or 415 with the cause in one line and nothing written; the answer names the encodings that are taken.
#[tokio::test]
async fn what_is_no_remote_write_is_refused_with_its_cause() {
    let site = site(|settings| settings.request.bytes = bytes(4_096)).await;
    let good = snappy(&request(vec![up(&[1.0])]));
    let large = snappy(&request(vec![up(&vec![1.0; 1_000])]));
    let plain = request(vec![up(&[1.0])]).encode_to_vec();
    let with = |content_type: &'static str, encoding: &'static str| {
        [("content-type", content_type), ("content-encoding", encoding)]
    };
    for (headers, body, status, cause) in [
        (with(PROTOBUF, "snappy"), b"not snappy".to_vec(), 400, "damaged"),
        (with(PROTOBUF, "snappy"), good[..good.len() - 3].to_vec(), 400, "damaged"),
        (with(PROTOBUF, "snappy"), plain, 400, "damaged"),
        (with(PROTOBUF, "identity"), b"\xff\xff\xff".to_vec(), 400, "not a remote write message"),
        (with(PROTOBUF, "snappy"), large, 413, "over 4096 bytes"),
        (with("application/json", "snappy"), good.clone(), 415, "application/x-protobuf"),
        (with("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy"), good.clone(), 415, "proto"),
        (with(PROTOBUF, "br"), good, 415, "encoding"),
    ] {
        let response = site.post("/api/v1/write", &headers, body).await;
        assert_eq!((response.status().as_u16(), written(&response)), (status, ["0", "0", "0"].map(str::to_owned)));
        assert_eq!(response.headers().contains_key("accept-encoding"), status == 415);
        let text = response.text().await.unwrap();
        assert!(text.contains(cause) && text.trim_end().lines().count() == 1, "{text}");
    }
    assert_eq!(site.sums(Door::RemoteWrite)[1], 0);
    site.stop().await;
}

/// Scenario: the bus is away, then a sender is over its share.
/// Guarantees: both are 503 with `Retry-After`, the only status a sender repeats by default; nothing is lost to a 429.
#[tokio::test]
async fn what_a_retry_can_mend_is_a_503() {
    let away = site(|_| {}).await;
    away.bus.set(Mood::Unavailable);
    let body = snappy(&request(vec![up(&[1.0])]));
    let response = away.post("/api/v1/write", &V1, body.clone()).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    away.stop().await;

    let busy = site(|settings| {
        settings.share.bytes_per_second = bytes(100);
        settings.share.burst = bytes(100);
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let response = busy.post("/api/v1/write", &V1, snappy(&request(vec![up(&[1.0; 100])]))).await;
        statuses.push(response.status().as_u16());
    }
    assert!(statuses.contains(&503) && statuses.iter().all(|status| [204, 503].contains(status)), "{statuses:?}");
    busy.stop().await;
}
