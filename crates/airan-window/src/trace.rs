//! From an expression back to the stream: which column, or which window, it really is.

use airan_model::schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::cut::Cut;
use crate::error::{PlanError, Refusal, SqlPlace};
use crate::{hop, tumble};

/// Where the values of an expression come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// They are a column of a scanned table.
    Table(&'a str),
    /// They are computed by this expression, over the columns of this plan.
    Computed(&'a Expr, &'a LogicalPlan),
}

/// Follows columns through projections, filters and aliases of tables, down to where they are computed or read.
pub(crate) fn trace<'a>(expr: &'a Expr, plan: &'a LogicalPlan) -> Origin<'a> {
    let expr = without_alias(expr);
    let Expr::Column(column) = expr else { return Origin::Computed(expr, plan) };
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return Origin::Computed(expr, plan) };
    let mut below = plan;
    loop {
        match below {
            LogicalPlan::Filter(filter) => below = &filter.input,
            LogicalPlan::SubqueryAlias(alias) => below = &alias.input,
            LogicalPlan::Projection(projection) => return trace(&projection.expr[index], &projection.input),
            LogicalPlan::TableScan(scan) => return Origin::Table(scan.projected_schema.field(index).name()),
            _ => return Origin::Computed(expr, plan),
        }
    }
}

fn without_alias(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// The windows an expression stands for; None if it is none.
pub(crate) fn window(expr: &Expr, plan: &LogicalPlan) -> Result<Option<Cut>, PlanError> {
    let Origin::Computed(Expr::ScalarFunction(call), plan) = trace(expr, plan) else { return Ok(None) };
    let (time, spans) = match (call.func.name(), call.args.as_slice()) {
        (tumble::NAME, [time, spans @ ..]) if spans.len() == 1 => (time, spans),
        (hop::NAME, [time, spans @ ..]) if spans.len() == 2 => (time, spans),
        _ => return Ok(None),
    };
    let refused = |refusal| PlanError::at(place_of_expr(time), refusal);
    if !matches!(trace(time, plan), Origin::Table(schema::TS)) {
        return Err(refused(Refusal::NotEventTime));
    }
    let constant = |span: &Expr| match without_alias(span) {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(span)), _) => Some(*span),
        _ => None,
    };
    let spans = spans.iter().map(constant).collect::<Option<Vec<_>>>();
    let cut = match spans.as_deref() {
        Some([width]) => tumble::width_of(*width).map(Cut::tumbling),
        Some([slide, size]) => hop::cut_of(*slide, *size),
        _ => Err(Refusal::WidthNotConstant),
    };
    cut.map(Some).map_err(refused)
}

/// The place of the first column in an expression.
pub(crate) fn place_of_expr(expr: &Expr) -> Option<SqlPlace> {
    let mut place = None;
    let walked = expr.apply(|expr| {
        let Expr::Column(column) = expr else { return Ok(TreeNodeRecursion::Continue) };
        let Some(span) = column.spans.first() else { return Ok(TreeNodeRecursion::Continue) };
        place = Some(SqlPlace { line: span.start.line, column: span.start.column });
        Ok(TreeNodeRecursion::Stop)
    });
    walked.ok().and(place)
}

/// Whether an expression has columns, all of them of `schema`.
pub(crate) fn is_of(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.into_iter().all(|column| schema.maybe_index_of_column(column).is_some())
}
