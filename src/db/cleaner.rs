//! What is removed next, and when: the pace of the sweeps, which is not part of the changes themselves.
//!
//! Old messages are removed in steps that walk through the table, so that no commit waits long for one of them.

use std::time::{Duration, Instant};

use super::change::{Sweep, Swept};
use super::data::{Prune, Pruned, millis};
use crate::config::Retention;
use crate::limits::{
    CLEAN_IMAGES, CLEAN_INTERVAL, CLEAN_PACE, CLEAN_ROWS, EMPTIED_ROOM_KEPT, IMAGE_WAIT, PRUNE_ALL_INTERVAL,
    PRUNE_PACE, PRUNE_ROWS, SESSION_LIFETIME,
};
use crate::model::{MessageId, UnixMillis};

/// How far the removal of old messages has come.
#[derive(Debug)]
pub(super) struct Cleaner {
    retention: Retention,
    /// How many ids were skipped, and up to which.
    gap: (i64, MessageId),
    /// The last message that was looked at.
    after: MessageId,
    /// When a look through all messages was last finished.
    finished: Option<Instant>,
}

impl Cleaner {
    pub(super) fn new(retention: Retention, gap: (i64, MessageId)) -> Self {
        Self { retention, gap, after: MessageId::default(), finished: None }
    }

    /// The next round.
    pub(super) fn next_sweep(&self, last_id: MessageId, now: UnixMillis) -> Sweep {
        let keeps_all = self.retention.messages.is_none() && self.retention.age.is_none();
        let prune = (!keeps_all).then(|| self.next_prune(last_id, now));
        Sweep {
            rows: CLEAN_ROWS,
            emptied_until: now.plus(-millis(EMPTIED_ROOM_KEPT)),
            unnamed_until: now.plus(-millis(IMAGE_WAIT)),
            images_until: self.retention.images.map(|age| now.plus(-millis(age))),
            images: CLEAN_IMAGES,
            prune,
        }
    }

    /// The number of messages kept is measured by their ids: counting them would read the whole table. Ids have few
    /// gaps, except where they were skipped after an unclean end; with other gaps fewer messages are kept.
    fn next_prune(&self, last_id: MessageId, now: UnixMillis) -> Prune {
        let (skipped, gap_ends) = self.gap;
        let without_gap = |until: i64| if until < gap_ends.get() { until.saturating_sub(skipped) } else { until };
        let kept = self.retention.messages.map(i64::from);
        let until = MessageId::new(kept.map_or(0, |kept| without_gap(last_id.get() - kept)));
        let before = UnixMillis(self.retention.age.map_or(i64::MIN, |age| now.plus(-millis(age)).0));
        Prune { after: self.after, until, before, rows: PRUNE_ROWS }
    }

    /// Notes what a round did. Returns when the next is due at the latest.
    pub(super) fn note(&mut self, swept: Swept, now: UnixMillis) -> Duration {
        if swept.pruned.is_some_and(|pruned| self.note_pruned(pruned)) {
            return PRUNE_PACE;
        }
        if swept.more_expired {
            return CLEAN_PACE;
        }
        let expires_in =
            swept.oldest_use.map_or(i64::MAX, |used| used.plus(millis(SESSION_LIFETIME)).0.saturating_sub(now.0));
        Duration::from_millis(u64::try_from(expires_in).unwrap_or(0)).clamp(CLEAN_PACE, CLEAN_INTERVAL)
    }

    /// Whether the next step is due soon.
    fn note_pruned(&mut self, Pruned { removed, next }: Pruned) -> bool {
        // Times mostly rise with ids: where a step removes nothing, neither will the ones after it. Ids always rise.
        let look_at_all =
            self.retention.age.is_some() && self.finished.is_none_or(|at| at.elapsed() > PRUNE_ALL_INTERVAL);
        let next = next.filter(|_| removed > 0 || look_at_all);
        if next.is_none() && look_at_all {
            self.finished = Some(Instant::now());
        }
        self.after = next.unwrap_or_default();
        next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaner(retention: Retention) -> Cleaner {
        Cleaner::new(retention, Default::default())
    }

    #[test]
    fn the_next_round_is_due_soon_if_there_is_more_and_when_the_next_session_expires() {
        let now = UnixMillis(millis(SESSION_LIFETIME));
        let due = |more_expired, oldest_use| {
            let swept = Swept { more_expired, oldest_use, pruned: None };
            cleaner(Retention::default()).note(swept, now)
        };
        assert_eq!(due(true, None), CLEAN_PACE);
        assert_eq!(due(false, None), CLEAN_INTERVAL);
        assert_eq!(due(false, Some(now)), CLEAN_INTERVAL);
        assert_eq!(due(false, Some(UnixMillis(5_000))), Duration::from_secs(5).clamp(CLEAN_PACE, CLEAN_INTERVAL));
        assert_eq!(due(false, Some(UnixMillis(-5_000))), CLEAN_PACE);
    }

    #[test]
    fn only_what_is_old_is_removed_and_messages_only_if_not_all_are_kept() {
        let now = UnixMillis(millis(SESSION_LIFETIME));
        let (day, last_id) = (Duration::from_hours(24), MessageId::new(10));
        let kept = |messages, age, images| cleaner(Retention { messages, age, images }).next_sweep(last_id, now);
        let sweep = kept(None, None, None);
        assert!(sweep.images_until.is_none() && sweep.prune.is_none());
        assert_eq!(sweep.emptied_until, now.plus(-millis(EMPTIED_ROOM_KEPT)));
        assert_eq!(sweep.unnamed_until, now.plus(-millis(IMAGE_WAIT)));
        assert_eq!(kept(None, None, Some(day)).images_until, Some(now.plus(-millis(day))));
        let by_number = kept(Some(3), None, None).prune.unwrap();
        assert_eq!((by_number.until, by_number.before), (MessageId::new(7), UnixMillis(i64::MIN)));
        let by_age = kept(None, Some(day), None).prune.unwrap();
        assert_eq!((by_age.until, by_age.before), (MessageId::default(), now.plus(-millis(day))));
    }
}
