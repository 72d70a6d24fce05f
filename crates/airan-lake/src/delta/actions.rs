//! Delta's actions and this crate's files: what stands in an `add`, in a `remove`, and in a `txn`.
//!
//! An `add` carries everything its record said of the file, in tags named `airan.…`, so that a record can go when its
//! files are published; and Delta's own statistics (rows, the range of the time column), by which engines skip files.

use std::collections::HashMap;

use airan_model::time::Micros;
use deltalake::kernel::{Add, Protocol, Remove, Transaction};
use serde_json::json;

use super::{Tombstone, delta_path, place_of};
use crate::files::{Live, Origin};
use crate::layout::{self, Shard};
use crate::record::RecordFile;
use crate::schema::DATE;
use crate::seal::Checksum;

const TOPIC: &str = "airan.topic";
const PARTITION: &str = "airan.partition";
const N: &str = "airan.n";
const AT: &str = "airan.at";
const CHECKSUM: &str = "airan.checksum";
const ROWS: &str = "airan.rows";
const MIN_TS: &str = "airan.min_ts";
const MAX_TS: &str = "airan.max_ts";
const SPAN: &str = "airan.span";
/// What a `txn` of a shard is called.
const APP: &str = "airan/";
/// Highest protocol this release reads. A higher one was written by another program, which may also keep rows in ways
/// (deletion vectors) that our readers would miss.
const READER_VERSION: i32 = 1;

/// The application id of a shard's `txn`.
pub(super) fn app_of(shard: &Shard) -> String {
    format!("{APP}{}/{}", shard.topic, shard.partition)
}

/// The shard of an application id; `None` for somebody else's.
pub(super) fn shard_of(app: &str) -> Option<Shard> {
    let (topic, partition) = app.strip_prefix(APP)?.rsplit_once('/')?;
    Some(Shard { topic: topic.to_owned(), partition: partition.parse().ok()? })
}

pub(super) fn txn(shard: &Shard, n: u64, now: Micros) -> Transaction {
    Transaction::new_with_last_update(app_of(shard), i64::try_from(n).unwrap_or(i64::MAX), Some(now / 1_000))
}

/// The `add` of a file. `data_change` is false where its rows were in the table before.
pub(super) fn add(table: &str, staged: bool, time_column: &str, live: &Live, data_change: bool) -> Add {
    let file = &live.file;
    let mut tags = vec![
        (TOPIC, live.topic.clone()),
        (AT, live.at.to_string()),
        (CHECKSUM, file.checksum.to_string()),
        (ROWS, file.rows.to_string()),
        (MIN_TS, file.min_ts.to_string()),
        (MAX_TS, file.max_ts.to_string()),
    ];
    if let Some(origin) = live.origin {
        tags.push((PARTITION, origin.partition.to_string()));
        tags.push((N, origin.n.to_string()));
    }
    if let Some(span) = live.span.as_ref().and_then(|span| serde_json::to_string(span).ok()) {
        tags.push((SPAN, span));
    }
    let stats = json!({
        "numRecords": file.rows,
        "minValues": {time_column: instant(file.min_ts)},
        "maxValues": {time_column: instant(file.max_ts)},
        "nullCount": {time_column: 0},
    });
    Add {
        path: delta_path(table, staged, &file.path),
        partition_values: date_value(live.date),
        size: signed(file.bytes),
        modification_time: live.at / 1_000,
        data_change,
        stats: Some(stats.to_string()),
        tags: Some(tags.into_iter().map(|(name, value)| (name.to_owned(), Some(value))).collect()),
        ..Add::default()
    }
}

/// The `remove` of a published file.
pub(super) fn remove(table: &str, staged: bool, live: &Live, data_change: bool, now: Micros) -> Remove {
    Remove {
        path: delta_path(table, staged, &live.file.path),
        data_change,
        deletion_timestamp: Some(now / 1_000),
        extended_file_metadata: Some(true),
        partition_values: Some(date_value(live.date)),
        size: Some(signed(live.file.bytes)),
        ..Remove::default()
    }
}

/// The file of an `add`; otherwise what is wrong with it.
pub(super) fn live(table: &str, staged: bool, add: &Add) -> Result<Live, String> {
    if add.deletion_vector.is_some() {
        return Err(format!("{} has a deletion vector, which no release of airan writes", add.path));
    }
    let foreign = || format!("{} was added by another program; only airan may write to this table", add.path);
    let tags = add.tags.as_ref().ok_or_else(foreign)?;
    let tag = |name: &str| tags.get(name).and_then(Option::as_deref);
    let number = |name: &str| tag(name).and_then(|text| text.parse::<i64>().ok()).ok_or_else(foreign);
    let count = |name: &str| tag(name).and_then(|text| text.parse::<u64>().ok());
    let path = place_of(table, staged, &add.path);
    let min_ts = number(MIN_TS)?;
    let origin = match (tag(PARTITION).and_then(|text| text.parse().ok()), count(N)) {
        (Some(partition), Some(n)) => Some(Origin { partition, n }),
        _ => None,
    };
    Ok(Live {
        topic: tag(TOPIC).ok_or_else(foreign)?.to_owned(),
        origin,
        at: number(AT)?,
        date: layout::date_in(&path).unwrap_or_else(|| layout::date_of(min_ts)),
        published: true,
        span: tag(SPAN).and_then(|text| serde_json::from_str(text).ok()),
        file: RecordFile {
            table: table.to_owned(),
            path,
            rows: count(ROWS).ok_or_else(foreign)?,
            bytes: u64::try_from(add.size).map_err(|error| error.to_string())?,
            min_ts,
            max_ts: number(MAX_TS)?,
            checksum: Checksum::from_text(tag(CHECKSUM).ok_or_else(foreign)?),
        },
    })
}

pub(super) fn tombstone(table: &str, staged: bool, remove: &Remove) -> Tombstone {
    Tombstone {
        path: place_of(table, staged, &remove.path),
        bytes: remove.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        at: remove.deletion_timestamp.unwrap_or_default().saturating_mul(1_000),
    }
}

pub(super) fn check_protocol(protocol: &Protocol) -> Result<(), String> {
    match protocol.min_reader_version() {
        version if version <= READER_VERSION => Ok(()),
        version => Err(format!(
            "another program has raised the table's protocol to reader version {version}; this release reads up to \
             {READER_VERSION}"
        )),
    }
}

fn date_value(date: i32) -> HashMap<String, Option<String>> {
    HashMap::from([(DATE.to_owned(), Some(layout::date_text(date)))])
}

/// ISO 8601 in UTC with microseconds, as Delta's statistics have times.
fn instant(at: Micros) -> String {
    let exact = chrono::DateTime::from_timestamp_micros(at);
    exact.map(|at| at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()).unwrap_or_default()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
