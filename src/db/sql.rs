//! Schema, pragmas, queries and the mapping of rows: the only SQL of the crate.
//!
//! Each query is a named constant that says which index serves it. Statements are prepared once a connection.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{Credentials, OpenError, Page, Session};
use crate::config::{CLEAN_ROWS, LOCK_TIMEOUT, NONCE_DAY, PROOF_BYTES};
use crate::model::{Content, Digest, Epoch, Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};

const SCHEMA: &str = include_str!("../../schema.sql");
/// The version that `schema.sql` makes.
const SCHEMA_VERSION: i64 = 1;
/// Marks the file as ours ("chiw"), so that another program's database is not taken for an empty one.
const APPLICATION_ID: i64 = 0x6368_6977;
/// Pages of the write-ahead log after which a commit moves them into the database: 4 MiB.
const WAL_PAGES: u32 = 1_000;

/// Opens the connection that writes, making or migrating the database.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    create_private(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    // Readers go on while a commit is written.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // In WAL mode NORMAL can lose the last commits on power loss, and an `ack` is a promise.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Nothing in the file may call functions: the schema is ours, the file may come from a backup.
    connection.pragma_update(None, "trusted_schema", false)?;
    // A plan does not depend on the values bound to it, or SQLite would make it anew at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    // The log shrinks back after a reader held it open for long.
    connection.pragma_update(None, "journal_size_limit", i64::from(WAL_PAGES) * 4_096)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // A plan does not depend on the values bound to it, or SQLite would make it anew at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read, if there is none: SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (0, 0) if tables == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.execute("INSERT INTO meta (key, value) VALUES ('epoch', ?1)", [Epoch::random().as_str()])?;
        }
        (APPLICATION_ID, SCHEMA_VERSION) => {}
        (APPLICATION_ID, newer) => return Err(OpenError::Newer { found: newer, known: SCHEMA_VERSION }),
        _ => return Err(OpenError::Foreign),
    }
    transaction.commit()?;
    Ok(())
}

/// By `meta`'s primary key.
const EPOCH: &str = "SELECT value FROM meta WHERE key = 'epoch'";

pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<Epoch> {
    connection.query_row(EPOCH, [], |row| Ok(Epoch::from_database(row.get_ref(0)?.as_str()?)))
}

/// By the last rowid, and `meta`'s primary key.
const LAST_ID: &str =
    "SELECT max((SELECT coalesce(max(id), 0) FROM messages), (SELECT value FROM meta WHERE key = 'high_water'))";

/// The largest id ever given to a message that was committed.
pub(super) fn last_id(connection: &Connection) -> rusqlite::Result<MessageId> {
    connection.query_row(LAST_ID, [], |row| row.get(0).map(MessageId::new))
}

/// By `meta`'s primary key. As large as the largest message, so that what passes is not refused again at once; and of
/// new content, since SQLite writes nothing for a row that stays as it is.
const PROOF: &str = "INSERT INTO meta (key, value) VALUES ('proof', randomblob(?1)) \
     ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// Fails unless the transaction can write, and has room for a message.
pub(super) fn prove_writable(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(PROOF, [PROOF_BYTES])?;
    Ok(())
}

// --- Users and sessions --------------------------------------------------------------------------------------------

/// By the unique index on `name`.
const INSERT_USER: &str = "INSERT INTO users (name, password_hash, created_at) VALUES (?1, ?2, ?3)";

pub(super) fn insert_user(
    connection: &Connection,
    username: &Username,
    password_hash: &str,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT_USER)?.execute(params![username.as_str(), password_hash, now.0])?;
    Ok(())
}

/// By the unique index on `name`.
const CREDENTIALS: &str = "SELECT id, name, password_hash FROM users WHERE name = ?1 AND disabled_at IS NULL";

pub(super) fn credentials(connection: &Connection, username: &Username) -> rusqlite::Result<Option<Credentials>> {
    let read = |row: &Row<'_>| {
        Ok(Credentials {
            user: UserId(row.get(0)?),
            username: Username::from_database(row.get_ref(1)?.as_str()?),
            password_hash: row.get(2)?,
        })
    };
    connection.prepare_cached(CREDENTIALS)?.query_row([username.as_str()], read).optional()
}

const INSERT_SESSION: &str =
    "INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3) RETURNING id";

pub(super) fn insert_session(
    connection: &Connection,
    digest: &Digest,
    user: UserId,
    now: UnixMillis,
) -> rusqlite::Result<SessionId> {
    let mut insert = connection.prepare_cached(INSERT_SESSION)?;
    insert.query_row(params![digest.as_bytes(), user.0, now.0], |row| row.get(0).map(SessionId))
}

/// By the unique index on `digest` and the users' rowid.
const SESSION: &str = "SELECT s.id, s.user_id, u.name, s.last_used_at FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.digest = ?1 AND s.last_used_at > ?2 AND u.disabled_at IS NULL";

pub(super) fn session(
    connection: &Connection,
    digest: &Digest,
    used_after: UnixMillis,
) -> rusqlite::Result<Option<Session>> {
    let read = |row: &Row<'_>| {
        Ok(Session {
            id: SessionId(row.get(0)?),
            user: UserId(row.get(1)?),
            username: Username::from_database(row.get_ref(2)?.as_str()?),
            last_used_at: UnixMillis(row.get(3)?),
        })
    };
    connection.prepare_cached(SESSION)?.query_row(params![digest.as_bytes(), used_after.0], read).optional()
}

/// By the sessions' rowid and the users'.
const SESSION_LIVES: &str = "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.id = ?1 AND s.last_used_at > ?2 AND u.disabled_at IS NULL";

pub(super) fn session_lives(
    connection: &Connection,
    session: SessionId,
    used_after: UnixMillis,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(SESSION_LIVES)?.exists(params![session.0, used_after.0])
}

/// By the sessions' rowid.
const TOUCH_SESSION: &str = "UPDATE sessions SET last_used_at = ?2 WHERE id = ?1";

pub(super) fn touch_session(connection: &Connection, session: SessionId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(TOUCH_SESSION)?.execute(params![session.0, now.0])?;
    Ok(())
}

/// By the unique index on `digest`.
const DELETE_SESSION: &str = "DELETE FROM sessions WHERE digest = ?1 RETURNING id";

pub(super) fn delete_session(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SESSION)?;
    delete.query_row([digest.as_bytes()], |row| row.get(0).map(SessionId)).optional()
}

/// By `sessions_by_use`.
const DELETE_EXPIRED: &str =
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE last_used_at <= ?1 LIMIT ?2) RETURNING id";

pub(super) fn delete_expired(connection: &Connection, used_until: UnixMillis) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_EXPIRED)?;
    delete.query_map(params![used_until.0, CLEAN_ROWS], |row| row.get(0).map(SessionId))?.collect()
}

/// By `sessions_by_use`.
const OLDEST_USE: &str = "SELECT min(last_used_at) FROM sessions";

pub(super) fn oldest_use(connection: &Connection) -> rusqlite::Result<Option<UnixMillis>> {
    connection.prepare_cached(OLDEST_USE)?.query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.map(UnixMillis)))
}

// --- Messages ------------------------------------------------------------------------------------------------------

/// At the end of the table.
const INSERT_MESSAGE: &str = "INSERT INTO messages (id, user_id, content, created_at) VALUES (?1, ?2, ?3, ?4)";

/// By the nonces' primary key: today's, yesterday's, and tomorrow's, since the clock may have been set back past
/// midnight.
const FIND_NONCE: &str = "SELECT message_id FROM nonces WHERE day IN (?1, ?1 - 1, ?1 + 1) AND user_id = ?2 AND nonce = ?3 \
     ORDER BY day LIMIT 1";

/// By the nonces' primary key.
const INSERT_NONCE: &str = "INSERT INTO nonces (day, user_id, nonce, message_id) VALUES (?1, ?2, ?3, ?4)";

/// The statements that store a message, looked up once for many.
pub(super) struct StoreMessage<'a> {
    insert_message: CachedStatement<'a>,
    find_nonce: CachedStatement<'a>,
    insert_nonce: CachedStatement<'a>,
}

impl<'a> StoreMessage<'a> {
    pub(super) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_message: connection.prepare_cached(INSERT_MESSAGE)?,
            find_nonce: connection.prepare_cached(FIND_NONCE)?,
            insert_nonce: connection.prepare_cached(INSERT_NONCE)?,
        })
    }

    /// The message that `user` sent under this nonce within the last day or two.
    pub(super) fn find_nonce(
        &mut self,
        user: UserId,
        nonce: &Nonce,
        now: UnixMillis,
    ) -> rusqlite::Result<Option<MessageId>> {
        self.find_nonce
            .query_row(params![nonce_day(now), user.0, nonce.as_str()], |row| row.get(0).map(MessageId::new))
            .optional()
    }

    pub(super) fn insert(
        &mut self,
        id: MessageId,
        user: UserId,
        content: &Content,
        nonce: Option<&Nonce>,
        now: UnixMillis,
    ) -> rusqlite::Result<()> {
        self.insert_message.execute(params![id.get(), user.0, content.as_str(), now.0])?;
        if let Some(nonce) = nonce {
            self.insert_nonce.execute(params![nonce_day(now), user.0, nonce.as_str(), id.get()])?;
        }
        Ok(())
    }
}

fn nonce_day(now: UnixMillis) -> i64 {
    let day = i64::try_from(NONCE_DAY.as_millis()).expect("a day is a small number of milliseconds");
    now.0.div_euclid(day)
}

/// By the nonces' primary key, from its low end.
const DELETE_OLD_NONCES: &str = "DELETE FROM nonces WHERE (day, user_id, nonce) IN \
     (SELECT day, user_id, nonce FROM nonces WHERE day < ?1 - 1 LIMIT ?2)";

/// Removes some of the nonces that no message can repeat any more; how many.
pub(super) fn delete_old_nonces(connection: &Connection, now: UnixMillis) -> rusqlite::Result<usize> {
    connection.prepare_cached(DELETE_OLD_NONCES)?.execute(params![nonce_day(now), CLEAN_ROWS])
}

/// Backwards from the end of the table.
const NEWEST: &str = "SELECT m.id, u.name, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id \
     WHERE m.id < ?1 ORDER BY m.id DESC LIMIT ?2";

/// Forwards from a rowid.
const AFTER: &str = "SELECT m.id, u.name, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id \
     WHERE m.id > ?1 ORDER BY m.id LIMIT ?2";

fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: MessageId::new(row.get(0)?),
        username: Username::from_database(row.get_ref(1)?.as_str()?),
        content: Content::from_database(row.get_ref(2)?.as_str()?),
        created_at: UnixMillis(row.get(3)?),
    })
}

/// A page of history, ascending; and whether there is more beyond it in the direction of reading.
pub(super) fn page(connection: &Connection, page: Page, limit: u32) -> rusqlite::Result<(Vec<Message>, bool)> {
    let (query, from) = match page {
        Page::Newest => (NEWEST, i64::MAX),
        Page::Before(id) => (NEWEST, id.get()),
        Page::After(id) => (AFTER, id.get()),
    };
    let wanted = limit as usize;
    let mut statement = connection.prepare_cached(query)?;
    let mut messages: Vec<Message> =
        statement.query_map(params![from, limit + 1], read_message)?.collect::<Result<_, _>>()?;
    let has_more = messages.len() > wanted;
    messages.truncate(wanted);
    if !matches!(page, Page::After(_)) {
        messages.reverse();
    }
    Ok((messages, has_more))
}

/// The messages after `id`, until `max_messages` or about `max_bytes` of text.
pub(super) fn messages_after(
    connection: &Connection,
    id: MessageId,
    max_messages: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare_cached(AFTER)?;
    let mut rows = statement.query(params![id.get(), max_messages])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let message = read_message(row)?;
        bytes += message.content.as_str().len();
        messages.push(message);
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(messages)
}

/// Forwards from a rowid, as far as asked.
const COUNT_AFTER: &str = "SELECT count(*) FROM (SELECT 1 FROM messages WHERE id > ?1 LIMIT ?2)";

/// How many messages there are after `id`, counted up to `at_most`.
pub(super) fn count_after(connection: &Connection, id: MessageId, at_most: u32) -> rusqlite::Result<u32> {
    connection.prepare_cached(COUNT_AFTER)?.query_row(params![id.get(), at_most], |row| row.get(0))
}
