//! `airan schema`: the configuration's JSON Schema.

use std::io::Write;

use anyhow::Result;

use crate::config;

/// Prints it.
pub fn run() -> Result<()> {
    let schema = config::schema()?;
    Ok(writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&schema)?)?)
}
