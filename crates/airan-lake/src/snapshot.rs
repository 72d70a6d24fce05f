//! A lake's store as one query sees it: only reading, and files that move or go while it runs.
//!
//! On a local disk a file of the newest commit may be found in `_staging/` and get its place in the table before it is
//! read, or be published and leave its place again; it is then read under its later names. A file that is nowhere is an
//! error that tells the reader what to do.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::layout;
use crate::store::Store;

const STORE: &str = "snapshot of a lake";

/// See the module.
#[derive(Debug)]
pub(crate) struct SnapshotStore(Arc<dyn ObjectStore>);

impl SnapshotStore {
    pub(crate) fn new(store: &Store) -> SnapshotStore {
        SnapshotStore(store.object())
    }
}

impl std::fmt::Display for SnapshotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{STORE} in {}", self.0)
    }
}

fn gone(path: &Path) -> Error {
    let what = format!(
        "{path} is not there: it was taken out after the query began, so run it again; if it stays away, \
         `airan lake check` tells what is lost"
    );
    Error::Generic { store: STORE, source: what.into() }
}

fn only_reads<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() })
}

#[async_trait]
impl ObjectStore for SnapshotStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        for name in layout::names_of(location) {
            match self.0.get_opts(&name, options.clone()).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        Err(gone(location))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        for name in layout::names_of(location) {
            match self.0.get_ranges(&name, ranges).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        Err(gone(location))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        only_reads("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        only_reads("multipart put")
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { only_reads("delete") }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        only_reads("copy")
    }
}
