//! Noise that is a function of a seed, a name and a time, so that the same second always says the same.

use airan_model::identity::murmur2;

/// Seconds from one knot of smooth noise to the next.
const KNOT: i64 = 15;

/// A source of noise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    /// Of a seed and of whom it is about.
    pub fn new(seed: u64, name: &str) -> Noise {
        Noise(mix(seed ^ (u64::from(murmur2(name.as_bytes())) << 17)))
    }

    /// Between -1 and 1, another each second.
    pub fn rough(self, second: i64) -> f64 {
        let bits = mix(self.0 ^ second.cast_unsigned()) >> 11;
        bits as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Between -1 and 1, moving slowly: linear between a new value each 15 s.
    pub fn smooth(self, second: i64) -> f64 {
        let (knot, within) = (second.div_euclid(KNOT), second.rem_euclid(KNOT) as f64 / KNOT as f64);
        self.rough(!knot) * (1.0 - within) + self.rough(!(knot + 1)) * within
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_centred_and_the_same_again() {
        let (one, other) = (Noise::new(1, "a"), Noise::new(1, "b"));
        let values: Vec<f64> = (0..10_000).map(|second| one.rough(second)).collect();
        assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
        assert!((values.iter().sum::<f64>() / 10_000.0).abs() < 0.03);
        assert_eq!(one.rough(7), Noise::new(1, "a").rough(7));
        assert_ne!(one.rough(7), other.rough(7));
        let steps = (0..1_000).map(|second| (one.smooth(second + 1) - one.smooth(second)).abs());
        assert!(steps.fold(0.0, f64::max) <= 2.0 / KNOT as f64 + 1e-12);
    }
}
