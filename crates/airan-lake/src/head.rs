//! Where each shard stands, by its newest record: for those who look on, and take no part.

use bytes::Bytes;
use object_store::path::Path;

use airan_model::time::Micros;

use crate::claim::read_state;
use crate::lake::Lake;
use crate::layout::{self, Shard};
use crate::record::{self, ReadError, Record};

/// Times a state is looked for again because its owner has gone on meanwhile.
const TRIES: u32 = 8;

/// What the newest record of a shard says (K1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Topic of the shard.
    pub topic: String,
    /// Partition of the shard.
    pub partition: i32,
    /// Partition count of the topic.
    pub partitions: i32,
    /// Number of the record, which may be a commit or a claim.
    pub n: u64,
    /// Number of the last commit; None before the first.
    pub commit: Option<u64>,
    /// When the record was written, by its writer's clock.
    pub at: Micros,
    /// When the last commit was written; None before the first, or where its record has been trimmed.
    pub committed_at: Option<Micros>,
    /// Who made the claim that the record belongs to; empty where that was not said.
    pub owner: String,
    /// The first offset no commit contains; None before the first commit.
    pub next_offset: Option<i64>,
}

impl Lake {
    /// Every shard with a record, as topic and partition, in order.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn shards(&self) -> Result<Vec<(String, i32)>, ReadError> {
        let shards = record::shards(self.store()).await?;
        Ok(shards.into_iter().map(|shard| (shard.topic, shard.partition)).collect())
    }

    /// Where a shard stands; None where it was never claimed.
    ///
    /// # Errors
    /// If the store does not answer, or the record cannot be read.
    pub async fn head(&self, topic: &str, partition: i32) -> Result<Option<Head>, ReadError> {
        let shard = Shard { topic: topic.to_owned(), partition };
        match record::newest(self.store(), &shard).await? {
            Some(record) => self.head_of(&shard, record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Where a shard stands, and the shard state of its last commit where there is one.
    ///
    /// # Errors
    /// If the store does not answer, or record or state cannot be read.
    pub async fn head_and_state(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Option<(Head, Option<Bytes>)>, ReadError> {
        let shard = Shard { topic: topic.to_owned(), partition };
        let mut tries = 0;
        loop {
            let Some(record) = record::newest(self.store(), &shard).await? else { return Ok(None) };
            let Some(file) = record.state.clone() else {
                return Ok(Some((self.head_of(&shard, record).await?, None)));
            };
            tries += 1;
            match read_state(self.store(), &file).await {
                Ok(state) => return Ok(Some((self.head_of(&shard, record).await?, Some(state)))),
                // The owner removes a state once the next commit has another.
                Err(ReadError::Damaged(_)) if tries < TRIES && self.has_gone_on(&shard, record.n).await? => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn has_gone_on(&self, shard: &Shard, n: u64) -> Result<bool, ReadError> {
        Ok(record::newest(self.store(), shard).await?.is_some_and(|newest| newest.n > n))
    }

    async fn head_of(&self, shard: &Shard, record: Record) -> Result<Head, ReadError> {
        // A claim repeats the state of the commit before it, whose number is in the state's name.
        let state = record.state.as_ref().map(|state| Path::from(state.path.as_str()));
        let commit = state.and_then(|path| layout::commit_number(&path));
        let committed_at = match commit {
            Some(n) if n == record.n => Some(record.at),
            Some(n) => record::read(self.store(), shard, n).await?.map(|(record, _)| record.at),
            None => None,
        };
        let Record { topic, partition, partitions, n, at, owner, next_offset, .. } = record;
        Ok(Head { topic, partition, partitions, n, commit, at, committed_at, owner, next_offset })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{TOPIC, commit, local, rows};

    /// Scenario: a shard before its first claim, claimed by two processors by name, one of which commits, and claimed again.
    /// Guarantees: K1 for lookers-on: number, offset, owner and last commit are the newest record's, and the state is the
    /// last commit's.
    #[tokio::test]
    async fn the_head_is_what_the_newest_record_says() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (local(folder.path()).await, local(folder.path()).await);
        assert_eq!(one.head(TOPIC, 0).await.unwrap(), None);
        one.set_owner("one");
        two.set_owner("two");
        one.set_owner("somebody else");
        let (mut writer, _) = one.claim(TOPIC, 0, 1).await.unwrap();
        let head = two.head(TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((head.n, head.commit, head.next_offset, &*head.owner), (1, None, None, "one"));
        assert_eq!(two.head_and_state(TOPIC, 0).await.unwrap().unwrap().1, None);
        writer.commit(&commit(7, vec![rows("t", 0..7)])).await.unwrap();
        two.claim(TOPIC, 0, 1).await.unwrap();
        let (head, state) = one.head_and_state(TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((head.n, head.commit, head.next_offset, &*head.owner), (3, Some(2), Some(7), "two"));
        assert!(head.committed_at.is_some());
        assert_eq!(state, Some(commit(7, Vec::new()).state));
        assert_eq!(one.shards().await.unwrap(), [(TOPIC.to_owned(), 0)]);
    }
}
