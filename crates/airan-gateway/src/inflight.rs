//! How much is under way at once: requests, and bytes of their bodies.
//!
//! A request holds a [`Ticket`] from its headers to its answer, and asks it before it keeps another byte, so that a small body
//! that inflates is stopped where the limit is and not where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;

use crate::Refusal;

/// The limits and what is under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    requests_max: usize,
    bytes_max: usize,
    retry_after: Duration,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    requests_gauge: IntGauge,
    bytes_gauge: IntGauge,
}

/// One request's right to be under way; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    of: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// At most `requests_max` requests with `bytes_max` bytes together.
    pub fn new(
        requests_max: usize,
        bytes_max: usize,
        retry_after: Duration,
        requests_gauge: IntGauge,
        bytes_gauge: IntGauge,
    ) -> Arc<InFlight> {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(InFlight { requests_max, bytes_max, retry_after, requests, bytes, requests_gauge, bytes_gauge })
    }

    /// Lets a request in, or tells it to come back.
    pub fn enter(self: &Arc<Self>) -> Result<Ticket, Refusal> {
        if !add_within(&self.requests, 1, self.requests_max) {
            return Err(Refusal::Busy { what: "requests", retry_after: self.retry_after });
        }
        self.requests_gauge.inc();
        Ok(Ticket { of: Arc::clone(self), bytes: 0 })
    }
}

impl Ticket {
    /// Asks to keep `bytes` more.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        if !add_within(&self.of.bytes, bytes, self.of.bytes_max) {
            return Err(Refusal::Busy { what: "bytes", retry_after: self.of.retry_after });
        }
        self.bytes += bytes;
        self.of.bytes_gauge.add(bytes as i64);
        Ok(())
    }

    /// Says that `bytes` of what was held are no longer kept.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of.bytes_gauge.sub(bytes as i64);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.release(self.bytes);
        self.of.requests.fetch_sub(1, Ordering::Relaxed);
        self.of.requests_gauge.dec();
    }
}

/// Adds where the sum stays within `max`.
pub(crate) fn add_within(counter: &AtomicUsize, more: usize, max: usize) -> bool {
    let add = |have: usize| have.checked_add(more).filter(|sum| *sum <= max);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: requests and bytes up to and over the limits, given back in between.
    /// Guarantees: over a limit is `Busy`, nothing leaks, and the gauges tell the truth.
    #[test]
    fn what_is_under_way_is_bounded_and_given_back() {
        let (requests, bytes) = (IntGauge::new("r", "r").unwrap(), IntGauge::new("b", "b").unwrap());
        let flight = InFlight::new(2, 100, Duration::from_secs(1), requests.clone(), bytes.clone());
        let mut first = flight.enter().unwrap();
        let mut second = flight.enter().unwrap();
        assert_eq!(flight.enter().unwrap_err().reason(), "busy");
        first.hold(60).unwrap();
        assert_eq!(second.hold(41).unwrap_err().reason(), "busy");
        second.hold(40).unwrap();
        assert_eq!((requests.get(), bytes.get()), (2, 100));
        first.release(20);
        second.hold(20).unwrap();
        drop(first);
        assert_eq!((requests.get(), bytes.get()), (1, 60));
        drop(second);
        assert_eq!((requests.get(), bytes.get()), (0, 0));
        flight.enter().unwrap().hold(100).unwrap();
    }
}
