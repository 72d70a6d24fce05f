//! `airan up --demo`: a made-up site, in a log and a lake of its own.
//!
//! A lake that began with the demo has a file [`MARK`]. Simulated and real rows meet in one lake only where `--mix` says so: neither does
//! the demo start over a log or lake that it has not begun, nor `airan up` without it over one that it has.

use std::path::Path;

use airan_bus::BusSettings;
use airan_model::inventory::Inventory;
use anyhow::{Context, Result};

use crate::config::{Config, ConfigError};

/// Folder of log and lake where the command line names none.
pub const DATA: &str = "./data/demo";

/// File in the lake's folder that says what its rows are.
const MARK: &str = "_demo";
/// What it says.
const MARK_TEXT: &str = "The rows of this lake are simulated: `airan up --demo` began it.\n";

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// `--demo`.
    pub demo: bool,
    /// `--mix`.
    pub mix: bool,
}

/// Refuses to mix simulated rows with others, and marks a new lake of the demo. To be called before log and lake are opened.
///
/// # Errors
/// If log or lake hold rows of the other kind, or may, and `--mix` is not given; if the mark cannot be written.
pub fn begin(config: &Config, choice: Choice) -> Result<()> {
    if choice.mix {
        return Ok(());
    }
    let lake = config.lake.path.strip_prefix("file://").unwrap_or(&config.lake.path);
    let is_remote = lake.contains("://");
    let lake = Path::new(lake);
    let is_marked = lake.join(MARK).exists();
    if !choice.demo {
        return match is_marked {
            true => Err(refused(format!(
                "the lake {} was begun by the demo: start with --demo, give another folder with --data, or let the rows mix with --mix",
                lake.display()
            ))),
            false => Ok(()),
        };
    }
    let ask = "give another folder with --data, or let the rows mix with --mix";
    let log = match &config.bus {
        BusSettings::Local(local) => &local.path,
        BusSettings::Kafka(_) => return Err(refused(format!("--demo over Kafka may meet real rows there: {ask}"))),
    };
    if is_remote {
        return Err(refused(format!("the lake {} may hold real rows: {ask}", lake.display())));
    }
    if is_marked {
        return Ok(());
    }
    for (what, folder) in [("lake", lake), ("log", log.as_path())] {
        if holds_something(folder) {
            let shown = folder.display();
            return Err(refused(format!("the {what} {shown} was not begun by the demo and may hold real rows: {ask}")));
        }
    }
    let mark = || std::fs::create_dir_all(lake).and_then(|()| std::fs::write(lake.join(MARK), MARK_TEXT));
    mark().with_context(|| format!("cannot write {}", lake.join(MARK).display()))
}

fn refused(message: String) -> anyhow::Error {
    ConfigError { place: None, message }.into()
}

fn holds_something(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// The sites of the demo, in place of those of the configuration.
///
/// # Errors
/// If the built-in file has a mistake.
pub fn inventory() -> Result<Inventory> {
    Ok(Inventory::parse("the demo's inventory", airan_agent::demo::INVENTORY)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mode};

    /// Scenario: starts with and without `--demo` over a new folder, over the demo's, over a real one, and over Kafka.
    /// Guarantees: the two kinds of rows meet only where `--mix` says so; refusals say what to do.
    #[test]
    fn simulated_and_real_rows_do_not_meet_by_chance() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| config::load(None, Mode::Up, Some(&folder.path().join(name))).ok().unwrap().config;
        let (demo, real, mix) = (true, false, true);
        let begin = |config: &Config, demo, mix| begin(config, Choice { demo, mix }).map_err(|error| error.to_string());

        let new = at("new");
        begin(&new, demo, false).unwrap();
        std::fs::create_dir_all(folder.path().join("new/lake/host")).unwrap();
        begin(&new, demo, false).unwrap();
        let said = begin(&new, real, false).unwrap_err();
        assert!(said.contains("begun by the demo") && said.contains("--mix"), "{said}");
        begin(&new, real, mix).unwrap();

        for inside in ["lake/host", "log/airan.telemetry"] {
            let theirs = at(inside.split('/').next().unwrap());
            let path = folder.path().join(inside.split('/').next().unwrap());
            std::fs::create_dir_all(path.join(inside)).unwrap();
            begin(&theirs, real, false).unwrap();
            let said = begin(&theirs, demo, false).unwrap_err();
            assert!(said.contains("may hold real rows") && said.contains("--data"), "{said}");
            begin(&theirs, demo, mix).unwrap();
            assert!(!path.join("lake").join(MARK).exists(), "a mixed lake is not the demo's");
        }

        let mut away = at("away");
        away.lake.path = "s3://bucket/lake".to_owned();
        assert!(begin(&away, demo, false).unwrap_err().contains("s3://bucket/lake"));
    }

    #[test]
    fn the_demos_inventory_has_no_mistake() {
        assert_eq!(inventory().unwrap().sites(), 1);
    }
}
