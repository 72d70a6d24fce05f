//! From a body to an acknowledgement: decompress → decode → admit → gather, the part of the path that all doors share.
//!
//! Everything up to admission is one piece of plain work on bytes; large bodies do it on a blocking thread. The sums of
//! DESIGN section 10 are kept here and in `gather`: what was decoded is counted received, and meets exactly one end.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use airan_bus::Bus;
use airan_decode::{Context, Decoded, DecodedRows, Refused, RemoteWrite, Tally};
use airan_model::catalog::Catalog;
use airan_model::identity::{BatchId, sha256_hex};
use airan_model::inventory::Inventory;
use airan_model::limits::Limits;
use airan_model::reject::{Reason, Rejected};
use airan_model::time::{Clock, Micros, Plausibility, SECOND};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admit::{Admission, AdmitError, Admitted, Before, Layouts, admit};
use crate::decompress::{Encoding, decompress};
use crate::gather::{Gatherer, Pending};
use crate::inflight::{InFlight, Ticket};
use crate::layout::{ColumnError, Layout};
use crate::metrics::GatewayMetrics;
use crate::missing::Missing;
use crate::rejects::Rejects;
use crate::settings::Settings;
use crate::share::Shares;
use crate::{Door, Refusal};

/// Bodies larger than this as sent are worked on by a blocking thread: they take milliseconds.
const INLINE_MAX: usize = 1 << 20;
/// The same for compressed bodies, which grow.
const INLINE_COMPRESSED_MAX: usize = 128 << 10;

/// How long after a reload rows may be repetitions of rows sent before it, beyond the time of a request: an agent's own request
/// timeout and longest wait, as they are by default.
const REPEATED_WITHIN: Micros = 60 * SECOND;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OTLP's protobuf.
    OtlpProtobuf(Signal),
    /// OTLP's JSON.
    OtlpJson(Signal),
    /// One JSON object a line.
    Ndjson,
    /// One Arrow IPC stream of one stream's rows.
    ArrowIpc,
    /// Prometheus remote write.
    RemoteWrite(RemoteWrite),
}

/// What a request of OTLP is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Metrics.
    Metrics,
    /// Logs, of which events are taken.
    Logs,
}

/// A body as it came through a door.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub door: Door,
    pub format: Format,
    /// Who sent it, by its own word or its address.
    pub sender: Arc<str>,
    /// The stream of its rows, where the format does not say.
    pub stream: Option<String>,
    /// What the sender says makes two bodies one, for bodies without times.
    pub idempotency: Option<String>,
    /// Where it lay before it came here, as `topic/partition/offset`: two places hold two bodies, also of the same bytes.
    pub place: Option<Arc<str>>,
    pub encoding: Encoding,
    pub body: Bytes,
}

/// What became of an acknowledged request.
#[derive(Clone, Debug, Default)]
pub struct Ack {
    /// Rows that the bus holds.
    pub rows: u64,
    /// Points, log records, samples or lines refused on their own, by reason.
    pub refused: Vec<Refused>,
    /// What became of the samples of a body that was decoded here.
    pub tally: Tally,
}

/// The gateway's inner entrance, behind its doors; in `airan up` also the agent's. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    pub(crate) inner: Arc<Inner>,
}

/// What requests share.
pub(crate) struct Inner {
    pub catalog: Arc<Catalog>,
    pub layouts: Layouts,
    pub limits: Limits,
    pub partitions: i32,
    pub inventory: watch::Receiver<Arc<Inventory>>,
    placing: RwLock<Placing>,
    pub clock: Clock,
    pub plausibility: Plausibility,
    pub timeout: Duration,
    pub retry_after: Duration,
    pub in_flight: Arc<InFlight>,
    pub shares: Shares,
    pub gatherer: Gatherer,
    pub missing: Missing,
    pub rejects: Rejects,
    pub metrics: Arc<GatewayMetrics>,
}

/// The inventory in force, and the one before it.
#[derive(Clone)]
struct Placing {
    now: Arc<Inventory>,
    before: Option<Before>,
}

/// A body whose rows are on their way to the bus.
pub(crate) struct Offered {
    pending: Pending,
    ack: Ack,
    started: Instant,
    // Its bytes count as under way until its end is known.
    _ticket: Ticket,
}

/// A body's rows, and what its decoder says about the rest.
struct Opened {
    admitted: Admitted,
    tally: Tally,
    refused: Vec<Refused>,
}

/// Everything a body can be refused for, with what its record needs.
struct Unopened {
    refusal: Refusal,
    length: u64,
    sha256: String,
    rows: u64,
}

impl Intake {
    /// Assembles the entrance; the doors are not open yet.
    pub(crate) fn new(
        settings: &Settings,
        bus: &Arc<dyn Bus>,
        catalog: Arc<Catalog>,
        inventory: watch::Receiver<Arc<Inventory>>,
        clock: Clock,
        rejects: Rejects,
        metrics: Arc<GatewayMetrics>,
    ) -> Intake {
        let retry_after = settings.load.retry_after.get();
        let layouts = Layout::of_catalog(&catalog);
        let gatherer =
            Gatherer::new(Arc::clone(bus), layouts.len(), settings.gather.clone(), retry_after, Arc::clone(&metrics));
        let in_flight = InFlight::new(
            settings.load.requests,
            settings.load.bytes.size(),
            retry_after,
            metrics.in_flight_requests.clone(),
            metrics.in_flight_bytes.clone(),
        );
        let now = Arc::clone(&inventory.borrow());
        let inner = Inner {
            catalog,
            layouts,
            limits: settings.request.limits(),
            partitions: bus.partitions(),
            placing: RwLock::new(Placing { now, before: None }),
            inventory,
            clock,
            plausibility: settings.implausible.plausibility(),
            timeout: settings.request.timeout.get(),
            retry_after,
            in_flight,
            shares: Shares::new(settings.share.bytes_per_second.get(), settings.share.burst.get()),
            gatherer,
            missing: Missing::default(),
            rejects,
            metrics,
        };
        Intake { inner: Arc::new(inner) }
    }

    /// Takes decoded rows of this process. Resolves when the bus has acknowledged all of them.
    ///
    /// Rows keep `batch`, `seq` and `source` if they carry them; others get a random batch, so that sending them again
    /// stores them again. When the future is dropped, the rows go to the bus all the same.
    pub async fn submit(&self, rows: Vec<DecodedRows>, sender: &str, door: Door) -> Result<Ack, Refusal> {
        let inner = &self.inner;
        let started = Instant::now();
        let count = rows.iter().map(|part| part.rows.num_rows() as u64).sum::<u64>();
        let source = format!("{}/rows", door.as_str());
        let admitted = inner.admit(&rows, &source, sender, random_batch(), inner.clock.now()).map_err(|error| {
            inner.count_refused(door, count);
            let refusal = refusal_of(&error);
            inner.rejects.count(door, reason_of(&error), 1);
            refusal
        })?;
        inner.produce(door, admitted, started, started + inner.timeout).await?;
        Ok(Ack { rows: count, ..Ack::default() })
    }

    /// Takes a body. Resolves when the bus has acknowledged all rows that could be read from it, or with the worst that
    /// happened to one of them. The ticket is held until then.
    pub(crate) async fn take(&self, parcel: Parcel, ticket: Ticket, deadline: Instant) -> Result<Ack, Refusal> {
        let offered = self.offer(parcel, ticket).await?;
        self.settled(offered, deadline).await
    }

    /// The first half of [`Intake::take`]: the rows of a body wait for the bus, behind those of bodies offered before.
    pub(crate) async fn offer(&self, parcel: Parcel, mut ticket: Ticket) -> Result<Offered, Refusal> {
        let inner = &self.inner;
        let started = Instant::now();
        let door = parcel.door;
        inner.metrics.wire_bytes.with_label_values(&[door.as_str()]).inc_by(parcel.body.len() as u64);
        let (sender, place) = (Arc::clone(&parcel.sender), parcel.place.clone());
        let inline_max = if parcel.encoding == Encoding::Identity { INLINE_MAX } else { INLINE_COMPRESSED_MAX };
        let (opened, ticket) = if parcel.body.len() <= inline_max {
            (inner.open(parcel, &mut ticket), ticket)
        } else {
            let inner = Arc::clone(inner);
            let work = move || (inner.open(parcel, &mut ticket), ticket);
            tokio::task::spawn_blocking(work).await.map_err(|error| self.internal(&error))?
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(unopened) => {
                inner.reject(door, &sender, place.as_deref(), &unopened);
                return Err(unopened.refusal);
            }
        };
        let ack = Ack { rows: opened.admitted.rows, refused: opened.refused, tally: opened.tally };
        let pending = inner.gatherer.offer(door, opened.admitted.parts)?;
        Ok(Offered { pending, ack, started, _ticket: ticket })
    }

    /// The second half: resolves when each row has met its end.
    pub(crate) async fn settled(&self, offered: Offered, deadline: Instant) -> Result<Ack, Refusal> {
        self.inner.settled(offered.pending, offered.started, deadline).await?;
        Ok(offered.ack)
    }

    fn internal(&self, error: &tokio::task::JoinError) -> Refusal {
        tracing::error!(%error, "a request's work ended without a result");
        Refusal::Internal {
            message: "the request's work ended without a result".to_owned(),
            retry_after: self.inner.retry_after,
        }
    }
}

impl Inner {
    /// Decompress, decode, admit; counts what the decoder tells.
    fn open(&self, mut parcel: Parcel, ticket: &mut Ticket) -> Result<Opened, Unopened> {
        let body = std::mem::take(&mut parcel.body);
        let sent = body.clone();
        let failed = |refusal: Refusal, body: &Bytes, rows: u64| {
            // A record is for what its sender must mend; a busy gateway is no fault of the body.
            let sha256 = if reason_to_record(&refusal).is_some() { sha256_hex(body) } else { String::new() };
            Unopened { refusal, length: body.len() as u64, sha256, rows }
        };
        let now = self.clock.now();
        let body = decompress(parcel.encoding, body, self.limits.request_bytes, ticket)
            .inspect(|body| self.shares.pay(&parcel.sender, body.len(), now))
            .map_err(|refusal| {
                self.shares.pay(&parcel.sender, sent.len(), now);
                failed(refusal, &sent, 0)
            })?;
        drop(sent);
        let door = parcel.door.as_str();
        self.metrics.body_bytes.with_label_values(&[door]).inc_by(body.len() as u64);

        let context = Context { catalog: &self.catalog, limits: &self.limits, default_node: &parcel.sender, now };
        let decoded = parcel.decode(&body, &context).map_err(|refusal| failed(refusal, &body, 0))?;
        let Decoded { rows, tally, refused } = decoded;
        self.count_decoded(parcel.door, &tally);
        if !refused.is_empty() {
            self.record_refused(&parcel, &body, &refused, now);
        }

        let from = parcel.place.as_ref().unwrap_or(&parcel.sender);
        let entry = parcel.entry();
        let batch = match (&parcel.idempotency, tally.no_time && parcel.place.is_none()) {
            (_, false) => BatchId::of_body(from, &entry, &body),
            // A key is no body: the prefix keeps the two apart.
            (Some(key), true) => BatchId::of_body(from, &format!("{entry}/idempotency-key"), key.as_bytes()),
            (None, true) => random_batch(),
        };
        let source = parcel.source();
        let admitted = self.admit(&rows, source, &parcel.sender, batch, now).map_err(|error| {
            let rows = rows.iter().map(|part| part.rows.num_rows() as u64).sum();
            failed(refusal_of(&error), &body, rows)
        })?;
        Ok(Opened { admitted, tally, refused })
    }

    fn admit(
        &self,
        rows: &[DecodedRows],
        source: &str,
        sender: &str,
        batch: BatchId,
        received_at: Micros,
    ) -> Result<Admitted, AdmitError> {
        let Placing { now, before } = self.placing.read().unwrap_or_else(PoisonError::into_inner).clone();
        let repeated = i64::try_from(self.timeout.as_micros()).unwrap_or(i64::MAX).saturating_add(REPEATED_WITHIN);
        let admission = Admission {
            layouts: &self.layouts,
            inventory: &now,
            before: before.as_ref().filter(|before| received_at.saturating_sub(before.until) < repeated),
            partitions: self.partitions,
            plausibility: self.plausibility,
            received_at,
            source,
            sender,
            batch,
        };
        let admitted = admit(rows, &admission)?;
        for (node, rows) in &admitted.missing {
            self.metrics.unassigned_rows.inc_by(*rows);
            if !self.missing.note(node, *rows, received_at) {
                self.metrics.unassigned_forgotten.inc_by(*rows);
            }
            self.metrics.unassigned_nodes.set(self.missing.len() as i64);
        }
        for (node, rows) in &admitted.implausible {
            self.metrics.count_implausible(node, *rows);
        }
        Ok(admitted)
    }

    /// Puts an inventory in force.
    pub fn follow(&self, inventory: Arc<Inventory>) {
        {
            let mut placing = self.placing.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut placing.now, Arc::clone(&inventory));
            placing.before = Some(Before { inventory: before, until: self.clock.now() });
        }
        self.missing.retain(|node| inventory.place(node).is_none());
        self.metrics.unassigned_nodes.set(self.missing.len() as i64);
    }

    /// Offers the rows to the bus and waits for the end of each of them.
    async fn produce(
        &self,
        door: Door,
        admitted: Admitted,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let pending = self.gatherer.offer(door, admitted.parts)?;
        self.settled(pending, started, deadline).await
    }

    async fn settled(&self, pending: Pending, started: Instant, deadline: Instant) -> Result<(), Refusal> {
        let settled = tokio::time::timeout_at(deadline, pending.settled());
        settled.await.unwrap_or_else(|_| {
            let message = "no acknowledgement within the request timeout".to_owned();
            Err(Refusal::Unknown { message, retry_after: self.retry_after })
        })?;
        self.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn count_decoded(&self, door: Door, tally: &Tally) {
        for (landed, samples) in [
            ("columns", tally.columns),
            ("sample", tally.sample_rows),
            ("sentinel", tally.sentinels),
            ("refused", tally.refused),
        ] {
            if samples > 0 {
                self.metrics.samples.with_label_values(&[door.as_str(), landed]).inc_by(samples);
            }
        }
        if tally.dropped_fields > 0 {
            self.metrics.dropped_fields.with_label_values(&[door.as_str()]).inc_by(tally.dropped_fields);
        }
        if tally.exemplars > 0 {
            self.metrics.dropped_exemplars.with_label_values(&[door.as_str()]).inc_by(tally.exemplars);
        }
        if tally.bodies > 0 {
            self.metrics.dropped_bodies.with_label_values(&[door.as_str()]).inc_by(tally.bodies);
        }
        if tally.refused > 0 {
            self.count_refused(door, tally.refused);
        }
    }

    fn count_refused(&self, door: Door, rows: u64) {
        let counts = self.metrics.rows(door);
        counts.received.inc_by(rows);
        counts.refused.inc_by(rows);
    }

    /// Points, samples or lines refused on their own: one record a reason.
    fn record_refused(&self, parcel: &Parcel, body: &Bytes, refused: &[Refused], at: Micros) {
        let sha256 = sha256_hex(body);
        for refused in refused {
            self.rejects.count(parcel.door, refused.reason, refused.count);
            self.rejects.record(Rejected {
                door: parcel.door.as_str().to_owned(),
                reason: refused.reason,
                node: Some(parcel.sender.to_string()),
                length: body.len() as u64,
                sha256: sha256.clone(),
                position: at_place(parcel.place.as_deref(), Some(refused.example.clone())),
                at,
                rows: refused.count,
            });
        }
    }

    /// A body refused as a whole.
    fn reject(&self, door: Door, sender: &str, place: Option<&str>, unopened: &Unopened) {
        if unopened.rows > 0 {
            self.count_refused(door, unopened.rows);
        }
        let Some((reason, position)) = reason_to_record(&unopened.refusal) else { return };
        self.rejects.count(door, reason, 1);
        self.rejects.record(Rejected {
            door: door.as_str().to_owned(),
            reason,
            node: Some(sender.to_owned()),
            length: unopened.length,
            sha256: unopened.sha256.clone(),
            position: at_place(place, position),
            at: self.clock.now(),
            rows: unopened.rows,
        });
    }

    /// A request refused before its body was read: only what its headers say is known.
    pub(crate) fn reject_unread(&self, door: Door, sender: &str, refusal: &Refusal, length: u64) {
        let unopened = Unopened { refusal: refusal.clone(), length, sha256: String::new(), rows: 0 };
        self.reject(door, sender, None, &unopened);
    }

    /// When the sender is welcome again, if it is over its share.
    pub(crate) fn check_share(&self, sender: &Arc<str>) -> Result<(), Refusal> {
        let over = |wait: Duration| Refusal::OverShare { retry_after: wait.max(Duration::from_secs(1)) };
        self.shares.check(sender, self.clock.now()).map_err(over)
    }
}

impl Parcel {
    /// What `source` says of its rows: door and format.
    fn source(&self) -> &'static str {
        match (self.door, self.format) {
            (Door::OtlpGrpc, _) => "otlp_grpc/protobuf",
            (Door::Kafka, Format::OtlpProtobuf(_)) => "kafka/otlp_proto",
            (Door::Kafka, Format::Ndjson) => "kafka/ndjson",
            (_, Format::OtlpProtobuf(_)) => "otlp_http/protobuf",
            (_, Format::OtlpJson(_)) => "otlp_http/json",
            (_, Format::Ndjson) => "ndjson/json",
            (_, Format::ArrowIpc) => "arrow/ipc",
            (_, Format::RemoteWrite(RemoteWrite::V1)) => "remote_write/1",
            (_, Format::RemoteWrite(RemoteWrite::V2)) => "remote_write/2",
        }
    }

    /// The door as the identity of a body has it: the same bytes are metrics by one way and logs by another.
    fn entry(&self) -> Cow<'static, str> {
        let door = self.door.as_str();
        match self.format {
            Format::OtlpProtobuf(Signal::Logs) | Format::OtlpJson(Signal::Logs) => Cow::Owned(format!("{door}/logs")),
            _ => Cow::Borrowed(door),
        }
    }

    fn decode(&self, body: &Bytes, context: &Context) -> Result<Decoded, Refusal> {
        let decoded = match self.format {
            Format::OtlpProtobuf(Signal::Metrics) => airan_decode::otlp::decode_protobuf(body, context),
            Format::OtlpProtobuf(Signal::Logs) => airan_decode::otlp::decode_logs_protobuf(body, context),
            Format::OtlpJson(Signal::Metrics) => airan_decode::otlp::decode_json(body, context),
            Format::OtlpJson(Signal::Logs) => airan_decode::otlp::decode_logs_json(body, context),
            Format::Ndjson => airan_decode::ndjson::decode(body, context),
            Format::RemoteWrite(version) => airan_decode::remote_write::decode(body, version, context),
            Format::ArrowIpc => {
                airan_decode::arrow_ipc::decode(body, self.stream.as_deref().unwrap_or_default(), context)
            }
        };
        decoded.map_err(|error| Refusal::Malformed {
            reason: error.reason,
            message: error.to_string(),
            position: error.position.clone(),
        })
    }
}

/// Where in what a fault lies: `topic/partition/offset`, a line, or both.
fn at_place(place: Option<&str>, position: Option<String>) -> Option<String> {
    match (place, position) {
        (Some(place), Some(position)) => Some(format!("{place} {position}")),
        (Some(place), None) => Some(place.to_owned()),
        (None, position) => position,
    }
}

fn random_batch() -> BatchId {
    BatchId::random_from(rand::random())
}

fn reason_of(error: &AdmitError) -> Reason {
    match error {
        AdmitError::UnknownStream(_) => Reason::UnknownStream,
        AdmitError::Column(ColumnError::Type { .. }) => Reason::WrongType,
        AdmitError::TooManyRows => Reason::TooManySamples,
        AdmitError::Column(ColumnError::Unknown { .. } | ColumnError::Twice(_))
        | AdmitError::Identity
        | AdmitError::Arrow(_) => Reason::Malformed,
    }
}

fn refusal_of(error: &AdmitError) -> Refusal {
    Refusal::malformed(reason_of(error), error.to_string())
}

/// The reason and place of what the sender must mend; None where the fault is not in the request.
fn reason_to_record(refusal: &Refusal) -> Option<(Reason, Option<String>)> {
    match refusal {
        Refusal::Malformed { reason, position, .. } => Some((*reason, position.clone())),
        Refusal::TooLarge { .. } => Some((Reason::TooLarge, None)),
        Refusal::Unsupported { .. } => Some((Reason::UnsupportedFormat, None)),
        _ => None,
    }
}

/// Seconds, rounded up, as `Retry-After` has them.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_micros().div_ceil(SECOND as u128).max(1) as u64
}
