//! Values as people write them in configuration files: durations, sizes, secrets.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::time::Micros;

/// A duration written as `500us`, `250ms`, `10s`, `2m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationSetting(Duration);

impl DurationSetting {
    /// As the standard library's type.
    pub fn get(self) -> Duration {
        self.0
    }

    /// In microseconds, at most `i64::MAX`.
    pub fn micros(self) -> Micros {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl From<Duration> for DurationSetting {
    fn from(span: Duration) -> Self {
        DurationSetting(span)
    }
}

/// Why a text is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not a number and a unit of time.
    #[error("`{0}` is no duration: write a whole number and one of us, ms, s, m, h, d, as in `10s`")]
    Duration(String),
    /// Not a number and a unit of size.
    #[error("`{0}` is no size: write a whole number and one of B, KB, MB, GB, KiB, MiB, GiB, TiB, as in `16MiB`")]
    Bytes(String),
}

/// A setting with which a role could not work. The user has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadSetting {
    /// Its full name, as `processor.commit.interval`.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
}

/// Longest accepted span of a timer or timeout; a longer one would overflow sums with the present.
pub const LONGEST_TIMER: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the settings of one section; the first mistake is kept.
#[derive(Debug)]
pub struct Checker {
    section: &'static str,
    fault: Option<BadSetting>,
}

impl Checker {
    /// For the section of this name.
    pub fn new(section: &'static str) -> Checker {
        Checker { section, fault: None }
    }

    /// Refuses `key` with these words unless `is_good`.
    pub fn require(&mut self, key: &str, is_good: bool, problem: &str) -> &mut Checker {
        if !is_good && self.fault.is_none() {
            self.fault = Some(BadSetting { key: format!("{}.{key}", self.section), problem: problem.to_owned() });
        }
        self
    }

    /// Refuses a number or size of zero.
    pub fn not_zero(&mut self, key: &str, value: u64) -> &mut Checker {
        self.require(key, value != 0, "must not be zero")
    }

    /// Refuses a timer of zero or of more than a day.
    pub fn timer(&mut self, key: &str, value: DurationSetting) -> &mut Checker {
        let is_good = !value.get().is_zero() && value.get() <= LONGEST_TIMER;
        self.require(key, is_good, "must be more than zero and at most 24h")
    }

    /// Refuses a span of zero. Unlike a timer nobody waits for its end, so it may be long.
    pub fn span(&mut self, key: &str, value: DurationSetting) -> &mut Checker {
        self.require(key, !value.get().is_zero(), "must be more than zero")
    }

    /// Refuses a least value over the greatest.
    pub fn ordered<T: PartialOrd>(&mut self, (least, a): (&str, T), (greatest, b): (&str, T)) -> &mut Checker {
        self.require(least, a <= b, &format!("must not be over {}.{greatest}", self.section))
    }

    /// The first mistake, if there was one.
    pub fn finish(&mut self) -> Result<(), BadSetting> {
        self.fault.take().map_or(Ok(()), Err)
    }
}

/// Splits `10s` in its whole number and its unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl std::str::FromStr for DurationSetting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refuse = || SettingError::Duration(text.to_owned());
        let (number, unit) = number_and_unit(text).ok_or_else(refuse)?;
        let micros: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(refuse()),
        };
        number.checked_mul(micros).map(|span| DurationSetting(Duration::from_micros(span))).ok_or_else(refuse)
    }
}

impl fmt::Display for DurationSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
        for (size, unit) in units {
            if micros != 0 && micros.is_multiple_of(size) {
                return write!(f, "{}{unit}", micros / size);
            }
        }
        if micros == 0 { f.write_str("0s") } else { write!(f, "{micros}us") }
    }
}

/// A size written as `1500B`, `256KiB`, `16MiB`, `4GiB`, `1TiB`, with decimal units too, or as a bare number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesSetting(u64);

impl BytesSetting {
    /// In bytes.
    pub fn get(self) -> u64 {
        self.0
    }

    /// In bytes, at most `usize::MAX`.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<u64> for BytesSetting {
    fn from(bytes: u64) -> Self {
        BytesSetting(bytes)
    }
}

impl std::str::FromStr for BytesSetting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refuse = || SettingError::Bytes(text.to_owned());
        let (number, unit) = number_and_unit(text).ok_or_else(refuse)?;
        let size: u64 = match unit {
            "" | "B" => 1,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(refuse()),
        };
        number.checked_mul(size).map(BytesSetting).ok_or_else(refuse)
    }
}

impl fmt::Display for BytesSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (size, unit) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads a value through `FromStr` from a string, or from a bare non-negative whole number.
struct Written<T>(std::marker::PhantomData<T>, &'static str);

impl<T: std::str::FromStr<Err = SettingError>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for DurationSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Written(std::marker::PhantomData, "a duration such as `10s`"))
    }
}

impl<'de> Deserialize<'de> for BytesSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(std::marker::PhantomData, "a size such as `16MiB`"))
    }
}

impl Serialize for DurationSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for BytesSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for DurationSetting {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^\s*[0-9]+\s*(us|ms|s|m|h|d)\s*$", "examples": ["500ms", "10s", "24h"]})
    }
}

impl JsonSchema for BytesSetting {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": r"^\s*[0-9]+\s*(B|[KMGT]i?B)?\s*$",
            "examples": ["256KiB", "16MiB", "10GiB"],
        })
    }
}

/// A text that is never printed: `Debug`, `Display` and serialisation all give `***`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_their_largest_whole_unit() {
        for (text, micros, back) in [
            ("10s", 10_000_000, "10s"),
            ("120s", 120_000_000, "2m"),
            ("7d", 604_800_000_000, "7d"),
            ("250ms", 250_000, "250ms"),
            ("0s", 0, "0s"),
            ("15us", 15, "15us"),
        ] {
            let read: DurationSetting = text.parse().unwrap();
            assert_eq!((read.micros(), read.to_string().as_str()), (micros, back), "{text}");
        }
        for text in ["10", "", "s", "-1s", "1.5s", "10 weeks", "99999999999999999999s", "18446744073709551615d"] {
            assert!(text.parse::<DurationSetting>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_in_their_largest_whole_unit() {
        for (text, bytes, back) in [
            ("16MiB", 16 << 20, "16MiB"),
            ("1500", 1500, "1500B"),
            ("2KB", 2000, "2000B"),
            ("4096KiB", 4 << 20, "4MiB"),
            ("0", 0, "0B"),
        ] {
            let read: BytesSetting = text.parse().unwrap();
            assert_eq!((read.get(), read.to_string().as_str()), (bytes, back), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "16Mb", "18446744073709551615KiB"] {
            assert!(text.parse::<BytesSetting>().is_err(), "{text}");
        }
    }

    #[test]
    fn settings_are_read_from_yaml_and_a_secret_is_never_printed() {
        #[derive(Deserialize, Debug)]
        struct Some {
            wait: DurationSetting,
            room: BytesSetting,
            number: BytesSetting,
            key: Secret,
        }
        let some: Some = serde_saphyr::from_str("wait: 2m\nroom: 16MiB\nnumber: 17\nkey: hunter2\n").unwrap();
        assert_eq!((some.wait.micros(), some.room.get(), some.number.get()), (120_000_000, 16 << 20, 17));
        assert_eq!(some.key.expose(), "hunter2");
        assert!(!format!("{some:?} {}", some.key).contains("hunter2"));
        assert_eq!(serde_json::to_string(&some.key).unwrap(), "\"***\"");
    }

    /// Scenario: settings of which several are wrong.
    /// Guarantees: the first is told by its full name.
    #[test]
    fn the_first_setting_that_cannot_work_is_named() {
        let of = |text: &str| text.parse::<DurationSetting>().unwrap();
        let mut good = Checker::new("a");
        good.not_zero("n", 1).timer("t", of("24h")).span("s", of("40d")).ordered(("lo", 1), ("hi", 1));
        assert_eq!(good.finish(), Ok(()));
        let mut bad = Checker::new("a");
        bad.not_zero("n", 1).timer("t.u", of("0s")).not_zero("z", 0);
        assert_eq!(bad.finish().unwrap_err().to_string(), "a.t.u: must be more than zero and at most 24h");
        assert!(Checker::new("a").timer("t", of("25h")).finish().is_err());
        assert!(Checker::new("a").span("s", of("0s")).finish().is_err());
        let inverted = Checker::new("a").ordered(("lo", 2), ("hi", 1)).finish().unwrap_err().to_string();
        assert_eq!(inverted, "a.lo: must not be over a.hi");
    }
}
