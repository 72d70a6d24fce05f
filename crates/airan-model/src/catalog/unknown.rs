//! Columns the catalog does not know: they become attributes of their rows, as text.
//!
//! A table's columns are the catalog's alone. Were a stranger's column one of the table, its first type would hold for ever, its
//! name could be one that the table needs, and nothing would bound how many there are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::ConformError;
use crate::schema;

/// Most text that unknown columns of one batch may become, names included: as much as a request may hold.
pub const UNKNOWN_TEXT_MAX: usize = 16 << 20;

/// `attributes` with the values of `unknown` columns, each under the column's name; null values are left out. A row's own
/// attribute of that name is kept, and the column's value is not.
///
/// Of a row's own attributes those are left out for whose names `keeps` is false, and of several of one name all but the first. It
/// compares them with each other: who lets strangers send them bounds how many a row has.
///
/// Without `attributes` the rows have none yet. All arrays are of `rows` rows.
///
/// # Errors
/// If that is more text than [`UNKNOWN_TEXT_MAX`], or `attributes` has another type.
pub fn with_unknown(
    attributes: Option<&ArrayRef>,
    unknown: &[(&str, &ArrayRef)],
    rows: usize,
    mut keeps: impl FnMut(&str) -> bool,
) -> Result<ArrayRef, ConformError> {
    let broken = |error: arrow::error::ArrowError| ConformError::Batch(error.to_string());
    let own = attributes.and_then(|attributes| attributes.as_map_opt());
    let own = own.map(|map| (map, map.keys().as_string::<i32>(), map.values().as_string::<i32>()));
    let options = FormatOptions::default();
    let formatters =
        unknown.iter().map(|(name, column)| Ok((*name, *column, ArrayFormatter::try_new(column, &options)?)));
    let formatters = formatters.collect::<Result<Vec<_>, arrow::error::ArrowError>>().map_err(broken)?;

    let (mut keys, mut values, mut ends) = (StringBuilder::new(), StringBuilder::new(), Vec::with_capacity(rows + 1));
    ends.push(0i32);
    let (mut entries, mut text) = (0usize, 0usize);
    for row in 0..rows {
        let first = own.as_ref().map_or(0..0, |(map, ..)| {
            let range = map.value_offsets();
            if map.is_valid(row) { range[row] as usize..range[row + 1] as usize } else { 0..0 }
        });
        if let Some((_, names, texts)) = &own {
            for at in first.clone() {
                let name = names.value(at);
                if !keeps(name) || (first.start..at).any(|before| names.value(before) == name) {
                    continue;
                }
                keys.append_value(name);
                values.append_option(texts.is_valid(at).then(|| texts.value(at)));
                entries += 1;
            }
        }
        let has =
            |name: &str| own.as_ref().is_some_and(|(_, names, _)| first.clone().any(|at| names.value(at) == name));
        for (name, column, formatter) in &formatters {
            if column.is_null(row) || has(name) {
                continue;
            }
            let value = formatter.value(row).try_to_string().map_err(broken)?;
            text += name.len() + value.len();
            if text > UNKNOWN_TEXT_MAX {
                return Err(ConformError::TooMuchUnknown { column: (*name).to_owned() });
            }
            keys.append_value(name);
            values.append_value(value);
            entries += 1;
        }
        ends.push(entries as i32);
    }
    let DataType::Map(entry, _) = schema::attributes_type() else {
        return Err(ConformError::Batch("attributes are no map".to_owned()));
    };
    let DataType::Struct(fields) = entry.data_type() else {
        return Err(ConformError::Batch("attributes have no entries".to_owned()));
    };
    let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
    let pairs = arrow::array::StructArray::try_new(fields.clone(), columns, None).map_err(broken)?;
    let nulls: NullBuffer = ends.windows(2).map(|row| row[0] < row[1]).collect();
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(MapArray::try_new(entry, ends, pairs, Some(nulls), false).map_err(broken)?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, StructArray};

    use super::*;

    fn shown(attributes: &ArrayRef) -> Vec<Vec<(String, String)>> {
        let map = attributes.as_map();
        let row = |row: usize| {
            let entries = map.value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            (0..entries.len()).map(|at| (keys.value(at).to_owned(), values.value(at).to_owned())).collect()
        };
        (0..map.len()).map(row).collect()
    }

    /// Scenario: numbers, truth values, text, a struct without fields, nulls, and an attribute of the same name.
    /// Guarantees: each value is there as text under its column's name, once; a row's own attribute is kept.
    #[test]
    fn values_are_attributes_as_text() {
        let number: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN)]));
        let truth: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let empty: ArrayRef = Arc::new(StructArray::new_empty_fields(3, None));
        let unknown = [("x", &number), ("date", &truth), ("who", &text), ("none", &empty)];
        let first = with_unknown(None, &unknown[..3], 3, |_| true).unwrap();
        assert_eq!(first.data_type(), &schema::attributes_type());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let wanted = [
            vec![pair("x", "1.5"), pair("date", "true"), pair("who", "a")],
            vec![pair("who", "b")],
            vec![pair("x", "NaN"), pair("date", "false"), pair("who", "c")],
        ];
        assert_eq!(shown(&first), wanted);
        let other: ArrayRef = Arc::new(Int64Array::from(vec![9, 9, 9]));
        let second = with_unknown(Some(&first), &[("x", &other)], 3, |_| true).unwrap();
        assert_eq!(shown(&second)[0], wanted[0]);
        assert_eq!(shown(&second)[1], [pair("who", "b"), pair("x", "9")]);
        assert_eq!(shown(&with_unknown(None, &unknown[3..], 3, |_| true).unwrap())[0], [pair("none", "{}")]);
        let without = with_unknown(Some(&second), &[], 3, |name| name != "who").unwrap();
        assert_eq!(shown(&without), [wanted[0][..2].to_vec(), vec![pair("x", "9")], wanted[2][..2].to_vec()]);
    }

    /// Scenario: one value more than the limit of text.
    /// Guarantees: refused by the column's name, before the text is made.
    #[test]
    fn text_is_bounded() {
        let long: ArrayRef = Arc::new(StringArray::from(vec!["y".repeat(UNKNOWN_TEXT_MAX / 4); 4]));
        let refused = with_unknown(None, &[("long", &long)], 4, |_| true).unwrap_err();
        assert_eq!(refused, ConformError::TooMuchUnknown { column: "long".to_owned() });
        assert!(with_unknown(None, &[("long", &long.slice(0, 3))], 3, |_| true).is_ok());
    }
}
