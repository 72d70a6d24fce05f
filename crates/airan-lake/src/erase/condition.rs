//! Which rows an erasure is about: a condition in SQL over the columns of raw rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::prelude::SessionContext;

use crate::rewrite::Keep;
use crate::schema::TableSchema;

/// Why a condition cannot be applied to a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ConditionError {
    /// Skip the table: none of its rows can be meant.
    #[error("the table has no column `{0}`")]
    NoColumn(String),
    /// Correct it.
    #[error("{0}")]
    Wrong(String),
}

/// A condition, as the columns of one table give it its meaning.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) expr: Expr,
    columns: SchemaRef,
}

impl Condition {
    /// `text` over the rows of a table with `schema`.
    pub(crate) fn of(text: &str, schema: &TableSchema) -> Result<Condition, ConditionError> {
        let context = SessionContext::new();
        let wrong = |error: DataFusionError| match missing(&error) {
            Some(column) => ConditionError::NoColumn(column),
            None => ConditionError::Wrong(error.strip_backtrace().lines().next().unwrap_or_default().to_owned()),
        };
        let all = DFSchema::try_from(Arc::clone(&schema.columns)).map_err(wrong)?;
        let expr = context.parse_sql_expr(text, &all).map_err(wrong)?;
        if let Some(part) = refused(&expr).map_err(wrong)? {
            return Err(ConditionError::Wrong(part));
        }
        let names: Vec<String> = expr.column_refs().iter().map(|column| column.name.clone()).collect();
        if names.is_empty() {
            return Err(ConditionError::Wrong(
                "it names no column, so it would be true of all rows or of none".to_owned(),
            ));
        }
        if expr.get_type(&all).map_err(wrong)? != DataType::Boolean {
            return Err(ConditionError::Wrong("it is not true or false".to_owned()));
        }
        let fields = schema.columns.fields().iter().filter(|field| names.contains(field.name()));
        let columns = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        Ok(Condition { expr, columns })
    }

    /// Keeps every row of which the condition is not true: it is false, or null.
    pub(crate) fn keep(&self) -> Result<Keep, DataFusionError> {
        let context = SessionContext::new();
        let columns = DFSchema::try_from(Arc::clone(&self.columns))?;
        let test = context.create_physical_expr(self.expr.clone(), &columns)?;
        let test = move |batch: &RecordBatch| {
            let found = test.evaluate(batch)?.into_array(batch.num_rows())?;
            let found = found.as_boolean();
            let stays = |row: usize| Some(found.is_null(row) || !found.value(row));
            Ok((0..found.len()).map(stays).collect::<BooleanArray>())
        };
        Ok(Keep::new(Arc::clone(&self.columns), test))
    }
}

/// The column that an error says is not there.
fn missing(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Some(field.name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// What in `expr` says more than one row can answer, or not the same each time.
fn refused(expr: &Expr) -> Result<Option<String>, DataFusionError> {
    let mut found = None;
    expr.exists(|part| {
        found = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("`{}` does not give the same answer each time", call.func.name()))
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some(format!("`{part}` looks at more than one row"))
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                Some("it has a subquery".to_owned())
            }
            _ => return Ok(false),
        };
        Ok(true)
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::testing::{raw, times};

    fn schema() -> TableSchema {
        let site: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let load: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        TableSchema::first(&raw("host", &[("ts", times(&[0, 1, 2])), ("site", site), ("load", load)])).unwrap()
    }

    /// Scenario: conditions with columns that are not there, of other types than true or false, over several rows, with
    /// functions that change their answer, with subqueries, and of no row at all.
    /// Guarantees: each is refused in words; a missing column is told apart, since the table is then skipped.
    #[test]
    fn what_is_no_condition_of_a_row_is_refused() {
        let of = |text: &str| Condition::of(text, &schema()).unwrap_err();
        assert_eq!(of("device = 'x'"), ConditionError::NoColumn("device".to_owned()));
        assert_eq!(of("date = '2026-01-01'"), ConditionError::NoColumn("date".to_owned()));
        for text in [
            "site =",
            "load + 1",
            "true",
            "1 = 1",
            "count(load) > 1",
            "random() < 0.5 AND load = 1",
            "ts < now()",
            "load = (SELECT 1)",
            "load IN (SELECT 1)",
        ] {
            assert!(matches!(of(text), ConditionError::Wrong(_)), "{text}: {}", of(text));
        }
        for text in ["site = 'a'", "load > 1 OR site IS NULL", "ts < '2026-01-01T00:00:00Z'", "lower(site) LIKE 'a%'"] {
            Condition::of(text, &schema()).unwrap().keep().unwrap();
        }
    }
}
