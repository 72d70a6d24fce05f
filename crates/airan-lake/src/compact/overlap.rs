//! Files that overlap although each is in order: rows that came late, after the others of their date had been merged. Pure, from
//! what the Delta log says of the files.
//!
//! Of files that overlap, some set does not overlap in itself and holds most of the bytes: these are the *base*, the others are
//! *late*. A late file is merged with those of the base that it overlaps, where that pays: late bytes are at least
//! 1/[`SHARE`] of the bytes of the base, or all together are few. So a merge writes at most [`SHARE`] + 1 bytes for each late
//! byte in it, or what a core writes in a moment, and a byte is late again only once as many have come as its run has. What is
//! left overlapping is less than that share.

use super::plan::MOST_INPUTS;
use crate::files::Live;

/// Bytes of the base that one late byte may have rewritten.
const SHARE: u64 = 8;
/// Merged whatever the share, as a part of the target: 16 MiB, less than a second of one core.
const FEW: u64 = 16;
/// Files that share less than this part of the shorter one's span of time are neighbours: their hours' edges meet, and nothing
/// is gained by merging hour after hour.
const EDGE: i64 = 8;

/// Sets of files to be merged, each of at most `most` bytes; no file is in two. `files` are of one date and topic.
pub(super) fn late<'a>(files: &[&'a Live], target: u64, most: u64) -> Vec<Vec<&'a Live>> {
    // Of what a rewriting made and cannot be told where it begins, neither could be told of what it would become: it would be
    // rewritten for ever.
    let is_told = |live: &&&Live| live.origin.is_some() || live.span.is_some();
    let mut by_size: Vec<&Live> = files.iter().filter(is_told).copied().collect();
    by_size.sort_by(|a, b| (b.file.bytes, &a.file.path).cmp(&(a.file.bytes, &b.file.path)));
    let mut by_age = by_size.clone();
    by_age.sort_by(|a, b| (a.at, &a.file.path).cmp(&(b.at, &b.file.path)));
    let (base, late) = [split(&by_size), split(&by_age)]
        .into_iter()
        .min_by_key(|(_, late)| late.iter().map(|live| live.file.bytes).sum::<u64>())
        .unwrap_or_default();
    let met: Vec<(&Live, Vec<usize>)> =
        late.into_iter().map(|late| (late, (0..base.len()).filter(|at| overlap(base[*at], late)).collect())).collect();
    let mut used_base = vec![false; base.len()];
    let mut used_late = vec![false; met.len()];
    // Those that overlap most first: others lie within what they overlap.
    let mut widest: Vec<usize> = (0..met.len()).collect();
    widest.sort_by_key(|at| std::cmp::Reverse(met[*at].1.len()));
    let mut sets = Vec::new();
    for at in widest {
        let of_base = &met[at].1;
        if used_late[at] || of_base.iter().any(|base| used_base[*base]) {
            continue;
        }
        let within = |other: &usize| !used_late[*other] && met[*other].1.iter().all(|base| of_base.contains(base));
        let of_late: Vec<usize> = (0..met.len()).filter(within).collect();
        let bytes = |files: &mut dyn Iterator<Item = &&Live>| files.map(|live| live.file.bytes).sum::<u64>();
        let rewritten = bytes(&mut of_base.iter().map(|at| &base[*at]));
        let came = bytes(&mut of_late.iter().map(|at| &met[*at].0));
        let pays = came.saturating_mul(SHARE) >= rewritten || came + rewritten <= target / FEW;
        if !pays || came + rewritten > most || of_base.len() + of_late.len() > MOST_INPUTS {
            continue;
        }
        of_base.iter().for_each(|at| used_base[*at] = true);
        of_late.iter().for_each(|at| used_late[*at] = true);
        sets.push(of_base.iter().map(|at| base[*at]).chain(of_late.iter().map(|at| met[*at].0)).collect());
    }
    sets
}

/// Those that overlap none before them, and the others.
fn split<'a>(files: &[&'a Live]) -> (Vec<&'a Live>, Vec<&'a Live>) {
    let (mut base, mut late): (Vec<&Live>, Vec<&Live>) = Default::default();
    for live in files {
        match base.iter().any(|of_base| overlap(of_base, live)) {
            true => late.push(live),
            false => base.push(live),
        }
    }
    (base, late)
}

/// Whether rows of one may lie between rows of the other, in time and in order. Of a file whose first and last row are not known
/// (as a commit writes them) all orders may be in it.
pub(super) fn overlap(a: &Live, b: &Live) -> bool {
    let (one, other) = (&a.file, &b.file);
    let shared = one.max_ts.min(other.max_ts).saturating_sub(one.min_ts.max(other.min_ts));
    let shorter = (one.max_ts.saturating_sub(one.min_ts)).min(other.max_ts.saturating_sub(other.min_ts));
    if shared < 0 || shared.saturating_mul(EDGE) < shorter {
        return false;
    }
    match (&a.span, &b.span) {
        (Some(a), Some(b)) => a.meets(b),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::{HOUR, MINUTE, Micros};
    use proptest::prelude::*;

    use super::*;
    use crate::compact::plan::tests::live;
    use crate::span::{Edge, Span};

    const MIB: u64 = 1 << 20;
    const TARGET: u64 = 256 * MIB;
    const MOST: u64 = 16 * TARGET;

    /// From a site to the next, where all places in the order are on one line.
    const SITE: Micros = 24 * HOUR;

    /// First and last place of a file on that line; a commit's file may hold any.
    fn line(live: &Live) -> (Micros, Micros) {
        let place = |edge: &Edge| edge.keys[0].as_ref().unwrap()[1..].parse::<Micros>().unwrap() * SITE + edge.at;
        live.span.as_ref().map_or((0, 80 * SITE), |span| (place(&span.first), place(&span.last)))
    }

    fn edge(site: u32, at: Micros) -> Edge {
        Edge { keys: vec![Some(format!("s{site:05}"))], at }
    }

    /// A file of rows between two sites and two times; a commit's where there are no sites.
    fn file(id: usize, mib: u64, sites: Option<(u32, u32)>, (from, to): (Micros, Micros), at: Micros) -> Live {
        let mut live = live(id, 99, "a", mib * MIB, to);
        live.file.min_ts = from;
        live.at = at;
        live.span = sites.map(|(first, last)| Span {
            by: vec!["site".to_owned()],
            first: edge(first, from),
            last: edge(last, to),
        });
        live
    }

    fn sets(files: &[Live]) -> Vec<Vec<String>> {
        let files: Vec<&Live> = files.iter().collect();
        let name =
            |live: &&Live| live.file.path.trim_start_matches("host/date=x/").trim_end_matches(".parquet").to_owned();
        let mut sets: Vec<Vec<String>> =
            late(&files, TARGET, MOST).iter().map(|set| set.iter().map(name).collect()).collect();
        sets.iter_mut().for_each(|set| set.sort());
        sets
    }

    /// Scenario: an hour in three files that follow each other, and late rows: too few, enough for one of the files they overlap,
    /// enough for all; late rows of another hour; few bytes in all; an hour whose edge overlaps.
    /// Guarantees: files are merged with what they overlap and no other, and only where it pays.
    #[test]
    fn late_rows_are_merged_with_what_they_overlap_where_that_pays() {
        let hour = (0, HOUR);
        let base = [
            file(1, 200, Some((0, 10)), hour, 1),
            file(2, 200, Some((11, 20)), hour, 1),
            file(3, 200, Some((21, 30)), hour, 1),
        ];
        let with = |more: &[Live]| sets(&[&base[..], more].concat());
        assert!(with(&[]).is_empty(), "what follows each other does not overlap");
        assert!(with(&[file(4, 24, Some((3, 5)), hour, 2)]).is_empty(), "less than an eighth");
        assert_eq!(with(&[file(4, 25, Some((3, 5)), hour, 2)]), [["1", "4"]]);
        assert_eq!(with(&[file(4, 20, Some((3, 5)), hour, 2), file(5, 5, Some((4, 9)), hour, 3)]), [["1", "4", "5"]]);
        assert!(with(&[file(4, 49, Some((3, 15)), hour, 2)]).is_empty());
        assert_eq!(with(&[file(4, 50, Some((3, 15)), hour, 2)]), [["1", "2", "4"]]);
        assert!(with(&[file(4, 74, None, hour, 2)]).is_empty());
        assert_eq!(with(&[file(4, 75, None, hour, 2)]), [["1", "2", "3", "4"]], "a commit's file may hold any site");
        assert!(with(&[file(4, 75, None, (2 * HOUR, 3 * HOUR), 2)]).is_empty(), "another hour");
        let untold = Live { origin: None, ..file(4, 75, None, hour, 2) };
        assert!(with(&[untold]).is_empty(), "of a rewriting that cannot tell");
        assert!(with(&[file(4, 75, Some((0, 30)), (HOUR - MINUTE, 2 * HOUR), 2)]).is_empty(), "they share a minute");
        let small = [file(1, 15, Some((0, 10)), hour, 1), file(2, 1, Some((3, 3)), hour, 2)];
        assert_eq!(sets(&small), [["1", "2"]], "few bytes");
        let small = [file(1, 16, Some((0, 10)), hour, 1), file(2, 1, Some((3, 3)), hour, 2)];
        assert!(sets(&small).is_empty());
    }

    /// Scenario: runs over one hour that a merge had to make one by one; more than a merge takes.
    /// Guarantees: the first are merged, the others left.
    #[test]
    fn a_set_is_not_larger_than_a_merge() {
        let run = |id: usize, mib: u64| file(id, mib, Some((0, 30)), (0, HOUR), 1);
        assert_eq!(sets(&[run(1, 140), run(2, 140), run(3, 140)]), [["1", "2", "3"]]);
        assert!(sets(&(0..40).map(|id| run(id, 140)).collect::<Vec<_>>()).is_empty());
        assert!(sets(&(0..65).map(|id| run(id, 1)).collect::<Vec<_>>()).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Scenario: files of any sites, times and sizes come in any order; after each those that pay are merged until none does.
        /// Guarantees: that comes to an end; no bytes are lost; nine bytes are written for one that comes, beside merges of few bytes,
        /// at most as often as its run can double.
        #[test]
        fn merging_what_is_late_ends_and_costs_what_it_may(
            came in prop::collection::vec((1..300u64, 0..40u32, 0..40u32, 0..6i64, 1..6i64, any::<bool>()), 1..24)
        ) {
            let (mut files, mut next, mut bytes, mut written) = (Vec::<Live>::new(), 100, 0u64, 0u64);
            for (id, (mib, first, more, from, hours, is_known)) in came.into_iter().enumerate() {
                bytes += mib * MIB;
                let sites = is_known.then_some((first, first + more));
                files.push(file(id, mib, sites, (from * HOUR, (from + hours) * HOUR), id as Micros));
                for round in 0.. {
                    prop_assert!(round < 200, "it does not end");
                    let chosen: Vec<Vec<String>> = late(&files.iter().collect::<Vec<_>>(), TARGET, MOST)
                        .iter().map(|set| set.iter().map(|live| live.file.path.clone()).collect()).collect();
                    if chosen.is_empty() {
                        break;
                    }
                    for set in chosen {
                        let (gone, kept): (Vec<Live>, Vec<Live>) =
                            files.into_iter().partition(|live| set.contains(&live.file.path));
                        prop_assert!(gone.len() > 1 && gone.len() == set.len());
                        files = kept;
                        let sum: u64 = gone.iter().map(|live| live.file.bytes).sum();
                        written += if sum <= TARGET / FEW { 0 } else { sum };
                        let low = gone.iter().map(|live| line(live).0).min().unwrap();
                        let high = gone.iter().map(|live| line(live).1).max().unwrap();
                        let from = gone.iter().map(|live| live.file.min_ts).min().unwrap();
                        let to = gone.iter().map(|live| live.file.max_ts).max().unwrap();
                        let count = sum.div_ceil(TARGET);
                        for at in 0..count {
                            let cut = |at: u64| {
                                let place = low + (high - low) * at as Micros / count as Micros;
                                edge((place / SITE) as u32, place % SITE)
                            };
                            next += 1;
                            let mut made = file(next, 1, Some((0, 0)), (from, to), next as Micros);
                            let span = made.span.as_mut().unwrap();
                            (span.first, span.last) = (cut(at), cut(at + 1));
                            made.file.bytes = sum / count + if at == 0 { sum % count } else { 0 };
                            files.push(made);
                        }
                    }
                }
            }
            prop_assert_eq!(files.iter().map(|live| live.file.bytes).sum::<u64>(), bytes);
            let doubled = u64::from((bytes / MIB).ilog2()) + 1;
            prop_assert!(written <= (SHARE + 1) * bytes * doubled, "{written} of {bytes}");
        }
    }
}
