//! Uploads in parts to an object store, none of which is left behind: `_uploads/<id>.json`.
//!
//! Parts of an upload that was never completed stay in the store: no listing of objects shows them, and they are paid for. So who
//! begins an upload notes what the store calls it before the first part, and removes the note once the upload is complete or
//! given up. Vacuum aborts what is noted and a day old: whoever began it has given up by then (`compact::GIVE_UP_AFTER`). An
//! upload whose process died before the note has no parts.
//!
//! A note says nothing about what counts: K1 and S1 do not know of it. An upload that was completed without its writer learning
//! of it is a file that nothing names, and vacuum deletes that as such.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use airan_model::time::Micros;
use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartId, MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use serde::{Deserialize, Serialize};

use crate::lake::Lake;
use crate::record::{ReadError, unseal_up_to};
use crate::seal::seal;
use crate::settle::HELD_FOR;
use crate::store::{Store, StoreError};

/// Version of the notes this build writes, and the highest it reads.
const VERSION: u32 = 1;
/// Folder of all notes.
const UPLOADS: &str = "_uploads";

/// What is written down of an upload.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// The object it is to become.
    path: String,
    /// What the store calls it.
    upload: MultipartId,
}

/// See the module.
struct Upload {
    store: Store,
    multipart: Arc<dyn MultipartStore>,
    path: Path,
    id: MultipartId,
    note: Path,
    /// By number; absent while a part is on its way.
    parts: Arc<Mutex<Vec<Option<PartId>>>>,
}

/// Begins an upload, and notes it.
pub(crate) async fn begin(
    store: &Store,
    multipart: &Arc<dyn MultipartStore>,
    path: &Path,
) -> std::result::Result<Box<dyn MultipartUpload>, StoreError> {
    let failed = |error| StoreError::new("begin an upload to", path, error);
    let id = multipart.create_multipart(path).await.map_err(failed)?;
    let note = Path::from_iter([UPLOADS, &format!("{:032x}.json", rand::random::<u128>())]);
    let (store, multipart, path) = (store.clone(), Arc::clone(multipart), path.clone());
    let mut upload = Upload { store, multipart, path, id, note, parts: Arc::default() };
    match upload.write_down().await {
        Ok(()) => Ok(Box::new(upload)),
        Err(error) => {
            if let Err(error) = upload.abort().await {
                tracing::debug!(%error, "an upload that could not be noted stays in the store, without parts");
            }
            Err(error)
        }
    }
}

impl Upload {
    async fn write_down(&self) -> std::result::Result<(), StoreError> {
        let note = Note { version: VERSION, path: self.path.to_string(), upload: self.id.clone() };
        let bytes = seal(&note).map_err(|error| {
            StoreError::new("note", &self.note, Error::Generic { store: "lake", source: Box::new(error) })
        })?;
        self.store.create(&self.note, bytes).await.map(drop)
    }

    /// Nothing is left to be aborted.
    async fn strike_out(&self) {
        if let Err(error) = self.store.remove(&self.note).await {
            tracing::debug!(%error, "the note of an upload that is over stays until vacuum looks at it");
        }
    }
}

fn lock(parts: &Mutex<Vec<Option<PartId>>>) -> MutexGuard<'_, Vec<Option<PartId>>> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (multipart, parts) = (Arc::clone(&self.multipart), Arc::clone(&self.parts));
        let (path, id) = (self.path.clone(), self.id.clone());
        let at = {
            let mut parts = lock(&parts);
            parts.push(None);
            parts.len() - 1
        };
        Box::pin(async move {
            let part = multipart.put_part(&path, &id, at, data).await?;
            lock(&parts)[at] = Some(part);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts: Option<Vec<PartId>> = lock(&self.parts).iter().cloned().collect();
        let parts = parts.ok_or_else(|| Error::Generic {
            store: "lake",
            source: format!("a part of {} was not sent", self.path).into(),
        })?;
        let done = self.multipart.complete_multipart(&self.path, &self.id, parts).await?;
        self.strike_out().await;
        Ok(done)
    }

    /// Where the store does not answer the note stays, and vacuum tries again.
    async fn abort(&mut self) -> Result<()> {
        match self.multipart.abort_multipart(&self.path, &self.id).await {
            Ok(()) | Err(Error::NotFound { .. }) => {
                self.strike_out().await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Lake {
    /// Aborts uploads that were begun a day ago and are noted still. How many the store knew.
    pub(crate) async fn clear_uploads(&self, now: Micros) -> std::result::Result<u64, ReadError> {
        let Some(multipart) = self.store().multipart() else { return Ok(0) };
        let mut aborted = 0;
        for meta in self.store().list(&Path::from(UPLOADS)).await? {
            if now.saturating_sub(meta.last_modified.timestamp_micros()) < HELD_FOR {
                continue;
            }
            let Some(bytes) = self.store().read(&meta.location).await? else { continue };
            let note: Note = match unseal_up_to(&meta.location, &bytes, VERSION) {
                Ok(note) => note,
                Err(error) => {
                    tracing::warn!(path = %meta.location, %error, "an upload that was cut off cannot be aborted: the note of it is not readable");
                    continue;
                }
            };
            match multipart.abort_multipart(&Path::from(note.path.as_str()), &note.upload).await {
                Ok(()) => {
                    tracing::debug!(path = note.path, "aborted an upload that was cut off");
                    aborted += 1;
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(path = note.path, %error, "an upload that was cut off is not aborted: trying again with the next pass");
                    continue;
                }
            }
            self.store().remove(&meta.location).await?;
        }
        Ok(aborted)
    }
}

#[cfg(test)]
mod tests {
    use airan_model::time::{Clock, HOUR};
    use object_store::memory::InMemory;

    use super::*;

    async fn notes(lake: &Lake) -> usize {
        lake.store().list(&Path::from(UPLOADS)).await.unwrap().len()
    }

    /// Scenario: three uploads are begun and get a part; one is completed, one aborted, one dropped with its process. Vacuum
    /// looks after an hour, after a day, and once more.
    /// Guarantees: notes are there while an upload is; what was dropped is aborted after a day and cannot be completed then.
    #[tokio::test]
    async fn an_upload_that_was_cut_off_is_aborted_after_a_day() {
        let memory = Arc::new(InMemory::new());
        let store = Store::in_parts(Arc::clone(&memory), 4);
        let lake = Lake::over(store, crate::testing::settings("lake".as_ref()), Clock::manual().0).unwrap();
        let path = |name: &str| Path::from(format!("t/{name}.parquet"));
        let begin = async |name: &str| {
            let mut upload = lake.store().upload(&path(name)).await.unwrap();
            upload.put_part(PutPayload::from_static(b"part")).await.unwrap();
            upload
        };
        let (mut one, mut two, three) = (begin("one").await, begin("two").await, begin("three").await);
        assert_eq!(notes(&lake).await, 3);
        one.complete().await.unwrap();
        two.abort().await.unwrap();
        drop(three);
        assert_eq!(lake.store().read(&path("one")).await.unwrap().as_deref(), Some(&b"part"[..]));
        let listed = lake.store().list(&Path::from(UPLOADS)).await.unwrap();
        let [note] = &listed[..] else { panic!("{listed:?}") };
        let bytes = lake.store().read(&note.location).await.unwrap().unwrap();
        let noted: Note = unseal_up_to(&note.location, &bytes, VERSION).unwrap();
        assert_eq!(noted.path, path("three").as_ref());
        let begun = note.last_modified.timestamp_micros();
        assert_eq!(lake.clear_uploads(begun + HOUR).await.unwrap(), 0, "it may be at work");
        assert_eq!(lake.clear_uploads(begun + HELD_FOR).await.unwrap(), 1);
        assert_eq!((notes(&lake).await, lake.clear_uploads(begun + HELD_FOR).await.unwrap()), (0, 0));
        let late = memory.complete_multipart(&path("three"), &noted.upload, Vec::new()).await;
        assert!(late.is_err(), "it was aborted: {late:?}");
    }

    /// Scenario: a note cannot be read; another is of an upload that the store refuses to abort; a third is as it should be.
    /// Guarantees: the first two stay and hold up nothing.
    #[tokio::test]
    async fn a_note_that_leads_nowhere_holds_up_no_other() {
        let memory = Arc::new(InMemory::new());
        let lake = Lake::over(
            Store::in_parts(Arc::clone(&memory), 4),
            crate::testing::settings("lake".as_ref()),
            Clock::manual().0,
        )
        .unwrap();
        let id = memory.create_multipart(&Path::from("t/x.parquet")).await.unwrap();
        let of = |upload: &str| Note { version: VERSION, path: "t/x.parquet".to_owned(), upload: upload.to_owned() };
        let notes = [bytes::Bytes::from_static(b"{}"), seal(&of("77")).unwrap(), seal(&of(&id)).unwrap()];
        for (at, note) in notes.into_iter().enumerate() {
            lake.store().create(&Path::from(format!("_uploads/{at}.json")), note).await.unwrap();
        }
        assert_eq!(lake.clear_uploads(Micros::MAX).await.unwrap(), 1);
        let mut left: Vec<String> = lake
            .store()
            .list(&Path::from(UPLOADS))
            .await
            .unwrap()
            .into_iter()
            .map(|meta| meta.location.to_string())
            .collect();
        left.sort();
        assert_eq!(left, ["_uploads/0.json", "_uploads/1.json"]);
    }
}
