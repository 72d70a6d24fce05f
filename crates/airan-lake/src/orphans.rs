//! Parquet files in an object store's tables that no record names, and none can name any more.
//!
//! A local disk has none: there a file waits in `_staging/` for its record, and the next claim clears up. An object store
//! has no rename, so a writer that dies before its record leaves its files where they would have been. No reader that
//! asks the records sees them (S1); a glob does, and they cost money.

use std::collections::{HashMap, HashSet};

use airan_model::time::{DAY, Micros};
use object_store::path::Path;

use crate::layout::{self, Shard};
use crate::record::{ReadError, Record};
use crate::store::Store;

/// Orphans younger than this stay: somebody may be looking at what happened.
const ORPHAN_AGE: Micros = DAY;

/// Removes the orphans of `tables` that are old enough. Returns how many.
///
/// `shards` are all shards with all their records. A file goes only if each shard it can be of has a record of its number
/// or a later one: record numbers are taken once (K2), so no commit at work, however long its store was away, will name it.
pub(crate) async fn remove(
    store: &Store,
    tables: &[String],
    shards: &[(Shard, Vec<Record>)],
    now: Micros,
) -> Result<u64, ReadError> {
    if store.staged() {
        return Ok(0);
    }
    let named: HashSet<&str> =
        shards.iter().flat_map(|(_, records)| records).flat_map(|r| &r.files).map(|file| file.path.as_str()).collect();
    // A file's name has its partition and not its topic: of each partition, the newest number that all topics have reached.
    let mut settled: HashMap<i32, u64> = HashMap::new();
    for (shard, records) in shards {
        let newest = records.last().map_or(0, |record| record.n);
        let least = settled.entry(shard.partition).or_insert(newest);
        *least = newest.min(*least);
    }
    let mut removed = 0;
    for table in tables {
        for meta in store.list(&Path::from(table.as_str())).await? {
            let path = &meta.location;
            let is_settled = match (layout::partition_of(path), layout::commit_number(path)) {
                (Some(partition), Some(n)) => settled.get(&partition).is_some_and(|newest| n <= *newest),
                _ => false,
            };
            let is_old = now.saturating_sub(meta.last_modified.timestamp_micros()) >= ORPHAN_AGE;
            if is_settled && is_old && !named.contains(path.as_ref()) {
                tracing::debug!(%path, "removing a file that no record names");
                store.remove(path).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
