//! The queries about rooms, their readers and members, and read positions: the writer changes them, the reader shows
//! them.
//!
//! The view `readable` of the schema is the one place that says who may read a room. Every query that shows anything of
//! a room to a user goes through it, here and in the queries of messages and of the backlog.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::messages::{MessageReader, step_in_room};
use crate::db::reads::ReadPositions;
use crate::limits::REPLAY_MAX_MESSAGES;
use crate::model::{MessageId, UnixMillis, UserId, Username};
use crate::room::{MEMBERS_LISTED_MAX, NotifyAbout, RoomId, RoomKind, RoomView, UNREAD_COUNTED_MAX};

/// A room that a user may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) struct Access {
    pub(in crate::db) room: RoomId,
    pub(in crate::db) kind: RoomKind,
    pub(in crate::db) is_archived: bool,
    /// The event by which the user was added; earlier events are history to them.
    pub(in crate::db) since: MessageId,
    /// The event of the room's last change.
    pub(in crate::db) changed: MessageId,
}

pub(in crate::db) fn kind_of(kind: i64) -> RoomKind {
    match kind {
        1 => RoomKind::Open,
        2 => RoomKind::Private,
        _ => RoomKind::Direct,
    }
}

pub(in crate::db) const fn kind_number(kind: RoomKind) -> i64 {
    match kind {
        RoomKind::Open => 1,
        RoomKind::Private => 2,
        RoomKind::Direct => 3,
    }
}

fn read_access(row: &Row<'_>) -> rusqlite::Result<Access> {
    Ok(Access {
        room: RoomId(row.get(0)?),
        kind: kind_of(row.get(1)?),
        is_archived: row.get(2)?,
        since: MessageId::new(row.get(3)?),
        changed: MessageId::new(row.get(4)?),
    })
}

/// By the rooms' rowid, the users' and the members' primary key.
const ACCESS: &str = "SELECT a.room_id, a.kind, a.archived_at IS NOT NULL, a.since, r.changed \
     FROM readable a JOIN rooms r ON r.id = a.room_id WHERE a.user_id = ?1 AND a.room_id = ?2";

/// The room, if this user may read it.
pub(in crate::db) fn access(connection: &Connection, user: UserId, room: RoomId) -> rusqlite::Result<Option<Access>> {
    connection.prepare_cached(ACCESS)?.query_row(params![user.0, room.0], read_access).optional()
}

/// Through all open rooms, and by `members_by_user`.
const READABLE: &str = "SELECT a.room_id, a.kind, a.archived_at IS NOT NULL, a.since, r.changed \
     FROM readable a JOIN rooms r ON r.id = a.room_id WHERE a.user_id = ?1 ORDER BY a.room_id";

/// The rooms that a user may read, by their ids.
pub(in crate::db) fn readable(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<Access>> {
    connection.prepare_cached(READABLE)?.query_map([user.0], read_access)?.collect()
}

/// By the rooms' rowid.
const ROOM: &str = "SELECT name, emoji, topic FROM rooms WHERE id = ?1";

/// A room's name, emoji and topic.
pub(in crate::db) type Labels = (Option<String>, Option<String>, String);

pub(in crate::db) fn labels(connection: &Connection, room: RoomId) -> rusqlite::Result<Labels> {
    connection.prepare_cached(ROOM)?.query_row([room.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

/// By the members' primary key, and the users' rowid.
const MEMBERS: &str = "SELECT u.name FROM members m JOIN users u ON u.id = m.user_id \
     WHERE m.room_id = ?1 AND m.is_present = 1 ORDER BY u.name LIMIT ?2";

/// By the members' primary key.
const COUNT_MEMBERS: &str = "SELECT count(*) FROM members WHERE room_id = ?1 AND is_present = 1";

/// The first members by name, and the number of all.
pub(in crate::db) fn members(connection: &Connection, room: RoomId) -> rusqlite::Result<(Vec<Username>, u32)> {
    let mut names = connection.prepare_cached(MEMBERS)?;
    let listed = i64::try_from(MEMBERS_LISTED_MAX).expect("a small number");
    let names =
        names.query_map(params![room.0, listed], |row| Ok(Username::from_database(row.get_ref(0)?.as_str()?)))?;
    Ok((names.collect::<rusqlite::Result<_>>()?, count_members(connection, room)?))
}

pub(in crate::db) fn count_members(connection: &Connection, room: RoomId) -> rusqlite::Result<u32> {
    connection.prepare_cached(COUNT_MEMBERS)?.query_row([room.0], |row| row.get(0))
}

/// By `members_by_user`.
const GONE: &str = "SELECT event, room_id FROM members WHERE user_id = ?1 AND is_present = 0 AND event > ?2";

/// The rooms from which a user was removed after an event, each with the event of the removal.
pub(in crate::db) fn gone_after(
    connection: &Connection,
    user: UserId,
    after: MessageId,
) -> rusqlite::Result<Vec<(MessageId, RoomId)>> {
    let read = |row: &Row<'_>| Ok((MessageId::new(row.get(0)?), RoomId(row.get(1)?)));
    connection.prepare_cached(GONE)?.query_map(params![user.0, after.get()], read)?.collect()
}

// --- Changing ------------------------------------------------------------------------------------------------------

/// By the unique indexes on `folded` and `pair`: nothing is inserted where an open room has the name, or the two have a
/// room already.
const INSERT_ROOM: &str = "INSERT INTO rooms (kind, name, folded, emoji, topic, created_at, changed, pair) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING RETURNING id";

/// A room to be made.
#[derive(Debug)]
pub(in crate::db) struct NewRoom<'a> {
    pub(in crate::db) kind: RoomKind,
    pub(in crate::db) name: Option<&'a str>,
    pub(in crate::db) folded: Option<String>,
    pub(in crate::db) emoji: Option<&'a str>,
    pub(in crate::db) topic: &'a str,
    pub(in crate::db) pair: Option<String>,
}

/// The new room; `None` if its name or its pair is taken.
pub(in crate::db) fn insert_room(
    connection: &Connection,
    room: &NewRoom<'_>,
    event: MessageId,
    now: UnixMillis,
) -> rusqlite::Result<Option<RoomId>> {
    let mut insert = connection.prepare_cached(INSERT_ROOM)?;
    let kind = kind_number(room.kind);
    let values = params![kind, room.name, room.folded, room.emoji, room.topic, now.0, event.get(), room.pair];
    insert.query_row(values, |row| row.get(0).map(RoomId)).optional()
}

/// By the unique index on `pair`.
const FIND_PAIR: &str = "SELECT id FROM rooms WHERE pair = ?1";

pub(in crate::db) fn find_pair(connection: &Connection, pair: &str) -> rusqlite::Result<Option<RoomId>> {
    connection.prepare_cached(FIND_PAIR)?.query_row([pair], |row| row.get(0).map(RoomId)).optional()
}

/// By the unique index on `folded`.
const HAS_NAME: &str = "SELECT 1 FROM rooms WHERE folded = ?1 AND id <> ?2";

/// Whether another open room has this folded name.
pub(in crate::db) fn name_is_taken(connection: &Connection, folded: &str, room: RoomId) -> rusqlite::Result<bool> {
    connection.prepare_cached(HAS_NAME)?.exists(params![folded, room.0])
}

/// By rowid.
const CHANGE_ROOM: &str = "UPDATE rooms SET name = coalesce(?2, name), folded = coalesce(?3, folded), \
     emoji = iif(?4, ?5, emoji), topic = coalesce(?6, topic), \
     archived_at = iif(?7 IS NULL, archived_at, iif(?7, coalesce(archived_at, ?8), NULL)), changed = ?9 WHERE id = ?1";

/// A change of a room; a field that is `None` stays as it is.
#[derive(Debug, Default)]
pub(in crate::db) struct RoomChange<'a> {
    pub(in crate::db) name: Option<&'a str>,
    pub(in crate::db) folded: Option<String>,
    /// `Some(None)` removes the emoji.
    #[expect(clippy::option_option, reason = "removing and leaving it are two things")]
    pub(in crate::db) emoji: Option<Option<&'a str>>,
    pub(in crate::db) topic: Option<&'a str>,
    pub(in crate::db) archived: Option<bool>,
}

pub(in crate::db) fn change_room(
    connection: &Connection,
    room: RoomId,
    change: &RoomChange<'_>,
    event: MessageId,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let RoomChange { name, folded, emoji, topic, archived } = change;
    connection.prepare_cached(CHANGE_ROOM)?.execute(params![
        room.0,
        name,
        folded,
        emoji.is_some(),
        emoji.flatten(),
        topic,
        archived,
        now.0,
        event.get()
    ])?;
    Ok(())
}

/// By the members' primary key.
const SET_MEMBER: &str = "INSERT INTO members (room_id, user_id, event, is_present) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET event = excluded.event, is_present = excluded.is_present";

/// By `members_by_user`, and the rooms' rowid. Of the removed rooms that a user was in, only the last are kept, one more
/// than a replay has events: a client that missed that many gets a `resync` anyway.
const FORGET_GONE: &str = "DELETE FROM members WHERE user_id = ?1 AND room_id IN (SELECT room_id FROM members \
     WHERE user_id = ?1 AND is_present = 0 AND room_id NOT IN (SELECT id FROM rooms) ORDER BY event DESC LIMIT -1 OFFSET ?2 + 1)";

/// Adds somebody to a room, or removes them.
pub(in crate::db) fn set_member(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    event: MessageId,
    is_present: bool,
) -> rusqlite::Result<()> {
    connection.prepare_cached(SET_MEMBER)?.execute(params![room.0, user.0, event.get(), is_present])?;
    if !is_present {
        connection.prepare_cached(FORGET_GONE)?.execute(params![user.0, REPLAY_MAX_MESSAGES])?;
    }
    Ok(())
}

/// By a range of the primary key, and the users' rowid.
const HAS_OTHERS: &str = "SELECT EXISTS (SELECT 1 FROM members m JOIN users u ON u.id = m.user_id \
     WHERE m.room_id = ?1 AND m.is_present AND m.user_id <> ?2 AND u.name <> '(deleted ' || u.id || ')')";

/// Whether somebody else who has an account reads a room that has members.
pub(in crate::db) fn has_others(connection: &Connection, room: RoomId, user: UserId) -> rusqlite::Result<bool> {
    connection.prepare_cached(HAS_OTHERS)?.query_row([room.0, user.0], |row| row.get(0))
}

/// By rowid.
const SET_EMPTIED: &str = "UPDATE rooms SET emptied_at = ?2, archived_at = coalesce(archived_at, ?2) WHERE id = ?1";

/// Notes that a room's last member has gone: it is archived, and removed after a while.
pub(in crate::db) fn set_emptied(connection: &Connection, room: RoomId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(SET_EMPTIED)?.execute(params![room.0, now.0])?;
    Ok(())
}

/// Through all rooms, which are few.
const EMPTIED_ROOM: &str = "SELECT id FROM rooms WHERE emptied_at <= ?1 ORDER BY id LIMIT 1";

/// By a range of `messages_by_room`.
const EMPTY_ROOM: &str = "DELETE FROM messages WHERE room_id = ?1 AND id <= ?2";

/// By `deletes_by_room`.
const FORGET_DELETES: &str =
    "DELETE FROM deletes WHERE id IN (SELECT id FROM deletes WHERE room_id = ?1 ORDER BY id LIMIT ?2)";

/// By the primary keys: in a room that can be emptied, only present and former members have rows.
const FORGET_ROOM: [&str; 3] = [
    "DELETE FROM reads WHERE room_id = ?1 AND user_id IN (SELECT user_id FROM members WHERE room_id = ?1)",
    "DELETE FROM room_notify WHERE room_id = ?1 AND user_id IN (SELECT user_id FROM members WHERE room_id = ?1)",
    "DELETE FROM rooms WHERE id = ?1",
];

/// Removes some of the content of a room that was emptied before a moment, and at last the room. Returns whether there
/// may be more.
pub(in crate::db) fn remove_emptied(connection: &Connection, before: UnixMillis, rows: u32) -> rusqlite::Result<bool> {
    let room: Option<i64> =
        connection.prepare_cached(EMPTIED_ROOM)?.query_row([before.0], |row| row.get(0)).optional()?;
    let Some(room) = room else { return Ok(false) };
    if let Some(last) = step_in_room(connection, room, rows)? {
        connection.prepare_cached(EMPTY_ROOM)?.execute(params![room, last.get()])?;
    } else if connection.prepare_cached(FORGET_DELETES)?.execute(params![room, rows])? == 0 {
        for query in FORGET_ROOM {
            connection.execute(query, [room])?;
        }
    }
    Ok(true)
}

/// Through all rooms.
const OPEN_ROOMS: &str = "SELECT id FROM rooms WHERE kind = 1";

pub(in crate::db) fn open_rooms(connection: &Connection) -> rusqlite::Result<BTreeSet<RoomId>> {
    connection.prepare(OPEN_ROOMS)?.query_map([], |row| row.get(0).map(RoomId))?.collect()
}

/// Through all open rooms.
const COUNT_OPEN: &str = "SELECT count(*) FROM rooms WHERE kind = 1";

pub(in crate::db) fn count_open(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached(COUNT_OPEN)?.query_row([], |row| row.get(0))
}

/// By `members_by_user`.
const COUNT_ROOMS_OF: &str = "SELECT count(*) FROM members WHERE user_id = ?1 AND is_present = 1";

/// The private and direct rooms that a user is in.
pub(in crate::db) fn count_rooms_of(connection: &Connection, user: UserId) -> rusqlite::Result<u32> {
    connection.prepare_cached(COUNT_ROOMS_OF)?.query_row([user.0], |row| row.get(0))
}

// --- As a reader sees it -------------------------------------------------------------------------------------------

/// A room as `reader` sees it; `None` if they may not read it.
pub(in crate::db) fn room_view(
    connection: &Connection,
    reads: &ReadPositions,
    messages: &mut MessageReader<'_>,
    reader: UserId,
    room: RoomId,
) -> rusqlite::Result<Option<RoomView>> {
    let Some(access) = access(connection, reader, room)? else { return Ok(None) };
    view_of(connection, reads, messages, reader, &access).map(Some)
}

/// All rooms of a reader, by their ids.
pub(in crate::db) fn room_views(
    connection: &Connection,
    reads: &ReadPositions,
    reader: UserId,
) -> rusqlite::Result<Vec<RoomView>> {
    let readable = readable(connection, reader)?;
    let mut messages = MessageReader::new(connection, Some(reader))?;
    readable.iter().map(|access| view_of(connection, reads, &mut messages, reader, access)).collect()
}

fn view_of(
    connection: &Connection,
    reads: &ReadPositions,
    messages: &mut MessageReader<'_>,
    reader: UserId,
    access: &Access,
) -> rusqlite::Result<RoomView> {
    let room = access.room;
    let (name, emoji, topic) = labels(connection, room)?;
    let read = read_up_to(connection, reader, room)?.max(reads.of(reader, room));
    let (unread, mentioned) = unread(connection, reader, room, read)?;
    let last = newest_in(connection, room)?.map(|id| messages.message(id)).transpose()?.flatten();
    let members = (access.kind != RoomKind::Open).then(|| members(connection, room)).transpose()?;
    let (id, kind, archived) = (room, access.kind, access.is_archived);
    let notify = notify_about(connection, reader, room)?;
    Ok(RoomView { id, kind, name, emoji, topic, members, archived, last, read, unread, mentioned, notify })
}

/// By the primary key.
const NOTIFY: &str = "SELECT about FROM room_notify WHERE user_id = ?1 AND room_id = ?2";

/// What a user wants to be notified of in a room, if they chose.
fn notify_about(connection: &Connection, user: UserId, room: RoomId) -> rusqlite::Result<Option<NotifyAbout>> {
    let mut notify = connection.prepare_cached(NOTIFY)?;
    notify.query_row(params![user.0, room.0], |row| row.get(0).map(about_of)).optional()
}

/// By the primary key.
const SET_NOTIFY: &str = "INSERT INTO room_notify (user_id, room_id, about) VALUES (?1, ?2, ?3) \
     ON CONFLICT DO UPDATE SET about = excluded.about";

pub(in crate::db) fn set_notify(
    connection: &Connection,
    user: UserId,
    room: RoomId,
    about: NotifyAbout,
) -> rusqlite::Result<()> {
    connection.prepare_cached(SET_NOTIFY)?.execute(params![user.0, room.0, about_number(about)]).map(drop)
}

pub(in crate::db) const fn about_number(about: NotifyAbout) -> i64 {
    match about {
        NotifyAbout::All => 1,
        NotifyAbout::Mentions => 2,
        NotifyAbout::Nothing => 3,
    }
}

pub(in crate::db) fn about_of(number: i64) -> NotifyAbout {
    match number {
        1 => NotifyAbout::All,
        2 => NotifyAbout::Mentions,
        _ => NotifyAbout::Nothing,
    }
}

// --- Read positions ------------------------------------------------------------------------------------------------

/// By the primary key of `reads`, the users' rowid and the members' primary key.
const READ_UP_TO: &str = "SELECT max(coalesce((SELECT id FROM reads WHERE user_id = ?1 AND room_id = ?2), 0), \
     coalesce((SELECT event FROM members WHERE room_id = ?2 AND user_id = ?1 AND is_present = 1), \
              (SELECT read_from FROM users WHERE id = ?1), 0))";

/// How far a user has read in a room, as far as it is stored.
pub(in crate::db) fn read_up_to(connection: &Connection, user: UserId, room: RoomId) -> rusqlite::Result<MessageId> {
    connection.prepare_cached(READ_UP_TO)?.query_row(params![user.0, room.0], |row| row.get(0).map(MessageId::new))
}

/// By the primary key of `reads`. A position only rises.
const SET_READ: &str = "INSERT INTO reads (user_id, room_id, id) VALUES (?1, ?2, ?3) \
     ON CONFLICT DO UPDATE SET id = max(id, excluded.id)";

pub(in crate::db) fn set_read(
    connection: &Connection,
    user: UserId,
    room: RoomId,
    id: MessageId,
) -> rusqlite::Result<()> {
    connection.prepare_cached(SET_READ)?.execute(params![user.0, room.0, id.get()])?;
    Ok(())
}

/// By `messages_by_room`, which has all columns that are needed.
const UNREAD: &str = "SELECT count(*) FROM (SELECT 1 FROM messages \
     WHERE room_id = ?1 AND id > ?2 AND user_id <> ?3 ORDER BY id LIMIT ?4)";

/// By the mentions' primary key, and the messages' rowid. A message that mentions both this user and everybody counts
/// once.
const MENTIONED: &str = "SELECT \
     (SELECT count(*) FROM (SELECT 1 FROM mentions x JOIN messages m ON m.id = x.message_id \
      WHERE x.room_id = ?1 AND x.user_id = ?3 AND x.message_id > ?2 AND m.user_id <> ?3 LIMIT ?4)) + \
     (SELECT count(*) FROM (SELECT 1 FROM mentions x JOIN messages m ON m.id = x.message_id \
      WHERE x.room_id = ?1 AND x.user_id = 0 AND x.message_id > ?2 AND m.user_id <> ?3 AND NOT EXISTS \
      (SELECT 1 FROM mentions y WHERE y.room_id = ?1 AND y.user_id = ?3 AND y.message_id = x.message_id) LIMIT ?4))";

/// The number of others' messages after `read`, and of those that mention this user; both up to [`UNREAD_COUNTED_MAX`].
pub(in crate::db) fn unread(
    connection: &Connection,
    user: UserId,
    room: RoomId,
    read: MessageId,
) -> rusqlite::Result<(u32, u32)> {
    let values = params![room.0, read.get(), user.0, UNREAD_COUNTED_MAX];
    let unread = connection.prepare_cached(UNREAD)?.query_row(values, |row| row.get(0))?;
    if unread == 0 {
        return Ok((0, 0));
    }
    let mentioned: u32 = connection.prepare_cached(MENTIONED)?.query_row(values, |row| row.get(0))?;
    Ok((unread, mentioned.min(UNREAD_COUNTED_MAX)))
}

/// By `messages_by_room`.
const NEWEST_IN: &str = "SELECT max(id) FROM messages WHERE room_id = ?1";

/// The newest message of a room.
pub(in crate::db) fn newest_in(connection: &Connection, room: RoomId) -> rusqlite::Result<Option<MessageId>> {
    connection
        .prepare_cached(NEWEST_IN)?
        .query_row([room.0], |row| Ok(row.get::<_, Option<i64>>(0)?.map(MessageId::new)))
}
