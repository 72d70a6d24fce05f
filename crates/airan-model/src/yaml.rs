//! Reading our own YAML with the place of every value, so that an error can point at it.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::{Location, Spanned};

/// A place in a file; line and column count from 1, and are 0 where the parser does not know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Place {
    pub(crate) fn at(file: &str, location: Location) -> Place {
        Place { file: file.to_owned(), line: location.line(), column: location.column() }
    }

    pub(crate) fn of<T>(file: &str, value: &Spanned<T>) -> Place {
        Place::at(file, value.referenced)
    }
}

/// Reads one document; an error is its place and what is wrong there, on one line.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, (Place, String)> {
    serde_saphyr::from_str(text).map_err(|error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let message = error.without_snippet().to_string();
        (Place::at(file, location), message.lines().next().unwrap_or_default().to_owned())
    })
}

/// The known name nearest to a wrong one, if it is near.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}
