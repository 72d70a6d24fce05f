use super::Catalog;
use crate::Place;
/// Why a catalog was refused. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read { /// The path.
        path: std::path::PathBuf, /// Why.
        source: std::io::Error },
    /// A file is not YAML, or has keys or values no catalog has.
    #[error("{place}: {reason}")]
    Yaml { /// Where.
        place: Place, /// What is wrong.
        reason: String },
    /// The catalog contradicts itself.
    #[error("{place}: {problem}")]
    Refused { /// Where.
        place: Place, /// What is wrong.
        problem: Problem },
}
/// What a catalog may not hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem { /// x
#[error("x")] X }
pub(super) fn build(_files: Vec<(String, String)>) -> Result<Catalog, CatalogError> { todo!() }
