//! The store under a lake: opening it, proving that it can arbitrate, and the few operations the protocol is made of.
//!
//! K2 rests on one thing: of two writers that create one key, exactly one succeeds. `probe` proves it before anything is
//! written. An operation that fails has an *unknown* outcome; the caller resolves it by reading, never by guessing.

use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::durable::DurableLocal;
use crate::seal::Checksum;
use crate::settings::LakeSettings;
use crate::uploads;

/// Ranges of one object that are read at once.
const RANGES_AT_ONCE: usize = 8;
/// Bytes of an object that are in memory while its checksum is summed up.
const PIECE: usize = 8 << 20;

/// The store did not answer, or answered with an error: what happened is unknown. Wait and try again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct StoreError {
    doing: &'static str,
    path: String,
    source: object_store::Error,
}

impl StoreError {
    pub(crate) fn new(doing: &'static str, path: impl ToString, source: Error) -> StoreError {
        StoreError { doing, path: path.to_string(), source }
    }
}

/// Why a store cannot carry a lake.
#[derive(Debug, thiserror::Error)]
pub enum OpenLakeError {
    /// Use a folder, or a URL this build knows.
    #[error("`{path}` is no lake: {reason}")]
    Path {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Build with the feature, or use a local folder.
    #[error("`{path}` needs airan built with `--features cloud`")]
    NoCloud {
        /// As given.
        path: String,
    },
    /// Use a local disk, or an object store where several machines share the lake.
    #[error(
        "{path} lies on nfs, where two processes can both believe they created one file; use a local disk or an object store"
    )]
    Nfs {
        /// The folder.
        path: String,
    },
    /// Use another store: this one lets two processors commit the same rows.
    #[error(
        "store {store} let a key be created twice: it does not support put-if-absent (`If-None-Match: *`), without which rows would be stored twice"
    )]
    NoPutIfAbsent {
        /// The store.
        store: String,
    },
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Never in practice: the names of the lake's own metrics are fixed and valid.
    #[error("cannot make the lake's metrics")]
    Metrics(#[from] prometheus::Error),
}

/// How a create ended, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The key holds our bytes.
    New,
    /// The key was there before.
    Taken,
}

/// Bytes of one part of an upload; S3 wants at least 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// An object store and what the protocol needs to know about it.
#[derive(Clone)]
pub(crate) struct Store {
    object: Arc<dyn ObjectStore>,
    /// The same, where uploads in parts outlive their process.
    multipart: Option<Arc<dyn MultipartStore>>,
    part_bytes: usize,
    /// True on a local disk: files wait in `_staging/` until the record names them, and get a second name for nothing.
    staged: bool,
}

impl Store {
    /// Opens what `settings` name. Nothing is written but, locally, the folder itself.
    pub(crate) fn open(settings: &LakeSettings) -> Result<Store, OpenLakeError> {
        match settings.path.split_once("://") {
            None => Store::local(FsPath::new(&settings.path)),
            Some(("file", path)) => Store::local(FsPath::new(path)),
            Some((scheme @ ("s3" | "gs" | "az"), rest)) => cloud(scheme, rest, settings),
            Some((scheme, _)) => Err(OpenLakeError::Path {
                path: settings.path.clone(),
                reason: format!("`{scheme}://` is unknown; s3://, gs://, az:// or a folder are known"),
            }),
        }
    }

    /// As `open`, but a local folder must be there: who reads a lake that does not exist has mistyped its name.
    pub(crate) fn open_to_read(settings: &LakeSettings) -> Result<Store, OpenLakeError> {
        let folder = settings.path.strip_prefix("file://").unwrap_or(&settings.path);
        if !folder.contains("://") && !FsPath::new(folder).is_dir() {
            let reason = "there is no such folder; a processor makes it when it starts".to_owned();
            return Err(OpenLakeError::Path { path: settings.path.clone(), reason });
        }
        Store::open(settings)
    }

    /// A store as given: for tests, and for stores opened elsewhere.
    pub(crate) fn over(object: Arc<dyn ObjectStore>, staged: bool) -> Store {
        Store { object, multipart: None, part_bytes: PART_BYTES, staged }
    }

    /// An object store whose uploads are sent in parts of so many bytes.
    pub(crate) fn in_parts<T: ObjectStore + MultipartStore>(object: Arc<T>, part_bytes: usize) -> Store {
        let multipart: Arc<dyn MultipartStore> = Arc::clone(&object) as _;
        Store { object, multipart: Some(multipart), part_bytes, staged: false }
    }

    fn local(folder: &FsPath) -> Result<Store, OpenLakeError> {
        let refused = |error: std::io::Error| OpenLakeError::Path {
            path: folder.display().to_string(),
            reason: error.to_string(),
        };
        let object = DurableLocal::open(folder).map_err(refused)?;
        #[cfg(target_os = "linux")]
        if is_nfs(rustix::fs::statfs(folder).map_err(|error| refused(error.into()))?.f_type) {
            return Err(OpenLakeError::Nfs { path: folder.display().to_string() });
        }
        Ok(Store::over(Arc::new(object), true))
    }

    /// The store itself, for readers.
    pub(crate) fn object(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.object)
    }

    /// Whether files wait in `_staging/` for their record.
    pub(crate) fn staged(&self) -> bool {
        self.staged
    }

    /// Where uploads in parts outlive their process.
    pub(crate) fn multipart(&self) -> Option<&Arc<dyn MultipartStore>> {
        self.multipart.as_ref()
    }

    /// Bytes of one part of an upload.
    pub(crate) fn part_bytes(&self) -> usize {
        self.part_bytes
    }

    /// Creates one key twice: the second must fail.
    pub(crate) async fn probe(&self) -> Result<(), OpenLakeError> {
        let key = Path::from(format!("_probe/{:032x}", rand::random::<u128>()));
        let first = self.create(&key, Bytes::from_static(b"first")).await?;
        let second = self.create(&key, Bytes::from_static(b"second")).await;
        let kept = self.read(&key).await?;
        self.remove(&key).await?;
        match (first, second?) {
            (Created::New, Created::Taken) if kept.as_deref() == Some(b"first") => Ok(()),
            _ => Err(OpenLakeError::NoPutIfAbsent { store: self.object.to_string() }),
        }
    }

    /// Puts `bytes` at `path` unless the key is taken. An error leaves the outcome unknown.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.object.put_opts(path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Created::New),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Taken),
            Err(error) => Err(StoreError::new("create", path, error)),
        }
    }

    /// Begins an object at `path` that comes in parts. Only under names that nobody else can think of: an object store does
    /// not keep two uploads under one name apart.
    pub(crate) async fn upload(&self, path: &Path) -> Result<Box<dyn MultipartUpload>, StoreError> {
        match &self.multipart {
            Some(multipart) => uploads::begin(self, multipart, path).await,
            None => self.object.put_multipart(path).await.map_err(|error| StoreError::new("create", path, error)),
        }
    }

    /// Puts `bytes` at `path`, whatever is there. Only for what is no truth (the hint of the newest record).
    pub(crate) async fn overwrite(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        self.object.put(path, PutPayload::from(bytes)).await.map_err(|error| StoreError::new("write", path, error))?;
        Ok(())
    }

    /// The bytes at `path`; `None` where there is nothing.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        let read = async { self.object.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::new("read", path, error)),
        }
    }

    /// Size and checksum of the object at `path`, which passes by piece by piece; `None` where there is nothing.
    pub(crate) async fn sum(&self, path: &Path) -> Result<Option<(u64, Checksum)>, StoreError> {
        let Some(bytes) = self.size(path).await? else { return Ok(None) };
        let mut sum = crc32fast::Hasher::new();
        for from in (0..bytes).step_by(PIECE) {
            let piece = self.object.get_range(path, from..bytes.min(from + PIECE as u64)).await;
            sum.update(&piece.map_err(|error| StoreError::new("read", path, error))?);
        }
        Ok(Some((bytes, Checksum::from_crc32(sum.finalize()))))
    }

    /// These ranges of the object at `path`; those next to each other are read as one.
    pub(crate) async fn ranges(&self, path: &Path, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, StoreError> {
        let mut whole: Vec<Range<u64>> = Vec::new();
        for range in &ranges {
            match whole.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => whole.push(range.clone()),
            }
        }
        let mut read = Vec::with_capacity(whole.len());
        for some in whole.chunks(RANGES_AT_ONCE) {
            let mut under_way = Vec::with_capacity(some.len());
            for range in some {
                under_way.push(self.object.get_range(path, range.clone()));
            }
            let found = futures::future::try_join_all(under_way).await;
            read.extend(found.map_err(|error| StoreError::new("read", path, error))?);
        }
        let mut read = read.into_iter();
        let mut piece = Bytes::new();
        let each = ranges.into_iter().map(|range| {
            if piece.is_empty() {
                piece = read.next().unwrap_or_default();
            }
            let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            piece.split_to(bytes.min(piece.len()))
        });
        Ok(each.collect())
    }

    /// Size of the object at `path`; `None` where there is nothing.
    pub(crate) async fn size(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        match self.object.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::new("look at", path, error)),
        }
    }

    /// Removes what is at `path`; nothing there is fine.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.object.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::new("delete", path, error)),
        }
    }

    /// Gives the object at `from` the name `to` as well; fine where `to` is there already.
    pub(crate) async fn link(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        match self.object.copy_if_not_exists(from, to).await {
            Ok(()) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(StoreError::new("name", to, error)),
        }
    }

    /// Every object below `prefix`, in no order.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed = self.object.list(Some(prefix)).try_collect().await;
        listed.map_err(|error| StoreError::new("list", prefix, error))
    }

    /// Every object below `prefix` whose path sorts after `offset`, in no order.
    pub(crate) async fn list_after(&self, prefix: &Path, offset: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed = self.object.list_with_offset(Some(prefix), offset).try_collect().await;
        listed.map_err(|error| StoreError::new("list", prefix, error))
    }

    /// Names of the folders directly below `prefix`, sorted.
    pub(crate) async fn folders(&self, prefix: &Path) -> Result<Vec<String>, StoreError> {
        let listed = self.object.list_with_delimiter(Some(prefix)).await;
        let listed = listed.map_err(|error| StoreError::new("list", prefix, error))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("object", &self.object).field("staged", &self.staged).finish_non_exhaustive()
    }
}

/// `statfs` f_type of NFS on Linux (linux/magic.h).
#[cfg(target_os = "linux")]
fn is_nfs(kind: rustix::fs::FsWord) -> bool {
    kind == rustix::fs::NFS_SUPER_MAGIC
}

fn cloud(scheme: &str, rest: &str, settings: &LakeSettings) -> Result<Store, OpenLakeError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let refused = |reason: String| OpenLakeError::Path { path: settings.path.clone(), reason };
    if bucket.is_empty() {
        return Err(refused("it names no bucket".to_owned()));
    }
    let url = format!("{scheme}://{bucket}");
    let prefix = Path::from(prefix);
    match scheme {
        "s3" => s3(&url, settings).map(|object| below(object, prefix)),
        "gs" => gs(&url, settings).map(|object| below(object, prefix)),
        _ => az(&url, settings).map(|object| below(object, prefix)),
    }
    .map_err(|error| refused(error.to_string()))
}

fn below<T: ObjectStore + MultipartStore>(object: T, prefix: Path) -> Store {
    Store::in_parts(Arc::new(object_store::prefix::PrefixStore::new(object, prefix)), PART_BYTES)
}

fn s3(url: &str, settings: &LakeSettings) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut builder = object_store::aws::AmazonS3Builder::from_env().with_url(url);
    for (name, value) in &settings.options {
        builder = builder.with_config(name.to_lowercase().parse()?, value.expose());
    }
    builder.build()
}

fn gs(url: &str, settings: &LakeSettings) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_url(url);
    for (name, value) in &settings.options {
        builder = builder.with_config(name.to_lowercase().parse()?, value.expose());
    }
    builder.build()
}

fn az(url: &str, settings: &LakeSettings) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let mut builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url);
    for (name, value) in &settings.options {
        builder = builder.with_config(name.to_lowercase().parse()?, value.expose());
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::faults::{Fault, FaultyStore};

    fn settings(path: &str) -> LakeSettings {
        LakeSettings {
            path: path.to_owned(),
            options: BTreeMap::new(),
            raw_retention: Duration::from_secs(86_400).into(),
            window_retention: Duration::from_secs(86_400).into(),
            max_bytes: None,
            checkpoint_interval: 100,
            compaction: crate::testing::compaction(),
        }
    }

    /// Scenario: paths that name no store this build can use.
    /// Guarantees: each is refused with the reason.
    #[test]
    fn what_cannot_carry_a_lake_is_refused() {
        assert!(Store::open(&settings("s3://")).unwrap_err().to_string().contains("it names no bucket"));
        assert!(Store::open(&settings("ftp://x/y")).unwrap_err().to_string().contains("`ftp://` is unknown"));
        assert!(matches!(Store::open(&settings("/proc/airan")), Err(OpenLakeError::Path { .. })));
        #[cfg(target_os = "linux")]
        assert!(is_nfs(0x6969) && !is_nfs(0xEF53), "nfs and ext4, by their magic numbers");
    }

    /// Scenario: a lake that is not there is opened to read, then to write, then to read.
    /// Guarantees: reading makes nothing and says what is missing; writing makes the folder.
    #[test]
    fn only_who_writes_makes_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("lake");
        let settings = settings(folder.to_str().unwrap());
        let refused = Store::open_to_read(&settings).unwrap_err();
        assert!(
            matches!(&refused, OpenLakeError::Path { reason, .. } if reason.contains("no such folder")),
            "{refused}"
        );
        assert!(!folder.exists());
        Store::open(&settings).unwrap();
        Store::open_to_read(&settings).unwrap();
    }

    /// Scenario: a local folder, and a store that ignores the condition of a put.
    /// Guarantees: K2's ground; the first passes the probe and keeps no trace of it, the second is refused.
    #[tokio::test]
    async fn a_store_that_ignores_put_if_absent_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&settings(folder.path().to_str().unwrap())).unwrap();
        store.probe().await.unwrap();
        assert!(store.list(&Path::from("_probe")).await.unwrap().is_empty());

        let deaf = FaultyStore::in_memory();
        deaf.always(Fault::IgnoreCondition);
        let error = Store::over(deaf, false).probe().await.unwrap_err();
        assert!(matches!(error, OpenLakeError::NoPutIfAbsent { .. }), "{error}");
    }
}
