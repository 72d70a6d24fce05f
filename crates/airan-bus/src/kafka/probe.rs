//! Whether a consumer's client still finds the brokers.
//!
//! librdkafka forgets every broker that an answer does not name, also where it names none, as that of a lone broker which is stopping
//! or starting (its issue 5301). Such a client does not come back by itself, and says nothing. So after all brokers were down, or the
//! membership was lost, it is asked for the topic until it gives an answer; one that gives none while another client of this process gets
//! one is put away, and another joins in its place.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::consumer::Consumer as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::PATIENCE;
use super::consumer::KafkaConsumer;
use crate::Event;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long it may give no answer while another client gets one: longer than librdkafka waits between two attempts to connect.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// What was asked of a client.
#[derive(Default)]
pub(super) struct Probe {
    // Whether it found a broker. A task of its own, for it waits for the brokers.
    asking: Option<JoinHandle<bool>>,
    asked: Option<Instant>,
    // Since when it has given no answer while the brokers are there.
    silent: Option<Instant>,
}

impl Probe {
    /// Takes in an answer; true where the client is stuck.
    fn heard(&mut self, found: bool, is_away: bool) -> bool {
        self.silent = match found || is_away {
            true => None,
            false => self.silent.or(Some(Instant::now())),
        };
        self.silent.is_some_and(|since| since.elapsed() >= STUCK_AFTER)
    }
}

impl KafkaConsumer {
    /// Asks where there is doubt. A client that is stuck is put away, with the event that comes of it.
    pub(super) fn look_for_brokers(&mut self) -> Option<Event> {
        if let Some(asking) = self.probe.asking.take_if(|asking| asking.is_finished()) {
            let found = asking.now_or_never().and_then(Result::ok).unwrap_or(false);
            if found {
                self.inbox.notes().has_doubt = false;
            }
            if self.probe.heard(found, self.shared.link.down().is_some()) {
                tracing::warn!("the consumer does not find the brokers, which are there: joining again");
                return Some(self.put_away());
            }
        }
        let is_due = self.probe.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        if !is_due || self.probe.asking.is_some() || !self.inbox.notes().has_doubt {
            return None;
        }
        let (consumer, topic) = (Arc::clone(self.consumer.as_ref()?), self.shared.topic.clone());
        self.probe.asked = Some(Instant::now());
        self.probe.asking =
            Some(tokio::task::spawn_blocking(move || consumer.fetch_metadata(Some(&topic), PATIENCE).is_ok()));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a client without an answer while the brokers are away, then while they are there, with one answer between.
    /// Guarantees: it is stuck only when it has given none for [`STUCK_AFTER`] on end while another client got some.
    #[tokio::test(start_paused = true)]
    async fn a_client_is_stuck_when_it_alone_gets_no_answer() {
        let mut probe = Probe::default();
        let mut stuck = Vec::new();
        for (second, (found, is_away)) in
            [(false, true), (false, false), (true, false), (false, false), (false, false), (false, false)]
                .into_iter()
                .enumerate()
        {
            if probe.heard(found, is_away) {
                stuck.push(second);
            }
            tokio::time::advance(STUCK_AFTER / 2).await;
        }
        assert_eq!(stuck, [5]);
    }
}
