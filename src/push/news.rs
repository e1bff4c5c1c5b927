//! The rooms with messages that are not pushed yet.
//!
//! The writer notes a room after each commit, which costs it only a look into a small map: the devices are found later
//! and elsewhere. A message is pushed when it is [`PUSH_DELAY`] old, so that reading it anywhere can still cancel that.
//! The times of messages are kept to the second, and a room rests after each push, so that a flood costs no more than a
//! trickle.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::db::News;
use crate::limits::push::{PUSH_DELAY, PUSH_INTERVAL, PUSH_MARK, PUSH_ROOMS_MAX};
use crate::model::MessageId;
use crate::room::RoomId;

/// The rooms with news, and those that rest.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    /// Whether there may be subscriptions; nothing is noted before.
    listening: AtomicBool,
    by_id: Mutex<HashMap<RoomId, Room>>,
    /// Wakes the pusher when a room without news gets some.
    changed: Notify,
}

#[derive(Debug)]
struct Room {
    /// Pushed up to here.
    after: MessageId,
    marks: VecDeque<Mark>,
    rests_until: Instant,
}

/// Messages up to `id` had come by a [`PUSH_MARK`] after `at`.
#[derive(Debug)]
struct Mark {
    at: Instant,
    id: MessageId,
}

impl Room {
    /// `None` while there is nothing to push.
    fn due_at(&self) -> Option<Instant> {
        self.marks.front().map(|mark| (mark.at + PUSH_MARK + PUSH_DELAY).max(self.rests_until))
    }
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<RoomId, Room>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to note.
    pub(super) fn listen(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// Notes messages, in the order of their ids. Returns how many rooms were forgotten to make room.
    pub(crate) fn note(&self, messages: impl Iterator<Item = (RoomId, MessageId)>, now: Instant) -> u64 {
        if !self.listening.load(Ordering::Relaxed) {
            return 0;
        }
        let mut rooms = self.lock();
        let (mut has_news, mut forgotten) = (false, 0);
        for (id, message) in messages {
            if rooms.len() >= PUSH_ROOMS_MAX && !rooms.contains_key(&id) {
                forgotten += 1;
                let oldest = rooms.iter().min_by_key(|(_, room)| room.after).map(|(&id, _)| id);
                oldest.and_then(|oldest| rooms.remove(&oldest));
            }
            let room = rooms.entry(id).or_insert_with(|| Room {
                after: MessageId::new(message.get() - 1),
                marks: VecDeque::new(),
                rests_until: now,
            });
            has_news |= room.marks.is_empty();
            match room.marks.back_mut() {
                Some(mark) if now.saturating_duration_since(mark.at) < PUSH_MARK => mark.id = message,
                _ => room.marks.push_back(Mark { at: now, id: message }),
            }
        }
        if has_news {
            self.changed.notify_one();
        }
        forgotten
    }

    /// When [`Rooms::take`] is next worth calling.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lock().values().filter_map(Room::due_at).min()
    }

    /// Resolves when [`Rooms::next_due`] may have become earlier. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// News that are due now.
    pub(super) fn take(&self, now: Instant) -> Option<News> {
        let mut rooms = self.lock();
        // A room that has rested and has nothing new is forgotten.
        rooms.retain(|_, room| !room.marks.is_empty() || room.rests_until > now);
        let (&id, room) = rooms.iter_mut().find(|(_, room)| room.due_at().is_some_and(|at| at <= now))?;
        let mut up_to = room.after;
        while let Some(mark) = room.marks.pop_front_if(|mark| mark.at + PUSH_MARK + PUSH_DELAY <= now) {
            up_to = mark.id;
        }
        let after = std::mem::replace(&mut room.after, up_to);
        room.rests_until = now + PUSH_INTERVAL;
        Some(News { room: id, after, up_to })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// When a message is old enough in any case.
    const DELAY: Duration = PUSH_DELAY.saturating_add(PUSH_MARK);

    fn listening() -> Rooms {
        let rooms = Rooms::default();
        rooms.listen();
        rooms
    }

    fn note(rooms: &Rooms, room: i64, message: i64, now: Instant) -> u64 {
        rooms.note([(RoomId(room), MessageId::new(message))].into_iter(), now)
    }

    fn news(room: i64, after: i64, up_to: i64) -> News {
        News { room: RoomId(room), after: MessageId::new(after), up_to: MessageId::new(up_to) }
    }

    #[test]
    fn a_message_is_told_of_once_it_is_old_enough_to_have_been_read() {
        let (rooms, now) = (listening(), Instant::now());
        note(&rooms, 1, 7, now);
        assert_eq!(rooms.next_due(), Some(now + DELAY));
        assert_eq!(rooms.take(now + PUSH_DELAY), None);
        assert_eq!(rooms.take(now + DELAY), Some(news(1, 6, 7)));
        assert_eq!(rooms.take(now + 2 * DELAY), None);
        assert_eq!(rooms.next_due(), None);
    }

    #[test]
    fn a_younger_message_waits_until_its_own_time() {
        let (rooms, now) = (listening(), Instant::now());
        note(&rooms, 1, 7, now);
        note(&rooms, 1, 9, now + 9 * PUSH_MARK);
        assert_eq!(rooms.take(now + DELAY), Some(news(1, 6, 7)));
        assert_eq!(rooms.take(now + DELAY + 8 * PUSH_MARK), None);
        assert_eq!(rooms.take(now + DELAY + 9 * PUSH_MARK), Some(news(1, 7, 9)));
    }

    #[test]
    fn of_messages_that_are_a_little_apart_each_waits_until_its_own_time() {
        let (rooms, now) = (listening(), Instant::now());
        note(&rooms, 1, 7, now);
        note(&rooms, 1, 9, now + PUSH_MARK);
        assert_eq!(rooms.take(now + DELAY), Some(news(1, 6, 7)));
    }

    #[test]
    fn a_room_that_has_rested_is_forgotten() {
        let (rooms, now) = (listening(), Instant::now());
        note(&rooms, 1, 7, now);
        rooms.take(now + DELAY).unwrap();
        assert_eq!(rooms.take(now + DELAY + PUSH_INTERVAL / 2), None);
        assert_eq!(rooms.lock().len(), 1, "it rests");
        assert_eq!(rooms.take(now + DELAY + PUSH_INTERVAL), None);
        assert_eq!(rooms.lock().len(), 0);
    }

    #[test]
    fn a_room_in_which_messages_never_end_is_told_of_at_intervals() {
        let (rooms, now) = (listening(), Instant::now());
        let mut told = Vec::new();
        for tenth in 0..600 {
            let at = now + tenth * PUSH_MARK / 10;
            note(&rooms, 1, 1 + i64::from(tenth), at);
            told.extend(rooms.take(at));
            assert!(rooms.lock()[&RoomId(1)].marks.len() <= 20, "as many as fit into the delay and the rest");
        }
        assert_eq!(told.len(), 10);
        assert!(told.windows(2).all(|pair| pair[0].up_to == pair[1].after), "each message once");
    }

    #[test]
    fn of_too_many_rooms_the_one_that_waits_longest_is_forgotten() {
        let (rooms, now) = (listening(), Instant::now());
        let most = i64::try_from(PUSH_ROOMS_MAX).unwrap();
        let forgotten: u64 = (1..=most + 3).map(|room| note(&rooms, room, room, now)).sum();
        assert_eq!(forgotten, 3);
        let told: Vec<_> = std::iter::from_fn(|| rooms.take(now + DELAY)).collect();
        assert_eq!(told.len(), PUSH_ROOMS_MAX);
        assert!(told.iter().all(|news| news.room > RoomId(3)));
    }

    #[test]
    fn until_somebody_may_be_told_nothing_is_kept() {
        let (rooms, now) = (Rooms::default(), Instant::now());
        note(&rooms, 1, 7, now);
        assert!(rooms.lock().is_empty());
    }

    #[test]
    fn a_room_that_has_rested_takes_no_place() {
        let (rooms, now) = (listening(), Instant::now());
        note(&rooms, 1, 7, now);
        assert!(rooms.take(now + DELAY).is_some());
        assert_eq!(rooms.take(now + DELAY + PUSH_INTERVAL), None);
        assert!(rooms.lock().is_empty());
    }
}
