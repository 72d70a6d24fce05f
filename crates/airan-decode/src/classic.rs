//! Prometheus' classic histograms: lines (series) of one label set, put together when the whole body is read.
//!
//! `_bucket` lines count up to and including their `le`; the column holds counts per bucket. A histogram that contradicts itself
//! (no `+Inf`, counts that fall, a `_count` that is not that of `+Inf`, a line twice) is not put together: its lines are samples.
//!
//! Of each line only its offset is kept; labels are read again when they are needed. So this takes about 40 bytes a line.

use std::hash::{BuildHasher, Hasher};

use airan_model::catalog::{Catalog, ColumnType, MetricMapping, Target};
use airan_model::time::Micros;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::histogram::Histogram;
use crate::labels::Label;
use crate::number::Number;
use crate::rows::MetricKind;

/// The label that gives a bucket's upper bound.
const LE: &str = "le";

/// What a line says of its histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Bucket,
    Sum,
    Count,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'t> {
    /// Offset of the line.
    pub at: usize,
    pub part: Part,
    pub number: Number<'t>,
}

/// The lines of one histogram.
#[derive(Debug)]
pub(crate) struct Group<'t, 'a> {
    hash: u64,
    pub family: &'t str,
    pub mapping: &'a MetricMapping,
    pub ts: Option<Micros>,
    pub pieces: Vec<Piece<'t>>,
}

/// The histograms so far.
#[derive(Debug, Default)]
pub(crate) struct Groups<'t, 'a> {
    hasher: RandomState,
    index: HashTable<u32>,
    groups: Vec<Group<'t, 'a>>,
    // The last line's group and its labels: the next line mostly belongs to it.
    last: Option<(usize, Vec<Label<'t>>)>,
}

/// The body the lines are in.
pub(crate) trait Lines<'t> {
    /// The labels of the line at an offset; None if it is to be refused.
    fn labels_at(&self, at: usize) -> Option<Vec<Label<'t>>>;
}

/// What a line of that name is of which histogram, if the catalog has a column for that: the family's name is the first so
/// many bytes.
pub(crate) fn part_of<'a>(
    catalog: &'a Catalog,
    name: &str,
    kind: MetricKind,
) -> Option<(Part, usize, &'a MetricMapping)> {
    if !matches!(kind, MetricKind::Histogram | MetricKind::Unknown) {
        return None;
    }
    let parts = [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)];
    let (family, part) = parts.iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)))?;
    let mapping = &**catalog.metric(family)?;
    let is_histogram = |target: &Target| target.stream.columns[target.column].ty == ColumnType::Histogram;
    mapping.targets.iter().any(is_histogram).then_some((part, family.len(), mapping))
}

impl<'t, 'a> Groups<'t, 'a> {
    /// Adds a line to its histogram; false for a bucket without a bound.
    pub(crate) fn add(
        &mut self,
        family: &'t str,
        mapping: &'a MetricMapping,
        ts: Option<Micros>,
        labels: &[Label<'t>],
        piece: Piece<'t>,
        lines: &impl Lines<'t>,
    ) -> bool {
        if (piece.part == Part::Bucket) != labels.iter().any(|label| label.name == LE) {
            return false;
        }
        if let Some((at, known)) = &self.last {
            let group = &mut self.groups[*at];
            if group.family == family && group.ts == ts && are_same(known, labels) {
                group.pieces.push(piece);
                return true;
            }
        }
        let hash = self.hash(family, ts, labels);
        let groups = &self.groups;
        let found = self.index.find(hash, |at| {
            let group = &groups[*at as usize];
            group.hash == hash
                && group.family == family
                && group.ts == ts
                && group
                    .pieces
                    .first()
                    .and_then(|first| lines.labels_at(first.at))
                    .is_some_and(|first| are_same(&first, labels))
        });
        let at = match found {
            Some(at) => *at as usize,
            None => {
                let at = self.groups.len();
                self.groups.push(Group { hash, family, mapping, ts, pieces: Vec::new() });
                let groups = &self.groups;
                self.index.insert_unique(hash, at as u32, |at| groups[*at as usize].hash);
                at
            }
        };
        self.groups[at].pieces.push(piece);
        self.last = Some((at, labels.to_vec()));
        true
    }

    pub(crate) fn into_inner(self) -> Vec<Group<'t, 'a>> {
        self.groups
    }

    /// The same for any order of labels.
    fn hash(&self, family: &str, ts: Option<Micros>, labels: &[Label<'_>]) -> u64 {
        let mut sum = self.hasher.hash_one((family, ts));
        for label in labels.iter().filter(|label| label.name != LE) {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(label.name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(label.value.as_bytes());
            sum = sum.wrapping_add(hasher.finish());
        }
        sum
    }
}

/// Whether two lines have the same labels, but for `le`, in any order.
fn are_same(a: &[Label<'_>], b: &[Label<'_>]) -> bool {
    let without_le = |labels: &[Label<'_>]| labels.iter().filter(|label| label.name != LE).count();
    without_le(a) == without_le(b) && a.iter().filter(|label| label.name != LE).all(|label| b.contains(label))
}

/// The labels and the histogram, if the lines make one.
pub(crate) fn assemble<'t>(group: &Group<'t, '_>, lines: &impl Lines<'t>) -> Option<(Vec<Label<'t>>, Histogram)> {
    let mut labels = lines.labels_at(group.pieces.first()?.at)?;
    labels.retain(|label| label.name != LE);
    let mut buckets = Vec::with_capacity(group.pieces.len());
    let (mut sum, mut count) = (None, None);
    for piece in &group.pieces {
        match piece.part {
            Part::Bucket => buckets.push((bound_at(lines, piece.at)?, piece.number.as_i64()?)),
            Part::Sum if sum.is_none() => sum = Some(piece.number.as_f64()),
            Part::Count if count.is_none() => count = Some(piece.number.as_i64()?),
            Part::Sum | Part::Count => return None,
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (last, total) = *buckets.last()?;
    if last != f64::INFINITY || count.is_some_and(|count| count != total) {
        return None;
    }
    let mut before = 0;
    let mut histogram = Histogram { count: total, sum: sum.filter(|sum| sum.is_finite()), ..Histogram::default() };
    for (bound, up_to) in &buckets {
        histogram.counts.push(up_to.checked_sub(before)?);
        before = *up_to;
        histogram.bounds.extend(Some(*bound).filter(|bound| *bound != f64::INFINITY));
    }
    histogram.check().ok().map(|()| (labels, histogram))
}

/// The bound of the bucket at an offset.
fn bound_at<'t>(lines: &impl Lines<'t>, at: usize) -> Option<f64> {
    let labels = lines.labels_at(at)?;
    let bound = labels.iter().find(|label| label.name == LE)?;
    Some(Number::parse(&bound.value)?.as_f64())
}
