//! Whether the brokers can be reached: what librdkafka says, found out for sure, and said once.
//!
//! librdkafka tries again by itself, and tells of each attempt. Here its words become one line when the brokers go away and one
//! when they are back. Its callbacks only take notes; [`watch`] does the asking.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::Notify;

/// Between two attempts to reach a broker that is away.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// After so long without an answer the brokers are asked by a new client, and again after as long. librdkafka forgets every broker that
/// an answer does not name, also where it names none, as that of a lone broker which is stopping or starting (its issue 5301): such a
/// client does not come back by itself.
const ANEW_EVERY: Duration = Duration::from_secs(20);

/// For so long after the brokers were found again, what goes wrong may come of their absence: a session, and a join after it.
const A_WHILE: Duration = Duration::from_secs(60);

/// What is known about the brokers.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: Mutex<State>,
    doubt: Notify,
}

#[derive(Debug, Default)]
struct State {
    // Why the brokers are away; None while they are there.
    down: Option<String>,
    // The last thing that went wrong with any of them.
    last: Option<String>,
    // When they were found to be there again.
    back: Option<Instant>,
}

impl Link {
    /// Why the brokers are away, if they are.
    pub fn down(&self) -> Option<String> {
        self.state().down.clone()
    }

    /// The last thing that went wrong with a broker, in its own words.
    pub fn last(&self) -> Option<String> {
        self.state().last.clone()
    }

    /// Whether the brokers are away, or were a short while ago.
    pub fn was_away(&self) -> bool {
        let state = self.state();
        state.down.is_some() || state.back.is_some_and(|back| back.elapsed() < A_WHILE)
    }

    /// Takes a note of an error.
    pub fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.doubt.notify_one();
            return;
        }
        let is_ours_to_mend = matches!(
            code,
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL)
        );
        let reason = without_times(reason);
        let mut state = self.state();
        if state.last.as_ref() != Some(&reason) {
            match is_ours_to_mend {
                true => tracing::warn!(reason, "a broker refuses us"),
                false => tracing::debug!(reason, "trouble with a broker"),
            }
            state.last = Some(reason);
        }
    }

    /// Notes what asking the brokers gave; said in the log when that changes.
    pub fn found(&self, answer: Result<(), String>) {
        let mut state = self.state();
        match (answer, state.down.is_some()) {
            (Ok(()), true) => {
                tracing::info!("Kafka is back");
                *state = State { back: Some(Instant::now()), ..State::default() };
            }
            (Ok(()), false) => state.last = None,
            (Err(error), was_down) => {
                let reason = state.last.clone().unwrap_or(error);
                if !was_down {
                    tracing::warn!(reason, "Kafka is away: trying again");
                }
                state.down = Some(reason);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the brokers whenever librdkafka doubts that they are there, and goes on asking until they are; with true every
/// [`ANEW_EVERY`], where it is to be done by a new client. Ends when `ask` gives None.
pub(super) async fn watch<F>(link: Arc<Link>, mut ask: impl FnMut(bool) -> F)
where
    F: Future<Output = Option<Result<(), String>>>,
{
    loop {
        // Idle connections are closed by brokers, and that too is told as all of them being down.
        link.doubt.notified().await;
        let mut since = tokio::time::Instant::now();
        loop {
            let anew = since.elapsed() >= ANEW_EVERY;
            if anew {
                since = tokio::time::Instant::now();
            }
            let Some(answer) = ask(anew).await else { return };
            let is_there = answer.is_ok();
            link.found(answer);
            if is_there {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

/// librdkafka's callbacks for clients without messages of their own.
#[derive(Clone, Debug)]
pub(super) struct LinkContext(pub Arc<Link>);

impl ClientContext for LinkContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(error.rdkafka_error_code(), reason);
    }
}

/// librdkafka's log lines in ours. What it calls an error it repeats each second, and the few of them that matter come as errors
/// too, so none is above `info` here.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // Properties of the consumer, seen by the producer, and the other way around.
        _ if facility == "CONFWARN" => tracing::debug!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(facility, message, "librdkafka");
        }
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

/// Leaves out what differs from one attempt to the next, as in `(after 3ms in state CONNECT, 12 identical error(s) suppressed)`.
fn without_times(reason: &str) -> String {
    let kept = reason.find(" (after ").map_or(reason, |at| &reason[..at]);
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the brokers go away, stay away for some attempts, and come back.
    /// Guarantees: the reason is the broker's own, and each change is found out by asking.
    #[tokio::test]
    async fn the_brokers_are_away_from_the_first_failed_question_to_the_first_answer() {
        let link = Arc::<Link>::default();
        let mut answers = vec![Err("timed out".to_owned()), Err("timed out".to_owned()), Ok(())].into_iter();
        let (asked, seen) = (Arc::clone(&link), Arc::<Mutex<Vec<Option<String>>>>::default());
        let noted = Arc::clone(&seen);
        let watching = watch(Arc::clone(&link), move |_| {
            noted.lock().unwrap().push(asked.down());
            std::future::ready(answers.next())
        });
        link.note(Some(RDKafkaErrorCode::BrokerTransportFailure), "a:1: Connect failed (after 0ms in state CONNECT)");
        assert_eq!(link.down(), None);
        link.note(Some(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(!link.was_away());
        let again = async {
            while seen.lock().unwrap().len() < 3 {
                tokio::time::sleep(ASK_EVERY).await;
            }
            assert_eq!(link.down(), None);
            assert!(link.was_away());
            link.note(Some(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        };
        tokio::join!(watching, again);
        let down = Some("a:1: Connect failed".to_owned());
        assert_eq!(*seen.lock().unwrap(), [None, down.clone(), down, None]);
    }

    /// Scenario: brokers that do not answer for two minutes, in which each question takes five seconds.
    /// Guarantees: they are asked by a new client every [`ANEW_EVERY`], and by none before that.
    #[tokio::test(start_paused = true)]
    async fn brokers_that_stay_away_are_asked_by_new_clients() {
        let link = Arc::<Link>::default();
        link.note(Some(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let (begun, anew) = (tokio::time::Instant::now(), Arc::<Mutex<Vec<u64>>>::default());
        let noted = Arc::clone(&anew);
        watch(link, move |is_anew| {
            let passed = begun.elapsed().as_secs();
            noted.lock().unwrap().extend(is_anew.then_some(passed));
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                (passed < 120).then(|| Err("timed out".to_owned()))
            }
        })
        .await;
        let anew = anew.lock().unwrap();
        assert!(anew[0] >= 20 && (4..=6).contains(&anew.len()), "{anew:?}");
    }
}
