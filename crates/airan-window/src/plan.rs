//! A pipeline's query, planned once and shared by all shards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;

use crate::cut::Cut;
use crate::engine::{Engine, SlotTable};
use crate::error::{PlanError, Refusal, SqlPlace, nearest};
use crate::lineage;
use crate::output::Output;
use crate::session::planning_context;
use crate::source::Source;
use crate::split::{Split, split};
use crate::syntax::Syntax;
use crate::windows::Windows;

/// A pipeline's query, planned: what runs on each batch, and what runs on each closed window.
pub struct PipelinePlan {
    name: String,
    streams: Vec<Arc<str>>,
    cut: Cut,
    pub(crate) engine: Engine,
    pub(crate) sources: Vec<Source>,
    /// The query over closed windows; slot n is the result of source n.
    pub(crate) rest: Arc<dyn ExecutionPlan>,
    pub(crate) output: Output,
}

impl PipelinePlan {
    /// Plans `sql`, the query of the pipeline `name`. `schema_of` gives the schema of a stream, None if there is no such stream.
    ///
    /// # Errors
    /// What the query does that windows cannot, with its place.
    pub async fn new(
        name: &str,
        sql: &str,
        schema_of: &(dyn Fn(&str) -> Option<SchemaRef> + Sync),
    ) -> Result<Arc<PipelinePlan>, PlanError> {
        let context = planning_context();
        let syntax = Syntax::read(sql, &context.state())?;
        let schemas = register_streams(&context, &syntax, schema_of)?;
        let state = context.state();
        let logical =
            state.statement_to_plan(syntax.statement.clone()).await.map_err(|error| refused(error, &schemas))?;
        let analyzed = state.analyzer().execute_and_check(logical, state.config_options(), |_, _| {});
        let analyzed = analyzed.map_err(|error| refused(error, &schemas))?;
        let split = split(&analyzed, &syntax)?;
        let lineages = lineage::columns(&split.rest, &split.lineages);
        let output = Output::new(split.rest.schema(), &lineages);
        let output = output.map_err(|refusal| PlanError::at(Some(syntax.start), refusal))?;
        let (streams, sources) = plan_sources(&split, &state).await.map_err(|error| refused(error, &schemas))?;
        let rest = plan_rest(&split.rest, &state).await.map_err(|error| refused(error, &schemas))?;
        let (name, cut, engine) = (name.to_owned(), split.cut, Engine::new());
        Ok(Arc::new(PipelinePlan { name, streams, cut, engine, sources, rest, output }))
    }

    /// Name of the pipeline.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The streams it reads, in the order in which the query does.
    pub fn streams(&self) -> &[Arc<str>] {
        &self.streams
    }

    /// Columns of a stream that the query needs; none where it does not read it.
    pub fn columns_of(&self, stream: &str) -> BTreeSet<&str> {
        let of_stream = self.sources.iter().filter(|source| *self.streams[source.stream] == *stream);
        of_stream.flat_map(|source| source.input.fields().iter().map(|field| field.name().as_str())).collect()
    }

    /// How its windows are cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Names of the result's columns that are group columns besides the window: with it they name one result row.
    pub fn group_columns(&self) -> Vec<String> {
        self.output.keys.clone()
    }

    /// Columns of a closed window: `window_start`, `window_end` (Timestamp(µs, UTC)), those of the query, `revision` (Int64,
    /// 0), `completeness` (Float64, null).
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output.schema
    }

    /// Windows without rows, for one partition. Their state may hold `state_bytes` at most.
    pub fn open(self: &Arc<Self>, state_bytes: usize) -> Windows {
        Windows::new(Arc::clone(self), state_bytes)
    }
}

impl fmt::Debug for PipelinePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &mut f.debug_struct("PipelinePlan");
        shown.field("name", &self.name).field("streams", &self.streams).field("cut", &self.cut).finish_non_exhaustive()
    }
}

/// Streams a query names, with their schemas.
type Schemas = BTreeMap<String, SchemaRef>;

fn register_streams(
    context: &SessionContext,
    syntax: &Syntax,
    schema_of: &(dyn Fn(&str) -> Option<SchemaRef> + Sync),
) -> Result<Schemas, PlanError> {
    let mut schemas = Schemas::new();
    for (name, place) in &syntax.relations {
        let Some(schema) = schema_of(name).filter(|_| lineage::source_of(name).is_none()) else {
            return Err(PlanError::at(Some(*place), Refusal::UnknownStream(name.clone())));
        };
        let table = SlotTable { number: 0, schema: Arc::clone(&schema) };
        context.register_table(datafusion::common::TableReference::bare(name.as_str()), Arc::new(table))?;
        schemas.insert(name.clone(), schema);
    }
    Ok(schemas)
}

async fn plan_sources(split: &Split, state: &SessionState) -> Result<(Vec<Arc<str>>, Vec<Source>), DataFusionError> {
    let bare = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(Vec::new()).build();
    let (mut streams, mut sources) = (Vec::<Arc<str>>::new(), Vec::new());
    for found in &split.found {
        let stream = match streams.iter().position(|name| **name == *found.stream) {
            Some(stream) => stream,
            None => {
                streams.push(Arc::from(found.stream.as_str()));
                streams.len() - 1
            }
        };
        sources.push(Source::plan(found, stream, &bare).await?);
    }
    Ok((streams, sources))
}

async fn plan_rest(rest: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let optimized = state.optimize(rest)?;
    DefaultPhysicalPlanner::default().create_physical_plan(&optimized, state).await
}

/// The engine's error in our words, with the place of the column or expression it is about.
fn refused(error: DataFusionError, schemas: &Schemas) -> PlanError {
    let (mut error, mut place) = (error, None);
    loop {
        match error {
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let start = diagnostic.span.map(|span| span.start);
                place = place.or(start.map(|start| SqlPlace { line: start.line, column: start.column }));
                error = *inner;
            }
            DataFusionError::Context(_, inner) => error = *inner,
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => error = first,
                None => return PlanError::at(place, Refusal::Syntax("it cannot be planned".to_owned())),
            },
            DataFusionError::SchemaError(schema, backtrace) => {
                return match *schema {
                    SchemaError::FieldNotFound { field, valid_fields } => {
                        let own = field.spans.first().map(|span| span.start);
                        let place = own.map(|start| SqlPlace { line: start.line, column: start.column }).or(place);
                        let of_streams = schemas.values().flat_map(|schema| schema.fields());
                        let known = valid_fields.iter().map(|known| known.name.as_str());
                        let nearest = nearest(&field.name, known.chain(of_streams.map(|known| known.name().as_str())));
                        PlanError::at(place, Refusal::UnknownColumn { name: field.name.clone(), nearest })
                    }
                    other => {
                        let text = DataFusionError::SchemaError(Box::new(other), backtrace).strip_backtrace();
                        PlanError::at(place, Refusal::Syntax(in_short(&text)))
                    }
                };
            }
            DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) => {
                return PlanError::at(place, Refusal::Syntax(in_short(&text)));
            }
            other => return PlanError::Engine(other),
        }
    }
}

/// The first line of a message of the engine, without what it says about itself.
fn in_short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("Schema error: ").trim_start_matches("Error during planning: ").to_owned()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
