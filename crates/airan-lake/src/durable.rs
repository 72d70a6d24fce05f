//! A local folder as an object store that answers only when the disk has it.
//!
//! `object_store` 0.13 has no switch for fsync, so writing is ours: a temporary file in `_tmp/`, fsync, hard link (create)
//! or rename (overwrite) to its name, fsync of the folder, and of every folder made on the way. Reading and listing are
//! `LocalFileSystem`'s, the latter put in order. A name appears whole or not at all. What is read stays: before anything in a
//! folder is believed it is synced once, and again where a sync failed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::disk::{Disk, is_not_ours};

const STORE: &str = "durable local folder";
/// Files removed at once.
const REMOVALS_AT_ONCE: usize = 8;
/// Temporary files older than this belong to a process that died.
const DEAD_TEMPORARY: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    reads: Arc<LocalFileSystem>,
    folders: Arc<Folders>,
}

/// The root, and the folders whose own entries this process knows to be on disk.
#[derive(Debug)]
struct Folders {
    disk: Disk,
    root: PathBuf,
    durable: Mutex<HashSet<PathBuf>>,
    /// Folders that this process has synced and whose last sync did not fail: what is read in them stays.
    settled: Mutex<HashSet<PathBuf>>,
}

impl DurableLocal {
    /// Opens `root`, making it when missing, and removes temporary files a dead process left more than a day ago.
    pub(crate) fn open(root: &FsPath) -> io::Result<DurableLocal> {
        DurableLocal::open_on(Disk::default(), root)
    }

    pub(crate) fn open_on(disk: Disk, root: &FsPath) -> io::Result<DurableLocal> {
        disk.create_folders(root)?;
        let root = fs::canonicalize(root)?;
        disk.create_folder(&root.join("_tmp"))?;
        remove_dead_temporaries(&disk, &root.join("_tmp"));
        let reads = Arc::new(LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?);
        Ok(DurableLocal {
            reads,
            folders: Arc::new(Folders { disk, root, durable: Mutex::default(), settled: Mutex::default() }),
        })
    }
}

impl DurableLocal {
    /// Before anything of the folder of `location` is believed (see [`Folders::settle`]).
    async fn settle(&self, location: &Path) -> Result<()> {
        let path = self.reads.path_to_filesystem(location)?;
        let folder = path.parent().unwrap_or(&self.folders.root).to_owned();
        if self.folders.is_settled(&folder) {
            return Ok(());
        }
        let folders = Arc::clone(&self.folders);
        let done = tokio::task::spawn_blocking(move || folders.settle(&folder)).await?;
        done.map_err(|error| told(error, location))
    }

    /// A listing by name, as object stores list and as readers of a Delta log expect, of names that stay.
    fn settled(&self, listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = DurableLocal { reads: Arc::clone(&self.reads), folders: Arc::clone(&self.folders) };
        let sorted = async move {
            let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
            all.sort_by(|a, b| a.location.cmp(&b.location));
            let folder =
                |meta: &ObjectMeta| meta.location.as_ref().rsplit_once('/').map_or(0, |(folder, _)| folder.len());
            for (at, meta) in all.iter().enumerate() {
                let of = folder(meta);
                let before = at.checked_sub(1).map(|before| &all[before]);
                let is_seen = before.is_some_and(|before| {
                    folder(before) == of && before.location.as_ref()[..of] == meta.location.as_ref()[..of]
                });
                if !is_seen {
                    store.settle(&meta.location).await?;
                }
            }
            Ok::<_, Error>(futures::stream::iter(all.into_iter().map(Ok)))
        };
        futures::stream::once(sorted).try_flatten().boxed()
    }
}

impl Folders {
    /// Writes `payload` under a temporary name and syncs it.
    fn write_temporary(&self, payload: &PutPayload) -> io::Result<PathBuf> {
        let path = self.root.join("_tmp").join(format!("{:032x}", rand::random::<u128>()));
        let file = self.disk.create(&path)?;
        let mut position = 0;
        let written = payload.iter().try_for_each(|part| {
            self.disk.write(&file, part, position)?;
            position += part.len() as u64;
            Ok(())
        });
        if let Err(error) = written.and_then(|()| self.disk.sync_data(&file)) {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// Makes names in `folder` durable, and remembers whether they are.
    #[cfg_attr(test, track_caller)]
    fn sync(&self, folder: &FsPath) -> io::Result<()> {
        let done = self.disk.sync_folder(folder);
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        match &done {
            Ok(()) => settled.insert(folder.to_owned()),
            Err(_) => settled.remove(folder),
        };
        done
    }

    fn is_settled(&self, folder: &FsPath) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Makes names durable that another process may have left before it died, or a put of ours whose sync failed. Whoever finds
    /// such a name takes it for true and acts on it: deletes the records that a Delta commit covers, counts a commit as done.
    fn settle(&self, folder: &FsPath) -> io::Result<()> {
        match self.sync(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound || is_not_ours(&error) => Ok(()),
            done => done,
        }
    }

    /// Makes `folder` and its parents below the root, each one's entry synced once per process.
    fn make(&self, folder: &FsPath) -> io::Result<()> {
        if folder == self.root || !folder.starts_with(&self.root) || self.known(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make(parent)?;
            self.disk.create_folder(folder)?;
            self.sync(parent)?;
        }
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    fn known(&self, folder: &FsPath) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Gives `from` the name `to` as well, if nothing has it. The folder is synced also where the name was taken: the
    /// taker may be an earlier attempt of ours whose sync failed.
    #[cfg_attr(test, track_caller)]
    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        self.make(folder)?;
        let linked = self.disk.link(from, to);
        if linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // Somebody removed the folder since we made it: forget what we know, so that a retry makes it again.
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            linked => self.sync(folder).and(linked),
        }
    }

    fn put(&self, to: &FsPath, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
        let temporary = self.write_temporary(payload)?;
        let done = match mode {
            PutMode::Create => self.link(&temporary, to),
            _ => {
                let folder = to.parent().unwrap_or(&self.root);
                let renamed = self.make(folder).and_then(|()| self.disk.rename(&temporary, to));
                renamed.and_then(|()| self.sync(folder))
            }
        };
        let _ = self.disk.remove(&temporary);
        done
    }
}

/// A file that comes in parts: they are written to a temporary file, and get their name when all are on disk.
#[derive(Debug)]
struct Upload {
    folders: Arc<Folders>,
    to: Path,
    target: PathBuf,
    temporary: PathBuf,
    file: Arc<File>,
    /// Where the next part begins.
    at: u64,
}

impl Upload {
    fn begin(folders: Arc<Folders>, to: Path, target: PathBuf) -> io::Result<Upload> {
        let temporary = folders.root.join("_tmp").join(format!("{:032x}", rand::random::<u128>()));
        let file = Arc::new(folders.disk.create(&temporary)?);
        Ok(Upload { folders, to, target, temporary, file, at: 0 })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = self.folders.disk.remove(&self.temporary);
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let (folders, file, mut at, to) = (Arc::clone(&self.folders), Arc::clone(&self.file), self.at, self.to.clone());
        self.at += part.content_length() as u64;
        let write = move || {
            part.iter().try_for_each(|bytes| {
                folders.disk.write(&file, bytes, at)?;
                at += bytes.len() as u64;
                Ok(())
            })
        };
        Box::pin(async move { tokio::task::spawn_blocking(write).await?.map_err(|error: io::Error| told(error, &to)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (folders, file) = (Arc::clone(&self.folders), Arc::clone(&self.file));
        let (temporary, target) = (self.temporary.clone(), self.target.clone());
        let complete = move || folders.disk.sync_data(&file).and_then(|()| folders.link(&temporary, &target));
        tokio::task::spawn_blocking(complete).await?.map_err(|error| told(error, &self.to))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Best effort: a file that cannot be looked at or removed stays.
fn remove_dead_temporaries(disk: &Disk, folder: &FsPath) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > DEAD_TEMPORARY) {
            let _ = disk.remove(&entry.path());
        }
    }
}

fn told(error: io::Error, path: &Path) -> Error {
    let path = path.to_string();
    match error.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        _ => Error::Generic { store: STORE, source: error.into() },
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.folders.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return Err(Error::NotImplemented { operation: "update".into(), implementer: STORE.into() });
        }
        let to = self.reads.path_to_filesystem(location)?;
        let folders = Arc::clone(&self.folders);
        let done = tokio::task::spawn_blocking(move || folders.put(&to, &payload, &opts.mode)).await?;
        done.map_err(|error| told(error, location))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Create-only, unlike an object store's: a name that is taken fails on completion.
    async fn put_multipart_opts(&self, to: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let target = self.reads.path_to_filesystem(to)?;
        let begun = Upload::begin(Arc::clone(&self.folders), to.clone(), target);
        begun.map(|upload| Box::new(upload) as Box<dyn MultipartUpload>).map_err(|error| told(error, to))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.settle(location).await?;
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.settle(location).await?;
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (reads, folders) = (Arc::clone(&self.reads), Arc::clone(&self.folders));
        let remove = move |location: Result<Path>| {
            let (reads, folders) = (Arc::clone(&reads), Arc::clone(&folders));
            async move {
                let location = location?;
                let path = reads.path_to_filesystem(&location)?;
                let done = tokio::task::spawn_blocking(move || folders.disk.remove(&path)).await?;
                done.map(|()| location.clone()).map_err(|error| told(error, &location))
            }
        };
        locations.map(remove).buffered(REMOVALS_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.settled(self.reads.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.settled(self.reads.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.reads.list_with_delimiter(prefix).await?;
        if let Some(meta) = listed.objects.first() {
            self.settle(&meta.location).await?;
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode != CopyMode::Create {
            return Err(Error::NotImplemented { operation: "copy over".into(), implementer: STORE.into() });
        }
        let (source, target) = (self.reads.path_to_filesystem(from)?, self.reads.path_to_filesystem(to)?);
        let folders = Arc::clone(&self.folders);
        let done = tokio::task::spawn_blocking(move || folders.link(&source, &target)).await?;
        done.map_err(|error| told(error, to))
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    /// Scenario: one key is put twice, linked twice, overwritten, read and listed.
    /// Guarantees: the second create fails with AlreadyExists and changes nothing; no temporary file is left or listed.
    #[tokio::test]
    async fn a_name_is_created_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(folder.path()).unwrap();
        let (a, b) = (Path::from("x/date=2026-01-01/a"), Path::from("y/b"));
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&a, "one".into(), create()).await.unwrap();
        let again = store.put_opts(&a, "two".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "one");
        store.copy_if_not_exists(&a, &b).await.unwrap();
        assert!(matches!(store.copy_if_not_exists(&a, &b).await, Err(Error::AlreadyExists { .. })));
        store.delete(&a).await.unwrap();
        assert_eq!(store.get(&b).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&b, "three".into()).await.unwrap();
        assert_eq!(store.get(&b).await.unwrap().bytes().await.unwrap(), "three");
        assert_eq!(fs::read_dir(folder.path().join("_tmp")).unwrap().count(), 0);
    }

    /// Scenario: a file comes in parts, twice under one name; a third one is begun and dropped.
    /// Guarantees: it is there whole once it is complete and not before; a taken name is refused; nothing temporary stays.
    #[tokio::test]
    async fn a_file_in_parts_gets_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(folder.path()).unwrap();
        let name = Path::from("t/_held/x");
        for is_first in [true, false] {
            let mut upload = store.put_multipart(&name).await.unwrap();
            let (one, two) = (upload.put_part("one,".into()), upload.put_part("two".into()));
            two.await.unwrap();
            one.await.unwrap();
            assert_eq!(store.head(&name).await.is_err(), is_first);
            assert_eq!(upload.complete().await.is_ok(), is_first);
        }
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "one,two");
        drop(store.put_multipart(&Path::from("t/y")).await.unwrap());
        assert_eq!(fs::read_dir(folder.path().join("_tmp")).unwrap().count(), 0);
    }

    /// Scenario: the folder of a known name is removed behind our back.
    /// Guarantees: the next put fails, the one after it makes the folder again.
    #[tokio::test]
    async fn a_removed_folder_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(folder.path()).unwrap();
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&Path::from("t/a"), "1".into(), create()).await.unwrap();
        fs::remove_dir_all(folder.path().join("t")).unwrap();
        assert!(store.put_opts(&Path::from("t/b"), "2".into(), create()).await.is_err());
        store.put_opts(&Path::from("t/b"), "2".into(), create()).await.unwrap();
    }
}
