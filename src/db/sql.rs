//! All the SQL of a server: here the file, its pragmas and its schema; below it the queries and the mapping of rows.
//!
//! Each query is a named constant that says which index serves it. Those that are asked often are prepared once a
//! connection. What only commands ask of a database is in [`archive`](super::archive), and nothing else in the crate
//! knows SQL.

mod accounts;
mod messages;

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};

use super::OpenError;
use super::archive::Archive;
use super::lock::beside;
use crate::config::{Durability, LOCK_TIMEOUT, PROOF_BYTES};
use crate::model::{Epoch, MessageId};
pub(super) use accounts::*;
pub(super) use messages::*;

const SCHEMA: &str = include_str!("../../schema.sql");
/// The version that `schema.sql` makes.
pub(super) const SCHEMA_VERSION: i64 = 2;
/// What takes a database of each earlier version to the next, the first version's first.
const UPGRADES: [&str; 1] = ["CREATE TABLE invites (
    digest     BLOB PRIMARY KEY,
    uses_left  INTEGER NOT NULL CHECK (uses_left > 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID"];
/// Marks the file as ours ("chiw"), so that another program's database is not taken for an empty one.
pub(super) const APPLICATION_ID: i64 = 0x6368_6977;
/// Pages of the write-ahead log after which a commit moves them into the database: 4 MiB.
const WAL_PAGES: u32 = 1_000;

/// Opens the connection that writes, making or migrating the database. The caller holds its [lock](super::Lock).
pub(super) fn open_writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    // First of all: a file that is refused is left as it is.
    let schema = schema_of(&connection)?;
    // Readers go on while a commit is written.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // In WAL mode NORMAL can lose the last commits on power loss, and an `ack` is a promise: it is for who says so.
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Nothing in the file may call functions: the schema is ours, the file may come from a backup.
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is removed is removed for good: its bytes are overwritten. `fast`, which spares pages that become free, left
    // 115,000 of 200,000 pruned texts in the file; this leaves none, and pruning took the same 0.4 s with each.
    connection.pragma_update_and_check(None, "secure_delete", true, |row| row.get::<_, i64>(0))?;
    // A plan does not depend on the values bound to it, or SQLite would make it anew at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    // The log shrinks back after a reader held it open for long.
    connection.pragma_update(None, "journal_size_limit", i64::from(WAL_PAGES) * 4_096)?;
    if schema == Schema::Older {
        back_up_before_upgrade(path)?;
    }
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // A plan does not depend on the values bound to it, or SQLite would make it anew at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Opens a file of our own making to write to it: by the name it has, without following a link that was put there.
pub(super) fn open_private(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read, if there is none: SQLite gives its log the same mode, and the same
/// owner. What root makes belongs to whom the directory belongs to: an administrator's command must not leave the
/// server's own user with files that it cannot open.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    match create_new_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

/// The same where there must be nothing yet.
pub(super) fn create_new_private(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if rustix::process::geteuid().is_root() {
        let directory = std::fs::metadata(directory_of(path))?;
        // The file that was made, and not what its name leads to by now: the directory's owner could have replaced it.
        fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(file)
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a file is to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Empty,
    Older,
    Current,
}

/// Tells what a file is; a newer database, or one of another program, is an error.
pub(super) fn schema_of(connection: &Connection) -> Result<Schema, OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(Schema::Empty),
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(Schema::Current),
        (APPLICATION_ID, 1..SCHEMA_VERSION) => Ok(Schema::Older),
        (APPLICATION_ID, newer) => Err(OpenError::Newer { found: newer, known: SCHEMA_VERSION }),
        _ => Err(OpenError::Foreign),
    }
}

/// Through all of the schema.
const OBJECTS: &str =
    "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name, tbl_name, sql";

/// Whether the database has what `schema.sql` makes, and nothing else.
pub(super) fn has_our_schema(connection: &Connection) -> rusqlite::Result<bool> {
    let ours = Connection::open_in_memory()?;
    ours.execute_batch(SCHEMA)?;
    Ok(objects_of(connection)? == objects_of(&ours)?)
}

/// Everything that is defined in a database, as SQLite would define it again. Comments and spacing may be of another
/// version: they are left out, with a space in their place, so that no word is joined or hidden by it.
fn objects_of(connection: &Connection) -> rusqlite::Result<Vec<[String; 4]>> {
    let read = |row: &Row<'_>| {
        let sql: String = row.get(3)?;
        let code = sql.lines().flat_map(|line| line.split("--").next().unwrap_or_default().split_whitespace());
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, code.collect::<Vec<_>>().join(" ")])
    };
    connection.prepare(OBJECTS)?.query_map([], read)?.collect()
}

/// Copies a database of an older version aside, as `chinwag.db.version-1`: the older program cannot open it once it
/// is upgraded. A copy that an upgrade left which then failed is replaced.
fn back_up_before_upgrade(path: &Path) -> Result<(), OpenError> {
    let archive = Archive::open(path)?;
    let copy = beside(path, &format!(".version-{}", archive.version()));
    tracing::info!(copy = %copy.display(), "upgrading the database; the old one is kept");
    archive.back_up_over(&copy).map_err(|error| OpenError::Backup(Box::new(error)))
}

/// Brings a database to the version this program knows, from an empty file or any older version, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match schema_of(&transaction)? {
        Schema::Empty => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            set_epoch(&transaction, &Epoch::random())?;
        }
        Schema::Older => {
            let version = transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))?;
            for upgrade in &UPGRADES[version as usize - 1..] {
                transaction.execute_batch(upgrade)?;
            }
        }
        Schema::Current => return Ok(()),
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// By `meta`'s primary key.
const SET_EPOCH: &str = "INSERT INTO meta (key, value) VALUES ('epoch', ?1) ON CONFLICT DO UPDATE SET value = ?1";

/// Names the history anew.
pub(super) fn set_epoch(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<()> {
    connection.execute(SET_EPOCH, [epoch.as_str()])?;
    Ok(())
}

/// Raises the id below which none is given again. By `meta`'s primary key.
const RAISE_HIGH_WATER: &str = "UPDATE meta SET value = max(value, ?1) WHERE key = 'high_water'";

/// Keeps ids up to `id` from being given.
pub(super) fn raise_high_water(connection: &Connection, id: MessageId) -> rusqlite::Result<()> {
    connection.execute(RAISE_HIGH_WATER, [id.get()])?;
    Ok(())
}

/// By `meta`'s primary key.
const EPOCH: &str = "SELECT value FROM meta WHERE key = 'epoch'";

pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<Epoch> {
    connection.query_row(EPOCH, [], |row| Ok(Epoch::from_database(row.get_ref(0)?.as_str()?)))
}

/// By the last rowid, and `meta`'s primary key.
const LAST_ID: &str =
    "SELECT max((SELECT coalesce(max(id), 0) FROM messages), (SELECT value FROM meta WHERE key = 'high_water'))";

/// The largest id ever given to a message that was committed.
pub(super) fn last_id(connection: &Connection) -> rusqlite::Result<MessageId> {
    connection.query_row(LAST_ID, [], |row| row.get(0).map(MessageId::new))
}

/// By `meta`'s primary key. As large as the largest message, so that what passes is not refused again at once; and of
/// new content, since SQLite writes nothing for a row that stays as it is.
const PROOF: &str = "INSERT INTO meta (key, value) VALUES ('proof', randomblob(?1)) \
     ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// Fails unless the transaction can write, and has room for a message.
pub(super) fn prove_writable(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(PROOF, [PROOF_BYTES])?;
    Ok(())
}

/// By the last rowids.
const NEWEST_ROWS: &str = "SELECT (SELECT max(id) FROM messages), (SELECT max(id) FROM sessions)";

/// Fails unless rows can be read.
pub(super) fn prove_readable(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached(NEWEST_ROWS)?.query_row([], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
