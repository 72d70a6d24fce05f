//! Ledger against lake, row by row and window by window. Pure.
//!
//! Rows: every acknowledged one once, every unknown one at most once, none that nobody sent, all with the values that were sent.
//! Windows: the newest revision of each window against what this file computes from the ledger's rows that are in the lake;
//! integers equal, floats to 1e-9 relative.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::lake::{Stored, WindowRow};
use crate::ledger::{Fate, Row};
use crate::site::WIDTH;

/// What is expected of windows that late rows belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// They are restated: every window holds every row, and rises are those of event order
    #[default]
    Restated,
    /// They stay as they were closed: what they lack is counted as late, row for row
    Counted,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Rows that must be there.
    pub acknowledged: u64,
    /// Rows that may be there.
    pub unknown: u64,
    /// Of the acknowledged, not there.
    pub lost: Vec<String>,
    /// There more than once.
    pub doubled: Vec<String>,
    /// Windows compared.
    pub windows: u64,
    /// Windows that are missing, doubled or wrong, and how.
    pub windows_wrong: Vec<String>,
    /// Rows that stand in no window, by node.
    pub late: BTreeMap<String, u64>,
    /// Everything else that is wrong.
    pub wrong: Vec<String>,
}

/// A window of one device.
type Key = (i64, String, String, String);

/// What a window must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    rows: i64,
    integers: i64,
    floats: f64,
    max: f64,
    min: f64,
    rise: Option<f64>,
}

/// Compares. Windows that end by `closed_until` must have closed.
pub fn compare(
    ledger: &[(Row, Fate)],
    stored: &[Stored],
    windows: &[WindowRow],
    closed_until: i64,
    late: Late,
) -> Verdict {
    let mut verdict = Verdict::default();
    let counts = count(stored);
    for (row, fate) in ledger {
        let found = counts.get(row.id.as_str()).copied().unwrap_or_default();
        match fate {
            Fate::Acknowledged => verdict.acknowledged += 1,
            Fate::Unknown => verdict.unknown += 1,
        }
        if found == 0 && *fate == Fate::Acknowledged {
            verdict.lost.push(row.id.clone());
        }
        if found > 1 {
            verdict.doubled.push(format!("{} {found} times", row.id));
        }
    }
    values(ledger, stored, &mut verdict);
    rises(ledger, stored, &mut verdict);

    let present: Vec<&Row> =
        ledger.iter().map(|(row, _)| row).filter(|row| counts.contains_key(row.id.as_str())).collect();
    let rise_of: HashMap<&str, Option<f64>> = match late {
        Late::Restated => in_event_order(&present),
        Late::Counted => stored.iter().map(|row| (row.row.id.as_str(), row.rise)).collect(),
    };
    let expected = expected(&present, &rise_of);
    compare_windows(&expected, windows, closed_until, late, &mut verdict);
    verdict
}

fn count(stored: &[Stored]) -> HashMap<&str, u64> {
    let mut counts = HashMap::new();
    stored.iter().for_each(|row| *counts.entry(row.row.id.as_str()).or_default() += 1);
    counts
}

/// Each stored row is one that was sent, as it was sent.
fn values(ledger: &[(Row, Fate)], stored: &[Stored], verdict: &mut Verdict) {
    let sent: HashMap<&str, &Row> = ledger.iter().map(|(row, _)| (row.id.as_str(), row)).collect();
    for row in stored {
        let Some(sent) = sent.get(row.row.id.as_str()) else {
            verdict.wrong.push(format!("row {} was never sent", row.row.id));
            continue;
        };
        if row.row != **sent {
            verdict.wrong.push(format!("row {} is not what was sent: {row:?}", row.row.id));
        }
    }
}

/// The rises of a counter add up to what it rose by: from its first row in order of arrival to its newest.
fn rises(ledger: &[(Row, Fate)], stored: &[Stored], verdict: &mut Verdict) {
    let mut devices: BTreeMap<&str, Vec<&Stored>> = BTreeMap::new();
    stored.iter().for_each(|row| devices.entry(&row.row.device).or_default().push(row));
    let given_up: BTreeSet<&str> =
        ledger.iter().filter(|(_, fate)| *fate == Fate::Unknown).map(|(row, _)| row.id.as_str()).collect();
    for (device, rows) in devices {
        let low = rows.iter().map(|row| row.row.energy).fold(f64::INFINITY, f64::min);
        let high = rows.iter().map(|row| row.row.energy).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = rows.iter().filter_map(|row| row.rise).sum();
        // A row whose sender gave up may arrive after later ones; then the first to arrive need not be the oldest.
        let is_exact = !is_late_sender(device) && !rows.iter().any(|row| given_up.contains(row.row.id.as_str()));
        if (is_exact && !is_close(sum, high - low))
            || sum > (high - low) * (1.0 + 1e-9)
            || rows.iter().any(|row| row.rise.is_some_and(|rise| rise < 0.0))
        {
            verdict.wrong.push(format!("rises of {device} add up to {sum}, the counter rose by {}", high - low));
        }
    }
}

/// Whether a device's sender holds bodies back.
fn is_late_sender(device: &str) -> bool {
    let number = device.trim_start_matches("node-").split('/').next().and_then(|number| number.parse::<u64>().ok());
    number.is_some_and(|number| number % 2 == 1)
}

/// Each row's rise over the row before it, by event time.
fn in_event_order<'a>(rows: &[&'a Row]) -> HashMap<&'a str, Option<f64>> {
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| (&a.device, a.ts).cmp(&(&b.device, b.ts)));
    let mut before: Option<&Row> = None;
    let mut rises = HashMap::new();
    for row in sorted {
        let rise = before.filter(|before| before.device == row.device).map(|before| row.energy - before.energy);
        rises.insert(row.id.as_str(), rise);
        before = Some(row);
    }
    rises
}

fn expected(rows: &[&Row], rise_of: &HashMap<&str, Option<f64>>) -> BTreeMap<Key, Expected> {
    let mut windows: BTreeMap<Key, Expected> = BTreeMap::new();
    for row in rows {
        let start = row.ts.div_euclid(WIDTH) * WIDTH;
        let window = windows
            .entry((start, row.site.clone(), row.node.clone(), row.device.clone()))
            .or_insert(Expected { max: f64::NEG_INFINITY, min: f64::INFINITY, ..Expected::default() });
        window.rows += 1;
        window.integers += row.integer;
        window.floats += row.utilization;
        window.max = window.max.max(row.power);
        window.min = window.min.min(row.power);
        if let Some(rise) = rise_of.get(row.id.as_str()).copied().flatten() {
            window.rise = Some(window.rise.unwrap_or_default() + rise);
        }
    }
    windows
}

fn compare_windows(
    expected: &BTreeMap<Key, Expected>,
    windows: &[WindowRow],
    closed_until: i64,
    late: Late,
    verdict: &mut Verdict,
) {
    let mut newest: BTreeMap<Key, &WindowRow> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in windows {
        let key = (row.start, row.site.clone(), row.node.clone(), row.device.clone());
        if !seen.insert((key.clone(), row.revision)) {
            verdict.windows_wrong.push(format!("{key:?} has revision {} twice", row.revision));
        }
        let of = newest.entry(key).or_insert(row);
        if row.revision > of.revision {
            *of = row;
        }
    }
    for (key, expected) in expected {
        let found = newest.get(key);
        // A node that has been silent for long holds no window open, so those after the last row may be closed too, and right.
        if key.0 + WIDTH > closed_until && found.is_none() {
            continue;
        }
        verdict.windows += 1;
        let lacking = expected.rows - found.map_or(0, |row| row.row_count);
        if late == Late::Counted && lacking > 0 {
            *verdict.late.entry(key.2.clone()).or_default() += lacking as u64;
            continue;
        }
        match found {
            None => verdict.windows_wrong.push(format!("{key:?} is missing: {expected:?}")),
            Some(found) if !is_as_expected(expected, found) => {
                verdict.windows_wrong.push(format!("{key:?} is {found:?}, not {expected:?}"));
            }
            Some(_) => {}
        }
    }
    let unfounded = newest.keys().filter(|key| !expected.contains_key(key));
    verdict.windows_wrong.extend(unfounded.map(|key| format!("{key:?} has no rows")));
}

fn is_as_expected(expected: &Expected, found: &WindowRow) -> bool {
    let rise = match (expected.rise, found.rise) {
        (None, None) => true,
        (Some(a), Some(b)) => is_close(a, b),
        _ => false,
    };
    (expected.rows, expected.integers) == (found.row_count, found.integer_sum)
        && is_close(expected.floats, found.float_sum)
        && is_close(expected.floats / expected.rows as f64, found.float_avg)
        && (expected.max, expected.min) == (found.float_max, found.float_min)
        && rise
}

/// Equal to 1e-9 relative.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
