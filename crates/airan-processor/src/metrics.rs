//! What the processor counts. The binary owns the registry.
//!
//! Counters by partition are part of the shard state: they survive a restart, fall back to what was committed when a shard is
//! taken over, and vanish with the shard. They hold the sums of DESIGN section 10: per partition, in rows,
//! appended = stored + duplicate + rejected + pending.

use airan_model::reject::Reason;
use airan_model::time::{Clock, Micros, SECOND};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::collections::HashMap;
use std::sync::Arc;

use crate::board::{Board, Progress, Report, Status};

/// The processor's metrics.
#[derive(Debug)]
pub struct ProcessorMetrics {
    /// `airan_processor_commit_seconds`: from taking a shard's work to its being committed, with repetitions.
    pub commit_seconds: Histogram,
    /// `airan_processor_commit_failures_total`: attempts the store did not take.
    pub commit_failures: IntCounter,
    /// `airan_processor_start_seconds`: from an assignment to the first message: claim, state, open windows.
    pub start_seconds: Histogram,
    /// `airan_processor_rebuilt_rows_total`: raw rows read back to build open windows.
    pub rebuilt_rows: IntCounter,
    /// `airan_processor_fenced_total`: times work was dropped because another process owned the shard.
    pub fenced: IntCounter,
    /// `airan_processor_rejected_messages_total{reason}`: messages refused as a whole.
    pub rejected: IntCounterVec,
    /// `airan_processor_rejected_unrecorded_total`: refusals that could not be written to the rejected topic.
    pub rejected_unrecorded: IntCounter,
    /// `airan_processor_publish_failures_total`: passes of publishing to Delta that could not begin.
    pub publish_failures: IntCounter,
    /// `airan_processor_retention_failures_total`: runs of the lake's retention that failed.
    pub retention_failures: IntCounter,
    /// `airan_processor_retention_skipped_total`: runs left out because not every shard has committed yet.
    pub retention_skipped: IntCounter,
    /// `airan_processor_lake_over_bytes`: bytes over `lake.max_bytes` that open windows still need.
    pub over_bytes: IntGauge,
    shards: ShardCollector,
}

/// One family of series by shard: name, help, type, label names beside `partition`, and its values in a shard.
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    labels: &'static [&'static str],
    values: Values,
}

/// Puts the values of one shard's report at a time: labels' values beside the partition, and the value.
type Values = fn(&Report, &Progress, Micros, &mut dyn FnMut(&[&str], f64));

/// Everything shards report.
const FAMILIES: &[Family] = &[
    Family {
        name: "airan_processor_rows_total",
        help: "Rows by outcome. appended is all of them, per partition the sum of stored, duplicate, rejected and \
               airan_processor_pending_rows: a sum over every outcome counts each row twice.",
        is_counter: true,
        labels: &["outcome"],
        values: |_, progress, _, put| {
            let sums = &progress.sums;
            put(&["appended"], sums.appended as f64);
            put(&["stored"], sums.stored as f64);
            put(&["duplicate"], sums.duplicate as f64);
            put(&["rejected"], sums.rejected as f64);
        },
    },
    Family {
        name: "airan_processor_pending_rows",
        help: "Rows that wait for the next commit.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.sums.pending as f64),
    },
    Family {
        name: "airan_processor_anonymous_rows_total",
        help: "Rows without an identity: a duplicate of one cannot be told.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.sums.anonymous as f64),
    },
    Family {
        name: "airan_processor_out_of_order_rows_total",
        help: "Rows at or before the last time of one of their counters; the next rise covers them.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.sums.out_of_order as f64),
    },
    Family {
        name: "airan_processor_foreign_messages_total",
        help: "Messages on the topic that are not airan's.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.sums.foreign as f64),
    },
    Family {
        name: "airan_processor_skipped_offsets_total",
        help: "Offsets that had gone from the bus unread and were given up by `airan shard skip`.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.sums.skipped as f64),
    },
    Family {
        name: "airan_processor_late_rows_total",
        help: "Rows whose window had closed (late), or so old on arrival that they say nothing of their node's time (backfill).",
        is_counter: true,
        labels: &["stream", "node", "reason"],
        values: |_, progress, _, put| {
            for (stream, node, reason, rows) in &progress.late {
                put(&[stream, node, reason.as_str()], *rows as f64);
            }
        },
    },
    Family {
        name: "airan_processor_dirty_windows",
        help: "Stretches of windows to be restated because of late rows, by pipeline and site.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.dirty.0 as f64),
    },
    Family {
        name: "airan_processor_incomplete_windows",
        help: "Stretches of windows whose completeness changed with a gap in a sender's numbers; restated when the gap has rested.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.dirty.1 as f64),
    },
    Family {
        name: "airan_processor_dirty_age_seconds",
        help: "Log time since the oldest mark of a window to be restated; 0 where there is none.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| {
            let age = progress.dirty_since.map_or(0, |since| progress.log_time.saturating_sub(since).max(0));
            put(&[], age as f64 / SECOND as f64);
        },
    },
    Family {
        name: "airan_processor_dirty_coarsened_total",
        help: "Times neighbouring marks were joined because there were too many: more windows are restated than need be.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.dirty_coarsened as f64),
    },
    Family {
        name: "airan_processor_restated_windows_total",
        help: "Windows of a site that were computed again from raw rows.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.restated.windows as f64),
    },
    Family {
        name: "airan_processor_restated_rows_total",
        help: "Raw rows read to compute windows again.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.restated.rows as f64),
    },
    Family {
        name: "airan_processor_restate_failures_total",
        help: "Restatements that failed; they are tried again.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.restated.failures as f64),
    },
    Family {
        name: "airan_processor_restate_given_up_windows_total",
        help: "Windows marked for restatement whose raw rows are no longer kept; their last revision stays.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.restated.given_up as f64),
    },
    Family {
        name: "airan_processor_requests_running",
        help: "Requests to restate, one for each pipeline, that are not done.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.requests as f64),
    },
    Family {
        name: "airan_processor_next_offset",
        help: "First offset that has not been applied.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.next_offset as f64),
    },
    Family {
        name: "airan_processor_lag_offsets",
        help: "Messages on the bus that have not been applied.",
        is_counter: false,
        labels: &[],
        values: |report, progress, _, put| put(&[], lag(report, progress) as f64),
    },
    Family {
        name: "airan_processor_lag_seconds",
        help: "Age of the newest applied message while there are others; 0 where none wait.",
        is_counter: false,
        labels: &[],
        values: |report, progress, now, put| {
            let is_behind = lag(report, progress) > 0;
            put(&[], if is_behind { seconds(now, progress.log_time) } else { 0.0 });
        },
    },
    Family {
        name: "airan_processor_watermark_delay_seconds",
        help: "How far the event time of a stream is behind the clock, before the pipelines' lateness. Only where a node of it is live.",
        is_counter: false,
        labels: &["stream"],
        values: |_, progress, now, put| {
            for (stream, watermark) in &progress.watermarks {
                put(&[stream], seconds(now, *watermark));
            }
        },
    },
    Family {
        name: "airan_processor_raw_bytes",
        help: "Memory of rows that wait for the next commit.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.raw_bytes as f64),
    },
    Family {
        name: "airan_processor_open_windows",
        help: "Open windows.",
        is_counter: false,
        labels: &["pipeline"],
        values: |_, progress, _, put| {
            progress.stages.iter().for_each(|stage| put(&[&stage.pipeline], stage.open_windows as f64));
        },
    },
    Family {
        name: "airan_processor_window_state_bytes",
        help: "Memory of open windows.",
        is_counter: false,
        labels: &["pipeline"],
        values: |_, progress, _, put| {
            progress.stages.iter().for_each(|stage| put(&[&stage.pipeline], stage.state_bytes as f64));
        },
    },
    Family {
        name: "airan_processor_pipeline_stopped",
        help: "1 where a pipeline has stopped in this shard: its state limit, or its query failed.",
        is_counter: false,
        labels: &["pipeline"],
        values: |_, progress, _, put| {
            progress.stages.iter().for_each(|stage| put(&[&stage.pipeline], f64::from(u8::from(stage.is_stopped))));
        },
    },
    Family {
        name: "airan_processor_batches",
        help: "Batches whose rows are known as duplicates.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.batches as f64),
    },
    Family {
        name: "airan_processor_batches_forgotten_total",
        help: "Batches forgotten before their time because there were too many.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.batches_forgotten as f64),
    },
    Family {
        name: "airan_processor_entities",
        help: "Entities whose counters are remembered.",
        is_counter: false,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.entities as f64),
    },
    Family {
        name: "airan_processor_entities_forgotten_total",
        help: "Entities forgotten because they were idle.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.entities_forgotten as f64),
    },
    Family {
        name: "airan_processor_untracked_rows_total",
        help: "Rows that got no rises because there were too many entities.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.untracked as f64),
    },
    Family {
        name: "airan_processor_misshapen_histograms_total",
        help: "Histograms whose buckets do not fit their bounds: they got no rise.",
        is_counter: true,
        labels: &[],
        values: |_, progress, _, put| put(&[], progress.misshapen as f64),
    },
    Family {
        name: "airan_processor_step_seconds_total",
        help: "Time spent by step, since the shard was taken over: where a slow shard's time goes.",
        is_counter: true,
        labels: &["step"],
        values: |_, progress, _, put| {
            progress.steps.seconds().for_each(|(step, seconds)| put(&[step.as_str()], seconds));
        },
    },
];

fn lag(report: &Report, progress: &Progress) -> i64 {
    (report.end_offset - progress.next_offset).max(0)
}

fn seconds(now: Micros, at: Micros) -> f64 {
    now.saturating_sub(at).max(0) as f64 / SECOND as f64
}

impl ProcessorMetrics {
    /// All at zero.
    ///
    /// # Errors
    /// Never in practice: the names are fixed and valid.
    pub(crate) fn new(board: Board, clock: Clock) -> Result<ProcessorMetrics, prometheus::Error> {
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let histogram =
            |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.clone()));
        let metrics = ProcessorMetrics {
            commit_seconds: histogram("airan_processor_commit_seconds", "Duration of commits, with repetitions.")?,
            commit_failures: IntCounter::new(
                "airan_processor_commit_failures_total",
                "Attempts at a commit that the store did not take.",
            )?,
            start_seconds: histogram(
                "airan_processor_start_seconds",
                "From an assignment to a shard's first message.",
            )?,
            rebuilt_rows: IntCounter::new(
                "airan_processor_rebuilt_rows_total",
                "Raw rows read back to build open windows.",
            )?,
            fenced: IntCounter::new(
                "airan_processor_fenced_total",
                "Times work was dropped because another process owned the shard.",
            )?,
            rejected: IntCounterVec::new(
                Opts::new("airan_processor_rejected_messages_total", "Messages refused as a whole, by reason."),
                &["reason"],
            )?,
            rejected_unrecorded: IntCounter::new(
                "airan_processor_rejected_unrecorded_total",
                "Refusals that could not be written to the rejected topic.",
            )?,
            publish_failures: IntCounter::new(
                "airan_processor_publish_failures_total",
                "Passes of publishing to Delta that could not begin.",
            )?,
            retention_failures: IntCounter::new(
                "airan_processor_retention_failures_total",
                "Runs of the lake's retention that failed.",
            )?,
            retention_skipped: IntCounter::new(
                "airan_processor_retention_skipped_total",
                "Runs of the lake's retention left out because not every shard has committed yet.",
            )?,
            over_bytes: IntGauge::new(
                "airan_processor_lake_over_bytes",
                "Bytes of the lake over lake.max_bytes that open windows still need.",
            )?,
            shards: ShardCollector::new(board, clock)?,
        };
        for reason in [Reason::Foreign, Reason::Malformed, Reason::UnknownStream, Reason::WrongType, Reason::BadTime] {
            metrics.rejected.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// Adds all to `registry`.
    ///
    /// # Errors
    /// If one of the names is in it already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        for counter in [
            &self.commit_failures,
            &self.rebuilt_rows,
            &self.fenced,
            &self.rejected_unrecorded,
            &self.publish_failures,
            &self.retention_failures,
            &self.retention_skipped,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(self.commit_seconds.clone()))?;
        registry.register(Box::new(self.start_seconds.clone()))?;
        registry.register(Box::new(self.rejected.clone()))?;
        registry.register(Box::new(self.over_bytes.clone()))?;
        registry.register(Box::new(self.shards.clone()))
    }
}

/// The reports of shards as series.
#[derive(Clone)]
struct ShardCollector {
    board: Board,
    clock: Clock,
    descs: Arc<Vec<Desc>>,
}

impl ShardCollector {
    fn new(board: Board, clock: Clock) -> Result<ShardCollector, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = std::iter::once("partition").chain(labels.iter().copied()).map(str::to_owned).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let mut descs = Vec::with_capacity(FAMILIES.len() + 2);
        for family in FAMILIES {
            descs.push(desc(family.name, family.help, family.labels)?);
        }
        descs.push(desc(PAUSED.0, PAUSED.1, &[])?);
        descs.push(desc(UP.0, UP.1, &[])?);
        Ok(ShardCollector { board, clock, descs: Arc::new(descs) })
    }
}

const PAUSED: (&str, &str) =
    ("airan_processor_paused", "1 where a partition is paused because its shard does not keep up.");
const UP: (&str, &str) =
    ("airan_processor_shard_up", "1 where a shard is up to its work, 0 while starting, stuck or stopped.");

impl Collector for ShardCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.clock.now();
        let reports = self.board.lock();
        let mut families = Vec::with_capacity(FAMILIES.len() + 2);
        for family in FAMILIES {
            let mut metrics = Vec::new();
            for (partition, report) in &reports.shards {
                let Some(progress) = &report.progress else { continue };
                let partition = partition.to_string();
                (family.values)(report, progress, now, &mut |labels, value| {
                    let pairs = family.labels.iter().copied().zip(labels.iter().copied());
                    metrics.push(series(family.is_counter, &partition, pairs, value));
                });
            }
            push(&mut families, family.name, family.help, family.is_counter, metrics);
        }
        let each = |value: fn(&Report) -> bool| {
            let of = |(partition, report): (&i32, &Report)| {
                series(false, &partition.to_string(), std::iter::empty(), f64::from(u8::from(value(report))))
            };
            reports.shards.iter().map(of).collect::<Vec<_>>()
        };
        push(&mut families, PAUSED.0, PAUSED.1, false, each(|report| report.paused));
        push(&mut families, UP.0, UP.1, false, each(|report| report.status == Status::Running));
        families
    }
}

fn push(families: &mut Vec<MetricFamily>, name: &str, help: &str, is_counter: bool, metrics: Vec<Metric>) {
    if metrics.is_empty() {
        return;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if is_counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(metrics);
    families.push(family);
}

fn series<'a>(
    is_counter: bool,
    partition: &'a str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    value: f64,
) -> Metric {
    let mut pairs: Vec<LabelPair> = std::iter::once(("partition", partition))
        .chain(labels)
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        })
        .collect();
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    let mut metric = Metric::from_label(pairs);
    if is_counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

impl std::fmt::Debug for ShardCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardCollector").finish_non_exhaustive()
    }
}
