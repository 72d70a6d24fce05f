//! What an OpenMetrics text says of its metric families, and the rules it must keep while it does.
//!
//! Kept are the rules of shape: metadata before samples and once each, a family in one piece, names no other family may use, names
//! of samples by type, units, exemplars. Rules about values and order are in [`rules`](super::rules).

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::text::{Cursor, Fault, Line};
use crate::rows::MetricKind;

/// Longest label set of an exemplar, characters.
const EXEMPLAR_MAX: usize = 128;

/// The families so far.
#[derive(Debug, Default)]
pub(super) struct Families<'t> {
    // Names of families and of the samples they may have.
    taken: HashSet<String, RandomState>,
    current: Option<Family<'t>>,
}

#[derive(Debug)]
struct Family<'t> {
    name: &'t str,
    kind: Option<MetricKind>,
    unit: Option<&'t str>,
    has_help: bool,
    has_samples: bool,
}

impl Family<'_> {
    fn kind(&self) -> MetricKind {
        self.kind.unwrap_or_default()
    }

    fn has_sample(&self, name: &str) -> bool {
        name.strip_prefix(self.name).is_some_and(|suffix| suffixes(self.kind()).contains(&suffix))
    }
}

/// What the samples of a family of that type may add to its name.
fn suffixes(kind: MetricKind) -> &'static [&'static str] {
    match kind {
        MetricKind::Counter => &["_total", "_created"],
        MetricKind::Histogram => &["_bucket", "_sum", "_count", "_created"],
        MetricKind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricKind::Summary => &["", "_sum", "_count", "_created"],
        MetricKind::Info => &["_info"],
        MetricKind::Gauge | MetricKind::StateSet | MetricKind::Event | MetricKind::Unknown => &[""],
    }
}

impl<'t> Families<'t> {
    /// Reads one line of metadata; true at `# EOF`.
    pub(super) fn comment(&mut self, cursor: &mut Cursor<'t>) -> Result<bool, Fault> {
        let start = *cursor;
        let line = cursor.take(|byte| byte != b'\n');
        if line == "# EOF" {
            cursor.eat(b'\n');
            return if cursor.is_at_end() { Ok(true) } else { cursor.fault("text after `# EOF`") };
        }
        if !cursor.eat(b'\n') {
            return start.fault("the text must end with `# EOF`");
        }
        let mut parts = line.splitn(4, ' ');
        let (Some("#"), Some(word), Some(name), Some(rest)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return start.fault("neither metadata nor `# EOF`");
        };
        let is_name = Cursor::new(name, 0).metric_name().len() == name.len() && !name.is_empty();
        if !is_name {
            return start.fault("metadata without a metric's name");
        }
        let family = self.family(name).map_err(|what| Fault { what, at: start.at })?;
        let told = match word {
            "HELP" => !std::mem::replace(&mut family.has_help, true),
            "UNIT" => family.unit.replace(rest).is_none(),
            "TYPE" => {
                let Some(kind) = kind(rest) else { return start.fault("a type OpenMetrics does not have") };
                family.kind.replace(kind).is_none()
            }
            _ => return start.fault("neither HELP, TYPE nor UNIT"),
        };
        if !told {
            return start.fault("metadata given twice");
        }
        let unit = family.unit.unwrap_or_default();
        let has_suffix = family.name.strip_suffix(unit).is_some_and(|rest| unit.is_empty() || rest.ends_with('_'));
        if !has_suffix {
            return start.fault("a unit that is not the end of its metric's name");
        }
        if !unit.is_empty() && matches!(family.kind, Some(MetricKind::Info | MetricKind::StateSet)) {
            return start.fault("a unit of a type that has none");
        }
        Ok(false)
    }

    /// The family metadata is about.
    fn family(&mut self, name: &'t str) -> Result<&mut Family<'t>, &'static str> {
        match &self.current {
            Some(family) if family.name == name && family.has_samples => return Err("metadata after its samples"),
            Some(family) if family.name == name => {}
            _ => self.begin(name)?,
        }
        self.current.as_mut().ok_or("metadata of no family")
    }

    fn begin(&mut self, name: &'t str) -> Result<(), &'static str> {
        self.end()?;
        self.current = Some(Family { name, kind: None, unit: None, has_help: false, has_samples: false });
        Ok(())
    }

    /// Ends the current family: nobody else may use its names.
    pub(super) fn end(&mut self) -> Result<(), &'static str> {
        let Some(family) = self.current.take() else { return Ok(()) };
        let names = suffixes(family.kind()).iter().filter(|suffix| !suffix.is_empty());
        let mut names: Vec<String> = names.map(|suffix| format!("{}{suffix}", family.name)).collect();
        names.push(family.name.to_owned());
        if names.into_iter().all(|name| self.taken.insert(name)) {
            Ok(())
        } else {
            Err("a family in two pieces, or two that use one name")
        }
    }

    /// Checks a sample against its family; gives the family's name and type.
    pub(super) fn sample(&mut self, line: &Line<'t>) -> Result<(&'t str, MetricKind), Fault> {
        let fault = |what| Fault { what, at: line.start };
        let std::borrow::Cow::Borrowed(name) = line.name else { return Err(fault("a name in quotes")) };
        if self.current.as_ref().is_none_or(|family| !family.has_sample(name)) {
            self.begin(name).map_err(fault)?;
        }
        let Some(family) = &mut self.current else { return Err(fault("a sample of no family")) };
        family.has_samples = true;
        if let Some(exemplar) = line.exemplar {
            let may_have = matches!(
                (family.kind(), name.strip_prefix(family.name)),
                (MetricKind::Counter, Some("_total"))
                    | (MetricKind::Histogram | MetricKind::GaugeHistogram, Some("_bucket"))
            );
            let fault = |what| Err(Fault { what, at: exemplar.at });
            if !may_have {
                return fault("an exemplar of a sample that may have none");
            }
            if exemplar.chars > EXEMPLAR_MAX {
                return fault("an exemplar with too long labels");
            }
        }
        Ok((family.name, family.kind()))
    }
}

/// The types OpenMetrics has.
fn kind(name: &str) -> Option<MetricKind> {
    Some(match name {
        "gauge" => MetricKind::Gauge,
        "counter" => MetricKind::Counter,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        "unknown" => MetricKind::Unknown,
        _ => return None,
    })
}

/// The types text 0.0.4 has. Those of OpenMetrics are taken too: exporters mix the two.
pub(super) fn lenient_kind(name: &str) -> Option<MetricKind> {
    if name == "untyped" { Some(MetricKind::Unknown) } else { kind(name) }
}
