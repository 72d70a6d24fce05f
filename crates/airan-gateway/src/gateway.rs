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
//!
//! Topics of others ([`Settings::kafka_in`]) are one more door, which fetches: what for a request is its answer, is here that the
//! message's offset is reported.
//!
//! The doors come first ([`Doors::bind`]) and listen before there is a bus: until [`Gateway::run`] they answer 503 with
//! Retry-After (`UNAVAILABLE` with RetryInfo). Sockets and connections stay the same when the rest comes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_model::catalog::Catalog;
use airan_model::inventory::Inventory;
use airan_model::settings::BadSetting;
use airan_model::time::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::doors::serve::{Serving, serve};
use crate::doors::{Entrance, grpc, http, kafka};
use crate::intake::Intake;
use crate::metrics::GatewayMetrics;
use crate::missing::MissingNode;
use crate::rejects::{self, RejectWriter};
use crate::settings::Settings;
use crate::ticks;

/// Rows already gathered have this long to reach the bus, also when requests took all the time there was for draining.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The doors alone: they listen, and answer that the sender may come again. Dropped, they are closed at once.
pub struct Doors {
    settings: Settings,
    metrics: Arc<GatewayMetrics>,
    entrance: Entrance,
    addresses: Addresses,
    serving: JoinSet<()>,
    closing: CancellationToken,
}

/// The gateway role, its doors not yet open.
pub struct Gateway {
    doors: Doors,
    bus: Arc<dyn Bus>,
    intake: Intake,
    rejects: RejectWriter,
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
    Setting(#[from] BadSetting),
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

impl Doors {
    /// Checks the settings, takes the ports and answers on them. Must be called inside a tokio runtime.
    pub async fn bind(settings: Settings) -> Result<Doors, BindError> {
        settings.check()?;
        let http = listen("http", settings.http).await?;
        let grpc = listen("grpc", settings.grpc).await?;
        let at = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
        let addresses = Addresses { http: at(&http, settings.http), grpc: at(&grpc, settings.grpc) };
        let metrics = Arc::new(GatewayMetrics::new()?);
        let entrance = Entrance::new(Arc::clone(&metrics), settings.load.retry_after.get());
        let closing = CancellationToken::new();
        let serving_as = |name: &'static str, only_http2| Serving {
            name,
            connections: settings.load.connections,
            header_timeout: settings.request.header_timeout.get(),
            drain: settings.drain.get(),
            only_http2,
            open: metrics.connections.with_label_values(&[name]),
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(http, http::routes(entrance.clone()), serving_as("http", false), closing.clone()));
        serving.spawn(serve(grpc, grpc::routes(entrance.clone()), serving_as("grpc", true), closing.clone()));
        Ok(Doors { settings, metrics, entrance, addresses, serving, closing })
    }

    /// Puts the rest of the gateway behind the doors. They open when it runs.
    pub fn lead_to(
        self,
        bus: Arc<dyn Bus>,
        catalog: Arc<Catalog>,
        inventory: watch::Receiver<Arc<Inventory>>,
        clock: Clock,
    ) -> Gateway {
        let (record, rejects) = rejects::channel(Arc::clone(&bus), Arc::clone(&self.metrics));
        let metrics = Arc::clone(&self.metrics);
        let intake = Intake::new(&self.settings, &bus, catalog, inventory, clock, record, metrics);
        Gateway { doors: self, bus, intake, rejects }
    }

    /// Where they listen.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the gateway counts, from the first request on.
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl Gateway {
    /// Doors and what stands behind them, in one step. Rows are taken through [`Gateway::intake`] from here on, through the
    /// doors once it runs. Must be called inside a tokio runtime.
    pub async fn bind(
        settings: Settings,
        bus: Arc<dyn Bus>,
        catalog: Arc<Catalog>,
        inventory: watch::Receiver<Arc<Inventory>>,
        clock: Clock,
    ) -> Result<Gateway, BindError> {
        Ok(Doors::bind(settings).await?.lead_to(bus, catalog, inventory, clock))
    }

    /// Opens the doors, before it is awaited; then serves until `stop` (or until a door breaks), and finishes what is under
    /// way, for at most the `drain` setting.
    pub fn run(self, stop: CancellationToken) -> impl Future<Output = Result<(), StopError>> + Send + 'static {
        let Addresses { http, grpc } = self.doors.addresses;
        self.doors.entrance.open(self.intake.clone());
        tracing::info!(%http, %grpc, "doors are open");
        self.serve(stop)
    }

    async fn serve(self, stop: CancellationToken) -> Result<(), StopError> {
        let Gateway { doors, bus, intake, rejects } = self;
        let Doors { settings, metrics, serving: mut doors, closing, .. } = doors;
        let drain = settings.drain.get();
        let stopped = CancellationToken::new();
        let mut beside = JoinSet::new();
        beside.spawn(ticks::run(bus, settings.tick.get(), Arc::clone(&metrics), closing.clone()));
        beside.spawn(rejects.run(stopped.clone()));
        beside.spawn(follow_inventory(intake.clone(), closing.clone()));
        for topic in &settings.kafka_in {
            doors.spawn(kafka::read(topic.clone(), intake.clone(), drain, closing.clone()));
        }

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
        self.doors.addresses
    }

    /// What the gateway counts.
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        self.doors.metrics()
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

/// Puts each new inventory in force.
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
        intake.inner.follow(now);
    }
}
