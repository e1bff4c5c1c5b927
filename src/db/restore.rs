//! Replaces a database with a backup. The restored database is a history of its own: ids that were given after the
//! backup will be given again, to other events, so a new epoch makes clients discard what they have.

use std::path::{Path, PathBuf};

use super::error::{OpenError, SnapshotError};
use super::files::sibling;
use super::lock::Lock;
use super::records;
use super::snapshot::Snapshot;
use super::sql;
use super::temp_file::{TempFile, keep_as};
use crate::model::{Epoch, UnixMillis};

/// Replaces the database at `path` with a copy of the file `backup`, under a new epoch. Returns where the old database
/// is kept, if there was one.
///
/// The backup is upgraded and verified before anything is touched. If there was a database at `path`, there is one at
/// every moment, provided that the file system supports hard links.
pub fn restore(backup: &Path, path: &Path, now: UnixMillis) -> Result<Option<PathBuf>, SnapshotError> {
    let _lock = Lock::wait(path)?;
    // The file itself, not a link to it.
    let path = &sibling(path, "");
    let source = Snapshot::open(backup)?;
    source.verify()?;
    let restored = TempFile::beside(path, ".restored")?;
    source.copy_to(restored.path(), |_| {})?;
    begin_anew(restored.path())?;
    Snapshot::open(restored.path())?.verify()?;
    let kept = keep(path, now)?;
    restored.put(path)?;
    Ok(kept)
}

/// Upgrades a copy and makes it a history of its own. A backup may come from anywhere: one with a foreign trigger or
/// view is refused, and so is one with a row that this server would not have stored.
fn begin_anew(path: &Path) -> Result<(), SnapshotError> {
    let mut connection = sql::open_private(path)?;
    sql::migrate(&mut connection)?;
    // Before the first row is written, since that could run a foreign trigger.
    if !sql::has_our_schema(&connection)? {
        return Err(OpenError::Altered.into());
    }
    records::audit(&connection)?;
    // A backup may hold any number of them, and a server expects few.
    sql::move_all_recent_nonces(&connection)?;
    sql::forget_log(&connection)?;
    sql::release_ids(&connection)?;
    sql::set_epoch(&connection, &Epoch::random())?;
    Ok(())
}

/// Keeps the database at `path` under another name, after moving its log into it if possible: a damaged database is
/// kept as it is. Returns the new name, if there was a database.
fn keep(path: &Path, now: UnixMillis) -> Result<Option<PathBuf>, SnapshotError> {
    if path.exists() {
        let settled = sql::open_private(path)
            .and_then(|connection| Ok(connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?));
        if let Err(error) = settled {
            tracing::warn!(%error, "cannot move the old database's log into it: both files are kept");
        }
    }
    let kept = sibling(path, &format!(".before-restore-{}", now.0 / 1_000));
    Ok(keep_as(path, &kept)?.then_some(kept))
}
