//! A local folder as an object store that answers only when the disk has it.
//!
//! `object_store` 0.13 has no switch for fsync, so writing is ours: a temporary file in `_tmp/`, fsync, hard link (create)
//! or rename (overwrite) to its name, fsync of the folder, and of every folder made on the way. Reading and listing are
//! `LocalFileSystem`'s, the latter put in order. A name appears whole or not at all.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
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

const STORE: &str = "durable local folder";
/// Temporary files older than this belong to a process that died.
const DEAD_TEMPORARY: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    reads: LocalFileSystem,
    folders: Arc<Folders>,
}

/// The root, and the folders whose own entries this process knows to be on disk.
#[derive(Debug)]
struct Folders {
    root: PathBuf,
    durable: Mutex<HashSet<PathBuf>>,
}

impl DurableLocal {
    /// Opens `root`, making it when missing, and removes temporary files a dead process left more than a day ago.
    pub(crate) fn open(root: &FsPath) -> io::Result<DurableLocal> {
        fs::create_dir_all(root.join("_tmp"))?;
        let root = fs::canonicalize(root)?;
        sync_folder(&root)?;
        if let Some(parent) = root.parent() {
            sync_folder(parent)?;
        }
        remove_dead_temporaries(&root.join("_tmp"));
        let reads = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        Ok(DurableLocal { reads, folders: Arc::new(Folders { root, durable: Mutex::default() }) })
    }
}

impl Folders {
    /// Writes `payload` under a temporary name and syncs it.
    fn write_temporary(&self, payload: &PutPayload) -> io::Result<PathBuf> {
        let path = self.root.join("_tmp").join(format!("{:032x}", rand::random::<u128>()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let written = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// Makes `folder` and its parents below the root, each one's entry synced once per process.
    fn make(&self, folder: &FsPath) -> io::Result<()> {
        if folder == self.root || !folder.starts_with(&self.root) || self.known(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make(parent)?;
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_folder(parent)?,
            }
        }
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    fn known(&self, folder: &FsPath) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Gives `from` the name `to` as well, if nothing has it. The folder is synced also where the name was taken: the
    /// taker may be an earlier attempt of ours whose sync failed.
    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        self.make(folder)?;
        let linked = fs::hard_link(from, to);
        if linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // Somebody removed the folder since we made it: forget what we know, so that a retry makes it again.
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            linked => sync_folder(folder).and(linked),
        }
    }

    fn put(&self, to: &FsPath, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
        let temporary = self.write_temporary(payload)?;
        let done = match mode {
            PutMode::Create => self.link(&temporary, to),
            _ => {
                let folder = to.parent().unwrap_or(&self.root);
                self.make(folder).and_then(|()| fs::rename(&temporary, to)).and_then(|()| sync_folder(folder))
            }
        };
        let _ = fs::remove_file(&temporary);
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
        let file = Arc::new(OpenOptions::new().write(true).create_new(true).open(&temporary)?);
        Ok(Upload { folders, to, target, temporary, file, at: 0 })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let (file, mut at, to) = (Arc::clone(&self.file), self.at, self.to.clone());
        self.at += part.content_length() as u64;
        let write = move || {
            part.iter().try_for_each(|bytes| {
                file.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
                Ok(())
            })
        };
        Box::pin(async move { tokio::task::spawn_blocking(write).await?.map_err(|error: io::Error| told(error, &to)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (folders, file) = (Arc::clone(&self.folders), Arc::clone(&self.file));
        let (temporary, target) = (self.temporary.clone(), self.target.clone());
        let complete = move || file.sync_all().and_then(|()| folders.link(&temporary, &target));
        tokio::task::spawn_blocking(complete).await?.map_err(|error| told(error, &self.to))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

fn sync_folder(folder: &FsPath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Best effort: a file that cannot be looked at or removed stays.
fn remove_dead_temporaries(folder: &FsPath) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > DEAD_TEMPORARY) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// By name, as object stores list and as readers of a Delta log expect.
fn in_order(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = async move {
        let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(futures::stream::iter(all.into_iter().map(Ok)))
    };
    futures::stream::once(sorted).try_flatten().boxed()
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
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.reads.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.reads.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
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
