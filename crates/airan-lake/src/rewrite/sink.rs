//! Where a rewritten file goes: to the store in parts as it is encoded, its checksum summed up on the way.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::WriteMultipart;
use object_store::path::Path;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::{ParquetError, Result};

use crate::seal::Checksum;
use crate::store::{Store, StoreError};

/// Bytes of one part; S3 wants at least 5 MiB.
const PART: usize = 8 << 20;
/// Parts under way at once. More only keep more memory.
const PARTS_AT_ONCE: usize = 4;

/// See the module. Dropped before it is complete, it leaves nothing under its name.
pub(super) struct Sink {
    upload: Option<WriteMultipart>,
    sum: crc32fast::Hasher,
    bytes: u64,
}

impl Sink {
    pub(super) async fn create(store: &Store, path: &Path) -> std::result::Result<Sink, StoreError> {
        let upload = WriteMultipart::new_with_chunk_size(store.upload(path).await?, PART);
        Ok(Sink { upload: Some(upload), sum: crc32fast::Hasher::new(), bytes: 0 })
    }

    /// Of what was written.
    pub(super) fn written(&self) -> (u64, Checksum) {
        (self.bytes, Checksum::from_crc32(self.sum.clone().finalize()))
    }

    /// Gives up: parts that the store has are removed as far as it answers.
    pub(super) async fn abort(mut self) {
        if let Some(upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, "parts of a given up upload stay in the store until it clears them up");
        }
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
            if let Some(upload) = &mut self.upload {
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(told)?;
                upload.put(bytes);
            }
            Ok(())
        }
        .boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            if let Some(upload) = self.upload.take() {
                upload.finish().await.map_err(told)?;
            }
            Ok(())
        }
        .boxed()
    }
}
