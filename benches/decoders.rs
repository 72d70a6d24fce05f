//! Every decoder, beside the bare parser of its format over the same bytes, and the bytes each allocates.
//!
//! A body is one scrape, push or request of an edge server with 125 accelerators: 1,000 values. Of a text format there is no
//! parser of another's in the build; its baseline cuts lines at white space and reads the numbers, which no decoder can do without.

use airan_decode::{Context as Decoding, DecodeError, Decoded, RemoteWrite, TextFormat};
use airan_model::catalog::Catalog;
use airan_model::limits::Limits;
use anyhow::{Context, Result, bail, ensure};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use crate::otlp;
use crate::report::{Meter, Part};

/// Times a body is decoded for a figure.
pub const ROUNDS: usize = 2_000;
/// Accelerators in a body.
const DEVICES: usize = 125;
/// What one of them says, under DCGM's names, and the columns that NDJSON fills.
const VALUES: [(&str, &str); 8] = [
    ("DCGM_FI_DEV_GPU_UTIL", "utilization"),
    ("DCGM_FI_DEV_FB_USED", "memory_used_bytes"),
    ("DCGM_FI_DEV_FB_FREE", "memory_free_bytes"),
    ("DCGM_FI_DEV_POWER_USAGE", "power_watts"),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "energy_joules"),
    ("DCGM_FI_DEV_GPU_TEMP", "temperature_celsius"),
    ("DCGM_FI_DEV_SM_CLOCK", "sm_clock_hertz"),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "engine_active"),
];
/// 2026-11-24T10:00:00Z in milliseconds.
const MILLIS: i64 = 1_795_514_400_000;

/// The decoders, by the name of their part.
pub const DECODERS: [&str; 6] = ["otlp_proto", "otlp_json", "prom_text", "remote_wr", "ndjson", "arrow_ipc"];

/// Remote write 1.0, as the Prometheus project publishes it.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn value(metric: usize, device: usize) -> usize {
    (metric * 131 + device * 17) % 100
}

fn labels(device: usize) -> [(&'static str, String); 5] {
    [
        ("gpu", device.to_string()),
        ("UUID", format!("GPU-{device:08x}-7b1e-4c6f-a5b1-1f0c2d3e4f50")),
        ("device", format!("nvidia{device}")),
        ("modelName", "NVIDIA H100 80GB HBM3".to_owned()),
        ("Hostname", "edge-001".to_owned()),
    ]
}

/// A body of the format, and the values in it.
fn body(decoder: &str) -> Result<(Bytes, u64)> {
    let values = (VALUES.len() * DEVICES) as u64;
    let bytes = match decoder {
        "otlp_proto" => otlp::body(1, 1_795_514_400_000_000_000),
        "otlp_json" => serde_json::to_vec(&ExportMetricsServiceRequest::decode(&body("otlp_proto")?.0[..])?)?,
        "prom_text" => {
            let mut text = String::new();
            for (metric, (name, _)) in VALUES.iter().enumerate() {
                text.push_str(&format!("# HELP {name} as DCGM has it\n# TYPE {name} gauge\n"));
                for device in 0..DEVICES {
                    let labels: Vec<_> = labels(device).iter().map(|(name, of)| format!("{name}=\"{of}\"")).collect();
                    text.push_str(&format!("{name}{{{}}} {}\n", labels.join(","), value(metric, device)));
                }
            }
            text.into_bytes()
        }
        "remote_wr" => {
            let series = |(metric, device): (usize, usize)| {
                let own = [("__name__", VALUES[metric].0.to_owned()), ("instance", "edge-001:9400".to_owned())];
                let labels = own.into_iter().chain(labels(device));
                let mut labels: Vec<Label> =
                    labels.map(|(name, value)| Label { name: name.to_owned(), value }).collect();
                labels.sort_by(|a, b| a.name.cmp(&b.name));
                let sample = Sample { value: value(metric, device) as f64, timestamp: MILLIS };
                TimeSeries { labels, samples: vec![sample] }
            };
            let all = (0..VALUES.len()).flat_map(|metric| (0..DEVICES).map(move |device| (metric, device)));
            WriteRequest { timeseries: all.map(series).collect() }.encode_to_vec()
        }
        "ndjson" => {
            let mut text = String::new();
            for device in 0..DEVICES {
                let mut row = serde_json::json!({"stream": "accelerator", "ts": MILLIS * 1_000, "node": "edge-001",
                    "device": labels(device)[1].1, "model": "NVIDIA H100 80GB HBM3"});
                for (metric, (_, column)) in VALUES.iter().enumerate() {
                    row[*column] = (value(metric, device) as f64).into();
                }
                text.push_str(&format!("{row}\n"));
            }
            text.into_bytes()
        }
        "arrow_ipc" => {
            // As a sender has it: without the columns that the gateway adds.
            let catalog = Catalog::builtin()?;
            let fleet = crate::fleet::Fleet::new(catalog.stream("accelerator").context("stream accelerator")?);
            let instant = fleet.instant(0);
            let wanted = ["ts", "node", "device", "energy_joules"];
            let is_wanted = |name: &str| wanted.contains(&name) || crate::fleet::GAUGES.contains(&name);
            let schema = instant.schema();
            let columns: Vec<usize> =
                (0..schema.fields().len()).filter(|column| is_wanted(schema.field(*column).name())).collect();
            let rows = instant.project(&columns)?;
            let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
            writer.write(&rows)?;
            writer.finish()?;
            let values = rows.num_rows() * (columns.len() - 3);
            return Ok((writer.into_inner()?.into(), values as u64));
        }
        _ => bail!("no decoder `{decoder}`"),
    };
    Ok((bytes.into(), values))
}

fn decode(decoder: &str, body: &Bytes, context: &Decoding<'_>) -> Result<Decoded, DecodeError> {
    match decoder {
        "otlp_proto" => airan_decode::otlp::decode_protobuf(body, context),
        "otlp_json" => airan_decode::otlp::decode_json(body, context),
        "prom_text" => airan_decode::prometheus::decode(body, TextFormat::Prometheus004, context),
        "remote_wr" => airan_decode::remote_write::decode(body, RemoteWrite::V1, context),
        "ndjson" => airan_decode::ndjson::decode(body, context),
        _ => airan_decode::arrow_ipc::decode(body, "accelerator", context),
    }
}

/// The parser alone; what it found, so that it is not left out as dead.
fn parse(decoder: &str, body: &Bytes) -> Result<usize> {
    Ok(match decoder {
        "otlp_proto" => ExportMetricsServiceRequest::decode(&body[..])?.resource_metrics.len(),
        "otlp_json" => serde_json::from_slice::<serde_json::Value>(body)?.as_object().map_or(0, |of| of.len()),
        "prom_text" => {
            let lines = std::str::from_utf8(body)?.lines().filter(|line| !line.starts_with('#'));
            let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            numbers.filter(|number| number.is_finite()).count()
        }
        "remote_wr" => WriteRequest::decode(&body[..])?.timeseries.len(),
        "ndjson" => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let rows = lines.map(serde_json::from_slice::<serde_json::Value>);
            rows.collect::<Result<Vec<_>, _>>()?.len()
        }
        _ => StreamReader::try_new(&body[..], None)?.map(|rows| rows.map_or(0, |rows| rows.num_rows())).sum(),
    })
}

/// One decoder's work on one body, ready to be done again and again.
pub struct Work {
    decoder: String,
    body: Bytes,
    /// Values in the body.
    pub values: u64,
    catalog: Catalog,
}

impl Work {
    /// Makes the body, and sees that the decoder refuses nothing of it.
    ///
    /// # Errors
    /// If there is no such decoder, or it refuses any of the body.
    pub fn of(decoder: &str) -> Result<Work> {
        let (body, values) = body(decoder)?;
        let work = Work { decoder: decoder.to_owned(), body, values, catalog: Catalog::builtin()? };
        let tally = work.decode()?.tally;
        ensure!(tally.refused == 0 && tally.columns > 0, "{decoder}: {tally:?}");
        Ok(work)
    }

    /// The rows of the body.
    ///
    /// # Errors
    /// None for the bodies made here.
    pub fn decode(&self) -> Result<Decoded> {
        let context = Decoding {
            catalog: &self.catalog,
            limits: &Limits::DOCUMENTED,
            default_node: "edge-001",
            now: MILLIS * 1_000,
        };
        decode(&self.decoder, &self.body, &context).context("a decoder refused its body")
    }

    /// The parser alone.
    ///
    /// # Errors
    /// None for the bodies made here.
    pub fn parse(&self) -> Result<usize> {
        parse(&self.decoder, &self.body)
    }
}

/// Values per CPU-second of one decoder.
pub fn measure(decoder: &str) -> Result<Part> {
    let work = Work::of(decoder)?;
    let meter = Meter::start();
    for _ in 0..ROUNDS {
        std::hint::black_box(work.decode()?);
    }
    Ok(meter.stop(work.values * ROUNDS as u64))
}

/// The same of its parser alone.
pub fn baseline(decoder: &str) -> Result<Part> {
    let work = Work::of(decoder)?;
    let meter = Meter::start();
    for _ in 0..ROUNDS {
        std::hint::black_box(work.parse()?);
    }
    Ok(meter.stop(work.values * ROUNDS as u64))
}
