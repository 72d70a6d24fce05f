//! Addresses of endpoints and of the gateway, which may hold a password.
//!
//! User, password and query of an address are secrets: they go to the endpoint and nowhere else. Whatever is printed of an
//! address is what [`Address::shown`] gives.

use std::fmt;

use airan_model::settings::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// An address as configured: `http://host:port/metrics`, perhaps `http://user:password@host:port/metrics?query`.
///
/// Never printed whole: `Debug` and serialisation put `***` in place of its secrets.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Address(String);

/// An address that can be used, apart from its user and password.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Where to ask, without user and password.
    pub(crate) url: reqwest::Url,
    /// Scheme, host, port and path, for logs.
    pub(crate) shown: String,
    /// User and password for basic authentication.
    pub(crate) user: Option<(String, Option<Secret>)>,
}

impl Address {
    /// The address itself, for the one call that needs it.
    pub(crate) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        let mut url = self.parsed()?;
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        }
        let decoded = |text: &str| percent_decoded(text);
        let password = url.password().map(|password| Secret::from(decoded(password)));
        let user = (!url.username().is_empty() || password.is_some()).then(|| (decoded(url.username()), password));
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        let shown = without_query(&url);
        Some(Endpoint { url, shown, user })
    }

    /// An HTTP address with a host; None for anything else. TLS is not built in.
    fn parsed(&self) -> Option<reqwest::Url> {
        reqwest::Url::parse(&self.0).ok().filter(|url| url.scheme() == "http" && url.has_host())
    }

    /// What may be printed of it.
    pub fn shown(&self) -> String {
        let Some(url) = self.parsed() else { return "***".to_owned() };
        let mut shown = without_query(&url);
        if url.query().is_some() {
            shown.push_str("?***");
        }
        if !url.username().is_empty() || url.password().is_some() {
            shown = shown.replacen("http://", "http://***@", 1);
        }
        shown
    }
}

/// Scheme, host, port and path alone.
fn without_query(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither fails for an address that has a host.
    let _ = (url.set_username(""), url.set_password(None));
    url.to_string()
}

/// The bytes that `%xx` stands for (RFC 3986, section 2.1).
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl Endpoint {
    /// The request with the user's name and password, if there are any.
    pub(crate) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.user {
            Some((user, password)) => request.basic_auth(user, password.as_ref().map(Secret::expose)),
            None => request,
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Address(text.to_owned())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Address(text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: addresses with user, password and query, and texts that are no usable address.
    /// Guarantees: what is printed holds none of these; what is sent holds all of them, with `%xx` taken back.
    #[test]
    fn secrets_of_an_address_are_sent_but_never_printed() {
        let address = Address::from("http://jo%40x:p%3Aw@host:9400/metrics?token=t0k");
        let endpoint = address.endpoint("").unwrap();
        assert_eq!(endpoint.url.as_str(), "http://host:9400/metrics?token=t0k");
        let (user, password) = endpoint.user.clone().unwrap();
        assert_eq!((user.as_str(), password.unwrap().expose()), ("jo@x", "p:w"));
        assert_eq!(endpoint.shown, "http://host:9400/metrics");
        assert_eq!(address.shown(), "http://***@host:9400/metrics?***");
        let plain = Address::from("http://gateway:4318/").endpoint("/v1/arrow").unwrap();
        assert_eq!((plain.url.as_str(), plain.user.is_none()), ("http://gateway:4318/v1/arrow", true));
        let printed = format!("{address:?} {endpoint:?}");
        for secret in ["jo", "p%3Aw", "p:w", "t0k"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        for none in ["jo:pw@host", "https://jo:pw@host/x", "http://jo:p/w@host:bad", ""] {
            let address = Address::from(none);
            assert!(address.endpoint("").is_none(), "{none}");
            assert_eq!(format!("{address:?}"), "***");
        }
    }

    #[test]
    fn a_percent_sign_that_stands_for_nothing_stays() {
        assert_eq!(percent_decoded("100%,%4,%zz,%41%"), "100%,%4,%zz,A%");
    }
}
