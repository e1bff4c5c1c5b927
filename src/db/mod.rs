//! The database: an actor on two threads behind a cloneable handle.
//!
//! One thread owns the connection that writes, so that there is one order of commits and no lock; it commits everything
//! that waits in one transaction. Another owns a connection that only reads, so that a long read never delays a commit.
//! Both receive from bounded channels (the writer's is bounded in bytes as well); if one is full, the answer is
//! `unavailable` at once. Outside this folder nothing of SQLite is visible except its errors, and inside it nothing of
//! sockets or of the contract's JSON. (Exports and the entries of a log have a JSON of their own.) The writer thread
//! hands what each commit stored to a hook, in order.

mod account;
mod admin;
mod apply;
mod change;
mod cleaner;
mod data;
#[cfg(feature = "cluster")]
mod encoding;
mod error;
mod expiry;
mod files;
#[cfg(feature = "cluster")]
mod follow;
mod import;
mod lock;
mod memo;
mod nonce_days;
mod nonces;
mod open;
#[cfg(test)]
mod properties;
#[cfg(any(feature = "push", feature = "cluster"))]
#[cfg_attr(not(feature = "push"), allow(dead_code, reason = "a node that does not push only applies what it writes"))]
mod push;
mod reader;
mod reads;
mod records;
#[cfg(feature = "cluster")]
mod replica;
mod restore;
mod room_changes;
mod search;
mod sessions;
mod settle;
mod shared;
mod snapshot;
mod sql;
mod temp_file;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::config::Retention;
use crate::limits::{
    READ_QUEUE, STORE_TIMEOUT, UNNAMED_IMAGES_MAX, USER_SESSIONS_MAX, WRITE_QUEUE, WRITE_QUEUE_BYTES,
    WRITE_QUEUE_SPARED,
};
use crate::model::{Epoch, Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};
use crate::room::{ImageId, RoomId, RoomView};
use crate::secret::Digest;
use change::{Change, Reply};
use cleaner::Cleaner;
use data::expired_at;
use reader::Request;
use shared::Shared;
use writer::{Command, Writer};

pub use account::{AccountCommand, AccountOutcome};
pub use admin::{AdminCommand, AdminError, AdminOutcome};
pub use data::{
    Commit, Committed, Credentials, FoundPage, History, IdRange, ImageInfo, InviteRow, LoginRow, MessagesBy, NewImage,
    NewMessage, OnCommit, Options, Page, PageQuery, Person, Sender, Session, Write, WriteOutcome, WriteRules,
};
pub use error::{
    AccountError, Error, ImageError, ImportError, LockError, OpenError, RoomError, SnapshotError, WriteError,
};
pub use files::sibling;
#[cfg(feature = "cluster")]
pub(crate) use follow::{Body, Changes, Entry, Progress, Proposal, Proposals, Replies};
pub use import::Import;
pub use lock::{Lock, server_addresses, server_public_url};
#[cfg(any(feature = "push", feature = "cluster"))]
pub use push::{DeviceId, News, Notice, Subscription};
pub use records::{
    DeleteRecord, ImageRecord, MemberRecord, MentionRecord, MessageRecord, NotifyRecord, RECORD_ID_MAX,
    RECORD_MAX_BYTES, RECORD_TIME_MAX, ReactionRecord, ReadRecord, Record, RoomRecord, UserRecord,
};
#[cfg(feature = "cluster")]
pub use replica::{Followed, Offline, Position};
#[cfg(feature = "cluster")]
pub(crate) use replica::{Reads, Replica};
pub use restore::restore;
pub use room_changes::{RoomChange, RoomCommand, RoomOutcome};
pub use search::{SearchPage, SearchQuery};
pub use snapshot::{Contents, SessionRow, Snapshot, StoredUser};
pub use sql::{Backlog, BacklogQuery};
pub use temp_file::TempFile;

/// The handle of the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    commands: mpsc::Sender<Command>,
    /// Bytes of messages that may still wait for the writer.
    queue_bytes: Arc<Semaphore>,
    /// Held by the picture that is with the writer. Those behind it wait here, so that a message waits for one picture at
    /// most: on a slow card each takes as long as thousands of messages.
    image_turn: Arc<Mutex<()>>,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    /// Requests for a barrier; `None` if this is the only node.
    #[cfg(feature = "cluster")]
    barriers: Option<mpsc::Sender<oneshot::Sender<()>>>,
    /// Read positions for other nodes.
    #[cfg(feature = "cluster")]
    reads_told: Option<mpsc::Sender<(UserId, RoomId, MessageId)>>,
}

/// The threads of the database; see [`join`](Self::join).
#[derive(Debug)]
pub struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Threads {
    /// Waits until both threads have ended, which they do after [`Db::stop`] or when every handle is dropped. Blocks.
    ///
    /// # Errors
    /// If one of them ended in a panic.
    pub fn join(self) -> thread::Result<()> {
        self.writer.join()?;
        self.reader.join()
    }
}

impl Db {
    /// Opens the database at `path`, creating it if it is missing, and starts its threads. No other process can open it
    /// for writing until the handles and the threads are gone. If another process has it open, waits a moment for it to
    /// finish. Blocks.
    pub fn open(path: &Path, options: Options, on_commit: OnCommit) -> Result<(Self, Threads), OpenError> {
        files::create_private(path)?;
        Self::open_locked(Lock::wait(path)?, path, options, on_commit)
    }

    /// Opens the database like [`open`](Self::open), but fails at once if another process has it open: for callers that
    /// can ask that process instead.
    pub fn open_at_once(path: &Path, options: Options, on_commit: OnCommit) -> Result<(Self, Threads), OpenError> {
        files::create_private(path)?;
        Self::open_locked(Lock::take(path)?, path, options, on_commit)
    }

    fn open_locked(
        lock: Lock,
        path: &Path,
        options: Options,
        on_commit: OnCommit,
    ) -> Result<(Self, Threads), OpenError> {
        let mut connection = open::open_writer(path, options.durability)?;
        if sql::follows_log(&connection)? {
            return Err(OpenError::Clustered);
        }
        let skipped = sql::skip_reserved(&mut connection)?;
        if skipped > 0 {
            tracing::info!(skipped, "the last shutdown was not clean: skipping ids that may have been given");
        }
        let (commands, command_queue) = mpsc::channel(WRITE_QUEUE);
        let (db, writer, reader) = Self::assemble(connection, lock, path, options.retention, on_commit, commands)?;
        let writer = thread::Builder::new().name("db-writer".into()).spawn(move || writer.run(command_queue))?;
        Ok((db, Threads { writer, reader }))
    }

    /// Everything except the writer's thread.
    fn assemble(
        connection: Connection,
        lock: Lock,
        path: &Path,
        retention: Retention,
        on_commit: OnCommit,
        commands: mpsc::Sender<Command>,
    ) -> Result<(Self, Writer, JoinHandle<()>), OpenError> {
        let shared = Arc::new(Shared::new(&connection, path, lock, retention)?);
        let (requests, request_queue) = mpsc::channel(READ_QUEUE);
        let reading = sql::open_reader(path)?;
        let writer = Writer::new(connection, path, Arc::clone(&shared), on_commit)?;
        let read_by = Arc::clone(&shared);
        let reader = thread::Builder::new()
            .name("db-reader".into())
            .spawn(move || reader::run(reading, &read_by, request_queue))?;
        let queue_bytes = Arc::new(Semaphore::new(WRITE_QUEUE_BYTES));
        let db = Self {
            commands,
            queue_bytes,
            image_turn: Arc::default(),
            requests,
            shared,
            #[cfg(feature = "cluster")]
            barriers: None,
            #[cfg(feature = "cluster")]
            reads_told: None,
        };
        Ok((db, writer, reader))
    }

    /// Writes down where the server of this database listens, and what people reach it at, for commands to look up with
    /// [`server_addresses`] and [`server_public_url`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(&self, addresses: &[String], public_url: Option<&str>) -> io::Result<()> {
        self.shared.lock.announce(addresses, public_url)
    }

    /// Whether there were no users when the database was opened.
    #[must_use]
    pub fn was_empty(&self) -> bool {
        self.shared.was_empty
    }

    /// The name of this history.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// The last message that was committed.
    #[must_use]
    pub fn last_id(&self) -> MessageId {
        MessageId::new(self.shared.last_id.load(Ordering::Acquire))
    }

    /// Bytes of the file that hold nothing, and are used again before it grows.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.shared.free_pages.load(Ordering::Relaxed).saturating_mul(self.shared.page_size)
    }

    /// Creates a user. If an invitation is given, this uses it once.
    pub async fn register_user(
        &self,
        username: Username,
        password_hash: String,
        invite: Option<Digest>,
    ) -> Result<(), Error> {
        self.apply(Change::RegisterUser { username, password_hash, invite }, Reply::Registered).await?
    }

    /// Carries out an administrator's command.
    pub async fn administer(&self, command: AdminCommand) -> Result<AdminOutcome, AdminError> {
        let rows = command.rows();
        let outcome = self.apply(Change::Administer { command, rows }, Reply::Administered).await;
        outcome.unwrap_or(Err(AdminError::Unavailable))
    }

    /// The deleted users whose messages are still to be erased.
    pub async fn erasures(&self) -> Result<Vec<UserId>, Error> {
        self.request(|reply| Request::Erasures { reply }).await
    }

    /// As a node of a cluster, resolves once everything that any node acknowledged before is applied here; otherwise at
    /// once. Callers wait for this before they answer that something does not exist: a node that is behind would be
    /// wrong.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if this node cannot find out in time.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_async, reason = "a log is waited for"))]
    pub async fn barrier(&self) -> Result<(), Error> {
        #[cfg(feature = "cluster")]
        if let Some(barriers) = &self.barriers {
            let (passed, barrier) = oneshot::channel();
            barriers.try_send(passed).map_err(|_| Error::Unavailable)?;
            return wait_for(barrier).await;
        }
        Ok(())
    }

    /// Whether there are other nodes, whose changes come here a moment later.
    #[must_use]
    pub fn is_one_of_several(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.barriers.is_some();
        #[cfg(not(feature = "cluster"))]
        return false;
    }

    /// The user that a login is checked against; `None` if there is no such user or they are disabled.
    pub async fn credentials(&self, username: Username) -> Result<Option<Credentials>, Error> {
        // The password may have been changed on another node a moment ago.
        self.barrier().await?;
        self.request(|reply| Request::Credentials { username, reply }).await
    }

    /// Starts a session of a user whose password was verified against `password_hash`. `None` if their password has
    /// changed or they have been disabled meanwhile.
    pub async fn login_user(
        &self,
        user: UserId,
        password_hash: String,
        digest: Digest,
        client: String,
    ) -> Result<Option<SessionId>, Error> {
        let keep = USER_SESSIONS_MAX;
        self.apply(Change::LoginUser { user, password_hash, digest, client, keep }, Reply::LoggedIn).await
    }

    /// The live session of a token. Counts as a use of the session.
    pub async fn validate_session(&self, digest: Digest) -> Result<Option<Session>, Error> {
        let now = UnixMillis::now();
        let removals = match self.shared.sessions.find(&digest, expired_at(self.shared.expiry.now()), now) {
            Ok(session) => return Ok(Some(session)),
            Err(removals) => removals,
        };
        let mut session = self.session(digest).await?;
        if session.is_none() && self.is_one_of_several() {
            self.barrier().await?;
            session = self.session(digest).await?;
        }
        if let Some(session) = &session {
            self.shared.sessions.keep(removals, digest, session.clone());
            self.note_use(session, now);
        }
        Ok(session)
    }

    async fn session(&self, digest: Digest) -> Result<Option<Session>, Error> {
        self.request(|reply| Request::Session { digest, used_after: expired_at(self.shared.expiry.now()), reply }).await
    }

    fn note_use(&self, session: &Session, now: UnixMillis) {
        if session.is_to_be_touched(now) {
            self.touch_session(session.id);
        }
    }

    /// Records that a session was used, without waiting for it.
    pub fn touch_session(&self, session: SessionId) {
        // If the queue is full, the next use is recorded instead.
        drop(self.commands.try_send(Command::Apply { change: Change::TouchSession { session }, reply: Reply::None }));
    }

    /// Whether a session that was validated earlier is still live.
    pub async fn session_lives(&self, session: SessionId) -> Result<bool, Error> {
        let used_after = expired_at(self.shared.expiry.now());
        self.request(|reply| Request::SessionLives { session, used_after, reply }).await
    }

    /// Ends the session of a token. Returns whether there was one.
    pub async fn end_session(&self, digest: Digest) -> Result<bool, Error> {
        self.apply_for_a_stranger(Change::EndSession { digest }, Reply::LoggedOut).await
    }

    /// Stores one sender's writes, in order, each nonce once (promise 5). Returns when all of them are on disk
    /// (promise 1).
    pub async fn write(
        &self,
        sender: Sender,
        writes: Vec<Write>,
    ) -> Result<Vec<Result<WriteOutcome, WriteError>>, Error> {
        let bytes = writes.iter().map(Write::bytes).sum::<usize>();
        let bytes = u32::try_from(bytes).map_err(|_| Error::Unavailable)?;
        let queued = Arc::clone(&self.queue_bytes).try_acquire_many_owned(bytes).map_err(|_| Error::Unavailable)?;
        let rules = WriteRules::current();
        self.apply(Change::Write { sender, writes, rules }, |reply| Reply::Written { reply, queued }).await?
    }

    /// The event of each of a user's nonces, if it is remembered.
    pub async fn seen(&self, user: UserId, nonces: Vec<Nonce>) -> Result<Vec<Option<MessageId>>, Error> {
        self.request(|reply| Request::Seen { user, nonces, reply }).await
    }

    /// The first users whose names begin with `prefix`, in whatever case.
    pub async fn people(&self, prefix: String) -> Result<Vec<Person>, Error> {
        self.request(|reply| Request::People { prefix, reply }).await
    }

    /// Whether anybody has registered.
    pub async fn has_users(&self) -> Result<bool, Error> {
        self.request(|reply| Request::HasUsers { reply }).await
    }

    /// Applies a command about a room, as the user of a live session.
    pub async fn change_room(
        &self,
        session: SessionId,
        by: UserId,
        command: RoomCommand,
    ) -> Result<RoomOutcome, RoomError> {
        let outcome = self.apply(Change::Room { session, by, command }, Reply::Room).await;
        outcome.unwrap_or(Err(RoomError::Unavailable))
    }

    /// Applies a command about an account, as the user of a live session.
    pub async fn change_account(
        &self,
        session: SessionId,
        by: UserId,
        command: AccountCommand,
    ) -> Result<AccountOutcome, AccountError> {
        let outcome = self.apply(Change::Account { session, by, command }, Reply::Account).await;
        outcome.unwrap_or(Err(AccountError::Unavailable))
    }

    /// Stores a picture, for a message that its owner sends next.
    pub async fn store_image(&self, session: SessionId, owner: UserId, image: NewImage) -> Result<ImageId, ImageError> {
        let change = Change::StoreImage { session, owner, image, at_most: UNNAMED_IMAGES_MAX };
        let stored = tokio::time::timeout(STORE_TIMEOUT, async {
            let _turn = self.image_turn.lock().await;
            self.apply(change, Reply::ImageStored).await
        });
        stored.await.unwrap_or(Err(Error::Unavailable)).unwrap_or(Err(ImageError::Unavailable))
    }

    /// The type and size of a picture, if the user may see it.
    pub async fn image(&self, user: UserId, image: ImageId) -> Result<Option<ImageInfo>, Error> {
        self.request(|reply| Request::Image { user, image, reply }).await
    }

    /// A part of a picture, from byte `from`; `None` if the user may not see it, or no longer.
    pub async fn image_piece(&self, user: UserId, image: ImageId, from: u32) -> Result<Option<Vec<u8>>, Error> {
        self.request(|reply| Request::ImagePiece { user, image, from, reply }).await
    }

    /// Searches some of the messages, after waiting for a place among the searches. `None` if the user may not read the
    /// room in the query. Dropping the future ends the search.
    pub async fn search(&self, query: SearchQuery) -> Result<Option<SearchPage>, Error> {
        let place = tokio::time::timeout(STORE_TIMEOUT, Arc::clone(&self.shared.searches).acquire_owned()).await;
        let place = place.map_err(|_| Error::Unavailable)?.map_err(|_| Error::Unavailable)?;
        let (path, stop) = (self.shared.path.clone(), Arc::new(AtomicBool::new(false)));
        let _stops = StopOnDrop(Arc::clone(&stop));
        let looking = tokio::task::spawn_blocking(move || {
            let found = search::search(&path, &query, &stop);
            drop(place);
            found
        });
        looking.await.unwrap_or(Err(Error::Unavailable))
    }

    /// The live sessions of a user, the last used first.
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<LoginRow>, Error> {
        let used_after = expired_at(self.shared.expiry.now());
        self.request(|reply| Request::SessionsOf { user, used_after, reply }).await
    }

    /// The newest invitations that have not expired, of one user or of all.
    pub async fn invites(&self, of: Option<UserId>) -> Result<Vec<InviteRow>, Error> {
        let now = self.shared.expiry.now();
        self.request(|reply| Request::Invites { of, now, reply }).await
    }

    /// Some of the messages that a user has written after `after`, in any room, ascending.
    pub async fn messages_by(&self, user: UserId, after: MessageId) -> Result<MessagesBy, Error> {
        self.request(|reply| Request::MessagesBy { user, after, reply }).await
    }

    /// The rooms that a user may read, as they see them.
    pub async fn rooms(&self, user: UserId) -> Result<Vec<RoomView>, Error> {
        self.request(|reply| Request::Rooms { user, reply }).await
    }

    /// A room as a user sees it; `None` if they may not read it.
    pub async fn room(&self, user: UserId, room: RoomId) -> Result<Option<RoomView>, Error> {
        self.request(|reply| Request::Room { user, room, reply }).await
    }

    /// Whether everybody reads a room.
    #[must_use]
    pub fn is_open(&self, room: RoomId) -> bool {
        room == RoomId::LOBBY || self.shared.open_rooms.read().unwrap_or_else(PoisonError::into_inner).contains(&room)
    }

    /// Notes that a user has read up to an event in a room that they may read. Returns the position if it is further
    /// than before; it is at most the last event.
    pub async fn note_read(&self, user: UserId, room: RoomId, id: MessageId) -> Option<MessageId> {
        let id = id.min(self.last_id());
        // What was read before this server started is stored; a position never falls below it.
        if !self.shared.reads.knows(user, room) {
            self.shared.reads.learn(user, room, self.room(user, room).await.ok()??.read);
        }
        let is_news = self.shared.reads.note(user, room, id);
        #[cfg(feature = "cluster")]
        if is_news && let Some(told) = &self.reads_told {
            // If the queue is full, a later position makes up for this one.
            told.try_send((user, room, id)).ok();
        }
        is_news.then_some(id)
    }

    /// Notes how far a user has read at another node. Returns whether that is further than before.
    #[cfg(feature = "cluster")]
    pub(crate) fn note_read_elsewhere(&self, user: UserId, room: RoomId, id: MessageId) -> bool {
        self.shared.reads.note(user, room, id)
    }

    /// Stores the read positions that wait for a commit. Called every few seconds.
    pub async fn store_reads(&self) -> Result<(), Error> {
        if self.shared.reads.wait() { self.apply(Change::Check, Reply::Applied).await } else { Ok(()) }
    }

    /// A page of history and whether there is more beyond it, for the live session of a token; `None` if there is no
    /// such session. Counts as a use of the session.
    pub async fn message_history(
        &self,
        digest: Digest,
        room: RoomId,
        page: PageQuery,
        limit: u32,
    ) -> Result<Option<History>, Error> {
        let now = UnixMillis::now();
        let used_after = expired_at(self.shared.expiry.now());
        let found = self.request(|reply| Request::History { digest, used_after, room, page, limit, reply }).await?;
        if let Some(found) = &found {
            self.note_use(&found.session, now);
        }
        Ok(found)
    }

    /// The first messages of a range in a room, ascending, as many as are held in memory at once; empty at its end, or
    /// if the user may not read the room any more.
    pub async fn messages_in(&self, user: UserId, room: RoomId, range: IdRange) -> Result<Vec<Message>, Error> {
        self.request(|reply| Request::MessagesIn { user, room, range, reply }).await
    }

    /// A chunk of the events that a reader has missed, unless they are more than `at_most`.
    pub async fn backlog(&self, query: BacklogQuery, at_most: u32) -> Result<Backlog, Error> {
        self.request(|reply| Request::Backlog { query, at_most, reply }).await
    }

    /// Removes some of what has expired. Returns how long to wait at most before the next call.
    pub async fn clean(&self) -> Result<Duration, Error> {
        let (now, started) = (self.shared.expiry.now(), Instant::now());
        let sweep = self.cleaner().next_sweep(self.last_id(), now);
        let swept = self.apply(Change::Sweep(sweep), Reply::Swept).await?;
        // If the disk took long, everybody else gets at least as long.
        Ok(self.cleaner().note(swept, now).max(started.elapsed()))
    }

    /// Moves the log into the database if that is due, in a thread where it may wait for the disk.
    pub async fn settle(&self) {
        let commits = self.shared.commits.load(Ordering::Relaxed);
        let settler = |shared: &Shared| {
            shared.settler.lock().unwrap_or_else(PoisonError::into_inner).is_due(commits, Instant::now())
        };
        if !settler(&self.shared) {
            return;
        }
        let path = self.shared.path.clone();
        match tokio::task::spawn_blocking(move || settle::settle(&path)).await {
            Ok(Ok(true)) => {
                self.shared.settler.lock().unwrap_or_else(PoisonError::into_inner).note(commits, Instant::now());
            }
            Ok(Ok(false)) => tracing::debug!("checkpoint postponed: a reader is active"),
            Ok(Err(error)) => tracing::warn!(%error, "checkpoint failed"),
            Err(error) => tracing::error!(%error, "checkpoint failed"),
        }
    }

    fn cleaner(&self) -> MutexGuard<'_, Cleaner> {
        self.shared.cleaner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks whether the database works, by reading a row and by a transaction, which writes if the last one failed.
    pub async fn check(&self) -> Result<(), Error> {
        let reading = self.request(|reply| Request::Check { reply });
        let writing = async {
            // Strangers ask for this, and what they cause in a log is paced.
            if self.is_one_of_several() {
                return self.barrier().await;
            }
            self.apply_for_a_stranger(Change::Check, Reply::Applied).await
        };
        tokio::try_join!(reading, writing).map(drop)
    }

    /// Stops the threads once everything that was sent before is done.
    pub async fn stop(&self) {
        // If a queue is closed, its thread has ended already. The reader goes first: SQLite moves its log into the
        // database when the last connection is closed, and only if that one can write.
        drop(self.requests.send(Request::Stop).await);
        self.requests.closed().await;
        drop(self.commands.send(Command::Stop).await);
    }

    /// Resolves when one of the threads has ended, for whatever reason. Cancel safe.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.commands.closed() => {}
            () = self.requests.closed() => {}
        }
    }

    async fn apply<T>(&self, change: Change, reply: impl FnOnce(oneshot::Sender<T>) -> Reply) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let command = Command::Apply { change, reply: reply(sender) };
        self.commands.try_send(command).map_err(|_| Error::Unavailable)?;
        wait_for(answer).await
    }

    /// Applies a change that anybody can request without a session: it leaves [`WRITE_QUEUE_SPARED`] places of the
    /// queue to others.
    async fn apply_for_a_stranger<T>(
        &self,
        change: Change,
        reply: impl FnOnce(oneshot::Sender<T>) -> Reply,
    ) -> Result<T, Error> {
        if self.commands.capacity() <= WRITE_QUEUE_SPARED {
            Err(Error::Unavailable)
        } else {
            self.apply(change, reply).await
        }
    }

    async fn request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|_| Error::Unavailable)?;
        wait_for(answer).await
    }
}

/// Ends a search when its future is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for an answer. A thread that cannot give one drops the reply.
async fn wait_for<T>(answer: oneshot::Receiver<T>) -> Result<T, Error> {
    match tokio::time::timeout(STORE_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Error::Unavailable),
    }
}
