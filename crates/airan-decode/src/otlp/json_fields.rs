//! The messages of OTLP's JSON as serde reads them, one level at a time.
//!
//! Owns which fields are read, under which name, and in which spellings a number may come: 64-bit integers as texts or numbers, floats
//! also as `NaN` and `Infinity`, enumerations as numbers or by name (OTLP 1.0, "JSON Protobuf Encoding"). Fields that are not here
//! are skipped. Text is borrowed from the body and lists stay text until [`json`](super::json) walks them, so a message costs its own
//! fields and no tree. Nothing here judges what it reads: what a point means is for [`points`](super::points).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Temporality;
use crate::number::Number;

/// A list that is not read yet.
pub(super) type List<'b> = Option<&'b RawValue>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'b> {
    #[serde(borrow, default)]
    pub resource_metrics: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceMetrics<'b> {
    #[serde(borrow, default)]
    pub resource: Option<Resource<'b>>,
    #[serde(borrow, default)]
    pub scope_metrics: List<'b>,
}

#[derive(Deserialize)]
pub(super) struct Resource<'b> {
    #[serde(borrow, default)]
    pub attributes: List<'b>,
}

#[derive(Deserialize)]
pub(super) struct ScopeMetrics<'b> {
    #[serde(borrow, default)]
    pub scope: Option<Scope<'b>>,
    #[serde(borrow, default)]
    pub metrics: List<'b>,
}

#[derive(Default, Deserialize)]
pub(super) struct Scope<'b> {
    #[serde(borrow, default)]
    pub name: Text<'b>,
    #[serde(borrow, default)]
    pub version: Text<'b>,
    #[serde(borrow, default)]
    pub attributes: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metric<'b> {
    #[serde(borrow, default)]
    pub name: Text<'b>,
    #[serde(borrow, default)]
    pub gauge: Option<Points<'b>>,
    #[serde(borrow, default)]
    pub sum: Option<Points<'b>>,
    #[serde(borrow, default)]
    pub histogram: Option<Points<'b>>,
    #[serde(borrow, default)]
    pub exponential_histogram: Option<Points<'b>>,
    #[serde(borrow, default)]
    pub summary: Option<Points<'b>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Points<'b> {
    #[serde(borrow, default)]
    pub data_points: List<'b>,
    #[serde(default)]
    pub aggregation_temporality: TemporalityText,
    #[serde(default)]
    pub is_monotonic: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NumberPoint<'b> {
    #[serde(borrow, default)]
    pub attributes: List<'b>,
    #[serde(default)]
    pub start_time_unix_nano: Unsigned,
    #[serde(default)]
    pub time_unix_nano: Unsigned,
    #[serde(default)]
    pub as_double: Option<Double>,
    #[serde(default)]
    pub as_int: Option<Signed>,
    #[serde(borrow, default)]
    pub exemplars: List<'b>,
    #[serde(default)]
    pub flags: Unsigned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistogramPoint<'b> {
    #[serde(borrow, default)]
    pub attributes: List<'b>,
    #[serde(default)]
    pub start_time_unix_nano: Unsigned,
    #[serde(default)]
    pub time_unix_nano: Unsigned,
    #[serde(default)]
    pub count: Unsigned,
    #[serde(default)]
    pub sum: Option<Double>,
    #[serde(borrow, default)]
    pub bucket_counts: List<'b>,
    #[serde(borrow, default)]
    pub explicit_bounds: List<'b>,
    #[serde(borrow, default)]
    pub exemplars: List<'b>,
    #[serde(default)]
    pub flags: Unsigned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExponentialHistogramPoint<'b> {
    #[serde(borrow, default)]
    pub attributes: List<'b>,
    #[serde(default)]
    pub start_time_unix_nano: Unsigned,
    #[serde(default)]
    pub time_unix_nano: Unsigned,
    #[serde(default)]
    pub count: Unsigned,
    #[serde(default)]
    pub sum: Option<Double>,
    #[serde(default)]
    pub scale: Option<Signed>,
    #[serde(default)]
    pub zero_count: Unsigned,
    #[serde(default)]
    pub zero_threshold: Option<Double>,
    #[serde(borrow, default)]
    pub positive: Option<ExponentialBuckets<'b>>,
    #[serde(borrow, default)]
    pub negative: Option<ExponentialBuckets<'b>>,
    #[serde(borrow, default)]
    pub exemplars: List<'b>,
    #[serde(default)]
    pub flags: Unsigned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExponentialBuckets<'b> {
    #[serde(default)]
    pub offset: Option<Signed>,
    #[serde(borrow, default)]
    pub bucket_counts: List<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SummaryDataPoint<'b> {
    #[serde(borrow, default)]
    pub attributes: List<'b>,
    #[serde(default)]
    pub start_time_unix_nano: Unsigned,
    #[serde(default)]
    pub time_unix_nano: Unsigned,
    #[serde(default)]
    pub count: Unsigned,
    #[serde(default)]
    pub sum: Option<Double>,
    #[serde(borrow, default)]
    pub quantile_values: List<'b>,
    #[serde(default)]
    pub flags: Unsigned,
}

#[derive(Deserialize)]
pub(super) struct QuantileValue {
    #[serde(default)]
    pub quantile: Option<Double>,
    #[serde(default)]
    pub value: Option<Double>,
}

#[derive(Deserialize)]
pub(super) struct KeyValue<'b> {
    #[serde(borrow, default)]
    pub key: Text<'b>,
    #[serde(borrow, default)]
    pub value: Option<AnyValue<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnyValue<'b> {
    #[serde(borrow, default)]
    pub string_value: Option<Text<'b>>,
    #[serde(default)]
    pub bool_value: Option<bool>,
    #[serde(default)]
    pub int_value: Option<Signed>,
    #[serde(default)]
    pub double_value: Option<Double>,
    #[serde(borrow, default)]
    pub array_value: Option<Values<'b>>,
    #[serde(borrow, default)]
    pub kvlist_value: Option<Values<'b>>,
    // Base64 already, and kept so.
    #[serde(borrow, default)]
    pub bytes_value: Option<Text<'b>>,
}

#[derive(Deserialize)]
pub(super) struct Values<'b> {
    #[serde(borrow, default)]
    pub values: List<'b>,
}

/// Text, borrowed where it has no escapes.
#[derive(Default)]
pub(super) struct Text<'b>(pub Cow<'b, str>);

/// A 64-bit integer without sign, as number or string.
#[derive(Clone, Copy, Default)]
pub(super) struct Unsigned(pub u64);

/// A 64-bit integer, as number or string.
#[derive(Clone, Copy)]
pub(super) struct Signed(pub i64);

/// A double, as number or string.
#[derive(Clone, Copy)]
pub(super) struct Double(pub f64);

/// `AggregationTemporality`, as number or name.
#[derive(Clone, Copy, Default)]
pub(super) struct TemporalityText(pub Temporality);

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Text<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

/// A number in any of JSON's ways, or in a string.
enum AnyNumber {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Nothing,
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = AnyNumber;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<AnyNumber, E> {
        Ok(AnyNumber::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<AnyNumber, E> {
        Ok(AnyNumber::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<AnyNumber, E> {
        Ok(AnyNumber::Float(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AnyNumber, E> {
        let text = text.trim();
        let unsigned = text.parse().map(AnyNumber::Unsigned).ok();
        let signed = || text.parse().map(AnyNumber::Signed).ok();
        let float = || text.parse().map(AnyNumber::Float).ok();
        unsigned.or_else(signed).or_else(float).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_unit<E: Error>(self) -> Result<AnyNumber, E> {
        Ok(AnyNumber::Nothing)
    }
}

impl AnyNumber {
    fn unsigned(self) -> Option<u64> {
        match self {
            AnyNumber::Unsigned(value) => Some(value),
            AnyNumber::Signed(_) => None,
            AnyNumber::Float(value) => {
                (value.fract() == 0.0 && (0.0..2f64.powi(64)).contains(&value)).then_some(value as u64)
            }
            AnyNumber::Nothing => Some(0),
        }
    }

    fn signed(self) -> Option<i64> {
        match self {
            AnyNumber::Unsigned(value) => i64::try_from(value).ok(),
            AnyNumber::Signed(value) => Some(value),
            AnyNumber::Float(value) => Number::Float(value).as_i64(),
            AnyNumber::Nothing => Some(0),
        }
    }

    fn float(self) -> f64 {
        match self {
            AnyNumber::Unsigned(value) => value as f64,
            AnyNumber::Signed(value) => value as f64,
            AnyNumber::Float(value) => value,
            AnyNumber::Nothing => 0.0,
        }
    }
}

impl<'de> Deserialize<'de> for Unsigned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(NumberVisitor)?;
        number.unsigned().map(Unsigned).ok_or_else(|| D::Error::custom("not an unsigned integer"))
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(NumberVisitor)?;
        number.signed().map(Signed).ok_or_else(|| D::Error::custom("not an integer"))
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor).map(|number| Double(number.float()))
    }
}

/// A value of a protobuf enumeration: its number, or its name by `number_of`. What is neither, or not known, is 0, as protobuf has it.
pub(super) fn enumeration<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    number_of: fn(&str) -> Option<i64>,
) -> Result<i64, D::Error> {
    struct NameOrNumber(&'static str, fn(&str) -> Option<i64>);
    impl Visitor<'_> for NameOrNumber {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<i64, E> {
            Ok(self.1(name).unwrap_or(0))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
            Ok(i64::try_from(number).unwrap_or(0))
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<i64, E> {
            Ok(0)
        }

        fn visit_unit<E: Error>(self) -> Result<i64, E> {
            Ok(0)
        }
    }
    deserializer.deserialize_any(NameOrNumber(what, number_of))
}

impl<'de> Deserialize<'de> for TemporalityText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number_of = |name: &str| match name {
            "AGGREGATION_TEMPORALITY_DELTA" => Some(1),
            "AGGREGATION_TEMPORALITY_CUMULATIVE" => Some(2),
            _ => None,
        };
        let number = enumeration(deserializer, "an aggregation temporality", number_of)?;
        Ok(TemporalityText(Temporality::from_number(number)))
    }
}
