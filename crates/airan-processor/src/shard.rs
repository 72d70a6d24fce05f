//! The map of a shard: what happens to a message between the bus and a commit.
//!
//! ```text
//! message ─▶ open ─▶ identities ─▶ rises ─▶ late? ─▶ windows of each pipeline ─▶ close ─┐
//!            decode,  duplicates            │  │                                        │
//!            conform  out                   │  └▶ marks ─▶ restate ─────────────────────┼─▶ commit
//!                                           └──────▶ raw rows ──────────────────────────┘
//! ```
//!
//! A message is the unit: its rows are judged against the windows as they stood before it, then time moves on, then windows
//! close. Nothing here reads a clock, and batches, commits and restarts leave no trace in what comes out: which windows close,
//! and with which rows, is a function of the log alone (**W3**).

use std::sync::Arc;

use airan_bus::Received;
use airan_model::message::{MESSAGE_LIMITS, Message, Rows};
use airan_model::reject::Reason;
use airan_model::time::{MINUTE, Micros};
use airan_window::watermark::PartitionTime;
use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use bytes::Bytes;

use crate::completeness::Gaps;
use crate::dedupe::Identities;
use crate::late::Lates;
use crate::load::Load;
use crate::marks::{Key, Marks, Why};
use crate::open::{Refused, open};
use crate::raw::RawRows;
use crate::restate::requests::Requests;
use crate::restate::round::Outcome;
use crate::restate::shard::Work;
use crate::results::staleness;
use crate::rises::Rises;
use crate::setup::Setup;
use crate::split::{identity_columns, late_rows, mark_out_of_order, newest_by_node, times};
use crate::stage::Stage;
use crate::steps::{Step, Steps, Watch};
use crate::sums::Sums;

/// Longer than a stream's nodes take to count as idle, for streams that report each minute or more often.
const SETTLE: Micros = 5 * MINUTE;

/// One partition's work between two commits, and what it remembers across them.
pub(crate) struct Shard {
    pub setup: Arc<Setup>,
    /// The first offset that has not been applied.
    pub next_offset: i64,
    /// The newest append time; never goes back.
    pub log_time: Micros,
    pub sums: Sums,
    pub streams: Vec<StreamShard>,
    pub time: PartitionTime,
    pub stages: Vec<Stage>,
    pub lates: Lates,
    /// Windows to be restated.
    pub marks: Marks,
    /// How far requests to restate are.
    pub requests: Requests,
    /// What a round of restatements has computed, for the next commit.
    pub(crate) outcome: Option<Outcome>,
    /// Before it raw rows of the lake may be gone, as far as is known.
    pub raw_from: Micros,
    pub work: Work,
    pub steps: Steps,
    pub load: Load,
    /// Something other than a tick was applied since the last commit.
    pub is_touched: bool,
    /// Log time of the last message that was no tick, and of the last commit.
    pub touched_at: Micros,
    pub committed_at: Micros,
}

/// One stream's part of a shard.
pub(crate) struct StreamShard {
    pub identities: Identities,
    pub rises: Rises,
    pub raw: RawRows,
}

/// A message refused as a whole, for the record.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub offset: i64,
    pub rows: u64,
    pub payload: Bytes,
    pub refused: Refused,
}

impl Shard {
    /// Applies a message: its rows are stored, known as duplicates, or refused with the message.
    ///
    /// An error is a fault of ours, never of the message; the shard is then to be dropped, and nothing of it was committed.
    pub async fn apply(&mut self, received: Received) -> Result<Option<Refusal>, ArrowError> {
        let Received { offset, append_time, message, .. } = received;
        self.next_offset = offset + 1;
        self.log_time = self.log_time.max(append_time);
        self.time.observe_message(self.log_time);
        self.streams.iter_mut().for_each(|stream| stream.rises.entities.sweep(self.log_time));
        if !matches!(message, Message::Tick) {
            (self.is_touched, self.touched_at) = (true, self.log_time);
        }
        let refusal = match message {
            Message::Rows(rows) if rows.rows > MESSAGE_LIMITS.rows as u64 => {
                let detail = format!("its header says {} rows, the limit is {}", rows.rows, MESSAGE_LIMITS.rows);
                Some(self.refuse_foreign(offset, detail, rows.payload))
            }
            Message::Rows(rows) => self.take(offset, rows)?,
            Message::Tick => None,
            Message::Foreign { reason, payload } => Some(self.refuse_foreign(offset, reason, payload)),
        };
        let mut watch = Watch::start();
        self.close_windows().await?;
        watch.end(&mut self.steps, Step::Windows);
        Ok(refusal)
    }

    /// decode → conform → duplicates out → rises → late rows apart → windows and raw rows.
    fn take(&mut self, offset: i64, message: Rows) -> Result<Option<Refusal>, ArrowError> {
        let mut watch = Watch::start();
        self.sums.appended += message.rows;
        let setup = Arc::clone(&self.setup);
        let Some(index) = setup.stream(&message.stream) else {
            let detail = format!("no stream `{}` in this processor's catalog", message.stream);
            return Ok(Some(self.refuse(offset, message, Refused { reason: Reason::UnknownStream, detail })));
        };
        let rows = match open(&setup.streams[index].stream, &message) {
            Ok(rows) => rows,
            Err(refused) => return Ok(Some(self.refuse(offset, message, refused))),
        };
        self.load.count(&rows);
        watch.end(&mut self.steps, Step::Decode);
        let rows = self.without_duplicates(index, rows)?;
        self.mark_gaps(index);
        watch.end(&mut self.steps, Step::Duplicates);
        let Some(rows) = rows else { return Ok(None) };
        let rises = &mut self.streams[index].rises;
        let rows = rises.add(rows, self.log_time)?;
        self.sums.out_of_order += std::mem::take(&mut rises.out_of_order);
        let overtaken = std::mem::take(&mut rises.overtaken);
        // Rows that follow a late one may be there, though what is remembered of its counters does not say so.
        let why = if rises.has_values { Why::Rows } else { Why::Rises };
        watch.end(&mut self.steps, Step::Rises);
        if why == Why::Rows {
            self.mark_disordered(index, &rows, &overtaken)?;
        }
        self.hand_to_windows(index, &rows, why)?;
        self.note_time(index, &rows);
        watch.end(&mut self.steps, Step::Late);
        self.sums.pending += rows.num_rows() as u64;
        self.streams[index].raw.push(rows);
        Ok(None)
    }

    fn refuse(&mut self, offset: i64, message: Rows, refused: Refused) -> Refusal {
        self.sums.rejected += message.rows;
        Refusal { offset, rows: message.rows, payload: message.payload, refused }
    }

    /// Its rows cannot be counted, so they are in none of the sums.
    fn refuse_foreign(&mut self, offset: i64, detail: String, payload: Bytes) -> Refusal {
        self.sums.foreign += 1;
        Refusal { offset, rows: 0, payload, refused: Refused { reason: Reason::Foreign, detail } }
    }

    fn without_duplicates(&mut self, stream: usize, rows: RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        let admitted = self.streams[stream].identities.admit(&identity_columns(&rows)?, self.log_time);
        self.sums.duplicate += admitted.duplicates;
        self.sums.anonymous += admitted.anonymous;
        match admitted.new {
            None if rows.num_rows() == 0 => Ok(None),
            None => Ok(Some(rows)),
            Some(_) if admitted.duplicates == rows.num_rows() as u64 => Ok(None),
            Some(new) => filter_record_batch(&rows, &new).map(Some),
        }
    }

    /// Windows that will have to be restated once they have closed, because rises depend on what came before.
    fn mark_disordered(&mut self, stream: usize, rows: &RecordBatch, overtaken: &[bool]) -> Result<(), ArrowError> {
        let of = &self.setup.streams[stream];
        // Of a row of the past, what came before and after it may have been forgotten while it was on its way.
        let backfill_before = self.log_time.saturating_sub(of.backfill_after);
        let is_out =
            |(row, at): (usize, &Micros)| overtaken.get(row).copied().unwrap_or(false) || *at < backfill_before;
        let out: Vec<bool> = times(rows)?.iter().enumerate().map(is_out).collect();
        if out.contains(&true) {
            mark_out_of_order(of, rows, &out, &self.stages, self.log_time, &mut self.marks)?;
        }
        Ok(())
    }

    /// Closed windows over which a gap began or was filled are not as complete as they say.
    fn mark_gaps(&mut self, stream: usize) {
        let changed = std::mem::take(&mut self.streams[stream].identities.changed);
        for (site, from, to) in changed {
            for reader in &self.setup.streams[stream].readers {
                let stage = &self.stages[reader.pipeline];
                let cut = stage.cut();
                let (from, to) = (cut.starts_of(from).0, cut.starts_of(to).1.min(stage.first_open()));
                if from < to {
                    let pipeline = stage.pipeline.spec.name.as_str().into();
                    self.marks.mark(Key { pipeline, why: Why::Gaps, site: site.clone() }, from, to, self.log_time);
                }
            }
        }
    }

    /// Rows of open windows go to their pipelines; the others are counted, and their windows marked.
    fn hand_to_windows(&mut self, stream: usize, rows: &RecordBatch, why: Why) -> Result<(), ArrowError> {
        let setup = Arc::clone(&self.setup);
        let of = &setup.streams[stream];
        let late = late_rows(of, rows, &self.stages, self.log_time, (&mut self.lates, &mut self.marks, why))?;
        for (reader, late) in of.readers.iter().zip(late) {
            let stage = &mut self.stages[reader.pipeline];
            stage.count(rows, late.on_time.as_ref())?;
            match late.on_time {
                None => stage.take(reader.input, rows.clone()),
                Some(on_time) if on_time.true_count() > 0 => {
                    stage.take(reader.input, filter_record_batch(rows, &on_time)?);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The newest time of each node moves the clocks; backfill moves nothing.
    fn note_time(&mut self, stream: usize, rows: &RecordBatch) {
        let of = &self.setup.streams[stream];
        let oldest = self.log_time.saturating_sub(of.backfill_after);
        let (time, log_time) = (&mut self.time, self.log_time);
        newest_by_node(rows, oldest, |node, newest| time.observe_rows(&of.stream.name, node, newest, log_time));
    }

    /// Each pipeline closes what ends by its watermark: the least of its streams', less its lateness.
    async fn close_windows(&mut self) -> Result<(), ArrowError> {
        for stage in &mut self.stages {
            let watermark = watermark_of(stage, &self.time);
            let before = stage.closed.len();
            stage.settle(watermark).await;
            if stage.closed.len() > before {
                let streams = stage.pipeline.plan.streams().iter().filter_map(|stream| self.setup.stream(stream));
                let gaps: Vec<Arc<Gaps>> = streams.map(|index| self.streams[index].identities.gaps()).collect();
                stage.complete(before, &gaps)?;
            }
        }
        Ok(())
    }

    /// Whether a commit would say more than that time has passed. Right after the last rows that alone is worth saying: windows
    /// close by it, and gauges of what has fallen silent disappear.
    pub fn has_work(&self) -> bool {
        let settled = self.stages.iter().map(|stage| {
            let lateness = stage.pipeline.spec.lateness.micros();
            staleness(&stage.pipeline).saturating_add(lateness).saturating_add(stage.cut().size())
        });
        let settled_at = self.touched_at.saturating_add(settled.max().unwrap_or(0)).saturating_add(SETTLE);
        self.is_touched || self.committed_at < settled_at || self.has_outcome() || !self.is_all_closed_committed()
    }

    /// Whether everything that has come of messages, but time itself, is committed.
    pub fn is_committed(&self) -> bool {
        !self.is_touched && self.is_all_closed_committed()
    }

    fn is_all_closed_committed(&self) -> bool {
        self.stages.iter().all(|stage| stage.closed.is_empty())
    }

    /// Bytes of raw rows that wait for a commit.
    pub fn raw_bytes(&self) -> usize {
        self.streams.iter().map(|stream| stream.raw.bytes()).sum()
    }

    /// The start of the oldest window that is or may be open: no raw row from then on may go from the lake.
    ///
    /// A pipeline that has stopped holds nothing back, or it would fill the disk: it goes on after a restart with the raw
    /// rows that are there by then.
    pub fn needed_from(&self) -> Micros {
        let at_work = self.stages.iter().filter(|stage| stage.stopped().is_none());
        at_work.map(Stage::first_open).min().unwrap_or(Micros::MAX)
    }
}

/// A pipeline's watermark; None before the first message.
pub(crate) fn watermark_of(stage: &Stage, time: &PartitionTime) -> Option<Micros> {
    let streams = stage.pipeline.plan.streams().iter();
    let newest = streams.map(|stream| time.watermark(stream)).min().flatten()?;
    Some(newest.saturating_sub(stage.pipeline.spec.lateness.micros()))
}
