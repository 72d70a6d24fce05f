//! Tables on stdout: for people, as JSON, as CSV.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How a tool prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// One JSON array of objects; nulls are written
    Json,
    /// Comma-separated values with a header; maps and histograms as text
    Csv,
}

/// Times as RFC 3339, nulls empty.
const TEXT: FormatOptions<'static> =
    FormatOptions::new().with_null("").with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));

/// Prints rows.
///
/// # Errors
/// If stdout is closed, or a value has no such form.
pub fn print(out: &mut dyn Write, format: Format, schema: &SchemaRef, rows: &[RecordBatch]) -> Result<()> {
    match format {
        Format::Table => {
            let table = arrow::util::pretty::pretty_format_batches_with_options(&with_schema(schema, rows), &TEXT)?;
            writeln!(out, "{table}")?;
        }
        Format::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(&mut *out);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            drop(writer);
            writeln!(out)?;
        }
        Format::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *out);
            writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
            rows.iter().try_for_each(|batch| Ok::<_, anyhow::Error>(writer.write(&flat(batch)?)?))?;
        }
    }
    Ok(out.flush()?)
}

/// At least one batch, so that an empty result has its header.
fn with_schema(schema: &SchemaRef, rows: &[RecordBatch]) -> Vec<RecordBatch> {
    match rows.is_empty() {
        true => vec![RecordBatch::new_empty(Arc::clone(schema))],
        false => rows.to_vec(),
    }
}

/// The batch with each nested column, which CSV cannot hold, as text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.data_type() {
        nested if nested.is_nested() => {
            let formatter = ArrayFormatter::try_new(column, &TEXT)?;
            let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
            let text: ArrayRef = Arc::new(texts.collect::<StringArray>());
            Ok((Field::new(field.name(), DataType::Utf8, true), text))
        }
        _ => Ok((field.as_ref().clone(), Arc::clone(column))),
    });
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        columns.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Rows of text, for lists that are no query's result.
pub struct Listing {
    names: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Listing {
    /// An empty list with these columns.
    pub fn new(names: &'static [&'static str]) -> Listing {
        Listing { names, rows: Vec::new() }
    }

    /// Adds a row, a text for each column.
    pub fn add<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.into());
    }

    /// Whether there are rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints it. As a table without lines between columns, for `grep` and `awk`.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn print(&self, out: &mut dyn Write, format: Format) -> Result<()> {
        match format {
            Format::Table => self.print_columns(out),
            Format::Json | Format::Csv => {
                let fields: Vec<Field> =
                    self.names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect();
                let schema = Arc::new(Schema::new(fields));
                let column = |index: usize| -> ArrayRef {
                    let texts = self.rows.iter().map(|row| row.get(index).map_or("", String::as_str));
                    Arc::new(StringArray::from_iter_values(texts))
                };
                let columns = (0..self.names.len()).map(column).collect();
                let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
                print(out, format, &schema, &[batch])
            }
        }
    }

    fn print_columns(&self, out: &mut dyn Write) -> Result<()> {
        let header: Vec<String> = self.names.iter().map(|name| name.to_uppercase()).collect();
        let width = |index: usize| {
            let lengths = self.rows.iter().chain([&header]).map(|row| row[index].chars().count());
            lengths.max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        for row in [&header].into_iter().chain(&self.rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn printed(format: Format, schema: &SchemaRef, rows: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        print(&mut out, format, schema, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rows() -> RecordBatch {
        let ts = TimestampMicrosecondArray::from(vec![1_767_225_600_500_000]).with_timezone("UTC");
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
        RecordBatch::try_from_iter_with_nullable([
            ("ts", Arc::new(ts) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from(vec![None::<i64>])) as ArrayRef, true),
            ("list", Arc::new(list) as ArrayRef, true),
        ])
        .unwrap()
    }

    /// Scenario: a time, a null and a nested value in each format; then no rows at all.
    #[test]
    fn rows_are_printed_in_each_format() {
        let batch = rows();
        let (schema, rows) = (batch.schema(), [batch]);
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, &schema, &rows)).unwrap();
        assert_eq!(json, serde_json::json!([{"ts": "2026-01-01T00:00:00.500Z", "n": null, "list": [1, null]}]));
        let csv = printed(Format::Csv, &schema, &rows);
        assert!(csv.starts_with("ts,n,list\n2026-01-01T00:00:00.5"), "{csv}");
        let table = printed(Format::Table, &schema, &rows);
        assert!(table.contains("2026-01-01T00:00:00.500") && table.contains("[1, ]"), "{table}");

        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&printed(Format::Json, &schema, &[])).unwrap(),
            serde_json::json!([])
        );
        assert_eq!(printed(Format::Csv, &schema, &[]), "ts,n,list\n");
        assert!(printed(Format::Table, &schema, &[]).contains("list"));
    }

    #[test]
    fn listings_line_up() {
        let mut listing = Listing::new(&["table", "rows"]);
        assert!(listing.is_empty());
        listing.add(["host".to_owned(), "1".to_owned()]);
        listing.add(["accelerator".to_owned(), "20".to_owned()]);
        let mut out = Vec::new();
        listing.print(&mut out, Format::Table).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "TABLE        ROWS\nhost         1\naccelerator  20\n");
    }
}
