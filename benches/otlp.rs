//! The OTLP request stream: one edge server with accelerators, as the OpenTelemetry hardware conventions name them.

use anyhow::Result;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::report::{Meter, Part};

/// Points in a request.
pub const POINTS: usize = METRICS.len() * DEVICES;
const DEVICES: usize = 125;
/// Names, units, and whether they count.
const METRICS: [(&str, &str, bool); 8] = [
    ("hw.gpu.utilization", "1", false),
    ("hw.gpu.memory.utilization", "1", false),
    ("hw.gpu.memory.usage", "By", false),
    ("hw.gpu.memory.limit", "By", false),
    ("hw.power", "W", false),
    ("hw.temperature", "Cel", false),
    ("hw.energy", "J", true),
    ("hw.gpu.io", "By", true),
];

fn text(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }),
        ..Default::default()
    }
}

/// The body of request `number`, whose points lie at `nanos`.
pub fn body(number: usize, nanos: u64) -> Vec<u8> {
    let points = |of: usize| -> Vec<NumberDataPoint> {
        (0..DEVICES)
            .map(|device| NumberDataPoint {
                attributes: vec![
                    text("hw.id", format!("GPU-{device:08x}-a5b1-1f0c2d3e4f50")),
                    text("hw.type", "gpu".to_owned()),
                ],
                time_unix_nano: nanos,
                start_time_unix_nano: 1,
                value: Some(number_data_point::Value::AsDouble(
                    ((number + device * 31 + of * 7) % 1000) as f64 / 1000.0,
                )),
                ..Default::default()
            })
            .collect()
    };
    let metrics = METRICS.iter().enumerate().map(|(of, (name, unit, is_sum))| {
        let data_points = points(of);
        let data = match is_sum {
            true => metric::Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true }),
            false => metric::Data::Gauge(Gauge { data_points }),
        };
        Metric { name: (*name).to_owned(), unit: (*unit).to_owned(), data: Some(data), ..Default::default() }
    });
    let resource =
        Resource { attributes: vec![text("host.name", format!("edge-{:03}", number % 100))], ..Default::default() };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..Default::default() }],
            ..Default::default()
        }],
    };
    request.encode_to_vec()
}

/// A bare decode of the same bytes by prost.
pub fn decode(requests: usize) -> Result<Part> {
    let bodies: Vec<Vec<u8>> = (0..requests).map(|number| body(number, 1_795_514_400_000_000_000)).collect();
    let meter = Meter::start();
    let mut points = 0;
    for body in &bodies {
        let request = ExportMetricsServiceRequest::decode(&body[..])?;
        points += request.resource_metrics.len() * POINTS;
    }
    Ok(meter.stop(points as u64))
}
