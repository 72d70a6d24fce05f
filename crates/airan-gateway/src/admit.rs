//! Admission: what the gateway adds to decoded rows, and which partition they go to.
//!
//! Adds `received_at`, `region` and `site` (from the inventory), `clock`, `source`, and `batch` and `seq` where the sender
//! sent none; `source` tells which of the two made the identity. A time too far from the time of reception is replaced by it. Works on whole columns: the rows of a request
//! mostly belong to one node, and then nothing is done once a row but comparing its node with the one before. Pure: the time,
//! the inventory and the identity are arguments.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use airan_decode::DecodedRows;
use airan_model::identity::{BatchId, is_gateway_source, partition_of};
use airan_model::inventory::{Inventory, UNASSIGNED};
use airan_model::schema;
use airan_model::time::{Micros, Plausibility, format_rfc3339};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, MapArray, MapBuilder, MapFieldNames, StringArray, StringBuilder,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use foldhash::fast::RandomState;

use crate::layout::{ColumnError, Columns, Layout};

/// Attribute that keeps the time a sender gave where it was not plausible.
pub const SENDER_TS: &str = "airan.sender_ts";

/// What `clock` says of a node whose clock nobody has judged.
const CLOCK_UNKNOWN: &str = "unknown";
/// What `clock` says where the time was replaced.
const CLOCK_IMPLAUSIBLE: &str = "implausible";

/// The layouts of all streams, by name.
pub(crate) type Layouts = HashMap<Arc<str>, Arc<Layout>, RandomState>;

/// Where nodes stood before the inventory in force.
///
/// Duplicates are known by the shard of a site's partition. Were a row that is sent again after its node has moved to go to the
/// new site, the old site's shard would not meet it, and the row would be stored twice. So for as long as a request under way
/// may be repeated, rows of the time before the move go where they went then. A repetition that comes later is stored again.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// Until when it was in force.
    pub until: Micros,
}

/// What admission has to know about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission<'a> {
    /// The streams.
    pub layouts: &'a Layouts,
    /// Where nodes belong.
    pub inventory: &'a Inventory,
    /// Where they stood before, while rows of that time may be repetitions.
    pub before: Option<&'a Before>,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Which times are believed.
    pub plausibility: Plausibility,
    /// Now.
    pub received_at: Micros,
    /// Door and format.
    pub source: &'a str,
    /// Node of rows that name none.
    pub sender: &'a str,
    /// Identity of the request, for rows without one.
    pub batch: BatchId,
}

/// Rows of one stream for one partition, complete but for the rises the processor adds.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The partition of the rows' sites.
    pub partition: i32,
    /// The rows' stream.
    pub layout: Arc<Layout>,
    /// The rows.
    pub rows: Columns,
}

/// A request's rows, ready for the bus.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// By stream and partition.
    pub parts: Vec<Part>,
    /// Rows of all parts.
    pub rows: u64,
    /// Nodes the inventory does not know, with their rows.
    pub missing: Vec<(Box<str>, u64)>,
    /// Nodes whose time was replaced, with their rows.
    pub implausible: Vec<(Box<str>, u64)>,
}

/// Why rows cannot be admitted. All are the sender's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    /// The stream is not in the catalog.
    #[error("there is no stream `{0}`")]
    UnknownStream(String),
    /// A column is not of the catalog, has another type than there, or occurs twice.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// `batch` or `seq` as sent is not an identity.
    #[error("`batch` must be 32 hex digits and `seq` not negative")]
    Identity,
    /// More text than one column can hold.
    #[error("too many rows in one request")]
    TooManyRows,
    /// Arrow refused; with checked types it does not.
    #[error("rows cannot be arranged")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Admits the rows of a whole request. `seq` counts through all of its streams.
pub(crate) fn admit(decoded: &[DecodedRows], admission: &Admission) -> Result<Admitted, AdmitError> {
    let mut admitted = Admitted::default();
    let mut next_seq = 0i64;
    for DecodedRows { stream, rows } in decoded.iter().filter(|part| part.rows.num_rows() > 0) {
        let layout =
            admission.layouts.get(&stream.name).ok_or_else(|| AdmitError::UnknownStream(stream.name.to_string()))?;
        let mut columns = layout.apart(rows)?;
        admitted.rows += columns.rows as u64;

        let nodes = nodes(&mut columns, layout, admission.sender)?;
        believe_or_replace_time(&mut columns, layout, &nodes, admission, &mut admitted.implausible)?;
        columns.set(layout.place(schema::RECEIVED_AT), Arc::new(times(vec![admission.received_at; columns.rows])));
        let identity = identify(&mut columns, layout, admission.batch, &mut next_seq)?;
        name_source(&mut columns, layout, admission.source, identity)?;

        let ts = columns.at(layout.place(schema::TS)).and_then(|ts| ts.as_primitive_opt::<TimestampMicrosecondType>());
        let is_old = |row: usize| admission.before.zip(ts).is_some_and(|(before, ts)| ts.value(row) < before.until);
        let placed = place(&nodes, columns.rows, is_old, admission, &mut admitted.missing);
        placed.fill(&mut columns, layout)?;
        placed.split(columns, layout, &mut admitted.parts)?;
    }
    Ok(admitted)
}

/// The node column; rows without a node are the sender's own.
fn nodes(columns: &mut Columns, layout: &Layout, sender: &str) -> Result<StringArray, AdmitError> {
    let place = layout.place(schema::NODE);
    let nodes = match columns.at(place) {
        Some(nodes) if nodes.null_count() == 0 => return Ok(nodes.as_string::<i32>().clone()),
        Some(some) => some.as_string::<i32>().iter().map(|node| Some(node.unwrap_or(sender))).collect(),
        None => constant(sender, columns.rows)?,
    };
    columns.set(place, Arc::new(nodes.clone()));
    Ok(nodes)
}

/// Sets `clock`, and replaces times that cannot be believed, keeping them in `attributes`.
fn believe_or_replace_time(
    columns: &mut Columns,
    layout: &Layout,
    nodes: &StringArray,
    admission: &Admission,
    implausible: &mut Vec<(Box<str>, u64)>,
) -> Result<(), AdmitError> {
    let received_at = admission.received_at;
    let (ts_place, clock_place) = (layout.place(schema::TS), layout.place(schema::CLOCK));
    let ts = columns.at(ts_place).map(|ts| ts.as_primitive::<TimestampMicrosecondType>().clone());
    let sent = |row: usize| ts.as_ref().filter(|ts| ts.is_valid(row)).map(|ts| ts.value(row));
    let believed = |row: usize| sent(row).is_some_and(|ts| admission.plausibility.check(ts, received_at));
    let first_wrong = (0..columns.rows).find(|row| !believed(*row));
    let clock_sent = columns.at(clock_place).filter(|clock| clock.null_count() == 0).cloned();
    let Some(first_wrong) = first_wrong else {
        if clock_sent.is_none() {
            columns.set(clock_place, Arc::new(constant(CLOCK_UNKNOWN, columns.rows)?));
        }
        return Ok(());
    };

    let wrong: Vec<bool> = (0..columns.rows).map(|row| row >= first_wrong && !believed(row)).collect();
    let clock_of = |row: usize| match &clock_sent {
        _ if wrong[row] => CLOCK_IMPLAUSIBLE,
        Some(clock) => clock.as_string::<i32>().value(row),
        None => CLOCK_UNKNOWN,
    };
    let clock: StringArray = (0..columns.rows).map(|row| Some(clock_of(row))).collect();
    let kept = |row: usize| sent(row).filter(|_| wrong[row]).map(format_rfc3339);
    let attributes = with_attribute(columns.at(layout.place(schema::ATTRIBUTES)), columns.rows, SENDER_TS, kept)?;
    let replaced = (0..columns.rows).map(|row| sent(row).filter(|_| !wrong[row]).unwrap_or(received_at)).collect();
    columns.set(ts_place, Arc::new(times(replaced)));
    columns.set(clock_place, Arc::new(clock));
    columns.set(layout.place(schema::ATTRIBUTES), attributes);

    let mut by_node: BTreeMap<&str, u64> = BTreeMap::new();
    for (row, _) in wrong.iter().enumerate().filter(|(_, wrong)| **wrong) {
        *by_node.entry(nodes.value(row)).or_default() += 1;
    }
    implausible.extend(by_node.into_iter().map(|(node, rows)| (node.into(), rows)));
    Ok(())
}

/// The attributes with one more entry in the rows where `value` gives one.
fn with_attribute(
    attributes: Option<&ArrayRef>,
    rows: usize,
    key: &str,
    value: impl Fn(usize) -> Option<String>,
) -> Result<ArrayRef, AdmitError> {
    let names = MapFieldNames { entry: "entries".to_owned(), key: "keys".to_owned(), value: "values".to_owned() };
    let mut built = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    let old: Option<&MapArray> = attributes.and_then(|attributes| attributes.as_map_opt());
    for row in 0..rows {
        let before = old.filter(|old| old.is_valid(row)).map(|old| old.value(row));
        let added = value(row);
        let is_valid = before.is_some() || added.is_some();
        if let Some(entries) = before {
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            for (have, value) in keys.iter().zip(values).filter(|(have, _)| *have != Some(key)) {
                built.keys().append_value(have.unwrap_or_default());
                built.values().append_option(value);
            }
        }
        if let Some(added) = added {
            built.keys().append_value(key);
            built.values().append_value(added);
        }
        built.append(is_valid)?;
    }
    Ok(Arc::new(built.finish()))
}

/// Who made the identity of some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Senders,
    Gateways,
}

/// Checks `batch` and `seq` as sent, or gives the rows the request's identity and the next numbers.
fn identify(
    columns: &mut Columns,
    layout: &Layout,
    batch: BatchId,
    next_seq: &mut i64,
) -> Result<Identity, AdmitError> {
    let (batch_place, seq_place) = (layout.place(schema::BATCH), layout.place(schema::SEQ));
    let sent = columns.at(batch_place).zip(columns.at(seq_place));
    if let Some((batches, seqs)) = sent.filter(|(batch, seq)| batch.null_count() == 0 && seq.null_count() == 0) {
        let mut good = "";
        for batch in batches.as_string::<i32>().iter().flatten() {
            if batch != good && BatchId::from_hex(batch).is_none() {
                return Err(AdmitError::Identity);
            }
            good = batch;
        }
        let positive = seqs.as_primitive::<Int64Type>().values().iter().all(|seq| *seq >= 0);
        return if positive { Ok(Identity::Senders) } else { Err(AdmitError::Identity) };
    }
    let end = *next_seq + columns.rows as i64;
    columns.set(batch_place, Arc::new(constant(&batch.to_hex(), columns.rows)?));
    columns.set(seq_place, Arc::new(Int64Array::from_iter_values(*next_seq..end)));
    *next_seq = end;
    Ok(Identity::Gateways)
}

/// Sets `source` such that [`is_gateway_source`] tells who made the identity: `arrow/ipc` or `arrow/<as sent>` if the gateway
/// did, `arrow+id/ipc` or as sent if the sender did. By that the processor knows how long a batch is worth remembering.
fn name_source(columns: &mut Columns, layout: &Layout, source: &str, identity: Identity) -> Result<(), AdmitError> {
    let place = layout.place(schema::SOURCE);
    let sent = columns.at(place).filter(|sent| sent.null_count() == 0);
    let named = match (sent, identity) {
        (Some(_), Identity::Senders) => return Ok(()),
        (None, Identity::Senders) => constant(&source.replacen('/', "+id/", 1), columns.rows)?,
        (None, Identity::Gateways) => constant(source, columns.rows)?,
        (Some(sent), Identity::Gateways) => {
            let door = source.split('/').next().unwrap_or_default();
            let named = |sent: &str| if is_gateway_source(sent) { sent.to_owned() } else { format!("{door}/{sent}") };
            sent.as_string::<i32>().iter().map(|sent| sent.map(named)).collect()
        }
    };
    columns.set(place, Arc::new(named));
    Ok(())
}

/// Where one node's rows go.
#[derive(Debug)]
struct Home {
    region: Arc<str>,
    site: Arc<str>,
    partition: i32,
}

/// The homes of some rows.
#[derive(Debug)]
struct Placed {
    homes: Vec<Home>,
    // Index in `homes` by row; empty where all rows have the first home.
    of_row: Vec<u32>,
}

/// Looks up each distinct node once, or twice where rows of before a move are among the others.
fn place(
    nodes: &StringArray,
    rows: usize,
    is_old: impl Fn(usize) -> bool,
    admission: &Admission,
    missing: &mut Vec<(Box<str>, u64)>,
) -> Placed {
    let unassigned: Arc<str> = Arc::from(UNASSIGNED);
    let mut homes = Vec::new();
    let mut unknown: Vec<Option<u64>> = Vec::new(); // rows of a node without a place, by home
    let mut look_up = |(node, is_old): (&str, bool)| {
        let found = admission.inventory.place(node);
        let before = admission.before.filter(|_| is_old);
        let (region, site) = match before.map_or(found, |before| before.inventory.place(node)) {
            Some(found) => (Arc::clone(&found.region), Arc::clone(&found.site)),
            None => (Arc::clone(&unassigned), Arc::clone(&unassigned)),
        };
        homes.push(Home { partition: partition_of(&site, admission.partitions), region, site });
        unknown.push(found.is_none().then_some(0));
        (homes.len() - 1) as u32
    };

    let mut by_node: HashMap<(&str, bool), u32, RandomState> = HashMap::default();
    let mut of_row: Vec<u32> = Vec::new();
    let first = (nodes.value(0), is_old(0));
    let mut last = (first, look_up(first));
    for row in 1..rows {
        let node = (nodes.value(row), is_old(row));
        if node != last.0 {
            if of_row.is_empty() {
                by_node.insert(last.0, last.1);
                of_row = vec![last.1; row];
            }
            last = (node, *by_node.entry(node).or_insert_with(|| look_up(node)));
        }
        if !of_row.is_empty() {
            of_row.push(last.1);
        }
    }

    match of_row.as_slice() {
        [] => unknown[0] = unknown[0].map(|_| rows as u64),
        of_row => of_row.iter().for_each(|home| {
            if let Some(rows) = &mut unknown[*home as usize] {
                *rows += 1;
            }
        }),
    }
    if by_node.is_empty() {
        by_node.insert(last.0, last.1);
    }
    missing.extend(by_node.iter().filter_map(|((node, _), home)| Some(((*node).into(), unknown[*home as usize]?))));
    Placed { homes, of_row }
}

impl Placed {
    /// Sets `region` and `site`.
    fn fill(&self, columns: &mut Columns, layout: &Layout) -> Result<(), AdmitError> {
        let text = |of: fn(&Home) -> &str| -> Result<ArrayRef, AdmitError> {
            let text = match self.of_row.as_slice() {
                [] => constant(of(&self.homes[0]), columns.rows)?,
                of_row => of_row.iter().map(|home| Some(of(&self.homes[*home as usize]))).collect(),
            };
            Ok(Arc::new(text))
        };
        let (region, site) = (text(|home| &home.region)?, text(|home| &home.site)?);
        columns.set(layout.place(schema::REGION), region);
        columns.set(layout.place(schema::SITE), site);
        Ok(())
    }

    /// Hands out the rows by partition, in their order; copies only where there is more than one.
    fn split(&self, columns: Columns, layout: &Arc<Layout>, parts: &mut Vec<Part>) -> Result<(), AdmitError> {
        let first = self.homes[0].partition;
        if self.homes.iter().all(|home| home.partition == first) {
            parts.push(Part { partition: first, layout: Arc::clone(layout), rows: columns });
            return Ok(());
        }
        let mut rows_of: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, home) in (0u32..).zip(&self.of_row) {
            rows_of.entry(self.homes[*home as usize].partition).or_default().push(row);
        }
        for (partition, rows) in rows_of {
            let rows = columns.take(&UInt32Array::from(rows))?;
            parts.push(Part { partition, layout: Arc::clone(layout), rows });
        }
        Ok(())
    }
}

/// A column of times, in microseconds UTC.
fn times(values: Vec<Micros>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(values).with_timezone("UTC")
}

/// A column with the same text in each row.
fn constant(text: &str, rows: usize) -> Result<StringArray, AdmitError> {
    let bytes = text.len().checked_mul(rows).filter(|bytes| i32::try_from(*bytes).is_ok());
    if bytes.is_none() {
        return Err(AdmitError::TooManyRows);
    }
    let offsets = OffsetBuffer::from_repeated_length(text.len(), rows);
    Ok(StringArray::try_new(offsets, Buffer::from_vec(text.repeat(rows).into_bytes()), None)?)
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
