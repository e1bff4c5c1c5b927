//! The SQL of the server: here the schema and `meta`, in the modules below the queries and the mapping of rows. The
//! writer thread and the reader thread call them, each with its own connection.
//!
//! Each query is a named constant whose comment says which index serves it. Frequent queries are prepared once per
//! connection. SQL elsewhere is the exception: pragmas where files are opened, copied and settled; whole tables in
//! [`snapshot`](super::snapshot), [`import`](super::import) and [`records`](super::records); and the rows of `meta` in
//! `replica` and `follow`, which only a cluster has.

mod accounts;
mod backlog;
mod events;
mod images;
mod messages;
mod nonces;
mod people;
#[cfg(any(feature = "push", feature = "cluster"))]
#[cfg_attr(not(feature = "push"), allow(dead_code, reason = "a node that does not push only applies what it writes"))]
mod push;
mod rooms;
mod upgrade;

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior};

use super::data::millis;
use super::error::OpenError;
use super::expiry::Belief;
use super::files;
use crate::limits::{LOCK_TIMEOUT, PROOF_BYTES, STATEMENTS_KEPT};
use crate::model::{Epoch, MessageId, UnixMillis, UserId};
pub(super) use accounts::*;
pub(super) use backlog::backlog;
pub use backlog::{Backlog, BacklogQuery};
pub(super) use events::*;
pub(super) use images::*;
pub(super) use messages::*;
pub(super) use nonces::*;
pub(super) use people::people;
#[cfg(any(feature = "push", feature = "cluster"))]
pub(super) use push::*;
pub(super) use rooms::*;

const SCHEMA: &str = include_str!("../../../schema.sql");
/// The version that `schema.sql` makes.
pub(super) const SCHEMA_VERSION: i64 = 4;
/// Marks the file as ours ("chiw"), so that another program's database is not taken for an empty one.
pub(super) const APPLICATION_ID: i64 = 0x6368_6977;

/// Opens the file at `path`, which never has SQLite's special meanings: see [`super::files`].
pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    open_as(&files::resolve(path)?, flags)
}

fn open_as(name: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(name, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Nothing in the file may call functions: the schema is ours, the file may come from a backup.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Query plans must not depend on bound values, or SQLite would prepare statements again for each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens a connection to a file that nobody can change. SQLite then needs no log beside it, which it could not create.
pub(super) fn open_unchanging(path: &Path) -> Result<Connection, OpenError> {
    let uri = files::uri_of(&files::resolve(path)?) + "?immutable=1";
    open_as(Path::new(&uri), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

/// Opens a file that we created for writing, without following a link that was put in its place.
pub(super) fn open_private(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(files::place(path)?, flags)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// What a database file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Empty,
    Older,
    Current,
}

/// Reads what a file contains; a newer database, or another program's, is an error.
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

/// By a scan of the whole schema.
const OBJECTS: &str = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*' ORDER BY type, name, tbl_name, sql";

/// Whether the database has exactly the schema that `schema.sql` defines.
pub(super) fn has_our_schema(connection: &Connection) -> rusqlite::Result<bool> {
    let ours = Connection::open_in_memory()?;
    ours.execute_batch(SCHEMA)?;
    Ok(objects_of(connection)? == objects_of(&ours)?)
}

/// The definitions of everything in a database's schema. Comments and spacing may differ between versions: each is
/// replaced by one space, so that no words are joined or hidden.
fn objects_of(connection: &Connection) -> rusqlite::Result<Vec<[String; 4]>> {
    let read = |row: &Row<'_>| {
        let sql: String = row.get(3)?;
        let code = sql.lines().flat_map(|line| line.split("--").next().unwrap_or_default().split_whitespace());
        // A column that an upgrade added has other spaces around it.
        Ok([
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            code.collect::<Vec<_>>().join(" ").replace(" ,", ",").replace(" )", ")"),
        ])
    };
    connection.prepare(OBJECTS)?.query_map([], read)?.collect()
}

/// Brings an empty file or an older database to the current version, in one transaction.
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
            for upgrade in &upgrade::UPGRADES[version as usize - 1..] {
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

/// Gives the history a new name.
pub(super) fn set_epoch(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<()> {
    connection.execute(SET_EPOCH, [epoch.as_str()])?;
    Ok(())
}

/// By `meta`'s primary key.
const FOLLOWS_LOG: &str = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'log')";

/// Whether the database belongs to a cluster.
pub(super) fn follows_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(FOLLOWS_LOG, [], |row| row.get(0))
}

/// By `meta`'s primary key.
const FORGET_LOG: &str = "DELETE FROM meta \
     WHERE key IN ('log', 'applied', 'chain', 'nonce_days', 'nonce_day', 'nonce_day_lasted', 'believed', 'doubted') \
        OR key >= 'publisher ' AND key < 'publisher!'";

/// Detaches the database from its cluster.
pub(super) fn forget_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(FORGET_LOG, [])?;
    Ok(())
}

/// By `meta`'s primary key.
const RAISE_HIGH_WATER: &str = "UPDATE meta SET value = max(value, ?1) WHERE key = 'high_water'";

/// Reserves all ids up to `id`: none of them will be given to an event.
pub(super) fn raise_high_water(connection: &Connection, id: MessageId) -> rusqlite::Result<()> {
    connection.execute(RAISE_HIGH_WATER, [id.get()])?;
    Ok(())
}

/// By `meta`'s primary key.
const RESERVE_IDS: &str =
    "INSERT INTO meta (key, value) VALUES ('reserved', ?1) ON CONFLICT DO UPDATE SET value = excluded.value";

/// Notes that ids up to this one may be given.
pub(super) fn reserve_ids(connection: &Connection, until: MessageId) -> rusqlite::Result<()> {
    connection.prepare_cached(RESERVE_IDS)?.execute([until.get()])?;
    Ok(())
}

/// By `meta`'s primary key.
const RELEASE_IDS: &str = "DELETE FROM meta WHERE key = 'reserved'";

/// Notes that no id past the last one has been given.
pub(super) fn release_ids(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(RELEASE_IDS, [])?;
    Ok(())
}

/// By `meta`'s primary key: one row for each user.
const NOTE_ERASURE: &str = "INSERT INTO meta (key, value) VALUES ('erase ' || ?1, 1) ON CONFLICT DO NOTHING";
const END_ERASURE: &str = "DELETE FROM meta WHERE key = 'erase ' || ?1";
const ERASURES: &str = "SELECT CAST(substr(key, 7) AS INTEGER) FROM meta WHERE key >= 'erase ' AND key < 'erase!'";

/// Notes that what a deleted user wrote is to be erased, in steps that a crash may interrupt.
pub(super) fn note_erasure(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    connection.execute(NOTE_ERASURE, [user.0])?;
    Ok(())
}

/// Notes that nothing of it is left.
pub(super) fn end_erasure(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    connection.execute(END_ERASURE, [user.0])?;
    Ok(())
}

/// The deleted users of whom something is still to be erased.
pub(super) fn erasures(connection: &Connection) -> rusqlite::Result<Vec<UserId>> {
    connection.prepare(ERASURES)?.query_map([], |row| row.get(0).map(UserId))?.collect()
}

/// By `meta`'s primary key.
const META_NUMBER: &str = "SELECT value FROM meta WHERE key = ?1";

/// By `meta`'s primary key, and the first rowid of the messages. Gaps add up as long as there are messages before them.
const NOTE_GAP: &str = "INSERT INTO meta (key, value) \
     VALUES ('gap_ends', ?2), ('gap', ?2 - ?1 + CASE WHEN (SELECT min(id) FROM messages) \
         < (SELECT value FROM meta WHERE key = 'gap_ends') THEN (SELECT value FROM meta WHERE key = 'gap') ELSE 0 END) \
     ON CONFLICT DO UPDATE SET value = excluded.value";

/// Skips the ids that were reserved and are not known to be given: after an unclean end, some may have been. Returns how
/// many were skipped.
pub(super) fn skip_reserved(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let reserved = transaction.query_row(META_NUMBER, ["reserved"], |row| row.get(0)).optional()?.unwrap_or(0);
    let last_id = last_id(&transaction)?.get();
    if reserved > last_id {
        transaction.execute(NOTE_GAP, [last_id, reserved])?;
        raise_high_water(&transaction, MessageId::new(reserved))?;
    }
    transaction.commit()?;
    Ok((reserved - last_id).max(0))
}

/// The ids that were skipped, and the last of them.
pub(super) fn gap(connection: &Connection) -> rusqlite::Result<(i64, MessageId)> {
    let number = |key| connection.query_row(META_NUMBER, [key], |row| row.get(0)).optional();
    Ok((number("gap")?.unwrap_or(0), MessageId::new(number("gap_ends")?.unwrap_or(0))))
}

/// By `meta`'s primary key.
const KEEP_CLOCKS: &str = "INSERT INTO meta (key, value) \
     VALUES ('nonce_day', ?1), ('nonce_day_lasted', ?2), ('believed', ?3), ('doubted', ?4) \
     ON CONFLICT DO UPDATE SET value = excluded.value";

/// Notes the day of the nonces that come now and how long it has lasted, and which time is believed.
pub(super) fn keep_clocks(
    connection: &Connection,
    (day, lasted): (i64, Duration),
    belief: Belief,
) -> rusqlite::Result<()> {
    connection.execute(KEEP_CLOCKS, [day, millis(lasted), belief.time.0, millis(belief.doubted)])?;
    Ok(())
}

/// By `meta`'s primary key.
const KEPT_CLOCK: &str = "SELECT cast(value AS INTEGER) FROM meta WHERE key = ?1";

fn kept_clock(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    connection.query_row(KEPT_CLOCK, [key], |row| row.get(0)).optional()
}

/// The last day of nonces that was noted, and how long it had lasted.
pub(super) fn kept_nonce_day(connection: &Connection) -> rusqlite::Result<Option<(i64, Duration)>> {
    let kept = kept_clock(connection, "nonce_day")?.zip(kept_clock(connection, "nonce_day_lasted")?);
    Ok(kept.map(|(day, lasted)| (day, duration(lasted))))
}

/// The time that was believed last.
pub(super) fn kept_belief(connection: &Connection) -> rusqlite::Result<Option<Belief>> {
    let kept = kept_clock(connection, "believed")?.zip(kept_clock(connection, "doubted")?);
    Ok(kept.map(|(time, doubted)| Belief { time: UnixMillis(time), doubted: duration(doubted) }))
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// By `meta`'s primary key.
const EPOCH: &str = "SELECT value FROM meta WHERE key = 'epoch'";

pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<Epoch> {
    connection.query_row(EPOCH, [], |row| Ok(Epoch::from_database(row.get_ref(0)?.as_str()?)))
}

/// By the last rowid and `meta`'s primary key.
const LAST_ID: &str =
    "SELECT max((SELECT coalesce(max(id), 0) FROM messages), (SELECT value FROM meta WHERE key = 'high_water'))";

/// The largest id that any committed event has ever had.
pub(super) fn last_id(connection: &Connection) -> rusqlite::Result<MessageId> {
    connection.prepare_cached(LAST_ID)?.query_row([], |row| row.get(0).map(MessageId::new))
}

const FREE_PAGES: &str = "PRAGMA freelist_count";
const PAGE_SIZE: &str = "PRAGMA page_size";

/// Pages of the file that hold nothing: it does not grow before they are used again. SQLite compiles a pragma anew each
/// time, even one that is kept prepared.
pub(super) fn free_pages(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row(FREE_PAGES, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
}

/// Bytes of a page, which are the same as long as the file exists.
pub(super) fn page_size(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row(PAGE_SIZE, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
}

/// By `meta`'s primary key. As large as the largest message, so that if this succeeds a message will too; and random,
/// since SQLite does not write a row that has not changed.
const PROOF: &str = "INSERT INTO meta (key, value) VALUES ('proof', randomblob(?1)) \
     ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// Fails if the transaction cannot write, or has no room for a message.
pub(super) fn prove_writable(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(PROOF, [PROOF_BYTES])?;
    Ok(())
}

/// By the last rowids.
const NEWEST_ROWS: &str = "SELECT (SELECT max(id) FROM messages), (SELECT max(id) FROM sessions)";

/// Fails if rows cannot be read.
pub(super) fn prove_readable(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached(NEWEST_ROWS)?.query_row([], |_| Ok(()))
}
