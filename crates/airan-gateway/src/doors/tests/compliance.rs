//! The cases of the public receiver compliance suite of remote write 2.0 (prometheus/compliance, remotewrite/receiver), rebuilt:
//! what is sent, which class of status comes back, and what the counts of the answer say.
//!
//! One difference is by rule: exemplars name traces and may name subscribers, so they are left out, and the answer says that
//! none were written where the suite wants as many as were sent. Another is that 1.0 requests get the counts too.

use super::*;

use super::messages::{Exemplar2, Histogram, Metadata2, Request2, Sample, Span, TimeSeries2};

const AT: i64 = NOW / 1_000;

/// A request that is put together series by series.
#[derive(Default)]
struct Sent {
    request: Request2,
}

impl Sent {
    fn symbol(&mut self, text: &str) -> u32 {
        let symbols = &mut self.request.symbols;
        if symbols.is_empty() {
            symbols.push(String::new());
        }
        let found = symbols.iter().position(|symbol| symbol == text);
        found.unwrap_or_else(|| {
            symbols.push(text.to_owned());
            symbols.len() - 1
        }) as u32
    }

    fn series(&mut self, labels: &[(&str, &str)]) -> &mut TimeSeries2 {
        let labels = labels.iter().flat_map(|(name, value)| [self.symbol(name), self.symbol(value)]).collect();
        self.request.timeseries.push(TimeSeries2 { labels, ..TimeSeries2::default() });
        self.request.timeseries.last_mut().unwrap()
    }

    fn sample(labels: &[(&str, &str)], value: f64) -> Sent {
        let mut sent = Sent::default();
        sent.series(labels).samples.push(Sample { value, timestamp: AT, start: 0 });
        sent
    }

    fn histogram(labels: &[(&str, &str)], histogram: Histogram) -> Sent {
        let mut sent = Sent::default();
        sent.series(labels).histograms.push(histogram);
        sent
    }

    /// Metadata for the last series.
    fn with_metadata(mut self, kind: i32, help: &str, unit: &str) -> Sent {
        let (help, unit) = (self.symbol(help), self.symbol(unit));
        self.request.timeseries.last_mut().unwrap().metadata = Some(Metadata2 { kind, help, unit });
        self
    }

    /// An exemplar for the last series.
    fn with_exemplar(mut self, labels: &[(&str, &str)], value: f64) -> Sent {
        let labels = labels.iter().flat_map(|(name, value)| [self.symbol(name), self.symbol(value)]).collect();
        self.request.timeseries.last_mut().unwrap().exemplars.push(Exemplar2 { labels, value, timestamp: AT });
        self
    }
}

/// With buckets above zero, below it, at it.
fn native(positive: bool, negative: bool, zero: bool) -> Histogram {
    let spans = |is_there: bool| if is_there { vec![Span { offset: 1, length: 2 }] } else { Vec::new() };
    // Deltas: 2 and 3 events.
    let deltas = |is_there: bool| if is_there { vec![2, 1] } else { Vec::new() };
    Histogram {
        count: 5 * u64::from(positive) + 5 * u64::from(negative) + u64::from(zero),
        sum: 1.5,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: u64::from(zero),
        positive_spans: spans(positive),
        positive_deltas: deltas(positive),
        negative_spans: spans(negative),
        negative_deltas: deltas(negative),
        timestamp: AT,
        ..Histogram::default()
    }
}

/// With bounds of its own.
fn custom(counts: &[i64]) -> Histogram {
    let spans = if counts.is_empty() { Vec::new() } else { vec![Span { offset: 0, length: counts.len() as u32 }] };
    let before = [0].into_iter().chain(counts.iter().copied());
    Histogram {
        count: counts.iter().sum::<i64>() as u64,
        sum: 1.0,
        schema: -53,
        positive_spans: spans,
        positive_deltas: counts.iter().zip(before).map(|(count, before)| count - before).collect(),
        custom: vec![0.1, 0.5, 1.0],
        timestamp: AT,
        ..Histogram::default()
    }
}

/// What a case wants: whether it is taken, and the samples and histograms written.
type Wanted = (bool, u64, u64);

async fn check(site: &Site, case: &str, sent: Sent, (is_taken, samples, histograms): Wanted) {
    let response = site.post("/api/v1/write", &V2, snappy(&sent.request)).await;
    let status = response.status().as_u16();
    // Nothing here is a matter of trying again.
    assert!(if is_taken { [200, 204].contains(&status) } else { (400..500).contains(&status) }, "{case}: {status}");
    assert_eq!(written(&response), [samples, histograms, 0].map(|count| count.to_string()), "{case}");
}

const UP: &[(&str, &str)] = &[("__name__", "up")];
const HISTOGRAM: &[(&str, &str)] = &[("__name__", "test_histogram"), ("job", "test")];

/// Scenario: TestBadContentTypes, TestBadContentEncodings, TestCorruptRequestBody, TestRW1BasicCompatibility,
/// TestRW1ErrorHandling.
/// Guarantees: 415 for content types and encodings that are not taken, 4xx for a damaged body, 1.0 without a version header taken.
#[tokio::test]
async fn requests_that_are_no_remote_write() {
    let site = site(|_| {}).await;
    let good = snappy(&Sent::sample(UP, 1.0).request);
    let mut broken = good.clone();
    broken[0] = b'0';
    let with = |at: usize, value: &'static str| {
        let mut headers = V2;
        headers[at].1 = value;
        headers
    };
    for (headers, status) in [
        (with(0, "application/json"), 415),
        (with(0, "image/png"), 415),
        (with(1, "gzip"), 415),
        (with(1, "deflate"), 415),
        (V2, 400),
    ] {
        let response = site.post("/api/v1/write", &headers, broken.clone()).await;
        assert_eq!((response.status().as_u16(), written(&response)), (status, ["0", "0", "0"].map(str::to_owned)));
    }
    let of_1 = [("content-type", PROTOBUF), ("content-encoding", "snappy")];
    let mut body = snappy(&request(vec![up(&[1.0]), series(&[("__name__", "http_requests_total")], &[100.0])]));
    assert_eq!(site.post("/api/v1/write", &of_1, body.clone()).await.status(), 204);
    body[0] = 0xff;
    assert_eq!(site.post("/api/v1/write", &of_1, body).await.status(), 400);
    site.stop().await;
}

/// Scenario: TestSingleMetric, TestMultipleMetrics, TestCounterWithCreatedTimestamp.
/// Guarantees: any number, stale markers and NaN included, any UTF-8 name and label are taken; a series without a name is refused
/// and costs only itself.
#[tokio::test]
async fn samples() {
    let site = site(|_| {}).await;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    for value in [1.0, stale, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let named: [&[(&str, &str)]; 5] = [
            UP,
            &[("__name__", "up"), ("instance", "localhost:9090"), ("job", "testjob")],
            &[("__name__", "up"), ("instance", "localhost:9090"), ("job", "test\njob\n")],
            &[("__name__", "resource.cpu.usage"), ("instance.name", "localhost:9090"), ("job.name", "testjob")],
            &[("__name__", "resource cpu usage"), ("instance name", "localhost:9090"), ("job name", "testjob")],
        ];
        for labels in named {
            check(&site, &format!("{labels:?} {value}"), Sent::sample(labels, value), (true, 1, 0)).await;
        }
        for labels in [&[("instance", "localhost:9090"), ("job", "testjob")][..], &[], &[("__name__", "")]] {
            check(&site, &format!("{labels:?} {value}"), Sent::sample(labels, value), (false, 0, 0)).await;
        }
        let instances = ["localhost:9090", "localhost:9091", "localhost:9092", "localhost:9093"];
        for nameless in [0, 1, 4] {
            let mut sent = Sent::default();
            for (at, instance) in instances.into_iter().enumerate() {
                let labels = [("__name__", "up"), ("instance", instance), ("job", "testjob")];
                let labels = if at < nameless { &labels[1..] } else { &labels[..] };
                sent.series(labels).samples.push(Sample { value, timestamp: AT, start: 0 });
            }
            check(&site, &format!("{nameless} nameless"), sent, (nameless == 0, 4 - nameless as u64, 0)).await;
        }
    }
    let mut sent = Sent::default();
    let counter = sent.series(&[("__name__", "http_requests_total"), ("job", "api")]);
    counter.samples.push(Sample { value: 100.0, timestamp: AT, start: AT - 3_600_000 });
    check(&site, "created", sent.with_metadata(1, "Total HTTP requests", "requests"), (true, 1, 0)).await;
    site.stop().await;
}

/// Scenario: TestHistograms, TestHistogramWithCreatedTimestamp, TestMultipleHistograms, TestEmptyHistogram,
/// TestHistogramWithMetadata, TestCustomBucketsHistogramWithExemplar.
/// Guarantees: every shape of a native histogram is taken, one whose count does not fit its buckets is refused.
#[tokio::test]
async fn histograms() {
    let site = site(|_| {}).await;
    let bad_count = Histogram { count: 4, ..native(true, false, false) };
    for (case, histogram, is_taken) in [
        ("basic", native(true, true, true), true),
        ("custom buckets", custom(&[1, 2, 0, 4]), true),
        ("custom buckets without any", custom(&[]), true),
        ("positive only", native(true, false, true), true),
        ("negative only", native(false, true, false), true),
        ("minimal", native(false, false, true), true),
        ("empty", native(false, false, false), true),
        ("created", Histogram { start: AT - 1_800_000, ..native(true, true, true) }, true),
        ("bad count", bad_count, false),
    ] {
        let wanted = (is_taken, 0, u64::from(is_taken));
        check(&site, case, Sent::histogram(HISTOGRAM, histogram.clone()), wanted).await;
        let described = Sent::histogram(HISTOGRAM, histogram).with_metadata(3, "Request duration", "seconds");
        check(&site, case, described.with_exemplar(&[("trace_id", "abc"), ("bucket", "0.1")], 0.05), wanted).await;
    }
    let mut two = Sent::histogram(HISTOGRAM, native(true, false, true));
    two.series(&[("__name__", "hist2")]).histograms.push(native(false, true, false));
    check(&site, "two", two, (true, 0, 2)).await;
    site.stop().await;
}

/// Scenario: TestMetadata, TestMetadataValidation, TestMultipleMetadata, TestMetadataWithComplexLabels.
/// Guarantees: metadata of every kind, with and without texts, changes nothing about what is taken.
#[tokio::test]
async fn metadata() {
    let site = site(|_| {}).await;
    // unspecified, counter, gauge, histogram, gauge histogram, summary, info, stateset, and a kind of a later version
    for kind in 0..=8 {
        for (help, unit) in [("", ""), ("HTTP \"requests\"\nso far: äöü", "bytes/sec")] {
            check(&site, &format!("kind {kind}"), Sent::sample(UP, 1.0).with_metadata(kind, help, unit), (true, 1, 0))
                .await;
        }
    }
    for labels in [&[("job", "test")][..], &[("__name__", "")]] {
        check(&site, "nameless", Sent::sample(labels, 1.0).with_metadata(1, "Test help", "unit"), (false, 0, 0)).await;
    }
    let labels = [("__name__", "http_request_duration_seconds"), ("endpoint", "/api/v1/users"), ("status", "200")];
    let complex = Sent::histogram(&labels, native(true, true, true)).with_metadata(3, "HTTP duration", "seconds");
    check(&site, "complex", complex, (true, 0, 1)).await;
    site.stop().await;
}

/// Scenario: TestExemplars, TestExemplarValidation, TestExemplarTimestamps, TestExemplarSpecialValues, TestMultipleExemplars.
/// Guarantees: whatever an exemplar holds, its series is taken as if it were not there, and it is counted as left out.
#[tokio::test]
async fn exemplars() {
    let site = site(|_| {}).await;
    let labels: [&[(&str, &str)]; 5] = [
        &[("trace_id", "abc123def456")],
        &[("trace_id", "xyz789"), ("span_id", "span123")],
        &[("user_id", "user123")],
        &[],
        &[("trace_id", "unicode_trace_测试")],
    ];
    for labels in labels {
        check(&site, "labels", Sent::sample(UP, 1.0).with_exemplar(labels, 1.0), (true, 1, 0)).await;
    }
    for value in [0.0, -123.456, 1e10, 1e-10, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check(&site, "value", Sent::sample(UP, value).with_exemplar(labels[0], value), (true, 1, 0)).await;
    }
    let nameless = Sent::sample(&[("job", "test")], 1.0).with_exemplar(labels[0], 1.0);
    check(&site, "nameless", nameless, (false, 0, 0)).await;
    let dropped = site.metrics.dropped_exemplars.with_label_values(&["remote_write"]).get();
    assert!((12..=13).contains(&dropped), "{dropped}");
    site.stop().await;
}

/// Scenario: TestEdgeCaseCombinations, TestManySamples, TestManyHistograms, TestSpecialCharactersCombined,
/// TestSamplesWithMetadataAndExemplars.
/// Guarantees: series with nothing but metadata or exemplars are no fault; old and new times, and many series, are taken.
#[tokio::test]
async fn combinations() {
    let site = site(|_| {}).await;
    let orphan = || {
        let mut sent = Sent::default();
        sent.series(&[("__name__", "orphan_metric")]);
        sent
    };
    check(&site, "metadata alone", orphan().with_metadata(1, "Orphaned", "count"), (true, 0, 0)).await;
    check(&site, "exemplars alone", orphan().with_exemplar(&[("trace_id", "orphan_trace")], 42.0), (true, 0, 0)).await;
    check(&site, "nothing", Sent::default(), (true, 0, 0)).await;
    let mut mixed = Sent::sample(&[("__name__", "new_metric")], 2.0);
    let old = mixed.series(&[("__name__", "old_metric")]);
    old.samples.push(Sample { value: 1.0, timestamp: AT - 3_600_000, start: 0 });
    check(&site, "mixed times", mixed, (true, 2, 0)).await;
    let (mut samples, mut histograms) = (Sent::default(), Sent::default());
    for at in 0..50 {
        let (name, number) = (format!("metric_{at}"), format!("series_{at}"));
        let labels = [("__name__", name.as_str()), ("environment", "test🚀"), ("series", number.as_str())];
        samples.series(&labels).samples.push(Sample { value: f64::from(at * 100), timestamp: AT, start: 0 });
        samples = samples.with_metadata(1, "one of many", "count").with_exemplar(&[("trace_id", "t")], 1.0);
        histograms.series(&labels).histograms.push(native(true, at % 2 == 0, true));
    }
    check(&site, "many samples", samples, (true, 50, 0)).await;
    check(&site, "many histograms", histograms, (true, 0, 50)).await;
    site.stop().await;
}

/// Scenario: samples of one series behind each other's time in one request, and again in the next.
/// Guarantees: 2.0 leaves the order to the receiver: all are taken; event time sorts them.
#[tokio::test]
async fn out_of_order_samples_are_taken() {
    let site = site(|_| {}).await;
    for start in [0, -5_000] {
        let mut sent = Sent::default();
        let series = sent.series(UP);
        series.samples.extend([3, 1, 2].map(|at| Sample { value: 1.0, timestamp: AT + start + at, start: 0 }));
        check(&site, "out of order", sent, (true, 3, 0)).await;
    }
    assert_eq!(site.sums(Door::RemoteWrite), [6, 6, 0, 0]);
    site.stop().await;
}
