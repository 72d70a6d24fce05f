//! The HTTP door: `POST /v1/metrics` and `/v1/logs` (OTLP/HTTP), `/v1/ndjson`, `/v1/arrow` and `/api/v1/write` (Prometheus remote write).
//!
//! | path | content types | answer |
//! | --- | --- | --- |
//! | `/v1/metrics` | `application/x-protobuf`, `application/json` | `ExportMetricsServiceResponse` in the request's encoding |
//! | `/v1/logs` | the same | `ExportLogsServiceResponse`: events are rows, other records are refused one by one |
//! | `/v1/ndjson` | `application/x-ndjson`, `application/jsonl`, `application/json` | JSON: rows kept, lines refused by reason |
//! | `/v1/arrow` | `application/vnd.apache.arrow.stream` | the same; header `airan-stream` names the stream |
//! | `/api/v1/write` | `application/x-protobuf`, `proto` says which version | 204, with the counts of what was written |
//!
//! All take `Content-Encoding` gzip, zstd and snappy (blocks). `Idempotency-Key` makes a body without times known when it is sent again.

use airan_decode::RemoteWrite;
use airan_model::reject::Reason;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Request, StatusCode};

use super::answer::{self, OtlpEncoding};
use super::{Entrance, Meant, media_type, receive};
use crate::decompress::Encoding;
use crate::intake::{Ack, Format, Signal};
use crate::{Door, Refusal};

/// The stream of an Arrow body.
const STREAM: HeaderName = HeaderName::from_static("airan-stream");
/// What makes two bodies without times one.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key or stream name.
const NAME_MAX: usize = 256;

/// The routes of this door.
pub(crate) fn routes(entrance: Entrance) -> Router {
    Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .route("/v1/ndjson", post(ndjson))
        .route("/v1/arrow", post(arrow))
        .route("/api/v1/write", post(remote_write))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .with_state(entrance)
}

async fn metrics(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    otlp(&entrance, Signal::Metrics, request).await
}

async fn logs(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    otlp(&entrance, Signal::Logs, request).await
}

async fn otlp(entrance: &Entrance, signal: Signal, request: Request<Body>) -> Response {
    // Errors about the content type itself are answered in JSON, which a person can read.
    let encoding = match otlp_encoding(request.headers()) {
        Ok(encoding) => encoding,
        Err(_) => OtlpEncoding::Json,
    };
    let outcome = receive(entrance, Door::OtlpHttp, request, |headers| otlp_meaning(headers, signal)).await;
    counted(entrance, Door::OtlpHttp, answer::otlp(signal, encoding, &outcome))
}

async fn ndjson(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    let outcome = receive(&entrance, Door::Ndjson, request, ndjson_meaning).await;
    rows_answer(&entrance, Door::Ndjson, &outcome)
}

async fn arrow(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    let outcome = receive(&entrance, Door::Arrow, request, arrow_meaning).await;
    rows_answer(&entrance, Door::Arrow, &outcome)
}

async fn remote_write(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    let outcome = receive(&entrance, Door::RemoteWrite, request, remote_write_meaning).await;
    counted(&entrance, Door::RemoteWrite, answer::remote_write(&outcome))
}

fn rows_answer(entrance: &Entrance, door: Door, outcome: &Result<Ack, Refusal>) -> Response {
    counted(entrance, door, answer::rows(outcome))
}

async fn no_path(State(entrance): State<Entrance>) -> Response {
    let known = "there are POST /v1/metrics, /v1/logs, /v1/ndjson, /v1/arrow and /api/v1/write";
    count(&entrance, "none", answer::no_such(StatusCode::NOT_FOUND, "not_found", known))
}

async fn no_method(State(entrance): State<Entrance>) -> Response {
    count(
        &entrance,
        "none",
        answer::no_such(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes POST"),
    )
}

fn counted(entrance: &Entrance, door: Door, response: Response) -> Response {
    count(entrance, door.as_str(), response)
}

fn count(entrance: &Entrance, door: &str, response: Response) -> Response {
    entrance.metrics.requests.with_label_values(&[door, response.status().as_str()]).inc();
    response
}

fn otlp_encoding(headers: &HeaderMap) -> Result<OtlpEncoding, Refusal> {
    match media_type(headers) {
        Some(media) if media.eq_ignore_ascii_case("application/x-protobuf") => Ok(OtlpEncoding::Protobuf),
        Some(media) if media.eq_ignore_ascii_case("application/json") => Ok(OtlpEncoding::Json),
        _ => Err(Refusal::Unsupported {
            message: "the content type is neither application/x-protobuf nor application/json".to_owned(),
        }),
    }
}

fn otlp_meaning(headers: &HeaderMap, signal: Signal) -> Result<Meant, Refusal> {
    let format = match otlp_encoding(headers)? {
        OtlpEncoding::Protobuf => Format::OtlpProtobuf(signal),
        OtlpEncoding::Json => Format::OtlpJson(signal),
    };
    meaning(headers, format, None)
}

fn ndjson_meaning(headers: &HeaderMap) -> Result<Meant, Refusal> {
    const TYPES: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];
    one_of(headers, &TYPES)?;
    meaning(headers, Format::Ndjson, None)
}

fn arrow_meaning(headers: &HeaderMap) -> Result<Meant, Refusal> {
    one_of(headers, &["application/vnd.apache.arrow.stream"])?;
    let stream = name(headers, &STREAM)?;
    let missing = || Refusal::malformed(Reason::UnknownStream, "header airan-stream must name the stream of the rows");
    meaning(headers, Format::ArrowIpc, Some(stream.ok_or_else(missing)?))
}

/// By the content type alone: the version header repeats it, and senders of 1.0 from before the specification have neither.
fn remote_write_meaning(headers: &HeaderMap) -> Result<Meant, Refusal> {
    one_of(headers, &["application/x-protobuf"])?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let proto = content_type.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("proto="));
    let version = match proto.map(|proto| proto.trim_matches('"')) {
        None | Some("prometheus.WriteRequest") => RemoteWrite::V1,
        Some("io.prometheus.write.v2.Request") => RemoteWrite::V2,
        Some(_) => {
            let message = "proto is neither prometheus.WriteRequest nor io.prometheus.write.v2.Request";
            return Err(Refusal::Unsupported { message: message.to_owned() });
        }
    };
    let meant = meaning(headers, Format::RemoteWrite(version), None)?;
    // The specification knows snappy; zstd is what Prometheus has beside it.
    if meant.encoding == Encoding::Gzip {
        return Err(Refusal::Unsupported { message: "the encoding is neither snappy nor zstd".to_owned() });
    }
    Ok(meant)
}

fn meaning(headers: &HeaderMap, format: Format, stream: Option<String>) -> Result<Meant, Refusal> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = Encoding::from_header(encodings.next().map(|value| value.as_bytes()))?;
    if encodings.next().is_some() {
        return Err(Refusal::Unsupported { message: "more than one content encoding".to_owned() });
    }
    Ok(Meant { format, encoding, stream, idempotency: name(headers, &IDEMPOTENCY_KEY)? })
}

fn one_of(headers: &HeaderMap, types: &[&str]) -> Result<(), Refusal> {
    match media_type(headers) {
        Some(media) if types.iter().any(|known| media.eq_ignore_ascii_case(known)) => Ok(()),
        _ => Err(Refusal::Unsupported { message: format!("the content type is not one of {}", types.join(", ")) }),
    }
}

fn name(headers: &HeaderMap, header: &HeaderName) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(header) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok(name) if !name.is_empty() && name.len() <= NAME_MAX => Ok(Some(name.to_owned())),
        _ => Err(Refusal::malformed(
            Reason::Malformed,
            format!("header {header} must be 1 to {NAME_MAX} visible ASCII characters"),
        )),
    }
}
