//! What a user's file may say, and how a mistake in it is told.

use std::collections::BTreeSet;
use std::path::Path;

use airan_bus::BusSettings;
use airan_model::settings::DurationSetting;
use serde_json::Value as Json;

use super::read::read;
use super::substitute::Sources;
use super::tree::{Node, Value};
use super::{Config, ConfigError, Defaults, Loaded, Mode, bus_settings, load_text, typed};

const SOURCES: Sources<'static> = Sources {
    variable: &|name| match name {
        "TOKEN" => Some("hunter2".to_owned()),
        "CONNECTIONS" => Some("77".to_owned()),
        "YES" => Some("true".to_owned()),
        "DOOR" => Some("127.0.0.1:9".to_owned()),
        _ => None,
    },
    file: &|path| match path {
        "/run/secret" => Ok("tr0ub4dor\n".to_owned()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    },
};

fn load(user: &str, mode: Mode) -> Result<Loaded, ConfigError> {
    load_text(Some(("site.yaml", user)), mode, None, &SOURCES)
}

fn config(user: &str) -> Config {
    load(user, Mode::Role).map_err(|e| e.to_string()).unwrap().config
}

fn mistake(user: &str) -> String {
    load(user, Mode::Role).map(|_| ()).unwrap_err().to_string()
}

fn duration(text: &str) -> DurationSetting {
    text.parse().unwrap()
}

/// Scenario: no file at all, for each mode and bus.
/// Guarantees: `config/defaults.yaml` alone fills every setting, and the values are those of the design.
#[test]
fn defaults_alone_fill_every_setting() {
    let role = load_text(None, Mode::Role, None, &SOURCES).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!(role.processor.commit.interval, duration("60s"));
    assert_eq!(role.lake.raw_retention, duration("30d"));
    // Small files become files of 128 MiB (half of it, below which one is still merged) to 256 MiB.
    assert_eq!((role.lake.compaction.on, role.lake.compaction.target_bytes.get()), (true, 256 << 20));
    assert_eq!(role.gateway.request.bytes.get(), 16 << 20);
    assert_eq!(role.agent.scrape.samples, 50_000);
    assert!(matches!(role.bus, BusSettings::Local(_)));

    let up = load_text(None, Mode::Up, None, &SOURCES).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!(up.processor.commit.interval, duration("15s"));
    assert_eq!(up.lake.raw_retention, duration("7d"));
    assert_eq!(up.lake.max_bytes.map(|b| b.get()), Some(10 << 30));
    assert_eq!(up.lake.window_retention, role.lake.window_retention);

    assert!(matches!(config("bus: {type: kafka}\n").bus, BusSettings::Kafka(_)));
}

/// Keys of a JSON value and of a tree, as dotted paths; lists are leaves.
fn json_paths(prefix: &str, json: &Json, out: &mut BTreeSet<String>) {
    let Json::Object(map) = json else { return };
    for (key, value) in map {
        let path = format!("{prefix}.{key}");
        json_paths(&path, value, out);
        out.insert(path);
    }
}

fn tree_paths(prefix: &str, node: &Node, out: &mut BTreeSet<String>) {
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        let path = format!("{prefix}.{}", entry.key);
        tree_paths(&path, &entry.node, out);
        out.insert(path);
    }
}

/// Scenario: the keys of every settings struct against the keys of the defaults; then each default taken away, one at a time.
/// Guarantees: every setting has its default in the file and nowhere else.
#[test]
fn every_default_is_in_the_file_and_nowhere_else() {
    for user in [None, Some(("site.yaml", "bus: {type: kafka}\n"))] {
        let loaded = load_text(user, Mode::Role, None, &SOURCES).unwrap_or_else(|e| panic!("{e}"));
        let (mut settings, mut file) = (BTreeSet::new(), BTreeSet::new());
        json_paths("", &serde_json::to_value(&loaded.config).unwrap(), &mut settings);
        tree_paths("", &loaded.tree, &mut file);
        assert_eq!(settings, file);

        for path in &file {
            let mut tree = loaded.tree.clone();
            let keys: Vec<&str> = path.split('.').skip(1).collect();
            let (last, parents) = keys.split_last().unwrap();
            let mut node = &mut tree;
            for key in parents {
                let Value::Map(entries) = &mut node.value else { panic!("{path}") };
                node = &mut entries.iter_mut().find(|e| e.key == **key).unwrap().node;
            }
            let taken = node.take(last).unwrap();
            // An absent optional setting is an unset one, which is what its default says.
            assert!(typed(&tree).is_err() || taken.value == Value::Null, "{path} has a default in code");
        }
    }
}

/// Scenario: keys with a typing mistake, at several depths and in a list.
/// Guarantees: refused with file, line, column and the key that was meant.
#[test]
fn an_unknown_key_is_told_with_its_place_and_the_key_meant() {
    assert_eq!(
        mistake("node: a\ngateway:\n  htttp: 127.0.0.1:1\n"),
        "site.yaml:3:3: unknown key `htttp`; did you mean `http`?"
    );
    assert_eq!(mistake("gatway: {}\n"), "site.yaml:1:1: unknown key `gatway`; did you mean `gateway`?");
    assert_eq!(mistake("buss: {}\n"), "site.yaml:1:1: unknown key `buss`; did you mean `bus`?");
    assert_eq!(
        mistake("agent:\n  targets:\n    - name: a\n      url: http://a\n      intervall: 3s\n"),
        "site.yaml:5:7: unknown key `intervall`; did you mean `interval`?"
    );
    let far = mistake("log:\n  zzz: 1\n");
    assert!(far.starts_with("site.yaml:2:3: unknown key `zzz`; known here: level, format"), "{far}");
    assert_eq!(mistake("bus:\n  type: kafak\n"), "site.yaml:2:9: unknown bus `kafak`; did you mean `kafka`?");
    assert_eq!(
        mistake("bus:\n  type: kafka\n  broker: a:1\n"),
        "site.yaml:3:3: unknown key `broker`; did you mean `brokers`?"
    );
    assert_eq!(mistake("log: {format: jsn}\n"), "site.yaml:1:15: unknown value `jsn`; did you mean `json`?");
}

/// Scenario: values of the wrong type, and texts that are no duration, size or address.
/// Guarantees: refused with file, line, column, in words.
#[test]
fn a_wrong_value_is_told_with_its_place() {
    for (user, place, word) in [
        ("gateway:\n  insecure: 5\n", "site.yaml:2:13: ", "`true` or `false`"),
        ("gateway:\n  request:\n    labels: many\n", "site.yaml:3:13: ", "a whole number"),
        ("gateway:\n  request: {labels: -1}\n", "site.yaml:2:21: ", "a whole number"),
        ("gateway: [1]\n", "site.yaml:1:10: ", "a map"),
        ("processor:\n  commit:\n    interval: 15 sec\n", "site.yaml:3:15: ", "15 sec"),
        ("lake: {max_bytes: 10Gb}\n", "site.yaml:1:19: ", "10Gb"),
        ("gateway:\n  http: localhost\n", "site.yaml:2:9: ", "address"),
        ("agent:\n  targets:\n    - url: http://a\n", "site.yaml:3:7: ", "`name` is missing"),
        ("region: 7\n", "site.yaml:1:9: ", "a text"),
        ("agent: {links_ignored: lo}\n", "site.yaml:1:24: ", "a list"),
        ("[]\n", "site.yaml:1:1: ", "a map of sections"),
        ("node: a\nnode: b\n", "site.yaml:2:1: ", "node"),
        ("node: [a\n", "site.yaml:", ""),
    ] {
        let told = mistake(user);
        assert!(told.starts_with(place) && told.contains(word), "{user:?}: {told}");
        assert!(!told.contains('\n'), "{told}");
    }
}

/// Scenario: `${…}` for texts, numbers, truth values and addresses, and one that is not set.
#[test]
fn substituted_values_become_what_is_wanted() {
    let config = config(
        "node: ${TOKEN}\nregion: ${NONE:-north}\ngateway: {http: '${DOOR}', insecure: '${YES}', load: {connections: '${CONNECTIONS}'}}\n",
    );
    assert_eq!((config.node.as_deref(), config.region.as_str()), (Some("hunter2"), "north"));
    assert_eq!((config.gateway.http.port(), config.gateway.insecure, config.gateway.load.connections), (9, true, 77));
    let told = mistake("node: a\nlog:\n  level: ${NONE}\n");
    assert!(told.starts_with("site.yaml:3:10: the environment variable `NONE` is not set"), "{told}");
    let told = mistake("region: ${file:/gone}\n");
    assert!(told.starts_with("site.yaml:1:9: cannot read /gone"), "{told}");
}

/// Scenario: secrets by variable, by file and written out, in settings that are printed and in ones that are wrong.
/// Guarantees: no printing of settings and no error shows one.
#[test]
fn secrets_are_never_printed() {
    let user =
        "node: ${TOKEN}\nlake:\n  options: {aws_secret_access_key: plain0ne, aws_session: '${file:/run/secret}'}\n";
    let loaded = load(user, Mode::Up).unwrap_or_else(|e| panic!("{e}"));
    let printed = format!("{:?}\n{}", loaded.config.lake, loaded.show().unwrap());
    for secret in ["hunter2", "plain0ne", "tr0ub4dor"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("node: ${TOKEN}") && printed.contains("***"), "{printed}");

    let kafka = "bus:\n  type: kafka\n  properties: {sasl.username: u, sasl.password: '${TOKEN}', ssl.key.password: plain0ne}\n";
    let loaded = load(kafka, Mode::Role).unwrap_or_else(|e| panic!("{e}"));
    let printed = format!("{:?}\n{}", loaded.config.bus, loaded.show().unwrap());
    assert!(!printed.contains("hunter2") && !printed.contains("plain0ne"), "{printed}");

    for user in ["gateway: {http: '${TOKEN}'}\n", "processor: {threads: '${TOKEN}'}\n", "log: {format: '${TOKEN}'}\n"] {
        let told = mistake(user);
        assert!(!told.contains("hunter2") && told.contains("site.yaml:1:"), "{told}");
    }
    let input = "gateway: {kafka_in: [{brokers: a, topic: t, format: ndjson, group: g, properties: {sasl.password: plain0ne}}]}\n";
    let loaded = load(input, Mode::Up).unwrap_or_else(|e| panic!("{e}"));
    let printed = format!("{:?}\n{}", loaded.config.gateway, loaded.show().unwrap());
    assert!(!printed.contains("plain0ne") && printed.contains("***"), "{printed}");
    let mixed = mistake("gateway: {tick: '${TOKEN}', http: x}\n");
    assert!(!mixed.contains("hunter2"), "{mixed}");
}

/// Scenario: a file that fills some keys of a section, leaves one section empty and replaces a list.
#[test]
fn a_file_holds_only_what_differs() {
    let config = config("agent:\n  links_ignored: []\n  scrape: {timeout: 3s}\nprocessor:\nnode: edge-1\n");
    assert!(config.agent.links_ignored.is_empty());
    assert_eq!((config.agent.scrape.timeout, config.agent.scrape.interval), (duration("3s"), duration("15s")));
    assert_eq!(config.processor.commit.interval, duration("60s"));
    assert_eq!(config.node_name().unwrap(), "edge-1");
    let empty = load("", Mode::Up).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!(empty.processor.commit.interval, duration("15s"));
}

/// Scenario: `--data` beside a file that names other folders.
/// Guarantees: the command line wins, for log and lake.
#[test]
fn the_data_folder_of_the_command_line_wins() {
    let user = Some(("site.yaml", "lake: {path: /elsewhere}\n"));
    let config =
        load_text(user, Mode::Up, Some(Path::new("/tmp/d")), &SOURCES).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!(config.lake.path, "/tmp/d/lake");
    let BusSettings::Local(log) = config.bus else { panic!("local") };
    assert_eq!(serde_json::to_value(&log).unwrap()["path"], "/tmp/d/log");
}

/// Scenario: the example files beside the defaults.
/// Guarantees: each is accepted as it stands.
#[test]
fn example_files_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples");
    let variable = |name: &str| Some(format!("value-of-{name}"));
    let sources = Sources { variable: &variable, file: &|_| Ok("text\n".to_owned()) };
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        load_text(Some((&name, &text)), Mode::Role, None, &sources).map(|_| ()).unwrap_or_else(|e| panic!("{e}"));
        seen += 1;
    }
    assert!(seen >= 4, "examples in {}", folder.display());
}

/// Scenario: the bus section without a type.
#[test]
fn a_bus_needs_a_type() {
    let node = Node::read("x.yaml", "path: a\n", 0, &SOURCES).unwrap_or_else(|e| panic!("{e}"));
    assert!(bus_settings(&node).unwrap_err().to_string().contains("type"));
    assert!(read::<Vec<String>>(&node).unwrap_err().to_string().contains("a list"));
    assert!(Defaults::read(&SOURCES).is_ok());
}

/// Scenario: values that are well written but cannot work, in the user's file, in an overlay's place, and out of a variable.
/// Guarantees: each is refused with its full name and place; a value out of `${…}` is not shown.
#[test]
fn values_that_cannot_work_are_refused_at_their_place() {
    for (text, told) in [
        ("gateway:\n  tick: 0s\n", "site.yaml:2:9: gateway.tick: must be more than zero"),
        ("processor:\n  commit:\n    interval: 0s\n", "site.yaml:3:15: processor.commit.interval: "),
        ("processor: {retention_every: 0s}\n", "site.yaml:1:30: processor.retention_every: "),
        ("processor: {commit: {retry_min: 31s}}\n", "processor.commit.retry_min: must not be over"),
        ("agent: {host: {interval: 0s}}\n", "site.yaml:1:26: agent.host.interval: "),
        ("agent: {queue: {bytes: 0}}\n", "site.yaml:1:24: agent.queue.bytes: must not be zero"),
        (
            "agent:\n  targets:\n    - {name: a, url: 'http://a', interval: 0s}\n",
            "site.yaml:3:44: agent.targets.0.interval: ",
        ),
        ("lake: {compaction: {target_bytes: 127MiB}}\n", "lake.compaction.target_bytes: must be 128MiB to 512MiB"),
        ("lake: {compaction: {target_bytes: 513MiB}}\n", "lake.compaction.target_bytes: must be 128MiB to 512MiB"),
        ("admin: {listen: '0.0.0.0:1'}\n", "site.yaml:1:17: admin.listen: "),
        ("inventory: {reload: 0s}\n", "site.yaml:1:21: inventory.reload: "),
        (
            "gateway:\n  kafka_in:\n    - {brokers: a, topic: airan.rejected, format: ndjson, group: g}\nbus: {type: kafka}\n",
            "site.yaml:3:27: gateway.kafka_in.0.topic: `airan.rejected` is a topic of the bus itself",
        ),
        (
            "gateway:\n  kafka_in:\n    - {brokers: a, topic: t, format: ndjson, group: airan}\nbus: {type: kafka, brokers: a}\n",
            "gateway.kafka_in.0.group: `airan` is the group of the processors on these brokers",
        ),
        (
            "gateway:\n  kafka_in:\n    - {brokers: a, topic: t, format: ndjson, group: g, properties: {acks: 1}}\n",
            "site.yaml:3:7: gateway.kafka_in.0: properties: `acks` cannot be set",
        ),
        ("gateway: {kafka_in: [{brokers: a, topic: t, format: xml, group: g}]}\n", "unknown value `xml`"),
        (
            "gateway: {gather: {message_bytes: 1KiB}}\n",
            "gateway.gather.bytes: must not be over gateway.gather.message_bytes",
        ),
    ] {
        let error = mistake(text);
        assert!(error.contains(told), "{error} says {told}");
    }
}
