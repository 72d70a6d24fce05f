//! The lake on a local disk whose power fails, and what each of the store's syncs is good for.

mod ledger;
mod machine;

use std::collections::BTreeSet;

use self::machine::{Done, Machine};
use crate::dice::seeds;
use crate::power::{Place, unnoticed};

/// Places in `disk.rs` and `durable.rs` that ask for a sync.
const SYNCS: usize = 9;

/// What the first of many lives must have done each of.
const DONE: [&str; 12] = [
    "commits",
    "published files",
    "trimmed records",
    "merges",
    "expired files",
    "vacuumed files",
    "orphans",
    "purged files",
    "erased rows",
    "erasures gone on with",
    "requests",
    "checkpoints",
];

fn life(seed: u64, left_out: Option<Place>) -> (Result<(), String>, BTreeSet<Place>, Done) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut machine = Machine::new(seed, left_out);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(machine.live())));
    (lived.unwrap_or_else(|_| Err("a panic".to_owned())), machine.power.sites(), machine.done)
}

/// Scenario: processes claim a shard, commit to two tables, publish to Delta, compact, expire, vacuum, purge, erase, make requests
/// and checkpoints, and die; syncs fail; the power goes at any step, and what was not synced is there, gone or torn.
/// Guarantees: K1, S1. No acknowledged commit, and none that a claim has read, is undone; its files are whole; a record's number
/// is not given twice. Rows are gone where an erasure or retention took them, which had written that down before, and nowhere
/// else; they do not come back. A request that was made is there. `AIRAN_SEED=n` replays one life.
#[test]
fn a_power_loss_undoes_no_commit() {
    let seeds = seeds(60);
    let (is_replay, mut all) = (seeds.end - seeds.start == 1, Done::new());
    for seed in seeds {
        let (lived, _, done) = life(seed, None);
        assert_eq!(lived, Ok(()), "AIRAN_SEED={seed}");
        done.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
    }
    for what in DONE {
        assert!(is_replay || all.get(what).is_some_and(|count| *count > 0), "no {what} in {all:?}");
    }
}

/// Scenario: one sync after the other is left out, by the place in the code that asks for it.
/// Guarantees: each is needed: without it some promise breaks. So the test above can fail, and no sync is there for nothing.
#[test]
fn without_any_one_of_its_syncs_the_lake_breaks_a_promise() {
    let sites: BTreeSet<Place> = (0..20).flat_map(|seed| life(seed, None).1).collect();
    // Folders above the root; of a document its bytes, its name, and another's name for it; of a rewritten file its bytes and its
    // name; of a file's second name; of new folders; of what others have left.
    assert_eq!(sites.len(), SYNCS, "{sites:?}");
    let unnoticed = unnoticed(sites, 300, |seed, place| life(seed, Some(place)).0.is_ok());
    assert!(unnoticed.is_empty(), "syncs that nothing depends on: {unnoticed:?}");
}
