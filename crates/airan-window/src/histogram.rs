//! Functions over histograms in SQL: `histogram_merge`, `histogram_quantile`, `histogram_above`, `histogram_count`,
//! `histogram_sum`.
//!
//! | function | gives |
//! | --- | --- |
//! | `histogram_merge(h)` | the histogram of all observations of a group; an aggregate |
//! | `histogram_quantile(q, h)` | what a share `q` of the observations stayed below, as Prometheus' function of that name |
//! | `histogram_above(x, h)` | how many observations are above `x`, exactly where `x` is a bound |
//! | `histogram_count(h)`, `histogram_sum(h)` | number and sum of the observations |
//!
//! They work on [`schema::histogram_type`]: counts are per bucket, the last bucket reaches to infinity.
//!
//! **Bounds that differ are never merged blindly.** The merged histogram has those bounds of all merged ones that lie inside no
//! bucket which holds something, and each count is put into the bucket of these that holds its own whole: what comes out is
//! exact, only coarser. Exponential histograms of one scale keep every bucket, for the bounds of one never lie inside a bucket of
//! the other, and so do those of two scales the buckets of the coarser one. With no bound left there is a single bucket, whose
//! quantiles are null. A histogram without an observation says nothing about where observations lie, so its bounds leave others
//! as they are. The bounds of a group may grow with the histograms in it; they count as state.
//!
//! Cumulative histograms are refused when a query is planned: adding up what a server counted since its start counts each
//! observation again with each row. The `_increase` beside it is meant ([`is_cumulative`]).

mod above;
mod column;
mod merge;
mod scalar;

use airan_model::schema;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// The name of the aggregate.
pub(crate) const MERGE: &str = "histogram_merge";

/// Key and value of a field's metadata by which the catalog marks cumulative histograms.
const KIND: (&str, &str) = ("kind", "histogram");

/// `histogram_merge`, for a session.
pub(crate) fn udaf() -> AggregateUDF {
    AggregateUDF::from(merge::Merge::new())
}

/// The other functions, for a session.
pub(crate) fn udfs() -> Vec<ScalarUDF> {
    vec![
        ScalarUDF::from(scalar::Quantile::new()),
        ScalarUDF::from(above::Above::new()),
        ScalarUDF::from(scalar::Part::count()),
        ScalarUDF::from(scalar::Part::sum()),
    ]
}

/// Whether a column holds histograms that count from the start of their source.
pub(crate) fn is_cumulative(field: &Field) -> bool {
    field.metadata().get(KIND.0).is_some_and(|kind| kind == KIND.1)
}

/// The type to which an argument of that type is cast: a histogram, or a null.
fn coerced(function: &str, ty: &DataType) -> Result<DataType> {
    let is_histogram = match ty {
        DataType::Null => true,
        DataType::Struct(fields) => is_same_shape(fields),
        _ => false,
    };
    if !is_histogram {
        return plan_err!("{function} takes a histogram, not {ty}");
    }
    Ok(schema::histogram_type())
}

/// Whether fields are called as those of a histogram; their types are left to a cast.
fn is_same_shape(fields: &Fields) -> bool {
    let wanted = schema::histogram_fields();
    fields.len() == wanted.len() && fields.iter().zip(&wanted).all(|(field, wanted)| field.name() == wanted.name())
}

#[cfg(test)]
#[path = "histogram/tests.rs"]
mod tests;
