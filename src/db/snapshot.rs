//! A database as it was at one moment: listed, counted, verified, exported and copied.
//!
//! This needs no server and disturbs none: the server goes on writing, in SQLite's log, while a command reads.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Row};
use rustix::fs::Access;

use super::error::{OpenError, SnapshotError};
use super::files::{self, sibling};
use super::records::{self, Record};
use super::sql;
use super::temp_file::TempFile;
use crate::limits::BACKUP_PAGES;
use crate::model::{MessageId, SessionId, UnixMillis, UserId, Username};

/// A user, as listed.
#[derive(Debug)]
pub struct StoredUser {
    /// The user's row.
    pub id: UserId,
    /// The name, or the neutral name of a deleted user.
    pub username: Username,
    /// The PHC string of the password.
    pub password_hash: String,
    /// When they registered.
    pub created_at: UnixMillis,
    /// When they were disabled, if they are.
    pub disabled_at: Option<UnixMillis>,
}

/// A session, as listed.
#[derive(Debug)]
pub struct SessionRow {
    /// The login's row.
    pub id: SessionId,
    /// The user who logged in.
    pub username: Username,
    /// When it began.
    pub created_at: UnixMillis,
    /// When it was last used, accurate to about an hour.
    pub last_used_at: UnixMillis,
}

/// A summary of a database.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// The name of its history.
    pub epoch: String,
    /// How many users there are, including deleted ones.
    pub users: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many messages there are.
    pub messages: u64,
    /// The largest id ever given to an event.
    pub last_id: MessageId,
    /// The size of the file in bytes, without its log.
    pub bytes: u64,
}

/// A database as it was at one moment, read without disturbing the process that writes to it.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    version: i64,
    /// Dropped after the connection.
    _log: OwnLog,
}

/// The log that SQLite creates to read a database that has none. Only a connection that can write removes it again,
/// when nobody else has the database open.
#[derive(Debug)]
struct OwnLog {
    /// `None` if the log is not ours.
    database: Option<PathBuf>,
}

impl OwnLog {
    fn beside(database: &Path) -> Self {
        let is_there = sibling(database, "-wal").exists();
        Self { database: (!is_there).then(|| database.to_owned()) }
    }
}

impl Drop for OwnLog {
    fn drop(&mut self) {
        let Some(database) = self.database.as_deref().filter(|database| sibling(database, "-wal").exists()) else {
            return;
        };
        // It is empty: where it cannot be removed it does no harm.
        drop(sql::open(database, OpenFlags::SQLITE_OPEN_READ_WRITE).map(|writer| sql::schema_of(&writer).is_ok()));
    }
}

/// By `users`' rowid.
const USERS: &str = "SELECT id, name, password_hash, created_at, disabled_at FROM users ORDER BY id";

/// By the sessions' rowid and the users'.
const SESSIONS: &str = "SELECT s.id, u.name, s.created_at, s.last_used_at \
     FROM sessions s JOIN users u ON u.id = s.user_id ORDER BY s.id";

/// By a scan of three tables.
const CONTENTS: &str = "SELECT (SELECT value FROM meta WHERE key = 'epoch'), (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
     (SELECT count(*) FROM messages), \
     (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)";

impl Snapshot {
    /// Opens the database at `path` as it is now; later changes do not show.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // SQLite's own error for a missing file does not say that it is missing.
        rustix::fs::access(path, Access::READ_OK).map_err(io::Error::from)?;
        let log = OwnLog::beside(path);
        let is_settled = log.database.is_some();
        let connection = if is_settled && files::is_on_read_only_medium(path) {
            sql::open_unchanging(path)?
        } else {
            sql::open_reader(path)?
        };
        // The first read inside the transaction fixes the moment.
        connection.execute_batch("BEGIN")?;
        if sql::schema_of(&connection)? == sql::Schema::Empty {
            return Err(if std::fs::metadata(path)?.len() > 0 { OpenError::NoTables } else { OpenError::Foreign });
        }
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok(Self { connection, version, _log: log })
    }

    /// The version of the schema.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Counts the rows.
    pub fn contents(&self) -> Result<Contents, SnapshotError> {
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

    /// Reads every page, every reference and every row.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] with the first problem that was found.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        let finding: String = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if finding != "ok" {
            return Err(SnapshotError::Damaged(finding));
        }
        let mut orphans = self.connection.prepare("SELECT \"table\" FROM pragma_foreign_key_check")?;
        if let Some(table) = orphans.query_map([], |row| row.get::<_, String>(0))?.next().transpose()? {
            return Err(SnapshotError::Damaged(format!("a row of {table} refers to a row that does not exist")));
        }
        // An older one is audited after its upgrade.
        if self.version == sql::SCHEMA_VERSION { records::audit(&self.connection) } else { Ok(()) }
    }

    /// Passes every user to `each`, in the order of registration.
    pub fn users<E: From<SnapshotError>>(&self, mut each: impl FnMut(StoredUser) -> Result<(), E>) -> Result<(), E> {
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

    /// Passes every session to `each`.
    pub fn sessions<E: From<SnapshotError>>(&self, mut each: impl FnMut(SessionRow) -> Result<(), E>) -> Result<(), E> {
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

    /// Passes every row of a table to `each`.
    ///
    /// # Errors
    /// [`SnapshotError::Old`] if the database has an earlier version.
    pub fn records<R: Record, E: From<SnapshotError>>(
        &self,
        mut each: impl FnMut(R) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.version != sql::SCHEMA_VERSION {
            return Err(SnapshotError::Old(self.version).into());
        }
        self.each(R::SELECT, R::read, &mut each)
    }

    fn each<T, E: From<SnapshotError>>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        each: &mut impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.connection.prepare(query).map_err(SnapshotError::from)?;
        let mut rows = statement.query([]).map_err(SnapshotError::from)?;
        while let Some(row) = rows.next().map_err(SnapshotError::from)? {
            each(read(row).map_err(SnapshotError::from)?)?;
        }
        Ok(())
    }

    /// Copies the database to the file `to`, which appears when the copy is complete, verified and on disk. Reports its
    /// progress in percent.
    ///
    /// The copy shows the same moment as this snapshot: its transaction stays open, so that SQLite does not start again
    /// after each write, and writers do not wait.
    ///
    /// # Errors
    /// If it cannot be copied, or there is such a file when the copy is done.
    pub fn back_up(&self, to: &Path, progress: impl FnMut(i32)) -> Result<(), SnapshotError> {
        Ok(self.copy(to, progress)?.put_new(to)?)
    }

    /// Copies the database over a file that may exist. The caller holds the lock of the database.
    pub(super) fn back_up_over(&self, to: &Path) -> Result<(), SnapshotError> {
        Ok(self.copy(to, |_| {})?.put(to)?)
    }

    fn copy(&self, to: &Path, progress: impl FnMut(i32)) -> Result<TempFile, SnapshotError> {
        let partial = TempFile::of(to)?;
        self.copy_to(partial.path(), progress)?;
        Self::open(partial.path())?.verify()?;
        Ok(partial)
    }

    /// Copies the database into the empty file at `path`.
    pub(super) fn copy_to(&self, path: &Path, mut progress: impl FnMut(i32)) -> Result<(), SnapshotError> {
        let mut copy = sql::open_private(path)?;
        {
            let backup = Backup::new(&self.connection, &mut copy)?;
            while backup.step(BACKUP_PAGES)? != StepResult::Done {
                let done = backup.progress();
                progress(100 - 100 * done.remaining / done.pagecount.max(1));
            }
        }
        // A single file, without a log next to it.
        copy.pragma_update_and_check(None, "journal_mode", "delete", |row| row.get::<_, String>(0))?;
        Ok(())
    }
}
