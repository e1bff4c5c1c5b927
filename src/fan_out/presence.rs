//! Who is online.
//!
//! A user is online from their first authenticated connection until their last one ends, however it ends: each
//! connection holds a [`PresenceGuard`], and dropping it is leaving. Changes are numbered, and published under the lock
//! that makes them, so that everyone hears of them in one order and a snapshot says exactly which changes it includes.
//!
//! Telling each of `n` users about each other costs `n²` frames. Above [`COUNT_ABOVE`] users online the server sends a
//! count instead of names, at most once a second, until there are fewer than [`NAMES_BELOW`] again.

#[cfg(feature = "cluster")]
mod remote;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::batch::{Delivery, FrameBatchBuilder, FrameKind, Position, Reach, Span};
use super::hub::Hub;
use super::subscriber::Subscriber;
use crate::limits::{COUNT_ABOVE, NAMES_BELOW, TYPING_INTERVAL, USERS_LISTED_MAX};
use crate::model::{MessageId, UserId, Username};
use crate::protocol::ServerFrame;
use crate::room::{Audience, RoomId};
#[cfg(feature = "cluster")]
pub(crate) use remote::Local;

/// The smallest number of users online for which a count is sent instead of names.
const COUNT_MORE: usize = COUNT_ABOVE + 1;

/// The users online.
#[derive(Debug)]
pub(crate) struct Presence {
    hub: Hub,
    /// Authenticated connections that one user may have.
    user_connections: usize,
    online: Mutex<Online>,
}

#[derive(Debug, Default)]
struct Online {
    /// Sorted, since the list on the wire is.
    users: BTreeMap<Username, User>,
    /// The list on the wire, until it changes: when thousands come at once, most of them change none of it, and each is
    /// sent all of it.
    list: Option<Arc<[Username]>>,
    /// Bots with a connection: they are not present, and nobody is told of them.
    bots: BTreeMap<Username, User>,
    /// Connections of all users. Counted where a guard is dropped, so that no connection can end and still be counted.
    connections: usize,
    /// Presence frames ever published.
    seq: u64,
    /// Whether a count is sent instead of names.
    counting: bool,
    /// Whether the count has changed since it was last sent.
    changed: bool,
    /// How other nodes are told of what happens here.
    #[cfg(feature = "cluster")]
    tell: Option<remote::Told>,
}

#[derive(Debug, Default)]
struct User {
    connections: usize,
    /// Other nodes that the user has a connection to.
    #[cfg(feature = "cluster")]
    nodes: Vec<Arc<str>>,
    typed_at: Option<Instant>,
    /// The user's connections that are set up, for read marks, which are sent to them directly.
    subscribers: Vec<Weak<Subscriber>>,
}

/// Who is online at one moment, and the number of presence frames that led there.
#[derive(Debug)]
pub(crate) struct OnlineSnapshot {
    pub(crate) online: usize,
    /// The first of them in alphabetical order, up to [`USERS_LISTED_MAX`].
    pub(crate) users: Arc<[Username]>,
    pub(crate) seq: u64,
}

/// The user already has as many connections as allowed.
#[derive(Debug)]
pub(crate) struct TooManyConnections;

impl User {
    /// Whether the user has a connection at another node.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_self, reason = "there is no other node"))]
    fn is_elsewhere(&self) -> bool {
        #[cfg(feature = "cluster")]
        return !self.nodes.is_empty();
        #[cfg(not(feature = "cluster"))]
        return false;
    }
}

impl Presence {
    /// Starts with nobody online. A `user_connections` of 0 means no limit.
    pub(crate) fn new(hub: Hub, user_connections: usize) -> Self {
        let user_connections = if user_connections == 0 { usize::MAX } else { user_connections };
        Self { hub, user_connections, online: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Online> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection of `username`. Also returns a snapshot, which includes the user unless it is a bot, and
    /// whether a `user_join` was published for this connection: the connection's own task then sends it to the user,
    /// too.
    pub(crate) fn enter(
        self: &Arc<Self>,
        username: &Username,
        is_bot: bool,
    ) -> Result<(PresenceGuard, OnlineSnapshot, bool), TooManyConnections> {
        let mut online = self.lock();
        let user = online.all(is_bot).entry(username.clone()).or_default();
        if user.connections >= self.user_connections {
            return Err(TooManyConnections);
        }
        user.connections += 1;
        let is_first_here = user.connections == 1 && !is_bot;
        let is_first = is_first_here && !user.is_elsewhere();
        online.connections += 1;
        #[cfg(feature = "cluster")]
        if is_first_here {
            online.tell(Local::Came(username));
        }
        let announced =
            is_first && online.announce(&self.hub, username, &ServerFrame::UserJoin { username: username.as_str() });
        let snapshot = online.snapshot();
        drop(online);
        Ok((PresenceGuard { presence: Arc::clone(self), username: username.clone(), is_bot }, snapshot, announced))
    }

    /// Who is online now.
    pub(crate) fn snapshot(&self) -> OnlineSnapshot {
        self.lock().snapshot()
    }

    /// Whether somebody is online.
    pub(crate) fn is_online(&self, username: &Username) -> bool {
        self.lock().users.contains_key(username)
    }

    /// How many people are online, and with how many connections.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let online = self.lock();
        (online.users.len(), online.connections)
    }

    /// Publishes that `user` is typing in `room`, to its `audience`, at most once per [`TYPING_INTERVAL`], and not
    /// while only counts are sent: its cost also grows with the square of the number of users.
    pub(crate) fn typing(
        &self,
        (user, username): (UserId, &Username),
        (room, audience): (RoomId, Audience),
        now: Instant,
    ) {
        let mut online = self.lock();
        if online.counting {
            return;
        }
        let Some(entry) = online.find(username) else { return };
        if entry.typed_at.is_some_and(|at| now.duration_since(at) < TYPING_INTERVAL) {
            return;
        }
        entry.typed_at = Some(now);
        #[cfg(feature = "cluster")]
        online.tell(Local::Types(user, username, room));
        drop(online);
        let typing = ServerFrame::Typing { username: username.as_str(), room: room.0 };
        let reach = Reach::of_room(room, audience).except(user);
        self.hub.publish_frame(&typing, FrameKind::Unordered, reach);
    }

    /// Tells a user's connections how far the user has read in a room. Nothing is sent more often, and it is not an
    /// event: it goes straight to those few connections, without a shard that visits every subscriber.
    pub(crate) fn tell_read(&self, username: &Username, room: (RoomId, Audience), id: MessageId) {
        #[cfg(feature = "cluster")]
        self.lock().tell(Local::Read(username, room.0, id));
        self.deliver_read(username, room, id);
    }

    fn deliver_read(&self, username: &Username, (room, audience): (RoomId, Audience), id: MessageId) {
        let subscribers = self.lock().find(username).map(|user| user.subscribers.clone()).unwrap_or_default();
        let mut batch = FrameBatchBuilder::default();
        batch.push(
            &ServerFrame::Read { room: room.0, id: id.get() },
            FrameKind::Unordered,
            Reach::second_edition(audience),
        );
        let batch = batch.build(Span::default());
        for subscriber in subscribers.iter().filter_map(Weak::upgrade) {
            subscriber.deliver(&mut Delivery::new(&batch, Position::default()));
        }
    }

    /// Publishes the count if it has changed and only counts are sent. Called every [`Self::COUNT_INTERVAL`].
    pub(crate) fn publish_count(&self) {
        let mut online = self.lock();
        if online.counting && online.changed {
            online.publish_presence(&self.hub);
        }
    }

    /// The least time between two counts.
    pub(crate) const COUNT_INTERVAL: Duration = Duration::from_secs(1);

    fn leave(&self, username: &Username, is_bot: bool) {
        let mut online = self.lock();
        let Some(user) = online.all(is_bot).get_mut(username) else { return };
        user.connections -= 1;
        user.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        let was_last_here = user.connections == 0;
        if is_bot {
            if was_last_here {
                online.bots.remove(username);
            }
            online.connections -= 1;
            return;
        }
        let was_last = was_last_here && !user.is_elsewhere();
        online.connections -= 1;
        #[cfg(feature = "cluster")]
        if was_last_here {
            online.tell(Local::Went(username));
        }
        if was_last {
            online.users.remove(username);
            online.announce(&self.hub, username, &ServerFrame::UserLeave { username: username.as_str() });
        }
    }
}

impl Online {
    /// The people, or the bots.
    fn all(&mut self, is_bot: bool) -> &mut BTreeMap<Username, User> {
        if is_bot { &mut self.bots } else { &mut self.users }
    }

    /// A user or a bot with a connection.
    fn find(&mut self, username: &Username) -> Option<&mut User> {
        self.users.get_mut(username).or_else(|| self.bots.get_mut(username))
    }

    fn snapshot(&mut self) -> OnlineSnapshot {
        let users = self.list.get_or_insert_with(|| self.users.keys().take(USERS_LISTED_MAX).cloned().collect());
        OnlineSnapshot { online: self.users.len(), users: Arc::clone(users), seq: self.seq }
    }

    /// Publishes that a user has come or gone, by name or by count; returns whether it was by name. When the server
    /// switches between the two, it publishes at once.
    fn announce(&mut self, hub: &Hub, username: &Username, change: &ServerFrame<'_>) -> bool {
        self.list.take_if(|list| list.get(USERS_LISTED_MAX - 1).is_none_or(|last| username <= last));
        match (self.counting, self.users.len()) {
            (false, COUNT_MORE..) | (true, ..NAMES_BELOW) => {
                self.counting = !self.counting;
                self.publish_presence(hub);
                false
            }
            (false, _) => {
                self.seq += 1;
                hub.publish_frame(change, FrameKind::Presence(self.seq), Reach::ALL);
                true
            }
            (true, _) => {
                self.changed = true;
                false
            }
        }
    }

    /// Publishes how many users are online, with their names unless only counts are sent.
    fn publish_presence(&mut self, hub: &Hub) {
        self.changed = false;
        self.seq += 1;
        let OnlineSnapshot { online, users, seq } = self.snapshot();
        let users = (!self.counting).then_some(&*users);
        hub.publish_frame(&ServerFrame::Presence { online, users }, FrameKind::Presence(seq), Reach::ALL);
    }
}

/// Keeps the user of a connection online. The user leaves when the last guard is dropped.
#[derive(Debug)]
pub(crate) struct PresenceGuard {
    presence: Arc<Presence>,
    username: Username,
    is_bot: bool,
}

impl PresenceGuard {
    pub(crate) fn username(&self) -> &Username {
        &self.username
    }

    /// Registers the subscriber, for read marks sent directly.
    pub(crate) fn attach(&self, subscriber: &Arc<Subscriber>) {
        if let Some(user) = self.presence.lock().all(self.is_bot).get_mut(&self.username) {
            user.subscribers.reserve_exact(1);
            user.subscribers.push(Arc::downgrade(subscriber));
        }
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.presence.leave(&self.username, self.is_bot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_first_names_whoever_comes_and_goes() {
        let presence = Arc::new(Presence::new(Hub::new(), 0));
        let name = |number: usize| Username::parse(&format!("user{number:03}")).unwrap();
        let mut inside = std::collections::BTreeMap::new();
        // Each number up to 251 once, far from its neighbours: 83 and 251 have no common divisor.
        let numbers = (0..251).map(|number| number * 83 % 251);
        for (number, comes) in numbers.clone().map(|number| (number, true)).chain(numbers.map(|number| (number, false)))
        {
            if comes {
                inside.insert(name(number), presence.enter(&name(number), false).unwrap().0);
            } else {
                inside.remove(&name(number));
            }
            let expected: Vec<_> = inside.keys().take(USERS_LISTED_MAX).cloned().collect();
            assert_eq!(presence.snapshot().users[..], expected);
        }
    }

    #[test]
    fn a_bot_that_leaves_takes_nobody_of_its_name_along() {
        let (presence, name) = (Arc::new(Presence::new(Hub::new(), 0)), Username::parse("ada").unwrap());
        let (person, ..) = presence.enter(&name, false).unwrap();
        let (bot, ..) = presence.enter(&name, true).unwrap();
        drop(bot);
        assert!(presence.is_online(&name));
        drop(person);
        assert_eq!((presence.is_online(&name), presence.counts()), (false, (0, 0)));
        assert!(presence.lock().bots.is_empty());
    }
}
