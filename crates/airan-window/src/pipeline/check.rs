//! What a specification must fit: its query's columns, the catalog, the other pipelines.

use std::collections::HashMap;

use airan_model::Place;
use airan_model::catalog::{Catalog, FieldClass};
use arrow::datatypes::{DataType, Schema};

use super::error::{PipelineError, Problem};
use super::{MetricType, PipelineFolder, PipelineSpec};
use crate::cut::Cut;
use crate::error::nearest;

impl PipelineSpec {
    /// Checks it against the columns of its query's results, how it cuts time, and the catalog.
    ///
    /// # Errors
    /// If the table is a stream's; if a metric's column is not there or no number; if a label is not there, neither text nor a
    /// whole number, or names a subscriber; if a metric is a counter of windows that overlap.
    pub fn check(&self, results: &Schema, cut: Cut, catalog: &Catalog) -> Result<(), PipelineError> {
        if catalog.stream(&self.table).is_some() {
            return Err(refuse(&self.places.table, Problem::StreamName(self.table.clone())));
        }
        for metric in &self.metrics {
            if metric.ty == MetricType::Counter && cut.panes() > 1 {
                return Err(refuse(&metric.place, Problem::CounterOverlaps(metric.name.clone(), cut)));
            }
            let ty = type_of(results, &metric.column, &metric.column_place)?;
            if !ty.is_numeric() {
                return Err(wrong_type(&metric.column, ty, "a number", &metric.column_place));
            }
            for (label, place) in metric.labels.iter().zip(&metric.label_places) {
                let ty = type_of(results, label, place)?;
                if !(is_text(ty) || ty.is_integer() || *ty == DataType::Boolean) {
                    return Err(wrong_type(label, ty, "text or a whole number", place));
                }
                if catalog.field_class(label) == FieldClass::Drop {
                    let reason = "names a subscriber, which no metric may";
                    return Err(refuse(place, Problem::Label { name: label.clone(), reason }));
                }
            }
        }
        Ok(())
    }
}

/// Checks that no two pipelines have one name, table or metric: they would overwrite each other's results.
pub(super) fn among_each_other(folders: &[PipelineFolder]) -> Result<(), PipelineError> {
    let (mut names, mut tables, mut metrics) = (HashMap::new(), HashMap::new(), HashMap::new());
    for spec in folders.iter().map(|folder| &folder.spec) {
        once(&mut names, "pipeline", &spec.name, &spec.places.name)?;
        once(&mut tables, "table", &spec.table, &spec.places.table)?;
        for metric in &spec.metrics {
            once(&mut metrics, "metric", &metric.name, &metric.place)?;
        }
    }
    Ok(())
}

fn once<'a>(
    seen: &mut HashMap<&'a str, &'a Place>,
    what: &'static str,
    name: &'a str,
    place: &'a Place,
) -> Result<(), PipelineError> {
    match seen.insert(name, place) {
        None => Ok(()),
        Some(first) => Err(refuse(place, Problem::Duplicate { what, name: name.to_owned(), first: first.clone() })),
    }
}

fn type_of<'a>(results: &'a Schema, name: &str, place: &Place) -> Result<&'a DataType, PipelineError> {
    let missing = |_| {
        let known = results.fields().iter().map(|field| field.name().as_str());
        let near = nearest(name, known);
        refuse(place, Problem::NoColumn { name: name.to_owned(), near })
    };
    results.field_with_name(name).map(|field| field.data_type()).map_err(missing)
}

fn is_text(ty: &DataType) -> bool {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn wrong_type(name: &str, ty: &DataType, wanted: &'static str, place: &Place) -> PipelineError {
    refuse(place, Problem::ColumnType { name: name.to_owned(), ty: ty.to_string(), wanted })
}

fn refuse(place: &Place, problem: Problem) -> PipelineError {
    PipelineError::Refused { place: place.clone(), problem: Box::new(problem) }
}
