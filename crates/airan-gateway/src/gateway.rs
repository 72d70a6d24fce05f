//! The gateway, whole: the first half of the picture in DESIGN section 2.
//!
//! ```text
//! door ──▶ decode ──▶ admit ──▶ gather ──▶ bus (produce)
//!   ▲                                        │
//!   └────────────── answer ◀─────────────────┘   after the acknowledgement of each row
//! ```
//!
//! | step | file | what it does |
//! | --- | --- | --- |
//! | door | `doors/` | listens; who sends, is there room, is it small enough; answers in the sender's own terms |
//! | decode | `intake.rs`, `decompress.rs`, airan-decode | bytes to rows of streams, under the limits |
//! | admit | `admit.rs` | site and region, time of reception, implausible time, identity, partition |
//! | gather | `gather.rs`, `pack.rs` | rows of many requests to one message; each request learns its outcome |
//! | produce | airan-bus | durable before it is acknowledged |
//!
//! Beside the path: `ticks.rs` lets time pass in silent partitions, `rejects.rs` records what was refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_model::catalog::Catalog;
use airan_model::inventory::Inventory;
use airan_model::time::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::doors::serve::{Serving, serve};
use crate::doors::{grpc, http};
use crate::intake::Intake;
use crate::metrics::GatewayMetrics;
use crate::missing::MissingNode;
use crate::rejects::{self, RejectWriter};
use crate::settings::{SettingError, Settings};
use crate::ticks;

/// Rows already gathered have this long to reach the bus, also when requests took all the time there was for draining.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The gateway role, its doors bound but not yet open.
pub struct Gateway {
    settings: Settings,
    bus: Arc<dyn Bus>,
    intake: Intake,
    rejects: RejectWriter,
    http: TcpListener,
    grpc: TcpListener,
    addresses: Addresses,
}

/// Where the doors listen. With port 0 in the settings these are the ports the system chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP/HTTP, NDJSON and Arrow.
    pub http: SocketAddr,
    /// OTLP/gRPC.
    pub grpc: SocketAddr,
}

/// Why the gateway cannot start. All are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting that cannot work.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address} (gateway.{setting}): {error}")]
    Listen {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// A metric could not be made.
    #[error("metrics")]
    Metrics(#[from] prometheus::Error),
}

/// One of the gateway's tasks broke.
#[derive(Debug, thiserror::Error)]
#[error("a task of the gateway broke")]
pub struct StopError(#[from] JoinError);

impl Gateway {
    /// Checks the settings and takes the ports. Rows are taken through [`Gateway::intake`] from here on, through the doors
    /// once it runs. Must be called inside a tokio runtime.
    pub async fn bind(
        settings: Settings,
        bus: Arc<dyn Bus>,
        catalog: Arc<Catalog>,
        inventory: watch::Receiver<Arc<Inventory>>,
        clock: Clock,
    ) -> Result<Gateway, BindError> {
        settings.check()?;
        let http = listen("http", settings.http).await?;
        let grpc = listen("grpc", settings.grpc).await?;
        let at = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
        let addresses = Addresses { http: at(&http, settings.http), grpc: at(&grpc, settings.grpc) };
        let metrics = Arc::new(GatewayMetrics::new()?);
        let (record, rejects) = rejects::channel(Arc::clone(&bus), Arc::clone(&metrics));
        let intake = Intake::new(&settings, &bus, catalog, inventory, clock, record, metrics);
        Ok(Gateway { settings, bus, intake, rejects, http, grpc, addresses })
    }

    /// Opens the doors and serves until `stop` (or until a door breaks); then finishes what is under way, for at most the `drain` setting.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StopError> {
        let Gateway { settings, bus, intake, rejects, http, grpc, addresses } = self;
        let metrics = intake.metrics();
        let drain = settings.drain.get();
        tracing::info!(http = %addresses.http, grpc = %addresses.grpc, "doors are open");

        let serving = |name: &'static str, only_http2| Serving {
            name,
            connections: settings.load.connections,
            header_timeout: settings.request.header_timeout.get(),
            drain,
            only_http2,
            open: metrics.connections.with_label_values(&[name]),
        };
        let closing = stop.child_token();
        let stopped = CancellationToken::new();
        let mut doors = JoinSet::new();
        doors.spawn(serve(http, http::routes(intake.clone()), serving("http", false), closing.clone()));
        doors.spawn(serve(grpc, grpc::routes(intake.clone()), serving("grpc", true), closing.clone()));
        let mut beside = JoinSet::new();
        beside.spawn(ticks::run(bus, settings.tick.get(), Arc::clone(&metrics), closing.clone()));
        beside.spawn(rejects.run(stopped.clone()));
        beside.spawn(follow_inventory(intake.clone(), closing.clone()));

        let mut broken = tokio::select! {
            () = stop.cancelled() => None,
            ended = doors.join_next() => ended.and_then(Result::err),
        };
        closing.cancel();
        let deadline = Instant::now() + drain;
        while let Some(ended) = doors.join_next().await {
            broken = broken.or(ended.err());
        }
        intake.inner.gatherer.close(deadline.max(Instant::now() + LAST_WAIT)).await;
        stopped.cancel();
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, beside.join_next()).await {
            broken = broken.or(ended.err());
        }
        tracing::info!("doors are closed");
        broken.map_or(Ok(()), |error| Err(StopError(error)))
    }

    /// Where the doors listen.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the gateway counts.
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        self.intake.metrics()
    }

    /// The entrance for rows of this process; also tells which nodes have no site.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }
}

impl Intake {
    /// What the gateway counts.
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        Arc::clone(&self.inner.metrics)
    }

    /// The nodes that sent rows and that the inventory does not know, most rows first.
    pub fn missing(&self) -> Vec<MissingNode> {
        self.inner.missing.list()
    }
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError::Listen { setting, address, error })
}

/// Forgets missing nodes that a new inventory places.
async fn follow_inventory(intake: Intake, stop: CancellationToken) {
    let mut inventory = intake.inner.inventory.clone();
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = inventory.changed() => changed,
        };
        if changed.is_err() {
            return; // nobody reloads it any more
        }
        let now = Arc::clone(&inventory.borrow_and_update());
        intake.inner.missing.retain(|node| now.place(node).is_none());
        intake.inner.metrics.unassigned_nodes.set(intake.inner.missing.len() as i64);
    }
}
