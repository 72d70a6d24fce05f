//! Numbers that follow from a seed, and the seeds that a test runs over, for simulations that must replay exactly. Included by path into
//! the tests that need it.

use std::ops::Range;

/// Seeds of as many lives, `AIRAN_CASES` for a long run; `AIRAN_SEED=n` replays one.
pub(crate) fn seeds(lives: u64) -> Range<u64> {
    let of = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    match of("AIRAN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..of("AIRAN_CASES").unwrap_or(lives),
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
