//! The tools that a person or a schedule runs on the lake beside the processors, as one more process that can fail and die.
//!
//! What one of them leaves half done, the elected processor or the next run of the same tool finishes.

use std::sync::Arc;
use std::time::Duration;

use airan_bus::Bus;
use airan_lake::{Lake, Request, RequestReason, Series};
use airan_model::time::{Clock, DAY, HOUR};

use super::ERASED;
use crate::backfill::request_progress;
use crate::dice::Dice;
use crate::setup::Pipeline;
use crate::testing::T0;

/// How often a tool that waits for the processors looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    /// Many files become few.
    Compact,
    /// Publish, trim records, vacuum; the rows themselves are young enough.
    Expire,
    /// Every window is computed again.
    Backfill,
    /// All of a node goes, and its windows are restated.
    Erase,
}

impl Errand {
    /// One that may run while rows come.
    pub(crate) fn in_storm(dice: &mut Dice) -> Errand {
        [Errand::Compact, Errand::Expire, Errand::Backfill][dice.below(3) as usize]
    }
}

/// What a tool works with.
pub(crate) struct Tools {
    pub lake: Lake,
    pub clock: Clock,
    pub topic: Arc<dyn Bus>,
    pub pipeline: Pipeline,
    pub series: Series,
}

fn text(error: impl std::error::Error) -> String {
    airan_model::causes(&error)
}

impl Tools {
    pub(crate) async fn run(self, errand: Errand) -> Result<(), String> {
        match errand {
            Errand::Compact => {
                let report = self.lake.compact(None, self.clock.now(), |_| {}).await.map_err(text)?;
                report.failures.first().map_or(Ok(()), |(table, reason)| Err(format!("{table}: {reason}")))
            }
            Errand::Expire => {
                let needed_from =
                    self.lake.needed_from(self.topic.topic(), self.topic.partitions()).await.map_err(text)??;
                self.lake.expire(self.clock.now(), Some(needed_from)).await.map_err(text).map(|_| ())
            }
            Errand::Backfill => {
                let request = Request::new(RequestReason::Backfill, T0, T0 + HOUR, self.clock.now());
                self.restated(&request).await?;
                self.lake.remove_request(&request.id).await.map_err(text)
            }
            Errand::Erase => self.erase().await,
        }
    }

    /// Asks for a restatement, and waits until the processors have done it.
    async fn restated(&self, request: &Request) -> Result<(), String> {
        self.lake.request(request).await.map_err(text)?;
        let (topic, partitions) = (self.topic.topic(), self.topic.partitions());
        let names = [self.pipeline.spec.name.clone()];
        loop {
            let parts = request_progress(&self.lake, topic, partitions, request, &names).await.map_err(text)?;
            if parts.iter().all(|part| part.is_done) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// As `airan lake erase` does it.
    async fn erase(&self) -> Result<(), String> {
        let (lake, now) = (&self.lake, self.clock.now());
        let table = &self.pipeline.spec.table;
        let mut erasure = lake.begin_erasure(&format!("node = '{ERASED}'"), &[], now).await.map_err(text)?;
        lake.erase(&mut erasure, now, |_| {}).await.map_err(text)?;
        lake.note_followers(&mut erasure, &self.series, DAY, now).await.map_err(text)?;
        while let Some([settle, restate]) = erasure.requests(std::slice::from_ref(&self.pipeline.spec.name)) {
            self.restated(&settle).await?;
            if lake.note_followers(&mut erasure, &self.series, DAY, now).await.map_err(text)? {
                continue;
            }
            let affected = erasure.affected_by(&["meter".to_owned()]);
            lake.note_windows(&erasure, table, &affected, now).await.map_err(text)?;
            self.restated(&restate).await?;
            lake.erase_windows(&erasure, table, &affected, now).await.map_err(text)?;
            break;
        }
        for id in erasure.request_ids() {
            lake.remove_request(&id).await.map_err(text)?;
        }
        lake.finish_erasure(&erasure).await.map_err(text)
    }
}
