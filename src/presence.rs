//! Who is online.
//!
//! A user is online from their first authenticated connection to the end of their last, however it ends: each
//! connection holds a [`PresenceGuard`], which leaves when it is dropped. Changes are published under the lock that
//! makes them, numbered, so that everyone hears of them in one order and a newcomer's snapshot says exactly which
//! changes it includes.
//!
//! Telling each of `n` people of each other costs `n²` frames. Past [`COUNT_ABOVE`] people online the server says how
//! many there are instead of who, at most once a second, until they are under [`NAMES_BELOW`] again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{COUNT_ABOVE, NAMES_BELOW, TYPING_INTERVAL, USERS_LISTED_MAX};
use crate::hub::{Hub, Told};
use crate::model::{UserId, Username};
use crate::protocol::ServerFrame;

/// The fewest people online who are counted.
const COUNT_MORE: usize = COUNT_ABOVE + 1;

/// The people online.
#[derive(Debug)]
pub(crate) struct Presence {
    hub: Hub,
    /// Authenticated connections one user may have.
    user_connections: usize,
    online: Mutex<Online>,
}

#[derive(Debug, Default)]
struct Online {
    /// Sorted, since the list on the wire is.
    users: BTreeMap<Username, User>,
    /// Of all of them: counted where a guard leaves, so that no connection can end and stay in the figure.
    connections: usize,
    /// Presence frames ever published.
    seq: u64,
    /// Whether changes are told as a count.
    counting: bool,
    /// Whether the count changed since it was told.
    changed: bool,
}

#[derive(Debug, Default)]
struct User {
    connections: usize,
    typed_at: Option<Instant>,
}

/// Who is online at one moment, and how many presence frames led there.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) online: usize,
    /// The first of them by name, up to [`USERS_LISTED_MAX`].
    pub(crate) users: Vec<Username>,
    pub(crate) seq: u64,
}

/// The user has as many connections as one may have.
#[derive(Debug)]
pub(crate) struct TooManyConnections;

impl Presence {
    /// Nobody is online yet. `user_connections` of 0 is no limit.
    pub(crate) fn new(hub: Hub, user_connections: usize) -> Self {
        let user_connections = if user_connections == 0 { usize::MAX } else { user_connections };
        Self { hub, user_connections, online: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Online> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of `username` in. Its snapshot includes the user, and says whether they were announced as
    /// having come with this connection: the joiner is told so too, by its own task.
    pub(crate) fn enter(
        self: &Arc<Self>,
        username: &Username,
    ) -> Result<(PresenceGuard, Snapshot, bool), TooManyConnections> {
        let mut online = self.lock();
        let user = online.users.entry(username.clone()).or_default();
        if user.connections >= self.user_connections {
            return Err(TooManyConnections);
        }
        user.connections += 1;
        let is_first = user.connections == 1;
        online.connections += 1;
        let announced = is_first && online.announce(&self.hub, &ServerFrame::UserJoin { username: username.as_str() });
        let snapshot = online.snapshot();
        drop(online);
        Ok((PresenceGuard { presence: Arc::clone(self), username: username.clone() }, snapshot, announced))
    }

    /// Who is online now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }

    /// How many people are online, and with how many connections.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let online = self.lock();
        (online.users.len(), online.connections)
    }

    /// Passes on that `user` types, at most once in [`TYPING_INTERVAL`], and not while people are only counted: it costs
    /// as the square of them too.
    pub(crate) fn typing(&self, user: UserId, username: &Username, now: Instant) {
        let mut online = self.lock();
        if online.counting {
            return;
        }
        let Some(entry) = online.users.get_mut(username) else { return };
        if entry.typed_at.is_some_and(|at| now.duration_since(at) < TYPING_INTERVAL) {
            return;
        }
        entry.typed_at = Some(now);
        drop(online);
        self.hub.publish_frame(&ServerFrame::Typing { username: username.as_str() }, Told::Typing(user));
    }

    /// Publishes the count if it changed while only the count is told. Called every [`Self::COUNT_INTERVAL`].
    pub(crate) fn publish_count(&self) {
        let mut online = self.lock();
        if online.counting && online.changed {
            online.publish_presence(&self.hub);
        }
    }

    /// How often the count is told at most.
    pub(crate) const COUNT_INTERVAL: Duration = Duration::from_secs(1);

    fn leave(&self, username: &Username) {
        let mut online = self.lock();
        let Some(user) = online.users.get_mut(username) else { return };
        user.connections -= 1;
        let was_last = user.connections == 0;
        online.connections -= 1;
        if was_last {
            online.users.remove(username);
            online.announce(&self.hub, &ServerFrame::UserLeave { username: username.as_str() });
        }
    }
}

impl Online {
    fn snapshot(&self) -> Snapshot {
        let users = self.users.keys().take(USERS_LISTED_MAX).cloned().collect();
        Snapshot { online: self.users.len(), users, seq: self.seq }
    }

    /// Tells of one change, by name or by count; whether it was by name. Where the count takes over or gives way, it is
    /// told at once.
    fn announce(&mut self, hub: &Hub, change: &ServerFrame<'_>) -> bool {
        match (self.counting, self.users.len()) {
            (false, COUNT_MORE..) | (true, ..NAMES_BELOW) => {
                self.counting = !self.counting;
                self.publish_presence(hub);
                false
            }
            (false, _) => {
                self.seq += 1;
                hub.publish_frame(change, Told::Presence(self.seq));
                true
            }
            (true, _) => {
                self.changed = true;
                false
            }
        }
    }

    /// Tells everyone how many are online, and who if that is told again.
    fn publish_presence(&mut self, hub: &Hub) {
        self.changed = false;
        self.seq += 1;
        let Snapshot { online, users, seq } = self.snapshot();
        let users = (!self.counting).then_some(&users[..]);
        hub.publish_frame(&ServerFrame::Presence { online, users }, Told::Presence(seq));
    }
}

/// One connection's share in its user being online: the user leaves with the last one dropped.
#[derive(Debug)]
pub(crate) struct PresenceGuard {
    presence: Arc<Presence>,
    username: Username,
}

impl PresenceGuard {
    pub(crate) fn username(&self) -> &Username {
        &self.username
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.presence.leave(&self.username);
    }
}
