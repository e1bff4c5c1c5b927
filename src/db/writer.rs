//! The writer thread: takes all that waits, runs it in one transaction, commits once, and only then answers.
//!
//! One `fsync` serves all who waited ("group commit"), and there is no timer: while one commit is on its way to the
//! disk, the next batch gathers in the queue. A command that breaks a constraint is refused alone. A commit that fails
//! fails all its commands and publishes nothing; whether it reached the disk is then unknown, so before the next one
//! the thread looks, and publishes what turned up.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::nonce_days::NonceDays;
use super::order::{self, Order, Outcome, Refusal};
use super::sql::{self, StoreMessage};
use super::{Commit, Committed, Error, NewMessage, OnCommit, OpenError, Sender, Shared, expired_at, millis};
use crate::config::{
    CHUNK_MAX_BYTES, CHUNK_MAX_MESSAGES, CLEAN_INTERVAL, CLEAN_PACE, CLEAN_ROWS, COMMANDS_PER_COMMIT,
    MESSAGES_PER_COMMIT, PRUNE_ALL_INTERVAL, PRUNE_PACE, Retention, SESSION_LIFETIME,
};
use crate::model::{Digest, Message, MessageId, SessionId, UnixMillis, UserId, Username};

/// All that the thread can do. A reply that is dropped says that it could not.
#[derive(Debug)]
pub(super) enum Command {
    RegisterUser {
        username: Username,
        password_hash: String,
        invite: Option<Digest>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    LoginUser {
        user: UserId,
        password_hash: String,
        digest: Digest,
        reply: oneshot::Sender<Option<SessionId>>,
    },
    TouchSession {
        session: SessionId,
    },
    EndSession {
        digest: Digest,
        reply: oneshot::Sender<bool>,
    },
    StoreMessages {
        sender: Sender,
        messages: Vec<NewMessage>,
        /// Given back when they are stored, or are not.
        room: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Vec<MessageId>, Error>>,
    },
    CarryOut {
        order: Order,
        reply: oneshot::Sender<Result<Outcome, Refusal>>,
    },
    Clean {
        reply: oneshot::Sender<Duration>,
    },
    Check {
        reply: oneshot::Sender<()>,
    },
    Stop,
}

/// What a transaction stored and ended, to be told to everyone once it is committed.
#[derive(Default)]
struct Effects {
    messages: Vec<Message>,
    ended: Vec<SessionId>,
}

/// Where the removal of old messages is.
struct Pruning {
    retention: Retention,
    /// The last message that was looked at.
    after: MessageId,
    /// When all messages had been looked through.
    ended: Option<Instant>,
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce()>;

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    on_commit: OnCommit,
    pruning: Pruning,
    path: PathBuf,
    /// Device and inode of the file that is open.
    file: (u64, u64),
    /// The last id given to a message, committed or not.
    last_id: MessageId,
    /// The last message handed to `on_commit`.
    published: MessageId,
    /// Sessions ended by commits that failed: those that are gone from the disk all the same still have sockets open.
    in_doubt: HashSet<SessionId>,
    nonce_days: NonceDays,
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
        retention: Retention,
        on_commit: OnCommit,
    ) -> Result<Self, OpenError> {
        let last_id = MessageId::new(shared.last_id.load(Ordering::Relaxed));
        let file = identity(path)?;
        let path = path.to_owned();
        let pruning = Pruning { retention, after: MessageId::default(), ended: None };
        let nonce_days = NonceDays::since(&sql::nonce_days(&connection)?, UnixMillis::now(), Instant::now());
        let (published, in_doubt) = (last_id, HashSet::new());
        Ok(Self { connection, shared, on_commit, pruning, path, file, last_id, published, in_doubt, nonce_days })
    }

    /// Commits batch after batch, until told to stop or every handle is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut taken = Vec::with_capacity(COMMANDS_PER_COMMIT);
        while commands.blocking_recv_many(&mut taken, COMMANDS_PER_COMMIT) > 0 {
            let mut waiting = taken.drain(..).peekable();
            while waiting.peek().is_some() {
                let mut batch = Vec::new();
                let mut messages = 0;
                while messages < MESSAGES_PER_COMMIT
                    && let Some(command) = waiting.next()
                {
                    match &command {
                        Command::Stop => return self.commit(batch, || 0),
                        Command::StoreMessages { messages: more, .. } => messages += more.len(),
                        _ => {}
                    }
                    batch.push(command);
                }
                self.commit(batch, || waiting.len() + commands.len());
            }
        }
    }

    /// One transaction: all of the batch, or nothing. `waiting` says how many commands have gathered meanwhile.
    fn commit(&mut self, batch: Vec<Command>, waiting: impl FnOnce() -> usize) {
        let (started, commands) = (Instant::now(), batch.len());
        let mut answers: Vec<Answer> = Vec::with_capacity(commands);
        let mut effects = Effects::default();
        if let Err(failure) = self.transact(batch, &mut answers, &mut effects) {
            // What was removed is there again.
            self.pruning.after = MessageId::default();
            self.pruning.ended = None;
            self.in_doubt.extend(effects.ended);
            // The answers are dropped with their replies, which says `unavailable` to all.
            if !self.shared.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%failure, "the database fails: nothing is stored until it works again");
            }
            return;
        }
        if self.shared.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the database works again");
        }
        let Effects { messages, ended } = &effects;
        let after = self.published;
        if let Some(last) = messages.last() {
            self.published = last.id;
            self.shared.last_id.store(last.id.get(), Ordering::Release);
        }
        let (took, waiting) = (started.elapsed(), waiting());
        if !ended.is_empty() {
            (self.on_commit)(Committed::Ended(ended));
        }
        for answer in answers {
            answer();
        }
        (self.on_commit)(Committed::Stored(Commit { after, messages, commands, waiting, took }));
    }

    fn transact(
        &mut self,
        batch: Vec<Command>,
        answers: &mut Vec<Answer>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        // An unlinked file still takes writes, and loses them with the process.
        if identity(&self.path).ok() != Some(self.file) {
            return Err(Failure::Moved(self.path.clone()));
        }
        let failed_before = self.shared.failing.load(Ordering::Relaxed);
        if failed_before {
            self.publish_what_turned_up()?;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = UnixMillis::now();
        self.nonce_days.advance(now, Instant::now());
        if failed_before {
            // Only a write shows that writing works again.
            sql::prove_writable(&transaction)?;
        }
        let mut execution = Execution {
            connection: &transaction,
            now,
            nonce_days: &self.nonce_days,
            pruning: &mut self.pruning,
            last_id: &mut self.last_id,
            effects,
        };
        for command in batch {
            answers.push(execution.run(command)?);
        }
        transaction.commit()?;
        Ok(())
    }

    /// After a commit of which nobody knows whether it reached the disk: what did is told to everyone before anything
    /// new is.
    fn publish_what_turned_up(&mut self) -> rusqlite::Result<()> {
        let used_after = expired_at(UnixMillis::now());
        let mut ended = Vec::new();
        for session in &self.in_doubt {
            if !sql::session_lives(&self.connection, *session, used_after)? {
                ended.push(*session);
            }
        }
        if !ended.is_empty() {
            (self.on_commit)(Committed::Ended(&ended));
        }
        self.in_doubt.clear();
        loop {
            let messages = sql::messages_after(&self.connection, self.published, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES)?;
            let Some(last) = messages.last().map(|message| message.id) else { return Ok(()) };
            self.last_id = self.last_id.max(last);
            self.shared.last_id.store(last.get(), Ordering::Release);
            let after = std::mem::replace(&mut self.published, last);
            let commit = Commit { after, messages: &messages, commands: 0, waiting: 0, took: Duration::ZERO };
            (self.on_commit)(Committed::Stored(commit));
        }
    }
}

/// A transaction, as its commands see it.
struct Execution<'a> {
    connection: &'a Connection,
    now: UnixMillis,
    nonce_days: &'a NonceDays,
    pruning: &'a mut Pruning,
    last_id: &'a mut MessageId,
    effects: &'a mut Effects,
}

impl Execution<'_> {
    /// Runs one command; what it answers once the transaction is committed.
    fn run(&mut self, command: Command) -> rusqlite::Result<Answer> {
        let (connection, now) = (self.connection, self.now);
        Ok(match command {
            Command::RegisterUser { username, password_hash, invite, reply } => {
                answer(reply, register_user(connection, &username, &password_hash, invite.as_ref(), now)?)
            }
            Command::LoginUser { user, password_hash, digest, reply } => {
                let session = sql::insert_session(connection, &digest, user, &password_hash, now)?;
                self.effects.ended.extend(sql::delete_surplus_sessions(connection, user)?);
                answer(reply, session)
            }
            Command::TouchSession { session } => {
                sql::touch_session(connection, session, now)?;
                Box::new(|| {})
            }
            Command::EndSession { digest, reply } => {
                let ended = sql::delete_session(connection, &digest)?;
                self.effects.ended.extend(ended);
                answer(reply, ended.is_some())
            }
            Command::StoreMessages { sender, messages, room, reply } => {
                let stored = self.store_messages(&sender, messages)?;
                Box::new(move || {
                    drop(room);
                    drop(reply.send(stored));
                })
            }
            Command::CarryOut { order, reply } => {
                let done = order::carry_out(connection, order, now)?;
                self.effects.ended.extend(done.iter().flat_map(|outcome| &outcome.ended));
                answer(reply, done)
            }
            Command::Clean { reply } => answer(reply, self.clean()?),
            Command::Check { reply } => answer(reply, ()),
            Command::Stop => unreachable!("the loop ends at it"),
        })
    }

    fn store_messages(
        &mut self,
        sender: &Sender,
        messages: Vec<NewMessage>,
    ) -> rusqlite::Result<Result<Vec<MessageId>, Error>> {
        // Logged out, expired or disabled since: its sockets are closed, perhaps not yet, and nothing counts that is sent
        // on them.
        if !sql::session_lives(self.connection, sender.session, expired_at(self.now))? {
            return Ok(Err(Error::SessionEnded));
        }
        let mut store = StoreMessage::prepare(self.connection)?;
        let ids = messages.into_iter().map(|message| self.store_message(&mut store, sender, message));
        ids.collect::<rusqlite::Result<_>>().map(Ok)
    }

    /// Stores a message; or, sent before under the same nonce, finds it. Its id.
    fn store_message(
        &mut self,
        store: &mut StoreMessage<'_>,
        sender: &Sender,
        NewMessage { content, nonce }: NewMessage,
    ) -> rusqlite::Result<MessageId> {
        let id = self.last_id.next();
        if let Some(nonce) = &nonce
            && let Some(first) = store.claim_nonce(sender.user, nonce, id, self.nonce_days)?
        {
            return Ok(first);
        }
        store.insert(id, sender.user, &content, self.now)?;
        *self.last_id = id;
        self.effects.messages.push(Message { id, username: sender.username.clone(), content, created_at: self.now });
        Ok(id)
    }

    /// Removes some of what has expired. When to clean again at the latest.
    fn clean(&mut self) -> rusqlite::Result<Duration> {
        let (connection, now) = (self.connection, self.now);
        let expired = sql::delete_expired(connection, expired_at(now))?;
        let nonces = sql::delete_old_nonces(connection, self.nonce_days)?;
        sql::delete_expired_invites(connection, now)?;
        let more_to_prune = self.pruning.go_on(connection, now, *self.last_id)?;
        let rows = CLEAN_ROWS as usize;
        let some_left = expired.len() == rows || nonces == rows;
        self.effects.ended.extend(expired);
        Ok(if more_to_prune {
            PRUNE_PACE
        } else if some_left {
            CLEAN_PACE
        } else {
            let expires_in =
                sql::oldest_use(connection)?.map_or(i64::MAX, |used| used.plus(millis(SESSION_LIFETIME)).0 - now.0);
            CLEAN_INTERVAL.min(Duration::from_millis(u64::try_from(expires_in).unwrap_or(0)))
        })
    }
}

/// Who asked may have gone: then nobody is answered.
fn answer<T: Send + 'static>(reply: oneshot::Sender<T>, value: T) -> Answer {
    Box::new(move || drop(reply.send(value)))
}

/// With an invitation, its use is counted in the same transaction: it lets in as many as it says, and no failed
/// registration uses it up.
fn register_user(
    connection: &Connection,
    username: &Username,
    password_hash: &str,
    invite: Option<&Digest>,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), Error>> {
    let uses_left = match invite {
        Some(invite) => sql::invite_uses(connection, invite, now)?,
        None => 0,
    };
    if invite.is_some() && uses_left == 0 {
        return Ok(Err(Error::InvalidInvite));
    }
    match sql::insert_user(connection, username, password_hash, now) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Ok(Err(Error::UsernameTaken));
        }
        inserted => inserted?,
    }
    if let Some(invite) = invite {
        sql::use_invite(connection, invite, uses_left)?;
    }
    Ok(Ok(()))
}

impl Pruning {
    /// Removes some of the messages that are not to be kept; whether to go on soon.
    ///
    /// How many are kept is told by their ids, and not by counting them: that would read the whole table. Ids have few
    /// holes, and with holes fewer are kept.
    fn go_on(&mut self, connection: &Connection, now: UnixMillis, last_id: MessageId) -> rusqlite::Result<bool> {
        let retention = self.retention;
        if retention == Retention::default() {
            return Ok(false);
        }
        let until = MessageId::new(retention.messages.map_or(0, |kept| last_id.get() - i64::from(kept)));
        let before = UnixMillis(retention.age.map_or(i64::MIN, |age| now.plus(-millis(age)).0));
        let (removed, next) = sql::prune_messages(connection, self.after, until, before)?;
        // Times rise with ids, mostly: where nothing goes, nothing behind it does. And ids always do.
        let look_at_all =
            retention.age.is_some() && self.ended.is_none_or(|ended| ended.elapsed() > PRUNE_ALL_INTERVAL);
        let next = next.filter(|_| removed > 0 || look_at_all);
        if next.is_none() && look_at_all {
            self.ended = Some(Instant::now());
        }
        self.after = next.unwrap_or_default();
        Ok(next.is_some())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicI64};

    use super::*;
    use crate::config::Durability;
    use crate::db::Lock;
    use crate::model::Token;

    #[test]
    fn a_logout_that_reached_the_disk_by_a_commit_that_failed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        sql::create_private(&path).unwrap();
        let connection = sql::open_writer(&path, Durability::Full).unwrap();
        let (username, now) = (Username::parse("ada").unwrap(), UnixMillis::now());
        sql::insert_user(&connection, &username, "", now).unwrap();
        let user = sql::find_user(&connection, &username).unwrap().unwrap();
        let [gone, lives] = [(); 2]
            .map(|()| sql::insert_session(&connection, &Token::random().digest(), user, "", now).unwrap().unwrap());
        sql::delete_session_by_id(&connection, gone).unwrap();
        let shared = Arc::new(Shared {
            epoch: sql::epoch(&connection).unwrap(),
            last_id: AtomicI64::new(0),
            failing: AtomicBool::new(true),
            was_empty: false,
            lock: Lock::take(&path).unwrap(),
        });
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let on_commit = move |committed: Committed<'_>| {
            if let Committed::Ended(sessions) = committed {
                noted.lock().unwrap().extend_from_slice(sessions);
            }
        };
        let mut writer = Writer::new(connection, &path, shared, Retention::default(), Box::new(on_commit)).unwrap();
        writer.in_doubt = HashSet::from([gone, lives]);
        for _ in 0..2 {
            writer.commit(Vec::new(), || 0);
            assert_eq!(*told.lock().unwrap(), [gone]);
        }
    }
}
