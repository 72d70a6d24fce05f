//! From when on the raw rows of the lake are whole.
//!
//! Retention takes the oldest raw rows out, by age or because the lake is over its bound. A window from before cannot be computed
//! again: what is left of its rows would say less than it does. So retention notes how far it has come before it takes files
//! out, and restatements stay behind that. The note only rises; one that is too high costs restatements, never rows.

use airan_model::time::Micros;
use object_store::path::Path;

use crate::lake::Lake;
use crate::store::StoreError;

fn path() -> Path {
    Path::from("_retention/raw_from")
}

impl Lake {
    /// Raw rows before it may have been taken out by retention; `Micros::MIN` where none ever were.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn raw_from(&self) -> Result<Micros, StoreError> {
        let found = self.store().read(&path()).await?;
        let found = found.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
        Ok(found.unwrap_or(Micros::MIN))
    }

    /// Raw rows before `at` are about to be taken out.
    pub(crate) async fn raise_raw_from(&self, at: Micros) -> Result<(), StoreError> {
        if at > self.raw_from().await? {
            self.store().overwrite(&path(), at.to_string().into()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Op};
    use crate::testing::faulty_object;

    /// Scenario: retention goes on, goes back, and once cannot write.
    /// Guarantees: the note only rises, and retention is told when it could not be made.
    #[tokio::test]
    async fn the_note_only_rises() {
        let (lake, store) = faulty_object();
        assert_eq!(lake.raw_from().await.unwrap(), Micros::MIN);
        for (at, noted) in [(-5, -5), (70, 70), (20, 70)] {
            lake.raise_raw_from(at).await.unwrap();
            assert_eq!(lake.raw_from().await.unwrap(), noted);
        }
        store.next(1, Op::Put, "raw_from", Fault::Before);
        assert!(lake.raise_raw_from(90).await.is_err());
        assert_eq!(lake.raw_from().await.unwrap(), 70);
    }
}
