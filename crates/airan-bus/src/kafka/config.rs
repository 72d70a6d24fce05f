//! Settings become librdkafka's configuration.
//!
//! Three layers, later ones first: what the design depends on and nobody may change ([`FIXED`]); the user's properties; our
//! defaults, each with its reason. Values are secrets: no error here shows one.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::{KafkaSettings, OpenError};

/// What the design depends on: the property, and why it is not for users to change.
const FIXED: &[(&str, &str)] = &[
    ("bootstrap.servers", "`brokers` says it"),
    ("metadata.broker.list", "`brokers` says it"),
    ("acks", "a message is acknowledged by all in-sync replicas"),
    ("request.required.acks", "a message is acknowledged by all in-sync replicas"),
    ("enable.idempotence", "a retry must neither repeat nor reorder messages"),
    ("transactional.id", "transactions are not used"),
    ("auto.offset.reset", "a lost range is reported, never jumped over"),
    ("enable.auto.commit", "an offset is reported when its rows are safe"),
    ("auto.commit.enable", "an offset is reported when its rows are safe"),
    ("enable.auto.offset.store", "an offset is reported when its rows are safe"),
    ("partition.assignment.strategy", "partitions move one by one, the others stay where they are"),
    ("group.protocol", "partitions move one by one, the others stay where they are"),
];

/// For producer and consumer.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "airan"),
    ("socket.keepalive.enable", "true"),
    // A broker that comes back is noticed within two seconds.
    ("reconnect.backoff.max.ms", "2000"),
];

const PRODUCER: &[(&str, &str)] = &[
    // Payloads are Arrow IPC with LZ4 buffers: lz4 over them saves 3 % of the bytes, zstd 40 % at level 1 and 43 % at level 3.
    // Of CPU, level 1 costs no more than the copying it saves, level 3 twice as much (1,488 messages of 3,000 rows, 10 columns).
    ("compression.type", "zstd"),
    ("compression.level", "1"),
    // The gateway has gathered already.
    ("linger.ms", "0"),
    // Bounds the memory for messages that wait for a broker: twice what the gateway lets wait.
    ("queue.buffering.max.kbytes", "131072"),
    ("queue.buffering.max.messages", "100000"),
    // Longer than the gateway waits, so that a short absence of the broker is bridged; beyond it the sender has sent again.
    ("delivery.timeout.ms", "30000"),
];

/// The consumer group, unless `group.id` says another.
pub(crate) const GROUP: &str = "airan";

const CONSUMER: &[(&str, &str)] = &[
    ("group.id", GROUP),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "3000"),
    // Bounds the memory for messages that were fetched and wait for a shard.
    ("queued.max.messages.kbytes", "65536"),
    ("fetch.message.max.bytes", "1048576"),
    // A message is seen within this time also when few come.
    ("fetch.wait.max.ms", "100"),
    ("check.crcs", "true"),
];

const FIXED_CONSUMER: &[(&str, &str)] = &[
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("enable.partition.eof", "false"),
];

/// Under this name a member that comes back within the session's timeout gets its partitions back without a rebalance.
pub(super) const INSTANCE: &str = "group.instance.id";

/// Largest message of ours, where neither the user nor the topic says otherwise: Kafka's own default.
pub(super) const MESSAGE_MAX: u32 = 1_048_588;

/// The configurations of both sides.
#[derive(Clone)]
pub(super) struct Config {
    pub producer: ClientConfig,
    pub consumer: ClientConfig,
    /// Largest message; the topic must take as much.
    pub message_max: u32,
}

impl Config {
    /// Reads the settings of the bus. Fails with a line that names what to change, and no value.
    pub fn of(settings: &KafkaSettings) -> Result<Config, OpenError> {
        if settings.partitions == 0 {
            return Err(OpenError::Setting("bus.partitions is 0: a topic has at least one".to_owned()));
        }
        Config::under("bus.", settings)
    }

    /// Reads settings that stand under `section`, which begins the names in errors.
    pub fn under(section: &str, settings: &KafkaSettings) -> Result<Config, OpenError> {
        let setting = |line: String| OpenError::Setting(format!("{section}{line}"));
        let refuse = |line: String| Err(setting(line));
        if settings.brokers.trim().is_empty() {
            return refuse("brokers is empty: write host:port,host:port".to_owned());
        }
        for (name, why) in FIXED {
            if settings.properties.contains_key(*name) {
                return refuse(format!("properties: `{name}` cannot be set: {why}"));
            }
        }
        let mut common = ClientConfig::new();
        common.set_log_level(RDKafkaLogLevel::Info);
        let mut producer = layered(&common, settings, &[COMMON, PRODUCER]);
        let mut consumer = layered(&common, settings, &[COMMON, CONSUMER]);
        producer.set("acks", "all").set("enable.idempotence", "true");
        // They say who reads, and a producer warns of what is not its own.
        ["group.id", INSTANCE].into_iter().for_each(|name| {
            producer.remove(name);
        });
        FIXED_CONSUMER.iter().for_each(|(name, value)| {
            consumer.set(*name, *value);
        });
        let message_max = match settings.properties.get("message.max.bytes") {
            None => MESSAGE_MAX,
            Some(value) => match value.expose().parse() {
                Ok(bytes) => bytes,
                Err(_) => return refuse("properties: `message.max.bytes` is no number of bytes".to_owned()),
            },
        };
        producer.set("message.max.bytes", message_max.to_string());
        can_be_had(settings, &builtin_features()?).map_err(setting)?;
        let wrong = |error: KafkaError| setting(in_words(error));
        producer.create_native_config().map_err(wrong)?;
        consumer.create_native_config().map_err(wrong)?;
        Ok(Config { producer, consumer, message_max })
    }
}

fn layered(common: &ClientConfig, settings: &KafkaSettings, defaults: &[&[(&str, &str)]]) -> ClientConfig {
    let mut config = common.clone();
    for (name, value) in defaults.iter().flat_map(|layer| layer.iter()) {
        config.set(*name, *value);
    }
    // librdkafka knows some properties by two names, and a level means something else for each codec: ours must not stand
    // beside the user's.
    for (name, other) in [
        ("compression.type", "compression.codec"),
        ("compression.level", "compression.codec"),
        ("compression.level", "compression.type"),
        ("linger.ms", "queue.buffering.max.ms"),
        ("delivery.timeout.ms", "message.timeout.ms"),
    ] {
        if settings.properties.contains_key(other) {
            config.remove(name);
        }
    }
    for (name, value) in &settings.properties {
        config.set(name, value.expose());
    }
    config.set("bootstrap.servers", &settings.brokers);
    config
}

/// What the librdkafka of this build can do, by its own words.
fn builtin_features() -> Result<Vec<String>, OpenError> {
    let text = ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
    Ok(text.map_err(explain)?.split(',').map(|feature| feature.trim().to_owned()).collect())
}

/// Refuses settings for which this build lacks a part, by the name of the cargo feature that brings it.
fn can_be_had(settings: &KafkaSettings, features: &[String]) -> Result<(), String> {
    let set = |name: &str| settings.properties.get(name).map(|value| value.expose().to_ascii_lowercase());
    let has = |feature: &str| features.iter().any(|have| have == feature);
    let tls = "this build has no TLS: build with `--features airan-bus/tls` (needs perl) or `airan-bus/tls-system` \
               (needs OpenSSL's headers)";
    let protocol = set("security.protocol").unwrap_or_default();
    if ["ssl", "sasl_ssl"].contains(&protocol.as_str()) && !has("ssl") {
        return Err(format!("properties: `security.protocol: {protocol}`: {tls}"));
    }
    if !protocol.starts_with("sasl") {
        return Ok(());
    }
    let mechanism = set("sasl.mechanism").or_else(|| set("sasl.mechanisms"));
    let Some(mechanism) = mechanism else {
        return Err("properties: `security.protocol` asks for SASL: set `sasl.mechanism`, as in PLAIN".to_owned());
    };
    let lacks = match mechanism.as_str() {
        "gssapi" if !has("sasl_gssapi") => {
            "this build has no Kerberos: use PLAIN, SCRAM or OAUTHBEARER, or build librdkafka's `gssapi` in"
        }
        scram if scram.starts_with("scram-") && !has("sasl_scram") => tls,
        "oauthbearer" if !has("sasl_oauthbearer") => tls,
        _ => return Ok(()),
    };
    Err(format!("properties: `sasl.mechanism: {mechanism}`: {lacks}"))
}

/// An error of the bus's configuration without the value that is wrong, which may be a secret.
pub(super) fn explain(error: KafkaError) -> OpenError {
    OpenError::Setting(format!("bus.{}", in_words(error)))
}

fn in_words(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!("properties: librdkafka knows no property `{name}`")
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("properties: the value of `{name}` is not one it can have")
        }
        other => format!("properties: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use airan_model::settings::Secret;

    use super::*;

    fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
        let properties =
            properties.iter().map(|(name, value)| ((*name).to_owned(), Secret::from((*value).to_owned()))).collect();
        KafkaSettings { brokers: "localhost:9092".to_owned(), topic: "t".to_owned(), partitions: 1, properties }
    }

    fn refusal(properties: &[(&str, &str)]) -> String {
        Config::of(&settings(properties)).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// Scenario: properties a user may set, on either side or both.
    #[test]
    fn a_users_property_goes_before_our_default() {
        let config = Config::of(&settings(&[
            ("compression.codec", "zstd"),
            ("linger.ms", "7"),
            ("group.instance.id", "p-1"),
            ("message.max.bytes", "2000000"),
        ]))
        .unwrap();
        assert_eq!((config.producer.get("compression.type"), config.producer.get("compression.level")), (None, None));
        assert_eq!(config.producer.get("compression.codec"), Some("zstd"));
        assert_eq!(config.producer.get("linger.ms"), Some("7"));
        assert_eq!((config.consumer.get(INSTANCE), config.producer.get(INSTANCE)), (Some("p-1"), None));
        assert_eq!((config.message_max, config.consumer.get("group.id")), (2_000_000, Some("airan")));
        for codec in ["gzip", "snappy", "lz4", "zstd", "none"] {
            assert_eq!(refusal(&[("compression.type", codec)]), "", "{codec} is in every build");
        }
    }

    /// Scenario: properties that nobody may set, that do not exist, or whose value is wrong and secret.
    /// Guarantees: the property is named, and why; the value never is.
    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not() {
        assert!(refusal(&[("acks", "1")]).contains("`acks` cannot be set: a message is acknowledged"));
        assert!(refusal(&[("auto.offset.reset", "latest")]).contains("never jumped over"));
        assert_eq!(
            refusal(&[("sasl.pasword", "hunter2")]),
            "bus.properties: librdkafka knows no property `sasl.pasword`"
        );
        let told = refusal(&[("socket.timeout.ms", "hunter2")]);
        assert_eq!(told, "bus.properties: the value of `socket.timeout.ms` is not one it can have");
        assert!(refusal(&[("message.max.bytes", "many")]).contains("no number of bytes"));
        let none = KafkaSettings { partitions: 0, ..settings(&[]) };
        assert!(Config::of(&none).err().unwrap().to_string().contains("bus.partitions"));
    }

    /// Scenario: security settings against a build with and without each part.
    /// Guarantees: what the build lacks is named with the cargo feature that brings it.
    #[test]
    fn what_a_build_lacks_is_named_with_its_feature() {
        let plain: Vec<String> = ["lz4", "zstd", "sasl_plain"].map(str::to_owned).to_vec();
        let tls: Vec<String> = ["ssl", "sasl_plain", "sasl_scram", "sasl_oauthbearer"].map(str::to_owned).to_vec();
        let told = |properties: &[(&str, &str)], features: &[String]| {
            can_be_had(&settings(properties), features).err().unwrap_or_default()
        };
        for (protocol, mechanism) in [("SSL", "PLAIN"), ("sasl_ssl", "PLAIN"), ("SASL_PLAINTEXT", "SCRAM-SHA-512")] {
            let properties = [("security.protocol", protocol), ("sasl.mechanism", mechanism)];
            assert!(told(&properties, &plain).contains("--features airan-bus/tls"), "{protocol} {mechanism}");
            assert_eq!(told(&properties, &tls), "", "{protocol} {mechanism}");
        }
        assert_eq!(told(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", "PLAIN")], &plain), "");
        assert!(told(&[("security.protocol", "sasl_plaintext")], &plain).contains("set `sasl.mechanism`"));
        let kerberos = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI")];
        assert!(told(&kerberos, &tls).contains("Kerberos"));
    }
}
