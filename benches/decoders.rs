//! Every decoder, beside the bare parser of its format over the same bytes, and the bytes each allocates.
//!
//! A body is one scrape, push or request of an edge server with 125 accelerators: 1,000 values; of what vendors' programs print, one look
//! at as many devices of one host. Of text formats and CSV there is no parser of another's in the build; their baseline cuts lines at
//! blanks or commas and reads the numbers, which no decoder can do without.

use airan_decode::accelerators::{Reading, rocm, smi_csv, smi_xml};
use airan_decode::{Context as Decoding, Decoded, RemoteWrite, TextFormat};
use airan_model::catalog::Catalog;
use airan_model::limits::Limits;
use anyhow::{Context, Result, bail, ensure};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use quick_xml::events::Event;

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
/// Remote write 2.0: the type of a gauge.
const GAUGE: i32 = 2;
/// 2026-11-24T10:00:00Z in milliseconds.
const MILLIS: i64 = 1_795_514_400_000;

/// The decoders, by the name of their part.
pub const DECODERS: [&str; 11] = [
    "otlp_proto",
    "otlp_json",
    "prom_text",
    "om_text",
    "remote_wr",
    "remote_wr2",
    "ndjson",
    "arrow_ipc",
    "smi_xml",
    "smi_csv",
    "rocm_json",
];

/// What a decoder made of its body.
pub enum Found {
    /// Rows of streams.
    Rows(Decoded),
    /// What a vendor's program printed.
    Reading(Reading),
}

#[path = "../tests/remote_write_messages.rs"]
mod messages;

use messages::{Label, Metadata2, Request2, Sample, TimeSeries, TimeSeries2, WriteRequest};

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
        "prom_text" | "om_text" => {
            let mut text = String::new();
            for (metric, (name, _)) in VALUES.iter().enumerate() {
                text.push_str(&format!("# HELP {name} as DCGM has it\n# TYPE {name} gauge\n"));
                for device in 0..DEVICES {
                    let labels: Vec<_> = labels(device).iter().map(|(name, of)| format!("{name}=\"{of}\"")).collect();
                    text.push_str(&format!("{name}{{{}}} {}\n", labels.join(","), value(metric, device)));
                }
            }
            if decoder == "om_text" {
                text.push_str("# EOF\n");
            }
            text.into_bytes()
        }
        "remote_wr" => {
            let series = |(labels, value): (Vec<(&'static str, String)>, f64)| {
                let labels = labels.into_iter().map(|(name, value)| Label { name: name.to_owned(), value }).collect();
                TimeSeries { labels, samples: vec![sample(value)], ..TimeSeries::default() }
            };
            WriteRequest { timeseries: all_series().map(series).collect(), metadata: Vec::new() }.encode_to_vec()
        }
        "remote_wr2" => {
            let mut symbols = vec![String::new()];
            let mut of = std::collections::HashMap::from([(String::new(), 0)]);
            let mut symbol = |text: &str| {
                *of.entry(text.to_owned()).or_insert_with(|| {
                    symbols.push(text.to_owned());
                    symbols.len() as u32 - 1
                })
            };
            let mut timeseries = Vec::new();
            for (labels, value) in all_series() {
                let labels = labels.iter().flat_map(|(name, value)| [symbol(name), symbol(value)]).collect();
                let metadata = Some(Metadata2 { kind: GAUGE, help: symbol("as DCGM has it"), unit: 0 });
                timeseries.push(TimeSeries2 {
                    labels,
                    samples: vec![sample(value)],
                    metadata,
                    ..TimeSeries2::default()
                });
            }
            Request2 { symbols, timeseries }.encode_to_vec()
        }
        "smi_xml" | "smi_csv" | "rocm_json" => printed(decoder).into_bytes(),
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

/// Labels and value of every series, labels in the order of their names as remote write wants them.
fn all_series() -> impl Iterator<Item = (Vec<(&'static str, String)>, f64)> {
    let all = (0..VALUES.len()).flat_map(|metric| (0..DEVICES).map(move |device| (metric, device)));
    all.map(|(metric, device)| {
        let own = [("__name__", VALUES[metric].0.to_owned()), ("instance", "edge-001:9400".to_owned())];
        let mut labels: Vec<_> = own.into_iter().chain(labels(device)).collect();
        labels.sort_by_key(|(name, _)| *name);
        (labels, value(metric, device) as f64)
    })
}

fn sample(value: f64) -> Sample {
    Sample { value, timestamp: MILLIS, start: 0 }
}

/// What a vendor's program prints of the devices, eight numbers of each.
fn printed(decoder: &str) -> String {
    let of = |device: usize| (0..VALUES.len()).map(move |metric| value(metric, device).to_string());
    let filled = |template: &str, device: usize| {
        let text = of(device)
            .enumerate()
            .fold(template.to_owned(), |text, (at, value)| text.replace(&format!("@{at}"), &value));
        text.replace("@device", &device.to_string()).replace("@uuid", &labels(device)[1].1)
    };
    let devices = |template: &str, between: &str| {
        (0..DEVICES).map(|device| filled(template, device)).collect::<Vec<_>>().join(between)
    };
    match decoder {
        "smi_xml" => {
            let gpu = "<gpu id=\"00000000:@device:00.0\">\n\t<product_name>NVIDIA H100 80GB HBM3</product_name>\n\t<uuid>@uuid</uuid>\n\
                \t<utilization>\n\t\t<gpu_util>@0 %</gpu_util>\n\t</utilization>\n\t<fb_memory_usage>\n\t\t<used>@1 MiB</used>\n\
                \t\t<free>@2 MiB</free>\n\t</fb_memory_usage>\n\t<power_readings>\n\t\t<power_draw>@3 W</power_draw>\n\
                \t</power_readings>\n\t<temperature>\n\t\t<gpu_temp>@4 C</gpu_temp>\n\t</temperature>\n\t<clocks>\n\
                \t\t<sm_clock>@5 MHz</sm_clock>\n\t\t<mem_clock>@6 MHz</mem_clock>\n\t</clocks>\n\t<pci>\n\
                \t\t<replay_counter>@7</replay_counter>\n\t</pci>\n</gpu>\n";
            format!("<?xml version=\"1.0\" ?>\n<nvidia_smi_log>\n{}</nvidia_smi_log>\n", devices(gpu, ""))
        }
        "smi_csv" => {
            let header = "uuid, name, utilization.gpu [%], memory.used [MiB], memory.free [MiB], power.draw [W], temperature.gpu, \
                clocks.current.sm [MHz], clocks.current.memory [MHz], ecc.errors.corrected.volatile.total\n";
            let line = "@uuid, NVIDIA H100 80GB HBM3, @0 %, @1 MiB, @2 MiB, @3 W, @4, @5 MHz, @6 MHz, @7\n";
            format!("{header}{}", devices(line, ""))
        }
        _ => {
            let card = "\"card@device\": {\"Unique ID\": \"@uuid\", \"GPU use (%)\": \"@0\", \
                \"VRAM Total Used Memory (B)\": \"@1\", \"GPU Memory Allocated (VRAM%)\": \"@2\", \
                \"Average Graphics Package Power (W)\": \"@3\", \"Temperature (Sensor edge) (C)\": \"@4\", \
                \"sclk clock speed:\": \"(@5Mhz)\", \"mclk clock speed:\": \"(@6Mhz)\", \"PCIe Replay Count\": \"@7\", \
                \"Card Series\": \"Instinct MI300X\"}";
            format!("{{{}}}", devices(card, ", "))
        }
    }
}

fn decode(decoder: &str, body: &Bytes, context: &Decoding<'_>) -> Result<Found> {
    let text = || std::str::from_utf8(body).context("a text");
    let rows = match decoder {
        "smi_xml" => return Ok(Found::Reading(smi_xml::read(text()?)?)),
        "smi_csv" => return Ok(Found::Reading(smi_csv::read(text()?)?)),
        "rocm_json" => return Ok(Found::Reading(rocm::read(text()?)?)),
        "otlp_proto" => airan_decode::otlp::decode_protobuf(body, context),
        "otlp_json" => airan_decode::otlp::decode_json(body, context),
        "prom_text" => airan_decode::prometheus::decode(body, TextFormat::Prometheus004, context),
        "om_text" => airan_decode::prometheus::decode(body, TextFormat::OpenMetrics, context),
        "remote_wr" => airan_decode::remote_write::decode(body, RemoteWrite::V1, context),
        "remote_wr2" => airan_decode::remote_write::decode(body, RemoteWrite::V2, context),
        "ndjson" => airan_decode::ndjson::decode(body, context),
        _ => airan_decode::arrow_ipc::decode(body, "accelerator", context),
    };
    Ok(Found::Rows(rows.context("a decoder refused its body")?))
}

/// The parser alone; what it found, so that it is not left out as dead.
fn parse(decoder: &str, body: &Bytes) -> Result<usize> {
    Ok(match decoder {
        "otlp_proto" => ExportMetricsServiceRequest::decode(&body[..])?.resource_metrics.len(),
        "otlp_json" => serde_json::from_slice::<serde_json::Value>(body)?.as_object().map_or(0, |of| of.len()),
        "prom_text" | "om_text" => {
            let lines = std::str::from_utf8(body)?.lines().filter(|line| !line.starts_with('#'));
            let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            numbers.filter(|number| number.is_finite()).count()
        }
        "remote_wr" => WriteRequest::decode(&body[..])?.timeseries.len(),
        "remote_wr2" => Request2::decode(&body[..])?.timeseries.len(),
        "smi_xml" => {
            let (mut xml, mut texts) = (quick_xml::Reader::from_str(std::str::from_utf8(body)?), 0);
            loop {
                match xml.read_event()? {
                    Event::Eof => break texts,
                    Event::Text(text) => texts += usize::from(!text.decode()?.is_empty()),
                    _ => {}
                }
            }
        }
        "smi_csv" => {
            let cells = std::str::from_utf8(body)?.lines().skip(1).flat_map(|line| line.split(','));
            let numbers = cells.filter_map(|cell| cell.split_ascii_whitespace().next()?.parse::<f64>().ok());
            numbers.filter(|number| number.is_finite()).count()
        }
        "rocm_json" => serde_json::from_slice::<serde_json::Value>(body)?.as_object().map_or(0, |of| of.len()),
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
        match work.decode()? {
            Found::Rows(Decoded { tally, .. }) => {
                ensure!(tally.refused == 0 && tally.columns > 0, "{decoder}: {tally:?}");
            }
            Found::Reading(reading) => {
                // Beside what the body has, that the device is there, and what follows from others.
                let numbers = reading.entries.iter().map(|entry| entry.numbers.len() as u64).sum::<u64>();
                ensure!(
                    reading.unread.is_empty() && numbers >= work.values + DEVICES as u64,
                    "{decoder}: {numbers} numbers"
                );
            }
        }
        Ok(work)
    }

    /// What the body holds.
    ///
    /// # Errors
    /// None for the bodies made here.
    pub fn decode(&self) -> Result<Found> {
        let context = Decoding {
            catalog: &self.catalog,
            limits: &Limits::DOCUMENTED,
            default_node: "edge-001",
            now: MILLIS * 1_000,
        };
        decode(&self.decoder, &self.body, &context)
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
