//! How far time has come in one partition of the log: the watermark of each stream.
//!
//! ```text
//! watermark = min over live nodes of their newest time          while there are any
//!           = newest append time - 60 s                         else
//! ```
//!
//! A node is live in a stream as long as the append time of its last message lies within max(60 s, 3 × the stream's period)
//! of the partition's newest. The lateness of a pipeline is for the caller to take off. Rows are told message by message: the
//! watermark is that of the end of a message, and a message's own rows count before anybody goes idle by it.
//!
//! Keeps its part of **W3**: what comes out is a function of the messages alone, in the order of their offsets. Nothing here
//! reads a clock, how often anyone asks changes nothing, and nodes that no longer matter are forgotten without a trace in
//! any answer. A watermark never goes back; so what was reached is part of the state, see [`PartitionTime::reached`].

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::time::{MINUTE, Micros};
use foldhash::fast::RandomState;

/// A node is idle when its last message is longer ago than this, and than [`IDLE_PERIODS`] (DESIGN section 11).
const IDLE_AFTER: Micros = MINUTE;

/// A node is idle when this many periods of its stream went by without a message of it, and [`IDLE_AFTER`].
const IDLE_PERIODS: Micros = 3;

/// How far a stream without live nodes stays behind the log: as long as a node that falls silent could hold it.
const SILENT_BEHIND: Micros = MINUTE;

/// Nodes that are always kept: below it, looking for those to forget costs more than it saves.
const KEPT: usize = 64;

/// Before the first message, and before anything was reached.
const NEVER: Micros = Micros::MIN;

/// The times of one partition's streams.
#[derive(Clone, Debug)]
pub struct PartitionTime {
    /// Append time of the newest message, or of the last before a restart; [`NEVER`] before the first.
    log_time: Micros,
    streams: Vec<StreamTime>,
    by_name: HashMap<Arc<str>, usize, RandomState>,
}

/// One node of one stream, as it is written to the shard state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeClock {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Name of the node.
    pub node: Arc<str>,
    /// Its newest event time.
    pub newest: Micros,
    /// Append time of its last message.
    pub seen: Micros,
}

#[derive(Clone, Debug)]
struct StreamTime {
    name: Arc<str>,
    idle_after: Micros,
    by_node: HashMap<Arc<str>, usize, RandomState>,
    nodes: Vec<Arc<str>>,
    /// One of each of `nodes`, apart from the names, because they are read from end to end.
    readings: Vec<Reading>,
    /// The greatest watermark at the end of any message before the present one.
    reached: Micros,
    /// Place of the live node with the least newest time, where known.
    slowest: Slowest,
    /// Nodes to be looked through for those to forget, once there are as many.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    newest: Micros,
    seen: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slowest {
    /// To be looked for.
    Unknown,
    /// No node is live.
    Nobody,
    /// The node there.
    At(usize),
}

impl PartitionTime {
    /// Times of streams, given with the periods at which their sources usually report. No node has been seen.
    pub fn new(periods: impl IntoIterator<Item = (Arc<str>, Micros)>) -> PartitionTime {
        let streams: Vec<StreamTime> =
            periods.into_iter().map(|(name, period)| StreamTime::new(name, period)).collect();
        let by_name = streams.iter().enumerate().map(|(index, stream)| (Arc::clone(&stream.name), index)).collect();
        PartitionTime { log_time: NEVER, streams, by_name }
    }

    /// The next message begins, appended at `append_time`; a tick is a message without rows. Time never goes back.
    pub fn observe_message(&mut self, append_time: Micros) {
        let before = self.log_time;
        self.log_time = before.max(append_time);
        for stream in &mut self.streams {
            if before != NEVER {
                stream.settle(before);
            }
            stream.move_to(self.log_time);
        }
    }

    /// The message has rows of a node, the newest of them at `newest`; or, after a restart, that is what the state says.
    ///
    /// `seen` is the append time of the message. Rows of a stream that is not known change nothing.
    pub fn observe_rows(&mut self, stream: &str, node: &str, newest: Micros, seen: Micros) {
        if let Some(&index) = self.by_name.get(stream) {
            self.streams[index].observe(node, Reading { newest, seen }, self.log_time);
        }
    }

    /// The watermark of a stream, no lateness taken off. None before the first message, and for a stream that is not known.
    pub fn watermark(&self, stream: &str) -> Option<Micros> {
        let stream = &self.streams[*self.by_name.get(stream)?];
        (self.log_time != NEVER).then(|| stream.watermark(self.log_time))
    }

    /// Whether any node of the stream is live. Where none is, the watermark goes with the log and says nothing of how far anybody is.
    pub fn is_live(&self, stream: &str) -> bool {
        let stream = self.by_name.get(stream).map(|index| &self.streams[*index]);
        stream.is_some_and(|stream| match stream.slowest {
            Slowest::At(_) => true,
            Slowest::Nobody => false,
            Slowest::Unknown => stream.find_slowest(self.log_time) != Slowest::Nobody,
        })
    }

    /// What has to be told to [`PartitionTime::observe_rows`] after a restart, sorted by stream and node.
    pub fn rows(&self) -> Vec<NodeClock> {
        let clocks = self.streams.iter().flat_map(|stream| {
            stream.nodes.iter().zip(&stream.readings).map(|(node, reading)| NodeClock {
                stream: Arc::clone(&stream.name),
                node: Arc::clone(node),
                newest: reading.newest,
                seen: reading.seen,
            })
        });
        let mut clocks: Vec<NodeClock> = clocks.collect();
        clocks.sort_unstable();
        clocks
    }

    /// The watermarks that were reached, by stream: with [`PartitionTime::rows`] and the newest append time all that there is
    /// to remember. Without them a node that came back with older times would pull a watermark back across a restart.
    pub fn reached(&self) -> impl Iterator<Item = (&Arc<str>, Micros)> {
        let log_time = self.log_time;
        let known = self.streams.iter().filter(move |_| log_time != NEVER);
        known.map(move |stream| (&stream.name, stream.watermark(log_time)))
    }

    /// After a restart: the watermark of a stream had come that far, and does not go back behind it.
    pub fn restore_reached(&mut self, stream: &str, reached: Micros) {
        if let Some(&index) = self.by_name.get(stream) {
            let stream = &mut self.streams[index];
            stream.reached = stream.reached.max(reached);
        }
    }

    /// Nodes that are remembered, of all streams.
    pub fn nodes(&self) -> usize {
        self.streams.iter().map(|stream| stream.nodes.len()).sum()
    }
}

impl StreamTime {
    fn new(name: Arc<str>, period: Micros) -> StreamTime {
        StreamTime {
            name,
            idle_after: IDLE_AFTER.max(period.saturating_mul(IDLE_PERIODS)),
            by_node: HashMap::default(),
            nodes: Vec::new(),
            readings: Vec::new(),
            reached: NEVER,
            slowest: Slowest::Nobody,
            sweep_at: KEPT,
        }
    }

    fn is_live(&self, reading: Reading, log_time: Micros) -> bool {
        log_time.saturating_sub(reading.seen) <= self.idle_after
    }

    /// Called for every run of rows of one node, so it looks at this node only.
    fn observe(&mut self, node: &str, new: Reading, log_time: Micros) {
        let Some(&at) = self.by_node.get(node) else {
            self.insert(node, new, log_time);
            return;
        };
        let reading = &mut self.readings[at];
        let (was, before) = (*reading, self.slowest);
        reading.newest = was.newest.max(new.newest);
        reading.seen = was.seen.max(new.seen);
        let now = *reading;
        match before {
            Slowest::At(slowest) if slowest == at && now.newest > was.newest => self.slowest = Slowest::Unknown,
            // One that was idle is live again.
            _ if !self.is_live(was, log_time) => self.consider(at, log_time),
            _ => {}
        }
    }

    fn insert(&mut self, node: &str, reading: Reading, log_time: Micros) {
        if self.nodes.len() >= self.sweep_at {
            self.forget(log_time);
        }
        let (node, at): (Arc<str>, usize) = (node.into(), self.nodes.len());
        self.by_node.insert(Arc::clone(&node), at);
        self.nodes.push(node);
        self.readings.push(reading);
        self.consider(at, log_time);
    }

    /// A node that was not live may be the slowest now.
    fn consider(&mut self, at: usize, log_time: Micros) {
        let reading = self.readings[at];
        let is_slowest = match self.slowest {
            Slowest::Unknown => false,
            Slowest::Nobody => true,
            Slowest::At(slowest) => reading.newest < self.readings[slowest].newest,
        };
        if is_slowest && self.is_live(reading, log_time) {
            self.slowest = Slowest::At(at);
        }
    }

    /// Time has come to `log_time`, which may leave nodes idle.
    fn move_to(&mut self, log_time: Micros) {
        if let Slowest::At(at) = self.slowest
            && !self.is_live(self.readings[at], log_time)
        {
            self.slowest = Slowest::Unknown;
        }
    }

    /// A message is over: its watermark is reached, and by how far the next can be told from what is known.
    fn settle(&mut self, log_time: Micros) {
        if self.slowest == Slowest::Unknown {
            self.slowest = self.find_slowest(log_time);
        }
        self.reached = self.watermark(log_time);
    }

    fn watermark(&self, log_time: Micros) -> Micros {
        let slowest = if self.slowest == Slowest::Unknown { self.find_slowest(log_time) } else { self.slowest };
        let now = match slowest {
            Slowest::At(at) => self.readings[at].newest,
            Slowest::Nobody | Slowest::Unknown => log_time.saturating_sub(SILENT_BEHIND),
        };
        self.reached.max(now)
    }

    fn find_slowest(&self, log_time: Micros) -> Slowest {
        let live = self.readings.iter().enumerate().filter(|(_, reading)| self.is_live(**reading, log_time));
        live.min_by_key(|(_, reading)| reading.newest).map_or(Slowest::Nobody, |(at, _)| Slowest::At(at))
    }

    /// Forgets idle nodes whose newest time the watermark has passed. When such a node comes back, the older time that it
    /// would have held could only be below what was reached, which the watermark does not fall behind anyway. A node with a
    /// time ahead of the watermark stays: it must not come back with an older one.
    fn forget(&mut self, log_time: Micros) {
        let mut at = 0;
        while at < self.nodes.len() {
            let reading = self.readings[at];
            if reading.newest > self.reached || self.is_live(reading, log_time) {
                at += 1;
                continue;
            }
            self.readings.swap_remove(at);
            self.by_node.remove(&self.nodes.swap_remove(at));
            if let Some(moved) = self.nodes.get(at) {
                self.by_node.insert(Arc::clone(moved), at);
            }
        }
        self.slowest = Slowest::Unknown;
        self.sweep_at = KEPT.max(self.nodes.len() * 2);
    }
}

#[cfg(test)]
#[path = "watermark_tests.rs"]
mod tests;
