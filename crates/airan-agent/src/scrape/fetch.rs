//! One HTTP request for Prometheus text, with limits on time and on decompressed bytes.

use std::time::Duration;

use airan_decode::TextFormat;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

use crate::address::Endpoint;
use crate::uplink::plain;

/// Text 0.0.4 first: it carries the same samples as OpenMetrics 1.0, which is read strictly, so that one histogram with a
/// negative sum would cost the whole scrape. Then whatever there is.
const ACCEPTED: &str = "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";

/// Why a scrape gave nothing. The next one may succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    /// It took too long.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(String),
    /// Another status than 200.
    #[error("the answer is {0}")]
    Status(reqwest::StatusCode),
    /// More bytes than the limit, decompressed.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// More samples than the limit.
    #[error("the answer has more than {0} samples")]
    TooManySamples(usize),
    /// The text is no Prometheus text.
    #[error("{0}")]
    Malformed(String),
}

impl ScrapeError {
    /// The outcome in metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            ScrapeError::Timeout(_) => "timeout",
            ScrapeError::Connection(_) => "connection",
            ScrapeError::Status(_) => "status",
            ScrapeError::TooLarge(_) => "too_large",
            ScrapeError::TooManySamples(_) => "too_many_samples",
            ScrapeError::Malformed(_) => "malformed",
        }
    }
}

/// The text and its format. `most` bounds the decompressed bytes.
pub(crate) async fn fetch(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    timeout: Duration,
    most: usize,
) -> Result<(Vec<u8>, TextFormat), ScrapeError> {
    let read = tokio::time::timeout(timeout, read(client, endpoint, timeout, most));
    read.await.unwrap_or(Err(ScrapeError::Timeout(timeout)))
}

async fn read(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    timeout: Duration,
    most: usize,
) -> Result<(Vec<u8>, TextFormat), ScrapeError> {
    let broken = |error: reqwest::Error| ScrapeError::Connection(plain(&error.without_url()));
    let request = endpoint
        .authorized(client.get(endpoint.url.clone()))
        .header(ACCEPT, ACCEPTED)
        .header("x-prometheus-scrape-timeout-seconds", timeout.as_secs_f64().to_string());
    let mut answer = request.send().await.map_err(broken)?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(ScrapeError::Status(answer.status()));
    }
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open_metrics = kind.trim_start().to_ascii_lowercase().starts_with("application/openmetrics-text");
    let format = if open_metrics { TextFormat::OpenMetrics } else { TextFormat::Prometheus004 };
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if text.len() + chunk.len() > most {
            return Err(ScrapeError::TooLarge(most));
        }
        text.extend_from_slice(&chunk);
    }
    Ok((text, format))
}
