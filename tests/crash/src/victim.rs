//! One airan process that may be killed at any moment: started, ended in every way there is, started again.
//!
//! What it prints goes to a file of its own in the case's folder, all lives one after the other. Dropping a victim kills it, so
//! that a harness that is interrupted leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::broker::Wire;
use crate::plan::End;
use crate::results::Kills;

/// A graceful stop takes the last commit of every shard; the promise is 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The variable that names the fatal point (`airan_model::crash`).
const CRASH_AT: &str = "AIRAN_CRASH_AT";

/// The point that is come to where the log ends in what is no whole record. A process that is killed leaves no such end, because the
/// kernel has whole what was written; a machine that loses power does.
const NEEDS_A_TEAR: &str = "log.open.cut";
/// What is torn: less than the head of a record.
const TORN: [u8; 11] = *b"torn record";

/// A process, while it runs and while it does not.
pub struct Victim {
    /// Its name, as `processor-1`.
    pub name: String,
    /// Where it shows its metrics and health.
    pub admin: String,
    binary: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    /// Its way to the broker, where that can be cut.
    wire: Option<Arc<Wire>>,
    child: Option<Child>,
}

impl Victim {
    /// A process that does not run yet: `binary ARGUMENTS…` in `folder`.
    pub fn new(name: &str, admin: &str, binary: &Path, folder: &Path, arguments: &[&str]) -> Victim {
        Victim {
            name: name.to_owned(),
            admin: admin.to_owned(),
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            wire: None,
            child: None,
        }
    }

    /// The same, where its configuration leads to the broker through `wire`.
    pub fn through(mut self, wire: Option<Arc<Wire>>) -> Victim {
        self.wire = wire;
        self
    }

    /// The file that holds what it printed.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Starts it; `crash_at` names the point and pass that is fatal.
    pub fn start(&mut self, crash_at: Option<(&str, u64)>) -> Result<()> {
        let log =
            OpenOptions::new().create(true).append(true).open(self.log()).context("cannot open a victim's log")?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null()).env_remove(CRASH_AT);
        command.stdout(log.try_clone()?).stderr(log);
        if let Some((point, pass)) = crash_at {
            command.env(CRASH_AT, format!("{point}:{pass}"));
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// One life, from its start to its end, counted in `kills`.
    ///
    /// # Errors
    /// If it ends in another way than it was meant to.
    pub async fn live(&mut self, end: &End, kills: &mut Kills) -> Result<()> {
        match end {
            End::Kill { after } => {
                self.start(None)?;
                self.stay(*after).await?;
                self.kill()?;
                kills.sigkill += 1;
            }
            End::Point { name, pass, limit } => {
                if *name == NEEDS_A_TEAR {
                    tear(&self.folder.join("data/log"))?;
                }
                self.start(Some((name, *pass)))?;
                match self.ended_within(*limit).await? {
                    Some(status) if status.signal() == Some(Signal::ABORT.as_raw()) => {
                        *kills.points.entry((*name).to_owned()).or_default() += 1;
                    }
                    Some(status) => bail!("{} ended by itself, {status}: see {}", self.name, self.log().display()),
                    None => {
                        self.kill()?;
                        kills.sigkill += 1;
                        *kills.unreached.entry((*name).to_owned()).or_default() += 1;
                    }
                }
            }
            End::Stop { after } => {
                self.start(None)?;
                self.stay(*after).await?;
                self.stop().await?;
                kills.stopped += 1;
            }
            End::Freeze { after, span, then } => {
                self.start(None)?;
                self.stay(*after).await?;
                self.signal(Signal::STOP)?;
                tokio::time::sleep(*span).await;
                self.signal(Signal::CONT)?;
                kills.frozen += 1;
                self.stay(*then).await?;
                self.kill()?;
                kills.sigkill += 1;
            }
            End::Cut { after, span, newcomer, then, is_stopped } => {
                let wire = self.wire.clone().with_context(|| format!("{} has no wire to cut", self.name))?;
                self.start(None)?;
                self.stay(*after).await?;
                wire.cut(*newcomer);
                let stayed = self.stay(*span).await;
                wire.mend();
                stayed?;
                kills.cut += 1;
                self.stay(*then).await?;
                if *is_stopped {
                    self.stop().await?;
                    kills.stopped += 1;
                } else {
                    self.kill()?;
                    kills.sigkill += 1;
                }
            }
        }
        Ok(())
    }

    /// One run of a tool, which ends by itself and well, unless it is killed before. Returns whether it did.
    ///
    /// # Errors
    /// If it ends with an error that says none of `excuses`, or has not ended after `limit`.
    pub async fn errand(
        &mut self,
        end: Option<&End>,
        limit: Duration,
        excuses: &[&str],
        kills: &mut Kills,
    ) -> Result<bool> {
        let (crash_at, limit) = match end {
            Some(End::Point { name, pass, .. }) => (Some((*name, *pass)), limit),
            Some(End::Kill { after }) => (None, *after),
            _ => (None, limit),
        };
        self.start(crash_at)?;
        let ended = self.ended_within(limit).await?;
        match ended {
            Some(status) if crash_at.is_some() && status.signal() == Some(Signal::ABORT.as_raw()) => {}
            Some(status) if status.success() || excuses.iter().any(|excuse| self.says(excuse)) => {}
            Some(status) => bail!("{} ended with {status}: see {}", self.name, self.log().display()),
            None if matches!(end, Some(End::Kill { .. })) => {
                self.kill()?;
                kills.sigkill += 1;
            }
            None => bail!("{} has not ended after {limit:?}: see {}", self.name, self.log().display()),
        }
        if let Some((name, _)) = crash_at {
            let has_died = ended.is_some_and(|status| status.signal().is_some());
            let of = if has_died { &mut kills.points } else { &mut kills.unreached };
            *of.entry(name.to_owned()).or_default() += 1;
        }
        Ok(ended.is_some_and(|status| status.success()))
    }

    /// Lets it run for `span`.
    ///
    /// # Errors
    /// If it ends by itself meanwhile.
    async fn stay(&mut self, span: Duration) -> Result<()> {
        match self.ended_within(span).await? {
            Some(status) => bail!("{} ended by itself, {status}: see {}", self.name, self.log().display()),
            None => Ok(()),
        }
    }

    /// How it ended, if it does within `limit`.
    async fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            let child = self.child.as_mut().context("it was not started")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(Some(status));
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK.min(left)).await;
        }
    }

    /// SIGKILL, and the wait for its end. Fine where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; it must end with success.
    ///
    /// # Errors
    /// If it does not, or takes longer than it may.
    pub async fn stop(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.signal(Signal::TERM)?;
        match self.ended_within(STOP_LIMIT).await? {
            Some(status) if status.success() => Ok(start.elapsed()),
            // Not yet listening for signals: killed by it, as a kill -9 would.
            Some(status) if status.signal() == Some(Signal::TERM.as_raw()) => Ok(start.elapsed()),
            // Told to stop before it had started: an error that says so.
            Some(status) if self.says("before it had started") => {
                let _ = status;
                Ok(start.elapsed())
            }
            Some(status) => bail!("{} ended with {status} after SIGTERM: see {}", self.name, self.log().display()),
            None => bail!("{} did not end within {STOP_LIMIT:?} of SIGTERM", self.name),
        }
    }

    /// How many lines of its log hold `text`.
    pub fn told(&self, text: &str) -> u64 {
        let told = std::fs::read_to_string(self.log()).unwrap_or_default();
        told.lines().filter(|line| line.contains(text)).count() as u64
    }

    /// Whether the end of its log holds `text`.
    fn says(&self, text: &str) -> bool {
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        said.lines().rev().take(5).any(|line| line.contains(text))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it was not started")?;
        kill_process(Pid::from_child(child), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.kill();
    }
}

/// Gives the newest segment of each partition's log an end as a write leaves it that the power cut off. Fine where there is none yet.
fn tear(log: &Path) -> Result<()> {
    let Ok(partitions) = std::fs::read_dir(log) else { return Ok(()) };
    for partition in partitions {
        let Ok(segments) = std::fs::read_dir(partition?.path()) else { continue };
        let paths = segments.map(|segment| Ok(segment?.path())).collect::<std::io::Result<Vec<_>>>()?;
        let newest = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).max();
        if let Some(newest) = newest {
            OpenOptions::new().append(true).open(newest)?.write_all(&TORN)?;
        }
    }
    Ok(())
}

/// Lines of the victims' logs that mean a broken promise: panics, and whatever is logged as an error.
///
/// An `error` of airan means that data are lost or an invariant is broken (its logs' own rule).
pub fn complaints(log: &Path) -> Vec<String> {
    let Ok(file) = File::open(log).and_then(std::io::read_to_string) else { return Vec::new() };
    let bad = |line: &&str| line.contains("panicked at") || line.contains(" ERROR ");
    file.lines().filter(bad).take(20).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a log of two partitions, one of them with two segments; and a folder where no log is yet.
    /// Guarantees: the newest segment of each gets a torn end, the older one stays as it is.
    #[test]
    fn the_newest_segments_are_torn() {
        let folder = tempfile::tempdir().unwrap();
        tear(&folder.path().join("none")).unwrap();
        let segments = ["partition-0/00.log", "partition-0/64.log", "partition-1/00.log", "partition-1/cursor"];
        for name in segments {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "whole").unwrap();
        }
        tear(folder.path()).unwrap();
        let lengths = segments.map(|name| std::fs::read(folder.path().join(name)).unwrap().len());
        assert_eq!(lengths, [5, 5 + TORN.len(), 5 + TORN.len(), 5]);
    }
}
