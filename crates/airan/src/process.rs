//! A process: its admin server, the roles at work in it, and their end in the right order.

use std::time::Duration;

use airan_model::time::Clock;
use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::config::Config;
use crate::process_metrics::ProcessMetrics;

/// What every process has, whatever its roles.
pub struct Process {
    /// Metrics and health.
    pub admin: Admin,
    /// The wall clock.
    pub clock: Clock,
    /// Where the admin server listens.
    pub admin_address: std::net::SocketAddr,
    roles: Vec<Role>,
    /// Ends what is of no role: the admin server, the inventory's reload.
    rest: CancellationToken,
    signals: Signals,
}

/// Time for a role to end beyond what it gives itself: it should need none, for it keeps its own deadline. Three roles which all hang
/// stay with it under the 30 s that a stop may take, with the settings that are shipped.
const SLACK: Duration = Duration::from_secs(1);

/// A role at work.
struct Role {
    name: &'static str,
    stop: CancellationToken,
    /// How long it may take to end.
    within: Duration,
    task: JoinHandle<Result<()>>,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

impl Process {
    /// Takes the admin port and opens it: from here on the process can be asked how it is.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn start(config: &Config) -> Result<Process> {
        let signals = Signals::new().context("cannot listen for signals")?;
        let clock = Clock::system();
        let admin = Admin::default();
        ProcessMetrics::register(admin.registry(), clock.now())?;
        let listener = Admin::bind(&config.admin).await?;
        let admin_address = listener.local_addr()?;
        let rest = CancellationToken::new();
        admin.starting(Some("the roles are being assembled"));
        tokio::spawn({
            let (admin, hosts, stop) = (admin.clone(), config.admin.hosts.clone(), rest.clone());
            async move {
                if let Err(error) = admin.serve(listener, &hosts, stop).await {
                    tracing::error!(%error, "the admin server broke");
                }
            }
        });
        Ok(Process { admin, clock, admin_address, roles: Vec::new(), rest, signals })
    }

    /// A token that is cancelled after all roles have ended.
    pub fn rest(&self) -> CancellationToken {
        self.rest.clone()
    }

    /// Awaits something that must be there before the roles can start; a signal ends the wait.
    ///
    /// # Errors
    /// What the awaited says, or the signal.
    pub async fn or_signal<T>(&mut self, awaited: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = awaited => result,
            name = self.signals.next() => Err(anyhow!("stopped by {name} before it had started")),
        }
    }

    /// Sets a role to work. Roles are stopped in the order in which they were set to work; one that has not ended by `within`,
    /// the time that it gives itself, and some slack is left behind.
    pub fn work<F>(&mut self, name: &'static str, within: Duration, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        self.roles.push(Role { name, stop, within: within.saturating_add(SLACK), task });
    }

    /// Runs until a signal, or until a role ends by itself; then stops the roles, one after the other. A second signal ends the
    /// process at once, as a kill would: what was acknowledged is safe.
    ///
    /// # Errors
    /// The first error a role ended with.
    pub async fn run(mut self) -> Result<()> {
        self.admin.starting(None);
        let mut failure = None;
        let roles = &mut self.roles;
        let ended = std::future::poll_fn(|context| {
            let mut tasks = roles.iter_mut().enumerate();
            let done = tasks.find_map(|(index, role)| match std::pin::Pin::new(&mut role.task).poll(context) {
                std::task::Poll::Ready(result) => Some((index, result)),
                std::task::Poll::Pending => None,
            });
            done.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        tokio::select! {
            name = self.signals.next() => tracing::info!(signal = name, "stopping"),
            (index, result) = ended => {
                let role = roles.remove(index);
                failure = Some(match flatten(result) {
                    Ok(()) => anyhow!("{} ended by itself", role.name),
                    Err(error) => error.context(format!("{} ended", role.name)),
                });
                tracing::error!(role = role.name, "ended by itself: stopping");
            }
        }
        self.admin.starting(Some("stopping"));
        let stopping = stop_in_order(std::mem::take(&mut self.roles));
        let stopped = tokio::select! {
            stopped = stopping => stopped,
            name = self.signals.next() => {
                tracing::warn!(signal = name, "second signal: leaving at once");
                Ok(())
            }
        };
        self.rest.cancel();
        tracing::info!("stopped");
        failure.map_or(stopped, Err)
    }
}

async fn stop_in_order(roles: Vec<Role>) -> Result<()> {
    let mut first = Ok(());
    for Role { name, stop, within, mut task } in roles {
        stop.cancel();
        let ended = match tokio::time::timeout(within, &mut task).await {
            Ok(ended) => flatten(ended).with_context(|| format!("{name} ended")),
            Err(_) => {
                task.abort();
                let seconds = within.as_secs_f64();
                tracing::warn!(role = name, seconds, "did not stop in time: left behind");
                first = first.and_then(|()| Err(anyhow!("{name} did not stop within {seconds} s")));
                continue;
            }
        };
        if let Err(error) = &ended {
            tracing::error!(role = name, error = format!("{error:#}"), "did not stop cleanly");
        }
        first = first.and(ended);
    }
    first
}

fn flatten(result: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    result.unwrap_or_else(|error| Err(error.into()))
}

/// Makes a registration of metrics an error that names whose they are.
pub fn registered(of: &str, result: Result<(), prometheus::Error>) -> Result<()> {
    result.with_context(|| format!("cannot register the metrics of the {of}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Scenario: three roles, of which the second hangs in a call that never returns.
    /// Guarantees: they are stopped in order; the hung one costs its deadline, is named, and keeps neither the next nor the
    /// process.
    #[test]
    fn a_role_that_hangs_does_not_keep_the_process() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (_never, hang) = std::sync::mpsc::sync_channel::<()>(1);
        let hang = Arc::new(Mutex::new(hang));
        let ended = Arc::new(Mutex::new(Vec::new()));
        let stopped = runtime.block_on(async {
            let role = |name: &'static str, hangs: bool| {
                let (stop, ended, hang) = (CancellationToken::new(), Arc::clone(&ended), Arc::clone(&hang));
                let told = stop.clone();
                let task = tokio::spawn(async move {
                    told.cancelled().await;
                    if hangs {
                        let call = move || hang.lock().map(|hang| hang.recv().is_ok()).unwrap_or_default();
                        tokio::task::spawn_blocking(call).await?;
                    }
                    ended.lock().unwrap().push(name);
                    Ok(())
                });
                Role { name, stop, within: Duration::from_millis(100), task }
            };
            stop_in_order(vec![role("agent", false), role("gateway", true), role("processor", false)]).await
        });
        let line = stopped.unwrap_err().to_string();
        assert_eq!(line, "gateway did not stop within 0.1 s");
        assert_eq!(*ended.lock().unwrap(), ["agent", "processor"]);
        let started = std::time::Instant::now();
        runtime.shutdown_timeout(Duration::from_millis(100));
        assert!(started.elapsed() < Duration::from_secs(5), "the hung call keeps the process");
    }
}
