//! The Kafka door: messages of topics that others write, taken like requests.
//!
//! ```text
//! topic ──▶ waiting ──▶ offered to the intake, in order ──▶ settling ──▶ offset reported
//!              ▲                                               │
//!              └──────── not taken: try again, topic paused ◀──┘
//! ```
//!
//! A message has met its end when the bus has acknowledged its rows, or when it can never be taken and that is counted and
//! recorded; only then its offset counts as read. So each comes at least once, and one that comes again is known: its identity is
//! made of topic, partition, offset and value. Nothing that is wrong with a message stops the topic.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use airan_bus::{Arrival, Behind, Given, Inlet};
use airan_model::identity::sha256_hex;
use airan_model::reject::{Reason, Rejected};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::decompress::Encoding;
use crate::inflight::Ticket;
use crate::intake::{Ack, Format, Intake, Offered, Parcel, Signal};
use crate::{Door, KafkaFormat, KafkaInSettings, Refusal};

/// Messages of one topic that may wait for the bus at once. One at a time would read some thirty messages a second, for each
/// waits for others to be gathered; the bytes are bounded by `gateway.load.bytes`.
const SETTLING_MAX: usize = 64;
/// Messages in hand that were not offered yet. A paused topic gives a few more at most.
const WAITING_MAX: usize = 64;
/// How long the inlet is listened to at once: it reports offsets in between.
const TURN: Duration = Duration::from_millis(500);
/// How often the lag is told.
const LAG_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts to read a topic whose consumer has broken.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Attempts for a message over which our own code breaks. It is refused then: the fault would stop the topic for ever.
const BROKEN_MAX: u32 = 3;

/// One topic of others.
struct Topic {
    settings: KafkaInSettings,
    name: Arc<str>,
    intake: Intake,
    waiting: VecDeque<InHand>,
    settling: FuturesUnordered<BoxFuture<'static, (InHand, Result<Ack, Refusal>)>>,
    // Nothing is offered before it: the last attempt was in vain.
    not_before: Option<Instant>,
    // Why it cannot be read, as it was last said.
    told_down: Option<String>,
    // Partitions whose lag is told, and when it was last.
    told_lag: BTreeSet<i32>,
    told_lag_at: Option<Instant>,
}

/// A message, and how often our own code broke over it.
struct InHand {
    given: Given,
    broken: u32,
}

/// Reads a topic until `stop`, then lets what is under way end within `drain`.
pub(crate) async fn read(settings: KafkaInSettings, intake: Intake, drain: Duration, stop: CancellationToken) {
    let mut topic = Topic {
        name: Arc::from(settings.topic.as_str()),
        settings,
        intake,
        waiting: VecDeque::new(),
        settling: FuturesUnordered::new(),
        not_before: None,
        told_down: None,
        told_lag: BTreeSet::new(),
        told_lag_at: None,
    };
    while !stop.is_cancelled() {
        let reason = match Inlet::open(&topic.settings.topic()) {
            Ok(inlet) => match topic.follow(inlet, drain, &stop).await {
                None => return,
                Some(reason) => reason,
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(topic = &*topic.name, reason, "a Kafka topic cannot be read: trying again");
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
}

/// At once where there is nothing to wait for.
async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Decodes on a task of its own: if our code breaks over a message, the topic goes on.
async fn offer(intake: Intake, parcel: Parcel, ticket: Ticket) -> Result<Offered, Refusal> {
    let (retry_after, place) = (intake.inner.retry_after, parcel.place.clone());
    let offering = tokio::spawn(async move { intake.offer(parcel, ticket).await });
    offering.await.unwrap_or_else(|error| {
        let message = "the work on a message ended without a result";
        tracing::error!(%error, place = place.as_deref(), message);
        Err(Refusal::Internal { message: message.to_owned(), retry_after })
    })
}

impl Topic {
    /// Reads until told to stop, or until the consumer breaks, and why.
    async fn follow(&mut self, mut inlet: Inlet, drain: Duration, stop: &CancellationToken) -> Option<String> {
        let mut is_paused = false;
        let broken = loop {
            if self.waiting.is_empty() {
                self.not_before = None;
            }
            let is_kept_waiting = self.not_before.is_some();
            if is_kept_waiting != is_paused {
                is_paused = is_kept_waiting;
                if is_paused {
                    inlet.hold()
                } else {
                    inlet.resume()
                }
                self.intake.inner.metrics.kafka_paused.with_label_values(&[&*self.name]).set(i64::from(is_paused));
            }
            if self.told_lag_at.is_none_or(|at| at.elapsed() >= LAG_EVERY) {
                self.told_lag_at = Some(Instant::now());
                self.tell_lag(&inlet.behind());
            }
            let has_room = self.waiting.len() < WAITING_MAX && self.settling.len() < SETTLING_MAX;
            let can_offer = !self.waiting.is_empty() && self.settling.len() < SETTLING_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                Some((message, outcome)) = self.settling.next(), if !self.settling.is_empty() => {
                    self.end(&mut inlet, message, outcome);
                }
                () = until(self.not_before), if can_offer => self.offer(&mut inlet).await,
                arrival = inlet.next(TURN), if has_room => match arrival {
                    Ok(arrival) => self.heed(arrival),
                    Err(error) => break Some(error.to_string()),
                }
            }
        };
        // What was read and not offered comes again.
        self.waiting.clear();
        self.not_before = None;
        let deadline = Instant::now() + drain;
        while let Ok(Some((message, outcome))) = tokio::time::timeout_at(deadline, self.settling.next()).await {
            if outcome.is_ok() {
                self.end(&mut inlet, message, outcome);
            }
        }
        self.settling = FuturesUnordered::new();
        self.tell_lag(&[]);
        inlet.close().await;
        broken
    }

    /// Says how far the partitions are behind, and no more of those that are not read here now.
    fn tell_lag(&mut self, behind: &[Behind]) {
        let lag = &self.intake.inner.metrics.kafka_lag;
        let read: BTreeSet<i32> = behind.iter().map(|of| of.partition).collect();
        for gone in self.told_lag.difference(&read) {
            let _ = lag.remove_label_values(&[&*self.name, &gone.to_string()]);
        }
        for of in behind {
            let messages = i64::try_from(of.messages).unwrap_or(i64::MAX);
            lag.with_label_values(&[&*self.name, &of.partition.to_string()]).set(messages);
        }
        self.told_lag = read;
    }

    fn heed(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message(given) => {
                self.told_down = None;
                self.waiting.push_back(InHand { given, broken: 0 });
            }
            Arrival::Lost { partition, wanted, first, next } => {
                let lost = u64::try_from(first.saturating_sub(wanted)).unwrap_or(0);
                self.intake.inner.metrics.kafka_lost.with_label_values(&[&*self.name]).inc_by(lost);
                tracing::error!(
                    topic = &*self.name,
                    partition,
                    wanted,
                    first,
                    next,
                    "messages were no longer in the topic when they were due; reading goes on with the first that is there"
                );
            }
            Arrival::Down { reason } => {
                if self.told_down.as_ref() != Some(&reason) {
                    tracing::warn!(topic = &*self.name, reason, "a Kafka topic cannot be read now");
                    self.told_down = Some(reason);
                }
            }
            Arrival::Idle => {}
        }
    }

    /// Offers the first message that waits.
    async fn offer(&mut self, inlet: &mut Inlet) {
        let Some(message) = self.waiting.pop_front() else { return };
        let offered = match self.let_in(&message) {
            Ok((parcel, ticket)) => offer(self.intake.clone(), parcel, ticket).await,
            Err(refusal) => Err(refusal),
        };
        match offered {
            Ok(offered) => {
                self.not_before = None;
                let (intake, deadline) = (self.intake.clone(), Instant::now() + self.intake.inner.timeout);
                self.settling.push(Box::pin(async move {
                    let outcome = intake.settled(offered, deadline).await;
                    (message, outcome)
                }));
            }
            Err(refusal) => self.end(inlet, message, Err(refusal)),
        }
    }

    /// What a request goes through between its headers and its decoder.
    fn let_in(&self, message: &InHand) -> Result<(Parcel, Ticket), Refusal> {
        let inner = &self.intake.inner;
        let mut ticket = inner.in_flight.enter()?;
        inner.check_share(&self.name)?;
        let body = message.given.payload.clone();
        // One that is too large is refused for that by the intake.
        if body.len() <= inner.limits.request_bytes {
            ticket.hold(body.len())?;
        }
        let format = match self.settings.format {
            KafkaFormat::OtlpProto => Format::OtlpProtobuf(Signal::Metrics),
            KafkaFormat::Ndjson => Format::Ndjson,
        };
        let parcel = Parcel {
            door: Door::Kafka,
            format,
            sender: Arc::clone(&self.name),
            stream: None,
            idempotency: None,
            place: Some(self.place(&message.given).into()),
            encoding: Encoding::Identity,
            body,
        };
        Ok((parcel, ticket))
    }

    /// A message has met its end, or is to be tried again.
    fn end(&mut self, inlet: &mut Inlet, mut message: InHand, outcome: Result<Ack, Refusal>) {
        let metrics = &self.intake.inner.metrics;
        let count = |outcome: &str| metrics.kafka_messages.with_label_values(&[&*self.name, outcome]).inc();
        match outcome {
            Ok(_) => {
                count("acknowledged");
                inlet.done(&message.given);
            }
            Err(refusal) => {
                let is_ours = matches!(refusal, Refusal::Internal { .. });
                message.broken += u32::from(is_ours);
                let again =
                    refusal.retry_after().or((refusal == Refusal::Slow).then_some(self.intake.inner.retry_after));
                match again.filter(|_| message.broken < BROKEN_MAX) {
                    Some(wait) => {
                        count("retried");
                        tracing::debug!(place = self.place(&message.given), %refusal, "a message was not taken: again");
                        self.not_before = self.not_before.max(Some(Instant::now() + wait));
                        self.wait_again(message);
                    }
                    None => {
                        count("refused");
                        self.record(&message.given, &refusal);
                        inlet.done(&message.given);
                    }
                }
            }
        }
    }

    /// Back to those that wait, in the order of the topic.
    fn wait_again(&mut self, message: InHand) {
        let key = |message: &InHand| (message.given.partition, message.given.offset);
        let place = self.waiting.iter().position(|other| key(other) > key(&message)).unwrap_or(self.waiting.len());
        self.waiting.insert(place, message);
    }

    /// Records what the intake has not recorded: over HTTP its sender would have been told.
    fn record(&self, given: &Given, refusal: &Refusal) {
        let reason = match refusal {
            Refusal::RowTooLarge { .. } => Reason::TooLarge,
            Refusal::Internal { .. } => Reason::Foreign,
            _ => return,
        };
        let rejects = &self.intake.inner.rejects;
        rejects.count(Door::Kafka, reason, 1);
        rejects.record(Rejected {
            door: Door::Kafka.as_str().to_owned(),
            reason,
            node: Some(self.name.to_string()),
            length: given.payload.len() as u64,
            sha256: sha256_hex(&given.payload),
            position: Some(self.place(given)),
            at: self.intake.inner.clock.now(),
            rows: 0,
        });
    }

    /// `topic/partition/offset`.
    fn place(&self, given: &Given) -> String {
        format!("{}/{}/{}", self.name, given.partition, given.offset)
    }
}
