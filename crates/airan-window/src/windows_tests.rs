use airan_model::time::{DAY, SECOND};
use proptest::prelude::*;

use super::*;
use crate::testing::{
    Row, assert_same, by_site, floats, meters, one_shot, open, others, plan, row, starts, tables, values,
};

/// All aggregates whose result does not depend on how rows were merged, in one query.
const EXACT: &str =
    "avg(level) AS mean, sum(level) AS total, min(level) AS least, max(level) AS most, count(level) AS n,
    sum(whole) AS whole_total, min(part) AS first_part, count(DISTINCT part) AS parts, approx_distinct(part) AS about,
    stddev(level) AS deviation, first_value(level ORDER BY ts) AS first, last_value(level ORDER BY ts) AS last,
    count(level) FILTER (WHERE part <> 'p1') AS others, avg(CASE WHEN part = 'p0' THEN 1.0 ELSE 0.0 END) AS share,
    histogram_quantile(0.5, histogram_merge(spread_increase)) AS median,
    histogram_count(histogram_merge(spread_increase)) AS observations";

const JOINED: &str = "WITH m AS (SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, sum(level) AS level,
        count(DISTINCT part) AS parts FROM meter WHERE part <> 'p2' GROUP BY tumble(ts, INTERVAL '10 seconds'), site),
    o AS (SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, max(size) AS size FROM other
        GROUP BY tumble(ts, INTERVAL '10 seconds'), site)
    SELECT coalesce(m.window_start, o.window_start) AS window_start, coalesce(m.site, o.site) AS site, m.level AS level,
        m.parts AS parts, o.size AS size, m.level / nullif(o.size, 0.0) AS quotient
    FROM m FULL JOIN o ON m.window_start = o.window_start AND m.site = o.site";

/// Rows with times of their own, so that first and last are well defined.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (-30i64..60, 0u8..3, 0u8..4, prop::option::weighted(0.8, -1e3f64..1e3), prop::option::of(-100i64..100));
    prop::collection::vec(row, 1..120).prop_map(|rows| {
        let rows = rows.into_iter().enumerate();
        rows.map(|(n, (second, site, part, level, whole))| Row {
            at: second * SECOND + n as i64,
            site,
            part,
            level,
            whole,
        })
        .collect()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// What is done between two pushes.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Run,
    Fold,
}

async fn interrupt(windows: &mut Windows, between: Between) {
    if matches!(between, Between::Run | Between::Fold) {
        for number in 0..windows.waiting.len() {
            windows.absorb(number).await.unwrap();
        }
    }
    if matches!(between, Between::Fold) {
        for start in windows.open.keys().copied().collect::<Vec<_>>() {
            for number in 0..windows.waiting.len() {
                windows.fold(start, number).await.unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Scenario: rows of several sites over some windows, before and after 1970; pushed in another order, cut anywhere, run and
    /// folded anywhere, closed in steps.
    /// Guarantees: W1 and W3 at this level: the closed windows are the groups of a GROUP BY over all rows at once; integers
    /// equal, floats within 1e-9.
    #[test]
    fn any_cut_and_any_order_gives_what_one_group_by_gives(
        (rows, pushed) in rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        cuts in prop::collection::vec((1usize..40, prop_oneof![Just(Between::Nothing), Just(Between::Run), Just(Between::Fold)]), 1..40),
        steps in prop::collection::vec(-40i64..70, 0..4),
    ) {
        runtime().block_on(async {
            let sizes: Vec<(i64, u8, f64)> = rows.iter().filter(|row| row.part == 3).map(|row| (row.at, row.site, f64::from(row.site))).collect();
            let (meter, other) = (meters(&rows), others(&sizes));
            for sql in [by_site(EXACT), JOINED.to_owned()] {
                let mut windows = open(&sql).await;
                let mut left = pushed.as_slice();
                for (size, between) in cuts.iter().cycle() {
                    if left.is_empty() {
                        break;
                    }
                    let (now, later) = left.split_at((*size).min(left.len()));
                    windows.push("meter", &meters(now)).await.unwrap();
                    interrupt(&mut windows, *between).await;
                    left = later;
                }
                if windows.plan.streams().len() > 1 {
                    windows.push("other", &other).await.unwrap();
                }
                let mut closed = Vec::new();
                for at in steps.iter().copied().chain([DAY / SECOND]) {
                    closed.extend(windows.close_through(at * SECOND).await.unwrap());
                }
                prop_assert!(closed.is_sorted_by_key(|window| window.start));
                prop_assert_eq!((windows.open_windows().len(), windows.state_bytes()), (0, 0));
                let (names, wanted) = one_shot(&sql, &meter, &other).await;
                assert_same(&values(&tables(&closed), &names), &values(&wanted, &names), &sql);
            }
            Ok(())
        })?;
    }
}

/// The same query over windows of 30 s, one beginning each 10 s; and what it means, over rows that each stand once for every window that
/// holds them.
fn hopping(values: &str) -> (String, String) {
    let hop = "hop(ts, INTERVAL '10 seconds', INTERVAL '30 seconds')";
    let sql = format!("SELECT {hop} AS window_start, site, {values} FROM meter GROUP BY {hop}, site");
    let copy = |panes: i64| {
        format!(
            "SELECT tumble(ts, INTERVAL '10 seconds') - INTERVAL '{} seconds' AS window_start, * FROM meter",
            panes * 10
        )
    };
    let copies = [copy(0), copy(1), copy(2)].join(" UNION ALL ");
    (sql, format!("SELECT window_start, site, {values} FROM ({copies}) GROUP BY window_start, site"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Scenario: rows over some hopping windows, before and after 1970, in another order, cut, run and folded anywhere, closed in steps;
    /// those that come behind a step and are in no open window any more are left out.
    /// Guarantees: W1 and W3 for windows that overlap: each window that closes is the group of all rows pushed before it closed that it
    /// holds; panes go with their last window.
    #[test]
    fn a_hopping_window_is_a_group_by_over_all_that_it_holds(
        (rows, pushed) in rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        cuts in prop::collection::vec((1usize..40, prop_oneof![Just(Between::Nothing), Just(Between::Run), Just(Between::Fold)]), 1..40),
        steps in prop::collection::vec(-40i64..110, 0..4),
    ) {
        runtime().block_on(async {
            let (sql, meaning) = hopping(EXACT);
            let mut windows = open(&sql).await;
            let mut left = pushed.as_slice();
            for (size, between) in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (now, later) = left.split_at((*size).min(left.len()));
                windows.push("meter", &meters(now)).await.unwrap();
                interrupt(&mut windows, *between).await;
                left = later;
            }
            let mut closed = Vec::new();
            for at in steps.iter().copied().chain([DAY / SECOND]) {
                closed.extend(windows.close_through(at * SECOND).await.unwrap());
            }
            prop_assert!(closed.windows(2).all(|pair| pair[0].start < pair[1].start));
            prop_assert!(closed.iter().all(|window| window.end - window.start == 30 * SECOND));
            prop_assert_eq!((windows.open_windows().len(), windows.state_bytes()), (0, 0));
            let (names, wanted) = one_shot(&meaning, &meters(&rows), &others(&[])).await;
            assert_same(&values(&tables(&closed), &names), &values(&wanted, &names), &sql);
            Ok(())
        })?;
    }
}

/// Scenario: windows of 30 s each 10 s; rows come, a window closes, and a row comes that is late for it but not for the two others that hold
/// it; then one that is late for all.
/// Guarantees: the first window says what it knew; the others hold the late row; the last row is refused; bytes of panes go with
/// the last of their windows.
#[tokio::test]
async fn a_row_that_is_late_for_some_windows_is_in_the_others() {
    let (sql, _) = hopping("sum(level) AS total");
    let mut windows = open(&sql).await;
    windows.push("meter", &meters(&[row(25 * SECOND, 1.0)])).await.unwrap();
    assert_eq!(windows.open_windows().iter().map(|window| window.start / SECOND).collect::<Vec<_>>(), [0, 10, 20]);
    let closed = windows.close_through(30 * SECOND).await.unwrap();
    assert_eq!((starts(&closed), floats(&closed, "total")), (vec![0], vec![Some(1.0)]));
    windows.push("meter", &meters(&[row(21 * SECOND, 10.0), row(45 * SECOND, 100.0)])).await.unwrap();
    let closed = windows.close_through(49 * SECOND).await.unwrap();
    assert_eq!((starts(&closed), floats(&closed, "total")), (vec![10], vec![Some(11.0)]));
    let closed = windows.close_through(50 * SECOND).await.unwrap();
    assert_eq!((starts(&closed), floats(&closed, "total")), (vec![20], vec![Some(111.0)]));
    let late = windows.push("meter", &meters(&[row(29 * SECOND, 1.0)])).await.unwrap_err();
    assert!(matches!(late, WindowError::Closed { .. }), "{late}");
    let closed = windows.close_through(DAY).await.unwrap();
    assert_eq!((starts(&closed), floats(&closed, "total")), (vec![30, 40], vec![Some(100.0); 2]));
    assert_eq!(windows.state_bytes(), 0);
}

/// Scenario: windows that go on where others closed.
/// Guarantees: no window that had closed closes again, and those that had not hold their rows.
#[tokio::test]
async fn windows_that_had_closed_do_not_close_again() {
    let (sql, _) = hopping("sum(level) AS total");
    let mut windows = open(&sql).await;
    windows.resume(45 * SECOND);
    windows.push("meter", &meters(&[row(20 * SECOND, 1.0), row(35 * SECOND, 10.0)])).await.unwrap();
    let closed = windows.close_through(DAY).await.unwrap();
    assert_eq!((starts(&closed), floats(&closed, "total")), (vec![20, 30], vec![Some(11.0), Some(10.0)]));
}

/// Scenario: the watermark passes while there is no row at all; then one comes that is late for one of its windows.
/// Guarantees: a window that closed without rows does not close again.
#[tokio::test]
async fn a_window_that_closed_empty_does_not_close_again() {
    let (sql, _) = hopping("sum(level) AS total");
    let mut windows = open(&sql).await;
    assert!(windows.close_through(30 * SECOND).await.unwrap().is_empty());
    windows.push("meter", &meters(&[row(25 * SECOND, 1.0)])).await.unwrap();
    assert_eq!(starts(&windows.close_through(DAY).await.unwrap()), [10, 20]);
}

/// Scenario: as many groups in each of three panes, under a limit that holds four panes' state.
/// Guarantees: the state of panes is counted, and a fourth pane of the same size with its groups is refused.
#[tokio::test]
async fn panes_count_and_have_a_limit() {
    let (sql, _) = hopping("sum(level) AS total, count(DISTINCT part) AS parts");
    let pane = |at: i64| -> Vec<Row> {
        (0..200).map(|n| Row { site: n as u8, part: (n % 7) as u8, ..row(at * SECOND + n, 1.0) }).collect()
    };
    let mut windows = plan(&sql).await.open(usize::MAX);
    windows.push("meter", &meters(&pane(5))).await.unwrap();
    interrupt(&mut windows, Between::Run).await;
    let one = windows.state_bytes();
    let mut windows = plan(&sql).await.open(one * 7 / 2);
    for at in [5, 15, 25] {
        windows.push("meter", &meters(&pane(at))).await.unwrap();
        interrupt(&mut windows, Between::Run).await;
    }
    assert!(windows.state_bytes() > one * 5 / 2, "{} of {one} each", windows.state_bytes());
    let full = windows.push("meter", &meters(&pane(35))).await.unwrap_err();
    assert!(matches!(full, WindowError::StateLimit { .. }), "{full}");
}

/// Scenario: a fold that merged nothing, so that every group is in the state many times over, also within one batch.
/// Guarantees: the result is that of state without duplicates.
#[tokio::test]
async fn duplicate_groups_in_folded_state_change_nothing() {
    let rows: Vec<Row> =
        (0..90).map(|n| Row { site: (n % 2) as u8, part: (n % 5) as u8, ..row(n * 100_000, n as f64) }).collect();
    let (names, wanted) = one_shot(&by_site(EXACT), &meters(&rows), &others(&[])).await;
    let mut windows = open(&by_site(EXACT)).await;
    for few in rows.chunks(7) {
        windows.push("meter", &meters(few)).await.unwrap();
        windows.absorb(0).await.unwrap();
    }
    let state = &mut windows.open.get_mut(&0).unwrap()[0];
    let batches = state.take();
    let duplicated = concat_batches(batches[0].schema_ref(), &batches).unwrap();
    assert_eq!(duplicated.num_rows(), 26);
    state.put_folded(vec![duplicated]);
    windows.bytes = state.bytes();
    let closed = windows.close_through(10 * SECOND).await.unwrap();
    assert_same(&values(&tables(&closed), &names), &values(&wanted, &names), "duplicated");
}

/// Scenario: each aggregate alone, over rows with nulls, in pushes of one row, each run and folded.
/// Guarantees: what DataFusion gives in one shot, also for the ones that are rewritten when alone, such as count(DISTINCT).
#[tokio::test]
async fn each_aggregate_alone_survives_being_cut_to_single_rows() {
    let rows: Vec<Row> = (0..24i64)
        .map(|n| Row {
            site: (n % 2) as u8,
            part: (n % 3) as u8,
            level: (n % 4 != 0).then_some(n as f64),
            ..row(n * SECOND, 1.0)
        })
        .collect();
    for aggregate in [
        "avg(level)",
        "sum(level)",
        "sum(whole)",
        "min(level)",
        "max(part)",
        "count(*)",
        "count(level)",
        "count(DISTINCT part)",
        "approx_distinct(whole)",
        "stddev(level)",
        "first_value(part ORDER BY ts)",
        "last_value(level ORDER BY ts)",
        "approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY whole)",
        "histogram_quantile(0.9, histogram_merge(spread_increase))",
        "histogram_sum(histogram_merge(spread_increase))",
    ] {
        let sql = by_site(&format!("{aggregate} AS value"));
        let mut windows = open(&sql).await;
        for one in &rows {
            windows.push("meter", &meters(std::slice::from_ref(one))).await.unwrap();
            interrupt(&mut windows, Between::Fold).await;
        }
        let closed = windows.close_through(DAY).await.unwrap();
        let (names, wanted) = one_shot(&sql, &meters(&rows), &others(&[])).await;
        assert_same(&values(&tables(&closed), &names), &values(&wanted, &names), aggregate);
        assert_eq!(starts(&closed), [0, 10, 20], "{aggregate}");
    }
}

/// Scenario: percentiles of more values than a sketch holds, cut into runs.
/// Guarantees: the sketch's error stays small however rows are cut; it is no exact function of the rows.
#[tokio::test]
async fn percentiles_stay_near_the_truth_when_cut() {
    let rows: Vec<Row> = (0..20_000i64).map(|n| row(n, ((n * 7_919) % 20_000) as f64)).collect();
    let mut windows = open(&by_site("approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY level) AS p99")).await;
    for some in rows.chunks(333) {
        windows.push("meter", &meters(some)).await.unwrap();
        interrupt(&mut windows, Between::Fold).await;
    }
    let p99 = floats(&windows.close_through(DAY).await.unwrap(), "p99")[0].unwrap();
    assert!((p99 - 19_800.0).abs() < 100.0, "{p99}");
}

/// Scenario: rows on both sides of edges, before 1970 too; the watermark just before, on and after an edge.
/// Guarantees: W1; a window closes when the watermark reaches its end and not before, once; windows without rows do not appear.
#[tokio::test]
async fn windows_close_when_the_watermark_reaches_their_end() {
    let mut windows = open(&by_site("sum(level) AS total")).await;
    let rows = [row(-1, 1.0), row(0, 2.0), row(9_999_999, 4.0), row(10_000_000, 8.0), row(45 * SECOND, 16.0)];
    windows.push("meter", &meters(&rows)).await.unwrap();
    let open_starts: Vec<i64> = windows.open_windows().iter().map(|window| window.start / SECOND).collect();
    assert_eq!(open_starts, [-10, 0, 10, 40]);
    for (watermark, total) in [
        (-1, vec![]),
        (0, vec![1.0]),
        (0, vec![]),
        (9_999_999, vec![]),
        (29_999_999, vec![6.0, 8.0]),
        (10 * SECOND, vec![]),
        (50 * SECOND, vec![16.0]),
    ] {
        let closed = windows.close_through(watermark).await.unwrap();
        let found: Vec<f64> = floats(&closed, "total").into_iter().flatten().collect();
        assert_eq!(found, total, "watermark {watermark}");
        assert!(closed.iter().all(|window| window.end - window.start == 10 * SECOND && window.end <= watermark));
    }
}

/// Scenario: two streams; windows in which the one, the other or both have rows; a site in one of them only.
/// Guarantees: the join is SQL's: FULL JOIN gives the row with nulls, JOIN leaves it out, LEFT JOIN keeps its left side.
#[tokio::test]
async fn a_stream_without_rows_in_a_window_joins_as_sql_says() {
    for (join, sites) in [("FULL JOIN", vec![2, 1, 1]), ("LEFT JOIN", vec![1, 1]), ("JOIN", vec![1])] {
        let sql = JOINED.replace("FULL JOIN", join);
        let mut windows = open(&sql).await;
        windows.push("other", &others(&[(1, 0, 2.0), (2, 1, 3.0), (20 * SECOND, 0, 5.0)])).await.unwrap();
        windows.push("meter", &meters(&[row(3, 8.0), row(10 * SECOND, 1.0)])).await.unwrap();
        let closed = windows.close_through(DAY).await.unwrap();
        let rows: Vec<usize> = closed.iter().map(|window| window.rows.num_rows()).collect();
        assert_eq!(rows, sites, "{join}");
        assert_eq!(floats(&closed, "quotient").iter().flatten().copied().collect::<Vec<_>>(), [4.0], "{join}");
        assert_eq!(closed[0].rows.column_by_name("window_start").unwrap().null_count(), 0);
    }
}

/// Scenario: HAVING, CASE, a second aggregation over the window, a union of two aggregates of one stream, one WITH read twice.
/// Guarantees: the rest of the query runs over each closed window as over a table; what leaves no row leaves no window.
#[tokio::test]
async fn the_rest_of_the_query_runs_over_the_closed_window() {
    let rows: Vec<Row> = (0..40i64).map(|n| Row { part: (n % 4) as u8, ..row(n * SECOND, n as f64) }).collect();
    let parts =
        "WITH parts AS (SELECT tumble(ts, INTERVAL '10 seconds') AS w, site, part, sum(level) AS total FROM meter
        GROUP BY tumble(ts, INTERVAL '10 seconds'), site, part)";
    for sql in [
        format!("{} HAVING sum(level) > 200", by_site("sum(level) AS total, CASE WHEN max(level) > 25 THEN 'high' ELSE 'low' END AS how")),
        format!("{parts} SELECT w AS window_start, site, max(total) AS most, count(*) AS n FROM parts GROUP BY w, site"),
        format!("{parts} SELECT a.w AS window_start, a.site AS site, a.part AS part, a.total - b.total AS difference
            FROM parts a JOIN parts b ON a.w = b.w AND a.site = b.site WHERE b.part = 'p0'"),
        format!("{parts} SELECT DISTINCT w AS window_start, site, total > 50 AS big FROM parts"),
        format!("{} UNION ALL {}", by_site("'a' AS which, sum(level) AS value"), by_site("'b' AS which, max(level) AS value")),
        "SELECT t.w AS window_start, t.site, sum(t.double) AS total FROM (SELECT tumble(ts, INTERVAL '10 seconds') AS w, site,
            level * 2 AS double FROM meter WHERE part <> 'p1') t GROUP BY t.w, t.site".to_owned(),
        format!("WITH meter AS ({}) SELECT window_start, site, total FROM meter WHERE total > 50", by_site("sum(level) AS total")),
    ] {
        let mut windows = open(&sql).await;
        for some in rows.chunks(9) {
            windows.push("meter", &meters(some)).await.unwrap();
            interrupt(&mut windows, Between::Run).await;
        }
        let closed = windows.close_through(DAY).await.unwrap();
        let (names, wanted) = one_shot(&sql, &meters(&rows), &others(&[])).await;
        assert_same(&values(&tables(&closed), &names), &values(&wanted, &names), &sql);
        assert!(!closed.is_empty() && closed.iter().all(|window| window.rows.num_rows() > 0), "{sql}");
    }
}

/// Scenario: many rows of few groups, then rows of ever new groups.
/// Guarantees: memory follows groups, not rows; over the limit the error names limit and setting.
#[tokio::test]
async fn memory_follows_groups_and_has_a_limit() {
    let sql = by_site("part, sum(level) AS total, count(DISTINCT whole) AS n") + ", part";
    let mut windows = plan(&sql).await.open(1 << 20);
    let rows: Vec<Row> =
        (0..2_048i64).map(|n| Row { part: (n % 16) as u8, whole: Some(n % 8), ..row(n, 1.0) }).collect();
    let batch = meters(&rows);
    for _ in 0..200 {
        windows.push("meter", &batch).await.unwrap();
    }
    assert!(windows.state_bytes() < 1 << 20);
    let mut pushed = 0;
    let error = loop {
        let at = pushed * 10 * SECOND;
        let Err(error) = windows.push("meter", &meters(&[row(at, 1.0)])).await else {
            pushed += 1;
            assert!(pushed < 10_000, "no limit");
            continue;
        };
        break error;
    };
    assert!(matches!(error, WindowError::StateLimit { limit, held } if limit == 1 << 20 && held > limit));
    assert!(error.to_string().contains("windows.state_bytes"), "{error}");
}

/// Scenario: enough rows in one window for many runs.
/// Guarantees: state is folded on its own as it grows, and the result is right.
#[tokio::test]
async fn state_is_folded_as_it_grows() {
    let mut windows = open(&(by_site("part, sum(whole) AS total") + ", part")).await;
    let groups = 3 * 200;
    let rows: Vec<Row> = (0..40_000i64)
        .map(|n| Row { site: (n % 3) as u8, part: (n % 200) as u8, whole: Some(1), ..row(n, 1.0) })
        .collect();
    let batch = meters(&rows);
    let mut most = 0;
    for _ in 0..120 {
        windows.push("meter", &batch).await.unwrap();
        most = most.max(windows.open[&0][0].rows());
    }
    assert!(120 * groups > 2 * 32_768 && (32_000..33_500).contains(&most), "{most} rows of state");
    let closed = windows.close_through(DAY).await.unwrap();
    assert_eq!(closed[0].rows.num_rows(), groups);
    assert_eq!(floats(&closed, "total").iter().flatten().sum::<f64>(), 120.0 * 40_000.0);
}

/// Scenario: rows that are no rows of the stream, without time, of a closed window, of a stream the pipeline does not read.
/// Guarantees: each is refused by name, none is dropped in silence.
#[tokio::test]
async fn rows_that_cannot_have_a_window_are_refused() {
    let mut windows = open(&by_site("sum(level) AS total")).await;
    let batch = meters(&[row(0, 1.0)]);
    assert!(matches!(windows.push("other", &batch).await, Err(WindowError::NoSuchStream(stream)) if stream == "other"));
    let without_level = batch.project(&[0, 1, 2]).unwrap();
    let found = windows.push("meter", &without_level).await;
    assert!(matches!(found, Err(WindowError::WrongColumn { column, .. }) if column == "level"));
    let without_time = batch.project(&[1, 2, 4]).unwrap();
    assert!(
        matches!(windows.push("meter", &without_time).await, Err(WindowError::WrongColumn { column, .. }) if column == "ts")
    );
    let mut columns = batch.columns().to_vec();
    columns[0] = arrow::array::new_null_array(columns[0].data_type(), 1);
    let no_time = RecordBatch::try_new(batch.schema(), columns).unwrap();
    assert!(matches!(windows.push("meter", &no_time).await, Err(WindowError::NoEventTime(_))));
    windows.close_through(10 * SECOND).await.unwrap();
    assert!(matches!(
        windows.push("meter", &batch).await,
        Err(WindowError::Closed { at: 0, closed_through: 10_000_000 })
    ));
    windows.push("meter", &meters(&[row(10 * SECOND, 1.0)])).await.unwrap();
}

/// Scenario: a result with integers, a flag and text, its columns in another order, without the window.
/// Guarantees: every window table begins with the window and ends with revision and completeness; no unsigned integers.
#[tokio::test]
async fn every_result_has_the_columns_of_a_window_table() {
    let sql = "SELECT approx_distinct(part) AS parts, part, site FROM meter GROUP BY tumble(ts, INTERVAL '1 minute'), part, site";
    let plan = plan(sql).await;
    let names: Vec<&str> = plan.output_schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["window_start", "window_end", "parts", "part", "site", "revision", "completeness"]);
    assert_eq!(plan.group_columns(), ["part", "site"]);
    assert_eq!((plan.cut().size(), plan.streams()), (60 * SECOND, &[Arc::<str>::from("meter")][..]));
    let mut windows = plan.open(1 << 20);
    windows.push("meter", &meters(&[row(61 * SECOND, 1.0)])).await.unwrap();
    let closed = windows.close_through(DAY).await.unwrap();
    assert_eq!(closed[0].rows.schema(), *plan.output_schema());
    assert_eq!((closed[0].start, closed[0].end), (60 * SECOND, 120 * SECOND));
    let shown = arrow::util::pretty::pretty_format_batches(&tables(&closed)).unwrap().to_string();
    assert!(
        shown.contains("| 1970-01-01T00:01:00Z | 1970-01-01T00:02:00Z | 1     | p0   | s0   | 0        |"),
        "{shown}"
    );
}
