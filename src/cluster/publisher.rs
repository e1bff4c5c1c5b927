//! The publisher: makes entries of the changes that are requested through handles.
//!
//! One entry is on its way at a time, and takes everything that waits; meanwhile the next gathers, as at the writer
//! thread of one machine. An entry is **published once**. If it is not acknowledged in time, the requests are answered
//! `unavailable`; it may still appear, which the contract allows and a nonce settles. A change that nobody waits for
//! any more is not published, or a queue of three seconds would stay three seconds long for ever; nor is one that
//! another node would not know; and nothing is published without a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::{self, Header, SURROUNDINGS, WITH_CLOCK};
use super::jetstream;
use super::node::{Node, Reach};
use crate::db::{Proposal, Proposals};
use crate::limits::{COMMANDS_PER_COMMIT, NONCE_DAY, SESSION_LIFETIME, STORE_TIMEOUT};
use crate::model::UnixMillis;

/// Bytes of an entry's changes, except for one change that is larger by itself.
const ENTRY_BYTES: usize = 256 * 1024;
/// How long published entries are waited for when the process stops. The server waits a second for its database.
const STOP_PATIENCE: Duration = Duration::from_millis(800);

/// Publishes until there are no more proposals, then stops the node.
pub(super) async fn publish(node: Arc<Node>, mut proposals: Proposals) {
    let mut publisher =
        Publisher { node: Arc::clone(&node), number: 0, days_over: DaysOver::default(), reach: Reach::default() };
    let mut waiting = Vec::new();
    loop {
        let is_more = proposals.take(COMMANDS_PER_COMMIT, &mut waiting).await;
        while !waiting.is_empty() {
            publisher.publish_some(&mut waiting).await;
        }
        if !is_more {
            break;
        }
    }
    let mut returned = node.returned.subscribe();
    let all_returned = async {
        // Fails when the node is gone, which this handle holds.
        while !node.is_idle() && returned.changed().await.is_ok() {}
    };
    drop(tokio::time::timeout(STOP_PATIENCE, all_returned).await);
    node.stopping.send_replace(true);
}

struct Publisher {
    node: Arc<Node>,
    /// Entries published so far.
    number: u64,
    days_over: DaysOver,
    reach: Reach,
}

/// Days of nonces that are over, and since when at the latest, by a clock that cannot be set.
#[derive(Debug, Default)]
struct DaysOver(Vec<(i64, Instant)>);

impl DaysOver {
    /// The day whose nonces can be forgotten, if there is one: of those that have been over for as long as nonces are
    /// kept, the oldest. `remembered` are the days that have nonces, today's first.
    fn due(&mut self, remembered: &[i64], now: Instant) -> Option<i64> {
        let over = remembered.get(1..).unwrap_or_default();
        self.0.retain(|(day, _)| over.contains(day));
        for day in over {
            if !self.0.iter().any(|(known, _)| known == day) {
                self.0.push((*day, now));
            }
        }
        let old = self.0.iter().filter(|(_, since)| now.duration_since(*since) >= NONCE_DAY);
        old.map(|(day, _)| *day).min()
    }
}

impl Publisher {
    /// Publishes as many of the waiting changes as one entry takes, and waits until the log has it.
    async fn publish_some(&mut self, waiting: &mut Vec<Proposal>) {
        let Ok(place) = tokio::time::timeout(STORE_TIMEOUT, self.node.place()).await else { return waiting.clear() };
        let version = self.node.version_spoken();
        waiting.retain(|proposal| !proposal.is_abandoned() && proposal.version() <= version);
        let Some(connection) = self.node.link.current().filter(|_| self.node.is_sound()) else {
            return waiting.clear();
        };
        let (mut changes, mut bytes) = (Vec::new(), SURROUNDINGS);
        for proposal in waiting.iter() {
            let change = proposal.encode();
            bytes += change.len() + 1;
            if bytes > ENTRY_BYTES && !changes.is_empty() {
                break;
            }
            changes.push(change);
        }
        if changes.is_empty() {
            return;
        }
        if bytes > connection.info().max_payload {
            tracing::error!(
                bytes,
                most = connection.info().max_payload,
                "the entry is larger than the NATS server accepts"
            );
            waiting.drain(..changes.len());
            return;
        }
        self.number += 1;
        let forget_day = self.days_over.due(&self.node.progress.nonce_days(), Instant::now());
        let header = Header {
            version,
            by: &self.node.id,
            number: self.number,
            claim: self.node.progress.position(),
            session_lifetime: i64::try_from(SESSION_LIFETIME.as_millis()).unwrap_or(i64::MAX),
            published_at: (version >= WITH_CLOCK).then(UnixMillis::now),
            forget_day,
        };
        let entry = entry::encode(&header, &changes);
        let replies = Proposal::replies(waiting.drain(..changes.len()));
        self.node.expect(self.number, replies, place);
        let mut returned = self.node.returned.subscribe();
        let number = self.number;
        tokio::select! {
            appended = jetstream::append(&connection, &entry, STORE_TIMEOUT) => match appended {
                Ok(ack) => {
                    self.node.note_last(ack.seq);
                    self.answered();
                }
                Err(error) => {
                    tracing::debug!(%error, number, "an entry is not acknowledged");
                    self.node.give_up(number);
                    self.node.takes_entries.store(false, Ordering::Relaxed);
                    self.reach.leave_if_lost(&connection);
                }
            },
            // The entry may come back before its acknowledgement.
            _ = returned.wait_for(|returned| *returned >= number) => self.answered(),
        }
    }

    /// Takes note that the log takes entries.
    fn answered(&mut self) {
        self.node.takes_entries.store(true, Ordering::Relaxed);
        self.reach.seen();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::tests::lone;

    #[test]
    fn an_answer_of_the_log_says_that_it_takes_entries() {
        let node = Arc::new(lone());
        node.takes_entries.store(false, Ordering::Relaxed);
        let days_over = DaysOver::default();
        let mut publisher = Publisher { node: Arc::clone(&node), number: 0, days_over, reach: Reach::default() };
        publisher.answered();
        assert!(node.takes_entries.load(Ordering::Relaxed));
    }

    #[test]
    fn the_oldest_day_is_forgotten_first_and_each_when_it_has_been_over_for_as_long_as_nonces_are_kept() {
        let (mut days, start) = (DaysOver::default(), Instant::now());
        let almost = NONCE_DAY.saturating_sub(Duration::from_millis(1));
        assert_eq!(days.due(&[], start), None);
        assert_eq!(days.due(&[9, 5], start), None);
        assert_eq!(days.due(&[10, 9, 5], start + NONCE_DAY / 2), None);
        assert_eq!(days.due(&[10, 9, 5], start + almost), None);
        assert_eq!(days.due(&[10, 9, 5], start + NONCE_DAY), Some(5));
        assert_eq!(days.due(&[10, 9], start + NONCE_DAY), None);
        assert_eq!(days.due(&[10, 9], start + 2 * NONCE_DAY), Some(9));

        let mut after_a_start = DaysOver::default();
        assert_eq!(after_a_start.due(&[10, 9, 5], start), None);
        assert_eq!(after_a_start.due(&[10, 9, 5], start + NONCE_DAY), Some(5));
        assert_eq!(after_a_start.due(&[10, 9], start + NONCE_DAY), Some(9));
    }
}
