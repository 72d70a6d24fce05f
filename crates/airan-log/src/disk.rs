//! Every change the log makes to a file system, in one place, so that a test can watch their order, let any of them fail, or
//! take the power away between them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use crate::device::Device;

/// One change, or one step that makes changes durable.
#[cfg_attr(not(test), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CreateFolder,
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

/// The disk, or what stands in for it; in tests, one that tells what is done to it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub watch: Option<Watch>,
    pub instead: Option<Arc<dyn Device>>,
}

impl Disk {
    pub fn over(device: Arc<dyn Device>) -> Disk {
        Disk {
            #[cfg(test)]
            watch: None,
            instead: Some(device),
        }
    }

    fn step(&self, _step: Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(watch) = &self.watch {
            return watch(_step);
        }
        Ok(())
    }

    /// Makes a folder and those above it, the name of each durable. Names that are there are synced as well: whoever made them
    /// may have died before that.
    pub fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let Some(parent) = folder.parent() else { return Ok(()) };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if parent != Path::new(".") {
            self.create_folder(parent)?;
        }
        let was_there = folder.is_dir();
        if !was_there {
            match self.create_one_folder(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        match self.sync_folder(parent) {
            // A folder that this process may not change was not changed by one like it.
            Err(error) if was_there && is_not_ours(&error) => Ok(()),
            done => done,
        }
    }

    fn create_one_folder(&self, folder: &Path) -> io::Result<()> {
        self.step(Step::CreateFolder)?;
        if let Some(device) = &self.instead {
            return device.create_folder(folder);
        }
        std::fs::create_dir(folder)
    }

    /// A new file for reading and writing; fails if there is one.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Create)?;
        if let Some(device) = &self.instead {
            return device.create(path);
        }
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    pub fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.step(Step::Write)?;
        if let Some(device) = &self.instead {
            return device.write(file, bytes, position);
        }
        file.write_all_at(bytes, position)
    }

    /// `fdatasync`: contents and length.
    #[track_caller]
    pub fn sync_data(&self, file: &File) -> io::Result<()> {
        self.step(Step::SyncData)?;
        if let Some(device) = &self.instead {
            return device.sync_data(file, Location::caller());
        }
        file.sync_data()
    }

    /// Makes names in a folder durable: without it a new file may be gone after a power loss, contents and all.
    #[track_caller]
    pub fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder)?;
        if let Some(device) = &self.instead {
            return device.sync_folder(folder, Location::caller());
        }
        File::open(folder)?.sync_all()
    }

    pub fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        self.step(Step::Cut)?;
        if let Some(device) = &self.instead {
            return device.cut(file, length);
        }
        file.set_len(length)
    }

    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove)?;
        if let Some(device) = &self.instead {
            return device.remove(path);
        }
        std::fs::remove_file(path)
    }
}

/// Whether a folder could not be synced for a reason that also keeps this process from changing it, or because its file system
/// has no sync.
fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// Makes a folder and those above it, durable before this returns: a folder whose name was not synced may be gone after a power
/// loss, with everything in it.
///
/// # Errors
/// If one of them cannot be made or synced.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    Disk::default().create_folder(folder)
}
