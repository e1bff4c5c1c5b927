//! Users who look at the page, and see a message without a push.
//!
//! A page says with its pings whether it is in sight, and says so at once when that changes. A phone that falls asleep
//! may not be able to, so a page that has not been heard from for a while does not count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::model::UserId;

/// The pages in sight, by user.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pages: Mutex<HashMap<UserId, Vec<Page>>>,
    /// Numbers the connections.
    connections: AtomicU64,
}

#[derive(Debug)]
struct Page {
    connection: u64,
    heard_at: Instant,
}

impl Sight {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Vec<Page>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a page in sight of this user was last heard from.
    pub(super) fn heard_at(&self, user: UserId) -> Option<Instant> {
        self.lock().get(&user)?.iter().map(|page| page.heard_at).max()
    }
}

/// A connection's entry in [`Sight`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Eye {
    sight: Arc<Sight>,
    user: UserId,
    connection: u64,
    is_open: AtomicBool,
}

impl Eye {
    /// For a connection of `user`; closed until the page says that it is in sight.
    pub(crate) fn new(sight: &Arc<Sight>, user: UserId) -> Self {
        let connection = sight.connections.fetch_add(1, Ordering::Relaxed);
        Self { sight: Arc::clone(sight), user, connection, is_open: AtomicBool::new(false) }
    }

    /// Notes whether the page is in sight.
    pub(crate) fn set(&self, in_sight: bool, now: Instant) {
        self.is_open.store(in_sight, Ordering::Relaxed);
        let mut pages = self.sight.lock();
        let of_user = pages.entry(self.user).or_default();
        of_user.retain(|page| page.connection != self.connection);
        if in_sight {
            of_user.push(Page { connection: self.connection, heard_at: now });
        }
        if of_user.is_empty() {
            pages.remove(&self.user);
        }
    }

    /// Notes a sign of life from the page, even a pong.
    pub(crate) fn heard(&self, now: Instant) {
        if self.is_open.load(Ordering::Relaxed) {
            self.set(true, now);
        }
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.set(false, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_user_is_in_sight_while_one_of_their_pages_is() {
        let (sight, now) = (Arc::new(Sight::default()), Instant::now());
        let (one, other) = (Eye::new(&sight, UserId(1)), Eye::new(&sight, UserId(1)));
        assert_eq!(sight.heard_at(UserId(1)), None);
        one.set(true, now);
        other.set(true, now + Duration::from_secs(1));
        assert_eq!(sight.heard_at(UserId(1)), Some(now + Duration::from_secs(1)));
        other.set(false, now + Duration::from_secs(2));
        assert_eq!(sight.heard_at(UserId(1)), Some(now));
        one.heard(now + Duration::from_secs(9));
        other.heard(now + Duration::from_secs(9));
        assert_eq!(sight.heard_at(UserId(1)), Some(now + Duration::from_secs(9)));
        drop(one);
        assert_eq!(sight.heard_at(UserId(1)), None);
        assert!(sight.lock().is_empty());
    }
}
