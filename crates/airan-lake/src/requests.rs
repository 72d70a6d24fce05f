//! Requests to restate windows: `_requests/<id>.json`, for whoever owns the shards.
//!
//! A request names pipelines, sites and a span of time. It is created once and never changed; the owners of shards look for
//! requests at each commit, recompute the windows in chunks, and keep how far they are in their own state. So a request
//! outlives crashes and moves of shards. Who asked removes it when every shard is done; shards then forget it.
//!
//! A request says nothing about files or progress: K1 and S1 do not know of it.

use airan_model::time::Micros;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::claim::ClaimError;
use crate::lake::Lake;
use crate::record::{ReadError, unseal_up_to};
use crate::seal::seal;
use crate::store::StoreError;

/// Version of the requests this build writes, and the highest it reads.
const VERSION: u32 = 1;
/// Folder of all requests.
const REQUESTS: &str = "_requests";
/// Requests read at once.
const READS_AT_ONCE: usize = 8;

/// Why windows are to be restated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestReason {
    /// A pipeline is new or was corrected, or its windows are missing.
    Backfill,
    /// Raw rows have been erased.
    Erase,
}

/// A request to restate windows from the raw rows of the lake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    version: u32,
    /// Its name: lower-case letters, digits and `-`.
    pub id: String,
    /// Names of pipelines; empty: all there are.
    pub pipelines: Vec<String>,
    /// Sites; empty: all that have rows.
    pub sites: Vec<String>,
    /// Windows that hold a time from here on …
    pub from: Micros,
    /// … and before this.
    pub to: Micros,
    /// Why.
    pub reason: RequestReason,
    /// When it was made, by the asker's clock; for people.
    pub at: Micros,
}

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Try again with the same request: it may have been made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Choose another id: this one is another request's.
    #[error("request `{0}` is there already and asks for something else")]
    Taken(String),
    /// Correct it.
    #[error("no request: {0}")]
    Wrong(String),
}

impl Request {
    /// A request with a fresh id.
    pub fn new(reason: RequestReason, from: Micros, to: Micros, at: Micros) -> Request {
        let id = format!("{:032x}", rand::random::<u128>());
        Request { version: VERSION, id, pipelines: Vec::new(), sites: Vec::new(), from, to, reason, at }
    }

    /// Whether it is about that pipeline.
    pub fn names(&self, pipeline: &str) -> bool {
        self.pipelines.is_empty() || self.pipelines.iter().any(|name| name == pipeline)
    }

    fn path(id: &str) -> Path {
        Path::from_iter([REQUESTS, &format!("{id}.json")])
    }
}

impl Lake {
    /// Makes a request. Making the same one again is fine, so an unknown outcome is resolved by trying again.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(&self, request: &Request) -> Result<(), RequestError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if request.id.is_empty() || request.id.len() > 64 || !request.id.chars().all(is_plain) {
            return Err(RequestError::Wrong(format!("`{}` is no id", request.id)));
        }
        if request.from >= request.to {
            return Err(RequestError::Wrong("its time ends before it begins".to_owned()));
        }
        let path = Request::path(&request.id);
        let bytes = seal(request).map_err(|error| RequestError::Wrong(error.to_string()))?;
        let put = self.store().create(&path, bytes.clone()).await;
        match (self.store().read(&path).await?, put) {
            (Some(found), _) if found == bytes => Ok(()),
            (Some(_), _) => Err(RequestError::Taken(request.id.clone())),
            (None, Err(error)) => Err(error.into()),
            // Made, and removed by somebody since: there is nothing left to do.
            (None, Ok(_)) => Ok(()),
        }
    }

    /// Every request there is, oldest first.
    ///
    /// # Errors
    /// If the store does not answer, or one is damaged or of a newer release.
    pub async fn requests(&self) -> Result<Vec<Request>, ReadError> {
        let listed = self.store().list(&Path::from(REQUESTS)).await?;
        let paths = listed.into_iter().map(|meta| meta.location).filter(|path| path.as_ref().ends_with(".json"));
        let reads = futures::stream::iter(paths.map(|path| self.read_request(path)));
        let found: Vec<Option<Request>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        let mut requests: Vec<Request> = found.into_iter().flatten().collect();
        requests.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        Ok(requests)
    }

    async fn read_request(&self, path: Path) -> Result<Option<Request>, ReadError> {
        let Some(bytes) = self.store().read(&path).await? else { return Ok(None) };
        unseal_up_to(&path, &bytes, VERSION).map(Some)
    }

    /// Removes a request: it is done, or nobody wants it any more. None there is fine.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn remove_request(&self, id: &str) -> Result<(), StoreError> {
        self.store().remove(&Request::path(id)).await
    }

    /// The number of partitions of a topic, fixed when its first shard was claimed; `None` before.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn partitions(&self, topic: &str) -> Result<Option<i32>, ClaimError> {
        Ok(crate::claim::partitions(self.store(), topic).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Op};
    use crate::testing::{SECOND, claim, faulty_object};

    /// Scenario: requests are made, one of them while the store tells that it failed although it had done it, one twice, one
    /// under a taken id; then they are removed.
    /// Guarantees: each is there once, oldest first, as it was made; another under the same id is refused.
    #[tokio::test]
    async fn a_request_is_made_once_and_is_read_as_it_was_made() {
        let (lake, store) = faulty_object();
        let mut late = Request::new(RequestReason::Erase, 0, 60 * SECOND, 9);
        late.sites = vec!["s1".to_owned()];
        let early =
            Request { pipelines: vec!["host_load".to_owned()], ..Request::new(RequestReason::Backfill, 0, 1, 3) };
        lake.request(&late).await.unwrap();
        store.next(1, Op::Put, REQUESTS, Fault::After);
        lake.request(&early).await.unwrap();
        lake.request(&early).await.unwrap();
        let other = Request { to: 2, ..early.clone() };
        assert!(matches!(lake.request(&other).await, Err(RequestError::Taken(_))));
        assert_eq!(lake.requests().await.unwrap(), [early.clone(), late.clone()]);
        assert!(early.names("host_load") && !early.names("link_use") && late.names("link_use"));
        lake.remove_request(&early.id).await.unwrap();
        lake.remove_request(&early.id).await.unwrap();
        assert_eq!(lake.requests().await.unwrap(), [late]);
        for wrong in [Request { id: "../x".to_owned(), ..early.clone() }, Request { to: 0, ..early }] {
            assert!(matches!(lake.request(&wrong).await, Err(RequestError::Wrong(_))));
        }
    }

    /// Scenario: the folder of requests holds one of release 1, kept in `tests/fixtures/v1`; then one of a later release.
    /// Guarantees: the old one says what it said; the later one is refused by name and version, for it may mean something else.
    #[tokio::test]
    async fn requests_of_release_1_are_read_and_those_of_a_later_one_refused() {
        let (lake, store) = faulty_object();
        let old = include_bytes!("../../../tests/fixtures/v1/request.json");
        lake.store().create(&Request::path("old"), old.as_slice().into()).await.unwrap();
        let found = lake.requests().await.unwrap();
        assert_eq!((found.len(), found[0].from, found[0].to), (1, 1_767_225_600_000_000, 1_767_232_800_000_000));
        assert_eq!(
            (&found[0].pipelines[..], &found[0].sites[..]),
            (&["host_load".to_owned()][..], &["s1".to_owned()][..])
        );
        assert_eq!(found[0].reason, RequestReason::Backfill);
        let later = Request { version: VERSION + 1, ..Request::new(RequestReason::Backfill, 0, 1, 0) };
        lake.request(&later).await.unwrap();
        let error = crate::testing::over(&store).requests().await.unwrap_err();
        assert!(matches!(&error, ReadError::Newer { version: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains(&later.id), "{error}");
    }

    /// Scenario: a store that did not take a request.
    /// Guarantees: the caller is told, and nothing is there.
    #[tokio::test]
    async fn a_request_the_store_did_not_take_is_an_error() {
        let (lake, store) = faulty_object();
        let request = Request::new(RequestReason::Backfill, 0, 1, 0);
        store.next(1, Op::Put, REQUESTS, Fault::Before);
        assert!(matches!(lake.request(&request).await, Err(RequestError::Store(_))));
        assert!(lake.requests().await.unwrap().is_empty());
    }

    /// Scenario: the partition count of a topic is asked for before and after its first claim.
    /// Guarantees: asking fixes nothing.
    #[tokio::test]
    async fn the_partition_count_is_known_from_the_first_claim_on() {
        let (lake, _) = faulty_object();
        assert_eq!(lake.partitions("telemetry").await.unwrap(), None);
        claim(&lake).await;
        assert_eq!(lake.partitions("telemetry").await.unwrap(), Some(1));
    }
}
