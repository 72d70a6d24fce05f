//! Units: the base units columns are kept in, and the foreign units that convert to them by a factor.
//!
//! Temperatures convert only from degrees Celsius: Fahrenheit and kelvin need an offset, which no mapping has yet needed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// What a column's numbers are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// `seconds`
    Seconds,
    /// `bytes`
    Bytes,
    /// `joules`
    Joules,
    /// `watts`
    Watts,
    /// `ratio`: 0 to 1 where it is a share.
    Ratio,
    /// `celsius`
    Celsius,
    /// `hertz`
    Hertz,
    /// `volts`
    Volts,
    /// `bytes_per_second`
    BytesPerSecond,
    /// `per_second`: things counted a second.
    PerSecond,
    /// `count`: things counted: packets, tokens, requests, errors.
    Count,
    /// `none`: codes, states and text.
    None,
}

impl Unit {
    /// Every base unit.
    pub const ALL: [Unit; 12] = [
        Unit::Seconds,
        Unit::Bytes,
        Unit::Joules,
        Unit::Watts,
        Unit::Ratio,
        Unit::Celsius,
        Unit::Hertz,
        Unit::Volts,
        Unit::BytesPerSecond,
        Unit::PerSecond,
        Unit::Count,
        Unit::None,
    ];

    /// The name in the catalog and in field metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Joules => "joules",
            Unit::Watts => "watts",
            Unit::Ratio => "ratio",
            Unit::Celsius => "celsius",
            Unit::Hertz => "hertz",
            Unit::Volts => "volts",
            Unit::BytesPerSecond => "bytes_per_second",
            Unit::PerSecond => "per_second",
            Unit::Count => "count",
            Unit::None => "none",
        }
    }

    /// The base unit of that name.
    pub fn named(name: &str) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.as_str() == name)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JsonSchema for Unit {
    fn schema_name() -> Cow<'static, str> {
        "Unit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Unit::ALL.map(Unit::as_str)})
    }
}

/// Any unit that a mapping may name, for the schema of its files.
#[derive(Debug)]
pub struct AnyUnit;

impl JsonSchema for AnyUnit {
    fn schema_name() -> Cow<'static, str> {
        "AnyUnit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": known_units().collect::<Vec<_>>()})
    }
}

/// Foreign units, as mappings name them: foreign value × factor = value in the base unit.
const CONVERSIONS: &[(&str, Unit, f64)] = &[
    ("milliseconds", Unit::Seconds, 1e-3),
    ("microseconds", Unit::Seconds, 1e-6),
    ("nanoseconds", Unit::Seconds, 1e-9),
    ("minutes", Unit::Seconds, 60.0),
    ("hours", Unit::Seconds, 3600.0),
    ("kilobytes", Unit::Bytes, 1e3),
    ("megabytes", Unit::Bytes, 1e6),
    ("gigabytes", Unit::Bytes, 1e9),
    ("kibibytes", Unit::Bytes, 1024.0),
    ("mebibytes", Unit::Bytes, 1_048_576.0),
    ("gibibytes", Unit::Bytes, 1_073_741_824.0),
    ("sectors", Unit::Bytes, 512.0),
    ("bits", Unit::Bytes, 0.125),
    ("millijoules", Unit::Joules, 1e-3),
    ("microjoules", Unit::Joules, 1e-6),
    ("kilojoules", Unit::Joules, 1e3),
    ("watt_hours", Unit::Joules, 3600.0),
    ("kilowatt_hours", Unit::Joules, 3.6e6),
    ("milliwatts", Unit::Watts, 1e-3),
    ("microwatts", Unit::Watts, 1e-6),
    ("kilowatts", Unit::Watts, 1e3),
    ("percent", Unit::Ratio, 1e-2),
    ("permille", Unit::Ratio, 1e-3),
    ("ppm", Unit::Ratio, 1e-6),
    ("ppb", Unit::Ratio, 1e-9),
    ("millicelsius", Unit::Celsius, 1e-3),
    ("kilohertz", Unit::Hertz, 1e3),
    ("megahertz", Unit::Hertz, 1e6),
    ("gigahertz", Unit::Hertz, 1e9),
    ("millivolts", Unit::Volts, 1e-3),
    ("kibibytes_per_second", Unit::BytesPerSecond, 1024.0),
    ("mebibytes_per_second", Unit::BytesPerSecond, 1_048_576.0),
    ("bits_per_second", Unit::BytesPerSecond, 0.125),
    ("megabits_per_second", Unit::BytesPerSecond, 125_000.0),
];

/// The base unit a unit belongs to, and the factor to it; None for a unit without a conversion.
pub fn conversion(name: &str) -> Option<(Unit, f64)> {
    let base = Unit::named(name).map(|unit| (unit, 1.0));
    base.or_else(|| CONVERSIONS.iter().find(|(known, ..)| *known == name).map(|&(_, unit, factor)| (unit, factor)))
}

/// Every unit a mapping may name, for "did you mean".
pub fn known_units() -> impl Iterator<Item = &'static str> {
    Unit::ALL.into_iter().map(Unit::as_str).chain(CONVERSIONS.iter().map(|(name, ..)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one value per conversion, worked out by hand.
    #[test]
    fn foreign_units_convert_to_base_units() {
        for (foreign, value, unit, base) in [
            ("percent", 50.0, Unit::Ratio, 0.5),
            ("mebibytes", 2.0, Unit::Bytes, 2_097_152.0),
            ("gibibytes", 1.0, Unit::Bytes, 1_073_741_824.0),
            ("millijoules", 319_159_391.0, Unit::Joules, 319_159.391),
            ("microjoules", 1e6, Unit::Joules, 1.0),
            ("kilowatt_hours", 2.0, Unit::Joules, 7.2e6),
            ("milliwatts", 1500.0, Unit::Watts, 1.5),
            ("microwatts", 4_795_000.0, Unit::Watts, 4.795),
            ("nanoseconds", 250.0, Unit::Seconds, 2.5e-7),
            ("microseconds", 250.0, Unit::Seconds, 2.5e-4),
            ("milliseconds", 250.0, Unit::Seconds, 0.25),
            ("megahertz", 1215.0, Unit::Hertz, 1.215e9),
            ("megabits_per_second", 8.0, Unit::BytesPerSecond, 1e6),
            ("ppb", -15_705.0, Unit::Ratio, -1.5705e-5),
            ("seconds", 3.0, Unit::Seconds, 3.0),
        ] {
            let (to, factor) = conversion(foreign).unwrap();
            assert_eq!(to, unit, "{foreign}");
            assert!((value * factor - base).abs() <= base.abs() * 1e-12, "{value} {foreign} is {base} {unit}");
        }
        assert_eq!(conversion("furlongs"), None);
        assert_eq!(conversion("fahrenheit"), None);
    }

    #[test]
    fn a_unit_has_one_name_and_one_factor() {
        let names: std::collections::HashSet<&str> = known_units().collect();
        assert_eq!(names.len(), known_units().count());
    }
}
