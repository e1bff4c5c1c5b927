-- The database of chinwag, version 4. Times are Unix milliseconds.
--
-- A change of this file is a new version: src/db/sql/upgrade.rs says how an older file gets there.

-- What is true of the whole file. 'epoch' names this history; 'high_water' is the largest id of an event that is not,
-- or no longer, the id of a message, so that ids are never used again; 'reserved' is there while a server runs: the id up
-- to which it may have given ids that a power failure has taken from here; 'gap' says how many such ids were skipped, and
-- 'gap_ends' up to which; 'proof' is there once a write failed: what was then written to see whether writing works
-- again; 'nonce_day' is the day of the last nonces, and 'nonce_day_lasted' for how many milliseconds a server has run
-- in it; 'believed' is the time by which things expired last, and 'doubted' for how many milliseconds a server has run
-- while the clock was further ahead.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('high_water', 0);

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL COLLATE NOCASE UNIQUE,
    password_hash TEXT NOT NULL,              -- PHC string: argon2id with its parameters; empty: no password fits
    created_at    INTEGER NOT NULL,
    disabled_at   INTEGER,                    -- NULL: may log in
    is_bot        INTEGER NOT NULL DEFAULT 0, -- has one session, which does not expire
    is_moderator  INTEGER NOT NULL DEFAULT 0,
    read_from     INTEGER NOT NULL DEFAULT 0, -- the last event before they came: open rooms are read up to here
    last_seen     INTEGER,
    invite_id     INTEGER                     -- with which invitation they came
) STRICT;

-- A user who is deleted keeps their row, disabled, without a password, and named '(deleted ID)', which nobody can
-- register: their messages need an author, and renaming one row takes no longer for a million messages than for one.

-- A login. The token itself is not stored, so that this table opens no session.
CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    digest       BLOB NOT NULL UNIQUE,        -- SHA-256 of the token
    user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,            -- to the hour: a write for each request would wear flash out
    client       TEXT NOT NULL DEFAULT ''     -- a short form of the User-Agent
) STRICT;

CREATE INDEX sessions_by_use ON sessions (last_used_at);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Events (messages, edits, deletes, reactions, changes of rooms and of their members) have ids of one count, given by
-- the writer in commit order. That is the only order there is: created_at is for people.
CREATE TABLE messages (
    id         INTEGER PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    room_id    INTEGER NOT NULL DEFAULT 1,
    edit       INTEGER,                       -- the event of the last edit; the text before it is not kept
    edited_at  INTEGER,
    reply_to   INTEGER,                       -- the message that is answered
    mentions   TEXT,                          -- names as they were when it was stored, a space between them
    image_id   INTEGER,
    reacted    INTEGER                        -- 1: has rows in reactions
) STRICT;

-- The author stands in the index so that unread messages are counted without reading them.
CREATE INDEX messages_by_room ON messages (room_id, id, user_id);
CREATE INDEX messages_by_edit ON messages (room_id, edit) WHERE edit IS NOT NULL;

CREATE TRIGGER messages_high_water AFTER DELETE ON messages
WHEN old.id > (SELECT value FROM meta WHERE key = 'high_water')
BEGIN
    UPDATE meta SET value = old.id WHERE key = 'high_water';
END;

-- What belongs to a message goes with it, whatever takes it away.
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

-- What is left of a message that somebody took away: that it was there.
CREATE TABLE deletes (
    id         INTEGER PRIMARY KEY,           -- the event
    message_id INTEGER NOT NULL UNIQUE,
    room_id    INTEGER NOT NULL,
    by_user    INTEGER NOT NULL
) STRICT;

CREATE INDEX deletes_by_room ON deletes (room_id, id);

-- The last word of each user with each emoji on each message. One that was taken back stays, for those who come back.
CREATE TABLE reactions (
    message_id INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    emoji      TEXT NOT NULL,
    id         INTEGER NOT NULL,              -- the event
    room_id    INTEGER NOT NULL,
    is_on      INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id, emoji)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX reactions_by_room ON reactions (room_id, id);

-- Whom a message names; user 0 is everybody.
CREATE TABLE mentions (
    room_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id, message_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX mentions_by_message ON mentions (message_id);

CREATE TABLE rooms (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        INTEGER NOT NULL CHECK (kind IN (1, 2, 3)), -- open, private, direct
    name        TEXT,                         -- NULL: a direct room
    folded      TEXT UNIQUE,                  -- the name of an open room without regard to case
    emoji       TEXT,
    topic       TEXT NOT NULL DEFAULT '',
    archived_at INTEGER,
    emptied_at  INTEGER,                      -- when the last member went: the room is removed within a day
    created_at  INTEGER NOT NULL,
    changed     INTEGER NOT NULL,             -- the event of the last change
    pair        TEXT UNIQUE                   -- of a direct room: its two users, the smaller id first
) STRICT;

INSERT INTO rooms (id, kind, name, folded, created_at, changed) VALUES (1, 1, 'Lobby', 'lobby', 0, 0);

-- Who is, or was, in a private or direct room. A row outlives its room, so that who comes back is told.
CREATE TABLE members (
    room_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    event      INTEGER NOT NULL,              -- added or removed by
    is_present INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_user ON members (user_id, room_id);

-- The one place that says who may read which room, and from which event on.
CREATE VIEW readable (user_id, room_id, kind, archived_at, since) AS
SELECT users.id, rooms.id, rooms.kind, rooms.archived_at, 0
FROM users CROSS JOIN rooms WHERE rooms.kind = 1
UNION ALL
SELECT members.user_id, rooms.id, rooms.kind, rooms.archived_at, members.event
FROM members JOIN rooms ON rooms.id = members.room_id WHERE members.is_present = 1 AND rooms.kind <> 1;

-- How far somebody has read in a room, where that is further than where they came in.
CREATE TABLE reads (
    user_id INTEGER NOT NULL,
    room_id INTEGER NOT NULL,
    id      INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id)
) STRICT, WITHOUT ROWID;

-- The bytes stand last, so that what is said of a picture is read without them.
CREATE TABLE images (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL,
    message_id INTEGER,                       -- NULL: no message names it yet
    subtype    TEXT NOT NULL,                 -- of image/
    width      INTEGER NOT NULL,
    height     INTEGER NOT NULL,
    alt        TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    bytes      BLOB NOT NULL
) STRICT;

CREATE INDEX images_unnamed ON images (created_at) WHERE message_id IS NULL;
CREATE INDEX images_by_age ON images (created_at) WHERE message_id IS NOT NULL;

-- What a user called an event when sending it, so that sending it again is answered with the first id. By day, so
-- that old ones go from one end of the table.
CREATE TABLE nonces (
    day        INTEGER NOT NULL,              -- days since the Unix epoch
    user_id    INTEGER NOT NULL,
    nonce      TEXT NOT NULL,
    message_id INTEGER NOT NULL,              -- the event: a message, an edit, a delete, a reaction
    PRIMARY KEY (day, user_id, nonce)
) STRICT, WITHOUT ROWID;

-- Nonces of commits of many people, until they are moved to the table above: such a commit then writes the few pages of
-- this table, and not a page of that one for each person.
CREATE TABLE recent_nonces (
    user_id    INTEGER NOT NULL,
    nonce      TEXT NOT NULL,
    day        INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (user_id, nonce)
) STRICT, WITHOUT ROWID;

-- Codes that let somebody register. The code itself is not stored, so that this table lets nobody in.
CREATE TABLE invites (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB NOT NULL UNIQUE,
    uses       INTEGER NOT NULL,
    uses_left  INTEGER NOT NULL,
    created_by INTEGER,                       -- NULL: from a shell
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Where a browser is reached when its page is not open, and what it wants to hear of.
CREATE TABLE push_subscriptions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint   TEXT NOT NULL UNIQUE,          -- the push service's URL for it
    user_id    INTEGER NOT NULL,
    session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    keys       BLOB NOT NULL,                 -- the browser's: p256dh and auth
    about      INTEGER NOT NULL,              -- 1: every message, 2: mentions
    hides_text INTEGER NOT NULL,
    visited_at INTEGER NOT NULL
) STRICT;

CREATE INDEX push_by_session ON push_subscriptions (session_id);
CREATE INDEX push_by_user ON push_subscriptions (user_id);
CREATE INDEX push_by_visit ON push_subscriptions (visited_at);

-- What somebody wants to be told of in a room, where they have said so.
CREATE TABLE room_notify (
    user_id INTEGER NOT NULL,
    room_id INTEGER NOT NULL,
    about   INTEGER NOT NULL,                 -- 1: every message, 2: mentions, 3: nothing
    PRIMARY KEY (user_id, room_id)
) STRICT, WITHOUT ROWID;
