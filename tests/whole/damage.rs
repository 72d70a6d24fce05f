//! `airan lake check` over damaged lakes: what it says of each damage, and whether what it tells to do helps.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::edge::Edge;
use super::folder_copy::copy;

const CONFIG: &str = "check.yaml";
/// Everything stays, however old.
const SETTINGS: &str = "lake: {path: lake, raw_retention: 36500d, window_retention: 36500d}\n";
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/v1/lake");

/// A damage: what to do to a lake, and what the check has to say of it.
struct Damage {
    name: &'static str,
    make: fn(&Lake),
    says: &'static str,
    /// Whether a command repairs it.
    is_repairable: bool,
}

const DAMAGES: [Damage; 10] = [
    Damage {
        name: "a file of an old commit is still in staging",
        make: |lake| {
            let files = [lake.files("meter"), lake.files("meters")].concat();
            let newest = files.iter().map(|file| file.1).max().expect("files");
            let unpublished =
                |file: &&(String, u64)| file.1 < newest && file.0.contains("/date=") && !file.0.starts_with('_');
            let (place, _) =
                files.iter().filter(unpublished).find(|file| !file.0.contains("_held")).expect("an old one");
            let waits = lake.path().join("_staging/memory/0").join(format!("{place}.staged"));
            fs::create_dir_all(waits.parent().expect("a folder")).expect("a folder");
            fs::rename(lake.path().join(place), waits).expect("moved");
        },
        says: "it still waits in staging",
        is_repairable: true,
    },
    Damage {
        name: "a file lies in a table that nothing names",
        make: |lake| {
            let place = lake.place(&lake.held());
            let mut name = place.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            let last = name.pop();
            name += if last == Some('0') { "1.parquet" } else { "0.parquet" };
            fs::copy(lake.path().join(&place), lake.path().join(place.with_file_name(name))).expect("copied");
        },
        says: "nothing names it, and a glob reads it",
        is_repairable: true,
    },
    Damage {
        name: "a published file has lost its place",
        make: |lake| fs::remove_file(lake.path().join(lake.place(&lake.held()))).expect("removed"),
        says: "it counts, and a glob misses it",
        is_repairable: true,
    },
    Damage {
        name: "a published file has lost its held name",
        make: |lake| fs::remove_file(lake.path().join(lake.held())).expect("removed"),
        says: "the name is gone by which Delta and queries read a file",
        is_repairable: true,
    },
    Damage {
        name: "a byte of a file is another",
        make: |lake| {
            let held = lake.held();
            for name in [lake.place(&held), held] {
                flip(&lake.path().join(name));
            }
        },
        says: "its size or checksum is not what was recorded",
        is_repairable: false,
    },
    Damage {
        name: "a file is gone",
        make: |lake| {
            let held = lake.held();
            for name in [lake.place(&held), held] {
                fs::remove_file(lake.path().join(name)).expect("removed");
            }
        },
        says: "it is not there",
        is_repairable: false,
    },
    Damage {
        name: "the state of a shard is another",
        make: |lake| flip(&lake.last_in("_state/memory/0")),
        says: "its checksum is another",
        is_repairable: false,
    },
    Damage {
        name: "a schema is damaged",
        make: |lake| fs::write(lake.last_in("_schemas/meter"), "no schema").expect("written"),
        says: "_schemas/meter",
        is_repairable: false,
    },
    Damage {
        name: "a table has lost its Delta log",
        make: |lake| {
            for entry in fs::read_dir(lake.path().join("meters/_delta_log")).expect("a log") {
                fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
        },
        says: "_delta_log",
        is_repairable: false,
    },
    Damage {
        name: "a commit record is missing",
        make: |lake| {
            let mut records = lake.names_in("_commits/memory/0");
            records
                .retain(|path| path.extension().is_some_and(|end| end == "json") && !path.ends_with("partitions.json"));
            fs::remove_file(&records[records.len() - 2]).expect("removed");
        },
        says: "a record before it is missing",
        is_repairable: false,
    },
];

/// A lake in the folder of a site.
struct Lake<'a>(&'a Edge);

impl Lake<'_> {
    fn path(&self) -> PathBuf {
        self.0.dir().join("lake")
    }

    /// The lake becomes what release 1 left.
    fn reset(&self) {
        let _ = fs::remove_dir_all(self.path());
        copy(Path::new(FIXTURE), &self.path());
    }

    fn check(&self) -> String {
        self.0.run_as(CONFIG, &["lake", "check"])
    }

    /// Where the files of a table lie, and the numbers of their records (0: of several).
    fn files(&self, table: &str) -> Vec<(String, u64)> {
        let listed = self.0.run_as(CONFIG, &["lake", "files", table, "--format", "json"]);
        let rows: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        let text = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
        rows.iter().map(|row| (text(row, "path"), text(row, "record").parse().unwrap_or(0))).collect()
    }

    /// The held name of a published file of one commit.
    fn held(&self) -> PathBuf {
        let files = [self.files("meter"), self.files("meters")].concat();
        files.into_iter().find(|file| file.0.contains("/_held/") && file.1 > 0).expect("a published file").0.into()
    }

    /// The place of a held file.
    fn place(&self, held: &Path) -> PathBuf {
        format!("{}.parquet", held.to_str().expect("text").replace("/_held/", "/")).into()
    }

    /// Paths of what is in a folder, sorted.
    fn names_in(&self, folder: &str) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.path().join(folder)).expect("a folder");
        let mut names: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
        names.sort();
        names
    }

    fn last_in(&self, folder: &str) -> PathBuf {
        self.names_in(folder).pop().expect("a file")
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// Scenario: a lake is damaged in each way a check knows; what the check says is read as an operator reads it, and the command it names
/// is run.
/// Guarantees: each damage is found, on a line of its own that says what it is, and either names a command after which the lake is sound, or
/// says that none helps; then the lake is sound again when what was damaged is restored.
#[test]
fn what_a_check_says_repairs_what_it_found() {
    let edge = Edge::new("damage");
    edge.write_in(CONFIG, SETTINGS);
    let lake = Lake(&edge);
    lake.reset();
    assert!(lake.check().contains("the lake is sound"));
    for damage in DAMAGES {
        let name = damage.name;
        lake.reset();
        (damage.make)(&lake);
        let said = edge.run_in_vain(CONFIG, &["lake", "check"]);
        let line = said.lines().find(|line| line.contains(damage.says)).unwrap_or_else(|| panic!("{name}: {said}"));
        let command = line.split_once("run `airan ").and_then(|(_, rest)| rest.split_once('`')).map(|(words, _)| words);
        assert_eq!(command.is_some(), damage.is_repairable, "{name}: {line}");
        match command {
            Some(command) => {
                edge.run_as(CONFIG, &command.split(' ').collect::<Vec<_>>());
            }
            None => {
                assert!(line.contains("no command repairs it: "), "{name}: {line}");
                copy(Path::new(FIXTURE), &lake.path());
            }
        }
        let said = lake.check();
        assert!(said.contains("the lake is sound"), "{name}: {said}");
    }
}
