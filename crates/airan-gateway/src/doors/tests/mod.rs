//! The doors from outside: real sockets, a bus in memory. Here is the gateway that is asked, and what it is sent.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use airan_bus::Bus;
use airan_model::inventory::Inventory;
use airan_model::time::{Clock, MINUTE, SECOND, format_rfc3339, parse_rfc3339};
use arrow::array::{Array, AsArray};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::Response;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;

use super::answer::RpcStatus;
use crate::settings::tests::{bytes, millis, settings};
use crate::testing::{MemoryBus, Mood, NOW, catalog, inventory, until};
use crate::{Addresses, BindError, Door, Doors, Gateway, GatewayMetrics, Intake, Settings, StopError};

mod admission;
mod faults;
mod listening;
mod load;
mod logs;
mod otlp;
mod remote_write;
mod rows;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A running gateway.
struct Site {
    bus: Arc<MemoryBus>,
    metrics: Arc<GatewayMetrics>,
    intake: Intake,
    addresses: Addresses,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), StopError>>,
}

async fn site(adjust: impl FnOnce(&mut Settings)) -> Site {
    let bus = MemoryBus::new(2);
    let gateway = bind(&bus, adjust).await.unwrap();
    let stop = CancellationToken::new();
    let (metrics, intake, addresses) = (gateway.metrics(), gateway.intake(), gateway.addresses());
    let running = tokio::spawn(gateway.run(stop.clone()));
    let client = reqwest::Client::builder().no_gzip().build().unwrap();
    Site { bus, metrics, intake, addresses, client, stop, running }
}

async fn bind(bus: &Arc<MemoryBus>, adjust: impl FnOnce(&mut Settings)) -> Result<Gateway, BindError> {
    let mut settings = settings();
    adjust(&mut settings);
    let as_bus: Arc<dyn Bus> = Arc::clone(bus) as Arc<dyn Bus>;
    // The receiver keeps the last inventory when the sender is gone.
    let (_, inventory) = watch::channel(inventory());
    Gateway::bind(settings, as_bus, catalog(), inventory, Clock::fixed(NOW)).await
}

impl Site {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.client.post(format!("http://{}{path}", self.addresses.http)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn ndjson(&self, body: impl Into<reqwest::Body>) -> Response {
        self.post("/v1/ndjson", &[("content-type", NDJSON)], body).await
    }

    /// received, acknowledged, refused, unknown
    fn sums(&self, door: Door) -> [u64; 4] {
        let rows = self.metrics.rows(door);
        let sums = [rows.received.get(), rows.acknowledged.get(), rows.refused.get(), rows.unknown.get()];
        assert_eq!(sums[0], sums[1] + sums[2] + sums[3], "received = acknowledged + refused + unknown");
        assert_eq!(
            (self.metrics.in_flight_requests.get(), self.metrics.in_flight_bytes.get()),
            (0, 0),
            "all given back"
        );
        sums
    }

    fn rejected(&self, door: &str, reason: &str) -> u64 {
        self.metrics.rejected.with_label_values(&[door, reason]).get()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn point(device: usize, value: f64, micros: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![attribute("hw.id", &format!("GPU-{device}"))],
        time_unix_nano: micros as u64 * 1_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn otlp(node: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Resource { attributes: vec![attribute("host.name", node)], ..Default::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
            ..Default::default()
        }],
    }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric { name: name.to_owned(), data: Some(metric::Data::Gauge(Gauge { data_points })), ..Default::default() }
}

/// Utilisation of `devices` devices of one node.
fn utilization(node: &str, devices: usize) -> ExportMetricsServiceRequest {
    otlp(node, vec![gauge("hw.gpu.utilization", (0..devices).map(|device| point(device, 0.25, NOW)).collect())])
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn line(node: &str, device: &str) -> String {
    let ts = format_rfc3339(NOW);
    format!(
        "{{\"stream\":\"accelerator\",\"ts\":\"{ts}\",\"node\":\"{node}\",\"device\":\"{device}\",\"utilization\":0.5}}\n"
    )
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}
