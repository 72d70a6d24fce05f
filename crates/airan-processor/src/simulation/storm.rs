//! An object store in a storm: operations fail before or after they are done, are done long after they have failed, take their
//! time, break off half-way, or are the last thing their process does. So do the steps of uploads in parts, each for itself.
//!
//! What becomes of an operation follows from the seed, its process, its path and how often that process has done it: not from the
//! order in which operations of one instant come, which no runtime promises. Each process has a store of its own, over one memory
//! that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use airan_model::time::Micros;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::multipart::{MultipartStore, PartId};
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dice::Dice;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    Create,
    Overwrite,
    Get,
    Head,
    List,
    Delete,
    Copy,
    /// An upload in parts is begun, gets a part, becomes an object, or is given up.
    Begin,
    Part,
    Complete,
    Abort,
    /// A step of the log on its disk, which is not the store's.
    Disk,
}

impl Op {
    /// The steps of an upload in parts.
    pub(crate) const UPLOAD: [Op; 4] = [Op::Begin, Op::Part, Op::Complete, Op::Abort];
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// It fails and has done nothing.
    Before,
    /// It is done, and fails.
    After,
    /// It fails, and is done some time later.
    Later,
    /// It takes its time.
    Slow,
    /// It breaks off half-way.
    Torn,
    /// Its process dies before it is done.
    DeathBefore,
    /// Its process dies when it is done, and never learns of it.
    DeathAfter,
}

/// One place at which a run can go wrong: an operation, what it is on, the how-manieth of its kind in a run, and how.
pub(crate) type Point = (Op, &'static str, u64, Fault);

/// What was done: when in milliseconds, by which process, what, on what, the how-manieth time, and how it ended.
pub(crate) type Done = (u64, usize, Op, String, u64, Option<Fault>);

/// What becomes of one operation.
struct Fate {
    fault: Option<Fault>,
    dice: Dice,
}

struct Weather {
    seed: u64,
    /// One operation in so many goes wrong; 0: none.
    one_in: u64,
    by_kind: BTreeMap<(Op, &'static str), u64>,
    by_path: BTreeMap<(usize, Op, String), u64>,
    points: BTreeSet<Point>,
    trace: Vec<Done>,
    began: Instant,
}

/// Uploads in parts that are neither complete nor given up: parts by number.
#[derive(Default)]
struct Uploads {
    begun: u64,
    open: BTreeMap<MultipartId, BTreeMap<usize, PutPayload>>,
}

/// The memory that all processes share, and its weather.
#[derive(Clone)]
pub(crate) struct Storm {
    inner: Arc<InMemory>,
    uploads: Arc<Mutex<Uploads>>,
    weather: Arc<Mutex<Weather>>,
    deaths: mpsc::Sender<usize>,
}

/// One process's store.
pub(crate) struct StormyStore {
    storm: Storm,
    process: usize,
}

impl Storm {
    /// Deaths are told to `deaths` by the number of the process, which is to be dropped.
    pub(crate) fn new(seed: u64, one_in: u64, deaths: mpsc::Sender<usize>) -> Storm {
        let weather = Weather {
            seed,
            one_in,
            by_kind: BTreeMap::new(),
            by_path: BTreeMap::new(),
            points: BTreeSet::new(),
            trace: Vec::new(),
            began: Instant::now(),
        };
        Storm { inner: Arc::default(), uploads: Arc::default(), weather: Arc::new(Mutex::new(weather)), deaths }
    }

    pub(crate) fn store(&self, process: usize) -> Arc<StormyStore> {
        Arc::new(StormyStore { storm: self.clone(), process })
    }

    /// Uploads with parts that are neither complete nor given up.
    pub(crate) fn cut_off(&self) -> usize {
        self.uploads().open.values().filter(|parts| !parts.is_empty()).count()
    }

    /// When the youngest object was written, by the clock of the store.
    pub(crate) async fn newest(&self) -> Micros {
        let times = self.inner.list(None).map(|meta| meta.unwrap().last_modified.timestamp_micros());
        times.fold(Micros::MIN, async |newest, at| at.max(newest)).await
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap()
    }

    fn begin(&self) -> MultipartId {
        let mut uploads = self.uploads();
        uploads.begun += 1;
        let id = uploads.begun.to_string();
        uploads.open.insert(id.clone(), BTreeMap::new());
        id
    }

    fn part(&self, path: &Path, id: &MultipartId, number: usize, part: PutPayload) -> Result<PartId> {
        self.uploads().open.get_mut(id).ok_or_else(|| gone(path))?.insert(number, part);
        Ok(PartId { content_id: number.to_string() })
    }

    async fn complete(&self, path: &Path, id: &MultipartId, parts: &[PartId]) -> Result<PutResult> {
        let found = self.uploads().open.remove(id).ok_or_else(|| gone(path))?;
        let named: Vec<usize> = parts.iter().map(|part| part.content_id.parse().unwrap()).collect();
        assert!(found.keys().copied().eq(named), "{path}: not the parts that were sent");
        let bytes: Vec<Bytes> = found.into_values().flatten().collect();
        self.inner.put(path, bytes.into_iter().collect()).await
    }

    fn abort(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.uploads().open.remove(id).map(drop).ok_or_else(|| gone(path))
    }

    /// From now on one operation in so many goes wrong.
    pub(crate) fn blow(&self, one_in: u64) {
        self.weather().one_in = one_in;
    }

    /// From now on all is well.
    pub(crate) fn calm(&self) {
        self.weather().one_in = 0;
    }

    /// The faults there were, and everything that was done, in the order of time.
    pub(crate) fn points_and_trace(&self) -> (BTreeSet<Point>, Vec<Done>) {
        let weather = self.weather();
        let mut trace = weather.trace.clone();
        trace.sort();
        (weather.points.clone(), trace)
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }
}

/// Of the steps of uploads in parts at least one in so many goes wrong, in a storm.
const UPLOADS_ONE_IN: u64 = 4;

/// What a path holds.
fn kind(path: &Path) -> &'static str {
    let text = path.as_ref();
    let is_below = |folder: &str| text.starts_with(folder);
    match () {
        () if text.ends_with("/newest") => "hint",
        () if text.ends_with("partitions.json") => "partitions",
        () if is_below("_commits") => "record",
        () if is_below("_state") => "state",
        () if is_below("_schemas") => "schema",
        () if is_below("_requests") => "request",
        () if is_below("_erasures") => "erasure",
        () if is_below("_uploads") => "upload",
        () if is_below("_") => "other",
        () if text.contains("_delta_log") && text.contains("checkpoint") => "checkpoint",
        () if text.contains("_delta_log") => "delta",
        () if is_below("meters") || is_below("joined") => "windows",
        () => "rows",
    }
}

impl Weather {
    fn fate(&mut self, process: usize, op: Op, path: &Path, can: &[Fault]) -> Fate {
        let (kind, path) = (kind(path), without_ids(path));
        let key = (process, op, path.clone());
        let number = self.by_path.entry(key.clone()).or_default();
        *number += 1;
        let number = *number;
        let mut hasher = DefaultHasher::new();
        (self.seed, key, number).hash(&mut hasher);
        let mut dice = Dice::of(hasher.finish());
        // There are few uploads in parts.
        let one_in = if Op::UPLOAD.contains(&op) { self.one_in.min(UPLOADS_ONE_IN) } else { self.one_in };
        let is_due = one_in > 0 && dice.one_in(one_in);
        let fault = is_due.then(|| can[dice.below(can.len() as u64) as usize]);
        // Deaths cost a run more than other faults do; few of them are enough.
        let is_death = matches!(fault, Some(Fault::DeathBefore | Fault::DeathAfter));
        let fault = fault.filter(|_| !is_death || dice.one_in(3));
        let of_kind = self.by_kind.entry((op, kind)).or_default();
        *of_kind += 1;
        if let Some(fault) = fault {
            self.points.insert((op, kind, *of_kind, fault));
        }
        let at = self.began.elapsed().as_millis() as u64;
        if std::env::var_os("AIRAN_TRACE").is_some() {
            eprintln!("{at} {process} {op:?} {path} {number} {fault:?}");
        }
        self.trace.push((at, process, op, path, number, fault));
        Fate { fault, dice }
    }
}

/// A path without what is drawn at random: the ids of claims.
fn without_ids(path: &Path) -> String {
    let is_id = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = path.as_ref().split_inclusive(['-', '.', '/']);
    parts.map(|part| if is_id(part.trim_end_matches(['-', '.', '/'])) { "#" } else { part }).collect()
}

impl StormyStore {
    /// What becomes of the next operation; returns when it is to be done.
    async fn fate(&self, op: Op, path: &Path, can: &[Fault]) -> Fate {
        let mut fate = self.storm.weather().fate(self.process, op, path, can);
        let wait = match fate.fault {
            Some(Fault::Slow) => 10 + fate.dice.below(20_000),
            _ => 1 + fate.dice.below(4),
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if fate.fault == Some(Fault::DeathBefore) {
            self.die().await;
        }
        fate.fault = fate.fault.filter(|fault| *fault != Fault::Slow);
        fate
    }

    /// The process is dropped while this waits.
    async fn die(&self) {
        let _ = self.storm.deaths.send(self.process).await;
        std::future::pending::<()>().await;
    }

    /// The end of an operation that was done.
    async fn after<T>(&self, fault: Option<Fault>, done: Result<T>, path: &Path) -> Result<T> {
        match fault {
            Some(Fault::DeathAfter) => {
                self.die().await;
                done
            }
            Some(Fault::After) => done.and(Err(broken(path))),
            _ => done,
        }
    }
}

impl Fate {
    /// Has it done after all, when it has long been told to have failed.
    fn later(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let wait = Duration::from_millis(10 + self.dice.below(60_000));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            work.await;
        });
    }
}

fn broken(path: &Path) -> Error {
    Error::Generic { store: "storm", source: format!("bad weather at {path}").into() }
}

/// What a store says of an upload that it does not have (any more).
fn gone(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "no such upload".into() }
}

const CHANGE: [Fault; 6] =
    [Fault::Before, Fault::After, Fault::Later, Fault::Slow, Fault::DeathBefore, Fault::DeathAfter];
const LOOK: [Fault; 3] = [Fault::Before, Fault::Slow, Fault::DeathBefore];
const READ: [Fault; 4] = [Fault::Before, Fault::Slow, Fault::Torn, Fault::DeathBefore];

impl std::fmt::Debug for StormyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "storm({})", self.process)
    }
}

impl std::fmt::Display for StormyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "storm({})", self.process)
    }
}

#[async_trait]
impl ObjectStore for StormyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let op = if opts.mode == PutMode::Create { Op::Create } else { Op::Overwrite };
        let mut fate = self.fate(op, location, &CHANGE).await;
        match fate.fault {
            Some(Fault::Before) => Err(broken(location)),
            Some(Fault::Later) => {
                let (inner, location) = (Arc::clone(&self.storm.inner), location.clone());
                let at = location.clone();
                fate.later(async move {
                    let _ = inner.put_opts(&at, payload, opts).await;
                });
                Err(broken(&location))
            }
            fault => {
                let done = self.storm.inner.put_opts(location, payload, opts).await;
                self.after(fault, done, location).await
            }
        }
    }

    /// Every upload in parts is one that can be found again.
    async fn put_multipart_opts(&self, at: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("nobody would find the parts of {at} again")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let can = if options.head { &LOOK[..] } else { &READ };
        match self.fate(op, location, can).await.fault {
            Some(Fault::Torn) => {
                let found = self.storm.inner.get_opts(location, options).await?;
                let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
                let bytes: Bytes = found.bytes().await?;
                let half = bytes.slice(..bytes.len() / 2);
                let payload = futures::stream::iter([Ok(half), Err(broken(location))]).boxed();
                let payload = GetResultPayload::Stream(payload);
                Ok(GetResult { payload, meta, range, attributes })
            }
            Some(_) => Err(broken(location)),
            None => self.storm.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = StormyStore { storm: self.storm.clone(), process: self.process };
        let store = Arc::new(store);
        let delete = move |path: Result<Path>| {
            let store = Arc::clone(&store);
            async move {
                let path = path?;
                let mut fate = store.fate(Op::Delete, &path, &CHANGE).await;
                match fate.fault {
                    Some(Fault::Before) => Err(broken(&path)),
                    Some(Fault::Later) => {
                        let (inner, at) = (Arc::clone(&store.storm.inner), path.clone());
                        fate.later(async move {
                            let _ = inner.delete(&at).await;
                        });
                        Err(broken(&path))
                    }
                    fault => {
                        let done = store.storm.inner.delete(&path).await.map(|()| path.clone());
                        store.after(fault, done, &path).await
                    }
                }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.storm.inner.list(prefix);
        self.listed(prefix, listed)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.storm.inner.list_with_offset(prefix, offset);
        self.listed(prefix, listed)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        match self.fate(Op::List, &path, &LOOK).await.fault {
            Some(_) => Err(broken(&path)),
            None => self.storm.inner.list_with_delimiter(prefix).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match self.fate(Op::Copy, to, &CHANGE).await.fault {
            Some(Fault::Before | Fault::Later) => Err(broken(to)),
            fault => {
                let done = self.storm.inner.copy_opts(from, to, options).await;
                self.after(fault, done, to).await
            }
        }
    }
}

#[async_trait]
impl MultipartStore for StormyStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let mut fate = self.fate(Op::Begin, path, &CHANGE).await;
        match fate.fault {
            Some(Fault::Before) => Err(broken(path)),
            Some(Fault::Later) => {
                let storm = self.storm.clone();
                fate.later(async move {
                    storm.begin();
                });
                Err(broken(path))
            }
            fault => self.after(fault, Ok(self.storm.begin()), path).await,
        }
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, number: usize, part: PutPayload) -> Result<PartId> {
        // Parts are on their way side by side.
        let mut fate = self.fate(Op::Part, &path.clone().join(format!("part-{number}")), &CHANGE).await;
        match fate.fault {
            Some(Fault::Before) => Err(broken(path)),
            Some(Fault::Later) => {
                let (storm, at, id) = (self.storm.clone(), path.clone(), id.clone());
                fate.later(async move {
                    let _ = storm.part(&at, &id, number, part);
                });
                Err(broken(path))
            }
            fault => self.after(fault, self.storm.part(path, id, number, part), path).await,
        }
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let mut fate = self.fate(Op::Complete, path, &CHANGE).await;
        match fate.fault {
            Some(Fault::Before) => Err(broken(path)),
            Some(Fault::Later) => {
                let (storm, at, id) = (self.storm.clone(), path.clone(), id.clone());
                fate.later(async move {
                    let _ = storm.complete(&at, &id, &parts).await;
                });
                Err(broken(path))
            }
            fault => {
                let done = self.storm.complete(path, id, &parts).await;
                self.after(fault, done, path).await
            }
        }
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let mut fate = self.fate(Op::Abort, path, &CHANGE).await;
        match fate.fault {
            Some(Fault::Before) => Err(broken(path)),
            Some(Fault::Later) => {
                let (storm, at, id) = (self.storm.clone(), path.clone(), id.clone());
                fate.later(async move {
                    let _ = storm.abort(&at, &id);
                });
                Err(broken(path))
            }
            fault => self.after(fault, self.storm.abort(path, id), path).await,
        }
    }
}

impl StormyStore {
    /// A listing as it was when it was asked for, unless the weather takes it.
    fn listed(
        &self,
        prefix: Option<&Path>,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = StormyStore { storm: self.storm.clone(), process: self.process };
        let path = prefix.cloned().unwrap_or_default();
        let first = async move {
            match store.fate(Op::List, &path, &LOOK).await.fault {
                Some(_) => futures::stream::once(async move { Err(broken(&path)) }).boxed(),
                None => listed,
            }
        };
        futures::stream::once(first).flatten().boxed()
    }
}
