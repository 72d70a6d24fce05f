//! What all doors do with a request before its body means anything: who sends it, is there room, is it within its share and
//! its size. Then the intake takes over.

pub(crate) mod answer;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod serve;

#[cfg(test)]
#[path = "tests/mod.rs"]
mod door_tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT};
use ::http::{HeaderMap, HeaderName, Request, request};
use airan_model::reject::Reason;
use axum::body::Body;
use base64::Engine;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::decompress::Encoding;
use crate::inflight::Ticket;
use crate::intake::{Ack, Format, Intake, Parcel};
use crate::metrics::GatewayMetrics;
use crate::{Door, Refusal};

/// Who the sender says it is.
const SENDER: HeaderName = HeaderName::from_static("airan-sender");

/// Longest name a sender may give itself.
const SENDER_MAX: usize = 256;

/// Room set aside at once for a body that announces its length; beyond it the buffer grows with what arrives.
const AHEAD_MAX: usize = 1 << 20;

/// A refused body is read and thrown away up to this size and time, so that a sender still writing gets to read why.
const DISCARD_MAX: usize = 32 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The other end's address, as text. One for each connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub Arc<str>);

/// What a request's headers say about its body.
#[derive(Debug)]
pub(crate) struct Meant {
    pub format: Format,
    pub encoding: Encoding,
    pub stream: Option<String>,
    pub idempotency: Option<String>,
}

/// What stands behind the doors: nothing until the bus is there, then the intake. Cheap to clone.
///
/// The doors listen from the first moment, so a sender that comes early is told to come again, and neither loses its connection
/// when the intake comes nor is ever refused one.
#[derive(Clone)]
pub(crate) struct Entrance {
    intake: Arc<OnceLock<Intake>>,
    pub metrics: Arc<GatewayMetrics>,
    retry_after: Duration,
}

impl Entrance {
    /// Closed: every request is answered "send again".
    pub fn new(metrics: Arc<GatewayMetrics>, retry_after: Duration) -> Entrance {
        Entrance { intake: Arc::new(OnceLock::new()), metrics, retry_after }
    }

    /// Opens it, once.
    pub fn open(&self, intake: Intake) {
        let _ = self.intake.set(intake);
    }

    /// What takes requests now.
    fn intake(&self) -> Result<&Intake, Refusal> {
        let refusal = || Refusal::Unavailable {
            message: "the gateway has just started and waits for it".to_owned(),
            retry_after: self.retry_after,
        };
        self.intake.get().ok_or_else(refusal)
    }
}

/// A body that was let in.
pub(crate) struct Arrived {
    pub sender: Arc<str>,
    pub ticket: Ticket,
    pub body: Bytes,
}

/// Lets a request in and reads its body, as sent, up to `limit` bytes. A refusal is counted and recorded.
pub(crate) async fn arrive(
    intake: &Intake,
    door: Door,
    head: &request::Parts,
    body: Body,
    limit: usize,
    deadline: Instant,
) -> Result<Arrived, Refusal> {
    let inner = &intake.inner;
    let sender = sender(head)?;
    let length = content_length(&head.headers);
    let let_in = || {
        let ticket = inner.in_flight.enter()?;
        inner.check_share(&sender)?;
        match length {
            Some(length) if length > limit as u64 => Err(Refusal::TooLarge { limit: limit as u64 }),
            _ => Ok(ticket),
        }
    };
    let mut ticket = match let_in() {
        Ok(ticket) => ticket,
        Err(refusal) => {
            inner.reject_unread(door, &sender, &refusal, length.unwrap_or(0));
            discard(&head.headers, body).await;
            return Err(refusal);
        }
    };
    let ahead = length.map_or(0, |length| (length as usize).min(AHEAD_MAX));
    let mut body = body;
    let reading = read(&mut body, ahead, limit, &mut ticket);
    let read = tokio::time::timeout_at(deadline, reading).await.unwrap_or(Err(Refusal::Slow));
    match read {
        Ok(body) => Ok(Arrived { sender, ticket, body }),
        Err(refusal) => {
            inner.reject_unread(door, &sender, &refusal, length.unwrap_or(0));
            if refusal != Refusal::Slow {
                discard(&head.headers, body).await;
            }
            Err(refusal)
        }
    }
}

/// A whole HTTP request, from its headers to the end of each of its rows.
pub(crate) async fn receive(
    entrance: &Entrance,
    door: Door,
    request: Request<Body>,
    meaning: impl FnOnce(&HeaderMap) -> Result<Meant, Refusal>,
) -> Result<Ack, Refusal> {
    let (head, body) = request.into_parts();
    let (intake, body) = enter(entrance, &head.headers, body).await?;
    let inner = &intake.inner;
    let deadline = Instant::now() + inner.timeout;
    let meant = match meaning(&head.headers) {
        Ok(meant) => meant,
        Err(refusal) => {
            let sender = sender(&head)?;
            inner.reject_unread(door, &sender, &refusal, content_length(&head.headers).unwrap_or(0));
            discard(&head.headers, body).await;
            return Err(refusal);
        }
    };
    let Arrived { sender, ticket, body } =
        arrive(intake, door, &head, body, inner.limits.request_bytes, deadline).await?;
    let Meant { format, encoding, stream, idempotency } = meant;
    let parcel = Parcel { door, format, sender, stream, idempotency, place: None, encoding, body };
    intake.take(parcel, ticket, deadline).await
}

/// The intake, if there is one. A sender that is turned away gets to read why.
pub(crate) async fn enter<'a>(
    entrance: &'a Entrance,
    headers: &HeaderMap,
    body: Body,
) -> Result<(&'a Intake, Body), Refusal> {
    match entrance.intake() {
        Ok(intake) => Ok((intake, body)),
        Err(refusal) => {
            discard(headers, body).await;
            Err(refusal)
        }
    }
}

/// Who sends this: by its own word, else by its name for authorization, else by its address. A name only: it grants nothing.
fn sender(head: &request::Parts) -> Result<Arc<str>, Refusal> {
    if let Some(name) = head.headers.get(SENDER) {
        let name = name.to_str().map(str::trim).unwrap_or_default();
        if name.is_empty() || name.len() > SENDER_MAX {
            let message = format!("header airan-sender must be 1 to {SENDER_MAX} visible ASCII characters");
            return Err(Refusal::malformed(Reason::Malformed, message));
        }
        return Ok(name.into());
    }
    if let Some(name) = head.headers.get(AUTHORIZATION).and_then(|value| basic_user(value.as_bytes())) {
        return Ok(name.into());
    }
    Ok(head.extensions.get::<Peer>().map_or_else(|| "unknown".into(), |peer| Arc::clone(&peer.0)))
}

/// The user of `Basic` authorization, RFC 7617. A bearer token has no name to show.
fn basic_user(value: &[u8]) -> Option<String> {
    let (scheme, token) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || token.len() > 2 * SENDER_MAX {
        return None;
    }
    let plain = base64::engine::general_purpose::STANDARD.decode(token.trim_ascii()).ok()?;
    let user = plain.split(|byte| *byte == b':').next()?;
    String::from_utf8(user.to_vec()).ok().filter(|user| !user.is_empty() && user.len() <= SENDER_MAX)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The media type of a header's value, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(::http::header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// The body as sent. A body in one piece is not copied.
async fn read(body: &mut Body, ahead: usize, limit: usize, ticket: &mut Ticket) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::malformed(Reason::Malformed, "the body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(Refusal::TooLarge { limit: limit as u64 });
        }
        ticket.hold(data.len())?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(ahead.max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads on without keeping anything, within bounds.
async fn discard(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(EXPECT) {
        return; // the sender waits for our word before it writes
    }
    let throw_away = async {
        let mut thrown = 0;
        while let Some(Ok(frame)) = body.frame().await {
            thrown += frame.data_ref().map_or(0, Bytes::len);
            if thrown > DISCARD_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, throw_away).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str, value: &str) -> request::Parts {
        let peer = Peer("192.0.2.7".into());
        Request::builder().header(name, value).extension(peer).body(()).unwrap().into_parts().0
    }

    /// Scenario: a sender with a name, with Basic authorization, with a token, with neither, and with names that are none.
    /// Guarantees: a token never becomes a name.
    #[test]
    fn a_sender_is_known_by_its_name_or_its_address() {
        for (name, value, sender_is) in [
            ("airan-sender", "edge-7", Some("edge-7")),
            ("authorization", "Basic ZWRnZS04OnNlY3JldA==", Some("edge-8")),
            ("authorization", "Bearer c2VjcmV0", Some("192.0.2.7")),
            ("authorization", "Basic %%%", Some("192.0.2.7")),
            ("x-other", "1", Some("192.0.2.7")),
            ("airan-sender", "", None),
            ("airan-sender", &"x".repeat(SENDER_MAX + 1), None),
        ] {
            assert_eq!(sender(&head(name, value)).ok().as_deref(), sender_is, "{name}: {value}");
        }
    }
}
