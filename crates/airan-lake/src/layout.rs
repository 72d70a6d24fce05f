//! Where things lie in a lake. Names only; nothing here touches a store.
//!
//! ```text
//! <table>/date=YYYY-MM-DD/<partition>-<n>-<claim>.parquet      rows, named by a record (S1)
//! <table>/date=YYYY-MM-DD/compact-<id>.parquet                 rows of several such files of one topic
//! <table>/_delta_log/<version>.json, .checkpoint.parquet       Delta, the projection of the records
//! <table>/_held/date=YYYY-MM-DD/<name without .parquet>        the same files for Delta (local disks): the second name
//! _staging/<topic>/<partition>/<table>/date=…/….parquet.staged the same, waiting for its record (local disks)
//! _commits/<topic>/partitions.json                             the partition count, fixed for ever
//! _commits/<topic>/<partition>/<n>.json                        the records (K1); n has 20 digits, so names sort
//! _commits/<topic>/<partition>/<n>.trimmed                     records up to n may be gone: their files are published
//! _commits/<topic>/<partition>/newest                          a hint, at or below the newest n; no truth
//! _state/<topic>/<partition>/<n>-<claim>.state                 the shard state a record names
//! _schemas/<table>/<version>.arrow                             the table's columns, add-only
//! _requests/<id>.json                                          windows to be restated, for the owners of shards
//! _retention/raw_from_each/<micros>                            before the highest of them raw rows may be gone
//! _retention/raw_from                                          the same, as lakes had it before
//! _erasures/<id>/…                                             what an erasure that is not finished has set out to do
//! _uploads/<id>.json                                           an upload in parts that is under way, or was cut off
//! _tmp/ _probe/                                                temporaries
//! ```

use airan_model::time::{DAY, Micros};
use object_store::path::Path;

/// One claim of a shard: 128 random bits as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct ClaimId(pub(crate) String);

impl ClaimId {
    pub(crate) fn fresh() -> ClaimId {
        ClaimId(format!("{:032x}", rand::random::<u128>()))
    }
}

/// Folder of all records.
pub(crate) const COMMITS: &str = "_commits";
/// Folder of all table schemas.
pub(crate) const SCHEMAS: &str = "_schemas";
/// Folder of a table's second names.
const HELD: &str = "_held";
/// Folder of files that wait for their record.
pub(crate) const STAGING: &str = "_staging";
/// Suffix of such a file, so that no glob over `*.parquet` meets it.
const STAGED: &str = ".staged";

/// A name usable as a folder: what Kafka allows in a topic, which also holds every table's name.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 249
        && !name.starts_with(['_', '.'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A shard: one partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Shard {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Shard {
    pub(crate) fn records(&self) -> Path {
        Path::from_iter([COMMITS, &self.topic, &self.partition.to_string()])
    }

    pub(crate) fn record(&self, n: u64) -> Path {
        self.records().join(format!("{n:020}.json"))
    }

    /// The mark that records up to `n` may be gone.
    pub(crate) fn trimmed(&self, n: u64) -> Path {
        self.records().join(format!("{n:020}.trimmed"))
    }

    pub(crate) fn hint(&self) -> Path {
        self.records().join("newest")
    }

    pub(crate) fn states(&self) -> Path {
        Path::from_iter(["_state", &self.topic, &self.partition.to_string()])
    }

    pub(crate) fn state(&self, n: u64, claim: &ClaimId, attempt: u32) -> Path {
        self.states().join(format!("{}.state", stem(n, claim, attempt)))
    }

    pub(crate) fn staging(&self) -> Path {
        Path::from_iter([STAGING, &self.topic, &self.partition.to_string()])
    }

    /// Where a file waits until its record exists.
    pub(crate) fn staged(&self, path: &Path) -> Path {
        let mut staged = self.staging();
        for part in path.parts() {
            staged = staged.join(part);
        }
        Path::from(format!("{staged}{STAGED}"))
    }

    /// The name a staged file will have; `None` if it is no staged file of this shard.
    pub(crate) fn unstaged(&self, staged: &Path) -> Option<Path> {
        let rest = staged.as_ref().strip_prefix(self.staging().as_ref())?.strip_prefix('/')?;
        Some(Path::from(rest.strip_suffix(STAGED)?))
    }

    /// A file of this shard; `attempt` is above 0 where earlier tries left other bytes under the lower names.
    pub(crate) fn file(&self, table: &str, date: i32, n: u64, claim: &ClaimId, attempt: u32) -> Path {
        let name = format!("{}-{}.parquet", self.partition, stem(n, claim, attempt));
        Path::from_iter([table.to_owned(), format!("date={}", date_text(date)), name])
    }
}

/// The place in its table of the file that waits at `path`; `None` if that is no place to wait.
pub(crate) fn place_of(path: &Path) -> Option<Path> {
    let mut rest = path.as_ref().strip_suffix(STAGED)?.splitn(4, '/');
    let (folder, _topic, _partition, place) = (rest.next()?, rest.next()?, rest.next()?, rest.next()?);
    (folder == STAGING).then(|| Path::from(place))
}

/// The shard for whose record the file at `path` in staging waits; `None` if that is no place to wait.
pub(crate) fn waits_for(path: &Path) -> Option<Shard> {
    let mut parts = path.as_ref().split('/');
    let (folder, topic, partition) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    (folder == STAGING).then(|| Shard { topic: topic.to_owned(), partition })
}

/// Path of a topic's partition count.
pub(crate) fn partitions(topic: &str) -> Path {
    Path::from_iter([COMMITS, topic, "partitions.json"])
}

/// Folder of a table's schema versions.
pub(crate) fn schemas(table: &str) -> Path {
    Path::from_iter([SCHEMAS, table])
}

/// One version of a table's schema.
pub(crate) fn schema(table: &str, version: u64) -> Path {
    schemas(table).join(format!("{version:06}.arrow"))
}

/// Folder of a table's Delta log.
pub(crate) fn delta_log(table: &str) -> Path {
    Path::from_iter([table, "_delta_log"])
}

/// One commit of it.
pub(crate) fn delta_commit(table: &str, version: u64) -> Path {
    delta_log(table).join(format!("{version:020}.json"))
}

/// One checkpoint of it.
pub(crate) fn delta_checkpoint(table: &str, version: u64) -> Path {
    delta_log(table).join(format!("{version:020}.checkpoint.parquet"))
}

/// The held name of the file at `place`: `<table>/_held/date=…/<name without .parquet>`.
pub(crate) fn held(place: &Path) -> Option<Path> {
    let (table, rest) = place.as_ref().split_once('/')?;
    Some(Path::from(format!("{table}/{HELD}/{}", rest.strip_suffix(".parquet")?)))
}

/// The place of a held name; `None` if it is none.
pub(crate) fn place_of_held(held: &Path) -> Option<Path> {
    let (table, rest) = held.as_ref().split_once('/')?;
    let rest = rest.strip_prefix(HELD)?.strip_prefix('/')?;
    Some(Path::from(format!("{table}/{rest}.parquet")))
}

/// Every name under which the file found at `path` may be met later: out of staging in its place, then held.
pub(crate) fn names_of(path: &Path) -> Vec<Path> {
    let mut names = vec![path.clone()];
    names.extend(place_of(path));
    if let Some(held) = names.last().and_then(held) {
        names.push(held);
    }
    names
}

/// Whether `path` is a place: a Parquet file directly in a date's folder of a table.
pub(crate) fn is_place(path: &Path) -> bool {
    let parts: Vec<_> = path.parts().collect();
    matches!(&parts[..], [_, date, name] if date.as_ref().starts_with("date=") && name.as_ref().ends_with(".parquet"))
}

/// Whether `path` has a name that this crate gives: of a commit or of a rewriting.
pub(crate) fn is_ours(path: &Path) -> bool {
    let name = path.filename().unwrap_or_default();
    name.starts_with(REWRITTEN) || (commit_number(path).is_some() && partition_of(path).is_some())
}

/// How names of files begin that a rewriting of others made.
pub(crate) const REWRITTEN: &str = "compact-";

fn stem(n: u64, claim: &ClaimId, attempt: u32) -> String {
    match attempt {
        0 => format!("{n:020}-{}", claim.0),
        attempt => format!("{n:020}-{}-{attempt}", claim.0),
    }
}

/// The number in the name of a record, a mark, a schema version or a Delta commit: what stands before the suffix.
pub(crate) fn number(path: &Path, suffix: &str) -> Option<u64> {
    path.filename()?.strip_suffix(suffix)?.parse().ok()
}

/// The `n` in the name of a Parquet file (with its partition) or of a state file (without).
pub(crate) fn commit_number(path: &Path) -> Option<u64> {
    let name = path.filename()?;
    let digits = name.split(['-', '.']).find(|part| part.len() == 20)?;
    digits.parse().ok()
}

/// The partition in the name of a Parquet file, or in its held name.
pub(crate) fn partition_of(path: &Path) -> Option<i32> {
    path.filename()?.split('-').next()?.parse().ok()
}

/// Days since 1970 of an instant; also right before 1970.
pub(crate) fn date_of(at: Micros) -> i32 {
    i32::try_from(at.div_euclid(DAY)).unwrap_or(if at < 0 { i32::MIN } else { i32::MAX })
}

/// `YYYY-MM-DD`.
pub(crate) fn date_text(date: i32) -> String {
    let day = chrono::DateTime::from_timestamp(i64::from(date) * 86_400, 0);
    day.map_or_else(|| format!("day{date}"), |day| day.format("%Y-%m-%d").to_string())
}

/// Days since 1970 in the `date=` folder of a file's path.
pub(crate) fn date_in(path: &str) -> Option<i32> {
    let text = path.split('/').find_map(|part| part.strip_prefix("date="))?;
    let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(day.signed_duration_since(chrono::NaiveDate::default()).num_days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: names of files, states and records are made and read back; dates on both sides of 1970.
    /// Guarantees: each name gives its number and its final place back; the folder's date is the row's UTC date.
    #[test]
    fn names_are_read_back() {
        let shard = Shard { topic: "airan.telemetry".to_owned(), partition: 3 };
        let claim = ClaimId::fresh();
        for attempt in [0, 2] {
            let file = shard.file("host", 20_000, 17, &claim, attempt);
            assert_eq!((commit_number(&file), partition_of(&file)), (Some(17), Some(3)), "{file}");
            assert_eq!(shard.unstaged(&shard.staged(&file)), Some(file.clone()));
            assert_eq!((place_of(&shard.staged(&file)), place_of(&file)), (Some(file.clone()), None));
            assert_eq!(date_in(file.as_ref()), Some(20_000), "{file}");
            assert_eq!(commit_number(&shard.state(17, &claim, attempt)), Some(17));
            let held = held(&file).unwrap();
            assert!(!held.as_ref().contains(".parquet") && is_place(&file) && !is_place(&held), "{held}");
            assert_eq!((place_of_held(&held), place_of_held(&file)), (Some(file.clone()), None));
            assert!(is_ours(&file) && !is_ours(&Path::from("host/date=2026-01-01/notes.parquet")));
        }
        assert_eq!(number(&shard.record(41), ".json"), Some(41));
        assert_eq!(number(&shard.hint(), ".json"), None);
        for (at, text) in [(-1, "1969-12-31"), (0, "1970-01-01"), (DAY, "1970-01-02")] {
            assert_eq!(date_text(date_of(at)), text);
            assert_eq!(date_in(&format!("t/date={text}/x")), Some(date_of(at)));
        }
        assert!(is_plain("airan.telemetry") && !is_plain("_commits") && !is_plain("a/b") && !is_plain(""));
    }
}
