//! `histogram_above(x, h)`: how many observations are above a threshold.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::coerced;
use super::column::{Histogram, Histograms, are_bounds};
use super::scalar::of_histograms;

const NAME: &str = "histogram_above";

/// `histogram_above(x, h)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Above {
    signature: Signature,
}

impl Above {
    pub fn new() -> Above {
        Above { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Above {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [x, histogram] if x.is_numeric() || x.is_null() => Ok(vec![DataType::Float64, coerced(NAME, histogram)?]),
            _ => plan_err!("{NAME} takes a number and a histogram, as in {NAME}(0.0005, h)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [x, histogram] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("{NAME} takes two arguments"));
        };
        let rows = of_histograms(histogram, args.number_rows)?;
        let rows = Histograms::of(&rows)?;
        let x = x.to_array(args.number_rows)?;
        let x = x.as_primitive_opt::<Float64Type>();
        let x = x.ok_or_else(|| exec_datafusion_err!("the threshold of {NAME} is no number"))?;
        let found = x.iter().enumerate().map(|(row, x)| above(x?, &rows.get(row)?));
        Ok(ColumnarValue::Array(Arc::new(found.collect::<Float64Array>())))
    }
}

/// How many observations are above `x`. Exact where `x` is a bound; inside a bucket observations count as spread evenly, from 0 in
/// the first if its bound is above 0. Beyond the highest bound nobody knows where they are: all of the last bucket counts as above, so the
/// answer is rather too large than too small. None where bounds do not ascend or there is none.
pub(super) fn above(x: f64, histogram: &Histogram<'_>) -> Option<f64> {
    let Histogram { bounds, counts, .. } = histogram;
    if x.is_nan() || bounds.is_empty() || !are_bounds(bounds) {
        return None;
    }
    let mut found = 0.0;
    for (index, count) in counts.iter().enumerate() {
        let count = *count as f64;
        let Some(&end) = bounds.get(index) else {
            found += count;
            continue;
        };
        let start = match index.checked_sub(1) {
            Some(before) => bounds[before],
            None if end > 0.0 => 0.0,
            None => f64::NEG_INFINITY,
        };
        found += match () {
            () if x >= end => 0.0,
            () if x <= start || start.is_infinite() => count,
            () => count * (end - x) / (end - start),
        };
    }
    Some(found)
}
