//! Benchmarks of airan: the ceiling of the parts and the whole, in one run, on the same generated rows.
//!
//! ```text
//! cargo run --release -p airan-bench              everything
//! cargo run --release -p airan-bench -- --rows 400000
//! cargo run --release -p airan-bench -- --only commits,recovery,scaling
//! ```
//!
//! Each part runs in a process of its own, so that its CPU time (user and system, as the kernel counts it) and its peak memory are
//! its own. Making the input is not counted. A figure is rows, or points, per CPU-second: what one core does.

mod bus;
mod compact;
mod decoders;
mod door;
mod fleet;
mod memory;
mod otlp;
mod report;
mod restate;
mod settings;
mod shards;
mod stage;
mod usage;

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use report::Part;

/// Rows of the accelerator stream: 2,500 s of 1,600 devices.
const ROWS: usize = 4_000_000;
/// OTLP requests of [`otlp::POINTS`] points.
const REQUESTS: usize = 3_000;

/// Benchmarks of airan, on one core
#[derive(Debug, Parser)]
struct Arguments {
    /// Accelerator rows of the stage's benchmarks
    #[arg(long, default_value_t = ROWS)]
    rows: usize,
    /// Only these groups: stage, decoders, door, memory, restate, compact, commits, recovery, scaling
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What the benchmark's own child processes do.
#[derive(Debug, Subcommand)]
enum Child {
    /// Measures one part
    #[command(hide = true)]
    Part { name: String, size: usize },
    /// Sends OTLP requests to a door
    #[command(hide = true)]
    Send { address: String, requests: usize },
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    match arguments.child {
        None => all(arguments.rows, &arguments.only),
        Some(Child::Part { name, size }) => part(&name, size),
        Some(Child::Send { address, requests }) => door::send(&address, requests),
    }
}

/// Seconds between commits that are compared; the longest is the baseline.
const INTERVALS: [u64; 3] = [1, 10, 60];

/// Every group of parts that is wanted, one after the other, each with its comparison.
fn all(rows: usize, only: &[String]) -> Result<()> {
    let seconds = (rows / fleet::FLEET).max(30);
    let is_wanted = |group: &str| only.is_empty() || only.iter().any(|wanted| wanted == group);
    println!("{} accelerator rows, {} devices, windows of 10 s; one shard\n", seconds * fleet::FLEET, fleet::FLEET);
    if is_wanted("stage") {
        let decode = run("decode", seconds)?;
        let group = run("group_by", seconds)?;
        let encode = run("parquet", seconds)?;
        let stage = run("stage", seconds)?;
        report::stage(&decode, &group, &encode, &stage);
    }
    if is_wanted("decoders") {
        println!(
            "\ndecoders, each beside the parser of its format alone, {} times a body of 1,000 values or more\n",
            decoders::ROUNDS
        );
        for decoder in decoders::DECODERS {
            let bare = run(&format!("bare:{decoder}"), 0)?;
            report::decoder(&bare, &run(&format!("decoder:{decoder}"), 0)?);
        }
    }
    if is_wanted("door") {
        println!("\n{REQUESTS} OTLP/HTTP requests of {} points\n", otlp::POINTS);
        let prost = run("prost", REQUESTS)?;
        let door = run("door", REQUESTS)?;
        report::door(&prost, &door);
    }
    if is_wanted("memory") {
        println!("\nstate of one open window\n");
        report::memory(&run("memory", seconds)?);
    }
    if is_wanted("restate") {
        println!("\nevery window computed again from raw rows, and committed\n");
        report::extra(&run("restate", seconds)?);
    }
    if is_wanted("compact") {
        println!("\ncompaction of {seconds} s of rows in files of a minute\n");
        let copy = run("copy", seconds)?;
        let compact = run("compact", seconds)?;
        report::compact(&copy, &compact);
    }
    if is_wanted("commits") {
        println!("\ncommits by time alone, while the rows come over 130 s\n");
        let parts = INTERVALS.map(|interval| Ok((interval, run(&format!("commits_{interval}"), seconds)?)));
        report::commits(&parts.into_iter().collect::<Result<Vec<_>>>()?);
    }
    if is_wanted("recovery") {
        println!("\na restart that rebuilds an open window\n");
        let parts = [16, 4, 1].map(|share| run("recovery", (seconds / share).max(30)));
        report::recovery(&parts.into_iter().collect::<Result<Vec<_>>>()?);
    }
    if is_wanted("scaling") {
        println!("\nshards, each with a thread and all the rows\n");
        report::scaling(&run("shards_1", seconds)?, &run("shards_2", seconds)?);
    }
    Ok(())
}

/// Runs a part in a process of its own.
fn run(name: &str, size: usize) -> Result<Part> {
    let own = std::env::current_exe()?;
    let out = Command::new(own).args(["part", name, &size.to_string()]).output()?;
    if !out.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let text = String::from_utf8(out.stdout)?;
    let last = text.lines().last().with_context(|| format!("{name} printed nothing"))?;
    let part: Part = serde_json::from_str(last)?;
    part.print(name);
    Ok(part)
}

/// What a part's own process does.
fn part(name: &str, size: usize) -> Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let part = threads.block_on(async {
        match name {
            "decode" => stage::decode(size),
            "group_by" => stage::group_by(size).await,
            "parquet" => stage::parquet(size),
            "stage" => stage::whole(size).await,
            "restate" => restate::all_windows(size).await,
            "prost" => otlp::decode(size),
            "door" => door::serve(size).await,
            "memory" => memory::open_window(size).await,
            "compact" => compact::compact(size).await,
            "copy" => compact::copy(size).await,
            "commits_1" => shards::commits(size, 1).await,
            "commits_10" => shards::commits(size, 10).await,
            "commits_60" => shards::commits(size, 60).await,
            "recovery" => shards::recovery(size).await,
            "shards_1" => shards::shards(size, 1).await,
            "shards_2" => shards::shards(size, 2).await,
            _ => match name.split_once(':') {
                Some(("bare", decoder)) => decoders::baseline(decoder),
                Some(("decoder", decoder)) => decoders::measure(decoder),
                _ => bail!("no part `{name}`"),
            },
        }
    })?;
    println!("{}", serde_json::to_string(&part)?);
    Ok(())
}
