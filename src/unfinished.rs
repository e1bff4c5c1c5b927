//! What is not whole yet: how many bytes of messages a user, and the server, may hold, and how many pictures a user
//! sends.
//!
//! A message may come in fragments with anything between them, so its part that has arrived is kept. A budget for each
//! connection alone would grow with the number of connections that somebody opens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{UNFINISHED_BYTES_MAX, UNFINISHED_FREE_BYTES, USER_IMAGES_AT_ONCE, USER_UNFINISHED_BYTES_MAX};
use crate::model::UserId;

/// The bytes that all connections hold.
#[derive(Debug, Default)]
pub(crate) struct UnfinishedBudget(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    all: usize,
    users: HashMap<UserId, usize>,
}

/// The budget is exceeded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

impl UnfinishedBudget {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the bytes that a connection of `user` held by those that it holds now.
    fn replace(&self, user: UserId, before: usize, now: usize) -> Result<(), OverBudget> {
        let mut held = self.lock();
        let all = held.all - before + now;
        let of_user = held.users.get(&user).copied().unwrap_or(0) - before + now;
        if now > before && (all > UNFINISHED_BYTES_MAX || of_user > USER_UNFINISHED_BYTES_MAX) {
            return Err(OverBudget);
        }
        held.all = all;
        if of_user == 0 {
            held.users.remove(&user);
        } else {
            held.users.insert(user, of_user);
        }
        Ok(())
    }
}

/// The bytes that one connection holds. Most never hold any that count: up to [`UNFINISHED_FREE_BYTES`] are free, so
/// that a message which arrives in two reads takes no lock.
#[derive(Debug, Default)]
pub(crate) struct UnfinishedBytes(Option<(Arc<UnfinishedBudget>, UserId, usize)>);

impl UnfinishedBytes {
    /// Notes that the connection holds `bytes` now.
    pub(crate) fn hold(
        &mut self,
        budget: &Arc<UnfinishedBudget>,
        user: UserId,
        bytes: usize,
    ) -> Result<(), OverBudget> {
        let bytes = if bytes <= UNFINISHED_FREE_BYTES { 0 } else { bytes };
        let before = self.0.as_ref().map_or(0, |(_, _, held)| *held);
        if bytes == before {
            return Ok(());
        }
        budget.replace(user, before, bytes)?;
        self.0 = (bytes > 0).then(|| (Arc::clone(budget), user, bytes));
        Ok(())
    }
}

impl Drop for UnfinishedBytes {
    fn drop(&mut self) {
        if let Some((budget, user, held)) = self.0.take() {
            // Giving back is never refused.
            drop(budget.replace(user, held, 0));
        }
    }
}

/// Who sends pictures, and how many at once.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<UserId, usize>>);

/// A picture that somebody sends, until it is dropped.
#[derive(Debug)]
pub(crate) struct Upload<'a>(&'a Uploads, UserId);

impl Uploads {
    /// Counts a picture; none if its sender sends as many as they may.
    pub(crate) fn begin(&self, user: UserId) -> Option<Upload<'_>> {
        let mut sending = self.lock();
        let count = sending.entry(user).or_default();
        if *count >= USER_IMAGES_AT_ONCE {
            return None;
        }
        *count += 1;
        Some(Upload(self, user))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let Self(uploads, user) = self;
        if let Entry::Occupied(mut sending) = uploads.lock().entry(*user) {
            *sending.get_mut() -= 1;
            if *sending.get() == 0 {
                sending.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_has_arrived_makes_room_for_one_more() {
        let uploads = Uploads::default();
        let begin = || uploads.begin(UserId(1));
        let mut arriving: Vec<_> = (0..USER_IMAGES_AT_ONCE).map(|_| begin().unwrap()).collect();
        assert!(begin().is_none());
        arriving.pop();
        arriving.push(begin().unwrap());
        assert!(begin().is_none());
        drop(arriving);
        assert!(uploads.lock().is_empty());
    }

    #[test]
    fn a_user_holds_so_much_and_no_more_and_gives_it_back() {
        let budget = Arc::default();
        let full = USER_UNFINISHED_BYTES_MAX / 2;
        let [mut one, mut other, mut third] = [const { UnfinishedBytes(None) }; 3];
        assert_eq!(one.hold(&budget, UserId(1), full), Ok(()));
        assert_eq!(other.hold(&budget, UserId(1), full), Ok(()));
        assert_eq!(third.hold(&budget, UserId(1), UNFINISHED_FREE_BYTES), Ok(()), "a little is free");
        assert_eq!(third.hold(&budget, UserId(1), full), Err(OverBudget));
        assert_eq!(third.hold(&budget, UserId(2), full), Ok(()), "somebody else has their own");
        drop(one);
        assert_eq!(other.hold(&budget, UserId(1), 2 * full), Ok(()));
        drop((other, third));
        assert!(budget.lock().users.is_empty() && budget.lock().all == 0);
    }

    #[test]
    fn all_together_hold_so_much_and_no_more() {
        let budget = Arc::default();
        let users = UNFINISHED_BYTES_MAX / USER_UNFINISHED_BYTES_MAX;
        let mut held = Vec::new();
        for user in 0..=users {
            let mut bytes = UnfinishedBytes::default();
            let user = UserId(i64::try_from(user).unwrap());
            held.push((bytes.hold(&budget, user, USER_UNFINISHED_BYTES_MAX).is_ok(), bytes));
        }
        assert_eq!(held.iter().filter(|(fits, _)| *fits).count(), users);
    }
}
