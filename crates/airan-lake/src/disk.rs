//! Every change the local store makes to a file system, in one place, so that a test can take the power away between them
//! (`tests/power.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The disk; in tests, one whose power fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) power: Option<std::sync::Arc<crate::power::Power>>,
}

impl Disk {
    /// A new file; fails if there is one.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.create(path);
        }
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    pub(crate) fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.write(file, bytes, position);
        }
        file.write_all_at(bytes, position)
    }

    /// `fsync` of a file: contents and length.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync_data(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.sync_data(file, std::panic::Location::caller());
        }
        file.sync_all()
    }

    /// Makes names in a folder durable.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.sync_folder(folder, std::panic::Location::caller());
        }
        File::open(folder)?.sync_all()
    }

    /// Gives a file another name, if nothing has it.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.link(from, to);
        }
        fs::hard_link(from, to)
    }

    /// Gives a file another name, which may be another file's.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.rename(from, to);
        }
        fs::rename(from, to)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.remove(path);
        }
        fs::remove_file(path)
    }

    /// Makes one folder, if it is not there.
    pub(crate) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        #[cfg(test)]
        if let Some(power) = &self.power {
            return power.create_folder(folder);
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a folder and those above it, the name of each durable. Names that are there are synced as well: whoever made them
    /// may have died before that.
    pub(crate) fn create_folders(&self, folder: &Path) -> io::Result<()> {
        let Some(parent) = folder.parent() else { return Ok(()) };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if parent != Path::new(".") {
            self.create_folders(parent)?;
        }
        let was_there = folder.is_dir();
        self.create_folder(folder)?;
        match self.sync_folder(parent) {
            // A folder that this process may not change was not changed by one like it.
            Err(error) if was_there && is_not_ours(&error) => Ok(()),
            done => done,
        }
    }
}

/// Whether a folder could not be synced for a reason that also keeps this process from changing it, or because its file system
/// has no sync.
pub(crate) fn is_not_ours(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}
