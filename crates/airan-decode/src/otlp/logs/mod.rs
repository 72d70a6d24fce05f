//! Log records that are events, as rows of the stream that the catalog maps `otel.event` to.
//!
//! A record is an event if it has an event name: the field `event_name`, or before OTLP 1.5 the attribute `event.name`
//! (opentelemetry.io, "Logs data model", "Events"). Any other record is refused alone, under a reason of its own: this is no store of
//! logs. An event is one row, whatever else happened to its object at its instant.
//!
//! Of a record are read: `time_unix_nano`, or where it has none `observed_time_unix_nano`; the severity's number; attributes, but
//! for those the mapping ignores; of a body with fields those that the mapping names, as `body.<field>`. Everything else of a body is
//! left out and counted, for it may quote a subscriber. Trace and span are not read: they name a request of somebody.

mod json;
mod protobuf;

use std::borrow::Cow;

use airan_model::catalog::{Catalog, MetricMapping};
use airan_model::reject::Reason;

use super::{Sink, Times, point};
use crate::labels::words;
use crate::rows::MetricKind;
use crate::{Context, DecodeError, Decoded};

/// The name the catalog knows events by.
const EVENT: &str = "otel.event";
/// The label that is the event's name, and the attribute that was it once.
const EVENT_NAME: &str = "event.name";
/// What a label that is a field of the body begins with.
const BODY: &str = "body.";

/// Reads an `ExportLogsServiceRequest` in protobuf.
///
/// # Errors
/// If the bytes are no such message. What is wrong with single records is in [`Decoded::refused`].
pub fn decode_logs_protobuf(body: &[u8], context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let mut sink = Sink::new(context);
    protobuf::read(body, &mut sink)?;
    sink.rows.finish()
}

/// Reads an `ExportLogsServiceRequest` in OTLP's JSON.
///
/// # Errors
/// If the text is no such message, with line and column.
pub fn decode_logs_json(body: &[u8], context: &Context<'_>) -> Result<Decoded, DecodeError> {
    let mut sink = Sink::new(context);
    json::read(body, &mut sink)?;
    sink.rows.finish()
}

/// What the catalog says of events.
#[derive(Debug)]
pub(super) struct Events<'a> {
    // Attributes that are not read.
    ignored: &'a [String],
    // Fields of a body that are.
    fields: Vec<&'a str>,
}

impl<'a> Events<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Events<'a> {
        let mapping: Option<&'a MetricMapping> = catalog.metric(EVENT).map(|mapping| &**mapping);
        let Some(mapping) = mapping else { return Events { ignored: &[], fields: Vec::new() } };
        let source = &mapping.source;
        let entity = source.entity.iter().flat_map(|entity| &entity.labels);
        let conditions = mapping.targets.iter().flat_map(|target| target.when.iter().map(|(label, _)| label));
        let without = mapping.targets.iter().flat_map(|target| &target.without);
        let labels = source.columns.iter().map(|(label, _)| label).chain(entity).chain(conditions).chain(without);
        let fields =
            labels.chain(&source.node).chain(&source.needs_one_of).filter_map(|label| label.strip_prefix(BODY));
        Events { ignored: &source.ignore, fields: fields.collect() }
    }

    fn ignores(&self, attribute: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == attribute)
    }

    /// The label of a body's field, if the catalog names it.
    fn label_of(&self, field: &str) -> Option<&'a str> {
        self.fields.iter().copied().find(|known| *known == field)
    }
}

/// A `LogRecord` without its attributes and body.
#[derive(Debug, Default)]
struct Record<'b> {
    time: u64,
    observed: u64,
    severity: i64,
    name: Cow<'b, str>,
    // By the attribute: the field goes first.
    named: Cow<'b, str>,
    // It has a body, or a part of one, that is left out.
    leaves_out: bool,
}

impl<'b> Record<'b> {
    fn is_event(&self) -> bool {
        !self.name.is_empty() || !self.named.is_empty()
    }
}

impl<'b> Sink<'_, 'b> {
    /// A record whose attributes, and as an event whose body, have been read.
    fn record(&mut self, record: Record<'b>) {
        if !record.is_event() {
            return self.refuse_record(Reason::NotAnEvent, "no event: neither event_name nor the attribute event.name");
        }
        let leaves_out = record.leaves_out;
        let name = if record.name.is_empty() { record.named } else { record.name };
        self.labels.set(Cow::Borrowed(EVENT_NAME), name);
        if let Some(reason) = self.labels.get().err().or(self.shared_fault) {
            return self.refuse_record(reason, words(reason));
        }
        if leaves_out {
            self.rows.body();
        }
        self.rows.metric(EVENT, MetricKind::Event);
        let time = if record.time > 0 { record.time } else { record.observed };
        let times = Times { time, ..Times::default() };
        let point = point(&self.labels, &self.shared, self.node, false, times);
        self.rows.event(&point, record.severity);
    }

    fn refuse_record(&mut self, reason: Reason, what: &'static str) {
        let record = self.rows.count() + 1;
        self.rows.refuse(reason, 1, || format!("{what} (log record {record})"));
    }
}

#[cfg(test)]
#[path = "../../otlp_logs_tests.rs"]
mod tests;
