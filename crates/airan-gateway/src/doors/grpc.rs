//! The OTLP/gRPC door: `MetricsService/Export` and `LogsService/Export`, unary, over HTTP/2 without TLS (h2c).
//!
//! A unary call is five bytes of prefix and a message, so the framing is done here and everything behind it is the HTTP
//! door's: the same limits, hard also while decompressing, and the message's bytes, which a row's identity is a hash of.
//! (A size limit of tonic's would be answered `OUT_OF_RANGE`, which OTLP senders retry.)

use std::convert::Infallible;

use airan_model::reject::Reason;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::any;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::answer::{export_response, grpc_status};
use super::{Arrived, Entrance, arrive, enter, media_type};
use crate::decompress::Encoding;
use crate::intake::{Ack, Format, Parcel, Signal};
use crate::{Door, Refusal};

const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Compressed flag and big-endian length.
const PREFIX: usize = 5;

/// The routes of this door.
pub(crate) fn routes(entrance: Entrance) -> Router {
    Router::new().route(METRICS, any(metrics)).route(LOGS, any(logs)).fallback(no_method).with_state(entrance)
}

async fn metrics(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    export(&entrance, Signal::Metrics, request).await
}

async fn logs(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    export(&entrance, Signal::Logs, request).await
}

async fn export(entrance: &Entrance, signal: Signal, request: Request<Body>) -> Response {
    if !is_grpc(&request) {
        count(entrance, Code::Internal);
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let outcome = call(entrance, signal, request).await;
    match outcome {
        Ok(ack) => {
            count(entrance, Code::Ok);
            succeeded(signal, &ack)
        }
        Err(refusal) => {
            let status = grpc_status(&refusal);
            count(entrance, status.code());
            failed(status)
        }
    }
}

async fn no_method(State(entrance): State<Entrance>, request: Request<Body>) -> Response {
    count(&entrance, Code::Unimplemented);
    match is_grpc(&request) {
        true => failed(Status::unimplemented("only the services of metrics and logs are here")),
        false => plain(StatusCode::NOT_FOUND),
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let media = media_type(request.headers()).unwrap_or_default();
    let grpc = media.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest == "+proto");
    grpc && request.method() == Method::POST
}

async fn call(entrance: &Entrance, signal: Signal, request: Request<Body>) -> Result<Ack, Refusal> {
    let (head, body) = request.into_parts();
    let (intake, body) = enter(entrance, &head.headers, body).await?;
    let inner = &intake.inner;
    let timeout = grpc_timeout(&head.headers).map_or(inner.timeout, |asked| asked.min(inner.timeout));
    let deadline = Instant::now() + timeout;
    let limit = inner.limits.request_bytes.saturating_add(PREFIX);
    let Arrived { sender, mut ticket, body } = arrive(intake, Door::OtlpGrpc, &head, body, limit, deadline).await?;
    let length = body.len();
    let (encoding, body) = unframe(&head.headers, body)
        .inspect_err(|refusal| inner.reject_unread(Door::OtlpGrpc, &sender, refusal, length as u64))?;
    ticket.release(PREFIX);
    let parcel = Parcel {
        door: Door::OtlpGrpc,
        format: Format::OtlpProtobuf(signal),
        sender,
        stream: None,
        idempotency: None,
        place: None,
        encoding,
        body,
    };
    intake.take(parcel, ticket, deadline).await
}

/// The only message of a unary call.
fn unframe(headers: &HeaderMap, body: Bytes) -> Result<(Encoding, Bytes), Refusal> {
    let broken = |message: &str| Refusal::malformed(Reason::Malformed, message);
    let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(broken("the call has no message"));
    };
    if message.len() != u32::from_be_bytes([a, b, c, d]) as usize {
        return Err(broken("the call must have exactly one message, of the length its prefix gives"));
    }
    let encoding = match flag {
        0 => Encoding::Identity,
        1 => match headers.get(GRPC_ENCODING) {
            Some(name) => Encoding::from_header(Some(name.as_bytes()))?,
            None => return Err(broken("the message is compressed, but header grpc-encoding is missing")),
        },
        _ => return Err(broken("the message's compressed flag is neither 0 nor 1")),
    };
    Ok((encoding, body.slice(PREFIX..)))
}

/// The caller's own deadline, as the gRPC protocol writes it: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn succeeded(signal: Signal, ack: &Ack) -> Response {
    let message = export_response(signal, ack);
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    dressed(Response::new(Body::new(body)))
}

fn failed(status: Status) -> Response {
    dressed(status.into_http())
}

fn dressed(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
    response
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn count(entrance: &Entrance, code: Code) {
    let status = (code as i32).to_string();
    entrance.metrics.requests.with_label_values(&[Door::OtlpGrpc.as_str(), &status]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    /// Scenario: no prefix, a prefix that promises more or less than there is, two messages, an unknown flag or encoding.
    /// Guarantees: each is refused, and a good message comes out whole.
    #[test]
    fn a_call_is_exactly_one_message() {
        let gzip = header(GRPC_ENCODING, "gzip");
        let good = Bytes::from_static(b"\0\0\0\0\x02hi");
        assert_eq!(unframe(&gzip, good).unwrap(), (Encoding::Identity, Bytes::from_static(b"hi")));
        let packed = Bytes::from_static(b"\x01\0\0\0\x02hi");
        assert_eq!(unframe(&gzip, packed.clone()).unwrap().0, Encoding::Gzip);
        assert!(unframe(&HeaderMap::new(), packed.clone()).is_err());
        assert_eq!(unframe(&header(GRPC_ENCODING, "br"), packed).unwrap_err().reason(), "unsupported_format");
        for bad in
            [&b""[..], b"\0\0\0", b"\0\0\0\0\x03hi", b"\0\0\0\0\x01hi", b"\0\0\0\0\0\0\0\0\0\0", b"\x07\0\0\0\x02hi"]
        {
            assert!(unframe(&gzip, Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_callers_deadline_is_read() {
        let of = |text| grpc_timeout(&header(GRPC_TIMEOUT, text));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!((of("10"), of("S"), of("123456789S"), of("-1S")), (None, None, None, None));
    }
}
