//! How hard a shard works, and for whom: whether its hottest site is what binds it.
//!
//! A site lives in one partition and a shard uses one core at a time, so a site that alone keeps a shard busy is the end of what
//! more partitions and processors can do (DESIGN section 12). Nothing depends on these numbers but people.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use airan_model::schema;
use arrow::array::{Array, AsArray, RecordBatch};

use crate::sheet::Sheet;
use crate::steps::Steps;

/// Sites counted at a time. The count of a site is too low by one in this many of the rows at most, which does not hide a site
/// that has half of them.
const SITES: usize = 64;
/// After this long a measurement is put aside and the next one begins.
const SPAN: Duration = Duration::from_secs(60);
/// From here on a shard is as busy as it can be ...
const BUSY: f64 = 0.8;
/// ... and a site is what it is busy with.
const HOT: f64 = 0.5;

/// What a shard was busy with over a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadSummary {
    /// Seconds at work: decoding, windows, commits with the waits for the store.
    pub busy_seconds: f64,
    /// Seconds of the stretch.
    pub wall_seconds: f64,
    /// Rows that came, duplicates included.
    pub rows: u64,
    /// The site with most of them, and how many, to within a sixty-fourth of all rows.
    pub hottest: Option<(String, u64)>,
}

impl LoadSummary {
    /// The share of the time in which the shard was at work, 0 to 1.
    pub fn busy_share(&self) -> f64 {
        if self.wall_seconds > 0.0 { (self.busy_seconds / self.wall_seconds).min(1.0) } else { 0.0 }
    }

    /// The share of the rows that were the hottest site's, 0 to 1.
    pub fn hottest_share(&self) -> f64 {
        self.hottest.as_ref().filter(|_| self.rows > 0).map_or(0.0, |(_, rows)| *rows as f64 / self.rows as f64)
    }

    /// Whether one site alone keeps the shard as busy as it can be: more partitions would not help it.
    pub fn is_bound(&self) -> bool {
        self.busy_share() > BUSY && self.hottest_share() > HOT
    }

    /// Reads the row of a shard state's table.
    pub(crate) fn read(sheet: &Sheet) -> Option<LoadSummary> {
        let hottest = sheet.text(0, "site").map(|site| (site.to_owned(), sheet.count(0, "site_rows")));
        Some(LoadSummary {
            busy_seconds: sheet.float(0, "busy_seconds")?,
            wall_seconds: sheet.float(0, "wall_seconds")?,
            rows: sheet.count(0, "rows"),
            hottest,
        })
    }
}

/// Measures a shard from its start on.
#[derive(Debug)]
pub(crate) struct Load {
    since: Instant,
    busy_before: Duration,
    rows: u64,
    sites: Hot,
    last: Option<LoadSummary>,
}

impl Load {
    pub fn start() -> Load {
        Load { since: Instant::now(), busy_before: Duration::ZERO, rows: 0, sites: Hot::default(), last: None }
    }

    /// Counts the rows of a message by site.
    pub fn count(&mut self, rows: &RecordBatch) {
        let Some(sites) = rows.column_by_name(schema::SITE).and_then(|column| column.as_string_opt::<i32>()) else {
            return;
        };
        self.rows += sites.len() as u64;
        let mut run: Option<(&str, u64)> = None;
        for site in sites.iter().flatten() {
            match &mut run {
                Some((of, count)) if *of == site => *count += 1,
                _ => {
                    if let Some((site, count)) = run.replace((site, 1)) {
                        self.sites.add(site, count);
                    }
                }
            }
        }
        if let Some((site, count)) = run {
            self.sites.add(site, count);
        }
    }

    /// The newest measurement worth telling: the one under way once it is half as long as the one before.
    pub fn summary(&self, steps: &Steps) -> LoadSummary {
        let now = LoadSummary {
            busy_seconds: steps.total().saturating_sub(self.busy_before).as_secs_f64(),
            wall_seconds: self.since.elapsed().as_secs_f64(),
            rows: self.rows,
            hottest: self.sites.hottest().map(|(site, rows)| (site.to_owned(), rows)),
        };
        match &self.last {
            Some(last) if now.wall_seconds < last.wall_seconds / 2.0 => last.clone(),
            _ => now,
        }
    }

    /// Begins anew where the measurement under way is long enough.
    pub fn turn(&mut self, steps: &Steps) {
        if self.since.elapsed() >= SPAN {
            let last = self.summary(steps);
            *self = Load { busy_before: steps.total(), last: Some(last), ..Load::start() };
        }
    }
}

/// The sites with most rows, in bounded memory (Misra and Gries, "Finding repeated elements", 1982).
#[derive(Debug, Default)]
struct Hot {
    counts: HashMap<Box<str>, u64>,
}

impl Hot {
    fn add(&mut self, site: &str, mut rows: u64) {
        if let Some(count) = self.counts.get_mut(site) {
            *count += rows;
            return;
        }
        while rows > 0 && self.counts.len() >= SITES {
            let least = self.counts.values().copied().min().unwrap_or(0).min(rows);
            rows -= least;
            self.counts.retain(|_, count| {
                *count -= least;
                *count > 0
            });
        }
        if rows > 0 {
            self.counts.insert(site.into(), rows);
        }
    }

    fn hottest(&self) -> Option<(&str, u64)> {
        let counts = self.counts.iter().map(|(site, rows)| (&**site, *rows));
        counts.max_by(|one, two| (one.1, two.0).cmp(&(two.1, one.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Scenario: runs of rows of more sites than are counted.
        /// Guarantees: no count is too high, and none is too low by more than its share; a site with more than that is found.
        #[test]
        fn a_hot_site_is_found_among_many(runs in prop::collection::vec((0usize..300, 1u64..50), 0..2_000), hot in 0u64..20_000) {
            let (mut sketch, mut truth) = (Hot::default(), HashMap::<String, u64>::new());
            for (site, rows) in runs.iter().copied().chain([(1_000, hot)]).filter(|run| run.1 > 0) {
                let site = format!("site-{site}");
                sketch.add(&site, rows);
                *truth.entry(site).or_default() += rows;
            }
            let most_lost = truth.values().sum::<u64>() / SITES as u64;
            prop_assert!(sketch.counts.len() <= SITES);
            for (site, rows) in &truth {
                let counted = sketch.counts.get(&**site).copied().unwrap_or(0);
                prop_assert!(counted <= *rows && rows - counted <= most_lost, "{site}: {counted} of {rows}");
            }
            let found = sketch.hottest().map_or(0, |(_, rows)| rows);
            prop_assert!(found + most_lost >= truth.values().copied().max().unwrap_or(0));
        }
    }

    /// Scenario: shards by how busy they are and how much of it one site is.
    /// Guarantees: only one site that keeps the shard busy makes it bound.
    #[test]
    fn a_shard_is_bound_by_one_site_that_keeps_it_busy() {
        let load = |busy_seconds: f64, rows: u64| LoadSummary {
            busy_seconds,
            wall_seconds: 10.0,
            rows: 100,
            hottest: Some(("s".to_owned(), rows)),
        };
        assert!(load(9.0, 51).is_bound());
        assert!(!load(8.0, 100).is_bound() && !load(10.0, 50).is_bound());
        assert!(!LoadSummary::default().is_bound());
        assert_eq!(load(30.0, 100).busy_share(), 1.0);
    }
}
