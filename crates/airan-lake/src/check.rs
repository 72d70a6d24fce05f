//! `Lake::check`: does everything that K1, K2 and S1 promise hold in what lies in the store?
//!
//! Reads every record, every Delta log and every live file whole, and nothing that this process remembers. Safe beside running
//! writers, publishers and rewritings: what they add or take meanwhile is left out.

mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use object_store::path::Path;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

pub use self::report::{CheckReport, Problem, Repair};
use self::report::{LOG, NEVER, NOTE, PASS, PUBLISH, RECORDS_FIRST, RESTORE};
use crate::claim::read_state;
use crate::delta::DeltaTable;
use crate::files::{Live, Places, is_above, named, read_live};
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::lost::{Trimmed, table_of};
use crate::record::{self, ReadError, Record};
use crate::schema;
use crate::seal::Checksum;

impl Lake {
    /// Verifies S1, K1 and K2 over the whole lake.
    ///
    /// # Errors
    /// If the store does not answer. What is wrong with the lake is no error but in the report.
    pub async fn check(&self) -> Result<CheckReport, ReadError> {
        let mut report = CheckReport::default();
        // In this order: names, records, logs. What is named when it is listed and by nothing read later counts no more.
        let tables = self.tables().await?;
        let placed = self.placed(&tables).await?;
        let mut unpublished = Vec::new();
        let mut newest = HashMap::new();
        let mut trimmed = Trimmed::new(self.store());
        let mut written = BTreeSet::new();
        for shard in record::shards(self.store()).await? {
            report.shards += 1;
            let records = self.check_records(&shard, &mut trimmed, &mut report).await?;
            newest.insert(shard, records.last().map_or(0, |record| record.n));
            written.extend(records.last().into_iter().flat_map(|record| record.newest_ts.keys().cloned()));
            unpublished.extend(records.iter().flat_map(named));
        }
        let deltas = self.check_deltas(&tables, &newest, &mut report).await?;
        // A table that was written to has a record with its files, or those were published and the record trimmed.
        let logs: Vec<_> = written.into_iter().filter(|table| !deltas.contains_key(table)).collect();
        for table in logs.iter().filter(|table| !unpublished.iter().any(|live| live.file.table == **table)) {
            let path = layout::delta_log(table);
            if !report.problems.iter().any(|problem| problem.path == path.as_ref()) {
                report.add("S1", path, "the table's records are trimmed, and it has no Delta log", LOG);
            }
        }
        match self.raw_from().await {
            Err(ReadError::Damaged(damaged)) => report.add("W2", damaged.path, damaged.reason, NOTE),
            noted => drop(noted?),
        }
        let lost = trimmed.lost(&placed, |table| deltas.contains_key(table));
        for table in &lost {
            let path = layout::delta_log(table);
            if !report.problems.iter().any(|problem| problem.path == path.as_ref()) {
                report.add("S1", path, "it is gone, and files of the table that only it can name are there", LOG);
            }
        }
        unpublished.retain(|live| is_above(&deltas, live));
        let mut live: Vec<Live> = deltas.values().flat_map(DeltaTable::files).cloned().collect();
        report.published = live.len() as u64;
        live.extend(unpublished);
        let mut all = HashSet::new();
        for file in &live {
            if !all.insert(file.file.path.as_str()) {
                report.add("S1", &file.file.path, "it is named twice", NEVER);
            }
        }
        let places = Places::find(self.store()).await?;
        for file in &live {
            let newest = file.shard().and_then(|shard| newest.get(&shard).copied()).unwrap_or_default();
            self.check_file(file, &places, newest, &mut report).await?;
        }
        // What no log can tell of is no file that nothing names.
        let told: Vec<Path> = placed.into_iter().filter(|path| !lost.contains(table_of(path))).collect();
        self.check_places(&told, &all, &live, &newest, &mut report).await?;
        Ok(report)
    }

    /// The Parquet files at the places of tables.
    async fn placed(&self, tables: &[String]) -> Result<Vec<Path>, ReadError> {
        let mut placed = Vec::new();
        for table in tables {
            let listed = self.store().list(&Path::from(table.as_str())).await?;
            placed.extend(listed.into_iter().map(|meta| meta.location).filter(layout::is_place));
        }
        Ok(placed)
    }

    /// Each table's schema and Delta log can be read, and no `txn` is ahead of its shard (K1).
    async fn check_deltas(
        &self,
        tables: &[String],
        newest: &HashMap<Shard, u64>,
        report: &mut CheckReport,
    ) -> Result<BTreeMap<String, DeltaTable>, ReadError> {
        let mut deltas = BTreeMap::new();
        for table in tables {
            match schema::load(self.store(), table).await {
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(error) => report.add("S1", layout::schemas(table), error, RESTORE),
                Ok(_) => {}
            }
            let delta = match DeltaTable::read(self, table).await {
                Ok(Some(delta)) => delta,
                Ok(None) => continue,
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    report.add("S1", layout::delta_log(table), error, LOG);
                    continue;
                }
            };
            report.deltas += 1;
            for (shard, txn) in delta.txns() {
                // The log was read after the records: a shard may have gone on.
                let n = newest.get(&shard).copied().unwrap_or_default();
                if txn > n && record::newest(self.store(), &shard).await?.is_none_or(|record| txn > record.n) {
                    let what = format!("it has record {txn} of {shard}, of which the newest is {n}");
                    report.add("K1", layout::delta_log(table), what, NEVER);
                }
            }
            deltas.insert(table.clone(), delta);
        }
        Ok(deltas)
    }

    /// K1 and K2 of one shard.
    async fn check_records(
        &self,
        shard: &Shard,
        trimmed: &mut Trimmed,
        report: &mut CheckReport,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records: Vec<Record> = Vec::new();
        let listed = match record::listed(self.store(), shard).await {
            Err(ReadError::Store(error)) => return Err(error.into()),
            Err(_) => record::listed_once(self.store(), shard).await?,
            Ok(listed) => listed,
        };
        trimmed.add(shard, listed.trimmed);
        let mut expected = listed.trimmed + 1;
        for n in listed.numbers {
            let path = shard.record(n);
            if n != expected {
                report.add("K1", &path, "a record before it is missing", NEVER);
            }
            expected = n + 1;
            let record = match record::read(self.store(), shard, n).await {
                Ok(Some((record, _))) => record,
                Ok(None) => continue,
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    report.add("K1", &path, error, RESTORE);
                    continue;
                }
            };
            report.records += 1;
            if (record.shard(), record.n) != (shard.clone(), n) {
                report.add("K1", &path, format!("it says it is {} of {}", record.n, record.shard()), NEVER);
            }
            if let Some(before) = records.last() {
                self.check_step(before, &record, report);
            }
            records.push(record);
        }
        match records.last() {
            Some(Record { state: Some(state), .. }) => match read_state(self.store(), state).await {
                Err(ReadError::Store(error)) => return Err(error.into()),
                // A writer that has gone on meanwhile has removed it.
                Err(error) if record::newest(self.store(), shard).await?.as_ref() == records.last() => {
                    report.add("K1", &state.path, error, RESTORE);
                }
                _ => {}
            },
            Some(Record { next_offset: Some(_), n, .. }) => {
                report.add("K1", shard.record(*n), "it has an offset and no state", NEVER);
            }
            None if listed.trimmed > 0 => {
                report.add("K1", shard.trimmed(listed.trimmed), "no record after the trimmed ones", RESTORE);
            }
            _ => {}
        }
        Ok(records)
    }

    fn check_step(&self, before: &Record, record: &Record, report: &mut CheckReport) {
        let path = record.shard().record(record.n);
        if record.next_offset < before.next_offset {
            report.add("K1", &path, "its offset is below the one before", NEVER);
        }
        if record.partitions != before.partitions {
            report.add("K1", &path, "its partition count is another", NEVER);
        }
        let is_claim = record.claim != before.claim;
        let repeats = (record.next_offset, &record.state) == (before.next_offset, &before.state);
        if is_claim != record.takes || (is_claim && !(record.files.is_empty() && repeats)) {
            report.add("K2", &path, "a claim that is not what stood before it, or does not say that it is one", NEVER);
        }
    }

    /// S1 from the side of what is named: it is there and is what was said of it.
    async fn check_file(
        &self,
        live: &Live,
        places: &Places,
        newest: u64,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let mut path = places.of(self.store(), live).await?;
        report.files += 1;
        report.rows += live.file.rows;
        report.bytes += live.file.bytes;
        if path != live.stored(self.store()) && live.origin.is_some_and(|origin| origin.n < newest) {
            report.add("S1", &path, "it still waits in staging", PUBLISH);
        }
        let place = Path::from(live.file.path.as_str());
        // A file loses its place first, and its held name a day later.
        if live.published
            && path != place
            && self.store().size(&path).await?.is_none()
            && self.store().size(&place).await?.is_some()
        {
            let what = "the name is gone by which Delta and queries read a file, and its place is there";
            report.add("S1", &path, what, PASS);
            path = place;
        }
        let bytes = match read_live(self, &path, live).await {
            Ok(bytes) => bytes,
            // Retention or a rewriting has taken it out meanwhile.
            Err(ReadError::Gone { .. }) => return Ok(()),
            Err(ReadError::Damaged(damaged)) => {
                report.add("S1", &path, damaged.reason, RESTORE);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 != live.file.bytes || Checksum::of(&bytes) != live.file.checksum {
            report.add("S1", &path, "its size or checksum is not what was recorded", RESTORE);
            return Ok(());
        }
        let rows = SerializedFileReader::new(bytes).map(|reader| reader.metadata().file_metadata().num_rows());
        match rows {
            Ok(rows) if rows as u64 == live.file.rows => {}
            Ok(rows) => {
                report.add("S1", &path, format!("it holds {rows} rows, {} are recorded", live.file.rows), NEVER)
            }
            Err(error) => report.add("S1", &path, error, RESTORE),
        }
        Ok(())
    }

    /// S1 from the tables' side: nothing lies at a place that nothing names; on a local disk everything published has one.
    async fn check_places(
        &self,
        placed: &[Path],
        named: &HashSet<&str>,
        live: &[Live],
        newest: &HashMap<Shard, u64>,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let most = newest.values().copied().max().unwrap_or_default();
        let repair = match report.problems.iter().any(|problem| problem.path.starts_with(layout::COMMITS)) {
            true => RECORDS_FIRST,
            false => PASS,
        };
        for path in placed.iter().filter(|path| !named.contains(path.as_ref())) {
            // On an object store one above the newest record may be a commit at work.
            let is_settled = layout::commit_number(path).is_none_or(|n| n <= most);
            match self.store().staged() {
                true if self.store().size(path).await?.is_some() => {
                    report.add("S1", path, "nothing names it, and a glob reads it", repair);
                }
                false if layout::is_ours(path) && is_settled => report.orphans += 1,
                _ => {}
            }
        }
        if self.store().staged() {
            let placed: HashSet<&str> = placed.iter().map(Path::as_ref).collect();
            for live in live.iter().filter(|live| live.published && !placed.contains(live.file.path.as_str())) {
                let place = Path::from(live.file.path.as_str());
                let is_there = self.store().size(&place).await?.is_some();
                let is_readable = self.store().size(&live.stored(self.store())).await?.is_some();
                if !is_there && is_readable {
                    report.add("S1", &place, "it counts, and a glob misses it", PASS);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
