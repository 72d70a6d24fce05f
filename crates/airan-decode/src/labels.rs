//! Labels of one sample while it is read, within the limits on their number and length.

use std::borrow::Cow;
use std::collections::HashMap;

use airan_model::catalog::{Catalog, FieldClass};
use airan_model::limits::Limits;
use airan_model::reject::Reason;
use foldhash::fast::RandomState;

/// A label (OTLP: attribute) of a sample. Its value is never empty: an empty label is no label, as in Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Label<'a> {
    pub name: Cow<'a, str>,
    pub value: Cow<'a, str>,
}

/// The labels of the sample at hand; emptied for the next one.
#[derive(Debug)]
pub(crate) struct LabelBuffer<'a> {
    labels: Vec<Label<'a>>,
    fault: Option<Reason>,
    count_max: usize,
    bytes_max: usize,
}

impl<'a> LabelBuffer<'a> {
    /// Takes up to `limits.labels_per_sample` labels less `taken`.
    pub(crate) fn new(limits: &Limits, taken: usize) -> LabelBuffer<'a> {
        let count_max = limits.labels_per_sample.saturating_sub(taken);
        LabelBuffer { labels: Vec::new(), fault: None, count_max, bytes_max: limits.label_bytes }
    }

    /// Makes room for the next sample.
    pub(crate) fn clear(&mut self) {
        self.labels.clear();
        self.fault = None;
    }

    /// Adds a label. Over a limit it is not kept, and [`LabelBuffer::fault`] says so.
    #[inline]
    pub(crate) fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        if name.len() > self.bytes_max || value.len() > self.bytes_max {
            self.fault(Reason::LabelTooLong);
        } else if value.is_empty() {
        } else if self.labels.len() >= self.count_max {
            self.fault(Reason::TooManyLabels);
        } else {
            self.labels.push(Label { name, value });
        }
    }

    /// Sets a label in place of one of its name.
    pub(crate) fn set(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.labels.retain(|label| label.name != name);
        self.push(name, value);
    }

    /// Marks the sample as one to be refused.
    pub(crate) fn fault(&mut self, reason: Reason) {
        self.fault.get_or_insert(reason);
    }

    /// The labels, or why the sample is to be refused.
    pub(crate) fn get(&self) -> Result<&[Label<'a>], Reason> {
        match self.fault {
            Some(reason) => Err(reason),
            None => Ok(&self.labels),
        }
    }

    /// The labels kept, also of a sample to be refused.
    pub(crate) fn kept(&self) -> &[Label<'a>] {
        &self.labels
    }

    /// The labels, handed over.
    pub(crate) fn take(&mut self) -> Result<Vec<Label<'a>>, Reason> {
        self.get()?;
        Ok(std::mem::take(&mut self.labels))
    }
}

/// A message's words for a fault of labels.
pub(crate) fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::TooManyLabels => "too many labels",
        Reason::LabelTooLong => "a label is too long",
        Reason::TooDeep => "a label's value is nested too deep",
        _ => "a label cannot be read",
    }
}

/// Which labels name a subscriber: the catalog is asked once a name.
#[derive(Debug)]
pub(crate) struct Classes<'a> {
    catalog: &'a Catalog,
    dropped: HashMap<Box<str>, bool, RandomState>,
}

impl<'a> Classes<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Classes<'a> {
        Classes { catalog, dropped: HashMap::default() }
    }

    /// Whether a label of this name goes nowhere.
    pub(crate) fn drops(&mut self, name: &str) -> bool {
        if let Some(dropped) = self.dropped.get(name) {
            return *dropped;
        }
        let dropped = self.catalog.field_class(name) == FieldClass::Drop;
        self.dropped.insert(name.into(), dropped);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { labels_per_sample: 3, label_bytes: 4, ..Limits::DOCUMENTED }
    }

    /// Scenario: label sets on and over each limit.
    #[test]
    fn each_limit_has_its_reason() {
        let read = |taken: usize, labels: &[(&'static str, &'static str)]| {
            let mut buffer = LabelBuffer::new(&limits(), taken);
            labels.iter().for_each(|(name, value)| buffer.push((*name).into(), (*value).into()));
            buffer.get().map(<[Label]>::len)
        };
        assert_eq!(read(0, &[("a", "1"), ("b", "2"), ("cccc", "4444")]), Ok(3));
        assert_eq!(read(0, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]), Err(Reason::TooManyLabels));
        assert_eq!(read(1, &[("a", "1"), ("b", "2"), ("c", "3")]), Err(Reason::TooManyLabels));
        assert_eq!(read(0, &[("a", "12345")]), Err(Reason::LabelTooLong));
        assert_eq!(read(0, &[("aaaaa", "1")]), Err(Reason::LabelTooLong));
        assert_eq!(read(0, &[("a", ""), ("b", ""), ("c", ""), ("d", "")]), Ok(0));
    }
}
