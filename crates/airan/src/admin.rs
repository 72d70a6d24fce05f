//! The admin server: metrics, health, the nodes without a site, and the page.
//!
//! It is up before the roles are and after they have gone, so that a process that cannot start says why. It reads only what
//! roles report; nothing here can hold a role up.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use airan_gateway::Intake;
use airan_model::time::format_rfc3339;
use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use prometheus::{Encoder, Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{AdminSection, ConfigError};
use crate::page::{self, About, Guard, LakeView, Trouble};

/// How long a check may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks one part of the process whether it is able to work.
type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the admin server shows. Cheap to clone.
#[derive(Clone, Default)]
pub struct Admin {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    checks: Mutex<Vec<(&'static str, Check)>>,
    /// Why nothing works yet.
    starting: Mutex<Option<String>>,
    gateway: OnceLock<Intake>,
    about: OnceLock<About>,
    lake: OnceLock<LakeView>,
}

/// A node that sends rows and that no inventory places.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub node: String,
    /// Its rows since the gateway started.
    pub rows: u64,
    /// When the last of them came, RFC 3339.
    pub last_seen: String,
}

impl Admin {
    /// The registry of this process.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Says why the process is not able to work yet; None once it is.
    pub fn starting(&self, why: Option<&str>) {
        *self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner) = why.map(str::to_owned);
    }

    /// Adds a part whose ability `/readyz` tells.
    pub fn watch<F>(&self, part: &'static str, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner).push((part, check));
    }

    /// Adds the gateway, which knows the nodes without a site.
    pub fn show_missing_of(&self, intake: Intake) {
        let _ = self.inner.gateway.set(intake);
    }

    /// Says what the process is. The first call counts.
    pub fn introduce(&self, about: About) {
        let _ = self.inner.about.set(about);
    }

    /// What the process is; nothing before it is known.
    pub fn about(&self) -> About {
        self.inner.about.get().cloned().unwrap_or_default()
    }

    /// Adds the lake, once it is open, for the page.
    pub fn show_lake(&self, view: LakeView) {
        let _ = self.inner.lake.set(view);
    }

    /// The lake of this process.
    ///
    /// # Errors
    /// If it is not open yet, or this process has none.
    pub fn lake_view(&self) -> Result<&LakeView, Trouble> {
        self.inner.lake.get().ok_or_else(|| match self.about().roles.contains(&"processor") {
            true => Trouble::NotNow("the lake is not open yet; /readyz says what is waited for".to_owned()),
            false => {
                let told = "this process has no lake: open the page of a processor, on its admin port";
                Trouble::NotHere(told.to_owned())
            }
        })
    }

    /// Takes the port.
    ///
    /// # Errors
    /// If the address is not a loopback one without `insecure`, or is taken.
    pub async fn bind(section: &AdminSection) -> Result<TcpListener> {
        section.check().map_err(|bad| ConfigError { place: None, message: bad.to_string() })?;
        TcpListener::bind(section.listen)
            .await
            .with_context(|| format!("cannot listen on {} (set another address in admin.listen)", section.listen))
    }

    /// Serves until stopped, by the names of the port's address and by `hosts`.
    pub async fn serve(self, listener: TcpListener, hosts: &[String], stop: CancellationToken) -> std::io::Result<()> {
        let guard = Guard::of(listener.local_addr()?, hosts);
        let routes = page::routes()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/inventory/missing", get(missing))
            .with_state(self);
        axum::serve(listener, page::guarded(routes, guard)).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    /// What keeps the process from working, a line each; empty when it is ready.
    pub async fn troubles(&self) -> Vec<String> {
        if let Some(why) = &*self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner) {
            return vec![format!("starting: {why}")];
        }
        let checks = self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = checks.iter().map(|(part, check)| async move {
            match tokio::time::timeout(PATIENCE, check()).await {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some(format!("{part}: {reason}")),
                Err(_) => Some(format!("{part}: no answer within {} s", PATIENCE.as_secs())),
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.inner.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let troubles = admin.troubles().await;
    match troubles.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", troubles.join("\n"))).into_response(),
    }
}

async fn missing(State(admin): State<Admin>) -> Response {
    let Some(intake) = admin.inner.gateway.get() else {
        return (StatusCode::NOT_FOUND, "this process has no gateway\n").into_response();
    };
    let rows = intake.missing().into_iter();
    let rows = rows.map(|of| Missing { node: of.node, rows: of.rows, last_seen: format_rfc3339(of.last_seen) });
    match serde_json::to_vec(&rows.collect::<Vec<_>>()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a process that starts, then works, then has a part in trouble and one that does not answer.
    /// Guarantees: `/readyz` names the reasons.
    #[tokio::test]
    async fn readiness_names_the_parts_in_trouble() {
        let admin = Admin::default();
        admin.starting(Some("waiting for the bus"));
        assert_eq!(admin.troubles().await, ["starting: waiting for the bus"]);
        admin.starting(None);
        assert!(admin.troubles().await.is_empty());
        admin.watch("bus", || async { Ok(()) });
        admin.watch("processor", || async { Err("shard 3 is starting".to_owned()) });
        admin.watch("slow", futures::future::pending);
        assert_eq!(admin.troubles().await, ["processor: shard 3 is starting", "slow: no answer within 2 s"]);
    }

    /// Scenario: an admin server on all interfaces, with and without `insecure`; then a taken port.
    /// Guarantees: refused in one line that names the setting.
    #[tokio::test]
    async fn the_admin_port_is_refused_by_name() {
        let open = AdminSection { listen: "0.0.0.0:0".parse().unwrap(), insecure: false, hosts: Vec::new() };
        let told = Admin::bind(&open).await.unwrap_err();
        assert!(told.is::<ConfigError>() && told.to_string().contains("admin.insecure"), "{told}");
        let first = Admin::bind(&AdminSection { insecure: true, ..open.clone() }).await.unwrap();
        let taken = AdminSection { listen: first.local_addr().unwrap(), insecure: true, ..open };
        let told = format!("{:#}", Admin::bind(&taken).await.unwrap_err());
        assert!(told.contains("admin.listen") && told.contains("in use"), "{told}");
    }
}
