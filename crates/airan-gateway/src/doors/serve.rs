//! Listening, connections, and their end.
//!
//! A bounded number of connections, HTTP/1 and HTTP/2 without TLS on one port, time limits on whoever says nothing. On
//! shutdown the listener closes, idle connections close, and requests under way are finished until the deadline.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Peer;

/// Pause after the listener fails, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause before the rest of a preface that came in part is looked for.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// HTTP/2: headers, streams and windows of one connection. A sender of large requests fills a window of this size in a
/// round trip; a connection holds no more than its window in bytes that no request has read.
const HEADERS_MAX: u32 = 16 << 10;
const STREAMS_MAX: u32 = 128;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
const FRAME_MAX: u32 = 256 << 10;

/// HTTP/1: bytes of headers and, at a time, of a body.
const BUFFER_MAX: usize = 256 << 10;

/// How connections are treated.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    /// Of the listener, for logs.
    pub name: &'static str,
    /// Open connections at once.
    pub connections: usize,
    /// Time for a first byte, for a request's headers, and for a sign of life of a silent HTTP/2 connection.
    pub header_timeout: Duration,
    /// Time for requests under way at shutdown.
    pub drain: Duration,
    /// Serves gRPC alone, which is HTTP/2 alone.
    pub only_http2: bool,
    /// Open connections now.
    pub open: IntGauge,
}

/// Serves until `stop`, then until requests under way have ended or the time for it is over.
pub(crate) async fn serve(listener: TcpListener, routes: Router, serving: Serving, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(serving.connections));
    let server = Arc::new(builder(&serving));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&room).acquire_owned() => permit,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, routes, stop) = (Arc::clone(&server), routes.clone(), stop.clone());
                let (timeout, open) = (serving.header_timeout, serving.open.clone());
                connections.spawn(async move {
                    open.inc();
                    connection(stream, peer, &server, routes, timeout, stop).await;
                    open.dec();
                    drop(permit);
                });
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(door = serving.name, %error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(serving.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            door = serving.name,
            connections = connections.len(),
            "requests under way were cut off at shutdown"
        );
        serving.open.sub(connections.len() as i64);
        connections.shutdown().await;
    }
}

fn builder(serving: &Serving) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    if serving.only_http2 {
        server = server.http2_only();
    }
    server.http1().timer(TokioTimer::new()).header_read_timeout(serving.header_timeout).max_buf_size(BUFFER_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .keep_alive_interval(serving.header_timeout)
        .keep_alive_timeout(serving.header_timeout);
    server
}

/// One connection, to its end. A broken one is the peer's business and not worth a log line.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    server: &auto::Builder<TokioExecutor>,
    routes: Router,
    timeout: Duration,
    stop: CancellationToken,
) {
    // Who connects and says nothing, or half a protocol's name, does not keep one of the connections.
    let spoke = tokio::select! {
        () = stop.cancelled() => return,
        spoke = tokio::time::timeout(timeout, speaks(&stream)) => spoke.unwrap_or(false),
    };
    if !spoke || stream.set_nodelay(true).is_err() {
        return;
    }
    let peer = Peer(peer.ip().to_canonical().to_string().into());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(answer(routes, request.map(Body::new)).await) }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
            return;
        }
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Waits until the peer has said which HTTP it speaks; false if it has gone. Takes nothing from the stream.
///
/// The server itself waits for this without a limit, so it may begin only when its own wait is over.
async fn speaks(stream: &TcpStream) -> bool {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(said) if said == start.len() || !HTTP2_PREFACE.starts_with(&start[..said]) => return true,
            Ok(_) => tokio::time::sleep(PREFACE_PAUSE).await,
        }
    }
}

async fn answer(mut routes: Router, request: http::Request<Body>) -> axum::response::Response {
    match <Router as tower::Service<_>>::call(&mut routes, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Errors of `accept` that concern one connection alone.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
