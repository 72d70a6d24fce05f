//! Sessions of the engine: one for queries by people, one for plans of windows.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::{histogram, hop, tumble};

/// Rows the operators above an aggregate work on at once.
const BATCH_ROWS: usize = 8_192;

/// A session with `tumble`, `hop` and the functions on histograms, for SQL over the lake.
pub fn session_context() -> SessionContext {
    let context = SessionContext::new();
    add_functions(&context);
    context
}

fn add_functions(context: &SessionContext) {
    context.register_udf(tumble::udf());
    context.register_udf(hop::udf());
    for function in histogram::udfs() {
        context.register_udf(function);
    }
    context.register_udaf(histogram::udaf());
}

/// A session in which windows are planned: one partition, places of columns kept, no rule that would take an aggregate apart.
pub(crate) fn planning_context() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.collect_statistics = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(whole_query_rules())
        .build();
    let context = SessionContext::new_with_state(state);
    add_functions(&context);
    context
}

/// DataFusion's rules, but for the one that rewrites a lone `count(DISTINCT)` to two aggregates.
fn whole_query_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let left_out = SingleDistinctToGroupBy::new();
    Optimizer::new().rules.into_iter().filter(|rule| rule.name() != left_out.name()).collect()
}

/// The rules that help an aggregate over one stream and leave it the root of its plan.
pub(crate) fn aggregate_rules(with_common_parts: bool) -> Optimizer {
    use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
    use datafusion::optimizer::optimize_projections::OptimizeProjections;
    use datafusion::optimizer::push_down_filter::PushDownFilter;
    use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
        vec![Arc::new(SimplifyExpressions::new()), Arc::new(PushDownFilter::new())];
    if with_common_parts {
        rules.push(Arc::new(CommonSubexprEliminate::new()));
    }
    rules.push(Arc::new(OptimizeProjections::new()));
    Optimizer::with_rules(rules)
}
