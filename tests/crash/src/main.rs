//! The crash harness: kills real airan processes, and compares an outside ledger with the lake.
//!
//! ```text
//! main ── case ──┬── sender ──▶ ledger           what was sent, what was acknowledged
//!                ├── turns ─▶ plan ──▶ victim    who dies when, where and how
//!                ├── errands                     the lake's tools beside them, killed too
//!                ├── strikes ─▶ broker           the broker started again, wires to it, records deleted
//!                ├── site                        folder, configurations, ports
//!                ├── sums                        what the processes say of themselves
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

#[path = "../../broker.rs"]
mod broker;
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
mod strikes;
mod sums;
mod turns;
mod victim;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::Wire;
use crate::case::Case;
use crate::compare::Late;
use crate::dice::Dice;
use crate::plan::Plan;
use crate::results::CaseResult;
use crate::site::{Given, Mode};
use crate::strikes::Broker;
use crate::turns::Turns;

/// Kills airan processes while rows are sent, and compares what was acknowledged with what the lake has.
///
/// Each case is one line of the results file. A run goes on after the cases of its seed and mode that are already there, so runs
/// add up: each case goes for the named points at which its mode has died least so far. Exit code 0: nothing lost, nothing doubled, every
/// window right, in all cases of this run; 1 otherwise, with the seed and the folder of the case.
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
    /// Processors over Kafka [default: two or three, drawn for each case]
    #[arg(long)]
    processors: Option<usize>,
    /// Apache Kafka, for the modes that need it; deploy/kafka/kafka.sh starts one
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A way to Kafka that is cut: its listener on TARGET tells clients to come to PORT; one for each process over Kafka, or none is cut
    #[arg(long, value_name = "TARGET:PORT")]
    wire: Vec<String>,
    /// What starts and ends Kafka, as deploy/kafka/kafka.sh, with what it needs in the environment; without it Kafka is left alone
    #[arg(long, value_name = "PATH")]
    kafka_script: Option<PathBuf>,
    /// An S3 endpoint with a bucket `airan`, for the modes that need it
    #[arg(long, value_name = "URL")]
    s3: Option<String>,
    /// What becomes of windows that late rows belong to
    #[arg(long, value_enum, default_value_t = Late::Restated)]
    late: Late,
    /// A Python that has deltalake and pyarrow: it must see the same rows, in lakes on the disk
    #[arg(long, value_name = "PATH")]
    delta: Option<PathBuf>,
    /// Runs case N of the seed once more, by the plan that its line of the results file has
    #[arg(long, value_name = "N")]
    again: Option<u64>,
    /// Fails also if there is a point of the mode that none of its cases in the results file has died at
    #[arg(long)]
    require_points: bool,
    /// Prints the totals of the results file and runs nothing
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
        return Ok(known.iter().all(|case| case.failures.is_empty()) && has_points(arguments, &known));
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
        processors: arguments.processors.unwrap_or_default(),
        wires: arguments.wire.iter().map(|ports| wire(ports)).collect::<Result<_>>()?,
        broker: arguments.kafka_script.as_deref().map(Broker::new),
    };
    let work = arguments.work.clone().unwrap_or_else(|| std::env::temp_dir().join("airan-crash"));
    let of_this_run = |case: &&CaseResult| (case.mode, case.seed) == (arguments.mode, arguments.seed);
    let (first, cases, planned) = match arguments.again {
        None => {
            let next = known.iter().filter(of_this_run).map(|case| case.case + 1).max().unwrap_or_default();
            (next, arguments.cases, None)
        }
        Some(number) => {
            let line = known.iter().filter(of_this_run).find(|case| case.case == number && case.plan.kills > 0);
            let line = line.with_context(|| {
                format!("{} has no case {number} of this mode and seed with a plan", arguments.out.display())
            })?;
            (number, 1, Some(line.plan.clone()))
        }
    };

    let mut stop = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let start = Instant::now();
    let mut done = Vec::new();
    for number in first..first.saturating_add(cases) {
        if arguments.span.is_some_and(|span| start.elapsed() >= span) {
            break;
        }
        let folder = work.join(format!("{}-{}-{number}", arguments.mode.name(), arguments.seed));
        case::tidy(&folder);
        let plan = match &planned {
            Some(plan) => plan.clone(),
            None => plan(arguments, number, &[&known[..], &done].concat()),
        };
        let given = given.of(&plan)?;
        let python = arguments.delta.clone();
        let case = Case { given, plan, python, seed: arguments.seed, number, folder };
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
    // Others may have added to it.
    let all = results::read(&arguments.out)?;
    if all.len() > done.len() {
        println!("--- with all in {}:\n{}", arguments.out.display(), results::totals(&all));
    }
    Ok(done.iter().all(|case| case.failures.is_empty()) && has_points(arguments, &all))
}

/// What the next case is to do, after `known`.
fn plan(arguments: &Arguments, number: u64, known: &[CaseResult]) -> Plan {
    let points = plan::points(arguments.mode, arguments.late);
    let mut dice = Dice::new(Dice::new(arguments.seed, number + 1).draw(), 5);
    let turns = Turns::of(&points, &results::kills_of(arguments.mode, known), &mut dice);
    let has_kafka = arguments.mode.has_kafka();
    let processors = arguments.processors.unwrap_or_else(|| dice.between(2, 3) as usize);
    Plan {
        kills: arguments.kills,
        processors,
        late: arguments.late,
        turns,
        cuts: has_kafka && arguments.wire.len() > processors,
        restart: has_kafka && arguments.kafka_script.is_some(),
        delete: has_kafka,
    }
}

fn wire(ports: &str) -> Result<Arc<Wire>> {
    Ok(Arc::new(Wire::of(ports).with_context(|| format!("--wire {ports}"))?))
}

/// Whether the points of the mode were all died at, where that is required; said if not.
fn has_points(arguments: &Arguments, all: &[CaseResult]) -> bool {
    let never = results::never_died_at(arguments.mode, arguments.late, all);
    let holds = !arguments.require_points || never.is_empty();
    if !holds {
        eprintln!("airan-crash: --require-points: {} has never died at {}", arguments.mode.name(), never.join(", "));
    }
    holds
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
    for failure in &case.failures {
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

    /// Guarantees: over Kafka there are two or three processors where no number is given, and what is done to the broker is what can be
    /// done with what is given; on the local log there is no broker.
    #[test]
    fn a_plan_is_what_can_be_done() {
        let planned = |words: &[&str], case| {
            let words = [&["airan-crash"], words].concat();
            plan(&Arguments::parse_from(words), case, &[])
        };
        let kafka = ["--mode", "kafka", "--kafka-script", "x", "--wire", "1:2", "--wire", "3:4", "--wire", "5:6"];
        let plans: Vec<Plan> = (0..20).map(|case| planned(&kafka, case)).collect();
        assert!(plans.iter().all(|plan| plan.restart && plan.delete && plan.cuts == (plan.processors == 2)));
        assert!([2, 3].iter().all(|number| plans.iter().any(|plan| plan.processors == *number)));
        let alone = planned(&["--mode", "kafka", "--processors", "5"], 0);
        assert_eq!((alone.processors, alone.cuts, alone.restart, alone.delete), (5, false, false, true));
        let local = planned(&kafka[2..], 0);
        assert!(!local.cuts && !local.restart && !local.delete);
    }

    /// Guarantees: where points are required, a file without a death at each of them is a failure; where not, it is none.
    #[test]
    fn points_are_required_where_that_is_asked_for() {
        let of = |words: &[&str]| Arguments::parse_from([&["airan-crash"], words].concat());
        assert!(has_points(&of(&[]), &[]));
        assert!(!has_points(&of(&["--require-points"]), &[]));
    }
}
