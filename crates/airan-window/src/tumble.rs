//! `tumble(ts, INTERVAL '10 seconds')`: the start of the window that holds an event time.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::arguments::{Function, micros_of};
use crate::error::Refusal;
use crate::width::WindowWidth;

/// The name of the function.
pub(crate) const NAME: &str = "tumble";

const TUMBLE: Function = Function { name: NAME, example: "tumble(ts, INTERVAL '10 seconds')" };

/// The function, for a session.
pub(crate) fn udf() -> ScalarUDF {
    ScalarUDF::from(Tumble { signature: Signature::any(2, Volatility::Immutable) })
}

/// The width an interval means.
pub(crate) fn width_of(interval: IntervalMonthDayNano) -> Result<WindowWidth, Refusal> {
    Ok(WindowWidth::from_micros(micros_of(interval)?)?)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Tumble {
    signature: Signature,
}

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        TUMBLE.return_type::<1>(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [width] = TUMBLE.intervals(&args)?;
        match width_of(width) {
            Ok(width) => TUMBLE.starts(&args, width),
            Err(refusal) => plan_err!("{refusal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::{DAY, SECOND};

    use super::*;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano { months, days, nanoseconds }
    }

    #[test]
    fn an_interval_is_a_width_if_it_always_means_the_same_and_cuts_a_day() {
        assert_eq!(width_of(interval(0, 0, 10_000_000_000)).map(WindowWidth::micros), Ok(10 * SECOND));
        assert_eq!(width_of(interval(0, 1, 0)).map(WindowWidth::micros), Ok(DAY));
        assert_eq!(width_of(interval(1, 0, 0)), Err(Refusal::WidthNotConstant));
        assert_eq!(width_of(interval(0, 0, 500)), Err(Refusal::WidthNotConstant));
        assert!(matches!(width_of(interval(0, 0, 0)), Err(Refusal::Width(_))));
        assert!(matches!(width_of(interval(0, 0, 7_000_000_000)), Err(Refusal::Width(_))));
    }
}
