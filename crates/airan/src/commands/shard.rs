//! `airan shard`: helping a shard that has stopped.

use airan_bus::Reader;
use airan_lake::Lake;
use airan_model::time::Clock;
use airan_processor::{find_loss, skip};
use anyhow::{Context, Result, bail};

use crate::cli::Settings;
use crate::config::Config;

/// Subcommands of `airan shard`.
#[derive(Debug, clap::Subcommand)]
pub enum ShardCommand {
    /// Accepts that messages have gone from the bus before they were read, so that the shard goes on after them
    ///
    /// A shard whose next message is no longer on the bus stops and names the offsets it lost; `airan lag` shows it. Their rows
    /// are not in the lake and will not come: send them again where their senders still have them. This command commits that the
    /// shard goes on at the first offset there is; without --yes it says what would be lost and changes nothing. A running
    /// processor goes on within processor.commit.retry_max by itself. Refused where nothing is lost.
    Skip {
        #[command(flatten)]
        place: Place,
        /// Accept the loss
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Starts a shard again in the processor that owns it, without starting the process again
    ///
    /// Claims the shard. A processor at work on it drops its uncommitted work and takes it over from the last commit; one whose
    /// shard has stopped, for whatever reason, tries again within processor.commit.retry_max. Nothing is lost by it.
    Restart {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        settings: Settings,
    },
}

/// Which shard.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The shard, as topic and partition: airan.telemetry/3
    #[arg(value_name = "TOPIC/PARTITION", value_parser = parse)]
    shard: (String, i32),
}

fn parse(text: &str) -> Result<(String, i32), String> {
    let (topic, partition) = text.rsplit_once('/').ok_or("topic and partition are wanted, as airan.telemetry/3")?;
    let partition = partition.parse().map_err(|_| format!("`{partition}` is no partition"))?;
    if topic.is_empty() || partition < 0 {
        return Err("topic and partition are wanted, as airan.telemetry/3".to_owned());
    }
    Ok((topic.to_owned(), partition))
}

/// Runs one.
pub async fn run(command: ShardCommand) -> Result<()> {
    match command {
        ShardCommand::Skip { place, yes, settings } => skip_lost(place, yes, &settings).await,
        ShardCommand::Restart { place, settings } => restart(place, &settings).await,
    }
}

/// The bus and the lake of a shard, whose topic must be the bus's.
async fn open(settings: &Settings, topic: &str) -> Result<(Config, Reader, Lake)> {
    let config = settings.load()?.config;
    let reader = Reader::open(&config.bus).context("cannot look at the bus")?;
    if reader.topic() != topic {
        bail!("the bus of this configuration has topic `{}`, not `{topic}`", reader.topic());
    }
    let lake = Lake::open(&config.lake, Clock::system()).await.context("cannot open the lake (lake.path)")?;
    lake.set_owner("airan shard");
    Ok((config, reader, lake))
}

async fn skip_lost(Place { shard: (topic, partition) }: Place, yes: bool, settings: &Settings) -> Result<()> {
    let (_, reader, lake) = open(settings, &topic).await?;
    let bus = reader.offsets(partition).await.context("cannot look at the bus")?;
    let loss = find_loss(&lake, &topic, partition, bus).await.context("nothing was changed")?;
    let words = format!(
        "{topic}/{partition}: offsets {} to {} are gone from the bus: {} messages, with rows that nobody can count",
        loss.from,
        loss.until - 1,
        loss.offsets()
    );
    if !yes {
        bail!("{words}; nothing was changed: say --yes to go on at offset {} without them", loss.until);
    }
    let (_, n) = skip(&lake, &topic, partition, reader.partitions(), bus).await.context("the loss is not accepted")?;
    println!("{words}");
    println!("accepted by commit {n}: the shard goes on at offset {}", loss.until);
    Ok(())
}

async fn restart(Place { shard: (topic, partition) }: Place, settings: &Settings) -> Result<()> {
    let (_, reader, lake) = open(settings, &topic).await?;
    let (writer, recovered) =
        lake.claim(&topic, partition, reader.partitions()).await.context("the shard could not be claimed")?;
    match recovered {
        Some(recovered) => println!(
            "claimed with record {}: whoever owns {topic}/{partition} takes it over again from offset {}",
            writer.n(),
            recovered.next_offset
        ),
        None => println!("claimed with record {}: nothing of {topic}/{partition} was ever committed", writer.n()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_named_by_topic_and_partition() {
        assert_eq!(parse("airan.telemetry/3"), Ok(("airan.telemetry".to_owned(), 3)));
        for wrong in ["airan.telemetry", "airan.telemetry/", "airan.telemetry/x", "/3", "t/-1", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
