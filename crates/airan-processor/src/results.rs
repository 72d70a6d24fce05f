//! Results of pipelines on `/metrics`.
//!
//! A gauge shows the newest committed window that had its entity, and disappears when its entity has been silent for the
//! pipeline's staleness bound: of log time, or by the clock where the log itself stands still. Counters are sums over
//! committed windows. All series of a shard vanish with the shard. Where two shards or two rows have the same labels, counters
//! add up and of gauges the newer window's stays: an exposition never has a series twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use airan_model::time::{Clock, Micros};
use airan_window::pipeline::{MetricSpec, MetricType};
use foldhash::fast::RandomState;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType as ProtoType};
use prometheus::{IntCounterVec, Opts, Registry};

use crate::commit::PipelineResult;
use crate::exported::{LabelValues, cells_of};
use crate::setup::{Pipeline, Setup};

/// Label of the series that stands for all series beyond the budget.
const OVERFLOW: &str = "overflow";

/// The results of all pipelines, as a Prometheus collector. Cheap to clone.
#[derive(Clone)]
pub struct Results {
    inner: Arc<Inner>,
}

struct Inner {
    pipelines: Vec<Arc<Pipeline>>,
    descs: Vec<Desc>,
    clock: Clock,
    /// How long commits may be apart without a gauge being stale by the clock.
    slack: Micros,
    shards: Mutex<BTreeMap<i32, Vec<Shown>>>,
    left_out: IntCounterVec,
}

/// What one shard shows of one pipeline.
#[derive(Default)]
struct Shown {
    gauges: HashMap<(usize, LabelValues), Reading, RandomState>,
    last: Option<PipelineResult>,
    at: Micros,
}

#[derive(Clone, Copy)]
struct Reading {
    value: f64,
    window_end: Micros,
}

impl Results {
    /// Nothing is shown yet.
    ///
    /// # Errors
    /// If a declared metric has no valid name or labels.
    pub(crate) fn new(setup: &Setup, clock: Clock) -> Result<Results, prometheus::Error> {
        let mut descs = Vec::new();
        for metric in setup.pipelines.iter().flat_map(|pipeline| &pipeline.spec.metrics) {
            let mut labels = metric.labels.clone();
            labels.push(OVERFLOW.to_owned());
            descs.push(Desc::new(metric.name.clone(), metric.help.clone(), labels, HashMap::new())?);
        }
        let left_out = IntCounterVec::new(
            Opts::new(
                "airan_processor_gauges_left_out_total",
                "Gauges of results left out because of the series budget.",
            ),
            &["pipeline"],
        )?;
        descs.extend(left_out.desc().into_iter().cloned());
        let slack = setup.settings.commit.interval.micros().saturating_mul(2);
        let (pipelines, shards) = (setup.pipelines.clone(), Mutex::default());
        Ok(Results { inner: Arc::new(Inner { pipelines, descs, clock, slack, shards, left_out }) })
    }

    /// Adds the results to a registry.
    ///
    /// # Errors
    /// If two pipelines declare one metric, or another collector has it.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.clone()))
    }

    /// Shows what a shard has committed, by pipeline.
    pub(crate) fn publish(&self, partition: i32, results: Vec<PipelineResult>) {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut shards = inner.lock();
        for (index, (pipeline, result)) in inner.pipelines.iter().zip(results).enumerate() {
            let series: usize = shards.values().filter_map(|shown| shown.get(index)).map(Shown::series).sum();
            let shown =
                shards.entry(partition).or_insert_with(|| inner.pipelines.iter().map(|_| Shown::default()).collect());
            let room = pipeline.spec.series_budget.saturating_sub(series);
            let left_out = shown[index].show(pipeline, result, now, room);
            if left_out > 0 {
                inner.left_out.with_label_values(&[&pipeline.spec.name]).inc_by(left_out);
            }
        }
    }

    /// Takes all series of a shard away.
    pub(crate) fn withdraw(&self, partition: i32) {
        self.inner.lock().remove(&partition);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Vec<Shown>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn families(&self) -> Vec<MetricFamily> {
        let now = self.clock.now();
        let shards = self.lock();
        let mut families = Vec::new();
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            let shown: Vec<&Shown> = shards.values().filter_map(|shown| shown.get(index)).collect();
            for (metric, declared) in pipeline.spec.metrics.iter().enumerate() {
                let metrics = match declared.ty {
                    MetricType::Gauge => gauges(&shown, pipeline, metric, declared, now.saturating_sub(self.slack)),
                    MetricType::Counter => counters(&shown, metric, declared),
                };
                if !metrics.is_empty() {
                    families.push(family(declared, metrics));
                }
            }
        }
        families
    }
}

impl Shown {
    fn series(&self) -> usize {
        self.gauges.len() + self.last.as_ref().map_or(0, |last| last.exported.series.len())
    }

    /// Takes the gauges of newly closed windows, oldest first. Returns how many did not fit.
    fn show(&mut self, pipeline: &Pipeline, result: PipelineResult, now: Micros, room: usize) -> u64 {
        let bound = staleness(pipeline);
        let closed_through = result.closed_through;
        let most = self.gauges.len() + room;
        self.gauges.retain(|_, reading| reading.window_end.saturating_add(bound) > closed_through);
        let mut left_out = 0;
        for window in &result.closed {
            for (metric, declared) in pipeline.spec.metrics.iter().enumerate() {
                if declared.ty != MetricType::Gauge {
                    continue;
                }
                for (labels, value) in cells_of(declared, &window.rows).into_iter().flatten() {
                    let key = (metric, labels);
                    let Some(value) = value else {
                        self.gauges.remove(&key);
                        continue;
                    };
                    if self.gauges.len() >= most && !self.gauges.contains_key(&key) {
                        left_out += 1;
                        continue;
                    }
                    self.gauges.insert(key, Reading { value, window_end: window.end });
                }
            }
        }
        if result.is_stopped {
            self.gauges.clear();
        }
        self.at = now;
        self.last = Some(PipelineResult { closed: Vec::new(), ..result });
        left_out
    }
}

/// How long a gauge may stay behind the log.
pub(crate) fn staleness(pipeline: &Pipeline) -> Micros {
    pipeline.plan.cut().slide().micros().saturating_mul(Micros::from(pipeline.spec.staleness_windows))
}

fn gauges(shown: &[&Shown], pipeline: &Pipeline, metric: usize, declared: &MetricSpec, oldest: Micros) -> Vec<Metric> {
    let bound = staleness(pipeline);
    let mut newest: BTreeMap<&LabelValues, Reading> = BTreeMap::new();
    for shown in shown.iter().filter(|shown| shown.at.saturating_add(bound) >= oldest) {
        let closed_through = shown.last.as_ref().map_or(Micros::MIN, |last| last.closed_through);
        for ((_, labels), reading) in shown.gauges.iter().filter(|((of, _), _)| *of == metric) {
            let is_stale = reading.window_end.saturating_add(bound) <= closed_through;
            let is_older = newest.get(labels).is_some_and(|other| other.window_end > reading.window_end);
            if !is_stale && !is_older {
                newest.insert(labels, *reading);
            }
        }
    }
    let gauge = |(labels, reading): (&LabelValues, Reading)| {
        let mut gauge = Gauge::default();
        gauge.set_value(reading.value);
        let mut shown = Metric::from_label(pairs(declared, labels));
        shown.set_gauge(gauge);
        shown
    };
    newest.into_iter().map(gauge).collect()
}

fn counters(shown: &[&Shown], metric: usize, declared: &MetricSpec) -> Vec<Metric> {
    let mut sums: BTreeMap<Option<&LabelValues>, f64> = BTreeMap::new();
    for last in shown.iter().filter_map(|shown| shown.last.as_ref()) {
        for ((_, labels), value) in last.exported.series.iter().filter(|((of, _), _)| *of == metric) {
            *sums.entry(Some(labels)).or_default() += value;
        }
        if let Some(value) = last.exported.overflow.get(&metric) {
            *sums.entry(None).or_default() += value;
        }
    }
    let counter = |(labels, value): (Option<&LabelValues>, f64)| {
        let labels = match labels {
            Some(labels) => pairs(declared, labels),
            None => vec![pair(OVERFLOW, "true")],
        };
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut shown = Metric::from_label(labels);
        shown.set_counter(counter);
        shown
    };
    sums.into_iter().map(counter).collect()
}

/// A row's labels; one without a value is left out, which means the same to Prometheus.
fn pairs(declared: &MetricSpec, values: &LabelValues) -> Vec<LabelPair> {
    let present = declared.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
    let mut pairs: Vec<LabelPair> = present.map(|(name, value)| pair(name, value)).collect();
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    pairs
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn family(declared: &MetricSpec, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(declared.name.clone());
    family.set_help(declared.help.clone());
    family.set_field_type(match declared.ty {
        MetricType::Gauge => ProtoType::GAUGE,
        MetricType::Counter => ProtoType::COUNTER,
    });
    family.set_metric(metrics);
    family
}

impl Collector for Results {
    fn desc(&self) -> Vec<&Desc> {
        self.inner.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.inner.families();
        families.extend(self.inner.left_out.collect());
        families
    }
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}
