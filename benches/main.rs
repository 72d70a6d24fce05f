//! Benchmarks of airan: the ceiling of the parts and the whole, in one run, on the same generated rows.
//!
//! ```text
//! cargo run --release -p airan-bench              everything
//! cargo run --release -p airan-bench -- --rows 400000
//! ```
//!
//! Each part runs in a process of its own, so that its CPU time (user and system, as the kernel counts it) and its peak memory are
//! its own. Making the input is not counted. A figure is rows, or points, per CPU-second: what one core does.

mod bus;
mod compact;
mod door;
mod fleet;
mod memory;
mod otlp;
mod report;
mod restate;
mod settings;
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
        None => all(arguments.rows),
        Some(Child::Part { name, size }) => part(&name, size),
        Some(Child::Send { address, requests }) => door::send(&address, requests),
    }
}

/// Every part, one after the other, then the comparison.
fn all(rows: usize) -> Result<()> {
    let seconds = (rows / fleet::FLEET).max(30);
    println!("{} accelerator rows, {} devices, windows of 10 s; one shard\n", seconds * fleet::FLEET, fleet::FLEET);
    let decode = run("decode", seconds)?;
    let group = run("group_by", seconds)?;
    let encode = run("parquet", seconds)?;
    let stage = run("stage", seconds)?;
    report::stage(&decode, &group, &encode, &stage);
    println!("\nevery window computed again from raw rows, and committed\n");
    report::extra(&run("restate", seconds)?);
    println!("\n{REQUESTS} OTLP/HTTP requests of {} points\n", otlp::POINTS);
    let prost = run("prost", REQUESTS)?;
    let door = run("door", REQUESTS)?;
    report::door(&prost, &door);
    println!("\nstate of one open window\n");
    report::memory(&run("memory", seconds)?);
    println!("\ncompaction of {seconds} s of rows in files of a minute\n");
    let copy = run("copy", seconds)?;
    let compact = run("compact", seconds)?;
    report::compact(&copy, &compact);
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
            _ => bail!("no part `{name}`"),
        }
    })?;
    println!("{}", serde_json::to_string(&part)?);
    Ok(())
}
