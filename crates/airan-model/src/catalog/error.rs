//! Why a catalog is refused: each error names file, line and column.

use std::path::PathBuf;

use crate::unit::Unit;
use crate::yaml::Place;

/// Why a catalog was refused. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file or folder cannot be read.
    #[error("cannot read catalog {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not YAML, or has keys or values no catalog has.
    #[error("{place}: {reason}")]
    Yaml {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The catalog contradicts itself.
    #[error("{place}: {problem}")]
    Refused {
        /// Where.
        place: Place,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// What a catalog may not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A name that cannot be one: of a stream, column or entity column.
    #[error("`{0}` is no name: write lower-case letters, digits and `_`, beginning with a letter")]
    Name(String),
    /// Two things of one name.
    #[error("{what} `{name}` stands already at {first}")]
    Duplicate {
        /// Stream, column, source, field or metric.
        what: &'static str,
        /// Its name.
        name: String,
        /// Where the first stands.
        first: Place,
    },
    /// A column whose name every stream has, or that another column adds.
    #[error("`{0}` is the name of a column that every stream has or that another column adds")]
    Reserved(String),
    /// A column given again with another type, kind or unit.
    #[error("column `{name}` is {before} at {first} and {now} here: a column's type never changes, add a new one")]
    ChangedType {
        /// `stream.column`
        name: String,
        /// What it was.
        before: String,
        /// Where it was that.
        first: Place,
        /// What it is here.
        now: String,
    },
    /// A stream without `meaning` and `period`, or that gets entity columns in a second file.
    #[error("stream `{name}` {reason}")]
    Incomplete {
        /// The stream.
        name: String,
        /// What is missing or too much.
        reason: &'static str,
    },
    /// A type that does not go with a kind.
    #[error("a {kind} cannot be of type {ty}")]
    KindAndType {
        /// The kind.
        kind: &'static str,
        /// The type.
        ty: &'static str,
    },
    /// A target that is not `stream.column`.
    #[error("`{0}` is no target: write `stream.column`")]
    Target(String),
    /// No stream of that name.
    #[error("no stream `{name}`{}", did_you_mean(.near))]
    UnknownStream {
        /// The name.
        name: String,
        /// The nearest there is.
        near: Option<String>,
    },
    /// The stream has no column of that name.
    #[error("no column `{name}` in {stream}{}", did_you_mean(.near))]
    UnknownColumn {
        /// The stream, or the streams a source fills.
        stream: String,
        /// The name.
        name: String,
        /// The nearest there is.
        near: Option<String>,
    },
    /// No unit of that name.
    #[error("no conversion for unit `{name}`{}", did_you_mean(.near))]
    UnknownUnit {
        /// The name.
        name: String,
        /// The nearest there is.
        near: Option<String>,
    },
    /// A unit that measures something else than the column.
    #[error("no conversion from {from} to the column's {to}")]
    NoConversion {
        /// The foreign unit.
        from: String,
        /// The column's unit.
        to: Unit,
    },
    /// A column's own unit must be a base unit.
    #[error("columns are kept in base units: write `{base}` instead of `{name}`")]
    NotBaseUnit {
        /// The unit.
        name: String,
        /// Its base unit.
        base: Unit,
    },
    /// A measured column needs the unit of what is mapped to it.
    #[error("the unit of `{metric}` is missing: its column is in {unit}")]
    NoUnit {
        /// The foreign name.
        metric: String,
        /// The column's unit.
        unit: Unit,
    },
    /// Two metrics that would fill one column at the same time.
    #[error("`{metric}` fills the column that `{other}` at {first} fills already: give `when` or `combine`")]
    TwoMetrics {
        /// The foreign name.
        metric: String,
        /// The other foreign name.
        other: String,
        /// Where the other stands.
        first: Place,
    },
    /// A target after one that takes everything.
    #[error("`{metric}` never comes here: its target at {first} has no `when`")]
    Unreachable {
        /// The foreign name.
        metric: String,
        /// The target that takes everything.
        first: Place,
    },
    /// Text needs names for numbers; int may have other numbers for them, without a unit that converts.
    #[error("a text column needs `values`; an int column may have whole numbers as `values`, others none")]
    Values,
    /// Bounds no number is between, or bounds of a histogram.
    #[error("no value lands here: `at_least` must be below `below`, and neither goes with a histogram")]
    Bounds,
    /// A field class that holds no word.
    #[error("`{0}` names no field")]
    NoField(String),
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}
