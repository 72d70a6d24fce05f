//! `hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')`: windows of five minutes, one beginning each minute.
//!
//! In a pipeline's GROUP BY it stands for all the windows that hold a row. Evaluated on a row, also in a query over the lake, it
//! gives the start of the last of them, which is the row's pane: that is how rows become state, and the windows come of it when
//! they close (see `cut.rs`).

use std::sync::Arc;

use airan_model::schema;
use airan_model::time::{DAY, Micros};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::cut::Cut;
use crate::error::Refusal;
use crate::tumble;

/// The name of the function.
pub(crate) const NAME: &str = "hop";

/// The function, for a session.
pub(crate) fn udf() -> ScalarUDF {
    ScalarUDF::from(Hop { signature: Signature::any(3, Volatility::Immutable) })
}

/// The cut that two intervals mean.
pub(crate) fn cut_of(slide: IntervalMonthDayNano, size: IntervalMonthDayNano) -> Result<Cut, Refusal> {
    let slide = tumble::width_of(slide)?;
    let IntervalMonthDayNano { months, days, nanoseconds } = size;
    if months != 0 || nanoseconds % 1_000 != 0 {
        return Err(Refusal::WidthNotConstant);
    }
    let size = Micros::from(days).saturating_mul(DAY).saturating_add(nanoseconds / 1_000);
    Ok(Cut::hopping(slide, size)?)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Hop {
    signature: Signature,
}

impl ScalarUDFImpl for Hop {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Interval(_), DataType::Interval(_)] => {
                Ok(schema::timestamp_type())
            }
            _ => plan_err!(
                "hop takes a timestamp in microseconds, the slide and the size as intervals: hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = |value: &ColumnarValue| match value {
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(value)) => *value,
            _ => None,
        };
        let [time, slide, size] = args.args.as_slice() else { return plan_err!("hop takes three arguments") };
        let (Some(slide), Some(size)) = (constant(slide), constant(size)) else {
            return plan_err!("slide and size of a window must be constant intervals");
        };
        let cut = match cut_of(slide, size) {
            Ok(cut) => cut,
            Err(refusal) => return plan_err!("{refusal}"),
        };
        let is_scalar = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(args.number_rows)?;
        let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else {
            return plan_err!("hop takes a timestamp in microseconds");
        };
        let starts: ArrayRef = Arc::new(tumble::starts(times, cut.slide()));
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&starts, 0)?));
        }
        Ok(ColumnarValue::Array(starts))
    }
}
