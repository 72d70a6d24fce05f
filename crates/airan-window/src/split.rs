//! Cutting a query in two: the lowest windowed aggregate over each stream, and the rest, over closed windows.
//!
//! The first parts run on every batch of rows, the second once for each window that closes. In the rest a table of its own
//! stands for each aggregate. What cannot be cut so is refused here, because only the plan shows it.

use std::sync::Arc;

use airan_model::schema;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, LogicalPlanBuilder, col};

use crate::cut::Cut;
use crate::engine::SlotTable;
use crate::error::{PlanError, Refusal};
use crate::lineage::{self, Lineage, closed_table};
use crate::syntax::Syntax;
use crate::trace::{Origin, place_of_expr, trace, window};

/// A windowed aggregate over one stream.
#[derive(Debug)]
pub(crate) struct Found {
    /// The stream.
    pub stream: String,
    /// The aggregate, over filters and projections of a scan.
    pub aggregate: Aggregate,
    /// Which of its group expressions is the window.
    pub window: usize,
    /// Columns of its result, under the names of the table that stands for it.
    pub closed: SchemaRef,
}

/// A query cut in two.
#[derive(Debug)]
pub(crate) struct Split {
    /// The aggregates; at least one.
    pub found: Vec<Found>,
    /// What the columns of each aggregate's result are.
    pub lineages: Vec<Vec<Lineage>>,
    /// How all windows are cut.
    pub cut: Cut,
    /// The rest of the query.
    pub rest: LogicalPlan,
}

/// Cuts an analyzed plan.
pub(crate) fn split(plan: &LogicalPlan, syntax: &Syntax) -> Result<Split, PlanError> {
    let mut cutter = Cutter { syntax, found: Vec::new(), lineages: Vec::new(), cut: None };
    let rest = cutter.rewrite(plan)?;
    let Some(cut) = cutter.cut else {
        return Err(PlanError::at(
            Some(syntax.start),
            Refusal::Unsupported("a SELECT that reads no stream".to_owned()),
        ));
    };
    Ok(Split { found: cutter.found, lineages: cutter.lineages, cut, rest })
}

struct Cutter<'a> {
    syntax: &'a Syntax,
    found: Vec<Found>,
    lineages: Vec<Vec<Lineage>>,
    cut: Option<Cut>,
}

impl Cutter<'_> {
    fn rewrite(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan, PlanError> {
        if let LogicalPlan::Aggregate(aggregate) = plan
            && let Some(stream) = self.stream_below(&aggregate.input)?
        {
            return self.take(aggregate, stream);
        }
        self.check_before(plan)?;
        let inputs = plan.inputs().into_iter().map(|input| self.rewrite(input)).collect::<Result<Vec<_>, _>>()?;
        let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
        self.check_after(&plan)?;
        Ok(plan)
    }

    /// The stream whose rows reach here through filters and expressions alone; None if there are closed windows below.
    fn stream_below(&self, plan: &LogicalPlan) -> Result<Option<String>, PlanError> {
        match plan {
            LogicalPlan::Projection(projection) => self.stream_below(&projection.input),
            LogicalPlan::Filter(filter) => self.stream_below(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => self.stream_below(&alias.input),
            LogicalPlan::TableScan(scan) => Ok(Some(scan.table_name.table().to_owned())),
            LogicalPlan::Aggregate(_) => Ok(None),
            other => self.check_before(other).map(|()| None),
        }
    }

    /// Refuses what may not stand over rows that have no window yet, and what may not stand anywhere.
    fn check_before(&self, plan: &LogicalPlan) -> Result<(), PlanError> {
        let step = match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => return Ok(()),
            LogicalPlan::Aggregate(_) => return Ok(()),
            LogicalPlan::TableScan(scan) => {
                let stream = scan.table_name.table().to_owned();
                let place = self.syntax.place_of_group_by(&stream);
                return Err(PlanError::at(place, Refusal::NoWindow(stream)));
            }
            LogicalPlan::Join(join) => {
                // The right side is the one that was joined, so its place says more.
                let raw = rows_below(&join.right).or_else(|| rows_below(&join.left));
                return match raw {
                    Some(stream) => {
                        let place = self.syntax.place_of_join(&stream);
                        Err(PlanError::at(place, Refusal::JoinOfStreams(stream)))
                    }
                    None => Ok(()),
                };
            }
            LogicalPlan::Union(_) => "UNION",
            LogicalPlan::Distinct(Distinct::All(_)) => "DISTINCT",
            LogicalPlan::Window(_) => return Err(PlanError::Query(Refusal::Ordered("OVER"))),
            LogicalPlan::Sort(_) => return Err(PlanError::Query(Refusal::Ordered("ORDER BY"))),
            LogicalPlan::Limit(_) => return Err(PlanError::Query(Refusal::Ordered("LIMIT"))),
            other => {
                let name = other.display().to_string();
                let name = name.split(':').next().unwrap_or_default().to_owned();
                return Err(PlanError::at(Some(self.syntax.start), Refusal::Unsupported(name)));
            }
        };
        match rows_below(plan) {
            Some(stream) => {
                let place = self.syntax.place_of_relation(&stream);
                Err(PlanError::at(place, Refusal::BeforeWindow { step, stream }))
            }
            None => Ok(()),
        }
    }

    /// Refuses steps over closed windows that would mix two of them. Their inputs are rewritten already.
    fn check_after(&self, plan: &LogicalPlan) -> Result<(), PlanError> {
        match plan {
            LogicalPlan::Join(join) if !lineage::stays_inside(join, &self.lineages) => {
                let exprs = join.on.iter().map(|(left, _)| left).chain(&join.filter);
                let place = exprs.into_iter().find_map(place_of_expr).or_else(|| self.syntax.first_join());
                Err(PlanError::at(place, Refusal::JoinOverWindows))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let columns = lineage::columns(plan, &self.lineages);
                let place = aggregate.group_expr.iter().find_map(place_of_expr).or(Some(self.syntax.start));
                if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
                    return Err(PlanError::at(place, Refusal::GroupingSets));
                }
                check_keeps_window(&columns, "GROUP BY").map_err(|refusal| PlanError::at(place, refusal))
            }
            LogicalPlan::Distinct(_) => {
                let columns = lineage::columns(plan, &self.lineages);
                check_keeps_window(&columns, "DISTINCT")
                    .map_err(|refusal| PlanError::at(Some(self.syntax.start), refusal))
            }
            _ => Ok(()),
        }
    }

    /// Takes an aggregate out, and returns what stands for it.
    fn take(&mut self, aggregate: &Aggregate, stream: String) -> Result<LogicalPlan, PlanError> {
        if let Some(same) = self.found.iter().position(|found| found.aggregate == *aggregate) {
            return Ok(stand_in(same, &self.found[same])?);
        }
        let place = self.syntax.place_of_group_by(&stream);
        let (mut lineage, mut windows) = (Vec::new(), Vec::new());
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(PlanError::at(place, Refusal::GroupingSets));
            }
            lineage.push(match window(expr, &aggregate.input)? {
                Some(cut) => {
                    windows.push((index, cut));
                    Lineage::Window
                }
                None if matches!(trace(expr, &aggregate.input), Origin::Table(schema::SITE)) => Lineage::Site,
                None => Lineage::Key,
            });
        }
        let (window, cut) = match windows.as_slice() {
            [] => return Err(PlanError::at(place, Refusal::NoWindow(stream))),
            [one] => *one,
            _ => return Err(PlanError::at(place, Refusal::TwoWindows)),
        };
        if !lineage.contains(&Lineage::Site) {
            return Err(PlanError::at(place, Refusal::NoSite(stream)));
        }
        let first = *self.cut.get_or_insert(cut);
        if first != cut {
            return Err(PlanError::at(place, Refusal::DifferentWidths { first, second: cut }));
        }
        lineage.resize(aggregate.schema.fields().len(), Lineage::Value);
        let closed = aggregate.schema.fields().iter().enumerate();
        let closed: Vec<Field> =
            closed.map(|(index, field)| field.as_ref().clone().with_name(closed_column(index))).collect();
        let closed = Arc::new(Schema::new(closed));
        self.found.push(Found { stream, aggregate: aggregate.clone(), window, closed });
        self.lineages.push(lineage);
        let source = self.found.len() - 1;
        Ok(stand_in(source, &self.found[source])?)
    }
}

fn closed_column(index: usize) -> String {
    format!("c{index}")
}

/// A scan of closed windows under the names the aggregate's columns had.
fn stand_in(source: usize, found: &Found) -> Result<LogicalPlan, DataFusionError> {
    let table = Arc::new(SlotTable { number: source, schema: Arc::clone(&found.closed) });
    let names = found.aggregate.schema.iter().enumerate();
    let names = names
        .map(|(index, (relation, field))| col(closed_column(index)).alias_qualified(relation.cloned(), field.name()));
    LogicalPlanBuilder::scan(closed_table(source), provider_as_source(table), None)?.project(names)?.build()
}

fn check_keeps_window(columns: &[Lineage], step: &'static str) -> Result<(), Refusal> {
    match columns.contains(&Lineage::Window) && columns.contains(&Lineage::Site) {
        true => Ok(()),
        false => Err(Refusal::OverWindows(step)),
    }
}

/// A stream whose rows reach here without an aggregate in between. Tables of closed windows are none.
fn rows_below(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::Aggregate(_) => None,
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_owned()),
        other => other.inputs().into_iter().find_map(rows_below),
    }
}
