//! What senders send in a simulation, and what must come of it.

use std::collections::BTreeMap;

use airan_bus::Received;
use airan_model::catalog::Catalog;

use super::dice::Dice;
use crate::testing::messages;

/// Width of the windows of pipeline `meters`, seconds.
const WINDOW: i64 = 10;

/// A row as it must be stored: node, number.
pub(crate) type RowKey = (String, i64);

/// A window of `meters`: start in seconds, site, node.
pub(crate) type WindowKey = (i64, String, String);

/// Readings, their sum, the highest.
pub(crate) type WindowValue = (i64, i64, i64);

/// One partition's messages, in the order of their offsets.
#[derive(Default)]
pub(crate) struct Load {
    pub messages: Vec<Received>,
    /// Rows as sent, those sent twice counted twice.
    pub sent: u64,
    /// Every row that must be stored, with its level.
    pub rows: BTreeMap<RowKey, i64>,
    pub windows: BTreeMap<WindowKey, WindowValue>,
}

/// Some nodes of one site, each with a row a second for some seconds; now and then a message is sent again, a tick comes between,
/// or a node falls back a few seconds. The last messages are ticks, long after, by which every window is closed.
pub(crate) fn load(catalog: &Catalog, partition: usize, dice: &mut Dice) -> Load {
    let site = format!("s{partition}");
    let mut load = Load::default();
    let mut lines = String::new();
    let nodes = 1 + dice.below(3) as i64;
    let seconds = 20 + dice.below(40) as i64;
    let mut sent_before: Vec<String> = Vec::new();
    let mut seq = vec![0i64; nodes as usize];
    for second in 0..seconds {
        for node in 0..nodes {
            if dice.one_in(6) {
                continue;
            }
            let name = format!("n{partition}{node}");
            let behind = if dice.one_in(5) { dice.below(4) as i64 } else { 0 };
            let ts = (second - behind).max(0);
            let number = seq[node as usize];
            seq[node as usize] += 1;
            let level = dice.below(1_000) as i64;
            let line = format!(
                "{{\"stream\": \"meter\", \"node\": \"{name}\", \"site\": \"{site}\", \"region\": \"r\", \"part\": \"x\", \
                 \"ts\": \"@{ts}\", \"append_time\": \"@{}\", \"level\": {level}, \"total\": {}, \"batch\": \"{:032x}\", \
                 \"seq\": {number}}}\n",
                second + 1,
                second * 10 + node,
                (partition + 1) * 100 + node as usize,
            );
            load.sent += 1;
            load.rows.insert((name.clone(), number), level);
            let window = load.windows.entry((ts.div_euclid(WINDOW) * WINDOW, site.clone(), name)).or_default();
            *window = (window.0 + 1, window.1 + level, window.2.max(level));
            lines.push_str(&line);
            sent_before.push(line);
        }
        if dice.one_in(4) && !sent_before.is_empty() {
            let again = &sent_before[dice.below(sent_before.len() as u64) as usize];
            // With the append time of now.
            let (head, tail) = again.split_once("\"append_time\": \"@").unwrap();
            let tail = tail.split_once('"').unwrap().1;
            lines.push_str(&format!("{head}\"append_time\": \"@{}\"{tail}", second + 1));
            load.sent += 1;
        }
        if dice.one_in(8) {
            lines.push_str(&format!("{{\"tick\": \"@{}\"}}\n", second + 1));
        }
    }
    for minute in 1..=5 {
        lines.push_str(&format!("{{\"tick\": \"@{}\"}}\n", seconds + minute * 60));
    }
    load.messages = messages(catalog, &lines);
    load
}
