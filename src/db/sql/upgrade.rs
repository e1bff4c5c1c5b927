//! The steps from each version of the schema to the next. Those that an older database needs are applied when it is
//! opened or restored, in one transaction.
//!
//! Columns are added at the end of their tables, which rewrites no row however many messages there are.

/// From version 1 on, oldest first.
pub(super) const UPGRADES: [&str; 3] = [INVITES, ROOMS, RECENT_NONCES];

const INVITES: &str = "CREATE TABLE invites (
    digest     BLOB PRIMARY KEY,
    uses_left  INTEGER NOT NULL CHECK (uses_left > 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

const ROOMS: &str = "
ALTER TABLE users ADD COLUMN is_bot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN is_moderator INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN read_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN last_seen INTEGER;
ALTER TABLE users ADD COLUMN invite_id INTEGER;
ALTER TABLE sessions ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN room_id INTEGER NOT NULL DEFAULT 1;
ALTER TABLE messages ADD COLUMN edit INTEGER;
ALTER TABLE messages ADD COLUMN edited_at INTEGER;
ALTER TABLE messages ADD COLUMN reply_to INTEGER;
ALTER TABLE messages ADD COLUMN mentions TEXT;
ALTER TABLE messages ADD COLUMN image_id INTEGER;
ALTER TABLE messages ADD COLUMN reacted INTEGER;
CREATE INDEX messages_by_room ON messages (room_id, id, user_id);
CREATE INDEX messages_by_edit ON messages (room_id, edit) WHERE edit IS NOT NULL;
CREATE TRIGGER messages_reactions AFTER DELETE ON messages WHEN old.reacted IS NOT NULL
BEGIN
    DELETE FROM reactions WHERE message_id = old.id;
END;
CREATE TRIGGER messages_mentions AFTER DELETE ON messages WHEN old.mentions IS NOT NULL
BEGIN
    DELETE FROM mentions WHERE message_id = old.id;
END;
CREATE TRIGGER messages_image AFTER DELETE ON messages WHEN old.image_id IS NOT NULL
BEGIN
    DELETE FROM images WHERE id = old.image_id;
END;
CREATE TABLE deletes (
    id         INTEGER PRIMARY KEY,
    message_id INTEGER NOT NULL UNIQUE,
    room_id    INTEGER NOT NULL,
    by_user    INTEGER NOT NULL
) STRICT;
CREATE INDEX deletes_by_room ON deletes (room_id, id);
CREATE TABLE reactions (
    message_id INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    emoji      TEXT NOT NULL,
    id         INTEGER NOT NULL,
    room_id    INTEGER NOT NULL,
    is_on      INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id, emoji)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX reactions_by_room ON reactions (room_id, id);
CREATE TABLE mentions (
    room_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mentions_by_message ON mentions (message_id);
CREATE TABLE rooms (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    name        TEXT,
    folded      TEXT UNIQUE,
    emoji       TEXT,
    topic       TEXT NOT NULL DEFAULT '',
    archived_at INTEGER,
    emptied_at  INTEGER,
    created_at  INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    pair        TEXT UNIQUE
) STRICT;
INSERT INTO rooms (id, kind, name, folded, created_at, changed) VALUES (1, 1, 'Lobby', 'lobby', 0, 0);
CREATE TABLE members (
    room_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    is_present INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id, room_id);
CREATE VIEW readable (user_id, room_id, kind, archived_at, since) AS
SELECT users.id, rooms.id, rooms.kind, rooms.archived_at, 0
FROM users CROSS JOIN rooms WHERE rooms.kind = 1
UNION ALL
SELECT members.user_id, rooms.id, rooms.kind, rooms.archived_at, members.event
FROM members JOIN rooms ON rooms.id = members.room_id WHERE members.is_present = 1 AND rooms.kind <> 1;
CREATE TABLE reads (
    user_id INTEGER NOT NULL,
    room_id INTEGER NOT NULL,
    id      INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE images (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL,
    message_id INTEGER,
    subtype    TEXT NOT NULL,
    width      INTEGER NOT NULL,
    height     INTEGER NOT NULL,
    alt        TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    bytes      BLOB NOT NULL
) STRICT;
CREATE INDEX images_unnamed ON images (created_at) WHERE message_id IS NULL;
CREATE INDEX images_by_age ON images (created_at) WHERE message_id IS NOT NULL;
ALTER TABLE invites RENAME TO old_invites;
CREATE TABLE invites (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB NOT NULL UNIQUE,
    uses       INTEGER NOT NULL,
    uses_left  INTEGER NOT NULL,
    created_by INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO invites (digest, uses, uses_left, created_at, expires_at)
    SELECT digest, uses_left, uses_left, 0, expires_at FROM old_invites ORDER BY expires_at, digest;
DROP TABLE old_invites;
CREATE TABLE push_subscriptions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint   TEXT NOT NULL UNIQUE,
    user_id    INTEGER NOT NULL,
    session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    keys       BLOB NOT NULL,
    about      INTEGER NOT NULL,
    hides_text INTEGER NOT NULL,
    visited_at INTEGER NOT NULL
) STRICT;
CREATE INDEX push_by_session ON push_subscriptions (session_id);
CREATE INDEX push_by_user ON push_subscriptions (user_id);
CREATE INDEX push_by_visit ON push_subscriptions (visited_at);
CREATE TABLE room_notify (
    user_id INTEGER NOT NULL,
    room_id INTEGER NOT NULL,
    about   INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id)
) STRICT, WITHOUT ROWID;
UPDATE users SET read_from = max((SELECT coalesce(max(id), 0) FROM messages), (SELECT value FROM meta WHERE key = 'high_water'));
";

const RECENT_NONCES: &str = "CREATE TABLE recent_nonces (
    user_id    INTEGER NOT NULL,
    nonce      TEXT NOT NULL,
    day        INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (user_id, nonce)
) STRICT, WITHOUT ROWID";
