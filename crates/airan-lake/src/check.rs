//! `Lake::check`: does everything that K1, K2 and S1 promise hold in what lies in the store?
//!
//! Reads every record and every live file whole. Safe beside running writers: what they add meanwhile is left out.

use std::collections::{HashMap, HashSet};

use object_store::path::Path;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use crate::claim::read_state;
use crate::expire;
use crate::files::{Live, Places, named, read_live};
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::{self, ReadError, Record};
use crate::schema;
use crate::seal::Checksum;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Shards.
    pub shards: u64,
    /// Commit records.
    pub records: u64,
    /// Files that count.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Parquet files in object-store tables that no record names: left by crashes, harmless to every exact reader.
    pub orphans: u64,
    /// What is wrong; empty in a sound lake.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `K1`, `K2` or `S1`.
    pub invariant: &'static str,
    /// Where.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub repair: &'static str,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}; {}", self.invariant, self.path, self.what, self.repair)
    }
}

const RESTORE: &str = "restore it from a copy of the lake; its rows are read again only if the bus still holds them";
const NEVER: &str = "stop the shard and restore the records from a copy: no release writes this";
const RECLAIM: &str = "start the processor of this shard: claiming finishes what a crash left";
const REMOVE: &str = "remove the file: no reader of this lake counts it, but a glob does";
const PASS: &str = "run `airan lake expire`: it finishes what a crash left";

impl CheckReport {
    fn add(&mut self, invariant: &'static str, path: impl ToString, what: impl ToString, repair: &'static str) {
        self.problems.push(Problem { invariant, path: path.to_string(), what: what.to_string(), repair });
    }
}

impl Lake {
    /// Verifies S1, K1 and K2 over the whole lake.
    ///
    /// # Errors
    /// If the store does not answer. What is wrong with the lake is no error but in the report.
    pub async fn check(&self) -> Result<CheckReport, ReadError> {
        let mut report = CheckReport::default();
        let mut live = Vec::new();
        let mut newest = HashMap::new();
        for shard in record::shards(self.store()).await? {
            report.shards += 1;
            let records = self.check_records(&shard, &mut report).await?;
            newest.insert(shard.clone(), records.last().map_or(0, |record| record.n));
            live.extend(records.into_iter().flat_map(|record| named(&shard, record)));
        }
        let expired = expire::newest(self.store()).await?;
        let is_done = self.store().size(&layout::expired_done(expired.number())).await?.is_some();
        for path in &expired.paths {
            if is_done && self.store().size(&Path::from(path.as_str())).await?.is_some() {
                report.add("S1", path, "it is expired and still there", PASS);
            }
        }
        let all: HashSet<String> = live.iter().map(|live| live.file.path.clone()).collect();
        if all.len() < live.len() {
            report.add("S1", layout::COMMITS, "one file is named by two records", NEVER);
        }
        live.retain(|live| !expired.contains(live));
        let places = Places::find(self.store()).await?;
        for file in &live {
            self.check_file(file, &places, newest.get(&file.shard).copied().unwrap_or_default(), &mut report).await?;
        }
        self.check_strangers(&all, &newest, &mut report).await?;
        Ok(report)
    }

    /// K1 and K2 of one shard.
    async fn check_records(&self, shard: &Shard, report: &mut CheckReport) -> Result<Vec<Record>, ReadError> {
        let mut records: Vec<Record> = Vec::new();
        let mut expected = None;
        for n in record::numbers(self.store(), shard).await? {
            let path = shard.record(n);
            if expected.is_some_and(|expected| n != expected) {
                report.add("K1", &path, "a record before it is missing", NEVER);
            }
            expected = Some(n + 1);
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
        if is_claim && !(record.files.is_empty() && repeats) {
            report.add("K2", &path, "a claim that is not what stood before it", NEVER);
        }
    }

    /// S1 from the record's side: what it names is there and is what it says.
    async fn check_file(
        &self,
        live: &Live,
        places: &Places,
        newest: u64,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let path = places.of(self.store(), &live.file.path).await?;
        report.files += 1;
        report.rows += live.file.rows;
        report.bytes += live.file.bytes;
        if path != live.file.path && live.n < newest {
            report.add("S1", &path, "it still waits in staging", RECLAIM);
        }
        let bytes = match read_live(self.store(), &Path::from(path.as_str()), live).await {
            Ok(Some(bytes)) => bytes,
            // Retention has taken it out meanwhile.
            Ok(None) => return Ok(()),
            Err(ReadError::Damaged(damaged)) => {
                report.add("S1", &path, damaged.reason, RESTORE);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 != live.file.bytes || Checksum::of(&bytes) != live.file.checksum {
            report.add("S1", &path, "its size or checksum is not its record's", RESTORE);
            return Ok(());
        }
        let rows = SerializedFileReader::new(bytes).map(|reader| reader.metadata().file_metadata().num_rows());
        match rows {
            Ok(rows) if rows as u64 == live.file.rows => {}
            Ok(rows) => {
                report.add("S1", &path, format!("it holds {rows} rows, its record says {}", live.file.rows), NEVER)
            }
            Err(error) => report.add("S1", &path, error, RESTORE),
        }
        Ok(())
    }

    /// S1 from the tables' side: nothing lies there that no record names.
    async fn check_strangers(
        &self,
        named: &HashSet<String>,
        newest: &HashMap<Shard, u64>,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let most = newest.values().copied().max().unwrap_or_default();
        for table in self.tables().await? {
            if let Err(error) = schema::load(self.store(), &table).await {
                report.add("S1", layout::schemas(&table), error, RESTORE);
            }
            for meta in self.store().list(&Path::from(table.as_str())).await? {
                let path = meta.location.to_string();
                // One above the newest record may be a commit at work.
                let is_settled = layout::commit_number(&meta.location).is_some_and(|n| n <= most);
                if !path.ends_with(".parquet") || named.contains(&path) || !is_settled {
                    continue;
                }
                match self.store().staged() {
                    true => report.add("S1", &path, "no record names it", REMOVE),
                    false => report.orphans += 1,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
