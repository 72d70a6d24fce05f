//! `hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')`: windows of five minutes, one beginning each minute.
//!
//! In a pipeline's GROUP BY it stands for all the windows that hold a row. Evaluated on a row, also in a query over the lake, it
//! gives the start of the last of them, which is the row's pane: that is how rows become state, and the windows come of it when
//! they close (see `cut.rs`).

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::arguments::{Function, micros_of};
use crate::cut::Cut;
use crate::error::Refusal;
use crate::tumble;

/// The name of the function.
pub(crate) const NAME: &str = "hop";

const HOP: Function = Function { name: NAME, example: "hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')" };

/// The function, for a session.
pub(crate) fn udf() -> ScalarUDF {
    ScalarUDF::from(Hop { signature: Signature::any(3, Volatility::Immutable) })
}

/// The cut that two intervals mean.
pub(crate) fn cut_of(slide: IntervalMonthDayNano, size: IntervalMonthDayNano) -> Result<Cut, Refusal> {
    Ok(Cut::hopping(tumble::width_of(slide)?, micros_of(size)?)?)
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
        HOP.return_type::<2>(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [slide, size] = HOP.intervals(&args)?;
        match cut_of(slide, size) {
            Ok(cut) => HOP.starts(&args, cut.slide()),
            Err(refusal) => plan_err!("{refusal}"),
        }
    }
}
