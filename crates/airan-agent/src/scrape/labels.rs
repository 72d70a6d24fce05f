//! What a target's configuration adds to its rows: the node they are about, and labels. What the endpoint says itself wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use airan_decode::DecodedRows;
use airan_model::catalog::{ColumnType, Stream};
use airan_model::schema;
use arrow::array::{
    Array, ArrayRef, AsArray, MapArray, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

/// The entity column that the target's own name fills, so that two model servers on one node stay apart.
const SERVER: &str = "server";

/// The attribute of a `sample` row that names the target.
const TARGET: &str = "target";

/// What a target's configuration adds.
#[derive(Clone, Debug)]
pub(crate) struct Additions {
    pub(crate) target: String,
    /// Replaces the node of all rows.
    pub(crate) node: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Additions {
    /// The rows with what is to be added.
    pub(crate) fn add_to(&self, decoded: DecodedRows) -> Result<DecodedRows, ArrowError> {
        let DecodedRows { stream, rows } = decoded;
        let mut columns = Columns::of(&rows);
        if let Some(node) = &self.node {
            columns.set(schema::NODE, constant(node, rows.num_rows()));
        }
        let mut attributes: Vec<(&str, &str)> = Vec::new();
        for (label, value) in &self.labels {
            if is_text(&stream, label) {
                columns.fill(label, value, rows.num_rows());
            } else {
                attributes.push((label, value));
            }
        }
        if stream.entity_index(SERVER).is_some() {
            columns.fill(SERVER, &self.target, rows.num_rows());
        }
        if &*stream.name == "sample" {
            attributes.push((TARGET, &self.target));
        }
        if !attributes.is_empty() {
            let before = columns.get(schema::ATTRIBUTES).and_then(|column| column.as_map_opt().cloned());
            let after = with_attributes(before.as_ref(), rows.num_rows(), &attributes)?;
            columns.set(schema::ATTRIBUTES, Arc::new(after));
        }
        Ok(DecodedRows { stream, rows: columns.into_rows()? })
    }
}

/// Whether the stream has an entity or text column of that name.
fn is_text(stream: &Stream, name: &str) -> bool {
    stream.entity_index(name).is_some() || stream.column(name).is_some_and(|column| column.ty == ColumnType::Text)
}

fn constant(value: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

/// Columns of a batch that may be replaced.
struct Columns {
    fields: Vec<FieldRef>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn of(rows: &RecordBatch) -> Columns {
        Columns { fields: rows.schema_ref().fields().to_vec(), arrays: rows.columns().to_vec() }
    }

    fn get(&self, name: &str) -> Option<&ArrayRef> {
        self.fields.iter().position(|field| field.name() == name).map(|at| &self.arrays[at])
    }

    fn set(&mut self, name: &str, array: ArrayRef) {
        let field = Arc::new(Field::new(name, array.data_type().clone(), true));
        match self.fields.iter().position(|field| field.name() == name) {
            Some(at) => (self.fields[at], self.arrays[at]) = (field, array),
            None => {
                self.fields.push(field);
                self.arrays.push(array);
            }
        }
    }

    /// Gives a text column this value where it has none.
    fn fill(&mut self, name: &str, value: &str, rows: usize) {
        let filled: ArrayRef = match self.get(name) {
            None => constant(value, rows),
            Some(column) if column.null_count() == 0 || column.data_type() != &DataType::Utf8 => return,
            Some(column) => {
                let texts = column.as_string::<i32>().iter().map(|text| Some(text.unwrap_or(value)));
                Arc::new(texts.collect::<StringArray>())
            }
        };
        self.set(name, filled);
    }

    fn into_rows(self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)
    }
}

/// The same attributes, each row with the added ones it did not have.
fn with_attributes(before: Option<&MapArray>, rows: usize, added: &[(&str, &str)]) -> Result<MapArray, ArrowError> {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in 0..rows {
        let own = before.filter(|map| map.is_valid(row)).map(|map| map.value(row));
        let own: Vec<(&str, Option<&str>)> = match &own {
            Some(pairs) => {
                let (keys, values) = (pairs.column(0).as_string::<i32>(), pairs.column(1).as_string::<i32>());
                keys.iter().flatten().zip(values.iter()).collect()
            }
            None => Vec::new(),
        };
        for (key, value) in &own {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        for (key, value) in added.iter().filter(|(key, _)| own.iter().all(|(own, _)| own != key)) {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true)?;
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Reading, to_rows};
    use airan_model::catalog::Catalog;

    fn additions(labels: &[(&str, &str)], node: Option<&str>) -> Additions {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Additions { target: "vllm-a".into(), node: node.map(str::to_owned), labels }
    }

    /// Scenario: a label that is an entity column, filled in one row and not in the other; one that is no column; a node.
    #[test]
    fn labels_fill_columns_that_are_null_and_else_become_attributes() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("inference").unwrap();
        let named = Reading { entity: vec![("model", "own".into())], ..Reading::default() };
        let rows = to_rows(stream, "sender", 0, None, &[named, Reading::default()]).unwrap();
        let rows = additions(&[("model", "given"), ("rack", "r1")], Some("edge-9")).add_to(rows).unwrap();
        let text =
            |name: &str, row: usize| rows.rows.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
        assert_eq!((text("model", 0), text("model", 1)), ("own".into(), "given".into()));
        assert_eq!((text("node", 0), text("server", 1)), ("edge-9".into(), "vllm-a".into()));
        let attributes = rows.rows.column_by_name("attributes").unwrap().as_map().value(0);
        assert_eq!(
            (attributes.column(0).as_string::<i32>().value(0), attributes.column(1).as_string::<i32>().value(0)),
            ("rack", "r1")
        );
        stream.conform(&rows.rows).unwrap();
    }

    #[test]
    fn what_the_endpoint_says_itself_wins_and_samples_name_their_target() {
        let catalog = Catalog::builtin().unwrap();
        let rows = to_rows(catalog.stream("sample").unwrap(), "n", 0, None, &[Reading::default()]).unwrap();
        let once = additions(&[("rack", "r1")], None).add_to(rows).unwrap();
        let twice = additions(&[("rack", "r2"), ("row", "7")], None).add_to(once).unwrap();
        let attributes = twice.rows.column_by_name("attributes").unwrap().as_map().value(0);
        let pairs: Vec<_> = attributes
            .column(0)
            .as_string::<i32>()
            .iter()
            .flatten()
            .zip(attributes.column(1).as_string::<i32>().iter().flatten())
            .collect();
        assert_eq!(pairs, [("rack", "r1"), ("target", "vllm-a"), ("row", "7")]);
        assert_eq!(twice.rows.column_by_name("attributes").unwrap().data_type(), &schema::attributes_type());
    }
}
