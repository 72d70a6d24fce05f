//! Accepting a loss: a shard whose next offset has gone from the bus goes on at the first one that is there.
//!
//! The loss is accepted by a commit like any other, made under a claim of its own: K2 fences a processor that may be at work, and
//! K1 has the offset go forward only. Rows, windows and all of the state stay as they were; the state counts the offsets that were
//! given up.

use airan_lake::{ClaimError, Commit, CommitError, Lake, ReadError};

use crate::sheet::{Sheets, StateError};

/// What has gone from the bus before a shard had read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The first offset the shard wanted.
    pub from: i64,
    /// The first offset that is still there.
    pub until: i64,
}

impl Loss {
    /// How many offsets. How many rows they held nobody knows: a message holds many, or is a tick and holds none.
    pub fn offsets(self) -> u64 {
        u64::try_from(self.until - self.from).unwrap_or(0)
    }
}

/// Why nothing was skipped. Each variant names the operator's next step.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// Nothing is to be done.
    #[error("nothing is lost: the shard goes on at offset {wanted}, and the bus holds {first} to {next}")]
    NothingLost {
        /// The offset the shard wants.
        wanted: i64,
        /// The first offset of the partition.
        first: i64,
        /// The offset its next message will get.
        next: i64,
    },
    /// Nothing is to be done: a shard without a commit begins where the bus does.
    #[error("nothing is lost: nothing of this shard was ever committed, so it begins at the first offset there is")]
    NeverBegun,
    /// Go on with a new topic: an offset never goes back (K1).
    #[error(
        "the shard goes on at offset {wanted} and the bus ends at {next}: this is not the log it was reading, and an offset \
         never goes back; give the topic its messages back, or go on with a new bus.topic (the lake keeps both)"
    )]
    Ahead {
        /// The offset the shard wants.
        wanted: i64,
        /// The offset the partition's next message will get.
        next: i64,
    },
    /// The shard could not be claimed.
    #[error("cannot claim the shard")]
    Claim(#[from] ClaimError),
    /// The commit did not happen; try again.
    #[error("cannot commit")]
    Commit(#[from] CommitError),
    /// The newest record cannot be read.
    #[error("cannot read the shard's newest record")]
    Read(#[from] ReadError),
    /// The state cannot be read by this release.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a shard has lost, where the bus holds the offsets from `first` on and the next message gets `next`.
///
/// # Errors
/// Why there is nothing to accept.
pub async fn find_loss(lake: &Lake, topic: &str, partition: i32, bus: (i64, i64)) -> Result<Loss, SkipError> {
    let head = lake.head(topic, partition).await?;
    loss(head.and_then(|head| head.next_offset), bus)
}

fn loss(wanted: Option<i64>, (first, next): (i64, i64)) -> Result<Loss, SkipError> {
    match wanted {
        None => Err(SkipError::NeverBegun),
        Some(wanted) if wanted < first => Ok(Loss { from: wanted, until: first }),
        Some(wanted) if wanted > next => Err(SkipError::Ahead { wanted, next }),
        Some(wanted) => Err(SkipError::NothingLost { wanted, first, next }),
    }
}

/// Accepts the loss: the shard goes on at the first offset there is. Gives what was lost, and the number of the commit.
///
/// Whoever is at work on the shard is fenced and takes it over again from there; one that has stopped for the loss starts again
/// by itself when it sees the record.
///
/// # Errors
/// See [`SkipError`]; where nothing is lost nothing is changed but for a claim.
pub async fn skip(
    lake: &Lake,
    topic: &str,
    partition: i32,
    partitions: i32,
    bus: (i64, i64),
) -> Result<(Loss, u64), SkipError> {
    find_loss(lake, topic, partition, bus).await?;
    let (mut writer, recovered) = lake.claim(topic, partition, partitions).await?;
    let Some(recovered) = recovered else { return Err(SkipError::NeverBegun) };
    // Whoever was at work may have come further until the claim.
    let loss = loss(Some(recovered.next_offset), bus)?;
    let state = Sheets::read(recovered.state)?;
    let skipped = state.table("shard").map_or(0, |shard| shard.count(0, "skipped"));
    let state = state.with_count("shard", "skipped", skipped.saturating_add(loss.offsets()))?;
    let commit = Commit { next_offset: loss.until, tables: Vec::new(), state, needed_from: None };
    let summary = writer.commit(&commit).await?;
    Ok((loss, summary.n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_gone_is_a_loss() {
        assert_eq!(loss(Some(5), (8, 20)).unwrap(), Loss { from: 5, until: 8 });
        assert_eq!(Loss { from: 5, until: 8 }.offsets(), 3);
        for wanted in [8, 12, 20] {
            assert!(matches!(loss(Some(wanted), (8, 20)), Err(SkipError::NothingLost { .. })), "{wanted}");
        }
        assert!(matches!(loss(Some(21), (8, 20)), Err(SkipError::Ahead { wanted: 21, next: 20 })));
        assert!(matches!(loss(None, (8, 20)), Err(SkipError::NeverBegun)));
    }
}
