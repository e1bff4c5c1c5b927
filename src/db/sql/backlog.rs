//! What a client has missed: the events after one id that are for its user, from all tables. For the reader thread.
//!
//! First only the places of events are collected, room by room and table by table, each by its own index and no more
//! than may be replayed; then they are sorted, and the first of them are read whole. All of it is one read transaction,
//! permissions included, so that nobody gets an event of a room that they may not read at that moment (promise 8).

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::messages::{MessageReader, read_names};
use super::rooms::{self, Access, room_view};
use crate::db::memo::{MissedChunk, MissedKey, Recall};
use crate::db::reads::ReadPositions;
use crate::model::{Content, MessageId, UnixMillis, UserId, Username};
use crate::room::{Delete, Edit, Emoji, Missed, PrivateRooms, React, RoomId, RoomKind};

/// The user who comes back, and what they have.
#[derive(Debug, Clone, Copy)]
pub struct BacklogQuery {
    /// The user.
    pub user: UserId,
    /// Whether the client reads all rooms that its user may read; one of the first edition reads the lobby alone.
    pub all_rooms: bool,
    /// The last event they have been given, or passed over.
    pub after: MessageId,
    /// Where this catch-up began: a message after it comes with its reactions and its latest text.
    pub origin: MessageId,
    /// The last event when it began: later edits of and reactions to such a message are events, too.
    pub seen: MessageId,
}

/// What a client has missed, or that it is too much for a replay.
#[derive(Debug)]
pub struct Backlog {
    /// The user's private and direct rooms, at the same moment.
    pub rooms: PrivateRooms,
    /// The last event at that moment.
    pub last_id: MessageId,
    /// The oldest of the missed events, ascending; `None` if there are more than may be replayed.
    pub missed: Option<Arc<Vec<Missed>>>,
    /// Where the client stands with these: events before it that are missing here are not for its user.
    pub up_to: MessageId,
}

/// The place of an event, and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    id: MessageId,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Message,
    Edit(RoomId),
    Delete,
    React(RoomId),
    Room(RoomId),
    RoomGone(RoomId),
}

/// Each part by an index of its own, `messages_by_room`, `messages_by_edit`, `deletes_by_room` and `reactions_by_room`.
const PLACES: &str = "\
    SELECT id, 0 FROM (SELECT id FROM messages WHERE room_id = ?1 AND id > ?2 ORDER BY id LIMIT ?5) \
    UNION ALL SELECT edit, 1 FROM (SELECT edit FROM messages \
        WHERE room_id = ?1 AND edit > ?2 AND (id <= ?3 OR (id <= ?2 AND edit > ?4)) ORDER BY edit LIMIT ?5) \
    UNION ALL SELECT id, 2 FROM (SELECT id FROM deletes WHERE room_id = ?1 AND id > ?2 ORDER BY id LIMIT ?5) \
    UNION ALL SELECT id, 3 FROM (SELECT id FROM reactions WHERE ?6 \
        AND room_id = ?1 AND id > ?2 AND (message_id <= ?3 OR (message_id <= ?2 AND id > ?4)) ORDER BY id LIMIT ?5)";

/// What a client has missed, the oldest first. If that is more than `at_most` events, nothing; otherwise the first
/// `max_events`, or about `max_bytes` of text. To be called in a read transaction.
pub(in crate::db) fn backlog(
    connection: &Connection,
    reads: &ReadPositions,
    recall: &mut Recall<'_>,
    query: &BacklogQuery,
    last_id: MessageId,
    at_most: u32,
    max_chunk: (u32, usize),
) -> rusqlite::Result<Backlog> {
    let readable = rooms::readable(connection, query.user)?;
    let private = |access: &&Access| access.kind != RoomKind::Open;
    let rooms: PrivateRooms = readable.iter().filter(private).map(|access| access.room).collect();
    let gone = if query.all_rooms { rooms::gone_after(connection, query.user, query.after)? } else { Vec::new() };
    let BacklogQuery { all_rooms, after, origin, seen, .. } = *query;
    let wanted = readable.into_iter().filter(|access| all_rooms || access.room == RoomId::LOBBY);
    let readable = wanted.collect();
    let key = MissedKey { after, origin, seen, last_id, at_most, all_rooms, readable, gone };
    let MissedChunk { missed, up_to } =
        recall.chunk(key, |key| chunk(connection, reads, query.user, key, max_chunk))?;
    Ok(Backlog { rooms, last_id, missed, up_to })
}

fn chunk(
    connection: &Connection,
    reads: &ReadPositions,
    user: UserId,
    key: &MissedKey,
    (max_events, max_bytes): (u32, usize),
) -> rusqlite::Result<MissedChunk> {
    let Some(places) = places(connection, key)? else { return Ok(MissedChunk { missed: None, up_to: key.after }) };
    let mut messages = MessageReader::new(connection, Some(user))?;
    let (mut missed, mut bytes, mut up_to) = (Vec::new(), 0, key.last_id.max(key.after));
    for place in &places {
        if missed.len() >= max_events as usize || bytes >= max_bytes {
            up_to = missed.last().map_or(key.after, Missed::id);
            break;
        }
        let Some(event) = read(connection, reads, &mut messages, *place, user)? else { continue };
        bytes += event.bytes();
        missed.push(event);
    }
    Ok(MissedChunk { missed: Some(Arc::new(missed)), up_to })
}

/// The places of all missed events, in order; `None` if there are more than `at_most`.
fn places(connection: &Connection, key: &MissedKey) -> rusqlite::Result<Option<Vec<Place>>> {
    let (mut places, at_most) = (Vec::new(), key.at_most as usize);
    for access in &key.readable {
        // Changes of rooms may have come beyond it.
        let left = (at_most + 1).saturating_sub(places.len());
        let after = key.after.max(access.since);
        let mut statement = connection.prepare_cached(PLACES)?;
        let values = params![
            access.room.0,
            after.get(),
            key.origin.get(),
            key.seen.get(),
            i64::try_from(left).unwrap_or(i64::MAX),
            key.all_rooms
        ];
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            let room = access.room;
            let what = [What::Message, What::Edit(room), What::Delete, What::React(room)];
            let what = what[usize::try_from(row.get::<_, i64>(1)?).unwrap_or(0)];
            places.push(Place { id: MessageId::new(row.get(0)?), what });
            if places.len() > at_most {
                return Ok(None);
            }
        }
        if key.all_rooms {
            let changed = if access.since > key.after { access.since } else { access.changed };
            if changed > key.after {
                places.push(Place { id: changed, what: What::Room(access.room) });
            }
        }
    }
    places.extend(key.gone.iter().map(|(id, room)| Place { id: *id, what: What::RoomGone(*room) }));
    if places.len() > at_most {
        return Ok(None);
    }
    places.sort_unstable();
    Ok(Some(places))
}

fn read(
    connection: &Connection,
    reads: &ReadPositions,
    messages: &mut MessageReader<'_>,
    place: Place,
    reader: UserId,
) -> rusqlite::Result<Option<Missed>> {
    Ok(match place.what {
        What::Message => messages.message(place.id)?.map(Missed::Message),
        What::Edit(room) => edit(connection, room, place.id)?.map(Missed::Edit),
        What::Delete => delete(connection, place.id)?.map(Missed::Delete),
        What::React(room) => react(connection, room, place.id)?.map(Missed::React),
        What::Room(room) => {
            room_view(connection, reads, messages, reader, room)?.map(|view| Missed::Room(place.id, Box::new(view)))
        }
        What::RoomGone(room) => Some(Missed::RoomGone(place.id, room)),
    })
}

/// By `messages_by_edit`.
const EDIT: &str = "SELECT id, content, edited_at, mentions FROM messages WHERE room_id = ?1 AND edit = ?2";

fn edit(connection: &Connection, room: RoomId, id: MessageId) -> rusqlite::Result<Option<Edit>> {
    let read = |row: &Row<'_>| {
        Ok(Edit {
            id,
            room,
            message: MessageId::new(row.get(0)?),
            content: Content::from_database(row.get_ref(1)?.as_str()?),
            edited_at: UnixMillis(row.get(2)?),
            mentions: read_names(row.get_ref(3)?.as_str_or_null()?),
        })
    };
    connection.prepare_cached(EDIT)?.query_row([room.0, id.get()], read).optional()
}

/// By rowid, and the users'.
const DELETE: &str = "SELECT d.room_id, d.message_id, u.name FROM deletes d JOIN users u ON u.id = d.by_user \
     WHERE d.id = ?1";

fn delete(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<Delete>> {
    let read = |row: &Row<'_>| {
        Ok(Delete {
            id,
            room: RoomId(row.get(0)?),
            message: MessageId::new(row.get(1)?),
            by: Username::from_database(row.get_ref(2)?.as_str()?),
        })
    };
    connection.prepare_cached(DELETE)?.query_row([id.get()], read).optional()
}

/// By `reactions_by_room`, and the users' rowid.
const REACT: &str = "SELECT r.message_id, u.name, r.emoji, r.is_on FROM reactions r \
     JOIN users u ON u.id = r.user_id WHERE r.room_id = ?1 AND r.id = ?2";

fn react(connection: &Connection, room: RoomId, id: MessageId) -> rusqlite::Result<Option<React>> {
    let mut statement = connection.prepare_cached(REACT)?;
    let mut rows = statement.query([room.0, id.get()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let Some(emoji) = Emoji::parse(row.get_ref(2)?.as_str()?) else { return Ok(None) };
    Ok(Some(React {
        id,
        room,
        message: MessageId::new(row.get(0)?),
        username: Username::from_database(row.get_ref(1)?.as_str()?),
        emoji,
        on: row.get(3)?,
    }))
}
