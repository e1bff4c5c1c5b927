//! A database as a whole: looked at, copied, put in another's place, filled from an export.
//!
//! This is the commands' side of the file. Looking and copying need no server and disturb none: they read one moment
//! of the database ([`Archive`]) while the server goes on writing, in SQLite's log, what comes after it. What replaces
//! or fills a database takes its [`Lock`].

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Row, params};

use super::lock::{Lock, LockError, beside};
use super::partial::{Partial, keep_as};
use super::{OpenError, sql};
use crate::config::{BACKUP_PAGES, Durability};
use crate::model::{Content, Epoch, ID_MAX, Message, MessageId, SessionId, UnixMillis, UserId, Username};

/// Why a database cannot be looked at, copied or replaced.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite fails.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A file cannot be made, moved or removed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process has the database.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is a file where the copy was to go.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// It is damaged; the text is SQLite's first finding.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// A user, as listed and exported.
#[derive(Debug)]
pub struct StoredUser {
    /// The user's row.
    pub id: UserId,
    /// The name, or the neutral one of a deleted user.
    pub username: Username,
    /// The PHC string of the password.
    pub password_hash: String,
    /// When they registered.
    pub created_at: UnixMillis,
    /// When they were disabled, if they are.
    pub disabled_at: Option<UnixMillis>,
}

/// A message as exported: its author by row, since names may change.
#[derive(Debug)]
pub struct StoredMessage {
    /// The message.
    pub message: Message,
    /// Who wrote it.
    pub user: UserId,
}

/// A session, as listed.
#[derive(Debug)]
pub struct SessionRow {
    /// The login's row.
    pub id: SessionId,
    /// Whose it is.
    pub username: Username,
    /// When it began.
    pub created_at: UnixMillis,
    /// When it was last used, to about an hour.
    pub last_used_at: UnixMillis,
}

/// What is inside a database.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// The name of its history.
    pub epoch: String,
    /// Users, the deleted ones included.
    pub users: u64,
    /// Sessions.
    pub sessions: u64,
    /// Messages.
    pub messages: u64,
    /// The largest id ever given to a message.
    pub last_id: MessageId,
    /// Bytes of the file, without its log.
    pub bytes: u64,
}

/// One moment of a database, read without disturbing who writes to it.
#[derive(Debug)]
pub struct Archive {
    connection: Connection,
    version: i64,
}

/// By `users`' rowid.
const USERS: &str = "SELECT id, name, password_hash, created_at, disabled_at FROM users ORDER BY id";

/// By the sessions' rowid and the users'.
const SESSIONS: &str = "SELECT s.id, u.name, s.created_at, s.last_used_at \
     FROM sessions s JOIN users u ON u.id = s.user_id ORDER BY s.id";

/// By the messages' rowid and the users'.
const MESSAGES: &str = "SELECT m.id, u.name, m.content, m.created_at, m.user_id \
     FROM messages m JOIN users u ON u.id = m.user_id ORDER BY m.id";

/// Through all of three tables.
const CONTENTS: &str = "SELECT (SELECT value FROM meta WHERE key = 'epoch'), (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
     (SELECT count(*) FROM messages), \
     (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)";

impl Archive {
    /// Looks at the database at `path` as it is now, whatever happens to it meanwhile.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // SQLite's own words for a file that is not there do not say so.
        File::open(path)?;
        let connection = sql::open_reader(path)?;
        // The first read inside the transaction fixes the moment.
        connection.execute_batch("BEGIN")?;
        if sql::schema_of(&connection)? == sql::Schema::Empty {
            return Err(OpenError::Foreign);
        }
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok(Self { connection, version })
    }

    /// The version of the schema.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Counts what is inside.
    pub fn contents(&self) -> Result<Contents, ArchiveError> {
        let last_id = sql::last_id(&self.connection)?;
        let count = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let contents = self.connection.query_row(CONTENTS, [], |row| {
            Ok(Contents {
                epoch: row.get(0)?,
                users: count(row, 1)?,
                sessions: count(row, 2)?,
                messages: count(row, 3)?,
                bytes: count(row, 4)?,
                last_id,
            })
        })?;
        Ok(contents)
    }

    /// Reads every page and every reference.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] with the first thing found wrong.
    pub fn verify(&self) -> Result<(), ArchiveError> {
        let finding: String = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if finding != "ok" {
            return Err(ArchiveError::Damaged(finding));
        }
        let mut orphans = self.connection.prepare("SELECT \"table\" FROM pragma_foreign_key_check")?;
        match orphans.query_map([], |row| row.get::<_, String>(0))?.next().transpose()? {
            Some(table) => Err(ArchiveError::Damaged(format!("a row of {table} belongs to nobody"))),
            None => Ok(()),
        }
    }

    /// Hands every user to `each`, by the order in which they registered.
    pub fn users<E: From<ArchiveError>>(&self, mut each: impl FnMut(StoredUser) -> Result<(), E>) -> Result<(), E> {
        let read = |row: &Row<'_>| {
            Ok(StoredUser {
                id: UserId(row.get(0)?),
                username: Username::from_database(row.get_ref(1)?.as_str()?),
                password_hash: row.get(2)?,
                created_at: UnixMillis(row.get(3)?),
                disabled_at: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
            })
        };
        self.each(USERS, read, &mut each)
    }

    /// Hands every session to `each`.
    pub fn sessions<E: From<ArchiveError>>(&self, mut each: impl FnMut(SessionRow) -> Result<(), E>) -> Result<(), E> {
        let read = |row: &Row<'_>| {
            Ok(SessionRow {
                id: SessionId(row.get(0)?),
                username: Username::from_database(row.get_ref(1)?.as_str()?),
                created_at: UnixMillis(row.get(2)?),
                last_used_at: UnixMillis(row.get(3)?),
            })
        };
        self.each(SESSIONS, read, &mut each)
    }

    /// Hands every message to `each`, in order.
    pub fn messages<E: From<ArchiveError>>(
        &self,
        mut each: impl FnMut(StoredMessage) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = |row: &Row<'_>| Ok(StoredMessage { message: sql::read_message(row)?, user: UserId(row.get(4)?) });
        self.each(MESSAGES, read, &mut each)
    }

    fn each<T, E: From<ArchiveError>>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        each: &mut impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.connection.prepare(query).map_err(ArchiveError::from)?;
        let mut rows = statement.query([]).map_err(ArchiveError::from)?;
        while let Some(row) = rows.next().map_err(ArchiveError::from)? {
            each(read(row).map_err(ArchiveError::from)?)?;
        }
        Ok(())
    }

    /// Copies the database to the file `to`, which appears when the copy is complete, verified and on disk. Says now and
    /// then how many hundredths are done.
    ///
    /// The copy is of the moment that this archive shows: its transaction stays open, so that SQLite does not start
    /// again whenever somebody writes, and who writes does not wait.
    ///
    /// # Errors
    /// [`ArchiveError::Exists`] if there is such a file when the copy is done.
    pub fn back_up(&self, to: &Path, progress: impl FnMut(i32)) -> Result<(), ArchiveError> {
        self.copy(to, progress)?.put_new(to)
    }

    /// The same for who holds the lock of the database; a file that exists is replaced.
    pub(super) fn back_up_over(&self, to: &Path) -> Result<(), ArchiveError> {
        Ok(self.copy(to, |_| {})?.put(to)?)
    }

    fn copy(&self, to: &Path, progress: impl FnMut(i32)) -> Result<Partial, ArchiveError> {
        let partial = Partial::of(to)?;
        self.copy_to(partial.path(), progress)?;
        Self::open(partial.path())?.verify()?;
        Ok(partial)
    }

    /// Copies the database into the empty file at `path`.
    fn copy_to(&self, path: &Path, mut progress: impl FnMut(i32)) -> Result<(), ArchiveError> {
        let mut copy = sql::open_private(path)?;
        {
            let backup = Backup::new(&self.connection, &mut copy)?;
            while backup.step(BACKUP_PAGES)? != StepResult::Done {
                let done = backup.progress();
                progress(100 - 100 * done.remaining / done.pagecount.max(1));
            }
        }
        // One file, with no log that would have to be kept beside it.
        copy.pragma_update_and_check(None, "journal_mode", "delete", |row| row.get::<_, String>(0))?;
        Ok(())
    }
}

/// Puts the database that the file `backup` is in the place of the one at `path`, under a new epoch. Where the old one
/// is kept, if there was one.
///
/// The backup is brought to the current version, and verified, before anything is touched; and if there was a database
/// at `path`, there is one at every moment, where the file system knows second names.
pub fn restore(backup: &Path, path: &Path, now: UnixMillis) -> Result<Option<PathBuf>, ArchiveError> {
    let _lock = Lock::wait(path)?;
    // The file itself, and not a link to it.
    let path = &beside(path, "");
    let source = Archive::open(backup)?;
    source.verify()?;
    let restored = Partial::beside(path, ".restored")?;
    source.copy_to(restored.path(), |_| {})?;
    begin_anew(restored.path())?;
    Archive::open(restored.path())?.verify()?;
    let kept = keep(path, now)?;
    restored.put(path)?;
    Ok(kept)
}

/// Makes a copy of a database one of the current version, and a history of its own. Backups come from anywhere: one
/// with a trigger or a view of somebody else's is not taken for ours, nor one that leaves no ids to give.
fn begin_anew(path: &Path) -> Result<(), ArchiveError> {
    let mut connection = sql::open_private(path)?;
    sql::migrate(&mut connection)?;
    // Before the first row is written, which may be what a trigger waits for.
    if !sql::has_our_schema(&connection)? {
        return Err(OpenError::Foreign.into());
    }
    let last_id = sql::last_id(&connection)?.get();
    if last_id > ID_MAX {
        return Err(ArchiveError::Damaged(format!("no message can have come to the id {last_id}")));
    }
    sql::set_epoch(&connection, &Epoch::random())?;
    Ok(())
}

/// Keeps the database at `path` under another name, after moving its log into it if that can be done: a database that
/// is beyond that is kept as it is. What the name is, if there was one.
fn keep(path: &Path, now: UnixMillis) -> Result<Option<PathBuf>, ArchiveError> {
    if path.exists() {
        let settled =
            sql::open_private(path).and_then(|connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = settled {
            tracing::warn!(%error, "the old database is kept as it is, with its log");
        }
    }
    let kept = beside(path, &format!(".before-restore-{}", now.0 / 1_000));
    Ok(keep_as(path, &kept)?.then_some(kept))
}

/// Why an export cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite fails, or a row breaks one of its rules.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// There is something in the database.
    #[error("the database has users or messages: an import needs an empty one")]
    NotEmpty,
    /// A name that neither a person nor a deleted user can have.
    #[error("{0:?} is no username")]
    Username(String),
    /// A text that cannot be a message.
    #[error(transparent)]
    Content(#[from] crate::model::InvalidContent),
    /// A number that no user or message has.
    #[error("{0} is no id: it is from 1 to {ID_MAX}")]
    Id(i64),
    /// Ids do not rise.
    #[error("message {0} is not in order")]
    Order(i64),
}

/// A database that is being filled: all at once, or not at all.
#[derive(Debug)]
pub struct Import {
    connection: Connection,
    last_id: i64,
    _lock: Lock,
}

const IMPORT_USER: &str =
    "INSERT INTO users (id, name, password_hash, created_at, disabled_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const IMPORT_MESSAGE: &str = "INSERT INTO messages (id, user_id, content, created_at) VALUES (?1, ?2, ?3, ?4)";
/// By rowid.
const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM messages)";

impl Import {
    /// Opens the database at `path`, making it if it is missing; it must be empty.
    pub fn into(path: &Path) -> Result<Self, ImportError> {
        sql::create_private(path).map_err(OpenError::from)?;
        let lock = Lock::wait(path).map_err(OpenError::from)?;
        let connection = sql::open_writer(path, Durability::Full)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        if !connection.query_row(IS_EMPTY, [], |row| row.get(0))? {
            return Err(ImportError::NotEmpty);
        }
        Ok(Self { connection, last_id: 0, _lock: lock })
    }

    /// Takes in a user.
    pub fn user(
        &mut self,
        id: i64,
        username: &str,
        password_hash: &str,
        created_at: i64,
        disabled_at: Option<i64>,
    ) -> Result<(), ImportError> {
        check_id(id)?;
        if Username::parse(username).is_none() && username != Username::deleted(UserId(id)).as_str() {
            return Err(ImportError::Username(username.to_owned()));
        }
        let mut insert = self.connection.prepare_cached(IMPORT_USER)?;
        insert.execute(params![id, username, password_hash, created_at, disabled_at])?;
        Ok(())
    }

    /// Takes in a message of a user who was taken in before.
    pub fn message(&mut self, id: i64, user: i64, content: &str, created_at: i64) -> Result<(), ImportError> {
        check_id(id)?;
        if id <= self.last_id {
            return Err(ImportError::Order(id));
        }
        let content = Content::parse(content)?;
        let mut insert = self.connection.prepare_cached(IMPORT_MESSAGE)?;
        insert.execute(params![id, user, content.as_str(), created_at])?;
        self.last_id = id;
        Ok(())
    }

    /// Commits all that was taken in. Ids up to `last_id` will not be given again.
    pub fn finish(self, last_id: i64) -> Result<(), ImportError> {
        // There may have been no message yet.
        if last_id != 0 {
            check_id(last_id)?;
        }
        sql::raise_high_water(&self.connection, MessageId::new(last_id))?;
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }
}

/// After the largest number that fits there would be no next one.
fn check_id(id: i64) -> Result<(), ImportError> {
    if (1..=ID_MAX).contains(&id) { Ok(()) } else { Err(ImportError::Id(id)) }
}
