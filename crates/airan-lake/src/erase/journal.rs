//! What an erasure has set out to do, written down before anything goes: `_erasures/<id>/`.
//!
//! Once rows are gone nobody can tell any more which windows were made of them. So before each round of removing, what it will
//! touch is created as the next part; a run that finds an erasure unfinished goes on with it. When all is done the
//! folder goes, the condition with it, since it may itself name whom it is about.

use std::collections::{BTreeMap, BTreeSet};

use airan_model::time::Micros;
use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::lake::Lake;
use crate::record::{ReadError, unseal_up_to};
use crate::requests::{Request, RequestReason};
use crate::seal::{Damaged, seal};
use crate::store::{Created, StoreError};

/// Folder of all erasures that are not finished.
const ERASURES: &str = "_erasures";
/// Version of the parts this build writes, and the highest it reads.
const VERSION: u32 = 2;

/// Of each site the spans of time, first and end (not contained), in which rows go: at most one an hour.
pub type Affected = BTreeMap<String, Vec<(Micros, Micros)>>;

/// One part: what a round was about to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    version: u32,
    condition: String,
    tables: Vec<String>,
    at: Micros,
    affected: BTreeMap<String, Affected>,
    /// Since version 2.
    #[serde(default)]
    followers: BTreeMap<String, Affected>,
}

/// An erasure that was begun and is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Its name: 32 hexadecimal digits.
    pub id: String,
    /// The condition: rows of which it is true go.
    pub condition: String,
    /// The tables it is limited to; empty: every raw table.
    pub tables: Vec<String>,
    /// When it was begun, by the clock of who did.
    pub at: Micros,
    /// By raw table, what it takes or has taken.
    pub affected: BTreeMap<String, Affected>,
    /// By raw table, where the rows lie that follow those.
    pub followers: BTreeMap<String, Affected>,
    /// Parts written.
    pub(crate) parts: u64,
}

impl Erasure {
    pub(crate) fn begin(condition: &str, tables: &[String], at: Micros) -> Erasure {
        Erasure {
            id: format!("{:032x}", rand::random::<u128>()),
            condition: condition.to_owned(),
            tables: tables.to_vec(),
            at,
            affected: BTreeMap::new(),
            followers: BTreeMap::new(),
            parts: 0,
        }
    }

    fn folder(&self) -> Path {
        Path::from_iter([ERASURES, &self.id])
    }

    /// Names of the requests to restate what it touched, of every run. What it touches may have grown from one run to the next,
    /// and requests do not change.
    pub fn request_ids(&self) -> Vec<String> {
        (1..=self.parts).flat_map(|parts| [self.settling_id(parts), self.restating_id(parts)]).collect()
    }

    fn settling_id(&self, parts: u64) -> String {
        format!("{}-{parts}-settle", self.id)
    }

    fn restating_id(&self, parts: u64) -> String {
        format!("{}-{parts}", self.id)
    }

    /// Where the newest revisions of a table's windows are written down, for all it touches by now.
    pub(crate) fn windows(&self, table: &str) -> Path {
        self.file(&format!("{table}.{}.windows", self.parts))
    }

    /// A file beside the parts.
    fn file(&self, name: &str) -> Path {
        self.folder().join(name)
    }

    /// Sites of all tables of `tables`, with their spans: of the rows that go, and of those that follow.
    pub fn affected_by(&self, tables: &[String]) -> Affected {
        let mut all = Affected::new();
        let both = self.affected.iter().chain(&self.followers);
        for (_, affected) in both.filter(|(table, _)| tables.contains(table)) {
            join(&mut all, affected);
        }
        all
    }

    /// The two requests to restate all it has touched, for `pipelines`, which read its tables; `None` where nothing is to be
    /// restated.
    ///
    /// When the first is done, every window has closed, and every result that was still being computed from erased rows when
    /// they went has been committed. Then the newest revisions are written down ([`Lake::note_windows`]). What the second
    /// gives is made of the rows that are left, and has a higher revision; where it gives nothing, no row is left.
    pub fn requests(&self, pipelines: &[String]) -> Option<[Request; 2]> {
        let affected = || self.affected.values().chain(self.followers.values()).flatten();
        let spans = || affected().flat_map(|(_, spans)| spans);
        let from = spans().map(|span| span.0).min()?;
        let to = spans().map(|span| span.1).max()?;
        if pipelines.is_empty() {
            return None;
        }
        let sites: BTreeSet<&String> = affected().map(|(site, _)| site).collect();
        let request = |id: String| {
            let mut request = Request::new(RequestReason::Erase, from, to, self.at);
            request.id = id;
            request.pipelines = pipelines.to_vec();
            request.sites = sites.iter().copied().cloned().collect();
            request
        };
        Some([request(self.settling_id(self.parts)), request(self.restating_id(self.parts))])
    }

    /// Writes down that `found` of `table` is about to go, unless it is known.
    pub(crate) async fn note(&mut self, lake: &Lake, table: &str, found: &Affected) -> Result<(), ReadError> {
        if covers(&self.affected, table, found) {
            return Ok(());
        }
        let found = BTreeMap::from([(table.to_owned(), found.clone())]);
        self.write(lake, Part { affected: found, ..self.part() }).await
    }

    /// Writes down that `found` of `table` follows what has gone. False where it is known.
    pub(crate) async fn note_followers(
        &mut self,
        lake: &Lake,
        table: &str,
        found: &Affected,
    ) -> Result<bool, ReadError> {
        if covers(&self.followers, table, found) {
            return Ok(false);
        }
        let found = BTreeMap::from([(table.to_owned(), found.clone())]);
        self.write(lake, Part { followers: found, ..self.part() }).await?;
        Ok(true)
    }

    /// A part that says nothing yet.
    fn part(&self) -> Part {
        Part {
            version: VERSION,
            condition: self.condition.clone(),
            tables: self.tables.clone(),
            at: self.at,
            affected: BTreeMap::new(),
            followers: BTreeMap::new(),
        }
    }

    async fn write(&mut self, lake: &Lake, part: Part) -> Result<(), ReadError> {
        let path = self.file(&format!("{:06}.json", self.parts));
        let bytes = seal(&part).map_err(|error| Damaged { path: path.to_string(), reason: error.to_string() })?;
        create_same(lake, &path, bytes).await?;
        self.parts += 1;
        self.add(&part);
        Ok(())
    }

    fn add(&mut self, part: &Part) {
        for (all, more) in [(&mut self.affected, &part.affected), (&mut self.followers, &part.followers)] {
            more.iter().for_each(|(table, found)| join(all.entry(table.clone()).or_default(), found));
        }
    }
}

/// Whether everything in `found` is in what is `known` of the table.
fn covers(known: &BTreeMap<String, Affected>, table: &str, found: &Affected) -> bool {
    let Some(known) = known.get(table) else { return found.is_empty() };
    let mut joined = known.clone();
    join(&mut joined, found);
    joined == *known
}

/// Creates `path`; there with the same bytes is fine, an unknown outcome is looked at.
async fn create_same(lake: &Lake, path: &Path, bytes: Bytes) -> Result<(), ReadError> {
    let put = lake.store().create(path, bytes.clone()).await;
    if matches!(put, Ok(Created::New)) {
        return Ok(());
    }
    match (lake.store().read(path).await?, put) {
        (Some(found), _) if found == bytes => Ok(()),
        (_, Err(error)) => Err(error.into()),
        (_, Ok(_)) => {
            let reason = "another run of the same erasure is at work: let it finish".to_owned();
            Err(Damaged { path: path.to_string(), reason }.into())
        }
    }
}

/// Adds `more`, and makes one of spans that touch.
pub(crate) fn join(all: &mut Affected, more: &Affected) {
    for (site, spans) in more {
        let known = all.entry(site.clone()).or_default();
        known.extend(spans.iter().copied());
        known.sort_unstable();
        let mut joined: Vec<(Micros, Micros)> = Vec::with_capacity(known.len());
        for (from, to) in known.drain(..) {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = to.max(last.1),
                _ => joined.push((from, to)),
            }
        }
        *known = joined;
    }
}

impl Lake {
    /// Erasures that were begun and are not finished, oldest first.
    ///
    /// # Errors
    /// If the store does not answer, or one is damaged or of a newer release.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, ReadError> {
        let mut found = Vec::new();
        for id in self.store().folders(&Path::from(ERASURES)).await? {
            let mut erasure: Option<Erasure> = None;
            for number in 0.. {
                let path = Path::from_iter([ERASURES, &id, &format!("{number:06}.json")]);
                let Some(bytes) = self.store().read(&path).await? else { break };
                let part: Part = unseal_up_to(&path, &bytes, VERSION)?;
                let known = erasure.get_or_insert_with(|| Erasure {
                    id: id.clone(),
                    ..Erasure::begin(&part.condition, &part.tables, part.at)
                });
                known.parts = number + 1;
                known.add(&part);
            }
            found.extend(erasure);
        }
        found.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        Ok(found)
    }

    /// Forgets an erasure: everything is done.
    ///
    /// # Errors
    /// If the store does not answer; do it again.
    pub async fn finish_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        let mut listed = self.store().list(&erasure.folder()).await?;
        // The first part last: an erasure with a part is one to go on with.
        listed.sort_by(|a, b| b.location.cmp(&a.location));
        for meta in listed {
            self.store().remove(&meta.location).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Op};
    use crate::testing::{faulty_object, over};

    fn spans(spans: &[(Micros, Micros)]) -> Affected {
        Affected::from([("a".to_owned(), spans.to_vec())])
    }

    /// Scenario: an erasure writes down what it takes in three rounds, the second of which adds nothing; the store fails once
    /// after it had done as told; another process looks; the erasure is finished.
    /// Guarantees: what was written down is found, joined; nothing is written twice; finished is forgotten.
    #[tokio::test]
    async fn what_was_set_out_is_found_again_until_it_is_done() {
        let (lake, store) = faulty_object();
        let mut erasure = Erasure::begin("site = 'a'", &["host".to_owned()], 7);
        store.next(1, Op::Put, ERASURES, Fault::After);
        erasure.note(&lake, "host", &spans(&[(0, 10), (20, 30)])).await.unwrap();
        erasure.note(&lake, "host", &spans(&[(20, 25)])).await.unwrap();
        erasure.note(&lake, "host", &spans(&[(10, 20), (50, 60)])).await.unwrap();
        assert_eq!(erasure.parts, 2);
        let found = over(&store).erasures().await.unwrap();
        assert_eq!(found, [erasure.clone()]);
        assert_eq!(found[0].affected_by(&["host".to_owned()]), spans(&[(0, 30), (50, 60)]));
        assert!(found[0].affected_by(&["link".to_owned()]).is_empty());
        lake.finish_erasure(&erasure).await.unwrap();
        assert!(lake.erasures().await.unwrap().is_empty());
    }

    /// Scenario: a later release, whose erasures may say more, died in the middle of one.
    /// Guarantees: this release names it and its version, and does not take it for one of its own.
    #[tokio::test]
    async fn an_erasure_of_a_later_release_is_refused() {
        let (lake, _) = faulty_object();
        let part = Part {
            version: VERSION + 1,
            condition: "site = 'a'".to_owned(),
            tables: vec!["host".to_owned()],
            at: 7,
            affected: BTreeMap::new(),
            followers: BTreeMap::new(),
        };
        let path = Path::from_iter([ERASURES, "later", "000000.json"]);
        lake.store().create(&path, seal(&part).unwrap()).await.unwrap();
        let error = lake.erasures().await.unwrap_err();
        assert!(matches!(&error, ReadError::Newer { version: 3, known: 2, .. }), "{error}");
        assert!(error.to_string().contains(path.as_ref()), "{error}");
    }
}
