//! The queries about people: users, their sessions, invitations.

use std::num::NonZeroU32;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::config::{CLEAN_ROWS, USER_SESSIONS_MAX};
use crate::db::{Credentials, Session};
use crate::model::{Digest, SessionId, UnixMillis, UserId, Username};

/// By the unique index on `name`.
const INSERT_USER: &str = "INSERT INTO users (name, password_hash, created_at) VALUES (?1, ?2, ?3)";

pub(in crate::db) fn insert_user(
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

pub(in crate::db) fn credentials(
    connection: &Connection,
    username: &Username,
) -> rusqlite::Result<Option<Credentials>> {
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

pub(in crate::db) fn insert_session(
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

pub(in crate::db) fn session(
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

pub(in crate::db) fn session_lives(
    connection: &Connection,
    session: SessionId,
    used_after: UnixMillis,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(SESSION_LIVES)?.exists(params![session.0, used_after.0])
}

/// By the sessions' rowid.
const TOUCH_SESSION: &str = "UPDATE sessions SET last_used_at = ?2 WHERE id = ?1";

pub(in crate::db) fn touch_session(
    connection: &Connection,
    session: SessionId,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection.prepare_cached(TOUCH_SESSION)?.execute(params![session.0, now.0])?;
    Ok(())
}

/// By the unique index on `digest`.
const DELETE_SESSION: &str = "DELETE FROM sessions WHERE digest = ?1 RETURNING id";

pub(in crate::db) fn delete_session(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SESSION)?;
    delete.query_row([digest.as_bytes()], |row| row.get(0).map(SessionId)).optional()
}

/// By `sessions_by_user`: the ids, newest first, past the most there may be.
const DELETE_SURPLUS_SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
     (SELECT id FROM sessions WHERE user_id = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2) RETURNING id";

/// Ends a user's oldest logins past [`USER_SESSIONS_MAX`].
pub(in crate::db) fn delete_surplus_sessions(
    connection: &Connection,
    user: UserId,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SURPLUS_SESSIONS)?;
    delete.query_map(params![user.0, USER_SESSIONS_MAX], |row| row.get(0).map(SessionId))?.collect()
}

/// By `sessions_by_use`.
const DELETE_EXPIRED: &str =
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE last_used_at <= ?1 LIMIT ?2) RETURNING id";

pub(in crate::db) fn delete_expired(
    connection: &Connection,
    used_until: UnixMillis,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_EXPIRED)?;
    delete.query_map(params![used_until.0, CLEAN_ROWS], |row| row.get(0).map(SessionId))?.collect()
}

/// By `sessions_by_use`.
const OLDEST_USE: &str = "SELECT min(last_used_at) FROM sessions";

pub(in crate::db) fn oldest_use(connection: &Connection) -> rusqlite::Result<Option<UnixMillis>> {
    connection.prepare_cached(OLDEST_USE)?.query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.map(UnixMillis)))
}

// --- Invitations ---------------------------------------------------------------------------------------------------

const INSERT_INVITE: &str = "INSERT INTO invites (digest, uses_left, expires_at) VALUES (?1, ?2, ?3)";

pub(in crate::db) fn insert_invite(
    connection: &Connection,
    digest: &Digest,
    uses: NonZeroU32,
    expires_at: UnixMillis,
) -> rusqlite::Result<()> {
    connection.execute(INSERT_INVITE, params![digest.as_bytes(), uses.get(), expires_at.0])?;
    Ok(())
}

/// By the invitations' primary key.
const INVITE_USES: &str = "SELECT uses_left FROM invites WHERE digest = ?1 AND expires_at > ?2";

/// How many may still register with an invitation.
pub(in crate::db) fn invite_uses(connection: &Connection, digest: &Digest, now: UnixMillis) -> rusqlite::Result<u32> {
    let uses = connection.query_row(INVITE_USES, params![digest.as_bytes(), now.0], |row| row.get(0)).optional();
    Ok(uses?.unwrap_or(0))
}

/// By the invitations' primary key.
const USE_INVITE: &str = "UPDATE invites SET uses_left = uses_left - 1 WHERE digest = ?1";

/// By the invitations' primary key.
const DELETE_INVITE: &str = "DELETE FROM invites WHERE digest = ?1";

/// Counts one use of an invitation that has `uses` left.
pub(in crate::db) fn use_invite(connection: &Connection, digest: &Digest, uses: u32) -> rusqlite::Result<()> {
    let query = if uses == 1 { DELETE_INVITE } else { USE_INVITE };
    connection.execute(query, [digest.as_bytes()])?;
    Ok(())
}

/// Through all of the table, which holds what an administrator gave out and nobody has used up.
const DELETE_EXPIRED_INVITES: &str = "DELETE FROM invites WHERE expires_at <= ?1";

pub(in crate::db) fn delete_expired_invites(connection: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE_EXPIRED_INVITES)?.execute([now.0])?;
    Ok(())
}

// --- Administration ------------------------------------------------------------------------------------------------

/// By the unique index on `name`.
const FIND_USER: &str = "SELECT id FROM users WHERE name = ?1";

pub(in crate::db) fn find_user(connection: &Connection, username: &Username) -> rusqlite::Result<Option<UserId>> {
    connection.query_row(FIND_USER, [username.as_str()], |row| row.get(0).map(UserId)).optional()
}

/// By rowid.
const HAS_USERS: &str = "SELECT EXISTS (SELECT 1 FROM users)";

pub(in crate::db) fn has_users(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(HAS_USERS, [], |row| row.get(0))
}

/// By rowid.
const SET_PASSWORD: &str = "UPDATE users SET password_hash = ?2 WHERE id = ?1";

pub(in crate::db) fn set_password(connection: &Connection, user: UserId, password_hash: &str) -> rusqlite::Result<()> {
    connection.execute(SET_PASSWORD, params![user.0, password_hash])?;
    Ok(())
}

/// By rowid.
const DISABLE_USER: &str = "UPDATE users SET disabled_at = coalesce(disabled_at, ?2) WHERE id = ?1";

pub(in crate::db) fn disable_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(DISABLE_USER, params![user.0, now.0])?;
    Ok(())
}

/// By rowid.
const ENABLE_USER: &str = "UPDATE users SET disabled_at = NULL WHERE id = ?1";

pub(in crate::db) fn enable_user(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    connection.execute(ENABLE_USER, [user.0])?;
    Ok(())
}

/// By rowid. No password has an empty hash.
const BURY_USER: &str = "UPDATE users SET name = ?2, password_hash = '', disabled_at = ?3 WHERE id = ?1";

/// Leaves of a user what their messages need.
pub(in crate::db) fn bury_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(BURY_USER, params![user.0, Username::deleted(user).as_str(), now.0])?;
    Ok(())
}

/// By `sessions_by_user`.
const DELETE_SESSIONS_OF: &str = "DELETE FROM sessions WHERE user_id = ?1 RETURNING id";

pub(in crate::db) fn delete_sessions_of(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SESSIONS_OF)?;
    delete.query_map([user.0], |row| row.get(0).map(SessionId))?.collect()
}

/// By rowid.
const DELETE_SESSION_BY_ID: &str = "DELETE FROM sessions WHERE id = ?1";

/// Whether there was such a session.
pub(in crate::db) fn delete_session_by_id(connection: &Connection, session: SessionId) -> rusqlite::Result<bool> {
    Ok(connection.execute(DELETE_SESSION_BY_ID, [session.0])? > 0)
}
