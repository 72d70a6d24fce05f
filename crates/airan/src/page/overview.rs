//! `/api/overview`: the path of the rows through this process, from its own metrics.
//!
//! Totals only: whoever looks twice has the rates. A part that is not in this process is null.

use std::collections::BTreeMap;

use airan_model::time::Micros;
use serde::Serialize;

use super::numbers::Numbers;
use crate::admin::Admin;

/// What a process says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct About {
    /// Its node.
    pub node: String,
    /// The parts of the path it holds: agent, gateway, processor.
    pub roles: Vec<&'static str>,
    /// `local` or `kafka`.
    pub bus: &'static str,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    /// Milliseconds since 1970.
    at: i64,
    version: &'static str,
    about: About,
    /// What keeps the process from working; empty when it is ready.
    troubles: Vec<String>,
    agent: Option<Agent>,
    gateway: Option<Gateway>,
    bus: Option<Bus>,
    processor: Option<Processor>,
    lake: Option<Lake>,
    sums: Vec<Sum>,
}

#[derive(Debug, Serialize)]
struct Agent {
    collected: f64,
    acknowledged: f64,
    queued: f64,
    queued_bytes: f64,
    dropped: BTreeMap<String, f64>,
    /// Targets by name: 1 where the last scrape succeeded.
    targets: BTreeMap<String, f64>,
    /// None before the first request.
    uplink_up: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Gateway {
    received: f64,
    acknowledged: f64,
    refused: f64,
    unknown: f64,
    in_flight_requests: f64,
    received_bytes: f64,
    /// Malformed requests, and points or lines refused on their own.
    rejected: Vec<Rejected>,
    implausible_rows: f64,
    unassigned_nodes: f64,
}

#[derive(Debug, Serialize)]
struct Rejected {
    by: String,
    reason: String,
    count: f64,
}

#[derive(Debug, Serialize)]
struct Bus {
    /// Messages by outcome.
    messages: BTreeMap<String, f64>,
    sent_bytes: f64,
    received: f64,
    waiting: f64,
    stored_bytes: f64,
}

#[derive(Debug, Serialize)]
struct Processor {
    shards: f64,
    shards_up: f64,
    appended: f64,
    stored: f64,
    duplicate: f64,
    rejected: f64,
    pending: f64,
    lag_offsets: f64,
    lag_seconds: f64,
    /// Seconds by stream, of the shard with rows that is furthest behind.
    watermark_delay: BTreeMap<String, f64>,
    /// Rows by reason: late, backfill.
    late: BTreeMap<String, f64>,
    restated_windows: f64,
    dirty_windows: f64,
    /// Pipelines that have stopped in a shard.
    stopped: Vec<String>,
    rejected_messages: Vec<Rejected>,
}

#[derive(Debug, Serialize)]
struct Lake {
    commits: f64,
    commit_failures: f64,
    rows: f64,
    bytes: f64,
    publish_lag_seconds: f64,
    /// Of the tables, where this process publishes them.
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    files: f64,
    bytes: f64,
}

/// One of the sums of DESIGN section 10: `total` = the parts, when nothing is under way.
#[derive(Debug, PartialEq, Serialize)]
struct Sum {
    /// Whose rows: the agent, a door, a partition.
    of: String,
    /// What the total is of.
    total: Part,
    parts: Vec<Part>,
    /// The total less the parts: rows under way, or counted between two readings. It returns to 0.
    open: f64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Part {
    name: &'static str,
    rows: f64,
}

/// Reads it.
pub(super) async fn of(admin: &Admin, now: Micros) -> Overview {
    let numbers = Numbers::read(admin.registry());
    Overview {
        at: now / 1_000,
        version: env!("CARGO_PKG_VERSION"),
        about: admin.about(),
        troubles: admin.troubles().await,
        agent: numbers.has("airan_agent_dropped_rows_total").then(|| agent(&numbers)),
        gateway: numbers.has("airan_gateway_rows_total").then(|| gateway(&numbers)),
        bus: numbers.has("airan_bus_messages_total").then(|| bus(&numbers)),
        processor: numbers.has("airan_processor_commit_failures_total").then(|| processor(&numbers)),
        lake: numbers.has("airan_lake_commits_total").then(|| lake(&numbers)),
        sums: sums(&numbers),
    }
}

fn agent(numbers: &Numbers) -> Agent {
    let requests = numbers.sum("airan_agent_uplink_requests_total", &[]);
    Agent {
        collected: numbers.sum("airan_agent_collected_rows_total", &[]),
        acknowledged: numbers.sum("airan_agent_acknowledged_rows_total", &[]),
        queued: numbers.sum("airan_agent_queued_rows", &[]),
        queued_bytes: numbers.sum("airan_agent_queued_bytes", &[]),
        dropped: numbers.by("airan_agent_dropped_rows_total", "reason"),
        targets: numbers.by("airan_agent_target_up", "target"),
        uplink_up: (requests > 0.0).then(|| numbers.sum("airan_agent_uplink_up", &[])),
    }
}

fn gateway(numbers: &Numbers) -> Gateway {
    let rows = |outcome| numbers.sum("airan_gateway_rows_total", &[("outcome", outcome)]);
    Gateway {
        received: rows("received"),
        acknowledged: rows("acknowledged"),
        refused: rows("refused"),
        unknown: rows("unknown"),
        in_flight_requests: numbers.sum("airan_gateway_in_flight_requests", &[]),
        received_bytes: numbers.sum("airan_gateway_received_bytes_total", &[]),
        rejected: rejected(numbers, "airan_gateway_rejected_total", "door"),
        implausible_rows: numbers.sum("airan_gateway_implausible_rows_total", &[]),
        unassigned_nodes: numbers.sum("airan_gateway_unassigned_nodes", &[]),
    }
}

fn bus(numbers: &Numbers) -> Bus {
    Bus {
        messages: numbers.by("airan_bus_messages_total", "outcome"),
        sent_bytes: numbers.sum("airan_bus_sent_bytes_total", &[]),
        received: numbers.sum("airan_bus_received_messages_total", &[]),
        waiting: numbers.sum("airan_bus_waiting_messages", &[]),
        stored_bytes: numbers.sum("airan_bus_stored_bytes", &[]),
    }
}

fn processor(numbers: &Numbers) -> Processor {
    let rows = |outcome| numbers.sum("airan_processor_rows_total", &[("outcome", outcome)]);
    let stopped = numbers.by("airan_processor_pipeline_stopped", "pipeline");
    // A partition that never had a row has the delay of silence, which says nothing of anybody's rows.
    let used = numbers.by_where("airan_processor_rows_total", &[("outcome", "appended")], "partition");
    let mut watermark_delay: BTreeMap<String, f64> = BTreeMap::new();
    for partition in used.iter().filter(|(_, rows)| **rows > 0.0).map(|(partition, _)| partition.as_str()) {
        let of = [("partition", partition)];
        for (stream, delay) in numbers.by_where("airan_processor_watermark_delay_seconds", &of, "stream") {
            let most = watermark_delay.entry(stream).or_default();
            *most = most.max(delay);
        }
    }
    Processor {
        shards: numbers.by("airan_processor_shard_up", "partition").len() as f64,
        shards_up: numbers.sum("airan_processor_shard_up", &[]),
        appended: rows("appended"),
        stored: rows("stored"),
        duplicate: rows("duplicate"),
        rejected: rows("rejected"),
        pending: numbers.sum("airan_processor_pending_rows", &[]),
        lag_offsets: numbers.sum("airan_processor_lag_offsets", &[]),
        lag_seconds: numbers.most("airan_processor_lag_seconds").unwrap_or_default(),
        watermark_delay,
        late: numbers.by("airan_processor_late_rows_total", "reason"),
        restated_windows: numbers.sum("airan_processor_restated_windows_total", &[]),
        dirty_windows: numbers.sum("airan_processor_dirty_windows", &[]),
        stopped: stopped.into_iter().filter(|(_, shards)| *shards > 0.0).map(|(pipeline, _)| pipeline).collect(),
        rejected_messages: rejected(numbers, "airan_processor_rejected_messages_total", ""),
    }
}

fn lake(numbers: &Numbers) -> Lake {
    let bytes = numbers.by("airan_lake_table_bytes", "table");
    let files = numbers.by("airan_lake_table_files", "table");
    let table = |(name, files): (String, f64)| {
        let bytes = bytes.get(&name).copied().unwrap_or_default();
        (name, Table { files, bytes })
    };
    Lake {
        commits: numbers.sum("airan_lake_commits_total", &[]),
        commit_failures: numbers.sum("airan_lake_commit_failures_total", &[]),
        rows: numbers.sum("airan_lake_rows_total", &[]),
        bytes: numbers.sum("airan_lake_bytes_total", &[]),
        publish_lag_seconds: numbers.sum("airan_lake_publish_lag_seconds", &[]),
        tables: files.into_iter().map(table).collect(),
    }
}

/// What was refused, most first; by the values of `label`, or without it by the processor.
fn rejected(numbers: &Numbers, name: &str, label: &str) -> Vec<Rejected> {
    let by = |count: &f64| *count > 0.0;
    let mut all = Vec::new();
    for who in numbers.by(name, label).into_keys() {
        let labels: &[(&str, &str)] = if label.is_empty() { &[] } else { &[(label, &who)] };
        for (reason, count) in numbers.by_where(name, labels, "reason").into_iter().filter(|(_, count)| by(count)) {
            let by = if label.is_empty() { "processor".to_owned() } else { who.clone() };
            all.push(Rejected { by, reason, count });
        }
    }
    all.sort_by(|a, b| b.count.total_cmp(&a.count));
    all
}

fn sums(numbers: &Numbers) -> Vec<Sum> {
    let mut sums = Vec::new();
    if numbers.has("airan_agent_dropped_rows_total") {
        let total = numbers.sum("airan_agent_collected_rows_total", &[]);
        let parts = [
            ("acknowledged", numbers.sum("airan_agent_acknowledged_rows_total", &[])),
            ("queued", numbers.sum("airan_agent_queued_rows", &[])),
            ("dropped", numbers.sum("airan_agent_dropped_rows_total", &[])),
        ];
        sums.push(Sum::new("agent".to_owned(), ("collected", total), &parts));
    }
    let rows = |door: &str, outcome| numbers.sum("airan_gateway_rows_total", &[("door", door), ("outcome", outcome)]);
    for door in numbers.by("airan_gateway_rows_total", "door").into_keys() {
        let of = |outcome| (outcome, rows(&door, outcome));
        let total = of("received");
        // A door that nobody has used says nothing.
        if total.1 > 0.0 {
            sums.push(Sum::new(format!("door {door}"), total, &[of("acknowledged"), of("refused"), of("unknown")]));
        }
    }
    for shard in numbers.by("airan_processor_rows_total", "partition").into_keys() {
        let of = |outcome| {
            let labels = [("partition", shard.as_str()), ("outcome", outcome)];
            (outcome, numbers.sum("airan_processor_rows_total", &labels))
        };
        let pending = ("pending", numbers.sum("airan_processor_pending_rows", &[("partition", &shard)]));
        let parts = [of("stored"), of("duplicate"), of("rejected"), pending];
        sums.push(Sum::new(format!("partition {shard}"), of("appended"), &parts));
    }
    sums
}

impl Sum {
    fn new(of: String, total: (&'static str, f64), parts: &[(&'static str, f64)]) -> Sum {
        let part = |(name, rows): &(&'static str, f64)| Part { name, rows: *rows };
        let open = total.1 - parts.iter().map(|(_, rows)| rows).sum::<f64>();
        Sum { of, total: part(&total), parts: parts.iter().map(part).collect(), open }
    }
}

#[cfg(test)]
mod tests {
    use airan_agent::AgentMetrics;
    use airan_gateway::{Door, GatewayMetrics};

    use super::*;

    /// Scenario: a process with a gateway that took, refused and still holds rows, and an agent.
    /// Guarantees: each sum is told with its parts, and what is under way; parts that are not there are null.
    #[tokio::test]
    async fn the_sums_of_the_parts_that_are_there_are_told() {
        let admin = Admin::default();
        let (gateway, agent) = (GatewayMetrics::new().unwrap(), AgentMetrics::new().unwrap());
        gateway.register(admin.registry()).unwrap();
        agent.register(admin.registry()).unwrap();
        let rows = gateway.rows(Door::Ndjson);
        for (counter, by) in [(&rows.received, 10), (&rows.acknowledged, 6), (&rows.refused, 1)] {
            counter.inc_by(by);
        }
        gateway.rejected.with_label_values(&["ndjson", "malformed"]).inc();
        agent.collected_rows.with_label_values(&["host"]).inc_by(4);
        agent.acknowledged_rows.inc_by(3);
        agent.queued_rows.set(1);
        let overview = of(&admin, 5_000).await;
        let told: Vec<(&str, f64, f64)> =
            overview.sums.iter().map(|sum| (sum.of.as_str(), sum.total.rows, sum.open)).collect();
        assert_eq!(overview.at, 5);
        assert_eq!(told, [("agent", 4.0, 0.0), ("door ndjson", 10.0, 3.0)]);
        let gateway = overview.gateway.unwrap();
        assert_eq!((gateway.received, gateway.acknowledged, gateway.refused), (10.0, 6.0, 1.0));
        let rejected: Vec<_> =
            gateway.rejected.iter().map(|of| (of.by.as_str(), of.reason.as_str(), of.count)).collect();
        assert_eq!(rejected, [("ndjson", "malformed", 1.0)]);
        assert!(overview.processor.is_none() && overview.lake.is_none() && overview.bus.is_none());
        assert_eq!(overview.agent.unwrap().uplink_up, None);
    }
}
