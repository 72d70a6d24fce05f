//! The outside ledger: what was sent, and what was acknowledged, as the senders know it.
//!
//! A body is written down before it is sent for the first time, and its acknowledgement before the sender goes on; both are on
//! disk then (`ledger.jsonl`), so the file is the evidence whatever becomes of the harness.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One row as it was sent, and as it must be in the lake. Its identity is `id`, which no other row has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `<sender>-<body>-<row>`, in column `model`.
    pub id: String,
    /// Site the inventory places the node at.
    pub site: String,
    /// Node.
    pub node: String,
    /// Device: node and number.
    pub device: String,
    /// Event time, microseconds since 1970; no two rows of a device share one.
    pub ts: i64,
    /// Column `utilization`.
    pub utilization: f64,
    /// Column `power_watts`.
    pub power: f64,
    /// Column `energy_joules`: a counter that grows with `ts`.
    pub energy: f64,
    /// Column `throttle_reasons`, an integer.
    pub integer: i64,
}

impl Row {
    /// As a line of NDJSON.
    pub fn line(&self) -> String {
        json!({
            "stream": "accelerator", "ts": self.ts, "node": self.node, "device": self.device, "model": self.id,
            "utilization": self.utilization, "power_watts": self.power, "energy_joules": self.energy,
            "throttle_reasons": self.integer,
        })
        .to_string()
    }
}

/// What a sender knows of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent, and not answered: its rows may be in the lake, once.
    Unknown,
    /// Answered with success: its rows must be in the lake, once.
    Acknowledged,
}

/// A body's number in the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Body(usize);

/// The ledger of one case.
pub struct Ledger {
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    bodies: Vec<(Vec<Row>, Fate)>,
}

impl Ledger {
    /// An empty ledger in `folder`.
    pub fn new(folder: &Path) -> Result<Ledger> {
        let file = File::create(folder.join("ledger.jsonl"))?;
        Ok(Ledger { inner: Mutex::new(Inner { file, bodies: Vec::new() }) })
    }

    /// Writes down a body that is about to be sent.
    pub fn sent(&self, rows: Vec<Row>) -> Result<Body> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.bodies.len();
        inner.write(&json!({"body": number, "sent": rows}))?;
        inner.bodies.push((rows, Fate::Unknown));
        Ok(Body(number))
    }

    /// Writes down that a body was acknowledged.
    pub fn acknowledged(&self, body: Body) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.write(&json!({"body": body.0, "acknowledged": true}))?;
        inner.bodies[body.0].1 = Fate::Acknowledged;
        Ok(())
    }

    /// Every row, and what is known of it.
    pub fn rows(&self) -> Vec<(Row, Fate)> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = inner.bodies.iter().flat_map(|(rows, fate)| rows.iter().map(|row| (row.clone(), *fate)));
        rows.collect()
    }
}

impl Inner {
    fn write(&mut self, line: &serde_json::Value) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.file.sync_data()?)
    }
}
