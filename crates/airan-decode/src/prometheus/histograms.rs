//! Histograms in text: lines of one label set, put together when the whole scrape is read.
//!
//! `_bucket` lines count up to and including their `le`; the column holds counts per bucket. A histogram that contradicts itself
//! (no `+Inf`, counts that fall, a `_count` that is not that of `+Inf`, a line twice) is not put together: its lines are samples.
//!
//! Of each line only its offset is kept; labels are read again when they are needed. So this takes about 40 bytes a line.

use std::hash::{BuildHasher, Hasher};

use airan_model::catalog::MetricMapping;
use airan_model::limits::Limits;
use airan_model::time::Micros;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::TextFormat;
use super::text::Cursor;
use crate::histogram::Histogram;
use crate::labels::{Label, LabelBuffer};
use crate::number::Number;

/// The label that gives a bucket's upper bound.
const LE: &str = "le";

/// What a line says of its histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Bucket,
    Sum,
    Count,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'t> {
    /// Offset of the line.
    pub at: usize,
    pub part: Part,
    pub number: Number<'t>,
}

/// The lines of one histogram.
#[derive(Debug)]
pub(super) struct Group<'t, 'a> {
    hash: u64,
    pub family: &'t str,
    pub mapping: &'a MetricMapping,
    pub ts: Option<Micros>,
    pub pieces: Vec<Piece<'t>>,
}

/// The histograms so far.
#[derive(Debug, Default)]
pub(super) struct Groups<'t, 'a> {
    hasher: RandomState,
    index: HashTable<u32>,
    groups: Vec<Group<'t, 'a>>,
    // The last line's group and its labels: the next line mostly belongs to it.
    last: Option<(usize, Vec<Label<'t>>)>,
}

/// What it takes to read a line again.
pub(super) type Source<'t, 'l> = (&'t str, TextFormat, &'l Limits);

impl<'t, 'a> Groups<'t, 'a> {
    /// Adds a line to its histogram; false for a bucket without a bound.
    pub(super) fn add(
        &mut self,
        family: &'t str,
        mapping: &'a MetricMapping,
        ts: Option<Micros>,
        labels: &[Label<'t>],
        piece: Piece<'t>,
        source: Source<'t, '_>,
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
                    .and_then(|first| labels_at(source, first.at))
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

    pub(super) fn into_inner(self) -> Vec<Group<'t, 'a>> {
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

/// The labels of the line at an offset.
fn labels_at<'t>((text, format, limits): Source<'t, '_>, at: usize) -> Option<Vec<Label<'t>>> {
    let mut labels = LabelBuffer::new(limits, 0);
    Cursor::new(text, at).sample(format, &mut labels).ok()?;
    labels.take().ok()
}

/// The labels and the histogram, if the lines make one.
pub(super) fn assemble<'t>(group: &Group<'t, '_>, source: Source<'t, '_>) -> Option<(Vec<Label<'t>>, Histogram)> {
    let mut labels = labels_at(source, group.pieces.first()?.at)?;
    labels.retain(|label| label.name != LE);
    let mut buckets = Vec::with_capacity(group.pieces.len());
    let (mut sum, mut count) = (None, None);
    for piece in &group.pieces {
        match piece.part {
            Part::Bucket => buckets.push((bound_at(source, piece.at)?, piece.number.as_i64()?)),
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
fn bound_at(source: Source<'_, '_>, at: usize) -> Option<f64> {
    let labels = labels_at(source, at)?;
    let bound = labels.iter().find(|label| label.name == LE)?;
    Some(Number::parse(&bound.value)?.as_f64())
}
