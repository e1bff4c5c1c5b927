//! One process has the database at a time: the server, or a command while no server runs.
//!
//! The lock is on a file of its own, `chinwag.db.lock`. SQLite's own locks come and go with transactions, and a lock on
//! the database file itself would be lost whenever any descriptor of that file is closed. The file stays when the lock
//! is given up: whoever removes it may remove one that another process has just locked.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::sql::create_private;

/// The right to open a database for writing, until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Why a database cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another chinwag has it open")]
    Held,
    /// The lock file cannot be made or locked.
    #[error("its lock file cannot be used")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of the database at `path`, or says at once that another process has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        // Private, since whoever can open the file could lock the server out of its own database.
        let lock = beside(path, ".lock");
        create_private(&lock)?;
        let file = OpenOptions::new().write(true).open(lock)?;
        match file.try_lock() {
            Ok(()) => file.set_len(0)?,
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self(file))
    }

    /// Notes in the file where the server that holds the lock listens.
    pub(super) fn announce(&self, addresses: &[String]) -> io::Result<()> {
        (&self.0).write_all((addresses.join("\n") + "\n").as_bytes())
    }
}

/// Where the server that has the database at `path` listens, as it noted itself; nowhere while no server has it.
#[must_use]
pub fn server_addresses(path: &Path) -> Vec<String> {
    let lock = beside(path, ".lock");
    let held = File::open(&lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    if !held {
        return Vec::new();
    }
    std::fs::read_to_string(lock).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The path of a file that belongs to the database at `path`: beside the file itself, by whatever link it is reached.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
