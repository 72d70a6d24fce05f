use super::*;
use crate::golden_input::read_rows;
use crate::histogram_rises::HistogramColumn;
use crate::rises_state;
use crate::sheet::{SheetWriter, Sheets};
use crate::testing;
use airan_model::time::{DAY, HOUR, format_rfc3339};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;

const PARTS: [Option<&str>; 3] = [None, Some("a"), Some("b")];
const BOUNDS: [&[f64]; 2] = [&[1.0], &[2.0]];

/// A row of `meter`.
#[derive(Clone, Debug, Default)]
struct Row {
    part: usize,
    ts: i64,
    start: Option<i64>,
    total: Option<f64>,
    whole: Option<i64>,
    spread: Option<(usize, [i64; 2])>,
    /// A rise that came with the row.
    given: Option<f64>,
}

fn batch(stream: &Stream, rows: &[Row]) -> RecordBatch {
    let value = |row: &Row| {
        let spread = row.spread.map(|(bounds, counts)| {
            json!({"bounds": BOUNDS[bounds], "counts": counts, "sum": counts[1] as f64, "count": counts[0] + counts[1]})
        });
        json!({
            "ts": format_rfc3339(row.ts * SECOND), "start_ts": row.start.map(|at| format_rfc3339(at * SECOND)), "node": "n",
            "part": PARTS[row.part], "total": row.total, "whole": row.whole, "spread": spread, "total_increase": row.given,
        })
    };
    read_rows(stream, &rows.iter().map(value).collect::<Vec<Value>>()).unwrap()
}

/// What a row got: rise and span of each counter, counts and sum of the histogram's rise.
type Got = (Option<(f64, Option<f64>)>, Option<(f64, f64)>, Option<([i64; 2], f64, f64)>);

fn got(rows: &RecordBatch) -> Vec<Got> {
    let floats = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
    let at = |column: &Float64Array, row: usize| column.is_valid(row).then(|| column.value(row));
    let (total, total_span) = (floats("total_increase"), floats("total_increase_seconds"));
    let (whole, whole_span) = (floats("whole_increase"), floats("whole_increase_seconds"));
    let spread_span = floats("spread_increase_seconds");
    let spread = rows.column_by_name("spread_increase").unwrap().as_struct();
    let spread = HistogramColumn::of(spread);
    let of = |row: usize| {
        let histogram =
            spread.value(row).map(|v| ([v.counts[0], v.counts[1]], v.sum.unwrap(), at(&spread_span, row).unwrap()));
        let total = at(&total, row).map(|rise| (rise, at(&total_span, row)));
        (total, at(&whole, row).zip(at(&whole_span, row)), histogram)
    };
    (0..rows.num_rows()).map(of).collect()
}

/// The rules, row by row: last (ts, start, value) by part.
#[derive(Default)]
struct Plain {
    total: HashMap<usize, (i64, Option<i64>, f64)>,
    whole: HashMap<usize, (i64, Option<i64>, i64)>,
    spread: HashMap<usize, (i64, Option<i64>, (usize, [i64; 2]))>,
    out_of_order: u64,
}

impl Plain {
    fn message(&mut self, rows: &[Row]) -> Vec<Got> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows[*row].ts);
        let mut got: Vec<Got> = vec![(None, None, None); rows.len()];
        for index in order {
            let row = &rows[index];
            let mut is_late = false;
            got[index].0 = row.given.map(|given| (given, None));
            if let Some(value) = row.total {
                match rise(&mut self.total, row, value, |before, now| now < before) {
                    Rise::First => {}
                    Rise::Late => is_late |= row.given.is_none(),
                    _ if row.given.is_some() => {}
                    Rise::Since(before, span) => got[index].0 = Some((value - before, Some(span))),
                    Rise::Anew(span) => got[index].0 = Some((value, Some(span))),
                }
            }
            if let Some(value) = row.whole {
                match rise(&mut self.whole, row, value, |before, now| now < before) {
                    Rise::First => {}
                    Rise::Late => is_late = true,
                    Rise::Since(before, span) => got[index].1 = Some(((value - before) as f64, span)),
                    Rise::Anew(span) => got[index].1 = Some((value as f64, span)),
                }
            }
            if let Some(value) = row.spread {
                let fell = |before: (usize, [i64; 2]), now: (usize, [i64; 2])| {
                    // The other bound cuts the bucket beyond 1, or the one up to 2: that must not hold anything.
                    let cut = if before.0 == 0 { before.1[1] } else { before.1[0] };
                    (before.0 != now.0 && cut != 0) || now.1[0] < before.1[0] || now.1[1] < before.1[1]
                };
                let counts = value.1;
                match rise(&mut self.spread, row, value, fell) {
                    Rise::First => {}
                    Rise::Late => is_late = true,
                    Rise::Since((_, before), span) => {
                        let rise = [counts[0] - before[0], counts[1] - before[1]];
                        got[index].2 = Some((rise, counts[1] as f64 - before[1] as f64, span));
                    }
                    Rise::Anew(span) => got[index].2 = Some((counts, counts[1] as f64, span)),
                }
            }
            self.out_of_order += u64::from(is_late);
        }
        got
    }
}

enum Rise<T> {
    First,
    Late,
    Since(T, f64),
    Anew(f64),
}

fn rise<T: Copy>(
    last: &mut HashMap<usize, (i64, Option<i64>, T)>,
    row: &Row,
    value: T,
    fell: impl Fn(T, T) -> bool,
) -> Rise<T> {
    let before = last.get(&row.part).copied();
    if before.is_some_and(|before| row.ts <= before.0) {
        return Rise::Late;
    }
    last.insert(row.part, (row.ts, row.start.or(before.and_then(|before| before.1)), value));
    let Some((ts, start, before)) = before else { return Rise::First };
    let span = (row.ts - ts) as f64;
    let is_anew = start.zip(row.start).is_some_and(|(before, now)| before != now) || fell(before, value);
    if is_anew { Rise::Anew(span) } else { Rise::Since(before, span) }
}

fn restarted(stream: &Arc<Stream>, rises: &Rises, settings: &CounterSettings) -> Rises {
    let mut writer = SheetWriter::new();
    rises_state::write(stream, rises, &mut writer).unwrap();
    let mut anew = Rises::new(stream, settings);
    rises_state::read(stream, &mut anew, &Sheets::read(writer.finish()).unwrap());
    anew
}

fn meter() -> Arc<Stream> {
    Arc::clone(testing::catalog().stream("meter").unwrap())
}

fn rows() -> impl Strategy<Value = Row> {
    let start = prop_oneof![2 => Just(None), 1 => (0i64..2).prop_map(Some)];
    let spread = prop::option::of((0usize..2, [0i64..6, 0i64..6]));
    let given = prop_oneof![4 => Just(None), 1 => (0u8..5).prop_map(|g| Some(f64::from(g)))];
    (0usize..3, 0i64..40, start, prop::option::of(0u8..9), prop::option::of(0i64..9), spread, given).prop_map(
        |(part, ts, start, total, whole, spread, given)| Row {
            part,
            ts,
            start,
            total: total.map(f64::from),
            whole,
            spread,
            given,
        },
    )
}

proptest! {
    /// Scenario: counters and histograms of three entities, out of order within and between messages, falling, with and without
    /// starts, with rises of their own, some columns missing, and a restart from the state between any two messages.
    /// Guarantees: the rises, spans and the count of rows out of order are those of a plain reading of the rules.
    #[test]
    fn rises_are_those_of_the_plain_rules(messages in prop::collection::vec((prop::collection::vec(rows(), 1..8), any::<bool>()), 1..12)) {
        let (stream, settings) = (meter(), testing::settings().counters);
        let (mut rises, mut plain) = (Rises::new(&stream, &settings), Plain::default());
        let mut out_of_order = 0;
        for (number, (message, restart)) in messages.iter().enumerate() {
            if *restart {
                rises = restarted(&stream, &rises, &settings);
            }
            let risen = rises.add(batch(&stream, message), number as i64 * SECOND).unwrap();
            prop_assert_eq!(got(&risen), plain.message(message), "message {}", number);
            out_of_order += std::mem::take(&mut rises.out_of_order);
        }
        prop_assert_eq!(out_of_order, plain.out_of_order);
    }
}

/// Scenario: a counter above 2^53, not a number, infinite, and a counter of an entity that pauses for more than a day.
/// Guarantees: whole numbers lose nothing; what is no number is passed over; after the pause it is a first sight.
#[test]
fn numbers_beyond_floats_and_pauses() {
    let (stream, settings) = (meter(), testing::settings().counters);
    let mut rises = Rises::new(&stream, &settings);
    let whole = |ts: i64, value: i64| Row { ts, whole: Some(value), ..Row::default() };
    let big = (1i64 << 53) + 1;
    let risen =
        rises.add(batch(&stream, &[whole(1, big), whole(2, big + 1), whole(3, i64::MAX), whole(4, -1)]), 0).unwrap();
    let whole_rises: Vec<_> = got(&risen).into_iter().map(|got| got.1).collect();
    assert_eq!(whole_rises, [None, Some((1.0, 1.0)), Some(((i64::MAX - big - 1) as f64, 1.0)), Some((-1.0, 1.0))]);

    let values = [1.0, f64::NAN, f64::INFINITY, 3.0];
    let mut columns = batch(&stream, &[whole(10, 0), whole(11, 0), whole(12, 0), whole(13, 0)]).columns().to_vec();
    columns[stream.place_of("total").unwrap()] = Arc::new(Float64Array::from(values.to_vec()));
    let risen = rises.add(RecordBatch::try_new(Arc::clone(stream.schema()), columns).unwrap(), 0).unwrap();
    let totals: Vec<_> = got(&risen).into_iter().map(|got| got.0).collect();
    assert_eq!(totals, [None, None, None, Some((2.0, Some(3.0)))]);

    let later = rises.add(batch(&stream, &[whole(20, 5)]), DAY).unwrap();
    assert_eq!(got(&later)[0].1, Some((5.0, 7.0)));
    let much_later = rises.add(batch(&stream, &[whole(30, 9), whole(31, 10)]), 2 * DAY + HOUR).unwrap();
    assert_eq!([got(&much_later)[0].1, got(&much_later)[1].1], [None, Some((1.0, 1.0))]);
}

#[test]
fn a_histogram_without_a_shape_has_no_rise_and_is_counted() {
    let (stream, settings) = (meter(), testing::settings().counters);
    let mut rises = Rises::new(&stream, &settings);
    let row = |ts: i64, counts: Value| json!({"ts": format_rfc3339(ts * SECOND), "node": "n", "part": "a", "spread": {"bounds": [1.0], "counts": counts, "sum": 1.0, "count": 2}});
    let rows = [row(1, json!([1, 1])), row(2, json!([5])), row(3, json!([null, 5])), row(4, json!([2, 3]))];
    let risen = rises.add(read_rows(&stream, &rows).unwrap(), 0).unwrap();
    let spreads: Vec<_> = got(&risen).into_iter().map(|got| got.2).collect();
    assert_eq!(spreads, [None, None, None, Some(([1, 2], 0.0, 3.0))]);
    assert_eq!(rises.misshapen, 2);
}

/// Scenario: an exponential histogram fills buckets it had not, is then written with buckets twice as wide, falls, and at last gets a
/// bound in the middle of a bucket that holds something.
/// Guarantees: the rise is exact while what was held lies whole in one new bucket; otherwise the histogram began anew.
#[test]
fn a_histogram_may_grow_and_widen() {
    let (stream, settings) = (meter(), testing::settings().counters);
    let mut rises = Rises::new(&stream, &settings);
    let steps: [(&[f64], &[i64], Option<&[i64]>); 6] = [
        (&[1.0, 2.0], &[0, 5, 0], None),
        (&[0.5, 1.0, 2.0, 4.0], &[0, 2, 6, 3, 0], Some(&[0, 2, 1, 3, 0])),
        (&[0.25, 1.0, 4.0], &[0, 2, 10, 0], Some(&[0, 0, 1, 0])),
        (&[0.25, 1.0, 4.0, 16.0], &[0, 3, 10, 7, 0], Some(&[0, 1, 0, 7, 0])),
        (&[0.25, 1.0, 4.0, 16.0], &[0, 4, 9, 8, 0], Some(&[0, 4, 9, 8, 0])),
        (&[0.25, 1.0, 3.0, 4.0, 16.0], &[0, 9, 9, 9, 9, 0], Some(&[0, 9, 9, 9, 9, 0])),
    ];
    let row = |(at, (bounds, counts, _)): (usize, &(&[f64], &[i64], Option<&[i64]>))| {
        let count = counts.iter().sum::<i64>();
        let spread = json!({"bounds": bounds, "counts": counts, "sum": count as f64 / 2.0, "count": count});
        json!({"ts": format_rfc3339((at as i64 + 1) * SECOND), "node": "n", "part": "a", "spread": spread})
    };
    let rows: Vec<Value> = steps.iter().enumerate().map(row).collect();
    let risen = rises.add(read_rows(&stream, &rows).unwrap(), 0).unwrap();
    let column = HistogramColumn::of(risen.column_by_name("spread_increase").unwrap().as_struct());
    for (row, (bounds, _, expected)) in steps.iter().enumerate() {
        let found = column.value(row);
        assert_eq!(found.as_ref().map(|found| found.counts.as_slice()), *expected, "step {row}");
        if let (Some(found), Some(expected)) = (found, expected) {
            let count = expected.iter().sum::<i64>();
            assert_eq!((found.bounds.as_slice(), found.count), (*bounds, Some(count)), "step {row}");
            assert_eq!(found.sum, Some(count as f64 / 2.0), "step {row}");
        }
    }
}

#[test]
fn rows_without_counters_pass_untouched() {
    let (stream, settings) = (meter(), testing::settings().counters);
    let mut rises = Rises::new(&stream, &settings);
    let rows = batch(&stream, &[Row { given: Some(2.0), ..Row::default() }]);
    assert_eq!(rises.add(rows.clone(), 0).unwrap(), rows);
    assert_eq!(rises.entities.len(), 0);
}
