//! How an outcome looks to a sender: HTTP status and body, gRPC status.
//!
//! OTLP errors are `google.rpc.Status` in the request's own encoding, as the OTLP specification (failures) asks; the other
//! doors answer one line of JSON.

use airan_decode::Refused;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use prost::Message;
use serde_json::json;
use tonic::Code;

use crate::Refusal;
use crate::decompress::ACCEPTED;
use crate::intake::{Ack, Signal, whole_seconds};

/// Longest list of reasons in an answer.
const REASONS_MAX: usize = 16;

/// OTLP/HTTP has two encodings; errors come in the one the request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtlpEncoding {
    Protobuf,
    Json,
}

/// `google.rpc.Status`, as far as it is needed (googleapis, google/rpc/status.proto).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (google/rpc/error_details.proto).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct RetryDelay {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The HTTP status of a refusal.
pub(crate) fn http_status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Malformed { .. } => StatusCode::BAD_REQUEST,
        Refusal::TooLarge { .. } | Refusal::RowTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Unsupported { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refusal::OverShare { .. } => StatusCode::TOO_MANY_REQUESTS,
        // Not 408: senders of OTLP do not try that again, and the body would be lost.
        Refusal::Slow
        | Refusal::Busy { .. }
        | Refusal::Unavailable { .. }
        | Refusal::Unknown { .. }
        | Refusal::Internal { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The gRPC status of a refusal. What may be retried is as the OTLP specification's table of codes has it:
/// `RESOURCE_EXHAUSTED` only with a `RetryInfo`.
pub(crate) fn grpc_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Malformed { .. } => Code::InvalidArgument,
        Refusal::TooLarge { .. } | Refusal::RowTooLarge { .. } | Refusal::OverShare { .. } => Code::ResourceExhausted,
        Refusal::Unsupported { .. } => Code::Unimplemented,
        Refusal::Slow => Code::DeadlineExceeded,
        Refusal::Busy { .. } | Refusal::Unavailable { .. } | Refusal::Unknown { .. } | Refusal::Internal { .. } => {
            Code::Unavailable
        }
    }
}

/// The gRPC status with its details.
pub(crate) fn grpc_status(refusal: &Refusal) -> tonic::Status {
    let status = rpc_status(refusal);
    let details = if status.details.is_empty() { Bytes::new() } else { status.encode_to_vec().into() };
    tonic::Status::with_details(grpc_code(refusal), status.message, details)
}

fn rpc_status(refusal: &Refusal) -> RpcStatus {
    let details = refusal.retry_after().map(|wait| {
        let delay = RetryDelay { seconds: whole_seconds(wait) as i64, nanos: 0 };
        Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
        }
    });
    RpcStatus { code: grpc_code(refusal) as i32, message: words(refusal), details: details.into_iter().collect() }
}

/// The refusal in a sentence, with its place.
fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Malformed { message, position: Some(position), .. } if !message.contains(position.as_str()) => {
            format!("{message} ({position})")
        }
        other => other.to_string(),
    }
}

/// How many points or log records were refused on their own, and why; None where none was.
fn partial_success(ack: &Ack) -> Option<(i64, String)> {
    let rejected: u64 = ack.refused.iter().map(|refused| refused.count).sum();
    (rejected > 0).then(|| (i64::try_from(rejected).unwrap_or(i64::MAX), reasons(&ack.refused)))
}

/// The OTLP answer of a signal in protobuf, with what was refused one by one.
pub(crate) fn export_response(signal: Signal, ack: &Ack) -> Vec<u8> {
    let partial = partial_success(ack);
    match signal {
        Signal::Metrics => {
            let partial_success = partial.map(|(rejected_data_points, error_message)| ExportMetricsPartialSuccess {
                rejected_data_points,
                error_message,
            });
            ExportMetricsServiceResponse { partial_success }.encode_to_vec()
        }
        Signal::Logs => {
            let partial_success = partial.map(|(rejected_log_records, error_message)| ExportLogsPartialSuccess {
                rejected_log_records,
                error_message,
            });
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        }
    }
}

/// Reasons and counts, as `unsupported_metric: 3 (summary); bad_time: 1`.
fn reasons(refused: &[Refused]) -> String {
    let mut text = String::new();
    for (number, refused) in refused.iter().enumerate().take(REASONS_MAX) {
        let before = if number == 0 { "" } else { "; " };
        text.push_str(&format!("{before}{}: {}", refused.reason, refused.count));
        if !refused.example.is_empty() {
            text.push_str(&format!(" ({})", refused.example));
        }
    }
    text
}

/// The answer of the OTLP/HTTP door.
pub(crate) fn otlp(signal: Signal, encoding: OtlpEncoding, outcome: &Result<Ack, Refusal>) -> Response {
    let (status, message): (StatusCode, Bytes) = match (outcome, encoding) {
        (Ok(ack), OtlpEncoding::Protobuf) => (StatusCode::OK, export_response(signal, ack).into()),
        (Ok(ack), OtlpEncoding::Json) => {
            let refused = match signal {
                Signal::Metrics => "rejectedDataPoints",
                Signal::Logs => "rejectedLogRecords",
            };
            let body = match partial_success(ack) {
                // The JSON mapping of protobuf writes 64-bit integers as strings.
                Some((rejected, why)) => {
                    json!({"partialSuccess": {refused: rejected.to_string(), "errorMessage": why}})
                }
                None => json!({}),
            };
            (StatusCode::OK, body.to_string().into())
        }
        (Err(refusal), OtlpEncoding::Protobuf) => (http_status(refusal), rpc_status(refusal).encode_to_vec().into()),
        (Err(refusal), OtlpEncoding::Json) => {
            let status = rpc_status(refusal);
            (http_status(refusal), json!({"code": status.code, "message": status.message}).to_string().into())
        }
    };
    let content_type = match encoding {
        OtlpEncoding::Protobuf => "application/x-protobuf",
        OtlpEncoding::Json => "application/json",
    };
    finish(status, content_type, message, outcome.as_ref().err())
}

/// The answer of the NDJSON and Arrow doors: `{"rows": …, "refused": [{"reason", "count", "example"}, …]}`, or an error.
pub(crate) fn rows(outcome: &Result<Ack, Refusal>) -> Response {
    match outcome {
        Err(refusal) => error(refusal),
        Ok(ack) => {
            let list = |refused: &Refused| json!({"reason": refused.reason.as_str(), "count": refused.count, "example": refused.example});
            let refused: Vec<_> = ack.refused.iter().take(REASONS_MAX).map(list).collect();
            let (status, body) = match ack.refused.first() {
                Some(first) if ack.rows == 0 => {
                    let error = format!("no line could be read: {}", reasons(&ack.refused));
                    (
                        StatusCode::BAD_REQUEST,
                        json!({"error": error, "reason": first.reason.as_str(), "refused": refused}),
                    )
                }
                _ => (StatusCode::OK, json!({"rows": ack.rows, "refused": refused})),
            };
            finish(status, "application/json", format!("{body}\n").into(), None)
        }
    }
}

/// The answer of the remote write door (prometheus.io/docs/specs/prw, "Responses"): 204 where all was written, 400 where some
/// samples never will be, in both cases with the counts of what was; an error otherwise.
///
/// A sender retries on 5xx alone unless it is told otherwise, so what a retry can mend is 503 here: also a sender over its share.
pub(crate) fn remote_write(outcome: &Result<Ack, Refusal>) -> Response {
    let nothing = Ack::default();
    let (mut response, ack) = match outcome {
        Ok(ack) if ack.refused.is_empty() => {
            (finish(StatusCode::NO_CONTENT, "text/plain; charset=utf-8", Bytes::new(), None), ack)
        }
        Ok(ack) => {
            let message = format!("refused: {}\n", reasons(&ack.refused));
            (finish(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", message.into(), None), ack)
        }
        Err(refusal) => {
            let status = match refusal {
                Refusal::OverShare { .. } => StatusCode::SERVICE_UNAVAILABLE,
                other => http_status(other),
            };
            let message = format!("{}\n", words(refusal));
            (finish(status, "text/plain; charset=utf-8", message.into(), Some(refusal)), &nothing)
        }
    };
    if let Some(accepted) = response.headers_mut().get_mut(ACCEPT_ENCODING) {
        *accepted = HeaderValue::from_static("snappy, zstd, identity");
    }
    let histograms = ack.tally.histograms;
    let samples = ack.tally.samples - ack.tally.refused - histograms;
    for (name, count) in [
        ("x-prometheus-remote-write-samples-written", samples),
        ("x-prometheus-remote-write-histograms-written", histograms),
        ("x-prometheus-remote-write-exemplars-written", 0),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
    }
    response
}

/// One line of JSON about a refusal.
pub(crate) fn error(refusal: &Refusal) -> Response {
    let body = json!({"error": words(refusal), "reason": refusal.reason()});
    finish(http_status(refusal), "application/json", format!("{body}\n").into(), Some(refusal))
}

/// One line of JSON about a path or method that is not there.
pub(crate) fn no_such(status: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"error": message, "reason": reason});
    finish(status, "application/json", format!("{body}\n").into(), None)
}

fn finish(status: StatusCode, content_type: &'static str, body: Bytes, refusal: Option<&Refusal>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(wait) = refusal.and_then(Refusal::retry_after) {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use airan_model::reject::Reason;

    use super::*;

    fn every_refusal() -> Vec<(Refusal, u16, Code)> {
        let retry_after = Duration::from_millis(1_500);
        let message = String::new;
        vec![
            (Refusal::malformed(Reason::Malformed, "no"), 400, Code::InvalidArgument),
            (Refusal::TooLarge { limit: 1 }, 413, Code::ResourceExhausted),
            (Refusal::RowTooLarge { limit: 1 }, 413, Code::ResourceExhausted),
            (Refusal::Unsupported { message: message() }, 415, Code::Unimplemented),
            (Refusal::OverShare { retry_after }, 429, Code::ResourceExhausted),
            (Refusal::Slow, 503, Code::DeadlineExceeded),
            (Refusal::Busy { what: "requests", retry_after }, 503, Code::Unavailable),
            (Refusal::Unavailable { message: message(), retry_after }, 503, Code::Unavailable),
            (Refusal::Unknown { message: message(), retry_after }, 503, Code::Unavailable),
            (Refusal::Internal { message: message(), retry_after }, 503, Code::Unavailable),
        ]
    }

    /// Scenario: each refusal at each kind of door.
    /// Guarantees: the status is the documented one, and a retry is asked for exactly where one helps.
    #[test]
    fn each_refusal_has_its_status() {
        for (refusal, status, code) in every_refusal() {
            let response = error(&refusal);
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            let wait = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(wait.as_deref(), refusal.retry_after().map(|_| "2"), "{refusal:?}");
            let grpc = grpc_status(&refusal);
            assert_eq!(grpc.code(), code, "{refusal:?}");
            assert_eq!(!grpc.details().is_empty(), refusal.retry_after().is_some(), "{refusal:?}");
            let otlp = otlp(Signal::Logs, OtlpEncoding::Protobuf, &Err(refusal.clone()));
            assert_eq!(otlp.status().as_u16(), status, "{refusal:?}");
        }
    }

    /// Scenario: points refused for two reasons, and log records.
    /// Guarantees: the answer names both with their counts, in the signal's own message.
    #[test]
    fn partial_success_names_reasons_and_counts() {
        let of = |reason, count, example: &str| Refused { reason, count, example: example.to_owned() };
        let refused = vec![of(Reason::UnsupportedMetric, 3, "summary"), of(Reason::BadTime, 1, "")];
        let ack = Ack { rows: 5, refused, ..Ack::default() };
        let metrics = ExportMetricsServiceResponse::decode(&export_response(Signal::Metrics, &ack)[..]).unwrap();
        let partial = metrics.partial_success.unwrap();
        assert_eq!(partial.rejected_data_points, 4);
        assert_eq!(partial.error_message, "unsupported_metric: 3 (summary); bad_time: 1");
        let logs = ExportLogsServiceResponse::decode(&export_response(Signal::Logs, &ack)[..]).unwrap();
        assert_eq!(logs.partial_success.unwrap().rejected_log_records, 4);
        assert!(export_response(Signal::Logs, &Ack::default()).is_empty());
        assert!(export_response(Signal::Metrics, &Ack::default()).is_empty());
    }
}
