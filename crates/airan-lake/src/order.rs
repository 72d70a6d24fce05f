//! The order of rows inside a file: by (site, entity…, time), nulls first, ties as they came.
//!
//! Telemetry comes in cycles: all devices at one instant, then all at the next. So instead of comparing rows, each row
//! gets the number of its entity, guessed from who followed the row before in the last cycle and checked by comparing
//! (hashing only where the guess fails). The few entities are sorted, rows are put in place by counting, and only an
//! entity whose own rows are out of time order is sorted.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices};
use arrow::error::ArrowError;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// No group yet.
const NONE: u32 = u32::MAX;

/// How the rows must be rearranged.
#[derive(Debug)]
pub(crate) struct Order {
    /// `None`: they are in order already.
    pub(crate) indices: Option<UInt32Array>,
    /// Distinct values of the key columns together, where known.
    pub(crate) groups: Option<usize>,
}

/// The order by `keys`, then `time` (micros, no nulls), then as given. At most `u32::MAX` rows.
///
/// # Errors
/// If a key that is no text has a type that cannot be sorted.
pub(crate) fn order(keys: &[ArrayRef], time: &ArrayRef) -> Result<Order, ArrowError> {
    let texts: Option<Vec<&StringArray>> = keys.iter().map(|key| key.as_string_opt::<i32>()).collect();
    match texts {
        Some(texts) => {
            Ok(by_groups(&texts, time.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values()))
        }
        None => by_comparing(keys, time),
    }
}

/// The plain way, for keys that are not all text.
fn by_comparing(keys: &[ArrayRef], time: &ArrayRef) -> Result<Order, ArrowError> {
    let options = Some(SortOptions { descending: false, nulls_first: true });
    let columns: Vec<SortColumn> =
        keys.iter().chain([time]).map(|values| SortColumn { values: ArrayRef::clone(values), options }).collect();
    Ok(Order { indices: Some(lexsort_to_indices(&columns, None)?), groups: None })
}

fn by_groups(keys: &[&StringArray], time: &[i64]) -> Order {
    let (mut ids, firsts) = number_rows(keys, time.len());
    rank(keys, &firsts, &mut ids);
    let in_order = ids.windows(2).zip(time.windows(2)).all(|(id, at)| (id[0], at[0]) <= (id[1], at[1]));
    if in_order {
        return Order { indices: None, groups: Some(firsts.len()) };
    }
    // Counting sort: where each group starts, then each row to its group's next place.
    let mut starts = vec![0u32; firsts.len() + 1];
    for &id in &ids {
        starts[id as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut indices = vec![0u32; ids.len()];
    for (row, &id) in ids.iter().enumerate() {
        let place = &mut next[id as usize];
        indices[*place as usize] = row as u32;
        *place += 1;
    }
    for group in starts.windows(2) {
        let rows = &mut indices[group[0] as usize..group[1] as usize];
        if !rows.is_sorted_by_key(|&row| time[row as usize]) {
            rows.sort_by_key(|&row| time[row as usize]);
        }
    }
    Order { indices: Some(indices.into()), groups: Some(firsts.len()) }
}

/// The number of each row's group, in order of first sight, and each group's first row.
fn number_rows(keys: &[&StringArray], rows: usize) -> (Vec<u32>, Vec<u32>) {
    let hasher = FixedState::default();
    let mut known: HashTable<u32> = HashTable::new();
    let mut firsts: Vec<u32> = Vec::new();
    // Who came after each group when it was last seen.
    let mut after: Vec<u32> = Vec::new();
    let mut ids = Vec::with_capacity(rows);
    let mut before = NONE;
    for row in 0..rows {
        let guess = after.get(before as usize).copied().unwrap_or(NONE);
        let id = match firsts.get(guess as usize) {
            Some(&first) if same(keys, first as usize, row) => guess,
            _ => {
                let hash = hash(keys, &hasher, row);
                let found = known.entry(
                    hash,
                    |&id| same(keys, firsts[id as usize] as usize, row),
                    |&id| self::hash(keys, &hasher, firsts[id as usize] as usize),
                );
                match found {
                    hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
                    hashbrown::hash_table::Entry::Vacant(free) => {
                        let id = after.len() as u32;
                        free.insert(id);
                        firsts.push(row as u32);
                        after.push(NONE);
                        id
                    }
                }
            }
        };
        if let Some(after) = after.get_mut(before as usize) {
            *after = id;
        }
        ids.push(id);
        before = id;
    }
    (ids, firsts)
}

/// Replaces each group's number by its place in key order.
fn rank(keys: &[&StringArray], firsts: &[u32], ids: &mut [u32]) {
    let mut sorted: Vec<u32> = (0..firsts.len() as u32).collect();
    sorted.sort_unstable_by(|&a, &b| compare(keys, firsts[a as usize] as usize, firsts[b as usize] as usize));
    let mut ranks = vec![0u32; firsts.len()];
    for (rank, &id) in sorted.iter().enumerate() {
        ranks[id as usize] = rank as u32;
    }
    for id in ids {
        *id = ranks[*id as usize];
    }
}

fn value(key: &StringArray, row: usize) -> Option<&str> {
    key.is_valid(row).then(|| key.value(row))
}

fn same(keys: &[&StringArray], a: usize, b: usize) -> bool {
    // Later keys (the entity) differ sooner than the site.
    keys.iter().rev().all(|key| value(key, a) == value(key, b))
}

fn compare(keys: &[&StringArray], a: usize, b: usize) -> Ordering {
    keys.iter().map(|key| value(key, a).cmp(&value(key, b))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn hash(keys: &[&StringArray], hasher: &FixedState, row: usize) -> u64 {
    let mut state = hasher.build_hasher();
    for key in keys {
        match value(key, row) {
            Some(text) => {
                state.write(text.as_bytes());
                state.write_u8(1);
            }
            None => state.write_u8(0),
        }
    }
    state.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::times;

    proptest! {
        /// Scenario: any rows of few sites, devices (some null) and times, in any order.
        /// Guarantees: the order is that of a plain stable sort, and is said to be there only when it is.
        #[test]
        fn the_order_is_that_of_a_stable_sort(
            rows in prop::collection::vec((0..3u8, prop::option::of(0..5u8), -4..4i64), 0..200)
        ) {
            let sites: Vec<String> = rows.iter().map(|row| format!("s{}", row.0)).collect();
            let devices: Vec<Option<String>> = rows.iter().map(|row| row.1.map(|d| format!("d{d}"))).collect();
            let keys: Vec<ArrayRef> =
                vec![Arc::new(StringArray::from(sites)), Arc::new(StringArray::from(devices))];
            let at: Vec<i64> = rows.iter().map(|row| row.2).collect();
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by_key(|&row| rows[row as usize]);
            let found = order(&keys, &times(&at)).unwrap();
            let indices = match found.indices {
                Some(indices) => indices.values().to_vec(),
                None => (0..rows.len() as u32).collect(),
            };
            prop_assert_eq!(&indices, &expected);
            let plain = by_comparing(&keys, &times(&at)).unwrap().indices.unwrap();
            let key = |row: &u32| rows[*row as usize];
            prop_assert!(plain.values().iter().map(key).eq(expected.iter().map(key)));
        }
    }
}
