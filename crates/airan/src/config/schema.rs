//! The configuration's JSON Schema, for editors: made from the settings' own types, their descriptions and `config/defaults.yaml`.
//!
//! It says of a user's file what the file may say: any part of the settings, for the rest comes from the defaults; a section may
//! be empty; and where a number or a word is wanted there may be a `${VAR}` instead. What it takes the loader may still refuse,
//! such as a timer of zero.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::substitute::PROCESS;
use super::{Config, ConfigError, Mode, load_text};

/// The schema, as draft 2020-12.
///
/// # Errors
/// If the built-in defaults could not be read.
pub fn schema() -> Result<Value, ConfigError> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut root = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let shown = |text: Option<&str>, mode| {
        let user = text.map(|text| ("schema", text));
        let config = load_text(user, mode, None, &PROCESS)?.config;
        let json = serde_json::to_value(config);
        json.map_err(|error| ConfigError { place: None, message: format!("the defaults are no JSON: {error}") })
    };
    let role = shown(None, Mode::Role)?;
    let kafka = shown(Some("bus: {type: kafka}"), Mode::Role)?;
    let up = shown(None, Mode::Up)?;
    if let Some(root) = root.as_object_mut() {
        root.insert("title".to_owned(), json!("airan's configuration"));
        root.insert("description".to_owned(), json!("What differs from config/defaults.yaml."));
        section(root, &[&role, &kafka], Some(&up));
    }
    Ok(root)
}

/// An object whose keys have defaults: none is required. `defaults` are those of each kind of it, told apart by `type`.
fn section(schema: &mut Map<String, Value>, defaults: &[&Value], up: Option<&Value>) {
    if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        for kind in kinds.iter_mut().filter_map(Value::as_object_mut) {
            let tag = kind.get("properties").and_then(|of| of.get("type")?.get("const")).cloned();
            let of: Vec<&Value> =
                defaults.iter().copied().filter(|of| of.get("type") == tag.as_ref()).take(1).collect();
            section(kind, &of, up.filter(|up| up.get("type") == tag.as_ref()));
            // Without a type it is the kind of the defaults.
            if of.first() != defaults.first() {
                kind.insert("required".to_owned(), json!(["type"]));
            }
        }
        return;
    }
    schema.remove("required");
    schema.insert("type".to_owned(), json!(["object", "null"]));
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (key, child) in properties {
        let of: Vec<&Value> = defaults.iter().filter_map(|of| of.get(key)).collect();
        let Some(child) = child.as_object_mut() else { continue };
        if is_section(child) {
            section(child, &of, up.and_then(|up| up.get(key)));
        } else if !child.contains_key("const") {
            setting(child, of.first().copied(), up.and_then(|up| up.get(key)));
        }
    }
}

fn is_section(schema: &Map<String, Value>) -> bool {
    let kinds = schema.get("anyOf").and_then(Value::as_array);
    schema.contains_key("properties")
        || kinds.is_some_and(|kinds| kinds.iter().all(|kind| kind.get("properties").is_some()))
}

/// A value: its default, and that it may come out of `${…}`.
fn setting(schema: &mut Map<String, Value>, default: Option<&Value>, up: Option<&Value>) {
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        if let Some(properties) = items.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().filter_map(Value::as_object_mut).for_each(|of| setting(of, None, None));
        }
    } else if !is_any_text(schema) && !is_map(schema) {
        let description = schema.remove("description");
        let value = Value::Object(std::mem::take(schema));
        schema.insert("anyOf".to_owned(), json!([value, {"type": "string", "pattern": r"\$\{"}]));
        schema.extend(description.map(|description| ("description".to_owned(), description)));
    }
    if let Some(default) = default {
        schema.insert("default".to_owned(), default.clone());
        if let Some(up) = up.filter(|up| *up != default)
            && let Some(Value::String(description)) = schema.get_mut("description")
        {
            description.push_str(&format!(" In `airan up` the default is {up}."));
        }
    }
}

/// Whether every text is taken, so that `${…}` needs no saying.
fn is_any_text(schema: &Map<String, Value>) -> bool {
    let is_text =
        |ty: &Value| ty == "string" || ty.as_array().is_some_and(|types| types.iter().any(|ty| ty == "string"));
    schema.get("type").is_some_and(is_text) && !["pattern", "enum", "const"].iter().any(|key| schema.contains_key(*key))
}

fn is_map(schema: &Map<String, Value>) -> bool {
    schema.contains_key("additionalProperties")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of a tree of defaults, as a path.
    fn keys(of: &Value, path: &str, into: &mut Vec<String>) {
        for (key, value) in of.as_object().into_iter().flatten() {
            into.push(format!("{path}/{key}"));
            keys(value, &format!("{path}/{key}"), into);
        }
    }

    fn find<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
        path.split('/').skip(1).try_fold(schema, |schema, key| match schema.get("anyOf") {
            Some(kinds) => kinds.as_array()?.iter().find_map(|kind| kind.get("properties")?.get(key)),
            None => schema.get("properties")?.get(key),
        })
    }

    /// Scenario: every key of the defaults, of either bus.
    /// Guarantees: the schema has it, with a description and the default; nothing but a target's name and address is required.
    #[test]
    fn every_setting_is_described_with_its_default() {
        let schema = schema().unwrap_or_else(|error| panic!("{error}"));
        for text in [None, Some(("x", "bus: {type: kafka}"))] {
            let config = load_text(text, Mode::Role, None, &PROCESS).unwrap_or_else(|error| panic!("{error}")).config;
            let config = serde_json::to_value(config).unwrap();
            let mut paths = Vec::new();
            keys(&config, "", &mut paths);
            assert!(paths.len() > 80, "{}", paths.len());
            for path in paths {
                let found = find(&schema, &path).unwrap_or_else(|| panic!("{path} is not in the schema"));
                let described = found["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described || path == "/bus", "{path}: {found}");
                let value = config.pointer(&path).unwrap();
                if !value.is_object() && path != "/bus/type" && text.is_none() {
                    assert_eq!(found.get("default"), Some(value), "{path}");
                }
            }
        }
        assert!(schema["properties"].as_object().unwrap().values().all(|section| section.get("required").is_none()));
        let target = &find(&schema, "/agent/targets").unwrap()["items"];
        assert_eq!(target["required"], json!(["name", "url"]));
        assert_eq!(target["additionalProperties"], json!(false));
    }
}
