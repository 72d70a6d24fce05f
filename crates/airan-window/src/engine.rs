//! Running a plan, made once, over batches, many times.
//!
//! The leaves of all our plans are [`Slot`]s: they yield the batches a run brings along. So a plan holds no data, and shards
//! share it. Every run is bounded and on one partition, and spawns no task. Operators keep metrics, and joins their build side,
//! in the plan itself; a run therefore works on a copy with fresh state, which costs a few allocations for each operator.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream, collect,
};
use datafusion::prelude::SessionConfig;

/// Rows of one output batch. Large, so that the state of a window usually is one batch, not slices that share one.
const OUTPUT_ROWS: usize = 65_536;

/// Runs plans. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
}

/// What a run brings along: batches by slot.
struct Inputs(Vec<Vec<RecordBatch>>);

impl Engine {
    pub fn new() -> Engine {
        let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(OUTPUT_ROWS);
        // Partial aggregation must always aggregate: rows passed through as state would fill the windows.
        config.options_mut().execution.skip_partial_aggregation_probe_rows_threshold = usize::MAX;
        Engine { config, runtime: Arc::new(RuntimeEnv::default()) }
    }

    /// Runs a plan to its end over `inputs`, one list of batches for each slot, each batch in its slot's full schema.
    pub async fn run(&self, plan: &Arc<dyn ExecutionPlan>, inputs: Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        let fresh = reset_plan_states(Arc::clone(plan))?;
        let config = self.config.clone().with_extension(Arc::new(Inputs(inputs)));
        let context = TaskContext::new(
            None,
            String::new(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::clone(&self.runtime),
        );
        collect(fresh, Arc::new(context)).await
    }
}

/// A leaf that yields what a run brought for it.
#[derive(Debug)]
pub(crate) struct Slot {
    number: usize,
    /// Columns taken of the batches; None for all.
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl Slot {
    /// A leaf over batches that have this schema.
    pub fn new(number: usize, schema: SchemaRef) -> Slot {
        Slot { number, projection: None, properties: properties(schema) }
    }

    fn projected(number: usize, schema: &SchemaRef, projection: Option<&Vec<usize>>) -> Result<Slot> {
        let Some(projection) = projection else { return Ok(Slot::new(number, Arc::clone(schema))) };
        let projected = Arc::new(schema.project(projection)?);
        Ok(Slot { number, projection: Some(projection.clone()), properties: properties(projected) })
    }
}

fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for Slot {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot: {}", self.number)
    }
}

impl ExecutionPlan for Slot {
    fn name(&self) -> &str {
        "Slot"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a slot has one partition, not {partition}");
        }
        let Some(inputs) = context.session_config().get_extension::<Inputs>() else {
            return exec_err!("nothing was brought for slot {}", self.number);
        };
        let batches = inputs.0.get(self.number).cloned().unwrap_or_default();
        Ok(Box::pin(MemoryStream::try_new(batches, self.schema(), self.projection.clone())?))
    }
}

/// A table whose rows come through a slot.
#[derive(Debug)]
pub(crate) struct SlotTable {
    pub number: usize,
    pub schema: SchemaRef,
}

#[async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Slot::projected(self.number, &self.schema, projection)?))
    }
}
