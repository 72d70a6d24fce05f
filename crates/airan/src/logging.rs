//! Log lines: to stderr, as text for people or JSON for machines.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, LogFormat, LogSection};

/// The variable that goes before the configured level.
const VARIABLE: &str = "AIRAN_LOG";

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
    EnvFilter::builder().parse(&level).map_err(|error| ConfigError {
        place: None,
        message: format!("{name}: `{level}` is no level, write info, debug or info,airan_bus=debug: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_before_the_configured_level_and_a_bad_one_is_named() {
        let section = LogSection { level: "info".to_owned(), format: LogFormat::Text };
        assert_eq!(filter(&section, None).unwrap().to_string(), "info");
        assert_eq!(filter(&section, Some("airan_bus=debug".to_owned())).unwrap().to_string(), "airan_bus=debug");
        let told = filter(&section, Some("airan=louder".to_owned())).unwrap_err().to_string();
        assert!(told.contains("AIRAN_LOG") && told.contains("airan=louder"), "{told}");
    }
}
