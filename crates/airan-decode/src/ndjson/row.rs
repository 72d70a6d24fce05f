//! One line: its keys and values, each fitted to its column or the line is refused.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use airan_model::catalog::Stream;
use airan_model::identity::BatchId;
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use airan_model::schema;
use airan_model::time::{Micros, parse_rfc3339};
use arrow::datatypes::DataType;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Context;
use crate::histogram::Histogram;
use crate::labels::{Classes, words};
use crate::number::Number;
use crate::refusals::shown;

/// Most keys of one object: more than any stream has columns, or a sample may have labels.
const KEYS_MAX: usize = 1024;
/// Columns a sender may name, whose values are the gateway's.
const GATEWAYS: [&str; 4] = [schema::RECEIVED_AT, schema::REGION, schema::SITE, schema::SOURCE];

/// Why a line is refused.
pub(super) type Refusal = (Reason, String);

/// A line's row.
#[derive(Debug)]
pub(super) struct Row<'l, 'c> {
    pub stream: &'c Arc<Stream>,
    /// Values by column of the stream's schema.
    pub values: Vec<(usize, Value<'l>)>,
    pub attributes: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    /// Keys that name a subscriber.
    pub dropped: u64,
}

/// A value that fits its column.
#[derive(Debug)]
pub(super) enum Value<'l> {
    Text(Cow<'l, str>),
    Float(f64),
    Int(i64),
    Time(Micros),
    Histogram(Histogram),
}

impl<'l, 'c> Row<'l, 'c> {
    /// The row that a line's keys make.
    pub(super) fn of(keys: Keys<'l>, context: &Context<'c>, classes: &mut Classes<'_>) -> Result<Self, Refusal> {
        let malformed = |what: &str| (Reason::Malformed, what.to_owned());
        let named = keys.pairs.iter().find(|(key, _)| key == "stream").and_then(|(_, value)| text_of(value));
        let name = named.ok_or_else(|| malformed("no `stream`"))?;
        let unknown = || (Reason::UnknownStream, format!("there is no stream {}", shown(&name)));
        let stream = context.catalog.stream(&name).ok_or_else(unknown)?;

        let mut row = Row { stream, values: Vec::with_capacity(keys.pairs.len()), attributes: Vec::new(), dropped: 0 };
        for (key, value) in keys.pairs.into_iter().filter(|(key, _)| key != "stream") {
            row.take(key, value, context.limits, classes)?;
        }
        Ok(row)
    }

    /// Whether the row has a time of its own.
    pub(super) fn has_time(&self) -> bool {
        let place = self.stream.place_of(schema::TS);
        self.values.iter().any(|(at, _)| Some(*at) == place)
    }

    fn take(
        &mut self,
        key: Cow<'l, str>,
        value: &'l RawValue,
        limits: &Limits,
        classes: &mut Classes<'_>,
    ) -> Result<(), Refusal> {
        let Some(place) = self.stream.place_of(&key) else {
            if classes.drops(&key) {
                self.dropped += 1;
                return Ok(());
            }
            let what = format!("stream {} has no column {}", shown(&self.stream.name), shown(&key));
            return Err((Reason::WrongType, what));
        };
        if value.get() == "null" || GATEWAYS.contains(&&*key) {
            return Ok(());
        }
        if key == schema::ATTRIBUTES {
            return self.attributes(value, limits, classes);
        }
        let wrong = |expected: &str| (Reason::WrongType, format!("{} must be {expected}", shown(&key)));
        let found = match self.stream.schema().field(place).data_type() {
            DataType::Timestamp(..) => Value::Time(time_of(value).ok_or_else(|| {
                (Reason::BadTime, format!("{} must be RFC 3339 text or microseconds since 1970", shown(&key)))
            })?),
            DataType::Utf8 => {
                let text = text_of(value).ok_or_else(|| wrong("text"))?;
                if text.len() > limits.label_bytes {
                    return Err((Reason::LabelTooLong, format!("{} is too long", shown(&key))));
                }
                if key == schema::BATCH && BatchId::from_hex(&text).is_none() {
                    return Err(wrong("32 hex digits"));
                }
                if text.is_empty() {
                    return Ok(());
                }
                Value::Text(text)
            }
            DataType::Float64 => Value::Float(float_of(value).ok_or_else(|| wrong("a number"))?),
            DataType::Int64 => {
                let number = int_of(value).ok_or_else(|| wrong("an integer"))?;
                if key == schema::SEQ && number < 0 {
                    return Err(wrong("0 or more"));
                }
                Value::Int(number)
            }
            _ => Value::Histogram(histogram_of(value).map_err(|what| {
                (Reason::WrongType, format!("{} must be a histogram (bounds, counts, sum, count): {what}", shown(&key)))
            })?),
        };
        if self.values.iter().any(|(taken, _)| *taken == place) {
            return Err((Reason::Malformed, format!("{} occurs twice", shown(&key))));
        }
        self.values.push((place, found));
        Ok(())
    }

    fn attributes(&mut self, value: &'l RawValue, limits: &Limits, classes: &mut Classes<'_>) -> Result<(), Refusal> {
        let wrong = || (Reason::WrongType, "`attributes` must be an object of texts, numbers and booleans".to_owned());
        let keys: Keys<'l> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
        let refuse = |reason: Reason| (reason, words(reason).to_owned());
        if keys.has_more {
            return Err(refuse(Reason::TooManyLabels));
        }
        for (key, value) in keys.pairs {
            let text = match value.get() {
                "null" => continue,
                _ if classes.drops(&key) => {
                    self.dropped += 1;
                    continue;
                }
                plain if !plain.starts_with(['"', '[', '{']) => Cow::Borrowed(plain),
                _ => text_of(value).ok_or_else(wrong)?,
            };
            if key.len() > limits.label_bytes || text.len() > limits.label_bytes {
                return Err(refuse(Reason::LabelTooLong));
            }
            if self.attributes.len() >= limits.labels_per_sample {
                return Err(refuse(Reason::TooManyLabels));
            }
            if self.attributes.iter().any(|(taken, _)| *taken == key) {
                return Err((Reason::Malformed, "an attribute occurs twice".to_owned()));
            }
            if !text.is_empty() {
                self.attributes.push((key, text));
            }
        }
        Ok(())
    }
}

pub(super) fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn time_of(value: &RawValue) -> Option<Micros> {
    match text_of(value) {
        Some(text) => parse_rfc3339(&text),
        None => value.get().parse().ok(),
    }
}

fn float_of(value: &RawValue) -> Option<f64> {
    let text = value.get();
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    text.parse::<f64>().ok().filter(|number| is_number && number.is_finite())
}

fn int_of(value: &RawValue) -> Option<i64> {
    value.get().parse().ok().or_else(|| Number::Float(float_of(value)?).as_i64())
}

fn histogram_of(value: &RawValue) -> Result<Histogram, &'static str> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parts {
        bounds: Vec<f64>,
        counts: Vec<i64>,
        sum: Option<f64>,
        count: i64,
    }
    let Parts { bounds, counts, sum, count } =
        serde_json::from_str(value.get()).map_err(|_| "a part is missing, unknown or of another type")?;
    let histogram = Histogram { bounds, counts, sum, count };
    histogram.check()?;
    Ok(histogram)
}

/// An object's keys with their values as written.
#[derive(Debug, Default)]
pub(super) struct Keys<'l> {
    pub pairs: Vec<(Cow<'l, str>, &'l RawValue)>,
    /// There are more than [`KEYS_MAX`].
    pub has_more: bool,
}

impl<'l> Keys<'l> {
    /// Those of a line.
    pub(super) fn read(line: &'l [u8]) -> Result<Keys<'l>, Refusal> {
        let malformed = |what: &str| (Reason::Malformed, what.to_owned());
        let text = std::str::from_utf8(line).map_err(|_| malformed("not UTF-8"))?;
        let keys: Keys<'l> = serde_json::from_str(text).map_err(|error| {
            let column = error.column();
            let what = if error.is_data() { "not a JSON object" } else { "not JSON" };
            malformed(&format!("{what} (column {column})"))
        })?;
        if keys.has_more {
            return Err((Reason::TooManyLabels, format!("more than {KEYS_MAX} keys")));
        }
        Ok(keys)
    }
}

impl<'de: 'l, 'l> Deserialize<'de> for Keys<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Keys<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'de>, A::Error> {
                let mut keys = Keys::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    let value = map.next_value()?;
                    if keys.pairs.len() < KEYS_MAX {
                        keys.pairs.push((key.0, value));
                    } else {
                        keys.has_more = true;
                    }
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'l>(Cow<'l, str>);

impl<'de: 'l, 'l> Deserialize<'de> for Key<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text).map(Key)
    }
}
