//! The pipelines in force, planned.

use std::path::Path;
use std::sync::Arc;

use airan_model::catalog::Catalog;
use airan_processor::Pipeline;
use airan_window::PipelinePlan;
use airan_window::pipeline::{self, PipelineFolder};
use anyhow::{Context, Result};

use crate::config::Config;

/// Reads and plans the pipelines of the configuration: a folder's, or the built-in ones.
///
/// # Errors
/// The first mistake in a `pipeline.yaml` or `query.sql`, with its place, also where the two do not fit.
pub async fn load(config: &Config, catalog: &Catalog) -> Result<Vec<Pipeline>> {
    let folders = match &config.pipelines.folder {
        Some(folder) => pipeline::load(folder)?,
        None => pipeline::builtin()?,
    };
    let mut planned = Vec::with_capacity(folders.len());
    for folder in folders {
        planned.push(plan(folder, catalog).await?);
    }
    Ok(planned)
}

/// Reads and plans the pipeline of one folder.
///
/// # Errors
/// The first mistake, with its place.
pub async fn load_one(folder: &Path, catalog: &Catalog) -> Result<Pipeline> {
    plan(pipeline::load_one(folder)?, catalog).await
}

async fn plan(folder: PipelineFolder, catalog: &Catalog) -> Result<Pipeline> {
    let schema_of = |stream: &str| catalog.stream(stream).map(|stream| Arc::clone(stream.schema()));
    let name = folder.spec.name.clone();
    let plan = PipelinePlan::new(&name, &folder.sql, &schema_of).await;
    let plan = plan.with_context(|| format!("pipeline {name}, query.sql"))?;
    folder.spec.check(plan.output_schema(), plan.cut(), catalog)?;
    Ok(Pipeline { spec: folder.spec, plan })
}
