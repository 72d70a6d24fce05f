//! Why a pipeline is refused: each error names file, line and column.

use std::path::PathBuf;

use airan_model::Place;

use crate::cut::Cut;
use crate::error::did_you_mean;

/// Why pipelines were refused. None of them is used.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A file or folder cannot be read. Put it there, or correct the path.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder of pipelines without any. Correct the path, or leave it out to have the built-in ones.
    #[error("no pipeline in {folder}: a pipeline is a folder with pipeline.yaml and query.sql")]
    NoPipelines {
        /// The folder.
        folder: PathBuf,
    },
    /// A query without SQL.
    #[error("{path} is empty")]
    NoQuery {
        /// The file.
        path: PathBuf,
    },
    /// The file is not YAML, or has keys or values no pipeline has. Correct it there.
    #[error("{place}: {reason}")]
    Yaml {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The pipeline contradicts itself, its query, the catalog or another pipeline. Correct it there.
    #[error("{place}: {problem}")]
    Refused {
        /// Where.
        place: Place,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// What a pipeline may not say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A name of a pipeline or table that cannot be one.
    #[error("`{0}` is no name: write lower-case letters, digits and `_`, beginning with a letter")]
    Name(String),
    /// A table whose name belongs to the view of another.
    #[error("`{0}` ends in `_latest`, as the views of tables do")]
    ViewName(String),
    /// A table whose name belongs to a stream.
    #[error("`{0}` is the table of a stream: name the results something else")]
    StreamName(String),
    /// Two things of one name.
    #[error("{what} `{name}` stands already at {first}")]
    Duplicate {
        /// Pipeline, table, metric or label.
        what: &'static str,
        /// Its name.
        name: String,
        /// Where the first stands.
        first: Place,
    },
    /// A number that must be at least 1.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A text that says nothing.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// A unit that is none of the base units.
    #[error("`{name}` is no base unit{}", did_you_mean(.near))]
    Unit {
        /// As written.
        name: String,
        /// The nearest there is, or the base unit it converts to.
        near: Option<String>,
    },
    /// A metric name Prometheus would not take, or not as meant.
    #[error("metric `{name}` {reason}")]
    Metric {
        /// The metric.
        name: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// A label Prometheus or airan keeps for itself, or that cannot be one.
    #[error("label `{name}` {reason}")]
    Label {
        /// The label.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A counter of windows that overlap.
    #[error(
        "metric `{0}` is a counter, but the windows overlap ({1}): what a row adds would count once for each; make it a gauge, or tumble"
    )]
    CounterOverlaps(String, Cut),
    /// A column that the query does not have.
    #[error("the query has no column `{name}`{}", did_you_mean(.near))]
    NoColumn {
        /// As written.
        name: String,
        /// The nearest there is.
        near: Option<String>,
    },
    /// A column whose type does not fit.
    #[error("column `{name}` is {ty}, {wanted} is needed")]
    ColumnType {
        /// The column.
        name: String,
        /// Its type.
        ty: String,
        /// What is needed.
        wanted: &'static str,
    },
}
