//! Errands: the tools that work on the lake beside the processes that own it, as a person or a schedule runs them, killed too.
//!
//! One after the other for as long as the victims live: retention, which publishes first, compaction, windows computed again, and
//! erasures, each of more than the one before. An errand may end well, be killed at a random moment, or die at a named point of what it
//! does. What it leaves half done, the elected processor or the next errand finishes; the comparison at the end sees whether it did no
//! harm.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::compare::Late;
use crate::dice::Dice;
use crate::erasure::Erasure;
use crate::plan::{End, Plan};
use crate::results::Kills;
use crate::sender::now_micros;
use crate::site::Mode;
use crate::turns::Round;
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
        points: &["lake.publish", "lake.delta", "lake.trim", "lake.settle", "lake.expire"],
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
    command: &["lake", "erase"],
    points: &["lake.erase"],
    excuses: &["run the same again", "has no raw table yet", "has no rows of topic"],
};
/// What only the erasure in the end comes to, which deletes at once: otherwise what was taken out stays for a day.
const PURGED: &str = "lake.vacuum";
/// What an erasure comes to while there are rows, and what afterwards.
const WITH_ROWS: [&str; 3] = ["lake.erase.noted", "lake.erase.written", "lake.erase.delta"];
const AFTER_ROWS: [&str; 2] = ["lake.erase.links", NEEDS_PEACE];
/// Comes after a restatement, for which processors have to be at work: the erasure in the end is sure of that.
const NEEDS_PEACE: &str = "lake.erase.windows_noted";
/// Of a hundred errands so many go to a point; and so many while there is one where nothing of the mode has died yet.
const AT_POINTS: (u64, u64) = (40, 75);

/// Those that run where late rows are treated so.
fn errands(late: Late) -> &'static [Errand] {
    match late {
        Late::Restated => &ERRANDS,
        // The others change results.
        Late::Counted => &ERRANDS[..2],
    }
}

/// Whether some errand comes to `point`.
pub fn come_to(point: &str, late: Late) -> bool {
    errands(late).iter().any(|errand| errand.comes_to(point)) || (late == Late::Restated && point.starts_with(PURGED))
}

impl Errand {
    fn comes_to(&self, point: &str) -> bool {
        self.points.iter().any(|family| point.starts_with(family))
    }
}

/// What a case's errands work on, and by which plan.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The binary under test.
    pub binary: &'a Path,
    /// The case's folder.
    pub folder: &'a Path,
    /// The configuration that knows the lake.
    pub reader: &'a str,
    /// What the victims are.
    pub mode: Mode,
    /// The case's.
    pub plan: &'a Plan,
    /// The case's.
    pub seed: u64,
}

/// Runs errands until `done`.
///
/// # Errors
/// If one ends with an error of its own.
pub async fn run(place: Place<'_>, done: &AtomicBool, kills: &mut Kills) -> Result<()> {
    let mut dice = Dice::new(place.seed, 3);
    let errands = errands(place.plan.late);
    let can = |point: &str| place.mode.has(point) && errands.iter().any(|errand| errand.comes_to(point));
    // What the victims cannot come to before what they can.
    let mut round = place.plan.turns.round(can, |point| !place.mode.passes(point) && point != NEEDS_PEACE);
    let mut unfinished: Option<Erasure> = None;
    // The lake is made by the first processor.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    while !done.load(Ordering::Relaxed) {
        let any = |among: &[&Errand], dice: &mut Dice| *among[dice.between(0, among.len() as u64 - 1) as usize];
        let percent = if round.has_never() { AT_POINTS.1 } else { AT_POINTS.0 };
        let point = dice.chance(percent).then(|| point(&mut round, &mut dice)).flatten();
        let able: Vec<&Errand> = match &point {
            Some((name, _)) => errands.iter().filter(|errand| errand.comes_to(name)).collect(),
            None => errands.iter().collect(),
        };
        let errand = any(&able, &mut dice);
        let end = match point {
            Some((_, end)) => Some(end),
            None => dice.chance(50).then(|| End::Kill { after: dice.millis(5, 400) }),
        };
        if errand.command == ERASE.command {
            let erasure = unfinished.take().unwrap_or_else(|| Erasure::at(now_micros()));
            let words = ["lake", "erase", "--timeout", "5s", "--where", &erasure.condition()];
            let is_done = tool(place, &words).errand(end.as_ref(), LIMIT, errand.excuses, kills).await?;
            unfinished = (!is_done && dice.chance(80)).then_some(erasure);
        } else {
            let tomorrow = date(now_micros() + DAY);
            let more = match errand.command[0] {
                "backfill" => vec!["--from", "2020-01-01", "--to", &tomorrow],
                _ => Vec::new(),
            };
            let words = [errand.command, &more].concat();
            tool(place, &words).errand(end.as_ref(), LIMIT, errand.excuses, kills).await?;
        }
        tokio::time::sleep(dice.millis(100, 900)).await;
    }
    Ok(())
}

/// Erases to the end, while all processes run: after deaths at points of it, and with the old files deleted at once. Whatever earlier
/// erasures were of, this one contains it.
///
/// # Errors
/// If it ends with an error.
pub async fn erase(place: Place<'_>, erasure: &Erasure, kills: &mut Kills) -> Result<()> {
    let mut dice = Dice::new(place.seed, 4);
    let condition = erasure.condition();
    let command = |timeout| ["lake", "erase", "--where", &condition, "--timeout", timeout];
    // In three steps: while there are rows, when they are gone, and when the old files go, which is not before the last.
    let families = [&WITH_ROWS[..], &AFTER_ROWS[..], &[PURGED][..]];
    for (step, family) in families.into_iter().enumerate() {
        let is_of = |point: &str| family.iter().any(|name| point.starts_with(name));
        let mut round = place.plan.turns.round(|point| place.mode.has(point) && is_of(point), |_| false);
        let end = point(&mut round, &mut dice).map(|(_, end)| end);
        // Long enough for a restatement: the point it is to die at may come after it.
        let purge: &[&str] = if step == 2 { &["--purge"] } else { &[] };
        let words = [&command("20s")[..], purge].concat();
        let died = tool(place, &words).errand(end.as_ref(), ERASE_LIMIT, ERASE.excuses, kills).await;
        died.context("the erasure")?;
    }
    for words in [&command("100s")[..], &["lake", "erase", "--resume", "--purge", "--timeout", "100s"]] {
        tool(place, words).errand(None, ERASE_LIMIT, &[], kills).await.context("the erasure in the end")?;
    }
    Ok(())
}

fn tool(place: Place<'_>, words: &[&str]) -> Victim {
    let name: Vec<&str> = words.iter().copied().take(2).filter(|word| *word != "crash").collect();
    Victim::new(&name.join("-"), "", place.binary, place.folder, &[words, &["--config", place.reader]].concat())
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

/// Death at the point whose turn it is, and its name.
fn point(round: &mut Round, dice: &mut Dice) -> Option<(&'static str, End)> {
    let (name, pass) = round.take(3, dice)?;
    Some((name, End::Point { name, pass, limit: LIMIT }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::POINTS;

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
            assert!(come_to(name, Late::Restated) && !come_to(name, Late::Counted), "{name}");
        }
        let of_erasures: Vec<_> = POINTS.iter().filter(|name| ERASE.comes_to(name)).copied().collect();
        let mut in_the_end = [&WITH_ROWS[..], &AFTER_ROWS].concat();
        in_the_end.sort_unstable();
        assert_eq!(in_the_end, of_erasures, "the erasure in the end can come to each");
        assert!(POINTS.iter().any(|name| name.starts_with(PURGED)));
    }
}
