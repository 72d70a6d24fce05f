//! Every defect that the harness is there for, put into a sound lake one at a time: the comparison must find it.

use super::*;

const START: i64 = 1_000 * WIDTH;

fn row(number: i64, ts: i64) -> Row {
    Row {
        id: format!("0-{number}-0"),
        site: "site-0".to_owned(),
        node: "node-0".to_owned(),
        device: "node-0/0".to_owned(),
        ts: START + ts,
        utilization: 0.1 * number as f64,
        power: 100.0 + number as f64,
        energy: 10.0 * number as f64,
        integer: number,
    }
}

fn as_stored(row: &Row, rise: Option<f64>) -> Stored {
    Stored { row: row.clone(), rise }
}

fn window(start: i64, rows: &[&Row], rise: Option<f64>) -> WindowRow {
    let floats: f64 = rows.iter().map(|row| row.utilization).sum();
    WindowRow {
        start: START + start,
        site: "site-0".to_owned(),
        node: "node-0".to_owned(),
        device: "node-0/0".to_owned(),
        revision: 0,
        row_count: rows.len() as i64,
        integer_sum: rows.iter().map(|row| row.integer).sum(),
        float_sum: floats,
        float_avg: floats / rows.len() as f64,
        float_max: rows.iter().map(|row| row.power).fold(f64::NEG_INFINITY, f64::max),
        float_min: rows.iter().map(|row| row.power).fold(f64::INFINITY, f64::min),
        rise,
    }
}

/// Three acknowledged rows in two windows, one unknown row that is not there.
struct Sound {
    ledger: Vec<(Row, Fate)>,
    stored: Vec<Stored>,
    windows: Vec<WindowRow>,
}

fn sound() -> Sound {
    let rows: Vec<Row> = vec![row(1, 0), row(2, 500_000), row(3, WIDTH)];
    let mut ledger: Vec<(Row, Fate)> = rows.iter().map(|row| (row.clone(), Fate::Acknowledged)).collect();
    ledger.push((row(4, WIDTH + 1), Fate::Unknown));
    Sound {
        ledger,
        stored: vec![as_stored(&rows[0], None), as_stored(&rows[1], Some(10.0)), as_stored(&rows[2], Some(10.0))],
        windows: vec![window(0, &[&rows[0], &rows[1]], Some(10.0)), window(WIDTH, &[&rows[2]], Some(10.0))],
    }
}

fn verdict(of: &Sound, late: Late) -> Verdict {
    compare(&of.ledger, &of.stored, &of.windows, START + 2 * WIDTH, late)
}

fn is_clean(verdict: &Verdict) -> bool {
    [&verdict.lost, &verdict.doubled, &verdict.windows_wrong, &verdict.wrong].iter().all(|of| of.is_empty())
        && verdict.late.is_empty()
}

/// Scenario: a sound lake, with and without the row nobody knows of.
#[test]
fn a_sound_lake_is_found_sound() {
    for late in [Late::Restated, Late::Counted] {
        let found = verdict(&sound(), late);
        assert!(is_clean(&found), "{found:?}");
        assert_eq!((found.acknowledged, found.unknown, found.windows), (3, 1, 2));
    }
    let mut with_unknown = sound();
    let unknown = row(4, WIDTH + 1);
    with_unknown.stored.push(as_stored(&unknown, Some(10.0)));
    with_unknown.windows[1] = window(WIDTH, &[&row(3, WIDTH), &unknown], Some(20.0));
    assert!(is_clean(&verdict(&with_unknown, Late::Restated)));
}

/// Scenario: rows lost, doubled, invented, altered; an unknown row twice.
/// Guarantees: each is found and named.
#[test]
fn wrong_rows_are_found() {
    let mut lost = sound();
    lost.stored.remove(1);
    assert_eq!(verdict(&lost, Late::Restated).lost, ["0-2-0"]);
    let mut doubled = sound();
    doubled.stored.push(doubled.stored[0].clone());
    assert_eq!(verdict(&doubled, Late::Restated).doubled, ["0-1-0 2 times"]);
    let mut unknown = sound();
    let twice = as_stored(&row(4, WIDTH + 1), None);
    unknown.stored.extend([twice.clone(), twice]);
    assert_eq!(verdict(&unknown, Late::Restated).doubled, ["0-4-0 2 times"]);
    let mut invented = sound();
    invented.stored.push(as_stored(&row(9, 9), None));
    assert!(verdict(&invented, Late::Restated).wrong[0].contains("never sent"));
    let alterations: [fn(&mut Stored); 6] = [
        |row| row.row.ts += 1,
        |row| row.row.utilization += 1e-12,
        |row| row.row.power = 0.0,
        |row| row.row.energy += 1.0,
        |row| row.row.integer += 1,
        |row| row.row.site = "site-1".to_owned(),
    ];
    for alter in alterations {
        let mut altered = sound();
        alter(&mut altered.stored[2]);
        assert!(verdict(&altered, Late::Restated).wrong.iter().any(|wrong| wrong.contains("not what was sent")));
    }
}

/// Scenario: rises that do not cover the counter, or cover it twice.
#[test]
fn wrong_rises_are_found() {
    for rise in [None, Some(20.0), Some(-10.0)] {
        let mut wrong = sound();
        wrong.stored[1].rise = rise;
        assert!(!verdict(&wrong, Late::Restated).wrong.is_empty(), "{rise:?}");
    }
}

/// Scenario: windows missing, twice, early, from nowhere, and each value off by little.
/// Guarantees: each is found, whatever is expected of late rows.
#[test]
fn wrong_windows_are_found() {
    let defects: [fn(&mut Vec<WindowRow>); 10] = [
        |windows| windows.push(windows[0].clone()),
        |windows| windows[1].start += WIDTH,
        |windows| windows.push(WindowRow { start: START - WIDTH, ..windows[0].clone() }),
        |windows| windows[0].row_count += 1,
        |windows| windows[0].integer_sum += 1,
        |windows| windows[0].float_sum *= 1.0 + 1e-8,
        |windows| windows[0].float_avg *= 1.0 + 1e-8,
        |windows| windows[0].float_max += 1.0,
        |windows| windows[0].rise = None,
        |windows| windows[1].rise = Some(10.1),
    ];
    for late in [Late::Restated, Late::Counted] {
        for (number, defect) in defects.iter().enumerate() {
            let mut wrong = sound();
            defect(&mut wrong.windows);
            assert!(!verdict(&wrong, late).windows_wrong.is_empty(), "defect {number} with {late:?}");
        }
    }
    let mut missing = sound();
    missing.windows.remove(0);
    assert!(verdict(&missing, Late::Restated).windows_wrong[0].contains("missing"));
    assert_eq!(verdict(&missing, Late::Counted).late, BTreeMap::from([("node-0".to_owned(), 2)]));
}

/// Scenario: a wrong window that a later revision puts right, and a right one that a later revision spoils.
/// Guarantees: the newest revision counts.
#[test]
fn the_newest_revision_counts() {
    let mut restated = sound();
    let right = WindowRow { revision: 1, ..restated.windows[0].clone() };
    restated.windows[0].row_count = 1;
    restated.windows.push(right.clone());
    assert!(is_clean(&verdict(&restated, Late::Restated)));
    restated.windows.push(WindowRow { revision: 2, integer_sum: 0, ..right });
    assert!(!is_clean(&verdict(&restated, Late::Restated)));
}

/// Scenario: the row between two others came last: its rise is null in the raw table, its successor's covers it.
/// Guarantees: restated windows are held to rises in event order.
#[test]
fn restated_rises_are_those_of_event_order() {
    let rows = [row(1, 0), row(2, WIDTH), row(3, 2 * WIDTH)];
    let of = Sound {
        ledger: rows.iter().map(|row| (row.clone(), Fate::Acknowledged)).collect(),
        stored: vec![as_stored(&rows[0], None), as_stored(&rows[1], None), as_stored(&rows[2], Some(20.0))],
        windows: vec![window(0, &[&rows[0]], None), window(WIDTH, &[&rows[1]], Some(10.0))],
    };
    assert!(is_clean(&verdict(&of, Late::Restated)), "{:?}", verdict(&of, Late::Restated));
    let mut late = Sound { windows: of.windows.clone(), ..of };
    late.windows[1].rise = None;
    assert!(!is_clean(&verdict(&late, Late::Restated)));
}
