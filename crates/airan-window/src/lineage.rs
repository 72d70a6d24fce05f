//! What the columns of a query over closed windows are: the window itself, the site, another group column, or a value.
//!
//! Known so that nothing above the windows mixes two of them: each is finished on its own when it closes.

use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator};

use crate::trace::is_of;

/// Name of the table that stands for a source's closed windows, before its number.
const CLOSED: &str = "airan_closed_";

/// The name of the table that stands for the closed windows of a source.
pub(crate) fn closed_table(source: usize) -> String {
    format!("{CLOSED}{source}")
}

/// The source whose closed windows a table stands for.
pub(crate) fn source_of(table: &str) -> Option<usize> {
    table.strip_prefix(CLOSED)?.parse().ok()
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// The start of the window.
    Window,
    /// The site.
    Site,
    /// Another column of the GROUP BY.
    Key,
    /// Anything else.
    Value,
}

impl Lineage {
    /// What a column is that is sometimes the one and sometimes the other.
    fn or(self, other: Lineage) -> Lineage {
        match (self, other) {
            (one, other) if one == other => one,
            (Lineage::Site | Lineage::Key, Lineage::Site | Lineage::Key) => Lineage::Key,
            _ => Lineage::Value,
        }
    }
}

/// What the columns of a plan are, in order. `closed` tells it of each source's closed windows.
pub(crate) fn columns(plan: &LogicalPlan, closed: &[Vec<Lineage>]) -> Vec<Lineage> {
    let values = || vec![Lineage::Value; plan.schema().fields().len()];
    match plan {
        LogicalPlan::TableScan(scan) => {
            source_of(scan.table_name.table()).and_then(|source| closed.get(source).cloned()).unwrap_or_else(values)
        }
        LogicalPlan::Projection(projection) => {
            let below = columns(&projection.input, closed);
            projection.expr.iter().map(|expr| of_expr(expr, projection.input.schema(), &below)).collect()
        }
        LogicalPlan::Filter(filter) => columns(&filter.input, closed),
        LogicalPlan::SubqueryAlias(alias) => columns(&alias.input, closed),
        LogicalPlan::Distinct(Distinct::All(input)) => columns(input, closed),
        LogicalPlan::Aggregate(aggregate) => {
            let below = columns(&aggregate.input, closed);
            let mut found: Vec<Lineage> =
                aggregate.group_expr.iter().map(|expr| of_expr(expr, aggregate.input.schema(), &below)).collect();
            found.resize(plan.schema().fields().len(), Lineage::Value);
            found
        }
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => columns(&join.left, closed),
            JoinType::RightSemi | JoinType::RightAnti => columns(&join.right, closed),
            JoinType::LeftMark | JoinType::RightMark => values(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                let mut both = columns(&join.left, closed);
                both.extend(columns(&join.right, closed));
                both
            }
        },
        LogicalPlan::Union(union) => {
            let merged = union
                .inputs
                .iter()
                .map(|input| columns(input, closed))
                .reduce(|one, other| one.into_iter().zip(other).map(|(one, other)| one.or(other)).collect());
            merged.unwrap_or_else(values)
        }
        _ => values(),
    }
}

/// What an expression over columns is.
fn of_expr(expr: &Expr, schema: &DFSchema, below: &[Lineage]) -> Lineage {
    match expr {
        Expr::Column(column) => {
            schema.maybe_index_of_column(column).and_then(|index| below.get(index)).copied().unwrap_or(Lineage::Value)
        }
        Expr::Alias(alias) => of_expr(&alias.expr, schema, below),
        Expr::ScalarFunction(call) if call.func.name() == "coalesce" => {
            let parts = call.args.iter().map(|part| of_expr(part, schema, below));
            parts.reduce(Lineage::or).unwrap_or(Lineage::Value)
        }
        _ => Lineage::Value,
    }
}

/// Whether a join compares window with window and site with site, so that it never reaches over the edge of a window.
pub(crate) fn stays_inside(join: &Join, closed: &[Vec<Lineage>]) -> bool {
    let (left, right) = (columns(&join.left, closed), columns(&join.right, closed));
    let of = |a: &Expr, b: &Expr| -> Option<Lineage> {
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let (a, b) = if is_of(a, left_schema) && is_of(b, right_schema) {
            (a, b)
        } else if is_of(b, left_schema) && is_of(a, right_schema) {
            (b, a)
        } else {
            return None;
        };
        let (a, b) = (of_expr(a, left_schema, &left), of_expr(b, right_schema, &right));
        (a == b).then_some(a)
    };
    let filters = join.filter.iter().flat_map(split_conjunction);
    let compared = filters.filter_map(|filter| match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => of(left, right),
        _ => None,
    });
    let found: Vec<Lineage> = join.on.iter().filter_map(|(left, right)| of(left, right)).chain(compared).collect();
    found.contains(&Lineage::Window) && found.contains(&Lineage::Site)
}
