//! Applies changes of rooms and of their members. As with every change, nothing here reads a clock or a flag. Each
//! command comes with a session, which is checked again here: it may have ended while the command was in the queue.

use super::apply::Execution;
use super::error::RoomError;
use super::sql::{self, Access, NewRoom};
use super::write::audience_of;
use crate::limits::{OPEN_ROOMS_MAX, USER_ROOMS_MAX};
use crate::model::{ID_MAX, MessageId, SessionId, UserId, Username};
use crate::room::{Audience, Event, NotifyAbout, RoomEmoji, RoomId, RoomKind, RoomName, Topic, fold};

/// A command about a room.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub enum RoomCommand {
    /// Makes an open or a private room.
    Create {
        /// Its name.
        name: RoomName,
        /// Whether everybody reads it.
        is_open: bool,
        /// The emoji beside the name.
        emoji: Option<RoomEmoji>,
        /// What it is about.
        topic: Topic,
        /// The first members of a private one, besides its maker.
        members: Vec<Username>,
        /// Whether only moderators may make open rooms.
        by_moderators: bool,
    },
    /// Finds the direct room with somebody, or makes it.
    OpenDirect {
        /// The other user, or oneself.
        username: Username,
        /// Whether to make one if there is none.
        make: bool,
    },
    /// Changes a room's name, emoji or topic, or archives it.
    Change {
        /// The room.
        room: RoomId,
        /// What changes.
        change: RoomChange,
    },
    /// Adds somebody to a private room.
    AddMember {
        /// The room.
        room: RoomId,
        /// The user.
        username: Username,
    },
    /// Removes somebody from a private room.
    RemoveMember {
        /// The room.
        room: RoomId,
        /// The user.
        username: Username,
    },
    /// Chooses what one wants to be notified of in a room.
    Notify {
        /// The room.
        room: RoomId,
        /// The choice.
        about: NotifyAbout,
    },
}

/// A change of a room; a field that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct RoomChange {
    /// Its name.
    pub name: Option<RoomName>,
    /// The emoji beside the name; `Some(None)` removes it.
    #[cfg_attr(feature = "cluster", serde(default, with = "super::encoding::double_option"))]
    pub emoji: Option<Option<RoomEmoji>>,
    /// What it is about.
    pub topic: Option<Topic>,
    /// Whether it is archived: it can only be read.
    pub archived: Option<bool>,
}

/// What was done to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomOutcome {
    /// The room.
    pub room: RoomId,
    /// Whether it is new.
    pub is_new: bool,
}

type Judged<T> = rusqlite::Result<Result<T, RoomError>>;

/// The user of this name, unless they are disabled.
macro_rules! find_user {
    ($self:ident, $username:expr) => {
        match sql::find_active_user($self.connection, $username)? {
            Some(user) => user,
            None => return Ok(Err(RoomError::NotFound)),
        }
    };
}

impl Execution<'_> {
    /// Applies what `by` does to a room.
    pub(super) fn change_room(&mut self, session: SessionId, by: UserId, command: &RoomCommand) -> Judged<RoomOutcome> {
        if !sql::user_lives(self.connection, session, by, self.moment.expired_at)? {
            return Ok(Err(RoomError::SessionEnded));
        }
        if self.last_id.get() >= ID_MAX {
            return Ok(Err(RoomError::Unavailable));
        }
        match command {
            RoomCommand::Create { .. } => self.create_room(by, command),
            RoomCommand::OpenDirect { username, make } => self.open_direct(by, username, *make),
            RoomCommand::Change { room, change } => self.edit_room(by, *room, change),
            RoomCommand::AddMember { room, username } => self.add_member(by, *room, username),
            RoomCommand::RemoveMember { room, username } => self.remove_member(by, *room, username),
            RoomCommand::Notify { room, about } => {
                if sql::access(self.connection, by, *room)?.is_none() {
                    return Ok(Err(RoomError::NotFound));
                }
                sql::set_notify(self.connection, by, *room, *about)?;
                Ok(Ok(RoomOutcome { room: *room, is_new: false }))
            }
        }
    }

    fn create_room(&mut self, by: UserId, command: &RoomCommand) -> Judged<RoomOutcome> {
        let RoomCommand::Create { name, is_open, emoji, topic, members, by_moderators } = command else {
            unreachable!("the caller matched it")
        };
        let mut users = vec![by];
        for username in members {
            let user = find_user!(self, username);
            if !users.contains(&user) {
                users.push(user);
            }
        }
        let folded = if *is_open {
            if !members.is_empty() {
                return Ok(Err(RoomError::NoMembers));
            }
            if *by_moderators && !sql::role(self.connection, by)?.0 {
                return Ok(Err(RoomError::Forbidden));
            }
            if sql::count_open(self.connection)? >= OPEN_ROOMS_MAX {
                return Ok(Err(RoomError::TooMany));
            }
            users.clear();
            Some(fold(name.as_str()))
        } else {
            None
        };
        if let Err(error) = self.have_room_for(&users)? {
            return Ok(Err(error));
        }
        let new = NewRoom {
            kind: if *is_open { RoomKind::Open } else { RoomKind::Private },
            name: Some(name.as_str()),
            folded,
            emoji: emoji.as_ref().map(RoomEmoji::as_str),
            topic: topic.as_str(),
            pair: None,
        };
        self.insert_room(&new, users)
    }

    fn open_direct(&mut self, by: UserId, username: &Username, make: bool) -> Judged<RoomOutcome> {
        let other = find_user!(self, username);
        let pair = format!("{}-{}", by.0.min(other.0), by.0.max(other.0));
        if let Some(room) = sql::find_pair(self.connection, &pair)? {
            return Ok(Ok(RoomOutcome { room, is_new: false }));
        }
        if !make {
            return Ok(Err(RoomError::NotFound));
        }
        let mut users = vec![by, other];
        users.dedup();
        if let Err(error) = self.have_room_for(&users)? {
            return Ok(Err(error));
        }
        let new =
            NewRoom { kind: RoomKind::Direct, name: None, folded: None, emoji: None, topic: "", pair: Some(pair) };
        self.insert_room(&new, users)
    }

    /// Whether each of these may be in one more private or direct room.
    fn have_room_for(&self, users: &[UserId]) -> Judged<()> {
        for user in users {
            if sql::count_rooms_of(self.connection, *user)? >= USER_ROOMS_MAX {
                return Ok(Err(RoomError::TooMany));
            }
        }
        Ok(Ok(()))
    }

    fn insert_room(&mut self, new: &NewRoom<'_>, users: Vec<UserId>) -> Judged<RoomOutcome> {
        let id = self.last_id.next();
        let Some(room) = sql::insert_room(self.connection, new, id, self.moment.now)? else {
            return Ok(Err(RoomError::NameTaken));
        };
        self.next_event();
        for user in &users {
            sql::set_member(self.connection, room, *user, id, true)?;
        }
        let audience = if new.kind == RoomKind::Open { Audience::Everyone } else { Audience::Members(room) };
        self.effects.events.push(Event::Room { id, room, audience, members: users });
        Ok(Ok(RoomOutcome { room, is_new: true }))
    }

    fn edit_room(&mut self, by: UserId, room: RoomId, change: &RoomChange) -> Judged<RoomOutcome> {
        let Some(access) = sql::access(self.connection, by, room)? else { return Ok(Err(RoomError::NotFound)) };
        let allowed = match access.kind {
            RoomKind::Open => sql::role(self.connection, by)?.0,
            RoomKind::Private => true,
            RoomKind::Direct => false,
        };
        if !allowed || (room == RoomId::LOBBY && change.archived == Some(true)) {
            return Ok(Err(RoomError::Forbidden));
        }
        let folded = change.name.as_ref().filter(|_| access.kind == RoomKind::Open).map(|name| fold(name.as_str()));
        if let Some(folded) = &folded
            && sql::name_is_taken(self.connection, folded, room)?
        {
            return Ok(Err(RoomError::NameTaken));
        }
        if *change != RoomChange::default() {
            let id = self.next_event();
            let change = sql::RoomChange {
                name: change.name.as_ref().map(RoomName::as_str),
                folded,
                emoji: change.emoji.as_ref().map(|emoji| emoji.as_ref().map(RoomEmoji::as_str)),
                topic: change.topic.as_ref().map(Topic::as_str),
                archived: change.archived,
            };
            sql::change_room(self.connection, room, &change, id, self.moment.now)?;
            self.tell_of_room(id, &access, Vec::new());
        }
        Ok(Ok(RoomOutcome { room, is_new: false }))
    }

    fn tell_of_room(&mut self, id: MessageId, access: &Access, members: Vec<UserId>) {
        let audience = audience_of(access);
        self.effects.events.push(Event::Room { id, room: access.room, audience, members });
    }

    /// The private room whose members `by` may change.
    fn private_room(&self, by: UserId, room: RoomId) -> Judged<Access> {
        let Some(access) = sql::access(self.connection, by, room)? else { return Ok(Err(RoomError::NotFound)) };
        Ok(match access.kind {
            RoomKind::Open => Err(RoomError::NoMembers),
            RoomKind::Private => Ok(access),
            RoomKind::Direct => Err(RoomError::Forbidden),
        })
    }

    fn add_member(&mut self, by: UserId, room: RoomId, username: &Username) -> Judged<RoomOutcome> {
        let access = match self.private_room(by, room)? {
            Ok(access) => access,
            Err(error) => return Ok(Err(error)),
        };
        let user = find_user!(self, username);
        let outcome = RoomOutcome { room, is_new: false };
        if sql::access(self.connection, user, room)?.is_some() {
            return Ok(Ok(outcome));
        }
        if let Err(error) = self.have_room_for(&[user])? {
            return Ok(Err(error));
        }
        self.set_member(&access, user, true)?;
        Ok(Ok(outcome))
    }

    fn remove_member(&mut self, by: UserId, room: RoomId, username: &Username) -> Judged<RoomOutcome> {
        let access = match self.private_room(by, room)? {
            Ok(access) => access,
            Err(error) => return Ok(Err(error)),
        };
        let user = find_user!(self, username);
        if sql::access(self.connection, user, room)?.is_some() {
            self.set_member(&access, user, false)?;
        }
        Ok(Ok(RoomOutcome { room, is_new: false }))
    }

    /// Adds somebody to a private room, or removes them; a room that the last one leaves is archived, and removed later.
    fn set_member(&mut self, access: &Access, user: UserId, is_present: bool) -> rusqlite::Result<()> {
        let (id, room, now) = (self.next_event(), access.room, self.moment.now);
        sql::set_member(self.connection, room, user, id, is_present)?;
        sql::change_room(self.connection, room, &sql::RoomChange::default(), id, now)?;
        if !is_present && sql::count_members(self.connection, room)? == 0 {
            sql::set_emptied(self.connection, room, now)?;
        }
        self.tell_of_room(id, access, vec![user]);
        Ok(())
    }

    /// Removes a user whose account is deleted from their private rooms, and archives their direct ones.
    pub(super) fn leave_all_rooms(&mut self, user: UserId) -> rusqlite::Result<()> {
        for access in sql::readable(self.connection, user)? {
            match access.kind {
                RoomKind::Open => {}
                RoomKind::Private => self.set_member(&access, user, false)?,
                RoomKind::Direct => {
                    let id = self.next_event();
                    let change = sql::RoomChange { archived: Some(true), ..sql::RoomChange::default() };
                    sql::change_room(self.connection, access.room, &change, id, self.moment.now)?;
                    if !sql::has_others(self.connection, access.room, user)? {
                        sql::set_emptied(self.connection, access.room, self.moment.now)?;
                    }
                    self.tell_of_room(id, &access, Vec::new());
                }
            }
        }
        Ok(())
    }
}
