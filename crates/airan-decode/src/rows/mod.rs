//! From samples to rows: the part that all metric formats share.
//!
//! A sample of a metric the catalog knows fills a cell of the wide row of its (stream, node, entity, instant); any other becomes
//! a row of `sample` with all its labels. Every sample meets exactly one end, counted in the [`Tally`] where it happens: sentinel,
//! columns, `sample`, or refused. Labels that name a subscriber reach neither.
//!
//! What one body can make of itself is bounded: see [`budget`].

mod budget;
pub(crate) mod columns;
mod event;
mod plan;
mod sample;
pub(crate) mod table;

use airan_model::catalog::{ANY_OTHER, ColumnType, Kind, MetricMapping, Target};
use airan_model::reject::Reason;
use airan_model::time::{Micros, SECOND};

pub(crate) use budget::Budget;
use columns::Value;
use plan::{Labels, Plan, TargetPlan};
use sample::SampleRows;
pub(crate) use sample::{SAMPLE, SampleValue};
use table::{Cell, Key, Table};

use crate::histogram::Histogram;
use crate::labels::{Classes, Label};
use crate::number::{Number, Scale};
use crate::refusals::{Refusals, shown};
use crate::{Context, DecodeError, Decoded, Tally};

/// Attribute of a `sample` row that holds the change since the sample before instead of a sum since the start.
const TEMPORALITY: (&str, &str) = ("airan.temporality", "delta");

/// What a metric was declared to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Gauge,
    Counter,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    Event,
    #[default]
    Unknown,
}

impl MetricKind {
    /// The value of the label `__type__`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
            MetricKind::Event => "event",
            MetricKind::Unknown => "unknown",
        }
    }
}

/// One sample but for its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point<'s> {
    pub labels: &'s [Label<'s>],
    /// Labels of the resource and scope it came with: set by [`Rows::share`], which must be told of each change.
    pub shared: &'s [Label<'s>],
    /// The node, where no label of the mapping names one and the sender's own word does.
    pub node: Option<&'s str>,
    pub ts: Option<Micros>,
    pub start: Option<Micros>,
    /// The value is a change since `start`.
    pub is_delta: bool,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Columns,
    /// No column takes it.
    Elsewhere,
}

/// The rows of one body.
pub(crate) struct Rows<'a> {
    context: Context<'a>,
    classes: Classes<'a>,
    // By stream, in the catalog's order; empty ones have no rows.
    tables: Vec<Table>,
    samples: SampleRows,
    keeps_samples: bool,
    budget: Budget,
    tally: Tally,
    refusals: Refusals,
    metric: Metric<'a>,
    // Of the shared labels, the last so many are the scope's.
    scope: usize,
    scratch: String,
}

/// The metric whose samples come.
#[derive(Default)]
struct Metric<'a> {
    name: String,
    kind: MetricKind,
    mapping: Option<&'a MetricMapping>,
    plan: Option<Plan<'a>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(context: &Context<'a>) -> Rows<'a> {
        Rows {
            context: *context,
            classes: Classes::new(context.catalog),
            tables: Vec::new(),
            samples: SampleRows::default(),
            keeps_samples: context.catalog.stream(SAMPLE).is_some(),
            budget: Budget::default(),
            tally: Tally::default(),
            refusals: Refusals::default(),
            metric: Metric::default(),
            scope: 0,
            scratch: String::new(),
        }
    }

    /// Samples of this metric follow.
    pub(crate) fn metric(&mut self, name: &str, kind: MetricKind) {
        let mapping = self.context.catalog.metric(name).map(|mapping| &**mapping);
        self.metric_mapped(name, kind, mapping);
    }

    /// The same, under a name the catalog may know it by.
    ///
    /// Told again, it is no other metric: what was worked out for its labels stays. Remote write repeats name and type with each
    /// series.
    pub(crate) fn metric_mapped(&mut self, name: &str, kind: MetricKind, mapping: Option<&'a MetricMapping>) {
        let is_same_mapping = match (self.metric.mapping, mapping) {
            (Some(before), Some(now)) => std::ptr::eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if is_same_mapping && self.metric.kind == kind && self.metric.name == name {
            return;
        }
        self.metric.name.clear();
        self.metric.name.push_str(name);
        self.metric.kind = kind;
        self.metric.mapping = mapping;
        self.metric.plan = None;
    }

    /// The labels samples share are others from now on; the last `scope` of them are the scope's.
    pub(crate) fn share(&mut self, scope: usize) {
        self.scope = scope;
        self.metric.plan = None;
    }

    /// Which labels name a subscriber.
    pub(crate) fn classes(&mut self) -> &mut Classes<'a> {
        &mut self.classes
    }

    /// Samples so far.
    pub(crate) fn count(&self) -> u64 {
        self.tally.samples
    }

    /// Counts labels that were dropped before they became labels: keys inside a nested value.
    pub(crate) fn dropped(&mut self, fields: u64) {
        self.tally.dropped_fields += fields;
    }

    /// Counts an event's body that is left out.
    pub(crate) fn body(&mut self) {
        self.tally.bodies += 1;
    }

    /// Counts an exemplar that is left out.
    pub(crate) fn exemplar(&mut self) {
        self.tally.exemplars += 1;
    }

    /// Refuses samples.
    pub(crate) fn refuse(&mut self, reason: Reason, count: u64, example: impl FnOnce() -> String) {
        self.tally.samples += count;
        self.tally.refused += count;
        self.refusals.add(reason, count, example);
    }

    /// Counts samples that say that there is no value.
    pub(crate) fn sentinel(&mut self, point: &Point<'_>) {
        let labels = Labels { own: point.labels, shared: point.shared };
        let plan = self.plan(labels);
        let dropped = plan.dropped;
        self.metric.plan = Some(plan);
        self.tally.dropped_fields += dropped;
        self.tally.samples += 1;
        self.tally.sentinels += 1;
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, point: &Point<'_>, number: Number<'_>) {
        let value = number.as_f64();
        let is_sentinel =
            value.is_nan() || self.metric.mapping.is_some_and(|mapping| mapping.source.is_sentinel(value));
        if is_sentinel {
            return self.sentinel(point);
        }
        let Some(plan) = self.start(point, 1) else { return };
        match self.land(&plan, point, SampleValue::Number(number), 1) {
            End::Columns => {}
            End::Elsewhere => self.put_sample(&plan, point, SampleValue::Number(number), 1),
        }
        self.metric.plan = Some(plan);
    }

    /// Takes a histogram of `lines` samples that goes to `sample` whole where no column takes it.
    pub(crate) fn histogram(&mut self, point: &Point<'_>, histogram: &Histogram, lines: u64) {
        let Some(plan) = self.start(point, lines) else { return };
        match self.land(&plan, point, SampleValue::Histogram(histogram), lines) {
            End::Columns => {}
            End::Elsewhere => self.put_sample(&plan, point, SampleValue::Histogram(histogram), lines),
        }
        self.metric.plan = Some(plan);
    }

    /// Takes a histogram of `lines` samples, or does nothing and gives false where no column takes it.
    pub(crate) fn histogram_column(&mut self, point: &Point<'_>, histogram: &Histogram, lines: u64) -> bool {
        let Some(plan) = self.start(point, lines) else { return true };
        let end = self.land(&plan, point, SampleValue::Histogram(histogram), lines);
        if end == End::Elsewhere {
            self.tally.dropped_fields -= plan.dropped * lines;
        }
        self.metric.plan = Some(plan);
        end == End::Columns
    }

    /// The plan for the point, unless it has to be refused, which has then happened.
    fn start(&mut self, point: &Point<'_>, lines: u64) -> Option<Plan<'a>> {
        let plan = self.plan(Labels { own: point.labels, shared: point.shared });
        let fault = match () {
            () if plan.has_twins => Some((Reason::Malformed, "two labels of one name in a sample of")),
            () if self.budget.is_spent() => Some((Reason::TooManySamples, "no room left at a sample of")),
            () => None,
        };
        if let Some((reason, words)) = fault {
            let (number, name) = (self.tally.samples + 1, shown(&self.metric.name));
            self.refuse(reason, lines, || format!("{words} {name} (sample {number})"));
            self.metric.plan = Some(plan);
            return None;
        }
        self.tally.dropped_fields += plan.dropped * lines;
        self.tally.no_time |= point.ts.is_none();
        Some(plan)
    }

    /// The metric's plan for these labels.
    fn plan(&mut self, labels: Labels<'_>) -> Plan<'a> {
        match self.metric.plan.take() {
            Some(plan) if plan.is_for(labels) => plan,
            _ => Plan::new(labels, self.scope, self.metric.kind, self.metric.mapping, &mut self.classes),
        }
    }

    /// The node a point is about.
    fn node<'s>(&self, plan: &Plan<'_>, point: &Point<'s>) -> &'s str
    where
        'a: 's,
    {
        let labels = Labels { own: point.labels, shared: point.shared };
        let named = plan.node.map(|at| &*labels.at(at).value);
        named.or(point.node).unwrap_or(self.context.default_node)
    }

    /// Puts a value where the first target whose conditions are met says.
    fn land(&mut self, plan: &Plan<'a>, point: &Point<'_>, value: SampleValue<'_>, lines: u64) -> End {
        let labels = Labels { own: point.labels, shared: point.shared };
        let size = match value {
            SampleValue::Number(number) => Some(number.as_f64()),
            SampleValue::Histogram(_) => None,
        };
        let Some(target) = plan.targets.iter().find(|target| target.is_met(labels, size)) else {
            return End::Elsewhere;
        };
        let column = &target.target.stream.columns[target.target.column];
        let rises = matches!(column.kind, Kind::Counter | Kind::Histogram);
        if point.is_delta && !rises {
            return End::Elsewhere;
        }
        let mut scaled;
        let value = match value {
            SampleValue::Number(number) if point.is_delta => {
                let rise = target.scale.apply(number.as_f64());
                (column.ty != ColumnType::Histogram && rise.is_finite() && rise >= 0.0).then_some(Value::Float(rise))
            }
            SampleValue::Number(number) => fit(number, target, column.ty, &mut self.scratch),
            SampleValue::Histogram(histogram) if column.ty == ColumnType::Histogram => {
                if target.scale == Scale::One {
                    Some(Value::Histogram(histogram))
                } else {
                    scaled = histogram.clone();
                    scaled.scale(target.scale);
                    scaled.check().is_ok().then_some(Value::Histogram(&scaled))
                }
            }
            SampleValue::Histogram(_) => None,
        };
        let Some(value) = value else { return End::Elsewhere };

        let node = self.node(plan, point);
        let key = Key {
            node,
            ts: point.ts.unwrap_or(self.context.now),
            entity: |column: usize| target.entity(column, labels),
        };
        let cell = Cell { column: target.target.column, is_increase: point.is_delta };
        let start = point.start.filter(|_| rises && !point.is_delta);
        let at = table_of(&mut self.tables, target);
        let (table, budget) = (&mut self.tables[at], &mut self.budget);
        let Some(row) = table.put(&key, cell, value, target.target.combine, start, budget) else {
            return End::Elsewhere;
        };
        if let (true, Some(ts), Some(start)) = (point.is_delta, point.ts, point.start)
            && ts >= start
        {
            table.put_seconds(row, cell.column, (ts - start) as f64 / SECOND as f64);
        }
        fill(table, row, target, labels, budget);
        self.tally.samples += lines;
        self.tally.columns += lines;
        End::Columns
    }

    /// Makes a row of `sample`.
    fn put_sample(&mut self, plan: &Plan<'a>, point: &Point<'_>, value: SampleValue<'_>, lines: u64) {
        if !self.keeps_samples {
            let name = shown(&self.metric.name);
            return self
                .refuse(Reason::UnknownStream, lines, || format!("{name} has no column, and there is no `sample`"));
        }
        let labels = Labels { own: point.labels, shared: point.shared };
        let node = self.node(plan, point);
        let kind = Some(self.metric.kind.as_str()).filter(|_| self.metric.kind != MetricKind::Unknown);
        let ts = point.ts.unwrap_or(self.context.now);
        self.samples.begin(node, ts, point.start, &self.metric.name, kind, value);
        let mut text = node.len() + self.metric.name.len();
        let mut attribute = |name: &str, value: &str| {
            self.samples.attribute(name, value);
            text += name.len() + value.len() + 8;
        };
        for label in plan.kept.iter().map(|at| labels.at(*at)) {
            attribute(&label.name, &label.value);
        }
        let is_named = labels.iter().any(|label| label.name == TEMPORALITY.0);
        if point.is_delta && !is_named {
            attribute(TEMPORALITY.0, TEMPORALITY.1);
        }
        self.samples.end();
        self.budget.text(text);
        self.budget.cells(match value {
            SampleValue::Number(_) => 8,
            SampleValue::Histogram(histogram) => 8 + 2 * histogram.bounds.len(),
        });
        self.tally.samples += lines;
        self.tally.sample_rows += lines;
    }

    /// The rows, by stream in the catalog's order.
    pub(crate) fn finish(self) -> Result<Decoded, DecodeError> {
        let broken = |error: arrow::error::ArrowError| DecodeError::whole(Reason::Malformed, error.to_string());
        let mut rows = Vec::new();
        for table in self.tables {
            rows.extend(table.finish().map_err(broken)?);
        }
        if let Some(stream) = self.context.catalog.stream(SAMPLE) {
            rows.extend(self.samples.finish(stream).map_err(broken)?);
        }
        let place = |name: &str| self.context.catalog.streams().position(|stream| &*stream.name == name);
        rows.sort_by_key(|rows| place(&rows.stream.name));
        Ok(Decoded { rows, tally: self.tally, refused: self.refusals.into_inner() })
    }
}

/// The table of the target's stream.
fn table_of(tables: &mut Vec<Table>, target: &TargetPlan<'_>) -> usize {
    let stream = &target.target.stream;
    match tables.iter().position(|table| table.is_of(stream)) {
        Some(at) => at,
        None => {
            tables.push(Table::new(stream));
            tables.len() - 1
        }
    }
}

/// Fills what labels fill: columns, and attributes with the rest. A label that is no number of its column becomes an attribute.
fn fill(table: &mut Table, row: usize, target: &TargetPlan<'_>, labels: Labels<'_>, budget: &mut Budget) {
    for (label, column) in &target.texts {
        table.put_text(row, *column, &labels.at(*label).value, budget);
    }
    for (label, column) in &target.numbers {
        let label = labels.at(*label);
        if !table.put_number(row, *column, &label.value, budget) {
            table.put_attribute(row, &label.name, &label.value, budget);
        }
    }
    for label in &target.attributes {
        let label = labels.at(*label);
        table.put_attribute(row, &label.name, &label.value, budget);
    }
}

/// A number as its column holds it; None where the column cannot.
fn fit<'v>(number: Number<'_>, target: &TargetPlan<'v>, ty: ColumnType, scratch: &mut String) -> Option<Value<'v>> {
    match ty {
        // An integer no i64 holds keeps its digits in `sample`.
        ColumnType::Float if matches!(number, Number::Wide(..)) => None,
        ColumnType::Float => {
            let value = target.scale.apply(number.as_f64());
            value.is_finite().then_some(Value::Float(value))
        }
        ColumnType::Int if target.target.values.is_some() => {
            number.shortest(scratch);
            named(target.target, scratch)?.parse().ok().map(Value::Int)
        }
        ColumnType::Int if target.scale == Scale::One => number.as_i64().map(Value::Int),
        ColumnType::Int => Number::Float(target.scale.apply(number.as_f64())).as_i64().map(Value::Int),
        ColumnType::Text => {
            number.shortest(scratch);
            named(target.target, scratch).map(Value::Text)
        }
        ColumnType::Histogram => None,
    }
}

/// What the target's values say for a number.
fn named<'v>(target: &'v Target, number: &str) -> Option<&'v str> {
    let values = target.values.as_ref()?;
    values.get(number).or_else(|| values.get(ANY_OTHER)).map(String::as_str)
}
