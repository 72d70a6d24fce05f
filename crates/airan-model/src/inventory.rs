//! Which site, region and jurisdiction an emitter belongs to.
//!
//! ```yaml
//! regions:
//!   - name: north
//!     jurisdiction: de
//!     sites:
//!       - name: north-001
//!         nodes: [edge-001, gnbd_001_001_00019b_0]
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::yaml::{self, Place};

/// Region and site of an emitter the inventory does not know.
pub const UNASSIGNED: &str = "unassigned";

/// Where an emitter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its region.
    pub region: Arc<str>,
    /// Its site.
    pub site: Arc<str>,
    /// Whose law its rows are under.
    pub jurisdiction: Arc<str>,
}

/// Emitters and their places. Immutable: a reload makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    nodes: HashMap<String, Placement, foldhash::fast::RandomState>,
    sites: usize,
}

/// Why an inventory was refused. The one in use before stays.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read.
    #[error("cannot read inventory {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no inventory.
    #[error("{place}: {reason}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    regions: Vec<Region>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    name: Spanned<String>,
    jurisdiction: Spanned<String>,
    #[serde(default)]
    sites: Vec<Site>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    name: Spanned<String>,
    /// Where a site's law differs from its region's.
    jurisdiction: Option<Spanned<String>>,
    #[serde(default)]
    nodes: Vec<Spanned<String>>,
}

impl Inventory {
    /// An inventory that knows nobody.
    pub fn empty() -> Inventory {
        Inventory::default()
    }

    /// Reads a file. Refused, with its place: a region, site or node named twice, an empty name, an unknown key.
    pub fn load(path: impl AsRef<Path>) -> Result<Inventory, InventoryError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| InventoryError::Read { path: path.to_owned(), source })?;
        Inventory::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a file; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Inventory, InventoryError> {
        let read: File = yaml::read(file, text).map_err(|(place, reason)| InventoryError::Invalid { place, reason })?;
        let mut inventory = Inventory::default();
        let mut seen: HashMap<(&str, String), u64> = HashMap::new();
        let mut once = |what: &'static str, name: &Spanned<String>| {
            let place = Place::of(file, name);
            if name.value.trim().is_empty() {
                return Err(InventoryError::Invalid { place, reason: format!("a {what} needs a name") });
            }
            match seen.insert((what, name.value.clone()), place.line) {
                None => Ok(Arc::<str>::from(name.value.as_str())),
                Some(line) => {
                    let reason = format!("{what} `{}` stands already in line {line}", name.value);
                    Err(InventoryError::Invalid { place, reason })
                }
            }
        };
        for region in &read.regions {
            let region_name = once("region", &region.name)?;
            let of_region: Arc<str> = Arc::from(region.jurisdiction.value.as_str());
            for site in &region.sites {
                let own = site.jurisdiction.as_ref().map(|own| Arc::from(own.value.as_str()));
                let placement = Placement {
                    region: Arc::clone(&region_name),
                    site: once("site", &site.name)?,
                    jurisdiction: own.unwrap_or_else(|| Arc::clone(&of_region)),
                };
                inventory.sites += 1;
                for node in &site.nodes {
                    once("node", node)?;
                    inventory.nodes.insert(node.value.clone(), placement.clone());
                }
            }
        }
        Ok(inventory)
    }

    /// One site that holds one node: what `airan up` uses without an inventory file.
    pub fn single(node: &str, region: &str, site: &str, jurisdiction: &str) -> Inventory {
        let placement = Placement { region: region.into(), site: site.into(), jurisdiction: jurisdiction.into() };
        let mut inventory = Inventory { sites: 1, ..Inventory::default() };
        inventory.nodes.insert(node.to_owned(), placement);
        inventory
    }

    /// Where an emitter stands; None for one the inventory does not know.
    pub fn place(&self, node: &str) -> Option<&Placement> {
        self.nodes.get(node)
    }

    /// How many emitters it knows.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many sites it knows.
    pub fn sites(&self) -> usize {
        self.sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../config/inventory.yaml");

    #[test]
    fn the_shipped_example_is_an_inventory() {
        let inventory = Inventory::parse("config/inventory.yaml", EXAMPLE).unwrap();
        let placement = inventory.place("edge-001").unwrap();
        assert_eq!((&*placement.region, &*placement.site, &*placement.jurisdiction), ("north", "north-001", "de"));
        assert_eq!(inventory.place("stranger"), None);
        assert!(inventory.nodes() > inventory.sites());
    }

    /// Scenario: each thing that is refused, with the place it is at.
    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let head = "regions:\n  - name: r\n    jurisdiction: de\n    sites:\n";
        for (tail, expected) in [
            ("      - name: a\n      - name: a\n", "f.yaml:6:15: site `a` stands already in line 5"),
            (
                "      - {name: a, nodes: [x]}\n      - {name: b, nodes: [x]}\n",
                "f.yaml:6:27: node `x` stands already in line 5",
            ),
            ("      - name: ''\n", "f.yaml:5:15: a site needs a name"),
            ("      []\n  - {name: r, jurisdiction: fr}\n", "f.yaml:6:12: region `r` stands already in line 2"),
        ] {
            let error = Inventory::parse("f.yaml", &format!("{head}{tail}")).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let unknown =
            Inventory::parse("f.yaml", &format!("{head}      - name: a\n        node: [x]\n")).unwrap_err().to_string();
        assert!(unknown.starts_with("f.yaml:6:9: ") && unknown.contains("node"), "{unknown}");
        let double_key = Inventory::parse("f.yaml", "regions: []\nregions: []\n").unwrap_err().to_string();
        assert!(double_key.starts_with("f.yaml:2:1: "), "{double_key}");
        assert!(matches!(Inventory::load("/nowhere"), Err(InventoryError::Read { .. })));
    }

    #[test]
    fn a_sites_own_jurisdiction_wins() {
        let text = "regions:\n  - name: r\n    jurisdiction: de\n    sites:\n      - {name: a, jurisdiction: ch, nodes: [x]}\n";
        assert_eq!(&*Inventory::parse("f", text).unwrap().place("x").unwrap().jurisdiction, "ch");
        assert_eq!(&*Inventory::single("n", "r", "s", "local").place("n").unwrap().site, "s");
    }
}
