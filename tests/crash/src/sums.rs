//! The sums that airan keeps, asked of its own metrics when all is at peace: no row is without an end.
//!
//! | sum | over a kill |
//! | --- | --- |
//! | shards: appended = stored + duplicate + rejected + pending | holds: they come with the shard's state, out of the lake |
//! | shards: stored = rows of the raw tables + erased rows | holds, for both sides do |
//! | shards: appended ≥ rows that were acknowledged, as senders and agent know it | holds: what was acknowledged is on the bus |
//! | agent: collected = acknowledged + queued + dropped | holds: the agent is not killed, and counts on while its door is away |
//! | doors: received = acknowledged + refused + unknown | within a life only, so it is asked of the last one |
//!
//! A door counts from nothing with each start, and whoever kills it ends the counts of that life unseen, with requests under way that have
//! no end in it. What becomes of their rows is what the ledger is for. So there is no sum of the doors over all lives.

use anyhow::{Result, bail};

use crate::erasure::Erasure;
use crate::lake::{Lake, Scrape};
use crate::ledger::{Fate, Ledger};
use crate::site::AGENT;
use crate::victim::Victim;

/// Streams the agent sends.
pub const AGENT_STREAMS: [&str; 2] = ["host", "link"];
/// Counters move with each commit of a tick, and rows are under way, so they are asked so many times.
const TRIES: u32 = 20;
/// Between two times.
const ASK: std::time::Duration = std::time::Duration::from_millis(300);

/// All victims' metrics together.
pub async fn scrape(victims: &[Victim]) -> Scrape {
    let mut all = Scrape::default();
    for victim in victims {
        all.add(Scrape::of(&victim.admin).await.unwrap_or_default());
    }
    all
}

/// The agent's sum. Returns how many rows it has collected.
///
/// # Errors
/// If it does not hold.
pub async fn agent(admin: &str) -> Result<f64> {
    let mut wrong = String::from("it does not answer");
    for _ in 0..TRIES {
        if let Some(scrape) = Scrape::of(admin).await {
            let of = |name: &str| scrape.sum(&format!("airan_agent_{name}"), "");
            let (collected, dropped) = (of("collected_rows_total"), of("dropped_rows_total"));
            let (acknowledged, queued) = (of("acknowledged_rows_total"), of("queued_rows"));
            if collected == acknowledged + queued + dropped && dropped == 0.0 {
                return Ok(collected);
            }
            wrong =
                format!("collected {collected}, acknowledged {acknowledged}, queued {queued}, dropped {dropped} rows");
        }
        tokio::time::sleep(ASK).await;
    }
    bail!("the agent's sum: {wrong}")
}

/// The sums of doors and shards, of the victims that are at work now, against the ledger and the raw tables.
///
/// # Errors
/// If the lake cannot be read. `Some` is what is wrong.
pub async fn hold(
    victims: &[Victim],
    lake: &Lake,
    ledger: &Ledger,
    erasure: Option<&Erasure>,
) -> Result<Option<String>> {
    let rows = ledger.rows();
    let acknowledged = rows.iter().filter(|(_, fate)| *fate == Fate::Acknowledged).count() as f64;
    let erased = erasure.map(|erasure| erasure.bounds(&rows)).unwrap_or_default();
    let mut wrong = None;
    for _ in 0..TRIES {
        let scrape = scrape(victims).await;
        let mut agents = 0.0;
        for stream in AGENT_STREAMS {
            agents += lake.numbered(stream, AGENT).await.map_or(0.0, |of| of.n as f64);
        }
        let stored = lake.stored().await?.len() as f64 + agents;
        wrong = doors(&scrape).or_else(|| shards(&scrape, stored, acknowledged + agents, erased));
        if wrong.is_none() {
            break;
        }
        tokio::time::sleep(ASK).await;
    }
    Ok(wrong)
}

fn doors(scrape: &Scrape) -> Option<String> {
    let of = |outcome: &str| scrape.sum("airan_gateway_rows_total", &format!("outcome=\"{outcome}\""));
    let (received, acknowledged, refused, unknown) = (of("received"), of("acknowledged"), of("refused"), of("unknown"));
    // The last rows of every case came through this life.
    let holds = received == acknowledged + refused + unknown && acknowledged > 0.0;
    (!holds).then(|| {
        format!("sums: the doors have received {received}, acknowledged {acknowledged}, refused {refused}, unknown {unknown}")
    })
}

/// `rows` are in the raw tables, `least` must have come, and so many were erased at least and at most.
fn shards(scrape: &Scrape, rows: f64, least: f64, erased: (u64, u64)) -> Option<String> {
    let of = |outcome: &str| scrape.sum("airan_processor_rows_total", &format!("outcome=\"{outcome}\""));
    let (appended, stored, duplicate, rejected) = (of("appended"), of("stored"), of("duplicate"), of("rejected"));
    let pending = scrape.sum("airan_processor_pending_rows", "");
    let holds = appended == stored + duplicate + rejected + pending
        && (erased.0 as f64..=erased.1 as f64).contains(&(stored - rows))
        && appended >= least;
    (!holds).then(|| {
        format!(
            "sums: appended {appended}, stored {stored}, duplicate {duplicate}, rejected {rejected}, pending {pending}; the lake has \
             {rows} rows, {least} were acknowledged, {} to {} erased",
            erased.0, erased.1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scraped(prefix: &str, outcomes: &[(&str, u64)]) -> Scrape {
        let line = |(name, n): &(&str, u64)| format!("{prefix}_rows_total{{door=\"x\",outcome=\"{name}\"}} {n}\n");
        Scrape::read(&outcomes.iter().map(line).collect::<String>())
    }

    /// Guarantees: a door's row without an end is told, and so is a door through which nothing came.
    #[test]
    fn a_doors_sum_is_asked_for() {
        let of = |received| {
            let ends = [("received", received), ("acknowledged", 5), ("refused", 1), ("unknown", 2)];
            doors(&scraped("airan_gateway", &ends))
        };
        assert_eq!(of(8), None);
        assert!(of(9).is_some_and(|told| told.contains("received 9")));
        assert!(doors(&Scrape::default()).is_some());
    }

    /// Guarantees: told are a shard's row without an end, a stored row that the lake has not, and an acknowledged one that no shard
    /// has seen.
    #[test]
    fn the_shards_sums_are_asked_for() {
        let of = |appended, rows, least| {
            let ends = [("appended", appended), ("stored", 7), ("duplicate", 2), ("rejected", 0)];
            shards(&scraped("airan_processor", &ends), rows, least, (1, 3))
        };
        assert_eq!(of(9, 5.0, 9.0), None);
        assert!(of(10, 5.0, 9.0).is_some() && of(9, 5.0, 10.0).is_some());
        assert!(of(9, 3.0, 9.0).is_some() && of(9, 7.0, 9.0).is_some());
    }
}
