//! The reader thread: a connection that only reads, so that a page of history never delays a commit.

use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Credentials, Page, Session, sql};
use crate::config::{CHUNK_MAX_BYTES, CHUNK_MAX_MESSAGES, FAULT_SAID_AGAIN};
use crate::model::{Digest, Message, MessageId, SessionId, UnixMillis, Username};

/// All that the thread can do. A reply that is dropped says that it could not.
#[derive(Debug)]
pub(super) enum Request {
    Credentials { username: Username, reply: oneshot::Sender<Option<Credentials>> },
    Session { digest: Digest, used_after: UnixMillis, reply: oneshot::Sender<Option<Session>> },
    SessionLives { session: SessionId, used_after: UnixMillis, reply: oneshot::Sender<bool> },
    History { page: Page, limit: u32, reply: oneshot::Sender<(Vec<Message>, bool)> },
    MessagesAfter { id: MessageId, reply: oneshot::Sender<Vec<Message>> },
    CountAfter { id: MessageId, at_most: u32, reply: oneshot::Sender<u32> },
    Stop,
}

/// Answers requests in order, until told to stop or every handle is gone.
pub(super) fn run(connection: Connection, mut requests: mpsc::Receiver<Request>) {
    let mut said: Option<Instant> = None;
    while let Some(request) = requests.blocking_recv() {
        let connection = &connection;
        let read = match request {
            Request::Credentials { username, reply } => answer(reply, sql::credentials(connection, &username)),
            Request::Session { digest, used_after, reply } => {
                answer(reply, sql::session(connection, &digest, used_after))
            }
            Request::SessionLives { session, used_after, reply } => {
                answer(reply, sql::session_lives(connection, session, used_after))
            }
            Request::History { page, limit, reply } => answer(reply, sql::page(connection, page, limit)),
            Request::MessagesAfter { id, reply } => {
                answer(reply, sql::messages_after(connection, id, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES))
            }
            Request::CountAfter { id, at_most, reply } => answer(reply, sql::count_after(connection, id, at_most)),
            Request::Stop => break,
        };
        // Who asks for what cannot be read, again and again, must not fill the log too.
        if let Err(error) = read
            && said.is_none_or(|at| at.elapsed() > FAULT_SAID_AGAIN)
        {
            tracing::error!(%error, "reading from the database fails");
            said = Some(Instant::now());
        }
    }
    // Before the queue, whose end says that the connection is closed.
    drop(connection);
}

fn answer<T>(reply: oneshot::Sender<T>, result: rusqlite::Result<T>) -> rusqlite::Result<()> {
    // Who asked may have gone.
    result.map(|value| drop(reply.send(value)))
}
