//! What tests of accelerators share: samples, and what holds of every reading.

use std::path::{Path, PathBuf};

use airan_decode::accelerators::{Entry, Reading};
use airan_model::catalog::{Catalog, ColumnType};

use super::{STREAM, to_rows};

/// A file of the samples, read in place; None, with a loud line, where they are not at hand.
pub(super) fn sample(name: &str) -> Option<String> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples");
    let folder = PathBuf::from(std::env::var("AIRAN_SAMPLES").unwrap_or_else(|_| default.to_owned()));
    if folder.is_dir() {
        return Some(std::fs::read_to_string(folder.join(name)).unwrap());
    }
    assert!(std::env::var_os("AIRAN_REQUIRE_SAMPLES").is_none(), "no samples at {}", folder.display());
    eprintln!("NOT TESTED: no samples at {}; set AIRAN_SAMPLES to their folder", folder.display());
    None
}

/// The text in a column.
pub(super) fn text<'a>(entry: &'a Entry, column: &str) -> Option<&'a str> {
    entry.texts.iter().find(|(name, _)| *name == column).map(|(_, text)| text.as_str())
}

/// Guarantees: these numbers.
pub(super) fn assert_numbers(entry: &Entry, expected: &[(&str, f64)]) {
    for (column, value) in expected {
        let read = entry.get(column).unwrap_or(f64::NAN);
        assert!((read - value).abs() <= value.abs() * 1e-12, "{column}: {read}, and not {value}");
    }
}

/// Guarantees: nothing in these columns.
pub(super) fn assert_none(entry: &Entry, columns: &[&str]) {
    for column in columns {
        assert_eq!(entry.get(column), None, "{column}");
        assert_eq!(text(entry, column), None, "{column}");
    }
}

/// Guarantees: every column that is filled is one of the stream, of its type, and once in its row; the rows conform.
pub(super) fn assert_conform(reading: &Reading) {
    let catalog = Catalog::builtin().unwrap();
    let stream = catalog.stream(STREAM).unwrap();
    let ty = |name: &str| stream.columns.iter().find(|column| &*column.name == name).map(|column| column.ty);
    for entry in &reading.entries {
        let mut names = std::collections::HashSet::new();
        for (name, _) in &entry.numbers {
            assert!(matches!(ty(name), Some(ColumnType::Float | ColumnType::Int)) && names.insert(*name), "{name}");
        }
        for (name, _) in &entry.texts {
            assert!(matches!(ty(name), Some(ColumnType::Text)) && names.insert(*name), "{name}");
        }
    }
    let rows = super::rows::accelerators(reading.entries.clone(), Path::new("/nowhere"));
    let batch = to_rows(stream, "edge-1", 0, None, &rows).unwrap();
    stream.conform(&batch.rows).unwrap();
    assert_eq!(batch.rows.num_rows(), reading.entries.len());
    assert_eq!(reading.unread, Vec::<String>::new());
}
