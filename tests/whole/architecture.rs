//! The workspace has the shape its design draws: `airan → roles → parts → model`, no arrow back or sideways.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Who may name whom. A crate or an edge that is not here fails the test.
const ALLOWED: &[(&str, &[&str])] = &[
    ("airan-model", &[]),
    ("airan-log", &["airan-model"]),
    ("airan-decode", &["airan-model"]),
    ("airan-bus", &["airan-model", "airan-log"]),
    ("airan-window", &["airan-model"]),
    ("airan-lake", &["airan-model"]),
    ("airan-gateway", &["airan-model", "airan-decode", "airan-bus"]),
    ("airan-processor", &["airan-model", "airan-decode", "airan-bus", "airan-window", "airan-lake"]),
    ("airan-agent", &["airan-model", "airan-decode"]),
];

/// Crates that may be named by one crate only, in the whole workspace.
const ONLY_USER: &[(&str, &str)] =
    &[("rdkafka", "airan-bus"), ("object_store", "airan-lake"), ("procfs", "airan-agent")];

fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo metadata runs");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let mut edges = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name").to_string();
        let names = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = names
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().expect("dependency name").to_string())
            .collect();
        edges.insert(name, normal);
    }
    edges
}

/// Scenario: the dependencies that the manifests declare.
/// Guarantees: no edge between our crates but those of the design, and no part without a place in it.
#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (krate, dependencies) in workspace() {
        if ["airan", "airan-bench", "airan-crash"].contains(&krate.as_str()) {
            continue;
        }
        let Some(may) = allowed.get(krate.as_str()) else {
            wrong.push(format!("{krate} has no place in the design"));
            continue;
        };
        for dependency in dependencies.iter().filter(|d| d.starts_with("airan")) {
            if !may.contains(&dependency.as_str()) {
                wrong.push(format!("{krate} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges outside the design: {wrong:?}");
}

/// Scenario: the crates that have one owner.
/// Guarantees: librdkafka, the object store and procfs stay behind the part that owns them.
#[test]
fn owned_dependencies_have_one_user() {
    for (krate, dependencies) in workspace() {
        for (owned, owner) in ONLY_USER {
            assert!(!dependencies.contains(*owned) || krate == *owner, "{krate} names {owned}, which {owner} owns");
        }
    }
}
