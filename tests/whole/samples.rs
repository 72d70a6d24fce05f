//! Real files of other people's systems, scraped and pushed as an edge node would.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;

use serde_json::Value;

use super::edge::Edge;
use super::site::{Scrape, samples, until};

/// Prometheus text that our mappings cover, with a stream that must then hold rows of it, and a condition on them.
const SCRAPED: &[(&str, &str, &str)] = &[
    (
        "accel-nvidia/dcgm_readme_sample.prom",
        "accelerator",
        "sm_clock_hertz IS NOT NULL OR memory_clock_hertz IS NOT NULL",
    ),
    ("accel-nvidia/dcgm_a100_mig_1g5gb.prom", "accelerator", "slice IS NOT NULL"),
    ("inference/vllm_metrics.prom", "inference", "time_to_first_token_seconds IS NOT NULL"),
    ("inference/vllm_llmprobe_small.prom", "inference", "generation_tokens IS NOT NULL"),
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

/// The same of logs.
const LOG: &str = "prom-otlp/otlp_example_logs.json";

/// The door that OTLP files are pushed to.
const OTLP: &[&str] = &["door=\"otlp_http\""];

/// Data points of an OTLP request, of whatever kind of metric.
fn data_points(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(data_points).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(points) if name == "dataPoints" => points.len(),
                _ => data_points(value),
            })
            .sum(),
        _ => 0,
    }
}

/// What one scrape of a target came to, in words; None while the counters of a scrape are still being written.
///
/// A file is the same in every scrape, so the counters are multiples of what it holds.
fn landed(scrape: &Scrape, target: &str, lines: usize) -> Option<String> {
    let scrapes = scrape.sum("airan_agent_scrapes_total", &[target, "outcome=\"success\""]);
    let of = |kind: &str| {
        scrape.sum("airan_agent_scraped_samples_total", &[target, &format!("landed=\"{kind}\"")]) / scrapes
    };
    let (columns, rows, sentinels, refused) = (of("columns"), of("sample"), of("sentinel"), of("refused"));
    (scrapes > 0.0 && columns + rows + sentinels == lines as f64 && refused == 0.0)
        .then(|| format!("{columns} in columns + {rows} in sample + {sentinels} sentinels"))
}

/// Scenario: each text file is served over HTTP and scraped by the agent of a running site; each OTLP file is pushed.
/// Guarantees: of each file, every sample is a value of a column, a row of `sample` or a sentinel, none is refused, and they
/// add up to the lines (points) of the file; the streams that the mappings promise hold rows of it; the sums add up.
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
            get(move || async move {
                ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
            }),
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
        let points = data_points(&serde_json::from_slice(&body).expect(file));
        let before = edge.scrape().await.expect("metrics").sum("airan_gateway_samples_total", OTLP);
        let (status, text) = edge.push("/v1/metrics", "application/json", body).await;
        assert_eq!(status, 200, "{file}: {text}");
        let decoded = edge.scrape().await.expect("metrics").sum("airan_gateway_samples_total", OTLP) - before;
        println!("{file}: {points} points, {decoded} decoded, answer {text}");
        assert_eq!(decoded, points as f64, "{file}: every point of the file is accounted for");
    }
    // OpenTelemetry's own example of a log record is no event; with an event name it is.
    let log = std::fs::read_to_string(folder.join(LOG)).expect(LOG);
    let (status, text) = edge.push("/v1/logs", "application/json", log.clone()).await;
    assert!(status == 200 && text.contains("\"rejectedLogRecords\":\"1\""), "{status} {text}");
    let event = log.replace("\"severityNumber\"", "\"eventName\": \"shown\", \"severityNumber\"");
    assert_eq!(edge.push("/v1/logs", "application/json", event).await, (200, "{}".to_owned()));
    let wanted = serde_json::json!({"name": "shown", "object": "my.service", "severity": "normal"});
    until("the event", || async {
        edge.try_query("SELECT name, object, severity FROM event")?.first().filter(|row| **row == wanted).cloned()
    })
    .await;
    for (index, (file, stream, condition)) in SCRAPED.iter().enumerate() {
        let sql = format!("SELECT count(*) AS n FROM {stream} WHERE {condition}");
        let n = until(&format!("rows of {file}"), || async {
            edge.try_query(&sql).and_then(|rows| rows[0]["n"].as_i64()).filter(|n| *n > 0)
        })
        .await;
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
        let told = until(&format!("even counters of {file}"), || async {
            landed(&edge.scrape().await?, &format!("target=\"target-{index}\""), lines)
        })
        .await;
        println!("{file}: {lines} samples = {told}; {n} rows in {stream} so far");
    }
    let ghosts = edge.query("SELECT count(*) AS n FROM accelerator WHERE sm_clock_hertz > 1e15 OR utilization > 1.0");
    assert_eq!(ghosts[0]["n"].as_i64(), Some(0), "a sentinel or a percentage became a value");
    let pushed = edge.query("SELECT count(DISTINCT name) AS n FROM sample WHERE source LIKE '%otlp%'");
    assert!(pushed[0]["n"].as_i64() > Some(0), "points of OTLP samples are in `sample`");
    edge.sums_add_up().await;
    drop(process);
}

/// Scenario: the requirements that NVIDIA publishes for Aerial with four antennas and early HARQ, among them how many of each kind of
/// task must be on time.
/// Guarantees: they are one number, and it is the objective of both pipelines of deadlines, of what they say about themselves, and
/// of the alerts' and dashboards' words.
#[test]
fn the_objective_of_deadlines_is_aerials() {
    let Some(folder) = samples() else { return };
    let list = std::fs::read_to_string(folder.join("refs/aerial_perf_requirements_4tr_eh.csv")).unwrap();
    let on_time = list.lines().filter_map(|line| {
        let mut cells = line.split(',');
        cells.next().filter(|name| name.ends_with("_ontime_percentage")).and_then(|_| cells.next())
    });
    let on_time: Vec<&str> = on_time.collect();
    assert!(on_time.len() >= 5 && on_time.iter().all(|percent| *percent == on_time[0]), "{on_time:?}");
    let percent: f64 = on_time[0].parse().unwrap();

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let words = format!("{} %", on_time[0]);
    for pipeline in ["fronthaul_deadlines", "slot_budget"] {
        let query = read(&format!("pipelines/{pipeline}/query.sql"));
        let computed = query.lines().filter(|line| !line.trim_start().starts_with("--"));
        let objectives: Vec<f64> = computed
            .flat_map(|line| line.split("(1.0 - ").skip(1))
            .filter_map(|rest| rest.split(')').next()?.parse().ok())
            .collect();
        assert!(!objectives.is_empty(), "{pipeline}");
        for objective in objectives {
            assert!((objective * 100.0 - percent).abs() < 1e-9, "{pipeline}: {objective}, Aerial: {words}");
        }
        assert!(read(&format!("pipelines/{pipeline}/pipeline.yaml")).contains(&words), "{pipeline}: {words}");
    }
    for (file, times) in [("deploy/prometheus/airan.rules.yaml", 2), ("deploy/grafana/build.py", 2)] {
        assert_eq!(read(file).matches(&words).count(), times, "{file}: {words}");
    }
}
