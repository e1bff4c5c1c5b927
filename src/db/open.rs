//! Opens the connection that writes: its pragmas, and the backup and upgrade of an older database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::files::{is_mount_point, sibling};
use super::snapshot::Snapshot;
use super::sql::{self, Schema};
use crate::config::Durability;

/// Pages of the write-ahead log after which a commit moves them into the database: 4 MiB.
const WAL_PAGES: u32 = 1_000;

/// Opens the connection that writes, creating or upgrading the database. The caller holds its [lock](super::Lock).
pub(super) fn open_writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let mut connection = sql::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Before anything is written: a file that is refused stays as it is.
    let schema = sql::schema_of(&connection)?;
    if is_mount_point(path) {
        tracing::warn!(
            path = %path.display(),
            "the database is itself a mount point, so its log is not kept with it: mount its directory instead"
        );
    }
    if schema == Schema::Empty {
        make(path, &mut connection)?;
    }
    // Readers go on while a commit is written.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // In WAL mode NORMAL can lose the last commits on power loss, and an `ack` is a promise: only if it is asked for.
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted data is overwritten. `fast`, which skips pages that become free, left 115,000 of 200,000 pruned texts in
    // the file; this leaves none, and pruning took 0.4 s with either.
    connection.pragma_update_and_check(None, "secure_delete", true, |row| row.get::<_, i64>(0))?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    // The log shrinks again after a long read made it grow.
    connection.pragma_update(None, "journal_size_limit", i64::from(WAL_PAGES) * 4_096)?;
    if schema == Schema::Older {
        back_up_before_upgrade(path)?;
        sql::migrate(&mut connection)?;
        // A copy of the file alone has the new schema too.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    if !sql::has_our_schema(&connection)? {
        return Err(OpenError::Altered);
    }
    Ok(connection)
}

/// Makes the schema in a file that was just created. There is no log yet: the file has nothing in it or the whole
/// schema, whatever happens, so one without tables is never the beginning of ours. Such a file is a copy of a database
/// without its log, and starting over in it would lose data in silence.
fn make(path: &Path, connection: &mut Connection) -> Result<(), OpenError> {
    if std::fs::metadata(path)?.len() > 0 {
        return Err(OpenError::NoTables);
    }
    connection.pragma_update(None, "synchronous", "extra")?;
    sql::migrate(connection)
}

/// Copies a database of an older version to `chinwag.db.version-1`: once it is upgraded, the older program cannot open
/// it. A copy left by an upgrade that failed is replaced.
fn back_up_before_upgrade(path: &Path) -> Result<(), OpenError> {
    let archive = Snapshot::open(path)?;
    let copy = sibling(path, &format!(".version-{}", archive.version()));
    tracing::info!(copy = %copy.display(), "upgrading the database; a copy of the old one is kept");
    archive.back_up_over(&copy).map_err(|error| OpenError::Backup(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::files::create_private;

    #[test]
    fn each_commit_waits_for_the_disk_unless_somebody_says_otherwise() {
        for (durability, expected) in [(Durability::Full, 2), (Durability::Normal, 1), (Durability::default(), 2)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("chinwag.db");
            create_private(&path).unwrap();
            let connection = open_writer(&path, durability).unwrap();
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(pragma("synchronous"), expected, "{durability:?}");
        }
    }
}
