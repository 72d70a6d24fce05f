//! The input of a pipeline's own test: lines of rows and ticks, as messages.
//!
//! A line is a row as `POST /v1/ndjson` takes it (`stream`, `ts`, `node`, entity, values) with keys for the test alone: `site`
//! and `region` (placement), `append_time` (when the bus had it; else its `ts` and a second), `batch` and `seq` (identity; else
//! the node's own batch, numbered by node and stream); or `{"tick": TIME}`. Append time never goes back. Consecutive rows of one
//! stream and append time are one message.

use std::collections::HashMap;
use std::sync::Arc;

use airan_bus::Received;
use airan_model::catalog::{Catalog, Stream};
use airan_model::identity::BatchId;
use airan_model::inventory::UNASSIGNED;
use airan_model::message::{Message, Rows};
use airan_model::schema;
use airan_model::time::{Micros, SECOND, format_rfc3339, parse_rfc3339};
use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use serde_json::{Map, Value};

/// What is wrong with a line.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct InputError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Reads an input as the messages of partition 0, offsets from 0.
///
/// # Errors
/// At the first line that is neither a row of the catalog nor a tick.
pub fn read_messages(text: &str, catalog: &Catalog) -> Result<Vec<Received>, InputError> {
    let mut reader =
        Reader { catalog, messages: Vec::new(), waiting: None, log_time: Micros::MIN, numbers: HashMap::new() };
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        reader.line(line).map_err(|reason| InputError { line: index + 1, reason })?;
    }
    let lines = text.lines().count();
    reader.send().map_err(|reason| InputError { line: lines, reason })?;
    Ok(reader.messages)
}

struct Reader<'a> {
    catalog: &'a Catalog,
    messages: Vec<Received>,
    waiting: Option<(Arc<Stream>, Vec<Value>)>,
    log_time: Micros,
    numbers: HashMap<(String, String), i64>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let Value::Object(mut row) = serde_json::from_str(line).map_err(|error| error.to_string())? else {
            return Err("not a JSON object".to_owned());
        };
        if let Some(tick) = row.get("tick") {
            let at = time(tick)?;
            self.send()?;
            self.log_time = self.log_time.max(at);
            self.push(Message::Tick);
            return Ok(());
        }
        let name = text(&row, "stream")?;
        let stream = self.catalog.stream(&name).ok_or_else(|| format!("no stream `{name}` in the catalog"))?;
        let ts = time(row.get(schema::TS).ok_or("no `ts`")?)?;
        let given = row.remove("append_time").map(|at| time(&at)).transpose()?;
        let at = self.log_time.max(given.unwrap_or(ts + SECOND));
        row.remove("stream");
        self.complete(&name, &mut row, at)?;
        let is_same = self.waiting.as_ref().is_some_and(|(of, _)| of.name == stream.name) && at == self.log_time;
        if !is_same {
            self.send()?;
            self.log_time = at;
            self.waiting = Some((Arc::clone(stream), Vec::new()));
        }
        if let Some((_, rows)) = &mut self.waiting {
            rows.push(Value::Object(row));
        }
        Ok(())
    }

    /// Adds what a gateway would add.
    fn complete(&mut self, stream: &str, row: &mut Map<String, Value>, at: Micros) -> Result<(), String> {
        let node = text(row, schema::NODE)?;
        let number = self.numbers.entry((node.clone(), stream.to_owned())).or_insert(0);
        let default_number = *number;
        if !row.contains_key(schema::BATCH) {
            *number += 1;
        }
        let mut default = |name: &str, value: Value| {
            row.entry(name).or_insert(value);
        };
        default(schema::BATCH, BatchId::of_body(&node, "test", b"").to_hex().into());
        default(schema::SEQ, default_number.into());
        default(schema::SITE, UNASSIGNED.into());
        default(schema::REGION, UNASSIGNED.into());
        default(schema::CLOCK, "unknown".into());
        default(schema::SOURCE, "test/ndjson".into());
        default(schema::RECEIVED_AT, format_rfc3339(at).into());
        Ok(())
    }

    /// The rows that wait become a message.
    fn send(&mut self) -> Result<(), String> {
        let Some((stream, rows)) = self.waiting.take() else { return Ok(()) };
        let rows = read_rows(&stream, &rows)?;
        let rows = Rows::encode(&stream.name, &rows).map_err(|error| error.to_string())?;
        self.push(Message::Rows(rows));
        Ok(())
    }

    fn push(&mut self, message: Message) {
        let offset = self.messages.len() as i64;
        self.messages.push(Received { partition: 0, offset, append_time: self.log_time, message });
    }
}

/// JSON objects as rows of a stream; a key that is no column is refused.
pub(crate) fn read_rows(stream: &Stream, rows: &[Value]) -> Result<RecordBatch, String> {
    let builder = ReaderBuilder::new(Arc::clone(stream.schema())).with_strict_mode(true).with_batch_size(rows.len());
    let mut decoder = builder.build_decoder().map_err(|error| error.to_string())?;
    decoder.serialize(rows).map_err(|error| error.to_string())?;
    let batch = decoder.flush().map_err(|error| error.to_string())?;
    batch.ok_or_else(|| "no rows".to_owned())
}

fn text(row: &Map<String, Value>, name: &str) -> Result<String, String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("no `{name}`"))
}

fn time(value: &Value) -> Result<Micros, String> {
    value.as_str().and_then(parse_rfc3339).ok_or_else(|| format!("{value} is no RFC 3339 time"))
}
