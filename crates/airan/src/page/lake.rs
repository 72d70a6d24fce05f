//! Looks at the lake, bounded: one at a time, few in wait, each with a deadline, a limit of rows and a limit of memory.
//!
//! Nothing is kept but the list of the lake's files for some seconds, so that the charts of a site share one moment, and the
//! list of sites. The processor in the same process keeps its cores: a look works on one.

use std::sync::Arc;
use std::time::Duration;

use airan_lake::{Lake, QueryError, ReadError};
use airan_model::time::{Clock, HOUR, Micros};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::pipeline_view::PipelineView;
use super::windows::{self, Sites, Windows};
use super::{HOURS_MAX, Trouble};

/// Looks that may wait for their turn; more are told to come again.
const WAITING_MAX: usize = 8;
/// How long a look waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long it may then take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Memory of sorts and aggregates of one look.
const MEMORY_BYTES: usize = 128 << 20;
/// How long a list of the lake's files serves.
const SNAPSHOT: Duration = Duration::from_secs(5);
/// How long a list of sites serves.
const SITES: Duration = Duration::from_secs(10);

/// The lake of this process and its pipelines, to be looked at.
#[derive(Debug)]
pub struct LakeView {
    lake: Lake,
    pipelines: Vec<PipelineView>,
    clock: Clock,
    waiting: Semaphore,
    kept: Mutex<Kept>,
}

/// Whoever has it may look.
struct Turn<'a> {
    kept: MutexGuard<'a, Kept>,
    _waits: SemaphorePermit<'a>,
}

#[derive(Default)]
struct Kept {
    snapshot: Option<(Instant, SessionContext)>,
    sites: Option<(Instant, u32, Arc<Sites>)>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl LakeView {
    /// A view of `lake`.
    pub fn new(lake: Lake, pipelines: Vec<PipelineView>, clock: Clock) -> LakeView {
        LakeView { lake, pipelines, clock, waiting: Semaphore::new(WAITING_MAX), kept: Mutex::default() }
    }

    /// Who has windows that began in the last `hours`.
    pub(super) async fn sites(&self, hours: u32) -> Result<Arc<Sites>, Trouble> {
        let mut turn = self.turn().await?;
        let kept = &mut *turn.kept;
        if let Some((at, of, sites)) = &kept.sites
            && at.elapsed() < SITES
            && *of == hours
        {
            return Ok(Arc::clone(sites));
        }
        let sites = in_time(async {
            let context = self.snapshot(kept).await?;
            windows::sites(&context, &self.pipelines, self.since(hours)).await.map_err(in_words)
        });
        let sites = Arc::new(sites.await?);
        kept.sites = Some((Instant::now(), hours, Arc::clone(&sites)));
        Ok(sites)
    }

    /// The newest revision of each window of a site that began in the last `hours`.
    pub(super) async fn windows(&self, site: &str, pipeline: &str, hours: u32) -> Result<Windows, Trouble> {
        let shown = self.pipelines.iter().find(|shown| shown.name == pipeline).ok_or_else(|| {
            let names: Vec<&str> = self.pipelines.iter().map(|shown| shown.name.as_str()).collect();
            Trouble::NotHere(format!("no pipeline `{pipeline}`: there are {}", names.join(", ")))
        })?;
        let mut turn = self.turn().await?;
        in_time(async {
            let context = self.snapshot(&mut turn.kept).await?;
            let (from, to) = (self.since(hours), self.clock.now());
            windows::of_site(&context, shown, site, from, to).await.map_err(in_words)
        })
        .await
    }

    fn since(&self, hours: u32) -> Micros {
        self.clock.now().saturating_sub(Micros::from(hours.min(HOURS_MAX)).saturating_mul(HOUR))
    }

    /// Waits for the turn. A look that is given up, also because its asker has gone, ends at its next wait and hands it on.
    async fn turn(&self) -> Result<Turn<'_>, Trouble> {
        let waits = self.waiting.try_acquire().map_err(|_| Trouble::Busy)?;
        let kept = tokio::time::timeout(TURN, self.kept.lock()).await.map_err(|_| Trouble::Busy)?;
        Ok(Turn { kept, _waits: waits })
    }

    /// The lake's tables as of some seconds ago at most.
    async fn snapshot(&self, kept: &mut Kept) -> Result<SessionContext, Trouble> {
        if let Some((at, context)) = &kept.snapshot
            && at.elapsed() < SNAPSHOT
        {
            return Ok(context.clone());
        }
        let context = session().map_err(in_words)?;
        self.lake.register(&context).await.map_err(|error| Trouble::NotNow(format!("the lake: {}", first(&error))))?;
        kept.snapshot = Some((Instant::now(), context.clone()));
        Ok(context)
    }
}

/// What `look` gives, if it does within the deadline.
async fn in_time<T>(look: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| {
        let told = format!("the lake did not answer within {} s; ask for fewer hours", DEADLINE.as_secs());
        Err(Trouble::NotNow(told))
    })
}

/// A session of one core and bounded memory, which writes nothing to disk.
fn session() -> Result<SessionContext, DataFusionError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES, 1.0).with_disk_manager_builder(disk);
    Ok(SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime.build_arc()?))
}

fn in_words(error: DataFusionError) -> Trouble {
    let text = error.strip_backtrace();
    let line = text.lines().next().unwrap_or_default().to_owned();
    Trouble::NotNow(match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            format!("this look needs more memory than it may take; ask for fewer hours ({line})")
        }
        _ => format!("the lake cannot be read: {line}"),
    })
}

/// The error and its cause, where that says more.
fn first(error: &QueryError) -> String {
    let cause = match error {
        QueryError::Read(read) => std::error::Error::source(read as &ReadError).map(ToString::to_string),
        QueryError::Session { source, .. } => Some(source.strip_backtrace()),
    };
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use airan_lake::LakeSettings;

    use super::*;
    use crate::config::{self, Mode};

    async fn view() -> (tempfile::TempDir, LakeView) {
        let folder = tempfile::tempdir().unwrap();
        let config = config::load(None, Mode::Up, Some(folder.path())).map_err(|e| e.to_string()).unwrap().config;
        let settings: LakeSettings = config.lake;
        let lake = Lake::open(&settings, Clock::system()).await.unwrap();
        (folder, LakeView::new(lake, Vec::new(), Clock::system()))
    }

    /// Scenario: a look that never ends, one behind it, and more than may wait.
    /// Guarantees: one look at a time; it is given up at its deadline; who would wait too long, or in too long a line, is told to
    /// come again; afterwards the next is served.
    #[tokio::test]
    async fn looks_take_turns_and_end() {
        let (_folder, view) = view().await;
        tokio::time::pause();
        let look = async |length: Duration| {
            let _turn = view.turn().await?;
            in_time(async {
                tokio::time::sleep(length).await;
                Ok(())
            })
            .await
        };
        let (endless, behind) = tokio::join!(look(Duration::MAX), look(Duration::ZERO));
        assert!(matches!(&endless, Err(Trouble::NotNow(told)) if told.contains("within 10 s")), "{endless:?}");
        assert_eq!(behind, Err(Trouble::Busy));

        let crowd = (0..=WAITING_MAX).map(|_| look(Duration::from_millis(100)));
        let served = futures::future::join_all(crowd).await;
        assert_eq!(served.iter().filter(|one| one.is_ok()).count(), WAITING_MAX);
        assert_eq!(served.last(), Some(&Err(Trouble::Busy)));
        assert_eq!(look(Duration::ZERO).await, Ok(()));
    }

    /// Scenario: a lake without a table; a pipeline that is not there.
    #[tokio::test]
    async fn an_empty_lake_has_no_sites() {
        let (_folder, view) = view().await;
        assert!(view.sites(3).await.unwrap().sites.is_empty());
        let told = view.windows("a", "none", 3).await.unwrap_err();
        assert!(matches!(&told, Trouble::NotHere(line) if line.contains("`none`")), "{told}");
    }

    /// Scenario: a sort of more than the memory of a look.
    /// Guarantees: it is refused, nothing is written to disk, and the reader is told what to do.
    #[tokio::test]
    async fn a_look_beyond_its_memory_is_refused() {
        let context = session().unwrap();
        let sql = "SELECT a.value || repeat('x', 1000) AS text FROM generate_series(1, 400000) AS a ORDER BY text DESC";
        let told = in_words(context.sql(sql).await.unwrap().collect().await.unwrap_err()).to_string();
        assert!(told.contains("more memory") && told.contains("fewer hours"), "{told}");
    }
}
