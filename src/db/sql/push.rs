//! The queries of Web Push: the writer changes subscriptions, the reader finds the devices to push to.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rooms::{about_number, about_of};
use crate::db::data::Sender;
use crate::db::push::{DeviceId, News, Subscription};
use crate::limits::push::PUSH_COUNTED_MAX;
use crate::model::{MessageId, UnixMillis, UserId, Username};
use crate::room::{NotifyAbout, RoomId};

/// By the primary key.
const KEEP_VAPID_KEY: &str = "INSERT INTO meta (key, value) VALUES ('vapid_key', ?1) ON CONFLICT DO NOTHING";
/// By the primary key.
const VAPID_KEY: &str = "SELECT value FROM meta WHERE key = 'vapid_key'";

/// Stores the server's key if there is none yet. Returns the one that is stored.
pub(in crate::db) fn keep_vapid_key(connection: &Connection, key: &[u8]) -> rusqlite::Result<Vec<u8>> {
    connection.execute(KEEP_VAPID_KEY, [key])?;
    connection.query_row(VAPID_KEY, [], |row| row.get(0))
}

/// By the unique index on `endpoint`.
const SUBSCRIBE: &str = "INSERT INTO push_subscriptions (endpoint, user_id, session_id, keys, about, hides_text, visited_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (endpoint) DO UPDATE SET user_id = excluded.user_id, \
     session_id = excluded.session_id, keys = excluded.keys, about = excluded.about, \
     hides_text = excluded.hides_text, visited_at = excluded.visited_at";

/// Stores a subscription. The caller has checked the session.
pub(in crate::db) fn subscribe(
    connection: &Connection,
    sender: &Sender,
    subscription: &Subscription,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let Subscription { endpoint, keys, about, hides_text } = subscription;
    let about = about_number(*about);
    let values = params![endpoint, sender.user.0, sender.session.0, keys, about, hides_text, now.0];
    connection.execute(SUBSCRIBE, values).map(drop)
}

/// By `push_by_user`.
const FORGET_SURPLUS: &str = "DELETE FROM push_subscriptions WHERE user_id = ?1 AND id NOT IN \
     (SELECT id FROM push_subscriptions WHERE user_id = ?1 ORDER BY visited_at DESC, id DESC LIMIT ?2)";

/// Leaves a user `keep` subscriptions: those visited last.
pub(in crate::db) fn forget_surplus(connection: &Connection, user: UserId, keep: u32) -> rusqlite::Result<()> {
    connection.execute(FORGET_SURPLUS, params![user.0, keep]).map(drop)
}

/// By `push_by_visit`.
const FORGET_UNVISITED: &str = "DELETE FROM push_subscriptions WHERE visited_at <= ?1";

pub(in crate::db) fn forget_unvisited(connection: &Connection, visited_after: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(FORGET_UNVISITED, [visited_after.0]).map(drop)
}

/// By the unique index on `endpoint`.
const UNSUBSCRIBE: &str = "DELETE FROM push_subscriptions WHERE endpoint = ?1 AND user_id = ?2";

pub(in crate::db) fn unsubscribe(connection: &Connection, user: UserId, endpoint: &str) -> rusqlite::Result<()> {
    connection.execute(UNSUBSCRIBE, params![endpoint, user.0]).map(drop)
}

/// By rowid.
const FORGET_DEVICE: &str = "DELETE FROM push_subscriptions WHERE id = ?1";

pub(in crate::db) fn forget_device(connection: &Connection, device: DeviceId) -> rusqlite::Result<()> {
    connection.execute(FORGET_DEVICE, [device.0]).map(drop)
}

/// The first row.
const HAS_SUBSCRIPTIONS: &str = "SELECT 1 FROM push_subscriptions LIMIT 1";

pub(in crate::db) fn has_subscriptions(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached(HAS_SUBSCRIPTIONS)?.exists([])
}

/// Through the subscriptions from a rowid on, each by the primary keys of its user, room and mentions. A message in a
/// direct room counts as a mention.
const CONCERNED: &str = "SELECT s.id FROM push_subscriptions s \
     JOIN readable r ON r.user_id = s.user_id AND r.room_id = ?1 \
     LEFT JOIN room_notify n ON n.user_id = s.user_id AND n.room_id = ?1 \
     WHERE s.id > ?4 AND s.visited_at > ?5 AND CASE coalesce(n.about, s.about) WHEN 1 THEN 1 WHEN 2 THEN \
        r.kind = 3 OR EXISTS (SELECT 1 FROM mentions WHERE room_id = ?1 AND user_id = s.user_id \
                              AND message_id > ?2 AND message_id <= ?3) \
        OR EXISTS (SELECT 1 FROM mentions WHERE room_id = ?1 AND user_id = 0 AND message_id > ?2 AND message_id <= ?3) \
     ELSE 0 END ORDER BY s.id LIMIT ?6";

/// The devices after one that `news` concern, whether or not the news have been read.
pub(in crate::db) fn concerned_devices(
    connection: &Connection,
    news: News,
    after: DeviceId,
    visited_after: UnixMillis,
    limit: u32,
) -> rusqlite::Result<Vec<DeviceId>> {
    let values = params![news.room.0, news.after.get(), news.up_to.get(), after.0, visited_after.0, limit];
    connection.prepare_cached(CONCERNED)?.query_map(values, |row| row.get(0).map(DeviceId))?.collect()
}

/// The user of a device, and how to push to it about a room.
#[derive(Debug)]
pub(in crate::db) struct Recipient {
    pub(in crate::db) user: UserId,
    pub(in crate::db) endpoint: String,
    pub(in crate::db) keys: Vec<u8>,
    pub(in crate::db) hides_text: bool,
    /// What the user wants to be notified of: in a direct room every message is a mention.
    pub(in crate::db) about: NotifyAbout,
    /// The room's name; `None` for a direct room.
    pub(in crate::db) name: Option<String>,
}

/// By the rowids of the subscription and the room, and the primary keys of the rest.
const RECIPIENT: &str = "SELECT s.user_id, s.endpoint, s.keys, s.hides_text, \
        CASE WHEN coalesce(n.about, s.about) = 2 AND r.kind = 3 THEN 1 ELSE coalesce(n.about, s.about) END, rooms.name \
     FROM push_subscriptions s JOIN readable r ON r.user_id = s.user_id AND r.room_id = ?2 \
     JOIN rooms ON rooms.id = ?2 LEFT JOIN room_notify n ON n.user_id = s.user_id AND n.room_id = ?2 WHERE s.id = ?1";

/// The recipient of pushes about a room on a device; `None` if there is no such device, or its user may not read the
/// room.
pub(in crate::db) fn recipient(
    connection: &Connection,
    device: DeviceId,
    room: RoomId,
) -> rusqlite::Result<Option<Recipient>> {
    let mut recipient = connection.prepare_cached(RECIPIENT)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Recipient {
            user: UserId(row.get(0)?),
            endpoint: row.get(1)?,
            keys: row.get(2)?,
            hides_text: row.get(3)?,
            about: about_of(row.get(4)?),
            name: row.get(5)?,
        })
    };
    recipient.query_row(params![device.0, room.0], read).optional()
}

/// By `messages_by_room`, which has all columns that are needed.
const NEW_MESSAGES: &str = "SELECT max(id), count(*) FROM (SELECT id FROM messages \
     WHERE room_id = ?1 AND id > ?2 AND id <= ?3 AND user_id <> ?4 ORDER BY id DESC LIMIT ?5)";
/// By the mentions' primary key, and the messages' rowid.
const NEW_MENTIONS: &str = "SELECT max(id), count(*) FROM (SELECT DISTINCT m.id FROM mentions n \
     JOIN messages m ON m.id = n.message_id WHERE n.room_id = ?1 AND n.user_id IN (?4, 0) \
     AND n.message_id > ?2 AND n.message_id <= ?3 AND m.user_id <> ?4 ORDER BY m.id DESC LIMIT ?5)";

/// The newest message of `news` that a user wants to be notified of, and the number of those, up to
/// [`PUSH_COUNTED_MAX`].
pub(in crate::db) fn to_tell(
    connection: &Connection,
    user: UserId,
    about: NotifyAbout,
    news: News,
) -> rusqlite::Result<Option<(MessageId, u32)>> {
    let query = match about {
        NotifyAbout::All => NEW_MESSAGES,
        NotifyAbout::Mentions => NEW_MENTIONS,
        NotifyAbout::Nothing => return Ok(None),
    };
    let values = params![news.room.0, news.after.get(), news.up_to.get(), user.0, PUSH_COUNTED_MAX];
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?.map(MessageId::new), row.get(1)?));
    let (newest, count) = connection.prepare_cached(query)?.query_row(values, read)?;
    Ok(newest.map(|newest| (newest, count)))
}

/// By the messages' rowid and the users'.
const SAID: &str = "SELECT u.name, m.content FROM messages m JOIN users u ON u.id = m.user_id WHERE m.id = ?1";

/// The author and the text of a message.
pub(in crate::db) fn said(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<(Username, String)>> {
    let mut said = connection.prepare_cached(SAID)?;
    said.query_row([id.get()], |row| Ok((Username::from_database(row.get_ref(0)?.as_str()?), row.get(1)?))).optional()
}
