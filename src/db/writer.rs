//! The writer thread: takes all commands that wait, applies them in one transaction, commits once, and then answers.
//!
//! One `fsync` serves everybody who waited ("group commit"), and there is no timer: while one commit is on its way to
//! the disk, the next batch gathers in the queue. A change that breaks a constraint is refused alone. A commit that
//! fails fails all its changes and publishes nothing; whether it reached the disk is then unknown, so before the next
//! one the thread looks it up, and publishes what it finds.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::mpsc;

use super::apply::{Effects, Transaction};
use super::change::{Change, Done, Moment, Reply, Step};
use super::data::{Commit, Committed, OnCommit, expired_at};
use super::error::OpenError;
use super::nonce_days::NonceClock;
use super::nonces::Nonces;
use super::shared::Shared;
use super::sql;
use crate::limits::{
    CLOCKS_KEPT, COMMANDS_PER_COMMIT, FAILURE_LOG_BURST, FAILURE_LOG_RATE, IDS_RESERVED, MESSAGES_PER_COMMIT,
};
use crate::model::{MessageId, SessionId, UnixMillis, UserId};
use crate::rate_limit::{Allowance, Bucket};
use crate::room::{Event, RoomId};

/// A command to the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Apply a change.
    Apply { change: Change, reply: Reply },
    /// End, once everything that was sent before is done.
    Stop,
}

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    /// Called for every commit, before the next one begins.
    on_commit: OnCommit,
    path: PathBuf,
    /// The device and inode of the open file.
    file: (u64, u64),
    /// The last id given to an event.
    last_id: MessageId,
    /// The last event handed to `on_commit`.
    published: MessageId,
    /// Sessions ended by commits that failed. If such a commit reached the disk anyway, their sockets must be closed.
    in_doubt: HashSet<SessionId>,
    nonce_clock: NonceClock,
    nonces: Nonces,
    /// When the state of the clocks that must outlive the process was last written.
    clocks_kept: Option<Instant>,
    /// Ids up to this one are reserved on disk: see [`reserve`](Self::reserve).
    reserved: MessageId,
    /// Log lines about failures.
    failure_log: Bucket,
    /// Whether the log says that the database fails.
    told: bool,
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database file is gone or was replaced: {0}")]
    Moved(PathBuf),
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: &Path,
        shared: Arc<Shared>,
        on_commit: OnCommit,
    ) -> Result<Self, OpenError> {
        let last_id = MessageId::new(shared.last_id.load(Ordering::Relaxed));
        let file = identity(path)?;
        let path = path.to_owned();
        let (newest, lasted) = (sql::nonce_days(&connection)?, sql::kept_nonce_day(&connection)?);
        let nonce_clock = NonceClock::since(&newest, lasted, UnixMillis::now(), Instant::now());
        let (published, in_doubt) = (last_id, HashSet::new());
        // A database that follows a log gets its ids from there and may not skip any, so nothing is ever left to
        // reserve.
        let reserved = MessageId::new(i64::MAX);
        let (failure_log, told) = (Bucket::full(Instant::now()), false);
        Ok(Self {
            connection,
            shared,
            on_commit,
            path,
            file,
            last_id,
            published,
            in_doubt,
            nonce_clock,
            nonces: Nonces::default(),
            clocks_kept: None,
            reserved,
            failure_log,
            told,
        })
    }

    /// Commits batch after batch, until it is stopped or every handle is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.reserved = self.last_id;
        self.run_all(&mut commands);
        // After a clean end the unused ids need not be skipped. If this fails, they are.
        if let Err(error) = sql::release_ids(&self.connection) {
            tracing::warn!(%error, "cannot release the reserved ids: the next start skips them");
        }
    }

    fn run_all(&mut self, commands: &mut mpsc::Receiver<Command>) {
        let mut taken = Vec::with_capacity(COMMANDS_PER_COMMIT);
        while commands.blocking_recv_many(&mut taken, COMMANDS_PER_COMMIT) > 0 {
            let mut waiting = taken.drain(..).peekable();
            while waiting.peek().is_some() {
                let moment = self.now();
                let clocks = self.clocks_to_keep().map(|change| Step { moment, change, reply: Reply::None });
                let mut batch: Vec<_> = clocks.into_iter().collect();
                let mut writes = 0;
                while writes < MESSAGES_PER_COMMIT
                    && let Some(command) = waiting.next()
                {
                    let Command::Apply { change, reply } = command else { return self.commit(batch, || 0) };
                    writes += change.writes();
                    batch.push(Step { moment, change, reply });
                }
                self.commit(batch, || waiting.len() + commands.len());
            }
        }
    }

    /// The moment of the changes that are made now.
    fn now(&mut self) -> Moment {
        let now = UnixMillis::now();
        self.nonce_clock.advance(now, Instant::now());
        let expiry = self.shared.expiry.now();
        Moment { now, expiry, expired_at: expired_at(expiry), nonce_days: self.nonce_clock.days() }
    }

    /// The state of the clocks that must outlive the process, if it is time to write it.
    fn clocks_to_keep(&mut self) -> Option<Change> {
        let now = Instant::now();
        let is_due = self.clocks_kept.is_none_or(|at| now.duration_since(at) >= CLOCKS_KEPT);
        is_due.then(|| {
            self.clocks_kept = Some(now);
            Change::KeepClocks { nonce_day: self.nonce_clock.lasted(now), belief: self.shared.expiry.belief(now) }
        })
    }

    /// Commits the whole batch in one transaction, or nothing of it; but a command that fails by itself, for whatever
    /// reason, fails alone: those before it are applied again, and then those after it. `waiting` is how many commands
    /// have gathered meanwhile.
    pub(super) fn commit(&mut self, batch: Vec<Step>, waiting: impl Fn() -> usize) {
        let started = Instant::now();
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            let mut failed = None;
            let committed = self.transact(|transaction| {
                transaction.nonces.begin(batch.len());
                let mut done = Vec::with_capacity(batch.len());
                for (at, Step { moment, change, .. }) in batch.iter().enumerate() {
                    let applied = transaction.at(*moment).run(change);
                    done.push(applied.inspect_err(|_| failed = Some(at))?);
                }
                Ok(done)
            });
            // Replies that are dropped say `unavailable`: that of the command which failed, or, if it was the
            // transaction, those of all.
            match (committed, failed) {
                (Some((done, effects)), _) => {
                    let replies = batch.into_iter().map(|step| step.reply);
                    self.publish(&effects, replies.zip(done), started, &waiting);
                }
                // The next transaction writes a proof first: a disk that is full is not taken for the fault of a command.
                (None, Some(at)) => {
                    let after = batch.split_off(at + 1);
                    batch.pop();
                    parts.push(after);
                    parts.extend((!batch.is_empty()).then_some(batch));
                }
                (None, None) => return,
            }
        }
    }

    /// Commits what `apply` does, if it can be committed.
    pub(super) fn transact<T>(
        &mut self,
        apply: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Option<(T, Effects)> {
        let mut effects = Effects::default();
        let reads = self.shared.reads.take();
        let committed = self.try_transact(&mut effects, &reads, apply);
        // Also if it failed: it may have reached the disk.
        self.shared.sessions.remove(&effects.ended, effects.sessions_changed);
        match committed {
            Ok(done) => {
                self.shared.failing.store(false, Ordering::Relaxed);
                if std::mem::take(&mut self.told) {
                    tracing::info!("the database works again");
                }
                Some((done, effects))
            }
            Err(failure) => {
                self.in_doubt.extend(effects.ended);
                self.nonces.look_again();
                self.shared.reads.put_back(&reads);
                self.shared.failing.store(true, Ordering::Relaxed);
                let allowance = Allowance::per_second(FAILURE_LOG_RATE, FAILURE_LOG_BURST);
                if !self.told && self.failure_log.take(allowance, Instant::now()).is_ok() {
                    self.told = true;
                    tracing::error!(%failure, "the database fails: nothing is stored until it works again");
                }
                None
            }
        }
    }

    fn try_transact<T>(
        &mut self,
        effects: &mut Effects,
        reads: &[(UserId, RoomId, MessageId)],
        apply: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        // An unlinked file still takes writes, and loses them with the process.
        if identity(&self.path).ok() != Some(self.file) {
            return Err(Failure::Moved(self.path.clone()));
        }
        let failed_before = self.shared.failing.load(Ordering::Relaxed);
        if failed_before {
            self.publish_what_turned_up()?;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if failed_before {
            // Only a write proves that writing works again.
            sql::prove_writable(&transaction)?;
        }
        let (last_id, nonces) = (&mut self.last_id, &mut self.nonces);
        let done = apply(&mut Transaction { connection: &transaction, last_id, nonces, effects })?;
        if effects.high_water > MessageId::default() {
            sql::raise_high_water(&transaction, effects.high_water)?;
        }
        for (user, room, id) in reads {
            sql::set_read(&transaction, *user, *room, *id)?;
        }
        let free_pages = sql::free_pages(&transaction)?;
        if effects.messages_changed {
            self.shared.generation.begin();
        }
        transaction.commit()?;
        if effects.messages_changed {
            self.shared.generation.end();
        }
        self.shared.free_pages.store(free_pages, Ordering::Relaxed);
        self.shared.commits.store(self.connection.total_changes(), Ordering::Relaxed);
        self.reserve()?;
        Ok(done)
    }

    /// Ensures, before anybody is told of the last id, that no id up to it is ever given again, whatever part of the
    /// log survives a power failure: under `--durability normal` commits do not wait for the disk, and some disks lie.
    /// Ids are reserved on disk by the thousand, and after an unclean end [skipped](sql::skip_reserved).
    fn reserve(&mut self) -> rusqlite::Result<()> {
        if self.last_id <= self.reserved {
            return Ok(());
        }
        let until = MessageId::new(self.last_id.get().saturating_add(IDS_RESERVED));
        let durability: i64 = self.connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        self.connection.pragma_update(None, "synchronous", "full")?;
        let reserved = sql::reserve_ids(&self.connection, until);
        self.connection.pragma_update(None, "synchronous", durability)?;
        reserved?;
        self.reserved = until;
        Ok(())
    }

    /// Reports what was committed, and answers the requests that waited for it.
    pub(super) fn publish(
        &mut self,
        Effects { events, ended, .. }: &Effects,
        answers: impl ExactSizeIterator<Item = (Reply, Done)>,
        started: Instant,
        waiting: impl FnOnce() -> usize,
    ) {
        let after = self.published;
        if let Some(last) = events.last() {
            self.published = last.id();
            self.shared.last_id.store(last.id().get(), Ordering::Release);
        }
        let (commands, took, waiting) = (answers.len(), started.elapsed(), waiting());
        if !ended.is_empty() {
            (self.on_commit)(Committed::SessionsEnded(ended));
        }
        if events.iter().any(|event| matches!(event, Event::Room { .. })) {
            self.note_rooms();
            (self.on_commit)(Committed::Membership(events));
        }
        // Before the messages are published, which may wait for slow shards: an ack promises the disk and no delivery, and
        // by waiting with the shards a stored message could be answered `unavailable`.
        for (reply, done) in answers {
            reply.answer(done);
        }
        (self.on_commit)(Committed::Stored(Commit { after, events, commands, waiting, took }));
    }

    /// Reads again which rooms are open.
    fn note_rooms(&self) {
        match sql::open_rooms(&self.connection) {
            Ok(rooms) => *self.shared.open_rooms.write().unwrap_or_else(PoisonError::into_inner) = rooms,
            Err(error) => tracing::error!(%error, "the list of open rooms cannot be read"),
        }
    }

    /// Called after a failed commit, which may have reached the disk: publishes what did, before anything new.
    fn publish_what_turned_up(&mut self) -> rusqlite::Result<()> {
        let used_after = expired_at(self.shared.expiry.now());
        let mut ended = Vec::new();
        for session in &self.in_doubt {
            if !sql::session_lives(&self.connection, *session, used_after)? {
                ended.push(*session);
            }
        }
        self.shared.sessions.remove(&[], true);
        if !ended.is_empty() {
            (self.on_commit)(Committed::SessionsEnded(&ended));
        }
        self.in_doubt.clear();
        // The ids that the failed transaction gave are free again, unless it was committed after all.
        self.last_id = sql::last_id(&self.connection)?;
        if self.last_id > self.published {
            self.reserve()?;
            self.note_rooms();
            self.published = self.last_id;
            self.shared.last_id.store(self.last_id.get(), Ordering::Release);
            (self.on_commit)(Committed::TurnedUp(self.last_id));
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::{Durability, Retention};
    use crate::db::files::create_private;
    use crate::db::lock::Lock;
    use crate::db::open::open_writer;
    use crate::model::Username;
    use crate::secret::Token;

    #[test]
    fn a_logout_that_reached_the_disk_by_a_commit_that_failed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        create_private(&path).unwrap();
        let connection = open_writer(&path, Durability::Full).unwrap();
        let (username, now) = (Username::parse("ada").unwrap(), UnixMillis::now());
        sql::insert_user(&connection, &username, "", now, MessageId::default()).unwrap();
        let user = sql::find_user(&connection, &username).unwrap().unwrap();
        let [gone, lives] = [(); 2].map(|()| {
            sql::insert_session(&connection, &Token::random().digest(), (user, ""), "", now).unwrap().unwrap()
        });
        sql::delete_session_by_id(&connection, gone).unwrap();
        let shared = Shared::new(&connection, &path, Lock::take(&path).unwrap(), Retention::default()).unwrap();
        shared.failing.store(true, Ordering::Relaxed);
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let on_commit = move |committed: Committed<'_>| {
            if let Committed::SessionsEnded(sessions) = committed {
                noted.lock().unwrap().extend_from_slice(sessions);
            }
        };
        let mut writer = Writer::new(connection, &path, Arc::new(shared), Box::new(on_commit)).unwrap();
        writer.in_doubt = HashSet::from([gone, lives]);
        for _ in 0..2 {
            writer.commit(Vec::new(), || 0);
            assert_eq!(*told.lock().unwrap(), [gone]);
        }
    }
}
