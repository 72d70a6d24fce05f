//! `airan query`: SQL over the lake.

use std::collections::BTreeSet;
use std::sync::Arc;

use airan_lake::Lake;
use airan_model::time::Clock;
use anyhow::{Context, Result, anyhow};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;

use crate::cli::{Printed, Settings};
use crate::config::Config;
use crate::{output, pipelines, progress, wiring};

/// Arguments of `airan query`.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// One SELECT, in DataFusion's SQL, with histogram_merge and histogram_quantile
    sql: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    printed: Printed,
}

/// Runs it.
pub async fn run(args: QueryArgs) -> Result<()> {
    let config = args.settings.load()?.config;
    let answer = async {
        let context = tables(&config).await?;
        select(&context, &args.sql).await
    };
    let (schema, rows) = progress::during("reading the lake", answer).await?;
    output::print(&mut std::io::stdout().lock(), args.printed.format, &schema, &rows)
}

/// A session with every table of the lake, and an empty one for each stream and pipeline that has no rows yet.
pub async fn tables(config: &Config) -> Result<SessionContext> {
    let catalog = wiring::load_catalog(config)?;
    let lake = Lake::open_to_read(&config.lake, Clock::system()).await.context("cannot open the lake (lake.path)")?;
    let context = airan_window::session_context();
    lake.register(&context).await?;
    let stored: BTreeSet<String> = lake.tables().await?.into_iter().collect();
    for stream in catalog.streams().filter(|stream| !stored.contains(&*stream.name)) {
        context.register_batch(&*stream.name, RecordBatch::new_empty(Arc::clone(stream.schema())))?;
    }
    for pipeline in pipelines::load(config, &catalog).await? {
        let table = &pipeline.spec.table;
        if !stored.contains(table) {
            let empty = RecordBatch::new_empty(Arc::clone(pipeline.plan.output_schema()));
            context.register_batch(table, empty.clone())?;
            context.register_batch(format!("{table}_latest"), empty)?;
        }
    }
    Ok(context)
}

/// Runs one statement that only reads.
pub async fn select(context: &SessionContext, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, only_reads).await.map_err(in_short)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    Ok((schema, frame.collect().await.map_err(in_short)?))
}

/// DataFusion's error without its backtrace and its list of candidates.
fn in_short(error: datafusion::error::DataFusionError) -> anyhow::Error {
    let text = error.strip_backtrace();
    anyhow!("{}", text.lines().next().unwrap_or_default())
}
