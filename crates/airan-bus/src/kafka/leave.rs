//! How a consumer leaves its group, so that the others hear of it.
//!
//! A member with a `group.instance.id` is static: killed and started again within the session's timeout it gets its partitions
//! back without a rebalance. librdkafka lets such a member close without a word, so that its partitions would lie idle until
//! the timeout; one that closes in order therefore unsubscribes first, which does tell the group.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};

use super::config::INSTANCE;
use super::consumer::KafkaConsumer;
use super::notes::{Inbox, Notes, list_of};
use crate::Event;

/// How long a static member waits to be asked for its partitions before it closes.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(3);
/// From the answer to that question until the coordinator has heard of it: one request, sent when fetching has stopped. librdkafka
/// does not say when that was; a machine with ten times the work it has cores for needed more than half a second.
const UNTIL_TOLD: Duration = Duration::from_millis(1_500);
/// How often a leaving member looks for librdkafka's questions.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a member stands when it leaves.
struct Leaver {
    topic: String,
    has_revoked: bool,
    has_partitions: bool,
    is_static: bool,
}

impl KafkaConsumer {
    /// Leaves on a thread of its own, because that waits for the brokers, however long they are away. Resolves when it is done;
    /// None where it has left before.
    pub(super) fn leaving(&mut self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let consumer = self.consumer.take()?;
        let inbox = Arc::clone(&self.inbox);
        let leaver = Leaver {
            topic: self.shared.topic.clone(),
            has_revoked: !self.revoked.is_empty(),
            has_partitions: !self.assigned.is_empty(),
            is_static: self.shared.config.consumer.get(INSTANCE).is_some_and(|name| !name.is_empty()),
        };
        let (done, left) = tokio::sync::oneshot::channel();
        let leaving = move || {
            KafkaConsumer::leave(consumer, &inbox, &leaver);
            let _ = done.send(());
        };
        let _ = std::thread::Builder::new().name("airan-leave".to_owned()).spawn(leaving);
        Some(left)
    }

    /// Answers what is still to be answered and leaves. Blocks until the group knows, or cannot be told.
    fn leave(consumer: Arc<StreamConsumer<Notes>>, inbox: &Inbox, leaver: &Leaver) {
        let mut notes = inbox.notes();
        notes.is_leaving = true;
        let has_unseen = notes.events.drain(..).any(|event| matches!(event, Event::Revoked(_)));
        if leaver.has_revoked || has_unseen {
            let fetched = std::mem::take(&mut notes.fetched);
            let _ = consumer.incremental_unassign(&list_of(&leaver.topic, fetched));
        }
        drop(notes);
        if leaver.is_static {
            KafkaConsumer::tell(&consumer, inbox, leaver.has_partitions);
        }
        drop(consumer);
    }

    /// Has a static member say that it leaves. Blocks for a moment.
    fn tell(consumer: &StreamConsumer<Notes>, inbox: &Inbox, has_partitions: bool) {
        consumer.unsubscribe();
        let begun = std::time::Instant::now();
        let mut let_go = (!has_partitions).then_some(begun);
        while begun.elapsed() < GIVE_UP_WITHIN && let_go.is_none_or(|at| at.elapsed() < UNTIL_TOLD) {
            // The question comes with a poll, and is answered in it; messages that come too will be read by the next owner.
            drop(consumer.recv().now_or_never());
            if let_go.is_none() && inbox.notes().is_let_go {
                let_go = Some(std::time::Instant::now());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        let _ = self.leaving();
    }
}
