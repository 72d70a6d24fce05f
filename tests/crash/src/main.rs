//! The crash harness: kills real airan processes, and compares an outside ledger with the lake.
//!
//! ```text
//! main ── case ──┬── sender ──▶ ledger           what was sent, what was acknowledged
//!                ├── plan ──▶ victim             who dies when, and how
//!                ├── errands                     the lake's tools beside them, killed too
//!                ├── site                        folder, configurations, ports
//!                └── lake ──▶ compare            what a reader sees, against the ledger
//!      ── results                                one line a case, appended; runs add up
//! ```
//!
//! It proves promises 1 and 2 of the design from the outside: every acknowledged row is in the lake once (nothing is lost, exactly
//! once at the reader), whatever process is killed at whatever moment, and closed windows are those of a batch computation over
//! the same rows. It uses no crate of airan: only the binary, its doors, `/metrics` and SQL.
//!
//! What a kill cannot show, because the page cache survives it, is whether data were synced: that is for the fault layers of the
//! log and the lake.

mod case;
mod compare;
mod dice;
mod erasure;
mod errands;
mod lake;
mod ledger;
mod plan;
mod results;
mod sender;
mod site;
mod victim;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::case::Case;
use crate::compare::Late;
use crate::results::CaseResult;
use crate::site::{Given, Mode};

/// Kills airan processes while rows are sent, and compares what was acknowledged with what the lake has.
///
/// Each case is one line of the results file. A run goes on after the cases of its seed and mode that are already there, so runs
/// add up. Exit code 0: nothing lost, nothing doubled, every window right, in all cases of this run; 1 otherwise, with the seed
/// and the folder of the case.
#[derive(Debug, Parser)]
#[command(name = "airan-crash", max_term_width = 120)]
struct Arguments {
    /// The binary under test [default: airan beside this program]
    #[arg(long, value_name = "PATH")]
    airan: Option<PathBuf>,
    /// What is killed
    #[arg(long, value_enum, default_value_t = Mode::Local)]
    mode: Mode,
    /// The results file
    #[arg(long, value_name = "FILE", default_value = "crash-results.jsonl")]
    out: PathBuf,
    /// Folder for the cases at work and those that failed [default: a folder of the system's temporary one]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Cases to run
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    cases: u64,
    /// Begins no further case after this time, as 90s, 10m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Duration>,
    /// Seed: with the number of the case it determines what is done to whom
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends of processes in one case
    #[arg(long, default_value_t = 12)]
    kills: usize,
    /// Processors over Kafka
    #[arg(long, default_value_t = 2)]
    processors: usize,
    /// Apache Kafka, for the modes that need it; deploy/kafka/kafka.sh starts one
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// An S3 endpoint with a bucket `airan`, for the modes that need it
    #[arg(long, value_name = "URL")]
    s3: Option<String>,
    /// What becomes of windows that late rows belong to
    #[arg(long, value_enum, default_value_t = Late::Restated)]
    late: Late,
    /// A Python that has deltalake and pyarrow: it must see the same rows, in lakes on the disk
    #[arg(long, value_name = "PATH")]
    delta: Option<PathBuf>,
    /// Prints the totals of the results file and does nothing else
    #[arg(long)]
    totals: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|at: char| !at.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("write it as 90s, 10m or 2h".to_owned()),
    };
    number.parse::<u64>().map(|number| Duration::from_secs(number * seconds)).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("airan-crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cases until it is time to end; whether all of them passed.
async fn run(arguments: &Arguments) -> Result<bool> {
    let known = results::read(&arguments.out)?;
    if arguments.totals {
        println!("{}", results::totals(&known));
        return Ok(known.iter().all(|case| case.failures.is_empty()));
    }
    let airan = match &arguments.airan {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("airan"),
    };
    let airan =
        airan.canonicalize().with_context(|| format!("no binary at {}: name it with --airan", airan.display()))?;
    let given = Given {
        airan,
        mode: arguments.mode,
        kafka: arguments.kafka.clone(),
        s3: arguments.s3.clone(),
        processors: arguments.processors,
    };
    let work = arguments.work.clone().unwrap_or_else(|| std::env::temp_dir().join("airan-crash"));
    let of_this_run = |case: &&CaseResult| (case.mode, case.seed) == (arguments.mode, arguments.seed);
    let first = known.iter().filter(of_this_run).map(|case| case.case + 1).max().unwrap_or_default();

    let mut stop = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let start = Instant::now();
    let mut done = Vec::new();
    for number in first..first.saturating_add(arguments.cases) {
        if arguments.span.is_some_and(|span| start.elapsed() >= span) {
            break;
        }
        let folder = work.join(format!("{}-{}-{number}", arguments.mode.name(), arguments.seed));
        case::tidy(&folder);
        let case = Case {
            given: given.clone(),
            late: arguments.late,
            python: arguments.delta.clone(),
            kills: arguments.kills,
            seed: arguments.seed,
            number,
            folder,
        };
        let result = tokio::select! {
            result = case.run() => result,
            _ = stop.0.recv() => break,
            _ = stop.1.recv() => break,
        };
        results::append(&arguments.out, &result)?;
        println!("{}", line(&result));
        if result.failures.is_empty() {
            case::tidy(&case.folder);
        }
        done.push(result);
    }
    println!("{}", results::totals(&done));
    if !known.is_empty() {
        println!("--- with all in {}:\n{}", arguments.out.display(), results::totals(&results::read(&arguments.out)?));
    }
    Ok(done.iter().all(|case| case.failures.is_empty()))
}

/// A case in a line, and its failures below.
fn line(case: &CaseResult) -> String {
    let mut text = format!(
        "{} case {} of seed {}: {} kills, {} acknowledged, {} unknown, lost {}, doubled {}, {} windows, {} wrong, {:.1} s{}",
        case.mode.name(),
        case.case,
        case.seed,
        case.kills.total(),
        case.acknowledged,
        case.unknown,
        case.lost,
        case.doubled,
        case.windows,
        case.windows_wrong,
        case.seconds,
        if case.failures.is_empty() { "" } else { "  FAILED" },
    );
    for failure in case.failures.iter().chain(&case.complaints) {
        text.push_str(&format!("\n    {failure}"));
    }
    if let Some(folder) = &case.folder {
        text.push_str(&format!("\n    kept in {folder}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7_200)));
        assert!(span("10").is_err() && span("m").is_err());
    }
}
