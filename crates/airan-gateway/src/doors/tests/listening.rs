//! Listeners: before there is a bus, while it ticks, when they stop.

use super::*;

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
