//! How far everybody has read: the most frequent write of all, and the least precious.
//!
//! Positions are kept in memory and stored by commits that happen anyway, or a few seconds later by one of their own. A
//! clean stop loses none; a crash loses the last seconds of them, and the contract says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::READ_POSITIONS_MAX;
use crate::model::{MessageId, UserId};
use crate::room::RoomId;

/// Positions that are not stored yet, and the latest of those that are.
#[derive(Debug, Default)]
pub(super) struct ReadPositions(Mutex<Positions>);

#[derive(Debug, Default)]
struct Positions {
    known: HashMap<(UserId, RoomId), MessageId>,
    /// Those that are not stored yet.
    unstored: HashSet<(UserId, RoomId)>,
}

impl ReadPositions {
    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how far a user had read by what is stored, unless that is known.
    pub(super) fn learn(&self, user: UserId, room: RoomId, stored: MessageId) {
        let mut positions = self.lock();
        if positions.known.len() < READ_POSITIONS_MAX {
            positions.known.entry((user, room)).or_insert(stored);
        }
    }

    /// Whether it is known how far a user has read in a room.
    pub(super) fn knows(&self, user: UserId, room: RoomId) -> bool {
        self.lock().known.contains_key(&(user, room))
    }

    /// Notes that a user has read up to `id`. Returns whether that is further than was known here. With
    /// [`READ_POSITIONS_MAX`] positions waiting to be stored, another one is dropped.
    pub(super) fn note(&self, user: UserId, room: RoomId, id: MessageId) -> bool {
        let mut positions = self.lock();
        let Positions { known, unstored } = &mut *positions;
        let key = (user, room);
        // Zero is before all events: a position up to it says nothing.
        if id <= known.get(&key).copied().unwrap_or_default() {
            return false;
        }
        if known.len() >= READ_POSITIONS_MAX && !known.contains_key(&key) {
            if unstored.len() >= READ_POSITIONS_MAX {
                return false;
            }
            let waiting: HashMap<_, _> = unstored.iter().filter_map(|key| Some((*key, *known.get(key)?))).collect();
            *known = waiting;
        }
        known.insert(key, id);
        unstored.insert(key);
        true
    }

    /// How far a user has read in a room, as far as it is known here.
    pub(super) fn of(&self, user: UserId, room: RoomId) -> MessageId {
        self.lock().known.get(&(user, room)).copied().unwrap_or_default()
    }

    /// Whether some wait to be stored.
    pub(super) fn wait(&self) -> bool {
        !self.lock().unstored.is_empty()
    }

    /// Takes those that wait to be stored.
    pub(super) fn take(&self) -> Vec<(UserId, RoomId, MessageId)> {
        let mut positions = self.lock();
        let unstored = std::mem::take(&mut positions.unstored);
        unstored
            .into_iter()
            .filter_map(|(user, room)| Some((user, room, *positions.known.get(&(user, room))?)))
            .collect()
    }

    /// Puts back those that could not be stored.
    pub(super) fn put_back(&self, taken: &[(UserId, RoomId, MessageId)]) {
        let mut positions = self.lock();
        positions.unstored.extend(taken.iter().map(|(user, room, _)| (*user, *room)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(3);

    #[test]
    fn a_position_only_rises_and_is_stored_once() {
        let reads = ReadPositions::default();
        let id = MessageId::new;
        assert!(reads.note(UserId(1), ROOM, id(5)) && reads.note(UserId(1), ROOM, id(7)));
        assert!(!reads.note(UserId(1), ROOM, id(6)) && !reads.note(UserId(1), ROOM, id(7)));
        assert_eq!(reads.take(), [(UserId(1), ROOM, id(7))]);
        assert!(!reads.wait() && reads.of(UserId(1), ROOM) == id(7), "it is known after it is stored too");
        assert_eq!(reads.of(UserId(2), ROOM), id(0));
        assert!(!reads.note(UserId(2), ROOM, id(-1)) && !reads.note(UserId(2), ROOM, id(0)) && !reads.wait());
    }

    #[test]
    fn what_could_not_be_stored_waits_to_be_stored_again() {
        let reads = ReadPositions::default();
        reads.note(UserId(1), ROOM, MessageId::new(5));
        let taken = reads.take();
        reads.note(UserId(1), ROOM, MessageId::new(7));
        reads.take();
        reads.put_back(&taken);
        assert_eq!(reads.take(), [(UserId(1), ROOM, MessageId::new(7))]);
    }

    #[test]
    fn past_the_bound_those_that_are_stored_are_forgotten_and_then_no_more_are_noted() {
        let reads = ReadPositions::default();
        let user = |number: usize| UserId(i64::try_from(number).unwrap());
        let note = |number| reads.note(user(number), ROOM, MessageId::new(1));
        assert!(note(0));
        reads.take();
        assert!((1..=READ_POSITIONS_MAX).all(note), "the first one is stored, and makes room");
        assert!(!note(READ_POSITIONS_MAX + 1));
        assert_eq!(reads.take().len(), READ_POSITIONS_MAX);
    }
}
