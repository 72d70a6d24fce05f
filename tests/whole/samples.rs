//! Real files of other people's systems, scraped and pushed as an edge node would.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;

use super::edge::Edge;
use super::site::{samples, until};

/// Prometheus text that our mappings cover, with a stream that must then hold rows of it, and a condition on them.
const SCRAPED: &[(&str, &str, &str)] = &[
    ("accel-nvidia/dcgm_readme_sample.prom", "accelerator", "sm_clock_hertz IS NOT NULL OR memory_clock_hertz IS NOT NULL"),
    ("accel-nvidia/dcgm_a100_mig_1g5gb.prom", "accelerator", "slice IS NOT NULL"),
    ("inference/vllm_metrics.prom", "inference", "time_to_first_token_seconds IS NOT NULL"),
    ("timing-ptp/openshift_ptp_metrics.prom", "timing", "offset_seconds IS NOT NULL"),
    ("prom-otlp/node_exporter_textfile_types.prom", "sample", "name IS NOT NULL"),
];

/// OTLP JSON that is pushed.
const PUSHED: &[&str] = &[
    "prom-otlp/otlp_example_metrics.json",
    "prom-otlp/otlp_rust_metrics.json",
    "prom-otlp/otlp_rust_test_u64_counter_meter.json",
    "prom-otlp/otlp_rust_test_up_down_meter.json",
];

/// Scenario: each text file is served over HTTP and scraped by the agent of a running site; each OTLP file is pushed.
/// Guarantees: the streams that the mappings promise hold rows of each file; what no mapping knows is in `sample`; sentinels
/// are no values; the sums add up. (The count of samples, file by file, is asserted beside the decoder.)
#[tokio::test(flavor = "multi_thread")]
async fn real_samples_reach_their_streams() {
    let Some(folder) = samples() else { return };
    let mut router = Router::new();
    let mut targets = Vec::new();
    for (index, (file, _, _)) in SCRAPED.iter().enumerate() {
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        let path = format!("/target-{index}/metrics");
        router = router.route(
            &path,
            get(move || async move { ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response() }),
        );
        targets.push((format!("target-{index}"), path));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut edge = Edge::new("samples");
    for (name, path) in &targets {
        edge.scrape_target(name, &format!("http://{address}{path}"));
    }
    let process = edge.up();
    edge.ready().await;
    for file in PUSHED {
        let body = std::fs::read(folder.join(file)).expect(file);
        let (status, text) = edge.push("/v1/metrics", "application/json", body).await;
        assert_eq!(status, 200, "{file}: {text}");
    }
    for (file, stream, condition) in SCRAPED {
        let sql = format!("SELECT count(*) AS n FROM {stream} WHERE {condition}");
        let n = until(&format!("rows of {file}"), || async {
            edge.try_query(&sql).and_then(|rows| rows[0]["n"].as_i64()).filter(|n| *n > 0)
        })
        .await;
        println!("{file}: {n} rows in {stream}");
    }
    let ghosts = edge.query("SELECT count(*) AS n FROM accelerator WHERE sm_clock_hertz > 1e15 OR utilization > 1.0");
    assert_eq!(ghosts[0]["n"].as_i64(), Some(0), "a sentinel or a percentage became a value");
    let pushed = edge.query("SELECT count(DISTINCT name) AS n FROM sample WHERE source LIKE '%otlp%'");
    assert!(pushed[0]["n"].as_i64() > Some(0), "points of OTLP samples are in `sample`");
    edge.sums_add_up().await;
    drop(process);
}
