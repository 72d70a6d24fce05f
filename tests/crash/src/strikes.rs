//! What is done to the broker in a case, whoever of the victims lives or not: it is ended and started again with its data, and records
//! that their shards have committed are deleted.
//!
//! Neither is a loss. What a broker acknowledged it has again, and what is deleted is in the lake; so ledger and lake are compared as
//! ever. (Records that no shard has committed are another matter: their shard stops and says so, and a test of the whole path shows it.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::broker::delete_records;
use crate::lake::{Lake, Offsets};
use crate::plan::Strike;
use crate::results::Kills;

/// How long is waited for something committed that can be deleted. Claims wait for a session, and the broker may just have come back.
const DELETABLE: Duration = Duration::from_secs(40);
/// How often is looked.
const ASK: Duration = Duration::from_millis(500);

/// The broker of a run, as deploy/kafka/kafka.sh starts and ends it.
#[derive(Clone, Debug)]
pub struct Broker {
    script: PathBuf,
    /// Whoever has begun to start it again ends with that, also where its case is given up meanwhile.
    turn: Arc<Mutex<()>>,
}

impl Broker {
    /// The broker that `script` handles, in the environment this program has.
    pub fn new(script: &Path) -> Broker {
        Broker { script: script.to_owned(), turn: Arc::default() }
    }

    /// Has it run. Fine where it does.
    pub async fn start(&self) -> Result<()> {
        self.told(|broker| broker.tell("start")).await
    }

    async fn restart(&self, is_killed: bool, away: Duration) -> Result<()> {
        let again = move |broker: &Broker| {
            broker.tell(if is_killed { "kill" } else { "stop" })?;
            std::thread::sleep(away);
            broker.tell("start")
        };
        self.told(again).await
    }

    async fn told(&self, what: impl FnOnce(&Broker) -> Result<()> + Send + 'static) -> Result<()> {
        let broker = self.clone();
        let at_it = move || {
            let _turn = broker.turn.lock().unwrap_or_else(PoisonError::into_inner);
            what(&broker)
        };
        tokio::task::spawn_blocking(at_it).await?
    }

    fn tell(&self, word: &str) -> Result<()> {
        let out = Command::new(&self.script).arg(word).output();
        let out = out.with_context(|| format!("cannot run {}", self.script.display()))?;
        if !out.status.success() {
            let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            bail!("{} {word}: {}", self.script.display(), said.trim());
        }
        Ok(())
    }
}

/// Strikes one after the other, and what was done.
///
/// `kafka` is the broker's address, `broker` what starts it again; both are there where a strike needs them.
pub async fn run(
    strikes: &[(Duration, Strike)],
    kafka: Option<&str>,
    broker: Option<&Broker>,
    lake: &Lake,
) -> (Kills, Result<()>) {
    let mut done = Kills::default();
    for (after, strike) in strikes {
        tokio::time::sleep(*after).await;
        let struck = match strike {
            Strike::Restart { is_killed, away } => match broker {
                Some(broker) => broker.restart(*is_killed, *away).await.map(|()| done.restarts += 1),
                None => Err(anyhow::anyhow!("nothing is given that starts the broker: --kafka-script PATH")),
            },
            Strike::Delete => match kafka {
                Some(kafka) => delete(kafka, lake).await.map(|()| done.deletions += 1),
                None => Err(anyhow::anyhow!("no broker is given: --kafka HOST:PORT")),
            },
        };
        if let Err(error) = struck {
            return (done, Err(error.context("a strike at the broker")));
        }
    }
    (done, Ok(()))
}

/// Deletes of each partition what its shard has committed; waits until that is something.
async fn delete(kafka: &str, lake: &Lake) -> Result<()> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < DELETABLE {
        match lake.offsets().await {
            Ok(all) => {
                let committed: Vec<(Offsets, i64)> =
                    all.into_iter().filter_map(|of| deletable(&of).map(|before| (of, before))).collect();
                if !committed.is_empty() {
                    let kafka = kafka.to_owned();
                    let delete = move || {
                        committed
                            .iter()
                            .try_for_each(|(of, before)| delete_records(&kafka, &of.topic, of.partition, *before))
                    };
                    return Ok(tokio::task::spawn_blocking(delete).await??);
                }
            }
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(ASK).await;
    }
    let why = last.map_or_else(|| "no shard has committed any".to_owned(), |error| format!("{error:#}"));
    bail!("there were no records to delete within {DELETABLE:?}: {why}")
}

/// Before which offset a partition's records are committed, where there are such.
fn deletable(of: &Offsets) -> Option<i64> {
    of.committed_offset.filter(|committed| of.first_offset.is_some_and(|first| first < *committed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: deleted is what is committed and still there, and nothing of a partition that was never claimed or not asked.
    #[test]
    fn only_what_is_committed_is_deleted() {
        let of = |first_offset, committed_offset| {
            deletable(&Offsets { topic: "t".to_owned(), partition: 0, first_offset, committed_offset })
        };
        assert_eq!(of(Some(3), Some(9)), Some(9));
        assert_eq!(of(Some(9), Some(9)), None);
        assert_eq!(of(Some(3), None), None);
        assert_eq!(of(None, Some(9)), None);
    }

    /// Guarantees: where a strike lacks what it needs, or the script fails, that is said.
    #[tokio::test]
    async fn what_is_lacking_is_said() {
        let lake = Lake::new(Path::new("false"), Path::new("/"), "none.yaml");
        let restart = [(Duration::ZERO, Strike::Restart { is_killed: true, away: Duration::ZERO })];
        let (done, end) = run(&restart, None, None, &lake).await;
        assert!(done.restarts == 0 && format!("{:#}", end.unwrap_err()).contains("--kafka-script"));
        let (done, end) = run(&restart, None, Some(&Broker::new(Path::new("false"))), &lake).await;
        assert!(done.restarts == 0 && format!("{:#}", end.unwrap_err()).contains("false kill"));
        let (done, end) = run(&restart, None, Some(&Broker::new(Path::new("true"))), &lake).await;
        assert!(done.restarts == 1 && end.is_ok());
        let (_, end) = run(&[(Duration::ZERO, Strike::Delete)], None, None, &lake).await;
        assert!(format!("{:#}", end.unwrap_err()).contains("--kafka HOST:PORT"));
    }
}
