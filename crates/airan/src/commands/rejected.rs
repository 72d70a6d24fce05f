//! `airan rejected`: what was refused, and sending again what can be sent again.
//!
//! Each refusal leaves a record, which says what was refused and never what it held. The bytes themselves are kept in one place
//! only: a message that a processor could not read still lies on the bus, until the topic's retention takes it. Such a message
//! can be replayed, once this release reads it: it goes to the end of its own partition as it is, with the identities of its
//! rows, so a row that was stored meanwhile is known as a duplicate. What a door refused is in its sender's hands alone.
//!
//! A replay is recorded in the same topic, so a second one leaves out what was sent; only a crash between the two sends a message
//! again, which its identities make harmless within the processor's memory of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use airan_bus::{Bus, Reader, Received, RejectedRecord};
use airan_model::catalog::Catalog;
use airan_model::message::{Message, Rows};
use airan_model::reject::{Reason, Rejected};
use airan_model::time::{Clock, Micros, format_rfc3339, parse_rfc3339};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cli::{Printed, Settings};
use crate::config::Config;
use crate::output::{Format, Listing};
use crate::progress::{self, Progress};
use crate::wiring;

/// The door in the record of a replay.
const REPLAY: &str = "replay";
/// The door of what a processor refused.
const BUS: &str = "bus";
/// How much of a message is shown.
const SHOWN: usize = 512;

/// Subcommands of `airan rejected`.
#[derive(Debug, clap::Subcommand)]
pub enum RejectedCommand {
    /// Lists what was refused, newest last: when, at which door, why, whose, how much, where in it
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        printed: Printed,
    },
    /// Shows one record, and its message where the bus still has it
    Show {
        /// The record's number, as in the list
        id: i64,
        #[command(flatten)]
        settings: Settings,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Sends messages again that a processor could not read and now can, as after an upgrade
    ///
    /// They go to the end of their partition with the identities their rows had, so rows that were stored meanwhile are known as
    /// duplicates; what was replayed before is left out. What a door refused cannot be replayed: its bytes are not kept, its
    /// sender has to send it again. On the local log `airan up` must not be running.
    Replay {
        /// Records to replay, by number; without any, those that --reason and --since name
        ids: Vec<i64>,
        #[command(flatten)]
        which: Which,
        /// Longest time for all of it, in seconds
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        within: u64,
        #[command(flatten)]
        settings: Settings,
    },
}

/// Which records.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Refused for this reason: malformed, unknown_stream, wrong_type, foreign, …
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// Refused at or after this time (RFC 3339, as 2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Micros>,
    /// Look at this many of the newest records
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    last: usize,
}

fn reason(text: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| format!("one of {}", known()))
}

fn time(text: &str) -> Result<Micros, String> {
    parse_rfc3339(text).ok_or_else(|| "a time as 2026-01-31T12:00:00Z is wanted".to_owned())
}

/// A record with its number.
struct Entry {
    id: i64,
    rejected: Rejected,
}

impl Entry {
    /// The partition and offset of the message it tells of.
    fn place(&self) -> Option<(i32, i64)> {
        if self.rejected.door != BUS {
            return None;
        }
        let (partition, offset) = self.rejected.position.as_ref()?.split_once('/')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    }

    fn is_replay(&self) -> bool {
        self.rejected.door == REPLAY
    }
}

impl Which {
    fn takes(&self, entry: &Entry) -> bool {
        self.reason.is_none_or(|reason| entry.rejected.reason == reason)
            && self.since.is_none_or(|since| entry.rejected.at >= since)
    }
}

/// The records that were read: refusals, and which of them were replayed.
struct Records {
    entries: Vec<Entry>,
    replayed: BTreeSet<i64>,
    unreadable: usize,
}

impl Records {
    fn of(records: Vec<RejectedRecord>) -> Records {
        let count = records.len();
        let entries: Vec<Entry> = records
            .into_iter()
            .filter_map(|record| Some(Entry { id: record.offset, rejected: Rejected::from_json(&record.record)? }))
            .collect();
        let unreadable = count - entries.len();
        let (replays, entries): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_replay);
        let replayed = replays.iter().filter_map(|entry| entry.rejected.position.as_ref()?.parse().ok()).collect();
        Records { entries, replayed, unreadable }
    }

    async fn read(reader: &Reader, last: usize) -> Result<Records> {
        let records = reader.rejected(last).await.context("cannot read what was refused")?;
        Ok(Records::of(records))
    }
}

/// Runs one.
pub async fn run(command: RejectedCommand) -> Result<()> {
    match command {
        RejectedCommand::List { which, settings, printed } => list(&which, &settings, &printed).await,
        RejectedCommand::Show { id, settings, json } => show(id, &settings, json).await,
        RejectedCommand::Replay { ids, which, within, settings } => {
            let work = replay(&ids, &which, &settings);
            let limit = Duration::from_secs(within);
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                bail!("not done within {within} s: what was replayed is recorded, start the command again for the rest")
            })
        }
    }
}

fn open(settings: &Settings) -> Result<(Config, Reader)> {
    let config = settings.load()?.config;
    let reader = Reader::open(&config.bus).context("cannot look at the bus")?;
    Ok((config, reader))
}

async fn list(which: &Which, settings: &Settings, printed: &Printed) -> Result<()> {
    let (_, reader) = open(settings)?;
    let records = progress::during("reading the rejected topic", Records::read(&reader, which.last)).await?;
    let mut listing =
        Listing::new(&["id", "at", "door", "reason", "node", "bytes", "rows", "where", "replayed", "sha256"]);
    for entry in records.entries.iter().filter(|entry| which.takes(entry)) {
        let Rejected { door, reason, node, length, sha256, position, at, rows } = &entry.rejected;
        listing.add([
            entry.id.to_string(),
            format_rfc3339(*at),
            door.clone(),
            reason.to_string(),
            node.clone().unwrap_or_default(),
            length.to_string(),
            rows.to_string(),
            position.clone().unwrap_or_default(),
            if records.replayed.contains(&entry.id) { "yes" } else { "" }.to_owned(),
            sha256.chars().take(12).collect(),
        ]);
    }
    let mut out = std::io::stdout().lock();
    listing.print(&mut out, printed.format)?;
    if printed.format == Format::Table && listing.is_empty() {
        writeln!(out, "nothing was refused, as far as the newest {} records tell", which.last)?;
    }
    if records.unreadable > 0 {
        eprintln!("{} records are not ones that this release writes", records.unreadable);
    }
    Ok(())
}

async fn show(id: i64, settings: &Settings, as_json: bool) -> Result<()> {
    let (config, reader) = open(settings)?;
    let records =
        progress::during("reading the rejected topic", Records::read(&reader, airan_bus::REJECTED_MAX)).await?;
    let entry = find(&records, id)?;
    let mut shown = json!({
        "id": id,
        "replayed": records.replayed.contains(&id),
        "record": serde_json::from_slice::<Value>(&entry.rejected.to_json())?,
    });
    match entry.place() {
        None => shown["message"] = json!("its bytes are not kept: its sender alone has them"),
        Some((partition, offset)) => {
            match reader.message(partition, offset).await.context("cannot read the message")? {
                None => shown["message"] = json!("it is no longer on the bus"),
                Some(received) => {
                    let catalog = wiring::load_catalog(&config)?;
                    shown["message"] = message_json(&received, &catalog);
                }
            }
        }
    }
    let mut out = std::io::stdout().lock();
    match as_json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?,
        false => write_flat(&mut out, "", &shown)?,
    }
    Ok(())
}

fn find(records: &Records, id: i64) -> Result<&Entry> {
    let found = records.entries.iter().find(|entry| entry.id == id);
    found.with_context(|| format!("no record {id} among the newest {}", airan_bus::REJECTED_MAX))
}

/// Headers, and the beginning of the payload as text where it is some, else in hex.
fn message_json(received: &Received, catalog: &Catalog) -> Value {
    let headers: BTreeMap<&str, String> = received.message.headers().into_iter().collect();
    let payload = received.message.payload();
    let part = &payload[..payload.len().min(SHOWN)];
    let text =
        std::str::from_utf8(part).ok().filter(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()));
    let can_be_replayed = readable(&received.message, catalog).err();
    json!({
        "partition": received.partition,
        "offset": received.offset,
        "appended_at": format_rfc3339(received.append_time),
        "headers": headers,
        "bytes": payload.len(),
        "begins": text.map_or_else(|| hex(part), str::to_owned),
        "can_be_replayed": can_be_replayed.unwrap_or_else(|| "yes".to_owned()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line for each value.
fn write_flat(out: &mut dyn Write, name: &str, value: &Value) -> Result<()> {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                write_flat(out, &name, value)?;
            }
        }
        Value::String(text) => writeln!(out, "{name}: {text}")?,
        Value::Null => writeln!(out, "{name}:")?,
        other => writeln!(out, "{name}: {other}")?,
    }
    Ok(())
}

async fn replay(ids: &[i64], which: &Which, settings: &Settings) -> Result<()> {
    let (config, reader) = open(settings)?;
    let catalog = wiring::load_catalog(&config)?;
    let last = if ids.is_empty() { which.last } else { airan_bus::REJECTED_MAX };
    if ids.is_empty() && which.reason.is_none() && which.since.is_none() {
        bail!("which ones? name records by number, or use --reason or --since");
    }
    let records = progress::during("reading the rejected topic", Records::read(&reader, last)).await?;
    for id in ids {
        find(&records, *id)?;
    }
    let chosen = |entry: &&Entry| if ids.is_empty() { which.takes(entry) } else { ids.contains(&entry.id) };
    let mut bus = None;
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    let mut sent = (0u64, 0u64);
    let bar = Progress::of("records", records.entries.iter().filter(chosen).count() as u64);
    for entry in records.entries.iter().filter(chosen) {
        bar.add(1);
        match fetch(&reader, entry, &records, &catalog).await? {
            Err(why) => *left.entry(why).or_default() += 1,
            Ok((partition, rows)) => {
                let bus = match &bus {
                    Some(bus) => bus,
                    None => bus.insert(open_to_send(&config).await?),
                };
                let count = rows.rows;
                send(&**bus, entry, partition, rows).await?;
                sent = (sent.0 + 1, sent.1 + count);
            }
        }
    }
    drop(bar);
    println!("{} messages with {} rows sent again", sent.0, sent.1);
    for (why, count) in &left {
        println!("{count} not sent: {why}");
    }
    if sent.0 == 0 && !left.is_empty() {
        bail!("nothing could be sent again");
    }
    Ok(())
}

/// The message of a record, if it can be sent again; otherwise why not.
async fn fetch(
    reader: &Reader,
    entry: &Entry,
    records: &Records,
    catalog: &Catalog,
) -> Result<Result<(i32, Rows), String>> {
    if records.replayed.contains(&entry.id) {
        return Ok(Err("sent again before".to_owned()));
    }
    let Some((partition, offset)) = entry.place() else {
        return Ok(Err("refused at a door, where bytes are not kept: its sender has to send it again".to_owned()));
    };
    let Some(received) = reader.message(partition, offset).await.context("cannot read the message")? else {
        return Ok(Err("no longer on the bus".to_owned()));
    };
    if let Err(why) = readable(&received.message, catalog) {
        return Ok(Err(why));
    }
    match received.message {
        Message::Rows(rows) => Ok(Ok((partition, rows))),
        _ => Ok(Err("not a message of rows".to_owned())),
    }
}

/// Whether a processor of this release and catalog takes the message; otherwise why not.
fn readable(message: &Message, catalog: &Catalog) -> Result<(), String> {
    match message {
        Message::Rows(rows) => airan_processor::can_read(catalog, rows),
        Message::Tick => Err("a tick holds no rows".to_owned()),
        Message::Foreign { reason, .. } => Err(format!("not a message of airan's: {reason}")),
    }
}

async fn open_to_send(config: &Config) -> Result<std::sync::Arc<dyn Bus>> {
    airan_bus::open(&config.bus, Clock::system()).await.context("cannot send to the bus (is `airan up` running?)")
}

/// Sends the message, then records that it was sent.
async fn send(bus: &dyn Bus, entry: &Entry, partition: i32, rows: Rows) -> Result<()> {
    let (id, count) = (entry.id, rows.rows);
    let offset = bus.send(partition, Message::Rows(rows)).await.with_context(|| format!("record {id} was not sent"))?;
    tracing::debug!(id, partition, offset, rows = count, "sent again");
    let mark = Rejected {
        door: REPLAY.to_owned(),
        position: Some(id.to_string()),
        at: Clock::system().now(),
        ..entry.rejected.clone()
    };
    bus.send_rejected(mark).await.with_context(|| {
        format!("record {id} was sent again, and that could not be recorded: a second replay sends it once more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, door: &str, position: &str) -> RejectedRecord {
        let rejected = Rejected {
            door: door.to_owned(),
            reason: Reason::UnknownStream,
            node: None,
            length: 9,
            sha256: "ab".to_owned(),
            position: Some(position.to_owned()),
            at: offset * 1_000_000,
            rows: 3,
        };
        RejectedRecord { offset, append_time: 0, record: rejected.to_json().into() }
    }

    /// Scenario: refusals of a processor and of a door, one of them replayed, and a record of another kind.
    /// Guarantees: a replay marks its refusal and is none itself; only what a processor refused has a message; filters hold.
    #[test]
    fn records_are_told_apart() {
        let strange = RejectedRecord { offset: 4, append_time: 0, record: b"{}".to_vec().into() };
        let records = Records::of(vec![
            record(0, "bus", "3/41"),
            record(1, "ndjson", "line 7"),
            record(2, "bus", "x"),
            record(3, "replay", "0"),
            strange,
        ]);
        let places: Vec<_> = records.entries.iter().map(|entry| (entry.id, entry.place())).collect();
        assert_eq!(places, [(0, Some((3, 41))), (1, None), (2, None)]);
        assert_eq!((records.replayed.iter().copied().collect::<Vec<_>>(), records.unreadable), (vec![0], 1));
        let which = |reason, since| Which { reason, since, last: 10 };
        let taken = |which: &Which| records.entries.iter().filter(|entry| which.takes(entry)).count();
        assert_eq!(taken(&which(None, Some(1_000_000))), 2);
        assert_eq!(taken(&which(Some(Reason::Foreign), None)), 0);
        assert!(reason("no_reason").is_err() && reason("foreign").is_ok() && time("yesterday").is_err());
        assert!(find(&records, 3).is_err(), "a replay is no refusal");
    }
}
