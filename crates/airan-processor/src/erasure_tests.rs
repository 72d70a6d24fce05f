use airan_lake::Request;

use super::*;

/// Erases from the lake what `condition` is true of, has the windows restated by `restate`, and takes the older results out.
async fn erase(lake: &Lake, condition: &str, restate: impl AsyncFn(&Request)) {
    let mut erasure = lake.begin_erasure(condition, &[], T0).await.unwrap();
    let report = lake.erase(&mut erasure, T0, |_| {}).await.unwrap();
    assert_eq!(report.tables.len(), 1, "{report:?}");
    let series = crate::series(&crate::testing::catalog());
    let mut again = None;
    while lake.note_followers(&mut erasure, &series, DAY, T0).await.unwrap() || again.is_none() {
        let [settle, restate_again] = erasure.requests(&["meters".to_owned()]).unwrap();
        restate(&settle).await;
        again = Some(restate_again);
    }
    let (affected, again) = (erasure.affected_by(&["meter".to_owned()]), again.unwrap());
    assert!(lake.note_windows(&erasure, "meters", &affected, T0).await.unwrap() > 0);
    restate(&again).await;
    lake.erase_windows(&erasure, "meters", &affected, T0).await.unwrap();
    for id in erasure.request_ids() {
        lake.remove_request(&id).await.unwrap();
    }
    lake.finish_erasure(&erasure).await.unwrap();
}

/// The newest results without their revision.
async fn results(lake: &Lake) -> Vec<(i64, i64, i64)> {
    latest(lake).await.into_iter().map(|row| (row.0, row.1, row.2)).collect()
}

/// The windows of all results there are between two seconds, those of older revisions included.
async fn all_between(lake: &Lake, span: std::ops::Range<i64>) -> Vec<i64> {
    windows(lake).await.into_iter().map(|row| row.0).filter(|start| span.contains(start)).collect()
}

/// Scenario: rows of a whole window and of half of the next are erased while the processor runs; then others without one.
/// Guarantees: rows and windows are those of a site that never had these rows, rises over the gap included; no result made of
/// them is left in any revision, nor of the window after them, whose first rise was; the lake is sound.
#[tokio::test]
async fn after_an_erasure_windows_are_those_of_a_site_that_never_had_the_rows() {
    let site = Site::new(1);
    let lake = site.lake().await;
    site.bus.append(0, site.rows(0..60));
    let running = site.start(&lake).await;
    until_latest(&lake, &[(0, 10, 9, 0), (10, 10, 10, 0), (20, 10, 10, 0), (30, 10, 10, 0)]).await;
    erase(&lake, "level >= 10 AND level < 25", async |request: &Request| {
        lake.request(request).await.unwrap();
        let names = ["meters".to_owned()];
        for _ in 0..1_000 {
            let progress = crate::request_progress(&lake, "memory", 1, request, &names).await.unwrap();
            if progress.iter().all(|progress| progress.is_done) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the request was not worked off within 20 s");
    })
    .await;
    running.stop().await;
    let left: Vec<f64> = (0..10).chain(25..60).map(|second| second as f64).collect();
    assert_eq!(stored(&lake, 0).await, left);

    let never = Site::new(1);
    let wanted = never.lake().await;
    never.bus.append(0, never.rows((0..10).chain(25..60)));
    let running = never.start(&wanted).await;
    until_latest(&wanted, &[(0, 10, 9, 0), (20, 5, 20, 0), (30, 10, 10, 0)]).await;
    running.stop().await;
    assert_eq!(results(&lake).await, results(&wanted).await);
    assert_eq!(all_between(&lake, 0..30).await, [0, 20]);

    let offline = async |request: &Request| {
        let pipelines = vec![meters(&site.catalog).await];
        let done =
            crate::restate_offline(&lake, &site.settings, &site.catalog, pipelines, "memory", request).await.unwrap();
        assert!(done.waits.is_empty(), "{done:?}");
    };
    erase(&lake, "level = 31", offline).await;
    let newest = results(&lake).await;
    assert!(newest.contains(&(30, 9, 10)), "{newest:?}");
    assert_eq!(all_between(&lake, 30..40).await, [30]);

    // The last row of a window, of which the rise of the first row of the next was computed.
    erase(&lake, "level = 29", offline).await;
    let newest = latest(&lake).await;
    let after = newest.iter().find(|row| row.0 == 30).unwrap();
    assert!((after.1, after.2) == (9, 11), "{newest:?}");
    assert_eq!(all_between(&lake, 20..40).await, [20, 30], "what they were before the erasure is gone");
    let report = lake.check().await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}
