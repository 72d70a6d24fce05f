//! The file format of the shard state: a version, and named tables in Arrow IPC.
//!
//! ```text
//! "AIRANST\0"  version: u32 LE  { name length: u16 LE, name, content length: u64 LE, content }*
//! ```
//!
//! A table is read by column name, and a column or table that is missing counts as empty. So a release may add columns and
//! tables without a new version; a state of a newer version is refused, because what it says may no longer mean the same.

use std::collections::HashMap;

use airan_model::ipc::{self, IpcLimits};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 8] = b"AIRANST\0";

/// Version of the state's meaning.
pub(crate) const STATE_VERSION: u32 = 1;

/// Limits on one table when it is read: far above what the limits of the settings let a shard write.
const LIMITS: IpcLimits = IpcLimits { bytes: 4 << 30, rows: 200_000_000, columns: 4096, depth: 16 };

/// Why a shard state cannot be read or written. The shard stops: guessing would count twice or lose.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A later release wrote it.
    #[error(
        "shard state of version {found}, this release reads up to {STATE_VERSION}: use the release that wrote it, or a later one"
    )]
    Newer {
        /// The version found.
        found: u32,
    },
    /// It is cut off or not a shard state.
    #[error("damaged shard state: {0}")]
    Damaged(String),
    /// Arrow could not write it.
    #[error("shard state cannot be written")]
    Encode(#[from] ipc::EncodeError),
    /// Arrow could not build a table of it.
    #[error("shard state cannot be arranged")]
    Arrow(#[from] ArrowError),
}

/// Writes a state.
pub(crate) struct SheetWriter(BytesMut);

impl SheetWriter {
    pub fn new() -> SheetWriter {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(STATE_VERSION);
        SheetWriter(bytes)
    }

    /// Adds a table. Columns without a value are left out.
    pub fn table(&mut self, name: &str, columns: Vec<(&str, ArrayRef)>) -> Result<(), StateError> {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let content = ipc::encode(&batch)?;
        self.0.put_u16_le(name.len() as u16);
        self.0.put_slice(name.as_bytes());
        self.0.put_u64_le(content.len() as u64);
        self.0.put_slice(&content);
        Ok(())
    }

    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// A state that was read.
pub(crate) struct Sheets(HashMap<String, Sheet>);

/// One table of it.
pub(crate) struct Sheet(RecordBatch);

impl Sheets {
    pub fn read(mut bytes: Bytes) -> Result<Sheets, StateError> {
        let damaged = |what: &str| StateError::Damaged(what.to_owned());
        if bytes.len() < MAGIC.len() + 4 || &bytes[..MAGIC.len()] != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        bytes.advance(MAGIC.len());
        let version = bytes.get_u32_le();
        if version > STATE_VERSION {
            return Err(StateError::Newer { found: version });
        }
        let mut sheets = HashMap::new();
        while bytes.has_remaining() {
            let length = bytes.try_get_u16_le().map_err(|_| damaged("cut off in a name"))? as usize;
            if bytes.remaining() < length + 8 {
                return Err(damaged("cut off in a name"));
            }
            let name = String::from_utf8(bytes.split_to(length).to_vec()).map_err(|_| damaged("a name is no text"))?;
            let length = bytes.get_u64_le();
            if (bytes.remaining() as u64) < length {
                return Err(damaged("cut off in a table"));
            }
            let content = bytes.split_to(length as usize);
            let batch = ipc::decode(&content, &LIMITS).map_err(|error| damaged(&format!("table {name}: {error}")))?;
            sheets.insert(name, Sheet(batch));
        }
        Ok(Sheets(sheets))
    }

    /// The same state with a count in the first row of a table that is there.
    ///
    /// # Errors
    /// If Arrow cannot write it.
    pub fn with_count(&self, table: &str, column: &str, count: u64) -> Result<Bytes, StateError> {
        let mut writer = SheetWriter::new();
        let mut tables: Vec<_> = self.0.iter().collect();
        tables.sort_by_key(|(name, _)| *name);
        for (name, Sheet(batch)) in tables {
            let schema = batch.schema();
            let of_batch = schema.fields().iter().zip(batch.columns());
            let mut columns: Vec<(&str, ArrayRef)> =
                of_batch.map(|(field, values)| (field.name().as_str(), values.clone())).collect();
            if name == table {
                let value = i64::try_from(count).unwrap_or(i64::MAX);
                let rest = batch.num_rows().saturating_sub(1);
                let values = std::iter::once(Some(value)).chain(std::iter::repeat_n(None, rest));
                columns.retain(|(name, _)| *name != column);
                columns.push((column, std::sync::Arc::new(values.collect::<arrow::array::Int64Array>())));
            }
            writer.table(name, columns)?;
        }
        Ok(writer.finish())
    }

    /// A table; empty where it is missing.
    pub fn table(&self, name: &str) -> Option<&Sheet> {
        self.0.get(name)
    }
}

impl Sheet {
    pub fn rows(&self) -> usize {
        self.0.num_rows()
    }

    /// A column of any type.
    pub fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.0.column_by_name(name)
    }

    fn number<P: ArrowPrimitiveType>(&self, row: usize, name: &str) -> Option<P::Native> {
        let column = self.column(name)?.as_primitive_opt::<P>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub fn int(&self, row: usize, name: &str) -> Option<i64> {
        self.number::<Int64Type>(row, name)
    }

    pub fn float(&self, row: usize, name: &str) -> Option<f64> {
        self.number::<Float64Type>(row, name)
    }

    /// A count, 0 where it is missing.
    pub fn count(&self, row: usize, name: &str) -> u64 {
        self.int(row, name).map_or(0, |count| count.max(0) as u64)
    }

    pub fn text(&self, row: usize, name: &str) -> Option<&str> {
        let column = self.column(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn written() -> Bytes {
        let mut writer = SheetWriter::new();
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        writer.table("one", vec![("ints", ints), ("texts", texts)]).unwrap();
        writer.table("none", vec![("ints", Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef)]).unwrap();
        writer.finish()
    }

    #[test]
    fn tables_come_back_by_name_and_missing_things_are_empty() {
        let sheets = Sheets::read(written()).unwrap();
        let one = sheets.table("one").unwrap();
        assert_eq!(
            (one.rows(), one.int(0, "ints"), one.int(1, "ints"), one.text(1, "texts")),
            (2, Some(1), None, Some("b"))
        );
        assert_eq!((one.int(0, "other"), one.int(0, "texts"), one.count(1, "ints")), (None, None, 0));
        assert!(sheets.table("none").is_none());
    }

    /// Scenario: a count is changed in one table of two, then in one that has no such column.
    /// Guarantees: that count is what it was set to; everything else is as it was.
    #[test]
    fn a_count_is_changed_and_nothing_else() {
        let changed = Sheets::read(Sheets::read(written()).unwrap().with_count("one", "ints", 9).unwrap()).unwrap();
        let one = changed.table("one").unwrap();
        assert_eq!(
            (one.rows(), one.int(0, "ints"), one.int(1, "ints"), one.text(1, "texts")),
            (2, Some(9), None, Some("b"))
        );
        let changed = Sheets::read(Sheets::read(written()).unwrap().with_count("one", "new", 3).unwrap()).unwrap();
        let one = changed.table("one").unwrap();
        assert_eq!((one.count(0, "new"), one.int(0, "ints"), one.text(0, "texts")), (3, Some(1), Some("a")));
    }

    /// Scenario: a newer version, every truncation, something else altogether.
    /// Guarantees: each is refused, none panics.
    #[test]
    fn a_newer_or_damaged_state_is_refused() {
        let good = written();
        let mut newer = BytesMut::from(&good[..]);
        newer[8] = 2;
        assert!(matches!(Sheets::read(newer.freeze()), Err(StateError::Newer { found: 2 })));
        for cut in (0..good.len()).filter(|cut| *cut != 12) {
            assert!(matches!(Sheets::read(good.slice(..cut)), Err(StateError::Damaged(_))), "{cut}");
        }
        assert!(Sheets::read(Bytes::from_static(b"PAR1PAR1PAR1")).is_err());
    }
}
