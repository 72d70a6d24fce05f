//! The first and the last row of a sorted file, by the columns it is sorted by: what it holds in their order, and nothing
//! outside. Known of files that a rewriting made, and kept beside them in the Delta log.

use airan_model::time::Micros;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The columns, without that of the time, which is the last.
    pub(crate) by: Vec<String>,
    pub(crate) first: Edge,
    pub(crate) last: Edge,
}

/// Where one row stands in the order: nulls first, text by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) keys: Vec<Option<String>>,
    pub(crate) at: Micros,
}

impl Span {
    /// Whether rows of both may lie between each other. Where one ends as the other begins, none does.
    pub(crate) fn meets(&self, other: &Span) -> bool {
        self.by != other.by || (self.first < other.last && other.first < self.last)
    }
}

impl Edge {
    /// Of row `row`; `None` where a column of `by` is not text, or `time` no time. A column that is not there is null.
    pub(crate) fn of(batch: &RecordBatch, by: &[String], time: &str, row: usize) -> Option<Edge> {
        let key = |name: &String| match batch.column_by_name(name) {
            None => Some(None),
            Some(column) => {
                let texts = column.as_string_opt::<i32>()?;
                Some(texts.is_valid(row).then(|| texts.value(row).to_owned()))
            }
        };
        let keys = by.iter().map(key).collect::<Option<Vec<_>>>()?;
        let times = batch.column_by_name(time)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(Edge { keys, at: times.value(row) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: spans apart, one after the other, within each other, of the same single row, and by other columns.
    /// Guarantees: only those that leave no room for each other's rows are apart.
    #[test]
    fn spans_meet_where_rows_may_lie_between_each_other() {
        let edge = |site: &str, at| Edge { keys: vec![(!site.is_empty()).then(|| site.to_owned())], at };
        let span = |first: (&str, i64), last: (&str, i64)| Span {
            by: vec!["site".to_owned()],
            first: edge(first.0, first.1),
            last: edge(last.0, last.1),
        };
        let one = span(("a", 5), ("c", 5));
        for (other, meets) in [
            (span(("c", 6), ("d", 0)), false),
            (span(("c", 5), ("d", 0)), false),
            (span(("c", 4), ("d", 0)), true),
            (span(("b", 0), ("b", 9)), true),
            (span(("", 0), ("a", 4)), false),
            (span(("", 9), ("a", 6)), true),
            (one.clone(), true),
            (Span { by: vec!["node".to_owned()], ..span(("x", 0), ("y", 0)) }, true),
        ] {
            assert_eq!((one.meets(&other), other.meets(&one)), (meets, meets), "{other:?}");
        }
        let point = span(("a", 1), ("a", 1));
        assert!(!point.meets(&point), "where all rows are alike any order is theirs");
        assert_eq!(
            serde_json::to_string(&span(("", 1), ("b", 2))).unwrap(),
            r#"{"by":["site"],"first":{"keys":[null],"at":1},"last":{"keys":["b"],"at":2}}"#
        );
    }
}
