//! A thread of its own for calls that may block or hang, and the way to ask it with a deadline.
//!
//! A driver that hangs keeps this thread and nothing else: whoever asks gets an error at the deadline, further questions are
//! refused while the thread is stuck, and nobody ever joins it. At most one request is in work and one waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use airan_decode::accelerators::{OutputError, Reading};
use tokio::sync::oneshot;

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The library, the program, the driver or a device is not there. No fault: many hosts have none.
    #[error("{0}")]
    Absent(String),
    /// It is there and does not work. The next look may succeed.
    #[error("{0}")]
    Failed(String),
    /// No answer in time. The thread is still at it.
    #[error("no answer within {0:?}: does the driver hang?")]
    Deadline(Duration),
    /// An earlier question has not been answered yet.
    #[error("still without an answer to an earlier question: does the driver hang?")]
    Busy,
    /// The thread has ended.
    #[error("the thread that reads has ended")]
    Ended,
}

impl From<OutputError> for SourceError {
    fn from(error: OutputError) -> SourceError {
        SourceError::Failed(error.to_string())
    }
}

type Reply = oneshot::Sender<Result<Reading, SourceError>>;

/// What the thread is asked.
pub(crate) struct Requests(Receiver<Reply>);

/// What came within a span.
pub(crate) enum Next {
    /// A question, to be answered.
    Asked(Question),
    /// Nothing.
    Nothing,
    /// Nobody will ask any more.
    Ended,
}

/// A question.
pub(crate) struct Question(Reply);

impl Question {
    /// Answers it. Whoever asked may have given up meanwhile.
    pub(crate) fn answer(self, with: Result<Reading, SourceError>) {
        let _ = self.0.send(with);
    }
}

impl Requests {
    /// The next question that somebody still waits for; None once nobody will ask any more.
    pub(crate) fn next(&self) -> Option<Question> {
        loop {
            let reply = self.0.recv().ok()?;
            if !reply.is_closed() {
                return Some(Question(reply));
            }
        }
    }

    /// The next question, within `span`.
    pub(crate) fn next_within(&self, span: Duration) -> Next {
        match self.0.recv_timeout(span) {
            Ok(reply) if reply.is_closed() => Next::Nothing,
            Ok(reply) => Next::Asked(Question(reply)),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }
}

/// The thread, seen from outside. It ends by itself after the last of these is dropped, if it is not stuck.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    requests: SyncSender<Reply>,
}

impl Worker {
    /// Starts `body` on a thread of its own.
    pub(crate) fn start(name: &str, body: impl FnOnce(Requests) + Send + 'static) -> std::io::Result<Worker> {
        let (requests, receiver) = sync_channel(1);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || body(Requests(receiver)))?;
        Ok(Worker { requests })
    }

    /// Asks for a reading.
    ///
    /// Cancellation: dropping the future gives the question up; the thread notices when it comes to it.
    pub(crate) async fn read(&self, deadline: Duration) -> Result<Reading, SourceError> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(reply) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(SourceError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(SourceError::Ended),
        }
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(_)) => Err(SourceError::Ended),
            Err(_) => Err(SourceError::Deadline(deadline)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a source that hangs at its first question until it is let go, then works.
    /// Guarantees: every question has an answer or an error in time; one that was given up is not worked on.
    #[tokio::test]
    async fn a_source_that_hangs_costs_its_thread_only() {
        let (let_go, held) = sync_channel::<()>(0);
        let (worked, looks) = sync_channel(16);
        let worker = Worker::start("test", move |requests| {
            let mut first = true;
            while let Some(question) = requests.next() {
                if std::mem::take(&mut first) {
                    held.recv().unwrap();
                }
                worked.send(()).unwrap();
                question.answer(Ok(Reading::default()));
            }
        })
        .unwrap();
        let short = Duration::from_millis(30);
        assert!(matches!(worker.read(short).await, Err(SourceError::Deadline(_))));
        assert!(matches!(worker.read(short).await, Err(SourceError::Deadline(_))), "this one waits in the queue");
        assert!(matches!(worker.read(short).await, Err(SourceError::Busy)));
        let_go.send(()).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while worker.read(Duration::from_secs(5)).await.is_err() {
            assert!(std::time::Instant::now() < end, "it did not recover");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(worker);
        assert_eq!(looks.iter().count(), 2, "the first and the last: the one in between had been given up");
    }

    #[tokio::test]
    async fn a_thread_that_has_ended_is_told() {
        let worker = Worker::start("test", |requests| drop(requests.next())).unwrap();
        assert!(matches!(worker.read(Duration::from_secs(5)).await, Err(SourceError::Ended)));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !matches!(worker.read(Duration::from_secs(5)).await, Err(SourceError::Ended)) {
            assert!(std::time::Instant::now() < end);
        }
    }
}
