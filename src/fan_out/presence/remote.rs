//! People who are online at other nodes of a cluster; and what those nodes are told of the people here.
//!
//! A user is online while they have a connection here, or are known to have one at another node. Clients are told that
//! somebody came or went, never at which node.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Online, Presence};
use crate::fan_out::batch::{FrameKind, Reach};
use crate::model::{MessageId, UserId, Username};
use crate::protocol::ServerFrame;
use crate::room::{Audience, RoomId};

/// What other nodes are told of the people who are connected here.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Local<'a> {
    /// Has their first connection here.
    Came(&'a Username),
    /// Has no connection here any more.
    Went(&'a Username),
    /// Types in a room.
    Types(UserId, &'a Username, RoomId),
    /// Has read so far in a room.
    Read(&'a Username, RoomId, MessageId),
}

/// How other nodes are told. Called with the lock held, in the order in which it happened: it must not wait.
pub(crate) type Tell = Box<dyn Fn(Local<'_>) + Send + Sync>;

impl Presence {
    /// From now on other nodes are told of what happens here.
    pub(crate) fn tell_others(&self, tell: Tell) {
        self.lock().tell = Some(Told(tell));
    }

    /// Up to `most` of the people who are connected here, by name, after a name; and whether there are more.
    pub(crate) fn connected_here(&self, after: Option<&Username>, most: usize) -> (Vec<Username>, bool) {
        let online = self.lock();
        let after = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = online.users.range::<Username, _>((after, std::ops::Bound::Unbounded));
        let mut here = range.filter(|(_, user)| user.connections > 0).map(|(name, _)| name.clone());
        let names: Vec<_> = here.by_ref().take(most).collect();
        let more = here.next().is_some();
        (names, more)
    }

    /// How many people are connected here.
    pub(crate) fn count_here(&self) -> usize {
        self.lock().users.values().filter(|user| user.connections > 0).count()
    }

    /// A user has a connection at another node.
    pub(crate) fn came_elsewhere(&self, node: &Arc<str>, username: &Username) {
        self.lock().came_elsewhere(&self.hub, node, username);
    }

    /// A user has no connection at another node any more.
    pub(crate) fn went_elsewhere(&self, node: &str, username: &Username) {
        self.lock().went_elsewhere(&self.hub, node, username);
    }

    /// These are the users who have a connection at another node, and no others are.
    pub(crate) fn all_elsewhere(&self, node: &Arc<str>, usernames: &BTreeSet<Username>) {
        let mut online = self.lock();
        for gone in online.at(node).filter(|name| !usernames.contains(name)).collect::<Vec<_>>() {
            online.went_elsewhere(&self.hub, node, &gone);
        }
        for username in usernames {
            online.came_elsewhere(&self.hub, node, username);
        }
    }

    /// How many users have a connection at another node.
    pub(crate) fn count_elsewhere(&self, node: &str) -> usize {
        self.lock().at(node).count()
    }

    /// A user types at another node, where it was found out that they may.
    pub(crate) fn types_elsewhere(&self, (user, username): (UserId, &Username), (room, audience): (RoomId, Audience)) {
        if !self.lock().counting {
            let typing = ServerFrame::Typing { username: username.as_str(), room: room.0 };
            self.hub.publish_frame(&typing, FrameKind::Unordered, Reach::of_room(room, audience).except(user));
        }
    }

    /// A user has read so far in a room at another node.
    pub(crate) fn read_elsewhere(&self, username: &Username, room: (RoomId, Audience), id: MessageId) {
        self.deliver_read(username, room, id);
    }
}

/// Wraps [`Tell`] to implement `Debug`.
pub(super) struct Told(pub(super) Tell);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}

impl Online {
    pub(super) fn tell(&self, local: Local<'_>) {
        if let Some(Told(tell)) = &self.tell {
            tell(local);
        }
    }

    fn at(&self, node: &str) -> impl Iterator<Item = Username> {
        let is_there = move |user: &super::User| user.nodes.iter().any(|known| **known == *node);
        self.users.iter().filter(move |(_, user)| is_there(user)).map(|(name, _)| name.clone())
    }

    fn came_elsewhere(&mut self, hub: &super::Hub, node: &Arc<str>, username: &Username) {
        let user = self.users.entry(username.clone()).or_default();
        if user.nodes.contains(node) {
            return;
        }
        let is_first = user.connections == 0 && user.nodes.is_empty();
        user.nodes.push(Arc::clone(node));
        if is_first {
            self.announce(hub, username, &ServerFrame::UserJoin { username: username.as_str() });
        }
    }

    fn went_elsewhere(&mut self, hub: &super::Hub, node: &str, username: &Username) {
        let Some(user) = self.users.get_mut(username) else { return };
        user.nodes.retain(|known| **known != *node);
        if user.connections == 0 && user.nodes.is_empty() {
            self.users.remove(username);
            self.announce(hub, username, &ServerFrame::UserLeave { username: username.as_str() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fan_out::Hub;

    #[test]
    fn a_user_is_announced_once_however_many_nodes_they_are_at() {
        let presence = Arc::new(Presence::new(Hub::new(), 0));
        let [ada, bob] = ["ada", "bob"].map(|name| Username::parse(name).unwrap());
        let [second, third]: [Arc<str>; 2] = ["second".into(), "third".into()];
        // How many were announced; who is online; how many are here, and at the second node.
        let seen = || {
            let snapshot = presence.snapshot();
            (snapshot.seq, snapshot.online, presence.count_here(), presence.count_elsewhere("second"))
        };
        let (here, ..) = presence.enter(&ada, false).unwrap();
        assert_eq!(seen(), (1, 1, 1, 0));
        presence.came_elsewhere(&second, &ada);
        assert_eq!(seen(), (1, 1, 1, 1));
        presence.came_elsewhere(&second, &bob);
        presence.came_elsewhere(&third, &bob);
        presence.came_elsewhere(&third, &bob);
        assert_eq!(seen(), (2, 2, 1, 2));
        assert_eq!(presence.connected_here(None, 2), (vec![ada.clone()], false), "bob is not");
        drop(here);
        assert_eq!(seen(), (2, 2, 0, 2), "ada is at the second node");
        let (here, ..) = presence.enter(&ada, false).unwrap();
        presence.went_elsewhere("second", &ada);
        presence.went_elsewhere("second", &bob);
        assert_eq!(seen(), (2, 2, 1, 0), "each is somewhere else");
        presence.went_elsewhere("third", &bob);
        assert_eq!(seen(), (3, 1, 1, 0));
        drop(here);
        assert_eq!(seen(), (4, 0, 0, 0));
    }
}
