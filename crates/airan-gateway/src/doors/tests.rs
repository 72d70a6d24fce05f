//! The doors from outside: real sockets, a bus in memory.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use airan_bus::Bus;
use airan_model::inventory::Inventory;
use airan_model::time::{Clock, MINUTE, SECOND, format_rfc3339, parse_rfc3339};
use arrow::array::{Array, AsArray};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::Response;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;

use super::answer::RpcStatus;
use crate::settings::tests::{bytes, millis, settings};
use crate::testing::{MemoryBus, Mood, NOW, catalog, inventory, until};
use crate::{Addresses, BindError, Door, Doors, Gateway, GatewayMetrics, Intake, Settings, StopError};

#[path = "remote_write_tests.rs"]
mod remote_write;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A running gateway.
struct Site {
    bus: Arc<MemoryBus>,
    metrics: Arc<GatewayMetrics>,
    intake: Intake,
    addresses: Addresses,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), StopError>>,
}

async fn site(adjust: impl FnOnce(&mut Settings)) -> Site {
    let bus = MemoryBus::new(2);
    let gateway = bind(&bus, adjust).await.unwrap();
    let stop = CancellationToken::new();
    let (metrics, intake, addresses) = (gateway.metrics(), gateway.intake(), gateway.addresses());
    let running = tokio::spawn(gateway.run(stop.clone()));
    let client = reqwest::Client::builder().no_gzip().build().unwrap();
    Site { bus, metrics, intake, addresses, client, stop, running }
}

async fn bind(bus: &Arc<MemoryBus>, adjust: impl FnOnce(&mut Settings)) -> Result<Gateway, BindError> {
    let mut settings = settings();
    adjust(&mut settings);
    let as_bus: Arc<dyn Bus> = Arc::clone(bus) as Arc<dyn Bus>;
    // The receiver keeps the last inventory when the sender is gone.
    let (_, inventory) = watch::channel(inventory());
    Gateway::bind(settings, as_bus, catalog(), inventory, Clock::fixed(NOW)).await
}

impl Site {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.client.post(format!("http://{}{path}", self.addresses.http)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn ndjson(&self, body: impl Into<reqwest::Body>) -> Response {
        self.post("/v1/ndjson", &[("content-type", NDJSON)], body).await
    }

    /// received, acknowledged, refused, unknown
    fn sums(&self, door: Door) -> [u64; 4] {
        let rows = self.metrics.rows(door);
        let sums = [rows.received.get(), rows.acknowledged.get(), rows.refused.get(), rows.unknown.get()];
        assert_eq!(sums[0], sums[1] + sums[2] + sums[3], "received = acknowledged + refused + unknown");
        assert_eq!(
            (self.metrics.in_flight_requests.get(), self.metrics.in_flight_bytes.get()),
            (0, 0),
            "all given back"
        );
        sums
    }

    fn rejected(&self, door: &str, reason: &str) -> u64 {
        self.metrics.rejected.with_label_values(&[door, reason]).get()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn point(device: usize, value: f64, micros: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![attribute("hw.id", &format!("GPU-{device}"))],
        time_unix_nano: micros as u64 * 1_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn otlp(node: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Resource { attributes: vec![attribute("host.name", node)], ..Default::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
            ..Default::default()
        }],
    }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric { name: name.to_owned(), data: Some(metric::Data::Gauge(Gauge { data_points })), ..Default::default() }
}

/// Utilisation of `devices` devices of one node.
fn utilization(node: &str, devices: usize) -> ExportMetricsServiceRequest {
    otlp(node, vec![gauge("hw.gpu.utilization", (0..devices).map(|device| point(device, 0.25, NOW)).collect())])
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn line(node: &str, device: &str) -> String {
    let ts = format_rfc3339(NOW);
    format!(
        "{{\"stream\":\"accelerator\",\"ts\":\"{ts}\",\"node\":\"{node}\",\"device\":\"{device}\",\"utilization\":0.5}}\n"
    )
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Scenario: the same points as protobuf, plain, gzip and zstd, and as JSON.
/// Guarantees: each is acknowledged in its own encoding and lands in its stream with site, source and value.
#[tokio::test]
async fn otlp_over_http_in_each_encoding() {
    let site = site(|_| {}).await;
    let request = utilization("a1", 3);
    let plain = request.encode_to_vec();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    for (encoding, body) in [("identity", plain.clone()), ("gzip", gzip(&plain)), ("zstd", zstd)] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let response = site.post("/v1/metrics", &headers, body).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type")),
            (200, Some(PROTOBUF)),
            "{encoding}"
        );
        let answer = ExportMetricsServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
        assert_eq!(answer.partial_success, None);
    }
    let body = serde_json::to_vec(&request).unwrap();
    let response = site.post("/v1/metrics", &[("content-type", "application/json; charset=utf-8")], body).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, Some(JSON)));
    assert_eq!(response.text().await.unwrap(), "{}");

    let messages = site.bus.rows();
    assert_eq!(site.bus.row_count(), 12);
    let text = |column: &str| {
        let of = |rows: &arrow::record_batch::RecordBatch| {
            rows.column_by_name(column)
                .unwrap()
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        messages.iter().flat_map(|(_, _, rows)| of(rows)).collect::<Vec<_>>()
    };
    assert!(messages.iter().all(|(_, stream, _)| stream == "accelerator"));
    assert_eq!(text("site"), ["site-a"; 12]);
    let batches: std::collections::BTreeSet<String> = text("batch").into_iter().collect();
    assert_eq!(batches.len(), 2, "the same body is the same batch, however it was compressed; JSON is another body");
    assert!(text("source").contains(&"otlp_http/json".to_owned()));
    assert_eq!(site.sums(Door::OtlpHttp), [12, 12, 0, 0]);
    site.stop().await;
}

/// Scenario: the client of the OpenTelemetry project itself, plain and with both compressions; one metric without its temporality.
/// Guarantees: acknowledged, with partial success where points were refused.
#[tokio::test]
async fn otlp_over_grpc() {
    let site = site(|_| {}).await;
    let address = format!("http://{}", site.addresses.grpc);
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = MetricsServiceClient::connect(address.clone()).await.unwrap();
        if let Some(compression) = compression {
            client = client.send_compressed(compression).accept_compressed(compression);
        }
        let answer = client.export(utilization("b1", 500)).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
    }
    assert_eq!(site.bus.row_count(), 1_500);

    let data_points = vec![point(0, 1.0, NOW), point(1, 1.0, NOW)];
    let untold = Sum { data_points, is_monotonic: true, ..Default::default() };
    let metrics = vec![
        gauge("hw.gpu.utilization", vec![point(0, 0.5, NOW)]),
        Metric { name: "old".into(), data: Some(metric::Data::Sum(untold)), ..Default::default() },
    ];
    let mut client = MetricsServiceClient::connect(address).await.unwrap();
    let partial = client.export(otlp("b1", metrics)).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 2);
    assert!(partial.error_message.contains("malformed: 2"), "{}", partial.error_message);
    assert_eq!(site.sums(Door::OtlpGrpc), [1_503, 1_501, 2, 0]);
    until("the record", || site.bus.rejected.lock().unwrap().iter().any(|rejected| rejected.rows == 2)).await;
    site.stop().await;
}

/// Scenario: what may go wrong in a call, seen by the OpenTelemetry client.
/// Guarantees: the code says whether a retry helps, and the bytes that inflate over the limit are not one that does.
#[tokio::test]
async fn grpc_errors_have_their_codes() {
    let site = site(|settings| settings.request.bytes = bytes(4_096)).await;
    let address = format!("http://{}", site.addresses.grpc);
    let mut client = MetricsServiceClient::connect(address).await.unwrap().send_compressed(CompressionEncoding::Gzip);
    let status = client.export(utilization("b1", 500)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.details().is_empty(), "no RetryInfo: the same request would fail again");
    for mood in [Mood::Unavailable, Mood::Full, Mood::Unknown] {
        site.bus.set(mood);
        let status = client.export(utilization("b1", 1)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable, "{mood:?}");
        let details = RpcStatus::decode(status.details()).unwrap();
        assert!(details.details[0].type_url.ends_with("google.rpc.RetryInfo"));
    }
    assert_eq!(site.sums(Door::OtlpGrpc), [3, 0, 2, 1]);

    // No such method, and a plain HTTP request: told apart from a broken call.
    let h2 = async |method: &str, path: &str, body: &'static str| {
        let stream = tokio::net::TcpStream::connect(site.addresses.grpc).await.unwrap();
        let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
        let (mut send, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(format!("http://{}{path}", site.addresses.grpc));
        let request = request.header("content-type", "application/grpc");
        let response = send.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let code = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
        (response.status().as_u16(), code.unwrap_or_default())
    };
    let traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(h2("POST", traces, "").await, (200, "12".to_owned()));
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(h2("POST", metrics, "\0\0\0\0\u{5}hello").await, (200, "3".to_owned()));
    assert_eq!(h2("GET", "/", "").await.0, 404);
    site.stop().await;
}

/// Scenario: good lines, bad lines, a stream that does not exist, NaN and infinities, all in one NDJSON body.
/// Guarantees: good lines are kept, bad ones are told and counted by reason, nothing stops.
#[tokio::test]
async fn ndjson_keeps_the_good_lines() {
    let site = site(|_| {}).await;
    let unknown = line("a1", "x").replace("accelerator", "no_such_stream");
    let body = format!("{}not json\n{unknown}{}", line("a1", "gpu-0"), line("b1", "gpu-1"));
    let response = site.ndjson(body).await;
    assert_eq!(response.status().as_u16(), 200);
    let answer = json(response).await;
    assert_eq!(answer["rows"], 2, "{answer}");
    let reasons: Vec<&str> =
        answer["refused"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"malformed") && reasons.contains(&"unknown_stream"), "{answer}");
    assert_eq!(site.sums(Door::Ndjson), [4, 2, 2, 0]);
    assert_eq!((site.rejected("ndjson", "malformed"), site.rejected("ndjson", "unknown_stream")), (1, 1));

    let response = site.ndjson("not json\n").await;
    assert_eq!(response.status().as_u16(), 400);
    let answer = json(response).await;
    assert!(answer["error"].is_string() && answer["reason"] == "malformed", "{answer}");
    until("records", || site.bus.rejected.lock().unwrap().len() >= 3).await;
    let rejected = site.bus.rejected.lock().unwrap().clone();
    assert!(rejected.iter().all(|one| one.door == "ndjson" && one.sha256.len() == 64 && one.length > 0));
    site.stop().await;
}

/// Scenario: a request for each thing that is the sender's fault.
/// Guarantees: its status and a line that says why; nothing reaches the bus; malformed ones are counted and recorded.
#[tokio::test]
async fn the_senders_faults_have_their_status() {
    let site = site(|settings| settings.request.bytes = bytes(64 << 10)).await;
    let good = utilization("a1", 1).encode_to_vec();
    let cut = {
        let whole = gzip(&good);
        whole[..whole.len() - 6].to_vec()
    };
    let big = vec![b' '; 80 << 10];
    let bomb = zstd::encode_all(&vec![0u8; 32 << 20][..], 19).unwrap();
    let cases: Vec<(&str, &str, Vec<(&str, &str)>, Vec<u8>, u16, &str)> = vec![
        ("no content type", "/v1/metrics", vec![], good.clone(), 415, ""),
        ("text", "/v1/metrics", vec![("content-type", "text/plain")], good.clone(), 415, ""),
        (
            "brotli",
            "/v1/ndjson",
            vec![("content-type", NDJSON), ("content-encoding", "br")],
            good.clone(),
            415,
            "unsupported_format",
        ),
        (
            "ndjson as form",
            "/v1/ndjson",
            vec![("content-type", "application/x-www-form-urlencoded")],
            vec![],
            415,
            "unsupported_format",
        ),
        ("not protobuf", "/v1/metrics", vec![("content-type", PROTOBUF)], b"\xff\xff\xff".to_vec(), 400, ""),
        ("not json", "/v1/metrics", vec![("content-type", JSON)], b"{".to_vec(), 400, ""),
        (
            "cut gzip",
            "/v1/metrics",
            vec![("content-type", PROTOBUF), ("content-encoding", "gzip")],
            cut.clone(),
            400,
            "",
        ),
        (
            "cut gzip lines",
            "/v1/ndjson",
            vec![("content-type", NDJSON), ("content-encoding", "gzip")],
            cut,
            400,
            "bad_compression",
        ),
        (
            "not zstd",
            "/v1/ndjson",
            vec![("content-type", NDJSON), ("content-encoding", "zstd")],
            b"hello".to_vec(),
            400,
            "bad_compression",
        ),
        ("too big", "/v1/ndjson", vec![("content-type", NDJSON)], big.clone(), 413, "too_large"),
        ("too big otlp", "/v1/metrics", vec![("content-type", PROTOBUF)], big, 413, ""),
        (
            "zstd bomb",
            "/v1/ndjson",
            vec![("content-type", NDJSON), ("content-encoding", "zstd")],
            bomb,
            413,
            "too_large",
        ),
        (
            "no stream",
            "/v1/arrow",
            vec![("content-type", "application/vnd.apache.arrow.stream")],
            vec![],
            400,
            "unknown_stream",
        ),
        (
            "not arrow",
            "/v1/arrow",
            vec![("content-type", "application/vnd.apache.arrow.stream"), ("airan-stream", "accelerator")],
            b"hello".to_vec(),
            400,
            "malformed",
        ),
        ("no path", "/v1/traces", vec![], vec![], 404, "not_found"),
    ];
    for (what, path, headers, body, status, reason) in cases {
        let response = site.post(path, &headers, body).await;
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert!(header(&response, "retry-after").is_none(), "{what}: a retry would not help");
        if !reason.is_empty() {
            assert_eq!(json(response).await["reason"], reason, "{what}");
        }
    }
    let get = site.client.get(format!("http://{}/v1/ndjson", site.addresses.http)).send().await.unwrap();
    assert_eq!((get.status().as_u16(), header(&get, "allow")), (405, Some("POST")));
    assert_eq!(site.bus.row_count(), 0);
    assert_eq!(site.sums(Door::OtlpHttp), [0; 4]);
    assert_eq!(site.rejected("ndjson", "bad_compression"), 2);
    assert_eq!(site.rejected("ndjson", "too_large"), 2);
    until("records", || site.bus.rejected.lock().unwrap().len() >= 12).await;

    // OTLP errors are google.rpc.Status in the request's encoding.
    let response = site.post("/v1/metrics", &[("content-type", PROTOBUF)], b"\xff\xff\xff".to_vec()).await;
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
    assert!(!status.message.is_empty());
    let response = site.post("/v1/metrics", &[("content-type", JSON)], "{").await;
    assert_eq!(json(response).await["code"], 3);
    site.stop().await;
}

/// Scenario: the bus is away, full, or does not say what became of the rows.
/// Guarantees: 503 with Retry-After, and no row counted as acknowledged; afterwards all is well again.
#[tokio::test]
async fn without_the_bus_nothing_is_acknowledged() {
    let site = site(|_| {}).await;
    for (mood, reason) in
        [(Mood::Unavailable, "unavailable"), (Mood::Full, "unavailable"), (Mood::Unknown, "unknown_outcome")]
    {
        site.bus.set(mood);
        let response = site.ndjson(line("a1", "gpu-0")).await;
        assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, Some("2")), "{mood:?}");
        assert_eq!(json(response).await["reason"], reason, "{mood:?}");
    }
    assert_eq!((site.bus.row_count(), site.sums(Door::Ndjson)), (0, [3, 0, 2, 1]));
    site.bus.set(Mood::Takes);
    assert_eq!(site.ndjson(line("a1", "gpu-0")).await.status().as_u16(), 200);
    assert_eq!(site.sums(Door::Ndjson), [4, 1, 2, 1]);
    site.stop().await;
}

/// Scenario: the bus holds on to rows longer than a request may take.
/// Guarantees: the sender is told that the outcome is unknown; the rows are counted when they meet their end.
#[tokio::test]
async fn a_request_has_a_deadline() {
    let site = site(|settings| settings.request.timeout = millis(200)).await;
    site.bus.set(Mood::Holds);
    let response = site.ndjson(line("a1", "gpu-0")).await;
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(json(response).await["reason"], "unknown_outcome");
    site.bus.release();
    until("the row", || site.bus.row_count() == 1).await;
    until("its count", || site.metrics.rows(Door::Ndjson).acknowledged.get() == 1).await;

    // A body that never ends: the other half of the deadline.
    let (_half, body) = half_a_body();
    let response = site.ndjson(body).await;
    assert_eq!(response.status().as_u16(), 503, "408 is not tried again by senders of OTLP");
    site.stop().await;
}

/// A body whose first piece arrives and whose second does not.
fn half_a_body() -> (tokio::sync::mpsc::Sender<Vec<u8>>, reqwest::Body) {
    let (send, receive) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    send.try_send(b"{\"stream\":".to_vec()).unwrap();
    let stream = futures::stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), receive))
    });
    (send, reqwest::Body::wrap_stream(stream))
}

/// Scenario: as many requests under way as may be, then one more; as many bytes as may be, then more.
/// Guarantees: 503 with Retry-After at once; the others are not harmed.
#[tokio::test]
async fn what_is_under_way_is_bounded() {
    let site = Arc::new(site(|settings| settings.load.requests = 2).await);
    site.bus.set(Mood::Holds);
    let post = |device: &'static str| {
        let site = Arc::clone(&site);
        tokio::spawn(async move { site.ndjson(line("a1", device)).await.status().as_u16() })
    };
    let held = [post("gpu-0"), post("gpu-1")];
    until("two requests", || site.metrics.in_flight_requests.get() == 2).await;
    let response = site.ndjson(line("a1", "gpu-2")).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, Some("2")));
    assert_eq!(json(response).await["reason"], "busy");
    until("a held send", || site.bus.sends.load(Ordering::SeqCst) > 0).await;
    site.bus.set(Mood::Takes);
    site.bus.release();
    for held in held {
        assert_eq!(held.await.unwrap(), 200);
    }
    assert_eq!(site.sums(Door::Ndjson), [2, 2, 0, 0]);
    Arc::into_inner(site).unwrap().stop().await;
}

/// Scenario: one sender sends more than its share, another does not.
/// Guarantees: 429 with the time to wait, for the first alone.
#[tokio::test]
async fn a_sender_over_its_share_is_told_to_wait() {
    let site = site(|settings| {
        settings.share.bytes_per_second = bytes(100);
        settings.share.burst = bytes(100);
    })
    .await;
    let send = async |sender: &str| {
        site.post("/v1/ndjson", &[("content-type", NDJSON), ("airan-sender", sender)], line("a1", "gpu-0").repeat(4))
            .await
    };
    assert_eq!(send("greedy").await.status().as_u16(), 200);
    let response = send("greedy").await;
    assert_eq!(response.status().as_u16(), 429);
    let wait: u64 = header(&response, "retry-after").unwrap().parse().unwrap();
    assert!((3..=5).contains(&wait), "{wait}");
    assert_eq!(json(response).await["reason"], "over_share");
    assert_eq!(send("modest").await.status().as_u16(), 200);
    site.stop().await;
}

/// Scenario: one body twice; bodies without times, with and without `Idempotency-Key`.
/// Guarantees: a retry has the same identity; without a time of its own only a key makes it so.
#[tokio::test]
async fn a_retry_has_the_same_identity() {
    let site = site(|_| {}).await;
    let timed = line("a1", "gpu-0") + &line("a1", "gpu-1");
    let untimed = "{\"stream\":\"accelerator\",\"node\":\"a1\",\"device\":\"gpu-0\",\"utilization\":0.5}\n";
    let send = async |body: &str, key: Option<&str>| -> Vec<(String, i64)> {
        let mut headers = vec![("content-type", NDJSON)];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        assert_eq!(site.post("/v1/ndjson", &headers, body.to_owned()).await.status().as_u16(), 200);
        let taken = site.bus.rows();
        site.bus.taken.lock().unwrap().clear();
        let of = |rows: &arrow::record_batch::RecordBatch| {
            let batches = rows.column_by_name("batch").unwrap().as_string::<i32>().clone();
            let seqs = rows.column_by_name("seq").unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            (0..rows.num_rows()).map(|row| (batches.value(row).to_owned(), seqs.value(row))).collect::<Vec<_>>()
        };
        taken.iter().flat_map(|(_, _, rows)| of(rows)).collect()
    };
    let first = send(&timed, None).await;
    assert_eq!(first.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(send(&timed, None).await, first);
    assert_ne!(send(&(timed.clone() + "\n"), None).await, first, "another body");
    assert_ne!(send(untimed, None).await, send(untimed, None).await);
    let keyed = send(untimed, Some("k1")).await;
    assert_eq!(send(untimed, Some("k1")).await, keyed);
    assert_ne!(send(untimed, Some("k2")).await, keyed);
    site.stop().await;
}

/// Scenario: rows of 1970 and 2100 among good ones, and rows of a node nobody knows.
/// Guarantees: all are kept; what is wrong with them is counted by node, and listed.
#[tokio::test]
async fn odd_rows_are_kept_and_counted() {
    let site = site(|_| {}).await;
    let now = format_rfc3339(NOW);
    let mut body = line("a1", "gpu-0") + &line("stranger", "gpu-0");
    body += &line("a1", "gpu-1").replace(&now, "1970-01-01T00:00:00Z");
    body += &line("a1", "gpu-2").replace(&now, "2100-01-01T00:00:00Z");
    assert_eq!(json(site.ndjson(body).await).await["rows"], 4);
    assert_eq!(site.metrics.implausible.with_label_values(&["a1"]).get(), 2);
    assert_eq!(site.metrics.unassigned_rows.get(), 1);
    let missing = site.intake.missing();
    assert_eq!(
        (missing.len(), missing[0].node.as_str(), missing[0].rows, missing[0].last_seen),
        (1, "stranger", 1, NOW)
    );
    let far = parse_rfc3339("2100-01-01T00:00:00Z").unwrap();
    for (_, _, rows) in site.bus.rows() {
        let ts =
            rows.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
        assert!(ts.values().iter().all(|ts| *ts != 0 && *ts != far));
    }
    site.stop().await;
}

/// Scenario: a point with 10,000 attributes, one with NaN, one infinite, beside a good one.
/// Guarantees: the good one is kept, the first is refused by reason, and the answer names it.
#[tokio::test]
async fn points_over_a_limit_are_refused_one_by_one() {
    let site = site(|_| {}).await;
    let mut wide = point(1, 0.5, NOW);
    wide.attributes.extend((0..10_000).map(|n| attribute(&format!("label_{n}"), "x")));
    let points = vec![point(0, 0.5, NOW), wide, point(2, f64::NAN, NOW), point(3, f64::INFINITY, NOW)];
    let body = otlp("a1", vec![gauge("hw.gpu.utilization", points)]).encode_to_vec();
    let response = site.post("/v1/metrics", &[("content-type", PROTOBUF)], body).await;
    assert_eq!(response.status().as_u16(), 200);
    let partial =
        ExportMetricsServiceResponse::decode(response.bytes().await.unwrap()).unwrap().partial_success.unwrap();
    assert!(partial.error_message.contains("too_many_labels: 1"), "{}", partial.error_message);
    let [received, acknowledged, refused, _] = site.sums(Door::OtlpHttp);
    assert!(acknowledged >= 1 && refused == partial.rejected_data_points as u64 && received == acknowledged + refused);
    assert_eq!(site.rejected("otlp_http", "too_many_labels"), 1);
    site.stop().await;
}

/// Scenario: rows as the agent sends them: an Arrow IPC stream with batch, seq and source.
/// Guarantees: kept as they are, with site and time of reception added.
#[tokio::test]
async fn the_agents_uplink_keeps_identity() {
    let site = site(|_| {}).await;
    let batch = airan_model::identity::BatchId(99).to_hex();
    let ts = arrow::array::TimestampMicrosecondArray::from(vec![NOW; 2]).with_timezone("UTC");
    let rows = arrow::record_batch::RecordBatch::try_from_iter(vec![
        ("ts", Arc::new(ts) as arrow::array::ArrayRef),
        ("node", Arc::new(arrow::array::StringArray::from(vec!["b1", "b1"]))),
        ("device", Arc::new(arrow::array::StringArray::from(vec!["g0", "g1"]))),
        ("utilization", Arc::new(arrow::array::Float64Array::from(vec![0.1, 0.2]))),
        ("source", Arc::new(arrow::array::StringArray::from(vec!["scrape/prometheus"; 2]))),
        ("batch", Arc::new(arrow::array::StringArray::from(vec![batch.as_str(); 2]))),
        ("seq", Arc::new(arrow::array::Int64Array::from(vec![70, 71]))),
    ])
    .unwrap();
    let body = airan_model::ipc::encode(&rows).unwrap();
    let headers = [
        ("content-type", "application/vnd.apache.arrow.stream"),
        ("airan-stream", "accelerator"),
        ("airan-sender", "b1"),
    ];
    let response = site.post("/v1/arrow", &headers, body.clone()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(json(response).await["rows"], 2);
    let (_, stream, rows) = site.bus.rows().remove(0);
    assert_eq!(stream, "accelerator");
    assert_eq!(rows.column_by_name("batch").unwrap().as_string::<i32>().value(0), batch);
    assert_eq!(rows.column_by_name("site").unwrap().as_string::<i32>().value(1), "site-b");
    assert_eq!(rows.column_by_name("source").unwrap().as_string::<i32>().value(1), "scrape/prometheus");
    assert_eq!(rows.column_by_name("received_at").unwrap().null_count(), 0);

    let unknown = [headers[0], ("airan-stream", "no_such"), headers[2]];
    let response = site.post("/v1/arrow", &unknown, body).await;
    assert_eq!((response.status().as_u16(), json(response).await["reason"].clone()), (400, "unknown_stream".into()));
    assert_eq!(site.sums(Door::Arrow), [2, 2, 0, 0]);
    site.stop().await;
}

/// Scenario: rows of the same process, as `airan up`'s agent hands them over.
/// Guarantees: the same path and the same sums as through a door.
#[tokio::test]
async fn rows_of_this_process_take_the_same_path() {
    let site = site(|_| {}).await;
    let rows = crate::testing::accelerator(&catalog(), &["a1", "b1"]);
    let ack = site.intake.submit(vec![rows.clone()], "a1", Door::Agent).await.unwrap();
    assert_eq!(ack.rows, 2);
    site.bus.set(Mood::Unavailable);
    assert_eq!(site.intake.submit(vec![rows], "a1", Door::Agent).await.unwrap_err().reason(), "unavailable");
    assert_eq!(site.sums(Door::Agent), [4, 2, 2, 0]);
    site.stop().await;
}

/// Scenario: the tick of a gateway on a bus of two partitions, which then fails.
/// Guarantees: every partition is told that time passes; failures are counted and do no harm.
#[tokio::test]
async fn every_partition_ticks() {
    let site = site(|settings| settings.tick = millis(20)).await;
    until("ticks", || {
        let ticks = site.bus.ticks();
        [0, 1].iter().all(|partition| ticks.iter().filter(|tick| *tick == partition).count() >= 3)
    })
    .await;
    site.bus.set(Mood::Unavailable);
    until("failed ticks", || site.metrics.ticks.with_label_values(&["failed"]).get() > 0).await;
    site.bus.set(Mood::Takes);
    let before = site.bus.ticks().len();
    until("ticks again", || site.bus.ticks().len() > before).await;
    site.stop().await;
}

/// Scenario: a request is under way when the gateway is told to stop; another comes after.
/// Guarantees: the first is finished and answered, the second finds no door.
#[tokio::test]
async fn a_stopping_gateway_finishes_what_is_under_way() {
    let site = site(|_| {}).await;
    site.bus.set(Mood::Holds);
    let url = format!("http://{}/v1/ndjson", site.addresses.http);
    let post = |url: String| site.client.post(url).header("content-type", NDJSON).body(line("a1", "gpu-0")).send();
    let under_way = tokio::spawn(post(url.clone()));
    until("the held send", || site.bus.sends.load(Ordering::SeqCst) == 1).await;
    site.stop.cancel();
    until("a closed door", || std::net::TcpStream::connect(site.addresses.http).is_err()).await;
    assert!(!under_way.is_finished());
    site.bus.release();
    assert_eq!(under_way.await.unwrap().unwrap().status().as_u16(), 200);
    assert!(post(url).await.is_err());
    site.running.await.unwrap().unwrap();
}

/// Scenario: a request that the bus never answers, and a short time for draining.
/// Guarantees: the gateway ends all the same.
#[tokio::test]
async fn stopping_has_a_deadline() {
    let site = site(|settings| settings.drain = millis(200)).await;
    site.bus.set(Mood::Holds);
    let request = site.client.post(format!("http://{}/v1/ndjson", site.addresses.http)).header("content-type", NDJSON);
    let under_way = tokio::spawn(request.body(line("a1", "gpu-0")).send());
    until("the held send", || site.bus.sends.load(Ordering::SeqCst) == 1).await;
    let started = Instant::now();
    site.stop.cancel();
    site.running.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(4));
    assert!(under_way.await.unwrap().is_err());
}

/// Scenario: the port of a door is taken.
/// Guarantees: one line names the address and the setting.
#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let bus = MemoryBus::new(1);
    let error = bind(&bus, |settings| settings.grpc = address).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("gateway.grpc"), "{error}");
}

/// Scenario: connections that say nothing, or the first half of an HTTP/2 preface, as many as may be open.
/// Guarantees: they are closed after the header timeout, so that others get in.
#[tokio::test]
async fn silent_connections_do_not_keep_the_door() {
    let site = site(|settings| {
        settings.load.connections = 2;
        settings.request.header_timeout = millis(100);
    })
    .await;
    let mut silent: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(site.addresses.http).unwrap()).collect();
    silent[1].write_all(b"PRI * HTTP/2.0").unwrap();
    assert_eq!(site.ndjson(line("a1", "gpu-0")).await.status().as_u16(), 200);
    site.stop().await;
}

/// Scenario: senders come before there is a bus, over each door and protocol, and stay connected; then the bus comes.
/// Guarantees: none is refused a connection; each is told to come again, in its own terms and counted; then the same addresses
/// and the same connections take rows.
#[tokio::test]
async fn doors_without_a_bus_say_come_again() {
    let doors = Doors::bind(settings()).await.unwrap();
    let (addresses, metrics) = (doors.addresses(), doors.metrics());
    let answers = |door: &str, status: &str| metrics.requests.with_label_values(&[door, status]).get();
    let client = reqwest::Client::builder().no_gzip().build().unwrap();
    let post = async |path: &str, content_type: &str, body: Vec<u8>| {
        let request = client.post(format!("http://{}{path}", addresses.http)).header("content-type", content_type);
        request.body(body).send().await.unwrap()
    };
    let lines = line("a1", "gpu-0").into_bytes();
    let mut early = tokio::net::TcpStream::connect(addresses.http).await.unwrap();
    assert!(ask(&mut early, &line("a1", "gpu-1")).await.starts_with("HTTP/1.1 503 "));
    let response = post("/v1/ndjson", NDJSON, lines.clone()).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, Some("2")));
    assert_eq!(json(response).await["reason"], "unavailable");
    let response = post("/v1/metrics", PROTOBUF, utilization("a1", 1).encode_to_vec()).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, Some("2")));
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.code, tonic::Code::Unavailable as i32);
    assert_eq!(post("/v1/traces", JSON, Vec::new()).await.status().as_u16(), 404);
    let mut grpc = MetricsServiceClient::connect(format!("http://{}", addresses.grpc)).await.unwrap();
    let status = grpc.export(utilization("a1", 1)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let details = RpcStatus::decode(status.details()).unwrap();
    assert!(details.details[0].type_url.ends_with("google.rpc.RetryInfo"));
    assert_eq!((answers("ndjson", "503"), answers("otlp_http", "503"), answers("otlp_grpc", "14")), (2, 1, 1));

    let bus = MemoryBus::new(2);
    let (_, inventory) = watch::channel(inventory());
    let gateway = doors.lead_to(Arc::clone(&bus) as Arc<dyn Bus>, catalog(), inventory, Clock::fixed(NOW));
    assert_eq!(gateway.addresses(), addresses);
    assert_eq!(post("/v1/ndjson", NDJSON, lines.clone()).await.status().as_u16(), 503, "not before it runs");
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(stop.clone()));
    assert!(ask(&mut early, &line("a1", "gpu-1")).await.starts_with("HTTP/1.1 200 "), "on the connection of before");
    assert_eq!(post("/v1/ndjson", NDJSON, lines).await.status().as_u16(), 200);
    grpc.export(utilization("a1", 1)).await.unwrap();
    assert_eq!(bus.row_count(), 3);
    let rows = metrics.rows(Door::Ndjson);
    assert_eq!((rows.received.get(), rows.acknowledged.get()), (2, 2), "rows turned away were never received");
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// One request with these lines on an open connection; the whole answer.
async fn ask(stream: &mut tokio::net::TcpStream, lines: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let length = lines.len();
    let head =
        format!("POST /v1/ndjson HTTP/1.1\r\nhost: a\r\ncontent-type: {NDJSON}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + lines).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection was closed");
    }
    String::from_utf8(answer).unwrap()
}

/// Scenario: the process gives up before there is a bus.
/// Guarantees: the ports are free again.
#[tokio::test]
async fn doors_that_lead_nowhere_close() {
    let doors = Doors::bind(settings()).await.unwrap();
    let address = doors.addresses().http;
    assert!(std::net::TcpStream::connect(address).is_ok());
    drop(doors);
    until("a closed door", || std::net::TcpStream::connect(address).is_err()).await;
}

/// Scenario: a row of two hours ago, where the settings believe one hour.
/// Guarantees: the settings are what admission goes by.
#[tokio::test]
async fn how_far_a_time_is_believed_is_a_setting() {
    for (hours, replaced) in [(1, 1), (3, 0)] {
        let site = site(|settings| settings.implausible.behind = millis(hours * 3_600_000)).await;
        let old = line("a1", "gpu-0").replace(&format_rfc3339(NOW), &format_rfc3339(NOW - 120 * MINUTE));
        assert_eq!(site.ndjson(old).await.status().as_u16(), 200);
        assert_eq!(site.metrics.implausible.with_label_values(&["a1"]).get(), replaced, "{hours} h");
        site.stop().await;
    }
}

/// Scenario: a node moves while a request of its rows is repeated; one repetition comes soon, one long after.
/// Guarantees: the soon one goes where the rows went first, so that they are known there; later, and for rows of after the move,
/// the new site holds. A node that was missing is no longer listed.
#[tokio::test]
async fn a_moved_nodes_repetitions_go_where_the_rows_went_first() {
    let inventory_of = |site: &str| {
        let text = format!("regions: [{{name: north, jurisdiction: eu, sites: [{{name: {site}, nodes: [a1]}}]}}]");
        Arc::new(Inventory::parse("test", &text).unwrap())
    };
    let bus = MemoryBus::new(64);
    let (publish, inventory) = watch::channel(inventory_of("site-a"));
    let (clock, hand) = Clock::manual();
    hand.set(NOW + MINUTE);
    let as_bus: Arc<dyn Bus> = Arc::clone(&bus) as Arc<dyn Bus>;
    let gateway = Gateway::bind(settings(), as_bus, catalog(), inventory, clock).await.unwrap();
    let (intake, metrics) = (gateway.intake(), gateway.metrics());
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(stop.clone()));
    let sites = async |rows: &[(&str, i64)]| {
        bus.taken.lock().unwrap().clear();
        let rows = crate::testing::accelerator_at(&catalog(), rows);
        intake.submit(vec![rows], "a1", Door::Agent).await.unwrap();
        let mut sites: Vec<String> = Vec::new();
        for (_, _, rows) in bus.rows() {
            sites.extend(rows.column_by_name("site").unwrap().as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        sites.sort();
        sites
    };
    assert_eq!(sites(&[("a1", NOW)]).await, ["site-a"]);
    assert_eq!(sites(&[("stranger", NOW)]).await, ["unassigned"]);
    assert_eq!(metrics.unassigned_nodes.get(), 1);
    let text = "regions: [{name: north, jurisdiction: eu, sites: [{name: site-b, nodes: [a1, stranger]}]}]";
    publish.send(Arc::new(Inventory::parse("test", text).unwrap())).unwrap();
    until("the new inventory", || metrics.unassigned_nodes.get() == 0).await;
    let after = NOW + MINUTE + SECOND;
    hand.set(after);
    assert_eq!(sites(&[("a1", NOW), ("a1", after)]).await, ["site-a", "site-b"]);
    assert_eq!(sites(&[("stranger", NOW), ("stranger", after)]).await, ["site-b", "unassigned"]);
    assert!(intake.missing().is_empty(), "it has a place now");
    hand.set(NOW + 10 * MINUTE);
    assert_eq!(sites(&[("a1", NOW)]).await, ["site-b"]);
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Scenario: lines that fill columns, a line of a stream that is not there; points of which one is a NaN, one unknown.
/// Guarantees: each sample is counted once, where it landed.
#[tokio::test]
async fn samples_are_counted_where_they_landed() {
    let site = site(|_| {}).await;
    let landed = |door: &str| {
        ["columns", "sample", "sentinel", "refused"].map(|l| site.metrics.samples.with_label_values(&[door, l]).get())
    };
    let unknown = line("a1", "x").replace("accelerator", "no_such_stream");
    site.ndjson(format!("{}{}{unknown}", line("a1", "gpu-0"), line("a1", "gpu-1"))).await;
    assert_eq!(landed("ndjson"), [2, 0, 0, 1]);
    let metrics = vec![
        gauge("hw.gpu.utilization", vec![point(0, 0.5, NOW), point(1, f64::NAN, NOW)]),
        gauge("no.such.metric", vec![point(0, 1.0, NOW)]),
    ];
    let body = otlp("a1", metrics).encode_to_vec();
    assert_eq!(site.post("/v1/metrics", &[("content-type", PROTOBUF)], body).await.status().as_u16(), 200);
    assert_eq!(landed("otlp_http"), [1, 1, 1, 0]);
    site.stop().await;
}
