//! The queries about what was said: messages and their nonces, the pages of history, and removing what is old.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use crate::config::{CLEAN_ROWS, ERASE_ROWS, PRUNE_ROWS};
use crate::db::nonce_days::NonceDays;
use crate::db::{Found, Page, Run};
use crate::model::{Content, Message, MessageId, Nonce, UnixMillis, UserId, Username};

/// At the end of the table.
const INSERT_MESSAGE: &str = "INSERT INTO messages (id, user_id, content, created_at) VALUES (?1, ?2, ?3, ?4)";

/// By the nonces' primary key.
const FIND_NONCE: &str = "SELECT message_id FROM nonces WHERE day = ?1 AND user_id = ?2 AND nonce = ?3";

/// By the nonces' primary key, which is looked through once for both: whether there is one, and to insert it.
const CLAIM_NONCE: &str =
    "INSERT INTO nonces (day, user_id, nonce, message_id) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";

/// The statements that store the messages of one command, looked up once for all of them.
pub(in crate::db) struct StoreMessage<'a> {
    insert_message: CachedStatement<'a>,
    find_nonce: CachedStatement<'a>,
    claim_nonce: CachedStatement<'a>,
}

impl<'a> StoreMessage<'a> {
    pub(in crate::db) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_message: connection.prepare_cached(INSERT_MESSAGE)?,
            find_nonce: connection.prepare_cached(FIND_NONCE)?,
            claim_nonce: connection.prepare_cached(CLAIM_NONCE)?,
        })
    }

    /// Notes that `user` calls message `id` by this nonce; or answers which one they called so before, within the days
    /// that are remembered.
    pub(in crate::db) fn claim_nonce(
        &mut self,
        user: UserId,
        nonce: &Nonce,
        id: MessageId,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        for day in days.before() {
            if let Some(first) = self.find_nonce(day, user, nonce)? {
                return Ok(Some(first));
            }
        }
        let claimed = self.claim_nonce.execute(params![days.today(), user.0, nonce.as_str(), id.get()])?;
        if claimed == 1 { Ok(None) } else { self.find_nonce(days.today(), user, nonce) }
    }

    fn find_nonce(&mut self, day: i64, user: UserId, nonce: &Nonce) -> rusqlite::Result<Option<MessageId>> {
        let read = |row: &Row<'_>| row.get(0).map(MessageId::new);
        self.find_nonce.query_row(params![day, user.0, nonce.as_str()], read).optional()
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

/// By the nonces' primary key, from its low end.
const DELETE_OLD_NONCES: &str = "DELETE FROM nonces WHERE (day, user_id, nonce) IN \
     (SELECT day, user_id, nonce FROM nonces WHERE day < ?1 LIMIT ?2)";

/// Removes some of the nonces of days that are not remembered any more; how many.
pub(in crate::db) fn delete_old_nonces(connection: &Connection, days: &NonceDays) -> rusqlite::Result<usize> {
    connection.prepare_cached(DELETE_OLD_NONCES)?.execute(params![days.first(), CLEAN_ROWS])
}

/// From the end of the nonces' primary key.
const NONCE_DAY_BEFORE: &str = "SELECT max(day) FROM nonces WHERE day < ?1";

/// The newest days that have nonces, the newest first.
pub(in crate::db) fn nonce_days(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let (mut days, mut before) = (Vec::new(), i64::MAX);
    while days.len() < NonceDays::REMEMBERED
        && let Some(day) = connection.query_row(NONCE_DAY_BEFORE, [before], |row| row.get::<_, Option<i64>>(0))?
    {
        days.push(day);
        before = day;
    }
    Ok(days)
}

/// Backwards from the end of the table.
const NEWEST: &str = "SELECT m.id, u.name, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id \
     WHERE m.id < ?1 ORDER BY m.id DESC LIMIT ?2";

/// Forwards from a rowid.
const AFTER: &str = "SELECT m.id, u.name, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id \
     WHERE m.id > ?1 ORDER BY m.id LIMIT ?2";

pub(in crate::db) fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: MessageId::new(row.get(0)?),
        username: Username::from_database(row.get_ref(1)?.as_str()?),
        content: Content::from_database(row.get_ref(2)?.as_str()?),
        created_at: UnixMillis(row.get(3)?),
    })
}

/// A page of history, ascending; and whether there is more beyond it in the direction of reading.
///
/// Past about `max_bytes` of text it is a run, whose messages are [read piece by piece](messages_in).
pub(in crate::db) fn page(
    connection: &Connection,
    page: Page,
    limit: u32,
    max_bytes: usize,
) -> rusqlite::Result<(Found, bool)> {
    let (query, from) = match page {
        Page::Newest => (NEWEST, i64::MAX),
        Page::Before(id) => (NEWEST, id.get()),
        Page::After(id) => (AFTER, id.get()),
    };
    let wanted = limit as usize;
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(params![from, limit + 1])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if messages.len() == wanted {
            return Ok((ascending(page, messages), true));
        }
        let message = read_message(row)?;
        bytes += message.content.as_str().len();
        messages.push(message);
        if bytes > max_bytes {
            return run(connection, page, messages[0].id, limit);
        }
    }
    Ok((ascending(page, messages), false))
}

fn ascending(page: Page, mut messages: Vec<Message>) -> Found {
    if !matches!(page, Page::After(_)) {
        messages.reverse();
    }
    Found::Messages(messages)
}

/// Backwards from a rowid, over ids alone.
const FIRST_OF: &str = "SELECT first, EXISTS (SELECT 1 FROM messages WHERE id < first) FROM \
     (SELECT min(id) AS first FROM (SELECT id FROM messages WHERE id <= ?1 ORDER BY id DESC LIMIT ?2))";

/// Forwards from a rowid, over ids alone.
const LAST_OF: &str = "SELECT last, EXISTS (SELECT 1 FROM messages WHERE id > last) FROM \
     (SELECT max(id) AS last FROM (SELECT id FROM messages WHERE id >= ?1 ORDER BY id LIMIT ?2))";

/// From where to where a page goes whose first message in the direction of reading is `nearest`, and whether there is
/// more beyond it.
fn run(connection: &Connection, page: Page, nearest: MessageId, limit: u32) -> rusqlite::Result<(Found, bool)> {
    let forwards = matches!(page, Page::After(_));
    let mut statement = connection.prepare_cached(if forwards { LAST_OF } else { FIRST_OF })?;
    let (farthest, has_more) =
        statement.query_row(params![nearest.get(), limit], |row| Ok((MessageId::new(row.get(0)?), row.get(1)?)))?;
    let (first, last) = if forwards { (nearest, farthest) } else { (farthest, nearest) };
    Ok((Found::Run(Run { first, last }), has_more))
}

/// The messages after `id`, until `max_messages` or about `max_bytes` of text.
pub(in crate::db) fn messages_after(
    connection: &Connection,
    id: MessageId,
    max_messages: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Message>> {
    messages_in(connection, Run { first: id.next(), last: MessageId::new(i64::MAX) }, max_messages, max_bytes)
}

/// The first messages of a run, until `max_messages` or about `max_bytes` of text.
pub(in crate::db) fn messages_in(
    connection: &Connection,
    Run { first, last }: Run,
    max_messages: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare_cached(AFTER)?;
    let mut rows = statement.query(params![first.get() - 1, max_messages])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let message = read_message(row)?;
        if message.id > last {
            break;
        }
        bytes += message.content.as_str().len();
        messages.push(message);
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(messages)
}

/// Forwards from a rowid, as far as asked.
const ANY_AFTER: &str = "SELECT 1 FROM messages WHERE id > ?1 LIMIT 1 OFFSET ?2";

/// Whether there are more than `at_most` messages after `id`.
pub(in crate::db) fn has_more_after(connection: &Connection, id: MessageId, at_most: u32) -> rusqlite::Result<bool> {
    connection.prepare_cached(ANY_AFTER)?.exists(params![id.get(), at_most])
}

// --- Removing ------------------------------------------------------------------------------------------------------

/// Forwards from a rowid.
const STEP: &str = "SELECT max(id) FROM (SELECT id FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2)";

/// The last of the `rows` messages after `after`, or of as many as there are; none if there are none.
fn step(connection: &Connection, after: MessageId, rows: u32) -> rusqlite::Result<Option<MessageId>> {
    let mut step = connection.prepare_cached(STEP)?;
    step.query_row(params![after.get(), rows], |row| Ok(row.get::<_, Option<i64>>(0)?.map(MessageId::new)))
}

/// Through a range of rowids.
const ERASE: &str = "DELETE FROM messages WHERE id > ?1 AND id <= ?2 AND user_id = ?3";

/// Removes a user's messages from among some of those after `after`; how many, and where to go on.
pub(in crate::db) fn erase_messages(
    connection: &Connection,
    user: UserId,
    after: MessageId,
) -> rusqlite::Result<(usize, Option<MessageId>)> {
    let Some(last) = step(connection, after, ERASE_ROWS)? else { return Ok((0, None)) };
    let removed = connection.prepare_cached(ERASE)?.execute(params![after.get(), last.get(), user.0])?;
    Ok((removed, Some(last)))
}

/// Through a range of rowids. What was stored while the clock was wrong and ahead stays until its time has come.
const PRUNE: &str = "DELETE FROM messages WHERE id > ?1 AND id <= ?2 AND (id <= ?3 OR created_at < ?4)";

/// Removes, from among some of the messages after `after`, those up to `until` and those stored before a moment; how
/// many, and where to go on.
pub(in crate::db) fn prune_messages(
    connection: &Connection,
    after: MessageId,
    until: MessageId,
    before: UnixMillis,
) -> rusqlite::Result<(usize, Option<MessageId>)> {
    let Some(last) = step(connection, after, PRUNE_ROWS)? else { return Ok((0, None)) };
    let mut prune = connection.prepare_cached(PRUNE)?;
    let removed = prune.execute(params![after.get(), last.get(), until.get(), before.0])?;
    Ok((removed, Some(last)))
}
