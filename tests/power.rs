//! A disk whose power fails: what a file system may leave behind that was told to write and not, or not yet, to sync.
//!
//! Killing a process proves nothing about fsync, because the kernel still holds what was written. This disk is a folder in
//! which a process works as ever, with a journal beside it of everything that was not synced. [`Power::restore`] makes the
//! folder what the machine might find when it comes up again, by the seed:
//!
//! - bytes written since the file's last sync are there, gone, or there in part, sector by sector; the length may be there
//!   without the bytes (zeros) and a cut may be undone;
//! - a name made, removed or changed since its folder's last sync is there or not, each name for itself; a folder whose own
//!   name is gone takes everything in it along;
//! - what a failed sync was for is there, gone or torn, and no later sync makes up for it: the kernel holds it for clean;
//! - of a failed write some bytes are there.
//!
//! The process is gone after as many steps as [`Power::cut_after`] says, before or after the step; all later steps fail. Then
//! the machine comes up ([`Power::restore`]), or only a new process ([`Power::revive`]).
//! A sync can be left out by the place in the code that asks for it: a property that then still holds proves nothing.
//!
//! Included by path into the tests of each crate that changes files, whose every change goes through one type (`disk.rs`), and of
//! those that use such a crate. Each of them uses a part.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dice::Dice;

/// What a disk writes whole or not at all, bytes. Small, so that a record is torn in many places.
const SECTOR: usize = 64;

/// A place in the code that asks for a sync.
pub(crate) type Site = &'static Location<'static>;

/// The same as file, line and column.
pub(crate) type Place = (&'static str, u32, u32);

/// The places without whose sync everything `holds` in so many lives: syncs that are there for nothing, or tests that do not see what
/// they are for.
pub(crate) fn unnoticed(places: BTreeSet<Place>, lives: u64, holds: impl Fn(u64, Place) -> bool) -> Vec<String> {
    let is_unnoticed = |place: &Place| (0..lives).all(|seed| holds(seed, *place));
    places.into_iter().filter(is_unnoticed).map(|(file, line, _)| format!("{file}:{line}")).collect()
}

/// A step that went wrong: what it does, the how-manieth of its kind, and how.
pub(crate) type Struck = (&'static str, u64, Blow);

/// How a step goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Blow {
    /// The process is gone before anything is done.
    GoneBefore,
    /// It is done, and nobody is left to hear of it.
    GoneAfter,
    /// It fails, and is done in part.
    Failed,
}

/// The disk's own numbers for a file, whatever names it has.
type FileId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(FileId),
    Folder,
}

#[derive(Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Cut { length: u64 },
}

#[derive(Debug, Default)]
struct Names {
    durable: BTreeMap<OsString, Entry>,
    pending: Vec<(OsString, Option<Entry>)>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    // In order, because what is left of each is drawn one after the other.
    files: BTreeMap<FileId, Contents>,
    folders: BTreeMap<PathBuf, Names>,
    /// Which file an inode of the real folder is.
    inodes: HashMap<u64, FileId>,
    next_id: FileId,
    steps_left: Option<u64>,
    is_out: bool,
    left_out: Option<Place>,
    /// One sync in so many fails; 0: none.
    sync_fails_one_in: u64,
    /// One write in so many fails; 0: none.
    write_fails_one_in: u64,
    sites: BTreeSet<Place>,
    steps: BTreeMap<&'static str, u64>,
    struck: BTreeSet<Struck>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Power {
    root: PathBuf,
    state: Mutex<State>,
}

/// A folder for such a disk: in memory where the machine has that, because nothing here asks a real disk to be durable.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl Power {
    /// A disk with nothing on it, in an empty folder.
    pub(crate) fn over(root: &Path, seed: u64) -> Arc<Power> {
        let state = State {
            dice: Dice::of(seed),
            files: BTreeMap::new(),
            folders: [(root.to_owned(), Names::default())].into(),
            inodes: HashMap::new(),
            next_id: 0,
            steps_left: None,
            is_out: false,
            left_out: None,
            sync_fails_one_in: 0,
            write_fails_one_in: 0,
            sites: BTreeSet::new(),
            steps: BTreeMap::new(),
            struck: BTreeSet::new(),
        };
        Arc::new(Power { root: root.to_owned(), state: Mutex::new(state) })
    }

    /// The process, and maybe the power, goes with the step after so many more.
    pub(crate) fn cut_after(&self, steps: u64) {
        self.state().steps_left = Some(steps);
    }

    /// Nothing goes until [`Power::cut_after`] is called again. Returns how many steps were left.
    pub(crate) fn hold(&self) -> Option<u64> {
        self.state().steps_left.take()
    }

    /// Whether it is gone. What a process does from then on, it did not do.
    pub(crate) fn is_out(&self) -> bool {
        self.state().is_out
    }

    /// Syncs asked for at this place do nothing and say that all is well.
    pub(crate) fn leave_out(&self, site: Place) {
        self.state().left_out = Some(site);
    }

    /// One sync in so many fails.
    pub(crate) fn fail_syncs(&self, one_in: u64) {
        self.state().sync_fails_one_in = one_in;
    }

    /// One write in so many fails.
    pub(crate) fn fail_writes(&self, one_in: u64) {
        self.state().write_fails_one_in = one_in;
    }

    /// What went wrong so far.
    pub(crate) fn struck(&self) -> BTreeSet<Struck> {
        self.state().struck.clone()
    }

    /// The places that asked for a sync.
    pub(crate) fn sites(&self) -> BTreeSet<Place> {
        self.state().sites.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.state();
        state.step("create")?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, Contents::default());
        state.inodes.insert(file.metadata()?.ino(), id);
        state.name(path, Some(Entry::File(id)));
        state.end_step("create").map(|()| file)
    }

    pub(crate) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step("write")?;
        let one_in = state.write_fails_one_in;
        let fails = one_in > 0 && state.dice.one_in(one_in);
        let done = if fails { &bytes[..state.dice.below(bytes.len() as u64 + 1) as usize] } else { bytes };
        file.write_all_at(done, at)?;
        state.contents(file)?.pending.push(Change::Write { at, bytes: done.to_vec() });
        if fails {
            return Err(state.fail("write", "the disk could not write"));
        }
        state.end_step("write")
    }

    pub(crate) fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step("cut")?;
        file.set_len(length)?;
        state.contents(file)?.pending.push(Change::Cut { length });
        state.end_step("cut")
    }

    pub(crate) fn sync_data(&self, file: &File, site: Site) -> io::Result<()> {
        let mut state = self.state();
        state.step("sync")?;
        let done = state.sync(site, "sync");
        let mut dice = state.dice.clone();
        let contents = state.contents(file)?;
        match done {
            Ok(true) => {}
            Ok(false) => {
                for change in std::mem::take(&mut contents.pending) {
                    change.apply(&mut contents.durable);
                }
            }
            Err(error) => {
                contents.survive(&mut dice);
                state.dice = dice;
                return Err(error);
            }
        }
        state.end_step("sync")
    }

    pub(crate) fn sync_folder(&self, folder: &Path, site: Site) -> io::Result<()> {
        let mut state = self.state();
        state.step("sync of a folder")?;
        if !state.sync(site, "sync of a folder")? {
            let names = state.folders.entry(folder.to_owned()).or_default();
            for (name, entry) in std::mem::take(&mut names.pending) {
                apply(&mut names.durable, name, entry);
            }
        }
        state.end_step("sync of a folder")
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("removal")?;
        fs::remove_file(path)?;
        state.name(path, None);
        state.end_step("removal")
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("folder")?;
        fs::create_dir(path)?;
        state.folders.insert(path.to_owned(), Names::default());
        state.name(path, Some(Entry::Folder));
        state.end_step("folder")
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("link")?;
        fs::hard_link(from, to)?;
        let id = state.id_at(to)?;
        state.name(to, Some(Entry::File(id)));
        state.end_step("link")
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("renaming")?;
        fs::rename(from, to)?;
        let id = state.id_at(to)?;
        state.name(to, Some(Entry::File(id)));
        state.name(from, None);
        state.end_step("renaming")
    }

    /// Only the process had died: another one starts on what the kernel holds, synced or not.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        (state.is_out, state.steps_left) = (false, None);
    }

    /// The machine comes up: the folder becomes what is left, and there is power again until the next cut.
    pub(crate) fn restore(&self) -> io::Result<()> {
        let mut state = self.state();
        let State { dice, files, folders, .. } = &mut *state;
        for names in folders.values_mut() {
            names.survive(dice);
        }
        for contents in files.values_mut() {
            contents.survive(dice);
        }
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        let mut built = Built::default();
        state.build(&self.root, &mut built)?;
        let State { files, folders, inodes, .. } = &mut *state;
        files.retain(|id, _| built.paths.contains_key(id));
        folders.retain(|path, _| built.folders.contains(path));
        *inodes = built.inodes;
        (state.is_out, state.steps_left) = (false, None);
        Ok(())
    }
}

/// What was made of the folder after a cut.
#[derive(Default)]
struct Built {
    paths: HashMap<FileId, PathBuf>,
    folders: BTreeSet<PathBuf>,
    inodes: HashMap<u64, FileId>,
}

impl State {
    /// A step begins; the power may go before anything of it is done.
    fn step(&mut self, step: &'static str) -> io::Result<()> {
        if !self.is_out {
            *self.steps.entry(step).or_default() += 1;
        }
        match &mut self.steps_left {
            _ if self.is_out => Err(gone()),
            Some(0) if self.dice.one_in(2) => {
                self.is_out = true;
                self.strike(step, Blow::GoneBefore);
                Err(gone())
            }
            _ => Ok(()),
        }
    }

    /// A step was done; the power may go before anybody hears of it.
    fn end_step(&mut self, step: &'static str) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => {
                self.is_out = true;
                self.strike(step, Blow::GoneAfter);
                Err(gone())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn strike(&mut self, step: &'static str, how: Blow) {
        let number = self.steps.get(step).copied().unwrap_or_default();
        self.struck.insert((step, number, how));
    }

    fn fail(&mut self, step: &'static str, how: &'static str) -> io::Error {
        self.strike(step, Blow::Failed);
        io::Error::other(how)
    }

    /// Whether a sync is left out; or its failure.
    fn sync(&mut self, site: Site, step: &'static str) -> io::Result<bool> {
        let site = (site.file(), site.line(), site.column());
        self.sites.insert(site);
        if self.sync_fails_one_in > 0 && self.dice.one_in(self.sync_fails_one_in) {
            return Err(self.fail(step, "the disk could not sync"));
        }
        Ok(self.left_out == Some(site))
    }

    fn contents(&mut self, file: &File) -> io::Result<&mut Contents> {
        let id = self.inodes.get(&file.metadata()?.ino());
        id.and_then(|id| self.files.get_mut(id)).ok_or_else(|| io::Error::other("a file made behind the disk's back"))
    }

    fn id_at(&self, path: &Path) -> io::Result<FileId> {
        let id = self.inodes.get(&fs::metadata(path)?.ino()).copied();
        id.ok_or_else(|| io::Error::other("a file made behind the disk's back"))
    }

    fn name(&mut self, path: &Path, entry: Option<Entry>) {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            self.folders.entry(folder.to_owned()).or_default().pending.push((name.to_owned(), entry));
        }
    }

    fn build(&self, folder: &Path, built: &mut Built) -> io::Result<()> {
        built.folders.insert(folder.to_owned());
        let Some(names) = self.folders.get(folder) else { return Ok(()) };
        for (name, entry) in &names.durable {
            let path = folder.join(name);
            match entry {
                Entry::Folder => {
                    fs::create_dir(&path)?;
                    self.build(&path, built)?;
                }
                Entry::File(id) => match built.paths.get(id) {
                    Some(other) => fs::hard_link(other, &path)?,
                    None => {
                        fs::write(&path, self.files.get(id).map_or(&[][..], |contents| &contents.durable))?;
                        built.inodes.insert(fs::metadata(&path)?.ino(), *id);
                        built.paths.insert(*id, path);
                    }
                },
            }
        }
        Ok(())
    }
}

fn apply(names: &mut BTreeMap<OsString, Entry>, name: OsString, entry: Option<Entry>) {
    match entry {
        Some(entry) => names.insert(name, entry),
        None => names.remove(&name),
    };
}

impl Names {
    /// Of what is pending: nothing, all, the first so many, or each name as it was at a time of its own.
    fn survive(&mut self, dice: &mut Dice) {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        match dice.below(4) {
            0 => pending.clear(),
            1 => {}
            2 => pending.truncate(dice.below(pending.len() as u64 + 1) as usize),
            _ => {
                let mut stopped = BTreeSet::new();
                pending.retain(|(name, _)| {
                    let is_lost = stopped.contains(name) || dice.one_in(2);
                    if is_lost {
                        stopped.insert(name.clone());
                    }
                    !is_lost
                });
            }
        }
        pending.into_iter().for_each(|(name, entry)| apply(&mut self.durable, name, entry));
    }
}

impl Contents {
    /// Of what is pending: nothing, all, the first so many changes, or each sector for itself.
    fn survive(&mut self, dice: &mut Dice) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let fate = dice.below(4);
        let kept = match fate {
            0 => 0,
            2 => dice.below(pending.len() as u64 + 1) as usize,
            _ => pending.len(),
        };
        for change in pending.into_iter().take(kept) {
            match change {
                Change::Write { at, bytes } if fate == 3 => {
                    if dice.one_in(2) {
                        // The length is there, whatever becomes of the bytes.
                        let length = self.durable.len().max(at as usize + bytes.len());
                        self.durable.resize(length, 0);
                    }
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.one_in(2) {
                            let at = at + (number * SECTOR) as u64;
                            Change::Write { at, bytes: sector.to_vec() }.apply(&mut self.durable);
                        }
                    }
                }
                Change::Cut { .. } if fate == 3 && dice.one_in(2) => {}
                change => change.apply(&mut self.durable),
            }
        }
    }
}

impl Change {
    fn apply(self, contents: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                let (at, end) = (at as usize, at as usize + bytes.len());
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[at..end].copy_from_slice(&bytes);
            }
            Change::Cut { length } => contents.resize(length as usize, 0),
        }
    }
}
