//! What travels on the bus: rows of one stream, ticks, and what others put there.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;

use crate::ipc::{self, IpcLimits};

pub use crate::ipc::{DecodeError, EncodeError};

/// Header: `rows` or `tick`.
pub const KIND: &str = "airan-kind";
/// Header: the stream's name.
pub const STREAM: &str = "airan-stream";
/// Header: fingerprint of the payload's schema, 16 hex characters.
pub const SCHEMA: &str = "airan-schema";
/// Header: number of rows.
pub const ROWS: &str = "airan-rows";

/// Limits on one message, decompressed. A gateway gathers far less into one ([`GATHER_BYTES_MAX`]), so only a stranger's message
/// meets them.
pub const MESSAGE_LIMITS: IpcLimits = IpcLimits { bytes: 32 << 20, rows: 524_288, columns: 4096, depth: 16 };

/// The most that a gateway may be told to gather into one message. A message may hold twice as much and a row takes more than
/// 60 bytes, so even then it stays within [`MESSAGE_LIMITS`].
pub const GATHER_BYTES_MAX: u64 = 8 << 20;

/// What travels on the bus.
#[derive(Clone, Debug)]
pub enum Message {
    /// Rows of one stream.
    Rows(Rows),
    /// Nothing but the time at which it was appended.
    Tick,
    /// Not ours or damaged: counted and rejected, never fatal.
    Foreign {
        /// What is wrong with it.
        reason: String,
        /// The payload as it came.
        payload: Bytes,
    },
}

/// Rows of one stream, encoded.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Fingerprint of the payload's schema: two payloads with the same columns have the same.
    pub schema: u64,
    /// How many rows.
    pub rows: u64,
    /// One Arrow IPC stream, LZ4 buffers.
    pub payload: Bytes,
}

impl Rows {
    /// Encodes rows; columns without a value are left out.
    pub fn encode(stream: &Arc<str>, batch: &RecordBatch) -> Result<Rows, EncodeError> {
        let payload = ipc::encode(batch)?;
        let schema = fingerprint(batch);
        Ok(Rows { stream: Arc::clone(stream), schema, rows: batch.num_rows() as u64, payload })
    }

    /// Decodes rows; never panics. Fails too if the number of rows is not the header's.
    pub fn decode(&self) -> Result<RecordBatch, DecodeError> {
        let batch = ipc::decode(&self.payload, &MESSAGE_LIMITS)?;
        if batch.num_rows() as u64 != self.rows {
            let (held, said) = (batch.num_rows(), self.rows);
            return Err(DecodeError::Malformed(format!("{held} rows where the header says {said}")));
        }
        Ok(batch)
    }
}

impl Message {
    /// The headers that go with the payload.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            Message::Rows(rows) => vec![
                (KIND, "rows".to_owned()),
                (STREAM, rows.stream.to_string()),
                (SCHEMA, format!("{:016x}", rows.schema)),
                (ROWS, rows.rows.to_string()),
            ],
            Message::Tick => vec![(KIND, "tick".to_owned())],
            Message::Foreign { .. } => Vec::new(),
        }
    }

    /// The payload that goes with the headers.
    pub fn payload(&self) -> &[u8] {
        match self {
            Message::Rows(rows) => &rows.payload,
            Message::Tick => &[],
            Message::Foreign { payload, .. } => payload,
        }
    }

    /// The payload alone.
    pub fn into_payload(self) -> Bytes {
        match self {
            Message::Rows(rows) => rows.payload,
            Message::Tick => Bytes::new(),
            Message::Foreign { payload, .. } => payload,
        }
    }

    /// Reads a message by its headers; what is not ours becomes [`Message::Foreign`]. The payload is not looked at.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, payload: Bytes) -> Message {
        let (mut kind, mut stream, mut schema, mut rows) = (None, None, None, None);
        for (name, value) in headers {
            let slot = match name {
                KIND => &mut kind,
                STREAM => &mut stream,
                SCHEMA => &mut schema,
                ROWS => &mut rows,
                _ => continue,
            };
            *slot = std::str::from_utf8(value).ok();
        }
        let foreign = |reason: &str, payload| Message::Foreign { reason: reason.to_owned(), payload };
        match kind {
            None => foreign("no airan-kind header", payload),
            Some("tick") => Message::Tick,
            Some("rows") => {
                let schema = schema.and_then(|hex| u64::from_str_radix(hex, 16).ok());
                let rows = rows.and_then(|number| number.parse::<u64>().ok());
                match (stream, schema, rows) {
                    (Some(stream), Some(schema), Some(rows)) if !stream.is_empty() => {
                        Message::Rows(Rows { stream: Arc::from(stream), schema, rows, payload })
                    }
                    _ => foreign("rows without airan-stream, airan-schema or airan-rows", payload),
                }
            }
            Some(_) => foreign("an airan-kind nobody knows", payload),
        }
    }
}

/// FNV-1a over names and types of the columns that have a value.
fn fingerprint(batch: &RecordBatch) -> u64 {
    let mut hash = Fnv::new();
    let schema: &Schema = batch.schema_ref();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if column.null_count() < column.len() {
            hash.write(field.name().as_bytes());
            hash.write_type(field.data_type());
        }
    }
    hash.0
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_type(&mut self, ty: &DataType) {
        match ty {
            DataType::Float64 => self.write(b"f"),
            DataType::Int64 => self.write(b"i"),
            DataType::Utf8 => self.write(b"t"),
            other => self.write(other.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use arrow::datatypes::Field;

    fn rows(column: &str, values: ArrayRef) -> Rows {
        let schema = Schema::new(vec![Field::new(column, values.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![values]).unwrap();
        Rows::encode(&Arc::from("accelerator"), &batch).unwrap()
    }

    fn floats(values: Vec<Option<f64>>) -> ArrayRef {
        Arc::new(Float64Array::from(values))
    }

    fn sent(message: &Message) -> Message {
        let headers = message.headers();
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Message::from_headers(headers, Bytes::copy_from_slice(message.payload()))
    }

    #[test]
    fn rows_and_ticks_come_back_from_their_headers() {
        let rows = rows("utilization", floats(vec![Some(0.5), None]));
        let Message::Rows(back) = sent(&Message::Rows(rows.clone())) else { panic!("no rows") };
        assert_eq!((&*back.stream, back.schema, back.rows), ("accelerator", rows.schema, 2));
        assert_eq!(back.decode().unwrap(), rows.decode().unwrap());
        assert!(matches!(sent(&Message::Tick), Message::Tick));
    }

    #[test]
    fn the_fingerprint_names_columns_and_types() {
        let a = rows("a", floats(vec![Some(1.0)]));
        assert_eq!(a.schema, rows("a", floats(vec![Some(7.0), None])).schema);
        assert_ne!(a.schema, rows("b", floats(vec![Some(1.0)])).schema);
        assert_ne!(a.schema, rows("a", Arc::new(Int64Array::from(vec![1]))).schema);
        assert_ne!(a.schema, rows("a", floats(vec![None])).schema);
    }

    /// Scenario: messages without our headers, with damaged ones, with a wrong row count, with a payload that is no rows.
    #[test]
    fn what_is_not_ours_is_foreign_and_never_fatal() {
        let payload = Bytes::from_static(b"hello");
        let cases: [&[(&str, &[u8])]; 6] = [
            &[],
            &[("other", b"x")],
            &[(KIND, b"rows")],
            &[(KIND, b"\xff")],
            &[(KIND, b"party")],
            &[(KIND, b"rows"), (STREAM, b"host"), (SCHEMA, b"zz"), (ROWS, b"1")],
        ];
        for headers in cases {
            let message = Message::from_headers(headers.iter().copied(), payload.clone());
            assert!(matches!(message, Message::Foreign { .. }), "{headers:?}");
        }
        let ours = [(KIND, &b"rows"[..]), (STREAM, b"host"), (SCHEMA, b"0f"), (ROWS, b"1")];
        let Message::Rows(rows) = Message::from_headers(ours.into_iter(), payload) else { panic!("no rows") };
        assert!(matches!(rows.decode(), Err(DecodeError::Malformed(_))));
        let mut wrong = self::rows("a", floats(vec![Some(1.0)]));
        wrong.rows = 2;
        assert_eq!(wrong.decode(), Err(DecodeError::Malformed("1 rows where the header says 2".into())));
    }

    /// Scenario: a stranger's message of a few hundred kilobytes that inflates beyond the limits, by bytes and by rows.
    /// Guarantees: refused before it is unpacked; what a gateway sends at its largest is not.
    #[test]
    fn a_compressed_bomb_is_refused_by_the_limits_of_a_message() {
        let zeros = |count: usize| rows("zeros", Arc::new(Int64Array::from(vec![0; count])));
        let bomb = zeros(MESSAGE_LIMITS.bytes / 8 + 1);
        assert!(bomb.payload.len() < 1 << 20, "{} bytes", bomb.payload.len());
        assert!(matches!(bomb.decode(), Err(DecodeError::TooLarge(_))));
        assert!(
            matches!(zeros(MESSAGE_LIMITS.rows + 1).decode(), Err(DecodeError::TooLarge(reason)) if reason.contains("rows"))
        );
        assert_eq!(zeros(MESSAGE_LIMITS.rows).decode().unwrap().num_rows(), MESSAGE_LIMITS.rows);
    }
}
