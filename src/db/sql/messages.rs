//! The queries about messages: the writer stores them and removes old ones, the reader reads pages of history.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use crate::db::data::{FoundPage, IdRange, MessagesBy, Page, PageQuery, Prune, Pruned};
use crate::limits::{PAGE_HELD_BYTES, SEARCH_ROWS};
use crate::model::{Content, Message, MessageId, UnixMillis, UserId, Username};
use crate::room::{Emoji, Extras, Image, ImageId, Quote, REACTION_NAMES_MAX, Reaction, RoomId, RoomKind, quoted};

use super::nonces::NonceStatements;
use super::rooms::kind_of;

/// At the end of the table.
const INSERT_MESSAGE: &str = "INSERT INTO messages (id, user_id, content, created_at) VALUES (?1, ?2, ?3, ?4)";

/// The statements that store writes, looked up once for all writes of a command.
pub(in crate::db) struct StoreMessage<'a> {
    insert_message: CachedStatement<'a>,
    pub(in crate::db) nonces: NonceStatements<'a>,
}

impl<'a> StoreMessage<'a> {
    pub(in crate::db) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        let nonces = NonceStatements::prepare(connection)?;
        Ok(Self { insert_message: connection.prepare_cached(INSERT_MESSAGE)?, nonces })
    }

    pub(in crate::db) fn insert(
        &mut self,
        id: MessageId,
        user: UserId,
        content: &Content,
        now: UnixMillis,
    ) -> rusqlite::Result<()> {
        self.insert_message.execute(params![id.get(), user.0, content.as_str(), now.0])?;
        Ok(())
    }
}

/// What most messages are: a text. The last column says whether there is more.
macro_rules! select_messages {
    ($which:literal) => {
        concat!(
            "SELECT id, user_id, content, created_at, room_id, ",
            "coalesce(edited_at, mentions, reply_to, image_id, reacted) IS NOT NULL FROM messages ",
            $which
        )
    };
}

/// Backwards by `messages_by_room`.
const NEWEST: &str = select_messages!("WHERE room_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3");

/// Forwards by `messages_by_room`.
const AFTER: &str = select_messages!("WHERE room_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3");

/// By rowid.
const MESSAGE: &str = select_messages!("WHERE id = ?1");

/// By rowid.
const EXTRAS: &str = "SELECT edited_at, mentions, reply_to, image_id, reacted FROM messages WHERE id = ?1";

/// By rowid.
const AUTHOR: &str = "SELECT name, is_bot FROM users WHERE id = ?1";

/// Reads messages as one user sees them, within one read transaction. Each author is looked up once, and what only some
/// messages have is read only of those: a page takes 15 % fewer instructions than as a join of eleven columns.
pub(in crate::db) struct MessageReader<'a> {
    connection: &'a Connection,
    /// `None`: reactions are left out.
    reader: Option<UserId>,
    author: CachedStatement<'a>,
    authors: Vec<(UserId, Username, bool)>,
}

impl<'a> MessageReader<'a> {
    pub(in crate::db) fn new(connection: &'a Connection, reader: Option<UserId>) -> rusqlite::Result<Self> {
        Ok(Self { connection, reader, author: connection.prepare_cached(AUTHOR)?, authors: Vec::new() })
    }

    /// A message. The caller checks permission.
    pub(in crate::db) fn message(&mut self, id: MessageId) -> rusqlite::Result<Option<Message>> {
        let mut statement = self.connection.prepare_cached(MESSAGE)?;
        statement.query_row([id.get()], |row| self.read(row)).optional()
    }

    /// Reads a row of [`select_messages`], and what belongs to the message.
    fn read(&mut self, row: &Row<'_>) -> rusqlite::Result<Message> {
        let (id, room) = (MessageId::new(row.get(0)?), RoomId(row.get(4)?));
        let (username, is_bot) = self.author_of(UserId(row.get(1)?))?;
        let has_extras: bool = row.get(5)?;
        Ok(Message {
            id,
            room,
            username,
            is_bot,
            content: Content::from_database(row.get_ref(2)?.as_str()?),
            created_at: UnixMillis(row.get(3)?),
            extras: has_extras.then(|| self.extras(id, room).map(Box::new)).transpose()?,
        })
    }

    /// The name of an author, and whether it is a bot. Every author has a row: that of a deleted user is kept.
    fn author_of(&mut self, user: UserId) -> rusqlite::Result<(Username, bool)> {
        if let Some((_, name, is_bot)) = self.authors.iter().find(|(known, ..)| *known == user) {
            return Ok((name.clone(), *is_bot));
        }
        let read = |row: &Row<'_>| Ok((Username::from_database(row.get_ref(0)?.as_str()?), row.get(1)?));
        let (name, is_bot): (Username, bool) = self.author.query_row([user.0], read)?;
        self.authors.push((user, name.clone(), is_bot));
        Ok((name, is_bot))
    }

    fn extras(&self, id: MessageId, room: RoomId) -> rusqlite::Result<Extras> {
        let connection = self.connection;
        connection.prepare_cached(EXTRAS)?.query_row([id.get()], |row| {
            let edited_at: Option<i64> = row.get(0)?;
            let (reply_to, image, reacted): (Option<i64>, Option<i64>, Option<i64>) =
                (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Extras {
                edited_at: edited_at.map(UnixMillis),
                reply_to: reply_to.map(|id| quote(connection, room, MessageId::new(id))).transpose()?,
                mentions: read_names(row.get_ref(1)?.as_str_or_null()?),
                image: image.map(|id| image_of(connection, ImageId(id))).transpose()?.flatten(),
                reactions: match (reacted, self.reader) {
                    (Some(_), Some(reader)) => reactions(connection, id, reader)?,
                    _ => Vec::new(),
                },
            })
        })
    }
}

/// The names of `messages.mentions`.
pub(in crate::db) fn read_names(names: Option<&str>) -> Vec<Username> {
    names.map(|names| names.split(' ').map(Username::from_database).collect()).unwrap_or_default()
}

/// By rowid.
const QUOTE: &str = "SELECT u.name, m.content FROM messages m JOIN users u ON u.id = m.user_id \
     WHERE m.id = ?1 AND m.room_id = ?2";

/// What a message that is answered shows; nothing if it is gone, or not in the room of the one that answers.
pub(in crate::db) fn quote(connection: &Connection, room: RoomId, id: MessageId) -> rusqlite::Result<Quote> {
    let read =
        |row: &Row<'_>| Ok((Username::from_database(row.get_ref(0)?.as_str()?), quoted(row.get_ref(1)?.as_str()?)));
    let shown = connection.prepare_cached(QUOTE)?.query_row([id.get(), room.0], read).optional()?;
    Ok(Quote { id, shown })
}

/// By rowid, without the bytes.
const IMAGE: &str = "SELECT subtype, width, height, alt FROM images WHERE id = ?1";

pub(in crate::db) fn image_of(connection: &Connection, id: ImageId) -> rusqlite::Result<Option<Image>> {
    let read = |row: &Row<'_>| {
        Ok(Image { id, subtype: row.get(0)?, width: row.get(1)?, height: row.get(2)?, alt: row.get(3)? })
    };
    connection.prepare_cached(IMAGE)?.query_row([id.0], read).optional()
}

/// By the reactions' primary key, and the users' rowid.
const REACTIONS_TO: &str = "SELECT r.emoji, u.name, r.user_id = ?2 FROM reactions r JOIN users u ON u.id = r.user_id \
     WHERE r.message_id = ?1 AND r.is_on = 1 ORDER BY r.id";

/// The reactions to a message, in the order in which the first of each came.
fn reactions(connection: &Connection, id: MessageId, reader: UserId) -> rusqlite::Result<Vec<Reaction>> {
    let mut found: Vec<Reaction> = Vec::new();
    let mut statement = connection.prepare_cached(REACTIONS_TO)?;
    let mut rows = statement.query(params![id.get(), reader.0])?;
    while let Some(row) = rows.next()? {
        let Some(emoji) = Emoji::parse(row.get_ref(0)?.as_str()?) else { continue };
        let at = found.iter().position(|reaction| reaction.emoji == emoji).unwrap_or_else(|| {
            found.push(Reaction { emoji, count: 0, mine: false, names: Vec::new() });
            found.len() - 1
        });
        let reaction = &mut found[at];
        reaction.count += 1;
        reaction.mine |= row.get::<_, bool>(2)?;
        if reaction.names.len() < REACTION_NAMES_MAX {
            reaction.names.push(Username::from_database(row.get_ref(1)?.as_str()?));
        }
    }
    Ok(found)
}

/// Backwards from a rowid.
const SCAN: &str = "SELECT id, room_id, user_id, content FROM messages WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

/// Backwards by `messages_by_room`.
const SCAN_ROOM: &str = "SELECT id, room_id, user_id, content FROM messages WHERE room_id = ?3 AND id < ?1 \
     ORDER BY id DESC LIMIT ?2";

/// Passes messages to `each`, newest first from before `before`, until it returns false or [`SEARCH_ROWS`] were passed.
/// Returns where to continue; `None` at the end.
pub(in crate::db) fn scan_back(
    connection: &Connection,
    room: Option<RoomId>,
    before: MessageId,
    mut each: impl FnMut(MessageId, RoomId, UserId, &str) -> rusqlite::Result<bool>,
) -> rusqlite::Result<Option<MessageId>> {
    let mut statement = connection.prepare(if room.is_some() { SCAN_ROOM } else { SCAN })?;
    let mut rows = match room {
        Some(room) => statement.query(params![before.get(), SEARCH_ROWS, room.0])?,
        None => statement.query(params![before.get(), SEARCH_ROWS])?,
    };
    let (mut looked_at, mut last) = (0, before);
    while let Some(row) = rows.next()? {
        (last, looked_at) = (MessageId::new(row.get(0)?), looked_at + 1);
        if !each(last, RoomId(row.get(1)?), UserId(row.get(2)?), row.get_ref(3)?.as_str()?)? {
            return Ok(Some(last));
        }
    }
    Ok((looked_at == SEARCH_ROWS).then_some(last))
}

/// Forwards from a rowid, to another.
const BY: &str = select_messages!("WHERE id > ?1 AND id <= ?2 AND user_id = ?3 ORDER BY id");

/// A user's messages among the next `rows` messages after `after`.
pub(in crate::db) fn messages_by(
    connection: &Connection,
    user: UserId,
    after: MessageId,
    rows: u32,
) -> rusqlite::Result<MessagesBy> {
    let Some(last) = step(connection, after, rows)? else { return Ok(MessagesBy { messages: Vec::new(), next: None }) };
    let mut reader = MessageReader::new(connection, None)?;
    let mut statement = connection.prepare_cached(BY)?;
    let messages = statement.query_map(params![after.get(), last.get(), user.0], |row| reader.read(row))?;
    Ok(MessagesBy { messages: messages.collect::<rusqlite::Result<_>>()?, next: Some(last) })
}

/// A page of a room's history, ascending; and whether there is more beyond it in the direction of reading.
///
/// Above about `max_bytes` of text it is a range of ids, whose messages are [read in pieces](messages_in).
pub(in crate::db) fn page(
    connection: &Connection,
    reader: UserId,
    room: RoomId,
    page: PageQuery,
    limit: u32,
    max_bytes: usize,
) -> rusqlite::Result<FoundPage> {
    if let PageQuery::Around(id) = page {
        return around(connection, reader, room, id, limit);
    }
    let (query, from) = match page {
        PageQuery::Newest | PageQuery::Around(_) => (NEWEST, i64::MAX),
        PageQuery::Before(id) => (NEWEST, id.get()),
        PageQuery::After(id) => (AFTER, id.get()),
    };
    let wanted = limit as usize;
    let mut reader = MessageReader::new(connection, Some(reader))?;
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(params![room.0, from, limit + 1])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if messages.len() == wanted {
            return Ok(FoundPage::new(ascending(page, messages), true, None));
        }
        let message = reader.read(row)?;
        bytes += message.bytes();
        messages.push(message);
        if bytes > max_bytes {
            return range(connection, room, page, messages[0].id, limit);
        }
    }
    Ok(FoundPage::new(ascending(page, messages), false, None))
}

fn ascending(page: PageQuery, mut messages: Vec<Message>) -> Page {
    if !matches!(page, PageQuery::After(_)) {
        messages.reverse();
    }
    Page::Messages(messages)
}

/// A page around `id`, whether or not that message exists: half of `limit` before it, the rest from it on.
fn around(
    connection: &Connection,
    reader: UserId,
    room: RoomId,
    id: MessageId,
    limit: u32,
) -> rusqlite::Result<FoundPage> {
    let (older, newer) = (limit / 2, limit - limit / 2);
    let ids = |query, from: MessageId, limit| ids_from(connection, query, room, from, limit);
    let before = ids(IDS_BEFORE, id, older + 1)?;
    let after = ids(IDS_FROM, id, newer + 1)?;
    let (has_more, has_newer) = (before.len() > older as usize, Some(after.len() > newer as usize));
    let before = &before[..before.len().min(older as usize)];
    let after = &after[..after.len().min(newer as usize)];
    let (Some(first), Some(last)) = (before.last().or(after.first()), after.last().or(before.first())) else {
        return Ok(FoundPage::new(Page::Messages(Vec::new()), has_more, has_newer));
    };
    let range = IdRange { first: *first, last: *last };
    let messages = messages_in(connection, reader, room, range, limit, PAGE_HELD_BYTES)?;
    let is_whole = messages.last().is_some_and(|message| message.id == range.last);
    let page = if is_whole { Page::Messages(messages) } else { Page::Range(range) };
    Ok(FoundPage::new(page, has_more, has_newer))
}

/// Backwards by `messages_by_room`.
const IDS_BEFORE: &str = "SELECT id FROM messages WHERE room_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";

/// Forwards by `messages_by_room`.
const IDS_FROM: &str = "SELECT id FROM messages WHERE room_id = ?1 AND id >= ?2 ORDER BY id LIMIT ?3";

fn ids_from(
    connection: &Connection,
    query: &str,
    room: RoomId,
    from: MessageId,
    limit: u32,
) -> rusqlite::Result<Vec<MessageId>> {
    let mut statement = connection.prepare_cached(query)?;
    statement.query_map(params![room.0, from.get(), limit], |row| row.get(0).map(MessageId::new))?.collect()
}

/// Backwards by `messages_by_room`, over ids alone.
const FIRST_OF: &str = "SELECT first, EXISTS (SELECT 1 FROM messages WHERE room_id = ?1 AND id < first) FROM \
     (SELECT min(id) AS first FROM \
     (SELECT id FROM messages WHERE room_id = ?1 AND id <= ?2 ORDER BY id DESC LIMIT ?3))";

/// Forwards by `messages_by_room`, over ids alone.
const LAST_OF: &str = "SELECT last, EXISTS (SELECT 1 FROM messages WHERE room_id = ?1 AND id > last) FROM \
     (SELECT max(id) AS last FROM \
     (SELECT id FROM messages WHERE room_id = ?1 AND id >= ?2 ORDER BY id LIMIT ?3))";

/// The range of ids of a page that begins, in the direction of reading, with `nearest`; and whether there is more
/// beyond it.
fn range(
    connection: &Connection,
    room: RoomId,
    page: PageQuery,
    nearest: MessageId,
    limit: u32,
) -> rusqlite::Result<FoundPage> {
    let forwards = matches!(page, PageQuery::After(_));
    let mut statement = connection.prepare_cached(if forwards { LAST_OF } else { FIRST_OF })?;
    let read = |row: &Row<'_>| Ok((MessageId::new(row.get(0)?), row.get(1)?));
    let (farthest, has_more) = statement.query_row(params![room.0, nearest.get(), limit], read)?;
    let (first, last) = if forwards { (nearest, farthest) } else { (farthest, nearest) };
    Ok(FoundPage::new(Page::Range(IdRange { first, last }), has_more, None))
}

/// The first messages of a range in a room, until `max_messages` or about `max_bytes` of text.
pub(in crate::db) fn messages_in(
    connection: &Connection,
    reader: UserId,
    room: RoomId,
    IdRange { first, last }: IdRange,
    max_messages: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Message>> {
    let mut reader = MessageReader::new(connection, Some(reader))?;
    let mut statement = connection.prepare_cached(AFTER)?;
    let mut rows = statement.query(params![room.0, first.get().saturating_sub(1), max_messages])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let message = reader.read(row)?;
        if message.id > last {
            break;
        }
        bytes += message.bytes();
        messages.push(message);
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(messages)
}

// --- Removing ------------------------------------------------------------------------------------------------------

/// Forwards from a rowid, and by the pictures' rowid. Neither length reads the text or the picture.
const STEP: &str = "SELECT id, octet_length(content) + coalesce((SELECT length(bytes) FROM images WHERE id = image_id), 0) \
     FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2";

/// Bytes for each row of a step: removed data is overwritten on the disk, and a slow disk takes a second for a few MB.
const STEP_ROW_BYTES: i64 = 512;

/// The last message of a step that begins after `after`: of `rows` messages, or fewer if they are long; `None` if none
/// are left.
pub(in crate::db) fn step(connection: &Connection, after: MessageId, rows: u32) -> rusqlite::Result<Option<MessageId>> {
    end_of_step(connection, STEP, after.get(), rows)
}

/// Forwards from the beginning of a room, by `messages_by_room`, and by the pictures' rowid.
const STEP_IN_ROOM: &str = "SELECT id, octet_length(content) \
     + coalesce((SELECT length(bytes) FROM images WHERE id = image_id), 0) \
     FROM messages WHERE room_id = ?1 ORDER BY id LIMIT ?2";

/// The last message of a step from the beginning of a room.
pub(super) fn step_in_room(connection: &Connection, room: i64, rows: u32) -> rusqlite::Result<Option<MessageId>> {
    end_of_step(connection, STEP_IN_ROOM, room, rows)
}

fn end_of_step(connection: &Connection, query: &str, from: i64, rows: u32) -> rusqlite::Result<Option<MessageId>> {
    let mut step = connection.prepare_cached(query)?;
    let mut found = step.query(params![from, rows])?;
    let (mut last, mut bytes) = (None, 0);
    while bytes < STEP_ROW_BYTES * i64::from(rows)
        && let Some(row) = found.next()?
    {
        last = Some(MessageId::new(row.get(0)?));
        bytes += row.get::<_, i64>(1)?;
    }
    Ok(last)
}

/// Through a range of rowids, and by the rooms' rowid.
const MESSAGES_OF: &str = "SELECT m.id, m.room_id, r.kind FROM messages m JOIN rooms r ON r.id = m.room_id \
     WHERE m.id > ?1 AND m.id <= ?2 AND m.user_id = ?3 ORDER BY m.id";

/// A user's messages after `after` up to `last`, with their rooms.
pub(in crate::db) fn messages_of(
    connection: &Connection,
    user: UserId,
    after: MessageId,
    last: MessageId,
) -> rusqlite::Result<Vec<(MessageId, RoomId, RoomKind)>> {
    let read = |row: &Row<'_>| Ok((MessageId::new(row.get(0)?), RoomId(row.get(1)?), kind_of(row.get(2)?)));
    connection.prepare_cached(MESSAGES_OF)?.query_map(params![after.get(), last.get(), user.0], read)?.collect()
}

/// By a range of rowids. Messages stored while the clock was ahead stay until that time has passed.
const PRUNE: &str = "DELETE FROM messages WHERE id > ?1 AND id <= ?2 AND (id <= ?3 OR created_at < ?4)";

/// Removes old messages from among the next `rows` messages after `after`.
pub(in crate::db) fn prune_messages(
    connection: &Connection,
    Prune { after, until, before, rows }: Prune,
) -> rusqlite::Result<Pruned> {
    let Some(last) = step(connection, after, rows)? else { return Ok(Pruned { removed: 0, next: None }) };
    let mut prune = connection.prepare_cached(PRUNE)?;
    let removed = prune.execute(params![after.get(), last.get(), until.get(), before.0])?;
    Ok(Pruned { removed, next: Some(last) })
}
