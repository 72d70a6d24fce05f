use std::path::Path;
use super::CatalogError;
pub(super) fn read_dir(_dir: &Path) -> Result<Vec<(String, String)>, CatalogError> { todo!() }
