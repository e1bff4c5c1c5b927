//! The database: an actor on two threads behind a cloneable handle.
//!
//! One thread owns the connection that writes, so that there is one order of commits and no lock; it commits all that
//! waits at once. Another owns a connection that only reads, so that a long read never delays a commit. Both take
//! commands from channels that are bounded, the writer's in bytes as well: a full one is answered `unavailable` at
//! once, not waited for. Nothing of SQLite but its errors shows outside, and nothing of JSON or sockets inside; what a
//! commit stored is handed to a hook, in order, by the writer thread.

mod archive;
mod lock;
mod nonce_days;
mod order;
mod partial;
mod reader;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::{
    Durability, READ_QUEUE, Retention, SESSION_LIFETIME, SESSION_TOUCH, STORE_TIMEOUT, WRITE_QUEUE, WRITE_QUEUE_BYTES,
    WRITE_QUEUE_SPARED,
};
use crate::model::{Content, Digest, Epoch, Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};
use reader::{History, Request};
use writer::Command;

pub use archive::{
    Archive, ArchiveError, Contents, Import, ImportError, SessionRow, StoredMessage, StoredUser, restore,
};
pub use lock::{Lock, LockError, beside, server_addresses};
pub use order::{Order, Outcome, Refusal};
pub use partial::Partial;

/// What a request to the database may be refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody has this name, in whatever case.
    #[error("the username is taken")]
    UsernameTaken,
    /// No such invitation, or not any more.
    #[error("the invitation is not valid")]
    InvalidInvite,
    /// The session was logged out, has expired, or its user was disabled.
    #[error("the session has ended")]
    SessionEnded,
    /// The database fails, or does not answer in time, or its queue is full, or it is stopping. What was to be stored
    /// may still be, if a commit failed or the answer did not come in time.
    #[error("the database is unavailable")]
    Unavailable,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("the file cannot be opened")]
    Io(#[from] io::Error),
    /// SQLite cannot use the file.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A newer chinwag made the file.
    #[error("it has version {found}, made by a newer chinwag; this one knows version {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// The version this program makes.
        known: i64,
    },
    /// The file is a database of some other program.
    #[error("it is a database, but not one of chinwag")]
    Foreign,
    /// Another process has it, or its lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It is of an older version, and could not be copied before the upgrade.
    #[error("it must be upgraded, and cannot be backed up before")]
    Backup(#[source] Box<ArchiveError>),
}

/// How a database is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What an acknowledged message has survived.
    pub durability: Durability,
    /// How much of the history stays.
    pub retention: Retention,
}

/// A user as the login needs them.
#[derive(Debug)]
pub struct Credentials {
    /// The user's row.
    pub user: UserId,
    /// The name as it was registered.
    pub username: Username,
    /// The PHC string of the password.
    pub password_hash: String,
}

/// A live login.
#[derive(Debug, Clone)]
pub struct Session {
    /// The login's row.
    pub id: SessionId,
    /// Whose login it is.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// When it was last used, to about an hour.
    last_used_at: UnixMillis,
}

/// Who sends messages.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The login they are sent with: once it is over nothing more is stored.
    pub session: SessionId,
    /// Whose login it is.
    pub user: UserId,
    /// The user's name, for those the messages are shown to.
    pub username: Username,
}

/// A message to be stored.
#[derive(Debug)]
pub struct NewMessage {
    /// What it says.
    pub content: Content,
    /// What the sender calls it.
    pub nonce: Option<Nonce>,
}

impl NewMessage {
    /// Memory it takes while it waits.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.content.as_str().len() + self.nonce.as_ref().map_or(0, |nonce| nonce.as_str().len())
    }
}

/// Which messages a page of history has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest.
    Newest,
    /// The newest of those before this one.
    Before(MessageId),
    /// The oldest of those after this one.
    After(MessageId),
}

/// The messages from one id to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: MessageId,
    /// The last of them.
    pub last: MessageId,
}

/// The messages of a page.
#[derive(Debug)]
pub enum Found {
    /// All of them, ascending.
    Messages(Vec<Message>),
    /// Where they are: they are more text than is held in memory at once, and are read in pieces by
    /// [`Db::messages_in`].
    Run(Run),
}

/// What a connection that has everything up to a message has missed.
#[derive(Debug)]
pub enum Missed {
    /// The oldest of it, ascending; empty when it is nothing.
    Messages(Vec<Message>),
    /// More than was asked for.
    TooMany,
}

/// What one transaction stored.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The last message of the commit before.
    pub after: MessageId,
    /// The messages, in `id` order; may be empty.
    pub messages: &'a [Message],
    /// Commands in the transaction.
    pub commands: usize,
    /// Commands that were waiting when it was done.
    pub waiting: usize,
    /// Time from the first statement to the end of the commit.
    pub took: Duration,
}

/// What everyone is to be told of a commit.
#[derive(Debug)]
pub enum Committed<'a> {
    /// These sessions are over, whoever ended them. Told before who asked for it is answered: nothing that is sent on
    /// their sockets after that counts.
    Ended(&'a [SessionId]),
    /// This was stored. Told when the senders have been answered.
    Stored(Commit<'a>),
}

/// What the writer thread calls after each commit.
pub type OnCommit = Box<dyn FnMut(Committed<'_>) + Send>;

/// The handle of the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    commands: mpsc::Sender<Command>,
    /// Bytes of messages that may still be handed to the writer.
    room: Arc<Semaphore>,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// What the threads tell the handles without being asked.
#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    last_id: AtomicI64,
    /// Whether the last transaction failed.
    failing: AtomicBool,
    /// Whether nobody had registered when it was opened.
    was_empty: bool,
    lock: Lock,
}

/// The database's threads, to be waited for.
#[derive(Debug)]
pub struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Threads {
    /// Waits until both threads have ended: after [`Db::stop`], or when every handle is gone. Blocks.
    ///
    /// # Errors
    /// If one of them ended in a panic.
    pub fn join(self) -> thread::Result<()> {
        self.writer.join()?;
        self.reader.join()
    }
}

impl Db {
    /// Opens the database at `path`, making it if it is missing, and starts its threads. No other process can open it
    /// for writing until the handles and the threads are gone; one that has it is waited for, for a moment. Blocks.
    pub fn open(path: &Path, options: Options, on_commit: OnCommit) -> Result<(Self, Threads), OpenError> {
        sql::create_private(path)?;
        Self::open_locked(Lock::wait(path)?, path, options, on_commit)
    }

    /// The same, but does not wait: for who can ask the process that has it.
    pub fn open_at_once(path: &Path, options: Options, on_commit: OnCommit) -> Result<(Self, Threads), OpenError> {
        sql::create_private(path)?;
        Self::open_locked(Lock::take(path)?, path, options, on_commit)
    }

    fn open_locked(
        lock: Lock,
        path: &Path,
        options: Options,
        on_commit: OnCommit,
    ) -> Result<(Self, Threads), OpenError> {
        let connection = sql::open_writer(path, options.durability)?;
        let shared = Arc::new(Shared {
            epoch: sql::epoch(&connection)?,
            last_id: AtomicI64::new(sql::last_id(&connection)?.get()),
            failing: AtomicBool::new(false),
            was_empty: !sql::has_users(&connection)?,
            lock,
        });
        let (commands, command_queue) = mpsc::channel(WRITE_QUEUE);
        let (requests, request_queue) = mpsc::channel(READ_QUEUE);
        let reading = sql::open_reader(path)?;
        let writer = writer::Writer::new(connection, path, Arc::clone(&shared), options.retention, on_commit)?;
        let threads = Threads {
            writer: thread::Builder::new().name("db-writer".into()).spawn(move || writer.run(command_queue))?,
            reader: thread::Builder::new()
                .name("db-reader".into())
                .spawn(move || reader::run(reading, request_queue))?,
        };
        let room = Arc::new(Semaphore::new(WRITE_QUEUE_BYTES));
        Ok((Self { commands, room, requests, shared }, threads))
    }

    /// Notes where the server of this database listens, for the commands to know ([`server_addresses`]).
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn announce(&self, addresses: &[String]) -> io::Result<()> {
        self.shared.lock.announce(addresses)
    }

    /// Whether nobody had registered when the database was opened.
    #[must_use]
    pub fn was_empty(&self) -> bool {
        self.shared.was_empty
    }

    /// Names this history.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// The last message that was committed.
    #[must_use]
    pub fn last_id(&self) -> MessageId {
        MessageId::new(self.shared.last_id.load(Ordering::Acquire))
    }

    /// Creates a user; with an invitation, if one is given, of which this is one use.
    pub async fn register_user(
        &self,
        username: Username,
        password_hash: String,
        invite: Option<Digest>,
    ) -> Result<(), Error> {
        self.command(|reply| Command::RegisterUser { username, password_hash, invite, reply }).await?
    }

    /// Does what an administrator ordered.
    pub async fn carry_out(&self, order: Order) -> Result<Outcome, Refusal> {
        match self.command(|reply| Command::CarryOut { order, reply }).await {
            Ok(done) => done,
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    /// What a login of `username` is checked against. A disabled user has nothing.
    pub async fn credentials(&self, username: Username) -> Result<Option<Credentials>, Error> {
        self.request(|reply| Request::Credentials { username, reply }).await
    }

    /// Starts a session of a user whose password was verified against `password_hash`. None if that is not their
    /// password any more, or they have been disabled meanwhile.
    pub async fn login_user(
        &self,
        user: UserId,
        password_hash: String,
        digest: Digest,
    ) -> Result<Option<SessionId>, Error> {
        self.command(|reply| Command::LoginUser { user, password_hash, digest, reply }).await
    }

    /// The live session of a token, which counts as used by this.
    pub async fn validate_session(&self, digest: Digest) -> Result<Option<Session>, Error> {
        let now = UnixMillis::now();
        let session = self.request(|reply| Request::Session { digest, used_after: expired_at(now), reply }).await?;
        if let Some(session) = &session {
            self.note_use(session, now);
        }
        Ok(session)
    }

    fn note_use(&self, session: &Session, now: UnixMillis) {
        if now.0.saturating_sub(session.last_used_at.0) > millis(SESSION_TOUCH) {
            self.touch_session(session.id);
        }
    }

    /// Notes that a session was used, without waiting.
    pub fn touch_session(&self, session: SessionId) {
        // A full queue is no reason to refuse anything: the next use is noted.
        drop(self.commands.try_send(Command::TouchSession { session }));
    }

    /// Whether a session that was validated before is still live.
    pub async fn session_lives(&self, session: SessionId) -> Result<bool, Error> {
        let used_after = expired_at(UnixMillis::now());
        self.request(|reply| Request::SessionLives { session, used_after, reply }).await
    }

    /// Ends the session of a token; whether there was one.
    pub async fn end_session(&self, digest: Digest) -> Result<bool, Error> {
        self.command_of_a_stranger(|reply| Command::EndSession { digest, reply }).await
    }

    /// Stores the messages of one sender, in order, and answers with the id of each; of one that was sent before under the
    /// same nonce, the first it got (promise 5). The answer comes when all of them are on disk (promise 1).
    pub async fn store_messages(&self, sender: Sender, messages: Vec<NewMessage>) -> Result<Vec<MessageId>, Error> {
        let bytes = messages.iter().map(NewMessage::bytes).sum::<usize>();
        let bytes = u32::try_from(bytes).map_err(|_| Error::Unavailable)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| Error::Unavailable)?;
        self.command(|reply| Command::StoreMessages { sender, messages, room, reply }).await?
    }

    /// A page of history and whether there is more beyond it, for the live session of a token, which counts as used by
    /// this; none if there is no such session.
    pub async fn message_history(
        &self,
        digest: Digest,
        page: Page,
        limit: u32,
    ) -> Result<Option<(Found, bool)>, Error> {
        let now = UnixMillis::now();
        let used_after = expired_at(now);
        let found = self.request(|reply| Request::History { digest, used_after, page, limit, reply }).await?;
        let Some(History { session, found, has_more }) = found else { return Ok(None) };
        self.note_use(&session, now);
        Ok(Some((found, has_more)))
    }

    /// The first messages of a run, ascending, as many as are held in memory at once; none when it is over.
    pub async fn messages_in(&self, run: Run) -> Result<Vec<Message>, Error> {
        self.request(|reply| Request::MessagesIn { run, reply }).await
    }

    /// A chunk of the messages after `id`, unless there are more than `at_most` of them.
    pub async fn messages_after(&self, id: MessageId, at_most: u32) -> Result<Missed, Error> {
        self.request(|reply| Request::MessagesAfter { id, at_most, reply }).await
    }

    /// Removes some of what has expired; when to do so again at the latest.
    pub async fn clean(&self) -> Result<Duration, Error> {
        self.command(|reply| Command::Clean { reply }).await
    }

    /// Whether the database works: by a look at its rows, and a transaction, which writes if the last one failed.
    pub async fn check(&self) -> Result<(), Error> {
        let reading = self.request(|reply| Request::Check { reply });
        let writing = self.command_of_a_stranger(|reply| Command::Check { reply });
        tokio::try_join!(reading, writing).map(drop)
    }

    /// Has the threads end, when all that was sent before is done.
    pub async fn stop(&self) {
        // A queue that is gone has stopped already. The reader is first, since only the last connection that is closed
        // can move the log into the database, and only one that writes.
        drop(self.requests.send(Request::Stop).await);
        self.requests.closed().await;
        drop(self.commands.send(Command::Stop).await);
    }

    /// Resolves when a thread has ended, asked to or not. Cancel safe.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.commands.closed() => {}
            () = self.requests.closed() => {}
        }
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| Error::Unavailable)?;
        wait_for(answer).await
    }

    /// The same for what anybody may have done over and over: it leaves [`WRITE_QUEUE_SPARED`] places for the others.
    async fn command_of_a_stranger<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        if self.commands.capacity() <= WRITE_QUEUE_SPARED {
            Err(Error::Unavailable)
        } else {
            self.command(command).await
        }
    }

    async fn request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|_| Error::Unavailable)?;
        wait_for(answer).await
    }
}

/// A thread that cannot do what was asked drops the reply.
async fn wait_for<T>(answer: oneshot::Receiver<T>) -> Result<T, Error> {
    match tokio::time::timeout(STORE_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Error::Unavailable),
    }
}

/// Sessions last used at or before this moment are expired.
fn expired_at(now: UnixMillis) -> UnixMillis {
    now.plus(-millis(SESSION_LIFETIME))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
