//! Every change the log makes to a file system, in one place, so that a test can watch their order and let any of them fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One change, or one step that makes changes durable.
#[cfg_attr(not(test), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Write,
    SyncData,
    SyncFolder,
    Cut,
    Remove,
}

/// What a test wants to know of, or to fail.
#[cfg(test)]
pub(crate) type Watch = std::sync::Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// The disk; in tests, one that tells what is done to it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub watch: Option<Watch>,
}

impl Disk {
    fn step(&self, _step: Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(watch) = &self.watch {
            return watch(_step);
        }
        Ok(())
    }

    /// A new file for reading and writing; fails if there is one.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Create)?;
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    pub fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.step(Step::Write)?;
        file.write_all_at(bytes, position)
    }

    /// `fdatasync`: contents and length.
    pub fn sync_data(&self, file: &File) -> io::Result<()> {
        self.step(Step::SyncData)?;
        file.sync_data()
    }

    /// Makes names in a folder durable: without it a new file may be gone after a power loss, contents and all.
    pub fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder)?;
        File::open(folder)?.sync_all()
    }

    pub fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        self.step(Step::Cut)?;
        file.set_len(length)
    }

    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove)?;
        std::fs::remove_file(path)
    }
}
