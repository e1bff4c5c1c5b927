//! Only one process at a time has the database open for writing: the server, or a command while no server runs.
//!
//! There are two locks. One is on a separate file, `chinwag.db.lock`, since the database is replaced by a restore and this
//! file is not; it also says where the server listens. It stays when the lock is released: removing it could remove one
//! that another process has just locked. The other is on the database file itself, which may have two names, or be mounted
//! into two containers: each name has a log of its own, so two writers would lose each other's messages. SQLite's own locks
//! come and go with transactions and do not see that.
//!
//! Both are `flock` locks: those of SQLite are of the other kind (`fcntl`), which is why nothing in this process may open
//! the database file past SQLite and close it again while a connection is open: that releases SQLite's locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::LockError;
use super::files::{create_private, resolve, sibling};
use crate::limits::{LOCK_FILE_MAX_BYTES, LOCK_FILE_PATIENCE, LOCK_FILE_RETRY};

/// The right to open a database for writing, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// Released before the other, so that there is never only this one.
    _database: Option<File>,
    name: File,
}

impl Lock {
    /// Takes the lock of the database at `path`, or fails at once if another process has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        // Private: a user who can open the file could lock the server out of its own database.
        let lock = sibling(path, ".lock");
        create_private(&lock)?;
        let file = open(&lock, OpenOptions::new().write(true))?;
        match file.try_lock() {
            Ok(()) => file.set_len(0)?,
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self { _database: lock_database(path)?, name: file })
    }

    /// Takes the lock, waiting a moment if another process has it. Blocks.
    pub fn wait(path: &Path) -> Result<Self, LockError> {
        let started = Instant::now();
        loop {
            match Self::take(path) {
                Err(LockError::Held | LockError::HeldByAnotherName) if started.elapsed() < LOCK_FILE_PATIENCE => {
                    thread::sleep(LOCK_FILE_RETRY);
                }
                taken => return taken,
            }
        }
    }

    /// Writes to the lock file where the server that holds it listens, and what people reach it at.
    pub(super) fn announce(&self, addresses: &[String], public: Option<&str>) -> io::Result<()> {
        let public = public.map(|url| format!("{PUBLIC}{url}"));
        let lines: Vec<_> = addresses.iter().chain(&public).map(|line| format!("{line}\n")).collect();
        (&self.name).write_all(lines.concat().as_bytes())
    }
}

/// Locks the database file. `None` if it is missing or cannot be opened: SQLite's error explains that better.
fn lock_database(path: &Path) -> Result<Option<File>, LockError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    let Ok(file) = options.read(true).custom_flags(flags.bits().cast_signed()).open(resolve(path)?) else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(LockError::HeldByAnotherName),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Begins the line of a lock file that says what people reach the server at.
const PUBLIC: &str = "public ";

/// Where the server of the database at `path` listens, as it wrote down itself; empty if no server is running.
#[must_use]
pub fn server_addresses(path: &Path) -> Vec<String> {
    noted(path).into_iter().filter(|line| !line.starts_with(PUBLIC)).collect()
}

/// What people reach the server of the database at `path` at, if it runs and was told.
#[must_use]
pub fn server_public_url(path: &Path) -> Option<String> {
    noted(path).iter().find_map(|line| line.strip_prefix(PUBLIC).map(str::to_owned))
}

/// What the server that runs has written down.
fn noted(path: &Path) -> Vec<String> {
    let Ok(file) = open(&sibling(path, ".lock"), OpenOptions::new().read(true)) else { return Vec::new() };
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Vec::new();
    }
    let mut noted = String::new();
    // If reading stops early, the lines that were read are still addresses.
    drop(file.take(LOCK_FILE_MAX_BYTES).read_to_string(&mut noted));
    noted.lines().map(str::to_owned).collect()
}

/// Opens a lock file, but nothing else that was put in its place. Root runs commands in a directory that belongs to the
/// server's user, who could otherwise have any file truncated with a link, or make root wait for ever with a pipe.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, LockError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match options.custom_flags(flags.bits().cast_signed()).open(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return Err(LockError::NotAFile(path.into()));
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    // A second name is a link as well.
    if metadata.is_file() && metadata.nlink() <= 1 { Ok(file) } else { Err(LockError::NotAFile(path.into())) }
}
