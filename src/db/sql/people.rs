//! The reader's query for the list of users.

use rusqlite::{Connection, Row, params};

use crate::db::data::Person;
use crate::model::{UnixMillis, Username};

/// By the unique index on `name`, which ignores case: no name has a character that is greater than `z`.
const PEOPLE: &str = "SELECT name, is_bot, is_moderator, last_seen FROM users \
     WHERE name >= ?1 AND name < ?1 || '{' AND disabled_at IS NULL ORDER BY name LIMIT ?2";

/// The first users by name that begin with `prefix`, without those who are disabled or deleted.
pub(in crate::db) fn people(connection: &Connection, prefix: &str, limit: usize) -> rusqlite::Result<Vec<Person>> {
    let read = |row: &Row<'_>| {
        Ok(Person {
            username: Username::from_database(row.get_ref(0)?.as_str()?),
            is_bot: row.get(1)?,
            is_moderator: row.get(2)?,
            last_seen: row.get::<_, Option<i64>>(3)?.map(UnixMillis),
        })
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection.prepare_cached(PEOPLE)?.query_map(params![prefix, limit], read)?.collect()
}
