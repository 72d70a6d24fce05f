//! `airan agent` as a process of its own, at a gateway that goes away and comes back.

use std::time::Duration;

use super::edge::Edge;
use super::site::{Scrape, until};

/// Scenario: an agent scrapes an endpoint whose OpenMetrics has exemplars on two of its lines.
/// Guarantees: both are counted at each scrape, under the target's name; the samples are in the lake, and nothing of an exemplar is.
#[tokio::test(flavor = "multi_thread")]
async fn exemplars_at_a_target_are_left_out_and_counted() {
    const TEXT: &str = "# TYPE asked counter\nasked_total{path=\"a\"} 17 # {trace_id=\"4bf92f3577b34da6\"} 1 1700000000.5\n\
        asked_total{path=\"b\"} 4 # {trace_id=\"00f067aa0ba902b7\"} 2\nasked_total{path=\"c\"} 1\n# EOF\n";
    let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let router = axum::Router::new().route("/metrics", axum::routing::get(move || async move { (kind, TEXT) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut edge = Edge::new("exemplars");
    edge.scrape_target("traced", &format!("http://{address}/metrics"));
    let process = edge.up();
    edge.ready().await;
    let counted = until("three scrapes", || async {
        let scrape = edge.scrape().await?;
        Some(scrape.sum("airan_agent_dropped_exemplars_total", &["target=\"traced\""])).filter(|count| *count >= 6.0)
    })
    .await;
    assert_eq!(counted % 2.0, 0.0, "two a scrape");
    let sql = "SELECT * FROM sample WHERE name = 'asked_total'";
    let rows = until("rows of three scrapes", || async { edge.try_query(sql).filter(|rows| rows.len() >= 9) }).await;
    let text = serde_json::to_string(&rows).expect("JSON");
    assert!(text.contains("asked_total") && !text.contains("trace_id") && !text.contains("4bf92f"), "{text}");
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}

/// Scenario: an agent collects each second and sends over HTTP; the gateway is killed, stays away for a while, and comes back.
/// Guarantees: the agent holds its rows meanwhile and says so; afterwards the lake has every one of them once, without a gap in
/// their numbers; collected = acknowledged + queued + dropped at the agent, with nothing dropped; it stops in seconds.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_holds_its_rows_while_the_gateway_is_away() {
    let edge = Edge::new("agent");
    let gateway = edge.up();
    edge.ready().await;
    let (agent, port) = edge.agent("edge-far");
    let url = format!("http://127.0.0.1:{port}/metrics");
    let sum = async |name: &str| Scrape::of(&url).await.map(|scrape| scrape.sum(name, &[]));
    until("rows acknowledged before the outage", || async {
        sum("airan_agent_acknowledged_rows_total").await.filter(|rows| *rows >= 20.0)
    })
    .await;
    gateway.kill();
    until("rows held while the gateway is away", || async {
        sum("airan_agent_queued_rows").await.filter(|rows| *rows >= 20.0)
    })
    .await;
    let gateway = edge.up();
    edge.ready().await;
    let before = sum("airan_agent_collected_rows_total").await.expect("metrics");
    until("what was held is acknowledged", || async {
        sum("airan_agent_acknowledged_rows_total").await.filter(|rows| *rows >= before)
    })
    .await;
    let (status, said) = agent.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
    let gaps = "SELECT count(*) AS n, count(DISTINCT seq) AS ids, max(seq) - min(seq) + 1 AS span FROM host \
                WHERE node = 'edge-far'";
    until("every row of the agent in the lake, once", || async {
        let rows = edge.try_query(gaps)?;
        let of = |name: &str| rows[0][name].as_i64().unwrap_or(-1);
        assert_eq!(of("n"), of("ids"), "a row is stored twice: {rows:?}");
        (of("n") == of("span") && of("n") > 5).then_some(())
    })
    .await;
    edge.sums_add_up().await;
    let (status, said) = gateway.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}
