//! What is the sender's fault, at every door.

use super::*;

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
