//! What each sender may send: a token bucket in bytes, after decompression.
//!
//! A sender is welcome while its bucket is not empty, and pays for a request when its size is known. So one large request is
//! never refused for its size, but paid back by waiting. Time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use airan_model::time::{Micros, SECOND};
use foldhash::fast::RandomState;

/// Senders with a bucket of their own. Names are the senders' claim, so they must not cost memory without end.
const SENDERS_MAX: usize = 16_384;

/// Shortest time between two searches for full buckets to drop.
const SWEEP_EVERY: Micros = SECOND;

/// All senders' buckets.
#[derive(Debug)]
pub(crate) struct Shares {
    rate: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    by_sender: HashMap<Arc<str>, Bucket, RandomState>,
    // Shared by senders beyond SENDERS_MAX.
    rest: Bucket,
    swept: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    // Bytes; below zero is debt.
    tokens: f64,
    at: Micros,
}

impl Shares {
    /// `rate` in bytes per second; `burst` in bytes.
    pub fn new(rate: u64, burst: u64) -> Shares {
        let (rate, burst) = (rate as f64, burst as f64);
        let rest = Bucket { tokens: burst, at: Micros::MIN };
        Shares { rate, burst, buckets: Mutex::new(Buckets { by_sender: HashMap::default(), rest, swept: Micros::MIN }) }
    }

    /// Whether a sender is welcome, else when it will be.
    pub fn check(&self, sender: &Arc<str>, now: Micros) -> Result<(), Duration> {
        let tokens = self.with(sender, now, |bucket| bucket.tokens);
        if tokens > 0.0 {
            return Ok(());
        }
        // In debt by a whole day's share at most: a request is far smaller.
        Err(Duration::from_secs_f64(((1.0 - tokens) / self.rate).clamp(0.001, 86_400.0)))
    }

    /// Takes what a request cost.
    pub fn pay(&self, sender: &Arc<str>, bytes: usize, now: Micros) {
        self.with(sender, now, |bucket| bucket.tokens -= bytes as f64);
    }

    fn with<T>(&self, sender: &Arc<str>, now: Micros, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut guard = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = &mut *guard;
        if !buckets.by_sender.contains_key(sender) {
            if buckets.by_sender.len() >= SENDERS_MAX && now.saturating_sub(buckets.swept) >= SWEEP_EVERY {
                buckets.swept = now;
                buckets.by_sender.retain(|_, bucket| !self.filled(*bucket, now).is_full(self.burst));
            }
            if buckets.by_sender.len() < SENDERS_MAX {
                buckets.by_sender.insert(Arc::clone(sender), Bucket { tokens: self.burst, at: now });
            }
        }
        let bucket = buckets.by_sender.get_mut(sender).unwrap_or(&mut buckets.rest);
        *bucket = self.filled(*bucket, now);
        act(bucket)
    }

    fn filled(&self, bucket: Bucket, now: Micros) -> Bucket {
        let seconds = now.saturating_sub(bucket.at).max(0) as f64 / SECOND as f64;
        // A clock that was set back goes on from there: held to the old time, no bucket would fill until it is reached again.
        Bucket { tokens: (bucket.tokens + seconds * self.rate).min(self.burst), at: now }
    }
}

impl Bucket {
    fn is_full(self, burst: f64) -> bool {
        self.tokens >= burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a sender spends its burst and more, waits as told, and another sender sends meanwhile.
    /// Guarantees: refused only while in debt, welcome after exactly the time told, others untouched.
    #[test]
    fn a_sender_over_its_share_waits_as_long_as_it_is_told() {
        let shares = Shares::new(1_000, 500);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let start = 1_000 * SECOND;
        shares.check(&a, start).unwrap();
        shares.pay(&a, 2_500, start);
        let wait = shares.check(&a, start).unwrap_err();
        assert!(wait > Duration::from_millis(1_900) && wait < Duration::from_millis(2_100), "{wait:?}");
        shares.check(&b, start).unwrap();
        let then = start + wait.as_micros() as Micros + 1;
        shares.check(&a, then).unwrap();
        assert!(shares.check(&a, start).is_ok(), "a clock that steps back takes nothing away");
        shares.pay(&a, 2_500, start - 3_600 * SECOND);
        let wait = shares.check(&a, start - 3_600 * SECOND).unwrap_err();
        assert!(wait < Duration::from_secs(4), "a clock that steps back makes nobody wait for it: {wait:?}");
        shares.check(&a, start - 3_600 * SECOND + wait.as_micros() as Micros + 1).unwrap();
    }

    /// Scenario: more sender names than buckets.
    /// Guarantees: memory stays bounded; names beyond it share one bucket; idle names make room.
    #[test]
    fn sender_names_do_not_cost_memory_without_end() {
        let shares = Shares::new(1_000, 500);
        let now = 1_000 * SECOND;
        for n in 0..SENDERS_MAX {
            shares.pay(&format!("s{n}").into(), 400, now);
        }
        let (x, y): (Arc<str>, Arc<str>) = ("x".into(), "y".into());
        shares.pay(&x, 1_000, now);
        assert!(shares.check(&y, now).is_err(), "x and y share the last bucket");
        let later = now + 10 * SECOND;
        shares.pay(&x, 1, later);
        assert!(shares.buckets.lock().unwrap().by_sender.len() < SENDERS_MAX);
    }
}
