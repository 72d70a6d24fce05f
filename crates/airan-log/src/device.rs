//! A disk that stands in for the machine's own.
//!
//! Killing a process proves nothing about syncs, because the kernel still holds what was written. Tests of this crate and of those
//! above it run over a disk that forgets what was not synced (`tests/power.rs`), so the place where it stands in is public. A log
//! that was opened with [`crate::Log::open`] has none, and pays one look at an `Option` beside each call to the kernel.

use std::fs::File;
use std::io;
use std::panic::Location;
use std::path::Path;

/// A place in the code that asks for a sync.
pub type Site = &'static Location<'static>;

/// What the log does to a file system. Reading goes to the files themselves.
pub trait Device: Send + Sync {
    /// Makes one folder in a folder that is there.
    ///
    /// # Errors
    /// As the disk says; so with all that follow.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// A new file for reading and writing; fails if there is one.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `bytes` at `position`. After an error some of them may be there.
    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes contents and length of a file durable.
    fn sync_data(&self, file: &File, site: Site) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path, site: Site) -> io::Result<()>;

    /// Sets the length of a file.
    fn cut(&self, file: &File, length: u64) -> io::Result<()>;

    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
}
