//! A simulated site, for looking at the system without one: `airan up --demo`. Every number here is made up.
//!
//! ```text
//! day ─▶ site, second by second ─▶ lines of NDJSON ─▶ decode ─▶ stamp (one per node) ─▶ the agent's queue
//!         radio, compute, platform        │
//!                                         └─ of a node that is silent: held, and sent when it is back
//! ```
//!
//! The rows take the way of everybody else's: lines as a sender would write them, decoded by the decoder of the door, numbered as
//! an agent numbers them; `source` is [`SOURCE`]. What they say is a function of seed, dawn, start and time alone: no clock is read and
//! no chance is asked below [`run`].

mod compute;
mod day;
mod line;
mod noise;
mod platform;
mod radio;
mod site;

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_decode::{Context, ndjson};
use airan_model::identity::BatchId;
use airan_model::limits::Limits;
use airan_model::time::{Micros, SECOND};
use tokio_util::sync::CancellationToken;

pub use day::{Incident, incidents};
use line::Line;
use site::Site;

use crate::agent::Shared;
use crate::settings::DemoSettings;
use crate::stamp::Stamp;

/// What `source` says of every simulated row.
pub const SOURCE: &str = "demo";

/// The inventory of the simulated site.
pub const INVENTORY: &str = include_str!("inventory.yaml");

/// Seconds that are made up for at most where the process stood still, as a laptop that slept; beyond it they are left out.
const CATCH_UP: Micros = 600 * SECOND;

/// Lines that are decoded at once: of a backlog there are more.
const LINES: usize = 2_000;

/// Runs the site from now until `stop`.
pub(crate) async fn run(settings: DemoSettings, shared: Arc<Shared>, stop: CancellationToken) {
    let mut next = shared.clock.now().div_euclid(SECOND) * SECOND;
    let dawn = next - settings.begin.micros();
    let mut site = Site::new(settings.seed, settings.day.micros(), dawn, next);
    let mut outlet = Outlet::new(Arc::clone(&shared));
    loop {
        tokio::select! {
            () = shared.until(next) => {}
            () = stop.cancelled() => break,
        }
        let now = shared.clock.now();
        if now - next > CATCH_UP {
            tracing::warn!(seconds = (now - next) / SECOND, "the demo stood still: what it missed is left out");
            next = now.div_euclid(SECOND) * SECOND;
        }
        while next <= now {
            let lines = site.step(next);
            outlet.take(lines, |node| site.is_silent(node, next));
            next += SECOND;
        }
    }
    outlet.give_all();
}

/// Sends lines on, or holds those of nodes that are silent.
struct Outlet {
    shared: Arc<Shared>,
    nodes: BTreeMap<&'static str, Node>,
}

struct Node {
    stamp: Stamp,
    // At most the silent tenth of a day, see `DemoSettings::day`.
    held: Vec<String>,
}

impl Outlet {
    fn new(shared: Arc<Shared>) -> Outlet {
        let node = |name: &'static str| {
            (name, Node { stamp: Stamp::new(BatchId::random_from(rand::random())), held: Vec::new() })
        };
        Outlet { shared, nodes: site::NODES.into_iter().map(node).collect() }
    }

    fn take(&mut self, lines: Vec<Line>, is_silent: impl Fn(&str) -> bool) {
        let mut live: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for line in lines {
            live.entry(line.node).or_default().push(line.text());
        }
        for (name, node) in &mut self.nodes {
            let now = live.remove(name).unwrap_or_default();
            if is_silent(name) {
                node.held.extend(now);
                continue;
            }
            send(&self.shared, &node.stamp, &now);
            send(&self.shared, &node.stamp, &std::mem::take(&mut node.held));
        }
    }

    /// What is held, too: the process ends.
    fn give_all(&mut self) {
        for node in self.nodes.values_mut() {
            send(&self.shared, &node.stamp, &std::mem::take(&mut node.held));
        }
    }
}

fn send(shared: &Shared, stamp: &Stamp, lines: &[String]) {
    for lines in lines.chunks(LINES) {
        let context = Context {
            catalog: &shared.catalog,
            limits: &Limits::DOCUMENTED,
            default_node: &shared.node,
            now: shared.clock.now(),
        };
        // The decoder of NDJSON refuses line by line, as where a catalog of the user's lacks a column.
        let Ok(decoded) = ndjson::decode(lines.concat().as_bytes(), &context) else { continue };
        for refused in &decoded.refused {
            tracing::warn!(
                lines = refused.count,
                detail = refused.example,
                "the catalog does not take lines of the demo"
            );
        }
        for rows in decoded.rows {
            match stamp.stamp(rows, SOURCE) {
                Ok(rows) => shared.queue.push(SOURCE, rows),
                Err(error) => tracing::error!(%error, "simulated rows are no rows: these are lost"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
