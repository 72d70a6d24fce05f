//! The disk whose power fails, as the disk of a log. Included by path beside `power.rs`.

use std::fs::File;
use std::io;
use std::path::Path;

use airan_log::{Device, Site};

use crate::power::Power;

impl Device for Power {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        Power::create_folder(self, path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        Power::create(self, path)
    }

    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        Power::write(self, file, bytes, position)
    }

    fn sync_data(&self, file: &File, site: Site) -> io::Result<()> {
        Power::sync_data(self, file, site)
    }

    fn sync_folder(&self, folder: &Path, site: Site) -> io::Result<()> {
        Power::sync_folder(self, folder, site)
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        Power::cut(self, file, length)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Power::remove(self, path)
    }
}
