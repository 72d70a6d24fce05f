//! A request's log records in protobuf. Field numbers are those of `logs.proto`.

use std::borrow::Cow;

use super::{BODY, EVENT_NAME, Record};
use crate::DecodeError;
use crate::otlp::Sink;
use crate::otlp::protobuf::{AnyValue, any_value, label, pair, walk};
use crate::wire::{Fault, Message, Value};

/// Reads an `ExportLogsServiceRequest`.
pub(super) fn read<'b>(body: &'b [u8], sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
    walk(body, sink, "logs", record)
}

/// `LogRecord`.
fn record<'b>(message: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    sink.labels.clear();
    let mut record = Record::default();
    let mut body = None;
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Fixed64(nanos)) => record.time = nanos,
            (2, Value::Varint(number)) => record.severity = number as i64,
            (5, Value::Bytes(value)) => body = Some(value),
            (6, Value::Bytes(pair)) => attribute(pair, &mut record, sink)?,
            (11, Value::Fixed64(nanos)) => record.observed = nanos,
            (12, Value::Bytes(text)) => record.name = Cow::Borrowed(text.text()?),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(body) = body.filter(|_| record.is_event()) {
        record.leaves_out = fields(body, sink)?;
    }
    sink.record(record);
    Ok(())
}

fn attribute<'b>(message: Message<'b>, record: &mut Record<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), Fault> {
    let (key, Some(value)) = pair(message)? else { return Ok(()) };
    if sink.events.ignores(key) {
        return Ok(());
    }
    if key == EVENT_NAME {
        if let AnyValue::Text(text) = any_value(value)? {
            record.named = Cow::Borrowed(text);
        }
        return Ok(());
    }
    label(Cow::Borrowed(key), value, sink)
}

/// Takes the fields of a body that the catalog names; whether anything was left out.
fn fields<'b>(body: Message<'b>, sink: &mut Sink<'_, 'b>) -> Result<bool, Fault> {
    let map = match any_value(body)? {
        AnyValue::Map(map) => map,
        AnyValue::Nothing => return Ok(false),
        _ => return Ok(true),
    };
    let mut leaves_out = false;
    map.each::<Fault>(|field| {
        let (1, Value::Bytes(message)) = field else { return Ok(()) };
        match pair(message)? {
            (key, Some(value)) if sink.events.label_of(key).is_some() => {
                label(Cow::Owned(format!("{BODY}{key}")), value, sink)?;
            }
            _ => leaves_out = true,
        }
        Ok(())
    })?;
    Ok(leaves_out)
}
