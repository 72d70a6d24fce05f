//! From when on the raw rows of the lake are whole.
//!
//! Retention takes the oldest raw rows out, by age or because the lake is over its bound. A window from before cannot be computed
//! again: what is left of its rows would say less than it does. So retention notes how far it has come before it takes files
//! out, and restatements stay behind that. The note only rises; one that is too high costs restatements, never rows.
//!
//! Several passes may be at work, each with a bound of its own. So a note is a name that is created, never changed, and the highest
//! one counts, in whatever order they come.

use airan_model::time::Micros;
use object_store::path::Path;

use crate::lake::Lake;
use crate::record::ReadError;
use crate::seal::Damaged;

/// Folder of the notes; the name of each is its time.
const NOTES: &str = "_retention/raw_from_each";
/// The one note that lakes had before, which was written over.
const BEFORE: &str = "_retention/raw_from";
/// Lower notes that stay beside the highest, for whoever lists the folder while a higher one comes.
const STAY: usize = 2;

impl Lake {
    /// Raw rows before it may have been taken out by retention; `Micros::MIN` where none ever were.
    ///
    /// # Errors
    /// If the store does not answer, or a note cannot be read.
    pub async fn raw_from(&self) -> Result<Micros, ReadError> {
        Ok(self.notes().await?.last().copied().unwrap_or(Micros::MIN))
    }

    /// Raw rows before `at` are about to be taken out.
    pub(crate) async fn raise_raw_from(&self, at: Micros) -> Result<(), ReadError> {
        let notes = self.notes().await?;
        if notes.last().is_some_and(|highest| *highest >= at) {
            return Ok(());
        }
        self.store().create(&note(at), at.to_string().into()).await?;
        let lower = notes.len().saturating_sub(STAY);
        for lower in &notes[..lower] {
            self.store().remove(&note(*lower)).await?;
        }
        Ok(())
    }

    /// All notes there are, the highest last.
    async fn notes(&self) -> Result<Vec<Micros>, ReadError> {
        let mut notes = Vec::new();
        for found in self.store().list(&Path::from(NOTES)).await? {
            let name = found.location.filename().unwrap_or_default();
            notes.push(time(&found.location, name)?);
        }
        let before = Path::from(BEFORE);
        if let Some(text) = self.store().read(&before).await? {
            notes.push(time(&before, &String::from_utf8_lossy(&text))?);
        }
        notes.sort_unstable();
        Ok(notes)
    }
}

fn note(at: Micros) -> Path {
    Path::from(format!("{NOTES}/{at}"))
}

fn time(path: &Path, text: &str) -> Result<Micros, Damaged> {
    let what = "it is no time in microseconds: how far retention has come cannot be told";
    text.trim().parse().map_err(|_| Damaged { path: path.to_string(), reason: what.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Op};
    use crate::testing::faulty_object;

    /// Scenario: retention goes on, goes back, and once cannot write; a lake that has the note of before.
    /// Guarantees: the note only rises, and retention is told when it could not be made.
    #[tokio::test]
    async fn the_note_only_rises() {
        let (lake, store) = faulty_object();
        assert_eq!(lake.raw_from().await.unwrap(), Micros::MIN);
        lake.store().overwrite(&Path::from(BEFORE), "-20".into()).await.unwrap();
        for (at, noted) in [(-50, -20), (-5, -5), (70, 70), (20, 70), (71, 71), (72, 72), (80, 80)] {
            lake.raise_raw_from(at).await.unwrap();
            assert_eq!(lake.raw_from().await.unwrap(), noted);
        }
        store.next(1, Op::Put, "raw_from", Fault::Before);
        assert!(lake.raise_raw_from(90).await.is_err());
        assert_eq!(lake.raw_from().await.unwrap(), 80);
        // As lakes have it since there are several.
        let golden = lake.store().read(&Path::from("_retention/raw_from_each/80")).await.unwrap();
        assert_eq!(golden.as_deref(), Some(&b"80"[..]));
        let named = lake.store().list(&Path::from(NOTES)).await.unwrap();
        assert!(named.len() <= STAY + 2, "{named:?}");
    }

    /// Scenario: a pass has read the note, and has yet to raise it when another one with another bound raises it further.
    /// Guarantees: it does not come down again.
    #[tokio::test]
    async fn of_two_passes_the_higher_note_counts() {
        let (lake, _) = faulty_object();
        lake.raise_raw_from(50).await.unwrap();
        lake.raise_raw_from(90).await.unwrap();
        // What the slower one does after it has read 50.
        lake.store().create(&note(70), "70".into()).await.unwrap();
        assert_eq!(lake.raw_from().await.unwrap(), 90);
    }

    /// Guarantees: a note that cannot be read is not taken for none; the check names it.
    #[tokio::test]
    async fn a_damaged_note_is_told() {
        for path in [BEFORE.to_owned(), format!("{NOTES}/7x")] {
            let (lake, _) = faulty_object();
            lake.store().overwrite(&Path::from(path.as_str()), "garbage".into()).await.unwrap();
            let told = lake.raw_from().await.unwrap_err().to_string();
            assert!(told.contains(&path) && told.contains("retention"), "{told}");
            let checked = lake.check().await.unwrap();
            assert!(checked.problems.iter().any(|problem| problem.path == path), "{:?}", checked.problems);
        }
    }
}
