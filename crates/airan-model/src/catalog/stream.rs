//! Streams and their columns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::schema;
use crate::unit::Unit;

use super::conform::Nulls;

/// What a column's values do over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A reading.
    Gauge,
    /// A sum that only grows, until its source restarts.
    Counter,
    /// A distribution whose counts only grow, until its source restarts.
    Histogram,
    /// One of a few codes or names.
    State,
}

impl Kind {
    /// The name in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::State => "state",
        }
    }
}

/// The Arrow type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Float64
    Float,
    /// Int64
    Int,
    /// Utf8
    Text,
    /// [`schema::histogram_type`]
    Histogram,
}

impl ColumnType {
    /// As Arrow's type.
    pub fn data_type(self) -> DataType {
        match self {
            ColumnType::Float => DataType::Float64,
            ColumnType::Int => DataType::Int64,
            ColumnType::Text => DataType::Utf8,
            ColumnType::Histogram => schema::histogram_type(),
        }
    }

    /// The name in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            ColumnType::Float => "float",
            ColumnType::Int => "int",
            ColumnType::Text => "text",
            ColumnType::Histogram => "histogram",
        }
    }
}

/// A value column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name, also in SQL and in the lake.
    pub name: String,
    /// What its values do over time.
    pub kind: Kind,
    /// Its Arrow type.
    pub ty: ColumnType,
    /// What its numbers are counted in.
    pub unit: Unit,
    /// What it means, in a sentence.
    pub meaning: String,
}

impl Column {
    /// Whether a label can fill it: text, or a number that has no unit and is no sum.
    pub fn takes_label(&self) -> bool {
        let is_plain = matches!(self.kind, Kind::Gauge | Kind::State) && matches!(self.unit, Unit::None | Unit::Count);
        match self.ty {
            ColumnType::Text => true,
            ColumnType::Int | ColumnType::Float => is_plain,
            ColumnType::Histogram => false,
        }
    }
}

/// A column that is part of who the row is about: always Utf8, nullable.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityColumn {
    /// Its name.
    pub name: String,
    /// What it means, in a sentence.
    pub meaning: String,
}

/// A typed table with one wide row per (node, entity, instant).
#[derive(Debug)]
pub struct Stream {
    /// Its name, also of its table.
    pub name: Arc<str>,
    /// What a row is, in a sentence.
    pub meaning: String,
    /// How often a source usually reports; decides when a node counts as idle.
    pub period: Duration,
    /// Who a row is about, besides its node.
    pub entity: Vec<EntityColumn>,
    /// The values.
    pub columns: Vec<Column>,
    schema: SchemaRef,
    // Column of `schema` by name.
    places: HashMap<String, usize, foldhash::fast::RandomState>,
    pub(super) nulls: Arc<Nulls>,
}

impl Stream {
    /// `columns` must have distinct names, none of them an envelope or derived name; `build` has checked that.
    pub(super) fn new(
        name: &str,
        meaning: String,
        period: Duration,
        entity: Vec<EntityColumn>,
        columns: Vec<Column>,
        nulls: Arc<Nulls>,
    ) -> Stream {
        let schema = full_schema(&entity, &columns);
        let places = schema.fields().iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        Stream { name: Arc::from(name), meaning, period, entity, columns, schema, places, nulls }
    }

    /// The table's full schema: `ts, received_at, region, site, node, start_ts`, entity columns, value columns (each counter
    /// `c` followed by `c_increase` and `c_increase_seconds`, Float64; each histogram of kind histogram `h` by `h_increase`, a histogram,
    /// and `h_increase_seconds`), `clock, source, batch, seq, attributes`.
    ///
    /// Fields are nullable and carry `unit`, `kind` and `meaning` as metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The value column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The index in [`Stream::columns`] of that name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The index in [`Stream::entity`] of that name.
    pub fn entity_index(&self, name: &str) -> Option<usize> {
        self.entity.iter().position(|column| column.name == name)
    }

    /// The index in [`Stream::schema`] of any column, in constant time.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

/// The names a column adds to the schema after its own.
pub(super) fn derived_columns(column: &Column) -> Vec<(String, DataType, Unit)> {
    let increase = match column.kind {
        Kind::Counter => DataType::Float64,
        Kind::Histogram => schema::histogram_type(),
        Kind::Gauge | Kind::State => return Vec::new(),
    };
    vec![
        (format!("{}{}", column.name, schema::INCREASE), increase, column.unit),
        (format!("{}{}", column.name, schema::INCREASE_SECONDS), DataType::Float64, Unit::Seconds),
    ]
}

fn full_schema(entity: &[EntityColumn], columns: &[Column]) -> SchemaRef {
    let envelope = |name: &&str| {
        let ty = schema::envelope_type(name).unwrap_or(DataType::Utf8);
        Field::new(*name, ty, true)
    };
    let with = |field: Field, unit: Unit, kind: &str, meaning: &str| {
        let metadata = [("unit", unit.as_str()), ("kind", kind), ("meaning", meaning)];
        field.with_metadata(metadata.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    };
    let mut fields: Vec<Field> = schema::LEADING.iter().map(envelope).collect();
    for column in entity {
        fields.push(with(Field::new(&column.name, DataType::Utf8, true), Unit::None, "entity", &column.meaning));
    }
    for column in columns {
        let field = Field::new(&column.name, column.ty.data_type(), true);
        fields.push(with(field, column.unit, column.kind.as_str(), &column.meaning));
        for (name, ty, unit) in derived_columns(column) {
            let what = if name.ends_with(schema::INCREASE_SECONDS) { "seconds between" } else { "rise since" };
            let meaning = format!("{what} the row before and this one, of {}", column.name);
            fields.push(with(Field::new(name, ty, true), unit, "increase", &meaning));
        }
    }
    fields.extend(schema::TRAILING.iter().map(envelope));
    Arc::new(Schema::new(fields))
}
