//! Retention: what is too old, or too much, is taken out in two steps.
//!
//! 1. An **expire record** `_expired/<e>.json` is created with put-if-absent. From then on no reader counts the files it
//!    names. It is cumulative: only the newest one matters. Files are named as "of this table, date and shard, those of
//!    records up to `n`", which is exact, because records never change, and stays small.
//! 2. The files are deleted, and `_expired/<e>.done` says so. A crash between the two is finished by the next pass.
//!
//! Records at the old end of a shard of which nothing is live any more are trimmed, oldest first; the newest two stay. On
//! object stores a pass also clears up what dead writers left (`orphans`).

use std::collections::{BTreeMap, HashMap};

use airan_model::time::Micros;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::commit::TableKind;
use crate::files::{Live, named};
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::orphans;
use crate::record::{self, RECORD_VERSION, ReadError, Record};
use crate::schema;
use crate::seal::{Damaged, seal, unseal};
use crate::store::{Created, Store};

/// What one pass of retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpireReport {
    /// Files taken out.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of the files that stay.
    pub kept_bytes: u64,
    /// Bytes above the bound that could not go, because open windows need them.
    pub over_bytes: u64,
    /// Commit records trimmed.
    pub records: u64,
    /// Files of dead writers removed, of which no record ever knew.
    pub orphans: u64,
    /// True if another process took files out at the same time, and this pass left it the work.
    pub gave_way: bool,
}

/// Of one table, date and shard: the files of records up to `through`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Span {
    table: String,
    date: i32,
    topic: String,
    partition: i32,
    through: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ExpireRecord {
    version: u32,
    e: u64,
    at: Micros,
    /// Everything taken out that a record still names.
    spans: Vec<Span>,
    /// What this record added, to be deleted.
    paths: Vec<String>,
}

/// What has been taken out so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expired {
    e: u64,
    spans: HashMap<(String, i32, Shard), u64>,
    /// Of the newest expire record.
    pub(crate) paths: Vec<String>,
}

impl Expired {
    /// The last record of which the files of this table, date and shard are out.
    pub(crate) fn through(&self, table: &str, date: i32, shard: &Shard) -> Option<u64> {
        match self.spans.is_empty() {
            true => None,
            false => self.spans.get(&(table.to_owned(), date, shard.clone())).copied(),
        }
    }

    /// Number of the newest expire record; 0 where there is none.
    pub(crate) fn number(&self) -> u64 {
        self.e
    }

    fn take(&mut self, live: &Live) {
        let key = (live.file.table.clone(), live.date, live.shard.clone());
        let through = self.spans.entry(key).or_default();
        *through = live.n.max(*through);
    }

    fn spans(&self) -> Vec<Span> {
        let span = |((table, date, shard), through): (&(String, i32, Shard), &u64)| Span {
            table: table.clone(),
            date: *date,
            topic: shard.topic.clone(),
            partition: shard.partition,
            through: *through,
        };
        let mut spans: Vec<Span> = self.spans.iter().map(span).collect();
        spans.sort();
        spans
    }
}

/// The newest expire record; empty where there is none.
pub(crate) async fn newest(store: &Store) -> Result<Expired, ReadError> {
    loop {
        let listed = store.list(&Path::from(layout::EXPIRED)).await?;
        let Some(e) = listed.iter().filter_map(|meta| layout::number(&meta.location, ".json")).max() else {
            return Ok(Expired::default());
        };
        let path = layout::expired(e);
        // Gone meanwhile: there is a newer one.
        let Some(bytes) = store.read(&path).await? else { continue };
        let record: ExpireRecord = unseal(&path, &bytes)?;
        if record.version > RECORD_VERSION {
            return Err(ReadError::Newer { path: path.to_string(), version: record.version });
        }
        let key = |span: Span| {
            let shard = Shard { topic: span.topic, partition: span.partition };
            ((span.table, span.date, shard), span.through)
        };
        return Ok(Expired { e, spans: record.spans.into_iter().map(key).collect(), paths: record.paths });
    }
}

impl Lake {
    /// Takes out what is older than the retention of its kind of table (by the newest time in the file), and then, while
    /// the lake is above its bound, the oldest dates, raw tables first. Deletes what this or an interrupted pass took out.
    ///
    /// `needed_from`: start of the oldest open window of any shard. No raw file with a row at or after it goes.
    ///
    /// Files of readers that are at work are not spared: a query over what has just expired may fail.
    ///
    /// # Errors
    /// If the store does not answer; nothing is half-done, the next pass goes on.
    pub async fn expire(&self, now: Micros, needed_from: Option<Micros>) -> Result<ExpireReport, ReadError> {
        let mut expired = newest(self.store()).await?;
        self.delete_expired(&expired).await?;
        let mut shards = Vec::new();
        for shard in record::shards(self.store()).await? {
            let records = record::all(self.store(), &shard).await?;
            shards.push((shard, records));
        }
        let mut live: Vec<Live> = Vec::new();
        for (shard, records) in &shards {
            live.extend(records.iter().flat_map(|record| named(shard, record.clone())));
        }
        live.retain(|file| !expired.contains(file));
        let mut report = ExpireReport::default();
        let kinds = self.kinds(&live).await?;
        let taken = self.choose(live, &kinds, now, needed_from, &mut expired, &mut report);
        if !taken.is_empty() && !self.take_out(&mut expired, &shards, &taken, now).await? {
            return Ok(ExpireReport { gave_way: true, ..ExpireReport::default() });
        }
        self.metrics().expired_files.inc_by(report.files);
        self.metrics().expired_bytes.inc_by(report.bytes);
        report.orphans = orphans::remove(self.store(), &self.tables().await?, &shards, now).await?;
        self.metrics().orphans.inc_by(report.orphans);
        for (shard, records) in &shards {
            report.records += self.trim(shard, records, &expired).await?;
        }
        Ok(report)
    }

    async fn kinds(&self, live: &[Live]) -> Result<HashMap<String, TableKind>, ReadError> {
        let mut kinds = HashMap::new();
        for file in live {
            if !kinds.contains_key(&file.file.table) {
                let schema = schema::load(self.store(), &file.file.table).await?;
                kinds.insert(file.file.table.clone(), schema.map_or(TableKind::Raw, |schema| schema.kind));
            }
        }
        Ok(kinds)
    }

    /// The files to go, marked in `expired`. Of one table, date and shard always the oldest records' files go first, so
    /// that a span says exactly what is out.
    fn choose(
        &self,
        mut live: Vec<Live>,
        kinds: &HashMap<String, TableKind>,
        now: Micros,
        needed_from: Option<Micros>,
        expired: &mut Expired,
        report: &mut ExpireReport,
    ) -> Vec<Live> {
        let settings = self.settings();
        let is_raw = |live: &Live| kinds.get(&live.file.table).is_none_or(|kind| *kind == TableKind::Raw);
        let is_needed = |live: &Live| is_raw(live) && needed_from.is_some_and(|from| live.file.max_ts >= from);
        let is_old = |live: &Live| {
            let retention = if is_raw(live) { settings.raw_retention } else { settings.window_retention };
            live.file.max_ts < now.saturating_sub(retention.micros())
        };
        live.sort_by_key(|live| (live.date, !is_raw(live), live.at, live.n));
        let mut bytes: u64 = live.iter().map(|live| live.file.bytes).sum();
        let bound = settings.max_bytes.map_or(u64::MAX, |bytes| bytes.get());
        // Of each table, date and shard: the lowest record that must stay. Only what is before it may go.
        let mut held: BTreeMap<(String, i32, Shard), u64> = BTreeMap::new();
        for file in live.iter().filter(|live| is_needed(live)) {
            let least = held.entry((file.file.table.clone(), file.date, file.shard.clone())).or_insert(file.n);
            *least = file.n.min(*least);
        }
        let is_free = |live: &Live| {
            held.get(&(live.file.table.clone(), live.date, live.shard.clone())).is_none_or(|least| live.n < *least)
        };
        // By age: files that are followed, within their span, only by ones that stay may not be skipped over.
        let mut stop: BTreeMap<(String, i32, Shard), u64> = BTreeMap::new();
        for file in live.iter().filter(|live| !is_old(live)) {
            let least = stop.entry((file.file.table.clone(), file.date, file.shard.clone())).or_insert(file.n);
            *least = file.n.min(*least);
        }
        let is_past_age = |live: &Live| {
            let key = (live.file.table.clone(), live.date, live.shard.clone());
            is_old(live) && stop.get(&key).is_none_or(|least| live.n < *least)
        };
        for file in live.iter().filter(|live| is_free(live) && is_past_age(live)) {
            expired.take(file);
        }
        let (mut taken, mut kept): (Vec<Live>, Vec<Live>) = live.into_iter().partition(|live| expired.contains(live));
        bytes -= taken.iter().map(|live| live.file.bytes).sum::<u64>();
        // Where needed raw rows alone are over the bound, no window is given up for a bound that cannot be kept.
        let needed: u64 = kept.iter().filter(|live| !is_free(live)).map(|live| live.file.bytes).sum();
        for at in 0..kept.len() {
            if bytes <= bound {
                break;
            }
            if needed > bound && !is_raw(&kept[at]) {
                continue;
            }
            if !is_free(&kept[at]) || expired.contains(&kept[at]) {
                continue;
            }
            expired.take(&kept[at]);
            let file = &kept[at];
            let same = |live: &&Live| {
                (&live.file.table, live.date, &live.shard) == (&file.file.table, file.date, &file.shard)
                    && live.n <= file.n
                    && !taken.iter().any(|out| out.file.path == live.file.path)
            };
            let gone: Vec<Live> = kept.iter().filter(same).cloned().collect();
            bytes -= gone.iter().map(|live| live.file.bytes).sum::<u64>();
            taken.extend(gone);
        }
        kept.retain(|live| !expired.contains(live));
        report.files = taken.len() as u64;
        report.rows = taken.iter().map(|live| live.file.rows).sum();
        report.bytes = taken.iter().map(|live| live.file.bytes).sum();
        report.kept_bytes = bytes;
        report.over_bytes = bytes.saturating_sub(bound);
        taken
    }

    /// Step 1, then step 2. `false`: another process made the same expire record first.
    async fn take_out(
        &self,
        expired: &mut Expired,
        shards: &[(Shard, Vec<Record>)],
        taken: &[Live],
        now: Micros,
    ) -> Result<bool, ReadError> {
        // Spans that no record names any more say nothing.
        let mut named_spans: HashMap<(String, i32, Shard), ()> = HashMap::new();
        for (shard, records) in shards {
            for live in records.iter().flat_map(|record| named(shard, record.clone())) {
                named_spans.insert((live.file.table, live.date, live.shard), ());
            }
        }
        expired.spans.retain(|key, _| named_spans.contains_key(key));
        expired.paths = taken.iter().map(|live| live.file.path.clone()).collect();
        expired.e += 1;
        let record = ExpireRecord {
            version: RECORD_VERSION,
            e: expired.e,
            at: now,
            spans: expired.spans(),
            paths: expired.paths.clone(),
        };
        let path = layout::expired(expired.e);
        let bytes = seal(&record).map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })?;
        let put = self.store().create(&path, bytes.clone()).await;
        if !matches!(put, Ok(Created::New)) {
            match (self.store().read(&path).await?, put) {
                (Some(found), _) if found == bytes => {}
                (None, Err(error)) => return Err(error.into()),
                _ => return Ok(false),
            }
        }
        self.delete_expired(expired).await?;
        Ok(true)
    }

    /// Step 2 of the newest expire record, unless it is done.
    async fn delete_expired(&self, expired: &Expired) -> Result<(), ReadError> {
        let done = layout::expired_done(expired.e);
        if expired.e == 0 || self.store().size(&done).await?.is_some() {
            return Ok(());
        }
        for path in &expired.paths {
            self.store().remove(&Path::from(path.as_str())).await?;
        }
        self.store().create(&done, bytes::Bytes::new()).await?;
        for meta in self.store().list(&Path::from(layout::EXPIRED)).await? {
            let e = layout::number(&meta.location, ".json").or(layout::number(&meta.location, ".done"));
            if e.is_some_and(|e| e < expired.e) {
                self.store().remove(&meta.location).await?;
            }
        }
        Ok(())
    }

    /// Removes records from the old end of which every file is out, so that the rest has no gap. The newest two stay.
    async fn trim(&self, shard: &Shard, records: &[Record], expired: &Expired) -> Result<u64, ReadError> {
        let mut trimmed = 0;
        let is_out = |record: &Record| named(shard, record.clone()).all(|live| expired.contains(&live));
        for record in records.iter().take(records.len().saturating_sub(2)).take_while(|record| is_out(record)) {
            self.store().remove(&shard.record(record.n)).await?;
            trimmed += 1;
        }
        Ok(trimmed)
    }
}

#[cfg(test)]
#[path = "expire_tests.rs"]
mod tests;
