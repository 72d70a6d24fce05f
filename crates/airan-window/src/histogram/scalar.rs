//! Functions of one histogram: a quantile, the number and the sum of its observations.

use std::sync::Arc;

use airan_model::schema;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::coerced;
use super::column::{Histogram, Histograms, are_bounds, total};

const QUANTILE: &str = "histogram_quantile";

/// `histogram_quantile(q, h)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Quantile {
    signature: Signature,
}

impl Quantile {
    pub fn new() -> Quantile {
        Quantile { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Quantile {
    fn name(&self) -> &str {
        QUANTILE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [q, histogram] if q.is_numeric() || q.is_null() => {
                Ok(vec![DataType::Float64, coerced(QUANTILE, histogram)?])
            }
            _ => plan_err!("{QUANTILE} takes a share and a histogram, as in {QUANTILE}(0.99, h)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let literal = args.scalar_arguments.first().copied().flatten();
        if let Some(ScalarValue::Float64(Some(q))) = literal.map(|q| q.cast_to(&DataType::Float64)).transpose()?
            && !(0.0..=1.0).contains(&q)
        {
            return plan_err!("{QUANTILE} takes a share from 0 to 1, not {q}: 0.99 for the 99th percentile");
        }
        Ok(Arc::new(Field::new(QUANTILE, DataType::Float64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [q, histogram] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("{QUANTILE} takes two arguments"));
        };
        let rows = of_histograms(histogram, args.number_rows)?;
        let rows = Histograms::of(&rows)?;
        let quantile_of = |q: f64, row: usize| rows.get(row).and_then(|histogram| quantile(q, &histogram));
        let found: Float64Array = match q {
            ColumnarValue::Scalar(ScalarValue::Float64(q)) => {
                (0..args.number_rows).map(|row| quantile_of((*q)?, row)).collect()
            }
            _ => {
                let qs = q.to_array(args.number_rows)?;
                let qs = qs.as_primitive_opt::<Float64Type>();
                let qs = qs.ok_or_else(|| exec_datafusion_err!("the share of {QUANTILE} is no number"))?;
                qs.iter().enumerate().map(|(row, q)| quantile_of(q?, row)).collect()
            }
        };
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

/// What a share `q` of the observations stayed below: Prometheus' `histogram_quantile` for classic histograms (promql/quantile.go,
/// `BucketQuantile`).
///
/// Inside its bucket the value is interpolated linearly; the first bucket begins at 0 if its bound is above 0, else its bound is
/// the answer; in the bucket that reaches to infinity the answer is the highest bound. `q` below 0 gives -Inf, above 1 +Inf.
/// None where Prometheus has NaN: no observation, no bound, `q` no number; and where bounds do not ascend. For `q` = 0 with an
/// empty first bucket Prometheus divides 0 by 0; here the answer is the lower end of the first bucket that is not empty.
pub(super) fn quantile(q: f64, histogram: &Histogram<'_>) -> Option<f64> {
    if q.is_nan() {
        return None;
    } else if q < 0.0 {
        return Some(f64::NEG_INFINITY);
    } else if q > 1.0 {
        return Some(f64::INFINITY);
    }
    let Histogram { bounds, counts, .. } = histogram;
    let observations = total(counts);
    let highest = *bounds.last()?;
    if observations == 0 || !are_bounds(bounds) {
        return None;
    }
    let rank = q * observations as f64;
    let mut below = 0_i64;
    for (index, &count) in counts.iter().enumerate() {
        let through = below.saturating_add(count);
        if count == 0 || (through as f64) < rank {
            below = through;
            continue;
        }
        let Some(&end) = bounds.get(index) else { return Some(highest) };
        let start = match index.checked_sub(1) {
            Some(before) => bounds[before],
            None if end <= 0.0 => return Some(end),
            None => 0.0,
        };
        return Some(start + (end - start) * ((rank - below as f64) / count as f64));
    }
    Some(highest)
}

/// `histogram_count(h)` and `histogram_sum(h)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Part {
    which: Which,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    Count,
    Sum,
}

impl Part {
    /// The number of observations.
    pub fn count() -> Part {
        Part { which: Which::Count, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The sum of the observed values.
    pub fn sum() -> Part {
        Part { which: Which::Sum, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        match self.which {
            Which::Count => "histogram_count",
            Which::Sum => "histogram_sum",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [ty] => Ok(vec![coerced(self.name(), ty)?]),
            _ => plan_err!("{} takes one histogram", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.which {
            Which::Count => DataType::Int64,
            Which::Sum => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [histogram] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("{} takes one argument", self.name()));
        };
        let rows = of_histograms(histogram, args.number_rows)?;
        let rows = Histograms::of(&rows)?;
        let found = (0..args.number_rows).map(|row| rows.get(row));
        let found: ArrayRef = match self.which {
            Which::Count => Arc::new(found.map(|row| Some(row?.count)).collect::<Int64Array>()),
            Which::Sum => Arc::new(found.map(|row| row?.sum).collect::<Float64Array>()),
        };
        Ok(ColumnarValue::Array(found))
    }
}

/// An argument as a column; a literal null stands for a histogram that is not there.
pub(super) fn of_histograms(argument: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    match argument {
        ColumnarValue::Scalar(null) if null.is_null() => {
            Ok(arrow::array::new_null_array(&schema::histogram_type(), rows))
        }
        other => other.to_array(rows),
    }
}
