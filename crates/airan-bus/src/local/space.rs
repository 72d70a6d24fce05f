//! How much disk the local log may take, and what goes when it has taken it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airan_log::Retention;
use airan_model::time::{Clock, Micros};

use super::REJECTED_SHARE;
use super::partition::Store;

/// How often segments are looked through for ones that are too old.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A log that was full is taken for usable again when one in this many bytes is free.
const ROOM_SHARE: u64 = 16;

/// The bytes of all partitions together, and the state they leave the log in.
pub(super) struct Space {
    stores: Vec<Arc<Store>>,
    rejected: Arc<Store>,
    max_bytes: u64,
    max_age: Micros,
    pub clock: Clock,
    // Bytes that writers have been promised and have not yet written.
    promised: AtomicU64,
    // Held while segments are removed, so that two writers do not both make room for one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    trouble: Option<Trouble>,
}

enum Trouble {
    Full(String),
    Disk(String),
}

/// Room for bytes, until they are written.
pub(super) struct Promise<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.space.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Space {
    pub fn new(stores: Vec<Arc<Store>>, rejected: Arc<Store>, max_bytes: u64, max_age: Micros, clock: Clock) -> Space {
        Space { stores, rejected, max_bytes, max_age, clock, promised: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Bytes on disk.
    pub fn used(&self) -> u64 {
        self.all().map(|store| store.log.bytes()).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.stores.iter().chain([&self.rejected])
    }

    /// Promises room for `bytes`, removing the oldest of what was processed where that is needed; or says why there is none.
    pub fn promise(&self, bytes: u64) -> Result<Promise<'_>, String> {
        let promised = self.promised.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let promise = Promise { space: self, bytes };
        if self.used() + promised <= self.max_bytes {
            return Ok(promise);
        }
        let mut state = self.state();
        self.make_room(0);
        let (used, promised) = (self.used(), self.promised.load(Ordering::Relaxed));
        if used + promised <= self.max_bytes {
            return Ok(promise);
        }
        let reason = format!(
            "the local log holds {used} of {} bytes, none of which may go before it is processed (bus.max_bytes)",
            self.max_bytes
        );
        if !matches!(state.trouble, Some(Trouble::Full(_))) {
            tracing::warn!(
                used,
                max_bytes = self.max_bytes,
                "local log is full of unprocessed messages: refusing more"
            );
        }
        state.trouble = Some(Trouble::Full(reason.clone()));
        Err(reason)
    }

    /// Removes the oldest segments of whoever holds most, until there is room for what was promised and `more`.
    fn make_room(&self, more: u64) {
        let over = || (self.used() + self.promised.load(Ordering::Relaxed) + more).saturating_sub(self.max_bytes);
        let mut stores: Vec<&Arc<Store>> = self.all().collect();
        stores.sort_by_key(|store| std::cmp::Reverse(store.log.bytes()));
        for store in stores {
            let over = over();
            if over == 0 {
                break;
            }
            self.expire(store, store.log.bytes().saturating_sub(over));
        }
    }

    /// Removes what is too old, now and then or when something `has_changed`; and takes note when a full log has room again.
    pub fn look(&self, has_changed: bool) {
        let mut state = self.state();
        if state.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) && !has_changed {
            return;
        }
        state.looked = Some(Instant::now());
        self.stores.iter().for_each(|store| self.expire(store, u64::MAX));
        self.expire(&self.rejected, self.max_bytes / REJECTED_SHARE);
        if matches!(state.trouble, Some(Trouble::Full(_))) {
            let enough = self.max_bytes / ROOM_SHARE;
            self.make_room(enough);
            if self.used() + self.promised.load(Ordering::Relaxed) + enough <= self.max_bytes {
                state.trouble = None;
                tracing::info!("local log has room again");
            }
        }
    }

    fn expire(&self, store: &Store, max_bytes: u64) {
        let oldest = self.clock.now().saturating_sub(self.max_age);
        let needed =
            if Arc::as_ptr(&self.rejected) == std::ptr::from_ref(store) { u64::MAX } else { store.committed() };
        match store.log.expire(Retention { oldest, max_bytes, needed }) {
            Ok(expired) if expired.segments > 0 => {
                tracing::debug!(
                    folder = %store.folder.display(),
                    segments = expired.segments,
                    bytes = expired.bytes,
                    "old segments removed"
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(folder = %store.folder.display(), %error, "old segments cannot be removed: trying again later");
            }
        }
    }

    /// Why messages cannot be taken now.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.as_ref().map(|trouble| match trouble {
            Trouble::Full(reason) | Trouble::Disk(reason) => reason.clone(),
        })
    }

    /// Notes that the disk failed, or works again; said in the log when that changes.
    pub fn note_disk(&self, failure: Option<String>) {
        let mut state = self.state();
        match (&state.trouble, failure) {
            (Some(Trouble::Disk(_)), None) => {
                tracing::info!("local log is written again");
                state.trouble = None;
            }
            (_, None) => {}
            (before, Some(reason)) => {
                if !matches!(before, Some(Trouble::Disk(_))) {
                    tracing::warn!(reason, "local log cannot be written: trying again with the next message");
                }
                state.trouble = Some(Trouble::Disk(reason));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
