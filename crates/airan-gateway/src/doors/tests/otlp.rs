//! OTLP over HTTP and gRPC.

use super::*;

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
