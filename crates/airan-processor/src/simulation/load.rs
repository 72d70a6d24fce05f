//! What senders send in a simulation, and what must come of it.

use std::collections::BTreeMap;

use airan_bus::Received;
use airan_model::catalog::Catalog;
use airan_model::identity::partition_of;
use airan_model::message::{Message, Rows};
use bytes::Bytes;

use super::PARTITIONS;
use crate::dice::Dice;
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
    /// Of those, rows of messages that nobody can read.
    pub unreadable: u64,
    /// Every row that must be stored, with its level.
    pub rows: BTreeMap<RowKey, i64>,
    pub windows: BTreeMap<WindowKey, WindowValue>,
}

impl Load {
    /// What is left when the rows of a node have been erased.
    pub(crate) fn erase(&mut self, node: &str) {
        self.rows.retain(|(of, _), _| of != node);
        self.windows.retain(|(_, _, of), _| of != node);
    }
}

/// A site that belongs to a partition.
fn site_of(partition: usize) -> String {
    let mut names = (0..).map(|number| format!("s{partition}{number}"));
    names.find(|name| partition_of(name, PARTITIONS as i32) == partition as i32).unwrap()
}

/// A tick each ten seconds for an hour, after everything that [`load`] makes.
pub(crate) fn ticks(catalog: &Catalog) -> Vec<Received> {
    let lines: String = (0..=360).map(|tick| format!("{{\"tick\": \"@{}\"}}\n", 7_200 + tick * 10)).collect();
    messages(catalog, &lines)
}

/// How long a row is on its way, seconds: mostly none; past the lateness now and then, and sometimes so long that it neither
/// holds nor moves the watermark.
fn delay(dice: &mut Dice) -> i64 {
    match dice.below(20) {
        0 => 10 + dice.below(60) as i64,
        1 => 130 + dice.below(300) as i64,
        _ => 0,
    }
}

/// Some nodes of one site, each with a row a second for some seconds; now and then a message is sent again, a tick comes between,
/// a node falls back a few seconds, a row comes minutes late, when its window is long closed, or a message comes that nobody can
/// read. The last messages are ticks, long after, by which every window is closed and every gap has rested.
pub(crate) fn load(catalog: &Catalog, partition: usize, dice: &mut Dice) -> Load {
    let site = site_of(partition);
    let mut load = Load::default();
    // Lines by the second they are appended at; those of one second as they come.
    let mut lines: BTreeMap<i64, String> = BTreeMap::new();
    let nodes = 1 + dice.below(3) as i64;
    let seconds = 20 + dice.below(40) as i64;
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
            let of = (partition + 1) * 100 + node as usize;
            let line = |append: i64| {
                format!(
                    "{{\"stream\": \"meter\", \"node\": \"{name}\", \"site\": \"{site}\", \"region\": \"r\", \"part\": \"x\", \
                     \"ts\": \"@{ts}\", \"append_time\": \"@{append}\", \"level\": {level}, \"total\": {}, \"batch\": \"{of:032x}\", \
                     \"seq\": {number}}}\n",
                    second * 10 + node,
                )
            };
            load.sent += 1;
            load.rows.insert((name.clone(), number), level);
            let window = load.windows.entry((ts.div_euclid(WINDOW) * WINDOW, site.clone(), name.clone())).or_default();
            *window = (window.0 + 1, window.1 + level, window.2.max(level));
            let append = second + 1 + delay(dice);
            *lines.entry(append).or_default() += &line(append);
            // Its sender missed the answer, or found the wait too long: the copy may overtake it.
            if dice.one_in(8) {
                let append = second + 1 + dice.below(60) as i64;
                *lines.entry(append).or_default() += &line(append);
                load.sent += 1;
            }
        }
        if dice.one_in(8) {
            *lines.entry(second + 1).or_default() += &format!("{{\"tick\": \"@{}\"}}\n", second + 1);
        }
    }
    let end = lines.last_key_value().map_or(0, |(second, _)| *second);
    for minute in 1..=15 {
        let at = end + minute * 60;
        *lines.entry(at).or_default() += &format!("{{\"tick\": \"@{at}\"}}\n");
    }
    let lines: String = lines.into_values().collect();
    for message in messages(catalog, &lines) {
        if dice.one_in(15) {
            let rows = 1 + dice.below(3);
            load.sent += rows;
            load.unreadable += rows;
            load.messages.push(Received { message: unreadable(rows, dice), ..message.clone() });
        }
        load.messages.push(message);
    }
    load
}

/// Rows of a stream that is not in the catalog, or of one that is, torn.
fn unreadable(rows: u64, dice: &mut Dice) -> Message {
    let stream = if dice.one_in(2) { "nobody" } else { "meter" };
    Message::Rows(Rows { stream: stream.into(), schema: 0, rows, payload: Bytes::from_static(b"no rows") })
}
