//! From an expression back to the stream: which column, or which window, it really is.

use airan_model::schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{PlanError, Refusal, SqlPlace};
use crate::tumble;
use crate::width::WindowWidth;

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

/// The width of the window an expression is; None if it is none.
pub(crate) fn window(expr: &Expr, plan: &LogicalPlan) -> Result<Option<WindowWidth>, PlanError> {
    let Origin::Computed(Expr::ScalarFunction(call), plan) = trace(expr, plan) else { return Ok(None) };
    if call.func.name() != tumble::NAME {
        return Ok(None);
    }
    let [time, width] = call.args.as_slice() else { return Ok(None) };
    let refused = |refusal| PlanError::at(place_of_expr(time), refusal);
    if !matches!(trace(time, plan), Origin::Table(schema::TS)) {
        return Err(refused(Refusal::NotEventTime));
    }
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(width)), _) = without_alias(width) else {
        return Err(refused(Refusal::WidthNotConstant));
    };
    tumble::width_of(*width).map(Some).map_err(refused)
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
