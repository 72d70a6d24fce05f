//! What becomes of the labels of one metric's samples.
//!
//! Which label is the node, an entity column or an attribute follows from the labels' names alone, and the samples of a metric
//! mostly have the same names in the same order. So it is worked out once for them, and each sample only compares names.

use airan_model::catalog::{ColumnType, MappingSource, MetricMapping, TYPE_LABEL, Target};

use super::MetricKind;
use crate::labels::{Classes, Label};
use crate::number::Scale;

/// The labels of a sample: its own, and those it shares with others of the same resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'s> {
    pub own: &'s [Label<'s>],
    pub shared: &'s [Label<'s>],
}

impl<'s> Labels<'s> {
    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.shared.len()
    }

    /// The label at an index: own ones first.
    pub(crate) fn at(&self, index: usize) -> &'s Label<'s> {
        match index.checked_sub(self.own.len()) {
            None => &self.own[index],
            Some(shared) => &self.shared[shared],
        }
    }

    /// All labels, own ones first.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'s Label<'s>> {
        self.own.iter().chain(self.shared)
    }
}

/// What becomes of labels with certain names.
#[derive(Debug)]
pub(crate) struct Plan<'c> {
    // The names it is made for, one after the other, where each ends, and how many of them are a sample's own.
    names: String,
    ends: Vec<usize>,
    own: usize,
    /// Labels that name a subscriber.
    pub dropped: u64,
    /// Whether two of a sample's own labels have one name.
    pub has_twins: bool,
    /// The label that names the node.
    pub node: Option<usize>,
    /// Labels a row of `sample` keeps.
    pub kept: Vec<usize>,
    /// Where the metric may land, in the order to be tried.
    pub targets: Vec<TargetPlan<'c>>,
}

/// What becomes of them if the sample lands on one target.
#[derive(Debug)]
pub(crate) struct TargetPlan<'c> {
    pub target: &'c Target,
    pub scale: Scale,
    /// Labels and the values they must have.
    conditions: Vec<(usize, &'c str)>,
    /// By entity column.
    pub entity: Vec<From<'c>>,
    /// Labels and the text columns they fill.
    pub texts: Vec<(usize, usize)>,
    /// Labels and the columns of numbers they fill.
    pub numbers: Vec<(usize, usize)>,
    /// Labels that become attributes.
    pub attributes: Vec<usize>,
}

/// Where an entity column's value comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From<'c> {
    Label(usize),
    /// The label, unless its value is one of these.
    LabelUnless(usize, &'c [String]),
    Constant(&'c str),
    Nothing,
}

impl<'c> Plan<'c> {
    /// The plan for samples of a mapped metric, or of one that goes to `sample` (no mapping).
    ///
    /// `scope` labels of shared ones, the last so many, are kept in `sample` only.
    pub(crate) fn new(
        labels: Labels<'_>,
        scope: usize,
        kind: MetricKind,
        mapping: Option<&'c MetricMapping>,
        classes: &mut Classes<'_>,
    ) -> Plan<'c> {
        let own = labels.own.len();
        let mut names = String::with_capacity(labels.iter().map(|label| label.name.len()).sum());
        let mut ends = Vec::with_capacity(labels.len());
        let (mut dropped, mut has_twins, mut kept) = (0, false, Vec::with_capacity(labels.len()));
        for (index, label) in labels.iter().enumerate() {
            names.push_str(&label.name);
            ends.push(names.len());
            let is_twin = labels.iter().take(index).any(|before| before.name == label.name);
            if classes.drops(&label.name) {
                dropped += 1;
            } else if is_twin {
                // A sample's own label hides a shared one of its name.
                has_twins |= index < own;
            } else {
                kept.push(index);
            }
        }
        let node = mapping.and_then(|mapping| first_of(&mapping.source.node, labels, &kept));
        let mut plan = Plan { names, ends, own, dropped, has_twins, node, kept, targets: Vec::new() };
        let mapping = mapping.filter(|mapping| {
            let needed = &mapping.source.needs_one_of;
            needed.is_empty() || first_of(needed, labels, &plan.kept).is_some()
        });
        if let Some(mapping) = mapping {
            let unscoped = labels.len() - scope;
            let targets = mapping.targets.iter();
            plan.targets =
                targets.filter_map(|target| plan.target(target, &mapping.source, kind, labels, unscoped)).collect();
        }
        plan
    }

    /// Whether the plan is made for labels with these names.
    pub(crate) fn is_for(&self, labels: Labels<'_>) -> bool {
        self.own == labels.own.len()
            && self.ends.len() == labels.len()
            && self.names().zip(labels.iter()).all(|(name, label)| *name == *label.name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.names[std::mem::replace(&mut start, *end)..*end])
    }

    /// None where these labels can never meet the target's conditions.
    fn target(
        &self,
        target: &'c Target,
        source: &'c MappingSource,
        kind: MetricKind,
        labels: Labels<'_>,
        unscoped: usize,
    ) -> Option<TargetPlan<'c>> {
        if target.without.iter().any(|name| labels.iter().any(|label| label.name == **name)) {
            return None;
        }
        let mut free = self.kept.clone();
        let mut conditions = Vec::with_capacity(target.when.len());
        for (name, value) in &target.when {
            if name == TYPE_LABEL {
                if value != kind.as_str() {
                    return None;
                }
                continue;
            }
            let at = *free.iter().find(|at| labels.at(**at).name == **name)?;
            conditions.push((at, value.as_str()));
        }
        free.retain(|at| conditions.iter().all(|(used, _)| used != at));

        let mut entity = Vec::with_capacity(target.stream.entity.len());
        let (mut named, mut resolved) = (0, false);
        for column in 0..target.stream.entity.len() {
            let from = source.entity.iter().find(|from| from.stream == target.stream.name && from.column == column);
            let label = from.and_then(|from| first_of(&from.labels, labels, &free));
            free.retain(|at| Some(*at) != label);
            named += usize::from(from.is_some());
            let absent = from.map(|from| from.absent.as_slice()).unwrap_or_default();
            entity.push(match (label, from.and_then(|from| from.constant.as_deref())) {
                (Some(label), _) if absent.is_empty() => From::Label(label),
                (Some(label), _) => From::LabelUnless(label, absent),
                (None, Some(constant)) => From::Constant(constant),
                (None, None) => From::Nothing,
            });
            resolved |= !matches!(entity[column], From::Nothing);
        }
        // Where one label alone tells entities apart, a sample without it could be about any of them. An event then is the node's.
        if named == 1 && !resolved && kind != MetricKind::Event {
            return None;
        }

        free.retain(|at| Some(*at) != self.node);
        let (mut texts, mut numbers): (Vec<(usize, usize)>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        for (label, column) in &source.columns {
            let column = target.stream.column_index(column);
            let column = column.filter(|column| target.stream.columns[*column].takes_label());
            let label = free.iter().copied().find(|at| labels.at(*at).name == **label);
            if let (Some(label), Some(column)) = (label, column)
                && texts.iter().chain(&numbers).all(|(_, taken)| *taken != column)
                && column != target.column
            {
                let is_text = target.stream.columns[column].ty == ColumnType::Text;
                (if is_text { &mut texts } else { &mut numbers }).push((label, column));
                free.retain(|at| *at != label);
            }
        }
        free.retain(|at| *at < unscoped && !source.ignore.iter().any(|ignored| labels.at(*at).name == **ignored));
        let scale = Scale::new(target.scale);
        Some(TargetPlan { target, scale, conditions, entity, texts, numbers, attributes: free })
    }
}

impl<'c> TargetPlan<'c> {
    /// Whether the sample's labels meet the conditions, and its value where it is a number.
    pub(crate) fn is_met(&self, labels: Labels<'_>, value: Option<f64>) -> bool {
        value.is_none_or(|value| self.target.takes(value))
            && self.conditions.iter().all(|(at, value)| *labels.at(*at).value == **value)
    }

    /// The value of an entity column.
    pub(crate) fn entity<'s>(&self, column: usize, labels: Labels<'s>) -> Option<&'s str>
    where
        'c: 's,
    {
        match self.entity[column] {
            From::Label(at) => Some(&labels.at(at).value),
            From::LabelUnless(at, absent) => {
                Some(&*labels.at(at).value).filter(|value| absent.iter().all(|absent| **absent != **value))
            }
            From::Constant(value) => Some(value),
            From::Nothing => None,
        }
    }
}

/// The first of the wanted names that is there.
fn first_of(wanted: &[String], labels: Labels<'_>, free: &[usize]) -> Option<usize> {
    wanted.iter().find_map(|wanted| free.iter().copied().find(|at| labels.at(*at).name == **wanted))
}
