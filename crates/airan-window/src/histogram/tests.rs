//! The functions against slow plain references, and through SQL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type, Schema};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::above::above;
use super::column::{Histogram, Histograms, histograms};
use super::merge::{Groups, One};
use super::scalar::quantile;
use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    bounds: Vec<f64>,
    counts: Vec<i64>,
    sum: Option<f64>,
    count: i64,
}

fn of(bounds: &[f64], counts: &[i64]) -> Owned {
    Owned { bounds: bounds.to_vec(), counts: counts.to_vec(), sum: Some(1.0), count: counts.iter().sum() }
}

impl Owned {
    fn borrow(&self) -> Histogram<'_> {
        Histogram { bounds: &self.bounds, counts: &self.counts, sum: self.sum, count: self.count }
    }
}

fn column(rows: &[Option<Owned>]) -> ArrayRef {
    histograms(rows.iter().map(|row| row.as_ref().map(Owned::borrow))).unwrap()
}

fn rows_of(column: &ArrayRef) -> Vec<Option<Owned>> {
    let rows = Histograms::of(column).unwrap();
    let owned =
        |h: Histogram<'_>| Owned { bounds: h.bounds.into(), counts: h.counts.into(), sum: h.sum, count: h.count };
    (0..column.len()).map(|row| rows.get(row).map(owned)).collect()
}

fn merged(rows: &[Option<Owned>]) -> Option<Owned> {
    let mut groups = Groups::default();
    groups.update_batch(&[column(rows)], &vec![0; rows.len()], None, 1).unwrap();
    rows_of(&groups.evaluate(EmitTo::All).unwrap()).remove(0)
}

/// The rule, read plainly: bounds are those of all histograms with observations (of all, where none has any) that lie inside no
/// bucket of any of them which holds something; each bucket goes into the first one that reaches as far.
fn plain_merge(rows: &[Option<Owned>]) -> Option<Owned> {
    let rows: Vec<&Owned> = rows.iter().flatten().collect();
    let telling: Vec<&&Owned> = rows.iter().filter(|row| row.counts.iter().any(|count| *count > 0)).collect();
    let deciding: Vec<&Owned> =
        if telling.is_empty() { rows.clone() } else { telling.iter().map(|row| **row).collect() };
    deciding.first()?;
    let mut bounds: Vec<f64> = deciding.iter().flat_map(|row| row.bounds.clone()).collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    let is_inside = |row: &Owned, bound: f64| {
        let ends = std::iter::once(f64::NEG_INFINITY)
            .chain(row.bounds.iter().copied())
            .zip(row.bounds.iter().copied().chain([f64::INFINITY]));
        ends.zip(&row.counts).any(|((lower, upper), count)| *count > 0 && lower < bound && bound < upper)
    };
    bounds.retain(|bound| !deciding.iter().any(|row| is_inside(row, *bound)));
    let mut counts = vec![0; bounds.len() + 1];
    for row in &rows {
        for (index, count) in row.counts.iter().enumerate() {
            let reach = row.bounds.get(index);
            let into = reach.and_then(|reach| bounds.iter().position(|bound| bound >= reach)).unwrap_or(bounds.len());
            counts[into] += count;
        }
    }
    let sum = rows.iter().map(|row| row.sum).sum();
    Some(Owned { bounds, counts, sum, count: rows.iter().map(|row| row.count).sum() })
}

/// Histograms over few bounds, so that they are often the same, part of each other, or overlap. Sums are whole, so that adding
/// them is exact in any order.
fn histogram() -> impl Strategy<Value = Option<Owned>> {
    let sets = [
        vec![1.0, 2.0, 4.0],
        vec![],
        vec![1.0],
        vec![0.5, 1.0, 2.0],
        vec![0.5, 2.0, 5.0],
        vec![-1.0, 0.0, 1.0],
        vec![0.5, 1.0, 2.0, 5.0],
    ];
    let bounds = proptest::sample::select(sets.to_vec());
    let count = prop_oneof![2 => Just(0i64), 3 => 0..9i64];
    let some = (bounds, proptest::collection::vec(count, 5), proptest::option::weighted(0.9, 0..100i32), any::<bool>());
    let some = some.prop_map(|(bounds, mut counts, sum, is_idle)| {
        counts.truncate(bounds.len() + 1);
        if is_idle {
            counts.iter_mut().for_each(|count| *count = 0);
        }
        Owned { count: counts.iter().sum(), bounds, counts, sum: sum.map(f64::from) }
    });
    proptest::option::weighted(0.9, some)
}

#[test]
fn counts_with_equal_bounds_add_up_bucket_by_bucket() {
    let (a, b) = (of(&[0.1, 1.0], &[1, 2, 3]), of(&[0.1, 1.0], &[10, 0, 5]));
    let both = Owned { sum: Some(2.0), ..of(&[0.1, 1.0], &[11, 2, 8]) };
    assert_eq!(merged(&[Some(a), None, Some(b)]), Some(both));
    assert_eq!(merged(&[None, None]), None);
}

/// Scenario: exponential histograms of one scale with other buckets filled, and one of the next coarser scale.
/// Guarantees: of one scale every bucket stays; of two, every bucket of the coarser one.
#[test]
fn exponential_histograms_merge_without_loss() {
    // Of scale 0: (1, 2] and (8, 16]; (2, 4] and (8, 16]. Of scale -1: (1, 4].
    let (a, b) = (of(&[1.0, 2.0, 8.0, 16.0], &[0, 5, 0, 7, 0]), of(&[2.0, 4.0, 8.0, 16.0], &[0, 3, 0, 1, 0]));
    let both = merged(&[Some(a.clone()), Some(b.clone())]).unwrap();
    assert_eq!((both.bounds, both.counts), (vec![1.0, 2.0, 4.0, 8.0, 16.0], vec![0, 5, 3, 0, 8, 0]));
    let coarse = of(&[1.0, 4.0], &[0, 2, 0]);
    for rows in [[a.clone(), b.clone(), coarse.clone()], [coarse, b, a]] {
        let all = merged(&rows.map(Some)).unwrap();
        assert_eq!((all.bounds, all.counts), (vec![1.0, 4.0, 8.0, 16.0], vec![0, 10, 0, 8, 0]));
    }
}

/// Scenario: a server is replaced by a version with other buckets within one window.
/// Guarantees: bounds that differ are never merged blindly: no count is moved across a bound that is left.
#[test]
fn histograms_with_other_bounds_merge_to_the_bounds_that_cut_nothing() {
    let (old, new) = (of(&[0.1, 0.5, 1.0], &[1, 2, 3, 4]), of(&[0.1, 0.25, 1.0, 10.0], &[10, 20, 30, 40, 50]));
    let both = Owned { sum: Some(2.0), ..of(&[0.1, 1.0], &[11, 55, 94]) };
    assert_eq!(merged(&[Some(old.clone()), Some(new.clone())]), Some(both.clone()));
    assert_eq!(merged(&[Some(new), Some(old)]), Some(both));
}

#[test]
fn without_a_bound_in_common_the_number_of_observations_is_left() {
    let both = merged(&[Some(of(&[1.0], &[1, 2])), Some(of(&[2.0], &[3, 4]))]).unwrap();
    assert_eq!((both.bounds.len(), both.counts.as_slice(), both.count), (0, &[10][..], 10));
    assert_eq!(quantile(0.5, &both.borrow()), None);
}

/// Scenario: an idle server with other buckets beside a busy one.
#[test]
fn a_histogram_without_observations_does_not_coarsen_others() {
    let (idle, busy) = (of(&[2.0, 4.0], &[0, 0, 0]), of(&[1.0, 3.0], &[5, 6, 7]));
    for rows in [[idle.clone(), busy.clone()], [busy, idle]] {
        let both = merged(&rows.map(Some)).unwrap();
        assert_eq!((both.bounds, both.counts), (vec![1.0, 3.0], vec![5, 6, 7]));
    }
}

#[test]
fn what_is_no_histogram_is_left_out() {
    let good = of(&[1.0], &[1, 2]);
    let bad = [
        of(&[1.0], &[1, 2, 3]),
        of(&[1.0], &[1]),
        of(&[1.0], &[1, -2]),
        of(&[2.0, 1.0], &[1, 2, 3]),
        of(&[1.0, 1.0], &[1, 2, 3]),
        of(&[f64::NAN], &[1, 2]),
        of(&[f64::INFINITY], &[1, 2]),
    ];
    for bad in bad {
        assert_eq!(merged(&[Some(bad.clone())]), None, "{bad:?}");
        assert_eq!(merged(&[Some(good.clone()), Some(bad.clone())]), Some(good.clone()), "{bad:?}");
        assert_eq!(merged(&[Some(bad.clone()), Some(good.clone())]), Some(good.clone()), "{bad:?}");
    }
}

#[test]
fn counts_stop_at_the_largest_number() {
    let most = of(&[1.0], &[i64::MAX, 0]);
    let both = merged(&[Some(most.clone()), Some(most)]).unwrap();
    assert_eq!((both.counts, both.count), (vec![i64::MAX, 0], i64::MAX));
}

/// Scenario: the first groups are taken out, and what was group 2 is group 0 from then on.
#[test]
fn groups_move_up_when_the_first_are_taken_out() {
    let mut groups = Groups::default();
    let rows: Vec<_> = (1..=4).map(|count| Some(of(&[1.0], &[count, 0]))).collect();
    groups.update_batch(&[column(&rows)], &[0, 1, 2, 3], None, 4).unwrap();
    let first = rows_of(&groups.evaluate(EmitTo::First(2)).unwrap());
    groups.update_batch(&[column(&rows[..1])], &[0], None, 2).unwrap();
    let rest = rows_of(&groups.evaluate(EmitTo::All).unwrap());
    let counts = |rows: &[Option<Owned>]| rows.iter().map(|row| row.as_ref().unwrap().counts[0]).collect::<Vec<_>>();
    assert_eq!((counts(&first), counts(&rest)), (vec![1, 2], vec![4, 4]));
    assert_eq!(groups.size(), 0, "nothing is held when everything was taken out");
}

/// Scenario: thousands of groups with the same buckets, then one row each more.
/// Guarantees: memory follows the groups, not the rows, and the bounds they share are held once.
#[test]
fn state_is_proportional_to_groups() {
    let mut groups = Groups::default();
    let bounds: Vec<f64> = (1..=16).map(f64::from).collect();
    let rows = column(&vec![Some(of(&bounds, &[1; 17])); 5_000]);
    let every: Vec<usize> = (0..5_000).collect();
    groups.update_batch(&[Arc::clone(&rows)], &every, None, 5_000).unwrap();
    let once = groups.size();
    groups.update_batch(&[rows], &every, None, 5_000).unwrap();
    assert_eq!(groups.size(), once);
    let counts = 17 * size_of::<i64>();
    assert!(once >= 5_000 * counts && once < 5_000 * (counts + 100), "{once} bytes");
}

/// Prometheus' own steps, over cumulative buckets.
fn plain_quantile(q: f64, histogram: &Owned) -> Option<f64> {
    let mut sum = 0;
    let cumulative = histogram.counts.iter().map(|count| {
        sum += count;
        sum as f64
    });
    let cumulative: Vec<f64> = cumulative.collect();
    let last = cumulative.len() - 1;
    if last == 0 || cumulative[last] == 0.0 {
        return None;
    }
    let mut rank = q * cumulative[last];
    let at = (0..last).find(|at| cumulative[*at] >= rank).unwrap_or(last);
    if at == last {
        return Some(histogram.bounds[last - 1]);
    }
    if at == 0 && histogram.bounds[0] <= 0.0 {
        return Some(histogram.bounds[0]);
    }
    let (mut start, end, mut count) = (0.0, histogram.bounds[at], cumulative[at]);
    if at > 0 {
        start = histogram.bounds[at - 1];
        count -= cumulative[at - 1];
        rank -= cumulative[at - 1];
    }
    Some(start + (end - start) * (rank / count))
}

/// Scenario: the corners of the rule, worked out by hand.
#[test]
fn a_quantile_is_that_of_prometheus() {
    let latency = of(&[0.1, 0.5, 1.0], &[10, 20, 10, 10]);
    for (q, value) in [
        (0.0, 0.0),
        (0.1, 0.05),
        (0.2, 0.1),
        (0.4, 0.3),
        (0.7, 0.75),
        (0.8, 1.0),
        (0.99, 1.0),
        (1.0, 1.0),
        (-0.1, f64::NEG_INFINITY),
        (1.1, f64::INFINITY),
    ] {
        let found = quantile(q, &latency.borrow()).unwrap();
        assert!(found == value || (found - value).abs() < 1e-12, "{q} of them below {found}, not {value}");
    }
    assert_eq!(quantile(f64::NAN, &latency.borrow()), None);
    let offset = of(&[-1.0, 1.0], &[5, 5, 0]);
    assert_eq!((quantile(0.3, &offset.borrow()), quantile(0.75, &offset.borrow())), (Some(-1.0), Some(0.0)));
    assert_eq!(quantile(0.0, &of(&[1.0, 2.0, 4.0], &[0, 3, 0, 0]).borrow()), Some(1.0));
    assert_eq!(quantile(0.5, &of(&[1.0], &[0, 0]).borrow()), None);
    assert_eq!(quantile(0.5, &of(&[], &[7]).borrow()), None);
    assert_eq!(quantile(0.5, &of(&[2.0, 1.0], &[1, 2, 3]).borrow()), None);
    assert_eq!(quantile(0.5, &of(&[1.0, 2.0], &[0, 0, 7]).borrow()), Some(2.0));
}

proptest! {
    /// Guarantees: W3: whatever way rows are cut into batches and partial states, and states are merged, each group has what
    /// the plain rule gives.
    #[test]
    fn merging_is_the_plain_rule_in_any_cut(
        rows in proptest::collection::vec((0..3usize, 0..3usize, histogram()), 0..24),
        is_backwards in any::<bool>(),
    ) {
        let mut states = Vec::new();
        for part in 0..3 {
            let mut groups = Groups::default();
            let of_part: Vec<_> = rows.iter().filter(|row| row.1 == part).collect();
            for batch in of_part.chunks(2) {
                let values = column(&batch.iter().map(|row| row.2.clone()).collect::<Vec<_>>());
                groups.update_batch(&[values], &batch.iter().map(|row| row.0).collect::<Vec<_>>(), None, 3).unwrap();
            }
            groups.update_batch(&[column(&[])], &[], None, 3).unwrap();
            states.push(groups.state(EmitTo::All).unwrap());
        }
        if is_backwards {
            states.reverse();
        }
        let mut all = Groups::default();
        for state in &states {
            all.merge_batch(state, &[0, 1, 2], 3).unwrap();
        }
        let found = rows_of(&all.evaluate(EmitTo::All).unwrap());
        for (group, found) in found.into_iter().enumerate() {
            let of_group: Vec<_> = rows.iter().filter(|row| row.0 == group).map(|row| row.2.clone()).collect();
            prop_assert_eq!(found, plain_merge(&of_group), "group {}", group);
        }
    }

    /// Guarantees: associative and commutative.
    #[test]
    fn the_order_of_merges_does_not_matter(a in histogram(), b in histogram(), c in histogram()) {
        let left = merged(&[merged(&[a.clone(), b.clone()]), c.clone()]);
        let right = merged(&[a.clone(), merged(&[b.clone(), c.clone()])]);
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(left, merged(&[c, b, a]));
    }

    /// Guarantees: a query without groups, and rows passed on as states, give the same; a filter leaves rows out.
    #[test]
    fn one_group_and_states_made_of_rows_agree_with_groups(
        rows in proptest::collection::vec((any::<bool>(), histogram()), 0..12)
    ) {
        let (taken, values): (Vec<bool>, Vec<_>) = rows.into_iter().unzip();
        let kept: Vec<_> = values.iter().zip(&taken).map(|(row, taken)| row.clone().filter(|_| *taken)).collect();
        let (values, filter) = (column(&values), BooleanArray::from(taken));
        let zeros = vec![0; values.len()];
        let mut filtered = Groups::default();
        filtered.update_batch(&[Arc::clone(&values)], &zeros, Some(&filter), 1).unwrap();
        let states = filtered.convert_to_state(&[values], Some(&filter)).unwrap();
        let mut from_states = Groups::default();
        from_states.merge_batch(&states, &zeros, 1).unwrap();
        let mut one = One::default();
        one.update_batch(&[column(&kept)]).unwrap();
        let mut again = One::default();
        again.merge_batch(&[one.state().unwrap().remove(0).to_array().unwrap()]).unwrap();
        let expected = plain_merge(&kept);
        prop_assert_eq!(rows_of(&filtered.evaluate(EmitTo::All).unwrap()).remove(0), expected.clone());
        prop_assert_eq!(rows_of(&from_states.evaluate(EmitTo::All).unwrap()).remove(0), expected.clone());
        prop_assert_eq!(rows_of(&one.evaluate().unwrap().to_array().unwrap()).remove(0), expected.clone());
        prop_assert_eq!(rows_of(&again.evaluate().unwrap().to_array().unwrap()).remove(0), expected);
    }

    /// Guarantees: Prometheus' answer, within its bucket, and never falling as the share grows.
    #[test]
    fn quantiles_are_those_of_cumulative_buckets(histogram in histogram(), a in 0.001..=1.0, b in 0.001..=1.0) {
        let Some(histogram) = histogram else { return Ok(()) };
        let at = |q| quantile(q, &histogram.borrow());
        prop_assert_eq!(at(a), plain_quantile(a, &histogram));
        prop_assert!(at(f64::min(a, b)) <= at(f64::max(a, b)));
    }
}

/// Rows of two sites with a cumulative histogram and its increase, marked as the catalog marks them.
/// Scenario: thresholds on a bound, inside a bucket, below and beyond all bounds; histograms that say nothing.
/// Guarantees: exact on a bound, even inside a bucket, all of the last bucket beyond the highest bound.
#[test]
fn observations_above_a_threshold_are_counted() {
    let histogram = of(&[1.0, 2.0, 4.0], &[10, 20, 40, 5]);
    for (x, wanted) in
        [(1.0, 65.0), (2.0, 45.0), (4.0, 5.0), (3.0, 25.0), (0.5, 70.0), (0.0, 75.0), (-1.0, 75.0), (9.0, 5.0)]
    {
        assert_eq!(above(x, &histogram.borrow()), Some(wanted), "above {x}");
    }
    assert_eq!(above(-2.0, &of(&[-1.0], &[3, 4]).borrow()), Some(7.0));
    assert_eq!(above(1.0, &of(&[], &[7]).borrow()), None);
    assert_eq!(above(1.0, &of(&[2.0, 1.0], &[1, 1, 1]).borrow()), None);
    assert_eq!(above(f64::NAN, &histogram.borrow()), None);
}

proptest! {
    /// Guarantees: what is above a bound is what is in the buckets after it, and it never grows with the threshold.
    #[test]
    fn above_a_bound_are_the_buckets_after_it(histogram in histogram(), a in -1.0..12.0, b in -1.0..12.0) {
        let Some(histogram) = histogram.filter(|h| !h.bounds.is_empty() && h.bounds.is_sorted_by(|a, b| a < b)) else { return Ok(()) };
        for (index, bound) in histogram.bounds.iter().enumerate() {
            let after: i64 = histogram.counts[index + 1..].iter().sum();
            prop_assert_eq!(above(*bound, &histogram.borrow()), Some(after as f64));
        }
        let [low, high] = if a < b { [a, b] } else { [b, a] };
        prop_assert!(above(low, &histogram.borrow()) >= above(high, &histogram.borrow()));
    }
}

fn session() -> SessionContext {
    let context = crate::session::planning_context();
    let increases = column(&[
        Some(of(&[0.1, 1.0], &[5, 5, 0])),
        Some(of(&[0.1, 1.0], &[0, 10, 0])),
        None,
        Some(of(&[0.1, 0.5, 1.0], &[1, 1, 1, 1])),
    ]);
    let marked = |name: &str, kind: &str| {
        let metadata = HashMap::from([("kind".to_owned(), kind.to_owned())]);
        Field::new(name, schema::histogram_type(), true).with_metadata(metadata)
    };
    let fields = vec![
        Field::new("site", DataType::Utf8, true),
        marked("wait_seconds", "histogram"),
        marked("wait_seconds_increase", "increase"),
        Field::new("share", DataType::Float64, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a", "a", "b", "c"])),
        Arc::clone(&increases),
        increases,
        Arc::new(Float64Array::from(vec![Some(0.5), Some(1.5), Some(0.5), None])),
    ];
    context.register_batch("waits", RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()).unwrap();
    context
}

async fn query(sql: &str) -> Result<RecordBatch> {
    let batches = session().sql(sql).await?.collect().await?;
    Ok(arrow::compute::concat_batches(batches[0].schema_ref(), &batches)?)
}

/// Scenario: as the shipped pipelines ask.
#[tokio::test]
async fn sql_takes_quantiles_of_merged_histograms() {
    let rows = query(
        "SELECT site, histogram_quantile(0.5, histogram_merge(wait_seconds_increase)) AS p50, \
         histogram_count(histogram_merge(wait_seconds_increase)) AS n, \
         histogram_sum(histogram_merge(wait_seconds_increase)) AS total \
         FROM waits GROUP BY site ORDER BY site",
    )
    .await
    .unwrap();
    let p50: Vec<_> = rows.column(1).as_primitive::<Float64Type>().iter().collect();
    let n: Vec<_> = rows.column(2).as_primitive::<Int64Type>().iter().collect();
    let total: Vec<_> = rows.column(3).as_primitive::<Float64Type>().iter().collect();
    assert_eq!(p50, [Some(0.1 + 0.9 * (5.0 / 15.0)), None, Some(0.5)]);
    assert_eq!((n, total), (vec![Some(20), None, Some(4)], vec![Some(2.0), None, Some(1.0)]));
}

#[tokio::test]
async fn sql_works_without_groups_with_a_filter_with_a_column_of_shares_and_with_nulls() {
    let one =
        query("SELECT histogram_count(histogram_merge(wait_seconds_increase) FILTER (WHERE site <> 'c')) FROM waits");
    let one = one.await.unwrap();
    assert_eq!(*one.column(0).as_primitive::<Int64Type>(), Int64Array::from(vec![20]));
    let shares = query("SELECT histogram_quantile(share, wait_seconds_increase) AS v FROM waits ORDER BY site, share");
    let found: Vec<_> = shares.await.unwrap().column(0).as_primitive::<Float64Type>().iter().collect();
    assert_eq!(found, [Some(0.1), Some(f64::INFINITY), None, None]);
    let nothing =
        query("SELECT histogram_quantile(0.5, NULL), histogram_count(NULL), histogram_merge(NULL) FROM waits");
    let nothing = nothing.await.unwrap();
    assert!(nothing.columns().iter().all(|column| column.is_null(0)));
}

/// Scenario: one query for each thing that has no meaning.
#[tokio::test]
async fn what_has_no_meaning_is_refused_when_planned() {
    for (sql, why) in [
        ("SELECT histogram_merge(wait_seconds) FROM waits", "write histogram_merge(wait_seconds_increase)"),
        ("SELECT histogram_merge(DISTINCT wait_seconds_increase) FROM waits", "DISTINCT has no meaning"),
        ("SELECT histogram_merge(site) FROM waits", "takes a histogram, not"),
        ("SELECT histogram_quantile(99, wait_seconds_increase) FROM waits", "0.99 for the 99th percentile"),
        ("SELECT histogram_quantile('x', wait_seconds_increase) FROM waits", "takes a share and a histogram"),
        ("SELECT histogram_count(share) FROM waits", "takes a histogram, not"),
    ] {
        let error = query(sql).await.unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

/// Guarantees: a pipeline over the catalog's own cumulative column is refused before a row is read.
#[tokio::test]
async fn a_pipeline_cannot_merge_what_is_cumulative() {
    let catalog = airan_model::catalog::Catalog::builtin().unwrap();
    let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
    let sql = |column: &str| {
        format!(
            "SELECT tumble(ts, INTERVAL '60 seconds') AS window_start, site, histogram_count(histogram_merge({column})) AS n \
             FROM inference GROUP BY tumble(ts, INTERVAL '60 seconds'), site"
        )
    };
    let refused = crate::PipelinePlan::new("p", &sql("queue_time_seconds"), &schema_of).await.unwrap_err().to_string();
    assert!(refused.contains("write histogram_merge(queue_time_seconds_increase)"), "{refused}");
    crate::PipelinePlan::new("p", &sql("queue_time_seconds_increase"), &schema_of).await.unwrap();
}
