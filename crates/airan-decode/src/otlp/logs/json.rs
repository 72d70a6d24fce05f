//! A request's log records in OTLP's JSON.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::{BODY, EVENT_NAME, Record};
use crate::DecodeError;
use crate::otlp::Sink;
use crate::otlp::json::Reader;
use crate::otlp::json_fields::{AnyValue, KeyValue, List, Resource, Scope, Text, Unsigned, enumeration};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'b> {
    #[serde(borrow, default)]
    resource_logs: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'b> {
    #[serde(borrow, default)]
    resource: Option<Resource<'b>>,
    #[serde(borrow, default)]
    scope_logs: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'b> {
    #[serde(borrow, default)]
    scope: Option<Scope<'b>>,
    #[serde(borrow, default)]
    log_records: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogRecord<'b> {
    #[serde(default)]
    time_unix_nano: Unsigned,
    #[serde(default)]
    observed_time_unix_nano: Unsigned,
    #[serde(default)]
    severity_number: Severity,
    #[serde(borrow, default)]
    body: Option<AnyValue<'b>>,
    #[serde(borrow, default)]
    attributes: List<'b>,
    #[serde(borrow, default)]
    event_name: Text<'b>,
}

/// `SeverityNumber`, as number or name.
#[derive(Clone, Copy, Default)]
struct Severity(i64);

/// Reads an `ExportLogsServiceRequest`.
pub(super) fn read<'b>(body: &'b [u8], sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
    let (reader, request) = Reader::of::<Request<'b>>(body, "logs")?;
    reader.each(request.resource_logs, |one: ResourceLogs<'b>| {
        reader.resource(one.resource, sink)?;
        reader.each(one.scope_logs, |one: ScopeLogs<'b>| {
            reader.scope(one.scope, sink)?;
            reader.each(one.log_records, |one| record(reader, one, sink))
        })
    })
}

fn record<'b>(reader: Reader<'b>, message: LogRecord<'b>, sink: &mut Sink<'_, 'b>) -> Result<(), DecodeError> {
    sink.labels.clear();
    let mut record = Record {
        time: message.time_unix_nano.0,
        observed: message.observed_time_unix_nano.0,
        severity: message.severity_number.0,
        name: message.event_name.0,
        ..Record::default()
    };
    reader.each(message.attributes, |pair: KeyValue<'b>| {
        let (key, Some(value)) = (pair.key.0, pair.value) else { return Ok(()) };
        if sink.events.ignores(&key) {
            return Ok(());
        }
        if key == EVENT_NAME {
            record.named = value.string_value.map_or(Cow::Borrowed(""), |text| text.0);
            return Ok(());
        }
        reader.label(key, value, sink)
    })?;
    if let Some(body) = message.body.filter(|_| record.is_event()) {
        record.leaves_out = fields(reader, body, sink)?;
    }
    sink.record(record);
    Ok(())
}

/// Takes the fields of a body that the catalog names; whether anything was left out.
fn fields<'b>(reader: Reader<'b>, body: AnyValue<'b>, sink: &mut Sink<'_, 'b>) -> Result<bool, DecodeError> {
    let Some(map) = body.kvlist_value else {
        let is_nothing = body.string_value.is_none()
            && body.bool_value.is_none()
            && body.int_value.is_none()
            && body.double_value.is_none()
            && body.array_value.is_none()
            && body.bytes_value.is_none();
        return Ok(!is_nothing);
    };
    let mut leaves_out = false;
    reader.each(map.values, |pair: KeyValue<'b>| {
        match (pair.key.0, pair.value) {
            (key, Some(value)) if sink.events.label_of(&key).is_some() => {
                reader.label(Cow::Owned(format!("{BODY}{key}")), value, sink)?;
            }
            _ => leaves_out = true,
        }
        Ok(())
    })?;
    Ok(leaves_out)
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        enumeration(deserializer, "a severity number", number_of).map(Severity)
    }
}

/// The number of `SEVERITY_NUMBER_WARN2`: four of each of six words, counted from 1.
fn number_of(name: &str) -> Option<i64> {
    let name = name.strip_prefix("SEVERITY_NUMBER_")?;
    let (word, within) = match name.strip_suffix(['2', '3', '4']) {
        Some(word) => (word, i64::from(name.as_bytes()[word.len()] - b'1')),
        None => (name, 0),
    };
    let at = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"].iter().position(|known| *known == word)?;
    Some(at as i64 * 4 + within + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_have_names_too() {
        for (name, number) in [("TRACE", 1), ("TRACE4", 4), ("INFO2", 10), ("WARN", 13), ("ERROR3", 19), ("FATAL4", 24)]
        {
            assert_eq!(number_of(&format!("SEVERITY_NUMBER_{name}")), Some(number), "{name}");
        }
        for none in ["SEVERITY_NUMBER_UNSPECIFIED", "SEVERITY_NUMBER_INFO5", "WARN", "SEVERITY_NUMBER_2", ""] {
            assert_eq!(number_of(none), None, "{none}");
        }
    }
}
