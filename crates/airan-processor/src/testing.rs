//! A small catalog, settings, pipelines and messages for this crate's tests.

use std::sync::Arc;

use airan_bus::Received;
use airan_model::catalog::Catalog;
use airan_window::PipelinePlan;
use airan_window::pipeline::PipelineSpec;

use crate::golden_input::read_messages;
use crate::settings::{CommitSettings, CounterSettings, IdentitySettings, RestateSettings, Settings, WindowSettings};
use crate::setup::Pipeline;

/// Stream `meter`, entity `part`, with each kind of column; stream `other` with one gauge.
pub(crate) fn catalog() -> Arc<Catalog> {
    let dir = tempfile::tempdir().unwrap();
    let text = "streams:
  - name: meter
    meaning: a meter
    period: 10s
    entity:
      - {name: part, meaning: \"a part of it\"}
    columns:
      - {name: level, kind: gauge, unit: none, meaning: \"a reading\"}
      - {name: total, kind: counter, unit: count, meaning: \"a sum\"}
      - {name: whole, kind: counter, type: int, unit: count, meaning: \"a whole sum\"}
      - {name: spread, kind: histogram, unit: seconds, meaning: \"a distribution\"}
  - name: other
    meaning: something else
    period: 10s
    columns:
      - {name: size, kind: gauge, unit: none, meaning: \"a reading\"}
";
    std::fs::write(dir.path().join("meter.yaml"), text).unwrap();
    Arc::new(Catalog::load(dir.path()).unwrap())
}

pub(crate) fn settings() -> Settings {
    Settings {
        instance: None,
        threads: 2,
        commit: CommitSettings {
            interval: "50ms".parse().unwrap(),
            bytes: "64MiB".parse().unwrap(),
            queue_bytes: "1MiB".parse().unwrap(),
            retry_min: "10ms".parse().unwrap(),
            retry_max: "100ms".parse().unwrap(),
        },
        identities: IdentitySettings {
            foreign_memory: "1h".parse().unwrap(),
            agent_memory: "40d".parse().unwrap(),
            ranges: 1_000_000,
        },
        counters: CounterSettings { idle: "24h".parse().unwrap(), entities: 100_000 },
        windows: WindowSettings { state_bytes: "256MiB".parse().unwrap(), dirty: 1_000 },
        publish_every: "1h".parse().unwrap(),
        restate: RestateSettings { windows: 1_000, rows: 1_000_000 },
        retention_every: "1h".parse().unwrap(),
        stop_within: "5s".parse().unwrap(),
    }
}

/// A lake that keeps everything for years.
pub(crate) fn lake_settings() -> airan_lake::LakeSettings {
    airan_lake::LakeSettings {
        path: "lake".to_owned(),
        options: Default::default(),
        raw_retention: "3650d".parse().unwrap(),
        window_retention: "3650d".parse().unwrap(),
        max_bytes: None,
        checkpoint_interval: 100,
        compaction: airan_lake::CompactionSettings {
            on: true,
            every: "10m".parse().unwrap(),
            target_bytes: "256MiB".parse().unwrap(),
            min_files: 8,
        },
    }
}

/// Sums and readings of `meter` by site and part in 10 s; two metrics.
pub(crate) async fn meters(catalog: &Catalog) -> Pipeline {
    let sql = "SELECT tumble(ts, INTERVAL '10 seconds') AS window_start, site, node, part, count(level) AS readings,
        sum(level) AS level_sum, max(level) AS level_max, sum(total_increase) AS total,
        sum(total_increase_seconds) AS total_seconds, sum(whole_increase) AS whole
        FROM meter GROUP BY tumble(ts, INTERVAL '10 seconds'), site, node, part";
    let metrics = "
  - {column: level_max, name: airan_meter_level_max, type: gauge, unit: none, help: \"a reading\", labels: [site, node, part]}
  - {column: total, name: airan_meter_total, type: counter, unit: count, help: \"a sum\", labels: [site, node]}";
    pipeline(catalog, "meters", sql, metrics).await
}

/// Joins `meter` and `other` by site in 20 s.
pub(crate) async fn joined(catalog: &Catalog) -> Pipeline {
    let sql = "WITH m AS (SELECT tumble(ts, INTERVAL '20 seconds') AS window_start, site, sum(total_increase) AS total
        FROM meter GROUP BY tumble(ts, INTERVAL '20 seconds'), site),
        o AS (SELECT tumble(ts, INTERVAL '20 seconds') AS window_start, site, sum(size) AS size
        FROM other GROUP BY tumble(ts, INTERVAL '20 seconds'), site)
        SELECT coalesce(m.window_start, o.window_start) AS window_start, coalesce(m.site, o.site) AS site, m.total AS total,
        o.size AS size FROM m FULL JOIN o ON m.window_start = o.window_start AND m.site = o.site";
    pipeline(catalog, "joined", sql, " []").await
}

pub(crate) async fn pipeline(catalog: &Catalog, name: &str, sql: &str, metrics: &str) -> Pipeline {
    let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
    let plan = PipelinePlan::new(name, sql, &schema_of).await.unwrap();
    Pipeline { spec: spec(name, metrics), plan }
}

fn spec(name: &str, metrics: &str) -> PipelineSpec {
    let text = format!(
        "name: {name}\ndescription: a test\nlateness: 10s\ntable: {name}\nstaleness_windows: 3\nseries_budget: 3\nmetrics:{metrics}\n"
    );
    airan_window::pipeline::parse(&text).unwrap()
}

/// Messages of partition 0 from lines as in a pipeline's `input.ndjson`. Times are given as seconds after 2026-01-01T00:00:00Z
/// behind `@`: `"ts": "@3"`.
pub(crate) fn messages(catalog: &Catalog, lines: &str) -> Vec<Received> {
    read_messages(&with_times(lines), catalog).unwrap()
}

fn with_times(lines: &str) -> String {
    let mut text = String::new();
    let mut rest = lines;
    while let Some(at) = rest.find("\"@") {
        let end = at + 2 + rest[at + 2..].find('"').unwrap();
        let seconds: f64 = rest[at + 2..end].parse().unwrap();
        text.push_str(&rest[..at]);
        text.push_str(&format!("\"{}\"", airan_model::time::format_rfc3339(T0 + (seconds * 1e6) as i64)));
        rest = &rest[end + 1..];
    }
    text + rest
}

/// 2026-01-01T00:00:00Z.
pub(crate) const T0: i64 = 1_767_225_600_000_000;
