//! The queries about nonces, which are in a large table and a small one: [`Nonces`](crate::db::nonces::Nonces) says why.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, ToSql, params};

use crate::db::nonce_days::NonceDays;
use crate::db::nonces::Claimed;
use crate::model::{MessageId, Nonce, UserId};

/// By the large table's primary key.
const FIND: &str = "SELECT message_id FROM nonces WHERE day = ?1 AND user_id = ?2 AND nonce = ?3";

/// By the large table's primary key: one search both finds out whether the nonce is there and inserts it.
const KEEP: &str =
    "INSERT INTO nonces (day, user_id, nonce, message_id) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";

/// By the small table's primary key.
const FIND_RECENT: &str = "SELECT message_id FROM recent_nonces WHERE user_id = ?1 AND nonce = ?2 AND day >= ?3";

/// By the small table's primary key, like `KEEP`. One of a day that is no longer remembered is taken over.
const KEEP_RECENT: &str = "INSERT INTO recent_nonces (user_id, nonce, day, message_id) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET day = excluded.day, message_id = excluded.message_id WHERE day < ?5";

/// The statements that keep and find nonces, looked up once for all writes of a command.
pub(in crate::db) struct NonceStatements<'a> {
    connection: &'a Connection,
    find: CachedStatement<'a>,
    keep: CachedStatement<'a>,
}

impl<'a> NonceStatements<'a> {
    pub(in crate::db) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self { connection, find: connection.prepare_cached(FIND)?, keep: connection.prepare_cached(KEEP)? })
    }

    pub(in crate::db) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// The event of a nonce that is in the large table under this day.
    pub(in crate::db) fn find(&mut self, (user, nonce): Claimed<'_>, day: i64) -> rusqlite::Result<Option<MessageId>> {
        self.find.query_row(params![day, user.0, nonce.as_str()], read_id).optional()
    }

    /// Keeps a nonce with its event in the large table, unless it is there under this day. Returns whether it was not.
    pub(in crate::db) fn keep(
        &mut self,
        (user, nonce): Claimed<'_>,
        id: MessageId,
        day: i64,
    ) -> rusqlite::Result<bool> {
        Ok(self.keep.execute(params![day, user.0, nonce.as_str(), id.get()])? == 1)
    }

    /// The event of a nonce that is in the small table under this day or a later one.
    pub(in crate::db) fn find_recent(
        &mut self,
        (user, nonce): Claimed<'_>,
        first_day: i64,
    ) -> rusqlite::Result<Option<MessageId>> {
        let mut find = self.connection.prepare_cached(FIND_RECENT)?;
        find.query_row(params![user.0, nonce.as_str(), first_day], read_id).optional()
    }

    /// Keeps a nonce with its event in the small table, unless it is there under a day that is remembered. Returns
    /// whether it was not.
    pub(in crate::db) fn keep_recent(
        &mut self,
        (user, nonce): Claimed<'_>,
        id: MessageId,
        days: &NonceDays,
    ) -> rusqlite::Result<bool> {
        let mut keep = self.connection.prepare_cached(KEEP_RECENT)?;
        Ok(keep.execute(params![user.0, nonce.as_str(), days.today, id.get(), days.first()])? == 1)
    }
}

fn read_id(row: &Row<'_>) -> rusqlite::Result<MessageId> {
    row.get(0).map(MessageId::new)
}

/// The events of these nonces of `user`. One of a day that is no longer remembered may be known until it is removed.
pub(in crate::db) fn seen(
    connection: &Connection,
    user: UserId,
    nonces: &[Nonce],
) -> rusqlite::Result<Vec<Option<MessageId>>> {
    // One view of both tables, while nonces are moved from one to the other.
    let transaction = connection.unchecked_transaction()?;
    let (mut statements, days) = (NonceStatements::prepare(&transaction)?, days_of_large_table(&transaction)?);
    let mut seen = Vec::with_capacity(nonces.len());
    for nonce in nonces {
        let mut event = statements.find_recent((user, nonce), i64::MIN)?;
        for day in &days {
            event = event.or(statements.find((user, nonce), *day)?);
        }
        seen.push(event);
    }
    Ok(seen)
}

/// By the large table's primary key.
const HAS_DAY: &str = "SELECT EXISTS (SELECT 1 FROM nonces WHERE day = ?1)";

/// Whether the large table has nonces of this day.
pub(in crate::db) fn has_nonces_of(connection: &Connection, day: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached(HAS_DAY)?.query_row([day], |row| row.get(0))
}

/// By the large table's primary key.
const OF_DAY: &str = "SELECT user_id, nonce FROM nonces WHERE day = ?1 ORDER BY user_id, nonce LIMIT ?2";

/// Passes the nonces of a day in the large table to `each`, but no more than `at_most` and one. Returns whether that was
/// all.
pub(in crate::db) fn nonces_of_day(
    connection: &Connection,
    day: i64,
    at_most: u32,
    mut each: impl FnMut(UserId, &[u8]),
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(OF_DAY)?;
    let mut rows = statement.query(params![day, i64::from(at_most) + 1])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        each(UserId(row.get(0)?), row.get_ref(1)?.as_bytes()?);
        count += 1;
    }
    Ok(count <= at_most)
}

/// By a scan of the small table.
const COUNT_RECENT: &str = "SELECT count(*) FROM recent_nonces";

/// How many nonces are in the small table.
pub(in crate::db) fn count_recent_nonces(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached(COUNT_RECENT)?.query_row([], |row| row.get(0))
}

/// A nonce as it is in the file: text, which may be no UTF-8 if the file is from elsewhere.
#[derive(Debug, Default)]
pub(in crate::db) struct NonceText(pub(in crate::db) Vec<u8>);

impl ToSql for NonceText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// From a place in the small table's primary key.
const NEXT_RECENT: &str = "SELECT day, user_id, nonce, message_id FROM recent_nonces \
     WHERE (user_id, nonce) > (?1, ?2) ORDER BY user_id, nonce LIMIT ?3";

/// A range of the small table's primary key.
const DELETE_MOVED: &str =
    "DELETE FROM recent_nonces WHERE (user_id, nonce) > (?1, ?2) AND (user_id, nonce) <= (?3, ?4)";

/// Moves the next `rows` nonces after `after`, in the order of users, from the small table to the large one, and returns
/// them with their days.
pub(in crate::db) fn move_recent_nonces(
    connection: &Connection,
    (after_user, after): &(UserId, NonceText),
    rows: u32,
) -> rusqlite::Result<Vec<(i64, UserId, NonceText)>> {
    let (mut next, mut keep) = (connection.prepare_cached(NEXT_RECENT)?, connection.prepare_cached(KEEP)?);
    let mut found = next.query(params![after_user.0, after, rows])?;
    let mut moved = Vec::new();
    while let Some(row) = found.next()? {
        let (day, user) = (row.get(0)?, UserId(row.get(1)?));
        let nonce = NonceText(row.get_ref(2)?.as_bytes()?.into());
        keep.execute(params![day, user.0, nonce, row.get::<_, i64>(3)?])?;
        moved.push((day, user, nonce));
    }
    if let Some((_, user, nonce)) = moved.last() {
        connection.prepare_cached(DELETE_MOVED)?.execute(params![after_user.0, after, user.0, nonce])?;
    }
    Ok(moved)
}

/// All of the small table.
const MOVE_ALL: &str = "INSERT INTO nonces (day, user_id, nonce, message_id) \
     SELECT day, user_id, nonce, message_id FROM recent_nonces WHERE true ON CONFLICT DO NOTHING";
const CLEAR_RECENT: &str = "DELETE FROM recent_nonces";

/// Moves all nonces from the small table to the large one.
pub(in crate::db) fn move_all_recent_nonces(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(MOVE_ALL, [])?;
    connection.execute(CLEAR_RECENT, [])?;
    Ok(())
}

/// By the large table's primary key, from its low end.
const DELETE_OLD_NONCES: &str = "DELETE FROM nonces WHERE (day, user_id, nonce) IN \
     (SELECT day, user_id, nonce FROM nonces WHERE day < ?1 ORDER BY day, user_id, nonce LIMIT ?2)";

/// By a scan of the small table.
const DELETE_OLD_RECENT: &str = "DELETE FROM recent_nonces WHERE (user_id, nonce) IN \
     (SELECT user_id, nonce FROM recent_nonces WHERE day < ?1 ORDER BY user_id, nonce LIMIT ?2)";

/// Removes at most `rows` nonces of each table, of days that are no longer remembered. Returns the larger of the
/// two counts.
pub(in crate::db) fn delete_old_nonces(
    connection: &Connection,
    days: &NonceDays,
    rows: u32,
) -> rusqlite::Result<usize> {
    let remove = |query| connection.prepare_cached(query)?.execute(params![days.first(), rows]);
    Ok(remove(DELETE_OLD_NONCES)?.max(remove(DELETE_OLD_RECENT)?))
}

/// From the end of the large table's primary key.
const LARGE_DAY_BEFORE: &str = "SELECT max(day) FROM nonces WHERE day < ?1";

/// From the end of the large table's primary key, and by a scan of the small one.
const NONCE_DAY_BEFORE: &str = "SELECT max(day) FROM (SELECT max(day) AS day FROM nonces WHERE day < ?1 \
     UNION ALL SELECT max(day) FROM recent_nonces WHERE day < ?1)";

/// The newest days that have nonces in the large table, newest first.
pub(in crate::db) fn days_of_large_table(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    newest_days(connection, LARGE_DAY_BEFORE)
}

/// The newest days that have nonces, newest first.
pub(in crate::db) fn nonce_days(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    newest_days(connection, NONCE_DAY_BEFORE)
}

fn newest_days(connection: &Connection, day_before: &str) -> rusqlite::Result<Vec<i64>> {
    let (mut days, mut before) = (Vec::new(), i64::MAX);
    let mut query = connection.prepare_cached(day_before)?;
    while days.len() < NonceDays::REMEMBERED
        && let Some(day) = query.query_row([before], |row| row.get::<_, Option<i64>>(0))?
    {
        days.push(day);
        before = day;
    }
    Ok(days)
}
