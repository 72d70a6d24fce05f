//! Every number in an Arrow IPC stream that arrow's reader would trust, looked at first.
//!
//! The format: a message is `ffffffff`, the length of its header (i32, little-endian), the header (a flatbuffer, verified when
//! it is opened) and a body; length 0 ends the stream. A compressed buffer starts with its decompressed length (i64), -1 if it
//! is stored plain. <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>
//!
//! LZ4 frames may hold more than they claim, and the reader unpacks them without a bound; so their blocks are counted here.
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::ipc::{
    BodyCompressionMethod, CompressionType, Endianness, Message, MetadataVersion, Precision, RecordBatch, Type,
};

use super::{DecodeError, IpcLimits};

/// Characters of a column's name in an error.
const NAME_CHARS: usize = 100;

pub(super) fn malformed(reason: &str) -> DecodeError {
    DecodeError::Malformed(reason.to_owned())
}

fn too_large(reason: String) -> DecodeError {
    DecodeError::TooLarge(reason)
}

/// Where a message's header lies in the stream.
pub(super) struct Frame {
    pub(super) metadata: Range<usize>,
}

/// The message that starts at `at`; None at the end mark, after which nothing may follow.
pub(super) fn next_frame(body: &[u8], at: usize) -> Result<Option<Frame>, DecodeError> {
    let cut = || malformed("it is cut off");
    let prefix = body.get(at..at.saturating_add(8)).ok_or_else(cut)?;
    let (mark, length) = prefix.split_at(4);
    if mark != [0xff; 4] {
        return Err(malformed("a message without its mark"));
    }
    let length = i32::from_le_bytes([length[0], length[1], length[2], length[3]]);
    let start = at + 8;
    if length == 0 {
        return if start == body.len() { Ok(None) } else { Err(malformed("bytes after its end")) };
    }
    let length = usize::try_from(length).map_err(|_| malformed("a header of negative length"))?;
    let end = start.checked_add(length).filter(|end| *end <= body.len()).ok_or_else(cut)?;
    Ok(Some(Frame { metadata: start..end }))
}

/// Where a message's body lies in the stream.
pub(super) fn content(message: &Message<'_>, start: usize, end: usize) -> Result<Range<usize>, DecodeError> {
    if !matches!(message.version(), MetadataVersion::V4 | MetadataVersion::V5) {
        return Err(DecodeError::Unsupported(format!("metadata version {}", message.version().0)));
    }
    let length = usize::try_from(message.bodyLength()).map_err(|_| malformed("a body of negative length"))?;
    let stop = start.checked_add(length).filter(|stop| *stop <= end).ok_or_else(|| malformed("it is cut off"))?;
    Ok(start..stop)
}

/// The stream's schema: plain types only, without metadata, every column nullable, no name twice.
pub(super) fn schema(header: &arrow::ipc::Schema<'_>, limits: &IpcLimits) -> Result<SchemaRef, DecodeError> {
    if header.endianness() != Endianness::Little {
        return Err(DecodeError::Unsupported("big-endian data".to_owned()));
    }
    let mut left = limits.columns;
    let mut fields = Vec::new();
    for field in header.fields().into_iter().flatten() {
        fields.push(column(&field, limits.depth, &mut left)?);
    }
    distinct(&fields)?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses two columns of one name: who checks the first must not be passed by with the second.
fn distinct(fields: &[Field]) -> Result<(), DecodeError> {
    let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.array_windows::<2>().find(|[one, next]| one == next) {
        Some([name, _]) => {
            let name: String = name.chars().take(NAME_CHARS).collect();
            Err(malformed(&format!("column `{name}` occurs twice")))
        }
        None => Ok(()),
    }
}

fn column(field: &arrow::ipc::Field<'_>, depth: usize, left: &mut usize) -> Result<Field, DecodeError> {
    let deeper = depth.checked_sub(1).ok_or_else(|| too_large("types nested too deep".to_owned()))?;
    *left = left.checked_sub(1).ok_or_else(|| too_large("too many columns".to_owned()))?;
    let name = field.name().ok_or_else(|| malformed("a column without a name"))?;
    if field.dictionary().is_some() {
        return Err(DecodeError::Unsupported("dictionary-encoded columns: send plain ones".to_owned()));
    }
    let mut children = Vec::new();
    for child in field.children().into_iter().flatten() {
        children.push(column(&child, deeper, left)?);
    }
    distinct(&children)?;
    let ty = data_type(field, children).ok_or_else(|| {
        let name: String = name.chars().take(NAME_CHARS).collect();
        DecodeError::Unsupported(format!("the type of column `{name}` ({:?})", field.type_type()))
    })?;
    Ok(Field::new(name, ty, true))
}

/// The types that Delta has too; None for any other.
fn data_type(field: &arrow::ipc::Field<'_>, mut children: Vec<Field>) -> Option<DataType> {
    let leaf = children.is_empty();
    Some(match field.type_type() {
        Type::Bool if leaf => DataType::Boolean,
        Type::Utf8 if leaf => DataType::Utf8,
        Type::LargeUtf8 if leaf => DataType::LargeUtf8,
        Type::Int if leaf => match (field.type_as_int()?.bitWidth(), field.type_as_int()?.is_signed()) {
            (8, true) => DataType::Int8,
            (16, true) => DataType::Int16,
            (32, true) => DataType::Int32,
            (64, true) => DataType::Int64,
            _ => return None,
        },
        Type::FloatingPoint if leaf => match field.type_as_floating_point()?.precision() {
            Precision::SINGLE => DataType::Float32,
            Precision::DOUBLE => DataType::Float64,
            _ => return None,
        },
        Type::Timestamp if leaf => {
            let timestamp = field.type_as_timestamp()?;
            let unit = match timestamp.unit() {
                arrow::ipc::TimeUnit::SECOND => TimeUnit::Second,
                arrow::ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
                arrow::ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
                arrow::ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
                _ => return None,
            };
            DataType::Timestamp(unit, timestamp.timezone().map(Arc::from))
        }
        Type::List if children.len() == 1 => DataType::List(Arc::new(children.remove(0))),
        Type::Struct_ => DataType::Struct(Fields::from(children)),
        Type::Map if children.len() == 1 => map_type(children.remove(0), field.type_as_map()?.keysSorted())?,
        _ => return None,
    })
}

/// A map's entries and keys may hold no null.
fn map_type(entries: Field, sorted: bool) -> Option<DataType> {
    let DataType::Struct(pair) = entries.data_type() else { return None };
    let [keys, values] = &pair[..] else { return None };
    let keys = Field::new(keys.name(), keys.data_type().clone(), false);
    let pair = Fields::from(vec![Arc::new(keys), Arc::clone(values)]);
    Some(DataType::Map(Arc::new(Field::new(entries.name(), DataType::Struct(pair), false)), sorted))
}

/// What the batches of one stream may still take up.
pub(super) struct Budget {
    bytes: usize,
    rows: usize,
    limit: IpcLimits,
}

impl Budget {
    pub(super) fn new(limits: &IpcLimits) -> Budget {
        Budget { bytes: limits.bytes, rows: limits.rows, limit: *limits }
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.bytes =
            self.bytes.checked_sub(bytes).ok_or_else(|| too_large(format!("more than {} bytes", self.limit.bytes)))?;
        Ok(())
    }
}

/// Looks at every length and offset of a batch, and at every compressed buffer.
pub(super) fn batch(
    header: &RecordBatch<'_>,
    schema: &Schema,
    body: &[u8],
    budget: &mut Budget,
) -> Result<(), DecodeError> {
    let rows = usize::try_from(header.length()).map_err(|_| malformed("a negative number of rows"))?;
    budget.rows =
        budget.rows.checked_sub(rows).ok_or_else(|| too_large(format!("more than {} rows", budget.limit.rows)))?;
    let codec = match header.compression() {
        None => None,
        Some(compression) if compression.method() != BodyCompressionMethod::BUFFER => {
            return Err(DecodeError::Unsupported("compression of whole bodies".to_owned()));
        }
        Some(compression) => match compression.codec() {
            codec @ (CompressionType::LZ4_FRAME | CompressionType::ZSTD) => Some(codec),
            other => return Err(DecodeError::Unsupported(format!("compression {}", other.0))),
        },
    };

    if header.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(mismatch()); // only views have such buffers
    }
    let nodes = header.nodes().ok_or_else(|| malformed("a batch without nodes"))?;
    let buffers = header.buffers().ok_or_else(|| malformed("a batch without buffers"))?;
    // A value takes at least one bit, so no column can be longer than this.
    let longest = budget.limit.bytes.saturating_mul(8).max(budget.limit.rows);
    let mut parts = Parts { nodes: Vec::with_capacity(nodes.len()), buffers: Vec::with_capacity(buffers.len()) };
    for node in nodes {
        let length = usize::try_from(node.length()).map_err(|_| malformed("a column of negative length"))?;
        let nulls = usize::try_from(node.null_count()).map_err(|_| malformed("a negative number of nulls"))?;
        if length > longest || nulls > length {
            return Err(malformed("a column with an impossible length"));
        }
        parts.nodes.push((length, nulls));
    }
    for buffer in buffers {
        let start = usize::try_from(buffer.offset()).map_err(|_| malformed("a buffer at a negative offset"))?;
        let length = usize::try_from(buffer.length()).map_err(|_| malformed("a buffer of negative length"))?;
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end));
        let bytes = unpacked_bytes(bytes.ok_or_else(|| malformed("a buffer outside its body"))?, codec)?;
        budget.take_bytes(bytes)?;
        parts.buffers.push(bytes);
    }
    parts.nodes.reverse();
    parts.buffers.reverse();
    for field in schema.fields() {
        parts.take_column(field.data_type(), Some(rows))?;
    }
    if parts.nodes.is_empty() && parts.buffers.is_empty() { Ok(()) } else { Err(mismatch()) }
}

fn mismatch() -> DecodeError {
    malformed("a batch whose columns are not the schema's")
}

/// What is left of a batch's columns and buffers, the next one last.
struct Parts {
    // Length and number of nulls.
    nodes: Vec<(usize, usize)>,
    // Bytes, unpacked.
    buffers: Vec<usize>,
}

impl Parts {
    /// Takes a buffer that must hold at least so many values, of so many bytes each.
    fn take_buffer(&mut self, values: usize, width: usize) -> Result<(), DecodeError> {
        match self.buffers.pop() {
            Some(bytes) if bytes % width != 0 => Err(malformed("a buffer that ends within a value")),
            Some(bytes) if bytes / width >= values => Ok(()),
            Some(_) => Err(malformed("a buffer shorter than its column")),
            None => Err(mismatch()),
        }
    }

    /// Takes the nodes and buffers of one column, which must be `rows` long where that is known; an element of a list is not.
    fn take_column(&mut self, ty: &DataType, rows: Option<usize>) -> Result<(), DecodeError> {
        let (length, nulls) = self.nodes.pop().ok_or_else(mismatch)?;
        if rows.is_some_and(|rows| rows != length) {
            return Err(malformed("columns of different lengths"));
        }
        let bits = length.div_ceil(8);
        self.take_buffer(if nulls > 0 { bits } else { 0 }, 1)?;
        let offsets = if length == 0 { 0 } else { length + 1 };
        match ty {
            DataType::Boolean => self.take_buffer(bits, 1),
            DataType::Utf8 => self.take_buffer(offsets, 4).and_then(|()| self.take_buffer(0, 1)),
            DataType::LargeUtf8 => self.take_buffer(offsets, 8).and_then(|()| self.take_buffer(0, 1)),
            DataType::List(child) | DataType::Map(child, _) => {
                self.take_buffer(offsets, 4)?;
                self.take_column(child.data_type(), None)
            }
            DataType::Struct(children) => {
                children.iter().try_for_each(|child| self.take_column(child.data_type(), Some(length)))
            }
            other => {
                let width = other.primitive_width().ok_or_else(mismatch)?;
                self.take_buffer(length, width)
            }
        }
    }
}

/// The bytes a buffer takes once it is unpacked, as it claims; arrow refuses a buffer whose claim is not met.
fn unpacked_bytes(buffer: &[u8], codec: Option<CompressionType>) -> Result<usize, DecodeError> {
    let Some(codec) = codec else { return Ok(buffer.len()) };
    if buffer.is_empty() {
        return Ok(0);
    }
    let (prefix, packed) =
        buffer.split_first_chunk::<8>().ok_or_else(|| malformed("a compressed buffer without a length"))?;
    match i64::from_le_bytes(*prefix) {
        -1 => Ok(packed.len()),
        claimed => {
            let claimed = usize::try_from(claimed).map_err(|_| malformed("a buffer of negative length"))?;
            match codec {
                CompressionType::LZ4_FRAME if claimed > 0 => lz4_frame_holds(packed, claimed).map(|()| claimed),
                _ => Ok(claimed), // zstd unpacks into a space of the claimed size
            }
        }
    }
}

/// Refuses an LZ4 frame of more blocks than its claim needs, since a writer fills every block but the last. So a frame unpacks
/// to less than one block (4 MiB) more than it claims, and only until arrow compares the two.
fn lz4_frame_holds(frame: &[u8], claimed: usize) -> Result<(), DecodeError> {
    const MAGIC: u32 = 0x184D_2204;
    let cut = || malformed("an lz4 frame that is cut off");
    let word = |at: usize| -> Result<u32, DecodeError> {
        let bytes = frame.get(at..at.saturating_add(4)).ok_or_else(cut)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if word(0)? != MAGIC {
        return Err(malformed("a compressed buffer that is no lz4 frame"));
    }
    let (flags, sizes) = (*frame.get(4).ok_or_else(cut)?, *frame.get(5).ok_or_else(cut)?);
    let block_bytes = match (sizes >> 4) & 7 {
        4 => 64 * 1024,
        5 => 256 * 1024,
        6 => 1024 * 1024,
        7 => 4 * 1024 * 1024,
        _ => return Err(malformed("an lz4 frame with blocks of unknown size")),
    };
    let block_checksum = if flags & 0x10 != 0 { 4 } else { 0 };
    let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
    let dictionary = if flags & 0x01 != 0 { 4 } else { 0 };
    let most = claimed.div_ceil(block_bytes);
    let mut at = 6 + content_size + dictionary + 1;
    let mut blocks = 0usize;
    loop {
        let size = word(at)?;
        if size == 0 {
            return Ok(());
        }
        blocks += 1;
        if blocks > most {
            return Err(malformed("an lz4 frame that holds more than it claims"));
        }
        let packed = (size & 0x7fff_ffff) as usize;
        at = at.saturating_add(4).saturating_add(packed).saturating_add(block_checksum);
    }
}
