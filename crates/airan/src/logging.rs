//! Log lines: to stderr, as text for people or JSON for machines.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, LogFormat, LogSection};

/// The variable that goes before the configured level.
const VARIABLE: &str = "AIRAN_LOG";

/// Libraries that call an error what whoever called them handles, and tells where it matters: a checkpoint that is given up, a member
/// of a group that is put away after it was shut out. They speak only where the level names them.
const QUIET: [&str; 2] = ["buoyant_kernel", "rdkafka::consumer::base_consumer"];

/// Starts logging, for the life of the process.
///
/// # Errors
/// If the level is none.
pub fn start(section: &LogSection) -> Result<()> {
    let filter = filter(section, std::env::var(VARIABLE).ok())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match section.format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing_subscriber::registry().with(filter).with(lines).try_init()
        }
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            tracing_subscriber::registry().with(filter).with(lines).try_init()
        }
    };
    started.context("cannot start logging")
}

/// Refuses a level that is none.
///
/// # Errors
/// If the level is none.
pub fn check(section: &LogSection) -> Result<(), ConfigError> {
    filter(section, None).map(|_| ())
}

fn filter(section: &LogSection, variable: Option<String>) -> Result<EnvFilter, ConfigError> {
    let (name, level) = match variable.filter(|level| !level.is_empty()) {
        Some(level) => (VARIABLE, level),
        None => ("log.level", section.level.clone()),
    };
    let refused = |error: ParseError| ConfigError {
        place: None,
        message: format!("{name}: `{level}` is no level, write info, debug or info,airan_bus=debug: {error}"),
    };
    let mut filter = EnvFilter::builder().parse(&level).map_err(refused)?;
    for target in QUIET.iter().filter(|target| !level.contains(**target)) {
        filter = filter.add_directive(format!("{target}=off").parse().map_err(refused)?);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_before_the_configured_level_and_a_bad_one_is_named() {
        let section = LogSection { level: "info".to_owned(), format: LogFormat::Text };
        let directives = |variable: Option<&str>| filter(&section, variable.map(str::to_owned)).unwrap().to_string();
        let has = |filter: &str, directive: &str| filter.split(',').any(|of| of == directive);
        assert!(has(&directives(None), "info") && has(&directives(None), "buoyant_kernel=off"));
        let bus = directives(Some("airan_bus=debug"));
        assert!(has(&bus, "airan_bus=debug") && !has(&bus, "info"), "{bus}");
        let kernel = directives(Some("info,buoyant_kernel=trace"));
        assert!(has(&kernel, "buoyant_kernel=trace") && !has(&kernel, "buoyant_kernel=off"), "{kernel}");
        let told = filter(&section, Some("airan=louder".to_owned())).unwrap_err().to_string();
        assert!(told.contains("AIRAN_LOG") && told.contains("airan=louder"), "{told}");
    }
}
