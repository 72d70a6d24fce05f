//! airan: telemetry pipeline for AI-RAN edge sites.
//!
//! The binary holds what is left when every part has its crate: the configuration (`config/`), the command line (`cli.rs`,
//! `commands/`), and the wiring of the roles into one process (`wiring.rs`). Start reading there.

mod admin;
mod banner;
mod bus_metrics;
mod cli;
mod commands;
mod config;
mod demo;
mod exposition;
mod inventory;
mod logging;
mod output;
mod page;
mod pipelines;
mod process;
mod process_metrics;
mod progress;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

/// The command did not do its work, or found what it looked for to be wrong.
const FAILED: u8 = 1;
/// The command line or the configuration is to be mended first. clap uses it too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("airan: {}", one_line(&error));
            ExitCode::from(if error.is::<config::ConfigError>() { USAGE } else { FAILED })
        }
    }
}

/// An error with its causes on one line; a cause that its effect already quotes is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line.replace('\n', " ")
}

/// Whoever read our output has seen enough, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
