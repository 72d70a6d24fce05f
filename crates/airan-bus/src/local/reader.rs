//! Reading a local log from the side, also while the process that owns it runs.

use std::path::PathBuf;

use airan_log::{Peek, Record};

use super::files::About;
use super::frame;
use crate::reader::RejectedRecord;
use crate::{ConsumeError, LocalSettings, OpenError, Received};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Reads the folder of a local log.
pub(crate) struct LocalReader {
    path: PathBuf,
    about: About,
}

impl LocalReader {
    /// Reads what the folder was made for.
    pub fn open(settings: &LocalSettings) -> Result<LocalReader, OpenError> {
        let about = About::read(&settings.path)?;
        Ok(LocalReader { path: settings.path.clone(), about })
    }

    pub fn topic(&self) -> &str {
        &self.about.topic
    }

    pub fn partitions(&self) -> i32 {
        self.about.partitions.into()
    }

    pub async fn offsets(&self, partition: i32) -> Result<(i64, i64), ConsumeError> {
        let peek = self.peek(self.folder(partition)?).await?;
        Ok((peek.first() as i64, peek.next() as i64))
    }

    pub async fn message(&self, partition: i32, offset: i64) -> Result<Option<Received>, ConsumeError> {
        let peek = self.peek(self.folder(partition)?).await?;
        let Ok(wanted) = u64::try_from(offset) else { return Ok(None) };
        let batch = blocking(move || peek.read(wanted, 1)).await?;
        let record = batch.records.into_iter().find(|record| record.offset == wanted);
        record.map(|record| received(partition, record)).transpose()
    }

    pub async fn messages(&self, partition: i32, from: i64, most: usize) -> Result<Vec<Received>, ConsumeError> {
        let peek = self.peek(self.folder(partition)?).await?;
        let mut from = u64::try_from(from).unwrap_or(0).max(peek.first());
        blocking(move || {
            let mut messages = Vec::new();
            while from < peek.next() && messages.len() < most {
                let batch = peek.read(from, CHUNK)?;
                if batch.records.is_empty() {
                    break;
                }
                from = batch.next;
                messages.extend(batch.records.into_iter().take(most - messages.len()));
            }
            Ok(messages)
        })
        .await?
        .into_iter()
        .map(|record| received(partition, record))
        .collect()
    }

    pub async fn rejected(&self, newest: usize) -> Result<Vec<RejectedRecord>, ConsumeError> {
        let peek = self.peek(self.path.join(super::REJECTED)).await?;
        blocking(move || {
            let mut from = peek.next().saturating_sub(newest as u64).max(peek.first());
            let mut records = Vec::new();
            while from < peek.next() {
                let batch = peek.read(from, CHUNK)?;
                if batch.records.is_empty() {
                    break;
                }
                from = batch.next;
                records.extend(batch.records.into_iter().map(|record| RejectedRecord {
                    offset: record.offset as i64,
                    append_time: record.time,
                    record: record.body,
                }));
            }
            Ok(records)
        })
        .await
    }

    fn folder(&self, partition: i32) -> Result<PathBuf, ConsumeError> {
        let partitions = self.partitions();
        match (0..partitions).contains(&partition) {
            true => Ok(self.path.join(super::folder_of(partition))),
            false => Err(ConsumeError::NoPartition { partition, partitions }),
        }
    }

    async fn peek(&self, folder: PathBuf) -> Result<Peek, ConsumeError> {
        blocking(move || Peek::at(&folder)).await
    }
}

fn received(partition: i32, record: Record) -> Result<Received, ConsumeError> {
    let message = frame::decode(&record.body).map_err(|newer| newer.at(partition, record.offset))?;
    Ok(Received { partition, offset: record.offset as i64, append_time: record.time, message })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ConsumeError> {
    let unavailable = |reason: String| ConsumeError::Unavailable { reason };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(error.to_string()))?;
    done.map_err(|error| unavailable(error.to_string()))
}
