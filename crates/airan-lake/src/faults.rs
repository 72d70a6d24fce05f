//! An object store that fails on demand, for this crate's tests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has done nothing.
    Before,
    /// It is done, and the caller is told that it failed.
    After,
    /// A put overwrites what is there although it must not.
    IgnoreCondition,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put,
    /// A part of an upload.
    Part,
    /// An upload is given up.
    Abort,
    Copy,
    Get,
    Delete,
}

#[derive(Debug)]
struct Rule {
    op: Op,
    part: String,
    fault: Fault,
    /// `None`: for ever.
    times: Option<u32>,
}

/// A store over another, with rules of what fails. The first rule that fits an operation holds.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    rules: Arc<Mutex<Vec<Rule>>>,
}

impl FaultyStore {
    pub(crate) fn in_memory() -> Arc<FaultyStore> {
        FaultyStore::over(Arc::new(InMemory::new()))
    }

    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<FaultyStore> {
        Arc::new(FaultyStore { inner, rules: Arc::default() })
    }

    /// Every put from now on.
    pub(crate) fn always(&self, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { op: Op::Put, part: String::new(), fault, times: None });
    }

    /// The next `times` operations on a path that contains `part`.
    pub(crate) fn next(&self, times: u32, op: Op, part: &str, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { op, part: part.to_owned(), fault, times: Some(times) });
    }

    /// From now on all is well. Returns how many faults were still due.
    pub(crate) fn heal(&self) -> u32 {
        std::mem::take(&mut *self.rules.lock().unwrap()).iter().filter_map(|rule| rule.times).sum()
    }

    fn fault(&self, op: Op, path: &Path) -> Option<Fault> {
        due(&self.rules, op, path)
    }
}

fn due(rules: &Mutex<Vec<Rule>>, op: Op, path: &Path) -> Option<Fault> {
    let mut rules = rules.lock().unwrap();
    let fits = |rule: &Rule| rule.op == op && path.as_ref().contains(&rule.part) && rule.times != Some(0);
    let rule = rules.iter_mut().find(|rule| fits(rule))?;
    rule.times = rule.times.map(|times| times - 1);
    Some(rule.fault)
}

fn broken(path: &Path) -> Error {
    Error::Generic { store: "faulty", source: format!("as asked for, at {path}").into() }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}

/// An upload in parts: its completion is the put that can fail.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    at: Path,
    rules: Arc<Mutex<Vec<Rule>>>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        match due(&self.rules, Op::Part, &self.at) {
            None => self.inner.put_part(part),
            Some(_) => Box::pin(std::future::ready(Err(broken(&self.at)))),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match due(&self.rules, Op::Put, &self.at) {
            None | Some(Fault::IgnoreCondition) => self.inner.complete().await,
            Some(Fault::Before) => Err(broken(&self.at)),
            Some(Fault::After) => self.inner.complete().await.and(Err(broken(&self.at))),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        match due(&self.rules, Op::Abort, &self.at) {
            None => self.inner.abort().await,
            Some(_) => Err(broken(&self.at)),
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.fault(Op::Put, location) {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Before) => Err(broken(location)),
            Some(Fault::After) => self.inner.put_opts(location, payload, opts).await.and(Err(broken(location))),
            Some(Fault::IgnoreCondition) => {
                let opts = PutOptions { mode: PutMode::Overwrite, ..opts };
                self.inner.put_opts(location, payload, opts).await
            }
        }
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, opts).await?;
        Ok(Box::new(FaultyUpload { inner, at: at.clone(), rules: Arc::clone(&self.rules) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault(Op::Get, location) {
            None => self.inner.get_opts(location, options).await,
            Some(_) => Err(broken(location)),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (rules, inner) = (Arc::clone(&self.rules), Arc::clone(&self.inner));
        let delete = move |path: Result<Path>| {
            let (fault, inner) =
                (path.as_ref().ok().and_then(|path| due(&rules, Op::Delete, path)), Arc::clone(&inner));
            async move {
                let path = path?;
                if fault.is_some() {
                    return Err(broken(&path));
                }
                let mut done = inner.delete_stream(futures::stream::once(async { Ok(path) }).boxed());
                done.next().await.unwrap()
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match self.fault(Op::Copy, to) {
            None => self.inner.copy_opts(from, to, options).await,
            Some(Fault::After) => self.inner.copy_opts(from, to, options).await.and(Err(broken(to))),
            Some(_) => Err(broken(to)),
        }
    }
}
