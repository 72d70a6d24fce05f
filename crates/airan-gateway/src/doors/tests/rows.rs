//! NDJSON and Arrow: rows that name their columns, from strangers and from agents.

use super::*;

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
