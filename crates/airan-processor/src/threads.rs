//! Where a processor's tasks run: on threads of their own, so that a shard's work never holds up the rest of the process.
//!
//! A test may have them run on its own runtime instead, whose time it holds in its hand. Either way they end with the last
//! handle on the threads, wherever each of them is: a processor that is dropped leaves like one that was killed.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

/// Threads for shards. Cheap to clone; they end with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    runtime: Option<Runtime>,
    #[cfg(test)]
    borrowed: std::sync::Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Threads {
    /// Threads of their own; 0: one for each core.
    pub fn start(threads: usize) -> Result<Threads, io::Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if threads > 0 {
            builder.worker_threads(threads);
        }
        let runtime = builder.thread_name("airan-shard").enable_all().build()?;
        Ok(Threads::of(runtime.handle().clone(), Some(runtime)))
    }

    /// The runtime of the caller.
    #[cfg(test)]
    pub fn here() -> Threads {
        Threads::of(Handle::current(), None)
    }

    fn of(handle: Handle, runtime: Option<Runtime>) -> Threads {
        Threads(Arc::new(Inner {
            handle,
            runtime,
            #[cfg(test)]
            borrowed: std::sync::Mutex::default(),
        }))
    }

    /// Runs a task there.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let running = self.0.handle.spawn(task);
        #[cfg(test)]
        if self.0.runtime.is_none() {
            self.0.borrowed.lock().unwrap().push(running.abort_handle());
        }
        running
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In the background, because the thread it happens on may not be blocked.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        #[cfg(test)]
        self.borrowed.get_mut().unwrap().iter().for_each(tokio::task::AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: tasks on threads of their own and on the test's, which wait for ever; then the last handle goes.
    /// Guarantees: they end.
    #[tokio::test]
    async fn tasks_end_with_the_last_handle() {
        for threads in [Threads::start(1).unwrap(), Threads::here()] {
            let task = threads.spawn(std::future::pending::<()>());
            let other = threads.clone();
            drop(threads);
            assert!(!task.is_finished());
            drop(other);
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), task).await.expect("it ends");
            assert!(ended.unwrap_err().is_cancelled());
        }
    }
}
