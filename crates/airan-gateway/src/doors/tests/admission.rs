//! What rows become behind every door: identity, site, plausible time.

use super::*;

/// Scenario: one body twice; bodies without times, with and without `Idempotency-Key`.
/// Guarantees: a retry has the same identity; without a time of its own only a key makes it so.
#[tokio::test]
async fn a_retry_has_the_same_identity() {
    let site = site(|_| {}).await;
    let timed = line("a1", "gpu-0") + &line("a1", "gpu-1");
    let untimed = "{\"stream\":\"accelerator\",\"node\":\"a1\",\"device\":\"gpu-0\",\"utilization\":0.5}\n";
    let send = async |body: &str, key: Option<&str>| -> Vec<(String, i64)> {
        let mut headers = vec![("content-type", NDJSON)];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        assert_eq!(site.post("/v1/ndjson", &headers, body.to_owned()).await.status().as_u16(), 200);
        let taken = site.bus.rows();
        site.bus.taken.lock().unwrap().clear();
        let of = |rows: &arrow::record_batch::RecordBatch| {
            let batches = rows.column_by_name("batch").unwrap().as_string::<i32>().clone();
            let seqs = rows.column_by_name("seq").unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            (0..rows.num_rows()).map(|row| (batches.value(row).to_owned(), seqs.value(row))).collect::<Vec<_>>()
        };
        taken.iter().flat_map(|(_, _, rows)| of(rows)).collect()
    };
    let first = send(&timed, None).await;
    assert_eq!(first.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(send(&timed, None).await, first);
    assert_ne!(send(&(timed.clone() + "\n"), None).await, first, "another body");
    assert_ne!(send(untimed, None).await, send(untimed, None).await);
    let keyed = send(untimed, Some("k1")).await;
    assert_eq!(send(untimed, Some("k1")).await, keyed);
    assert_ne!(send(untimed, Some("k2")).await, keyed);
    site.stop().await;
}

/// Scenario: rows of 1970 and 2100 among good ones, and rows of a node nobody knows.
/// Guarantees: all are kept; what is wrong with them is counted by node, and listed.
#[tokio::test]
async fn odd_rows_are_kept_and_counted() {
    let site = site(|_| {}).await;
    let now = format_rfc3339(NOW);
    let mut body = line("a1", "gpu-0") + &line("stranger", "gpu-0");
    body += &line("a1", "gpu-1").replace(&now, "1970-01-01T00:00:00Z");
    body += &line("a1", "gpu-2").replace(&now, "2100-01-01T00:00:00Z");
    assert_eq!(json(site.ndjson(body).await).await["rows"], 4);
    assert_eq!(site.metrics.implausible.with_label_values(&["a1"]).get(), 2);
    assert_eq!(site.metrics.unassigned_rows.get(), 1);
    let missing = site.intake.missing();
    assert_eq!(
        (missing.len(), missing[0].node.as_str(), missing[0].rows, missing[0].last_seen),
        (1, "stranger", 1, NOW)
    );
    let far = parse_rfc3339("2100-01-01T00:00:00Z").unwrap();
    for (_, _, rows) in site.bus.rows() {
        let ts =
            rows.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
        assert!(ts.values().iter().all(|ts| *ts != 0 && *ts != far));
    }
    site.stop().await;
}

/// Scenario: rows of the same process, as `airan up`'s agent hands them over.
/// Guarantees: the same path and the same sums as through a door.
#[tokio::test]
async fn rows_of_this_process_take_the_same_path() {
    let site = site(|_| {}).await;
    let rows = crate::testing::accelerator(&catalog(), &["a1", "b1"]);
    let ack = site.intake.submit(vec![rows.clone()], "a1", Door::Agent).await.unwrap();
    assert_eq!(ack.rows, 2);
    site.bus.set(Mood::Unavailable);
    assert_eq!(site.intake.submit(vec![rows], "a1", Door::Agent).await.unwrap_err().reason(), "unavailable");
    assert_eq!(site.sums(Door::Agent), [4, 2, 2, 0]);
    site.stop().await;
}

/// Scenario: a row of two hours ago, where the settings believe one hour.
/// Guarantees: the settings are what admission goes by.
#[tokio::test]
async fn how_far_a_time_is_believed_is_a_setting() {
    for (hours, replaced) in [(1, 1), (3, 0)] {
        let site = site(|settings| settings.implausible.behind = millis(hours * 3_600_000)).await;
        let old = line("a1", "gpu-0").replace(&format_rfc3339(NOW), &format_rfc3339(NOW - 120 * MINUTE));
        assert_eq!(site.ndjson(old).await.status().as_u16(), 200);
        assert_eq!(site.metrics.implausible.with_label_values(&["a1"]).get(), replaced, "{hours} h");
        site.stop().await;
    }
}

/// Scenario: a node moves while a request of its rows is repeated; one repetition comes soon, one long after.
/// Guarantees: the soon one goes where the rows went first, so that they are known there; later, and for rows of after the move,
/// the new site holds. A node that was missing is no longer listed.
#[tokio::test]
async fn a_moved_nodes_repetitions_go_where_the_rows_went_first() {
    let inventory_of = |site: &str| {
        let text = format!("regions: [{{name: north, jurisdiction: eu, sites: [{{name: {site}, nodes: [a1]}}]}}]");
        Arc::new(Inventory::parse("test", &text).unwrap())
    };
    let bus = MemoryBus::new(64);
    let (publish, inventory) = watch::channel(inventory_of("site-a"));
    let (clock, hand) = Clock::manual();
    hand.set(NOW + MINUTE);
    let as_bus: Arc<dyn Bus> = Arc::clone(&bus) as Arc<dyn Bus>;
    let gateway = Gateway::bind(settings(), as_bus, catalog(), inventory, clock).await.unwrap();
    let (intake, metrics) = (gateway.intake(), gateway.metrics());
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(stop.clone()));
    let sites = async |rows: &[(&str, i64)]| {
        bus.taken.lock().unwrap().clear();
        let rows = crate::testing::accelerator_at(&catalog(), rows);
        intake.submit(vec![rows], "a1", Door::Agent).await.unwrap();
        let mut sites: Vec<String> = Vec::new();
        for (_, _, rows) in bus.rows() {
            sites.extend(rows.column_by_name("site").unwrap().as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        sites.sort();
        sites
    };
    assert_eq!(sites(&[("a1", NOW)]).await, ["site-a"]);
    assert_eq!(sites(&[("stranger", NOW)]).await, ["unassigned"]);
    assert_eq!(metrics.unassigned_nodes.get(), 1);
    let text = "regions: [{name: north, jurisdiction: eu, sites: [{name: site-b, nodes: [a1, stranger]}]}]";
    publish.send(Arc::new(Inventory::parse("test", text).unwrap())).unwrap();
    until("the new inventory", || metrics.unassigned_nodes.get() == 0).await;
    let after = NOW + MINUTE + SECOND;
    hand.set(after);
    assert_eq!(sites(&[("a1", NOW), ("a1", after)]).await, ["site-a", "site-b"]);
    assert_eq!(sites(&[("stranger", NOW), ("stranger", after)]).await, ["site-b", "unassigned"]);
    assert!(intake.missing().is_empty(), "it has a place now");
    hand.set(NOW + 10 * MINUTE);
    assert_eq!(sites(&[("a1", NOW)]).await, ["site-b"]);
    stop.cancel();
    running.await.unwrap().unwrap();
}
