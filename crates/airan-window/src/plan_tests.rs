use super::*;
use crate::testing::{by_site, plan, try_plan};

/// What is refused, and where.
async fn refused(sql: &str) -> (Refusal, Option<(u64, u64)>) {
    match try_plan(sql).await {
        Ok(_) => panic!("planned: {sql}"),
        Err(PlanError::Refused { place, refusal }) => (refusal, Some((place.line, place.column))),
        Err(PlanError::Query(refusal)) => (refusal, None),
        Err(PlanError::Engine(error)) => panic!("not refused but failed: {error}"),
    }
}

#[tokio::test]
async fn a_query_without_a_window_is_refused() {
    let sql = "SELECT site, sum(level) AS total\nFROM meter\nGROUP BY site";
    let (refusal, place) = refused(sql).await;
    assert_eq!((&refusal, place), (&Refusal::NoWindow("meter".to_owned()), Some((3, 10))));
    assert!(refusal.to_string().contains("its state would grow for ever"));
    let (refusal, place) = refused("SELECT site, level FROM meter").await;
    assert_eq!((refusal, place), (Refusal::NoWindow("meter".to_owned()), Some((1, 25))));
}

#[tokio::test]
async fn a_group_by_without_site_is_refused() {
    let sql = "SELECT part, sum(level) AS total FROM meter\nGROUP BY tumble(ts, INTERVAL '10 seconds'), part";
    assert_eq!(refused(sql).await, (Refusal::NoSite("meter".to_owned()), Some((2, 10))));
}

#[tokio::test]
async fn a_join_of_raw_streams_is_refused() {
    let sql = "SELECT tumble(m.ts, INTERVAL '10 seconds') AS window_start, m.site AS site, sum(o.size) AS total
FROM meter m
JOIN other o ON m.site = o.site
GROUP BY tumble(m.ts, INTERVAL '10 seconds'), m.site";
    assert_eq!(refused(sql).await, (Refusal::JoinOfStreams("other".to_owned()), Some((3, 6))));
}

#[tokio::test]
async fn a_union_or_distinct_of_raw_rows_is_refused() {
    let union = "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, count(*) AS n
        FROM (SELECT ts, site FROM meter UNION ALL SELECT ts, site FROM other) GROUP BY tumble(ts, INTERVAL '10 seconds'), site";
    let (refusal, place) = refused(union).await;
    assert_eq!((refusal, place.unwrap().0), (Refusal::BeforeWindow { step: "UNION", stream: "meter".to_owned() }, 2));
    let distinct = union
        .replace("SELECT ts, site FROM meter UNION ALL", "SELECT DISTINCT")
        .replace("SELECT DISTINCT SELECT", "SELECT DISTINCT");
    let (refusal, _) = refused(&distinct).await;
    assert_eq!(refusal, Refusal::BeforeWindow { step: "DISTINCT", stream: "other".to_owned() });
}

#[tokio::test]
async fn order_by_is_refused() {
    let sql = by_site("sum(level) AS total") + "\nORDER BY site";
    assert_eq!(refused(&sql).await, (Refusal::Ordered("ORDER BY"), Some((3, 10))));
}

#[tokio::test]
async fn limit_is_refused() {
    let sql = by_site("sum(level) AS total") + "\nLIMIT 7";
    assert_eq!(refused(&sql).await, (Refusal::Ordered("LIMIT"), Some((3, 7))));
    let sql = by_site("sum(level) AS total") + "\nFETCH FIRST 7 ROWS ONLY";
    assert_eq!(refused(&sql).await.0, Refusal::Ordered("LIMIT"));
}

#[tokio::test]
async fn over_is_refused() {
    let sql = by_site("sum(sum(level)) OVER (PARTITION BY site) AS total");
    assert_eq!(refused(&sql).await, (Refusal::Ordered("OVER"), Some((1, 65))));
}

#[tokio::test]
async fn a_subquery_is_refused() {
    let sql = by_site("sum(level) - (SELECT max(size) FROM other) AS above");
    let (refusal, place) = refused(&sql).await;
    assert_eq!((refusal, place.unwrap().0), (Refusal::Subquery, 1));
    let sql = by_site("sum(level) AS total").replace("FROM meter", "FROM meter WHERE site IN (SELECT site FROM other)");
    assert_eq!(refused(&sql).await.0, Refusal::Subquery);
    let sql = by_site("sum(level) AS total").replace("FROM meter", "FROM meter WHERE EXISTS (SELECT 1 FROM other)");
    assert_eq!(refused(&sql).await.0, Refusal::Subquery);
}

#[tokio::test]
async fn functions_that_do_not_always_give_the_same_are_refused() {
    for (call, name) in [
        ("now()", "now"),
        ("random()", "random"),
        ("current_date", "current_date"),
        ("CURRENT_TIMESTAMP", "current_timestamp"),
    ] {
        let sql = by_site(&format!("sum(level) AS total, max({call}) AS at"));
        let (refusal, place) = refused(&sql).await;
        assert_eq!((refusal, place), (Refusal::Volatile(name.to_owned()), Some((1, 90))), "{call}");
    }
}

#[tokio::test]
async fn an_aggregate_without_mergeable_state_is_refused() {
    for (call, name) in
        [("median(level)", "median"), ("array_agg(level)", "array_agg"), ("sum(DISTINCT whole)", "sum(DISTINCT)")]
    {
        let (refusal, place) = refused(&by_site(&format!("{call} AS value"))).await;
        assert_eq!((refusal, place), (Refusal::NotMergeable(name.to_owned()), Some((1, 65))), "{call}");
    }
}

#[tokio::test]
async fn windows_of_different_widths_are_refused() {
    let sql = format!(
        "{}\nUNION ALL\n{}",
        by_site("sum(level) AS n"),
        by_site("max(level) AS n").replace("10 sec", "20 sec")
    );
    let (refusal, _) = refused(&sql).await;
    let (first, second) = (10_000_000, 20_000_000);
    let of = |micros| Cut::tumbling(crate::width::WindowWidth::from_micros(micros).unwrap());
    let (first, second) = (of(first), of(second));
    assert_eq!(refusal, Refusal::DifferentWidths { first, second });
    assert!(refusal.to_string().contains("10s and of 20s"), "{refusal}");
}

#[tokio::test]
async fn a_hop_that_is_none_is_refused() {
    let hop = |spans: &str| {
        by_site("sum(level) AS total").replace("tumble(ts, INTERVAL '10 seconds'", &format!("hop(ts, {spans}"))
    };
    let good = try_plan(&hop("INTERVAL '10 seconds', INTERVAL '1 minute'")).await.unwrap();
    assert_eq!((good.cut().panes(), good.cut().size()), (6, 60_000_000));
    for (spans, told) in [
        ("INTERVAL '10 seconds', INTERVAL '15 seconds'", "a window of 15s is not a multiple of its slide, 10s"),
        ("INTERVAL '10 seconds', INTERVAL '5 seconds'", "is not a multiple of its slide"),
        ("INTERVAL '1 second', INTERVAL '1 hour'", "has 3600 panes of 1s: 360 is the most"),
        ("INTERVAL '7 seconds', INTERVAL '70 seconds'", "does not divide a day"),
        ("INTERVAL '10 seconds', INTERVAL '1 month'", "must be a constant"),
    ] {
        let (refusal, place) = refused(&hop(spans)).await;
        assert!(refusal.to_string().contains(told) && place.is_some(), "{spans}: {refusal}");
    }
    let mixed = format!(
        "{}\nUNION ALL\n{}",
        by_site("sum(level) AS n"),
        hop("INTERVAL '10 seconds', INTERVAL '30 seconds'").replace("total", "n")
    );
    assert!(matches!(refused(&mixed).await.0, Refusal::DifferentWidths { .. }));
}

#[tokio::test]
async fn two_windows_in_one_group_by_are_refused() {
    let sql = by_site("sum(level) AS total") + ", tumble(ts, INTERVAL '20 seconds')";
    assert_eq!(refused(&sql).await.0, Refusal::TwoWindows);
}

#[tokio::test]
async fn a_width_that_is_none_is_refused() {
    for (width, is_expected) in [("7 seconds", false), ("1 month", true), ("0 seconds", false)] {
        let (refusal, place) = refused(&by_site("sum(level) AS total").replace("10 seconds", width)).await;
        assert_eq!(matches!(refusal, Refusal::WidthNotConstant), is_expected, "{refusal}");
        assert!(matches!(refusal, Refusal::WidthNotConstant | Refusal::Width(_)) && place.is_some(), "{refusal}");
    }
}

#[tokio::test]
async fn a_window_over_anything_but_event_time_is_refused() {
    let sql = by_site("sum(level) AS total").replace("tumble(ts,", "tumble(ts + INTERVAL '1 second',");
    assert_eq!(refused(&sql).await.0, Refusal::NotEventTime);
}

#[tokio::test]
async fn an_unknown_stream_is_refused() {
    let sql = by_site("sum(level) AS total").replace("FROM meter", "\nFROM metre");
    assert_eq!(refused(&sql).await, (Refusal::UnknownStream("metre".to_owned()), Some((2, 6))));
    let sql = by_site("sum(level) AS total").replace("FROM meter", "FROM a.meter");
    assert_eq!(refused(&sql).await.0, Refusal::UnknownStream("a.meter".to_owned()));
    let sql = by_site("sum(level) AS total").replace("FROM meter", "FROM airan_closed_0");
    assert_eq!(refused(&sql).await.0, Refusal::UnknownStream("airan_closed_0".to_owned()));
}

#[tokio::test]
async fn an_unknown_column_is_refused_with_the_one_meant() {
    let (refusal, place) = refused(&by_site("\nsum(levle) AS total")).await;
    assert_eq!(refusal, Refusal::UnknownColumn { name: "levle".to_owned(), nearest: Some("level".to_owned()) });
    assert_eq!(place, Some((2, 5)));
    assert_eq!(refusal.to_string(), "no column `levle`; did you mean `level`?");
}

#[tokio::test]
async fn an_unknown_function_is_refused_with_the_one_meant() {
    let (refusal, place) = refused(&by_site("smu(level) AS total")).await;
    assert_eq!(refusal.to_string(), "no function `smu`; did you mean `sum`?");
    assert_eq!(place, Some((1, 65)));
}

#[tokio::test]
async fn a_join_over_the_edges_of_windows_or_sites_is_refused() {
    let with = "WITH m AS (SELECT tumble(ts, INTERVAL '10 seconds') AS w, site, part, sum(level) AS level FROM meter
        GROUP BY tumble(ts, INTERVAL '10 seconds'), site, part)
        SELECT a.w AS window_start, a.site AS site, a.level - b.level AS change FROM m a JOIN m b ON ";
    for on in [
        "a.site = b.site",
        "a.w = b.w",
        "a.w = b.w + INTERVAL '10 seconds' AND a.site = b.site",
        "a.w = b.w AND a.site = b.part",
    ] {
        let (refusal, place) = refused(&format!("{with}{on}")).await;
        assert_eq!((refusal, place.unwrap().0), (Refusal::JoinOverWindows, 3), "{on}");
    }
    plan(&format!("{with} a.w = b.w AND a.site = b.site")).await;
}

#[tokio::test]
async fn a_second_aggregation_over_windows_or_sites_is_refused() {
    let with = "WITH m AS (SELECT tumble(ts, INTERVAL '10 seconds') AS w, site, sum(level) AS level FROM meter
        GROUP BY tumble(ts, INTERVAL '10 seconds'), site) ";
    for (select, step) in [
        ("SELECT w AS window_start, max(level) AS most FROM m GROUP BY w", "GROUP BY"),
        ("SELECT site, max(level) AS most FROM m GROUP BY site", "GROUP BY"),
        ("SELECT DISTINCT site FROM m", "DISTINCT"),
    ] {
        assert_eq!(refused(&format!("{with}{select}")).await.0, Refusal::OverWindows(step), "{select}");
    }
}

#[tokio::test]
async fn grouping_sets_are_refused() {
    let sql = by_site("sum(level) AS total").replace("GROUP BY ", "GROUP BY ROLLUP(") + ")";
    assert_eq!(refused(&sql).await.0, Refusal::GroupingSets);
}

#[tokio::test]
async fn results_whose_columns_are_no_window_table_are_refused() {
    for (values, refusal) in [
        ("sum(level)", Refusal::Unnamed("sum(meter.level)".to_owned())),
        ("sum(level) AS n, max(level) AS n", Refusal::TwiceNamed("n".to_owned())),
        ("sum(level) AS window_end", Refusal::Reserved("window_end")),
        ("sum(level) AS emptied", Refusal::Reserved("emptied")),
        ("sum(level) AS revision", Refusal::Reserved("revision")),
    ] {
        let found = refused(&by_site(values)).await.0;
        match refusal {
            // The engine itself refuses the same name twice, in words of its own.
            Refusal::TwiceNamed(_) => assert!(found.to_string().contains("unique"), "{found}"),
            refusal => assert_eq!(found, refusal),
        }
    }
    let sql = by_site("sum(level) AS total").replace(" site, sum", " site AS place, sum");
    assert_eq!(refused(&sql).await.0, Refusal::NoSiteInResult);
    let sql = by_site("sum(level) AS total").replacen(
        "tumble(ts, INTERVAL '10 seconds') AS window_start",
        "max(ts) AS window_start",
        1,
    );
    assert_eq!(refused(&sql).await.0, Refusal::NotTheWindow);
}

#[tokio::test]
async fn what_is_no_select_over_a_stream_is_refused() {
    for sql in
        ["", "CREATE TABLE t (a INT)", "DROP TABLE meter", "SELECT 1 AS one; SELECT 2 AS two", "EXPLAIN SELECT 1"]
    {
        assert_eq!(refused(sql).await.0, Refusal::NotOneSelect, "{sql}");
    }
    assert!(matches!(refused("SELECT 1 AS site").await.0, Refusal::Unsupported(_)));
    let (refusal, place) = refused("SELECT\n  sum(level FROM meter").await;
    assert!(matches!(refusal, Refusal::Syntax(_)), "{refusal}");
    assert_eq!(place.map(|place| place.0), Some(2));
    let (refusal, _) = refused(&by_site("sum(part) AS total")).await;
    assert!(matches!(refusal, Refusal::Syntax(_)), "{refusal}");
}

/// Scenario: an aggregate over a type it has no implementation for, which the engine finds out only when it runs.
#[tokio::test]
async fn what_would_fail_on_the_first_rows_is_refused_before_them() {
    let (refusal, _) = refused(&by_site("approx_distinct(level) AS levels")).await;
    assert!(matches!(&refusal, Refusal::Syntax(text) if text.contains("approx_distinct")), "{refusal}");
}

#[tokio::test]
async fn the_columns_of_a_stream_that_no_expression_needs_are_not_taken() {
    let plan = plan(&by_site("sum(level) AS total")).await;
    let read: Vec<&str> = plan.sources[0].input.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(read, ["ts", "site", "level"]);
    assert!(format!("{plan:?}").contains("meter"));
}
