//! Keeps pages of other origins from reading this port through a browser.
//!
//! A server on a loopback address is reached by every page that the browser beside it has open: a page can give its own host
//! name the address 127.0.0.1 and then counts as of one origin with us (DNS rebinding). What it cannot do is lie in the `Host`
//! header, so on loopback only the names of loopback, and those in `admin.hosts`, are answered. On other addresses, which
//! `admin.insecure` allows, the port is open to whoever reaches it, by any name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// Only what this server has; no inline script or style; no text becomes markup; in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Sent with every answer.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Which names the port answers to.
#[derive(Clone, Debug)]
pub struct Guard {
    /// None: to all.
    hosts: Option<Arc<[String]>>,
}

impl Guard {
    /// For a server that listens on `address` and is also known as `hosts`.
    pub fn of(address: SocketAddr, hosts: &[String]) -> Guard {
        let is_loopback = address.ip().to_canonical().is_loopback();
        Guard { hosts: is_loopback.then(|| hosts.iter().map(|host| host.to_lowercase()).collect()) }
    }

    /// Whether a request that names `host` (with or without port) is answered.
    fn takes(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let name = without_port(host).to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_loopback = ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
        is_loopback || name == "localhost" || name.ends_with(".localhost") || hosts.iter().any(|known| known == name)
    }
}

/// `host` of `host:port` and `[::1]:port`.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') && host[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            &host[..at]
        }
        _ => host,
    }
}

/// The routes behind the guard.
pub fn guarded(routes: axum::Router, guard: Guard) -> axum::Router {
    routes.layer(middleware::from_fn_with_state(guard, check))
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    // HTTP/2 names the host in the address. Who names none is no browser.
    let named = request.uri().authority().map(|authority| authority.as_str());
    let named = named.or_else(|| request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?")));
    let mut answer = match named {
        Some(host) if !guard.takes(host) => {
            let told = "this port listens on a loopback address and answers to its names only: localhost, 127.0.0.1, [::1], \
                        and those in admin.hosts\n";
            (StatusCode::MISDIRECTED_REQUEST, told).into_response()
        }
        _ => next.run(request).await,
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: names in the `Host` header, to a port on loopback with and without names of its own, and to one on all addresses.
    /// Guarantees: a foreign name that leads to loopback is not answered, whatever its spelling.
    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        let guard = |address: &str, hosts: &[&str]| {
            Guard::of(address.parse().unwrap(), &hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
        };
        let local = guard("127.0.0.1:4320", &["Edge-1.Example"]);
        for host in
            ["127.0.0.1:4320", "127.9.9.9", "localhost", "LOCALHOST:80", "localhost.", "a.localhost:1", "[::1]:4320"]
        {
            assert!(local.takes(host), "{host}");
        }
        assert!(local.takes("edge-1.example:443") && local.takes("EDGE-1.example"));
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:4320",
            "0.0.0.0",
            "10.0.0.1:4320",
            "",
            "?",
            "evil.example:127.0.0.1",
            "[::2]",
            "xlocalhost",
            "edge-1.example.evil",
        ] {
            assert!(!local.takes(host), "{host}");
        }
        assert!(!guard("[::1]:1", &[]).takes("edge-1.example"));
        assert!(guard("0.0.0.0:4320", &[]).takes("edge-1.example"));
    }
}
