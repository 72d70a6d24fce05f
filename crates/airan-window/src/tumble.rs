//! `tumble(ts, INTERVAL '10 seconds')`: the start of the window that holds an event time.

use std::sync::Arc;

use airan_model::schema;
use airan_model::time::{DAY, Micros};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Refusal;
use crate::width::{Window, WindowWidth};

/// The name of the function.
pub(crate) const NAME: &str = "tumble";

/// The function, for a session.
pub(crate) fn udf() -> ScalarUDF {
    ScalarUDF::from(Tumble { signature: Signature::any(2, Volatility::Immutable) })
}

/// The width an interval means.
pub(crate) fn width_of(interval: IntervalMonthDayNano) -> Result<WindowWidth, Refusal> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    if months != 0 || nanoseconds % 1_000 != 0 {
        return Err(Refusal::WidthNotConstant);
    }
    let micros = Micros::from(days).saturating_mul(DAY).saturating_add(nanoseconds / 1_000);
    Ok(WindowWidth::from_micros(micros)?)
}

/// Starts of the windows that hold `times`. Neighbours mostly share a window, so the division is rarely done.
pub(crate) fn starts(
    times: &PrimitiveArray<TimestampMicrosecondType>,
    width: WindowWidth,
) -> PrimitiveArray<TimestampMicrosecondType> {
    let mut window = Window { start: 0, end: 0 };
    let starts = times.values().iter().map(|at| {
        if !window.contains(*at) {
            window = width.window_of(*at);
        }
        window.start
    });
    PrimitiveArray::new(starts.collect(), times.nulls().cloned()).with_timezone("UTC")
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
        match types {
            [DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Interval(_)] => Ok(schema::timestamp_type()),
            [time, width] => {
                plan_err!("tumble takes a timestamp in microseconds and an interval, not {time} and {width}")
            }
            _ => plan_err!("tumble takes a timestamp and an interval"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(width)))] = args.args.as_slice() else {
            return plan_err!("the width of a window must be a constant interval");
        };
        let width = match width_of(*width) {
            Ok(width) => width,
            Err(refusal) => return plan_err!("{refusal}"),
        };
        let is_scalar = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(args.number_rows)?;
        let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else {
            return plan_err!("tumble takes a timestamp in microseconds");
        };
        let starts: ArrayRef = Arc::new(starts(times, width));
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&starts, 0)?));
        }
        Ok(ColumnarValue::Array(starts))
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::SECOND;

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

    /// Scenario: times around edges, before 1970, out of order, and one that is missing.
    /// Guarantees: W1, each gets the start of its own window.
    #[test]
    fn times_get_the_start_of_their_window() {
        let width = WindowWidth::from_micros(10 * SECOND).unwrap();
        let times = PrimitiveArray::<TimestampMicrosecondType>::from(vec![
            Some(0),
            Some(-1),
            None,
            Some(10 * SECOND),
            Some(9_999_999),
        ]);
        let found: Vec<Option<i64>> = starts(&times, width).iter().collect();
        assert_eq!(found, [Some(0), Some(-10 * SECOND), None, Some(10 * SECOND), Some(0)]);
    }
}
