//! What a database that follows a [log](crate::cluster) knows of it: its id, and how far it was applied.
//!
//! Both are in the database itself, written in the transaction that applies the entries, so that both are on disk or
//! neither is; and they are in every backup.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, OptionalExtension as _, ToSql};
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, Reply};
use super::data::{OnCommit, Options};
use super::error::{Error, OpenError};
use super::follow::{Entry, Progress, Proposals};
use super::lock::Lock;
use super::{Db, Threads, files, open, sql};
use crate::config::Durability;
use crate::limits::WRITE_QUEUE;
use crate::model::{Epoch, MessageId, UserId};
use crate::room::RoomId;

/// Entries that wait for the writer thread. The consumer's flow control holds back the others.
const ENTRY_QUEUE: usize = 64;
/// Read positions that wait to be sent to other nodes.
const READS_QUEUE: usize = 1_024;

/// How far a log was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The last entry.
    pub applied: u64,
    /// The digest of all entries up to it: equal logs, applied to equal databases, give equal chains.
    pub chain: u64,
}

/// A log, and how far a database has applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The log's id.
    pub log: String,
    /// The name of the history that both continue.
    pub epoch: Epoch,
    /// How far it was applied.
    pub position: Position,
}

/// By `meta`'s primary key.
const GET: &str = "SELECT value FROM meta WHERE key = ?1";

/// By `meta`'s primary key.
const SET: &str = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";

/// The log that the database follows, if it follows one.
pub(super) fn followed(connection: &Connection) -> rusqlite::Result<Option<Followed>> {
    let Some(log) = get::<String>(connection, "log")? else { return Ok(None) };
    let applied = get::<i64>(connection, "applied")?.unwrap_or_default().cast_unsigned();
    let chain = get::<i64>(connection, "chain")?.unwrap_or_default().cast_unsigned();
    Ok(Some(Followed { log, epoch: sql::epoch(connection)?, position: Position { applied, chain } }))
}

pub(super) fn get<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(GET)?.query_row([key], |row| row.get(0)).optional()
}

pub(super) fn set(connection: &Connection, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
    connection.prepare_cached(SET)?.execute((key, value))?;
    Ok(())
}

/// Notes how far the log is applied.
pub(super) fn set_position(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    set(connection, "applied", position.applied.cast_signed())?;
    set(connection, "chain", position.chain.cast_signed())
}

/// A database that no server has open, to be added to a cluster or detached from it.
#[derive(Debug)]
pub struct Offline {
    connection: Connection,
    _lock: Lock,
}

impl Offline {
    /// Opens the database at `path`, making it if it is missing. Blocks.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        files::create_private(path)?;
        let lock = Lock::wait(path)?;
        Ok(Self { connection: open::open_writer(path, Durability::Full)?, _lock: lock })
    }

    /// The name of its history.
    pub fn epoch(&self) -> rusqlite::Result<Epoch> {
        sql::epoch(&self.connection)
    }

    /// The log that it follows, if it follows one.
    pub fn followed(&self) -> rusqlite::Result<Option<Followed>> {
        followed(&self.connection)
    }

    /// Makes it follow a log from its beginning: entries are applied to what the database holds now, as the history
    /// `epoch`.
    pub fn follow(&mut self, log: &str, epoch: &Epoch) -> rusqlite::Result<()> {
        // All nodes give the same ids, so from here on none can skip ids that a power cut may have taken.
        sql::skip_reserved(&mut self.connection)?;
        let transaction = self.connection.transaction()?;
        sql::release_ids(&transaction)?;
        sql::forget_log(&transaction)?;
        set(&transaction, "log", log)?;
        sql::set_epoch(&transaction, epoch)?;
        // Nonces from before are remembered in the cluster, too.
        sql::move_all_recent_nonces(&transaction)?;
        set(&transaction, "nonce_days", join(&sql::nonce_days(&transaction)?))?;
        set_position(&transaction, Position::default())?;
        transaction.commit()
    }

    /// Detaches it from its log.
    pub fn leave(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        sql::forget_log(&transaction)?;
        transaction.commit()
    }
}

/// Numbers as `meta` has them.
pub(super) fn join(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

/// Read positions, as they come.
pub(crate) type Reads = mpsc::Receiver<(UserId, RoomId, MessageId)>;

/// The ends that connect a database to its log.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The log, and how far it was applied when the database was opened.
    pub(crate) followed: Followed,
    /// Changes that are to become entries.
    pub(crate) proposals: Proposals,
    /// Entries to be applied.
    pub(crate) entries: mpsc::Sender<Entry>,
    pub(crate) progress: Arc<Progress>,
    /// Requests for a barrier.
    pub(crate) barriers: mpsc::Receiver<oneshot::Sender<()>>,
    /// Read positions of people here, for other nodes.
    pub(crate) reads: Reads,
}

impl Db {
    /// Opens the database at `path`, which follows a log, and starts its threads: changes requested through the handle
    /// come out as proposals, and entries that are put in are applied. Blocks.
    ///
    /// # Errors [`OpenError::NotClustered`] if it does not follow a log.
    pub(crate) fn open_replica(
        path: &Path,
        options: Options,
        on_commit: OnCommit,
    ) -> Result<(Self, Threads, Replica), OpenError> {
        // A node that has no database yet needs a copy of another node's, and not an empty one.
        if !path.exists() {
            return Err(OpenError::NotClustered);
        }
        let lock = Lock::wait(path)?;
        let connection = open::open_writer(path, options.durability)?;
        let followed = followed(&connection)?.ok_or(OpenError::NotClustered)?;
        let progress = Arc::new(Progress::new(&connection, followed.position)?);
        let (commands, proposals) = mpsc::channel(WRITE_QUEUE);
        let (mut db, writer, reader) = Self::assemble(connection, lock, path, options.retention, on_commit, commands)?;
        let (entries, entry_queue) = mpsc::channel(ENTRY_QUEUE);
        let following = Arc::clone(&progress);
        let writer =
            thread::Builder::new().name("db-writer".into()).spawn(move || writer.follow(entry_queue, &following))?;
        let (barriers, barrier_queue) = mpsc::channel(WRITE_QUEUE);
        db.barriers = Some(barriers);
        let (reads_told, reads) = mpsc::channel(READS_QUEUE);
        db.reads_told = Some(reads_told);
        let proposals = Proposals(proposals);
        let replica = Replica { followed, proposals, entries, progress, barriers: barrier_queue, reads };
        Ok((db, Threads { writer, reader }, replica))
    }

    /// Resolves once everything that any node acknowledged before is applied here.
    pub(crate) async fn pass_barrier(&self) -> Result<(), Error> {
        self.apply(Change::Check, Reply::Applied).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_may_have_been_given_are_skipped_before_a_log_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let mut database = Offline::open(&directory.path().join("chinwag.db")).unwrap();
        sql::reserve_ids(&database.connection, MessageId::new(500)).unwrap();
        database.follow("log", &Epoch::random()).unwrap();
        assert_eq!(sql::last_id(&database.connection).unwrap(), MessageId::new(500));
        assert_eq!(get::<i64>(&database.connection, "reserved").unwrap(), None);
    }
}
