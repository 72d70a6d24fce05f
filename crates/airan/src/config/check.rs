//! Settings that are well written but with which a role could not work: refused where they stand, before anything starts.

use airan_bus::BusSettings;
use airan_model::Place;
use airan_model::settings::{BadSetting, Checker};

use super::tree::{Node, Value};
use super::{Config, ConfigError};

/// Checks every section that has rules.
pub(super) fn check(config: &Config, tree: &Node) -> Result<(), ConfigError> {
    let of_the_binary = || Checker::new("inventory").timer("reload", config.inventory.reload).finish();
    let checked = (config.gateway.check())
        .and_then(|()| no_topic_is_ours(config))
        .and_then(|()| config.processor.check())
        .and_then(|()| config.lake.check())
        .and_then(|()| config.agent.check())
        .and_then(|()| config.admin.check())
        .and_then(|()| of_the_binary());
    checked.map_err(|bad| at_its_place(bad, tree))
}

/// A topic of the bus among those of others would be read in a circle: what is refused of it is recorded in it again.
fn no_topic_is_ours(config: &Config) -> Result<(), BadSetting> {
    let BusSettings::Kafka(bus) = &config.bus else { return Ok(()) };
    let mut check = Checker::new("gateway");
    for (index, input) in config.gateway.kafka_in.iter().enumerate() {
        let is_ours = bus.owns(&input.topic);
        let problem =
            format!("`{}` is a topic of the bus itself: topics that others write are wanted here", input.topic);
        check.require(&format!("kafka_in.{index}.topic"), !is_ours, &problem);
        // One group over both topics would be rebalanced, processors and all, whenever a gateway comes or goes.
        let is_theirs = bus.brokers == input.brokers && bus.group() == input.group;
        let problem =
            format!("`{}` is the group of the processors on these brokers: another is wanted here", input.group);
        check.require(&format!("kafka_in.{index}.group"), !is_theirs, &problem);
    }
    check.finish()
}

/// The error with the place of the value; what came out of `${…}` is not shown.
fn at_its_place(bad: BadSetting, tree: &Node) -> ConfigError {
    let mut message = bad.to_string();
    let node = node_of(tree, &bad.key);
    if let Some(hidden) = node.and_then(Node::hidden).filter(|text| !text.is_empty()) {
        message = message.replace(hidden, "***");
    }
    let place: Option<Place> = node.map(|node| node.place.clone());
    ConfigError { place, message }
}

/// The value under a full name; items of lists are named by their number.
fn node_of<'a>(tree: &'a Node, key: &str) -> Option<&'a Node> {
    key.split('.').try_fold(tree, |node, part| match &node.value {
        Value::List(items) => items.get(part.parse::<usize>().ok()?),
        _ => node.get(part),
    })
}
