use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use airan_model::schema;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;

use super::*;
use crate::metrics::Dropped;
use crate::settings::ScrapeSettings;
use crate::told::Told;
use crate::uplink::UplinkError;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const TEXT: &str = "# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-1\",Hostname=\"edge-7\"} 50
DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",UUID=\"GPU-2\",Hostname=\"edge-7\"} 75
# TYPE something_else gauge
something_else 1
";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Answers OpenMetrics, gzipped, to who accepts both; else 406.
async fn open_metrics(headers: HeaderMap) -> impl IntoResponse {
    let accepts =
        |name: &str, what: &str| headers.get(name).is_some_and(|value| value.to_str().unwrap().contains(what));
    if !accepts("accept", "application/openmetrics-text") || !accepts("accept-encoding", "gzip") {
        return (StatusCode::NOT_ACCEPTABLE, HeaderMap::new(), Vec::new());
    }
    let answer =
        [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8"), ("content-encoding", "gzip")];
    let answer = answer.into_iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
    (StatusCode::OK, answer, gzip(&format!("{TEXT}# EOF\n")))
}

/// Endpoints that behave in every way an endpoint can.
async fn endpoints() -> String {
    let bomb = gzip(&format!("# {}\n", "x".repeat(40_000)));
    let many: String = (0..300).map(|n| format!("m{{n=\"{n}\"}} 1\n")).collect();
    let app = Router::new()
        .route("/text", get(|| async { TEXT }))
        .route("/open", get(open_metrics))
        .route("/slow", get(std::future::pending::<&str>))
        .route("/bomb", get(move || std::future::ready(([("content-encoding", "gzip")], bomb.clone()))))
        .route("/many", get(move || std::future::ready(many.clone())))
        .route("/bad", get(|| async { "this is {not metrics\n" }))
        .route("/error", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn target(name: &str, url: &str) -> TargetSettings {
    TargetSettings {
        name: name.into(),
        url: url.into(),
        interval: None,
        timeout: None,
        node: None,
        labels: Default::default(),
    }
}

fn settings(targets: Vec<TargetSettings>) -> Settings {
    let mut settings = Settings::documented();
    settings.host.enabled = false;
    settings.links.enabled = false;
    settings.accelerators.source = AcceleratorSource::Off;
    settings.scrape.interval = Duration::from_millis(50).into();
    settings.scrape.timeout = Duration::from_millis(40).into();
    settings.scrape.body = 20_000.into();
    settings.scrape.samples = 200;
    settings.targets = targets;
    settings
}

/// An agent at work, with what it has sent.
struct Site {
    metrics: Arc<AgentMetrics>,
    sent: Arc<Mutex<Vec<(String, RecordBatch)>>>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Site {
    fn start(settings: Settings) -> Site {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&sent);
        let submit: crate::Submit = Box::new(move |rows| {
            kept.lock().unwrap().push((rows.stream.name.to_string(), rows.rows));
            Box::pin(async { Ok::<(), UplinkError>(()) })
        });
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let agent = Agent::new("edge-1", settings, catalog, Uplink::InProcess(submit), Clock::system()).unwrap();
        let (metrics, stop) = (agent.metrics(), CancellationToken::new());
        let running = tokio::spawn(agent.run(stop.clone()));
        Site { metrics, sent, stop, running }
    }

    async fn until(&self, what: &str, mut ready: impl FnMut(&Site) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn scrapes(&self, target: &str, outcome: &str) -> u64 {
        self.metrics.scrapes.with_label_values(&[target, outcome]).get()
    }

    fn rows_of(&self, stream: &str) -> Option<RecordBatch> {
        self.sent.lock().unwrap().iter().find(|(name, _)| name == stream).map(|(_, rows)| rows.clone())
    }

    /// Stops the agent and checks the sum.
    async fn end(self, from: &[&str]) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
        let collected: u64 = from.iter().map(|from| self.metrics.collected_rows.with_label_values(&[from]).get()).sum();
        let dropped: u64 = Dropped::ALL.iter().map(|reason| self.metrics.dropped(*reason).get()).sum();
        assert_eq!(collected, self.metrics.acknowledged_rows.get() + dropped);
        assert_eq!(self.metrics.queued_rows.get(), 0);
        let sent: usize = self.sent.lock().unwrap().iter().map(|(_, rows)| rows.num_rows()).sum();
        assert_eq!(sent as u64, self.metrics.acknowledged_rows.get());
    }
}

/// Scenario: text and OpenMetrics endpoints, the latter gzipped, with labels and a node of the configuration.
#[tokio::test]
async fn endpoints_are_scraped_into_rows() {
    let url = endpoints().await;
    let mut open = target("open", &format!("{url}/open"));
    open.node = Some("edge-9".into());
    open.labels.insert("rack".into(), "r1".into());
    for (target, node, source) in [
        (target("text", &format!("{url}/text")), "edge-7", "scrape/prometheus"),
        (open, "edge-9", "scrape/openmetrics"),
    ] {
        let name = target.name.clone();
        let site = Site::start(settings(vec![target]));
        site.until("rows", |site| site.rows_of("accelerator").is_some() && site.rows_of("sample").is_some()).await;
        let rows = site.rows_of("accelerator").unwrap();
        let text = |column: &str| rows.column_by_name(column).unwrap().as_string::<i32>().value(0).to_owned();
        assert_eq!(
            (text(schema::NODE).as_str(), text(schema::SOURCE).as_str(), text("device").as_str()),
            (node, source, "GPU-1")
        );
        assert_eq!(
            rows.column_by_name("utilization").unwrap().as_primitive::<Float64Type>().values()[..2],
            [0.5, 0.75]
        );
        assert!(rows.column_by_name(schema::TS).unwrap().null_count() == 0);
        let sample = site.rows_of("sample").unwrap();
        let attributes = sample.column_by_name("attributes").unwrap().as_map().value(0);
        let keys: Vec<&str> = attributes.column(0).as_string::<i32>().iter().flatten().collect();
        assert!(keys.contains(&"target") && keys.contains(&"rack") == (name == "open"), "{keys:?}");
        assert_eq!(site.metrics.target_up.with_label_values(&[&name]).get(), 1);
        let landed = |where_: &str| site.metrics.scraped_samples.with_label_values(&[&name, where_]).get();
        assert!(landed("columns") >= 2 && landed("sample") >= 1 && landed("columns") == 2 * landed("sample"));
        site.end(&[&name]).await;
    }
}

/// Scenario: an endpoint that wants a user and a password, and a query; then one of the same address that is gone.
/// Guarantees: both are sent as basic authentication and query; neither is in a log line or in a metric.
#[tokio::test]
async fn a_password_in_an_address_is_sent_and_not_logged() {
    async fn guarded(headers: HeaderMap, uri: axum::http::Uri) -> (StatusCode, &'static str) {
        // "jo:hunter2"
        let is_right = headers.get("authorization").is_some_and(|value| value == "Basic am86aHVudGVyMg==");
        if is_right && uri.query() == Some("key=hunter3") {
            (StatusCode::OK, TEXT)
        } else {
            (StatusCode::UNAUTHORIZED, "")
        }
    }
    let app = Router::new().route("/metrics", get(guarded));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let with_secrets = |address| format!("http://jo:hunter2@{address}/metrics?key=hunter3");
    let good = target("good", &with_secrets(listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = target("absent", &with_secrets(gone.local_addr().unwrap()));
    drop(gone);

    let told = Told::here();
    let site = Site::start(settings(vec![good, absent]));
    site.until("a good scrape", |site| site.scrapes("good", "success") > 0).await;
    site.until("a failed one", |site| site.scrapes("absent", "connection") > 0).await;
    let told = told.text();
    assert!(told.contains("scraping works") && told.contains("scraping fails") && told.contains("/metrics"), "{told}");
    let registry = prometheus::Registry::new();
    site.metrics.register(&registry).unwrap();
    let metrics = format!("{:?}", registry.gather());
    for secret in ["hunter", "jo:", "am86"] {
        assert!(!told.contains(secret) && !metrics.contains(secret), "{told}");
    }
    site.end(&["good"]).await;
}

/// Scenario: endpoints that are slow, too big once unpacked, too many samples, no metrics, broken, and not there.
/// Guarantees: each is counted by what it did, gives no rows, and goes on to be scraped; a good one is not disturbed.
#[tokio::test]
async fn endpoints_that_misbehave_are_counted_and_give_nothing() {
    let url = endpoints().await;
    let cases = [
        ("slow", "timeout"),
        ("bomb", "too_large"),
        ("many", "too_many_samples"),
        ("bad", "malformed"),
        ("error", "status"),
        ("nothing", "status"),
    ];
    let mut targets: Vec<_> = cases.iter().map(|(name, _)| target(name, &format!("{url}/{name}"))).collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    targets.push(target("absent", &format!("http://{}/metrics", listener.local_addr().unwrap())));
    drop(listener);
    targets.push(target("text", &format!("{url}/text")));
    let site = Site::start(settings(targets));
    for (name, outcome) in cases.iter().chain(&[("absent", "connection"), ("text", "success")]) {
        site.until(&format!("{name}: {outcome}"), |site| site.scrapes(name, outcome) >= 2).await;
        assert_eq!(site.metrics.collected_rows.with_label_values(&[name]).get() > 0, *name == "text", "{name}");
        assert_eq!(site.metrics.target_up.with_label_values(&[name]).get(), i64::from(*name == "text"), "{name}");
    }
    site.end(&["text"]).await;
}

/// Scenario: samples with more labels, and with longer ones, than the settings allow, beside one with none.
/// Guarantees: these are refused and counted; the other is kept.
#[tokio::test]
async fn limits_on_labels_are_settings() {
    let url = endpoints().await;
    for limit in
        [|scrape: &mut ScrapeSettings| scrape.labels = 2, |scrape: &mut ScrapeSettings| scrape.label_bytes = 4.into()]
    {
        let mut limited = settings(vec![target("text", &format!("{url}/text"))]);
        limit(&mut limited.scrape);
        let site = Site::start(limited);
        let landed = |site: &Site, at: &str| site.metrics.scraped_samples.with_label_values(&["text", at]).get();
        site.until("refused samples", |site| landed(site, "refused") >= 2 && landed(site, "sample") >= 1).await;
        assert_eq!(landed(&site, "columns"), 0);
        site.end(&["text"]).await;
    }
}

/// Scenario: the agent's own collectors on this machine, and a machine without procfs.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn this_machine_is_collected_and_one_without_procfs_is_survived() {
    let mut own = settings(Vec::new());
    for collector in [&mut own.host, &mut own.links] {
        collector.enabled = true;
        collector.interval = Duration::from_millis(20).into();
    }
    own.links_ignored.clear();
    let nowhere = Settings { proc_path: "/nowhere".into(), ..own.clone() };
    let site = Site::start(own);
    site.until("rows", |site| site.rows_of("host").is_some() && site.rows_of("link").is_some()).await;
    assert_eq!(
        site.rows_of("host").unwrap().column_by_name(schema::SOURCE).unwrap().as_string::<i32>().value(0),
        "procfs/host"
    );
    site.end(&["host", "link"]).await;

    let site = Site::start(nowhere);
    site.until("failures", |site| site.metrics.collections.with_label_values(&["host", "failure"]).get() >= 2).await;
    site.end(&["host", "link"]).await;
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let new = |node: &str, settings: Settings, uplink: Option<&str>| {
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let uplink = match uplink {
            Some(url) => Uplink::Http { url: url.into() },
            None => Uplink::InProcess(Box::new(|_| Box::pin(async { Ok(()) }))),
        };
        Agent::new(node, settings, catalog, uplink, Clock::fixed(0)).err().map(|error| error.to_string())
    };
    let good = target("a", "http://localhost:1/metrics");
    let mut subscriber = good.clone();
    subscriber.labels.insert("ue_id".into(), "7".into());
    assert_eq!(new("n", settings(vec![good.clone()]), Some("http://gateway:4318/")), None);
    for (node, targets, uplink, reason) in [
        ("", vec![], None, "cannot name"),
        ("edge 1", vec![], None, "cannot name"),
        ("n", vec![good.clone(), good.clone()], None, "two targets are named `a`"),
        ("n", vec![target("a", "localhost:9100")], None, "is no address"),
        ("n", vec![target("a", "https://localhost")], None, "is no address"),
        ("n", vec![subscriber], None, "names a subscriber"),
        ("n", vec![], Some("gateway:4318"), "is no address"),
        ("n", vec![target(" ", "http://localhost")], None, "agent.targets.0.name"),
    ] {
        let error = new(node, settings(targets), uplink).unwrap_or_default();
        assert!(error.contains(reason), "{error:?} says {reason}");
    }
    for url in ["https://jo:hunter2@host/metrics?key=hunter2", "http://jo:hunter2@", "jo:hunter2@host"] {
        for (targets, uplink) in [(vec![target("a", url)], None), (vec![], Some(url))] {
            let error = new("n", settings(targets), uplink).unwrap_or_default();
            assert!(error.contains("is no address") && !error.contains("hunter2"), "{error}");
        }
    }
}

/// Scenario: `accelerators: auto` beside a target that reports accelerators, and beside none.
/// Guarantees: beside such a target the agent reads none by itself, so no device is counted twice; beside none it says what it
/// reads them from, and a machine that has none is no failure.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn accelerators_are_left_to_a_target_that_reports_them() {
    let url = endpoints().await;
    let auto = |targets: Vec<TargetSettings>| {
        let mut settings = settings(targets);
        settings.accelerators.source = AcceleratorSource::Auto;
        settings.accelerators.interval = Duration::from_millis(50).into();
        settings
    };
    let source = |site: &Site, name: &str| site.metrics.accelerator_source.with_label_values(&[name]).get();
    let site = Site::start(auto(vec![target("dcgm", &format!("{url}/text"))]));
    site.until("a source", |site| source(site, "scraped") == 1).await;
    let scrapes = site.scrapes("dcgm", "success");
    site.until("more scrapes", |site| site.scrapes("dcgm", "success") > scrapes + 3).await;
    assert_eq!(site.metrics.collected_rows.with_label_values(&["accelerator"]).get(), 0);
    site.end(&["dcgm"]).await;

    let site = Site::start(auto(Vec::new()));
    let sources = ["none", "nvml", "nvidia-smi", "rocm-smi"];
    site.until("a source", |site| sources.iter().map(|name| source(site, name)).sum::<i64>() == 1).await;
    assert_eq!(site.metrics.collections.with_label_values(&["accelerator", "failure"]).get(), 0);
    site.end(&["accelerator"]).await;
}
