//! The settings in force, for `airan validate --print`, in the order of the defaults.
//!
//! Settings print themselves, and a secret prints `***`; what came out of `${…}` is shown as written.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value as Json;

use super::tree::{Node, Value};
use super::{Config, ConfigError};

pub(super) fn show(config: &Config, tree: &Node) -> Result<String, ConfigError> {
    let failed = |error: String| ConfigError { place: None, message: format!("cannot print the settings: {error}") };
    let json = serde_json::to_value(config).map_err(|error| failed(error.to_string()))?;
    serde_saphyr::to_string(&Shown { node: tree, json: &json }).map_err(|error| failed(error.to_string()))
}

/// The order and the `${…}` of a tree, the values of settings.
struct Shown<'a> {
    node: &'a Node,
    json: &'a Json,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(written) = &self.node.written {
            return serializer.serialize_str(written);
        }
        match (&self.node.value, self.json) {
            (Value::Map(entries), Json::Object(object)) => {
                let mut map = serializer.serialize_map(None)?;
                for entry in entries {
                    if let Some(json) = object.get(&entry.key) {
                        map.serialize_entry(&entry.key, &Shown { node: &entry.node, json })?;
                    }
                }
                map.end()
            }
            (Value::List(items), Json::Array(array)) => {
                let mut list = serializer.serialize_seq(Some(array.len()))?;
                for (node, json) in items.iter().zip(array) {
                    list.serialize_element(&Shown { node, json })?;
                }
                list.end()
            }
            _ => self.json.serialize(serializer),
        }
    }
}
