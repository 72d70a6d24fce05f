//! Windows that are computed again: because rows came late, or somebody asked for it.

use super::*;

/// Scenario: rows of a node come late, after their windows and those that follow have closed.
/// Guarantees: W2: the windows of the late rows, and the one whose first rise counted them, are restated at once in the shard's
/// own commits, the one at the edge of the gap when the gap has rested; no other is; counters stay as they were; every window is
/// complete in the end, and nothing is left to do.
#[tokio::test]
async fn late_rows_restate_their_windows_and_the_one_that_follows() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows((0..10).chain(20..60)));
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (20, 10, 20, 0), (30, 10, 10, 0)]).await;
    // Shown a moment after it is committed.
    until("the counter is shown", || running.value("airan_meter_total", None) == Some(39.0)).await;
    let counter = running.value("airan_meter_total", None);
    site.bus.append(
        0,
        site.rows(10..20).into_iter().map(|late| airan_bus::Received { append_time: T0 + 62_000_000, ..late }),
    );
    until_latest(&lake, &[(0, 10, 9, 0), (10, 10, 10, 0), (20, 10, 10, 1), (30, 10, 10, 0)]).await;
    assert_eq!(running.value("airan_meter_total", None), counter);
    site.bus.append_message(0, T0 + HOUR, Message::Tick);
    let wanted = [(0, 10, 9, 1), (10, 10, 10, 0), (20, 10, 10, 1), (30, 10, 10, 0), (40, 10, 10, 0), (50, 10, 10, 0)];
    until_latest(&lake, &wanted).await;
    until("nothing is marked", || {
        ["dirty", "incomplete"]
            .iter()
            .all(|of| running.value(&format!("airan_processor_{of}_windows"), None) == Some(0.0))
    })
    .await;
    assert!(running.value("airan_processor_restated_windows_total", None) >= Some(3.0));
    assert_eq!(running.value("airan_processor_restate_failures_total", None), Some(0.0));
    assert_eq!(incomplete(&lake, "meters_latest").await, 0);
    assert!(incomplete(&lake, "meters").await > 0, "before, the gap could be seen");
    assert!(running.sums().1);
    running.stop().await;
}

/// Scenario: raw files cannot be read when late rows ask for a restatement; then they can.
/// Guarantees: the failure is counted, live windows go on meanwhile, and the restatement happens afterwards.
#[tokio::test]
async fn a_restatement_that_fails_delays_only_itself() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows((0..10).chain(20..60)));
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (20, 10, 20, 0), (30, 10, 10, 0)]).await;
    let files = lake.files("meter").await.unwrap();
    let paths: Vec<PathBuf> = files.iter().map(|file| site.path().join(&file.path)).collect();
    let away = |path: &Path| path.with_extension("away");
    paths.iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
    site.bus.append(
        0,
        site.rows(10..20).into_iter().map(|late| airan_bus::Received { append_time: T0 + 62_000_000, ..late }),
    );
    until("it fails", || running.value("airan_processor_restate_failures_total", None) >= Some(1.0)).await;
    site.bus.append(0, site.rows(60..90));
    until("live windows go on", || running.value("airan_meter_total", None) >= Some(69.0 - 10.0)).await;
    paths.iter().for_each(|path| std::fs::rename(away(path), path).unwrap());
    let wanted = [(0, 10, 9, 0), (10, 10, 10, 0), (20, 10, 10, 1)].into_iter();
    let wanted: Vec<_> = wanted.chain((3..7).map(|window| (window * 10, 10, 10, 0))).collect();
    until_latest(&lake, &wanted).await;
    running.stop().await;
}

/// Scenario: a request for windows of the past while a processor runs, killed and started again in between; then one without a
/// processor, of a pipeline the shard did not have.
/// Guarantees: each window of the request gets one more revision, or its first; progress is seen from outside; what is done is
/// forgotten when the request is gone.
#[tokio::test]
async fn a_request_is_worked_off_with_and_without_a_processor() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..60));
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (10, 10, 10, 0), (20, 10, 10, 0), (30, 10, 10, 0)]).await;
    let from = |second: i64| T0 + second * 1_000_000;
    let request = airan_lake::Request::new(airan_lake::RequestReason::Backfill, from(12), from(31), site.clock.now());
    lake.request(&request).await.unwrap();
    running.kill().await;
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (10, 10, 10, 1), (20, 10, 10, 1), (30, 10, 10, 1)]).await;
    let names = ["meters".to_owned()];
    let progress = crate::request_progress(&lake, "memory", 1, &request, &names).await.unwrap();
    assert!(progress.len() == 1 && progress[0].is_done && progress[0].next == Some(from(40)), "{progress:?}");
    lake.remove_request(&request.id).await.unwrap();
    let left = airan_lake::Request::new(airan_lake::RequestReason::Backfill, from(0), from(1), T0 - 40 * DAY);
    lake.request(&left).await.unwrap();
    // The shard forgets the one with a later commit, and removes the other when it looks again.
    site.bus.append(0, site.rows(60..70));
    let (mut is_forgotten, mut is_removed) = (false, false);
    for _ in 0..500 {
        let progress = crate::request_progress(&lake, "memory", 1, &request, &names).await.unwrap();
        is_forgotten = progress[0].next.is_none();
        is_removed = lake.requests().await.unwrap().is_empty();
        if is_forgotten && is_removed {
            break;
        }
        site.bus.append(0, site.rows(70..71));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_forgotten, "a request that is gone is forgotten");
    assert!(is_removed, "one that somebody left long ago is removed");
    running.stop().await;

    let request = airan_lake::Request::new(airan_lake::RequestReason::Backfill, from(0), from(25), 0);
    let sql = "SELECT tumble(ts, INTERVAL '5 seconds') AS window_start, site, count(level) AS readings FROM meter
        GROUP BY tumble(ts, INTERVAL '5 seconds'), site";
    let pipelines =
        vec![meters(&site.catalog).await, crate::testing::pipeline(&site.catalog, "fives", sql, " []").await];
    let offline =
        || crate::restate_offline(&lake, &site.settings, &site.catalog, pipelines.clone(), "memory", &request);
    let report = offline().await.unwrap();
    assert_eq!((report.shards, report.windows, report.waits.len()), (1, 3 + 5, 0), "{report:?}");
    assert_eq!(offline().await.unwrap().windows, 0, "done is done");
    let context = airan_window::session_context();
    lake.register(&context).await.unwrap();
    let counted = context.sql("SELECT count(*) AS n, sum(readings) AS r, max(revision) AS v FROM fives").await.unwrap();
    let counted = counted.collect().await.unwrap();
    let value = |index: usize| {
        arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(counted[0].column(index)).value(0)
    };
    assert_eq!((value(0), value(1), value(2)), (5, 25, 0));
    assert_eq!(latest(&lake).await[1].3, 2);

    // Retention has taken out what is before 12 s: the windows of those rows stay as they are.
    std::fs::create_dir_all(site.path().join("_retention/raw_from_each")).unwrap();
    std::fs::write(site.path().join(format!("_retention/raw_from_each/{}", from(12))), "").unwrap();
    let request = airan_lake::Request::new(airan_lake::RequestReason::Backfill, from(0), from(40), 0);
    let pipelines = vec![meters(&site.catalog).await];
    let settings = &site.settings;
    let report = crate::restate_offline(&lake, settings, &site.catalog, pipelines, "memory", &request).await.unwrap();
    assert_eq!(report.windows, 2, "those from 20 s on");
    let checked = lake.check().await.unwrap();
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
}

/// Scenario: a request for a site of one shard, where there are two; then one for windows that are open.
/// Guarantees: both come to an end with it, also the one that has nothing to do: whoever asked waits for all. Only the shard that
/// the site belongs to waits for its windows to close.
#[tokio::test]
async fn a_request_is_done_where_no_site_of_it_is() {
    let site = Site::new(2);
    let lake = site.lake().await;
    (0..2).for_each(|partition| site.bus.append(partition, site.rows(0..60)));
    let running = site.start(&lake).await;
    until("all is stored", || running.rows("stored") == 120).await;
    for reason in [airan_lake::RequestReason::Backfill, airan_lake::RequestReason::Erase] {
        let mut request = airan_lake::Request::new(reason, T0, T0 + 20_000_000, site.clock.now());
        request.sites = vec!["s".to_owned()];
        lake.request(&request).await.unwrap();
        let names = ["meters".to_owned()];
        let mut progress = Vec::new();
        for _ in 0..1_000 {
            progress = crate::request_progress(&lake, "memory", 2, &request, &names).await.unwrap();
            if progress.len() == 2 && progress.iter().all(|part| part.is_done) {
                break;
            }
            // Requests are looked for with commits.
            (0..2).for_each(|partition| site.bus.append(partition, site.rows(60..61)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(progress.len() == 2 && progress.iter().all(|part| part.is_done), "{progress:?}");
        lake.remove_request(&request.id).await.unwrap();
    }
    let reason = airan_lake::RequestReason::Erase;
    let mut open = airan_lake::Request::new(reason, T0 + 50_000_000, T0 + 70_000_000, site.clock.now());
    open.sites = vec!["s".to_owned()];
    lake.request(&open).await.unwrap();
    let owner = airan_model::identity::partition_of("s", 2);
    let mut progress = Vec::new();
    for second in 0..1_000 {
        progress = crate::request_progress(&lake, "memory", 2, &open, &["meters".to_owned()]).await.unwrap();
        if progress.len() == 2 && progress.iter().all(|part| part.next.is_some()) {
            break;
        }
        // Time stands still in it.
        (0..2).for_each(|partition| site.bus.append(partition, site.rows(60..61)));
        assert!(second < 999, "{progress:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(progress.iter().all(|part| part.is_done == (part.partition != owner)), "{progress:?}");
    running.stop().await;
}

/// Scenario: a request that begins six years before the first row and ends years after the last, over two spells of rows that
/// lie a year apart.
/// Guarantees: empty years cost neither rounds nor commits: a commit for each spell, and one that says that all is done.
#[tokio::test]
async fn a_request_over_empty_years_is_done_in_a_few_commits() {
    let site = Site::new(1);
    let lake = site.lake().await;
    let year = 365 * 86_400;
    site.bus.append(0, site.rows(0..30));
    site.bus.append(0, site.rows(year..year + 30));
    let running = site.start(&lake).await;
    until("all is stored", || running.rows("stored") == 60).await;
    running.stop().await;
    let windows = latest(&lake).await.len();
    let request =
        airan_lake::Request::new(airan_lake::RequestReason::Backfill, T0 - 6 * 365 * DAY, T0 + 9 * 365 * DAY, 0);
    let pipelines = vec![meters(&site.catalog).await];
    let settings = &site.settings;
    let report = crate::restate_offline(&lake, settings, &site.catalog, pipelines, "memory", &request).await.unwrap();
    assert!(report.waits.is_empty() && report.commits <= 3, "{report:?}");
    let found = latest(&lake).await;
    assert!(windows == 4 && found.len() == windows && found.iter().all(|row| row.3 == 1), "{found:?}");
}

/// A site with a row a second, and what its processor left: four windows of 10 s.
async fn with_four_windows() -> (Site, Lake) {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..60));
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (10, 10, 10, 0), (20, 10, 10, 0), (30, 10, 10, 0)]).await;
    running.stop().await;
    (site, lake)
}

/// Computes the windows of the first `seconds` again, by this pipeline and without a processor.
async fn backfill(site: &Site, lake: &Lake, pipeline: &Pipeline, seconds: i64) -> crate::OfflineReport {
    let request = airan_lake::Request::new(airan_lake::RequestReason::Backfill, T0, T0 + seconds * 1_000_000, 0);
    let (settings, pipelines) = (&site.settings, vec![pipeline.clone()]);
    crate::restate_offline(lake, settings, &site.catalog, pipelines, "memory", &request).await.unwrap()
}

/// Scenario: a pipeline is corrected so that a group, all there is of a window, is no longer in its result, and its windows are
/// computed again, twice; files are merged; then the pipeline is as it was, and they are computed once more.
/// Guarantees: W2; nobody sees the group as current while the window has none; that it has none is said once, in a revision of its
/// own, with the region; revisions go on from there; the lake is sound.
#[tokio::test]
async fn a_window_that_is_left_without_a_group_is_no_longer_shown() {
    let (site, lake) = with_four_windows().await;
    let sql = "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, node, part, count(level) AS readings,
        sum(level) AS level_sum, max(level) AS level_max, sum(total_increase) AS total,
        sum(total_increase_seconds) AS total_seconds, sum(whole_increase) AS whole
        FROM meter WHERE level < 10 OR level >= 20 GROUP BY tumble(ts, INTERVAL '10 seconds'), site, node, part";
    let corrected = crate::testing::pipeline(&site.catalog, "meters", sql, " []").await;
    let again = async |pipeline: &Pipeline| backfill(&site, &lake, pipeline, 30).await;
    let starts = async || latest(&lake).await.into_iter().map(|row| (row.0, row.3)).collect::<Vec<_>>();
    let said = async || {
        let context = airan_window::session_context();
        lake.register(&context).await.unwrap();
        let sql = "SELECT count(*) FROM meters WHERE emptied AND site = 's' AND node IS NULL AND readings IS NULL AND revision = 1";
        let counted = context.sql(sql).await.unwrap().collect().await.unwrap();
        arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(counted[0].column(0)).value(0)
    };
    for revision in 1..3 {
        assert_eq!(again(&corrected).await.windows, 3);
        assert_eq!(starts().await, [(0, revision), (20, revision), (30, 0)]);
        assert_eq!(said().await, 1);
    }
    lake.publish(T0 + 2 * DAY).await.unwrap();
    lake.compact(None, T0 + 2 * DAY, |_| {}).await.unwrap();
    assert_eq!(starts().await, [(0, 2), (20, 2), (30, 0)]);
    again(&meters(&site.catalog).await).await;
    assert_eq!(starts().await, [(0, 3), (10, 2), (20, 3), (30, 0)]);
    let fresh = site.lake().await;
    fresh.publish(T0 + 2 * DAY).await.unwrap();
    let checked = fresh.check().await.unwrap();
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
}

/// Scenario: a pipeline gets windows of twice the width, and the past is computed again, twice; then the width is as it was.
/// Guarantees: nobody sees a row in windows of two widths: those of the width before are said to be without a group, once, with
/// their own end, and all rows are in the windows of now.
#[tokio::test]
async fn windows_of_another_width_leave_with_a_backfill() {
    let (site, lake) = with_four_windows().await;
    let sql = "SELECT tumble(ts, INTERVAL '20 seconds') AS window_start, site, node, part, count(level) AS readings,
        sum(level) AS level_sum, max(level) AS level_max, sum(total_increase) AS total,
        sum(total_increase_seconds) AS total_seconds, sum(whole_increase) AS whole
        FROM meter GROUP BY tumble(ts, INTERVAL '20 seconds'), site, node, part";
    let wider = crate::testing::pipeline(&site.catalog, "meters", sql, " []").await;
    let again = async |pipeline: &Pipeline| backfill(&site, &lake, pipeline, 40).await;
    // (start, seconds, revision) of the rows that `filter` leaves.
    let windows = async |table: &str, filter: &str| {
        let context = airan_window::session_context();
        lake.register(&context).await.unwrap();
        let sql = format!(
            "SELECT (CAST(window_start AS BIGINT) - {T0}) / 1000000, (CAST(window_end AS BIGINT) - CAST(window_start AS BIGINT)) / 1000000, \
             revision FROM {table} WHERE {filter} ORDER BY 1, 3"
        );
        let mut found = Vec::new();
        for batch in context.sql(&sql).await.unwrap().collect().await.unwrap() {
            let column = |index: usize| {
                let column = arrow::compute::cast(batch.column(index), &arrow::datatypes::DataType::Int64).unwrap();
                arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).values().to_vec()
            };
            let (start, seconds, revision) = (column(0), column(1), column(2));
            found.extend((0..batch.num_rows()).map(|row| (start[row], seconds[row], revision[row])));
        }
        found
    };
    for revision in 1..3 {
        again(&wider).await;
        assert_eq!(windows("meters_latest", "true").await, [(0, 20, revision), (20, 20, revision)]);
        assert_eq!(windows("meters", "emptied").await, [(10, 10, 1), (30, 10, 1)]);
        assert_eq!(latest(&lake).await.iter().map(|row| row.1).collect::<Vec<_>>(), [20, 20]);
    }
    again(&meters(&site.catalog).await).await;
    assert_eq!(windows("meters_latest", "true").await, [(0, 10, 3), (10, 10, 2), (20, 10, 3), (30, 10, 2)]);
}
