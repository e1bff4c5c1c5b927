//! One process has the database at a time: the server, or a command while no server runs.
//!
//! The lock is on a file of its own, `chinwag.db.lock`. SQLite's own locks come and go with transactions, and a lock on
//! the database file itself would be lost whenever any descriptor of that file is closed. The file stays when the lock
//! is given up: whoever removes it may remove one that another process has just locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::sql::{create_private, directory_of};
use crate::config::{LOCK_FILE_MAX_BYTES, LOCK_FILE_PATIENCE, LOCK_FILE_RETRY};

/// The right to open a database for writing, until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Why a database cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another chinwag has it open")]
    Held,
    /// There is something else where the lock file goes.
    #[error("{0} is a link, or no plain file: it is left alone")]
    NoFile(PathBuf),
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
        let file = open(&lock, OpenOptions::new().write(true))?;
        match file.try_lock() {
            Ok(()) => file.set_len(0)?,
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self(file))
    }

    /// The same, but waits for a moment. Blocks.
    pub fn wait(path: &Path) -> Result<Self, LockError> {
        let started = Instant::now();
        loop {
            match Self::take(path) {
                Err(LockError::Held) if started.elapsed() < LOCK_FILE_PATIENCE => thread::sleep(LOCK_FILE_RETRY),
                taken => return taken,
            }
        }
    }

    /// Notes in the file where the server that holds the lock listens.
    pub(super) fn announce(&self, addresses: &[String]) -> io::Result<()> {
        (&self.0).write_all((addresses.join("\n") + "\n").as_bytes())
    }
}

/// Where the server that has the database at `path` listens, as it noted itself; nowhere while no server has it.
#[must_use]
pub fn server_addresses(path: &Path) -> Vec<String> {
    let Ok(file) = open(&beside(path, ".lock"), OpenOptions::new().read(true)) else { return Vec::new() };
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Vec::new();
    }
    let mut noted = String::new();
    // What cannot be read is no address, and what was read of it still is one.
    drop(file.take(LOCK_FILE_MAX_BYTES).read_to_string(&mut noted));
    noted.lines().map(str::to_owned).collect()
}

/// Opens a lock file, and nothing that was put in its place. Root runs commands in a directory that belongs to the
/// server's user: by a link, that user could have any file truncated, and at a pipe root would wait for ever.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, LockError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match options.custom_flags(flags.bits().cast_signed()).open(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Err(LockError::NoFile(path.into())),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    // A second name is a link, too.
    if metadata.is_file() && metadata.nlink() <= 1 { Ok(file) } else { Err(LockError::NoFile(path.into())) }
}

/// The path of a file that belongs to the database at `path`: beside the file itself, by whatever link it is reached.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    with_suffix(&resolve(path).unwrap_or_else(|_| path.to_owned()), suffix)
}

/// The same by the path as it is.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A path without links. The file at its end may be missing.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path).or_else(|error| {
        let name = path.file_name().ok_or(error)?;
        Ok(std::fs::canonicalize(directory_of(path))?.join(name))
    })
}
