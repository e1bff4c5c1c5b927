//! The writer's queries about what happens to messages: stored, edited, deleted, reacted to.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::model::{Content, MessageId, UnixMillis, UserId, Username};
use crate::room::{Emoji, ImageId, RoomId};

/// What the writer needs to know of a message to permit a write.
#[derive(Debug)]
pub(in crate::db) struct Target {
    pub(in crate::db) room: RoomId,
    pub(in crate::db) author: UserId,
    pub(in crate::db) created_at: UnixMillis,
    pub(in crate::db) mentions: Option<String>,
}

/// By rowid.
const TARGET: &str = "SELECT room_id, user_id, created_at, mentions FROM messages WHERE id = ?1";

pub(in crate::db) fn target(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<Target>> {
    let read = |row: &Row<'_>| {
        Ok(Target {
            room: RoomId(row.get(0)?),
            author: UserId(row.get(1)?),
            created_at: UnixMillis(row.get(2)?),
            mentions: row.get(3)?,
        })
    };
    connection.prepare_cached(TARGET)?.query_row([id.get()], read).optional()
}

/// By the unique index on `message_id`.
const DELETED_FROM: &str = "SELECT room_id FROM deletes WHERE message_id = ?1";

/// The room that a message was deleted from.
pub(in crate::db) fn deleted_from(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<RoomId>> {
    connection.prepare_cached(DELETED_FROM)?.query_row([id.get()], |row| row.get(0).map(RoomId)).optional()
}

/// What a message has besides its text.
#[derive(Debug, Default)]
pub(in crate::db) struct Attached<'a> {
    pub(in crate::db) reply_to: Option<MessageId>,
    pub(in crate::db) mentions: Option<&'a str>,
    pub(in crate::db) image: Option<ImageId>,
}

/// At the end of the table.
const INSERT_ATTACHED: &str = "INSERT INTO messages \
     (id, user_id, content, created_at, room_id, reply_to, mentions, image_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// Stores a message that is more than a text in the lobby.
pub(in crate::db) fn insert_attached(
    connection: &Connection,
    id: MessageId,
    (room, author): (RoomId, UserId),
    content: &Content,
    attached: &Attached<'_>,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT_ATTACHED)?.execute(params![
        id.get(),
        author.0,
        content.as_str(),
        now.0,
        room.0,
        attached.reply_to.map(MessageId::get),
        attached.mentions,
        attached.image.map(|image| image.0),
    ])?;
    Ok(())
}

/// By the mentions' primary key.
const INSERT_MENTION: &str =
    "INSERT INTO mentions (room_id, user_id, message_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

pub(in crate::db) fn insert_mention(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    message: MessageId,
) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT_MENTION)?.execute(params![room.0, user.0, message.get()])?;
    Ok(())
}

/// By the unique index on `name`, and the keys of `readable`.
const FIND_READER: &str = "SELECT u.id, u.name FROM users u JOIN readable a ON a.user_id = u.id AND a.room_id = ?2 \
     WHERE u.name = ?1 AND u.disabled_at IS NULL";

/// Somebody who may read a room, by their name in whatever case.
pub(in crate::db) fn find_reader(
    connection: &Connection,
    name: &str,
    room: RoomId,
) -> rusqlite::Result<Option<(UserId, Username)>> {
    let read = |row: &Row<'_>| Ok((UserId(row.get(0)?), Username::from_database(row.get_ref(1)?.as_str()?)));
    connection.prepare_cached(FIND_READER)?.query_row(params![name, room.0], read).optional()
}

/// By rowid.
const EDIT_MESSAGE: &str = "UPDATE messages SET content = ?2, edit = ?3, edited_at = ?4 WHERE id = ?1";

pub(in crate::db) fn edit_message(
    connection: &Connection,
    message: MessageId,
    content: &Content,
    event: MessageId,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let values = params![message.get(), content.as_str(), event.get(), now.0];
    connection.prepare_cached(EDIT_MESSAGE)?.execute(values)?;
    Ok(())
}

/// By rowid.
const DELETE_MESSAGE: &str = "DELETE FROM messages WHERE id = ?1";

const INSERT_DELETE: &str = "INSERT INTO deletes (id, message_id, room_id, by_user) VALUES (?1, ?2, ?3, ?4)";

/// Deletes a message, and leaves a tombstone in `deletes`. Triggers delete what belongs to it.
pub(in crate::db) fn delete_message(
    connection: &Connection,
    message: MessageId,
    room: RoomId,
    event: MessageId,
    by: UserId,
) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE_MESSAGE)?.execute([message.get()])?;
    let values = params![event.get(), message.get(), room.0, by.0];
    connection.prepare_cached(INSERT_DELETE)?.execute(values)?;
    Ok(())
}

/// By the reactions' primary key.
const REACTION: &str = "SELECT id, is_on FROM reactions WHERE message_id = ?1 AND user_id = ?2 AND emoji = ?3";

/// A user's latest change of a reaction: the event, and whether the reaction is there now.
pub(in crate::db) fn reaction(
    connection: &Connection,
    message: MessageId,
    user: UserId,
    emoji: Emoji,
) -> rusqlite::Result<Option<(MessageId, bool)>> {
    let read = |row: &Row<'_>| Ok((MessageId::new(row.get(0)?), row.get(1)?));
    connection.prepare_cached(REACTION)?.query_row(params![message.get(), user.0, emoji.as_str()], read).optional()
}

/// By the reactions' primary key.
const SET_REACTION: &str = "INSERT INTO reactions (message_id, user_id, emoji, id, room_id, is_on) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET id = excluded.id, is_on = excluded.is_on";

/// By rowid.
const MARK_REACTED: &str = "UPDATE messages SET reacted = 1 WHERE id = ?1 AND reacted IS NULL";

pub(in crate::db) fn set_reaction(
    connection: &Connection,
    (message, room): (MessageId, RoomId),
    user: UserId,
    emoji: Emoji,
    event: MessageId,
    on: bool,
) -> rusqlite::Result<()> {
    connection.prepare_cached(MARK_REACTED)?.execute([message.get()])?;
    let values = params![message.get(), user.0, emoji.as_str(), event.get(), room.0, on];
    connection.prepare_cached(SET_REACTION)?.execute(values)?;
    Ok(())
}

/// By rowid.
const CLAIM_IMAGE: &str = "UPDATE images SET message_id = ?3, alt = ?4 \
     WHERE id = ?1 AND user_id = ?2 AND message_id IS NULL AND created_at > ?5";

/// Attaches a picture to a message, if its owner sent it after a moment and no message has it. Returns whether it did.
pub(in crate::db) fn claim_image(
    connection: &Connection,
    image: ImageId,
    owner: UserId,
    message: MessageId,
    alt: &str,
    sent_after: UnixMillis,
) -> rusqlite::Result<bool> {
    let values = params![image.0, owner.0, message.get(), alt, sent_after.0];
    Ok(connection.prepare_cached(CLAIM_IMAGE)?.execute(values)? == 1)
}

/// By rowid.
const ROLE: &str = "SELECT is_moderator, is_bot FROM users WHERE id = ?1";

/// Whether somebody is a moderator, and whether a bot.
pub(in crate::db) fn role(connection: &Connection, user: UserId) -> rusqlite::Result<(bool, bool)> {
    let role = connection.prepare_cached(ROLE)?.query_row([user.0], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(role.optional()?.unwrap_or_default())
}
