//! Bad input at the doors of a running site: the sender hears what is wrong, nobody else notices.

use std::io::Write;

use serde_json::json;

use super::edge::Edge;
use super::site::{now_micros, until};

/// One bad request and the statuses that answer it rightly.
struct Bad {
    what: &'static str,
    path: &'static str,
    kind: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    status: &'static [u16],
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A zstd frame of a few KiB that unfolds to 1 GiB of zeros.
fn zstd_bomb() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("memory");
    let block = vec![0_u8; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&block).expect("memory");
    }
    encoder.finish().expect("memory")
}

/// How many of the bad requests are refused for which reason.
const REASONS: [(&str, u32); 6] = [
    ("malformed", 4),
    ("unsupported_format", 2),
    ("bad_compression", 1),
    ("too_large", 1),
    ("unknown_stream", 1),
    ("too_many_labels", 1),
];

/// Serves text that no parser of Prometheus takes; its address.
async fn bad_text() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let text = "good_metric 1\nbad metric{ 2\n";
    let router = axum::Router::new().route("/metrics", axum::routing::get(move || async move { text }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn bad_requests() -> Vec<Bad> {
    let protobuf = "application/x-protobuf";
    let ndjson = "application/x-ndjson";
    let mut cut = gzip(&[7_u8; 4096]);
    cut.truncate(20);
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..10_000).map(|i| (format!("label_{i}"), json!("x"))).collect();
    let many = json!({"stream": "sample", "ts": 1_790_000_000_000_000_i64, "node": "n", "name": "m", "value": 1.0,
        "attributes": labels});
    let bad = |what, path, kind, encoding, body: &[u8], status| Bad {
        what,
        path,
        kind,
        encoding,
        body: body.to_vec(),
        status,
    };
    vec![
        bad("malformed protobuf", "/v1/metrics", protobuf, None, b"\xff\xff\xff\xff not protobuf", &[400]),
        bad("malformed JSON", "/v1/metrics", "application/json", None, b"{\"resourceMetrics\": [", &[400]),
        bad("malformed NDJSON", "/v1/ndjson", ndjson, None, b"{\"stream\": \"host\", \n", &[400]),
        bad(
            "malformed Arrow",
            "/v1/arrow",
            "application/vnd.apache.arrow.stream",
            None,
            b"\xff\xff\xff\xff\x10\0\0\0ARROW",
            &[400],
        ),
        bad("wrong content type", "/v1/metrics", "text/html", None, b"<html>", &[415]),
        bad("unknown encoding", "/v1/metrics", protobuf, Some("br"), b"x", &[415]),
        bad("truncated gzip", "/v1/metrics", protobuf, Some("gzip"), &cut, &[400]),
        bad("zstd bomb of 1 GiB", "/v1/metrics", protobuf, Some("zstd"), &zstd_bomb(), &[413]),
        bad(
            "a stream that does not exist",
            "/v1/ndjson",
            ndjson,
            None,
            b"{\"stream\":\"nope\",\"node\":\"n\"}\n",
            &[400],
        ),
        bad("10,000 labels", "/v1/ndjson", ndjson, None, many.to_string().as_bytes(), &[400]),
        bad("no such path", "/v1/nothing", protobuf, None, b"", &[404]),
    ]
}

/// Scenario: each bad request ten times over, among good ones, at one running site; then times of 1970 and 2100, NaN and
/// infinities in otherwise good requests.
/// Guarantees: the right status and a reason for each; every refusal is counted; peak memory grows by less than 64 MiB; the
/// good rows are all there.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_harms_nobody_else() {
    let mut edge = Edge::new("bad");
    edge.scrape_target("bad-text", &format!("http://{}/metrics", bad_text().await));
    let process = edge.up();
    edge.ready().await;
    let good = |n: usize| {
        json!({"stream": "accelerator", "node": "good-1", "device": format!("GPU-{n}"), "utilization": 0.25, "ts": now_micros()})
            .to_string()
    };
    for n in 0..20 {
        assert_eq!(edge.push("/v1/ndjson", "application/x-ndjson", good(n)).await.0, 200);
    }
    // What the process takes for its own work, its first windows and commits, is not what is looked at.
    until("the first windows and commits", || async {
        let scrape = edge.scrape().await?;
        let has_windows = scrape.series("airan_host_cpu_utilization_ratio").count() > 0;
        (has_windows && edge.count("accelerator")? >= 20 && edge.count("host_load")? > 0).then_some(())
    })
    .await;
    let before = process.peak_mib();
    let mut sent = 20;
    for _ in 0..10 {
        for bad in bad_requests() {
            let (status, text) = edge.push_encoded(bad.path, bad.kind, bad.encoding, bad.body).await;
            assert!(bad.status.contains(&status), "{}: {status} {text}", bad.what);
            assert!(status == 404 || !text.is_empty(), "{}: an answer without a reason", bad.what);
            assert_eq!(edge.push("/v1/ndjson", "application/x-ndjson", good(sent)).await.0, 200);
            sent += 1;
        }
    }
    let grown = process.peak_mib() - before;
    assert!(grown < 64.0, "bad input grew the process by {grown:.0} MiB");

    // Implausible times are kept, under the time of arrival; values that are no numbers do not cost their row's neighbours.
    for (device, ts) in [("GPU-1970", "1970-01-01T00:00:00Z"), ("GPU-2100", "2100-01-01T00:00:00Z")] {
        let row = json!({"stream": "accelerator", "node": "bad-clock", "device": device, "utilization": 0.5, "ts": ts});
        assert_eq!(edge.push("/v1/ndjson", "application/x-ndjson", row.to_string()).await.0, 200);
    }
    let nanos = |plus: i64| ((now_micros() + plus) * 1000).to_string();
    let otlp = json!({"resourceMetrics": [{"resource": {"attributes": [
        {"key": "host.name", "value": {"stringValue": "odd-1"}}]}, "scopeMetrics": [{"metrics": [
        {"name": "odd.value", "gauge": {"dataPoints": [
            {"timeUnixNano": nanos(0), "asDouble": "NaN"},
            {"timeUnixNano": nanos(1), "asDouble": "Infinity"},
            {"timeUnixNano": nanos(2), "asDouble": 1.5}]}}]}]}]});
    let (status, text) = edge.push("/v1/metrics", "application/json", otlp.to_string()).await;
    assert_eq!(status, 200, "{text}");

    let wanted = i64::try_from(sent).expect("small");
    until("the good rows in the lake", || async {
        let rows = edge.query("SELECT count(*) AS n FROM accelerator WHERE node = 'good-1'");
        (rows[0]["n"].as_i64() == Some(wanted)).then_some(())
    })
    .await;
    until("the rows of bad clocks in the lake", || async {
        let rows = edge.query(
            "SELECT count(*) AS n FROM accelerator WHERE node = 'bad-clock' AND clock = 'implausible' AND ts > now() - INTERVAL '1 hour'",
        );
        (rows[0]["n"].as_i64() == Some(2)).then_some(())
    })
    .await;
    let odd = edge.query("SELECT count(*) AS n FROM sample WHERE node = 'odd-1' AND value = 1.5");
    assert_eq!(odd[0]["n"].as_i64(), Some(1), "the point beside NaN is kept");
    let scrape = edge.scrape().await.expect("metrics");
    for (reason, cases) in REASONS {
        let counted = scrape.sum("airan_gateway_rejected_total", &[&format!("reason=\"{reason}\"")]);
        assert_eq!(counted, f64::from(10 * cases), "{reason}");
    }
    let scrapes = scrape.sum("airan_agent_scrapes_total", &["target=\"bad-text\"", "outcome=\"malformed\""]);
    assert!(
        scrapes > 0.0,
        "malformed text of a target is counted: {:?}",
        scrape.series("airan_agent_scrapes_total").collect::<Vec<_>>()
    );
    edge.sums_add_up().await;
}
