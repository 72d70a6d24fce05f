//! Errands: the tools that work on the lake beside the processes that own it, as a person or a schedule runs them, killed too.
//!
//! One after the other for as long as the victims live: retention, which publishes first, compaction, windows computed again, and
//! an erasure. An errand may end well, be killed at a random moment, or die at a named point of what it does. What it leaves half
//! done, the elected processor or the next errand finishes; the comparison at the end sees whether it did no harm.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::dice::Dice;
use crate::erasure::Erasure;
use crate::plan::{End, POINTS};
use crate::results::Kills;
use crate::sender::now_micros;
use crate::victim::Victim;

/// What a tool may take, from its start to its end.
const LIMIT: Duration = Duration::from_secs(60);
/// The same for the erasure in the end, which waits for restatements.
const ERASE_LIMIT: Duration = Duration::from_secs(120);

/// A tool.
#[derive(Clone, Copy, Debug)]
struct Errand {
    command: &'static [&'static str],
    /// What the names of the points begin with that it can come to: it neither commits nor claims, and has no log.
    points: &'static [&'static str],
    /// What it may say where it ends with an error, because the processes it waits for are away.
    excuses: &'static [&'static str],
}

const ERRANDS: [Errand; 4] = [
    Errand {
        command: &["lake", "expire"],
        points: &["lake.publish", "lake.delta", "lake.trim", "lake.settle", "lake.expire", "lake.vacuum"],
        excuses: &[],
    },
    Errand {
        command: &["lake", "compact"],
        points: &["lake.publish", "lake.delta", "lake.trim", "lake.settle", "lake.compact"],
        excuses: &[],
    },
    Errand {
        command: &["backfill", "crash", "--no-wait"],
        points: &["processor.backfill"],
        // The first processor may be dead before it has opened the lake.
        excuses: &["has no rows of topic"],
    },
    ERASE,
];

const ERASE: Errand = Errand {
    command: &["lake", "erase", "--timeout", "5s"],
    points: &["lake.erase"],
    excuses: &["run the same again", "has no raw table yet", "has no rows of topic"],
};

/// Runs errands until `done`; those that change results only where there is an `erasure`.
///
/// # Errors
/// If one ends with an error of its own.
pub async fn run(
    binary: &Path,
    folder: &Path,
    reader: &str,
    (seed, erasure): (u64, Option<&Erasure>),
    done: &AtomicBool,
    kills: &mut Kills,
) -> Result<()> {
    let mut dice = Dice::new(seed, 3);
    let errands = if erasure.is_some() { &ERRANDS[..] } else { &ERRANDS[..2] };
    let condition = erasure.map(Erasure::condition).unwrap_or_default();
    let tomorrow = date(now_micros() + DAY);
    // The lake is made by the first processor.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    while !done.load(Ordering::Relaxed) {
        let errand = errands[dice.between(0, errands.len() as u64 - 1) as usize];
        let more = match errand.command[0] {
            "backfill" => vec!["--from", "2020-01-01", "--to", &tomorrow],
            _ if errand.command == ERASE.command => vec!["--where", &condition],
            _ => Vec::new(),
        };
        let mut tool = tool(binary, folder, &[errand.command, &more, &["--config", reader]].concat());
        let end = match dice.between(0, 99) {
            0..40 => point(errand.points, &mut dice),
            40..70 => Some(End::Kill { after: dice.millis(5, 400) }),
            _ => None,
        };
        tool.errand(end.as_ref(), LIMIT, errand.excuses, kills).await?;
        tokio::time::sleep(dice.millis(200, 1_500)).await;
    }
    Ok(())
}

/// Erases to the end, while all processes run: after deaths at points of it, and with the old files deleted at once.
///
/// # Errors
/// If it ends with an error.
pub async fn erase(
    binary: &Path,
    folder: &Path,
    reader: &str,
    (seed, erasure): (u64, &Erasure),
    kills: &mut Kills,
) -> Result<()> {
    let mut dice = Dice::new(seed, 4);
    let condition = erasure.condition();
    let command =
        |timeout| ["lake", "erase", "--where", &condition, "--purge", "--timeout", timeout, "--config", reader];
    for points in [ERASE.points, &["lake.vacuum"]] {
        let end = point(points, &mut dice);
        let died = tool(binary, folder, &command("5s")).errand(end.as_ref(), ERASE_LIMIT, ERASE.excuses, kills).await;
        died.context("the erasure")?;
    }
    let ended = tool(binary, folder, &command("100s")).errand(None, ERASE_LIMIT, &[], kills).await;
    ended.context("the erasure in the end")
}

fn tool(binary: &Path, folder: &Path, command: &[&str]) -> Victim {
    let words: Vec<&str> = command.iter().copied().take(2).filter(|word| *word != "crash").collect();
    Victim::new(&words.join("-"), "", binary, folder, command)
}

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// The date of a time, as `2026-01-31` (days to civil, as H. Hinnant's "chrono-compatible low-level date algorithms" has it).
fn date(micros: i64) -> String {
    let days = micros.div_euclid(DAY) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + i64::from(month <= 2))
}

/// Death at a point whose name begins with one of these.
fn point(families: &[&str], dice: &mut Dice) -> Option<End> {
    let names: Vec<&'static str> =
        POINTS.iter().copied().filter(|name| families.iter().any(|family| name.starts_with(family))).collect();
    let name = *names.get(dice.between(0, names.len().saturating_sub(1) as u64) as usize)?;
    Some(End::Point { name, pass: if dice.chance(60) { 1 } else { dice.between(2, 3) }, limit: LIMIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_days() {
        for (days, of) in [(0, "1970-01-01"), (-1, "1969-12-31"), (19_782, "2024-02-29"), (20_785, "2026-11-28")] {
            assert_eq!(date(days * DAY + 5), of);
        }
    }

    /// Guarantees: every named point that only tools come to is among those that errands are sent to.
    #[test]
    fn every_point_of_a_tool_is_some_errands() {
        let of_tools =
            POINTS.iter().filter(|name| name.starts_with("lake.erase") || name.starts_with("processor.backfill"));
        let of_tools: Vec<_> = of_tools.collect();
        assert!(of_tools.len() > 3, "the build found {of_tools:?}");
        for name in of_tools {
            assert!(ERRANDS.iter().any(|errand| errand.points.iter().any(|of| name.starts_with(of))), "{name}");
        }
    }
}
