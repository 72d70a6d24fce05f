//! The generated fleet: 1,600 accelerators that report each second, as bus messages.
//!
//! 100 sites of 2 nodes of 8 devices. One message holds one instant of the whole fleet, 1,600 rows of about 200 bytes, which
//! is what gathering to 256 KiB makes of them. Values are a fixed function of (device, second), so that every run sees the
//! same rows.

use std::sync::Arc;

use airan_model::catalog::Stream;
use airan_model::message::Rows;
use airan_model::schema;
use airan_model::time::{Micros, SECOND};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};

/// Sites in the fleet.
pub const SITES: usize = 100;
/// Nodes at a site.
pub const NODES: usize = 2;
/// Devices in a node.
pub const DEVICES: usize = 8;
/// Rows in one instant.
pub const FLEET: usize = SITES * NODES * DEVICES;
/// 2026-01-01T00:00:00Z.
pub const START: Micros = 1_767_225_600 * SECOND;

/// Gauge columns that every row fills; the counter `energy_joules` comes on top.
pub const GAUGES: [&str; 8] = [
    "utilization",
    "sm_active",
    "tensor_active",
    "dram_active",
    "memory_used_bytes",
    "power_watts",
    "temperature_celsius",
    "sm_clock_hertz",
];
/// The counter column, whose rises the stage computes.
pub const COUNTER: &str = "energy_joules";

/// Labels of the fleet, made once.
pub struct Fleet {
    region: ArrayRef,
    site: ArrayRef,
    node: ArrayRef,
    device: ArrayRef,
    batch: ArrayRef,
    clock: ArrayRef,
    source: ArrayRef,
    schema: Arc<Schema>,
    stream: Arc<Stream>,
}

impl Fleet {
    /// A fleet whose rows fit `stream`, the catalog's `accelerator`.
    ///
    /// # Panics
    /// When the catalog's stream lacks one of the columns that the benchmark fills, or has another type for it.
    pub fn new(stream: &Arc<Stream>) -> Fleet {
        let mut region = Vec::new();
        let mut site = Vec::new();
        let mut node = Vec::new();
        let mut device = Vec::new();
        let mut batch = Vec::new();
        for s in 0..SITES {
            for n in 0..NODES {
                for d in 0..DEVICES {
                    region.push("eu-west");
                    site.push(format!("site-{s:03}"));
                    node.push(format!("edge-{s:03}-{n}"));
                    device.push(format!("GPU-{:08x}-{n:04x}-{d:04x}-a5b1-1f0c2d3e4f50", s * 7919));
                    batch.push(format!("{:032x}", (s * NODES + n) as u128 * 0x9e37_79b9_7f4a_7c15));
                }
            }
        }
        let mut fields = vec![
            Field::new(schema::TS, schema::timestamp_type(), false),
            Field::new(schema::RECEIVED_AT, schema::timestamp_type(), false),
            Field::new(schema::REGION, DataType::Utf8, true),
            Field::new(schema::SITE, DataType::Utf8, true),
            Field::new(schema::NODE, DataType::Utf8, true),
            Field::new("device", DataType::Utf8, true),
        ];
        for name in GAUGES.into_iter().chain([COUNTER]) {
            let full = stream.schema();
            let known = full.field_with_name(name).expect("a column of the catalog");
            assert_eq!(known.data_type(), &DataType::Float64, "{name}");
            fields.push(Field::new(name, DataType::Float64, true));
        }
        fields.extend([
            Field::new(schema::CLOCK, DataType::Utf8, true),
            Field::new(schema::SOURCE, DataType::Utf8, true),
            Field::new(schema::BATCH, DataType::Utf8, true),
            Field::new(schema::SEQ, DataType::Int64, true),
        ]);
        let strings = |v: Vec<String>| Arc::new(StringArray::from(v)) as ArrayRef;
        Fleet {
            region: Arc::new(StringArray::from(region)),
            site: strings(site),
            node: strings(node),
            device: strings(device),
            batch: strings(batch),
            clock: Arc::new(StringArray::from(vec!["locked"; FLEET])),
            source: Arc::new(StringArray::from(vec!["agent/arrow"; FLEET])),
            schema: Arc::new(Schema::new(fields)),
            stream: stream.clone(),
        }
    }

    /// The fleet's rows of second `second`.
    pub fn instant(&self, second: usize) -> RecordBatch {
        let ts = START + second as Micros * SECOND;
        let stamps =
            |at: Micros| Arc::new(TimestampMicrosecondArray::from(vec![at; FLEET]).with_timezone("UTC")) as ArrayRef;
        let mut columns = vec![
            stamps(ts),
            stamps(ts + 40_000),
            self.region.clone(),
            self.site.clone(),
            self.node.clone(),
            self.device.clone(),
        ];
        for gauge in 0..GAUGES.len() {
            let values = (0..FLEET).map(|row| {
                let mixed = (row * 31 + second * 17 + gauge * 101).wrapping_mul(2_654_435_761) >> 7;
                (mixed % 1000) as f64 / 1000.0
            });
            columns.push(Arc::new(Float64Array::from_iter_values(values)));
        }
        let joules = (0..FLEET).map(|row| (second * (250 + row % 400)) as f64);
        columns.push(Arc::new(Float64Array::from_iter_values(joules)));
        columns.extend([self.clock.clone(), self.source.clone(), self.batch.clone()]);
        let seq = (0..FLEET).map(|row| (second * DEVICES + row % DEVICES) as i64);
        columns.push(Arc::new(Int64Array::from_iter_values(seq)));
        RecordBatch::try_new(self.schema.clone(), columns).expect("columns match the schema")
    }

    /// The same rows as a bus message.
    pub fn message(&self, second: usize) -> Rows {
        Rows::encode(&self.stream.name, &self.instant(second)).expect("rows of the catalog encode")
    }
}
