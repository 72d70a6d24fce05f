//! Limits on what a stranger may send, enforced by doors and decoders after decompression.

use serde::{Deserialize, Serialize};

/// Limits on one request or scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request body, decompressed.
    pub request_bytes: usize,
    /// Labels (attributes) of one sample.
    pub labels_per_sample: usize,
    /// Bytes of one label name or value.
    pub label_bytes: usize,
    /// Samples of one scrape.
    pub samples_per_scrape: usize,
    /// Nesting of values inside values.
    pub depth: usize,
}

impl Limits {
    /// The documented defaults, for tests and benchmarks; a running role reads its own from the configuration.
    pub const DOCUMENTED: Limits = Limits {
        request_bytes: 16 * 1024 * 1024,
        labels_per_sample: 64,
        label_bytes: 2048,
        samples_per_scrape: 50_000,
        depth: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DOCUMENTED
    }
}
