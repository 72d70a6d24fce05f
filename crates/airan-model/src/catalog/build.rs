//! From the catalog's files to a [`Catalog`], refusing whatever contradicts itself.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::conform::Nulls;
use super::error::{CatalogError, Problem};
use super::file::{CombineText, File, KindText, MetricText, SourceText, StreamText, TypeText};
use super::stream::derived_columns;
use super::{
    Catalog, Column, ColumnType, Combine, EntityColumn, EntitySource, FieldClasses, Kind, MappingSource, MetricMapping,
    Stream, Target,
};
use crate::schema;
use crate::unit::{self, Unit};
use crate::yaml::{self, Place};

/// Builds a catalog from files, given by name and text.
pub(super) fn build(files: Vec<(String, String)>) -> Result<Catalog, CatalogError> {
    let mut read = Vec::with_capacity(files.len());
    for (name, text) in files {
        let file: File = yaml::read(&name, &text).map_err(|(place, reason)| CatalogError::Yaml { place, reason })?;
        read.push((name, file));
    }
    let streams = streams(&read)?;
    let mut catalog =
        Catalog { streams, sources: Vec::new(), metrics: HashMap::default(), fields: FieldClasses::default() };
    let mut sources = Names::new("source");
    let mut mapped = Mapped::default();
    let mut fields = Names::new("field");
    for (file, content) in &read {
        for text in &content.sources {
            sources.add(file, &text.name)?;
            let source = Arc::new(source(file, text, &catalog)?);
            for metric in &text.metrics {
                add_metric(file, "", metric, &source, &mut catalog, &mut mapped)?;
                for prefix in &text.also_prefixed {
                    add_metric(file, prefix, metric, &source, &mut catalog, &mut mapped)?;
                }
            }
            catalog.sources.push(source);
        }
        for field in &content.drop_fields {
            fields.add(file, field)?;
            if !catalog.fields.drop(&field.value) {
                return Err(refuse(file, field, Problem::NoField(field.value.clone())));
            }
        }
    }
    Ok(catalog)
}

fn refuse<T>(file: &str, at: &Spanned<T>, problem: Problem) -> CatalogError {
    CatalogError::Refused { place: Place::of(file, at), problem: Box::new(problem) }
}

/// Names that may occur once, with where they did.
struct Names {
    what: &'static str,
    seen: HashMap<String, Place>,
}

impl Names {
    fn new(what: &'static str) -> Names {
        Names { what, seen: HashMap::new() }
    }

    fn add(&mut self, file: &str, name: &Spanned<String>) -> Result<(), CatalogError> {
        match self.seen.insert(name.value.clone(), Place::of(file, name)) {
            None => Ok(()),
            Some(first) => {
                let problem = Problem::Duplicate { what: self.what, name: name.value.clone(), first };
                Err(refuse(file, name, problem))
            }
        }
    }
}

fn checked_name(file: &str, name: &Spanned<String>) -> Result<(), CatalogError> {
    let mut chars = name.value.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    if first && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Ok(());
    }
    Err(refuse(file, name, Problem::Name(name.value.clone())))
}

/// A stream while its files are read.
struct Draft {
    name: String,
    meaning: String,
    period: std::time::Duration,
    entity: Vec<EntityColumn>,
    columns: Vec<(Column, Place)>,
    // Every name taken, with where.
    taken: HashMap<String, Place>,
}

fn streams(files: &[(String, File)]) -> Result<Vec<Arc<Stream>>, CatalogError> {
    let mut drafts: Vec<Draft> = Vec::new();
    for (file, content) in files {
        for text in &content.streams {
            let at = match drafts.iter().position(|draft| draft.name == text.name.value) {
                Some(at) if text.entity.is_empty() && text.period.is_none() && text.meaning.is_none() => at,
                Some(_) => {
                    let reason = "is described already: here it may only get `columns`";
                    return Err(refuse(
                        file,
                        &text.name,
                        Problem::Incomplete { name: text.name.value.clone(), reason },
                    ));
                }
                None => {
                    drafts.push(draft(file, text)?);
                    drafts.len() - 1
                }
            };
            add_columns(file, text, &mut drafts[at])?;
        }
    }
    let nulls = Arc::new(Nulls::default());
    let finish = |draft: Draft| {
        let columns = draft.columns.into_iter().map(|(column, _)| column).collect();
        Arc::new(Stream::new(&draft.name, draft.meaning, draft.period, draft.entity, columns, Arc::clone(&nulls)))
    };
    Ok(drafts.into_iter().map(finish).collect())
}

fn draft(file: &str, text: &StreamText) -> Result<Draft, CatalogError> {
    checked_name(file, &text.name)?;
    let (Some(meaning), Some(period)) = (&text.meaning, text.period) else {
        let reason = "needs `meaning` and `period`";
        return Err(refuse(file, &text.name, Problem::Incomplete { name: text.name.value.clone(), reason }));
    };
    let mut draft = Draft {
        name: text.name.value.clone(),
        meaning: meaning.clone(),
        period: period.get(),
        entity: Vec::new(),
        columns: Vec::new(),
        taken: HashMap::new(),
    };
    for entity in &text.entity {
        checked_name(file, &entity.name)?;
        take(&mut draft, file, &entity.name, entity.name.value.clone())?;
        draft.entity.push(EntityColumn { name: entity.name.value.clone(), meaning: entity.meaning.clone() });
    }
    Ok(draft)
}

/// Takes a name within a stream; `at` is what it is taken for.
fn take(draft: &mut Draft, file: &str, at: &Spanned<String>, name: String) -> Result<(), CatalogError> {
    if schema::envelope_type(&name).is_some() {
        return Err(refuse(file, at, Problem::Reserved(name)));
    }
    match draft.taken.insert(name.clone(), Place::of(file, at)) {
        None => Ok(()),
        Some(_) if name != at.value => Err(refuse(file, at, Problem::Reserved(name))),
        Some(first) => Err(refuse(file, at, Problem::Duplicate { what: "column", name, first })),
    }
}

fn add_columns(file: &str, text: &StreamText, draft: &mut Draft) -> Result<(), CatalogError> {
    for column_text in &text.columns {
        let name = &column_text.name;
        checked_name(file, name)?;
        let kind = match column_text.kind {
            KindText::Gauge => Kind::Gauge,
            KindText::Counter => Kind::Counter,
            KindText::Histogram => Kind::Histogram,
            KindText::State => Kind::State,
        };
        let ty = match (column_text.ty, kind) {
            (Some(TypeText::Float), _) => ColumnType::Float,
            (Some(TypeText::Int), _) => ColumnType::Int,
            (Some(TypeText::Text), _) => ColumnType::Text,
            (Some(TypeText::Histogram), _) | (None, Kind::Histogram) => ColumnType::Histogram,
            (None, Kind::State) => ColumnType::Text,
            (None, Kind::Gauge | Kind::Counter) => ColumnType::Float,
        };
        let fits = match kind {
            Kind::Gauge => ty != ColumnType::Text,
            Kind::Counter => matches!(ty, ColumnType::Float | ColumnType::Int),
            Kind::Histogram => ty == ColumnType::Histogram,
            Kind::State => ty != ColumnType::Histogram,
        };
        if !fits {
            return Err(refuse(file, name, Problem::KindAndType { kind: kind.as_str(), ty: ty.as_str() }));
        }
        let unit = base_unit(file, &column_text.unit)?;
        let meaning = column_text.meaning.clone();
        let column = Column { name: name.value.clone(), kind, ty, unit, meaning };
        if let Some((before, first)) = draft.columns.iter().find(|(before, _)| before.name == column.name) {
            let shape = |c: &Column| format!("a {} of type {} in {}", c.kind.as_str(), c.ty.as_str(), c.unit);
            if shape(before) != shape(&column) {
                let name_of = format!("{}.{}", draft.name, column.name);
                let (before, first, now) = (shape(before), first.clone(), shape(&column));
                return Err(refuse(file, name, Problem::ChangedType { name: name_of, before, first, now }));
            }
        }
        take(draft, file, name, column.name.clone())?;
        for (derived, ..) in derived_columns(&column) {
            take(draft, file, name, derived)?;
        }
        draft.columns.push((column, Place::of(file, name)));
    }
    Ok(())
}

fn base_unit(file: &str, name: &Spanned<String>) -> Result<Unit, CatalogError> {
    match (Unit::named(&name.value), unit::conversion(&name.value)) {
        (Some(unit), _) => Ok(unit),
        (None, Some((base, _))) => Err(refuse(file, name, Problem::NotBaseUnit { name: name.value.clone(), base })),
        (None, None) => Err(refuse(file, name, unknown_unit(&name.value))),
    }
}

fn unknown_unit(name: &str) -> Problem {
    let near = yaml::nearest(name, unit::known_units()).map(str::to_owned);
    Problem::UnknownUnit { name: name.to_owned(), near }
}

/// The stream and the rest of `stream.column`.
fn target_stream<'a, 'c>(
    file: &str,
    target: &'a Spanned<String>,
    catalog: &'c Catalog,
) -> Result<(&'c Arc<Stream>, &'a str), CatalogError> {
    let Some((stream_name, column)) = target.value.split_once('.') else {
        return Err(refuse(file, target, Problem::Target(target.value.clone())));
    };
    let stream = catalog.stream(stream_name).ok_or_else(|| {
        let near = yaml::nearest(stream_name, catalog.streams().map(|stream| &*stream.name)).map(str::to_owned);
        refuse(file, target, Problem::UnknownStream { name: stream_name.to_owned(), near })
    })?;
    Ok((stream, column))
}

fn unknown_column<'a>(stream: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let near = yaml::nearest(name, known).map(str::to_owned);
    Problem::UnknownColumn { stream: stream.to_owned(), name: name.to_owned(), near }
}

fn source(file: &str, text: &SourceText, catalog: &Catalog) -> Result<MappingSource, CatalogError> {
    let mut entity = Vec::new();
    let mut once = Names::new("entity column");
    for from in &text.entity {
        once.add(file, &from.column)?;
        let (stream, name) = target_stream(file, &from.column, catalog)?;
        let column = stream.entity_index(name).ok_or_else(|| {
            let known = stream.entity.iter().map(|entity| entity.name.as_str());
            refuse(file, &from.column, unknown_column(&stream.name, name, known))
        })?;
        entity.push(EntitySource {
            stream: Arc::clone(&stream.name),
            column,
            labels: from.from.clone(),
            constant: from.constant.clone(),
            absent: from.absent.clone(),
        });
    }
    let mut columns = Vec::new();
    for label in &text.columns {
        let fitting = || {
            let all = catalog.streams().flat_map(|stream| &stream.columns);
            all.filter(|column| column.takes_label()).map(|column| column.name.as_str())
        };
        if !fitting().any(|name| name == label.to.value) {
            let of = "the columns that a label can fill, of any stream";
            return Err(refuse(file, &label.to, unknown_column(of, &label.to.value, fitting())));
        }
        columns.push((label.label.clone(), label.to.value.clone()));
    }
    Ok(MappingSource {
        name: text.name.value.clone(),
        meaning: text.meaning.clone(),
        entity,
        needs_one_of: text.needs_one_of.clone(),
        node: text.node.clone(),
        columns,
        ignore: text.ignore.clone(),
        sentinels: text.sentinels.clone(),
    })
}

/// What a sample must be to land on a target.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Conditions {
    when: Vec<(String, String)>,
    without: Vec<String>,
    // `at_least` and `below`, by their bits.
    bounds: [Option<u64>; 2],
}

impl Conditions {
    fn of(target: &Target) -> Conditions {
        Conditions {
            when: target.when.clone(),
            without: target.without.clone(),
            bounds: [target.at_least, target.below].map(|bound| bound.map(f64::to_bits)),
        }
    }

    /// Whether every sample meets them.
    fn is_none(&self) -> bool {
        self.when.is_empty() && self.without.is_empty() && self.bounds == [None, None]
    }
}

/// What may be filled once: prefix, source, stream, column and conditions.
type CellOf = (String, String, String, usize, Conditions);

/// What is mapped already, to find two for one.
#[derive(Default)]
struct Mapped {
    // By foreign name: where each of its conditions stands.
    conditions: HashMap<String, Vec<(Conditions, Place)>>,
    // The foreign name that fills a cell, and where it stands.
    filled: HashMap<CellOf, (String, Place)>,
}

/// Adds a metric under its name with a prefix, mostly an empty one.
fn add_metric(
    file: &str,
    prefix: &str,
    text: &MetricText,
    source: &Arc<MappingSource>,
    catalog: &mut Catalog,
    mapped: &mut Mapped,
) -> Result<(), CatalogError> {
    let name = &format!("{prefix}{}", text.name.value);
    let place = Place::of(file, &text.name);
    let target = target(file, text, catalog)?;
    let conditions = Conditions::of(&target);

    let earlier = mapped.conditions.entry(name.clone()).or_default();
    let other_source = catalog.metrics.get(name).is_some_and(|mapping| mapping.source.name != source.name);
    let same = earlier.iter().find(|(before, _)| other_source || *before == conditions);
    if let Some((_, first)) = same {
        let problem = Problem::Duplicate { what: "metric", name: name.clone(), first: first.clone() };
        return Err(refuse(file, &text.name, problem));
    }
    if let Some((_, first)) = earlier.iter().find(|(before, _)| before.is_none()) {
        return Err(refuse(file, &text.name, Problem::Unreachable { metric: name.clone(), first: first.clone() }));
    }
    earlier.push((conditions.clone(), place.clone()));

    if target.combine == Combine::Only {
        let stream = target.stream.name.to_string();
        let cell = (prefix.to_owned(), source.name.clone(), stream, target.column, conditions);
        if let Some((other, first)) = mapped.filled.insert(cell, (name.clone(), place)) {
            return Err(refuse(file, &text.name, Problem::TwoMetrics { metric: name.clone(), other, first }));
        }
    }

    let mut targets = catalog.metrics.get(name).map(|mapping| mapping.targets.clone()).unwrap_or_default();
    targets.push(target);
    let mapping = MetricMapping { name: name.clone(), source: Arc::clone(source), targets };
    catalog.metrics.insert(name.clone(), Arc::new(mapping));
    Ok(())
}

fn target(file: &str, text: &MetricText, catalog: &Catalog) -> Result<Target, CatalogError> {
    let (stream, column_name) = target_stream(file, &text.to, catalog)?;
    let index = stream.column_index(column_name).ok_or_else(|| {
        let known = stream.columns.iter().map(|column| column.name.as_str());
        refuse(file, &text.to, unknown_column(&stream.name, column_name, known))
    })?;
    let column = &stream.columns[index];
    let scale = match &text.unit {
        None if matches!(column.unit, Unit::None | Unit::Count) => 1.0,
        None => {
            let problem = Problem::NoUnit { metric: text.name.value.clone(), unit: column.unit };
            return Err(refuse(file, &text.name, problem));
        }
        Some(unit) => match unit::conversion(&unit.value) {
            Some((base, scale)) if base == column.unit => scale,
            Some(_) => {
                let problem = Problem::NoConversion { from: unit.value.clone(), to: column.unit };
                return Err(refuse(file, unit, problem));
            }
            None => return Err(refuse(file, unit, unknown_unit(&unit.value))),
        },
    };
    let values_fit = match (&text.values, column.ty) {
        (values, ColumnType::Text) => values.is_some(),
        (Some(values), ColumnType::Int) => scale == 1.0 && values.values().all(|value| value.parse::<i64>().is_ok()),
        (values, _) => values.is_none(),
    };
    if !values_fit {
        return Err(refuse(file, &text.name, Problem::Values));
    }
    let (least, below) = (text.at_least.unwrap_or(f64::NEG_INFINITY), text.below.unwrap_or(f64::INFINITY));
    let is_bounded = text.at_least.is_some() || text.below.is_some();
    if !matches!(least.partial_cmp(&below), Some(Ordering::Less)) || is_bounded && column.ty == ColumnType::Histogram {
        return Err(refuse(file, &text.name, Problem::Bounds));
    }
    Ok(Target {
        stream: Arc::clone(stream),
        column: index,
        when: text.when.clone().into_iter().collect(),
        without: text.without.iter().cloned().collect(),
        at_least: text.at_least,
        below: text.below,
        scale,
        combine: match text.combine {
            None => Combine::Only,
            Some(CombineText::Sum) => Combine::Sum,
            Some(CombineText::Max) => Combine::Max,
            Some(CombineText::Min) => Combine::Min,
        },
        values: text.values.clone().map(|values| values.into_iter().collect()),
    })
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
