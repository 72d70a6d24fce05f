//! Several shards of one lake whose steps come in any order: messages, commits, the parts of a round of restatements, deaths, and
//! between them the publisher and a compaction.
//!
//! The shards are driven as a worker drives them. A round is begun after a commit, reads the lake some turns later, ends some turns
//! after that, and is true with the commit that follows; meanwhile messages are applied, and the other shards commit. Who dies
//! loses what was not committed, and reads on from there. The lake is one in memory: of record batches, or a whole one of files.

use std::sync::Arc;

use airan_bus::Received;
use airan_lake::{Lake, Request, ShardWriter};
use airan_model::time::{Clock, HOUR, Micros};
use bytes::Bytes;
use datafusion::object_store::memory::InMemory;
use futures::StreamExt;

use crate::golden::{Row, to_rows};
use crate::replay::{QUIET_COMMITS, Replayed, history};
use crate::restate::round::{Outcome, Round};
use crate::setup::Setup;
use crate::shard::Shard;
use crate::testing::{T0, lake_settings};

/// Small, so that merged files come in several parts.
const PART_BYTES: usize = 1 << 10;
/// The topic of the shards.
const TOPIC: &str = "drawn";

/// One turn of one shard, or of the lake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    /// So many messages are applied.
    Apply(u8),
    /// Waiting rows go into their windows.
    Flush,
    /// A commit; a round begins if none is under way.
    Commit,
    /// The round reads the lake.
    Look,
    /// What the round has found is for the next commit.
    End,
    /// The shard is gone, and built anew from its last commit.
    Die,
    /// The records go into the Delta logs.
    Publish,
    /// They do, and small files become one.
    Compact,
}

/// What has come between what, over all cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Rounds with windows restated between whose beginning and commit another shard has committed.
    pub crossed: u64,
    /// Such rounds that died with their shard.
    pub lost: u64,
    /// Files that compactions made of others.
    pub merges: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Seen) {
        self.crossed += other.crossed;
        self.lost += other.lost;
        self.merges += other.merges;
    }
}

/// Shards of one lake.
pub(crate) struct Shards {
    setup: Arc<Setup>,
    lake: Option<(Lake, Micros)>,
    of: Vec<One>,
    pub asked: Vec<Request>,
    commits: u64,
    pub seen: Seen,
}

/// One of them.
struct One {
    messages: Vec<Received>,
    shard: Shard,
    /// What it has committed.
    replayed: Replayed,
    commits: u64,
    /// Where its last commit ended, and its state.
    committed: Option<(i64, Bytes)>,
    writer: Option<ShardWriter>,
    round: Option<Round>,
    outcome: Option<Outcome>,
    /// Commits of other shards when its round began.
    others_at_begin: u64,
}

impl Shards {
    /// One shard for each of these lists of messages, over a lake of files where `is_stored`.
    pub(crate) async fn over(setup: &Arc<Setup>, messages: Vec<Vec<Received>>, is_stored: bool) -> Shards {
        let lake = is_stored.then(|| {
            let mut settings = lake_settings();
            settings.compaction.min_files = 2;
            let (clock, hand) = Clock::manual();
            // The hours of the rows are over for compaction.
            hand.set(T0 + 3 * HOUR);
            (Lake::in_object_store(Arc::new(InMemory::new()), PART_BYTES, settings, clock).unwrap(), T0 + 3 * HOUR)
        });
        let of = messages.into_iter().map(|messages| One {
            messages,
            shard: Shard::new(setup, 0),
            replayed: Replayed::default(),
            commits: 0,
            committed: None,
            writer: None,
            round: None,
            outcome: None,
            others_at_begin: 0,
        });
        let of = of.collect();
        let (asked, seen) = (Vec::new(), Seen::default());
        let mut shards = Shards { setup: Arc::clone(setup), lake, of, asked, commits: 0, seen };
        for at in 0..shards.of.len() {
            shards.take_over(at).await;
        }
        shards
    }

    /// Somebody asks for a restatement.
    pub(crate) async fn ask(&mut self, request: Request) {
        if let Some((lake, _)) = &self.lake {
            lake.request(&request).await.unwrap();
        }
        self.asked.push(request);
    }

    /// `who` is taken modulo the number of shards.
    pub(crate) async fn turn(&mut self, who: u8, turn: Turn) {
        let at = usize::from(who) % self.of.len();
        match turn {
            Turn::Apply(messages) => self.of[at].apply(messages).await,
            Turn::Flush => {
                for stage in &mut self.of[at].shard.stages {
                    stage.flush().await;
                }
            }
            Turn::Commit => self.commit(at).await,
            Turn::Look => self.look(at).await,
            Turn::End => self.of[at].end(),
            Turn::Die => self.take_over(at).await,
            Turn::Publish => {
                if let Some((lake, now)) = &self.lake {
                    lake.publish(*now).await.unwrap();
                }
            }
            Turn::Compact => {
                if let Some((lake, now)) = &self.lake {
                    let report = lake.compact(None, *now, |_| {}).await.unwrap();
                    assert!(report.failures.is_empty(), "{report:?}");
                    self.seen.merges += report.merges;
                }
            }
        }
    }

    /// The messages that are left, then commits until nothing is to be restated any more. What each shard has committed.
    pub(crate) async fn finish(&mut self) -> Vec<&Replayed> {
        while self.of.iter().any(|one| !one.is_read()) {
            for one in &mut self.of {
                one.apply(1).await;
            }
        }
        let mut quiet = 0;
        while quiet < QUIET_COMMITS {
            for at in 0..self.of.len() {
                self.commit(at).await;
                self.look(at).await;
                self.of[at].end();
            }
            quiet = if self.of.iter().any(|one| one.shard.has_outcome()) { 0 } else { quiet + 1 };
        }
        for one in &mut self.of {
            one.replayed.end(&one.shard);
        }
        self.of.iter().map(|one| &one.replayed).collect()
    }

    async fn commit(&mut self, at: usize) {
        let partitions = self.of.len() as i32;
        self.commits += 1;
        let one = &mut self.of[at];
        one.commits += 1;
        let others = self.commits - one.commits;
        self.seen.crossed += u64::from(one.restates() && others > one.others_at_begin);
        let begun = one.shard.begin_commit().unwrap();
        if let Some(writer) = &mut one.writer {
            writer.commit(&begun.commit).await.unwrap();
        }
        one.committed = Some((one.shard.next_offset, begun.commit.state.clone()));
        one.replayed.note(&one.shard, begun);
        one.shard.finish_commit();
        if one.round.is_none() && one.outcome.is_none() && !one.shard.has_outcome() {
            one.round = Some(one.shard.begin_round(at as i32, partitions));
            one.others_at_begin = others;
        }
    }

    async fn look(&mut self, at: usize) {
        let Some(round) = self.of[at].round.take() else { return };
        let outcome = match &self.lake {
            Some((lake, _)) => round.over(lake).await,
            None if round.is_needed(&self.asked) => {
                let history = history(&self.setup, self.of.iter().map(|one| &one.replayed)).unwrap();
                round.run(&history, &self.asked).await
            }
            None => Outcome::default(),
        };
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        self.of[at].outcome = Some(outcome);
    }

    /// An owner begins where the last commit ended.
    async fn take_over(&mut self, at: usize) {
        let (setup, partitions) = (&self.setup, self.of.len() as i32);
        let one = &mut self.of[at];
        let has_found = one.outcome.as_ref().is_some_and(|outcome| !outcome.restated.is_empty());
        self.seen.lost += u64::from(has_found || one.restates());
        (one.round, one.outcome, one.writer) = (None, None, None);
        one.shard = match (&self.lake, one.committed.clone()) {
            (None, None) => Shard::new(setup, 0),
            (None, Some((next, state))) => one.replayed.rebuilt(setup, next, state).await.unwrap(),
            (Some((lake, _)), committed) => {
                let (writer, recovered) = lake.claim(TOPIC, at as i32, partitions).await.unwrap();
                one.writer = Some(writer);
                let found = recovered.as_ref().map(|recovered| (recovered.next_offset, recovered.state.clone()));
                assert!(found == committed, "the lake says that the last commit was another");
                match found {
                    None => Shard::new(setup, 0),
                    Some((next, state)) => {
                        let mut shard = Shard::restore(setup, next, state).unwrap();
                        for (index, of) in setup.streams.iter().enumerate() {
                            let Some(from) = shard.rebuild_from(index) else { continue };
                            let mut rows = lake.raw_rows(TOPIC, at as i32, &of.stream.name, from).await.unwrap();
                            while let Some(batch) = rows.next().await {
                                shard.rebuild(index, &batch.unwrap()).await.unwrap();
                            }
                        }
                        shard
                    }
                }
            }
        };
    }

    /// Rows of this query over the lake's files; none where there is no such table. None without files.
    pub(crate) async fn stored(&self, table: &str) -> Option<Vec<Row>> {
        let (lake, _) = self.lake.as_ref()?;
        let context = airan_window::session_context();
        lake.register(&context).await.unwrap();
        if !context.table_exist(table).unwrap() {
            return Some(Vec::new());
        }
        let batches = context.table(table).await.unwrap().collect().await.unwrap();
        Some(batches.iter().flat_map(|rows| to_rows(rows).unwrap()).collect())
    }

    /// What is wrong in the lake's documents and files.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let Some((lake, _)) = &self.lake else { return Vec::new() };
        lake.check().await.unwrap().problems.iter().map(ToString::to_string).collect()
    }
}

impl One {
    /// Where the next message is.
    fn next(&self) -> usize {
        usize::try_from(self.shard.next_offset).unwrap()
    }

    fn is_read(&self) -> bool {
        self.next() >= self.messages.len()
    }

    /// Whether the next commit says windows anew.
    fn restates(&self) -> bool {
        self.shard.outcome.as_ref().is_some_and(|outcome| !outcome.restated.is_empty())
    }

    async fn apply(&mut self, messages: u8) {
        for _ in 0..messages {
            let Some(message) = self.messages.get(self.next()) else { return };
            self.shard.apply(message.clone()).await.unwrap();
            assert!(self.shard.sums.add_up(), "{:?}", self.shard.sums);
        }
    }

    fn end(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.shard.finish_round(outcome);
        }
    }
}
