//! `airan test`: each pipeline's input against its expected rows.

use std::path::{Path, PathBuf};

use airan_model::catalog::Catalog;
use airan_processor::Settings as ProcessorSettings;
use anyhow::{Context, Result, bail};

use crate::config::{self, Mode};
use crate::{pipelines, wiring};

/// What makes a folder a pipeline.
const SPEC: &str = "pipeline.yaml";

/// Arguments of `airan test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Folders of pipelines, or of one pipeline [default: pipelines.folder of the configuration, or ./pipelines]
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Configuration file with what differs from config/defaults.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs it; every pipeline is tested, whatever the others do.
pub async fn run(args: TestArgs) -> Result<()> {
    let config = config::load(args.config.as_deref(), Mode::Role, None)?.config;
    let catalog = wiring::load_catalog(&config)?;
    let mut folders = args.folders;
    if folders.is_empty() {
        folders.push(config.pipelines.folder.clone().unwrap_or_else(|| PathBuf::from("pipelines")));
    }
    let mut pipelines = Vec::new();
    for folder in &folders {
        pipelines.extend(pipelines_in(folder)?);
    }
    let mut failed = 0;
    for folder in &pipelines {
        match test(folder, &config.processor, &catalog).await {
            Ok((report, true)) => println!("ok    {}: {report}", folder.display()),
            Ok((report, false)) => {
                failed += 1;
                println!("FAIL  {}\n{}", folder.display(), indented(&report));
            }
            Err(error) => {
                failed += 1;
                println!("FAIL  {}: {}", folder.display(), crate::one_line(&error));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} pipelines failed", pipelines.len());
    }
    println!("{} pipelines as expected", pipelines.len());
    Ok(())
}

/// A pipeline's report, and whether it passed.
async fn test(folder: &Path, settings: &ProcessorSettings, catalog: &Catalog) -> Result<(String, bool)> {
    let pipeline = pipelines::load_one(folder, catalog).await?;
    let report = airan_processor::pipeline_test(settings, catalog, &pipeline, folder).await?;
    Ok((report.to_string(), report.is_ok()))
}

/// The pipelines in a folder: itself, or its folders, by name.
fn pipelines_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(SPEC).is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("no folder of pipelines at {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.join(SPEC).is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("no pipeline in {}: a pipeline is a folder with {SPEC}", folder.display());
    }
    found.sort();
    Ok(found)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_pipeline_or_holds_some() {
        let folder = tempfile::tempdir().unwrap();
        assert!(pipelines_in(folder.path()).unwrap_err().to_string().contains(SPEC));
        assert!(pipelines_in(&folder.path().join("gone")).unwrap_err().to_string().contains("gone"));
        for name in ["b", "a"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join(SPEC), "").unwrap();
        }
        let found = pipelines_in(folder.path()).unwrap();
        assert_eq!(found, [folder.path().join("a"), folder.path().join("b")]);
        assert_eq!(pipelines_in(&found[0]).unwrap(), found[..1]);
    }
}
