//! Local disks: a file of a record gets its place in the table, and only while it counts.
//!
//! Whoever gives a place may be late. While its owner was frozen, or dead with the file still in staging, the record was published, and the
//! file merged, erased or expired, and its place taken from it. A place given then would stay until the next retention, and a glob would
//! meet its rows twice, or rows that were erased. So whoever gives a place looks *afterwards* whether the file is out: whether the Delta log
//! has passed its record and does not name it. What is out never comes back, and its place is taken again. Who takes a file out after that
//! look finds the place, because names are listed after the Delta commit.

use object_store::path::Path;

use crate::delta::DeltaTable;
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::lost::table_of;
use crate::record::ReadError;
use crate::store::{Store, StoreError};

/// A file of a record in staging.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    /// Number of the record.
    pub(crate) n: u64,
    /// Its name in staging.
    pub(crate) waits: Path,
    /// The name it is to have.
    pub(crate) place: Path,
}

impl Lake {
    /// Names a file of `shard` also as its place, if it counts. Doing it again is fine.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn give_place(&self, shard: &Shard, file: &Staged) -> Result<(), StoreError> {
        let given = give_place(self.store(), &file.waits, &file.place).await;
        // A file has its held name before it is published, and loses it only in a pass that has cleared staging before: so the log is read
        // for few.
        let is_held = match layout::held(&file.place) {
            Some(held) => self.store().size(&held).await?.is_some(),
            None => false,
        };
        match (is_held || given.is_err()) && self.is_out(shard, file.n, &file.place).await? {
            true => self.store().remove(&file.place).await,
            false => given,
        }
    }

    /// Whether a file of record `n` of `shard` was published and taken out again. Of a table whose log cannot be read nobody can tell.
    pub(crate) async fn is_out(&self, shard: &Shard, n: u64, place: &Path) -> Result<bool, StoreError> {
        let delta = match DeltaTable::load(self, table_of(place)).await {
            Ok(delta) => delta,
            Err(ReadError::Store(error)) => return Err(error),
            Err(_) => None,
        };
        let is_past = |delta: &DeltaTable| delta.txn(shard).is_some_and(|txn| n <= txn);
        Ok(delta.is_some_and(|delta| is_past(&delta) && delta.file(place.as_ref()).is_none()))
    }

    /// Removes the names in staging of files that are out: their bytes go with the other names, not with the next commit of a shard that
    /// may have nothing to commit.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn clear_staging(&self) -> Result<(), StoreError> {
        for meta in self.store().list(&Path::from(layout::STAGING)).await? {
            let waits = meta.location;
            let (Some(shard), Some(place)) = (layout::waits_for(&waits), layout::place_of(&waits)) else { continue };
            let Some(n) = layout::commit_number(&place) else { continue };
            if self.is_out(&shard, n, &place).await? {
                self.store().remove(&waits).await?;
            }
        }
        Ok(())
    }
}

/// Names `waits` also `place`; done before, or by somebody else, is fine.
pub(crate) async fn give_place(store: &Store, waits: &Path, place: &Path) -> Result<(), StoreError> {
    match store.link(waits, place).await {
        Ok(()) => Ok(()),
        Err(error) => match store.size(place).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FsPath;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use crate::testing::{assert_sound, claim, clock, commit, ids, local, rows};

    /// The `id`s of all rows that a glob meets in table `host`, sorted.
    fn globbed(folder: &FsPath) -> Vec<i64> {
        let mut found = Vec::new();
        for date in std::fs::read_dir(folder.join("host")).unwrap().map(|entry| entry.unwrap()) {
            if !date.file_name().to_str().unwrap().starts_with("date=") {
                continue;
            }
            for file in std::fs::read_dir(date.path()).unwrap().map(|entry| entry.unwrap().path()) {
                let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap()).unwrap();
                for batch in reader.build().unwrap() {
                    found.extend(batch.unwrap()["id"].as_primitive::<Int64Type>().values());
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// How many files below `folder` hold rows.
    fn names(folder: &FsPath) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        let of = |path: std::path::PathBuf| match path.is_dir() {
            true => names(&path),
            false => 1,
        };
        entries.map(of).sum()
    }

    /// Scenario: two commits are published and merged, or rows of the second erased, by another process, while the second one's file is
    /// still in staging; then its shard is claimed, by a process that has looked at the table before and by one that has not.
    /// Guarantees: S1 for a glob as well; the claim gives no place to a file that is out, so a glob meets no row twice and none that was
    /// erased; staging is empty.
    #[tokio::test]
    async fn a_claim_gives_no_place_to_a_file_that_is_out() {
        for is_erasure in [false, true] {
            for has_looked in [false, true] {
                let what = format!("erasure {is_erasure}, has looked {has_looked}");
                let folder = tempfile::tempdir().unwrap();
                let (lake, other) = (local(folder.path()).await, local(folder.path()).await);
                let mut writer = claim(&lake).await;
                writer.commit(&commit(10, vec![rows("host", 0..10)])).await.unwrap();
                writer.commit(&commit(20, vec![rows("host", 10..20)])).await.unwrap();
                drop(writer);
                if has_looked {
                    other.publish(clock().now()).await.unwrap();
                }
                let left: Vec<i64> = (0..if is_erasure { 15 } else { 20 }).collect();
                if is_erasure {
                    let mut erasure = lake.begin_erasure("id >= 15", &[], clock().now()).await.unwrap();
                    lake.erase(&mut erasure, clock().now(), |_| {}).await.unwrap();
                } else {
                    let report = lake.compact(None, clock().now(), |_| {}).await.unwrap();
                    assert_eq!(report.merges, 1, "{what}: {report:?}");
                }
                assert_eq!(globbed(folder.path()), left, "{what}: before");
                assert_eq!(names(&folder.path().join("_staging")), 1, "{what}: nothing waits, this shows nothing");
                claim(&other).await;
                assert_eq!((globbed(folder.path()), ids(&lake, "host").await), (left.clone(), left), "{what}");
                assert_eq!(names(&folder.path().join("_staging")), 0, "{what}");
                assert_sound(&lake).await;
            }
        }
    }

    /// Scenario: an owner has its record, and is frozen before it gives its file a place; meanwhile the record is published, the rows are
    /// erased, and the old files purged; then the owner goes on.
    /// Guarantees: the file gets no place; no name is left that leads to erased rows, also none in staging; the owner can commit.
    #[tokio::test]
    async fn an_owner_that_wakes_up_gives_no_place_to_a_file_that_is_out() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, other) = (local(folder.path()).await, local(folder.path()).await);
        let mut writer = claim(&lake).await;
        writer.commit(&commit(10, vec![rows("host", 0..10)])).await.unwrap();
        let staged = std::fs::read_dir(folder.path().join("_staging")).unwrap().count();
        assert_eq!(staged, 1);
        let file = writer.staged_again();
        let mut erasure = other.begin_erasure("id >= 0", &[], clock().now()).await.unwrap();
        other.erase(&mut erasure, clock().now(), |_| {}).await.unwrap();
        lake.give_place(&file.0, &file.1).await.unwrap();
        assert_eq!(globbed(folder.path()), Vec::<i64>::new());
        assert_eq!(names(&folder.path().join("_staging")), 1);
        other.purge(clock().now()).await.unwrap();
        let left = ["_staging", "host/_held"].map(|below| names(&folder.path().join(below)));
        assert_eq!(left, [0, 0], "names of erased rows");
        // Its name in staging is gone as well now.
        lake.give_place(&file.0, &file.1).await.unwrap();
        writer.commit(&commit(20, vec![rows("host", 10..20)])).await.unwrap();
        assert_eq!(ids(&lake, "host").await, (10..20).collect::<Vec<_>>());
        assert_sound(&lake).await;
    }
}
