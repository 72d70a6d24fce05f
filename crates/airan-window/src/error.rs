//! Why a query cannot be a pipeline, and why rows cannot go into its windows.

use std::fmt;

use airan_model::time::Micros;
use datafusion::error::DataFusionError;

use crate::cut::Cut;
use crate::width::WidthError;

/// A place in the text of a query; line and column count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SqlPlace {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for SqlPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a query is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Change the query at that place.
    #[error("{place}: {refusal}")]
    Refused {
        /// Where.
        place: SqlPlace,
        /// Why.
        refusal: Refusal,
    },
    /// Change the query; the place is not known.
    #[error("{0}")]
    Query(Refusal),
    /// The engine cannot plan what the query asks for.
    #[error("cannot be planned")]
    Engine(#[from] DataFusionError),
}

impl PlanError {
    /// `refusal` at `place`, where it is known.
    pub(crate) fn at(place: Option<SqlPlace>, refusal: Refusal) -> PlanError {
        match place {
            Some(place) => PlanError::Refused { place, refusal },
            None => PlanError::Query(refusal),
        }
    }

    /// What is refused, if it is the query's fault.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            PlanError::Refused { refusal, .. } | PlanError::Query(refusal) => Some(refusal),
            PlanError::Engine(_) => None,
        }
    }

    /// Where, if it is known.
    pub fn place(&self) -> Option<SqlPlace> {
        match self {
            PlanError::Refused { place, .. } => Some(*place),
            PlanError::Query(_) | PlanError::Engine(_) => None,
        }
    }
}

/// What a pipeline's query may not do, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not SQL, or means nothing.
    #[error("{0}")]
    Syntax(String),
    /// Something other than one SELECT.
    #[error("a pipeline is one SELECT")]
    NotOneSelect,
    /// No such stream.
    #[error("the catalog has no stream `{0}`")]
    UnknownStream(String),
    /// No such column.
    #[error("no column `{name}`{}", did_you_mean(.nearest))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// A column with a name like it.
        nearest: Option<String>,
    },
    /// No such function.
    #[error("no function `{name}`{}", did_you_mean(.nearest))]
    UnknownFunction {
        /// As it was written.
        name: String,
        /// A function with a name like it.
        nearest: Option<String>,
    },
    /// Rows of a stream without a window would be kept for ever.
    #[error(
        "rows of `{0}` have no window: put tumble(ts, INTERVAL '…') or hop(ts, INTERVAL '…', INTERVAL '…') into the GROUP BY of the SELECT that reads it, or its state would grow for ever"
    )]
    NoWindow(String),
    /// A group over sites is split over partitions, none of which has all of it.
    #[error(
        "rows of `{0}` are not grouped by `site`: a partition holds some sites only; roll up over sites in the lake"
    )]
    NoSite(String),
    /// Raw rows cannot be kept until their partners come.
    #[error(
        "rows of `{0}` are joined before they are aggregated: aggregate each stream by window and site, then join the results"
    )]
    JoinOfStreams(String),
    /// Some other step between a stream and its first aggregate.
    #[error("{step} over rows of `{stream}`: only WHERE and expressions may stand between a stream and its window")]
    BeforeWindow {
        /// What stands there.
        step: &'static str,
        /// Over which stream.
        stream: String,
    },
    /// A closed window is a set of rows; an order over all windows never ends.
    #[error(
        "{0} in a pipeline: windows close one by one, so there is no whole to put in order; do it where the lake is queried"
    )]
    Ordered(&'static str),
    /// Subqueries in expressions.
    #[error("a subquery in an expression: write it as a WITH over windows and join it")]
    Subquery,
    /// The same rows must always give the same windows.
    #[error("{0}() depends on when it runs, but a window built again must be the same")]
    Volatile(String),
    /// Its state cannot be merged, or grows with the rows.
    #[error(
        "{0} has no state of bounded size that can be merged: use avg, sum, min, max, count, count(DISTINCT), approx_distinct, stddev, first_value, last_value, approx_percentile_cont or histogram_merge"
    )]
    NotMergeable(String),
    /// GROUPING SETS, CUBE, ROLLUP.
    #[error("grouping sets: write one pipeline for each grouping")]
    GroupingSets,
    /// Two windows of one stream in one GROUP BY.
    #[error("two windows in one GROUP BY")]
    TwoWindows,
    /// Windows of several widths in one query.
    #[error("windows of {first} and of {second} in one query: they do not close together")]
    DifferentWidths {
        /// The first width.
        first: Cut,
        /// Another one.
        second: Cut,
    },
    /// Not a width of windows.
    #[error("{0}")]
    Width(#[from] WidthError),
    /// `tumble` needs a constant.
    #[error("the width of a window must be a constant like INTERVAL '10 seconds', without months")]
    WidthNotConstant,
    /// `tumble` must cut event time.
    #[error("windows are cut by event time: the first argument of tumble must be the column `ts` of the stream")]
    NotEventTime,
    /// A join over window edges.
    #[error(
        "a join must compare both the windows and the sites of its two sides with `=`: each window is joined when it closes"
    )]
    JoinOverWindows,
    /// A second aggregation over window edges.
    #[error("{0} over closed windows must keep the window and the site: each window is finished on its own")]
    OverWindows(&'static str),
    /// Rows without a site could not be restated.
    #[error("the result has no column `site`")]
    NoSiteInResult,
    /// Two columns with one name.
    #[error("two columns of the result are named `{0}`")]
    TwiceNamed(String),
    /// Columns are names of Parquet columns and labels.
    #[error("a column of the result is named `{0}`: give it a name of lower-case letters, digits and `_` with AS")]
    Unnamed(String),
    /// Columns that every window table has.
    #[error("the result may not have a column `{0}`: every window table has one of that meaning")]
    Reserved(&'static str),
    /// `window_start` is something else.
    #[error("the column `window_start` of the result must be the window, as tumble() gives it")]
    NotTheWindow,
    /// Anything else the windows cannot do.
    #[error("{0} cannot be part of a pipeline")]
    Unsupported(String),
}

pub(crate) fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The known name nearest to a wrong one, if it is near.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    use strsim::damerau_levenshtein;
    known
        .into_iter()
        .map(|name| (damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Why windows do not go on. After any of these, drop them: they may lack rows.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// A fault of the caller: the plan reads no such stream.
    #[error("the pipeline reads no stream `{0}`")]
    NoSuchStream(String),
    /// A fault of the caller: rows must be in the columns of their stream.
    #[error("rows of `{stream}` have no column `{column}` of the type the plan was made for")]
    WrongColumn {
        /// The stream.
        stream: String,
        /// The column.
        column: String,
    },
    /// A fault of the caller: a row without event time has no window.
    #[error("rows of `{0}` without event time")]
    NoEventTime(String),
    /// A fault of the caller: late rows must be kept apart.
    #[error("a row at {at} us comes after its window closed at {closed_through} us")]
    Closed {
        /// Its event time.
        at: Micros,
        /// Windows that end by then are closed.
        closed_through: Micros,
    },
    /// Stop the pipeline. Fewer groups, shorter windows or a higher limit would let it run.
    #[error("open windows hold {held} bytes; the limit is {limit} (windows.state_bytes)")]
    StateLimit {
        /// Bytes of open windows, folded as far as they go.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// Stop the pipeline: its query failed on these rows.
    #[error("the query failed")]
    Engine(#[from] DataFusionError),
    /// Stop the pipeline: its state could not be arranged.
    #[error("window state could not be arranged")]
    Arrow(#[from] arrow::error::ArrowError),
}
