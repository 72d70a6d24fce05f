//! Events of OTLP over HTTP and gRPC.

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

use super::*;

/// Records of one node, named as told; an empty name is no event's.
fn logs(node: &str, names: &[&str]) -> ExportLogsServiceRequest {
    let record = |name: &&str| LogRecord {
        time_unix_nano: NOW as u64 * 1_000,
        severity_number: 17,
        event_name: (*name).to_owned(),
        attributes: vec![attribute("hw.id", "GPU-1")],
        ..Default::default()
    };
    let resource = Resource { attributes: vec![attribute("host.name", node)], ..Default::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs { log_records: names.iter().map(record).collect(), ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// (name, site, batch) of every event on the bus.
fn events(site: &Site) -> Vec<[String; 3]> {
    let mut found = Vec::new();
    for (_, stream, rows) in site.bus.rows() {
        assert_eq!(stream, "event");
        let of = |column: &str| rows.column_by_name(column).unwrap().as_string::<i32>().clone();
        let columns = ["name", "site", "batch"].map(of);
        found.extend((0..rows.num_rows()).map(|row| [0, 1, 2].map(|at| columns[at].value(row).to_owned())));
    }
    found
}

/// Scenario: the same records as protobuf, plain, gzip and zstd, and as JSON; one of three is no event.
/// Guarantees: events land with their site, the same body is the same batch; what is no event is told by partial success in the
/// request's encoding, never by a status, and counted under its own reason.
#[tokio::test]
async fn events_over_http_in_each_encoding() {
    let site = site(|_| {}).await;
    let request = logs("a1", &["gpu.lost", "", "gpu.found"]);
    let plain = request.encode_to_vec();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    for (encoding, body) in [("identity", plain.clone()), ("gzip", gzip(&plain)), ("zstd", zstd)] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let response = site.post("/v1/logs", &headers, body).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type")),
            (200, Some(PROTOBUF)),
            "{encoding}"
        );
        let answer = ExportLogsServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
        let partial = answer.partial_success.unwrap();
        assert_eq!(partial.rejected_log_records, 1);
        assert!(partial.error_message.starts_with("not_an_event: 1 ("), "{}", partial.error_message);
    }
    let body = serde_json::to_vec(&request).unwrap();
    let response = site.post("/v1/logs", &[("content-type", JSON)], body).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, Some(JSON)));
    assert_eq!(json(response).await["partialSuccess"]["rejectedLogRecords"], "1");

    let found = events(&site);
    assert_eq!(found.len(), 8);
    assert!(found.chunks(2).all(|two| two[0][0] == "gpu.lost" && two[1][0] == "gpu.found" && two[0][1] == "site-a"));
    let batches: std::collections::BTreeSet<&String> = found.iter().map(|event| &event[2]).collect();
    assert_eq!(batches.len(), 2, "the same body is the same batch, however it was compressed; JSON is another body");
    assert_eq!(site.sums(Door::OtlpHttp), [12, 8, 4, 0]);
    assert_eq!(site.rejected("otlp_http", "not_an_event"), 4);
    until("the record", || {
        let rejected = site.bus.rejected.lock().unwrap();
        rejected.iter().any(|rejected| rejected.reason == airan_model::reject::Reason::NotAnEvent && rejected.rows == 1)
    })
    .await;
    site.stop().await;
}

/// Scenario: nothing but logs that are no events; an empty request.
/// Guarantees: acknowledged, for sending them again would not help; partial success says how many, and nothing for none.
#[tokio::test]
async fn logs_without_an_event_are_answered_by_partial_success_alone() {
    let site = site(|_| {}).await;
    let headers = [("content-type", PROTOBUF)];
    let response = site.post("/v1/logs", &headers, logs("a1", &["", ""]).encode_to_vec()).await;
    assert_eq!(response.status().as_u16(), 200);
    let answer = ExportLogsServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_log_records, 2);
    let response = site.post("/v1/logs", &headers, Vec::new()).await;
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (200, 0));
    assert_eq!((site.bus.row_count(), site.sums(Door::OtlpHttp)), (0, [2, 0, 2, 0]));
    site.stop().await;
}

/// Scenario: the client of the OpenTelemetry project itself, plain and with both compressions; a bus that takes nothing.
/// Guarantees: acknowledged when the bus has the rows, and told to come again when it has not.
#[tokio::test]
async fn events_over_grpc() {
    let site = site(|_| {}).await;
    let address = format!("http://{}", site.addresses.grpc);
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = LogsServiceClient::connect(address.clone()).await.unwrap();
        if let Some(compression) = compression {
            client = client.send_compressed(compression).accept_compressed(compression);
        }
        let answer = client.export(logs("b1", &["up"])).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
    }
    let mut client = LogsServiceClient::connect(address).await.unwrap();
    let partial = client.export(logs("b1", &["up", ""])).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    site.bus.set(Mood::Unavailable);
    let status = client.export(logs("b1", &["down"])).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let details = RpcStatus::decode(status.details()).unwrap();
    assert!(details.details[0].type_url.ends_with("google.rpc.RetryInfo"));
    assert_eq!(site.sums(Door::OtlpGrpc), [6, 4, 2, 0]);
    site.stop().await;
}

/// Scenario: a bus that takes nothing, a body over the limit, no content type, and bytes that are no request, at the path of logs.
/// Guarantees: the statuses are those of metrics.
#[tokio::test]
async fn logs_have_the_statuses_of_metrics() {
    let site = site(|settings| settings.request.bytes = bytes(4_096)).await;
    let good = logs("a1", &["up"]).encode_to_vec();
    let answer = async |headers: &[(&str, &str)], body: Vec<u8>| site.post("/v1/logs", headers, body).await;
    assert_eq!(answer(&[], good.clone()).await.status().as_u16(), 415);
    assert_eq!(answer(&[("content-type", PROTOBUF)], b"\xff\xff\xff".to_vec()).await.status().as_u16(), 400);
    let large = logs("a1", &["up"; 500]).encode_to_vec();
    assert_eq!(answer(&[("content-type", PROTOBUF)], large).await.status().as_u16(), 413);
    for mood in [Mood::Unavailable, Mood::Full, Mood::Unknown] {
        site.bus.set(mood);
        let response = answer(&[("content-type", PROTOBUF)], good.clone()).await;
        assert_eq!(response.status().as_u16(), 503, "{mood:?}");
        assert!(header(&response, "retry-after").is_some(), "{mood:?}");
    }
    site.stop().await;
}

/// Scenario: the same bytes, which are a request of either signal, to both paths.
/// Guarantees: they are two batches: neither's rows pass for repetitions of the other's.
#[tokio::test]
async fn a_body_is_another_at_the_path_of_the_other_signal() {
    let site = site(|_| {}).await;
    let logs = logs("a1", &["up"]).encode_to_vec();
    let metrics = otlp("a1", vec![gauge("hw.gpu.utilization", vec![point(0, 0.5, NOW)])]).encode_to_vec();
    // Two resources one after the other: each signal passes over the other's fields, or refuses what it cannot read.
    let body = [logs, metrics].concat();
    for path in ["/v1/metrics", "/v1/logs"] {
        assert_eq!(site.post(path, &[("content-type", PROTOBUF)], body.clone()).await.status().as_u16(), 200, "{path}");
    }
    let batches: Vec<String> = site
        .bus
        .rows()
        .iter()
        .map(|(_, _, rows)| rows.column_by_name("batch").unwrap().as_string::<i32>().value(0).to_owned())
        .collect();
    let distinct: std::collections::BTreeSet<&String> = batches.iter().collect();
    assert_eq!(distinct.len(), 2, "{batches:?}");
    site.stop().await;
}
