//! Numbers as senders write them: floats, and integers that must not lose a digit on the way.

use std::fmt::Write;

/// Largest magnitude up to which a float64 holds every integer.
const EXACT_IN_FLOAT: u64 = 1 << 53;
/// Longest integer kept as text, digits. Longer ones are no counts of anything.
const WIDE_MAX: usize = 40;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number<'a> {
    Float(f64),
    Int(i64),
    /// An integer that fits no i64: as written, and the nearest float.
    Wide(&'a str, f64),
}

impl<'a> Number<'a> {
    /// Reads decimal text: integers, floats with any exponent, `NaN`, `Inf`, `+Inf`, `infinity` in any case.
    pub(crate) fn parse(text: &'a str) -> Option<Number<'a>> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse::<i64>() {
                Ok(value) => Some(Number::Int(value)),
                Err(_) if text.len() <= WIDE_MAX => Some(Number::Wide(text, text.parse().ok()?)),
                Err(_) => Some(Number::Float(text.parse().ok()?)),
            };
        }
        text.parse().ok().map(Number::Float)
    }

    /// The nearest float.
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Number::Float(value) | Number::Wide(_, value) => value,
            Number::Int(value) => value as f64,
        }
    }

    /// The value as an integer, if it is one.
    pub(crate) fn as_i64(self) -> Option<i64> {
        match self {
            Number::Int(value) => Some(value),
            // 2^63 itself is no i64, and -2^63 is one.
            Number::Float(value) if value.fract() == 0.0 && (-2f64.powi(63)..2f64.powi(63)).contains(&value) => {
                Some(value as i64)
            }
            Number::Float(_) | Number::Wide(..) => None,
        }
    }

    /// The value in words, where a float column cannot hold it: infinities, and integers with more digits than a float has.
    pub(crate) fn beyond_float(self, text: &mut String) -> bool {
        text.clear();
        match self {
            Number::Float(value) if value.is_infinite() => text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            Number::Float(_) => return false,
            Number::Int(value) if value.unsigned_abs() <= EXACT_IN_FLOAT => return false,
            Number::Int(value) => {
                let _ = write!(text, "{value}");
            }
            Number::Wide(digits, _) => text.push_str(digits),
        }
        true
    }

    /// The shortest decimal text: `0`, `-1`, `0.5`.
    pub(crate) fn shortest(self, text: &mut String) {
        text.clear();
        let _ = match (self.as_i64(), self) {
            (Some(value), _) => write!(text, "{value}"),
            (None, Number::Wide(digits, _)) => text.write_str(digits),
            (None, other) => write!(text, "{}", other.as_f64()),
        };
    }
}

/// The factor from a foreign unit to ours. Divides where that is the exact way: 35 % is 0.35, not 35 × 0.01.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    One,
    Times(f64),
    Over(f64),
}

impl Scale {
    pub(crate) fn new(factor: f64) -> Scale {
        let inverse = (1.0 / factor).round();
        if factor == 1.0 {
            Scale::One
        } else if factor.abs() < 1.0 && inverse.is_finite() && 1.0 / inverse == factor {
            Scale::Over(inverse)
        } else {
            Scale::Times(factor)
        }
    }

    pub(crate) fn apply(self, value: f64) -> f64 {
        match self {
            Scale::One => value,
            Scale::Times(factor) => value * factor,
            Scale::Over(divisor) => value / divisor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: what exporters write, at the edges of the number types, and what is no number.
    #[test]
    fn text_is_read_without_losing_digits() {
        for (text, expected) in [
            ("0", Some(Number::Int(0))),
            ("-7", Some(Number::Int(-7))),
            ("+7", Some(Number::Int(7))),
            ("9223372036854775807", Some(Number::Int(i64::MAX))),
            ("9223372036854775808", Some(Number::Wide("9223372036854775808", 2f64.powi(63)))),
            ("0000000000000000000000000000000000000000001", Some(Number::Int(1))),
            ("1e+006", Some(Number::Float(1e6))),
            ("1.", Some(Number::Float(1.0))),
            (".5", Some(Number::Float(0.5))),
            ("+Inf", Some(Number::Float(f64::INFINITY))),
            ("-infinity", Some(Number::Float(f64::NEG_INFINITY))),
            ("", None),
            ("+", None),
            ("0x1p-3", None),
            ("1_000", None),
            ("0b1", None),
            ("1 ", None),
        ] {
            assert_eq!(Number::parse(text), expected, "{text}");
        }
        assert!(Number::parse("nAn").is_some_and(|number| number.as_f64().is_nan()));
        assert!(matches!(Number::parse(&"9".repeat(41)), Some(Number::Float(_))));
    }

    #[test]
    fn integers_keep_their_digits_and_infinities_their_sign() {
        let mut text = String::new();
        for (number, words) in [
            (Number::Int(1 << 53), None),
            (Number::Int((1 << 53) + 1), Some("9007199254740993")),
            (Number::Int(i64::MIN), Some("-9223372036854775808")),
            (Number::Wide("18446744073709551615", 2f64.powi(64)), Some("18446744073709551615")),
            (Number::Float(f64::NEG_INFINITY), Some("-Inf")),
            (Number::Float(1e300), None),
        ] {
            assert_eq!(number.beyond_float(&mut text).then_some(text.as_str()), words, "{number:?}");
        }
        assert_eq!(Number::Float(2f64.powi(63)).as_i64(), None);
        assert_eq!(Number::Float(-2f64.powi(63)).as_i64(), Some(i64::MIN));
        assert_eq!(Number::Float(0.5).as_i64(), None);
        assert_eq!(Number::Float(f64::NAN).as_i64(), None);
        for (number, expected) in [(Number::Float(-1.0), "-1"), (Number::Int(2), "2"), (Number::Float(0.5), "0.5")] {
            number.shortest(&mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn units_are_converted_exactly_where_that_can_be() {
        assert_eq!(Scale::new(0.01), Scale::Over(100.0));
        assert_eq!(Scale::new(0.01).apply(35.0), 0.35);
        assert_eq!(Scale::new(1e-9).apply(4.0), 4e-9);
        assert_eq!(Scale::new(1048576.0).apply(2.0), 2_097_152.0);
        assert_eq!(Scale::new(1.0), Scale::One);
        assert_eq!(Scale::new(0.3), Scale::Times(0.3));
        assert_eq!(Scale::new(0.0), Scale::Times(0.0));
    }
}
