//! `airan schema`: the JSON Schemas of the files that people write.

use std::io::Write;

use anyhow::Result;

use crate::config;

/// Arguments of `airan schema`.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// Of which files
    #[arg(value_enum, default_value_t = Of::Config)]
    of: Of,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Of {
    /// The configuration
    Config,
    /// A pipeline's pipeline.yaml
    Pipeline,
    /// Files of the catalog: streams and mappings
    Catalog,
}

/// Prints it.
pub fn run(args: &SchemaArgs) -> Result<()> {
    let schema = match args.of {
        Of::Config => config::schema()?,
        Of::Pipeline => airan_window::pipeline::schema().to_value(),
        Of::Catalog => airan_model::catalog::schema().to_value(),
    };
    Ok(writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&schema)?)?)
}
