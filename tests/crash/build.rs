//! Finds every named crash point in the sources, so that a new one is killed at without anyone listing it here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What stands before the name of a point.
const CALL: &str = "crash::point(\"";

fn main() -> std::io::Result<()> {
    // Where this runs, not where it was compiled: a target folder outlives its checkout.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let crates = here.join("../../crates");
    println!("cargo:rerun-if-changed={}", crates.display());
    let mut points = BTreeSet::new();
    for krate in std::fs::read_dir(&crates)? {
        collect(&krate?.path().join("src"), &mut points)?;
    }
    let names: Vec<String> = points.iter().map(|name| format!("{name:?}")).collect();
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    std::fs::write(out.join("points.rs"), format!("&[{}]", names.join(", ")))
}

fn collect(folder: &Path, points: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, points)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let calls = text.split(CALL).skip(1).filter_map(|rest| rest.split('"').next());
            points.extend(calls.map(str::to_owned));
        }
    }
    Ok(())
}
