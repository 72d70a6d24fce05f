//! What was refused sample by sample, by reason, and the words for it.

use airan_model::reject::Reason;

use crate::{DecodeError, Refused};

/// Longest name shown in a message, characters.
const NAME_MAX: usize = 64;

/// Samples refused so far.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    // At most one for each of the few reasons.
    by_reason: Vec<Refused>,
}

impl Refusals {
    /// Counts samples; `example` is asked only for the first of its reason.
    pub(crate) fn add(&mut self, reason: Reason, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        match self.by_reason.iter_mut().find(|refused| refused.reason == reason) {
            Some(refused) => refused.count += count,
            None => self.by_reason.push(Refused { reason, count, example: example() }),
        }
    }

    /// By reason, in the order they first occurred.
    pub(crate) fn into_inner(self) -> Vec<Refused> {
        self.by_reason
    }
}

/// A metric's or column's name as it may stand in a message: short, in back quotes, without control characters.
pub(crate) fn shown(name: &str) -> String {
    let mut shown: String =
        name.chars().take(NAME_MAX).map(|c| if c.is_control() || c == '`' { '?' } else { c }).collect();
    if name.chars().nth(NAME_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

impl DecodeError {
    /// A body that is refused as a whole, at a place in it.
    pub(crate) fn at(reason: Reason, what: impl std::fmt::Display, place: String) -> DecodeError {
        DecodeError { reason, message: format!("{what} at {place}"), position: Some(place) }
    }

    /// A body that is refused as a whole, without a place.
    pub(crate) fn whole(reason: Reason, what: impl Into<String>) -> DecodeError {
        DecodeError { reason, message: what.into(), position: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_add_up_by_reason_and_keep_the_first_example() {
        let mut refusals = Refusals::default();
        refusals.add(Reason::TooDeep, 2, || "point 1".into());
        refusals.add(Reason::Malformed, 1, || "point 2".into());
        refusals.add(Reason::TooDeep, 3, || unreachable!("asked once"));
        refusals.add(Reason::BadTime, 0, || unreachable!("nothing refused"));
        let all = refusals.into_inner();
        let told: Vec<_> = all.iter().map(|one| (one.reason, one.count, one.example.as_str())).collect();
        assert_eq!(told, [(Reason::TooDeep, 5, "point 1"), (Reason::Malformed, 1, "point 2")]);
    }

    #[test]
    fn names_in_messages_are_short_and_printable() {
        assert_eq!(shown("a\n`b"), "`a??b`");
        assert_eq!(shown(&"é".repeat(65)), format!("`{}…`", "é".repeat(64)));
    }
}
