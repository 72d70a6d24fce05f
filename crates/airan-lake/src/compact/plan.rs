//! Which files are merged: pure, from what the Delta log says of them.
//!
//! Only files of a closed hour, and only small ones. A merge takes files of one date and topic that are next to each other by
//! size, and happens only if it makes each of them grow by a factor. So a row is rewritten a bounded number of times however
//! its files came: at most `log(target / its first file)` to the base of that factor. What no merge takes is bounded as well:
//! where none is due, the sizes of the files left grow geometrically.
//!
//! Of a day that is over, and where no such merge is due, files that overlap are merged as far as that pays, large ones too
//! (`overlap.rs`).

use std::collections::BTreeMap;

use airan_model::time::{HOUR, MINUTE, Micros};

use super::overlap;
use crate::files::Live;
use crate::layout::date_of;

/// A file is closed when its newest row is this old: an hour, and what rows may come late into it without being late by the
/// rules of windows (lateness and slow clocks: 2 min 10 s by default), with the interval of commits, and room.
pub(crate) const CLOSED_AFTER: Micros = HOUR + 10 * MINUTE;
/// Most files in one merge: of each a batch and pages are decoded at once.
pub(crate) const MOST_INPUTS: usize = 64;
/// Bytes of one merge at most, in targets: what a core merges in minutes, and what a crash may lose.
pub(crate) const MOST_TARGETS: u64 = 16;
/// Of a day that is over two files are enough for a merge; it makes each grow by at least this, in halves: 1.5.
const GROWTH_WHEN_OVER: u64 = 3;

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanRules {
    pub(crate) now: Micros,
    /// A file half as large is large enough; a merge makes none larger.
    pub(crate) target_bytes: u64,
    /// Fewest files in a merge of a day that is not over.
    pub(crate) min_files: usize,
}

/// Files to be merged into one, or into several that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMerge {
    /// The table.
    pub table: String,
    /// Days since 1970.
    pub date: i32,
    /// Topic of the shards whose rows they hold.
    pub topic: String,
    /// Places of the files, smallest first.
    pub files: Vec<String>,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The merges that are due, oldest date first; no file is in two of them.
pub(crate) fn plan<'a>(files: impl Iterator<Item = &'a Live>, rules: &PlanRules) -> Vec<PlannedMerge> {
    let closed = |live: &&Live| live.file.max_ts < rules.now.saturating_sub(CLOSED_AFTER);
    let mut by_day: BTreeMap<(i32, &str), Vec<&Live>> = BTreeMap::new();
    for live in files.filter(closed) {
        by_day.entry((live.date, live.topic.as_str())).or_default().push(live);
    }
    let today = date_of(rules.now.saturating_sub(CLOSED_AFTER));
    let mut merges = Vec::new();
    for ((date, topic), all) in by_day {
        let before = merges.len();
        let is_small = |live: &&&Live| live.file.bytes < rules.target_bytes / 2;
        let mut small: Vec<&Live> = all.iter().filter(is_small).copied().collect();
        small.sort_by(|a, b| (a.file.bytes, &a.file.path).cmp(&(b.file.bytes, &b.file.path)));
        let (need, growth) = match date < today {
            true => (2, GROWTH_WHEN_OVER),
            // Half of what as many equal files give.
            false => (rules.min_files, (rules.min_files as u64).max(GROWTH_WHEN_OVER)),
        };
        let mut rest = small.as_slice();
        while let Some((_, larger)) = rest.split_first() {
            let Some(count) = due(rest, need, growth, rules.target_bytes, small.len()) else {
                rest = larger;
                continue;
            };
            let (chosen, others) = rest.split_at(count);
            rest = others;
            merges.push(merge(date, topic, chosen));
        }
        if date < today && merges.len() == before {
            let most = rules.target_bytes.saturating_mul(MOST_TARGETS);
            for mut chosen in overlap::late(&all, rules.target_bytes, most) {
                chosen.sort_by(|a, b| (a.file.bytes, &a.file.path).cmp(&(b.file.bytes, &b.file.path)));
                merges.push(merge(date, topic, &chosen));
            }
        }
    }
    merges
}

fn merge(date: i32, topic: &str, chosen: &[&Live]) -> PlannedMerge {
    PlannedMerge {
        table: chosen.first().map(|live| live.file.table.clone()).unwrap_or_default(),
        date,
        topic: topic.to_owned(),
        files: chosen.iter().map(|live| live.file.path.clone()).collect(),
        rows: chosen.iter().map(|live| live.file.rows).sum(),
        bytes: chosen.iter().map(|live| live.file.bytes).sum(),
    }
}

/// How many of `sorted`, from the smallest on, are to be merged: as many as can be. `growth` in halves.
///
/// Files that one merge makes do not overlap; those of two do. So where one merge cannot take `all` there are, it makes a file
/// that is still small, if it can, and the next round merges those.
fn due(sorted: &[&Live], need: usize, growth: u64, target: u64, all: usize) -> Option<usize> {
    let most = target.saturating_mul(MOST_TARGETS);
    let (mut sum, mut found, mut small) = (0u64, None, None);
    for (at, live) in sorted.iter().take(MOST_INPUTS).enumerate() {
        sum = sum.saturating_add(live.file.bytes);
        if sum > most {
            break;
        }
        if at + 1 >= need && sum.saturating_mul(2) >= growth.saturating_mul(live.file.bytes) {
            found = Some(at + 1);
            if sum < target / 2 {
                small = found;
            }
        }
    }
    match found {
        Some(count) if count < all => small.or(found),
        found => found,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use airan_model::time::DAY;
    use proptest::prelude::*;

    use super::*;
    use crate::files::Origin;
    use crate::record::RecordFile;
    use crate::seal::Checksum;

    const TARGET: u64 = 1 << 20;
    const MIN_FILES: usize = 8;
    /// Noon of day 100.
    const NOW: Micros = 100 * DAY + 12 * HOUR;

    /// A published file of one commit.
    pub(in crate::compact) fn live(id: usize, date: i32, topic: &str, bytes: u64, max_ts: Micros) -> Live {
        Live {
            topic: topic.to_owned(),
            origin: Some(Origin { partition: 0, n: id as u64 }),
            at: 0,
            date,
            published: true,
            span: None,
            file: RecordFile {
                table: "host".to_owned(),
                path: format!("host/date=x/{id}.parquet"),
                rows: bytes / 100,
                bytes,
                min_ts: Micros::from(date) * DAY,
                max_ts,
                checksum: Checksum::of(b""),
            },
        }
    }

    fn rules() -> PlanRules {
        PlanRules { now: NOW, target_bytes: TARGET, min_files: MIN_FILES }
    }

    /// Scenario: eight equal small files of today, of which one is of the last hour, or large, or of another topic.
    /// Guarantees: only eight closed small files of one topic are merged; seven are not, but on a day that is over two are.
    #[test]
    fn only_small_files_of_closed_hours_are_merged() {
        let old = NOW - CLOSED_AFTER - 1;
        let of = |odd: Live| {
            let mut files: Vec<Live> = (0..7).map(|id| live(id, 100, "a", 1_000, old)).collect();
            files.push(odd);
            plan(files.iter(), &rules()).iter().map(|merge| merge.files.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(live(9, 100, "a", 1_000, old)), [8]);
        assert!(of(live(9, 100, "a", 1_000, old + 1)).is_empty(), "an hour that is not closed");
        assert!(of(live(9, 100, "a", TARGET / 2, old)).is_empty(), "a large file");
        assert!(of(live(9, 100, "b", 1_000, old)).is_empty(), "another topic");
        assert!(of(live(9, 99, "a", 1_000, old)).is_empty(), "another date");
        let over = [live(1, 99, "a", 1_000, old), live(2, 99, "a", 1_000, old)];
        assert_eq!(plan(over.iter(), &rules())[0].files, ["host/date=x/1.parquet", "host/date=x/2.parquet"]);
        // Midnight plus the hour: yesterday is not over before it is closed.
        let early = PlanRules { now: 100 * DAY + HOUR, ..rules() };
        assert!(plan(over.iter().filter(|live| live.file.max_ts < 0), &early).is_empty());
        let yesterday = [live(1, 99, "a", 1_000, 99 * DAY), live(2, 99, "a", 1_000, 99 * DAY)];
        assert!(plan(yesterday.iter(), &early).is_empty());
    }

    /// Merges until nothing is due. Returns the files left, and how often each first file was rewritten at most.
    fn settle(files: &mut Vec<(Live, u32)>, next: &mut usize) -> u32 {
        let mut most = 0;
        loop {
            let merges = plan(files.iter().map(|(live, _)| live), &rules());
            if merges.is_empty() {
                return most;
            }
            for merge in merges {
                let (gone, kept): (Vec<_>, Vec<_>) =
                    files.drain(..).partition(|(live, _)| merge.files.contains(&live.file.path));
                assert!(gone.len() == merge.files.len() && gone.len() >= 2);
                let rewritten = gone.iter().map(|(_, times)| times + 1).max().unwrap();
                most = most.max(rewritten);
                let max_ts = gone.iter().map(|(live, _)| live.file.max_ts).max().unwrap();
                *files = kept;
                let made = merge.bytes.div_ceil(TARGET);
                for at in 0..made {
                    *next += 1;
                    let bytes = merge.bytes / made + if at == 0 { merge.bytes % made } else { 0 };
                    let made = live(*next, merge.date, &merge.topic, bytes, max_ts);
                    files.push((Live { origin: None, ..made }, rewritten));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Scenario: files of any sizes, dates and topics come in any order, and compaction runs in between at any moment.
        /// Guarantees: a merge is of one date and topic, of at most so many bytes and inputs, and no file is in two;
        /// bytes stay; few small files are left; no row is rewritten more often than its file can grow.
        #[test]
        fn few_files_are_left_and_no_row_is_rewritten_often(
            came in prop::collection::vec((1_000..TARGET, 0..6u32, 98..101i32, any::<bool>(), 0..8u8), 0..300)
        ) {
            let old = NOW - CLOSED_AFTER - 1;
            let (mut files, mut next) = (Vec::new(), 1_000);
            let (mut bytes, mut most) = (0, 0);
            for (id, (size, shrink, date, topic, runs)) in came.into_iter().enumerate() {
                let size = (size >> (2 * shrink)).max(500);
                bytes += size;
                files.push((live(id, date, if topic { "a" } else { "b" }, size, old), 0));
                if runs == 0 {
                    let plan = plan(files.iter().map(|(live, _)| live), &rules());
                    let mut seen = HashSet::new();
                    for merge in &plan {
                        prop_assert!(merge.bytes <= MOST_TARGETS * TARGET && merge.files.len() <= MOST_INPUTS);
                        prop_assert!(merge.files.iter().all(|file| seen.insert(file.clone())));
                    }
                    most = most.max(settle(&mut files, &mut next));
                }
            }
            most = most.max(settle(&mut files, &mut next));
            prop_assert_eq!(files.iter().map(|(live, _)| live.file.bytes).sum::<u64>(), bytes);
            // 500 bytes grow by a half 19 times up to the target; once more where they overlap others as they come.
            prop_assert!(most <= 20, "{most}");
            for (date, topic) in [98, 99, 100].into_iter().flat_map(|date| [(date, "a"), (date, "b")]) {
                // Of a day that is over each is more than twice as large as the one before; of today, where eight must fit into
                // the target, as the seventh before.
                let (least, bound) = if date < 100 { (TARGET / 2, 12) } else { (TARGET / MIN_FILES as u64, 7 * 12) };
                let small = files.iter().filter(|(live, _)| {
                    (live.date, live.topic.as_str()) == (date, topic) && live.file.bytes < least
                });
                let small = small.count();
                prop_assert!(small <= bound, "{small} files of {date} in {topic}");
            }
        }
    }
}
