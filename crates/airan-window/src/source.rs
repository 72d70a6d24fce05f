//! One stream's part of a query, in the three steps its rows go through: `Partial`, `PartialReduce`, `Final`.
//!
//! All three come from one planned aggregate, so they agree on the layout of the state. That layout is the engine's own: it
//! never leaves the process.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::engine::Slot;
use crate::session;
use crate::split::Found;

/// One windowed aggregate over one stream, planned. Its plans have one slot, 0.
#[derive(Debug)]
pub(crate) struct Source {
    /// Which of the pipeline's streams it reads.
    pub stream: usize,
    /// Columns it needs of the stream's rows; the batches `partial` takes.
    pub input: SchemaRef,
    /// Which column of the state is the window's start.
    pub window: usize,
    /// Rows → state of their groups.
    pub partial: Arc<dyn ExecutionPlan>,
    /// State → state with fewer rows of the same group: best effort, so duplicate groups may remain.
    pub fold: Arc<dyn ExecutionPlan>,
    /// State, duplicate groups or not → result.
    pub finish: Arc<dyn ExecutionPlan>,
    /// Columns of the result, as the rest of the query reads them.
    pub closed: SchemaRef,
}

impl Source {
    /// Plans the steps. `state` must have no physical optimizer rules: an aggregate over one slot needs none.
    pub async fn plan(found: &Found, stream: usize, state: &SessionState) -> Result<Source> {
        let logical = optimized(found, state)?;
        let physical = DefaultPhysicalPlanner::default().create_physical_plan(&logical, state).await?;
        let Some(partial) = partial_of(&physical) else {
            return internal_err!("no partial aggregate in the plan of stream `{}`", found.stream);
        };
        let leaf = leaf_of(&partial).ok_or_else(|| internal_datafusion_err!("no scan of `{}`", found.stream))?;
        let input = leaf.schema();
        // The caller takes the needed columns out of each batch itself, so the scan takes what it gets.
        let partial = partial.transform_up(|node| {
            if node.downcast_ref::<Slot>().is_none() {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(Slot::new(0, Arc::clone(&input))) as Arc<dyn ExecutionPlan>))
        })?;
        let partial = partial.data;
        let Some(aggregate) = partial.downcast_ref::<AggregateExec>() else {
            return internal_err!("a partial aggregate turned into {}", partial.name());
        };
        check_types(aggregate)?;
        let over_state = |mode: AggregateMode| -> Result<Arc<dyn ExecutionPlan>> {
            Ok(Arc::new(AggregateExec::try_new(
                mode,
                aggregate.group_expr().as_final(),
                aggregate.aggr_expr().to_vec(),
                vec![None; aggregate.aggr_expr().len()],
                Arc::new(Slot::new(0, aggregate.schema())),
                aggregate.input_schema(),
            )?))
        };
        Ok(Source {
            stream,
            input,
            window: found.window,
            fold: over_state(AggregateMode::PartialReduce)?,
            finish: over_state(AggregateMode::Final)?,
            closed: Arc::clone(&found.closed),
            partial: Arc::clone(&partial),
        })
    }
}

/// Some aggregates find out only when they begin to work that they do not know a type. They begin here, for a moment.
fn check_types(aggregate: &AggregateExec) -> Result<()> {
    for function in aggregate.aggr_expr() {
        match function.groups_accumulator_supported() {
            true => drop(function.create_groups_accumulator()?),
            false => drop(function.create_accumulator()?),
        }
    }
    Ok(())
}

/// The aggregate with filters pushed down and unused columns left out, still the root and with its groups as they were.
fn optimized(found: &Found, state: &SessionState) -> Result<LogicalPlan> {
    let names =
        |plan: &LogicalPlan| plan.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let original = LogicalPlan::Aggregate(found.aggregate.clone());
    for with_common_parts in [true, false] {
        let plan = session::aggregate_rules(with_common_parts).optimize(original.clone(), state, |_, _| {})?;
        if matches!(&plan, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.len() == found.aggregate.group_expr.len())
            && names(&plan) == names(&original)
        {
            return Ok(plan);
        }
    }
    Ok(original)
}

fn partial_of(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    match plan.downcast_ref::<AggregateExec>() {
        Some(aggregate) if *aggregate.mode() == AggregateMode::Partial => Some(Arc::clone(plan)),
        _ => plan.children().into_iter().find_map(partial_of),
    }
}

fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    match plan.downcast_ref::<Slot>() {
        Some(_) => Some(Arc::clone(plan)),
        None => plan.children().into_iter().find_map(leaf_of),
    }
}
