//! `airan tap STREAM`: rows of a stream as they come onto the bus, a JSON object a line.
//!
//! Reads the bus from the side, as `airan lag` does: no consumer group is joined, no lock is taken, nothing is reported back, so
//! no shard moves, waits or rebalances. What it costs is what another reader of the same messages costs: on the local log, pages
//! of files that have just been written; on Kafka, a fetch of each partition that has something new, at most once a second; with
//! `--site` of one partition alone. Where more comes than it may read, it leaves rows out and says how many messages that were.

use std::io::Write;
use std::time::Duration;

use airan_bus::{Reader, Received};
use airan_model::identity::partition_of;
use airan_model::message::Message;
use airan_model::schema::{NODE, SITE};
use airan_model::settings::DurationSetting;
use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cli::Settings;
use crate::wiring;

/// How often the bus is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Most messages of one partition in one look, each of them 256 KiB or so. Over it the oldest are left out.
const MESSAGES_MAX: usize = 64;

/// Longest time to wait where none is given: far beyond anybody's patience, and still an end.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Arguments of `airan tap`.
#[derive(Debug, clap::Args)]
pub struct TapArgs {
    /// The stream, as `airan catalog` lists them
    stream: String,
    /// Rows of this site alone
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// Rows of this node alone
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// End after this many rows; fewer within --timeout is a failure
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// End after this time [default: at Ctrl-C]
    #[arg(long, value_name = "SPAN")]
    timeout: Option<DurationSetting>,
    #[command(flatten)]
    settings: Settings,
}

/// Runs it.
pub async fn run(args: TapArgs) -> Result<()> {
    let config = args.settings.load()?.config;
    let catalog = wiring::load_catalog(&config)?;
    if catalog.stream(&args.stream).is_none() {
        let known: Vec<&str> = catalog.streams().map(|stream| &*stream.name).collect();
        bail!("there is no stream `{}`; there are: {}", args.stream, known.join(", "));
    }
    let reader = Reader::open(&config.bus).context("cannot look at the bus")?;
    let end = Instant::now() + args.timeout.map_or(LONGEST, DurationSetting::get).min(LONGEST);
    let mut tap = Tap { args: &args, printed: 0, left_out: 0 };
    let outcome = timeout_at(end, tap.follow(&reader)).await;
    if tap.left_out > 0 {
        eprintln!("{} messages were left out: more came than is read", tap.left_out);
    }
    match outcome {
        Ok(done) => done,
        Err(_) => match args.count {
            Some(count) => {
                bail!("{} rows of {count} came within {:?}", tap.printed, args.timeout.unwrap_or(LONGEST.into()).get())
            }
            None => Ok(()),
        },
    }
}

struct Tap<'a> {
    args: &'a TapArgs,
    printed: usize,
    left_out: u64,
}

impl Tap<'_> {
    /// Prints what comes from now on, until there is enough.
    ///
    /// Cancellation: may be dropped at any await; rows are printed whole.
    async fn follow(&mut self, reader: &Reader) -> Result<()> {
        // All rows of a site are in one partition.
        let partitions = match &self.args.site {
            Some(site) => {
                let partition = partition_of(site, reader.partitions());
                partition..partition + 1
            }
            None => 0..reader.partitions(),
        };
        let mut next = Vec::new();
        for partition in partitions {
            next.push((partition, reader.offsets(partition).await.context("cannot look at the bus")?.1));
        }
        loop {
            let look = Instant::now();
            for (partition, from) in &mut next {
                let partition = *partition;
                let (_, end) = reader.offsets(partition).await.context("cannot look at the bus")?;
                let newest = end.saturating_sub(MESSAGES_MAX as i64);
                if *from < newest {
                    self.left_out += newest.abs_diff(*from);
                    *from = newest;
                }
                if *from >= end {
                    continue;
                }
                let messages =
                    reader.messages(partition, *from, MESSAGES_MAX).await.context("cannot look at the bus")?;
                *from = messages.last().map_or(*from, |message| message.offset + 1);
                for message in &messages {
                    self.print(message)?;
                    if self.args.count.is_some_and(|count| self.printed >= count) {
                        return Ok(());
                    }
                }
            }
            sleep_until(look + LOOK_EVERY).await;
        }
    }

    fn print(&mut self, received: &Received) -> Result<()> {
        let Message::Rows(rows) = &received.message else { return Ok(()) };
        if *rows.stream != *self.args.stream {
            return Ok(());
        }
        let Ok(batch) = rows.decode() else {
            eprintln!("partition {}, offset {}: not to be read", received.partition, received.offset);
            return Ok(());
        };
        let mut batch = wanted(&batch, &[(SITE, self.args.site.as_deref()), (NODE, self.args.node.as_deref())])?;
        if let Some(count) = self.args.count {
            batch = batch.slice(0, batch.num_rows().min(count - self.printed));
        }
        self.printed += batch.num_rows();
        let mut out = std::io::stdout().lock();
        let mut lines = arrow::json::LineDelimitedWriter::new(&mut out);
        lines.write(&batch)?;
        lines.finish()?;
        drop(lines);
        Ok(out.flush()?)
    }
}

/// The rows whose columns have these values. A column the message lacks has no value.
fn wanted(batch: &RecordBatch, filters: &[(&str, Option<&str>)]) -> Result<RecordBatch> {
    let mut batch = batch.clone();
    for (name, value) in filters {
        let Some(value) = value else { continue };
        let keep: BooleanArray = match batch.column_by_name(name) {
            Some(column) => {
                let texts = cast(column, &DataType::Utf8)?;
                let texts = texts.as_string::<i32>();
                (0..texts.len()).map(|row| Some(texts.is_valid(row) && texts.value(row) == *value)).collect()
            }
            None => std::iter::repeat_n(Some(false), batch.num_rows()).collect(),
        };
        batch = filter_record_batch(&batch, &keep)?;
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn rows_are_kept_by_site_and_node() {
        let texts = |texts: &[Option<&str>]| Arc::new(texts.iter().copied().collect::<StringArray>()) as ArrayRef;
        let columns = [
            (SITE, texts(&[Some("a"), Some("a"), Some("b"), None])),
            (NODE, texts(&[Some("1"), Some("2"), Some("1"), Some("1")])),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        for (site, node, rows) in [
            (None, None, 4),
            (Some("a"), None, 2),
            (Some("a"), Some("1"), 1),
            (None, Some("1"), 3),
            (Some("c"), None, 0),
        ] {
            assert_eq!(wanted(&batch, &[(SITE, site), (NODE, node)]).unwrap().num_rows(), rows, "{site:?} {node:?}");
        }
        let without = batch.project(&[1]).unwrap();
        assert_eq!(wanted(&without, &[(SITE, Some("a"))]).unwrap().num_rows(), 0);
    }
}
