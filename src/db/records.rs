//! The rows of a database as exports and imports have them, and the rules for each.
//!
//! A file is outside input like anything else: unless every name, text, id and time in it is what the contract allows,
//! it is refused. [`Record::check`] has the rules for one row, and is applied to each row that is imported, and to all
//! rows of a database that is restored or checked; [`audit`] adds the rules that span rows. A column that is added to
//! the schema gets its rule here.
//!
//! Sessions, invitations, push subscriptions and the server's own keys belong to the server and not to the chat: they
//! are never exported, but audited like the rest.

use std::fmt::Display;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
use crate::limits::IMAGE_MAX_BYTES;
use crate::model::{Content, Epoch, UserId, Username};
use crate::password;
use crate::picture::Picture;
use crate::room::{AltText, Emoji, RoomEmoji, RoomName, Topic};

/// Bytes of the longest record as JSON: a picture, two digits a byte, or the longest text, all of it escaped; and the
/// rest of the record.
pub const RECORD_MAX_BYTES: u64 = 2 * IMAGE_MAX_BYTES as u64 + 64 * 1024;

/// The largest id in a file from outside: half of those that JSON readers represent exactly, so that the other half is
/// left for new events.
pub const RECORD_ID_MAX: i64 = 1 << 52;

/// The last moment of the year 9999. Most programs, among them browsers, cannot show later dates.
pub const RECORD_TIME_MAX: i64 = 253_402_300_799_999;

/// A row of the table that its type stands for.
pub trait Record: Sized {
    /// Reads all of them, in an order in which they can be inserted.
    #[doc(hidden)]
    const SELECT: &str;

    /// Inserts one.
    #[doc(hidden)]
    const INSERT: &str;

    /// Takes a row of [`SELECT`](Self::SELECT).
    #[doc(hidden)]
    fn read(row: &Row<'_>) -> rusqlite::Result<Self>;

    /// Stores it.
    #[doc(hidden)]
    fn insert(&self, connection: &Connection) -> rusqlite::Result<()>;

    /// The largest id of an event in it.
    #[doc(hidden)]
    fn event(&self) -> i64;

    /// Checks whether it can be a row of a sound database.
    ///
    /// # Errors A text that says what is wrong with it.
    fn check(&self) -> Result<(), String>;
}

/// Declares records: each field is a column, in the order of both statements.
macro_rules! records {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* }
        select $select:literal insert $insert:literal event $event:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "schema.sql says what each column is")]
        pub struct $name { $($(#[$about])* pub $field: $kind,)* }

        impl Record for $name {
            const SELECT: &str = $select;
            const INSERT: &str = $insert;

            fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
                let mut columns = 0..;
                let mut next = || columns.next().expect("columns are counted without end");
                Ok(Self { $($field: row.get::<usize, _>(next())?,)* })
            }

            fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
                connection.prepare_cached(Self::INSERT)?.execute(params![$(self.$field,)*]).map(drop)
            }

            fn event(&self) -> i64 {
                let event: fn(&Self) -> i64 = $event;
                event(self)
            }

            fn check(&self) -> Result<(), String> {
                self.problem().map_or(Ok(()), |problem| Err(problem))
            }
        }
    )*};
}

records! {
    /// A user.
    UserRecord {
        id: i64,
        username: String,
        password_hash: String,
        created_at: i64,
        #[serde(default, skip_serializing_if = "absent")]
        disabled_at: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        is_bot: bool,
        #[serde(default, skip_serializing_if = "absent")]
        is_moderator: bool,
        #[serde(default, skip_serializing_if = "absent")]
        read_from: i64,
        #[serde(default, skip_serializing_if = "absent")]
        last_seen: Option<i64>,
    }
    select "SELECT id, name, password_hash, created_at, disabled_at, is_bot, is_moderator, read_from, last_seen \
            FROM users ORDER BY id"
    insert "INSERT INTO users (id, name, password_hash, created_at, disabled_at, is_bot, is_moderator, read_from, last_seen) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    event |_| 0;

    /// A room. The lobby exists before the import.
    RoomRecord {
        id: i64,
        kind: i64,
        #[serde(default, skip_serializing_if = "absent")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "absent")]
        folded: Option<String>,
        #[serde(default, skip_serializing_if = "absent")]
        emoji: Option<String>,
        #[serde(default, skip_serializing_if = "absent")]
        topic: String,
        #[serde(default, skip_serializing_if = "absent")]
        archived_at: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        emptied_at: Option<i64>,
        created_at: i64,
        changed: i64,
        #[serde(default, skip_serializing_if = "absent")]
        pair: Option<String>,
    }
    select "SELECT id, kind, name, folded, emoji, topic, archived_at, emptied_at, created_at, changed, pair \
            FROM rooms ORDER BY id"
    insert "INSERT INTO rooms (id, kind, name, folded, emoji, topic, archived_at, emptied_at, created_at, changed, pair) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    event |room| room.changed;

    /// Somebody who is, or was, in a private or direct room.
    MemberRecord { room: i64, user: i64, event: i64, is_present: bool, }
    select "SELECT room_id, user_id, event, is_present FROM members"
    insert "INSERT INTO members (room_id, user_id, event, is_present) VALUES (?1, ?2, ?3, ?4)"
    event |member| member.event;

    /// A message. `username` is for people: the author is `user`.
    MessageRecord {
        id: i64,
        user: i64,
        username: String,
        content: String,
        created_at: i64,
        #[serde(default = "lobby", skip_serializing_if = "is_lobby")]
        room: i64,
        #[serde(default, skip_serializing_if = "absent")]
        edit: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        edited_at: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        reply_to: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        mentions: Option<String>,
        #[serde(default, skip_serializing_if = "absent")]
        image: Option<i64>,
        #[serde(default, skip_serializing_if = "absent")]
        reacted: Option<i64>,
    }
    select "SELECT m.id, m.user_id, u.name, m.content, m.created_at, m.room_id, m.edit, m.edited_at, m.reply_to, m.mentions, \
            m.image_id, m.reacted FROM messages m JOIN users u ON u.id = m.user_id ORDER BY m.id"
    insert "INSERT INTO messages \
            (id, user_id, content, created_at, room_id, edit, edited_at, reply_to, mentions, image_id, reacted) \
            SELECT ?1, ?2, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 WHERE ?3 IS NOT NULL"
    event |message| message.id.max(message.edit.unwrap_or_default());

    /// The tombstone of a deleted message.
    DeleteRecord { id: i64, message: i64, room: i64, by: i64, }
    select "SELECT id, message_id, room_id, by_user FROM deletes ORDER BY id"
    insert "INSERT INTO deletes (id, message_id, room_id, by_user) VALUES (?1, ?2, ?3, ?4)"
    event |delete| delete.id;

    /// A reaction to a message, or one that was taken back.
    ReactionRecord { message: i64, user: i64, emoji: String, id: i64, room: i64, is_on: bool, }
    select "SELECT message_id, user_id, emoji, id, room_id, is_on FROM reactions"
    insert "INSERT INTO reactions (message_id, user_id, emoji, id, room_id, is_on) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    event |reaction| reaction.id;

    /// A user whom a message mentions; user 0 is everybody.
    MentionRecord { room: i64, user: i64, message: i64, }
    select "SELECT room_id, user_id, message_id FROM mentions"
    insert "INSERT INTO mentions (room_id, user_id, message_id) VALUES (?1, ?2, ?3)"
    event |_| 0;

    /// How far somebody has read.
    ReadRecord { user: i64, room: i64, id: i64, }
    select "SELECT user_id, room_id, id FROM reads"
    insert "INSERT INTO reads (user_id, room_id, id) VALUES (?1, ?2, ?3)"
    event |_| 0;

    /// What a user wants to be notified of in a room.
    NotifyRecord { user: i64, room: i64, about: i64, }
    select "SELECT user_id, room_id, about FROM room_notify"
    insert "INSERT INTO room_notify (user_id, room_id, about) VALUES (?1, ?2, ?3)"
    event |_| 0;

    /// A picture that a message shows. Its bytes are written in hexadecimal digits.
    ImageRecord {
        id: i64,
        user: i64,
        message: i64,
        subtype: String,
        width: u32,
        height: u32,
        #[serde(default, skip_serializing_if = "absent")]
        alt: String,
        created_at: i64,
        #[serde(with = "hex")]
        bytes: Vec<u8>,
    }
    select "SELECT id, user_id, message_id, subtype, width, height, alt, created_at, bytes \
            FROM images WHERE message_id IS NOT NULL ORDER BY id"
    insert "INSERT INTO images (id, user_id, message_id, subtype, width, height, alt, created_at, bytes) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    event |_| 0;
}

fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn lobby() -> i64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_lobby(room: &i64) -> bool {
    *room == lobby()
}

/// Bytes as hexadecimal digits.
mod hex {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(digits, "{byte:02x}").expect("writing to a string cannot fail");
        }
        serializer.serialize_str(&digits)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes = digits.as_bytes().chunks(2).map(|pair| byte(pair).filter(|_| pair.len() == 2));
        bytes.collect::<Option<_>>().ok_or_else(|| D::Error::custom("invalid hexadecimal digits"))
    }
}

// --- Rules for one row ---------------------------------------------------------------------------------------------

fn bad_id(ids: impl IntoIterator<Item = i64>) -> Option<String> {
    let bad = ids.into_iter().find(|id| !(1..=RECORD_ID_MAX).contains(id))?;
    Some(format!("invalid id {bad}: ids are from 1 to {RECORD_ID_MAX}"))
}

/// A position is an id, or zero before all of them.
fn bad_position(position: i64) -> Option<String> {
    if position == 0 { None } else { bad_id([position]) }
}

fn bad_time(times: impl IntoIterator<Item = i64>) -> Option<String> {
    let bad = times.into_iter().find(|time| !(0..=RECORD_TIME_MAX).contains(time))?;
    Some(format!("invalid time {bad}: times are Unix milliseconds, up to the year 9999"))
}

fn bad(value: &str, what: impl Display, is_good: bool) -> Option<String> {
    // The beginning of a long value is enough.
    let shown: String = value.chars().take(40).collect();
    (!is_good).then(|| format!("invalid {what} {shown:?}"))
}

impl UserRecord {
    fn problem(&self) -> Option<String> {
        let name = &self.username;
        let is_name = Username::parse(name).is_some() || *name == Username::deleted(UserId(self.id)).as_str();
        let is_hash = self.password_hash.len() <= 512 && self.password_hash.bytes().all(|byte| byte.is_ascii_graphic());
        bad_id([self.id])
            .or_else(|| bad(name, "username", is_name))
            .or_else(|| bad("", "password hash", is_hash))
            .or_else(|| {
                let takes_more = password::is_excessive(&self.password_hash);
                takes_more.then(|| {
                    format!("verifying the password of {name} would take more memory or time than the server allows")
                })
            })
            .or_else(|| bad_time([self.created_at].into_iter().chain(self.disabled_at).chain(self.last_seen)))
            .or_else(|| bad_position(self.read_from))
    }
}

impl RoomRecord {
    fn problem(&self) -> Option<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (name, emoji) = (text(&self.name), text(&self.emoji));
        let is_name = match &self.name {
            Some(name) => self.kind != 3 && RoomName::parse(name).is_some_and(|parsed| parsed.as_str() == name),
            None => self.kind == 3,
        };
        let is_folded = match (&self.folded, self.kind) {
            (Some(folded), 1) => *folded == crate::room::fold(&name),
            (folded, _) => folded.is_none(),
        };
        let is_pair = match (&self.pair, self.kind) {
            (Some(pair), 3) => is_pair(pair),
            (pair, kind) => pair.is_none() && kind != 3,
        };
        bad_id([self.id])
            .or_else(|| bad("", "kind of room", (1..=3).contains(&self.kind) && (self.id != 1 || self.kind == 1)))
            .or_else(|| bad(&name, "name of a room", is_name && is_folded))
            .or_else(|| bad(&emoji, "emoji of a room", emoji.is_empty() || RoomEmoji::parse(&emoji).is_some()))
            .or_else(|| bad(&self.topic, "topic", Topic::parse(&self.topic).is_some()))
            .or_else(|| bad(&text(&self.pair), "pair", is_pair))
            .or_else(|| bad_time([self.created_at].into_iter().chain(self.archived_at).chain(self.emptied_at)))
            .or_else(|| bad_position(self.changed))
    }
}

/// Two ids, the smaller first.
fn is_pair(pair: &str) -> bool {
    let ids =
        pair.split_once('-').and_then(|(one, other)| Some((one.parse::<i64>().ok()?, other.parse::<i64>().ok()?)));
    ids.is_some_and(|(one, other)| 1 <= one && one <= other && format!("{one}-{other}") == pair)
}

impl MemberRecord {
    fn problem(&self) -> Option<String> {
        bad_id([self.room, self.user]).or_else(|| bad_position(self.event))
    }
}

impl MessageRecord {
    fn problem(&self) -> Option<String> {
        let ids = [self.id, self.user, self.room].into_iter().chain(self.edit).chain(self.reply_to).chain(self.image);
        bad_id(ids)
            .or_else(|| bad_time([self.created_at].into_iter().chain(self.edited_at)))
            .or_else(|| match Content::parse(&self.content) {
                // The message was a picture alone, which may have been removed before it.
                Err(_) if self.content.is_empty() => None,
                Err(error) => Some(error.to_string()),
                Ok(content) => bad(&self.content, "text", content.as_str() == self.content),
            })
            .or_else(|| {
                let mentions = self.mentions.as_deref().unwrap_or_default();
                bad(
                    mentions,
                    "mention",
                    mentions.split(' ').all(|name| name.is_empty() || Username::parse(name).is_some()),
                )
            })
            .or_else(|| bad("", "reacted", self.reacted.is_none_or(|reacted| reacted == 1)))
    }
}

impl DeleteRecord {
    fn problem(&self) -> Option<String> {
        bad_id([self.id, self.message, self.room, self.by])
    }
}

impl ReactionRecord {
    fn problem(&self) -> Option<String> {
        let is_known = Emoji::parse(&self.emoji).is_some();
        bad_id([self.message, self.user, self.id, self.room]).or_else(|| bad(&self.emoji, "reaction", is_known))
    }
}

impl MentionRecord {
    fn problem(&self) -> Option<String> {
        bad_id([self.room, self.message]).or_else(|| bad_position(self.user))
    }
}

impl ReadRecord {
    fn problem(&self) -> Option<String> {
        bad_id([self.user, self.room]).or_else(|| bad_position(self.id))
    }
}

impl NotifyRecord {
    fn problem(&self) -> Option<String> {
        bad_id([self.user, self.room]).or_else(|| bad("", "notification setting", (1..=3).contains(&self.about)))
    }
}

impl ImageRecord {
    fn problem(&self) -> Option<String> {
        let is_picture = self.bytes.len() <= IMAGE_MAX_BYTES
            && Picture::parse(&self.bytes).is_ok_and(|picture| {
                (picture.subtype, picture.width, picture.height) == (&*self.subtype, self.width, self.height)
            });
        bad_id([self.id, self.user, self.message])
            .or_else(|| bad_time([self.created_at]))
            .or_else(|| bad(&self.alt, "description of a picture", AltText::parse(&self.alt).is_some()))
            .or_else(|| bad("", "picture", is_picture))
    }
}

// --- Rules that span rows ------------------------------------------------------------------------------------------

/// Each finds a row that cannot be; ?1 is the largest id, ?2 the last time there is.
const RULES: [(&str, &str); 13] = [
    ("invalid sqlite_sequence row", "SELECT 1 FROM sqlite_sequence WHERE seq NOT BETWEEN 0 AND ?1"),
    (
        "invalid high_water, reserved or gap",
        "SELECT 1 FROM meta WHERE key IN ('high_water', 'reserved', 'gap', 'gap_ends') \
         AND (typeof(value) <> 'integer' OR value NOT BETWEEN 0 AND ?1)",
    ),
    ("there is no lobby", "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM rooms WHERE id = 1 AND kind = 1)"),
    (
        "a message is in a room that does not exist",
        "SELECT 1 FROM messages WHERE room_id NOT IN (SELECT id FROM rooms)",
    ),
    (
        "a reaction is in another room than its message",
        "SELECT 1 FROM reactions r JOIN messages m ON m.id = r.message_id WHERE m.room_id <> r.room_id",
    ),
    (
        "a mention is in another room than its message",
        "SELECT 1 FROM mentions n JOIN messages m ON m.id = n.message_id WHERE m.room_id <> n.room_id",
    ),
    (
        "a picture and its message disagree",
        "SELECT 1 FROM images i LEFT JOIN messages m ON m.id = i.message_id WHERE i.message_id IS NOT NULL AND m.image_id IS NOT i.id",
    ),
    (
        "a message replies to one of another room",
        "SELECT 1 FROM messages m JOIN messages q ON q.id = m.reply_to WHERE q.room_id <> m.room_id",
    ),
    ("a message was deleted by nobody", "SELECT 1 FROM deletes WHERE by_user NOT IN (SELECT id FROM users)"),
    (
        "invalid session row",
        "SELECT 1 FROM sessions WHERE id NOT BETWEEN 1 AND ?1 OR created_at NOT BETWEEN 0 AND ?2 OR last_used_at NOT BETWEEN 0 AND ?2 \
         OR length(digest) <> 32 OR length(client) > 64 OR client GLOB '*[^ -~]*'",
    ),
    (
        "invalid invitation row",
        "SELECT 1 FROM invites WHERE id NOT BETWEEN 1 AND ?1 OR created_at NOT BETWEEN 0 AND ?2 OR expires_at NOT BETWEEN 0 AND ?2 \
         OR length(digest) <> 32 OR uses NOT BETWEEN 0 AND 4294967295 OR uses_left NOT BETWEEN 0 AND uses",
    ),
    (
        "invalid nonce row",
        "SELECT 1 FROM (SELECT day, nonce, message_id FROM nonces UNION ALL SELECT day, nonce, message_id FROM recent_nonces) WHERE message_id NOT BETWEEN 1 AND ?1 OR day NOT BETWEEN 0 AND ?2 / 86400000 OR length(nonce) > 64",
    ),
    (
        "invalid push subscription row",
        "SELECT 1 FROM push_subscriptions WHERE visited_at NOT BETWEEN 0 AND ?2 OR length(endpoint) > 4096",
    ),
];

/// Pictures that no message names yet, as if one did.
const WAITING_IMAGES: &str = "SELECT id, user_id, 1, subtype, width, height, alt, created_at, bytes \
     FROM images WHERE message_id IS NULL";

/// The largest id of any event, as the rows have it.
const LAST_EVENT: &str = "SELECT max( \
     (SELECT coalesce(max(id), 0) FROM messages), (SELECT coalesce(max(edit), 0) FROM messages), \
     (SELECT coalesce(max(id), 0) FROM deletes), (SELECT coalesce(max(id), 0) FROM reactions), \
     (SELECT coalesce(max(event), 0) FROM members), (SELECT coalesce(max(changed), 0) FROM rooms))";

/// Looks at every row of a database of the current version.
///
/// # Errors [`SnapshotError::Damaged`] with the first invalid row.
pub(super) fn audit(connection: &Connection) -> Result<(), SnapshotError> {
    let damaged = |finding: &str| Err(SnapshotError::Damaged(finding.into()));
    for (finding, query) in RULES {
        let mut statement = connection.prepare(query)?;
        let given: &[&dyn rusqlite::ToSql] = &[&RECORD_ID_MAX, &RECORD_TIME_MAX];
        if statement.exists(&given[..statement.parameter_count()])? {
            return damaged(finding);
        }
    }
    let epoch = super::sql::epoch(connection)?;
    if epoch.as_str().len() != Epoch::random().as_str().len()
        || !epoch.as_str().bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return damaged("invalid epoch");
    }
    check_all::<UserRecord>(connection)?;
    check_all::<RoomRecord>(connection)?;
    check_all::<MemberRecord>(connection)?;
    check_all::<MessageRecord>(connection)?;
    check_all::<DeleteRecord>(connection)?;
    check_all::<ReactionRecord>(connection)?;
    check_all::<MentionRecord>(connection)?;
    check_all::<ReadRecord>(connection)?;
    check_all::<NotifyRecord>(connection)?;
    check_all::<ImageRecord>(connection)?;
    check_each::<ImageRecord>(connection, WAITING_IMAGES)?;
    let last_event: i64 = connection.query_row(LAST_EVENT, [], |row| row.get(0))?;
    if last_event > super::sql::last_id(connection)?.get() {
        return damaged("an event has an id above high_water");
    }
    Ok(())
}

fn check_all<R: Record>(connection: &Connection) -> Result<(), SnapshotError> {
    check_each::<R>(connection, R::SELECT)
}

fn check_each<R: Record>(connection: &Connection, query: &str) -> Result<(), SnapshotError> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        R::read(row)?.check().map_err(SnapshotError::Damaged)?;
    }
    Ok(())
}
