//! Schema, pragmas, queries and the mapping of rows: all the SQL of a server.
//!
//! Each query is a named constant that says which index serves it. Statements are prepared once a connection. What
//! only commands ask of a database is in [`archive`](super::archive), and nothing else in the crate knows SQL.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};

use super::archive::Archive;
use super::lock::beside;
use super::nonce_days::NonceDays;
use super::{Credentials, Found, OpenError, Page, Run, Session};
use crate::config::{CLEAN_ROWS, Durability, ERASE_ROWS, LOCK_TIMEOUT, PROOF_BYTES, PRUNE_ROWS, USER_SESSIONS_MAX};
use crate::model::{Content, Digest, Epoch, Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};

const SCHEMA: &str = include_str!("../../schema.sql");
/// The version that `schema.sql` makes.
pub(super) const SCHEMA_VERSION: i64 = 2;
/// What takes a database of each earlier version to the next, the first version's first.
const UPGRADES: [&str; 1] = ["CREATE TABLE invites (
    digest     BLOB PRIMARY KEY,
    uses_left  INTEGER NOT NULL CHECK (uses_left > 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID"];
/// Marks the file as ours ("chiw"), so that another program's database is not taken for an empty one.
pub(super) const APPLICATION_ID: i64 = 0x6368_6977;
/// Pages of the write-ahead log after which a commit moves them into the database: 4 MiB.
const WAL_PAGES: u32 = 1_000;

/// Opens the connection that writes, making or migrating the database. The caller holds its [lock](super::Lock).
pub(super) fn open_writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    // First of all: a file that is refused is left as it is.
    let schema = schema_of(&connection)?;
    // Readers go on while a commit is written.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // In WAL mode NORMAL can lose the last commits on power loss, and an `ack` is a promise: it is for who says so.
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Nothing in the file may call functions: the schema is ours, the file may come from a backup.
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is removed is removed for good: its bytes are overwritten. `fast`, which spares pages that become free, left
    // 115,000 of 200,000 pruned texts in the file; this leaves none, and pruning took the same 0.4 s with each.
    connection.pragma_update_and_check(None, "secure_delete", true, |row| row.get::<_, i64>(0))?;
    // A plan does not depend on the values bound to it, or SQLite would make it anew at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    // The log shrinks back after a reader held it open for long.
    connection.pragma_update(None, "journal_size_limit", i64::from(WAL_PAGES) * 4_096)?;
    if schema == Schema::Older {
        back_up_before_upgrade(path)?;
    }
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

/// Opens a file of our own making to write to it: by the name it has, without following a link that was put there.
pub(super) fn open_private(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read, if there is none: SQLite gives its log the same mode, and the same
/// owner. What root makes belongs to whom the directory belongs to: an administrator's command must not leave the
/// server's own user with files that it cannot open.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    match create_new_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

/// The same where there must be nothing yet.
pub(super) fn create_new_private(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if rustix::process::geteuid().is_root() {
        let directory = std::fs::metadata(directory_of(path))?;
        // The file that was made, and not what its name leads to by now: the directory's owner could have replaced it.
        fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(file)
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a file is to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Empty,
    Older,
    Current,
}

/// Tells what a file is; a newer database, or one of another program, is an error.
pub(super) fn schema_of(connection: &Connection) -> Result<Schema, OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(Schema::Empty),
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(Schema::Current),
        (APPLICATION_ID, 1..SCHEMA_VERSION) => Ok(Schema::Older),
        (APPLICATION_ID, newer) => Err(OpenError::Newer { found: newer, known: SCHEMA_VERSION }),
        _ => Err(OpenError::Foreign),
    }
}

/// Through all of the schema.
const OBJECTS: &str =
    "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name, tbl_name, sql";

/// Whether the database has what `schema.sql` makes, and nothing else.
pub(super) fn has_our_schema(connection: &Connection) -> rusqlite::Result<bool> {
    let ours = Connection::open_in_memory()?;
    ours.execute_batch(SCHEMA)?;
    Ok(objects_of(connection)? == objects_of(&ours)?)
}

/// Everything that is defined in a database, as SQLite would define it again. Comments and spacing may be of another
/// version: they are left out, with a space in their place, so that no word is joined or hidden by it.
fn objects_of(connection: &Connection) -> rusqlite::Result<Vec<[String; 4]>> {
    let read = |row: &Row<'_>| {
        let sql: String = row.get(3)?;
        let code = sql.lines().flat_map(|line| line.split("--").next().unwrap_or_default().split_whitespace());
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, code.collect::<Vec<_>>().join(" ")])
    };
    connection.prepare(OBJECTS)?.query_map([], read)?.collect()
}

/// Copies a database of an older version aside, as `chinwag.db.version-1`: the older program cannot open it once it
/// is upgraded. A copy that an upgrade left which then failed is replaced.
fn back_up_before_upgrade(path: &Path) -> Result<(), OpenError> {
    let archive = Archive::open(path)?;
    let copy = beside(path, &format!(".version-{}", archive.version()));
    tracing::info!(copy = %copy.display(), "upgrading the database; the old one is kept");
    archive.back_up_over(&copy).map_err(|error| OpenError::Backup(Box::new(error)))
}

/// Brings a database to the version this program knows, from an empty file or any older version, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match schema_of(&transaction)? {
        Schema::Empty => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            set_epoch(&transaction, &Epoch::random())?;
        }
        Schema::Older => {
            let version = transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))?;
            for upgrade in &UPGRADES[version as usize - 1..] {
                transaction.execute_batch(upgrade)?;
            }
        }
        Schema::Current => return Ok(()),
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// By `meta`'s primary key.
const SET_EPOCH: &str = "INSERT INTO meta (key, value) VALUES ('epoch', ?1) ON CONFLICT DO UPDATE SET value = ?1";

/// Names the history anew.
pub(super) fn set_epoch(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<()> {
    connection.execute(SET_EPOCH, [epoch.as_str()])?;
    Ok(())
}

/// Raises the id below which none is given again. By `meta`'s primary key.
const RAISE_HIGH_WATER: &str = "UPDATE meta SET value = max(value, ?1) WHERE key = 'high_water'";

/// Keeps ids up to `id` from being given.
pub(super) fn raise_high_water(connection: &Connection, id: MessageId) -> rusqlite::Result<()> {
    connection.execute(RAISE_HIGH_WATER, [id.get()])?;
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

/// By the last rowids.
const NEWEST_ROWS: &str = "SELECT (SELECT max(id) FROM messages), (SELECT max(id) FROM sessions)";

/// Fails unless rows can be read.
pub(super) fn prove_readable(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached(NEWEST_ROWS)?.query_row([], |_| Ok(()))
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

/// By the users' rowid. Nothing is inserted if the user was disabled, or given another password, while the one that
/// was claimed was being verified.
const INSERT_SESSION: &str = "INSERT INTO sessions (digest, user_id, created_at, last_used_at) \
     SELECT ?1, id, ?4, ?4 FROM users WHERE id = ?2 AND password_hash = ?3 AND disabled_at IS NULL RETURNING id";

pub(super) fn insert_session(
    connection: &Connection,
    digest: &Digest,
    user: UserId,
    password_hash: &str,
    now: UnixMillis,
) -> rusqlite::Result<Option<SessionId>> {
    let mut insert = connection.prepare_cached(INSERT_SESSION)?;
    let inserted = insert.query_row(params![digest.as_bytes(), user.0, password_hash, now.0], |row| row.get(0));
    inserted.map(SessionId).optional()
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

/// By `sessions_by_user`: the ids, newest first, past the most there may be.
const DELETE_SURPLUS_SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
     (SELECT id FROM sessions WHERE user_id = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2) RETURNING id";

/// Ends a user's oldest logins past [`USER_SESSIONS_MAX`].
pub(super) fn delete_surplus_sessions(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SURPLUS_SESSIONS)?;
    delete.query_map(params![user.0, USER_SESSIONS_MAX], |row| row.get(0).map(SessionId))?.collect()
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

// --- Invitations ---------------------------------------------------------------------------------------------------

const INSERT_INVITE: &str = "INSERT INTO invites (digest, uses_left, expires_at) VALUES (?1, ?2, ?3)";

pub(super) fn insert_invite(
    connection: &Connection,
    digest: &Digest,
    uses: u32,
    expires_at: UnixMillis,
) -> rusqlite::Result<()> {
    connection.execute(INSERT_INVITE, params![digest.as_bytes(), uses, expires_at.0])?;
    Ok(())
}

/// By the invitations' primary key.
const INVITE_USES: &str = "SELECT uses_left FROM invites WHERE digest = ?1 AND expires_at > ?2";

/// How many may still register with an invitation.
pub(super) fn invite_uses(connection: &Connection, digest: &Digest, now: UnixMillis) -> rusqlite::Result<u32> {
    let uses = connection.query_row(INVITE_USES, params![digest.as_bytes(), now.0], |row| row.get(0)).optional();
    Ok(uses?.unwrap_or(0))
}

/// By the invitations' primary key.
const USE_INVITE: &str = "UPDATE invites SET uses_left = uses_left - 1 WHERE digest = ?1";

/// By the invitations' primary key.
const DELETE_INVITE: &str = "DELETE FROM invites WHERE digest = ?1";

/// Counts one use of an invitation that has `uses` left.
pub(super) fn use_invite(connection: &Connection, digest: &Digest, uses: u32) -> rusqlite::Result<()> {
    let query = if uses == 1 { DELETE_INVITE } else { USE_INVITE };
    connection.execute(query, [digest.as_bytes()])?;
    Ok(())
}

/// Through all of the table, which holds what an administrator gave out and nobody has used up.
const DELETE_EXPIRED_INVITES: &str = "DELETE FROM invites WHERE expires_at <= ?1";

pub(super) fn delete_expired_invites(connection: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE_EXPIRED_INVITES)?.execute([now.0])?;
    Ok(())
}

// --- Administration ------------------------------------------------------------------------------------------------

/// By the unique index on `name`.
const FIND_USER: &str = "SELECT id FROM users WHERE name = ?1";

pub(super) fn find_user(connection: &Connection, username: &Username) -> rusqlite::Result<Option<UserId>> {
    connection.query_row(FIND_USER, [username.as_str()], |row| row.get(0).map(UserId)).optional()
}

/// By rowid.
const HAS_USERS: &str = "SELECT EXISTS (SELECT 1 FROM users)";

pub(super) fn has_users(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(HAS_USERS, [], |row| row.get(0))
}

/// By rowid.
const SET_PASSWORD: &str = "UPDATE users SET password_hash = ?2 WHERE id = ?1";

pub(super) fn set_password(connection: &Connection, user: UserId, password_hash: &str) -> rusqlite::Result<()> {
    connection.execute(SET_PASSWORD, params![user.0, password_hash])?;
    Ok(())
}

/// By rowid.
const DISABLE_USER: &str = "UPDATE users SET disabled_at = coalesce(disabled_at, ?2) WHERE id = ?1";

pub(super) fn disable_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(DISABLE_USER, params![user.0, now.0])?;
    Ok(())
}

/// By rowid.
const ENABLE_USER: &str = "UPDATE users SET disabled_at = NULL WHERE id = ?1";

pub(super) fn enable_user(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    connection.execute(ENABLE_USER, [user.0])?;
    Ok(())
}

/// By rowid. No password has an empty hash.
const BURY_USER: &str = "UPDATE users SET name = ?2, password_hash = '', disabled_at = ?3 WHERE id = ?1";

/// Leaves of a user what their messages need.
pub(super) fn bury_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(BURY_USER, params![user.0, Username::deleted(user).as_str(), now.0])?;
    Ok(())
}

/// By `sessions_by_user`.
const DELETE_SESSIONS_OF: &str = "DELETE FROM sessions WHERE user_id = ?1 RETURNING id";

pub(super) fn delete_sessions_of(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SESSIONS_OF)?;
    delete.query_map([user.0], |row| row.get(0).map(SessionId))?.collect()
}

/// By rowid.
const DELETE_SESSION_BY_ID: &str = "DELETE FROM sessions WHERE id = ?1";

/// Whether there was such a session.
pub(super) fn delete_session_by_id(connection: &Connection, session: SessionId) -> rusqlite::Result<bool> {
    Ok(connection.execute(DELETE_SESSION_BY_ID, [session.0])? > 0)
}

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
pub(super) fn erase_messages(
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
pub(super) fn prune_messages(
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

// --- Messages ------------------------------------------------------------------------------------------------------

/// At the end of the table.
const INSERT_MESSAGE: &str = "INSERT INTO messages (id, user_id, content, created_at) VALUES (?1, ?2, ?3, ?4)";

/// By the nonces' primary key.
const FIND_NONCE: &str = "SELECT message_id FROM nonces WHERE day = ?1 AND user_id = ?2 AND nonce = ?3";

/// By the nonces' primary key, which is looked through once for both: whether there is one, and to insert it.
const CLAIM_NONCE: &str =
    "INSERT INTO nonces (day, user_id, nonce, message_id) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";

/// The statements that store the messages of one command, looked up once for all of them.
pub(super) struct StoreMessage<'a> {
    insert_message: CachedStatement<'a>,
    find_nonce: CachedStatement<'a>,
    claim_nonce: CachedStatement<'a>,
}

impl<'a> StoreMessage<'a> {
    pub(super) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_message: connection.prepare_cached(INSERT_MESSAGE)?,
            find_nonce: connection.prepare_cached(FIND_NONCE)?,
            claim_nonce: connection.prepare_cached(CLAIM_NONCE)?,
        })
    }

    /// Notes that `user` calls message `id` by this nonce; or answers which one they called so before, within the days
    /// that are remembered.
    pub(super) fn claim_nonce(
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

    pub(super) fn insert(
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
pub(super) fn delete_old_nonces(connection: &Connection, days: &NonceDays) -> rusqlite::Result<usize> {
    connection.prepare_cached(DELETE_OLD_NONCES)?.execute(params![days.first(), CLEAN_ROWS])
}

/// From the end of the nonces' primary key.
const NONCE_DAY_BEFORE: &str = "SELECT max(day) FROM nonces WHERE day < ?1";

/// The newest days that have nonces, the newest first.
pub(super) fn nonce_days(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
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

pub(super) fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
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
pub(super) fn page(
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
pub(super) fn messages_after(
    connection: &Connection,
    id: MessageId,
    max_messages: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Message>> {
    messages_in(connection, Run { first: id.next(), last: MessageId::new(i64::MAX) }, max_messages, max_bytes)
}

/// The first messages of a run, until `max_messages` or about `max_bytes` of text.
pub(super) fn messages_in(
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
pub(super) fn has_more_after(connection: &Connection, id: MessageId, at_most: u32) -> rusqlite::Result<bool> {
    connection.prepare_cached(ANY_AFTER)?.exists(params![id.get(), at_most])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_commit_waits_for_the_disk_unless_somebody_says_otherwise() {
        for (durability, expected) in [(Durability::Full, 2), (Durability::Normal, 1), (Durability::default(), 2)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("chinwag.db");
            create_private(&path).unwrap();
            let connection = open_writer(&path, durability).unwrap();
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(pragma("synchronous"), expected, "{durability:?}");
        }
    }
}
