//! A YAML file as a tree in which every value knows where it stands.
//!
//! Substitution happens while the tree is built, so that everything after it (overlaying, reading into settings) sees final
//! values; a value that came out of `${…}` keeps what was written, which is all that is ever printed of it.

use std::fmt;

use airan_model::Place;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::ConfigError;
use super::substitute::{Sources, substitute};

/// A value and where it stands.
#[derive(Clone, PartialEq)]
pub(crate) struct Node {
    pub place: Place,
    pub value: Value,
    /// The text as written, where the value came out of `${…}`.
    pub written: Option<String>,
}

/// What YAML can say.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Node {
    /// Reads one YAML document. `first_line` is the line of the file it begins at, counted from 0.
    pub fn read(file: &str, text: &str, first_line: u64, sources: &Sources<'_>) -> Result<Node, ConfigError> {
        let at = |location: Location| Place {
            file: file.to_owned(),
            line: location.line() + if location.line() > 0 { first_line } else { 0 },
            column: location.column(),
        };
        let parsed: Spanned<Parsed> = serde_saphyr::from_str(text).map_err(|error| {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            let message = error.without_snippet().to_string();
            ConfigError::at(at(location), message.lines().next().unwrap_or_default())
        })?;
        build(parsed, &at, sources)
    }

    /// The value under a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Takes a key out.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        let Value::Map(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index).node)
    }

    /// Puts a value under a key, whatever was there.
    pub fn put(&mut self, key: &str, node: Node) {
        self.take(key);
        if let Value::Map(entries) = &mut self.value {
            entries.push(Entry { key: key.to_owned(), place: node.place.clone(), node });
        }
    }

    /// Lays another tree over this one: maps merge key by key, everything else replaces what was there. A section that is
    /// left empty changes nothing.
    pub fn overlay(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Map(_), Value::Null) => {}
            (Value::Map(entries), Value::Map(others)) => {
                self.place = over.place;
                for other in others {
                    match entries.iter_mut().find(|entry| entry.key == other.key) {
                        Some(entry) => entry.node.overlay(other.node),
                        None => entries.push(other),
                    }
                }
            }
            (_, value) => *self = Node { value, ..over },
        }
    }

    /// The text of a scalar that came out of `${…}`, which must not be printed.
    pub fn hidden(&self) -> Option<&str> {
        match (&self.value, &self.written) {
            (Value::Text(text), Some(_)) => Some(text),
            _ => None,
        }
    }
}

fn build(parsed: Spanned<Parsed>, at: &dyn Fn(Location) -> Place, sources: &Sources<'_>) -> Result<Node, ConfigError> {
    let place = at(parsed.referenced);
    let mut written = None;
    let value = match parsed.value {
        Parsed::Null => Value::Null,
        Parsed::Bool(value) => Value::Bool(value),
        Parsed::Signed(value) => Value::Signed(value),
        Parsed::Unsigned(value) => Value::Unsigned(value),
        Parsed::Float(value) => Value::Float(value),
        Parsed::Text(text) => match substitute(&text, sources) {
            Ok(None) => Value::Text(text),
            Ok(Some(value)) => {
                written = Some(text);
                Value::Text(value)
            }
            Err(error) => return Err(ConfigError::at(place, error.to_string())),
        },
        Parsed::List(items) => {
            Value::List(items.into_iter().map(|item| build(item, at, sources)).collect::<Result<_, _>>()?)
        }
        Parsed::Map(entries) => {
            let mut nodes = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let node = build(value, at, sources)?;
                nodes.push(Entry { key: key.value, place: at(key.referenced), node });
            }
            Value::Map(nodes)
        }
    };
    Ok(Node { place, value, written })
}

/// What the parser gives, before substitution.
enum Parsed {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        Parsed::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Signed(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}
