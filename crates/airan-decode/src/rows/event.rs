//! Events: rows that stand for themselves.
//!
//! Two events of one object at one instant are two rows, where two samples of it would be one.

use airan_model::reject::Reason;

use super::plan::{Labels, Plan};
use super::table::Key;
use super::{Point, Rows, fill, fit, table_of};
use crate::number::Number;

impl<'a> Rows<'a> {
    /// Takes an event of the metric at hand.
    ///
    /// `severity` is the foreign number that the mapping's column is made of; one that its `values` do not name leaves the column
    /// null. Refused where the catalog has no place for it, for an event is no sample.
    pub(crate) fn event(&mut self, point: &Point<'_>, severity: i64) {
        let Some(plan) = self.start(point, 1) else { return };
        self.put_event(&plan, point, severity);
        self.metric.plan = Some(plan);
    }

    fn put_event(&mut self, plan: &Plan<'a>, point: &Point<'_>, severity: i64) {
        let labels = Labels { own: point.labels, shared: point.shared };
        let Some(target) = plan.targets.iter().find(|target| target.is_met(labels, Some(severity as f64))) else {
            let number = self.tally.samples + 1;
            return self
                .refuse(Reason::UnknownStream, 1, || format!("the catalog maps no such event (event {number})"));
        };
        let column = target.target.column;
        let ty = target.target.stream.columns[column].ty;
        let value = fit(Number::Int(severity), target, ty, &mut self.scratch);
        let key = Key {
            node: self.node(plan, point),
            ts: point.ts.unwrap_or(self.context.now),
            entity: |column: usize| target.entity(column, labels),
        };
        let at = table_of(&mut self.tables, target);
        let (table, budget) = (&mut self.tables[at], &mut self.budget);
        let row = table.add(&key, budget);
        if let Some(value) = value {
            table.put_value(row, column, value, budget);
        }
        fill(table, row, target, labels, budget);
        self.tally.samples += 1;
        self.tally.columns += 1;
    }
}
