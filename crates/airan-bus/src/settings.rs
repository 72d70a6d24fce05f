//! Settings of the bus. Every default is in `config/defaults.yaml`; none is here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use airan_model::settings::{BytesSetting, DurationSetting, Secret};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// Which bus, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum BusSettings {
    /// A log on the local disk.
    Local(LocalSettings),
    /// Apache Kafka.
    Kafka(KafkaSettings),
}

/// The local log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalSettings {
    /// Its folder.
    pub path: PathBuf,
    /// Name of the topic, as the lake knows it.
    pub topic: String,
    /// Number of partitions; 0: as it was made, and at first the number of cores.
    pub partitions: u16,
    /// Size of a segment file.
    pub segment_bytes: BytesSetting,
    /// How long processed messages are kept.
    pub max_age: DurationSetting,
    /// Most bytes on disk, all partitions together.
    pub max_bytes: BytesSetting,
}

/// Kafka.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Where to begin, as `host:port,host:port`.
    pub brokers: String,
    /// Topic of the telemetry. The topic of what was refused is named after it.
    pub topic: String,
    /// Number of its partitions.
    pub partitions: u16,
    /// Properties of librdkafka, as they are. Never printed, for some are secrets.
    #[serde(deserialize_with = "properties")]
    #[schemars(schema_with = "properties_schema")]
    pub properties: BTreeMap<String, Secret>,
}

impl KafkaSettings {
    /// Whether the bus writes the topic of this name.
    pub fn owns(&self, topic: &str) -> bool {
        topic == self.topic || topic == crate::kafka::rejected_topic(&self.topic)
    }

    /// The consumer group of the processors.
    pub fn group(&self) -> &str {
        self.properties.get("group.id").map_or(crate::kafka::GROUP, Secret::expose)
    }
}

/// Either kind, told apart by `type`. Written by hand, for what serde makes of a tagged variant that refuses unknown keys is a
/// schema that refuses the tag.
impl JsonSchema for BusSettings {
    fn schema_name() -> Cow<'static, str> {
        "BusSettings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds =
            [("local", LocalSettings::json_schema(generator)), ("kafka", KafkaSettings::json_schema(generator))];
        let kinds = kinds.map(|(name, mut kind)| {
            let tag = json_schema!({"const": name, "description": "A log on the local disk (local), or Apache Kafka (kafka)."});
            if let Some(properties) = kind.get_mut("properties").and_then(|of| of.as_object_mut()) {
                properties.insert("type".to_owned(), tag.to_value());
            }
            kind.to_value()
        });
        json_schema!({"anyOf": kinds})
    }
}

/// The schema of [`properties`].
pub fn properties_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
}

/// Reads properties of librdkafka, which may be written as texts, numbers or truth values.
///
/// # Errors
/// If one of them is something else.
pub fn properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|(name, Written(value))| (name, Secret::from(value))).collect())
}

struct Written(String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        deserializer.deserialize_any(Scalar).map(Written)
    }
}

struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, `true` or `false`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<String, E> {
        Ok(truth.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: Kafka's properties as people write them, one of them a secret.
    /// Guarantees: numbers and truth values need no quotes, and no value is printed.
    #[test]
    fn properties_are_taken_as_written_and_never_printed() {
        let json = serde_json::json!({
            "type": "kafka", "brokers": "a:1", "topic": "t", "partitions": 4,
            "properties": {"sasl.password": "hunter2", "linger.ms": 5, "check.crcs": true},
        });
        let settings: BusSettings = serde_json::from_value(json).unwrap();
        let BusSettings::Kafka(kafka) = &settings else { panic!("kafka") };
        let values: Vec<&str> = kafka.properties.values().map(Secret::expose).collect();
        assert_eq!(values, ["true", "5", "hunter2"]);
        let printed = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(!printed.contains("hunter2") && printed.contains("***"), "{printed}");
    }
}
