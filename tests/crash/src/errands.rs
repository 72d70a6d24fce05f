//! Errands: the tools that work on the lake beside the processes that own it, as a person or a schedule runs them, killed too.
//!
//! One after the other for as long as the victims live: retention, which publishes first, and compaction. An errand may end well, be killed at a random moment, or die at a named point of what it does. What it leaves half done,
//! the elected processor or the next errand finishes; the comparison at the end sees whether it did no harm.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::dice::Dice;
use crate::plan::{End, POINTS};
use crate::results::Kills;
use crate::victim::Victim;

/// What a tool may take, from its start to its end.
const LIMIT: Duration = Duration::from_secs(60);

/// The commands, without where the configuration is.
const COMMANDS: &[&[&str]] = &[&["lake", "expire"], &["lake", "compact"]];

/// Runs errands until `done`.
///
/// # Errors
/// If one ends with an error of its own.
pub async fn run(
    binary: &Path,
    folder: &Path,
    reader: &str,
    seed: u64,
    done: &AtomicBool,
    kills: &mut Kills,
) -> Result<()> {
    let mut dice = Dice::new(seed, 3);
    let points: Vec<&'static str> = POINTS.iter().copied().filter(|name| is_of_a_tool(name)).collect();
    // The lake is made by the first processor.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    while !done.load(Ordering::Relaxed) {
        let command = COMMANDS[dice.between(0, COMMANDS.len() as u64 - 1) as usize];
        let arguments = [command, &["--config", reader]].concat();
        let mut tool = Victim::new(&command.join("-"), "", binary, folder, &arguments);
        let end = match dice.between(0, 99) {
            0..40 if !points.is_empty() => {
                let name = points[dice.between(0, points.len() as u64 - 1) as usize];
                Some(End::Point { name, pass: dice.between(1, 3), limit: LIMIT })
            }
            0..70 => Some(End::Kill { after: dice.millis(5, 400) }),
            _ => None,
        };
        tool.errand(end.as_ref(), LIMIT, kills).await?;
        tokio::time::sleep(dice.millis(200, 1_500)).await;
    }
    Ok(())
}

/// Whether these tools can come to a point: they neither commit nor claim, and have no log.
fn is_of_a_tool(point: &str) -> bool {
    let families = ["publish", "delta", "trim", "settle", "expire", "vacuum", "compact"];
    point.strip_prefix("lake.").and_then(|rest| rest.split('.').next()).is_some_and(|family| families.contains(&family))
}
