//! The queries about users, their sessions, and invitations: the writer changes them, the reader looks up who logs in
//! and lists them.

use std::num::NonZeroU32;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::db::data::{Credentials, InviteRow, LoginRow, Sender, Session};
use crate::model::{MessageId, SessionId, UnixMillis, UserId, Username};
use crate::secret::Digest;

/// By the unique index on `name`.
const INSERT_USER: &str = "INSERT INTO users (name, password_hash, created_at, read_from, is_moderator) \
     VALUES (?1, ?2, ?3, ?4, NOT EXISTS (SELECT 1 FROM users WHERE is_bot = 0)) RETURNING id";

pub(in crate::db) fn insert_user(
    connection: &Connection,
    username: &Username,
    password_hash: &str,
    now: UnixMillis,
    last_id: MessageId,
) -> rusqlite::Result<UserId> {
    let mut insert = connection.prepare_cached(INSERT_USER)?;
    let values = params![username.as_str(), password_hash, now.0, last_id.get()];
    insert.query_row(values, |row| row.get(0).map(UserId))
}

/// By the unique index on `name`.
const CREDENTIALS: &str =
    "SELECT id, name, password_hash FROM users WHERE name = ?1 AND disabled_at IS NULL AND is_bot = 0";

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

/// By the users' rowid. Nothing is inserted if the user was disabled or got another password while the claimed one was
/// being verified, nor if there is a session with this digest.
const INSERT_SESSION: &str = "INSERT INTO sessions (digest, user_id, created_at, last_used_at, client) \
     SELECT ?1, id, ?4, ?4, ?5 FROM users WHERE id = ?2 AND password_hash = ?3 AND disabled_at IS NULL \
     ON CONFLICT (digest) DO NOTHING RETURNING id";

pub(in crate::db) fn insert_session(
    connection: &Connection,
    digest: &Digest,
    (user, password_hash): (UserId, &str),
    client: &str,
    now: UnixMillis,
) -> rusqlite::Result<Option<SessionId>> {
    let mut insert = connection.prepare_cached(INSERT_SESSION)?;
    let values = params![digest.as_bytes(), user.0, password_hash, now.0, client];
    let inserted = insert.query_row(values, |row| row.get(0));
    inserted.map(SessionId).optional()
}

/// By the unique index on `digest` and the users' rowid.
const SESSION: &str = "SELECT s.id, s.user_id, u.name, s.last_used_at, u.is_bot, u.is_moderator \
     FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.digest = ?1 AND (s.last_used_at > ?2 OR u.is_bot) AND u.disabled_at IS NULL";

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
            is_bot: row.get(4)?,
            is_moderator: row.get(5)?,
        })
    };
    connection.prepare_cached(SESSION)?.query_row(params![digest.as_bytes(), used_after.0], read).optional()
}

/// By the sessions' rowid and the users'.
const SESSION_LIVES: &str = "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.id = ?1 AND (s.last_used_at > ?2 OR u.is_bot) AND u.disabled_at IS NULL";

pub(in crate::db) fn session_lives(
    connection: &Connection,
    session: SessionId,
    used_after: UnixMillis,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(SESSION_LIVES)?.exists(params![session.0, used_after.0])
}

/// By the sessions' rowid and the users'.
const SENDER_LIVES: &str = "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.id = ?1 AND (s.last_used_at > ?2 OR u.is_bot) AND s.user_id = ?3 AND u.disabled_at IS NULL";

/// Whether a sender's session is live, and is theirs.
pub(in crate::db) fn sender_lives(
    connection: &Connection,
    sender: &Sender,
    expired_at: UnixMillis,
) -> rusqlite::Result<bool> {
    user_lives(connection, sender.session, sender.user, expired_at)
}

/// Whether a session is live, and this user's.
pub(in crate::db) fn user_lives(
    connection: &Connection,
    session: SessionId,
    user: UserId,
    expired_at: UnixMillis,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(SENDER_LIVES)?.exists(params![session.0, expired_at.0, user.0])
}

/// By rowid. Later only: it may be the clock that is behind.
const SEE_USER: &str = "UPDATE users SET last_seen = max(coalesce(last_seen, 0), ?2) WHERE id = ?1";

/// Notes that a user was there.
pub(in crate::db) fn see_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(SEE_USER)?.execute(params![user.0, now.0])?;
    Ok(())
}

/// By `sessions_by_use`, and the last rowid.
const WRITTEN_LAST: &str = "SELECT max(coalesce((SELECT max(last_used_at) FROM sessions), 0), \
     coalesce((SELECT created_at FROM messages ORDER BY id DESC LIMIT 1), 0))";

/// The latest time in the database, if there is one.
pub(in crate::db) fn written_last(connection: &Connection) -> rusqlite::Result<Option<UnixMillis>> {
    let written: i64 = connection.query_row(WRITTEN_LAST, [], |row| row.get(0))?;
    Ok((written > 0).then_some(UnixMillis(written)))
}

/// By the sessions' rowid. It only rises, since the clock may be behind.
const TOUCH_SESSION: &str = "UPDATE sessions SET last_used_at = max(last_used_at, ?2) WHERE id = ?1 RETURNING user_id";

pub(in crate::db) fn touch_session(
    connection: &Connection,
    session: SessionId,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let mut touch = connection.prepare_cached(TOUCH_SESSION)?;
    let user = touch.query_row(params![session.0, now.0], |row| row.get(0).map(UserId)).optional()?;
    user.map_or(Ok(()), |user| see_user(connection, user, now))
}

/// By the unique index on `digest`.
const DELETE_SESSION: &str = "DELETE FROM sessions WHERE digest = ?1 RETURNING id, user_id";

/// Ends a session, whose user was there until now.
pub(in crate::db) fn delete_session(
    connection: &Connection,
    digest: &Digest,
    now: UnixMillis,
) -> rusqlite::Result<Option<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SESSION)?;
    let ended = delete.query_row([digest.as_bytes()], |row| Ok((SessionId(row.get(0)?), row.get(1)?))).optional()?;
    if let Some((_, user)) = ended {
        see_user(connection, UserId(user), now)?;
    }
    Ok(ended.map(|(session, _)| session))
}

/// By `sessions_by_user`: the newest ids first, without those that stay.
const DELETE_SURPLUS_SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
     (SELECT id FROM sessions WHERE user_id = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2) RETURNING id";

/// Ends all of a user's sessions except the newest `keep`.
pub(in crate::db) fn delete_surplus_sessions(
    connection: &Connection,
    user: UserId,
    keep: u32,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_SURPLUS_SESSIONS)?;
    delete.query_map(params![user.0, keep], |row| row.get(0).map(SessionId))?.collect()
}

/// By `sessions_by_use`, whose order this is; the few sessions of bots are passed over.
const DELETE_EXPIRED: &str = "DELETE FROM sessions WHERE id IN \
     (SELECT s.id FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.last_used_at <= ?1 AND u.is_bot = 0 \
      ORDER BY s.last_used_at, s.id LIMIT ?2) RETURNING id";

pub(in crate::db) fn delete_expired(
    connection: &Connection,
    used_until: UnixMillis,
    rows: u32,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_EXPIRED)?;
    delete.query_map(params![used_until.0, rows], |row| row.get(0).map(SessionId))?.collect()
}

/// By `sessions_by_use`.
const OLDEST_USE: &str = "SELECT s.last_used_at FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE u.is_bot = 0 ORDER BY s.last_used_at LIMIT 1";

pub(in crate::db) fn oldest_use(connection: &Connection) -> rusqlite::Result<Option<UnixMillis>> {
    connection.prepare_cached(OLDEST_USE)?.query_row([], |row| row.get(0).map(UnixMillis)).optional()
}

// --- Invitations ---------------------------------------------------------------------------------------------------

/// By the unique index on `digest`.
const INSERT_INVITE: &str = "INSERT INTO invites (digest, uses, uses_left, created_by, created_at, expires_at) \
     VALUES (?1, ?2, ?2, ?3, ?4, ?5) ON CONFLICT (digest) DO NOTHING RETURNING id";

/// The new invitation; `None` if its digest exists already.
pub(in crate::db) fn insert_invite(
    connection: &Connection,
    digest: &Digest,
    uses: NonZeroU32,
    created_by: Option<UserId>,
    now: UnixMillis,
    expires_at: UnixMillis,
) -> rusqlite::Result<Option<i64>> {
    let by = created_by.map(|user| user.0);
    let values = params![digest.as_bytes(), uses.get(), by, now.0, expires_at.0];
    connection.query_row(INSERT_INVITE, values, |row| row.get(0)).optional()
}

/// By the unique index on `digest`, and rowid. Those of a user who is banned or deleted let nobody in.
const FIND_INVITE: &str = "SELECT id FROM invites WHERE digest = ?1 AND expires_at > ?2 AND uses_left > 0 \
     AND NOT EXISTS (SELECT 1 FROM users WHERE id = created_by AND disabled_at IS NOT NULL)";

/// An invitation that is still good for a registration.
pub(in crate::db) fn find_invite(
    connection: &Connection,
    digest: &Digest,
    now: UnixMillis,
) -> rusqlite::Result<Option<i64>> {
    connection.query_row(FIND_INVITE, params![digest.as_bytes(), now.0], |row| row.get(0)).optional()
}

/// By rowid. One that is used up stays, so that it can be listed with its users.
const USE_INVITE: &str = "UPDATE invites SET uses_left = uses_left - 1 WHERE id = ?1";

/// By rowid.
const INVITED_BY: &str = "UPDATE users SET invite_id = ?2 WHERE id = ?1";

/// Counts one use of an invitation, by a user who is new.
pub(in crate::db) fn use_invite(connection: &Connection, invite: i64, user: UserId) -> rusqlite::Result<()> {
    connection.execute(USE_INVITE, [invite])?;
    connection.execute(INVITED_BY, params![user.0, invite])?;
    Ok(())
}

/// Through all of the table. Those that somebody came by stay, so that it can be told: no more than there are accounts.
const DELETE_EXPIRED_INVITES: &str = "DELETE FROM invites WHERE expires_at <= ?1 AND uses_left = uses";

pub(in crate::db) fn delete_expired_invites(connection: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE_EXPIRED_INVITES)?.execute([now.0])?;
    Ok(())
}

/// By rowid.
const DELETE_INVITE: &str = "DELETE FROM invites WHERE id = ?1 AND (?2 IS NULL OR created_by = ?2)";

/// Takes back an invitation, only a given user's if there is one. Returns whether it existed.
pub(in crate::db) fn delete_invite(connection: &Connection, invite: i64, of: Option<UserId>) -> rusqlite::Result<bool> {
    Ok(connection.execute(DELETE_INVITE, params![invite, of.map(|user| user.0)])? > 0)
}

/// Through all of the table.
const COUNT_INVITES_OF: &str =
    "SELECT count(*) FROM invites WHERE created_by = ?1 AND expires_at > ?2 AND uses_left > 0";

pub(in crate::db) fn count_invites_of(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<u32> {
    connection.query_row(COUNT_INVITES_OF, params![user.0, now.0], |row| row.get(0))
}

/// Through all of the table, and by the users' rowid.
const INVITES: &str = "SELECT i.id, i.uses, i.uses_left, u.name, i.created_at, i.expires_at \
     FROM invites i LEFT JOIN users u ON u.id = i.created_by \
     WHERE (i.expires_at > ?2 OR i.uses_left < i.uses) AND (?1 IS NULL OR i.created_by = ?1) ORDER BY i.id DESC LIMIT ?3";

/// Through all users, once for all invitations that are listed.
const CAME_BY: &str = "SELECT invite_id, name FROM users WHERE invite_id BETWEEN ?1 AND ?2 ORDER BY id";

/// The newest invitations that have not expired or have users, of one user or of all.
pub(in crate::db) fn invites(
    connection: &Connection,
    of: Option<UserId>,
    now: UnixMillis,
    at_most: u32,
) -> rusqlite::Result<Vec<InviteRow>> {
    let read = |row: &Row<'_>| {
        let created_by: Option<String> = row.get(3)?;
        Ok(InviteRow {
            id: row.get(0)?,
            uses: row.get(1)?,
            left: row.get(2)?,
            created_by: created_by.as_deref().map(Username::from_database),
            created_at: UnixMillis(row.get(4)?),
            expires_at: UnixMillis(row.get(5)?),
            users: Vec::new(),
        })
    };
    let mut statement = connection.prepare(INVITES)?;
    let found = statement.query_map(params![of.map(|user| user.0), now.0, at_most], read)?;
    let mut found: Vec<InviteRow> = found.collect::<rusqlite::Result<_>>()?;
    let (Some(newest), Some(oldest)) = (found.first(), found.last()) else { return Ok(found) };
    let mut users = connection.prepare(CAME_BY)?;
    let mut users = users.query([oldest.id, newest.id])?;
    while let Some(row) = users.next()? {
        let id: i64 = row.get(0)?;
        if let Ok(at) = found.binary_search_by(|invite| id.cmp(&invite.id))
            && found[at].users.len() < at_most as usize
        {
            found[at].users.push(Username::from_database(row.get_ref(1)?.as_str()?));
        }
    }
    Ok(found)
}

// --- One's own account ---------------------------------------------------------------------------------------------

/// By rowid.
const HAS_PASSWORD: &str = "SELECT 1 FROM users WHERE id = ?1 AND password_hash = ?2";

pub(in crate::db) fn has_password(connection: &Connection, user: UserId, hash: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached(HAS_PASSWORD)?.exists(params![user.0, hash])
}

/// By rowid.
const REPLACE_PASSWORD: &str = "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2";

/// Replaces a user's password, if they still have the old one. Returns whether they had.
pub(in crate::db) fn replace_password(
    connection: &Connection,
    user: UserId,
    old: &str,
    new: &str,
) -> rusqlite::Result<bool> {
    Ok(connection.execute(REPLACE_PASSWORD, params![user.0, old, new])? > 0)
}

/// By `sessions_by_user`.
const DELETE_OTHER_SESSIONS: &str = "DELETE FROM sessions WHERE user_id = ?1 AND id <> ?2 RETURNING id";

pub(in crate::db) fn delete_other_sessions(
    connection: &Connection,
    user: UserId,
    kept: SessionId,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut delete = connection.prepare_cached(DELETE_OTHER_SESSIONS)?;
    delete.query_map(params![user.0, kept.0], |row| row.get(0).map(SessionId))?.collect()
}

/// By rowid.
const DELETE_SESSION_OF: &str = "DELETE FROM sessions WHERE id = ?1 AND user_id = ?2";

/// Returns whether the user had such a session.
pub(in crate::db) fn delete_session_of(
    connection: &Connection,
    user: UserId,
    session: SessionId,
) -> rusqlite::Result<bool> {
    Ok(connection.execute(DELETE_SESSION_OF, params![session.0, user.0])? > 0)
}

/// By `sessions_by_user`.
const SESSIONS_OF: &str = "SELECT id, created_at, last_used_at, client FROM sessions \
     WHERE user_id = ?1 AND last_used_at > ?2 ORDER BY last_used_at DESC, id DESC";

pub(in crate::db) fn sessions_of(
    connection: &Connection,
    user: UserId,
    used_after: UnixMillis,
) -> rusqlite::Result<Vec<LoginRow>> {
    let read = |row: &Row<'_>| {
        Ok(LoginRow {
            id: SessionId(row.get(0)?),
            created_at: UnixMillis(row.get(1)?),
            last_used_at: UnixMillis(row.get(2)?),
            client: row.get(3)?,
        })
    };
    connection.prepare_cached(SESSIONS_OF)?.query_map(params![user.0, used_after.0], read)?.collect()
}

/// Through all users.
const COUNT_MODERATORS: &str = "SELECT count(*) FROM users WHERE is_moderator = 1 AND disabled_at IS NULL";

pub(in crate::db) fn count_moderators(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row(COUNT_MODERATORS, [], |row| row.get(0))
}

// --- Administration ------------------------------------------------------------------------------------------------

/// By the unique index on `name`.
const FIND_ACTIVE_USER: &str = "SELECT id FROM users WHERE name = ?1 AND disabled_at IS NULL";

pub(in crate::db) fn find_active_user(
    connection: &Connection,
    username: &Username,
) -> rusqlite::Result<Option<UserId>> {
    let mut find = connection.prepare_cached(FIND_ACTIVE_USER)?;
    find.query_row([username.as_str()], |row| row.get(0).map(UserId)).optional()
}

/// By the unique index on `name`.
const FIND_USER: &str = "SELECT id FROM users WHERE name = ?1";

pub(in crate::db) fn find_user(connection: &Connection, username: &Username) -> rusqlite::Result<Option<UserId>> {
    connection.query_row(FIND_USER, [username.as_str()], |row| row.get(0).map(UserId)).optional()
}

/// By rowid.
const HAS_USERS: &str = "SELECT EXISTS (SELECT 1 FROM users WHERE is_bot = 0)";

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

/// By rowid. No password has the empty hash.
const ANONYMIZE_USER: &str = "UPDATE users SET name = ?2, password_hash = '', disabled_at = ?3 WHERE id = ?1";

/// By the beginnings of the primary keys.
const FORGET_HABITS: [&str; 2] = ["DELETE FROM reads WHERE user_id = ?1", "DELETE FROM room_notify WHERE user_id = ?1"];

/// Removes everything about a user except the row that their messages refer to.
pub(in crate::db) fn anonymize_user(connection: &Connection, user: UserId, now: UnixMillis) -> rusqlite::Result<()> {
    connection.execute(ANONYMIZE_USER, params![user.0, Username::deleted(user).as_str(), now.0])?;
    for query in FORGET_HABITS {
        connection.execute(query, [user.0])?;
    }
    Ok(())
}

/// By rowid.
const SET_MODERATOR: &str = "UPDATE users SET is_moderator = ?2 WHERE id = ?1";

pub(in crate::db) fn set_moderator(connection: &Connection, user: UserId, is_moderator: bool) -> rusqlite::Result<()> {
    connection.execute(SET_MODERATOR, params![user.0, is_moderator])?;
    Ok(())
}

/// By the unique index on `name`.
const INSERT_BOT: &str = "INSERT INTO users (name, password_hash, created_at, read_from, is_bot) \
     VALUES (?1, '', ?2, ?3, 1) ON CONFLICT (name) DO NOTHING";

/// Returns whether the name was free.
pub(in crate::db) fn insert_bot(
    connection: &Connection,
    username: &Username,
    now: UnixMillis,
    last_id: MessageId,
) -> rusqlite::Result<bool> {
    Ok(connection.execute(INSERT_BOT, params![username.as_str(), now.0, last_id.get()])? > 0)
}

/// By the unique index on `name`.
const INSERT_BOT_SESSION: &str = "INSERT INTO sessions (digest, user_id, created_at, last_used_at, client) \
     SELECT ?1, id, ?3, ?3, 'bot' FROM users WHERE name = ?2 AND is_bot = 1 ON CONFLICT (digest) DO NOTHING";

/// Inserts the one session of a bot.
pub(in crate::db) fn insert_bot_session(
    connection: &Connection,
    digest: &Digest,
    bot: &Username,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection.execute(INSERT_BOT_SESSION, params![digest.as_bytes(), bot.as_str(), now.0])?;
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

/// Returns whether there was such a session.
pub(in crate::db) fn delete_session_by_id(connection: &Connection, session: SessionId) -> rusqlite::Result<bool> {
    Ok(connection.execute(DELETE_SESSION_BY_ID, [session.0])? > 0)
}
