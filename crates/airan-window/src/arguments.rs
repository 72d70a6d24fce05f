//! What `tumble` and `hop` take and give alike: an event time and constant intervals, and for each time the start of its window.

use std::sync::Arc;

use airan_model::schema;
use airan_model::time::{DAY, Micros};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::error::Refusal;
use crate::width::{Window, WindowWidth};

/// One of the functions, for its errors.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// A call as it is to be written.
    pub(crate) example: &'static str,
}

impl Function {
    /// The type of the starts, for a time and `N` intervals.
    ///
    /// # Errors
    /// For arguments of other types or number: what there is, and how a call is written.
    pub(crate) fn return_type<const N: usize>(&self, types: &[DataType]) -> Result<DataType> {
        if let [DataType::Timestamp(TimeUnit::Microsecond, _), intervals @ ..] = types
            && intervals.len() == N
            && intervals.iter().all(|ty| matches!(ty, DataType::Interval(_)))
        {
            return Ok(schema::timestamp_type());
        }
        let found: Vec<String> = types.iter().map(DataType::to_string).collect();
        let (name, example) = (self.name, self.example);
        plan_err!(
            "{name} takes a timestamp in microseconds and intervals, as in {example}, and not ({})",
            found.join(", ")
        )
    }

    /// The intervals after the time.
    ///
    /// # Errors
    /// If one is not a constant, or there are not `N`.
    pub(crate) fn intervals<const N: usize>(&self, args: &ScalarFunctionArgs) -> Result<[IntervalMonthDayNano; N]> {
        let constant = |value: &ColumnarValue| match value {
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(value)) => *value,
            _ => None,
        };
        let intervals: Option<Vec<IntervalMonthDayNano>> = args.args.iter().skip(1).map(constant).collect();
        match intervals.and_then(|intervals| <[IntervalMonthDayNano; N]>::try_from(intervals).ok()) {
            Some(intervals) => Ok(intervals),
            None => plan_err!("the intervals of {} must be constant, as in {}", self.name, self.example),
        }
    }

    /// For the time of each row the start of its window.
    pub(crate) fn starts(&self, args: &ScalarFunctionArgs, width: WindowWidth) -> Result<ColumnarValue> {
        let Some(time) = args.args.first() else { return plan_err!("{} takes a time", self.name) };
        let times = time.to_array(args.number_rows)?;
        let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else {
            return plan_err!("{} takes a timestamp in microseconds and not {}", self.name, times.data_type());
        };
        let starts: ArrayRef = Arc::new(starts(times, width));
        match time {
            ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&starts, 0)?)),
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(starts)),
        }
    }
}

/// The span an interval always means; months do not, and time is in microseconds.
pub(crate) fn micros_of(interval: IntervalMonthDayNano) -> Result<Micros, Refusal> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    if months != 0 || nanoseconds % 1_000 != 0 {
        return Err(Refusal::WidthNotConstant);
    }
    Ok(Micros::from(days).saturating_mul(DAY).saturating_add(nanoseconds / 1_000))
}

/// Starts of the windows that hold `times`. Neighbours mostly share a window, so the division is rarely done.
fn starts(
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

#[cfg(test)]
mod tests {
    use airan_model::time::SECOND;

    use super::*;

    const FUNCTION: Function = Function { name: "cut", example: "cut(ts, INTERVAL '1 minute')" };

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

    /// Scenario: a time and an interval; one too few, one too many, a time in another unit, a number for the interval.
    /// Guarantees: what is wrong is refused, with what there is and how to write it.
    #[test]
    fn arguments_of_other_types_are_told() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        assert_eq!(FUNCTION.return_type::<1>(&[micros.clone(), interval.clone()]).unwrap(), schema::timestamp_type());
        let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
        for wrong in [
            vec![],
            vec![micros.clone()],
            vec![micros.clone(), interval.clone(), interval.clone()],
            vec![millis, interval],
            vec![micros, DataType::Int64],
        ] {
            let error = FUNCTION.return_type::<1>(&wrong).unwrap_err().to_string();
            assert!(error.contains("cut(ts, INTERVAL '1 minute'), and not ("), "{error}");
        }
    }
}
