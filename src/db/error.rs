//! What can go wrong with a database, in one place: the errors of opening, copying and importing contain each other.

use std::io;
use std::path::PathBuf;

/// Why a request to the database was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another user has this name; upper and lower case are the same.
    #[error("the username is taken")]
    UsernameTaken,
    /// There is no such invitation, or it has expired or is used up.
    #[error("invalid or expired invitation")]
    InvalidInvite,
    /// The session was logged out or has expired, or its user was disabled.
    #[error("the session has ended")]
    SessionEnded,
    /// The database fails, does not answer in time, is stopping, or its queue is full. If a commit failed or the answer
    /// was late, the messages may be stored all the same.
    #[error("the database is unavailable")]
    Unavailable,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or opened.
    #[error("the file cannot be opened")]
    Io(#[from] io::Error),
    /// Its tables or triggers are not those of this version.
    #[error("its schema is not that of a chinwag database")]
    Altered,
    /// SQLite cannot use the file.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The file was made by a newer chinwag.
    #[error("it has version {found}, made by a newer chinwag; this one knows version {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// The version this program makes.
        known: i64,
    },
    /// The file is the database of another program.
    #[error("not a chinwag database")]
    Foreign,
    /// The file is not new, and has no tables.
    #[error(
        "it has no tables, though it is not new: a copy without its -wal file, perhaps (chinwag backup makes whole copies)"
    )]
    NoTables,
    /// Another process has it open, or its lock file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It follows the log of a cluster: a write that bypasses the log would be on no other node.
    #[error("it belongs to a cluster: only a server with --log may write to it")]
    Clustered,
    /// It does not follow a log.
    #[cfg(feature = "cluster")]
    #[error(
        "it does not belong to a cluster: make one with chinwag cluster init, or start from a backup of a node's database"
    )]
    NotClustered,
    /// It has an older version and could not be copied before the upgrade.
    #[error("the backup before the upgrade failed")]
    Backup(#[source] Box<SnapshotError>),
}

/// Why a database cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it open.
    #[error("another chinwag has it open")]
    Held,
    /// Another process has the same file open under another name.
    #[error("another chinwag has the same file open under another name")]
    HeldByAnotherName,
    /// The path of the lock file is taken by something else.
    #[error("{0} is a link or not a regular file: not used")]
    NotAFile(PathBuf),
    /// The lock file cannot be created or locked.
    #[error("its lock file cannot be used")]
    Io(#[from] io::Error),
}

/// Why a database cannot be read, copied or replaced.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A file cannot be created, moved or removed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process has the database.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It has an earlier version, which cannot be exported.
    #[error("it has version {0}: starting a server on it, or restoring it, upgrades it")]
    Old(i64),
    /// It is damaged; the text is the first problem that was found.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Why an export cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite failed, or a row breaks a constraint.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database is not empty.
    #[error("the database has users or messages: an import needs an empty one")]
    NotEmpty,
    /// A record is invalid; the text says why.
    #[error("{0}")]
    Record(String),
    /// The ids of messages are not ascending.
    #[error("message {0} is out of order")]
    OutOfOrder(i64),
}

/// Why something that a member wrote was refused. Nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is no such room or message for this user.
    #[error("there is no such room or message")]
    NotFound,
    /// The message was deleted.
    #[error("the message was deleted")]
    Gone,
    /// It is somebody else's message.
    #[error("this is not allowed")]
    Forbidden,
    /// The room is archived: it can only be read.
    #[error("the room is archived")]
    Archived,
    /// The message was stored too long ago to be edited.
    #[error("the message is too old to be edited")]
    TooOld,
}

/// Why nothing was done to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There is no such room for this user, or nobody of this name.
    #[error("there is no such room or user")]
    NotFound,
    /// This user may not do it, or nobody may.
    #[error("this is not allowed")]
    Forbidden,
    /// Another open room has this name.
    #[error("another room has this name")]
    NameTaken,
    /// An open room has no members.
    #[error("an open room has no members")]
    NoMembers,
    /// There are as many rooms as allowed.
    #[error("there are too many rooms")]
    TooMany,
    /// The session was logged out, has expired, or its user was disabled.
    #[error("the session has ended")]
    SessionEnded,
    /// The database fails or does not answer in time; the change may still be made.
    #[error("the database is unavailable")]
    Unavailable,
}

/// Why a picture was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Its owner has as many pictures outside messages as allowed.
    #[error("too many pictures wait for a message")]
    TooMany,
    /// The session was logged out, has expired, or its user was disabled.
    #[error("the session has ended")]
    SessionEnded,
    /// The database fails or does not answer in time.
    #[error("the database is unavailable")]
    Unavailable,
}

/// Why nothing was done to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such user, session or invitation for this user.
    #[error("there is no such user, session or invitation")]
    NotFound,
    /// This user may not do it.
    #[error("this is not allowed")]
    Forbidden,
    /// The user has another password by now.
    #[error("wrong password")]
    WrongPassword,
    /// The user has as many invitations as allowed.
    #[error("there are too many invitations that still work")]
    TooMany,
    /// The session was logged out, has expired, or its user was disabled.
    #[error("the session has ended")]
    SessionEnded,
    /// The database fails or does not answer in time; the change may still be made.
    #[error("the database is unavailable")]
    Unavailable,
}
