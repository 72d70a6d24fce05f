//! Under load, and without a bus: what is bounded, what has a deadline, who is told to wait.

use super::*;

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
