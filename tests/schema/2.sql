-- The database of chinwag, version 2. Times are Unix milliseconds.
--
-- A change of this file is a new version: src/db/sql/mod.rs says how an older file gets there.

-- What is true of the whole file. 'epoch' names this history; 'high_water' is the largest message id that was ever
-- deleted, so that ids are never used again; 'proof' is there once a write failed: what was then written to see whether
-- writing works again.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('high_water', 0);

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL COLLATE NOCASE UNIQUE,
    password_hash TEXT NOT NULL,              -- PHC string: argon2id with its parameters
    created_at    INTEGER NOT NULL,
    disabled_at   INTEGER                     -- NULL: may log in
) STRICT;

-- A user who is deleted keeps their row, disabled, without a password, and named '(deleted ID)', which nobody can
-- register: their messages need an author, and renaming one row takes no longer for a million messages than for one.

-- A login. The token itself is not stored, so that this table opens no session.
CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    digest       BLOB NOT NULL UNIQUE,        -- SHA-256 of the token
    user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL             -- to the hour: a write for each request would wear flash out
) STRICT;

CREATE INDEX sessions_by_use ON sessions (last_used_at);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Ids are given by the writer, in commit order. That is the only order there is: created_at is for people.
CREATE TABLE messages (
    id         INTEGER PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER messages_high_water AFTER DELETE ON messages
WHEN old.id > (SELECT value FROM meta WHERE key = 'high_water')
BEGIN
    UPDATE meta SET value = old.id WHERE key = 'high_water';
END;

-- What a user called a message when sending it, so that sending it again is answered with the first id. By day, so
-- that old ones go from one end of the table.
CREATE TABLE nonces (
    day        INTEGER NOT NULL,              -- days since the Unix epoch
    user_id    INTEGER NOT NULL,
    nonce      TEXT NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (day, user_id, nonce)
) STRICT, WITHOUT ROWID;

-- Codes that let somebody register. The code itself is not stored, so that this table lets nobody in.
CREATE TABLE invites (
    digest     BLOB PRIMARY KEY,
    uses_left  INTEGER NOT NULL CHECK (uses_left > 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 0x63686977;
PRAGMA user_version = 2;

INSERT INTO meta (key, value) VALUES ('epoch', '0123456789abcdef');
INSERT INTO users (id, name, password_hash, created_at, disabled_at) VALUES
    (1, 'Ada', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 1700000000000, NULL),
    (2, 'bob', '', 1700000000001, 1700000000002);
-- The digest of '0123456789abcdef', four times over.
INSERT INTO sessions (id, digest, user_id, created_at, last_used_at) VALUES
    (1, x'a8ae6e6ee929abea3afcfc5258c8ccd6f85273e0d4626d26c7279f3250f77c8e', 1, 1700000000000, 9000000000000);
INSERT INTO messages (id, user_id, content, created_at) VALUES
    (3, 1, 'the first that is left', 1700000000003),
    (7, 2, 'zwölf Boxkämpfer 🥊', 1700000000004);
UPDATE meta SET value = 9 WHERE key = 'high_water';
INSERT INTO nonces (day, user_id, nonce, message_id) VALUES (19675, 1, 'n', 3);
INSERT INTO invites (digest, uses_left, expires_at) VALUES (x'00000000000000000000000000000000000000000000000000000000000000ff', 2, 9000000000000);
