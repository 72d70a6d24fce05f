//! Where a rewritten file goes: to the store in parts as it is encoded, its checksum summed up on the way.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayloadMut};
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::{ParquetError, Result};
use tokio::task::JoinSet;

use crate::seal::Checksum;
use crate::store::{Store, StoreError};

/// Parts under way at once. More only keep more memory.
const PARTS_AT_ONCE: usize = 4;

/// See the module. It is to be completed or aborted: dropped before, it leaves nothing under its name, but may leave parts, which
/// vacuum finds (`uploads.rs`).
pub(super) struct Sink {
    /// Absent once it is complete.
    upload: Option<Box<dyn MultipartUpload>>,
    part_bytes: usize,
    /// The part that is being filled.
    waiting: PutPayloadMut,
    under_way: JoinSet<object_store::Result<()>>,
    sum: crc32fast::Hasher,
    bytes: u64,
}

impl Sink {
    pub(super) async fn create(store: &Store, path: &Path) -> std::result::Result<Sink, StoreError> {
        Ok(Sink {
            upload: Some(store.upload(path).await?),
            part_bytes: store.part_bytes(),
            waiting: PutPayloadMut::new(),
            under_way: JoinSet::new(),
            sum: crc32fast::Hasher::new(),
            bytes: 0,
        })
    }

    /// Of what was written.
    pub(super) fn written(&self) -> (u64, Checksum) {
        (self.bytes, Checksum::from_crc32(self.sum.clone().finalize()))
    }

    /// Gives up, unless it is complete: parts that the store has are removed as far as it answers.
    pub(super) async fn abort(mut self) {
        self.under_way.shutdown().await;
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, "parts of a given up upload stay in the store until vacuum clears them up");
        }
    }

    async fn put(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        while !bytes.is_empty() {
            let room = self.part_bytes.saturating_sub(self.waiting.content_length()).max(1);
            self.waiting.push(bytes.split_to(room.min(bytes.len())));
            if self.waiting.content_length() >= self.part_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// The part that waits is on its way.
    async fn send(&mut self) -> object_store::Result<()> {
        self.until_under_way(PARTS_AT_ONCE - 1).await?;
        if let Some(upload) = &mut self.upload {
            self.under_way.spawn(upload.put_part(std::mem::take(&mut self.waiting).into()));
        }
        Ok(())
    }

    /// Waits until at most so many parts are under way.
    async fn until_under_way(&mut self, most: usize) -> object_store::Result<()> {
        while self.under_way.len() > most {
            if let Some(sent) = self.under_way.join_next().await {
                sent??;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> object_store::Result<()> {
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        self.until_under_way(0).await?;
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
            self.upload = None;
        }
        Ok(())
    }
}

fn told(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileWriter for Sink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        async move {
            self.sum.update(&bytes);
            self.bytes += bytes.len() as u64;
            self.put(bytes).await.map_err(told)
        }
        .boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, Result<()>> {
        async move { self.finish().await.map_err(told) }.boxed()
    }
}
