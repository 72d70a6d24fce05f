//! The OTLP/HTTP door of a real gateway: bytes from a socket → rows → acknowledged message. The sender is another process, so
//! its time is not counted; the kernel's share of the sockets is.

use std::sync::Arc;

use airan_bus::Bus;
use airan_gateway::Gateway;
use airan_model::catalog::Catalog;
use airan_model::inventory::Inventory;
use airan_model::time::Clock;
use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::BenchBus;
use crate::otlp::{self, POINTS};
use crate::report::{Meter, Part};
use crate::settings;

/// Requests under way at a time.
const SENDERS: usize = 16;

/// Serves `requests` requests that a child process sends.
pub async fn serve(requests: usize) -> Result<Part> {
    let mut settings = settings::defaults()?.gateway;
    settings.http = "127.0.0.1:0".parse()?;
    settings.grpc = "127.0.0.1:0".parse()?;
    // One sender, far over the share of one.
    settings.share.bytes_per_second = "100GiB".parse()?;
    settings.share.burst = "100GiB".parse()?;
    let bus = BenchBus::default();
    let shared: Arc<dyn Bus> = Arc::new(bus.clone());
    let inventory = Inventory::parse("bench", "regions: []").context("an inventory")?;
    let (_keep, inventory) = watch::channel(Arc::new(inventory));
    let gateway = Gateway::bind(settings, shared, Arc::new(Catalog::builtin()?), inventory, Clock::system()).await?;
    let address = gateway.addresses().http.to_string();
    let stop = CancellationToken::new();
    let run = tokio::spawn(gateway.run(stop.clone()));
    let meter = Meter::start();
    let own = std::env::current_exe()?;
    let sent = tokio::task::spawn_blocking(move || {
        std::process::Command::new(own).args(["send", &address, &requests.to_string()]).status()
    });
    ensure!(sent.await??.success(), "the sender failed");
    let part = meter.stop((requests * POINTS) as u64);
    ensure!(bus.acknowledged() > 0, "no rows on the bus");
    stop.cancel();
    run.await??;
    Ok(part)
}

/// Sends `requests` different requests, [`SENDERS`] at a time; each must be acknowledged.
pub fn send(address: &str, requests: usize) -> Result<()> {
    let now = Clock::system().now();
    let bodies: Vec<Vec<u8>> =
        (0..requests).map(|number| otlp::body(number, (now as u64 + number as u64) * 1000)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, url) = (reqwest::Client::new(), format!("http://{address}/v1/metrics"));
        let mut bodies = bodies.into_iter();
        let mut under_way = tokio::task::JoinSet::new();
        loop {
            while under_way.len() < SENDERS
                && let Some(body) = bodies.next()
            {
                let request = client.post(&url).header("content-type", "application/x-protobuf").body(body);
                under_way.spawn(async move { request.send().await?.error_for_status()?.bytes().await });
            }
            let Some(answer) = under_way.join_next().await else { return Ok(()) };
            let answer = answer??;
            ensure!(answer.is_empty(), "a partial success: {answer:?}");
        }
    })
}
