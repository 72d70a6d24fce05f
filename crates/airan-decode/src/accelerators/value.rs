//! Values as vendors' tools print them: `12 MiB`, `67.03 W`, `16x`, `P0`, `Not Active`, `[N/A]`.

/// What a field holds, and so which units it may be printed in and how it becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes; a unit is required.
    Bytes,
    /// Bytes a second; NVIDIA's KB are 1000 bytes, as its exporters take them.
    BytesPerSecond,
    /// Watts.
    Watts,
    /// Degrees Celsius, with or without the unit.
    Celsius,
    /// Hertz; a unit is required.
    Hertz,
    /// A share, printed in percent.
    Percent,
    /// Seconds; a unit is required.
    Seconds,
    /// Microseconds without a unit.
    Micros,
    /// A plain number.
    Count,
    /// PCIe lanes: `16x` or `16`.
    Lanes,
    /// `P0` to `P15`.
    PState,
    /// A bit mask in hexadecimal.
    Mask,
    /// `Enabled` or `Disabled`.
    Mode,
    /// `Yes` or `No`.
    YesNo,
    /// `Active` or `Not Active`.
    Active,
    /// `Default`, `Exclusive_Thread`, `Prohibited`, `Exclusive_Process`: 0 to 3, as `nvidia-smi --help-query-gpu` numbers them.
    ComputeMode,
    /// What the driver recommends, numbered as `nvmlDeviceGpuRecoveryAction_t`.
    Recovery,
}

/// Why a text gives no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoValue {
    /// The source says that there is none.
    Absent,
    /// It is neither a value of its kind nor a word for "none".
    Unreadable,
}

/// The number in base units.
pub(super) fn number(text: &str, kind: Kind) -> Result<f64, NoValue> {
    let text = text.trim();
    if absent(text) {
        return Err(NoValue::Absent);
    }
    value(text, kind).filter(|value| value.is_finite()).ok_or(NoValue::Unreadable)
}

/// The text, unless the source says that there is none.
pub(super) fn text(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !absent(text))
}

/// Whether a text says that there is no value: nothing at all, `N/A`, `[Not Supported]`, `[Insufficient Permissions]`,
/// `[Unknown Error]`, `[GPU is lost]`, `Requested functionality has been deprecated`, with and without brackets.
fn absent(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let word = bare.unwrap_or(text).to_ascii_lowercase();
    bare.is_some()
        || matches!(
            word.as_str(),
            "" | "n/a"
                | "na"
                | "nil"
                | "err!"
                | "not supported"
                | "insufficient permissions"
                | "unknown error"
                | "gpu is lost"
                | "gpu requires reset"
                | "requested functionality has been deprecated"
        )
}

fn value(text: &str, kind: Kind) -> Option<f64> {
    let word = || text.to_ascii_lowercase();
    match kind {
        Kind::Bytes => with_unit(text, &[("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)]),
        Kind::BytesPerSecond => with_unit(text, &[("B/s", 1.0), ("KB/s", 1e3), ("MB/s", 1e6), ("GB/s", 1e9)]),
        Kind::Watts => with_unit(text, &[("W", 1.0), ("mW", 1e-3)]),
        Kind::Celsius => with_unit(text, &[("", 1.0), ("C", 1.0)]),
        Kind::Hertz => with_unit(text, &[("Hz", 1.0), ("kHz", 1e3), ("MHz", 1e6), ("Mhz", 1e6), ("GHz", 1e9)]),
        Kind::Percent => with_unit(text, &[("", 0.01), ("%", 0.01)]),
        Kind::Seconds => with_unit(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("ns", 1e-9)]),
        Kind::Micros => with_unit(text, &[("", 1e-6)]),
        Kind::Count => with_unit(text, &[("", 1.0)]),
        Kind::Lanes => with_unit(text, &[("", 1.0), ("x", 1.0)]),
        Kind::PState => text.strip_prefix('P')?.parse::<u8>().ok().filter(|state| *state < 16).map(f64::from),
        Kind::Mask => i64::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(|mask| mask as f64),
        Kind::Mode => one_of(&word(), &["disabled", "enabled"]),
        Kind::YesNo => one_of(&word(), &["no", "yes"]),
        Kind::Active => one_of(&word(), &["not active", "active"]),
        Kind::ComputeMode => {
            one_of(&word().replace(' ', "_"), &["default", "exclusive_thread", "prohibited", "exclusive_process"])
        }
        Kind::Recovery => {
            let word = word();
            let word = word.strip_prefix("gpu ").or_else(|| word.strip_prefix("node ")).unwrap_or(&word);
            one_of(word, &["none", "reset", "reboot", "drain p2p", "drain and reset"])
        }
    }
}

fn one_of(word: &str, words: &[&str]) -> Option<f64> {
    words.iter().position(|known| *known == word).map(|at| at as f64)
}

/// A number and one of the units; anything else is none. Takes neither `inf` nor `nan`.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '-' | '+')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_base_units() {
        for (text, kind, value) in [
            ("19968 MiB", Kind::Bytes, 20_937_965_568.0),
            ("4000 KB/s", Kind::BytesPerSecond, 4e6),
            ("67.03 W", Kind::Watts, 67.03),
            ("27 C", Kind::Celsius, 27.0),
            ("41", Kind::Celsius, 41.0),
            ("-3", Kind::Celsius, -3.0),
            ("1275 MHz", Kind::Hertz, 1.275e9),
            ("65 %", Kind::Percent, 0.65),
            ("2500000 us", Kind::Seconds, 2.5),
            ("16x", Kind::Lanes, 16.0),
            ("16", Kind::Lanes, 16.0),
            ("P2", Kind::PState, 2.0),
            ("0x0000000000000104", Kind::Mask, 260.0),
            ("Enabled", Kind::Mode, 1.0),
            ("No", Kind::YesNo, 0.0),
            ("Not Active", Kind::Active, 0.0),
            ("Exclusive_Process", Kind::ComputeMode, 3.0),
            ("None", Kind::Recovery, 0.0),
            ("Drain and Reset", Kind::Recovery, 4.0),
        ] {
            let read = number(text, kind).unwrap();
            assert!((read - value).abs() <= value.abs() * 1e-12, "{text}: {read}");
        }
    }

    /// Scenario: every word for "none", and texts that are no value of their kind.
    /// Guarantees: neither becomes a number; the latter are told apart, so that they can be reported.
    #[test]
    fn none_is_none_and_nonsense_is_told() {
        for none in [
            "N/A",
            "[N/A]",
            "[Not Supported]",
            "Not Supported",
            "[Insufficient Permissions]",
            "",
            " ",
            "ERR!",
            "[Unknown Error]",
            "[GPU requires reset]",
            "Requested functionality has been deprecated",
        ] {
            assert_eq!(number(none, Kind::Bytes), Err(NoValue::Absent), "{none}");
            assert_eq!(text(none), None, "{none}");
        }
        for (wrong, kind) in [
            ("12", Kind::Bytes),
            ("12 MB", Kind::Bytes),
            ("12 W", Kind::Celsius),
            ("nan", Kind::Count),
            ("inf W", Kind::Watts),
            ("1.2.3 W", Kind::Watts),
            ("99999999999999999999e999", Kind::Count),
            ("P16", Kind::PState),
            ("0xffffffffffffffff", Kind::Mask),
            ("maybe", Kind::Mode),
            ("W", Kind::Watts),
        ] {
            assert_eq!(number(wrong, kind), Err(NoValue::Unreadable), "{wrong}");
        }
    }
}
