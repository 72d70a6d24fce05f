//! Names as Prometheus wants them: <https://prometheus.io/docs/practices/naming/>, and what `promtool check metrics` objects to.

use airan_model::unit::{self, Unit};

use super::MetricType;

/// Labels with a meaning of their own: of histograms, of summaries, and of what is beyond the series budget.
const RESERVED_LABELS: [(&str, &str); 3] = [
    ("le", "belongs to histograms"),
    ("quantile", "belongs to summaries"),
    ("overflow", "marks what is beyond the series budget"),
];

/// Endings that make Prometheus take a metric for a part of another, or a scraper for another type.
const RESERVED_ENDINGS: [&str; 5] = ["_count", "_sum", "_bucket", "_created", "_info"];

/// Whether it may name a pipeline, table or column: lower-case letters, digits and `_`, beginning with a letter.
pub(super) fn is_name(name: &str) -> bool {
    let starts = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    starts && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Checks the name of a metric against its type and unit.
///
/// # Errors
/// What is wrong with it, and what to write, as the end of a sentence that begins with the name.
pub(super) fn check_metric(name: &str, ty: MetricType, unit: Unit) -> Result<(), String> {
    if !is_name(name) || name.contains("__") || name.ends_with('_') {
        let why = "is no name: write lower-case letters, digits and single `_`, beginning with a letter";
        return Err(why.to_owned());
    }
    let stem = match (ty, name.strip_suffix("_total")) {
        (MetricType::Counter, Some(stem)) => stem,
        (MetricType::Counter, None) => return Err("is a counter: it must end in `_total`".to_owned()),
        (MetricType::Gauge, Some(_)) => return Err("is a gauge: `_total` is for counters".to_owned()),
        (MetricType::Gauge, None) => name,
    };
    if let Some(ending) = RESERVED_ENDINGS.iter().find(|ending| stem.ends_with(**ending)) {
        return Err(format!("may not end in `{ending}`, which scrapers take for a part of another metric"));
    }
    let (end, place) = if ty == MetricType::Counter { ("_total", " before `_total`") } else { ("", "") };
    match (suffix_of(unit), unit_of(stem)) {
        (Some(wanted), found) if found != Some(wanted) => Err(format!("is in {unit}: it must end in `_{wanted}{end}`")),
        (None, Some(found)) => Err(format!("is in no unit, but has `_{found}`{place} as if it were")),
        _ => Ok(()),
    }
}

/// How a unit is written at the end of a name; things counted have none.
fn suffix_of(unit: Unit) -> Option<&'static str> {
    match unit {
        Unit::Count | Unit::None => None,
        other => Some(other.as_str()),
    }
}

/// The unit at the end of a name, base or foreign, the longest there is: of `x_bytes_per_second` not `per_second`.
fn unit_of(stem: &str) -> Option<&'static str> {
    let ends = |unit: &&'static str| stem.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
    let measured = |unit: &&'static str| Unit::named(unit).is_none_or(|unit| suffix_of(unit).is_some());
    unit::known_units().filter(measured).filter(ends).max_by_key(|unit| unit.len())
}

/// Checks the name of a label.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the name.
pub(super) fn check_label(name: &str) -> Result<(), &'static str> {
    if let Some((_, why)) = RESERVED_LABELS.iter().find(|(label, _)| *label == name) {
        return Err(why);
    }
    if !is_name(name) {
        return Err("is no name: write lower-case letters, digits and `_`, beginning with a letter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_their_unit_are_taken() {
        use MetricType::{Counter, Gauge};
        for (name, ty, unit) in [
            ("airan_accelerator_power_watts", Gauge, Unit::Watts),
            ("airan_accelerator_utilization_ratio", Gauge, Unit::Ratio),
            ("airan_accelerator_energy_joules_total", Counter, Unit::Joules),
            ("airan_link_receive_bytes_per_second", Gauge, Unit::BytesPerSecond),
            ("airan_inference_generation_tokens_per_second", Gauge, Unit::PerSecond),
            ("airan_inference_generation_tokens_total", Counter, Unit::Count),
            ("airan_timing_clock_class", Gauge, Unit::None),
            ("airan_meter_total", Counter, Unit::Count),
            ("airan_host_load1", Gauge, Unit::Count),
        ] {
            assert_eq!(check_metric(name, ty, unit), Ok(()), "{name}");
        }
    }

    /// Scenario: one name for each rule it breaks.
    #[test]
    fn names_that_prometheus_would_misread_are_refused_with_what_to_write() {
        use MetricType::{Counter, Gauge};
        for (name, ty, unit, why) in [
            ("Airan_x", Gauge, Unit::None, "is no name"),
            ("airan:x", Gauge, Unit::None, "is no name"),
            ("airan__x", Gauge, Unit::None, "is no name"),
            ("airan_x_", Gauge, Unit::None, "is no name"),
            ("1x", Gauge, Unit::None, "is no name"),
            ("", Gauge, Unit::None, "is no name"),
            ("airan_energy_joules", Counter, Unit::Joules, "must end in `_total`"),
            ("airan_energy_joules_total", Gauge, Unit::Joules, "`_total` is for counters"),
            ("airan_requests_count", Gauge, Unit::Count, "may not end in `_count`"),
            ("airan_requests_sum_total", Counter, Unit::Count, "may not end in `_sum`"),
            ("airan_power", Gauge, Unit::Watts, "must end in `_watts`"),
            ("airan_energy_total", Counter, Unit::Joules, "must end in `_joules_total`"),
            ("airan_power_milliwatts", Gauge, Unit::Watts, "must end in `_watts`"),
            ("airan_rate_per_second", Gauge, Unit::BytesPerSecond, "must end in `_bytes_per_second`"),
            ("airan_rate_bytes_per_second", Gauge, Unit::PerSecond, "must end in `_per_second`"),
            ("airan_wait_milliseconds", Gauge, Unit::None, "is in no unit, but has `_milliseconds`"),
            ("airan_wait_seconds_total", Counter, Unit::Count, "has `_seconds` before `_total`"),
        ] {
            let error = check_metric(name, ty, unit).unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn labels_with_another_meaning_are_refused() {
        for label in ["le", "quantile", "overflow", "__name__", "Site", "a-b", "", "1a"] {
            assert!(check_label(label).is_err(), "{label}");
        }
        assert_eq!(check_label("site"), Ok(()));
    }
}
